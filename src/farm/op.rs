//! What a node can say about a job: the operations its log is made of.
//!
//! An op is stored, hashed and sent as {kind u16, length u32, body}; `wire` does the framing. A kind this build does not
//! know is kept and forwarded as it is ([`Op::Unknown`]) and means nothing to the fold. Bodies never change their shape
//! once released: a new meaning is a new kind.

use super::device::Device;
use super::frames::FrameSet;
use super::id::Part;
use super::id::{BlobId, JobId, NodeId, Unit};
use super::job::{Colours, JobSpec, Revision};
use super::rules::{Chunk, Glob, Order, Rules, gigabytes, span};
use super::scripts::Scripts;
use super::views::Views;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// The op version this build writes and understands. A job that names a later one is not claimed here.
pub const OP_VERSION: u16 = 4;
/// Most blobs in one `Holds`, `Drops` or `Lost`.
pub const MAX_BLOBS_PER_OP: usize = 1024;
/// Most outputs of one unit (views × aux files; guess).
pub const MAX_OUTPUTS: usize = 256;
/// Longest text in an op, bytes: reasons and names are for people.
pub const MAX_TEXT_BYTES: usize = 4096;
/// Most warnings about one result (guess: nobody reads more of each frame).
pub const MAX_WARNINGS: usize = 16;

/// Units as a set of frames and which part of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitSet {
    /// The frames.
    pub frames: FrameSet,
    /// The part of each of them.
    pub part: Part,
}

impl UnitSet {
    /// Whole frames; `None` when there are none.
    pub fn whole(frames: Vec<i32>) -> Option<Self> {
        Some(Self { frames: FrameSet::from_frames(frames)?, part: Part::Whole })
    }

    /// The units, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Unit> + '_ {
        self.frames.iter().map(|frame| Unit { frame, part: self.part })
    }
}

/// Why a node claims a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ClaimKind {
    /// To render it.
    Primary,
    /// To render it beside another that is expected to be later.
    Backup,
}

/// What an output is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OutputRole {
    /// The frame.
    Image,
    /// A file the scene's compositor writes beside it.
    Aux,
    /// A JPEG of the same size through the scene's view transform, which the video is made of.
    Preview,
    /// A FLAC file of all that is heard while the video plays, beside its first frame.
    Sound,
}

/// One file a unit produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// File name relative to the job's output directory.
    pub path: String,
    /// Content.
    pub blob: BlobId,
    /// Length in bytes.
    pub bytes: u64,
    /// What it is for.
    pub role: OutputRole,
}

/// How an image shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Blank {
    /// Black all over.
    Black,
    /// Transparent all over.
    Transparent,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Blender died.
    Crash,
    /// Blender reported an error.
    Error,
    /// Blender said nothing wrong and wrote nothing.
    NoOutput,
    /// What it wrote does not decode or has the wrong size.
    BadOutput,
    /// A GPU was asked for and the CPU rendered.
    WrongDevice,
    /// Neither output nor CPU use for too long.
    Stalled,
    /// The job's limit per frame was reached.
    TimeLimit,
    /// Blender did not start.
    CannotStart,
}

/// What is said of taking over results that another job has; see [`reuse`](super::reuse).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reuse {
    /// The next `Submit` of the writer in this log takes them; without this before it, every frame is rendered.
    Wanted {
        /// What a renderer must share with the one that a result came from.
        colours: Colours,
    },
    /// The next `Done` of the writer in this log is one that was taken over.
    Taken {
        /// Epoch of the unit: 0.
        epoch: u32,
        /// Which.
        unit: Unit,
        /// The job that it was rendered for.
        from: JobId,
    },
}

/// Why a job may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RetireReason {
    /// It was collected or cancelled: counts from the moment that is known too.
    Over,
    /// Its submitter was away for the whole keep time.
    Abandoned,
}

/// A setting of a job; the later (Lamport counter, actor) wins per variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobSetting {
    /// Nothing of it starts while this is set.
    Paused(bool),
    /// 0–100.
    Priority(u8),
    /// [`Rules::max_nodes`].
    MaxNodes(Option<u32>),
    /// [`Rules::tags`].
    Tags(BTreeSet<String>),
    /// [`Rules::gpu_name`].
    GpuName(Option<Glob>),
    /// [`Rules::min_memory_bytes`].
    MinMemory(Option<u64>),
    /// [`Rules::order`].
    Order(Order),
    /// [`Rules::chunk`].
    Chunk(Chunk),
    /// [`Rules::retries`].
    Retries(u8),
    /// [`Rules::time_limit`].
    TimeLimit(Option<Duration>),
    /// [`Rules::deadline`], from the submission on.
    Deadline(Option<Duration>),
    /// [`Rules::after`].
    After(Option<JobId>),
}

impl JobSetting {
    /// Tells the settings apart: of each, the latest counts.
    pub fn slot(&self) -> u8 {
        match self {
            Self::Paused(_) => 0,
            Self::Priority(_) => 1,
            Self::MaxNodes(_) => 2,
            Self::Tags(_) => 3,
            Self::GpuName(_) => 4,
            Self::MinMemory(_) => 5,
            Self::Order(_) => 6,
            Self::Chunk(_) => 7,
            Self::Retries(_) => 8,
            Self::TimeLimit(_) => 9,
            Self::Deadline(_) => 10,
            Self::After(_) => 11,
        }
    }

    /// Changes what it is about.
    pub fn apply(&self, priority: &mut u8, rules: &mut Rules) {
        match self {
            Self::Paused(value) => rules.paused = *value,
            Self::Priority(value) => *priority = *value,
            Self::MaxNodes(value) => rules.max_nodes = *value,
            Self::Tags(value) => rules.tags.clone_from(value),
            Self::GpuName(value) => rules.gpu_name.clone_from(value),
            Self::MinMemory(value) => rules.min_memory_bytes = *value,
            Self::Order(value) => rules.order = *value,
            Self::Chunk(value) => rules.chunk = *value,
            Self::Retries(value) => rules.retries = *value,
            Self::TimeLimit(value) => rules.time_limit = *value,
            Self::Deadline(value) => rules.deadline = *value,
            Self::After(value) => rules.after = *value,
        }
    }

    /// What it did, for a job's history.
    pub fn action(&self) -> String {
        fn or<T: ToString>(value: Option<T>, none: &str) -> String {
            value.map_or(none.into(), |value| value.to_string())
        }
        match self {
            Self::Paused(true) => "paused".into(),
            Self::Paused(false) => "resumed".into(),
            Self::Priority(value) => format!("priority set to {value}"),
            Self::MaxNodes(value) => format!("machines limited to {}", or(*value, "any number")),
            Self::Tags(tags) if tags.is_empty() => "needs no tags any more".into(),
            Self::Tags(tags) => format!("needs the tags {}", tags.iter().cloned().collect::<Vec<_>>().join(", ")),
            Self::GpuName(value) => format!("needs a GPU named {}", or(value.as_ref(), "anything")),
            Self::MinMemory(Some(bytes)) => format!("needs {} of memory", gigabytes(*bytes)),
            Self::MinMemory(None) => "needs no certain memory any more".into(),
            Self::Order(value) => format!("order set to {value}"),
            Self::Chunk(value) => format!("chunk set to {value}"),
            Self::Retries(value) => format!("retries set to {value}"),
            Self::TimeLimit(value) => format!("time limit set to {}", or(value.map(span), "none")),
            Self::Deadline(value) => format!("deadline set to {}", or(value.map(span), "none")),
            Self::After(Some(job)) => format!("waits for job {}", job.short()),
            Self::After(None) => "waits for no job any more".into(),
        }
    }
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The job exists. Legal only as written by the actor the job's id was made from.
    Submit {
        /// Least [`OP_VERSION`] a node must understand to claim units of it.
        min_version: u16,
        /// The job.
        spec: Box<JobSpec>,
    },
    /// What the next `Submit` or `Revise` of the writer in this log asks to be run; without this before it, nothing.
    Scripts {
        /// What.
        scripts: Scripts,
    },
    /// By which backend of GPUs the next `Submit` or `Revise` of the writer in this log is to be rendered; without this before
    /// it, as it says itself. A build that does not know of it reads that any GPU will do, and claims nothing.
    Device {
        /// One that names a backend.
        device: Device,
    },
    /// Which files a frame of the next `Submit` of the writer in this log is; without this before it, one, called by its number
    /// alone.
    Views {
        /// Which.
        views: Views,
    },
    /// All results are wanted in a ZIP file too, on the submitting machine. Counts as written by the job's submitter.
    Zip {
        /// Absolute path of the file.
        path: String,
    },
    /// Announces what the next op of the writer in this log is: a build that does not know of it reads that one alone, and
    /// sees a job whose frames are rendered, and a result like any other.
    Reuse {
        /// Of what.
        word: Reuse,
    },
    /// The writer takes units.
    Claim {
        /// Epoch of the units.
        epoch: u32,
        /// Which.
        units: UnitSet,
        /// Why.
        kind: ClaimKind,
        /// Strength against another claim; the higher stays.
        score: u32,
    },
    /// The writer gives units back.
    Release {
        /// Which.
        units: UnitSet,
    },
    /// The writer rendered a unit, took it over from another job, or had it before it submitted its own (see
    /// [`KEPT`](super::kept::KEPT)), and holds its outputs durably.
    Done {
        /// Epoch it was rendered for.
        epoch: u32,
        /// [`Op::Revise::id`] of what it was rendered from; 0 as submitted.
        revision: u32,
        /// Which.
        unit: Unit,
        /// What came of it.
        outputs: Vec<Output>,
        /// Render time, milliseconds.
        millis: u32,
        /// Device used, as Blender reports it.
        device: String,
        /// Version and build of the renderer.
        build: String,
    },
    /// What people should know of a result of the writer; most have none.
    Remark {
        /// Epoch it was rendered for.
        epoch: u32,
        /// Which.
        unit: Unit,
        /// Whether its image shows nothing.
        blank: Option<Blank>,
        /// What the renderer warned of.
        warnings: Vec<String>,
    },
    /// An attempt of the writer failed.
    Failed {
        /// Epoch of the unit.
        epoch: u32,
        /// Which.
        unit: Unit,
        /// Why.
        kind: FailureKind,
        /// One line for people.
        message: String,
        /// The end of the renderer's output.
        log: Option<BlobId>,
    },
    /// The writer has these blobs, durably.
    Holds {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// The writer let go of them, since others hold them. Of what a node says of a blob in any of its starts (`Done`,
    /// `Holds`, `Drops`, `Lost`) the last word counts: that of its latest start which spoke of it, by boot id, and in that
    /// start the one of the highest sequence number. So it is the same in whatever order ops of several starts come.
    Drops {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// The writer finds that what it held is gone or damaged: like `Drops`, except that nobody meant it. A result that
    /// nobody holds any more, at the last word of each who did, is to be rendered anew: the submitter's machine opens a new
    /// epoch of it by a `Requeue`, unless it has put the files under their names. While that is away any other renders it in
    /// the epoch it has. A later `Holds` or `Done` of the same node takes it back.
    Lost {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// Units are to be rendered anew.
    Requeue {
        /// Which.
        units: UnitSet,
        /// Their epoch from now on, if none is higher.
        epoch: u32,
        /// Login name of who wants it.
        by: String,
        /// Wall clock for display, milliseconds since 1970.
        at_ms: u64,
    },
    /// A setting.
    Set {
        /// Orders settings together with the actor.
        lamport: u64,
        /// What.
        setting: JobSetting,
        /// Wall clock for display, milliseconds since 1970.
        at_ms: u64,
    },
    /// The job is over without its open frames.
    Cancel {
        /// Login name of who did it.
        by: String,
        /// Wall clock for display, milliseconds since 1970.
        at_ms: u64,
    },
    /// Some units are to be rendered anew, from something else.
    Revise {
        /// Drawn at random, never 0: tells results of one revision from those of another of the same epoch.
        id: u32,
        /// From what.
        revision: Box<Revision>,
        /// Which units.
        units: UnitSet,
        /// Their epoch from now on, if none is higher.
        epoch: u32,
        /// Login name of who wants it.
        by: String,
        /// Wall clock for display, milliseconds since 1970.
        at_ms: u64,
    },
    /// Every result is where the submitter wanted it.
    Collected {
        /// Sum of the epochs of all units when it was written: a later `Requeue` makes the job go on.
        revision: u64,
        /// Whether the video was made (also true when none was wanted).
        video: bool,
        /// Wall clock for display, milliseconds since 1970.
        at_ms: u64,
    },
    /// The job is to be forgotten for ever, once the fold says that it may be.
    Retire {
        /// Why it may.
        why: RetireReason,
    },
    /// Swarm log: a machine belongs to the swarm.
    Member {
        /// Which.
        node: NodeId,
        /// What people call it.
        name: String,
    },
    /// Swarm log: a machine no longer does; its logs end at these lengths.
    Evict {
        /// Which.
        node: NodeId,
        /// (boot id, length) of each log that still counts.
        heads: Vec<([u8; 8], u64)>,
    },
    /// Swarm log: the writer runs scripts of what this machine submits or revises.
    Trust {
        /// Whose; [`EVERYONE`](super::scripts::EVERYONE) for those of all members.
        node: NodeId,
        /// Whether.
        trusted: bool,
    },
    /// Swarm log: a setting of the whole swarm; see [`settings`](super::settings).
    Setting {
        /// Orders settings together with the actor.
        lamport: u64,
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
    /// Of a later build: kept, forwarded, ignored.
    Unknown {
        /// Its kind.
        kind: u16,
        /// Its body.
        body: Vec<u8>,
    },
}
