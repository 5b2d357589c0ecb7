//! Putting a bundle down as files, so that Blender can open it.
//!
//! A manifest may come from another machine, so every path is checked before anything is created: only names that this
//! program itself gives out (`f/<hash>/<name>`, or a few folders deeper where Blender looks for them there; plain ASCII,
//! nothing any system reserves) and no two that a disk which ignores case would take for one. Where the bytes come from is
//! the caller's business.

use crate::farm::blob::{BUNDLE_MAX_FILES, BundleFile, Manifest};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Longest path in a bundle, bytes (measured: ours are at most some 150).
pub const PATH_MAX_BYTES: usize = 240;
/// Most files and folders of a bundle that a sandboxed Blender may write to: each costs a mount (guess).
const WRITTEN_MAX: usize = 500;

/// Creates the directories of the bundle under `dir` and calls `place` for each file with where it shall be. Returns
/// the path of the .blend to open.
///
/// An unsafe path in the manifest is an error of kind `InvalidData` that names it, before anything is created. Errors
/// of `place` and of the disk are passed on as they are.
pub fn lay_out(
    manifest: &Manifest,
    dir: &Path,
    place: &mut dyn FnMut(&BundleFile, &Path) -> io::Result<()>,
) -> io::Result<PathBuf> {
    check(manifest).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))?;
    for file in &manifest.files {
        let target = dir.join(&file.path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        place(file, &target)?;
    }
    Ok(dir.join(&manifest.main))
}

/// Whether Blender opens the file at `path` of a bundle for writing too: the frames of a baked simulation, which it only
/// reads but otherwise takes for not baked, and compiled shader scripts, which Cycles compiles anew where they are older than
/// their source (measured with 4.5).
pub fn is_opened_for_writing(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or_default();
    folder.ends_with("/meta") && name.ends_with(".json") || name.ends_with(".oso")
}

/// What of a bundle a sandboxed Blender may write to for that: whole folders where nothing else is in them, else files, at
/// most so many that each can be mounted.
pub fn opened_for_writing(manifest: &Manifest) -> BTreeSet<&str> {
    let paths = || manifest.files.iter().map(|file| file.path.as_str());
    let mixed: BTreeSet<&str> = paths()
        .filter(|path| !is_opened_for_writing(path))
        .flat_map(|path| path.match_indices('/').map(|(end, _)| &path[..end]))
        .collect();
    let opened = paths().filter(|path| is_opened_for_writing(path)).map(|path| {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if mixed.contains(folder) { path } else { folder }
    });
    opened.collect::<BTreeSet<&str>>().into_iter().take(WRITTEN_MAX).collect()
}

/// Whether every path of a manifest is one this program gives out; if not, a sentence that names the first bad one.
pub fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.files.len() > BUNDLE_MAX_FILES {
        return Err(format!("the bundle has {} files, more than the {BUNDLE_MAX_FILES} allowed", manifest.files.len()));
    }
    let mut seen = BTreeSet::new();
    for file in &manifest.files {
        if !is_safe_path(&file.path) {
            return Err(format!("the bundle has a file with the unsafe path {:?}; it is refused", shorten(&file.path)));
        }
        if !seen.insert(file.path.to_ascii_lowercase()) {
            return Err(format!("the bundle has two files with the path {:?}; it is refused", shorten(&file.path)));
        }
    }
    for file in &manifest.files {
        let path = file.path.to_ascii_lowercase();
        if path.match_indices('/').any(|(end, _)| seen.contains(&path[..end])) {
            return Err(format!("the bundle has {:?} below what is a file; it is refused", shorten(&file.path)));
        }
    }
    if manifest.files.iter().any(|file| file.path == manifest.main) {
        Ok(())
    } else {
        Err(format!("the bundle does not contain its own scene {:?}; it is refused", shorten(&manifest.main)))
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(PATH_MAX_BYTES).collect()
}

fn is_safe_path(path: &str) -> bool {
    let mut parts = path.split('/');
    path.len() <= PATH_MAX_BYTES
        && parts.next() == Some("f")
        && parts.clone().nth(1).is_some()
        && parts.all(is_safe_name)
}

/// Whether every system takes `name` as the plain name of one file: ASCII letters, digits, `.`, `_`, `-`, no dot at the
/// end, no name Windows reserves.
pub(super) fn is_safe_name(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let numbered = |device: &str| stem.strip_prefix(device).is_some_and(|n| n.len() == 1 && n != "0");
    let reserved = matches!(&*stem, "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt");
    plain && !reserved && !name.is_empty() && !name.ends_with('.')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::blob::BlobMap;

    fn manifest(paths: &[&str], main: &str) -> Manifest {
        let file = |path: &&str| BundleFile { path: (*path).into(), executable: false, map: BlobMap::default() };
        Manifest { main: main.into(), files: paths.iter().map(file).collect() }
    }

    #[test]
    fn a_bundle_is_laid_out_under_the_directory_given() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = manifest(&["f/0a/s.blend", "f/0b/t.png", "f/0b/7/meta/u"], "f/0a/s.blend");
        let main = lay_out(&manifest, dir.path(), &mut |file, path| std::fs::write(path, &file.path)).unwrap();
        assert_eq!(std::fs::read_to_string(main).unwrap(), "f/0a/s.blend");
        for path in ["f/0b/t.png", "f/0b/7/meta/u"] {
            assert_eq!(std::fs::read_to_string(dir.path().join(path)).unwrap(), path);
        }
    }

    #[test]
    fn what_blender_opens_for_writing_is_told_by_folders_unless_something_else_is_in_them() {
        let files =
            ["f/0a/s.blend", "f/0b/7/meta/1.json", "f/0b/7/meta/2.json", "f/0c/x.osl", "f/0c/x.oso", "f/0d/y.oso"];
        let told = |files: &[&str]| {
            opened_for_writing(&manifest(files, "f/0a/s.blend")).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(told(&files), ["f/0b/7/meta", "f/0c/x.oso", "f/0d"]);
        let with_another = [&files[..], &["f/0b/7/meta/deeper/image.png"]].concat();
        assert_eq!(told(&with_another)[..2], ["f/0b/7/meta/1.json", "f/0b/7/meta/2.json"]);
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused_before_anything_is_created() {
        let long = format!("f/a/{}", "x".repeat(PATH_MAX_BYTES));
        for bad in [
            "",
            "f",
            "f/",
            "f//x",
            "f/a/",
            "/f/a/x",
            "f/a/..",
            "f/../x",
            "../f/a/x",
            "f/./x",
            "f/a/b/",
            "f/a//b",
            "f/a/b/..",
            "f/a/../b/c",
            "f/a/b/CON/c",
            "g/a/x",
            "f/a/b\\c",
            "f/a/\0",
            "f/a/c:x",
            "f/a/é",
            "f/a/CON",
            "f/a/nul.txt",
            "f/a/lpt1.png",
            "f/a/x.",
            "f/a/ x",
            &long,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let manifest = manifest(&["f/a/ok", bad], "f/a/ok");
            let error = lay_out(&manifest, dir.path(), &mut |_, _| panic!("placed {bad:?}")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        assert!(check(&manifest(&["f/a/x", "f/a/X"], "f/a/x")).unwrap_err().contains("two files"));
        assert!(check(&manifest(&["f/a/x", "f/a/X/y"], "f/a/x")).unwrap_err().contains("below what is a file"));
        assert!(check(&manifest(&["f/a/x"], "f/a/y")).unwrap_err().contains("f/a/y"));
    }
}
