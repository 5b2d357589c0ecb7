//! Batches the storage thread has no room for: the disk is full, or slower than what comes in.
//!
//! Bounded by what the ledger itself holds: batches without a token become one, in which an op is once and of heads and
//! idle times only the latest. Those with a token are this node's own and keep their place.

use super::store::{Batch, LedgerRow, Refused, StoreWriter};
use std::collections::{BTreeMap, VecDeque};

/// The storage thread has ended: nothing will ever be written.
#[derive(Debug)]
pub struct Ended;

/// What a later row of the same replaces: a log's head by an actor, or its idle time.
type Replaced = ([u8; 16], Option<[u8; 40]>);

/// See the head of this file.
#[derive(Default)]
pub struct Unwritten {
    batches: VecDeque<Batch>,
    /// Where in the last batch.
    latest: BTreeMap<Replaced, usize>,
    /// Whether the last try met a full queue.
    full: bool,
}

impl Unwritten {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Puts a batch behind the others.
    pub fn push(&mut self, batch: Batch) {
        let joins = batch.token.is_none() && self.batches.back().is_some_and(|last| last.token.is_none());
        if !joins {
            self.latest.clear();
            self.batches.push_back(Batch { token: batch.token, rows: Vec::with_capacity(batch.rows.len()) });
        }
        let Some(last) = self.batches.back_mut() else { return };
        for row in batch.rows {
            let replaced = match &row {
                LedgerRow::Head { log, actor, .. } => Some((*log, Some(*actor))),
                LedgerRow::Idle { log, .. } => Some((*log, None)),
                LedgerRow::Op { .. } | LedgerRow::Fork { .. } => None,
                LedgerRow::Retired { .. } => {
                    // What comes after it counts, so it must stay after it.
                    self.latest.clear();
                    None
                }
            };
            match replaced.and_then(|key| self.latest.insert(key, last.rows.len()).map(|at| (key, at))) {
                Some((key, at)) => {
                    last.rows[at] = row;
                    self.latest.insert(key, at);
                }
                None => last.rows.push(row),
            }
        }
    }

    /// Sends what there is room for. Once there was none it is only tried `again` on demand: a try looks at every row.
    pub fn send(&mut self, writer: &StoreWriter, again: bool) -> Result<(), Ended> {
        if self.full && !again {
            return Ok(());
        }
        self.full = false;
        while let Some(batch) = self.batches.pop_front() {
            let (refused, ended) = match writer.try_send(batch) {
                Ok(()) => continue,
                Err(Refused::Full(batch)) => (batch, Ok(())),
                Err(Refused::Closed(batch)) => (batch, Err(Ended)),
            };
            self.batches.push_front(refused);
            self.full = true;
            return ended;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::node::store::{QUEUE_BYTES, Store};

    fn op(seq: u64, bytes: usize) -> LedgerRow {
        LedgerRow::Op { log: [1; 16], actor: [1; 40], seq, bytes: vec![7; bytes] }
    }

    fn head(n: u8) -> LedgerRow {
        LedgerRow::Head { log: [1; 16], actor: [1; 40], bytes: vec![n] }
    }

    fn idle(seconds: u64) -> LedgerRow {
        LedgerRow::Idle { log: [1; 16], seconds }
    }

    fn lazy(rows: Vec<LedgerRow>) -> Batch {
        Batch { token: None, rows }
    }

    #[test]
    fn what_waits_grows_with_the_ops_alone() {
        let mut unwritten = Unwritten::default();
        for n in 0..100 {
            unwritten.push(lazy(vec![op(n, 1), head(n as u8), idle(n)]));
        }
        assert_eq!(unwritten.batches.len(), 1);
        assert_eq!(unwritten.batches[0].rows.len(), 102);
        assert!(unwritten.batches[0].rows.contains(&head(99)) && unwritten.batches[0].rows.contains(&idle(99)));
        let retired = LedgerRow::Retired { log: [1; 16] };
        unwritten.push(lazy(vec![retired.clone(), head(100)]));
        assert!(unwritten.batches[0].rows.ends_with(&[retired, head(100)]));
        unwritten.push(Batch { token: Some(1), rows: vec![head(101)] });
        unwritten.push(lazy(vec![head(102)]));
        let last: Vec<_> = unwritten.batches.iter().skip(1).map(|batch| (batch.token, batch.rows.clone())).collect();
        assert_eq!(last, vec![(Some(1), vec![head(101)]), (None, vec![head(102)])]);
    }

    #[test]
    fn a_full_queue_is_waited_for_and_a_dead_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut unwritten = Unwritten::default();
        store.writer().try_send(lazy(vec![op(0, QUEUE_BYTES / 2)])).unwrap();
        unwritten.push(lazy(vec![op(1, QUEUE_BYTES / 2)]));
        unwritten.send(&store.writer(), false).unwrap();
        store.set_setting("now", b"").unwrap();
        unwritten.send(&store.writer(), false).unwrap();
        assert!(!unwritten.is_empty(), "it was tried again unasked");
        unwritten.send(&store.writer(), true).unwrap();
        assert!(unwritten.is_empty());
        store.close().unwrap();
        unwritten.push(lazy(vec![head(1)]));
        assert!(unwritten.send(&store.writer(), false).is_err());
    }
}
