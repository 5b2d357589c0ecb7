//! What goes wrong, and what people do: crashes, cuts, suspends, pauses, commands; and peace.

use super::machine::Machine;
use super::{Event, SWARM, WALL_MS, World};
use crate::farm::Farm;
use crate::farm::event::{Input, JobCommand, Now};
use crate::farm::id::JobId;
use crate::farm::ledger::next_boot;
use crate::farm::op::{JobSetting, UnitSet};
use crate::seal::Sealer;
use rand::RngExt;
use std::time::Duration;

impl World {
    pub(super) fn start(&mut self, i: usize) {
        if self.machines[i].is_up() {
            return;
        }
        let random = self.rng.random();
        let machine = &mut self.machines[i];
        let now = Now { mono: machine.clock(self.now), wall_ms: WALL_MS };
        let rows = machine.disk.rows();
        let boot = next_boot(machine.node, &rows, random);
        let farm = Farm::new(Sealer::Cheap(machine.node), boot, SWARM, rows, now);
        machine.farm = Some(farm);
        self.checks.forget(i);
        let capability = self.machines[i].capability.clone();
        self.feed(i, Input::Capability(Box::new(capability)));
    }

    pub(super) fn crash(&mut self) {
        if self.peace {
            return;
        }
        if let Some(i) = self.draw(|machine| machine.is_up()) {
            self.die(i);
            let after = self.millis(500, 20_000);
            self.plan(after, Event::Start { machine: i });
        }
        if let Some(mean) = self.scenario.faults.crash {
            let after = self.around(mean);
            self.plan(after, Event::Crash);
        }
    }

    pub(super) fn die(&mut self, i: usize) {
        let landed = self.rng.random();
        let life = self.machines[i].life;
        for key in self.machines[i].renders.keys() {
            self.orphans.insert(*key, (i, self.now));
        }
        self.machines[i].crash(landed);
        // Whoever submitted and got no answer does it again.
        for job in 0..self.submissions.len() {
            if self.submissions[job].owner == i && self.submissions[job].asked == Some(life) {
                self.plan(Duration::from_secs(1), Event::Submit { job });
            }
        }
        for (other, link) in self.net.peers(i) {
            self.net.close_at(i, other, link);
            // A dead process resets its connections at once; a dead machine says nothing.
            let after = if self.rng.random() { self.millis(0, 100) } else { self.millis(1000, 12_000) };
            self.plan(after, Event::Close { at: other, other: i, link });
        }
    }

    pub(super) fn cut(&mut self) {
        if self.peace {
            return;
        }
        let sides = self.rng.random_range(2..=3);
        let sides = (0..self.machines.len()).map(|_| self.rng.random_range(0..sides)).collect();
        self.net.cut(sides);
        for a in 0..self.machines.len() {
            for (b, link) in self.net.peers(a) {
                if !self.net.reaches(a, b) && self.rng.random() {
                    let after = self.millis(500, 15_000);
                    self.plan(after, Event::Close { at: a, other: b, link });
                }
            }
        }
        let after = self.millis(3000, 30_000);
        self.plan(after, Event::Heal);
        if let Some(mean) = self.scenario.faults.partition {
            let after = self.around(mean) + after;
            self.plan(after, Event::Cut);
        }
    }

    pub(super) fn suspend(&mut self) {
        if self.peace {
            return;
        }
        if let Some(i) = self.draw(|machine| machine.is_up()) {
            let after = self.millis(3000, 30_000);
            self.machines[i].asleep_until = self.now + after;
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
        if let Some(mean) = self.scenario.faults.suspend {
            let after = self.around(mean);
            self.plan(after, Event::Suspend);
        }
    }

    pub(super) fn pause(&mut self, machine: Option<usize>) {
        if let Some(i) = machine {
            self.set_paused(i, false);
            return;
        }
        if self.peace {
            return;
        }
        if let Some(i) = self.draw(|machine| machine.is_up() && !machine.capability.paused) {
            self.set_paused(i, true);
            let after = self.millis(2000, 20_000);
            self.plan(after, Event::Pause { machine: Some(i) });
        }
        if let Some(mean) = self.scenario.faults.pause {
            let after = self.around(mean);
            self.plan(after, Event::Pause { machine: None });
        }
    }

    pub(super) fn set_paused(&mut self, i: usize, paused: bool) {
        self.machines[i].capability.paused = paused;
        let capability = self.machines[i].capability.clone();
        self.feed(i, Input::Capability(Box::new(capability)));
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
                    (_, Some(units)) => JobCommand::Requeue { units, by: "user".into() },
                    (_, None) => return,
                };
                self.feed(i, Input::Command { job, command });
            }
        }
        if let Some(mean) = self.scenario.faults.command {
            let after = self.around(mean);
            self.plan(after, Event::Command);
        }
    }

    pub(super) fn chat(&mut self) {
        let Some(mean) = self.scenario.chat.filter(|_| !self.peace) else { return };
        let after = self.around(mean);
        self.plan(after, Event::Chat);
        let i = self.rng.random_range(0..self.machines.len());
        let Some(job) = self.submitted.first().copied() else { return };
        let setting = JobSetting::Priority(self.rng.random_range(0..=100));
        self.feed(i, Input::Command { job, command: JobCommand::Set(setting) });
    }

    pub(super) fn make_peace(&mut self) {
        self.peace = true;
        self.net.heal();
        for i in 0..self.machines.len() {
            self.machines[i].asleep_until = Duration::ZERO;
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
