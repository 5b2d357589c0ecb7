//! Files that a result has and its job does not: images of views that the job did not declare, and what has no place at all.
//!
//! They are no part of the result here, so that nobody fetches them, delivers them or takes them over. A name of each is kept,
//! for the machine that sent it to be told of. A result may be heard of before its job.

use super::JobState;
use crate::farm::id::{ActorId, NodeId, Unit};
use crate::farm::op::{FailureKind, Output, OutputRole};
use crate::farm::unit::Attempt;
use std::collections::BTreeMap;

/// What a result is of, and whose.
type Whose = (Unit, u32, ActorId);

/// Whether these can be a result. All that asks whether one is still there asks it of its files: of a result without any that
/// are the job's, it always would be.
pub(super) fn has_image(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| output.role == OutputRole::Image)
}

/// What such a result is instead.
pub(super) fn no_image() -> Attempt {
    Attempt { kind: FailureKind::BadOutput, message: "its result has no image".into(), log: None }
}

impl JobState {
    /// A unit failed on the machine of this actor.
    pub(super) fn fail(&mut self, attempt: (u32, ActorId, u64), unit: Unit, how: Attempt) {
        *self.failures.entry(attempt.1.node).or_default() += 1;
        self.failing.insert(unit);
        self.drop_claim(unit, &attempt.1);
        self.unit_mut(unit).failures.insert(attempt, how);
    }

    /// What a result has that is the job's; all of it while the job is not known.
    pub(super) fn sift(&mut self, whose: Whose, outputs: Vec<Output>) -> Vec<Output> {
        let Some(spec) = &self.spec else { return outputs };
        let (own, others): (Vec<Output>, Vec<Output>) =
            outputs.into_iter().partition(|output| spec.has_file(whose.0.frame, output));
        if let Some(least) = others.into_iter().map(|output| output.path).min() {
            let told = self.strangers.entry(whose).or_insert_with(|| least.clone());
            *told = least.min(std::mem::take(told));
        }
        own
    }

    /// The job is known now: results that came before it are looked at.
    pub(super) fn sift_all(&mut self) {
        let mut units = std::mem::take(&mut self.units);
        for (unit, state) in &mut units {
            for ((epoch, actor, _), outcome) in state.results.iter_mut() {
                outcome.outputs = self.sift((*unit, *epoch, *actor), std::mem::take(&mut outcome.outputs));
            }
        }
        self.units = units;
    }

    /// Which machines sent what is no file of the job: the unit of the first, its least name, and how many results had some.
    pub fn strangers(&self) -> BTreeMap<NodeId, (Unit, &str, usize)> {
        let mut by_node = BTreeMap::new();
        for ((unit, _, actor), name) in &self.strangers {
            by_node.entry(actor.node).or_insert((*unit, name.as_str(), 0)).2 += 1;
        }
        by_node
    }

    /// What a unit's results had in its current epoch that is no file of the job, and who sent it.
    pub fn strangers_of(&self, unit: Unit) -> impl Iterator<Item = (NodeId, &str)> {
        let first = ActorId { node: NodeId([0; 32]), boot: crate::farm::id::BootId([0; 8]) };
        let from = (unit, self.unit(unit).epoch, first);
        let of_it = self.strangers.range(from..).take_while(move |(whose, _)| (whose.0, whose.1) == (from.0, from.1));
        of_it.map(|((.., actor), name)| (actor.node, name.as_str()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::farm::id::{ActorId, BlobId, BootId, JobId, NodeId, Unit};
    use crate::farm::op::{Op, Output, OutputRole};
    use crate::farm::state::JobState;
    use crate::farm::views::Views;

    fn actor(n: u8) -> ActorId {
        ActorId { node: NodeId([n; 32]), boot: BootId([0; 8]) }
    }

    #[test]
    fn a_result_has_the_files_its_job_declared_whichever_is_heard_of_first() {
        let submit = Op::Submit { min_version: 1, spec: Box::new(crate::wire::tests::spec()) };
        let declared = |views: &[&str]| {
            let views = views.iter().map(|view| (*view).to_owned()).collect::<Vec<_>>();
            Op::Views { views: Views::of(&views).unwrap() }
        };
        let output = |path: &str, role| Output { path: path.into(), blob: BlobId([1; 32]), bytes: 1, role };
        let outputs = vec![
            output("shot_0001_L.png", OutputRole::Image),
            output("shot_0001_R.png", OutputRole::Aux),
            output("shot_0001-plate.png", OutputRole::Aux),
            output("file-outputs/z0001.exr", OutputRole::Aux),
        ];
        let unit = Unit::whole(1);
        let (device, build) = (String::new(), String::new());
        let done = Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 1, device, build };
        let fold = |ops: &[(u8, &Op)]| {
            let mut job = JobState::new(JobId([1; 16]));
            ops.iter().for_each(|(by, op)| job.apply(actor(*by), 0, (*op).clone()));
            job
        };
        let files = |job: &JobState| {
            let (_, outcome) = job.unit(unit).current_results().next().unwrap();
            outcome.outputs.iter().map(|output| output.path.clone()).collect::<Vec<_>>()
        };
        let told = |job: &JobState| job.strangers_of(unit).map(|(node, name)| (node, name.to_owned())).next().unwrap();
        let stereo = declared(&["_L", "_R"]);
        let job = fold(&[(1, &stereo), (1, &submit), (2, &done)]);
        assert_eq!(job, fold(&[(2, &done), (1, &stereo), (1, &submit)]));
        assert_eq!(files(&job), ["shot_0001_L.png", "shot_0001_R.png", "file-outputs/z0001.exr"]);
        assert_eq!(told(&job), (actor(2).node, "shot_0001-plate.png".into()));
        // Nobody else declares anything, nor does the submitter later; nor did an older build.
        let plain = fold(&[(1, &submit), (2, &done)]);
        assert_eq!(files(&plain), ["shot_0001_L.png", "file-outputs/z0001.exr"]);
        assert_eq!(told(&plain).1, "shot_0001-plate.png");
        assert_eq!(files(&fold(&[(3, &stereo), (1, &submit), (2, &done)])), files(&plain));
        assert_eq!(files(&fold(&[(1, &submit), (1, &stereo), (2, &done)])), files(&plain));
    }

    #[test]
    fn a_result_without_an_image_is_a_failure_of_whoever_sent_it_and_takes_nobodys_frame() {
        let submit = Op::Submit { min_version: 1, spec: Box::new(crate::wire::tests::spec()) };
        let unit = Unit::whole(1);
        let done = |path: &str, role| {
            let outputs = vec![Output { path: path.into(), blob: BlobId([1; 32]), bytes: 1, role }];
            let (device, build) = (String::new(), String::new());
            Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 1, device, build }
        };
        for role in [OutputRole::Aux, OutputRole::Preview, OutputRole::Sound] {
            for path in ["x", "file-outputs/z0001.exr"] {
                let ops = [(actor(1), &submit), (actor(2), &done(path, role))];
                let fold = |order: [usize; 2]| {
                    let mut job = JobState::new(JobId([1; 16]));
                    order.iter().for_each(|at| job.apply(ops[*at].0, 0, ops[*at].1.clone()));
                    job
                };
                let mut job = fold([0, 1]);
                assert_eq!(job, fold([1, 0]));
                assert_eq!(job.unit(unit).current_results().count(), 0, "{path} {role:?}");
                let failed: Vec<_> = job.unit(unit).failures.values().map(|attempt| &*attempt.message).collect();
                assert_eq!(failed, ["its result has no image"]);
                job.apply(actor(3), 0, done("shot_0001.png", OutputRole::Image));
                assert_eq!(job.unit(unit).current_results().count(), 1, "another's counts");
            }
        }
    }
}
