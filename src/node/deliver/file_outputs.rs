//! The files of the compositor's File Output nodes under their names, below `file-outputs` in the folder of the frames.
//!
//! What they are called comes from the machine that rendered them: nothing of it leads out of that folder, by its words or
//! by a link. Every name has the frame's number, so that no frame has another's.

use super::super::store::Store;
use super::put::put_one;
use crate::farm::op::{Output, OutputRole};
use crate::wire::is_file_output;
use std::io;
use std::path::{Path, PathBuf};

/// Puts the files of `frame` under their names below `directory`; what is called as no file of a File Output node is put
/// nowhere. Errors name the folder.
pub(super) fn put<'a>(
    store: &Store,
    outputs: impl IntoIterator<Item = &'a Output>,
    directory: &Path,
    frame: i32,
) -> Result<(), (PathBuf, io::Error)> {
    for output in outputs.into_iter().filter(|output| output.role == OutputRole::Aux) {
        let path = &output.path;
        if !is_file_output(path) {
            tracing::warn!(frame, path, "a file with a name that leads elsewhere is not delivered");
            continue;
        }
        let to = directory.join(path);
        let folder = to.parent().unwrap_or(directory);
        no_links(directory, path)
            .and_then(|()| put_one(store, output, &to, folder))
            .map_err(|error| (folder.to_path_buf(), error))?;
    }
    Ok(())
}

/// Whether no folder below `directory`, nor the file itself, is a link: whoever made it did not mean results to go there.
fn no_links(directory: &Path, path: &str) -> io::Result<()> {
    let mut at = directory.to_path_buf();
    for name in path.split('/') {
        at.push(name);
        match at.symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                let text = format!("{} is a link, and files do not go through links; remove it", at.display());
                return Err(io::Error::other(text));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tempfile::TempDir;

    struct Stage {
        dir: TempDir,
        store: Arc<Store>,
    }

    impl Stage {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            Self { dir, store }
        }

        fn out(&self) -> PathBuf {
            self.dir.path().join("out")
        }

        /// Puts a file of this name and content; the error's words.
        fn put(&self, frame: i32, path: &str, content: &str) -> Result<(), String> {
            let (blob, map) = self.store.put_bytes(content.as_bytes()).unwrap();
            let output = |role| Output { path: path.into(), blob, bytes: map.bytes(), role };
            let outputs = [OutputRole::Image, OutputRole::Aux].map(output);
            put(&self.store, &outputs, &self.out(), frame).map_err(|(_, error)| error.to_string())
        }
    }

    #[test]
    fn file_outputs_go_below_their_folder_and_those_rendered_anew_take_their_place() {
        let stage = Stage::new();
        let path = "file-outputs/passes/Depth 1/z0003.exr";
        for content in ["three", "three", "three, rendered anew"] {
            stage.put(3, path, content).unwrap();
            assert_eq!(std::fs::read_to_string(stage.out().join(path)).unwrap(), content);
        }
        let folder = stage.out().join("file-outputs/passes/Depth 1");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "nothing half-written");
    }

    #[test]
    fn no_path_that_a_peer_tells_leads_out_of_the_folder_of_file_outputs() {
        let stage = Stage::new();
        let (long_name, long_path) =
            (format!("file-outputs/{}", "n".repeat(256)), format!("file-outputs{}", "/n".repeat(600)));
        let hostile = [
            "",
            "/etc/passwd",
            "/file-outputs/a",
            "..",
            "../a",
            "a.png",
            "file-outputs",
            "file-outputs/",
            "file-outputs//a",
            "file-outputs/../a",
            "file-outputs/a/../../b",
            "file-outputs/./a",
            "file-outputs-else/a",
            "file-outputs\\a",
            "file-outputs/a\\..\\b",
            "file-outputs/C:a",
            "C:/file-outputs/a",
            "file-outputs/a\0b",
            "file-outputs/a\n",
            "file-outputs/.swarm-01234567.part",
            "file-outputs/a/b.PART",
            &long_name,
            &long_path,
        ];
        for path in hostile {
            stage.put(1, path, "hostile").unwrap();
            assert!(!stage.out().exists(), "{path:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn file_outputs_go_through_no_link() {
        let stage = Stage::new();
        let elsewhere = stage.dir.path().join("elsewhere");
        std::fs::create_dir_all(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("a.png"), "the user's").unwrap();
        std::fs::create_dir_all(stage.out().join("file-outputs")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, stage.out().join("file-outputs/link")).unwrap();
        std::os::unix::fs::symlink(elsewhere.join("a.png"), stage.out().join("file-outputs/b.png")).unwrap();
        for path in ["file-outputs/link/a.png", "file-outputs/link/new/c.png", "file-outputs/b.png"] {
            let error = stage.put(1, path, "hostile").unwrap_err();
            assert!(error.contains("is a link"), "{path}: {error}");
        }
        assert_eq!(std::fs::read_to_string(elsewhere.join("a.png")).unwrap(), "the user's");
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
    }
}
