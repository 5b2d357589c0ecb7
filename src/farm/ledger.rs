//! The ledger's mechanics: logs by actor, union, proofs, digests. What an op means is none of its business.
//!
//! Each log (a job's, or the swarm's) holds one append-only, hash-chained list of framed ops per actor, which only that
//! actor writes. Merging is union, so it commutes and repeats harmlessly. Everything a node tells or keeps of an actor
//! ends at a head the actor signed; heads are kept close enough that any node can hand on any piece.
//!
//! Own ops take three steps: [`Ledger::append`] writes them down here alone, [`Ledger::take_rows`] hands them out to be
//! stored, and only [`Ledger::durable`] lets digests, versions and suffixes see them, so that nothing is ever announced
//! that a crash could take back.

mod error;
mod track;

pub use error::{AppendError, Dropped, MergeError};

use super::id::{ActorId, BootId, NodeId};
use super::job::JobSpec;
use super::message::{LogId, Message, SWARM_LOG, SignedHead, Suffix, Versions};
use super::op::{Op, Reuse};
use crate::seal::{self, Hash, Sealer};
use crate::wire;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use track::{Seen, Track};

/// Most bytes of framed ops in one suffix, unless a single op is longer; the largest such suffix fits a ledger message.
pub const PIECE_BYTES: u64 = 200 * 1024;
/// Most bytes of ops between two signed heads, unless a single op is longer (DESIGN §2).
pub const CHECKPOINT_BYTES: u64 = 128 * 1024;
/// Most logs that are not retired (guess; a studio's year).
pub const MAX_LOGS: usize = 100_000;
/// Most actors of one log: starts of daemons that ever wrote to it. As many as fit one `Versions` with a fork of each.
pub const MAX_ACTORS: usize = 2000;
/// Most bytes of an actor in a `Versions`: its length, and its fork.
const ACTOR_BYTES: usize = 40 + 9 + 40 + 9 + 32;
const _: () = assert!(MAX_ACTORS * ACTOR_BYTES <= wire::LEDGER_MAX_BYTES - 1024);

// The longest piece, with room for what a suffix and its message add, is a legal message.
const _: () = assert!(PIECE_BYTES as usize + 1024 <= wire::LEDGER_MAX_BYTES);
const _: () = assert!(wire::MAX_OP_BYTES + 1024 <= PIECE_BYTES as usize);

/// Something the store keeps. Rows are written in the order given; those of one batch together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// An op.
    Op {
        /// Of which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
        /// Sequence number.
        seq: u64,
        /// Framed.
        bytes: Arc<[u8]>,
    },
    /// The heads of an actor's log, instead of those before: opaque to the store.
    Head {
        /// Of which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
        /// For [`Ledger::load`].
        bytes: Vec<u8>,
    },
    /// The log's rows may go; its id is to be remembered for ever.
    Retired {
        /// Which.
        log: LogId,
    },
    /// Proof that an actor signed two histories, instead of the one before: opaque to the store.
    Fork {
        /// Of which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
        /// For [`Ledger::load`].
        bytes: Vec<u8>,
    },
    /// How long this node has seen the log's job lie idle, over all its starts; replaces what was said before.
    Idle {
        /// Which.
        log: LogId,
        /// Seconds.
        seconds: u64,
    },
}

/// The id of a new start of `node`, which orders after all that these rows tell of.
pub fn next_boot(node: NodeId, rows: &[Row], random: [u8; 8]) -> BootId {
    let own = rows.iter().filter_map(|row| match row {
        Row::Op { actor, .. } | Row::Head { actor, .. } | Row::Fork { actor, .. } => Some(*actor),
        Row::Retired { .. } | Row::Idle { .. } => None,
    });
    BootId::next(own.filter(|actor| actor.node == node).map(|actor| actor.boot), random)
}

/// Rows to make durable, and what to tell [`Ledger::durable`] once they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Counts batches.
    pub mark: u64,
    /// Own ops, each run followed by its head.
    pub rows: Vec<Row>,
}

/// What a merge brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Ops not known before, in order: (sequence number, op).
    pub new_ops: Vec<(u64, Op)>,
    /// To be stored, without haste.
    pub rows: Vec<Row>,
    /// The actor turned out to have signed two histories, which share so many ops: what was folded after those is void.
    pub forked: Option<u64>,
}

/// What a start found in the store.
#[derive(Debug, Default)]
pub struct Loaded {
    /// All ops, by log, actor and sequence number.
    pub ops: Vec<(LogId, ActorId, u64, Op)>,
    /// What was left behind; repair fetches it again from whoever has it.
    pub dropped: Vec<Dropped>,
    /// How long jobs have lain idle, in seconds.
    pub idle: BTreeMap<LogId, u64>,
}

#[derive(Clone, Default)]
struct Log {
    tracks: BTreeMap<ActorId, Track>,
    digest: Hash,
}

/// Ops of one log of one actor as the store has them, by sequence number.
type StoredOps = BTreeMap<u64, Arc<[u8]>>;
/// A run of own ops handed out to be stored: log, first, past the last.
type Run = (LogId, u64, u64);

/// All logs this node knows.
#[derive(Clone)]
pub struct Ledger {
    sealer: Sealer,
    me: ActorId,
    swarm: Hash,
    logs: BTreeMap<LogId, Log>,
    retired: BTreeSet<LogId>,
    /// First own op of each log that was not handed out to be stored.
    fresh: BTreeMap<LogId, u64>,
    in_flight: VecDeque<(u64, Vec<Run>)>,
    last_mark: u64,
    digest: Hash,
}

fn flip(digest: &mut Hash, item: &Hash) {
    digest.iter_mut().zip(item).for_each(|(byte, other)| *byte ^= other);
}

impl Ledger {
    /// An empty one, written to by this start of the sealer's node.
    pub fn new(sealer: Sealer, boot: BootId, swarm: Hash) -> Self {
        let me = ActorId { node: sealer.node(), boot };
        Self {
            sealer,
            me,
            swarm,
            logs: BTreeMap::new(),
            retired: BTreeSet::new(),
            fresh: BTreeMap::new(),
            in_flight: VecDeque::new(),
            last_mark: 0,
            digest: [0; 32],
        }
    }

    /// Who writes here.
    pub fn me(&self) -> ActorId {
        self.me
    }

    /// Writes down the `Submit` of a new job, in a new log. The same spec twice is the same job. What belongs to it comes
    /// first, and before that the results that are there: whoever knows of the job then knows of those too.
    pub fn submit(&mut self, results: &[Op], mut spec: JobSpec) -> Result<LogId, AppendError> {
        let encoded = |op: &Op| wire::encode_op(op).map_err(|source| AppendError::Op { log: SWARM_LOG, source });
        let min_version = spec.settings.op_version();
        let words = spec.settings.take_words();
        let mut ops = results.iter().chain(&words).map(encoded).collect::<Result<Vec<_>, _>>()?;
        if let Some(colours) = spec.reuse {
            ops.push(encoded(&Op::Reuse { word: Reuse::Wanted { colours } })?);
        }
        if !spec.views.is_one_file() {
            ops.push(encoded(&Op::Views { views: spec.views.clone() })?);
        }
        let before = ops.len() as u64;
        let bytes = encoded(&Op::Submit { min_version, spec: Box::new(spec) })?;
        let log = seal::job_id(self.me, before, &bytes);
        if !self.logs.contains_key(&log) {
            ops.push(bytes);
            ops.into_iter().try_for_each(|bytes| self.append_bytes(log, bytes).map(|_| ()))?;
        }
        Ok(log)
    }

    /// Writes down a revision of a job, behind what of it travels in ops of its own: all or none of it, since scripts left
    /// alone would be taken for those of the next.
    pub fn revise(&mut self, log: LogId, words: &[Op], revise: &Op) -> Result<(), AppendError> {
        self.append_all(log, &Vec::from_iter(words.iter().chain([revise])))
    }

    /// Writes down own ops of which each counts for the next: all of them or none.
    pub fn append_all(&mut self, log: LogId, ops: &[&Op]) -> Result<(), AppendError> {
        let encoded = ops.iter().map(|op| wire::encode_op(op).map_err(|source| AppendError::Op { log, source }));
        let encoded: Vec<Vec<u8>> = encoded.collect::<Result<_, _>>()?;
        encoded.into_iter().try_for_each(|bytes| self.append_bytes(log, bytes).map(|_| ()))
    }

    /// Writes down an own op and gives its sequence number. It is seen by no one before it is durable.
    pub fn append(&mut self, log: LogId, op: &Op) -> Result<u64, AppendError> {
        let bytes = wire::encode_op(op).map_err(|source| AppendError::Op { log, source })?;
        let seq = self.logs.get(&log).and_then(|log| log.tracks.get(&self.me)).map_or(0, Track::length);
        if matches!(op, Op::Submit { .. }) && seal::job_id(self.me, seq, &bytes) != log {
            return Err(AppendError::NotItsLog { log });
        }
        self.append_bytes(log, bytes)
    }

    fn append_bytes(&mut self, log: LogId, bytes: Vec<u8>) -> Result<u64, AppendError> {
        if self.retired.contains(&log) {
            return Err(AppendError::Retired { log });
        }
        if self.logs.len() >= MAX_LOGS && !self.logs.contains_key(&log) {
            return Err(AppendError::TooManyLogs);
        }
        let (me, swarm, sealer) = (self.me, &self.swarm, &self.sealer);
        let tracks = &mut self.logs.entry(log).or_default().tracks;
        let track = tracks.entry(me).or_insert_with(|| Track::new(seal::genesis(swarm, log, me)));
        if track.forked().is_some() {
            return Err(AppendError::Forked { log });
        }
        if track.needs_checkpoint_before(bytes.len()) {
            track.seal(sealer.sign(swarm, log, me.boot, track.length(), track.tip()));
        }
        let seq = track.length();
        track.push(bytes.into());
        self.fresh.entry(log).or_insert(seq);
        Ok(seq)
    }

    /// What was appended since the last time, signed, to be made durable; `None` when there is nothing.
    pub fn take_rows(&mut self) -> Option<Batch> {
        if self.fresh.is_empty() {
            return None;
        }
        let (me, mut rows, mut runs) = (self.me, Vec::new(), Vec::new());
        for (log, from) in std::mem::take(&mut self.fresh) {
            let Some(track) = self.logs.get_mut(&log).and_then(|log| log.tracks.get_mut(&me)) else { continue };
            if track.forked().is_some() {
                continue;
            }
            track.seal(self.sealer.sign(&self.swarm, log, me.boot, track.length(), track.tip()));
            rows.extend(track.op_rows(log, me, from));
            rows.push(track.head_row(log, me));
            runs.push((log, from, track.length()));
        }
        self.last_mark += 1;
        self.in_flight.push_back((self.last_mark, runs));
        Some(Batch { mark: self.last_mark, rows })
    }

    /// Whether everything appended is stored.
    pub fn is_durable(&self) -> bool {
        self.fresh.is_empty() && self.in_flight.is_empty()
    }

    /// Own ops that are not durable yet.
    pub fn pending(&self) -> impl Iterator<Item = Op> + '_ {
        let in_flight = self.in_flight.iter().flat_map(|(_, runs)| runs).map(|(log, from, to)| (log, *from, *to));
        let fresh = self.fresh.iter().map(|(log, from)| (log, *from, u64::MAX));
        in_flight.chain(fresh).flat_map(|(log, from, to)| {
            let track = self.logs.get(log).and_then(|log| log.tracks.get(&self.me));
            track.into_iter().flat_map(move |track| track.decoded(from, to)).map(|(_, op)| op)
        })
    }

    /// The batch of this mark, and all before it, is stored: its ops, which may now be told and folded.
    pub fn durable(&mut self, mark: u64) -> Vec<(LogId, u64, Op)> {
        let mut ops = Vec::new();
        while let Some((_, runs)) = self.in_flight.pop_front_if(|(of, _)| *of <= mark) {
            for (id, from, to) in runs {
                let Some(log) = self.logs.get_mut(&id) else { continue };
                let Some(track) = log.tracks.get_mut(&self.me) else { continue };
                let before = track.digest_item(id, self.me);
                track.reveal(to);
                let after = track.digest_item(id, self.me);
                ops.extend(track.decoded(from, to.min(track.visible())).map(|(seq, op)| (id, seq, op)));
                for item in [before, after].iter().flatten() {
                    flip(&mut log.digest, item);
                    flip(&mut self.digest, item);
                }
            }
        }
        ops
    }

    /// Takes in a piece of another actor's log.
    pub fn merge(&mut self, suffix: &Suffix) -> Result<Merged, MergeError> {
        let (id, actor) = (suffix.log, suffix.actor);
        if self.retired.contains(&id) {
            return Err(MergeError::Retired { log: id });
        }
        let (logs_full, swarm) = (self.logs.len() >= MAX_LOGS, &self.swarm);
        let known = self.logs.get(&id);
        let empty = || Track::new(seal::genesis(swarm, id, actor));
        let track = known.and_then(|log| log.tracks.get(&actor)).map_or_else(|| Cow::Owned(empty()), Cow::Borrowed);
        let is_new_track = track.length() == 0;
        let new = match track.examine(suffix, |head| self.sealer.verify(swarm, id, actor, head))? {
            Seen::Nothing => return Ok(Merged::default()),
            Seen::Fork(at) => {
                let kept = self.fork(at, suffix);
                // A proof that arrived fits a value; were it ever too long, it is learnt anew after a start.
                let bytes = wire::encode_value(&kept).unwrap_or_default();
                let rows = vec![Row::Fork { log: id, actor, bytes }];
                return Ok(Merged { rows, forked: Some(at), ..Merged::default() });
            }
            Seen::Ops(new) => new,
        };
        if actor == self.me {
            return Err(MergeError::Mine { log: id, actor });
        }
        let full = match known {
            Some(log) => is_new_track && log.tracks.len() >= MAX_ACTORS,
            None => logs_full,
        };
        if full {
            return Err(MergeError::Full { log: id, actor });
        }
        let mut new_ops = Vec::with_capacity(new.ops.len());
        for (seq, bytes) in (track.length()..).zip(&new.ops) {
            let op = wire::decode_op(bytes).map_err(|source| MergeError::BadOp { log: id, actor, seq, source })?;
            if matches!(op, Op::Submit { .. }) && seal::job_id(actor, seq, bytes) != id {
                return Err(MergeError::NotItsJob { log: id, actor, seq });
            }
            new_ops.push((seq, op));
        }
        let from = track.length();
        let log = self.logs.entry(id).or_default();
        let track = log.tracks.entry(actor).or_insert_with(empty);
        let before = track.digest_item(id, actor);
        track.extend(new, suffix.head);
        let after = track.digest_item(id, actor);
        for item in [before, after].iter().flatten() {
            flip(&mut log.digest, item);
            flip(&mut self.digest, item);
        }
        let rows = track.op_rows(id, actor, from).chain([track.head_row(id, actor)]).collect();
        Ok(Merged { new_ops, rows, forked: None })
    }

    fn fork(&mut self, at: u64, suffix: &Suffix) -> Option<Suffix> {
        let (id, actor, me) = (suffix.log, suffix.actor, self.me);
        let log = self.logs.get_mut(&id)?;
        let track = log.tracks.get_mut(&actor)?;
        let before = track.digest_item(id, actor);
        if actor == me {
            // Own ops that no head vouches for yet are part of this history.
            track.seal(self.sealer.sign(&self.swarm, id, me.boot, track.length(), track.tip()));
        }
        let kept = track.fork(at, suffix);
        let after = track.digest_item(id, actor);
        for item in [before, after].iter().flatten() {
            flip(&mut log.digest, item);
            flip(&mut self.digest, item);
        }
        Some(kept)
    }

    /// Takes in what the store kept, at start: everything vouched for by a head whose signature holds.
    pub fn load(&mut self, rows: Vec<Row>) -> Loaded {
        let mut ops: BTreeMap<(LogId, ActorId), StoredOps> = BTreeMap::new();
        let mut heads: BTreeMap<(LogId, ActorId), Vec<SignedHead>> = BTreeMap::new();
        let mut forks: BTreeMap<(LogId, ActorId), Option<Suffix>> = BTreeMap::new();
        let mut loaded = Loaded::default();
        for row in rows {
            match row {
                Row::Op { log, actor, seq, bytes } => {
                    ops.entry((log, actor)).or_default().insert(seq, bytes);
                }
                Row::Head { log, actor, bytes } => {
                    heads.insert((log, actor), wire::decode_value(&bytes).unwrap_or_default());
                }
                Row::Fork { log, actor, bytes } => {
                    forks.insert((log, actor), wire::decode_value::<Option<Suffix>>(&bytes).ok().flatten());
                }
                Row::Retired { log } => {
                    self.retired.insert(log);
                }
                Row::Idle { log, seconds } => {
                    loaded.idle.insert(log, seconds);
                }
            }
        }
        for ((id, actor), stored) in ops {
            if self.retired.contains(&id) {
                continue;
            }
            let total = stored.len() as u64;
            let heads = heads.remove(&(id, actor)).unwrap_or_default();
            let mut track = Track::new(seal::genesis(&self.swarm, id, actor));
            let proven = track.restore(stored, &heads, |head| self.sealer.verify(&self.swarm, id, actor, head));
            if proven < total {
                loaded.dropped.push(Dropped { log: id, actor, ops: total - proven });
            }
            if proven == 0 {
                continue;
            }
            if let Some(proof) = forks.remove(&(id, actor)).flatten()
                && (proof.log, proof.actor) == (id, actor)
                && let Ok(Seen::Fork(at)) = track.examine(&proof, |h| self.sealer.verify(&self.swarm, id, actor, h))
            {
                track.fork(at, &proof);
            }
            loaded.ops.extend(track.decoded(0, track.visible()).map(|(seq, op)| (id, actor, seq, op)));
            let log = self.logs.entry(id).or_default();
            if let Some(item) = track.digest_item(id, actor) {
                flip(&mut log.digest, &item);
                flip(&mut self.digest, &item);
            }
            log.tracks.insert(actor, track);
        }
        loaded
    }

    /// One hash over all live logs: equal on two nodes when they know the same.
    pub fn digest(&self) -> Hash {
        self.digest
    }

    /// A hash per live log that anything is known of.
    pub fn log_digests(&self) -> Vec<(LogId, Hash)> {
        self.logs.iter().filter(|(_, log)| log.digest != [0; 32]).map(|(id, log)| (*id, log.digest)).collect()
    }

    /// How far each actor of a log is known here.
    pub fn versions(&self, log: LogId) -> Versions {
        let known = self.logs.get(&log);
        let tracks = || known.into_iter().flat_map(|log| &log.tracks);
        let lengths = tracks().filter(|(_, track)| track.forked().is_none());
        let lengths =
            lengths.map(|(actor, track)| (*actor, track.visible())).filter(|(_, length)| *length > 0).collect();
        let forks =
            tracks().filter_map(|(actor, track)| track.forked().map(|(at, chain)| (*actor, at, chain))).collect();
        Versions { log, digest: known.map_or([0; 32], |log| log.digest), lengths, forks }
    }

    /// The same, as if nothing were known of one actor: who answers tells all of it.
    pub fn versions_without(&self, log: LogId, actor: ActorId) -> Versions {
        let mut versions = self.versions(log);
        versions.digest = [0; 32];
        versions.lengths.retain(|(of, _)| *of != actor);
        versions.forks.retain(|(of, _, _)| *of != actor);
        versions
    }

    /// How many ops of an actor are known here.
    pub fn length(&self, log: LogId, actor: ActorId) -> u64 {
        self.logs.get(&log).and_then(|log| log.tracks.get(&actor)).map_or(0, Track::visible)
    }

    /// What somebody who is `theirs` far lacks, until about `budget_bytes` of ops; the rest is for the next time.
    pub fn suffixes_for(&self, theirs: &Versions, budget_bytes: u64) -> Vec<Suffix> {
        let known: BTreeMap<ActorId, u64> = theirs.lengths.iter().copied().collect();
        let forks: BTreeMap<ActorId, (u64, Hash)> =
            theirs.forks.iter().map(|(actor, at, chain)| (*actor, (*at, *chain))).collect();
        let (mut suffixes, mut bytes) = (Vec::new(), 0);
        let tracks = self.logs.get(&theirs.log).into_iter().flat_map(|log| &log.tracks);
        for (actor, track) in tracks {
            let from = match (track.forked(), forks.get(actor)) {
                // They have a proof and this node has none, or one of a later place: theirs stands.
                (None, Some(_)) => continue,
                (Some((at, _)), Some((theirs, _))) if at > *theirs => continue,
                (Some(mine), Some(theirs)) if mine == *theirs => continue,
                (Some(_), Some((theirs, _))) => *theirs,
                (_, None) => known.get(actor).copied().unwrap_or(0),
            };
            for suffix in track.pieces(theirs.log, *actor, from) {
                if bytes >= budget_bytes {
                    return suffixes;
                }
                bytes += suffix_bytes(&suffix);
                suffixes.push(suffix);
            }
        }
        suffixes
    }

    /// Whether somebody who is `theirs` far knows something of that log that is not known here.
    pub fn lacks(&self, theirs: &Versions) -> bool {
        let tracks = self.logs.get(&theirs.log).map(|log| &log.tracks);
        let track = |actor: &ActorId| tracks.and_then(|tracks| tracks.get(actor));
        let is_longer = |(actor, length): &(ActorId, u64)| {
            track(actor).map_or(*length > 0, |track| track.forked().is_none() && track.visible() < *length)
        };
        let is_news = |(actor, at, chain): &(ActorId, u64, Hash)| {
            track(actor).and_then(Track::forked).is_none_or(|mine| mine != (*at, *chain) && mine.0 >= *at)
        };
        !self.retired.contains(&theirs.log)
            && (theirs.lengths.iter().any(is_longer) || theirs.forks.iter().any(is_news))
    }

    /// The last head of each actor of a log, without ops: for somebody who has as many ops, and others.
    pub fn bare_heads(&self, log: LogId) -> Vec<Suffix> {
        let tracks = self.logs.get(&log).into_iter().flat_map(|log| &log.tracks);
        tracks.filter_map(|(actor, track)| track.bare_head(log, *actor)).collect()
    }

    /// Everything known of an actor's log from op `from` on, in pieces; `None` when nothing is. Of an actor with two
    /// histories, both.
    pub fn suffix(&self, log: LogId, actor: ActorId, from: u64) -> Option<Vec<Suffix>> {
        let pieces: Vec<_> = self.logs.get(&log)?.tracks.get(&actor)?.pieces(log, actor, from).collect();
        (!pieces.is_empty()).then_some(pieces)
    }

    /// The live logs.
    pub fn logs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.logs.keys().copied()
    }

    /// The ops of a log that are durable or came from others, by actor and sequence number.
    pub fn ops(&self, log: LogId) -> impl Iterator<Item = (ActorId, u64, Op)> + '_ {
        let tracks = self.logs.get(&log).into_iter().flat_map(|log| &log.tracks);
        tracks.flat_map(|(actor, track)| track.decoded(0, track.visible()).map(|(seq, op)| (*actor, seq, op)))
    }

    /// Forgets a job's log for good, keeping its id; the row to store, or `None` when that was so (or it is the swarm's).
    pub fn retire(&mut self, log: LogId) -> Option<Row> {
        if log == SWARM_LOG || !self.retired.insert(log) {
            return None;
        }
        if let Some(gone) = self.logs.remove(&log) {
            flip(&mut self.digest, &gone.digest);
        }
        self.fresh.remove(&log);
        Some(Row::Retired { log })
    }

    /// Whether anything of a log is here.
    pub fn knows(&self, log: LogId) -> bool {
        self.logs.contains_key(&log)
    }

    /// Whether a log is gone for good.
    pub fn is_retired(&self, log: LogId) -> bool {
        self.retired.contains(&log)
    }

    /// The actors caught signing two histories, by log.
    pub fn forked(&self) -> impl Iterator<Item = (LogId, ActorId)> + '_ {
        self.logs.iter().flat_map(|(id, log)| {
            log.tracks.iter().filter(|(_, track)| track.forked().is_some()).map(|(actor, _)| (*id, *actor))
        })
    }
}

fn suffix_bytes(suffix: &Suffix) -> u64 {
    suffix.ops.iter().map(|op| track::cost(op)).sum::<u64>() + SUFFIX_OVERHEAD_BYTES
}

/// What a suffix takes beside its ops: ids, numbers and a head.
const SUFFIX_OVERHEAD_BYTES: u64 = 16 + 40 + 9 + 5 + 9 + 32 + 64;

/// Suffixes as messages that fit the ledger stream, in order.
pub fn pushes(suffixes: Vec<Suffix>) -> Vec<Message> {
    let (mut messages, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for suffix in suffixes {
        let more = suffix_bytes(&suffix);
        if bytes + more > PIECE_BYTES && !batch.is_empty() {
            messages.push(Message::Push(std::mem::take(&mut batch)));
            bytes = 0;
        }
        bytes += more;
        batch.push(suffix);
    }
    if !batch.is_empty() {
        messages.push(Message::Push(batch));
    }
    messages
}

#[cfg(test)]
mod fork_tests;
#[cfg(test)]
mod tests;
