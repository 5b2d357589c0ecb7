//! Routing: what each input changes. What follows from the change is settled in `work`.

use super::collect::{Collector, Ending, VideoState};
use super::event::{Effect, Input, JobCommand, Now, Rendered};
use super::id::{ActorId, BlobId, JobId, Unit};
use super::job::{JobSpec, Revision};
use super::kept::KeptFrame;
use super::message::{Capability, SWARM_LOG};
use super::op::{JobSetting, Op, RetireReason, UnitSet};
use super::state::JobState;
use super::transfer::Urgency;
use super::{Bundle, Farm};
use crate::wire;
use rand::{Rng, RngExt};
use std::collections::BTreeSet;

impl Farm {
    /// Takes an input in; says whether choices may follow from it.
    pub(super) fn take(&mut self, now: Now, input: Input, rng: &mut dyn Rng, effects: &mut Vec<Effect>) -> bool {
        match input {
            Input::Tick => false,
            Input::Connected { node, boot } => {
                self.roster.connected(node, boot, now.mono);
                self.greet(node, effects);
                true
            }
            Input::Disconnected { node } => {
                self.roster.disconnected(node, now.mono);
                self.transfer.lost(node);
                true
            }
            Input::Received { from, message } => self.received(now, from, &message, effects),
            Input::Persisted(token) => {
                self.persisted(token, effects);
                true
            }
            Input::Capability(capability) => {
                self.roster.set_own(Capability { sick: self.blame.is_sick(), ..*capability });
                self.capability_is_new = true;
                self.promises.look_again();
                true
            }
            Input::Load(load) => {
                self.roster.set_own_load(load);
                false
            }
            Input::GiveBack => {
                self.give_back(effects);
                false
            }
            Input::Leave => {
                self.is_leaving = true;
                self.give_back(effects);
                false
            }
            Input::SelfTested(outcome) => {
                if let Err(reason) = &outcome {
                    tracing::warn!("the test frame failed here, so this machine claims nothing: {reason}");
                }
                self.blame.tested(outcome.is_ok(), now.mono);
                self.tell_health();
                true
            }
            Input::Trust { node, trusted } => {
                let op = Op::Trust { node, trusted };
                if let Some(seq) = self.say(SWARM_LOG, &op) {
                    // Counts at once: who is trusted no more must not run anything in the moment the disk takes.
                    self.roster.learn(self.me, seq, &op);
                }
                true
            }
            Input::Setting(setting) => {
                let op = self.roster.settings().op(setting);
                if let Some(seq) = self.say(SWARM_LOG, &op) {
                    // Whoever set it sees it at once; jobs that are submitted from now on have it.
                    self.roster.learn(self.me, seq, &op);
                }
                false
            }
            Input::Submit { call, spec, kept } => {
                self.submit(call, *spec, kept, rng, effects);
                true
            }
            Input::Revise { call, job, units, revision, by } => {
                if let Err(reason) = self.revise(now, call, (job, units), revision, by, rng) {
                    effects.push(Effect::Refused { call, reason });
                }
                true
            }
            Input::Command { job, command } => {
                self.command(now, job, command);
                true
            }
            Input::Progress { job, unit, percent } => {
                if let Some(hand) = self.hands.get_mut(&(job, unit)) {
                    hand.percent = percent.min(100);
                }
                false
            }
            Input::Drawn { job, unit } => {
                self.end_hand(job, unit);
                true
            }
            Input::Rendered { job, unit, epoch, result } => {
                self.rendered(job, unit, epoch, result, effects);
                true
            }
            Input::RenderFailed { job, unit, epoch, kind, message, log } => {
                self.end_hand(job, unit);
                // Known before it is durable, or the next choice would not know it.
                self.blame.failed(job, unit, self.me.node, true, now.mono);
                self.say(job, &Op::Failed { epoch, unit, kind, message, log });
                true
            }
            Input::BlobsGone { blobs } => {
                self.blobs_gone(&blobs);
                true
            }
            Input::BlobsHere { blobs } => self.blobs_here(&blobs),
            Input::BlobComplete { blob } => {
                self.gone.remove(&blob);
                self.transfer.done(blob);
                self.blob_complete(blob, effects)
            }
            Input::BlobOpened { blob, have } => {
                self.transfer.opened(blob, &have, rng);
                false
            }
            Input::BlobUnknown { blob } => {
                self.transfer.unknown(blob, now.mono);
                false
            }
            Input::PeerMap { from, blob, map } => {
                self.roster.heard(from, now.mono);
                effects.extend(self.transfer.mapped(from, blob, map));
                false
            }
            Input::PeerHave { from, blob, have } => {
                self.roster.heard(from, now.mono);
                self.transfer.has(from, blob, have, now.mono);
                false
            }
            Input::Chunk { from, blob, index } => {
                self.roster.heard(from, now.mono);
                self.transfer.arrived(blob, index);
                false
            }
            Input::RequestFailed { from, blob, index } => {
                self.transfer.failed(from, blob, index);
                // In a large swarm few talk to each other all the time; to the others nothing else tells that a link is dead.
                if self.roster.is_mute(from, now.mono) {
                    effects.push(Effect::Disconnect { node: from });
                }
                false
            }
            Input::Manifest { bundle, files } => {
                self.manifest(bundle, files);
                true
            }
            Input::Delivered { job, collection, unit, epoch } => {
                if let Some(collector) = self.collector(job, collection) {
                    collector.delivered(unit, epoch);
                }
                true
            }
            Input::DeliveryFailed { job, collection, unit, reason } => {
                if let Some(collector) = self.collector(job, collection) {
                    collector.delivery_failed(unit, reason, now.mono);
                }
                false
            }
            Input::Undeliverable { job, collection, unit, gone } => {
                self.blobs_gone(&gone);
                if let Some(collector) = self.collector(job, collection) {
                    collector.undeliverable(unit);
                }
                true
            }
            Input::CollectionDelayed { job, collection, reason } => {
                if let Some(collector) = self.collector(job, collection) {
                    collector.reason = Some(reason);
                }
                false
            }
            Input::VideoFinished { job, collection, outcome } => {
                self.video_finished(now, (job, collection), outcome, effects);
                true
            }
            Input::ZipWritten { job, collection } => {
                // A ZIP file that a cancel overtook may be told of as well as the cancel.
                if self.collector(job, collection).is_some_and(|collector| collector.finishing == Some(Ending::Zip)) {
                    self.all_written(now, job);
                }
                true
            }
        }
    }

    /// Folds ops, whoever wrote them, and lets go of what they end.
    pub(super) fn fold(&mut self, log: JobId, actor: ActorId, seq: u64, op: Op) {
        if log == SWARM_LOG {
            return self.roster.learn(actor, seq, &op);
        }
        let unit = match &op {
            Op::Done { unit, .. } | Op::Failed { unit, .. } => Some(*unit),
            _ => None,
        };
        let reopened = match &op {
            Op::Requeue { units, .. } | Op::Revise { units, .. } => Some(units.clone()),
            _ => None,
        };
        let failure_log = match &op {
            Op::Failed { log, .. } if actor != self.me => *log,
            _ => None,
        };
        let is_submit = matches!(op, Op::Submit { .. });
        match &op {
            Op::Done { unit, .. } => self.promises.came(*unit),
            // Only now a job may begin, perhaps.
            Op::Submit { .. } | Op::Set { .. } => self.promises.look_again(),
            _ => {}
        }
        let is_zip = matches!(op, Op::Zip { .. });
        // What this machine came to hold it knew before.
        let is_known = actor == self.me && matches!(op, Op::Holds { .. });
        if let Op::Failed { unit, .. } = &op
            && actor != self.me
        {
            self.blame.failed(log, *unit, actor.node, actor.node == self.me.node, self.last_turn);
        }
        let state = self.jobs.entry(log).or_insert_with(|| JobState::new(log));
        state.apply(actor, seq, op);
        if state.is_retired() {
            self.due.insert(log);
        }
        if let Some(collector) = self.collectors.get_mut(&log).filter(|_| !is_known) {
            collector.look_at_waiting();
        }
        if let Some(unit) = unit {
            if actor == self.me {
                self.hands.remove(&(log, unit));
                self.promises.kept(log, unit);
                self.ended.remove(&(log, unit));
            }
            if let Some(collector) = self.collectors.get_mut(&log) {
                collector.look_at(unit);
                if let Some(blob) = failure_log {
                    // Whoever collects can say what went wrong elsewhere.
                    self.transfer.want(blob, Urgency::Result, None, BTreeSet::from([actor.node]));
                }
            }
        }
        if is_zip && state.submitter == Some(self.me) {
            // It comes right behind the `Submit`, of which the collector is.
            let zip = state.spec.as_ref().and_then(|spec| spec.output.zip.clone());
            self.collectors.get_mut(&log).into_iter().for_each(|collector| collector.output.zip.clone_from(&zip));
        }
        if is_submit {
            self.known_since.entry(log).or_insert(self.last_turn);
            self.collect_own(log);
        } else if reopened.is_some() {
            // A finished job goes on: its submitter collects again.
            self.collect_own(log);
        }
    }

    /// Folds a job anew: something that was folded does not count any more.
    pub(super) fn refold(&mut self, log: JobId) {
        if log == SWARM_LOG {
            self.roster.unlearn();
            return self.ledger.ops(log).for_each(|(actor, seq, op)| self.roster.learn(actor, seq, &op));
        }
        let mut state = JobState::new(log);
        let mut is_known = false;
        for (actor, seq, op) in self.ledger.ops(log) {
            is_known = true;
            state.apply(actor, seq, op);
        }
        if let Some(collector) = self.collectors.get_mut(&log) {
            collector.look_again(&state);
        }
        match is_known {
            true => self.jobs.insert(log, state),
            false => self.jobs.remove(&log),
        };
    }

    /// Starts collecting a job that this machine submitted and has not brought together yet.
    pub(super) fn collect_own(&mut self, job: JobId) {
        let Some(state) = self.jobs.get(&job) else { return };
        let is_collected = state.collected.is_some_and(|(revision, _)| revision >= state.revision);
        if state.owner() != Some(self.me.node) || is_collected {
            return;
        }
        let Some(spec) = &state.spec else { return };
        match self.collectors.get_mut(&job) {
            Some(collector) => state.finished().for_each(|unit| collector.look_at(unit)),
            None => {
                self.collections += 1;
                self.collectors.insert(job, Collector::new(self.collections, state, spec.output.clone()));
            }
        }
    }

    fn submit(
        &mut self,
        call: u64,
        mut spec: JobSpec,
        kept: Vec<KeptFrame>,
        rng: &mut dyn Rng,
        effects: &mut Vec<Effect>,
    ) {
        spec.nonce = rng.random();
        let zip = spec.output.zip.take();
        let outputs: Vec<BlobId> = kept.iter().flat_map(|frame| &frame.outputs).map(|output| output.blob).collect();
        let kept: Vec<Op> = kept.into_iter().map(KeptFrame::done).collect();
        match self.ledger.submit(&kept, spec) {
            Ok(job) => {
                self.stored(&outputs, effects);
                if let Some(path) = zip {
                    self.say(job, &Op::Zip { path });
                }
                self.submitted.push((call, job, 0));
            }
            Err(error) => effects.push(Effect::Refused { call, reason: error.to_string() }),
        }
    }

    fn revise(
        &mut self,
        now: Now,
        call: u64,
        (job, units): (JobId, UnitSet),
        mut revision: Box<Revision>,
        by: String,
        rng: &mut dyn Rng,
    ) -> Result<(), String> {
        let known = self.jobs.get(&job).and_then(|state| Some((state, state.spec.as_ref()?)));
        let Some((state, spec)) = known else { return Err(format!("there is no job {} any more", job.short())) };
        if state.canceled.is_some() {
            return Err(format!("job {} was canceled; submit the scene as a new job instead", job.short()));
        }
        if let Some(unit) = units.iter().find(|unit| !spec.frames.contains(unit.frame)) {
            return Err(format!("frame {} is not one of the job's; it has {}", unit.frame, spec.frames));
        }
        let (device, asks) = (revision.settings.device, revision.settings.scripts.op_version() > state.min_version);
        if asks || device.op_version() > state.min_version {
            let without = if asks { "scripts".to_owned() } else { format!("--device {device}") };
            return Err(format!(
                "job {} was submitted without {without}, and machines may have it that know of none; submit it as a new job",
                job.short()
            ));
        }
        let epoch = state.next_epoch(&units);
        let id = rng.random_range(1..=u32::MAX);
        let words = revision.settings.take_words();
        let op = Op::Revise { id, revision, units, epoch, by, at_ms: now.wall_ms };
        self.ledger.revise(job, &words, &op).map_err(|error| error.to_string())?;
        self.submitted.push((call, job, id));
        Ok(())
    }

    fn command(&mut self, now: Now, job: JobId, command: JobCommand) {
        let Some(state) = self.jobs.get(&job) else { return };
        match command {
            JobCommand::Set(setting) => {
                let op = Op::Set { lamport: state.next_lamport(), setting, at_ms: now.wall_ms };
                self.say(job, &op);
            }
            JobCommand::Cancel(by) => {
                self.say(job, &Op::Cancel { by, at_ms: now.wall_ms });
            }
            JobCommand::Requeue { units, by } => {
                let epoch = state.next_epoch(&units);
                self.say(job, &Op::Requeue { units, epoch, by, at_ms: now.wall_ms });
            }
            JobCommand::Collect(output) => {
                self.collections += 1;
                self.collectors.insert(job, Collector::new(self.collections, state, output));
            }
            JobCommand::Delete if state.is_over() && !self.is_waited_for(job) => {
                self.say(job, &Op::Retire { why: RetireReason::Over });
            }
            JobCommand::Delete => {}
        }
    }

    fn rendered(&mut self, job: JobId, unit: Unit, epoch: u32, result: Rendered, effects: &mut Vec<Effect>) {
        let blobs: Vec<BlobId> = result.outputs.iter().map(|output| output.blob).collect();
        self.stored(&blobs, effects);
        self.end_hand(job, unit);
        let Rendered { outputs, millis, device, build, blank, warnings } = result;
        let known = self.jobs.get(&job).map_or(0, |state| state.unit(unit).revision());
        let revision = self.hands.get(&(job, unit)).map_or(known, |hand| hand.revision);
        self.say(job, &Op::Done { epoch, revision, unit, outputs, millis, device, build });
        if blank.is_some() || !warnings.is_empty() {
            self.say(job, &Op::Remark { epoch, unit, blank, warnings });
        }
    }

    /// Files of results came into the store otherwise than from other machines.
    fn stored(&mut self, blobs: &[BlobId], effects: &mut Vec<Effect>) {
        self.local.extend(blobs);
        self.gone.retain(|blob| !self.local.contains(blob));
        for blob in blobs {
            // The same bytes as another's, which were being fetched.
            self.transfer.done(*blob);
            self.blob_complete(*blob, effects);
        }
    }

    fn end_hand(&mut self, job: JobId, unit: Unit) {
        if self.hands.contains_key(&(job, unit)) {
            self.ended.insert((job, unit));
        }
        self.queue.retain(|key| *key != (job, unit));
    }

    /// A blob became whole: part of a bundle, a manifest, or a result.
    fn blob_complete(&mut self, blob: BlobId, effects: &mut Vec<Effect>) -> bool {
        if self.bundles.get(&blob).is_some_and(|bundle| bundle.missing.is_none()) {
            effects.push(Effect::ReadManifest { bundle: blob });
        }
        let mut whole = Vec::new();
        for (id, bundle) in &mut self.bundles {
            if let Some(missing) = &mut bundle.missing
                && missing.remove(&blob)
                && missing.is_empty()
            {
                whole.push(*id);
            }
        }
        let settles = !whole.is_empty();
        whole.into_iter().for_each(|bundle| self.bundle_ready(bundle));
        if let Some(uses) = self.wanted.remove(&blob) {
            self.local.insert(blob);
            for (job, unit) in uses {
                self.fresh.entry(job).or_default().insert(blob);
                if let Some(collector) = self.collectors.get_mut(&job) {
                    collector.look_at(unit);
                }
            }
            return true;
        }
        settles
    }

    fn manifest(&mut self, bundle: BlobId, files: Option<Vec<super::blob::BlobMap>>) {
        // Whoever wanted it may be gone by now.
        let Some(files) = files.filter(|_| self.bundles.contains_key(&bundle)) else { return };
        let sources = self.bundle_sources(bundle);
        let missing: BTreeSet<BlobId> = files.iter().map(|map| map.id()).collect();
        for map in files {
            self.transfer.want(map.id(), Urgency::Bundle, Some(map), sources.clone());
        }
        let is_whole = missing.is_empty();
        self.bundles.insert(bundle, Bundle { missing: Some(missing) });
        if is_whole {
            self.bundle_ready(bundle);
        }
    }

    fn bundle_ready(&mut self, bundle: BlobId) {
        self.bundles.remove(&bundle);
        self.ready.insert(bundle);
    }

    /// The collector that an answer is for, unless another has taken its place.
    fn collector(&mut self, job: JobId, collection: u64) -> Option<&mut Collector> {
        self.collectors.get_mut(&job).filter(|collector| collector.collection == collection)
    }

    fn video_finished(
        &mut self,
        now: Now,
        (job, collection): (JobId, u64),
        outcome: Result<(), String>,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(collector), Some(state)) = (self.collectors.get_mut(&job), self.jobs.get(&job)) else { return };
        // A video that a cancel overtook may answer as well as the cancel.
        let is_for_it = matches!(collector.finishing, Some(Ending::Video | Ending::Cancel));
        if collector.collection != collection || !is_for_it {
            return;
        }
        collector.video = match (&outcome, &collector.output.video) {
            (Err(_), _) => VideoState::Failed,
            (Ok(()), Some(_)) if state.has_video_frames() => VideoState::Ready,
            (Ok(()), _) => VideoState::None,
        };
        collector.no_video = outcome.err();
        collector.reason.clone_from(&collector.no_video);
        // What is not the last word needs no ZIP file.
        let is_wanted = collector.output.zip.is_some() && collector.finished == Some(state.revision);
        if is_wanted && collector.finishing == Some(Ending::Video) {
            collector.finishing = Some(Ending::Zip);
            let video = collector.video == VideoState::Ready;
            effects.push(Effect::WriteZip { job, collection, video });
            return;
        }
        self.all_written(now, job);
    }

    /// Whatever was asked for last is written.
    fn all_written(&mut self, now: Now, job: JobId) {
        let (Some(collector), Some(state)) = (self.collectors.get_mut(&job), self.jobs.get(&job)) else { return };
        collector.finishing = None;
        let video = collector.no_video.is_none();
        collector.reason = collector.last_word(state);
        // Something was requeued meanwhile: what was made is not the last word.
        if collector.finished != Some(state.revision) {
            collector.finished = None;
            return;
        }
        collector.ended = true;
        if state.owner() == Some(self.me.node) {
            let collected = Op::Collected { revision: state.revision, video, at_ms: now.wall_ms };
            // Under their final names the files need no second copy here; those rendered elsewhere are kept there, and so
            // is what another job says is here.
            let me = self.me.node;
            let others: Vec<&JobState> =
                self.jobs.values().filter(|other| other.id != job && !other.is_over()).collect();
            let is_spare = |blob: &BlobId| {
                self.local.contains(blob)
                    && state.holding(*blob).any(|node| node != me)
                    && !others.iter().any(|other| other.holding(*blob).any(|node| node == me))
            };
            let results = state.all_units().flat_map(|unit| state.unit(unit).current_results());
            let outputs = results.flat_map(|(_, outcome)| outcome.outputs.iter().map(|output| output.blob));
            let blobs: Vec<BlobId> = outputs.filter(is_spare).collect::<BTreeSet<_>>().into_iter().collect();
            self.say(job, &collected);
            for part in blobs.chunks(super::op::MAX_BLOBS_PER_OP) {
                self.say(job, &Op::Drops { blobs: part.to_vec() });
            }
        }
    }

    /// Reads a complete manifest: what its files consist of. For adapters and simulations alike.
    pub fn manifest_files(bytes: &[u8]) -> Option<Vec<super::blob::BlobMap>> {
        let manifest = wire::decode_manifest(bytes).ok()?;
        Some(manifest.files.into_iter().map(|file| file.map).collect())
    }

    /// Whether a setting is as it is to be.
    pub fn is_set(&self, job: JobId, setting: &JobSetting) -> bool {
        let Some(state) = self.jobs.get(&job) else { return false };
        let (mut priority, mut rules) = (state.priority(), state.rules().clone());
        setting.apply(&mut priority, &mut rules);
        priority == state.priority() && rules == *state.rules()
    }
}
