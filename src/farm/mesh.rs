//! Who is told what, once there are too many to tell everyone everything.
//!
//! Up to [`FULL_MESH`] neighbours all of them are told at once. Above, a machine tells a few: those it drew at random and
//! those that drew it. New ops and signs of life are handed on from there, gathered for a moment, so that a machine's
//! traffic grows with what happens in the swarm and not with the square of its members. An undirected random graph in
//! which everyone draws three others is connected with near certainty (Fenner and Frieze 1982: two suffice); what is lost
//! on the way is mended by repair.

use super::Farm;
use super::config::{FULL_MESH, MESH_DRAWS, PUSH_EVERY, RELAY_EVERY};
use super::event::{Effect, Now};
use super::id::{ActorId, NodeId};
use super::ledger::pushes;
use super::message::{LogId, Message};
use super::roster::Member;
use rand::Rng;
use rand::seq::IteratorRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Most signs of life in one message: 17 bytes each, the status stream carries 16 KiB.
pub const MAX_BEATS: usize = 900;

/// An actor's ops in a log, from the one of this number on.
type Tail = (LogId, ActorId, u64);

/// What is to be handed on of an actor's ops.
#[derive(Clone, Debug)]
struct Forward {
    /// The first of them.
    from: u64,
    /// How many of the actor's ops there were when the last of them came.
    length: u64,
    /// How many of the actor's ops those have who told of some in the meantime.
    known_to: BTreeMap<NodeId, u64>,
}

impl Forward {
    /// The first op that `node` is to be told.
    fn first_for(&self, node: NodeId) -> u64 {
        self.known_to.get(&node).map_or(self.from, |known| self.from.max(*known))
    }
}

/// The few that are told, and what they are to be told next.
#[derive(Debug)]
pub(super) struct Mesh {
    /// Neighbours up to which all are told.
    full: usize,
    /// Neighbours to draw above that.
    draws: usize,
    /// Drawn by this machine.
    drawn: BTreeSet<NodeId>,
    /// Those, and the ones that drew it, as of the last heartbeat.
    told: Vec<NodeId>,
    relay_at: Duration,
    forwards: BTreeMap<(LogId, ActorId), Forward>,
    push_at: Duration,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            full: FULL_MESH,
            draws: MESH_DRAWS,
            drawn: BTreeSet::new(),
            told: Vec::new(),
            relay_at: Duration::ZERO,
            forwards: BTreeMap::new(),
            push_at: Duration::ZERO,
        }
    }
}

impl Farm {
    /// Tells only a few, `draws` of them drawn here, as soon as there are more than `full` neighbours: small swarms that talk
    /// like large ones, for simulations.
    #[cfg(any(test, feature = "sim"))]
    pub fn tell_few(&mut self, full: usize, draws: usize) {
        (self.mesh.full, self.mesh.draws) = (full, draws);
    }

    /// Whether only some neighbours are told.
    pub(super) fn is_partial(&self) -> bool {
        self.roster.connected_count() > self.mesh.full
    }

    /// Those that are told of ops and life.
    pub(super) fn told(&self) -> Vec<NodeId> {
        if self.is_partial() { self.mesh.told.clone() } else { self.roster.neighbours().collect() }
    }

    fn few(&self, now: Duration) -> Vec<NodeId> {
        let drew_us = |member: &Member| member.tells(now) && member.neighbours.contains(&self.me.node);
        let connected = self.roster.members().iter().filter(|(_, member)| member.connected);
        let few = connected.filter(|(node, member)| self.mesh.drawn.contains(*node) || drew_us(member));
        few.map(|(node, _)| *node).filter(|node| *node != self.me.node).collect()
    }

    /// Those this machine names in its heartbeat: they need no forwarding of its ops.
    pub(super) fn named(&self) -> Vec<NodeId> {
        if self.is_partial() { self.mesh.drawn.iter().copied().collect() } else { self.roster.neighbours().collect() }
    }

    /// Draws anew for those that went.
    pub(super) fn draw(&mut self, now: Duration, rng: &mut dyn Rng) {
        if !self.is_partial() {
            self.mesh.drawn.clear();
            self.roster.drop_beats();
            return;
        }
        let connected = self.roster.connected_nodes();
        let usable = |node: &NodeId| connected.contains(node) && self.roster.is_alive(*node, now);
        let mut drawn: BTreeSet<NodeId> = self.mesh.drawn.iter().copied().filter(usable).collect();
        if drawn.len() < self.mesh.draws {
            let fresh = connected.iter().copied().filter(|node| usable(node) && !drawn.contains(node));
            let fresh = fresh.sample(&mut &mut *rng, self.mesh.draws - drawn.len());
            drawn.extend(fresh);
        }
        self.mesh.drawn = drawn;
        self.mesh.told = self.few(now);
    }

    /// Tells neighbours of ops from `from` on: at once, or with the next batch.
    pub(super) fn push(
        &mut self,
        log: LogId,
        actor: ActorId,
        from: u64,
        learned_of: Option<NodeId>,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_partial() {
            let new = Forward { from, length: 0, known_to: BTreeMap::new() };
            let forward = self.mesh.forwards.entry((log, actor)).or_insert(new);
            (forward.from, forward.length) = (forward.from.min(from), self.ledger.length(log, actor));
            return;
        }
        let origin = self.origin(actor);
        let lacks = |node: &NodeId| Some(*node) != learned_of && !Self::is_told_by(actor, origin, *node);
        let to: Vec<NodeId> = self.roster.neighbours().filter(lacks).collect();
        if to.is_empty() {
            return;
        }
        for push in pushes(self.ledger.suffix(log, actor, from).unwrap_or_default()) {
            let message = Arc::new(push);
            effects.extend(to.iter().map(|node| Effect::Send { to: *node, message: message.clone() }));
        }
    }

    /// Tells neighbours at once of both histories of an actor that signed two, from where they part.
    pub(super) fn push_fork(&self, log: LogId, actor: ActorId, at: u64, effects: &mut Vec<Effect>) {
        let told = self.told();
        for push in pushes(self.ledger.suffix(log, actor, at).unwrap_or_default()) {
            let message = Arc::new(push);
            effects.extend(told.iter().map(|to| Effect::Send { to: *to, message: message.clone() }));
        }
    }

    /// A neighbour told of the first `length` ops of an actor, so it need not be told of them.
    pub(super) fn knows(&mut self, node: NodeId, log: LogId, actor: ActorId, length: u64) {
        if let Some(forward) = self.mesh.forwards.get_mut(&(log, actor)) {
            let known = forward.known_to.entry(node).or_default();
            *known = length.max(*known);
        }
    }

    /// The member that pushes `actor`'s ops itself, to those it talks to: only the start that wrote them, and not this one.
    /// Whom it talks to is known for as long as it says so itself; in a large swarm most say it to others.
    pub(super) fn origin(&self, actor: ActorId) -> Option<&Member> {
        let origin = self.roster.member(actor.node).filter(|_| actor != self.me);
        origin.filter(|origin| origin.boot == Some(actor.boot) && origin.tells(self.last_turn))
    }

    /// Whether `node` has `actor`'s ops from their `origin`.
    fn is_told_by(actor: ActorId, origin: Option<&Member>, node: NodeId) -> bool {
        node == actor.node || origin.is_some_and(|origin| origin.neighbours.contains(&node))
    }

    /// Hands on what has gathered and is due.
    pub(super) fn hand_on(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.has_beats() && now.mono >= self.mesh.relay_at {
            self.mesh.relay_at = now.mono + RELAY_EVERY;
            let beats = self.roster.take_beats(MAX_BEATS);
            if !beats.is_empty() {
                let message = Arc::new(Message::Beats(beats));
                effects.extend(self.told().into_iter().map(|to| Effect::Send { to, message: message.clone() }));
            }
        }
        if !self.mesh.forwards.is_empty() && now.mono >= self.mesh.push_at {
            self.mesh.push_at = now.mono + PUSH_EVERY;
            let forwards = std::mem::take(&mut self.mesh.forwards);
            // What is the same for all that are told.
            let all = forwards.iter().map(|((log, actor), forward)| (*log, *actor, forward, self.origin(*actor)));
            let news: Vec<(LogId, ActorId, &Forward, Option<&Member>)> = all.collect();
            // Most lack the same: it is put together once.
            let mut batches: BTreeMap<Vec<Tail>, Vec<Arc<Message>>> = BTreeMap::new();
            for to in self.told() {
                let lacked = news.iter().filter_map(|&(log, actor, forward, origin)| {
                    let from = forward.first_for(to);
                    (from < forward.length && !Self::is_told_by(actor, origin, to)).then_some((log, actor, from))
                });
                let lacked: Vec<Tail> = lacked.collect();
                let batch = batches.entry(lacked).or_insert_with_key(|lacked| {
                    let suffixes =
                        lacked.iter().filter_map(|(log, actor, from)| self.ledger.suffix(*log, *actor, *from));
                    pushes(suffixes.flatten().collect()).into_iter().map(Arc::new).collect()
                });
                effects.extend(batch.iter().map(|message| Effect::Send { to, message: message.clone() }));
            }
        }
    }

    /// Whether members gave signs of life that others may not have seen.
    fn has_beats(&self) -> bool {
        self.roster.has_beats() && self.is_partial()
    }

    /// When something gathered is to be handed on.
    pub(super) fn hand_on_at(&self) -> Option<Duration> {
        let relay = self.has_beats().then_some(self.mesh.relay_at);
        let push = (!self.mesh.forwards.is_empty()).then_some(self.mesh.push_at);
        relay.into_iter().chain(push).min()
    }
}

const _: () = assert!(17 * MAX_BEATS + 64 <= crate::wire::STATUS_MAX_BYTES);
