//! Settling: what follows from the present state. Units are given up, claimed and begun; bundles and results are
//! fetched; results are delivered; the video is finished.

use super::Farm;
use super::collect::{Ending, pick, to_replicate};
use super::config::{CLAIM_MAX_UNITS, LOOK_AGAIN, PATIENCE, REPLICATE_EVERY};
use super::event::{Effect, Now};
use super::fit::suits;
use super::id::{BlobId, BootId, JobId, NodeId, Unit};
use super::loss::{self, Loss};
use super::message::Capability;
use super::op::{MAX_BLOBS_PER_OP, Op, UnitSet};
use super::rendezvous::{strength, strength_at_job};
use super::rules::{Chunk, span};
use super::schedule::{Hand, TAKEN_OVER};
use super::state::JobState;
use super::transfer::Urgency;
use super::verdict::{is_failed, is_lost, is_stopped};
use super::why::cap;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Farm {
    /// Brings everything into line with the present state.
    pub(super) fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.expire(now);
        if self.blame.review(&self.jobs, self.me.node, now.mono) {
            effects.push(Effect::SelfTest);
        }
        self.tell_health();
        self.give_up(now, effects);
        self.reuse(now);
        self.claim(now, effects);
        self.want_bundles(now);
        self.collect(now, effects);
        self.announce_holdings();
    }

    /// Ends jobs whose time is over: by the submitter's machine, or while it is away by whoever has known the job for that
    /// long. Each measures on its own clock from when it first heard of the job in this run, so that no clock can end a
    /// job early, and a restart only ever grants time.
    fn expire(&mut self, now: Now) {
        let is_over_time = |job: &&JobState| {
            let known = self.known_since.get(&job.id).map(|since| now.mono.saturating_sub(*since));
            let decides =
                job.owner().is_some_and(|owner| owner == self.me.node || !self.roster.is_alive(owner, now.mono));
            decides && job.rules().deadline.is_some_and(|deadline| known.is_some_and(|known| known >= deadline))
        };
        let open = self.jobs.values().filter(|job| !job.is_over() && !self.expired.contains(&job.id));
        let expired: Vec<(JobId, Duration)> =
            open.filter(is_over_time).filter_map(|job| Some((job.id, job.rules().deadline?))).collect();
        for (job, deadline) in expired {
            self.expired.insert(job);
            self.say(job, &Op::Cancel { by: format!("its deadline of {}", span(deadline)), at_ms: now.wall_ms });
        }
    }

    /// Tells the others when this machine fell sick, or is well again.
    pub(super) fn tell_health(&mut self) {
        let sick = self.blame.is_sick();
        if let Some(own) = self.roster.own().filter(|own| own.sick != sick) {
            let own = Capability { sick, ..own.clone() };
            self.roster.set_own(own);
            self.capability_is_new = true;
        }
    }

    fn give_up(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let gone = self.scheduler(now.mono).give_up();
        self.let_go(gone, effects);
    }

    /// Everything in hand is open to others at once.
    pub(super) fn give_back(&mut self, effects: &mut Vec<Effect>) {
        let all = self.hands.keys().copied().collect();
        self.let_go(all, effects);
        // Whoever asks this machine sees it free, before the next heartbeat.
        self.roster.set_own_work(self.in_hand().collect());
    }

    fn let_go(&mut self, gone: Vec<(JobId, Unit)>, effects: &mut Vec<Effect>) {
        let mut released: BTreeMap<JobId, Vec<i32>> = BTreeMap::new();
        for (job, unit) in gone {
            if self.ended.contains(&(job, unit)) {
                continue;
            }
            self.queue.retain(|key| *key != (job, unit));
            if let Some(Hand { started: Some(_), .. }) = self.hands.remove(&(job, unit)) {
                effects.push(Effect::Stop { job, unit });
            }
            released.entry(job).or_default().push(unit.frame);
        }
        for (job, frames) in released {
            if let Some(units) = UnitSet::whole(frames) {
                self.say(job, &Op::Release { units });
            }
        }
    }

    /// Begins what waits, and claims more while slots are free.
    fn claim(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.looks_again = false;
        if self.is_leaving || self.fenced_until.is_some_and(|until| now.mono < until) {
            return;
        }
        let Some(own) = self.roster.own() else { return };
        let slots = own.slots as usize;
        for _ in 0..=slots + CLAIM_MAX_UNITS {
            let busy =
                self.hands.iter().filter(|(key, hand)| hand.started.is_some() && !self.ended.contains(*key)).count();
            if busy >= slots {
                return;
            }
            if let Some((job, unit)) = self.next_waiting() {
                self.begin(now, job, unit, effects);
                continue;
            }
            // What others do changes a hundred times a second in a large swarm, and seldom leaves something to begin.
            if now.mono < self.look_at {
                self.looks_again = true;
                return;
            }
            let view = self.scheduler(now.mono);
            let Some(choice) = view.choose() else {
                let held_back = view.held_back().map(|own| now.mono + own + PATIENCE);
                self.patient_until = held_back.map(|until| self.patient_until.unwrap_or(until));
                self.look_at = now.mono + LOOK_AGAIN;
                return;
            };
            self.patient_until = None;
            let Some(units) = UnitSet::whole(choice.units.iter().map(|(unit, _)| unit.frame).collect()) else { return };
            let slots = slots as u32;
            // Who stays where few may render and whose claim on a unit stands must not differ: the one would let go by the one
            // rule and the other by the other, and both would claim it again.
            let is_capped = self.jobs.get(&choice.job).is_some_and(|job| cap(job).is_some());
            let score = |unit| match is_capped {
                true => strength_at_job(self.me.node, choice.job),
                false => strength(self.me.node, slots, choice.job, unit, choice.epoch),
            };
            let weakest = match choice.taken_from {
                Some(_) => TAKEN_OVER,
                None => choice.units.iter().map(|(unit, _)| score(*unit)).min().unwrap_or(0),
            };
            let claim = Op::Claim { epoch: choice.epoch, units, kind: choice.kind, score: weakest };
            self.say(choice.job, &claim);
            for (unit, epoch) in choice.units {
                let hand = Hand { epoch, kind: choice.kind, score: weakest, started: None, percent: 0, revision: 0 };
                self.hands.insert((choice.job, unit), hand);
                self.queue.push_back((choice.job, unit));
            }
        }
    }

    /// What to begin next of what waits. A job that is rendered in order by one machine is rendered one unit at a time.
    fn next_waiting(&mut self) -> Option<(JobId, Unit)> {
        let is_in_order = |job: &JobId| self.jobs.get(job).is_some_and(|job| job.rules().chunk == Chunk::All);
        let renders = |job: &JobId| {
            self.hands.iter().any(|(key, hand)| key.0 == *job && hand.started.is_some() && !self.ended.contains(key))
        };
        let at = self.queue.iter().position(|(job, _)| !is_in_order(job) || !renders(job))?;
        self.queue.remove(at)
    }

    fn begin(&mut self, now: Now, job: JobId, unit: Unit, effects: &mut Vec<Effect>) {
        let Some(hand) = self.hands.get_mut(&(job, unit)) else { return };
        let revision = self.jobs.get(&job).map_or(0, |state| state.unit(unit).revision());
        (hand.started, hand.revision) = (Some(now.mono), revision);
        self.has_begun = true;
        let fresh = self.jobs.get(&job).is_some_and(|state| state.unit(unit).failures_of(self.me.node) > 0);
        effects.push(Effect::Render { job, unit, epoch: hand.epoch, revision, fresh });
    }

    /// Wants the bundle of every job this machine could work on, whether or not it may at the moment; none that no job
    /// needs any more.
    fn want_bundles(&mut self, now: Now) {
        self.forget_bundles();
        let (roster, me) = (&self.roster, self.me.node);
        if roster.own().is_none() {
            return;
        }
        let wanted: Vec<BlobId> = self
            .jobs
            .values()
            .filter(|job| !job.is_over() && !is_stopped(job, &self.roster, now.mono))
            .flat_map(|job| job.current_specs().map(move |spec| (job, spec)))
            .filter(|(job, spec)| {
                suits(roster, me, spec, job.rules(), job.min_version).is_ok() || job.owner() == Some(me)
            })
            .map(|(_, spec)| spec.bundle)
            .filter(|bundle| !self.ready.contains(bundle))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        for bundle in wanted {
            let sources = self.bundle_sources(bundle);
            if let Entry::Vacant(new) = self.bundles.entry(bundle) {
                new.insert(super::Bundle::default());
                self.transfer.want(bundle, Urgency::Bundle, None, sources);
                continue;
            }
            // New holders are new sources for what is still missing.
            if let Some(missing) = self.bundles.get(&bundle).and_then(|b| b.missing.as_ref()) {
                let blobs: Vec<BlobId> = missing.iter().copied().take(super::config::ACTIVE_FETCHES).collect();
                blobs.into_iter().for_each(|blob| self.transfer.want(blob, Urgency::Bundle, None, sources.clone()));
            } else if self.transfer.wants(bundle) {
                self.transfer.want(bundle, Urgency::Bundle, None, sources);
            }
        }
    }

    fn forget_bundles(&mut self) {
        if self.bundles.is_empty() {
            return;
        }
        let open = self.jobs.values().filter(|job| !job.is_over());
        let named: BTreeSet<BlobId> = open.flat_map(|job| job.bundles()).collect();
        let gone: Vec<BlobId> = self.bundles.keys().filter(|bundle| !named.contains(bundle)).copied().collect();
        gone.into_iter().for_each(|bundle| self.forget_bundle(bundle));
    }

    /// Who has a whole bundle: whoever made it and everyone who said so.
    pub(super) fn bundle_sources(&self, bundle: BlobId) -> BTreeSet<NodeId> {
        let uses = |job: &&JobState| job.bundles().any(|used| used == bundle);
        let jobs = self.jobs.values().filter(uses);
        let mut sources: BTreeSet<NodeId> = jobs.flat_map(|job| job.having(bundle)).collect();
        sources.remove(&self.me.node);
        sources
    }

    /// Fetches results wanted here, delivers what is whole, and finishes the video when there is nothing left.
    fn collect(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut fetch: Vec<(JobId, Unit, BlobId, BTreeSet<NodeId>)> = Vec::new();
        let mut lost: Vec<(JobId, Unit)> = Vec::new();
        let me = self.me.node;
        let alive: Vec<(NodeId, Option<BootId>)> = match self.collectors.is_empty() {
            true => Vec::new(),
            false => self.roster.alive(now.mono).map(|(node, member)| (node, member.boot)).collect(),
        };
        for (job, collector) in &mut self.collectors {
            let Some(state) = self.jobs.get(job) else { continue };
            if !collector.may_deliver(now.mono) {
                continue;
            }
            for unit in collector.take_pending(&alive) {
                let version = state.unit(unit).version();
                let epoch = version.0;
                if [&collector.delivered, &collector.delivering].iter().any(|at| at.get(&unit) == Some(&version)) {
                    continue;
                }
                let is_local = |outcome: &super::unit::Outcome| {
                    outcome.outputs.iter().all(|output| self.local.contains(&output.blob))
                };
                // The user's own file is looked for before anybody's result may take its place.
                let is_at_home =
                    |outcome: &super::unit::Outcome| state.owner() == Some(me) && collector.is_at_home(state, outcome);
                let may_be_there = |outcome: &super::unit::Outcome| {
                    is_local(outcome) || is_at_home(outcome) && !collector.is_absent(unit, outcome)
                };
                let Some(outcome) = pick(state, unit, may_be_there) else { continue };
                let is_delivering = collector.delivering.contains_key(&unit);
                let mut to_deliver = Some(outcome).filter(|outcome| !is_delivering && may_be_there(outcome));
                collector.gives_up(unit, None);
                if !is_delivering && to_deliver.is_none() && is_lost(state, unit, |blob| self.local.contains(&blob)) {
                    let is_own = state.owner() == Some(me);
                    let mut claims = state.unit(unit).current_claims();
                    let is_claimed = claims.any(|(actor, _)| self.roster.is_live_actor(actor, now.mono));
                    match loss::about(state, unit, collector, is_own, is_claimed) {
                        Loss::Look(outcome) => to_deliver = Some(outcome),
                        Loss::Reopen if collector.reopens(unit, version) => lost.push((*job, unit)),
                        Loss::Reopen | Loss::Wait => {}
                        Loss::GiveUp => {
                            collector.gives_up(unit, Some(version));
                            continue;
                        }
                    }
                }
                if let Some(outcome) = to_deliver {
                    let is_kept = state.owner() == Some(me) && collector.is_at_home(state, outcome);
                    collector.takes(unit, version, outcome);
                    let (collection, outputs) = (collector.collection, outcome.outputs.clone());
                    effects.push(Effect::Deliver { job: *job, collection, unit, epoch, outputs, is_kept });
                    continue;
                }
                collector.waits(unit);
                if !is_delivering {
                    // Every result of the unit will do: the holders of whichever is alive are asked.
                    let live = state.unit(unit).current_results().map(|(_, outcome)| outcome).find(|outcome| {
                        let holders = |blob| state.holding(blob);
                        outcome.outputs.iter().all(|output| {
                            self.local.contains(&output.blob)
                                || holders(output.blob).any(|node| node == me || self.roster.is_alive(node, now.mono))
                        })
                    });
                    if live.is_none() && state.is_over() {
                        // Nobody renders it anew.
                        let away =
                            || "what is left is on machines that are away; it comes when they are back".to_owned();
                        collector.reason.get_or_insert_with(away);
                    }
                    for output in live.map(|outcome| outcome.outputs.as_slice()).unwrap_or_default() {
                        if !self.local.contains(&output.blob) {
                            fetch.push((*job, unit, output.blob, state.holders(output.blob)));
                        }
                    }
                }
            }
        }
        let absent = |state: &&JobState| {
            !state.is_over() && state.owner().is_some_and(|owner| !self.roster.is_alive(owner, now.mono))
        };
        // Looks at many units, so not at every turn.
        let is_due = now.mono >= self.replicate_at;
        if is_due {
            self.replicate_at = now.mono + REPLICATE_EVERY;
            self.replications += 1;
        }
        for state in self.jobs.values().filter(|_| is_due).filter(absent) {
            let alive: BTreeSet<NodeId> = self.roster.alive(now.mono).map(|(node, _)| node).collect();
            for (unit, outcome) in to_replicate(state, me, &alive, self.replications) {
                for output in &outcome.outputs {
                    if !self.local.contains(&output.blob) {
                        fetch.push((state.id, unit, output.blob, state.holders(output.blob)));
                    }
                }
            }
        }
        for (job, unit, blob, mut sources) in fetch {
            let is_new = !self.wanted.contains_key(&blob);
            self.wanted.entry(blob).or_default().insert((job, unit));
            sources.remove(&me);
            if is_new || !sources.is_empty() {
                self.transfer.want(blob, Urgency::Result, None, sources);
            }
        }
        self.reopen_lost(now, lost);
        self.finish_videos(now, effects);
    }

    fn finish_videos(&mut self, now: Now, effects: &mut Vec<Effect>) {
        for (job, collector) in &mut self.collectors {
            let Some(state) = self.jobs.get(job) else { continue };
            let stopped = is_stopped(state, &self.roster, now.mono);
            let given_up = |unit| state.canceled.is_some() || stopped || is_failed(state, unit, &self.roster, now.mono);
            let ending = if state.canceled.is_some() { Ending::Cancel } else { Ending::Video };
            // A video or a ZIP file may wait for its disk for ever, but no longer than the job is wanted.
            let overtakes = ending == Ending::Cancel && collector.finishing.is_some_and(|before| before != ending);
            if collector.finished == Some(state.revision) && !overtakes {
                continue;
            }
            collector.ended = false;
            if (collector.finishing.is_some() && !overtakes) || !collector.is_complete(state, given_up) {
                continue;
            }
            (collector.finished, collector.finishing) = (Some(state.revision), Some(ending));
            let missing = state.unfinished().iter().copied().chain(collector.lost(state));
            let missing = missing.map(|unit| unit.frame).collect::<BTreeSet<_>>().into_iter().collect();
            let (collection, canceled) = (collector.collection, ending == Ending::Cancel);
            effects.push(Effect::FinishVideo { job: *job, collection, missing, canceled });
        }
    }

    /// Says what this machine has come to hold: the second copies that make a result done, and whole bundles.
    fn announce_holdings(&mut self) {
        for (job, blobs) in std::mem::take(&mut self.fresh) {
            let Some(state) = self.jobs.get(&job) else { continue };
            let new: Vec<BlobId> =
                blobs.into_iter().filter(|blob| !state.holding(*blob).any(|node| node == self.me.node)).collect();
            for part in new.chunks(MAX_BLOBS_PER_OP) {
                self.say(job, &Op::Holds { blobs: part.to_vec() });
            }
        }
        // A bundle may serve several jobs: each that comes later is told as well.
        let late: Vec<(JobId, BlobId)> = self
            .jobs
            .values()
            .filter(|job| !job.is_over())
            .flat_map(|job| job.current_specs().map(move |spec| (job, spec.bundle)))
            .filter(|(job, bundle)| !self.announced.contains(&(job.id, *bundle)))
            .filter(|(job, bundle)| {
                self.ready.contains(bundle) && !job.holding(*bundle).any(|node| node == self.me.node)
            })
            .map(|(job, bundle)| (job.id, bundle))
            .collect();
        for (job, bundle) in late {
            self.announced.insert((job, bundle));
            self.say(job, &Op::Holds { blobs: vec![bundle] });
        }
    }

    /// Asks for chunks.
    pub(super) fn fetch(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.transfer.is_idle() {
            return;
        }
        effects.extend(self.transfer.poll(self.roster.connected_nodes(), now.mono));
    }
}
