//! Results that are gone from disks: when that happens, who notices, and what may be said about it.
//!
//! As with a real store, a file that is gone is on record until somebody wants to read it: a peer, the collector, or the
//! machine itself, which looks after each start and now and then.

use super::event::Event;
use super::{Invariant, World};
use crate::farm::event::Input;
use crate::farm::id::{BlobId, JobId, Unit};
use crate::farm::loss::BY_LOSS;
use crate::farm::message::LogId;
use crate::farm::op::Op;
use rand::RngExt;
use std::collections::BTreeSet;
use std::time::Duration;

/// A machine looks this long after it started, or after something was gone from its disk, milliseconds.
const LOOK_MS: (u64, u64) = (10, 20_000);
/// A store tells this long after it noticed, milliseconds.
pub(super) const TELL_MS: (u64, u64) = (1, 2000);

impl World {
    /// A result is gone from one of the disks that have it, or from all; rather one that nobody has delivered.
    pub(super) fn some_result_goes(&mut self) {
        if !self.peace {
            let delivered: BTreeSet<BlobId> = self
                .machines
                .iter()
                .flat_map(|machine| machine.folder.values())
                .flat_map(|(_, b)| b)
                .copied()
                .collect();
            let is_result = |blob: &&BlobId| self.drawn_from.contains_key(blob);
            let all: BTreeSet<BlobId> =
                self.machines.iter().flat_map(|machine| &machine.blobs.whole).filter(is_result).copied().collect();
            let needed: Vec<BlobId> = all.difference(&delivered).copied().collect();
            let of = if needed.is_empty() { all.into_iter().collect() } else { needed };
            if !of.is_empty() {
                let blob = of[self.rng.random_range(0..of.len())];
                self.goes(blob);
            }
        }
        self.again(self.scenario.faults.gone, Duration::ZERO, Event::Gone);
    }

    fn goes(&mut self, blob: BlobId) {
        let mut from: Vec<usize> =
            (0..self.machines.len()).filter(|i| self.machines[*i].blobs.whole.contains(&blob)).collect();
        if self.rng.random() {
            from = vec![from[self.rng.random_range(0..from.len())]];
        }
        self.note(|| format!("{blob:?} is gone from the disks of machines {from:?}"));
        for i in from {
            self.machines[i].blobs.gone.insert(blob);
            if self.rng.random() {
                self.plan_look(i);
            }
        }
    }

    /// A machine is going to look whether its store has what it said to have.
    pub(super) fn plan_look(&mut self, i: usize) {
        let after = self.millis(LOOK_MS.0, LOOK_MS.1);
        self.plan(after, Event::Look { machine: i, life: self.machines[i].life });
    }

    /// It looks, and tells besides what was noticed since it told last and did not come back. What it found takes a while to
    /// be told, and may be gone by then.
    pub(super) fn look(&mut self, i: usize, life: u32) {
        let machine = &self.machines[i];
        let Some(farm) = machine.farm.as_ref().filter(|_| machine.life == life) else { return };
        let all: BTreeSet<BlobId> = farm.promised().union(&machine.blobs.untold).copied().collect();
        let (here, lacking): (Vec<BlobId>, Vec<BlobId>) = all.into_iter().partition(|blob| machine.blobs.has(*blob));
        self.machines[i].blobs.untold.clear();
        lacking.iter().for_each(|blob| self.machines[i].blobs.forget(*blob));
        if !here.is_empty() {
            let after = self.millis(TELL_MS.0, TELL_MS.1);
            self.plan(after, Event::Input { to: i, life, input: Box::new(Input::BlobsHere { blobs: here }) });
        }
        if !lacking.is_empty() {
            self.feed(i, Input::BlobsGone { blobs: lacking });
        }
    }

    /// Whether a blob that somebody wants to read is gone: then the store forgets it, and tells.
    pub(super) fn is_found_gone(&mut self, i: usize, blob: BlobId) -> bool {
        let blobs = &mut self.machines[i].blobs;
        if !blobs.gone.remove(&blob) {
            return false;
        }
        blobs.whole.remove(&blob);
        blobs.untold.insert(blob);
        let (after, life) = (self.millis(TELL_MS.0, TELL_MS.1), self.machines[i].life);
        self.plan(after, Event::Look { machine: i, life });
        true
    }

    /// What a store said a moment ago of a blob that is gone by now, or of some that are here again.
    pub(super) fn as_it_is_now(&self, i: usize, input: Input) -> Input {
        match input {
            Input::BlobComplete { blob } if !self.machines[i].blobs.whole.contains(&blob) => {
                Input::BlobUnknown { blob }
            }
            Input::Undeliverable { job, collection, unit, mut gone } => {
                gone.retain(|blob| !self.machines[i].blobs.whole.contains(blob));
                Input::Undeliverable { job, collection, unit, gone }
            }
            input => input,
        }
    }

    /// What a farm says of what it lost.
    pub(super) fn check_loss(&mut self, i: usize, log: LogId, op: &Op) {
        if self.liars.contains_key(&i) {
            return;
        }
        let machine = &self.machines[i];
        let broken = match op {
            Op::Lost { blobs } => {
                self.report.lost += blobs.len();
                let there = blobs.iter().find(|blob| machine.blobs.has(**blob));
                there.map(|blob| format!("machine {i} says of {log:?} to have lost {blob:?}, and has it"))
            }
            Op::Requeue { units, by, .. } if by == BY_LOSS => {
                let state = machine.farm.as_ref().and_then(|farm| farm.jobs().get(&log));
                let is_there = |unit: &Unit| {
                    let results = state.into_iter().flat_map(|job| job.unit(*unit).current_results());
                    let mut blobs = results.map(|(_, result)| result.outputs.iter().map(|output| output.blob));
                    let folder = machine.folder.get(&(log, *unit));
                    blobs.any(|blobs| folder.is_some_and(|(_, there)| blobs.eq(there.iter().copied())))
                };
                self.report.reopened += units.frames.len();
                let is_owner = state.is_some_and(|job| job.owner() == Some(machine.node) && !job.is_over());
                let unit = units.iter().find(|unit| !is_owner || is_there(unit));
                unit.map(|unit| format!("machine {i} opens {log:?} frame {unit} anew that is not its own, or there"))
            }
            _ => None,
        };
        if let Some(detail) = broken {
            self.fail(Invariant::OnlyLostIsLost, detail);
        }
    }

    /// What a machine is about to deliver: all of it on record in its store, or else some file that is neither here nor
    /// held by anybody as far as its farm can know, so that only the folder may have it. A store that died before its farm
    /// could promise a file may have more on record.
    pub(super) fn check_delivery(&mut self, i: usize, job: JobId, unit: Unit, blobs: &[BlobId]) {
        let machine = &self.machines[i];
        let Some(farm) = &machine.farm else { return };
        let on_record = |blob: &BlobId| machine.blobs.whole.contains(blob) || machine.blobs.untold.contains(blob);
        let is_held = |blob: &BlobId| farm.jobs().get(&job).is_some_and(|job| job.holding(*blob).next().is_some());
        if !blobs.iter().all(on_record) && blobs.iter().all(|blob| farm.local.contains(blob) || is_held(blob)) {
            self.fail(Invariant::OnlyWhatIsThere, format!("machine {i} delivers {job:?} {unit}"));
        }
    }
}
