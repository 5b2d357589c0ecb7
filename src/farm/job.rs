//! What a job is: a validated specification.
//!
//! Text is parsed here once, into types that cannot be wrong; everything behind trusts them.

use super::ability::Abilities;
pub use super::device::Device;
use super::frames::FrameSet;
use super::id::{BlobId, NodeId};
use super::op::{Op, Output, OutputRole};
use super::overrides::Overrides;
use super::rules::Rules;
use super::scripts::Scripts;
use super::views::{Views, is_view_suffix};
use crate::wire::is_file_output;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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
    /// Compute device. One backend of GPUs by name travels in an op of its own.
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

impl RenderSettings {
    /// The least op version a machine must understand to render as they say.
    pub fn op_version(&self) -> u16 {
        self.scripts.op_version().max(self.device.op_version())
    }

    /// Takes out what travels in ops of its own, which come right before that of the job or the revision.
    pub(super) fn take_words(&mut self) -> Vec<Op> {
        let scripts = std::mem::take(&mut self.scripts);
        let device = self.device.word();
        if device.is_some() {
            self.device = Device::Gpu;
        }
        let scripts = (!scripts.is_none()).then_some(Op::Scripts { scripts });
        scripts.into_iter().chain(device).collect()
    }
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
    /// [`Op::Zip`] says it.
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

    /// What the name `path` has between the frame's own and the extension. `None` if it is called as no image of the frame.
    fn suffix_of<'a>(&self, frame: i32, format: ImageFormat, path: &'a str) -> Option<&'a str> {
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
}

/// Whose colours the frames of a job are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Colours {
    /// The renderer's own, which may have been replaced on some machine.
    Renderer,
    /// The job's: its bundle brings them.
    Job,
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
    pub needs: Abilities,
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
    /// its own says so, [`Op::Reuse`].
    #[serde(skip)]
    pub reuse: Option<Colours>,
    /// Which files a frame is. An op of its own declares them, [`Op::Views`].
    #[serde(skip)]
    pub views: Views,
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
    pub needs: Abilities,
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
            needs: Abilities::NONE,
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
            views: Views::default(),
            author: None,
            mixed_with: None,
        }
    }

    /// The suffix of the view that a result of a frame calls `path`; empty for a frame that is one file. `None` if the job has
    /// no such image.
    pub fn view_of<'a>(&self, frame: i32, path: &'a str) -> Option<&'a str> {
        self.output.suffix_of(frame, self.format, path).filter(|suffix| self.views.has(suffix))
    }

    /// Whether the job has such a file of a frame. The image of a frame goes under a name of the job's own whatever it is
    /// called, and preview and sound under none.
    pub fn has_file(&self, frame: i32, output: &Output) -> bool {
        match output.role {
            OutputRole::Image | OutputRole::Preview | OutputRole::Sound => true,
            OutputRole::Aux => is_file_output(&output.path) || self.view_of(frame, &output.path).is_some(),
        }
    }

    /// The view that the image of a result shows: the first, unless its name tells of another.
    pub fn shown<'a>(&'a self, frame: i32, outputs: &'a [Output]) -> &'a str {
        let image = outputs.iter().find(|output| output.role == OutputRole::Image);
        image.and_then(|image| self.view_of(frame, &image.path)).unwrap_or(self.views.first())
    }

    /// Whether images of its frames go where those of another job go that is collected to `there`, under the same names.
    pub fn meets(&self, other: &Self, there: &OutputSpec) -> bool {
        let names = |spec: &Self, to: &OutputSpec| -> BTreeSet<String> {
            let views = spec.views.suffixes().iter();
            views.map(|view| to.view_name(self.frames.first(), spec.format, view)).collect()
        };
        self.output.directory == there.directory
            && !names(self, &self.output).is_disjoint(&names(other, there))
            && self.frames.iter().any(|frame| other.frames.contains(frame))
    }

    /// The same outputs of a frame as they are called here, which were called as in `from`, a job of the same views.
    pub fn renamed<'a>(
        &'a self,
        from: &'a Self,
        frame: i32,
        outputs: &'a [Output],
    ) -> impl Iterator<Item = Output> + 'a {
        let (first, format) = (from.shown(frame, outputs), self.format);
        outputs.iter().map(move |output| {
            let other = || Some(self.output.view_name(frame, format, from.view_of(frame, &output.path)?));
            let path = self.output.path_of(frame, format, first, output.role).or_else(other);
            Output { path: path.unwrap_or_else(|| output.path.clone()), ..output.clone() }
        })
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
        let of = |views: &[&str]| {
            let views = views.iter().map(|view| (*view).to_owned()).collect::<Vec<_>>();
            JobSpec { views: Views::of(&views).expect("views"), format: ImageFormat::Exr, ..spec.clone() }
        };
        let output = |(path, role): &(&str, OutputRole)| {
            let (path, blob) = ((*path).to_owned(), BlobId([1; 32]));
            Output { path, blob, bytes: 1, role: *role }
        };
        let renamed = |there: &JobSpec, paths: &[(&str, OutputRole)]| -> Vec<String> {
            let outputs: Vec<Output> = paths.iter().map(output).collect();
            let here = OutputSpec { prefix: "wide_".into(), ..there.output.clone() };
            let here = JobSpec { output: here, ..there.clone() };
            here.renamed(there, 7, &outputs).map(|output| output.path).collect()
        };
        let (mono, stereo) = (of(&[""]), of(&["_L", "_R"]));
        let beside = ("file-outputs/z0007.exr", OutputRole::Aux);
        let preview = ("shot_0007_L.exr.preview.jpg", OutputRole::Preview);
        let views = [("shot_0007_L.exr", OutputRole::Image), ("shot_0007_R.exr", OutputRole::Aux), preview, beside];
        let called = ["wide_0007_L.exr", "wide_0007_R.exr", "wide_0007_L.exr.preview.jpg", beside.0];
        assert_eq!(renamed(&stereo, &views), called);
        let sound = ("shot_0007.exr.sound.flac", OutputRole::Sound);
        let one = [("shot_0007.exr", OutputRole::Image), sound, beside];
        assert_eq!(renamed(&mono, &one), ["wide_0007.exr", "wide_0007.exr.sound.flac", beside.0]);
        // An older build, or another machine, may call an image anything.
        assert_eq!(renamed(&mono, &[("../x", OutputRole::Image)]), ["wide_0007.exr"]);
        assert_eq!(renamed(&stereo, &[("shot_0007.exr", OutputRole::Image)]), ["wide_0007_L.exr"]);
    }

    #[test]
    fn a_view_is_told_from_its_name_and_leads_nowhere_else() {
        let spec =
            JobSpec::new(BlobId([1; 32]), FrameSet::range(7, 7, 1).expect("a frame"), Series { major: 4, minor: 5 });
        let output = OutputSpec { suffix: "_v2".into(), ..spec.output };
        for view in ["", "_L", ".rechts", "_ä.b"] {
            let name = output.view_name(7, ImageFormat::Png, view);
            assert_eq!(name, format!("shot_0007_v2{view}.png"));
            assert_eq!(output.suffix_of(7, ImageFormat::Png, &name), Some(view));
        }
        let long = format!("shot_0007_v2{}.png", "n".repeat(64));
        let others =
            ["", "7.png", "shot_0008_v2_L.png", "shot_0007_v21.png", "shot_0007_v2_L.exr", "shot_0007_v2png", &long];
        let hostile = ["shot_0007_v2/../../x.png", "shot_0007_v2\\x.png", "shot_0007_v2:x.png", "shot_0007_v2\n.png"];
        for path in others.into_iter().chain(hostile) {
            assert_eq!(output.suffix_of(7, ImageFormat::Png, path), None, "{path:?}");
        }
    }

    #[test]
    fn jobs_meet_where_one_image_of_a_frame_they_share_has_one_name() {
        let frames = |first, last| FrameSet::range(first, last, 1).expect("frames");
        let spec = JobSpec::new(BlobId([1; 32]), frames(1, 9), Series { major: 4, minor: 5 });
        let of = |prefix: &str, views: &[&str]| {
            let views = views.iter().map(|view| (*view).to_owned()).collect::<Vec<_>>();
            let output = OutputSpec { prefix: prefix.into(), ..spec.output.clone() };
            JobSpec { views: Views::of(&views).expect("views"), output, ..spec.clone() }
        };
        let (mono, stereo) = (of("shot_", &[""]), of("shot_", &["_L", "_R"]));
        let meet = |one: &JobSpec, other: &JobSpec| {
            let both = (one.meets(other, &other.output), other.meets(one, &one.output));
            assert_eq!(both.0, both.1);
            both.0
        };
        assert!(meet(&mono, &mono) && meet(&stereo, &of("shot_", &["_C", "_R"])));
        assert!(!meet(&mono, &stereo), "shot_0001.png, and shot_0001_L.png with shot_0001_R.png");
        assert!(meet(
            &stereo,
            &JobSpec { output: OutputSpec { suffix: "_R".into(), ..mono.output.clone() }, ..mono.clone() }
        ));
        assert!(!meet(&stereo, &of("cut_", &["_L", "_R"])));
        assert!(!meet(&stereo, &JobSpec { format: ImageFormat::Exr, ..stereo.clone() }));
        assert!(!meet(&stereo, &JobSpec { frames: frames(10, 11), ..stereo.clone() }));
        let elsewhere = OutputSpec { directory: "/elsewhere".into(), ..stereo.output.clone() };
        assert!(!stereo.meets(&stereo, &elsewhere));
    }

    #[test]
    fn a_job_has_the_images_it_declared_and_no_others() {
        let spec =
            JobSpec::new(BlobId([1; 32]), FrameSet::range(7, 7, 1).expect("a frame"), Series { major: 4, minor: 5 });
        let stereo = JobSpec { views: Views::of(&["_L".into(), "_R".into()]).expect("views"), ..spec.clone() };
        let has = |spec: &JobSpec, path: &str| {
            let output = Output { path: path.into(), blob: BlobId([1; 32]), bytes: 1, role: OutputRole::Aux };
            spec.has_file(7, &output)
        };
        for (path, in_mono, in_stereo) in [
            ("shot_0007.png", true, false),
            ("shot_0007_R.png", false, true),
            ("shot_0007-plate.png", false, false),
            ("shot_0007_r.png", false, false),
            ("shot_0008_R.png", false, false),
            ("file-outputs/z0007.exr", true, true),
            ("notes.txt", false, false),
        ] {
            assert_eq!((has(&spec, path), has(&stereo, path)), (in_mono, in_stereo), "{path}");
        }
    }
}
