//! Frames that lie in the output folder already: which of them are whole, and taking those into the store.
//!
//! A frame is whole if each of its files is a plain file that decodes in the job's format and size, as a rendered one is
//! checked. More cannot be told from a file: not which scene it shows, nor in which depth it was to be. Nothing is written
//! here but the store; the files stay as they are.

use super::cause::{is_full, with_causes};
use super::chunk::Chunking;
use super::http::{ApiError, ErrorKind};
use super::render::check_image;
use super::store::Store;
use crate::farm::frames::FrameSet;
use crate::farm::id::Unit;
use crate::farm::job::{ImageFormat, OutputSpec};
use crate::farm::kept::KeptFrame;
use crate::farm::op::{Output, OutputRole};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the names of a frame's files end in, in one of several ways; and the format and size of each.
pub struct Wanted {
    /// As in [`SceneViews::sets`](super::scene::SceneViews::sets).
    pub sets: Vec<Vec<String>>,
    /// Format.
    pub format: ImageFormat,
    /// Width and height in pixels.
    pub size: (u32, u32),
}

/// Frames that are there, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<i32, Vec<Whole>>);

/// A file that was looked at: its name among the results, the place, and what tells whether it is still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whole {
    name: String,
    path: PathBuf,
    stamp: Stamp,
}

/// Length and time of change.
type Stamp = (u64, SystemTime);

/// Frames of which something is there that is not whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// How many.
    pub frames: usize,
    /// What is the matter with a file of the first.
    pub why: String,
}

impl Kept {
    /// Looks at the files of these frames, as long as `goes_on` says after each of them. Blocks on the disk.
    pub fn look(
        output: &OutputSpec,
        frames: &FrameSet,
        wanted: &Wanted,
        mut goes_on: impl FnMut(usize) -> bool,
    ) -> (Self, Broken) {
        let (mut kept, mut broken) = (BTreeMap::new(), Broken::default());
        for (done, frame) in frames.iter().enumerate() {
            if !goes_on(done) {
                break;
            }
            let mut why = None;
            let mut whole = |set: &Vec<String>| {
                let files = set.iter().map(|view| look_at(output, frame, view, wanted));
                files.collect::<Result<Vec<Whole>, _>>().map_err(|error| why = why.take().or(error)).ok()
            };
            match wanted.sets.iter().find_map(&mut whole) {
                Some(files) => drop(kept.insert(frame, files)),
                None if why.is_some() || is_begun(output, frame, wanted) => {
                    broken.frames += 1;
                    if broken.frames == 1 {
                        broken.why = why.unwrap_or_else(|| format!("frame {frame} lacks files of views"));
                    }
                }
                None => {}
            }
        }
        (Self(kept), broken)
    }

    /// How many frames.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes them into the store; `goes_on` is asked after each. Blocks on the disk.
    ///
    /// # Errors
    /// A file changed since it was looked at or cannot be read any more, or the disk refuses.
    pub fn take_in(self, store: &Store, mut goes_on: impl FnMut(usize) -> bool) -> Result<Vec<KeptFrame>, ApiError> {
        let mut intake = store.intake();
        let mut frames = Vec::with_capacity(self.0.len());
        for (done, (frame, files)) in self.0.into_iter().enumerate() {
            if !goes_on(done) {
                // Whoever would be told is gone.
                return Ok(Vec::new());
            }
            let mut outputs = Vec::with_capacity(files.len());
            for Whole { name, path, stamp } in files {
                // By the image, which comes first, a result is known.
                let role = if outputs.is_empty() { OutputRole::Image } else { OutputRole::Aux };
                let (map, _) = intake.put_file(&path, Chunking::Fixed).map_err(not_taken)?;
                if stamp_of(&path).ok() != Some(stamp) {
                    let text = format!("{} changed while the job was made; submit again", path.display());
                    return Err(ApiError::new(ErrorKind::FileUnreadable, text));
                }
                outputs.push(Output { path: name, blob: map.id(), bytes: map.bytes(), role });
            }
            frames.push(KeptFrame { unit: Unit::whole(frame), outputs });
        }
        intake.finish().map_err(not_taken)?;
        Ok(frames)
    }
}

fn not_taken(error: io::Error) -> ApiError {
    let (kind, fix) = match is_full(&error) {
        true => (ErrorKind::NoSpace, "make room on the disk of the data directory"),
        false => (ErrorKind::FileUnreadable, "mend that, or submit without --keep-existing"),
    };
    ApiError::new(kind, format!("a frame that is kept cannot be taken in: {}; {fix}", with_causes(&error)))
}

/// Looks at the file of one view; why it is not whole, or nothing if it is not there.
fn look_at(output: &OutputSpec, frame: i32, view: &str, wanted: &Wanted) -> Result<Whole, Option<String>> {
    let name = output.view_name(frame, wanted.format, view);
    let path = Path::new(&output.directory).join(&name);
    let wrong = |why: String| Some(format!("{name}: {why}"));
    let stamp = match stamp_of(&path) {
        Ok(stamp) => stamp,
        // A link that leads nowhere is replaced without a word, as ever.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    match check_image(&path, wanted.format, wanted.size) {
        Ok(_) => Ok(Whole { name, path, stamp }),
        // What to do about it is said of a rendered one.
        Err(error) => Err(wrong(with_causes(&error).split("; ").next().unwrap_or_default().to_owned())),
    }
}

/// Whether any file of a frame is there.
fn is_begun(output: &OutputSpec, frame: i32, wanted: &Wanted) -> bool {
    let path = |view: &String| Path::new(&output.directory).join(output.view_name(frame, wanted.format, view));
    wanted.sets.iter().flatten().any(|view| path(view).exists())
}

/// Of a plain file: nothing else is opened, since a pipe would never answer.
fn stamp_of(path: &Path) -> io::Result<Stamp> {
    let stat = path.metadata()?;
    if !stat.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file"));
    }
    Ok((stat.len(), stat.modified()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
