//! Python that a job brings along, against the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::tests::{pixels, renderers, scene};
use super::*;
use crate::farm::id::Unit;
use crate::farm::job::{Device, ImageFormat, RenderSettings};
use crate::farm::overrides::Overrides;
use crate::farm::scripts::Scripts;
use std::path::Path;

/// A cube that a driver in Python takes away after frame 5.
const DRIVER: &str = r#"
curve = cube.driver_add("location", 2)
curve.driver.expression = "-500 * len(bpy.data.scenes) if frame > 5 else 0"
"#;
/// The same by a text that registers a handler.
const TEXT: &str = r#"
text = bpy.data.texts.new("away.py")
text.use_module = True
text.write("""
import bpy
def away(scene, *rest):
    bpy.data.objects["Cube"].location.z = -500 if scene.frame_current > 5 else 0
bpy.app.handlers.frame_change_post.append(away)
""")
"#;

/// As a handler of a script does, if it runs as Blender's `--python` has scripts run, and after what the job sets.
const SCRIPT: &str = r#"
import bpy, os, sys
assert __name__ == "__main__" and os.path.basename(__file__) == "look.py" and sys.argv == [__file__], sys.argv
assert sys.modules["__main__"].__file__ == __file__ and not sys.stdin.read()
assert bpy.context.scene.cycles.max_bounces == 3
bpy.context.scene.cycles.max_bounces = 2
open(os.path.join(os.path.dirname(__file__), "runs"), "a").write("x")
away_from = 5
def away(scene, *rest):
    bpy.data.objects["Cube"].location.z = -500 if scene.frame_current > away_from else 0
bpy.app.handlers.frame_change_post.append(away)
"#;

fn wanted(blend: &Path, scripts: Scripts) -> WorkerScene {
    let overrides = Overrides { set: vec!["scene.cycles.max_bounces=3".parse().unwrap()], ..Overrides::default() };
    let settings = RenderSettings { device: Device::Cpu, overrides, scripts, ..RenderSettings::default() };
    WorkerScene {
        blend: Some(blend.into()),
        settings,
        format: ImageFormat::Png,
        size: (64, 36),
        threads: Some(1),
        ocio: None,
        gpus: None,
        disk: Disk::default(),
    }
}

async fn worker(renderer: &Renderer, blend: &Path, scripts: Scripts) -> Result<Worker, RenderError> {
    Worker::start(renderer, wanted(blend, scripts), blend.parent().unwrap()).await
}

/// Whether a new Blender renders frame 7 without the cube; frame 3 has it, whatever runs.
async fn is_gone(renderer: &Renderer, blend: &Path, scripts: Scripts) -> bool {
    let mut worker = worker(renderer, blend, scripts).await.unwrap();
    let mut sky = Vec::new();
    for (frame, name) in [(3, "3.png"), (7, "7.png")] {
        let out = blend.with_file_name(name);
        worker.draw(Unit::whole(frame), &out, None).await.unwrap().keep().await.unwrap();
        let pixels = pixels(&out);
        let pixels: Vec<&[u8]> = pixels.chunks(pixels.len() / (64 * 36)).collect();
        // The sky is of one colour but for dithering.
        sky.push(pixels.iter().all(|pixel| pixel.iter().zip(pixels[0]).all(|(a, b)| a.abs_diff(*b) <= 2)));
    }
    assert!(!sky[0], "frame 3 has the cube");
    sky[1]
}

#[tokio::test]
async fn drivers_and_texts_in_a_file_run_only_where_the_job_asks_for_it() {
    for renderer in renderers().await {
        for script in [DRIVER, TEXT] {
            let dir = tempfile::tempdir().unwrap();
            let blend = scene(renderer, dir.path(), script);
            let asked = Scripts { in_files: true, file: None };
            assert!(
                !is_gone(renderer, &blend, Scripts::default()).await,
                "not asked for, by {}",
                renderer.version_text()
            );
            assert!(is_gone(renderer, &blend, asked).await, "asked for, by {}: {script}", renderer.version_text());
        }
    }
}

/// A script `look.py` in the folder `more` beside the scene.
fn look(blend: &Path, text: &str) -> Scripts {
    let file = blend.with_file_name("more").join("look.py");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
    Scripts { in_files: false, file: Some("more/look.py".into()) }
}

#[tokio::test]
async fn a_script_runs_once_in_the_open_scene_and_changes_what_is_rendered_by_hand_too() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), "");
        let scripts = look(&blend, SCRIPT);
        assert!(!is_gone(renderer, &blend, Scripts::default()).await);
        assert!(is_gone(renderer, &blend, scripts.clone()).await, "by {}", renderer.version_text());
        assert_eq!(std::fs::read_to_string(dir.path().join("more/runs")).unwrap(), "x");
        let ours = dir.path().join("by hand.png");
        let command = by_hand(renderer, &wanted(&blend, scripts), 7, &ours, dir.path()).unwrap();
        let run = std::process::Command::new(&command[0]).args(&command[1..]).output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{said}");
        assert_eq!(pixels(&ours), pixels(&dir.path().join("7.png")), "{said}");
    }
}

/// What the job decides, decided otherwise.
const OTHERWISE: &str = r#"
import bpy
render = bpy.context.scene.render
render.resolution_x, render.resolution_y, render.resolution_percentage = 128, 20, 300
render.use_border = render.use_crop_to_border = True
render.border_max_x = 0.5
settings = render.image_settings
if hasattr(settings, "media_type"):
    settings.media_type = "VIDEO"
settings.file_format = "FFMPEG"
render.filepath = "/tmp/elsewhere"
"#;

#[tokio::test]
async fn size_format_and_place_of_the_frames_are_the_jobs_whatever_a_script_makes_of_them() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), "");
        let out = dir.path().join("out.png");
        let mut worker = worker(renderer, &blend, look(&blend, OTHERWISE)).await.unwrap();
        let drawn = worker.draw(Unit::whole(3), &out, None).await.unwrap().keep().await;
        assert!(drawn.is_ok(), "by {}: {drawn:?}", renderer.version_text());
        let image = image::ImageReader::open(&out).unwrap().with_guessed_format().unwrap();
        assert_eq!(image.format(), Some(image::ImageFormat::Png));
        assert_eq!(image.into_dimensions().unwrap(), (64, 36));
    }
}

#[tokio::test]
async fn a_property_of_what_a_script_takes_away_fails_the_frame_and_is_named() {
    let Some(renderer) = renderers().await.last() else { return };
    let dir = tempfile::tempdir().unwrap();
    let blend = scene(renderer, dir.path(), "");
    let set = r#"bpy.data.objects["Cube"].hide_render=True"#;
    let scripts = look(&blend, "import bpy\nbpy.data.objects.remove(bpy.data.objects['Cube'])");
    let mut wanted = wanted(&blend, scripts);
    wanted.settings.overrides.set = vec![set.parse().unwrap()];
    let error = Worker::start(renderer, wanted, dir.path()).await.unwrap_err().to_string();
    assert!(error.contains(&format!("--set {set} has no effect: a script")), "{error}");
}

#[tokio::test]
async fn a_script_that_fails_fails_the_frame_and_is_named_with_its_line() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), "");
        for (text, says) in [
            (
                "import bpy\ndef paint():\n    bpy.data.objects['Kube']\npaint()",
                "failed in line 3, `bpy.data.objects['Kube']`: KeyError: ",
            ),
            ("x = 1\nif x\n", "failed in line 2: SyntaxError: "),
            ("import sys\nsys.exit(4)", "ends with sys.exit(4) in line 2, `sys.exit(4)`"),
            ("raise KeyboardInterrupt", "failed in line 1, `raise KeyboardInterrupt`: KeyboardInterrupt"),
            ("import nothing_there", "ModuleNotFoundError: No module named 'nothing_there'"),
        ] {
            let error = worker(renderer, &blend, look(&blend, text)).await.unwrap_err();
            let failure = UnitFailure::from(error);
            assert!(
                failure.message.contains("the script more/look.py ") && failure.message.contains(says),
                "by {}: {}",
                renderer.version_text(),
                failure.message
            );
        }
        let gone = Scripts { in_files: false, file: Some("gone.py".into()) };
        let error = worker(renderer, &blend, gone).await.unwrap_err().to_string();
        assert!(error.contains("the script gone.py failed: FileNotFoundError"), "{error}");
    }
}
