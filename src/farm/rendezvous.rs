//! Who comes first at what, without asking anybody: weighted rendezvous hashing.
//!
//! Thaler and Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005 would need logarithms, so a node's slots
//! stand for its weight as that many draws.

use super::config::RANKED_AT_MOST;
use super::fit::member_fits;
use super::id::{JobId, NodeId, Unit};
use super::roster::{Member, Roster};
use super::state::JobState;
use std::cmp::Reverse;

/// Strength of a node at a unit: the best of as many draws as it has slots.
pub fn strength(node: NodeId, slots: u32, job: JobId, unit: Unit, epoch: u32) -> u32 {
    let words = |bytes: &[u8]| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[..8]);
        u64::from_le_bytes(word)
    };
    let seed = mix(words(&node.0) ^ mix(words(&job.0) ^ mix(unit.frame as u64 ^ u64::from(epoch) << 32)));
    (0..u64::from(slots.clamp(1, 64))).map(|draw| (mix(seed ^ draw) >> 32) as u32).max().unwrap_or(0)
}

/// Strength of a node at a job that only so many machines may render.
pub fn strength_at_job(node: NodeId, job: JobId) -> u32 {
    strength(node, 1, job, Unit::whole(0), 0)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// An open unit, as this machine sees it.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    /// Which.
    pub unit: Unit,
    /// The unit whose strength counts for it.
    pub lot: Unit,
    /// Its epoch.
    pub epoch: u32,
    /// This machine's strength at it.
    pub own: u32,
    /// Whether somebody had it who is not here any more.
    pub was_claimed: bool,
    /// Whether that one's process ended, so that nobody renders it now.
    pub is_abandoned: bool,
}

impl Candidate {
    /// Strength of another at it.
    pub fn strength_of(&self, (node, slots): &(NodeId, u32), job: JobId) -> u32 {
        strength(*node, *slots, job, self.lot, self.epoch)
    }
}

/// Those of some members that can render a job, with their slots.
pub(super) fn contenders<'m>(
    job: &JobState,
    roster: &Roster,
    members: impl Iterator<Item = (NodeId, &'m Member)>,
) -> Vec<(NodeId, u32)> {
    members
        .filter(|(node, member)| member_fits(roster, *node, member, job).is_ok())
        .filter_map(|(node, member)| Some((node, member.capability.as_ref()?.slots)))
        .collect()
}

/// The `count` candidates with the fewest stronger rivals, the strongest first; before all others those of a process that
/// ended, whoever is strongest: a killed machine's frames wait for the next slot that is free, and no longer.
///
/// Ranks are only looked for among the candidates at which this machine is strong itself: in a swarm of `n` nodes the
/// first few of those are nearly always its own, so that a choice costs `n` draws and not `n` for each candidate.
pub(super) fn strongest_first(
    mut candidates: Vec<Candidate>,
    rivals: &[(NodeId, u32)],
    job: JobId,
    count: usize,
) -> Vec<Candidate> {
    candidates.sort_unstable_by_key(|candidate| (!candidate.is_abandoned, Reverse(candidate.own), candidate.unit));
    let mut ranked: Vec<(usize, Candidate)> = Vec::new();
    let mut own = 0;
    for candidate in candidates.into_iter().take(RANKED_AT_MOST.max(count)) {
        if own >= count {
            break;
        }
        let rank = rivals.iter().filter(|rival| candidate.strength_of(rival, job) > candidate.own).count();
        own += usize::from(rank == 0);
        ranked.push((rank, candidate));
    }
    // Stable: among equals the strongest stays first.
    ranked.sort_by_key(|(rank, candidate)| (!candidate.is_abandoned, *rank));
    ranked.into_iter().take(count).map(|(_, candidate)| candidate).collect()
}
