//! From a request to a job: reading the scene, tracing it, checking everything that can be checked, bundling.
//!
//! Nothing moves and nothing is written outside the store before every check passed. Blocking work runs on blocking
//! threads; the loop is asked only who could render the scene.

use super::answer::Stream;
use super::cause::{is_full, with_causes};
use super::chunk::Chunking;
use super::event::{Choice, Event, WhoCan};
use super::http::{ApiError, ErrorKind, SubmitRequest};
use super::output::{self, file_safe};
use super::preflight::{self, check};
use super::render::Pinned;
use super::scene::{self, BlobSink, BundleError, SceneError, SceneInfo, Trace};
use super::store::{Intake, Store};
use super::sweep::Held;
use super::update::{Update, update};
use crate::farm::ability::Abilities;
use crate::farm::blob::BlobMap;
use crate::farm::frames::FrameSet;
use crate::farm::id::{BlobId, ChunkId};
use crate::farm::job::{FrameRate, JobSpec, OutputSpec, RenderSettings};
use crate::farm::kept::KeptFrame;
use crate::farm::overrides::PropertyError;
use crate::farm::scripts::Scripts;
use crate::wire;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Longest wait for a series while this node, or another, has just started and its Blenders are still being asked.
const PROBE_WAIT: Duration = Duration::from_secs(90);

/// A submission ready to be written down.
pub struct Prepared {
    /// What is to be written down.
    pub what: What,
    /// Whether the caller leaves once it is replicated.
    pub detach: bool,
    /// Keeps what was bundled in the store until the job that names it is written down.
    pub held: Held,
}

/// A new job or a changed one, its bundle in the store.
pub enum What {
    /// A new one, and its frames that are there already.
    Job(Box<JobSpec>, Vec<KeptFrame>),
    /// Frames of one that is there.
    Update(Update),
}

/// Reads, checks and bundles; then hands the job to the loop, or tells the caller why not. A caller that leaves before
/// that has submitted nothing.
pub async fn prepare(
    request: SubmitRequest,
    store: Arc<Store>,
    events: mpsc::Sender<Event>,
    held: Held,
    stream: Stream,
) {
    if request.check {
        let told = tokio::select! {
            told = look_only(request, store, &events, &stream) => told,
            () = stream.gone() => return,
        };
        match told {
            Ok(told) => stream.event(told).await,
            Err(error) => stream.fail(error).await,
        }
        return;
    }
    let detach = request.detach;
    let what = async {
        match request.update.clone() {
            Some(job) => update(&job, request, store, &events, &stream).await.map(What::Update),
            None => spec(request, store, &events, &stream).await.map(|(spec, kept)| What::Job(Box::new(spec), kept)),
        }
    };
    let what = tokio::select! {
        what = what => what,
        () = stream.gone() => return,
    };
    match what {
        Ok(what) => {
            let prepared = Box::new(Prepared { what, detach, held });
            let _ = events.send(Event::Prepared(prepared, stream)).await;
        }
        Err(error) => stream.fail(error).await,
    }
}

async fn spec(
    request: SubmitRequest,
    store: Arc<Store>,
    events: &mpsc::Sender<Event>,
    stream: &Stream,
) -> Result<(JobSpec, Vec<KeptFrame>), ApiError> {
    let (trace, spec, kept) = check(&request, events, stream).await?.settle(&request, stream).await?;
    let (bundle, bundle_bytes) = make_bundle(&request, trace, store.clone(), stream).await?;
    let (told, total) = (stream.clone(), kept.len());
    let kept = blocking(move || kept.take_in(&store, |done| preflight::tell(&told, done, total))).await??;
    Ok((JobSpec { bundle, bundle_bytes, ..spec }, kept))
}

/// Checks all of a submission and tells what it finds. What would be sent is read for that, and stored nowhere.
async fn look_only(
    request: SubmitRequest,
    store: Arc<Store>,
    events: &mpsc::Sender<Event>,
    stream: &Stream,
) -> Result<Value, ApiError> {
    let mut checked = match check(&request, events, stream).await {
        Ok(checked) => checked,
        Err(error) => return Ok(preflight::unreadable(error, &request.file)),
    };
    let (file, trace, told) = (request.file.clone(), checked.looked.trace.clone(), stream.clone());
    let read = blocking(move || {
        let mut scale = Scale { store: &store, stream: told, seen: BTreeSet::new() };
        scene::bundle(&file, &trace, &mut scale, &mut |_| {})
    });
    let bundle = read.await?.map(|(_, stats)| stats).map_err(bundle_error);
    let bundle = checked.looked.keep(&request, bundle);
    Ok(checked.to_json(bundle))
}

/// Tells what a bundle comes to, and keeps nothing of it.
struct Scale<'a> {
    store: &'a Store,
    stream: Stream,
    /// What was weighed before.
    seen: BTreeSet<ChunkId>,
}

impl BlobSink for Scale<'_> {
    fn put_file(&mut self, reader: &mut dyn Read, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
        self.store.weigh(&mut Wanted { reader, stream: &self.stream }, chunking, &mut self.seen)
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let panicked = |_| ApiError::new(ErrorKind::Internal, "a part of swarm failed; see the daemon's log");
    tokio::task::spawn_blocking(work).await.map_err(panicked)
}

/// The error of a scene, with its cause in the same sentence.
pub(super) fn scene_error(error: SceneError) -> ApiError {
    let kind = match &error {
        SceneError::NotFound(_) => ErrorKind::FileNotFound,
        SceneError::NotAFile(_) | SceneError::NotABlend(_) => ErrorKind::NotABlend,
        SceneError::Truncated { .. } => ErrorKind::BlendDamaged,
        SceneError::Unsupported { .. } | SceneError::TooLarge { .. } => ErrorKind::Unsupported,
        SceneError::Unreadable { .. } | SceneError::Layer { .. } => ErrorKind::FileUnreadable,
        SceneError::Include { .. } | SceneError::Ocio { .. } => ErrorKind::BadRequest,
        SceneError::NoScene { .. } => ErrorKind::NotInFile,
    };
    ApiError::new(kind, with_causes(&error))
}

pub(super) fn frames(request: &SubmitRequest, info: &SceneInfo) -> Result<FrameSet, ApiError> {
    let bad = |error: crate::farm::frames::FrameError| ApiError::new(ErrorKind::BadFrames, error.to_string());
    match &request.frames {
        Some(text) => text.parse().map_err(bad),
        None => FrameSet::range(info.frame_start, info.frame_end, info.frame_step).map_err(bad),
    }
}

pub(super) fn settings(request: &SubmitRequest, info: &SceneInfo) -> Result<RenderSettings, ApiError> {
    let engine = request.engine.as_ref().map(|engine| match engine.to_ascii_lowercase().as_str() {
        "cycles" => Ok("CYCLES".to_owned()),
        "eevee" | "blender_eevee" | "blender_eevee_next" => Ok("BLENDER_EEVEE".to_owned()),
        "workbench" | "blender_workbench" => Ok("BLENDER_WORKBENCH".to_owned()),
        _ => {
            let text = format!("`{engine}` is not an engine swarm knows; --engine takes cycles, eevee or workbench");
            Err(ApiError::new(ErrorKind::BadRequest, text))
        }
    });
    let engine = engine.transpose()?;
    let old = engine.is_none()
        && !matches!(info.engine.as_str(), "CYCLES" | "BLENDER_WORKBENCH")
        && !info.engine.contains("EEVEE");
    if old && info.engine != "BLENDER_RENDER" {
        let text = format!(
            "the scene renders with `{}`, an engine of an add-on; choose another with --engine cycles, eevee or workbench",
            info.engine
        );
        return Err(ApiError::new(ErrorKind::Unsupported, text));
    }
    // Whatever Blender Internal rendered, Eevee does.
    if request.device.backend().is_some() && engine.as_ref().unwrap_or(&info.engine) != "CYCLES" {
        let text = format!(
            "--device {} is one of Cycles', and the scene is rendered with another engine; use --device gpu, or leave it out",
            request.device
        );
        return Err(ApiError::new(ErrorKind::BadRequest, text));
    }
    let cannot = |why| ApiError::new(ErrorKind::BadRequest, format!("no job can have these overrides: {why}"));
    request.overrides.check().map_err(cannot)?;
    let wrong = |error: PropertyError| ApiError::new(ErrorKind::BadRequest, error.to_string());
    request.overrides.set.iter().try_for_each(|property| property.check().map_err(wrong))?;
    let (resolution, percent) = scaled(request.resolution, request.percent, info);
    Ok(RenderSettings {
        engine,
        samples: request.samples,
        resolution,
        percent,
        device: request.device,
        simulate_from: None,
        depth: None,
        overrides: request.overrides.clone(),
        silent: request.no_audio,
        scripts: Scripts::default(),
    })
}

/// Resolution and percentage to set. `--percent` is of the size the frames would have without it, so a scene at half its
/// resolution comes out a tenth as wide with 10, and not a fifth.
fn scaled(resolution: Option<(u32, u32)>, percent: Option<u32>, info: &SceneInfo) -> (Option<(u32, u32)>, Option<u32>) {
    let Some(percent) = percent else { return (resolution, resolution.map(|_| 100)) };
    if resolution.is_some() {
        return (resolution, Some(percent));
    }
    let product = info.percent.saturating_mul(percent);
    if product > 0 && product.is_multiple_of(100) {
        return (None, Some(product / 100));
    }
    // Blender takes no fractions of a percent, so its own percentage goes into the resolution.
    let side = |side: u32| u32::try_from(u64::from(side) * u64::from(info.percent) / 100).unwrap_or(u32::MAX);
    (Some((side(info.resolution.0), side(info.resolution.1))), Some(percent))
}

pub(super) fn rate(request: &SubmitRequest, info: &SceneInfo) -> Result<FrameRate, ApiError> {
    match request.fps {
        None => Ok(info.rate),
        Some(fps) if fps.is_finite() && (0.01..=1000.0).contains(&fps) => {
            // As Blender has it: a whole number over a base, so that 23.976 is 24 / 1.001.
            let whole = fps.ceil();
            Ok(FrameRate { fps: whole as u32, base_millionths: (whole / fps * 1e6).round() as u32 })
        }
        Some(fps) => {
            Err(ApiError::new(ErrorKind::BadRequest, format!("--fps {fps} is no rate of a video; give 0.01 to 1000")))
        }
    }
}

/// Why the video cannot have the scene's sound, if it cannot.
pub(super) fn no_sound(frames: &FrameSet, rate: FrameRate, info: &SceneInfo) -> Option<String> {
    if !frames.is_contiguous() {
        return Some("frames are left out between the first and the last, and sound would run apart from them".into());
    }
    let (own, other) = (info.rate.per_second(), rate.per_second());
    (!rate.plays_as(info.rate))
        .then(|| format!("it plays {other:.3} frames a second, and the scene's sound fits {own:.3}"))
}

/// What people call the job, and its files.
pub(super) fn name(request: &SubmitRequest) -> String {
    let stem = || request.file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    request.name.clone().or_else(stem).unwrap_or_else(|| "render".into())
}

/// Where results go, DESIGN §7.
pub(super) fn output_of(request: &SubmitRequest, info: &SceneInfo, frames: &FrameSet) -> Result<OutputSpec, ApiError> {
    let name = file_safe(&name(request));
    let folder = request.file.parent().unwrap_or(Path::new("/"));
    let whole = FrameSet::range(info.frame_start, info.frame_end, info.frame_step).is_ok_and(|whole| whole == *frames);
    let span = if whole { String::new() } else { format!("-{}-{}", frames.first(), frames.last()) };
    let default = folder.join(format!("{name}-frames"));
    let output = output::resolve(request.output.as_deref(), &request.video, &default, &name, &span)?;
    let zip = request.zip.then(|| output::zip_of(&output, &name, &span));
    Ok(OutputSpec { zip, ..output })
}

pub(super) async fn who_can(
    request: &SubmitRequest,
    info: &SceneInfo,
    needs: Abilities,
    renders: bool,
    events: &mpsc::Sender<Event>,
) -> Choice {
    who_can_within(PROBE_WAIT, request, info, needs, renders, events).await
}

/// Asks once more when the wait is over, for what is known then.
async fn who_can_within(
    wait: Duration,
    request: &SubmitRequest,
    info: &SceneInfo,
    needs: Abilities,
    renders: bool,
    events: &mpsc::Sender<Event>,
) -> Choice {
    let pinned = request.series.map(if request.update.is_some() { Pinned::Job } else { Pinned::Asked });
    let cannot = |kind, text| Choice { pinned, found: Err(ApiError::new(kind, text)) };
    let stopping = || cannot(ErrorKind::Busy, "the daemon is stopping; submit again when it runs");
    for waits in [true, false] {
        let (reply, answer) = oneshot::channel();
        let ask = WhoCan {
            file: info.version,
            min_version: info.min_version,
            needs,
            pinned,
            device: request.device,
            renders,
            after: request.rules.after.clone().flatten(),
            waits,
            reply,
        };
        if events.send(Event::WhoCan(ask)).await.is_err() {
            return stopping();
        }
        match tokio::time::timeout(wait, answer).await {
            Ok(Ok(choice)) => return choice,
            Ok(Err(_)) => return stopping(),
            Err(_) => {}
        }
    }
    cannot(ErrorKind::Busy, "the daemon does not say in time who could render this; submit again when it does less")
}

/// The store as a place for bundles, for as long as somebody waits for them.
struct Sink<'a> {
    intake: Intake<'a>,
    stream: Stream,
}

impl BlobSink for Sink<'_> {
    fn put_file(&mut self, reader: &mut dyn Read, chunking: Chunking) -> io::Result<(BlobMap, u64)> {
        self.intake.put_reader(&mut Wanted { reader, stream: &self.stream }, chunking)
    }
}

/// Reads as long as somebody waits for it.
struct Wanted<'a> {
    reader: &'a mut dyn Read,
    stream: &'a Stream,
}

impl Read for Wanted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stream.is_gone() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "nobody waits for it any more"));
        }
        self.reader.read(buffer)
    }
}

pub(super) async fn make_bundle(
    request: &SubmitRequest,
    trace: Trace,
    store: Arc<Store>,
    stream: &Stream,
) -> Result<(BlobId, u64), ApiError> {
    let (file, told) = (request.file.clone(), stream.clone());
    let made = blocking(move || {
        let mut last = 0;
        let mut progress = |at: scene::BundleProgress| {
            // A line per file of a big scene would drown the reader: every hundredth part is told.
            let step = at.bytes_total / 100;
            if at.bytes_done >= last + step || at.files_done == at.files_total {
                last = at.bytes_done;
                told.try_progress("hash", at.bytes_done, at.bytes_total, "bytes");
            }
        };
        let stored = |source| BundleError::Store { path: file.clone(), source };
        let mut sink = Sink { intake: store.intake(), stream: told.clone() };
        let (manifest, stats) = scene::bundle(&file, &trace, &mut sink, &mut progress)?;
        sink.intake.finish().map_err(stored)?;
        let bytes = wire::encode_manifest(&manifest)
            .map_err(|error| BundleError::Store { path: file.clone(), source: io::Error::other(error) })?;
        let (bundle, _) = store.put_bytes(&bytes).map_err(stored)?;
        Ok::<_, BundleError>((bundle, stats))
    })
    .await?;
    let (bundle, stats) = made.map_err(bundle_error)?;
    let bundled: Value =
        json!({"event": "bundled", "files": stats.files, "bytes": stats.bytes, "new_bytes": stats.new_bytes});
    stream.event(bundled).await;
    Ok((bundle, stats.bytes))
}

/// The error of a bundle, with its cause in the same sentence.
fn bundle_error(error: BundleError) -> ApiError {
    match error {
        BundleError::Scene(error) => scene_error(error),
        error => {
            let full = matches!(&error, BundleError::Store { source, .. } if is_full(source));
            let kind = match &error {
                _ if full => ErrorKind::NoSpace,
                BundleError::Changed(_) | BundleError::Unreadable { .. } => ErrorKind::FileUnreadable,
                BundleError::Store { .. } => ErrorKind::DataDir,
                _ => ErrorKind::Unsupported,
            };
            ApiError::new(kind, with_causes(&error))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::job::Device;
    use crate::node::event::Found;

    #[tokio::test]
    async fn who_waited_in_vain_for_blenders_is_told_what_is_known() {
        let (events, mut asked) = mpsc::channel(8);
        let answers = async {
            let mut unanswered = Vec::new();
            while let Some(Event::WhoCan(question)) = asked.recv().await {
                if question.waits {
                    unanswered.push(question);
                    continue;
                }
                assert!(unanswered.iter().all(|question| question.reply.is_closed()), "it is asked anew");
                let found: Result<Found, _> = Err(ApiError::new(ErrorKind::NoSeries, "no 4.5 here"));
                let _ = question.reply.send(Choice { pinned: None, found });
            }
        };
        let (request, info) = (SubmitRequest::default(), SceneInfo::plain());
        let wait = Duration::from_millis(20);
        let asks = who_can_within(wait, &request, &info, Abilities::NONE, true, &events);
        let choice = tokio::select! {
            choice = asks => choice,
            () = answers => panic!("nobody asks any more"),
        };
        assert_eq!(choice.found.err().unwrap(), ApiError::new(ErrorKind::NoSeries, "no 4.5 here"));
    }

    #[test]
    fn sound_needs_every_frame_at_the_scenes_own_rate() {
        let info = SceneInfo { rate: FrameRate { fps: 24, base_millionths: 1_001_000 }, ..SceneInfo::plain() };
        let rate = |fps| rate(&SubmitRequest { fps, ..SubmitRequest::default() }, &info).unwrap();
        let why = |frames: &str, fps| no_sound(&frames.parse().unwrap(), rate(fps), &info);
        assert_eq!((why("3-9", None), why("3-9", Some(23.976))), (None, None));
        assert!(why("3-9x2", None).is_some_and(|why| why.contains("left out")));
        let why = why("3-9", Some(24.0)).unwrap();
        assert_eq!(why, "it plays 24.000 frames a second, and the scene's sound fits 23.976");
    }

    #[test]
    fn a_backend_of_cycles_is_refused_for_a_scene_of_another_engine() {
        let check = |scene: &str, engine: Option<&str>, device| {
            let info = SceneInfo { engine: scene.into(), ..SceneInfo::plain() };
            let request = SubmitRequest { engine: engine.map(str::to_owned), device, ..SubmitRequest::default() };
            settings(&request, &info).map(|settings| settings.device).map_err(|error| error.message)
        };
        assert_eq!(check("CYCLES", None, Device::Optix), Ok(Device::Optix));
        assert_eq!(check("BLENDER_EEVEE", Some("cycles"), Device::Hip), Ok(Device::Hip));
        assert_eq!(check("BLENDER_EEVEE", None, Device::Gpu), Ok(Device::Gpu));
        for (scene, engine) in [("BLENDER_EEVEE", None), ("CYCLES", Some("workbench")), ("BLENDER_RENDER", None)] {
            let text = check(scene, engine, Device::Cuda).unwrap_err();
            assert!(text.starts_with("--device cuda is one of Cycles'"), "{text}");
        }
    }

    #[test]
    fn a_percentage_is_of_the_size_the_scene_renders_at() {
        let mut info = SceneInfo { resolution: (3000, 2000), percent: 50, ..SceneInfo::plain() };
        let check = |info: &SceneInfo, resolution, percent, set, size| {
            let (resolution, percent) = scaled(resolution, percent, info);
            assert_eq!((resolution, percent), set);
            assert_eq!(info.size_with(resolution, percent), size);
        };
        check(&info, None, None, (None, None), (1500, 1000));
        check(&info, None, Some(10), (None, Some(5)), (150, 100));
        check(&info, None, Some(25), (Some((1500, 1000)), Some(25)), (375, 250));
        check(&info, Some((640, 480)), None, (Some((640, 480)), Some(100)), (640, 480));
        check(&info, Some((640, 480)), Some(10), (Some((640, 480)), Some(10)), (64, 48));
        info.percent = 100;
        check(&info, None, Some(10), (None, Some(10)), (300, 200));
    }
}
