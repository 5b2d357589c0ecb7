//! The files that the compositor's File Output nodes write beside a frame's image.
//!
//! The driver has them written into a folder of the frame's own, below which they are called as their nodes say. Here they
//! are looked at as images are, whatever their size, before the frame counts.

use super::FailureKind;
use super::check::check_file;
use super::drawn::Refusal;
use crate::farm::op::MAX_OUTPUTS;
use crate::farm::views::MAX_VIEWS;
use crate::node::leftover::remove_tree;
use crate::wire::{FILE_OUTPUTS, MAX_FILE_OUTPUT_BYTES, MAX_OP_BYTES, is_file_output};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Most files of one frame (guess: the passes of a few view layers).
const FILES_MAX: usize = 64;
// With the views of the image, its preview and the sound, and the longest names.
const _: () = assert!(FILES_MAX + MAX_VIEWS + 3 <= MAX_OUTPUTS);
const _: () = assert!(FILES_MAX * MAX_FILE_OUTPUT_BYTES <= MAX_OP_BYTES / 2);
/// Most files and folders looked through (guess: each file in folders of its own).
pub(super) const ENTRIES_MAX: usize = 4 * FILES_MAX;

/// A file that a File Output node wrote for a frame, checked.
#[derive(Debug)]
pub struct FileOutput {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes, relative to the job's output directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// Those of one frame. Dropped, they go where they have not been taken away.
#[derive(Debug)]
pub struct FileOutputs {
    /// In the order of their paths.
    pub files: Vec<FileOutput>,
    _folder: Folder,
}

/// A folder that goes with all that is in it when nobody wants it any more.
#[derive(Debug)]
pub(super) struct Folder(pub PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // Usually there is none.
        let _ = remove_tree(&self.0);
    }
}

impl Folder {
    /// Checks all that Blender left in it. There need be nothing: a node may have no link.
    pub fn look(self) -> Result<FileOutputs, Refusal> {
        let unreadable = |error: io::Error| {
            (
                FailureKind::NoOutput,
                format!("what File Output nodes wrote to {} is unreadable: {error}", self.0.display()),
            )
        };
        let mut files = Vec::new();
        for from in files_below(&self.0).map_err(unreadable)? {
            let shown = from.strip_prefix(&self.0).unwrap_or(&from).display();
            let refused = |why: &str| (FailureKind::BadOutput, format!("`{shown}` of a File Output node {why}"));
            if files.len() == FILES_MAX {
                let text =
                    format!("File Output nodes wrote more than {FILES_MAX} files, which is too much for a frame");
                return Err((FailureKind::BadOutput, text));
            }
            let path = path_of(&from, &self.0).ok_or_else(|| refused("has a name that is none on some system"))?;
            if !from.symlink_metadata().map_err(unreadable)?.is_file() {
                return Err(refused("is no file"));
            }
            check_file(&from).map_err(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                refused(&format!("is not as it should be: {error}{cause}"))
            })?;
            let file = File::options().read(true).write(true).open(&from).map_err(unreadable)?;
            file.sync_all().map_err(unreadable)?;
            let bytes = file.metadata().map_err(unreadable)?.len();
            files.push(FileOutput { from, path, bytes });
        }
        Ok(FileOutputs { files, _folder: self })
    }
}

/// What is in `folder` and those below it and is no folder, in order.
fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut folders, mut files, mut seen) = (vec![folder.to_path_buf()], Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            seen += 1;
            if seen > ENTRIES_MAX {
                return Err(io::Error::other(format!("there are more than {ENTRIES_MAX} files and folders")));
            }
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    Ok(files)
}

/// Where a file goes that lies in `folder`, if it may go there.
fn path_of(file: &Path, folder: &Path) -> Option<String> {
    let mut path = String::from(FILE_OUTPUTS);
    for part in file.strip_prefix(folder).ok()? {
        path.push('/');
        path.push_str(part.to_str()?);
    }
    is_file_output(&path).then_some(path)
}
