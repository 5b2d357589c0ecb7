//! Stories of the ledger: members that tell two histories, scenes that change.

use super::*;

/// One history of a member that signs another one too.
fn signed(by: &Sealer, job: JobId, ops: &[Op]) -> Vec<Suffix> {
    let mut ledger = Ledger::new(by.clone(), BootId([9; 8]), [0; 32]);
    for op in ops {
        ledger.append(job, op).expect("a sound op");
        let mark = ledger.take_rows().expect("rows").mark;
        ledger.durable(mark);
    }
    ledger.suffix(job, ledger.me(), 0).expect("pieces")
}

#[test]
fn a_member_that_tells_two_histories_counts_for_what_both_begin_with_on_every_machine() {
    let mut trio = Trio::new(3);
    let job = trio.submit(0, 6);
    trio.wait(Duration::from_secs(1));
    let liar = Sealer::from_seed(&[9; 32]);
    let first = Op::Set { lamport: 1, setting: JobSetting::Priority(70), at_ms: 0 };
    let units = UnitSet::whole(vec![1, 2]).expect("frames");
    let requeue = signed(&liar, job, &[first.clone(), Op::Requeue { units, epoch: 5, by: "liar".into(), at_ms: 0 }]);
    let pause = Op::Set { lamport: 2, setting: JobSetting::Paused(true), at_ms: 0 };
    let pause = signed(&liar, job, &[first, pause]);
    // Told at once to two machines that do not hear each other at the moment.
    let (one, two) = (trio.names[0], trio.names[1]);
    let push = |from, suffixes| Input::Received { from, message: Message::Push(suffixes).into() };
    trio.inbox.push_back((one, push(two, requeue)));
    trio.inbox.push_back((two, push(one, pause)));
    trio.drain();
    trio.wait(Duration::from_secs(4));
    let views: Vec<_> = trio.machines.values().map(|machine| &machine.farm.jobs()[&job]).collect();
    assert!(views.iter().all(|view| *view == views[0]), "all agree");
    assert!(!views[0].is_over() && !views[0].is_paused());
    assert_eq!((views[0].revision, views[0].unit(Unit::whole(1)).epoch), (0, 0));
    assert_eq!(views[0].priority(), 70, "what both begin with counts");
    trio.finish();
    assert!(trio.at(0).farm.jobs()[&job].is_over());
    assert_eq!(trio.at(0).delivered.len(), 6);
    let digests: BTreeSet<_> = trio.machines.values().map(|machine| machine.farm.ledger().digest()).collect();
    assert_eq!(digests.len(), 1);
    // After a start too.
    trio.restart(1, 40);
    trio.wait(Duration::from_secs(4));
    assert_eq!(trio.machines[&two].farm.jobs()[&job], trio.machines[&one].farm.jobs()[&job]);
}

fn revise(job: JobId, frames: &[i32], bundle: BlobId) -> Input {
    let JobSpec { file, bundle_bytes, min_version, settings, needs, .. } = spec(1);
    let revision = Box::new(Revision { file, bundle, bundle_bytes, min_version, settings, needs });
    let units = UnitSet::whole(frames.to_vec()).expect("frames");
    Input::Revise { call: 7, job, units, revision, by: "ada".into() }
}

#[test]
fn revised_frames_alone_are_rendered_anew_and_from_the_new_scene() {
    let mut trio = Trio::new(3);
    let job = trio.submit(0, 6);
    trio.finish();
    assert!(trio.at(0).farm.jobs()[&job].is_over());
    let before = trio.at(0).farm.jobs()[&job].blobs();
    // Somebody else changed the scene, on a machine of their own.
    let (owner, other, new) = (trio.names[0], trio.names[1], BlobId([200; 32]));
    trio.at(1).store.insert(new);
    (0..3).for_each(|at| trio.at(at).begun.clear());
    trio.at(0).delivered.clear();
    trio.give(other, revise(job, &[2, 3], new));
    trio.give(other, revise(job, &[9], new));
    assert_eq!(trio.at(1).answers, vec![(7, true), (7, false)], "a frame the job does not have is refused");
    trio.finish();
    let mut begun: Vec<_> = trio.machines.values().flat_map(|machine| machine.begun.clone()).collect();
    begun.sort_unstable();
    begun.dedup();
    assert_eq!(begun, vec![(2, 1, new), (3, 1, new)]);
    let submitter = trio.at(0);
    submitter.delivered.sort_unstable();
    assert_eq!((submitter.delivered.clone(), submitter.videos), (vec![2, 3], 2), "and the whole video is made anew");
    let state = &trio.machines[&owner].farm.jobs()[&job];
    assert!(state.is_over() && state.blobs().is_superset(&before), "the earlier version is kept with the job");
    assert!(state.history.iter().any(|entry| entry.action == "frames 2-3 revised by ada"));
    // What is requeued later comes from the same revision.
    let units = UnitSet::whole(vec![1, 2]).expect("frames");
    (0..3).for_each(|at| trio.at(at).begun.clear());
    trio.give(owner, Input::Command { job, command: JobCommand::Requeue { units, by: "ada".into() } });
    trio.finish();
    let mut begun: Vec<_> = trio.machines.values().flat_map(|machine| machine.begun.clone()).collect();
    begun.sort_unstable();
    begun.dedup();
    assert_eq!(begun, vec![(1, 2, BUNDLE), (2, 2, new)]);
}

#[test]
fn a_unit_begun_from_the_old_scene_is_stopped_when_its_frame_is_revised() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 2);
    trio.wait(Duration::from_secs(2));
    let (owner, new) = (trio.names[0], BlobId([201; 32]));
    trio.at(0).store.insert(new);
    trio.give(owner, revise(job, &[1, 2], new));
    trio.wait(Duration::from_secs(2));
    let last =
        |trio: &Trio, at: usize| trio.machines[&trio.names[at]].begun.last().map(|(_, epoch, from)| (*epoch, *from));
    assert_eq!((last(&trio, 0), last(&trio, 1)), (Some((1, new)), Some((1, new))));
    trio.finish();
    let state = &trio.at(0).farm.jobs()[&job];
    assert!(state.is_over() && state.all_units().all(|unit| state.unit(unit).current_results().count() == 1));
}

#[test]
fn of_two_revisions_at_once_one_wins_everywhere_and_results_of_the_other_do_not_count() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 2);
    trio.finish();
    let (one, two) = (trio.names[0], trio.names[1]);
    let (first, second) = (BlobId([202; 32]), BlobId([203; 32]));
    // Cut apart, each revises the same frame, and renders it.
    for (at, other) in [(0, two), (1, one)] {
        let here = trio.names[at];
        trio.give(here, Input::Disconnected { node: other });
    }
    trio.wait(Duration::from_secs(6));
    trio.at(0).store.insert(first);
    trio.at(1).store.insert(second);
    trio.give(one, revise(job, &[1], first));
    trio.give(two, revise(job, &[1], second));
    trio.wait(Duration::from_secs(1));
    trio.finish();
    for (at, other) in [(0, two), (1, one)] {
        let boot = trio.machines[&other].farm.me().boot;
        let here = trio.names[at];
        trio.give(here, Input::Connected { node: other, boot });
    }
    trio.finish();
    let (a, b) = (&trio.machines[&one].farm.jobs()[&job], &trio.machines[&two].farm.jobs()[&job]);
    assert_eq!(a, b);
    let unit = Unit::whole(1);
    assert!(a.is_over() && a.unit(unit).has_result());
    let wins = a.spec_of(a.unit(unit).revision()).expect("a revision").bundle;
    assert!(a.unit(unit).current_results().all(|(_, outcome)| outcome.revision == a.unit(unit).revision()));
    let by = |at: usize| trio.machines[&trio.names[at]].begun.iter().filter(|one| one.0 == 1 && one.1 == 1).count();
    assert!(wins == first || wins == second);
    assert!(by(0) + by(1) >= 2);
    let collector = &trio.machines[&one].farm.collectors()[&job];
    assert!(collector.ended && collector.delivered[&unit] == a.unit(unit).version());
}

#[test]
fn that_a_member_signed_two_histories_is_told_at_once_in_a_large_swarm_too() {
    let mut trio = Trio::with(3, |a, b| a.abs_diff(b) == 1, Some((0, 1)));
    let job = trio.submit(0, 3);
    trio.wait(Duration::from_secs(5));
    let liar = Sealer::from_seed(&[99; 32]);
    let (first, second) = (trio.names[0], trio.names[1]);
    let told = |trio: &mut Trio, priority| {
        let says = Op::Set { lamport: 9, setting: JobSetting::Priority(priority), at_ms: 0 };
        let message = Message::Push(signed(&liar, job, &[says])).into();
        trio.give(first, Input::Received { from: second, message });
    };
    told(&mut trio, 1);
    trio.wait(Duration::from_secs(1));
    // No more time passes: what gathers, and what is compared, comes later.
    told(&mut trio, 2);
    let knows = |at: usize| trio.machines[&trio.names[at]].farm.ledger().forked().count() == 1;
    assert!((0..3).all(knows));
}

/// Ops, retirement and forks reach everyone over neighbours alone.
#[test]
fn in_a_line_of_machines_the_last_hears_what_the_first_says_even_where_every_second_push_is_lost() {
    for loses in [false, true] {
        let mut trio = Trio::meshed(6, |a, b| a.abs_diff(b) == 1);
        trio.loses = loses;
        let job = trio.submit(0, 3);
        let patience = Duration::from_secs(if loses { 10 } else { 1 });
        trio.wait(patience);
        (0..6).for_each(|at| assert!(trio.knows(at, job), "machine {at}, lossy {loses}"));
        let (first, last) = (trio.names[0], trio.names[5]);
        trio.give(last, Input::Command { job, command: JobCommand::Set(JobSetting::Priority(77)) });
        trio.wait(patience);
        assert_eq!(trio.machines[&first].farm.jobs()[&job].priority(), 77);
        // A member tells one end one history and the other end another.
        let liar = Sealer::from_seed(&[99; 32]);
        let says = |priority| Op::Set { lamport: 9, setting: JobSetting::Priority(priority), at_ms: 0 };
        for (at, priority) in [(first, 1), (last, 2)] {
            let message = Message::Push(signed(&liar, job, &[says(priority)])).into();
            let from = trio.neighbours(at)[0];
            trio.pushes = 1;
            trio.give(at, Input::Received { from, message });
        }
        trio.wait(patience);
        for machine in trio.machines.values() {
            assert_eq!(machine.farm.jobs()[&job].priority(), 77);
            assert_eq!(machine.farm.ledger().forked().count(), 1);
        }
        for command in [JobCommand::Cancel("ada".into()), JobCommand::Delete] {
            trio.give(last, Input::Command { job, command });
            trio.wait(patience);
        }
        (0..6).for_each(|at| assert!(!trio.knows(at, job), "machine {at}, lossy {loses}"));
    }
}

#[test]
fn what_nobody_may_say_is_refused_and_told_by_whom() {
    let mut trio = Trio::new(3);
    let job = trio.submit(0, 3);
    trio.wait(Duration::from_secs(2));
    let (here, peer) = (trio.names[0], trio.names[1]);
    let before = trio.at(0).farm.ledger().digest();
    let refusals = |trio: &Trio| trio.machines[&here].farm.refusals().get(&peer).copied().unwrap_or(0);
    let member = Sealer::from_seed(&[50; 32]);
    let ops: Vec<Op> =
        (0..4).map(|n| Op::Set { lamport: n, setting: JobSetting::Priority(n as u8), at_ms: 0 }).collect();
    let pieces = signed(&member, job, &ops);
    let mut say = |suffix: &Suffix| {
        trio.inbox
            .push_back((here, Input::Received { from: peer, message: Message::Push(vec![suffix.clone()]).into() }));
        let Some((node, input)) = trio.inbox.pop_front() else { return (0, true) };
        let now = Now { mono: trio.now, wall_ms: 0 };
        let machine = trio.machines.get_mut(&node).expect("a machine");
        machine.farm.handle(now, input, &mut trio.rng);
        (refusals(&trio), trio.machines[&here].farm.ledger().digest() == before)
    };
    // Everyday: what came too early, and later what comes twice.
    let mut early = pieces[0].clone();
    (early.from, early.ops) = (2, early.ops.split_off(2));
    assert_eq!(say(&early), (0, true));
    let mut altered = pieces[0].clone();
    std::sync::Arc::make_mut(&mut altered.ops[0])[7] ^= 1;
    let mut oversized = pieces[0].clone();
    oversized.ops[0] = vec![0; crate::wire::MAX_OP_BYTES + 1].into();
    let mut anothers = pieces[0].clone();
    anothers.actor.node = here;
    let mut short = pieces[0].clone();
    short.ops.clear();
    for (nth, bad) in [altered, oversized, anothers, short].iter().enumerate() {
        assert_eq!(say(bad), (nth as u64 + 1, true), "{nth}");
    }
    // Signed, and still nothing anybody may say: a Submit in a log that is not its own.
    let mut liar = Ledger::new(Sealer::from_seed(&[51; 32]), BootId([9; 8]), [0; 32]);
    let own = liar.submit(&[], spec(1)).expect("a job");
    let mark = liar.take_rows().expect("rows").mark;
    liar.durable(mark);
    let mut moved = liar.suffix(own, liar.me(), 0).expect("pieces").remove(0);
    let (sealer, swarm) = (Sealer::from_seed(&[51; 32]), [0; 32]);
    let chain = crate::seal::chain(&crate::seal::genesis(&swarm, job, moved.actor), &moved.ops[0]);
    (moved.log, moved.head) = (job, sealer.sign(&swarm, job, BootId([9; 8]), 1, chain));
    assert_eq!(say(&moved), (5, true));
    // What is sound is taken, from the same peer, and once.
    pieces.iter().for_each(|piece| assert_eq!(say(piece).0, 5));
    let after = trio.at(0).farm.ledger().digest();
    assert_ne!(after, before);
    let here_now = |trio: &Trio| trio.machines[&here].farm.ledger().digest();
    trio.give(here, Input::Received { from: peer, message: Message::Push(pieces).into() });
    assert_eq!((here_now(&trio), refusals(&trio)), (after, 5));
}

/// A build that knows one more kind of op, beside those that do not.
#[test]
fn machines_of_two_versions_finish_a_job_together_and_the_older_hands_on_what_it_cannot_read() {
    let mut trio = Trio::new(3);
    let job = trio.submit(0, 9);
    let news = |n: u8| Op::Unknown { kind: 200, body: vec![n; 5] };
    for n in 0..6 {
        trio.at(2).farm.ledger.append(job, &news(n)).expect("a sound op");
        (0..3).for_each(|at| trio.render(at));
        trio.wait(Duration::from_millis(500));
    }
    trio.finish();
    let unknown = |trio: &Trio, at: usize| -> Vec<Op> {
        let ops = trio.machines[&trio.names[at]].farm.ledger().ops(job);
        ops.map(|(_, _, op)| op).filter(|op| matches!(op, Op::Unknown { .. })).collect()
    };
    let expected: Vec<Op> = (0..6).map(news).collect();
    assert!(trio.at(0).farm.jobs()[&job].is_over());
    assert_eq!(trio.at(0).delivered.len(), 9);
    let later = trio.names[2];
    assert!(trio.machines[&later].farm.jobs()[&job].speeds().contains_key(&later), "it rendered too");
    (0..3).for_each(|at| assert_eq!(unknown(&trio, at), expected));
    // The later build is gone; a machine that never met it has its ops from one that cannot read them, after a start.
    trio.kill(2);
    trio.restart(1, 60);
    trio.kill(0);
    trio.start(4);
    trio.wait(Duration::from_secs(4));
    assert_eq!(unknown(&trio, 3), expected);
    assert_eq!(trio.machines[&trio.names[3]].farm.jobs()[&job], trio.machines[&trio.names[1]].farm.jobs()[&job]);
}

#[test]
fn a_job_of_a_later_version_is_left_alone_and_said_to_be() {
    let mut trio = Trio::new(2);
    let later = OP_VERSION + 1;
    let submit = Op::Submit { min_version: later, spec: Box::new(spec(3)) };
    trio.at(0).store.insert(BUNDLE);
    let me = trio.at(0).farm.me();
    let bytes = crate::wire::encode_op(&submit).expect("a sound op");
    let job = crate::seal::job_id(me, 0, &bytes);
    trio.at(0).farm.ledger.append(job, &submit).expect("a sound op");
    trio.wait(Duration::from_secs(3));
    for machine in trio.machines.values() {
        assert!(machine.farm.jobs().contains_key(&job) && machine.begun.is_empty());
        let (roster, me) = (machine.farm.roster(), machine.farm.me().node);
        let fits = crate::farm::fit::suits(roster, me, &spec(3), &Rules::default(), later);
        assert_eq!(fits.unwrap_err().to_string(), "runs an older swarm than the job needs");
    }
    // The other way round: who is older is known to be.
    let older = Capability { op_version: 0, ..capability() };
    let (two, roster) = (trio.names[1], trio.at(0).farm.roster());
    let (mut roster, rules) = (roster.clone(), Rules::default());
    roster.capability(two, older);
    let fits = crate::farm::fit::suits(&roster, two, &spec(3), &rules, OP_VERSION);
    assert_eq!(fits.unwrap_err().to_string(), "runs an older swarm than the job needs");
}

#[test]
fn digests_of_many_logs_come_in_parts_and_of_each_only_what_differs_is_asked_for() {
    let log = |n: u8| JobId([n; 16]);
    let digests = Vec::from_iter((1..=7).map(|n| (log(n * 10), [n; 32])));
    let parts = Vec::from_iter(LogDigests::parts(&digests, 3));
    assert_eq!(parts.len(), 3);
    for n in 0..=255 {
        assert_eq!(parts.iter().filter(|part| part.speaks_of(log(n))).count(), 1, "{n}");
    }
    assert!(parts.iter().all(|part| part.digests.iter().all(|(log, _)| part.speaks_of(*log))));
    assert_eq!(Vec::from_iter(parts.into_iter().flat_map(|part| part.digests)), digests);
    let none = Vec::from_iter(LogDigests::parts(&[], 3));
    assert_eq!(none, [LogDigests { from: SWARM_LOG, until: None, digests: Vec::new() }]);

    let mut trio = Trio::new(2);
    let jobs: BTreeSet<JobId> = (0..5).map(|_| trio.submit(0, 1)).collect();
    trio.wait(Duration::from_secs(2));
    let (one, two) = (trio.names[0], trio.names[1]);
    let now = Now { mono: trio.now, wall_ms: 0 };
    let mut known = trio.at(0).farm.ledger().log_digests();
    let asked = |trio: &mut Trio, known: &[(JobId, [u8; 32])]| {
        let mut asked = Vec::new();
        for part in LogDigests::parts(known, 2) {
            let machine = trio.machines.get_mut(&two).expect("a machine");
            let said = Input::Received { from: one, message: Message::LogDigests(part).into() };
            for effect in machine.farm.handle(now, said, &mut trio.rng) {
                if let Effect::Send { message, .. } = effect
                    && let Message::Versions { versions, .. } = &*message
                {
                    asked.extend(versions.iter().map(|versions| versions.log));
                }
            }
        }
        asked
    };
    assert!(jobs.iter().all(|job| known.iter().any(|(log, _)| log == job)));
    assert_eq!(asked(&mut trio, &known), [], "they agree");
    let third = known[2].0;
    known[2].1 = [1; 32];
    assert_eq!(asked(&mut trio, &known), [third]);
    known.remove(2);
    assert_eq!(asked(&mut trio, &known), [third], "a log the other does not have");
}
