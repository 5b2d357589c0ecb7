//! Complete blobs: reading them, giving them out, dropping them. How they come here is in `intake` and `partial`.

use super::database::Change;
use super::files::{self, Scratch, lock, read_exact_at};
use super::{Store, StoreError};
use crate::farm::blob::{BlobMap, chunk_id};
use crate::farm::id::BlobId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Weight of blobs kept open for reading: 1 for the file and 1 for every 1,024 chunks, so at most 128 files and 6 MiB
/// of maps (guess).
const OPEN_BLOBS_WEIGHT: usize = 128;

/// What can happen to a file.
const NO_FILE: &str = "is gone";
const OTHER_LENGTH: &str = "has another length than its record";
const DAMAGED: &str = "is damaged";

/// A complete blob, open for reading.
pub(super) struct OpenBlob {
    pub(super) file: File,
    pub(super) map: BlobMap,
    /// Where each chunk begins.
    pub(super) offsets: Vec<u64>,
}

/// What happened to the file of a recorded blob.
pub(super) struct Lost(&'static str);

/// Blobs open for reading.
pub(super) type OpenBlobs = Recent<Arc<OpenBlob>, OPEN_BLOBS_WEIGHT>;

impl Store {
    /// Whether a complete blob is here. Reads the database's cache, not the disk, as a rule.
    pub fn has(&self, id: BlobId) -> bool {
        self.database.has_blob(id).unwrap_or(false)
    }

    /// The map of a blob that is complete here, or being fetched.
    pub fn map(&self, id: BlobId) -> Option<BlobMap> {
        let complete = || self.database.map(id).ok().flatten();
        self.downloads.get(id).map(|download| download.map.clone()).or_else(complete)
    }

    /// Every complete blob with its length in bytes, in order of id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn blobs(&self) -> Result<Vec<(BlobId, u64)>, StoreError> {
        self.database.blobs()
    }

    /// Every blob being fetched, or left half-fetched by an earlier run.
    pub fn begun(&self) -> Vec<BlobId> {
        self.downloads.ids()
    }

    /// A complete blob, open. Forgets a blob whose file is gone or has another length.
    pub(super) fn opened(&self, id: BlobId) -> io::Result<Arc<OpenBlob>> {
        match self.open_known(id)? {
            Ok(blob) => Ok(blob),
            Err(Lost(why)) => {
                self.lose(id, why)?;
                Err(no_blob(id))
            }
        }
    }

    /// Forgets a blob of which something happened to the file, to be told of by [`take_gone`](Self::take_gone).
    fn lose(&self, id: BlobId, why: &'static str) -> io::Result<()> {
        tracing::warn!(blob = %id, "the file of a blob {why}; the blob is forgotten");
        self.drop_blobs(&[id])?;
        lock(&self.gone).insert(id);
        Ok(())
    }

    /// Blobs that were found to be gone or damaged since this was last asked, and did not come back since.
    pub fn take_gone(&self) -> Vec<BlobId> {
        let gone = std::mem::take(&mut *lock(&self.gone));
        gone.into_iter().filter(|id| !self.has(*id)).collect()
    }

    /// Looks which of these blobs are here, by the lengths of their files: those that are not will be told of by
    /// [`take_gone`](Self::take_gone), also where nothing is known of them.
    ///
    /// # Errors
    /// The database cannot be read or written; the rest was not looked at.
    pub fn look_for(&self, ids: &BTreeSet<BlobId>) -> io::Result<Holdings> {
        let lengths: BTreeMap<BlobId, u64> = self.blobs()?.into_iter().collect();
        let mut found = Holdings::default();
        for id in ids {
            let Some(length) = lengths.get(id) else {
                lock(&self.gone).insert(*id);
                continue;
            };
            let path = self.blob_path(*id);
            match fs::metadata(&path) {
                Ok(file) if file.len() != *length => self.lose(*id, OTHER_LENGTH)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.lose(*id, NO_FILE)?,
                Ok(_) => found.here.push(*id),
                Err(error) => {
                    found.unseen += 1;
                    found.why.get_or_insert_with(|| at("look at", &path)(error));
                }
            }
        }
        Ok(found)
    }

    /// A complete blob, open, or what happened to its file. Takes no lock of a blob.
    pub(super) fn open_known(&self, id: BlobId) -> io::Result<Result<Arc<OpenBlob>, Lost>> {
        if let Some(blob) = self.opened.get(id) {
            return Ok(Ok(blob));
        }
        let map = self.database.map(id)?.ok_or_else(|| no_blob(id))?;
        let path = self.blob_path(id);
        let file = match File::open(&path) {
            Ok(file) if file.metadata()?.len() == map.bytes() => file,
            Ok(_) => return Ok(Err(Lost(OTHER_LENGTH))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Err(Lost(NO_FILE))),
            Err(e) => return Err(at("open", &path)(e)),
        };
        let weight = 1 + map.chunks.len() / 1024;
        let blob = Arc::new(OpenBlob { file, offsets: offsets(&map), map });
        self.opened.insert(id, blob.clone(), weight);
        Ok(Ok(blob))
    }

    /// The bytes of a chunk of a blob that is complete or being fetched. They are as the disk has them: whoever uses
    /// them checks their hash.
    ///
    /// # Errors
    /// `NotFound` if this chunk is not here, or the disk's.
    pub fn read_chunk(&self, id: BlobId, index: u32) -> io::Result<Vec<u8>> {
        if let Some(download) = self.downloads.get(id) {
            return self.downloads.read(id, &download, index);
        }
        let blob = self.opened(id)?;
        let chunk = blob.map.chunks.get(index as usize).ok_or_else(|| no_chunk(id, index))?;
        let mut bytes = vec![0; chunk.bytes as usize];
        self.read_of(&blob, index as usize, &mut bytes)?;
        Ok(bytes)
    }

    /// The same, and the chunk of a complete blob is checked: one that is damaged is told of and `NotFound`.
    ///
    /// # Errors
    /// As [`read_chunk`](Self::read_chunk).
    pub fn read_checked(&self, id: BlobId, index: u32) -> io::Result<Vec<u8>> {
        let bytes = self.read_chunk(id, index)?;
        if self.downloads.get(id).is_none() {
            let blob = self.opened(id)?;
            let is_sound = blob.map.chunks.get(index as usize).is_some_and(|chunk| chunk.id == chunk_id(&bytes));
            if !is_sound {
                self.lose(id, DAMAGED)?;
                return Err(no_blob(id));
            }
        }
        Ok(bytes)
    }

    /// Fills `bytes` with a chunk of a blob, whose file may have been cut short while it was open.
    fn read_of(&self, blob: &OpenBlob, index: usize, bytes: &mut [u8]) -> io::Result<()> {
        match read_exact_at(&blob.file, bytes, blob.offsets[index]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let id = blob.map.id();
                self.lose(id, OTHER_LENGTH)?;
                Err(no_blob(id))
            }
            read => read,
        }
    }

    /// A complete blob as a file, for reading.
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    pub fn open_blob(&self, id: BlobId) -> io::Result<File> {
        self.opened(id)?;
        let path = self.blob_path(id);
        File::open(&path).map_err(at("open", &path))
    }

    /// Lays a complete blob out at `to`, read-only, for a renderer: sharing blocks where the file system can, else as a
    /// second name of the same file, else as a copy. Makes the folders above it.
    ///
    /// # Errors
    /// `NotFound` without the blob, `AlreadyExists` if something is at `to`, or the disk's; nothing stays behind.
    pub fn place(&self, id: BlobId, to: &Path, executable: bool) -> io::Result<()> {
        let blob = self.opened(id)?;
        fs::create_dir_all(files::parent(to)).map_err(at("make the folder of", to))?;
        let mut copy = File::create_new(to).map_err(at("make", to))?;
        let scratch = Scratch::new(to);
        if !files::reflink(&blob.file, &copy) {
            // A second name shares its mode, so an executable file is never one.
            if !executable && fs::remove_file(to).and_then(|()| fs::hard_link(self.blob_path(id), to)).is_ok() {
                scratch.keep();
                return Ok(());
            }
            if !to.exists() {
                copy = File::create_new(to).map_err(at("make", to))?;
            }
            io::copy(&mut self.open_blob(id)?, &mut copy).map_err(at("write", to))?;
        }
        files::set_mode(to, if executable { 0o555 } else { 0o444 })?;
        scratch.keep();
        Ok(())
    }

    /// Gives a complete blob to a person as `to`: checks every chunk on the way, and the file appears whole and durable
    /// or not at all, replacing what was there.
    ///
    /// # Errors
    /// `NotFound` without the blob, `InvalidData` if it rotted on disk, and then it is forgotten (fetch it again),
    /// `StorageFull` and the like from the disk; nothing stays behind.
    pub fn deliver(&self, id: BlobId, to: &Path) -> io::Result<()> {
        let blob = self.opened(id)?;
        // The same name for the same delivery, so that one cut short by a crash leaves nothing once it is repeated.
        let mark = chunk_id(&[&id.0, to.as_os_str().as_encoded_bytes()].concat());
        // Of the delivery, not of the blob: a folder that hangs keeps it from no other.
        let _held = self.names.hold(BlobId(mark.0));
        let temporary = files::parent(to).join(format!(".swarm-{}.part", mark.short()));
        let scratch = Scratch::new(&temporary);
        let mut copy = File::create(&temporary).map_err(at("write", to))?;
        let shared = files::reflink(&blob.file, &copy);
        let mut bytes = Vec::new();
        for (index, chunk) in blob.map.chunks.iter().enumerate() {
            bytes.resize(chunk.bytes as usize, 0);
            self.read_of(&blob, index, &mut bytes).map_err(at("read", &self.blob_path(id)))?;
            if chunk_id(&bytes) != chunk.id {
                self.lose(id, DAMAGED)?;
                let why = "its content is damaged: fetch it again from another node";
                return Err(at("deliver", &self.blob_path(id))(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            if !shared {
                copy.write_all(&bytes).map_err(at("write", to))?;
            }
        }
        copy.sync_all().map_err(at("write", to))?;
        files::rename_durably(&temporary, to).map_err(at("write", to))?;
        scratch.keep();
        Ok(())
    }

    /// Drops a blob, complete or being fetched; one that is not here is as good.
    ///
    /// # Errors
    /// The disk refuses; the blob may then be forgotten and its file still there until the next start.
    pub fn drop_blob(&self, id: BlobId) -> io::Result<()> {
        self.drop_blobs(&[id])
    }

    /// Drops many blobs in one transaction.
    ///
    /// # Errors
    /// As [`drop_blob`](Self::drop_blob).
    pub fn drop_blobs(&self, ids: &[BlobId]) -> io::Result<()> {
        // In order of id and each once, so that two callers cannot wait for each other.
        let ids: BTreeSet<BlobId> = ids.iter().copied().collect();
        let held: Vec<_> = ids.iter().map(|id| self.names.hold(*id)).collect();
        self.storage.write(Change::Forget(ids.iter().copied().collect()))?;
        for id in &ids {
            self.opened.remove(*id);
            self.downloads.discard(*id)?;
            files::remove_if_there(&self.blob_path(*id))?;
        }
        drop(held);
        Ok(())
    }
}

/// Which of some blobs are in the store.
#[derive(Debug, Default)]
pub struct Holdings {
    /// These are.
    pub here: Vec<BlobId>,
    /// Of so many it cannot be told.
    pub unseen: usize,
    /// Why not, of the first of them.
    pub why: Option<io::Error>,
}

/// Where each chunk of a blob begins.
pub(super) fn offsets(map: &BlobMap) -> Vec<u64> {
    let begin = |end: &mut u64, bytes: u32| Some(std::mem::replace(end, *end + u64::from(bytes)));
    map.chunks.iter().scan(0, |end, chunk| begin(end, chunk.bytes)).collect()
}

pub(super) fn no_blob(id: BlobId) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("blob {id} is not in the store"))
}

pub(super) fn no_chunk(id: BlobId, index: u32) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("chunk {index} of blob {id} is not in the store"))
}

/// Names the file an error is about, keeping its kind.
pub(super) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("cannot {doing} {}: {e}", path.display()))
}

/// The most recently used of something, up to a weight.
pub(super) struct Recent<V, const WEIGHT: usize> {
    inner: Mutex<RecentInner<V>>,
}

struct RecentInner<V> {
    clock: u64,
    weight: usize,
    /// Last use, weight and value.
    entries: BTreeMap<BlobId, (u64, usize, V)>,
}

impl<V, const WEIGHT: usize> Default for Recent<V, WEIGHT> {
    fn default() -> Self {
        Self { inner: Mutex::new(RecentInner { clock: 0, weight: 0, entries: BTreeMap::new() }) }
    }
}

impl<V: Clone, const WEIGHT: usize> Recent<V, WEIGHT> {
    pub(super) fn get(&self, id: BlobId) -> Option<V> {
        let mut inner = lock(&self.inner);
        inner.clock += 1;
        let now = inner.clock;
        inner.entries.get_mut(&id).map(|(used, _, value)| {
            *used = now;
            value.clone()
        })
    }

    pub(super) fn insert(&self, id: BlobId, value: V, weight: usize) {
        let mut inner = lock(&self.inner);
        inner.clock += 1;
        let now = inner.clock;
        if let Some((_, old, _)) = inner.entries.insert(id, (now, weight, value)) {
            inner.weight -= old;
        }
        inner.weight += weight;
        while inner.weight > WEIGHT && inner.entries.len() > 1 {
            let Some(oldest) = inner.entries.iter().min_by_key(|(_, (used, ..))| *used).map(|(id, _)| *id) else {
                return;
            };
            inner.drop_entry(oldest);
        }
    }

    pub(super) fn remove(&self, id: BlobId) {
        lock(&self.inner).drop_entry(id);
    }
}

impl<V> RecentInner<V> {
    fn drop_entry(&mut self, id: BlobId) {
        if let Some((_, weight, _)) = self.entries.remove(&id) {
            self.weight -= weight;
        }
    }
}
