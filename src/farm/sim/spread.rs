//! How ops spread: who has heard of what.

use super::World;
use super::machine::Machine;
use crate::farm::id::ActorId;
use crate::farm::message::{LogId, Message, Suffix};
use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

/// An own op on its way to everyone.
pub(super) struct Spread {
    /// When the last thing that kept it from spreading ended.
    pub since: Duration,
    /// Who lacks it, of those that can hear of it.
    pub lacking: BTreeSet<usize>,
}

impl World {
    /// Whether a message tells a machine of ops that it does not have.
    pub(super) fn brings_news(&self, to: usize, message: &Message) -> bool {
        let Message::Push(suffixes) = message else { return false };
        let known = |suffix: &Suffix| {
            self.machines[to].farm.as_ref().map_or(0, |farm| farm.ledger().length(suffix.log, suffix.actor))
        };
        suffixes.iter().any(|suffix| range_of(suffix).end > known(suffix))
    }

    /// Notes which ops of those told a machine has now.
    pub(super) fn follow(&mut self, i: usize, log: LogId, actor: ActorId, told: Range<u64>) {
        let known = |machine: &Machine| machine.farm.as_ref().map_or(0, |farm| farm.ledger().length(log, actor));
        for seq in told {
            let key = (log, actor, seq);
            let Some(spread) = self.spreading.get_mut(&key) else { continue };
            if !spread.lacking.contains(&i) || seq >= known(&self.machines[i]) {
                continue;
            }
            spread.lacking.remove(&i);
            if spread.lacking.is_empty() {
                self.report.spread.push(self.now - spread.since);
                self.spreading.remove(&key);
            }
        }
    }

    /// A machine can hear of nothing for a while, nor others of what it says.
    pub(super) fn spread_without(&mut self, i: usize) {
        let node = self.machines[i].node;
        self.spreading.retain(|(_, actor, _), spread| {
            spread.lacking.remove(&i);
            actor.node != node && !spread.lacking.is_empty()
        });
    }

    /// What kept ops from spreading is over.
    pub(super) fn spread_anew(&mut self) {
        self.spreading.values_mut().for_each(|spread| spread.since = self.now);
    }
}

/// Sequence numbers of the ops in a suffix.
pub(super) fn range_of(suffix: &Suffix) -> Range<u64> {
    suffix.from..suffix.from.saturating_add(suffix.ops.len() as u64)
}
