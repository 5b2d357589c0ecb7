//! Paths of other machines: where Windows drives, network shares and other folders are here.
//!
//! A .blend saved elsewhere says `P:\tex\wood.png` or `\\server\share\wood.png`; `--map 'P:\=/mnt/p'` says what that is on
//! this machine. Slashes of both kinds are the same, and Windows ignores case.

use super::names::os_path;
use std::path::{Path, PathBuf};

/// Most folders looked into above a .blend for a file that a map would find, and most parts of its path left out (guess).
const TRIED_MAX: usize = 32;

/// Paths that begin with `from` are found in `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathMap {
    /// As stored in the .blend: `P:\`, `\\server\share`, `/home/me`.
    pub from: String,
    /// A folder on this machine, absolute.
    pub to: PathBuf,
}

impl PathMap {
    /// Where `stored` is on this machine; `None` if it does not begin with `from`, whole names.
    pub fn apply(&self, stored: &[u8]) -> Option<PathBuf> {
        let (from, stored) = (Foreign::of(self.from.as_bytes()), Foreign::of(stored));
        if from.root != stored.root || from.parts.len() > stored.parts.len() {
            return None;
        }
        let ignores_case = from.root != Root::Posix;
        let same = |a: &[u8], b: &[u8]| if ignores_case { lower(a) == lower(b) } else { a == b };
        let begins = from.parts.iter().zip(&stored.parts).all(|(a, b)| same(a, b));
        let rest = stored.parts.get(from.parts.len()..)?;
        (begins && from.root != Root::Relative).then(|| joined(&self.to, rest))
    }
}

/// Whether a path is of a Windows drive or a network share.
pub(super) fn is_foreign(stored: &[u8]) -> bool {
    matches!(Foreign::of(stored).root, Root::Drive(_) | Root::Share)
}

/// The map that would find a missing path of another machine, as people write it: `P:\=/mnt/p`. Looks for the file in the
/// folders above `blend`; where it is in none of them, `FOLDER` stands for what is to be filled in. `None` for paths that
/// may well be of this machine. `exists` looks at the disk.
pub(super) fn suggested(stored: &[u8], blend: &Path, exists: &mut dyn FnMut(&Path) -> bool) -> Option<String> {
    let foreign = Foreign::of(stored);
    let (root, first) = match &foreign.root {
        Root::Drive(letter) => (format!("{}:\\", char::from(letter.to_ascii_uppercase())), 0),
        // A server alone is no folder.
        Root::Share => (r"\\".to_owned(), 2),
        Root::Posix | Root::Relative => return None,
    };
    let from = |parts: usize| {
        let parts = foreign.parts.iter().take(parts).map(|part| String::from_utf8_lossy(part));
        root.clone() + &parts.collect::<Vec<_>>().join("\\")
    };
    for parts in (first..foreign.parts.len()).take(TRIED_MAX) {
        let rest = foreign.parts.get(parts..)?;
        for to in blend.ancestors().skip(1).take(TRIED_MAX) {
            if exists(&joined(to, rest)) {
                return Some(format!("{}={}", from(parts), to.display()));
            }
        }
    }
    Some(format!("{}=FOLDER", from(first)))
}

/// What a path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    /// `P:\`, by its letter in lower case.
    Drive(u8),
    /// `\\server\share`.
    Share,
    /// `/`.
    Posix,
    /// Anything else, Blender's `//` among it.
    Relative,
}

/// A path taken apart.
struct Foreign<'a> {
    root: Root,
    parts: Vec<&'a [u8]>,
}

impl<'a> Foreign<'a> {
    fn of(path: &'a [u8]) -> Self {
        let (root, rest) = match path {
            [letter, b':', rest @ ..] if letter.is_ascii_alphabetic() => {
                (Root::Drive(letter.to_ascii_lowercase()), rest)
            }
            [b'\\', b'\\', rest @ ..] => (Root::Share, rest),
            [b'/', b'/', ..] => (Root::Relative, path),
            [b'/', rest @ ..] => (Root::Posix, rest),
            _ => (Root::Relative, path),
        };
        let parts = rest.split(|byte| matches!(byte, b'/' | b'\\')).filter(|part| !part.is_empty() && *part != b".");
        Self { root, parts: parts.collect() }
    }
}

fn lower(part: &[u8]) -> String {
    String::from_utf8_lossy(part).to_lowercase()
}

fn joined(to: &Path, parts: &[&[u8]]) -> PathBuf {
    parts.iter().fold(to.to_path_buf(), |path, part| path.join(os_path(part)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: &str, stored: &str, found: Option<&str>) {
        let map = PathMap { from: from.into(), to: "/mnt/p".into() };
        assert_eq!(map.apply(stored.as_bytes()), found.map(PathBuf::from));
    }

    #[test]
    fn a_map_takes_both_slashes_and_windows_paths_in_any_case() {
        check(r"P:\", r"p:\Tex/wood.png", Some("/mnt/p/Tex/wood.png"));
        check("p:", r"P:\wood.png", Some("/mnt/p/wood.png"));
        check(r"P:\proj", r"P:\PROJ\a.png", Some("/mnt/p/a.png"));
        check(r"\\server\share", r"\\SERVER\Share\a\b.png", Some("/mnt/p/a/b.png"));
        check("/home/me", "/home/me/a.png", Some("/mnt/p/a.png"));
        check("/home/me/", "/home/me/a.png", Some("/mnt/p/a.png"));
    }

    #[test]
    fn a_map_leaves_alone_what_is_not_below_it() {
        check(r"P:\proj", r"P:\project\a.png", None);
        check(r"P:\", r"Q:\a.png", None);
        check("/home/me", "/HOME/ME/a.png", None);
        // Blender's own relative paths.
        check(r"\\server\share", "//server/share/a.png", None);
        check("//tex", "//tex/a.png", None);
        check("tex", "tex/a.png", None);
    }

    #[test]
    fn the_map_that_would_mend_a_path_is_found_beside_the_scene() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        std::fs::create_dir_all(dir.path().join("proj/tex")).unwrap();
        std::fs::write(dir.path().join("proj/tex/a.png"), "").unwrap();
        let blend = dir.path().join("proj/shots/s.blend");
        let suggested = |stored: &str| suggested(stored.as_bytes(), &blend, &mut |path| path.exists());
        assert_eq!(suggested(r"p:\proj\tex\a.png"), Some(format!(r"P:\={at}")));
        assert_eq!(suggested(r"P:\old\proj\tex\a.png"), Some(format!(r"P:\old={at}")));
        assert_eq!(suggested(r"\\srv\vol\tex\a.png"), Some(format!(r"\\srv\vol={at}/proj")));
        assert_eq!(suggested(r"P:\gone.png").as_deref(), Some(r"P:\=FOLDER"));
        assert_eq!(suggested(r"\\srv\vol\gone.png").as_deref(), Some(r"\\srv\vol=FOLDER"));
        assert_eq!((suggested("/gone.png"), suggested("//gone.png")), (None, None));
    }
}
