//! Frames that another job has: which are taken over, by whom, and which never.

use super::*;
use crate::farm::job::{Colours, Device, ImageFormat};
use crate::farm::message::GpuInfo;
use crate::farm::op::{Blank, Reuse};

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// What results of [`capability`] name as their build.
const BUILD: &str = "4.5.0 b";

/// A job without a video, which takes over what there is.
pub(super) fn again(frames: i32) -> JobSpec {
    let mut spec = JobSpec { reuse: Some(Colours::Renderer), ..spec(frames) };
    spec.output.video = None;
    spec
}

/// What comes of a frame.
fn result(frame: i32) -> Rendered {
    let output = |blob, path: &str, role| Output { path: path.into(), blob: BlobId([blob; 32]), bytes: 1, role };
    let image = output(frame as u8, &format!("shot_{frame:04}.png"), OutputRole::Image);
    let aux = output(100 + frame as u8, "file-outputs/depth.exr", OutputRole::Aux);
    Rendered {
        outputs: vec![image, aux],
        millis: 60_000,
        device: "CPU".into(),
        build: BUILD.into(),
        blank: None,
        warnings: Vec::new(),
    }
}

impl Trio {
    /// Ends whatever a machine renders, as `change` has it.
    pub(super) fn ends(&mut self, at: usize, change: impl Fn(&mut Rendered)) {
        let node = self.names[at];
        for (job, unit) in std::mem::take(&mut self.at(at).rendering) {
            let mut result = result(unit.frame);
            change(&mut result);
            let epoch = self.machines[&node].farm.jobs()[&job].unit(unit).epoch;
            self.at(at).store.extend(result.outputs.iter().map(|output| output.blob));
            self.give(node, Input::Rendered { job, unit, epoch, result });
        }
    }

    /// Renders all there is, on the machine at `at` alone.
    pub(super) fn has_rendered(&mut self, at: usize, spec: JobSpec, change: impl Fn(&mut Rendered)) -> JobId {
        (0..self.names.len()).filter(|other| *other != at).for_each(|other| self.slots(other, 0));
        let job = self.submit_spec(at, spec);
        for _ in 0..12 {
            self.ends(at, &change);
            self.wait(SECOND / 2);
        }
        (0..self.names.len()).for_each(|other| self.slots(other, 1));
        assert_eq!(self.at(at).farm.jobs()[&job].unfinished().len(), 0);
        self.machines.values_mut().for_each(|machine| machine.begun.clear());
        job
    }

    /// Frames of a job that are taken over, as the machine at `at` knows.
    pub(super) fn taken(&mut self, at: usize, job: JobId) -> Vec<i32> {
        let state = &self.at(at).farm.jobs()[&job];
        state.all_units().filter(|unit| state.taken(*unit).is_some()).map(|unit| unit.frame).collect()
    }

    fn begun(&self) -> BTreeSet<i32> {
        self.machines.values().flat_map(|machine| machine.begun.iter().map(|(frame, ..)| *frame)).collect()
    }
}

/// How many of six frames that a job has another takes over.
fn taken_of(first: JobSpec, change: impl Fn(&mut Rendered), second: JobSpec) -> usize {
    let mut trio = Trio::new(1);
    trio.has_rendered(0, first, change);
    let job = trio.submit_spec(0, second);
    trio.wait(SECOND);
    trio.taken(0, job).len()
}

#[test]
fn a_job_has_at_once_what_another_has_and_renders_the_rest() {
    let mut trio = Trio::new(2);
    let first = trio.has_rendered(1, again(6), |_| {});
    let mut spec = again(10);
    spec.output.prefix = "take2_".into();
    let second = trio.submit_spec(0, spec);
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, second), [1, 2, 3, 4, 5, 6]);
    assert_eq!(trio.at(0).delivered, [1, 2, 3, 4, 5, 6], "they are under their names");
    assert!(trio.begun().iter().all(|frame| *frame > 6), "{:?}", trio.begun());
    let state = &trio.at(0).farm.jobs()[&second];
    let (_, outcome) = state.unit(Unit::whole(3)).current_results().next().expect("a result");
    let paths: Vec<&str> = outcome.outputs.iter().map(|output| &*output.path).collect();
    assert_eq!(paths, ["take2_0003.png", "file-outputs/depth.exr"]);
    assert_eq!((state.taken(Unit::whole(3)), state.taken_count()), (Some(first), 6));
    assert_eq!(state.mean_millis(None), None, "nobody took any time for them");
    for _ in 0..8 {
        (0..2).for_each(|at| trio.ends(at, |_| {}));
        trio.wait(SECOND / 2);
    }
    assert_eq!(trio.begun(), (7..=10).collect());
    let job = &trio.at(0).farm.jobs()[&second];
    assert!(job.collected.is_some() && job.duplicates() == 0);
    // Of a third it is told where they were rendered.
    let third = trio.submit_spec(0, again(8));
    trio.wait(SECOND);
    let state = &trio.at(1).farm.jobs()[&third];
    assert_eq!([1, 8].map(|frame| state.taken(Unit::whole(frame))), [Some(first), Some(second)]);
}

#[test]
fn what_another_job_renders_meanwhile_is_taken_over_too() {
    let mut trio = Trio::new(1);
    let first = trio.submit_spec(0, again(8));
    let second = trio.submit_spec(0, again(8));
    for _ in 0..20 {
        trio.ends(0, |_| {});
        trio.wait(SECOND + STEP);
    }
    let taken = trio.taken(0, first).len() + trio.taken(0, second).len();
    let begun = trio.at(0).begun.len();
    // What is begun before the other job's result is durable is rendered twice.
    assert!(taken + begun == 16 && taken >= 6, "{taken} taken over, {begun} begun");
}

#[test]
fn all_that_changes_a_picture_keeps_it_from_being_taken_over_and_nothing_else_does() {
    let same = |change: fn(&mut JobSpec)| {
        let mut spec = again(6);
        change(&mut spec);
        taken_of(again(6), |_| {}, spec)
    };
    assert_eq!(same(|_| {}), 6);
    assert_eq!(same(|spec| spec.priority = 90), 6);
    assert_eq!(same(|spec| spec.settings.device = Device::Cpu), 6);
    assert_eq!(same(|spec| spec.settings.silent = true), 6);
    assert_eq!(same(|spec| spec.rate.fps = 60), 6);
    assert_eq!(same(|spec| spec.frames = "4-9".parse().expect("frames")), 3);
    let changes: [fn(&mut JobSpec); 11] = [
        |spec| spec.reuse = None,
        |spec| spec.settings.samples = Some(7),
        |spec| spec.settings.engine = Some("CYCLES".into()),
        |spec| spec.settings.percent = Some(50),
        |spec| spec.settings.depth = Some(16),
        |spec| spec.settings.simulate_from = Some(1),
        |spec| spec.settings.overrides.camera = Some("B".into()),
        |spec| spec.settings.scripts.in_files = true,
        |spec| spec.size = (640, 360),
        |spec| spec.format = ImageFormat::Jpeg,
        |spec| spec.bundle = BlobId([8; 32]),
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        assert_eq!(same(change), 0, "change {nth}");
    }
}

#[test]
fn what_another_build_or_backend_made_is_rendered_and_a_blank_image_too_and_warnings_come_along() {
    let of = |change: fn(&mut Rendered)| taken_of(again(6), change, again(6));
    assert_eq!(of(|result| result.build = "4.5.0 c".into()), 0);
    assert_eq!(of(|result| result.build = "4.5.1 b".into()), 0);
    assert_eq!(of(|result| result.device = "OPTIX NVIDIA GeForce".into()), 0);
    assert_eq!(of(|result| result.blank = Some(Blank::Black)), 0);
    // Its own machine knows what an engine of its draws.
    assert_eq!(of(|result| result.device = "BLENDER_WORKBENCH".into()), 6);
    let mut trio = Trio::new(1);
    trio.has_rendered(0, again(2), |result| result.warnings = vec!["the image `a` is missing".into()]);
    let job = trio.submit_spec(0, again(2));
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, job).len(), 2);
    let me = trio.at(0).farm.me();
    let remark = trio.at(0).farm.jobs()[&job].remark(Unit::whole(1), me).expect("a remark");
    assert_eq!(remark.warnings, ["the image `a` is missing"]);
}

#[test]
fn a_second_holder_announces_only_what_would_come_out_the_same_there_for_certain() {
    let coloured = ("colours 01234567", "4.5.0 colours 01234567");
    let eevee = "BLENDER_EEVEE";
    for ((hash, build), device, taken) in
        [(("b", BUILD), "CPU", 2), (("b", BUILD), eevee, 0), (("Unknown", "4.5.0"), "CPU", 0), (coloured, "CPU", 0)]
    {
        let mut trio = Trio::new(2);
        (0..2).for_each(|at| trio.describe(at, |own| own.renderers[0].build = hash.into()));
        trio.describe(0, |own| own.slots = 0);
        // It has all that the other rendered, and has not put it under its names yet.
        trio.at(0).is_slow = true;
        trio.submit_spec(0, again(2));
        for _ in 0..6 {
            trio.ends(1, |result| (result.build, result.device) = (build.into(), device.into()));
            trio.wait(SECOND / 2);
        }
        trio.kill(1);
        trio.wait(SUSPECT_AFTER + SECOND);
        trio.describe(0, |own| own.slots = 1);
        let job = trio.submit_spec(0, again(2));
        trio.wait(SECOND);
        assert_eq!(trio.taken(0, job).len(), taken, "{hash} {device}");
    }
}

#[test]
fn colours_of_the_renderer_must_be_the_same_where_the_job_brings_none() {
    let of = |colours, build: &str, had: &str| {
        let mut trio = Trio::new(1);
        let spec = || JobSpec { reuse: Some(colours), ..again(4) };
        trio.has_rendered(0, spec(), |result| result.build = build.into());
        trio.describe(0, |own| own.renderers[0].build = had.into());
        let job = trio.submit_spec(0, spec());
        trio.wait(SECOND);
        trio.taken(0, job).len()
    };
    let (renderer, job) = (Colours::Renderer, Colours::Job);
    assert_eq!(of(renderer, "4.5.0 b colours 01234567", "b colours 01234567"), 4);
    assert_eq!(of(renderer, "4.5.0 b colours 01234567", "b colours 76543210"), 0);
    assert_eq!(of(renderer, "4.5.0 b", "b colours 01234567"), 0);
    assert_eq!(of(renderer, "4.5.0 colours 01234567", "colours 01234567"), 4);
    assert_eq!(of(job, "4.5.0 b", "b colours 01234567"), 4);
    assert_eq!(of(job, "4.5.0", "Unknown colours 01234567"), 4);
    assert_eq!(of(job, "4.5.0 c", "b colours 01234567"), 0);
}

#[test]
fn what_was_wanted_anew_is_never_taken_over_nor_what_came_of_that() {
    let mut trio = Trio::new(2);
    let first = trio.has_rendered(0, again(4), |_| {});
    let before = trio.submit_spec(1, again(4));
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, before).len(), 4);
    let node = trio.names[1];
    let units = UnitSet::whole(vec![2]).expect("a frame");
    trio.give(node, Input::Command { job: first, command: JobCommand::Requeue { units, by: "a".into() } });
    for _ in 0..4 {
        (0..2).for_each(|at| trio.ends(at, |_| {}));
        trio.wait(SECOND / 2);
    }
    assert!(trio.begun().contains(&2) && trio.at(0).farm.jobs()[&first].taken(Unit::whole(2)).is_none());
    let after = trio.submit_spec(1, again(4));
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, after), [1, 3, 4], "though an earlier job has it as it was");
    // One that is wanted anew of a job that took it over is rendered.
    let units = UnitSet::whole(vec![3]).expect("a frame");
    trio.give(node, Input::Command { job: after, command: JobCommand::Requeue { units, by: "a".into() } });
    for _ in 0..4 {
        (0..2).for_each(|at| trio.ends(at, |_| {}));
        trio.wait(SECOND / 2);
    }
    assert_eq!(trio.taken(0, after), [1, 4]);
    assert!(trio.begun().contains(&3));
}

#[test]
fn what_is_gone_from_disks_is_rendered_and_what_a_canceled_job_has_is_taken_over() {
    let mut trio = Trio::new(1);
    let first = trio.has_rendered(0, again(4), |_| {});
    let node = trio.names[0];
    trio.give(node, Input::Command { job: first, command: JobCommand::Cancel("a".into()) });
    trio.give(node, Input::BlobsGone { blobs: vec![BlobId([102; 32])] });
    let second = trio.submit_spec(0, again(4));
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, second), [1, 3, 4], "a file of the second frame is lacking");
}

#[test]
fn a_start_announces_what_it_looked_for_and_found_not_what_an_earlier_one_said() {
    let mut trio = Trio::new(1);
    trio.has_rendered(0, again(4), |_| {});
    trio.restart(0, 50);
    let node = trio.names[0];
    trio.give(node, Input::Capability(Box::new(Capability { paused: true, ..capability() })));
    let job = trio.submit_spec(0, again(4));
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, job).len(), 0);
    trio.slots(0, 1);
    trio.wait(SECOND);
    assert_eq!(trio.begun().len(), 0, "it is going to look");
    // While the answer is on its way somebody finds that a file is gone. Another was not found at all.
    trio.give(node, Input::BlobsGone { blobs: vec![BlobId([3; 32])] });
    let found = [1, 2, 3, 4, 101, 103, 104].map(|blob| BlobId([blob; 32]));
    trio.give(node, Input::BlobsHere { blobs: found.to_vec() });
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, job), [1, 4]);
    let here = [102, 9].map(|blob| BlobId([blob; 32]));
    trio.give(node, Input::BlobsHere { blobs: here.to_vec() });
    trio.wait(SECOND);
    assert_eq!(trio.taken(0, job), [1, 2, 4]);
    assert!(!trio.at(0).farm.blobs_in_use().contains(&here[1]), "nobody ever said to have that one");
}

#[test]
fn a_deleted_job_takes_nothing_with_it_that_another_took_over() {
    let mut trio = Trio::new(2);
    let first = trio.has_rendered(1, again(4), |_| {});
    trio.at(0).is_slow = true;
    let second = trio.submit_spec(0, again(4));
    trio.wait(SECOND);
    let node = trio.names[0];
    trio.give(node, Input::Command { job: first, command: JobCommand::Delete });
    trio.wait(SECOND);
    assert!(!trio.knows(0, first) && !trio.knows(1, first));
    let kept = trio.at(1).farm.blobs_in_use();
    assert!((1..=4u8).all(|frame| kept.contains(&BlobId([frame; 32])) && kept.contains(&BlobId([100 + frame; 32]))));
    assert!(trio.at(1).forgotten.is_disjoint(&kept));
    trio.at(0).is_slow = false;
    trio.answer(0);
    trio.wait(SECOND);
    assert_eq!(trio.at(0).delivered.len(), 4);
    assert_eq!(trio.taken(0, second).len(), 4);
    let state = &trio.at(0).farm.jobs()[&second];
    assert_eq!(state.taken(Unit::whole(1)), Some(first), "it is told from where, though that is gone");
}

#[test]
fn a_busy_or_paused_machine_announces_what_it_has_and_an_older_one_is_not_waited_for() {
    let mut trio = Trio::new(2);
    trio.has_rendered(1, again(4), |_| {});
    trio.describe(1, |own| own.paused = true);
    let job = trio.submit_spec(0, again(4));
    trio.wait(SECOND);
    assert_eq!((trio.taken(0, job).len(), trio.begun().len()), (4, 0));

    let mut trio = Trio::new(2);
    trio.has_rendered(1, again(4), |_| {});
    trio.describe(1, |own| own.op_version = 2);
    trio.at(1).is_up = false;
    trio.submit_spec(0, again(4));
    trio.wait(SECOND);
    assert_eq!(trio.at(0).begun.len(), 1);
}

#[test]
fn what_a_machine_does_not_come_to_announce_is_rendered_a_moment_later() {
    let mut trio = Trio::new(2);
    trio.has_rendered(1, again(4), |_| {});
    // It says nothing, and is not known to be gone yet.
    trio.at(1).is_up = false;
    trio.submit_spec(0, again(4));
    trio.wait(SECOND * 2);
    assert_eq!(trio.at(0).begun.len(), 0);
    trio.wait(SECOND * 4);
    assert_eq!(trio.at(0).begun.len(), 1);
}

#[test]
fn a_job_that_may_not_begin_takes_nothing_over() {
    let mut trio = Trio::new(1);
    trio.has_rendered(0, again(4), |_| {});
    let mut spec = again(4);
    spec.rules.paused = true;
    let job = trio.submit_spec(0, spec);
    trio.wait(SECOND * 8);
    assert_eq!(trio.taken(0, job).len(), 0);
    let node = trio.names[0];
    trio.give(node, Input::Command { job, command: JobCommand::Set(JobSetting::Paused(false)) });
    trio.wait(SECOND * 2);
    assert_eq!((trio.taken(0, job).len(), trio.at(0).begun.len()), (4, 0));

    // One that waits for another begins by taking over, too.
    let mut spec = again(6);
    spec.bundle = BlobId([8; 32]);
    let first = trio.submit_spec(0, spec);
    let mut spec = again(4);
    spec.rules.after = Some(first);
    let job = trio.submit_spec(0, spec);
    trio.finish();
    trio.wait(SECOND * 2);
    assert_eq!((trio.taken(0, job).len(), trio.at(0).begun.len()), (4, 6));
}

#[test]
fn the_frame_that_brings_the_sound_is_taken_over_where_the_same_is_to_be_heard_or_nothing_is() {
    let with = |frames: i32, video: bool| {
        let mut spec = again(frames);
        spec.output.video = video.then(|| "/v.mp4".into());
        spec
    };
    let of = |sounds: bool, warns: bool, first: JobSpec, second: JobSpec| {
        let mut trio = Trio::new(1);
        let sound = Output { path: "a.flac".into(), blob: BlobId([99; 32]), bytes: 1, role: OutputRole::Sound };
        trio.has_rendered(0, first, |result| {
            if result.outputs[0].blob == BlobId([1; 32]) {
                result.outputs.extend(sounds.then(|| sound.clone()));
                result.warnings.extend(warns.then(|| "the video has no sound".to_owned()));
            }
        });
        let job = trio.submit_spec(0, second);
        trio.wait(SECOND);
        let state = &trio.at(0).farm.jobs()[&job];
        let taken = state.taken(Unit::whole(1)).and_then(|_| state.unit(Unit::whole(1)).current_results().next());
        taken.map(|(_, outcome)| outcome.outputs.iter().any(|output| output.role == OutputRole::Sound))
    };
    assert_eq!(of(true, false, with(4, true), with(4, true)), Some(true));
    assert_eq!(of(true, false, with(4, true), with(6, true)), None, "more is to be heard");
    assert_eq!(of(false, false, with(4, true), with(6, true)), Some(false), "nothing is heard in this scene");
    assert_eq!(of(false, true, with(4, true), with(6, true)), None);
    assert_eq!(of(false, true, with(4, true), with(4, true)), None, "what it failed for may be over");
    assert_eq!(of(true, false, with(4, true), with(6, false)), Some(false));
    assert_eq!(of(false, false, with(4, false), with(4, true)), None, "nobody listened");
}

#[test]
fn the_word_before_a_result_counts_for_that_one_alone() {
    let actor = |i: u8| crate::farm::id::ActorId { node: NodeId([i; 32]), boot: BootId([0; 8]) };
    let (from, one, two) = (JobId([9; 16]), Unit::whole(1), Unit::whole(2));
    let mut job = crate::farm::state::JobState::new(JobId([1; 16]));
    job.apply(actor(1), 0, Op::Submit { min_version: 1, spec: Box::new(again(3)) });
    assert!(job.spec.as_ref().expect("a spec").reuse.is_none(), "by its own op alone");
    let done = |unit: Unit| {
        let Rendered { outputs, millis, device, build, .. } = result(unit.frame);
        Op::Done { epoch: 0, revision: 0, unit, outputs, millis, device, build }
    };
    let word = |unit| Op::Reuse { word: Reuse::Taken { epoch: 0, unit, from } };
    job.apply(actor(2), 0, word(one));
    job.apply(actor(1), 1, done(one));
    assert_eq!(job.taken(one), None, "another's");
    job.apply(actor(2), 1, done(two));
    assert_eq!((job.taken(two), job.speeds()[&actor(2).node]), (None, (1, 60_000)), "of another unit");
    let three = Unit::whole(3);
    job.apply(actor(2), 2, word(three));
    job.apply(actor(2), 3, done(three));
    assert_eq!((job.taken(three), job.taken_count()), (Some(from), 1));
    assert_eq!(job.speeds()[&actor(2).node], (1, 60_000));
    // A build that knows of no such word sees a job and results like any other.
    let mut older = crate::farm::state::JobState::new(JobId([1; 16]));
    older.apply(actor(1), 0, Op::Submit { min_version: 1, spec: Box::new(again(3)) });
    older.apply(actor(2), 0, Op::Unknown { kind: 19, body: vec![0] });
    older.apply(actor(2), 1, done(one));
    assert!(older.unit(one).has_result() && older.taken_count() == 0);
}

impl Trio {
    /// Two machines of which the second rendered these frames of a job of the first, which has copies of them, and not under
    /// their names yet; it is canceled. Both have a slot again.
    fn with_two_copies(frames: i32, rendered: &[i32], change: impl Fn(&mut Rendered)) -> Self {
        let mut trio = Self::new(2);
        (0..2).for_each(|at| trio.slots(at, 0));
        trio.at(0).is_slow = true;
        let job = trio.submit_spec(0, again(frames));
        trio.at(1).rendering = rendered.iter().map(|frame| (job, Unit::whole(*frame))).collect();
        trio.ends(1, change);
        trio.wait(SECOND);
        let node = trio.names[0];
        trio.give(node, Input::Command { job, command: JobCommand::Cancel("a".into()) });
        trio.wait(SECOND);
        let both = trio.names.iter().copied().collect();
        let state = &trio.at(0).farm.jobs()[&job];
        assert!(rendered.iter().all(|frame| state.holders(BlobId([*frame as u8; 32])) == both));
        (0..2).for_each(|at| trio.describe(at, |own| own.slots = 1));
        trio
    }
}

#[test]
fn every_part_of_a_large_job_is_announced_by_one_holder_alone() {
    let part = UNITS_LOOKED_AT as i32;
    let frames = [1, 6 * part + 2, 7 * part];
    let mut trio = Trio::with_two_copies(7 * part, &frames, |_| {});
    let job = trio.submit_spec(1, again(7 * part));
    trio.wait(SECOND * 9);
    assert_eq!(trio.taken(0, job), frames);
    // The first would come first by a moment, if it did not leave it to the owner.
    let state = &trio.at(0).farm.jobs()[&job];
    let by = frames.map(|frame| state.results(Unit::whole(frame)).map(|(actor, ..)| actor.node).collect::<Vec<_>>());
    assert_eq!(by, [(); 3].map(|()| vec![trio.names[1]]));
}

#[test]
fn what_cannot_be_announced_is_not_begun_to_be_announced_again_and_again() {
    let mut trio = Trio::new(1);
    trio.has_rendered(0, again(2), |_| {});
    let mut spec = again(2);
    // With the number it is longer than a path may be.
    spec.output.prefix = "x".repeat(crate::wire::MAX_PATH_BYTES - 2);
    let job = trio.submit_spec(0, spec);
    trio.wait(SECOND * 9);
    assert_eq!((trio.taken(0, job).len(), trio.begun()), (0, BTreeSet::from([1])));
    let mut ops = trio.at(0).farm.ledger().ops(job);
    assert!(!ops.any(|(_, _, op)| matches!(op, Op::Reuse { word: Reuse::Taken { .. } })));
}

#[test]
fn a_job_that_asks_for_a_gpu_takes_over_what_such_a_one_rendered_whoever_announces_it() {
    let of = |device: &str, glob: &str, announces: bool| {
        let mut trio = Trio::with_two_copies(2, &[1, 2], |result| result.device = device.into());
        trio.kill(1);
        trio.wait(SUSPECT_AFTER + SECOND);
        let card = |name: &str| GpuInfo {
            name: name.into(),
            memory_bytes: 0,
            driver: String::new(),
            usable: true,
            backend: "OPTIX".into(),
        };
        // Of itself this one would do for a job that wants its card, and for no other.
        trio.describe(0, |own| {
            own.gpus = vec![card("A4000")];
            own.renderers[0].devices = if announces { vec!["OPTIX".into(), "CPU".into()] } else { vec!["CPU".into()] };
        });
        let mut spec = again(2);
        spec.rules.gpu_name = Some(glob.parse().expect("a pattern"));
        let job = trio.submit_spec(0, spec);
        trio.wait(SECOND * 2);
        trio.taken(0, job).len()
    };
    assert_eq!(of("OPTIX A4000", "A4000", true), 2);
    assert_eq!(of("OPTIX NVIDIA A6000", "*A6000", true), 2);
    assert_eq!(of("OPTIX A6000 + A6000", "A6000", true), 2);
    assert_eq!(of("OPTIX A6000", "A4000", true), 0);
    assert_eq!(of("OPTIX A4000 + A6000", "A4000", true), 0);
    assert_eq!(of("CPU", "A4000", false), 0);
    assert_eq!(of("BLENDER_EEVEE", "A4000", true), 0, "on whatever there was");
}

#[test]
fn a_job_that_asks_for_tags_takes_over_what_a_machine_rendered_that_has_them() {
    let of = |announcer: &str, renderer: &str, is_told: bool| {
        let mut trio = Trio::with_two_copies(2, &[1, 2], |_| {});
        let tag = |name: &str| [name.to_owned()].into_iter().filter(|tag| !tag.is_empty());
        trio.describe(0, |own| own.tags = tag(announcer).collect());
        trio.describe(1, |own| own.tags = tag(renderer).collect());
        trio.wait(SECOND);
        trio.kill(1);
        trio.wait(SUSPECT_AFTER + SECOND);
        let taken = trio.submit_spec(0, again(2));
        trio.wait(SECOND);
        assert_eq!(trio.taken(0, taken).len(), 2);
        if !is_told {
            let first = *trio.at(0).farm.jobs().keys().find(|job| **job != taken).expect("a job");
            let node = trio.names[0];
            trio.give(node, Input::Command { job: first, command: JobCommand::Delete });
            trio.wait(SECOND);
        }
        let mut spec = again(2);
        spec.rules.tags = tag("calibrated").collect();
        spec.rules.min_memory_bytes = Some(u64::MAX);
        let job = trio.submit_spec(0, spec);
        trio.wait(SECOND * 2);
        trio.taken(0, job).len()
    };
    assert_eq!(of("", "calibrated", true), 2, "also through a job that took it over");
    assert_eq!(of("calibrated", "", true), 0);
    assert_eq!(of("calibrated", "calibrated", false), 0, "nobody knows any more where it was rendered");
}
