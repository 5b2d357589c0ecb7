//! Facts about paths: those of other machines, other cases, links, and what travels though no .blend names it.

use super::*;

/// A scene with images at `paths` and nothing else that is missing.
fn scene_with(dir: &TempDir, name: &str, paths: &[&[u8]]) -> PathBuf {
    for nth in [1, 2] {
        let strip = Path::new(name).with_file_name(format!("strip/s 000{nth}.png"));
        write(dir, strip.to_str().unwrap(), b"strip");
    }
    write(dir, name, &scene(USUAL, true, paths, &[]))
}

/// What the copy of the scene at `main` finds once the originals are gone, the strip aside, by content.
fn found_without_originals(dir: TempDir, main: &Path, options: TraceOptions) -> Vec<Vec<u8>> {
    let traced = super::super::trace(main, options).unwrap();
    assert_eq!(traced.missing, []);
    let (mut memory, out) = (Memory::default(), tempfile::tempdir().unwrap());
    let (manifest, _) = bundle(main, &traced, &mut memory, &mut |_| {}).unwrap();
    let laid_out = memory.lay_out(&manifest, out.path());
    drop(dir);
    let after = trace(&laid_out).unwrap();
    assert_eq!((after.missing, after.other_case), (vec![], vec![]));
    assert!(after.files.iter().all(|file| file.resolved.starts_with(out.path())));
    let contents = after.files.iter().map(|file| std::fs::read(&file.resolved).unwrap());
    contents.filter(|content| content != b"strip").collect()
}

#[test]
fn paths_of_another_machine_are_found_where_a_map_says() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "p/tex/a.png", b"drive");
    write(&dir, "p/tex/ü b.png", b"share");
    write(&dir, "p/c.png", b"home");
    let paths: [&[u8]; 3] = [br"P:\tex\a.png", "\\\\Server\\Vol\\ü b.png".as_bytes(), b"/home/nobody here/c.png"];
    let main = scene_with(&dir, "main/m.blend", &paths);
    let missing = trace(&main).unwrap().missing;
    assert_eq!(missing.len(), 3);
    assert!(missing[0].to_string().ends_with(r": P:\tex\a.png is not there"), "{}", missing[0]);
    assert_eq!(missing[2].map(), None);
    let map = |from: &str, to: &str| PathMap { from: from.into(), to: dir.path().join(to) };
    let maps = vec![map("p:", "p"), map(r"\\server\vol", "p/tex"), map("/home/nobody here", "p")];
    let found = found_without_originals(dir, &main, TraceOptions { maps, ..TraceOptions::default() });
    assert_eq!(found, [b"drive".to_vec(), b"share".to_vec(), b"home".to_vec()]);
}

#[test]
fn a_missing_path_of_another_machine_names_the_map_that_finds_it() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "proj/tex/a.png", b"");
    // Even in another case.
    let main = scene_with(&dir, "proj/shots/m.blend", &[br"P:\Proj\tex\A.png", br"\\srv\vol\gone.png"]);
    let missing = trace(&main).unwrap().missing;
    let maps: Vec<_> = missing.iter().map(|missing| missing.map().unwrap()).collect();
    assert_eq!(maps, [format!(r"P:\={}", dir.path().display()), r"\\srv\vol=FOLDER".to_owned()]);
    let (from, to) = maps[0].split_once('=').unwrap();
    let maps = vec![PathMap { from: from.into(), to: to.into() }];
    let mended = super::super::trace(&main, TraceOptions { maps, ..TraceOptions::default() }).unwrap();
    assert_eq!(mended.missing.len(), 1);
}

#[test]
fn names_in_another_case_are_found_where_only_one_is_there() {
    let dir = tempfile::tempdir().unwrap();
    if write(&dir, "probe", b"").with_file_name("PROBE").exists() {
        println!("this disk ignores case; nothing is shown");
        return;
    }
    write(&dir, "Tex/Wood.PNG", b"found");
    write(&dir, "tex2/a.png", b"exact");
    write(&dir, "tex2/A.png", b"other");
    write(&dir, "two/b.png", b"one");
    write(&dir, "two/B.PNG", b"two");
    let main = scene_with(&dir, "m.blend", &[b"//tex/wood.png", b"//tex2/a.png", b"//two/B.png"]);
    let traced = trace(&main).unwrap();
    let other: Vec<_> = traced.other_case.iter().map(|file| (&*file.stored, file.resolved.clone())).collect();
    assert_eq!(other, [("//tex/wood.png", dir.path().join("Tex/Wood.PNG"))]);
    assert_eq!(traced.missing.iter().map(|file| &*file.stored).collect::<Vec<_>>(), ["//two/B.png"]);
    std::fs::remove_file(dir.path().join("two/b.png")).unwrap();
    let found = found_without_originals(dir, &main, TraceOptions::default());
    assert_eq!(found, [b"found".to_vec(), b"exact".to_vec(), b"two".to_vec()]);
}

#[test]
fn tiles_sequences_and_strips_in_another_case_are_found() {
    let dir = tempfile::tempdir().unwrap();
    if write(&dir, "probe", b"").with_file_name("PROBE").exists() {
        println!("this disk ignores case; nothing is shown");
        return;
    }
    for name in
        ["Tex/T.1001.PNG", "Tex/T.1002.PNG", "Tex/Q_01.png", "Tex/Q_02.png", "Strip/S 0001.png", "Strip/s 0002.png"]
    {
        write(&dir, name, name.as_bytes());
    }
    use super::super::synthetic::{Builder, Value::*};
    let mut file = Builder::new(USUAL);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs")), ("ed", Address(0x70))]]);
    file.block(b"DATA", 0x70, "Editing", &[&[("seqbase.first", Address(0x71))]]);
    file.block(b"DATA", 0x71, "Sequence", &[&[("type", Int(0)), ("strip", Address(0x72))]]);
    file.block(b"DATA", 0x72, "Strip", &[&[("stripdata", Address(0x73)), ("dir", Text(b"//strip/"))]]);
    file.block(b"DATA", 0x73, "StripElem", &[&[("name", Text(b"s 0001.png"))], &[("name", Text(b"s 0002.png"))]]);
    for (address, source, path) in [(2, 6, &b"//tex/t.<UDIM>.png"[..]), (3, 2, b"//tex/q_01.png")] {
        let id = ("id.name", Text(b"IMi"));
        file.block(b"IM\0\0", address, "Image", &[&[id, ("source", Int(source)), ("name", Text(path))]]);
    }
    let main = write(&dir, "m.blend", &file.finish());
    assert_eq!(trace(&main).unwrap().other_case.len(), 3);
    let mut found = found_without_originals(dir, &main, TraceOptions::default());
    found.sort();
    let all: [&[u8]; 6] = [
        b"Strip/S 0001.png",
        b"Strip/s 0002.png",
        b"Tex/Q_01.png",
        b"Tex/Q_02.png",
        b"Tex/T.1001.PNG",
        b"Tex/T.1002.PNG",
    ];
    assert_eq!(found, all);
}

#[test]
fn images_and_strips_with_a_file_for_each_view_travel_whole() {
    use super::super::synthetic::{Builder, Value::*};
    let dir = tempfile::tempdir().unwrap();
    for name in ["tex_L.png", "tex_R.png", "strip/größe_L.png", "strip/größe_R.png", "strip/größe_M.png"] {
        write(&dir, name, name.as_bytes());
    }
    let mut file = Builder::new(USUAL);
    let views = ("r.views.first", Address(0x60));
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs")), ("ed", Address(0x70)), views]]);
    file.block(b"DATA", 0x60, "SceneRenderView", &[&[("next", Address(0x61)), ("suffix", Text(b"_L"))]]);
    file.block(b"DATA", 0x61, "SceneRenderView", &[&[("suffix", Text(b"_R"))]]);
    file.block(b"DATA", 0x70, "Editing", &[&[("seqbase.first", Address(0x71))]]);
    file.block(b"DATA", 0x71, "Sequence", &[&[("flag", Int(1 << 29)), ("strip", Address(0x72))]]);
    file.block(b"DATA", 0x72, "Strip", &[&[("stripdata", Address(0x73)), ("dir", Text(b"//strip/"))]]);
    file.block(b"DATA", 0x73, "StripElem", &[&[("name", Text("größe_L.png".as_bytes()))]]);
    let image =
        [("id.name", Text(b"IMi")), ("source", Int(1)), ("name", Text(b"//gone.png")), ("views.first", Address(3))];
    file.block(b"IM\0\0", 2, "Image", &[&image]);
    for (address, next, name) in [(3, 4, &b"//tex_L.png"[..]), (4, 0, b"//tex_R.png")] {
        let values = [("next", Address(next)), ("name", Text(b"view")), ("filepath", Text(name))];
        file.block(b"DATA", address, "ImageView", &[&values]);
    }
    let main = write(&dir, "m.blend", &file.finish());
    let mut found = found_without_originals(dir, &main, TraceOptions::default());
    found.sort();
    let all = ["strip/größe_L.png", "strip/größe_R.png", "tex_L.png", "tex_R.png"];
    assert_eq!(found, all.map(|name| name.as_bytes().to_vec()));
}

#[test]
fn the_sequence_of_a_library_travels_from_beside_it() {
    use super::super::synthetic::{Builder, Value::*};
    let dir = tempfile::tempdir().unwrap();
    for name in ["lib/q_01.png", "lib/q_02.png", "main/q_03.png"] {
        write(&dir, name, name.as_bytes());
    }
    let mut file = Builder::new(USUAL);
    file.block(b"OB\0\0", 1, "Object", &[&[("id.name", Text(b"OBCam")), ("data", Address(2))]]);
    let sequence = [("id.name", Text(b"IMi")), ("source", Int(2)), ("name", Text(b"//q_01.png"))];
    file.block(b"IM\0\0", 2, "Image", &[&sequence]);
    let library = file.finish();
    write(&dir, "lib/l.blend", &library);
    write(&dir, "main/strip/s 0001.png", b"strip");
    write(&dir, "main/strip/s 0002.png", b"strip");
    let main = write(&dir, "main/m.blend", &scene(USUAL, true, &[], &[b"//../lib/l.blend"]));
    let found = found_without_originals(dir, &main, TraceOptions::default());
    assert_eq!(found[1..], [b"lib/q_01.png".to_vec(), b"lib/q_02.png".to_vec()]);
}

#[test]
fn files_that_geometry_nodes_import_travel() {
    use super::super::synthetic::{Builder, Value::*};
    let dir = tempfile::tempdir().unwrap();
    for name in ["a b.stl", "c.obj", "lens.osl"] {
        write(&dir, name, name.as_bytes());
    }
    let mut file = Builder::new(USUAL);
    let camera = [("type", Int(3)), ("custom_mode", Int(1)), ("custom_filepath", Text(b"//lens.osl"))];
    file.block(b"CA\0\0", 1, "Camera", &[&camera]);
    let tree = [("id.name", Text(b"NTt")), ("nodes.first", Address(10)), ("links.first", Address(40))];
    file.block(b"NT\0\0", 2, "bNodeTree", &[&tree]);
    // Its own path; one from a String node, its own being stale; one linked to what is known only later; one by a dead link.
    let nodes = [
        (b"STL", 20, &b"//a b.stl"[..]),
        (b"OBJ", 22, b"//stale.obj"),
        (b"PLY", 24, b"//stale.ply"),
        (b"CSV", 26, b""),
    ];
    for (nth, (kind, socket, path)) in (0..).zip(nodes) {
        let idname = [&b"GeometryNodeImport"[..], kind].concat();
        let values = [("next", Address(11 + nth)), ("idname", Text(&idname)), ("inputs.first", Address(socket))];
        file.block(b"DATA", 10 + nth, "bNode", &[&values]);
        let values = [("identifier", Text(b"Path")), ("default_value", Address(socket + 1))];
        file.block(b"DATA", socket, "bNodeSocket", &[&values]);
        file.block(b"DATA", socket + 1, "bNodeSocketValueString", &[&[("value", Text(path))]]);
    }
    let text = [("next", Address(15)), ("idname", Text(b"FunctionNodeInputString")), ("storage", Address(30))];
    file.block(b"DATA", 14, "bNode", &[&text]);
    file.block(b"DATA", 15, "bNode", &[&[("idname", Text(b"NodeGroupInput"))]]);
    file.block(b"DATA", 30, "NodeInputString", &[&[("string", Address(31))]]);
    file.text(31, b"//c.obj");
    for (address, from, to) in [(40, 14, 22), (41, 15, 24)] {
        let values = [("next", Address(address + 1)), ("fromnode", Address(from)), ("tosock", Address(to))];
        file.block(b"DATA", address, "bNodeLink", &[&values]);
    }
    file.block(
        b"DATA",
        42,
        "bNodeLink",
        &[&[("fromnode", Address(15)), ("tosock", Address(20)), ("flag", Int(1 << 4))]],
    );
    let main = write(&dir, "m.blend", &file.finish());
    let found = found_without_originals(dir, &main, TraceOptions::default());
    assert_eq!(found, [b"lens.osl".to_vec(), b"a b.stl".to_vec(), b"c.obj".to_vec()]);
}

#[test]
fn files_that_only_brushes_and_the_interface_use_are_not_missed() {
    use super::super::synthetic::{Builder, Value::*};
    let dir = tempfile::tempdir().unwrap();
    let missing = |object_uses: u64, linked: &[u8]| {
        let mut file = Builder::new(USUAL);
        file.block(b"WM\0\0", 1, "Object", &[&[("id.name", Text(b"WMw")), ("data", Address(2))]]);
        file.block(b"SC\0\0", 2, "Scene", &[&[("id.name", Text(b"SCs")), ("camera", Address(3))]]);
        file.block(b"OB\0\0", 3, "Object", &[&[("id.name", Text(b"OBo")), ("data", Address(object_uses))]]);
        file.block(b"BR\0\0", 4, "Object", &[&[("id.name", Text(b"BRb")), ("data", Address(10))]]);
        file.block(b"SR\0\0", 5, "Object", &[&[("id.name", Text(b"SRs")), ("data", Address(20))]]);
        for (address, path) in [(10, &b"//brush.png"[..]), (11, b"//unused.png")] {
            let values = [("id.name", Text(b"IMi")), ("source", Int(1)), ("name", Text(path))];
            file.block(b"IM\0\0", address, "Image", &[&values]);
        }
        let library = b"C:/Blender/4.5/datafiles/assets/x.blend";
        file.block(b"LI\0\0", 20, "Library", &[&[("id.name", Text(b"LIl")), ("name", Text(library))]]);
        file.block(b"ID\0\0", 21, "ID", &[&[("name", Text(linked))]]);
        let missing = trace(&write(&dir, "m.blend", &file.finish())).unwrap().missing;
        missing.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let brush_only = missing(0, b"BRb");
    assert_eq!(brush_only.len(), 1);
    assert!(brush_only[0].contains("unused.png"), "{brush_only:?}");
    let all = missing(10, b"NTn");
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[2].contains("an asset of Blender's own"), "{all:?}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_the_scene_may_be_one() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "store/real.png", b"linked file");
    write(&dir, "store/deep/in.png", b"linked folder");
    write(&dir, "store/up.png", b"up from the link");
    let real = scene_with(&dir, "elsewhere/real.blend", &[b"//a.png", b"//dir/in.png", b"//dir/../up.png"]);
    std::fs::create_dir(dir.path().join("main")).unwrap();
    for (target, link) in [("store/real.png", "a.png"), ("store/deep", "dir"), ("elsewhere/strip", "strip")] {
        symlink(dir.path().join(target), dir.path().join("main").join(link)).unwrap();
    }
    // Paths are relative to the link, as Blender has it.
    let main = dir.path().join("main/m.blend");
    symlink(real, &main).unwrap();
    let found = found_without_originals(dir, &main, TraceOptions::default());
    assert_eq!(found, [b"linked file".to_vec(), b"linked folder".to_vec(), b"up from the link".to_vec()]);
}

#[test]
fn what_is_included_keeps_its_place_below_the_scene_or_lies_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["main/data/a.csv", "main/data/more/b.csv", "far/luts/c.cube", "far/one.txt", "far/other.txt"] {
        write(&dir, name, name.as_bytes());
    }
    let main = scene_with(&dir, "main/m.blend", &[]);
    let include = ["main/data", "far/luts", "far/./more/../one.txt"].map(|path| dir.path().join(path)).to_vec();
    let traced = super::super::trace(&main, TraceOptions { include, ..TraceOptions::default() }).unwrap();
    assert_eq!(traced.files.iter().filter(|file| file.kind == RefKind::Included).count(), 4);
    let (mut memory, out) = (Memory::default(), tempfile::tempdir().unwrap());
    let (manifest, stats) = bundle(&main, &traced, &mut memory, &mut |_| {}).unwrap();
    assert_eq!(stats.files, 7);
    let home = memory.lay_out(&manifest, out.path()).parent().unwrap().to_path_buf();
    for (place, from) in [
        ("data/a.csv", "main/data/a.csv"),
        ("data/more/b.csv", "main/data/more/b.csv"),
        ("luts/c.cube", "far/luts/c.cube"),
        ("one.txt", "far/one.txt"),
    ] {
        assert_eq!(std::fs::read_to_string(home.join(place)).unwrap(), from);
    }
}

#[test]
fn the_folder_of_the_scene_may_be_included_and_the_rewritten_scene_stays() {
    let dir = tempfile::tempdir().unwrap();
    let outside = write(&dir, "far/a.png", b"image");
    write(&dir, "main/notes.txt", b"notes");
    let main = write(&dir, "main/m.blend", &scene(USUAL, true, &[outside.to_str().unwrap().as_bytes()], &[]));
    write(&dir, "main/strip0001.png", b"");
    let options = TraceOptions { include: vec![dir.path().join("main")], ..TraceOptions::default() };
    let traced = super::super::trace(&main, options).unwrap();
    let (mut memory, out) = (Memory::default(), tempfile::tempdir().unwrap());
    let (manifest, _) = bundle(&main, &traced, &mut memory, &mut |_| {}).unwrap();
    let laid_out = memory.lay_out(&manifest, out.path());
    assert!(laid_out.with_file_name("notes.txt").exists());
    let image = trace(&laid_out).unwrap().files.remove(0);
    assert!(image.resolved.starts_with(out.path()), "{image:?}");
}

#[test]
fn what_cannot_be_included_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let main = scene_with(&dir, "m.blend", &[]);
    let refused = |path: &str| {
        let options = TraceOptions { include: vec![dir.path().join(path)], ..TraceOptions::default() };
        super::super::trace(&main, options).unwrap_err().to_string()
    };
    assert!(refused("gone").contains("does not exist"), "{}", refused("gone"));
    write(&dir, "names/wörld.txt", b"");
    assert!(refused("names").contains("wörld.txt cannot be included: some systems refuse its name"));
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(refused("empty").contains("there is no file in it"));
    let long = format!("long/{}/{}", "a".repeat(150), "b".repeat(150));
    write(&dir, &long, b"");
    assert!(refused("long").contains("is longer than"), "{}", refused("long"));
    #[cfg(unix)]
    {
        // A link back to a folder above would never end.
        write(&dir, "loop/a", b"");
        std::os::unix::fs::symlink(dir.path().join("loop"), dir.path().join("loop/again")).unwrap();
        let options = TraceOptions { include: vec![dir.path().join("loop")], ..TraceOptions::default() };
        let traced = super::super::trace(&main, options).unwrap();
        assert_eq!(traced.included.keys().collect::<Vec<_>>(), ["loop/a"]);
    }
}
