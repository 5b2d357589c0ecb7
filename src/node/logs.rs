//! What renderers printed, frame by frame, and fetching it from whichever machine has it.
//!
//! Of a frame in hand a log is seen as it comes; when the frame ends it becomes a file of this node's. The log of a failed
//! attempt is a blob that the ledger names, so that each attempt keeps its own. Logs are asked for only when somebody
//! wants to see them: they are not worth the wire otherwise, and are lost with their machine.

use super::calls::has_frame;
use super::http::{ApiError, Reply};
use super::net::{BlobReply, BlobRequest, ChunkSource, TEXT_MAX_BYTES};
use super::render::{Lines, split_log};
use super::slots::read_blob;
use super::store::Store;
use super::{Node, effects, submit, view};
use crate::farm::blob::BlobMap;
use crate::farm::id::{BlobId, JobId, NodeId, Unit};
use crate::farm::unit::Outcome;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Frames with failures whose logs are in one answer; the others are named (guess: more than anybody reads).
const LOGS_AT_ONCE: usize = 20;
/// Longest wait for another machine's log (guess: many round trips on a network that works).
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions about logs that wait for other machines at once (guess).
const QUESTIONS_MAX: usize = 64;

/// State of an attempt that goes on.
const RENDERING: &str = "rendering";

/// What is shown of frames in hand.
type Shown = BTreeMap<(JobId, i32), Arc<Mutex<Lines>>>;

/// The logs of frames that are or were rendered here.
pub struct Logs {
    dir: PathBuf,
    in_hand: Mutex<Shown>,
}

impl Logs {
    /// Kept under `scratch`.
    pub fn new(scratch: &Path) -> Arc<Self> {
        Arc::new(Self { dir: scratch.join("logs"), in_hand: Mutex::default() })
    }

    fn in_hand(&self) -> MutexGuard<'_, Shown> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame is begun: until what this gives is dropped, its log is what is shown there.
    pub fn begin(self: &Arc<Self>, job: JobId, frame: i32) -> InHand {
        let lines = Arc::default();
        self.in_hand().insert((job, frame), Arc::clone(&lines));
        InHand { logs: self.clone(), key: (job, frame), lines }
    }

    /// The log of a frame as far as it is here.
    pub fn of(&self, job: JobId, frame: i32) -> Option<String> {
        let lines = self.in_hand().get(&(job, frame)).cloned();
        match lines {
            Some(lines) => Some(lines.lock().unwrap_or_else(PoisonError::into_inner).text()),
            None => std::fs::read_to_string(self.path(job, frame)).ok(),
        }
    }

    /// Keeps the log of a frame that ended.
    pub fn keep(&self, job: JobId, frame: i32, text: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.folder(job))?;
        std::fs::write(self.path(job, frame), text)
    }

    /// Forgets a job's.
    pub fn forget(&self, job: JobId) {
        // Usually there are none.
        let _ = std::fs::remove_dir_all(self.folder(job));
    }

    fn folder(&self, job: JobId) -> PathBuf {
        self.dir.join(job.to_string())
    }

    fn path(&self, job: JobId, frame: i32) -> PathBuf {
        self.folder(job).join(format!("{frame}.txt"))
    }
}

/// A frame whose log is being written.
pub struct InHand {
    logs: Arc<Logs>,
    key: (JobId, i32),
    lines: Arc<Mutex<Lines>>,
}

impl InHand {
    /// From now on its log is this.
    pub fn shows(&self, lines: Lines) {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = lines;
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut in_hand = self.logs.in_hand();
        if in_hand.get(&self.key).is_some_and(|lines| Arc::ptr_eq(lines, &self.lines)) {
            in_hand.remove(&self.key);
        }
    }
}

/// Chunks and logs, for peers.
pub struct Source {
    /// The chunks.
    pub chunks: Arc<effects::Chunks>,
    /// The logs.
    pub logs: Arc<Logs>,
}

impl ChunkSource for Source {
    fn map(&self, blob: BlobId) -> Option<BlobMap> {
        self.chunks.map(blob)
    }

    fn have(&self, blob: BlobId) -> Option<Vec<u8>> {
        self.chunks.have(blob)
    }

    fn read(&self, blob: BlobId, index: u32) -> io::Result<Vec<u8>> {
        self.chunks.read(blob, index)
    }

    fn reread(&self, blob: BlobId, index: u32) -> io::Result<Vec<u8>> {
        self.chunks.reread(blob, index)
    }

    fn log(&self, job: JobId, frame: i32) -> Option<Vec<u8>> {
        self.logs.of(job, frame).map(String::into_bytes)
    }
}

/// A question about logs that other machines are asked for.
pub struct Question {
    entries: Vec<Entry>,
    reply: oneshot::Sender<Vec<Entry>>,
    until: Duration,
}

/// Asks for all that renderers printed about one frame.
pub struct FrameLogs {
    /// Of which job.
    pub job: JobId,
    /// Which.
    pub frame: i32,
    /// Machines that are not asked: they did not answer lately.
    pub silent: BTreeSet<NodeId>,
    /// Where it goes.
    pub reply: oneshot::Sender<FrameLog>,
}

/// All that renderers printed about one frame, attempt by attempt.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FrameLog {
    /// For people.
    pub text: String,
    /// Why some attempt's is not in it.
    pub missing: Vec<String>,
    /// Machines that did not answer in time.
    pub silent: BTreeSet<NodeId>,
    /// Whether more was asked than other machines are waited for at once, and what is missing may be there.
    pub pushed_out: bool,
    /// Machines that could not be asked.
    pub away: BTreeSet<NodeId>,
}

/// A line of the answer, its text not read yet.
struct Entry {
    frame: i32,
    node: String,
    attempt: usize,
    state: &'static str,
    message: String,
    log: LogText,
}

/// Where the text of a log is.
enum LogText {
    /// In the store here.
    Blob(BlobId),
    /// With this node's own logs.
    Own(JobId),
    /// On another machine, which is being asked for it.
    Asked(NodeId, BlobRequest),
    /// On another machine, which was not waited for: too much else was asked.
    PushedOut,
    /// Here.
    Text(Vec<u8>),
    /// Not to be had, as it says.
    Nowhere(String),
}

impl Entry {
    /// What was printed, or why that is not to be had.
    fn text(&self, store: &Store, logs: &Logs) -> Result<String, String> {
        match &self.log {
            LogText::Blob(blob) => match read_blob(store, *blob, TEXT_MAX_BYTES as u64) {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(error) => Err(format!("its log cannot be read: {error}")),
            },
            LogText::Own(job) => logs.of(*job, self.frame).ok_or_else(|| gone(&self.node)),
            LogText::Text(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
            LogText::Asked(..) => Err(format!("its log is on {}, which does not answer; try again", self.node)),
            LogText::PushedOut => {
                Err(format!("its log is on {}, and too many logs were asked for at once; try again", self.node))
            }
            LogText::Nowhere(text) if text.is_empty() => Ok(String::new()),
            LogText::Nowhere(text) => Err(text.clone()),
        }
    }

    /// Adds it to what is known of its frame.
    fn add_to(self, whole: &mut FrameLog, store: &Store, logs: &Logs) {
        match &self.log {
            LogText::Asked(node, _) => drop(whole.silent.insert(*node)),
            LogText::PushedOut => whole.pushed_out = true,
            LogText::Blob(_) | LogText::Own(_) | LogText::Text(_) | LogText::Nowhere(_) => {}
        }
        let text = match self.text(store, logs) {
            Ok(text) => text,
            Err(why) => {
                whole.missing.push(why);
                if self.message.is_empty() {
                    return;
                }
                String::new()
            }
        };
        let (start, text) = split_log(&text);
        let Self { frame, node, attempt, state, message, .. } = self;
        whole.text.push_str(&format!("== frame {frame} on {node}, attempt {attempt}, {state} ==\n"));
        if start > 0 {
            whole.text.push_str(&format!("(the first {start} bytes are not kept)\n"));
        }
        for part in [message.as_str(), text].iter().filter(|part| !part.is_empty()) {
            whole.text.push_str(part.trim_end());
            whole.text.push('\n');
        }
    }

    fn read(self, store: &Store, logs: &Logs) -> Value {
        let text = self.text(store, logs).unwrap_or_else(|why| why);
        let (start, text) = split_log(&text);
        json!({
            "frame": self.frame,
            "node": self.node,
            "attempt": self.attempt,
            "state": self.state,
            "message": self.message,
            "start": start,
            "text": text,
        })
    }
}

/// That a machine lost a log.
fn gone(node: &str) -> String {
    format!("{node} has no log of it any more")
}

impl Node {
    /// Answers with a job's logs, or those of one frame; reading them is the disk's and other machines' work.
    pub(super) fn log(&mut self, job: &str, frame: Option<i32>, reply: Reply) {
        let Reply::Once(mut reply) = reply else { return };
        let entries = match self.log_entries(job, frame) {
            Ok(entries) => entries,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (answer, _) = self.ask_for_logs(entries, &BTreeSet::new());
        let (store, logs) = (self.store.clone(), self.logs.clone());
        tokio::spawn(async move {
            tokio::select! {
                Ok(entries) = answer => {
                    let read = move || entries.into_iter().map(|entry| entry.read(&store, &logs)).collect();
                    let _ = reply.send(submit::blocking(read).await);
                }
                () = reply.closed() => {}
            }
        });
    }

    /// Answers with all that was printed about one frame.
    pub(super) fn frame_logs(&mut self, FrameLogs { job, frame, silent, reply }: FrameLogs) {
        let mut entries = self.entries_of(job, vec![Unit::whole(frame)]);
        entries.retain(|entry| entry.state != RENDERING);
        let (answer, away) = self.ask_for_logs(entries, &silent);
        let (store, logs) = (self.store.clone(), self.logs.clone());
        tokio::spawn(async move {
            let Ok(entries) = answer.await else { return };
            let read = move || {
                let mut whole = FrameLog { away, ..FrameLog::default() };
                entries.into_iter().for_each(|entry| entry.add_to(&mut whole, &store, &logs));
                whole
            };
            if let Ok(whole) = submit::blocking(read).await {
                let _ = reply.send(whole);
            }
        });
    }

    /// Asks other machines for what is not here, but for those that are known to be silent. Gives also who could not be asked.
    fn ask_for_logs(
        &mut self,
        mut entries: Vec<Entry>,
        silent: &BTreeSet<NodeId>,
    ) -> (oneshot::Receiver<Vec<Entry>>, BTreeSet<NodeId>) {
        let mut away = BTreeSet::new();
        for entry in &mut entries {
            let LogText::Asked(node, request) = &entry.log else { continue };
            let problem = match silent.contains(node) {
                true => "it does not answer".to_owned(),
                false => match self.net.request(*node, request.clone()) {
                    Ok(()) => continue,
                    Err(error) => {
                        away.insert(*node);
                        error.to_string()
                    }
                },
            };
            let text = format!("its log is on {}: {problem}; run `swarm job log` there", entry.node);
            entry.log = LogText::Nowhere(text);
        }
        let (reply, answer) = oneshot::channel();
        let until = self.clock.now() + PATIENCE;
        self.log_questions.push(Question { entries, reply, until });
        self.answer_logs();
        (answer, away)
    }

    /// A machine that was asked for a log answered.
    pub(super) fn log_came(&mut self, node: NodeId, reply: BlobReply) {
        let (request, text) = match reply {
            BlobReply::Text { request, text } => (request, Some(text)),
            BlobReply::Failed { request, .. } => (request, None),
            BlobReply::Map { .. } | BlobReply::Have { .. } | BlobReply::Chunk { .. } => return,
        };
        for entry in self.log_questions.iter_mut().flat_map(|question| &mut question.entries) {
            if matches!(&entry.log, LogText::Asked(of, asked) if *of == node && *asked == request) {
                entry.log = match &text {
                    Some(text) => LogText::Text(text.clone()),
                    None => LogText::Nowhere(gone(&entry.node)),
                };
            }
        }
        self.answer_logs();
    }

    /// Answers questions that wait for nobody any more.
    pub(super) fn answer_logs(&mut self) {
        let now = self.clock.now();
        let waits = |question: &Question| {
            let asks = question.entries.iter().any(|entry| matches!(entry.log, LogText::Asked(..)));
            asks && now < question.until && !question.reply.is_closed()
        };
        let mut ready: Vec<Question> = self.log_questions.extract_if(.., |question| !waits(question)).collect();
        ready.extend(pushed_out(&mut self.log_questions));
        for Question { entries, reply, .. } in ready {
            let _ = reply.send(entries);
        }
    }

    fn log_entries(&self, job: &str, frame: Option<i32>) -> Result<Vec<Entry>, ApiError> {
        let id = view::find(&self.farm, job)?;
        let Some(state) = self.farm.jobs().get(&id) else { return Ok(Vec::new()) };
        frame.map_or(Ok(()), |frame| has_frame(state, frame))?;
        let with_failures = |unit: &Unit| !state.unit(*unit).failures.is_empty();
        let mut units: Vec<_> = match frame {
            Some(frame) => vec![Unit::whole(frame)],
            None => state.all_units().filter(with_failures).collect(),
        };
        if units.is_empty() {
            units = state.all_units().filter(|unit| state.unit(*unit).has_result()).last().into_iter().collect();
        }
        Ok(self.entries_of(id, units))
    }

    fn log_of(&self, job: JobId, node: NodeId, frame: i32) -> LogText {
        match node == self.identity.node {
            true => LogText::Own(job),
            false => LogText::Asked(node, BlobRequest::Log { job, frame }),
        }
    }

    /// Who rendered, for another job, a result that `node` took over from that, and the log of it.
    fn log_of_taken(&self, from: JobId, node: NodeId, unit: Unit, outcome: &Outcome) -> (NodeId, LogText) {
        let image = outcome.blobs().next();
        let results = self.farm.jobs().get(&from).into_iter().flat_map(|job| job.unit(unit).results.iter());
        let rendered = results.map(|((_, actor, _), outcome)| (actor, outcome));
        let mut same = rendered.filter(|(_, outcome)| outcome.blobs().next() == image);
        match same.next() {
            Some((actor, _)) => (actor.node, self.log_of(from, actor.node, unit.frame)),
            None => {
                let text = format!("it was rendered for job {}, and its log went with that", from.short());
                (node, LogText::Nowhere(text))
            }
        }
    }

    fn entries_of(&self, id: JobId, units: Vec<Unit>) -> Vec<Entry> {
        let Some(state) = self.farm.jobs().get(&id) else { return Vec::new() };
        let me = self.identity.node;
        let mut entries = Vec::new();
        for (nth, unit) in units.into_iter().enumerate() {
            let unit_state = state.unit(unit);
            let entry = |node: NodeId, attempt: usize, state, message: String, log| {
                let node = view::node_name(&self.farm, node);
                Entry { frame: unit.frame, node, attempt: attempt + 1, state, message, log }
            };
            for (attempt, ((_, actor, _), failure)) in unit_state.failures.iter().enumerate() {
                let log = match failure.log {
                    Some(_) if nth >= LOGS_AT_ONCE => {
                        LogText::Nowhere(format!("its log: `swarm job log {} --frame {}`", id.short(), unit.frame))
                    }
                    Some(blob) if actor.node == me || self.store.has(blob) => LogText::Blob(blob),
                    Some(blob) => LogText::Asked(actor.node, BlobRequest::Text { blob }),
                    None => LogText::Nowhere(String::new()),
                };
                entries.push(entry(actor.node, attempt, "failed", failure.message.clone(), log));
            }
            let attempts = unit_state.failures.len();
            for (actor, outcome, taken) in state.results(unit) {
                let (node, log) = match taken {
                    None if outcome.is_kept => {
                        let text = "it lay in the output folder before the job and was kept, so nobody rendered it";
                        (actor.node, LogText::Nowhere(text.into()))
                    }
                    // Whoever took it over printed nothing.
                    Some(from) => self.log_of_taken(from, actor.node, unit, outcome),
                    None => (actor.node, self.log_of(id, actor.node, unit.frame)),
                };
                entries.push(entry(node, attempts, "done", String::new(), log));
            }
            // What a machine has in hand it says every two seconds; its claim ends with the frame.
            let is_in_hand = |hand: &crate::farm::message::InHand| hand.job == id && hand.unit == unit;
            for (node, member) in self.farm.roster().alive(self.clock.now()) {
                let claims = unit_state.current_claims().any(|(actor, _)| actor.node == node);
                if claims && member.in_hand.iter().any(is_in_hand) {
                    entries.push(entry(node, attempts, RENDERING, String::new(), self.log_of(id, node, unit.frame)));
                }
            }
        }
        entries
    }
}

/// The oldest questions above the most there may be. That they are not answered is no fault of the machines that were asked.
fn pushed_out(questions: &mut Vec<Question>) -> Vec<Question> {
    let mut surplus: Vec<Question> = questions.drain(..questions.len().saturating_sub(QUESTIONS_MAX)).collect();
    for entry in surplus.iter_mut().flat_map(|question| &mut question.entries) {
        if matches!(entry.log, LogText::Asked(..)) {
            entry.log = LogText::PushedOut;
        }
    }
    surplus
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_others_push_out_speaks_of_no_silent_machine_and_one_that_ran_out_of_time_does() {
        let dir = tempfile::tempdir().unwrap();
        let (store, logs) = (Store::open(&dir.path().join("store")).unwrap(), Logs::new(dir.path()));
        let (node, job) = (NodeId([3; 32]), JobId([1; 16]));
        let question = |frame| {
            let log = LogText::Asked(node, BlobRequest::Log { job, frame });
            let entry = Entry { frame, node: "ws3".into(), attempt: 1, state: "done", message: String::new(), log };
            Question { entries: vec![entry], reply: oneshot::channel().0, until: PATIENCE }
        };
        let mut questions: Vec<Question> = (0..=QUESTIONS_MAX as i32).map(question).collect();
        let surplus = pushed_out(&mut questions);
        assert_eq!((surplus.len(), questions.len()), (1, QUESTIONS_MAX));
        let whole = |question: Question| {
            let mut whole = FrameLog::default();
            question.entries.into_iter().for_each(|entry| entry.add_to(&mut whole, &store, &logs));
            whole
        };
        let mut told = surplus.into_iter().chain(questions).take(2).map(whole);
        let (pushed_out, unanswered) = (told.next().unwrap(), told.next().unwrap());
        assert!(pushed_out.pushed_out && pushed_out.silent.is_empty() && pushed_out.missing[0].contains("too many"));
        assert!(!unanswered.pushed_out && unanswered.silent == BTreeSet::from([node]));
    }

    #[test]
    fn the_log_of_a_frame_in_hand_is_what_was_printed_so_far_and_afterwards_what_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        let (job, other) = (JobId([1; 16]), JobId([2; 16]));
        logs.keep(job, -7, "an earlier attempt\n").unwrap();
        assert_eq!(logs.of(job, -7).as_deref(), Some("an earlier attempt\n"));
        let first = logs.begin(job, -7);
        assert_eq!(logs.of(job, -7).as_deref(), Some(""), "it is not shown as this one's");
        // Begun anew before the first has ended: the end of that hides nothing.
        let second = logs.begin(job, -7);
        drop(first);
        assert_eq!(logs.of(job, -7).as_deref(), Some(""));
        logs.keep(job, -7, "done\n").unwrap();
        drop(second);
        assert_eq!(logs.of(job, -7).as_deref(), Some("done\n"));
        assert_eq!((logs.of(job, 7), logs.of(other, -7)), (None, None));
        logs.forget(job);
        assert_eq!(logs.of(job, -7), None);
    }
}
