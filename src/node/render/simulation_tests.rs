//! Simulations without a bake, against the Blenders of this machine.
#![allow(clippy::unwrap_used)]

#[cfg(target_os = "linux")]
use super::sandbox::tests::sandboxed;
use super::tests::{pixels, renderers, scene, worker_scene};
use super::*;
use crate::farm::id::Unit;
use crate::farm::job::{Device, RenderSettings};
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
pub(in crate::node) async fn rendered(
    renderer: &Renderer,
    blend: &Path,
    simulate_from: Option<i32>,
    frames: &[i32],
) -> Vec<u8> {
    let dir = blend.parent().unwrap();
    let settings = RenderSettings { device: Device::Cpu, simulate_from, ..RenderSettings::default() };
    let mut worker = Worker::start(renderer, worker_scene(blend, settings), dir).await.unwrap();
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

/// Three sheets that fall on the cube.
const SHEETS: &str = r#"
def sheet(x):
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=6, y_subdivisions=6, size=2, location=(x, x, 1.3))
    bpy.context.object.modifiers.new("Cloth", "CLOTH").point_cache.frame_end = 12
    return bpy.context.object
sheets = [sheet(x) for x in (-1.5, 0, 1.5)]
cube.modifiers.new("Collision", "COLLISION")
"#;
/// Each of them shown in renders alone, in another way.
const RENDERED_ALONE: &str = r#"
sheets[0].modifiers["Cloth"].show_viewport = False
sheets[1].hide_viewport = cube.hide_viewport = True
hidden = bpy.data.collections.new("Hidden")
scene.collection.children.link(hidden)
for other in list(sheets[2].users_collection):
    other.objects.unlink(sheets[2])
hidden.objects.link(sheets[2])
hidden.hide_viewport = True
"#;

#[tokio::test]
async fn what_the_viewport_does_not_show_is_simulated_as_well() {
    for renderer in renderers().await {
        let (plain, baked) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let unbaked = scene(renderer, plain.path(), &[SHEETS, RENDERED_ALONE].concat());
        let baked = scene(renderer, baked.path(), &[SHEETS, BAKED_ALL].concat());
        let wanted = rendered(renderer, &baked, None, &[8]).await;
        assert!(rendered(renderer, &unbaked, Some(1), &[8]).await == wanted, "by way of frames not rendered");
    }
}

/// What else follows from frame to frame, but for hair: its bakes differ from what is played (seen with 3.4 and 4.5).
const ALL_ELSE: &str = r#"
bpy.ops.wm.save_as_mainfile(filepath=args[0])
def sheet(x, z):
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=6, y_subdivisions=6, size=2, location=(x, x, z))
    return bpy.context.object
soft = sheet(0, 1.3).modifiers.new("Soft", "SOFT_BODY")
soft.settings.use_goal, soft.point_cache.frame_end = False, 12
bpy.ops.mesh.primitive_cube_add(size=1, location=(2, 0, 2))
bpy.ops.rigidbody.object_add()
scene.rigidbody_world.point_cache.frame_end = 12
emitter = sheet(2, 0)
emitter.modifiers.new("Drops", "PARTICLE_SYSTEM")
drops = emitter.particle_systems[0]
drops.settings.count, drops.settings.frame_end, drops.settings.brownian_factor = 40, 9, 3
drops.settings.render_type, drops.settings.instance_object, drops.settings.particle_size = "OBJECT", cube, 0.2
canvas = sheet(-2, 0).modifiers.new("Wet", "DYNAMIC_PAINT")
canvas.ui_type = "CANVAS"
bpy.ops.dpaint.type_toggle(type="CANVAS")
surface = canvas.canvas_settings.canvas_surfaces[0]
surface.surface_type, surface.frame_end = "DISPLACE", 12
bpy.ops.mesh.primitive_uv_sphere_add(radius=0.7, location=(-3, -2, 0))
brush = bpy.context.object
brush.hide_render = True
for frame, x in ((1, -3), (9, -1)):
    brush.location.x = x
    brush.keyframe_insert("location", frame=frame)
brush.modifiers.new("Brush", "DYNAMIC_PAINT").ui_type = "BRUSH"
bpy.ops.dpaint.type_toggle(type="BRUSH")
"#;
const BAKED_ALL: &str = "bpy.ops.ptcache.bake_all(bake=True)\n";
/// Played in part, with what can be on disk there.
const PLAYED_ON_DISK: &str = r#"
soft.point_cache.use_disk_cache = drops.point_cache.use_disk_cache = True
for frame in (1, 2, 3, 1, 2, 3, 4):
    scene.frame_set(frame)
"#;

#[tokio::test]
async fn whatever_is_simulated_comes_out_as_if_baked() {
    for renderer in renderers().await {
        let (plain, baked) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let unbaked = scene(renderer, plain.path(), &[ALL_ELSE, PLAYED_ON_DISK].concat());
        let baked = scene(renderer, baked.path(), &[ALL_ELSE, BAKED_ALL].concat());
        let wanted = rendered(renderer, &baked, None, &[8]).await;
        // Paint goes on from what is beside the .blend, in a folder that came with it; first, since what it writes is nobody
        // else's.
        #[cfg(target_os = "linux")]
        if let Some(sandboxed) = sandboxed(renderer, tempfile::tempdir().unwrap().path()).await {
            assert!(rendered(&sandboxed, &unbaked, Some(1), &[8]).await == wanted, "in a sandbox");
        }
        assert!(rendered(renderer, &unbaked, None, &[7, 8]).await != wanted, "as they come");
        assert!(rendered(renderer, &unbaked, Some(1), &[8]).await == wanted, "by way of frames not rendered");
        assert!(rendered(renderer, &unbaked, Some(1), &[2, 5, 8]).await == wanted, "some of them rendered");
    }
}

#[tokio::test]
async fn a_simulation_does_not_go_back() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let blend = scene(renderer, dir.path(), SHEET);
        let settings = RenderSettings { device: Device::Cpu, simulate_from: Some(1), ..RenderSettings::default() };
        let mut worker = Worker::start(renderer, worker_scene(&blend, settings), dir.path()).await.unwrap();
        let out = dir.path().join("out.png");
        worker.draw(Unit::whole(4), &out, None).await.unwrap();
        let failure = worker.draw(Unit::whole(3), &out, None).await.unwrap_err();
        assert!(failure.message.contains("does not go back") && failure.worker_lives, "{failure:?}");
    }
}
