#![allow(clippy::unwrap_used)]
use super::*;

/// Runs seeds of a scenario; a failure names the seed to run again with `scripts/sim`.
#[track_caller]
fn check(name: &str, seeds: std::ops::Range<u64>) {
    let scenario = scenario(name).unwrap();
    for seed in seeds {
        let report = run(&scenario, seed);
        if let Some(violation) = report.violation {
            panic!(
                "scenario {name}, seed {seed}, at {:?}: {} was broken: {}",
                violation.at, violation.invariant, violation.detail
            );
        }
    }
}

#[test]
fn one_seed_is_one_history() {
    let scenario = scenario("chaos").unwrap();
    let (a, b, c) = (run(&scenario, 1), run(&scenario, 1), run(&scenario, 2));
    assert_eq!((a.trace, a.messages, a.simulated), (b.trace, b.messages, b.simulated));
    assert_ne!(a.trace, c.trace);
}

#[test]
fn all_is_well_when_nothing_goes_wrong() {
    check("calm", 0..6);
}

#[test]
fn lost_doubled_and_overtaken_messages_lose_nothing() {
    check("lossy", 0..15);
}

#[test]
fn a_crash_loses_nothing_that_was_durable() {
    check("crash", 0..15);
}

#[test]
fn a_cut_network_wastes_work_and_loses_none() {
    check("partition", 0..12);
}

#[test]
fn a_machine_that_slept_does_no_harm() {
    check("suspend", 0..12);
}

#[test]
fn commands_win_wherever_they_are_given() {
    check("commands", 0..15);
}

#[test]
fn a_submitter_that_is_away_finds_everything_rendered_when_it_returns() {
    check("away", 0..8);
}

#[test]
fn everything_at_once_ends_well() {
    check("chaos", 0..10);
}
