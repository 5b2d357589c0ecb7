//! What farms say to one another: status messages and ledger messages.
//!
//! `wire` turns them into envelopes and back. Bulk bytes are not among them: those travel between adapters.

use super::ability::Abilities;
use super::id::{ActorId, BootId, JobId, NodeId, Unit};
use super::job::Series;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A log's place in the ledger: a job, or the swarm's own ([`SWARM_LOG`]).
pub type LogId = JobId;
/// The reserved log of members, evictions, trust and swarm-wide settings.
pub const SWARM_LOG: LogId = JobId([0; 16]);

/// Proof that an actor's log begins with what chains to `chain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// Ops vouched for.
    pub length: u64,
    /// Chain hash after the last of them.
    pub chain: [u8; 32],
    /// Ed25519 over (domain, swarm id, log, actor, length, chain): two halves, since serde stops at 32.
    pub signature: ([u8; 32], [u8; 32]),
}

/// A piece of an actor's log, ending at a signed head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suffix {
    /// Which log.
    pub log: LogId,
    /// Whose.
    pub actor: ActorId,
    /// Sequence number of the first op here.
    pub from: u64,
    /// Framed ops, in order.
    pub ops: Vec<Arc<[u8]>>,
    /// Vouches for everything up to `from + ops.len()`.
    pub head: SignedHead,
}

/// How far each actor of a log is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Which log.
    pub log: LogId,
    /// Hash over all of it: tells two histories of equal length apart.
    pub digest: [u8; 32],
    /// Actors with one history, sorted: (actor, length).
    pub lengths: Vec<(ActorId, u64)>,
    /// Actors proven to have signed two, sorted: (actor, ops both begin with, chain after those).
    pub forks: Vec<(ActorId, u64, [u8; 32])>,
}

/// A unit in hand, as its node tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InHand {
    /// Its job.
    pub job: JobId,
    /// Which.
    pub unit: Unit,
    /// Hundredths.
    pub percent: u8,
}

/// A usable renderer, as its node tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RendererInfo {
    /// Version, such as 4.5.15.
    pub version: (u16, u16, u16),
    /// Path on its machine, for display.
    pub path: String,
    /// What tells it from others of its version: its commit, and a hash of its own colours.
    pub build: String,
    /// What it has of that which not all have.
    pub abilities: Abilities,
    /// Usable devices, such as `CPU`, `CUDA`, `OPTIX`.
    pub devices: Vec<String>,
}

impl RendererInfo {
    /// Its release series.
    pub fn series(&self) -> Series {
        Series { major: self.version.0, minor: self.version.1 }
    }

    /// What it computes on, best first.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(String::as_str)
    }

    /// Its commit, and the hash of its own colours, where it has them. Distributions build without a commit, and Blender then
    /// says `Unknown`.
    fn marks(&self) -> (Option<&str>, Option<&str>) {
        let (commit, colours) = match self.build.rsplit_once("colours ") {
            Some((before, colours)) => (before.trim_end(), Some(colours)),
            None => (self.build.as_str(), None),
        };
        (Some(commit).filter(|commit| !matches!(*commit, "" | "Unknown")), colours)
    }

    /// Whether it can be told from other builds of its version.
    pub fn has_commit(&self) -> bool {
        self.marks().0.is_some()
    }

    /// Version and build, as results name them; colours that the job brings are not the renderer's.
    pub fn rendered_text(&self, brings_colours: bool) -> String {
        let (major, minor, patch) = self.version;
        let (commit, colours) = self.marks();
        let commit = commit.map_or(String::new(), |commit| format!(" {commit}"));
        let colours =
            colours.filter(|_| !brings_colours).map_or(String::new(), |colours| format!(" colours {colours}"));
        format!("{major}.{minor}.{patch}{commit}{colours}")
    }
}

/// A graphics card, as its node tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInfo {
    /// Model.
    pub name: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Driver version.
    pub driver: String,
    /// Whether a renderer can use it.
    pub usable: bool,
    /// Backend that would, such as `OPTIX`.
    pub backend: String,
}

/// Something wrong on a machine, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable word.
    pub kind: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// What a machine is and can do; sent when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// What people call it.
    pub name: String,
    /// Operating system.
    pub os: String,
    /// Version of this program.
    pub swarm_version: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// CPU model.
    pub cpu_model: String,
    /// Logical cores.
    pub cores: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Graphics cards.
    pub gpus: Vec<GpuInfo>,
    /// Renderers.
    pub renderers: Vec<RendererInfo>,
    /// Units it renders at once; 0 for a machine that only submits.
    pub slots: u32,
    /// Labels.
    pub tags: Vec<String>,
    /// What is wrong here.
    pub problems: Vec<Problem>,
    /// Whether its owner paused it.
    pub paused: bool,
    /// Whether it claims nothing before a test frame renders: others rendered what failed here.
    pub sick: bool,
    /// The latest ops it understands: [`super::op::OP_VERSION`] of its build.
    pub op_version: u16,
    /// Milliseconds that the frame takes here by which machines are compared; 0 where that is not known.
    pub benchmark_millis: u32,
}

/// A sign of life, every two seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts up.
    pub counter: u64,
    /// Which start of the sender this is.
    pub boot: BootId,
    /// CPU load in hundredths.
    pub load_percent: u8,
    /// Memory that renders could have, what they have now included, bytes; `None` where that is not known.
    pub free_memory_bytes: Option<u64>,
    /// Whether a person is at the desk: others' jobs are not begun here.
    pub at_desk: bool,
    /// What it renders.
    pub in_hand: Vec<InHand>,
    /// Whom it is connected to: they need no forwarding of its ops.
    pub neighbours: Vec<NodeId>,
}

/// Everything farms tell one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Status: a sign of life.
    Heartbeat(Heartbeat),
    /// Status: signs of life of others, handed on: (start, counter), in ascending order of starts.
    Beats(Vec<(BootId, u64)>),
    /// Status: what the sender can do, whole.
    Capability(Box<Capability>),
    /// Ledger: new ops.
    Push(Vec<Suffix>),
    /// Ledger: one hash over all live logs.
    Digest([u8; 32]),
    /// Ledger: a hash per log, since the one over all differed.
    LogDigests(LogDigests),
    /// Ledger: how far the sender is in logs that differ. With `answer`, the receiver says in turn how far it is.
    Versions {
        /// Per log.
        versions: Vec<Versions>,
        /// Whether the sender wants the receiver's.
        answer: bool,
    },
    /// Ledger: these jobs are over for good.
    Retired(Vec<LogId>),
}

/// The hashes of a sender's logs from one id to another, ascending. It has no other log there, whatever it has elsewhere:
/// those of many logs come in several such parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDigests {
    /// The first id spoken of.
    pub from: LogId,
    /// The first not spoken of any more; `None` for all to the last.
    pub until: Option<LogId>,
    /// Per log.
    pub digests: Vec<(LogId, [u8; 32])>,
}

impl LogDigests {
    /// All of `digests`, ascending by log, in parts of at most `most`.
    pub fn parts(digests: &[(LogId, [u8; 32])], most: usize) -> impl Iterator<Item = Self> {
        let parts = digests.len().div_ceil(most).max(1);
        let start = move |part: usize| digests.get(part * most).map(|(log, _)| *log);
        (0..parts).map(move |part| Self {
            from: start(part).filter(|_| part > 0).unwrap_or(SWARM_LOG),
            until: start(part + 1),
            digests: digests.chunks(most).nth(part).unwrap_or_default().to_vec(),
        })
    }

    /// Whether this part speaks of a log.
    pub fn speaks_of(&self, log: LogId) -> bool {
        self.from <= log && self.until.is_none_or(|until| log < until)
    }
}

impl Message {
    /// Whether it travels on the status stream (else on the ledger stream).
    pub fn is_status(&self) -> bool {
        matches!(self, Self::Heartbeat(_) | Self::Beats(_) | Self::Capability(_))
    }
}
