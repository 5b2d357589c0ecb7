//! Blobs being fetched: one sparse file each, and a bitmap of the chunks that are in it.
//!
//! Chunks are written from many threads at once, each at its own offset; only the bitmap is behind a lock. The bitmap
//! is put on disk at a clean stop and believed after one; after any other stop every chunk in the file is hashed again,
//! so there is nothing to write while chunks arrive. A file is made with its first chunk and opened again when needed:
//! a bundle of many small files holds no file open that nobody writes.

use super::Store;
use super::blobs::{Recent, at, no_blob, no_chunk, offsets};
use super::files::{self, lock, read_exact_at, write_all_at};
use crate::farm::blob::{BlobMap, chunk_id};
use crate::farm::id::{BlobId, ChunkId};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Most files of downloads kept open (guess: more than are fetched at once).
const OPEN_PARTIALS: usize = 64;

/// A download as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// For each chunk of the map, whether it is here.
    pub have: Vec<bool>,
}

impl Partial {
    /// Whether all of it is here.
    pub fn complete(&self) -> bool {
        self.have.iter().all(|have| *have)
    }
}

/// A blob being fetched.
pub(super) struct Download {
    pub(super) map: BlobMap,
    offsets: Vec<u64>,
    /// For a chunk that occurs more than once in this blob: everywhere it does.
    repeats: BTreeMap<ChunkId, Vec<u32>>,
    state: Mutex<State>,
}

struct State {
    have: Vec<bool>,
    missing: usize,
    /// Bytes of the chunks that are here.
    here_bytes: u64,
    phase: Phase,
}

enum Phase {
    Fetching,
    /// It has its name and its record.
    Complete,
    Dropped,
}

impl Download {
    fn new(map: &BlobMap) -> Self {
        let mut places = BTreeMap::<ChunkId, Vec<u32>>::new();
        for (index, chunk) in map.chunks.iter().enumerate() {
            places.entry(chunk.id).or_default().push(index as u32);
        }
        places.retain(|_, indices| indices.len() > 1);
        let chunks = map.chunks.len();
        let state = State { have: vec![false; chunks], missing: chunks, here_bytes: 0, phase: Phase::Fetching };
        Self { map: map.clone(), offsets: offsets(map), repeats: places, state: Mutex::new(state) }
    }

    /// Notes that a chunk is in the file.
    fn note(&self, index: u32) {
        let mut state = lock(&self.state);
        if !std::mem::replace(&mut state.have[index as usize], true) {
            state.missing -= 1;
            state.here_bytes += u64::from(self.map.chunks[index as usize].bytes);
        }
    }

    fn is_whole(&self) -> bool {
        lock(&self.state).missing == 0
    }

    fn has(&self, index: u32) -> bool {
        lock(&self.state).have.get(index as usize).copied().unwrap_or(false)
    }

    fn have(&self) -> Vec<bool> {
        lock(&self.state).have.clone()
    }
}

/// All blobs being fetched, and the files earlier runs left.
pub(super) struct Downloads {
    dir: PathBuf,
    begun: Mutex<BTreeMap<BlobId, Arc<Download>>>,
    /// Left by earlier runs, not begun again yet, with the bytes they take.
    dormant: Mutex<BTreeMap<BlobId, u64>>,
    files: Recent<Arc<File>, OPEN_PARTIALS>,
}

impl Downloads {
    pub(super) fn new(dir: &Path) -> Self {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let dormant = entries.filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            Some((id, files::allocated_bytes(&entry.metadata().ok()?)))
        });
        Self {
            dir: dir.into(),
            dormant: Mutex::new(dormant.collect()),
            begun: Mutex::new(BTreeMap::new()),
            files: Recent::default(),
        }
    }

    /// All of them, begun or left.
    pub(super) fn ids(&self) -> Vec<BlobId> {
        let begun: Vec<BlobId> = lock(&self.begun).keys().copied().collect();
        let dormant: Vec<BlobId> = lock(&self.dormant).keys().copied().collect();
        begun.into_iter().chain(dormant).collect()
    }

    pub(super) fn get(&self, id: BlobId) -> Option<Arc<Download>> {
        lock(&self.begun).get(&id).cloned()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        let begun: u64 = lock(&self.begun).values().map(|download| lock(&download.state).here_bytes).sum();
        begun + lock(&self.dormant).values().sum::<u64>()
    }

    pub(super) fn read(&self, id: BlobId, download: &Download, index: u32) -> io::Result<Vec<u8>> {
        if !download.has(index) {
            return Err(no_chunk(id, index));
        }
        let mut bytes = vec![0; download.map.chunks[index as usize].bytes as usize];
        read_exact_at(&*self.file(id, download)?, &mut bytes, download.offsets[index as usize])?;
        Ok(bytes)
    }

    /// Syncs every download and returns the bitmaps to be kept; one that cannot be synced is left out.
    pub(super) fn pause(&self) -> Vec<(BlobId, Vec<bool>)> {
        let begun = lock(&self.begun).clone();
        let mut bitmaps = Vec::new();
        for (id, download) in begun {
            let have = download.have();
            if !have.contains(&true) {
                continue;
            }
            match self.file(id, &download).and_then(|file| file.sync_all()) {
                Ok(()) => bitmaps.push((id, have)),
                Err(e) => {
                    tracing::warn!(blob = %id, error = %e, "a download could not be synced and will be checked again")
                }
            }
        }
        bitmaps
    }

    /// Removes a download and its file, if there is one. The caller holds the blob's lock.
    pub(super) fn discard(&self, id: BlobId) -> io::Result<()> {
        let begun = lock(&self.begun).remove(&id);
        let dormant = lock(&self.dormant).remove(&id);
        if let Some(download) = &begun {
            lock(&download.state).phase = Phase::Dropped;
        }
        self.files.remove(id);
        if begun.is_some() || dormant.is_some() {
            files::remove_if_there(&self.path(id))?;
        }
        Ok(())
    }

    fn path(&self, id: BlobId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// The file of a download, made if nothing is to be in it yet.
    fn file(&self, id: BlobId, download: &Download) -> io::Result<Arc<File>> {
        if let Some(file) = self.files.get(id) {
            return Ok(file);
        }
        let path = self.path(id);
        let open = || {
            let fresh = lock(&download.state).here_bytes == 0;
            let file = File::options().read(true).write(true).create(fresh).truncate(false).open(&path)?;
            if file.metadata()?.len() != download.map.bytes() {
                file.set_len(download.map.bytes())?;
            }
            Ok(Arc::new(file))
        };
        let file: Arc<File> = open().map_err(at("open", &path))?;
        self.files.insert(id, file.clone(), 1);
        Ok(file)
    }

    /// Which chunks of `map` are in the file an earlier run left.
    fn survey(&self, id: BlobId, download: &Download, bitmap: Option<Vec<bool>>) -> io::Result<Vec<bool>> {
        let path = self.path(id);
        let chunks = &download.map.chunks;
        let length = match fs::metadata(&path) {
            Ok(stat) => stat.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![false; chunks.len()]),
            Err(e) => return Err(at("look at", &path)(e)),
        };
        if let Some(bitmap) = bitmap
            && bitmap.len() == chunks.len()
            && length == download.map.bytes()
        {
            return Ok(bitmap);
        }
        let file = self.file(id, download)?;
        let mut bytes = Vec::new();
        let mut have = Vec::with_capacity(chunks.len());
        for (chunk, offset) in chunks.iter().zip(&download.offsets) {
            bytes.resize(chunk.bytes as usize, 0);
            read_exact_at(&file, &mut bytes, *offset).map_err(at("read", &path))?;
            have.push(chunk_id(&bytes) == chunk.id);
        }
        Ok(have)
    }
}

impl Store {
    /// Begins or resumes fetching a blob. Chunks that other blobs here have are copied at once, so it may be complete
    /// when this returns; what an earlier run left is used, after a crash as far as its hashes hold.
    ///
    /// # Errors
    /// `InvalidInput` if the map breaks the limits, `StorageFull` if the disk has no room for what is missing, or the
    /// disk's.
    pub fn begin(&self, map: &BlobMap) -> io::Result<Partial> {
        if !map.is_sound() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the map of a blob breaks the limits"));
        }
        let id = map.id();
        let _held = self.names.hold(id);
        if self.has(id) {
            return Ok(Partial { have: vec![true; map.chunks.len()] });
        }
        let download = match self.downloads.get(id) {
            Some(download) => download,
            None => self.take_up(id, map)?,
        };
        if download.is_whole() {
            self.settle(id, &download)?;
        }
        Ok(Partial { have: download.have() })
    }

    /// A download that this run has not begun yet. The caller holds the blob's lock.
    fn take_up(&self, id: BlobId, map: &BlobMap) -> io::Result<Arc<Download>> {
        let download = Arc::new(Download::new(map));
        let left = lock(&self.downloads.dormant).contains_key(&id);
        if left {
            let have = self.downloads.survey(id, &download, self.database.bitmap(id)?)?;
            (0..).zip(have).filter(|(_, have)| *have).for_each(|(index, _)| download.note(index));
        }
        let missing_bytes = map.bytes() - lock(&download.state).here_bytes;
        let free_bytes = self.free_bytes()?;
        if missing_bytes > free_bytes {
            let why = format!("blob {} needs {missing_bytes} bytes more and the disk has {free_bytes}", id.short());
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        if let Err(e) = self.copy_known(id, &download) {
            // What was copied waits like a download of an earlier run.
            let here_bytes = lock(&download.state).here_bytes;
            lock(&self.downloads.dormant).insert(id, here_bytes);
            return Err(e);
        }
        lock(&self.downloads.dormant).remove(&id);
        lock(&self.downloads.begun).insert(id, download.clone());
        Ok(download)
    }

    /// Copies the missing chunks that complete blobs have; what rotted there is left to be fetched.
    fn copy_known(&self, id: BlobId, download: &Download) -> io::Result<()> {
        let have = download.have();
        let missing =
            || (0u32..).zip(&download.map.chunks).zip(&have).filter(|(_, have)| !**have).map(|(entry, _)| entry);
        let wanted: Vec<ChunkId> = missing().map(|(_, chunk)| chunk.id).collect();
        let mut bytes = Vec::new();
        for ((index, chunk), place) in missing().zip(self.database.locate(&wanted)?) {
            let Some((blob, offset)) = place else { continue };
            let Ok(Ok(source)) = self.open_known(blob) else { continue };
            bytes.resize(chunk.bytes as usize, 0);
            if read_exact_at(&source.file, &mut bytes, offset).is_ok() && chunk_id(&bytes) == chunk.id {
                let file = self.downloads.file(id, download)?;
                write_all_at(&file, &bytes, download.offsets[index as usize])
                    .map_err(at("write", &self.downloads.path(id)))?;
                download.note(index);
            }
        }
        Ok(())
    }

    /// Writes a chunk whose hash the caller has checked, and returns whether the blob is complete and durable now. A
    /// chunk that is here already is as good. Waits for the disk, and after the last chunk for its sync.
    ///
    /// # Errors
    /// `NotFound` if the blob was not begun or has no such chunk, `InvalidInput` if the length is wrong, or the disk's;
    /// after an error the chunk may be written again.
    pub fn write_chunk(&self, id: BlobId, index: u32, bytes: &[u8]) -> io::Result<bool> {
        let Some(download) = self.downloads.get(id) else {
            return if self.has(id) { Ok(true) } else { Err(no_blob(id)) };
        };
        let chunk = download.map.chunks.get(index as usize).ok_or_else(|| no_chunk(id, index))?;
        if bytes.len() != chunk.bytes as usize {
            let why = format!("chunk {index} of blob {id} has {} bytes and not {}", chunk.bytes, bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let alone = [index];
        for index in download.repeats.get(&chunk.id).map_or(&alone[..], Vec::as_slice) {
            if download.has(*index) {
                continue;
            }
            let file = self.downloads.file(id, &download)?;
            write_all_at(&file, bytes, download.offsets[*index as usize])
                .map_err(at("write", &self.downloads.path(id)))?;
            download.note(*index);
            // Fail point: in the middle of a transfer.
        }
        if !download.is_whole() {
            return Ok(false);
        }
        let _held = self.names.hold(id);
        self.settle(id, &download)?;
        Ok(true)
    }

    /// Gives a download that has all its chunks its name and its record. The caller holds the blob's lock.
    fn settle(&self, id: BlobId, download: &Download) -> io::Result<()> {
        match lock(&download.state).phase {
            Phase::Fetching => {}
            Phase::Complete => return Ok(()),
            Phase::Dropped => return Err(no_blob(id)),
        }
        let (path, named) = (self.downloads.path(id), self.blob_path(id));
        if !named.exists() || path.exists() {
            self.downloads.file(id, download)?.sync_all().map_err(at("sync", &path))?;
            files::set_mode(&path, 0o444)?;
            files::rename_durably(&path, &named).map_err(at("rename", &path))?;
        }
        // Fail point: the blob is durable under its name, and nothing knows of it yet.
        self.record(vec![(id, download.map.clone())])?;
        lock(&download.state).phase = Phase::Complete;
        lock(&self.downloads.begun).remove(&id);
        self.downloads.files.remove(id);
        Ok(())
    }

    /// Which chunks of a blob are here; none if it is neither complete nor begun.
    pub fn have(&self, id: BlobId) -> Option<Vec<bool>> {
        if let Some(download) = self.downloads.get(id) {
            return Some(download.have());
        }
        self.database.map(id).ok().flatten().map(|map| vec![true; map.chunks.len()])
    }
}
