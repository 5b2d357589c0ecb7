//! The whole contract between the farm and the world, on one screen: what comes in, what goes out.
//!
//! Bulk bytes never pass here: chunks, images and scenes are named by their ids. An effect that promises something to
//! others (a push, an announced result) is only issued after the [`Input::Persisted`] of what it promises.

use super::blob::BlobMap;
use super::id::{BlobId, BootId, JobId, NodeId, Unit};
use super::job::{JobSpec, OutputSpec, Revision};
use super::kept::KeptFrame;
use super::ledger::Row;
use super::message::{Capability, Message};
use super::op::{Blank, FailureKind, JobSetting, Output, UnitSet};
use super::settings::SwarmSetting;
use std::sync::Arc;
use std::time::Duration;

/// The two clocks, read once per turn of the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, since some start; all decisions are made by it.
    pub mono: Duration,
    /// Wall clock, milliseconds since 1970; for display alone.
    pub wall_ms: u64,
}

/// Names a batch of rows handed to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// A result as the renderer delivers it: its outputs are in the store, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Files.
    pub outputs: Vec<Output>,
    /// Render time, milliseconds.
    pub millis: u32,
    /// Device used.
    pub device: String,
    /// Version and build of the renderer.
    pub build: String,
    /// Whether the image shows nothing.
    pub blank: Option<Blank>,
    /// What the renderer warned of, at most [`MAX_WARNINGS`](super::op::MAX_WARNINGS).
    pub warnings: Vec<String>,
}

/// How a machine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// CPU, hundredths.
    pub percent: u8,
    /// Memory that renders could have, what they have now included, bytes; `None` where that is not known.
    pub free_memory_bytes: Option<u64>,
    /// Whether a person is at the desk, as far as that can be told.
    pub at_desk: bool,
}

/// What the owner of a job, or anybody in the swarm, may tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobCommand {
    /// Change a setting.
    Set(JobSetting),
    /// End it; the login name of who did.
    Cancel(String),
    /// Render units anew.
    Requeue {
        /// Which.
        units: UnitSet,
        /// Login name of who wants it.
        by: String,
    },
    /// Bring every result to this machine.
    Collect(OutputSpec),
    /// Forget it for ever, everywhere. Without effect unless it was collected or cancelled.
    Delete,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A member can be talked to.
    Connected {
        /// Which.
        node: NodeId,
        /// Which start of it.
        boot: BootId,
    },
    /// It cannot any more.
    Disconnected {
        /// Which.
        node: NodeId,
    },
    /// A member said something.
    Received {
        /// Who.
        from: NodeId,
        /// What.
        message: Arc<Message>,
    },
    /// Rows are on disk.
    Persisted(Token),
    /// What this machine is and can do changed.
    Capability(Box<Capability>),
    /// How this machine is doing.
    Load(Load),
    /// The owner wants the machine back: what renders stops at once, and everything in hand is open to others.
    GiveBack,
    /// This start ends: the same, and nothing is claimed any more.
    Leave,
    /// The test frame of [`Effect::SelfTest`] rendered, or why it did not.
    SelfTested(Result<(), String>),
    /// The owner trusts a machine's scripts from now on, or not any more.
    Trust {
        /// Whose; [`EVERYONE`](super::scripts::EVERYONE) for those of all members.
        node: NodeId,
        /// Whether.
        trusted: bool,
    },
    /// Somebody here sets something for the whole swarm.
    Setting(SwarmSetting),
    /// Somebody here submits a job; its bundle is in the store.
    Submit {
        /// Comes back in [`Effect::Submitted`].
        call: u64,
        /// The job.
        spec: Box<JobSpec>,
        /// Frames that are there already, their files in the store.
        kept: Vec<KeptFrame>,
    },
    /// Somebody here wants units of a job from something else, whose bundle is in the store.
    Revise {
        /// Comes back in [`Effect::Submitted`].
        call: u64,
        /// Which job.
        job: JobId,
        /// Which units.
        units: UnitSet,
        /// From what.
        revision: Box<Revision>,
        /// Login name of who wants it.
        by: String,
    },
    /// Somebody here commands a job.
    Command {
        /// Which job.
        job: JobId,
        /// What.
        command: JobCommand,
    },
    /// A unit in hand got on.
    Progress {
        /// Its job.
        job: JobId,
        /// Which.
        unit: Unit,
        /// Hundredths.
        percent: u8,
    },
    /// The renderer is done with a unit: its slot is free while the result is checked and stored.
    Drawn {
        /// Its job.
        job: JobId,
        /// Which.
        unit: Unit,
    },
    /// A unit in hand is rendered.
    Rendered {
        /// Its job.
        job: JobId,
        /// Which.
        unit: Unit,
        /// Epoch it was started for.
        epoch: u32,
        /// What came of it.
        result: Rendered,
    },
    /// A unit in hand failed.
    RenderFailed {
        /// Its job.
        job: JobId,
        /// Which.
        unit: Unit,
        /// Epoch it was started for.
        epoch: u32,
        /// Why.
        kind: FailureKind,
        /// One line for people.
        message: String,
        /// End of the renderer's output, if it could be stored.
        log: Option<BlobId>,
    },
    /// A blob is whole and in the store.
    BlobComplete {
        /// Which.
        blob: BlobId,
    },
    /// What the store had of these blobs is gone or damaged, and it has forgotten them.
    BlobsGone {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// A look found these blobs whole in the store, among those that this machine has said to have.
    BlobsHere {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// A blob is partly there: which chunks are.
    BlobOpened {
        /// Which.
        blob: BlobId,
        /// Per chunk.
        have: Vec<bool>,
    },
    /// The store knows nothing of a blob.
    BlobUnknown {
        /// Which.
        blob: BlobId,
    },
    /// A peer told a blob's map (`None`: it does not know it).
    PeerMap {
        /// Who.
        from: NodeId,
        /// Which.
        blob: BlobId,
        /// Checked against the blob's id.
        map: Option<BlobMap>,
    },
    /// A peer told which chunks of a blob it has.
    PeerHave {
        /// Who.
        from: NodeId,
        /// Which.
        blob: BlobId,
        /// Per chunk; empty when it has none.
        have: Vec<bool>,
    },
    /// A chunk is verified and written.
    Chunk {
        /// From whom.
        from: NodeId,
        /// Blob it belongs to.
        blob: BlobId,
        /// Its place.
        index: u32,
    },
    /// A request for a map, a have-map or a chunk came to nothing.
    RequestFailed {
        /// From whom.
        from: NodeId,
        /// Blob asked about.
        blob: BlobId,
        /// The chunk asked for, if it was one.
        index: Option<u32>,
    },
    /// What a complete manifest lists (`None`: it is not a manifest).
    Manifest {
        /// The bundle.
        bundle: BlobId,
        /// Its files' content.
        files: Option<Vec<BlobMap>>,
    },
    /// A frame's files are under their final names.
    Delivered {
        /// Its job.
        job: JobId,
        /// From [`Effect::Deliver`].
        collection: u64,
        /// Which.
        unit: Unit,
        /// Epoch of the result.
        epoch: u32,
    },
    /// They could not be put there now.
    DeliveryFailed {
        /// Its job.
        job: JobId,
        /// From [`Effect::Deliver`].
        collection: u64,
        /// Which.
        unit: Unit,
        /// For people: which path, what to do.
        reason: String,
    },
    /// They are neither in the store nor under their final names.
    Undeliverable {
        /// Its job.
        job: JobId,
        /// From [`Effect::Deliver`].
        collection: u64,
        /// Which.
        unit: Unit,
        /// What the store did not have then, and still does not: it may have been rendered or fetched anew meanwhile.
        gone: Vec<BlobId>,
    },
    /// A frame, the video or the ZIP file cannot be put under its name now; that goes on, or is tried again, by itself.
    CollectionDelayed {
        /// Its job.
        job: JobId,
        /// From [`Effect::Deliver`], [`Effect::FinishVideo`] or [`Effect::WriteZip`].
        collection: u64,
        /// For people: which path, what to do.
        reason: String,
    },
    /// The video is made, or was not wanted (`Ok`), or could not be made.
    VideoFinished {
        /// Its job.
        job: JobId,
        /// From [`Effect::FinishVideo`].
        collection: u64,
        /// For people when it failed.
        outcome: Result<(), String>,
    },
    /// The ZIP file is under its name.
    ZipWritten {
        /// Its job.
        job: JobId,
        /// From [`Effect::WriteZip`].
        collection: u64,
    },
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Write rows. With a token, durably and soon, then [`Input::Persisted`]; without, whenever.
    Persist {
        /// Wanted back.
        token: Option<Token>,
        /// What.
        rows: Vec<Row>,
    },
    /// Tell a neighbour.
    Send {
        /// Whom.
        to: NodeId,
        /// What; one for all it goes to.
        message: Arc<Message>,
    },
    /// A neighbour is silent: close its connection so that it is dialled anew.
    Disconnect {
        /// Whom.
        node: NodeId,
    },
    /// A job of this machine, or what it revised of any, is durable.
    Submitted {
        /// From [`Input::Submit`] or [`Input::Revise`].
        call: u64,
        /// Its id.
        job: JobId,
    },
    /// It could not be written down.
    Refused {
        /// From [`Input::Submit`] or [`Input::Revise`].
        call: u64,
        /// For people.
        reason: String,
    },
    /// Render a unit.
    Render {
        /// Its job.
        job: JobId,
        /// Which.
        unit: Unit,
        /// Epoch.
        epoch: u32,
        /// From which revision of the job, for [`JobState::spec_of`](super::state::JobState::spec_of); 0 as submitted.
        revision: u32,
        /// In a Blender that has rendered nothing yet.
        fresh: bool,
    },
    /// Stop rendering a unit, at once. Nothing comes back for it.
    Stop {
        /// Its job.
        job: JobId,
        /// Which.
        unit: Unit,
    },
    /// Render a small built-in scene with the renderers jobs have failed with here, then [`Input::SelfTested`].
    SelfTest,
    /// Say what the store has of a blob, making room for one whose map is given.
    OpenBlob {
        /// Which.
        blob: BlobId,
        /// If known.
        map: Option<BlobMap>,
    },
    /// Ask a peer for a blob's map.
    AskMap {
        /// Whom.
        of: NodeId,
        /// Which.
        blob: BlobId,
    },
    /// Ask a peer which chunks it has.
    AskHave {
        /// Whom.
        of: NodeId,
        /// Which.
        blob: BlobId,
    },
    /// Ask a peer for a chunk.
    AskChunk {
        /// Whom.
        of: NodeId,
        /// Blob it belongs to.
        blob: BlobId,
        /// Its place.
        index: u32,
        /// What it must be.
        chunk: super::blob::ChunkRef,
    },
    /// Read what a complete manifest lists.
    ReadManifest {
        /// The bundle.
        bundle: BlobId,
    },
    /// Put a frame's files under their final names.
    Deliver {
        /// Its job.
        job: JobId,
        /// Wanted back: [`Collector::collection`](super::collect::Collector::collection).
        collection: u64,
        /// Which.
        unit: Unit,
        /// Epoch of the result.
        epoch: u32,
        /// Files: all in the store, or some neither there nor held by anybody, and then perhaps all under their names since
        /// an earlier run.
        outputs: Vec<Output>,
        /// Whether they lay there before the job: whatever is under their names now is the user's own, and stays.
        is_kept: bool,
    },
    /// Every frame there will be is delivered: finish the video.
    FinishVideo {
        /// Which job.
        job: JobId,
        /// Wanted back, as in [`Effect::Deliver`].
        collection: u64,
        /// Frames there will not be.
        missing: Vec<i32>,
        /// Whether it was cancelled, so that no video is wanted.
        canceled: bool,
    },
    /// The video is made, or was not wanted or could not be: write the ZIP file of all results, over and over until it is
    /// there, and then [`Input::ZipWritten`].
    WriteZip {
        /// Which job.
        job: JobId,
        /// Wanted back, as in [`Effect::Deliver`].
        collection: u64,
        /// Whether there is a video.
        video: bool,
    },
    /// Delivered outputs need no copy in the store: they may go once nothing is found to need them.
    Forget {
        /// Blobs.
        blobs: Vec<BlobId>,
    },
    /// A job is forgotten for ever: whatever is kept for it alone may go, and what is under way for it ends.
    Retired {
        /// Which job.
        job: JobId,
    },
}
