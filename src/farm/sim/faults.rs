//! What goes wrong, and what people do: crashes, cuts, suspends, bad disks, pauses, commands; and peace.

use super::event::Event;
use super::machine::Machine;
use super::peers::Away;
use super::{SWARM, WALL_MS, World};
use crate::farm::Farm;
use crate::farm::config::LATE_LOOP;
use crate::farm::event::{Input, JobCommand, Now};
use crate::farm::id::JobId;
use crate::farm::ledger::next_boot;
use crate::farm::op::{JobSetting, UnitSet};
use crate::seal::Sealer;
use rand::RngExt;
use rand::seq::SliceRandom;
use std::time::Duration;

/// Told back for what somebody revised; submissions count from 0.
pub(super) const REVISION_CALL: u64 = u64::MAX;
/// A dead machine is back after this, milliseconds.
const DOWN_MS: (u64, u64) = (500, 20_000);
/// A cut, or a link that works one way, lasts this, milliseconds.
const CUT_MS: (u64, u64) = (3000, 30_000);
/// A suspend, milliseconds: longer than any loop is late.
const SUSPEND_MS: (u64, u64) = (3100, 30_000);
/// A pause, milliseconds.
const PAUSE_MS: (u64, u64) = (2000, 20_000);
/// A person at the desk, of times a frame's, hundredths: from a moment to a few frames.
const DESK_PERCENT: (u64, u64) = (50, 400);
/// A disk is slow or full for this, milliseconds.
const BAD_DISK_MS: (u64, u64) = (2000, 15_000);
/// Between looks at whether a leaving machine has told that it does.
const DRAIN_EVERY: Duration = Duration::from_millis(100);

impl World {
    pub(super) fn prepare_faults(&mut self) {
        let faults = self.scenario.faults.clone();
        let kinds = [
            (faults.crash, Event::Crash),
            (faults.partition, Event::Cut),
            (faults.one_way, Event::OneWay),
            (faults.suspend, Event::Suspend),
            (faults.pause, Event::Pause { machine: None }),
            (faults.owner, Event::Owner),
            (faults.drain, Event::Drain),
            (faults.slow_disk, Event::BadDisk { full: false }),
            (faults.full_disk, Event::BadDisk { full: true }),
            (faults.gone, Event::Gone),
            (faults.command, Event::Command),
            (self.scenario.chat, Event::Chat),
        ];
        for (mean, event) in kinds {
            self.again(mean, Duration::from_secs(3), event);
        }
        if let Some((leaves, returns)) = faults.away {
            let owner = self.submissions[0].owner;
            self.plan(leaves, Event::Leave { machine: owner });
            self.plan(returns, Event::Return { machine: owner });
        }
        if let Some((from, until)) = faults.split {
            self.plan(from, Event::Split { until });
        }
        for machine in self.scenario.nodes - self.scenario.liars..self.scenario.nodes {
            self.liars.insert(machine, super::Liar::default());
            self.again(faults.lie, Duration::from_secs(3), Event::Lie { machine });
        }
        self.plan(faults.until, Event::Peace);
    }

    /// The next of a kind that comes so often on average, after `rest`.
    pub(super) fn again(&mut self, mean: Option<Duration>, rest: Duration, event: Event) {
        if let Some(mean) = mean.filter(|_| !self.peace) {
            let after = self.around(mean) + rest;
            self.plan(after, event);
        }
    }

    pub(super) fn sealer(&self, i: usize) -> Sealer {
        let machine = &self.machines[i];
        machine.key.map_or(Sealer::Cheap(machine.node), |key| Sealer::from_seed(&key))
    }

    pub(super) fn start(&mut self, i: usize) {
        if self.machines[i].is_up() {
            return;
        }
        let random = self.rng.random();
        let sealer = self.sealer(i);
        let machine = &mut self.machines[i];
        let now = Now { mono: machine.clock(self.now), wall_ms: WALL_MS };
        let rows = machine.disk.rows();
        let boot = next_boot(machine.node, &rows, random);
        let mut farm = Farm::new(sealer, boot, SWARM, rows, now);
        if let Some((full, draws)) = self.scenario.few {
            farm.tell_few(full, draws);
        }
        machine.farm = Some(farm);
        machine.is_leaving = false;
        let away = match (machine.is_at_desk, machine.capability.paused) {
            (true, _) => Some(Away::Gone),
            (false, true) => Some(Away::Paused),
            (false, false) => None,
        };
        self.set_away(i, away);
        self.checks.forget(i);
        let capability = self.machines[i].capability.clone();
        self.feed(i, Input::Capability(Box::new(capability)));
        if self.scenario.faults.gone.is_some() {
            self.plan_look(i);
        }
    }

    fn set_away(&mut self, i: usize, away: Option<Away>) {
        self.outages.extend(self.machines[i].outage(i, self.now));
        self.machines[i].away = away.map(|away| (away, self.now));
    }

    pub(super) fn crash(&mut self) {
        if !self.peace
            && let Some(i) = self.draw(|machine| machine.is_up())
        {
            self.die_for_a_while(i);
        }
        self.again(self.scenario.faults.crash, Duration::ZERO, Event::Crash);
    }

    pub(super) fn die_for_a_while(&mut self, i: usize) {
        self.die(i);
        let after = self.millis(DOWN_MS.0, DOWN_MS.1);
        self.plan(after, Event::Start { machine: i });
    }

    pub(super) fn die(&mut self, i: usize) {
        let landed = self.rng.random();
        let keep = self.scenario.faults.unsynced.then(|| self.rng.random_range(0..20));
        if self.scenario.faults.unsynced {
            let rng = &mut self.rng;
            self.machines[i].blobs.crash(|| rng.random_range(0..4) == 0);
        }
        self.end(i, landed, keep);
        for (other, link) in self.net.peers(i) {
            self.net.close_at(i, other, link);
            // A dead process resets its connections at once; a dead machine says nothing.
            let after = if self.rng.random() { self.millis(0, 100) } else { self.millis(1000, 12_000) };
            self.plan(after, Event::Close { at: other, other: i, link });
        }
    }

    /// Nothing is left of a machine but its disks.
    fn end(&mut self, i: usize, landed: bool, keep: Option<usize>) {
        let life = self.machines[i].life;
        for key in self.machines[i].renders.keys().copied().collect::<Vec<_>>() {
            self.orphans.insert(key, (i, self.now));
            self.one_copy_less(i, key);
        }
        self.claims.retain(|(of, _, _), _| *of != i);
        self.taking.remove(&i);
        self.machines[i].crash(landed, keep);
        self.set_away(i, Some(Away::Gone));
        self.spread_without(i);
        // Whoever submitted and got no answer does it again.
        for job in 0..self.submissions.len() {
            if self.submissions[job].owner == i && self.submissions[job].asked == Some(life) {
                self.plan(Duration::from_secs(1), Event::Submit { job });
            }
        }
    }

    pub(super) fn cut(&mut self) {
        if self.peace {
            return;
        }
        let sides = self.rng.random_range(2..=3);
        let sides = (0..self.machines.len()).map(|_| self.rng.random_range(0..sides)).collect();
        self.part(sides);
        let after = self.millis(CUT_MS.0, CUT_MS.1);
        self.plan(after, Event::Heal);
        self.again(self.scenario.faults.partition, after, Event::Cut);
    }

    pub(super) fn split(&mut self, until: Duration) {
        let mut sides: Vec<u32> = (0..self.machines.len()).map(|i| (i % 2) as u32).collect();
        sides.shuffle(&mut self.rng);
        self.part(sides);
        self.plan_at(until, Event::Heal);
    }

    fn part(&mut self, sides: Vec<u32>) {
        self.net.cut(sides);
        for (a, b) in self.pairs.clone() {
            if !self.net.reaches(a, b) {
                self.close_unheard(a, b);
            }
        }
    }

    /// Ends of a connection that nothing passes may notice, each by itself.
    fn close_unheard(&mut self, a: usize, b: usize) {
        for (at, other) in [(a, b), (b, a)] {
            if let Some(link) = self.net.open_at(at, other)
                && self.rng.random()
            {
                let after = self.millis(500, 15_000);
                self.plan(after, Event::Close { at, other, link });
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.net.heal();
        self.spread_anew();
    }

    pub(super) fn one_way(&mut self) {
        if self.peace {
            return;
        }
        let (from, to) = (self.rng.random_range(0..self.machines.len()), self.rng.random_range(0..self.machines.len()));
        let after = self.millis(CUT_MS.0, CUT_MS.1);
        if from != to {
            self.net.deafen(from, to, true);
            self.close_unheard(from, to);
            self.plan(after, Event::BothWays { from, to });
        }
        self.again(self.scenario.faults.one_way, Duration::ZERO, Event::OneWay);
    }

    pub(super) fn suspend(&mut self) {
        if !self.peace
            && let Some(i) = self.draw(|machine| machine.is_up())
        {
            let after = self.millis(SUSPEND_MS.0, SUSPEND_MS.1);
            self.machines[i].asleep_until = self.now + after;
            self.plan(after, Event::Awake { machine: i });
            self.set_away(i, Some(Away::Asleep));
            self.spread_without(i);
            // What it renders stands still.
            let life = self.machines[i].life;
            let renders: Vec<_> = self.machines[i].renders.keys().copied().collect();
            for (job, unit) in renders {
                self.serial += 1;
                let serial = self.serial;
                let Some(render) = self.machines[i].renders.get_mut(&(job, unit)) else { continue };
                (render.serial, render.ends) = (serial, render.ends + after);
                let ends = render.ends;
                self.plan_at(ends, Event::RenderEnd { to: i, life, job, unit, serial });
                self.plan_at(self.now + after, Event::RenderProgress { to: i, life, job, unit, serial });
            }
            for (other, link) in self.net.peers(i) {
                if self.rng.random() {
                    let after = self.millis(5000, 30_000);
                    self.plan(after, Event::Close { at: other, other: i, link });
                    self.plan(after, Event::Close { at: i, other, link });
                }
            }
        }
        self.again(self.scenario.faults.suspend, Duration::ZERO, Event::Suspend);
    }

    pub(super) fn awake(&mut self, i: usize) {
        let Some((Away::Asleep, since)) = self.machines[i].away else { return };
        let away = self.machines[i].capability.paused.then_some(Away::Paused);
        self.set_away(i, away);
        // Peace may wake it before it would notice that it slept.
        let noticed = self.now - since > LATE_LOOP;
        let has_neighbours = self.machines[i].farm.as_ref().is_some_and(|farm| farm.roster().neighbours().count() > 0);
        self.machines[i].woke = (noticed && has_neighbours).then_some(self.now);
    }

    pub(super) fn pause(&mut self, machine: Option<usize>) {
        if let Some(i) = machine {
            self.set_paused(i, false);
            return;
        }
        if !self.peace
            && let Some(i) = self.draw(Machine::is_on_duty)
        {
            self.set_paused(i, true);
            let after = self.millis(PAUSE_MS.0, PAUSE_MS.1);
            self.plan(after, Event::Pause { machine: Some(i) });
        }
        self.again(self.scenario.faults.pause, Duration::ZERO, Event::Pause { machine: None });
    }

    /// A person comes back and wants all of the machine at once, as `swarm node pause --drop` does.
    pub(super) fn owner(&mut self) {
        if !self.peace
            && let Some(i) = self.draw(Machine::is_on_duty)
        {
            let percent = self.rng.random_range(DESK_PERCENT.0..DESK_PERCENT.1);
            let after = self.scenario.render.mul_f64(percent as f64 / 100.0);
            self.set_paused(i, true);
            self.feed(i, Input::GiveBack);
            self.check_free(i);
            self.machines[i].is_at_desk = true;
            self.set_away(i, Some(Away::Gone));
            self.plan(after, Event::Pause { machine: Some(i) });
        }
        self.again(self.scenario.faults.owner, Duration::ZERO, Event::Owner);
    }

    pub(super) fn set_paused(&mut self, i: usize, paused: bool) {
        self.machines[i].capability.paused = paused;
        self.machines[i].is_at_desk = false;
        if self.machines[i].is_up() && self.machines[i].asleep_until <= self.now {
            self.set_away(i, paused.then_some(Away::Paused));
        }
        let capability = self.machines[i].capability.clone();
        self.feed(i, Input::Capability(Box::new(capability)));
    }

    /// A daemon is ended politely: it hands back what it has in hand.
    pub(super) fn drain(&mut self) {
        if !self.peace
            && let Some(i) = self.draw(Machine::is_on_duty)
        {
            self.machines[i].is_leaving = true;
            self.set_away(i, Some(Away::Gone));
            let life = self.machines[i].life;
            self.feed(i, Input::Leave);
            self.check_free(i);
            self.plan(DRAIN_EVERY, Event::Drained { machine: i, life });
        }
        self.again(self.scenario.faults.drain, Duration::ZERO, Event::Drain);
    }

    pub(super) fn drained(&mut self, i: usize, life: u32) {
        let machine = &self.machines[i];
        if machine.life != life {
            return;
        }
        if !machine.farm.as_ref().is_some_and(Farm::has_left) {
            return self.plan(DRAIN_EVERY, Event::Drained { machine: i, life });
        }
        self.end(i, true, None);
        for (other, link) in self.net.peers(i) {
            self.net.close_at(i, other, link);
            let after = self.millis(1, 6);
            self.plan(after, Event::Close { at: other, other: i, link });
        }
        let after = if self.peace { Duration::ZERO } else { self.millis(DOWN_MS.0, DOWN_MS.1) };
        self.plan(after, Event::Start { machine: i });
    }

    pub(super) fn bad_disk(&mut self, full: bool) {
        let faults = &self.scenario.faults;
        let mean = if full { faults.full_disk } else { faults.slow_disk };
        if !self.peace
            && let Some(i) = self.draw(|machine| machine.is_up())
        {
            let until = self.now + self.millis(BAD_DISK_MS.0, BAD_DISK_MS.1);
            let disk = &mut self.machines[i].disk;
            *(if full { &mut disk.full_until } else { &mut disk.slow_until }) = until;
        }
        self.again(mean, Duration::ZERO, Event::BadDisk { full });
    }

    pub(super) fn command(&mut self) {
        if self.peace {
            return;
        }
        if let Some(i) = self.draw(|machine| machine.is_up()) {
            let draw: u32 = self.rng.random_range(0..100);
            let jobs: Vec<JobId> = self.machines[i].farm.iter().flat_map(|farm| farm.jobs().keys().copied()).collect();
            if !jobs.is_empty() {
                let job = jobs[self.rng.random_range(0..jobs.len())];
                let frame = self.rng.random_range(1..=self.scenario.frames as i32);
                let command = match (draw, UnitSet::whole(vec![frame, frame.max(2) - 1])) {
                    (0..25, _) => JobCommand::Set(JobSetting::Paused(self.rng.random())),
                    (25..50, _) => JobCommand::Set(JobSetting::Priority(self.rng.random_range(0..=100))),
                    (50..60, _) => JobCommand::Cancel("user".into()),
                    (60..70, _) => JobCommand::Delete,
                    (70..80, Some(units)) => {
                        let revision = Box::new(self.make_revision(i));
                        let revise = Input::Revise { call: REVISION_CALL, job, units, revision, by: "user".into() };
                        self.feed(i, revise);
                        return self.again(self.scenario.faults.command, Duration::ZERO, Event::Command);
                    }
                    (_, Some(units)) => JobCommand::Requeue { units, by: "user".into() },
                    (_, None) => return,
                };
                self.feed(i, Input::Command { job, command });
            }
        }
        self.again(self.scenario.faults.command, Duration::ZERO, Event::Command);
    }

    pub(super) fn chat(&mut self) {
        self.again(self.scenario.chat, Duration::ZERO, Event::Chat);
        let i = self.rng.random_range(0..self.machines.len());
        let Some(job) = self.submitted.first().copied().filter(|_| !self.peace) else { return };
        let setting = JobSetting::Priority(self.rng.random_range(0..=100));
        self.feed(i, Input::Command { job, command: JobCommand::Set(setting) });
    }

    /// What waits for a machine to wake or for its disk happens now: a write that began before is done like any after.
    fn hasten(&mut self) {
        let machines = &self.machines;
        self.queue.hasten(self.now, |at, event| {
            let asleep = event.concerns().map(|machine| machines[machine].asleep_until);
            asleep == Some(at) || matches!(event, Event::Committed { .. })
        });
    }

    pub(super) fn make_peace(&mut self) {
        self.peace = true;
        self.net.heal();
        self.net.hear();
        self.spread_anew();
        self.hasten();
        for i in 0..self.machines.len() {
            self.machines[i].asleep_until = Duration::ZERO;
            self.awake(i);
            let disk = &mut self.machines[i].disk;
            (disk.slow_until, disk.full_until) = (Duration::ZERO, Duration::ZERO);
            self.start(i);
            if self.machines[i].capability.paused {
                self.set_paused(i, false);
            }
        }
        // Whoever paused a job has forgotten it; somebody else resumes it, once word of every pause is round.
        let after = Duration::from_secs(20);
        if self.scenario.faults.command.is_some() {
            for i in 0..self.machines.len() {
                let jobs: Vec<JobId> = self.submitted.iter().copied().collect();
                for job in jobs {
                    let command = JobCommand::Set(JobSetting::Paused(false));
                    let input = Box::new(Input::Command { job, command });
                    self.plan(after, Event::Input { to: i, life: self.machines[i].life, input });
                }
            }
        }
    }

    pub(super) fn draw(&mut self, fits: impl Fn(&Machine) -> bool) -> Option<usize> {
        let able: Vec<usize> = (0..self.machines.len())
            .filter(|i| fits(&self.machines[*i]) && self.machines[*i].asleep_until <= self.now)
            .collect();
        if able.is_empty() { None } else { Some(able[self.rng.random_range(0..able.len())]) }
    }
}
