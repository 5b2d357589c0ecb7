//! What the loop hears from the tasks it started.

use super::answer::Stream;
use super::http::ApiError;
use super::logs::FrameLogs;
use super::machine::Gpu;
use super::prospect::Prospect;
use super::render::{Discovery, Pinned};
use super::slots::{Finished, Free};
use super::store::Holdings;
use super::submit::Prepared;
use super::sweep::Look;
use super::update::WhichJob;
use crate::farm::ability::Abilities;
use crate::farm::event::{Input, Load};
use crate::farm::id::JobId;
use crate::farm::job::{Device, OutputSpec, Series};
use std::io;
use tokio::sync::oneshot;

/// Something a task has to say.
pub enum Event {
    /// Straight to the farm.
    Farm(Input),
    /// Blender is free while its unit is being looked at.
    UnitDrawn(Box<Free>),
    /// A unit ended.
    UnitFinished(Box<Finished>),
    /// Renderers were looked for.
    Discovered(Box<Discovery>, Vec<Gpu>),
    /// The speed of this machine was measured, of what, or could not be.
    Benchmarked(String, Result<u32, String>),
    /// A submission wants to know who could render it.
    WhoCan(WhoCan),
    /// A submission wants to know what the swarm says to it.
    Prospect(Prospect),
    /// Somebody wants to change a job.
    WhichJob(WhichJob),
    /// A submission is bundled.
    Prepared(Box<Prepared>, Stream),
    /// A job is to be collected in a place that can be written to.
    Collect {
        /// Which.
        job: JobId,
        /// Where.
        output: OutputSpec,
        /// Who follows it.
        stream: Stream,
    },
    /// A ZIP file is to have what renderers printed about a frame.
    FrameLogs(FrameLogs),
    /// How the machine is doing.
    Load(Load),
    /// It was looked whether the store has what this machine said to have.
    LookedFor(io::Result<Holdings>),
    /// The store was looked through for what no job names.
    Unnamed(Look),
    /// What was found to be needed by nobody is gone.
    Swept,
}

/// Asks which series is to render a scene.
pub struct WhoCan {
    /// Series that saved it.
    pub file: Series,
    /// Least version that may open it.
    pub min_version: u32,
    /// What it needs.
    pub needs: Abilities,
    /// The one it is to have, whatever is set for the swarm.
    pub pinned: Option<Pinned>,
    /// What it is to be computed on.
    pub device: Device,
    /// Whether anything is to be rendered at all.
    pub renders: bool,
    /// The job that is to come first, as the person named it.
    pub after: Option<String>,
    /// Whether it can wait for Blenders that are still looked for.
    pub waits: bool,
    /// Who, or why nobody can.
    pub reply: oneshot::Sender<Choice>,
}

/// The series for a submission.
pub struct Choice {
    /// The one it is to have, unless the file chooses.
    pub pinned: Option<Pinned>,
    /// What there is, or why nobody can render it.
    pub found: Result<Found, ApiError>,
}

/// What a submission learns of the swarm.
pub struct Found {
    /// The series to render with.
    pub series: Series,
    /// What the person should know about it.
    pub warning: Option<String>,
    /// The job that is to come first.
    pub after: Option<JobId>,
}
