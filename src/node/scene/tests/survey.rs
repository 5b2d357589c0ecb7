//! Facts about what of a scene would not come out as its maker saw it.

use super::super::synthetic::{Builder, Value, Value::*};
use super::*;
use crate::farm::ability::Ability;

const RENDERS: i64 = 1 << 1;
const BASE_RENDERS: i64 = 1 << 7;

/// What kinds of things were found, without names.
pub(super) fn kinds(found: &Survey) -> BTreeSet<String> {
    let kind = |text: &str| text.split('`').next().unwrap_or_default().to_owned();
    let simulations = found.simulations.iter().map(|simulation| kind(&simulation.cache));
    let unrun = found.unrun.iter().map(|unrun| match unrun {
        Unrun::Script { .. } => "script".to_owned(),
        Unrun::Driver { .. } => "driver".to_owned(),
        Unrun::Node { .. } => "node".to_owned(),
    });
    simulations.chain(unrun).collect()
}

/// A scene whose one object has a modifier of each of these kinds, in a chain; addresses from 0x100 on, by place.
fn with_modifiers(file: &mut Builder, modifiers: &[(&str, &[(&str, Value<'_>)])]) {
    for ((nth, address), (kind, more)) in (1..).zip(0x100..).zip(modifiers) {
        let next = if nth < modifiers.len() { address + 1 } else { 0 };
        let mut values =
            vec![("modifier.next", Address(next)), ("modifier.mode", Int(RENDERS)), ("modifier.name", Text(b"mod"))];
        values.extend_from_slice(more);
        file.block(b"DATA", address, kind, &[&values]);
    }
}

/// A .blend with every simulation that is not baked, and all Python that is not run.
pub(super) fn of_every_kind(shape: Shape) -> Vec<u8> {
    let mut file = Builder::new(shape);
    file.block(b"GLOB", 1, "FileGlobal", &[&[("curscene", Address(2))]]);
    let scene = [
        ("id.name", Text(b"SCMain")),
        ("camera", Address(8)),
        ("view_layers.first", Address(3)),
        ("rigidbody_world", Address(5)),
        ("r.sfra", Int(1)),
        ("r.efra", Int(9)),
    ];
    file.block(b"SC\0\0", 2, "Scene", &[&scene]);
    file.block(b"DATA", 3, "ViewLayer", &[&[("name", Text(b"Layer")), ("object_bases.first", Address(4))]]);
    file.block(b"DATA", 4, "Base", &[&[("object", Address(9)), ("flag", Int(BASE_RENDERS))]]);
    file.block(b"DATA", 5, "RigidBodyWorld", &[&[("group", Address(10)), ("shared", Address(6))]]);
    file.block(b"DATA", 6, "RigidBodyWorld_Shared", &[&[("pointcache", Address(7))]]);
    file.block(b"DATA", 7, "PointCache", &[&[("startframe", Int(3))]]);
    file.block(b"OB\0\0", 8, "Object", &[&[("id.name", Text(b"OBCam")), ("type", Int(11))]]);
    let object = [
        ("id.name", Text(b"OBCu")),
        ("modifiers.first", Address(0x100)),
        ("soft", Address(20)),
        ("rigidbody_object", Address(21)),
        ("adt", Address(22)),
    ];
    file.block(b"OB\0\0", 9, "Object", &[&object]);
    with_modifiers(
        &mut file,
        &[
            ("ClothModifierData", &[("point_cache", Address(30))]),
            ("SoftbodyModifierData", &[]),
            ("ParticleSystemModifierData", &[("psys", Address(31))]),
            ("FluidModifierData", &[("domain", Address(33))]),
            ("DynamicPaintModifierData", &[("canvas", Address(34))]),
            (
                "NodesModifierData",
                &[("node_group", Address(40)), ("bakes", Address(36)), ("bake_directory", Address(37))],
            ),
        ],
    );
    file.block(b"DATA", 20, "SoftBody", &[&[("shared", Address(23))]]);
    file.block(b"DATA", 23, "SoftBody_Shared", &[&[("pointcache", Address(30))]]);
    file.block(b"DATA", 21, "RigidBodyOb", &[&[("type", Int(0))]]);
    file.block(b"DATA", 22, "AnimData", &[&[("drivers.first", Address(24))]]);
    file.block(b"DATA", 24, "FCurve", &[&[("driver", Address(25))]]);
    let driver = [("variables.first", Address(26)), ("expression", Text(b"var ** frame")), ("type", Int(1))];
    file.block(b"DATA", 25, "ChannelDriver", &[&driver]);
    file.block(b"DATA", 26, "DriverVar", &[&[("name", Text(b"var"))]]);
    file.block(b"DATA", 30, "PointCache", &[&[("startframe", Int(2))]]);
    let particles = [("pointcache", Address(30)), ("part", Address(41)), ("name", Text(b"dust"))];
    file.block(b"DATA", 31, "ParticleSystem", &[&particles]);
    file.block(b"DATA", 33, "FluidDomainSettings", &[&[("cache_type", Int(0))]]);
    file.block(b"DATA", 34, "DynamicPaintCanvasSettings", &[&[("surfaces.first", Address(35))]]);
    let surface = [("pointcache", Address(30)), ("name", Text(b"wet")), ("flags", Int(1)), ("format", Int(1))];
    file.block(b"DATA", 35, "DynamicPaintSurface", &[&surface]);
    file.block(b"DATA", 36, "NodesModifierBake", &[&[("id", Int(7))], &[("id", Int(8)), ("directory", Address(37))]]);
    file.text(37, b"P:\\c");
    file.block(b"GR\0\0", 10, "Collection", &[&[("id.name", Text(b"GRbodies")), ("gobject.first", Address(11))]]);
    file.block(b"DATA", 11, "CollectionObject", &[&[("ob", Address(9))]]);
    let tree = [("id.name", Text(b"NTtree")), ("nodes.first", Address(42)), ("nested_node_refs", Address(44))];
    file.block(b"NT\0\0", 40, "bNodeTree", &[&tree]);
    file.block(b"DATA", 42, "bNode", &[&[("next", Address(43)), ("idname", Text(b"LuxCoreNode"))]]);
    let zone = [("idname", Text(b"GeometryNodeSimulationOutput")), ("identifier", Int(5))];
    file.block(b"DATA", 43, "bNode", &[&zone]);
    file.block(b"DATA", 44, "bNestedNodeRef", &[&[("id", Int(6))], &[("id", Int(7)), ("path.node_id", Int(5))]]);
    file.block(b"PA\0\0", 41, "ParticleSettings", &[&[("id.name", Text(b"PAdust")), ("phystype", Int(1))]]);
    file.block(b"TX\0\0", 45, "Text", &[&[("id.name", Text(b"TXrun.py")), ("flags", Int(1 << 4))]]);
    file.finish()
}

fn surveyed(file: &[u8]) -> Result<Survey, SceneError> {
    let dir = TempDir::new().unwrap();
    let main = write(&dir, "m.blend", file);
    let trace = trace(&main).unwrap();
    super::super::survey(&main, &trace, &Overrides::default())
}

#[test]
fn every_simulation_without_a_bake_and_all_python_is_found_in_every_shape_of_file() {
    let expected = [
        "cloth ",
        "driver",
        "dynamic paint ",
        "fluid ",
        "node",
        "particles ",
        "rigid bodies",
        "script",
        "simulation zone of ",
        "soft body ",
    ];
    for shape in SHAPES {
        let found = surveyed(&of_every_kind(shape)).unwrap();
        assert_eq!(kinds(&found).into_iter().collect::<Vec<_>>(), expected, "{shape:?}");
        assert_eq!(found.cameras, ["Cam"]);
        assert_eq!(found.wants.iter().collect::<Vec<_>>(), [Ability::Bullet, Ability::Fluid]);
    }
}

#[test]
fn a_modifier_that_is_off_counts_only_where_something_animates_that() {
    let found = |path: &[u8], curve_of: u64, muted: i64| {
        let mut file = Builder::new(USUAL);
        file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs")), ("camera", Address(2))]]);
        let object = [("id.name", Text(b"OBo")), ("modifiers.first", Address(3)), ("adt", Address(5))];
        file.block(b"OB\0\0", 2, "Object", &[&object]);
        let modifier = [("modifier.name", Text(b"My \"Cloth\"")), ("point_cache", Address(4))];
        file.block(b"DATA", 3, "ClothModifierData", &[&modifier]);
        file.block(b"DATA", 4, "PointCache", &[&[]]);
        let animation = [("action", Address(10)), ("nla_tracks.first", Address(6))];
        file.block(b"DATA", 5, "AnimData", &[&animation]);
        file.block(b"DATA", 6, "NlaTrack", &[&[("strips.first", Address(7))]]);
        file.block(b"DATA", 7, "NlaStrip", &[&[("act", Address(11))]]);
        for action in 10..13 {
            file.block(b"AC\0\0", action, "bAction", &[&[("id.name", Text(b"ACa"))]]);
            if action == curve_of {
                file.block(b"DATA", 20, "FCurve", &[&[("rna_path", Address(21)), ("flag", Int(muted))]]);
                file.text(21, path);
            }
        }
        surveyed(&file.finish()).unwrap().simulations.len()
    };
    let path = br#"modifiers["My \"Cloth\""].show_render"#;
    assert_eq!([10, 11, 12].map(|action| found(path, action, 0)), [1, 1, 0]);
    assert_eq!(found(path, 10, 1 << 4), 0);
    for other in [&b"modifiers[\"Cloth\"].show_render"[..], b"modifiers[\"My \\\"Cloth\\\"\"].show_viewport", b""] {
        assert_eq!(found(other, 10, 0), 0);
    }
}

/// Else as many steps as there are layers times bases.
#[test]
fn a_list_that_all_view_layers_share_is_walked_once() {
    const LAYERS: u64 = 20_000;
    let mut file = Builder::new(USUAL);
    file.block(b"OB\0\0", 2, "Object", &[&[("id.name", Text(b"OBo"))]]);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs")), ("view_layers.first", Address(LAYERS))]]);
    for nth in 0..LAYERS {
        let layer = [("next", Address(LAYERS + nth + 1)), ("object_bases.first", Address(2 * LAYERS))];
        file.block(b"DATA", LAYERS + nth, "ViewLayer", &[&layer]);
    }
    for nth in 0..LAYERS {
        let base = [("next", Address(2 * LAYERS + nth + 1)), ("object", Address(2))];
        file.block(b"DATA", 2 * LAYERS + nth, "Base", &[&base]);
    }
    assert_eq!(surveyed(&file.finish()).unwrap(), Survey::default());
}

/// The same for the list of what a tree holds, which is looked through for each bake.
#[test]
fn a_tree_with_more_to_look_through_than_any_scene_has_is_refused() {
    const MANY: usize = 5000;
    let mut file = Builder::new(USUAL);
    file.block(b"GLOB", 3, "FileGlobal", &[&[("curscene", Address(1))]]);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs"))]]);
    file.block(b"OB\0\0", 2, "Object", &[&[("id.name", Text(b"OBo")), ("modifiers.first", Address(0x100))]]);
    let modifier: [(&str, Value<'_>); 2] = [("node_group", Address(40)), ("bakes", Address(36))];
    with_modifiers(&mut file, &[("NodesModifierData", &modifier)]);
    let wanted = [("id", Int(7))];
    file.block(b"DATA", 36, "NodesModifierBake", &vec![&wanted[..]; MANY]);
    file.block(b"NT\0\0", 40, "bNodeTree", &[&[("id.name", Text(b"NTt")), ("nested_node_refs", Address(44))]]);
    let other = [("id", Int(6))];
    file.block(b"DATA", 44, "bNestedNodeRef", &vec![&other[..]; MANY]);
    let error = surveyed(&file.finish()).unwrap_err().to_string();
    assert!(error.contains("names far more than"), "{error}");
    // And the inputs of nodes that import files, which all of them share.
    let (nodes, sockets) = (0x10_000..0x10_000 + MANY as u64, 0x20_000..0x20_000 + MANY as u64);
    let mut file = Builder::new(USUAL);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs"))]]);
    file.block(b"NT\0\0", 40, "bNodeTree", &[&[("id.name", Text(b"NTt")), ("nodes.first", Address(nodes.start))]]);
    let inputs = ("inputs.first", Address(sockets.start));
    for nth in nodes {
        let node = [("next", Address(nth + 1)), ("idname", Text(b"GeometryNodeImportOBJ")), inputs.clone()];
        file.block(b"DATA", nth, "bNode", &[&node]);
    }
    for nth in sockets {
        file.block(b"DATA", nth, "bNodeSocket", &[&[("next", Address(nth + 1))]]);
    }
    let dir = TempDir::new().unwrap();
    let error = trace(&write(&dir, "m.blend", &file.finish())).unwrap_err().to_string();
    assert!(error.contains("names far more than"), "{error}");
}

/// A library that only Blender 4.2 and newer may open, as Blender 5.2 saved it; it has a camera.
fn newer_library() -> Vec<u8> {
    let mut file = Builder::new(SHAPES[4]);
    file.block(b"GLOB", 1, "FileGlobal", &[&[("minversion", Int(402)), ("minsubversion", Int(3))]]);
    file.block(b"OB\0\0", 2, "Object", &[&[("id.name", Text(b"OBCam")), ("type", Int(11))]]);
    file.finish()
}

#[test]
fn the_library_that_only_the_newest_blenders_may_open_is_named() {
    let dir = TempDir::new().unwrap();
    let main = write(&dir, "m.blend", &scene(USUAL, false, &[], &[b"//old.blend", b"//new.blend"]));
    write(&dir, "old.blend", &scene(USUAL, false, &[], &[]));
    let new = write(&dir, "new.blend", &newer_library());
    let found = super::super::survey(&main, &trace(&main).unwrap(), &Overrides::default()).unwrap();
    assert_eq!(found.newest_library, Some((40_203, new)));
    assert_eq!(read(&main).unwrap().min_version, 30_306);
}

#[test]
fn a_file_may_be_opened_by_the_series_that_saved_it_whatever_it_says() {
    let mut file = Builder::new(USUAL);
    file.block(b"GLOB", 1, "FileGlobal", &[&[("minversion", Int(402)), ("curscene", Address(2))]]);
    let scene = [("id.name", Text(b"SCMain")), ("r.sfra", Int(1)), ("r.efra", Int(9)), ("r.frs_sec", Int(24))];
    file.block(b"SC\0\0", 2, "Scene", &[&scene]);
    let dir = TempDir::new().unwrap();
    assert_eq!(read(&write(&dir, "m.blend", &file.finish())).unwrap().min_version, 30_500);
}
