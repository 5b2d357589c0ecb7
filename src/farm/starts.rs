//! What is known of each start of a member: whose it is, and how far it has counted its heartbeats.

use super::config::{BEATS_AHEAD, DOUBT_AFTER, SUSPECT_AFTER, TICK};
use super::id::BootId;
use std::time::Duration;

/// Of one start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Whose: its place among the members.
    pub member: usize,
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
    /// Of each, whether that heartbeat is to be handed on.
    news: Vec<bool>,
    /// Whether any is.
    has_news: bool,
}

impl Starts {
    /// A start that was not known, or is known anew.
    pub fn insert(&mut self, boot: BootId, start: Start) {
        match self.boots.binary_search(&boot) {
            Ok(place) => (self.counters[place], self.starts[place], self.news[place]) = (0, start, false),
            Err(place) => {
                self.boots.insert(place, boot);
                self.counters.insert(place, 0);
                self.starts.insert(place, start);
                self.news.insert(place, false);
            }
        }
    }

    pub fn remove(&mut self, boot: BootId) {
        if let Ok(place) = self.boots.binary_search(&boot) {
            self.boots.remove(place);
            self.counters.remove(place);
            self.starts.remove(place);
            self.news.remove(place);
        }
    }

    /// A heartbeat of the member itself; whether it is news. One of another member's start, or an old one, says nothing.
    /// Only its own earlier ones make it old: whatever others told, the member knows better.
    pub fn told(&mut self, member: usize, boot: BootId, counter: u64, now: Duration) -> bool {
        let Ok(place) = self.boots.binary_search(&boot) else { return false };
        let start = &mut self.starts[place];
        let is_new = start.member == member && counter > start.told;
        if is_new {
            (start.at, start.told, self.counters[place]) = (now, counter, counter);
            (self.news[place], self.has_news) = (true, true);
        }
        is_new
    }

    /// Heartbeats as somebody else heard them, in ascending order of starts; `heard` is told of the members of whom that is
    /// news. Both lists are walked side by side; what is out of order is not found.
    pub fn relayed(&mut self, beats: &[(BootId, u64)], now: Duration, mut heard: impl FnMut(usize)) {
        let mut place = 0;
        for &(boot, counter) in beats {
            place += self.boots[place..].iter().take_while(|known| **known < boot).count();
            if self.boots.get(place) != Some(&boot) {
                continue;
            }
            let (known, start) = (&mut self.counters[place], &mut self.starts[place]);
            if *known != counter && start.is_news(*known, counter, now) {
                (*known, start.at) = (counter, now);
                (self.news[place], self.has_news) = (true, true);
                heard(start.member);
            }
            place += 1;
        }
    }

    /// Whether some are to be handed on.
    pub fn has_news(&self) -> bool {
        self.has_news
    }

    /// Those to be handed on, in ascending order of starts; no more than so many, the rest remains for the next time.
    pub fn take_news(&mut self, most: usize) -> Vec<(BootId, u64)> {
        let mut taken = Vec::new();
        let mut news = self.news.iter_mut().zip(self.boots.iter().zip(&self.counters)).filter(|(is_news, _)| **is_news);
        for (is_news, (boot, counter)) in news.by_ref().take(most) {
            *is_news = false;
            // As much as nothing is known, and whoever is told it would believe any other.
            taken.extend((*counter > 0).then_some((*boot, *counter)));
        }
        self.has_news = news.next().is_some();
        taken
    }

    /// None is to be handed on.
    pub fn drop_news(&mut self) {
        self.news.fill(false);
        self.has_news = false;
    }
}
