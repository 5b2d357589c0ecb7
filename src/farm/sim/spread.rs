//! How ops spread: who has heard of what.

use super::World;
use super::machine::Machine;
use crate::farm::message::Suffix;
use std::time::Duration;

/// An own op on its way to everyone.
pub(super) struct Spread {
    /// When the last thing that kept it from spreading ended.
    pub since: Duration,
    /// By machine: whether it lacks it, and can hear of it.
    lacking: Vec<bool>,
    /// How many do.
    left: usize,
}

impl Spread {
    pub fn new(since: Duration, lacking: Vec<bool>) -> Self {
        let left = lacking.iter().filter(|lacks| **lacks).count();
        Self { since, lacking, left }
    }

    /// A machine has it now, or can hear of nothing.
    fn forget(&mut self, i: usize) {
        self.left -= usize::from(std::mem::take(&mut self.lacking[i]));
    }
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
            if !spread.lacking[i] || seq >= known(&self.machines[i]) {
                continue;
            }
            spread.forget(i);
            if spread.left == 0 {
                self.report.spread.push(self.now - spread.since);
                self.spreading.remove(&key);
            }
        }
    }

    /// A machine can hear of nothing for a while, nor others of what it says.
    pub(super) fn spread_without(&mut self, i: usize) {
        let node = self.machines[i].node;
        self.spreading.retain(|(_, actor, _), spread| {
            spread.forget(i);
            actor.node != node && spread.left > 0
        });
    }

    /// What kept ops from spreading is over.
    pub(super) fn spread_anew(&mut self) {
        self.spreading.values_mut().for_each(|spread| spread.since = self.now);
    }
}
