//! Frames that were there before their job: nobody renders them, everybody knows, and nothing else follows from them.

use super::*;
use crate::farm::id::ActorId;
use crate::farm::job::Colours;
use crate::farm::kept::{KEPT, KeptFrame};
use crate::farm::message::LogId;
use crate::farm::state::JobState;
use crate::wire;

/// A frame with an image of its own.
fn kept(frame: i32) -> KeptFrame {
    let (path, blob) = (format!("shot_{frame:04}.png"), BlobId([200 + frame as u8; 32]));
    KeptFrame { unit: Unit::whole(frame), outputs: vec![Output { path, blob, bytes: 1, role: OutputRole::Image }] }
}

impl Trio {
    /// Submits at the first machine, where these frames are.
    fn submit_with(&mut self, spec: JobSpec, frames: &[i32]) -> JobId {
        let node = self.names[0];
        let before: BTreeSet<JobId> = self.at(0).farm.jobs().keys().copied().collect();
        let kept: Vec<KeptFrame> = frames.iter().map(|frame| kept(*frame)).collect();
        let blobs = kept.iter().flat_map(|frame| &frame.outputs).map(|output| output.blob);
        self.at(0).store.extend(blobs.chain([spec.bundle]));
        self.give(node, Input::Submit { call: 1, spec: Box::new(spec), kept });
        self.wait(STEP);
        *self.machines[&node].farm.jobs().keys().find(|job| !before.contains(job)).expect("a job")
    }

    fn frames_begun(&self) -> Vec<i32> {
        let mut begun: Vec<i32> =
            self.machines.values().flat_map(|machine| machine.begun.iter().map(|(frame, ..)| *frame)).collect();
        begun.sort_unstable();
        begun
    }
}

#[test]
fn frames_that_are_there_are_delivered_and_the_others_rendered() {
    let mut trio = Trio::new(2);
    let job = trio.submit_with(spec(6), &[1, 2, 4]);
    for at in 0..2 {
        let state = &trio.at(at).farm.jobs()[&job];
        let frames: Vec<i32> = state.all_units().filter(|unit| state.is_kept(*unit)).map(|unit| unit.frame).collect();
        assert_eq!(frames, [1, 2, 4]);
        assert_eq!((state.mean_millis(None), state.unfinished().len()), (None, 3), "nobody took any time for them");
        let spec = state.spec.as_ref().expect("the job");
        let sounds: Vec<i32> = (1..=6).filter(|frame| spec.sound_with(Unit::whole(*frame)).is_some()).collect();
        assert_eq!((sounds, spec.soundtrack().map(|sound| sound.first)), (vec![3], Some(1)), "all of it is heard");
    }
    assert_eq!(trio.at(0).delivered, [1, 2, 4], "which leaves them as they are");
    trio.finish();
    assert_eq!(trio.frames_begun(), [3, 5, 6]);
    let state = &trio.at(0).farm.jobs()[&job];
    assert!(state.collected.is_some_and(|(_, video)| video) && state.duplicates() == 0);
    assert_eq!(state.mean_millis(None), Some(60_000));
    assert_eq!(trio.at(0).delivered.iter().collect::<BTreeSet<_>>().len(), 6);
    // What was wanted anew is rendered, and counts from then on.
    let (node, units) = (trio.names[0], UnitSet::whole(vec![2]).expect("a frame"));
    trio.give(node, Input::Command { job, command: JobCommand::Requeue { units, by: "a".into() } });
    trio.finish();
    assert_eq!(trio.frames_begun(), [2, 3, 5, 6]);
    let state = &trio.at(1).farm.jobs()[&job];
    assert!(!state.is_kept(Unit::whole(2)) && state.is_kept(Unit::whole(1)) && state.is_over());
}

#[test]
fn a_job_that_is_there_as_a_whole_ends_where_nobody_renders_also_after_a_restart() {
    let mut trio = Trio::new(1);
    trio.slots(0, 0);
    trio.at(0).is_slow = true;
    let job = trio.submit_with(spec(3), &[1, 2, 3]);
    trio.at(0).unanswered.clear();
    trio.restart(0, 9);
    trio.at(0).is_slow = false;
    trio.wait(Duration::from_secs(2));
    let state = &trio.at(0).farm.jobs()[&job];
    assert!(state.collected.is_some_and(|(_, video)| video) && state.mean_millis(None).is_none());
    assert_eq!((trio.at(0).videos, trio.frames_begun()), (1, vec![]));
}

#[test]
fn no_other_job_takes_over_what_nobody_rendered() {
    let mut trio = Trio::new(1);
    let again = |frames| JobSpec { reuse: Some(Colours::Renderer), ..spec(frames) };
    trio.submit_with(again(4), &[1, 2, 3, 4]);
    let second = trio.submit_spec(0, again(4));
    trio.finish();
    let state = &trio.at(0).farm.jobs()[&second];
    assert!(state.taken_count() == 0 && state.is_over());
    assert_eq!(trio.frames_begun(), [1, 2, 3, 4]);
}

#[test]
fn results_stand_before_the_job_in_its_log_and_give_it_its_name() {
    let mut ledger = Ledger::new(Sealer::from_seed(&[1; 32]), BootId([1; 8]), [0; 32]);
    let spec = || JobSpec { reuse: Some(Colours::Renderer), ..spec(3) };
    let results = [kept(1).done(), kept(2).done()];
    let log = ledger.submit(&results, spec()).expect("a job");
    assert_eq!(ledger.submit(&results, spec()).expect("a job"), log, "the same again is the same job");
    assert_ne!(ledger.submit(&results[..1], spec()).expect("a job"), log);
    let batch = ledger.take_rows().expect("what is to be stored");
    let ops = |id: LogId| -> Vec<Op> {
        let rows = batch.rows.iter().filter_map(|row| match row {
            Row::Op { log, bytes, .. } if *log == id => Some(wire::decode_op(bytes).expect("an op")),
            _ => None,
        });
        rows.collect()
    };
    let [one, two, Op::Reuse { .. }, Op::Submit { min_version: 1, .. }] = &ops(log)[..] else {
        panic!("{:?}", ops(log))
    };
    assert_eq!([one, two], [&results[0], &results[1]]);
    // Another machine takes it all in: the name fits what stands before.
    let mut other = Ledger::new(Sealer::from_seed(&[2; 32]), BootId([1; 8]), [0; 32]);
    ledger.durable(batch.mark);
    for piece in ledger.suffix(log, ledger.me(), 0).expect("its log") {
        other.merge(&piece).expect("a job");
    }
    assert_eq!(other.ops(log).count(), 4);
}

#[test]
fn only_what_the_submitter_said_before_moves_the_sound_and_no_word_of_it_tells_a_speed() {
    let actor = |node| ActorId { node: NodeId([node; 32]), boot: BootId([1; 8]) };
    let submit = || Op::Submit { min_version: 1, spec: Box::new(spec(3)) };
    let brings = |job: &JobState| {
        let spec = job.spec.clone().expect("the job");
        spec.frames.iter().find(|frame| spec.sound_with(Unit::whole(*frame)).is_some())
    };
    let rendered = |frame| {
        let KeptFrame { unit, outputs } = kept(frame);
        Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 7, device: "CPU".into(), build: "b".into() }
    };
    let of = |before: Vec<(ActorId, u64, Op)>, at, after: Vec<(ActorId, u64, Op)>| {
        let mut job = JobState::new(JobId([1; 16]));
        let ops = before.into_iter().chain([(actor(1), at, submit())]).chain(after);
        ops.for_each(|(actor, seq, op)| job.apply(actor, seq, op));
        job
    };
    let job = of(vec![(actor(1), 0, kept(1).done())], 1, vec![]);
    assert_eq!((brings(&job), job.mean_millis(None)), (Some(2), None));
    assert_eq!(job.unit(Unit::whole(1)).current_results().next().map(|(_, outcome)| &*outcome.build), Some(KEPT));
    // Of another machine, whose ops come in any order; and of its own afterwards.
    let other = (actor(2), 0, kept(1).done());
    for job in [of(vec![other.clone()], 0, vec![]), of(vec![], 0, vec![other])] {
        assert_eq!((brings(&job), job.mean_millis(None)), (Some(1), Some(0)), "a word like any other");
        assert!(!job.is_kept(Unit::whole(1)));
    }
    let job = of(vec![], 0, vec![(actor(1), 1, kept(1).done())]);
    assert!(brings(&job) == Some(1) && !job.is_kept(Unit::whole(1)));
    let job = of(vec![(actor(1), 0, rendered(1))], 1, vec![]);
    assert_eq!(
        (brings(&job), job.mean_millis(None)),
        (Some(1), Some(7)),
        "what was rendered is no frame that was there"
    );
    // With all of them there, the first would bring it if it were rendered anew.
    let all = (0..).zip(1..=3).map(|(seq, frame)| (actor(1), seq, kept(frame).done())).collect();
    assert_eq!(brings(&of(all, 3, vec![])), Some(1));
}

#[test]
fn a_kept_file_is_never_replaced_where_it_lay_and_one_elsewhere_like_any_other() {
    let mut trio = Trio::new(2);
    (0..2).for_each(|at| trio.slots(at, 0));
    let job = trio.submit_with(spec(2), &[1]);
    trio.restart(0, 9);
    trio.wait(Duration::from_secs(2));
    let file = BlobId([201; 32]);
    assert_eq!(trio.at(0).puts, [(1, file, true); 2]);
    // At the submitter's in another folder, and in any at another machine.
    let output = spec(2).output;
    let elsewhere = OutputSpec { directory: "/elsewhere".into(), ..output.clone() };
    for (at, output, is_kept) in [(0, elsewhere, false), (0, output.clone(), true), (1, output, false)] {
        let node = trio.names[at];
        trio.at(at).puts.clear();
        trio.give(node, Input::Command { job, command: JobCommand::Collect(output) });
        trio.wait(Duration::from_secs(2));
        assert_eq!(trio.at(at).puts, [(1, file, is_kept)]);
    }
}

#[test]
fn a_kept_file_whose_copy_is_gone_is_looked_for_before_another_machines_result_is_taken() {
    let (kept_file, rendered) = (BlobId([201; 32]), BlobId([1; 32]));
    for is_there in [true, false] {
        let mut trio = Trio::new(2);
        trio.slots(0, 0);
        let job = trio.submit_with(spec(2), &[1]);
        trio.slots(1, 0);
        let (first, second) = (trio.names[0], trio.names[1]);
        trio.at(0).store.remove(&kept_file);
        if !is_there {
            trio.at(0).folder.clear();
        }
        trio.give(first, Input::BlobsGone { blobs: vec![kept_file] });
        // What the second says of the same frame, whoever asked it.
        trio.at(1).store.insert(rendered);
        let outputs = vec![Output { path: "1.png".into(), blob: rendered, bytes: 1, role: OutputRole::Image }];
        let (device, build) = ("CPU".into(), KEPT.into());
        let done = Op::Done { epoch: 0, revision: 0, unit: Unit::whole(1), outputs, millis: 1, device, build };
        trio.at(1).farm.say(job, &done);
        trio.give(second, Input::Tick);
        trio.wait(Duration::from_secs(2));
        trio.at(0).puts.clear();
        trio.restart(0, 9);
        trio.slots(0, 0);
        trio.wait(Duration::from_secs(10));
        let state = &trio.at(0).farm.jobs()[&job];
        assert!(state.unit(Unit::whole(1)).current_results().count() == 2 && state.is_kept(Unit::whole(1)));
        let all = [(1, kept_file, true), (1, rendered, false)];
        assert_eq!(trio.at(0).puts, all[..if is_there { 1 } else { 2 }], "there: {is_there}");
    }
}
