//! How ops spread: who has heard of what.

use super::World;
use super::machine::Machine;
use crate::farm::message::Suffix;
use std::collections::BTreeSet;
use std::time::Duration;

/// An own op on its way to everyone.
pub(super) struct Spread {
    /// When the last thing that kept it from spreading ended.
    pub since: Duration,
    /// Who lacks it, of those that can hear of it.
    pub lacking: BTreeSet<usize>,
}

impl World {
    /// Notes which ops of those told a machine has now.
    pub(super) fn follow(&mut self, i: usize, suffix: &Suffix) {
        let (log, actor) = (suffix.log, suffix.actor);
        let told = suffix.from..suffix.from.saturating_add(suffix.ops.len() as u64);
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
