//! Rendering: finding Blender, and keeping one at work.
//!
//! A *renderer* is a Blender executable or a Python with `bpy`; one driver script serves both. [`discover`] finds them
//! and asks each what it can do. A [`Worker`] is one such process that has opened one scene and renders unit after unit;
//! [`choose_series`] decides which release series a job is rendered with; [`check_image`] is why a result is believed:
//! Blender's exit code, and its word that it saved a file, are not. [`encode_with_blender`] makes the video where there
//! is no ffmpeg. On Linux those that open a file or images do so in a [`Sandbox`], if there is one ([`confine`]); asking one
//! what it can do opens nothing, and is done outside first, where a GPU's driver may set itself up.
//!
//! Never here: deciding what to render next, or what a failure means for a job. A Blender never outlives its [`Worker`],
//! nor the daemon, however either ends.

mod blank;
#[cfg(test)]
mod blank_tests;
mod by_hand;
mod check;
mod child;
mod colours;
mod confined;
mod drawn;
mod encode;
mod error;
mod files;
#[cfg(test)]
mod files_tests;
mod find;
mod log;
mod memory;
#[cfg(test)]
mod override_tests;
mod sandbox;
#[cfg(test)]
mod script_tests;
mod series;
#[cfg(test)]
pub(super) mod simulation_tests;
mod sound;
#[cfg(test)]
mod sound_tests;
mod take;
mod unusable;
mod views;
#[cfg(test)]
mod views_tests;
mod worker;

pub use by_hand::by_hand;
pub use check::{CheckError, PIXELS_MAX, check_image};
pub use confined::confine;
pub use drawn::Drawn;
pub use encode::{EncodeError, encode_with_blender};
pub use error::{INSTALL_EGL, RenderError, UnitFailure};
pub use files::{FileOutput, FileOutputs};
pub use find::{Discovery, NO_BLENDER, NO_OPENGL, Search, discover, discover_in};
pub use log::{Lines, split_log};
pub use sandbox::{Confinement, Disk, Sandbox};
pub use series::{Available, Pinned, SeriesError, choose_renderer, choose_series};
pub use unusable::GPU_UNUSABLE;
pub use views::{View, Views};
pub use worker::{Rendered, Worker, WorkerScene};

use crate::farm::ability::Abilities;
use crate::farm::job::Series;
use crate::farm::message::RendererInfo;
pub use crate::farm::op::FailureKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// How a renderer is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RendererKind {
    /// Blender itself.
    Executable,
    /// A Python that can `import bpy`.
    Python,
}

/// Something Cycles can compute on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// `CPU`, `CUDA`, `OPTIX`, `HIP`, `ONEAPI` or `METAL`.
    pub backend: String,
    /// What its maker calls it; equal cards have equal names.
    pub name: String,
    /// Tells it from the others of its backend, by its place in the machine where Blender tells that.
    pub id: String,
    /// Its memory in bytes, where Blender tells; no version does yet.
    pub memory: Option<u64>,
}

/// A Blender that was started and answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renderer {
    /// How it is started.
    pub kind: RendererKind,
    /// The executable, absolute.
    pub path: PathBuf,
    /// Major, minor, patch.
    pub version: (u16, u16, u16),
    /// Release series: major and minor.
    pub series: Series,
    /// Newest file it reads, as `version * 100 + subversion`: compare a file's least version with this.
    pub file_version: u32,
    /// Commit it was built from, or `Unknown`.
    pub build_hash: String,
    /// The folders that its own colours may be in, the configuration of OpenColorIO and what that names: the first that is
    /// there counts.
    pub colour_folders: Vec<PathBuf>,
    /// A hash of what is in that one, 8 hexadecimal digits; empty if there is none.
    pub colours: String,
    /// What it has of that which not all have.
    pub abilities: Abilities,
    /// What it can compute on now, best backend first, the CPU last.
    pub devices: Vec<DeviceInfo>,
    /// What it runs in when it opens a file or images; without one it may do whatever this user may.
    #[serde(skip)]
    pub sandbox: Option<Arc<Sandbox>>,
}

impl Renderer {
    /// What it computes on, best first.
    pub fn backends(&self) -> impl Iterator<Item = &str> {
        self.devices.iter().map(|device| device.backend.as_str())
    }

    /// The version as people write it.
    pub fn version_text(&self) -> String {
        let (major, minor, patch) = self.version;
        format!("{major}.{minor}.{patch}")
    }

    /// What tells it from others of its series: its commit, if it was built with one, and its own colours, which studios
    /// replace.
    pub fn build_text(&self) -> String {
        // Distributions build without a hash, and Blender then says `Unknown`.
        let hash = Some(self.build_hash.as_str()).filter(|hash| !matches!(*hash, "" | "Unknown"));
        let colours = (!self.colours.is_empty()).then(|| format!("colours {}", self.colours));
        hash.map(str::to_owned).into_iter().chain(colours).collect::<Vec<_>>().join(" ")
    }

    /// The same with its version, of a frame; colours that the job brings are not the renderer's.
    pub fn rendered_text(&self, brings_colours: bool) -> String {
        self.info().rendered_text(brings_colours)
    }

    /// What others are told of it.
    pub fn info(&self) -> RendererInfo {
        RendererInfo {
            version: self.version,
            path: self.path.to_string_lossy().into_owned(),
            build: self.build_text(),
            abilities: self.abilities,
            devices: self.devices.iter().map(|device| device.backend.clone()).collect(),
        }
    }
}

/// Something about this machine's renderers a person should mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable word for programs, such as `no-blender`.
    pub kind: String,
    /// What is wrong, and with what.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

#[cfg(test)]
pub(super) mod tests;
