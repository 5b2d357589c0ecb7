//! The files of the compositor's File Output nodes under their names, below `file-outputs` in the folder of the frames.
//!
//! What they are called comes from the machine that rendered them: nothing of it leads out of that folder, by its words or
//! by a link. Where two frames name one file, the later frame's is there once both are delivered.

use super::super::store::Store;
use super::{lock, put_one};
use crate::farm::id::BlobId;
use crate::farm::op::{Output, OutputRole};
use crate::wire::is_file_output;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// By path below the folder of the frames: the last frame that has a file of that name, and the file.
pub(super) type Owners = Mutex<BTreeMap<String, (i32, BlobId)>>;

/// Puts the files of `frame` under their names below `directory`. Errors name the folder.
pub(super) fn put(
    store: &Store,
    outputs: &[Output],
    directory: &Path,
    frame: i32,
    owners: &Owners,
) -> Result<(), (PathBuf, io::Error)> {
    for output in outputs.iter().filter(|output| output.role == OutputRole::Aux) {
        let path = &output.path;
        if !is_file_output(path) {
            let text = format!("frame {frame} has a file called {path:?}, which is put nowhere; requeue it");
            return Err((directory.to_path_buf(), io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let (to, mine) = (directory.join(path), (frame, output.blob));
        let folder = to.parent().unwrap_or(directory);
        let mut last = *lock(owners).entry(path.clone()).and_modify(|last| *last = later(*last, mine)).or_insert(mine);
        loop {
            no_links(directory, path)
                .and_then(|()| put_one(store, last.1, &to, folder))
                .map_err(|error| (folder.to_path_buf(), error))?;
            // Another frame may have come by meanwhile, and its file be under what was put now.
            let now = lock(owners).get(path).copied().unwrap_or(last);
            if now == last {
                break;
            }
            last = now;
        }
    }
    Ok(())
}

/// Of one frame, what is delivered now: it was rendered anew.
fn later(last: (i32, BlobId), mine: (i32, BlobId)) -> (i32, BlobId) {
    if mine.0 >= last.0 { mine } else { last }
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
        owners: Owners,
    }

    impl Stage {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            Self { dir, store, owners: Owners::default() }
        }

        fn out(&self) -> PathBuf {
            self.dir.path().join("out")
        }

        /// Puts a file of this name and content; the error's words.
        fn put(&self, frame: i32, path: &str, content: &str) -> Result<(), String> {
            let (blob, map) = self.store.put_bytes(content.as_bytes()).unwrap();
            let output = |role| Output { path: path.into(), blob, bytes: map.bytes(), role };
            let outputs = [OutputRole::Image, OutputRole::Aux].map(output);
            put(&self.store, &outputs, &self.out(), frame, &self.owners).map_err(|(_, error)| error.to_string())
        }
    }

    #[test]
    fn file_outputs_go_below_their_folder_and_of_two_frames_the_later_ones_stays() {
        let stage = Stage::new();
        let path = "file-outputs/passes/Depth 1/z.exr";
        for (frame, content, there) in [(3, "three", "three"), (7, "seven", "seven"), (5, "five", "seven")] {
            stage.put(frame, path, content).unwrap();
            assert_eq!(std::fs::read_to_string(stage.out().join(path)).unwrap(), there);
        }
        stage.put(7, path, "seven, rendered anew").unwrap();
        assert_eq!(std::fs::read_to_string(stage.out().join(path)).unwrap(), "seven, rendered anew");
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
            let error = stage.put(1, path, "hostile").unwrap_err();
            assert!(error.contains("frame 1 has a file called"), "{path:?}: {error}");
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
