//! Putting files of a result under their names: each whole or not at all, and one that is there already left alone.

use super::super::chunk::{Chunking, chunk};
use super::super::leftover::remove;
use super::super::store::Store;
use crate::farm::blob::chunk_id;
use crate::farm::id::BlobId;
use crate::farm::op::{Output, OutputRole};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where a file of a unit goes.
pub(super) struct Place {
    pub role: OutputRole,
    pub path: PathBuf,
}

/// How a file gets under its name in a folder.
pub(super) type PutFile = fn(&Store, &Output, &Path, &Path) -> io::Result<()>;

/// Puts the image of a unit under its name, as `put_image` does, and what the video needs beside it. Errors name the folder.
pub(super) fn put(
    store: &Store,
    outputs: &[Output],
    image: &Place,
    beside: &[Place],
    put_image: PutFile,
) -> Result<(), (PathBuf, io::Error)> {
    for place in [image].into_iter().chain(beside) {
        let Place { role, path } = place;
        let folder = path.parent().unwrap_or(path);
        let put_file = if *role == OutputRole::Image { put_image } else { put_one };
        match outputs.iter().find(|output| output.role == *role) {
            Some(output) => put_file(store, output, path, folder).map_err(|error| (folder.to_path_buf(), error))?,
            // By a build that makes no previews: the image itself is tried in the video.
            None if *role == OutputRole::Preview => {}
            // The frame was rendered anew, from a scene that has none any more.
            None if *role == OutputRole::Sound => remove(path).map_err(|error| (folder.to_path_buf(), error))?,
            None => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "the result has no image");
                return Err((folder.to_path_buf(), error));
            }
        }
    }
    Ok(())
}

/// A file that is neither in the store nor under its name.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not in the store")]
struct Absent(BlobId);

pub(super) fn is_absent(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<Absent>())
}

/// Puts a file under its name, unless it is there already. One that is not in the store, or was found damaged there, is an
/// [`Absent`].
pub(super) fn put_one(store: &Store, output: &Output, path: &Path, folder: &Path) -> io::Result<()> {
    let absent = || io::Error::new(io::ErrorKind::NotFound, Absent(output.blob));
    if is_same(store, output, path)? {
        return Ok(());
    }
    if !store.has(output.blob) {
        return Err(absent());
    }
    std::fs::create_dir_all(folder)?;
    store.deliver(output.blob, path).map_err(|error| if store.has(output.blob) { error } else { absent() })
}

/// Puts a file that lay there before its job under its name, unless anything is there: the user may have changed it since.
pub(super) fn put_new(store: &Store, output: &Output, path: &Path, folder: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => put_one(store, output, path, folder),
        Err(error) => Err(error),
    }
}

/// Whether a file already has an output's content.
fn is_same(store: &Store, output: &Output, path: &Path) -> io::Result<bool> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let map = store.map(output.blob);
    if file.metadata()?.len() != map.as_ref().map_or(output.bytes, |map| map.bytes()) {
        return Ok(false);
    }
    let Some(map) = map else {
        // The store has lost it, or an earlier run delivered it: cut as it was taken in, it has the same id or is another.
        return Ok(chunk(&mut file, Chunking::Fixed, &mut |_, _| Ok(()))?.id() == output.blob);
    };
    let mut buffer = Vec::new();
    for chunk in &map.chunks {
        buffer.resize(chunk.bytes as usize, 0);
        file.read_exact(&mut buffer)?;
        if chunk_id(&buffer) != chunk.id {
            return Ok(false);
        }
    }
    Ok(true)
}
