//! The farm as JSON: the shapes of DESIGN §8.

use super::clock::rfc3339;
use crate::farm::Farm;
use crate::farm::ability::Ability;
use crate::farm::collect::VideoState;
use crate::farm::frames::FrameSet;
use crate::farm::id::{JobId, NodeId, Unit};
use crate::farm::message::Capability;
use crate::farm::op::{Blank, Output, OutputRole};
use crate::farm::rules::Rules;
use crate::farm::state::JobState;
use crate::farm::unit::Outcome;
use crate::farm::verdict::{has_live_result, is_failed, is_stopped};
use crate::farm::why::{Hold, Standing};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest list of failed frames in a reason, characters (guess: one line of a terminal).
const FRAMES_MAX_CHARS: usize = 80;
/// Most builds named in a warning (guess).
const BUILDS_MAX: usize = 8;
/// Most machines told of that sent what they should not (guess).
const STRANGERS_MAX: usize = 8;
/// Longest name of such a file, characters (guess: longer than any that Blender gives).
const STRANGER_MAX_CHARS: usize = 80;

/// What people call a node.
pub fn node_name(farm: &Farm, node: NodeId) -> String {
    farm.roster().name(node)
}

/// The word for a unit, and the node that has it or made it.
pub fn unit_state(farm: &Farm, job: &JobState, unit: Unit, now: Duration) -> (&'static str, Option<NodeId>) {
    let state = job.unit(unit);
    let delivered = farm
        .collectors()
        .get(&job.id)
        .is_some_and(|collector| collector.delivered.get(&unit) == Some(&state.version()));
    if let Some((by, _)) = state.current_results().next() {
        if delivered || farm.is_done(job, unit, now) {
            return ("done", Some(by.node));
        }
        if has_live_result(job, unit, farm.roster(), now) {
            return ("claimed", Some(by.node));
        }
    }
    if is_failed(job, unit, farm.roster(), now) {
        return ("failed", state.current_failures().last().map(|(node, _)| node));
    }
    let live = state.current_claims().find(|(actor, _)| farm.roster().is_live_actor(*actor, now));
    match live {
        Some((actor, _)) => ("claimed", Some(actor.node)),
        None => ("open", None),
    }
}

/// Whether every unit is done or given up.
pub fn is_settled(farm: &Farm, job: &JobState, now: Duration) -> bool {
    let stopped = is_stopped(job, farm.roster(), now);
    job.spec.is_some()
        && job.all_units().all(|unit| match unit_state(farm, job, unit, now).0 {
            "done" | "failed" => true,
            word => (stopped || job.canceled.is_some()) && word == "open",
        })
}

/// A job.
pub fn job(farm: &Farm, job: &JobState, now: Duration) -> Value {
    let Some(spec) = &job.spec else { return Value::Null };
    let (mut open, mut claimed, mut done, mut failed) = (0usize, 0usize, 0usize, 0usize);
    for unit in job.all_units() {
        match unit_state(farm, job, unit, now).0 {
            "done" => done += 1,
            "failed" => failed += 1,
            "claimed" => claimed += 1,
            _ => open += 1,
        }
    }
    let stopped = is_stopped(job, farm.roster(), now);
    let collector = farm.collectors().get(&job.id);
    let state = match () {
        () if job.canceled.is_some() => "canceled",
        () if stopped || (open == 0 && claimed == 0 && failed > 0) => "failed",
        () if open == 0 && claimed == 0 => "completed",
        () if job.is_paused() => "paused",
        () if claimed > 0 || done > 0 => "active",
        () => "queued",
    };
    let output = collector.map_or(&spec.output, |collector| &collector.output);
    let collected = job.collected.is_some_and(|(revision, _)| revision >= job.revision);
    let video_state = match (collector.map(|collector| collector.video), job.collected) {
        _ if output.video.is_none() || !job.has_video_frames() => VideoState::None,
        (Some(VideoState::None), Some((_, true))) => VideoState::Ready,
        (Some(state), _) => state,
        (None, Some((_, true))) => VideoState::Ready,
        (None, Some((_, false))) => VideoState::Failed,
        (None, _) => VideoState::None,
    };
    let nodes: Vec<Value> = job
        .speeds()
        .iter()
        .filter(|(_, (frames, _))| *frames > 0)
        .map(|(node, (frames, millis))| {
            let name = node_name(farm, *node);
            json!({"id": node.to_string(), "name": name, "done": frames, "seconds": *millis as f64 / 1000.0})
        })
        .collect();
    let history: Vec<Value> = job
        .history
        .iter()
        .map(|entry| json!({"at": rfc3339(entry.at_ms), "by": node_name(farm, entry.by.node), "action": entry.action}))
        .collect();
    let left = (open + claimed) as u64;
    let slots = slots(farm, job, now);
    let eta = job
        .mean_millis(None)
        .filter(|_| state == "active" && slots > 0)
        .map(|millis| (millis * left).div_ceil(slots * 1000));
    json!({
        "id": job.id.to_string(),
        "name": spec.name,
        "file": spec.file,
        "owner": {"user": spec.user, "node": job.owner().map(|node| node_name(farm, node))},
        "state": state,
        "reason": reason(farm, job, stopped, now),
        "priority": job.priority(),
        "rules": rules(job.rules()),
        "series": spec.series.to_string(),
        "created_at": rfc3339(spec.created_ms),
        "started_at": job.history.iter().next().filter(|_| state != "queued").map(|entry| rfc3339(entry.at_ms)),
        "finished_at": (job.finished_ms > 0 && job.is_over()).then(|| rfc3339(job.finished_ms)),
        "frames": {"total": spec.frames.len(), "open": open, "claimed": claimed, "done": done, "failed": failed},
        "duplicates": job.duplicates(),
        "reused": job.taken_count(),
        "kept": job.all_units().filter(|unit| job.is_kept(*unit)).count(),
        "nodes": nodes,
        "output": output.directory,
        "video": output.video,
        "video_state": video_state.word(),
        "zip": output.zip.as_ref().filter(|_| job.canceled.is_none()),
        "collected": collected,
        "eta_seconds": eta,
        "history": history,
        "warnings": job_warnings(job, &|node| node_name(farm, node)),
    })
}

/// That frames come from different builds of a series, so that their pixels may differ, and which machines sent what is no file
/// of the job.
fn job_warnings(job: &JobState, name: &dyn Fn(NodeId) -> String) -> Vec<String> {
    let mut builds: BTreeMap<&str, NodeId> = BTreeMap::new();
    for unit in job.all_units() {
        if let Some((actor, outcome)) = job.unit(unit).current_results().next()
            && !outcome.is_kept
            && builds.len() < BUILDS_MAX
        {
            builds.entry(&outcome.build).or_insert(actor.node);
        }
    }
    let mut warnings = Vec::new();
    if builds.len() > 1 {
        let told: Vec<String> = builds.iter().map(|(build, node)| format!("{build} on {}", name(*node))).collect();
        let told = told.join(", ");
        warnings
            .push(format!("frames were rendered by different builds of Blender, so their pixels may differ: {told}"));
    }
    let strangers = job.strangers().into_iter().take(STRANGERS_MAX);
    warnings.extend(strangers.map(|(node, (unit, file, results))| {
        let more = if results > 1 { format!(" and {} more", results - 1) } else { String::new() };
        format!("frame {}{more}: {}", unit.frame, stranger(&name(node), file))
    }));
    warnings
}

/// That a machine sent what the job does not have.
fn stranger(node: &str, file: &str) -> String {
    let file: String = file.chars().take(STRANGER_MAX_CHARS).collect();
    format!("{node} sent `{}`, which is no file of the job and is put nowhere", file.escape_debug())
}

fn slots(farm: &Farm, job: &JobState, now: Duration) -> u64 {
    crate::farm::verdict::eligible(job, farm.roster(), now)
        .iter()
        .filter_map(|node| farm.roster().member(*node)?.capability.as_ref())
        .map(|capability| u64::from(capability.slots))
        .sum()
}

/// Why a job does not get on, or did not.
fn reason(farm: &Farm, job: &JobState, stopped: bool, now: Duration) -> Option<String> {
    if let Some((by, _)) = &job.canceled {
        return Some(format!("canceled by {by}"));
    }
    let failures: Vec<Unit> =
        job.unfinished().iter().copied().filter(|unit| is_failed(job, *unit, farm.roster(), now)).collect();
    if let Some(unit) = failures.first() {
        let last = job.unit(*unit).current_failures().last();
        let (place, why) = last.map_or((String::new(), ""), |(node, attempt)| {
            (format!(" on {}", node_name(farm, node)), attempt.message.as_str())
        });
        let named = FrameSet::from_frames(failures.iter().map(|unit| unit.frame).collect());
        let named = named.map(|frames| frames.to_string()).filter(|text| text.len() <= FRAMES_MAX_CHARS);
        let named = named.map(|frames| format!(" ({frames})")).unwrap_or_default();
        let what = format!("{} of {} frames failed{named}", failures.len(), job.all_units().count());
        let stop = if stopped { ", so the job was stopped" } else { "" };
        return Some(format!("{what}{stop}; frame {}{place}: {why}", unit.frame));
    }
    if let Some(reason) = farm.collectors().get(&job.id).and_then(|collector| collector.reason.clone()) {
        return Some(reason);
    }
    if job.is_over() || job.unfinished().is_empty() {
        return None;
    }
    if let Some(hold @ Hold::After(..)) = farm.hold(job, now) {
        return Some(hold.to_string());
    }
    let id = job.id.short();
    (slots(farm, job, now) == 0)
        .then(|| format!("no machine here can render it at the moment; `swarm job why {id}` says why"))
}

/// A job's rules.
pub fn rules(rules: &Rules) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    json!({
        "max_nodes": rules.max_nodes,
        "tags": rules.tags,
        "gpu_name": rules.gpu_name.as_ref().map(ToString::to_string),
        "min_memory_bytes": rules.min_memory_bytes,
        "order": rules.order.to_string(),
        "chunk": rules.chunk.to_string(),
        "retries": rules.retries,
        "time_limit_seconds": seconds(rules.time_limit),
        "deadline_seconds": seconds(rules.deadline),
        "after": rules.after.map(|job| job.to_string()),
    })
}

/// How each machine stands to a job, in the order of [`nodes`].
pub fn why(farm: &Farm, job: &JobState, now: Duration) -> Value {
    let mut lines: Vec<(bool, String, NodeId, Standing)> = farm
        .why(job, now)
        .into_iter()
        .map(|(node, standing)| (node != farm.me().node, node_name(farm, node), node, standing))
        .collect();
    lines.sort_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
    let line = |(_, name, node, standing): (bool, String, NodeId, Standing)| json!({"id": node.to_string(), "name": name, "can": standing.can(), "reason": standing.to_string()});
    Value::Array(lines.into_iter().map(line).collect())
}

/// A job's frames, or one of them.
pub fn frames(farm: &Farm, job: &JobState, frame: Option<i32>, now: Duration) -> Value {
    let frames: Vec<Value> = job
        .all_units()
        .filter(|unit| frame.is_none_or(|frame| unit.frame == frame))
        .map(|unit| {
            let (word, node) = unit_state(farm, job, unit, now);
            let state = job.unit(unit);
            let outcome = state.current_results().next().map(|(_, outcome)| outcome);
            let kept = outcome.is_some_and(|outcome| outcome.is_kept);
            let rendered = outcome.filter(|_| !kept);
            let results = state.results.iter().filter(|(_, outcome)| !outcome.is_kept).count();
            let error = state.current_failures().last().map(|(_, attempt)| attempt.message.clone());
            json!({
                "frame": unit.frame,
                "state": word,
                "node": node.map(|node| node_name(farm, node)),
                "device": rendered.map(|outcome| outcome.device.clone()),
                "blender": rendered.map(|outcome| outcome.build.clone()),
                "seconds": rendered.map(|outcome| f64::from(outcome.millis) / 1000.0),
                "attempts": state.failures.len() + results,
                "reused": job.taken(unit).map(|from| from.to_string()),
                "kept": kept,
                "outputs": outcome.map(|outcome| output_names(job, unit, outcome)).unwrap_or_default(),
                "warnings": warnings(job, unit, &|node| node_name(farm, node)),
                "error": error.filter(|_| word != "done"),
            })
        })
        .collect();
    Value::Array(frames)
}

/// The files of a result that go to the job's output, by the names they have there. The image has the name of a view of the
/// job's, whatever the machine that rendered it calls it.
fn output_names(job: &JobState, unit: Unit, outcome: &Outcome) -> Vec<String> {
    let image = job
        .spec
        .as_ref()
        .map(|spec| spec.output.view_name(unit.frame, spec.format, spec.shown(unit.frame, &outcome.outputs)));
    let name = |output: &Output| match output.role {
        OutputRole::Image => Some(image.clone().unwrap_or_else(|| output.path.clone())),
        OutputRole::Aux => Some(output.path.clone()),
        OutputRole::Preview | OutputRole::Sound => None,
    };
    outcome.outputs.iter().filter_map(name).collect()
}

/// What people should know of a frame that is rendered.
fn warnings(job: &JobState, unit: Unit, name: &dyn Fn(NodeId) -> String) -> Vec<String> {
    let strangers = job.strangers_of(unit).take(STRANGERS_MAX);
    let strangers = strangers.map(|(node, file)| stranger(&name(node), file));
    remarks(job, unit).into_iter().chain(strangers).collect()
}

/// What the renderer warned of. A frame that shows nothing is told when its neighbours show something: a fade or an empty
/// scene is black for longer.
fn remarks(job: &JobState, unit: Unit) -> Vec<String> {
    let remark = |unit: Unit| {
        let (actor, _) = job.unit(unit).current_results().next()?;
        Some(job.remark(unit, actor))
    };
    let Some(Some(remarks)) = remark(unit) else { return Vec::new() };
    let mut warnings = remarks.warnings.clone();
    let frames = job.spec.iter().map(|spec| &spec.frames);
    let place = frames.clone().find_map(|frames| frames.position(unit.frame));
    if let (Some(blank), Some(place)) = (remarks.blank, place) {
        let beside = [place.checked_sub(1), place.checked_add(1)].into_iter().flatten();
        let beside = beside.filter_map(|place| frames.clone().find_map(|frames| frames.nth(place)));
        // Those that are rendered.
        let shows = |frame| Some(remark(Unit::whole(frame))?.is_none_or(|remark| remark.blank.is_none()));
        let beside: Vec<bool> = beside.filter_map(shows).collect();
        if !beside.is_empty() && beside.iter().all(|shows| *shows) {
            let what = match blank {
                Blank::Black => "black",
                Blank::Transparent => "transparent",
            };
            warnings.push(format!("the image is {what} all over, and those of the frames beside it are not"));
        }
    }
    warnings
}

/// Everybody, this machine first, then by name.
pub fn nodes(farm: &Farm, now: Duration) -> Value {
    let me = farm.me().node;
    let mut all: Vec<(bool, String, NodeId)> =
        farm.roster().members().keys().map(|node| (*node != me, node_name(farm, *node), *node)).collect();
    all.sort();
    Value::Array(all.into_iter().map(|(_, _, node)| self::node(farm, node, now)).collect())
}

/// One machine.
pub fn node(farm: &Farm, node: NodeId, now: Duration) -> Value {
    let Some(member) = farm.roster().member(node) else { return Value::Null };
    let unknown = Capability::default();
    let told = member.capability.as_ref().unwrap_or(&unknown);
    let alive = farm.roster().is_alive(node, now);
    let state = match () {
        () if !alive => "away",
        () if told.paused => "paused",
        () if told.sick => "sick",
        () if !member.in_hand.is_empty() => "busy",
        () => "ready",
    };
    let rendering: Vec<Value> = member
        .in_hand
        .iter()
        .filter(|_| alive)
        .map(|hand| json!({"job": hand.job.to_string(), "frame": hand.unit.frame, "progress": f64::from(hand.percent) / 100.0}))
        .collect();
    let blenders: Vec<Value> = told
        .renderers
        .iter()
        .map(|one| {
            let (major, minor, patch) = one.version;
            let lacks = Ability::ALL.into_iter().filter(|ability| !one.abilities.has(*ability));
            let lacks: Vec<String> = lacks.map(|ability| ability.to_string()).collect();
            json!({"version": format!("{major}.{minor}.{patch}"), "path": one.path, "devices": one.devices, "denoiser": one.abilities.has(Ability::Denoiser), "lacks": lacks})
        })
        .collect();
    let gpus: Vec<Value> = told
        .gpus
        .iter()
        .map(|gpu| json!({"name": gpu.name, "memory_bytes": gpu.memory_bytes, "driver": gpu.driver, "usable": gpu.usable, "backend": gpu.backend}))
        .collect();
    let problems: Vec<Value> = told
        .problems
        .iter()
        .map(|problem| json!({"kind": problem.kind, "message": problem.message, "fix": problem.fix}))
        .collect();
    json!({
        "id": node.to_string(),
        "name": node_name(farm, node),
        "self": node == farm.me().node,
        "os": told.os,
        "swarm_version": told.swarm_version,
        "addresses": told.addresses,
        "cpu": {"model": told.cpu_model, "cores": told.cores},
        "memory_bytes": told.memory_bytes,
        "gpus": gpus,
        "blenders": blenders,
        "slots": told.slots,
        "benchmark_ms": Some(told.benchmark_millis).filter(|millis| *millis > 0),
        "load": f64::from(member.load_percent) / 100.0,
        "tags": told.tags,
        "problems": problems,
        "state": state,
        "rendering": rendering,
    })
}

/// The machine a person means: an id, a prefix of one, or a name that means no other.
pub fn find_node(farm: &Farm, text: &str) -> Result<NodeId, super::http::ApiError> {
    use super::http::{ApiError, ErrorKind};
    let known = || farm.roster().members().keys().copied();
    let means = |node: &NodeId| {
        !text.is_empty() && (node.to_string().starts_with(text) || node_name(farm, *node).eq_ignore_ascii_case(text))
    };
    let matches: Vec<NodeId> = known().filter(means).collect();
    match matches.as_slice() {
        [one] => Ok(*one),
        [] => {
            let text = format!("no machine was met here that is called `{text}`; `swarm nodes` lists them");
            Err(ApiError::new(ErrorKind::NodeNotFound, text))
        }
        many => {
            let ids: Vec<String> = many.iter().take(5).map(NodeId::short).collect();
            let text = format!(
                "{} machines are meant by `{text}`: {}; write their id, or more of it",
                many.len(),
                ids.join(", ")
            );
            Err(ApiError::new(ErrorKind::NodeAmbiguous, text))
        }
    }
}

/// The job a person means: an id, a prefix of one or a name that means no other, or `last`: the latest submitted
/// here, else anywhere.
pub fn find(farm: &Farm, text: &str) -> Result<JobId, super::http::ApiError> {
    use super::http::{ApiError, ErrorKind};
    let known = || farm.jobs().values().filter(|job| job.spec.is_some());
    let newest = |job: &&JobState| job.spec.as_ref().map(|spec| (spec.created_ms, job.id));
    if text == "last" {
        let none =
            || ApiError::new(ErrorKind::JobNotFound, "there are no jobs yet; submit one with `swarm submit FILE`");
        // This machine's own: others' clocks may be ahead, and `last` is also what people cancel.
        let own = known().filter(|job| job.owner() == Some(farm.me().node)).max_by_key(newest);
        return own.or_else(|| known().max_by_key(newest)).map(|job| job.id).ok_or_else(none);
    }
    let is_id = |job: &&JobState| job.id.to_string() == text;
    let begins_so = |job: &JobState| !text.is_empty() && job.id.to_string().starts_with(text);
    let is_called_so = |job: &JobState| job.spec.as_ref().is_some_and(|spec| spec.name == text);
    let matches: Vec<&JobState> = match known().find(is_id) {
        Some(job) => vec![job],
        None => known().filter(|job| begins_so(job) || is_called_so(job)).collect(),
    };
    match matches.as_slice() {
        [one] => Ok(one.id),
        [] => {
            let text = format!("there is no job `{text}`; `swarm jobs` lists them");
            Err(ApiError::new(ErrorKind::JobNotFound, text))
        }
        many => {
            let ids: Vec<String> = many.iter().take(5).map(|job| job.id.short()).collect();
            let text = format!("{} jobs are meant by `{text}`: {}; write more of the id", many.len(), ids.join(", "));
            Err(ApiError::new(ErrorKind::JobAmbiguous, text))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::id::{ActorId, BlobId, BootId};
    use crate::farm::job::JobSpec;
    use crate::farm::kept::KEPT;
    use crate::farm::op::{Op, Output};

    /// A job of which these frames are rendered, each blank or not.
    fn job(rendered: &[(i32, Option<Blank>)]) -> JobState {
        job_with(None, rendered)
    }

    /// The same, with a frame that was there before.
    fn job_with(kept: Option<i32>, rendered: &[(i32, Option<Blank>)]) -> JobState {
        let actor = ActorId { node: NodeId([1; 32]), boot: BootId([1; 8]) };
        let mut job = JobState::new(JobId([7; 16]));
        if let Some(unit) = kept.map(Unit::whole) {
            let (outputs, device, build) = (Vec::new(), String::new(), KEPT.into());
            job.apply(actor, 0, Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 0, device, build });
        }
        let spec = JobSpec { frames: "1-9x2".parse().unwrap(), ..crate::wire::tests::spec() };
        job.apply(actor, 1, Op::Submit { min_version: 1, spec: Box::new(spec) });
        for (frame, blank) in rendered {
            let unit = Unit::whole(*frame);
            let outputs = vec![Output { path: "f".into(), blob: BlobId([1; 32]), bytes: 1, role: OutputRole::Image }];
            let (device, build) = ("CPU".into(), "b".into());
            job.apply(actor, 2, Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 1, device, build });
            if blank.is_some() {
                job.apply(actor, 3, Op::Remark { epoch: 0, unit, blank: *blank, warnings: vec!["w".into()] });
            }
        }
        job
    }

    #[test]
    fn the_files_of_a_frame_are_told_without_its_preview() {
        let output = |path: &str, role| Output { path: path.into(), blob: BlobId([1; 32]), bytes: 1, role };
        let (device, build) = ("CPU".into(), "b".into());
        let outputs = vec![
            output("plate.exr", OutputRole::Image),
            output("shot_0001.png.preview.jpg", OutputRole::Preview),
            output("file-outputs/z0001.exr", OutputRole::Aux),
        ];
        let outcome = Outcome { revision: 0, outputs, millis: 1, device, build, is_kept: false };
        // As they are called in the folder of the frames.
        assert_eq!(output_names(&job(&[]), Unit::whole(1), &outcome), ["shot_0001.png", "file-outputs/z0001.exr"]);
    }

    #[test]
    fn frames_of_different_builds_are_told_with_a_machine_of_each() {
        let unit = |frame| Unit::whole(frame);
        let mut job = job_with(Some(7), &[(1, None), (3, None)]);
        assert_eq!(job_warnings(&job, &|node| node.short()), Vec::<String>::new(), "all of one build");
        let other = ActorId { node: NodeId([2; 32]), boot: BootId([1; 8]) };
        let outputs = vec![Output { path: "f".into(), blob: BlobId([2; 32]), bytes: 1, role: OutputRole::Image }];
        let (device, build) = ("CPU".into(), "b colours 01234567".into());
        let done = Op::Done { epoch: 0, revision: 0, unit: unit(5), outputs, millis: 1, device, build };
        job.apply(other, 0, done);
        let told = job_warnings(&job, &|node| node.short());
        let (one, two) = (NodeId([1; 32]).short(), NodeId([2; 32]).short());
        assert!(told[0].ends_with(&format!(": b on {one}, b colours 01234567 on {two}")), "{told:?}");
    }

    #[test]
    fn a_machine_that_sends_what_is_no_file_of_the_job_is_named_and_none_of_it_is_told_as_an_output() {
        let mut job = job(&[(1, None)]);
        let other = ActorId { node: NodeId([2; 32]), boot: BootId([1; 8]) };
        let output = |path: &str, role| Output { path: path.into(), blob: BlobId([2; 32]), bytes: 1, role };
        for frame in [3, 5] {
            let outputs = vec![
                output(&format!("shot_{frame:04}.png"), OutputRole::Image),
                output(&format!("shot_{frame:04}-plate.png"), OutputRole::Aux),
            ];
            let (unit, device, build) = (Unit::whole(frame), "CPU".into(), "b".into());
            job.apply(other, 0, Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 1, device, build });
        }
        let name = |node: NodeId| node.short();
        let told = format!(
            "{} sent `shot_0003-plate.png`, which is no file of the job and is put nowhere",
            other.node.short()
        );
        assert_eq!(job_warnings(&job, &name), [format!("frame 3 and 1 more: {told}")]);
        assert_eq!(warnings(&job, Unit::whole(3), &name), [told]);
        assert_eq!(warnings(&job, Unit::whole(1), &name), Vec::<String>::new());
        let (_, outcome) = job.unit(Unit::whole(3)).current_results().next().unwrap();
        assert_eq!(output_names(&job, Unit::whole(3), outcome), ["shot_0003.png"]);
    }

    #[test]
    fn a_blank_frame_is_told_where_the_frames_beside_it_show_something() {
        let black = Some(Blank::Black);
        let told = |rendered: &[(i32, Option<Blank>)], frame| {
            let warnings = remarks(&job(rendered), Unit::whole(frame));
            assert_eq!(warnings.first().map(String::as_str), Some("w"), "what the renderer said comes first");
            warnings.len() > 1
        };
        assert!(told(&[(3, None), (5, black), (7, None)], 5));
        assert!(told(&[(1, black), (3, None)], 1), "the first has one beside it");
        assert!(told(&[(5, black), (7, None), (9, None)], 5), "one beside it is not rendered yet");
        assert!(!told(&[(3, None), (5, black), (7, black)], 5), "a fade");
        assert!(!told(&[(5, black)], 5), "nothing to compare with");
        assert_eq!(remarks(&job(&[(3, None), (5, black)]), Unit::whole(3)), Vec::<String>::new());
        let clear = remarks(&job(&[(3, None), (5, Some(Blank::Transparent))]), Unit::whole(5));
        assert!(clear[1].contains("transparent all over"), "{clear:?}");
    }
}
