//! One actor's log: its framed ops, and the signed heads that vouch for them.
//!
//! An actor that signed two histories counts as far as they agree. Of each, what lies between there and its next head is
//! kept: ordinary suffixes, from which whoever has either history (or none) finds the fork by itself, so that a proof
//! needs no trust and no format of its own. Whatever order histories are met in, everyone ends at the place where the
//! earliest two part.

use super::{CHECKPOINT_BYTES, MergeError, PIECE_BYTES, Row, StoredOps};
use crate::farm::id::ActorId;
use crate::farm::message::{LogId, SignedHead, Suffix};
use crate::farm::op::Op;
use crate::seal::{self, Hash};
use crate::wire;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes an op takes in a suffix: itself and its length.
pub(super) fn cost(op: &[u8]) -> u64 {
    op.len() as u64 + 5
}

/// Heads remembered beside the checkpoints (guess: a few seconds of talk).
const MAX_RECENT: usize = 32;

/// A signed head, and where in the bytes of the log it is.
#[derive(Clone, Copy)]
struct Checkpoint {
    head: SignedHead,
    /// Cost of all ops before it.
    end: u64,
}

#[derive(Clone)]
pub(super) struct Track {
    ops: Vec<Arc<[u8]>>,
    genesis: Hash,
    /// Chain after the last op.
    tip: Hash,
    /// Cost of all ops.
    bytes: u64,
    /// Ascending by length.
    checkpoints: Vec<Checkpoint>,
    /// Chains at the last heads seen, checkpoints or not: what is heard twice ends at one of them.
    recent: VecDeque<(u64, Hash)>,
    /// What may be told: the length of a checkpoint, or 0.
    visible: u64,
    /// The actor signed two histories.
    fork: Option<Box<Fork>>,
}

/// Where two histories part.
#[derive(Clone)]
struct Fork {
    /// Ops both begin with.
    at: u64,
    /// Chain after those.
    chain: Hash,
    /// The history that is not the one here, from there to a head of it.
    other: Suffix,
}

/// What is new in a suffix: ops, and the chain after them.
pub(super) struct New {
    pub ops: Vec<Arc<[u8]>>,
    tip: Hash,
}

/// What a suffix turned out to be.
pub(super) enum Seen {
    Nothing,
    Ops(New),
    /// Another history: how many ops it shares with the one here.
    Fork(u64),
}

impl Track {
    pub fn new(genesis: Hash) -> Self {
        Self {
            ops: Vec::new(),
            genesis,
            tip: genesis,
            bytes: 0,
            checkpoints: Vec::new(),
            recent: VecDeque::new(),
            visible: 0,
            fork: None,
        }
    }

    pub fn length(&self) -> u64 {
        self.ops.len() as u64
    }

    /// What counts: all that may be told, of an actor with two histories only what they share.
    pub fn visible(&self) -> u64 {
        self.fork.as_ref().map_or(self.visible, |fork| fork.at.min(self.visible))
    }

    pub fn tip(&self) -> Hash {
        self.tip
    }

    /// Ops both histories of the actor begin with, and the chain after those, if it has two.
    pub fn forked(&self) -> Option<(u64, Hash)> {
        self.fork.as_ref().map(|fork| (fork.at, fork.chain))
    }

    /// `suffix` is another history, which shares the first `at` ops with this one; gives what is to be kept of it.
    pub fn fork(&mut self, at: u64, suffix: &Suffix) -> Suffix {
        let chain = self.chain_at(at);
        let mut other = suffix.clone();
        other.ops.drain(..at.saturating_sub(suffix.from) as usize);
        other.from = at;
        let first = self.checkpoints.partition_point(|c| c.head.length <= at);
        if let Some(kept) = self.checkpoints.get(first).copied() {
            self.checkpoints.truncate(first + 1);
            self.ops.truncate(kept.head.length as usize);
            self.recent.clear();
            (self.tip, self.bytes) = (kept.head.chain, kept.end);
        }
        self.fork = Some(Box::new(Fork { at, chain, other: other.clone() }));
        other
    }

    pub fn push(&mut self, op: Arc<[u8]>) {
        self.tip = seal::chain(&self.tip, &op);
        self.bytes += cost(&op);
        self.ops.push(op);
    }

    /// Whether the bytes since the last head and an op of this length would be too much for one piece.
    pub fn needs_checkpoint_before(&self, op_len: usize) -> bool {
        let sealed = self.checkpoints.last().map_or(0, |last| last.end);
        self.bytes > sealed && self.bytes - sealed + op_len as u64 + 5 > CHECKPOINT_BYTES
    }

    /// A head at the present end.
    pub fn seal(&mut self, head: SignedHead) {
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((head.length, head.chain));
        if self.checkpoints.last().is_none_or(|last| last.head.length < head.length) {
            self.checkpoints.push(Checkpoint { head, end: self.bytes });
        }
    }

    /// Everything up to the checkpoint of this length may be told from now on.
    pub fn reveal(&mut self, length: u64) {
        self.visible = self.visible.max(length);
        self.prune();
    }

    pub fn extend(&mut self, new: New, head: SignedHead) {
        self.bytes += new.ops.iter().map(|op| cost(op)).sum::<u64>();
        self.ops.extend(new.ops);
        self.tip = new.tip;
        self.seal(head);
        self.reveal(head.length);
    }

    /// Forgets heads that lie closer than pieces need, never the last that may be told.
    fn prune(&mut self) {
        let all = std::mem::take(&mut self.checkpoints);
        for (i, checkpoint) in all.iter().enumerate() {
            let before = self.checkpoints.last().map_or(0, |last| last.end);
            let spare = all
                .get(i + 1)
                .is_some_and(|next| next.head.length <= self.visible && next.end - before <= CHECKPOINT_BYTES);
            if !spare {
                self.checkpoints.push(*checkpoint);
            }
        }
    }

    /// Chain after the first `length` ops, which must be here: from the nearest head on.
    fn chain_at(&self, length: u64) -> Hash {
        if length == self.length() {
            return self.tip;
        }
        if let Some((_, chain)) = self.recent.iter().rev().find(|(of, _)| *of == length) {
            return *chain;
        }
        let nearest = self.checkpoints.partition_point(|c| c.head.length <= length).checked_sub(1);
        let (from, start) = nearest.map_or((0, self.genesis), |i| {
            let head = &self.checkpoints[i].head;
            (head.length, head.chain)
        });
        self.ops[from as usize..length as usize].iter().fold(start, |hash, op| seal::chain(&hash, op))
    }

    /// What a suffix of this log brings, without changing anything.
    pub fn examine(&self, suffix: &Suffix, verify: impl Fn(&SignedHead) -> bool) -> Result<Seen, MergeError> {
        let (log, actor, head) = (suffix.log, suffix.actor, &suffix.head);
        let have = self.length();
        if self.fork.as_ref().is_some_and(|fork| suffix.from > fork.at) {
            // More of some history after the place where it counts no more.
            return Ok(Seen::Nothing);
        }
        if suffix.from > have {
            return Err(MergeError::Gap { log, actor, have, from: suffix.from });
        }
        if suffix.from.checked_add(suffix.ops.len() as u64) != Some(head.length) {
            return Err(MergeError::BadChain { log, actor });
        }
        if head.length <= have && self.chain_at(head.length) == head.chain {
            return Ok(Seen::Nothing);
        }
        let here = &self.ops[suffix.from as usize..];
        let shared = here.iter().zip(&suffix.ops).take_while(|(mine, theirs)| mine[..] == theirs[..]).count();
        let at = suffix.from + shared as u64;
        let rest = &suffix.ops[shared..];
        let tip = rest.iter().fold(self.chain_at(at), |hash, op| seal::chain(&hash, op));
        if !verify(head) {
            return Err(MergeError::BadSignature { log, actor });
        }
        if tip != head.chain {
            // From the very beginning on there is no other history to blame.
            return Err(match suffix.from {
                0 => MergeError::BadChain { log, actor },
                _ => MergeError::Apart { log, actor },
            });
        }
        if self.fork.as_ref().is_some_and(|fork| at >= fork.at) {
            return Ok(Seen::Nothing);
        }
        if at < have {
            return Ok(Seen::Fork(at));
        }
        Ok(Seen::Ops(New { ops: rest.to_vec(), tip }))
    }

    /// Fills an empty track from the store; how many ops are vouched for.
    pub fn restore(&mut self, stored: StoredOps, heads: &[SignedHead], verify: impl Fn(&SignedHead) -> bool) -> u64 {
        let mut heads: Vec<&SignedHead> = heads.iter().filter(|head| verify(head)).collect();
        heads.sort_by_key(|head| head.length);
        let mut heads = heads.into_iter().peekable();
        let mut run = New { ops: Vec::new(), tip: self.tip };
        for (seq, op) in stored {
            if seq != self.length() + run.ops.len() as u64 || wire::decode_op(&op).is_err() {
                break;
            }
            run.tip = seal::chain(&run.tip, &op);
            run.ops.push(op);
            while let Some(head) = heads.next_if(|head| head.length <= seq + 1) {
                if head.length == seq + 1 && head.chain == run.tip {
                    let next = New { ops: Vec::new(), tip: run.tip };
                    self.extend(std::mem::replace(&mut run, next), *head);
                }
            }
        }
        self.visible
    }

    /// What is told of everything after the first `from` ops, in pieces that each end at a head. Of two histories both are
    /// told, from where they part at the latest.
    pub fn pieces(&self, log: LogId, actor: ActorId, from: u64) -> impl Iterator<Item = Suffix> + '_ {
        let mut at = self.fork.as_ref().map_or(from, |fork| from.min(fork.at));
        let ordinary = std::iter::from_fn(move || {
            let suffix = self.piece(log, actor, at)?;
            at = suffix.head.length;
            Some(suffix)
        });
        ordinary.chain(self.fork.as_ref().map(|fork| fork.other.clone()))
    }

    /// The last head that may be told, alone: who has another history sees it at once.
    pub fn bare_head(&self, log: LogId, actor: ActorId) -> Option<Suffix> {
        let told = self.checkpoints.partition_point(|c| c.head.length <= self.tellable()).checked_sub(1)?;
        let head = self.checkpoints[told].head;
        Some(Suffix { log, actor, from: head.length, ops: Vec::new(), head })
    }

    /// What others may be sent: all that is left of either history, once there are two.
    fn tellable(&self) -> u64 {
        if self.fork.is_some() { self.length() } else { self.visible }
    }

    fn piece(&self, log: LogId, actor: ActorId, from: u64) -> Option<Suffix> {
        let first = self.checkpoints.partition_point(|c| c.head.length <= from);
        let told = |c: &&Checkpoint| c.head.length <= self.tellable();
        let mut last = self.checkpoints.get(first).filter(told)?;
        let start =
            last.end - self.ops[from as usize..last.head.length as usize].iter().map(|op| cost(op)).sum::<u64>();
        for next in self.checkpoints[first + 1..].iter().take_while(told) {
            if next.end - start > PIECE_BYTES {
                break;
            }
            last = next;
        }
        let head = last.head;
        let ops = self.ops[from as usize..head.length as usize].to_vec();
        Some(Suffix { log, actor, from, ops, head })
    }

    pub fn decoded(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, Op)> + '_ {
        let to = to.min(self.length());
        let ops = (from..).zip(&self.ops[from.min(to) as usize..to as usize]);
        // Nothing undecodable is ever let in.
        ops.filter_map(|(seq, bytes)| Some((seq, wire::decode_op(bytes).ok()?)))
    }

    pub fn op_rows(&self, log: LogId, actor: ActorId, from: u64) -> impl Iterator<Item = Row> + '_ {
        let ops = (from..).zip(self.ops.iter().skip(from as usize));
        ops.map(move |(seq, bytes)| Row::Op { log, actor, seq, bytes: bytes.clone() })
    }

    pub fn head_row(&self, log: LogId, actor: ActorId) -> Row {
        let heads: Vec<SignedHead> = self.checkpoints.iter().map(|c| c.head).collect();
        // Heads are fixed in size and few; were they ever too many, load would find none and repair fetch the log again.
        Row::Head { log, actor, bytes: wire::encode_value(&heads).unwrap_or_default() }
    }

    /// What this adds to the digests: nothing before anything may be told.
    pub fn digest_item(&self, log: LogId, actor: ActorId) -> Option<Hash> {
        if let Some(fork) = &self.fork {
            return Some(seal::fork_item(log, actor, fork.at, &fork.chain));
        }
        let at = self.checkpoints.partition_point(|c| c.head.length <= self.visible).checked_sub(1)?;
        let head = &self.checkpoints[at].head;
        Some(seal::digest_item(log, actor, head.length, &head.chain))
    }
}
