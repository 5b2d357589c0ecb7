//! Members that lie: garbage, others' logs altered, and two histories of their own.
//!
//! A liar runs an honest farm beside its lies, so that what it says is mostly believed. Its seal is real, so that it can
//! forge nothing in another's name. What it does not do: deliver results it does not have. Whoever is let into a swarm
//! is trusted to render what it says it rendered; nothing short of rendering twice could tell.

use super::World;
use super::event::{Event, Packet};
use crate::farm::id::{ActorId, BootId, JobId, NodeId, Unit};
use crate::farm::ledger::Ledger;
use crate::farm::message::{LogId, Message, Suffix};
use crate::farm::op::{ClaimKind, JobSetting, Op, UnitSet};
use crate::wire;
use rand::RngExt;
use std::time::Duration;

/// Longest piece of nothing sent, bytes.
const GARBAGE_BYTES: usize = 400;

/// What a liar keeps.
#[derive(Default)]
pub(super) struct Liar {
    /// Its second history, and the start it is of.
    twin: Option<(BootId, Ledger)>,
}

impl World {
    pub(super) fn lie(&mut self, i: usize) {
        if self.peace {
            return;
        }
        self.again(self.scenario.faults.lie, Duration::ZERO, Event::Lie { machine: i });
        let peers: Vec<usize> = self.net.peers(i).into_iter().map(|(other, _)| other).collect();
        if peers.is_empty() || !self.machines[i].is_up() {
            return;
        }
        let victim = peers[self.rng.random_range(0..peers.len())];
        let bytes = match self.rng.random_range(0..10) {
            0 | 1 => Some(self.garbage()),
            2 => self.anothers_log(i).map(|suffix| self.damage(&Message::Push(vec![suffix]))),
            3..=6 => self.anothers_log(i).and_then(|suffix| {
                let altered = self.alter(i, suffix);
                wire::encode(&Message::Push(vec![altered])).ok()
            }),
            _ => self.second_history(i).and_then(|suffix| wire::encode(&Message::Push(vec![suffix])).ok()),
        };
        if let Some(bytes) = bytes {
            self.note(|| format!("machine {i} lies to machine {victim}: {} bytes", bytes.len()));
            self.put_on_the_wire(i, victim, Packet::new(&bytes));
        }
    }

    fn garbage(&mut self) -> Vec<u8> {
        let length = self.rng.random_range(0..GARBAGE_BYTES);
        (0..length).map(|_| self.rng.random()).collect()
    }

    /// A message with some bytes changed, cut off or added.
    fn damage(&mut self, message: &Message) -> Vec<u8> {
        let mut bytes = wire::encode(message).unwrap_or_default();
        for _ in 0..self.rng.random_range(1..4) {
            let at = self.rng.random_range(0..bytes.len().max(1));
            match self.rng.random_range(0..4) {
                0 => bytes.truncate(at),
                1 => bytes.push(self.rng.random()),
                _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << self.rng.random_range(0..8)),
            }
        }
        bytes
    }

    /// A piece of what the liar has heard.
    fn anothers_log(&mut self, i: usize) -> Option<Suffix> {
        let ledger = self.machines[i].farm.as_ref()?.ledger();
        let logs: Vec<LogId> = ledger.logs().collect();
        let log = *logs.get(self.rng.random_range(0..logs.len().max(1)))?;
        let lengths = ledger.versions(log).lengths;
        let (actor, length) = *lengths.get(self.rng.random_range(0..lengths.len().max(1)))?;
        let from = self.rng.random_range(0..length);
        ledger.suffix(log, actor, from)?.into_iter().next()
    }

    /// Says something else in another's name, or the same in its own.
    fn alter(&mut self, i: usize, mut suffix: Suffix) -> Suffix {
        let own = self.machines[i].farm.as_ref().map(|farm| farm.me()).unwrap_or(suffix.actor);
        let victim = self.machines[self.rng.random_range(0..self.machines.len())].node;
        match self.rng.random_range(0..8) {
            0 => suffix.from += self.rng.random_range(1..5),
            1 => suffix.from = u64::MAX,
            2 => drop(suffix.ops.pop()),
            3 => suffix.head.length += 1,
            4 => suffix.actor = ActorId { node: victim, ..suffix.actor },
            5 => suffix.log = JobId(self.rng.random()),
            // Another end of its own history is a second one.
            6 => {
                let chain: [u8; 32] = self.rng.random();
                suffix.actor = ActorId { node: NodeId(own.node.0), boot: own.boot };
                let length = suffix.from + suffix.ops.len() as u64;
                suffix.head = self.sealer(i).sign(&super::SWARM, suffix.log, own.boot, length, chain);
            }
            _ => {
                let places: usize = suffix.ops.iter().map(Vec::len).sum();
                let at = self.rng.random_range(0..places.max(1));
                let byte = suffix.ops.iter_mut().flatten().nth(at);
                byte.into_iter().for_each(|byte| *byte ^= 0x40);
            }
        }
        suffix
    }

    /// More of the liar's other history of a job.
    fn second_history(&mut self, i: usize) -> Option<Suffix> {
        let (me, jobs) = {
            let farm = self.machines[i].farm.as_ref()?;
            (farm.me(), farm.jobs().keys().copied().collect::<Vec<JobId>>())
        };
        let job = *jobs.get(self.rng.random_range(0..jobs.len().max(1)))?;
        let sealer = self.sealer(i);
        let frame = self.rng.random_range(1..=self.scenario.frames as i32);
        let op = match self.rng.random_range(0..3) {
            0 => Op::Set { lamport: 9, setting: JobSetting::Priority(self.rng.random_range(0..=100)), at_ms: 0 },
            1 => Op::Claim { epoch: 0, units: UnitSet::whole(vec![frame])?, kind: ClaimKind::Primary, score: u32::MAX },
            _ => Op::Release { units: UnitSet::whole(vec![Unit::whole(frame).frame])? },
        };
        let liar = self.liars.get_mut(&i)?;
        if liar.twin.as_ref().is_none_or(|(boot, _)| *boot != me.boot) {
            liar.twin = Some((me.boot, Ledger::new(sealer, me.boot, super::SWARM)));
        }
        let (_, twin) = liar.twin.as_mut()?;
        twin.append(job, &op).ok()?;
        let batch = twin.take_rows()?;
        twin.durable(batch.mark);
        twin.suffix(job, me, 0)?.into_iter().next()
    }
}
