//! What was here and is not any more: files of the store that somebody removed, or that rotted on the disk.
//!
//! Three steps, each by whoever knows. The machine that finds it says `Lost`: it holds these blobs no longer. Whether
//! anybody still does is what the ledger adds up to ([`is_lost`](super::verdict::is_lost)). And only the submitter's machine
//! knows which frames it has put under their names, where they need no copy in any store: it alone opens a new epoch of the
//! others, by a `Requeue`, so that no loss elsewhere reopens what it has, or crosses the `Collected` it is about to write.
//! While it is away the others render what is lost in the epoch it has (`schedule`), and it finds a result like any other
//! when it returns.
//!
//! After a restart the submitter's machine does not know what it delivered. What nobody holds it looks for under its name
//! first: a frame in the user's folder is not lost.

use super::Farm;
use super::collect::Collector;
use super::event::Now;
use super::id::{BlobId, JobId, Unit};
use super::op::{MAX_BLOBS_PER_OP, Op, UnitSet};
use super::state::JobState;
use super::transfer::Urgency;
use super::unit::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// Who requeues what is lost, for a job's history.
pub const BY_LOSS: &str = "the loss of their files";

/// What a collector does about a unit whose files nobody has.
pub(super) enum Loss<'a> {
    /// Looks whether this result lies under its name.
    Look(&'a Outcome),
    /// Opens a new epoch.
    Reopen,
    /// Somebody else will, or renders it already.
    Wait,
    /// Nobody renders it anew: the job is over.
    GiveUp,
}

/// What `collector` does about `unit`, whose files nobody has; `decides` if it is the submitter's machine's.
pub(super) fn about<'a>(
    job: &'a JobState,
    unit: Unit,
    collector: &Collector,
    decides: bool,
    is_claimed: bool,
) -> Loss<'a> {
    let mut results = job.unit(unit).current_results().map(|(_, outcome)| outcome);
    match results.find(|outcome| !collector.is_absent(unit, outcome)) {
        Some(outcome) => Loss::Look(outcome),
        None if job.is_over() => Loss::GiveUp,
        None if decides && !is_claimed => Loss::Reopen,
        None => Loss::Wait,
    }
}

/// The blobs that an op says its writer has, or has not any more.
pub(super) fn blobs_of(op: &Op) -> Vec<BlobId> {
    match op {
        Op::Done { outputs, .. } => outputs.iter().map(|output| output.blob).collect(),
        Op::Holds { blobs } | Op::Lost { blobs } => blobs.clone(),
        _ => Vec::new(),
    }
}

impl Farm {
    /// Everything that this machine has said to have, for looking whether it has.
    pub fn promised(&self) -> BTreeSet<BlobId> {
        self.jobs.values().flat_map(|job| job.held_by(self.me.node)).collect()
    }

    /// The store does not have these any more.
    pub(super) fn blobs_gone(&mut self, blobs: &[BlobId]) {
        let new: BTreeSet<BlobId> = blobs.iter().copied().filter(|blob| self.gone.insert(*blob)).collect();
        for blob in &new {
            let was_result = self.local.remove(blob);
            // Fetched anew, should it be wanted: what is known of its chunks does not hold any more.
            self.transfer.unwant(*blob, Urgency::Result);
            self.wanted.remove(blob);
            if self.ready.remove(blob) {
                self.announced.retain(|(_, bundle)| bundle != blob);
            } else if !was_result && !self.jobs.values().any(|job| job.speaks_of(*blob)) {
                // A file of some bundle: all are looked through again, and what they lack is fetched.
                self.ready.clear();
            }
        }
        self.fresh.values_mut().for_each(|fresh| fresh.retain(|blob| !new.contains(blob)));
        let lost = |job: &JobState| new.iter().copied().filter(|blob| self.has_promised(job, *blob)).collect();
        let losses: Vec<(JobId, Vec<BlobId>)> = self.jobs.iter().map(|(id, job)| (*id, lost(job))).collect();
        losses.into_iter().for_each(|(job, blobs)| self.say_lost(job, &blobs));
        self.collectors.values_mut().for_each(Collector::look_at_waiting);
    }

    /// A look found these in the store. What was let go of or found to be gone since then is there no more. Says whether any
    /// is news.
    pub(super) fn blobs_here(&mut self, blobs: &[BlobId]) -> bool {
        let (promised, bundles, known) = (self.promised(), self.bundles_in_use(), self.local.len());
        let is_here = |blob: &BlobId| promised.contains(blob) && !bundles.contains(blob) && !self.gone.contains(blob);
        self.local.extend(blobs.iter().copied().filter(is_here));
        let is_news = self.local.len() > known;
        if is_news {
            self.promises.look_again();
        }
        is_news
    }

    /// An own op about these blobs is durable. What was gone before that is said to be lost after it; what came back before
    /// its loss was durable is said to be here again.
    pub(super) fn keep_word(&mut self, job: JobId, blobs: &[BlobId]) {
        let Some(state) = self.jobs.get(&job) else { return };
        let (promised, free): (Vec<BlobId>, Vec<BlobId>) =
            blobs.iter().copied().partition(|blob| self.has_promised(state, *blob));
        let lost: Vec<BlobId> = promised.into_iter().filter(|blob| self.gone.contains(blob)).collect();
        let back: Vec<BlobId> = free.into_iter().filter(|blob| self.local.contains(blob)).collect();
        if !back.is_empty() {
            self.fresh.entry(job).or_default().extend(back);
        }
        self.say_lost(job, &lost);
    }

    fn has_promised(&self, job: &JobState, blob: BlobId) -> bool {
        job.holding(blob).any(|node| node == self.me.node)
    }

    fn say_lost(&mut self, job: JobId, blobs: &[BlobId]) {
        for part in blobs.chunks(MAX_BLOBS_PER_OP) {
            self.say(job, &Op::Lost { blobs: part.to_vec() });
        }
    }

    /// Opens a new epoch of units of own jobs, whose results nobody has any more, and fetches those no longer.
    pub(super) fn reopen_lost(&mut self, now: Now, lost: Vec<(JobId, Unit)>) {
        let mut by_epoch: BTreeMap<(JobId, u32), Vec<i32>> = BTreeMap::new();
        for (job, unit) in lost {
            let Some(state) = self.jobs.get(&job) else { continue };
            by_epoch.entry((job, state.unit(unit).epoch)).or_default().push(unit.frame);
            let results = state.unit(unit).current_results();
            for output in results.flat_map(|(_, outcome)| &outcome.outputs) {
                let Some(uses) = self.wanted.get_mut(&output.blob) else { continue };
                uses.remove(&(job, unit));
                if uses.is_empty() {
                    self.wanted.remove(&output.blob);
                    self.transfer.unwant(output.blob, Urgency::Result);
                }
            }
        }
        for ((job, epoch), frames) in by_epoch {
            let Some(units) = UnitSet::whole(frames) else { continue };
            tracing::warn!(
                job = %job.short(), frames = %units.frames,
                "the files of these frames are gone from every machine that had them; they are rendered anew"
            );
            let epoch = epoch.saturating_add(1);
            self.say(job, &Op::Requeue { units, epoch, by: BY_LOSS.into(), at_ms: now.wall_ms });
        }
    }
}
