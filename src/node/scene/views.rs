//! Which files a scene with several views, as for stereo, leaves for a frame, and of what size.
//!
//! Blender counts the same views when it renders; here they are known before, to size a frame and to name what is replaced.

use super::dna::Record;
use crate::farm::job::ImageFormat;
use crate::farm::views::{MAX_VIEWS, is_view_suffix};

/// `RenderData.scemode`: several views are rendered (measured with 3.4 and 4.5).
const SCEMODE_MULTIVIEW: i64 = 1 << 21;
/// `RenderData.views_format`: two views, `left` and `right`, whatever others there are.
const SETUP_STEREO: i64 = 0;
/// `SceneRenderView.viewflag`.
const VIEW_DISABLED: i64 = 1 << 0;
/// `ImageFormatData.views_format`.
const FILES_STEREO: i64 = 1;
const FILES_TOGETHER: i64 = 2;
/// `Stereo3dFormat.display_mode`.
const SIDE_BY_SIDE: i64 = 3;
const TOP_BOTTOM: i64 = 4;
/// `Stereo3dFormat.flag`: the two views share the size of one.
const SQUEEZED: i64 = 1 << 2;
/// Most views that are told of; of more, Blender renders all (guess).
const MOST_VIEWS: usize = 1024;

/// The views of a scene that has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SceneViews {
    /// Name and suffix of each that is rendered, in order.
    pub views: Vec<(String, String)>,
    /// How the file has them written.
    pub files: ViewFiles,
}

/// How views become files. A format may not hold what is stored: see [`SceneViews::files_in`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewFiles {
    /// A file per view.
    Apart,
    /// One image of two views; how many times as wide and high as one.
    Stereo(u32, u32),
    /// All in one OpenEXR.
    Together,
}

impl SceneViews {
    /// Those of a scene, if it has several.
    pub(super) fn read(scene: &Record<'_>) -> Option<Self> {
        if scene.int("r.scemode")? & SCEMODE_MULTIVIEW == 0 {
            return None;
        }
        let is_stereo = scene.int("r.views_format") == Some(SETUP_STEREO);
        let text =
            |view: &Record<'_>, field: &str| String::from_utf8_lossy(view.text(field).unwrap_or_default()).into_owned();
        let used = scene
            .list("r.views")
            .take(MOST_VIEWS)
            .filter(|view| view.int("viewflag").unwrap_or(0) & VIEW_DISABLED == 0);
        let named = used.map(|view| (text(&view, "name"), text(&view, "suffix")));
        let views = named.filter(|(name, _)| !is_stereo || matches!(name.as_str(), "left" | "right")).collect();
        let int = |field: &str| scene.int(&format!("r.im_format.{field}")).unwrap_or(0);
        let is_squeezed = int("stereo3d_format.flag") & SQUEEZED != 0;
        let files = match (int("views_format"), int("stereo3d_format.display_mode")) {
            (FILES_STEREO, SIDE_BY_SIDE) if !is_squeezed => ViewFiles::Stereo(2, 1),
            (FILES_STEREO, TOP_BOTTOM) if !is_squeezed => ViewFiles::Stereo(1, 2),
            (FILES_STEREO, _) => ViewFiles::Stereo(1, 1),
            (FILES_TOGETHER, _) => ViewFiles::Together,
            _ => ViewFiles::Apart,
        };
        Some(Self { views, files })
    }

    /// How they become files of this format: what it cannot hold is a file per view, as the driver sets it.
    pub fn files_in(&self, format: ImageFormat) -> ViewFiles {
        let is_exr = matches!(format, ImageFormat::Exr | ImageFormat::ExrMultilayer);
        match self.files {
            ViewFiles::Together if !is_exr => ViewFiles::Apart,
            ViewFiles::Stereo(..) if format == ImageFormat::ExrMultilayer => ViewFiles::Apart,
            files => files,
        }
    }

    /// What the names of a frame's files may end in; an empty text stands for a frame's own name.
    pub fn suffixes(&self, format: ImageFormat) -> Vec<String> {
        self.sets(format).concat()
    }

    /// The same by what belongs together: a frame has the files of one of these.
    pub fn sets(&self, format: ImageFormat) -> Vec<Vec<String>> {
        let suffixes = || self.views.iter().map(|(_, suffix)| suffix.clone());
        match self.files_in(format) {
            ViewFiles::Stereo(..) | ViewFiles::Together => vec![vec![String::new()]],
            // A view alone has its suffix in 4.5, and none in 3.4.
            ViewFiles::Apart if self.views.len() < 2 => {
                suffixes().chain([String::new()]).map(|suffix| vec![suffix]).collect()
            }
            ViewFiles::Apart => vec![suffixes().collect()],
        }
    }

    /// Why a frame would not have all its views, and what to do.
    pub fn trouble(&self, format: ImageFormat) -> Option<(String, &'static str)> {
        match self.files_in(format) {
            ViewFiles::Together => None,
            ViewFiles::Stereo(..) => {
                let has = |name| self.views.iter().any(|(view, _)| view == name);
                (!has("left") || !has("right")).then(|| {
                    let text = "its images are stereo, and the views `left` and `right` are not both rendered";
                    (text.to_owned(), "switch both on, or choose another Views Format in the scene's output properties")
                })
            }
            ViewFiles::Apart if self.views.len() > MAX_VIEWS => {
                let text =
                    format!("a frame would have {} views, and no more than {MAX_VIEWS} can be files", self.views.len());
                Some((text, "switch some off in the scene's output properties, or choose Multi-View OpenEXR there"))
            }
            ViewFiles::Apart => {
                let fix = "give each view a suffix of its own in the scene's output properties";
                let odd = self.views.iter().find(|(_, suffix)| !is_view_suffix(suffix));
                let odd = odd.map(|(view, suffix)| {
                    format!(
                        "the suffix `{suffix}` of the view `{view}` cannot stand behind a frame's number in a file name"
                    )
                });
                let twice = || {
                    let alike = |(at, (view, suffix)): (usize, &(String, String))| {
                        let before = self.views.iter().take(at);
                        let (first, _) =
                            before.into_iter().find(|(_, one)| one.to_lowercase() == suffix.to_lowercase())?;
                        Some(format!(
                            "the views `{first}` and `{view}` have one suffix, `{suffix}`, so one would replace the other"
                        ))
                    };
                    self.views.iter().enumerate().find_map(alike)
                };
                odd.or_else(twice).map(|text| (text, fix))
            }
        }
    }

    /// What is said about the files and the video, in one line.
    pub fn told(&self, format: ImageFormat) -> String {
        let (count, first) = (self.views.len(), self.views.first().map_or("", |(name, _)| name));
        match self.files_in(format) {
            ViewFiles::Stereo(..) => "frames are stereo images, and the video is made of them as they are".into(),
            ViewFiles::Together => format!("frames hold {count} views; the video shows the first, `{first}`"),
            ViewFiles::Apart => {
                format!("frames have a file for each of {count} views; the video is made of the first, `{first}`")
            }
        }
    }
}
