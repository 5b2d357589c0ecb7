//! Simulated links: like TCP connections that drop what a full queue would, and that notice late when they are cut.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One connection. Each end notices its end by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Tells it from earlier ones of the same two machines.
    pub serial: u64,
    /// Whether the lower and the higher end take it for open.
    pub open: [bool; 2],
    /// Arrival of the last message towards the lower and the higher end: streams keep their order.
    last: [Duration; 2],
}

#[derive(Default)]
pub(super) struct Network {
    /// Per pair of machines, lower then higher: see [`Network::at`].
    links: Vec<Option<Link>>,
    machines: usize,
    open: usize,
    /// Which side of a cut each machine is on.
    side: Vec<u32>,
    /// From whom nothing reaches whom.
    deaf: BTreeSet<(usize, usize)>,
    /// Per machine, whom it has (half of) a connection with.
    peers: Vec<BTreeMap<usize, u64>>,
    serial: u64,
}

impl Network {
    pub fn new(machines: usize) -> Self {
        Self {
            links: vec![None; machines * machines],
            machines,
            open: 0,
            side: vec![0; machines],
            deaf: BTreeSet::new(),
            peers: vec![BTreeMap::new(); machines],
            serial: 0,
        }
    }

    fn at(&self, a: usize, b: usize) -> usize {
        a.min(b) * self.machines + a.max(b)
    }

    /// Whether what one sends gets to the other.
    pub fn carries(&self, from: usize, to: usize) -> bool {
        self.side[from] == self.side[to] && !self.deaf.contains(&(from, to))
    }

    /// Whether each reaches the other.
    pub fn reaches(&self, a: usize, b: usize) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    /// Nothing of the one gets to the other any more, or everything again.
    pub fn deafen(&mut self, from: usize, to: usize, deaf: bool) {
        match deaf {
            true => self.deaf.insert((from, to)),
            false => self.deaf.remove(&(from, to)),
        };
    }

    /// Connections there are.
    pub fn count(&self) -> usize {
        self.open
    }

    pub fn cut(&mut self, sides: Vec<u32>) {
        self.side = sides;
    }

    pub fn heal(&mut self) {
        self.side.fill(0);
    }

    /// Every link works both ways again.
    pub fn hear(&mut self) {
        self.deaf.clear();
    }

    pub fn connect(&mut self, a: usize, b: usize) -> u64 {
        self.serial += 1;
        let link = Link { serial: self.serial, open: [true; 2], last: [Duration::ZERO; 2] };
        let at = self.at(a, b);
        self.open += usize::from(self.links[at].replace(link).is_none());
        self.peers[a].insert(b, self.serial);
        self.peers[b].insert(a, self.serial);
        self.serial
    }

    /// Whether `me` takes its connection to `other` for open: its serial number.
    pub fn open_at(&self, me: usize, other: usize) -> Option<u64> {
        let link = self.links[self.at(me, other)]?;
        link.open[usize::from(me > other)].then_some(link.serial)
    }

    /// Closes one end of the connection of this number; whether it was open. Gone when both are closed.
    pub fn close_at(&mut self, me: usize, other: usize, serial: u64) -> bool {
        let at = self.at(me, other);
        let Some(link) = self.links[at].as_mut().filter(|link| link.serial == serial) else {
            return false;
        };
        let was_open = std::mem::replace(&mut link.open[usize::from(me > other)], false);
        if link.open == [false; 2] {
            self.links[at] = None;
            self.open -= 1;
            self.peers[me].remove(&other);
            self.peers[other].remove(&me);
        }
        was_open
    }

    /// When something sent now after `delay` arrives; in order unless it overtakes.
    pub fn arrival(&mut self, from: usize, to: usize, at: Duration, overtakes: bool) -> Duration {
        let place = self.at(from, to);
        let Some(link) = &mut self.links[place] else { return at };
        let last = &mut link.last[usize::from(to > from)];
        if overtakes {
            return at;
        }
        *last = at.max(*last);
        *last
    }

    /// How many machines one has (half of) a connection with.
    pub fn peer_count(&self, me: usize) -> usize {
        self.peers[me].len()
    }

    /// Everyone a machine has (half of) a connection with, and which.
    pub fn peers(&self, me: usize) -> Vec<(usize, u64)> {
        self.peers[me].iter().map(|(other, serial)| (*other, *serial)).collect()
    }
}

/// Who is to be connected with whom: everyone with everyone. Whom it talks to is the farm's affair.
pub(super) fn topology(machines: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..machines).flat_map(move |a| (a + 1..machines).map(move |b| (a, b)))
}
