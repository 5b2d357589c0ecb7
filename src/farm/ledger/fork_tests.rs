//! Actors that signed two histories, or more: one key on two machines, or a liar.
#![allow(clippy::unwrap_used)]
use super::tests::{LOG, all_ops, check_equal, ledger, op, settle, write};
use super::*;
use proptest::prelude::*;

/// The log of the same start of the same node on another machine.
fn history(frames: &[i32], batch: usize) -> Ledger {
    let mut ledger = ledger(1);
    write(&mut ledger, LOG, frames.iter().copied(), batch);
    ledger
}

/// What `to` learns from `from` in one round of repair, as `gossip` goes about it; the rows it would store.
fn tell(to: &mut Ledger, from: &Ledger) -> Vec<Row> {
    let versions = to.versions(LOG);
    if versions.digest == from.versions(LOG).digest {
        return Vec::new();
    }
    let mut suffixes = from.suffixes_for(&versions, u64::MAX);
    if suffixes.is_empty() && !from.lacks(&versions) {
        suffixes = from.bare_heads(LOG);
    }
    let mut rows = Vec::new();
    for suffix in suffixes {
        match to.merge(&suffix) {
            Ok(merged) => rows.extend(merged.rows),
            Err(MergeError::Apart { log, actor }) => {
                for suffix in from.suffixes_for(&to.versions_without(log, actor), u64::MAX) {
                    rows.extend(to.merge(&suffix).unwrap().rows);
                }
            }
            Err(error) => assert!(matches!(error, MergeError::Mine { .. }), "{error}"),
        }
    }
    rows
}

/// Both learn from each other until there is nothing to say.
fn talk(a: &mut Ledger, b: &mut Ledger) {
    for _ in 0..2 {
        tell(a, b);
        tell(b, a);
    }
}

/// `to` is told the whole of a history; the rows it would store.
fn meet(to: &mut Ledger, source: &Ledger) -> Vec<Row> {
    let pieces = source.suffix(LOG, source.me(), 0).unwrap();
    pieces.iter().flat_map(|piece| to.merge(piece).unwrap().rows).collect()
}

#[test]
fn of_two_histories_counts_what_both_begin_with_and_everyone_learns_it() {
    let (mut a, twin) = (history(&[1, 2, 3], 1), history(&[1, 7], 1));
    let (mut b, mut c, mut d, mut e) = (ledger(2), ledger(3), ledger(4), ledger(5));
    tell(&mut b, &a);
    tell(&mut c, &a);
    tell(&mut d, &twin);
    assert_eq!(b.ops(LOG).count(), 3);
    let other = twin.suffix(LOG, twin.me(), 0).unwrap().remove(0);
    let merged = b.merge(&other).unwrap();
    assert_eq!((merged.forked, merged.new_ops.len(), merged.rows.len()), (Some(1), 0, 1));
    assert_eq!(all_ops(&b), vec![(LOG, a.me(), 0, op(1))]);
    assert_eq!(b.forked().collect::<Vec<_>>(), vec![(LOG, a.me())]);
    assert_eq!(b.merge(&other).unwrap(), Merged::default(), "once is enough");
    // Who has either history, or none, finds it in what repair brings; then all agree and repair rests.
    for peer in [&mut c, &mut d, &mut e] {
        assert!(peer.lacks(&b.versions(LOG)) && !b.lacks(&peer.versions(LOG)));
        tell(peer, &b);
        check_equal(peer, &b);
        assert!(!peer.lacks(&b.versions(LOG)) && b.suffixes_for(&peer.versions(LOG), u64::MAX).is_empty());
    }
    // The actor itself learns of its twin, and says no more in that log: nobody would believe it.
    tell(&mut a, &b);
    assert_eq!(a.digest(), b.digest());
    assert!(matches!(a.append(LOG, &op(9)), Err(AppendError::Forked { .. })));
    assert!(a.take_rows().is_none());
}

#[test]
fn two_histories_of_equal_length_are_found_out_by_their_heads() {
    let (mut b, mut c) = (ledger(2), ledger(3));
    meet(&mut b, &history(&[1, 2, 3], 1));
    meet(&mut c, &history(&[1, 2, 4], 1));
    assert!(!b.lacks(&c.versions(LOG)) && b.suffixes_for(&c.versions(LOG), u64::MAX).is_empty());
    tell(&mut b, &c);
    tell(&mut c, &b);
    check_equal(&b, &c);
    assert_eq!(b.ops(LOG).count(), 2);
}

#[test]
fn a_fork_is_still_known_after_a_start() {
    let (mut b, mut c) = (ledger(2), ledger(3));
    let mut rows = meet(&mut b, &history(&[1, 2, 3, 4], 2));
    rows.extend(meet(&mut b, &history(&[1, 2, 8], 1)));
    let loaded = c.load(rows.clone());
    check_equal(&b, &c);
    assert_eq!((loaded.ops.len(), loaded.dropped.len()), (2, 0));
    // An earlier one is stored in its place.
    let earlier = meet(&mut b, &history(&[1, 9], 1));
    assert_eq!(earlier.len(), 1);
    rows.retain(|row| !matches!(row, Row::Fork { .. }));
    rows.extend(earlier);
    let mut d = ledger(4);
    d.load(rows);
    check_equal(&b, &d);
    assert_eq!(d.ops(LOG).count(), 1);
}

#[test]
fn a_retired_log_takes_its_forks_along() {
    let (mut b, empty) = (ledger(2), ledger(3).digest());
    meet(&mut b, &history(&[1, 2], 1));
    meet(&mut b, &history(&[1, 3], 1));
    b.retire(LOG);
    assert_eq!((b.digest(), b.forked().count()), (empty, 0));
}

#[test]
fn an_own_op_on_its_way_to_the_disk_does_not_count_when_a_twin_turns_up() {
    let mut a = history(&[1], 1);
    a.append(LOG, &op(2)).unwrap();
    let batch = a.take_rows().unwrap();
    a.append(LOG, &op(3)).unwrap();
    let twin = history(&[1, 7, 8], 1);
    tell(&mut a, &twin);
    assert_eq!(a.durable(batch.mark), vec![]);
    assert!(settle(&mut a).is_empty());
    assert_eq!(all_ops(&a).len(), 1);
    let mut b = ledger(2);
    tell(&mut b, &a);
    check_equal(&a, &b);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_met_which_histories_in_which_order_all_end_at_the_place_where_the_first_two_part(
        parts in prop::collection::vec((0usize..6, 1usize..5, 1usize..4), 2..5),
        meetings in prop::collection::vec((0usize..4, 0usize..4, 0usize..5), 0..24),
    ) {
        // Histories that share 0 to 5 ops with the first one, then go their own way.
        let frames = |(n, (shared, own, _)): (usize, &(usize, usize, usize))| -> Vec<i32> {
            (0..*shared as i32).chain((0..*own as i32).map(|i| 100 * (n as i32 + 1) + i)).collect()
        };
        let plans: Vec<Vec<i32>> = parts.iter().enumerate().map(frames).collect();
        let sources: Vec<Ledger> = plans.iter().zip(&parts).map(|(plan, part)| history(plan, part.2)).collect();
        let mut nodes: Vec<Ledger> = (2..6).map(ledger).collect();
        let mut met = vec![false; sources.len()];
        for (to, from, source) in meetings {
            match sources.get(source) {
                Some(source_ledger) => {
                    met[source] = true;
                    meet(&mut nodes[to], source_ledger);
                }
                None if to != from => {
                    let mut other = nodes.remove(from);
                    let to = if to > from { to - 1 } else { to };
                    talk(&mut nodes[to], &mut other);
                    nodes.insert(from, other);
                }
                None => {}
            }
        }
        for i in 0..3 * nodes.len() {
            let mut one = nodes.remove(0);
            let other = i % nodes.len();
            talk(&mut nodes[other], &mut one);
            nodes.push(one);
        }
        let (first, rest) = nodes.split_first().unwrap();
        rest.iter().for_each(|node| check_equal(first, node));
        // All histories differ from each other: as soon as two were met, what the first to part share is what counts.
        let plans: Vec<&Vec<i32>> = plans.iter().zip(&met).filter(|(_, met)| **met).map(|(plan, _)| plan).collect();
        let shared = |a: &[i32], b: &[i32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let pairs = plans.iter().enumerate().flat_map(|(n, a)| plans[n + 1..].iter().map(move |b| shared(a, b)));
        match pairs.min() {
            Some(least) => prop_assert_eq!(first.ops(LOG).count(), least),
            None => prop_assert_eq!(first.ops(LOG).count(), plans.first().map_or(0, |plan| plan.len())),
        }
    }
}
