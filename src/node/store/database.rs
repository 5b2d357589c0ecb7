//! The database file: its tables, its format number, and how a change gets into it.
//!
//! Tables, all of plain bytes so that no codec can change under them (integers inside values are little-endian, inside
//! keys big-endian, so that keys sort):
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format`, `clean` | u64; one byte: whether the last stop was a clean one |
//! | `settings` | name | the caller's |
//! | `ops` | log 16 ‖ actor 40 ‖ seq u64 | op |
//! | `heads` | log 16 ‖ actor 40 | signed head |
//! | `forks` | log 16 ‖ actor 40 | proof of two histories |
//! | `idle` | log 16 | u64: seconds the job has lain idle |
//! | `retired` | log 16 | empty: a job that is gone for good |
//! | `blobs` | blob id | map: (chunk id 32 ‖ length u32) each |
//! | `chunks` | chunk id ‖ blob id | offset u64 in that blob |
//! | `partials` | blob id | bitmap of a download, one byte a chunk; emptied after an unclean stop |
//!
//! A redb database that has met an I/O error refuses everything until it is opened anew, so it sits behind a lock that
//! [`Database::reopen`] takes for writing; all others hold it for reading and never for long.

use super::files::keep_private;
use super::{LedgerRow, StoreError};
use crate::farm::blob::BlobMap;
use crate::farm::id::{BlobId, ChunkId};
use redb::{Durability, ReadableDatabase, TableDefinition, TableHandle, WriteTransaction};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// The format written by this version. Raise it with any change older versions would misread.
pub(super) const FORMAT: u64 = 1;
/// redb's page cache, bytes: the ledger is held in memory by the farm, so little is read twice (guess; redb's own
/// default is 1 GiB).
const CACHE_BYTES: usize = 8 << 20;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const SETTINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("settings");
const OPS: TableDefinition<&[u8; 64], &[u8]> = TableDefinition::new("ops");
const HEADS: TableDefinition<&[u8; 56], &[u8]> = TableDefinition::new("heads");
const FORKS: TableDefinition<&[u8; 56], &[u8]> = TableDefinition::new("forks");
const IDLE: TableDefinition<&[u8; 16], u64> = TableDefinition::new("idle");
const RETIRED: TableDefinition<&[u8; 16], ()> = TableDefinition::new("retired");
const BLOBS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("blobs");
const CHUNKS: TableDefinition<&[u8; 64], u64> = TableDefinition::new("chunks");
const PARTIALS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("partials");

/// Something to be written, all or nothing with its neighbours in the same transaction.
pub(super) enum Change {
    /// Ledger rows of the caller's.
    Ledger(Vec<LedgerRow>),
    /// A setting.
    Setting { key: String, value: Vec<u8> },
    /// Settings, and nothing left of the ledger but which logs are retired.
    Anew(Vec<(String, Vec<u8>)>),
    /// Blobs whose files are complete and durable.
    Blobs(Vec<(BlobId, BlobMap)>),
    /// Blobs no longer there.
    Forget(Vec<BlobId>),
    /// The last words of a clean stop: the bitmaps of open downloads.
    CleanStop(Vec<(BlobId, Vec<bool>)>),
}

/// The open database.
pub(super) struct Database {
    path: PathBuf,
    inner: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens or makes the database, checks its format and marks it in use. Says whether the last stop was clean.
    pub(super) fn open(path: &Path) -> Result<(Self, bool), StoreError> {
        // Looked at without writing where possible: a database that is refused is left as it is to the byte.
        let found = match redb::ReadOnlyDatabase::open(path) {
            Ok(db) => Some(inspect(&db).map_err(|e| unreadable(path, e))?),
            Err(_) => None, // new, in need of repair after a crash, or no database: opening it to write tells
        };
        let refuse = |found: &Found| match found {
            Found::Stranger => {
                Err(StoreError::Unreadable { file: path.into(), why: "it is not a swarm database".into() })
            }
            Found::Format(found, _) if *found > FORMAT => {
                Err(StoreError::Newer { file: path.into(), found: *found, known: FORMAT })
            }
            Found::Format(..) | Found::Nothing => Ok(()),
        };
        found.as_ref().map_or(Ok(()), refuse)?;
        let db = open_file(path)?;
        let found = inspect(&db).map_err(|e| unreadable(path, e))?;
        refuse(&found)?;
        let clean = match found {
            Found::Nothing | Found::Stranger => true,
            Found::Format(_, clean) => clean,
        };
        let this = Self { path: path.into(), inner: RwLock::new(Some(db)) };
        this.write(|tx| {
            let mut meta = tx.open_table(META)?;
            meta.insert("format", &FORMAT.to_le_bytes()[..])?;
            meta.insert("clean", &[0][..])?;
            // So that reading never meets a missing table.
            tx.open_table(SETTINGS)?;
            tx.open_table(OPS)?;
            tx.open_table(HEADS)?;
            tx.open_table(FORKS)?;
            tx.open_table(IDLE)?;
            tx.open_table(RETIRED)?;
            tx.open_table(BLOBS)?;
            tx.open_table(CHUNKS)?;
            let mut partials = tx.open_table(PARTIALS)?;
            if !clean {
                partials.retain(|_, _| false)?;
            }
            Ok(())
        })?;
        Ok((this, clean))
    }

    /// Opens the file anew, which a database that has met an I/O error needs before it does anything again.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        *inner = None; // closes the file and frees its lock
        *inner = Some(open_file(&self.path)?);
        Ok(())
    }

    /// Writes `changes` in order in one durable transaction: on an error nothing of it is there.
    pub(super) fn commit<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Result<(), StoreError> {
        self.write(|tx| {
            for change in changes {
                apply(tx, change)?;
            }
            Ok(())
        })
    }

    /// A setting.
    pub(super) fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|tx| Ok(tx.open_table(SETTINGS)?.get(key)?.map(|value| value.value().to_vec())))
    }

    /// Every op, head, proof of a fork, idle time and retired log, in this order, each sorted by key.
    pub(super) fn ledger(&self) -> Result<Vec<LedgerRow>, StoreError> {
        self.read(|tx| {
            let mut rows = Vec::new();
            for entry in tx.open_table(OPS)?.range::<&[u8; 64]>(..)? {
                let (key, value) = entry?;
                let (log, actor, seq) = split_op_key(key.value());
                rows.push(LedgerRow::Op { log, actor, seq, bytes: value.value().to_vec() });
            }
            for entry in tx.open_table(HEADS)?.range::<&[u8; 56]>(..)? {
                let (key, value) = entry?;
                let (log, actor) = split_head_key(key.value());
                rows.push(LedgerRow::Head { log, actor, bytes: value.value().to_vec() });
            }
            for entry in tx.open_table(FORKS)?.range::<&[u8; 56]>(..)? {
                let (key, value) = entry?;
                let (log, actor) = split_head_key(key.value());
                rows.push(LedgerRow::Fork { log, actor, bytes: value.value().to_vec() });
            }
            for entry in tx.open_table(IDLE)?.range::<&[u8; 16]>(..)? {
                let (key, value) = entry?;
                rows.push(LedgerRow::Idle { log: *key.value(), seconds: value.value() });
            }
            for entry in tx.open_table(RETIRED)?.range::<&[u8; 16]>(..)? {
                rows.push(LedgerRow::Retired { log: *entry?.0.value() });
            }
            Ok(rows)
        })
    }

    /// Whether a blob is recorded.
    pub(super) fn has_blob(&self, id: BlobId) -> Result<bool, StoreError> {
        self.read(|tx| Ok(tx.open_table(BLOBS)?.get(&id.0)?.is_some()))
    }

    /// The map of a recorded blob.
    pub(super) fn map(&self, id: BlobId) -> Result<Option<BlobMap>, StoreError> {
        self.read(|tx| match tx.open_table(BLOBS)?.get(&id.0)? {
            None => Ok(None),
            Some(value) => decode_map(value.value()).map(Some),
        })
    }

    /// Every recorded blob and its length in bytes.
    pub(super) fn blobs(&self) -> Result<Vec<(BlobId, u64)>, StoreError> {
        self.read(|tx| {
            let mut blobs = Vec::new();
            for entry in tx.open_table(BLOBS)?.range::<&[u8; 32]>(..)? {
                let (key, value) = entry?;
                blobs.push((BlobId(*key.value()), decode_map(value.value())?.bytes()));
            }
            Ok(blobs)
        })
    }

    /// For each of `wanted`, a recorded blob that holds it and where.
    pub(super) fn locate(&self, wanted: &[ChunkId]) -> Result<Vec<Option<(BlobId, u64)>>, StoreError> {
        self.read(|tx| {
            let chunks = tx.open_table(CHUNKS)?;
            wanted
                .iter()
                .map(|id| {
                    let (first, last) = (chunk_key(*id, BlobId([0; 32])), chunk_key(*id, BlobId([0xff; 32])));
                    let Some(entry) = chunks.range::<&[u8; 64]>(&first..=&last)?.next() else { return Ok(None) };
                    let (key, offset) = entry?;
                    let mut blob = BlobId([0; 32]);
                    blob.0.copy_from_slice(&key.value()[32..]);
                    Ok(Some((blob, offset.value())))
                })
                .collect()
        })
    }

    /// The bitmap a clean stop left of a download.
    pub(super) fn bitmap(&self, id: BlobId) -> Result<Option<Vec<bool>>, StoreError> {
        self.read(|tx| {
            let value = tx.open_table(PARTIALS)?.get(&id.0)?;
            Ok(value.map(|value| value.value().iter().map(|bit| *bit == 1).collect()))
        })
    }

    fn read<T>(&self, f: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = inner.as_ref() else { return Err(self.failed(redb::Error::DatabaseClosed)) };
        let done = || f(&db.begin_read()?);
        done().map_err(|e| self.failed(e))
    }

    fn write(&self, f: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = inner.as_ref() else { return Err(self.failed(redb::Error::DatabaseClosed)) };
        let done = || {
            let mut tx = db.begin_write()?;
            tx.set_durability(Durability::Immediate)?;
            f(&tx)?;
            tx.commit()?;
            Ok(())
        };
        done().map_err(|e: redb::Error| self.failed(e))
    }

    fn failed(&self, source: redb::Error) -> StoreError {
        StoreError::Database { file: self.path.clone(), source: source.into() }
    }
}

/// Opens or makes the file, which no other user may read: the node's key and the swarm's are in it.
fn open_file(path: &Path) -> Result<redb::Database, StoreError> {
    let mut options = std::fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(StoreError::io("open", path))?;
    let db = redb::Builder::new().set_cache_size(CACHE_BYTES).create_file(file);
    let db = db.map_err(|e| unreadable(path, e.into()))?;
    keep_private(path).map_err(StoreError::io("open", path))?;
    Ok(db)
}

/// What is in a database file.
enum Found {
    /// No table at all: it was made just now, or its making was cut short.
    Nothing,
    /// Tables, and no format number.
    Stranger,
    /// Our format number, and whether the last stop was clean.
    Format(u64, bool),
}

fn inspect(db: &impl ReadableDatabase) -> Result<Found, redb::Error> {
    let read = db.begin_read()?;
    let tables: Vec<String> = read.list_tables()?.map(|table| table.name().to_owned()).collect();
    if tables.is_empty() {
        return Ok(Found::Nothing);
    }
    if !tables.iter().any(|name| name == META.name()) {
        return Ok(Found::Stranger);
    }
    let meta = read.open_table(META)?;
    let format = meta.get("format")?.and_then(|value| value.value().try_into().ok().map(u64::from_le_bytes));
    let clean = meta.get("clean")?.is_some_and(|value| value.value() == [1]);
    Ok(format.map_or(Found::Stranger, |format| Found::Format(format, clean)))
}

/// An error at opening, told as what to do about it.
fn unreadable(path: &Path, error: redb::Error) -> StoreError {
    let file = path.to_path_buf();
    match error {
        redb::Error::Io(source) if !matches!(source.kind(), std::io::ErrorKind::InvalidData) => {
            StoreError::Io { doing: "open", path: file, source: source.into() }
        }
        redb::Error::DatabaseAlreadyOpen => {
            StoreError::InUse { dir: super::files::parent(path).to_path_buf(), pid: None }
        }
        other => StoreError::Unreadable { file, why: other.to_string() },
    }
}

fn apply(tx: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Ledger(rows) => rows.iter().try_for_each(|row| apply_row(tx, row)),
        Change::Setting { key, value } => set(tx, key, value),
        Change::Anew(settings) => {
            tx.open_table(OPS)?.retain(|_, _| false)?;
            tx.open_table(HEADS)?.retain(|_, _| false)?;
            tx.open_table(FORKS)?.retain(|_, _| false)?;
            tx.open_table(IDLE)?.retain(|_, _| false)?;
            settings.iter().try_for_each(|(key, value)| set(tx, key, value))
        }
        Change::Blobs(blobs) => blobs.iter().try_for_each(|(id, map)| record(tx, *id, map)),
        Change::Forget(ids) => ids.iter().try_for_each(|id| forget(tx, *id)),
        Change::CleanStop(bitmaps) => {
            let mut partials = tx.open_table(PARTIALS)?;
            for (id, have) in bitmaps {
                let bytes: Vec<u8> = have.iter().map(|bit| u8::from(*bit)).collect();
                partials.insert(&id.0, bytes.as_slice())?;
            }
            tx.open_table(META)?.insert("clean", &[1][..])?;
            Ok(())
        }
    }
}

fn set(tx: &WriteTransaction, key: &str, value: &[u8]) -> Result<(), redb::Error> {
    tx.open_table(SETTINGS)?.insert(key, value)?;
    Ok(())
}

fn apply_row(tx: &WriteTransaction, row: &LedgerRow) -> Result<(), redb::Error> {
    match row {
        LedgerRow::Op { log, actor, seq, bytes } => {
            tx.open_table(OPS)?.insert(&op_key(log, actor, *seq), bytes.as_slice())?;
        }
        LedgerRow::Head { log, actor, bytes } => {
            tx.open_table(HEADS)?.insert(&head_key(log, actor), bytes.as_slice())?;
        }
        LedgerRow::Fork { log, actor, bytes } => {
            tx.open_table(FORKS)?.insert(&head_key(log, actor), bytes.as_slice())?;
        }
        LedgerRow::Idle { log, seconds } => {
            tx.open_table(IDLE)?.insert(log, seconds)?;
        }
        LedgerRow::Retired { log } => {
            drop_log(tx, log)?;
            tx.open_table(RETIRED)?.insert(log, ())?;
        }
    }
    Ok(())
}

fn drop_log(tx: &WriteTransaction, log: &[u8; 16]) -> Result<(), redb::Error> {
    let (first, last) = (op_key(log, &[0; 40], 0), op_key(log, &[0xff; 40], u64::MAX));
    tx.open_table(OPS)?.retain_in::<&[u8; 64], _>(&first..=&last, |_, _| false)?;
    let (first, last) = (head_key(log, &[0; 40]), head_key(log, &[0xff; 40]));
    tx.open_table(HEADS)?.retain_in::<&[u8; 56], _>(&first..=&last, |_, _| false)?;
    tx.open_table(FORKS)?.retain_in::<&[u8; 56], _>(&first..=&last, |_, _| false)?;
    tx.open_table(IDLE)?.remove(log)?;
    Ok(())
}

fn record(tx: &WriteTransaction, id: BlobId, map: &BlobMap) -> Result<(), redb::Error> {
    tx.open_table(BLOBS)?.insert(&id.0, map.to_bytes().as_slice())?;
    tx.open_table(PARTIALS)?.remove(&id.0)?;
    let mut chunks = tx.open_table(CHUNKS)?;
    let mut offset = 0;
    for chunk in &map.chunks {
        chunks.insert(&chunk_key(chunk.id, id), offset)?;
        offset += u64::from(chunk.bytes);
    }
    Ok(())
}

fn forget(tx: &WriteTransaction, id: BlobId) -> Result<(), redb::Error> {
    tx.open_table(PARTIALS)?.remove(&id.0)?;
    let map = match tx.open_table(BLOBS)?.remove(&id.0)? {
        None => return Ok(()),
        Some(value) => decode_map(value.value())?,
    };
    let mut chunks = tx.open_table(CHUNKS)?;
    for chunk in &map.chunks {
        chunks.remove(&chunk_key(chunk.id, id))?;
    }
    Ok(())
}

fn op_key(log: &[u8; 16], actor: &[u8; 40], seq: u64) -> [u8; 64] {
    let mut key = [0; 64];
    key[..56].copy_from_slice(&head_key(log, actor));
    key[56..].copy_from_slice(&seq.to_be_bytes());
    key
}

fn head_key(log: &[u8; 16], actor: &[u8; 40]) -> [u8; 56] {
    let mut key = [0; 56];
    key[..16].copy_from_slice(log);
    key[16..].copy_from_slice(actor);
    key
}

fn split_op_key(key: &[u8; 64]) -> ([u8; 16], [u8; 40], u64) {
    let (mut head, mut seq) = ([0; 56], [0; 8]);
    head.copy_from_slice(&key[..56]);
    seq.copy_from_slice(&key[56..]);
    let (log, actor) = split_head_key(&head);
    (log, actor, u64::from_be_bytes(seq))
}

fn split_head_key(key: &[u8; 56]) -> ([u8; 16], [u8; 40]) {
    let (mut log, mut actor) = ([0; 16], [0; 40]);
    log.copy_from_slice(&key[..16]);
    actor.copy_from_slice(&key[16..]);
    (log, actor)
}

fn chunk_key(chunk: ChunkId, blob: BlobId) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&chunk.0);
    key[32..].copy_from_slice(&blob.0);
    key
}

fn decode_map(bytes: &[u8]) -> Result<BlobMap, redb::Error> {
    BlobMap::from_bytes(bytes).ok_or_else(|| redb::Error::Corrupted("the map of a blob".into()))
}
