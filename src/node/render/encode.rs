//! A video by Blender's own encoder, where there is no ffmpeg: the images as a strip of the sequencer, with a view
//! transform that leaves their colours alone.

use super::Renderer;
use super::child::{Child, Event, Mode};
use super::files::Folder;
use super::log::Log;
use super::sandbox::{Cell, Disk};
use crate::farm::job::FrameRate;
use crate::node::leftover::{Leftover, remove_tree};
use serde_json::json;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the encoder may say nothing; it prints a line for each frame (guess, as for a stalled render).
const SILENCE: Duration = Duration::from_secs(600);
/// Most boxes of an MP4 that are looked at (guess; Blender writes four).
const BOXES_MAX: usize = 1000;

/// Why there is no video.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No images.
    #[error("there are no frames to make a video of")]
    NoFrames,
    /// The process could not be started.
    #[error("Blender cannot be started to encode the video")]
    Start(#[source] io::Error),
    /// It failed.
    #[error("Blender {version} could not encode the video: {message}; installing ffmpeg is the better way")]
    Failed {
        /// Its version.
        version: String,
        /// Why, for a person.
        message: String,
    },
    /// It cannot be put in place.
    #[error("the video cannot be written to {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Encodes `frames`, images of one size in order, at `rate` into the h264 MP4 `out`, which appears whole or not at all.
/// Odd sides lose a pixel, as the format wants. The frames must have been checked; `work_dir` holds the driver script.
/// When the future is dropped Blender is killed.
pub async fn encode_with_blender(
    renderer: &Renderer,
    frames: &[PathBuf],
    rate: FrameRate,
    out: &Path,
    work_dir: &Path,
) -> Result<(), EncodeError> {
    if frames.is_empty() {
        return Err(EncodeError::NoFrames);
    }
    let cannot = |source| EncodeError::Write { path: out.to_path_buf(), source };
    let text = |path: &Path| {
        let path = std::path::absolute(path)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not UTF-8", path.display()));
        path.to_str().map(str::to_string).ok_or_else(wrong)
    };
    let frames = frames.iter().map(|frame| text(frame)).collect::<io::Result<Vec<_>>>().map_err(EncodeError::Start)?;
    let out = std::path::absolute(out).map_err(cannot)?;
    // Blender would take a `#` of the name for frame numbers.
    let name = blake3::hash(out.as_os_str().as_encoded_bytes()).to_hex();
    let part = out.with_file_name(OsString::from(format!(".swarm-{}.part.mp4", &name[..16])));
    // In a sandbox it may write to a folder of its own, beside the video and so on the same disk.
    let folder = Folder(part.with_extension("folder"));
    remove_tree(&folder.0).map_err(cannot)?;
    let part = Leftover(if renderer.sandbox.is_some() { folder.0.join("video.mp4") } else { part });
    let part_text = text(&part.0).map_err(cannot)?;
    let cell = match &renderer.sandbox {
        None => None,
        Some(sandbox) => {
            std::fs::create_dir(&folder.0).map_err(cannot)?;
            let (reads, writes) = (sandbox.shown_for(&frames), vec![folder.0.clone()]);
            let disk = Disk { reads, writes, blends: Vec::new() };
            let work_dir = std::path::absolute(work_dir).map_err(EncodeError::Start)?;
            Some(Cell::new(sandbox, renderer, &disk, None, &work_dir).map_err(EncodeError::Start)?)
        }
    };
    let started = Child::start(&renderer.path, renderer.kind, Mode::Encode, None, None, work_dir, cell.as_ref());
    let mut child = started.await.map_err(EncodeError::Start)?;
    let base = f64::from(rate.base_millionths) / 1e6;
    let config = json!({ "frames": frames, "fps": rate.fps, "base": base, "out": part_text });
    // If it is gone or hangs, what follows says so.
    let _ = tokio::time::timeout(SILENCE, child.send(&config)).await;
    let mut log = Log::default();
    let result = loop {
        match tokio::time::timeout(SILENCE, child.next()).await {
            Ok(Event::Answer(answer)) if answer["event"] == "opening" => log.forgive(),
            Ok(Event::Answer(answer)) if answer["event"] == "encoded" => break Ok(()),
            Ok(Event::Answer(answer)) => break Err(answer["message"].as_str().unwrap_or("it refused").to_string()),
            Ok(Event::Line(line)) => drop(log.push(line)),
            Ok(Event::Gone(gone)) => break Err(format!("it {gone}")),
            Err(_) => break Err(format!("it said nothing for {} seconds", SILENCE.as_secs())),
        }
    };
    child.kill().await;
    let result = result.and_then(|()| log.error.map_or(Ok(()), Err)).and_then(|()| check_mp4(&part.0));
    result.map_err(|message| EncodeError::Failed { version: renderer.version_text(), message })?;
    File::open(&part.0).and_then(|file| file.sync_all()).map_err(cannot)?;
    std::fs::rename(&part.0, &out).map_err(cannot)
}

/// Checks that the boxes of an MP4 (ISO 14496-12) fill the file and that its index is among them: it is written last.
fn check_mp4(path: &Path) -> Result<(), String> {
    let boxes = || -> io::Result<bool> {
        // Nobody writes there any more, but a link may have been left.
        if !path.symlink_metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let (mut at, mut has_index) = (0, false);
        for _ in 0..BOXES_MAX {
            if at == length {
                return Ok(has_index);
            }
            file.seek(SeekFrom::Start(at))?;
            let mut head = [0; 8];
            file.read_exact(&mut head)?;
            let [a, b, c, d, kind @ ..] = head;
            let mut bytes = u64::from(u32::from_be_bytes([a, b, c, d]));
            if bytes == 1 {
                let mut long = [0; 8];
                file.read_exact(&mut long)?;
                bytes = u64::from_be_bytes(long);
            }
            has_index |= &kind == b"moov";
            let end = at.checked_add(bytes).filter(|end| bytes >= 8 && *end <= length);
            at = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        Ok(false)
    };
    match boxes() {
        Ok(true) => Ok(()),
        Ok(false) => Err("the video it wrote has no index; is the disk full?".into()),
        Err(error) => Err(format!("the video it wrote is not whole ({error}); is the disk full?")),
    }
}
