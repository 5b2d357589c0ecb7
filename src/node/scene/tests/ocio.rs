//! The configuration of OpenColorIO that travels with a scene.

use super::*;
use crate::farm::id::BlobId;

const CONFIG: &str = "\
ocio_profile_version: 2

search_path: \"luts:${SHARE}/more:../beside\" # three folders
environment: {SHARE: /nowhere, SHOT: none}
strictparsing: true
roles: {reference: Linear, scene_linear: Linear}
description: |
  src: no_file.spi1d
colorspaces:
  - !<ColorSpace>
    name: Größe
    description: \"search_path: none\"
    to_reference: !<FileTransform> {src: a.spi1d, interpolation: linear}
    from_reference: !<GroupTransform>
      children:
        - !<ColorSpaceTransform> {src: Linear, dst: \"$SHOT\"}
        - !<FileTransform>
          src: 'b b.cube'
          direction: inverse
        - !<FileTransform> {interpolation: best, src: \"${SHOT}_grade.cc\", cccid: $SHOT}
looks:
  - !<Look>
    name: Cold
    transform: !<FileTransform> {src: a.spi1d}
    inverse_transform: !<FileTransform> {src: ../c.spimtx}
";

/// A scene, and beside it a folder with the configuration and all it names.
fn laid(dir: &TempDir, config: &str) -> (PathBuf, OcioChoice) {
    for name in ["o/luts/a.spi1d", "share/more/b b.cube", "beside/sh1_grade.cc", "c.spimtx"] {
        write(dir, name, name.as_bytes());
    }
    let main = write(dir, "s.blend", &scene(USUAL, true, &[], &[]));
    let config = write(dir, "o/config.ocio", config.as_bytes()).to_string_lossy().into_owned();
    let share = dir.path().join("share").to_string_lossy().into_owned();
    // Not one that the configuration knows.
    let other = ("interpolation".to_owned(), "wrong".to_owned());
    let variables = [("SHARE".to_owned(), share), ("SHOT".to_owned(), "sh1".to_owned()), other].into();
    (main, OcioChoice { config, variables })
}

fn traced(main: &Path, choice: OcioChoice) -> Result<Trace, SceneError> {
    let mut found = trace(main)?;
    trace_ocio(&mut found, main, choice).map(|()| found)
}

/// What of the configuration is missing, for people.
fn missing(trace: &Trace) -> Vec<String> {
    trace.missing.iter().filter(|file| file.kind == RefKind::Lut).map(ToString::to_string).collect()
}

/// A configuration in which no variable counts, though one is written in it.
fn without_variables() -> String {
    let text = CONFIG.replace("${SHARE}/", "").replace("${SHOT}_", "").replace("$SHOT", "a");
    text.replace("src: no_file", "src: $SHOT 100%")
}

/// Packs a configuration where `choice` is.
fn archive(choice: &OcioChoice, name: &str, config: &str) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&choice.config).unwrap());
    archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut archive, config.as_bytes()).unwrap();
    archive.finish().unwrap();
}

/// The bundle laid out, and what `OCIO` is to be for it.
fn bundled(main: &Path, trace: &Trace, dir: &Path) -> (Manifest, Option<PathBuf>) {
    let mut memory = Memory::default();
    let (manifest, _) = bundle(main, trace, &mut memory, &mut |_| {}).unwrap();
    memory.lay_out(&manifest, dir);
    let ocio = ocio_of(&manifest, dir).unwrap().map(PathBuf::from);
    (manifest, ocio)
}

/// Reads the blobs of a bundle that is laid out.
fn read_in(dir: &Path, manifest: &Manifest) -> impl Fn(BlobId, u64) -> std::io::Result<Vec<u8>> {
    |id, _| {
        let file = manifest.files.iter().find(|file| file.map.id() == id).unwrap();
        std::fs::read(dir.join(&file.path))
    }
}

/// Every file that a copy names, by how it names it, read from there.
fn named(config: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(config).unwrap();
    let quoted = text.split("src: \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let home = config.parent().unwrap();
    quoted.map(|name| std::fs::read_to_string(home.join(&name)).unwrap_or(name)).collect()
}

#[test]
fn a_configuration_travels_with_the_files_it_names_and_finds_them_there() {
    let dir = tempfile::tempdir().unwrap();
    let (main, choice) = laid(&dir, CONFIG);
    let found = traced(&main, choice).unwrap();
    assert_eq!(missing(&found), Vec::<String>::new());
    let kinds: Vec<(RefKind, &str)> = found.files.iter().map(|file| (file.kind, &*file.datablock)).collect();
    let lut = RefKind::Lut;
    assert_eq!(kinds, [(RefKind::Ocio, ""), (lut, "Größe"), (lut, "Größe"), (lut, "Größe"), (lut, "Cold")]);
    let out = tempfile::tempdir().unwrap();
    let (manifest, ocio) = bundled(&main, &found, out.path());
    let parts = ocio_files(&manifest, read_in(out.path(), &manifest)).unwrap();
    assert_eq!((parts.len(), parts.contains_key("f/ocio/config.ocio")), (5, true), "{parts:?}");
    drop(dir);
    let ocio = ocio.unwrap();
    assert!(ocio.ends_with("f/ocio/config.ocio"), "{ocio:?}");
    let all = ["o/luts/a.spi1d", "share/more/b b.cube", "beside/sh1_grade.cc", "o/luts/a.spi1d", "c.spimtx"];
    assert_eq!(named(&ocio), all);
    let text = std::fs::read_to_string(&ocio).unwrap();
    for kept in [
        "search_path: \".\"\nenvironment: {SHARE: /nowhere",
        "  src: no_file.spi1d",
        "dst: \"sh1\"",
        "cccid: \"sh1\"",
        "direction: inverse",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    // Without one there is none.
    let out = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (main, _) = laid(&dir, CONFIG);
    let (manifest, ocio) = bundled(&main, &trace(&main).unwrap(), out.path());
    let parts = ocio_files(&manifest, read_in(out.path(), &manifest)).unwrap();
    assert_eq!((parts.len(), ocio), (0, None));
}

#[test]
fn a_table_that_is_not_there_is_a_missing_file_and_keeps_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (main, choice) = laid(&dir, CONFIG);
    std::fs::remove_file(dir.path().join("beside/sh1_grade.cc")).unwrap();
    let found = traced(&main, choice).unwrap();
    let first = dir.path().join("o/luts/sh1_grade.cc");
    assert_eq!(missing(&found), [format!("OCIO lookup table `Größe`: {} is not there", first.display())]);
    let out = tempfile::tempdir().unwrap();
    let (_, ocio) = bundled(&main, &found, out.path());
    assert_eq!(named(&ocio.unwrap())[2], "${SHOT}_grade.cc");
}

#[test]
fn a_search_path_may_be_a_list_and_may_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let listed = "search_path:\n  - luts\n  - \"a:b\"\n  - ../share/more\n";
    let (head, tail) = CONFIG.split_once("search_path: \"luts").unwrap();
    let tail = tail.split_once('\n').unwrap().1;
    let (main, choice) = laid(&dir, &[head, listed, tail].concat());
    let found = traced(&main, choice).unwrap();
    assert_eq!(missing(&found).len(), 2, "those beside: {:?}", found.missing);
    let out = tempfile::tempdir().unwrap();
    let (_, ocio) = bundled(&main, &found, out.path());
    assert_eq!(named(&ocio.unwrap())[1], "share/more/b b.cube");
    // Then files are looked for where the configuration is.
    write(&dir, "o/a.spi1d", b"here");
    let (main, choice) = laid(&dir, &[head, tail].concat());
    let found = traced(&main, choice).unwrap();
    let out = tempfile::tempdir().unwrap();
    let (_, ocio) = bundled(&main, &found, out.path());
    assert_eq!(named(&ocio.unwrap())[0], "here");
}

#[test]
fn archives_and_built_in_configurations_travel_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (main, choice) = laid(&dir, CONFIG);
    archive(&choice, "Config.ocio", &without_variables());
    let out = tempfile::tempdir().unwrap();
    let (_, ocio) = bundled(&main, &traced(&main, choice.clone()).unwrap(), out.path());
    let ocio = ocio.unwrap();
    assert!(ocio.ends_with("f/ocio/config.ocioz") && std::fs::read(ocio).unwrap().starts_with(b"PK"));
    let name = "ocio://cg-config-v2.1.0_aces-v1.3_ocio-v2.3";
    let built_in = OcioChoice { config: name.into(), ..choice };
    let out = tempfile::tempdir().unwrap();
    let (manifest, ocio) = bundled(&main, &traced(&main, built_in).unwrap(), out.path());
    assert_eq!(ocio.unwrap().to_str(), Some(name));
    // What another machine's bundle has there is looked at.
    let place = out.path().join("f/ocio/builtin");
    for odd in ["", "/etc/shadow", "ocio://", "ocio://a/../b", &format!("ocio://{}", "x".repeat(1000))] {
        std::fs::write(&place, odd).unwrap();
        assert!(ocio_of(&manifest, out.path()).is_err(), "{odd}");
    }
}

#[test]
fn what_is_no_configuration_is_told_with_its_path_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (main, choice) = laid(&dir, CONFIG);
    let deep = format!("ocio_profile_version: 2\na: {}", "[".repeat(230));
    for (config, told) in [
        ("a: [b", "not valid YAML"),
        ("just: yaml", "no `ocio_profile_version`"),
        (&deep, "nested deeper"),
        ("ocio_profile_version: 2\nx: &y a.cube\nz: !<FileTransform> {src: *y}", "line 3 names a file by a YAML alias"),
        ("ocio_profile_version: 2\nsearch_path: |\n  luts", "names a file by a YAML alias or a block"),
    ] {
        std::fs::write(&choice.config, config).unwrap();
        let error = traced(&main, choice.clone()).unwrap_err().to_string();
        let head = format!("the OCIO configuration {} cannot be used: ", choice.config);
        assert!(error.starts_with(&head) && error.contains(told) && error.contains("correct it"), "{error}");
    }
    std::fs::write(&choice.config, [0xff, 0xfe]).unwrap();
    assert!(traced(&main, choice.clone()).unwrap_err().to_string().contains("not text in UTF-8"));
    for (config, told) in [
        (choice.config.clone() + "x", "there is no such file; correct OCIO, or unset it"),
        (dir.path().to_string_lossy().into_owned(), "not a file"),
        ("ocio://a b".into(), "no name of a configuration that is built into"),
    ] {
        let error = traced(&main, OcioChoice { config, ..choice.clone() }).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    // One saved between being traced and being read.
    std::fs::write(&choice.config, CONFIG).unwrap();
    let found = traced(&main, choice.clone()).unwrap();
    std::fs::write(&choice.config, format!("{CONFIG}\n")).unwrap();
    let error = bundle(&main, &found, &mut Memory::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, BundleError::Changed(path) if path == Path::new(&choice.config)));
}

#[test]
fn an_archive_with_variables_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (main, choice) = laid(&dir, CONFIG);
    let told = |name: &str, config: &str| {
        archive(&choice, name, config);
        traced(&main, choice.clone()).map(|found| found.ocio).map_err(|error| error.to_string())
    };
    let mine = |variable: &str| without_variables().replace("src: ../c.spimtx", &format!("src: \"{variable}\""));
    for variable in ["$SHOT", "${SHOT}/x", "%SHOT%"] {
        let error = told("config.ocio", &mine(variable)).unwrap_err();
        assert!(error.contains("has the variable SHOT, which") && error.contains("unpack it"), "{error}");
    }
    let long = told("config.ocio", &mine(&format!("$SHOT{}", "x".repeat(5000)))).unwrap_err();
    assert!(long.contains("longer than 4096 bytes"), "{long}");
    // None that the configuration knows.
    assert!(told("config.ocio", &mine("$OTHER")).is_ok());
    let any = mine("$OTHER").replace("environment: {SHARE: /nowhere, SHOT: none}", "");
    assert!(told("config.ocio", &any).unwrap_err().contains("variable OTHER"));
    assert!(told("sub/config.ocio", &mine("a")).unwrap_err().contains("an archive without a config.ocio"));
    std::fs::write(&choice.config, "PK\u{3}\u{4}and so on").unwrap();
    let error = traced(&main, choice.clone()).unwrap_err().to_string();
    assert!(error.contains("an archive that cannot be read"), "{error}");
    // One that was packed anew in between.
    archive(&choice, "config.ocio", &mine("a"));
    let found = traced(&main, choice.clone()).unwrap();
    archive(&choice, "config.ocio", &mine("$SHOT"));
    let error = bundle(&main, &found, &mut Memory::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, BundleError::Changed(path) if path == Path::new(&choice.config)));
}

#[test]
fn what_goes_along_of_a_shell_is_what_the_names_in_a_configuration_have_in_them() {
    let dir = tempfile::tempdir().unwrap();
    let shell = |name: &str| match name {
        "SHARE" => Some("$NEST/x".to_owned()),
        "NEST" | "SHOT" | "OTHER" => Some(name.to_lowercase()),
        _ => None,
    };
    let seen = |config: &str| {
        let (_, choice) = laid(&dir, config);
        ocio_variables(Path::new(&choice.config), shell).into_keys().collect::<Vec<_>>()
    };
    // In a comment and in what people read it is none.
    let more = "# $OTHER\ndescription: ${OTHER}\nmore: !<FileTransform> {src: $SHOTx%OTHER%}\n";
    let config = CONFIG.replace("description: |", "family: |").replace("src: no_file", "$OTHER") + more;
    assert_eq!(seen(&config), ["SHARE", "SHOT"]);
    let any = config.replace("environment: {SHARE: /nowhere, SHOT: none}", "");
    assert_eq!(seen(&any), ["NEST", "OTHER", "SHARE", "SHOT"]);
    assert_eq!(seen(&any.replace("%OTHER%", "")), ["NEST", "SHARE", "SHOT"]);
    assert_eq!(seen("no: $SHOT"), [""; 0]);
}

/// OpenColorIO skips keys without a value.
#[test]
fn a_key_without_a_value_is_as_one_that_is_not_there() {
    for null in ["", " ~", " null"] {
        let dir = tempfile::tempdir().unwrap();
        let (head, tail) = CONFIG.split_once("search_path: \"luts").unwrap();
        let tail = tail.split_once('\n').unwrap().1.replace("dst: \"$SHOT\"", &format!("dst:{null}"));
        let more =
            format!("more: [!<FileTransform> {{src:{null}}}, !<FileTransform> {{interpolation: best, src:{null} }}]\n");
        let (main, choice) = laid(&dir, &[head, "search_path:", null, "\n", &tail, &more].concat());
        write(&dir, "o/a.spi1d", b"here");
        let found = traced(&main, choice).unwrap();
        let out = tempfile::tempdir().unwrap();
        let (_, ocio) = bundled(&main, &found, out.path());
        let ocio = ocio.unwrap();
        assert_eq!((missing(&found).len(), &*named(&ocio)[0]), (2, "here"), "{:?}", found.missing);
        let text = std::fs::read_to_string(&ocio).unwrap();
        assert!(text.contains(&format!("search_path:{null}\n")) && text.ends_with(&more), "{text}");
    }
}

/// A path of 4 KB that 100,000 transforms name would be 400 MB for each list it is in.
#[test]
fn a_long_path_that_is_named_often_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let files = "!<FileTransform> {src: $A},".repeat(100_000);
    let long = format!("ocio_profile_version: 2\nenvironment: {{A: {}}}\nx: [{files}]\n", "a/".repeat(2000));
    let (main, choice) = laid(&dir, &long);
    assert_eq!(missing(&traced(&main, choice).unwrap()).len(), 1);
    let large = long.replace("a/a/", "$B$B$B$B").replace("{A:", "{B: bbbb, A:");
    let folders = format!("ocio_profile_version: 2\nsearch_path: \"{}\"\n", "a:".repeat(1_000_000));
    for (config, told) in [
        (large, "line 3 has a value that is longer than 4096 bytes"),
        (folders, "its search path has more than 256 folders; correct it"),
    ] {
        let (main, choice) = laid(&dir, &config);
        let error = traced(&main, choice).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_table_that_is_found_elsewhere_than_before_or_no_more_is_told() {
    let told = |change: &dyn Fn(&TempDir)| {
        let dir = tempfile::tempdir().unwrap();
        let (main, choice) = laid(&dir, CONFIG);
        let found = traced(&main, choice).unwrap();
        change(&dir);
        match bundle(&main, &found, &mut Memory::default(), &mut |_| {}).unwrap_err() {
            BundleError::Changed(path) => path.strip_prefix(dir.path()).unwrap().to_path_buf(),
            error => panic!("{error}"),
        }
    };
    let table = "share/more/b b.cube";
    assert_eq!(told(&|dir| std::fs::remove_file(dir.path().join(table)).unwrap()), Path::new(table));
    assert_eq!(told(&|dir| drop(write(dir, "o/luts/b b.cube", b"newer"))), Path::new(table));
}

/// Bytes that are nobody's configuration are an error, and what is taken for one can be copied or is refused in words.
#[test]
fn no_bytes_make_the_reader_of_configurations_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (main, choice) = laid(&dir, CONFIG);
    let base = trace(&main).unwrap();
    let flow = "{ocio_profile_version: 1, search_path: [a, 'b'], x: !<FileTransform> {\"src\": ${SHARE}%SHOT%}}";
    let anchors = "ocio_profile_version: 2\r\nsearch_path: &a luts:é\r\nl: [!<FileTransform> {src: a.spi1d}, *a]\r\n";
    let seeds = [CONFIG, flow, anchors].map(|text| text.as_bytes().to_vec()).into();
    crate::fuzz::fuzz("ocio", crate::fuzz::ROUNDS / 10, seeds, |bytes| {
        std::fs::write(&choice.config, bytes).unwrap();
        let mut found = base.clone();
        let words = |error: &dyn std::error::Error| error.to_string().replace(&choice.config, "");
        trace_ocio(&mut found, &main, choice.clone()).map_err(|error| words(&error))?;
        let bundled = bundle(&main, &found, &mut Memory::default(), &mut |_| {}).map_err(|error| words(&error));
        // Numbers count for nothing.
        let count = |count: usize| "x".repeat(count.min(6));
        bundled.map(|(manifest, _)| (count(found.files.len()), count(found.missing.len()), count(manifest.files.len())))
    });
}
