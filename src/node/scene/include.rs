//! Files that travel although no .blend names them: what scripts and add-ons open.
//!
//! They keep their names, since nobody rewrites a script. What is below the folder of the .blend keeps its place relative
//! to it; what is elsewhere goes beside the .blend, a folder with all that is in it. A name that some system refuses is an
//! error: under another name nobody would find it.

use super::SceneError;
use super::disk::absolute;
use super::layout::{PATH_MAX_BYTES, is_safe_name};
use crate::farm::blob::BUNDLE_MAX_FILES;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest path relative to the .blend, bytes: what `f/`, a hash and `/` leave of [`PATH_MAX_BYTES`].
const PLACE_MAX_BYTES: usize = PATH_MAX_BYTES - "f/0123456789abcdef/".len();

/// The files of `paths`, which are absolute, by their place relative to the .blend at `main`.
pub(super) fn included(main: &Path, paths: &[PathBuf]) -> Result<BTreeMap<String, PathBuf>, SceneError> {
    let home = main.parent().unwrap_or(Path::new("/"));
    let mut files = BTreeMap::new();
    for path in paths {
        let path = &absolute(path)?;
        let near = path.strip_prefix(home).ok();
        let place = near.or_else(|| path.file_name().map(Path::new));
        let place = place.ok_or_else(|| refused(path, "name a folder that can lie beside the scene"))?;
        let mut found = Walk { root: path, files: &mut files, above: Vec::new() };
        let before = found.files.len();
        found.walk(path, &safe(path, place)?)?;
        if found.files.len() == before {
            return Err(refused(path, "there is no file in it"));
        }
    }
    Ok(files)
}

/// The place beside the .blend at `main` of a file that is included.
pub fn place_beside(main: &Path, path: &Path) -> Result<String, SceneError> {
    let files = included(&absolute(main)?, &[path.into()])?;
    files.into_keys().next().ok_or_else(|| refused(path, "there is no such file"))
}

fn refused(path: &Path, what: impl Into<String>) -> SceneError {
    SceneError::Include { path: path.into(), what: what.into() }
}

/// `place` with slashes, if every system takes it.
fn safe(path: &Path, place: &Path) -> Result<String, SceneError> {
    let parts = place.iter().map(|part| part.to_str().filter(|part| is_safe_name(part)));
    let parts: Option<Vec<&str>> = parts.collect();
    let what = "some systems refuse its name; use letters of ASCII, digits, `.`, `_` and `-`";
    parts.map(|parts| parts.join("/")).ok_or_else(|| refused(path, what))
}

struct Walk<'a> {
    root: &'a Path,
    files: &'a mut BTreeMap<String, PathBuf>,
    /// The folders walked through, as the disk has them: a link back to one of them would never end.
    above: Vec<PathBuf>,
}

impl Walk<'_> {
    fn walk(&mut self, path: &Path, place: &str) -> Result<(), SceneError> {
        if place.len() > PLACE_MAX_BYTES {
            return Err(refused(path, format!("seen from the scene its path is longer than {PLACE_MAX_BYTES} bytes")));
        }
        let unreadable = |source| SceneError::unreadable(path, source);
        let meta = path.metadata().map_err(unreadable)?;
        if meta.is_file() {
            if let Some(other) = self.files.insert(place.to_owned(), path.into()).filter(|other| other != path) {
                return Err(refused(path, format!("{} has its place beside the scene", other.display())));
            }
            let many =
                || refused(self.root, format!("it holds more than the {BUNDLE_MAX_FILES} files a scene may have"));
            return if self.files.len() > BUNDLE_MAX_FILES { Err(many()) } else { Ok(()) };
        }
        if !meta.is_dir() {
            return Err(refused(path, "it is neither a file nor a folder"));
        }
        let real = path.canonicalize().map_err(unreadable)?;
        if self.above.contains(&real) {
            return Ok(());
        }
        self.above.push(real);
        for entry in path.read_dir().map_err(unreadable)? {
            let inner = entry.map_err(unreadable)?.path();
            let name = safe(&inner, Path::new(inner.file_name().unwrap_or_default()))?;
            self.walk(&inner, &if place.is_empty() { name } else { format!("{place}/{name}") })?;
        }
        self.above.pop();
        Ok(())
    }
}
