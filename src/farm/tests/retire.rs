//! Jobs that are forgotten, and what a machine lets go of once they are over.

use super::reuse::{SECOND, again};
use super::*;

#[test]
fn a_stale_machine_that_comes_back_with_a_deleted_job_forgets_it_like_everyone() {
    let mut trio = Trio::new(3);
    let job = trio.submit(0, 3);
    trio.wait(Duration::from_secs(2));
    trio.kill(2);
    let stale = trio.at(2).rows.clone();
    trio.finish();
    let owner = trio.names[0];
    trio.give(owner, Input::Command { job, command: JobCommand::Delete });
    trio.wait(Duration::from_secs(2));
    assert!(!trio.knows(0, job) && !trio.knows(1, job));
    assert_eq!((trio.at(0).retired.clone(), trio.at(1).retired.clone()), (vec![job], vec![job]));
    // The third has the whole job, its own ops too, and says so to everyone.
    trio.restart(2, 9);
    assert!(stale.iter().any(|row| matches!(row, Row::Op { log, .. } if *log == job)) && trio.at(2).retired == [job]);
    trio.wait(Duration::from_secs(4));
    (0..3).for_each(|at| assert!(!trio.knows(at, job)));
    let digests: BTreeSet<_> = trio.machines.values().map(|machine| machine.farm.ledger().digest()).collect();
    assert_eq!(digests.len(), 1);
    // What a disk has of it after that is its id, for ever.
    for (at, boot) in [(0, 20), (2, 21)] {
        trio.restart(at, boot);
        assert!(!trio.knows(at, job) && trio.at(at).farm.ledger().is_retired(job));
    }
}

#[test]
fn a_job_that_goes_on_cannot_be_deleted() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 3);
    let owner = trio.names[0];
    trio.give(owner, Input::Command { job, command: JobCommand::Delete });
    trio.wait(Duration::from_secs(2));
    assert!(trio.knows(0, job) && trio.knows(1, job));
    let rules = Rules { after: Some(job), ..Rules::default() };
    let next = trio.submit_spec(0, JobSpec { rules, ..spec(1) });
    trio.give(owner, Input::Command { job, command: JobCommand::Cancel("ada".into()) });
    trio.give(owner, Input::Command { job, command: JobCommand::Delete });
    trio.wait(Duration::from_secs(2));
    assert!(trio.knows(0, job), "another job is to come after it");
    let change = JobCommand::Set(JobSetting::After(None));
    trio.give(owner, Input::Command { job: next, command: change });
    trio.wait(Duration::from_secs(2));
    trio.give(owner, Input::Command { job, command: JobCommand::Delete });
    trio.wait(Duration::from_secs(2));
    assert!(!trio.knows(0, job) && !trio.knows(1, job));
}

#[test]
fn a_job_that_is_over_is_forgotten_after_the_keep_time_whatever_restarts_there_were() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 2);
    trio.finish();
    assert!(trio.at(0).farm.jobs()[&job].is_over());
    trio.leap(KEEP / 2);
    assert!(trio.knows(0, job));
    (0..2).for_each(|at| trio.restart(at, 50 + at as u8));
    trio.leap(KEEP / 2 - KEEP_REVIEW * 8);
    assert!(trio.knows(0, job));
    trio.leap(KEEP_REVIEW * 16);
    assert!(!trio.knows(0, job) && !trio.knows(1, job));
}

#[test]
fn a_job_whose_submitter_never_comes_back_is_forgotten_after_the_keep_time() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 2);
    trio.wait(Duration::from_secs(2));
    trio.kill(0);
    trio.leap(KEEP - KEEP_REVIEW * 4);
    assert!(trio.knows(1, job) && !trio.at(1).farm.jobs()[&job].is_over());
    trio.leap(KEEP_REVIEW * 8);
    assert!(!trio.knows(1, job));
    // It comes back after all, and has to believe it.
    trio.restart(0, 77);
    trio.wait(Duration::from_secs(4));
    assert!(!trio.knows(0, job));
}

#[test]
fn what_a_job_lets_go_of_stays_while_another_is_brought_together_from_it() {
    let mut trio = Trio::new(2);
    trio.describe(0, |own| own.slots = 0);
    trio.at(0).is_slow = true;
    let first = trio.submit_spec(0, again(2));
    for _ in 0..4 {
        trio.ends(1, |_| {});
        trio.wait(SECOND);
    }
    // Its only holder, as far as it says, is the second.
    let second = trio.submit_spec(0, again(2));
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, second).len(), 2);
    let node = trio.names[0];
    let of = |input: &Input| match input {
        Input::Delivered { job, .. } | Input::VideoFinished { job, .. } => *job == first,
        _ => false,
    };
    for _ in 0..4 {
        let (answers, kept): (Vec<Input>, Vec<Input>) =
            std::mem::take(&mut trio.at(0).unanswered).into_iter().partition(of);
        trio.at(0).unanswered = kept;
        answers.into_iter().for_each(|input| trio.give(node, input));
        trio.wait(SECOND);
    }
    let blobs: BTreeSet<BlobId> = [1, 2, 101, 102].map(|blob| BlobId([blob; 32])).into();
    assert!(trio.at(0).farm.jobs()[&first].is_over() && !trio.at(0).farm.jobs()[&second].is_over());
    assert!(trio.at(0).forgotten.is_empty() && trio.at(0).farm.blobs_in_use().is_superset(&blobs));
    trio.at(0).is_slow = false;
    trio.answer(0);
    trio.wait(SECOND);
    assert!(trio.at(0).farm.jobs()[&second].is_over());
    assert_eq!(trio.at(0).forgotten, blobs);
    assert!(trio.at(0).farm.blobs_in_use().is_disjoint(&blobs), "its store may free them");
    assert!(trio.at(1).farm.blobs_in_use().is_superset(&blobs));
}

#[test]
fn what_is_let_go_of_and_said_to_be_here_for_another_job_in_the_same_moment_stays() {
    for is_earlier in [true, false] {
        let mut trio = Trio::new(2);
        let first = trio.has_rendered(1, again(1), |_| {});
        let second = trio.submit_spec(0, spec(1));
        let node = trio.names[1];
        let now = Now { mono: trio.now, wall_ms: 0 };
        let mut rng = StdRng::seed_from_u64(1);
        let farm = &mut trio.machines.get_mut(&node).expect("a machine").farm;
        let blobs = || vec![BlobId([1; 32])];
        let mut tokens = Vec::new();
        let mut forgotten = Vec::new();
        let mut turn = |farm: &mut Farm, input: Input, tokens: &mut Vec<_>| {
            for effect in farm.handle(now, input, &mut rng) {
                match effect {
                    Effect::Persist { token, .. } => tokens.extend(token),
                    Effect::Forget { blobs } => forgotten.extend(blobs),
                    _ => {}
                }
            }
        };
        farm.say(first, &Op::Drops { blobs: blobs() });
        if !is_earlier {
            // Of two batches the second is not durable yet when the first is.
            turn(farm, Input::Tick, &mut tokens);
        }
        farm.say(second, &Op::Holds { blobs: blobs() });
        turn(farm, Input::Tick, &mut tokens);
        for token in std::mem::take(&mut tokens) {
            turn(farm, Input::Persisted(token), &mut tokens);
        }
        assert!(forgotten.is_empty() && farm.blobs_in_use().contains(&BlobId([1; 32])), "{is_earlier}");
    }
}
