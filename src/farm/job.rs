//! What a job is: a validated specification.
//!
//! Text is parsed here once, into types that cannot be wrong; everything behind trusts them.

use super::frames::FrameSet;
use super::id::{BlobId, NodeId};
use super::op::{Output, OutputRole};
use super::overrides::Overrides;
use super::rules::Rules;
use super::scripts::Scripts;
use serde::{Deserialize, Serialize};
use std::fmt;

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
        self.view_name(frame, format, "")
    }

    /// File name of one view of a frame whose views have a file each: with the view's suffix before the extension, as
    /// Blender has it.
    pub fn view_name(&self, frame: i32, format: ImageFormat, view: &str) -> String {
        format!("{}{view}.{}", self.stem(frame), format.extension())
    }

    /// The suffix of the view that a result calls `path`; empty for a frame that is one file. `None` if it is called as no
    /// image of the frame.
    pub fn view_of<'a>(&self, frame: i32, format: ImageFormat, path: &'a str) -> Option<&'a str> {
        let view = path.strip_prefix(self.stem(frame).as_str())?.strip_suffix(format.extension())?.strip_suffix('.')?;
        is_view_suffix(view).then_some(view)
    }

    fn stem(&self, frame: i32) -> String {
        let sign = if frame < 0 { "-" } else { "" };
        let (number, digits) = (frame.unsigned_abs(), usize::from(self.digits));
        format!("{}{sign}{number:0digits$}{}", self.prefix, self.suffix)
    }

    /// Path of an output of a frame whose first view has the suffix `view`, relative to the directory; `None` for those that
    /// the scene names.
    pub fn path_of(&self, frame: i32, format: ImageFormat, view: &str, role: OutputRole) -> Option<String> {
        let name = self.view_name(frame, format, view);
        match role {
            OutputRole::Image => Some(name),
            OutputRole::Preview => Some(format!("{name}.preview.jpg")),
            OutputRole::Sound => Some(format!("{name}.sound.flac")),
            OutputRole::Aux => None,
        }
    }

    /// The same outputs of a frame as they are called here, which were called as `from` says.
    pub fn renamed<'a>(
        &'a self,
        from: &'a Self,
        frame: i32,
        format: ImageFormat,
        outputs: &'a [Output],
    ) -> impl Iterator<Item = Output> + 'a {
        let image = outputs.iter().find(|output| output.role == OutputRole::Image);
        let first = image.and_then(|image| from.view_of(frame, format, &image.path)).unwrap_or_default();
        outputs.iter().map(move |output| {
            let other = || Some(self.view_name(frame, format, from.view_of(frame, format, &output.path)?));
            let path = self.path_of(frame, format, first, output.role).or_else(other);
            Output { path: path.unwrap_or_else(|| output.path.clone()), ..output.clone() }
        })
    }
}

/// Whose colours the frames of a job are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Colours {
    /// The renderer's own, which may have been replaced on some machine.
    Renderer,
    /// The job's: its bundle brings them.
    Job,
}

/// Longest suffix of a view, bytes: Blender's own limit.
const MAX_VIEW_SUFFIX_BYTES: usize = 63;

/// Most views of a frame that have a file each (guess: stereo has two, a rig of cameras for a light field some dozens).
pub const MAX_VIEWS: usize = 64;

/// Whether a view may have this suffix in file names, on every system, behind the number of a frame: with a digit first, it
/// could be called as another frame is. None at all is one too.
pub fn is_view_suffix(suffix: &str) -> bool {
    let is_odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    suffix.len() <= MAX_VIEW_SUFFIX_BYTES
        && !suffix.contains(is_odd)
        && !suffix.starts_with(|c: char| c.is_ascii_digit())
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
    /// Whether frames that another job has are taken over instead of rendered, and then whose colours they are in. An op of
    /// its own says so, [`Op::Reuse`](super::op::Op::Reuse).
    #[serde(skip)]
    pub reuse: Option<Colours>,
    /// The machine whose word this is: who submitted it, or revised it. The fold knows by whose log it is.
    #[serde(skip)]
    pub author: Option<NodeId>,
    /// The frame whose renderer mixes the sound, if that is not the first: those before it were there. The fold knows.
    #[serde(skip)]
    pub mixed_with: Option<i32>,
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
            reuse: None,
            author: None,
            mixed_with: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn outputs_that_another_job_has_are_called_as_the_own_ones() {
        let spec =
            JobSpec::new(BlobId([1; 32]), FrameSet::range(7, 7, 1).expect("a frame"), Series { major: 4, minor: 5 });
        let here = OutputSpec { prefix: "wide_".into(), ..spec.output.clone() };
        let output = |(path, role): &(&str, OutputRole)| {
            let (path, blob) = ((*path).to_owned(), BlobId([1; 32]));
            Output { path, blob, bytes: 1, role: *role }
        };
        let renamed = |paths: &[(&str, OutputRole)]| -> Vec<String> {
            let outputs: Vec<Output> = paths.iter().map(output).collect();
            here.renamed(&spec.output, 7, ImageFormat::Exr, &outputs).map(|output| output.path).collect()
        };
        let beside = ("file-outputs/z0007.exr", OutputRole::Aux);
        let preview = ("shot_0007_L.exr.preview.jpg", OutputRole::Preview);
        let views = [("shot_0007_L.exr", OutputRole::Image), ("shot_0007_R.exr", OutputRole::Aux), preview, beside];
        let called = ["wide_0007_L.exr", "wide_0007_R.exr", "wide_0007_L.exr.preview.jpg", beside.0];
        assert_eq!(renamed(&views), called);
        let sound = ("shot_0007.exr.sound.flac", OutputRole::Sound);
        let one = [("shot_0007.exr", OutputRole::Image), sound, beside];
        assert_eq!(renamed(&one), ["wide_0007.exr", "wide_0007.exr.sound.flac", beside.0]);
        // An older build, or another machine, may call an image anything.
        assert_eq!(renamed(&[("../x", OutputRole::Image)]), ["wide_0007.exr"]);
    }

    #[test]
    fn a_view_is_told_from_its_name_and_leads_nowhere_else() {
        let spec =
            JobSpec::new(BlobId([1; 32]), FrameSet::range(7, 7, 1).expect("a frame"), Series { major: 4, minor: 5 });
        let output = OutputSpec { suffix: "_v2".into(), ..spec.output };
        for view in ["", "_L", ".rechts", "_ä.b"] {
            let name = output.view_name(7, ImageFormat::Png, view);
            assert_eq!(name, format!("shot_0007_v2{view}.png"));
            assert_eq!(output.view_of(7, ImageFormat::Png, &name), Some(view));
        }
        let long = format!("shot_0007_v2{}.png", "n".repeat(64));
        let others =
            ["", "7.png", "shot_0008_v2_L.png", "shot_0007_v21.png", "shot_0007_v2_L.exr", "shot_0007_v2png", &long];
        let hostile = ["shot_0007_v2/../../x.png", "shot_0007_v2\\x.png", "shot_0007_v2:x.png", "shot_0007_v2\n.png"];
        for path in others.into_iter().chain(hostile) {
            assert_eq!(output.view_of(7, ImageFormat::Png, path), None, "{path:?}");
        }
    }
}
