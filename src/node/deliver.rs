//! Results under their final names: frames as they come, the video, and a ZIP file of all.
//!
//! A frame's file is written beside its final name, checked against its hashes, synced and renamed; one that is already
//! there and the same is left alone. Each job's video has a task that is fed frame by frame; when it cannot use ffmpeg,
//! Blender's own encoder makes the video at the end. Frames that hold light (OpenEXR) are shown in it by their previews,
//! which lie with the video's segments, and so does its sound, until the job is forgotten: a frame rendered anew makes a new
//! video of all of them.

mod file_outputs;
mod images;
mod put;
#[cfg(test)]
mod tests;
mod zip;

use super::cause::{is_full, plain_cause, with_causes};
use super::event::Event;
use super::leftover::part_beside;
use super::render::{Renderer, encode_with_blender};
use super::store::Store;
use super::video::{Encoder, VideoError, VideoSpec};
use crate::farm::event::Input;
use crate::farm::id::{JobId, Unit};
use crate::farm::job::{JobSpec, OutputSpec};
use crate::farm::op::{Output, OutputRole};
use crate::wire::is_file_output;
use images::Images;
use put::{Place, is_absent, put, put_new, put_one};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use zip::Zip;

/// Frames of a job being put under their names at once; the rest wait. Delivery is the disk's work, more would not speed
/// it up. Each job has its own: a folder that hangs holds up nobody else's.
const AT_ONCE: usize = 4;
/// Frames announced to a video task and not yet taken.
const MAX_WAITING: usize = 1024;
/// Between two attempts to write a video or a ZIP file to a full disk (guess: people make room within minutes).
const RETRY: Duration = Duration::from_secs(5);
/// A frame not put under its name for so long is told of, and again after as long (guess: a disk that spins up, or writes
/// a large frame through a slow network, needs less).
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// Why a video that was wanted late is silent: sound is mixed where the first frame is rendered, and takes its time there.
const UNMIXED: &str = "the job was submitted with --no-video, so none was mixed";

/// What a job's video is told.
enum Command {
    Frame(i32),
    Finish(Vec<i32>),
}

/// One job being collected on this machine.
struct Job {
    collection: u64,
    spec: Arc<JobSpec>,
    output: OutputSpec,
    /// What puts its frames under their names; dropped, they are aborted.
    tasks: JoinSet<()>,
    permits: Arc<Semaphore>,
    /// Delivered frames.
    frames: BTreeSet<i32>,
    images: Images,
    /// The paths of the file outputs of frames that have some.
    file_outputs: BTreeMap<i32, Vec<String>>,
    video: Option<Video>,
    zip: Option<Zip>,
}

/// The task of a job's video.
struct Video {
    /// `None` once it takes no more frames.
    sender: Option<mpsc::Sender<Command>>,
    task: JoinHandle<()>,
}

/// Everything being collected on this machine.
pub struct Delivery {
    store: Arc<Store>,
    dir: PathBuf,
    events: mpsc::Sender<Event>,
    silent_after: Duration,
    retry_zip: Duration,
    tasks: JoinSet<()>,
    jobs: BTreeMap<JobId, Job>,
    /// For machines without ffmpeg.
    encoder: Arc<Mutex<Option<Renderer>>>,
    /// Notes for people by job: how the video was made.
    notes: Arc<Mutex<BTreeMap<JobId, String>>>,
}

impl Delivery {
    /// Nothing yet. Segments of videos live under `dir`.
    pub fn new(store: Arc<Store>, dir: PathBuf, events: mpsc::Sender<Event>) -> Self {
        Self {
            store,
            dir,
            events,
            silent_after: SILENT_AFTER,
            retry_zip: RETRY,
            tasks: JoinSet::new(),
            jobs: BTreeMap::new(),
            encoder: Arc::default(),
            notes: Arc::default(),
        }
    }

    /// The Blender to encode with where there is no ffmpeg.
    pub fn set_encoder(&self, renderer: Option<Renderer>) {
        *lock(&self.encoder) = renderer;
    }

    /// How a job's video was made, if there is something to say about it.
    pub fn note(&self, job: JobId) -> Option<String> {
        lock(&self.notes).get(&job).cloned()
    }

    /// Puts a frame's files under their names. Images that were there before the job take nothing's place.
    pub fn deliver(
        &mut self,
        (job, collection): (JobId, u64),
        spec: Arc<JobSpec>,
        to: &OutputSpec,
        (unit, epoch): (Unit, u32),
        (outputs, is_kept): (Vec<Output>, bool),
    ) {
        while self.tasks.try_join_next().is_some() {}
        let format = spec.format;
        let images = images::Frame::of(&spec, to, unit.frame, &outputs);
        let image = Place { role: OutputRole::Image, path: Path::new(&to.directory).join(&images.first) };
        let preview = (spec.format.has_preview() && to.video.is_some())
            .then(|| Place { role: OutputRole::Preview, path: preview_at(&self.work_dir(job), unit.frame) });
        let has_sound = to.video.is_some() && spec.sound_with(unit).is_some();
        let sound = has_sound.then(|| Place { role: OutputRole::Sound, path: sound_at(&self.work_dir(job)) });
        let beside: Vec<Place> = preview.into_iter().chain(sound).collect();
        let put_image = if is_kept { put_new } else { put_one };
        self.begin((job, collection), spec, to);
        let Some(state) = self.jobs.get_mut(&job) else { return };
        state.images.set(to, unit.frame, format, &images);
        let aux = outputs.iter().filter(|output| output.role == OutputRole::Aux && is_file_output(&output.path));
        let paths: Vec<String> = aux.map(|output| output.path.clone()).collect();
        match paths.is_empty() {
            true => state.file_outputs.remove(&unit.frame),
            false => state.file_outputs.insert(unit.frame, paths),
        };
        while state.tasks.try_join_next().is_some() {}
        let (store, events, permits) = (self.store.clone(), self.events.clone(), state.permits.clone());
        let (silent_after, directory) = (self.silent_after, PathBuf::from(&to.directory));
        state.tasks.spawn(async move {
            let Ok(_permit) = permits.acquire().await else { return };
            let folder = image.path.parent().unwrap_or(&image.path).to_path_buf();
            let mut putting = tokio::task::spawn_blocking(move || {
                let put = images
                    .put_others(&store, &directory, put_image)
                    .and_then(|()| put(&store, &outputs, &image, &beside, put_image))
                    .and_then(|()| file_outputs::put(&store, images.not_among(&outputs), &directory, unit.frame));
                let absent = outputs.iter().map(|output| output.blob).filter(|blob| !store.has(*blob));
                put.map_err(|(folder, error)| (folder, error, absent.collect()))
            });
            let put = loop {
                if let Ok(put) = tokio::time::timeout(silent_after, &mut putting).await {
                    break put;
                }
                let reason = unanswered(job, &folder);
                let _ = events.send(Event::Farm(Input::CollectionDelayed { job, collection, reason })).await;
            };
            let input = match put.unwrap_or_else(|panic| Err((folder, io::Error::other(panic), Vec::new()))) {
                Ok(()) => Input::Delivered { job, collection, unit, epoch },
                Err((_, error, gone)) if is_absent(&error) => Input::Undeliverable { job, collection, unit, gone },
                Err((folder, error, _)) => {
                    let reason = why_not(&error, &folder);
                    Input::DeliveryFailed { job, collection, unit, reason }
                }
            };
            let _ = events.send(Event::Farm(input)).await;
        });
    }

    /// Makes room for what is under way for a job, unless there is.
    fn begin(&mut self, (job, collection): (JobId, u64), spec: Arc<JobSpec>, to: &OutputSpec) {
        if self.is_current(job, collection) {
            return;
        }
        // Collected anew: what is in the first place stays there, and what waited to go there does not any more.
        let (video, zip) = self.stop(job);
        let state = Job {
            collection,
            spec,
            output: to.clone(),
            tasks: JoinSet::new(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            frames: BTreeSet::new(),
            images: Images::default(),
            file_outputs: BTreeMap::new(),
            video: video.map(|task| Video { sender: None, task }),
            zip,
        };
        self.jobs.insert(job, state);
    }

    /// A frame is there: the video may have it.
    pub fn delivered(&mut self, (job, collection): (JobId, u64), frame: i32) {
        let Some(state) = self.jobs.get_mut(&job).filter(|state| state.collection == collection) else { return };
        state.frames.insert(frame);
        if state.output.video.is_none() {
            return;
        }
        if state.video.as_ref().is_some_and(|video| video.sender.is_none() && !video.task.is_finished()) {
            // The next video begins with it.
            return;
        }
        if let Some(sender) = self.video(job)
            && sender.try_send(Command::Frame(frame)).is_err()
        {
            // The task reads the frames it did not hear of when it is told to finish.
            tracing::debug!(job = %job.short(), frame, "the video's queue is full");
        }
    }

    /// Every frame there will be is delivered: finish the video, if one is wanted.
    pub fn finish(&mut self, (job, collection): (JobId, u64), missing: Vec<i32>) {
        let state = self.jobs.get(&job).filter(|state| state.collection == collection);
        let wanted = state.is_some_and(|state| state.output.video.is_some() && !state.frames.is_empty());
        if !wanted {
            let events = self.events.clone();
            self.tasks.spawn(async move {
                let _ = events.send(Event::Farm(Input::VideoFinished { job, collection, outcome: Ok(()) })).await;
            });
            return;
        }
        if let Some(sender) = self.video(job) {
            // Whatever comes now is for the next one.
            if let Some(video) = self.jobs.get_mut(&job).and_then(|state| state.video.as_mut()) {
                video.sender = None;
            }
            self.tasks.spawn(async move {
                let _ = sender.send(Command::Finish(missing)).await;
            });
        }
    }

    /// A job was canceled: nothing more of it is wanted. What is under its final names stays.
    pub fn cancel(&mut self, (job, collection): (JobId, u64), to: &OutputSpec) {
        let (_, zip) = self.stop(job);
        let left = to.zip.as_ref().map(|zip| part_beside(Path::new(zip), &self.work_dir(job)));
        let events = self.events.clone();
        self.tasks.spawn(async move {
            let _ = events.send(Event::Farm(Input::VideoFinished { job, collection, outcome: Ok(()) })).await;
            zip::remove_after(zip, left).await;
        });
    }

    /// A job is gone for good: so is what was under way for it. What is under its final names stays.
    pub fn forget(&mut self, job: JobId) {
        lock(&self.notes).remove(&job);
        let segments = self.work_dir(job);
        let out = self.jobs.get(&job).and_then(|state| state.output.zip.as_ref());
        let left = out.map(|zip| part_beside(Path::new(zip), &segments));
        let (video, zip) = self.stop(job);
        self.tasks.spawn(async move {
            if let Some(task) = video {
                let _ = task.await;
            }
            let _ = tokio::fs::remove_dir_all(segments).await;
            zip::remove_after(zip, left).await;
        });
    }

    /// Ends everything at once; segments stay for the next start.
    pub async fn shut_down(&mut self) {
        self.tasks.shutdown().await;
        while let Some(&job) = self.jobs.keys().next() {
            let (video, zip) = self.stop(job);
            if let Some(task) = video {
                let _ = task.await;
            }
            if let Some(zip) = zip {
                zip.ended().await;
            }
        }
    }

    /// The folder of a job's own.
    fn work_dir(&self, job: JobId) -> PathBuf {
        self.dir.join(job.to_string())
    }

    /// Whether a job's frames go where this collection has them go.
    fn is_current(&self, job: JobId, collection: u64) -> bool {
        self.jobs.get(&job).is_some_and(|state| state.collection == collection)
    }

    /// Ends what is under way for a job. Returns the tasks of its video and its ZIP file, which may need a moment yet.
    fn stop(&mut self, job: JobId) -> (Option<JoinHandle<()>>, Option<Zip>) {
        let Some(Job { video, zip, .. }) = self.jobs.remove(&job) else { return (None, None) };
        video.iter().for_each(|video| video.task.abort());
        zip.iter().for_each(Zip::stop);
        (video.map(|video| video.task), zip)
    }

    /// The job's video task, started with the frames there are.
    fn video(&mut self, job: JobId) -> Option<mpsc::Sender<Command>> {
        let state = self.jobs.get_mut(&job)?;
        let former = match state.video.take() {
            Some(Video { sender: Some(sender), task }) if !task.is_finished() => {
                state.video = Some(Video { sender: Some(sender.clone()), task });
                return Some(sender);
            }
            former => former,
        };
        let out = PathBuf::from(state.output.video.clone()?);
        let work_dir = self.dir.join(job.to_string());
        let (sender, commands) = mpsc::channel(MAX_WAITING);
        let collection = state.collection;
        let task = Task {
            job: (job, collection),
            frames: state.spec.frames.iter().collect(),
            spec: state.spec.clone(),
            output: state.output.clone(),
            images: state.images.clone(),
            out,
            work_dir,
            encoder: self.encoder.clone(),
            notes: self.notes.clone(),
        };
        let (events, known) = (self.events.clone(), state.frames.clone());
        let handle = tokio::spawn(async move {
            // They write the same segments.
            if let Some(former) = former {
                let _ = former.task.await;
            }
            if let Some(outcome) = task.run(known, commands, &events).await {
                let _ = events.send(Event::Farm(Input::VideoFinished { job, collection, outcome })).await;
            }
        });
        state.video = Some(Video { sender: Some(sender.clone()), task: handle });
        Some(sender)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The task of one video.
struct Task {
    /// And its collection.
    job: (JobId, u64),
    frames: Vec<i32>,
    spec: Arc<JobSpec>,
    output: OutputSpec,
    images: Images,
    out: PathBuf,
    work_dir: PathBuf,
    encoder: Arc<Mutex<Option<Renderer>>>,
    notes: Arc<Mutex<BTreeMap<JobId, String>>>,
}

impl Task {
    /// Feeds the encoder until told to finish; `None` when nobody will.
    async fn run(
        self,
        delivered: BTreeSet<i32>,
        mut commands: mpsc::Receiver<Command>,
        events: &mpsc::Sender<Event>,
    ) -> Option<Result<(), String>> {
        let mut known = BTreeMap::new();
        for frame in delivered {
            known.insert(frame, self.shown_by(frame).await);
        }
        let mut encoder = self.open(&known).await;
        let missing = loop {
            match commands.recv().await? {
                Command::Frame(frame) => {
                    let path = self.shown_by(frame).await;
                    known.insert(frame, path.clone());
                    encoder = add(encoder, frame, path).await;
                }
                Command::Finish(missing) => break missing,
            }
        };
        let lost: Vec<i32> =
            self.frames.iter().copied().filter(|f| !known.contains_key(f) && !missing.contains(f)).collect();
        for frame in lost {
            // Announced while the queue was full.
            let path = self.shown_by(frame).await;
            known.insert(frame, path.clone());
            encoder = add(encoder, frame, path).await;
        }
        loop {
            let Err(error) = self.encode(encoder, &missing).await else { return Some(Ok(())) };
            let Some(path) = error.full_disk() else {
                return Some(match error.no_ffmpeg() {
                    Some(why) => self.with_blender(&known, &why).await,
                    None => Err(with_causes(&error)),
                });
            };
            // Finished segments are kept, so that this costs the rest only.
            let ((job, collection), path) = (self.job, path.display());
            let reason = format!("the disk of {path} is full; make room there: the video is tried again");
            events.send(Event::Farm(Input::CollectionDelayed { job, collection, reason })).await.ok()?;
            tokio::time::sleep(RETRY).await;
            encoder = self.open(&known).await;
        }
    }

    /// The file that shows a delivered frame: its preview, or itself, or the first of its views.
    async fn shown_by(&self, frame: i32) -> PathBuf {
        if self.spec.format.has_preview() {
            let preview = preview_at(&self.work_dir, frame);
            if tokio::fs::try_exists(&preview).await.unwrap_or(false) {
                return preview;
            }
        }
        let names = self.images.names(&self.output, frame, self.spec.format);
        Path::new(&self.output.directory).join(names.first().map_or("", String::as_str))
    }

    /// An encoder that was told of the frames there are.
    async fn open(&self, known: &BTreeMap<i32, PathBuf>) -> Result<Encoder, VideoError> {
        let spec = VideoSpec {
            frames: self.frames.clone(),
            rate: self.spec.rate,
            out: self.out.clone(),
            work_dir: self.work_dir.clone(),
            size: self.spec.size,
            sound: Some(sound_at(&self.work_dir)),
        };
        let mut encoder = Encoder::open(spec).await;
        for (frame, path) in known {
            encoder = add(encoder, *frame, path.clone()).await;
        }
        encoder
    }

    /// Brings the video to its place.
    async fn encode(&self, encoder: Result<Encoder, VideoError>, missing: &[i32]) -> Result<(), VideoError> {
        let encoder = encoder?;
        self.make_folder().await.map_err(|source| VideoError::Io { path: self.out.clone(), source })?;
        super::fail::fail_point("mid-encode");
        let video = encoder.finish(missing).await?;
        let mut notes = lock(&self.notes);
        match video.silent.or_else(|| self.spec.is_unmixed().then(|| UNMIXED.to_owned())) {
            Some(why) => drop(notes.insert(self.job.0, format!("the video has no sound: {why}"))),
            None => drop(notes.remove(&self.job.0)),
        }
        Ok(())
    }

    async fn make_folder(&self) -> io::Result<()> {
        let folder = self.out.parent().unwrap_or(Path::new("/")).to_path_buf();
        let made = tokio::task::spawn_blocking(move || std::fs::create_dir_all(folder)).await;
        made.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }

    /// The video by Blender's encoder, since there is no ffmpeg: `why`.
    async fn with_blender(&self, known: &BTreeMap<i32, PathBuf>, why: &str) -> Result<(), String> {
        let install =
            format!("install ffmpeg, then run `swarm job collect {}`; the frames are kept", self.job.0.short());
        let renderer = lock(&self.encoder).clone();
        let Some(renderer) = renderer else {
            return Err(format!("{why}, and this machine has no Blender to make the video with; {install}"));
        };
        // A frame that failed holds its predecessor, or at the very start its successor.
        let first = known.values().next().cloned();
        let held = |frame: &i32| known.range(..=*frame).next_back().map(|(_, path)| path.clone()).or(first.clone());
        let frames: Vec<PathBuf> = self.frames.iter().filter_map(held).collect();
        if let Err(error) = self.make_folder().await {
            return Err(format!("{} cannot be written: {}", self.out.display(), plain_cause(&error)));
        }
        match encode_with_blender(&renderer, &frames, self.spec.rate, &self.out, &self.work_dir).await {
            Ok(()) => {
                let sound = match () {
                    () if self.spec.is_unmixed() => format!(", without sound: {UNMIXED}"),
                    () if sound_at(&self.work_dir).exists() => ", without its sound".into(),
                    () => String::new(),
                };
                let text = format!("{why}: Blender's own encoder made the video{sound}");
                lock(&self.notes).insert(self.job.0, text);
                Ok(())
            }
            Err(error) => Err(format!("{}; {install}", with_causes(&error))),
        }
    }
}

/// One more frame; the first error stays.
async fn add(encoder: Result<Encoder, VideoError>, frame: i32, path: PathBuf) -> Result<Encoder, VideoError> {
    let mut encoder = encoder?;
    encoder.add(frame, path).await?;
    Ok(encoder)
}

/// That frames neither get into their folder nor fail to.
fn unanswered(job: JobId, folder: &Path) -> String {
    let (job, folder) = (job.short(), folder.display());
    format!("{folder} does not answer; mend that, or run `swarm job collect {job} --output DIR` with another folder")
}

/// Why frames do not get into their folder, in the same words for each of them.
fn why_not(error: &io::Error, folder: &Path) -> String {
    let folder = folder.display();
    match error.kind() {
        _ if is_full(error) => {
            format!(
                "the disk of {folder} is full; make room there: finished frames are kept and go there by themselves"
            )
        }
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::NotFound => format!(
            "{folder} cannot be written ({}); mend that: finished frames are kept and go there by themselves",
            error.kind()
        ),
        _ => format!("{}; it is tried again", plain_cause(error)),
    }
}

/// The preview of a frame, in the folder of the video's own.
fn preview_at(work_dir: &Path, frame: i32) -> PathBuf {
    work_dir.join("previews").join(format!("{frame}.jpg"))
}

/// The sound of a video, in the folder of the video's own.
fn sound_at(work_dir: &Path) -> PathBuf {
    work_dir.join("sound.flac")
}
