//! The ZIP file of a job, written from a real folder; the test answers for the machines that have the logs.

use super::super::super::logs::{FrameLog, FrameLogs};
use super::*;
use crate::farm::id::NodeId;
use ::zip::{CompressionMethod, ZipArchive};
use std::io::Read;

const JOB: JobId = JobId([1; 16]);

/// Frames 1 to 3 of a job called `shot` are delivered, the second with a file of a File Output node.
async fn stage() -> (Stage, JobSpec) {
    let mut stage = Stage::new();
    let mut spec = stage.spec("out");
    spec.output.video = Some(stage.folder.path().join("shot.mp4").display().to_string());
    spec.output.zip = Some(stage.folder.path().join("shot.zip").display().to_string());
    for frame in 1..=3 {
        let aux = (frame == 2).then(|| ("file-outputs/z/z0002.exr".to_owned(), OutputRole::Aux));
        let image = std::iter::once((format!("{frame}.png"), OutputRole::Image));
        let outputs = image.chain(aux).map(|(path, role)| {
            let (blob, map) = stage.store.put_bytes(path.as_bytes()).unwrap();
            Output { path, blob, bytes: map.bytes(), role }
        });
        let outputs = outputs.collect();
        stage.delivery.deliver(
            (JOB, 1),
            Arc::new(spec.clone()),
            &spec.output,
            (Unit::whole(frame), 0),
            (outputs, false),
        );
        assert!(matches!(stage.event().await, Input::Delivered { .. }));
        // Not by way of `delivered`: these are no images, and a video of them is not what this is about.
        stage.delivery.jobs.get_mut(&JOB).unwrap().frames.insert(frame);
    }
    std::fs::write(spec.output.video.as_ref().unwrap(), "the video").unwrap();
    (stage, spec)
}

impl Stage {
    fn zip(&mut self, spec: &JobSpec, has_video: bool) {
        self.delivery.zip((JOB, 1), Arc::new(spec.clone()), &spec.output, vec![-3, 1, 2], has_video);
    }

    /// What the farm is told, once the logs are: of frame -3 one, of 1 none any more, of 2 a failure without one.
    async fn told(&mut self) -> Input {
        loop {
            match self.events.recv().await.unwrap() {
                Event::FrameLogs(FrameLogs { frame, reply, silent, .. }) => {
                    let (text, missing) = match frame {
                        1 => (String::new(), vec!["ws3 has no log of it any more".to_owned()]),
                        _ => (format!("log of {frame}, but of {}\n", silent.len()), Vec::new()),
                    };
                    let _ = reply.send(FrameLog { text, missing, ..FrameLog::default() });
                }
                Event::Farm(input) => return input,
                _ => panic!("a delivery tells nothing else"),
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Names, whether stored, and contents.
fn listed(path: &Path) -> Vec<(String, bool, String)> {
    let mut zip = ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut list = Vec::new();
    for at in 0..zip.len() {
        let mut file = zip.by_index(at).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        list.push((file.name().to_owned(), file.compression() == CompressionMethod::Stored, text));
    }
    list
}

#[tokio::test]
async fn a_zip_file_has_frames_video_and_logs_in_one_folder_and_is_the_same_each_time() {
    let (mut stage, spec) = stage().await;
    let path = PathBuf::from(spec.output.zip.as_ref().unwrap());
    // One that is there is replaced, and not before the new one is whole.
    std::fs::write(&path, "an earlier one").unwrap();
    stage.zip(&spec, true);
    assert!(matches!(stage.told().await, Input::ZipWritten { job: JOB, collection: 1 }));
    let list = listed(&path);
    let expected = [
        ("shot/shot_0001.png", true, "1.png"),
        ("shot/shot_0002.png", true, "2.png"),
        ("shot/shot_0003.png", true, "3.png"),
        ("shot/file-outputs/z/z0002.exr", true, "file-outputs/z/z0002.exr"),
        ("shot/shot.mp4", true, "the video"),
        ("shot/logs/frame_-0003.log", false, "log of -3, but of 0\n"),
        ("shot/logs/frame_0002.log", false, "log of 2, but of 0\n"),
        ("shot/logs/missing.txt", false, "frame 1: ws3 has no log of it any more\n"),
    ];
    assert_eq!(list, expected.map(|(name, stored, text)| (name.into(), stored, text.into())));
    let first = std::fs::read(&path).unwrap();
    assert!(!first.windows(4).any(|four| four == b"PK\x06\x06"), "no Zip64 for what is small");
    stage.zip(&spec, true);
    assert!(matches!(stage.told().await, Input::ZipWritten { .. }));
    assert!(std::fs::read(&path).unwrap() == first);
    // A video of an earlier job is none of this one's.
    stage.zip(&spec, false);
    assert!(matches!(stage.told().await, Input::ZipWritten { .. }));
    assert!(listed(&path).iter().all(|(name, ..)| name != "shot/shot.mp4"));
    assert_eq!(stage.names(), ["out", "shot.mp4", "shot.zip", "store"]);
}

#[tokio::test]
async fn a_zip_file_that_cannot_be_written_says_why_and_is_tried_again() {
    let (mut stage, spec) = stage().await;
    stage.delivery.retry_zip = Duration::ZERO;
    let path = PathBuf::from(spec.output.zip.as_ref().unwrap());
    std::fs::create_dir_all(path.join("the user's")).unwrap();
    stage.zip(&spec, true);
    let Input::CollectionDelayed { job: JOB, collection: 1, reason } = stage.told().await else { panic!("no reason") };
    assert!(reason.contains("shot.zip cannot be written") && reason.contains("is tried again"), "{reason}");
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::remove_file(stage.path(&spec, 2)).unwrap();
    let unread = loop {
        let Input::CollectionDelayed { reason, .. } = stage.told().await else { panic!("written without a frame") };
        if reason.contains("cannot be read") {
            break reason;
        }
    };
    assert!(unread.contains("shot_0002.png") && unread.contains("swarm job collect"), "{unread}");
    std::fs::write(stage.path(&spec, 2), "2.png").unwrap();
    while !matches!(stage.told().await, Input::ZipWritten { .. }) {}
    assert_eq!(listed(&path).len(), 8);
}

#[tokio::test]
async fn a_zip_file_that_nobody_wants_any_more_leaves_nothing_and_a_job_without_frames_has_its_logs() {
    let (mut stage, spec) = stage().await;
    stage.zip(&spec, true);
    // It waits for its logs.
    let Some(Event::FrameLogs(asked)) = stage.events.recv().await else { panic!("no log is asked for") };
    stage.delivery.cancel((JOB, 1), &spec.output);
    drop(asked);
    while !matches!(stage.told().await, Input::VideoFinished { .. }) {}
    // Told of a job of which nothing was ever under way.
    let other = stage.spec("other");
    let zip = stage.folder.path().join("other.zip");
    let output = OutputSpec { zip: Some(zip.display().to_string()), ..other.output.clone() };
    stage.delivery.zip((JobId([2; 16]), 2), Arc::new(other), &output, vec![1, 2], false);
    let told = stage.told().await;
    assert!(matches!(told, Input::ZipWritten { collection: 2, .. }), "{told:?}");
    let names: Vec<String> = listed(&zip).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["shot/logs/frame_0002.log", "shot/logs/missing.txt"]);
}

#[tokio::test]
async fn a_zip_file_that_is_stopped_halfway_is_gone() {
    let (mut stage, spec) = stage().await;
    stage.zip(&spec, true);
    let Some(Event::FrameLogs(asked)) = stage.events.recv().await else { panic!("no log is asked for") };
    let (_, zip) = stage.delivery.stop(JOB);
    zip.unwrap().ended().await;
    drop(asked);
    assert_eq!(stage.names(), ["out", "shot.mp4", "store"]);
}

#[tokio::test]
async fn a_zip_file_of_a_job_without_a_video_has_its_frames() {
    let mut stage = Stage::new();
    let mut spec = stage.spec("out");
    let path = stage.folder.path().join("shot.zip");
    spec.output.zip = Some(path.display().to_string());
    stage.deliver(JOB, 1, &spec, [4]);
    assert!(matches!(stage.event().await, Input::Delivered { .. }));
    stage.delivery.delivered((JOB, 1), 4);
    stage.delivery.finish((JOB, 1), vec![1, 2, 3, 5]);
    assert!(matches!(stage.event().await, Input::VideoFinished { .. }));
    stage.delivery.zip((JOB, 1), Arc::new(spec.clone()), &spec.output, Vec::new(), false);
    assert!(matches!(stage.told().await, Input::ZipWritten { .. }));
    let names: Vec<String> = listed(&path).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["shot/shot_0004.png"]);
}

#[tokio::test]
async fn what_a_kill_left_of_a_zip_file_takes_no_room_from_the_next_and_goes_with_the_job() {
    let (mut stage, spec) = stage().await;
    let zip = PathBuf::from(spec.output.zip.as_ref().unwrap());
    let left = part_beside(&zip, &stage.delivery.work_dir(JOB));
    let finished = |stage: &Stage| stage.names() == ["out", "shot.mp4", "store"];
    // More than any disk has, though not a block of it is there.
    let frame = std::fs::File::options().write(true).open(stage.path(&spec, 1)).unwrap();
    frame.set_len(1 << 43).unwrap();
    std::fs::write(&left, "half of it").unwrap();
    stage.zip(&spec, true);
    let Input::CollectionDelayed { reason, .. } = stage.told().await else { panic!("no reason") };
    assert!(reason.contains("is full") && finished(&stage), "{reason} {:?}", stage.names());
    for is_canceled in [false, true] {
        std::fs::write(&left, "half of it").unwrap();
        match is_canceled {
            false => stage.delivery.forget(JOB),
            // By then nothing is known of it, as after a restart.
            true => stage.delivery.cancel((JOB, 1), &spec.output),
        }
        while stage.delivery.tasks.join_next().await.is_some() {}
        assert!(finished(&stage), "{:?}", stage.names());
    }
}

#[tokio::test]
async fn a_log_that_did_not_come_is_asked_for_again_and_a_machine_is_silent_after_two_misses() {
    let (mut stage, spec) = stage().await;
    stage.zip(&spec, true);
    let (slow, dead) = (NodeId([3; 32]), NodeId([4; 32]));
    let mut asked: BTreeMap<i32, usize> = BTreeMap::new();
    let written = loop {
        let FrameLogs { frame, reply, silent, .. } = match stage.events.recv().await.unwrap() {
            Event::FrameLogs(asked) => asked,
            Event::Farm(input) => break input,
            _ => panic!("a delivery tells nothing else"),
        };
        assert!(!silent.contains(&slow), "it missed one alone");
        let times = asked.entry(frame).or_default();
        *times += 1;
        let log = match (frame, *times) {
            (2, 1) => FrameLog { pushed_out: true, missing: vec!["too many".into()], ..FrameLog::default() },
            (2, 2) => FrameLog { silent: [slow].into(), missing: vec!["no answer".into()], ..FrameLog::default() },
            (1, _) => FrameLog { silent: [dead].into(), missing: vec!["dead".into()], ..FrameLog::default() },
            _ => FrameLog { text: format!("log of {frame}"), ..FrameLog::default() },
        };
        let _ = reply.send(log);
    };
    assert!(matches!(written, Input::ZipWritten { .. }));
    assert_eq!(asked, BTreeMap::from([(-3, 1), (1, 2), (2, 3)]));
    let list = listed(Path::new(spec.output.zip.as_ref().unwrap()));
    let text = |name: &str| list.iter().find(|(of, ..)| of == name).map(|(_, _, text)| text.as_str());
    assert_eq!(text("shot/logs/frame_0002.log"), Some("log of 2"));
    assert_eq!(text("shot/logs/missing.txt"), Some("frame 1: dead\n"));
}
