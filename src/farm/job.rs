//! What a job is: a validated specification, and sets of frames.
//!
//! Text is parsed here once, into types that cannot be wrong; everything behind trusts them.

use super::id::{BlobId, NodeId};
use super::overrides::Overrides;
use super::rules::Rules;
use super::scripts::Scripts;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most units in a job (DESIGN §2).
pub const MAX_UNITS: usize = 1_000_000;
/// Most ranges in one set of frames: bounds what a peer can make us hold (guess).
pub const MAX_RANGES: usize = 10_000;

/// `first`, `first + step`, … up to and including `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrameRange {
    /// First frame.
    pub first: i32,
    /// Last frame, ≥ `first`; reached exactly.
    pub last: i32,
    /// Distance between frames, ≥ 1.
    pub step: u32,
}

impl FrameRange {
    /// How many frames.
    pub fn len(&self) -> u64 {
        ((i64::from(self.last) - i64::from(self.first)).max(0) as u64) / u64::from(self.step.max(1)) + 1
    }

    /// A range is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Its frames, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i32> + use<> {
        (i64::from(self.first)..=i64::from(self.last)).step_by(self.step.max(1) as usize).map(|frame| frame as i32)
    }
}

/// A non-empty set of frames, in ascending ranges that do not share a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameSet(Vec<FrameRange>);

/// Why a text names no frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing there.
    #[error("no frames are named; write for example 1-250, 1,5,9 or 1-100x2")]
    Empty,
    /// Not a number, or one out of range.
    #[error(
        "`{0}` in the frames is not a number between -2147483648 and 2147483647; write for example 1-250, 1,5,9 or 1-100x2"
    )]
    NotANumber(String),
    /// First after last.
    #[error("the frames {first}-{last} run backwards; write {last}-{first}")]
    Reversed {
        /// As written.
        first: i32,
        /// As written.
        last: i32,
    },
    /// A step of zero.
    #[error("the step of `{0}` is 0; it must be 1 or more")]
    ZeroStep(String),
    /// Too many.
    #[error("{0} frames are more than the {MAX_UNITS} a job may have; submit it in parts")]
    TooMany(u64),
    /// Too many separate ranges.
    #[error("{0} separate ranges of frames are more than the {MAX_RANGES} a job may have; submit it in parts")]
    TooScattered(usize),
}

impl FrameSet {
    /// One range. Errors when it is reversed or too long.
    pub fn range(first: i32, last: i32, step: u32) -> Result<Self, FrameError> {
        if last < first {
            return Err(FrameError::Reversed { first, last });
        }
        if step == 0 {
            return Err(FrameError::ZeroStep(format!("{first}-{last}x0")));
        }
        Self::from_ranges(vec![FrameRange { first, last, step }])
    }

    fn from_ranges(ranges: Vec<FrameRange>) -> Result<Self, FrameError> {
        let total: u64 = ranges.iter().map(FrameRange::len).sum();
        if total > MAX_UNITS as u64 {
            return Err(FrameError::TooMany(total));
        }
        let frames = ranges.iter().flat_map(FrameRange::iter).collect();
        let set = Self::from_frames(frames).ok_or(FrameError::Empty)?;
        if set.0.len() > MAX_RANGES { Err(FrameError::TooScattered(set.0.len())) } else { Ok(set) }
    }

    /// The set of these frames; `None` when there are none.
    pub fn from_frames(mut frames: Vec<i32>) -> Option<Self> {
        frames.sort_unstable();
        frames.dedup();
        let mut ranges: Vec<FrameRange> = Vec::new();
        for frame in frames {
            match ranges.last_mut() {
                Some(range) if range.first == range.last => {
                    // A range of one takes any step to its second frame, unless that would swallow the start of a run
                    // of another step; two adjacent ones keep it simple and exact.
                    let step = frame.abs_diff(range.first);
                    *range = FrameRange { first: range.first, last: frame, step };
                }
                Some(range) if i64::from(range.last) + i64::from(range.step) == i64::from(frame) => range.last = frame,
                _ => ranges.push(FrameRange { first: frame, last: frame, step: 1 }),
            }
        }
        (!ranges.is_empty()).then_some(Self(ranges))
    }

    /// Its frames, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i32> + '_ {
        self.0.iter().flat_map(FrameRange::iter)
    }

    /// How many frames.
    pub fn len(&self) -> usize {
        self.0.iter().map(|range| range.len() as usize).sum()
    }

    /// A set of frames is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether a frame is in it.
    pub fn contains(&self, frame: i32) -> bool {
        let at = self.0.partition_point(|range| range.last < frame);
        self.0.get(at).is_some_and(|r| r.first <= frame && frame.abs_diff(r.first) % r.step.max(1) == 0)
    }

    /// Which frame in ascending order it is, from 0 on; `None` for one that is not in the set.
    pub fn position(&self, frame: i32) -> Option<usize> {
        let at = self.0.partition_point(|range| range.last < frame);
        let range = self.0.get(at).filter(|_| self.contains(frame))?;
        let before: u64 = self.0[..at].iter().map(FrameRange::len).sum();
        Some(before as usize + (frame.abs_diff(range.first) / range.step.max(1)) as usize)
    }

    /// The frame at a place in ascending order, from 0 on.
    pub fn nth(&self, mut place: usize) -> Option<i32> {
        for range in &self.0 {
            let len = range.len() as usize;
            if place < len {
                let frame = i64::from(range.first) + place as i64 * i64::from(range.step);
                return i32::try_from(frame).ok();
            }
            place -= len;
        }
        None
    }

    /// Whether no frame is left out between the first and the last.
    pub fn is_contiguous(&self) -> bool {
        self.len() as i64 == i64::from(self.last()) - i64::from(self.first()) + 1
    }

    /// First frame.
    pub fn first(&self) -> i32 {
        self.0.first().map_or(0, |range| range.first)
    }

    /// Last frame.
    pub fn last(&self) -> i32 {
        self.0.last().map_or(0, |range| range.last)
    }

    /// Whether a set from a peer keeps the promises of this type.
    pub fn is_sound(&self) -> bool {
        let ranges_hold = self.0.iter().all(|r| {
            r.step >= 1 && r.first <= r.last && (i64::from(r.last) - i64::from(r.first)) % i64::from(r.step) == 0
        });
        let ascending = self.0.windows(2).all(|pair| pair[0].last < pair[1].first);
        let count: u64 = if ranges_hold { self.0.iter().map(FrameRange::len).sum() } else { u64::MAX };
        !self.0.is_empty() && self.0.len() <= MAX_RANGES && ascending && count <= MAX_UNITS as u64
    }
}

impl std::str::FromStr for FrameSet {
    type Err = FrameError;

    /// `1-10x3`, `1..10`, `-10--5`, lists with commas; duplicates count once.
    fn from_str(text: &str) -> Result<Self, FrameError> {
        let number = |word: &str| word.trim().parse::<i32>().map_err(|_| FrameError::NotANumber(word.trim().into()));
        let mut ranges = Vec::new();
        for item in text.split(',') {
            let item = item.trim();
            if item.is_empty() {
                return Err(FrameError::Empty);
            }
            let (span, step) = match item.split_once(['x', 'X', ':']) {
                Some((span, step)) => {
                    (span.trim(), step.trim().parse::<u32>().map_err(|_| FrameError::NotANumber(step.trim().into()))?)
                }
                None => (item, 1),
            };
            if step == 0 {
                return Err(FrameError::ZeroStep(item.into()));
            }
            // The first character may be the sign of the first number.
            let cut = span
                .find("..")
                .map(|at| (at, 2))
                .or_else(|| span.char_indices().skip(1).find(|(_, c)| *c == '-').map(|(at, _)| (at, 1)));
            let (first, last) = match cut {
                Some((at, width)) => (number(&span[..at])?, number(&span[at + width..])?),
                None => (number(span)?, number(span)?),
            };
            if last < first {
                return Err(FrameError::Reversed { first, last });
            }
            let last = first.saturating_add_unsigned(last.abs_diff(first) / step * step);
            ranges.push(FrameRange { first, last, step });
        }
        Self::from_ranges(ranges)
    }
}

impl fmt::Display for FrameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match range {
                FrameRange { first, last, .. } if first == last => write!(f, "{comma}{first}")?,
                FrameRange { first, last, step: 1 } => write!(f, "{comma}{first}-{last}")?,
                FrameRange { first, last, step } => write!(f, "{comma}{first}-{last}x{step}")?,
            }
        }
        Ok(())
    }
}

/// Release series of Blender, `major.minor`: one per job, since series differ in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Series {
    /// 4 of 4.5.
    pub major: u16,
    /// 5 of 4.5.
    pub minor: u16,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl std::str::FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.trim().split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (major, minor) = parts.ok_or(format!("`{text}` is not a release series of Blender such as 4.5"))?;
        Ok(Self { major, minor })
    }
}

/// Which compute device a job wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The best GPU backend, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// Any GPU backend, never the CPU.
    Gpu,
}

/// What one rendered frame is stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Portable Network Graphics; also what replaces a movie format.
    Png,
    /// JPEG.
    Jpeg,
    /// OpenEXR, one layer.
    Exr,
    /// OpenEXR with a layer per pass.
    ExrMultilayer,
    /// TIFF.
    Tiff,
    /// WebP.
    Webp,
}

impl ImageFormat {
    /// File name extension without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Exr | Self::ExrMultilayer => "exr",
            Self::Tiff => "tif",
            Self::Webp => "webp",
        }
    }

    /// The name Blender's `file_format` has for it.
    pub fn blender_name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Exr => "OPEN_EXR",
            Self::ExrMultilayer => "OPEN_EXR_MULTILAYER",
            Self::Tiff => "TIFF",
            Self::Webp => "WEBP",
        }
    }

    /// Bits a channel may have; those of one choice are never set.
    pub fn depths(self) -> &'static [u8] {
        match self {
            Self::Png | Self::Tiff => &[8, 16],
            Self::Exr | Self::ExrMultilayer => &[16, 32],
            Self::Jpeg | Self::Webp => &[8],
        }
    }

    /// Whether its images are light, not colours for a screen: each has a preview beside it, of which videos are made.
    pub fn has_preview(self) -> bool {
        matches!(self, Self::Exr | Self::ExrMultilayer)
    }
}

/// What is set on the scene before rendering; `None` leaves the file's own value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderSettings {
    /// Blender's name of the engine, such as `CYCLES`.
    pub engine: Option<String>,
    /// Samples per pixel.
    pub samples: Option<u32>,
    /// Width and height in pixels at 100 percent.
    pub resolution: Option<(u32, u32)>,
    /// Percentage of the resolution.
    pub percent: Option<u32>,
    /// Compute device.
    pub device: Device,
    /// First frame of simulations that are not baked: each frame after it is reached by way of all between.
    pub simulate_from: Option<i32>,
    /// Bits of each channel of the images, one of [`ImageFormat::depths`].
    pub depth: Option<u8>,
    /// Scene, camera, view layers and properties.
    pub overrides: Overrides,
    /// Whether the video has no sound, whatever the scene has.
    pub silent: bool,
    /// Python that is run. It travels in an op of its own.
    #[serde(skip)]
    pub scripts: Scripts,
}

/// Frames per second as Blender has it: `fps / base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRate {
    /// Numerator, frames.
    pub fps: u32,
    /// `fps_base` in millionths of a second.
    pub base_millionths: u32,
}

impl FrameRate {
    /// Largest part of its time by which sound may run apart from pictures: 36 ms in an hour.
    pub const SAME: f64 = 1e-5;

    /// Frames per second; not finite where the base is zero.
    pub fn per_second(self) -> f64 {
        f64::from(self.fps) * 1e6 / f64::from(self.base_millionths)
    }

    /// Whether sound that fits pictures at one of two rates fits them at the other.
    pub fn plays_as(self, other: Self) -> bool {
        (self.per_second() / other.per_second() - 1.0).abs() <= Self::SAME
    }
}

/// Where results go on the submitting machine. Only that machine reads it, and only as text for display elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Absolute directory of the frames.
    pub directory: String,
    /// File name before the frame number, `shot_` of `shot_0001.png`.
    pub prefix: String,
    /// File name between number and extension.
    pub suffix: String,
    /// Least digits of the number.
    pub digits: u8,
    /// Absolute path of the video; `None` for none.
    pub video: Option<String>,
    /// Absolute path of a ZIP file of all results; `None` for none. No part of a `Submit`:
    /// [`Op::Zip`](super::op::Op::Zip) says it.
    #[serde(skip)]
    pub zip: Option<String>,
}

impl OutputSpec {
    /// File name of one frame: `-` before the padded digits of a negative frame, as Blender has it.
    pub fn file_name(&self, frame: i32, format: ImageFormat) -> String {
        let sign = if frame < 0 { "-" } else { "" };
        let (number, digits) = (frame.unsigned_abs(), usize::from(self.digits));
        format!("{}{sign}{number:0digits$}{}.{}", self.prefix, self.suffix, format.extension())
    }
}

/// What a renderer must be able to do for a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// The scene denoises with OpenImageDenoise.
    pub denoiser: bool,
}

/// A job, as its submitter fixed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What people call it.
    pub name: String,
    /// Absolute path of the .blend on the submitting machine, for display.
    pub file: String,
    /// Login name of the person.
    pub user: String,
    /// The bundle's manifest.
    pub bundle: BlobId,
    /// Bytes of all files of the bundle.
    pub bundle_bytes: u64,
    /// Frames to render.
    pub frames: FrameSet,
    /// Release series that renders it.
    pub series: Series,
    /// Least `version * 100 + subversion` of Blender that may open the file, as stored (`305.12` is 30512).
    pub min_version: u32,
    /// Overrides.
    pub settings: RenderSettings,
    /// What renderers must be able to do.
    pub needs: Needs,
    /// Format of the frames.
    pub format: ImageFormat,
    /// Pixels of every frame: width, height.
    pub size: (u32, u32),
    /// Rate of the video.
    pub rate: FrameRate,
    /// Where results go.
    pub output: OutputSpec,
    /// 0–100, 50 unless told.
    pub priority: u8,
    /// Which machines may render it, how, and until when.
    pub rules: Rules,
    /// Drawn at random, so that the same scene submitted twice is two jobs.
    pub nonce: u64,
    /// Wall clock at submission, milliseconds since 1970; for display alone.
    pub created_ms: u64,
    /// The machine whose word this is: who submitted it, or revised it. The fold knows by whose log it is.
    #[serde(skip)]
    pub author: Option<NodeId>,
}

/// What later units of a job come from, instead of what was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// As in [`JobSpec::file`].
    pub file: String,
    /// As in [`JobSpec::bundle`].
    pub bundle: BlobId,
    /// As in [`JobSpec::bundle_bytes`].
    pub bundle_bytes: u64,
    /// As in [`JobSpec::min_version`].
    pub min_version: u32,
    /// As in [`JobSpec::settings`].
    pub settings: RenderSettings,
    /// As in [`JobSpec::needs`].
    pub needs: Needs,
}

impl Revision {
    /// The job as its revised units see it: frames keep their size, format, names and place, and so does the video.
    pub fn of(&self, spec: &JobSpec, author: NodeId) -> JobSpec {
        let Self { file, bundle, bundle_bytes, min_version, settings, needs } = self.clone();
        let author = Some(author);
        JobSpec { file, bundle, bundle_bytes, min_version, settings, needs, author, ..spec.clone() }
    }
}

impl JobSpec {
    /// A job of which nothing special is asked: PNGs of 1920×1080 pixels, 24 a second, by any Blender of the series.
    pub fn new(bundle: BlobId, frames: FrameSet, series: Series) -> Self {
        Self {
            name: "shot".into(),
            file: "/shot.blend".into(),
            user: "user".into(),
            bundle,
            bundle_bytes: 0,
            frames,
            series,
            min_version: 0,
            settings: RenderSettings::default(),
            needs: Needs::default(),
            format: ImageFormat::Png,
            size: (1920, 1080),
            rate: FrameRate { fps: 24, base_millionths: 1_000_000 },
            output: OutputSpec {
                directory: "/shot-frames".into(),
                prefix: "shot_".into(),
                suffix: String::new(),
                digits: 4,
                video: Some("/shot.mp4".into()),
                zip: None,
            },
            priority: 50,
            rules: Rules::default(),
            nonce: 0,
            created_ms: 0,
            author: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[i32]) {
        let set: FrameSet = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(set.iter().collect::<Vec<_>>(), expected, "{text}");
        assert_eq!(set.len(), expected.len());
        assert!(set.is_sound());
        for (place, frame) in expected.iter().enumerate() {
            assert_eq!((set.position(*frame), set.nth(place)), (Some(place), Some(*frame)));
        }
        assert_eq!(set.nth(expected.len()), None);
        assert_eq!(
            set.to_string().parse::<FrameSet>().as_ref().map(|s| s.iter().collect::<Vec<_>>()),
            Ok(expected.to_vec())
        );
    }

    #[test]
    fn frames_are_written_as_lists_ranges_steps_and_negatives() {
        check("7", &[7]);
        check("1-4", &[1, 2, 3, 4]);
        check("1..4", &[1, 2, 3, 4]);
        check("1-10x3", &[1, 4, 7, 10]);
        check("1-9x3", &[1, 4, 7]);
        check("-10--8", &[-10, -9, -8]);
        check("-2..1", &[-2, -1, 0, 1]);
        check("5,1-3,2", &[1, 2, 3, 5]);
        check(" 1 - 2 , 4 ", &[1, 2, 4]);
        check("1,3,4,5,9", &[1, 3, 4, 5, 9]);
        check("2147483647", &[i32::MAX]);
    }

    #[test]
    fn what_names_no_frames_is_an_error_that_says_what_to_write() {
        let error = |text: &str| text.parse::<FrameSet>().unwrap_err();
        assert_eq!(error("10-1"), FrameError::Reversed { first: 10, last: 1 });
        assert_eq!(error(""), FrameError::Empty);
        assert_eq!(error("1,,2"), FrameError::Empty);
        assert_eq!(error("abc"), FrameError::NotANumber("abc".into()));
        assert_eq!(error("1-"), FrameError::NotANumber(String::new()));
        assert_eq!(error("1-5x0"), FrameError::ZeroStep("1-5x0".into()));
        assert_eq!(error("99999999999"), FrameError::NotANumber("99999999999".into()));
        assert!(matches!(error("-2147483648-2147483647"), FrameError::TooMany(_)));
        // Written one by one, a range is still one; squares have no common step.
        let listed = |frames: Vec<i32>| frames.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(listed((1..40_000).step_by(2).collect()).parse::<FrameSet>().unwrap().to_string(), "1-39999x2");
        let squares = listed((0..30_000).map(|n| n * n).collect());
        assert!(matches!(error(&squares), FrameError::TooScattered(15_000)));
    }

    #[test]
    fn a_frame_is_named_as_blender_names_it() {
        let output = OutputSpec {
            directory: "/o".into(),
            prefix: "shot_".into(),
            suffix: String::new(),
            digits: 4,
            video: None,
            zip: None,
        };
        assert_eq!(output.file_name(7, ImageFormat::Png), "shot_0007.png");
        assert_eq!(output.file_name(-7, ImageFormat::Jpeg), "shot_-0007.jpg");
        assert_eq!(output.file_name(123_456, ImageFormat::Exr), "shot_123456.exr");
    }

    #[test]
    fn no_text_makes_a_parser_of_frames_panic() {
        let seeds = ["1-10x3,20", "-10--5", "1..4", "2147483647", "1-1000000"].map(|text| text.as_bytes().to_vec());
        crate::fuzz::fuzz("frames", crate::fuzz::ROUNDS, seeds.into(), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let set = text.parse::<FrameSet>();
            assert!(set.as_ref().is_ok_and(FrameSet::is_sound) || set.is_err());
            (set.map(drop).map_err(|error| std::mem::discriminant(&error)), text.parse::<Series>().is_ok())
        });
    }
}
