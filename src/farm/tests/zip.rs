//! The ZIP file of a job's results: last of all, by the submitter's word alone.

use super::*;
use crate::farm::id::ActorId;
use crate::farm::state::JobState;

const ZIP: &str = "/shot.zip";

fn zipped(frames: i32) -> JobSpec {
    let spec = spec(frames);
    JobSpec { output: OutputSpec { zip: Some(ZIP.into()), ..spec.output.clone() }, ..spec }
}

/// A swarm whose first machine has all frames of a job, says nothing of what it does, and is asked for the video.
fn before_its_video(machines: u8, frames: i32) -> (Trio, JobId) {
    let mut trio = Trio::new(machines);
    let job = trio.submit_spec(0, zipped(frames));
    trio.at(0).is_slow = true;
    trio.finish();
    trio.answer(0);
    (trio, job)
}

fn is_collected(trio: &Trio, job: JobId) -> bool {
    trio.machines[&trio.names[0]].farm.jobs()[&job].collected.is_some()
}

#[test]
fn a_zip_file_comes_after_the_video_and_only_with_it_is_the_job_collected() {
    let (mut trio, job) = before_its_video(2, 3);
    assert_eq!((trio.at(0).videos, trio.at(0).zips.len()), (1, 0), "the video waits");
    trio.answer(0);
    assert_eq!((trio.at(0).videos, trio.at(0).zips.clone()), (1, vec![true]));
    trio.wait(STEP * 10);
    assert!(!trio.at(0).farm.collectors()[&job].ended && !is_collected(&trio, job));
    trio.answer(0);
    trio.wait(STEP * 10);
    assert!(trio.at(0).farm.collectors()[&job].ended && is_collected(&trio, job));
    assert_eq!(trio.at(0).farm.collectors()[&job].video, VideoState::Ready);
    for at in 0..2 {
        let spec = trio.at(at).farm.jobs()[&job].spec.clone().expect("the job");
        assert_eq!(spec.output.zip.as_deref(), Some(ZIP), "everybody can say where it is");
        assert_eq!(trio.at(at).zips.len(), 1 - at, "and one machine writes it");
    }
    // Rendered anew, it is written anew.
    trio.at(0).is_slow = false;
    let units = UnitSet::whole(vec![2]).expect("a frame");
    let node = trio.names[0];
    trio.give(node, Input::Command { job, command: JobCommand::Requeue { units, by: "a".into() } });
    trio.finish();
    assert_eq!((trio.at(0).videos, trio.at(0).zips.len()), (2, 2));
    assert!(trio.at(0).farm.collectors()[&job].ended);
}

#[test]
fn a_job_without_its_zip_file_has_it_written_after_a_restart_and_none_once_it_is_there() {
    let (mut trio, job) = before_its_video(1, 2);
    trio.answer(0);
    assert_eq!(trio.at(0).zips.len(), 1);
    trio.at(0).unanswered.clear();
    trio.at(0).is_slow = false;
    trio.restart(0, 9);
    trio.wait(Duration::from_secs(2));
    assert_eq!((trio.at(0).zips.len(), is_collected(&trio, job)), (2, true));
    trio.restart(0, 10);
    trio.wait(Duration::from_secs(2));
    assert_eq!(trio.at(0).zips.len(), 2);
}

#[test]
fn a_cancel_ends_a_zip_file_that_is_being_written() {
    let (mut trio, job) = before_its_video(1, 2);
    trio.answer(0);
    let node = trio.names[0];
    let zip = trio.at(0).unanswered.remove(0);
    trio.give(node, Input::Command { job, command: JobCommand::Cancel("user".into()) });
    trio.wait(STEP * 10);
    // What it says now changes nothing.
    trio.give(node, zip);
    assert!(!trio.at(0).farm.collectors()[&job].ended);
    trio.answer(0);
    trio.wait(STEP * 10);
    let collector = &trio.machines[&node].farm.collectors()[&job];
    assert!(collector.ended && collector.video == VideoState::None);
    assert_eq!(trio.at(0).zips.len(), 1);
}

#[test]
fn why_there_is_no_video_is_still_told_once_the_zip_file_is_there() {
    let (mut trio, job) = before_its_video(1, 2);
    let Some(Input::VideoFinished { job, collection, .. }) = trio.at(0).unanswered.pop() else {
        panic!("the video of {job:?} waits")
    };
    let node = trio.names[0];
    trio.give(node, Input::VideoFinished { job, collection, outcome: Err("no ffmpeg".into()) });
    assert_eq!(trio.at(0).zips, [false]);
    let reason = "the disk is full".to_owned();
    trio.give(node, Input::CollectionDelayed { job, collection, reason });
    assert_eq!(trio.at(0).farm.collectors()[&job].reason.as_deref(), Some("the disk is full"));
    trio.answer(0);
    trio.wait(STEP * 10);
    let collector = &trio.machines[&node].farm.collectors()[&job];
    assert!(collector.ended && collector.video == VideoState::Failed);
    assert_eq!(collector.reason.as_deref(), Some("no ffmpeg"));
    assert!(trio.at(0).farm.jobs()[&job].collected.is_some_and(|(_, video)| !video));
}

#[test]
fn nobody_but_the_submitter_says_where_a_zip_file_goes() {
    let actor = |node| ActorId { node: NodeId([node; 32]), boot: BootId([1; 8]) };
    let submit = Op::Submit { min_version: 1, spec: Box::new(spec(2)) };
    let zip = |path: &str| Op::Zip { path: path.into() };
    let mut job = JobState::new(JobId([1; 16]));
    job.apply(actor(2), 0, zip("/early"));
    job.apply(actor(1), 0, submit);
    job.apply(actor(2), 1, zip("/hostile"));
    let at = |job: &JobState| job.spec.as_ref().expect("the job").output.zip.clone();
    assert_eq!(at(&job), None);
    job.apply(actor(1), 1, zip(ZIP));
    assert_eq!(at(&job).as_deref(), Some(ZIP));
}
