//! One simulated machine: what its disk keeps, what its store has, what it renders.

use crate::farm::Farm;
use crate::farm::blob::BlobMap;
use crate::farm::event::Token;
use crate::farm::id::{ActorId, BlobId, JobId, NodeId, Unit};
use crate::farm::ledger::Row;
use crate::farm::message::{Capability, LogId, RendererInfo};
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Release series of every simulated Blender.
pub(super) const VERSION: (u16, u16, u16) = (4, 5, 1);

/// Rows as a disk has them: those written are there after a crash, the others are not.
#[derive(Default)]
pub(super) struct Disk {
    ops: BTreeMap<(LogId, ActorId, u64), Arc<[u8]>>,
    heads: BTreeMap<(LogId, ActorId), Vec<u8>>,
    retired: BTreeSet<LogId>,
    forks: BTreeMap<(LogId, ActorId), Vec<u8>>,
    idle: BTreeMap<LogId, u64>,
    waiting: Vec<(Option<Token>, Vec<Row>)>,
    writing: Vec<(Option<Token>, Vec<Row>)>,
    /// Whether a write is under way.
    pub busy: bool,
}

impl Disk {
    pub fn push(&mut self, token: Option<Token>, rows: Vec<Row>) {
        self.waiting.push((token, rows));
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
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
        let mut tokens = Vec::new();
        for (token, rows) in writing {
            tokens.extend(token);
            for row in rows {
                match row {
                    Row::Op { log, actor, seq, bytes } => {
                        self.ops.insert((log, actor, seq), bytes);
                    }
                    Row::Head { log, actor, bytes } => {
                        self.heads.insert((log, actor), bytes);
                    }
                    Row::Retired { log } => {
                        self.ops.retain(|(of, _, _), _| *of != log);
                        self.heads.retain(|(of, _), _| *of != log);
                        self.forks.retain(|(of, _), _| *of != log);
                        self.idle.remove(&log);
                        self.retired.insert(log);
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
        tokens
    }

    /// The machine dies. The write under way is there as a whole or not at all.
    pub fn crash(&mut self, landed: bool) {
        if landed {
            self.commit();
        }
        self.writing.clear();
        self.waiting.clear();
        self.busy = false;
    }

    pub fn rows(&self) -> Vec<Row> {
        let ops = self.ops.iter().map(|((log, actor, seq), bytes)| Row::Op {
            log: *log,
            actor: *actor,
            seq: *seq,
            bytes: bytes.clone(),
        });
        let heads = self.heads.iter();
        let heads = heads.map(|((log, actor), bytes)| Row::Head { log: *log, actor: *actor, bytes: bytes.clone() });
        let forks = self.forks.iter();
        let forks = forks.map(|((log, actor), bytes)| Row::Fork { log: *log, actor: *actor, bytes: bytes.clone() });
        let heads = heads.chain(forks);
        let idle = self.idle.iter().map(|(log, seconds)| Row::Idle { log: *log, seconds: *seconds });
        ops.chain(heads).chain(idle).chain(self.retired.iter().map(|log| Row::Retired { log: *log })).collect()
    }

    /// Logs of which only the id is to be left, and that have rows nevertheless.
    pub fn undead(&self) -> Option<LogId> {
        let all = self.ops.keys().map(|(log, _, _)| log).chain(self.heads.keys().map(|(log, _)| log));
        all.chain(self.idle.keys()).find(|log| self.retired.contains(log)).copied()
    }

    /// Ops of an actor that would survive a crash now.
    pub fn length(&self, log: LogId, actor: ActorId) -> u64 {
        self.ops.range((log, actor, 0)..=(log, actor, u64::MAX)).next_back().map_or(0, |((_, _, seq), _)| seq + 1)
    }

    /// Lengths of everything here.
    pub fn lengths(&self) -> BTreeMap<(LogId, ActorId), u64> {
        self.ops.keys().map(|(log, actor, seq)| ((*log, *actor), seq + 1)).collect()
    }
}

/// Blobs: whole ones, and those being fetched. Survives crashes.
#[derive(Default)]
pub(super) struct Blobs {
    pub whole: BTreeSet<BlobId>,
    pub partial: BTreeMap<BlobId, (BlobMap, Vec<bool>)>,
}

impl Blobs {
    pub fn has_chunk(&self, blob: BlobId, index: u32) -> bool {
        self.whole.contains(&blob)
            || self.partial.get(&blob).is_some_and(|(_, have)| have.get(index as usize) == Some(&true))
    }

    /// Takes a chunk in; whether the blob is whole now.
    pub fn take_chunk(&mut self, blob: BlobId, index: u32) -> bool {
        if let Some((_, have)) = self.partial.get_mut(&blob)
            && let Some(chunk) = have.get_mut(index as usize)
        {
            *chunk = true;
        }
        self.close(blob)
    }

    fn close(&mut self, blob: BlobId) -> bool {
        let is_whole = self.partial.get(&blob).is_some_and(|(_, have)| have.iter().all(|has| *has));
        if is_whole {
            self.partial.remove(&blob);
            self.whole.insert(blob);
        }
        is_whole
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
    /// When.
    pub began: Duration,
    /// When it ends if nothing happens.
    pub ends: Duration,
}

pub(super) struct Machine {
    pub node: NodeId,
    /// Hundredths of speed 1.
    pub speed: u32,
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
    /// The next tick asked for.
    pub wake_at: Option<Duration>,
    /// When its uplink and downlink are free.
    pub uplink: Duration,
    pub downlink: Duration,
}

impl Machine {
    pub fn clock(&self, now: Duration) -> Duration {
        now + self.offset
    }

    pub fn is_up(&self) -> bool {
        self.farm.is_some()
    }

    /// The machine dies: all that is left is on its disks.
    pub fn crash(&mut self, landed: bool) {
        self.farm = None;
        self.life += 1;
        self.disk.crash(landed);
        self.renders.clear();
        self.wake_at = None;
        self.asleep_until = Duration::ZERO;
    }
}

pub(super) fn capability(name: String, slots: u32) -> Capability {
    let renderer = RendererInfo {
        version: VERSION,
        path: "/opt/blender".into(),
        build: "simulated".into(),
        denoiser: true,
        devices: vec!["CPU".into()],
    };
    Capability { name, cores: 8, slots, renderers: vec![renderer], ..Capability::default() }
}
