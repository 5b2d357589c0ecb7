//! What the ops of a job add up to.
//!
//! The fold: [`JobState::apply`] takes each op of each actor once, in that actor's order; ops of different actors may
//! come in any order and give the same state, because what an actor says is kept under the actor and compared only when
//! read. Nothing here knows who is alive; `schedule` and `collect` put that together with the roster.

use super::id::{ActorId, BlobId, JobId, NodeId, Unit};
use super::job::JobSpec;
use super::op::{ClaimKind, FailureKind, JobSetting, Op, Output};
use super::rules::Rules;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A claim as its actor last made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Epoch of the unit it was made for.
    pub epoch: u32,
    /// Why.
    pub kind: ClaimKind,
    /// Strength.
    pub score: u32,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Files.
    pub outputs: Vec<Output>,
    /// Render time, milliseconds.
    pub millis: u32,
    /// Device used.
    pub device: String,
    /// Renderer.
    pub build: String,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Why.
    pub kind: FailureKind,
    /// One line.
    pub message: String,
    /// End of the renderer's output.
    pub log: Option<BlobId>,
}

/// What is known of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// Highest epoch seen.
    pub epoch: u32,
    /// Latest claim per actor, of any epoch.
    pub claims: BTreeMap<ActorId, Claim>,
    /// Results by (epoch, actor): two of one epoch are fine.
    pub results: BTreeMap<(u32, ActorId), Outcome>,
    /// Failed attempts by (epoch, actor, sequence number).
    pub failures: BTreeMap<(u32, ActorId, u64), Attempt>,
}

impl UnitState {
    /// Results of the current epoch.
    pub fn current_results(&self) -> impl Iterator<Item = (ActorId, &Outcome)> {
        self.results.range((self.epoch, FIRST_ACTOR)..).map(|((_, actor), outcome)| (*actor, outcome))
    }

    /// Whether the current epoch has a result.
    pub fn has_result(&self) -> bool {
        self.current_results().next().is_some()
    }

    /// Claims of the current epoch by actors that have neither a result nor ended them with a failure.
    pub fn current_claims(&self) -> impl Iterator<Item = (ActorId, Claim)> {
        self.claims.iter().filter(|(_, claim)| claim.epoch == self.epoch).map(|(actor, claim)| (*actor, *claim))
    }

    /// Failed attempts of the current epoch.
    pub fn current_failures(&self) -> impl Iterator<Item = (NodeId, &Attempt)> {
        self.failures.range((self.epoch, FIRST_ACTOR, 0)..).map(|((_, actor, _), attempt)| (actor.node, attempt))
    }

    /// Failed attempts of one node in the current epoch.
    pub fn failures_of(&self, node: NodeId) -> usize {
        self.current_failures().filter(|(by, _)| *by == node).count()
    }
}

/// Of a job whose `Submit` has not arrived.
const DEFAULT_PRIORITY: u8 = 50;

const FIRST_ACTOR: ActorId = ActorId { node: NodeId([0; 32]), boot: super::id::BootId([0; 8]) };

/// The latest of a setting: the higher (Lamport counter, actor).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Latest {
    at: (u64, ActorId),
    setting: JobSetting,
}

/// One line of a job's history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryEntry {
    /// Wall clock of who did it, milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub by: ActorId,
    /// What.
    pub action: String,
}

/// What is known of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobState {
    /// Which.
    pub id: JobId,
    /// As submitted, once its `Submit` arrived.
    pub spec: Option<Arc<JobSpec>>,
    /// Who submitted it.
    pub submitter: Option<ActorId>,
    /// Least op version to claim units of it.
    pub min_version: u16,
    /// Cancelled by (login name, actor).
    pub canceled: Option<(String, ActorId)>,
    /// The submitter has every result: of which revision, and whether with the video.
    pub collected: Option<(u64, bool)>,
    /// Sum of the epochs of all units: grows when something is to be rendered anew.
    pub revision: u64,
    /// Wall clock of the end, for display.
    pub finished_ms: u64,
    /// What was done to it.
    pub history: BTreeSet<HistoryEntry>,
    units: BTreeMap<Unit, UnitState>,
    unfinished: BTreeSet<Unit>,
    /// By [`JobSetting::slot`].
    settings: BTreeMap<u8, Latest>,
    /// As submitted, with the settings made since.
    priority: u8,
    rules: Rules,
    /// Those of them with a failed attempt, of whatever epoch.
    failing: BTreeSet<Unit>,
    lamport: u64,
    /// Per blob and actor: whether the actor's last word was `Holds`.
    holders: BTreeMap<BlobId, BTreeMap<ActorId, bool>>,
    /// Whether anybody ever said to hold something no more.
    drops: bool,
    /// Frames rendered and their milliseconds, per node.
    speed: BTreeMap<NodeId, (u32, u64)>,
    /// Failures per node, all units and epochs.
    failures: BTreeMap<NodeId, usize>,
}

static NO_UNIT: UnitState =
    UnitState { epoch: 0, claims: BTreeMap::new(), results: BTreeMap::new(), failures: BTreeMap::new() };

impl JobState {
    /// A job of which nothing is known yet.
    pub fn new(id: JobId) -> Self {
        Self {
            id,
            spec: None,
            submitter: None,
            min_version: 0,
            canceled: None,
            collected: None,
            revision: 0,
            finished_ms: 0,
            history: BTreeSet::new(),
            units: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            settings: BTreeMap::new(),
            priority: DEFAULT_PRIORITY,
            rules: Rules::default(),
            failing: BTreeSet::new(),
            lamport: 0,
            holders: BTreeMap::new(),
            drops: false,
            speed: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Takes one op of `actor`, its `seq`-th in this log.
    pub fn apply(&mut self, actor: ActorId, seq: u64, op: Op) {
        match op {
            Op::Submit { min_version, spec } => {
                // The ledger lets only the actor the job is named after write this, once.
                self.unfinished.extend(spec.frames.iter().map(Unit::whole));
                self.units.iter().filter(|(_, state)| state.has_result()).for_each(|(unit, _)| {
                    self.unfinished.remove(unit);
                });
                self.note(spec.created_ms, actor, format!("submitted by {}", spec.user));
                (self.min_version, self.submitter, self.spec) = (min_version, Some(actor), Some(Arc::from(spec)));
                self.apply_settings();
            }
            Op::Claim { epoch, units, kind, score } => {
                for unit in units.iter() {
                    self.unit_mut(unit).claims.insert(actor, Claim { epoch, kind, score });
                }
            }
            Op::Release { units } => {
                for unit in units.iter() {
                    self.unit_mut(unit).claims.remove(&actor);
                }
            }
            Op::Done { epoch, unit, outputs, millis, device, build } => {
                let speed = self.speed.entry(actor.node).or_default();
                *speed = (speed.0.saturating_add(1), speed.1.saturating_add(u64::from(millis)));
                for output in &outputs {
                    self.holders.entry(output.blob).or_default().insert(actor, true);
                }
                self.raise(unit, epoch);
                let state = self.unit_mut(unit);
                state.claims.remove(&actor);
                state.results.insert((epoch, actor), Outcome { outputs, millis, device, build });
                if state.has_result() {
                    self.unfinished.remove(&unit);
                }
            }
            Op::Failed { epoch, unit, kind, message, log } => {
                *self.failures.entry(actor.node).or_default() += 1;
                self.failing.insert(unit);
                let state = self.unit_mut(unit);
                state.claims.remove(&actor);
                state.failures.insert((epoch, actor, seq), Attempt { kind, message, log });
            }
            Op::Holds { blobs } => self.hold(actor, &blobs, true),
            Op::Drops { blobs } => {
                self.drops = true;
                self.hold(actor, &blobs, false);
            }
            // Kept for readers of the log: what reopens the unit is the `Requeue` written beside it.
            Op::Lost { .. } => {}
            Op::Requeue { units, epoch } => {
                for unit in units.iter() {
                    self.reopen(unit, epoch);
                }
            }
            Op::Revise { units, epoch, .. } => {
                for unit in units.iter() {
                    self.reopen(unit, epoch);
                }
            }
            Op::Set { lamport, setting, at_ms } => {
                self.lamport = self.lamport.max(lamport);
                let at = (lamport, actor);
                self.note(at_ms, actor, setting.action());
                // An actor's own come in order, so that of two with one number the later counts everywhere.
                let slot = setting.slot();
                if self.settings.get(&slot).is_none_or(|latest| latest.at <= at) {
                    self.settings.insert(slot, Latest { at, setting });
                    self.apply_settings();
                }
            }
            Op::Cancel { by, at_ms } => {
                self.note(at_ms, actor, format!("canceled by {by}"));
                let cancel = (by, actor);
                self.finished_ms = self.finished_ms.max(at_ms);
                // Whoever sorts first, so that every machine names the same person.
                self.canceled = Some(self.canceled.take().map_or(cancel.clone(), |other| other.min(cancel)));
            }
            Op::Collected { revision, video, at_ms } => {
                self.collected = self.collected.max(Some((revision, video)));
                self.finished_ms = self.finished_ms.max(at_ms);
                self.note(at_ms, actor, "collected".into());
            }
            Op::Retire
            | Op::Member { .. }
            | Op::Evict { .. }
            | Op::Trust { .. }
            | Op::Setting { .. }
            | Op::Unknown { .. } => {}
        }
    }

    /// The state of a unit; one nobody has spoken of is in its first epoch, unclaimed.
    pub fn unit(&self, unit: Unit) -> &UnitState {
        self.units.get(&unit).unwrap_or(&NO_UNIT)
    }

    /// All units of the job, ascending.
    pub fn all_units(&self) -> impl Iterator<Item = Unit> + '_ {
        self.spec.iter().flat_map(|spec| spec.frames.iter().map(Unit::whole))
    }

    /// Units without a result in their current epoch, ascending.
    pub fn unfinished(&self) -> &BTreeSet<Unit> {
        &self.unfinished
    }

    /// Units that an attempt failed at and that have no result, ascending: few.
    pub fn failing(&self) -> impl Iterator<Item = Unit> + '_ {
        self.failing.iter().copied().filter(|unit| self.unfinished.contains(unit))
    }

    /// Whether nothing of it may start.
    pub fn is_paused(&self) -> bool {
        self.rules.paused
    }

    /// 0–100.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// Its rules as they are now.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether nothing more will be rendered: cancelled, or collected as it is now.
    pub fn is_over(&self) -> bool {
        self.canceled.is_some() || self.collected.is_some_and(|(revision, _)| revision >= self.revision)
    }

    /// Whether there is something a finished video can show: a canceled job gets none.
    pub fn has_video_frames(&self) -> bool {
        self.canceled.is_none() && self.all_units().any(|unit| self.unit(unit).has_result())
    }

    /// The counter the next `Set` must carry.
    pub fn next_lamport(&self) -> u64 {
        self.lamport.saturating_add(1)
    }

    /// The node that submitted it.
    pub fn owner(&self) -> Option<NodeId> {
        self.submitter.map(|actor| actor.node)
    }

    /// Nodes that hold a blob: some start of the node said so and none took it back.
    pub fn holders(&self, blob: BlobId) -> BTreeSet<NodeId> {
        let Some(actors) = self.holders.get(&blob) else { return BTreeSet::new() };
        let dropped: BTreeSet<NodeId> = actors.iter().filter(|(_, has)| !**has).map(|(actor, _)| actor.node).collect();
        actors.keys().map(|actor| actor.node).filter(|node| !dropped.contains(node)).collect()
    }

    /// Nodes that rendered something of it and hold all they rendered; `None` once anybody let go of anything.
    pub fn keepers(&self) -> Option<impl Iterator<Item = NodeId> + '_> {
        (!self.drops).then(|| self.speed.keys().copied())
    }

    /// Mean time of this job's frames on a node, or over all nodes, in milliseconds.
    pub fn mean_millis(&self, node: Option<NodeId>) -> Option<u64> {
        let (frames, millis) = match node {
            Some(node) => self.speed.get(&node).copied()?,
            None => self.speed.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1)),
        };
        (frames > 0).then(|| millis / u64::from(frames))
    }

    /// Frames and milliseconds per node.
    pub fn speeds(&self) -> &BTreeMap<NodeId, (u32, u64)> {
        &self.speed
    }

    /// Failed attempts of a node at anything of the job.
    pub fn failures_of(&self, node: NodeId) -> usize {
        self.failures.get(&node).copied().unwrap_or(0)
    }

    /// Units rendered more often than once in their epoch.
    pub fn duplicates(&self) -> usize {
        let extra = |state: &UnitState| state.current_results().count().saturating_sub(1);
        self.units.values().map(extra).sum()
    }

    /// Ops may come before the `Submit`, so that any unit is taken; what a hostile log says of frames the job does not
    /// have is never read, and costs no more than the log itself.
    fn unit_mut(&mut self, unit: Unit) -> &mut UnitState {
        self.units.entry(unit).or_default()
    }

    fn raise(&mut self, unit: Unit, epoch: u32) {
        let state = self.unit_mut(unit);
        let raised = epoch.saturating_sub(state.epoch);
        state.epoch = state.epoch.max(epoch);
        self.revision = self.revision.saturating_add(u64::from(raised));
    }

    fn reopen(&mut self, unit: Unit, epoch: u32) {
        let known = self.spec.as_ref().is_some_and(|spec| spec.frames.contains(unit.frame));
        self.raise(unit, epoch);
        if !self.unit(unit).has_result() && known {
            self.unfinished.insert(unit);
        }
    }

    fn hold(&mut self, actor: ActorId, blobs: &[BlobId], has: bool) {
        for blob in blobs {
            self.holders.entry(*blob).or_default().insert(actor, has);
        }
    }

    fn apply_settings(&mut self) {
        let Some(spec) = &self.spec else { return };
        (self.priority, self.rules) = (spec.priority, spec.rules.clone());
        for latest in self.settings.values() {
            latest.setting.apply(&mut self.priority, &mut self.rules);
        }
    }

    fn note(&mut self, at_ms: u64, by: ActorId, action: String) {
        self.history.insert(HistoryEntry { at_ms, by, action });
    }
}
