//! The decision maker: pure, synchronous, deterministic.
//!
//! [`Farm::handle`] takes one [`Input`] and returns [`Effect`]s; the same inputs, times and random numbers give the same
//! effects. It opens nothing, reads no clock and owns no thread; bulk bytes are names to it. Reading order: `event` (the
//! contract), `op` and `state` (what is said, what it adds up to), `roster`, `verdict` (how a unit stands), `rendezvous`
//! and `schedule`, `reuse`, `transfer`, `collect` (the choices), then this file, which routes each input to its part and
//! settles what follows from it.
//!
//! Invariants kept here:
//! - an own op is folded and sent only after it is [`Input::Persisted`];
//! - a unit in hand stays in hand until the op that ends it is durable, so that it is never claimed twice by one node;
//! - a node that was suspended claims nothing before a member has told it ops or that it has them all, or a while has
//!   passed ([`LATE_LOOP`]).

pub mod ability;
pub mod blame;
pub mod blob;
pub mod collect;
pub mod config;
pub mod device;
mod estimate;
pub mod event;
pub mod fit;
pub mod frames;
mod gossip;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod hostile;
pub mod id;
mod input;
pub mod job;
pub mod kept;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod laws;
pub mod ledger;
mod loss;
mod mesh;
pub mod message;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod model;
pub mod op;
mod order;
pub mod overrides;
pub mod planted;
pub mod rendezvous;
mod retire;
pub mod reuse;
pub mod roster;
pub mod rules;
pub mod schedule;
pub mod scripts;
pub mod settings;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod soundtrack;
mod starts;
pub mod state;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
pub mod transfer;
pub mod unit;
pub mod verdict;
pub mod views;
pub mod why;
mod work;

use crate::seal::Sealer;
use crate::wire;
use blame::Blame;
use collect::Collector;
use config::{DIGEST_EVERY, HEARTBEAT, LATE_LOOP, TICK};
use event::{Effect, Input, Now, Token};
use id::{ActorId, BlobId, BootId, JobId, NodeId, Unit};
use ledger::{AppendError, Ledger, Row};
use rand::{Rng, RngExt};
use roster::Roster;
use schedule::Hand;
use state::JobState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error as _;
use std::time::Duration;
use transfer::Transfer;

/// A bundle on its way to being whole on this machine.
#[derive(Debug, Default)]
struct Bundle {
    /// Its files not yet here; `None` before the manifest is read.
    missing: Option<BTreeSet<BlobId>>,
}

/// One node's mind.
pub struct Farm {
    me: ActorId,
    ledger: Ledger,
    jobs: BTreeMap<JobId, JobState>,
    roster: Roster,
    /// Units claimed or rendering here, until the op that ends them is durable.
    hands: BTreeMap<(JobId, Unit), Hand>,
    /// Those of them that wait for a slot, in order.
    queue: VecDeque<(JobId, Unit)>,
    /// Those of them that need no slot any more, and wait for the disk.
    ended: BTreeSet<(JobId, Unit)>,
    transfer: Transfer,
    bundles: BTreeMap<BlobId, Bundle>,
    /// What is announced or will be, instead of being rendered.
    promises: reuse::Promises,
    /// Bundles whole on this machine.
    ready: BTreeSet<BlobId>,
    /// Result blobs whole on this machine.
    local: BTreeSet<BlobId>,
    /// Blobs that the store had and lost, until it has them again.
    gone: BTreeSet<BlobId>,
    /// Result blobs wanted here, and what for.
    wanted: BTreeMap<BlobId, BTreeSet<(JobId, Unit)>>,
    /// Blobs that became whole and are not yet in a `Holds`.
    fresh: BTreeMap<JobId, BTreeSet<BlobId>>,
    /// Jobs whose bundles this start has said to hold.
    announced: BTreeSet<(JobId, BlobId)>,
    collectors: BTreeMap<JobId, Collector>,
    /// How many this run has had: the latest one's number.
    collections: u64,
    /// Who failed what, and whether this machine is to be trusted.
    blame: Blame,
    /// Since when this run knows each job: what deadlines are measured by.
    known_since: BTreeMap<JobId, Duration>,
    /// Jobs this run has ended for their deadline.
    expired: BTreeSet<JobId>,
    /// Something open is left to others until then.
    patient_until: Option<Duration>,
    /// This start ends.
    is_leaving: bool,
    /// Submissions waiting for the disk, and revisions by id (0: none).
    submitted: Vec<(u64, JobId, u32)>,
    /// How often something of a ledger was refused, by who told it.
    refusals: BTreeMap<NodeId, u64>,
    /// How long jobs have lain idle.
    keeping: retire::Keeping,
    /// Jobs that the fold found to be retired.
    due: BTreeSet<JobId>,
    last_turn: Duration,
    heartbeat_at: Duration,
    digest_at: Duration,
    review_at: Duration,
    /// Nothing is looked for before this, and whether something came up since.
    look_at: Duration,
    looks_again: bool,
    replicate_at: Duration,
    /// How often results that need a second holder were looked for.
    replications: u64,
    /// Of the next heartbeat, or the last: from 1 on.
    counter: u64,
    /// Suspended lately: no claims before a digest exchange or this time.
    fenced_until: Option<Duration>,
    /// What was told in the last heartbeat, to tell changes early.
    told: Vec<message::InHand>,
    /// Whether anything was begun since then.
    has_begun: bool,
    /// Whom it talks to, in a large swarm.
    mesh: mesh::Mesh,
    /// Own capability changed and was not yet told.
    capability_is_new: bool,
}

impl Farm {
    /// A farm with what the disk remembers; what no signed head vouches for is left out and fetched again.
    pub fn new(sealer: Sealer, boot: BootId, swarm_id: [u8; 32], rows: Vec<Row>, now: Now) -> Self {
        let mut ledger = Ledger::new(sealer, boot, swarm_id);
        let me = ledger.me();
        let mut farm_jobs: BTreeMap<JobId, JobState> = BTreeMap::new();
        let loaded = ledger.load(rows);
        for dropped in &loaded.dropped {
            tracing::warn!("{dropped}");
        }
        let mut blame = Blame::default();
        let mut roster = Roster::new(me);
        for (log, actor, seq, op) in loaded.ops {
            if log == message::SWARM_LOG {
                roster.learn(actor, seq, &op);
            } else {
                if let op::Op::Failed { unit, .. } = &op {
                    blame.failed(log, *unit, actor.node, actor.node == me.node, now.mono);
                }
                farm_jobs.entry(log).or_insert_with(|| JobState::new(log)).apply(actor, seq, op);
            }
        }
        let due = farm_jobs.values().filter(|job| job.is_retired()).map(|job| job.id).collect();
        let mut farm = Self {
            me,
            ledger,
            jobs: farm_jobs,
            roster,
            hands: BTreeMap::new(),
            queue: VecDeque::new(),
            ended: BTreeSet::new(),
            transfer: Transfer::default(),
            bundles: BTreeMap::new(),
            promises: reuse::Promises::default(),
            ready: BTreeSet::new(),
            local: BTreeSet::new(),
            gone: BTreeSet::new(),
            wanted: BTreeMap::new(),
            fresh: BTreeMap::new(),
            announced: BTreeSet::new(),
            collectors: BTreeMap::new(),
            collections: 0,
            submitted: Vec::new(),
            refusals: BTreeMap::new(),
            keeping: retire::Keeping::new(loaded.idle, now.mono),
            due,
            blame,
            known_since: BTreeMap::new(),
            expired: BTreeSet::new(),
            patient_until: None,
            is_leaving: false,
            last_turn: now.mono,
            heartbeat_at: now.mono,
            digest_at: now.mono,
            review_at: now.mono,
            look_at: now.mono,
            looks_again: false,
            replicate_at: now.mono,
            replications: 0,
            counter: 1,
            fenced_until: None,
            told: Vec::new(),
            has_begun: false,
            mesh: mesh::Mesh::default(),
            capability_is_new: false,
        };
        farm.ledger.forked().for_each(|(_, actor)| farm.roster.distrust(actor));
        let known: Vec<JobId> = farm.jobs.keys().copied().collect();
        for job in known {
            farm.collect_own(job);
            farm.known_since.insert(job, now.mono);
        }
        farm
    }

    /// Takes one input and says what is to be done about it.
    pub fn handle(&mut self, now: Now, input: Input, rng: &mut dyn Rng) -> Vec<Effect> {
        let mut effects = Vec::new();
        if now.mono.saturating_sub(self.last_turn) > LATE_LOOP {
            self.roster.restart_suspicion(now.mono);
            if self.roster.neighbours().next().is_some() {
                self.fenced_until = Some(now.mono + LATE_LOOP);
            }
        }
        self.last_turn = now.mono;
        let settles = self.take(now, input, rng, &mut effects);
        self.retire_due(&mut effects);
        self.review_keeping(now, &mut effects);
        if settles || now.mono >= self.review_at || (self.looks_again && now.mono >= self.look_at) {
            self.review_at = now.mono + TICK;
            self.settle(now, &mut effects);
        }
        self.fetch(now, &mut effects);
        self.gossip(now, rng, &mut effects);
        if let Some(batch) = self.ledger.take_rows() {
            effects.push(Effect::Persist { token: Some(Token(batch.mark)), rows: batch.rows });
        }
        effects
    }

    /// When to be called again at the latest, if nothing happens before.
    pub fn next_wake(&self) -> Duration {
        let busy = !self.hands.is_empty()
            || self.collectors.values().any(|collector| !collector.ended)
            || self.jobs.values().any(|job| !job.is_over() && job.spec.is_some());
        let gossip = self.heartbeat_at.min(self.digest_at).min(self.hand_on_at().unwrap_or(Duration::MAX));
        let gossip = if self.looks_again { gossip.min(self.look_at) } else { gossip };
        if busy { gossip.min(self.review_at) } else { gossip }
    }

    /// All jobs, by id.
    pub fn jobs(&self) -> &BTreeMap<JobId, JobState> {
        &self.jobs
    }

    /// Who is here.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// This node, this start.
    pub fn me(&self) -> ActorId {
        self.me
    }

    /// What this machine brings together, by job.
    pub fn collectors(&self) -> &BTreeMap<JobId, Collector> {
        &self.collectors
    }

    /// What this machine claimed or renders.
    pub fn hands(&self) -> &BTreeMap<(JobId, Unit), Hand> {
        &self.hands
    }

    /// The ledger, for comparing machines.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How often this start refused something of a ledger, by the member that told it: not what came in another order
    /// or twice, only what nobody may say.
    pub fn refusals(&self) -> &BTreeMap<NodeId, u64> {
        &self.refusals
    }

    /// Whether a bundle is whole here.
    pub fn has_bundle(&self, bundle: BlobId) -> bool {
        self.ready.contains(&bundle)
    }

    /// Bytes fetched since the start.
    pub fn received_bytes(&self) -> u64 {
        self.transfer.received_bytes
    }

    /// Whether nothing is left to say after an [`Input::Leave`]: what was in hand is given back, durably, and told.
    pub fn has_left(&self) -> bool {
        self.is_leaving && self.hands.is_empty() && self.ledger.is_durable()
    }

    /// Members remembered from an earlier run: their Blenders count when a series is chosen.
    pub fn remember(&mut self, node: NodeId, capability: message::Capability) {
        self.roster.remember(node, capability);
    }

    /// Whether no other member is alive.
    pub fn is_alone(&self, now: Duration) -> bool {
        self.roster.alive(now).count() <= 1
    }

    /// Whether a unit counts as done here.
    pub fn is_done(&self, job: &JobState, unit: Unit, now: Duration) -> bool {
        verdict::is_done(job, unit, self.me.node, self.is_alone(now))
    }

    /// Writes an own op down and gives its sequence number. One that others would refuse is a fault of this program, told
    /// and dropped.
    fn say(&mut self, log: JobId, op: &op::Op) -> Option<u64> {
        if self.ledger.is_retired(log) {
            return None;
        }
        self.ledger.append(log, op).inspect_err(|error| unsaid(log, error)).ok()
    }

    /// Writes own ops down of which each counts for the next, all or none; whether they are.
    fn say_all(&mut self, log: JobId, ops: &[op::Op]) -> bool {
        !self.ledger.is_retired(log)
            && self.ledger.append_all(log, &Vec::from_iter(ops)).inspect_err(|error| unsaid(log, error)).is_ok()
    }

    fn scheduler(&self, now: Duration) -> schedule::View<'_> {
        schedule::View {
            me: self.me,
            now,
            roster: &self.roster,
            jobs: &self.jobs,
            hands: &self.hands,
            ready: &self.ready,
            promises: &self.promises,
            blame: &self.blame,
            is_patient: self.patient_until.is_none_or(|until| now < until),
        }
    }
}

fn unsaid(log: JobId, error: &AppendError) {
    tracing::error!(job = %log.short(), cause = error.source().map(ToString::to_string), "{error}");
}

/// When the next heartbeat or digest is due: with up to a quarter more, so that machines do not fall into step.
fn jittered(now: Duration, every: Duration, rng: &mut dyn Rng) -> Duration {
    let quarter = every.as_millis() as u64 / 4;
    now + every + Duration::from_millis(rng.random_range(0..=quarter))
}

const _: () =
    assert!(DIGEST_EVERY.as_millis() < HEARTBEAT.as_millis() && HEARTBEAT.as_millis() < LATE_LOOP.as_millis());
