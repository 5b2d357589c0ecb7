//! Taking content in: bytes, files of a scene, files a renderer wrote.
//!
//! The order is always: bytes, sync, name, sync of the folders, record. So a record implies a whole file, and a crash
//! leaves at most a file without a record, which the next start removes. Many small files go through these steps
//! together: synced one by one they cost 3 to 10 ms each (measured, ext4; together 0.4 ms), which is minutes for a
//! scene of 50,000.

use super::blobs::at;
use super::database::Change;
use super::files::{self, Scratch};
use super::{Store, StoreError};
use crate::farm::blob::BlobMap;
use crate::farm::id::{BlobId, ChunkId};
use crate::node::chunk::{Chunking, chunk};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Most files taken in with one sync (guess: a thousand times less overhead is enough).
const TOGETHER_FILES: usize = 1000;
/// Most bytes taken in with one sync (guess: about a second of a plain disk's writing).
const TOGETHER_BYTES: u64 = 256 << 20;
/// From so many files on the whole file system is synced at once, where the system can (guess: below, others' unwritten
/// data could cost more than is saved).
const SYNC_ALL_FROM: usize = 16;

/// Takes many files in at the cost of a few syncs. What it took is durable once [`finish`](Self::finish) has returned,
/// and what is not finished may be gone.
pub struct Intake<'a> {
    store: &'a Store,
    /// In `tmp`, to be named.
    waiting: BTreeMap<BlobId, Taken>,
    bytes: u64,
    /// Chunks of what is waiting.
    chunks: BTreeSet<ChunkId>,
}

struct Taken {
    map: BlobMap,
    path: PathBuf,
}

impl Drop for Intake<'_> {
    fn drop(&mut self) {
        self.waiting.values().for_each(|taken| drop(Scratch::new(&taken.path)));
    }
}

impl Intake<'_> {
    /// Takes what `reader` gives in as a blob. The second number is how many of its bytes are in chunks that neither a
    /// blob here nor one taken in before had.
    ///
    /// # Errors
    /// Reading fails or the disk refuses; nothing stays behind.
    pub fn put_reader(&mut self, reader: &mut dyn Read, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
        let path = self.store.temporary();
        let scratch = Scratch::new(&path);
        let mut file = File::create_new(&path)?;
        let map = chunk(reader, chunking, &mut |bytes, _| file.write_all(bytes))?;
        self.take(map, path.clone(), scratch)
    }

    /// Takes a copy of a file in, sharing its blocks where the file system can. The second number is as in
    /// [`put_reader`](Self::put_reader).
    ///
    /// # Errors
    /// The file cannot be read, or changed while it was (`InvalidData`, naming it), or the disk refuses.
    pub fn put_file(&mut self, path: &Path, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
        let mut source = File::open(path).map_err(at("open", path))?;
        let stat = source.metadata()?;
        if !stat.is_file() {
            return Err(not_a_file(path));
        }
        let copy_path = self.store.temporary();
        let scratch = Scratch::new(&copy_path);
        let mut copy = File::options().read(true).write(true).create_new(true).open(&copy_path)?;
        let map = if files::reflink(&source, &copy) {
            chunk(&mut copy, chunking, &mut |_, _| Ok(()))?
        } else {
            let map = chunk(&mut source, chunking, &mut |bytes, _| copy.write_all(bytes)).map_err(at("copy", path))?;
            let now = fs::metadata(path).map_err(at("look at", path))?;
            if (now.len(), now.modified()?) != (stat.len(), stat.modified()?) || map.bytes() != stat.len() {
                let why = io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read; try again");
                return Err(at("take in", path)(why));
            }
            map
        };
        self.take(map, copy_path.clone(), scratch)
    }

    /// Makes all that was taken in durable.
    ///
    /// # Errors
    /// The disk refuses; what was taken in since the last full round is not here then.
    pub fn finish(mut self) -> io::Result<()> {
        self.settle()
    }

    fn take(&mut self, map: BlobMap, path: PathBuf, scratch: Scratch<'_>) -> io::Result<(BlobMap, u64)> {
        let (ids, new_bytes) = self.store.new_to(&map, &self.chunks)?;
        let id = map.id();
        // One that is here already is dropped with its scratch, and nothing has to be synced for it.
        if !self.store.has(id) && !self.waiting.contains_key(&id) {
            self.bytes += map.bytes();
            self.chunks.extend(ids);
            scratch.keep();
            self.waiting.insert(id, Taken { map: map.clone(), path });
            if self.waiting.len() >= TOGETHER_FILES || self.bytes >= TOGETHER_BYTES {
                self.settle()?;
            }
        }
        Ok((map, new_bytes))
    }

    fn settle(&mut self) -> io::Result<()> {
        self.store.adopt(&self.waiting)?;
        self.waiting.clear();
        self.chunks.clear();
        self.bytes = 0;
        Ok(())
    }
}

impl Store {
    /// Begins to take many files in.
    pub fn intake(&self) -> Intake<'_> {
        Intake { store: self, waiting: BTreeMap::new(), bytes: 0, chunks: BTreeSet::new() }
    }

    /// Reads what `reader` gives as if it were taken in, and keeps nothing. The second number is how many of its bytes are
    /// in chunks that neither a blob here has nor `seen` names, to which they are added.
    ///
    /// # Errors
    /// Reading fails, or the database cannot be read.
    pub fn weigh(
        &self,
        reader: &mut dyn Read,
        chunking: Chunking,
        seen: &mut BTreeSet<ChunkId>,
    ) -> io::Result<(BlobMap, u64)> {
        let map = chunk(reader, chunking, &mut |_, _| Ok(()))?;
        let (ids, new_bytes) = self.new_to(&map, seen)?;
        seen.extend(ids);
        Ok((map, new_bytes))
    }

    /// The chunks of a blob that are not among `known`, and how many bytes of them no blob here has.
    fn new_to(&self, map: &BlobMap, known: &BTreeSet<ChunkId>) -> io::Result<(Vec<ChunkId>, u64)> {
        let mut lengths: BTreeMap<ChunkId, u64> =
            map.chunks.iter().map(|chunk| (chunk.id, u64::from(chunk.bytes))).collect();
        lengths.retain(|id, _| !known.contains(id));
        let ids: Vec<ChunkId> = lengths.keys().copied().collect();
        let places = self.database.locate(&ids)?;
        let new_bytes = lengths.values().zip(places).filter(|(_, place)| place.is_none()).map(|(bytes, _)| bytes).sum();
        Ok((ids, new_bytes))
    }

    /// Takes bytes in as a blob (cut by content); durable on return.
    ///
    /// # Errors
    /// The disk refuses; nothing stays behind.
    pub fn put_bytes(&self, bytes: &[u8]) -> io::Result<(BlobId, BlobMap)> {
        let (map, _) = self.put_reader(&mut &bytes[..], Chunking::ContentDefined)?;
        Ok((map.id(), map))
    }

    /// [`Intake::put_reader`] for one blob; durable on return.
    ///
    /// # Errors
    /// As there.
    pub fn put_reader(&self, reader: &mut dyn Read, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
        let mut intake = self.intake();
        let taken = intake.put_reader(reader, chunking)?;
        intake.finish()?;
        Ok(taken)
    }

    /// [`Intake::put_file`] for one file; durable on return.
    ///
    /// # Errors
    /// As there.
    pub fn put_file(&self, path: &Path, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
        let mut intake = self.intake();
        let taken = intake.put_file(path, chunking)?;
        intake.finish()?;
        Ok(taken)
    }

    /// Takes a finished file over: it is moved in where it lies on the same disk, copied and removed otherwise; durable
    /// on return. Meant for what a renderer wrote, so links are not followed and files with a second name are copied.
    ///
    /// # Errors
    /// It cannot be read or the disk refuses; the file is then where it was.
    pub fn import_file(&self, path: &Path, chunking: Chunking) -> io::Result<(BlobId, BlobMap)> {
        let stat = fs::symlink_metadata(path).map_err(at("open", path))?;
        if !stat.is_file() {
            return Err(not_a_file(path));
        }
        if files::names_of(&stat) == 1 {
            let mut file = File::open(path).map_err(at("open", path))?;
            let map = chunk(&mut file, chunking, &mut |_, _| Ok(())).map_err(at("read", path))?;
            let id = map.id();
            match self.adopt(&BTreeMap::from([(id, Taken { map: map.clone(), path: path.into() })])) {
                Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
                other => return other.map(|()| (id, map)),
            }
        }
        let (map, _) = self.put_file(path, chunking)?;
        files::remove_if_there(path)?;
        Ok((map.id(), map))
    }

    /// Gives files their blobs' names and records them. On an error those not recorded are where they were.
    fn adopt(&self, taken: &BTreeMap<BlobId, Taken>) -> io::Result<()> {
        let _held: Vec<_> = taken.keys().map(|id| self.names.hold(*id)).collect();
        let (here, new): (Vec<_>, Vec<_>) = taken.iter().partition(|(id, _)| self.has(**id));
        here.iter().try_for_each(|(_, taken)| files::remove_if_there(&taken.path))?;
        let together = new.len() >= SYNC_ALL_FROM;
        let synced = together && files::sync_file_system(&self.dir)?;
        for (_, taken) in &new {
            if !synced {
                File::open(&taken.path).and_then(|file| file.sync_all()).map_err(at("sync", &taken.path))?;
            }
            files::set_mode(&taken.path, 0o444)?;
        }
        let mut named = Vec::new();
        let done = self.name_and_record(&new, together, &mut named);
        if done.is_err() {
            for (from, to) in named {
                fs::rename(to, from)?;
            }
        }
        done
    }

    fn name_and_record(
        &self,
        new: &[(&BlobId, &Taken)],
        together: bool,
        named: &mut Vec<(PathBuf, PathBuf)>,
    ) -> io::Result<()> {
        for (id, taken) in new {
            let to = self.blob_path(**id);
            fs::rename(&taken.path, &to)?;
            named.push((taken.path.clone(), to));
        }
        if !(together && files::sync_file_system(&self.dir)?) {
            let folders: BTreeSet<&Path> = named.iter().map(|(_, to)| files::parent(to)).collect();
            folders.into_iter().try_for_each(files::sync_dir)?;
        }
        // Fail point: the files are durable under their names, and nothing knows of them yet.
        self.record(new.iter().map(|(id, taken)| (**id, taken.map.clone())).collect())?;
        new.iter().try_for_each(|(id, _)| self.downloads.discard(**id))
    }

    /// Records blobs whose files are durable under their names. The caller holds their locks.
    pub(super) fn record(&self, blobs: Vec<(BlobId, BlobMap)>) -> Result<(), StoreError> {
        if !blobs.is_empty() {
            self.storage.write(Change::Blobs(blobs))?;
        }
        Ok(())
    }
}

fn not_a_file(path: &Path) -> io::Error {
    at("take in", path)(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"))
}
