//! Everything that can be checked about a submission before anything moves, as one list of problems.
//!
//! `submit` refuses on the errors in it and tells the warnings; `submit --check` shows all of it. A check that fails does
//! not keep the others from being made, so that a person mends everything at once.

mod answer;
mod chosen;
mod existing;
mod imports;
mod needs;
mod python;

pub(super) use answer::unreadable;
pub(super) use existing::tell;

use super::answer::Stream;
use super::event::{Choice, Event, Found};
use super::format;
use super::http::{ApiError, ErrorKind, SubmitRequest, VideoChoice};
use super::kept::Kept;
use super::prospect::{Outlook, Prospect};
use super::render::{PIXELS_MAX, Pinned};
use super::scene::{self, Missing, OcioChoice, PathMap, RefKind, SceneError, SceneInfo, Survey, Trace, TraceOptions};
use super::submit::{blocking, frames, name, no_sound, output_of, rate, scene_error, settings, who_can};
use crate::farm::frames::FrameSet;
use crate::farm::id::BlobId;
use crate::farm::job::{Colours, FrameRate, ImageFormat, JobSpec, RenderSettings, Series};
use crate::farm::rules::{Chunk, Rules, gigabytes};
use crate::farm::scripts::Scripts;
use crate::farm::views::Views;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, oneshot};

/// Missing files, simulations and the like named in one error; the rest are counted.
const MOST_NAMED: usize = 20;
/// Priority unless told. DESIGN §3.
const DEFAULT_PRIORITY: u8 = 50;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The submission is refused for it.
    Error(ErrorKind),
    /// It is told.
    Warning(&'static str),
}

/// What a person must mend, or should know, before a scene is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters, and what kind of thing it is.
    pub severity: Severity,
    /// The file or the setting it is about.
    pub subject: String,
    /// The datablock it is about, if it is one.
    pub datablock: Option<String>,
    /// What is the matter.
    pub message: String,
    /// What to do about it; may be empty.
    pub fix: String,
    /// The `--map` that would mend it, if it is a path of another machine.
    map: Option<String>,
}

impl Problem {
    pub(super) fn error(kind: ErrorKind, subject: impl Into<String>, message: impl Into<String>, fix: &str) -> Self {
        let (subject, message, fix) = (subject.into(), message.into(), fix.to_owned());
        Self { severity: Severity::Error(kind), subject, datablock: None, message, fix, map: None }
    }

    pub(super) fn warning(
        kind: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: &str,
    ) -> Self {
        let (subject, message, fix) = (subject.into(), message.into(), fix.to_owned());
        Self { severity: Severity::Warning(kind), subject, datablock: None, message, fix, map: None }
    }

    fn of(self, datablock: impl Into<String>) -> Self {
        Self { datablock: Some(datablock.into()), ..self }
    }

    /// An error from elsewhere: it says what happened, then what to do.
    fn from(error: ApiError, subject: &Path) -> Self {
        let (message, fix) = error.message.split_once("; ").unwrap_or((&error.message, ""));
        Self::error(error.kind, subject.to_string_lossy(), message, fix)
    }

    fn is_error(&self) -> bool {
        matches!(self.severity, Severity::Error(_))
    }

    /// In one sentence.
    pub fn sentence(&self) -> String {
        if self.fix.is_empty() { self.message.clone() } else { format!("{}; {}", self.message, self.fix) }
    }

    fn to_json(&self) -> Value {
        let (severity, kind) = match self.severity {
            Severity::Error(kind) => ("error", kind.as_str()),
            Severity::Warning(kind) => ("warning", kind),
        };
        json!({
            "severity": severity,
            "kind": kind,
            "subject": self.subject,
            "datablock": self.datablock,
            "message": self.message,
            "fix": self.fix,
        })
    }
}

/// The refusal of a submission with these problems, if one of them is an error.
pub(super) fn refusal(problems: &[Problem]) -> Option<ApiError> {
    let errors = || {
        problems.iter().filter_map(|problem| match problem.severity {
            Severity::Error(kind) => Some((kind, problem)),
            Severity::Warning(_) => None,
        })
    };
    let first = errors().next()?.0;
    let mut kinds: Vec<ErrorKind> = Vec::new();
    errors().for_each(|(kind, _)| {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    });
    let texts = kinds.into_iter().map(|kind| {
        let those: Vec<&Problem> = errors().filter(|(of, _)| *of == kind).map(|(_, problem)| problem).collect();
        let count = those.len();
        let (plural, is, it) = if count == 1 { ("", "is", "it") } else { ("s", "are", "them") };
        let head = match kind {
            ErrorKind::MissingFiles => format!(
                "{count} file{plural} the scene needs {is} missing; put {it} there, or submit with --allow-missing:"
            ),
            ErrorKind::NotBaked => format!(
                "{count} simulation{plural} {is} not baked, and frames rendered in any order would come out wrong; bake \
                 {it} in Blender and save, have one machine render all in order with --chunk all, or submit with \
                 --allow-unbaked:"
            ),
            _ => return those.iter().map(|problem| problem.sentence()).collect::<Vec<_>>().join("\n"),
        };
        let mut lines = vec![head];
        lines.extend(those.iter().take(MOST_NAMED).map(|problem| format!("  {}", problem.message)));
        lines.extend((count > MOST_NAMED).then(|| format!("  and {} more", count - MOST_NAMED)));
        let maps: BTreeSet<&str> = those.iter().filter_map(|problem| problem.map.as_deref()).collect();
        if !maps.is_empty() {
            let maps: Vec<String> = maps.iter().map(|map| format!("--map '{map}'")).collect();
            lines.push(format!("paths of another machine; say where they are on this one: {}", maps.join(" ")));
        }
        lines.join("\n")
    });
    Some(ApiError::new(first, texts.collect::<Vec<_>>().join("\n")))
}

/// Tells the warnings; the refusal if there is an error.
pub(super) async fn settle(problems: &[Problem], stream: &Stream) -> Result<(), ApiError> {
    if let Some(error) = refusal(problems) {
        return Err(error);
    }
    for problem in problems {
        if let Severity::Warning(kind) = problem.severity {
            stream.warning(kind, &problem.subject, &problem.sentence()).await;
        }
    }
    Ok(())
}

/// A scene that was looked through.
pub(super) struct Looked {
    pub info: SceneInfo,
    pub trace: Trace,
    survey: Survey,
    /// The library for which a Blender must be newer than for the scene's own file.
    newest_library: Option<PathBuf>,
    /// What is run of its own Python.
    pub scripts: Scripts,
    /// What was found so far.
    pub problems: Vec<Problem>,
}

/// Reads a scene, what it needs, and what in it would not come out as its maker saw it.
///
/// # Errors
/// It cannot be read at all.
pub(super) async fn look(request: &SubmitRequest, stream: &Stream) -> Result<Looked, ApiError> {
    stream.progress("trace", 0, 1, "files").await;
    let file = request.file.clone();
    let maps = request.map.iter().map(|map| PathMap { from: map.from.clone(), to: map.to.clone() }).collect();
    let subject = request.file.to_string_lossy().into_owned();
    let (script, main) = (request.script.clone(), request.file.clone());
    let script = blocking(move || script.map(|script| python::script(&script, &main).map_err(|error| (error, script))));
    let (script, no_script) = match script.await?.transpose() {
        Ok(script) => (script, None),
        Err((error, script)) => (None, Some(Problem::from(error, &script))),
    };
    let mut include = request.include.clone();
    // One that is no script travels no more than it runs.
    include.extend(request.script.clone().filter(|_| script.is_some()));
    let options = TraceOptions { maps, include };
    let overrides = request.overrides.clone();
    let ocio = request.ocio.clone().map(|ocio| OcioChoice { config: ocio.config, variables: ocio.variables });
    let (mut info, trace, survey, maps, no_ocio) = blocking(move || {
        let info = scene::read(&file, &overrides)?;
        let mut trace = scene::trace(&file, options)?;
        let no_ocio = ocio.and_then(|ocio| scene::trace_ocio(&mut trace, &file, ocio).err());
        let survey = scene::survey(&file, &trace, &overrides)?;
        let maps: Vec<Option<String>> = trace.missing.iter().take(MOST_NAMED).map(Missing::map).collect();
        Ok::<_, SceneError>((info, trace, survey, maps, no_ocio))
    })
    .await?
    .map_err(scene_error)?;
    let found = (trace.files.len() + 1) as u64;
    stream.progress("trace", found, found, "files").await;
    let mut problems = chosen::not_there(&request.overrides, &info, &survey, &subject);
    problems.extend(no_script);
    problems.extend(no_ocio.map(|error| Problem::from(scene_error(error), Path::new("OCIO"))));
    let variables = trace.ocio.iter().flat_map(|ocio| ocio.variables()).collect::<Vec<_>>().join(", ");
    if !variables.is_empty() {
        let text = format!("machines that render this are given the values of {variables} with the OCIO configuration");
        problems.push(Problem::warning("ocio", &subject, text, ""));
    }
    if !info.has_view() {
        let message = format!("the scene `{}` in {subject} has no active camera", info.scene);
        let fix = "choose or add one in Blender and save the file";
        problems.push(Problem::error(ErrorKind::NoCamera, &subject, message, fix).of(&info.scene));
    }
    let maps = maps.into_iter().chain(std::iter::repeat(None));
    for (missing, map) in trace.missing.iter().zip(maps) {
        let message = missing.to_string();
        let problem = match request.allow_missing {
            true => Problem::warning("missing", &missing.stored, message, ""),
            false => {
                let fix = match &map {
                    None => "put it there, or submit with --allow-missing".to_owned(),
                    Some(map) => {
                        format!("say where it is on this machine with --map '{map}', or submit with --allow-missing")
                    }
                };
                Problem { map, ..Problem::error(ErrorKind::MissingFiles, &missing.stored, message, &fix) }
            }
        };
        problems.push(problem.of(&missing.datablock));
    }
    for file in trace.other_case.iter().take(MOST_NAMED) {
        let place = file.resolved.display();
        let text =
            format!("{} `{}`: {} is {place} on this disk; the case differs", file.kind, file.datablock, file.stored);
        problems.push(Problem::warning("case", &file.stored, text, "").of(&file.datablock));
    }
    if let Some(more @ 1..) = trace.other_case.len().checked_sub(MOST_NAMED) {
        problems.push(Problem::warning("case", "", format!("{more} more files differ in case"), ""));
    }
    problems.extend(python::not_run(&survey.unrun, request.scripts, &subject));
    problems.extend(imports::computed(&survey.computed, &subject));
    let scripts = Scripts { in_files: request.scripts, file: script };
    let newest = survey.newest_library.clone().filter(|(least, _)| *least > info.min_version);
    let newest_library = newest.map(|(least, library)| {
        info.min_version = least;
        library
    });
    Ok(Looked { info, trace, survey, newest_library, scripts, problems })
}

impl Looked {
    /// From which frame on every one is to be evaluated, for simulations that are not baked, or not to their end; those that
    /// are not are a problem. Frames that a bake lacks are told.
    pub fn simulate_from(&mut self, request: &SubmitRequest, frames: &FrameSet, chunk: Chunk) -> Option<i32> {
        let unbaked = self.survey.simulations.iter().filter(|simulation| simulation.safe_to() < frames.last());
        let (played, refused): (Vec<_>, Vec<_>) =
            unbaked.partition(|simulation| chunk == Chunk::All && simulation.plays);
        for simulation in refused {
            let subject = request.file.to_string_lossy();
            let is_not = match simulation.baked_to {
                Some(last) => format!("is baked to frame {last} only"),
                None => "is not baked".to_owned(),
            };
            let problem = match request.allow_unbaked {
                true => {
                    let text = format!("{simulation} {is_not}, so its frames depend on what is rendered before them");
                    Problem::warning("not_baked", subject, text, "")
                }
                false => {
                    let (text, fix) = match simulation.plays {
                        true => (
                            format!("{simulation} {is_not}"),
                            "bake it and save, or submit with --chunk all or --allow-unbaked",
                        ),
                        false => (
                            format!("{simulation}, {is_not}, and --chunk all does not help it"),
                            match simulation.baked_to {
                                Some(_) => "free the bake, bake it anew and save, or submit with --allow-unbaked",
                                None => "choose another cache type, bake it and save, or submit with --allow-unbaked",
                            },
                        ),
                    };
                    Problem::error(ErrorKind::NotBaked, subject, text, fix)
                }
            };
            self.problems.push(problem.of(&simulation.object));
        }
        for (bake, lacked) in self.survey.bakes.iter().filter_map(|bake| Some((bake, bake.lacks(frames)?))) {
            let text = match bake.runs.as_slice() {
                [] => format!("`{}`: {} has no baked frames", bake.object, bake.cache),
                _ => format!("`{}`: the bake of {} has no frames {lacked}", bake.object, bake.cache),
            };
            let fix = "it comes out there as Blender shows it without; bake it anew if that is not meant";
            let problem = Problem::warning("partly_baked", request.file.to_string_lossy(), text, fix);
            self.problems.push(problem.of(&bake.object));
        }
        played.iter().map(|simulation| simulation.start).min()
    }
}

/// A submission of which all that can be checked was checked.
pub(super) struct Checked {
    /// The scene; its problems are those of the whole submission.
    pub looked: Looked,
    /// The job, but for its bundle; if none of the problems is an error it is there.
    pub spec: Option<JobSpec>,
    /// The series that would render it.
    series: Option<Series>,
    /// The one it is to have, unless the file chooses.
    pinned: Option<Pinned>,
    /// What the swarm says to it.
    outlook: Option<Outlook>,
    /// Frames that are there already.
    kept: Kept,
}

/// Makes every check of a submission.
///
/// # Errors
/// The scene cannot be read at all, or the daemon stops.
pub(super) async fn check(
    request: &SubmitRequest,
    events: &mpsc::Sender<Event>,
    stream: &Stream,
) -> Result<Checked, ApiError> {
    let mut looked = look(request, stream).await?;
    let (frames, settings) = (frames(request, &looked.info), settings(request, &looked.info));
    let frames = looked.keep(request, frames);
    let chunk = request.rules.chunk.unwrap_or_default();
    let simulate_from = frames.as_ref().and_then(|frames| looked.simulate_from(request, frames, chunk));
    let scripts = looked.scripts.clone();
    let settings = looked.keep(request, settings).map(|settings| RenderSettings { simulate_from, scripts, ..settings });
    let mut chosen = format::choose(request.format, &looked.info);
    let size = settings.as_ref().map(|settings| size(&looked.info, settings, chosen.format));
    let size = size.and_then(|size| looked.keep(request, size));
    let rate = rate(request, &looked.info);
    let rate = looked.keep(request, rate);
    let silent = looked.silent(request, frames.as_ref(), rate);
    let output = frames.as_ref().map(|frames| output_of(request, &looked.info, frames));
    let output = output.and_then(|output| looked.keep(request, output));
    let (mut kept, before) = (Kept::default(), looked.problems.len());
    if let (Some(output), Some(frames)) = (&output, &frames) {
        kept = looked.check_output(request, output.clone(), frames.clone(), (chosen.format, size), stream).await?;
    }
    let told = before..looked.problems.len();
    looked.refuse_to_keep(request, simulate_from, chosen.format, output.as_ref());
    let renders = frames.as_ref().is_none_or(|frames| kept.len() < frames.len());
    looked.warn_of_changes(request);
    looked.tell_of_views(request, chosen.format);
    // What is refused anyway waits for no machine, unless all there is to say is asked for.
    if !request.check && looked.problems.iter().any(Problem::is_error) {
        return Ok(Checked { looked, spec: None, series: None, pinned: None, outlook: None, kept });
    }
    let needs = looked.needs(settings.as_ref().unwrap_or(&RenderSettings::default()));
    let Choice { pinned, found } = who_can(request, &looked.info, needs, renders, events).await;
    let found = found.map_err(|error| looked.of_library(error));
    let found = looked.keep(request, found);
    let series = found.as_ref().map(|found| found.series);
    if let Some(Found { series, warning: Some(warning), .. }) = &found {
        looked.problems.push(Problem::warning("series", series.to_string(), warning, ""));
    }
    if let Some(series) = series.filter(|series| renders && !format::writes(*series, chosen.format)) {
        looked.problems.push(unwritten(request, series, chosen.format));
        chosen = format::FALLBACK;
        if let (Some(output), Some(frames)) = (&output, &frames) {
            // Of files that the job does not write.
            looked.problems.drain(told);
            kept = looked.check_output(request, output.clone(), frames.clone(), (chosen.format, size), stream).await?;
        }
    }
    let rules = request.rules.clone().settings(found.as_ref().and_then(|found| found.after));
    let rules = looked.keep(request, rules);
    let colours = if looked.trace.ocio.is_some() { Colours::Job } else { Colours::Renderer };
    let whole = (|| {
        let (mut priority, mut rules_of) = (request.priority.unwrap_or(DEFAULT_PRIORITY).min(100), Rules::default());
        rules?.iter().for_each(|setting| setting.apply(&mut priority, &mut rules_of));
        Some(JobSpec {
            name: name(request),
            file: request.file.to_string_lossy().into_owned(),
            user: request.user.clone(),
            bundle: BlobId([0; 32]),
            bundle_bytes: 0,
            frames: frames?,
            // Where there is none for it, the machines say so.
            series: series.or(pinned.map(Pinned::series)).unwrap_or(looked.info.version),
            min_version: looked.info.min_version,
            settings: RenderSettings { depth: chosen.depth, silent, ..settings? },
            needs,
            format: chosen.format,
            size: size?,
            rate: rate?,
            output: output?,
            priority,
            rules: rules_of,
            nonce: 0,
            created_ms: super::clock::wall_ms(),
            // What is not baked comes out as the frames before it were rendered, by one machine.
            reuse: (!request.no_reuse && !request.allow_unbaked && simulate_from.is_none()).then_some(colours),
            // Where they cannot be files of one frame, it is refused.
            views: Views::of(&looked.info.suffixes(chosen.format)).unwrap_or_default(),
            author: None,
            mixed_with: None,
        })
    })();
    let outlook = match &whole {
        Some(spec) => {
            looked.tell_unmixed(request, spec, kept.len());
            Some(looked.ask(spec, kept.len(), events).await?)
        }
        None => None,
    };
    Ok(Checked { looked, spec: whole, series, pinned, outlook, kept })
}

impl Checked {
    /// Refuses the submission, or tells the warnings; the scene's files, the job, and the frames that are there.
    pub async fn settle(self, request: &SubmitRequest, stream: &Stream) -> Result<(Trace, JobSpec, Kept), ApiError> {
        settle(&self.looked.problems, stream).await?;
        let lost = || ApiError::new(ErrorKind::Internal, format!("{} was not checked", request.file.display()));
        Ok((self.looked.trace, self.spec.ok_or_else(lost)?, self.kept))
    }
}

impl Looked {
    /// What a check came to; its error is a problem.
    pub fn keep<T>(&mut self, request: &SubmitRequest, checked: Result<T, ApiError>) -> Option<T> {
        checked.map_err(|error| self.problems.push(Problem::from(error, &request.file))).ok()
    }

    /// Which files a frame of several views has, or why it would lack one.
    pub fn tell_of_views(&mut self, request: &SubmitRequest, format: ImageFormat) {
        let (Some(views), subject) = (&self.info.views, request.file.to_string_lossy()) else { return };
        let problem = match views.trouble(format) {
            Some((text, fix)) => Problem::error(ErrorKind::BadRequest, subject, text, fix),
            None => Problem::warning("views", subject, views.told(format), ""),
        };
        self.problems.push(problem);
    }

    /// What is made otherwise than the scene says.
    fn warn_of_changes(&mut self, request: &SubmitRequest) {
        let (info, subject) = (&self.info, request.file.to_string_lossy());
        let warning = format::warning(request.format, info);
        let internal = (info.engine == "BLENDER_RENDER" && request.engine.is_none()).then(|| {
            let text = "the scene was made for Blender Internal, which is gone; newer Blenders render it with Eevee";
            ("engine", text.to_owned())
        });
        let warnings = [warning, internal].into_iter().flatten();
        self.problems.extend(warnings.map(|(kind, text)| Problem::warning(kind, &*subject, text, "")));
    }

    /// Whether the video is to have no sound; why it cannot, if it cannot, is told where files of the scene would be heard.
    fn silent(&mut self, request: &SubmitRequest, frames: Option<&FrameSet>, rate: Option<FrameRate>) -> bool {
        if request.no_audio || request.video == VideoChoice::None {
            return request.no_audio;
        }
        let why = frames.zip(rate).and_then(|(frames, rate)| no_sound(frames, rate, &self.info));
        if let Some(why) = &why
            && self.trace.files.iter().any(|file| file.kind == RefKind::Sound)
        {
            let text = format!("the video has no sound: {why}");
            self.problems.push(Problem::warning("sound", request.file.to_string_lossy(), text, ""));
        }
        why.is_some()
    }

    /// What the swarm says to the job.
    async fn ask(&mut self, spec: &JobSpec, kept: usize, events: &mpsc::Sender<Event>) -> Result<Outlook, ApiError> {
        let paths: Vec<PathBuf> = self.trace.files.iter().map(|file| file.resolved.clone()).collect();
        let length = |path: &PathBuf| path.metadata().map_or(0, |meta| meta.len());
        let scene_bytes = blocking(move || paths.iter().map(length).sum()).await?;
        let outlook = outlook(spec, (kept, scene_bytes, self.samples(&spec.settings)), events).await?;
        if let Some(error) = &outlook.in_the_way {
            self.problems.push(Problem::from(error.clone(), Path::new(&spec.output.directory)));
        }
        self.problems.extend(outlook.nobody.as_ref().map(|nobody| python::nobody(nobody, &spec.name)));
        if !outlook.small.is_empty() {
            let files = gigabytes(scene_bytes);
            let text =
                format!("the files of the scene are {files}, more than the memory of {}", outlook.small.join(", "));
            let fix = "keep machines out that have too little with --min-memory";
            self.problems.push(Problem::warning("memory", &spec.name, text, fix));
        }
        Ok(outlook)
    }
}

/// What the swarm says to a job of this machine.
async fn outlook(
    spec: &JobSpec,
    (kept, scene_bytes, samples): (usize, u64, Option<u32>),
    events: &mpsc::Sender<Event>,
) -> Result<Outlook, ApiError> {
    let (reply, answer) = oneshot::channel();
    let prospect = Prospect { spec: Box::new(spec.clone()), kept, scene_bytes, samples, reply };
    events.send(Event::Prospect(prospect)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

/// Refuses what is to become of a job, if no machine that is here would run its scripts; tells, if none can render it. Its
/// own results are in nobody's way.
pub(super) async fn settle_who(spec: &JobSpec, events: &mpsc::Sender<Event>, stream: &Stream) -> Result<(), ApiError> {
    let nobody = outlook(spec, (0, 0, None), events).await?.nobody;
    let problem = nobody.map(|nobody| python::nobody(&nobody, &spec.name));
    settle(problem.as_slice(), stream).await
}

/// Pixels of a frame.
fn size(info: &SceneInfo, settings: &RenderSettings, format: ImageFormat) -> Result<(u32, u32), ApiError> {
    let (width, height) = info.image_size(format, settings.resolution, settings.percent);
    let refuse = |what: String| {
        Err(ApiError::new(
            ErrorKind::BadRequest,
            format!("a frame would be {width}×{height} pixels{what} --percent or --resolution"),
        ))
    };
    if width == 0 || height == 0 {
        return refuse("; raise".into());
    }
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return refuse(format!(", and no more than {} million can be checked; lower", PIXELS_MAX / 1_000_000));
    }
    Ok((width, height))
}

/// That the Blenders that render do not write a format.
fn unwritten(request: &SubmitRequest, series: Series, format: ImageFormat) -> Problem {
    let (subject, name) = (request.file.to_string_lossy(), format.blender_name());
    let message = format!("Blender {series} does not write {name} images");
    match request.format {
        Some(_) => {
            let fix = "choose another with --format, or a newer Blender with --series";
            Problem::error(ErrorKind::BadRequest, subject, message, fix)
        }
        None => Problem::warning("format", subject, message, "frames are rendered as PNG"),
    }
}

fn stopping() -> ApiError {
    ApiError::new(ErrorKind::Busy, "the daemon is stopping; submit again when it runs")
}

#[cfg(test)]
mod bake_tests;
#[cfg(test)]
mod keep_tests;
#[cfg(test)]
mod needs_tests;
#[cfg(test)]
mod tests;
