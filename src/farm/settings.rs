//! Settings of the whole swarm: what any member set for all.
//!
//! Each setting is a register in the swarm's own log; of all words about it the latest counts, by Lamport counter and
//! actor. So every machine that knows the same words has the same settings, whatever order they came in. A name that only a
//! later build knows is passed on and means nothing here; a value that only a later one can read outweighs earlier words
//! all the same, and reads as not set.

use super::id::ActorId;
use super::job::Series;
use super::op::Op;

/// The name of [`SwarmSetting::Series`] in the log.
const SERIES: &str = "series";

/// What can be set for the whole swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwarmSetting {
    /// The release series of Blender for jobs that ask for none; `None` leaves it to the file.
    Series(Option<Series>),
}

impl SwarmSetting {
    /// Its name and value, as the log has them.
    fn texts(self) -> (String, String) {
        let Self::Series(series) = self;
        (SERIES.into(), series.map(|series| series.to_string()).unwrap_or_default())
    }
}

/// When something was said, which orders words, and what.
type Word<T> = ((u64, ActorId), T);

/// The settings of the whole swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    lamport: u64,
    series: Option<Word<Option<Series>>>,
}

impl Settings {
    /// An actor said so. Words of one actor come in the order of its log.
    pub fn say(&mut self, by: ActorId, lamport: u64, key: &str, value: &str) {
        self.lamport = self.lamport.max(lamport);
        let at = (lamport, by);
        // Of an actor's own words with one counter the later counts.
        if key == SERIES && self.series.is_none_or(|(latest, _)| latest <= at) {
            self.series = Some((at, value.parse().ok()));
        }
    }

    /// The op that makes a setting, to outweigh all words known here.
    pub fn op(&self, setting: SwarmSetting) -> Op {
        let (key, value) = setting.texts();
        Op::Setting { lamport: self.lamport.saturating_add(1), key, value }
    }

    /// The release series for jobs that ask for none, if one is set.
    pub fn series(&self) -> Option<Series> {
        self.series?.1
    }

    /// Who said the word about the series that counts, also one that lifted it.
    pub fn series_by(&self) -> Option<ActorId> {
        Some(self.series?.0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::id::{BootId, NodeId};

    fn actor(n: u8) -> ActorId {
        ActorId { node: NodeId([n; 32]), boot: BootId([0; 8]) }
    }

    #[test]
    fn the_latest_word_counts_in_whatever_order_words_come_and_an_empty_one_lifts_it() {
        let words = [(1, 1, "3.4"), (2, 1, "4.5"), (1, 2, ""), (3, 0, "4.2")];
        for (count, expected) in [(1, Some("3.4")), (2, Some("4.5")), (3, None), (4, None)] {
            let mut orders = vec![(0..count).collect::<Vec<_>>(), (0..count).rev().collect()];
            orders[1].rotate_left(1);
            for order in orders {
                let mut settings = Settings::default();
                for at in order {
                    let (by, lamport, value) = words[at];
                    settings.say(actor(by), lamport, SERIES, value);
                }
                assert_eq!(settings.series().map(|series| series.to_string()).as_deref(), expected);
            }
        }
    }

    #[test]
    fn a_new_word_outweighs_all_that_were_heard() {
        let mut settings = Settings::default();
        settings.say(actor(9), 7, "of a later build", "anything");
        for series in ["4.5".parse().ok(), None, "3.4".parse().ok()] {
            let Op::Setting { lamport, key, value } = settings.op(SwarmSetting::Series(series)) else {
                unreachable!("a setting")
            };
            assert!(lamport > 7);
            settings.say(actor(1), lamport, &key, &value);
            assert_eq!((settings.series(), settings.series_by()), (series, Some(actor(1))));
        }
    }

    #[test]
    fn a_value_of_a_later_build_reads_as_not_set() {
        let mut settings = Settings::default();
        settings.say(actor(1), 1, SERIES, "4.5");
        settings.say(actor(2), 2, SERIES, "4.5 or later");
        assert_eq!((settings.series(), settings.series_by()), (None, Some(actor(2))));
    }
}
