//! The laws that convergence rests on: merging is commutative, associative and idempotent, and what a job is depends on
//! the set of ops alone, whatever order, repetition or batching they came in.
//!
//! Logs here are real: framed, chained, signed and checked. A case that ever fails is kept in `laws.regressions` beside
//! this file and tried first from then on.

use super::id::{ActorId, BlobId, BootId, JobId, NodeId, Part, Unit};
use super::job::{Colours, Device, Revision};
use super::kept::{KEPT, KeptFrame};
use super::ledger::{Ledger, MergeError};
use super::message::{LogId, SWARM_LOG, Suffix};
use super::op::{Blank, ClaimKind, FailureKind, JobSetting, Op, Output, OutputRole, RetireReason, Reuse, UnitSet};
use super::roster::Roster;
use super::scripts::Scripts;
use super::state::JobState;
use super::views::Views;
use crate::seal::{Sealer, swarm_id};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use std::collections::BTreeMap;

/// Enough to find a planted slip within one run; signatures take most of the time.
const CASES: u32 = 48;
const WRITERS: usize = 3;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: CASES,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

fn ledger(seed: u8) -> Ledger {
    Ledger::new(Sealer::from_seed(&[seed; 32]), BootId([seed; 8]), swarm_id(&[0; 32]))
}

/// Frames of the job and one beside it.
fn units() -> impl Strategy<Value = UnitSet> {
    prop::collection::vec(0i32..6, 1..4).prop_map(|frames| UnitSet::whole(frames).unwrap())
}

fn unit() -> impl Strategy<Value = Unit> {
    (0i32..6).prop_map(Unit::whole)
}

fn blobs() -> impl Strategy<Value = Vec<BlobId>> {
    prop::collection::vec((0u8..6).prop_map(|n| BlobId([n; 32])), 1..3)
}

/// Anything anybody may write in a job's log, but its `Submit`.
fn any_op() -> impl Strategy<Value = Op> {
    let setting = prop_oneof![
        any::<bool>().prop_map(JobSetting::Paused),
        (0u8..=100).prop_map(JobSetting::Priority),
        prop::sample::select(crate::wire::tests::settings()),
    ];
    let done = |(epoch, revision, unit, blobs, millis, build): (u32, u32, Unit, Vec<BlobId>, u32, &str)| {
        // The second is a view of the job, or none, as the frame has it.
        let output = |(i, blob)| match i {
            0 => Output { path: "0.png".into(), blob, bytes: 1, role: OutputRole::Image },
            _ => Output {
                path: format!("shot_000{millis}_R.png", millis = millis % 5),
                blob,
                bytes: 1,
                role: OutputRole::Aux,
            },
        };
        let outputs = blobs.into_iter().enumerate().map(output).collect();
        Op::Done { epoch, revision, unit, outputs, millis, device: "CPU".into(), build: build.into() }
    };
    prop_oneof![
        4 => (0u32..3, units(), any::<bool>(), any::<u32>()).prop_map(|(epoch, units, backs_up, score)| {
            let kind = if backs_up { ClaimKind::Backup } else { ClaimKind::Primary };
            Op::Claim { epoch, units, kind, score }
        }),
        2 => units().prop_map(|units| Op::Release { units }),
        4 => (0u32..3, 0u32..3, unit(), blobs(), any::<u32>(), prop::sample::select(vec!["b", KEPT])).prop_map(done),
        2 => (0u32..3, unit(), prop::option::of(Just(BlobId([9; 32])))).prop_map(|(epoch, unit, log)| {
            Op::Failed { epoch, unit, kind: FailureKind::Crash, message: "no".into(), log }
        }),
        1 => (0u32..3, unit(), any::<bool>()).prop_map(|(epoch, unit, is_black)| {
            Op::Remark { epoch, unit, blank: is_black.then_some(Blank::Black), warnings: vec!["w".into()] }
        }),
        1 => blobs().prop_map(|blobs| Op::Holds { blobs }),
        1 => blobs().prop_map(|blobs| Op::Drops { blobs }),
        1 => blobs().prop_map(|blobs| Op::Lost { blobs }),
        2 => (units(), 0u32..4, 0u64..3).prop_map(|(units, epoch, at_ms)| {
            Op::Requeue { units, epoch, by: "a".into(), at_ms }
        }),
        1 => (1u32..3, units(), 0u32..4, 0u64..3).prop_map(|(id, units, epoch, at_ms)| {
            let revision = Box::new(Revision { bundle: BlobId([id as u8; 32]), ..crate::wire::tests::revision() });
            Op::Revise { id, revision, units, epoch, by: "a".into(), at_ms }
        }),
        1 => (any::<bool>(), 0u8..2).prop_map(|(in_files, n)| {
            Op::Scripts { scripts: Scripts { in_files, file: Some(format!("{n}.py")) } }
        }),
        1 => "[ab]".prop_map(|path| Op::Zip { path }),
        1 => "_[LR]".prop_map(|view| Op::Views { views: Views::of(&[view]).unwrap() }),
        1 => prop::sample::select(vec![Device::Optix, Device::Metal]).prop_map(|device| Op::Device { device }),
        2 => (0u32..2, unit(), any::<bool>()).prop_map(|(epoch, unit, is_wanted)| {
            let taken = Reuse::Taken { epoch, unit, from: JobId([8; 16]) };
            Op::Reuse { word: if is_wanted { Reuse::Wanted { colours: Colours::Renderer } } else { taken } }
        }),
        1 => any::<bool>().prop_map(|over| {
            Op::Retire { why: if over { RetireReason::Over } else { RetireReason::Abandoned } }
        }),
        2 => (0u64..4, setting, 0u64..3).prop_map(|(lamport, setting, at_ms)| Op::Set { lamport, setting, at_ms }),
        1 => ("[ab]", 0u64..3).prop_map(|(by, at_ms)| Op::Cancel { by, at_ms }),
        1 => (0u64..4, any::<bool>(), 0u64..3).prop_map(|(revision, video, at_ms)| {
            Op::Collected { revision, video, at_ms }
        }),
        1 => (100u16..103).prop_map(|kind| Op::Unknown { kind, body: vec![1] }),
        // A part of a frame that the job does not have.
        1 => (0u16..2).prop_map(|x| {
            Op::Release { units: UnitSet { frames: "1".parse().unwrap(), part: Part::Tile { x, y: 0, of: 2 } } }
        }),
    ]
}

/// Anything anybody may write in the swarm's own log.
fn any_word() -> impl Strategy<Value = Op> {
    let node = || (0u8..4).prop_map(|n| NodeId([n; 32]));
    prop_oneof![
        2 => (node(), any::<bool>()).prop_map(|(node, trusted)| Op::Trust { node, trusted }),
        3 => (0u64..4, "series|other", "3\\.4|4\\.5|new|").prop_map(|(lamport, key, value)| {
            Op::Setting { lamport, key, value }
        }),
        1 => (node(), "[ab]").prop_map(|(node, name)| Op::Member { node, name }),
        1 => node().prop_map(|node| Op::Evict { node, heads: vec![([1; 8], 5)] }),
        1 => (100u16..103).prop_map(|kind| Op::Unknown { kind, body: vec![1] }),
    ]
}

/// What is written: by whom, what, and whether the disk is waited for after it.
fn plan() -> impl Strategy<Value = Vec<(usize, Op, bool)>> {
    prop::collection::vec((0..WRITERS, any_op(), any::<bool>()), 1..24)
}

/// The same in the swarm's own log.
fn words() -> impl Strategy<Value = Vec<(usize, Op, bool)>> {
    prop::collection::vec((0..WRITERS, any_word(), any::<bool>()), 1..24)
}

/// The writers' ledgers with what they wrote, each alone; the first submitted the job.
fn write(plan: &[(usize, Op, bool)]) -> (LogId, Vec<Ledger>) {
    let mut writers: Vec<Ledger> = (1..=WRITERS as u8).map(ledger).collect();
    let mut spec = crate::wire::tests::spec();
    spec.frames = "1-4".parse().unwrap();
    spec.views = Views::of(&["_L".into(), "_R".into()]).unwrap();
    // A frame was there before; of others anybody may say so.
    let output = Output { path: "2.png".into(), blob: BlobId([5; 32]), bytes: 1, role: OutputRole::Image };
    let kept = KeptFrame { unit: Unit::whole(2), outputs: vec![output] };
    let log = writers[0].submit(&[kept.done()], spec).unwrap();
    write_in(log, &mut writers, plan);
    (log, writers)
}

fn write_in(log: LogId, writers: &mut [Ledger], plan: &[(usize, Op, bool)]) {
    for (by, op, settles) in plan {
        writers[*by].append(log, op).unwrap();
        if *settles {
            settle(&mut writers[*by]);
        }
    }
    writers.iter_mut().for_each(settle);
}

fn settle(ledger: &mut Ledger) {
    while let Some(batch) = ledger.take_rows() {
        ledger.durable(batch.mark);
    }
}

/// All there is of a log in one ledger, as it is told.
fn told(ledger: &Ledger, log: LogId) -> Vec<Suffix> {
    ledger.versions(log).lengths.iter().flat_map(|(actor, _)| ledger.suffix(log, *actor, 0).unwrap()).collect()
}

/// What two know together.
fn join(mut into: Ledger, from: &Ledger, log: LogId) -> Ledger {
    for suffix in told(from, log) {
        into.merge(&suffix).unwrap();
    }
    into
}

type Known = (Vec<(ActorId, u64, Op)>, [u8; 32], Vec<(LogId, [u8; 32])>);

fn known(ledger: &Ledger, log: LogId) -> Known {
    (ledger.ops(log).collect(), ledger.digest(), ledger.log_digests())
}

/// Three readers, each with some of what each writer told while it wrote.
fn readers(plan: &[(usize, Op, bool)], cuts: &[[usize; WRITERS]; 3]) -> (LogId, Vec<Ledger>) {
    let mut readers: Vec<Ledger> = (11..14).map(ledger).collect();
    let mut log = None;
    for (reader, cuts) in readers.iter_mut().zip(cuts) {
        for (writer, cut) in cuts.iter().enumerate() {
            let of_it = plan.iter().filter(|(by, _, _)| *by == writer).take(*cut).cloned();
            let (of, writers) = write(&of_it.collect::<Vec<_>>());
            log = Some(of);
            *reader = join(std::mem::replace(reader, ledger(0)), &writers[writer], of);
        }
    }
    (log.unwrap(), readers)
}

fn fold(log: LogId, ops: impl IntoIterator<Item = (ActorId, u64, Op)>) -> JobState {
    let mut job = JobState::new(log);
    ops.into_iter().for_each(|(actor, seq, op)| job.apply(actor, seq, op));
    job
}

fn fold_words(ops: impl IntoIterator<Item = (ActorId, u64, Op)>) -> Roster {
    let mut roster = Roster::new(ActorId { node: NodeId([99; 32]), boot: BootId([0; 8]) });
    ops.into_iter().for_each(|(actor, seq, op)| roster.learn(actor, seq, &op));
    roster
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn trust_and_settings_of_the_swarm_are_the_same_in_any_order_and_repetition_of_the_same_words(
        words in words(),
        turns in prop::collection::vec(0..WRITERS, 0..48),
    ) {
        let mut writers: Vec<Ledger> = (1..=WRITERS as u8).map(ledger).collect();
        write_in(SWARM_LOG, &mut writers, &words);
        let same = |roster: &Roster, other: &Roster| {
            (roster.trusts() == other.trusts()) && (roster.settings() == other.settings())
        };
        let expected = fold_words(writers.iter().flat_map(|writer| writer.ops(SWARM_LOG)));
        prop_assert!(same(&fold_words(writers.iter().rev().flat_map(|writer| writer.ops(SWARM_LOG))), &expected));
        // As writers take turns, then everything once more from the beginning.
        let all: Vec<Vec<_>> = writers.iter().map(|writer| writer.ops(SWARM_LOG).collect()).collect();
        let mut next = [0; WRITERS];
        let dealt: Vec<_> = turns.into_iter().filter_map(|writer| {
            next[writer] += 1;
            all[writer].get(next[writer] - 1).cloned()
        }).collect();
        prop_assert!(same(&fold_words(dealt.into_iter().chain(all.iter().flatten().cloned())), &expected));
        // What a reader of all logs finds in its own.
        let reader = writers.iter().fold(ledger(11), |reader, writer| join(reader, writer, SWARM_LOG));
        prop_assert!(same(&fold_words(reader.ops(SWARM_LOG)), &expected));
    }

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        plan in plan(),
        cuts in prop::array::uniform3(prop::array::uniform3(0usize..12)),
    ) {
        let (log, readers) = readers(&plan, &cuts);
        let [a, b, c] = <[Ledger; 3]>::try_from(readers).unwrap_or_else(|_| unreachable!("three"));
        let ab = join(a.clone(), &b, log);
        prop_assert_eq!(known(&ab, log), known(&join(b.clone(), &a, log), log));
        let bc = join(b.clone(), &c, log);
        prop_assert_eq!(known(&join(ab.clone(), &c, log), log), known(&join(a.clone(), &bc, log), log));
        prop_assert_eq!(known(&join(a.clone(), &a, log), log), known(&a, log));
        prop_assert_eq!(known(&join(ab.clone(), &b, log), log), known(&ab, log));
        prop_assert_eq!(known(&join(ab.clone(), &a, log), log), known(&ab, log));
    }

    #[test]
    fn any_order_repetition_and_batching_of_the_same_ops_folds_to_the_same_state(
        plan in plan(),
        deals in prop::collection::vec((0..WRITERS, 0usize..8, 1usize..8), 0..48),
    ) {
        let (log, writers) = write(&plan);
        let all: BTreeMap<ActorId, Vec<Op>> = writers.iter().map(|w| {
            (w.me(), w.ops(log).map(|(_, _, op)| op).collect())
        }).collect();
        // By actor, each whole.
        let expected = fold(log, writers.iter().flat_map(|writer| writer.ops(log)));
        // The other way round.
        prop_assert_eq!(&fold(log, writers.iter().rev().flat_map(|writer| writer.ops(log))), &expected);
        // An op of each in turn.
        let longest = all.values().map(Vec::len).max().unwrap_or(0);
        let turns = (0..longest).flat_map(|seq| {
            all.iter().filter_map(move |(actor, ops)| Some((*actor, seq as u64, ops.get(seq)?.clone())))
        });
        prop_assert_eq!(&fold(log, turns), &expected);
        // Pieces of signed logs, as they come: from anywhere, of any length, again and again, with gaps.
        let mut reader = ledger(11);
        let mut job = JobState::new(log);
        let rest = (0..WRITERS).map(|writer| (writer, 0, usize::MAX));
        for (writer, from, pieces) in deals.into_iter().chain(rest) {
            let writer = &writers[writer];
            let suffixes = writer.suffix(log, writer.me(), from as u64).unwrap_or_default();
            for suffix in suffixes.iter().take(pieces) {
                match reader.merge(suffix) {
                    Ok(merged) => merged.new_ops.into_iter().for_each(|(seq, op)| job.apply(suffix.actor, seq, op)),
                    Err(error) => prop_assert!(matches!(error, MergeError::Gap { .. }), "{error}"),
                }
            }
        }
        prop_assert_eq!(&job, &expected);
        // What a start finds in its own ledger.
        prop_assert_eq!(&fold(log, reader.ops(log)), &expected);
    }
}

#[test]
fn a_job_is_the_same_whichever_of_its_ops_comes_first() {
    // Every order of five ops of five actors: small, and whole.
    let spec = Box::new(crate::wire::tests::spec());
    let unit = Unit::whole(1);
    let units = || UnitSet::whole(vec![1]).unwrap();
    let output = Output { path: "1.png".into(), blob: BlobId([1; 32]), bytes: 1, role: OutputRole::Image };
    let ops = [
        Op::Submit { min_version: 1, spec },
        Op::Done {
            epoch: 0,
            revision: 0,
            unit,
            outputs: vec![output.clone()],
            millis: 1,
            device: String::new(),
            build: String::new(),
        },
        Op::Requeue { units: units(), epoch: 1, by: "a".into(), at_ms: 0 },
        Op::Done {
            epoch: 1,
            revision: 0,
            unit,
            outputs: vec![output],
            millis: 1,
            device: String::new(),
            build: String::new(),
        },
        Op::Requeue { units: units(), epoch: 2, by: "a".into(), at_ms: 0 },
    ];
    let actor = |i: usize| ActorId { node: NodeId([i as u8; 32]), boot: BootId([0; 8]) };
    let log = JobId([1; 16]);
    let in_order = |order: &[usize]| fold(log, order.iter().map(|i| (actor(*i), 0, ops[*i].clone())));
    let expected = in_order(&[0, 1, 2, 3, 4]);
    let mut orders = vec![vec![]];
    for i in 0..ops.len() {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut order = order.clone();
                    order.insert(at, i);
                    order
                })
            })
            .collect();
    }
    assert_eq!(orders.len(), 120);
    for order in orders {
        assert_eq!(in_order(&order), expected, "{order:?}");
    }
}

#[test]
fn a_result_of_a_revision_not_heard_of_yet_reopens_its_frame() {
    let mut spec = crate::wire::tests::spec();
    spec.frames = "1-4".parse().unwrap();
    let done = |revision: u32| {
        let output = Output { path: "4.png".into(), blob: BlobId([1; 32]), bytes: 1, role: OutputRole::Image };
        let (device, build) = (String::new(), String::new());
        Op::Done { epoch: revision, revision, unit: Unit::whole(4), outputs: vec![output], millis: 1, device, build }
    };
    let actor = |i: u8| ActorId { node: NodeId([i; 32]), boot: BootId([0; 8]) };
    let log = JobId([1; 16]);
    let submit = (actor(0), 0, Op::Submit { min_version: 1, spec: Box::new(spec) });
    let (old, new) = ((actor(1), 0, done(0)), (actor(2), 0, done(1)));
    let one = fold(log, [submit.clone(), old.clone(), new.clone()]);
    assert!(one.unfinished().contains(&Unit::whole(4)));
    assert_eq!(one, fold(log, [submit, new, old]));
}
