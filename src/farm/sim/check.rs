//! Looking whether what must hold ([`Invariant`]) does.

use super::event::short;
use super::{Invariant, World};
use crate::farm::config::{ATTEMPTS_PER_NODE, CLAIM_MAX_UNITS};
use crate::farm::event::{Effect, Input};
use crate::farm::id::{ActorId, JobId, Part, Unit};
use crate::farm::message::{LogId, Message};
use crate::farm::op::Op;
use crate::farm::rendezvous::strength_at_job;
use crate::farm::rules::Chunk;
use crate::farm::state::JobState;
use crate::farm::verdict::has_live_result;
use crate::wire;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Copies of a unit may meet by accident, but for no longer than it takes to notice.
const COPIES_FOR: Duration = Duration::from_secs(5);
/// Most copies of a unit after that.
const MAX_COPIES: usize = 2;
/// After faults, until everyone can be expected to hear everyone.
const CONVERGED_AFTER: Duration = Duration::from_secs(15);
/// By then everyone has heard what was begun, if everyone can hear everyone.
const HEARD_AFTER: Duration = Duration::from_secs(1);
/// After faults, until what was begun before is ended too: a few frames.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// A woken machine is off duty so long, unless it compares ledgers sooner.
const FENCE: Duration = crate::farm::config::LATE_LOOP;
/// One start of a machine begins a unit of an epoch at most so often: it may fail twice, and be given up and taken again
/// around cuts and pauses; more is going round in circles (guess).
const MAX_BEGUN: usize = 10;
/// Events between looks at everything; more where there is more to look at.
const LOOK_EVERY: u64 = 1000;
/// So many units on all machines make one event more.
const UNITS_PER_EVENT: usize = 10;
/// Most batches that wait for one disk (guess: a disk that stands still for half a minute of lively gossip).
const MAX_BATCHES: usize = 4000;
/// Most effects of one input, beside those to each neighbour and of each unit (guess).
const MAX_EFFECTS: usize = 400;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Simulated time.
    pub at: Duration,
    /// What was seen instead.
    pub detail: String,
}

/// What checks remember.
#[derive(Default)]
pub(super) struct Checks {
    /// Per machine and job: the epochs in which units were seen with a result.
    done: BTreeMap<(usize, JobId), Seen>,
    /// Since when a unit has had too many copies.
    crowded: BTreeMap<(JobId, Unit), Duration>,
    /// How often one start of a machine began a unit of an epoch.
    begun: BTreeMap<(usize, u32, JobId, Unit, u32), usize>,
    /// Most ops of each honest actor that its own disk has held.
    durable: BTreeMap<(LogId, ActorId), u64>,
    /// Inputs handled since everything was looked at.
    since: u64,
}

impl Checks {
    /// A machine starts anew: what it knew only in memory may be gone.
    pub fn forget(&mut self, machine: usize) {
        self.done.retain(|(of, _), _| *of != machine);
    }
}

/// The epochs in which units were seen with a result.
#[derive(Default)]
struct Seen {
    /// Of the frames that jobs have, by number, one more; 0 of those that were not seen. Half a thousand machines see each
    /// of ten thousand frames, time and again.
    usual: Vec<u32>,
    /// Of what liars made up.
    others: BTreeMap<Unit, u32>,
}

impl Seen {
    fn place(unit: Unit, frames: usize) -> Option<usize> {
        usize::try_from(unit.frame).ok().filter(|frame| unit.part == Part::Whole && *frame <= frames)
    }

    fn epoch(&self, unit: Unit, frames: usize) -> Option<u32> {
        match Self::place(unit, frames) {
            Some(place) => self.usual.get(place)?.checked_sub(1),
            None => self.others.get(&unit).copied(),
        }
    }

    fn insert(&mut self, unit: Unit, frames: usize, epoch: u32) {
        match Self::place(unit, frames) {
            Some(place) => {
                self.usual.resize(frames + 1, 0);
                self.usual[place] = epoch.saturating_add(1);
            }
            None => drop(self.others.insert(unit, epoch)),
        }
    }
}

/// The units an input, and what follows from it, may have changed.
#[derive(Default)]
pub(super) struct Touched(BTreeSet<(JobId, Unit)>);

impl Touched {
    pub fn of(input: &Input) -> Self {
        let mut touched = Self::default();
        match input {
            Input::Rendered { job, unit, .. }
            | Input::RenderFailed { job, unit, .. }
            | Input::Delivered { job, unit, .. }
            | Input::DeliveryFailed { job, unit, .. }
            | Input::Undeliverable { job, unit, .. } => drop(touched.0.insert((*job, *unit))),
            _ => {}
        }
        touched
    }

    /// By what a message tells.
    pub fn by(message: &Message) -> Self {
        let mut touched = Self::default();
        if let Message::Push(suffixes) = message {
            for suffix in suffixes {
                let ops =
                    suffix.ops.iter().filter(|op| wire::settles_units(op)).filter_map(|op| wire::decode_op(op).ok());
                ops.for_each(|op| touched.op(suffix.log, &op));
            }
        }
        touched
    }

    pub fn see(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Render { job, unit, .. } | Effect::Stop { job, unit } | Effect::Deliver { job, unit, .. } => {
                    self.0.insert((*job, *unit));
                }
                _ => {}
            }
        }
    }

    fn op(&mut self, log: LogId, op: &Op) {
        match op {
            Op::Done { unit, .. } | Op::Failed { unit, .. } => drop(self.0.insert((log, *unit))),
            Op::Requeue { units, .. } | Op::Revise { units, .. } => self.0.extend(units.iter().map(|unit| (log, unit))),
            _ => {}
        }
    }
}

impl World {
    pub(super) fn fail(&mut self, invariant: Invariant, detail: String) {
        self.report.violation.get_or_insert(Violation { invariant, at: self.now, detail });
    }

    /// What a farm is about to write of itself.
    pub(super) fn check_said(&mut self, i: usize, log: LogId, op: &Op) {
        self.check_loss(i, log, op);
        self.check_reuse(i, log, op);
        let machine = &self.machines[i];
        let Op::Claim { units, .. } = op else { return };
        let why = match () {
            () if machine.is_leaving => "is leaving",
            () if machine.capability.paused => "is paused",
            () if machine.woke.is_some_and(|at| self.now < at + FENCE) => "just woke and has heard of nothing since",
            () => return,
        };
        let detail = format!("machine {i} {why} and claims {} of {log:?}", units.frames);
        self.fail(Invariant::OffDutyClaimsNothing, detail);
    }

    /// What a farm is about to say.
    pub(super) fn check_message(&mut self, i: usize, message: &Message) {
        let Some(me) = self.machines[i].farm.as_ref().map(|farm| farm.me()) else { return };
        if self.liars.contains_key(&i) {
            return;
        }
        let mut told: Vec<(LogId, u64)> = Vec::new();
        match message {
            Message::Push(suffixes) => {
                let own = suffixes.iter().filter(|suffix| suffix.actor == me);
                told.extend(own.map(|suffix| (suffix.log, suffix.from + suffix.ops.len() as u64)));
            }
            Message::Versions { versions, .. } => {
                for of in versions {
                    let own = of.lengths.iter().filter(|(actor, _)| *actor == me);
                    told.extend(own.map(|(_, length)| (of.log, *length)));
                }
            }
            _ => {}
        }
        for (log, length) in told {
            let durable = self.machines[i].disk.length(log, me);
            if length > durable {
                self.fail(
                    Invariant::AnnouncedIsDurable,
                    format!("machine {i} tells {length} of its ops in {log:?}, its disk has {durable}"),
                );
            }
        }
    }

    /// How much follows from one input.
    pub(super) fn check_effects(&mut self, i: usize, effects: &[Effect]) {
        let neighbours = self.net.peer_count(i);
        let units = self.scenario.jobs * self.scenario.frames;
        if effects.len() > MAX_EFFECTS + 20 * neighbours + 4 * units {
            self.fail(Invariant::Bounded, format!("{} effects of one input of machine {i}", effects.len()));
        }
    }

    /// What a farm is about to render.
    pub(super) fn check_render(&mut self, i: usize, job: JobId, unit: Unit, epoch: u32) {
        let begun = self.checks.begun.entry((i, self.machines[i].life, job, unit, epoch)).or_default();
        *begun += 1;
        let circles = *begun > MAX_BEGUN;
        let machine = &self.machines[i];
        let Some(farm) = &machine.farm else { return };
        let state = farm.jobs().get(&job);
        let spec = state.and_then(|state| state.spec_of(state.unit(unit).revision()));
        let files = spec.and_then(|spec| self.manifests.get(&spec.bundle));
        let is_whole = files.is_some_and(|files| files.iter().all(|map| machine.blobs.whole.contains(&map.id())));
        let attempts = state.map_or(0, |state| state.unit(unit).failures_of(machine.node));
        let others = (0..self.machines.len()).any(|other| other != i && self.machines[other].is_up());
        let rules = state.map(JobState::rules);
        let lacks_tag = rules.is_some_and(|rules| rules.tags.iter().any(|tag| !machine.capability.tags.contains(tag)));
        let memory = rules.and_then(|rules| rules.min_memory_bytes).unwrap_or(0);
        let comes_first = rules.and_then(|rules| rules.after);
        let is_early =
            comes_first.is_some_and(|first| farm.jobs().get(&first).is_none_or(|job| !job.unfinished().is_empty()));
        let by: BTreeSet<_> =
            state.iter().flat_map(|state| state.unit(unit).current_failures()).map(|(node, _)| node).collect();
        // One whose result's holders are gone is rendered anew, whoever failed it before.
        let has_result = state.is_some_and(|state| state.unit(unit).has_result());
        let is_given_up = !has_result && rules.is_some_and(|rules| by.len() >= rules.attempts());
        let most = rules.and_then(|rules| match rules.chunk {
            Chunk::All => Some(1),
            Chunk::Auto | Chunk::Units(_) => rules.max_nodes.map(|nodes| nodes as usize),
        });
        // Of machines that joined at the same moment the strongest stay, while the others end what they are far on with.
        let rank = |i: usize| (strength_at_job(self.machines[i].node, job), self.machines[i].node);
        // Who renders what is rendered already stops as soon as it hears of it.
        let is_open = |unit: &Unit| state.is_some_and(|state| !state.unit(*unit).has_result());
        let comes_before = |other: &usize| {
            let since = self.now.saturating_sub(HEARD_AFTER);
            let mut renders = self.machines[*other].renders.iter();
            rank(*other) > rank(i)
                && renders.any(|((of, unit), render)| *of == job && render.began <= since && is_open(unit))
        };
        let is_crowd = most
            .is_some_and(|most| self.is_settled() && self.honest().into_iter().filter(comes_before).count() >= most);
        let broken = [
            (is_crowd, Invariant::FewMachines, "though enough machines render that job"),
            (lacks_tag, Invariant::RulesHold, "without its tags"),
            (machine.capability.memory_bytes < memory, Invariant::RulesHold, "without the memory for it"),
            (is_early, Invariant::RulesHold, "before the job that comes first has its frames"),
            (is_given_up, Invariant::RulesHold, "that was tried often enough"),
            (machine.is_leaving, Invariant::OffDutyClaimsNothing, "though it is leaving"),
            (circles, Invariant::NoCircles, "over and over"),
            (machine.renders.contains_key(&(job, unit)), Invariant::NoCircles, "that it renders already"),
            (machine.capability.paused, Invariant::OffDutyClaimsNothing, "though it is paused"),
            (!machine.is_fit, Invariant::RulesHold, "without the right Blender"),
            (!is_whole, Invariant::RulesHold, "without its whole bundle"),
            (machine.renders.len() >= machine.capability.slots as usize, Invariant::RulesHold, "without a free slot"),
            (attempts >= ATTEMPTS_PER_NODE && others, Invariant::RulesHold, "that failed here twice"),
            (state.is_some_and(JobState::is_paused), Invariant::RulesHold, "of a paused job"),
            (state.is_some_and(|state| state.canceled.is_some()), Invariant::CanceledStops, "of a cancelled job"),
        ];
        for (is_broken, invariant, what) in broken {
            if is_broken {
                self.fail(invariant, format!("machine {i} begins {job:?} frame {unit} {what}"));
            }
        }
    }

    /// What a machine has once its owner wanted it back.
    pub(super) fn check_free(&mut self, i: usize) {
        if let Some(((job, unit), _)) = self.machines[i].renders.first_key_value() {
            self.fail(Invariant::OwnerWins, format!("machine {i} still renders {job:?} frame {unit}"));
        }
    }

    /// What a machine puts into a video.
    pub(super) fn check_video(&mut self, i: usize, job: JobId, missing: &[i32], canceled: bool) {
        let machine = &self.machines[i];
        let Some(state) = machine.farm.as_ref().and_then(|farm| farm.jobs().get(&job)) else { return };
        let torn = state.all_units().find(|unit| {
            let folder = machine.folder.get(&(job, *unit)).map(|(epoch, _)| *epoch);
            !missing.contains(&unit.frame) && !canceled && folder != Some(state.unit(*unit).epoch)
        });
        if let Some(unit) = torn {
            self.fail(Invariant::OnlyWhatIsThere, format!("machine {i} ends the video of {job:?} without {unit}"));
        }
        let started = self.started.unwrap_or_default();
        self.report.delivered = self.report.delivered.max(self.now - started);
    }

    /// When the submitter that was away comes back: the others have rendered everything, each result twice.
    pub(super) fn check_away(&mut self, owner: usize) {
        let mut broken = None;
        let up: BTreeSet<_> =
            self.machines.iter().filter(|machine| machine.is_up()).map(|machine| machine.node).collect();
        for machine in &self.machines {
            let owner = self.machines[owner].node;
            let jobs = machine.farm.iter().flat_map(|farm| farm.jobs().values());
            for job in jobs.filter(|job| job.owner() == Some(owner) && !job.is_over()) {
                let single = job.all_units().find(|unit| {
                    !job.unit(*unit).current_results().any(|(_, result)| {
                        result.outputs.iter().all(|output| job.holders(output.blob).intersection(&up).count() > 1)
                    })
                });
                broken = broken.or(single.map(|unit| format!("{:?} frame {unit}", job.id)));
            }
        }
        if let Some(detail) = broken {
            self.fail(Invariant::AwayIsReplicated, detail);
        }
    }

    /// What must hold of what one input of one machine changed.
    pub(super) fn check_touched(&mut self, i: usize, told: &Touched, touched: &Touched) {
        let machine = &self.machines[i];
        if let Some(farm) = &machine.farm {
            // A job may ask for larger claims than a machine makes by itself.
            let asked = if self.scenario.rules { self.scenario.jobs * self.scenario.frames } else { 0 };
            let most = machine.capability.slots as usize + CLAIM_MAX_UNITS + asked;
            let (hands, batches) = (farm.hands().len(), machine.disk.queued());
            let is_ending = self.scenario.slots as usize * 2 + most;
            if hands > is_ending || batches > MAX_BATCHES {
                let detail = format!("machine {i} has {hands} units in hand, {batches} batches wait for its disk");
                self.fail(Invariant::Bounded, detail);
            }
        }
        for (job, unit) in told.0.iter().chain(&touched.0) {
            self.check_units(i, *job, |_| [*unit]);
            self.check_copies_of(*job, *unit);
        }
        self.checks.since += 1;
    }

    /// Looks at everything, if it is time. Farms that were called at once have done what they said by then.
    pub(super) fn check_now_and_then(&mut self) {
        let units = self.scenario.jobs * self.scenario.frames * self.scenario.nodes;
        if self.checks.since >= LOOK_EVERY.max((units / UNITS_PER_EVENT) as u64 * 10) {
            self.check();
        }
    }

    fn check_units<U: IntoIterator<Item = Unit>>(&mut self, i: usize, job: JobId, units: impl Fn(&JobState) -> U) {
        let Some(farm) = &self.machines[i].farm else { return };
        let Some(state) = farm.jobs().get(&job) else { return };
        let is_forked = || farm.ledger().forked().any(|(log, _)| log == job);
        let frames = self.scenario.frames;
        let seen = self.checks.done.entry((i, job)).or_default();
        for unit in units(state) {
            let now = state.unit(unit);
            let has_result = now.results.keys().any(|(epoch, _, _)| *epoch == now.epoch);
            if !has_result && seen.epoch(unit, frames) == Some(now.epoch) && !is_forked() {
                let detail = format!("machine {i}, {job:?} frame {unit} epoch {}", now.epoch);
                return self.fail(Invariant::DoneStaysDone, detail);
            }
            if has_result {
                seen.insert(unit, frames, now.epoch);
            }
        }
    }

    /// What must hold everywhere.
    pub(super) fn check(&mut self) {
        self.checks.since = 0;
        for i in self.honest() {
            let machine = &self.machines[i];
            let jobs: Vec<JobId> = machine.farm.iter().flat_map(|farm| farm.jobs().keys().copied()).collect();
            for job in jobs {
                self.check_units(i, job, |state| state.all_units().collect::<Vec<_>>());
            }
            self.check_canceled(i);
            let own = self.machines[i].farm.as_ref().map(|farm| farm.me());
            for (log, length) in own.into_iter().flat_map(|me| self.machines[i].disk.lengths_of(me)).collect::<Vec<_>>()
            {
                let Some(me) = own else { continue };
                let most = self.checks.durable.entry((log, me)).or_default();
                *most = length.max(*most);
            }
        }
        self.checks.crowded.retain(|key, _| self.copies.contains_key(key));
        let rendered: Vec<(JobId, Unit)> = self.copies.keys().copied().collect();
        rendered.into_iter().for_each(|(job, unit)| self.check_copies_of(job, unit));
        if let Some(i) = self.some_honest() {
            self.check_fold(i);
        }
    }

    /// Machines that do not lie.
    pub(super) fn honest(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|i| !self.liars.contains_key(i)).collect()
    }

    fn some_honest(&self) -> Option<usize> {
        let up: Vec<usize> = self.honest().into_iter().filter(|i| self.machines[*i].is_up()).collect();
        up.get(self.report.inputs as usize % up.len().max(1)).copied()
    }

    fn check_canceled(&mut self, i: usize) {
        let machine = &self.machines[i];
        let Some(farm) = &machine.farm else { return };
        let goes_on = machine.renders.keys().find(|(job, _)| {
            machine.asleep_until <= self.now && farm.jobs().get(job).is_some_and(|job| job.canceled.is_some())
        });
        if let Some((job, unit)) = goes_on {
            let detail = format!("machine {i} still renders {job:?} frame {unit}, which it knows to be cancelled");
            self.fail(Invariant::CanceledStops, detail);
        }
    }

    /// Whether everyone can be expected to have heard everyone.
    fn is_quiet(&self) -> bool {
        self.scenario.is_calm() || self.peace && self.now > self.scenario.faults.until + CONVERGED_AFTER
    }

    /// Whether everyone has also ended what it began before that.
    fn is_settled(&self) -> bool {
        self.is_quiet() && (self.scenario.is_calm() || self.now > self.scenario.faults.until + SETTLED_AFTER)
    }

    /// Once everyone can hear everyone, a third copy does not last.
    fn check_copies_of(&mut self, job: JobId, unit: Unit) {
        if !self.is_quiet() {
            return;
        }
        let copies = self.copies.get(&(job, unit)).copied().unwrap_or(0);
        if copies <= MAX_COPIES {
            self.checks.crowded.remove(&(job, unit));
            return;
        }
        let since = *self.checks.crowded.entry((job, unit)).or_insert(self.now);
        if self.now - since > COPIES_FOR {
            self.fail(Invariant::TwoCopies, format!("{copies} of {job:?} frame {unit} since {since:?}"));
        }
    }

    /// Whether everything there will be has happened.
    pub(super) fn is_finished(&self) -> bool {
        let faults = &self.scenario.faults;
        if !self.peace
            || (faults.command.is_some() && self.now < faults.until + Duration::from_secs(25))
            || self.submitted.len() < self.scenario.jobs
        {
            return false;
        }
        let mut digests = BTreeSet::new();
        for i in self.honest() {
            let Some(farm) = &self.machines[i].farm else { return false };
            let is_over = |job: &JobId| match farm.jobs().get(job) {
                Some(job) => job.is_over(),
                None => self.retired.contains(job),
            };
            let mine = self.submitted.iter().all(is_over);
            if !mine || !farm.hands().is_empty() || !self.machines[i].renders.is_empty() {
                return false;
            }
            digests.insert(farm.ledger().digest());
        }
        digests.len() == 1 && self.honest().into_iter().all(|i| self.has_fetched(i))
    }

    /// Whether a machine has delivered whatever it brings together and somebody alive has: a result may turn up when its job
    /// is over.
    fn has_fetched(&self, i: usize) -> bool {
        let Some(farm) = &self.machines[i].farm else { return false };
        let own = farm.collectors().iter().filter_map(|(job, collector)| Some((farm.jobs().get(job)?, collector)));
        own.filter(|(job, _)| job.canceled.is_none()).all(|(job, collector)| {
            job.all_units().all(|unit| {
                collector.delivered.get(&unit) == Some(&job.unit(unit).version())
                    || !has_live_result(job, unit, farm.roster(), self.machines[i].clock(self.now))
            })
        })
    }

    /// What must hold once everything has come to its end.
    pub(super) fn check_end(&mut self) {
        self.check();
        self.check_nothing_is_lost();
        self.check_retired_are_gone();
        self.check_all_agree();
        let most = if self.scenario.nodes > 64 { 2 } else { usize::MAX };
        self.honest().into_iter().take(most).for_each(|i| self.check_fold(i));
        self.check_owners_have_all();
    }

    fn check_nothing_is_lost(&mut self) {
        let mut lost = None;
        for i in self.honest() {
            let Some(farm) = &self.machines[i].farm else { continue };
            for ((log, actor), length) in &self.checks.durable {
                if self.retired.contains(log) {
                    continue;
                }
                let have = farm.ledger().length(*log, *actor);
                if have < *length {
                    lost = Some(format!("machine {i} knows {have} of {length} ops of {actor:?} in {log:?}"));
                }
            }
        }
        if let Some(detail) = lost {
            self.fail(Invariant::NothingDurableIsLost, detail);
        }
    }

    /// Nobody has a job that anybody retired, however long it was away; nor does any disk that is told so.
    fn check_retired_are_gone(&mut self) {
        let mut broken = None;
        for i in self.honest() {
            let machine = &self.machines[i];
            let Some(farm) = &machine.farm else { continue };
            let job = self.retired.iter().find(|job| farm.jobs().contains_key(job) || farm.ledger().knows(**job));
            if let Some(job) = job.copied().or(machine.disk.undead()) {
                broken = Some(format!("machine {i}, {job:?}"));
            }
        }
        if let Some(detail) = broken {
            self.fail(Invariant::RetiredIsGone, detail);
        }
    }

    fn check_all_agree(&mut self) {
        let honest = self.honest();
        let mut views = honest.iter().filter_map(|i| Some((i, self.machines[*i].farm.as_ref()?.jobs())));
        let Some((first, expected)) = views.next() else { return };
        if let Some((other, _)) = views.find(|(_, view)| *view != expected) {
            let detail = format!("machines {first} and {other} folded the same ops to different states");
            self.fail(Invariant::EqualLedgersEqualJobs, detail);
        }
    }

    fn check_owners_have_all(&mut self) {
        let mut missing = None;
        let Some(farm) = self.machines.first().and_then(|machine| machine.farm.as_ref()) else { return };
        let is_forked = |job: &JobId| farm.ledger().forked().any(|(log, _)| log == *job);
        for (id, job) in farm.jobs().iter().filter(|(id, job)| job.canceled.is_none() && self.submitted.contains(id)) {
            let Some(owner) = job.owner().and_then(|owner| self.by_node.get(&owner)) else { continue };
            for unit in job.all_units() {
                let state = job.unit(unit);
                let wanted: Vec<Vec<_>> = state
                    .results
                    .iter()
                    .filter(|((epoch, _, _), result)| (*epoch, result.revision) == state.version())
                    .map(|(_, result)| result.outputs.iter().map(|output| output.blob).collect())
                    .collect();
                let folder = self.machines[*owner].folder.get(&(*id, unit));
                let is_there = folder.is_some_and(|(epoch, blobs)| {
                    let scene = job.spec_of(state.revision()).map(|spec| spec.bundle);
                    let is_of_it = blobs.iter().all(|blob| self.drawn_from.get(blob).copied() == scene);
                    *epoch == state.epoch && wanted.contains(blobs) && is_of_it
                });
                let may_be_missing = wanted.is_empty()
                    && (state.failures.keys().any(|(epoch, _, _)| *epoch == state.epoch) || is_forked(id));
                if !is_there && !may_be_missing {
                    missing = Some(format!("{id:?} frame {unit} of epoch {}: {}", state.epoch, short(&folder)));
                }
            }
        }
        if let Some(detail) = missing {
            self.fail(Invariant::OwnersHaveAll, detail);
        }
    }
}
