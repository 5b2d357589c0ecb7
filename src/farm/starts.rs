//! What is known of each start of a member: whose it is, and how far it has counted its heartbeats.

use super::config::{BEATS_AHEAD, DOUBT_AFTER, SUSPECT_AFTER, TICK};
use super::id::{BootId, NodeId};
use std::time::Duration;

/// Of one start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Whose.
    pub node: NodeId,
    /// When its last heartbeat was heard of, on our clock; before the first, when the connection came to stand.
    pub at: Duration,
    /// Counter of the last heartbeat that came from the member itself; 0 before the first.
    pub told: u64,
}

impl Start {
    /// Whether a counter that somebody else tells of is a new sign of life of a start known to have counted to `known`.
    ///
    /// A true one is ahead of what is known, by no more than a member can have counted since. Whatever is further ahead is
    /// wrong and says nothing: believed, it would make every true one look old. One that is wrong by less is believed, and
    /// then the true ones seem to be behind. So after [`DOUBT_AFTER`] without news any other counter is believed, ahead or
    /// behind: two heartbeats of a member that lives still come before it would be taken for dead. Of one that is silent
    /// for [`SUSPECT_AFTER`] only a plausible one is, so that old words which were long on their way wake nobody.
    ///
    /// What this cannot tell is a member that makes up counters at the pace of true ones.
    fn is_news(&self, known: u64, counter: u64, now: Duration) -> bool {
        if known == 0 {
            return true;
        }
        let silence = now.saturating_sub(self.at);
        let ahead = silence.as_millis() as u64 / TICK.as_millis() as u64 + BEATS_AHEAD;
        counter.checked_sub(known).is_some_and(|by| by <= ahead) || (DOUBT_AFTER..SUSPECT_AFTER).contains(&silence)
    }
}

/// All of them.
///
/// A large swarm is full of heartbeats that others heard: of 500 members a machine is told 3,000 a second, and knows eleven
/// in twelve. So ids and counters lie close together, apart from all that only news is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Starts {
    /// Ascending.
    boots: Vec<BootId>,
    /// Of each, the counter of its last heartbeat, heard of the member or through others; 0 before the first.
    counters: Vec<u64>,
    starts: Vec<Start>,
}

impl Starts {
    /// A start that was not known, or is known anew.
    pub fn insert(&mut self, boot: BootId, start: Start) {
        match self.boots.binary_search(&boot) {
            Ok(place) => (self.counters[place], self.starts[place]) = (0, start),
            Err(place) => {
                self.boots.insert(place, boot);
                self.counters.insert(place, 0);
                self.starts.insert(place, start);
            }
        }
    }

    pub fn remove(&mut self, boot: BootId) {
        if let Ok(place) = self.boots.binary_search(&boot) {
            self.boots.remove(place);
            self.counters.remove(place);
            self.starts.remove(place);
        }
    }

    /// The counter of its last heartbeat, if there was one.
    pub fn counter(&self, boot: BootId) -> Option<u64> {
        let place = self.boots.binary_search(&boot).ok()?;
        Some(self.counters[place]).filter(|counter| *counter > 0)
    }

    /// A heartbeat of the member itself; whether it is news. One of another node's start, or an old one, says nothing. Only
    /// its own earlier ones make it old: whatever others told, the member knows better.
    pub fn told(&mut self, node: NodeId, boot: BootId, counter: u64, now: Duration) -> bool {
        let Ok(place) = self.boots.binary_search(&boot) else { return false };
        let start = &mut self.starts[place];
        let is_new = start.node == node && counter > start.told;
        if is_new {
            (start.at, start.told, self.counters[place]) = (now, counter, counter);
        }
        is_new
    }

    /// Heartbeats as somebody else heard them, in ascending order of starts; those that are news, and whose they are. Both
    /// lists are walked side by side; what is out of order is not found.
    pub fn relayed(&mut self, beats: &[(BootId, u64)], now: Duration) -> Vec<(BootId, NodeId)> {
        let (mut place, mut news) = (0, Vec::new());
        for &(boot, counter) in beats {
            place += self.boots[place..].iter().take_while(|known| **known < boot).count();
            if self.boots.get(place) != Some(&boot) {
                continue;
            }
            let (known, start) = (&mut self.counters[place], &mut self.starts[place]);
            if *known != counter && start.is_news(*known, counter, now) {
                (*known, start.at) = (counter, now);
                news.push((boot, start.node));
            }
            place += 1;
        }
        news
    }
}
