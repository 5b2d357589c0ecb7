//! What a renderer's own colours are known by, so that one whose configuration was replaced is told from others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most files that count (guess; Blender 4.5 has 27).
const FILES_MAX: usize = 4096;
/// Most bytes that count (guess; Blender 4.5 has 27 MB).
const BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Most folders that count, in all (guess; Blender 4.5 has 3).
const FOLDERS_MAX: usize = 256;
/// Deepest folder that counts (guess; Blender's are one deep).
const DEPTH_MAX: usize = 8;

/// A hash of what is in the first of `folders` that is there: where Blender, which looks in this order, has its colours from.
pub(super) fn colours_of(folders: &[PathBuf]) -> String {
    folders.iter().find(|folder| folder.is_dir()).map_or(String::new(), |folder| colours(folder))
}

/// A hash of all that is in `folder`, 8 hexadecimal digits; empty if nothing is. Reads the disk.
fn colours(folder: &Path) -> String {
    let mut found = Found::default();
    found.list(folder, &mut PathBuf::new(), 0);
    if found.files.is_empty() {
        return String::new();
    }
    let (mut hasher, mut left) = (blake3::Hasher::new(), BYTES_MAX);
    for (name, path) in found.files {
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

/// What was listed so far.
#[derive(Default)]
struct Found {
    /// Files by their names in the folder.
    files: BTreeMap<PathBuf, PathBuf>,
    /// Folders, where they really are: a link may lead back into one.
    folders: BTreeSet<PathBuf>,
}

impl Found {
    /// Whichever order the disk has its entries in: equal folders are to be equal on every machine.
    fn list(&mut self, folder: &Path, name: &mut PathBuf, depth: usize) {
        let is_new = folder.canonicalize().is_ok_and(|folder| self.folders.insert(folder));
        if !is_new || self.folders.len() > FOLDERS_MAX {
            return;
        }
        let mut entries = BTreeSet::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            entries.insert(entry.file_name());
            if entries.len() > FILES_MAX {
                entries.pop_last();
            }
        }
        for entry in entries {
            let path = folder.join(&entry);
            name.push(entry);
            if path.is_dir() && depth < DEPTH_MAX {
                self.list(&path, name, depth + 1);
            } else if path.is_file() && self.files.len() < FILES_MAX {
                self.files.insert(name.clone(), path);
            }
            name.pop();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::ability::Abilities;
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
    fn the_colours_are_those_of_the_first_folder_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["user", "system"].map(|name| dir.path().join(name));
        assert_eq!(colours_of(&folders), "");
        let write = |folder: &Path| {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("config.ocio"), folder.as_os_str().as_encoded_bytes()).unwrap();
        };
        write(&folders[1]);
        let system = colours_of(&folders);
        write(&folders[0]);
        let user = colours_of(&folders);
        assert_ne!(system, user);
        std::fs::remove_dir_all(&folders[0]).unwrap();
        assert_eq!(colours_of(&folders), system);
    }

    #[test]
    fn the_first_of_too_many_files_count_whatever_order_the_disk_has_them_in() {
        let [one, two] = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let names: Vec<String> = (0..FILES_MAX + 50).map(|name| format!("{name:06}")).collect();
        names.iter().for_each(|name| std::fs::write(one.path().join(name), name).unwrap());
        names.iter().rev().for_each(|name| std::fs::write(two.path().join(name), name).unwrap());
        assert_eq!(colours(one.path()), colours(two.path()));
        std::fs::write(two.path().join(&names[0]), "other").unwrap();
        assert_ne!(colours(one.path()), colours(two.path()));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_counts_once_however_many_links_lead_to_it() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("config.ocio"), "a").unwrap();
        std::fs::write(elsewhere.path().join("x"), "1").unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        let before = colours(dir.path());
        (0..10).for_each(|name| link(Path::new("."), &name.to_string()));
        assert_eq!(colours(dir.path()), before);
        // What is in one that lies elsewhere counts as it does for Blender.
        link(elsewhere.path(), "luts");
        let linked = colours(dir.path());
        std::fs::write(elsewhere.path().join("x"), "2").unwrap();
        assert!(![before, colours(dir.path())].contains(&linked));
        let wide = tempfile::tempdir().unwrap();
        for name in 0..2 * FOLDERS_MAX {
            let folder = wide.path().join(format!("{name:06}"));
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("x"), "").unwrap();
        }
        let mut found = Found::default();
        found.list(wide.path(), &mut PathBuf::new(), 0);
        assert_eq!(found.files.len(), FOLDERS_MAX - 1);
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
            colour_folders: Vec::new(),
            colours: colours.into(),
            abilities: Abilities::all(),
            devices: Vec::new(),
            sandbox: None,
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
