//! Jobs that bring Python along: who renders them, and who says why not.

use super::*;
use crate::farm::event::Input;
use crate::farm::job::RenderSettings;
use crate::farm::scripts::{EVERYONE, Scripts};

const SECOND: Duration = Duration::from_secs(1);

/// A job whose file has scripts.
fn scripted(frames: i32) -> JobSpec {
    let mut spec = spec(frames);
    spec.settings.scripts = Scripts { in_files: true, file: Some("look.py".into()) };
    spec
}

impl Trio {
    fn trust(&mut self, at: usize, whom: NodeId, trusted: bool) {
        let node = self.names[at];
        self.give(node, Input::Trust { node: whom, trusted });
    }

    pub(super) fn begins(&mut self, at: usize, job: JobId) -> bool {
        self.at(at).rendering.iter().any(|(of, _)| *of == job)
    }

    /// What the machine at `asked` says of the one at `of`.
    pub(super) fn says(&mut self, asked: usize, of: usize, job: JobId) -> String {
        let (now, node) = (self.now, self.names[of]);
        let farm = &self.at(asked).farm;
        let why = farm.why(&farm.jobs()[&job], now);
        why.into_iter().find(|(one, _)| *one == node).expect("a machine").1.to_string()
    }
}

#[test]
fn scripts_run_where_their_submitter_is_trusted_and_every_machine_says_where_not() {
    let mut trio = Trio::new(3);
    trio.describe(0, |own| own.name = "anna".into());
    let owner = trio.names[0];
    let job = trio.submit_spec(0, scripted(9));
    trio.wait(3 * SECOND);
    let begun: Vec<bool> = (0..3).map(|at| trio.begins(at, job)).collect();
    assert_eq!(begun, [true, false, false]);
    assert!(!trio.at(1).farm.has_bundle(BUNDLE), "what it does not render it does not fetch");
    for asked in 0..3 {
        let says = trio.says(asked, 1, job);
        assert_eq!(says, "does not run scripts of anna's jobs; on it, `swarm trust anna`");
    }
    let plain = trio.submit(0, 9);
    trio.wait(3 * SECOND);
    assert!(trio.begins(1, plain) && trio.begins(2, plain), "a job without is rendered");
    trio.give(owner, Input::Command { job: plain, command: JobCommand::Cancel("anna".into()) });
    trio.wait(SECOND);

    trio.trust(1, owner, true);
    trio.wait(3 * SECOND);
    assert!(trio.begins(1, job) && !trio.begins(2, job));
    assert!((0..3).all(|asked| trio.says(asked, 1, job).starts_with("renders ")));
    // It is remembered, and told to whoever comes later.
    trio.kill(1);
    trio.at(1).rendering.clear();
    trio.restart(1, 40);
    trio.give(trio.names[1], Input::Capability(Box::new(capability())));
    trio.start(4);
    trio.wait(5 * SECOND);
    assert!(trio.begins(1, job) && !trio.begins(3, job));
    let trusts = trio.machines[&trio.names[3]].farm.roster().trusts();
    assert_eq!([0, 1, 2].map(|at| trusts.trusts(trio.names[at], owner)), [true, true, false]);

    trio.trust(1, owner, false);
    assert!(!trio.begins(1, job), "what runs is stopped at once");
    trio.trust(2, EVERYONE, true);
    trio.wait(3 * SECOND);
    assert!(!trio.begins(1, job) && trio.begins(2, job));
}

#[test]
fn what_another_says_about_trust_counts_for_that_one_alone() {
    let mut trio = Trio::new(2);
    let (one, two) = (trio.names[0], trio.names[1]);
    trio.trust(0, one, true);
    trio.trust(0, EVERYONE, true);
    let job = trio.submit_spec(0, scripted(4));
    trio.wait(3 * SECOND);
    assert!(!trio.begins(1, job));
    assert!(trio.at(1).farm.roster().trusts().trusts(one, two), "it knows that it would run there");
}

#[test]
fn a_revision_runs_scripts_only_where_its_own_author_is_trusted_and_only_if_it_asks() {
    let mut trio = Trio::new(3);
    let (owner, other, new) = (trio.names[0], trio.names[1], BlobId([200; 32]));
    (0..3).for_each(|at| trio.trust(at, owner, true));
    let job = trio.submit_spec(0, scripted(2));
    trio.finish();
    let begun: BTreeSet<i32> = trio.machines.values().flat_map(|one| one.begun.iter().map(|begun| begun.0)).collect();
    assert_eq!(begun, [1, 2].into());
    let revise = |asks: bool| {
        let JobSpec { file, bundle_bytes, min_version, mut settings, needs, .. } = scripted(1);
        if !asks {
            settings.scripts = Scripts::default();
        }
        let revision = Box::new(Revision { file, bundle: new, bundle_bytes, min_version, settings, needs });
        let units = UnitSet::whole(vec![1]).expect("frames");
        Input::Revise { call: 7, job, units, revision, by: "ada".into() }
    };
    trio.at(1).store.insert(new);
    (0..3).for_each(|at| trio.at(at).begun.clear());
    trio.give(other, revise(true));
    trio.wait(3 * SECOND);
    assert_eq!([0, 1, 2].map(|at| trio.begins(at, job)), [false, true, false], "nobody else trusts its author");
    trio.kill(1);
    trio.wait(20 * SECOND);
    assert!(!trio.begins(0, job) && !trio.begins(2, job), "not even if it is gone");
    trio.at(0).store.insert(new);
    trio.give(owner, revise(false));
    trio.wait(3 * SECOND);
    assert!(trio.begins(0, job) || trio.begins(2, job));
    let state = &trio.at(0).farm.jobs()[&job];
    assert!(state.spec_of(state.unit(Unit::whole(1)).revision()).expect("a revision").settings.scripts.is_none());
}

/// Machines of before know nothing of scripts, and would render without them.
#[test]
fn only_a_job_with_scripts_is_beyond_an_older_machine() {
    let mut trio = Trio::new(2);
    trio.describe(1, |own| own.op_version = 1);
    trio.trust(1, trio.names[0], true);
    let with = trio.submit_spec(0, scripted(9));
    let without = trio.submit(0, 9);
    trio.wait(3 * SECOND);
    assert_eq!(trio.says(0, 1, with), "runs an older swarm than the job needs");
    assert!(!trio.begins(1, with) && trio.begins(1, without));
    let versions = [with, without].map(|job| trio.at(0).farm.jobs()[&job].min_version);
    assert_eq!(versions, [2, 1]);
}

/// Machines of before took such a job on, and would render the revision without them.
#[test]
fn a_job_without_scripts_gets_none_by_a_revision() {
    let mut trio = Trio::new(1);
    let (owner, new) = (trio.names[0], BlobId([200; 32]));
    let job = trio.submit(0, 2);
    trio.finish();
    let JobSpec { file, bundle_bytes, min_version, settings, needs, .. } = scripted(1);
    trio.at(0).store.insert(new);
    for (call, asks) in [(7, true), (8, false)] {
        let mut settings = settings.clone();
        if !asks {
            settings.scripts = Scripts::default();
        }
        let revision = Revision { file: file.clone(), bundle: new, bundle_bytes, min_version, settings, needs };
        let (revision, units) = (Box::new(revision), UnitSet::whole(vec![1]).expect("frames"));
        trio.give(owner, Input::Revise { call, job, units, revision, by: "ada".into() });
        trio.wait(SECOND);
        assert_eq!(trio.at(0).answers.last(), Some(&(call, !asks)));
        assert_eq!(trio.at(0).farm.jobs()[&job].is_revised(), !asks);
    }
    let state = &trio.at(0).farm.jobs()[&job];
    assert!(state.spec_of(state.unit(Unit::whole(1)).revision()).expect("a revision").settings.scripts.is_none());
}

#[test]
fn a_revision_that_cannot_be_written_leaves_no_scripts_to_the_next() {
    let mut trio = Trio::new(1);
    let (owner, new) = (trio.names[0], BlobId([200; 32]));
    let job = trio.submit_spec(0, scripted(2));
    trio.finish();
    trio.at(0).store.insert(new);
    let settings = || scripted(1).settings;
    let impossible = RenderSettings { percent: Some(0), ..settings() };
    let plain = RenderSettings { scripts: Scripts::default(), ..settings() };
    for (call, settings) in [(7, impossible), (8, plain)] {
        let JobSpec { file, bundle_bytes, min_version, needs, .. } = scripted(1);
        let revision = Box::new(Revision { file, bundle: new, bundle_bytes, min_version, settings, needs });
        let units = UnitSet::whole(vec![1]).expect("frames");
        trio.give(owner, Input::Revise { call, job, units, revision, by: "ada".into() });
        trio.wait(SECOND);
        assert_eq!(trio.at(0).answers.last(), Some(&(call, call == 8)));
    }
    let state = &trio.at(0).farm.jobs()[&job];
    assert!(state.spec_of(state.unit(Unit::whole(1)).revision()).expect("a revision").settings.scripts.is_none());
}
