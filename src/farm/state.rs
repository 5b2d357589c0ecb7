//! What the ops of a job add up to.
//!
//! The fold: [`JobState::apply`] takes each op of each actor once, in that actor's order; ops of different actors may
//! come in any order and give the same state, because what an actor says is kept under the actor and compared only when
//! read. Nothing here knows who is alive; `schedule` and `collect` put that together with the roster. Who holds
//! which blobs is in `held`, what is no file of the job in `strangers`, what was there before it in `before`.

mod before;
mod held;
mod strangers;

use super::config::UNITS_LOOKED_AT;
use super::id::{ActorId, BlobId, JobId, NodeId, Part, Unit};
use super::job::{Device, JobSpec, Revision};
use super::op::{JobSetting, Op, RetireReason, Reuse, UnitSet};
use super::order::{depth, places};
use super::planted::{Bug, is_planted};
use super::rules::Rules;
use super::scripts::Scripts;
use super::unit::{Attempt, Claim, Outcome, Remark, Revised, RevisionKey, UnitState};
use super::views::Views;
use litemap::LiteMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Of a job whose `Submit` has not arrived.
const DEFAULT_PRIORITY: u8 = 50;

/// Units by how deep they lie in their job.
type Depths = BTreeSet<(Option<u32>, Unit)>;

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
    /// Sum of the epochs of all units, and the number of revisions: grows when something is to be rendered anew.
    pub revision: u64,
    /// Somebody wants it forgotten, if it is over.
    retire_over: bool,
    /// Somebody saw that its submitter does not come back.
    abandoned: bool,
    /// Wall clock of the end, for display.
    pub finished_ms: u64,
    /// What was done to it.
    pub history: BTreeSet<HistoryEntry>,
    units: BTreeMap<Unit, UnitState>,
    unfinished: BTreeSet<Unit>,
    /// The same as (depth, unit), with how many units a place has: kept while the job is looked at in that order.
    depths: Option<(usize, Depths)>,
    /// Units that somebody claims, in whatever epoch.
    claimed: BTreeSet<Unit>,
    /// Unfinished units with a failed attempt, of whatever epoch.
    failing: BTreeSet<Unit>,
    /// By [`JobSetting::slot`].
    settings: BTreeMap<u8, Latest>,
    /// As submitted, with the settings made since.
    priority: u8,
    rules: Rules,
    /// What was revised: by id, the latest of that id.
    revisions: BTreeMap<u32, (RevisionKey, Arc<Revision>)>,
    /// The job as each revision has it.
    specs: BTreeMap<u32, Arc<JobSpec>>,
    /// How many of the job's units come from each revision, 0 among them.
    shares: BTreeMap<u32, usize>,
    lamport: u64,
    /// What the next `Submit` or `Revise` of each writer asks to be run.
    asked: BTreeMap<ActorId, Scripts>,
    /// By which backend the next `Submit` or `Revise` of each writer is rendered, where that is one.
    devices: BTreeMap<ActorId, Device>,
    /// What the next `Submit` or `Done` of each writer is.
    reuses: BTreeMap<ActorId, Reuse>,
    /// Which files a frame of the next `Submit` of each writer is.
    views: BTreeMap<ActorId, Views>,
    /// Results, by (unit, actor, sequence number), that were taken over from another job, and from which.
    taken: BTreeMap<(Unit, ActorId, u64), JobId>,
    /// Per blob and actor: whether the actor's last word was that it has it.
    holders: BTreeMap<BlobId, LiteMap<ActorId, bool>>,
    /// Whether anybody ever said to hold something no more, or to have lost it.
    drops: bool,
    /// Devices and renderers named in results: few, each kept once.
    names: BTreeSet<Arc<str>>,
    /// Frames rendered and their milliseconds, per node that has a result: none of a result that was taken over from another
    /// job, or was there before.
    speed: BTreeMap<NodeId, (u32, u64)>,
    /// The sum of them.
    speed_of_all: (u32, u64),
    /// Failures per node, all units and epochs.
    failures: BTreeMap<NodeId, usize>,
    /// What is remarkable about results, by (unit, epoch, actor): few.
    remarks: BTreeMap<(Unit, u32, ActorId), Remark>,
    /// What results had that is no file of the job, by (unit, epoch, actor): the least name of each.
    strangers: BTreeMap<(Unit, u32, ActorId), String>,
}

static NO_UNIT: UnitState =
    UnitState { epoch: 0, revised: None, claims: LiteMap::new(), results: LiteMap::new(), failures: LiteMap::new() };

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
            retire_over: false,
            abandoned: false,
            finished_ms: 0,
            history: BTreeSet::new(),
            units: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            depths: None,
            claimed: BTreeSet::new(),
            revisions: BTreeMap::new(),
            specs: BTreeMap::new(),
            shares: BTreeMap::new(),
            failing: BTreeSet::new(),
            settings: BTreeMap::new(),
            priority: DEFAULT_PRIORITY,
            rules: Rules::default(),
            lamport: 0,
            asked: BTreeMap::new(),
            devices: BTreeMap::new(),
            reuses: BTreeMap::new(),
            views: BTreeMap::new(),
            taken: BTreeMap::new(),
            holders: BTreeMap::new(),
            drops: false,
            names: BTreeSet::new(),
            speed: BTreeMap::new(),
            speed_of_all: (0, 0),
            failures: BTreeMap::new(),
            remarks: BTreeMap::new(),
            strangers: BTreeMap::new(),
        }
    }

    /// Takes one op of `actor`, its `seq`-th in this log.
    pub fn apply(&mut self, actor: ActorId, seq: u64, op: Op) {
        match op {
            Op::Scripts { scripts } => drop(self.asked.insert(actor, scripts)),
            Op::Device { device } => drop(self.devices.insert(actor, device)),
            Op::Reuse { word } => drop(self.reuses.insert(actor, word)),
            Op::Views { views } => drop(self.views.insert(actor, views)),
            Op::Submit { min_version, mut spec } => {
                (spec.settings.scripts, spec.author) =
                    (self.asked.remove(&actor).unwrap_or_default(), Some(actor.node));
                spec.settings.device = self.devices.remove(&actor).unwrap_or(spec.settings.device);
                spec.reuse = match self.reuses.remove(&actor) {
                    Some(Reuse::Wanted { colours }) => Some(colours),
                    Some(Reuse::Taken { .. }) | None => None,
                };
                spec.views = self.views.remove(&actor).unwrap_or_default();
                self.mark_kept(actor, seq);
                spec.mixed_with = self.first_not_kept(&spec);
                // The ledger lets only the actor the job is named after write this, once.
                let units = spec.frames.iter().map(Unit::whole);
                self.unfinished = units.filter(|unit| !self.unit(*unit).has_result()).collect();
                self.depths = None;
                self.note(spec.created_ms, actor, format!("submitted by {}", spec.user));
                (self.min_version, self.submitter, self.spec) = (min_version, Some(actor), Some(Arc::from(spec)));
                self.apply_settings();
                self.respec();
                self.sift_all();
                self.count_shares();
            }
            // Others have no say in what is written on that machine. The submitter's comes after its `Submit`.
            Op::Zip { path } => {
                if let Some(spec) = self.spec.as_mut().filter(|_| self.submitter == Some(actor)) {
                    Arc::make_mut(spec).output.zip = Some(path);
                    self.respec();
                }
            }
            Op::Claim { epoch, units, kind, score } => {
                for unit in units.iter() {
                    self.unit_mut(unit).claims.insert(actor, Claim { epoch, kind, score });
                    self.claimed.insert(unit);
                }
            }
            Op::Release { units } => {
                for unit in units.iter() {
                    self.drop_claim(unit, &actor);
                }
            }
            Op::Done { epoch, unit, outputs, .. } if !strangers::has_image(&outputs) => {
                self.reuses.remove(&actor);
                self.hold(actor, outputs.iter().map(|output| output.blob), true);
                self.fail((epoch, actor, seq), unit, strangers::no_image());
            }
            Op::Done { epoch, revision, unit, outputs, millis, device, build } => {
                let word = self.reuses.remove(&actor);
                let own = self.speed.entry(actor.node).or_default();
                match word {
                    // Whoever took it over holds it, and was no slower for that.
                    Some(Reuse::Taken { epoch: of, unit: taken, from }) if (of, taken) == (epoch, unit) => {
                        self.taken.insert((unit, actor, seq), from);
                    }
                    Some(Reuse::Taken { .. } | Reuse::Wanted { .. }) | None => {
                        for speed in [own, &mut self.speed_of_all] {
                            *speed = (speed.0.saturating_add(1), speed.1.saturating_add(u64::from(millis)));
                        }
                    }
                }
                self.hold(actor, outputs.iter().map(|output| output.blob), true);
                let outputs = self.sift((unit, epoch, actor), outputs);
                self.raise(unit, epoch);
                let (device, build) = (self.name(device), self.name(build));
                self.drop_claim(unit, &actor);
                let state = self.unit_mut(unit);
                if state.results.is_empty() {
                    // Nearly all have one, and room for four would be most of what a job takes.
                    state.results = LiteMap::with_capacity(1);
                }
                let outcome = Outcome { revision, outputs, millis, device, build, is_kept: false };
                state.results.insert((epoch, actor, seq), outcome);
                self.review(unit);
            }
            Op::Remark { epoch, unit, blank, warnings } => {
                self.remarks.insert((unit, epoch, actor), Remark { blank, warnings });
            }
            Op::Failed { epoch, unit, kind, message, log } => {
                self.fail((epoch, actor, seq), unit, Attempt { kind, message, log });
            }
            Op::Holds { blobs } => self.hold(actor, blobs, true),
            Op::Lost { .. } if is_planted(Bug::LossIgnored) => {}
            Op::Drops { blobs } | Op::Lost { blobs } => {
                self.drops = true;
                self.hold(actor, blobs, false);
            }
            Op::Requeue { units, epoch, by, at_ms } => {
                for unit in units.iter() {
                    self.reopen(unit, epoch);
                }
                self.note(at_ms, actor, format!("frames {} requeued by {by}", units.frames));
            }
            Op::Revise { id, mut revision, units, epoch, by, at_ms } => {
                revision.settings.scripts = self.asked.remove(&actor).unwrap_or_default();
                revision.settings.device = self.devices.remove(&actor).unwrap_or(revision.settings.device);
                let at = (epoch, actor, seq);
                if self.revisions.get(&id).is_none_or(|latest| latest.0 < at) {
                    if let Some(spec) = &self.spec {
                        self.specs.insert(id, Arc::new(revision.of(spec, actor.node)));
                    }
                    self.revisions.insert(id, (at, Arc::from(revision)));
                }
                self.revision = self.revision.saturating_add(1);
                for unit in units.iter() {
                    self.revise(unit, Revised { at, id });
                    self.reopen(unit, epoch);
                }
                self.note(at_ms, actor, format!("frames {} revised by {by}", units.frames));
            }
            Op::Set { lamport, setting, at_ms } => {
                self.lamport = self.lamport.max(lamport);
                let at = (lamport, actor);
                self.note(at_ms, actor, setting.action());
                // An actor's own come in order, so that of two with one number the later counts everywhere.
                let slot = setting.slot();
                let is_tie = |latest: &Latest| is_planted(Bug::WrongTieBreak) && latest.at.0 == at.0;
                if self.settings.get(&slot).is_none_or(|latest| latest.at <= at || is_tie(latest)) {
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
            Op::Retire { why: RetireReason::Over } => self.retire_over = true,
            Op::Retire { why: RetireReason::Abandoned } => self.abandoned = true,
            Op::Member { .. } | Op::Evict { .. } | Op::Trust { .. } | Op::Setting { .. } | Op::Unknown { .. } => {}
        }
    }

    /// The state of a unit; one nobody has spoken of is in its first epoch, unclaimed.
    pub fn unit(&self, unit: Unit) -> &UnitState {
        self.units.get(&unit).unwrap_or(&NO_UNIT)
    }

    /// What is remarkable about the result of the current epoch by this actor.
    pub fn remark(&self, unit: Unit, actor: ActorId) -> Option<&Remark> {
        self.remarks.get(&(unit, self.unit(unit).epoch, actor))
    }

    /// A unit's current results, each with its actor and the job that it was taken over from, if it was.
    pub fn results(&self, unit: Unit) -> impl Iterator<Item = (ActorId, &Outcome, Option<JobId>)> {
        self.unit(unit)
            .current_entries()
            .map(move |((_, actor, seq), outcome)| (*actor, outcome, self.taken.get(&(unit, *actor, *seq)).copied()))
    }

    /// The job that a unit's current result was taken over from, if it was.
    pub fn taken(&self, unit: Unit) -> Option<JobId> {
        self.results(unit).next()?.2
    }

    /// How many units have a result that was taken over from another job.
    pub fn taken_count(&self) -> usize {
        let units: BTreeSet<Unit> = self.taken.keys().map(|(unit, ..)| *unit).collect();
        units
            .into_iter()
            .filter(|unit| self.spec.as_ref().is_some_and(|spec| is_of(spec, *unit)))
            .filter(|unit| self.taken(*unit).is_some())
            .count()
    }

    /// All units of the job, ascending.
    pub fn all_units(&self) -> impl Iterator<Item = Unit> + '_ {
        self.spec.iter().flat_map(|spec| spec.frames.iter().map(Unit::whole))
    }

    /// All units of the job, or of a large one [`UNITS_LOOKED_AT`] in a row: the part of that number, from the front again
    /// after the last. Whoever counts it up comes to all of them in turn, whoever draws it to each sooner or later.
    pub fn some_units(&self, part: u64) -> impl Iterator<Item = Unit> + '_ {
        let units = self.spec.as_ref().map_or(0, |spec| spec.frames.len());
        let parts = units.div_ceil(UNITS_LOOKED_AT).max(1) as u64;
        self.all_units().skip((part % parts) as usize * UNITS_LOOKED_AT).take(UNITS_LOOKED_AT)
    }

    /// All units that have a result in their current epoch, ascending.
    pub fn finished(&self) -> impl Iterator<Item = Unit> + '_ {
        self.all_units().filter(|unit| self.unit(*unit).has_result())
    }

    /// Units without a result in their current epoch, ascending.
    pub fn unfinished(&self) -> &BTreeSet<Unit> {
        &self.unfinished
    }

    /// The same, first the ends, then the middle, then the middles between: of a job in that order.
    pub fn first_last_middle(&self) -> impl Iterator<Item = Unit> + '_ {
        self.depths.iter().flat_map(|(_, units)| units.iter().map(|(_, unit)| *unit))
    }

    /// Units without a result that somebody claims, alive or not, ascending.
    pub fn claimed(&self) -> impl Iterator<Item = Unit> + '_ {
        self.claimed.iter().copied().filter(|unit| self.unfinished.contains(unit))
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

    /// Whether it may be forgotten at the word of anyone: it was collected once, or cancelled. What comes later does not
    /// change that, so that whoever knows more ops never finds less retired.
    pub fn may_retire(&self) -> bool {
        self.canceled.is_some() || self.collected.is_some()
    }

    /// Whether it is to be forgotten.
    pub fn is_retired(&self) -> bool {
        self.abandoned || (self.retire_over && self.may_retire())
    }

    /// The bundles its units are or were rendered from.
    pub fn bundles(&self) -> impl Iterator<Item = BlobId> + '_ {
        let revised = self.revisions.values().map(|(_, revision)| revision.bundle);
        self.spec.iter().map(|spec| spec.bundle).chain(revised)
    }

    /// The job as one of its revisions has it; 0 as submitted.
    pub fn spec_of(&self, revision: u32) -> Option<&Arc<JobSpec>> {
        if revision == 0 { self.spec.as_ref() } else { self.specs.get(&revision) }
    }

    /// The job as each revision has it that some unit comes from now.
    pub fn current_specs(&self) -> impl Iterator<Item = &Arc<JobSpec>> {
        self.shares.iter().filter(|(_, units)| **units > 0).filter_map(|(id, _)| self.spec_of(*id))
    }

    /// Whether any unit comes from something else than was submitted.
    pub fn is_revised(&self) -> bool {
        !self.revisions.is_empty()
    }

    /// Whether a revision is known.
    pub fn has_revision(&self, id: u32) -> bool {
        self.revisions.contains_key(&id)
    }

    /// Whether there is something a finished video can show: a canceled job gets none.
    pub fn has_video_frames(&self) -> bool {
        self.canceled.is_none() && self.all_units().any(|unit| self.unit(unit).has_result())
    }

    /// The counter the next `Set` must carry.
    pub fn next_lamport(&self) -> u64 {
        self.lamport.saturating_add(1)
    }

    /// The epoch that opens these units anew.
    pub fn next_epoch(&self, units: &UnitSet) -> u32 {
        units.iter().map(|unit| self.unit(unit).epoch).max().unwrap_or(0).saturating_add(1)
    }

    /// The node that submitted it.
    pub fn owner(&self) -> Option<NodeId> {
        self.submitter.map(|actor| actor.node)
    }

    /// Mean time of this job's frames on a node, or over all nodes, in milliseconds.
    pub fn mean_millis(&self, node: Option<NodeId>) -> Option<u64> {
        let (frames, millis) = match node {
            Some(node) => self.speed.get(&node).copied()?,
            None => self.speed_of_all,
        };
        (frames > 0).then(|| millis / u64::from(frames))
    }

    /// Frames and milliseconds per node; none of one that only took over what another job has, or was there before.
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

    fn drop_claim(&mut self, unit: Unit, actor: &ActorId) {
        let state = self.unit_mut(unit);
        state.drop_claim(actor);
        if state.claims.is_empty() {
            self.claimed.remove(&unit);
        }
    }

    fn raise(&mut self, unit: Unit, epoch: u32) {
        let state = self.unit_mut(unit);
        let raised = epoch.saturating_sub(state.epoch);
        state.epoch = state.epoch.max(epoch);
        self.revision = self.revision.saturating_add(u64::from(raised));
    }

    fn respec(&mut self) {
        let Some(spec) = &self.spec else { return };
        let of = |((_, actor, _), revision): &(RevisionKey, Arc<Revision>)| Arc::new(revision.of(spec, actor.node));
        self.specs = self.revisions.iter().map(|(id, revision)| (*id, of(revision))).collect();
    }

    fn count_shares(&mut self) {
        let Some(spec) = self.spec.clone() else { return };
        let frames = spec.frames.len();
        let revised =
            self.units.iter().filter(|(unit, _)| is_of(&spec, **unit)).filter_map(|(_, state)| state.revised.as_ref());
        self.shares.clear();
        for revised in revised {
            *self.shares.entry(revised.id).or_default() += 1;
        }
        let others: usize = self.shares.values().sum();
        self.shares.insert(0, frames.saturating_sub(others));
    }

    fn revise(&mut self, unit: Unit, revised: Revised) {
        let counts = self.spec.as_ref().is_some_and(|spec| is_of(spec, unit));
        let state = self.unit_mut(unit);
        if state.revised.as_ref().is_some_and(|before| before.at > revised.at) {
            return;
        }
        let before = state.revision();
        state.revised = Some(Box::new(revised));
        if counts {
            self.shares.entry(before).and_modify(|units| *units = units.saturating_sub(1));
            *self.shares.entry(revised.id).or_default() += 1;
            // A share of nothing is none, or the fold would tell in which order ops came.
            self.shares.retain(|id, units| *id == 0 || *units > 0);
        }
    }

    fn reopen(&mut self, unit: Unit, epoch: u32) {
        self.raise(unit, epoch);
        self.review(unit);
    }

    /// Whether a unit is unfinished, now that something about it changed: an epoch may have come with its result or before
    /// it, a result before what it was rendered from.
    fn review(&mut self, unit: Unit) {
        let Some(spec) = self.spec.as_ref().filter(|spec| is_of(spec, unit)) else { return };
        let is_finished = self.unit(unit).has_result();
        if let Some((count, depths)) = &mut self.depths {
            let key = (depth(spec, *count, unit), unit);
            let _ = if is_finished { depths.remove(&key) } else { depths.insert(key) };
        }
        let _ = if is_finished { self.unfinished.remove(&unit) } else { self.unfinished.insert(unit) };
    }

    fn name(&mut self, name: String) -> Arc<str> {
        if let Some(known) = self.names.get(name.as_str()) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }

    fn apply_settings(&mut self) {
        let Some(spec) = &self.spec else { return };
        (self.priority, self.rules) = (spec.priority, spec.rules.clone());
        for latest in self.settings.values() {
            latest.setting.apply(&mut self.priority, &mut self.rules);
        }
        let count = places(&self.rules);
        if count != self.depths.as_ref().map(|(count, _)| *count) {
            let depths = |count| self.unfinished.iter().map(|unit| (depth(spec, count, *unit), *unit)).collect();
            self.depths = count.map(|count| (count, depths(count)));
        }
    }

    fn note(&mut self, at_ms: u64, by: ActorId, action: String) {
        self.history.insert(HistoryEntry { at_ms, by, action });
    }
}

fn is_of(spec: &JobSpec, unit: Unit) -> bool {
    unit.part == Part::Whole && spec.frames.contains(unit.frame)
}

#[cfg(test)]
mod tests;
