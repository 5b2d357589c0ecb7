//! Freeing the store: blobs that no live job names any more, or that this machine let go of since others have them.
//!
//! Mark and sweep. Marked is what the farm says is in use, and the files of every bundle of a live job: a scene that reads
//! the frames of another job has them for files. What is unmarked
//! is looked at again [`GRACE`] later, so that what a renderer has just stored, and its job's log does not name yet, is
//! never taken for garbage; only what no look between found a use for is dropped. A submission under way may count on
//! old files that nobody names yet: nothing is dropped before it is written down, and it waits while something is.
//!
//! It never decides what a job needs, and drops nothing when a bundle cannot be read.

use super::Node;
use super::event::Event;
use super::slots::read_blob;
use super::store::Store;
use crate::farm::blob::BlobMap;
use crate::farm::id::BlobId;
use crate::wire;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

/// Nothing is dropped that was in use so long ago (guess: an image is stored seconds before its job names it).
const GRACE: Duration = Duration::from_secs(600);
/// Between looks when the last one found nothing to drop (guess: results of units rendered twice, and the like).
const REST: Duration = Duration::from_secs(3600);
/// A look that something came in between of is made again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps the store from being swept.
pub type Held = OwnedRwLockReadGuard<()>;

/// What a look through the store found.
pub struct Look {
    /// In use when it began.
    used: BTreeSet<BlobId>,
    /// Bundles of live jobs when it began.
    bundles: BTreeSet<BlobId>,
    /// Blobs here that none of them needs.
    unnamed: io::Result<BTreeSet<BlobId>>,
}

/// When the store is looked through, and what for.
pub struct Sweep {
    lock: Arc<RwLock<()>>,
    look_at: Duration,
    looking: bool,
    /// Unnamed blobs, and since when.
    suspects: BTreeMap<BlobId, Duration>,
    /// Being dropped now.
    going: BTreeSet<BlobId>,
    /// Asked about meanwhile.
    deferred: Vec<(BlobId, Option<BlobMap>)>,
}

impl Sweep {
    /// Looks a while after the start.
    pub fn new(now: Duration) -> Self {
        Self {
            lock: Arc::default(),
            look_at: now + GRACE,
            looking: false,
            suspects: BTreeMap::new(),
            going: BTreeSet::new(),
            deferred: Vec::new(),
        }
    }

    /// Waits until nothing is being dropped, and lets nothing be until the result is.
    pub fn hold(&self) -> impl Future<Output = Held> + use<> {
        self.lock.clone().read_owned()
    }

    /// Something was given up: there is likely to be something to free.
    pub fn hurry(&mut self, now: Duration) {
        self.look_at = self.look_at.min(now);
    }

    /// A blob is asked about; `None` when that has to wait until it is gone.
    pub fn defer(&mut self, blob: BlobId, map: Option<BlobMap>) -> Option<(BlobId, Option<BlobMap>)> {
        if self.going.contains(&blob) {
            self.deferred.push((blob, map));
            return None;
        }
        Some((blob, map))
    }

    /// What was to go is gone; gives what was asked about meanwhile.
    pub fn swept(&mut self, now: Duration) -> Vec<(BlobId, Option<BlobMap>)> {
        self.going.clear();
        self.look_at = now + REST;
        std::mem::take(&mut self.deferred)
    }

    /// What may go of what a look found, given what is in use now.
    fn judge(&mut self, look: Look, used: &BTreeSet<BlobId>, bundles: &BTreeSet<BlobId>, now: Duration) -> Vec<BlobId> {
        let unnamed = match look.unnamed {
            Ok(unnamed) if bundles.is_subset(&look.bundles) => unnamed,
            Ok(_) => {
                // A bundle came meanwhile, and nobody looked which files it needs.
                self.look_at = now + AGAIN;
                return Vec::new();
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be looked through for what is needed no more");
                self.look_at = now + REST;
                return Vec::new();
            }
        };
        let since = |blob: &BlobId| self.suspects.get(blob).copied().unwrap_or(now);
        let suspects: BTreeMap<BlobId, Duration> = unnamed.difference(used).map(|blob| (*blob, since(blob))).collect();
        self.suspects = suspects;
        let next = self.suspects.values().min().map(|since| (*since + GRACE).max(now + AGAIN));
        self.look_at = next.unwrap_or(now + REST);
        self.suspects.iter().filter(|(_, since)| now >= **since + GRACE).map(|(blob, _)| *blob).collect()
    }
}

impl Node {
    /// Begins a look through the store when one is due.
    pub(super) fn look_for_unnamed(&mut self) {
        if self.sweep.looking || self.clock.now() < self.sweep.look_at {
            return;
        }
        self.sweep.looking = true;
        let (used, bundles) = (self.farm.blobs_in_use(), self.farm.bundles_in_use());
        let (store, tell) = (self.store.clone(), self.tell.clone());
        tokio::spawn(async move {
            let look = tokio::task::spawn_blocking(move || {
                let unnamed = unnamed(&store, &used, &bundles);
                Look { used, bundles, unnamed }
            });
            if let Ok(look) = look.await {
                let _ = tell.send(Event::Unnamed(look)).await;
            }
        });
    }

    /// Drops what two looks found unnamed, unless a submission is under way.
    pub(super) fn looked(&mut self, look: Look) {
        self.sweep.looking = false;
        let now = self.clock.now();
        let (mut used, bundles) = (self.farm.blobs_in_use(), self.farm.bundles_in_use());
        used.extend(&look.used);
        let going = self.sweep.judge(look, &used, &bundles, now);
        if going.is_empty() {
            return;
        }
        let Ok(guard) = self.sweep.lock.clone().try_write_owned() else {
            self.sweep.look_at = now + AGAIN;
            return;
        };
        self.sweep.going = going.iter().copied().collect();
        self.sweep.suspects.retain(|blob, _| !self.sweep.going.contains(blob));
        let (store, tell) = (self.store.clone(), self.tell.clone());
        let scenes = self.options.data_dir.join("scratch").join("scenes");
        tokio::spawn(async move {
            let freed = tokio::task::spawn_blocking(move || {
                remove_scenes(&scenes, &going);
                match store.drop_blobs(&going) {
                    Ok(()) => tracing::info!(blobs = going.len(), "what no job needs any more was removed"),
                    Err(error) => tracing::warn!(%error, "what no job needs any more was not removed"),
                }
                drop(guard);
            });
            let _ = freed.await;
            let _ = tell.send(Event::Swept).await;
        });
    }
}

/// Blobs of the store, whole or begun, that are neither in use nor files of these bundles.
fn unnamed(store: &Store, used: &BTreeSet<BlobId>, bundles: &BTreeSet<BlobId>) -> io::Result<BTreeSet<BlobId>> {
    let mut all: BTreeSet<BlobId> = store.blobs()?.into_iter().map(|(blob, _)| blob).collect();
    all.extend(store.begun());
    all.retain(|blob| !used.contains(blob));
    // One that is not whole lists nothing yet.
    for bundle in bundles.iter().filter(|bundle| store.has(**bundle)) {
        let bytes = read_blob(store, *bundle, wire::MANIFEST_MAX_BYTES as u64)?;
        let manifest =
            wire::decode_manifest(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        for file in manifest.files {
            all.remove(&file.map.id());
        }
    }
    Ok(all)
}

/// Scenes that are laid out from bundles that go.
fn remove_scenes(scenes: &Path, bundles: &[BlobId]) {
    for entry in std::fs::read_dir(scenes).into_iter().flatten().flatten() {
        let bundle = entry.file_name().to_str().and_then(|name| name.parse::<BlobId>().ok());
        if bundle.is_some_and(|bundle| bundles.contains(&bundle)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::blob::{BundleFile, Manifest};

    fn put(store: &Store, text: &str) -> (BlobId, BlobMap) {
        store.put_bytes(text.as_bytes()).unwrap()
    }

    fn bundle(store: &Store, file: BlobMap) -> BlobId {
        let manifest = Manifest {
            main: "f/1/a.blend".into(),
            files: vec![BundleFile { path: "f/1/a.blend".into(), executable: false, map: file }],
        };
        store.put_bytes(&wire::encode_manifest(&manifest).unwrap()).unwrap().0
    }

    #[test]
    fn what_no_job_names_is_found_and_the_files_of_bundles_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let ((scene, map), (result, _), (garbage, _)) =
            (put(&store, "scene"), put(&store, "result"), put(&store, "old"));
        let live = bundle(&store, map);
        let half = put(&store, "half").1;
        store.drop_blob(half.id()).unwrap();
        store.begin(&half).unwrap();
        let found = |used: &[BlobId], bundles: &[BlobId]| {
            unnamed(&store, &used.iter().copied().collect(), &bundles.iter().copied().collect()).unwrap()
        };
        assert_eq!(found(&[live, result], &[live]), BTreeSet::from([garbage, half.id()]));
        assert_eq!(found(&[result, half.id()], &[]), BTreeSet::from([garbage, live, scene]));
        let gone: Vec<BlobId> = found(&[live, result], &[live]).into_iter().collect();
        store.drop_blobs(&gone).unwrap();
        assert!(found(&[live, result], &[live]).is_empty() && store.has(scene) && !store.has(garbage));
    }

    #[test]
    fn only_what_stays_unnamed_for_a_while_goes() {
        let blob = |n| BlobId([n; 32]);
        let set = |blobs: &[u8]| blobs.iter().map(|n| blob(*n)).collect::<BTreeSet<_>>();
        let look = |bundles, unnamed| Look { used: set(&[]), bundles: set(bundles), unnamed: Ok(set(unnamed)) };
        let mut sweep = Sweep::new(Duration::ZERO);
        let at = |times: u32| GRACE * times;
        assert_eq!(sweep.judge(look(&[1], &[5, 6]), &set(&[]), &set(&[1]), at(1)), vec![]);
        assert_eq!(sweep.look_at, at(2));
        // One of them is named meanwhile; another is new.
        assert_eq!(sweep.judge(look(&[1], &[5, 6, 7]), &set(&[6]), &set(&[1]), at(2)), vec![blob(5)]);
        // A bundle came while the store was looked through: nobody knows which files it needs.
        assert_eq!(sweep.judge(look(&[1], &[5, 7]), &set(&[]), &set(&[1, 2]), at(4)), vec![]);
        assert_eq!(sweep.judge(look(&[1, 2], &[7]), &set(&[]), &set(&[1]), at(5)), vec![blob(7)]);
        let failed = Look { unnamed: Err(io::Error::other("torn")), ..look(&[1], &[]) };
        assert_eq!(sweep.judge(failed, &set(&[]), &set(&[1]), at(9)), vec![]);
    }

    #[test]
    fn a_blob_that_is_asked_about_while_it_goes_is_looked_for_when_it_is_gone() {
        let mut sweep = Sweep::new(Duration::ZERO);
        let blob = BlobId([1; 32]);
        assert!(sweep.defer(blob, None).is_some());
        sweep.going.insert(blob);
        assert!(sweep.defer(blob, None).is_none());
        assert_eq!(sweep.swept(Duration::ZERO), vec![(blob, None)]);
        assert!(sweep.defer(blob, None).is_some());
    }
}
