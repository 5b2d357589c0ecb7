//! What is known of a unit: who claims it, what came of it, which epoch and revision count.
//!
//! Filled by the fold in `state`, one actor's word beside another's; what is current is decided when it is read.

use super::id::{ActorId, BlobId, NodeId};
use super::op::{Blank, ClaimKind, FailureKind, Output};
use super::planted::{Bug, is_planted};
use litemap::LiteMap;
use std::sync::Arc;

/// A claim as its actor last made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Epoch of the unit it was made for.
    pub epoch: u32,
    /// Why.
    pub kind: ClaimKind,
    /// Strength.
    pub score: u32,
}

/// A result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which revision it was rendered from; 0 as submitted.
    pub revision: u32,
    /// Files.
    pub outputs: Vec<Output>,
    /// Render time, milliseconds.
    pub millis: u32,
    /// Device used.
    pub device: Arc<str>,
    /// Renderer.
    pub build: Arc<str>,
    /// Whether it lay in the output folder before its job: its submitter said so before the `Submit`.
    pub is_kept: bool,
}

impl Outcome {
    /// What its files consist of, in their order.
    pub fn blobs(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.outputs.iter().map(|output| output.blob)
    }

    /// Whether these are its files: another result may share some of them.
    pub fn is_of(&self, blobs: &[BlobId]) -> bool {
        self.blobs().eq(blobs.iter().copied())
    }
}

/// What people should know of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Whether its image shows nothing.
    pub blank: Option<Blank>,
    /// What the renderer warned of.
    pub warnings: Vec<String>,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Why.
    pub kind: FailureKind,
    /// One line.
    pub message: String,
    /// End of the renderer's output.
    pub log: Option<BlobId>,
}

/// What is known of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// Highest epoch seen.
    pub epoch: u32,
    /// The revision it comes from, if there was any: the one of the highest (epoch, actor, sequence number).
    pub revised: Option<Box<Revised>>,
    /// Latest claim per actor, of any epoch.
    pub claims: LiteMap<ActorId, Claim>,
    /// Results by (epoch, actor, sequence number): two of one epoch are fine, and of one actor where the first was lost.
    pub results: LiteMap<(u32, ActorId, u64), Outcome>,
    /// Failed attempts by (epoch, actor, sequence number).
    pub failures: LiteMap<(u32, ActorId, u64), Attempt>,
}

/// Which revision a unit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revised {
    /// The later one wins: epoch, then who said it and when.
    pub(super) at: RevisionKey,
    /// Its id.
    pub(super) id: u32,
}

pub(super) type RevisionKey = (u32, ActorId, u64);

impl UnitState {
    /// Which revision renders it; 0 as submitted.
    pub fn revision(&self) -> u32 {
        self.revised.as_ref().map_or(0, |revised| revised.id)
    }

    /// What a result must be of to count: epoch and revision.
    pub fn version(&self) -> (u32, u32) {
        (self.epoch, self.revision())
    }

    /// Results of the current epoch and revision.
    pub fn current_results(&self) -> impl Iterator<Item = (ActorId, &Outcome)> {
        self.current_entries().map(|((_, actor, _), outcome)| (*actor, outcome))
    }

    /// The same, each with its epoch, its actor, and its sequence number.
    pub(super) fn current_entries(&self) -> impl Iterator<Item = (&(u32, ActorId, u64), &Outcome)> {
        let from = if is_planted(Bug::EpochIgnored) { 0 } else { self.epoch };
        let of_epoch = self.results.iter().filter(move |((epoch, _, _), _)| *epoch >= from);
        of_epoch.filter(|(_, outcome)| outcome.revision == self.revision())
    }

    /// Whether the current epoch has a result.
    pub fn has_result(&self) -> bool {
        self.current_results().next().is_some()
    }

    /// Claims of the current epoch by actors that have neither a result nor ended them with a failure.
    pub fn current_claims(&self) -> impl Iterator<Item = (ActorId, Claim)> {
        self.claims.iter().filter(|(_, claim)| claim.epoch == self.epoch).map(|(actor, claim)| (*actor, *claim))
    }

    /// The last claim gone leaves nothing behind: most units are done.
    pub(super) fn drop_claim(&mut self, actor: &ActorId) {
        self.claims.remove(actor);
        if self.claims.is_empty() {
            self.claims = LiteMap::new();
        }
    }

    /// Failed attempts of the current epoch.
    pub fn current_failures(&self) -> impl Iterator<Item = (NodeId, &Attempt)> {
        let current = self.failures.iter().filter(|((epoch, _, _), _)| *epoch >= self.epoch);
        current.map(|((_, actor, _), attempt)| (actor.node, attempt))
    }

    /// Failed attempts of one node in the current epoch.
    pub fn failures_of(&self, node: NodeId) -> usize {
        self.current_failures().filter(|(by, _)| *by == node).count()
    }
}
