//! Forgetting: jobs that are over leave the ledger and the store, and never come back.
//!
//! A job is retired by a `Retire` in its log that the fold finds legal: after `Collected` or `Cancel` at anyone's word
//! (`swarm job delete`), or by a node that has seen it lie idle (over, or its submitter away) for [`KEEP`]. That time is
//! counted by the monotonic clock while this daemon runs and kept over its starts, so that no wall clock decides and a
//! machine that is off every night still gets there; one hour is lost by a crash at most.
//!
//! Only the id stays. It is told to whoever names the job, and is not in the digests, so that a node that comes back
//! years later with the whole job in its ledger gives it up like everybody else. A member is believed when it says so:
//! it could as well have cancelled the job. Ids of jobs that were never known here are not remembered, so that nobody
//! can fill this node's memory with them.

use super::config::{KEEP, KEEP_REVIEW};
use super::event::{Effect, Now};
use super::id::{BlobId, JobId, NodeId};
use super::ledger::Row;
use super::message::{LogId, Message};
use super::op::{Op, RetireReason};
use super::state::JobState;
use super::transfer::Urgency;
use super::{Farm, wire};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long jobs have lain idle.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    idle: BTreeMap<JobId, Duration>,
    review_at: Duration,
    reviewed: Duration,
}

impl Keeping {
    pub fn new(idle_seconds: BTreeMap<LogId, u64>, now: Duration) -> Self {
        let idle = idle_seconds.into_iter().map(|(log, seconds)| (log, Duration::from_secs(seconds))).collect();
        Self { idle, review_at: now + KEEP_REVIEW, reviewed: now }
    }
}

impl Farm {
    /// Counts how long jobs lie idle, and says which of them are to be forgotten.
    pub(super) fn review_keeping(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if now.mono < self.keeping.review_at {
            return;
        }
        // A late review may have slept: what nobody saw does not count.
        let passed = now.mono.saturating_sub(self.keeping.reviewed).min(KEEP_REVIEW * 2);
        (self.keeping.review_at, self.keeping.reviewed) = (now.mono + KEEP_REVIEW, now.mono);
        let (mut rows, mut due) = (Vec::new(), Vec::new());
        let waited_for: BTreeSet<JobId> = self.awaited().collect();
        for (id, job) in &self.jobs {
            let is_away = job.owner().is_none_or(|owner| !self.roster.is_alive(owner, now.mono));
            if !job.is_over() && !is_away {
                if self.keeping.idle.remove(id).is_some() {
                    rows.push(Row::Idle { log: *id, seconds: 0 });
                }
                continue;
            }
            let idle = self.keeping.idle.entry(*id).or_default();
            *idle += passed;
            rows.push(Row::Idle { log: *id, seconds: idle.as_secs() });
            if *idle >= KEEP && !waited_for.contains(id) {
                due.push((*id, if job.may_retire() { RetireReason::Over } else { RetireReason::Abandoned }));
            }
        }
        if !rows.is_empty() {
            effects.push(Effect::Persist { token: None, rows });
        }
        for (job, why) in due {
            self.say(job, &Op::Retire { why });
        }
    }

    /// Jobs that others wait for, which would wait for ever if these were forgotten.
    fn awaited(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.values().filter(|job| !job.is_over()).filter_map(|job| job.rules().after)
    }

    /// Whether a job is the predecessor of one that goes on.
    pub fn is_waited_for(&self, job: JobId) -> bool {
        self.awaited().any(|first| first == job)
    }

    /// Forgets what the fold found to be retired.
    pub(super) fn retire_due(&mut self, effects: &mut Vec<Effect>) {
        for job in std::mem::take(&mut self.due) {
            self.retire(job, effects);
        }
    }

    /// A member says that these jobs are over for good.
    pub(super) fn told_retired(&mut self, from: NodeId, logs: &[LogId], effects: &mut Vec<Effect>) -> bool {
        let known: Vec<LogId> = logs.iter().copied().filter(|log| self.ledger.knows(*log)).collect();
        for job in &known {
            if self.jobs.get(job).is_some_and(|state| !state.may_retire()) {
                tracing::warn!(peer = %from.short(), job = %job.short(), "a job that is not over here is forgotten at the word of a member");
            }
            self.retire(*job, effects);
        }
        !known.is_empty()
    }

    /// Tells who named retired jobs that they are.
    pub(super) fn tell_retired(&self, to: NodeId, logs: impl IntoIterator<Item = LogId>, effects: &mut Vec<Effect>) {
        let logs: BTreeSet<LogId> = logs.into_iter().filter(|log| self.ledger.is_retired(*log)).collect();
        let logs: Vec<LogId> = logs.into_iter().collect();
        for part in logs.chunks(wire::MAX_ENTRIES_PER_MESSAGE) {
            effects.push(Effect::Send { to, message: Message::Retired(part.to_vec()).into() });
        }
    }

    fn retire(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        let Some(row) = self.ledger.retire(job) else { return };
        // Without haste: until it is stored, everyone who is asked will say it again.
        effects.push(Effect::Persist { token: None, rows: vec![row] });
        self.keeping.idle.remove(&job);
        let Some(state) = self.jobs.remove(&job) else { return };
        tracing::info!(job = %job.short(), "forgotten for good");
        let hands: Vec<_> = self.hands.keys().filter(|(of, _)| *of == job).copied().collect();
        for key in hands {
            let is_running = self.hands.remove(&key).is_some_and(|hand| hand.started.is_some());
            if is_running && !self.ended.contains(&key) {
                effects.push(Effect::Stop { job, unit: key.1 });
            }
        }
        self.queue.retain(|(of, _)| *of != job);
        self.ended.retain(|(of, _)| *of != job);
        self.collectors.remove(&job);
        self.fresh.remove(&job);
        self.promises.forget(job);
        self.announced.retain(|(of, _)| *of != job);
        self.wanted.retain(|blob, uses| {
            uses.retain(|(of, _)| *of != job);
            if uses.is_empty() {
                self.transfer.done(*blob);
            }
            !uses.is_empty()
        });
        let others = self.jobs.values().flat_map(|other| other.blobs());
        let others: BTreeSet<BlobId> = others.chain(self.promises.blobs()).collect();
        for blob in state.blobs().difference(&others) {
            self.local.remove(blob);
            self.gone.remove(blob);
            self.ready.remove(blob);
            self.transfer.done(*blob);
            self.forget_bundle(*blob);
        }
        effects.push(Effect::Retired { job });
    }

    /// Fetches a bundle no more: nor its files, unless another bundle or a result wants them.
    pub(super) fn forget_bundle(&mut self, blob: BlobId) {
        let Some(bundle) = self.bundles.remove(&blob) else { return };
        self.transfer.unwant(blob, Urgency::Bundle);
        let shared: BTreeSet<BlobId> =
            self.bundles.values().filter_map(|other| other.missing.as_ref()).flatten().copied().collect();
        let missing = bundle.missing.unwrap_or_default();
        missing.difference(&shared).for_each(|file| self.transfer.unwant(*file, Urgency::Bundle));
    }

    /// Those of some blobs, which this machine has let go of in a job, that nothing here needs any more: what any job says
    /// is here or is about to, what another job's collector may yet deliver, what is fetched, and what bundles consist of as
    /// far as that is known here. The files of whole bundles the store's sweep knows.
    pub(super) fn spare(&self, blobs: &BTreeSet<BlobId>) -> Vec<BlobId> {
        let bundles = self.bundles.iter().flat_map(|(id, bundle)| bundle.missing.iter().flatten().chain([id]));
        let own = bundles.chain(&self.ready).chain(self.wanted.keys()).chain(self.fresh.values().flatten()).copied();
        let said = self.ledger.pending().flat_map(|op| super::loss::blobs_of(&op));
        let kept: BTreeSet<BlobId> = own.chain(said).chain(self.promises.blobs()).collect();
        let needs = |job: &JobState, blob: BlobId| {
            job.holding(blob).any(|node| node == self.me.node) || (self.collects(job.id) && job.speaks_of(blob))
        };
        let is_spare = |blob: &BlobId| !kept.contains(blob) && !self.jobs.values().any(|job| needs(job, *blob));
        blobs.iter().copied().filter(is_spare).collect()
    }

    /// Whether a job is being brought together here.
    fn collects(&self, job: JobId) -> bool {
        self.collectors.get(&job).is_some_and(|collector| !collector.ended)
    }

    /// The bundles of all live jobs.
    pub fn bundles_in_use(&self) -> BTreeSet<BlobId> {
        self.jobs.values().flat_map(|job| job.bundles()).collect()
    }

    /// Every blob a live job names, not counting the files of bundles: what a store must keep. Not what this machine let go
    /// of in that job, and has no other use for.
    pub fn blobs_in_use(&self) -> BTreeSet<BlobId> {
        let named = self.jobs.values().flat_map(|job| {
            let is_kept = |blob: &BlobId| self.collects(job.id) || !job.has_let_go(self.me.node, *blob);
            job.blobs().into_iter().filter(is_kept)
        });
        let under_way = self.bundles.keys().chain(&self.ready).chain(&self.local).chain(self.wanted.keys());
        named.chain(self.bundles_in_use()).chain(under_way.copied()).chain(self.promises.blobs()).collect()
    }
}
