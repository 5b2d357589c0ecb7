//! Scenes with several views, against the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::tests::{one_frame, pixels, renderers, scene, worker_scene};
use super::*;
use crate::farm::id::Unit;
use crate::farm::job::{Device, ImageFormat, RenderSettings};
use crate::farm::views;
use std::path::Path;

const SIZE: (u32, u32) = (64, 36);
const STEREO: &str = "
render.use_multiview = True
settings = render.image_settings
bpy.data.objects['Camera'].data.stereo.interocular_distance = 1.0
";
/// Three views, one of which has a camera of its own, and one that is not rendered.
const THREE: &str = "
render.views_format = 'MULTIVIEW'
render.views['right'].use = False
for name in ('_C', '_top'):
    view = render.views.new(name.strip('_'))
    view.camera_suffix = name
top = bpy.data.objects['Camera'].copy()
top.location.z += 1
for name, camera in (('Cam_C', bpy.data.objects['Camera']), ('Cam_top', top), ('Cam_L', top.copy())):
    camera.name = name
    if camera.name not in scene.collection.all_objects:
        scene.collection.objects.link(camera)
scene.camera = bpy.data.objects['Cam_C']
";

/// A scene submitted with views of these suffixes, or with one file a frame.
fn of(blend: PathBuf, format: ImageFormat, size: (u32, u32), suffixes: &[&str]) -> WorkerScene {
    let settings = RenderSettings { device: Device::Cpu, ..RenderSettings::default() };
    let suffixes: Vec<String> = suffixes.iter().map(|suffix| (*suffix).to_owned()).collect();
    let views = views::Views::of(&suffixes).unwrap_or_default();
    WorkerScene { format, size, views, ..worker_scene(&blend, settings) }
}

/// The file names in a folder, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn each_view_is_a_file_with_the_pixels_and_the_suffix_that_blender_gives_it() {
    let stereo = (STEREO.to_owned(), vec!["_L", "_R"]);
    let three = (STEREO.to_owned() + THREE, vec!["_L", "_C", "_top"]);
    for renderer in renderers().await {
        for (change, suffixes) in [&stereo, &three] {
            let (dir, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let blend = scene(renderer, dir.path(), change);
            one_frame(renderer, &blend, 7, alone.path());
            let mut by_blender: Vec<String> = suffixes.iter().map(|suffix| format!("alone_0007{suffix}.png")).collect();
            by_blender.sort();
            assert_eq!(names(alone.path()), by_blender, "{}", renderer.version_text());
            let before = names(dir.path());
            let mut worker =
                Worker::start(renderer, of(blend, ImageFormat::Png, SIZE, suffixes), dir.path()).await.unwrap();
            for frame in [3, 7] {
                let out = dir.path().join("out.png");
                let drawn = worker.draw(Unit::whole(frame), &out, None).await.unwrap();
                let rendered = drawn.keep().await.unwrap_or_else(|e| panic!("{}: {e:?}", renderer.version_text()));
                let others = rendered.views.others.iter().map(|view| (view.suffix.as_str(), view.from.as_path()));
                let all: Vec<(&str, &Path)> =
                    [(rendered.views.first.as_str(), out.as_path())].into_iter().chain(others).collect();
                assert_eq!(all.iter().map(|(suffix, _)| *suffix).collect::<Vec<_>>(), *suffixes);
                let shown: Vec<Vec<u8>> = all.iter().map(|(_, path)| pixels(path)).collect();
                assert_ne!(shown[0], shown[1], "views differ");
                for ((suffix, path), shown) in all.iter().zip(&shown).filter(|_| frame == 7) {
                    let alone = alone.path().join(format!("alone_0007{suffix}.png"));
                    assert_eq!(*shown, pixels(&alone), "{} {suffix} {path:?}", renderer.version_text());
                }
                drop(rendered);
                std::fs::remove_file(&out).unwrap();
                let left: Vec<String> = names(dir.path()).into_iter().filter(|name| !before.contains(name)).collect();
                assert!(left.iter().all(|name| name.starts_with("driver")), "nothing but the driver is left: {left:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_frame_that_lacks_a_view_or_has_one_of_another_size_has_failed() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), STEREO);
        let mut worker = Worker::start(renderer, of(blend.clone(), ImageFormat::Png, SIZE, &["_L", "_R"]), dir.path())
            .await
            .unwrap();
        let right = dir.path().join(".out.png.part.views/image_R.png");
        let out = dir.path().join("out.png");
        let drawn = worker.draw(Unit::whole(1), &out, None).await.unwrap();
        image::RgbImage::new(64, 37).save(&right).unwrap();
        let failure = drawn.keep().await.unwrap_err();
        assert!(
            failure.message.starts_with("its view `_R` is not as it should be: the image has 64×37"),
            "{failure:?}"
        );
        let drawn = worker.draw(Unit::whole(1), &out, None).await.unwrap();
        std::fs::remove_file(&right).unwrap();
        let failure = drawn.keep().await.unwrap_err();
        assert_eq!(failure.message, "Blender reported success and wrote no view `_R`");
        assert!(!out.exists(), "nothing of it appears");

        let alike = STEREO.to_owned() + "\nrender.views['right'].file_suffix = '_l'";
        let blend = scene(renderer, dir.path(), &alike);
        let mut worker =
            Worker::start(renderer, of(blend, ImageFormat::Png, SIZE, &["_L", "_R"]), dir.path()).await.unwrap();
        let failure = worker.draw(Unit::whole(1), &out, None).await.unwrap_err();
        assert!(failure.message.contains("two views have the suffix"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_frame_whose_views_are_not_those_the_scene_was_opened_with_has_failed() {
    let keyed = "
for frame, on in ((1, False), (2, True)):
    render.use_multiview = on
    scene.keyframe_insert('render.use_multiview', frame=frame)
";
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.png");
        let blend = scene(renderer, dir.path(), keyed);
        let mut worker =
            Worker::start(renderer, of(blend.clone(), ImageFormat::Png, SIZE, &[]), dir.path()).await.unwrap();
        worker.draw(Unit::whole(1), &out, None).await.unwrap().keep().await.unwrap();
        let failure = worker.draw(Unit::whole(2), &out, None).await.unwrap_err();
        assert!(failure.message.contains("the scene changes its views in frame 2"), "{failure:?}");

        let blend = scene(renderer, dir.path(), STEREO);
        let script = "import bpy\nbpy.context.scene.render.views['right'].file_suffix = '_ref'";
        std::fs::write(dir.path().join("look.py"), script).unwrap();
        let mut wanted = of(blend, ImageFormat::Png, SIZE, &["_L", "_R"]);
        wanted.settings.scripts.file = Some("look.py".into());
        let failure = Worker::start(renderer, wanted, dir.path()).await.err().unwrap();
        assert!(format!("{failure:?}").contains("the script look.py changes which views are rendered"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_frame_whose_views_a_text_of_the_file_changed_has_failed_and_says_what_was_declared() {
    let text = |line: &str| {
        format!(
            "text = bpy.data.texts.new('setup.py')\ntext.use_module = True\n\
             text.write('import bpy\\nfor scene in bpy.data.scenes:\\n    {line}\\n')"
        )
    };
    let switch = |on: &str| text(&format!("scene.render.use_multiview = {on}"));
    let right_only = text(r#"scene.render.views["left"].use = False"#);
    // What is saved and what runs, what was declared, and what is said of it; nothing where all is as declared.
    let cases = [
        (
            switch("True"),
            vec![],
            Some("wrote the views `_L`, `_R` for a frame, and the job was submitted with one image"),
        ),
        (
            format!("{STEREO}\n{}", switch("False")),
            vec!["_L", "_R"],
            Some("wrote one image for a frame, and the job was submitted with the views `_L`, `_R`"),
        ),
        (
            format!("{STEREO}\n{right_only}"),
            vec!["_L", "_R"],
            Some("and the job was submitted with the views `_L`, `_R`"),
        ),
        (format!("{STEREO}\n{}", switch("True")), vec!["_L", "_R"], None),
        // A view alone has its suffix or none, as the series has it.
        (format!("{STEREO}\nrender.views['right'].use = False"), vec!["_L", ""], None),
    ];
    for renderer in renderers().await {
        for (change, declared, says) in &cases {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out.png");
            let blend = scene(renderer, dir.path(), change);
            let mut wanted = of(blend, ImageFormat::Png, SIZE, declared);
            wanted.settings.scripts.in_files = true;
            let mut worker = Worker::start(renderer, wanted, dir.path()).await.unwrap();
            let drawn = worker.draw(Unit::whole(1), &out, None).await;
            let Some(says) = says else {
                drawn.unwrap().keep().await.unwrap();
                continue;
            };
            let failure = drawn.err().unwrap_or_else(|| panic!("{change} by {}", renderer.version_text()));
            assert_eq!(failure.kind, FailureKind::BadOutput, "{failure:?}");
            assert!(failure.message.contains(says) && failure.message.contains("save the scene"), "{failure:?}");
            assert!(failure.worker_lives, "Blender did as it was told");
        }
    }
}

#[tokio::test]
async fn a_stereo_image_is_checked_at_the_size_of_both_views() {
    let modes = [
        ("SIDEBYSIDE", false, (128, 36)),
        ("SIDEBYSIDE", true, (64, 36)),
        ("TOPBOTTOM", false, (64, 72)),
        ("ANAGLYPH", false, (64, 36)),
    ];
    for renderer in renderers().await {
        for (mode, squeezed, size) in modes {
            let (dir, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let squeezed = if squeezed { "True" } else { "False" };
            let change = format!(
                "{STEREO}\nsettings.views_format = 'STEREO_3D'\nsettings.stereo_3d_format.display_mode = '{mode}'\n\
                 settings.stereo_3d_format.use_squeezed_frame = {squeezed}"
            );
            let blend = scene(renderer, dir.path(), &change);
            let alone = one_frame(renderer, &blend, 2, alone.path());
            let mut worker =
                Worker::start(renderer, of(blend.clone(), ImageFormat::Png, size, &[]), dir.path()).await.unwrap();
            let out = dir.path().join("out.png");
            let drawn = worker.draw(Unit::whole(2), &out, None).await.unwrap();
            let rendered = drawn.keep().await.unwrap_or_else(|e| panic!("{}: {e:?}", renderer.version_text()));
            assert!(rendered.views.first.is_empty() && rendered.views.others.is_empty());
            assert_eq!(pixels(&out), pixels(&alone), "{} {mode}", renderer.version_text());
        }
    }
}

#[tokio::test]
async fn a_frame_in_openexr_has_its_views_and_a_preview_of_the_first_or_of_the_stereo_image() {
    use ImageFormat::{Exr, ExrMultilayer};
    let side_by_side = "settings.stereo_3d_format.display_mode = 'SIDEBYSIDE'";
    // How the file has it, as what it is rendered, the size and the suffixes of the frame.
    let cases = [
        ("INDIVIDUAL", Exr, SIZE, vec!["_L", "_R"]),
        ("INDIVIDUAL", ExrMultilayer, SIZE, vec!["_L", "_R"]),
        ("MULTIVIEW", Exr, SIZE, vec![]),
        ("MULTIVIEW", ExrMultilayer, SIZE, vec![]),
        ("STEREO_3D", Exr, (128, 36), vec![]),
        // What a format does not hold.
        ("STEREO_3D", ExrMultilayer, SIZE, vec!["_L", "_R"]),
        ("MULTIVIEW", ImageFormat::Png, SIZE, vec!["_L", "_R"]),
    ];
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        for (files, format, size, suffixes) in &cases {
            let what = format!("{}: {files} as {format:?}", renderer.version_text());
            let change = format!(
                "{STEREO}\nsettings.file_format = 'OPEN_EXR'\nsettings.views_format = '{files}'\n{side_by_side}"
            );
            let blend = scene(renderer, dir.path(), &change);
            let mut worker = Worker::start(renderer, of(blend, *format, *size, suffixes), dir.path()).await.unwrap();
            let out = dir.path().join("out").with_extension(format.extension());
            for frame in [1, 2] {
                let drawn = worker.draw(Unit::whole(frame), &out, None).await;
                let drawn = drawn.unwrap_or_else(|e| panic!("{what}: {e:?}"));
                let rendered = drawn.keep().await.unwrap_or_else(|e| panic!("{what}: {e:?}"));
                let others = rendered.views.others.iter().map(|view| view.suffix.as_str());
                let first = Some(rendered.views.first.as_str()).filter(|first| !first.is_empty());
                assert_eq!(first.into_iter().chain(others).collect::<Vec<_>>(), *suffixes, "{what}");
                assert_eq!(rendered.warnings, Vec::<String>::new(), "{what}");
                assert_eq!(rendered.preview.is_some(), format.has_preview(), "{what}");
                let Some((preview, _)) = rendered.preview else { continue };
                assert_eq!(image::image_dimensions(&preview).unwrap(), *size, "{what}");
                if frame == 2 {
                    // As it is for people, the first view: of PNGs of the same scene.
                    let change = format!("{STEREO}\nsettings.views_format = 'INDIVIDUAL'");
                    let alone = tempfile::tempdir().unwrap();
                    let blend = scene(renderer, alone.path(), &change);
                    one_frame(renderer, &blend, 2, alone.path());
                    let distance = |suffix: &str| {
                        let view = image::open(alone.path().join(format!("alone_0002{suffix}.png"))).unwrap().to_rgb8();
                        let shown = image::open(&preview).unwrap().crop_imm(0, 0, 64, 36).to_rgb8();
                        view.iter().zip(shown.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
                    };
                    assert!(distance("_L") * 2 < distance("_R"), "{what}: {} {}", distance("_L"), distance("_R"));
                }
            }
            let left: Vec<String> = names(dir.path()).into_iter().filter(|name| name.starts_with('.')).collect();
            assert_eq!(left, Vec::<String>::new(), "{what}");
        }
    }
}
