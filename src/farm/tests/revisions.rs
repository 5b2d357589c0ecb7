//! What a revision needs decides who renders what comes from it.

use super::*;
use crate::farm::ability::Ability;
use crate::farm::fit::fits;
use crate::farm::job::Device;
use crate::farm::op::FailureKind;
use crate::farm::why::Standing;

const SECOND: Duration = Duration::from_secs(1);
/// The bundle of the revision.
const CHANGED: BlobId = BlobId([8; 32]);

impl Trio {
    /// Revises frames of a job on the first machine: `change` is what the revision needs beyond what the job does.
    fn revise(&mut self, job: JobId, frames: &[i32], change: impl Fn(&mut Revision)) {
        let first = self.names[0];
        self.at(0).store.insert(CHANGED);
        let JobSpec { file, bundle_bytes, min_version, settings, needs, .. } = spec(1);
        let mut revision = Revision { file, bundle: CHANGED, bundle_bytes, min_version, settings, needs };
        change(&mut revision);
        let (revision, units) = (Box::new(revision), UnitSet::whole(frames.to_vec()).expect("frames"));
        self.give(first, Input::Revise { call: 2, job, units, revision, by: "ada".into() });
        self.wait(3 * SECOND);
    }

    /// The renderer of a machine is another.
    fn renderer(&mut self, at: usize, change: impl Fn(&mut RendererInfo)) {
        let node = self.names[at];
        let mut capability = capability();
        capability.renderers.iter_mut().for_each(change);
        self.give(node, Input::Capability(Box::new(capability)));
        self.wait(STEP);
    }

    fn renders(&mut self, at: usize) -> Vec<i32> {
        self.at(at).rendering.iter().map(|(_, unit)| unit.frame).collect()
    }

    fn crash(&mut self, at: usize) {
        let node = self.names[at];
        for (job, unit) in std::mem::take(&mut self.at(at).rendering) {
            let epoch = self.machines[&node].farm.jobs()[&job].unit(unit).epoch;
            let (kind, message) = (FailureKind::Crash, "it died".to_owned());
            self.give(node, Input::RenderFailed { job, unit, epoch, kind, message, log: None });
        }
        self.wait(SECOND);
    }
}

#[test]
fn what_a_job_was_submitted_to_need_keeps_nobody_from_what_was_revised() {
    let mut trio = Trio::new(2);
    let mut spec = spec(4);
    (spec.settings.device, spec.needs, spec.min_version) = (Device::Gpu, Ability::Denoiser.into(), 40600);
    let job = trio.submit_spec(0, spec);
    trio.wait(3 * SECOND);
    assert!(trio.at(0).begun.is_empty() && trio.at(1).begun.is_empty(), "nobody has what it takes");
    trio.revise(job, &[2, 4], |_| {});
    for at in 0..2 {
        let node = trio.names[at];
        let farm = &trio.at(0).farm;
        assert_eq!(fits(farm.roster(), node, &farm.jobs()[&job]), Ok(()));
    }
    trio.finish();
    let now = trio.now;
    let farm = &trio.at(0).farm;
    let state = &farm.jobs()[&job];
    assert_eq!(state.unfinished().iter().map(|unit| unit.frame).collect::<Vec<_>>(), [1, 3], "still nobody");
    assert!(farm.why(state, now).iter().all(|(_, standing)| *standing == Standing::Ready));
    trio.revise(job, &[1, 3], |_| {});
    trio.finish();
    assert!(trio.at(0).farm.jobs()[&job].is_over());
}

#[test]
fn a_machine_that_lacks_what_a_revision_needs_is_not_waited_for() {
    type Lack = (fn(&mut RendererInfo), fn(&mut Revision));
    let lacks: [Lack; 2] = [
        (|renderer| renderer.abilities = Abilities::NONE, |revision| revision.needs = Ability::Alembic.into()),
        (|renderer| renderer.devices = vec!["CPU".into()], |revision| revision.settings.device = Device::Gpu),
    ];
    for (lack, need) in lacks {
        let mut trio = Trio::new(2);
        trio.renderer(0, |renderer| renderer.devices = vec!["OPTIX".into()]);
        trio.renderer(1, lack);
        let job = trio.submit(0, 1);
        trio.finish();
        trio.revise(job, &[1], need);
        assert_eq!((trio.renders(0), trio.renders(1)), (vec![1], vec![]));
        trio.crash(0);
        assert_eq!(trio.renders(0), [1], "nobody else could try it");
        trio.crash(0);
        let (now, second) = (trio.now, trio.names[1]);
        let farm = &trio.at(0).farm;
        let state = &farm.jobs()[&job];
        assert!(verdict::is_failed(state, Unit::whole(1), farm.roster(), now), "nor can anybody now");
        assert!(fits(farm.roster(), second, state).is_err());
    }
}

#[test]
fn a_machine_that_fails_a_revision_which_only_it_can_render_goes_on_with_the_rest_of_it() {
    let mut trio = Trio::new(2);
    trio.renderer(0, |renderer| renderer.devices = vec!["OPTIX".into()]);
    let job = trio.submit(0, 10);
    trio.finish();
    assert!(trio.at(0).farm.jobs()[&job].is_over());
    trio.revise(job, &[1, 2, 3, 4], |revision| revision.settings.device = Device::Gpu);
    // More than it may fail of a job while others go on with it; of any frame twice at most.
    for _ in 0..3 {
        trio.crash(0);
    }
    assert!(trio.renders(1).is_empty() && !trio.renders(0).is_empty(), "the other goes on with nothing");
    trio.finish();
    let now = trio.now;
    let farm = &trio.at(0).farm;
    let state = &farm.jobs()[&job];
    assert!(state.unfinished().iter().all(|unit| verdict::is_failed(state, *unit, farm.roster(), now)));
    assert!(state.unfinished().len() <= 1);
}
