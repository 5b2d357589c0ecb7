//! Making a failure small: whatever can be left out while the same invariant still breaks is left out.
//!
//! Greedy, after Zeller's delta debugging: each kind of fault off, then fewer jobs, frames and machines and less time. What
//! is left out changes what is drawn, so that each simpler scenario is tried with a few seeds.

use super::scenario::{Faults, Scenario};
use super::{Invariant, Violation, run, run_logged};
use std::time::Duration;

/// Seeds each simpler scenario is tried with.
const SEEDS: u64 = 12;
/// Most simulations in all.
const MAX_RUNS: usize = 600;

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

const STEPS: [Step; 28] = [
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
    |s| s.faults.command = None,
    |s| s.faults.lie = None,
    |s| s.liars = 0,
    |s| s.misfits = 0,
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
    let (mut best, mut best_seed, mut runs) = (scenario.clone(), seed, 1);
    loop {
        let before = best.clone();
        for step in STEPS {
            // The same step again and again, as long as it helps.
            while runs < MAX_RUNS {
                let mut simpler = best.clone();
                step(&mut simpler);
                if simpler == best
                    || simpler.faults.until < Duration::from_secs(4) && simpler.faults != Faults::default()
                {
                    break;
                }
                let Some(seed) = breaks(&simpler, best_seed, invariant, &mut runs) else { break };
                (best, best_seed) = (simpler, seed);
            }
        }
        if best == before || runs >= MAX_RUNS {
            break;
        }
    }
    let (report, events) = run_logged(&best, best_seed);
    Some(Shrunk { scenario: best, seed: best_seed, violation: report.violation?, events, runs: runs + 1 })
}

/// A seed, this one first, with which the scenario breaks the invariant.
fn breaks(scenario: &Scenario, seed: u64, invariant: Invariant, runs: &mut usize) -> Option<u64> {
    std::iter::once(seed).chain(0..SEEDS).find(|seed| {
        *runs += 1;
        run(scenario, *seed).violation.is_some_and(|violation| violation.invariant == invariant)
    })
}
