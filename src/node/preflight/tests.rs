//! What is found in scenes that the Blenders of this machine made.
#![allow(clippy::unwrap_used)]

use super::super::prospect::Nobody;
use super::super::render::{Renderer, RendererKind, discover};
use super::super::scene::{Simulation, survey, trace};
use super::*;
use crate::farm::job::ImageFormat;
use crate::farm::overrides::Overrides;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a script in `renderer`, with the path of the .blend that it is to save.
pub(super) fn make(renderer: &Renderer, blend: &Path, script: &str) {
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
modified("Cloth keyed", "CLOTH").show_render = False
bpy.context.object.modifiers[0].keyframe_insert("show_render", frame=1)
modified("Cloth driven", "CLOTH").show_render = False
bpy.context.object.modifiers[0].driver_add("show_render").driver.expression = "frame > 3"
modified("Cloth with another key", "CLOTH").show_render = False
bpy.context.object.modifiers[0].keyframe_insert("show_viewport", frame=1)
modified("Cloth of a strip", "CLOTH").show_render = False
bpy.context.object.modifiers[0].keyframe_insert("show_render", frame=1)
animation = bpy.context.object.animation_data
animation.nla_tracks.new().strips.new("Strip", 1, animation.action)
animation.action = None
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
        (renderer, survey(&blend, &trace, &Overrides::default()).unwrap())
    });
    made.collect()
}

#[tokio::test]
async fn simulations_that_are_not_baked_are_named_and_nothing_else_is() {
    for (renderer, Survey { simulations: found, .. }) in surveys(SIMULATIONS).await {
        let told: Vec<String> = found.iter().map(Simulation::to_string).collect();
        let mut wanted = vec![
            "`Canvas`: dynamic paint `Surface`",
            "`Cloth driven`: cloth `Mod`",
            "`Cloth hidden and used`: cloth `Mod`",
            "`Cloth keyed`: cloth `Mod`",
            "`Cloth of a strip`: cloth `Mod`",
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

/// Saves the same scene in every format, beside what it is asked for.
const FORMATS: &str = r#"
settings = bpy.context.scene.render.image_settings
for name, depth in (("PNG", 8), ("PNG", 16), ("JPEG", 8), ("OPEN_EXR", 16), ("OPEN_EXR", 32), ("OPEN_EXR_MULTILAYER", 32),
                    ("TIFF", 16), ("WEBP", 8), ("DPX", 10), ("FFMPEG", 8)):
    if hasattr(settings, "media_type"):
        settings.media_type = {"OPEN_EXR_MULTILAYER": "MULTI_LAYER_IMAGE", "FFMPEG": "VIDEO"}.get(name, "IMAGE")
    settings.file_format = name
    if name != "FFMPEG":
        settings.color_depth = str(depth)
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(os.path.dirname(args[0]), "%s %d.blend" % (name, depth)))
"#;

#[tokio::test]
async fn the_format_of_the_frames_is_the_one_that_the_scene_is_saved_with() {
    use crate::farm::job::ImageFormat::{Exr, ExrMultilayer, Jpeg, Png, Tiff, Webp};
    let dir = tempfile::tempdir().unwrap();
    for renderer in discover(&[], &dir.path().join("cache.json")).await.renderers {
        make(&renderer, &dir.path().join("scene.blend"), FORMATS);
        for (name, format, depth, said) in [
            ("PNG 8", Png, Some(8), None),
            ("PNG 16", Png, Some(16), None),
            ("JPEG 8", Jpeg, None, None),
            ("OPEN_EXR 16", Exr, Some(16), None),
            ("OPEN_EXR 32", Exr, Some(32), None),
            ("OPEN_EXR_MULTILAYER 32", ExrMultilayer, Some(32), None),
            ("TIFF 16", Tiff, Some(16), None),
            ("WEBP 8", Webp, None, None),
            ("DPX 10", Png, Some(16), Some("format")),
            ("FFMPEG 8", Png, Some(8), Some("movie_format")),
        ] {
            let info = scene::read(&dir.path().join(format!("{name}.blend")), &Overrides::default()).unwrap();
            let what = format!("{name} by {}", renderer.version_text());
            assert_eq!(format::choose(None, &info), format::Chosen { format, depth }, "{what}");
            assert_eq!(format::warning(None, &info).map(|(kind, _)| kind), said, "{what}");
        }
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
class LikeOwn(bpy.types.ShaderNodeCustomGroup):
    bl_idname, bl_label = "ShaderNodeMyThing", "Like"
class Plain(bpy.types.Node):
    bl_idname, bl_label = "NodeMine", "Plain"
for kind in (Odd, LikeOwn, Plain):
    bpy.utils.register_class(kind)
    tree.nodes.new(kind.bl_idname)
# One of each of Blender's own.
for kind, heads in (("Shader", ("Shader", "Node")), ("Geometry", ("Geometry", "Function", "Node")), ("Compositor", ("Compositor",))):
    group = bpy.data.node_groups.new(kind, kind + "NodeTree")
    for name in dir(bpy.types):
        if name.startswith(heads) and "Custom" not in name and name != "NodeMine" and name != "ShaderNodeMyThing":
            try:
                group.nodes.new(name)
            except RuntimeError:
                pass
    if kind == "Shader":
        tree.nodes.new("ShaderNodeGroup").node_tree = group
    if kind == "Geometry":
        thing = scene.objects["Cube"]
        thing.modifiers.new("Mod", "NODES").node_group = group
"#;

#[tokio::test]
async fn python_that_would_not_run_is_told_and_simple_expressions_are_not() {
    for (renderer, found) in surveys(PYTHON).await {
        let told: Vec<String> =
            python::not_run(&found.unrun, false, "s.blend").into_iter().map(|problem| problem.message).collect();
        let wanted = ["`Material` has nodes of an add-on", "a driver of `Python` needs Python", "the script `starts`"];
        assert_eq!(told.len(), wanted.len(), "Blender {}: {told:?}", renderer.version_text());
        for (told, wanted) in told.iter().zip(wanted) {
            assert!(told.contains(wanted), "{told}");
        }
        assert!(told[0].ends_with("and 2 more"), "{}", told[0]);
        let left = python::not_run(&found.unrun, true, "s.blend");
        assert!(matches!(&left[..], [one] if one.message.contains("nodes of an add-on")), "{left:?}");
    }
}

#[test]
fn a_job_that_lacks_nothing_but_trust_is_refused_and_another_waits() {
    let nobody = |for_trust| python::nobody(&Nobody { reasons: "a: why; b: why not".into(), for_trust }, "shot");
    let refused = refusal(&[nobody(true)]).unwrap();
    assert_eq!(refused.kind, ErrorKind::Untrusted);
    assert_eq!(refused.message, "no machine that is here runs the scripts of this job: a: why; b: why not");
    assert_eq!(refusal(&[nobody(false)]), None);
}

#[test]
fn what_is_no_script_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let scene = path("shot.blend");
    std::fs::create_dir_all(path("tools")).unwrap();
    std::fs::write(path("tools/look.py"), "é = 1").unwrap();
    std::fs::write(path("latin.py"), b"# \xe9\n").unwrap();
    std::fs::write(path("a b.py"), "").unwrap();
    assert_eq!(python::script(&path("tools/look.py"), &scene).unwrap(), "tools/look.py");
    let elsewhere = python::script(&path("tools/look.py"), &path("scenes/shot.blend"));
    assert_eq!(elsewhere.unwrap(), "look.py", "it lies beside the scene");
    for (name, kind, says) in [
        ("gone.py", ErrorKind::FileNotFound, "check the path"),
        ("tools", ErrorKind::BadRequest, "is not a file"),
        ("latin.py", ErrorKind::Unsupported, "not text in UTF-8"),
        ("a b.py", ErrorKind::BadRequest, "some systems refuse its name"),
    ] {
        let error = python::script(&path(name), &scene).unwrap_err();
        assert!(error.kind == kind && error.message.contains(says) && error.message.contains(name), "{error:?}");
    }
}

/// Two scenes: one as Blender makes it, one with a view layer without its cloth. Cameras: of the file, of a library.
const TWO_SCENES: &str = r#"
rig = bpy.data.collections.new("Rig")
far = bpy.data.objects.new("Far", bpy.data.cameras.new("Far"))
rig.objects.link(far)
library = args[0] + ".rig.blend"
bpy.data.libraries.write(library, {rig})
bpy.data.objects.remove(far)
bpy.data.collections.remove(rig)
with bpy.data.libraries.load(library, link=True) as (there, wanted):
    wanted.collections = ["Rig"]
bpy.context.scene.collection.children.link(bpy.data.collections["Rig"])
other = bpy.data.scenes.new("Other")
render = other.render
other.frame_start, other.frame_end, other.frame_step = 11, 15, 2
render.engine, render.fps, render.resolution_x, render.resolution_y = "CYCLES", 30, 640, 360
render.image_settings.file_format = "JPEG"
other.camera = bpy.data.objects.new("Eye", bpy.data.cameras.new("Eye"))
other.collection.objects.link(other.camera)
cloth = bpy.data.collections.new("Cloth")
other.collection.children.link(cloth)
sheet = bpy.data.objects.new("Sheet", bpy.data.meshes["Cube"])
sheet.modifiers.new("Mod", "CLOTH")
cloth.objects.link(sheet)
other.view_layers.new("Still").layer_collection.children["Cloth"].exclude = True
"#;

#[tokio::test]
async fn what_is_read_and_found_is_that_of_the_chosen_scene_camera_and_view_layers() {
    let dir = tempfile::tempdir().unwrap();
    let choose = |scene: &str, camera: Option<&str>, layers: &[&str]| Overrides {
        scene: Some(scene.into()),
        camera: camera.map(str::to_owned),
        view_layers: layers.iter().map(|layer| (*layer).to_owned()).collect(),
        ..Overrides::default()
    };
    for renderer in discover(&[], &dir.path().join("cache.json")).await.renderers {
        let blend = dir.path().join(format!("{}.blend", renderer.series));
        make(&renderer, &blend, TWO_SCENES);
        let trace = trace(&blend, TraceOptions::default()).unwrap();
        let look = |overrides: &Overrides| {
            (scene::read(&blend, overrides).unwrap(), survey(&blend, &trace, overrides).unwrap())
        };
        let (info, found) = look(&choose("Scene", None, &[]));
        assert_eq!((info.camera.as_deref(), info.frame_end, found.simulations.len()), (Some("Camera"), 250, 0));
        let (info, found) = look(&choose("Other", None, &[]));
        assert_eq!((&*info.engine, info.camera.as_deref(), info.rate.fps), ("CYCLES", Some("Eye"), 30));
        assert_eq!((info.frame_start, info.frame_end, info.frame_step, info.size()), (11, 15, 2, (640, 360)));
        assert_eq!((info.format, &*info.view_layers), (ImageFormat::Jpeg, &["ViewLayer".into(), "Still".into()][..]));
        assert_eq!(found.simulations.iter().map(|of| &*of.object).collect::<Vec<_>>(), ["Sheet"]);
        let (_, found) = look(&choose("Other", None, &["Still"]));
        assert_eq!(found.simulations, []);
        let (_, found) = look(&choose("Other", None, &["Still", "ViewLayer"]));
        assert_eq!(found.simulations.len(), 1);

        let told = |overrides: &Overrides| {
            let (info, survey) = look(overrides);
            let problems = chosen::not_there(overrides, &info, &survey, "s.blend");
            problems.iter().map(Problem::sentence).collect::<Vec<_>>()
        };
        for camera in ["Camera", "Eye", "Far"] {
            assert_eq!(told(&choose("Other", Some(camera), &["ViewLayer", "Still"])), [""; 0], "{camera}");
        }
        let wanted = [
            "s.blend has no camera `Cube`; choose among `Camera`, `Eye`, `Far`",
            "the scene `Other` in s.blend has no view layer `Nope`; choose among `ViewLayer`, `Still`",
        ];
        assert_eq!(told(&choose("Other", Some("Cube"), &["Nope", "Still"])), wanted);
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

/// Saves stereo scenes as people set them up.
const VIEWS: &str = r#"
scene = bpy.context.scene
render, settings = scene.render, scene.render.image_settings
def save(name):
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(os.path.dirname(args[0]), name + ".blend"))
render.resolution_x, render.resolution_y = 64, 36
save("plain")
render.use_multiview = True
save("apart")
settings.views_format = "STEREO_3D"
for mode in ("SIDEBYSIDE", "TOPBOTTOM", "ANAGLYPH", "INTERLACE"):
    settings.stereo_3d_format.display_mode = mode
    save(mode)
settings.stereo_3d_format.display_mode = "SIDEBYSIDE"
settings.stereo_3d_format.use_squeezed_frame = True
save("squeezed")
render.views["right"].use = False
save("one eye")
render.views["right"].use = True
render.views_format = "MULTIVIEW"
render.views["left"].use = False
for suffix in ("_C", "_top"):
    render.views.new(suffix).camera_suffix = suffix
settings.views_format = "INDIVIDUAL"
save("three")
render.views["_C"].file_suffix = "_TOP"
save("alike")
render.views["_C"].file_suffix = "2"
save("digit")
render.views["_C"].file_suffix = "_C"
for number in range(70):
    render.views.new("v%d" % number).file_suffix = "_v%d" % number
save("crowd")
settings.file_format = "OPEN_EXR"
settings.views_format = "MULTIVIEW"
save("together")
"#;

#[tokio::test]
async fn size_and_files_of_a_scene_with_several_views_are_known_before_it_is_rendered() {
    use crate::farm::job::ImageFormat::{Exr, ExrMultilayer, Png};
    let dir = tempfile::tempdir().unwrap();
    for renderer in discover(&[], &dir.path().join("cache.json")).await.renderers {
        make(&renderer, &dir.path().join("scene.blend"), VIEWS);
        for (name, format, size, suffixes, is_trouble) in [
            ("plain", Png, (64, 36), vec![""], false),
            ("apart", Png, (64, 36), vec!["_L", "_R"], false),
            ("SIDEBYSIDE", Png, (128, 36), vec![""], false),
            ("SIDEBYSIDE", ExrMultilayer, (64, 36), vec!["_L", "_R"], false),
            ("TOPBOTTOM", Png, (64, 72), vec![""], false),
            ("ANAGLYPH", Png, (64, 36), vec![""], false),
            ("INTERLACE", Png, (64, 36), vec![""], false),
            ("squeezed", Png, (64, 36), vec![""], false),
            ("one eye", Png, (64, 36), vec![""], true),
            ("three", Png, (64, 36), vec!["_R", "_C", "_top"], false),
            ("alike", Png, (64, 36), vec!["_R", "_TOP", "_top"], true),
            ("digit", Png, (64, 36), vec!["_R", "2", "_top"], true),
            ("together", Exr, (64, 36), vec![""], false),
        ] {
            let info = scene::read(&dir.path().join(format!("{name}.blend")), &Overrides::default()).unwrap();
            let what = format!("{name} by {}", renderer.version_text());
            assert_eq!(info.image_size(format, None, None), size, "{what}");
            assert_eq!(info.suffixes(format), suffixes, "{what}");
            let trouble = info.views.as_ref().and_then(|views| views.trouble(format));
            assert_eq!(trouble.is_some(), is_trouble, "{what}: {trouble:?}");
        }
        let info = scene::read(&dir.path().join("crowd.blend"), &Overrides::default()).unwrap();
        let (text, _) = info.views.as_ref().and_then(|views| views.trouble(Png)).unwrap();
        assert!(text.starts_with("a frame would have 73 views, and no more than 64"), "{text}");
        assert!(info.views.unwrap().trouble(Exr).is_some());
    }
}
