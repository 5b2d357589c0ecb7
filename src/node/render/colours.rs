//! What a renderer's own colours are known by, so that one whose configuration was replaced is told from others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most files that count (guess; Blender 4.5 has 27).
const FILES_MAX: usize = 4096;
/// Most bytes that count (guess; Blender 4.5 has 27 MB).
const BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Deepest folder that counts (guess; Blender's are one deep).
const DEPTH_MAX: usize = 8;

/// A hash of all that is in `folder`, 8 hexadecimal digits; empty if nothing is. Reads the disk.
pub(super) fn colours(folder: &Path) -> String {
    let mut files = BTreeMap::new();
    list(folder, &mut PathBuf::new(), 0, &mut files);
    if files.is_empty() {
        return String::new();
    }
    let (mut hasher, mut left) = (blake3::Hasher::new(), BYTES_MAX);
    for (name, path) in files {
        let mut content = blake3::Hasher::new();
        if let Ok(file) = File::open(path) {
            // What cannot be read to its end is not what another machine has.
            let _ = content.update_reader(file.take(left));
        }
        left = left.saturating_sub(content.count());
        hasher.update(blake3::hash(name.to_string_lossy().replace('\\', "/").as_bytes()).as_bytes());
        hasher.update(content.finalize().as_bytes());
    }
    hasher.finalize().to_hex()[..8].to_owned()
}

/// The files of a folder by their names in it.
fn list(folder: &Path, name: &mut PathBuf, depth: usize, files: &mut BTreeMap<PathBuf, PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        name.push(entry.file_name());
        if path.is_dir() && depth < DEPTH_MAX {
            list(&path, name, depth + 1, files);
        } else if path.is_file() && files.len() < FILES_MAX {
            files.insert(name.clone(), path);
        }
        name.pop();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::job::Series;
    use crate::node::render::{Renderer, RendererKind};

    #[test]
    fn colours_are_known_by_every_file_and_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        assert_eq!(colours(dir.path()), "");
        assert_eq!(colours(&dir.path().join("nowhere")), "");
        std::fs::create_dir(dir.path().join("luts")).unwrap();
        write("config.ocio", "a");
        let first = colours(dir.path());
        assert_eq!((first.len(), &colours(dir.path())), (8, &first));
        write("luts/x", "");
        let second = colours(dir.path());
        write("luts/x", "1");
        let third = colours(dir.path());
        std::fs::rename(dir.path().join("luts/x"), dir.path().join("luts/y")).unwrap();
        let all = [first, second, third, colours(dir.path())];
        assert!(all.iter().enumerate().all(|(at, one)| !all[..at].contains(one)), "{all:?}");
    }

    #[test]
    fn a_frame_names_its_renderers_commit_and_colours_unless_the_job_brings_them() {
        let renderer = |hash: &str, colours: &str| Renderer {
            kind: RendererKind::Executable,
            path: "/b".into(),
            version: (4, 5, 1),
            series: Series { major: 4, minor: 5 },
            file_version: 40_501,
            build_hash: hash.into(),
            colour_folder: None,
            colours: colours.into(),
            denoiser: true,
            options: Vec::new(),
            devices: Vec::new(),
        };
        let texts = |hash, colours| [false, true].map(|brings| renderer(hash, colours).rendered_text(brings));
        assert_eq!(texts("ab12", "01234567"), ["4.5.1 ab12 colours 01234567", "4.5.1 ab12"]);
        assert_eq!(texts("Unknown", "01234567"), ["4.5.1 colours 01234567", "4.5.1"]);
        assert_eq!(texts("ab12", ""), ["4.5.1 ab12", "4.5.1 ab12"]);
        assert_eq!(texts("", ""), ["4.5.1", "4.5.1"]);
        let has_commit = |hash| renderer(hash, "01234567").info().has_commit();
        assert!(has_commit("ab12") && !has_commit("Unknown") && !has_commit(""));
    }
}
