#![allow(clippy::unwrap_used)]
use super::*;
use crate::farm::id::{JobId, NodeId};
use crate::farm::op::UnitSet;
use crate::farm::state::JobState;
use crate::farm::views::Views;
use proptest::prelude::*;

const SWARM: Hash = [9; 32];
pub(super) const LOG: LogId = JobId([1; 16]);
const OTHER_LOG: LogId = JobId([2; 16]);

pub(super) fn ledger(node: u8) -> Ledger {
    Ledger::new(Sealer::Cheap(NodeId([node; 32])), BootId([node; 8]), SWARM)
}

pub(super) fn op(frame: i32) -> Op {
    Op::Release { units: UnitSet::whole(vec![frame]).unwrap() }
}

fn text_op(bytes: usize) -> Op {
    Op::Setting { lamport: 0, key: "k".into(), value: "v".repeat(bytes) }
}

/// Appends and makes durable in batches of `batch`.
pub(super) fn write(ledger: &mut Ledger, log: LogId, frames: impl IntoIterator<Item = i32>, batch: usize) {
    for (i, frame) in frames.into_iter().enumerate() {
        ledger.append(log, &op(frame)).unwrap();
        if i % batch == batch - 1 {
            settle(ledger);
        }
    }
    settle(ledger);
}

pub(super) fn settle(ledger: &mut Ledger) -> Vec<Row> {
    let Some(batch) = ledger.take_rows() else { return Vec::new() };
    ledger.durable(batch.mark);
    batch.rows
}

/// Everything `to` lacks of `from`, as repair would bring it.
fn repair(to: &mut Ledger, from: &Ledger) {
    for log in from.logs().collect::<Vec<_>>() {
        loop {
            let suffixes = from.suffixes_for(&to.versions(log), PIECE_BYTES);
            if suffixes.is_empty() {
                break;
            }
            for suffix in suffixes {
                to.merge(&suffix).unwrap();
            }
        }
    }
}

pub(super) fn all_ops(ledger: &Ledger) -> Vec<(LogId, ActorId, u64, Op)> {
    ledger.logs().flat_map(|log| ledger.ops(log).map(move |(a, s, op)| (log, a, s, op))).collect()
}

#[track_caller]
pub(super) fn check_equal(a: &Ledger, b: &Ledger) {
    assert_eq!(all_ops(a), all_ops(b));
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.log_digests(), b.log_digests());
}

#[test]
fn an_own_op_is_seen_by_no_one_before_it_is_durable() {
    let mut a = ledger(1);
    let empty = a.digest();
    assert_eq!(a.append(LOG, &op(1)).unwrap(), 0);
    assert_eq!(a.append(LOG, &op(2)).unwrap(), 1);
    let batch = a.take_rows().unwrap();
    assert_eq!(batch.rows.len(), 3);
    assert_eq!(a.append(LOG, &op(3)).unwrap(), 2);
    let second = a.take_rows().unwrap();
    assert!(a.take_rows().is_none());
    let told = |a: &Ledger| a.suffix(LOG, a.me(), 0).map(|s| s[0].ops.len());
    assert_eq!((a.digest(), a.versions(LOG).lengths.len(), told(&a)), (empty, 0, None));
    assert_eq!(a.durable(batch.mark), vec![(LOG, 0, op(1)), (LOG, 1, op(2))]);
    assert_eq!((a.versions(LOG).lengths[0].1, told(&a)), (2, Some(2)));
    assert_eq!(a.durable(second.mark), vec![(LOG, 2, op(3))]);
    assert_eq!(a.durable(second.mark), vec![]);
    assert_eq!((a.versions(LOG).lengths[0].1, told(&a)), (3, Some(3)));
    assert_ne!(a.digest(), empty);
}

#[test]
fn what_was_stored_loads_as_it_was_and_a_torn_tail_is_left_out() {
    let mut a = ledger(1);
    let mut rows = Vec::new();
    for frame in 0..6 {
        a.append(LOG, &op(frame)).unwrap();
        rows.extend(settle(&mut a));
    }
    let (mut b, mut c, mut d) = (ledger(2), ledger(3), ledger(4));
    assert!(b.load(rows.clone()).dropped.is_empty());
    check_equal(&a, &b);
    // The last op without its head, then a hole.
    rows.push(Row::Op { log: LOG, actor: a.me(), seq: 6, bytes: wire::encode_op(&op(6)).unwrap().into() });
    assert_eq!(c.load(rows.clone()).dropped[0].ops, 1);
    check_equal(&a, &c);
    rows.retain(|row| !matches!(row, Row::Op { seq: 0, .. }));
    let loaded = d.load(rows);
    assert_eq!((loaded.ops.len(), loaded.dropped.len()), (0, 1));
    repair(&mut d, &a);
    check_equal(&a, &d);
}

#[test]
fn merged_rows_load_too() {
    let (mut a, mut b, mut c) = (ledger(1), ledger(2), ledger(3));
    write(&mut a, LOG, 0..10, 3);
    let mut rows = Vec::new();
    for from in [0, 4] {
        for suffix in a.suffix(LOG, a.me(), from).unwrap() {
            rows.extend(b.merge(&suffix).unwrap().rows);
        }
    }
    assert_eq!(c.load(rows).ops.len(), 10);
    check_equal(&a, &c);
}

#[test]
fn a_gap_changes_nothing_and_says_what_is_missing() {
    let (mut a, mut b) = (ledger(1), ledger(2));
    write(&mut a, LOG, 0..4, 1);
    let suffix = a.suffix(LOG, a.me(), 2).unwrap().remove(0);
    assert!(matches!(b.merge(&suffix), Err(MergeError::Gap { have: 0, from: 2, .. })));
    assert_eq!((b.digest(), b.logs().count()), ([0; 32], 0));
}

#[test]
fn a_suffix_that_is_not_what_its_actor_signed_is_refused_whole() {
    let (mut a, mut b) = (ledger(1), ledger(2));
    write(&mut a, LOG, 0..4, 4);
    let good = a.suffix(LOG, a.me(), 0).unwrap().remove(0);
    let mut signature = good.clone();
    signature.head.signature.0[0] ^= 1;
    assert!(matches!(b.merge(&signature), Err(MergeError::BadSignature { .. })));
    let mut content = good.clone();
    std::sync::Arc::make_mut(&mut content.ops[1])[6] ^= 1;
    assert!(matches!(b.merge(&content), Err(MergeError::BadChain { .. })));
    let mut short = good.clone();
    short.ops.pop();
    assert!(matches!(b.merge(&short), Err(MergeError::BadChain { .. })));
    let log = Suffix { log: OTHER_LOG, ..good.clone() };
    assert!(matches!(b.merge(&log), Err(MergeError::BadSignature { .. })));
    let actor = Suffix { actor: ActorId { boot: BootId([7; 8]), ..good.actor }, ..good.clone() };
    assert!(matches!(b.merge(&actor), Err(MergeError::BadSignature { .. })));
    let far = Suffix { from: u64::MAX, ..good.clone() };
    assert!(matches!(b.merge(&far), Err(MergeError::Gap { .. })));
    assert_eq!(b.digest(), [0; 32]);
    assert_eq!(b.merge(&good).unwrap().new_ops.len(), 4);
}

#[test]
fn the_real_seal_holds_too() {
    let mut a = Ledger::new(Sealer::from_seed(&[1; 32]), BootId([1; 8]), SWARM);
    let mut b = Ledger::new(Sealer::from_seed(&[2; 32]), BootId([2; 8]), SWARM);
    write(&mut a, LOG, 0..2, 1);
    let mut suffix = a.suffix(LOG, a.me(), 0).unwrap().remove(0);
    suffix.head.signature.1[3] ^= 1;
    assert!(matches!(b.merge(&suffix), Err(MergeError::BadSignature { .. })));
    repair(&mut b, &a);
    check_equal(&a, &b);
}

#[test]
fn ops_in_my_own_name_that_i_did_not_write_are_refused() {
    let (mut a, mut twin) = (ledger(1), ledger(1));
    write(&mut a, LOG, [1], 1);
    write(&mut twin, LOG, [1, 2], 1);
    let suffix = twin.suffix(LOG, twin.me(), 0).unwrap().remove(0);
    assert!(matches!(a.merge(&suffix), Err(MergeError::Mine { .. })));
    // My earlier start is another actor.
    let mut before = Ledger::new(Sealer::Cheap(NodeId([1; 32])), BootId([8; 8]), SWARM);
    write(&mut before, LOG, [5], 1);
    repair(&mut a, &before);
    assert_eq!(a.ops(LOG).count(), 2);
}

#[test]
fn a_submit_lives_in_the_log_made_from_it_alone() {
    let (mut a, mut b) = (ledger(1), ledger(2));
    let log = a.submit(&[], wire::tests::spec()).unwrap();
    assert_eq!(a.submit(&[], wire::tests::spec()).unwrap(), log, "the same spec is the same job");
    settle(&mut a);
    assert_eq!(a.ops(log).count(), 1);
    repair(&mut b, &a);
    let submit = Op::Submit { min_version: 1, spec: Box::new(wire::tests::spec()) };
    assert!(matches!(a.append(LOG, &submit), Err(AppendError::NotItsLog { .. })));
    // A liar's build lets it through; no one takes it in.
    a.append_bytes(OTHER_LOG, wire::encode_op(&submit).unwrap()).unwrap();
    settle(&mut a);
    let suffix = a.suffix(OTHER_LOG, a.me(), 0).unwrap().remove(0);
    assert!(matches!(b.merge(&suffix), Err(MergeError::NotItsJob { .. })));
}

#[test]
fn the_views_of_a_scene_with_several_stand_before_its_submit_and_mono_jobs_are_written_as_ever() {
    let mut a = ledger(1);
    let views = Views::of(&["_L".into(), "_R".into()]).unwrap();
    let stereo = JobSpec { views: views.clone(), ..wire::tests::spec() };
    let (mono, stereo) = (a.submit(&[], wire::tests::spec()).unwrap(), a.submit(&[], stereo).unwrap());
    settle(&mut a);
    let of = |log| a.ops(log).map(|(_, _, op)| op).collect::<Vec<_>>();
    assert!(matches!(of(mono).as_slice(), [Op::Submit { .. }]));
    let [Op::Views { views: declared }, Op::Submit { .. }] = &of(stereo)[..] else { panic!("{:?}", of(stereo)) };
    assert_eq!(*declared, views);
    let mut job = JobState::new(stereo);
    a.ops(stereo).for_each(|(actor, seq, op)| job.apply(actor, seq, op));
    assert_eq!(job.spec.unwrap().views, views, "as it is for whoever hears of it");
}

#[test]
fn an_op_no_one_could_accept_is_neither_written_nor_taken() {
    let (mut a, mut b) = (ledger(1), ledger(2));
    let bad = Op::Holds { blobs: Vec::new() };
    assert!(matches!(a.append(LOG, &bad), Err(AppendError::Op { .. })));
    a.append_bytes(LOG, vec![6, 0, 1, 0, 0, 0, 0]).unwrap();
    settle(&mut a);
    let suffix = a.suffix(LOG, a.me(), 0).unwrap().remove(0);
    assert!(matches!(b.merge(&suffix), Err(MergeError::BadOp { seq: 0, .. })));
}

#[test]
fn a_retired_log_is_gone_for_good_whatever_comes_later() {
    let (mut a, mut b) = (ledger(1), ledger(2));
    write(&mut a, LOG, 0..4, 2);
    write(&mut a, OTHER_LOG, 0..4, 2);
    repair(&mut b, &a);
    let suffix = a.suffix(LOG, a.me(), 0).unwrap().remove(0);
    let row = b.retire(LOG).unwrap();
    assert_eq!((b.retire(LOG), b.retire(SWARM_LOG)), (None, None));
    assert!(matches!(b.merge(&suffix), Err(MergeError::Retired { .. })));
    assert!(matches!(b.append(LOG, &op(1)), Err(AppendError::Retired { .. })));
    // Own ops still on their way to the disk go with it.
    a.append(LOG, &op(9)).unwrap();
    let batch = a.take_rows().unwrap();
    a.retire(LOG);
    assert_eq!(a.durable(batch.mark), vec![]);
    check_equal(&a, &b);
    let mut c = ledger(3);
    let rows = batch.rows.into_iter().chain([row]).collect();
    assert!(c.load(rows).ops.is_empty() && c.is_retired(LOG));
}

#[test]
fn a_long_log_can_be_handed_on_by_anyone_in_pieces_that_fit_a_message() {
    let mut a = ledger(1);
    // One batch of about 1 MiB, then many tiny ones: few heads remain, none too far from the next.
    for _ in 0..256 {
        a.append(SWARM_LOG, &text_op(4000)).unwrap();
    }
    settle(&mut a);
    let many: Vec<i32> = (0..10_000).map(|i| i * 3 + i % 2).collect();
    a.append(SWARM_LOG, &Op::Release { units: UnitSet::whole(many).unwrap() }).unwrap();
    for frame in 0..500 {
        a.append(SWARM_LOG, &op(frame)).unwrap();
        settle(&mut a);
    }
    let (mut b, mut c) = (ledger(2), ledger(3));
    repair(&mut b, &a);
    repair(&mut c, &b);
    check_equal(&a, &c);
    let Some(Row::Head { bytes, .. }) = c.logs[&SWARM_LOG].tracks.get(&a.me()).map(|t| t.head_row(SWARM_LOG, a.me()))
    else {
        unreachable!()
    };
    let heads: Vec<SignedHead> = wire::decode_value(&bytes).unwrap();
    assert!((6..=20).contains(&heads.len()), "{} heads", heads.len());
    for from in [0, 1, 63, 100, 256, 257, 300, 756] {
        let pieces = c.suffix(SWARM_LOG, a.me(), from).unwrap();
        assert_eq!(pieces.iter().map(|p| p.ops.len() as u64).sum::<u64>(), 757 - from);
        let messages = pushes(pieces);
        assert!(messages.iter().all(|message| wire::encode(message).unwrap().len() <= wire::LEDGER_MAX_BYTES));
    }
    assert!(c.suffix(SWARM_LOG, a.me(), 757).is_none() && c.suffix(SWARM_LOG, a.me(), 9000).is_none());
}

#[test]
fn who_lacks_what_is_told_by_versions() {
    let (mut a, mut b) = (ledger(1), ledger(2));
    write(&mut a, LOG, 0..2, 1);
    write(&mut b, LOG, 0..1, 1);
    assert!(a.lacks(&b.versions(LOG)) && b.lacks(&a.versions(LOG)));
    repair(&mut b, &a);
    assert!(a.lacks(&b.versions(LOG)) && !b.lacks(&a.versions(LOG)));
    a.retire(LOG);
    assert!(!a.lacks(&b.versions(LOG)));
}

/// Suffixes cut anyhow from the logs of three writers: (writer, from, pieces dropped at the end).
fn deal(sources: &[Ledger], cuts: &[(u8, u8, u8)]) -> Vec<Suffix> {
    let mut suffixes = Vec::new();
    for (writer, from, keep) in cuts {
        let source = &sources[usize::from(*writer) % sources.len()];
        for log in [LOG, OTHER_LOG] {
            let pieces = source.suffix(log, source.me(), u64::from(*from)).unwrap_or_default();
            suffixes.extend(pieces.into_iter().take(usize::from(*keep) + 1));
        }
    }
    suffixes
}

fn sources(plan: &[(u8, bool, u8)]) -> Vec<Ledger> {
    let mut sources = vec![ledger(1), ledger(2), ledger(3)];
    for (i, (writer, other, batch)) in plan.iter().enumerate() {
        let log = if *other { OTHER_LOG } else { LOG };
        let frames = (i as i32 * 10)..(i as i32 * 10 + 3);
        write(&mut sources[usize::from(*writer) % 3], log, frames, usize::from(*batch) + 1);
    }
    sources
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_batching_and_repetition_of_suffixes_ends_in_the_same_ledger(
        plan in prop::collection::vec((0u8..3, any::<bool>(), 0u8..3), 1..12),
        cuts in prop::collection::vec((0u8..3, 0u8..8, 0u8..2), 0..24),
    ) {
        let sources = sources(&plan);
        let (mut a, mut b) = (ledger(11), ledger(12));
        let dealt = deal(&sources, &cuts);
        let mut seen = Vec::new();
        for suffix in &dealt {
            match a.merge(suffix) {
                Ok(merged) => seen.extend(merged.new_ops.into_iter().map(|(s, op)| (suffix.log, suffix.actor, s, op))),
                Err(error) => prop_assert!(matches!(error, MergeError::Gap { .. }), "{error}"),
            }
        }
        for suffix in dealt.iter().rev().chain(&dealt) {
            let before = b.digest();
            let grew = b.merge(suffix).is_ok_and(|merged| !merged.new_ops.is_empty());
            prop_assert_eq!(grew, b.digest() != before);
        }
        // What was folded is what is held, each once, in the order of each actor.
        seen.sort_by_key(|(log, actor, seq, _)| (*log, *actor, *seq));
        prop_assert_eq!(&seen, &all_ops(&a));
        // Any two meet at the union, whichever way round they exchange.
        let digest = b.digest();
        for log in [LOG, OTHER_LOG] {
            for suffix in b.suffixes_for(&a.versions(log), u64::MAX) {
                prop_assert!(a.merge(&suffix).is_ok());
            }
        }
        repair(&mut b, &a);
        prop_assert!(digest == a.digest() || !b.lacks(&a.versions(LOG)));
        check_equal(&a, &b);
        let mut union = ledger(13);
        for source in sources.iter().rev() {
            repair(&mut union, source);
            repair(&mut a, source);
        }
        check_equal(&a, &union);
        let digest = a.digest();
        for suffix in deal(&sources, &cuts) {
            prop_assert_eq!(a.merge(&suffix).map(|m| m.new_ops.len()).unwrap_or(1), 0);
        }
        prop_assert_eq!(a.digest(), digest);
    }
}
