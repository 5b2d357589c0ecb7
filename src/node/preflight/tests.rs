//! What is found in scenes that the Blenders of this machine made.
#![allow(clippy::unwrap_used)]

use super::super::render::{Renderer, RendererKind, discover};
use super::super::scene::{Simulation, survey, trace};
use super::*;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a script in `renderer`, with the path of the .blend that it is to save.
fn make(renderer: &Renderer, blend: &Path, script: &str) {
    let file = blend.with_extension("py");
    let head = "import bpy, os, sys\nargs = sys.argv[sys.argv.index('--') + 1:]\nbpy.ops.wm.read_factory_settings()\n";
    let tail = "\nbpy.ops.wm.save_as_mainfile(filepath=args[0])\nsys.stdout.flush()\nos._exit(0)\n";
    std::fs::write(&file, [head, script, tail].concat()).unwrap();
    let mut command = Command::new(&renderer.path);
    match renderer.kind {
        RendererKind::Executable => command.args(["-b", "--factory-startup", "--python-exit-code", "1", "--python"]),
        RendererKind::Python => &mut command,
    };
    let output = command.arg(&file).arg("--").arg(blend).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && blend.exists(), "{}", String::from_utf8_lossy(&said));
}

/// One object for each thing that is or is not a simulation without a bake.
const SIMULATIONS: &str = r#"
scene = bpy.context.scene
scene.frame_start = 5
def thing(name):
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=3, y_subdivisions=3)
    thing = bpy.context.object
    thing.name = name
    return thing
def modified(name, kind):
    return thing(name).modifiers.new("Mod", kind)
def particles(name, physics, hair=False):
    modified(name, "PARTICLE_SYSTEM")
    system = bpy.context.object.particle_systems[0]
    system.name, system.settings.count, system.settings.physics_type = "Drops", 3, physics
    if hair:
        system.settings.type = "HAIR"
    return system
def bake(cache):
    cache.frame_end = 3
    with bpy.context.temp_override(point_cache=cache):
        bpy.ops.ptcache.bake(bake=True)
modified("Cloth", "CLOTH").point_cache.frame_start = 3
bake(modified("Cloth baked", "CLOTH").point_cache)
modified("Cloth not rendered", "CLOTH").show_render = False
modified("Cloth hidden", "CLOTH")
bpy.context.object.hide_render = True
modified("Cloth hidden and used", "CLOTH")
hidden = bpy.context.object
hidden.hide_render = True
modified("User", "SHRINKWRAP").target = hidden
modified("Cloth shown later", "CLOTH")
bpy.context.object.hide_render = True
bpy.context.object.keyframe_insert("hide_render", frame=1)
for name in ("Excluded", "Not rendered", "Instanced"):
    collection = bpy.data.collections.new(name)
    scene.collection.children.link(collection)
    modified(name, "CLOTH")
    inside = bpy.context.object
    for other in list(inside.users_collection):
        other.objects.unlink(inside)
    collection.objects.link(inside)
layers = bpy.context.view_layer.layer_collection.children
layers["Excluded"].exclude = layers["Instanced"].exclude = True
bpy.data.collections["Not rendered"].hide_render = True
instance = bpy.data.objects.new("Instance", None)
instance.instance_type, instance.instance_collection = "COLLECTION", bpy.data.collections["Instanced"]
scene.collection.objects.link(instance)
modified("Soft", "SOFT_BODY")
particles("Emitter", "NEWTON")
particles("Emitter in place", "NO")
particles("Hair", "NEWTON", hair=True)
particles("Hair dynamics", "NEWTON", hair=True).use_hair_dynamics = True
for name, kind in (("Fluid", "REPLAY"), ("Fluid baked", "MODULAR")):
    modifier = modified(name, "FLUID")
    modifier.fluid_type = "DOMAIN"
    modifier.domain_settings.cache_type = kind
    modifier.domain_settings.cache_frame_start = 2
modified("Canvas", "DYNAMIC_PAINT").ui_type = "CANVAS"
bpy.ops.dpaint.type_toggle(type="CANVAS")
thing("Stone")
bpy.ops.rigidbody.object_add()
other = bpy.data.scenes.new("Other")
other.collection.objects.link(bpy.data.objects.new("Elsewhere", bpy.context.object.data))
bpy.data.objects["Elsewhere"].modifiers.new("Mod", "CLOTH")
if bpy.app.version >= (4, 1, 0):
    inner = bpy.data.node_groups.new("Inner", "GeometryNodeTree")
    start, end = (inner.nodes.new("GeometryNodeSimulation" + name) for name in ("Input", "Output"))
    start.pair_with_output(end)
    outer = bpy.data.node_groups.new("Outer", "GeometryNodeTree")
    outer.nodes.new("GeometryNodeGroup").node_tree = inner
    outer.nodes.new("GeometryNodeBake")
    modified("Zone", "NODES").node_group = outer
    modified("Zone baked", "NODES").node_group = outer
    place = os.path.join(os.path.dirname(args[0]), "bakes")
    bpy.context.object.modifiers[0].bake_directory = place
    for bake in bpy.context.object.modifiers[0].bakes:
        os.makedirs("%s/%d/meta" % (place, bake.bake_id), exist_ok=True)
        open("%s/%d/meta/1.json" % (place, bake.bake_id), "w").close()
"#;

/// What is found in the scene that each Blender here makes with `script`.
async fn surveys(script: &str) -> Vec<(Renderer, Survey)> {
    let dir = tempfile::tempdir().unwrap();
    let renderers = discover(&[], &dir.path().join("cache.json")).await.renderers;
    let made = renderers.into_iter().map(|renderer| {
        let blend = dir.path().join(format!("{}.blend", renderer.series));
        make(&renderer, &blend, script);
        let trace = trace(&blend, TraceOptions::default()).unwrap();
        (renderer, survey(&blend, &trace).unwrap())
    });
    made.collect()
}

#[tokio::test]
async fn simulations_that_are_not_baked_are_named_and_nothing_else_is() {
    for (renderer, Survey { simulations: found, .. }) in surveys(SIMULATIONS).await {
        let told: Vec<String> = found.iter().map(Simulation::to_string).collect();
        let mut wanted = vec![
            "`Canvas`: dynamic paint `Surface`",
            "`Cloth hidden and used`: cloth `Mod`",
            "`Cloth shown later`: cloth `Mod`",
            "`Cloth`: cloth `Mod`",
            "`Emitter`: particles `Drops`",
            "`Fluid`: fluid `Mod`, of cache type Replay",
            "`Hair dynamics`: hair dynamics `Drops`",
            "`Instanced`: cloth `Mod`",
            "`Scene`: rigid bodies",
            "`Soft`: soft body `Mod`",
        ];
        let starts = |object: &str| found.iter().find(|of| of.object == object).map(|of| of.start);
        assert_eq!((starts("Cloth"), starts("Fluid")), (Some(3), Some(2)));
        if renderer.version >= (4, 1, 0) {
            wanted.push("`Zone`: simulation zone of `Mod`");
            assert_eq!(starts("Zone"), Some(5));
        }
        let mut told: Vec<&str> = told.iter().map(String::as_str).collect();
        told.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(told, wanted, "Blender {}", renderer.version_text());
    }
}

/// What runs without Python, and what does not.
const PYTHON: &str = r#"
scene = bpy.context.scene
for name in ("starts", "lies there"):
    bpy.data.texts.new(name).use_module = name == "starts"
for name, expression in (("Simple", "frame * 2 + x"), ("Python", "len(str(x))"), ("Muted", "len(str(x))")):
    thing = bpy.data.objects.new(name, None)
    scene.collection.objects.link(thing)
    curve = thing.driver_add("location", 0)
    curve.mute = name == "Muted"
    curve.driver.expression = expression
    curve.driver.variables.new().name = "x"
tree = bpy.data.materials["Material"].node_tree
class Odd(bpy.types.ShaderNodeCustomGroup):
    bl_idname, bl_label = "OddNode", "Odd"
bpy.utils.register_class(Odd)
tree.nodes.new("OddNode")
"#;

#[tokio::test]
async fn python_that_would_not_run_is_told_and_simple_expressions_are_not() {
    for (renderer, found) in surveys(PYTHON).await {
        let told: Vec<String> = not_run(&found.unrun, "s.blend").into_iter().map(|problem| problem.message).collect();
        let wanted = ["nodes of an add-on", "a driver of `Python` needs Python", "the script `starts`"];
        assert_eq!(told.len(), wanted.len(), "Blender {}: {told:?}", renderer.version_text());
        for (told, wanted) in told.iter().zip(wanted) {
            assert!(told.contains(wanted), "{told}");
        }
    }
}

#[test]
fn a_refusal_tells_all_that_is_to_be_mended_each_kind_once() {
    let missing =
        |name: &str| Problem::error(ErrorKind::MissingFiles, name, format!("image `a`: {name}"), "put it there");
    let problems = [
        Problem::warning("replaces", "/o", "3 frames will be replaced", ""),
        Problem::error(ErrorKind::NoCamera, "s.blend", "no camera", "add one"),
        missing("/a.png"),
        Problem::error(ErrorKind::NotBaked, "s.blend", "`Sheet`: cloth `Cloth`", "bake it"),
        missing("/b.png"),
    ];
    let error = refusal(&problems).unwrap();
    assert_eq!(error.kind, ErrorKind::NoCamera);
    let lines: Vec<&str> = error.message.lines().collect();
    assert_eq!((lines.len(), lines[0]), (6, "no camera; add one"), "{lines:?}");
    assert!(lines[1].starts_with("2 files the scene needs are missing"), "{lines:?}");
    assert!(lines[4].contains("--chunk all") && lines[5] == "  `Sheet`: cloth `Cloth`", "{lines:?}");
    assert!(refusal(&problems[..1]).is_none());
}
