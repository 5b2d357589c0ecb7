//! What a person sees while a job runs: a progress bar and a few lines on stderr, one last line on stdout.

#![allow(clippy::disallowed_methods, reason = "a progress bar shows elapsed time")]

use super::print::{
    Console, bytes, clock, clock_seconds, count, cut, items, number, plain, plain_lines, short_id, short_path, text,
};
use super::screen::Screen;
use crate::farm::frames::FrameSet;
use crate::node::http::{ApiError, ErrorKind};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often the bar moves by itself (guess: alive to the eye, nothing to the processor).
const TICK: Duration = Duration::from_millis(200);
/// Longest list of frames in a line, characters (guess: one line of a terminal).
const FRAMES_MAX_CHARS: usize = 80;
/// Longest message of another program in a line, characters (guess: a few lines of a terminal).
const ERROR_MAX_CHARS: usize = 300;

/// Follows the events of one job.
pub(crate) struct Progress {
    screen: Option<Screen>,
    bar: Option<ProgressBar>,
    phase: String,
    started: Instant,
    cwd: PathBuf,
    machines: BTreeSet<String>,
    rendered_here: BTreeSet<i64>,
}

impl Progress {
    /// Paths are shown as seen from `cwd`; a bar is drawn only on a terminal.
    pub(crate) fn new(screen: Option<&Screen>, cwd: PathBuf) -> Self {
        let (machines, rendered_here) = (BTreeSet::new(), BTreeSet::new());
        let screen = screen.filter(|screen| screen.is_terminal()).cloned();
        Self { screen, bar: None, phase: String::new(), started: Instant::now(), cwd, machines, rendered_here }
    }

    /// Shows one event.
    pub(crate) fn event(&mut self, event: &Value, console: &mut Console<'_>) -> io::Result<()> {
        match text(event, "event") {
            "progress" => self.progress(event),
            "warning" => {
                let subject = text(event, "subject");
                let message = text(event, "message");
                let about = if message.contains(subject) { String::new() } else { format!("{subject}: ") };
                say(console, format!("warning: {about}{message}"))?;
            }
            "bundled" => {
                let (all, new) = (bytes(number(event, "bytes")), bytes(number(event, "new_bytes")));
                say(console, format!("bundled {}, {all} ({new} new)", count(number(event, "files"), "file")))?;
            }
            "submitted" => say(console, format!("submitted job {}", text(event, "job")))?,
            "replicated" => say(console, "another machine has the whole scene; this one may go".into())?,
            "frame" => self.frame(event, console)?,
            "finished" => self.finished(event, console)?,
            // A newer daemon may tell more.
            _ => {}
        }
        Ok(())
    }

    /// Takes the bar away.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn progress(&mut self, event: &Value) {
        let (phase, done, total) = (text(event, "phase"), number(event, "done"), number(event, "total"));
        let Some(screen) = &self.screen else { return };
        match &self.bar {
            Some(bar) if phase == self.phase => {
                bar.set_length(total.max(done));
                bar.set_position(done);
            }
            _ => {
                // A bar of its own for each phase: numbers of one never show in the units of another.
                let bar = ProgressBar::with_draw_target(Some(total.max(done)), ProgressDrawTarget::hidden());
                bar.set_style(style(phase, text(event, "unit"), done, total));
                bar.set_position(done);
                if phase == "render" && !self.machines.is_empty() {
                    bar.set_message(machines(&self.machines));
                }
                let bar = screen.show(bar);
                bar.enable_steady_tick(TICK);
                if let Some(old) = self.bar.replace(bar) {
                    old.finish_and_clear();
                }
                self.phase = phase.to_owned();
            }
        }
    }

    fn frame(&mut self, event: &Value, console: &mut Console<'_>) -> io::Result<()> {
        let (frame, node) = (event.get("frame").and_then(Value::as_i64).unwrap_or_default(), text(event, "node"));
        let why = sentence(text(event, "error"), ERROR_MAX_CHARS);
        match text(event, "state") {
            "done" => {
                self.rendered_here.insert(frame);
                if event["reused"] == true || event["kept"] == true {
                    return Ok(()); // whoever has it had nothing to do
                }
                if self.machines.insert(node.to_owned())
                    && let Some(bar) = &self.bar
                {
                    bar.set_message(machines(&self.machines));
                }
                Ok(())
            }
            "retry" => say(console, format!("frame {frame} failed on {node} and is tried again{why}")),
            "failed" => say(console, format!("frame {frame} failed for good, last on {node}{why}")),
            _ => Ok(()),
        }
    }

    fn finished(&mut self, event: &Value, console: &mut Console<'_>) -> io::Result<()> {
        self.clear();
        let done = number(event, "frames_done");
        if done == 0 {
            return Ok(()); // the error that follows says so
        }
        let mut line = count(done, "frame");
        match (number(event, "frames_reused"), number(event, "frames_kept")) {
            (0, 0) => {}
            (reused, 0) => line.push_str(&without_work(reused, done, "reused")),
            (0, kept) => line.push_str(&without_work(kept, done, "kept")),
            (reused, kept) => drop(write!(line, ", {reused} of them reused and {kept} kept,")),
        }
        if !self.rendered_here.is_empty() {
            // The node may know better than a watcher that came late.
            let seconds = event.get("seconds").and_then(Value::as_f64).map(|seconds| clock_seconds(Some(seconds)));
            let _ = write!(line, " in {}", seconds.unwrap_or_else(|| clock(self.started.elapsed())));
            if !self.machines.is_empty() {
                let _ = write!(line, " on {}", count(self.machines.len() as u64, "machine"));
            }
        }
        let mut line = line.trim_end_matches(',').to_owned();
        let places = [text(event, "video"), text(event, "output")];
        if let Some(path) = places.into_iter().find(|path| !path.is_empty()) {
            let _ = write!(line, " → {}", short_path(path, &self.cwd));
        }
        if !text(event, "zip").is_empty() {
            let _ = write!(line, ", {}", short_path(text(event, "zip"), &self.cwd));
        }
        console.line(plain(&line))
    }
}

fn machines(names: &BTreeSet<String>) -> String {
    format!("  {}", count(names.len() as u64, "machine"))
}

pub(crate) fn say(console: &mut Console<'_>, line: String) -> io::Result<()> {
    writeln!(console.err, "{}", plain_lines(&line))
}

/// Of how many frames of a job nobody had work, in the middle of its last line.
fn without_work(frames: u64, of: u64, how: &str) -> String {
    match frames {
        1 if of == 1 => format!(", {how},"),
        _ if frames == of => format!(", all of them {how},"),
        _ => format!(", {frames} of them {how},"),
    }
}

/// Why a finished job is not a success, for the error line; `None` when it is one.
/// `alone`: no daemon runs that could be asked more.
pub(crate) fn shortfall(finished: &Value, alone: bool) -> Option<ApiError> {
    let job = short_id(finished, "job");
    let (kind, text) = match (text(finished, "state"), text(finished, "video_state")) {
        ("completed", "failed") => {
            let reason = sentence(text(finished, "reason"), ERROR_MAX_CHARS);
            (ErrorKind::VideoFailed, format!("the frames are done and the video could not be made{reason}"))
        }
        ("completed", _) => return None,
        ("canceled", _) => {
            (ErrorKind::JobFailed, "the job was canceled; the frames that were done are kept".to_owned())
        }
        _ => {
            let missing = frame_list(items(finished, "missing").iter().filter_map(Value::as_i64), FRAMES_MAX_CHARS);
            let failed = count(number(finished, "frames_failed"), "frame");
            let what = match text(finished, "reason") {
                "" if missing.is_empty() => format!("{failed} failed"),
                "" => format!("{failed} failed ({missing})"),
                reason => cut(plain(reason.lines().next().unwrap_or_default()).trim(), ERROR_MAX_CHARS),
            };
            let first = if alone { "start `swarm daemon`; then " } else { "" };
            let next = format!("{first}`swarm job log {job}` shows more, `swarm job requeue {job}` tries again");
            (ErrorKind::JobFailed, format!("{what}; {next}"))
        }
    };
    Some(ApiError::new(kind, text))
}

/// The first line of a message from elsewhere as the end of a sentence.
fn sentence(message: &str, max_chars: usize) -> String {
    match plain(message.lines().next().unwrap_or_default()).trim() {
        "" => String::new(),
        line => format!(": {}", cut(line, max_chars)),
    }
}

/// Frames as `1-4,7`, cut after so many characters at a comma.
pub(crate) fn frame_list(frames: impl Iterator<Item = i64>, max_chars: usize) -> String {
    let frames = frames.filter_map(|frame| i32::try_from(frame).ok()).collect();
    let text = FrameSet::from_frames(frames).map(|set| set.to_string()).unwrap_or_default();
    if text.len() <= max_chars {
        return text;
    }
    let end = text[..max_chars].rfind(',').unwrap_or(max_chars);
    format!("{},…", &text[..end])
}

fn style(phase: &str, unit: &str, first: u64, total: u64) -> ProgressStyle {
    let verb = match phase {
        "trace" => "tracing",
        "hash" => "reading",
        "spread" => "spreading",
        "render" => "rendering",
        "encode" => "encoding",
        "zip" => "zipping",
        other => other,
    };
    let verb = plain(verb).replace(['{', '}'], "");
    let unit = plain(unit).replace(['{', '}'], "");
    let template = match (total, unit.as_str()) {
        (0, _) => format!("{{spinner}} {verb} {{pos}} {unit}"),
        (_, "bytes") => format!("{verb} [{{bar:30}}] {{binary_bytes}}/{{binary_total_bytes}}{{speed}}{{left}}"),
        _ => format!("{verb} [{{bar:30}}] {{pos}}/{{len}} {unit}{{rate}}{{left}}{{msg}}"),
    };
    // Only what was done since the phase began counts: a watcher may come when half is done.
    let per_second = move |state: &ProgressState| {
        let seconds = state.elapsed().as_secs_f64();
        if seconds > 0.0 { state.pos().saturating_sub(first) as f64 / seconds } else { 0.0 }
    };
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style
        .progress_chars("=> ")
        .with_key("rate", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = match per_second(state) {
                rate if rate <= 0.0 => Ok(()),
                rate if rate >= 1.0 => write!(out, "  {rate:.1}/s"),
                rate if rate * 60.0 >= 1.0 => write!(out, "  {:.1}/min", rate * 60.0),
                rate => write!(out, "  {:.1}/h", rate * 3600.0),
            };
        })
        .with_key("speed", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let rate = per_second(state) as u64;
            let _ = if rate > 0 { write!(out, "  {}/s", bytes(rate)) } else { Ok(()) };
        })
        .with_key("left", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let left = state.len().unwrap_or(0).saturating_sub(state.pos());
            let rate = per_second(state);
            if rate > 0.0 && left > 0 {
                let _ = write!(out, "  ETA {}", clock_seconds(Some(left as f64 / rate)));
            }
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_job_says_which_frames_and_what_next() {
        let mut event = json!({"job": "3f2a", "state": "failed", "frames_failed": 3, "missing": [7, 8, 12]});
        let text = shortfall(&event, false).map(|error| error.message).unwrap_or_default();
        assert_eq!(
            text,
            "3 frames failed (7-8,12); `swarm job log 3f2a` shows more, `swarm job requeue 3f2a` tries again"
        );
        event["reason"] = "3 of 9 frames failed (7-8,12); frame 7: out of memory".into();
        let text = shortfall(&event, true).map(|error| error.message).unwrap_or_default();
        assert!(
            text.starts_with("3 of 9 frames failed (7-8,12); frame 7: out of memory; start `swarm daemon`;"),
            "{text}"
        );
        event["state"] = "completed".into();
        assert_eq!(shortfall(&event, false), None);
        event["video_state"] = "failed".into();
        event["reason"] = "there is no ffmpeg".into();
        let error = shortfall(&event, false).unwrap_or_else(|| ApiError::new(ErrorKind::Internal, ""));
        assert_eq!((error.kind, error.kind.exit_code()), (ErrorKind::VideoFailed, 1));
        assert_eq!(error.message, "the frames are done and the video could not be made: there is no ffmpeg");
    }

    #[track_caller]
    fn ends(rendered: &[bool], (frames_reused, frames_kept): (u64, u64), expected: &str) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console { out: &mut out, err: &mut err, json: false, screen: None };
        let mut progress = Progress::new(None, PathBuf::from("/home"));
        for (frame, is_rendered) in rendered.iter().enumerate() {
            let is_kept = !is_rendered && frames_reused == 0;
            let event = json!({"event": "frame", "frame": frame, "state": "done", "node": "a",
                "reused": !is_rendered && !is_kept, "kept": is_kept});
            progress.event(&event, &mut console).unwrap();
        }
        let frames = rendered.len();
        let finished = json!({
            "event": "finished", "frames_done": frames, "frames_reused": frames_reused, "frames_kept": frames_kept,
            "output": "/home/o", "seconds": 3.0,
        });
        progress.event(&finished, &mut console).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().trim_end(), expected);
    }

    #[test]
    fn the_last_line_says_how_many_frames_were_reused_or_kept() {
        ends(&[true, true], (0, 0), "2 frames in 0:03 on 1 machine → o");
        ends(&[false, true, false], (2, 0), "3 frames, 2 of them reused, in 0:03 on 1 machine → o");
        ends(&[false, false], (2, 0), "2 frames, all of them reused, in 0:03 → o");
        ends(&[false], (1, 0), "1 frame, reused, in 0:03 → o");
        ends(&[false, true], (0, 1), "2 frames, 1 of them kept, in 0:03 on 1 machine → o");
        ends(&[false, false], (0, 2), "2 frames, all of them kept, in 0:03 → o");
        ends(&[false, false, true], (1, 1), "3 frames, 1 of them reused and 1 kept, in 0:03 on 1 machine → o");
    }

    #[test]
    fn a_long_list_of_frames_is_cut_at_a_comma() {
        assert_eq!(frame_list([1, 5, 6, 100, 777].into_iter(), 8), "1-5x4,…");
        assert_eq!(frame_list([].into_iter(), 8), "");
    }

    #[test]
    fn every_phase_has_a_template_that_parses() {
        for phase in ["trace", "hash", "spread", "render", "encode", "of {a later} version"] {
            for (unit, total) in [("files", 0), ("bytes", 9), ("frames", 9)] {
                style(phase, unit, 0, total);
            }
        }
    }
}
