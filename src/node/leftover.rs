//! Files that are in the way once nobody wants them.

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
