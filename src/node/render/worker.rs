//! The resident worker: one Blender that has opened one scene and renders unit after unit.
//!
//! Starting Blender and loading the scene are paid once, not for each frame. A result counts when its file decodes and
//! has the right size ([`Drawn::keep`]). Blender's words are only ever taken against it: an error line outranks `Saved:`.
//! A worker is for one .blend; when it has failed in a way that leaves Blender in doubt, or when a render is dropped
//! half-way, Blender is killed and the next unit needs a new worker.

use super::child::{Child, Event, Gone, Group, Mode, cpu_ticks, memory_bytes};
use super::drawn::{Drawn, Parts, taken_sound};
use super::error::without_opengl;
use super::error::{INSTALL_EGL, RenderError, UnitFailure, explain, missing_engine, missing_opengl, with_way_out};
use super::files::FileOutputs;
use super::log::{Lines, Log, poisons, progress};
use super::memory::{Memory, SPARE_BYTES};
use super::sandbox::{Cell, Disk};
use super::sound::flac_seconds;
use super::views::{Views, suffixes};
use super::{DeviceInfo, FailureKind, Renderer};
use crate::farm::id::{Part, Unit};
use crate::farm::job::{FrameRate, ImageFormat, RenderSettings};
use crate::farm::op::Blank;
use crate::farm::overrides::Overrides;
use crate::farm::soundtrack::Soundtrack;
use crate::farm::views;
use crate::node::leftover::Leftover;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Silence after which a Blender that uses no CPU either is given up (DESIGN §6).
const STALL: Duration = Duration::from_secs(600);
/// How often the CPU use of Blender is looked at (guess).
const LOOK: Duration = Duration::from_secs(10);
/// Most time for mixing the sound of a video, for which Blender evaluates every frame of it without rendering (guess).
const MIX_LIMIT: Duration = Duration::from_secs(1200);

/// What a worker opens and how it renders it.
#[derive(Clone, Debug)]
pub struct WorkerScene {
    /// The .blend, absolute; `None`: Blender's own default scene.
    pub blend: Option<PathBuf>,
    /// What is set on the scene; the resolution at this percentage must come to `size`.
    pub settings: RenderSettings,
    /// Format of the images.
    pub format: ImageFormat,
    /// Width and height of every image, pixels.
    pub size: (u32, u32),
    /// Which files every frame is.
    pub views: views::Views,
    /// Threads; all if `None`.
    pub threads: Option<u32>,
    /// The configuration of OpenColorIO that the scene brings; without one it has Blender's own colours.
    pub ocio: Option<OsString>,
    /// GPUs that it may be rendered on, of one backend; all of the best if `None`.
    pub gpus: Option<Vec<DeviceInfo>>,
    /// What it needs of the disk where it is sandboxed, but for what is in the folder of the .blend.
    pub disk: Disk,
}

impl WorkerScene {
    /// As the driver takes it, with the path of the .blend as text.
    pub(super) fn to_json(&self, blend: Option<&str>) -> Value {
        let settings = &self.settings;
        json!({
            "blend": blend, "engine": settings.engine, "samples": settings.samples, "percent": settings.percent,
            "resolution": settings.resolution, "device": settings.device.name(), "format": self.format.blender_name(),
            "depth": settings.depth, "threads": self.threads, "simulate_from": settings.simulate_from,
            "overrides": overrides_json(&settings.overrides), "use_scripts": settings.scripts.in_files,
            "script": settings.scripts.file, "gpus": self.gpus,
        })
    }
}

/// As the driver takes them: the way to each property in steps.
fn overrides_json(overrides: &Overrides) -> Value {
    let set = overrides.set.iter().map(|property| {
        // Without steps the driver refuses it: a later version may know paths that this one does not.
        let (root, steps) = property.steps().map_or((None, Vec::new()), |(root, steps)| (Some(root), steps));
        json!({"told": property.to_string(), "root": root, "steps": steps, "value": property.value})
    });
    json!({
        "scene": overrides.scene, "camera": overrides.camera, "view_layers": overrides.view_layers,
        "set": set.collect::<Vec<_>>(),
    })
}

/// A rendered unit, checked and in place.
#[derive(Debug)]
pub struct Rendered {
    /// The image.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The preview and its length, where the format has one.
    pub preview: Option<(PathBuf, u64)>,
    /// Its views, where each has a file.
    pub views: Views,
    /// What the compositor's File Output nodes wrote.
    pub files: FileOutputs,
    /// The sound of the video and its length, if it was mixed with this unit and there is any.
    pub sound: Option<(PathBuf, u64)>,
    /// Seconds Blender took.
    pub seconds: f64,
    /// What rendered it: `CPU`, or backend and name of the GPUs, or the engine that is not Cycles and what that drew on.
    pub device: String,
    /// What the person should know: missing files, Python that did not run.
    pub warnings: Vec<String>,
    /// Whether the image shows nothing.
    pub blank: Option<Blank>,
    /// What Blender printed, the last 64 KiB.
    pub log: String,
}

/// One Blender with one scene. Dropping it kills Blender.
#[derive(Debug)]
pub struct Worker {
    // In this order: Blender is gone before its sandbox is.
    child: Option<Child>,
    cell: Option<Arc<Cell>>,
    version: String,
    scene: WorkerScene,
    device: String,
    warnings: Vec<String>,
    progress: watch::Sender<f32>,
    /// Of the next unit.
    lines: Lines,
    memory: Memory,
    stall: Stall,
}

/// When silence is a stall.
#[derive(Clone, Copy, Debug)]
struct Stall {
    after: Duration,
    look: Duration,
}

impl Worker {
    /// Starts `renderer`, has it open the scene and prepare it. `work_dir` holds the driver script; several workers may
    /// share it.
    pub async fn start(renderer: &Renderer, scene: WorkerScene, work_dir: &Path) -> Result<Self, RenderError> {
        Self::start_with(renderer, scene, work_dir, Stall { after: STALL, look: LOOK }).await
    }

    async fn start_with(
        renderer: &Renderer,
        scene: WorkerScene,
        work_dir: &Path,
        stall: Stall,
    ) -> Result<Self, RenderError> {
        let version = renderer.version_text();
        let blend = scene.blend.as_ref().map(|blend| (blend.to_str(), blend.display()));
        if let Some((None, path)) = blend {
            let message = format!("the path {path} is not UTF-8");
            return Err(RenderError::Scene { version, message, log: String::new() });
        }
        let blend = blend.and_then(|(text, _)| text);
        let cannot = |source| RenderError::Spawn { path: renderer.path.clone(), source };
        let (path, kind, ocio) = (&renderer.path, renderer.kind, scene.ocio.as_deref());
        let work_dir = std::path::absolute(work_dir).map_err(cannot)?;
        let cell = renderer.sandbox.as_ref().map(|sandbox| {
            let cell = Cell::new(sandbox, renderer, &scene.disk, scene.blend.as_deref(), &work_dir);
            cell.map(Arc::new)
        });
        let cell = cell.transpose().map_err(cannot)?;
        let started = Child::start(path, kind, Mode::Serve, scene.threads, ocio, &work_dir, cell.as_deref()).await;
        let mut child = started.map_err(cannot)?;
        let settings = &scene.settings;
        // If it is gone already, what follows says how.
        let _ = child.send(&scene.to_json(blend)).await;
        let mut log = Log::default();
        let mut watch = Watch::new(child.group(), stall, None);
        let answer = loop {
            match watch.next(&mut child).await {
                Seen::Event(Event::Answer(answer)) if answer["event"] == "opening" => log.forgive(),
                Seen::Event(Event::Answer(answer)) => break answer,
                Seen::Event(Event::Line(line)) => drop(log.push(line)),
                Seen::Event(Event::Gone(gone)) => {
                    let how = match &log.error {
                        Some(error) => format!("{gone} ({})", explain(error, ocio.is_some())),
                        None => gone.to_string(),
                    };
                    return Err(RenderError::Died { version, how, log: log.text() });
                }
                Seen::Stalled | Seen::TooLong => {
                    child.kill().await;
                    return Err(RenderError::Stalled { version, log: log.text() });
                }
            }
        };
        if answer["event"] != "ready" {
            child.kill().await;
            let message = explain(text(&answer["message"]), ocio.is_some());
            return Err(match answer["kind"].as_str() {
                Some("device") if !scene.gpus.as_ref().is_none_or(Vec::is_empty) => {
                    RenderError::GpuGone { message, log: log.text() }
                }
                Some("device") => RenderError::Device { message, log: log.text() },
                _ => RenderError::Scene { version, message, log: log.text() },
            });
        }
        let (major, minor, patch) = renderer.version;
        if answer["version"] != json!([major, minor, patch]) {
            child.kill().await;
            let parts = answer["version"].as_array().into_iter().flatten().map(Value::to_string);
            let (path, now) = (renderer.path.clone(), parts.collect::<Vec<_>>().join("."));
            return Err(RenderError::Replaced { path, now, was: version, log: log.text() });
        }
        let engine = settings.engine.is_none().then(|| missing_engine(&log, text(&answer["scene"]))).flatten();
        if let Some(message) = engine.or_else(|| log.error.as_deref().map(|error| explain(error, ocio.is_some()))) {
            child.kill().await;
            return Err(RenderError::Scene { version, message, log: log.text() });
        }
        for warning in answer["warnings"].as_array().into_iter().flatten() {
            log.warn(text(warning));
        }
        let device = text(&answer["device"]).to_string();
        let (progress, _) = watch::channel(0.0);
        let warnings = log.warnings;
        let (lines, memory) = (Lines::default(), Memory::new(SPARE_BYTES));
        Ok(Self { child: Some(child), cell, version, scene, device, warnings, progress, lines, memory, stall })
    }

    /// What it renders with, as in [`Rendered::device`].
    pub fn device(&self) -> &str {
        &self.device
    }

    /// What was to be said when the scene was opened.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How far the unit in hand is, 0 to 1.
    pub fn progress(&self) -> watch::Receiver<f32> {
        self.progress.subscribe()
    }

    /// What the next unit prints, as it comes.
    pub fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Whether its scene is not in the renderer's own colours.
    pub fn brings_colours(&self) -> bool {
        self.scene.ocio.is_some()
    }

    /// Whether it can render.
    pub fn lives(&self) -> bool {
        self.child.is_some()
    }

    /// Has Blender draw `unit` for the file `out`, which [`Drawn::keep`] checks and makes appear, whole or not at all.
    /// Blender is free for the next unit meanwhile. A unit that takes longer than `limit` has failed. When the future is
    /// dropped Blender is killed.
    pub async fn draw(&mut self, unit: Unit, out: &Path, limit: Option<Duration>) -> Result<Drawn, UnitFailure> {
        let mut log = Log::on(std::mem::take(&mut self.lines));
        match self.draw_logged(unit, out, limit, &mut log).await {
            Ok((seconds, parts, views)) => {
                self.warnings.iter().for_each(|warning| log.warn(warning));
                let (device, format, size) = (self.device.clone(), self.scene.format, self.scene.size);
                let (out, cell) = (out.to_path_buf(), self.cell.clone());
                Ok(Drawn { parts, views, out, format, size, seconds, device, log, _cell: cell })
            }
            Err((kind, message)) => {
                Err(UnitFailure { kind, message, log: log.text(), worker_lives: self.child.is_some() })
            }
        }
    }

    async fn draw_logged(
        &mut self,
        unit: Unit,
        out: &Path,
        limit: Option<Duration>,
        log: &mut Log,
    ) -> Result<(f64, Parts, Vec<String>), (FailureKind, String)> {
        let failed = |kind, message: String| Err((kind, message));
        if unit.part != Part::Whole {
            return failed(FailureKind::Error, format!("this version of swarm renders whole frames, not {unit}"));
        }
        let apart = self.cell.as_ref().map(|cell| cell.out());
        let parts = Parts::of(out, self.scene.format, apart).map_err(|error| {
            (FailureKind::Error, format!("the image cannot be written to {}: {error}", out.display()))
        })?;
        // It leaves `self` for as long as the render runs: dropped half-way, it is killed.
        let Some(child) = self.child.take() else {
            return failed(FailureKind::CannotStart, "this Blender was stopped; a new one is needed".into());
        };
        let preview = parts.preview.as_ref().and_then(|part| part.0.to_str());
        let files = parts.files.0.to_str();
        let (out, views) = (parts.image.0.to_str(), parts.views.0.to_str());
        let command = json!({ "frame": unit.frame, "out": out, "views": views, "preview": preview, "files": files });
        let mut unfinished = Unfinished { child: Some(child), parts };
        let Some(child) = unfinished.child.as_mut() else { return failed(FailureKind::CannotStart, String::new()) };
        self.progress.send_replace(0.0);
        // If it is gone, what follows says how.
        let _ = child.send(&command).await;
        let mut watch = Watch::new(child.group(), self.stall, limit);
        let answer = loop {
            let told = match watch.next(child).await {
                Seen::Event(Event::Answer(answer)) if answer["event"] == "stats" => progress(text(&answer["text"])),
                // Each frame on the way to this one may take as long.
                Seen::Event(Event::Answer(answer)) if answer["event"] == "stepped" => {
                    watch.deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
                    None
                }
                Seen::Event(Event::Answer(answer)) => break answer,
                Seen::Event(Event::Line(line)) => log.push(line),
                Seen::Event(Event::Gone(gone)) => {
                    return failed(FailureKind::Crash, died(&self.version, gone, unit, log));
                }
                Seen::Stalled => {
                    child.kill().await;
                    let span = self.stall.after.as_secs();
                    let what = format!("Blender {} hung at frame {unit}: for {span} seconds", self.version);
                    let message = format!("{what} it printed nothing and used no CPU; it was stopped");
                    return failed(FailureKind::Stalled, message);
                }
                Seen::TooLong => {
                    child.kill().await;
                    let limit = limit.unwrap_or_default().as_secs();
                    let message = format!("frame {unit} took longer than its time limit of {limit} seconds");
                    return failed(FailureKind::TimeLimit, message);
                }
            };
            if let Some(told) = told {
                self.progress.send_if_modified(|now| std::mem::replace(now, told.max(*now)) < told);
            }
        };
        if let Some(error) = answer["error"].as_str().or(log.error.as_deref()) {
            let message =
                format!("Blender {} failed at frame {unit}: {}", self.version, explain(error, self.brings_colours()));
            if !poisons(error) && !log.error.as_deref().is_some_and(poisons) {
                self.child = unfinished.child.take();
            }
            return match answer["kind"].as_str() {
                Some("device") => failed(FailureKind::WrongDevice, with_way_out(&message)),
                _ => failed(FailureKind::Error, message),
            };
        }
        text(&answer["device"]).clone_into(&mut self.device);
        let group = child.group().id();
        match self.memory.rendered(|| memory_bytes(group), Instant::now()) {
            Some(grown) => {
                tracing::info!(frame = unit.frame, "{grown}");
                log.push(format!("swarm: {grown}"));
                child.kill().await;
            }
            None => self.child = unfinished.child.take(),
        }
        self.progress.send_replace(1.0);
        Ok((answer["seconds"].as_f64().unwrap_or(0.0), unfinished.parts, suffixes(&answer, &self.scene.views)?))
    }

    /// Mixes the sound of the video, to go with what was drawn; none if nothing is heard in the scene. What goes wrong is a
    /// warning about the unit: it is rendered.
    pub async fn mix(&mut self, drawn: &mut Drawn, sound: &Soundtrack) {
        match self.mix_logged(drawn, sound).await {
            Ok(part) => drawn.parts.sound = part,
            Err(why) => drawn.log.warn(&format!("the video has no sound: {why}")),
        }
    }

    async fn mix_logged(&mut self, drawn: &mut Drawn, sound: &Soundtrack) -> Result<Option<Leftover>, String> {
        let apart = self.cell.as_ref().map(|cell| cell.out());
        let part = Parts::sound_of(&drawn.out, apart.as_deref()).map_err(|error| error.to_string())?;
        // As with a render: dropped half-way, Blender is killed before its file goes.
        let mut child = self.child.take().ok_or("this Blender was stopped")?;
        let rate = sound.rate.per_second();
        let command = json!({
            "out": part.0.to_str(), "first": sound.first, "last": sound.last, "rate": rate, "same": FrameRate::SAME,
        });
        // If it is gone, what follows says how.
        let _ = child.send(&json!({"mix": command})).await;
        let mut watch = Watch::new(child.group(), self.stall, Some(MIX_LIMIT));
        let answer = loop {
            match watch.next(&mut child).await {
                Seen::Event(Event::Answer(answer)) if answer["event"] == "mixed" => break answer,
                Seen::Event(Event::Answer(_)) => {}
                Seen::Event(Event::Line(line)) => drop(drawn.log.push(line)),
                Seen::Event(Event::Gone(gone)) => return Err(format!("Blender {} {gone} mixing it", self.version)),
                Seen::Stalled | Seen::TooLong => {
                    child.kill().await;
                    return Err(format!("Blender {} took too long to mix it and was stopped", self.version));
                }
            }
        };
        let warnings = answer["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
        if self.scene.settings.simulate_from.is_some() && (part.0.exists() || !warnings.is_empty()) {
            // It went through all frames for this, and a simulation does not go back.
            child.kill().await;
        } else {
            self.child = Some(child);
        }
        warnings.iter().for_each(|warning| drawn.log.warn(text(warning)));
        let part =
            taken_sound(part, &drawn.out).map_err(|error| format!("what Blender mixed cannot be used: {error}"))?;
        match flac_seconds(&part.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("what Blender mixed cannot be used: {error}")),
            Ok(seconds) if (seconds - sound.seconds()).abs() * rate > 1.0 => {
                Err(format!("Blender mixed {seconds:.3} seconds instead of {:.3}", sound.seconds()))
            }
            Ok(_) => Ok(Some(part)),
        }
    }

    /// Kills Blender and all it started, at once.
    pub fn kill(&mut self) {
        self.child = None;
    }

    /// Lets Blender leave by itself, and kills it if that takes longer than a few seconds.
    pub async fn close(mut self) {
        if let Some(child) = self.child.take() {
            child.close().await;
        }
    }
}

/// A render that has not ended yet: dropped so, Blender is killed and what it has written goes.
struct Unfinished {
    // In this order: Blender is gone before its files are.
    child: Option<Child>,
    parts: Parts,
}

/// Waits for a child with an eye on the clock and on its CPU use.
struct Watch {
    group: Arc<Group>,
    stall: Stall,
    deadline: Option<Instant>,
    alive_at: Instant,
    look_at: Instant,
    /// CPU time used up to the last look. Before the first it is not asked for: a short frame is over by then, and asking
    /// reads of every process of the machine.
    ticks: Option<u64>,
}

enum Seen {
    Event(Event),
    Stalled,
    TooLong,
}

impl Watch {
    fn new(group: Arc<Group>, stall: Stall, limit: Option<Duration>) -> Self {
        let now = Instant::now();
        let deadline = limit.and_then(|limit| now.checked_add(limit));
        Self { group, stall, deadline, alive_at: now, look_at: now + stall.look, ticks: None }
    }

    async fn next(&mut self, child: &mut Child) -> Seen {
        loop {
            let wake = self.deadline.map_or(self.look_at, |deadline| deadline.min(self.look_at));
            // The clock comes first: a child that prints without end must not keep us from it.
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake) => {}
                event = child.next() => {
                    self.alive_at = Instant::now();
                    return Seen::Event(event);
                }
            }
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                return Seen::TooLong;
            }
            if now < self.look_at {
                continue;
            }
            self.look_at = now + self.stall.look;
            let ticks = cpu_ticks(self.group.id());
            if !idle(self.ticks, ticks) {
                (self.ticks, self.alive_at) = (ticks, now);
            }
            if now - self.alive_at >= self.stall.after {
                return Seen::Stalled;
            }
        }
    }
}

/// Whether no CPU was used between two looks; where it cannot be told, that is no reason to give up a frame.
fn idle(before: Option<u64>, now: Option<u64>) -> bool {
    now.is_some() && before == now
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn died(version: &str, gone: Gone, unit: Unit, log: &Log) -> String {
    let last = log.last();
    if let Some(why) = last.as_deref().and_then(missing_opengl) {
        return format!("Blender {version} {}; {INSTALL_EGL}", without_opengl(why));
    }
    let last = last.map(|line| format!("; its last words: {line}")).unwrap_or_default();
    format!("Blender {version} {gone} at frame {unit}{last}")
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
