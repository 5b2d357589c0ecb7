//! Pure choice: what this machine does with a free slot, and what it gives up.
//!
//! Work stealing without a master: every node looks at the same ledger and its own roster and picks so that
//! simultaneous picks rarely meet: within a window of the earliest open units a node takes those first for which it is
//! itself the strongest ([`rendezvous`](super::rendezvous)).

use super::blame::Blame;
use super::config::{
    ATTEMPTS_PER_NODE, BACKUP_MARGIN, CLAIM_AHEAD, CLAIM_MAX_UNITS, MAX_COPIES, ORPHAN_AFTER, SUSPECT_AFTER,
    WINDOW_MIN, WINDOW_PER_SLOT, YIELD_BELOW_PERCENT, YIELD_WITHIN,
};
use super::fit::{fits, suits, suits_unit};
use super::id::{ActorId, BlobId, JobId, NodeId, Unit};
use super::job::JobSpec;
use super::op::ClaimKind;
use super::order::{in_order, lot};
use super::rendezvous::{Candidate, contenders, mix, strength, strength_at_job, strongest_first};
use super::reuse::Promises;
use super::roster::Roster;
use super::rules::Chunk;
use super::state::JobState;
use super::unit::{Claim, UnitState};
use super::verdict::{eligible, eligible_for, has_live_result, is_failed, is_lost, is_stopped};
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
    /// Units whose results come from elsewhere in a moment.
    pub promises: &'a Promises,
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

/// What ties this machine to all it has of a job.
struct Tie {
    is_over: bool,
    /// Whether what waits may begin.
    may_begin: bool,
    is_within_cap: bool,
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
        let mut jobs: Vec<&JobState> = self.jobs.values().filter(|job| self.may_render(job)).collect();
        if jobs.len() < 2 {
            return jobs;
        }
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
        !self.promises.come_first(job)
            && job.current_specs().any(|spec| self.has_scene(job, spec))
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

    /// Whether another machine goes on with a job that this one keeps off: one that does not, and has attempts left at
    /// something that it can render.
    fn others_fit(&self, job: &JobState) -> bool {
        let open = || job.unfinished().iter().filter(|unit| !is_failed(job, **unit, self.roster, self.now));
        let has_left = |node: NodeId, unit: Unit| {
            job.unit(unit).failures_of(node) < ATTEMPTS_PER_NODE
                && (!job.is_revised() || suits_unit(self.roster, node, job, unit))
        };
        let goes_on = |node: &NodeId| open().next().is_none() || open().any(|unit| has_left(*node, *unit));
        let others = eligible(job, self.roster, self.now);
        others.iter().any(|node| *node != self.me.node && !self.blame.keeps_off(job.id, *node) && goes_on(node))
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

    /// Slots of everyone alive that can render the job: of this machine, and of those.
    fn slots(&self, rivals: &[(NodeId, u32)]) -> usize {
        let own = self.roster.own().map_or(0, |own| own.slots);
        rivals.iter().map(|(_, slots)| *slots as usize).sum::<usize>() + own as usize
    }

    /// The others alive that can render the job, with their slots.
    fn rivals(&self, job: &JobState) -> Vec<(NodeId, u32)> {
        let others = self.roster.alive(self.now).filter(|(node, _)| *node != self.me.node);
        contenders(job, self.roster, others)
    }

    /// Whether a unit was claimed by a process that ended.
    fn is_abandoned(&self, job: &JobState, unit: Unit) -> bool {
        job.unit(unit).current_claims().any(|(actor, _)| self.roster.has_ended(actor))
    }

    fn candidate(&self, job: &JobState, unit: Unit) -> Candidate {
        let (lot, state) = (lot(job, unit), job.unit(unit));
        let slots = self.roster.own().map_or(1, |own| own.slots);
        let own = strength(self.me.node, slots, job.id, lot, state.epoch);
        let was_claimed = state.current_claims().next().is_some();
        Candidate { unit, lot, epoch: state.epoch, own, was_claimed, is_abandoned: self.is_abandoned(job, unit) }
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
            && !self.promises.covers(job.id, unit, self.now)
            && self.has_scene_of(job, unit)
            && !is_failed(job, unit, self.roster, self.now)
            && mine < ATTEMPTS_PER_NODE
            && (mine == 0
                || !eligible_for(job, unit, self.roster, self.now)
                    .iter()
                    .any(|node| *node != self.me.node && state.failures_of(*node) == 0 && self.comes_to(job, *node)))
    }

    /// Whether another machine keeps off a job no more than this one does.
    fn comes_to(&self, job: &JobState, node: NodeId) -> bool {
        !self.blame.keeps_off(job.id, node) || self.blame.keeps_off(job.id, self.me.node)
    }

    /// Whether nobody alive has claimed an unfinished unit and this machine may try it.
    fn is_open(&self, job: &JobState, unit: Unit) -> bool {
        self.claims(job.unit(unit)).next().is_none() && self.may_try(job, unit)
    }

    /// Such units, ascending.
    fn open<'s>(&'s self, job: &'s JobState) -> impl Iterator<Item = Unit> + 's {
        let looked_at = job.unfinished().iter().copied().take_while(|unit| !self.promises.is_ahead(job.id, *unit));
        looked_at.filter(|unit| self.is_open(job, *unit))
    }

    /// Rule 1: open units of the window, those first for which this machine is the strongest.
    ///
    /// Units that fall to a member that vanished lately come after all others: on the far side of a cut it may well be
    /// rendering them, and so each side ends its own share first. What it had claimed is open at once.
    fn open_units(&self, job: &JobState) -> Option<Choice> {
        if self.open(job).next().is_none() || (self.is_patient && self.would_end_late(job)) {
            return None;
        }
        let rivals = self.rivals(job);
        let slots = self.slots(&rivals);
        let window = window(slots);
        let missing = contenders(job, self.roster, self.roster.missing(self.now));
        let candidate = |unit: Unit| self.candidate(job, unit);
        let falls_to_us = |open: &Candidate| {
            let best = |nodes: &[(NodeId, u32)]| nodes.iter().map(|rival| open.strength_of(rival, job.id)).max();
            match best(&missing) {
                Some(theirs) => best(&rivals).max(Some(open.own)) > Some(theirs) || open.was_claimed,
                None => true,
            }
        };
        let is_ours = |unit| self.is_open(job, unit) && (missing.is_empty() || falls_to_us(&candidate(unit)));
        let mut units = in_order(job, is_ours, window, slots);
        if units.is_empty() && !missing.is_empty() {
            units = in_order(job, |unit| self.is_open(job, unit), window, slots);
        }
        if !missing.is_empty() {
            // The window of a smaller swarm may end before what was claimed in that of a larger one.
            let beyond =
                self.open(job).filter(|unit| self.is_abandoned(job, *unit) && !units.contains(unit)).take(window);
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

    /// Done units of which some file has no holders but such as have been away for a while, once the job has nothing else
    /// open: rendered anew rather than waited for any longer. The same for those of which some file was lost by all who
    /// held it, while the submitter's machine is away that would open a new epoch of them if it needs them. Those of a
    /// window, in the order of open units, so that not everyone begins the first.
    fn orphans(&self, job: &JobState) -> Option<Choice> {
        if !job.unfinished().iter().all(|unit| is_failed(job, *unit, self.roster, self.now)) {
            return None;
        }
        // The usual case, told without looking at any unit.
        if job.keepers().is_some_and(|mut nodes| !nodes.any(|node| self.is_gone(node))) {
            return None;
        }
        let owner_decides = job.owner().is_some_and(|owner| self.roster.is_alive(owner, self.now));
        let is_orphan = |unit: &Unit| {
            let state = job.unit(*unit);
            state.has_result()
                && !self.hands.contains_key(&(job.id, *unit))
                && !self.promises.covers(job.id, *unit, self.now)
                && self.has_scene_of(job, *unit)
                && state.failures_of(self.me.node) < ATTEMPTS_PER_NODE
                && self.claims(state).next().is_none()
                && !has_live_result(job, *unit, self.roster, self.now)
                && self.is_orphaned(job, state)
                && !(owner_decides && is_lost(job, *unit, |_| false))
        };
        let rivals = self.rivals(job);
        let looked_at = job.some_units(mix(self.now.as_millis() as u64));
        let orphans = looked_at.filter(is_orphan).take(window(self.slots(&rivals)));
        let candidates: Vec<Candidate> = orphans.map(|unit| self.candidate(job, unit)).collect();
        let &Candidate { unit, epoch, .. } = strongest_first(candidates, &rivals, job.id, 1).first()?;
        Some(Choice { job: job.id, units: vec![(unit, epoch)], epoch, kind: ClaimKind::Primary, taken_from: None })
    }

    /// Whether of each of a unit's results there is a file that nobody holds who is not gone.
    fn is_orphaned(&self, job: &JobState, state: &UnitState) -> bool {
        let is_kept = |blob: BlobId| job.holding(blob).any(|node| !self.is_gone(node));
        !state.current_results().any(|(_, outcome)| outcome.outputs.iter().all(|output| is_kept(output.blob)))
    }

    /// Whether a node has been silent for long, or its process ended and was not started anew at once.
    fn is_gone(&self, node: NodeId) -> bool {
        let silence = self.roster.silence(node, self.now);
        silence >= ORPHAN_AFTER || silence >= SUSPECT_AFTER && self.roster.broke_off(node)
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
                Some((self.remaining(self.estimate(job, holder.node), percent, since), *unit))
            })
            .max()?;
        let (remaining, unit) = candidate;
        if remaining < own + BACKUP_MARGIN {
            return None;
        }
        let epoch = job.unit(unit).epoch;
        Some(Choice { job: job.id, units: vec![(unit, epoch)], epoch, kind: ClaimKind::Backup, taken_from: None })
    }

    /// Time until a holder ends a unit: from its estimate, or from its progress, whichever is later.
    pub fn remaining(&self, estimate: Option<Duration>, percent: u8, since: Duration) -> Duration {
        let elapsed = self.now.saturating_sub(since);
        let by_mean = estimate.unwrap_or_default().saturating_sub(elapsed);
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
        // What is true of a whole job is asked once: thousands of its units may wait here.
        let mut ties: BTreeMap<JobId, Tie> = BTreeMap::new();
        let mut gone = Vec::new();
        for ((id, unit), hand) in self.hands {
            let must = self.jobs.get(id).is_none_or(|job| {
                let tie = ties.entry(*id).or_insert_with(|| self.tie(job, pressing));
                self.must_give_up(job, *unit, hand, tie)
            });
            gone.extend(must.then_some((*id, *unit)));
        }
        gone
    }

    fn tie(&self, job: &JobState, pressing: Option<u8>) -> Tie {
        let is_pressed = pressing.is_some_and(|priority| priority > job.priority());
        let fits = fits(self.roster, self.me.node, job).is_ok();
        Tie {
            is_over: job.is_over() || is_stopped(job, self.roster, self.now),
            may_begin: !is_pressed && fits && hold(job, self.jobs, self.roster, self.me.node, self.now).is_ok(),
            is_within_cap: self.is_within_cap(job),
        }
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

    fn must_give_up(&self, job: &JobState, unit: Unit, hand: &Hand, tie: &Tie) -> bool {
        let state = job.unit(unit);
        let is_revised = hand.started.is_some() && state.revision() != hand.revision;
        if tie.is_over || state.epoch != hand.epoch || is_revised {
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
        if !begun && !tie.may_begin {
            return true;
        }
        // Beyond the job's limit of machines: what is far on is ended all the same, and nothing more is claimed.
        let is_far_on = hand.started.is_some_and(|since| self.stays(hand.percent, since));
        if self.is_surplus(state, hand) || (!is_far_on && !tie.is_within_cap) {
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

/// Of how many of the earliest units one is picked.
fn window(slots: usize) -> usize {
    (WINDOW_PER_SLOT * slots).max(WINDOW_MIN)
}
