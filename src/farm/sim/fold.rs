//! A second, simpler reading of a job's ops, and folding them in other orders.

use super::{Invariant, World};
use crate::farm::id::{ActorId, BlobId, JobId, NodeId, Unit};
use crate::farm::op::{JobSetting, Op};
use crate::farm::state::JobState;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};

/// A job's ops, each actor's in order.
type Ops = BTreeMap<ActorId, Vec<(u64, Op)>>;

/// What all ops of a job say, whoever wrote them first.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reading {
    owner: Option<NodeId>,
    /// Units asked for that have no result of their highest epoch.
    unfinished: BTreeSet<Unit>,
    /// Highest epoch of each unit that is not the first.
    epochs: BTreeMap<Unit, u32>,
    is_paused: bool,
    priority: Option<u8>,
    is_canceled: bool,
    /// Who has what by the last word of each, but for blobs that nobody has.
    holders: BTreeMap<BlobId, BTreeSet<NodeId>>,
}

impl Reading {
    fn of(ops: &Ops) -> Self {
        let all = || ops.iter().flat_map(|(actor, ops)| ops.iter().map(move |(_, op)| (*actor, op)));
        let (mut reading, mut results) = (Self::default(), BTreeSet::new());
        let (mut paused, mut priority) = (BTreeMap::new(), BTreeMap::new());
        // Of each unit: which revision is the latest.
        let mut revisions: BTreeMap<Unit, (u32, ActorId, u64, u32)> = BTreeMap::new();
        for (actor, (seq, op)) in ops.iter().flat_map(|(actor, ops)| ops.iter().map(move |op| (*actor, op))) {
            if let Op::Revise { id, units, epoch, .. } = op {
                for unit in units.iter() {
                    let said = (*epoch, actor, *seq, *id);
                    let latest = revisions.entry(unit).or_insert(said);
                    *latest = said.max(*latest);
                }
            }
        }
        let mut raise = |unit: Unit, epoch: u32| {
            let highest = reading.epochs.entry(unit).or_default();
            *highest = epoch.max(*highest);
        };
        for (actor, op) in all() {
            match op {
                Op::Done { unit, epoch, revision, .. } => {
                    raise(*unit, *epoch);
                    results.insert((*unit, *epoch, *revision));
                }
                Op::Requeue { units, epoch, .. } | Op::Revise { units, epoch, .. } => {
                    units.iter().for_each(|unit| raise(unit, *epoch));
                }
                Op::Set { lamport, setting: JobSetting::Paused(value), .. } => {
                    paused.insert((*lamport, actor), *value);
                }
                Op::Set { lamport, setting: JobSetting::Priority(value), .. } => {
                    priority.insert((*lamport, actor), *value);
                }
                Op::Cancel { .. } => reading.is_canceled = true,
                _ => {}
            }
        }
        for (actor, op) in all() {
            // Actors come by node, and of a node by start.
            let (has, blobs) = match op {
                Op::Done { outputs, .. } => (true, outputs.iter().map(|output| output.blob).collect()),
                Op::Holds { blobs } => (true, blobs.clone()),
                Op::Drops { blobs } | Op::Lost { blobs } => (false, blobs.clone()),
                _ => (false, Vec::new()),
            };
            for blob in blobs {
                let holders = reading.holders.entry(blob).or_default();
                if has {
                    holders.insert(actor.node)
                } else {
                    holders.remove(&actor.node)
                };
            }
            if let Op::Submit { spec, .. } = op {
                reading.owner = Some(actor.node);
                reading.priority = Some(spec.priority);
                let is_open = |unit: &Unit| {
                    let epoch = reading.epochs.get(unit).copied().unwrap_or(0);
                    let revision = revisions.get(unit).map_or(0, |latest| latest.3);
                    !results.contains(&(*unit, epoch, revision))
                };
                reading.unfinished = spec.frames.iter().map(Unit::whole).filter(is_open).collect();
            }
        }
        reading.is_paused = paused.last_key_value().is_some_and(|(_, value)| *value);
        reading.priority = priority.last_key_value().map(|(_, value)| *value).or(reading.priority);
        reading.epochs.retain(|_, epoch| *epoch > 0);
        reading.holders.retain(|_, holders| !holders.is_empty());
        reading
    }

    /// What a farm made of them.
    fn by(job: &JobState, units: impl Iterator<Item = Unit>, blobs: impl Iterator<Item = BlobId>) -> Self {
        let epochs = units.map(|unit| (unit, job.unit(unit).epoch)).filter(|(_, epoch)| *epoch > 0).collect();
        Self {
            owner: job.owner(),
            unfinished: job.unfinished().clone(),
            epochs,
            is_paused: job.is_paused(),
            priority: job.spec.as_ref().map(|_| job.priority()),
            is_canceled: job.canceled.is_some(),
            holders: blobs.map(|blob| (blob, job.holders(blob))).filter(|(_, holders)| !holders.is_empty()).collect(),
        }
    }
}

/// Folds ops with the actors taking turns at random.
fn fold(id: JobId, ops: &Ops, rng: &mut StdRng) -> JobState {
    let mut state = JobState::new(id);
    let mut left: Vec<(ActorId, std::slice::Iter<'_, (u64, Op)>)> =
        ops.iter().map(|(actor, ops)| (*actor, ops.iter())).collect();
    while !left.is_empty() {
        let turn = rng.random_range(0..left.len());
        // A few at a time: long runs of one actor are as likely as taking turns.
        for _ in 0..rng.random_range(1..8) {
            match left[turn].1.next() {
                Some((seq, op)) => state.apply(left[turn].0, *seq, op.clone()),
                None => {
                    let _ = left.swap_remove(turn);
                    break;
                }
            }
        }
    }
    state
}

impl World {
    /// What a machine makes of its ops is what they say, in whatever order they came.
    pub(super) fn check_fold(&mut self, i: usize) {
        let mut broken = None;
        let Some(farm) = &self.machines[i].farm else { return };
        for (id, job) in farm.jobs() {
            let mut ops: Ops = BTreeMap::new();
            for (actor, seq, op) in farm.ledger().ops(*id) {
                ops.entry(actor).or_default().push((seq, op));
            }
            let expected = Reading::of(&ops);
            let blobs: BTreeSet<BlobId> = expected.holders.keys().copied().chain(job.blobs()).collect();
            let read = Reading::by(job, expected.epochs.keys().copied(), blobs.into_iter());
            if job.spec.is_some() && read != expected {
                broken = Some((Invariant::FoldIsRight, format!("machine {i}, {id:?}: {read:?} is not {expected:?}")));
            } else if fold(*id, &ops, &mut self.rng) != *job {
                broken = Some((Invariant::FoldIsFunction, format!("machine {i}, {id:?}")));
            }
        }
        if let Some((invariant, detail)) = broken {
            self.fail(invariant, detail);
        }
    }
}
