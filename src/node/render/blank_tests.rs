//! Images that show nothing, of OpenEXR files made here and of the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::tests::{renderers, scene, worker_scene};
use super::*;
use crate::farm::id::Unit;
use crate::farm::job::{Device, ImageFormat, RenderSettings};
use crate::farm::op::Blank;
use crate::farm::views;
use exr::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (64, 36);

/// Channels by name, each of one value but for its last pixel.
type Part<'a> = (Option<&'a str>, &'a [(&'a str, f32, f32)]);

/// Writes an OpenEXR with these parts, each of a view if it has a name.
fn written(path: &Path, parts: &[Part], compression: Compression, is_half: bool) {
    let size = Vec2(SIZE.0 as usize, SIZE.1 as usize);
    let layers = parts.iter().enumerate().map(|(at, (view, channels))| {
        let channels = channels.iter().map(|(name, value, last)| {
            let mut samples = vec![*value; size.area()];
            *samples.last_mut().unwrap() = *last;
            let samples = match is_half {
                true => FlatSamples::F16(samples.into_iter().map(f16::from_f32).collect()),
                false => FlatSamples::F32(samples),
            };
            AnyChannel::new(*name, samples)
        });
        let named = LayerAttributes::named(format!("part{at}").as_str());
        let attributes = LayerAttributes { view_name: view.map(Text::from), ..named };
        let encoding = Encoding { compression, blocks: Blocks::ScanLines, line_order: LineOrder::Increasing };
        Layer::new(size, attributes, encoding, AnyChannels::sort(channels.collect()))
    });
    let attributes = ImageAttributes::new(IntegerBounds::from_dimensions(size));
    Image::from_layers(attributes, layers.collect::<Vec<_>>()).write().to_file(path).unwrap();
}

fn shown(path: &Path) -> Option<Blank> {
    check_image(path, ImageFormat::ExrMultilayer, SIZE).unwrap()
}

/// Red, green, blue and alpha of a pass, all over and in the last pixel.
fn pass(name: &str, color: (f32, f32), alpha: (f32, f32)) -> Vec<(String, f32, f32)> {
    let channel = |letter: &str, (value, last)| (format!("{name}.{letter}"), value, last);
    vec![channel("R", color), channel("G", (0.0, 0.0)), channel("B", (0.0, 0.0)), channel("A", alpha)]
}

const NONE: (f32, f32) = (0.0, 0.0);
const FULL: (f32, f32) = (1.0, 1.0);
const LAST: (f32, f32) = (0.0, 1.0);

#[test]
fn layers_of_openexr_show_nothing_where_what_is_combined_of_them_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layers.exr");
    let cases = [
        (vec![pass("ViewLayer.Combined", NONE, FULL), pass("ViewLayer.DiffCol", FULL, FULL)], Some(Blank::Black)),
        (vec![pass("ViewLayer.Combined", LAST, FULL), pass("ViewLayer.DiffCol", NONE, NONE)], None),
        (vec![pass("ViewLayer.Combined", FULL, NONE)], Some(Blank::Transparent)),
        (vec![pass("ViewLayer.Combined", FULL, LAST)], None),
        (vec![pass("a.b.Combined", (f32::NAN, 0.0), FULL)], None),
        // One layer of two shows something, and then what the compositor made of both does not.
        (vec![pass("a.Combined", NONE, FULL), pass("b.Combined", FULL, FULL)], None),
        (
            vec![
                pass("a.Combined", FULL, FULL),
                pass("b.Combined", FULL, FULL),
                pass("Composite.Combined", NONE, FULL),
            ],
            Some(Blank::Black),
        ),
        (vec![pass("a.Combined", NONE, FULL), pass("Composite.Combined", LAST, FULL)], None),
        // Every view of a frame is to show something.
        (vec![pass("a.Combined.left", FULL, FULL), pass("a.Combined.right", FULL, FULL)], None),
        (vec![pass("a.Combined.left", FULL, FULL), pass("a.Combined.right", NONE, FULL)], Some(Blank::Black)),
        (vec![pass("a.Combined.left", NONE, NONE), pass("a.Combined.right", FULL, FULL)], Some(Blank::Transparent)),
        (vec![pass("left", FULL, FULL), pass("right", NONE, FULL)], Some(Blank::Black)),
        // Nobody knows which of them is the picture.
        (vec![pass("a.Image", NONE, FULL), pass("a.b.c", NONE, NONE)], None),
    ];
    let packed =
        [Compression::Uncompressed, Compression::RLE, Compression::ZIP16, Compression::PIZ, Compression::PXR24];
    for (passes, wanted) in &cases {
        let channels: Vec<_> = passes.iter().flatten().map(|(name, all, last)| (name.as_str(), *all, *last)).collect();
        for (compression, is_half) in packed.into_iter().flat_map(|one| [(one, true), (one, false)]) {
            written(&path, &[(None, &channels)], compression, is_half);
            assert_eq!(shown(&path), *wanted, "{channels:?} {compression} {is_half}");
        }
    }
}

#[test]
fn a_picture_beside_which_another_view_shows_nothing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("views.exr");
    for (left, right, wanted) in
        [(LAST, LAST, None), (LAST, NONE, Some(Blank::Black)), (NONE, LAST, Some(Blank::Black))]
    {
        let plain = [("R", left.0, left.1), ("G", 0.0, 0.0), ("B", 0.0, 0.0), ("A", 1.0, 1.0)];
        let other = pass("right", right, FULL);
        let other = other.iter().map(|(name, all, last)| (name.as_str(), *all, *last));
        let channels: Vec<_> = plain.into_iter().chain(other).collect();
        written(&path, &[(None, &channels)], Compression::ZIP16, true);
        assert_eq!(check_image(&path, ImageFormat::Exr, SIZE).unwrap(), wanted, "{left:?} {right:?}");
    }
}

#[test]
fn a_part_of_openexr_is_a_view_and_one_that_shows_nothing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("parts.exr");
    let black = Some(Blank::Black);
    for (left, right, wanted) in [(LAST, LAST, None), (LAST, NONE, black), (NONE, LAST, black)] {
        let views = [left, right].map(|color| pass("ViewLayer.Combined", color, FULL));
        let views = views.each_ref().map(|view| view.iter().map(|(name, all, last)| (name.as_str(), *all, *last)));
        let [left, right] = views.map(Iterator::collect::<Vec<_>>);
        written(&path, &[(Some("left"), &left), (Some("right"), &right)], Compression::ZIP16, true);
        assert_eq!(shown(&path), wanted);
    }
}

#[test]
fn no_damage_to_layers_of_openexr_makes_their_check_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layers.exr");
    let channels: Vec<_> = pass("a.Combined", NONE, NONE).into_iter().chain(pass("b.Combined", NONE, FULL)).collect();
    let channels: Vec<_> = channels.iter().map(|(name, all, last)| (name.as_str(), *all, *last)).collect();
    let seeds = [Compression::Uncompressed, Compression::RLE, Compression::ZIP16, Compression::PIZ, Compression::PXR24];
    let seeds = seeds.map(|compression| {
        written(&path, &[(Some("left"), &channels), (Some("right"), &channels)], compression, true);
        std::fs::read(&path).unwrap()
    });
    crate::fuzz::fuzz("image-exr", 300, seeds.to_vec(), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        check_image(&path, ImageFormat::ExrMultilayer, SIZE).map_err(|error| error.to_string())
    });
}

/// What frames of a scene show that is changed by `change`, in a format packed by `codec`, from frame 1 on.
async fn drawn(renderer: &Renderer, change: &str, as_: (ImageFormat, &str), suffixes: &[&str]) -> Vec<Option<Blank>> {
    let (dir, (format, codec)) = (tempfile::tempdir().unwrap(), as_);
    let settings = RenderSettings { device: Device::Cpu, ..RenderSettings::default() };
    let keyed = format!(
        "s = render.image_settings\n\
         if hasattr(s, 'media_type'): s.media_type = 'IMAGE'\n\
         s.file_format, s.color_mode, s.exr_codec = 'OPEN_EXR', 'RGBA', '{codec}'\n\
         scene.world.use_nodes, scene.world.color = False, (0, 0, 0)\n\
         def keyed(owner, path, *values):\n    \
             for frame, value in enumerate(values, 1):\n        \
                 setattr(owner, path, value)\n        \
                 owner.keyframe_insert(path, frame=frame)\n\
         {change}"
    );
    let blend = scene(renderer, dir.path(), &keyed);
    let suffixes: Vec<String> = suffixes.iter().map(|suffix| (*suffix).to_owned()).collect();
    let views = views::Views::of(&suffixes).unwrap_or_default();
    let wanted = WorkerScene { format, size: SIZE, views, ..worker_scene(&blend, settings) };
    let mut worker = Worker::start(renderer, wanted, dir.path()).await.unwrap();
    let mut shown = Vec::new();
    for frame in 1..=3 {
        let out = dir.path().join(format!("out{frame}")).with_extension(format.extension());
        let rendered = worker.draw(Unit::whole(frame), &out, None).await.unwrap().keep().await.unwrap();
        assert_eq!(rendered.preview.is_some(), format.has_preview());
        shown.push(rendered.blank);
    }
    shown
}

#[tokio::test]
async fn a_frame_that_shows_nothing_is_told_whatever_openexr_it_is_kept_as() {
    use ImageFormat::{Exr, ExrMultilayer};
    // A cube in the light, in the dark, and nothing.
    let change = "
lights = [one for one in scene.objects if one.type == 'LIGHT']
for one in lights:
    keyed(one, 'hide_render', False, True, True)
keyed(cube, 'hide_render', False, False, True)
keyed(render, 'film_transparent', False, False, True)";
    let black = Some(Blank::Black);
    for renderer in renderers().await {
        for as_ in [(Exr, "ZIP"), (Exr, "DWAA"), (ExrMultilayer, "ZIP"), (ExrMultilayer, "DWAA")] {
            // Of DWA there is the preview, which has no alpha.
            let nothing = if as_.1 == "DWAA" { black } else { Some(Blank::Transparent) };
            let what = format!("{as_:?} by {}", renderer.version_text());
            assert_eq!(drawn(renderer, change, as_, &[]).await, [None, black, nothing], "{what}");
        }
    }
}

#[tokio::test]
async fn a_frame_of_several_views_shows_nothing_where_one_of_them_shows_nothing() {
    // The right eye has a camera of its own, and looks away from all that is there; then the left one does; then neither.
    let away = "
render.use_multiview = True
render.views_format = 'MULTIVIEW'
left = bpy.data.objects['Camera']
right = left.copy()
there, away = left.rotation_euler.copy(), left.rotation_euler.copy()
away.x += 3.1416
for name, camera in (('Eye_L', left), ('Eye_R', right)):
    camera.name = name
    if camera.name not in scene.collection.all_objects:
        scene.collection.objects.link(camera)
keyed(left, 'rotation_euler', there, away, there)
keyed(right, 'rotation_euler', away, there, there)
scene.camera = left
s.views_format = ";
    use ImageFormat::{Exr, ExrMultilayer, Png};
    let (black, apart) = (Some(Blank::Black), &["_L", "_R"][..]);
    let kinds = [
        ("INDIVIDUAL", Png, apart),
        ("INDIVIDUAL", ExrMultilayer, apart),
        ("MULTIVIEW", Exr, &[]),
        ("MULTIVIEW", ExrMultilayer, &[]),
    ];
    for renderer in renderers().await {
        for (files, format, suffixes) in kinds {
            let change = format!("{away}'{files}'");
            let shown = drawn(renderer, &change, (format, "ZIP"), suffixes).await;
            assert_eq!(shown, [black, black, None], "{files} as {format:?} by {}", renderer.version_text());
        }
    }
}
