//! What the API asks, answered from the farm.

use super::answer::{Stream, Until, Watcher};
use super::capability::{Search, is_looking};
use super::event::{Choice, Event, Found, WhoCan};
use super::http::{ApiCall, ApiError, ApiRequest, CollectRequest, ErrorKind, Reply, SetRequest, VideoChoice};
use super::identity::{self, Invite};
use super::prospect::Nobody;
use super::render::{Available, NO_BLENDER, Pinned, SeriesError, choose_series};
use super::{ARRIVAL, Node, confinement, gpus, machine, output, settings, submit, trust, video, view};
use crate::farm::ability::Ability;
use crate::farm::event::{Input, JobCommand};
use crate::farm::fit::{Unfit, would_suit};
use crate::farm::frames::FrameSet;
use crate::farm::id::JobId;
use crate::farm::job::{JobSpec, OutputSpec, Series};
use crate::farm::op::{JobSetting, UnitSet};
use crate::farm::roster::Member;
use crate::farm::state::JobState;
use crate::farm::verdict::is_failed;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

type Answer = Result<Value, ApiError>;

/// Less free space than this is a finding of the doctor.
const LOW_BYTES: u64 = 5 * 1024 * 1024 * 1024;

impl Node {
    /// Answers a call, or begins to.
    pub(super) fn called(&mut self, call: ApiCall) {
        match call.request {
            ApiRequest::Submit(request) => {
                if let Some(stream) = Stream::of(call.reply) {
                    let held = self.sweep.hold();
                    let (store, tell) = (self.store.clone(), self.tell.clone());
                    tokio::spawn(async move { submit::prepare(*request, store, tell, held.await, stream).await });
                }
            }
            ApiRequest::Watch { job } => {
                if let Some(stream) = Stream::of(call.reply) {
                    match view::find(&self.farm, &job) {
                        Ok(job) => {
                            stream.try_event(json!({"event": "submitted", "job": job.to_string()}));
                            self.watch(job, stream, Until::End);
                        }
                        Err(error) => stream.try_fail(error),
                    }
                }
            }
            ApiRequest::Collect { job, target } => {
                if let Some(stream) = Stream::of(call.reply)
                    && let Err(error) = self.prepare_collection(&job, target, stream.clone())
                {
                    stream.try_fail(error);
                }
            }
            ApiRequest::Log { job, frame } => self.log(&job, frame, call.reply),
            ApiRequest::Debug { job, frame, target } => self.debug(&job, frame, &target.cwd, target.output, call.reply),
            ApiRequest::Doctor => {
                self.doctors.push(call.reply);
                self.answer_doctors();
            }
            ApiRequest::Join { code } => {
                if let Reply::Once(reply) = call.reply {
                    self.join(&code, reply);
                }
            }
            request => {
                let answer = self.answer(request);
                if let Reply::Once(reply) = call.reply {
                    let _ = reply.send(answer);
                }
            }
        }
    }

    fn answer(&mut self, request: ApiRequest) -> Answer {
        let now = self.clock.now();
        match request {
            ApiRequest::Jobs => {
                let mut jobs: Vec<_> = self.farm.jobs().values().filter(|job| job.spec.is_some()).collect();
                jobs.sort_by_key(|job| (job.spec.as_ref().map(|spec| spec.created_ms), job.id));
                Ok(jobs.into_iter().map(|job| view::job(&self.farm, job, now)).collect())
            }
            ApiRequest::Job { job } => Ok(self.job_view(view::find(&self.farm, &job)?)),
            ApiRequest::Frames { job, frame } => {
                let id = view::find(&self.farm, &job)?;
                let Some(state) = self.farm.jobs().get(&id) else { return Ok(Value::Null) };
                frame.map_or(Ok(()), |frame| has_frame(state, frame))?;
                Ok(view::frames(&self.farm, state, frame, now))
            }
            ApiRequest::Pause { job } => self.set(&job, vec![JobSetting::Paused(true)]),
            ApiRequest::Resume { job } => self.set(&job, vec![JobSetting::Paused(false)]),
            ApiRequest::Set { job, changes } => self.change(&job, *changes),
            ApiRequest::Why { job } => {
                let id = view::find(&self.farm, &job)?;
                Ok(self.farm.jobs().get(&id).map_or(Value::Null, |job| view::why(&self.farm, job, now)))
            }
            ApiRequest::Cancel { job } => {
                let id = self.live(&job)?;
                let by = self.user();
                self.turn(Input::Command { job: id, command: JobCommand::Cancel(by) });
                Ok(self.job_view(id))
            }
            ApiRequest::Delete { job } => self.delete(&job),
            ApiRequest::Requeue { job, frames } => self.requeue(&job, frames),
            ApiRequest::Nodes => Ok(self.with_confinement(self.with_slot_gpus(view::nodes(&self.farm, now)))),
            ApiRequest::NodePause { drop } => {
                let paused = self.set_paused(true);
                if drop {
                    self.turn(Input::GiveBack);
                    self.slots.let_idle_go();
                }
                paused
            }
            ApiRequest::NodeResume => self.set_paused(false),
            ApiRequest::Trust { whom, trusted } => self.trust(whom.as_deref(), trusted),
            ApiRequest::Settings => Ok(settings::settings(&self.farm)),
            ApiRequest::Setting(setting) => self.set_for_all(setting),
            ApiRequest::Invite => {
                let invite = Invite { swarm_key: self.identity.swarm_key, addresses: self.net.local_addresses() };
                Ok(json!({"code": invite.code()}))
            }
            ApiRequest::Submit(_)
            | ApiRequest::Watch { .. }
            | ApiRequest::Collect { .. }
            | ApiRequest::Log { .. }
            | ApiRequest::Debug { .. }
            | ApiRequest::Doctor
            | ApiRequest::Join { .. } => {
                Err(ApiError::new(ErrorKind::Internal, "this request is answered in its own time"))
            }
        }
    }

    pub(super) fn watch(&mut self, job: JobId, stream: Stream, until: Until) {
        let watcher = Watcher::new(job, stream, until, &self.farm, self.clock.now());
        self.watchers.push(watcher);
    }

    fn job_view(&self, job: JobId) -> Value {
        self.farm.jobs().get(&job).map_or(Value::Null, |state| view::job(&self.farm, state, self.clock.now()))
    }

    /// A job that is not over.
    fn live(&self, text: &str) -> Result<JobId, ApiError> {
        let id = view::find(&self.farm, text)?;
        let over = self.farm.jobs().get(&id).filter(|job| job.is_over());
        match over {
            None => Ok(id),
            Some(job) => {
                let (word, what) = match job.canceled {
                    Some(_) => ("canceled", "submit the scene again instead"),
                    None => ("finished", "`swarm job requeue --frames` renders frames again"),
                };
                let text = format!("job {} is already {word}; {what}", id.short());
                Err(ApiError::new(ErrorKind::JobState, text))
            }
        }
    }

    fn change(&mut self, job: &str, changes: SetRequest) -> Answer {
        let id = self.live(job)?;
        let after = changes.rules.after.clone().flatten().map(|name| view::find(&self.farm, &name)).transpose()?;
        if after == Some(id) {
            return Err(ApiError::new(ErrorKind::BadRequest, "a job cannot wait for itself"));
        }
        let mut settings = changes.rules.settings(after)?;
        settings.extend(changes.priority.map(JobSetting::Priority));
        self.set(job, settings)
    }

    fn set(&mut self, job: &str, settings: Vec<JobSetting>) -> Answer {
        let id = self.live(job)?;
        // A change counts once it is on disk, a moment from now; the caller sees it as made.
        let state = self.farm.jobs().get(&id);
        let (mut priority, mut rules) = state.map(|job| (job.priority(), job.rules().clone())).unwrap_or_default();
        let was_paused = rules.paused;
        for setting in settings {
            setting.apply(&mut priority, &mut rules);
            if !self.farm.is_set(id, &setting) {
                self.turn(Input::Command { job: id, command: JobCommand::Set(setting) });
            }
        }
        let mut view = self.job_view(id);
        view["priority"] = json!(priority);
        view["rules"] = view::rules(&rules);
        match rules.paused {
            true => view["state"] = json!("paused"),
            false if was_paused => view["state"] = json!("active"),
            false => {}
        }
        Ok(view)
    }

    /// Who gives orders on this machine, for the history of jobs.
    fn user(&self) -> String {
        std::env::var("USER").unwrap_or_else(|_| self.capability.name.clone())
    }

    fn delete(&mut self, job: &str) -> Answer {
        let id = view::find(&self.farm, job)?;
        if self.farm.jobs().get(&id).is_some_and(|state| !state.is_over()) {
            let text = format!("job {} goes on; `swarm job cancel` ends it, then it can be deleted", id.short());
            return Err(ApiError::new(ErrorKind::JobState, text));
        }
        if self.farm.is_waited_for(id) {
            let text =
                format!("another job is to come after job {}; `swarm job set --after none` lifts that", id.short());
            return Err(ApiError::new(ErrorKind::JobState, text));
        }
        let mut view = self.job_view(id);
        view["deleted"] = json!(true);
        self.turn(Input::Command { job: id, command: JobCommand::Delete });
        Ok(view)
    }

    fn requeue(&mut self, job: &str, frames: Option<FrameSet>) -> Answer {
        let id = view::find(&self.farm, job)?;
        let now = self.clock.now();
        let Some(state) = self.farm.jobs().get(&id) else { return Ok(Value::Null) };
        if state.canceled.is_some() {
            let text = format!("job {} was canceled; submit the scene again instead", id.short());
            return Err(ApiError::new(ErrorKind::JobState, text));
        }
        let units = match frames {
            Some(frames) => {
                frames.iter().try_for_each(|frame| has_frame(state, frame))?;
                Some(UnitSet { frames, part: crate::farm::id::Part::Whole })
            }
            None => {
                let failed = |unit: &&crate::farm::id::Unit| is_failed(state, **unit, self.farm.roster(), now);
                UnitSet::whole(state.unfinished().iter().filter(failed).map(|unit| unit.frame).collect())
            }
        };
        let Some(units) = units else {
            let text = format!("no frame of job {} failed; name frames with --frames to render them again", id.short());
            return Err(ApiError::new(ErrorKind::JobState, text));
        };
        let count = units.frames.len();
        let by = self.user();
        self.turn(Input::Command { job: id, command: JobCommand::Requeue { units, by } });
        let mut view = self.job_view(id);
        view["requeued"] = json!(count);
        Ok(view)
    }

    /// Finds the place for a job's results, then has it collected there.
    fn prepare_collection(&self, job: &str, target: CollectRequest, stream: Stream) -> Result<(), ApiError> {
        let id = view::find(&self.farm, job)?;
        let Some(state) = self.farm.jobs().get(&id) else { return Ok(()) };
        let Some(spec) = state.spec.clone() else { return Ok(()) };
        let is_own = state.owner() == Some(self.identity.node);
        // What it put there itself it may replace.
        let former = self.farm.collectors().get(&id).map(|collector| collector.output.clone());
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let place = move || {
                let output = place_for(&spec, is_own, &target)?;
                if !is_own {
                    spare_others(&output, &target, former.as_ref())?;
                }
                output::check(&output).map(|()| output)
            };
            match submit::blocking(place).await.and_then(|place| place) {
                Ok(output) => drop(tell.send(Event::Collect { job: id, output, stream }).await),
                Err(error) => stream.fail(error).await,
            }
        });
        Ok(())
    }

    pub(super) fn collect(&mut self, job: JobId, output: OutputSpec, stream: Stream) {
        stream.try_event(json!({"event": "submitted", "job": job.to_string()}));
        self.turn(Input::Command { job, command: JobCommand::Collect(output) });
        self.watch(job, stream, Until::Collected);
    }

    /// Counts at once, whatever the disk says to its being remembered.
    fn set_paused(&mut self, paused: bool) -> Answer {
        self.capability.paused = paused;
        self.tell_capability();
        identity::set_paused(&self.store, paused).map_err(|error| {
            let now = if paused { "paused" } else { "resumed" };
            ApiError::new(ErrorKind::DataDir, format!("this machine is {now}, but only until swarm ends: {error}"))
        })?;
        Ok(view::node(&self.farm, self.identity.node, self.clock.now()))
    }

    /// Answers who could render a scene, as far as it can be told now. That nobody can is told once nobody looks for its
    /// Blenders any more.
    pub(super) fn answer_questions(&mut self, now: Duration) {
        let roster = self.farm.roster();
        let looks = |member: &Member| member.capability.as_ref().is_some_and(is_looking);
        let others = roster.alive(now).filter(|(node, member)| *node != self.identity.node && looks(member));
        let looking = others.map(|(node, _)| roster.name(node)).collect();
        let search = Search { own_is_over: self.discovered, arrives: now < ARRIVAL, looking };
        for question in std::mem::take(&mut self.questions) {
            let Choice { pinned, found } = self.who_can(&question);
            match search.answer(found, question.waits) {
                Some(found) => drop(question.reply.send(Choice { pinned, found })),
                None if question.reply.is_closed() => {}
                None => self.questions.push(question),
            }
        }
    }

    /// Why no machine that is here is of the kind a job asks for, if that is so: it would wait, perhaps for ever.
    pub(super) fn nobody_suits(&self, spec: &JobSpec) -> Option<Nobody> {
        let me = self.identity.node;
        let mut unfit = Vec::new();
        for (node, member) in self.farm.roster().alive(self.clock.now()) {
            let is_paused = member.capability.as_ref().is_some_and(|capability| capability.paused);
            let suits = would_suit(self.farm.roster(), node, me, spec);
            match suits.and(if is_paused { Err(Unfit::Paused) } else { Ok(()) }) {
                Ok(()) => return None,
                Err(why) => unfit.push((self.farm.roster().name(node), why)),
            }
        }
        Some(Nobody::of(&unfit))
    }

    /// The refusal of a job whose results would take the place of those of another that still writes there.
    pub(super) fn in_the_way(&self, spec: &JobSpec) -> Option<ApiError> {
        let live = self.farm.collectors().iter().filter(|(_, collector)| !collector.ended);
        let others = live.filter_map(|(id, collector)| Some((id, collector, self.farm.jobs().get(id)?.spec.as_ref()?)));
        for (id, collector, other) in others {
            let (ours, theirs) = (&spec.output, &collector.output);
            let (what, flag) = match () {
                () if spec.meets(other, theirs) => ("frames", "--output"),
                () if ours.video.is_some() && ours.video == theirs.video => ("its video", "--video"),
                () if ours.zip.is_some() && ours.zip == theirs.zip => ("a ZIP file", "--name"),
                () => continue,
            };
            let id = id.short();
            let text = format!(
                "job {id} ({}) still writes {what} of these names; wait for it, end it with `swarm job cancel {id}`, or \
                 choose another place with {flag}",
                other.name
            );
            return Some(ApiError::new(ErrorKind::JobState, text));
        }
        None
    }

    fn who_can(&self, question: &WhoCan) -> Choice {
        let set = self.farm.roster().settings().series().map(Pinned::Setting);
        let pinned = question.pinned.or(set);
        let found = || {
            let after = question.after.as_ref().map(|name| view::find(&self.farm, name)).transpose()?;
            let (series, warning) = match self.series_for(question, pinned) {
                // Nothing is rendered with it.
                Err(_) if !question.renders => (pinned.map_or(question.file, Pinned::series), None),
                found => found?,
            };
            Ok(Found { series, warning, after })
        };
        Choice { pinned, found: found() }
    }

    fn series_for(&self, question: &WhoCan, pinned: Option<Pinned>) -> Result<(Series, Option<String>), ApiError> {
        let members = self.farm.roster().members().values().filter_map(|member| member.capability.as_ref());
        let renderers: Vec<_> =
            members.filter(|capability| capability.slots > 0).flat_map(|capability| &capability.renderers).collect();
        let missing = question.device.missing_from(renderers.iter().flat_map(|renderer| renderer.backends()));
        if let Some(text) = missing.filter(|_| !renderers.is_empty()) {
            return Err(ApiError::new(ErrorKind::NoGpu, text));
        }
        let available: Vec<Available> = renderers
            .iter()
            .filter(|renderer| question.device.of(renderer.backends()).is_some())
            .map(|renderer| Available { series: renderer.series(), abilities: renderer.abilities })
            .collect();
        choose_series(question.file, question.min_version, question.needs, &available, pinned).map_err(|error| {
            let broken = self.render_problems.iter().find(|problem| problem.kind != NO_BLENDER);
            let kind = match &error {
                SeriesError::NoBlender => match broken {
                    Some(problem) => {
                        let text = format!("{}; {}", problem.message, problem.fix);
                        return ApiError::new(ErrorKind::BlenderBroken, text);
                    }
                    None => ErrorKind::NoBlender,
                },
                SeriesError::Lacking { needs, .. } if needs.contains(&Ability::Denoiser) => ErrorKind::NoDenoiser,
                SeriesError::Lacking { .. } => ErrorKind::BlenderBroken,
                SeriesError::TooOld { .. } | SeriesError::NotThere { .. } | SeriesError::PinnedTooOld { .. } => {
                    ErrorKind::NoSeries
                }
            };
            let text = match &error {
                SeriesError::Lacking { .. } => {
                    format!("{error}; those Blenders are on {}", self.machines_with_blenders())
                }
                _ => error.to_string(),
            };
            ApiError::new(kind, text)
        })
    }

    /// Tells what this machine lacks, once its Blenders have been looked for.
    pub(super) fn answer_doctors(&mut self) {
        if !self.discovered {
            return;
        }
        for reply in std::mem::take(&mut self.doctors) {
            if let Reply::Once(reply) = reply {
                let _ = reply.send(Ok(self.doctor()));
            }
        }
    }

    fn doctor(&self) -> Value {
        let now = self.clock.now();
        let mut checks = Vec::new();
        let mut check = |name: &str, ok: bool, message: String, fix: &str| {
            checks.push(json!({"name": name, "ok": ok, "message": message, "fix": if ok { "" } else { fix }}));
        };
        let dir = &self.options.data_dir;
        let free = machine::free_bytes(dir);
        let message = match &free {
            Ok(free) => format!("{} has {:.1} GB free", dir.display(), *free as f64 / 1e9),
            Err(error) => format!("{}: {error}", dir.display()),
        };
        check(
            "disk",
            free.is_ok_and(|free| free >= LOW_BYTES),
            message,
            "make room, or choose another disk with --data-dir",
        );
        let found: Vec<String> = self
            .capability
            .renderers
            .iter()
            .map(|one| {
                format!(
                    "{}.{}.{} ({}) at {}",
                    one.version.0,
                    one.version.1,
                    one.version.2,
                    one.devices.join(", "),
                    one.path
                )
            })
            .collect();
        let fix = "install one (scripts/setup) or name one with --blender PATH, and start swarm anew";
        match self.options.render {
            false => check("blender", true, "this node does not render".into(), ""),
            true if found.is_empty() => check("blender", false, "no Blender was found".into(), fix),
            true => check("blender", true, found.join("; "), ""),
        }
        if self.capability.slots > 0 {
            let slots = gpus::in_words(self.options.gpu_mode, self.capability.slots, &self.slots.gpus);
            check("slots", true, slots, "");
        }
        for problem in self.capability.problems.iter().filter(|problem| problem.kind != confinement::KIND) {
            check(&problem.kind, false, problem.message.clone(), &problem.fix);
        }
        let ffmpeg = video::ffmpeg_available();
        let message = match ffmpeg {
            true => "found",
            false if found.is_empty() => "not found, and no Blender whose encoder could make videos",
            false => "not found: Blender's own encoder makes videos",
        };
        check("ffmpeg", ffmpeg, message.into(), "install ffmpeg: it makes videos while frames arrive");
        let addresses = self.net.local_addresses();
        let message = format!("listening on {}", addresses.join(", "));
        check("network", !addresses.is_empty(), message, "check the network, and --listen if it was given");
        let others = self.farm.roster().alive(now).count() - 1;
        let message = match others {
            // A swarm of one is no fault.
            0 => "no other machine is here yet; run `swarm invite` here and `swarm join CODE` on another (where multicast is blocked start it with --peer ADDRESS)".to_owned(),
            1 => "one other machine is here".to_owned(),
            n => format!("{n} other machines are here"),
        };
        check("swarm", true, message, "");
        check("scripts", true, trust::told(&self.farm), "");
        checks.push(self.confinement_check());
        Value::Array(checks)
    }
}

/// Whether a frame is one of a job's.
pub(super) fn has_frame(job: &JobState, frame: i32) -> Result<(), ApiError> {
    match &job.spec {
        Some(spec) if !spec.frames.contains(frame) => {
            let text = format!("frame {frame} is not one of the job's; it has {}", spec.frames);
            Err(ApiError::new(ErrorKind::FrameNotFound, text))
        }
        _ => Ok(()),
    }
}

/// Where a job is collected: as it was submitted, on the machine that did; else the submitter's folder if it is on this
/// machine too, else one below the caller's.
fn place_for(spec: &JobSpec, is_own: bool, target: &CollectRequest) -> Result<OutputSpec, ApiError> {
    let as_submitted = is_own && target.output.is_none() && target.video == VideoChoice::Default;
    if as_submitted && (!target.zip || spec.output.zip.is_some()) {
        return Ok(spec.output.clone());
    }
    let theirs = Path::new(&spec.output.directory);
    let name = output::file_safe(&spec.name);
    let near = target.cwd.join(format!("{name}-frames"));
    let default = if theirs.is_dir() { theirs.to_path_buf() } else { near };
    let span = video_span(spec, &name);
    let output = match as_submitted {
        true => spec.output.clone(),
        false => output::resolve(target.output.as_deref(), &target.video, &default, &name, &span)?,
    };
    let zip = target.zip.then(|| output::zip_of(&output, &name, &span));
    Ok(OutputSpec { zip, ..output })
}

/// The part of a default video's name between the job's and the extension, such as `-3-9`, if the job's has it. The video's path
/// is another machine's word: nothing of it becomes part of a name here.
fn video_span(spec: &JobSpec, name: &str) -> String {
    let span = format!("-{}-{}", spec.frames.first(), spec.frames.last());
    let stem = spec.output.video.as_deref().and_then(|video| Path::new(video).file_stem()).map(OsStr::to_string_lossy);
    if stem.is_some_and(|stem| stem.strip_prefix(name) == Some(&span)) { span } else { String::new() }
}

/// Refuses to replace a video or ZIP file at a place that follows from the name another machine gave its job: it may be
/// anything of the user's own.
fn spare_others(output: &OutputSpec, target: &CollectRequest, former: Option<&OutputSpec>) -> Result<(), ApiError> {
    let is_given = target.output.is_some() || matches!(target.video, VideoChoice::File(_));
    let was = |path: fn(&OutputSpec) -> Option<&String>| former.and_then(path);
    let video = (&output.video, was(|former| former.video.as_ref()));
    let zip = (&output.zip, was(|former| former.zip.as_ref()));
    let theirs =
        [video, zip].into_iter().filter_map(|(path, former)| path.as_ref().filter(|path| Some(*path) != former));
    // A link to nowhere is somebody's too.
    match theirs.map(|path| (path, Path::new(path).symlink_metadata())).find(|(_, there)| there.is_ok()) {
        Some((path, _)) if !is_given => {
            let text = format!(
                "{path} is there already, and would be replaced; move it away, or say with --output or --video where the \
                 results are to go"
            );
            Err(ApiError::new(ErrorKind::OutputUnwritable, text))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn results_of_another_machines_job_replace_nothing_that_is_there_unless_their_place_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut spec = crate::wire::tests::spec();
        (spec.name, spec.output.directory) = ("thesis".into(), "/not/here".into());
        let target = |output, video| CollectRequest { cwd: dir.path().into(), output, video, zip: true };
        let asked = target(None, VideoChoice::Default);
        let collect = |target: &CollectRequest, former: Option<&OutputSpec>| {
            let output = place_for(&spec, false, target).unwrap();
            spare_others(&output, target, former).map(|()| output)
        };
        let free = collect(&asked, None).unwrap();
        assert_eq!(free.zip.as_deref(), path("thesis.zip").to_str());
        std::fs::write(path("thesis.zip"), "years of work").unwrap();
        let refused = collect(&asked, None).unwrap_err();
        assert!(refused.kind == ErrorKind::OutputUnwritable && refused.message.contains("thesis.zip is there already"));
        assert!(collect(&asked, Some(&free)).is_ok(), "this machine put it there");
        assert!(collect(&target(Some(path("out")), VideoChoice::Default), None).is_ok());
        assert!(collect(&target(None, VideoChoice::File(path("v.mp4"))), None).is_ok());
        std::fs::remove_file(path("thesis.zip")).unwrap();
        std::fs::write(path("thesis.mp4"), "a film").unwrap();
        assert!(collect(&asked, None).unwrap_err().message.contains("thesis.mp4"));
    }

    #[test]
    fn of_another_machines_path_no_more_than_the_span_of_the_frames_is_taken() {
        let mut spec = crate::wire::tests::spec();
        let span = format!("-{}-{}", spec.frames.first(), spec.frames.last());
        for (video, found) in [
            (Some(format!("/v/shot{span}.mp4")), span.as_str()),
            (Some("/v/shot.mp4".into()), ""),
            (Some("/v/shot-final.mp4".into()), ""),
            (Some("/v/shot-3-99.mp4".into()), ""),
            (None, ""),
        ] {
            spec.output.video = video;
            assert_eq!(video_span(&spec, "shot"), found, "{:?}", spec.output.video);
        }
    }
}
