//! Playing the world: what effects do, and what comes of them.

use super::machine::Render;
use super::{Event, Request, WALL_MS, World, failure, read};
use crate::farm::blob::{BlobMap, ChunkRef, chunk_id};
use crate::farm::event::{Effect, Input, Now, Rendered, Token};
use crate::farm::id::{ActorId, BlobId, JobId, NodeId, Unit};
use crate::farm::ledger::Row;
use crate::farm::message::{LogId, Message, Suffix};
use crate::farm::op::{Output, OutputRole};
use crate::wire;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// One way through the network, milliseconds: a local network, with some waiting.
const DELAY_MS: (u64, u64) = (1, 6);
/// A group commit, milliseconds: an SSD's, and a disk that is busy now and then.
const COMMIT_MS: (u64, u64) = (1, 12);
const SLOW_COMMIT_MS: (u64, u64) = (100, 600);
/// Share of slow commits, per million.
const SLOW_COMMIT_PPM: u32 = 30_000;
/// Rows nobody waits for are written after this.
const LAZY_COMMIT: Duration = Duration::from_millis(400);
/// Bytes per second of each machine, each way: 1 Gbit/s.
const BYTES_PER_SECOND: u64 = 125_000_000;
/// A store's word on a blob.
const STORE: Duration = Duration::from_millis(1);
/// Putting a frame under its final name.
const DELIVER: Duration = Duration::from_millis(15);
/// A machine's test frame.
const SELF_TEST: Duration = Duration::from_secs(10);
/// Joining a video.
const VIDEO: Duration = Duration::from_millis(300);
/// Between a render's progress lines.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// Bytes of a rendered frame.
const FRAME_BYTES: u32 = 500_000;

impl World {
    /// Calls a farm, and does what it says.
    pub(super) fn feed(&mut self, i: usize, input: Input) {
        let now = Now { mono: self.machines[i].clock(self.now), wall_ms: WALL_MS + self.now.as_millis() as u64 };
        let machine = &mut self.machines[i];
        let Some(farm) = &mut machine.farm else { return };
        let effects = farm.handle(now, input, &mut machine.rng);
        let wake = farm.next_wake().max(now.mono + Duration::from_millis(1)) - machine.offset;
        let (life, asked) = (machine.life, machine.wake_at);
        self.report.inputs += 1;
        self.trace(i as u64 ^ (effects.len() as u64) << 8 ^ (self.now.as_micros() as u64) << 16);
        if asked.is_none_or(|at| wake < at) {
            self.machines[i].wake_at = Some(wake);
            self.plan_at(wake, Event::Wake { to: i, life, at: wake });
        }
        for effect in effects {
            self.perform(i, effect);
        }
    }

    fn later(&mut self, i: usize, after: Duration, input: Input) {
        let life = self.machines[i].life;
        self.plan(after, Event::Input { to: i, life, input: Box::new(input) });
    }

    fn perform(&mut self, i: usize, effect: Effect) {
        match effect {
            Effect::Persist { token, rows } => self.persist(i, token, rows),
            Effect::Send { to, message } => self.send(i, to, &message),
            Effect::Disconnect { node } => {
                let Some(&other) = self.by_node.get(&node) else { return };
                let Some(link) = self.net.open_at(i, other) else { return };
                self.plan(Duration::ZERO, Event::Close { at: i, other, link });
                let after = if self.net.reaches(i, other) { self.millis(1, 20) } else { self.millis(500, 10_000) };
                self.plan(after, Event::Close { at: other, other: i, link });
            }
            Effect::Submitted { call, job } => {
                self.submissions[call as usize].asked = None;
                self.submitted.insert(job);
            }
            Effect::Refused { reason, .. } => self.fail("a sound job is not refused", reason),
            Effect::Render { job, unit, epoch, .. } => self.render(i, job, unit, epoch),
            Effect::Stop { job, unit } => {
                if self.machines[i].renders.remove(&(job, unit)).is_some() {
                    self.report.stopped += 1;
                }
            }
            Effect::SelfTest => self.later(i, SELF_TEST, Input::SelfTested(Ok(()))),
            Effect::OpenBlob { blob, map } => self.open_blob(i, blob, map),
            Effect::AskMap { of, blob } => self.ask(i, of, Request::Map(blob)),
            Effect::AskHave { of, blob } => self.ask(i, of, Request::Have(blob)),
            Effect::AskChunk { of, blob, index, .. } => self.ask(i, of, Request::Chunk(blob, index)),
            Effect::ReadManifest { bundle } => {
                if !self.machines[i].blobs.whole.contains(&bundle) {
                    self.fail("only whole manifests are read", format!("machine {i}, {bundle:?}"));
                }
                let files = self.manifests.get(&bundle).cloned();
                self.later(i, STORE, Input::Manifest { bundle, files });
            }
            Effect::Deliver { job, unit, epoch, outputs } => {
                let blobs: Vec<BlobId> = outputs.iter().map(|output| output.blob).collect();
                if !blobs.iter().all(|blob| self.machines[i].blobs.whole.contains(blob)) {
                    self.fail("only what is in the store is delivered", format!("machine {i}, {job:?} {unit}"));
                }
                let life = self.machines[i].life;
                self.plan(DELIVER, Event::Deliver { to: i, life, job, unit, epoch, blobs });
            }
            Effect::FinishVideo { job, missing, canceled } => {
                self.check_video(i, job, &missing, canceled);
                self.later(i, VIDEO, Input::VideoFinished { job, outcome: Ok(()) });
            }
            Effect::Forget { blobs } => {
                for blob in blobs {
                    self.machines[i].blobs.whole.remove(&blob);
                }
            }
            Effect::Retired { job } => {
                self.retired.insert(job);
                if self.machines[i].renders.keys().any(|(of, _)| *of == job) {
                    self.fail("nothing of a retired job is rendered", format!("machine {i}, {job:?}"));
                }
            }
        }
    }

    fn persist(&mut self, i: usize, token: Option<Token>, rows: Vec<Row>) {
        self.check_rows(i, &rows);
        let is_urgent = token.is_some();
        self.machines[i].disk.push(token, rows);
        if !self.machines[i].disk.busy {
            self.begin_write(i, is_urgent);
        }
    }

    fn begin_write(&mut self, i: usize, is_urgent: bool) {
        let (from, to) = if self.chance(SLOW_COMMIT_PPM) { SLOW_COMMIT_MS } else { COMMIT_MS };
        let after = self.millis(from, to) + if is_urgent { Duration::ZERO } else { LAZY_COMMIT };
        let machine = &mut self.machines[i];
        machine.disk.busy = true;
        machine.disk.begin();
        let life = machine.life;
        self.plan(after, Event::Committed { to: i, life });
    }

    pub(super) fn committed(&mut self, i: usize, life: u32) {
        if self.machines[i].life != life {
            return;
        }
        if self.scenario.chat.is_some()
            && let Some(me) = self.machines[i].farm.as_ref().map(|farm| farm.me())
        {
            let others = self.machines.len() - 1;
            for (log, seq) in self.machines[i].disk.writing_of(me) {
                self.spreading.insert((log, me, seq), (self.now, others));
            }
        }
        let tokens = self.machines[i].disk.commit();
        self.machines[i].disk.busy = false;
        if self.machines[i].disk.has_waiting() {
            self.begin_write(i, true);
        }
        for token in tokens {
            self.feed(i, Input::Persisted(token));
        }
    }

    fn send(&mut self, i: usize, to: NodeId, message: &Message) {
        self.check_message(i, message);
        let Some(&other) = self.by_node.get(&to) else { return };
        let bytes = match wire::encode(message) {
            Ok(bytes) => bytes,
            Err(error) => return self.fail("every message fits its stream", error.to_string()),
        };
        self.report.messages += 1;
        self.report.message_bytes += bytes.len() as u64;
        let Some(link) = self.net.open_at(i, other) else { return };
        let faults = self.scenario.faults.clone();
        if self.chance(faults.loss_ppm) {
            return;
        }
        let copies = if self.chance(faults.duplicate_ppm) { 2 } else { 1 };
        for _ in 0..copies {
            let overtakes = self.chance(faults.overtake_ppm);
            let delay =
                self.millis(DELAY_MS.0, DELAY_MS.1) + if overtakes { self.millis(0, 200) } else { Duration::ZERO };
            let at = self.net.arrival(i, other, self.now + delay, overtakes);
            self.plan_at(at, Event::Arrive { to: other, from: i, link, bytes: bytes.clone() });
        }
    }

    pub(super) fn arrive(&mut self, to: usize, from: usize, link: u64, bytes: &[u8]) {
        if self.net.open_at(to, from) != Some(link) || !self.net.reaches(to, from) {
            return;
        }
        match read(bytes) {
            Some(message) => {
                let from = self.machines[from].node;
                let pieces: Vec<(LogId, ActorId, u64)> = match &message {
                    Message::Push(suffixes) if self.scenario.chat.is_some() => {
                        suffixes.iter().map(|suffix| (suffix.log, suffix.actor, self.length(to, suffix))).collect()
                    }
                    _ => Vec::new(),
                };
                self.feed(to, Input::Received { from, message });
                for (log, actor, before) in pieces {
                    self.follow(to, log, actor, before);
                }
            }
            None => self.fail("every message can be read", format!("{} bytes from machine {from}", bytes.len())),
        }
    }

    fn length(&self, i: usize, suffix: &Suffix) -> u64 {
        self.machines[i].farm.as_ref().map_or(0, |farm| farm.ledger().length(suffix.log, suffix.actor))
    }

    /// Notes which ops a machine has just learnt.
    fn follow(&mut self, i: usize, log: LogId, actor: ActorId, before: u64) {
        let Some(after) = self.machines[i].farm.as_ref().map(|farm| farm.ledger().length(log, actor)) else { return };
        for seq in before..after {
            if let Some((since, lacking)) = self.spreading.get_mut(&(log, actor, seq)) {
                *lacking -= 1;
                if *lacking == 0 {
                    self.report.spread.push(self.now - *since);
                    self.spreading.remove(&(log, actor, seq));
                }
            }
        }
    }

    fn ask(&mut self, i: usize, of: NodeId, request: Request) {
        let life = self.machines[i].life;
        let Some(&other) = self.by_node.get(&of) else { return };
        let trip = self.millis(2 * DELAY_MS.0, 2 * DELAY_MS.1);
        let Some(link) = self.net.open_at(i, other) else {
            return self.plan(trip, Event::Answer { to: i, life, of: other, link: 0, request });
        };
        let mut at = self.now + trip;
        if let Request::Chunk(blob, index) = request {
            let bytes = self.maps.get(&blob).and_then(|map| map.chunks.get(index as usize)).map_or(0, |c| c.bytes);
            let takes = Duration::from_nanos(u64::from(bytes) * 1_000_000_000 / BYTES_PER_SECOND);
            let free = self.machines[other].uplink.max(self.machines[i].downlink).max(self.now);
            self.machines[other].uplink = free + takes;
            self.machines[i].downlink = free + takes;
            at = free + takes + trip;
        }
        self.plan_at(at, Event::Answer { to: i, life, of: other, link, request });
    }

    pub(super) fn answer(&mut self, to: usize, life: u32, of: usize, link: u64, request: Request) {
        if self.machines[to].life != life {
            return;
        }
        let from = self.machines[of].node;
        let stands = self.net.open_at(to, of) == Some(link)
            && self.net.open_at(of, to) == Some(link)
            && self.net.reaches(to, of)
            && self.machines[of].asleep_until <= self.now;
        let (blob, index) = match request {
            Request::Map(blob) | Request::Have(blob) => (blob, None),
            Request::Chunk(blob, index) => (blob, Some(index)),
        };
        if !stands {
            return self.feed(to, Input::RequestFailed { from, blob, index });
        }
        let theirs = &self.machines[of].blobs;
        match request {
            Request::Map(blob) => {
                let knows = theirs.whole.contains(&blob) || theirs.partial.contains_key(&blob);
                let map = self.maps.get(&blob).filter(|_| knows).cloned();
                self.feed(to, Input::PeerMap { from, blob, map });
            }
            Request::Have(blob) => {
                let chunks = self.maps.get(&blob).map_or(0, |map| map.chunks.len() as u32);
                let knows = theirs.whole.contains(&blob) || theirs.partial.contains_key(&blob);
                let have = (0..chunks).filter(|_| knows).map(|index| theirs.has_chunk(blob, index)).collect();
                self.feed(to, Input::PeerHave { from, blob, have });
            }
            Request::Chunk(blob, index) => {
                if !theirs.has_chunk(blob, index) {
                    return self.feed(to, Input::RequestFailed { from, blob, index: Some(index) });
                }
                let is_new_whole = self.machines[to].blobs.take_chunk(blob, index);
                self.feed(to, Input::Chunk { from, blob, index });
                if is_new_whole {
                    self.feed(to, Input::BlobComplete { blob });
                }
            }
        }
    }

    fn open_blob(&mut self, i: usize, blob: BlobId, map: Option<BlobMap>) {
        let blobs = &mut self.machines[i].blobs;
        let input = if blobs.whole.contains(&blob) {
            Input::BlobComplete { blob }
        } else {
            match blobs.open(blob, map.as_ref()) {
                Some(have) => Input::BlobOpened { blob, have },
                None => Input::BlobUnknown { blob },
            }
        };
        self.later(i, STORE, input);
    }

    /// Time of a frame at speed 1: log-normal, the same wherever it is rendered.
    pub(super) fn frame_time(&self, nonce: u64, frame: i32) -> Duration {
        let mut rng = StdRng::seed_from_u64(nonce ^ (frame as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        // Box and Muller.
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        self.scenario.render.mul_f64((self.scenario.sigma * normal).exp())
    }

    fn render(&mut self, i: usize, job: JobId, unit: Unit, epoch: u32) {
        self.check_render(i, job, unit, epoch);
        let farm = self.machines[i].farm.as_ref();
        let Some(spec) = farm.and_then(|farm| farm.jobs().get(&job)?.spec.clone()) else {
            return self.fail("only known jobs are rendered", format!("machine {i}, {job:?}"));
        };
        let nonce = self.nonce_of(spec.bundle).unwrap_or(spec.nonce);
        let takes = self.frame_time(nonce, unit.frame).mul_f64(100.0 / f64::from(self.machines[i].speed));
        if let Some((by, since)) = self.orphans.remove(&(job, unit))
            && by != i
        {
            self.report.takeovers.push(self.now - since);
        }
        self.serial += 1;
        let (serial, life) = (self.serial, self.machines[i].life);
        let render = Render { serial, epoch, began: self.now, ends: self.now + takes };
        self.machines[i].renders.insert((job, unit), render);
        self.plan(takes, Event::RenderEnd { to: i, life, job, unit, serial });
        self.plan(PROGRESS_EVERY, Event::RenderProgress { to: i, life, job, unit, serial });
    }

    /// The farm draws its own nonce for a job; frame times go by the one the simulation drew.
    fn nonce_of(&self, bundle: BlobId) -> Option<u64> {
        self.submissions.iter().map(|submission| &submission.spec).find(|spec| spec.bundle == bundle).map(|s| s.nonce)
    }

    pub(super) fn render_goes_on(&mut self, i: usize, life: u32, job: JobId, unit: Unit, serial: u64) {
        if self.machines[i].life != life {
            return;
        }
        let Some(render) = self.machines[i].renders.get(&(job, unit)).filter(|render| render.serial == serial) else {
            return;
        };
        let (spent, whole) = (self.now - render.began, render.ends.saturating_sub(render.began));
        let percent = (spent.as_millis() * 100 / whole.as_millis().max(1)).min(99) as u8;
        self.plan(PROGRESS_EVERY, Event::RenderProgress { to: i, life, job, unit, serial });
        self.feed(i, Input::Progress { job, unit, percent });
    }

    pub(super) fn render_ends(&mut self, i: usize, life: u32, job: JobId, unit: Unit, serial: u64) {
        if self.machines[i].life != life
            || self.machines[i].renders.get(&(job, unit)).is_none_or(|render| render.serial != serial)
        {
            return;
        }
        let Some(Render { epoch, began, .. }) = self.machines[i].renders.remove(&(job, unit)) else { return };
        if self.chance(self.scenario.faults.failure_ppm) {
            let (kind, message) = failure(&mut self.rng);
            return self.feed(i, Input::RenderFailed { job, unit, epoch, kind, message, log: None });
        }
        match self.first_results.contains_key(&(job, unit, epoch)) {
            true => self.report.duplicates += 1,
            false => {
                self.first_results.insert((job, unit, epoch), self.now);
                self.useful += self.now - began;
            }
        }
        // Two machines never make the same bytes.
        let bytes = [&job.0[..], &unit.frame.to_le_bytes(), &epoch.to_le_bytes(), &serial.to_le_bytes()].concat();
        let map = BlobMap { chunks: vec![ChunkRef { id: chunk_id(&bytes), bytes: FRAME_BYTES }] };
        let blob = map.id();
        self.maps.insert(blob, map);
        self.machines[i].blobs.whole.insert(blob);
        let path = format!("f_{:04}.png", unit.frame);
        let outputs = vec![Output { path, blob, bytes: u64::from(FRAME_BYTES), role: OutputRole::Image }];
        let millis = (self.now - began).as_millis() as u32;
        let result = Rendered { outputs, millis, device: "CPU".into(), build: "simulated".into() };
        self.feed(i, Input::Rendered { job, unit, epoch, result });
    }

    pub(super) fn deliver(&mut self, i: usize, life: u32, job: JobId, unit: Unit, epoch: u32, blobs: Vec<BlobId>) {
        if self.machines[i].life != life {
            return;
        }
        if self.chance(self.scenario.faults.delivery_ppm) {
            return self.feed(i, Input::DeliveryFailed { job, unit, reason: "the disk is full".into() });
        }
        self.machines[i].folder.insert((job, unit), (epoch, blobs));
        self.feed(i, Input::Delivered { job, unit, epoch });
    }
}
