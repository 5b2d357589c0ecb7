//! In which order the units of a job are looked at, and how it is cut.

use super::id::Unit;
use super::job::JobSpec;
use super::rules::{Chunk, MAX_CHUNK, Order, Rules};
use super::state::JobState;

/// The open units to look at, as the job's order has them: `window` of them, or, where the order matters more than that
/// machines rarely meet, as many as there are slots; so many claims of a fixed size.
pub(super) fn in_order(job: &JobState, is_open: impl Fn(Unit) -> bool, window: usize, slots: usize) -> Vec<Unit> {
    let open = job.unfinished().iter().copied().filter(|unit| is_open(*unit));
    let count = match job.rules().chunk {
        Chunk::Auto => 1,
        Chunk::Units(count) => count as usize,
        Chunk::All => return open.take(MAX_CHUNK as usize).collect(),
    };
    let (window, slots) = (window.saturating_mul(count), slots.max(1).saturating_mul(count));
    match job.rules().order {
        Order::Spread => open.take(window).collect(),
        Order::Forward => open.take(slots).collect(),
        Order::FirstLastMiddle => job.first_last_middle().filter(|unit| is_open(*unit)).take(slots).collect(),
    }
}

/// In how many units each place of [`depth`] is, if a job is looked at in that order.
pub(super) fn places(rules: &Rules) -> Option<usize> {
    let count = match rules.chunk {
        Chunk::Auto => 1,
        Chunk::Units(count) => count.max(1) as usize,
        Chunk::All => return None,
    };
    (rules.order == Order::FirstLastMiddle).then_some(count)
}

/// How deep a unit of a job lies: first come the ends, then the middle, then the middles between.
pub(super) fn depth(spec: &JobSpec, count: usize, unit: Unit) -> Option<u32> {
    let last = spec.frames.len().saturating_sub(1) / count;
    spec.frames.position(unit.frame).map(|at| halvings(at / count, last))
}

/// How often the places `0 ..= last` are halved until `at` is hit: the ends come first, then the middle.
fn halvings(at: usize, last: usize) -> u32 {
    let (mut from, mut to, mut depth) = (0, last, 1);
    if at == from {
        return 0;
    }
    while at != to {
        let middle = from.midpoint(to);
        depth += 1;
        match at.cmp(&middle) {
            std::cmp::Ordering::Equal => break,
            std::cmp::Ordering::Less => to = middle,
            std::cmp::Ordering::Greater => from = middle,
        }
    }
    depth
}

/// The unit whose strength counts for `unit`: its own, or with claims of a fixed size the first of its claim, so that
/// everyone cuts the job the same way.
pub(super) fn lot(job: &JobState, unit: Unit) -> Unit {
    let (Chunk::Units(count), Some(spec)) = (job.rules().chunk, &job.spec) else { return unit };
    let count = count.max(1) as usize;
    let first = spec.frames.position(unit.frame).and_then(|at| spec.frames.nth(at / count * count));
    first.map_or(unit, |frame| Unit { frame, part: unit.part })
}
