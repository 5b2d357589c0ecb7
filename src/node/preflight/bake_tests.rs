//! Bakes that lack frames, in scenes that the Blenders of this machine made: what is accepted comes out the same in any
//! order, and what does not is refused.
#![allow(clippy::unwrap_used)]

use super::super::render::Renderer;
use super::super::render::simulation_tests::rendered;
use super::super::render::tests::{renderers, scene as made};
use super::*;
use crate::farm::overrides::Overrides;
use std::path::PathBuf;

/// What the scenes are made with: frames 1 to 9 are asked for.
const HEAD: &str = r#"
import glob
bpy.ops.wm.save_as_mainfile(filepath=args[0])
def sheet(name, x):
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=6, y_subdivisions=6, size=2, location=(x, x, 1.3))
    bpy.context.object.name = name
    return bpy.context.object
def emitter(name, x):
    thing = sheet(name, x)
    thing.modifiers.new("Mod", "PARTICLE_SYSTEM")
    system = thing.particle_systems[0]
    system.settings.count, system.settings.frame_end = 40, 9
    return system
def drops(name, x):
    system = emitter(name, x)
    system.settings.render_type, system.settings.instance_object = "OBJECT", cube
    system.settings.particle_size, system.settings.brownian_factor = 0.2, 3
    return system.point_cache
def run(cache, bake):
    with bpy.context.temp_override(point_cache=cache):
        bake()
def baked(cache, last):
    cache.frame_end = last
    run(cache, lambda: bpy.ops.ptcache.bake(bake=True))
def broken_off(*caches):
    for cache in caches:
        cache.frame_end = 9
    # What was added is noticed when it is played for the first time.
    for frame in (1, 2, 3, 1, 2, 3, 4):
        scene.frame_set(frame)
    for cache in caches:
        run(cache, lambda: bpy.ops.ptcache.bake_from_cache())
"#;

/// What stays as it is where its bake has no frames.
const STAYS: &str = r#"
hair = emitter("Hair", 1)
hair.settings.type, hair.use_hair_dynamics = "HAIR", True
soft = sheet("Soft", 0).modifiers.new("Mod", "SOFT_BODY")
soft.settings.use_goal = False
broken_off(sheet("Broken off", 2).modifiers.new("Mod", "CLOTH").point_cache, soft.point_cache, hair.point_cache)
baked(sheet("Whole", -1).modifiers.new("Mod", "CLOTH").point_cache, 9)
baked(sheet("Ended", -2).modifiers.new("Mod", "CLOTH").point_cache, 6)
baked(drops("Drops", 1), 9)
on_disk = sheet("Onto disk", -3).modifiers.new("Mod", "CLOTH").point_cache
on_disk.use_disk_cache = True
baked(on_disk, 9)
canvas = sheet("Canvas", 3).modifiers.new("Mod", "DYNAMIC_PAINT")
canvas.ui_type = "CANVAS"
bpy.ops.dpaint.type_toggle(type="CANVAS")
surface = canvas.canvas_settings.canvas_surfaces[0]
surface.surface_type, surface.frame_end = "WAVE", 9
cube.modifiers.new("Mod", "DYNAMIC_PAINT").ui_type = "BRUSH"
bpy.context.view_layer.objects.active = cube
bpy.ops.dpaint.type_toggle(type="BRUSH")
baked(surface.point_cache, 9)
files = os.path.join(os.path.dirname(args[0]), "blendcache_scene", "%s_%06d_*.bphys")
for name, frames in (("Onto disk", (5, 6)), ("Canvas", (8, 9))):
    for frame in frames:
        (file,) = glob.glob(files % (name.encode().hex().upper(), frame))
        os.remove(file)
domain = sheet("Smoke", 0).modifiers.new("Mod", "FLUID")
domain.fluid_type = "DOMAIN"
domain.domain_settings.cache_type = "MODULAR"
scene.frame_set(1)
"#;

/// What is simulated on behind its bake.
const GOES_ON: &str = r#"
bpy.ops.rigidbody.world_add()
bpy.ops.mesh.primitive_cube_add(size=1, location=(0.6, 0, 2))
bpy.ops.rigidbody.object_add()
bpy.context.view_layer.objects.active = cube
bpy.ops.rigidbody.object_add(type="PASSIVE")
broken_off(scene.rigidbody_world.point_cache)
scene.frame_set(1)
"#;
/// The same, from whatever was rendered before.
const DRIFTS: &str = r#"
broken_off(drops("Drops", 1))
scene.frame_set(1)
"#;

/// What is said of a scene made by `script`, and what it is to be simulated from.
async fn preflight(renderer: &Renderer, dir: &Path, script: &str, chunk: Chunk) -> (PathBuf, Looked, Option<i32>) {
    let blend = made(renderer, dir, &[HEAD, script].concat());
    let overrides = Overrides::default();
    let (info, trace) =
        (scene::read(&blend, &overrides).unwrap(), scene::trace(&blend, TraceOptions::default()).unwrap());
    let survey = scene::survey(&blend, &trace, &overrides).unwrap();
    let mut looked =
        Looked { info, trace, survey, newest_library: None, scripts: Scripts::default(), problems: Vec::new() };
    let request = SubmitRequest { file: blend.clone(), ..SubmitRequest::default() };
    let start = looked.simulate_from(&request, &"1-9".parse().unwrap(), chunk);
    (blend, looked, start)
}

fn told(looked: &Looked) -> Vec<&str> {
    looked.problems.iter().map(|problem| &*problem.message).collect()
}

#[tokio::test]
async fn a_bake_that_lacks_frames_is_told_where_they_come_out_the_same_in_any_order() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let (blend, looked, start) = preflight(renderer, dir.path(), STAYS, Chunk::Auto).await;
        let wanted = [
            "`Broken off`: the bake of cloth `Mod` has no frames 5-9",
            "`Canvas`: the bake of dynamic paint `Surface` has no frames 8-9",
            "`Ended`: the bake of cloth `Mod` has no frames 7-9",
            "`Hair`: the bake of hair dynamics `Mod` has no frames 5-9",
            "`Onto disk`: the bake of cloth `Mod` has no frames 5-6",
            "`Smoke`: fluid `Mod` has no baked frames",
            "`Soft`: the bake of soft body `Mod` has no frames 5-9",
        ];
        assert_eq!(told(&looked), wanted, "Blender {}", renderer.version_text());
        assert!(start.is_none() && !looked.problems.iter().any(Problem::is_error));
        for (frame, out_of_order) in [(9, &[9][..]), (5, &[8, 2, 5])] {
            let in_order = rendered(renderer, &blend, Some(1), &[frame]).await;
            assert!(rendered(renderer, &blend, None, out_of_order).await == in_order, "frame {frame}");
        }
    }
}

#[tokio::test]
async fn a_bake_that_lacks_frames_is_refused_where_they_depend_on_those_before() {
    for renderer in renderers().await {
        let dir = tempfile::tempdir().unwrap();
        let (blend, looked, start) = preflight(renderer, dir.path(), GOES_ON, Chunk::Auto).await;
        assert_eq!((told(&looked), start), (vec!["`Scene`: rigid bodies is baked to frame 4 only"], None));
        assert!(looked.problems[0].is_error() && looked.problems[0].fix.contains("--chunk all"));
        let in_order = rendered(renderer, &blend, Some(1), &[8]).await;
        assert!(rendered(renderer, &blend, None, &[8]).await != in_order, "alone it is another frame");
        assert!(rendered(renderer, &blend, Some(1), &[2, 5, 8]).await == in_order, "whatever is rendered before");
        let (_, looked, start) = preflight(renderer, dir.path(), GOES_ON, Chunk::All).await;
        assert_eq!((told(&looked), start), (vec![], Some(1)));

        let (_, looked, start) = preflight(renderer, dir.path(), DRIFTS, Chunk::All).await;
        let wanted = "`Drops`: particles `Mod`, is baked to frame 4 only, and --chunk all does not help it";
        assert_eq!((told(&looked), start), (vec![wanted], None));
        assert!(looked.problems[0].is_error() && looked.problems[0].fix.contains("bake it anew"));
    }
}
