//! Each rule of a job as a fact.

use super::*;
use crate::farm::blame::Blame;
use crate::farm::config::ORPHAN_AFTER;
use crate::farm::event::{JobCommand, Load};
use crate::farm::fit::{Unfit, fits};
use crate::farm::id::ActorId;
use crate::farm::message::{GpuInfo, Heartbeat};
use crate::farm::op::{ClaimKind, FailureKind, JobSetting};
use crate::farm::reuse::Promises;
use crate::farm::roster::Roster;
use crate::farm::rules::{Chunk, Order};
use crate::farm::schedule::{Choice, TAKEN_OVER, View};
use crate::farm::state::JobState;
use crate::farm::why::{Hold, Standing, Wait};

const SECOND: Duration = Duration::from_secs(1);

fn ruled(frames: i32, change: impl Fn(&mut Rules)) -> JobSpec {
    let mut spec = spec(frames);
    change(&mut spec.rules);
    spec
}

impl Trio {
    /// Frames of a job a machine renders, ascending.
    fn frames(&mut self, at: usize, job: JobId) -> Vec<i32> {
        self.at(at).rendering.iter().filter(|(of, _)| *of == job).map(|(_, unit)| unit.frame).collect()
    }

    fn busy(&mut self, job: JobId) -> usize {
        (0..self.names.len()).map(|at| self.frames(at, job).len()).sum()
    }

    fn set(&mut self, at: usize, job: JobId, setting: JobSetting) {
        let node = self.names[at];
        self.give(node, Input::Command { job, command: JobCommand::Set(setting) });
        self.wait(SECOND);
    }

    fn fail(&mut self, at: usize) {
        let node = self.names[at];
        for (job, unit) in std::mem::take(&mut self.at(at).rendering) {
            let (kind, message) = (FailureKind::Crash, "it died".to_owned());
            self.give(node, Input::RenderFailed { job, unit, epoch: 0, kind, message, log: None });
        }
        self.wait(STEP);
    }

    pub(super) fn describe(&mut self, at: usize, change: impl Fn(&mut Capability)) {
        let node = self.names[at];
        let mut capability = self.at(at).farm.roster().own().expect("told").clone();
        change(&mut capability);
        self.give(node, Input::Capability(Box::new(capability)));
        self.wait(STEP);
    }

    fn load(&mut self, at: usize, load: Load) {
        let node = self.names[at];
        self.give(node, Input::Load(load));
        self.wait(3 * SECOND);
    }

    /// How the machine `of` stands to a job, as the first one sees it.
    fn standing(&mut self, job: JobId, of: usize) -> Standing {
        let (now, node) = (self.now, self.names[of]);
        let farm = &self.at(0).farm;
        let lines = farm.why(&farm.jobs()[&job], now);
        lines.into_iter().find(|(of, _)| *of == node).expect("a line for every machine").1
    }

    fn hold(&mut self, job: JobId) -> Option<Hold> {
        let now = self.now;
        let farm = &self.at(0).farm;
        farm.hold(&farm.jobs()[&job], now)
    }
}

#[test]
fn no_more_machines_work_on_a_job_than_it_allows_and_the_cap_may_change() {
    let mut trio = Trio::new(3);
    let job = trio.submit_spec(0, ruled(30, |rules| rules.max_nodes = Some(2)));
    trio.wait(3 * SECOND);
    for _ in 0..5 {
        assert_eq!(trio.busy(job), 2);
        (0..3).for_each(|at| trio.render(at));
        trio.wait(SECOND);
    }
    let idle = (0..3).find(|at| trio.frames(*at, job).is_empty()).expect("one is left out");
    assert_eq!(trio.standing(job, idle), Standing::Capped(2));
    trio.wait(3 * SECOND);
    trio.set(0, job, JobSetting::MaxNodes(Some(1)));
    assert_eq!(trio.busy(job), 2, "what is far on is ended");
    (0..3).for_each(|at| trio.render(at));
    trio.wait(3 * SECOND);
    assert_eq!(trio.busy(job), 1);
    trio.set(0, job, JobSetting::MaxNodes(None));
    assert_eq!(trio.busy(job), 3);
}

#[test]
fn machines_that_met_beyond_the_cap_agree_who_stays() {
    let mut trio = Trio::new(2);
    let (first, second) = (trio.names[0], trio.names[1]);
    let job = trio.submit_spec(
        0,
        ruled(9, |rules| {
            rules.max_nodes = Some(1);
            rules.paused = true;
        }),
    );
    trio.wait(3 * SECOND);
    // Both hear that it goes on before either hears of the other's claim.
    for node in [first, second] {
        let command = JobCommand::Set(JobSetting::Paused(false));
        let now = Now { mono: trio.now, wall_ms: 0 };
        let machine = trio.machines.get_mut(&node).expect("a machine");
        let effects = machine.farm.handle(now, Input::Command { job, command }, &mut trio.rng);
        effects.into_iter().for_each(|effect| Trio::perform(node, machine, effect, &mut trio.inbox));
    }
    trio.drain();
    trio.wait(SECOND);
    assert_eq!(trio.busy(job), 1);
}

#[test]
fn a_machine_that_is_not_of_the_kind_says_precisely_why() {
    let mut trio = Trio::new(2);
    let gpu = |name: &str| GpuInfo {
        name: name.into(),
        memory_bytes: 24 << 30,
        driver: "1".into(),
        usable: true,
        backend: "OPTIX".into(),
    };
    trio.describe(0, |own| {
        own.tags = vec!["fast".into()];
        own.gpus = vec![gpu("NVIDIA GeForce RTX 4090")];
        own.memory_bytes = 64_000_000_000;
    });
    trio.describe(1, |own| own.memory_bytes = 8_000_000_000);
    let refused = |trio: &mut Trio, change: &dyn Fn(&mut JobSpec)| {
        let mut spec = spec(1);
        change(&mut spec);
        let job = trio.submit_spec(0, spec);
        let node = trio.names[1];
        let farm = &trio.at(0).farm;
        fits(farm.roster(), node, &farm.jobs()[&job]).map_err(|unfit| unfit.to_string())
    };
    let says = |text: &str| Err(text.to_owned());
    assert_eq!(refused(&mut trio, &|_| {}), Ok(()));
    assert_eq!(refused(&mut trio, &|spec| spec.rules.tags = ["fast".to_owned()].into()), says("lacks tag fast"));
    assert_eq!(
        refused(&mut trio, &|spec| spec.rules.gpu_name = "*4090*".parse().ok()),
        says("no GPU named *4090* that Blender can use")
    );
    assert_eq!(
        refused(&mut trio, &|spec| spec.rules.min_memory_bytes = Some(9_500_000_000)),
        says("8 GB of memory, needs 9.5 GB")
    );
    assert_eq!(refused(&mut trio, &|spec| spec.series.minor = 2), says("no Blender 4.2"));
}

#[test]
fn memory_that_others_took_and_a_person_at_the_desk_keep_a_machine_off_until_they_are_gone() {
    let mut trio = Trio::new(2);
    trio.describe(1, |own| own.memory_bytes = 16_000_000_000);
    trio.load(1, Load { free_memory_bytes: Some(6_000_000_000), ..Load::default() });
    trio.describe(0, |own| own.memory_bytes = 16_000_000_000);
    let job = trio.submit_spec(0, ruled(9, |rules| rules.min_memory_bytes = Some(9_000_000_000)));
    let unfit = Unfit::LowMemory { free: 6_000_000_000, needs: 9_000_000_000 };
    assert_eq!(unfit.to_string(), "6 GB free, needs 9 GB");
    trio.wait(3 * SECOND);
    assert_eq!(trio.standing(job, 1), Standing::Unfit(unfit));
    assert!(trio.frames(1, job).is_empty());
    trio.load(1, Load { free_memory_bytes: Some(10_000_000_000), at_desk: true, ..Load::default() });
    assert_eq!(trio.standing(job, 1), Standing::Unfit(Unfit::AtDesk));
    let own = trio.submit(1, 3);
    trio.wait(3 * SECOND);
    assert_eq!(trio.frames(1, own).len(), 1, "one's own jobs do start");
    trio.render(1);
    trio.load(1, Load { free_memory_bytes: Some(10_000_000_000), ..Load::default() });
    trio.render(1);
    trio.wait(3 * SECOND);
    assert_eq!(trio.frames(1, job).len() + trio.frames(1, own).len(), 1);
}

#[test]
fn frames_begin_in_the_order_asked_for() {
    for (order, wanted) in
        [(Order::Forward, vec![1, 2, 3, 4, 5, 6, 7, 8, 9]), (Order::FirstLastMiddle, vec![1, 9, 5, 3, 7, 2, 4, 6, 8])]
    {
        let mut trio = Trio::new(1);
        let job = trio.submit_spec(0, ruled(9, |rules| rules.order = order));
        let mut seen = Vec::new();
        for _ in 0..9 {
            seen.extend(trio.frames(0, job));
            trio.render(0);
            trio.wait(STEP);
        }
        assert_eq!(seen, wanted, "{order}");
    }
}

#[test]
fn a_chunk_is_claimed_whole_and_everyone_cuts_the_job_the_same_way() {
    let mut trio = Trio::new(2);
    let job = trio.submit_spec(0, ruled(12, |rules| rules.chunk = Chunk::Units(4)));
    trio.wait(2 * SECOND);
    for at in 0..2 {
        let hands: Vec<i32> = trio.at(at).farm.hands().keys().map(|(_, unit)| unit.frame).collect();
        assert!([vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10, 11, 12]].contains(&hands), "{hands:?}");
        assert_eq!(trio.frames(at, job), hands[..1]);
    }
}

#[test]
fn chunks_are_kept_in_every_order() {
    for order in [Order::Forward, Order::FirstLastMiddle] {
        let mut trio = Trio::new(1);
        trio.submit_spec(0, ruled(9, |rules| (rules.chunk, rules.order) = (Chunk::Units(3), order)));
        trio.wait(SECOND);
        let hands: Vec<i32> = trio.at(0).farm.hands().keys().map(|(_, unit)| unit.frame).collect();
        assert_eq!(hands, [1, 2, 3], "{order}");
    }
}

#[test]
fn a_job_in_one_chunk_is_rendered_by_one_machine_in_order_one_frame_at_a_time() {
    let mut trio = Trio::new(2);
    (0..2).for_each(|at| trio.describe(at, |own| own.slots = 2));
    let job = trio.submit_spec(0, ruled(6, |rules| rules.chunk = Chunk::All));
    let at = (0..2).find(|at| !trio.frames(*at, job).is_empty()).expect("one has it");
    for frame in 1..=6 {
        trio.wait(SECOND);
        assert_eq!((trio.frames(at, job), trio.busy(job)), (vec![frame], 1));
        trio.render(at);
    }
}

#[test]
fn a_job_without_retries_gives_a_frame_up_at_its_first_failure() {
    for (retries, left) in [(0, false), (1, true)] {
        let mut trio = Trio::new(3);
        let job = trio.submit_spec(0, ruled(1, |rules| rules.retries = retries));
        trio.wait(SECOND);
        let at = (0..3).find(|at| !trio.frames(*at, job).is_empty()).expect("one has it");
        trio.fail(at);
        trio.wait(SECOND);
        assert_eq!(trio.busy(job) == 1, left, "{retries} retries");
    }
}

#[test]
fn a_frame_is_not_given_up_because_the_only_machine_that_renders_is_away() {
    let mut trio = Trio::new(2);
    trio.describe(0, |own| own.slots = 0);
    let job = trio.submit_spec(0, ruled(3, |_| ()));
    trio.wait(SECOND);
    trio.fail(1);
    trio.wait(SECOND);
    trio.describe(1, |own| own.paused = true);
    while trio.busy(job) > 0 {
        trio.render(1);
        trio.wait(SECOND);
    }
    let collector = &trio.at(0).farm.collectors()[&job];
    assert!(!collector.ended && !trio.at(0).farm.jobs()[&job].is_over());
    trio.describe(1, |own| own.paused = false);
    trio.finish();
    assert!(trio.at(0).farm.jobs()[&job].unfinished().is_empty());
}

#[test]
fn a_job_is_canceled_when_it_has_been_known_for_as_long_as_its_deadline() {
    let mut trio = Trio::new(2);
    let job = trio.submit_spec(0, ruled(9, |rules| rules.deadline = Some(60 * SECOND)));
    trio.wait(55 * SECOND);
    assert_eq!(trio.busy(job), 2);
    // The submitter's machine decides while it is there; any other, when it is not.
    trio.kill(0);
    trio.wait(4 * SECOND);
    assert!(trio.at(1).farm.jobs()[&job].canceled.is_none());
    trio.wait(6 * SECOND);
    let (by, _) = trio.at(1).farm.jobs()[&job].canceled.clone().expect("canceled");
    assert_eq!(by, "its deadline of 1m");
    assert_eq!(trio.busy(job), 1, "the dead one's is still noted");
}

#[test]
fn a_job_waits_for_the_one_that_comes_first_and_stays_queued_if_that_does_not_complete() {
    let mut trio = Trio::new(2);
    let first = trio.submit(0, 2);
    let second = trio.submit_spec(0, ruled(2, |rules| rules.after = Some(first)));
    let third = trio.submit_spec(0, ruled(2, |rules| rules.after = Some(second)));
    trio.wait(2 * SECOND);
    assert_eq!((trio.busy(first), trio.busy(second)), (2, 0));
    assert_eq!(trio.hold(second), Some(Hold::After(first, Wait::Open)));
    (0..2).for_each(|at| trio.render(at));
    trio.wait(2 * SECOND);
    assert_eq!((trio.busy(second), trio.busy(third)), (2, 0));
    let node = trio.names[0];
    trio.give(node, Input::Command { job: second, command: JobCommand::Cancel("ada".into()) });
    trio.wait(2 * SECOND);
    assert_eq!(trio.hold(third), Some(Hold::After(second, Wait::Canceled)));
    assert!(matches!(trio.standing(third, 1), Standing::Held(_)));
    trio.set(1, third, JobSetting::After(None));
    assert_eq!(trio.busy(third), 2);
}

#[test]
fn a_job_submitted_paused_spreads_and_does_not_start_and_a_pause_lets_frames_end() {
    let mut trio = Trio::new(2);
    let job = trio.submit_spec(0, ruled(9, |rules| rules.paused = true));
    trio.wait(2 * SECOND);
    assert_eq!((trio.busy(job), trio.hold(job)), (0, Some(Hold::Paused)));
    assert!(trio.at(1).farm.has_bundle(BUNDLE));
    trio.set(1, job, JobSetting::Paused(false));
    assert_eq!(trio.busy(job), 2);
    trio.set(0, job, JobSetting::Paused(true));
    assert_eq!(trio.busy(job), 2, "what runs, runs on");
    (0..2).for_each(|at| trio.render(at));
    trio.wait(2 * SECOND);
    assert_eq!(trio.busy(job), 0);
}

#[test]
fn a_job_of_higher_priority_takes_the_next_free_slot_and_what_waits_of_lower_ones_is_released() {
    let mut trio = Trio::new(1);
    let low = trio.submit_spec(0, ruled(20, |rules| rules.chunk = Chunk::Units(5)));
    trio.wait(SECOND);
    assert_eq!(trio.at(0).farm.hands().len(), 5);
    let mut spec = spec(3);
    spec.priority = 80;
    let high = trio.submit_spec(0, spec);
    trio.wait(SECOND);
    assert_eq!((trio.frames(0, low).len(), trio.at(0).farm.hands().len()), (1, 1), "what has begun goes on");
    trio.render(0);
    trio.wait(STEP);
    assert_eq!((trio.busy(low), trio.busy(high)), (0, 1));
    trio.set(0, high, JobSetting::Priority(10));
    trio.render(0);
    trio.wait(STEP);
    assert_eq!((trio.busy(low), trio.busy(high)), (1, 0));
}

#[test]
fn three_failures_of_a_job_keep_a_machine_off_it_unless_nobody_else_is_left_and_are_forgiven() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 30);
    for _ in 0..3 {
        trio.wait(SECOND);
        trio.fail(1);
    }
    trio.wait(SECOND);
    assert!(trio.frames(1, job).is_empty());
    assert_eq!(trio.standing(job, 1), Standing::KeptOff);
    trio.describe(0, |own| own.paused = true);
    trio.wait(SECOND);
    assert_eq!(trio.frames(1, job).len(), 1, "it is the only one left");
    trio.render(1);
    trio.describe(0, |own| own.paused = false);
    trio.render(1);
    trio.wait(SECOND);
    assert!(trio.frames(1, job).is_empty());
    // Five hours in leaps, which a suspended machine makes too.
    for _ in 0..5 {
        trio.now += Duration::from_secs(3700);
        trio.wait(3 * SECOND);
    }
    assert_eq!(trio.frames(1, job).len(), 1);
}

#[test]
fn a_machine_whose_failures_others_render_in_two_jobs_claims_nothing_until_a_test_frame_renders() {
    let mut trio = Trio::new(3);
    for _ in 0..2 {
        let job = trio.submit(0, 3);
        trio.wait(SECOND);
        assert!(!trio.at(1).farm.roster().own().expect("told").sick);
        trio.fail(1);
        for _ in 0..4 {
            [0, 2].into_iter().for_each(|at| trio.render(at));
            trio.render(1);
            trio.wait(SECOND);
        }
        assert!(trio.at(0).farm.jobs()[&job].is_over());
    }
    assert_eq!(trio.at(1).self_tests, 1);
    let job = trio.submit(0, 9);
    trio.wait(2 * SECOND);
    assert_eq!(trio.standing(job, 1), Standing::Unfit(Unfit::Sick));
    let node = trio.names[1];
    trio.give(node, Input::SelfTested(Err("it died".into())));
    trio.wait(599 * SECOND);
    assert_eq!((trio.busy(job), trio.at(1).self_tests), (2, 1));
    trio.wait(2 * SECOND);
    assert_eq!(trio.at(1).self_tests, 2);
    trio.give(node, Input::SelfTested(Ok(())));
    trio.wait(SECOND);
    assert_eq!((trio.busy(job), trio.at(1).self_tests), (3, 2));
}

#[test]
fn a_machine_given_back_is_free_at_once_and_its_frames_open_at_once() {
    for is_leaving in [false, true] {
        let mut trio = Trio::new(2);
        let job = trio.submit(0, 2);
        trio.wait(2 * SECOND);
        let node = trio.names[1];
        let frame = trio.frames(1, job);
        if !is_leaving {
            trio.describe(1, |own| own.paused = true);
            assert_eq!(trio.frames(1, job), frame, "a pause lets the frame end");
        }
        trio.give(node, if is_leaving { Input::Leave } else { Input::GiveBack });
        assert!(trio.frames(1, job).is_empty());
        trio.render(0);
        trio.wait(STEP);
        assert_eq!(trio.frames(0, job), frame);
        trio.wait(5 * SECOND);
        assert!(trio.frames(1, job).is_empty());
        assert!(trio.at(0).farm.jobs()[&job].failures_of(node) == 0, "and nothing failed");
    }
}

#[test]
fn a_slow_machine_leaves_the_last_frames_to_one_that_ends_them_sooner_but_not_for_ever() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 6);
    trio.wait(3 * SECOND);
    trio.render_in(1, 60_000);
    trio.wait(3 * SECOND);
    trio.render_in(0, 5_000);
    trio.wait(3 * SECOND);
    assert_eq!(trio.busy(job), 2, "two are done, two are open");
    trio.render_in(1, 60_000);
    trio.wait(3 * SECOND);
    assert!(trio.frames(1, job).is_empty(), "the first ends both within fifteen seconds");
    trio.wait(70 * SECOND);
    assert_eq!(trio.frames(1, job).len(), 1, "it did not");
}

/// What an idle machine that has the scene takes of one job.
fn chooses(me: ActorId, now: Duration, roster: &Roster, job: JobState) -> Option<Choice> {
    let view = View {
        me,
        now,
        roster,
        jobs: &BTreeMap::from([(job.id, job)]),
        hands: &BTreeMap::new(),
        ready: &BTreeSet::from([BUNDLE]),
        promises: &Promises::default(),
        blame: &Blame::default(),
        is_patient: false,
    };
    view.choose()
}

#[test]
fn what_is_orphaned_is_not_rendered_anew_by_a_machine_that_failed_it_twice() {
    let actor = |i: u8| ActorId { node: NodeId([i; 32]), boot: BootId([0; 8]) };
    let (me, job, unit) = (actor(1), JobId([5; 16]), Unit::whole(1));
    let chosen = |failures: u64| {
        let mut state = JobState::new(job);
        state.apply(actor(2), 0, Op::Submit { min_version: 1, spec: Box::new(spec(1)) });
        for seq in 0..failures {
            let (kind, message) = (FailureKind::Crash, String::new());
            state.apply(me, seq, Op::Failed { epoch: 0, unit, kind, message, log: None });
        }
        let output = Output { path: "1.png".into(), blob: BlobId([9; 32]), bytes: 1, role: OutputRole::Image };
        let (device, build) = (String::new(), String::new());
        let done = Op::Done { epoch: 0, revision: 0, unit, outputs: vec![output], millis: 1, device, build };
        state.apply(actor(3), 0, done);
        let mut roster = Roster::new(me);
        roster.set_own(capability());
        chooses(me, ORPHAN_AFTER, &roster, state).is_some()
    };
    assert!(chosen(0), "nobody is left who holds the frame");
    assert!(!chosen(2));
}

#[test]
fn machines_that_find_several_orphans_do_not_all_begin_with_the_same_one() {
    let actor = |i: u8| ActorId { node: NodeId([i; 32]), boot: BootId([i; 8]) };
    let (job, now) = (JobId([5; 16]), 2 * ORPHAN_AFTER);
    let mut state = JobState::new(job);
    state.apply(actor(9), 0, Op::Submit { min_version: 1, spec: Box::new(spec(8)) });
    for frame in 1..=8 {
        let blob = BlobId([frame as u8; 32]);
        let outputs = vec![Output { path: format!("{frame}.png"), blob, bytes: 1, role: OutputRole::Image }];
        let (unit, device, build) = (Unit::whole(frame), String::new(), String::new());
        state.apply(actor(8), 0, Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 1, device, build });
    }
    let machines: Vec<ActorId> = (1..=4).map(actor).collect();
    let chosen: BTreeSet<Unit> = machines
        .iter()
        .map(|me| {
            let mut roster = Roster::new(*me);
            roster.set_own(capability());
            for other in machines.iter().filter(|other| *other != me) {
                roster.connected(other.node, other.boot, now);
                roster.capability(other.node, capability());
            }
            chooses(*me, now, &roster, state.clone()).expect("an orphan").units[0].0
        })
        .collect();
    assert_eq!(chosen.len(), machines.len(), "{chosen:?}");
}

#[test]
fn whoever_looks_again_and_again_comes_to_every_unit_of_a_large_job() {
    let mut state = JobState::new(JobId([5; 16]));
    let frames = UNITS_LOOKED_AT as i32 * 5 / 2;
    let owner = ActorId { node: NodeId([1; 32]), boot: BootId([1; 8]) };
    state.apply(owner, 0, Op::Submit { min_version: 1, spec: Box::new(spec(frames)) });
    let looks: Vec<Vec<Unit>> = (7..10).map(|draw| state.some_units(draw).collect()).collect();
    assert!(looks.iter().all(|units| units.len() <= UNITS_LOOKED_AT));
    let all: BTreeSet<Unit> = looks.into_iter().flatten().collect();
    assert_eq!(all.len(), frames as usize);
}

#[test]
fn nobody_is_said_to_be_busy_with_the_job_that_is_asked_about() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 2);
    trio.wait(Duration::from_secs(3));
    for _ in 0..3 {
        (0..2).for_each(|at| trio.render(at));
        trio.wait(STEP);
        let (now, farm) = (trio.now, &trio.at(0).farm);
        let standings = farm.why(&farm.jobs()[&job], now);
        assert!(standings.iter().all(|(_, standing)| *standing != Standing::Busy(job)), "{standings:?}");
    }
}

#[test]
fn what_waits_is_taken_over_unless_a_stronger_machine_just_took_it_over() {
    let actor = |i: u8| ActorId { node: NodeId([i; 32]), boot: BootId([i; 8]) };
    let (me, job) = (actor(5), JobId([5; 16]));
    let takes_from = |holder: ActorId, score: u32| {
        let mut state = JobState::new(job);
        state.apply(actor(2), 0, Op::Submit { min_version: 1, spec: Box::new(spec(2)) });
        let units = UnitSet::whole(vec![1, 2]).expect("frames");
        state.apply(holder, 0, Op::Claim { epoch: 0, units, kind: ClaimKind::Primary, score });
        let mut roster = Roster::new(me);
        roster.set_own(capability());
        roster.connected(holder.node, holder.boot, Duration::ZERO);
        let beat = Heartbeat {
            counter: 1,
            boot: holder.boot,
            load_percent: 0,
            free_memory_bytes: None,
            at_desk: false,
            in_hand: Vec::new(),
            neighbours: Vec::new(),
        };
        roster.heartbeat(holder.node, &beat, Duration::ZERO);
        chooses(me, Duration::ZERO, &roster, state).is_some_and(|choice| choice.taken_from == Some(holder))
    };
    assert!(takes_from(actor(9), 7));
    assert!(takes_from(actor(2), TAKEN_OVER), "it would yield");
    assert!(!takes_from(actor(9), TAKEN_OVER), "this machine would yield, and take it again");
}

#[test]
fn a_frame_that_failed_here_waits_for_no_machine_that_keeps_off_the_job() {
    let mut trio = Trio::new(2);
    let job = trio.submit(0, 6);
    trio.wait(SECOND);
    let frame = trio.frames(0, job)[0];
    for _ in 0..3 {
        trio.fail(1);
        trio.wait(SECOND);
    }
    assert!(trio.frames(1, job).is_empty(), "it keeps off");
    trio.fail(0);
    let again = |trio: &mut Trio| {
        for _ in 0..12 {
            trio.wait(SECOND);
            if (0..2).any(|at| trio.frames(at, job) == [frame]) {
                break;
            }
            (0..2).for_each(|at| trio.render(at));
        }
        (trio.frames(0, job), trio.frames(1, job))
    };
    assert_eq!(again(&mut trio), (vec![frame], vec![]));
    trio.fail(0);
    assert_eq!(again(&mut trio), (vec![], vec![frame]), "nobody else has an attempt left");
}
