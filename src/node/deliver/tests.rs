#![allow(clippy::unwrap_used)]
//! With a real store; a folder that does not answer is one whose files are named pipes that nobody writes to.

use super::super::chunk::Chunking;
use super::super::render::{Disk, Worker, WorkerScene, discover};
use super::super::video::find_ffmpeg;
use super::*;
use crate::farm::frames::FrameSet;
use crate::farm::id::BlobId;
use crate::farm::job::{ImageFormat, RenderSettings, Series};
use crate::farm::views::Views;
use std::process::Command as Process;
use tempfile::TempDir;

mod zip;

struct Stage {
    folder: TempDir,
    store: Arc<Store>,
    delivery: Delivery,
    events: mpsc::Receiver<Event>,
    pipes: Vec<PathBuf>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let (sender, events) = mpsc::channel(64);
        let delivery = Delivery::new(store.clone(), folder.path().join("videos"), sender);
        Self { folder, store, delivery, events, pipes: Vec::new() }
    }

    /// A job of five frames that goes to a folder of this name.
    fn spec(&self, to: &str) -> JobSpec {
        let frames = FrameSet::range(1, 5, 1).unwrap();
        let mut spec = JobSpec::new(BlobId([7; 32]), frames, Series { major: 4, minor: 5 });
        spec.output.directory = self.folder.path().join(to).display().to_string();
        spec.output.video = None;
        spec
    }

    fn path(&self, spec: &JobSpec, frame: i32) -> PathBuf {
        Path::new(&spec.output.directory).join(spec.output.file_name(frame, spec.format))
    }

    fn deliver(&mut self, job: JobId, collection: u64, spec: &JobSpec, frames: impl IntoIterator<Item = i32>) {
        for frame in frames {
            let bytes = format!("frame {frame} of {job:?}").into_bytes();
            let (blob, _) = self.store.put_bytes(&bytes).unwrap();
            let (path, role) = (format!("{frame}.png"), OutputRole::Image);
            let outputs = vec![Output { path, blob, bytes: bytes.len() as u64, role }];
            let frame = (Unit::whole(frame), 0);
            self.delivery.deliver((job, collection), Arc::new(spec.clone()), &spec.output, frame, (outputs, false));
        }
    }

    /// Nothing answers that asks for these frames.
    fn hang(&mut self, spec: &JobSpec, frames: impl IntoIterator<Item = i32>) {
        std::fs::create_dir_all(&spec.output.directory).unwrap();
        for frame in frames {
            let pipe = self.path(spec, frame);
            assert!(Process::new("mkfifo").arg(&pipe).status().unwrap().success());
            self.pipes.push(pipe);
        }
    }

    /// What hangs goes on.
    fn release(&mut self) {
        for pipe in self.pipes.drain(..) {
            // Open both ways, it lets every reader go on that waits for a writer; gone, it makes nobody wait.
            let _ends = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
            let _ = std::fs::remove_file(pipe);
        }
    }

    async fn event(&mut self) -> Input {
        let event = tokio::time::timeout(Duration::from_secs(60), self.events.recv()).await;
        match event.unwrap().unwrap() {
            Event::Farm(input) => input,
            _ => panic!("a delivery tells the farm alone"),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.release();
    }
}

#[tokio::test]
async fn what_waits_to_go_to_one_folder_does_not_go_there_once_another_is_asked_for() {
    let mut stage = Stage::new();
    let (job, slow, other) = (JobId([1; 16]), stage.spec("slow"), stage.spec("other"));
    stage.hang(&slow, 1..=4);
    stage.deliver(job, 1, &slow, 1..=5);
    tokio::task::yield_now().await;
    stage.deliver(job, 2, &other, 1..=5);
    let mut delivered = Vec::new();
    for _ in 0..5 {
        let Input::Delivered { collection: 2, unit, .. } = stage.event().await else { panic!("not delivered") };
        delivered.push(unit.frame);
    }
    delivered.sort_unstable();
    assert_eq!(delivered, [1, 2, 3, 4, 5]);
    stage.release();
    stage.delivery.shut_down().await;
    assert!(stage.events.try_recv().is_err(), "nothing is told of the first folder");
    assert!(!stage.path(&slow, 5).exists() && stage.path(&other, 5).exists());
}

#[tokio::test]
async fn a_frame_that_is_neither_in_the_store_nor_in_its_folder_is_told_and_one_in_its_folder_is_delivered() {
    let mut stage = Stage::new();
    let (job, spec) = (JobId([1; 16]), stage.spec("out"));
    let blob = stage.store.put_bytes(format!("frame 1 of {job:?}").as_bytes()).unwrap().0;
    let name = blob.to_string();
    let file = stage.folder.path().join("store/blobs").join(&name[..2]).join(name);
    let outputs = |bytes: u64| vec![Output { path: "1.png".into(), blob, bytes, role: OutputRole::Image }];
    let bytes = std::fs::metadata(&file).unwrap().len();
    let again = |stage: &mut Stage| {
        let frame = (Unit::whole(1), 0);
        stage.delivery.deliver((job, 1), Arc::new(spec.clone()), &spec.output, frame, (outputs(bytes), false));
    };
    // Deleted under the store, and the second time known to be gone.
    std::fs::remove_file(&file).unwrap();
    for _ in 0..2 {
        again(&mut stage);
        let Input::Undeliverable { unit, gone, .. } = stage.event().await else { panic!("delivered") };
        assert_eq!((unit, gone), (Unit::whole(1), vec![blob]));
        assert!(!stage.path(&spec, 1).exists());
    }
    assert_eq!(stage.store.take_gone(), [blob]);
    // Delivered by an earlier run, and something else.
    std::fs::create_dir_all(&spec.output.directory).unwrap();
    let text = format!("frame 1 of {job:?}");
    std::fs::write(stage.path(&spec, 1), &text).unwrap();
    again(&mut stage);
    assert!(matches!(stage.event().await, Input::Delivered { .. }));
    std::fs::write(stage.path(&spec, 1), text.replace("1 of", "2 of")).unwrap();
    again(&mut stage);
    assert!(matches!(stage.event().await, Input::Undeliverable { .. }));
    // A folder that cannot be read says nothing of what is in it.
    std::fs::remove_dir_all(&spec.output.directory).unwrap();
    std::fs::write(&spec.output.directory, "no folder").unwrap();
    again(&mut stage);
    assert!(matches!(stage.event().await, Input::DeliveryFailed { .. }));
}

#[tokio::test]
async fn a_folder_that_does_not_answer_is_told_of_and_holds_up_no_other_job() {
    let mut stage = Stage::new();
    let (first, second) = (JobId([1; 16]), JobId([2; 16]));
    let (slow, other) = (stage.spec("slow"), stage.spec("other"));
    stage.hang(&slow, 1..=5);
    stage.deliver(first, 1, &slow, 1..=5);
    tokio::task::yield_now().await;
    stage.deliver(second, 2, &other, [1]);
    let Input::Delivered { job, .. } = stage.event().await else { panic!("not delivered") };
    assert_eq!(job, second);
    stage.delivery.silent_after = Duration::ZERO;
    stage.deliver(first, 3, &slow, [1]);
    let Input::CollectionDelayed { job, collection: 3, reason } = stage.event().await else { panic!("nothing told") };
    assert!(job == first && reason.contains("slow does not answer"), "{reason}");
}

#[tokio::test]
async fn a_video_told_to_finish_while_another_has_not_quite_ended_is_finished_too() {
    let mut stage = Stage::new();
    let (job, mut spec) = (JobId([1; 16]), stage.spec("out"));
    spec.output.video = Some(stage.folder.path().join("shot.mp4").display().to_string());
    stage.deliver(job, 1, &spec, [1]);
    assert!(matches!(stage.event().await, Input::Delivered { .. }));
    stage.delivery.delivered((job, 1), 1);
    // Whether it can be made is another matter: the frames are no images.
    stage.delivery.finish((job, 1), vec![2, 3, 4, 5]);
    stage.delivery.finish((job, 1), vec![2, 3, 4, 5]);
    for _ in 0..2 {
        assert!(matches!(stage.event().await, Input::VideoFinished { collection: 1, .. }));
    }
}

#[tokio::test]
async fn file_outputs_are_delivered_with_their_frame_and_a_hostile_one_is_not() {
    let mut stage = Stage::new();
    let (job, spec) = (JobId([1; 16]), stage.spec("out"));
    let deliver = |stage: &mut Stage, frame, aux: &str| {
        let outputs = [("1.png", OutputRole::Image), (aux, OutputRole::Aux)].map(|(path, role)| {
            let (blob, map) = stage.store.put_bytes(path.as_bytes()).unwrap();
            Output { path: path.into(), blob, bytes: map.bytes(), role }
        });
        let frame = (Unit::whole(frame), 0);
        stage.delivery.deliver((job, 1), Arc::new(spec.clone()), &spec.output, frame, (outputs.into(), false));
    };
    deliver(&mut stage, 1, "file-outputs/passes/z0001.exr");
    assert!(matches!(stage.event().await, Input::Delivered { .. }));
    let out = stage.folder.path().join("out");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read("file-outputs/passes/z0001.exr"), "file-outputs/passes/z0001.exr");
    assert_eq!(read(&spec.output.file_name(1, spec.format)), "1.png");
    deliver(&mut stage, 2, "../z0002.exr");
    assert!(matches!(stage.event().await, Input::Delivered { .. }));
    assert!(!stage.folder.path().join("z0002.exr").exists());
}

#[tokio::test]
async fn a_result_with_a_view_that_the_job_did_not_declare_replaces_no_file_of_the_users_own() {
    let mut stage = Stage::new();
    let spec = stage.spec("out");
    let views = Views::of(&["_L".into(), "_R".into()]).unwrap();
    let stereo = JobSpec { views, ..stage.spec("stereo") };
    for (at, spec, sent) in [(1, &spec, ["", "-plate", "_R"]), (2, &stereo, ["_R", "-plate", "_L"])] {
        let path = |view: &str| Path::new(&spec.output.directory).join(spec.output.view_name(1, spec.format, view));
        std::fs::create_dir_all(&spec.output.directory).unwrap();
        std::fs::write(path("-plate"), "years of work").unwrap();
        let mut output = |(nth, view): (usize, &&str)| {
            let role = if nth == 0 { OutputRole::Image } else { OutputRole::Aux };
            let (blob, map) = stage.store.put_bytes(view.as_bytes()).unwrap();
            Output { path: spec.output.view_name(1, spec.format, view), blob, bytes: map.bytes(), role }
        };
        let outputs = sent.iter().enumerate().map(&mut output).collect();
        let (job, to) = ((JobId([at; 16]), 1), &spec.output);
        stage.delivery.deliver(job, Arc::new(spec.clone()), to, (Unit::whole(1), 0), (outputs, false));
        let Input::Delivered { .. } = stage.event().await else { panic!("not delivered") };
        assert_eq!(std::fs::read_to_string(path("-plate")).unwrap(), "years of work");
        for view in ["", "_L", "_R"] {
            assert_eq!(path(view).exists(), spec.views.has(view), "{view:?} of {:?}", spec.views);
        }
    }
}

/// The brightness of each frame of a video, and its size.
fn brightness(video: &Path) -> Vec<u8> {
    let output = Process::new(find_ffmpeg().unwrap())
        .args(["-nostdin", "-v", "error", "-i"])
        .arg(video)
        .args(["-vf", "scale=1:1:flags=area,format=gray,scale=out_range=full", "-f", "rawvideo", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Two frames of a Blender's default scene in this format, delivered to `out`, and the brightness of their video.
async fn video_of(renderer: &Renderer, format: ImageFormat, depth: Option<u8>) -> (Vec<u8>, Stage) {
    let mut stage = Stage::new();
    let (job, mut spec) = (JobId([1; 16]), stage.spec("out"));
    let video = stage.folder.path().join("shot.mp4");
    (spec.frames, spec.format, spec.size) = (FrameSet::range(1, 2, 1).unwrap(), format, (64, 64));
    spec.output.video = Some(video.display().to_string());
    spec.settings = RenderSettings {
        engine: Some("CYCLES".into()),
        samples: Some(4),
        resolution: Some((64, 64)),
        percent: Some(100),
        depth,
        ..RenderSettings::default()
    };
    let scene = WorkerScene {
        blend: None,
        settings: spec.settings.clone(),
        format,
        size: spec.size,
        views: spec.views.clone(),
        threads: Some(1),
        ocio: None,
        gpus: None,
        disk: Disk::default(),
    };
    let mut worker = Worker::start(renderer, scene, stage.folder.path()).await.unwrap();
    for frame in 1..=2 {
        let out = stage.folder.path().join(format!("drawn.{}", format.extension()));
        let rendered = worker.draw(Unit::whole(frame), &out, None).await.unwrap().keep().await.unwrap();
        let preview = rendered.preview.map(|(path, _)| (path, OutputRole::Preview));
        let outputs = std::iter::once((rendered.path, OutputRole::Image)).chain(preview).map(|(path, role)| {
            let bytes = path.metadata().unwrap().len();
            let (blob, _) = stage.store.import_file(&path, Chunking::Fixed).unwrap();
            Output { path: "as its node called it".into(), blob, bytes, role }
        });
        let outputs = outputs.collect();
        stage.delivery.deliver(
            (job, 1),
            Arc::new(spec.clone()),
            &spec.output,
            (Unit::whole(frame), 0),
            (outputs, false),
        );
        assert!(matches!(stage.event().await, Input::Delivered { .. }));
        stage.delivery.delivered((job, 1), frame);
        assert!(stage.path(&spec, frame).is_file());
    }
    stage.delivery.finish((job, 1), Vec::new());
    let Input::VideoFinished { outcome, .. } = stage.event().await else { panic!("no video") };
    outcome.unwrap_or_else(|why| panic!("{format:?} {depth:?} by {}: {why}", renderer.version_text()));
    (brightness(&video), stage)
}

#[tokio::test]
async fn frames_of_every_format_become_a_video_that_looks_the_same() {
    if find_ffmpeg().is_none() {
        println!("skipped: no ffmpeg");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for renderer in discover(&[], &dir.path().join("cache.json")).await.renderers {
        let (usual, _) = video_of(&renderer, ImageFormat::Png, Some(8)).await;
        assert_eq!(usual.len(), 2);
        for (format, depth) in [
            (ImageFormat::Png, Some(16)),
            (ImageFormat::Jpeg, None),
            (ImageFormat::Tiff, Some(8)),
            (ImageFormat::Tiff, Some(16)),
            (ImageFormat::Webp, None),
            (ImageFormat::Exr, Some(16)),
            (ImageFormat::ExrMultilayer, Some(32)),
        ] {
            let (found, mut stage) = video_of(&renderer, format, depth).await;
            let what = format!("{format:?} {depth:?} by {}", renderer.version_text());
            assert_eq!(found.len(), 2, "{what}");
            assert!(found.iter().zip(&usual).all(|(a, b)| a.abs_diff(*b) <= 3), "{what}: {found:?} {usual:?}");
            let names = std::fs::read_dir(stage.folder.path().join("out")).unwrap().count();
            assert_eq!(names, 2, "{what}: the frames and nothing else");
            let previews = stage.folder.path().join("videos").join(JobId([1; 16]).to_string()).join("previews");
            assert_eq!(previews.is_dir(), format.has_preview(), "{what}");
            stage.delivery.forget(JobId([1; 16]));
            while stage.delivery.tasks.join_next().await.is_some() {}
            assert!(!previews.exists(), "{what}");
        }
    }
}

#[tokio::test]
async fn sound_waits_for_the_video_out_of_sight_and_goes_once_the_first_frame_has_none() {
    let mut stage = Stage::new();
    let (job, mut spec) = (JobId([1; 16]), stage.spec("out"));
    spec.output.video = Some(stage.folder.path().join("shot.mp4").display().to_string());
    let blob = |bytes: &[u8]| stage.store.put_bytes(bytes).unwrap().0;
    let output = |role, bytes: &[u8]| Output { path: "f".into(), blob: blob(bytes), bytes: bytes.len() as u64, role };
    let image = output(OutputRole::Image, b"image");
    let sounds = [output(OutputRole::Sound, b"first"), output(OutputRole::Sound, b"second")];
    let kept = sound_at(&stage.folder.path().join("videos").join(job.to_string()));
    for (frame, sound, then) in
        [(1, Some(0), Some("first")), (2, None, Some("first")), (1, Some(1), Some("second")), (1, None, None)]
    {
        let outputs = std::iter::once(image.clone()).chain(sound.map(|at: usize| sounds[at].clone())).collect();
        let unit = (Unit::whole(frame), 0);
        stage.delivery.deliver((job, 1), Arc::new(spec.clone()), &spec.output, unit, (outputs, false));
        assert!(matches!(stage.event().await, Input::Delivered { .. }));
        assert_eq!(std::fs::read_to_string(&kept).ok().as_deref(), then, "frame {frame}");
    }
    let names: Vec<_> = std::fs::read_dir(stage.folder.path().join("out")).unwrap().flatten().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn a_video_that_was_not_wanted_at_first_says_why_it_has_no_sound() {
    if find_ffmpeg().is_none() {
        println!("skipped: no ffmpeg");
        return;
    }
    for is_late in [false, true] {
        let mut stage = Stage::new();
        let (job, mut spec) = (JobId([1; 16]), stage.spec("out"));
        (spec.frames, spec.size) = (FrameSet::range(1, 2, 1).unwrap(), (16, 16));
        let video = stage.folder.path().join("shot.mp4");
        let output = OutputSpec { video: Some(video.display().to_string()), ..spec.output.clone() };
        if !is_late {
            spec.output = output.clone();
        }
        for frame in 1..=2 {
            let mut bytes = io::Cursor::new(Vec::new());
            image::RgbImage::new(16, 16).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            let (blob, map) = stage.store.put_bytes(bytes.get_ref()).unwrap();
            let outputs = vec![Output { path: "f.png".into(), blob, bytes: map.bytes(), role: OutputRole::Image }];
            stage.delivery.deliver(
                (job, 1),
                Arc::new(spec.clone()),
                &output,
                (Unit::whole(frame), 0),
                (outputs, false),
            );
            assert!(matches!(stage.event().await, Input::Delivered { .. }));
            stage.delivery.delivered((job, 1), frame);
        }
        stage.delivery.finish((job, 1), Vec::new());
        assert!(matches!(stage.event().await, Input::VideoFinished { outcome: Ok(()), .. }));
        let note = stage.delivery.note(job);
        assert_eq!(note.is_some_and(|note| note.contains("submitted with --no-video")), is_late);
    }
}

#[test]
fn a_full_disk_is_told_in_the_same_words_for_every_frame() {
    let full = |what: &str| io::Error::new(io::ErrorKind::StorageFull, format!("cannot write {what}"));
    let folder = Path::new("/shots/a");
    let text = why_not(&full("/shots/a/a_0001.png"), folder);
    assert_eq!(text, why_not(&full("/shots/a/a_0002.png"), folder));
    assert!(text.starts_with("the disk of /shots/a is full; make room there"), "{text}");
}

#[tokio::test]
async fn an_image_that_was_there_before_is_put_where_nothing_is_and_what_the_user_made_of_it_stays() {
    let mut stage = Stage::new();
    let views = Views::of(&["_L".into(), "_R".into()]).unwrap();
    let spec = JobSpec { views, ..stage.spec("out") };
    let path = |view: &str| Path::new(&spec.output.directory).join(spec.output.view_name(1, spec.format, view));
    for (view, edited) in [("_L", "edited"), ("_R", "")] {
        let _ = std::fs::remove_dir_all(&spec.output.directory);
        std::fs::create_dir_all(&spec.output.directory).unwrap();
        std::fs::write(path(view), edited).unwrap();
        for (is_kept, now) in [(true, edited), (false, view)] {
            let mut output = |(view, role): (&str, OutputRole)| {
                let (blob, map) = stage.store.put_bytes(view.as_bytes()).unwrap();
                Output { path: spec.output.view_name(1, spec.format, view), blob, bytes: map.bytes(), role }
            };
            let outputs = [("_L", OutputRole::Image), ("_R", OutputRole::Aux)].map(&mut output).into();
            let (job, to) = ((JobId([1; 16]), 1), &spec.output);
            stage.delivery.deliver(job, Arc::new(spec.clone()), to, (Unit::whole(1), 0), (outputs, is_kept));
            let Input::Delivered { .. } = stage.event().await else { panic!("not delivered") };
            assert_eq!(std::fs::read_to_string(path(view)).unwrap(), now, "kept: {is_kept}");
            let other = if view == "_L" { "_R" } else { "_L" };
            assert_eq!(std::fs::read_to_string(path(other)).unwrap(), other);
        }
    }
}
