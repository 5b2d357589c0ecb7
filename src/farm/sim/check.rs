//! What must hold, by name.

use super::World;
use crate::farm::id::{ActorId, JobId, Unit};
use crate::farm::ledger::Row;
use crate::farm::message::{LogId, Message};
use crate::farm::op::Op;
use crate::farm::state::JobState;
use crate::wire;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Copies of a unit may meet by accident, but for no longer than it takes to notice.
const COPIES_FOR: Duration = Duration::from_secs(5);
/// Most copies of a unit after that.
const MAX_COPIES: usize = 2;

/// One start of a machine begins a unit of an epoch at most so often: it may fail twice, and be given up and taken again
/// around cuts and pauses; more is going round in circles (guess).
const MAX_BEGUN: usize = 10;

/// Something that must never be, and was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What must hold.
    pub invariant: &'static str,
    /// Simulated time.
    pub at: Duration,
    /// What was seen instead.
    pub detail: String,
}

/// What checks remember.
#[derive(Default)]
pub(super) struct Checks {
    /// Per machine and job: the epochs in which units were seen with a result.
    done: BTreeMap<(usize, JobId), BTreeMap<Unit, u32>>,
    /// Since when a unit has had too many copies.
    crowded: BTreeMap<(JobId, Unit), Duration>,
    /// How often one start of a machine began a unit of an epoch.
    begun: BTreeMap<(usize, u32, JobId, Unit, u32), usize>,
    /// Most ops of each actor that any disk has held.
    durable: BTreeMap<(LogId, ActorId), u64>,
}

impl Checks {
    /// A machine starts anew: what it knew only in memory may be gone.
    pub fn forget(&mut self, machine: usize) {
        self.done.retain(|(of, _), _| *of != machine);
    }
}

impl World {
    pub(super) fn fail(&mut self, invariant: &'static str, detail: String) {
        self.report.violation.get_or_insert(Violation { invariant, at: self.now, detail });
    }

    /// What a farm is about to write.
    pub(super) fn check_rows(&mut self, i: usize, rows: &[Row]) {
        let Some(me) = self.machines[i].farm.as_ref().map(|farm| farm.me()) else { return };
        if !self.machines[i].capability.paused {
            return;
        }
        for row in rows {
            if let Row::Op { actor, bytes, log, .. } = row
                && *actor == me
                && let Ok(Op::Claim { units, .. }) = wire::decode_op(bytes)
            {
                self.fail("a paused machine claims nothing", format!("machine {i}, {log:?}, {}", units.frames));
            }
        }
    }

    /// What a farm is about to say.
    pub(super) fn check_message(&mut self, i: usize, message: &Message) {
        let machine = &self.machines[i];
        let Some(me) = machine.farm.as_ref().map(|farm| farm.me()) else { return };
        let told: Vec<(LogId, u64)> = match message {
            Message::Push(suffixes) => {
                suffixes.iter().filter(|s| s.actor == me).map(|s| (s.log, s.from + s.ops.len() as u64)).collect()
            }
            Message::Versions { versions, .. } => versions
                .iter()
                .flat_map(|of| of.lengths.iter().filter(|(actor, _)| *actor == me).map(|(_, length)| (of.log, *length)))
                .collect(),
            Message::Heartbeat(_)
            | Message::Capability(_)
            | Message::Digest(_)
            | Message::LogDigests(_)
            | Message::Retired(_) => return,
        };
        for (log, length) in told {
            let durable = self.machines[i].disk.length(log, me);
            if length > durable {
                self.fail(
                    "nothing is announced before it is durable",
                    format!("machine {i} tells {length} of its ops in {log:?}, its disk has {durable}"),
                );
            }
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
        let bundle = state.and_then(|state| state.spec_of(state.unit(unit).revision())).map(|spec| spec.bundle);
        let files = bundle.and_then(|bundle| self.manifests.get(&bundle));
        let is_whole = files.is_some_and(|files| files.iter().all(|map| machine.blobs.whole.contains(&map.id())));
        let broken = [
            (circles, "no machine begins a unit over and over"),
            (machine.capability.paused, "a paused machine begins nothing"),
            (!is_whole, "a unit is begun only where its whole bundle is"),
            (machine.renders.contains_key(&(job, unit)), "a unit is rendered once at a time by a machine"),
            (machine.renders.len() >= machine.capability.slots as usize, "no more is rendered than there are slots"),
            (state.is_some_and(|state| state.canceled.is_some()), "nothing of a cancelled job is begun"),
            (state.is_some_and(JobState::is_paused), "nothing of a paused job is begun"),
        ];
        for (is_broken, invariant) in broken {
            if is_broken {
                self.fail(invariant, format!("machine {i}, {job:?} frame {unit}"));
            }
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
            self.fail("a video is finished when its frames are there", format!("machine {i}, {job:?} frame {unit}"));
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
            self.fail("while its owner is away a job is rendered, each result held twice", detail);
        }
    }

    /// What must hold everywhere, every now and then.
    pub(super) fn check(&mut self) {
        self.check_done_stays_done();
        self.check_copies();
        for i in 0..self.machines.len() {
            for (key, length) in self.machines[i].disk.lengths() {
                let most = self.checks.durable.entry(key).or_default();
                *most = length.max(*most);
            }
        }
    }

    fn check_done_stays_done(&mut self) {
        let mut broken = None;
        for (i, machine) in self.machines.iter().enumerate() {
            for (job, state) in machine.farm.iter().flat_map(|farm| farm.jobs()) {
                let seen = self.checks.done.entry((i, *job)).or_default();
                for (unit, epoch) in seen.iter() {
                    let now = state.unit(*unit);
                    if now.epoch == *epoch && !now.has_result() {
                        broken = Some(format!("machine {i}, {job:?} frame {unit} epoch {epoch}"));
                    }
                }
                for unit in state.all_units() {
                    let now = state.unit(unit);
                    if now.has_result() {
                        seen.insert(unit, now.epoch);
                    }
                }
            }
        }
        if let Some(detail) = broken {
            self.fail("a unit done stays done within an epoch", detail);
        }
    }

    /// Once everyone can hear everyone, a third copy does not last.
    fn check_copies(&mut self) {
        let mut copies: BTreeMap<(JobId, Unit), usize> = BTreeMap::new();
        for machine in &self.machines {
            for key in machine.renders.keys() {
                *copies.entry(*key).or_default() += 1;
            }
        }
        let quiet = self.peace && self.now > self.scenario.faults.until + Duration::from_secs(15);
        copies.retain(|_, copies| *copies > MAX_COPIES && quiet);
        self.checks.crowded.retain(|key, _| copies.contains_key(key));
        for ((job, unit), number) in copies {
            let since = *self.checks.crowded.entry((job, unit)).or_insert(self.now);
            if self.now - since > COPIES_FOR {
                self.fail("at most two copies of a unit are rendered", format!("{number} of {job:?} frame {unit}"));
            }
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
        for machine in &self.machines {
            let Some(farm) = &machine.farm else { return false };
            let all_over = farm.jobs().values().all(JobState::is_over);
            let all_here = self.submitted.iter().all(|job| farm.jobs().contains_key(job) || self.retired.contains(job));
            if !all_over || !all_here || !farm.hands().is_empty() {
                return false;
            }
            digests.insert(farm.ledger().digest());
        }
        digests.len() == 1 && self.machines.iter().all(|machine| machine.renders.is_empty())
    }

    /// The state of what never ended, for the report of a violation.
    pub(super) fn what_is_left(&self) -> String {
        let mut text = String::new();
        for (i, machine) in self.machines.iter().enumerate() {
            let Some(farm) = &machine.farm else {
                text += &format!("\n  machine {i} is down");
                continue;
            };
            text += &format!("\n  machine {i} {} digest {:02x?}", machine.node.short(), &farm.ledger().digest()[..3]);
            text += &format!(", neighbours {}, hands {:?}", farm.roster().neighbours().count(), farm.hands());
            text += &format!(", renders {:?}", machine.renders.keys().collect::<Vec<_>>());
            for (id, job) in farm.jobs().iter().filter(|(_, job)| !job.is_over()) {
                let units: Vec<String> = job
                    .unfinished()
                    .iter()
                    .map(|unit| {
                        let state = job.unit(*unit);
                        let failures = state.current_failures().count();
                        format!("{unit}: epoch {} failures {failures} claims {:?}", state.epoch, state.claims)
                    })
                    .collect();
                let paused = job.is_paused();
                let collector = farm.collectors().get(id).map(|c| {
                    format!("pending {:?} delivering {:?} finished {:?}", c.pending, c.delivering, c.finished)
                });
                let results: Vec<String> = farm
                    .collectors()
                    .get(id)
                    .iter()
                    .flat_map(|collector| &collector.pending)
                    .flat_map(|unit| {
                        job.unit(*unit).current_results().map(move |(actor, result)| (unit, actor, result))
                    })
                    .flat_map(|(unit, actor, result)| {
                        result.outputs.iter().map(move |output| (unit, actor, output.blob))
                    })
                    .map(|(unit, actor, blob)| {
                        let holders = job.holders(blob);
                        format!(
                            "{unit} by {actor:?}: {blob:?} held by {holders:?}, wanted {:?}",
                            farm.wanted.get(&blob)
                        )
                    })
                    .collect();
                text += &format!("\n    pending {results:?}\n    {:?}", farm.transfer);
                let ready = job.spec.as_ref().map(|spec| farm.has_bundle(spec.bundle));
                text += &format!(
                    "\n    {id:?} owner {:?} paused {paused} bundle {ready:?} unfinished {units:?} collector {collector:?}",
                    job.owner().map(|owner| owner.short())
                );
            }
        }
        text
    }

    /// What must hold once everything has come to its end.
    pub(super) fn check_end(&mut self) {
        self.check();
        self.check_nothing_is_lost();
        self.check_retired_are_gone();
        self.check_all_agree();
        self.check_fold_is_a_function();
        self.check_owners_have_all();
    }

    fn check_nothing_is_lost(&mut self) {
        let mut lost = None;
        for (i, machine) in self.machines.iter().enumerate() {
            let Some(farm) = &machine.farm else { continue };
            for ((log, actor), length) in &self.checks.durable {
                if self.retired.contains(log) {
                    continue;
                }
                let have = farm.ledger().versions(*log).lengths.iter().find(|(of, _)| of == actor).map_or(0, |v| v.1);
                if have < *length {
                    lost = Some(format!("machine {i} knows {have} of {length} ops of {actor:?} in {log:?}"));
                }
            }
        }
        if let Some(detail) = lost {
            self.fail("nothing durable is lost", detail);
        }
    }

    /// Nobody has a job that anybody retired, however long it was away; nor does any disk that is told so.
    fn check_retired_are_gone(&mut self) {
        let mut broken = None;
        for (i, machine) in self.machines.iter().enumerate() {
            let Some(farm) = &machine.farm else { continue };
            let job = self.retired.iter().find(|job| farm.jobs().contains_key(job) || farm.ledger().knows(**job));
            if let Some(job) = job.copied().or(machine.disk.undead()) {
                broken = Some(format!("machine {i}, {job:?}"));
            }
        }
        if let Some(detail) = broken {
            self.fail("a retired job is gone everywhere and for good", detail);
        }
    }

    fn check_all_agree(&mut self) {
        let mut views = self.machines.iter().filter_map(|machine| machine.farm.as_ref()).map(|farm| farm.jobs());
        let Some(first) = views.next() else { return };
        if !views.all(|view| view == first) {
            self.fail("equal ledgers mean equal jobs", "the same ops were folded to different states".into());
        }
    }

    /// Folding each actor's ops in order, but the actors in any order, gives what the farm has.
    fn check_fold_is_a_function(&mut self) {
        let Some(farm) = self.machines.first().and_then(|machine| machine.farm.as_ref()) else { return };
        let mut broken = None;
        for (id, job) in farm.jobs() {
            let mut by_actor: BTreeMap<ActorId, Vec<(u64, Op)>> = BTreeMap::new();
            for (actor, seq, op) in farm.ledger().ops(*id) {
                by_actor.entry(actor).or_default().push((seq, op));
            }
            let mut actors: Vec<ActorId> = by_actor.keys().copied().collect();
            actors.shuffle(&mut self.rng);
            let mut state = JobState::new(*id);
            for actor in actors {
                for (seq, op) in by_actor.remove(&actor).unwrap_or_default() {
                    state.apply(actor, seq, op);
                }
            }
            if state != *job {
                broken = Some(format!("{id:?}"));
            }
        }
        if let Some(detail) = broken {
            self.fail("the fold is a function of the set of ops", detail);
        }
    }

    fn check_owners_have_all(&mut self) {
        let mut missing = None;
        let Some(farm) = self.machines.first().and_then(|machine| machine.farm.as_ref()) else { return };
        for (id, job) in farm.jobs().iter().filter(|(_, job)| job.canceled.is_none()) {
            let Some(owner) = job.owner().and_then(|owner| self.by_node.get(&owner)) else { continue };
            for unit in job.all_units().filter(|unit| job.unit(*unit).has_result()) {
                let state = job.unit(unit);
                let folder = self.machines[*owner].folder.get(&(*id, unit));
                let is_there = folder.is_some_and(|(epoch, blobs)| {
                    *epoch == state.epoch
                        && state.current_results().any(|(_, result)| result.outputs.iter().map(|o| &o.blob).eq(blobs))
                });
                if !is_there {
                    missing = Some(format!("{id:?} frame {unit}: {folder:?}"));
                }
            }
        }
        if let Some(detail) = missing {
            self.fail("every owner has every result", detail);
        }
    }
}
