//! A fake node for tests: answers API calls over a real loopback socket with fixed values, renders nothing.
#![allow(clippy::unwrap_used)]

use super::start::{EmbeddedNode, NodeOptions, NodeStarter};
use crate::farm::job::Series;
use crate::farm::settings::SwarmSetting;
use crate::node::http::{self, ApiCall, ApiError, ApiFile, ApiRequest, CALLS_WAITING, ErrorKind, Reply};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// The id of the one job that all answers are about.
pub(crate) const JOB: &str = "3f2a9c1b00112233445566778899aabb";

/// What the fake does with a submitted job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Renders four frames.
    Complete,
    /// Frame 3 fails.
    FrameFails,
    /// Refuses it at once.
    Refuse,
    /// Refuses it after it has begun to trace.
    RefuseLate,
    /// Breaks off after `submitted`.
    Vanish,
    /// Never gets anywhere after `submitted`.
    Hang,
}

/// What reached the fake.
pub(crate) type Seen = Arc<Mutex<Vec<ApiRequest>>>;

/// A fake daemon; stops when dropped.
pub(crate) struct FakeNode {
    runtime: Option<Runtime>,
    file: ApiFile,
    data_dir: PathBuf,
    pub(crate) seen: Seen,
}

impl FakeNode {
    pub(crate) fn start(data_dir: PathBuf, script: Script, seen: Seen) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let file = ApiFile { address, token: "5".repeat(64), pid: std::process::id(), embedded: false };
        let (sender, receiver) = mpsc::channel(CALLS_WAITING);
        runtime.spawn(http::serve(listener, file.token.clone(), sender));
        runtime.spawn(answer_all(receiver, script, seen.clone()));
        file.write(&data_dir).unwrap();
        Self { runtime: Some(runtime), file, data_dir, seen }
    }

    pub(crate) fn file(&self) -> &ApiFile {
        &self.file
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.file.remove(&self.data_dir).unwrap();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts fake nodes inside commands and remembers with which options.
pub(crate) struct FakeStarter {
    pub(crate) script: Script,
    pub(crate) seen: Seen,
    pub(crate) started: Mutex<Vec<NodeOptions>>,
    pub(crate) stopped: Arc<Mutex<usize>>,
}

impl FakeStarter {
    pub(crate) fn new(script: Script) -> Self {
        Self { script, seen: Seen::default(), started: Mutex::default(), stopped: Arc::default() }
    }
}

impl NodeStarter for FakeStarter {
    fn run_daemon(&self, options: NodeOptions) -> anyhow::Result<()> {
        self.started.lock().unwrap().push(options);
        Err(anyhow::Error::new(ApiError::new(ErrorKind::PortTaken, "port 4711 is taken")).context("cannot listen"))
    }

    fn start(&self, options: NodeOptions) -> anyhow::Result<Box<dyn EmbeddedNode>> {
        self.started.lock().unwrap().push(options.clone());
        let node = FakeNode::start(options.data_dir, self.script, self.seen.clone());
        Ok(Box::new(FakeEmbedded { node, stopped: self.stopped.clone() }))
    }
}

struct FakeEmbedded {
    node: FakeNode,
    stopped: Arc<Mutex<usize>>,
}

impl EmbeddedNode for FakeEmbedded {
    fn stop(self: Box<Self>) {
        *self.stopped.lock().unwrap() += 1;
        drop(self.node);
    }
}

async fn answer_all(mut calls: mpsc::Receiver<ApiCall>, script: Script, seen: Seen) {
    while let Some(ApiCall { request, reply }) = calls.recv().await {
        seen.lock().unwrap().push(request.clone());
        match reply {
            Reply::Once(sender) => {
                let _ = sender.send(answer(&request));
            }
            Reply::Stream(sender) => {
                let events = match &request {
                    ApiRequest::Submit(request) if request.check => vec![Ok(checked(script))],
                    _ => events(script),
                };
                tokio::spawn(stream(script, events, sender));
            }
        }
    }
}

async fn stream(script: Script, events: Vec<Result<Value, ApiError>>, sender: mpsc::Sender<Result<Value, ApiError>>) {
    for event in events {
        if sender.send(event).await.is_err() {
            return;
        }
    }
    if script == Script::Hang {
        sender.closed().await;
    }
}

/// What a check finds: two errors where submissions are refused.
fn checked(script: Script) -> Value {
    let problem = |severity: &str, kind: &str, message: &str, fix: &str| json!({"severity": severity, "kind": kind, "subject": "shot.blend", "datablock": null, "message": message, "fix": fix});
    let mut problems = vec![problem("warning", "series", "saved by 4.4, rendered by 4.5", "")];
    let ok = script != Script::Refuse;
    if !ok {
        problems.push(problem("error", "no_camera", "no camera", "add one"));
        problems.push(problem("error", "missing_files", "image `a`: /a.png is not there", "put it there"));
    }
    json!({
        "event": "checked", "ok": ok, "problems": problems, "files": 3, "bytes": 5 << 20, "new_bytes": 1 << 20, "series": "4.5", "series_from": "setting",
        "dependencies": [],
        "nodes": [{"id": "aa", "name": "ws1", "can": true, "reason": "ready"},
                  {"id": "bb", "name": "ws2", "can": false,
                   "reason": "does not run scripts of ws1's jobs; on it, `swarm trust ws1`"}],
        "estimate": {"seconds": 754.0, "basis": "measured"},
    })
}

fn events(script: Script) -> Vec<Result<Value, ApiError>> {
    let refusal = Err(ApiError::new(ErrorKind::MissingFiles, "2 files are missing: a.png, b.png; add --allow-missing"));
    if script == Script::Refuse {
        return vec![refusal];
    }
    let mut events = vec![Ok(json!({"event": "progress", "phase": "trace", "done": 3, "total": 0, "unit": "files"}))];
    if script == Script::RefuseLate {
        events.push(refusal);
        return events;
    }
    events.push(Ok(json!({"event": "progress", "phase": "hash", "done": 1 << 20, "total": 5 << 20, "unit": "bytes"})));
    events.push(Ok(
        json!({"event": "warning", "kind": "series", "subject": "shot.blend", "message": "saved by 4.4, rendered by 4.5"}),
    ));
    events.push(Ok(json!({"event": "bundled", "files": 3, "bytes": 5 << 20, "new_bytes": 1 << 20})));
    events.push(Ok(json!({"event": "submitted", "job": JOB})));
    if matches!(script, Script::Vanish | Script::Hang) {
        return events;
    }
    let failing = script == Script::FrameFails;
    for frame in 1..=4 {
        let node = if frame % 2 == 0 { "ws2" } else { "ws1" };
        let state = if failing && frame == 3 { "failed" } else { "done" };
        events.push(Ok(json!({"event": "frame", "frame": frame, "state": "claimed", "node": node})));
        events.push(Ok(json!({"event": "frame", "frame": frame, "state": state, "node": node, "seconds": 1.5})));
        events.push(Ok(json!({"event": "progress", "phase": "render", "done": frame, "total": 4, "unit": "frames"})));
    }
    events.push(Ok(json!({"event": "progress", "phase": "encode", "done": 4, "total": 4, "unit": "frames"})));
    let (state, missing) = if failing { ("failed", json!([3])) } else { ("completed", json!([])) };
    events.push(Ok(json!({
        "event": "finished", "job": JOB, "state": state, "frames_done": if failing { 3 } else { 4 }, "frames_failed": u8::from(failing),
        "missing": missing, "output": "/elsewhere/shot-frames", "video": "/elsewhere/shot.mp4", "moved_bytes": 1 << 20,
    })));
    events
}

fn answer(request: &ApiRequest) -> Result<Value, ApiError> {
    let job = |name: &str| {
        if name == "nosuch" {
            let text = "no job has the id or name `nosuch`; `swarm jobs` lists them";
            return Err(ApiError::new(ErrorKind::JobNotFound, text));
        }
        Ok(job())
    };
    match request {
        ApiRequest::Jobs => Ok(json!([
            job("")?,
            {"id": "aa01", "name": "Barbershop interior, the very long one with the mirrors", "state": "failed",
             "owner": {"user": "ben", "node": "ws2"}, "frames": {"total": 250, "done": 248, "failed": 2},
             "nodes": [{"name": "ws2"}], "video_state": "ready", "created_at": "2026-11-20T17:03:10Z"},
        ])),
        ApiRequest::Job { job: name }
        | ApiRequest::Pause { job: name }
        | ApiRequest::Resume { job: name }
        | ApiRequest::Cancel { job: name }
        | ApiRequest::Delete { job: name }
        | ApiRequest::Set { job: name, .. } => job(name),
        ApiRequest::Requeue { job: name, .. } => {
            let mut job = job(name)?;
            job["requeued"] = 2.into();
            Ok(job)
        }
        ApiRequest::Frames { .. } => Ok(Value::Array((1..=24).map(frame).collect())),
        ApiRequest::Why { .. } => Ok(json!([
            {"id": "aa", "name": "ws1", "can": true, "reason": "renders a frame of it"},
            {"id": "bb", "name": "ws2", "can": false, "reason": "6 GB free, needs 9 GB"},
        ])),
        ApiRequest::Log { .. } => Ok(json!([
            {"frame": 7, "node": "ws2", "attempt": 3, "state": "failed", "text": "Fra:7 Mem:10M\nError: \u{1b}[31mout of memory\n"},
        ])),
        ApiRequest::Debug { frame, target, .. } => Ok(json!({
            "directory": target.output, "blend": "/d/f/1/shot.blend", "image": format!("/d/shot_{frame:04}.png"),
            "command": ["blender", "--background"], "command_line": "blender --background", "blender": "4.5.1",
            "farm": "ws2 rendered it with Blender 4.5.1 on CPU",
        })),
        ApiRequest::Nodes => Ok(json!([node("ws1", true), node("ws2", false), {
            "id": "cc", "name": "laptop", "self": false, "os": "macos 15.1", "state": "away", "cpu": {"cores": 10},
            "memory_bytes": 16_u64 << 30, "gpus": [], "blenders": [], "load": 0.0, "rendering": [],
            "problems": [{"kind": "no_blender", "message": "no Blender was found", "fix": "install one or name it with --blender"}],
        }])),
        ApiRequest::NodePause { .. } | ApiRequest::NodeResume => Ok(node("ws1", true)),
        ApiRequest::Trust { trusted, .. } => {
            let told = if *trusted {
                "runs scripts of its own jobs and those of ws2 (bb)"
            } else {
                "runs scripts of its own jobs alone"
            };
            Ok(json!({"name": "ws1", "members": false, "trusts": [], "except": [], "told": told}))
        }
        ApiRequest::Settings => settings(None),
        ApiRequest::Setting(SwarmSetting::Series(series)) => settings(*series),
        ApiRequest::Doctor => Ok(json!([
            {"name": "Blender", "ok": true, "message": "3.4.1 at /usr/bin/blender"},
            {"name": "ffmpeg", "ok": false, "message": "not found; Blender will encode", "fix": "apt install ffmpeg"},
        ])),
        ApiRequest::Invite => Ok(json!({"code": "swarm1-abcd-efgh"})),
        ApiRequest::Join { code } if code == "swarm1-abcd-efgh" => Ok(json!({"swarm": "9e1d", "nodes": 2})),
        ApiRequest::Join { .. } => {
            Err(ApiError::new(ErrorKind::BadCode, "the invite code is mistyped; copy all of it from `swarm invite`"))
        }
        ApiRequest::Submit(_) | ApiRequest::Watch { .. } | ApiRequest::Collect { .. } => {
            Err(ApiError::new(ErrorKind::Internal, "the fake streams these"))
        }
    }
}

/// The swarm's settings; 4.2 is on two machines, and any other on none.
fn settings(series: Option<Series>) -> Result<Value, ApiError> {
    let value = series.map(|series| series.to_string());
    let machines = value.as_ref().map(|value| if value == "4.2" { 2 } else { 0 });
    Ok(json!([{"name": "series", "value": value, "by": {"id": "aa", "name": "ws1"}, "machines": machines}]))
}

fn job() -> Value {
    json!({
        "id": JOB, "name": "IceModal", "file": "/scenes/IceModal.blend", "owner": {"user": "anna", "node": "ws1"},
        "state": "active", "reason": null, "priority": 50, "series": "4.5",
        "created_at": "2026-11-21T07:40:00Z", "started_at": "2026-11-21T07:40:04Z", "finished_at": null,
        "frames": {"total": 24, "open": 10, "claimed": 2, "done": 11, "failed": 1}, "duplicates": 1,
        "nodes": [{"id": "aa", "name": "ws1", "done": 6, "seconds": 33.5}, {"id": "bb", "name": "ws2", "done": 5, "seconds": 41.0}],
        "output": "/scenes/IceModal-frames", "video": "/scenes/IceModal.mp4", "video_state": "encoding", "collected": false,
        "eta_seconds": 22.4, "history": [{"at": "2026-11-21T07:41:00Z", "by": "anna@ws1", "action": "set priority 50"}],
    })
}

fn frame(number: i32) -> Value {
    let node = if number % 2 == 0 { "ws2" } else { "ws1" };
    match number {
        7 => json!({"frame": 7, "state": "failed", "node": "ws2", "attempts": 3, "outputs": [], "warnings": [],
                    "error": "out of memory: the scene needs more than the 8 GiB this machine has"}),
        1..=12 => {
            json!({"frame": number, "state": "done", "node": node, "device": "CPU", "blender": "4.5.1", "seconds": 2.25,
                    "attempts": 1, "outputs": [], "warnings": if number == 2 { json!(["a driver was not run"]) } else { json!([]) }})
        }
        13 | 14 => json!({"frame": number, "state": "claimed", "node": node, "attempts": 1}),
        _ => json!({"frame": number, "state": "open", "attempts": 0}),
    }
}

fn node(name: &str, this: bool) -> Value {
    json!({
        "id": "aa", "name": name, "self": this, "os": "Debian 12", "swarm_version": "0.1.0", "addresses": [],
        "cpu": {"model": "x", "cores": 16}, "memory_bytes": 64_u64 << 30,
        "gpus": [{"name": "RTX 4090", "usable": true}, {"name": "RTX 4090", "usable": true}],
        "blenders": [{"version": "3.4.1", "path": "/usr/bin/blender"}, {"version": "4.5.1"}], "slots": 2, "load": 0.37,
        "problems": [], "state": "busy", "rendering": [{"job": JOB, "frame": 13, "progress": 0.4}],
    })
}
