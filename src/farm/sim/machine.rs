//! One simulated machine: what its disk keeps, what its store has, what it renders.

use super::LOOKAHEAD;
use super::event::{Packet, Packets};
use super::peers::{Away, Outage};
use crate::farm::Farm;
use crate::farm::ability::Abilities;
use crate::farm::blob::BlobMap;
use crate::farm::event::{Effect, Input, Now, Token};
use crate::farm::id::{ActorId, BlobId, JobId, NodeId, Unit};
use crate::farm::ledger::Row;
use crate::farm::message::{Capability, LogId, RendererInfo};
use crate::farm::op::OP_VERSION;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The Blender that every job asks for.
pub(super) const CURRENT: (u16, u16, u16) = (4, 5, 1);
/// The Blender of a machine that fits no job.
const OTHER: (u16, u16, u16) = (4, 2, 9);

/// What a disk has of an actor's log.
#[derive(Default)]
struct Kept {
    /// By sequence number: one op of a million on a thousand disks is to take little.
    ops: Vec<Option<Arc<[u8]>>>,
    head: Option<Vec<u8>>,
}

type Logs = BTreeMap<(LogId, ActorId), Kept>;

/// Rows as a disk has them: those written are there after a crash, the others are not. A write that nobody waits for is
/// not synced: until the next that is, a crash may take it back.
#[derive(Default)]
pub(super) struct Disk {
    logs: Logs,
    retired: BTreeSet<LogId>,
    forks: BTreeMap<(LogId, ActorId), Vec<u8>>,
    idle: BTreeMap<LogId, u64>,
    waiting: Vec<(Option<Token>, Vec<Row>)>,
    writing: Vec<(Option<Token>, Vec<Row>)>,
    /// How to take back, last first, what was not synced, by write.
    unsynced: Vec<Vec<Undo>>,
    /// Whether a write is under way.
    pub busy: bool,
    /// Slow until then.
    pub slow_until: Duration,
    /// Full until then.
    pub full_until: Duration,
}

/// What a row replaced.
enum Undo {
    Retired(LogId, Logs),
    Op(LogId, ActorId, u64),
    Head(LogId, ActorId, Option<Vec<u8>>),
}

impl Disk {
    pub fn push(&mut self, token: Option<Token>, rows: Vec<Row>) {
        self.waiting.push((token, rows));
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Batches handed to it that are not written.
    pub fn queued(&self) -> usize {
        self.waiting.len() + self.writing.len()
    }

    /// Begins one write of everything that waits.
    pub fn begin(&mut self) {
        self.writing.append(&mut self.waiting);
    }

    /// Ops of an actor in the write under way.
    pub fn writing_of(&self, me: ActorId) -> Vec<(LogId, u64)> {
        let rows = self.writing.iter().flat_map(|(_, rows)| rows);
        rows.filter_map(|row| match row {
            Row::Op { log, actor, seq, .. } if *actor == me => Some((*log, *seq)),
            Row::Op { .. } | Row::Head { .. } | Row::Fork { .. } | Row::Retired { .. } | Row::Idle { .. } => None,
        })
        .collect()
    }

    /// The write under way is there, all of it.
    pub fn commit(&mut self) -> Vec<Token> {
        let writing = std::mem::take(&mut self.writing);
        let (mut tokens, mut undo) = (Vec::new(), Vec::new());
        for (token, rows) in writing {
            tokens.extend(token);
            for row in rows {
                match row {
                    Row::Op { log, actor, seq, bytes } => {
                        let ops = &mut self.logs.entry((log, actor)).or_default().ops;
                        let place = seq as usize;
                        ops.resize(ops.len().max(place + 1), None);
                        if ops[place].replace(bytes).is_none() {
                            undo.push(Undo::Op(log, actor, seq));
                        }
                    }
                    Row::Head { log, actor, bytes } => {
                        let before = self.logs.entry((log, actor)).or_default().head.replace(bytes);
                        undo.push(Undo::Head(log, actor, before));
                    }
                    Row::Retired { log } => {
                        let (gone, kept) =
                            std::mem::take(&mut self.logs).into_iter().partition(|((of, _), _)| *of == log);
                        self.logs = kept;
                        self.forks.retain(|(of, _), _| *of != log);
                        self.idle.remove(&log);
                        if self.retired.insert(log) {
                            undo.push(Undo::Retired(log, gone));
                        }
                    }
                    Row::Fork { log, actor, bytes } => {
                        self.forks.insert((log, actor), bytes);
                    }
                    Row::Idle { log, seconds } => {
                        self.idle.insert(log, seconds);
                    }
                }
            }
        }
        match tokens.is_empty() {
            true => self.unsynced.push(undo),
            false => self.unsynced.clear(),
        }
        tokens
    }

    /// The machine dies. The write under way is there as a whole or not at all; of the writes not synced only the first
    /// `keep` are, if a number is given.
    pub fn crash(&mut self, landed: bool, keep: Option<usize>) {
        if landed {
            self.commit();
        }
        let lost = self.unsynced.split_off(keep.unwrap_or(usize::MAX).min(self.unsynced.len()));
        for undo in lost.into_iter().rev().flat_map(|undo| undo.into_iter().rev()) {
            match undo {
                Undo::Retired(log, gone) => {
                    self.retired.remove(&log);
                    self.logs.extend(gone);
                }
                Undo::Op(log, actor, seq) => {
                    let ops = &mut self.logs.entry((log, actor)).or_default().ops;
                    ops.get_mut(seq as usize).into_iter().for_each(|op| *op = None);
                    ops.truncate(ops.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
                }
                Undo::Head(log, actor, before) => self.logs.entry((log, actor)).or_default().head = before,
            }
        }
        self.logs.retain(|_, kept| !kept.ops.is_empty() || kept.head.is_some());
        self.unsynced.clear();
        self.writing.clear();
        self.waiting.clear();
        self.busy = false;
    }

    pub fn rows(&self) -> Vec<Row> {
        let ops = self.logs.iter().flat_map(|((log, actor), kept)| {
            let (log, actor) = (*log, *actor);
            let op =
                move |(seq, bytes): (u64, &Option<Arc<[u8]>>)| Some(Row::Op { log, actor, seq, bytes: bytes.clone()? });
            (0..).zip(&kept.ops).filter_map(op)
        });
        let heads = self.logs.iter().filter_map(|((log, actor), kept)| {
            kept.head.clone().map(|bytes| Row::Head { log: *log, actor: *actor, bytes })
        });
        let forks = self.forks.iter();
        let forks = forks.map(|((log, actor), bytes)| Row::Fork { log: *log, actor: *actor, bytes: bytes.clone() });
        let heads = heads.chain(forks);
        let idle = self.idle.iter().map(|(log, seconds)| Row::Idle { log: *log, seconds: *seconds });
        ops.chain(heads).chain(idle).chain(self.retired.iter().map(|log| Row::Retired { log: *log })).collect()
    }

    /// Logs of which only the id is to be left, and that have rows nevertheless.
    pub fn undead(&self) -> Option<LogId> {
        self.logs.keys().map(|(log, _)| log).chain(self.idle.keys()).find(|log| self.retired.contains(log)).copied()
    }

    /// Ops of an actor that would survive a crash now.
    pub fn length(&self, log: LogId, actor: ActorId) -> u64 {
        self.logs.get(&(log, actor)).map_or(0, |kept| kept.ops.len() as u64)
    }

    /// How far the disk has each log of an actor, as it would be after a crash now.
    pub fn lengths_of(&self, me: ActorId) -> Vec<(LogId, u64)> {
        let own = self.logs.iter().filter(|((_, actor), kept)| *actor == me && kept.head.is_some());
        own.map(|((log, _), kept)| (*log, kept.ops.len() as u64)).collect()
    }
}

/// Blobs: whole ones, and those being fetched. Survives crashes.
#[derive(Default)]
pub(super) struct Blobs {
    /// Those on record.
    pub whole: BTreeSet<BlobId>,
    /// Those of them whose files are gone, which nobody noticed.
    pub gone: BTreeSet<BlobId>,
    /// Those that were noticed to be gone, of which the farm was not told yet.
    pub untold: BTreeSet<BlobId>,
    pub partial: BTreeMap<BlobId, (BlobMap, Vec<bool>)>,
}

impl Blobs {
    /// Whether it could be read.
    pub fn has(&self, blob: BlobId) -> bool {
        self.whole.contains(&blob) && !self.gone.contains(&blob)
    }

    /// Takes in what was rendered here.
    pub fn take_whole(&mut self, blob: BlobId) {
        // What is on record is not written again.
        if self.whole.insert(blob) {
            self.partial.remove(&blob);
        }
    }

    pub fn forget(&mut self, blob: BlobId) {
        self.whole.remove(&blob);
        self.gone.remove(&blob);
    }

    pub fn has_chunk(&self, blob: BlobId, index: u32) -> bool {
        self.whole.contains(&blob)
            || self.partial.get(&blob).is_some_and(|(_, have)| have.get(index as usize) == Some(&true))
    }

    /// Takes a chunk in.
    pub fn take_chunk(&mut self, blob: BlobId, index: u32) {
        if let Some((_, have)) = self.partial.get_mut(&blob)
            && let Some(chunk) = have.get_mut(index as usize)
        {
            *chunk = true;
        }
        self.close(blob);
    }

    /// A crash: some chunks of blobs that are not whole were never written.
    pub fn crash(&mut self, mut is_lost: impl FnMut() -> bool) {
        for (_, have) in self.partial.values_mut() {
            have.iter_mut().filter(|has| **has).for_each(|has| *has = !is_lost());
        }
    }

    fn close(&mut self, blob: BlobId) {
        let is_whole = self.partial.get(&blob).is_some_and(|(_, have)| have.iter().all(|has| *has));
        if is_whole {
            self.partial.remove(&blob);
            self.whole.insert(blob);
        }
    }

    /// What `OpenBlob` finds: `None` when nothing is known, else which chunks are here.
    pub fn open(&mut self, blob: BlobId, map: Option<&BlobMap>) -> Option<Vec<bool>> {
        if let (Some(map), false) = (map, self.partial.contains_key(&blob)) {
            self.partial.insert(blob, (map.clone(), vec![false; map.chunks.len()]));
        }
        let have = self.partial.get(&blob).map(|(_, have)| have.clone())?;
        self.close(blob);
        Some(have)
    }
}

/// A unit being rendered.
pub(super) struct Render {
    /// Tells this attempt from others at the unit.
    pub serial: u64,
    /// Epoch it was started for.
    pub epoch: u32,
    /// The scene it is rendered from.
    pub bundle: BlobId,
    /// When.
    pub began: Duration,
    /// When it ends if nothing happens.
    pub ends: Duration,
}

/// What a farm says to an input.
pub(super) struct Said {
    pub effects: Vec<Effect>,
    /// The messages among them: what goes to several is written and read once.
    pub packets: Packets,
    /// Whether its ledger is another now.
    pub is_news: bool,
    /// When it wants to be called, in simulated time.
    pub wake: Duration,
}

pub(super) struct Machine {
    pub node: NodeId,
    /// For the real seal.
    pub key: Option<[u8; 32]>,
    /// Hundredths of speed 1.
    pub speed: u32,
    /// Whether its Blender is the one jobs ask for.
    pub is_fit: bool,
    pub capability: Capability,
    /// `None` while it is down.
    pub farm: Option<Farm>,
    /// Counts starts: what was on its way to an earlier one is void.
    pub life: u32,
    /// What its farm draws from.
    pub rng: StdRng,
    pub disk: Disk,
    pub blobs: Blobs,
    /// Delivered files: the epoch of the result and its blobs.
    pub folder: BTreeMap<(JobId, Unit), (u32, Vec<BlobId>)>,
    pub renders: BTreeMap<(JobId, Unit), Render>,
    /// What its clock showed when the simulation began.
    pub offset: Duration,
    pub asleep_until: Duration,
    /// It was suspended, and has compared ledgers with nobody since then.
    pub woke: Option<Duration>,
    /// The next tick asked for.
    pub wake_at: Option<Duration>,
    /// When its uplink and downlink are free.
    pub uplink: Duration,
    pub downlink: Duration,
    /// Its owner has all of it.
    pub is_at_desk: bool,
    /// It was told to leave, and hands back what it has.
    pub is_leaving: bool,
    /// It renders nothing, since when.
    pub away: Option<(Away, Duration)>,
}

impl Machine {
    pub fn clock(&self, now: Duration) -> Duration {
        now + self.offset
    }

    /// Calls its farm. Nothing but this machine is touched: those of several may be called at once.
    pub fn call(&mut self, now: Now, input: Input) -> Option<Said> {
        let farm = self.farm.as_mut()?;
        let before = farm.ledger().digest();
        let effects = farm.handle(now, input, &mut self.rng);
        let is_news = farm.ledger().digest() != before;
        let wake = farm.next_wake().max(now.mono + LOOKAHEAD) - self.offset;
        let mut packets = Packets::new();
        for effect in &effects {
            if let Effect::Send { message, .. } = effect
                && !packets.iter().rev().any(|(before, _)| Arc::ptr_eq(before, message))
            {
                packets.push((message.clone(), Packet::of(message)));
            }
        }
        Some(Said { effects, packets, is_news, wake })
    }

    pub fn is_up(&self) -> bool {
        self.farm.is_some()
    }

    /// Whether it may begin something.
    pub fn is_on_duty(&self) -> bool {
        self.is_up() && !self.capability.paused && !self.is_leaving
    }

    /// The machine dies: all that is left is on its disks.
    pub fn crash(&mut self, landed: bool, keep: Option<usize>) {
        self.farm = None;
        self.life += 1;
        self.disk.crash(landed, keep);
        self.blobs.untold.clear();
        self.renders.clear();
        (self.wake_at, self.woke) = (None, None);
        self.asleep_until = Duration::ZERO;
    }

    /// The outage it is in.
    pub fn outage(&self, machine: usize, now: Duration) -> Option<Outage> {
        self.away.map(|(away, from)| Outage { machine, from, to: now, away })
    }
}

pub(super) fn capability(name: String, slots: u32, is_fit: bool) -> Capability {
    let renderer = RendererInfo {
        version: if is_fit { CURRENT } else { OTHER },
        path: "/opt/blender".into(),
        build: "simulated".into(),
        abilities: Abilities::all(),
        devices: vec!["CPU".into()],
    };
    Capability { name, cores: 8, slots, renderers: vec![renderer], op_version: OP_VERSION, ..Capability::default() }
}
