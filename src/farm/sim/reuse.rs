//! Results that are taken over from one job to another: whether they may be.

use super::{Invariant, World};
use crate::farm::id::{BlobId, JobId, Unit};
use crate::farm::job::JobSpec;
use crate::farm::message::LogId;
use crate::farm::op::{Op, Reuse};

impl World {
    /// What a farm says of results that it takes over.
    pub(super) fn check_reuse(&mut self, i: usize, log: LogId, op: &Op) {
        if self.liars.contains_key(&i) {
            return;
        }
        match op {
            Op::Reuse { word: Reuse::Taken { epoch: 0, unit, from } } => {
                self.taking.insert(i, (log, *unit, *from));
            }
            Op::Reuse { word: Reuse::Taken { epoch, unit, .. } } => {
                self.fail(
                    Invariant::ReusedIsSame,
                    format!("machine {i} takes over {log:?} frame {unit} of epoch {epoch}"),
                );
            }
            Op::Done { epoch, unit, outputs, .. } => {
                let Some((of, taken, from)) = self.taking.remove(&i) else { return };
                let blobs: Vec<BlobId> = outputs.iter().map(|output| output.blob).collect();
                self.report.reused += 1;
                let why = match () {
                    () if (of, taken, 0) != (log, *unit, *epoch) => Some("and says another"),
                    () => self.why_not(i, log, *unit, from, &blobs),
                };
                if let Some(why) = why {
                    let detail = format!("machine {i} takes over {log:?} frame {unit} from {from:?} {why}");
                    self.fail(Invariant::ReusedIsSame, detail);
                }
            }
            _ => {}
        }
    }

    fn why_not(&self, i: usize, job: JobId, unit: Unit, from: JobId, blobs: &[BlobId]) -> Option<&'static str> {
        let submitted =
            |job: JobId| self.submissions.iter().find(|submission| submission.id == Some(job)).map(|of| &of.spec);
        // What a crash kept from being answered was submitted again, and only machines know the first.
        let machine = &self.machines[i];
        let jobs = machine.farm.as_ref()?.jobs();
        let spec = |job: JobId| submitted(job).or_else(|| jobs.get(&job)?.spec.as_deref());
        let key = |spec: &JobSpec| (spec.bundle, spec.settings.samples);
        let was_drawn = |blob: &BlobId| self.drawn_for.get(blob).is_some_and(|drawn| drawn.contains(&(from, unit, 0)));
        // As far as it was told.
        let is_there = |blob: &BlobId| machine.blobs.whole.contains(blob) || machine.blobs.untold.contains(blob);
        let key_of = spec(job).map(key);
        let wanted_anew = jobs.values().any(|other| {
            let is_same = other.spec.as_deref().map(key) == key_of;
            is_same && other.unit(unit).version() != (0, 0)
        });
        match () {
            () if spec(job).is_none_or(|spec| spec.reuse.is_none()) => Some("though it is to be rendered"),
            () if spec(from).is_some_and(|spec| Some(key(spec)) != key_of) => Some("with other settings"),
            () if !blobs.iter().all(was_drawn) => Some("which was not rendered for it"),
            () if wanted_anew => Some("though somebody wanted it anew"),
            () if !blobs.iter().all(is_there) => Some("and does not have it"),
            () => None,
        }
    }
}
