//! Frames that lay in the output folder before their job: `submit --keep-existing`.
//!
//! The submitter's machine found them whole, has them in its store, and says so with ordinary `Done`s before its `Submit`,
//! in the same log: so everybody who knows of the job knows of them, and everything that holds for results holds for these.
//! Nobody rendered them for the job. So they tell nothing of how fast a machine is, of builds, or of a log; and what they
//! show, only their owner knows, so that they stand for no unit of another job: their build is no renderer's.

use super::id::{ActorId, Unit};
use super::job::JobSpec;
use super::op::{Op, Output};
use super::state::JobState;
use super::unit::Outcome;

/// The build of a result that nobody rendered. Those of renderers begin with a version.
pub const KEPT: &str = "kept";

/// A frame that is there, its files in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFrame {
    /// Which.
    pub unit: Unit,
    /// The image, and the other views where each has a file.
    pub outputs: Vec<Output>,
}

impl KeptFrame {
    /// What the submitter says of it.
    pub(super) fn done(self) -> Op {
        let Self { unit, outputs } = self;
        let (device, build) = (String::new(), KEPT.to_owned());
        Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 0, device, build }
    }
}

impl Outcome {
    /// Whether it was there before its job.
    pub fn is_kept(&self) -> bool {
        &*self.build == KEPT
    }
}

impl JobState {
    /// Whether a unit's current result was there before the job.
    pub fn is_kept(&self, unit: Unit) -> bool {
        self.unit(unit).current_results().next().is_some_and(|(_, outcome)| outcome.is_kept())
    }

    /// The first frame that was not there before the `Submit`, the `seq`-th op of `submitter`; `None` if it is the first of
    /// all, or none. Only what its own log said before counts, which is the same for everybody.
    pub(super) fn first_not_kept(&self, spec: &JobSpec, submitter: ActorId, seq: u64) -> Option<i32> {
        let is_kept = |frame: &i32| {
            let mut results = self.unit(Unit::whole(*frame)).results.iter();
            results.any(|((_, actor, at), outcome)| *actor == submitter && *at < seq && outcome.is_kept())
        };
        spec.frames.iter().find(|frame| !is_kept(frame)).filter(|frame| *frame != spec.frames.first())
    }
}
