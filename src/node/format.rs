//! Which format the frames of a submission have: the one asked for, else the scene's own as the scene has it, else PNG.

use super::http::FormatChoice;
use super::scene::SceneInfo;
use crate::farm::job::{ImageFormat, Series};

/// The first series that is known to write WebP.
const WITH_WEBP: Series = Series { major: 3, minor: 4 };

/// A format, and what is set of it; the scene has the rest: quality, compression, colour mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The format.
    pub format: ImageFormat,
    /// Bits of each channel, where the format leaves a choice and the scene says something that can be.
    pub depth: Option<u8>,
}

/// The format asked for, or the scene's.
pub fn choose(asked: Option<FormatChoice>, info: &SceneInfo) -> Chosen {
    use FormatChoice as Ask;
    use ImageFormat::{Exr, ExrMultilayer, Jpeg, Png, Tiff, Webp};
    let stored = |format: ImageFormat| info.depth.filter(|bits| format.depths().contains(bits));
    let deep = if info.depth.is_some_and(|bits| bits > 8) { 16 } else { 8 };
    // As Blender does when one chooses it in its window: passes such as depth need all of it.
    let float = stored(Exr).filter(|_| info.format.has_preview()).unwrap_or(32);
    let (format, depth) = match asked {
        None if info.movie_format => (Png, Some(8)),
        None if info.replaced_format.is_some() => (Png, Some(deep)),
        None => (info.format, stored(info.format)),
        Some(Ask::Png) => (Png, Some(8)),
        Some(Ask::Png16) => (Png, Some(16)),
        Some(Ask::Jpeg) => (Jpeg, None),
        Some(Ask::Exr) => (Exr, Some(float)),
        Some(Ask::ExrMultilayer) => (ExrMultilayer, Some(float)),
        Some(Ask::Tiff) => (Tiff, Some(deep)),
        Some(Ask::Webp) => (Webp, None),
    };
    Chosen { format, depth: depth.filter(|_| format.depths().len() > 1) }
}

/// What stands in where a series does not write the scene's own format.
pub const FALLBACK: Chosen = Chosen { format: ImageFormat::Png, depth: Some(8) };

/// Whether Blenders of this series write the format.
pub fn writes(series: Series, format: ImageFormat) -> bool {
    format != ImageFormat::Webp || series >= WITH_WEBP
}

/// What is said when frames have another format than the scene, without being asked for.
pub fn warning(asked: Option<FormatChoice>, info: &SceneInfo) -> Option<(&'static str, String)> {
    match info.replaced_format {
        _ if asked.is_some() => None,
        None => None,
        Some(_) if info.movie_format => {
            let text = "the scene is set to a movie format; frames are rendered as PNG and the video is made of them";
            Some(("movie_format", text.to_owned()))
        }
        Some(format) => {
            let text = format!(
                "the scene's format {format} cannot be checked here; frames are rendered as PNG, or in another format with \
                 --format"
            );
            Some(("format", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenes_own_format_and_depth_stay_unless_another_is_asked_for() {
        use ImageFormat::{Exr, ExrMultilayer, Jpeg, Png, Tiff, Webp};
        let scene = |format, depth| SceneInfo { format, depth, ..SceneInfo::plain() };
        let check = |asked: Option<&str>, info: &SceneInfo, format, depth| {
            let asked = asked.map(|word| word.parse().expect("a format"));
            assert_eq!(choose(asked, info), Chosen { format, depth }, "{asked:?} of {info:?}");
        };
        let (png, deep_png) = (scene(Png, Some(8)), scene(Png, Some(16)));
        let (half, multilayer) = (scene(Exr, Some(16)), scene(ExrMultilayer, Some(32)));
        check(None, &png, Png, Some(8));
        check(None, &deep_png, Png, Some(16));
        check(None, &half, Exr, Some(16));
        check(None, &scene(Jpeg, Some(8)), Jpeg, None);
        check(None, &scene(Tiff, Some(16)), Tiff, Some(16));
        // Blender makes of this what it makes of it.
        check(None, &scene(Png, Some(32)), Png, None);
        check(None, &scene(Png, None), Png, None);
        check(Some("png"), &deep_png, Png, Some(8));
        check(Some("png16"), &png, Png, Some(16));
        check(Some("exr"), &deep_png, Exr, Some(32));
        check(Some("exr-multilayer"), &half, ExrMultilayer, Some(16));
        check(Some("exr"), &multilayer, Exr, Some(32));
        check(Some("tiff"), &png, Tiff, Some(8));
        check(Some("tiff"), &multilayer, Tiff, Some(16));
        check(Some("webp"), &half, Webp, None);
        check(Some("jpeg"), &half, Jpeg, None);
    }

    #[test]
    fn what_cannot_be_an_image_here_becomes_png_and_that_is_said_once() {
        let movie = SceneInfo { replaced_format: Some("FFMPEG"), movie_format: true, ..SceneInfo::plain() };
        let dpx = SceneInfo { replaced_format: Some("DPX"), depth: Some(10), ..SceneInfo::plain() };
        assert_eq!(choose(None, &movie), FALLBACK);
        assert_eq!(choose(None, &dpx), Chosen { format: ImageFormat::Png, depth: Some(16) });
        let said = |asked, info| warning(asked, info).map(|(kind, _)| kind);
        assert_eq!((said(None, &movie), said(None, &dpx)), (Some("movie_format"), Some("format")));
        assert_eq!((said(Some(FormatChoice::Exr), &dpx), said(None, &SceneInfo::plain())), (None, None));
        assert!(warning(None, &dpx).is_some_and(|(_, text)| text.contains("DPX") && text.contains("--format")));
    }

    #[test]
    fn old_blenders_write_no_webp() {
        let old = Series { major: 3, minor: 3 };
        assert!(!writes(old, ImageFormat::Webp) && writes(old, ImageFormat::Tiff));
        assert!(writes(WITH_WEBP, ImageFormat::Webp));
    }
}
