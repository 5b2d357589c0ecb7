//! Playing the world: what effects do, and what comes of them.

use super::check::Touched;
use super::event::{Event, Packet, Packets, Request};
use super::faults::REVISION_CALL;
use super::loss::TELL_MS;
use super::machine::{Render, Said};
use super::spread::Spread;
use super::{Invariant, LOOKAHEAD, WALL_MS, World, event, failure};
use crate::farm::blob::{BlobMap, ChunkRef, chunk_id};
use crate::farm::event::{Effect, Input, Now, Rendered, Token};
use crate::farm::id::{BlobId, JobId, NodeId, Unit};
use crate::farm::ledger::Row;
use crate::farm::message::{LogId, Message};
use crate::farm::op::{ClaimKind, FailureKind, Op, Output, OutputRole};
use crate::farm::planted::{Bug, is_planted};
use crate::wire;
use rand::RngExt;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

/// One way through the network, milliseconds: a local network, with some waiting.
const DELAY_MS: (u64, u64) = (LOOKAHEAD.as_millis() as u64, 6);
/// A message that overtakes others was on its way so much longer or shorter, milliseconds.
const OVERTAKE_MS: (u64, u64) = (0, 200);
/// A group commit, milliseconds: an SSD's, and a disk that is busy now and then.
const COMMIT_MS: (u64, u64) = (1, 12);
const SLOW_COMMIT_MS: (u64, u64) = (100, 600);
/// A disk that is slow for a while, milliseconds.
const BAD_COMMIT_MS: (u64, u64) = (800, 4000);
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
/// Every so many frames one has a preview beside its image.
const PREVIEW_EVERY: i32 = 3;

impl World {
    /// Calls a farm, and does what it says.
    pub(super) fn feed(&mut self, i: usize, input: Input) {
        let touched = self.before(i, &input);
        let now = self.clock_of(i);
        if let Some(said) = self.machines[i].call(now, input) {
            self.after(i, touched, &Touched::default(), said);
        }
    }

    /// What a machine's clocks show.
    pub(super) fn clock_of(&self, i: usize) -> Now {
        Now { mono: self.machines[i].clock(self.now), wall_ms: WALL_MS + self.now.as_millis() as u64 }
    }

    /// Before a farm is called: notes what it is told. Tells which units the input touches.
    pub(super) fn before(&mut self, i: usize, input: &Input) -> Touched {
        if let Input::BlobsGone { blobs } | Input::Undeliverable { gone: blobs, .. } = input {
            self.machines[i].blobs.untold.retain(|blob| !blobs.contains(blob));
        }
        if let Input::Received { message, .. } = input
            && let Message::Push(_) | Message::Digest(_) = **message
        {
            self.machines[i].woke = None;
        }
        if self.log.is_some() && !matches!(input, Input::Tick | Input::Received { .. } | Input::Progress { .. }) {
            self.note(|| format!("machine {i} <- {}", event::short(input)));
        }
        Touched::of(input)
    }

    /// After it was called; `told` are the units that the input tells of. Says whether there was anything new in it for the
    /// ledger: what is known already touches nothing, unless it may be another history.
    pub(super) fn after(&mut self, i: usize, mut touched: Touched, told: &Touched, said: Said) -> bool {
        let Said { mut effects, packets, is_news, wake } = said;
        let is_news = is_news || !self.liars.is_empty();
        let (life, asked) = (self.machines[i].life, self.machines[i].wake_at);
        self.report.inputs += 1;
        self.trace(i as u64 ^ (effects.len() as u64) << 8 ^ (self.now.as_micros() as u64) << 16);
        if asked.is_none_or(|at| wake < at) {
            self.machines[i].wake_at = Some(wake);
            self.plan_at(wake, Event::Wake { to: i, life, at: wake });
        }
        touched.see(&effects);
        self.check_effects(i, &effects);
        let is_torn = !effects.is_empty() && self.chance(self.scenario.faults.torn_ppm);
        if is_torn {
            let whole = self.rng.random_range(0..effects.len());
            self.note(|| format!("machine {i} dies after {whole} of {} effects", effects.len()));
            effects.truncate(whole);
        }
        for effect in effects {
            self.perform(i, effect, &packets);
        }
        let nothing = Touched::default();
        self.check_touched(i, if is_news { told } else { &nothing }, &touched);
        if is_torn {
            self.die_for_a_while(i);
        }
        is_news
    }

    fn later(&mut self, i: usize, after: Duration, input: Input) {
        let life = self.machines[i].life;
        self.plan(after, Event::Input { to: i, life, input: Box::new(input) });
    }

    fn perform(&mut self, i: usize, effect: Effect, packets: &Packets) {
        if self.log.is_some() && !matches!(&effect, Effect::Send { .. } | Effect::Persist { .. }) {
            self.note(|| format!("machine {i} -> {}", event::short(&effect)));
        }
        match effect {
            Effect::Persist { token, rows } => self.persist(i, token, rows),
            Effect::Send { to, message } => self.send(i, to, &message, packets),
            Effect::Disconnect { node } => {
                let Some(&other) = self.by_node.get(&node) else { return };
                let Some(link) = self.net.open_at(i, other) else { return };
                self.plan(Duration::ZERO, Event::Close { at: i, other, link });
                let after = if self.net.reaches(i, other) {
                    self.millis(LOOKAHEAD.as_millis() as u64, 20)
                } else {
                    self.millis(500, 10_000)
                };
                self.plan(after, Event::Close { at: other, other: i, link });
            }
            Effect::Submitted { call: REVISION_CALL, .. } | Effect::Refused { call: REVISION_CALL, .. } => {}
            Effect::Submitted { call, job } => {
                let submission = &mut self.submissions[call as usize];
                (submission.asked, submission.id) = (None, Some(job));
                self.submitted.insert(job);
            }
            Effect::Refused { reason, .. } => self.fail(Invariant::NothingSoundIsRefused, reason),
            Effect::Render { job, unit, epoch, revision, .. } => self.render(i, job, unit, (epoch, revision)),
            Effect::Stop { job, unit } => {
                if self.end_render(i, job, unit).is_some() {
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
                    self.fail(Invariant::OnlyWhatIsThere, format!("machine {i} reads {bundle:?}"));
                }
                let files = self.manifests.get(&bundle).cloned();
                self.later(i, STORE, Input::Manifest { bundle, files });
            }
            Effect::Deliver { job, collection, unit, epoch, outputs, .. } => {
                let blobs: Vec<BlobId> = outputs.iter().map(|output| output.blob).collect();
                self.check_delivery(i, job, unit, &blobs);
                let life = self.machines[i].life;
                self.plan(DELIVER, Event::Deliver { to: i, life, job: (job, collection), unit, epoch, blobs });
            }
            Effect::FinishVideo { job, collection, missing, canceled } => {
                self.check_video(i, job, &missing, canceled);
                self.later(i, VIDEO, Input::VideoFinished { job, collection, outcome: Ok(()) });
            }
            Effect::WriteZip { job, collection, .. } => {
                self.later(i, VIDEO, Input::ZipWritten { job, collection });
            }
            Effect::Forget { blobs } => {
                blobs.into_iter().for_each(|blob| self.machines[i].blobs.forget(blob));
            }
            Effect::Retired { job } => {
                self.retired.insert(job);
                if self.machines[i].renders.keys().any(|(of, _)| *of == job) {
                    self.fail(Invariant::RetiredIsGone, format!("machine {i}, {job:?}"));
                }
            }
        }
    }

    fn persist(&mut self, i: usize, token: Option<Token>, rows: Vec<Row>) {
        let me = self.machines[i].farm.as_ref().map(|farm| farm.me());
        for row in &rows {
            if let Row::Op { log, actor, bytes, .. } = row
                && Some(*actor) == me
                && let Ok(op) = wire::decode_op(bytes)
            {
                self.note(|| format!("machine {i} writes {}", event::short(&op)));
                self.check_said(i, *log, &op);
                self.count_claims(i, *log, &op);
            }
        }
        let is_urgent = token.is_some();
        if let Some(token) = token
            && is_planted(Bug::SendBeforePersist)
        {
            self.later(i, Duration::ZERO, Input::Persisted(token));
        }
        self.machines[i].disk.push(token, rows);
        if !self.machines[i].disk.busy {
            self.begin_write(i, is_urgent);
        }
    }

    fn count_claims(&mut self, i: usize, log: LogId, op: &Op) {
        match op {
            Op::Claim { units, kind, .. } => {
                for unit in units.iter() {
                    self.claims.insert((i, log, unit), *kind);
                    self.report.claims += usize::from(*kind == ClaimKind::Primary);
                }
            }
            Op::Release { units } => {
                for unit in units.iter() {
                    let kind = self.claims.remove(&(i, log, unit));
                    let Some(farm) = &self.machines[i].farm else { continue };
                    let (me, state) = (farm.me(), farm.jobs().get(&log).map(|job| job.unit(unit)));
                    let rival = state.is_some_and(|state| {
                        state.current_claims().any(|(actor, claim)| actor != me && claim.kind == ClaimKind::Primary)
                            || state.has_result()
                    });
                    self.report.lost_claims += usize::from(kind == Some(ClaimKind::Primary) && rival);
                }
            }
            Op::Done { unit, .. } | Op::Failed { unit, .. } => drop(self.claims.remove(&(i, log, *unit))),
            _ => {}
        }
    }

    fn begin_write(&mut self, i: usize, is_urgent: bool) {
        let (slow, full) = (self.machines[i].disk.slow_until, self.machines[i].disk.full_until);
        let (from, to) = match (slow > self.now, self.chance(SLOW_COMMIT_PPM)) {
            (true, _) => BAD_COMMIT_MS,
            (false, true) => SLOW_COMMIT_MS,
            (false, false) => COMMIT_MS,
        };
        // A full disk takes nothing until there is room.
        let at = self.now.max(full) + self.millis(from, to) + if is_urgent { Duration::ZERO } else { LAZY_COMMIT };
        let machine = &mut self.machines[i];
        machine.disk.busy = true;
        machine.disk.begin();
        let life = machine.life;
        self.plan_at(at, Event::Committed { to: i, life });
    }

    pub(super) fn committed(&mut self, i: usize, life: u32) {
        if self.machines[i].life != life {
            return;
        }
        if let Some(me) = self.machines[i].farm.as_ref().map(|farm| farm.me())
            && !self.liars.contains_key(&i)
        {
            // Most writes are of what others said.
            for (log, seq) in self.machines[i].disk.writing_of(me) {
                let hears = |other: usize| other != i && self.is_listening(other);
                let lacking = (0..self.machines.len()).map(hears).collect();
                self.spreading.insert((log, me, seq), Spread::new(self.now, lacking));
            }
        }
        let tokens = self.machines[i].disk.commit();
        self.machines[i].disk.busy = false;
        if self.machines[i].disk.has_waiting() {
            self.begin_write(i, true);
        }
        for token in tokens {
            // A machine may die between any two of them.
            if self.machines[i].life == life {
                self.feed(i, Input::Persisted(token));
            }
        }
    }

    /// Whether a machine can hear of what is said now.
    fn is_listening(&self, i: usize) -> bool {
        self.machines[i].is_up() && self.machines[i].asleep_until <= self.now && !self.liars.contains_key(&i)
    }

    fn send(&mut self, i: usize, to: NodeId, message: &Arc<Message>, packets: &Packets) {
        self.check_message(i, message);
        let Some(&other) = self.by_node.get(&to) else { return };
        let is_status = message.is_status();
        let packet = packets.iter().find(|(of, _)| Arc::ptr_eq(of, message)).map(|(_, packet)| packet.clone());
        let packet = match packet.unwrap_or_else(|| Err("never written".into())) {
            Ok(packet) => packet,
            Err(error) => return self.fail(Invariant::NothingSoundIsRefused, error),
        };
        self.report.messages += 1;
        self.report.message_bytes += u64::from(packet.bytes);
        self.report.ledger_bytes += if is_status { 0 } else { u64::from(packet.bytes) };
        self.put_on_the_wire(i, other, packet);
    }

    /// Something of a machine, whatever it is, to another it takes for connected.
    pub(super) fn put_on_the_wire(&mut self, i: usize, other: usize, packet: Packet) {
        let Some(link) = self.net.open_at(i, other) else { return };
        let (loss, twice, overtakes) = {
            let faults = &self.scenario.faults;
            (faults.loss_ppm, faults.duplicate_ppm, faults.overtake_ppm)
        };
        if self.chance(loss) {
            return;
        }
        let copies = if self.chance(twice) { 2 } else { 1 };
        for _ in 0..copies {
            let overtakes = self.chance(overtakes);
            let (from, to) = if overtakes { OVERTAKE_MS } else { DELAY_MS };
            let delay = self.millis(from, to);
            let at = self.net.arrival(i, other, self.now + delay, overtakes);
            self.plan_at(at, Event::Arrive { to: other, from: i, link, packet: packet.clone() });
        }
    }

    /// Whether something on its way over a connection gets there.
    pub(super) fn arrives(&self, to: usize, from: usize, link: u64) -> bool {
        self.net.open_at(to, from) == Some(link) && self.net.carries(from, to)
    }

    pub(super) fn arrive(&mut self, to: usize, from: usize, packet: Packet) {
        match packet.message.clone() {
            Some(message) => {
                let input = Input::Received { from: self.machines[from].node, message };
                let touched = self.before(to, &input);
                let now = self.clock_of(to);
                if let Some(said) = self.machines[to].call(now, input) {
                    self.heard(to, touched, &packet, said);
                }
            }
            // The adapter names the peer and goes on.
            None if self.liars.contains_key(&from) => {}
            None => self.fail(Invariant::NothingSoundIsRefused, format!("{packet:?} of machine {from} cannot be read")),
        }
    }

    /// After a farm heard a message.
    pub(super) fn heard(&mut self, i: usize, touched: Touched, packet: &Packet, said: Said) {
        let is_news = self.after(i, touched, &packet.touched, said);
        if let Some(Message::Push(suffixes)) = packet.message.as_deref()
            && is_news
        {
            suffixes.iter().for_each(|suffix| self.follow(i, suffix));
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
                if self.is_found_gone(of, blob) {
                    return self.feed(to, Input::RequestFailed { from, blob, index: Some(index) });
                }
                let theirs = &self.machines[of].blobs;
                if !theirs.has_chunk(blob, index) || self.is_full(to) {
                    return self.feed(to, Input::RequestFailed { from, blob, index: Some(index) });
                }
                self.machines[to].blobs.take_chunk(blob, index);
                let is_whole = self.machines[to].blobs.whole.contains(&blob);
                self.feed(to, Input::Chunk { from, blob, index });
                if is_whole {
                    self.feed(to, Input::BlobComplete { blob });
                }
            }
        }
    }

    /// Whether a machine's disk is full.
    fn is_full(&self, i: usize) -> bool {
        self.machines[i].disk.full_until > self.now
    }

    fn open_blob(&mut self, i: usize, blob: BlobId, map: Option<BlobMap>) {
        let map = map.filter(|_| !self.is_full(i));
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

    fn render(&mut self, i: usize, job: JobId, unit: Unit, (epoch, revision): (u32, u32)) {
        self.check_render(i, job, unit, epoch);
        let farm = self.machines[i].farm.as_ref();
        let Some(spec) = farm.and_then(|farm| farm.jobs().get(&job)?.spec_of(revision).cloned()) else {
            return self.fail(Invariant::OnlyWhatIsThere, format!("machine {i} renders {job:?} that it does not know"));
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
        let render = Render { serial, epoch, bundle: spec.bundle, began: self.now, ends: self.now + takes };
        let before = self.machines[i].renders.insert((job, unit), render);
        if before.is_none() && !self.liars.contains_key(&i) {
            *self.copies.entry((job, unit)).or_default() += 1;
        }
        self.plan(takes, Event::RenderEnd { to: i, life, job, unit, serial });
        self.plan(PROGRESS_EVERY, Event::RenderProgress { to: i, life, job, unit, serial });
    }

    /// A render is over, whatever came of it.
    pub(super) fn end_render(&mut self, i: usize, job: JobId, unit: Unit) -> Option<Render> {
        let ended = self.machines[i].renders.remove(&(job, unit));
        if ended.is_some() {
            self.one_copy_less(i, (job, unit));
        }
        ended
    }

    /// An honest machine renders a unit no more.
    pub(super) fn one_copy_less(&mut self, i: usize, of: (JobId, Unit)) {
        if !self.liars.contains_key(&i)
            && let Entry::Occupied(mut copies) = self.copies.entry(of)
        {
            *copies.get_mut() -= 1;
            if *copies.get() == 0 {
                copies.remove();
            }
        }
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
        let Some(Render { epoch, bundle, began, .. }) = self.end_render(i, job, unit) else { return };
        if self.is_full(i) {
            let (kind, message) = (FailureKind::NoOutput, "the disk is full".into());
            return self.feed(i, Input::RenderFailed { job, unit, epoch, kind, message, log: None });
        }
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
        // Frames of every other job are the same bytes whoever renders them, those of the others never.
        let drawn = [&job.0[..], &unit.frame.to_le_bytes(), &bundle.0];
        let bytes = match job.0[0] % 2 {
            0 => drawn.concat(),
            _ => [&drawn.concat()[..], &epoch.to_le_bytes(), &serial.to_le_bytes()].concat(),
        };
        let mut outputs = vec![self.stores(i, bundle, bytes.clone(), OutputRole::Image, unit)];
        // Some frames have a file beside their image, which may be lost alone.
        if unit.frame.rem_euclid(PREVIEW_EVERY) == 0 {
            let preview = [&bytes[..], b"preview"].concat();
            outputs.push(self.stores(i, bundle, preview, OutputRole::Preview, unit));
        }
        for output in &outputs {
            self.drawn_for.entry(output.blob).or_default().insert((job, unit, epoch));
        }
        // As its machine names it where that matters: elsewhere no result is anybody's but one job's.
        let renderer = self.machines[i].capability.renderers.first().filter(|_| self.scenario.shared);
        let build = renderer.map_or("simulated".into(), |renderer| renderer.rendered_text(false));
        let millis = (self.now - began).as_millis() as u32;
        let result = Rendered { outputs, millis, device: "CPU".into(), build, blank: None, warnings: Vec::new() };
        self.feed(i, Input::Rendered { job, unit, epoch, result });
    }

    /// A file of a frame is in the store of a machine that rendered it.
    fn stores(&mut self, i: usize, bundle: BlobId, bytes: Vec<u8>, role: OutputRole, unit: Unit) -> Output {
        let map = BlobMap { chunks: vec![ChunkRef { id: chunk_id(&bytes), bytes: FRAME_BYTES }] };
        let blob = map.id();
        self.maps.insert(blob, map);
        self.drawn_from.insert(blob, bundle);
        self.machines[i].blobs.take_whole(blob);
        let ending = if role == OutputRole::Image { "png" } else { "jpg" };
        let path = format!("f_{:04}.{ending}", unit.frame);
        Output { path, blob, bytes: u64::from(FRAME_BYTES), role }
    }

    pub(super) fn deliver(
        &mut self,
        i: usize,
        life: u32,
        (job, collection): (JobId, u64),
        unit: Unit,
        epoch: u32,
        blobs: Vec<BlobId>,
    ) {
        if self.machines[i].life != life {
            return;
        }
        if self.is_full(i) || self.chance(self.scenario.faults.delivery_ppm) {
            return self.feed(i, Input::DeliveryFailed { job, collection, unit, reason: "the disk is full".into() });
        }
        let is_there = self.machines[i].folder.get(&(job, unit)).is_some_and(|(_, there)| *there == blobs);
        let absent = |blob: &BlobId| !self.machines[i].blobs.has(*blob);
        let gone: Vec<BlobId> = blobs.iter().copied().filter(absent).collect();
        if !is_there && !gone.is_empty() {
            for blob in &gone {
                self.is_found_gone(i, *blob);
            }
            let after = self.millis(TELL_MS.0, TELL_MS.1);
            return self.later(i, after, Input::Undeliverable { job, collection, unit, gone });
        }
        self.machines[i].folder.insert((job, unit), (epoch, blobs));
        self.feed(i, Input::Delivered { job, collection, unit, epoch });
    }
}
