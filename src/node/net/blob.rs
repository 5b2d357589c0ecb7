//! The blob protocol: requests down one stream, replies back on it in the same order.
//!
//! A request is 37 bytes: kind u8, blob, index u32 (little-endian); for a log a job and a frame stand where the blob does.
//! A reply is an outcome u8 and a length u32, then so many bytes: a chunk as it is, a map as (id, length u32) of each
//! chunk, a bitmap, or a text. The server reads ahead of what it writes, the client checks and writes behind what it
//! reads, each a few chunks deep, so that wire, disk and hash work at the same time and memory stays bounded. Nothing
//! reaches the sink that does not have the hash asked for.

use super::{BlobFailure, BlobReply, BlobRequest, ChunkSink, ChunkSource, NetEvent, TEXT_MAX_BYTES};
use crate::farm::blob::{BLOB_MAX_CHUNKS, BlobMap, CHUNK_MAX_BYTES, ChunkRef, MAP_ENTRY_BYTES, chunk_id};
use crate::farm::id::{BlobId, ChunkId, JobId, NodeId};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Most requests of ours a peer may have unanswered (the farm's byte budget is lower for full chunks).
pub(super) const MAX_REQUESTS: usize = 64;
/// Chunks the server reads from disk ahead of the wire, per peer (measured on loopback: more gains nothing).
const READ_AHEAD: usize = 3;
/// Chunks the client checks and writes behind the wire, per peer: one is written, one hashed, one waits. Never two
/// written at once (measured: the writers of one file spin on its lock, for a third more processor time).
const WRITE_BEHIND: usize = 3;
/// Chunks read or written at once for all peers together: what a blocking pool and a disk take well (guess).
pub(super) const DISK_AT_ONCE: usize = 16;
/// Chunks that a peer was sent last, remembered to tell when it asks for one again (guess: a second of a fast wire).
const REMEMBERED: usize = 256;
const REQUEST_BYTES: usize = 1 + 32 + 4;
const MAX_MAP_BYTES: usize = BLOB_MAX_CHUNKS * MAP_ENTRY_BYTES;
const MAX_HAVE_BYTES: usize = BLOB_MAX_CHUNKS.div_ceil(8);
const HERE: u8 = 0;
const MISSING: u8 = 1;

/// A request and its place in the peer's queue, held until the reply is out.
pub(super) type Queued = (BlobRequest, OwnedSemaphorePermit);

fn encode_request(request: &BlobRequest) -> [u8; REQUEST_BYTES] {
    let (kind, name, index) = match request {
        BlobRequest::Map { blob } => (0, blob.0, 0),
        BlobRequest::Have { blob } => (1, blob.0, 0),
        BlobRequest::Chunk { blob, index, .. } => (2, blob.0, *index),
        BlobRequest::Log { job, frame } => (3, log_name(*job, *frame), 0),
        BlobRequest::Text { blob } => (4, blob.0, 0),
    };
    let mut bytes = [0; REQUEST_BYTES];
    bytes[0] = kind;
    bytes[1..33].copy_from_slice(&name);
    bytes[33..].copy_from_slice(&index.to_le_bytes());
    bytes
}

/// What stands where the blob does in a request for a log.
fn log_name(job: JobId, frame: i32) -> [u8; 32] {
    let mut name = [0; 32];
    name[..16].copy_from_slice(&job.0);
    name[16..20].copy_from_slice(&frame.to_le_bytes());
    name
}

/// What a peer asks for.
enum Asked {
    Map(BlobId),
    Have(BlobId),
    Chunk(BlobId, u32),
    /// One that it was sent before.
    Again(BlobId, u32),
    Log(JobId, i32),
    Text(BlobId),
}

fn decode_request(bytes: [u8; REQUEST_BYTES]) -> io::Result<Asked> {
    let blob = BlobId(std::array::from_fn(|i| bytes[1 + i]));
    let index = u32::from_le_bytes([bytes[33], bytes[34], bytes[35], bytes[36]]);
    match bytes[0] {
        0 => Ok(Asked::Map(blob)),
        1 => Ok(Asked::Have(blob)),
        2 => Ok(Asked::Chunk(blob, index)),
        3 => {
            let frame = i32::from_le_bytes([bytes[17], bytes[18], bytes[19], bytes[20]]);
            Ok(Asked::Log(JobId(std::array::from_fn(|i| bytes[1 + i])), frame))
        }
        4 => Ok(Asked::Text(blob)),
        kind => Err(bad(format!("a blob request of the unknown kind {kind}"))),
    }
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Answers a peer's requests until it closes the stream or something breaks.
pub(super) async fn serve<S>(
    stream: S,
    node: NodeId,
    source: Arc<dyn ChunkSource>,
    disk: Arc<Semaphore>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut requests, mut replies) = stream.split();
    let (ahead, mut ready) = mpsc::channel::<JoinHandle<Option<Vec<u8>>>>(READ_AHEAD);
    let read = async move {
        let mut sent: VecDeque<(BlobId, u32)> = VecDeque::with_capacity(REMEMBERED);
        loop {
            let mut bytes = [0; REQUEST_BYTES];
            let first = requests.read(&mut bytes).await?;
            if first == 0 {
                return io::Result::Ok(());
            }
            requests.read_exact(&mut bytes[first..]).await?;
            let asked = remember(&mut sent, decode_request(bytes)?);
            let Ok(turn) = ahead.reserve().await else { return Ok(()) };
            let permit = disk.clone().acquire_owned().await.map_err(io::Error::other)?;
            let source = source.clone();
            turn.send(spawn_blocking(move || {
                let answer = look_up(&*source, node, asked);
                drop(permit);
                answer
            }));
        }
    };
    let write = async move {
        while let Some(answer) = ready.recv().await {
            let answer = answer.await.map_err(io::Error::other)?;
            let (outcome, payload) = answer.map_or((MISSING, Vec::new()), |payload| (HERE, payload));
            let length = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
            replies.write_all(&[outcome, length[0], length[1], length[2], length[3]]).await?;
            replies.write_all(&payload).await?;
            if ready.is_empty() {
                replies.flush().await?;
            }
        }
        replies.flush().await
    };
    tokio::try_join!(read, write).map(|_| ())
}

fn look_up(source: &dyn ChunkSource, node: NodeId, asked: Asked) -> Option<Vec<u8>> {
    match asked {
        Asked::Map(blob) => source.map(blob).filter(BlobMap::is_sound).map(|map| map.to_bytes()),
        Asked::Have(blob) => source.have(blob).filter(|bitmap| bitmap.len() <= MAX_HAVE_BYTES),
        Asked::Chunk(blob, index) => readable(source.read(blob, index), node, (blob, index)),
        Asked::Again(blob, index) => readable(source.reread(blob, index), node, (blob, index)),
        Asked::Log(job, frame) => source.log(job, frame).filter(|text| text.len() <= TEXT_MAX_BYTES),
        Asked::Text(blob) => {
            let is_text = |map: &BlobMap| matches!(&map.chunks[..], [one] if one.bytes as usize <= TEXT_MAX_BYTES);
            source.map(blob).filter(is_text)?;
            readable(source.read(blob, 0), node, (blob, 0))
        }
    }
}

/// Tells whether a peer was sent a chunk lately that it asks for now.
fn remember(sent: &mut VecDeque<(BlobId, u32)>, asked: Asked) -> Asked {
    let Asked::Chunk(blob, index) = asked else { return asked };
    if sent.contains(&(blob, index)) {
        return Asked::Again(blob, index);
    }
    sent.truncate(REMEMBERED - 1);
    sent.push_front((blob, index));
    asked
}

/// What can be sent of what was read.
fn readable(chunk: io::Result<Vec<u8>>, node: NodeId, (blob, index): (BlobId, u32)) -> Option<Vec<u8>> {
    match chunk {
        Ok(bytes) if bytes.len() <= CHUNK_MAX_BYTES as usize => Some(bytes),
        Ok(_) => None,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(%blob, index, peer = %node.short(), %error, "a chunk asked for could not be read here");
            }
            None
        }
    }
}

/// The asking side of one connection.
pub(super) struct Client {
    pub(super) node: NodeId,
    pub(super) sink: Arc<dyn ChunkSink>,
    pub(super) disk: Arc<Semaphore>,
    pub(super) events: mpsc::Sender<NetEvent>,
    /// Set when the connection is over.
    pub(super) stop: CancellationToken,
    /// Set when the whole network ends and nobody may be listening any more.
    pub(super) closing: CancellationToken,
}

impl Client {
    /// Sends what is queued and reports what comes back, until stopped or something breaks; what is then still open is
    /// reported as lost. Every request queued gets exactly one reply.
    pub(super) async fn run<S>(self, stream: S, mut queue: mpsc::Receiver<Queued>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (replies, requests) = stream.split();
        let (sent, mut open) = mpsc::channel::<Queued>(MAX_REQUESTS);
        let mut writes: JoinSet<Vec<u8>> = JoinSet::new();
        let mut asking = None;
        let outcome = tokio::select! {
            biased;
            () = self.stop.cancelled() => Ok(()),
            ended = self.send(requests, &mut queue, sent) => ended,
            ended = self.receive(replies, &mut open, &mut writes, &mut asking) => ended,
        };
        while let Some(ended) = writes.join_next().await {
            ended.map_err(io::Error::other)?;
        }
        queue.close();
        if let Some(queued) = asking.take() {
            self.lose(queued).await;
        }
        while let Some(queued) = open.recv().await {
            self.lose(queued).await;
        }
        while let Some(queued) = queue.recv().await {
            self.lose(queued).await;
        }
        outcome
    }

    async fn lose(&self, (request, place): Queued) {
        self.tell(BlobReply::Failed { request, why: BlobFailure::Lost }, place).await;
    }

    async fn tell(&self, reply: BlobReply, place: OwnedSemaphorePermit) {
        tell(&self.events, &self.closing, NetEvent::Blob { node: self.node, reply }).await;
        drop(place);
    }

    async fn send<W: AsyncWrite + Unpin>(
        &self,
        mut requests: W,
        queue: &mut mpsc::Receiver<Queued>,
        sent: mpsc::Sender<Queued>,
    ) -> io::Result<()> {
        while let Some((request, place)) = queue.recv().await {
            let bytes = encode_request(&request);
            // As many places as there may be requests: never waits, so a request is never between the two queues.
            sent.try_send((request, place)).map_err(|_| io::Error::other("more requests than places"))?;
            requests.write_all(&bytes).await?;
            if queue.is_empty() {
                requests.flush().await?;
            }
        }
        // No more requests will come; replies still do.
        requests.flush().await?;
        drop(sent);
        std::future::pending().await
    }

    async fn receive<R: AsyncRead + Unpin>(
        &self,
        mut replies: R,
        open: &mut mpsc::Receiver<Queued>,
        writes: &mut JoinSet<Vec<u8>>,
        asking: &mut Option<Queued>,
    ) -> io::Result<()> {
        // Buffers go round: a fresh one of a megabyte costs its page faults every time.
        let writing = Arc::new(Mutex::new(()));
        let mut spare: Vec<Vec<u8>> = Vec::with_capacity(WRITE_BEHIND + 1);
        loop {
            let Some(queued) = open.recv().await else { std::future::pending().await };
            let (request, _) = asking.insert(queued);
            let mut head = [0; 5];
            replies.read_exact(&mut head).await?;
            let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let here = match head[0] {
                HERE => true,
                MISSING if length == 0 => false,
                _ => return Err(bad("a blob reply that is none".into())),
            };
            let fits = match request {
                BlobRequest::Map { .. } => length <= MAX_MAP_BYTES && length.is_multiple_of(MAP_ENTRY_BYTES),
                BlobRequest::Have { .. } => length <= MAX_HAVE_BYTES,
                BlobRequest::Chunk { bytes, .. } => !here || length == *bytes as usize,
                BlobRequest::Log { .. } | BlobRequest::Text { .. } => length <= TEXT_MAX_BYTES,
            };
            if !fits {
                return Err(bad(format!("{length} bytes in reply to {request:?}")));
            }
            while let Some(Ok(buffer)) = writes.try_join_next() {
                spare.push(buffer);
            }
            let mut payload = spare.pop().unwrap_or_default();
            read_payload(&mut replies, &mut payload, length).await?;
            let Some((request, place)) = asking.take() else { continue };
            if !here {
                let reply = match request {
                    BlobRequest::Map { blob } => BlobReply::Map { blob, map: None },
                    BlobRequest::Have { .. }
                    | BlobRequest::Chunk { .. }
                    | BlobRequest::Log { .. }
                    | BlobRequest::Text { .. } => BlobReply::Failed { request, why: BlobFailure::Missing },
                };
                self.tell(reply, place).await;
                continue;
            }
            match request {
                BlobRequest::Have { blob } => self.tell(BlobReply::Have { blob, bitmap: payload }, place).await,
                BlobRequest::Log { .. } => self.tell(BlobReply::Text { request, text: payload }, place).await,
                BlobRequest::Text { blob } => {
                    let chunk = ChunkRef { id: chunk_id(&payload), bytes: length as u32 };
                    let reply = match (BlobMap { chunks: vec![chunk] }).id() == blob {
                        true => BlobReply::Text { request, text: payload },
                        false => self.corrupt(&request),
                    };
                    self.tell(reply, place).await;
                }
                BlobRequest::Map { blob } => {
                    let reply = match BlobMap::from_bytes(&payload).filter(|map| map.id() == blob) {
                        Some(map) => BlobReply::Map { blob, map: Some(map) },
                        None => self.corrupt(&request),
                    };
                    self.tell(reply, place).await;
                }
                BlobRequest::Chunk { blob, index, id, bytes } => {
                    while writes.len() >= WRITE_BEHIND {
                        if let Some(Ok(buffer)) = writes.join_next().await {
                            spare.push(buffer);
                        }
                    }
                    let permit = self.disk.clone().acquire_owned().await.map_err(io::Error::other)?;
                    let (sink, events, node) = (self.sink.clone(), self.events.clone(), self.node);
                    let writing = writing.clone();
                    let closing = self.closing.clone();
                    writes.spawn(async move {
                        let kept = spawn_blocking(move || {
                            let kept = keep(&*sink, &writing, blob, index, id, &payload);
                            drop(permit);
                            (kept, payload)
                        });
                        let (kept, buffer) = match kept.await {
                            Ok(kept) => kept,
                            Err(panic) => (Err(BlobFailure::Disk(panic.to_string())), Vec::new()),
                        };
                        let reply = match kept {
                            Ok(()) => BlobReply::Chunk { blob, index, bytes },
                            Err(why) => {
                                if why == BlobFailure::Corrupt {
                                    warn!(%blob, index, peer = %node.short(), "a peer sent a chunk with the wrong hash; it is discarded");
                                }
                                BlobReply::Failed { request, why }
                            }
                        };
                        tell(&events, &closing, NetEvent::Blob { node, reply }).await;
                        drop(place);
                        buffer
                    });
                }
            }
        }
    }

    fn corrupt(&self, request: &BlobRequest) -> BlobReply {
        warn!(peer = %self.node.short(), ?request, "a peer sent something else than was asked for");
        BlobReply::Failed { request: request.clone(), why: BlobFailure::Corrupt }
    }
}

async fn tell(events: &mpsc::Sender<NetEvent>, closing: &CancellationToken, event: NetEvent) {
    tokio::select! {
        biased;
        // An error means that nobody listens any more.
        _ = events.send(event) => {}
        () = closing.cancelled() => {}
    }
}

/// Reads `length` bytes into `payload`, growing it as they come when there are many: a number alone takes no memory.
async fn read_payload<R: AsyncRead + Unpin>(replies: &mut R, payload: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let mut start = 0;
    loop {
        let end = length.min(start + CHUNK_MAX_BYTES as usize);
        payload.resize(end, 0);
        replies.read_exact(&mut payload[start..]).await?;
        if end == length {
            return Ok(());
        }
        start = end;
    }
}

/// `writing` is held while the sink works: while one chunk is written the next is hashed.
fn keep(
    sink: &dyn ChunkSink,
    writing: &Mutex<()>,
    blob: BlobId,
    index: u32,
    id: ChunkId,
    bytes: &[u8],
) -> Result<(), BlobFailure> {
    if chunk_id(bytes) != id {
        return Err(BlobFailure::Corrupt);
    }
    let _turn = writing.lock().unwrap_or_else(PoisonError::into_inner);
    sink.write(blob, index, bytes).map_err(|error| BlobFailure::Disk(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::blob::ChunkRef;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    /// Has one chunk of one blob, and takes anything.
    struct Small(BlobMap);

    impl ChunkSource for Small {
        fn map(&self, blob: BlobId) -> Option<BlobMap> {
            (blob == self.0.id()).then(|| self.0.clone())
        }
        fn have(&self, blob: BlobId) -> Option<Vec<u8>> {
            (blob == self.0.id()).then(|| vec![1])
        }
        fn read(&self, blob: BlobId, index: u32) -> io::Result<Vec<u8>> {
            if blob == self.0.id() && index == 0 { Ok(b"chunk".to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
        }
        fn reread(&self, _: BlobId, _: u32) -> io::Result<Vec<u8>> {
            Err(io::Error::new(io::ErrorKind::NotFound, "it is damaged"))
        }
        fn log(&self, job: JobId, frame: i32) -> Option<Vec<u8>> {
            ((job, frame) == (JobId([2; 16]), -7)).then(|| b"line\n".to_vec())
        }
    }

    impl ChunkSink for Small {
        fn write(&self, _: BlobId, index: u32, bytes: &[u8]) -> io::Result<()> {
            assert_eq!((index, bytes), (0, b"chunk".as_slice()), "nothing unproven is ever written");
            Ok(())
        }
    }

    #[tokio::test]
    async fn logs_and_small_blobs_come_as_they_are_and_what_is_not_there_is_missing() {
        let map = BlobMap { chunks: vec![ChunkRef { id: chunk_id(b"chunk"), bytes: 5 }] };
        let (blob, node, small) = (map.id(), NodeId([1; 32]), Arc::new(Small(map)));
        let disk = Arc::new(Semaphore::new(DISK_AT_ONCE));
        let (ours, theirs) = tokio::io::duplex(1024);
        let (events, mut told) = mpsc::channel(MAX_REQUESTS);
        let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
        let client = Client { node, sink: small.clone(), disk: disk.clone(), events, stop, closing };
        let (queue, waiting) = mpsc::channel(MAX_REQUESTS);
        let log = |frame| BlobRequest::Log { job: JobId([2; 16]), frame };
        let text = |request, text: &[u8]| BlobReply::Text { request, text: text.to_vec() };
        let missing = |request| BlobReply::Failed { request, why: BlobFailure::Missing };
        let (here, other) = (BlobRequest::Text { blob }, BlobRequest::Text { blob: BlobId([9; 32]) });
        let chunk = BlobRequest::Chunk { blob, index: 0, id: chunk_id(b"chunk"), bytes: 5 };
        let expected = [
            (log(-7), text(log(-7), b"line\n")),
            (log(7), missing(log(7))),
            (here.clone(), text(here, b"chunk")),
            (other.clone(), missing(other)),
            (chunk.clone(), BlobReply::Chunk { blob, index: 0, bytes: 5 }),
            // Whoever asks again had no use for what it got.
            (chunk.clone(), missing(chunk)),
        ];
        let places = Arc::new(Semaphore::new(MAX_REQUESTS));
        let asks = async {
            for (request, reply) in expected {
                queue.send((request, places.clone().acquire_owned().await.unwrap())).await.unwrap();
                assert_eq!(told.recv().await, Some(NetEvent::Blob { node, reply }));
            }
        };
        tokio::select! {
            () = asks => {}
            ended = serve(theirs.compat(), node, small, disk) => panic!("{ended:?}"),
            ended = client.run(ours.compat(), waiting) => panic!("{ended:?}"),
        }
    }

    #[test]
    fn no_requests_and_no_replies_make_either_side_panic_and_each_request_has_its_reply() {
        let map = BlobMap { chunks: vec![ChunkRef { id: chunk_id(b"chunk"), bytes: 5 }] };
        let (blob, node, small) = (map.id(), NodeId([1; 32]), Arc::new(Small(map.clone())));
        let requests = [
            BlobRequest::Map { blob },
            BlobRequest::Have { blob },
            BlobRequest::Chunk { blob, index: 0, id: chunk_id(b"chunk"), bytes: 5 },
            BlobRequest::Log { job: JobId([2; 16]), frame: -7 },
            BlobRequest::Text { blob },
        ];
        let reply = |payload: &[u8]| [&[HERE], &(payload.len() as u32).to_le_bytes()[..], payload].concat();
        let asked = requests.iter().flat_map(encode_request).collect();
        let texts = [reply(b"line\n"), reply(b"chunk")].concat();
        let answered = [reply(&map.to_bytes()), reply(&[1]), reply(b"chunk"), texts].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let disk = Arc::new(Semaphore::new(DISK_AT_ONCE));
        crate::fuzz::fuzz("blob", 500, vec![asked, answered, vec![MISSING, 0, 0, 0, 0]], |bytes| {
            let stream = || tokio::io::join(bytes, tokio::io::sink()).compat();
            let served = runtime.block_on(serve(stream(), node, small.clone(), disk.clone()));
            let (events, mut told) = mpsc::channel(MAX_REQUESTS);
            let (stop, closing) = (CancellationToken::new(), CancellationToken::new());
            let ends = stop.clone();
            let client = Client { node, sink: small.clone(), disk: disk.clone(), events, stop, closing };
            let (queue, waiting) = mpsc::channel(MAX_REQUESTS);
            let places = Arc::new(Semaphore::new(MAX_REQUESTS));
            for request in &requests {
                let place = places.clone().try_acquire_owned().unwrap();
                queue.try_send((request.clone(), place)).unwrap();
            }
            // A client waits for more requests until it is stopped.
            let listens = async {
                let mut replies = Vec::new();
                for _ in &requests {
                    replies.push(match told.recv().await {
                        Some(NetEvent::Blob { reply: BlobReply::Failed { why, .. }, .. }) => Err(why),
                        Some(NetEvent::Blob { .. }) => Ok(()),
                        other => panic!("{other:?}"),
                    });
                }
                ends.cancel();
                replies
            };
            let (ended, replies) = runtime.block_on(async { tokio::join!(client.run(stream(), waiting), listens) });
            assert!(told.try_recv().is_err(), "one reply to each");
            (served.map_err(|error| error.to_string()), ended.map_err(|error| error.kind()), replies)
        });
    }
}
