//! The encoder's task: takes in frames, keeps one ffmpeg busy, joins at the end.

use super::ffmpeg::{Dub, Ffmpeg, Rate, Run};
use super::files::{self, Shelf};
use super::plan::{Plan, Source, Stamp};
use super::{Command, Video, VideoError, VideoSpec, blocking, join};
use crate::node::cause::{is_full, with_causes};
use crate::node::leftover::{Leftover, part_beside, remove, sync_folder_of};
use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info};

/// Changes whenever the same images would be encoded otherwise.
const FORMAT: u32 = 1;

type Encoding = Pin<Box<dyn Future<Output = Result<Encoded, VideoError>> + Send + Sync>>;

struct Encoded {
    range: Range<usize>,
    /// The images when it began, and those after it that are others now.
    stamps: Vec<Stamp>,
    changed: Vec<(usize, Source)>,
}

#[derive(Debug)]
pub(super) struct Work {
    spec: VideoSpec,
    ffmpeg: Ffmpeg,
    rate: Rate,
    shelf: Shelf,
    plan: Plan,
    extension: &'static str,
    last_came: Instant,
}

impl Work {
    /// Finds what a former run left. Blocks.
    pub fn open(spec: VideoSpec, ffmpeg: Ffmpeg, rate: Rate) -> Result<Self, VideoError> {
        let key = (FORMAT, &ffmpeg.version, spec.rate, spec.size, &spec.frames);
        let key = blake3::hash(format!("{key:?}").as_bytes()).to_hex().to_string();
        let shelf = Shelf { folder: spec.work_dir.clone(), key, timing: rate.timing() };
        let mut plan = Plan::new(spec.frames.len());
        let found = shelf.open().map_err(|source| VideoError::Io { path: spec.work_dir.clone(), source })?;
        let count = found.len();
        for (range, stamps) in found {
            if !plan.remember(range.clone(), stamps) {
                drop_piece(&shelf, &range)?;
            }
        }
        let unfinished = part_beside(&spec.out, &spec.work_dir);
        remove(&unfinished).map_err(|source| VideoError::Io { path: unfinished, source })?;
        debug!(segments = count, video = %spec.out.display(), "video opened");
        Ok(Self { spec, ffmpeg, rate, shelf, plan, extension: "png", last_came: Instant::now() })
    }

    /// Encodes until the video is there or the encoder is dropped.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<Video, VideoError> {
        let mut encoding: Option<Encoding> = None;
        let mut missing = None;
        loop {
            // What has come is noted before more is begun: the longer run may be there already.
            if encoding.is_none() && commands.is_empty() {
                encoding = self.plan.next().map(|range| self.encode(range));
                if encoding.is_none()
                    && let Some(missing) = missing.take()
                {
                    return self.join(missing).await;
                }
            }
            tokio::select! {
                command = commands.recv(), if missing.is_none() => match command {
                    Some(Command::Add { index, source, extension, at }) => {
                        (self.extension, self.last_came) = (extension, at);
                        if let Some(worthless) = self.plan.put(index, source) {
                            drop_piece(&self.shelf, &worthless)?;
                        }
                    }
                    Some(Command::Finish { failed }) => missing = Some(self.hold(&failed)?),
                    None => return Err(VideoError::Stopped),
                },
                encoded = result_of(&mut encoding) => {
                    encoding = None;
                    let Encoded { range, stamps, changed } = encoded?;
                    for (index, source) in changed {
                        self.plan.put(index, source);
                    }
                    if !self.plan.encoded(range.clone(), stamps) {
                        drop_piece(&self.shelf, &range)?;
                    }
                }
            }
        }
    }

    /// Gives every failed frame another's image. Returns the frames.
    fn hold(&mut self, failed: &BTreeSet<usize>) -> Result<Vec<i32>, VideoError> {
        let frame = |index: &usize| self.spec.frames.get(*index).copied();
        let absent: Vec<i32> = (0..self.spec.frames.len())
            .filter(|index| self.plan.source(*index).is_none() && !failed.contains(index))
            .filter_map(|index| frame(&index))
            .collect();
        if let Some(&first) = absent.first() {
            return Err(VideoError::Absent { first, count: absent.len() });
        }
        let (held, worthless) = self.plan.hold_absent().ok_or(VideoError::NoFrames)?;
        let missing = held.iter().filter_map(|index| self.spec.frames.get(*index).copied()).collect();
        for range in worthless {
            drop_piece(&self.shelf, &range)?;
        }
        Ok(missing)
    }

    fn encode(&self, range: Range<usize>) -> Encoding {
        let sources: Vec<(i32, Source)> = range
            .clone()
            .filter_map(|index| Some((*self.spec.frames.get(index)?, self.plan.source(index)?.clone())))
            .collect();
        let (width, height) = self.spec.size;
        let run = Run {
            folder: self.shelf.folder.clone(),
            images: sources.iter().map(|(_, source)| source.path.clone()).collect(),
            extension: self.extension,
            rate: self.rate,
            pixels: u64::from(width) * u64::from(height),
            out: Shelf::unfinished(&range),
        };
        let (ffmpeg, shelf) = (self.ffmpeg.clone(), self.shelf.clone());
        Box::pin(async move {
            let started = Instant::now();
            let encoded = ffmpeg.encode(&run).await;
            let done = blocking(move || {
                // Looked at afterwards: a record must not vouch for images that changed while they were read. One
                // that vanished explains a failure better than ffmpeg does.
                let now = stamps_now(&sources)?;
                encoded?;
                let stamps: Vec<Stamp> = sources.iter().map(|(_, source)| source.stamp).collect();
                let kept = shelf.keep(&range, &stamps);
                kept.map_err(|source| VideoError::Segment { path: shelf.segment(&range), source })?;
                let changed = range.clone().zip(sources).zip(now);
                let changed = changed.filter(|((_, (_, source)), now)| source.stamp != *now);
                let changed =
                    changed.map(|((index, (_, source)), stamp)| (index, Source { stamp, ..source })).collect();
                Ok::<_, VideoError>(Encoded { range, stamps, changed })
            })
            .await??;
            let seconds = started.elapsed().as_secs_f64();
            debug!(first = done.range.start, frames = done.range.len(), seconds, "encoded");
            Ok(done)
        })
    }

    async fn join(self, missing: Vec<i32>) -> Result<Video, VideoError> {
        let work = Arc::new(self);
        let unfinished = Leftover(part_beside(&work.spec.out, &work.spec.work_dir));
        let (frames, silent) = (work.spec.frames.len(), work.put(&unfinished.0).await?);
        let seconds_after_last = work.last_came.elapsed().as_secs_f64();
        let video = Video { path: work.spec.out.clone(), frames, missing, silent, seconds_after_last };
        info!(video = %video.path.display(), frames, missing = video.missing.len(), "video ready");
        Ok(video)
    }

    /// Writes the video to `unfinished` and gives it its name. Why it has no sound, if there is one.
    async fn put(self: &Arc<Self>, unfinished: &Path) -> Result<Option<String>, VideoError> {
        let sound = self.spec.sound.clone().filter(|sound| sound.is_file());
        let silent = match &sound {
            Some(sound) => match self.dub(sound, unfinished).await {
                Err(error) if error.full_disk().is_some() || matches!(error, VideoError::Segment { .. }) => {
                    return Err(error);
                }
                dubbed => dubbed.err().map(|error| with_causes(&error)),
            },
            None => None,
        };
        let (work, unfinished, is_dubbed) =
            (self.clone(), unfinished.to_path_buf(), sound.is_some() && silent.is_none());
        blocking(move || {
            if !is_dubbed {
                work.write_pictures(&unfinished, &work.spec.out)?;
            }
            let out = &work.spec.out;
            let named = std::fs::rename(&unfinished, out).and_then(|()| sync_folder_of(out));
            named.map_err(|source| VideoError::Io { path: out.clone(), source })?;
            if let Err(error) = work.shelf.clear() {
                debug!(folder = %work.shelf.folder.display(), %error, "segments left behind");
            }
            Ok(silent)
        })
        .await?
    }

    /// Writes pictures and sound to `out`.
    async fn dub(self: &Arc<Self>, sound: &Path, out: &Path) -> Result<(), VideoError> {
        let (work, frames) = (self.clone(), self.spec.frames.len());
        let pictures = Leftover(self.shelf.pictures());
        let joined = pictures.0.clone();
        blocking(move || work.write_pictures(&joined, &joined)).await??;
        let (rate, seconds) = (self.rate, self.rate.seconds(frames));
        self.ffmpeg.add_sound(&Dub { pictures: &pictures.0, sound, frames, seconds, rate, out }).await?;
        let written = out.to_path_buf();
        let checked = blocking(move || match join::tracks(&written)?[..] {
            [(join::PICTURES, count), (join::SOUND, 1..)] if count == frames => File::open(&written)?.sync_all(),
            _ => Err(io::Error::other("what it made is not all pictures and their sound")),
        });
        checked.await?.map_err(|source| match is_full(&source) {
            true => VideoError::Io { path: self.spec.out.clone(), source },
            false => {
                let (folder, doing) = (self.shelf.folder.clone(), "adding the sound".to_owned());
                VideoError::Ffmpeg { folder, doing, detail: source.to_string() }
            }
        })
    }

    /// Joins all pieces and writes them to `to`, durably. What the disk says is told of `named`.
    fn write_pictures(&self, to: &Path, named: &Path) -> Result<(), VideoError> {
        let pieces = self.plan.whole().ok_or(VideoError::Stopped)?;
        let mut clips: Vec<join::Clip> = Vec::with_capacity(pieces.len());
        for range in &pieces {
            let clip = self.shelf.clip(range).and_then(|clip| match clips.first() {
                Some(first) if !first.joins(&clip) => Err(io::Error::other("it was encoded in another way")),
                _ => Ok(clip),
            });
            match clip {
                Ok(clip) => clips.push(clip),
                Err(source) => {
                    drop_piece(&self.shelf, range)?;
                    return Err(VideoError::Segment { path: self.shelf.segment(range), source });
                }
            }
        }
        let even = |pixels: u32| pixels.next_multiple_of(2);
        let size = (even(self.spec.size.0), even(self.spec.size.1));
        let written = File::create(to)
            .and_then(|file| join::write(&clips, self.rate.timing(), size, file))
            .and_then(|file| file.sync_all());
        written.map_err(|source| VideoError::Io { path: named.to_path_buf(), source })
    }
}

async fn result_of(encoding: &mut Option<Encoding>) -> Result<Encoded, VideoError> {
    match encoding {
        Some(encoding) => encoding.await,
        None => std::future::pending().await,
    }
}

fn drop_piece(shelf: &Shelf, range: &Range<usize>) -> Result<(), VideoError> {
    shelf.drop(range).map_err(|source| VideoError::Io { path: shelf.segment(range), source })
}

fn stamps_now(sources: &[(i32, Source)]) -> Result<Vec<Stamp>, VideoError> {
    let stamp = |(frame, source): &(i32, Source)| {
        files::stamp(&source.path).map_err(|error| {
            let path: PathBuf = source.path.clone();
            VideoError::FrameFile { frame: *frame, path, source: error }
        })
    };
    sources.iter().map(stamp).collect()
}
