//! Following a job's events until it is over, or until the person has seen enough.
//!
//! One channel carries the events and the interrupt, one loop reads it: nothing is decided anywhere else.

use super::client::{Client, Events, job_path};
use super::print::{Console, count, number, short_path, text};
use super::progress::{Progress, say, shortfall};
use super::session::Session;
use super::submit;
use super::{Exit, Failure};
use crate::node::http::{ApiError, ErrorKind};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Events between the connection and the screen (guess: the kernel's socket buffer holds more).
const WAITING_EVENTS: usize = 64;

/// What the loop hears.
pub(crate) enum Message {
    /// An event, or the error that ends the stream.
    Event(Result<Value, ApiError>),
    /// The stream is over.
    End,
    /// Ctrl-C, or a request to terminate.
    Interrupt,
}

/// Where interrupts are announced, from before a node is started until the command is over.
pub(crate) struct Ears {
    sender: SyncSender<Message>,
    receiver: Receiver<Message>,
}

impl Ears {
    /// `listen` is told where interrupts go.
    pub(crate) fn new(listen: &dyn Fn(SyncSender<Message>)) -> Self {
        let (sender, receiver) = sync_channel(WAITING_EVENTS);
        listen(sender.clone());
        Self { sender, receiver }
    }

    /// Waits for an interrupt, no longer than this.
    pub(crate) fn are_interrupted_within(&self, time: Duration) -> bool {
        matches!(self.receiver.recv_timeout(time), Ok(Message::Interrupt))
    }
}

/// Sends an interrupt at the first Ctrl-C or SIGTERM; the second ends the process at once. When this returns, neither
/// kills the process any more. If signals cannot be listened to they still do, only less politely.
pub(crate) fn listen_to_signals(sender: SyncSender<Message>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let Ok(mut signals) = runtime.block_on(async { Signals::new() }) else { return };
    let wait = move || {
        runtime.block_on(signals.next());
        // Nobody may listen any more: then the command is as good as over. Nor may a full channel keep us from the
        // second signal.
        thread::spawn(move || sender.send(Message::Interrupt));
        runtime.block_on(signals.next());
        std::process::exit(Exit::Interrupted as i32);
    };
    // A thread that cannot be had is noticed where the events' one is started.
    let _ = thread::Builder::new().name("signals".into()).spawn(wait);
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?))
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// What a job is to a command that is interrupted while a node of its own runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Its own: it is canceled rather than left to surprise the next node.
    Here,
    /// Somebody else's, or an older one: it is left as it is.
    Before,
    /// There is none: it was only asked what would become of one.
    Nothing,
}

/// Follows `events` to their end. `detach`: an end after `submitted` is what was asked for.
pub(crate) fn follow(
    session: &Session,
    ears: Ears,
    events: Result<Events, ApiError>,
    (detach, made): (bool, Made),
    cwd: &Path,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let sender = ears.sender;
    thread::Builder::new().name("events".into()).spawn(move || read(events, &sender)).map_err(|error| {
        ApiError::new(ErrorKind::Internal, format!("no thread can be started to follow the job: {error}"))
    })?;
    let mut progress = (!console.json).then(|| Progress::new(console.screen, cwd.to_owned()));
    let mut job: Option<String> = None;
    let end: Result<Option<Value>, Failure> = loop {
        let Ok(message) = ears.receiver.recv() else { break Ok(None) };
        match message {
            Message::Event(Ok(event)) => {
                if let Some(id) = event.get("job").and_then(Value::as_str) {
                    job = Some(id.to_owned());
                }
                if text(&event, "event") == "checked" {
                    if let Some(progress) = &mut progress {
                        progress.clear();
                    }
                    return Ok(submit::checked(&event, console)?);
                }
                let shown = match &mut progress {
                    None if made == Made::Nothing => Ok(()),
                    Some(_) if made == Made::Before && text(&event, "event") == "submitted" => {
                        say(console, format!("following job {}", text(&event, "job")))
                    }
                    Some(progress) => progress.event(&event, console),
                    None => console.line(event.to_string()),
                };
                if let Err(error) = shown {
                    break Err(error.into());
                }
                if text(&event, "event") == "finished" {
                    break Ok(Some(event));
                }
            }
            Message::Event(Err(error)) => break Err(error.into()),
            Message::End => break Ok(None),
            Message::Interrupt => {
                if let Some(progress) = &mut progress {
                    progress.clear();
                }
                interrupted(session, job.as_deref(), made, cwd, console);
                return Ok(Exit::Interrupted);
            }
        }
    };
    // `swarm submit --json … | head -1`: they have seen enough, just as with Ctrl-C.
    if let Err(Failure::ReaderGone) = end {
        interrupted(session, job.as_deref(), made, cwd, console);
        return Ok(Exit::Interrupted);
    }
    if let Some(progress) = &mut progress {
        progress.clear();
    }
    match (end?, job) {
        (Some(finished), _) => match shortfall(&finished, session.is_embedded()) {
            None => Ok(Exit::Done),
            Some(error) => Err(error.into()),
        },
        (None, Some(job)) if detach => {
            if !console.json {
                console.line(format!("submitted job {job}; follow it with `swarm job watch {job}`"))?;
            }
            Ok(Exit::Done)
        }
        (None, Some(job)) => {
            let text =
                format!("the daemon stopped before the job was over; `swarm job watch {job}` goes on once it runs");
            Err(ApiError::new(ErrorKind::DaemonSilent, text).into())
        }
        (None, None) => {
            Err(ApiError::new(ErrorKind::DaemonSilent, "the daemon stopped before the job was submitted").into())
        }
    }
}

fn read(events: Result<Events, ApiError>, sender: &SyncSender<Message>) {
    let sent = match events {
        Ok(mut events) => events.try_for_each(|event| sender.send(Message::Event(event))),
        Err(error) => sender.send(Message::Event(Err(error))),
    };
    if sent.is_ok() {
        let _ = sender.send(Message::End);
    }
}

/// What an interrupt leaves, told in one line. With a daemon the job goes on; a node inside this command ends with it.
fn interrupted(session: &Session, job: Option<&str>, made: Made, cwd: &Path, console: &mut Console<'_>) {
    let line = match job {
        None => "interrupted before a job was submitted".to_owned(),
        Some(job) if session.is_embedded() && made == Made::Before => {
            format!("stopped here; job {job} is left as it is, and the same command goes on with it")
        }
        Some(job) if session.is_embedded() => match cancel(&session.client, job) {
            Ok(answer) => {
                let output = short_path(text(&answer, "output"), cwd);
                match number(&answer["frames"], "done") {
                    0 => format!("canceled job {job}; no frame was done"),
                    done => format!("canceled job {job}; what is done is kept: {} in {output}", count(done, "frame")),
                }
            }
            Err(error) => format!("job {job} could not be canceled: {error}"),
        },
        Some(job) => format!("the job goes on; follow it with\nswarm job watch {job}"),
    };
    // Under `--json` standard error holds errors alone; the exit code says it.
    if !console.json {
        let _ = writeln!(console.err, "{line}");
    }
}

fn cancel(client: &Client, job: &str) -> Result<Value, ApiError> {
    client.post(&job_path(job, "/cancel"), &json!({}))
}
