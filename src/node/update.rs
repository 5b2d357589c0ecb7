//! `submit --update`: frames of a job that is there, from a changed scene.
//!
//! What was submitted stays: frames keep their size, format, names, folder and video. So the changed scene is checked
//! against the job before anything is bundled, and what is not asked for anew is as the job has it.

use super::answer::Stream;
use super::event::Event;
use super::http::{ApiError, ErrorKind, SubmitRequest};
use super::output;
use super::preflight::{look, settle, settle_who};
use super::scene::ocio_files;
use super::slots::read_blob;
use super::store::Store;
use super::submit::{blocking, make_bundle, settings, who_can};
use super::{Node, view};
use crate::farm::frames::FrameSet;
use crate::farm::id::{BlobId, JobId, Part};
use crate::farm::job::{Colours, Device, JobSpec, RenderSettings, Revision};
use crate::farm::op::UnitSet;
use crate::farm::scripts::Scripts;
use crate::wire;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What is to be changed of a job.
pub struct Update {
    /// Which job.
    pub job: JobId,
    /// Which frames.
    pub units: UnitSet,
    /// What they come from, its bundle in the store.
    pub revision: Box<Revision>,
    /// Login name of who wants it.
    pub by: String,
}

/// Asks for the job that somebody means.
pub struct WhichJob {
    /// As they wrote it.
    pub text: String,
    /// What is known of it.
    pub reply: oneshot::Sender<Result<Known, ApiError>>,
}

/// A job that is to be updated.
pub struct Known {
    job: JobId,
    /// As it was submitted.
    spec: Arc<JobSpec>,
}

impl Node {
    /// The job to update, unless it cannot be any more.
    pub(super) fn to_update(&self, text: &str) -> Result<Known, ApiError> {
        let job = view::find(&self.farm, text)?;
        let state = self.farm.jobs().get(&job);
        if state.is_some_and(|state| state.canceled.is_some()) {
            let text = format!("job {} was canceled; submit the scene as a new job instead", job.short());
            return Err(ApiError::new(ErrorKind::JobState, text));
        }
        let gone = || ApiError::new(ErrorKind::JobNotFound, format!("job {} is not known here yet", job.short()));
        // With the rules it has now.
        let spec =
            state.and_then(|state| Some(JobSpec { rules: state.rules().clone(), ..(**state.spec.as_ref()?).clone() }));
        let spec = Arc::new(spec.ok_or_else(gone)?);
        Ok(Known { job, spec })
    }
}

/// Reads, checks and bundles the changed scene of a job.
pub async fn update(
    text: &str,
    mut request: SubmitRequest,
    store: Arc<Store>,
    events: &mpsc::Sender<Event>,
    stream: &Stream,
) -> Result<Update, ApiError> {
    if request.keep_existing {
        let text =
            "--keep-existing does not go with --update, which renders the frames that it names and keeps the others";
        return Err(ApiError::new(ErrorKind::BadRequest, text));
    }
    let (reply, answer) = oneshot::channel();
    let stopping = || ApiError::new(ErrorKind::Busy, "the daemon is stopping; submit again when it runs");
    let ask = WhichJob { text: text.to_owned(), reply };
    events.send(Event::WhichJob(ask)).await.map_err(|_| stopping())?;
    let Known { job, spec } = answer.await.map_err(|_| stopping())??;
    let frames = frames(&request, &spec)?;
    // They say what of the file is looked at.
    request.overrides = request.overrides.over(&spec.settings.overrides);
    scripts_are_asked_for(&request, job, &spec.settings.scripts)?;
    let mut looked = look(&request, stream).await?;
    let simulate_from = looked.simulate_from(&request, &frames, spec.rules.chunk);
    looked.tell_of_views(&request, spec.format);
    settle(&looked.problems, stream).await?;
    let (info, trace, scripts) = (looked.info.clone(), std::mem::take(&mut looked.trace), looked.scripts.clone());
    files_are_the_jobs(job, spec.views.suffixes(), &info.suffixes(spec.format))?;
    let (output, format, taken, needed) = (spec.output.clone(), spec.format, frames.clone(), trace.paths());
    let views = info.suffixes(format);
    blocking(move || output::spare(&output, &taken, (format, &views), &needed)).await??;
    let asked = RenderSettings { simulate_from, scripts, ..settings(&request, &info)? };
    let settings = inherited(asked, &spec.settings);
    device_is_the_jobs(job, &settings, &spec.settings)?;
    let (kept, bundle, file) = (store.clone(), spec.bundle, request.file.clone());
    let had = blocking(move || colours_of(&kept, bundle)).await?;
    let (brings, has) = (brings_colours(had.as_ref(), &spec), trace.ocio.is_some());
    colours_are_the_jobs(job, brings, has, &file)?;
    let size = info.image_size(spec.format, settings.resolution, settings.percent);
    if size != spec.size {
        let text = format!(
            "frames of the changed scene would be {}×{}, those of job {} are {}×{}; set --resolution, or submit it as a \
             new job",
            size.0,
            size.1,
            job.short(),
            spec.size.0,
            spec.size.1
        );
        return Err(ApiError::new(ErrorKind::BadRequest, text));
    }
    let needs = looked.needs(&settings);
    // One series per job, since series differ in pixels.
    (request.series, request.device) = (Some(spec.series), settings.device);
    let found = who_can(&request, &info, needs, true, events).await.found;
    found.map_err(|error| looked.of_library(error))?;
    let revised = JobSpec { min_version: info.min_version, settings: settings.clone(), needs, ..(*spec).clone() };
    settle_who(&revised, events, stream).await?;
    let file = request.file.to_string_lossy().into_owned();
    let (bundle, bundle_bytes) = make_bundle(&request, trace, store.clone(), stream).await?;
    if brings != Some(false) {
        let now = blocking(move || colours_of(&store, bundle)).await?;
        if let Some(text) = other_colours(job, had.as_ref(), now.as_ref()) {
            stream.warning("colours", &file, &text).await;
        }
    }
    let revision = Box::new(Revision { file, bundle, bundle_bytes, min_version: info.min_version, settings, needs });
    let units = UnitSet { frames, part: Part::Whole };
    Ok(Update { job, units, revision, by: request.user })
}

/// Refuses an update whose frames would have files of other names than the job declared: nobody takes them, and those there
/// are would stay as they are.
fn files_are_the_jobs(job: JobId, had: &[String], views: &[String]) -> Result<(), ApiError> {
    let set = |views| -> BTreeSet<&str> { <[String]>::iter(views).map(String::as_str).collect() };
    let (had, views) = (set(had), set(views));
    if had == views {
        return Ok(());
    }
    let named = |suffixes: Vec<&str>| match &*suffixes {
        [""] => "one file".to_owned(),
        suffixes => format!("files that end in {}", suffixes.join(", ")),
    };
    let text = format!(
        "a frame of the changed scene would be {}, those of job {} are {}; set its views as they were, or submit it as a new \
         job",
        named(views.into_iter().collect()),
        job.short(),
        named(had.into_iter().collect())
    );
    Err(ApiError::new(ErrorKind::BadRequest, text))
}

/// Refuses an update that names a backend of GPUs, of a job that named none: machines may have it that know of none.
fn device_is_the_jobs(job: JobId, asked: &RenderSettings, had: &RenderSettings) -> Result<(), ApiError> {
    if asked.device.op_version() <= had.op_version() {
        return Ok(());
    }
    let text = format!(
        "job {} was submitted with --device {}, and machines may have it that do not know {}; leave out --device, or submit \
         it as a new job",
        job.short(),
        had.device,
        asked.device
    );
    Err(ApiError::new(ErrorKind::BadRequest, text))
}

/// The OCIO configuration that a bundle of the store brings and the files it names, by their places; `None` where it is not
/// here.
fn colours_of(store: &Store, bundle: BlobId) -> Option<BTreeMap<String, BlobId>> {
    let bytes = store.has(bundle).then(|| read_blob(store, bundle, wire::MANIFEST_MAX_BYTES as u64).ok())??;
    let manifest = wire::decode_manifest(&bytes).ok()?;
    ocio_files(&manifest, |blob, limit_bytes| read_blob(store, blob, limit_bytes)).ok()
}

/// Whether a job was submitted with an OCIO configuration; `None` where neither its bundle nor its terms tell.
fn brings_colours(had: Option<&BTreeMap<String, BlobId>>, spec: &JobSpec) -> Option<bool> {
    had.map(|had| !had.is_empty()).or_else(|| spec.reuse.map(|colours| colours == Colours::Job))
}

/// Words about an OCIO configuration that is not the job's, as far as that can be told.
fn other_colours(
    job: JobId,
    had: Option<&BTreeMap<String, BlobId>>,
    now: Option<&BTreeMap<String, BlobId>>,
) -> Option<String> {
    let job = job.short();
    match had {
        Some(_) if had == now => None,
        Some(_) => Some(format!(
            "the OCIO configuration is not the one that job {job} was submitted with, or lies elsewhere; these frames may be in \
             other colours than the rest"
        )),
        None => Some(format!(
            "what job {job} was submitted with is not on this machine, so nothing tells whether these frames are in the colours \
             of the rest; have OCIO as it was then"
        )),
    }
}

/// Refuses an update from a shell without the `OCIO` that the job was submitted with, or with one it was not: its frames would
/// be in other colours than the rest.
fn colours_are_the_jobs(job: JobId, had: Option<bool>, has: bool, file: &Path) -> Result<(), ApiError> {
    let (job, file) = (job.short(), file.display());
    let text = match (had, has) {
        (Some(true), false) => {
            format!("job {job} was submitted with an OCIO configuration; set OCIO to it and update {file} again")
        }
        (Some(false), true) => {
            format!("job {job} was submitted without an OCIO configuration; unset OCIO and update {file} again")
        }
        _ => return Ok(()),
    };
    Err(ApiError::new(ErrorKind::BadRequest, text))
}

/// Refuses an update that does not say of each kind of script that the job runs whether it is to run again: whoever submitted
/// the job trusted other files than these, and may have been somebody else.
fn scripts_are_asked_for(request: &SubmitRequest, job: JobId, scripts: &Scripts) -> Result<(), ApiError> {
    let job = job.short();
    let text = match &scripts.file {
        _ if scripts.is_none() && (request.scripts || request.script.is_some()) => format!(
            "job {job} was submitted without scripts, and machines may have it that know of none; submit it as a new job"
        ),
        _ if scripts.in_files && !request.scripts => format!(
            "job {job} runs the scripts in its files; say --scripts, if those in the changed scene are to run, or submit it \
             as a new job"
        ),
        Some(file) if request.script.is_none() => {
            format!("job {job} runs the script {file}; name it again with --script, as it is to be now")
        }
        _ => return Ok(()),
    };
    Err(ApiError::new(ErrorKind::BadRequest, text))
}

fn frames(request: &SubmitRequest, spec: &JobSpec) -> Result<FrameSet, ApiError> {
    let Some(text) = &request.frames else { return Ok(spec.frames.clone()) };
    let frames: FrameSet = text
        .parse()
        .map_err(|error: crate::farm::frames::FrameError| ApiError::new(ErrorKind::BadFrames, error.to_string()))?;
    let unknown = frames.iter().find(|frame| !spec.frames.contains(*frame));
    match unknown {
        None => Ok(frames),
        Some(frame) => {
            let text = format!("frame {frame} is not one of the job's; it has {}", spec.frames);
            Err(ApiError::new(ErrorKind::FrameNotFound, text))
        }
    }
}

/// What is not asked for is as the job has it.
fn inherited(asked: RenderSettings, job: &RenderSettings) -> RenderSettings {
    let (resolution, percent) = match (asked.resolution, asked.percent) {
        (None, None) => (job.resolution, job.percent),
        given => given,
    };
    RenderSettings {
        engine: asked.engine.or_else(|| job.engine.clone()),
        samples: asked.samples.or(job.samples),
        resolution,
        percent,
        device: if asked.device == Device::Auto { job.device } else { asked.device },
        simulate_from: asked.simulate_from,
        // Frames of a job are of one format.
        depth: job.depth,
        overrides: asked.overrides.over(&job.overrides),
        // The video is the whole job's.
        silent: job.silent,
        scripts: asked.scripts,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::tests::spec;

    #[test]
    fn an_update_is_of_frames_the_job_has_and_keeps_what_is_not_asked_for() {
        let spec = spec();
        let asked = |frames: Option<&str>| {
            frames_of(SubmitRequest { frames: frames.map(str::to_owned), ..SubmitRequest::default() }, &spec)
        };
        fn frames_of(request: SubmitRequest, spec: &JobSpec) -> Result<String, ErrorKind> {
            frames(&request, spec).map(|frames| frames.to_string()).map_err(|error| error.kind)
        }
        assert_eq!(asked(None), Ok("1-10x3,20".into()));
        assert_eq!(asked(Some("4,20")), Ok(asked(Some("20,4")).unwrap()));
        assert_eq!(asked(Some("4,5")), Err(ErrorKind::FrameNotFound));
        assert_eq!(asked(Some("x")), Err(ErrorKind::BadFrames));
        let (percent, simulate_from) = (Some(50), None);
        let job = RenderSettings { percent, simulate_from, ..spec.settings };
        assert_eq!(inherited(RenderSettings::default(), &job), job);
        let asked = RenderSettings { samples: Some(8), resolution: Some((4, 2)), ..RenderSettings::default() };
        let both = inherited(asked, &job);
        assert_eq!((both.engine, both.samples, both.resolution), (job.engine, Some(8), Some((4, 2))));
        assert_eq!(both.percent, None);
    }

    #[test]
    fn an_update_names_a_backend_only_of_a_job_that_named_one() {
        let check = |had, asked| {
            let [had, asked] = [had, asked].map(|device| RenderSettings { device, ..RenderSettings::default() });
            device_is_the_jobs(JobId([1; 16]), &inherited(asked, &had), &had).err().map(|error| error.message)
        };
        for (had, asked) in [(Device::Auto, Device::Gpu), (Device::Optix, Device::Auto), (Device::Optix, Device::Cuda)]
        {
            assert_eq!(check(had, asked), None, "{had} {asked}");
        }
        let text = check(Device::Gpu, Device::Optix).unwrap();
        assert!(text.starts_with("job 01010101 was submitted with --device gpu, and machines"), "{text}");
    }

    #[test]
    fn an_update_has_files_of_the_names_that_the_jobs_frames_have() {
        let told = |had: &[&str], views: &[&str]| {
            let owned = |views: &[&str]| -> Vec<String> { views.iter().map(|suffix| (*suffix).to_owned()).collect() };
            files_are_the_jobs(JobId([1; 16]), &owned(had), &owned(views)).err().map(|error| error.message)
        };
        for (had, views) in [(&[""][..], &[""][..]), (&["_L", "_R"], &["_R", "_L"]), (&["_L", ""], &["_L", ""])] {
            assert_eq!(told(had, views), None, "{had:?} {views:?}");
        }
        let text = told(&[""], &["_L", "_R"]).unwrap();
        assert!(text.contains("would be files that end in _L, _R, those of job 01010101 are one file"), "{text}");
        for (had, views) in [(&["_L", "_R"][..], &[""][..]), (&["_L", "_R"], &["_L", ""]), (&["_L", ""], &["_L", "_R"])]
        {
            assert!(told(had, views).is_some(), "{had:?} {views:?}");
        }
    }

    #[test]
    fn an_update_has_its_colours_from_where_the_job_has_them() {
        use crate::farm::blob::{BundleFile, Manifest};
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (_, map) = store.put_bytes(b"x").unwrap();
        let bundled = |paths: &[&str]| {
            let file = |path: &&str| BundleFile { path: (*path).into(), executable: false, map: map.clone() };
            let manifest = Manifest { main: paths[0].into(), files: paths.iter().map(file).collect() };
            store.put_bytes(&wire::encode_manifest(&manifest).unwrap()).unwrap().0
        };
        let (with, without) = (bundled(&["f/a/s.blend", "f/ocio/builtin"]), bundled(&["f/a/s.blend"]));
        let told = |bundle, reuse, has| {
            let spec = JobSpec { reuse, ..spec() };
            let brings = brings_colours(colours_of(&store, bundle).as_ref(), &spec);
            colours_are_the_jobs(JobId([1; 16]), brings, has, Path::new("/s.blend")).err().map(|error| error.message)
        };
        assert_eq!((told(with, None, true), told(without, None, false)), (None, None));
        let set = |text: Option<String>| text.is_some_and(|text| text.contains("set OCIO to it"));
        let unset = |text: Option<String>| text.is_some_and(|text| text.contains("unset OCIO"));
        assert!(set(told(with, None, false)) && unset(told(without, None, true)));
        // One that is on another machine alone.
        let away = BlobId([9; 32]);
        let (job, renderer) = (Some(Colours::Job), Some(Colours::Renderer));
        assert_eq!((told(away, job, true), told(away, renderer, false)), (None, None));
        assert!(set(told(away, job, false)) && unset(told(away, renderer, true)));
        assert_eq!((told(away, None, true), told(away, None, false)), (None, None));
    }

    #[test]
    fn an_update_in_other_colours_than_the_jobs_is_told() {
        use crate::farm::blob::{BundleFile, Manifest};
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let bundled = |config: &str, table: &str, other: &str| {
            let config = format!("ocio_profile_version: 2\nx: !<FileTransform> {{src: \"../b/t.cube\"}}\n{config}");
            let files = [("f/a/s.blend", other), ("f/b/t.cube", table), ("f/ocio/config.ocio", &config)];
            let files = files.map(|(path, text)| BundleFile {
                path: path.into(),
                executable: false,
                map: store.put_bytes(text.as_bytes()).unwrap().1,
            });
            let manifest = Manifest { main: "f/a/s.blend".into(), files: files.into() };
            store.put_bytes(&wire::encode_manifest(&manifest).unwrap()).unwrap().0
        };
        let told = |had, now| {
            let [had, now] = [had, now].map(|bundle| colours_of(&store, bundle));
            other_colours(JobId([1; 16]), had.as_ref(), now.as_ref())
        };
        let job = bundled("# 1.2", "t", "s");
        assert_eq!(told(job, bundled("# 1.2", "t", "changed")), None);
        for other in [bundled("# 1.3", "t", "s"), bundled("# 1.2", "changed", "s")] {
            assert!(told(job, other).is_some_and(|text| text.contains("is not the one that job")));
        }
        assert!(told(BlobId([9; 32]), job).is_some_and(|text| text.contains("nothing tells whether")));
    }

    #[test]
    fn an_update_runs_no_script_that_it_does_not_name() {
        let says = |job: (bool, bool), asked: (bool, bool)| {
            let scripts = Scripts { in_files: job.0, file: job.1.then(|| "look.py".to_owned()) };
            let script = asked.1.then(|| "/s/look.py".into());
            let request = SubmitRequest { scripts: asked.0, script, ..SubmitRequest::default() };
            let error = scripts_are_asked_for(&request, JobId([1; 16]), &scripts).err();
            error.map(|error| error.message)
        };
        let refused = |job, asked, with: &str| says(job, asked).is_some_and(|text| text.contains(with));
        assert!(refused((true, false), (false, false), "runs the scripts in its files; say --scripts"));
        assert!(refused((true, true), (false, true), "say --scripts"));
        assert!(refused((true, true), (true, false), "runs the script look.py; name it again"));
        assert!(refused((false, true), (true, false), "name it again"));
        assert!(refused((false, false), (true, false), "was submitted without scripts"));
        assert!(refused((false, false), (false, true), "was submitted without scripts"));
        for (job, asked) in [
            ((false, false), (false, false)),
            ((true, false), (true, false)),
            ((true, false), (true, true)),
            ((false, true), (false, true)),
            ((true, true), (true, true)),
        ] {
            assert_eq!(says(job, asked), None, "{job:?} {asked:?}");
        }
    }
}
