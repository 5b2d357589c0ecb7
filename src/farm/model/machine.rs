//! One machine of the modelled swarm: real ledger, real fold, real choices; clocks and heartbeats reduced to a few bits.

use super::{NODES, Setup};
use crate::farm::blame::Blame;
use crate::farm::id::{ActorId, BlobId, BootId, JobId, NodeId, Unit};
use crate::farm::ledger::Ledger;
use crate::farm::message::{Heartbeat, InHand, Suffix};
use crate::farm::op::{FailureKind, Op, Output, OutputRole, UnitSet};
use crate::farm::rendezvous::strength;
use crate::farm::reuse::Promises;
use crate::farm::roster::Roster;
use crate::farm::schedule::{Choice, Hand, View};
use crate::farm::state::JobState;
use crate::farm::verdict::has_live_result;
use crate::seal::Sealer;
use crate::wire;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The present, always: time passes in steps that the model takes on purpose ([`Machine::age`]).
pub const NOW: Duration = Duration::from_secs(100);
/// Begun long ago: past the time in which a unit is yielded, and later than its mean.
const LONG_AGO: Duration = Duration::from_secs(10);
/// Progress of a unit begun long ago, hundredths.
const FAR: u8 = 50;
/// Longer than anything is forgiven: a member heard of then is suspected.
const SILENT: Duration = Duration::from_secs(0);

pub fn node(index: usize) -> NodeId {
    NodeId([index as u8 + 1; 32])
}

pub fn actor(index: usize, boot: u8) -> ActorId {
    ActorId { node: node(index), boot: BootId([boot; 8]) }
}

/// The result of a unit by an actor.
fn blob(unit: Unit, by: ActorId) -> BlobId {
    BlobId([unit.frame as u8 * 16 + by.node.0[0] * 4 + by.boot.0[0]; 32])
}

pub fn key(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What one machine knows of another, beside its ops.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its start, as last met.
    pub boot: u8,
    pub is_suspected: bool,
    /// What it renders, as last heard: a unit, and whether for long.
    pub in_hand: BTreeMap<Unit, bool>,
}

/// One op as it is told, and what it is about.
pub struct Piece {
    pub suffix: Suffix,
    pub units: BTreeSet<Unit>,
    /// What it says, in one number.
    pub meaning: u64,
}

impl Piece {
    pub fn new(suffix: Suffix) -> Arc<Self> {
        let ops = suffix.ops.iter().map(|bytes| wire::decode_op(bytes).expect("the model writes legal ops"));
        let units = ops.flat_map(|op| match op {
            Op::Claim { units, .. } | Op::Release { units } => units.iter().collect(),
            Op::Done { unit, .. } | Op::Failed { unit, .. } => vec![unit],
            _ => Vec::new(),
        });
        Arc::new(Self { units: units.collect(), meaning: key(&suffix.ops), suffix })
    }
}

/// Why a step was wrong.
pub type Fault = &'static str;

#[derive(Clone)]
pub struct Machine {
    pub index: usize,
    /// Which start this is; `is_up` ends with the last.
    pub boot: u8,
    pub is_up: bool,
    pub ledger: Ledger,
    pub job: JobState,
    /// What it could tell of each actor, an op a piece.
    pub pieces: BTreeMap<ActorId, Vec<Arc<Piece>>>,
    /// Own ops not yet on disk, a batch each.
    pub pending: VecDeque<(u64, Op)>,
    pub hands: BTreeMap<Unit, Hand>,
    queue: VecDeque<Unit>,
    pub ended: BTreeSet<Unit>,
    pub peers: [Peer; NODES],
    /// What others hear of its work.
    pub told: BTreeMap<Unit, bool>,
    /// What the real code would claim now.
    pub choice: Option<Choice>,
    /// All of the above in one number.
    pub key: u64,
    /// What it does and is, without its ledger, in one number.
    pub doing: u64,
    /// Per frame, what its ledger says of it, in one number, and who holds a result.
    pub frames: Vec<(u64, Vec<NodeId>)>,
}

impl Machine {
    /// One that knows the job and nothing else.
    pub fn new(setup: &Setup, index: usize, ledger: Ledger, job: JobState, submit: &Arc<Piece>) -> Self {
        let peer = Peer { boot: 1, is_suspected: false, in_hand: BTreeMap::new() };
        let mut machine = Self {
            index,
            boot: 1,
            is_up: true,
            ledger,
            job,
            pieces: BTreeMap::from([(setup.submitter, vec![submit.clone()])]),
            pending: VecDeque::new(),
            hands: BTreeMap::new(),
            queue: VecDeque::new(),
            ended: BTreeSet::new(),
            peers: std::array::from_fn(|_| peer.clone()),
            told: BTreeMap::new(),
            choice: None,
            key: 0,
            doing: 0,
            frames: Vec::new(),
        };
        machine.seal(setup);
        machine
    }

    pub fn me(&self) -> ActorId {
        actor(self.index, self.boot)
    }

    /// Whether it could claim something, and so cares for any news; else only for those of units it has.
    pub fn is_free(&self) -> bool {
        self.rendering().next().is_none()
    }

    /// Units this machine is rendering: begun, and not waiting for the disk.
    pub fn rendering(&self) -> impl Iterator<Item = (Unit, &Hand)> {
        let begun = self.hands.iter().filter(|(unit, hand)| hand.started.is_some() && !self.ended.contains(*unit));
        begun.map(|(unit, hand)| (*unit, hand))
    }

    pub fn is_old(hand: &Hand) -> bool {
        hand.percent >= FAR
    }

    /// What others are told of its work. Of long frames only the old: nothing waits in a queue then, and a young unit is
    /// neither stolen nor backed up, so that hearing of it changes no choice.
    fn told(&self, setup: &Setup) -> BTreeMap<Unit, bool> {
        let all = self.rendering().map(|(unit, hand)| (unit, Self::is_old(hand)));
        all.filter(|(_, is_old)| *is_old || setup.is_short()).collect()
    }

    fn roster(&self, setup: &Setup) -> Roster {
        let mut roster = Roster::new(self.me());
        roster.set_own(setup.capability.clone());
        for (index, peer) in self.peers.iter().enumerate().filter(|(index, _)| *index != self.index) {
            let of = actor(index, peer.boot);
            roster.connected(of.node, of.boot, SILENT);
            roster.capability(of.node, setup.capability.clone());
            // The hands that are old were first heard of long ago.
            for (counter, since) in [(1, NOW - LONG_AGO), (2, NOW)] {
                let hands = peer.in_hand.iter().filter(|(_, old)| **old || since == NOW);
                let in_hand = hands.map(|(unit, old)| InHand {
                    job: setup.job,
                    unit: *unit,
                    percent: if *old { FAR } else { 0 },
                });
                let in_hand: Vec<InHand> = in_hand.collect();
                let beat = Heartbeat {
                    counter,
                    boot: of.boot,
                    load_percent: 0,
                    free_memory_bytes: None,
                    at_desk: false,
                    in_hand,
                    neighbours: Vec::new(),
                };
                roster.heartbeat(of.node, &beat, since);
            }
            roster.heard(of.node, if peer.is_suspected { SILENT } else { NOW });
        }
        roster
    }

    fn hands_of(&self, job: JobId) -> BTreeMap<(JobId, Unit), Hand> {
        self.hands.iter().map(|(unit, hand)| ((job, *unit), *hand)).collect()
    }

    fn say(&mut self, setup: &Setup, op: Op) {
        self.ledger.append(setup.job, &op).expect("the model writes legal ops");
        let batch = self.ledger.take_rows().expect("something was written");
        self.pending.push_back((batch.mark, op));
    }

    fn view<R>(&self, setup: &Setup, look: impl FnOnce(&View) -> R) -> R {
        let jobs = BTreeMap::from([(setup.job, self.job.clone())]);
        let (hands, ready) = (self.hands_of(setup.job), BTreeSet::from([setup.bundle]));
        let mut blame = Blame::default();
        blame.review(&jobs, self.me().node, NOW);
        look(&View {
            me: self.me(),
            now: NOW,
            roster: &self.roster(setup),
            jobs: &jobs,
            hands: &hands,
            ready: &ready,
            promises: &Promises::default(),
            blame: &blame,
            is_patient: false,
        })
    }

    /// After every input, as `Farm::settle`: gives up what it must, begins what waits, and looks what it would claim.
    pub fn settle(&mut self, setup: &Setup) {
        let mut released = Vec::new();
        for (_, unit) in self.view(setup, |view| view.give_up()) {
            if !self.ended.contains(&unit) {
                self.queue.retain(|waiting| *waiting != unit);
                self.hands.remove(&unit);
                released.push(unit.frame);
            }
        }
        if let Some(units) = UnitSet::whole(released) {
            self.say(setup, Op::Release { units });
        }
        self.begin();
        self.seal(setup);
    }

    fn begin(&mut self) {
        if self.rendering().next().is_none()
            && let Some(unit) = self.queue.pop_front()
            && let Some(hand) = self.hands.get_mut(&unit)
        {
            hand.started = Some(NOW);
        }
    }

    /// Works out what depends on the rest.
    fn seal(&mut self, setup: &Setup) {
        self.told = self.told(setup);
        let can_claim = self.is_up && self.is_free();
        self.choice = if can_claim { self.view(setup, |view| view.choose()) } else { None };
        let pending: Vec<Vec<u8>> =
            self.pending.iter().map(|(_, op)| wire::encode_op(op).expect("it was written once")).collect();
        let hand = |hand: &Hand| (hand.epoch, hand.kind as u8, hand.score, hand.started, hand.percent);
        let hands: Vec<_> = self.hands.iter().map(|(unit, of)| (unit, hand(of))).collect();
        self.doing = key(&(self.boot, self.is_up, &self.peers, &self.ended, &self.queue, pending, hands));
        self.key = key(&(self.doing, self.ledger.digest()));
        self.frames = setup.units().map(|unit| self.look_at(unit)).collect();
    }

    /// What the ledger says of a unit, in one number, and who holds a result.
    fn look_at(&self, unit: Unit) -> (u64, Vec<NodeId>) {
        let state = self.job.unit(unit);
        let claims = state.claims.iter().map(|(by, claim)| (by, claim.epoch, claim.kind as u8, claim.score));
        let claims: Vec<_> = claims.collect();
        let failures: Vec<_> = state.failures.keys().map(|(epoch, by, _)| (epoch, by)).collect();
        // One result of an actor does what two do: they differ in their files alone, and nothing is ever lost here.
        let results: BTreeSet<_> = state.results.keys().map(|(epoch, by, _)| (epoch, by)).collect();
        let holders = state.current_results().map(|(by, _)| by.node).collect();
        (key(&(state.epoch, claims, failures, results)), holders)
    }

    /// Claims what the real code chose, as `Farm::claim`.
    pub fn claim(&mut self, setup: &Setup) -> Result<(), Fault> {
        let choice = self.choice.take().expect("only offered when there is a choice");
        for (unit, _) in &choice.units {
            if self.hands.contains_key(unit) {
                return Err("a unit was claimed by a node that has it in hand");
            }
            if self.job.unit(*unit).current_results().any(|(by, _)| by.node == self.me().node) {
                return Err("a unit was claimed by a node that has its result");
            }
            if has_live_result(&self.job, *unit, &self.roster(setup), NOW) {
                return Err("a unit was claimed that has a result on a live node");
            }
        }
        let score = |unit| strength(self.me().node, 1, setup.job, unit, choice.epoch);
        let score = match choice.taken_from {
            Some(_) => u32::MAX,
            None => choice.units.iter().map(|(unit, _)| score(*unit)).min().unwrap_or(0),
        };
        let units = UnitSet::whole(choice.units.iter().map(|(unit, _)| unit.frame).collect());
        let units = units.ok_or("a choice of nothing")?;
        self.say(setup, Op::Claim { epoch: choice.epoch, units, kind: choice.kind, score });
        for (unit, epoch) in choice.units {
            self.hands.insert(unit, Hand { epoch, kind: choice.kind, score, started: None, percent: 0, revision: 0 });
            self.queue.push_back(unit);
        }
        self.begin();
        self.settle(setup);
        Ok(())
    }

    /// The oldest own op not yet on disk is.
    pub fn persist(&mut self, setup: &Setup) -> Result<(), Fault> {
        let (mark, _) = self.pending.pop_front().ok_or("nothing is unwritten")?;
        let from = self.ledger.length(setup.job, self.me());
        for (_, seq, op) in self.ledger.durable(mark) {
            if let Op::Done { unit, .. } | Op::Failed { unit, .. } = &op {
                self.hands.remove(unit);
                self.ended.remove(unit);
            }
            self.job.apply(self.me(), seq, op);
        }
        let told = self.ledger.suffix(setup.job, self.me(), from).ok_or("what is written is not told")?;
        self.pieces.entry(self.me()).or_default().extend(told.into_iter().map(Piece::new));
        self.settle(setup);
        Ok(())
    }

    /// Everything unwritten is on disk at once.
    pub fn persist_all(&mut self, setup: &Setup) -> Result<(), Fault> {
        while !self.pending.is_empty() {
            self.persist(setup)?;
        }
        Ok(())
    }

    /// Takes in a piece of another's log, twice over: the second time must change nothing.
    pub fn merge(&mut self, setup: &Setup, piece: &Arc<Piece>) -> Result<(), Fault> {
        let suffix = &piece.suffix;
        let merged = self.ledger.merge(suffix).map_err(|_| "a piece in order was refused")?;
        if merged.new_ops.is_empty() {
            return Err("a piece that was lacking brought nothing");
        }
        for (seq, op) in merged.new_ops {
            self.job.apply(suffix.actor, seq, op);
        }
        let digest = self.ledger.digest();
        let again = self.ledger.merge(suffix).map_err(|_| "a piece was refused the second time")?;
        if !again.new_ops.is_empty() || digest != self.ledger.digest() {
            return Err("a piece changed something the second time");
        }
        self.pieces.entry(suffix.actor).or_default().push(piece.clone());
        self.settle(setup);
        Ok(())
    }

    /// The unit in hand has been rendering for long.
    pub fn age(&mut self, setup: &Setup) {
        let ended = &self.ended;
        for (_, hand) in self.hands.iter_mut().filter(|(unit, hand)| hand.started.is_some() && !ended.contains(*unit)) {
            (hand.started, hand.percent) = (Some(NOW - LONG_AGO), FAR);
        }
        self.settle(setup);
    }

    /// Takes another for dead, or for alive again.
    pub fn suspect(&mut self, setup: &Setup, other: usize, is_suspected: bool) {
        self.peers[other].is_suspected = is_suspected;
        self.settle(setup);
    }

    /// Connects to another start of a node.
    pub fn meet(&mut self, setup: &Setup, other: usize, boot: u8) {
        self.peers[other].boot = boot;
        self.peers[other].in_hand.clear();
        self.settle(setup);
    }

    /// Hears what another renders.
    pub fn beat(&mut self, setup: &Setup, other: usize, told: &BTreeMap<Unit, bool>) {
        self.peers[other].in_hand = told.clone();
        self.settle(setup);
    }

    /// The renderer ends the unit in hand, one way or the other.
    pub fn end(&mut self, setup: &Setup, is_good: bool) {
        let Some((unit, hand)) = self.rendering().next() else { return };
        let epoch = hand.epoch;
        self.ended.insert(unit);
        let op = if is_good {
            let path = format!("{}.png", unit.frame);
            let outputs = vec![Output { path, blob: blob(unit, self.me()), bytes: 1, role: OutputRole::Image }];
            Op::Done {
                epoch,
                revision: 0,
                unit,
                outputs,
                millis: setup.millis,
                device: String::new(),
                build: String::new(),
            }
        } else {
            Op::Failed { epoch, unit, kind: FailureKind::Crash, message: String::new(), log: None }
        };
        self.say(setup, op);
        self.settle(setup);
    }

    /// Dies and starts anew with what was on disk: all told ops of its own; others' ops are written without haste, so
    /// that with `forgets` none of them were.
    pub fn restart(&mut self, setup: &Setup, forgets: bool) {
        let node = self.me().node;
        self.boot += 1;
        self.ledger = Ledger::new(Sealer::Cheap(node), BootId([self.boot; 8]), super::SWARM);
        self.job = JobState::new(setup.job);
        // The job itself is always known: without it there is nothing to model.
        self.pieces.retain(|of, _| !forgets || of.node == node || *of == setup.submitter);
        for (of, pieces) in &self.pieces {
            for piece in pieces {
                let merged = self.ledger.merge(&piece.suffix).expect("it was merged before");
                merged.new_ops.into_iter().for_each(|(seq, op)| self.job.apply(*of, seq, op));
            }
        }
        self.pending.clear();
        self.hands.clear();
        self.queue.clear();
        self.ended.clear();
        for peer in &mut self.peers {
            peer.in_hand.clear();
            peer.is_suspected = false;
        }
        self.settle(setup);
    }

    /// Dies for good.
    pub fn die(&mut self, setup: &Setup) {
        self.is_up = false;
        self.pending.clear();
        self.hands.clear();
        self.queue.clear();
        self.ended.clear();
        self.seal(setup);
    }

    /// Whether it knows every unit done, on a node it counts on, and does nothing.
    pub fn is_satisfied(&self, setup: &Setup) -> bool {
        let roster = self.roster(setup);
        self.job.unfinished().is_empty()
            && setup.units().all(|unit| has_live_result(&self.job, unit, &roster, NOW))
            && self.hands.is_empty()
            && self.pending.is_empty()
    }
}
