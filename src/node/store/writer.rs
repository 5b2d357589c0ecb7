//! The storage thread: everything that is written to the database goes through it, so that whatever is queued while one
//! transaction is being synced shares the next one (group commit).
//!
//! What promises something (a batch with a token, a setting, a blob) is committed at once; a batch without a token
//! waits for company, [`LAZY_AT_MOST`] at the longest. A commit that fails loses nothing: its batches are kept,
//! [`StoreEvent::Failed`] is said once, and it is tried again until the disk takes it, so tokens come late but in
//! order. The queue has a bound in batches and in bytes that covers what waits for a retry too; beyond it
//! [`StoreWriter::try_send`] hands the batch back.
//!
//! It never blocks on the receiver of events: a batch with a token brings its place in that channel along.

#![allow(clippy::disallowed_methods, reason = "deadlines of an adapter; what the farm decides by is the loop's clock")]

use super::StoreError;
use super::database::{Change, Database};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Longest a batch without a token waits for its commit (DESIGN §2: others' ops may be written lazily).
pub const LAZY_AT_MOST: Duration = Duration::from_secs(1);
/// Most batches not yet committed (guess: a second of pushes of a swarm of 100 at ten a second each).
pub const QUEUE_BATCHES: usize = 1024;
/// Most bytes in batches not yet committed (guess: a new member's first 64 MiB of ledger arrive faster than they sync).
pub const QUEUE_BYTES: usize = 64 << 20;
/// Most tokens committed and not yet read by the loop: twice a full queue, so that one turn's reading never stalls
/// sending.
const EVENTS: usize = 2 * QUEUE_BATCHES;
/// Between attempts to write what could not be written.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A row of the ledger, opaque to the store. `log` is a job's id or all zero for the swarm's own log, `actor` a node's
/// key and its boot id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerRow {
    /// Op `seq` of an actor.
    Op {
        /// Which log.
        log: [u8; 16],
        /// Who wrote it.
        actor: [u8; 40],
        /// Its place in the actor's log.
        seq: u64,
        /// The op.
        bytes: Vec<u8>,
    },
    /// The latest signed head of an actor; replaces the one before.
    Head {
        /// Which log.
        log: [u8; 16],
        /// Who signed it.
        actor: [u8; 40],
        /// The head.
        bytes: Vec<u8>,
    },
    /// Proof that an actor signed two histories of a log; replaces the one before.
    Fork {
        /// Which log.
        log: [u8; 16],
        /// Who signed them.
        actor: [u8; 40],
        /// The proof.
        bytes: Vec<u8>,
    },
    /// How long a log's job has lain idle, in seconds; replaces what was said before.
    Idle {
        /// Which log.
        log: [u8; 16],
        /// Seconds.
        seconds: u64,
    },
    /// Removes everything about a log and keeps its id for ever.
    Retired {
        /// Which log.
        log: [u8; 16],
    },
}

impl LedgerRow {
    fn bytes(&self) -> usize {
        // Keys count too: many small ops are not free.
        64 + match self {
            Self::Op { bytes, .. } | Self::Head { bytes, .. } | Self::Fork { bytes, .. } => bytes.len(),
            Self::Idle { .. } | Self::Retired { .. } => 0,
        }
    }
}

/// Rows that become durable together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Asks for [`StoreEvent::Persisted`] as soon as possible; without one the batch may wait [`LAZY_AT_MOST`].
    pub token: Option<u64>,
    /// Applied in order.
    pub rows: Vec<LedgerRow>,
}

/// What the storage thread has to say.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// The batch with this token, and all sent before it, are on disk.
    Persisted(u64),
    /// Writing fails and is being tried again; nothing sent is lost, tokens come once it succeeds. Said once per
    /// outage.
    Failed {
        /// What happened, to what, and what to do.
        why: String,
    },
}

/// Why a batch was not taken. It comes back to be kept for the next turn.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The queue is full: the disk is slower than what comes in.
    #[error("the store's queue is full")]
    Full(Batch),
    /// The store is closed, or nobody reads its events any more.
    #[error("the store is closed")]
    Closed(Batch),
}

/// What waits or is being written.
#[derive(Default)]
struct Backlog {
    batches: AtomicUsize,
    bytes: AtomicUsize,
}

/// Sends batches to the storage thread. Clones share one queue.
#[derive(Clone)]
pub struct StoreWriter {
    queue: SyncSender<Job>,
    backlog: Arc<Backlog>,
    events: mpsc::Sender<StoreEvent>,
}

impl StoreWriter {
    /// Queues a batch; never waits.
    ///
    /// # Errors
    /// [`Refused`], with the batch, when the queue is full or the store closed.
    pub fn try_send(&self, batch: Batch) -> Result<(), Refused> {
        let bytes: usize = batch.rows.iter().map(LedgerRow::bytes).sum();
        let batches = self.backlog.batches.fetch_add(1, Ordering::AcqRel);
        let waiting = self.backlog.bytes.fetch_add(bytes, Ordering::AcqRel);
        let give_back = || {
            self.backlog.batches.fetch_sub(1, Ordering::AcqRel);
            self.backlog.bytes.fetch_sub(bytes, Ordering::AcqRel);
        };
        // A batch larger than the whole allowance is let through alone.
        if batches >= QUEUE_BATCHES || (waiting > 0 && waiting + bytes > QUEUE_BYTES) {
            give_back();
            return Err(Refused::Full(batch));
        }
        let answer = match batch.token.map(|token| (token, self.events.clone().try_reserve_owned())) {
            None => None,
            Some((token, Ok(place))) => Some((token, place)),
            Some((_, Err(mpsc::error::TrySendError::Full(_)))) => {
                give_back();
                return Err(Refused::Full(batch));
            }
            Some((_, Err(mpsc::error::TrySendError::Closed(_)))) => {
                give_back();
                return Err(Refused::Closed(batch));
            }
        };
        let token = batch.token;
        let back = |job| match job {
            Job::Batch { change: Change::Ledger(rows), .. } => Batch { token, rows },
            _ => Batch { token, rows: Vec::new() },
        };
        self.queue.try_send(Job::Batch { change: Change::Ledger(batch.rows), bytes, answer }).map_err(|e| {
            give_back();
            match e {
                std::sync::mpsc::TrySendError::Full(job) => Refused::Full(back(job)),
                std::sync::mpsc::TrySendError::Disconnected(job) => Refused::Closed(back(job)),
            }
        })
    }
}

type Reply = SyncSender<Result<(), StoreError>>;
type Answer = (u64, mpsc::OwnedPermit<StoreEvent>);

/// What is sent to the thread.
enum Job {
    Batch { change: Change, bytes: usize, answer: Option<Answer> },
    Now { change: Change, reply: Reply },
    Stop { change: Change, reply: Reply },
}

/// The thread, and the way to it for the store itself.
pub(super) struct Storage {
    writer: StoreWriter,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Storage {
    /// Starts the thread.
    pub(super) fn start(database: Arc<Database>) -> std::io::Result<(Self, mpsc::Receiver<StoreEvent>)> {
        // Room beyond the batches for those that wait for their reply, one a thread.
        let (queue, jobs) = sync_channel(2 * QUEUE_BATCHES);
        let (events, receiver) = mpsc::channel(EVENTS);
        let backlog = Arc::new(Backlog::default());
        let writer = StoreWriter { queue, backlog: backlog.clone(), events: events.clone() };
        let thread = Thread { database, jobs, backlog, events, kept: Vec::new(), outage: false };
        let thread = std::thread::Builder::new().name("swarm-store".into()).spawn(move || thread.run())?;
        Ok((Self { writer, thread: Mutex::new(Some(thread)) }, receiver))
    }

    /// A way to send batches.
    pub(super) fn writer(&self) -> StoreWriter {
        self.writer.clone()
    }

    /// Writes `change` durably, together with whatever is queued, and waits for it.
    pub(super) fn write(&self, change: Change) -> Result<(), StoreError> {
        self.ask(|reply| Job::Now { change, reply })
    }

    /// Writes what is queued and `last`, then ends the thread. A second time it does nothing.
    pub(super) fn stop(&self, last: Change) -> Result<(), StoreError> {
        let Some(thread) = super::files::lock(&self.thread).take() else { return Ok(()) };
        let done = self.ask(|reply| Job::Stop { change: last, reply });
        if thread.join().is_err() {
            tracing::error!("the storage thread panicked");
        }
        done
    }

    fn ask(&self, job: impl FnOnce(Reply) -> Job) -> Result<(), StoreError> {
        let (reply, answer) = sync_channel(1);
        self.writer.queue.send(job(reply)).map_err(|_| StoreError::Closed)?;
        answer.recv().map_err(|_| StoreError::Closed)?
    }
}

/// A batch that waits for its commit.
struct Waiting {
    change: Change,
    bytes: usize,
    answer: Option<Answer>,
}

/// The storage thread's own.
struct Thread {
    database: Arc<Database>,
    jobs: Receiver<Job>,
    backlog: Arc<Backlog>,
    events: mpsc::Sender<StoreEvent>,
    /// Batches not yet committed, in order.
    kept: Vec<Waiting>,
    /// Whether the last commit failed.
    outage: bool,
}

impl Thread {
    fn run(mut self) {
        let mut due: Option<Instant> = None;
        loop {
            let first = match due {
                None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => self.jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let mut round = Round::default();
            match first {
                Ok(job) => round.take(job, &mut self.kept),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(job) = self.jobs.try_recv() {
                round.take(job, &mut self.kept);
            }
            let stop = round.stop;
            let ripe = due.is_some_and(|due| due <= Instant::now());
            // During an outage tokens wait for the next attempt; who waits for a reply gets one of its own.
            if ripe || !round.now.is_empty() || (round.urgent && !self.outage) {
                due = self.commit(round).then(|| Instant::now() + RETRY_EVERY);
            } else if due.is_none() {
                due = Some(Instant::now() + LAZY_AT_MOST);
            }
            if stop {
                return;
            }
        }
    }

    /// One transaction with all that waits. Returns whether batches must be tried again.
    fn commit(&mut self, round: Round) -> bool {
        let changes = self.kept.iter().map(|waiting| &waiting.change);
        match self.database.commit(changes.chain(round.now.iter().map(|(change, _)| change))) {
            Ok(()) => {
                self.outage = false;
                for waiting in self.kept.drain(..) {
                    self.backlog.batches.fetch_sub(1, Ordering::AcqRel);
                    self.backlog.bytes.fetch_sub(waiting.bytes, Ordering::AcqRel);
                    if let Some((token, place)) = waiting.answer {
                        place.send(StoreEvent::Persisted(token));
                    }
                }
                round.now.into_iter().for_each(|(_, reply)| drop(reply.send(Ok(()))));
                false
            }
            Err(e) => {
                if !self.outage {
                    self.outage = self.events.try_send(StoreEvent::Failed { why: e.to_string() }).is_ok();
                }
                round.now.into_iter().for_each(|(_, reply)| drop(reply.send(Err(e.clone()))));
                if let Err(e) = self.database.reopen() {
                    tracing::debug!(error = %e, "the database cannot be opened again yet");
                }
                !self.kept.is_empty()
            }
        }
    }
}

/// What one turn of the thread found in the queue.
#[derive(Default)]
struct Round {
    now: Vec<(Change, Reply)>,
    urgent: bool,
    stop: bool,
}

impl Round {
    fn take(&mut self, job: Job, kept: &mut Vec<Waiting>) {
        match job {
            Job::Batch { change, bytes, answer } => {
                self.urgent |= answer.is_some();
                kept.push(Waiting { change, bytes, answer });
            }
            Job::Now { change, reply } => {
                self.urgent = true;
                self.now.push((change, reply));
            }
            Job::Stop { change, reply } => {
                self.urgent = true;
                self.stop = true;
                self.now.push((change, reply));
            }
        }
    }
}
