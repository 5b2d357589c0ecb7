//! Facts about caches on disk: what travels of them, and that a laid-out scene finds it.

use super::super::synthetic::{Builder, Value, Value::*};
use super::*;

const BAKED_ON_DISK: i64 = 1 | 1 << 6;
const EXTERNAL: i64 = 1 << 9;
const NOT_BESIDE_LIBRARY: i64 = 1 << 11;

/// A .blend with the object `name`, and what `more` adds to it.
fn object(shape: Shape, name: &str, more: impl FnOnce(&mut Builder)) -> Vec<u8> {
    let mut file = Builder::new(shape);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs"))]]);
    file.block(b"OB\0\0", 2, "Object", &[&[("id.name", Text(format!("OB{name}").as_bytes()))]]);
    more(&mut file);
    file.finish()
}

/// Particles whose cache is `values`.
fn particles(file: &mut Builder, values: &[(&str, Value<'_>)]) {
    file.block(b"DATA", 10, "ParticleSystem", &[&[("pointcache", Address(11))]]);
    file.block(b"DATA", 11, "PointCache", &[values]);
}

/// A .blend with a cache of each kind, for the fuzzer.
pub(super) fn of_every_kind(shape: Shape) -> Vec<u8> {
    object(shape, "Cu", |file| {
        particles(file, &[("flag", Int(BAKED_ON_DISK))]);
        file.block(b"DATA", 12, "ClothModifierData", &[&[("point_cache", Address(13))]]);
        let external = [("flag", Int(EXTERNAL)), ("name", Text("größe".as_bytes())), ("path", Text(b"//c"))];
        file.block(b"DATA", 13, "PointCache", &[&external]);
        let fluid = [("cache_flag", Int(2)), ("cache_directory", Text(b"//c"))];
        file.block(b"DATA", 14, "FluidDomainSettings", &[&fluid]);
        file.block(b"DATA", 15, "OceanModifierData", &[&[("cachepath", Text(b"//c")), ("cached", Int(1))]]);
        file.block(b"DATA", 16, "NodesModifierData", &[&[("bake_directory", Address(18))]]);
        file.block(b"DATA", 17, "NodesModifierBake", &[&[("flag", Int(2)), ("directory", Address(18))]]);
        file.text(18, b"//c");
    })
}

/// The files below `dir`, sorted.
pub(super) fn files_below(dir: &Path) -> Vec<String> {
    let (mut files, mut open) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// Lays the scene at `main` out, removes the originals, and traces what was laid out. Gives that .blend, what it refers
/// to, and the folder of both.
pub(super) fn laid_out(originals: TempDir, main: &Path) -> (PathBuf, Trace, TempDir) {
    let out = tempfile::tempdir().unwrap();
    let mut memory = Memory::default();
    let (manifest, _) = bundled(main, &mut memory);
    let blend = memory.lay_out(&manifest, out.path());
    drop(originals);
    let after = trace(&blend).unwrap();
    assert_eq!(after.missing, []);
    assert!(after.files.iter().all(|file| file.resolved.starts_with(out.path())), "{:#?}", after.files);
    (blend, after, out)
}

/// The names of what a trace found, in their order, each with the last `folders` folders.
pub(super) fn names(trace: &Trace, folders: usize) -> Vec<String> {
    let name = |path: &Path| {
        let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
        parts[parts.len() - 1 - folders..].join("/")
    };
    trace.files.iter().map(|file| name(&file.resolved)).collect()
}

#[test]
fn the_disk_cache_of_a_scene_lies_where_its_copy_looks_for_it() {
    for (blend, folder) in [("shot.blend", "blendcache_shot"), ("größe 1.blend", "blendcache_größe 1")] {
        let dir = tempfile::tempdir().unwrap();
        for name in ["4375_000001_00.bphys", "4375_-00002_00.bphys", "43_000001_00.bphys", "4375_x.bphys", "4375_1.txt"]
        {
            write(&dir, &format!("{folder}/{name}"), name.as_bytes());
        }
        let file = object(USUAL, "Cu", |file| particles(file, &[("flag", Int(BAKED_ON_DISK))]));
        let main = write(&dir, blend, &file);
        let (laid, after, _out) = laid_out(dir, &main);
        assert_eq!(names(&after, 0), ["4375_-00002_00.bphys", "4375_000001_00.bphys"]);
        let home = laid.with_file_name(format!("blendcache_{}", laid.file_stem().unwrap().to_str().unwrap()));
        assert!(after.files.iter().all(|file| file.resolved.parent() == Some(&home)), "{after:#?}");
        assert_eq!((after.files[0].kind, &*after.files[0].datablock), (RefKind::Bake, "Cu"));
    }
}

#[test]
fn the_disk_cache_of_a_linked_object_lies_beside_its_library_or_the_scene() {
    for (flag, folder) in [(0, "lib/blendcache_l"), (NOT_BESIDE_LIBRARY, "main/blendcache_m")] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, &format!("{folder}/43616D_000001_00.bphys"), b"1");
        let lib = object(USUAL, "Cam", |file| particles(file, &[("flag", Int(BAKED_ON_DISK | flag))]));
        write(&dir, "lib/l.blend", &lib);
        write(&dir, "main/strip/s 0001.png", b"1");
        write(&dir, "main/strip/s 0002.png", b"2");
        let main = write(&dir, "main/m.blend", &scene(USUAL, true, &[], &[b"//../lib/l.blend"]));
        let (_, after, _out) = laid_out(dir, &main);
        let place = &names(&after, 1)[3];
        assert_eq!(*place, format!("{}/43616D_000001_00.bphys", folder.split_once('/').unwrap().1));
    }
}

#[test]
fn the_external_cache_of_a_linked_object_is_as_seen_from_its_library_or_the_scene() {
    for (flag, path, folder) in
        [(0, "//c", "lib/c"), (NOT_BESIDE_LIBRARY, "//c", "main/c"), (NOT_BESIDE_LIBRARY, "//../lib", "lib")]
    {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, &format!("{folder}/sail_000001_00.bphys"), folder.as_bytes());
        let values = [("flag", Int(EXTERNAL | flag)), ("name", Text(b"sail")), ("path", Text(path.as_bytes()))];
        write(&dir, "lib/l.blend", &object(USUAL, "Cam", |file| particles(file, &values)));
        write(&dir, "main/strip/s 0001.png", b"1");
        write(&dir, "main/strip/s 0002.png", b"2");
        let main = write(&dir, "main/m.blend", &scene(USUAL, true, &[], &[b"//../lib/l.blend"]));
        let (_, after, _out) = laid_out(dir, &main);
        let found: Vec<_> = after.files.iter().filter(|file| file.kind == RefKind::Bake).collect();
        assert_eq!(
            found.iter().map(|file| std::fs::read(&file.resolved).unwrap()).collect::<Vec<_>>(),
            [folder.as_bytes()]
        );
    }
}

#[test]
fn an_external_cache_travels_from_the_folder_chosen_under_a_name_every_system_takes() {
    for (name, files) in [("smoke", "smoke"), ("mein größter", "_")] {
        let dir = tempfile::tempdir().unwrap();
        for number in ["000001_00", "000002", "000003_00x"] {
            write(&dir, &format!("far away/{name}_{number}.bphys"), number.as_bytes());
        }
        let folder = dir.path().join("far away");
        let values = [
            ("flag", Int(EXTERNAL)),
            ("name", Text(name.as_bytes())),
            ("path", Text(folder.to_str().unwrap().as_bytes())),
        ];
        let main = write(&dir, "main/m.blend", &object(SHAPES[4], "Cu", |file| particles(file, &values)));
        let (_, after, _out) = laid_out(dir, &main);
        let names = names(&after, 0);
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].ends_with("_000001_00.bphys") && names[1].ends_with("_000002.bphys"), "{names:?}");
        assert!(names[0].starts_with("smoke_") == (files == "smoke"), "{names:?}");
    }
}

#[test]
fn a_baked_cache_that_is_gone_is_missing_and_one_never_baked_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let missing = |flag: i64| {
        let file = object(USUAL, "Cu", |file| particles(file, &[("flag", Int(flag))]));
        trace(&write(&dir, "m.blend", &file)).unwrap().missing
    };
    let gone = missing(BAKED_ON_DISK);
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].resolved, dir.path().join("blendcache_m/4375_*.bphys"));
    assert!(gone[0].to_string().starts_with("baked cache `Cu`: "), "{}", gone[0]);
    // Baked into the .blend, and on disk but not baked.
    assert_eq!((missing(1), missing(1 << 6)), (vec![], vec![]));
}

#[test]
fn the_folders_of_a_fluid_travel_and_nothing_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    for name in
        ["config/config_0001.uni", "data/fluid_data_0001.vdb", "mesh/fluid_mesh_0001.bobj.gz", "script/x.py", "a.vdb"]
    {
        write(&dir, &format!("fluid cache/{name}"), name.as_bytes());
    }
    let values = [("cache_flag", Int(2)), ("cache_directory", Text(b"//../fluid cache"))];
    let file = object(USUAL, "Cu", |file| file.block(b"DATA", 10, "FluidDomainSettings", &[&values]));
    let main = write(&dir, "main/m.blend", &file);
    let (_, after, out) = laid_out(dir, &main);
    assert_eq!(
        names(&after, 1),
        ["config/config_0001.uni", "data/fluid_data_0001.vdb", "mesh/fluid_mesh_0001.bobj.gz"]
    );
    assert_eq!(files_below(out.path()).len(), 4);
}

#[test]
fn a_baked_ocean_and_external_multires_travel() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["disp_0001.exr", "foam_0001.exr", "spray_inverse_0001.exr", "dispenser.exr", "disp_0001.png"] {
        write(&dir, &format!("ocean/{name}"), name.as_bytes());
    }
    write(&dir, "multi.btx", b"multires");
    let file = object(USUAL, "Cu", |file| {
        let values = [("cachepath", Text(b"//ocean/")), ("cached", Int(1))];
        file.block(b"DATA", 10, "OceanModifierData", &[&values]);
        file.block(b"DATA", 11, "CustomDataExternal", &[&[("filename", Text(b"//multi.btx"))]]);
    });
    let main = write(&dir, "m.blend", &file);
    let (_, after, _out) = laid_out(dir, &main);
    assert_eq!(names(&after, 0), ["disp_0001.exr", "foam_0001.exr", "spray_inverse_0001.exr", "multi.btx"]);
}

/// Geometry nodes keep the directory as a text of just its length.
#[test]
fn a_bake_whose_folder_has_a_short_name_travels_although_its_place_is_longer() {
    for shape in SHAPES {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["b/77/meta/0001_00000.json", "b/77/blobs/0001_00000.blob", "b/notes/meta/x.json", "c/meta/0001.json"]
        {
            write(&dir, name, name.as_bytes());
        }
        write(&dir, "main/tex.png", b"behind what grows");
        let file = object(shape, "Cu", |file| {
            file.block(b"DATA", 10, "NodesModifierData", &[&[("bake_directory", Address(11))]]);
            file.text(11, b"//../b");
            let own = [("flag", Int(2)), ("directory", Address(13))];
            let packed = [("flag", Int(2)), ("directory", Address(13)), ("packed", Address(99))];
            let inherits = [("directory", Address(13))];
            file.block(b"DATA", 12, "NodesModifierBake", &[&inherits, &own, &packed]);
            file.text(13, b"//../c");
            let image = [("id.name", Text(b"IMi")), ("source", Int(1)), ("name", Text(b"//tex.png"))];
            file.block(b"IM\0\0", 20, "Image", &[&image]);
        });
        let main = write(&dir, "main/m.blend", &file);
        let (laid, after, out) = laid_out(dir, &main);
        assert_eq!(names(&after, 2)[..2], ["77/meta/0001_00000.json", "77/blobs/0001_00000.blob"], "{shape:?}");
        assert!(names(&after, 1)[2..] == ["meta/0001.json", names(&after, 1)[3].as_str()], "{after:#?}");
        assert_eq!(std::fs::read(&after.files[3].resolved).unwrap(), b"behind what grows");
        assert_eq!(files_below(out.path()).len(), 5);
        assert!(std::fs::read(laid).unwrap().len() > file.len());
    }
}

/// Bakes cloth, multires, particles that become an external cache, and a fluid where this Blender has them, in a folder.
const BAKE: &str = r"
import bpy, os, shutil
D = FOLDER
bpy.ops.wm.save_as_mainfile(filepath=D + '/main/größe 1.blend')
scene = bpy.context.scene; scene.frame_end = 4
cube = bpy.data.objects['Cube']; cube.name = 'Würfel'
cube.modifiers.new('cloth', 'CLOTH').point_cache.use_disk_cache = True
cube.modifiers['cloth'].point_cache.frame_end = 4
bpy.ops.mesh.primitive_cube_add(); multires = bpy.context.object; multires.name = 'Multires'
multires.modifiers.new('m', 'MULTIRES')
bpy.ops.object.multires_subdivide(modifier='m', mode='SIMPLE'); bpy.ops.object.multires_subdivide(modifier='m')
bpy.ops.object.multires_external_save(modifier='m', filepath=D + '/far away/multi.btx', relative_path=True)
if bpy.app.build_options.fluid:
    bpy.ops.mesh.primitive_cube_add(size=2); flow = bpy.context.object
    flow.modifiers.new('f', 'FLUID').fluid_type = 'FLOW'
    flow.modifiers['f'].flow_settings.flow_type = 'LIQUID'; flow.modifiers['f'].flow_settings.flow_behavior = 'INFLOW'
    bpy.ops.mesh.primitive_cube_add(size=4); domain = bpy.context.object; domain.name = 'Fluid'
    domain.modifiers.new('f', 'FLUID').fluid_type = 'DOMAIN'; settings = domain.modifiers['f'].domain_settings
    settings.domain_type = 'LIQUID'; settings.use_mesh = True; settings.resolution_max = 16; settings.cache_frame_end = 4
    settings.cache_type = 'ALL'; settings.cache_directory = D + '/far away/fluid'
    bpy.ops.fluid.bake_all()
bpy.ops.mesh.primitive_cube_add(); emitter = bpy.context.object; emitter.name = 'Emitter'
emitter.modifiers.new('p', 'PARTICLE_SYSTEM'); spray = emitter.particle_systems[0]
spray.settings.count = 20; spray.settings.frame_end = 3
cache = spray.point_cache; cache.use_disk_cache = True; cache.frame_end = 4; cache.name = 'spray ä'
bpy.ops.ptcache.bake_all(bake=True)
for folder, folders, files in os.walk(D + '/main'):
    for name in files:
        if name.startswith('spray'): shutil.copy(os.path.join(folder, name), D + '/far away')
with bpy.context.temp_override(point_cache=cache): bpy.ops.ptcache.free_bake()
cache.use_external = True; cache.filepath = D + '/far away'; cache.name = 'spray ä'; cache.index = 0
bpy.ops.wm.save_mainfile()
";

/// Where the points of the frame asked for are.
const LOOK: &str = r"
import bpy
bpy.context.scene.frame_set(3)
for name in ('Würfel', 'Multires', 'Fluid', 'Emitter'):
    if name in bpy.data.objects:
        seen = bpy.data.objects[name].evaluated_get(bpy.context.evaluated_depsgraph_get())
        points = [vertex.co for vertex in seen.data.vertices]
        if name == 'Emitter': points = [particle.location for particle in seen.particle_systems[0].particles]
        print('POINTS', name, len(points), [round(x, 4) for point in points[:50] for x in point])
";

fn points(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("POINTS")).collect()
}

#[test]
fn blender_plays_baked_physics_from_a_bundle_whose_originals_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "far away/x", b"");
    write(&dir, "main/x", b"");
    let script = BAKE.replace("FOLDER", &format!("{:?}", dir.path().to_str().unwrap()));
    if blender(&[], &script).is_none() {
        println!("no Blender here; nothing is shown");
        return;
    }
    let main = dir.path().join("main/größe 1.blend");
    let before = blender(&[main.to_str().unwrap()], LOOK).unwrap();
    let (laid, after, out) = laid_out(dir, &main);
    let found = names(&after, 0);
    assert!(found.iter().any(|name| name.ends_with("_000003_00.bphys")), "{found:?}");
    assert!(found.iter().any(|name| name == "multi.btx"), "{found:?}");
    let said = blender(&[laid.to_str().unwrap()], LOOK).unwrap();
    assert!(points(&before).len() >= 3);
    assert_eq!(points(&said), points(&before));
    // And it is the caches that say so.
    for file in files_below(out.path()).iter().filter(|file| !file.ends_with(".blend")) {
        std::fs::remove_file(out.path().join(file)).unwrap();
    }
    let said = blender(&[laid.to_str().unwrap()], LOOK).unwrap();
    for (without, with) in points(&said).iter().zip(points(&before)) {
        assert_ne!(*without, with);
    }
}

/// Runs a script in the Python with bpy that `scripts/setup` makes; `None` where there is none.
pub(super) fn bpy(script: &str, arguments: &[&str]) -> Option<String> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share/swarm/bpy"));
    let environment = std::env::var_os("SWARM_BPY_DIR").map(PathBuf::from).or_else(home)?;
    // Some releases crash or hang as Python ends.
    let script = format!("{script}\nimport os, sys; sys.stdout.flush(); os._exit(0)");
    let mut command = std::process::Command::new(environment.join("bin/python3"));
    let output = command.args(["-c", &script]).args(arguments).stdin(std::process::Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

#[test]
fn blender_plays_baked_geometry_nodes_from_a_bundle_whose_originals_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "main/x", b"");
    let bake = r"
import bpy, sys
D = sys.argv[-1]
cube = bpy.context.object
nodes = cube.modifiers.new('g', 'NODES'); tree = bpy.data.node_groups.new('t', 'GeometryNodeTree'); nodes.node_group = tree
for way in ('INPUT', 'OUTPUT'): tree.interface.new_socket('Geometry', in_out=way, socket_type='NodeSocketGeometry')
first, last = tree.nodes.new('NodeGroupInput'), tree.nodes.new('NodeGroupOutput')
start, end = tree.nodes.new('GeometryNodeSimulationInput'), tree.nodes.new('GeometryNodeSimulationOutput')
start.pair_with_output(end)
move = tree.nodes.new('GeometryNodeTransform'); move.inputs['Translation'].default_value = (0, 0, 1)
for a, b in ((first, start), (move, end)): tree.links.new(a.outputs['Geometry'], b.inputs['Geometry'])
tree.links.new(start.outputs['Geometry'], move.inputs['Geometry'])
tree.links.new(end.outputs['Geometry'], last.inputs['Geometry'])
bpy.context.scene.frame_end = 4
bpy.ops.wm.save_as_mainfile(filepath=D + '/main/shot.blend')
bpy.context.evaluated_depsgraph_get()
nodes.bake_directory = '//../b'
if hasattr(nodes, 'bake_target'): nodes.bake_target = 'DISK'
for bake in nodes.bakes:
    bpy.ops.object.geometry_node_bake_single(session_uid=cube.session_uid, modifier_name='g', bake_id=bake.bake_id)
# What is not baked any more is seen.
move.inputs['Translation'].default_value = (5, 5, 5)
bpy.ops.wm.save_mainfile()
";
    let look = format!(
        "import bpy, sys\nbpy.ops.wm.open_mainfile(filepath=sys.argv[-1])\n{}",
        LOOK.replace("'Würfel'", "'Cube'")
    );
    if bpy(bake, &[dir.path().to_str().unwrap()]).is_none() {
        println!("no bpy here; nothing is shown");
        return;
    }
    let main = dir.path().join("main/shot.blend");
    let before = bpy(&look, &[main.to_str().unwrap()]).unwrap();
    let (laid, after, out) = laid_out(dir, &main);
    assert!(names(&after, 1).iter().filter(|name| name.starts_with("meta/")).count() >= 4, "{:?}", names(&after, 2));
    let said = bpy(&look, &[laid.to_str().unwrap()]).unwrap();
    assert_eq!((points(&said), points(&said).len()), (points(&before), 1));
    for file in files_below(out.path()).iter().filter(|file| !file.ends_with(".blend")) {
        std::fs::remove_file(out.path().join(file)).unwrap();
    }
    assert_ne!(points(&bpy(&look, &[laid.to_str().unwrap()]).unwrap()), points(&before));
}
