//! Frames that the swarm has already: a result of one job stands for a unit of another that would come out the same.
//!
//! Who holds such a result, and would render the unit with the same build on the same backend, announces it as its own
//! `Done`, behind a word that says where it comes from. So a `Done` means what it always does: its writer has the files,
//! durably. It knows that since it started: it wrote them, or looked whether they are in its store. Nothing is fetched for it
//! and no slot is wanted; a machine that is busy or paused announces as well. Others leave the unit to that machine for a
//! moment (`LEFT_FOR`). Of a large job a part is looked at at a time, and no unit is begun before the part it is in was.
//!
//! What makes two units the same (`is_same`): frame and part, the bundle, all that is set on the scene, format and size,
//! scripts, the build of the renderer and its backend. Whatever a render takes from outside of these would have to become
//! part of them. Colours are: a configuration that the job brings is in the bundle, whose id covers it, and of any other job
//! the text of the build has a hash of the renderer's own.
//!
//! Never taken over, and never taken from:
//! - a unit above epoch 0, and any result of it: somebody wanted it anew, whether for its looks or because its files were
//!   lost. One job in which it was is enough, since other results of it may be as wrong.
//! - a blank image: it may be a mishap, which a second render shows. Warnings are no reason; they come along.
//! - a frame that brings the video's sound, where other frames are to be heard than then;
//! - a frame that was there before its job (`kept`): what it shows is its owner's to know, and its build nobody's;
//! - a frame that was rendered on another GPU than the job's rules ask for, or on a machine without its tags, or where that
//!   is not known: they are about who renders, so that who announces need not be such a machine. Nor does it need the memory.

use super::Farm;
use super::event::Now;
use super::fit::{renderer, suits};
use super::id::{ActorId, BlobId, JobId, NodeId, Unit};
use super::job::{Colours, Device, JobSpec, RenderSettings};
use super::message::RendererInfo;
use super::op::{Op, OutputRole, Reuse};
use super::planted::{Bug, is_planted};
use super::rendezvous::strength;
use super::roster::Member;
use super::rules::{Glob, Rules};
use super::state::JobState;
use super::unit::{Outcome, Remark};
use super::why::hold;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A unit is left to the machine that has its result for so long from the first look at its part of the job: it hears of the
/// job and writes all it has down in that time (guess; a disk that is slow now and then takes most of it).
const LEFT_FOR: Duration = Duration::from_secs(5);
/// Between looks for what can be taken over, each at [`UNITS_LOOKED_AT`](super::config::UNITS_LOOKED_AT) units of a job;
/// a new job is looked at at once (guess).
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The ops a machine must understand to be expected to announce a result: [`super::op::OP_VERSION`] as it was then.
const REUSE_SINCE: u16 = 3;
/// What Cycles computes on, as results name it first. Any other word is the engine's, and tells nothing of the machine.
const BACKENDS: [&str; 6] = ["CPU", "CUDA", "OPTIX", "HIP", "ONEAPI", "METAL"];
/// What results say behind the name of an engine that drew without a GPU.
const IN_SOFTWARE: &str = " in software on ";

/// Units that nobody is to begin, since their results are there.
#[derive(Debug, Default)]
pub struct Promises {
    promised: BTreeMap<(JobId, Unit), Promise>,
    /// Jobs that take results over, and may begin.
    open: BTreeMap<JobId, Open>,
    /// Units that got a result in some job since the last look.
    fresh: BTreeSet<Unit>,
    look_at: Duration,
}

/// A job that takes results over.
#[derive(Clone, Debug)]
struct Open {
    /// Since when it may begin.
    since: Duration,
    /// How often it was looked at.
    looks: u64,
    /// The last unit of each part that was looked at, and when it first was.
    parts: Vec<(Unit, Duration)>,
    /// There is no part left that was not, or nothing to look for.
    is_through: bool,
}

impl Open {
    /// Until when a unit is left to others.
    fn until(&self, unit: Unit) -> Duration {
        let at = self.parts.partition_point(|(last, _)| *last < unit);
        self.parts.get(at).map_or(self.since, |(_, since)| *since) + LEFT_FOR
    }

    /// Whether a unit is in a part that was not looked at yet.
    fn is_ahead(&self, unit: Unit) -> bool {
        !self.is_through && self.parts.last().is_none_or(|(last, _)| *last < unit)
    }
}

#[derive(Debug)]
enum Promise {
    /// Announced here, with these files, and not durable yet.
    Own(Vec<BlobId>),
    /// Left to another machine until then.
    Other(Duration),
    /// It cannot be announced here: rendered like any other.
    Unsaid,
}

impl Promises {
    /// Whether a unit is not to be begun at the moment.
    pub fn covers(&self, job: JobId, unit: Unit, now: Duration) -> bool {
        match self.promised.get(&(job, unit)) {
            Some(Promise::Own(_)) => true,
            Some(Promise::Other(until)) => now < *until,
            Some(Promise::Unsaid) => false,
            None => self.is_ahead(job, unit),
        }
    }

    /// Whether a unit, and so every later one, is in a part of its job that was not looked at yet.
    pub fn is_ahead(&self, job: JobId, unit: Unit) -> bool {
        self.open.get(&job).is_some_and(|open| open.is_ahead(unit))
    }

    /// Files of announced results that no job's state names yet.
    pub(super) fn blobs(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.promised
            .values()
            .flat_map(|promise| match promise {
                Promise::Own(blobs) => blobs.as_slice(),
                Promise::Other(_) | Promise::Unsaid => &[],
            })
            .copied()
    }

    /// Whether nothing of a job is to be begun before it was looked at what it can take over.
    pub fn come_first(&self, job: &JobState) -> bool {
        let wants = job.spec.as_ref().is_some_and(|spec| spec.reuse.is_some());
        wants && !job.unfinished().is_empty() && !self.open.contains_key(&job.id)
    }

    /// A unit of some job has a result.
    pub(super) fn came(&mut self, unit: Unit) {
        self.fresh.insert(unit);
    }

    /// Something came that may change a lot: all is looked at again at once.
    pub(super) fn look_again(&mut self) {
        self.look_at = Duration::ZERO;
    }

    /// A unit has its own word in the ledger now.
    pub(super) fn kept(&mut self, job: JobId, unit: Unit) {
        self.promised.remove(&(job, unit));
    }

    /// A job is forgotten.
    pub(super) fn forget(&mut self, job: JobId) {
        self.promised.retain(|(of, _), _| *of != job);
        self.open.remove(&job);
    }

    /// Which part of a job to look at, and until when units are left to others; `None` while it may not begin. The first
    /// look is at the whole part, later ones may be at what is fresh alone.
    fn looks_at(&mut self, job: &JobState, is_whole: bool, may_begin: bool, now: Duration) -> Option<(u64, Open)> {
        if !may_begin {
            self.open.remove(&job.id);
            return None;
        }
        if !is_whole && !self.open.contains_key(&job.id) {
            return None;
        }
        let new = || Open { since: now, looks: 0, parts: Vec::new(), is_through: false };
        let open = self.open.entry(job.id).or_insert_with(new);
        let part = open.looks;
        if is_whole {
            open.looks += 1;
            match job.some_units(part).last().filter(|last| open.is_ahead(*last)) {
                Some(last) => open.parts.push((last, now)),
                None => open.is_through = true,
            }
        }
        Some((part, open.clone()))
    }

    /// There is nothing that could be taken over by a job.
    fn finds_nothing(&mut self, job: JobId) {
        self.open.entry(job).and_modify(|open| open.is_through = true);
    }
}

/// A result that can stand for a unit.
#[derive(Clone, Copy)]
struct Found<'a> {
    /// The job that it was rendered for: not always the one that has it.
    from: JobId,
    /// The job that has it.
    of: &'a JobSpec,
    actor: ActorId,
    outcome: &'a Outcome,
    remark: Option<&'a Remark>,
    /// Whether this start knows that the files are in the own store.
    is_here: bool,
}

/// Whether units of two jobs come out the same, frame by frame, by the same renderer on the same backend.
fn is_same(one: &JobSpec, other: &JobSpec) -> bool {
    // The device that is asked for shows in the backend; whether there is sound is asked of the one frame that brings it.
    let pixels = |spec: &JobSpec| {
        let settings = RenderSettings { device: Device::default(), silent: false, ..spec.settings.clone() };
        (spec.bundle, settings, spec.series, spec.format, spec.size, spec.views.clone())
    };
    pixels(one) == pixels(other)
}

/// Whether a result has the sound that `unit` is to bring along in `to`, or can be had without.
fn sound_fits(found: &Found, to: &JobSpec, unit: Unit) -> bool {
    let (brought, wanted) = (found.of.sound_with(unit), to.sound_with(unit));
    // Whatever is wrong with the sound is told as a warning of this frame.
    let is_plain = found.remark.is_none_or(|remark| remark.warnings.is_empty());
    let has_sound = found.outcome.outputs.iter().any(|output| output.role == OutputRole::Sound);
    match (brought, wanted) {
        // It may have failed for a reason that is over.
        (brought, wanted) if brought == wanted => wanted.is_none() || has_sound || is_plain,
        (Some(_), None) => is_plain,
        // Mixed without a word and nothing came of it: nothing is to be heard in the scene.
        (Some(_), Some(_)) => is_plain && !has_sound,
        (None, _) => false,
    }
}

/// The backend that a renderer computes on for a job.
fn backend(renderer: &RendererInfo, wanted: Device) -> &str {
    wanted.of(renderer.backends()).unwrap_or("CPU")
}

/// Whether a renderer of `node` is the one that a result of another machine, or its own, came from, or its like.
fn is_alike(renderer: &RendererInfo, node: NodeId, found: &Found, spec: &JobSpec) -> bool {
    let own = found.actor.node == node;
    let used = found.outcome.device.split(' ').next().unwrap_or_default();
    let is_backend = BACKENDS.contains(&used);
    let wants_gpu = spec.settings.device == Device::Gpu;
    *found.outcome.build == *renderer.rendered_text(spec.reuse == Some(Colours::Job))
        && (!is_backend || used == backend(renderer, spec.settings.device))
        && !(wants_gpu && found.outcome.device.contains(IN_SOFTWARE))
        // Distributions build without a commit, and engines other than Cycles draw with whatever the machine has: of such a
        // result only its own machine knows that it would come out the same.
        && (own || (renderer.has_commit() && is_backend))
}

/// What a unit is compared with: jobs whose frames come out the same, and machines that can say so.
struct Alike<'a> {
    jobs: Vec<(&'a JobState, &'a JobSpec)>,
    /// Those alive, with the renderer each would take.
    machines: BTreeMap<NodeId, &'a RendererInfo>,
}

impl Farm {
    /// Announces what is here and stands for units of other jobs, and leaves to other machines what they will announce.
    pub(super) fn reuse(&mut self, now: Now) {
        let is_off = self.is_leaving || self.fenced_until.is_some_and(|until| now.mono < until);
        let is_whole = now.mono >= self.promises.look_at;
        if is_off || (!is_whole && self.promises.fresh.is_empty()) {
            return;
        }
        let mut promises = std::mem::take(&mut self.promises);
        let fresh = std::mem::take(&mut promises.fresh);
        if is_whole {
            promises.look_at = now.mono + LOOK_EVERY;
        }
        promises.promised.retain(|_, promise| match promise {
            Promise::Own(_) | Promise::Unsaid => true,
            Promise::Other(until) => now.mono < *until,
        });
        let mut own: Vec<(JobId, Unit, Vec<Op>)> = Vec::new();
        for job in self.jobs.values() {
            let wants = |spec: &&Arc<JobSpec>| spec.reuse.is_some() && !job.unfinished().is_empty();
            let Some(spec) = job.spec.as_ref().filter(wants) else {
                continue;
            };
            let may_begin = hold(job, &self.jobs, &self.roster, self.me.node, now.mono).is_ok();
            let Some((part, open)) = promises.looks_at(job, is_whole, may_begin, now.mono) else { continue };
            let Some(alike) = self.alike(job, spec, now.mono) else {
                promises.finds_nothing(job.id);
                continue;
            };
            let all = job.some_units(part).filter(|_| is_whole);
            let units = all.chain(fresh.iter().copied().filter(|_| !is_whole));
            for unit in units.filter(|unit| job.unfinished().contains(unit)) {
                let key = (job.id, unit);
                let is_settled = matches!(promises.promised.get(&key), Some(Promise::Own(_) | Promise::Unsaid));
                if is_settled || self.hands.contains_key(&key) || job.unit(unit).version() != (0, 0) {
                    continue;
                }
                let (found, until) = (self.found(job, spec, unit, &alike), open.until(unit));
                let rank = |node: NodeId| (job.owner() == Some(node), strength(node, 1, job.id, unit, 0), node);
                let Some((best, _)) = found.iter().max_by_key(|(node, _)| rank(*node)) else { continue };
                // An own one that is not looked for yet is left to this machine itself for as long.
                match found.iter().find(|(node, found)| *node == self.me.node && found.is_here) {
                    // Later the best one does not come to it, or sees it otherwise: whoever can, does.
                    Some((_, found)) if *best == self.me.node || now.mono >= until => {
                        own.push((job.id, unit, words(spec, unit, found)));
                    }
                    _ => drop(promises.promised.insert(key, Promise::Other(until))),
                }
            }
        }
        self.promises = promises;
        for (job, unit, ops) in own {
            let promise = match self.say_all(job, &ops) {
                true => Promise::Own(ops.iter().flat_map(super::loss::blobs_of).collect()),
                false => Promise::Unsaid,
            };
            self.promises.promised.insert((job, unit), promise);
        }
    }

    /// What units of `job` are compared with; `None` where nothing comes out the same.
    fn alike<'a>(&'a self, job: &JobState, spec: &JobSpec, now: Duration) -> Option<Alike<'a>> {
        let others = self.jobs.values().filter(|other| other.id != job.id);
        let known = others.filter_map(|other| Some((other, &**other.spec.as_ref()?)));
        // The bundle first: it alone tells nearly all jobs apart.
        let jobs: Vec<_> = known.filter(|(_, other)| other.bundle == spec.bundle && is_same(other, spec)).collect();
        if jobs.is_empty() {
            return None;
        }
        let machine = |(node, member): (NodeId, &'a Member)| {
            let capability = member.capability.as_ref().filter(|capability| capability.op_version >= REUSE_SINCE)?;
            suits(&self.roster, node, spec, &Rules::default(), job.min_version).ok()?;
            Some((node, renderer(capability, spec)?))
        };
        Some(Alike { jobs, machines: self.roster.alive(now).filter_map(machine).collect() })
    }

    /// Who can announce a result for a unit, and which.
    fn found<'a>(&self, job: &JobState, spec: &JobSpec, unit: Unit, alike: &Alike<'a>) -> Vec<(NodeId, Found<'a>)> {
        let was_wanted_anew = |(other, _): &(&JobState, &JobSpec)| other.unit(unit).version() != (0, 0);
        if alike.jobs.iter().any(was_wanted_anew) && !is_planted(Bug::RequeuedReused) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (other, of) in &alike.jobs {
            for (actor, outcome, from) in other.results(unit) {
                let from = from.unwrap_or(other.id);
                if !self.is_asked_for(job.rules(), unit, outcome, from) {
                    continue;
                }
                // What an earlier start had is no proof: it may have died before it could say what it lost.
                let is_here = outcome.blobs().all(|blob| self.local.contains(&blob));
                let result = Found { from, of, actor, outcome, remark: other.remark(unit, actor), is_here };
                let is_blank = result.remark.is_some_and(|remark| remark.blank.is_some());
                if is_blank || !sound_fits(&result, spec, unit) {
                    continue;
                }
                let holds_all = |node: NodeId| {
                    let is_gone = |blob: &BlobId| node == self.me.node && self.gone.contains(blob);
                    outcome.blobs().all(|blob| other.holding(blob).any(|one| one == node) && !is_gone(&blob))
                };
                let holders = outcome.blobs().next().into_iter().flat_map(|image| other.holding(image));
                let can = |node: &NodeId| {
                    let renderer = alike.machines.get(node);
                    renderer.is_some_and(|renderer| is_alike(renderer, *node, &result, spec))
                };
                found.extend(holders.filter(|node| can(node) && holds_all(*node)).map(|node| (node, result)));
            }
        }
        found
    }

    /// Whether a result, which was rendered for `from`, comes from such a card and such a machine as rules ask for.
    fn is_asked_for(&self, rules: &Rules, unit: Unit, outcome: &Outcome, from: JobId) -> bool {
        let is_tagged = || {
            let results = self.jobs.get(&from).into_iter().flat_map(|first| first.results(unit));
            let mut rendered = results.filter(|(_, one, taken)| taken.is_none() && one.blobs().eq(outcome.blobs()));
            let by = rendered.next().and_then(|(actor, ..)| self.roster.member(actor.node)?.capability.as_ref());
            by.is_some_and(|by| rules.tags.iter().all(|tag| by.tags.contains(tag)))
        };
        rules.gpu_name.as_ref().is_none_or(|glob| is_on(&outcome.device, glob))
            && (rules.tags.is_empty() || is_tagged())
    }
}

/// Whether a result tells of nothing but GPUs of this name.
fn is_on(device: &str, glob: &Glob) -> bool {
    let told = device.split_once(' ').filter(|(backend, _)| *backend != "CPU" && BACKENDS.contains(backend));
    told.is_some_and(|(_, names)| names.split(" + ").all(|name| glob.matches(name)))
}

/// What is said of a result that is taken over: where from, the result under the names it has in its new job, and what was
/// remarkable about it.
fn words(spec: &JobSpec, unit: Unit, found: &Found) -> Vec<Op> {
    let sounds = spec.sound_with(unit).is_some();
    let renamed = spec.renamed(found.of, unit.frame, &found.outcome.outputs);
    let outputs = renamed.filter(|output| sounds || output.role != OutputRole::Sound).collect();
    let Outcome { millis, device, build, .. } = found.outcome;
    let (device, build) = (device.to_string(), build.to_string());
    let taken = Op::Reuse { word: Reuse::Taken { epoch: 0, unit, from: found.from } };
    let done = Op::Done { epoch: 0, revision: 0, unit, outputs, millis: *millis, device, build };
    let remark = found.remark.map(|Remark { blank, warnings }| Op::Remark {
        epoch: 0,
        unit,
        blank: *blank,
        warnings: warnings.clone(),
    });
    [taken, done].into_iter().chain(remark).collect()
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::super::config::UNITS_LOOKED_AT;
    use super::super::id::BootId;
    use super::*;

    #[test]
    fn no_unit_of_a_large_job_is_begun_before_the_look_at_its_part() {
        let part = UNITS_LOOKED_AT as i32;
        let units = [1, part, part + 1, 2 * part + 1].map(Unit::whole);
        let frames = super::super::frames::FrameSet::range(1, 2 * part + 5, 1).expect("frames");
        let series = "4.5".parse().expect("a series");
        let mut job = JobState::new(JobId([1; 16]));
        let spec = Box::new(JobSpec::new(BlobId([7; 32]), frames, series));
        job.apply(ActorId { node: NodeId([1; 32]), boot: BootId([1; 8]) }, 0, Op::Submit { min_version: 0, spec });
        let at = |seconds| Duration::from_secs(seconds);
        let mut promises = Promises::default();
        let mut look = |now| {
            let (part, open) = promises.looks_at(&job, true, true, at(now)).expect("it may begin");
            (part, units.map(|unit| promises.covers(job.id, unit, at(now))), open)
        };
        assert_eq!(look(10).1, [false, false, true, true]);
        let (second, covers, _) = look(12);
        assert_eq!((second, covers), (1, [false, false, false, true]));
        let (third, covers, open) = look(20);
        assert_eq!((third, covers), (2, [false; 4]));
        assert_eq!(units.map(|unit| open.until(unit)), [10, 10, 12, 20].map(|since| at(since) + LEFT_FOR));
        assert_eq!(look(90).2.until(units[3]), at(20) + LEFT_FOR, "from the first look on");
        // Where there is nothing to be looked for, nothing waits.
        promises.forget(job.id);
        promises.looks_at(&job, true, true, at(100)).expect("it may begin");
        assert!(promises.covers(job.id, units[3], at(100)));
        promises.finds_nothing(job.id);
        assert!(!promises.covers(job.id, units[3], at(100)));
    }
}
