//! Pure choice: what this machine does with a free slot, and what it gives up.
//!
//! Work stealing without a master: every node looks at the same ledger and its own roster and picks so that
//! simultaneous picks rarely meet. The order is weighted rendezvous hashing (Thaler and Ravishankar 1998; weights as in
//! Schindelhauer and Schomaker 2005 would need logarithms, so a node's slots stand for its weight as that many draws):
//! within a window of the earliest open units a node takes those first for which it is itself the strongest.

use super::config::{
    ATTEMPTS, ATTEMPTS_PER_NODE, BACKUP_MARGIN, CLAIM_AHEAD, CLAIM_MAX_UNITS, FAILURES_PER_NODE, MAX_COPIES,
    RANKED_AT_MOST, STOP_FROM, STOP_PERCENT, WINDOW_MIN, WINDOW_PER_SLOT, YIELD_BELOW_PERCENT, YIELD_WITHIN,
};
use super::id::{ActorId, BlobId, JobId, NodeId, Unit};
use super::job::JobSpec;
use super::op::ClaimKind;
use super::roster::{Member, Roster, fits};
use super::state::{JobState, UnitState};
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
    epoch: u32,
    /// This machine's strength at it.
    own: u32,
}

impl Candidate {
    fn strength_of(&self, (node, slots): &(NodeId, u32), job: JobId) -> u32 {
        strength(*node, *slots, job, self.unit, self.epoch)
    }
}

/// Those of some members that can render a job, with their slots.
fn contenders<'m>(job: &JobState, members: impl Iterator<Item = (NodeId, &'m Member)>) -> Vec<(NodeId, u32)> {
    let Some(spec) = &job.spec else { return Vec::new() };
    members
        .filter_map(|(node, member)| Some((node, member.capability.as_ref()?)))
        .filter(|(_, capability)| fits(Some(capability), spec, job.min_version).is_ok())
        .map(|(node, capability)| (node, capability.slots))
        .collect()
}

/// The `count` candidates with the fewest stronger rivals, the strongest first.
///
/// Ranks are only looked for among the candidates at which this machine is strong itself: in a swarm of `n` nodes the
/// first few of those are nearly always its own, so that a choice costs `n` draws and not `n` for each candidate.
fn strongest_first(
    mut candidates: Vec<Candidate>,
    rivals: &[(NodeId, u32)],
    job: JobId,
    count: usize,
) -> Vec<Candidate> {
    candidates.sort_unstable_by_key(|candidate| (Reverse(candidate.own), candidate.unit));
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
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(count).map(|(_, candidate)| candidate).collect()
}

impl View<'_> {
    /// What to claim next, or `None` when there is nothing for this machine.
    pub fn choose(&self) -> Option<Choice> {
        let jobs = self.renderable();
        let primary = jobs.iter().find_map(|job| self.open_units(job).or_else(|| self.orphans(job)));
        primary.or_else(|| jobs.iter().find_map(|job| self.steal(job).or_else(|| self.back_up(job))))
    }

    /// Jobs this machine may work on, in order: priority, then the owner with fewest busy slots, then the job with
    /// fewest, then age.
    fn renderable(&self) -> Vec<&JobState> {
        let mut busy_by_job: BTreeMap<JobId, usize> = BTreeMap::new();
        for (_, member) in self.roster.alive(self.now) {
            for hand in &member.in_hand {
                *busy_by_job.entry(hand.job).or_default() += 1;
            }
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
        !job.is_paused()
            && !job.is_over()
            && job.current_specs().any(|spec| self.has_scene(job, spec))
            && (job.failures_of(self.me.node) < FAILURES_PER_NODE || !self.others_fit(job))
            && !is_stopped(job, self.roster, self.now)
    }

    /// Whether this machine has, and can render, what some of the job's units come from.
    fn has_scene(&self, job: &JobState, spec: &JobSpec) -> bool {
        self.ready.contains(&spec.bundle) && fits(self.roster.own(), spec, job.min_version).is_ok()
    }

    /// The same for one unit of a job of which that is known of some.
    fn has_scene_of(&self, job: &JobState, unit: Unit) -> bool {
        let of_unit = || job.spec_of(job.unit(unit).revision()).is_some_and(|spec| self.has_scene(job, spec));
        !job.is_revised() || of_unit()
    }

    fn others_fit(&self, job: &JobState) -> bool {
        eligible(job, self.roster, self.now)
            .iter()
            .any(|node| *node != self.me.node && job.failures_of(*node) < FAILURES_PER_NODE)
    }

    /// Slots of everyone alive that can render the job.
    fn slots(&self, job: &JobState) -> usize {
        contenders(job, self.roster.alive(self.now)).iter().map(|(_, slots)| *slots as usize).sum()
    }

    /// Live claims on a unit by others.
    fn claims<'s>(&'s self, state: &'s UnitState) -> impl Iterator<Item = (ActorId, super::state::Claim)> + 's {
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

    /// Rule 1: open units of the window, those first for which this machine is the strongest.
    ///
    /// Units that fall to a member that vanished lately come after all others: on the far side of a cut it may well be
    /// rendering them, and so each side ends its own share first. What it had claimed is open at once.
    fn open_units(&self, job: &JobState) -> Option<Choice> {
        let window = (WINDOW_PER_SLOT * self.slots(job)).max(WINDOW_MIN);
        let own_slots = self.roster.own().map_or(1, |own| own.slots);
        let rivals = contenders(job, self.roster.alive(self.now).filter(|(node, _)| *node != self.me.node));
        let missing = contenders(job, self.roster.missing(self.now));
        let open = |unit: &Unit| self.claims(job.unit(*unit)).next().is_none() && self.may_try(job, *unit);
        let candidate = |unit: &Unit| {
            let epoch = job.unit(*unit).epoch;
            Candidate { unit: *unit, epoch, own: strength(self.me.node, own_slots, job.id, *unit, epoch) }
        };
        let falls_to_us = |open: &Candidate| {
            let was_claimed = || job.unit(open.unit).current_claims().next().is_some();
            let best = |nodes: &[(NodeId, u32)]| nodes.iter().map(|rival| open.strength_of(rival, job.id)).max();
            match best(&missing) {
                Some(theirs) => best(&rivals).max(Some(open.own)) > Some(theirs) || was_claimed(),
                None => true,
            }
        };
        let all = || job.unfinished().iter().filter(|unit| open(unit)).map(candidate);
        let mut candidates: Vec<Candidate> = all().filter(falls_to_us).take(window).collect();
        if candidates.is_empty() && !missing.is_empty() {
            candidates.extend(all().take(window));
        }
        // Short frames are claimed a few at a time: as many as fill the time ahead, and no more than a fair share.
        let fair = candidates.len().div_ceil(rivals.len() + 1);
        let count = match job.mean_millis(Some(self.me.node)) {
            Some(millis) => (CLAIM_AHEAD.as_millis() as u64 / millis.max(1)) as usize,
            None => 1,
        };
        let count = count.clamp(1, CLAIM_MAX_UNITS).min(fair.max(1));
        let best = strongest_first(candidates, &rivals, job.id, count);
        let epoch = best.first()?.epoch;
        let units = best.iter().filter(|one| one.epoch == epoch).map(|one| (one.unit, epoch)).collect();
        Some(Choice { job: job.id, units, epoch, kind: ClaimKind::Primary, taken_from: None })
    }

    /// Done units whose only holders are away, once the job has nothing else open: rendered anew rather than waited for.
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
                && self.claims(state).next().is_none()
                && !has_live_result(job, *unit, self.roster, self.now)
        })?;
        let epoch = job.unit(unit).epoch;
        Some(Choice { job: job.id, units: vec![(unit, epoch)], epoch, kind: ClaimKind::Primary, taken_from: None })
    }

    /// Rule 2: a unit another has claimed and not begun, from whoever has most of them waiting.
    fn steal(&self, job: &JobState) -> Option<Choice> {
        let mut waiting: BTreeMap<ActorId, Vec<Unit>> = BTreeMap::new();
        for unit in job.unfinished() {
            let mut claims = self.claims(job.unit(*unit));
            let (Some((actor, claim)), None) = (claims.next(), claims.next()) else { continue };
            let begun = self.roster.progress(actor.node, job.id, *unit, self.now).is_some();
            let tells = self.roster.tells(actor.node, self.now);
            if claim.kind == ClaimKind::Primary && tells && !begun && self.may_try(job, *unit) {
                waiting.entry(actor).or_default().push(*unit);
            }
        }
        // Heartbeats tell what is begun, so that a holder's first unit may look unbegun: leave it one.
        let (holder, units) = waiting.into_iter().filter(|(_, units)| units.len() > 1).max_by_key(|(_, u)| u.len())?;
        let unit = *units.last()?;
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
        let own = Duration::from_millis(job.mean_millis(Some(self.me.node)).or_else(|| job.mean_millis(None))?);
        let candidate = job
            .unfinished()
            .iter()
            .filter_map(|unit| {
                let claims: Vec<ActorId> = self.claims(job.unit(*unit)).map(|(actor, _)| actor).collect();
                let &[holder] = claims.as_slice() else { return None };
                if claims.len() >= MAX_COPIES || !self.may_try(job, *unit) {
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
    fn remaining(&self, job: &JobState, holder: NodeId, percent: u8, since: Duration) -> Duration {
        let elapsed = self.now.saturating_sub(since);
        let mean = job.mean_millis(Some(holder)).or_else(|| job.mean_millis(None)).unwrap_or(0);
        let by_mean = Duration::from_millis(mean).saturating_sub(elapsed);
        let by_progress = match percent {
            // A unit late by its own mean and silent about its progress is expected to take that long again.
            0 if by_mean.is_zero() => elapsed,
            0 => Duration::ZERO,
            percent => elapsed * u32::from(100 - percent.min(100)) / u32::from(percent),
        };
        by_mean.max(by_progress)
    }

    /// Claimed units this machine gives up, and why it may: a result exists, its rival is stronger, the job is over,
    /// paused (unless begun) or done anew.
    pub fn give_up(&self) -> Vec<(JobId, Unit)> {
        self.hands
            .iter()
            .filter(|((job, unit), hand)| self.must_give_up(*job, *unit, hand))
            .map(|(key, _)| *key)
            .collect()
    }

    fn must_give_up(&self, job: JobId, unit: Unit, hand: &Hand) -> bool {
        let Some(job) = self.jobs.get(&job) else { return true };
        let state = job.unit(unit);
        let is_revised = hand.started.is_some() && state.revision() != hand.revision;
        if job.is_over() || state.epoch != hand.epoch || is_revised {
            return true;
        }
        if is_stopped(job, self.roster, self.now) {
            return true;
        }
        let others_result = state
            .current_results()
            .any(|(actor, _)| actor != self.me && has_live_result(job, unit, self.roster, self.now));
        if others_result {
            return true;
        }
        let begun = hand.started.is_some();
        if !begun && (job.is_paused() || self.roster.own().is_some_and(|own| own.paused)) {
            return true;
        }
        if self.is_surplus(state, hand) {
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

/// Nodes alive that can render a job.
pub fn eligible(job: &JobState, roster: &Roster, now: Duration) -> Vec<NodeId> {
    let Some(spec) = &job.spec else { return Vec::new() };
    let fit = |member: &super::roster::Member| fits(member.capability.as_ref(), spec, job.min_version).is_ok();
    roster.alive(now).filter(|(_, member)| fit(member)).map(|(node, _)| node).collect()
}

/// Whether a unit is given up: attempts on three nodes, or two by every node that could.
pub fn is_failed(job: &JobState, unit: Unit, roster: &Roster, now: Duration) -> bool {
    let state = job.unit(unit);
    if state.has_result() || state.failures.is_empty() {
        return false;
    }
    let by: BTreeSet<NodeId> = state.current_failures().map(|(node, _)| node).collect();
    if by.len() >= ATTEMPTS {
        return true;
    }
    let eligible = eligible(job, roster, now);
    !by.is_empty() && eligible.iter().all(|node| state.failures_of(*node) >= ATTEMPTS_PER_NODE)
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
        outcome.outputs.iter().all(|output| job.holders(output.blob).iter().any(|node| roster.is_alive(*node, now)))
    })
}

/// Whether a unit is done: by the submitter's machine, or held by a second one; alone, by this machine's own word.
pub fn is_done(job: &JobState, unit: Unit, me: NodeId, alone: bool) -> bool {
    let owner = job.owner();
    job.unit(unit).current_results().any(|(actor, outcome)| {
        Some(actor.node) == owner
            || (alone && actor.node == me)
            || (!outcome.outputs.is_empty() && outcome.outputs.iter().all(|output| job.holders(output.blob).len() > 1))
    }) || (job.collected.is_some_and(|(revision, _)| revision >= job.revision) && job.unit(unit).has_result())
}
