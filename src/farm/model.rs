//! Every state of a small swarm: three machines, two frames, and whatever can go wrong in any order.
//!
//! The machines are real where it counts: [`Ledger`] merges and signs, [`JobState`] folds, [`View`] chooses and gives
//! up. What surrounds them is reduced to free choices: any lacking op may arrive anywhere at any moment, any node may
//! suspect any other, a disk writes when it likes, a render ends when it likes, a node may die with its unwritten ops.
//!
//! Reductions, and why nothing is missed by them:
//! - Ops of an actor arrive one at a time and in order. A longer piece is the same ops with nothing in between; an op
//!   out of order is a gap, and a repeated one is nothing, which changes no state (repetition is checked at every merge).
//! - From whom an op comes does not matter to the receiver, so that "somebody up has it" stands for all senders. What a
//!   node said before it died and nobody heard is lost: hearing it later is the same as hearing it first, since a dead
//!   node does nothing in between.
//! - A crash and the start after it are one step: a node that is down is one that does nothing.
//! - Time is two bits: whether a unit in hand is old (past yielding, later than its mean), and who is suspected.
//! - Giving up follows every input at once, as in `Farm::handle`; claiming is a step of its own, and so covers every
//!   delay (a slot, a bundle, a fence, patience with a faster node) before it.
//! - While nobody can crash or die any more, an op is on disk when it is written: to others that is one that is late, and
//!   its writer has the unit in hand until then.
//! - While nobody can die any more (so that nobody is needed to hand on what it heard), a node at work hears only of
//!   units it has in hand: the rest changes nothing before it is free, and can be heard then.
//! - Once no doubt is left to come, a frame whose result a node knows on another that is up is settled for it: what else
//!   is said of the frame makes no difference, and histories that differ in that alone are one state. So are histories of
//!   which the same is left to hear and that folded to the same: how they came about is forgotten.
//! - No file is ever lost, so that an actor's second result of an epoch changes nothing, and they are one.
//! - Of long frames only the old are told by heartbeats: a young one is neither stolen nor backed up.
//!
//! No symmetry is used: nodes differ by their ids, and so do their claims. What is bounded, by [`Budget`]: how often
//! suspicion begins wrongly, how many crashes, deaths and failed renders there are. Within it the search goes to the end.

mod machine;

use super::frames::FrameSet;
use super::id::{ActorId, BlobId, BootId, JobId, Unit};
use super::ledger::Ledger;
use super::message::Capability;
use super::op::ClaimKind;
use super::state::JobState;
use crate::seal::{Hash as Digest, Sealer};
use machine::{Fault, Machine, Piece, actor, key, node};
use stateright::{Checker, Model, Property};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

const NODES: usize = 3;
const SWARM: Digest = [9; 32];

/// How much may go wrong in one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    /// Times that somebody alive is taken for dead.
    suspicions: u8,
    /// Crashes with a new start, which knows all that the one before did.
    crashes: u8,
    /// Crashes with a new start that knows what it told itself, and nothing of others.
    forgetful: u8,
    /// Deaths.
    deaths: u8,
    /// Failed renders.
    failures: u8,
    /// Renders that take so long that others back them up.
    slow: u8,
}

/// Which job is rendered.
#[derive(Clone, Copy, Debug)]
struct Case {
    frames: i32,
    /// Render time that results tell, milliseconds: short frames are claimed two at a time.
    millis: u32,
    /// Makes the job's id, and with it who is strongest at which frame.
    nonce: u64,
}

/// What is the same in every state.
struct Setup {
    job: JobId,
    bundle: BlobId,
    /// Frames to render: 1 up to this.
    frames: i32,
    submitter: ActorId,
    capability: Capability,
    /// Render time that results tell, milliseconds: short frames are claimed two at a time.
    millis: u32,
}

impl Setup {
    fn units(&self) -> impl Iterator<Item = Unit> + use<> {
        (1..=self.frames).map(Unit::whole)
    }

    /// Whether more than one frame is claimed at once.
    fn is_short(&self) -> bool {
        self.millis < 2000
    }
}

struct Small {
    setup: Setup,
    start: World,
    known: Mutex<Known>,
}

/// What was worked out before. A step changes one machine and depends on nothing else, so that the real code runs once
/// for every machine and step, not for every state of the swarm.
#[derive(Default)]
struct Known {
    /// By the machine's key and the key of what happens to it.
    steps: BTreeMap<(u64, u64), Result<Arc<Machine>, Fault>>,
    /// What every set of ops was folded to, the first time.
    folds: BTreeMap<Digest, JobState>,
}

#[derive(Clone)]
struct World {
    machines: [Arc<Machine>; NODES],
    left: Budget,
    fault: Option<Fault>,
}

impl World {
    /// Whether a frame is done for a machine whatever happens: it knows a result on a node that it will not come to doubt.
    /// Nothing said of the frame makes a difference to it any more.
    fn is_settled(&self, machine: &Machine, frame: usize) -> bool {
        let is_sure = self.left.suspicions == 0 && self.left.deaths == 0 && self.left.forgetful == 0;
        let holds = |index: usize| {
            let holder = &self.machines[index];
            holder.is_up && !machine.peers[index].is_suspected && machine.frames[frame].1.contains(&node(index))
        };
        is_sure && (0..NODES).any(holds)
    }

    /// What a machine may yet hear of an actor.
    fn unheard(&self, machine: &Machine, of: ActorId) -> &[Arc<Piece>] {
        let have = machine.pieces.get(&of).map_or(0, Vec::len);
        let up = self.machines.iter().filter(|machine| machine.is_up);
        let told = up.filter_map(|machine| machine.pieces.get(&of)?.get(have..));
        told.max_by_key(|told| told.len()).unwrap_or_default()
    }

    /// Whether it makes a difference to a machine, now or later.
    fn matters(&self, machine: &Machine, piece: &Piece) -> bool {
        piece.units.is_empty() || piece.units.iter().any(|unit| !self.is_settled(machine, unit.frame as usize - 1))
    }

    /// Every start of every machine.
    fn actors(&self) -> impl Iterator<Item = ActorId> + '_ {
        (0..NODES).flat_map(|index| (1..=self.machines[index].boot).map(move |boot| actor(index, boot)))
    }

    /// What makes two states different: not how they came about, only what may follow.
    fn key(&self) -> [u64; NODES] {
        self.machines.each_ref().map(|machine| {
            if !machine.is_up {
                return 0;
            }
            if self.left.forgetful > 0 {
                // Who forgets everything hears everything again.
                return machine.key;
            }
            let mut key = machine.doing;
            for (frame, (said, _)) in machine.frames.iter().enumerate() {
                key = mix(key, if self.is_settled(machine, frame) { 1 } else { *said });
            }
            for of in self.actors().filter(|of| *of != machine.me()) {
                let pieces = self.unheard(machine, of).iter().filter(|piece| self.matters(machine, piece));
                key = mix(pieces.fold(key, |key, piece| mix(key, piece.meaning)), 2);
            }
            key
        })
    }
}

/// Two numbers as one; hashing costs most of a search, and this is little of it.
fn mix(one: u64, other: u64) -> u64 {
    (one.rotate_left(23) ^ other).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.key(), self.left, self.fault).hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        (self.key(), self.left, self.fault) == (other.key(), other.left, other.fault)
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for machine in &self.machines {
            writeln!(f, "  {:?} knows {:?}", machine.me(), machine.ledger.versions(machine.job.id).lengths)?;
            writeln!(f, "    hands {:?}, ended {:?}", machine.hands, machine.ended)?;
            writeln!(f, "    unwritten {:?}", machine.pending)?;
            writeln!(f, "    peers {:?}, would claim {:?}", machine.peers, machine.choice)?;
        }
        write!(f, "  {:?} {:?}", self.left, self.fault)
    }
}

/// A step; numbers are of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The next op of an actor arrives somewhere.
    Hear(usize, ActorId),
    /// The oldest unwritten op is on disk, and told.
    Persist(usize),
    Claim(usize),
    /// Rendering goes on for long.
    Age(usize),
    Finish(usize),
    Fail(usize),
    /// The first takes the second for dead.
    Suspect(usize, usize),
    Trust(usize, usize),
    /// The first learns that the second was started anew.
    Meet(usize, usize),
    /// The first hears what the second renders.
    Beat(usize, usize),
    Crash {
        index: usize,
        forgets: bool,
    },
    Die(usize),
}

impl Small {
    /// Three machines that know a job and nothing else.
    fn new(case: Case, budget: Budget) -> Self {
        let Case { frames, millis, nonce } = case;
        let mut spec = crate::wire::tests::spec();
        (spec.nonce, spec.min_version) = (nonce, 40500);
        spec.frames = FrameSet::range(1, frames, 1).expect("two frames");
        let bundle = spec.bundle;
        let mut ledgers: Vec<Ledger> =
            (0..NODES).map(|index| Ledger::new(Sealer::Cheap(node(index)), BootId([1; 8]), SWARM)).collect();
        let job = ledgers[0].submit(&[], spec).expect("a legal job");
        let mark = ledgers[0].take_rows().expect("the job").mark;
        let submit = ledgers[0].durable(mark).remove(0).2;
        let submitter = actor(0, 1);
        let pieces = ledgers[0].suffix(job, submitter, 0).expect("the job");
        for ledger in &mut ledgers[1..] {
            ledger.merge(&pieces[0]).expect("the job");
        }
        let mut state = JobState::new(job);
        state.apply(submitter, 0, submit);
        let setup = Setup { job, bundle, frames, submitter, capability: super::tests::capability(), millis };
        let submit = Piece::new(pieces[0].clone());
        let machine = |(index, ledger)| Arc::new(Machine::new(&setup, index, ledger, state.clone(), &submit));
        let machines: Vec<Arc<Machine>> = ledgers.into_iter().enumerate().map(machine).collect();
        let machines = machines.try_into().unwrap_or_else(|_| unreachable!("three were made"));
        let start = World { machines, left: budget, fault: None };
        Self { setup, start, known: Mutex::default() }
    }

    /// What of an actor a machine can hear next: nothing that only the dead know, and no less than makes a difference.
    fn next_pieces<'w>(&self, world: &'w World, to: usize, of: ActorId) -> &'w [Arc<Piece>] {
        let machine = &world.machines[to];
        let told = world.unheard(machine, of);
        if world.left.deaths > 0 {
            return &told[..told.len().min(1)];
        }
        let cares = |piece: &Arc<Piece>| {
            world.matters(machine, piece)
                && (machine.is_free() || machine.hands.keys().any(|unit| piece.units.contains(unit)))
        };
        told.iter().position(cares).map_or(&[], |last| &told[..=last])
    }

    fn steps(&self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for (index, machine) in world.machines.iter().enumerate().filter(|(_, machine)| machine.is_up) {
            let heard =
                world.actors().filter(|of| *of != machine.me() && !self.next_pieces(world, index, *of).is_empty());
            steps.extend(heard.map(|of| Step::Hear(index, of)));
            if !machine.pending.is_empty() {
                steps.push(Step::Persist(index));
            }
            if machine.choice.is_some() {
                steps.push(Step::Claim(index));
            }
            if let Some((_, hand)) = machine.rendering().next() {
                steps.push(Step::Finish(index));
                if !Machine::is_old(hand) && world.left.slow > 0 {
                    steps.push(Step::Age(index));
                }
                if world.left.failures > 0 {
                    steps.push(Step::Fail(index));
                }
            }
            for (other, peer) in machine.peers.iter().enumerate().filter(|(other, _)| *other != index) {
                let of = &world.machines[other];
                if peer.is_suspected {
                    steps.extend(of.is_up.then_some(Step::Trust(index, other)));
                } else if !of.is_up || world.left.suspicions > 0 {
                    steps.push(Step::Suspect(index, other));
                }
                if of.is_up && peer.boot != of.boot {
                    steps.push(Step::Meet(index, other));
                } else if of.is_up && peer.in_hand != of.told {
                    steps.push(Step::Beat(index, other));
                }
            }
            if world.left.crashes > 0 {
                steps.push(Step::Crash { index, forgets: false });
            }
            if world.left.forgetful > 0 {
                steps.push(Step::Crash { index, forgets: true });
            }
            if world.left.deaths > 0 {
                steps.push(Step::Die(index));
            }
        }
        steps
    }

    /// Does a step; the machine it happens to, and what it is then.
    fn take(&self, world: &mut World, step: Step) -> Result<(), Fault> {
        let Budget { suspicions, crashes, forgetful, deaths, failures, slow } = &mut world.left;
        // Besides the step itself, what the machine learns by it.
        let (index, news) = match step {
            Step::Hear(index, of) => {
                let pieces = self.next_pieces(world, index, of);
                (index, key(&pieces.last().ok_or("offered what is not there")?.suffix.head.chain))
            }
            Step::Meet(index, other) => (index, u64::from(world.machines[other].boot)),
            Step::Beat(index, other) => (index, key(&world.machines[other].told)),
            Step::Suspect(index, other) => {
                *suspicions -= u8::from(world.machines[other].is_up);
                (index, 0)
            }
            Step::Fail(index) => {
                *failures -= 1;
                (index, 0)
            }
            Step::Crash { index, forgets } => {
                *(if forgets { forgetful } else { crashes }) -= 1;
                (index, 0)
            }
            Step::Die(index) => {
                *deaths -= 1;
                (index, 0)
            }
            Step::Age(index) => {
                *slow -= 1;
                (index, 0)
            }
            Step::Persist(index) | Step::Claim(index) | Step::Finish(index) | Step::Trust(index, _) => (index, 0),
        };
        let mut known = self.known.lock().map_err(|_| "another thread panicked")?;
        let is_safe = world.left.crashes == 0 && world.left.forgetful == 0 && world.left.deaths == 0;
        let name = (world.machines[index].key, key(&(step, news, is_safe)));
        if let Some(after) = known.steps.get(&name) {
            world.machines[index] = after.clone()?;
            return Ok(());
        }
        let after = self.work_out(world, index, step, is_safe).map(Arc::new);
        known.steps.insert(name, after.clone());
        let after = after?;
        let fold = known.folds.entry(after.ledger.digest()).or_insert_with(|| after.job.clone());
        if *fold != after.job {
            return Err("the same ops were folded to another state");
        }
        world.machines[index] = after;
        Ok(())
    }

    /// The machine that a step happens to, after it.
    fn work_out(&self, world: &World, index: usize, step: Step, is_safe: bool) -> Result<Machine, Fault> {
        let setup = &self.setup;
        let before = &world.machines[index];
        let mut machine = Machine::clone(before);
        match step {
            Step::Hear(_, of) => {
                for piece in self.next_pieces(world, index, of) {
                    machine.merge(setup, piece)?;
                }
            }
            Step::Persist(_) => machine.persist(setup)?,
            Step::Claim(_) => machine.claim(setup)?,
            Step::Age(_) => machine.age(setup),
            Step::Finish(_) => machine.end(setup, true),
            Step::Fail(_) => machine.end(setup, false),
            Step::Suspect(_, other) => machine.suspect(setup, other, true),
            Step::Trust(_, other) => machine.suspect(setup, other, false),
            Step::Meet(_, other) => machine.meet(setup, other, world.machines[other].boot),
            Step::Beat(_, other) => machine.beat(setup, other, &world.machines[other].told),
            Step::Crash { forgets, .. } => machine.restart(setup, forgets),
            Step::Die(_) => machine.die(setup),
        }
        if is_safe {
            machine.persist_all(setup)?;
        }
        let undone = |unit| {
            let (was, is) = (before.job.unit(unit), machine.job.unit(unit));
            was.has_result() && was.epoch == is.epoch && !is.has_result()
        };
        if before.boot == machine.boot && setup.units().any(undone) {
            return Err("a done unit was undone within its epoch");
        }
        Ok(machine)
    }

    /// Whether nothing is on its way: every op is everywhere, everyone is trusted, and everyone's work is known.
    fn is_quiet(&self, world: &World) -> bool {
        self.steps(world).iter().all(|step| match step {
            Step::Hear(..) | Step::Persist(_) | Step::Trust(..) | Step::Meet(..) | Step::Beat(..) => false,
            Step::Suspect(_, other) => world.machines[*other].is_up,
            Step::Claim(_) | Step::Age(_) | Step::Finish(_) | Step::Fail(_) | Step::Crash { .. } | Step::Die(_) => true,
        })
    }

    /// Whether nothing can happen any more.
    fn is_over(&self, world: &World) -> bool {
        // Most machines have something to do: asked first, since it is asked of every state.
        let acts = |machine: &Machine| machine.choice.is_some() || !machine.is_free() || !machine.pending.is_empty();
        let acts = world.machines.iter().any(|machine| machine.is_up && acts(machine));
        world.fault.is_none() && !acts && self.steps(world).is_empty()
    }

    /// Copies of a unit being rendered: young primaries, and all.
    fn copies(world: &World, unit: Unit) -> (usize, usize) {
        let hands = world.machines.iter().flat_map(|machine| machine.rendering());
        hands.filter(|(of, _)| *of == unit).fold((0, 0), |(young, all), (_, hand)| {
            (young + usize::from(hand.kind == ClaimKind::Primary && !Machine::is_old(hand)), all + 1)
        })
    }
}

impl Model for Small {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.fault.is_none() {
            steps.extend(self.steps(world));
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.fault = self.take(&mut next, step).err();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no step is wrong", |_: &Self, world: &World| world.fault.is_none()),
            Property::always("when all is known, at most two render a unit", |model: &Self, world: &World| {
                let crowded = model.setup.units().any(|unit| Self::copies(world, unit).1 > 2);
                !(crowded && model.is_quiet(world))
            }),
            Property::always(
                "when all is known, of two young claims one has yielded",
                |model: &Self, world: &World| {
                    let doubled = model.setup.units().any(|unit| Self::copies(world, unit).0 > 1);
                    !(doubled && model.is_quiet(world))
                },
            ),
            Property::always("where nothing more can happen, everything is done", |model: &Self, world: &World| {
                !model.is_over(world)
                    || world.machines.iter().all(|machine| !machine.is_up || machine.is_satisfied(&model.setup))
            }),
            // What must be reachable, or the search shows nothing.
            Property::sometimes("everything is done", |model: &Self, world: &World| model.is_over(world)),
            Property::sometimes("two render a unit, each as its own", |model: &Self, world: &World| {
                model.setup.units().any(|unit| Self::copies(world, unit).0 > 1)
            }),
        ]
    }
}

const NOTHING: Budget = Budget { suspicions: 0, crashes: 0, forgetful: 0, deaths: 0, failures: 0, slow: 0 };
const ONE_FRAME: Case = Case { frames: 1, millis: 20_000, nonce: 0 };
const TWO_FRAMES: Case = Case { frames: 2, millis: 20_000, nonce: 0 };

/// States after which a search is given up: more than any here has, and a rule that goes round in circles has no end.
const STATES_MAX: usize = 200_000_000;

/// Searches every state, and finds not much fewer than the `states` there were when this was written: that would mean that
/// it no longer looks everywhere.
fn check(case: Case, budget: Budget, states: usize) {
    let checker = Small::new(case, budget).checker().threads(2).target_state_count(STATES_MAX).spawn_bfs().join();
    let found = checker.unique_state_count();
    println!("{case:?} {budget:?}: {found} states, {} steps, depth {}", checker.state_count(), checker.max_depth());
    checker.assert_properties();
    assert!(found >= states / 2, "{found} states where there were {states}");
    assert!(checker.state_count() < STATES_MAX, "no end of states");
}

#[test]
fn every_order_of_steps_ends_with_everything_done() {
    check(TWO_FRAMES, NOTHING, 15_743);
}

#[test]
fn a_node_wrongly_taken_for_dead_at_any_moment_harms_nothing() {
    check(ONE_FRAME, Budget { suspicions: 1, ..NOTHING }, 13_650);
}

#[test]
fn a_node_that_dies_at_any_moment_leaves_the_others_able_to_finish() {
    check(ONE_FRAME, Budget { deaths: 1, ..NOTHING }, 26_707);
}

#[test]
fn renders_that_never_seem_to_end_are_backed_up_by_no_more_than_one() {
    check(ONE_FRAME, Budget { slow: 2, ..NOTHING }, 19_998);
}

#[test]
fn a_crash_at_any_moment_loses_nothing_that_was_told() {
    check(ONE_FRAME, Budget { crashes: 1, ..NOTHING }, 92_041);
}

/// Minutes in a release build, in which the gate runs it; much longer in another.
#[cfg(not(debug_assertions))]
#[test]
fn the_same_with_two_frames_and_more_faults() {
    /// Of which a machine that counts on nobody else claims both at once.
    const TWO_SHORT_FRAMES: Case = Case { frames: 2, millis: 100, nonce: 0 };
    for (case, budget, states) in [
        (ONE_FRAME, Budget { forgetful: 1, ..NOTHING }, 163_530),
        (ONE_FRAME, Budget { suspicions: 2, ..NOTHING }, 149_959),
        (TWO_FRAMES, Budget { slow: 1, ..NOTHING }, 195_996),
        (TWO_FRAMES, Budget { failures: 1, ..NOTHING }, 226_063),
        (TWO_FRAMES, Budget { suspicions: 1, ..NOTHING }, 1_124_379),
        (TWO_FRAMES, Budget { crashes: 1, ..NOTHING }, 5_936_608),
        (TWO_FRAMES, Budget { deaths: 1, ..NOTHING }, 6_966_917),
        (TWO_SHORT_FRAMES, NOTHING, 3_800_470),
    ] {
        check(case, budget, states);
    }
}
