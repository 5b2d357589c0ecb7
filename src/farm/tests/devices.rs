//! Backends of GPUs by name: who renders such a job, who is told why not, and what older builds make of it.

use super::reuse::{SECOND, again};
use super::*;
use crate::farm::fit::{Unfit, would_suit};
use crate::farm::job::{Device, RenderSettings, Revision};

const NEW: BlobId = BlobId([200; 32]);

fn on(frames: i32, device: Device) -> JobSpec {
    let mut spec = spec(frames);
    spec.settings.device = device;
    spec
}

fn computes_on(trio: &mut Trio, at: usize, backends: &[&str]) {
    let backends: Vec<String> = backends.iter().map(|backend| (*backend).to_owned()).collect();
    trio.describe(at, |own| own.renderers[0].devices.clone_from(&backends));
}

#[test]
fn a_machine_without_the_backend_that_a_job_names_does_not_render_it_and_is_said_why() {
    let mut trio = Trio::new(2);
    computes_on(&mut trio, 0, &["OPTIX", "CUDA", "CPU"]);
    computes_on(&mut trio, 1, &["HIP", "CPU"]);
    let job = trio.submit_spec(0, on(4, Device::Cuda));
    trio.wait(3 * SECOND);
    assert!(trio.begins(0, job) && !trio.begins(1, job));
    assert_eq!(trio.says(0, 1, job), "no GPU that Blender can use with --device cuda");
    let (me, roster) = (trio.names[0], trio.at(0).farm.roster().clone());
    let suits = |device| [0, 1].map(|at| would_suit(&roster, trio.names[at], me, &on(1, device)));
    assert_eq!(suits(Device::Hip), [Err(Unfit::NoBackend(Device::Hip)), Ok(())]);
    assert_eq!(suits(Device::Optix), [Ok(()), Err(Unfit::NoBackend(Device::Optix))]);
    assert_eq!(suits(Device::Metal), [Device::Metal; 2].map(|metal| Err(Unfit::NoBackend(metal))));
    assert_eq!(suits(Device::Gpu), [Ok(()), Ok(())]);
}

/// It would render by whichever backend it takes for the best.
#[test]
fn an_older_machine_knows_of_a_job_that_names_a_backend_and_claims_nothing_of_it() {
    let mut trio = Trio::new(2);
    (0..2).for_each(|at| computes_on(&mut trio, at, &["OPTIX", "CUDA", "CPU"]));
    trio.describe(1, |own| own.op_version = 3);
    let named = trio.submit_spec(0, on(9, Device::Cuda));
    let any = trio.submit_spec(0, on(9, Device::Gpu));
    trio.wait(3 * SECOND);
    assert!(!trio.begins(1, named) && trio.begins(1, any));
    assert_eq!(trio.says(0, 1, named), "runs an older swarm than the job needs");
    for at in 0..2 {
        let jobs = trio.at(at).farm.jobs();
        assert_eq!([named, any].map(|job| jobs[&job].min_version), [4, 1]);
        let device = |job: JobId| jobs[&job].spec.as_ref().map(|spec| spec.settings.device);
        assert_eq!([named, any].map(device), [Some(Device::Cuda), Some(Device::Gpu)]);
    }
}

#[test]
fn a_revision_names_a_backend_only_of_a_job_that_named_one() {
    for (had, is_taken) in [(Device::Gpu, false), (Device::Optix, true)] {
        let mut trio = Trio::new(1);
        computes_on(&mut trio, 0, &["OPTIX", "CUDA", "CPU"]);
        let owner = trio.names[0];
        let job = trio.submit_spec(0, on(2, had));
        trio.finish();
        trio.at(0).store.insert(NEW);
        for (call, device) in [(7, Device::Cuda), (8, Device::Cpu)] {
            let JobSpec { file, bundle_bytes, min_version, needs, .. } = spec(1);
            let settings = RenderSettings { device, ..RenderSettings::default() };
            let revision = Revision { file, bundle: NEW, bundle_bytes, min_version, settings, needs };
            let (revision, units) = (Box::new(revision), UnitSet::whole(vec![1]).expect("frames"));
            trio.give(owner, Input::Revise { call, job, units, revision, by: "ada".into() });
            trio.wait(SECOND);
            let counts = is_taken || device == Device::Cpu;
            assert_eq!(trio.at(0).answers.last(), Some(&(call, counts)));
            let state = &trio.at(0).farm.jobs()[&job];
            let now = state.spec_of(state.unit(Unit::whole(1)).revision()).expect("a spec").settings.device;
            assert_eq!(now, if counts { device } else { had });
        }
    }
}

#[test]
fn a_frame_is_taken_over_only_where_it_was_rendered_by_the_backend_that_is_named() {
    let taken = |used: &str, wanted: Device| {
        let mut trio = Trio::new(1);
        trio.has_rendered(0, again(3), |result| result.device = used.into());
        computes_on(&mut trio, 0, &["OPTIX", "CUDA", "CPU"]);
        let mut spec = again(3);
        spec.settings.device = wanted;
        let job = trio.submit_spec(0, spec);
        trio.wait(SECOND);
        trio.taken(0, job).len()
    };
    for (used, wanted, frames) in [
        ("CUDA A4000", Device::Cuda, 3),
        ("OPTIX A4000", Device::Cuda, 0),
        ("CUDA A4000", Device::Optix, 0),
        ("CUDA A4000", Device::Auto, 0),
        ("OPTIX A4000", Device::Gpu, 3),
        ("CPU", Device::Cuda, 0),
        ("BLENDER_EEVEE on A4000", Device::Gpu, 3),
        ("BLENDER_EEVEE in software on llvmpipe", Device::Auto, 3),
        ("BLENDER_EEVEE in software on llvmpipe", Device::Gpu, 0),
    ] {
        assert_eq!(taken(used, wanted), frames, "{used} {wanted}");
    }
}
