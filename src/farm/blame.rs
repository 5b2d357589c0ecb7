//! Whose fault a failure was.
//!
//! The ledger says what failed where; this remembers since when this machine knows, on its own clock, so that everything
//! is forgiven after [`FORGIVEN_AFTER`] without any wall clock. Three failures of a job keep a machine off it. Failures
//! here on units that others then render, in two jobs, make this machine sick: it claims nothing before a test frame
//! renders. What an owner kills, what is yielded, and who departs is no failure and never comes here.

use super::config::{FAILURES_PER_NODE, FORGIVEN_AFTER, SELF_TEST_EVERY, SICK_JOBS};
use super::id::{JobId, NodeId, Unit};
use super::state::JobState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Whether this machine trusts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Health {
    #[default]
    Well,
    /// A test frame is being rendered.
    Testing,
    /// The last one failed; the next is due then.
    Sick(Duration),
}

/// Failures by machine and time.
#[derive(Debug, Default)]
pub struct Blame {
    /// When the latest failures of a machine at a job were heard of, no more than count.
    failures: BTreeMap<(JobId, NodeId), VecDeque<Duration>>,
    /// What failed here, and when.
    own: BTreeMap<(JobId, Unit), Duration>,
    health: Health,
}

impl Blame {
    /// A machine failed a unit; `is_me` when this one did.
    pub fn failed(&mut self, job: JobId, unit: Unit, node: NodeId, is_me: bool, now: Duration) {
        let times = self.failures.entry((job, node)).or_default();
        times.push_back(now);
        if times.len() > FAILURES_PER_NODE {
            times.pop_front();
        }
        if is_me {
            self.own.insert((job, unit), now);
        }
    }

    /// Whether a machine has failed so much of a job that it keeps off it.
    pub fn keeps_off(&self, job: JobId, node: NodeId) -> bool {
        self.failures.get(&(job, node)).is_some_and(|times| times.len() >= FAILURES_PER_NODE)
    }

    /// Whether this machine claims nothing.
    pub fn is_sick(&self) -> bool {
        self.health != Health::Well
    }

    /// Looks after itself: forgives what is old, and says whether a test frame is to be rendered now.
    pub fn review(&mut self, jobs: &BTreeMap<JobId, JobState>, me: NodeId, now: Duration) -> bool {
        let counts = |since: &Duration| now.saturating_sub(*since) < FORGIVEN_AFTER;
        self.failures.retain(|_, times| {
            times.retain(counts);
            !times.is_empty()
        });
        self.own.retain(|_, since| counts(since));
        let tests = match self.health {
            Health::Well => self.blamed(jobs, me).len() >= SICK_JOBS,
            Health::Testing => false,
            Health::Sick(_) if self.own.is_empty() => {
                self.health = Health::Well;
                false
            }
            Health::Sick(again) => now >= again,
        };
        if tests {
            self.health = Health::Testing;
        }
        tests
    }

    /// Jobs with a unit that failed here and was rendered elsewhere.
    fn blamed(&self, jobs: &BTreeMap<JobId, JobState>, me: NodeId) -> BTreeSet<JobId> {
        let elsewhere = |job: &JobId, unit: &Unit| {
            jobs.get(job).is_some_and(|job| job.unit(*unit).results.keys().any(|(_, actor, _)| actor.node != me))
        };
        self.own.keys().filter(|(job, unit)| elsewhere(job, unit)).map(|(job, _)| *job).collect()
    }

    /// How the test frame went. One that rendered clears this machine of everything so far.
    pub fn tested(&mut self, is_well: bool, now: Duration) {
        if is_well {
            self.own.clear();
            self.health = Health::Well;
        } else {
            self.health = Health::Sick(now + SELF_TEST_EVERY);
        }
    }
}
