//! How fast a machine renders: the time of a certain frame, which all machines render once.
//!
//! By it machines are compared that have rendered nothing of a job, nor of any other. It is measured when there has been
//! nothing to do for a while, given up as soon as there is, and kept under what it depends on: the Blender, what that
//! computes on, and with how many threads.

use super::Node;
use super::event::Event;
use super::gpus;
use super::render::{DeviceInfo, Renderer, UnitFailure, Worker};
use super::self_test::default_scene;
use crate::farm::id::Unit;
use crate::farm::job::Device;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::AbortHandle;

/// Pixels of the frame on a side: Blender's own default scene.
const SIDE: u32 = 256;
/// Samples of each of its pixels. Two seconds on two cores (measured); a good GPU takes some tens of milliseconds.
const SAMPLES: u32 = 64;
/// What of Cycles' work the frame is, in samples of a pixel.
pub const WORK: u64 = SIDE as u64 * SIDE as u64 * SAMPLES as u64;
/// The first frame of a Blender loads and builds what the second has: it counts for nothing.
const FRAMES: i32 = 2;
/// Longest time of all of it (guess: a cold start, and GPU kernels to build).
const LIMIT: Duration = Duration::from_secs(300);
/// A machine is measured that has had nothing to do for this long (guess: longer than it takes to submit what one has just
/// started it for).
const REST: Duration = Duration::from_secs(60);
/// Largest file with a result that is read, bytes.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// Where the measurement stands.
pub(super) struct Benchmark {
    file: PathBuf,
    /// Since when there is nothing to do.
    rests_since: Duration,
    /// While it is measured.
    task: Option<AbortHandle>,
    /// Whether it was measured, or cannot be.
    is_over: bool,
}

/// A result.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    of: String,
    millis: u32,
}

impl Benchmark {
    /// Not measured, as far as is known yet. The result is kept in `dir`.
    pub fn new(dir: &Path, now: Duration) -> Self {
        Self { file: dir.join("benchmark.json"), rests_since: now, task: None, is_over: false }
    }
}

impl Node {
    /// Takes the result that is kept, if it is of these Blenders still.
    pub(super) fn recall_benchmark(&mut self) {
        let Some(of) = self.slots.renderers.first().map(|renderer| self.measured_of(renderer)) else { return };
        if let Some(millis) = recall(&self.benchmark.file, &of) {
            (self.capability.benchmark_millis, self.benchmark.is_over) = (millis, true);
        }
    }

    /// Begins to measure once there has been nothing to do for a while; gives it up when there is something.
    pub(super) fn look_for_rest(&mut self) {
        let now = self.clock.now();
        if self.slots.is_busy() || self.capability.paused {
            self.benchmark.rests_since = now;
            if let Some(task) = self.benchmark.task.take() {
                task.abort();
            }
            return;
        }
        let is_due = !self.benchmark.is_over && now >= self.benchmark.rests_since + REST;
        if !is_due || self.benchmark.task.is_some() || self.capability.slots == 0 {
            return;
        }
        let Some(renderer) = self.slots.renderers.first().cloned() else { return };
        let of = self.measured_of(&renderer);
        let gpus = gpus::of_renderer(&renderer, self.slots.gpus.first(), Device::Auto);
        self.benchmark.task = Some(self.slots.spawn(|threads, dir, events| async move {
            let outcome = tokio::time::timeout(LIMIT, measure(&renderer, threads, gpus, &dir)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("it took longer than {} seconds", LIMIT.as_secs())));
            let _ = events.send(Event::Benchmarked(of, outcome)).await;
        }));
    }

    /// It was measured what `of` tells, or could not be.
    pub(super) fn benchmarked(&mut self, of: String, outcome: Result<u32, String>) {
        (self.benchmark.task, self.benchmark.is_over) = (None, true);
        match outcome {
            Ok(millis) => {
                tracing::info!(millis, "this machine's speed is known: the time of a test frame");
                self.capability.benchmark_millis = millis;
                if let Err(error) = keep(&self.benchmark.file, &Kept { of, millis }) {
                    let file = self.benchmark.file.display();
                    tracing::warn!(%file, %error, "how fast this machine is cannot be kept; it is measured again next time");
                }
                self.tell_capability();
            }
            Err(why) => tracing::warn!(why, "how fast this machine renders cannot be measured"),
        }
    }

    /// What a result depends on.
    fn measured_of(&self, renderer: &Renderer) -> String {
        let devices: Vec<String> = renderer.devices.iter().map(|one| format!("{} {}", one.backend, one.name)).collect();
        let slot = self.slots.gpus.first().map_or(String::new(), |gpu| gpu.id.clone());
        let (version, build, devices) = (renderer.version_text(), renderer.build_text(), devices.join(", "));
        let (cores, threads) = (self.capability.cores, self.options.threads);
        format!("{WORK} {version} {build} [{devices}] {slot} {cores} {threads:?}")
    }
}

fn recall(file: &Path, of: &str) -> Option<u32> {
    let is_small = file.metadata().is_ok_and(|meta| meta.len() <= FILE_MAX_BYTES);
    let kept: Kept = serde_json::from_slice(&std::fs::read(file).ok().filter(|_| is_small)?).ok()?;
    (kept.of == of && kept.millis > 0).then_some(kept.millis)
}

fn keep(file: &Path, kept: &Kept) -> io::Result<()> {
    let part = file.with_extension("part");
    std::fs::write(&part, serde_json::to_vec_pretty(kept)?)?;
    std::fs::rename(&part, file)
}

/// Milliseconds that the frame takes, at least 1.
async fn measure(
    renderer: &Renderer,
    threads: Option<u32>,
    gpus: Option<Vec<DeviceInfo>>,
    dir: &Path,
) -> Result<u32, String> {
    let scene = default_scene(SIDE, SAMPLES, threads, gpus);
    let mut worker = Worker::start(renderer, scene, dir).await.map_err(|error| UnitFailure::from(error).message)?;
    let out = dir.join("out").join(format!("benchmark-{:016x}.png", rand::random::<u64>()));
    let mut last = Ok(0.0);
    for frame in 1..=FRAMES {
        last = async { Ok(worker.draw(Unit::whole(frame), &out, Some(LIMIT)).await?.keep().await?.seconds) }.await;
        if last.is_err() {
            break;
        }
    }
    worker.close().await;
    let _ = tokio::fs::remove_file(&out).await;
    last.map(|seconds| ((seconds * 1000.0) as u32).max(1)).map_err(|failure: UnitFailure| failure.message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::render::discover;
    use super::*;

    #[test]
    fn a_result_is_recalled_where_it_is_of_the_same_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("benchmark.json");
        assert_eq!(recall(&file, "4.5 CPU"), None);
        keep(&file, &Kept { of: "4.5 CPU".into(), millis: 700 }).unwrap();
        assert_eq!((recall(&file, "4.5 CPU"), recall(&file, "4.5 OPTIX")), (Some(700), None));
        std::fs::write(&file, "{\"of\": \"4.5 CPU\", \"mil").unwrap();
        assert_eq!(recall(&file, "4.5 CPU"), None);
    }

    #[tokio::test]
    async fn the_frame_takes_each_blender_here_some_time_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for renderer in discover(&[], &dir.path().join("cache.json")).await.renderers {
            std::fs::create_dir_all(dir.path().join("out")).unwrap();
            assert!(measure(&renderer, None, None, dir.path()).await.unwrap() > 0, "{}", renderer.version_text());
            assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
        }
    }
}
