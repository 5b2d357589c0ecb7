//! Performing the farm's effects, and the store as the network sees it.

use super::fail::fail_point;
use super::net::{BlobFailure, BlobReply, BlobRequest, ChunkSink, ChunkSource, Protocol};
use super::slots::{Work, read_blob};
use super::store::Store;
use super::{Node, Until, rows};
use crate::farm::Farm;
use crate::farm::blob::BlobMap;
use crate::farm::event::{Effect, Input};
use crate::farm::id::{BlobId, NodeId, Unit};
use crate::wire;
use std::io;
use std::sync::Arc;

/// The store as a source and sink of chunks.
pub struct Chunks(pub Arc<Store>);

impl ChunkSource for Chunks {
    fn map(&self, blob: BlobId) -> Option<BlobMap> {
        self.0.map(blob)
    }

    fn have(&self, blob: BlobId) -> Option<Vec<u8>> {
        let have = self.0.have(blob)?;
        if have.iter().all(|has| *has) {
            return Some(vec![0xff; have.len().div_ceil(8)]);
        }
        let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (at, has)| byte | u8::from(*has) << at);
        Some(have.chunks(8).map(byte).collect())
    }

    fn read(&self, blob: BlobId, index: u32) -> io::Result<Vec<u8>> {
        self.0.read_chunk(blob, index)
    }

    fn reread(&self, blob: BlobId, index: u32) -> io::Result<Vec<u8>> {
        self.0.read_checked(blob, index)
    }
}

impl ChunkSink for Chunks {
    fn write(&self, blob: BlobId, index: u32, bytes: &[u8]) -> io::Result<()> {
        fail_point("mid-transfer");
        self.0.write_chunk(blob, index, bytes).map(|_| ())
    }
}

impl Node {
    /// Does what the farm wants done.
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist { token, rows } => self.unwritten.push(rows::batch(token, rows)),
            Effect::Send { to, message } => {
                let protocol = if message.is_status() { Protocol::Status } else { Protocol::Ledger };
                match wire::encode(&message) {
                    // A frame that finds no room is lost; the ledger's repair mends that, and the next heartbeat.
                    Ok(frame) => drop(self.net.try_send(to, protocol, frame)),
                    Err(error) => tracing::error!(%error, "a message could not be written"),
                }
            }
            Effect::Disconnect { node } => self.net.disconnect(node),
            Effect::Submitted { call, job } => self.submitted(call, job),
            Effect::Refused { call, reason } => {
                if let Some(submission) = self.submissions.remove(&call) {
                    submission.stream.try_fail(super::ApiError::new(super::ErrorKind::Internal, reason));
                }
            }
            Effect::Render { job, unit, epoch, revision, fresh } => {
                let state = self.farm.jobs().get(&job);
                if let Some(spec) = state.and_then(|state| state.spec_of(revision)).cloned() {
                    tracing::debug!(job = %job.short(), frame = unit.frame, "rendering");
                    let time_limit = state.and_then(|state| state.rules().time_limit);
                    let may_run_scripts = self.farm.roster().trusts().runs(self.identity.node, &spec);
                    let scene = (job, revision);
                    self.slots.render(Work { scene, spec, unit, epoch, fresh, may_run_scripts, time_limit });
                }
            }
            Effect::Stop { job, unit } => self.slots.stop(job, unit),
            Effect::SelfTest => {
                tracing::warn!(
                    "frames failed here that others rendered; a test frame is rendered before anything else"
                );
                let open = self.farm.jobs().values().filter(|job| !job.is_over());
                let series = open.filter_map(|job| job.spec.as_ref().map(|spec| spec.series)).collect();
                self.slots.self_test(&series);
            }
            Effect::OpenBlob { blob, map } => {
                // One that is being freed is looked for once it is gone.
                let Some((blob, map)) = self.sweep.defer(blob, map) else { return };
                let store = self.store.clone();
                self.answer_later(move || vec![open_blob(&store, blob, map)]);
            }
            Effect::AskMap { of, blob } => self.ask(of, BlobRequest::Map { blob }),
            Effect::AskHave { of, blob } => self.ask(of, BlobRequest::Have { blob }),
            Effect::AskChunk { of, blob, index, chunk } => {
                self.ask(of, BlobRequest::Chunk { blob, index, id: chunk.id, bytes: chunk.bytes });
            }
            Effect::ReadManifest { bundle } => {
                let store = self.store.clone();
                self.answer_later(move || {
                    let bytes = read_blob(&store, bundle, wire::MANIFEST_MAX_BYTES as u64);
                    let files = bytes.ok().and_then(|bytes| Farm::manifest_files(&bytes));
                    if files.is_none() {
                        tracing::warn!(bundle = %bundle.short(), "a bundle's manifest cannot be read; its job is left out");
                    }
                    vec![Input::Manifest { bundle, files }]
                });
            }
            Effect::Deliver { job, collection, unit, epoch, outputs, is_kept } => {
                let to = self.farm.collectors().get(&job).map(|collector| collector.output.clone());
                if let (Some(spec), Some(to)) = (self.job_spec(job), to) {
                    self.delivery.deliver((job, collection), spec, &to, (unit, epoch), (outputs, is_kept));
                }
            }
            Effect::FinishVideo { job, collection, missing, canceled } => {
                let to = self.farm.collectors().get(&job).map(|collector| collector.output.clone());
                match to.filter(|_| canceled) {
                    Some(to) => self.delivery.cancel((job, collection), &to),
                    None => self.delivery.finish((job, collection), missing),
                }
            }
            Effect::WriteZip { job, collection, video } => {
                let to = self.farm.collectors().get(&job).map(|collector| collector.output.clone());
                let state = self.farm.jobs().get(&job);
                if let (Some(state), Some(spec), Some(to)) = (state, self.job_spec(job), to) {
                    // Of a frame that was there before nobody printed anything.
                    let is_rendered = |unit| state.unit(unit).current_results().any(|(_, outcome)| !outcome.is_kept);
                    let has_log = |unit: &Unit| is_rendered(*unit) || !state.unit(*unit).failures.is_empty();
                    let logs = state.all_units().filter(has_log).map(|unit| unit.frame).collect();
                    self.delivery.zip((job, collection), spec, &to, logs, video);
                }
            }
            Effect::Retired { job } => {
                self.delivery.forget(job);
                self.sweep.hurry(self.clock.now());
                let logs = self.logs.clone();
                self.answer_later(move || {
                    logs.forget(job);
                    Vec::new()
                });
            }
            // Some may be files of a bundle, which only the sweep knows, or be stored anew at this moment.
            Effect::Forget { .. } => self.sweep.hurry(self.clock.now()),
        }
    }

    fn ask(&mut self, of: NodeId, request: BlobRequest) {
        let about = about(&request);
        if self.net.request(of, request).is_err()
            && let Some((blob, index)) = about
        {
            self.unasked.push(Input::RequestFailed { from: of, blob, index });
        }
    }

    fn submitted(&mut self, call: u64, job: crate::farm::id::JobId) {
        let Some(submission) = self.submissions.remove(&call) else { return };
        tracing::info!(job = %job.short(), "submitted");
        submission.stream.try_event(serde_json::json!({"event": "submitted", "job": job.to_string()}));
        let until = if submission.detach { Until::Replicated { stays: !self.options.embedded } } else { Until::End };
        self.watch(job, submission.stream, until);
    }

    pub(super) fn blob_reply(&mut self, node: NodeId, reply: BlobReply) {
        match reply {
            BlobReply::Text { .. } => self.log_came(node, reply),
            BlobReply::Map { blob, map } => self.turn(Input::PeerMap { from: node, blob, map }),
            BlobReply::Have { blob, bitmap } => {
                let have = bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect();
                self.turn(Input::PeerHave { from: node, blob, have });
            }
            BlobReply::Chunk { blob, index, .. } => {
                self.turn(Input::Chunk { from: node, blob, index });
                if self.store.has(blob) {
                    self.turn(Input::BlobComplete { blob });
                }
            }
            BlobReply::Failed { ref request, ref why } => {
                let Some((blob, index)) = about(request) else { return self.log_came(node, reply) };
                if let BlobFailure::Disk(error) = why {
                    tracing::error!(blob = %blob.short(), "{error}");
                }
                self.unasked.push(Input::RequestFailed { from: node, blob, index });
            }
        }
    }
}

/// Which blob of the farm's, and which of its chunks, a request is about.
fn about(request: &BlobRequest) -> Option<(BlobId, Option<u32>)> {
    match request {
        BlobRequest::Map { blob } | BlobRequest::Have { blob } => Some((*blob, None)),
        BlobRequest::Chunk { blob, index, .. } => Some((*blob, Some(*index))),
        BlobRequest::Log { .. } | BlobRequest::Text { .. } => None,
    }
}

fn open_blob(store: &Store, blob: BlobId, map: Option<BlobMap>) -> Input {
    if store.has(blob) {
        return Input::BlobComplete { blob };
    }
    let Some(map) = map.or_else(|| store.map(blob)) else { return Input::BlobUnknown { blob } };
    match store.begin(&map) {
        Ok(partial) if partial.complete() => Input::BlobComplete { blob },
        Ok(partial) => Input::BlobOpened { blob, have: partial.have },
        Err(error) => {
            tracing::error!(blob = %blob.short(), %error, "no room could be made for a blob");
            Input::BlobUnknown { blob }
        }
    }
}
