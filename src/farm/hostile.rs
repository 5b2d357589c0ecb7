//! A member that signs whatever it likes: bytes of its own making, chained and signed as everyone's are, must be refused
//! or folded, and whatever is folded must leave a farm that still chooses, settles and answers.

use super::Farm;
use super::event::{Effect, Input, Now};
use super::id::{ActorId, BootId, JobId, NodeId};
use super::ledger::{Ledger, Row};
use super::message::{LogDigests, Message, SWARM_LOG, SignedHead, Suffix, Versions};
use super::op::{Op, RetireReason};
use crate::fuzz::{ROUNDS, fuzz};
use crate::seal::{self, Sealer, swarm_id};
use crate::wire;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt::Debug;
use std::time::Duration;

const BOOT: BootId = BootId([1; 8]);

fn swarm() -> seal::Hash {
    swarm_id(&[0; 32])
}

/// A farm that could render, with a peer, and a job of its own.
fn farm() -> (Farm, JobId, Duration) {
    let now = Duration::from_secs(100);
    let at = Now { mono: now, wall_ms: 0 };
    let mut rng = StdRng::seed_from_u64(1);
    let mut farm = Farm::new(Sealer::Cheap(NodeId([1; 32])), BOOT, swarm(), Vec::new(), at);
    let spec = Box::new(crate::wire::tests::spec());
    let inputs = [
        Input::Capability(Box::new(super::tests::capability())),
        Input::Connected { node: NodeId([2; 32]), boot: BOOT },
        Input::Submit { call: 1, spec, kept: Vec::new() },
    ];
    for input in inputs {
        for effect in farm.handle(at, input, &mut rng) {
            if let Effect::Persist { token: Some(token), .. } = effect {
                farm.handle(at, Input::Persisted(token), &mut rng);
            }
        }
    }
    let job = *farm.jobs().keys().next().unwrap();
    (farm, job, now)
}

/// Turns enough for every timer to fire, with the disk answering.
fn carry_on(farm: &mut Farm, from: Duration) -> usize {
    let mut rng = StdRng::seed_from_u64(2);
    let mut effects = 0;
    for turn in 0..8 {
        let now = Now { mono: from + Duration::from_millis(400 * turn), wall_ms: 0 };
        for effect in farm.handle(now, Input::Tick, &mut rng) {
            effects += 1;
            if let Effect::Send { message, .. } = &effect {
                assert!(wire::encode(message).is_ok(), "what is sent can be sent: {message:?}");
            }
            if let Effect::Persist { token: Some(token), .. } = effect {
                farm.handle(now, Input::Persisted(token), &mut rng);
            }
        }
    }
    effects
}

/// Which variant it is.
fn name(of: &impl Debug) -> String {
    format!("{of:?}").split([' ', '(']).next().unwrap_or_default().to_string()
}

/// `ops` as the liar tells them, all in order.
fn signed(log: JobId, ops: Vec<Vec<u8>>) -> Suffix {
    let sealer = Sealer::Cheap(NodeId([2; 32]));
    let actor = ActorId { node: sealer.node(), boot: BOOT };
    let chain = ops.iter().fold(seal::genesis(&swarm(), log, actor), |hash, op| seal::chain(&hash, op));
    let head = sealer.sign(&swarm(), log, BOOT, ops.len() as u64, chain);
    Suffix { log, actor, from: 0, ops: ops.into_iter().map(Into::into).collect(), head }
}

/// Bytes as ops: each up to the next length that fits, so that changed bytes stay a few ops.
fn cut(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut ops = Vec::new();
    while let Some((head, body)) = bytes.split_first_chunk::<6>() {
        let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        let length = length.min(body.len());
        let mut op = head.to_vec();
        op[2..6].copy_from_slice(&(length as u32).to_le_bytes());
        op.extend(&body[..length]);
        ops.push(op);
        bytes = &body[length..];
    }
    ops
}

#[test]
fn whatever_a_member_signs_a_farm_goes_on() {
    let ops: Vec<Vec<u8>> = wire::tests::ops().iter().map(|op| wire::encode_op(op).unwrap()).collect();
    let without_submit: Vec<Vec<u8>> = ops[1..].to_vec();
    fuzz("signed", ROUNDS / 10, vec![without_submit.concat(), ops.concat(), ops[1..4].concat()], |bytes| {
        let (mut farm, job, now) = farm();
        let mut rng = StdRng::seed_from_u64(3);
        let suffix = signed(job, cut(bytes));
        let refused = Ledger::new(Sealer::Cheap(NodeId([3; 32])), BOOT, swarm())
            .merge(&suffix)
            .map(|merged| merged.new_ops.iter().map(|(_, op)| name(op)).collect::<BTreeSet<String>>())
            .map_err(|error| (error.to_string(), error.source().map(ToString::to_string)));
        let push = Input::Received { from: NodeId([2; 32]), message: Message::Push(vec![suffix]).into() };
        farm.handle(Now { mono: now, wall_ms: 0 }, push, &mut rng);
        carry_on(&mut farm, now);
        refused
    });
}

#[test]
fn whatever_a_neighbour_says_a_farm_goes_on() {
    let (_, job, _) = farm();
    let actor = ActorId { node: NodeId([2; 32]), boot: BOOT };
    let mut messages = wire::tests::messages();
    messages.push(Message::Push(vec![signed(
        job,
        vec![wire::encode_op(&Op::Retire { why: RetireReason::Over }).unwrap()],
    )]));
    messages.push(Message::LogDigests(LogDigests { from: SWARM_LOG, until: None, digests: vec![(job, [1; 32])] }));
    messages.push(Message::Versions {
        versions: vec![Versions { log: job, digest: [0; 32], lengths: vec![(actor, 3)], forks: Vec::new() }],
        answer: true,
    });
    messages.push(Message::Retired(vec![job]));
    let seeds = messages.iter().map(|message| wire::encode(message).unwrap()).collect();
    fuzz("said", ROUNDS / 10, seeds, |bytes| {
        let Ok(Some(message)) = wire::decode(bytes) else { return None };
        let (mut farm, _, now) = farm();
        let mut rng = StdRng::seed_from_u64(3);
        let kind = name(&message);
        let said = Input::Received { from: NodeId([2; 32]), message: message.into() };
        let answers = farm.handle(Now { mono: now, wall_ms: 0 }, said, &mut rng);
        carry_on(&mut farm, now);
        Some((kind, answers.iter().map(name).collect::<Vec<String>>()))
    });
}

#[test]
fn whatever_the_store_gives_back_a_ledger_loads() {
    let mut written = Ledger::new(Sealer::Cheap(NodeId([1; 32])), BOOT, swarm());
    let job = written.submit(&[], crate::wire::tests::spec()).unwrap();
    for op in &wire::tests::ops()[1..] {
        written.append(job, op).unwrap();
    }
    let rows = written.take_rows().unwrap().rows;
    let heads = rows.iter().filter_map(|row| match row {
        Row::Head { bytes, .. } => Some(bytes.clone()),
        _ => None,
    });
    let mut seeds: Vec<Vec<u8>> = heads.collect();
    seeds.push(wire::encode_value(&Vec::<SignedHead>::new()).unwrap());
    fuzz("rows", ROUNDS / 10, seeds, |changed| {
        let load = |rows: Vec<Row>| {
            let mut ledger = Ledger::new(Sealer::Cheap(NodeId([1; 32])), BootId([2; 8]), swarm());
            let loaded = ledger.load(rows);
            ("o".repeat(loaded.ops.len()), loaded.dropped.is_empty())
        };
        let at = changed.len() % (rows.len() - 1);
        let (mut heads, mut ops) = (rows.clone(), rows.clone());
        for row in &mut heads {
            if let Row::Head { bytes, .. } = row {
                *bytes = changed.to_vec();
            }
        }
        if let Row::Op { bytes, .. } = &mut ops[at] {
            *bytes = changed.into();
        }
        (load(heads), load(ops))
    });
}
