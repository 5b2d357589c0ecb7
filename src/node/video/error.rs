//! What can go wrong with a video, in words for the person who waits for it.

use crate::node::cause::is_full;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no video.
#[derive(Debug, thiserror::Error)]
pub enum VideoError {
    /// No ffmpeg.
    #[error(
        "ffmpeg is not installed; install it (`apt-get install ffmpeg`, `brew install ffmpeg`, `winget install ffmpeg`) or name it in SWARM_FFMPEG"
    )]
    NoFfmpeg,
    /// One that cannot do what is needed.
    #[error("{} cannot encode H.264: it was built without libx264; install a full ffmpeg or name one in SWARM_FFMPEG", program.display())]
    NoX264 {
        /// The ffmpeg found.
        program: PathBuf,
    },
    /// It is there and does not run.
    #[error("{} could not be started; reinstall ffmpeg or name another in SWARM_FFMPEG", program.display())]
    CannotStart {
        /// The ffmpeg found.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// ffmpeg failed.
    #[error("ffmpeg failed while {doing}: {detail}")]
    Ffmpeg {
        /// The directory it wrote to.
        folder: PathBuf,
        /// What it was to do.
        doing: String,
        /// What it printed last.
        detail: String,
    },
    /// ffmpeg hung.
    #[error(
        "ffmpeg was stopped because it took far too long {doing}; look at the load of this machine, then collect the job again"
    )]
    Deadline {
        /// What it was to do.
        doing: String,
    },
    /// Nothing to show.
    #[error("no frame of the job was rendered, so there is no video")]
    NoFrames,
    /// A specification that names a frame twice.
    #[error("frame {0} is named twice in the frames of the video")]
    Twice(i32),
    /// A rate of zero or nothing.
    #[error("{fps} frames in {base_millionths} millionths of a second is no rate; give one with --fps")]
    Rate {
        /// Of the specification.
        fps: u32,
        /// Of the specification.
        base_millionths: u32,
    },
    /// A frame of no interest.
    #[error("frame {0} is not one of the video's frames")]
    UnknownFrame(i32),
    /// Finished too early.
    #[error("frame {first} and {} others have neither come nor failed; the video waits for them", count - 1)]
    Absent {
        /// The first of them.
        first: i32,
        /// How many.
        count: usize,
    },
    /// The image of a frame cannot be read.
    #[error("the image of frame {frame}, {}, cannot be read; collect the job again", path.display())]
    FrameFile {
        /// The frame.
        frame: i32,
        /// Its image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not an image that can be put into a video.
    #[error("the image of frame {frame}, {}, is not a PNG, JPEG, TIFF, WebP or OpenEXR image; render the job with --format png for a video", path.display())]
    NotAnImage {
        /// The frame.
        frame: i32,
        /// Its image.
        path: PathBuf,
    },
    /// Another format than the frames before.
    #[error("frame {frame} is a .{found} image and the others are .{expected}; requeue the frame, or remove {} and collect the job again", path.display())]
    Format {
        /// The frame.
        frame: i32,
        /// Its image.
        path: PathBuf,
        /// Extension of its format.
        found: &'static str,
        /// Extension of the others'.
        expected: &'static str,
    },
    /// Another size than the video's.
    #[error("frame {frame} is {}×{} pixels and the video {}×{}; requeue the frame, or remove {} and collect the job again", found.0, found.1, expected.0, expected.1, path.display())]
    Size {
        /// The frame.
        frame: i32,
        /// Its image.
        path: PathBuf,
        /// Width and height, pixels.
        found: (u32, u32),
        /// Width and height, pixels.
        expected: (u32, u32),
    },
    /// The encoded pieces are not what they should be.
    #[error("the encoded piece {} is damaged and was thrown away; collect the job again", path.display())]
    Segment {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The disk.
    #[error("{} could not be written; make room or give another place with --video", path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The encoder has stopped; the reason was given before.
    #[error("the video's encoder has stopped; collect the job again")]
    Stopped,
}

/// What ffmpeg prints where the system says `ENOSPC` and `EDQUOT`, whatever the user's language.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

impl VideoError {
    /// The file or folder whose disk is full, if that is what went wrong.
    pub fn full_disk(&self) -> Option<&Path> {
        match self {
            Self::Io { path, source } | Self::Segment { path, source } if is_full(source) => Some(path),
            Self::Ffmpeg { folder, detail, .. } if FULL.iter().any(|words| detail.contains(words)) => Some(folder),
            _ => None,
        }
    }

    /// Why no ffmpeg here can serve any video, if that is what went wrong.
    pub fn no_ffmpeg(&self) -> Option<String> {
        match self {
            Self::NoFfmpeg => Some("ffmpeg is not installed".to_owned()),
            Self::NoX264 { program } => Some(format!("{} was built without libx264", program.display())),
            Self::CannotStart { program, .. } => Some(format!("{} could not be started", program.display())),
            _ => None,
        }
    }
}
