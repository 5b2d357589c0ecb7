//! Frames that lie in the output folder already: which of them are whole, and taking those into the store.
//!
//! A frame is whole if each of its files is a plain file that decodes in the job's format and size, as a rendered one is
//! checked. More cannot be told from a file: not which scene it shows, nor in which depth it was to be. Nothing is written
//! here but the store; the files stay as they are.

use super::cause::{is_full, with_causes};
use super::chunk::Chunking;
use super::http::{ApiError, ErrorKind};
use super::render::{CheckError, check_image};
use super::store::Store;
use crate::farm::frames::FrameSet;
use crate::farm::id::Unit;
use crate::farm::job::{ImageFormat, OutputSpec};
use crate::farm::kept::KeptFrame;
use crate::farm::op::{Output, OutputRole};
use image::ImageError;
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
    ///
    /// # Errors
    /// A file cannot be looked at: whether it is whole is not known, so that it must not be replaced.
    pub fn look(
        output: &OutputSpec,
        frames: &FrameSet,
        wanted: &Wanted,
        mut goes_on: impl FnMut(usize) -> bool,
    ) -> Result<(Self, Broken), ApiError> {
        let (mut kept, mut broken) = (BTreeMap::new(), Broken::default());
        for (done, frame) in frames.iter().enumerate() {
            if !goes_on(done) {
                break;
            }
            match look_at_frame(output, frame, wanted)? {
                Found::Whole(files) => drop(kept.insert(frame, files)),
                Found::Broken(why) => {
                    broken.frames += 1;
                    if broken.frames == 1 {
                        broken.why = why;
                    }
                }
                Found::Nothing => {}
            }
        }
        Ok((Self(kept), broken))
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

/// What there is of a file, or of a frame.
enum Found<T> {
    /// Whole, as it would be rendered.
    Whole(T),
    /// Not whole, and why.
    Broken(String),
    /// It is not there.
    Nothing,
}

/// Looks at the files of one frame, whichever way they are called.
fn look_at_frame(output: &OutputSpec, frame: i32, wanted: &Wanted) -> Result<Found<Vec<Whole>>, ApiError> {
    let (mut why, mut is_begun) = (None, false);
    for set in &wanted.sets {
        let mut files = Vec::with_capacity(set.len());
        for view in set {
            match look_at(output, frame, view, wanted)? {
                Found::Whole(file) => files.push(file),
                Found::Broken(text) => drop(why.get_or_insert(text)),
                Found::Nothing => {}
            }
        }
        if files.len() == set.len() {
            return Ok(Found::Whole(files));
        }
        is_begun |= !files.is_empty();
    }
    let lacks = is_begun.then(|| format!("frame {frame} lacks files of views"));
    Ok(why.or(lacks).map_or(Found::Nothing, Found::Broken))
}

/// Looks at the file of one view.
fn look_at(output: &OutputSpec, frame: i32, view: &str, wanted: &Wanted) -> Result<Found<Whole>, ApiError> {
    let name = output.view_name(frame, wanted.format, view);
    let path = Path::new(&output.directory).join(&name);
    let stamp = match stamp_of(&path) {
        Ok(stamp) => stamp,
        // A link that leads nowhere is replaced without a word, as ever; that the folder is none is told beside.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(not_looked_at(&path, &error)),
    };
    match check_image(&path, wanted.format, wanted.size) {
        Ok(_) => Ok(Found::Whole(Whole { name, path, stamp })),
        Err(error) if tells_nothing(&error) => Err(not_looked_at(&path, &error)),
        Err(error) => Ok(Found::Broken(format!("{name}: {}", first_of(&error)))),
    }
}

/// Whether an image was not looked at as a whole: the disk failed, or it is too large for that.
fn tells_nothing(error: &CheckError) -> bool {
    let cause: &(dyn std::error::Error + 'static) = match error {
        CheckError::TooLarge(..) | CheckError::Decode(ImageError::Limits(_)) => return true,
        // It names what its own cause is, not itself, as its source.
        CheckError::Decode(ImageError::IoError(error)) => error,
        error => error,
    };
    // A file that ends too early says so without the system.
    let is_of_system = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error().is_some())
    };
    std::iter::successors(Some(cause), |cause| cause.source()).any(is_of_system)
}

fn not_looked_at(path: &Path, error: &(dyn std::error::Error + 'static)) -> ApiError {
    let text = format!(
        "{} cannot be looked at ({}), so that nobody knows whether to keep it; mend that or move it away, or submit without \
         --keep-existing, which replaces it",
        path.display(),
        first_of(error)
    );
    ApiError::new(ErrorKind::FileUnreadable, text)
}

/// What is the matter, without what to do about a rendered one.
fn first_of(error: &(dyn std::error::Error + 'static)) -> String {
    with_causes(error).split("; ").next().unwrap_or_default().to_owned()
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
