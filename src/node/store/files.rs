//! What the store asks of a file system: syncing folders, clones, private temporary names, locks per name.

use crate::node::machine;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of a write. With a whole chunk at once the page cache takes larger pieces of memory, now and then ones that
/// nobody touched yet: 2 of 9 GiB came in 3.7 and 3.9 s of processor instead of 2.9-3.3, and with this none of 9
/// (`cargo bench --bench transfer -- 1024 3`, each three times in turn).
#[cfg(unix)]
const WRITE_AT_ONCE: usize = 16 << 10;

/// Locks a mutex; a thread that died holding it left plain data that is still whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the names in `dir` durable. File systems that cannot (some network ones) are taken at their word.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(dir)?.sync_all() {
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

/// Syncs all of the file system `dir` is on; false where that cannot be asked for.
pub(super) fn sync_file_system(dir: &Path) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        rustix::fs::syncfs(File::open(dir)?)?;
        Ok(true)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        Ok(false)
    }
}

/// Renames and makes the new name durable.
pub(super) fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(parent(to))
}

/// The folder a path lies in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes `to` share the blocks of `from`; false where the file system cannot.
pub(super) fn reflink(from: &File, to: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(to, from).is_ok();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, to);
        false
    }
}

/// Sets who may write and run: 0o444, 0o555 and so on. Does nothing where modes do not exist.
pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }
    #[cfg(not(unix))]
    {
        let _ = (path, mode);
        Ok(())
    }
}

/// Takes all rights on a file or folder of ours from everybody else. One that cannot have them taken (on a file system
/// without modes, or another user's) is told about and used all the same.
pub(in crate::node) fn keep_private(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path)?.permissions());
        if mode & 0o077 != 0
            && let Err(error) = set_mode(path, mode & 0o700)
        {
            tracing::warn!(path = %path.display(), %error, "other users may get at this, and it could not be forbidden");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes `dir` and what is missing above it, for this user alone.
pub(in crate::node) fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(dir)
}

/// Removes a file; one that is gone already is as good.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Bytes a person may still write to the file system `dir` is on; more than there can be where the system does not tell.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    match machine::free_bytes(dir) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(u64::MAX),
        told => told,
    }
}

/// A file that is removed unless [`keep`](Self::keep) is called: nothing half-written stays behind an error.
pub(super) struct Scratch<'a> {
    path: &'a Path,
    kept: bool,
}

impl<'a> Scratch<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, kept: false }
    }

    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(e) = remove_if_there(self.path)
        {
            tracing::warn!(path = %self.path.display(), error = %e, "cannot remove a temporary file");
        }
    }
}

/// One lock per name, held while a blob comes into being or is dropped, or a file is delivered.
pub(super) struct Named<K> {
    held: Mutex<BTreeSet<K>>,
    freed: Condvar,
}

impl<K: Ord + Copy> Named<K> {
    pub(super) fn new() -> Self {
        Self { held: Mutex::new(BTreeSet::new()), freed: Condvar::new() }
    }

    /// Waits until nobody else holds `key`.
    pub(super) fn hold(&self, key: K) -> Held<'_, K> {
        let mut held = lock(&self.held);
        while !held.insert(key) {
            held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        Held { of: self, key }
    }
}

/// A lock of [`Named`], until it is dropped.
pub(super) struct Held<'a, K: Ord + Copy> {
    of: &'a Named<K>,
    key: K,
}

impl<K: Ord + Copy> Drop for Held<'_, K> {
    fn drop(&mut self) {
        lock(&self.of.held).remove(&self.key);
        self.of.freed.notify_all();
    }
}

/// How many names a file has.
pub(super) fn names_of(meta: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::nlink(meta);
    #[cfg(not(unix))]
    {
        let _ = meta;
        1
    }
}

/// Fills `bytes` from `offset` on, leaving the file's own position alone where the system can.
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let (mut done, total) = (0, bytes.len());
        while done < total {
            match std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => done += some,
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes` at `offset`, leaving the file's own position alone where the system can.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        let begins = (offset..).step_by(WRITE_AT_ONCE);
        let write = |(piece, at)| std::os::unix::fs::FileExt::write_all_at(file, piece, at);
        bytes.chunks(WRITE_AT_ONCE).zip(begins).try_for_each(write)
    }
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            done += std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)?;
        }
        Ok(())
    }
}

/// Bytes a file takes on disk, holes not counted where the system tells.
pub(super) fn allocated_bytes(meta: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(meta) * 512;
    #[cfg(not(unix))]
    meta.len()
}
