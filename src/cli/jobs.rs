//! How jobs, frames and logs read for people.

use super::print::{
    Console, Table, clock_seconds, count, cut, items, number, plain, plain_lines, short_id, short_path, text,
};
use super::progress::frame_list;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Problems of frames that are listed one by one (guess: a screenful; `--json` has all).
const PROBLEMS_MAX: usize = 20;
/// Latest entries of a job's history that are shown (guess).
const HISTORY_MAX: usize = 5;
/// Longest error of a frame in a line, characters (guess: two lines of a terminal; `job log` has all).
const ERROR_MAX_CHARS: usize = 160;

/// `swarm jobs`.
pub(crate) fn list(jobs: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let jobs = items(jobs, "");
    if jobs.is_empty() {
        return console.line("no jobs; start one with `swarm submit FILE.blend`");
    }
    let mut table =
        Table::new(&["ID", "NAME", "STATE", "FRAMES", "FAILED", "MACHINES", "ETA", "VIDEO", "OWNER", "CREATED"]);
    for job in jobs {
        let frames = &job["frames"];
        let failed = number(frames, "failed");
        let machines = items(job, "nodes").len();
        table.row([
            short_id(job, "id"),
            text(job, "name").to_owned(),
            text(job, "state").to_owned(),
            format!("{}/{}", number(frames, "done"), number(frames, "total")),
            if failed > 0 { failed.to_string() } else { String::new() },
            if machines > 0 { machines.to_string() } else { String::new() },
            clock_seconds(job["eta_seconds"].as_f64()),
            match text(job, "video_state") {
                "none" => String::new(),
                state => state.to_owned(),
            },
            owner(job),
            time(text(job, "created_at")),
        ]);
    }
    table.lines().iter().try_for_each(|line| console.line(line))
}

/// `swarm job show`.
pub(crate) fn show(job: &Value, cwd: &Path, console: &mut Console<'_>) -> io::Result<()> {
    let frames = &job["frames"];
    let mut progress = format!("{} of {} done", number(frames, "done"), number(frames, "total"));
    for (key, what) in [("claimed", "being rendered"), ("open", "waiting"), ("failed", "failed")] {
        if number(frames, key) > 0 {
            progress.push_str(&format!(", {} {what}", number(frames, key)));
        }
    }
    if number(job, "duplicates") > 0 {
        progress.push_str(&format!(", {} rendered twice", number(job, "duplicates")));
    }
    if number(job, "reused") > 0 {
        progress.push_str(&format!(", {} reused", number(job, "reused")));
    }
    if number(job, "kept") > 0 {
        progress.push_str(&format!(", {} kept", number(job, "kept")));
    }
    let state = match (text(job, "state"), text(job, "reason")) {
        (state, "") => state.to_owned(),
        (state, reason) => format!("{state}: {reason}"),
    };
    let video = match (text(job, "video"), text(job, "video_state")) {
        ("", _) => "none".to_owned(),
        (path, state) => format!("{} ({state})", short_path(path, cwd)),
    };
    let collected = if job["collected"].as_bool() == Some(false) { " (not complete yet)" } else { "" };
    let mut lines = vec![
        ("job", format!("{}  {}", text(job, "name"), text(job, "id"))),
        ("state", state),
        ("frames", progress),
        ("left", clock_seconds(job["eta_seconds"].as_f64())),
        ("file", text(job, "file").to_owned()),
        ("output", format!("{}{collected}", short_path(text(job, "output"), cwd))),
        ("video", video),
        ("zip", short_path(text(job, "zip"), cwd)),
        ("Blender", text(job, "series").to_owned()),
        ("priority", number(job, "priority").to_string()),
        ("owner", owner(job)),
        ("created", time(text(job, "created_at"))),
        ("started", time(text(job, "started_at"))),
        ("finished", time(text(job, "finished_at"))),
    ];
    for node in items(job, "nodes") {
        let seconds = clock_seconds(node["seconds"].as_f64());
        lines.push(("machine", format!("{}: {} in {seconds}", name(node), count(number(node, "done"), "frame"))));
    }
    let warnings = items(job, "warnings").iter().filter_map(Value::as_str);
    lines.extend(warnings.map(|warning| ("warning", warning.to_owned())));
    let history = items(job, "history");
    for entry in &history[history.len().saturating_sub(HISTORY_MAX)..] {
        let line = format!("{} {} by {}", time(text(entry, "at")), text(entry, "action"), text(entry, "by"));
        lines.push(("history", line));
    }
    let mut last = "";
    for (key, value) in lines.iter().filter(|(_, value)| !value.trim().is_empty()) {
        let head = if *key == last { "" } else { key };
        console.line(format!("{head:<9} {}", plain(value)))?;
        last = key;
    }
    Ok(())
}

/// `swarm job frames`: one row per state and machine, then what went wrong, frame by frame.
pub(crate) fn frames(frames: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let frames = items(frames, "");
    let mut groups: BTreeMap<(u8, &str, &str), Vec<&Value>> = BTreeMap::new();
    for frame in frames {
        let (state, node) = (text(frame, "state"), text(frame, "node"));
        let (word, node) = if frame["kept"] == true { ("kept", "") } else { (state, node) };
        groups.entry((state_rank(state), word, node)).or_default().push(frame);
    }
    let mut table = Table::new(&["STATE", "MACHINE", "COUNT", "FRAMES", "MEAN", "DEVICE", "BLENDER"]);
    for ((_, state, node), group) in &groups {
        let seconds: Vec<f64> = group.iter().filter_map(|frame| frame["seconds"].as_f64()).collect();
        let mean = if seconds.is_empty() { 0.0 } else { seconds.iter().sum::<f64>() / seconds.len() as f64 };
        table.row([
            (*state).to_owned(),
            (*node).to_owned(),
            group.len().to_string(),
            frame_list(group.iter().filter_map(|frame| frame["frame"].as_i64()), 36),
            if seconds.is_empty() { String::new() } else { format!("{mean:.1} s") },
            common(group, "device"),
            common(group, "blender"),
        ]);
    }
    table.lines().iter().try_for_each(|line| console.line(line))?;
    let problems: Vec<String> = frames.iter().flat_map(frame_problems).collect();
    for problem in problems.iter().take(PROBLEMS_MAX) {
        console.line(problem)?;
    }
    match problems.len().saturating_sub(PROBLEMS_MAX) {
        0 => Ok(()),
        more => console.line(format!("and {more} more; --json lists all")),
    }
}

/// `swarm job log`.
pub(crate) fn log(logs: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let logs = items(logs, "");
    if logs.is_empty() {
        return console.line("no frame has a log yet");
    }
    for log in logs {
        log_head(log, console)?;
        for part in [text(log, "message"), text(log, "text")].iter().filter(|part| !part.is_empty()) {
            console.line(plain_lines(part).trim_end())?;
        }
    }
    Ok(())
}

/// Which frame, where, which attempt.
pub(crate) fn log_head(log: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let attempt = log["attempt"].as_u64().map(|n| format!(", attempt {n}")).unwrap_or_default();
    let state = text(log, "state");
    let state = if state.is_empty() { String::new() } else { format!(", {state}") };
    let frame = log["frame"].as_i64().unwrap_or_default();
    console.line(format!("== frame {frame} on {}{attempt}{state} ==", plain(text(log, "node"))))?;
    match number(log, "start") {
        0 => Ok(()),
        bytes => console.line(format!("(the first {bytes} bytes are not kept)")),
    }
}

/// `swarm job debug`: on the last line, so that it is easily copied, the command.
pub(crate) fn debug(answer: &Value, console: &mut Console<'_>) -> io::Result<()> {
    console.line(plain(&format!("the scene: {}", text(answer, "blend"))))?;
    console.line(plain(&format!("the image, once rendered: {}", text(answer, "image"))))?;
    match text(answer, "farm") {
        "" => {}
        farm => console.line(plain(&format!("the farm: {farm}; this command uses {}", text(answer, "blender"))))?,
    }
    if answer["scripts"] == true {
        console.line(
            "the command runs the job's scripts, which may do whatever you may; they are beside the scene and in it",
        )?;
    }
    if answer["sandboxed"] == true {
        console.line(
            "it runs Blender as you, with your files and the network; the farm here runs it in a sandbox, where it has neither",
        )?;
    }
    console.line(plain(text(answer, "command_line")))
}

/// What a change did, such as `paused IceModal (3f2a9c1b)`.
pub(crate) fn changed(job: &Value, what: &str, console: &mut Console<'_>) -> io::Result<()> {
    console.line(format!("{what} {} ({})", plain(text(job, "name")), short_id(job, "id")))
}

/// `swarm job why`: how it is with the job, then a line per machine.
pub(crate) fn why(job: &Value, machines: &Value, console: &mut Console<'_>) -> io::Result<()> {
    let reason = match text(job, "reason") {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    let head = format!("{} ({}) is {}{reason}", text(job, "name"), short_id(job, "id"), text(job, "state"));
    console.line(plain(&head))?;
    for machine in items(machines, "") {
        console.line(plain(&format!("{}: {}", name(machine), text(machine, "reason"))))?;
    }
    Ok(())
}

fn owner(job: &Value) -> String {
    let (user, node) = (text(&job["owner"], "user"), text(&job["owner"], "node"));
    if node.is_empty() { user.to_owned() } else { format!("{user}@{}", cut(node, 16)) }
}

fn name(node: &Value) -> String {
    let name = text(node, "name");
    if name.is_empty() { short_id(node, "id") } else { name.to_owned() }
}

/// `2026-11-21 07:40` of an RFC 3339 time, which is UTC.
fn time(text: &str) -> String {
    let minutes: String = text.chars().take(16).collect();
    if minutes.is_empty() { minutes } else { format!("{} UTC", minutes.replace('T', " ")) }
}

fn state_rank(state: &str) -> u8 {
    match state {
        "failed" => 0,
        "done" => 1,
        "claimed" => 2,
        _ => 3,
    }
}

/// The value all frames of a group share; how many different ones there are otherwise.
fn common(group: &[&Value], key: &str) -> String {
    let values: std::collections::BTreeSet<&str> =
        group.iter().map(|frame| text(frame, key)).filter(|value| !value.is_empty()).collect();
    match values.len() {
        0 => String::new(),
        1 => values.into_iter().collect(),
        many => format!("{many} different"),
    }
}

fn frame_problems(frame: &Value) -> Vec<String> {
    let number = frame["frame"].as_i64().unwrap_or_default();
    let error = Some(text(frame, "error")).filter(|error| !error.is_empty());
    let attempts = frame["attempts"].as_u64().filter(|n| *n > 1).map(|n| format!(" (attempt {n})")).unwrap_or_default();
    let warnings = items(frame, "warnings").iter().filter_map(Value::as_str);
    let error = error.map(|error| format!("frame {number}{attempts}: {}", cut(&plain(error), ERROR_MAX_CHARS)));
    error
        .into_iter()
        .chain(warnings.map(|w| format!("warning: frame {number}: {}", cut(&plain(w), ERROR_MAX_CHARS))))
        .collect()
}
