//! A test frame: Blender's own default scene, tiny, rendered by each Blender here that jobs want.
//!
//! A machine whose failures others could render asks for it before it trusts itself again. It goes the way of every
//! frame (process, driver, device, image checked), so that a broken driver or installation fails here too.

use super::render::{DeviceInfo, Disk, Renderer, UnitFailure, Worker, WorkerScene};
use crate::farm::id::Unit;
use crate::farm::job::{Device, ImageFormat, RenderSettings};
use crate::farm::views::Views;
use std::path::Path;
use std::time::Duration;

/// Pixels of the test frame on a side.
const SIDE: u32 = 64;
/// Longest time of the whole test with one Blender (guess: a cold start from a slow disk, and GPU kernels to build).
const LIMIT: Duration = Duration::from_secs(300);

/// Renders a test frame with each of `renderers`, one after another; `dir` is for its files.
///
/// # Errors
/// Which Blender failed, and how.
pub async fn self_test(renderers: &[Renderer], threads: Option<u32>, dir: &Path) -> Result<(), String> {
    if renderers.is_empty() {
        return Err("no Blender that the jobs want is here any more".into());
    }
    for renderer in renderers {
        let outcome = tokio::time::timeout(LIMIT, render(renderer, threads, dir)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("it took longer than {} seconds", LIMIT.as_secs())));
        outcome.map_err(|why| format!("Blender {} at {}: {why}", renderer.version_text(), renderer.path.display()))?;
    }
    Ok(())
}

/// Blender's own default scene, so many pixels on a side, each of so many samples of Cycles, on whatever is best here.
pub fn default_scene(side: u32, samples: u32, threads: Option<u32>, gpus: Option<Vec<DeviceInfo>>) -> WorkerScene {
    let settings = RenderSettings {
        engine: Some("CYCLES".into()),
        samples: Some(samples),
        resolution: Some((side, side)),
        percent: Some(100),
        device: Device::Auto,
        ..RenderSettings::default()
    };
    let (size, format) = ((side, side), ImageFormat::Png);
    let (views, disk) = (Views::default(), Disk::default());
    WorkerScene { blend: None, settings, format, size, views, threads, ocio: None, gpus, disk }
}

async fn render(renderer: &Renderer, threads: Option<u32>, dir: &Path) -> Result<(), String> {
    let scene = default_scene(SIDE, 1, threads, None);
    let mut worker = Worker::start(renderer, scene, dir).await.map_err(|error| UnitFailure::from(error).message)?;
    let out = dir.join("out").join(format!("self-test-{:016x}.png", rand::random::<u64>()));
    let kept = async { worker.draw(Unit::whole(1), &out, Some(LIMIT)).await?.keep().await }.await;
    worker.close().await;
    let _ = tokio::fs::remove_file(&out).await;
    kept.map(drop).map_err(|failure| failure.message)
}
