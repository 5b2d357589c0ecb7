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
