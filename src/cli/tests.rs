//! The command line and the API together, over a real loopback socket, against a fake node.
#![allow(clippy::unwrap_used)]

use super::fake_node::{FakeNode, FakeStarter, JOB, Script, Seen};
use super::print::Console;
use super::watch::Message;
use super::{parse_to, run_to};
use crate::farm::job::{Device, Series};
use crate::node::http::{
    ApiFile, ApiRequest, DebugRequest, ErrorKind, FormatChoice, RulesRequest, SetRequest, VideoChoice,
};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::SyncSender;
use tempfile::TempDir;

mod interrupted;

/// What a command did.
struct Ran {
    code: u8,
    out: String,
    err: String,
}

impl Ran {
    fn events(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The kind of the error under `--json`.
    fn kind(&self) -> String {
        let error: Value = serde_json::from_str(&self.err).unwrap_or_else(|e| panic!("{e}: {}", self.err));
        error["error"]["kind"].as_str().unwrap().to_owned()
    }
}

/// A data directory, maybe with a fake daemon in it, and a fake to start inside commands.
struct Stage {
    dir: TempDir,
    daemon: Option<FakeNode>,
    starter: FakeStarter,
}

impl Stage {
    fn with_daemon(script: Script) -> Self {
        let mut stage = Self::empty(script);
        stage.daemon = Some(FakeNode::start(stage.dir.path().to_owned(), script, Seen::default()));
        stage
    }

    fn empty(script: Script) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), daemon: None, starter: FakeStarter::new(script) }
    }

    fn run(&self, args: &str) -> Ran {
        self.run_heard(args, &|_| {})
    }

    fn run_heard(&self, args: &str, listen: &dyn Fn(SyncSender<Message>)) -> Ran {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = self.run_to(args, listen, &mut out, &mut err);
        Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }

    fn run_to(&self, args: &str, listen: &dyn Fn(SyncSender<Message>), out: &mut dyn Write, err: &mut dyn Write) -> u8 {
        let mut console = Console { out, err, json: false, screen: None };
        let dir = self.dir.path().as_os_str().to_owned();
        let words = ["swarm".into(), "--data-dir".into(), dir].into_iter();
        match parse_to(words.chain(args.split(' ').map(Into::into)), &mut console) {
            Ok(invocation) => run_to(invocation, &self.starter, listen, &mut console),
            Err(code) => code,
        }
    }

    fn seen(&self) -> Vec<ApiRequest> {
        let seen = self.daemon.as_ref().map_or(&self.starter.seen, |daemon| &daemon.seen);
        seen.lock().unwrap().clone()
    }

    /// A file to submit; nobody reads it here.
    fn blend(&self) -> String {
        let path = self.dir.path().join("shot.blend");
        std::fs::write(&path, b"").unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn a_submit_ends_with_one_line_that_says_all() {
    let stage = Stage::with_daemon(Script::Complete);
    let ran = stage.run(&format!("submit {}", stage.blend()));
    assert_eq!(ran.out, "4 frames in 0:00 on 2 machines → /elsewhere/shot.mp4\n");
    let expected = format!(
        "warning: shot.blend: saved by 4.4, rendered by 4.5\nbundled 3 files, 5.00 MiB (1.00 MiB new)\nsubmitted job {JOB}\n"
    );
    assert_eq!((ran.err, ran.code), (expected, 0));
}

#[test]
fn a_check_tells_all_problems_and_submits_nothing() {
    let stage = Stage::with_daemon(Script::Complete);
    let ran = stage.run(&format!("submit {} --check", stage.blend()));
    let expected = "warning: saved by 4.4, rendered by 4.5\n\
                    MACHINE  CAN  WHY\n\
                    ws1      yes  ready\n\
                    ws2      no   does not run scripts of ws1's jobs; on it, `swarm trust ws1`\n\
                    3 files, 5.00 MiB (1.00 MiB new)\n\
                    Blender 4.5 (the swarm's setting); about 12:34, as measured on this scene\n\
                    it can be submitted\n";
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, expected, ""));
    let stage = Stage::with_daemon(Script::Refuse);
    let ran = stage.run(&format!("submit {} --check", stage.blend()));
    assert_eq!(ran.code, 1);
    for line in ["error: no camera; add one\n", "is not there; put it there\n", "it cannot be submitted: 2 errors\n"] {
        assert!(ran.out.contains(line), "{}", ran.out);
    }
    let ran = stage.run(&format!("submit {} --check --json", stage.blend()));
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let keys =
        ["ok", "problems", "files", "bytes", "new_bytes", "dependencies", "nodes", "series", "series_from", "estimate"];
    assert_eq!((found["ok"].as_bool(), ran.code), (Some(false), 1));
    assert!(
        keys.iter().all(|key| found.get(key).is_some()) && found.as_object().unwrap().len() == keys.len(),
        "{found}"
    );
    assert_eq!(stage.run(&format!("submit {} --check --update last", stage.blend())).code, 2);
}

#[test]
fn a_submit_under_json_is_the_events_one_object_per_line() {
    let stage = Stage::with_daemon(Script::Complete);
    let ran = stage.run(&format!("submit {} --json", stage.blend()));
    let events = ran.events();
    assert_eq!(events.first().unwrap()["phase"], "trace");
    assert_eq!(events.last().unwrap()["state"], "completed");
    assert_eq!((ran.err.as_str(), ran.code), ("", 0));
}

#[test]
fn an_update_names_a_job_and_changes_nothing_of_the_whole() {
    let stage = Stage::with_daemon(Script::Complete);
    assert_eq!(stage.run(&format!("submit {} --update last --frames 3-4", stage.blend())).code, 0);
    let Some(ApiRequest::Submit(request)) = stage.seen().last().cloned() else { panic!("a submit") };
    assert_eq!((request.update.as_deref(), request.frames.as_deref()), (Some("last"), Some("3-4")));
    let whole = [
        "--name n",
        "--fps 24",
        "--format png",
        "--series 4.5",
        "--priority 3",
        "--output o",
        "--video v.mp4",
        "--no-video",
        "--no-audio",
        "--keep-existing",
    ];
    for flag in whole.into_iter().chain(["--paused", "--max-nodes 2", "--deadline 1h", "--tag t", "--after last"]) {
        assert_eq!(stage.run(&format!("submit {} --update last {flag}", stage.blend())).code, 2, "{flag}");
    }
}

#[test]
fn every_device_arrives_as_it_is_named() {
    let stage = Stage::with_daemon(Script::Complete);
    for device in Device::ALL {
        assert_eq!(stage.run(&format!("submit {} --device {device}", stage.blend())).code, 0, "{device}");
        let seen = stage.seen();
        let Some(ApiRequest::Submit(request)) = seen.last() else { panic!("{seen:?}") };
        assert_eq!(request.device, device);
    }
    let ran = stage.run("submit --help");
    assert!(ran.out.contains("auto|cpu|gpu|cuda|optix|hip|oneapi|metal"), "{}", ran.out);
}

#[test]
fn what_was_typed_arrives_as_the_request() {
    let stage = Stage::with_daemon(Script::Complete);
    let args = "--frames -3--1,5 --engine cycles --samples 4 --resolution 640x480 --percent 10 --fps 23.976 --device gpu --format png16 \
                --series 4.5 --priority 80 --output /o/f_#### --no-video --no-audio --name N --allow-missing --allow-unbaked --no-reuse --keep-existing --include data --include /x --scripts";
    let here = stage.dir.path().to_str().unwrap().to_owned();
    let map = format!(r"--map P:\={here} --map \\srv\vol={here}");
    let chosen = "--scene B --camera Cam.001 --view-layer front --view-layer back";
    let set = r#"--set scene.cycles.max_bounces=4 --set bpy.data.objects["Cube"].hide_render=true"#;
    let ran = stage.run(&format!("submit {} {args} {map} {chosen} {set}", stage.blend()));
    assert_eq!(ran.code, 0, "{}", ran.err);
    let [ApiRequest::Submit(request)] = &stage.seen()[..] else { panic!("{:?}", stage.seen()) };
    assert_eq!(request.frames.as_deref(), Some("-3--1,5"));
    assert_eq!((request.samples, request.resolution, request.percent), (Some(4), Some((640, 480)), Some(10)));
    assert_eq!((request.fps, request.device, request.priority), (Some(23.976), Device::Gpu, Some(80)));
    assert_eq!((request.series, request.format), (Some(Series { major: 4, minor: 5 }), Some(FormatChoice::Png16)));
    assert_eq!(request.output.as_deref(), Some(Path::new("/o/f_####")));
    assert_eq!((&request.video, request.no_reuse, request.keep_existing), (&VideoChoice::None, true, true));
    assert!(request.allow_missing && request.allow_unbaked && request.no_audio && request.scripts);
    assert!(request.file.is_absolute() && !request.detach);
    assert_eq!(request.include, [std::env::current_dir().unwrap().join("data"), "/x".into()]);
    let maps: Vec<_> = request.map.iter().map(|map| (&*map.from, map.to.to_str().unwrap())).collect();
    assert_eq!(maps, [(r"P:\", &*here), (r"\\srv\vol", &*here)]);
    let overrides = &request.overrides;
    assert_eq!((overrides.scene.as_deref(), overrides.camera.as_deref()), (Some("B"), Some("Cam.001")));
    assert_eq!(overrides.view_layers, ["front", "back"]);
    let set: Vec<String> = overrides.set.iter().map(ToString::to_string).collect();
    assert_eq!(set, ["scene.cycles.max_bounces=4", r#"bpy.data.objects["Cube"].hide_render=true"#]);
}

#[test]
fn what_is_no_property_is_refused_before_anything_is_asked() {
    let stage = Stage::with_daemon(Script::Complete);
    for (bad, says) in [
        ("scene.x", "sets nothing"),
        ("render.x=1", "begins with neither"),
        ("scene.x()=1", "makes no sense from `()=1` on"),
        ("scene.render.engine=CYCLES", "use --engine"),
    ] {
        let ran = stage.run(&format!("submit {} --set {bad}", stage.blend()));
        assert!(ran.code == 2 && ran.err.contains(says), "{bad}: {}", ran.err);
    }
    let many = " --view-layer x".repeat(65);
    let ran = stage.run(&format!("submit {}{many}", stage.blend()));
    assert!(ran.code == 2 && ran.err.contains("too many view layers"), "{}", ran.err);
    assert!(stage.seen().is_empty());
}

#[test]
fn a_map_without_a_folder_that_is_there_is_refused_before_anything_is_asked() {
    let stage = Stage::with_daemon(Script::Complete);
    for bad in [r"P:\", "=/x", r"P:\=", r"P:\=/no/such/folder"] {
        let ran = stage.run(&format!("submit {} --map {bad}", stage.blend()));
        assert_eq!(ran.code, 2, "{bad}: {}", ran.err);
    }
    assert!(stage.seen().is_empty());
}

#[test]
fn a_job_with_failed_frames_names_them_and_exits_with_3() {
    let stage = Stage::with_daemon(Script::FrameFails);
    let ran = stage.run(&format!("submit {}", stage.blend()));
    assert_eq!(ran.code, 3);
    assert!(ran.out.starts_with("3 frames in 0:00 on 2 machines → "), "{}", ran.out);
    let (last, id) = (ran.err.lines().last().unwrap(), &JOB[..8]);
    assert_eq!(
        last,
        format!("error: 1 frame failed (3); `swarm job log {id}` shows more, `swarm job requeue {id}` tries again")
    );
    assert_eq!(stage.run("job watch last --json").kind(), "job_failed");
    assert_eq!(stage.run("job collect last --output /x").code, 3);
}

#[test]
fn a_refusal_is_one_sentence_whether_it_comes_at_once_or_late() {
    for script in [Script::Refuse, Script::RefuseLate] {
        let stage = Stage::with_daemon(script);
        let ran = stage.run(&format!("submit {}", stage.blend()));
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        assert_eq!(ran.err, "error: 2 files are missing: a.png, b.png; add --allow-missing\n");
        assert_eq!(stage.run(&format!("submit {} --json", stage.blend())).kind(), "missing_files");
    }
}

#[test]
fn a_stream_that_breaks_off_is_an_error_and_with_detach_it_is_the_end() {
    let stage = Stage::with_daemon(Script::Vanish);
    let ran = stage.run(&format!("submit {}", stage.blend()));
    assert_eq!((ran.code, ran.err.contains(&format!("`swarm job watch {JOB}`"))), (1, true), "{}", ran.err);
    let ran = stage.run(&format!("submit {} --detach", stage.blend()));
    assert_eq!((ran.code, ran.out), (0, format!("submitted job {JOB}; follow it with `swarm job watch {JOB}`\n")));
}

#[test]
fn without_a_daemon_some_commands_start_a_node_inside_and_it_always_stops() {
    let stage = Stage::empty(Script::Complete);
    assert_eq!(stage.run(&format!("submit {}", stage.blend())).code, 0);
    assert_eq!(stage.run("invite").out, "swarm1-abcd-efgh\n");
    assert_eq!(
        stage.run("join swarm1-abcd-efgh").out,
        "joined the swarm 9e1d; 2 machines answered; `swarm nodes` lists who is here\n"
    );
    assert_eq!(stage.run("job collect last").code, 0);
    assert_eq!(stage.run("doctor").code, 1);
    let started = stage.starter.started.lock().unwrap();
    let how: Vec<_> = started.iter().map(|o| (o.embedded, o.render, o.slots)).collect();
    let (renders, looks, talks) = ((true, true, None), (true, true, Some(0)), (true, false, Some(0)));
    assert_eq!(how, [renders, talks, talks, talks, looks]);
    assert_eq!(*stage.starter.stopped.lock().unwrap(), 5);
    assert_eq!(ApiFile::read(stage.dir.path()).unwrap(), None);
}

#[test]
fn without_a_daemon_the_others_say_so_and_exit_with_4() {
    let stage = Stage::empty(Script::Complete);
    let dir = stage.dir.path().display();
    let all = "jobs,nodes,node pause,job show x,job watch x,job frames x,job log x,job pause x,job requeue x,job set x --priority 1";
    for args in all.split(',') {
        let ran = stage.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (4, ""), "{args}");
        assert_eq!(
            ran.err,
            format!("error: no daemon runs on this machine for {dir}; start one with `swarm daemon`\n")
        );
    }
    assert_eq!(stage.run("jobs --json").kind(), "no_daemon");
    assert!(stage.starter.started.lock().unwrap().is_empty());
}

#[test]
fn an_api_file_of_a_dead_daemon_or_with_another_token_means_no_daemon() {
    let stage = Stage::with_daemon(Script::Complete);
    let live = stage.daemon.as_ref().unwrap().file().clone();
    ApiFile { token: "6".repeat(64), ..live.clone() }.write(stage.dir.path()).unwrap();
    assert_eq!(stage.run("jobs").code, 4);
    live.write(stage.dir.path()).unwrap();
    assert_eq!(stage.run("jobs").code, 0);
    let mut stage = stage;
    stage.daemon = None;
    live.write(stage.dir.path()).unwrap();
    assert_eq!(stage.run("jobs").code, 4);
}

#[test]
fn nothing_long_begins_with_the_node_of_another_command() {
    let stage = Stage::with_daemon(Script::Complete);
    let live = stage.daemon.as_ref().unwrap().file().clone();
    ApiFile { embedded: true, ..live.clone() }.write(stage.dir.path()).unwrap();
    for args in [format!("submit {}", stage.blend()), "job collect last".into()] {
        let ran = stage.run(&args);
        assert_eq!(ran.code, 1, "{}", ran.out);
        assert!(ran.err.contains(&format!("process {}", live.pid)) && ran.err.contains("swarm daemon"), "{}", ran.err);
    }
    assert_eq!((stage.run("jobs").code, stage.run("invite").code), (0, 0));
    live.write(stage.dir.path()).unwrap();
}

#[test]
fn usage_errors_exit_with_2_and_are_json_when_json_is_asked_for() {
    let stage = Stage::with_daemon(Script::Complete);
    for (args, text) in [
        ("submit x.blend --frames 10-1", "run backwards"),
        ("submit x.blend --frames abc", "not a number"),
        ("submit x.blend --resolution 0x1", "1920x1080"),
        ("submit x.blend --device tpu", "auto, cpu, gpu, cuda, optix, hip, oneapi or metal"),
        ("submit x.blend --format tga", "png, png16, jpeg, exr, exr-multilayer, tiff or webp"),
        ("submit x.blend --format exr --update last", "--format"),
        ("submit x.blend --priority 101", "0..=100"),
        ("submit x.blend --video a.mp4 --no-video", "cannot be used with"),
        ("submit x.blend --zip --update last", "--zip"),
        ("submit x.blend --keep 14d", "unexpected argument"),
        ("submit x.blend y.blend", "unexpected argument"),
        ("submit", "<FILE>"),
        ("job rerun x", "unrecognized subcommand"),
        ("trust", "<NODE|--members>"),
        ("untrust ws2 --members", "cannot be used with"),
        ("setting series new", "such as 4.5"),
        ("setting series", "<X.Y|none>"),
        ("job debug x", "--frame <N>"),
        ("job set x", "say what to change"),
        ("job set x --time-limit 15", "15m, 24h"),
        ("submit x.blend --deadline 400d", "at most 366d"),
        ("submit x.blend --min-memory lots", "8G or 512M, or none"),
        ("submit x.blend --max-nodes 0", "from 1 to"),
        ("submit x.blend --chunk 0", "auto, all, or a number"),
        ("submit x.blend --order random", "spread, forward or first-last-middle"),
        ("submit x.blend --retries 101", "0..=100"),
        ("submit x.blend --tag two,words", "a tag is one word"),
        ("daemon --api 0.0.0.0:1", "only served on this machine itself"),
        ("daemon --slots 0", "0 is not in"),
        ("daemon --gpu-mode one", "all or each"),
    ] {
        let ran = stage.run(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args}");
        assert!(ran.err.starts_with("error: ") && ran.err.contains(text), "{args}: {}", ran.err);
        let ran = stage.run(&format!("--json {args}"));
        assert_eq!((ran.code, ran.kind().as_str()), (2, "usage"), "{args}");
        assert!(ran.err.contains(text), "{args}: {}", ran.err);
    }
    let help = stage.run("submit --help --json");
    assert_eq!((help.code, help.out.contains("--no-reuse")), (0, true));
    assert_eq!(stage.run("--version").out, format!("swarm {}\n", env!("CARGO_PKG_VERSION")));
    assert!(stage.seen().is_empty());
}

#[test]
fn a_file_that_is_not_there_is_told_before_anything_starts() {
    let stage = Stage::empty(Script::Complete);
    let ran = stage.run("submit /no/such/shot.blend");
    assert_eq!((ran.code, ran.err.as_str()), (1, "error: there is no file /no/such/shot.blend; check the path\n"));
    assert!(stage.starter.started.lock().unwrap().is_empty());
}

#[test]
fn a_script_is_one_file_that_is_there() {
    let stage = Stage::with_daemon(Script::Complete);
    let (blend, script) = (stage.blend(), stage.dir.path().join("look.py"));
    let named = script.to_str().unwrap();
    let ran = stage.run(&format!("submit {blend} --script {named}"));
    assert_eq!((ran.code, ran.err), (1, format!("error: there is no file {named}; check the path\n")));
    assert!(stage.seen().is_empty());
    std::fs::write(&script, "").unwrap();
    assert_eq!(stage.run(&format!("submit {blend} --script {named} --script {named}")).code, 2);
    assert_eq!(stage.run(&format!("submit {blend} --script {named} --update last")).code, 0);
    let [ApiRequest::Submit(request)] = &stage.seen()[..] else { panic!("{:?}", stage.seen()) };
    assert_eq!((request.script.as_deref(), request.scripts), (Some(&*script), false));
}

#[test]
fn errors_of_the_node_keep_their_kind_and_their_causes() {
    let stage = Stage::empty(Script::Complete);
    let ran = stage.run("daemon --port 4711 --peer 10.0.0.1 --no-mdns --no-render --no-sandbox --json");
    assert_eq!((ran.code, ran.kind().as_str()), (1, "port_taken"));
    assert!(ran.err.contains("cannot listen: port 4711 is taken"), "{}", ran.err);
    let options = stage.starter.started.lock().unwrap().pop().unwrap();
    assert_eq!((options.port, options.peers), (Some(4711), vec!["10.0.0.1".to_owned()]));
    assert!(!options.mdns && !options.render && !options.sandbox);
    let stage = Stage::with_daemon(Script::Complete);
    assert_eq!(stage.run("join wrong --json").kind(), "bad_code");
    assert_eq!(
        stage.run("job show nosuch").err,
        "error: no job has the id or name `nosuch`; `swarm jobs` lists them\n"
    );
    assert_eq!(ErrorKind::from_name("bad_code").exit_code(), 1);
}

#[test]
fn a_job_may_have_any_name() {
    let stage = Stage::with_daemon(Script::Complete);
    for (args, name) in [("job show a/b%20ä.x?#", "a/b%20ä.x?#"), ("job show ..", ".."), ("job show -- -x", "-x")] {
        assert_eq!(stage.run(args).code, 0, "{args}");
        assert_eq!(stage.seen().last(), Some(&ApiRequest::Job { job: name.into() }));
    }
}

#[test]
fn changes_reach_the_node_and_say_what_they_did() {
    let stage = Stage::with_daemon(Script::Complete);
    for (args, line) in [
        ("job pause last", "paused IceModal (3f2a9c1b)\n"),
        ("job resume last", "resumed IceModal (3f2a9c1b)\n"),
        ("job cancel last", "canceled IceModal (3f2a9c1b)\n"),
        ("job delete last", "deleted IceModal (3f2a9c1b)\n"),
        ("job requeue last --frames 3-4", "2 frames will be rendered again in IceModal (3f2a9c1b)\n"),
        ("job set last --priority 80 --max-nodes 3 --gpu-name none --after other", "changed IceModal (3f2a9c1b)\n"),
        ("node pause", "paused ws1\n"),
        ("node pause --drop", "paused ws1\n"),
        ("node resume", "resumed ws1\n"),
        ("trust ws2", "ws1 runs scripts of its own jobs and those of ws2 (bb)\n"),
        ("untrust --members", "ws1 runs scripts of its own jobs alone\n"),
        ("setting series 4.2", "jobs without --series are rendered by Blender 4.2; 2 machines have it\n"),
        ("settings", "SETTING  VALUE  SET BY\nseries   none   ws1\n"),
    ] {
        let ran = stage.run(args);
        assert_eq!((ran.out.as_str(), ran.code), (line, 0), "{args}: {}", ran.err);
    }
    let requeue = ApiRequest::Requeue { job: "last".into(), frames: Some("3-4".parse().unwrap()) };
    assert!(stage.seen().contains(&requeue));
    let rules = RulesRequest {
        max_nodes: Some(Some(3)),
        gpu_name: Some(None),
        after: Some(Some("other".into())),
        ..RulesRequest::default()
    };
    let changes = Box::new(SetRequest { priority: Some(80), rules });
    assert!(stage.seen().contains(&ApiRequest::Set { job: "last".into(), changes }));
    assert!(stage.seen().contains(&ApiRequest::NodePause { drop: true }));
    assert!(stage.seen().contains(&ApiRequest::Trust { whom: Some("ws2".into()), trusted: true }));
    assert!(stage.seen().contains(&ApiRequest::Trust { whom: None, trusted: false }));
    stage.run("job debug last --frame -7 --output /d");
    let target = DebugRequest { cwd: std::env::current_dir().unwrap(), output: Some("/d".into()) };
    assert_eq!(stage.seen().last(), Some(&ApiRequest::Debug { job: "last".into(), frame: -7, target }));
    assert_eq!(stage.run("job log last --follow").code, 2, "of which frame?");
    stage.run("job log last --frame -7");
    assert_eq!(stage.seen().last(), Some(&ApiRequest::Log { job: "last".into(), frame: Some(-7) }));
}

#[test]
fn lists_are_tables_for_people_and_the_nodes_own_values_under_json() {
    let stage = Stage::with_daemon(Script::Complete);
    for args in [
        "jobs",
        "job show last",
        "job frames last",
        "job log last",
        "job why last",
        "job debug last --frame 7",
        "nodes",
        "doctor",
    ] {
        let ran = stage.run(args);
        assert!(ran.err.is_empty() && !ran.out.contains('\u{1b}'), "{args}: {}", ran.err);
        // Seen with --nocapture.
        println!("$ swarm {args}\n{}", ran.out);
        let json: Value = serde_json::from_str(&stage.run(&format!("{args} --json")).out).unwrap();
        assert!(json.is_array() || json.is_object());
    }
    let frames = stage.run("job frames last").out;
    assert_eq!(frames.lines().count(), 1 + 6 + 2, "{frames}");
    assert!(frames.contains("frame 7 (attempt 3): out of memory"), "{frames}");
}
