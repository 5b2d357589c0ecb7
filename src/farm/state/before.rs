//! Which results lay in the output folder before the job: what its submitter said so of ([`kept`](crate::farm::kept)).

use super::JobState;
use crate::farm::id::{ActorId, Unit};
use crate::farm::job::JobSpec;
use crate::farm::kept::KEPT;

impl JobState {
    /// Whether a unit's current result was there before the job: it comes before those that others have.
    pub fn is_kept(&self, unit: Unit) -> bool {
        self.unit(unit).current_results().any(|(_, outcome)| outcome.is_kept)
    }

    /// The `Submit` came, the `seq`-th op of `submitter`: what its own log called kept before is, and nothing else. That is
    /// the same for everybody, since an actor's ops come in order. What it took counts no longer.
    pub(super) fn mark_kept(&mut self, submitter: ActorId, seq: u64) {
        for (unit, state) in &mut self.units {
            for ((_, actor, at), outcome) in state.results.iter_mut() {
                if *actor != submitter || *at >= seq || &*outcome.build != KEPT {
                    continue;
                }
                outcome.is_kept = true;
                if self.taken.contains_key(&(*unit, *actor, *at)) {
                    // Never counted.
                    continue;
                }
                let own = self.speed.entry(submitter.node).or_default();
                for speed in [own, &mut self.speed_of_all] {
                    *speed = (speed.0.saturating_sub(1), speed.1.saturating_sub(u64::from(outcome.millis)));
                }
            }
        }
    }

    /// The first frame that was not there before; `None` if it is the first of all, or none.
    pub(super) fn first_not_kept(&self, spec: &JobSpec) -> Option<i32> {
        let is_kept = |frame: &i32| self.unit(Unit::whole(*frame)).results.values().any(|outcome| outcome.is_kept);
        spec.frames.iter().find(|frame| !is_kept(frame)).filter(|frame| *frame != spec.frames.first())
    }
}
