//! Facts about files that nodes of geometry import by a path that comes from outside of their group.

use super::super::synthetic::{Builder, Value::*};
use super::caches::{bpy, laid_out, names};
use super::*;

/// A group whose importer takes its path from outside, in an object's modifier and in a node of another group.
fn fed(property: Option<&[u8]>, link_from: u64) -> Vec<u8> {
    let mut file = Builder::new(USUAL);
    file.block(b"GLOB", 90, "FileGlobal", &[&[("curscene", Address(91))]]);
    file.block(b"SC\0\0", 91, "Scene", &[&[("id.name", Text(b"SCs")), ("camera", Address(1))]]);
    let object = [("id.name", Text(b"OBo")), ("modifiers.first", Address(2)), ("mat", Address(9))];
    file.block(b"OB\0\0", 1, "Object", &[&object]);
    let modifier = [("node_group", Address(20)), ("settings.properties", Address(3)), ("modifier.mode", Int(3))];
    file.block(b"DATA", 2, "NodesModifierData", &[&modifier]);
    file.block(b"DATA", 3, "IDProperty", &[&[("type", Int(6)), ("data.group.first", Address(4))]]);
    if let Some(text) = property {
        let len = text.len() as i64 + 1;
        let values =
            [("name", Text(b"Socket_2")), ("data.pointer", Address(5)), ("len", Int(len)), ("totallen", Int(len))];
        file.block(b"DATA", 4, "IDProperty", &[&values]);
        file.text(5, text);
    }
    file.addresses(9, &[20, 40]);
    let tree = [("id.name", Text(b"NTinner")), ("nodes.first", Address(21)), ("links.first", Address(26))];
    file.block(b"NT\0\0", 20, "bNodeTree", &[&tree]);
    let importer = [
        ("next", Address(22)),
        ("name", Text(b"Import STL")),
        ("idname", Text(b"GeometryNodeImportSTL")),
        ("inputs.first", Address(24)),
    ];
    file.block(b"DATA", 21, "bNode", &[&importer]);
    let input = [("next", Address(23)), ("idname", Text(b"NodeGroupInput"))];
    file.block(b"DATA", 22, "bNode", &[&input]);
    let other = [("next", Address(30)), ("idname", Text(b"FunctionNodeStringJoin"))];
    file.block(b"DATA", 23, "bNode", &[&other]);
    file.block(b"DATA", 24, "bNodeSocket", &[&[("identifier", Text(b"Path"))]]);
    file.block(b"DATA", 25, "bNodeSocket", &[&[("identifier", Text(b"Socket_2"))]]);
    // By way of a reroute.
    let link = [("next", Address(27)), ("fromnode", Address(30)), ("tosock", Address(24))];
    file.block(b"DATA", 26, "bNodeLink", &[&link]);
    let link = [("fromnode", Address(link_from)), ("fromsock", Address(25)), ("tosock", Address(31))];
    file.block(b"DATA", 27, "bNodeLink", &[&link]);
    let reroute = [("idname", Text(b"NodeReroute")), ("inputs.first", Address(31))];
    file.block(b"DATA", 30, "bNode", &[&reroute]);
    file.block(b"DATA", 31, "bNodeSocket", &[&[("identifier", Text(b"Input"))]]);
    file.block(b"NT\0\0", 40, "bNodeTree", &[&[("id.name", Text(b"NTouter")), ("nodes.first", Address(41))]]);
    let group = [("idname", Text(b"GeometryNodeGroup")), ("id", Address(20)), ("inputs.first", Address(42))];
    file.block(b"DATA", 41, "bNode", &[&group]);
    let socket = [("identifier", Text(b"Socket_2")), ("default_value", Address(43))];
    file.block(b"DATA", 42, "bNodeSocket", &[&socket]);
    file.block(b"DATA", 43, "bNodeSocketValueString", &[&[("value", Text(b"//group.stl"))]]);
    file.finish()
}

fn computed(main: &Path) -> Vec<String> {
    let found = super::super::survey(main, &trace(main).unwrap(), &Overrides::default()).unwrap();
    found.computed.into_iter().map(|one| format!("{} in {}", one.node, one.datablock)).collect()
}

#[test]
fn a_path_that_a_modifier_or_another_group_puts_in_is_followed_and_one_that_nodes_make_is_told() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "main/group.stl", b"group");
    write(&dir, "models/a-model-with-a-long-name.stl", b"model");
    let main = write(&dir, "main/m.blend", &fed(Some(b"//../models/a-model-with-a-long-name.stl"), 22));
    assert_eq!(computed(&main), Vec::<String>::new());
    let unknown = write(&dir, "main/unknown.blend", &fed(None, 22));
    assert_eq!(
        (computed(&unknown), names(&trace(&unknown).unwrap(), 0)),
        (vec!["Import STL in inner".into()], vec!["group.stl".into()])
    );
    let made = write(&dir, "main/made.blend", &fed(Some(b"//x"), 23));
    assert_eq!((computed(&made), names(&trace(&made).unwrap(), 0)), (vec!["Import STL in inner".into()], vec![]));
    let (_, after, _out) = laid_out(dir, &main);
    let mut found = names(&after, 0);
    found.sort();
    assert_eq!(found, ["a-model-with-a-long-name.stl", "group.stl"]);
}

#[test]
fn a_longer_path_of_a_modifier_says_how_long_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "group.stl", b"group");
    write(&dir, "m/a.stl", b"model");
    let (laid, _, _out) = laid_out_of(dir, &fed(Some(b"//m/a.stl"), 22));
    let copy = super::super::dna::Blend::open(&laid).unwrap();
    let property = (0..copy.blocks().len())
        .filter_map(|index| copy.record(index))
        .find(|record| record.struct_name() == "IDProperty" && record.text("name") == Some(b"Socket_2"))
        .unwrap();
    let text = copy.block_text(copy.find(property.block, property.pointer("data.pointer").unwrap()).unwrap());
    assert!(text.ends_with(b"/a.stl") && text.len() > 9);
    let len = Some(text.len() as i64 + 1);
    assert_eq!((property.int("len"), property.int("totallen")), (len, len));
}

fn laid_out_of(dir: TempDir, file: &[u8]) -> (PathBuf, Trace, TempDir) {
    let main = write(&dir, "m.blend", file);
    laid_out(dir, &main)
}

/// Two objects with one group whose importer takes its path from its modifier.
const FED: &str = r#"
import bpy, sys
D = sys.argv[1]
for name, size in (("a", 1), ("bb", 2)):
    with open(D + "/models/" + name + ".obj", "w") as file:
        for at in range(size):
            file.write("v %d 0 0\nv %d 1 0\nv %d 0 1\n" % (at, at, at))
        for at in range(size):
            file.write("f %d %d %d\n" % (3 * at + 1, 3 * at + 2, 3 * at + 3))
tree = bpy.data.node_groups.new("Loader", "GeometryNodeTree")
path = tree.interface.new_socket("File", in_out="INPUT", socket_type="NodeSocketString")
tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
start, end = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
load, real = tree.nodes.new("GeometryNodeImportOBJ"), tree.nodes.new("GeometryNodeRealizeInstances")
tree.links.new(start.outputs[0], load.inputs["Path"])
tree.links.new(load.outputs[0], real.inputs[0])
tree.links.new(real.outputs[0], end.inputs[0])
for name in ("a", "bb"):
    bpy.ops.mesh.primitive_cube_add()
    bpy.context.object.name = name
    modifier = bpy.context.object.modifiers.new("Load", "NODES")
    modifier.node_group = tree
    modifier[path.identifier] = "//../models/" + name + ".obj"
bpy.ops.wm.save_as_mainfile(filepath=D + "/main/shot.blend")
"#;

const COUNT: &str = r#"
import bpy, sys
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
seen = bpy.context.evaluated_depsgraph_get()
for name in ("a", "bb"):
    print("POINTS", name, len(bpy.data.objects[name].evaluated_get(seen).to_mesh().vertices))
"#;

#[test]
fn blender_imports_what_modifiers_name_from_a_bundle_whose_originals_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    for place in ["main", "models"] {
        std::fs::create_dir(dir.path().join(place)).unwrap();
    }
    if bpy(FED, &[dir.path().to_str().unwrap()]).is_none() {
        println!("no bpy here; nothing is shown");
        return;
    }
    let main = dir.path().join("main/shot.blend");
    assert_eq!((names(&trace(&main).unwrap(), 0), computed(&main)), (vec!["a.obj".into(), "bb.obj".into()], vec![]));
    let count = |blend: &Path| {
        let said = bpy(COUNT, &[blend.to_str().unwrap()]).unwrap();
        said.lines().filter(|line| line.starts_with("POINTS")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(count(&main), ["POINTS a 3", "POINTS bb 6"]);
    let (laid, _, out) = laid_out(dir, &main);
    assert_eq!(count(&laid), ["POINTS a 3", "POINTS bb 6"]);
    drop(out);
}
