//! The network: who is there, and bytes to and from them.
//!
//! libp2p stays in here. Outside there are nodes (the Ed25519 keys that connections prove), frames and blob requests.
//! A connection passes the gate (`net/gate.rs`) before it has any protocol; then each side opens one long-lived stream
//! per protocol and says Hello, and of two connections to one node one is kept (`net/peers.rs`, `net/driver.rs`). A
//! kept connection is a link (`net/link.rs`): frames of the status and the ledger protocol, and the blob protocol
//! (`net/blob.rs`), which asks a [`ChunkSource`] and fills a [`ChunkSink`].
//!
//! The network promises little, so that it can keep it: a frame arrives once and whole or not at all, in order within
//! a protocol on one connection; a full queue refuses at once and nothing ever blocks the caller; every blob request
//! that was taken gets exactly one reply. It must never hand a stranger's bytes on, and never let a peer decide how much
//! memory is used. It decides nothing about who lives: the farm counts heartbeats and calls [`NetHandle::disconnect`].

mod address;
mod blob;
mod driver;
mod gate;
mod link;
mod listen;
mod peers;
mod streams;
mod transport;

#[cfg(test)]
mod tests;

pub use address::{BadAddress, check_address};

use crate::farm::blob::{BlobMap, CHUNK_MAX_BYTES};
use crate::farm::id::{BlobId, BootId, ChunkId, JobId, NodeId};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The port a node listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7337;
/// Spoken by this build; a peer that speaks another is refused by name. Raised when a stream's bytes change meaning.
pub const WIRE_VERSION: u16 = 1;
/// Longest status frame, bytes (DESIGN §5).
pub const STATUS_MAX_BYTES: usize = 16 * 1024;
/// Longest ledger frame, bytes (DESIGN §5).
pub const LEDGER_MAX_BYTES: usize = 256 * 1024;
/// Longest log or text that a peer is asked for, bytes (a log has 64 KiB, and its warnings).
pub const TEXT_MAX_BYTES: usize = 256 * 1024;
/// Events waiting for the loop before the network waits for it, and peers for the network: 64 MiB if all are ledger
/// frames of full length.
const MAX_EVENTS: usize = 256;
/// Orders waiting for the network: only dials and disconnects.
const MAX_ORDERS: usize = 256;

/// What a network is started with.
#[derive(Clone)]
pub struct NetConfig {
    /// Seed of this node's Ed25519 key.
    pub secret: [u8; 32],
    /// What members of the swarm know.
    pub swarm_key: [u8; 32],
    /// This start of the daemon.
    pub boot: BootId,
    /// Where to listen.
    pub port: PortChoice,
    /// On which addresses; empty means all.
    pub listen: Vec<IpAddr>,
    /// Where somebody answers, the user says: `host:port`, `ip:port`, `[v6]:port` or a multiaddr. Dialled for ever.
    pub peers: Vec<String>,
    /// Whether to look for peers by multicast.
    pub mdns: bool,
    /// Members of earlier runs, see [`NetHandle::members`]. Addresses that cannot be read are skipped.
    pub known: Vec<(NodeId, Vec<String>)>,
}

/// Which port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// [`DEFAULT_PORT`], or the next free one.
    Default,
    /// This one; taken is an error. 0 is any free one.
    Given(u16),
}

/// What frames are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Heartbeats and capabilities; at most [`STATUS_MAX_BYTES`].
    Status,
    /// Operations and digests; at most [`LEDGER_MAX_BYTES`].
    Ledger,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// This node can be reached here; told again whenever it changes.
    Listening {
        /// `ip:port` of each.
        addresses: Vec<String>,
    },
    /// A member is there. Frames may be sent from now on.
    Connected {
        /// Who.
        node: NodeId,
        /// Which run of it. A new run of a connected node is first `Disconnected`.
        boot: BootId,
        /// Where it can be dialled, `ip:port`.
        address: String,
    },
    /// A member is no longer there.
    Disconnected {
        /// Who.
        node: NodeId,
    },
    /// A frame arrived.
    Frame {
        /// From whom.
        node: NodeId,
        /// On which protocol.
        protocol: Protocol,
        /// As sent.
        bytes: Vec<u8>,
    },
    /// A blob request is answered.
    Blob {
        /// By whom.
        node: NodeId,
        /// How.
        reply: BlobReply,
    },
}

/// What a peer is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobRequest {
    /// The map of a blob.
    Map {
        /// Which.
        blob: BlobId,
    },
    /// Which chunks of a blob the peer has.
    Have {
        /// Which.
        blob: BlobId,
    },
    /// A chunk, into the sink.
    Chunk {
        /// Of which blob.
        blob: BlobId,
        /// Its place in the blob's map.
        index: u32,
        /// Its hash.
        id: ChunkId,
        /// Its length in bytes.
        bytes: u32,
    },
    /// What the peer's renderer printed about a frame.
    Log {
        /// Of which job.
        job: JobId,
        /// Which.
        frame: i32,
    },
    /// A whole blob of one chunk, to be read and not kept.
    Text {
        /// Which.
        blob: BlobId,
    },
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobReply {
    /// The map, proven to be the blob's, if the peer has it.
    Map {
        /// Of which blob.
        blob: BlobId,
        /// Its chunks.
        map: Option<BlobMap>,
    },
    /// What the peer has of the blob.
    Have {
        /// Which blob.
        blob: BlobId,
        /// As the peer's [`ChunkSource::have`] gave it, at most 32 KiB.
        bitmap: Vec<u8>,
    },
    /// A chunk is proven and in the sink.
    Chunk {
        /// Of which blob.
        blob: BlobId,
        /// Its place.
        index: u32,
        /// Its length in bytes.
        bytes: u32,
    },
    /// A log or a text, the latter proven to be the blob.
    Text {
        /// What was asked.
        request: BlobRequest,
        /// At most [`TEXT_MAX_BYTES`].
        text: Vec<u8>,
    },
    /// It came to nothing.
    Failed {
        /// What was asked.
        request: BlobRequest,
        /// Why.
        why: BlobFailure,
    },
}

/// Why a blob request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobFailure {
    /// The peer does not have it, or could not read it.
    #[error("the peer does not have it")]
    Missing,
    /// What came is not what was asked for.
    #[error("what the peer sent has another hash")]
    Corrupt,
    /// It came and could not be stored.
    #[error("it could not be stored: {0}")]
    Disk(String),
    /// The connection ended first.
    #[error("the connection ended first")]
    Lost,
}

/// Where chunks for peers come from. Called on blocking threads, several at once.
pub trait ChunkSource: Send + Sync + 'static {
    /// The map of a blob, if it is here.
    fn map(&self, blob: BlobId) -> Option<BlobMap>;
    /// One bit for each chunk that is here, if anything is known of the blob.
    fn have(&self, blob: BlobId) -> Option<Vec<u8>>;
    /// A chunk's bytes.
    ///
    /// # Errors
    /// `NotFound` if it is not here; anything else is logged.
    fn read(&self, blob: BlobId, index: u32) -> io::Result<Vec<u8>>;
    /// The bytes of a chunk that a peer asks for again: what it got was no good to it, as of a file that is damaged.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn reread(&self, blob: BlobId, index: u32) -> io::Result<Vec<u8>> {
        self.read(blob, index)
    }
    /// What was printed here about a frame, if that is known; at most [`TEXT_MAX_BYTES`].
    fn log(&self, _job: JobId, _frame: i32) -> Option<Vec<u8>> {
        None
    }
}

/// Where chunks from peers go. Called on blocking threads, several at once, only with proven bytes.
pub trait ChunkSink: Send + Sync + 'static {
    /// Keeps a chunk.
    ///
    /// # Errors
    /// What the disk says; it is reported as [`BlobFailure::Disk`].
    fn write(&self, blob: BlobId, index: u32, bytes: &[u8]) -> io::Result<()>;
}

/// Why a frame or request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// No connection to that node.
    #[error("that node is not connected")]
    NotConnected,
    /// Its queue is full: the peer or the wire is slower than what is sent.
    #[error("the queue to that node is full")]
    Full,
    /// Over the protocol's limit.
    #[error("that is longer than its protocol allows")]
    TooLong,
}

/// Why the network did not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The port asked for is in use.
    #[error(
        "port {0} is in use by another program; choose another with --port, or leave --port out to take a free one"
    )]
    PortTaken(u16),
    /// No port is free.
    #[error("the ports {first} to {last} are all in use; name a free one with --port")]
    NoPort {
        /// First tried.
        first: u16,
        /// Last tried.
        last: u16,
    },
    /// Not an address of this machine, or the system does not allow it.
    #[error("cannot listen on {address}: {source}; --listen takes addresses of this machine")]
    Listen {
        /// Which.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// A peer that is none.
    #[error(transparent)]
    Peer(#[from] BadAddress),
    /// The key is unusable or the cryptography would not start.
    #[error("the network's encryption could not be set up: {0}")]
    Encryption(String),
}

/// Starts listening, looking and dialling.
///
/// # Errors
/// See [`NetError`]; nothing is left running then.
pub async fn start(
    config: NetConfig,
    source: Arc<dyn ChunkSource>,
    sink: Arc<dyn ChunkSink>,
) -> Result<(NetHandle, mpsc::Receiver<NetEvent>), NetError> {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let (orders, inbox) = mpsc::channel(MAX_ORDERS);
    let (events_in, events) = mpsc::channel(MAX_EVENTS);
    let stop = CancellationToken::new();
    let driver = driver::Driver::start(
        config,
        driver::World { source, sink, shared: shared.clone(), events: events_in, stop: stop.clone() },
    )?;
    let (me, port) = (driver.me(), driver.port());
    let task = tokio::spawn(driver.run(inbox));
    Ok((NetHandle { shared, orders, stop: stop.clone(), me, port, task, _stop: stop.drop_guard() }, events))
}

/// What the loop asks of the driver.
#[derive(Debug)]
enum Order {
    Dial(address::Target),
    Disconnect(NodeId),
}

/// What handle, driver and links share. Locked for moments only, never across an await.
#[derive(Default)]
struct Shared {
    links: BTreeMap<NodeId, link::Queues>,
    addresses: Vec<String>,
    members: Vec<(NodeId, Vec<String>)>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A running network. Dropping it stops the network; [`Self::close`] also waits for the end.
pub struct NetHandle {
    shared: Arc<Mutex<Shared>>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
    me: NodeId,
    port: u16,
    task: JoinHandle<()>,
    _stop: tokio_util::sync::DropGuard,
}

impl NetHandle {
    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The port listened on; not [`DEFAULT_PORT`] where that was taken. With `Given(0)` the first one bound.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Queues a frame for a connected node.
    ///
    /// # Errors
    /// [`NotSent`]; the frame is dropped then.
    pub fn try_send(&self, to: NodeId, protocol: Protocol, frame: Vec<u8>) -> Result<(), NotSent> {
        lock(&self.shared).links.get(&to).ok_or(NotSent::NotConnected)?.frame(protocol, frame)
    }

    /// Queues a blob request; the answer is a [`NetEvent::Blob`]. A node has at most 64 open at a time.
    ///
    /// # Errors
    /// [`NotSent`]; there will be no reply then. `TooLong` for a chunk of no or too many bytes.
    pub fn request(&self, to: NodeId, request: BlobRequest) -> Result<(), NotSent> {
        if let BlobRequest::Chunk { bytes, .. } = request
            && !(1..=CHUNK_MAX_BYTES).contains(&bytes)
        {
            return Err(NotSent::TooLong);
        }
        lock(&self.shared).links.get(&to).ok_or(NotSent::NotConnected)?.request(request)
    }

    /// Dials an address now, and for ever while nobody is connected through it.
    ///
    /// # Errors
    /// If it cannot be an address. Whether anybody answers is told by [`NetEvent::Connected`].
    pub fn dial(&self, address: &str) -> Result<(), BadAddress> {
        let target = address.parse()?;
        if self.orders.try_send(Order::Dial(target)).is_err() {
            tracing::warn!(address, "too many dials at once; this one is dropped");
        }
        Ok(())
    }

    /// Drops the connections to a node that has fallen silent; dialling it goes on.
    pub fn disconnect(&self, node: NodeId) {
        if self.orders.try_send(Order::Disconnect(node)).is_err() {
            tracing::warn!(node = %node.short(), "too many orders at once; the connection stays for now");
        }
    }

    /// Where this node can be reached, `ip:port`, real networks first.
    pub fn local_addresses(&self) -> Vec<String> {
        lock(&self.shared).addresses.clone()
    }

    /// Every member ever met and where it can be dialled, best first: to be kept for the next start.
    pub fn members(&self) -> Vec<(NodeId, Vec<String>)> {
        lock(&self.shared).members.clone()
    }

    /// Stops and waits until ports are free and links have ended. Events not taken by then are dropped.
    pub async fn close(self) {
        self.stop.cancel();
        // A driver that panicked has nothing left to wait for.
        let _ = self.task.await;
    }
}
