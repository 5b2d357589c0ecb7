#![allow(clippy::unwrap_used)]
//! What simulations show. These few seeds are for `cargo test`; the gate runs a hundred of each scenario optimised
//! (`scripts/sim --gate`).

use super::*;
use crate::farm::op::{JobSetting, Op};
use crate::farm::planted::{Bug, plant};

/// Seeds that once broke something: scenario, seed, and what it was. The draws of a seed change with the simulator, so that
/// these repeat the circumstances rather than the day; what was wrong has its own test beside the code that was.
const REGRESSIONS: &[(&str, u64, &str)] = &[
    ("calm", 1006, "idle machines that chose the same backup at once all kept it"),
    ("calm", 1224, "three primaries ran on together"),
    ("crash", 52, "the map of a blob that an earlier run left half fetched was never asked for"),
    ("chaos", 83, "the same, among everything else"),
    ("crash", 2035, "a waiting unit was taken over and yielded in turn, thousands of times a minute"),
    ("crash", 2149, "the same"),
    ("crash", 2229, "the same"),
    (
        "ruled-chaos",
        33,
        "one machine left a frame by its claim's score, the other by the job's limit of machines, again and again",
    ),
    ("disks", 467, "a frame that had failed once was left to machines that kept off the job"),
    (
        "chaos",
        7109,
        "a store that died before its farm could promise a file had it on record, which no delivery can know",
    ),
    ("spread", 5, "of two settings that one machine made before the first was on its disk, the first was kept"),
];

/// Runs seeds of a scenario; a failure names the seed to run again with `scripts/sim`.
#[track_caller]
fn check(name: &str, seeds: std::ops::Range<u64>) {
    let scenario = scenario(name).unwrap();
    seeds.for_each(|seed| check_one(&scenario, seed, ""));
}

#[track_caller]
fn check_one(scenario: &Scenario, seed: u64, about: &str) {
    if let Some(violation) = run(scenario, seed).violation {
        let name = scenario.name;
        let (at, invariant, detail) = (violation.at, violation.invariant, violation.detail);
        panic!("scenario {name}, seed {seed}, at {at:?}: {invariant} was broken: {detail} {about}");
    }
}

/// The first of a few seeds in which a bug is found, and what it broke.
fn find(bug: Bug, name: &str, seeds: std::ops::Range<u64>) -> Option<(u64, Invariant)> {
    plant(Some(bug));
    let scenario = scenario(name).unwrap();
    let found = seeds.into_iter().find_map(|seed| Some((seed, run(&scenario, seed).violation?.invariant)));
    plant(None);
    found
}

#[test]
fn one_seed_is_one_history() {
    let scenario = scenario("chaos").unwrap();
    let (a, b, c) = (run(&scenario, 1), run_logged(&scenario, 1, 10).0, run(&scenario, 2));
    assert_eq!((a.trace, a.messages, a.simulated), (b.trace, b.messages, b.simulated));
    assert_ne!(a.trace, c.trace);
}

#[test]
fn several_threads_make_the_history_of_one() {
    let scenario = Scenario { nodes: 24, frames: 60, ..scenario("hundred").unwrap() };
    let [a, b] = [1, 3].map(|threads| run_on(threads, &scenario, 1));
    assert_eq!((a.violation, a.units), (None, 60));
    assert_eq!((a.trace, a.messages, a.simulated, a.spread), (b.trace, b.messages, b.simulated, b.spread));
}

#[test]
fn the_work_told_of_a_seed_is_the_work_simulated() {
    let scenario = scenario("six").unwrap();
    let (told, report) = (work(&scenario, 3), run(&scenario, 3));
    let machines = told.speeds.iter().map(|speed| (*speed, scenario.slots)).collect();
    let told = peers::Workload { jobs: vec![(Duration::ZERO, told.frames)], machines, outages: Vec::new() };
    assert_eq!((told.jobs[0].1.len(), told.bound().as_millis()), (report.units, report.bound.as_millis()));
}

#[test]
fn what_was_found_once_stays_mended() {
    for (name, seed, about) in REGRESSIONS {
        // No more machines than those that took part.
        let mut scenario = scenario(name).unwrap();
        scenario.nodes = scenario.nodes.min(6);
        check_one(&scenario, *seed, about);
    }
}

#[test]
fn of_two_settings_made_before_either_is_on_disk_the_later_counts() {
    let actor = ActorId { node: NodeId([1; 32]), boot: crate::farm::id::BootId([1; 8]) };
    let mut job = crate::farm::state::JobState::new(JobId([1; 16]));
    for (seq, paused) in [(0, true), (1, false)] {
        job.apply(actor, seq, Op::Set { lamport: 1, setting: JobSetting::Paused(paused), at_ms: 0 });
    }
    assert!(!job.is_paused());
}

#[test]
fn all_is_well_when_nothing_goes_wrong() {
    check("calm", 0..1);
}

#[test]
fn lost_doubled_and_overtaken_messages_lose_nothing() {
    check("lossy", 0..2);
}

#[test]
fn a_crash_between_any_two_effects_loses_nothing_that_was_durable() {
    check("crash", 0..2);
}

#[test]
fn a_cut_network_wastes_work_and_loses_none() {
    check("partition", 0..2);
}

#[test]
fn a_disk_that_is_slow_or_full_or_loses_results_ends_nothing_early() {
    check("disks", 0..2);
}

#[test]
fn a_machine_that_slept_does_no_harm() {
    check("suspend", 0..2);
}

#[test]
fn commands_win_wherever_they_are_given() {
    check("commands", 0..2);
}

#[test]
fn a_submitter_that_is_away_finds_everything_rendered_when_it_returns() {
    check("away", 0..1);
}

#[test]
fn liars_are_believed_nothing_they_cannot_prove() {
    check("liars", 0..1);
}

#[test]
fn the_rules_of_jobs_hold_whatever_goes_wrong() {
    check("rules", 0..1);
    check("ruled-chaos", 0..1);
}

#[test]
fn everything_at_once_ends_well() {
    check("chaos", 0..2);
}

#[test]
fn what_is_taken_over_from_another_job_is_the_same_whatever_goes_wrong() {
    let scenario = scenario("resubmit").unwrap();
    check("resubmit", 0..2);
    let reused: usize = (0..2).map(|seed| run(&scenario, seed).reused).sum();
    assert!(reused > 0);
}

#[test]
fn machines_that_tell_only_a_few_lose_nothing_either() {
    check("sparse", 0..1);
}

#[test]
fn sending_before_persisting_is_found() {
    let found = find(Bug::SendBeforePersist, "calm", 0..1);
    assert_eq!(found.map(|(_, invariant)| invariant), Some(Invariant::AnnouncedIsDurable));
}

#[test]
fn a_wrong_tie_break_is_found() {
    let found = find(Bug::WrongTieBreak, "commands", 0..10);
    let invariants = [Invariant::FoldIsFunction, Invariant::FoldIsRight, Invariant::EqualLedgersEqualJobs];
    assert!(found.is_some_and(|(_, invariant)| invariants.contains(&invariant)), "{found:?}");
}

#[test]
fn an_ignored_epoch_is_found() {
    let found = find(Bug::EpochIgnored, "commands", 0..10);
    assert!(found.is_some(), "{found:?}");
}

#[test]
fn an_ignored_loss_is_found() {
    let found = find(Bug::LossIgnored, "disks", 0..10);
    let invariants = [Invariant::FoldIsRight, Invariant::EverythingEnds];
    assert!(found.is_some_and(|(_, invariant)| invariants.contains(&invariant)), "{found:?}");
}

#[test]
fn taking_over_what_was_wanted_anew_is_found() {
    let found = find(Bug::RequeuedReused, "resubmit", 0..10);
    assert_eq!(found.map(|(_, invariant)| invariant), Some(Invariant::ReusedIsSame));
}

#[test]
fn a_failure_is_made_small() {
    let scenario = Scenario { frames: 8, jobs: 1, ..scenario("commands").unwrap() };
    plant(Some(Bug::EpochIgnored));
    let seed = (0..20).find(|seed| run(&scenario, *seed).violation.is_some()).unwrap();
    let shrunk = shrink(&scenario, seed).unwrap();
    plant(None);
    assert!(shrunk.scenario.frames < 8 && shrunk.scenario.faults.pause.is_none(), "{shrunk:?}");
    assert!(!shrunk.events.is_empty() && shrunk.runs > 1);
}
