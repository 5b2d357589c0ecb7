//! Single stories of one to three farms in one thread: what is sent arrives at once, disks answer at once, a render ends
//! when the test says so. The simulator is for many farms and bad luck.

mod rules;

use super::ability::Abilities;
use super::blob::BlobMap;
use super::collect::VideoState;
use super::config::{GONE_AFTER, KEEP, KEEP_REVIEW, REPLICATE_EVERY, SUSPECT_AFTER, UNITS_LOOKED_AT, WINDOW_PER_SLOT};
use super::event::{Effect, Input, JobCommand, Now, Rendered};
use super::frames::FrameSet;
use super::id::{BlobId, BootId, JobId, NodeId, Unit};
use super::job::{JobSpec, OutputSpec, Revision, Series};
use super::ledger::{Ledger, Row};
use super::message::{Capability, LogDigests, Message, RendererInfo, SWARM_LOG, Suffix};
use super::op::{JobSetting, OP_VERSION, Op, Output, OutputRole, UnitSet};
use super::rules::Rules;
use super::{Farm, verdict};
use crate::seal::Sealer;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

mod bundles;
mod devices;
mod kept;
mod ledger;
mod loss;
mod mesh;
mod retire;
mod reuse;
mod revisions;
mod scripts;
mod settings;
mod zip;

/// Between turns; what a test waits for is waited for in these.
const STEP: Duration = Duration::from_millis(50);
/// The bundle of every job here: an empty manifest.
const BUNDLE: BlobId = BlobId([7; 32]);

struct Machine {
    farm: Farm,
    is_up: bool,
    store: BTreeSet<BlobId>,
    /// Blobs that nothing is ever heard of here.
    unheard: BTreeSet<BlobId>,
    rendering: BTreeSet<(JobId, Unit)>,
    /// What was begun: frame, epoch, and the bundle it comes from.
    begun: Vec<(i32, u32, BlobId)>,
    delivered: Vec<i32>,
    /// What was to be put under its name: frame, file, and whether whatever lies there stays.
    puts: Vec<(i32, BlobId, bool)>,
    /// What lies under its name here.
    folder: BTreeSet<BlobId>,
    /// Its folder answers when the test says so.
    is_slow: bool,
    unanswered: Vec<Input>,
    videos: usize,
    /// ZIP files that were to be written, and whether with a video.
    zips: Vec<bool>,
    forgotten: BTreeSet<BlobId>,
    retired: Vec<JobId>,
    answers: Vec<(u64, bool)>,
    rows: Vec<Row>,
    self_tests: usize,
}

struct Trio {
    now: Duration,
    machines: BTreeMap<NodeId, Machine>,
    names: Vec<NodeId>,
    inbox: VecDeque<(NodeId, Input)>,
    /// Who is connected to whom, by place.
    mesh: fn(usize, usize) -> bool,
    /// Tells only a few, as in a large swarm: with more neighbours than the one, of which it draws the other.
    few: Option<(usize, usize)>,
    /// Of pushes, and what repair sends, every second one is lost.
    loses: bool,
    pushes: usize,
    rng: StdRng,
}

impl Trio {
    fn new(count: u8) -> Self {
        Self::meshed(count, |_, _| true)
    }

    fn meshed(count: u8, mesh: fn(usize, usize) -> bool) -> Self {
        Self::with(count, mesh, None)
    }

    fn with(count: u8, mesh: fn(usize, usize) -> bool, few: Option<(usize, usize)>) -> Self {
        let mut trio = Self {
            now: Duration::from_secs(100),
            machines: BTreeMap::new(),
            names: Vec::new(),
            inbox: VecDeque::new(),
            mesh,
            few,
            loses: false,
            pushes: 0,
            rng: StdRng::seed_from_u64(1),
        };
        (1..=count).for_each(|seed| trio.start(seed));
        trio
    }

    /// A machine that was never here: it knows nobody and has no bundle.
    fn start(&mut self, seed: u8) {
        let sealer = Sealer::from_seed(&[seed; 32]);
        let (node, boot) = (sealer.node(), BootId([seed; 8]));
        let mut farm = Farm::new(sealer, boot, [0; 32], Vec::new(), Now { mono: self.now, wall_ms: 0 });
        if let Some((full, draws)) = self.few {
            farm.tell_few(full, draws);
        }
        let machine = Machine {
            farm,
            is_up: true,
            store: BTreeSet::new(),
            unheard: BTreeSet::new(),
            rendering: BTreeSet::new(),
            begun: Vec::new(),
            delivered: Vec::new(),
            puts: Vec::new(),
            folder: BTreeSet::new(),
            is_slow: false,
            unanswered: Vec::new(),
            videos: 0,
            zips: Vec::new(),
            forgotten: BTreeSet::new(),
            retired: Vec::new(),
            answers: Vec::new(),
            rows: Vec::new(),
            self_tests: 0,
        };
        self.machines.insert(node, machine);
        self.names.push(node);
        self.give(node, Input::Capability(Box::new(capability())));
        for other in self.neighbours(node) {
            if self.machines[&other].is_up {
                let boot_of = |node: &NodeId| self.machines[node].farm.me().boot;
                let (here, there) = (boot_of(&node), boot_of(&other));
                self.inbox.push_back((node, Input::Connected { node: other, boot: there }));
                self.inbox.push_back((other, Input::Connected { node, boot: here }));
            }
        }
        self.drain();
    }

    fn neighbours(&self, node: NodeId) -> Vec<NodeId> {
        let place = |node: NodeId| self.names.iter().position(|name| *name == node).expect("a machine");
        let meets = |other: &NodeId| *other != node && (self.mesh)(place(node), place(*other));
        self.names.iter().copied().filter(meets).collect()
    }

    fn give(&mut self, node: NodeId, input: Input) {
        self.inbox.push_back((node, input));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((node, input)) = self.inbox.pop_front() {
            let is_push = matches!(&input, Input::Received { message, .. } if matches!(**message, Message::Push(_)));
            self.pushes += usize::from(is_push);
            if self.loses && self.pushes % 2 == 1 && is_push {
                continue;
            }
            let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.is_up) else { continue };
            let now = Now { mono: self.now, wall_ms: 0 };
            let effects = machine.farm.handle(now, input, &mut self.rng);
            for effect in effects {
                Self::perform(node, machine, effect, &mut self.inbox);
            }
        }
    }

    fn perform(node: NodeId, machine: &mut Machine, effect: Effect, inbox: &mut VecDeque<(NodeId, Input)>) {
        let mut answer = |input| inbox.push_back((node, input));
        match effect {
            Effect::Persist { token, rows } => {
                machine.rows.extend(rows);
                token.into_iter().for_each(|token| answer(Input::Persisted(token)));
            }
            Effect::Retired { job } => machine.retired.push(job),
            Effect::Submitted { call, .. } => machine.answers.push((call, true)),
            Effect::Refused { call, .. } => machine.answers.push((call, false)),
            Effect::Send { to, message } => inbox.push_back((to, Input::Received { from: node, message })),
            Effect::OpenBlob { blob, .. } if machine.unheard.contains(&blob) => {}
            Effect::OpenBlob { blob, map } => answer(match map {
                _ if machine.store.contains(&blob) => Input::BlobComplete { blob },
                Some(_) => {
                    machine.store.insert(blob);
                    Input::BlobComplete { blob }
                }
                None => Input::BlobUnknown { blob },
            }),
            // Every map is empty, so that whoever knows one has all of the blob.
            Effect::AskMap { of, blob } => answer(Input::PeerMap { from: of, blob, map: Some(BlobMap::default()) }),
            Effect::ReadManifest { bundle } => answer(Input::Manifest { bundle, files: Some(Vec::new()) }),
            Effect::Render { job, unit, epoch, revision, .. } => {
                let spec = machine.farm.jobs()[&job].spec_of(revision).expect("a known revision");
                machine.begun.push((unit.frame, epoch, spec.bundle));
                machine.rendering.insert((job, unit));
            }
            Effect::Stop { job, unit } => drop(machine.rendering.remove(&(job, unit))),
            Effect::Deliver { job, collection, unit, epoch, outputs, is_kept } => {
                let blobs: BTreeSet<BlobId> = outputs.iter().map(|output| output.blob).collect();
                let gone: Vec<BlobId> = blobs.difference(&machine.store).copied().collect();
                machine.puts.extend(outputs.iter().map(|output| (unit.frame, output.blob, is_kept)));
                machine.unanswered.push(match gone.is_empty() || blobs.is_subset(&machine.folder) {
                    true => {
                        machine.delivered.push(unit.frame);
                        machine.folder.extend(blobs);
                        Input::Delivered { job, collection, unit, epoch }
                    }
                    false => Input::Undeliverable { job, collection, unit, gone },
                });
            }
            Effect::FinishVideo { job, collection, .. } => {
                machine.videos += 1;
                machine.unanswered.push(Input::VideoFinished { job, collection, outcome: Ok(()) });
            }
            Effect::WriteZip { job, collection, video } => {
                machine.zips.push(video);
                machine.unanswered.push(Input::ZipWritten { job, collection });
            }
            Effect::SelfTest => machine.self_tests += 1,
            Effect::Forget { blobs } => machine.forgotten.extend(blobs),
            _ => {}
        }
        if !machine.is_slow {
            inbox.extend(machine.unanswered.drain(..).map(|input| (node, input)));
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            for node in self.names.clone() {
                self.give(node, Input::Tick);
            }
        }
    }

    fn slots(&mut self, at: usize, slots: u32) {
        let node = self.names[at];
        self.give(node, Input::Capability(Box::new(Capability { slots, ..capability() })));
        self.wait(STEP);
    }

    fn submit(&mut self, at: usize, frames: i32) -> JobId {
        self.submit_spec(at, spec(frames))
    }

    fn submit_spec(&mut self, at: usize, spec: JobSpec) -> JobId {
        let node = self.names[at];
        self.at(at).store.insert(spec.bundle);
        let before: BTreeSet<JobId> = self.at(at).farm.jobs().keys().copied().collect();
        self.give(node, Input::Submit { call: 1, spec: Box::new(spec), kept: Vec::new() });
        self.wait(STEP);
        *self.machines[&node].farm.jobs().keys().find(|job| !before.contains(job)).expect("a job")
    }

    /// Ends whatever a machine renders, each after a minute as it says.
    fn render(&mut self, at: usize) {
        self.render_in(at, 60_000);
    }

    fn render_in(&mut self, at: usize, millis: u32) {
        let node = self.names[at];
        for (job, unit) in std::mem::take(&mut self.at(at).rendering) {
            let epoch = self.machines[&node].farm.jobs()[&job].unit(unit).epoch;
            let blob = BlobId([unit.frame as u8 + 100 * epoch as u8; 32]);
            self.at(at).store.insert(blob);
            let path = format!("{}.png", unit.frame);
            let outputs = vec![Output { path, blob, bytes: 1, role: OutputRole::Image }];
            let result = Rendered {
                outputs,
                millis,
                device: "CPU".into(),
                build: "b".into(),
                blank: None,
                warnings: Vec::new(),
            };
            self.give(node, Input::Rendered { job, unit, epoch, result });
        }
    }

    /// Renders everything there is to render.
    fn finish(&mut self) {
        for _ in 0..12 {
            (0..self.names.len()).for_each(|at| self.render(at));
            self.wait(Duration::from_millis(500));
        }
    }

    /// Time passes that is none of the story.
    fn leap(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += KEEP_REVIEW;
            self.wait(STEP * 20);
        }
    }

    /// A process dies and is started anew with what its disk has.
    fn restart(&mut self, at: usize, boot: u8) {
        let node = self.names[at];
        let rows = self.at(at).rows.clone();
        let sealer = Sealer::from_seed(&[at as u8 + 1; 32]);
        self.at(at).farm = Farm::new(sealer, BootId([boot; 8]), [0; 32], rows, Now { mono: self.now, wall_ms: 0 });
        self.at(at).is_up = true;
        for other in self.neighbours(node).into_iter().filter(|other| self.machines[other].is_up).collect::<Vec<_>>() {
            let boot_of = |node: &NodeId| self.machines[node].farm.me().boot;
            let (here, there) = (boot_of(&node), boot_of(&other));
            self.inbox.push_back((node, Input::Connected { node: other, boot: there }));
            self.inbox.push_back((other, Input::Connected { node, boot: here }));
        }
        self.drain();
    }

    fn knows(&self, at: usize, job: JobId) -> bool {
        self.machines[&self.names[at]].farm.jobs().contains_key(&job)
    }

    fn at(&mut self, at: usize) -> &mut Machine {
        self.machines.get_mut(&self.names[at]).expect("a machine")
    }

    /// The folder of a slow machine answers.
    fn answer(&mut self, at: usize) {
        let node = self.names[at];
        std::mem::take(&mut self.at(at).unanswered).into_iter().for_each(|input| self.give(node, input));
    }

    /// The process dies: the others' connections to it end.
    fn kill(&mut self, at: usize) {
        let dead = self.names[at];
        self.at(at).is_up = false;
        for other in self.names.clone().into_iter().filter(|other| *other != dead) {
            self.give(other, Input::Disconnected { node: dead });
        }
    }
}

/// A machine with one slot and one Blender, which renders on the CPU.
pub(super) fn capability() -> Capability {
    let renderer = RendererInfo {
        version: (4, 5, 0),
        path: "/blender".into(),
        build: "b".into(),
        abilities: Abilities::all(),
        devices: vec!["CPU".into()],
    };
    Capability { slots: 1, renderers: vec![renderer], op_version: OP_VERSION, ..Capability::default() }
}

fn spec(frames: i32) -> JobSpec {
    JobSpec::new(BUNDLE, FrameSet::range(1, frames, 1).expect("frames"), Series { major: 4, minor: 5 })
}

#[test]
fn a_machine_that_joins_late_renders_within_a_heartbeat() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 20);
    trio.wait(Duration::from_secs(3));
    trio.start(3);
    trio.wait(Duration::from_secs(2));
    let rendering = trio.at(2).rendering.clone();
    assert_eq!(rendering.len(), 1, "the third has one slot, and work for it");
    let (_, unit) = rendering.first().copied().expect("a unit");
    let elsewhere = trio.at(0).rendering.contains(&(job, unit)) || trio.at(1).rendering.contains(&(job, unit));
    assert!(!elsewhere, "and nobody else has it");
}

#[test]
fn the_units_of_a_killed_process_are_open_four_seconds_later_and_of_a_silent_one_eight() {
    for (is_killed, limit) in [(true, GONE_AFTER), (false, SUSPECT_AFTER)] {
        let mut trio = Trio::new(2);
        let job = trio.submit(0, 2);
        trio.wait(Duration::from_secs(2));
        let (_, unit) = trio.at(1).rendering.first().copied().expect("the second renders too");
        match is_killed {
            true => trio.kill(1),
            false => trio.at(1).is_up = false,
        }
        trio.wait(STEP);
        trio.render(0);
        // The last word of a silent one may be a second old.
        trio.wait(limit - Duration::from_secs(2));
        assert!(!trio.at(0).rendering.contains(&(job, unit)), "it may yet come back");
        trio.wait(Duration::from_secs(3));
        assert!(trio.at(0).rendering.contains(&(job, unit)), "killed: {is_killed}");
    }
}

#[test]
fn the_next_free_slot_takes_what_a_killed_process_had_before_anything_else() {
    let mut beyond = 0;
    for order in 0..8 {
        let mut trio = Trio::new(3);
        // Another name, another job, another order.
        let job = trio.submit_spec(0, JobSpec { name: order.to_string(), ..spec(60) });
        trio.wait(Duration::from_secs(2));
        let (_, unit) = trio.at(1).rendering.first().copied().expect("the second renders too");
        beyond += usize::from(unit.frame > 2 * WINDOW_PER_SLOT as i32 + 2);
        trio.kill(1);
        trio.wait(GONE_AFTER + Duration::from_secs(1));
        assert!(!trio.at(0).rendering.contains(&(job, unit)), "no slot is free");
        trio.render(0);
        trio.wait(STEP * 2);
        assert!(trio.at(0).rendering.contains(&(job, unit)), "whoever ranks it first");
    }
    assert!(beyond > 0, "also where two machines do not look that far ahead");
}

#[test]
fn a_job_ends_with_every_frame_delivered_and_only_then_are_second_copies_forgotten() {
    let mut trio = Trio::new(3);
    let job = trio.submit(0, 9);
    trio.finish();
    let now = trio.now;
    let submitter = trio.at(0);
    submitter.delivered.sort_unstable();
    assert_eq!(submitter.delivered, (1..=9).collect::<Vec<_>>());
    assert_eq!(submitter.videos, 1);
    let state = &submitter.farm.jobs()[&job];
    assert!(state.is_over() && state.duplicates() == 0);
    let me = submitter.farm.me().node;
    assert!(!submitter.forgotten.is_empty());
    for blob in &submitter.forgotten {
        let holders = state.holders(*blob);
        assert!(!holders.contains(&me) && !holders.is_empty(), "what is forgotten is held elsewhere, and told");
    }
    assert!(verdict::eligible(state, submitter.farm.roster(), now).len() == 3);
}

#[test]
fn a_second_result_of_a_delivered_frame_does_not_unend_its_collection() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 2);
    trio.wait(Duration::from_secs(1));
    let late = trio.at(1).rendering.clone();
    let (_, unit) = late.first().copied().expect("the second renders");
    // Cut off, the first renders the second's unit too.
    let (first, second) = (trio.names[0], trio.names[1]);
    trio.at(1).is_up = false;
    trio.give(first, Input::Disconnected { node: second });
    trio.render(0);
    trio.wait(Duration::from_secs(6));
    trio.render(0);
    trio.wait(Duration::from_secs(1));
    assert!(trio.at(0).farm.collectors()[&job].ended);
    // The second ends its unit before it hears of anything.
    trio.at(1).is_up = true;
    trio.give(second, Input::Disconnected { node: first });
    trio.at(1).rendering = late;
    trio.render(1);
    for (at, other) in [(0, second), (1, first)] {
        let boot = trio.machines[&other].farm.me().boot;
        let here = trio.names[at];
        trio.give(here, Input::Connected { node: other, boot });
    }
    trio.wait(Duration::from_secs(5));
    let submitter = trio.at(0);
    assert_eq!(submitter.farm.jobs()[&job].unit(unit).current_results().count(), 2);
    assert!(submitter.farm.collectors()[&job].ended);
    assert_eq!(submitter.videos, 1);
}

#[test]
fn what_was_delivered_to_one_folder_does_not_count_as_delivered_to_another() {
    let mut trio = Trio::new(1);
    trio.at(0).is_slow = true;
    let job = trio.submit(0, 3);
    trio.finish();
    let node = trio.names[0];
    let early = std::mem::take(&mut trio.at(0).unanswered);
    assert_eq!(early.len(), 3);
    let output = OutputSpec { directory: "/other".into(), ..spec(3).output };
    trio.give(node, Input::Command { job, command: JobCommand::Collect(output) });
    trio.wait(STEP);
    early.into_iter().for_each(|input| trio.give(node, input));
    let collector = &trio.machines[&node].farm.collectors()[&job];
    assert!(collector.delivered.is_empty() && collector.delivering.len() == 3 && !collector.ended);
    trio.answer(0);
    trio.answer(0);
    let submitter = trio.at(0);
    assert!(submitter.farm.collectors()[&job].ended && submitter.videos == 1);
}

#[test]
fn every_part_of_a_large_job_is_looked_through_in_turn_for_results_that_need_a_second_holder() {
    let mut trio = Trio::new(3);
    (0..3).for_each(|at| trio.slots(at, 0));
    let part = UNITS_LOOKED_AT as i32;
    let job = trio.submit(0, 3 * part);
    trio.wait(Duration::from_secs(1));
    trio.kill(0);
    trio.wait(SUSPECT_AFTER);
    let frames = [1, part + 1, 2 * part + 1];
    trio.at(1).rendering = frames.map(|frame| (job, Unit::whole(frame))).into();
    trio.render(1);
    trio.wait(3 * REPLICATE_EVERY + 4 * STEP);
    let state = &trio.at(1).farm.jobs()[&job];
    let holders = frames.map(|frame| state.holders(BlobId([frame as u8; 32])).len());
    assert_eq!(holders, [2, 2, 2]);
}

#[test]
fn a_cancel_ends_a_video_that_is_being_finished() {
    let mut trio = Trio::new(1);
    trio.at(0).is_slow = true;
    let job = trio.submit(0, 2);
    trio.finish();
    trio.answer(0);
    let node = trio.names[0];
    assert_eq!((trio.at(0).videos, trio.at(0).unanswered.len()), (1, 1), "the video waits");
    trio.give(node, Input::Command { job, command: JobCommand::Cancel("user".into()) });
    trio.wait(STEP * 10);
    assert_eq!(trio.at(0).videos, 2, "and is told once that none is wanted");
    let collected = |trio: &Trio| trio.machines[&node].rows.len();
    let video = trio.at(0).unanswered.remove(0);
    trio.answer(0);
    let ended = collected(&trio);
    trio.give(node, video);
    trio.wait(STEP * 10);
    let collector = &trio.machines[&node].farm.collectors()[&job];
    assert!(collector.ended && collector.video == VideoState::None);
    assert_eq!((trio.at(0).videos, collected(&trio)), (2, ended), "what the video says after that changes nothing");
}
