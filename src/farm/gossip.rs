//! Talking: heartbeats, pushes of new ops, and the repair that mends whatever a push missed.
//!
//! New ops go at once to every neighbour that the origin does not talk to itself. Once a second a few neighbours get a
//! digest, in a large swarm one every two seconds; where digests differ, hashes per log follow, then lengths per actor, then the missing suffixes. No answer is
//! ever waited for.

use super::config::{DIGEST_EVERY, FEW_DIGEST_EVERY, HEARTBEAT, REPAIR_BYTES, SUSPECT_AFTER, TICK};
use super::event::{Effect, Now, Token};
use super::id::{BlobId, NodeId};
use super::ledger::{MergeError, pushes};
use super::message::{Heartbeat, InHand, LogDigests, LogId, Message, Suffix, Versions};
use super::op::Op;
use super::{Farm, jittered};
use rand::Rng;
use rand::seq::IteratorRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Neighbours a digest goes to each time; in a large swarm, where digests rarely agree, one (guess).
const DIGEST_FANOUT: usize = 3;
/// With one heartbeat in so many goes what this machine can do: told once, it could be lost in a full queue (guess).
const CAPABILITY_BEATS: u64 = 16;
/// Most logs in one `LogDigests` or `Versions`: keeps both under the ledger's frame limit.
const LOGS_PER_MESSAGE: usize = 1500;
/// Most actors in all `Versions` of one message, for the same reason.
const ACTORS_PER_MESSAGE: usize = 2000;

impl Farm {
    /// What a new neighbour is told first.
    pub(super) fn greet(&mut self, node: NodeId, effects: &mut Vec<Effect>) {
        if let Some(own) = self.roster.own() {
            effects.push(Effect::Send { to: node, message: Message::Capability(Box::new(own.clone())).into() });
        }
        let beat = self.heartbeat();
        effects.push(Effect::Send { to: node, message: Message::Heartbeat(beat).into() });
        effects.push(Effect::Send { to: node, message: Message::Digest(self.ledger.digest()).into() });
    }

    /// Takes a neighbour's word; says whether choices may follow from it.
    pub(super) fn received(&mut self, now: Now, from: NodeId, message: &Message, effects: &mut Vec<Effect>) -> bool {
        self.roster.heard(from, now.mono);
        match message {
            Message::Heartbeat(beat) => {
                // Everyone's, every two seconds: what follows waits for the next review, a tick away at most.
                self.roster.heartbeat(from, beat, now.mono);
                false
            }
            Message::Beats(beats) => {
                self.roster.relayed_beats(beats, now.mono);
                false
            }
            Message::Capability(capability) => {
                self.roster.capability(from, (**capability).clone());
                true
            }
            Message::Push(suffixes) => {
                let mut changed = false;
                for suffix in suffixes {
                    changed |= self.merge(from, suffix, effects);
                }
                self.tell_retired(from, suffixes.iter().map(|suffix| suffix.log), effects);
                self.fenced_until = None;
                changed
            }
            Message::Digest(theirs) => {
                if *theirs == self.ledger.digest() {
                    self.fenced_until = None;
                } else {
                    let digests = self.ledger.log_digests();
                    let parts = LogDigests::parts(&digests, LOGS_PER_MESSAGE).map(Message::LogDigests);
                    effects.extend(parts.map(|part| Effect::Send { to: from, message: part.into() }));
                }
                false
            }
            Message::LogDigests(theirs) => {
                self.answer_log_digests(from, theirs, effects);
                false
            }
            Message::Versions { versions, answer } => {
                self.answer_versions(from, versions, *answer, effects);
                false
            }
            Message::Retired(logs) => self.told_retired(from, logs, effects),
        }
    }

    fn merge(&mut self, from: NodeId, suffix: &Suffix, effects: &mut Vec<Effect>) -> bool {
        let known = suffix.from.saturating_add(suffix.ops.len() as u64);
        let merged = match self.ledger.merge(suffix) {
            Ok(merged) => merged,
            // Everyday: a push overtook another. Repair mends it.
            Err(MergeError::Gap { .. } | MergeError::Retired { .. }) => return false,
            Err(error) => {
                tracing::warn!(peer = %from.short(), %error, "refused part of a ledger");
                *self.refusals.entry(from).or_default() += 1;
                if let MergeError::Apart { log, actor } = error {
                    let versions = vec![self.ledger.versions_without(log, actor)];
                    let message = Message::Versions { versions, answer: false }.into();
                    effects.push(Effect::Send { to: from, message });
                }
                return false;
            }
        };
        if merged.new_ops.is_empty() && merged.forked.is_none() {
            self.knows(from, suffix.log, suffix.actor, known);
            return false;
        }
        effects.push(Effect::Persist { token: None, rows: merged.rows });
        if let Some(at) = merged.forked {
            tracing::warn!(
                node = %suffix.actor.node.short(), job = %suffix.log.short(), told_by = %from.short(), shared = at,
                "a member signed two different histories of a job; only what both begin with counts"
            );
            self.roster.distrust(suffix.actor);
            self.refold(suffix.log);
            // The one who told it may have only one half of it.
            self.push_fork(suffix.log, suffix.actor, at, effects);
            return true;
        }
        for (seq, op) in merged.new_ops {
            self.fold(suffix.log, suffix.actor, seq, op);
        }
        self.push(suffix.log, suffix.actor, suffix.from, Some(from), effects);
        self.knows(from, suffix.log, suffix.actor, known);
        true
    }

    /// Own ops are on disk: they count and are told.
    pub(super) fn persisted(&mut self, token: Token, effects: &mut Vec<Effect>) {
        let mut first: BTreeMap<LogId, u64> = BTreeMap::new();
        let mut dropped: BTreeSet<BlobId> = BTreeSet::new();
        for (log, seq, op) in self.ledger.durable(token.0) {
            first.entry(log).or_insert(seq);
            if let Op::Drops { blobs } = &op {
                dropped.extend(blobs);
            }
            let spoken_of = super::loss::blobs_of(&op);
            self.fold(log, self.me, seq, op);
            self.keep_word(log, &spoken_of);
        }
        // Only now that nobody can be told otherwise any more, and what came to be durable with it counts.
        let spare = self.spare(&dropped);
        if !spare.is_empty() {
            self.local.retain(|blob| spare.binary_search(blob).is_err());
            effects.push(Effect::Forget { blobs: spare });
        }
        for (log, from) in first {
            self.push(log, self.me, from, None, effects);
        }
        let (done, waiting) = std::mem::take(&mut self.submitted).into_iter().partition(|(_, job, id)| {
            self.jobs.get(job).is_some_and(|state| state.spec.is_some() && (*id == 0 || state.has_revision(*id)))
        });
        self.submitted = waiting;
        let done: Vec<(u64, super::id::JobId, u32)> = done;
        effects.extend(done.into_iter().map(|(call, job, _)| Effect::Submitted { call, job }));
    }

    fn answer_log_digests(&mut self, from: NodeId, theirs: &LogDigests, effects: &mut Vec<Effect>) {
        let spoken_of = |(log, _): &(LogId, [u8; 32])| theirs.speaks_of(*log);
        let mine: BTreeMap<LogId, [u8; 32]> = self.ledger.log_digests().into_iter().filter(spoken_of).collect();
        let told: BTreeMap<LogId, [u8; 32]> = theirs.digests.iter().copied().filter(spoken_of).collect();
        let differing = mine
            .iter()
            .filter(|(log, hash)| told.get(*log) != Some(hash))
            .map(|(log, _)| *log)
            .chain(told.keys().filter(|log| !mine.contains_key(*log) && !self.ledger.is_retired(**log)).copied());
        let versions: Vec<Versions> = differing.map(|log| self.ledger.versions(log)).collect();
        send_versions(from, versions, true, effects);
        self.tell_retired(from, told.keys().copied(), effects);
    }

    fn answer_versions(&mut self, from: NodeId, theirs: &[Versions], answer: bool, effects: &mut Vec<Effect>) {
        let mut budget = REPAIR_BYTES;
        let mut behind = Vec::new();
        for versions in theirs {
            if self.ledger.is_retired(versions.log) {
                continue;
            }
            let mine = self.ledger.versions(versions.log);
            if mine.digest == versions.digest {
                continue;
            }
            let mut suffixes = self.ledger.suffixes_for(versions, budget);
            let lacks = self.ledger.lacks(versions);
            if answer && suffixes.is_empty() && !lacks && budget > 0 {
                // As far, and not the same: somebody signed two histories, and the heads show who.
                suffixes = self.ledger.bare_heads(versions.log);
            }
            budget = budget.saturating_sub(suffixes.iter().flat_map(|s| &s.ops).map(|op| op.len() as u64).sum());
            effects.extend(pushes(suffixes).into_iter().map(|push| Effect::Send { to: from, message: push.into() }));
            if lacks {
                behind.push(mine);
            }
        }
        self.tell_retired(from, theirs.iter().map(|versions| versions.log), effects);
        if answer && !behind.is_empty() {
            send_versions(from, behind, false, effects);
        }
    }

    /// Sends what is due.
    pub(super) fn gossip(&mut self, now: Now, rng: &mut dyn Rng, effects: &mut Vec<Effect>) {
        let began = |hand: &InHand| !self.told.iter().any(|told| (told.job, told.unit) == (hand.job, hand.unit));
        // A unit begun is news, told at most every tick; progress waits for the next heartbeat.
        let is_time = now.mono + HEARTBEAT >= self.heartbeat_at + TICK;
        let early = || is_time && self.has_begun && self.in_hand().any(|hand| began(&hand));
        if now.mono >= self.heartbeat_at || early() {
            let in_hand: Vec<InHand> = self.in_hand().collect();
            self.heartbeat_at = jittered(now.mono, HEARTBEAT - HEARTBEAT / 8, rng);
            self.told = in_hand.clone();
            self.has_begun = false;
            self.roster.set_own_work(in_hand);
            self.draw(now.mono, rng);
            self.counter += 1;
            let message = Arc::new(Message::Heartbeat(self.heartbeat()));
            let told = self.told();
            effects.extend(told.iter().map(|to| Effect::Send { to: *to, message: message.clone() }));
            if self.counter.is_multiple_of(CAPABILITY_BEATS) {
                self.tell_capability(&told, effects);
            }
            effects.extend(self.roster.silent(now.mono).map(|node| Effect::Disconnect { node }));
        }
        if std::mem::take(&mut self.capability_is_new) {
            let everyone: Vec<NodeId> = self.roster.neighbours().collect();
            self.tell_capability(&everyone, effects);
        }
        self.hand_on(now, effects);
        if now.mono >= self.digest_at {
            let every = if self.is_partial() { FEW_DIGEST_EVERY } else { DIGEST_EVERY };
            self.digest_at = jittered(now.mono, every, rng);
            let digest = Arc::new(Message::Digest(self.ledger.digest()));
            let to = match self.is_partial() {
                true => self.roster.connected_nodes().iter().copied().choose(&mut &mut *rng).into_iter().collect(),
                false => self.roster.neighbours().sample(&mut &mut *rng, DIGEST_FANOUT),
            };
            effects.extend(to.into_iter().map(|to| Effect::Send { to, message: digest.clone() }));
        }
    }

    fn tell_capability(&self, to: &[NodeId], effects: &mut Vec<Effect>) {
        let Some(own) = self.roster.own() else { return };
        let message = Arc::new(Message::Capability(Box::new(own.clone())));
        effects.extend(to.iter().map(|to| Effect::Send { to: *to, message: message.clone() }));
    }

    /// Counted where everyone is told: greeting hundreds at once would else put the counter ahead of the time.
    fn heartbeat(&self) -> Heartbeat {
        let own = self.roster.member(self.me.node);
        Heartbeat {
            counter: self.counter,
            boot: self.me.boot,
            load_percent: own.map_or(0, |own| own.load_percent),
            free_memory_bytes: own.and_then(|own| own.free_memory_bytes),
            at_desk: own.is_some_and(|own| own.at_desk),
            in_hand: self.in_hand().collect(),
            neighbours: self.named(),
        }
    }

    /// What is being rendered here.
    pub(super) fn in_hand(&self) -> impl Iterator<Item = InHand> + '_ {
        let begun = self.hands.iter().filter(|(key, hand)| hand.started.is_some() && !self.ended.contains(*key));
        begun.map(|((job, unit), hand)| InHand { job: *job, unit: *unit, percent: hand.percent })
    }
}

fn send_versions(to: NodeId, versions: Vec<Versions>, answer: bool, effects: &mut Vec<Effect>) {
    let mut batch: Vec<Versions> = Vec::new();
    let mut actors = 0;
    for one in versions {
        let entries = one.lengths.len() + 2 * one.forks.len() + 1;
        if actors + entries > ACTORS_PER_MESSAGE && !batch.is_empty() {
            actors = 0;
            let versions = std::mem::take(&mut batch);
            effects.push(Effect::Send { to, message: Message::Versions { versions, answer }.into() });
        }
        actors += entries;
        batch.push(one);
        if actors >= ACTORS_PER_MESSAGE || batch.len() >= LOGS_PER_MESSAGE {
            actors = 0;
            let versions = std::mem::take(&mut batch);
            effects.push(Effect::Send { to, message: Message::Versions { versions, answer }.into() });
        }
    }
    if !batch.is_empty() {
        effects.push(Effect::Send { to, message: Message::Versions { versions: batch, answer }.into() });
    }
}

const _: () = assert!(SUSPECT_AFTER.as_millis() >= 4 * HEARTBEAT.as_millis());
