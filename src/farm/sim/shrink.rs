//! Making a failure small: whatever can be left out while the same invariant still breaks is left out.
//!
//! Greedy, after Zeller's delta debugging: each kind of fault off, then fewer jobs, frames and machines and less time. What
//! is left out changes what is drawn, so that each simpler scenario is tried with a few seeds.

use super::scenario::Scenario;
use super::{Invariant, Violation, run, run_logged};
use std::time::Duration;

/// No time of faults is made shorter than this.
const SHORTEST: Duration = Duration::from_secs(4);
/// Seeds each simpler scenario is tried with.
const SEEDS: u64 = 12;
/// Most inputs handled in all: a minute or two.
const MAX_INPUTS: u64 = 6_000_000;
/// Events told of the smallest.
const EVENTS: usize = 60;

/// A failure made small.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left of the scenario.
    pub scenario: Scenario,
    /// With which seed it breaks.
    pub seed: u64,
    /// How.
    pub violation: Violation,
    /// The last things that happened.
    pub events: Vec<String>,
    /// Simulations it took.
    pub runs: usize,
}

/// A way to leave something out.
type Step = fn(&mut Scenario);

const STEPS: [Step; 31] = [
    |s| s.faults.loss_ppm = 0,
    |s| s.faults.duplicate_ppm = 0,
    |s| s.faults.overtake_ppm = 0,
    |s| s.faults.failure_ppm = 0,
    |s| s.faults.delivery_ppm = 0,
    |s| s.faults.torn_ppm = 0,
    |s| s.faults.unsynced = false,
    |s| s.faults.crash = None,
    |s| s.faults.partition = None,
    |s| s.faults.split = None,
    |s| s.faults.one_way = None,
    |s| s.faults.suspend = None,
    |s| s.faults.pause = None,
    |s| s.faults.owner = None,
    |s| s.faults.drain = None,
    |s| s.faults.late = None,
    |s| s.faults.slow_disk = None,
    |s| s.faults.full_disk = None,
    |s| s.faults.gone = None,
    |s| s.faults.command = None,
    |s| s.faults.lie = None,
    |s| s.liars = 0,
    |s| s.misfits = 0,
    |s| s.rules = false,
    |s| s.few = None,
    |s| s.chat = None,
    |s| s.sigma = 0.0,
    |s| s.jobs = (s.jobs / 2).max(1),
    |s| s.frames = (s.frames / 2).max(1),
    |s| s.nodes = (s.nodes - 1).max(2 + s.liars),
    |s| s.faults.until = s.faults.until / 4 * 3,
];

/// The smallest scenario found in which what `seed` breaks in `scenario` still breaks; `None` when it breaks nothing.
pub fn shrink(scenario: &Scenario, seed: u64) -> Option<Shrunk> {
    let invariant = run(scenario, seed).violation?.invariant;
    let mut search = Search { invariant, runs: 1, inputs: 0 };
    let (mut best, mut best_seed) = (scenario.clone(), seed);
    loop {
        let before = best.clone();
        for step in STEPS {
            // The same step again and again, as long as it helps.
            loop {
                let mut simpler = best.clone();
                step(&mut simpler);
                if simpler == best || simpler.faults.until < SHORTEST && !simpler.is_calm() {
                    break;
                }
                let Some(seed) = search.breaks(&simpler, best_seed) else { break };
                (best, best_seed) = (simpler, seed);
            }
        }
        if best == before || search.inputs >= MAX_INPUTS {
            break;
        }
    }
    let (report, events) = run_logged(&best, best_seed, EVENTS);
    Some(Shrunk { scenario: best, seed: best_seed, violation: report.violation?, events, runs: search.runs + 1 })
}

struct Search {
    invariant: Invariant,
    runs: usize,
    inputs: u64,
}

impl Search {
    /// A seed, this one first, with which the scenario breaks the invariant.
    fn breaks(&mut self, scenario: &Scenario, seed: u64) -> Option<u64> {
        std::iter::once(seed).chain(0..SEEDS).find(|seed| {
            if self.inputs >= MAX_INPUTS {
                return false;
            }
            let report = run(scenario, *seed);
            self.runs += 1;
            self.inputs += report.inputs;
            report.violation.is_some_and(|violation| violation.invariant == self.invariant)
        })
    }
}
