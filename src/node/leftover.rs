//! Files on the way to their names, and in the way once nobody wants them.

#[cfg(unix)]
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A file that goes when nobody wants it any more, unless it has another name by then.
#[derive(Debug)]
pub struct Leftover(pub PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        // Usually there is none.
        let _ = remove(&self.0);
    }
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a file, or a folder with all that is in it, if it is there: also where whoever made it took the right to from its
/// folders. Follows no link.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let remove = || match path.symlink_metadata()?.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    let removed = match remove() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            remove()
        }
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Gives this user all rights on a folder and those in it.
fn open_up(path: &Path) -> io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return Ok(());
    }
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    std::fs::read_dir(path)?.try_for_each(|entry| open_up(&entry?.path()))
}

/// The name beside `out` that a file of a job has while it is written, the same after a restart, so that what a kill left is
/// found. `work_dir` tells the job.
pub fn part_beside(out: &Path, work_dir: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(out.file_name().unwrap_or_default());
    let tag = blake3::hash(work_dir.as_os_str().as_encoded_bytes()).to_hex();
    name.push(format!(".{}.part", &tag[..8]));
    out.with_file_name(name)
}

/// Makes a rename durable.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_removed_is_the_tree_and_nothing_that_a_link_in_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, other) = (dir.path().join("tree"), dir.path().join("other"));
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/c"), "").unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&other, tree.join("a/link")).unwrap();
        // Root may whatever modes say; as another user this is what would be in the way.
        for closed in ["a/b", "a"] {
            std::fs::set_permissions(tree.join(closed), PermissionsExt::from_mode(0o000)).unwrap();
        }
        open_up(&tree).unwrap();
        let mode = tree.join("a/b").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && other.join("kept").exists());
    }
}
