//! Why a job gets on or does not: on the whole, and machine by machine.
//!
//! The choices ask [`hold`] too, so that what people are told is what decides.

use super::Farm;
use super::fit::{Unfit, fits, suits_some};
use super::id::{JobId, NodeId};
use super::roster::Roster;
use super::rules::Chunk;
use super::state::JobState;
use super::verdict::{is_done, is_stopped};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Why nothing of a job may start anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Its `Submit` has not arrived.
    Unknown,
    /// Somebody ended it.
    Canceled(String),
    /// Everything there will be is where it belongs.
    Finished,
    /// Somebody paused it.
    Paused,
    /// Too much of it failed.
    Stopped,
    /// Another job comes first.
    After(JobId, Wait),
}

/// How it is with a job that comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing is known of it here.
    Unknown,
    /// It goes on.
    Open,
    /// It was ended.
    Canceled,
    /// Some of it failed.
    Failed,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not known here yet"),
            Self::Canceled(by) => write!(f, "canceled by {by}"),
            Self::Finished => f.write_str("finished"),
            Self::Paused => f.write_str("paused"),
            Self::Stopped => f.write_str("stopped, because too many frames failed"),
            Self::After(job, wait) => {
                write!(f, "waits for job {}", job.short())?;
                match wait {
                    Wait::Open => Ok(()),
                    Wait::Unknown => f.write_str(", which is not known here; `swarm job set --after none` lifts that"),
                    Wait::Canceled => f.write_str(", which was canceled; `swarm job set --after none` lifts that"),
                    Wait::Failed => f.write_str(", of which frames failed; `swarm job set --after none` lifts that"),
                }
            }
        }
    }
}

/// Whether anything of a job may start at all.
///
/// # Errors
/// Why not.
pub fn hold(
    job: &JobState,
    jobs: &BTreeMap<JobId, JobState>,
    roster: &Roster,
    me: NodeId,
    now: Duration,
) -> Result<(), Hold> {
    if job.spec.is_none() {
        return Err(Hold::Unknown);
    }
    if let Some((by, _)) = &job.canceled {
        return Err(Hold::Canceled(by.clone()));
    }
    if job.is_over() {
        return Err(Hold::Finished);
    }
    if job.is_paused() {
        return Err(Hold::Paused);
    }
    if is_stopped(job, roster, now) {
        return Err(Hold::Stopped);
    }
    match job.rules().after {
        Some(first) => match wait(jobs.get(&first), roster, me, now) {
            Some(wait) => Err(Hold::After(first, wait)),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// Whether a job that comes first is not completed, and how it is with it.
fn wait(first: Option<&JobState>, roster: &Roster, me: NodeId, now: Duration) -> Option<Wait> {
    let Some(first) = first.filter(|first| first.spec.is_some()) else { return Some(Wait::Unknown) };
    if first.canceled.is_some() {
        return Some(Wait::Canceled);
    }
    let has_all = first.unfinished().is_empty();
    if first.is_over() {
        return (!has_all).then_some(Wait::Failed);
    }
    let is_alone = roster.alive(now).count() <= 1;
    let is_completed = has_all && first.all_units().all(|unit| is_done(first, unit, me, is_alone));
    (!is_completed).then_some(Wait::Open)
}

/// Most machines that may work on a job at once.
pub fn cap(job: &JobState) -> Option<usize> {
    match (job.rules().chunk, job.rules().max_nodes) {
        (Chunk::All, _) => Some(1),
        (Chunk::Auto | Chunk::Units(_), nodes) => nodes.map(|nodes| nodes as usize),
    }
}

/// Machines with a live claim on anything of a job.
pub fn claimants(job: &JobState, roster: &Roster, now: Duration) -> BTreeSet<NodeId> {
    let actors = job.claimed().flat_map(|unit| job.unit(unit).current_claims().map(|(actor, _)| actor));
    actors.filter(|actor| roster.is_live_actor(*actor, now)).map(|actor| actor.node).collect()
}

/// What a machine does about a job, or why it does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It renders so many units of it.
    Renders(usize),
    /// It could begin at any moment.
    Ready,
    /// It fetches the scene.
    Fetching,
    /// It is busy with another job.
    Busy(JobId),
    /// It is not here.
    Away,
    /// It is not of the kind, or not in the state.
    Unfit(Unfit),
    /// It failed too much of the job.
    KeptOff,
    /// As many machines as may are at it already.
    Capped(usize),
    /// The job itself is held.
    Held(Hold),
    /// Everything left is being rendered already.
    NothingOpen,
}

impl Standing {
    /// Whether it can render the job: what keeps it from it, if anything, is only that there is other work or none.
    pub fn can(&self) -> bool {
        match self {
            Self::Renders(_) | Self::Ready | Self::Fetching | Self::Busy(_) | Self::NothingOpen => true,
            Self::Away | Self::Unfit(_) | Self::KeptOff | Self::Capped(_) | Self::Held(_) => false,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renders(1) => f.write_str("renders a frame of it"),
            Self::Renders(count) => write!(f, "renders {count} frames of it"),
            Self::Ready => f.write_str("ready"),
            Self::Fetching => f.write_str("fetches the scene"),
            Self::Busy(job) => write!(f, "busy with job {}", job.short()),
            Self::Away => f.write_str("away"),
            Self::Unfit(unfit) => write!(f, "{unfit}"),
            Self::KeptOff => f.write_str("failed three frames of it, so others try"),
            Self::Capped(1) => f.write_str("the job is limited to one machine, and another has it"),
            Self::Capped(cap) => write!(f, "the job is limited to {cap} machines, and as many are at it"),
            Self::Held(hold) => write!(f, "the job {}", Inline(hold)),
            Self::NothingOpen => f.write_str("nothing of it is left to begin"),
        }
    }
}

/// A hold as the end of a sentence about the job.
struct Inline<'a>(&'a Hold);

impl fmt::Display for Inline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Hold::After(..) => write!(f, "{}", self.0),
            Hold::Unknown | Hold::Canceled(_) | Hold::Finished | Hold::Paused | Hold::Stopped => {
                write!(f, "is {}", self.0)
            }
        }
    }
}

impl Farm {
    /// Why nothing of a job starts, if that is so.
    pub fn hold(&self, job: &JobState, now: Duration) -> Option<Hold> {
        hold(job, &self.jobs, &self.roster, self.me.node, now).err()
    }

    /// Whether no other machine that is here is of the kind that fetches a job's scene.
    pub fn has_scene_alone(&self, job: &JobState, now: Duration) -> bool {
        let mut others = self.roster.alive(now).map(|(node, _)| node).filter(|node| *node != self.me.node);
        !others.any(|node| suits_some(&self.roster, node, job).is_ok())
    }

    /// How every machine ever met stands to a job, by id.
    pub fn why(&self, job: &JobState, now: Duration) -> Vec<(NodeId, Standing)> {
        let held = self.hold(job, now);
        let claimants = claimants(job, &self.roster, now);
        let is_claimed = |unit: &super::id::Unit| {
            let mut claims = job.unit(*unit).current_claims();
            claims.any(|(actor, _)| self.roster.is_live_actor(actor, now))
        };
        let is_open = job.unfinished().iter().any(|unit| !is_claimed(unit));
        let others_fit = |but: NodeId| {
            super::verdict::eligible(job, &self.roster, now)
                .iter()
                .any(|node| *node != but && !self.blame.keeps_off(job.id, *node))
        };
        let stands = |node: NodeId| {
            let Some(member) = self.roster.member(node) else { return Standing::Away };
            if !self.roster.is_alive(node, now) {
                return Standing::Away;
            }
            // A heartbeat may be older than the word that the unit was given back.
            let claims = |unit| job.unit(unit).current_claims().any(|(actor, _)| actor.node == node);
            let rendering = member.in_hand.iter().filter(|hand| hand.job == job.id && claims(hand.unit)).count();
            if rendering > 0 {
                return Standing::Renders(rendering);
            }
            // What the machine lacks is the more useful thing to know: it stays when the job goes on.
            if let Err(unfit) = fits(&self.roster, node, job) {
                return Standing::Unfit(unfit);
            }
            if let Some(hold) = &held {
                return Standing::Held(hold.clone());
            }
            if self.blame.keeps_off(job.id, node) && others_fit(node) {
                return Standing::KeptOff;
            }
            let others = claimants.iter().filter(|other| **other != node).count();
            if let Some(cap) = cap(job).filter(|cap| others >= *cap) {
                return Standing::Capped(cap);
            }
            let slots = member.capability.as_ref().map_or(0, |capability| capability.slots as usize);
            // What it says it has of this job it gave back or ended: else it would render it.
            let mut elsewhere = member.in_hand.iter().filter(|hand| hand.job != job.id);
            if let Some(hand) = elsewhere.nth(slots.saturating_sub(1)) {
                return Standing::Busy(hand.job);
            }
            let has_scene = job.current_specs().any(|spec| match node == self.me.node {
                true => self.ready.contains(&spec.bundle),
                false => job.having(spec.bundle).any(|having| having == node),
            });
            match (has_scene, is_open) {
                (false, _) => Standing::Fetching,
                (true, true) => Standing::Ready,
                (true, false) => Standing::NothingOpen,
            }
        };
        self.roster.members().keys().map(|node| (*node, stands(*node))).collect()
    }
}
