//! Facts about reading, tracing and bundling, on synthetic files; one at the end with Blender, where there is one.

use super::synthetic::{SHAPES, Shape, scene};
use super::*;
use crate::farm::blob::{BlobMap, Manifest};
use crate::farm::id::ChunkId;
use crate::farm::job::{FrameRate, ImageFormat, Series};
use crate::farm::overrides::Overrides;
use crate::node::chunk::{Chunking, chunk};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::Path;
use tempfile::TempDir;

mod caches;
mod imports;
mod inner;
mod ocio;
mod packed;
mod paths;
mod survey;

const USUAL: Shape = SHAPES[0];

/// Chunks in memory.
#[derive(Default)]
struct Memory(BTreeMap<ChunkId, Vec<u8>>);

impl BlobSink for Memory {
    fn put_file(&mut self, reader: &mut dyn Read, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
        let mut new_bytes = 0;
        let map = chunk(reader, chunking, &mut |bytes, id| {
            if self.0.insert(id, bytes.to_vec()).is_none() {
                new_bytes += bytes.len() as u64;
            }
            Ok(())
        })?;
        Ok((map, new_bytes))
    }
}

impl Memory {
    fn lay_out(&self, manifest: &Manifest, dir: &Path) -> PathBuf {
        lay_out(manifest, dir, &mut |file, path| {
            let chunks = file.map.chunks.iter().flat_map(|chunk| &self.0[&chunk.id]).copied();
            std::fs::write(path, chunks.collect::<Vec<u8>>())
        })
        .unwrap()
    }
}

fn write(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// In two frames, as Blender writes several.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 1).unwrap()].concat()
}

fn read(path: &Path) -> Result<SceneInfo, SceneError> {
    super::read(path, &Overrides::default())
}

fn trace(path: &Path) -> Result<Trace, SceneError> {
    super::trace(path, TraceOptions::default())
}

fn bundled(main: &Path, memory: &mut Memory) -> (Manifest, BundleStats) {
    bundle(main, &trace(main).unwrap(), memory, &mut |_| {}).unwrap()
}

#[test]
fn a_scene_says_what_to_render_in_every_kind_of_file() {
    let dir = tempfile::tempdir().unwrap();
    for shape in SHAPES {
        let plain = scene(shape, true, &[], &[]);
        for bytes in [plain.clone(), gzip(&plain), zstd(&plain)] {
            let info = read(&write(&dir, "s.blend", &bytes)).unwrap();
            let series = if shape.long { Series { major: 5, minor: 2 } } else { Series { major: 3, minor: 5 } };
            assert_eq!((info.version, info.subversion, info.min_version), (series, 7, 30306));
            assert_eq!((&*info.engine, &*info.scene), ("CYCLES", "Main"));
            assert_eq!((info.frame_start, info.frame_end, info.frame_step), (-5, 48, 2));
            assert_eq!(info.rate, FrameRate { fps: 30, base_millionths: 1_001_000 });
            assert_eq!((info.resolution, info.percent), ((1001, 777), 33));
            assert_eq!(info.size(), (165, 128), "half of 330 by half of 256");
            assert_eq!(info.camera.as_deref(), Some("Cam"));
            assert_eq!(
                (info.format, info.replaced_format, info.movie_format, info.depth),
                (ImageFormat::Png, Some("FFMPEG"), true, Some(16))
            );
            assert_eq!(info.samples, Some(64));
            assert!(info.needs_denoiser(None) && !info.needs_denoiser(Some("BLENDER_EEVEE")));
        }
    }
}

#[test]
fn another_scene_than_the_current_one_can_be_chosen_and_one_that_is_not_there_is_an_error_that_lists_them() {
    let dir = tempfile::tempdir().unwrap();
    let choose = |name: &str| Overrides { scene: Some(name.into()), ..Overrides::default() };
    for shape in SHAPES {
        let path = write(&dir, "s.blend", &scene(shape, true, &[], &[]));
        let info = super::read(&path, &choose("Other")).unwrap();
        assert_eq!((&*info.scene, info.frame_start, &*info.engine), ("Other", 0, "BLENDER_RENDER"));
        assert_eq!((info.camera, info.format), (None, ImageFormat::Png));
        let error = super::read(&path, &choose("Nope")).unwrap_err().to_string();
        assert_eq!(error, format!("{} has no scene `Nope`; choose among `Other`, `Main`", path.display()));
    }
    let set = vec!["scene.cycles.use_denoising=false".parse().unwrap()];
    let chosen = Overrides { camera: Some("Cam".into()), set, ..Overrides::default() };
    let info = super::read(&write(&dir, "s.blend", &scene(USUAL, false, &[], &[])), &chosen).unwrap();
    assert_eq!((info.camera.as_deref(), info.needs_denoiser(None)), (Some("Cam"), false));
}

#[test]
fn what_is_no_blend_is_told_apart_and_never_read_further() {
    let dir = tempfile::tempdir().unwrap();
    let error = |name: &str, bytes: &[u8]| read(&write(&dir, name, bytes)).unwrap_err();
    let whole = scene(USUAL, true, &[], &[]);
    assert!(matches!(read(&dir.path().join("none.blend")).unwrap_err(), SceneError::NotFound(_)));
    assert!(matches!(read(dir.path()).unwrap_err(), SceneError::NotAFile(_)));
    assert!(matches!(error("empty", b""), SceneError::NotABlend(_)));
    assert!(matches!(error("text", b"hello"), SceneError::NotABlend(_)));
    assert!(matches!(error("blenderish", b"BLENDERS are nice"), SceneError::NotABlend(_)));
    assert!(matches!(error("gz", &gzip(b"not a scene")), SceneError::NotABlend(_)));
    assert!(matches!(error("bomb", &gzip(&vec![0; 64 << 20])), SceneError::NotABlend(_)));
    assert!(matches!(error("future", b"BLENDER18-02v0900"), SceneError::Unsupported { .. }));
    assert!(matches!(error("short", b"BLENDER-v3"), SceneError::Truncated { .. }));
    assert!(matches!(error("half", &whole[..whole.len() / 2]), SceneError::Truncated { .. }));
    let packed = gzip(&whole);
    assert!(matches!(error("half.gz", &packed[..packed.len() / 2]), SceneError::Truncated { .. }));
    let packed = zstd(&whole);
    assert!(matches!(error("half.zst", &packed[..packed.len() - 40]), SceneError::Truncated { .. }));
}

#[test]
fn a_truncated_file_is_an_error_wherever_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    for shape in SHAPES {
        let whole = scene(shape, true, &[b"//a.png"], &[b"//l.blend"]);
        for len in (0..whole.len() - 4).step_by(97) {
            let path = write(&dir, "s.blend", &whole[..len]);
            assert!(read(&path).is_err() && trace(&path).is_err(), "{shape:?} cut at {len}");
        }
    }
}

#[test]
fn damage_never_panics() {
    let seed = 20_240_601;
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.png", b"png");
    for round in 0..2000 {
        let whole = scene(SHAPES[round % SHAPES.len()], round % 2 == 0, &[b"//a.png", b"/x\\y"], &[b"//s.blend"]);
        let mut bytes = if round % 7 == 0 { gzip(&whole) } else { whole };
        for _ in 0..rng.random_range(1..8) {
            let at = rng.random_range(0..bytes.len());
            // Lengths and counts are hurt most by large and negative numbers.
            bytes[at] = *[0, 1, 0x7f, 0x80, 0xff, rng.random()].get(rng.random_range(0..6)).unwrap();
        }
        let path = write(&dir, "s.blend", &bytes);
        let _ = read(&path);
        if let Ok(trace) = trace(&path) {
            let _ = bundle(&path, &trace, &mut Memory::default(), &mut |_| {});
        }
    }
}

#[test]
fn paths_are_resolved_as_blender_has_them() {
    let base = Path::new("/p/shots");
    let resolve = |stored: &[u8]| disk::resolve(base, stored);
    assert_eq!(resolve(b"//tex/a.png"), Path::new("/p/shots/tex/a.png"));
    assert_eq!(resolve(b"//..\\tex\\a.png"), Path::new("/p/tex/a.png"));
    assert_eq!(resolve(b"/abs/./b/../a.png"), Path::new("/abs/a.png"));
    assert_eq!(resolve(b"//../../../../a.png"), Path::new("/a.png"));
    assert_eq!(resolve(b"a.png"), Path::new("/p/shots/a.png"));
    #[cfg(unix)]
    {
        assert_eq!(resolve(b"C:\\tex\\a.png"), Path::new("/c/tex/a.png"));
        let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/p/shots/\xff.png");
        assert_eq!(resolve(b"//\xff.png"), Path::new(odd));
    }
}

#[test]
fn a_trace_lists_what_is_there_and_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "tex/a.png", b"a");
    write(&dir, "main/strip/s 0001.png", b"1");
    // The library is scene enough: its first image hangs on the linked object, its second on nothing.
    let lib = scene(USUAL, true, &[b"//../tex/gone.png", b"//../tex/unused.png"], &[]);
    write(&dir, "lib/l.blend", &lib);
    let main = scene(USUAL, false, &[b"//..\\tex\\a.png", b"//b.png"], &[b"//../lib/l.blend", b"//../lib/gone.blend"]);
    let main = write(&dir, "main/m.blend", &main);
    let found = trace(&main).unwrap();
    let names = |paths: Vec<&PathBuf>| -> Vec<String> {
        paths.iter().map(|path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned()).collect()
    };
    let files = names(found.files.iter().map(|file| &file.resolved).collect());
    assert_eq!(files, ["main/strip/s 0001.png", "tex/a.png", "lib/l.blend"]);
    let missing = names(found.missing.iter().map(|file| &file.resolved).collect());
    assert_eq!(missing, ["main/strip/s 0002.png", "main/b.png", "lib/gone.blend", "tex/gone.png"]);
    assert_eq!((found.missing[1].kind, &*found.missing[1].datablock), (RefKind::Image, "image1"));
    assert_eq!(found.missing[3].from, dir.path().join("lib/l.blend"));
}

#[test]
fn a_file_that_two_datablocks_want_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "there.png", b"a");
    let images: [&[u8]; 4] = [b"//there.png", b"//gone.png", b"//./there.png", b"//gone.png"];
    let mut file = super::synthetic::Builder::new(USUAL);
    use super::synthetic::Value::*;
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs"))]]);
    for (nth, path) in (2..).zip(images) {
        let values = [("id.name", Text(b"IMi")), ("source", Int(1)), ("name", Text(path))];
        file.block(b"IM\0\0", nth, "Image", &[&values]);
    }
    let found = trace(&write(&dir, "m.blend", &file.finish())).unwrap();
    assert_eq!((found.files.len(), found.missing.len()), (1, 1), "{found:?}");
}

#[test]
fn only_a_camera_the_scene_names_is_its_camera() {
    let dir = tempfile::tempdir().unwrap();
    let named = |camera| read(&write(&dir, "m.blend", &scene(USUAL, camera, &[], &[]))).unwrap();
    assert_eq!((named(true).camera.as_deref(), named(true).has_view()), (Some("Cam"), true));
    let unnamed = named(false);
    assert!(unnamed.camera.is_none(), "{:?}", unnamed.camera);
}

#[test]
fn a_bundle_is_complete_without_the_originals() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let absolute = write(&dir, "elsewhere/wörld tex.png", b"absolute");
    write(&dir, "tex/a.png", b"relative");
    write(&dir, "tex/b.png", b"of the library");
    write(&dir, "main/strip/s 0001.png", b"1");
    write(&dir, "main/strip/s 0002.png", b"2");
    write(&dir, "lib/strip/s 0001.png", b"unused");
    write(&dir, "lib/l.blend", &zstd(&scene(USUAL, true, &[b"//../tex/b.png"], &[])));
    let absolute = absolute.to_str().unwrap().as_bytes();
    let main = scene(SHAPES[4], true, &[absolute, b"//../tex/a.png"], &[b"//../lib/l.blend"]);
    let main = write(&dir, "main/m.blend", &gzip(&main));
    let before = trace(&main).unwrap();
    assert_eq!(before.missing, []);
    let mut memory = Memory::default();
    let mut last = BundleProgress::default();
    let (manifest, stats) = bundle(&main, &before, &mut memory, &mut |progress| last = progress).unwrap();
    assert_eq!((stats.files, last.files_done, last.files_total), (7, 7, 7));
    assert!(manifest.files.is_sorted_by(|a, b| a.path < b.path));
    let (again, stats) = bundled(&main, &mut memory);
    assert_eq!((again, stats.new_bytes), (manifest.clone(), 0));

    let laid_out = memory.lay_out(&manifest, out.path());
    drop(dir);
    let after = trace(&laid_out).unwrap();
    assert_eq!(after.missing, []);
    assert_eq!(after.files.len(), before.files.len());
    assert!(after.files.iter().all(|file| file.resolved.starts_with(out.path()) && file.stored.starts_with("//")));
    let contents: Vec<Vec<u8>> = after.files.iter().map(|file| std::fs::read(&file.resolved).unwrap()).collect();
    for wanted in [&b"absolute"[..], b"relative", b"of the library", b"1", b"2"] {
        assert!(contents.iter().any(|content| content == wanted));
    }
}

#[test]
fn a_compressed_scene_that_needs_no_rewriting_keeps_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "a.png", b"a");
    let packed = gzip(&scene(USUAL, true, &[b"//a.png", b"//gone.png"], &[]));
    let main = write(&dir, "m.blend", &packed);
    let mut memory = Memory::default();
    let (manifest, stats) = bundled(&main, &mut memory);
    assert_eq!((stats.files, stats.bytes), (2, packed.len() as u64 + 1));
    let out = tempfile::tempdir().unwrap();
    assert_eq!(std::fs::read(memory.lay_out(&manifest, out.path())).unwrap(), packed);
}

#[test]
fn tiles_and_sequences_travel_whole() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["t.1001.png", "t.1002.png", "t.x.png", "q_01.png", "q_02.png", "q_2b.png"] {
        write(&dir, name, name.as_bytes());
    }
    use super::synthetic::{Builder, Value::*};
    let mut file = Builder::new(USUAL);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs"))]]);
    for (address, source, path) in [(2, 6, &b"//t.<UDIM>.png"[..]), (3, 2, b"//q_01.png")] {
        let tiles = ("tiles.first", Address(if source == 6 { 9 } else { 0 }));
        let id = ("id.name", Text(b"IMi"));
        file.block(b"IM\0\0", address, "Image", &[&[id, ("source", Int(source)), ("name", Text(path)), tiles]]);
        if source == 6 {
            file.block(b"DATA", 9, "ImageTile", &[&[("tile_number", Int(1001)), ("next", Address(10))]]);
            file.block(b"DATA", 10, "ImageTile", &[&[("tile_number", Int(1003))]]);
        }
    }
    let found = trace(&write(&dir, "m.blend", &file.finish())).unwrap();
    let names = |paths: Vec<&PathBuf>| -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(found.files.iter().map(|file| &file.resolved).collect()), ["t.1001.png", "q_01.png", "q_02.png"]);
    assert_eq!(names(found.missing.iter().map(|file| &file.resolved).collect()), ["t.1003.png"]);
}

#[test]
fn a_list_that_many_strips_share_is_followed_no_further_than_the_budget() {
    use super::dna::Blend;
    use super::refs::{Budget, references};
    use super::synthetic::{Builder, Value::*};
    let dir = tempfile::tempdir().unwrap();
    let (strips, names, tiles) = (40, 50, 10);
    let mut file = Builder::new(USUAL);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs")), ("ed", Address(2))]]);
    file.block(b"DATA", 2, "Editing", &[&[("seqbase.first", Address(100))]]);
    for nth in 0..strips {
        let next = Address(if nth + 1 < strips { 101 + nth } else { 0 });
        file.block(b"DATA", 100 + nth, "Sequence", &[&[("next", next), ("type", Int(0)), ("strip", Address(3))]]);
    }
    file.block(b"DATA", 3, "Strip", &[&[("stripdata", Address(4)), ("dir", Text(b"//strip/"))]]);
    let element = [("name", Text(b"a.png"))];
    file.block(b"DATA", 4, "StripElem", &vec![&element[..]; names]);
    file.block(
        b"IM\0\0",
        5,
        "Image",
        &[&[
            ("id.name", Text(b"IMi")),
            ("source", Int(6)),
            ("name", Text(b"//t.<UDIM>.png")),
            ("tiles.first", Address(200)),
        ]],
    );
    for nth in 0..tiles {
        let next = Address(if nth + 1 < tiles { 201 + nth } else { 0 });
        file.block(b"DATA", 200 + nth, "ImageTile", &[&[("tile_number", Int(1001)), ("next", next)]]);
    }
    let path = write(&dir, "m.blend", &file.finish());
    let blend = Blend::open(&path).unwrap();
    // A strip, its names and its folder; the tiles and their image.
    let steps = strips as usize * (1 + names + 1) + tiles as usize + 1;
    let found = references(&blend, &mut Budget::with_steps(&path, steps)).unwrap();
    assert_eq!(found.len(), strips as usize + 1);
    let error = references(&blend, &mut Budget::with_steps(&path, steps - 1)).unwrap_err();
    assert!(matches!(&error, SceneError::Unsupported { path: named, .. } if *named == path), "{error}");
    // What they come to on this disk counts too: a file of each name.
    let mut budget = Budget::with_steps(&path, names - 1);
    let error = disk::Disk::default().resolve(&blend, &path, &found[0], &mut budget).unwrap_err();
    assert!(matches!(error, SceneError::Unsupported { .. }), "{error}");
}

#[test]
fn a_file_that_changes_under_our_hands_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let image = write(&dir, "a.png", b"a");
    let main = write(&dir, "m.blend", &scene(USUAL, true, &[b"//a.png"], &[]));
    let traced = trace(&main).unwrap();
    // The image itself grows while it is stored.
    struct Grow(PathBuf, u32);
    impl BlobSink for Grow {
        fn put_file(&mut self, reader: &mut dyn Read, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
            self.1 += 1;
            if self.1 == 2 {
                std::fs::write(&self.0, b"longer than before")?;
            }
            Memory::default().put_file(reader, chunking)
        }
    }
    let error = bundle(&main, &traced, &mut Grow(image.clone(), 0), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, BundleError::Changed(path) if *path == image), "{error}");
    // A scene saved since it was traced may need other files.
    write(&dir, "m.blend", &scene(USUAL, true, &[b"//a.png", b"//new.png"], &[]));
    let error = bundle(&main, &traced, &mut Memory::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, BundleError::Changed(path) if *path == main), "{error}");
}

/// Runs Blender on a script; `None` where there is no Blender.
fn blender(arguments: &[&str], script: &str) -> Option<String> {
    let mut command = std::process::Command::new("blender");
    command.args(["-b", "--factory-startup"]).args(arguments).args([
        "--python-exit-code",
        "1",
        "--python-expr",
        script,
    ]);
    let output = command.stdin(std::process::Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

#[test]
fn blender_finds_everything_in_a_bundle_whose_originals_are_gone() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for place in ["main", "tex", "lib", "far away"] {
        std::fs::create_dir(dir.path().join(place)).unwrap();
    }
    let script = format!(
        r"
import bpy, os, shutil
D = {:?}
def image(path):
    image = bpy.data.images.new('made', 4, 4)
    image.filepath_raw = path; image.file_format = 'PNG'; image.save()
    bpy.data.images.remove(image)
for path in ('tex/rel.png', 'far away/äbs.png', 'lib/lib.png', 'tex/udim.1001.png', 'tex/udim.1002.png', 'tex/strip.png'):
    image(os.path.join(D, path))
shutil.copy(os.path.join(bpy.utils.system_resource('DATAFILES'), 'fonts', os.listdir(bpy.utils.system_resource('DATAFILES', path='fonts'))[0]), D + '/tex/font.any')
def material(name, paths):
    material = bpy.data.materials.new(name); material.use_nodes = True
    for path in paths:
        node = material.node_tree.nodes.new('ShaderNodeTexImage'); node.image = bpy.data.images.load(path)
    return material
bpy.context.object.data.materials[0] = material('linked', [D + '/lib/lib.png'])
bpy.context.object.name = 'Linked'
bpy.ops.wm.save_as_mainfile(filepath=D + '/lib/lib.blend', relative_remap=True, compress=True)
bpy.ops.wm.read_factory_settings()
tiles = bpy.data.images.load(D + '/tex/udim.1001.png'); tiles.source = 'TILED'; tiles.tiles.new(1002)
made = material('mine', [D + '/far away/äbs.png', D + '/tex/rel.png'])
made.node_tree.nodes.new('ShaderNodeTexImage').image = tiles
bpy.context.object.data.materials[0] = made
with bpy.data.libraries.load(D + '/lib/lib.blend', link=True) as (a, b): b.objects = ['Linked']
bpy.context.collection.objects.link(b.objects[0])
bpy.ops.object.text_add(); bpy.context.object.data.font = bpy.data.fonts.load(D + '/tex/font.any')
editor = bpy.context.scene.sequence_editor_create(); strips = getattr(editor, 'strips', None) or editor.sequences
strips.new_image('strip', D + '/tex/strip.png', 1, 1)
bpy.ops.wm.save_as_mainfile(filepath=D + '/main/shot.blend', relative_remap=True, compress=True)
bpy.data.images['äbs.png'].filepath = D + '/far away/äbs.png'
bpy.ops.wm.save_mainfile(compress=True)
",
        dir.path().to_str().unwrap()
    );
    if blender(&[], &script).is_none() {
        println!("no Blender here; nothing is shown");
        return;
    }
    let main = dir.path().join("main/shot.blend");
    let info = read(&main).unwrap();
    assert_eq!((info.frame_start, info.frame_end, info.size()), (1, 250, (1920, 1080)));
    let before = trace(&main).unwrap();
    assert_eq!(before.missing, []);
    let mut memory = Memory::default();
    let (manifest, stats) = bundled(&main, &mut memory);
    assert_eq!(stats.files, 9, "{manifest:#?}");
    let laid_out = memory.lay_out(&manifest, out.path());
    drop(dir);
    let check = r"
import bpy, os
for paths in (bpy.data.images, bpy.data.libraries, bpy.data.fonts):
    for it in paths:
        if it.filepath and it.filepath != '<builtin>':
            path = bpy.path.abspath(it.filepath, library=it.library).replace('<UDIM>', '1002')
            print('FOUND' if os.path.exists(path) else 'LOST', it.name, path)
for image in bpy.data.images:
    if image.source == 'FILE': assert image.size[0] == 4, image.filepath
strip = bpy.context.scene.sequence_editor.sequences_all['strip']
print('FOUND' if os.path.exists(bpy.path.abspath(strip.directory) + strip.elements[0].filename) else 'LOST', 'strip')
assert bpy.data.objects['Linked'].data.vertices
";
    let said = blender(&[laid_out.to_str().unwrap()], check).unwrap();
    assert_eq!((said.matches("FOUND ").count(), said.matches("LOST ").count()), (7, 0), "{said}");
}

#[test]
fn no_damage_to_a_blend_makes_its_reader_panic() {
    let dir = TempDir::new().unwrap();
    let cached =
        ["data/a.vdb", "disp_1.exr", "meta/1.json", "7/blobs/1.blob", "größe_1.bphys"].map(|name| format!("c/{name}"));
    for name in cached.iter().map(String::as_str).chain(["wood.png", "blendcache_shot/4375_1.bphys"]) {
        write(&dir, name, b"png");
    }
    let path = dir.path().join("shot.blend");
    let mut seeds: Vec<Vec<u8>> =
        SHAPES.iter().map(|shape| scene(*shape, true, &[b"//wood.png"], &[b"//lib.blend"])).collect();
    seeds.extend(SHAPES.map(caches::of_every_kind));
    seeds.extend(SHAPES.map(survey::of_every_kind));
    seeds.extend(SHAPES.map(packed::of_one));
    seeds.extend([gzip(&seeds[0]), zstd(&seeds[0])]);
    let options = TraceOptions {
        maps: vec![PathMap { from: r"P:\".into(), to: dir.path().into() }],
        include: vec![write(&dir, "included.txt", b"text")],
    };
    let chosen = Overrides {
        scene: Some("Main".into()),
        camera: Some("Cam".into()),
        view_layers: vec!["Layer".into()],
        ..Overrides::default()
    };
    // Each reads, traces, looks through and rewrites a whole file.
    crate::fuzz::fuzz("blend", 400, seeds, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let told = |error: &SceneError| error.to_string();
        let scene = [&Overrides::default(), &chosen].map(|overrides| {
            let info = super::read(&path, overrides).map_err(|error| told(&error));
            info.map(|info| (info.camera.is_some(), info.camera_optional))
        });
        let traced = super::trace(&path, options.clone()).map_err(|error| told(&error));
        let found = traced.map(|trace| {
            let maps: Vec<_> = trace.missing.iter().map(|missing| missing.map().is_some()).collect();
            let surveyed = [&Overrides::default(), &chosen].map(|overrides| {
                let surveyed = super::survey(&path, &trace, overrides).map_err(|error| told(&error));
                surveyed.map(|found| (survey::kinds(&found), found.cameras.len()))
            });
            let bundled = bundle(&path, &trace, &mut Memory::default(), &mut |_| {});
            let bundled = bundled.map(|(manifest, _)| manifest.files.len()).map_err(|error| error.to_string());
            (trace.files.len(), maps, surveyed, bundled)
        });
        (scene, found)
    });
}
