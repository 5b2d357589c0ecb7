//! Pure choice: which chunk from which peer next.
//!
//! A wanted blob goes through checking (what does the store have?), its map (from a peer, proven by the blob's id) and
//! its chunks (each proven on arrival). Chunks are asked for in random order, so that peers that fetch the same bundle
//! soon have different parts to give one another, within byte budgets per peer and in all. Blobs are taken in order of
//! urgency, results before bundles.

use super::blob::{BlobMap, ChunkRef};
use super::config::{
    ACTIVE_FETCHES, ASK_HAVE_EVERY, ASK_HAVE_FROM_CHUNKS, IN_FLIGHT_BYTES, IN_FLIGHT_PER_PEER_BYTES, REQUEST_TIMEOUT,
    REQUESTS_PER_PEER, REST,
};
use super::event::Effect;
use super::id::{BlobId, NodeId};
use rand::Rng;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How soon a blob is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A result: small, and wanted by somebody who waits.
    Result,
    /// Part of a bundle.
    Bundle,
}

#[derive(Debug)]
enum Stage {
    /// Waiting for the store's word. With a map if it came along.
    Checking,
    /// Waiting for somebody's map.
    Map { asked: Option<(NodeId, Duration)> },
    /// Fetching.
    Chunks { missing: Vec<u32>, flying: BTreeMap<u32, (NodeId, Duration)> },
}

#[derive(Debug)]
struct Fetch {
    stage: Stage,
    map: Option<BlobMap>,
    /// Peers that have all of it.
    whole: BTreeSet<NodeId>,
    /// Peers that have some of it, and when they were asked.
    partial: BTreeMap<NodeId, (Duration, Vec<bool>)>,
    /// Peers that turned out not to: asked again after a rest.
    refused: BTreeSet<NodeId>,
    /// Nobody was found to ask: not again before this.
    rests_until: Option<Duration>,
}

/// Everything being fetched.
#[derive(Debug, Default)]
pub struct Transfer {
    active: BTreeMap<(Urgency, BlobId), Fetch>,
    waiting: BTreeMap<(Urgency, BlobId), (Option<BlobMap>, BTreeSet<NodeId>)>,
    in_flight: BTreeMap<NodeId, (u64, usize)>,
    /// Bytes verified and written since the start.
    pub received_bytes: u64,
}

impl Transfer {
    /// Wants a blob, from peers known to have all of it. Wanting it again adds sources.
    pub fn want(&mut self, blob: BlobId, urgency: Urgency, map: Option<BlobMap>, sources: BTreeSet<NodeId>) {
        let key = (urgency, blob);
        if let Some(fetch) = self.active.get_mut(&key) {
            fetch.refused.retain(|node| !sources.contains(node) || fetch.whole.contains(node));
            if sources.iter().any(|node| !fetch.whole.contains(node)) {
                fetch.rests_until = None;
            }
            fetch.whole.extend(sources);
            return;
        }
        let entry = self.waiting.entry(key).or_default();
        entry.0 = entry.0.take().or(map);
        entry.1.extend(sources);
    }

    /// Whether nothing is.
    pub fn is_idle(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }

    /// Whether a blob is wanted.
    pub fn wants(&self, blob: BlobId) -> bool {
        [Urgency::Result, Urgency::Bundle]
            .iter()
            .any(|urgency| self.active.contains_key(&(*urgency, blob)) || self.waiting.contains_key(&(*urgency, blob)))
    }

    /// A blob is whole, or no longer wanted.
    pub fn done(&mut self, blob: BlobId) {
        [Urgency::Result, Urgency::Bundle].into_iter().for_each(|urgency| self.unwant(blob, urgency));
    }

    /// A blob is no longer wanted for this.
    pub fn unwant(&mut self, blob: BlobId, urgency: Urgency) {
        self.waiting.remove(&(urgency, blob));
        let Some(Fetch { stage: Stage::Chunks { flying, .. }, map, .. }) = self.active.remove(&(urgency, blob)) else {
            return;
        };
        for (index, (node, _)) in flying {
            release(&mut self.in_flight, node, chunk_of(&map, index).map_or(0, |chunk| chunk.bytes));
        }
    }

    /// The store has part of a blob.
    pub fn opened(&mut self, blob: BlobId, have: &[bool], rng: &mut dyn Rng) {
        for fetch in checking(&mut self.active, blob) {
            let Some(map) = &fetch.map else {
                // Part of it is here from an earlier run; only its map says of what.
                fetch.stage = Stage::Map { asked: None };
                continue;
            };
            let mut missing: Vec<u32> =
                (0..map.chunks.len() as u32).filter(|i| have.get(*i as usize) != Some(&true)).collect();
            missing.shuffle(&mut &mut *rng);
            fetch.stage = Stage::Chunks { missing, flying: BTreeMap::new() };
        }
    }

    /// The store knows nothing of a blob, or has no room for it.
    pub fn unknown(&mut self, blob: BlobId, now: Duration) {
        for fetch in checking(&mut self.active, blob) {
            fetch.stage = Stage::Map { asked: None };
            // It was told the map: another answer needs time.
            fetch.rests_until = fetch.map.is_some().then_some(now + REST);
        }
    }

    /// A peer told a map, already proven.
    pub fn mapped(&mut self, from: NodeId, blob: BlobId, map: Option<BlobMap>) -> Option<Effect> {
        let mut effect = None;
        for fetch in fetches(&mut self.active, blob) {
            let Stage::Map { asked } = &mut fetch.stage else { continue };
            match &map {
                Some(map) => {
                    fetch.map = Some(map.clone());
                    fetch.stage = Stage::Checking;
                    effect = Some(Effect::OpenBlob { blob, map: Some(map.clone()) });
                }
                None => {
                    fetch.refused.insert(from);
                    *asked = None;
                }
            }
        }
        effect
    }

    /// A peer told which chunks it has.
    pub fn has(&mut self, from: NodeId, blob: BlobId, have: Vec<bool>, now: Duration) {
        for fetch in fetches(&mut self.active, blob) {
            if !have.is_empty() && have.iter().all(|has| *has) {
                fetch.whole.insert(from);
                fetch.refused.remove(&from);
            } else {
                fetch.partial.insert(from, (now, have.clone()));
            }
            if let Stage::Chunks { missing, .. } = &fetch.stage
                && !fetch.refused.contains(&from)
                && missing.iter().any(|index| have.get(*index as usize) == Some(&true))
            {
                fetch.rests_until = None;
            }
        }
    }

    /// A chunk arrived, verified and written.
    pub fn arrived(&mut self, blob: BlobId, index: u32) {
        let mut bytes = 0;
        for fetch in fetches(&mut self.active, blob) {
            let Stage::Chunks { flying, .. } = &mut fetch.stage else { continue };
            // Asked of another meanwhile, it is booked on that one.
            if let Some((of, _)) = flying.remove(&index) {
                bytes = chunk_of(&fetch.map, index).map_or(0, |chunk| chunk.bytes);
                release(&mut self.in_flight, of, bytes);
            }
        }
        self.received_bytes += u64::from(bytes);
    }

    /// A request came to nothing.
    pub fn failed(&mut self, from: NodeId, blob: BlobId, index: Option<u32>) {
        for fetch in fetches(&mut self.active, blob) {
            match (&mut fetch.stage, index) {
                (Stage::Map { asked }, None) => {
                    fetch.refused.insert(from);
                    *asked = None;
                }
                (Stage::Chunks { missing, flying }, Some(index))
                    if flying.get(&index).is_some_and(|(of, _)| *of == from) =>
                {
                    flying.remove(&index);
                    missing.push(index);
                    release(&mut self.in_flight, from, chunk_of(&fetch.map, index).map_or(0, |chunk| chunk.bytes));
                    fetch.refused.insert(from);
                    fetch.partial.remove(&from);
                }
                _ => {}
            }
        }
    }

    /// A peer is gone: what was asked of it is asked of others, and it may be asked anew when it returns.
    pub fn lost(&mut self, node: NodeId) {
        self.in_flight.remove(&node);
        for fetch in self.active.values_mut() {
            fetch.refused.remove(&node);
            fetch.partial.remove(&node);
            match &mut fetch.stage {
                Stage::Map { asked } if asked.is_some_and(|(of, _)| of == node) => *asked = None,
                Stage::Chunks { missing, flying } => {
                    let back: Vec<u32> = flying.iter().filter(|(_, (of, _))| *of == node).map(|(i, _)| *i).collect();
                    back.iter().for_each(|index| {
                        flying.remove(index);
                    });
                    missing.extend(back);
                }
                Stage::Map { .. } | Stage::Checking => {}
            }
        }
    }

    /// Everything to ask for now, of connected peers.
    pub fn poll(&mut self, connected: &BTreeSet<NodeId>, now: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        // One whose holders are away takes nobody's place.
        let resting = |fetch: &&Fetch| fetch.rests_until.is_some();
        let mut places =
            ACTIVE_FETCHES.saturating_sub(self.active.len() - self.active.values().filter(resting).count());
        while places > 0 {
            let Some((key, (map, whole))) = self.waiting.pop_first() else { break };
            effects.push(Effect::OpenBlob { blob: key.1, map: map.clone() });
            let (partial, refused) = (BTreeMap::new(), BTreeSet::new());
            self.active.insert(key, Fetch { stage: Stage::Checking, map, whole, partial, refused, rests_until: None });
            places -= 1;
        }
        for ((_, blob), fetch) in &mut self.active {
            fetch.poll(*blob, connected, now, &mut self.in_flight, &mut effects);
        }
        effects
    }
}

impl Fetch {
    fn poll(
        &mut self,
        blob: BlobId,
        connected: &BTreeSet<NodeId>,
        now: Duration,
        in_flight: &mut BTreeMap<NodeId, (u64, usize)>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(until) = self.rests_until {
            if now < until {
                return;
            }
            self.rests_until = None;
            self.refused.clear();
        }
        let usable = |node: &&NodeId| connected.contains(*node) && !self.refused.contains(*node);
        match &mut self.stage {
            Stage::Checking => {}
            Stage::Map { asked } => {
                if asked.is_some_and(|(_, at)| now.saturating_sub(at) < REQUEST_TIMEOUT) {
                    return;
                }
                // Known holders first; else anyone may have come by it.
                let of = self.whole.iter().find(usable).or_else(|| connected.iter().find(usable)).copied();
                match of {
                    Some(of) => {
                        *asked = Some((of, now));
                        effects.push(Effect::AskMap { of, blob });
                    }
                    None => self.rests_until = Some(now + REST),
                }
            }
            Stage::Chunks { missing, flying } => {
                let overdue: Vec<(u32, NodeId)> = flying
                    .iter()
                    .filter(|(_, (_, at))| now.saturating_sub(*at) >= REQUEST_TIMEOUT)
                    .map(|(index, (node, _))| (*index, *node))
                    .collect();
                for (index, node) in overdue {
                    flying.remove(&index);
                    missing.push(index);
                    release(in_flight, node, chunk_of(&self.map, index).map_or(0, |chunk| chunk.bytes));
                }
                if missing.is_empty() {
                    return;
                }
                let chunks = self.map.as_ref().map_or(0, |map| map.chunks.len());
                let no_source = !self.whole.iter().any(|node| usable(&node));
                if chunks >= ASK_HAVE_FROM_CHUNKS || no_source {
                    for node in connected.iter().filter(|node| !self.whole.contains(node)) {
                        let due =
                            self.partial.get(node).is_none_or(|(at, _)| now.saturating_sub(*at) >= ASK_HAVE_EVERY);
                        if due {
                            self.partial.entry(*node).or_insert((now, Vec::new())).0 = now;
                            effects.push(Effect::AskHave { of: *node, blob });
                        }
                    }
                }
                // Nothing is under way, and nobody who may be asked has anything of what is missing.
                let mut is_stuck = flying.is_empty();
                let mut total: u64 = in_flight.values().map(|(bytes, _)| bytes).sum();
                let mut kept = Vec::new();
                while let Some(index) = missing.pop() {
                    let Some(chunk) = chunk_of(&self.map, index) else { continue };
                    if total + u64::from(chunk.bytes) > IN_FLIGHT_BYTES {
                        kept.push(index);
                        is_stuck = false;
                        break;
                    }
                    let has = |node: &NodeId| {
                        self.whole.contains(node)
                            || self.partial.get(node).is_some_and(|(_, have)| have.get(index as usize) == Some(&true))
                    };
                    // Whoever has least to do for us.
                    let of = connected
                        .iter()
                        .filter(|node| has(node) && !self.refused.contains(*node))
                        .inspect(|_| is_stuck = false)
                        .map(|node| (in_flight.get(node).copied().unwrap_or((0, 0)), *node))
                        .filter(|((bytes, requests), _)| {
                            *requests < REQUESTS_PER_PEER && bytes + u64::from(chunk.bytes) <= IN_FLIGHT_PER_PEER_BYTES
                        })
                        .min();
                    let Some((_, of)) = of else {
                        kept.push(index);
                        // With only complete sources one refusal speaks for all chunks.
                        if self.partial.values().all(|(_, have)| have.is_empty()) {
                            break;
                        }
                        continue;
                    };
                    let load = in_flight.entry(of).or_default();
                    *load = (load.0 + u64::from(chunk.bytes), load.1 + 1);
                    total += u64::from(chunk.bytes);
                    flying.insert(index, (of, now));
                    effects.push(Effect::AskChunk { of, blob, index, chunk });
                }
                missing.extend(kept.into_iter().rev());
                if is_stuck && !missing.is_empty() {
                    self.rests_until = Some(now + REST);
                }
            }
        }
    }
}

fn fetches(active: &mut BTreeMap<(Urgency, BlobId), Fetch>, blob: BlobId) -> impl Iterator<Item = &mut Fetch> {
    active.iter_mut().filter(move |((_, id), _)| *id == blob).map(|(_, fetch)| fetch)
}

/// Those that wait for the store's word: a second answer must not undo what followed from the first.
fn checking(active: &mut BTreeMap<(Urgency, BlobId), Fetch>, blob: BlobId) -> impl Iterator<Item = &mut Fetch> {
    fetches(active, blob).filter(|fetch| matches!(fetch.stage, Stage::Checking))
}

fn chunk_of(map: &Option<BlobMap>, index: u32) -> Option<ChunkRef> {
    map.as_ref()?.chunks.get(index as usize).copied()
}

fn release(in_flight: &mut BTreeMap<NodeId, (u64, usize)>, node: NodeId, bytes: u32) {
    if let Some(load) = in_flight.get_mut(&node) {
        *load = (load.0.saturating_sub(u64::from(bytes)), load.1.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::id::ChunkId;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 32])
    }

    fn blob(byte: u8) -> BlobId {
        BlobId([byte; 32])
    }

    /// Asked for a map, this peer knows none.
    fn answer_unknown(transfer: &mut Transfer, effects: &[Effect], now: Duration) -> usize {
        for effect in effects {
            match effect {
                Effect::OpenBlob { blob, .. } => transfer.unknown(*blob, now),
                Effect::AskMap { of, blob } => drop(transfer.mapped(*of, *blob, None)),
                _ => {}
            }
        }
        effects.iter().filter(|effect| matches!(effect, Effect::AskMap { .. })).count()
    }

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Of whom which chunk is asked.
    fn asked(effects: &[Effect]) -> Vec<(NodeId, u32)> {
        let chunk = |effect: &Effect| match effect {
            Effect::AskChunk { of, index, .. } => Some((*of, *index)),
            _ => None,
        };
        effects.iter().filter_map(chunk).collect()
    }

    /// Wants a blob of `chunks` chunks of 1 MiB, none of which is here.
    fn want_chunks(transfer: &mut Transfer, urgency: Urgency, chunks: u32, sources: &[NodeId]) {
        let chunk = ChunkRef { id: ChunkId([0; 32]), bytes: 1 << 20 };
        let map = BlobMap { chunks: vec![chunk; chunks as usize] };
        transfer.want(blob(1), urgency, Some(map), sources.iter().copied().collect());
        transfer.poll(&BTreeSet::new(), second(0));
        transfer.opened(blob(1), &[], &mut StdRng::seed_from_u64(1));
    }

    fn booked(transfer: &Transfer) -> Vec<(u64, usize)> {
        transfer.in_flight.values().copied().filter(|load| *load != (0, 0)).collect()
    }

    #[test]
    fn the_late_answer_of_one_peer_frees_the_budget_of_whoever_was_asked_instead() {
        for fails in [false, true] {
            let mut transfer = Transfer::default();
            want_chunks(&mut transfer, Urgency::Bundle, 1, &[node(1), node(2)]);
            let first = asked(&transfer.poll(&BTreeSet::from([node(1), node(2)]), second(1)));
            assert_eq!(first, [(node(1), 0)]);
            // The first stays connected: only the second is seen, so that it is asked.
            let again = asked(&transfer.poll(&BTreeSet::from([node(2)]), second(1) + REQUEST_TIMEOUT));
            assert_eq!(again, [(node(2), 0)]);
            if fails {
                transfer.failed(node(1), blob(1), Some(0));
                assert_eq!(booked(&transfer), [(1 << 20, 1)], "the second is still being asked");
            }
            transfer.arrived(blob(1), 0);
            assert_eq!(booked(&transfer), []);
            transfer.arrived(blob(1), 0);
            assert_eq!((booked(&transfer), transfer.received_bytes), (vec![], 1 << 20));
        }
    }

    #[test]
    fn a_blob_wanted_as_a_result_and_in_a_bundle_leaves_no_budget_taken() {
        let mut transfer = Transfer::default();
        let connected = BTreeSet::from([node(1), node(2)]);
        want_chunks(&mut transfer, Urgency::Bundle, 4, &[node(1), node(2)]);
        transfer.poll(&connected, second(1));
        // The store answers about the second fetch: the first has asked already.
        want_chunks(&mut transfer, Urgency::Result, 4, &[node(1), node(2)]);
        let both = asked(&transfer.poll(&connected, second(1)));
        assert_eq!(both.len(), 4, "asked once more");
        (0..4).for_each(|index| transfer.arrived(blob(1), index));
        assert_eq!(booked(&transfer), []);
        transfer.unknown(blob(1), second(1));
        assert!(transfer.active.values().all(|fetch| matches!(fetch.stage, Stage::Chunks { .. })));
    }

    #[test]
    fn two_that_were_refused_by_the_only_source_ask_it_again_though_each_shows_the_other_a_part() {
        let mut transfer = Transfer::default();
        let connected = BTreeSet::from([node(1), node(2)]);
        want_chunks(&mut transfer, Urgency::Bundle, 2, &[node(1)]);
        let (mut of_source, mut now) = (0, second(1));
        let seconds = 10;
        for _ in 0..seconds * 100 {
            now += Duration::from_millis(10);
            let effects = transfer.poll(&connected, now);
            for (of, index) in asked(&effects) {
                assert_eq!(of, node(1));
                of_source += 1;
                transfer.failed(of, blob(1), Some(index));
            }
            for effect in effects {
                if let Effect::AskHave { of, .. } = effect {
                    // A part, but of nothing that is missing.
                    transfer.has(of, blob(1), if of == node(2) { vec![false, false, true] } else { vec![] }, now);
                }
            }
        }
        assert!(of_source > seconds, "asked again and again");
        assert!(of_source <= 2 * (seconds + 1), "{of_source} chunks asked for in {seconds} s");
    }

    #[test]
    fn a_part_that_is_missing_ends_the_rest() {
        let mut transfer = Transfer::default();
        let connected = BTreeSet::from([node(1), node(2)]);
        want_chunks(&mut transfer, Urgency::Bundle, 2, &[]);
        assert_eq!(asked(&transfer.poll(&connected, second(1))), []);
        assert_eq!(asked(&transfer.poll(&connected, second(1))), []);
        transfer.has(node(2), blob(1), vec![true, false], second(1));
        assert_eq!(asked(&transfer.poll(&connected, second(1))), [(node(2), 0)]);
    }

    #[test]
    fn blobs_nobody_has_are_asked_about_once_a_second_and_take_no_place() {
        let (mut transfer, connected) = (Transfer::default(), BTreeSet::from([node(1), node(2)]));
        // Results come before bundles; their holder, node 9, is away.
        for byte in 0..2 * ACTIVE_FETCHES as u8 {
            transfer.want(blob(byte), Urgency::Result, None, BTreeSet::from([node(9)]));
        }
        transfer.want(blob(255), Urgency::Bundle, None, BTreeSet::from([node(1)]));
        let (mut asked, mut is_opened, mut now) = (0, false, Duration::from_secs(1));
        let seconds = 10;
        for _ in 0..seconds * 100 {
            now += Duration::from_millis(10);
            let effects = transfer.poll(&connected, now);
            is_opened |= effects.iter().any(|e| matches!(e, Effect::OpenBlob { blob: b, .. } if *b == blob(255)));
            asked += answer_unknown(&mut transfer, &effects, now);
        }
        assert!(is_opened, "the bundle gets its turn");
        let blobs = 2 * ACTIVE_FETCHES + 1;
        assert!(asked <= blobs * connected.len() * (seconds + 1), "{asked} questions in {seconds} s");
    }
}
