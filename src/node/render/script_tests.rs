//! Python that a job brings along, against the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::tests::{pixels, renderers, scene};
use super::*;
use crate::farm::id::Unit;
use crate::farm::job::{Device, ImageFormat, RenderSettings};
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

async fn worker(renderer: &Renderer, blend: &Path, scripts: Scripts) -> Result<Worker, RenderError> {
    let settings = RenderSettings { device: Device::Cpu, scripts, ..RenderSettings::default() };
    let (format, size) = (ImageFormat::Png, (64, 36));
    let wanted = WorkerScene { blend: Some(blend.into()), settings, format, size, threads: Some(1) };
    Worker::start(renderer, wanted, blend.parent().unwrap()).await
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
