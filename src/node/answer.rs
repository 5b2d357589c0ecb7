//! Streams of events for whoever watches: submissions, watches and collections.

use super::http::{ApiError, ErrorKind, Reply};
use super::view;
use crate::farm::Farm;
use crate::farm::collect::{Ending, VideoState};
use crate::farm::fit::suits_some;
use crate::farm::id::{JobId, NodeId, Unit};
use crate::farm::job::JobSpec;
use crate::farm::state::JobState;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// A caller that reads events.
#[derive(Clone, Debug)]
pub struct Stream(mpsc::Sender<Result<Value, ApiError>>);

impl Stream {
    /// The stream behind a reply; one that wants a single answer is a mistake of the caller, told as such.
    pub fn of(reply: Reply) -> Option<Self> {
        match reply {
            Reply::Stream(sender) => Some(Self(sender)),
            Reply::Once(sender) => {
                let _ = sender.send(Err(ApiError::new(ErrorKind::Internal, "this request is answered by a stream")));
                None
            }
        }
    }

    /// Sends an event, waiting for a slow reader. One that is gone is noticed by [`Self::is_gone`].
    pub async fn event(&self, event: Value) {
        let _ = self.0.send(Ok(event)).await;
    }

    /// Sends an event if there is room.
    pub fn try_event(&self, event: Value) -> bool {
        self.0.try_send(Ok(event)).is_ok()
    }

    /// Room for events.
    pub fn room(&self) -> usize {
        self.0.capacity()
    }

    /// Ends with an error.
    pub async fn fail(&self, error: ApiError) {
        let _ = self.0.send(Err(error)).await;
    }

    /// Ends with an error, if there is room.
    pub fn try_fail(&self, error: ApiError) {
        let _ = self.0.try_send(Err(error));
    }

    /// Whether nobody reads any more.
    pub fn is_gone(&self) -> bool {
        self.0.is_closed()
    }

    /// Returns once nobody reads any more.
    pub async fn gone(&self) {
        self.0.closed().await;
    }

    /// How far a phase is.
    pub async fn progress(&self, phase: &str, done: u64, total: u64, unit: &str) {
        self.event(progress(phase, done, total, unit)).await;
    }

    /// How far a phase is, if there is room.
    pub fn try_progress(&self, phase: &str, done: u64, total: u64, unit: &str) {
        self.try_event(progress(phase, done, total, unit));
    }

    /// Something the person should know.
    pub async fn warning(&self, kind: &str, subject: &str, message: &str) {
        self.event(warning(kind, subject, message)).await;
    }
}

fn progress(phase: &str, done: u64, total: u64, unit: &str) -> Value {
    json!({"event": "progress", "phase": phase, "done": done, "total": total, "unit": unit})
}

fn warning(kind: &str, subject: &str, message: &str) -> Value {
    json!({"event": "warning", "kind": kind, "subject": subject, "message": message})
}

/// What a watcher waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The job's end.
    End,
    /// Another node that holds the whole bundle, or the end. `stays`: this node outlives the caller, who need not wait
    /// for a node that may never come.
    Replicated {
        /// As said.
        stays: bool,
    },
    /// The end of collecting it here.
    Collected,
}

/// A caller that follows a job.
pub struct Watcher {
    /// Which job.
    pub job: JobId,
    stream: Stream,
    until: Until,
    told: BTreeMap<i32, (&'static str, usize)>,
    /// Machines that have the scene, of those that could render it.
    spread: Option<(usize, usize)>,
    frames_done: Option<usize>,
    said_encoding: bool,
    said_zipping: bool,
    said_alone: bool,
    said_reason: Option<String>,
    started: Duration,
    received_bytes: u64,
}

impl Watcher {
    /// Follows `job` from now on.
    pub fn new(job: JobId, stream: Stream, until: Until, farm: &Farm, now: Duration) -> Self {
        Self {
            job,
            stream,
            until,
            told: BTreeMap::new(),
            spread: None,
            frames_done: None,
            said_encoding: false,
            said_zipping: false,
            said_alone: false,
            said_reason: None,
            started: now,
            received_bytes: farm.received_bytes(),
        }
    }

    /// Tells what is new; says whether there is nothing more to come.
    pub fn update(&mut self, farm: &Farm, note: Option<String>, now: Duration) -> bool {
        if self.stream.is_gone() {
            return true;
        }
        let Some(job) = farm.jobs().get(&self.job) else {
            let text = format!("job {} was deleted", self.job.short());
            self.stream.try_fail(ApiError::new(ErrorKind::JobNotFound, text));
            return true;
        };
        let Some(spec) = &job.spec else { return false };
        if let Until::Replicated { stays } = self.until
            && !job.is_over()
        {
            let me = farm.me().node;
            let is_elsewhere = |bundle| job.holders(bundle).iter().any(|node| *node != me);
            if job.current_specs().all(|spec| is_elsewhere(spec.bundle)) {
                return self.stream.try_event(json!({"event": "replicated"}));
            }
            if !self.said_alone
                && farm.has_scene_alone(job, now)
                && now.saturating_sub(self.started) > Duration::from_secs(10)
            {
                let text = "no other machine that is here wants the scene: keep this one on until one has it";
                self.said_alone = self.stream.try_event(warning("not_replicated", &spec.name, text));
            }
            return stays && self.said_alone;
        }
        let mut done = 0;
        for unit in job.all_units() {
            let (state, node) = view::unit_state(farm, job, unit, now);
            done += usize::from(state == "done");
            let attempts = job.unit(unit).failures.len();
            let new = match self.told.get(&unit.frame) {
                None if state == "open" && attempts == 0 => continue,
                None => true,
                Some(told) => *told != (state, attempts),
            };
            // Leaves room for the last words.
            if !new || self.stream.room() < 4 {
                continue;
            }
            let told = self.told.insert(unit.frame, (state, attempts));
            let word = match state {
                "claimed" | "done" | "failed" => state,
                _ if told.is_some_and(|(_, before)| attempts > before) || attempts > 0 => "retry",
                _ => continue,
            };
            self.stream.try_event(self.frame_event(farm, job, unit, word, node));
        }
        let collector = farm.collectors().get(&self.job);
        if self.stream.room() > 2 {
            self.tell_phase(farm, job, spec, done, now);
        }
        // A video that failed is the last word, not a warning.
        let waits = collector.filter(|collector| collector.video != VideoState::Failed);
        let reason = waits.and_then(|collector| collector.reason.clone());
        if reason.is_some() && reason != self.said_reason && self.stream.room() > 2 {
            let text = reason.clone().unwrap_or_default();
            self.stream.try_event(warning("waiting", &spec.name, &text));
            self.said_reason = reason;
        }
        let ended = match (self.until, collector) {
            (_, Some(collector)) => collector.ended,
            (Until::Collected, None) => true,
            (_, None) => job.is_over() || view::is_settled(farm, job, now),
        };
        if !ended {
            return false;
        }
        if let Some(note) = note
            && self.stream.room() > 1
        {
            self.stream.try_event(warning("video", &spec.name, &note));
        }
        self.stream.try_event(self.finished(farm, now))
    }

    /// The scene spreads until a frame is done; after the last one the video is made.
    fn tell_phase(&mut self, farm: &Farm, job: &JobState, spec: &JobSpec, done: usize, now: Duration) {
        let has = |node: &NodeId, bundle| job.holding(bundle).any(|holder| holder == *node);
        let is_there = |node: &NodeId| job.current_specs().any(|spec| has(node, spec.bundle));
        let roster = farm.roster();
        let could: Vec<NodeId> =
            roster.alive(now).map(|(node, _)| node).filter(|node| suits_some(roster, *node, job).is_ok()).collect();
        let spread = (could.iter().filter(|node| is_there(node)).count(), could.len());
        let total = spec.frames.len();
        if done == 0 && spread.0 < spread.1 {
            if self.spread != Some(spread) {
                self.spread = Some(spread);
                self.stream.try_progress("spread", spread.0 as u64, spread.1 as u64, "machines");
            }
        } else if self.frames_done != Some(done) {
            self.frames_done = Some(done);
            self.stream.try_progress("render", done as u64, total as u64, "frames");
        } else if done == total && !self.said_encoding && is_encoding(farm, self.job) {
            self.said_encoding = true;
            self.stream.try_progress("encode", 0, total as u64, "frames");
        } else if !self.said_zipping && is_zipping(farm, self.job) {
            self.said_zipping = true;
            self.stream.try_progress("zip", 0, total as u64, "frames");
        }
    }

    fn frame_event(&self, farm: &Farm, job: &JobState, unit: Unit, word: &str, node: Option<NodeId>) -> Value {
        let state = job.unit(unit);
        let rendered = state.current_results().next().filter(|(_, outcome)| !outcome.is_kept);
        let seconds = rendered.map(|(_, outcome)| f64::from(outcome.millis) / 1000.0);
        let failure = state.current_failures().last();
        let mut event = json!({"event": "frame", "frame": unit.frame, "state": word, "seconds": seconds});
        if word == "retry" || word == "failed" {
            if let Some((by, attempt)) = failure {
                event["node"] = json!(view::node_name(farm, by));
                event["error"] = json!(attempt.message);
            }
        } else {
            event["node"] = json!(node.map(|node| view::node_name(farm, node)));
            event["reused"] = json!(job.taken(unit).is_some());
            event["kept"] = json!(job.is_kept(unit));
        }
        event
    }

    fn finished(&self, farm: &Farm, now: Duration) -> Value {
        let Some(job) = farm.jobs().get(&self.job) else { return Value::Null };
        let view = view::job(farm, job, now);
        let collector = farm.collectors().get(&self.job);
        let missing: Vec<i32> =
            job.all_units().filter(|unit| !job.unit(*unit).has_result()).map(|unit| unit.frame).collect();
        let video = collector.filter(|_| view["video_state"] == VideoState::Ready.word());
        json!({
            "event": "finished",
            "job": self.job.to_string(),
            "state": view["state"],
            "frames_done": view["frames"]["done"],
            "frames_failed": view["frames"]["failed"],
            "frames_reused": view["reused"],
            "frames_kept": view["kept"],
            "missing": missing,
            "output": collector.map(|collector| collector.output.directory.clone()),
            "video": video.and_then(|collector| collector.output.video.clone()),
            "video_state": view["video_state"],
            "zip": collector.map(|_| view["zip"].clone()),
            "reason": view["reason"],
            "nodes": view["nodes"],
            "seconds": now.saturating_sub(self.started).as_secs_f64(),
            "moved_bytes": farm.received_bytes().saturating_sub(self.received_bytes),
        })
    }
}

/// Whether a job's ZIP file is being written here.
fn is_zipping(farm: &Farm, job: JobId) -> bool {
    farm.collectors().get(&job).is_some_and(|collector| collector.finishing == Some(Ending::Zip))
}

/// Whether a job's video is being made here.
fn is_encoding(farm: &Farm, job: JobId) -> bool {
    farm.collectors().get(&job).is_some_and(|collector| collector.video == VideoState::Encoding)
}
