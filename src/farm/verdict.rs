//! How a unit or a job stands, as one machine sees it: who could render it, whether it failed, stopped or is done.
//!
//! The ledger alone says what happened; these also ask who is here.

use super::config::{ATTEMPTS_PER_NODE, STOP_FROM, STOP_PERCENT};
use super::fit::{could, suits_unit};
use super::id::{BlobId, NodeId, Unit};
use super::roster::Roster;
use super::state::JobState;
use super::unit::Outcome;
use std::collections::BTreeSet;
use std::time::Duration;

/// Nodes alive that can render a job, now or once what keeps them passes by itself.
pub fn eligible(job: &JobState, roster: &Roster, now: Duration) -> Vec<NodeId> {
    roster.alive(now).map(|(node, _)| node).filter(|node| could(roster, *node, job)).collect()
}

/// Those of them that can render a unit of it.
pub fn eligible_for(job: &JobState, unit: Unit, roster: &Roster, now: Duration) -> Vec<NodeId> {
    let mut nodes = eligible(job, roster, now);
    if job.is_revised() {
        nodes.retain(|node| suits_unit(roster, *node, job, unit));
    }
    nodes
}

/// Whether a unit is given up: attempts on as many nodes as the job's rules allow, or two by every node that could and,
/// should they have gone, by every node that tried.
pub fn is_failed(job: &JobState, unit: Unit, roster: &Roster, now: Duration) -> bool {
    let state = job.unit(unit);
    if state.has_result() || state.failures.is_empty() {
        return false;
    }
    let by: BTreeSet<NodeId> = state.current_failures().map(|(node, _)| node).collect();
    if by.len() >= job.rules().attempts() {
        return true;
    }
    let tried = !by.is_empty() && by.iter().all(|node| state.failures_of(*node) >= ATTEMPTS_PER_NODE);
    tried && eligible_for(job, unit, roster, now).iter().all(|node| state.failures_of(*node) >= ATTEMPTS_PER_NODE)
}

/// Whether so many units failed that the job stops.
pub fn is_stopped(job: &JobState, roster: &Roster, now: Duration) -> bool {
    let failed = job.failing().filter(|unit| is_failed(job, *unit, roster, now)).count();
    let total = job.spec.as_ref().map_or(0, |spec| spec.frames.len());
    failed >= STOP_FROM && failed * 100 >= total * STOP_PERCENT
}

/// Whether some live node holds every output of a result of the current epoch.
pub fn has_live_result(job: &JobState, unit: Unit, roster: &Roster, now: Duration) -> bool {
    job.unit(unit).current_results().any(|(_, outcome)| {
        outcome.outputs.iter().all(|output| job.holding(output.blob).any(|node| roster.is_alive(node, now)))
    })
}

/// Whether every file of a result is here or held by somebody, alive or away, at the last word of each.
fn is_held(job: &JobState, outcome: &Outcome, is_here: impl Fn(BlobId) -> bool) -> bool {
    outcome.outputs.iter().all(|output| is_here(output.blob) || job.holding(output.blob).next().is_some())
}

/// Whether a unit has results, and of each of them some file is neither here nor held by anybody any more.
pub fn is_lost(job: &JobState, unit: Unit, is_here: impl Fn(BlobId) -> bool) -> bool {
    let state = job.unit(unit);
    state.has_result() && !state.current_results().any(|(_, outcome)| is_held(job, outcome, &is_here))
}

/// Whether a unit is done: by the submitter's machine, or held by a second one; alone, by this machine's own word.
pub fn is_done(job: &JobState, unit: Unit, me: NodeId, alone: bool) -> bool {
    let owner = job.owner();
    job.unit(unit).current_results().any(|(actor, outcome)| {
        ((Some(actor.node) == owner || (alone && actor.node == me)) && is_held(job, outcome, |_| false))
            || (!outcome.outputs.is_empty()
                && outcome.outputs.iter().all(|output| job.holding(output.blob).nth(1).is_some()))
    }) || (job.collected.is_some_and(|(revision, _)| revision >= job.revision) && job.unit(unit).has_result())
}
