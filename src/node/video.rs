//! The video of a job, encoded while its frames arrive.
//!
//! Frames come in any order. Whole runs of them are encoded at once as closed segments, one ffmpeg at a time, and at
//! the end the segments are joined, and sound is added, without touching a picture again: the video is there moments
//! after the last frame (`plan` says what is encoded when, `ffmpeg` encodes, `join` joins). Finished segments outlive a
//! restart; each has a record of the images it was made of beside it and counts only while they are the same. No fault of
//! the sound costs the video.
//!
//! It must never show a half-written video under its final name, and never trust ffmpeg's exit code.

mod error;
mod ffmpeg;
mod files;
mod join;
mod plan;
#[cfg(test)]
mod tests;
mod work;

pub use error::VideoError;
pub use ffmpeg::{ffmpeg_available, find_ffmpeg};

use crate::farm::job::FrameRate;
use ffmpeg::{Ffmpeg, Rate};
use plan::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use work::Work;

/// Frames announced and not yet noted; noting takes microseconds (guess).
const MAX_WAITING: usize = 64;

/// What a video is to be.
#[derive(Clone, Debug)]
pub struct VideoSpec {
    /// Every frame of the job, in playing order, each once.
    pub frames: Vec<i32>,
    /// Frames per second.
    pub rate: FrameRate,
    /// Where the MP4 goes; replaced only by a complete one.
    pub out: PathBuf,
    /// A directory of the encoder's own, for segments; emptied when the video is there. Keep it over a restart.
    pub work_dir: PathBuf,
    /// Width and height of every frame, pixels.
    pub size: (u32, u32),
    /// A FLAC file of its sound, as long as the frames; none if it is not there once every frame is.
    pub sound: Option<PathBuf>,
}

/// A finished video.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// Where it is.
    pub path: PathBuf,
    /// How many frames it plays.
    pub frames: usize,
    /// Frames that were not there and show another instead.
    pub missing: Vec<i32>,
    /// Why it has no sound, if there was one.
    pub silent: Option<String>,
    /// Seconds from the last frame that came to the video in its place.
    pub seconds_after_last: f64,
}

/// Encodes one video. Dropped, it stops at once and leaves finished segments for the next one.
#[derive(Debug)]
pub struct Encoder {
    indexes: BTreeMap<i32, usize>,
    size: (u32, u32),
    extension: Option<&'static str>,
    commands: mpsc::Sender<Command>,
    work: Option<JoinHandle<Result<Video, VideoError>>>,
}

#[derive(Debug)]
enum Command {
    Add { index: usize, source: Source, extension: &'static str, at: Instant },
    Finish { failed: BTreeSet<usize> },
}

impl Encoder {
    /// Starts encoding, or carries on: finished segments in the work directory are used again where their images are
    /// unchanged.
    ///
    /// # Errors
    /// No ffmpeg or none that serves, a specification that cannot be, a work directory that cannot be written.
    pub async fn open(spec: VideoSpec) -> Result<Self, VideoError> {
        let program = find_ffmpeg().ok_or(VideoError::NoFfmpeg)?;
        Self::open_with(spec, program).await
    }

    async fn open_with(mut spec: VideoSpec, program: PathBuf) -> Result<Self, VideoError> {
        let mut indexes = BTreeMap::new();
        for (index, &frame) in spec.frames.iter().enumerate() {
            if indexes.insert(frame, index).is_some() {
                return Err(VideoError::Twice(frame));
            }
        }
        if indexes.is_empty() {
            return Err(VideoError::NoFrames);
        }
        let FrameRate { fps, base_millionths } = spec.rate;
        let rate = Rate::new(fps, base_millionths).ok_or(VideoError::Rate { fps, base_millionths })?;
        for path in [&mut spec.work_dir, &mut spec.out] {
            *path = std::path::absolute(&*path).map_err(|source| VideoError::Io { path: path.clone(), source })?;
        }
        let ffmpeg = Ffmpeg::probe(program).await?;
        let (size, (sender, receiver)) = (spec.size, mpsc::channel(MAX_WAITING));
        let work = blocking(move || Work::open(spec, ffmpeg, rate)).await??;
        let work = Some(tokio::spawn(work.run(receiver)));
        Ok(Self { indexes, size, extension: None, commands: sender, work })
    }

    /// A frame's verified image is at `path` and stays there until the video is finished. Returns at once; what goes
    /// wrong with encoding is told by a later call. The same frame may come again, with a better image too.
    ///
    /// # Errors
    /// The image is gone, of another size or format; or encoding failed since the last call.
    pub async fn add(&mut self, frame: i32, path: PathBuf) -> Result<(), VideoError> {
        let index = *self.indexes.get(&frame).ok_or(VideoError::UnknownFrame(frame))?;
        let file_error = |path: &Path, source| VideoError::FrameFile { frame, path: path.into(), source };
        let path = std::path::absolute(&path).map_err(|source| file_error(&path, source))?;
        let at_path = path.clone();
        let look = blocking(move || files::look(&at_path)).await?.map_err(|source| file_error(&path, source))?;
        let Some((stamp, size, extension)) = look else {
            return Err(VideoError::NotAnImage { frame, path });
        };
        let expected = *self.extension.get_or_insert(extension);
        if extension != expected {
            return Err(VideoError::Format { frame, path, found: extension, expected });
        }
        if size != self.size {
            return Err(VideoError::Size { frame, path, found: size, expected: self.size });
        }
        let source = Source { path, stamp };
        self.send(Command::Add { index, source, extension, at: Instant::now() }).await
    }

    /// Every frame has come or is in `failed`: encodes the rest, with the frame before (at the very start, the first
    /// after) in place of each failed one, and puts the video in its place.
    ///
    /// # Errors
    /// A frame neither came nor failed; none came; encoding or writing failed. Finished segments are kept.
    pub async fn finish(mut self, failed: &[i32]) -> Result<Video, VideoError> {
        let failed = failed.iter().filter_map(|frame| self.indexes.get(frame).copied()).collect();
        self.send(Command::Finish { failed }).await?;
        self.result().await
    }

    async fn send(&mut self, command: Command) -> Result<(), VideoError> {
        match self.commands.send(command).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.result().await.err().unwrap_or(VideoError::Stopped)),
        }
    }

    async fn result(&mut self) -> Result<Video, VideoError> {
        match self.work.as_mut() {
            Some(work) => {
                let result = work.await;
                self.work = None;
                result.unwrap_or(Err(VideoError::Stopped))
            }
            None => Err(VideoError::Stopped),
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, VideoError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| VideoError::Stopped)
}
