//! Facts about what is packed into a .blend.

use super::super::dna::Blend;
use super::super::synthetic::{Builder, Value::*};
use super::caches::{files_below, laid_out, names};
use super::*;

/// A scene whose object `Cam` uses that of each of these libraries, which have these bytes packed, and an image that is packed
/// too.
fn with_packed(shape: Shape, libraries: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut file = Builder::new(shape);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs"))]]);
    let image =
        [("id.name", Text(b"IMi")), ("source", Int(1)), ("name", Text(b"//in it.png")), ("packedfile", Address(3))];
    file.block(b"IM\0\0", 2, "Image", &[&image]);
    file.block(b"DATA", 3, "PackedFile", &[&[("size", Int(3)), ("data", Address(4))]]);
    file.text(4, b"png");
    let linked: Vec<u64> = (0x103..).step_by(4).take(libraries.len()).collect();
    file.block(b"OB\0\0", 5, "Object", &[&[("id.name", Text(b"OBCam")), ("mat", Address(6))]]);
    file.addresses(6, &linked);
    for (nth, (path, packed)) in (0x100..).step_by(4).zip(libraries) {
        let file_of = if packed.is_some() { nth + 1 } else { 0 };
        let library = [("id.name", Text(b"LIl")), ("name", Text(path.as_bytes())), ("packedfile", Address(file_of))];
        file.block(b"LI\0\0", nth, "Library", &[&library]);
        if let Some(packed) = packed {
            let values = [("size", Int(packed.len() as i64)), ("data", Address(nth + 2))];
            file.block(b"DATA", nth + 1, "PackedFile", &[&values]);
            file.text(nth + 2, packed);
        }
        file.block(b"ID\0\0", nth + 3, "ID", &[&[("name", Text(b"OBCam"))]]);
    }
    file.finish()
}

/// A scene with one packed library, for the fuzzer.
pub(super) fn of_one(shape: Shape) -> Vec<u8> {
    with_packed(shape, &[("//lib/l.blend", Some(&scene(shape, true, &[b"//../wood.png"], &[])))])
}

#[test]
fn what_a_packed_library_names_travels_and_in_the_bundle_it_is_a_file() {
    for (shape, pack) in SHAPES.into_iter().zip([<[u8]>::to_vec, gzip, zstd, <[u8]>::to_vec, zstd]) {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "tex/wood.png", b"wood");
        write(&dir, "lib/near.png", b"near");
        // What lies in its place is not what Blender takes.
        write(&dir, "lib/l.blend", &scene(shape, true, &[b"//other.png"], &[]));
        let library = pack(&scene(shape, true, &[b"//../tex/wood.png"], &[]));
        let near = pack(&scene(shape, true, &[b"//near.png"], &[]));
        let packed = [("//../lib/l.blend", Some(&*library)), ("//../lib/n.blend", Some(&*near))];
        let main = write(&dir, "main/m.blend", &with_packed(shape, &packed));
        let before = trace(&main).unwrap();
        assert_eq!((names(&before, 1), &before.missing), (vec!["tex/wood.png".into(), "lib/near.png".into()], &vec![]));
        assert_eq!(before.files[0].from, dir.path().join("lib/l.blend"), "{shape:?}");
        let (laid, after, out) = laid_out(dir, &main);
        let mut found = names(&after, 0);
        found.sort();
        assert_eq!(found, ["l.blend", "n.blend", "near.png", "wood.png"], "{shape:?}");
        assert_eq!((files_below(out.path()).len(), after.packed.size().0), (5, 0));
        assert!(std::fs::metadata(&laid).unwrap().len() < library.len() as u64 + near.len() as u64 + 60_000);
        let copy = Blend::open(&laid).unwrap();
        let is_packed = |(index, _)| copy.record(index).is_some_and(|library| library.points("packedfile"));
        assert!(!copy.coded(*b"LI\0\0").any(is_packed) && copy.coded(*b"IM\0\0").all(is_packed));
    }
}

#[test]
fn what_is_packed_is_missed_by_nobody_and_what_a_packed_library_lacks_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let whole = scene(USUAL, true, &[], &[]);
    let main = write(&dir, "m.blend", &with_packed(USUAL, &[("//gone/l.blend", Some(&whole))]));
    let found = trace(&main).unwrap();
    assert_eq!((&found.files, &found.missing), (&vec![], &vec![]));
    let lacks = [scene(USUAL, true, &[b"//gone.png"], &[]), with_packed(USUAL, &[("//sub/l2.blend", None)])];
    for (lacks, wanted) in lacks.iter().zip(["gone/gone.png", "gone/sub/l2.blend"]) {
        let main = write(&dir, "m.blend", &with_packed(USUAL, &[("//gone/l.blend", Some(lacks))]));
        let missing: Vec<PathBuf> = trace(&main).unwrap().missing.into_iter().map(|missing| missing.resolved).collect();
        assert_eq!(missing, [dir.path().join(wanted)]);
    }
    let damaged = write(&dir, "m.blend", &with_packed(USUAL, &[("//gone/l.blend", Some(b"no scene"))]));
    let error = trace(&damaged).unwrap_err();
    assert!(matches!(&error, SceneError::NotABlend(path) if *path == dir.path().join("gone/l.blend")), "{error}");
}

#[test]
fn libraries_of_packed_libraries_are_found_wherever_they_are_packed() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "tex/wood.png", b"wood");
    let inmost = scene(USUAL, true, &[b"//../tex/wood.png"], &[]);
    // Blender packs all into the scene, whoever links it; but a library that is packed may have been saved with another.
    let links = with_packed(USUAL, &[("//../deep/d.blend", None)]);
    let holds = with_packed(USUAL, &[("//../deep/d.blend", Some(&inmost))]);
    let beside = [("//../lib/l.blend", Some(&*links)), ("//../deep/d.blend", Some(&*inmost))];
    for libraries in [&beside[..], &[("//../lib/l.blend", Some(&holds))]] {
        let main = write(&dir, "main/m.blend", &with_packed(USUAL, libraries));
        let found = trace(&main).unwrap();
        assert_eq!((names(&found, 0), &found.missing), (vec!["wood.png".into()], &vec![]));
        let (manifest, _) = bundled(&main, &mut Memory::default());
        assert_eq!(manifest.files.len(), 4, "{manifest:#?}");
    }
    let main = write(&dir, "main/m.blend", &with_packed(USUAL, &beside));
    let (_, after, _out) = laid_out(dir, &main);
    assert_eq!(names(&after, 0), ["l.blend", "d.blend", "d.blend", "wood.png"]);
}

#[test]
fn a_simulation_in_a_packed_library_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let library = survey::of_every_kind(USUAL);
    let mut file = Builder::new(USUAL);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs")), ("camera", Address(6))]]);
    let values = [("id.name", Text(b"LIl")), ("name", Text(b"//gone/l.blend")), ("packedfile", Address(3))];
    file.block(b"LI\0\0", 2, "Library", &[&values]);
    file.block(b"DATA", 3, "PackedFile", &[&[("size", Int(library.len() as i64)), ("data", Address(4))]]);
    file.text(4, &library);
    file.block(b"ID\0\0", 6, "ID", &[&[("name", Text(b"OBCu"))]]);
    let main = write(&dir, "m.blend", &file.finish());
    let found = super::super::survey(&main, &trace(&main).unwrap(), &Overrides::default()).unwrap();
    assert!(survey::kinds(&found).contains("cloth "), "{found:?}");
}

/// Any number of libraries may claim the same bytes, or to be the scene itself.
#[test]
fn bytes_are_those_of_one_library_and_a_scene_is_no_library_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let library = scene(USUAL, true, &[], &[]);
    let mut file = Builder::new(USUAL);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs"))]]);
    file.block(b"SO\0\0", 3, "PackedFile", &[&[("size", Int(library.len() as i64)), ("data", Address(4))]]);
    file.block(b"SO\0\0", 4, "Raw", &[]);
    for nth in 0..3 {
        let path = format!("//gone/{nth}.blend");
        let values = [("id.name", Text(b"LIl")), ("name", Text(path.as_bytes())), ("packedfile", Address(3))];
        file.block(b"LI\0\0", 10 + 2 * nth, "Library", &[&values]);
        file.block(b"ID\0\0", 11 + 2 * nth, "ID", &[&[("name", Text(b"OBCam"))]]);
    }
    let error = trace(&write(&dir, "m.blend", &file.finish())).unwrap_err();
    assert!(matches!(&error, SceneError::NotABlend(path) if path.ends_with("0.blend")), "{error}");
    let main = write(&dir, "m.blend", &with_packed(USUAL, &[("//m.blend", Some(&library))]));
    let found = trace(&main).unwrap();
    assert_eq!((found.blends.len(), found.packed.size().0), (1, 0));
}

/// A scene with a packed library that links another, packed too, with an image on disk; and an image that is packed.
const PACK: &str = r"
import bpy, os
D = FOLDER
def image(name, color):
    image = bpy.data.images.new('made', 4, 4); image.pixels = list(color) * 16
    image.filepath_raw = D + name; image.file_format = 'PNG'; image.save()
    bpy.data.images.remove(image)
image('/tex/red.png', (1, 0, 0, 1)); image('/tex/packed.png', (0, 1, 0, 1))
deep = bpy.data.materials.new('Deep'); deep.use_nodes = True; deep.use_fake_user = True
deep.node_tree.nodes.new('ShaderNodeTexImage').image = bpy.data.images.load(D + '/tex/red.png')
bpy.ops.wm.save_as_mainfile(filepath=D + '/deep/deep.blend', relative_remap=True)
bpy.ops.wm.read_factory_settings()
with bpy.data.libraries.load(D + '/deep/deep.blend', link=True) as (a, b): b.materials = ['Deep']
cube = bpy.data.objects['Cube']; cube.name = 'Linked'; cube.data.materials[0] = b.materials[0]
bpy.ops.wm.save_as_mainfile(filepath=D + '/lib/lib.blend', relative_remap=True, compress=True)
bpy.ops.wm.read_factory_settings()
bpy.ops.wm.save_as_mainfile(filepath=D + '/main/shot.blend')
with bpy.data.libraries.load(D + '/lib/lib.blend', link=True, relative=True) as (a, b): b.objects = ['Linked']
bpy.context.collection.objects.link(b.objects[0])
packed = bpy.data.images.load(D + '/tex/packed.png'); packed.pack(); packed.use_fake_user = True
bpy.ops.file.pack_libraries()
assert all(library.packed_file for library in bpy.data.libraries)
bpy.ops.wm.save_mainfile()
for path in ('/deep/deep.blend', '/lib/lib.blend', '/tex/packed.png'): os.remove(D + path)
";

const LOOK: &str = r"
import bpy
assert bpy.data.objects['Linked'].data.materials[0].name == 'Deep'
for image in bpy.data.images: print('IMAGE', image.name, image.size[0], bool(image.packed_file))
";

#[test]
fn blender_opens_what_a_packed_library_names_from_a_bundle_whose_originals_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    for place in ["main", "lib", "deep", "tex"] {
        std::fs::create_dir(dir.path().join(place)).unwrap();
    }
    let script = PACK.replace("FOLDER", &format!("{:?}", dir.path().to_str().unwrap()));
    if blender(&[], &script).is_none() {
        println!("no Blender here; nothing is shown");
        return;
    }
    let main = dir.path().join("main/shot.blend");
    let look = |blend: &Path| {
        let said = blender(&[blend.to_str().unwrap()], LOOK).unwrap();
        let mut images: Vec<String> =
            said.lines().filter(|line| line.starts_with("IMAGE ")).map(str::to_owned).collect();
        images.retain(|image| image.contains(".png"));
        images
    };
    let wanted = ["IMAGE packed.png 4 True", "IMAGE red.png 4 False"];
    assert_eq!(look(&main), wanted);
    let before = trace(&main).unwrap();
    assert_eq!((names(&before, 1), &before.missing), (vec!["tex/red.png".into()], &vec![]));
    let (laid, _, out) = laid_out(dir, &main);
    assert_eq!((look(&laid), files_below(out.path()).len()), (wanted.map(str::to_owned).to_vec(), 4));
}
