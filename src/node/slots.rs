//! The machine's render slots: resident Blenders, one per slot and scene, and the units they are given.
//!
//! A unit runs as a task that owns its worker, so that stopping the unit is dropping the task: the worker's Blender dies
//! with it. The moment Blender has drawn a unit its worker is free for the next; the task goes on to check the image and
//! to store it. A worker without a unit leaves after [`IDLE`]. Where slots have a GPU each, a slot is known by it.

use super::Node;
use super::cause::is_full;
use super::chunk::Chunking;
use super::event::Event;
use super::fail::fail_point;
use super::gpus;
use super::leftover::remove_tree;
use super::logs::{InHand, Logs};
use super::render::{DeviceInfo, Disk, Renderer, UnitFailure, Worker, WorkerScene, choose_renderer};
use super::scene;
use super::self_test::self_test;
use super::store::{Store, keep_private, make_private_dir};
use crate::farm::blob::Manifest;
use crate::farm::event::{Input, Rendered};
use crate::farm::id::{BlobId, JobId, Unit};
use crate::farm::job::{Device, JobSpec, Series};
use crate::farm::op::{FailureKind, MAX_TEXT_BYTES, MAX_WARNINGS, Output, OutputRole};
use crate::wire;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

/// A Blender without a unit leaves after this. DESIGN §6 allows 60 s.
const IDLE: Duration = Duration::from_secs(30);
/// Longest warning that goes to the other machines, bytes; the log has all of it (guess: two lines of a terminal, and a
/// path).
const WARNING_MAX_BYTES: usize = 400;
/// Most units that are drawn and not stored yet, each an image in memory; then Blenders wait (guess: one is stored while
/// another is drawn, and a few come at once).
const STORING_MAX: usize = 4;
/// What is drawn waits for so long before it is looked at, so that Blender has its next unit first. A look takes a
/// processor for some milliseconds, and a Blender, which has a lower priority, waits for that one if it is woken on it,
/// though another is idle: without this it had the unit after 2.0 ms, and has it after 0.7 (measured, two cores, 480 × 270).
const HEAD_START: Duration = Duration::from_millis(1);
/// Most idle workers looked through; more than any machine has slots.
const MAX_IDLE: usize = 256;

/// What a worker has open: a job as one of its revisions has it.
pub type Scene = (JobId, u32);

/// A worker between units.
struct Idle {
    scene: Scene,
    worker: Worker,
    gpu: Option<DeviceInfo>,
    /// The frame it was at last.
    frame: i32,
    since: Duration,
}

/// A unit to render.
pub struct Work {
    /// Its job, and which revision of that.
    pub scene: Scene,
    /// The job as that revision has it.
    pub spec: Arc<JobSpec>,
    /// Which.
    pub unit: Unit,
    /// Epoch.
    pub epoch: u32,
    /// In a Blender that has rendered nothing yet.
    pub fresh: bool,
    /// Whether this machine runs scripts of whoever asks for it.
    pub may_run_scripts: bool,
    /// Longest time it may take.
    pub time_limit: Option<Duration>,
}

/// Blender has drawn a unit and is free; what it drew is being looked at.
pub struct Free {
    /// Its job, and which revision of that.
    pub scene: Scene,
    /// Which.
    pub unit: Unit,
    /// Names the task that ran it.
    pub run: u64,
    /// For the next unit.
    pub worker: Worker,
    /// Its slot's, where slots have a GPU each.
    pub gpu: Option<DeviceInfo>,
}

/// How a unit ended, with the worker if it lives and was not told [`Free`] before.
pub struct Finished {
    /// Its job, and which revision of that.
    pub scene: Scene,
    /// Which.
    pub unit: Unit,
    /// Names the task that ran it.
    pub run: u64,
    /// For the farm.
    pub input: Input,
    /// For the next unit.
    pub worker: Option<Worker>,
    /// Its slot's, where slots have a GPU each.
    pub gpu: Option<DeviceInfo>,
    /// Whether Blender, which knew that GPU, did not find it any more.
    pub has_lost_gpu: bool,
}

/// A unit in hand.
struct Running {
    /// Names its task.
    run: u64,
    task: AbortHandle,
    /// Of the slot that it takes: none once it is drawn.
    gpu: Option<DeviceInfo>,
}

/// All slots.
pub struct Slots {
    store: Arc<Store>,
    logs: Arc<Logs>,
    dir: PathBuf,
    threads: Option<u32>,
    events: mpsc::Sender<Event>,
    /// What was found on this machine.
    pub renderers: Vec<Renderer>,
    /// The GPU of each slot, where each has one.
    pub gpus: Vec<DeviceInfo>,
    idle: Vec<Idle>,
    running: BTreeMap<(JobId, Unit), Running>,
    testing: Option<AbortHandle>,
    /// All that may hold a Blender besides `idle`: units, the test frame, and Blenders taking their leave.
    tasks: JoinSet<()>,
    runs: u64,
    storing: Arc<Semaphore>,
}

impl Slots {
    /// No renderers yet. Scenes are laid out under `dir`, which is the node's own and emptied here.
    pub fn new(
        store: Arc<Store>,
        logs: Arc<Logs>,
        dir: PathBuf,
        threads: Option<u32>,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        make_private_dir(&dir)?;
        keep_private(&dir)?;
        // What an earlier run left half-rendered counts for nothing, and its scenes are laid out anew when they are wanted.
        for gone in ["out", "scenes", "cells"] {
            remove_tree(&dir.join(gone))?;
            std::fs::create_dir_all(dir.join(gone))?;
        }
        let storing = Arc::new(Semaphore::new(STORING_MAX));
        let (renderers, gpus, idle) = (Vec::new(), Vec::new(), Vec::new());
        let (running, testing, tasks, runs) = (BTreeMap::new(), None, JoinSet::new(), 0);
        Ok(Self { store, logs, dir, threads, events, renderers, gpus, idle, running, testing, tasks, runs, storing })
    }

    /// Begins a unit.
    pub fn render(&mut self, work: Work) {
        self.stop(work.scene.0, work.unit);
        let spec = &work.spec;
        let renderer =
            choose_renderer(&self.renderers, spec.series, spec.min_version, spec.needs, spec.settings.device).cloned();
        let gpu = self.free_gpu(work.scene, renderer.as_ref(), spec.settings.device);
        let mut worker = None;
        let is_here = |idle: &Idle| idle.gpu == gpu;
        if let Some(at) = self.idle.iter().position(|idle| idle.scene == work.scene && is_here(idle)) {
            let idle = self.idle.swap_remove(at);
            // A simulation goes forward only: what it came to beyond this frame would not go again.
            let is_past = work.spec.settings.simulate_from.is_some() && idle.frame >= work.unit.frame;
            // A fresh one is asked for when the unit failed before: what lives may be the reason.
            worker = (!work.fresh && !is_past && idle.worker.lives()).then_some(idle.worker);
        } else if let Some(at) = self.idle.iter().rposition(is_here).or(self.idle.len().checked_sub(1)) {
            // Another job's Blender gives its memory back before a new one starts.
            self.tasks.spawn(self.idle.swap_remove(at).worker.close());
        }
        self.runs += 1;
        let run = Run {
            number: self.runs,
            renderer,
            gpu: gpu.clone(),
            store: self.store.clone(),
            logs: self.logs.clone(),
            dir: self.dir.clone(),
            threads: self.threads,
            events: self.events.clone(),
            storing: self.storing.clone(),
        };
        let (key, number) = ((work.scene.0, work.unit), run.number);
        let task = self.tasks.spawn(run.unit(work, worker));
        self.running.insert(key, Running { run: number, task, gpu });
    }

    /// The GPU of a slot for the next unit: nobody renders on it, this Blender knows it, it has the scene open.
    fn free_gpu(&self, scene: Scene, renderer: Option<&Renderer>, device: Device) -> Option<DeviceInfo> {
        let rank = |gpu: &&DeviceInfo| {
            let gpu = Some(*gpu);
            let units = self.running.values().filter(|running| running.gpu.as_ref() == gpu).count();
            let is_open = self.idle.iter().any(|idle| idle.scene == scene && idle.gpu.as_ref() == gpu);
            (units, !knows(renderer, gpu, device), !is_open)
        };
        self.gpus.iter().min_by_key(rank).cloned()
    }

    /// Ends a unit at once; its Blender dies.
    pub fn stop(&mut self, job: JobId, unit: Unit) {
        if let Some(running) = self.running.remove(&(job, unit)) {
            running.task.abort();
        }
    }

    /// A worker is free; says whether its unit still counts (it was not stopped meanwhile).
    pub fn free(&mut self, free: Free, now: Duration) -> bool {
        let Free { scene, unit, run, worker, gpu } = free;
        self.keep_idle(Idle { scene, worker, gpu, frame: unit.frame, since: now });
        let counts = self.counts(scene.0, unit, run);
        if counts && let Some(running) = self.running.get_mut(&(scene.0, unit)) {
            running.gpu = None;
        }
        counts
    }

    /// A unit ended; gives what the farm is to hear, if that still counts (it was not stopped meanwhile).
    pub fn finished(&mut self, finished: Finished, now: Duration) -> Option<Input> {
        let Finished { scene, unit, run, input, worker, gpu, .. } = finished;
        if let Some(worker) = worker {
            self.keep_idle(Idle { scene, worker, gpu, frame: unit.frame, since: now });
        }
        let counts = self.counts(scene.0, unit, run);
        if counts {
            self.running.remove(&(scene.0, unit));
        }
        counts.then_some(input)
    }

    fn counts(&self, job: JobId, unit: Unit, run: u64) -> bool {
        self.running.get(&(job, unit)).is_some_and(|running| running.run == run)
    }

    fn keep_idle(&mut self, idle: Idle) {
        if idle.worker.lives() && self.idle.len() < MAX_IDLE {
            self.idle.push(idle);
        }
    }

    /// Lets go of Blenders that have had nothing to do, or whose job is over.
    pub fn reap(&mut self, now: Duration, is_over: impl Fn(JobId) -> bool) {
        let mut kept = Vec::new();
        for idle in std::mem::take(&mut self.idle) {
            if now.saturating_sub(idle.since) >= IDLE || is_over(idle.scene.0) {
                self.tasks.spawn(idle.worker.close());
            } else {
                kept.push(idle);
            }
        }
        self.idle = kept;
        while self.tasks.try_join_next().is_some() {}
    }

    /// Lets go of all Blenders that have nothing to do: their memory is wanted now.
    pub fn let_idle_go(&mut self) {
        for idle in std::mem::take(&mut self.idle) {
            self.tasks.spawn(idle.worker.close());
        }
    }

    /// Whether units are in hand, or Blenders wait for more of them.
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty() || !self.idle.is_empty()
    }

    /// Begins something with a Blender of its own, which is given threads, folder and loop as units are.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        work: impl FnOnce(Option<u32>, PathBuf, mpsc::Sender<Event>) -> F,
    ) -> AbortHandle {
        self.tasks.spawn(work(self.threads, self.dir.clone(), self.events.clone()))
    }

    /// Begins a test frame with the Blenders of these series; [`Input::SelfTested`] follows.
    pub fn self_test(&mut self, series: &BTreeSet<Series>) {
        let wanted = |renderer: &&Renderer| series.is_empty() || series.contains(&renderer.series);
        let renderers: Vec<Renderer> = self.renderers.iter().filter(wanted).cloned().collect();
        let (threads, dir, events) = (self.threads, self.dir.clone(), self.events.clone());
        let task = self.tasks.spawn(async move {
            let outcome = self_test(&renderers, threads, &dir).await;
            let _ = events.send(Event::Farm(Input::SelfTested(outcome))).await;
        });
        if let Some(old) = self.testing.replace(task) {
            old.abort();
        }
    }

    /// Ends everything; every Blender is gone when this returns.
    pub async fn shut_down(&mut self) {
        for running in std::mem::take(&mut self.running).into_values() {
            running.task.abort();
        }
        if let Some(test) = self.testing.take() {
            test.abort();
        }
        self.let_idle_go();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Whether this Blender can render on that GPU, as far as it was found.
impl Node {
    /// A unit ended.
    pub(super) fn unit_finished(&mut self, finished: Finished) {
        // Inside a command its own watcher tells.
        if let Input::RenderFailed { job, unit, message, .. } = &finished.input
            && !self.options.embedded
        {
            tracing::warn!(job = %job.short(), frame = unit.frame, "{message}");
        }
        self.look_at_gpu(&finished);
        if let Some(input) = self.slots.finished(finished, self.clock.now()) {
            self.turn(input);
        }
    }
}

fn knows(renderer: Option<&Renderer>, gpu: Option<&DeviceInfo>, device: Device) -> bool {
    renderer.and_then(|renderer| gpus::of_renderer(renderer, gpu, device)).is_some_and(|own| !own.is_empty())
}

/// What the task of a unit needs.
struct Run {
    number: u64,
    renderer: Option<Renderer>,
    gpu: Option<DeviceInfo>,
    store: Arc<Store>,
    logs: Arc<Logs>,
    dir: PathBuf,
    threads: Option<u32>,
    events: mpsc::Sender<Event>,
    storing: Arc<Semaphore>,
}

impl Run {
    async fn unit(self, work: Work, worker: Option<Worker>) {
        let (job, unit, epoch) = (work.scene.0, work.unit, work.epoch);
        let in_hand = self.logs.begin(job, unit.frame);
        let mut has_lost_gpu = false;
        let (input, worker) = match self.render(&work, worker, &in_hand).await {
            Ok(result) => (Input::Rendered { job, unit, epoch, result }, None),
            Err((failure, worker)) => {
                let store = self.store.clone();
                let text = failure.log.clone();
                let stored = tokio::task::spawn_blocking(move || store.put_bytes(text.as_bytes())).await;
                let log = stored.ok().and_then(Result::ok).map(|(blob, _)| blob).filter(|_| !failure.log.is_empty());
                self.keep_log(&work, &failure.log).await;
                let kind = failure.kind;
                // One that goes on found its GPU when it started: an engine draws in software beside it.
                has_lost_gpu = kind == FailureKind::WrongDevice
                    && !failure.worker_lives
                    && knows(self.renderer.as_ref(), self.gpu.as_ref(), work.spec.settings.device);
                let message = clip(&failure.message);
                (Input::RenderFailed { job, unit, epoch, kind, message, log }, worker.filter(|_| failure.worker_lives))
            }
        };
        drop(in_hand);
        let (scene, run, gpu) = (work.scene, self.number, self.gpu);
        let finished = Finished { scene, unit, run, input, worker, gpu, has_lost_gpu };
        // The loop is gone when this fails, and so is whoever would use the worker.
        let _ = self.events.send(Event::UnitFinished(Box::new(finished))).await;
    }

    async fn render(
        &self,
        work: &Work,
        worker: Option<Worker>,
        in_hand: &InHand,
    ) -> Result<Rendered, (UnitFailure, Option<Worker>)> {
        // Asked here once more, whatever led here.
        if !work.may_run_scripts && !work.spec.settings.scripts.is_none() {
            let message = "the job has scripts, and this machine does not run them; see `swarm trust`".to_owned();
            return Err((failure(message, String::new()), None));
        }
        let mut worker = match worker {
            Some(worker) => worker,
            None => self.start(work).await.map_err(|failure| (failure, None))?,
        };
        let spec = &work.spec;
        let name = format!("{}-{}-{}.{}", work.scene.0.short(), work.unit.frame, self.number, spec.format.extension());
        let out = self.dir.join("out").join(name);
        let mut progress = worker.progress();
        in_hand.shows(worker.lines());
        let outcome = {
            let drawing = worker.draw(work.unit, &out, work.time_limit);
            tokio::pin!(drawing);
            loop {
                tokio::select! {
                    outcome = &mut drawing => break outcome,
                    Ok(()) = progress.changed() => {
                        let percent = (progress.borrow_and_update().clamp(0.0, 1.0) * 100.0) as u8;
                        let told = Input::Progress { job: work.scene.0, unit: work.unit, percent };
                        // Progress is news, not a promise: a full queue drops it.
                        let _ = self.events.try_send(Event::Farm(told));
                    }
                }
            }
        };
        let mut drawn = match outcome {
            Ok(drawn) => drawn,
            Err(failure) => return Err((failure, Some(worker))),
        };
        if let Some(sound) = spec.sound_with(work.unit) {
            // One that was stopped for its memory leaves the sound to another.
            if !worker.lives()
                && let Ok(another) = self.start(work).await
            {
                worker = another;
            }
            worker.mix(&mut drawn, &sound).await;
        }
        let brings_colours = worker.brings_colours();
        // Held until all of it is stored; nobody closes it.
        let _stores = self.storing.acquire().await;
        let free = Free { scene: work.scene, unit: work.unit, run: self.number, worker, gpu: self.gpu.clone() };
        let _ = self.events.send(Event::UnitDrawn(Box::new(free))).await;
        tokio::time::sleep(HEAD_START).await;
        let done = drawn.keep().await.map_err(|failure| (failure, None))?;
        let warned: String = done.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
        self.keep_log(work, &(done.log.clone() + &warned)).await;
        let (frame, first) = (work.unit.frame, &done.views.first);
        let with_name = |(path, bytes), role| {
            (path, bytes, spec.output.path_of(frame, spec.format, first, role).unwrap_or_default(), role)
        };
        let others = done.views.others.iter().map(|view| {
            let name = spec.output.view_name(frame, spec.format, &view.suffix);
            (view.from.clone(), view.bytes, name, OutputRole::Aux)
        });
        let preview = done.preview.map(|file| with_name(file, OutputRole::Preview));
        let aux = done.files.files.iter();
        let aux = aux.map(|file| (file.from.clone(), file.bytes, file.path.clone(), OutputRole::Aux));
        let sound = done.sound.map(|file| with_name(file, OutputRole::Sound));
        // The image comes first: by it a result is known.
        let image = std::iter::once(with_name((done.path, done.bytes), OutputRole::Image));
        let files: Vec<_> = image.chain(others).chain(preview).chain(aux).chain(sound).collect();
        let mut outputs = Vec::new();
        for (path, bytes, name, role) in &files {
            let imported = self.import(path.clone()).await;
            if *role == OutputRole::Sound
                && let Err(error) = &imported
            {
                tracing::warn!(frame = work.unit.frame, %error, "the sound of a video could not be stored");
                let _ = std::fs::remove_file(path);
                continue; // the frame is worth having without
            }
            let blob = imported.map_err(|error| {
                files.iter().for_each(|(path, ..)| drop(std::fs::remove_file(path)));
                let room = if is_full(&error) { "; make room on the disk of the data directory" } else { "" };
                let message = format!("the frame was rendered and could not be stored: {error}{room}");
                (failure(message, done.log.clone()), None)
            })?;
            fail_point("after-image-fsync");
            outputs.push(Output { path: name.clone(), blob, bytes: *bytes, role: *role });
        }
        let build = self.renderer.as_ref().map_or(String::new(), |renderer| renderer.rendered_text(brings_colours));
        let millis = (done.seconds * 1000.0).clamp(0.0, f64::from(u32::MAX)) as u32;
        let warnings = done.warnings.iter().take(MAX_WARNINGS).map(|warning| cut(warning, WARNING_MAX_BYTES)).collect();
        let (device, build) = (clip(&done.device), clip(&build));
        Ok(Rendered { outputs, millis, device, build, blank: done.blank, warnings })
    }

    /// Takes a rendered file into the store.
    async fn import(&self, path: PathBuf) -> io::Result<BlobId> {
        let store = self.store.clone();
        let imported = tokio::task::spawn_blocking(move || store.import_file(&path, Chunking::Fixed));
        imported.await.unwrap_or_else(|panic| Err(io::Error::other(panic))).map(|(blob, _)| blob)
    }

    async fn start(&self, work: &Work) -> Result<Worker, UnitFailure> {
        let Some(renderer) = &self.renderer else {
            let message = format!("there is no Blender {} on this machine any more", work.spec.series);
            return Err(failure(message, String::new()));
        };
        let (store, dir, bundle) = (self.store.clone(), self.dir.clone(), work.spec.bundle);
        let laid_out = tokio::task::spawn_blocking(move || lay_out(&store, &dir, bundle)).await;
        let laid_out = laid_out.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        let LaidOut { blend, ocio, disk } = laid_out.map_err(|error| {
            failure(format!("the scene could not be laid out in {}: {error}", self.dir.display()), String::new())
        })?;
        let scene = WorkerScene {
            blend: Some(blend),
            settings: work.spec.settings.clone(),
            format: work.spec.format,
            size: work.spec.size,
            views: work.spec.views.clone(),
            threads: self.threads,
            ocio,
            gpus: gpus::of_renderer(renderer, self.gpu.as_ref(), work.spec.settings.device),
            // Nothing is played forward that could be kept beside a library.
            disk: if work.spec.settings.simulate_from.is_none() { Disk { blends: Vec::new(), ..disk } } else { disk },
        };
        Ok(Worker::start(renderer, scene, &self.dir).await?)
    }

    /// What Blender printed is kept here, for `job log`. Failing to keep it fails nothing.
    async fn keep_log(&self, work: &Work, text: &str) {
        let (logs, job, frame, text) = (self.logs.clone(), work.scene.0, work.unit.frame, text.to_owned());
        let kept = tokio::task::spawn_blocking(move || logs.keep(job, frame, &text)).await;
        if let Err(error) = kept.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            tracing::debug!(job = %job.short(), frame, %error, "a log was not kept");
        }
    }
}

fn failure(message: String, log: String) -> UnitFailure {
    UnitFailure { kind: FailureKind::CannotStart, message, log, worker_lives: false }
}

/// Cut to what an op may carry.
fn clip(text: &str) -> String {
    cut(text, MAX_TEXT_BYTES)
}

/// At most so many bytes, cut at a character.
fn cut(text: &str, max_bytes: usize) -> String {
    text[..text.floor_char_boundary(max_bytes)].to_owned()
}

/// Reads a whole blob of the store that fits in memory: manifests and logs.
pub fn read_blob(store: &Store, blob: BlobId, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store.open_blob(blob)?.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

/// A bundle as files.
struct LaidOut {
    /// To open.
    blend: PathBuf,
    /// What `OCIO` is to be for it.
    ocio: Option<OsString>,
    /// What a sandboxed Blender is to have of it.
    disk: Disk,
}

impl LaidOut {
    fn of(manifest: &Manifest, place: PathBuf) -> io::Result<Self> {
        let blends = manifest.files.iter().filter(|file| file.path.ends_with(".blend"));
        let blends = blends.map(|file| place.join(&file.path)).collect();
        let (blend, ocio) = (place.join(&manifest.main), scene::ocio_of(manifest, &place)?);
        let writes = scene::opened_for_writing(manifest).into_iter().map(|path| place.join(path)).collect();
        Ok(Self { blend, ocio, disk: Disk { reads: vec![place], writes, blends } })
    }
}

/// Lays a bundle out as files, once.
fn lay_out(store: &Store, dir: &Path, bundle: BlobId) -> io::Result<LaidOut> {
    let bytes = read_blob(store, bundle, wire::MANIFEST_MAX_BYTES as u64)?;
    let manifest = wire::decode_manifest(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let place = dir.join("scenes").join(bundle.to_string());
    if place.is_dir() {
        return LaidOut::of(&manifest, place);
    }
    // Two slots may come here at once: each lays out its own, the first to be whole gets the name.
    let half = dir.join("scenes").join(format!("{bundle}.{:016x}", rand::random::<u64>()));
    let placed = scene::lay_out(&manifest, &half, &mut |file, path| {
        if scene::is_opened_for_writing(&file.path) {
            // A copy: what the store gives out otherwise may be its own file by a second name, and is not to be written.
            return io::copy(&mut store.open_blob(file.map.id())?, &mut File::create_new(path)?).map(drop);
        }
        store.place(file.map.id(), path, file.executable)
    });
    let renamed = placed.and_then(|_| std::fs::rename(&half, &place));
    if let Err(error) = renamed {
        let _ = std::fs::remove_dir_all(&half);
        if !place.is_dir() {
            return Err(error);
        }
    }
    LaidOut::of(&manifest, place)
}

#[cfg(test)]
mod tests;
