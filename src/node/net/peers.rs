//! Whom to dial, where and when; and which of two connections to keep. Pure: the clock and the jitter are arguments.
//!
//! Nodes come from mDNS, from the table of an earlier run, and from members telling of members; bare addresses come
//! from the user and are nobody's until somebody answers. A member that is away is dialled for ever, less and less
//! often; a stranger that the gate turned away is left alone for a while, since mDNS names everybody's programs.

use super::address::{Target, rank};
use crate::farm::id::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// First wait between dials of one peer (DESIGN §5: a restarted peer is found again within seconds).
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between dials of one peer.
const BACKOFF_LAST: Duration = Duration::from_secs(15);
/// Longest wait between dials of a member that left a short while ago: a cut wire that heals is to be noticed.
const BACKOFF_MISSED: Duration = Duration::from_secs(2);
/// How long a member counts as having left a short while ago (guess: a reboot, a switch that restarts).
const MISSED_FOR: Duration = Duration::from_secs(5 * 60);
/// How long the node with the higher id leaves the first dial to the lower one (DESIGN §5).
const HIGHER_WAITS: Duration = Duration::from_secs(1);
/// How long a stranger is left alone (DESIGN §5).
const STRANGER_REST: Duration = Duration::from_secs(10 * 60);
/// Two connections younger apart than this are crossed dials (guess: a dial takes far less).
const CROSSED: Duration = Duration::from_secs(5);
/// Most nodes remembered (DESIGN §9 aims at 500).
const MAX_NODES: usize = 2048;
/// Most addresses remembered of a node (a workstation has two or three networks, IPv4 and IPv6 on each).
const MAX_ADDRESSES: usize = 12;
/// Most bare addresses.
const MAX_BARE: usize = 256;

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// Nobody there, or the exchange broke.
    Unreachable,
    /// Encrypted, but then broke off: a member on its way down, or another program.
    BrokeOff,
    /// Another swarm, or another wire version.
    Stranger,
}

/// One dial to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    Node { node: NodeId, addresses: Vec<SocketAddr> },
    Bare { target: Target },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled then.
    Due(Instant),
    Dialling,
    Connected,
}

#[derive(Debug)]
struct Peer {
    /// Best first within a rank: the newest, and those that worked.
    addresses: Vec<SocketAddr>,
    /// Whether it ever proved the key, or was in the table.
    member: bool,
    state: State,
    failures: u32,
    /// When its last connection ended.
    left: Option<Instant>,
    /// The next dial goes to the late addresses.
    late: bool,
}

#[derive(Debug)]
struct Bare {
    target: Target,
    node: Option<NodeId>,
    state: State,
    failures: u32,
}

/// Everyone we may dial.
#[derive(Debug)]
pub(super) struct Table {
    me: NodeId,
    peers: BTreeMap<NodeId, Peer>,
    bare: Vec<Bare>,
}

impl Table {
    pub(super) fn new(me: NodeId) -> Self {
        Self { me, peers: BTreeMap::new(), bare: Vec::new() }
    }

    /// mDNS says that `node` is at `at`.
    pub(super) fn discovered(&mut self, node: NodeId, at: SocketAddr, now: Instant) {
        self.heard_of(node, at, false, now);
        // A member that is away gives a sign of life.
        if let Some(Peer { member: true, state: State::Due(due), .. }) = self.peers.get_mut(&node) {
            *due = (*due).min(now + if self.me > node { HIGHER_WAITS } else { Duration::ZERO });
        }
    }

    /// A member, or the table of an earlier run, says that the member `node` is at `at`.
    pub(super) fn told(&mut self, node: NodeId, at: SocketAddr, now: Instant) {
        self.heard_of(node, at, true, now);
    }

    fn heard_of(&mut self, node: NodeId, at: SocketAddr, member: bool, now: Instant) {
        if node == self.me || (self.peers.len() >= MAX_NODES && !self.peers.contains_key(&node)) {
            return;
        }
        let first = now + if self.me > node { HIGHER_WAITS } else { Duration::ZERO };
        let peer = self.peers.entry(node).or_insert_with(|| Peer {
            addresses: Vec::new(),
            member,
            state: State::Due(first),
            failures: 0,
            left: None,
            late: false,
        });
        let rested = peer.member || peer.failures == 0;
        peer.member |= member;
        let known = peer.addresses.contains(&at);
        if !known {
            // Hearsay comes after what worked last.
            peer.addresses.insert(peer.addresses.len().min(1), at);
            peer.addresses.truncate(MAX_ADDRESSES);
        }
        // A new address of a member that is away is worth a dial now; what is known already keeps its pace.
        if let State::Due(due) = peer.state
            && !known
            && rested
        {
            peer.state = State::Due(due.min(first));
        }
    }

    /// mDNS no longer hears of `node` at `at`.
    pub(super) fn expired(&mut self, node: NodeId, at: SocketAddr, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node)
            && !peer.member
        {
            peer.addresses.retain(|known| *known != at);
            // Who is to be left alone is remembered for as long.
            let resting = matches!(peer.state, State::Due(due) if due > now + BACKOFF_LAST);
            if peer.addresses.is_empty() && peer.state != State::Dialling && !resting {
                self.peers.remove(&node);
            }
        }
    }

    /// Somebody answers at `target`, the user says. False when there is no more room.
    pub(super) fn add_bare(&mut self, target: Target, now: Instant) -> bool {
        if let Some(bare) = self.bare.iter_mut().find(|bare| bare.target == target) {
            if let State::Due(due) = bare.state {
                bare.state = State::Due(due.min(now));
            }
            return true;
        }
        if self.bare.len() >= MAX_BARE {
            return false;
        }
        self.bare.push(Bare { target, node: None, state: State::Due(now), failures: 0 });
        true
    }

    /// What to dial now, at most `room`; each is then under way until its outcome is told.
    pub(super) fn take_due(&mut self, now: Instant, room: usize) -> Vec<Dial> {
        let mut dials = Vec::new();
        for (node, peer) in &mut self.peers {
            if dials.len() >= room {
                return dials;
            }
            if !matches!(peer.state, State::Due(due) if due <= now) || peer.addresses.is_empty() {
                continue;
            }
            let early = peer.addresses.iter().any(|at| rank(at.ip()) == 0);
            let late = peer.addresses.iter().any(|at| rank(at.ip()) != 0);
            peer.late = late && (peer.late || !early);
            let addresses = peer.in_order().into_iter().filter(|at| (rank(at.ip()) != 0) == peer.late).collect();
            peer.state = State::Dialling;
            dials.push(Dial::Node { node: *node, addresses });
        }
        for bare in &mut self.bare {
            let connected = bare.node.and_then(|node| self.peers.get(&node));
            let connected = connected.is_some_and(|peer| peer.state == State::Connected);
            if matches!(bare.state, State::Due(due) if due <= now) && !connected && dials.len() < room {
                bare.state = State::Dialling;
                dials.push(Dial::Bare { target: bare.target.clone() });
            }
        }
        dials
    }

    /// A dial of `node` failed. `jitter` is uniform in 0..1.
    pub(super) fn missed(&mut self, node: NodeId, miss: Miss, now: Instant, jitter: f64) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.state != State::Dialling {
            return;
        }
        let late_left = !peer.late && peer.addresses.iter().any(|at| rank(at.ip()) != 0);
        if miss == Miss::Unreachable && late_left {
            peer.late = true;
            peer.state = State::Due(now);
            return;
        }
        peer.late = false;
        let stranger = miss == Miss::Stranger || (miss == Miss::BrokeOff && !peer.member);
        peer.failures += 1;
        let missed = peer.left.is_some_and(|left| now.duration_since(left) < MISSED_FOR);
        let longest = if missed { BACKOFF_MISSED } else { BACKOFF_LAST };
        let wait = if stranger { STRANGER_REST } else { backoff(peer.failures, longest, jitter) };
        peer.state = State::Due(now + wait);
    }

    /// A dial of `target` failed.
    pub(super) fn missed_bare(&mut self, target: &Target, now: Instant, jitter: f64) {
        if let Some(bare) = self.bare.iter_mut().find(|bare| bare.target == *target) {
            bare.failures += 1;
            bare.state = State::Due(now + backoff(bare.failures, BACKOFF_LAST, jitter));
        }
    }

    /// `target` turned out to be this very node.
    pub(super) fn is_me(&mut self, target: &Target) {
        self.bare.retain(|bare| bare.target != *target);
    }

    /// `node` was reached through `target`.
    pub(super) fn is_node(&mut self, target: &Target, node: NodeId, now: Instant) {
        if let Some(bare) = self.bare.iter_mut().find(|bare| bare.target == *target) {
            bare.node = Some(node);
            bare.failures = 0;
            bare.state = State::Due(now + BACKOFF_FIRST);
        }
    }

    /// Somebody else than `node` is at `at`.
    pub(super) fn not_there(&mut self, node: NodeId, at: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.addresses.retain(|known| *known != at);
        }
    }

    /// `node` is connected, and can be dialled at `at`.
    pub(super) fn connected(&mut self, node: NodeId, at: SocketAddr) {
        if self.peers.len() >= MAX_NODES && !self.peers.contains_key(&node) {
            let stranger = self.peers.iter().find(|(_, peer)| !peer.member).map(|(node, _)| *node);
            stranger.map(|node| self.peers.remove(&node));
        }
        let peer = self.peers.entry(node).or_insert_with(|| Peer {
            addresses: Vec::new(),
            member: true,
            state: State::Connected,
            failures: 0,
            left: None,
            late: false,
        });
        peer.prefer(at);
        (peer.member, peer.state, peer.failures, peer.late) = (true, State::Connected, 0, false);
    }

    /// `node` is no longer connected.
    pub(super) fn disconnected(&mut self, node: NodeId, now: Instant, jitter: f64) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.state == State::Connected
        {
            let turn = if self.me > node { HIGHER_WAITS } else { Duration::ZERO };
            peer.state = State::Due(now + turn + BACKOFF_FIRST.mul_f64(jitter));
            peer.left = Some(now);
        }
        for bare in self.bare.iter_mut().filter(|bare| bare.node == Some(node)) {
            if let State::Due(due) = bare.state {
                bare.state = State::Due(due.max(now + BACKOFF_FIRST));
            }
        }
    }

    /// Where `node` can be dialled, best first.
    pub(super) fn addresses(&self, node: NodeId) -> Vec<SocketAddr> {
        self.peers.get(&node).map(Peer::in_order).unwrap_or_default()
    }

    /// Whether `node` ever proved the key.
    pub(super) fn is_member(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.member)
    }

    /// Members and where they can be dialled, best first: what is worth keeping for the next run.
    pub(super) fn members(&self) -> impl Iterator<Item = (NodeId, Vec<SocketAddr>)> {
        self.peers.iter().filter(|(_, peer)| peer.member).map(|(node, peer)| (*node, peer.in_order()))
    }
}

impl Peer {
    fn prefer(&mut self, at: SocketAddr) {
        self.addresses.retain(|known| *known != at);
        self.addresses.insert(0, at);
        self.addresses.truncate(MAX_ADDRESSES);
    }

    fn in_order(&self) -> Vec<SocketAddr> {
        let mut addresses = self.addresses.clone();
        addresses.sort_by_key(|at| rank(at.ip()));
        addresses
    }
}

fn backoff(failures: u32, longest: Duration, jitter: f64) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(6));
    doubled.min(longest).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// What decides between two connections to one run of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender {
    /// Who dialled it.
    pub(super) dialler: NodeId,
    /// When the gate opened.
    pub(super) since: Instant,
}

/// Whether `new` takes the place of `kept`. Both ends come to the same answer.
///
/// Of crossed dials the one by the lower id stays. Otherwise the newer one: nobody dials while connected, so the other
/// side has lost the old one.
pub(super) fn replaces(kept: Contender, new: Contender) -> bool {
    let apart = new.since.saturating_duration_since(kept.since);
    if kept.dialler != new.dialler && apart < CROSSED { new.dialler < kept.dialler } else { true }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LOW: NodeId = NodeId([1; 32]);
    const HIGH: NodeId = NodeId([9; 32]);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[allow(clippy::disallowed_methods, reason = "one fixed start; no test depends on what it is")]
    fn after(seconds: f64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn the_lower_id_dials_a_discovered_peer_at_once_and_the_higher_a_second_later() {
        let mut low = Table::new(LOW);
        low.discovered(HIGH, at("10.0.0.1:1"), after(0.0));
        assert_eq!(low.take_due(after(0.0), 9).len(), 1);
        let mut high = Table::new(HIGH);
        high.discovered(LOW, at("10.0.0.1:1"), after(0.0));
        assert!(high.take_due(after(0.9), 9).is_empty());
        assert_eq!(high.take_due(after(1.0), 9).len(), 1);
        assert!(high.take_due(after(99.0), 9).is_empty(), "one dial at a time");
    }

    #[test]
    fn a_stranger_is_dialled_once_and_rests_ten_minutes_even_when_heard_of_again() {
        let mut table = Table::new(LOW);
        table.discovered(HIGH, at("10.0.0.1:1"), after(0.0));
        table.take_due(after(0.0), 9);
        table.missed(HIGH, Miss::BrokeOff, after(0.0), 0.5);
        table.discovered(HIGH, at("10.0.0.2:1"), after(1.0));
        for address in ["10.0.0.1:1", "10.0.0.2:1"] {
            table.expired(HIGH, at(address), after(100.0));
            table.discovered(HIGH, at(address), after(200.0));
        }
        assert!(table.take_due(after(599.0), 9).is_empty());
        assert_eq!(table.take_due(after(601.0), 9).len(), 1);
    }

    #[test]
    fn a_member_that_is_away_is_dialled_for_ever_at_most_nineteen_seconds_apart() {
        let mut table = Table::new(LOW);
        table.told(HIGH, at("10.0.0.1:1"), after(0.0));
        let (mut now, mut waits) = (0.0, Vec::new());
        for _ in 0..20 {
            let start = now;
            while table.take_due(after(now), 9).is_empty() {
                now += 0.1;
            }
            waits.push(now - start);
            table.missed(HIGH, Miss::BrokeOff, after(now), 1.0);
        }
        assert!(waits[1] < 1.0 && waits.iter().all(|wait| *wait < 19.0), "{waits:?}");
        // It comes back elsewhere: dialled at once.
        table.discovered(HIGH, at("10.0.0.7:2"), after(now));
        assert_eq!(table.take_due(after(now), 9).len(), 1);
    }

    #[test]
    fn vpn_addresses_are_dialled_only_after_the_others_failed() {
        let mut table = Table::new(LOW);
        table.told(HIGH, at("100.64.0.1:1"), after(0.0));
        table.told(HIGH, at("10.0.0.1:1"), after(0.0));
        let dialled = |table: &mut Table| table.take_due(after(0.0), 9);
        let node = |addresses| vec![Dial::Node { node: HIGH, addresses }];
        assert_eq!(dialled(&mut table), node(vec![at("10.0.0.1:1")]));
        table.missed(HIGH, Miss::Unreachable, after(0.0), 0.5);
        assert_eq!(dialled(&mut table), node(vec![at("100.64.0.1:1")]));
        table.missed(HIGH, Miss::Unreachable, after(0.0), 0.5);
        assert!(dialled(&mut table).is_empty());
    }

    #[test]
    fn both_ends_keep_the_same_one_of_two_crossed_connections() {
        let by = |dialler, since| Contender { dialler, since: after(since) };
        // Either may be the first to be greeted at either end.
        assert!(replaces(by(HIGH, 0.0), by(LOW, 0.4)) && replaces(by(HIGH, 0.4), by(LOW, 0.0)));
        assert!(!replaces(by(LOW, 0.0), by(HIGH, 0.4)) && !replaces(by(LOW, 0.4), by(HIGH, 0.0)));
        // Much later, or by the same dialler: the other side lost the old one.
        assert!(replaces(by(LOW, 0.0), by(HIGH, 60.0)) && replaces(by(LOW, 0.0), by(LOW, 0.1)));
    }

    #[test]
    fn a_member_that_left_is_dialled_every_two_seconds_and_at_once_when_it_is_heard_again() {
        let mut table = Table::new(LOW);
        table.connected(HIGH, at("10.0.0.1:1"));
        table.disconnected(HIGH, after(0.0), 0.0);
        for second in 0..10 {
            let now = 3.0 * f64::from(second);
            assert_eq!(table.take_due(after(now), 9).len(), 1, "{now}");
            table.missed(HIGH, Miss::Unreachable, after(now), 1.0);
        }
        assert!(table.take_due(after(28.0), 9).is_empty());
        table.discovered(HIGH, at("10.0.0.1:1"), after(28.0));
        assert_eq!(table.take_due(after(28.0), 9).len(), 1);
    }

    #[test]
    fn a_bare_address_is_dialled_again_only_while_its_node_is_away() {
        let mut table = Table::new(LOW);
        let target: Target = "10.0.0.1:1".parse().unwrap();
        assert!(table.add_bare(target.clone(), after(0.0)));
        assert_eq!(table.take_due(after(0.0), 9), vec![Dial::Bare { target: target.clone() }]);
        table.is_node(&target, HIGH, after(0.0));
        table.connected(HIGH, at("10.0.0.1:1"));
        assert!(table.take_due(after(100.0), 9).is_empty());
        table.disconnected(HIGH, after(100.0), 0.0);
        assert_eq!(table.take_due(after(101.0), 9).len(), 2, "by name and by address");
        table.is_me(&target);
        table.missed(HIGH, Miss::Unreachable, after(101.0), 0.0);
        assert_eq!(table.take_due(after(120.0), 9).len(), 1);
    }
}
