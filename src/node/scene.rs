//! The submitting side's view of a scene: what a .blend asks for, which files it needs, and how they travel.
//!
//! All of it reads the file's own bytes; no Blender is started and the user's files are never written. Everything is
//! synchronous and may block on the disk, so the node runs it where blocking is allowed. Input is untrusted: a broken
//! file is an error with a sentence, never a panic, and nothing is allocated on a length the file merely claims.
//!
//! In reading order: [`dna`] finds the bytes of a field, [`mod@read`] asks the scene what to render (`views` which files it leaves), `refs` finds every
//! path a .blend stores (`caches` those of bakes, `imports` those in geometry nodes), `reach` which of them are used, `disk`
//! what they come to here (`maps` where they are of another machine), [`mod@trace`] what is there and what is missing (`packed` the libraries in other files),
//! `inner` what files name themselves, `include` what travels though no .blend names it, `ocio` the colours where they are not Blender's own, `names` gives each file its place in a bundle, [`mod@bundle`] copies
//! them with the paths rewritten, [`layout`] puts them down again. [`mod@survey`] says what of a scene would not come out as
//! its maker saw it: `simulations` without a bake, which frames `bakes` have, what is `unrun` of its Python (`expression` tells which need it), and what it `wants` of a
//! Blender's build.

mod bakes;
pub mod bundle;
mod caches;
mod disk;
pub mod dna;
mod expression;
mod imports;
mod include;
mod inner;
pub mod layout;
mod maps;
mod names;
mod ocio;
mod packed;
mod reach;
pub mod read;
mod refs;
mod simulations;
mod splice;
pub mod survey;
pub mod trace;
mod unrun;
mod views;
mod wants;
mod zones;

pub use bakes::Bake;
pub use bundle::{BlobSink, BundleError, BundleProgress, BundleStats, bundle};
pub use include::place_beside;
pub use layout::{is_opened_for_writing, lay_out, opened_for_writing};
pub use maps::PathMap;
pub use ocio::{Ocio, OcioChoice, ocio_files, ocio_of, ocio_variables, trace_ocio};
pub use packed::Packed;
pub use read::{SceneInfo, read};
pub use simulations::Simulation;
pub use survey::{Computed, Survey, survey};
pub use trace::{Dependency, Missing, RefKind, Stamp, Trace, TraceOptions, trace};
pub use unrun::Unrun;
pub use views::{SceneViews, ViewFiles};

use std::path::{Path, PathBuf};

/// Names listed for people to choose among; the rest are counted.
const MOST_LISTED: usize = 20;

/// Why a .blend cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// There is no such file.
    #[error("{} does not exist; check the path", .0.display())]
    NotFound(PathBuf),
    /// A directory, a pipe, a device.
    #[error("{} is not a file; name the .blend itself", .0.display())]
    NotAFile(PathBuf),
    /// Some other kind of file.
    #[error("{} is not a .blend file; save the scene from Blender and submit that", .0.display())]
    NotABlend(PathBuf),
    /// It ends, or stops making sense, before its end marker.
    #[error("{} is truncated or damaged ({what}); save it again from Blender, or take a backup such as its .blend1", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What was being read.
        what: &'static str,
    },
    /// A .blend of a kind this program does not know.
    #[error("{} is a .blend this program cannot read: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What about it.
        what: String,
    },
    /// More bytes than can be held.
    #[error("{} is more than {limit_bytes} bytes once decompressed, which is more than this program reads here", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit_bytes: u64,
    },
    /// A USD file that cannot be looked into.
    #[error("the USD file {} cannot be read: {what}; export it again", path.display())]
    Layer {
        /// The file.
        path: PathBuf,
        /// Why.
        what: &'static str,
    },
    /// What shall travel with it cannot.
    #[error("{} cannot be included: {what}", path.display())]
    Include {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The configuration of OpenColorIO is none.
    #[error("the OCIO configuration {} cannot be used: {what}", path.display())]
    Ocio {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        what: String,
    },
    /// It has other scenes than the one asked for.
    #[error("{} has no scene `{wanted}`; choose among {there}", path.display())]
    NoScene {
        /// The file.
        path: PathBuf,
        /// The scene asked for.
        wanted: String,
        /// Those there are.
        there: String,
    },
    /// The operating system says no.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Names for people to choose among.
pub fn listed(names: &[String]) -> String {
    let mut words: Vec<String> = names.iter().take(MOST_LISTED).map(|name| format!("`{name}`")).collect();
    words.extend((names.len() > MOST_LISTED).then(|| format!("{} more", names.len() - MOST_LISTED)));
    words.join(", ")
}

impl SceneError {
    fn unreadable(path: &Path, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound(path.into()),
            _ => Self::Unreadable { path: path.into(), source },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod synthetic;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
