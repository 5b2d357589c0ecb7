//! Pure choice: what this machine does with a free slot, and what it gives up.
//!
//! Work stealing without a master: every node looks at the same ledger and its own roster and picks so that
//! simultaneous picks rarely meet. The order is weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in
//! Schindelhauer and Schomaker 2005 would need logarithms, so a node's slots stand for its weight as that many draws):
//! within a window of the earliest open units a node takes those first for which it is itself the strongest.

use super::blame::Blame;
use super::config::{
    ATTEMPTS_PER_NODE, BACKUP_MARGIN, CLAIM_AHEAD, CLAIM_MAX_UNITS, MAX_COPIES, ORPHAN_AFTER, RANKED_AT_MOST,
    SUSPECT_AFTER, WINDOW_MIN, WINDOW_PER_SLOT, YIELD_BELOW_PERCENT, YIELD_WITHIN,
};
use super::fit::{fits, suits};
use super::id::{ActorId, BlobId, JobId, NodeId, Unit};
use super::job::JobSpec;
use super::op::ClaimKind;
use super::roster::{Member, Roster};
use super::rules::{Chunk, MAX_CHUNK, Order};
use super::state::JobState;
use super::unit::{Claim, UnitState};
use super::verdict::{eligible, has_live_result, is_failed, is_stopped};
use super::why::{cap, claimants, hold};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A unit this machine has claimed or renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hand {
    /// Its epoch when claimed.
    pub epoch: u32,
    /// Why.
    pub kind: ClaimKind,
    /// Strength of the claim.
    pub score: u32,
    /// When rendering began; `None` while it waits.
    pub started: Option<Duration>,
    /// Hundredths.
    pub percent: u8,
    /// Which revision of the job it is rendered from, once begun.
    pub revision: u32,
}

/// Everything a choice depends on.
pub struct View<'a> {
    /// This machine, this start.
    pub me: ActorId,
    /// The monotonic clock.
    pub now: Duration,
    /// Who is here.
    pub roster: &'a Roster,
    /// All jobs.
    pub jobs: &'a BTreeMap<JobId, JobState>,
    /// What this machine has claimed or renders.
    pub hands: &'a BTreeMap<(JobId, Unit), Hand>,
    /// Bundles complete on this machine.
    pub ready: &'a BTreeSet<BlobId>,
    /// Who failed what.
    pub blame: &'a Blame,
    /// Whether this machine leaves to others what it would end after them; not for ever, lest they do not come.
    pub is_patient: bool,
}

/// What to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Of which job.
    pub job: JobId,
    /// Which units, all of one epoch, in the order to render them.
    pub units: Vec<(Unit, u32)>,
    /// Their epoch.
    pub epoch: u32,
    /// Why.
    pub kind: ClaimKind,
    /// Whose waiting unit it is.
    pub taken_from: Option<ActorId>,
}

/// Score of a claim on what waited elsewhere: the strongest there is, since a weaker one would be given up at once.
pub const TAKEN_OVER: u32 = u32::MAX;

/// Strength of a node at a unit: the best of as many draws as it has slots.
pub fn strength(node: NodeId, slots: u32, job: JobId, unit: Unit, epoch: u32) -> u32 {
    let words = |bytes: &[u8]| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[..8]);
        u64::from_le_bytes(word)
    };
    let seed = mix(words(&node.0) ^ mix(words(&job.0) ^ mix(unit.frame as u64 ^ u64::from(epoch) << 32)));
    (0..u64::from(slots.clamp(1, 64))).map(|draw| (mix(seed ^ draw) >> 32) as u32).max().unwrap_or(0)
}

/// Strength of a node at a job that only so many machines may render.
pub fn strength_at_job(node: NodeId, job: JobId) -> u32 {
    strength(node, 1, job, Unit::whole(0), 0)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// An open unit, as this machine sees it.
#[derive(Clone, Copy)]
struct Candidate {
    unit: Unit,
    /// The unit whose strength counts for it.
    lot: Unit,
    epoch: u32,
    /// This machine's strength at it.
    own: u32,
    /// Whether somebody had it who is not here any more.
    was_claimed: bool,
    /// Whether that one's process ended, so that nobody renders it now.
    is_abandoned: bool,
}

impl Candidate {
    fn strength_of(&self, (node, slots): &(NodeId, u32), job: JobId) -> u32 {
        strength(*node, *slots, job, self.lot, self.epoch)
    }
}

/// Those of some members that can render a job, with their slots.
fn contenders<'m>(
    job: &JobState,
    roster: &Roster,
    members: impl Iterator<Item = (NodeId, &'m Member)>,
) -> Vec<(NodeId, u32)> {
    members
        .filter(|(node, _)| fits(roster, *node, job).is_ok())
        .filter_map(|(node, member)| Some((node, member.capability.as_ref()?.slots)))
        .collect()
}

/// The `count` candidates with the fewest stronger rivals, the strongest first; before all others those of a process that
/// ended, whoever is strongest: a killed machine's frames wait for the next slot that is free, and no longer.
///
/// Ranks are only looked for among the candidates at which this machine is strong itself: in a swarm of `n` nodes the
/// first few of those are nearly always its own, so that a choice costs `n` draws and not `n` for each candidate.
fn strongest_first(
    mut candidates: Vec<Candidate>,
    rivals: &[(NodeId, u32)],
    job: JobId,
    count: usize,
) -> Vec<Candidate> {
    candidates.sort_unstable_by_key(|candidate| (!candidate.is_abandoned, Reverse(candidate.own), candidate.unit));
    let mut ranked: Vec<(usize, Candidate)> = Vec::new();
    let mut own = 0;
    for candidate in candidates.into_iter().take(RANKED_AT_MOST.max(count)) {
        if own >= count {
            break;
        }
        let rank = rivals.iter().filter(|rival| candidate.strength_of(rival, job) > candidate.own).count();
        own += usize::from(rank == 0);
        ranked.push((rank, candidate));
    }
    // Stable: among equals the strongest stays first.
    ranked.sort_by_key(|(rank, candidate)| (!candidate.is_abandoned, *rank));
    ranked.into_iter().take(count).map(|(_, candidate)| candidate).collect()
}

impl View<'_> {
    /// What to claim next, or `None` when there is nothing for this machine.
    pub fn choose(&self) -> Option<Choice> {
        let jobs = self.renderable();
        let primary = jobs.iter().find_map(|job| self.open_units(job).or_else(|| self.orphans(job)));
        primary.or_else(|| jobs.iter().find_map(|job| self.steal(job).or_else(|| self.back_up(job))))
    }

    /// How long it would take this machine to render what it leaves to others, if it leaves something.
    pub fn held_back(&self) -> Option<Duration> {
        let has_open = |job: &&JobState| self.open(job).next().is_some();
        let left = self.renderable().into_iter().filter(has_open).filter(|job| self.would_end_late(job));
        left.filter_map(|job| self.estimate(job, self.me.node)).max()
    }

    /// Jobs this machine may work on, in order: priority, then the owner with fewest busy slots, then the job with
    /// fewest, then age.
    fn renderable(&self) -> Vec<&JobState> {
        let mut busy_by_job: BTreeMap<JobId, usize> = BTreeMap::new();
        let others = self.roster.alive(self.now).filter(|(node, _)| *node != self.me.node);
        let theirs = others.flat_map(|(_, member)| member.in_hand.iter().map(|hand| hand.job));
        // Its own as they are now: what was claimed a moment ago is in no heartbeat yet.
        for job in theirs.chain(self.hands.keys().map(|(job, _)| *job)) {
            *busy_by_job.entry(job).or_default() += 1;
        }
        let mut busy_by_owner: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (job, busy) in &busy_by_job {
            if let Some(owner) = self.jobs.get(job).and_then(JobState::owner) {
                *busy_by_owner.entry(owner).or_default() += busy;
            }
        }
        let mut jobs: Vec<&JobState> = self.jobs.values().filter(|job| self.may_render(job)).collect();
        jobs.sort_by_key(|job| {
            let owner = job.owner().and_then(|owner| busy_by_owner.get(&owner)).copied().unwrap_or(0);
            let busy = busy_by_job.get(&job.id).copied().unwrap_or(0);
            // The age is what the submitter's clock says: it only breaks ties, and the same way everywhere.
            (Reverse(job.priority()), owner, busy, job.spec.as_ref().map(|spec| spec.created_ms), job.id)
        });
        jobs
    }

    /// Whether units of a job may start here at all.
    pub fn may_render(&self, job: &JobState) -> bool {
        job.current_specs().any(|spec| self.has_scene(job, spec))
            && fits(self.roster, self.me.node, job).is_ok()
            && (!self.blame.keeps_off(job.id, self.me.node) || !self.others_fit(job))
            && self.is_within_cap(job)
            && hold(job, self.jobs, self.roster, self.me.node, self.now).is_ok()
    }

    /// Whether this machine has, and can render, what some of the job's units come from.
    fn has_scene(&self, job: &JobState, spec: &JobSpec) -> bool {
        self.ready.contains(&spec.bundle) && self.suits(job, spec)
    }

    fn suits(&self, job: &JobState, spec: &JobSpec) -> bool {
        suits(self.roster, self.me.node, spec, job.rules(), job.min_version).is_ok()
    }

    /// The same for one unit of a job of which that is known of some.
    fn has_scene_of(&self, job: &JobState, unit: Unit) -> bool {
        let of_unit = || job.spec_of(job.unit(unit).revision()).is_some_and(|spec| self.has_scene(job, spec));
        !job.is_revised() || of_unit()
    }

    fn others_fit(&self, job: &JobState) -> bool {
        let others = eligible(job, self.roster, self.now);
        others.iter().any(|node| *node != self.me.node && !self.blame.keeps_off(job.id, *node))
    }

    /// Whether a machine could begin something of a job now, as far as can be told from here.
    pub fn fits_now(&self, job: &JobState, node: NodeId) -> bool {
        fits(self.roster, node, job).is_ok() && !self.blame.keeps_off(job.id, node)
    }

    /// Whether this machine is one of those that a job's limit of machines leaves room for. One that has nothing of the
    /// job joins while there is room; of those that have met beyond the limit the strongest stay.
    fn is_within_cap(&self, job: &JobState) -> bool {
        let Some(cap) = cap(job) else { return true };
        let others = claimants(job, self.roster, self.now).into_iter().filter(|node| *node != self.me.node);
        let rank = |node: NodeId| (strength_at_job(node, job.id), node);
        let own = self.hands.keys().any(|(of, _)| *of == job.id).then(|| rank(self.me.node));
        others.filter(|node| own.is_none_or(|own| rank(*node) > own)).count() < cap
    }

    /// Slots of everyone alive that can render the job.
    fn slots(&self, job: &JobState) -> usize {
        contenders(job, self.roster, self.roster.alive(self.now)).iter().map(|(_, slots)| *slots as usize).sum()
    }

    /// Live claims on a unit by others.
    fn claims<'s>(&'s self, state: &'s UnitState) -> impl Iterator<Item = (ActorId, Claim)> + 's {
        state
            .current_claims()
            .filter(|(actor, _)| actor.node != self.me.node && self.roster.is_live_actor(*actor, self.now))
    }

    /// Whether a unit without a result may be tried by this machine.
    fn may_try(&self, job: &JobState, unit: Unit) -> bool {
        let state = job.unit(unit);
        let mine = state.failures_of(self.me.node);
        !self.hands.contains_key(&(job.id, unit))
            && self.has_scene_of(job, unit)
            && !is_failed(job, unit, self.roster, self.now)
            && mine < ATTEMPTS_PER_NODE
            && (mine == 0
                || !eligible(job, self.roster, self.now)
                    .iter()
                    .any(|node| *node != self.me.node && state.failures_of(*node) == 0))
    }

    /// Units nobody alive has claimed and this machine may try, ascending.
    fn open<'s>(&'s self, job: &'s JobState) -> impl Iterator<Item = Unit> + 's {
        let is_open = |unit: &Unit| self.claims(job.unit(*unit)).next().is_none() && self.may_try(job, *unit);
        job.unfinished().iter().copied().filter(is_open)
    }

    /// Rule 1: open units of the window, those first for which this machine is the strongest.
    ///
    /// Units that fall to a member that vanished lately come after all others: on the far side of a cut it may well be
    /// rendering them, and so each side ends its own share first. What it had claimed is open at once.
    fn open_units(&self, job: &JobState) -> Option<Choice> {
        if self.open(job).next().is_none() || (self.is_patient && self.would_end_late(job)) {
            return None;
        }
        let window = (WINDOW_PER_SLOT * self.slots(job)).max(WINDOW_MIN);
        let own_slots = self.roster.own().map_or(1, |own| own.slots);
        let others = self.roster.alive(self.now).filter(|(node, _)| *node != self.me.node);
        let rivals = contenders(job, self.roster, others);
        let missing = contenders(job, self.roster, self.roster.missing(self.now));
        let is_abandoned = |unit: Unit| job.unit(unit).current_claims().any(|(actor, _)| self.roster.has_ended(actor));
        let candidate = |unit: Unit| {
            let (lot, state) = (lot(job, unit), job.unit(unit));
            let own = strength(self.me.node, own_slots, job.id, lot, state.epoch);
            let was_claimed = state.current_claims().next().is_some();
            Candidate { unit, lot, epoch: state.epoch, own, was_claimed, is_abandoned: is_abandoned(unit) }
        };
        let falls_to_us = |open: &Candidate| {
            let best = |nodes: &[(NodeId, u32)]| nodes.iter().map(|rival| open.strength_of(rival, job.id)).max();
            match best(&missing) {
                Some(theirs) => best(&rivals).max(Some(open.own)) > Some(theirs) || open.was_claimed,
                None => true,
            }
        };
        let slots = self.slots(job);
        let mut units = in_order(job, self.open(job).filter(|unit| falls_to_us(&candidate(*unit))), window, slots);
        if units.is_empty() && !missing.is_empty() {
            units = in_order(job, self.open(job), window, slots);
        }
        if !missing.is_empty() {
            // The window of a smaller swarm may end before what was claimed in that of a larger one.
            let beyond = self.open(job).filter(|unit| is_abandoned(*unit) && !units.contains(unit)).take(window);
            let beyond: Vec<Unit> = beyond.collect();
            units.extend(beyond);
        }
        // Short frames are claimed a few at a time: as many as fill the time ahead, and no more than a fair share.
        let fair = units.len().div_ceil(rivals.len() + 1);
        let ahead = match job.mean_millis(Some(self.me.node)) {
            Some(millis) => (CLAIM_AHEAD.as_millis() as u64 / millis.max(1)) as usize,
            None => 1,
        };
        let candidates: Vec<Candidate> = units.into_iter().map(candidate).collect();
        let best = match job.rules().chunk {
            Chunk::Auto => {
                strongest_first(candidates, &rivals, job.id, ahead.clamp(1, CLAIM_MAX_UNITS).min(fair.max(1)))
            }
            Chunk::Units(count) => {
                let mut best = strongest_first(candidates, &rivals, job.id, count as usize);
                let lot = best.first()?.lot;
                best.retain(|one| one.lot == lot);
                best
            }
            Chunk::All => candidates,
        };
        let epoch = best.first()?.epoch;
        let units = best.iter().filter(|one| one.epoch == epoch).map(|one| (one.unit, epoch)).collect();
        Some(Choice { job: job.id, units, epoch, kind: ClaimKind::Primary, taken_from: None })
    }

    /// Done units whose only holders have been away for a while, once the job has nothing else open: rendered anew rather
    /// than waited for any longer.
    fn orphans(&self, job: &JobState) -> Option<Choice> {
        if !job.unfinished().iter().all(|unit| is_failed(job, *unit, self.roster, self.now)) {
            return None;
        }
        // The usual case, told without looking at every unit.
        if job.keepers().is_some_and(|mut nodes| nodes.all(|node| self.roster.is_alive(node, self.now))) {
            return None;
        }
        let unit = job.all_units().find(|unit| {
            let state = job.unit(*unit);
            state.has_result()
                && !self.hands.contains_key(&(job.id, *unit))
                && self.has_scene_of(job, *unit)
                && state.failures_of(self.me.node) < ATTEMPTS_PER_NODE
                && self.claims(state).next().is_none()
                && !has_live_result(job, *unit, self.roster, self.now)
                && self.is_orphaned(job, state)
        })?;
        let epoch = job.unit(unit).epoch;
        Some(Choice { job: job.id, units: vec![(unit, epoch)], epoch, kind: ClaimKind::Primary, taken_from: None })
    }

    /// Whether everyone who holds any of a unit's results has been silent for long, or its process ended and was not started
    /// anew at once.
    fn is_orphaned(&self, job: &JobState, state: &UnitState) -> bool {
        let outputs = state.current_results().flat_map(|(_, outcome)| &outcome.outputs);
        let mut holders = outputs.flat_map(|output| job.holding(output.blob));
        holders.all(|node| {
            let silence = self.roster.silence(node, self.now);
            silence >= ORPHAN_AFTER || silence >= SUSPECT_AFTER && self.roster.broke_off(node)
        })
    }

    /// Rule 2: a unit another has claimed and not begun, from whoever has most of them waiting.
    fn steal(&self, job: &JobState) -> Option<Choice> {
        if job.rules().chunk == Chunk::All {
            return None;
        }
        let mut waiting: BTreeMap<ActorId, Vec<Unit>> = BTreeMap::new();
        for unit in job.unfinished() {
            let mut claims = self.claims(job.unit(*unit));
            let (Some((actor, claim)), None) = (claims.next(), claims.next()) else { continue };
            let begun = self.roster.progress(actor.node, job.id, *unit, self.now).is_some();
            let tells = self.roster.tells(actor.node, self.now);
            // What was taken over a moment ago by a stronger one would be given up at once, and taken again.
            let yields = (claim.score, actor) < (TAKEN_OVER, self.me);
            if claim.kind == ClaimKind::Primary && tells && !begun && yields && self.may_try(job, *unit) {
                waiting.entry(actor).or_default().push(*unit);
            }
        }
        // Heartbeats tell what is begun, so that a holder's first unit may look unbegun: leave it one.
        let (holder, units) = waiting.into_iter().filter(|(_, units)| units.len() > 1).max_by_key(|(_, u)| u.len())?;
        let unit = *units.last()?;
        if self.is_patient && self.would_end_late(job) {
            return None;
        }
        let epoch = job.unit(unit).epoch;
        Some(Choice {
            job: job.id,
            units: vec![(unit, epoch)],
            epoch,
            kind: ClaimKind::Primary,
            taken_from: Some(holder),
        })
    }

    /// Rule 3: a second copy of the unit expected to end last, if this machine would be sooner.
    fn back_up(&self, job: &JobState) -> Option<Choice> {
        if job.rules().chunk == Chunk::All {
            return None;
        }
        let own = self.estimate(job, self.me.node)?;
        let candidate = job
            .unfinished()
            .iter()
            .filter_map(|unit| {
                let claims: Vec<ActorId> = self.claims(job.unit(*unit)).map(|(actor, _)| actor).collect();
                let &[holder] = claims.as_slice() else { return None };
                if !self.may_try(job, *unit) {
                    return None;
                }
                let (percent, since) = self.roster.progress(holder.node, job.id, *unit, self.now)?;
                Some((self.remaining(job, holder.node, percent, since), *unit))
            })
            .max()?;
        let (remaining, unit) = candidate;
        if remaining < own + BACKUP_MARGIN {
            return None;
        }
        let epoch = job.unit(unit).epoch;
        Some(Choice { job: job.id, units: vec![(unit, epoch)], epoch, kind: ClaimKind::Backup, taken_from: None })
    }

    /// Time until a holder ends a unit: from its mean, or from its progress, whichever is later.
    pub fn remaining(&self, job: &JobState, holder: NodeId, percent: u8, since: Duration) -> Duration {
        let elapsed = self.now.saturating_sub(since);
        let by_mean = self.estimate(job, holder).unwrap_or_default().saturating_sub(elapsed);
        let by_progress = match percent {
            // A unit late by its own mean and silent about its progress is expected to take that long again.
            0 if by_mean.is_zero() => elapsed,
            0 => Duration::ZERO,
            percent => elapsed * u32::from(100 - percent.min(100)) / u32::from(percent),
        };
        by_mean.max(by_progress)
    }

    /// Claimed units this machine gives up, and why it may: a result exists, its rival is stronger, the job is over or done
    /// anew; unless begun also when the job is paused or the unit failed often enough elsewhere.
    pub fn give_up(&self) -> Vec<(JobId, Unit)> {
        let pressing = self.pressing();
        self.hands
            .iter()
            .filter(|((job, unit), hand)| self.must_give_up(*job, *unit, hand, pressing))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Priority of the first job with something to begin here, if something of a lower one waits here.
    fn pressing(&self) -> Option<u8> {
        let waiting = self.hands.iter().filter(|(_, hand)| hand.started.is_none());
        let lowest = waiting.filter_map(|((job, _), _)| self.jobs.get(job)).map(JobState::priority).min()?;
        self.jobs.values().find(|job| job.priority() > lowest && !job.is_over())?;
        let jobs = self.renderable();
        let higher = jobs.iter().take_while(|job| job.priority() > lowest);
        higher.copied().find(|job| self.open_units(job).is_some()).map(JobState::priority)
    }

    fn must_give_up(&self, job: JobId, unit: Unit, hand: &Hand, pressing: Option<u8>) -> bool {
        let Some(job) = self.jobs.get(&job) else { return true };
        let state = job.unit(unit);
        let is_revised = hand.started.is_some() && state.revision() != hand.revision;
        if job.is_over() || state.epoch != hand.epoch || is_revised {
            return true;
        }
        if is_stopped(job, self.roster, self.now) {
            return true;
        }
        // Begun or not: whoever is trusted no more runs nothing here.
        if job.spec_of(state.revision()).is_some_and(|spec| !self.roster.trusts().runs(self.me.node, spec)) {
            return true;
        }
        let others_result = state
            .current_results()
            .any(|(actor, _)| actor != self.me && has_live_result(job, unit, self.roster, self.now));
        if others_result {
            return true;
        }
        let begun = hand.started.is_some();
        if !begun && is_failed(job, unit, self.roster, self.now) {
            return true;
        }
        let is_held = || hold(job, self.jobs, self.roster, self.me.node, self.now).is_err();
        if !begun
            && (pressing.is_some_and(|priority| priority > job.priority())
                || fits(self.roster, self.me.node, job).is_err()
                || is_held())
        {
            return true;
        }
        // Beyond the job's limit of machines: what is far on is ended all the same, and nothing more is claimed.
        let is_far_on = hand.started.is_some_and(|since| self.stays(hand.percent, since));
        if self.is_surplus(state, hand) || (!is_far_on && !self.is_within_cap(job)) {
            return true;
        }
        if hand.kind == ClaimKind::Backup || hand.started.is_some_and(|since| self.stays(hand.percent, since)) {
            return false;
        }
        self.claims(state).filter(|(_, claim)| claim.kind == ClaimKind::Primary).any(|(actor, claim)| {
            let rival = self.roster.progress(actor.node, job.id, unit, self.now);
            // The same rule on both sides, or both would let go, and both take it again.
            let rival_stays = !begun && rival.is_some_and(|(percent, since)| self.stays(percent, since));
            rival_stays || (claim.score, actor) > (hand.score, self.me)
        })
    }

    /// Whether [`MAX_COPIES`] others come before this machine at a unit: primaries before backups, then the stronger.
    /// Everyone ranks the same claims the same way, so that those in front stay.
    fn is_surplus(&self, state: &UnitState, hand: &Hand) -> bool {
        let rank = |kind, score: u32, actor: ActorId| (kind == ClaimKind::Primary, score, actor);
        let mine = rank(hand.kind, hand.score, self.me);
        self.claims(state).filter(|(by, claim)| rank(claim.kind, claim.score, *by) > mine).count() >= MAX_COPIES
    }

    /// Whether a unit begun at `since` is too far on to be given up for another's claim.
    fn stays(&self, percent: u8, since: Duration) -> bool {
        percent >= YIELD_BELOW_PERCENT || self.now.saturating_sub(since) > YIELD_WITHIN
    }
}

/// The open units to look at, as the job's order has them: `window` of them, or, where the order matters more than that
/// machines rarely meet, as many as there are slots; so many claims of a fixed size.
fn in_order(job: &JobState, open: impl Iterator<Item = Unit>, window: usize, slots: usize) -> Vec<Unit> {
    let count = match job.rules().chunk {
        Chunk::Auto => 1,
        Chunk::Units(count) => count as usize,
        Chunk::All => return open.take(MAX_CHUNK as usize).collect(),
    };
    let (window, slots) = (window.saturating_mul(count), slots.max(1).saturating_mul(count));
    match job.rules().order {
        Order::Spread => open.take(window).collect(),
        Order::Forward => open.take(slots).collect(),
        Order::FirstLastMiddle => {
            let Some(spec) = &job.spec else { return Vec::new() };
            let count = count.max(1);
            let last = spec.frames.len().saturating_sub(1) / count;
            let depth = |unit: &Unit| spec.frames.position(unit.frame).map(|at| halvings(at / count, last));
            let mut units: Vec<Unit> = open.collect();
            units.sort_by_cached_key(|unit| (depth(unit), *unit));
            units.truncate(slots);
            units
        }
    }
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
fn lot(job: &JobState, unit: Unit) -> Unit {
    let (Chunk::Units(count), Some(spec)) = (job.rules().chunk, &job.spec) else { return unit };
    let count = count.max(1) as usize;
    let first = spec.frames.position(unit.frame).and_then(|at| spec.frames.nth(at / count * count));
    first.map_or(unit, |frame| Unit { frame, part: unit.part })
}
