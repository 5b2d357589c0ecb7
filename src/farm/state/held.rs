//! Who holds which blobs of a job: bundles and results.
//!
//! Each start of a node says what it has, and what it let go of or lost; the last word of its latest start counts.

use super::JobState;
use crate::farm::id::{ActorId, BlobId, NodeId};
use litemap::LiteMap;
use std::collections::BTreeSet;

impl JobState {
    /// Who is known to have a bundle of it without having said so: who made it.
    pub fn makers(&self, bundle: BlobId) -> impl Iterator<Item = NodeId> + '_ {
        let submitter = self.owner().filter(|_| self.spec.as_ref().is_some_and(|spec| spec.bundle == bundle));
        let revisers = self.revisions.values().filter(move |(_, revision)| revision.bundle == bundle);
        submitter.into_iter().chain(revisers.map(|((_, actor, _), _)| actor.node))
    }

    /// Who has a bundle of it, and said so or made it.
    pub fn having(&self, bundle: BlobId) -> impl Iterator<Item = NodeId> + '_ {
        self.holding(bundle).chain(self.makers(bundle))
    }

    /// Every blob its ops speak of: bundles, results of all epochs, logs of failures.
    pub fn blobs(&self) -> BTreeSet<BlobId> {
        let results = self.units.values().flat_map(|unit| unit.results.iter().map(|(_, outcome)| outcome));
        let outputs = results.flat_map(|outcome| outcome.outputs.iter().map(|output| output.blob));
        let failures = self.units.values().flat_map(|unit| unit.failures.iter().map(|(_, attempt)| attempt));
        self.bundles().chain(outputs).chain(failures.filter_map(|attempt| attempt.log)).collect()
    }

    /// Nodes that hold a blob: the last word of a node is that of its latest start that spoke of the blob, and boot ids
    /// order as the starts came.
    pub fn holders(&self, blob: BlobId) -> BTreeSet<NodeId> {
        self.holding(blob).collect()
    }

    /// The same, one after the other, by id.
    pub fn holding(&self, blob: BlobId) -> impl Iterator<Item = NodeId> + '_ {
        let words =
            self.holders.get(&blob).into_iter().flat_map(|words| words.iter().zip(1..).map(move |word| (words, word)));
        // Starts of a node come in their order: its last word counts.
        let last = words.filter(|(words, ((actor, _), next))| {
            words.get_indexed(*next).is_none_or(|(later, _)| later.node != actor.node)
        });
        last.filter(|(_, ((_, has), _))| **has).map(|(_, ((actor, _), _))| actor.node)
    }

    /// Whether a node's last word of a blob is that it has it no more.
    pub fn has_let_go(&self, node: NodeId, blob: BlobId) -> bool {
        let mut words = self.holders.get(&blob).into_iter().flat_map(LiteMap::iter);
        words.rfind(|(actor, _)| actor.node == node).is_some_and(|(_, has)| !has)
    }

    /// Whether anybody ever said to have a blob, or not to have it any more.
    pub fn speaks_of(&self, blob: BlobId) -> bool {
        self.holders.contains_key(&blob)
    }

    /// Everything a node holds.
    pub fn held_by(&self, node: NodeId) -> impl Iterator<Item = BlobId> + '_ {
        self.holders.keys().copied().filter(move |blob| self.holding(*blob).any(|holder| holder == node))
    }

    /// Nodes that have a result of it, and hold all of theirs; `None` once anybody let go of anything.
    pub fn keepers(&self) -> Option<impl Iterator<Item = NodeId> + '_> {
        (!self.drops).then(|| self.speed.keys().copied())
    }

    /// An actor says to have these, or not to have them any more.
    pub(super) fn hold(&mut self, actor: ActorId, blobs: impl IntoIterator<Item = BlobId>, has: bool) {
        for blob in blobs {
            self.holders.entry(blob).or_insert_with(words).insert(actor, has);
        }
    }
}

/// Room for what is said of a blob: a result is held where it was rendered, and where it is brought together.
fn words() -> LiteMap<ActorId, bool> {
    LiteMap::with_capacity(2)
}
