//! Simulations without a bake, against the Blenders of this machine.
#![allow(clippy::unwrap_used)]

use super::tests::{pixels, renderers, scene};
use super::*;
use crate::farm::id::Unit;
use crate::farm::job::{Device, ImageFormat, RenderSettings};
use std::path::Path;

/// A sheet that falls on the cube.
const SHEET: &str = r#"
bpy.ops.mesh.primitive_grid_add(x_subdivisions=8, y_subdivisions=8, size=4, location=(0, 0, 1.3))
cache = bpy.context.object.modifiers.new("Cloth", "CLOTH").point_cache
cache.frame_end = 12
cube.modifiers.new("Collision", "COLLISION")
"#;
/// Frames that were made out of order, as looking about leaves them.
const LOOKED_AT: &str = "scene.frame_set(8); scene.frame_set(7)\n";
const BAKED: &str = r#"
with bpy.context.temp_override(point_cache=cache):
    bpy.ops.ptcache.bake(bake=True)
"#;

/// What a new Blender renders of these frames in turn; the pixels of the last one.
async fn rendered(renderer: &Renderer, blend: &Path, simulate_from: Option<i32>, frames: &[i32]) -> Vec<u8> {
    let dir = blend.parent().unwrap();
    let settings = RenderSettings { device: Device::Cpu, simulate_from, ..RenderSettings::default() };
    let (format, size) = (ImageFormat::Png, (64, 36));
    let wanted =
        WorkerScene { blend: Some(blend.into()), settings, format, size, threads: Some(1), ocio: None, gpus: None };
    let mut worker = Worker::start(renderer, wanted, dir).await.unwrap();
    let out = dir.join("out.png");
    for frame in frames {
        worker.draw(Unit::whole(*frame), &out, None).await.unwrap().keep().await.unwrap();
    }
    pixels(&out)
}

#[tokio::test]
async fn cloth_without_a_bake_comes_out_as_if_baked_whatever_is_rendered_before() {
    for renderer in renderers().await {
        let (plain, baked) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let unbaked = scene(renderer, plain.path(), &[SHEET, LOOKED_AT].concat());
        let baked = scene(renderer, baked.path(), &[SHEET, BAKED].concat());
        let wanted = rendered(renderer, &baked, None, &[8]).await;
        assert_eq!(rendered(renderer, &baked, None, &[9, 4, 8]).await, wanted);
        assert!(rendered(renderer, &unbaked, None, &[8]).await != wanted, "alone it is another frame");
        assert!(rendered(renderer, &unbaked, Some(1), &[8]).await == wanted, "by way of frames not rendered");
        assert!(rendered(renderer, &unbaked, Some(1), &[-1, 1, 3, 5, 8]).await == wanted, "every other one rendered");
    }
}

#[tokio::test]
async fn a_simulation_does_not_go_back() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), SHEET);
        let settings = RenderSettings { device: Device::Cpu, simulate_from: Some(1), ..RenderSettings::default() };
        let (format, size) = (ImageFormat::Png, (64, 36));
        let wanted =
            WorkerScene { blend: Some(blend), settings, format, size, threads: Some(1), ocio: None, gpus: None };
        let mut worker = Worker::start(renderer, wanted, dir.path()).await.unwrap();
        let out = dir.path().join("out.png");
        worker.draw(Unit::whole(4), &out, None).await.unwrap();
        let failure = worker.draw(Unit::whole(3), &out, None).await.unwrap_err();
        assert!(failure.message.contains("does not go back") && failure.worker_lives, "{failure:?}");
    }
}
