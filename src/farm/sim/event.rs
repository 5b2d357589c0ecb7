//! What happens in a simulation, and when.

use super::check::Touched;
use crate::farm::event::Input;
use crate::farm::id::{BlobId, JobId, Unit};
use crate::farm::message::Message;
use crate::wire;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What is to happen to whom.
#[derive(Debug)]
pub(super) enum Event {
    /// A farm asked to be called.
    Wake { to: usize, life: u32, at: Duration },
    /// Something completes on a machine.
    Input { to: usize, life: u32, input: Box<Input> },
    /// A message arrives.
    Arrive { to: usize, from: usize, link: u64, packet: Packet },
    /// A request over the network is answered, or its connection is gone.
    Answer { to: usize, life: u32, of: usize, link: u64, request: Request },
    /// The disk ended a write.
    Committed { to: usize, life: u32 },
    /// A render ends.
    RenderEnd { to: usize, life: u32, job: JobId, unit: Unit, serial: u64 },
    /// A render tells its progress.
    RenderProgress { to: usize, life: u32, job: JobId, unit: Unit, serial: u64 },
    /// Files come to lie under their final names.
    Deliver { to: usize, life: u32, job: (JobId, u64), unit: Unit, epoch: u32, blobs: Vec<BlobId> },
    /// One end notices that its connection is gone.
    Close { at: usize, other: usize, link: u64 },
    /// A connection is tried.
    Dial { a: usize, b: usize },
    /// Somebody submits a job.
    Submit { job: usize },
    /// A machine dies.
    Crash,
    /// It starts, or comes back.
    Start { machine: usize },
    /// A machine dies and stays away.
    Leave { machine: usize },
    /// It comes back.
    Return { machine: usize },
    /// The network is cut.
    Cut,
    /// It heals.
    Heal,
    /// The network falls into two halves.
    Split { until: Duration },
    /// A link works one way only.
    OneWay,
    /// Both ways again.
    BothWays { from: usize, to: usize },
    /// A machine is suspended.
    Suspend,
    /// It wakes.
    Awake { machine: usize },
    /// An owner pauses a machine, or lifts it.
    Pause { machine: Option<usize> },
    /// An owner comes back to a machine and has all of it at once.
    Owner,
    /// A machine leaves politely.
    Drain,
    /// It is looked at whether it may go.
    Drained { machine: usize, life: u32 },
    /// A disk is slow or full for a while.
    BadDisk { full: bool },
    /// A stored result is gone from disks.
    Gone,
    /// A machine looks whether its store has what it said to have.
    Look { machine: usize, life: u32 },
    /// Somebody commands a job.
    Command,
    /// Somebody sets a job's priority: an op to follow through the swarm.
    Chat,
    /// A liar lies.
    Lie { machine: usize },
    /// Faults are over.
    Peace,
    /// Look whether all is done.
    Check,
}

/// What travels: bytes, and what everyone reads in them. What goes to many is written and read once.
#[derive(Clone)]
pub(super) struct Packet {
    pub bytes: u32,
    /// `None`: nothing anybody could read.
    pub message: Option<Arc<Message>>,
    /// The units its ops are about.
    pub touched: Arc<Touched>,
}

/// Messages that one input made a farm send, each once, and how they travel or why they cannot.
pub(super) type Packets = Vec<(Arc<Message>, Result<Packet, String>)>;

impl Packet {
    pub fn new(bytes: &[u8]) -> Self {
        let message = wire::decode(bytes).ok().flatten().map(Arc::new);
        let touched = Arc::new(message.as_deref().map_or_else(Touched::default, Touched::by));
        Self { bytes: bytes.len() as u32, message, touched }
    }

    /// A message as it travels: written, read, and found to be the same.
    pub fn of(message: &Arc<Message>) -> Result<Self, String> {
        let mut packet = wire::encode(message).map(|bytes| Self::new(&bytes)).map_err(|error| error.to_string())?;
        if packet.message.as_ref() != Some(message) {
            return Err(format!("read as something else: {}", short(message)));
        }
        // The same, and its ops are shared by everyone: a thousand farms keep each once.
        packet.message = Some(message.clone());
        Ok(packet)
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

/// What one machine asks of another's store.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    Map(BlobId),
    Have(BlobId),
    Chunk(BlobId, u32),
}

impl Event {
    /// The machine that must be awake for it: a sleeping one takes everything when it wakes, in order.
    pub fn concerns(&self) -> Option<usize> {
        match self {
            Self::Wake { to, .. }
            | Self::Input { to, .. }
            | Self::Arrive { to, .. }
            | Self::Answer { to, .. }
            | Self::Committed { to, .. }
            | Self::RenderEnd { to, .. }
            | Self::RenderProgress { to, .. }
            | Self::Deliver { to, .. }
            | Self::Close { at: to, .. }
            | Self::Look { machine: to, .. }
            | Self::Drained { machine: to, .. } => Some(*to),
            Self::Pause { machine } => *machine,
            Self::Dial { .. }
            | Self::Submit { .. }
            | Self::Crash
            | Self::Start { .. }
            | Self::Leave { .. }
            | Self::Return { .. }
            | Self::Cut
            | Self::Heal
            | Self::Split { .. }
            | Self::OneWay
            | Self::BothWays { .. }
            | Self::Suspend
            | Self::Awake { .. }
            | Self::Owner
            | Self::Drain
            | Self::BadDisk { .. }
            | Self::Gone
            | Self::Command
            | Self::Chat
            | Self::Lie { .. }
            | Self::Peace
            | Self::Check => None,
        }
    }
}

/// Whether something is to happen now.
pub(super) enum Choice {
    Take,
    /// Later; others may come before it.
    Leave,
    /// Later, and everything after it.
    Stop,
}

/// What is to happen: earlier first, then as it was planned.
#[derive(Default)]
pub(super) struct Queue {
    /// When, in which order, and the place among the events: those stay where they are while their turns change places.
    turns: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    planned: u64,
}

impl Queue {
    pub fn push(&mut self, at: Duration, event: Event) {
        self.planned += 1;
        let place = self.free.pop().unwrap_or(self.events.len());
        match self.events.get_mut(place) {
            Some(free) => *free = Some(event),
            None => self.events.push(Some(event)),
        }
        self.turns.push(Reverse((at, self.planned, place)));
    }

    pub fn pop(&mut self) -> Option<(Duration, Event)> {
        let Reverse((at, _, place)) = self.turns.pop()?;
        self.free.push(place);
        Some((at, self.events.get_mut(place)?.take()?))
    }

    /// Takes those from before `until` that are chosen, as they were planned, until told to stop.
    pub fn take(&mut self, until: Duration, mut choose: impl FnMut(&Event) -> Choice) -> Vec<(Duration, Event)> {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        while let Some(turn @ Reverse((at, _, place))) = self.turns.peek().copied() {
            let Some(event) = self.events[place].as_ref().filter(|_| at < until) else { break };
            match choose(event) {
                Choice::Take => taken.extend(self.pop()),
                Choice::Leave => {
                    left.push(turn);
                    self.turns.pop();
                }
                Choice::Stop => break,
            }
        }
        self.turns.extend(left);
        taken
    }

    /// Has those happen at `now` that are chosen.
    pub fn hasten(&mut self, now: Duration, chosen: impl Fn(Duration, &Event) -> bool) {
        let mut turns = std::mem::take(&mut self.turns).into_vec();
        for Reverse((at, _, place)) in &mut turns {
            if self.events[*place].as_ref().is_some_and(|event| chosen(*at, event)) {
                *at = now;
            }
        }
        self.turns = turns.into();
    }
}

/// Most characters of an event in a list of them.
const LINE_CHARS: usize = 240;

/// Writes until there is no room.
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_CHARS.saturating_sub(self.0.len());
        self.0.extend(text.chars().take(room));
        if room < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// One line of any value.
pub(super) fn short(value: &impl fmt::Debug) -> String {
    let mut text = Short(String::new());
    match fmt::Write::write_fmt(&mut text, format_args!("{value:?}")) {
        Ok(()) => text.0,
        Err(_) => text.0 + " …",
    }
}
