//! The store: what this node keeps on disk. Settings and the ledger in one redb file, blobs as plain files beside it.
//!
//! ```text
//! DIR/lock            held while a daemon runs; names its process
//! DIR/store.redb      settings, ledger, maps of blobs, which chunk is where
//! DIR/blobs/ab/abcd…  complete blobs, read-only, named by id
//! DIR/partial/abcd…   blobs being fetched
//! DIR/tmp/…           blobs being taken in; emptied at every start
//! ```
//!
//! A blob whose file turns out to be gone or damaged is forgotten, and told of once ([`Store::take_gone`]): what others
//! were told to find here is theirs to know.
//!
//! Promises: what a call says is durable is on disk when it returns; a blob has its name only once it is whole and
//! synced; a chunk found after a crash is believed only once its hash has been seen. The store never removes a file
//! outside these folders, and inside them only its own. It never waits for the network and never decides what to keep:
//! who calls does.
//!
//! Everything here blocks and may be called from any thread; only [`StoreWriter::try_send`], [`Store::has`] and
//! [`Store::have`] are meant for a loop that must not wait.

mod blobs;
mod database;
mod files;
mod intake;
mod partial;
mod writer;

pub use blobs::Holdings;
pub(in crate::node) use files::{keep_private, make_private_dir};
pub use intake::Intake;
pub use partial::Partial;
pub use writer::{Batch, LAZY_AT_MOST, LedgerRow, QUEUE_BATCHES, QUEUE_BYTES, Refused, StoreEvent, StoreWriter};

use crate::farm::id::BlobId;
use database::{Change, Database};
use files::{Named, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use writer::Storage;

/// Why the store cannot do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory.
    #[error(
        "another swarm daemon{} uses {}; stop it, or choose another folder with --data-dir",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        dir.display()
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The other process, where it could be read.
        pid: Option<u32>,
    },
    /// Written by a later version.
    #[error(
        "{} was written by a newer swarm (format {found}; this one knows up to {known}); install that version again, \
         or choose another folder with --data-dir",
        file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format known here.
        known: u64,
    },
    /// Not a database of ours, or damaged.
    #[error(
        "{} cannot be read: {why}; it was left as it is. Restore it from a backup, or move it away to start with an \
         empty store (this machine then counts as a new one; what others hold is not lost)",
        file.display()
    )]
    Unreadable {
        /// The database.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refused.
    #[error("cannot {doing} {}: {source}; check that the disk has room and this user may write there", path.display())]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The database refused.
    #[error("cannot use {}: {source}; check that its disk has room and is healthy", file.display())]
    Database {
        /// The database.
        file: PathBuf,
        /// What it said.
        source: Arc<redb::Error>,
    },
    /// The store has been closed.
    #[error("the store is closed: the daemon is stopping")]
    Closed,
}

impl StoreError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.into(), source: Arc::new(source) }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Io { source, .. } => source.kind(),
            StoreError::Database { source, .. } => match source.as_ref() {
                redb::Error::Io(source) => source.kind(),
                _ => io::ErrorKind::Other,
            },
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// What one node keeps on disk. See the head of this module.
pub struct Store {
    dir: PathBuf,
    database: Arc<Database>,
    storage: Storage,
    events: Mutex<Option<mpsc::Receiver<StoreEvent>>>,
    /// One lock per blob coming, going or being delivered.
    names: Named<BlobId>,
    /// Complete blobs in use.
    opened: blobs::OpenBlobs,
    /// Blobs being fetched.
    downloads: partial::Downloads,
    /// Blobs that were found to be gone or damaged, of which nobody was told.
    gone: Mutex<BTreeSet<BlobId>>,
    /// Numbers the files in `tmp`.
    temporaries: AtomicU64,
    /// Set by tests that end without a clean stop.
    crashed: AtomicBool,
    /// Held until the end.
    _lock: File,
}

impl Store {
    /// Opens the store in `dir`, making it (for this user alone) if there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`Newer`](StoreError::Newer), [`Unreadable`](StoreError::Unreadable) or
    /// [`Io`](StoreError::Io); nothing has been changed then.
    pub fn open(dir: &Path) -> Result<Arc<Self>, StoreError> {
        let dir = std::path::absolute(dir).map_err(StoreError::io("find", dir))?;
        files::make_private_dir(&dir).map_err(StoreError::io("make", &dir))?;
        let held = hold_dir(&dir)?;
        let (database, clean) = Database::open(&dir.join("store.redb"))?;
        let database = Arc::new(database);
        make_folders(&dir)?;
        let known: BTreeMap<BlobId, u64> = database.blobs()?.into_iter().collect();
        let gone = if clean { Vec::new() } else { tidy(&dir, &known) };
        let (storage, events) =
            Storage::start(database.clone()).map_err(StoreError::io("start the storage thread for", &dir))?;
        if !gone.is_empty() {
            tracing::warn!(blobs = gone.len(), "blobs were lost since the last start");
            storage.write(Change::Forget(gone))?;
        }
        Ok(Arc::new(Self {
            downloads: partial::Downloads::new(&dir.join("partial")),
            dir,
            database,
            storage,
            events: Mutex::new(Some(events)),
            names: Named::new(),
            opened: blobs::OpenBlobs::default(),
            gone: Mutex::default(),
            temporaries: AtomicU64::new(0),
            crashed: AtomicBool::new(false),
            _lock: held,
        }))
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes what is queued and ends the storage thread; what comes after is refused as [`StoreError::Closed`].
    /// Dropping the store does the same without telling about errors.
    ///
    /// # Errors
    /// What was queued could not be written, or a download could not be synced.
    pub fn close(&self) -> Result<(), StoreError> {
        let last = if self.crashed.load(Ordering::Acquire) {
            Change::Forget(Vec::new())
        } else {
            Change::CleanStop(self.downloads.pause())
        };
        self.storage.stop(last)
    }

    /// A setting, if it was ever set.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.database.setting(key)
    }

    /// Sets a setting; durable on return.
    ///
    /// # Errors
    /// The database cannot be written, or is closed.
    pub fn set_setting(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.storage.write(Change::Setting { key: key.into(), value: value.into() })
    }

    /// Sets settings and forgets the ledger with what is queued for it, all but which logs are retired: all of that or
    /// nothing, durable on return.
    ///
    /// # Errors
    /// The database cannot be written, or is closed.
    pub fn begin_anew(&self, settings: Vec<(String, Vec<u8>)>) -> Result<(), StoreError> {
        self.storage.write(Change::Anew(settings))
    }

    /// Every op, head, proof of a fork, idle time and retired log on disk, in this order, each in order of (log, actor,
    /// seq).
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn load_ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        self.database.ledger()
    }

    /// A way to send ledger rows to the storage thread.
    pub fn writer(&self) -> StoreWriter {
        self.storage.writer()
    }

    /// What the storage thread says; the first call gets it. Once it is dropped, batches with tokens are refused.
    pub fn events(&self) -> Option<mpsc::Receiver<StoreEvent>> {
        lock(&self.events).take()
    }

    /// Bytes in complete blobs and in downloads begun or left by earlier runs.
    #[cfg(test)]
    fn used_bytes(&self) -> u64 {
        let blobs = self.database.blobs().expect("readable");
        blobs.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.downloads.bytes()
    }

    /// Bytes this user may still write to the disk the store is on.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn free_bytes(&self) -> io::Result<u64> {
        files::free_bytes(&self.dir)
    }

    fn blob_path(&self, id: BlobId) -> PathBuf {
        let name = id.to_string();
        self.dir.join("blobs").join(&name[..2]).join(name)
    }

    fn temporary(&self) -> PathBuf {
        self.dir.join("tmp").join(self.temporaries.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            tracing::error!(error = %e, "the store was not closed cleanly");
        }
    }
}

/// Takes the lock on a data directory and writes our process into it.
fn hold_dir(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let read = Read::by_ref(&mut file).take(20).read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim().parse().ok());
            return Err(StoreError::InUse { dir: dir.into(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(StoreError::io("write", &path))?;
    Ok(file)
}

/// Makes the folders for blobs and empties `tmp`.
fn make_folders(dir: &Path) -> Result<(), StoreError> {
    let make = |path: PathBuf| files::make_private_dir(&path).map_err(StoreError::io("make", &path));
    let blobs = dir.join("blobs");
    if !blobs.join("ff").is_dir() {
        (0..=0xff).try_for_each(|first: u8| make(blobs.join(format!("{first:02x}"))))?;
    }
    let tmp = dir.join("tmp");
    make(dir.join("partial"))?;
    make(tmp.clone())?;
    let remove = || fs::read_dir(&tmp)?.try_for_each(|entry| fs::remove_file(entry?.path()));
    remove().map_err(StoreError::io("empty", &tmp))?;
    files::sync_dir(&blobs).and_then(|()| files::sync_dir(dir)).map_err(StoreError::io("sync", dir))
}

/// After an unclean stop: removes files that got a blob's name and no record, and returns records without their file.
fn tidy(dir: &Path, known: &BTreeMap<BlobId, u64>) -> Vec<BlobId> {
    let mut present = BTreeMap::new();
    for entry in (0..=0xff).filter_map(|first: u8| fs::read_dir(dir.join(format!("blobs/{first:02x}"))).ok()).flatten()
    {
        let Ok(entry) = entry else { continue };
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<BlobId>().ok()) else { continue };
        if !known.contains_key(&id) {
            if let Err(e) = files::remove_if_there(&entry.path()) {
                tracing::warn!(path = %entry.path().display(), error = %e, "cannot remove an unfinished blob");
            }
        } else if let Ok(meta) = entry.metadata() {
            present.insert(id, meta.len());
        }
    }
    known.iter().filter(|(id, bytes)| present.get(id) != Some(bytes)).map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests;
