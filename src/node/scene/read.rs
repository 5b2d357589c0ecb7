//! What a scene asks for: frames, size, rate, engine, camera, output, denoising.
//!
//! Read from the fields of the current scene, or of another that a job chooses, with Blender's defaults where the file
//! stores nothing. Nothing is decided
//! here: whether a missing camera is an error, say, is the caller's to tell.

use super::dna::{Blend, Record};
use super::refs::name_of;
use super::views::{SceneViews, ViewFiles};
use super::{SceneError, listed};
use crate::farm::job::{FrameRate, ImageFormat, Series};
use crate::farm::overrides::{DENOISES, OSL, Overrides};
use std::path::Path;

/// `RenderData.mode`: render a region only.
const MODE_BORDER: i64 = 1 << 9;
/// `RenderData.mode`: and make the image as small as the region.
const MODE_CROP: i64 = 1 << 11;
/// `RenderData.scemode`: render the sequencer.
const SCEMODE_SEQUENCER: i64 = 1 << 0;
/// `RenderData.scemode`: run the compositor.
const SCEMODE_COMPOSITOR: i64 = 1 << 6;
/// `bNode.type` of Render Layers.
const NODE_RENDER_LAYERS: i64 = 221;
/// `Sequence.type` of sounds, which show nothing.
const STRIP_SOUND: i64 = 4;
/// `IDProperty.type`.
const PROPERTY_INT: i64 = 1;
const PROPERTY_GROUP: i64 = 6;
const PROPERTY_BOOL: i64 = 10;
/// Name of the group that holds the settings of Cycles.
const CYCLES: &[u8] = b"cycles";

/// What a scene of a .blend asks for, with what a job chooses instead.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneInfo {
    /// Release series that saved the file.
    pub version: Series,
    /// Subversion that saved it.
    pub subversion: u32,
    /// Least `version * 100 + subversion` that may open it, 0 if it does not say.
    pub min_version: u32,
    /// The engine as stored, such as `CYCLES`, or `BLENDER_RENDER` in old files.
    pub engine: String,
    /// Name of the scene.
    pub scene: String,
    /// Names of its view layers.
    pub view_layers: Vec<String>,
    /// First frame.
    pub frame_start: i32,
    /// Last frame.
    pub frame_end: i32,
    /// Distance between frames, at least 1.
    pub frame_step: u32,
    /// Frames per second.
    pub rate: FrameRate,
    /// Width and height in pixels at 100 percent.
    pub resolution: (u32, u32),
    /// Percentage of that.
    pub percent: u32,
    /// Name of the camera frames are rendered through: the one chosen, the scene's, or one a marker binds. `None` if none is.
    pub camera: Option<String>,
    /// Whether no camera is needed: the sequencer or the compositor makes the image without.
    pub camera_optional: bool,
    /// Format of the frames; PNG where the scene has a movie format or one this program does not check.
    pub format: ImageFormat,
    /// Blender's name of the format stored, if `format` stands in for it, such as `FFMPEG`.
    pub replaced_format: Option<&'static str>,
    /// Whether the format stored is that of a movie.
    pub movie_format: bool,
    /// Bits of each channel of the stored format, if it says so.
    pub depth: Option<u8>,
    /// Samples per pixel of Cycles; `None` for other engines.
    pub samples: Option<u32>,
    /// Whether Cycles, if it is the engine, denoises the image.
    pub denoising: bool,
    /// Whether Cycles, if it is the engine, runs shaders in the Open Shading Language.
    pub osl: bool,
    /// Whether the compositor runs.
    pub composites: bool,
    /// The region rendered and cropped to: left, right, bottom, top as fractions.
    pub crop: Option<[f32; 4]>,
    /// Its views, where it has several.
    pub views: Option<SceneViews>,
}

impl SceneInfo {
    /// A scene that asks for nothing special, for tests to change.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self {
            version: Series { major: 4, minor: 1 },
            subversion: 0,
            min_version: 0,
            engine: "CYCLES".into(),
            scene: "Scene".into(),
            view_layers: Vec::new(),
            frame_start: 1,
            frame_end: 1,
            frame_step: 1,
            rate: FrameRate { fps: 24, base_millionths: 1_000_000 },
            resolution: (1920, 1080),
            percent: 100,
            camera: None,
            camera_optional: false,
            format: ImageFormat::Png,
            replaced_format: None,
            movie_format: false,
            depth: None,
            samples: None,
            denoising: false,
            osl: false,
            composites: false,
            crop: None,
            views: None,
        }
    }

    /// Whether rendering needs OpenImageDenoise: with the file's own engine, or with `engine` instead.
    pub fn needs_denoiser(&self, engine: Option<&str>) -> bool {
        self.denoising && engine.unwrap_or(&self.engine) == "CYCLES"
    }

    /// Whether there is something to render through.
    pub fn has_view(&self) -> bool {
        self.camera.is_some() || self.camera_optional
    }

    /// Pixels of a frame: width, height.
    pub fn size(&self) -> (u32, u32) {
        self.size_with(None, None)
    }

    /// Pixels of an image of this format when resolution or percentage are overridden: both views of a stereo image.
    pub fn image_size(&self, format: ImageFormat, resolution: Option<(u32, u32)>, percent: Option<u32>) -> (u32, u32) {
        let (width, height) = self.size_with(resolution, percent);
        let (columns, rows) = match self.views.as_ref().map(|views| views.files_in(format)) {
            Some(ViewFiles::Stereo(columns, rows)) => (columns, rows),
            Some(ViewFiles::Apart | ViewFiles::Together) | None => (1, 1),
        };
        (width.saturating_mul(columns), height.saturating_mul(rows))
    }

    /// What the names of a frame's files end in before the extension; an empty text where it is one file.
    pub fn suffixes(&self, format: ImageFormat) -> Vec<String> {
        self.views.as_ref().map_or_else(|| vec![String::new()], |views| views.suffixes(format))
    }

    /// The same by what belongs together: a frame has the files of one of these.
    pub fn file_sets(&self, format: ImageFormat) -> Vec<Vec<String>> {
        self.views.as_ref().map_or_else(|| vec![vec![String::new()]], |views| views.sets(format))
    }

    /// Pixels of a frame when resolution or percentage are overridden. Rounds as Blender does: down.
    pub fn size_with(&self, resolution: Option<(u32, u32)>, percent: Option<u32>) -> (u32, u32) {
        let ((width, height), percent) = (resolution.unwrap_or(self.resolution), percent.unwrap_or(self.percent));
        let scaled = |side: u32| u32::try_from(u64::from(side) * u64::from(percent) / 100).unwrap_or(u32::MAX);
        let (width, height) = (scaled(width), scaled(height));
        let Some([left, right, bottom, top]) = self.crop else { return (width, height) };
        // Single precision, as Blender computes it.
        let side = |from: f32, to: f32, all: u32| ((to * all as f32) as u32).saturating_sub((from * all as f32) as u32);
        (side(left, right, width), side(bottom, top, height))
    }
}

/// Reads the scene of the .blend at `path` that `overrides` choose, else the current one. Whether it has their camera and
/// view layers is the caller's to see.
pub fn read(path: &Path, overrides: &Overrides) -> Result<SceneInfo, SceneError> {
    let blend = Blend::open(path)?;
    let damaged = |what| SceneError::Truncated { path: path.into(), what };
    let global = global(&blend);
    let Some(index) = chosen_scene(&blend, overrides.scene.as_deref()) else {
        let there: Vec<String> = blend.coded(*b"SC\0\0").map(|(index, _)| name_of(&blend, index)).collect();
        return Err(match &overrides.scene {
            Some(wanted) if !there.is_empty() => {
                SceneError::NoScene { path: path.into(), wanted: wanted.clone(), there: listed(&there) }
            }
            _ => SceneError::Unsupported {
                path: path.into(),
                what: "it has no scene (a file of assets, perhaps); open it in Blender, make a scene and save".into(),
            },
        });
    };
    let scene = blend.record(index).ok_or_else(|| damaged("its scene makes no sense"))?;
    let info = info(&blend, global, index, scene).ok_or_else(|| damaged("its scene lacks what every scene has"))?;
    let camera = overrides.camera.clone().or(info.camera);
    let denoising = overrides.switched(&info.scene, DENOISES).unwrap_or(info.denoising);
    let osl = overrides.switched(&info.scene, OSL).unwrap_or(info.osl);
    Ok(SceneInfo { camera, denoising, osl, ..info })
}

fn global(blend: &Blend) -> Option<Record<'_>> {
    blend.coded(*b"GLOB").next().and_then(|(index, _)| blend.record(index))
}

fn number(record: Option<Record<'_>>, field: &str) -> u32 {
    record.and_then(|record| record.int(field)).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// Least `version * 100 + subversion` that may open a .blend, 0 if it does not say. The series that saved it always may,
/// whatever a damaged file says.
pub(super) fn least_version(blend: &Blend) -> u32 {
    let global = global(blend);
    let least = number(global, "minversion").saturating_mul(100).saturating_add(number(global, "minsubversion"));
    let saved = blend.version.saturating_mul(100);
    if least / 100 > blend.version { saved } else { least }
}

/// Index of the block of the scene that is rendered: the one of this name, or the current one.
pub(super) fn chosen_scene(blend: &Blend, name: Option<&str>) -> Option<usize> {
    if let Some(name) = name {
        return blend.coded(*b"SC\0\0").map(|(index, _)| index).find(|index| name_of(blend, *index) == name);
    }
    let is_scene = |index: &usize| blend.blocks().get(*index).is_some_and(|block| &block.code == b"SC\0\0");
    let named = global(blend).and_then(|global| blend.find_id(global.pointer("curscene")?)).filter(is_scene);
    named.or_else(|| blend.coded(*b"SC\0\0").next().map(|(index, _)| index))
}

fn info(blend: &Blend, global: Option<Record<'_>>, index: usize, scene: Record<'_>) -> Option<SceneInfo> {
    let version = Series { major: (blend.version / 100) as u16, minor: (blend.version % 100) as u16 };
    let subversion = number(global, "subversion");
    let engine = match scene.text("r.engine") {
        Some(name) if !name.is_empty() => String::from_utf8_lossy(name).into_owned(),
        _ => "BLENDER_RENDER".into(),
    };
    let mode = scene.int("r.mode").unwrap_or(0);
    let base = scene.float("r.frs_sec_base").filter(|base| *base > 0.0).unwrap_or(1.0);
    let crop = (mode & MODE_BORDER != 0 && mode & MODE_CROP != 0).then(|| border(&scene)).flatten();
    let (format, replaced_format, movie_format) = format(scene.int("r.im_format.imtype").unwrap_or(17));
    let cycles = Cycles::read(&scene, (blend.version, subversion));
    let camera = camera(blend, &scene);
    Some(SceneInfo {
        version,
        subversion,
        min_version: least_version(blend),
        scene: name_of(blend, index),
        view_layers: view_layers(&scene),
        frame_start: i32::try_from(scene.int("r.sfra")?).ok()?,
        frame_end: i32::try_from(scene.int("r.efra")?).ok()?,
        frame_step: u32::try_from(scene.int("r.frame_step").unwrap_or(1)).unwrap_or(1).max(1),
        rate: FrameRate {
            fps: u32::try_from(scene.int("r.frs_sec")?).ok()?.max(1),
            base_millionths: ((base * 1e6).round() as u32).max(1),
        },
        resolution: (u32::try_from(scene.int("r.xsch")?).ok()?, u32::try_from(scene.int("r.ysch")?).ok()?),
        percent: u32::try_from(scene.int("r.size")?).ok()?,
        camera_optional: camera.is_none() && needs_no_camera(&scene),
        camera,
        format,
        replaced_format,
        movie_format,
        depth: scene.int("r.im_format.depth").and_then(depth),
        samples: (engine == "CYCLES").then_some(cycles.samples),
        denoising: cycles.denoising,
        osl: cycles.osl,
        composites: composites(&scene),
        crop,
        views: SceneViews::read(&scene),
        engine,
    })
}

/// Names of the view layers, which files from before 2.80 call render layers.
fn view_layers(scene: &Record<'_>) -> Vec<String> {
    let names = |list: &str| {
        let names = scene.list(list).filter_map(|layer| layer.text("name"));
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
    };
    let layers = names("view_layers");
    if layers.is_empty() { names("r.layers") } else { layers }
}

fn border(scene: &Record<'_>) -> Option<[f32; 4]> {
    let side = |name: &str| scene.float(&format!("r.border.{name}")).map(|side| side.clamp(0.0, 1.0) as f32);
    Some([side("xmin")?, side("xmax")?, side("ymin")?, side("ymax")?])
}

/// The format of the frames, Blender's name of the stored one where another stands in for it, whether that is a movie.
fn format(imtype: i64) -> (ImageFormat, Option<&'static str>, bool) {
    let other = |name| (ImageFormat::Png, Some(name), false);
    let movie = |name| (ImageFormat::Png, Some(name), true);
    match imtype {
        4 => (ImageFormat::Jpeg, None, false),
        17 => (ImageFormat::Png, None, false),
        22 => (ImageFormat::Tiff, None, false),
        23 => (ImageFormat::Exr, None, false),
        28 => (ImageFormat::ExrMultilayer, None, false),
        35 => (ImageFormat::Webp, None, false),
        0 => other("TARGA"),
        1 => other("IRIS"),
        14 => other("TARGA_RAW"),
        20 => other("BMP"),
        21 => other("HDR"),
        26 => other("CINEON"),
        27 => other("DPX"),
        29 => other("DDS"),
        30 => other("JPEG2000"),
        15 => movie("AVI_RAW"),
        16 => movie("AVI_JPEG"),
        18 | 24 | 31 | 32 | 33 | 36 => movie("FFMPEG"),
        _ => other("an unknown format"),
    }
}

/// The bits that a flag of `ImageFormatData.depth` stands for.
fn depth(flag: i64) -> Option<u8> {
    let bits = [1, 8, 10, 12, 16, 24, 32];
    bits.into_iter().enumerate().find(|(at, _)| flag == 1 << at).map(|(_, bits)| bits)
}

/// Cycles keeps its settings as custom properties of the scene.
struct Cycles {
    samples: u32,
    denoising: bool,
    osl: bool,
}

impl Cycles {
    /// `saved` is version and subversion. Up to 3.0.25 other defaults held, which Blender keeps when it opens such a file
    /// (`version_update.py` of its Cycles add-on).
    fn read(scene: &Record<'_>, saved: (u32, u32)) -> Self {
        // Blender 5 keeps what add-ons define apart from what users do.
        let group = ["id.system_properties", "id.properties"].into_iter().find_map(|field| {
            scene
                .follow(field)?
                .list("data.group")
                .find(|property| property.text("name") == Some(CYCLES) && property.int("type") == Some(PROPERTY_GROUP))
        });
        let stored = |name: &str| {
            let group = group.as_ref()?;
            let property = group.list("data.group").find(|property| property.text("name") == Some(name.as_bytes()))?;
            matches!(property.int("type"), Some(PROPERTY_INT | PROPERTY_BOOL)).then(|| property.int("data.val"))?
        };
        let old = saved <= (300, 25);
        let samples = stored("samples").unwrap_or(if old { 128 } else { 4096 });
        let samples = u32::try_from(samples).unwrap_or(1).max(1);
        let square = old && stored("use_square_samples").unwrap_or(0) != 0;
        Self {
            samples: if square { samples.saturating_mul(samples) } else { samples },
            denoising: stored("use_denoising").map_or(!old, |value| value != 0),
            osl: stored("shading_system").is_some_and(|value| value != 0),
        }
    }
}

/// The camera as Blender finds it: the scene's own, linked or not, else one bound to a marker. Measured with 3.4 and 4.5:
/// without these it refuses, even with a camera among the objects or in the background scene.
fn camera(blend: &Blend, scene: &Record<'_>) -> Option<String> {
    let named = |address: u64| blend.find_id(address).map(|index| name_of(blend, index));
    let bound = || scene.list("markers").find_map(|marker| marker.pointer("camera").and_then(named));
    scene.pointer("camera").and_then(named).or_else(bound)
}

/// Whether the compositor runs, if the scene has nodes for it.
fn composites(scene: &Record<'_>) -> bool {
    let is_on = scene.int("r.scemode").unwrap_or(0) & SCEMODE_COMPOSITOR != 0;
    is_on && scene.int("use_nodes").unwrap_or(1) != 0
}

/// Whether an image may come about without a camera.
fn needs_no_camera(scene: &Record<'_>) -> bool {
    let scemode = scene.int("r.scemode").unwrap_or(0);
    if scemode & SCEMODE_SEQUENCER != 0 {
        let strips = scene.follow("ed").map(|editing| editing.list("seqbase"));
        if strips.is_some_and(|mut strips| strips.any(|strip| strip.int("type") != Some(STRIP_SOUND))) {
            return true;
        }
    }
    if composites(scene) {
        let tree = scene.follow("compositing_node_group").or_else(|| scene.follow("nodetree"));
        if tree.is_some_and(|tree| tree.list("nodes").all(|node| node.int("type") != Some(NODE_RENDER_LAYERS))) {
            return true;
        }
    }
    false
}
