//! `swarm job log --follow`: a frame's log as it comes, from whichever machine renders it.
//!
//! The daemon is asked again and again for what there is, at most 64 KiB, and what is new of that is printed. So there is
//! nothing to keep open between machines, and a frame that moves from one to another is followed there.

use super::client::{Client, job_path};
use super::jobs::log_head;
use super::print::{Console, items, number, plain_lines, text};
use super::watch::Ears;
use super::{Exit, Failure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Between two looks (guess: lines that come so late are no nuisance, and a look costs a request to one machine).
const LOOK: Duration = Duration::from_secs(1);

/// Prints a frame's log until the frame is done or given up, its job is over, or the person has seen enough.
pub(crate) fn follow(
    client: &Client,
    ears: &Ears,
    job: &str,
    frame: i32,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let (mut shown, mut waits) = (Shown::default(), false);
    loop {
        // In this order: of a frame that has ended, the log that follows is whole.
        let frames = client.get(&job_path(job, &format!("/frames?frame={frame}")))?;
        let state = items(&frames, "").first().map(|frame| text(frame, "state")).unwrap_or_default().to_owned();
        let logs = client.get(&job_path(job, &format!("/log?frame={frame}")))?;
        for log in items(&logs, "") {
            shown.print(log, console)?;
        }
        shown.begin_again();
        let is_over = match state.as_str() {
            "done" | "failed" => true,
            "claimed" => false,
            // Nobody renders it: is it still to come?
            _ => matches!(text(&client.get(&job_path(job, ""))?, "state"), "completed" | "failed" | "canceled"),
        };
        if is_over {
            return Ok(Exit::Done);
        }
        if state == "open" && !std::mem::replace(&mut waits, true) {
            writeln!(console.err, "frame {frame} is not being rendered yet; waiting for a machine to begin it")?;
        }
        if ears.are_interrupted_within(LOOK) {
            return Ok(Exit::Interrupted);
        }
    }
}

/// What was printed already.
#[derive(Default)]
struct Shown {
    /// Up to which byte of a machine's nth attempt, and whether its message was.
    ends: BTreeMap<(String, usize), (u64, bool)>,
    /// Attempts of each machine in the answer at hand.
    attempts: BTreeMap<String, usize>,
}

impl Shown {
    /// Prints what is new of one attempt; those of an answer come in order.
    fn print(&mut self, log: &Value, console: &mut Console<'_>) -> io::Result<()> {
        let node = text(log, "node").to_owned();
        let nth = self.attempts.entry(node.clone()).or_default();
        *nth += 1;
        let is_new = !self.ends.contains_key(&(node.clone(), *nth));
        let (end, told) = self.ends.entry((node, *nth)).or_default();
        let (start, whole, message) = (number(log, "start"), text(log, "text"), text(log, "message"));
        // What was printed and dropped between two looks is not to be had any more.
        let known = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let new = whole.get(known..).unwrap_or_default();
        let says = !message.is_empty() && !*told;
        if console.json {
            if is_new || says || !new.is_empty() {
                let mut event = log.clone();
                event["start"] = json!(start.max(*end));
                event["text"] = json!(new);
                console.line(event.to_string())?;
            }
        } else {
            if is_new {
                log_head(log, console)?;
            }
            if !new.is_empty() {
                write!(console.out, "{}", plain_lines(new))?;
                console.out.flush()?;
            }
            if says {
                console.line(plain_lines(message))?;
            }
        }
        *end = (*end).max(start + whole.len() as u64);
        *told |= says;
        Ok(())
    }

    /// Another answer comes.
    fn begin_again(&mut self) {
        self.attempts.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn log(node: &str, state: &str, start: u64, text: &str, message: &str) -> Value {
        json!({"frame": 7, "node": node, "attempt": 1, "state": state, "start": start, "text": text, "message": message})
    }

    #[test]
    fn each_line_is_printed_once_whatever_is_kept_of_the_log_and_wherever_the_frame_goes() {
        let (mut out, mut err, mut shown) = (Vec::new(), Vec::new(), Shown::default());
        let answers = [
            vec![log("ws1", "rendering", 0, "", "")],
            vec![log("ws1", "rendering", 0, "one\n", "")],
            vec![log("ws1", "rendering", 0, "one\ntwo\n", "")],
            vec![log("ws1", "rendering", 4, "two\nthree\n", "")],
            vec![log("ws1", "failed", 4, "two\nthree\n", "it broke"), log("ws2", "rendering", 0, "four\n", "")],
            vec![log("ws1", "failed", 4, "two\nthree\n", "it broke"), log("ws2", "done", 900, "five\n", "")],
        ];
        for answer in answers {
            let mut console = Console { out: &mut out, err: &mut err, json: false, screen: None };
            answer.iter().for_each(|log| shown.print(log, &mut console).unwrap());
            shown.begin_again();
        }
        let expected = "== frame 7 on ws1, attempt 1, rendering ==\none\ntwo\nthree\nit broke\n\
                        == frame 7 on ws2, attempt 1, rendering ==\nfour\nfive\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
