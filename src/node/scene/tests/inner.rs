//! Facts about files that name others: USD layers and OSL sources.

use super::super::synthetic::{Builder, Value::*};
use super::caches::{bpy, files_below, laid_out, names};
use super::*;

/// A .blend with a cache in the file `stored`.
fn with_cache(dir: &TempDir, stored: &str) -> PathBuf {
    let mut file = Builder::new(USUAL);
    file.block(b"SC\0\0", 1, "Scene", &[&[("id.name", Text(b"SCs"))]]);
    file.block(b"OB\0\0", 2, "Object", &[&[("id.name", Text(b"OBCu"))]]);
    file.block(b"DATA", 10, "CustomDataExternal", &[&[("filename", Text(stored.as_bytes()))]]);
    write(dir, "main/m.blend", &file.finish())
}

#[test]
fn layers_of_layers_travel_and_find_each_other_in_a_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let absolute = dir.path().join("far/c.usda");
    write(&dir, "main/a.usda", b"#usda 1.0\n( subLayers = [@../my parts/b.usda@, @./a.usda@] )\n");
    write(&dir, "my parts/b.usda", format!("#usda 1.0\nx ( payload = @{}@</p> )\n", absolute.display()).as_bytes());
    write(&dir, "far/c.usda", b"#usda 1.0\nx ( clips = { y z = { string templateAssetPath = \"./d.##.usda\" } } )\n");
    for name in ["far/d.01.usda", "far/d.02.usda", "far/d.x.usda", "far/wood.png"] {
        write(&dir, name, b"#usda 1.0\nasset inputs:file = @wood.png@\n");
    }
    let main = with_cache(&dir, "//a.usda");
    let (_, after, out) = laid_out(dir, &main);
    let mut found = names(&after, 0);
    found.sort();
    found.dedup();
    assert_eq!(found, ["a.usda", "b.usda", "c.usda", "d.01.usda", "d.02.usda"]);
    assert_eq!(
        (after.files[0].kind, after.files[1].kind, &*after.files[1].datablock),
        (RefKind::Cache, RefKind::Layer, "Cu")
    );
    assert_eq!(files_below(out.path()).len(), 6);
}

#[test]
fn a_layer_that_is_not_there_is_missing_by_the_name_of_who_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let layer = write(
        &dir,
        "main/a.usda",
        b"#usda 1.0\nx ( references = [@gone.usda@</p>, @./b.usda:SDF_FORMAT_ARGS:x=y@] )\n",
    );
    write(&dir, "main/b.usda", b"#usda 1.0\n");
    let found = trace(&with_cache(&dir, "//a.usda")).unwrap();
    assert_eq!((names(&found, 0), found.missing.len()), (vec!["a.usda".into(), "b.usda".into()], 1));
    let missing = &found.missing[0];
    assert_eq!((&missing.from, missing.resolved.file_name().unwrap().to_str()), (&layer, Some("gone.usda")));
    assert!(missing.to_string().starts_with("USD layer `Cu`: "), "{missing}");
}

#[test]
fn a_damaged_crate_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "main/a.usd", b"PXR-USDC\0\x08\0 and so on");
    let error = trace(&with_cache(&dir, "//a.usd")).unwrap_err().to_string();
    assert!(error.contains("a.usd cannot be read: it is truncated or damaged; export it again"), "{error}");
}

/// Renders the scene as the scripts of the tests do; what the first frame's file holds.
fn rendered(scene: &Path, out: &Path) -> Vec<u8> {
    bpy(SCENES, &["render", scene.to_str().unwrap(), out.to_str().unwrap()]).unwrap();
    let name = format!("{}_1.png", out.file_name().unwrap().to_str().unwrap());
    image::open(out.with_file_name(name)).unwrap().to_rgb8().into_raw()
}

/// Runs the script of scenes, which has a module beside it.
const SCENES: &str = concat!(
    "import runpy\nrunpy.run_path(r'",
    env!("CARGO_MANIFEST_DIR"),
    "/scripts/trace_scenes.py', run_name='__main__')\n"
);

/// The scene of one kind, in `FOLDER/KIND/`; `None` where there is no bpy.
fn made(dir: &TempDir, kind: &str) -> Option<PathBuf> {
    bpy(SCENES, &["make", dir.path().to_str().unwrap(), kind])?;
    Some(dir.path().join(kind).join("shot.blend"))
}

#[test]
fn blender_reads_usd_layers_from_a_bundle_whose_originals_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let Some(main) = made(&dir, "usd-layers") else {
        println!("no bpy here; nothing is shown");
        return;
    };
    let look = r"
import bpy, sys
bpy.ops.wm.open_mainfile(filepath=sys.argv[-1])
bpy.context.scene.frame_set(2)
for thing in sorted(bpy.data.objects, key=lambda thing: thing.name):
    if thing.type == 'MESH':
        seen = thing.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
        print('POINTS', thing.name, [tuple(vertex.co) for vertex in seen.vertices])
";
    let points = |scene: &Path| {
        let said = bpy(look, &[scene.to_str().unwrap()]).unwrap();
        said.lines().filter(|line| line.starts_with("POINTS")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = points(&main);
    assert_eq!(before.len(), 10);
    let (laid, _, out) = laid_out(dir, &main);
    assert_eq!(points(&laid), before);
    // And it is the layers that say so: what is left are the two files that the scene names.
    for file in files_below(out.path()).iter().filter(|file| !file.ends_with(".blend")) {
        if !file.ends_with("main.usda") && !file.ends_with("crate.usdc") {
            std::fs::remove_file(out.path().join(file)).unwrap();
        }
    }
    let without = points(&laid);
    assert_eq!(before.iter().zip(&without).filter(|(with, without)| with != without).count(), 8);
}

#[test]
fn cycles_compiles_shader_scripts_in_a_bundle_whose_originals_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let Some(main) = made(&dir, "shader-script") else {
        println!("no bpy here; nothing is shown");
        return;
    };
    let pictures = tempfile::tempdir().unwrap();
    let before = rendered(&main, &pictures.path().join("before"));
    // That render compiled it beside its source.
    assert!(main.with_file_name("its/stripes.oso").is_file());
    let (laid, after, out) = laid_out(dir, &main);
    let mut found = names(&after, 0);
    found.sort();
    assert_eq!(found, ["colours.h", "pattern.h", "stripes.osl", "stripes.oso"]);
    let remove = |ending: &str| {
        for file in files_below(out.path()).iter().filter(|file| file.ends_with(ending)) {
            std::fs::remove_file(out.path().join(file)).unwrap();
        }
    };
    let picture = || rendered(&laid, &pictures.path().join("after"));
    assert!(picture() == before, "as it was compiled");
    remove(".oso");
    assert!(picture() == before, "compiled from its source");
    remove(".oso");
    remove(".h");
    assert!(picture() != before, "without what it includes");
}
