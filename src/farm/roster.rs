//! Who is here.
//!
//! A member is known by what it says: any valid message counts as life, judged by this machine's monotonic clock alone.
//! The roster remembers members that went away (their Blenders still count when a series is chosen) and forgets nobody
//! within one run.

use super::config::{BROKE_OFF_WITHIN, GONE_AFTER, MISSED_FOR, SUSPECT_AFTER};
use super::event::Load;
use super::id::{ActorId, BootId, JobId, NodeId, Unit};
use super::message::{Capability, Heartbeat, InHand};
use super::op::Op;
use super::scripts::Trusts;
use super::settings::Settings;
use super::starts::{Start, Starts};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A member as this machine knows it.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// Which start of it was last heard.
    pub boot: Option<BootId>,
    /// Its place in [`Roster::signs`].
    place: usize,
    /// Whether a connection stands.
    pub connected: bool,
    /// When the last one ended, unless one stands or none ever stood.
    pub left: Option<Duration>,
    /// When its last heartbeat came from itself, with what it has in hand.
    pub told: Option<Duration>,
    /// CPU load, hundredths.
    pub load_percent: u8,
    /// Memory that renders could have, bytes, if it is known.
    pub free_memory_bytes: Option<u64>,
    /// Whether a person is at the desk.
    pub at_desk: bool,
    /// What it renders.
    pub in_hand: Vec<InHand>,
    /// When each of those was first heard of, on our clock.
    pub since: BTreeMap<(JobId, Unit), Duration>,
    /// Whom it talks to itself.
    pub neighbours: BTreeSet<NodeId>,
    /// What it can do, once told.
    pub capability: Option<Capability>,
}

impl Member {
    /// Whether it itself lately told what it has in hand.
    pub fn tells(&self, now: Duration) -> bool {
        self.told.is_some_and(|told| now.saturating_sub(told) < SUSPECT_AFTER)
    }
}

/// Signs of life of a member, on our clock.
#[derive(Clone, Copy, Debug, Default)]
struct Signs {
    /// When it was last heard, itself or through others; `None` before the first word of this run.
    heard: Option<Duration>,
    /// When anything last came over the connection to it.
    spoke: Option<Duration>,
}

/// Everyone, this machine included.
#[derive(Clone, Debug)]
pub struct Roster {
    me: ActorId,
    members: BTreeMap<NodeId, Member>,
    /// When each member was last heard, by its place. Apart from all that only a look at a member asks for: in a large
    /// swarm a hundred are heard of for each that is looked at.
    signs: Vec<Signs>,
    /// The place of each, for those who come with a message: a search among members, which are large, costs as much as most
    /// messages.
    places: BTreeMap<NodeId, usize>,
    /// Starts caught signing two histories: what they claim binds nobody, since what they do is not taken any more.
    liars: BTreeSet<ActorId>,
    /// Whose scripts each machine runs.
    trusts: Trusts,
    /// What is set for the whole swarm.
    settings: Settings,
    /// The start that each member of the moment, or of late, runs.
    starts: Starts,
    /// Members a connection stands to.
    connected: BTreeSet<NodeId>,
}

impl Roster {
    /// Alone.
    pub fn new(me: ActorId) -> Self {
        let mut members = BTreeMap::new();
        members.insert(me.node, Member { boot: Some(me.boot), ..Member::default() });
        Self {
            me,
            members,
            signs: vec![Signs::default()],
            places: BTreeMap::from([(me.node, 0)]),
            liars: BTreeSet::new(),
            trusts: Trusts::default(),
            settings: Settings::default(),
            starts: Starts::default(),
            connected: BTreeSet::new(),
        }
    }

    /// Everyone ever heard of in this run, by id.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// One of them.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// What this machine can do.
    pub fn own(&self) -> Option<&Capability> {
        self.members.get(&self.me.node).and_then(|member| member.capability.as_ref())
    }

    /// Whose scripts each machine runs, by its own word.
    pub fn trusts(&self) -> &Trusts {
        &self.trusts
    }

    /// What is set for the whole swarm.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes in what an actor says of the swarm, as the `seq`-th op of its log.
    pub fn learn(&mut self, actor: ActorId, seq: u64, op: &Op) {
        match op {
            Op::Trust { node, trusted } => self.trusts.say(actor, seq, *node, *trusted),
            Op::Setting { lamport, key, value } => self.settings.say(actor, *lamport, key, value),
            _ => {}
        }
    }

    /// Forgets all that was said of the swarm: it is learnt anew.
    pub fn unlearn(&mut self) {
        (self.trusts, self.settings) = (Trusts::default(), Settings::default());
    }

    /// What people call a machine: its name, or the beginning of its id.
    pub fn name(&self, node: NodeId) -> String {
        let capability = self.member(node).and_then(|member| member.capability.as_ref());
        let name = capability.map(|capability| capability.name.clone()).filter(|name| !name.is_empty());
        name.unwrap_or_else(|| node.short())
    }

    /// A member to be changed; a new one where nothing is known of it.
    fn member_mut(&mut self, node: NodeId) -> &mut Member {
        self.members.entry(node).or_insert_with(|| {
            let place = self.signs.len();
            self.signs.push(Signs::default());
            self.places.insert(node, place);
            Member { place, ..Member::default() }
        })
    }

    /// Whether a member was heard lately and is not gone.
    fn lives(&self, member: &Member, now: Duration) -> bool {
        let heard = self.signs[member.place].heard;
        // Whom others still hear lives, though the connection to it ended.
        let ended = member.left.filter(|left| heard.is_none_or(|heard| heard <= *left));
        heard.is_some_and(|heard| now.saturating_sub(heard) < SUSPECT_AFTER)
            && ended.is_none_or(|left| now.saturating_sub(left) < GONE_AFTER)
    }

    /// Remembers somebody from an earlier run, without taking it for alive.
    pub fn remember(&mut self, node: NodeId, capability: Capability) {
        self.member_mut(node).capability.get_or_insert(capability);
    }

    /// This machine's own description changed.
    pub fn set_own(&mut self, capability: Capability) {
        self.member_mut(self.me.node).capability = Some(capability);
    }

    /// This machine's own work, so that it counts like anyone's.
    pub fn set_own_work(&mut self, in_hand: Vec<InHand>) {
        self.member_mut(self.me.node).in_hand = in_hand;
    }

    /// How this machine is doing.
    pub fn set_own_load(&mut self, load: Load) {
        let own = self.member_mut(self.me.node);
        own.load_percent = load.percent;
        (own.free_memory_bytes, own.at_desk) = (load.free_memory_bytes, load.at_desk);
    }

    /// A connection stands.
    pub fn connected(&mut self, node: NodeId, boot: BootId, now: Duration) {
        let place = self.member_mut(node).place;
        self.signs[place] = Signs { heard: Some(now), spoke: Some(now) };
        let Some(member) = self.members.get_mut(&node) else { return };
        if member.boot != Some(boot) {
            if let Some(old) = member.boot {
                self.starts.remove(old);
            }
            self.starts.insert(boot, Start { member: place, at: now, told: 0 });
            member.boot = Some(boot);
            member.in_hand.clear();
            member.since.clear();
        }
        if node != self.me.node {
            self.connected.insert(node);
        }
        (member.connected, member.left) = (true, None);
    }

    /// It does not any more. The node may still be heard through others, or come back within the suspicion time.
    pub fn disconnected(&mut self, node: NodeId, now: Duration) {
        if let Some(member) = self.members.get_mut(&node) {
            self.connected.remove(&node);
            (member.connected, member.left) = (false, Some(now));
        }
    }

    /// Any valid message of it.
    pub fn heard(&mut self, node: NodeId, now: Duration) {
        if let Some(place) = self.places.get(&node) {
            self.signs[*place] = Signs { heard: Some(now), spoke: Some(now) };
        }
    }

    /// Whether nothing came over the connection to it for long, though others may hear it: it may stand on this side alone.
    pub fn is_mute(&self, node: NodeId, now: Duration) -> bool {
        let spoke =
            self.members.get(&node).filter(|member| member.connected).and_then(|member| self.signs[member.place].spoke);
        spoke.is_some_and(|spoke| now.saturating_sub(spoke) >= SUSPECT_AFTER)
    }

    /// A heartbeat of the member itself. One of another start than the connection's, or an old one, says nothing.
    pub fn heartbeat(&mut self, node: NodeId, beat: &Heartbeat, now: Duration) {
        let Some(member) = self.members.get_mut(&node) else { return };
        if !self.starts.told(member.place, beat.boot, beat.counter, now) {
            return;
        }
        member.since.retain(|key, _| beat.in_hand.iter().any(|hand| (hand.job, hand.unit) == *key));
        for hand in &beat.in_hand {
            member.since.entry((hand.job, hand.unit)).or_insert(now);
        }
        (self.signs[member.place].heard, member.told) = (Some(now), Some(now));
        member.load_percent = beat.load_percent;
        member.in_hand.clone_from(&beat.in_hand);
        (member.free_memory_bytes, member.at_desk) = (beat.free_memory_bytes, beat.at_desk);
        // Nearly always the same.
        if !member.neighbours.iter().eq(&beat.neighbours) {
            member.neighbours = beat.neighbours.iter().copied().collect();
        }
    }

    /// Heartbeats as somebody else heard them, in ascending order of starts.
    pub fn relayed_beats(&mut self, beats: &[(BootId, u64)], now: Duration) {
        self.starts.relayed(beats, now, |member| self.signs[member].heard = Some(now));
    }

    /// Whether there are heartbeats, of members or as others heard them, to be handed on.
    pub fn has_beats(&self) -> bool {
        self.starts.has_news()
    }

    /// So many of them at most, in ascending order of starts; the rest remains for the next time.
    pub fn take_beats(&mut self, most: usize) -> Vec<(BootId, u64)> {
        self.starts.take_news(most)
    }

    /// None of them is handed on.
    pub fn drop_beats(&mut self) {
        self.starts.drop_news();
    }

    /// Whether a member itself lately told what it has in hand: in a large swarm few do.
    pub fn tells(&self, node: NodeId, now: Duration) -> bool {
        self.members.get(&node).is_some_and(|member| member.tells(now))
    }

    /// Members a connection stands to.
    pub fn connected_count(&self) -> usize {
        self.connected.len()
    }

    /// What it can do changed.
    pub fn capability(&mut self, node: NodeId, capability: Capability) {
        if node != self.me.node {
            self.member_mut(node).capability = Some(capability);
        }
    }

    /// After a suspend of this machine nobody is judged by the time it missed.
    pub fn restart_suspicion(&mut self, now: Duration) {
        for member in self.members.values().filter(|member| member.connected) {
            self.signs[member.place].heard = Some(now);
        }
    }

    /// Whether a node counts: heard within [`SUSPECT_AFTER`] and not gone for [`GONE_AFTER`], or this one.
    pub fn is_alive(&self, node: NodeId, now: Duration) -> bool {
        node == self.me.node || self.members.get(&node).is_some_and(|member| self.lives(member, now))
    }

    /// An actor signed two histories.
    pub fn distrust(&mut self, actor: ActorId) {
        self.liars.insert(actor);
    }

    /// Whether an actor counts: its node does, has not started anew since, and did not lie.
    pub fn is_live_actor(&self, actor: ActorId, now: Duration) -> bool {
        let is_it = |member: &Member| {
            member.boot == Some(actor.boot) && (actor.node == self.me.node || self.lives(member, now))
        };
        self.members.get(&actor.node).is_some_and(is_it) && !self.liars.contains(&actor)
    }

    /// Whether an actor's process is known to have ended: its node has started anew since, or the connection to it broke
    /// while it was being heard. One that only fell silent may be on the other side of a cut, and render on.
    pub fn has_ended(&self, actor: ActorId) -> bool {
        self.members.get(&actor.node).is_some_and(|member| member.boot != Some(actor.boot))
            || self.broke_off(actor.node)
    }

    /// Whether the connection to a node broke while it was being heard, as when its process ends, and nobody has heard it
    /// since.
    pub fn broke_off(&self, node: NodeId) -> bool {
        let Some(member) = self.members.get(&node) else { return false };
        let (Some(left), Some(heard)) = (member.left, self.signs[member.place].heard) else { return false };
        heard <= left && left - heard < BROKE_OFF_WITHIN
    }

    /// Those that count, this machine included, by id.
    pub fn alive(&self, now: Duration) -> impl Iterator<Item = (NodeId, &Member)> {
        let counts = move |(node, member): &(NodeId, &Member)| *node == self.me.node || self.lives(member, now);
        self.members.iter().map(|(node, member)| (*node, member)).filter(counts)
    }

    /// How long nothing has been heard of a node: since the start of this run where nothing ever was.
    pub fn silence(&self, node: NodeId, now: Duration) -> Duration {
        let heard = self.members.get(&node).and_then(|member| self.signs[member.place].heard);
        if node == self.me.node { Duration::ZERO } else { now.saturating_sub(heard.unwrap_or_default()) }
    }

    /// Those that vanished lately, by id: dead, or on the other side of a cut.
    pub fn missing(&self, now: Duration) -> impl Iterator<Item = (NodeId, &Member)> {
        let lately = move |member: &Member| {
            self.signs[member.place].heard.is_some_and(|heard| now.saturating_sub(heard) < MISSED_FOR)
        };
        let vanished = move |(node, member): &(NodeId, &Member)| {
            lately(member) && *node != self.me.node && !self.lives(member, now)
        };
        self.members.iter().map(|(node, member)| (*node, member)).filter(vanished)
    }

    /// Nodes a connection stands to, by id.
    pub fn neighbours(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.connected.iter().copied()
    }

    /// Those of them that do not count any more.
    pub fn silent(&self, now: Duration) -> impl Iterator<Item = NodeId> + '_ {
        let is_silent = move |(node, member): &(&NodeId, &Member)| {
            member.connected && **node != self.me.node && !self.lives(member, now)
        };
        self.members.iter().filter(is_silent).map(|(node, _)| *node)
    }

    /// The same as a set.
    pub fn connected_nodes(&self) -> &BTreeSet<NodeId> {
        &self.connected
    }

    /// How far a node says it is with a unit, and since when it has it in hand; `None` also where it does not tell.
    pub fn progress(&self, node: NodeId, job: JobId, unit: Unit, now: Duration) -> Option<(u8, Duration)> {
        let member = self.members.get(&node).filter(|_| self.tells(node, now))?;
        let hand = member.in_hand.iter().find(|hand| hand.job == job && hand.unit == unit)?;
        Some((hand.percent, *member.since.get(&(job, unit))?))
    }
}
