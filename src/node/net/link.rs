//! A link: the streams of one connection at work.
//!
//! First the greeting: each side's first frame on the status stream is a Hello with its wire version, its boot id and
//! the port it listens on. Then one task per stream and direction. The queues belong to the connection: when another
//! connection takes over, they are dropped, and what is in them still goes out on the old one.
//!
//! Status frames carry a kind byte: Hello, a frame of the farm's, or a list of members and their addresses, through
//! which one `--peer` leads to the whole swarm where there is no multicast.

use super::blob::{self, Client, MAX_REQUESTS};
use super::streams::{Opener, Purpose, read_frame, write_frame};
use super::{
    BlobRequest, ChunkSink, ChunkSource, LEDGER_MAX_BYTES, NetEvent, NotSent, Protocol, STATUS_MAX_BYTES, WIRE_VERSION,
};
use crate::farm::id::{BootId, NodeId};
use futures::AsyncWriteExt;
use libp2p::Stream;
use libp2p::swarm::ConnectionId;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Frames a protocol may have waiting for one peer (guess: a burst of pushes; repair mends what is dropped).
const MAX_FRAMES: usize = 512;
/// Bytes a protocol may have waiting for one peer.
const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;
/// Members named in one message.
pub(super) const MAX_TOLD: usize = 128;
/// Addresses named of one member.
pub(super) const MAX_TOLD_ADDRESSES: usize = 4;
/// Kind byte, and room for what surrounds a status frame of the farm.
const STATUS_LIMIT: u32 = STATUS_MAX_BYTES as u32 + 1;
const LEDGER_LIMIT: u32 = LEDGER_MAX_BYTES as u32;
// A full list of members fits a status frame.
const _: () = assert!(1 + 2 + MAX_TOLD * (32 + 1 + MAX_TOLD_ADDRESSES * 19) <= STATUS_MAX_BYTES);

const HELLO: u8 = 0;
const FRAME: u8 = 1;
const MEMBERS: u8 = 2;

/// The first words on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) boot: BootId,
    /// Where the sender listens.
    pub(super) port: u16,
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![HELLO];
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.boot.0);
        bytes.extend_from_slice(&self.port.to_le_bytes());
        bytes
    }

    /// A later version may say more behind this; its first fields stay, so that it can be named.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        if input.take::<1>()? != [HELLO] {
            return None;
        }
        Some(Self {
            version: u16::from_le_bytes(input.take()?),
            boot: BootId(input.take()?),
            port: u16::from_le_bytes(input.take()?),
        })
    }
}

/// What is left to read of a frame.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

/// Members and where they are.
pub(super) type Members = Vec<(NodeId, Vec<SocketAddr>)>;

fn encode_members(members: &Members) -> Vec<u8> {
    let mut bytes = (members.len().min(MAX_TOLD) as u16).to_le_bytes().to_vec();
    for (node, addresses) in members.iter().take(MAX_TOLD) {
        bytes.extend_from_slice(&node.0);
        bytes.push(addresses.len().min(MAX_TOLD_ADDRESSES) as u8);
        for at in addresses.iter().take(MAX_TOLD_ADDRESSES) {
            match at.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&at.port().to_le_bytes());
        }
    }
    bytes
}

fn decode_members(bytes: &[u8]) -> Option<Members> {
    let mut input = Input(bytes);
    let count = usize::from(u16::from_le_bytes(input.take()?));
    if count > MAX_TOLD {
        return None;
    }
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        let node = NodeId(input.take()?);
        let [addresses] = input.take()?;
        let mut list = Vec::new();
        for _ in 0..addresses {
            let ip: IpAddr = match input.take()? {
                [4] => Ipv4Addr::from(input.take::<4>()?).into(),
                [6] => Ipv6Addr::from(input.take::<16>()?).into(),
                _ => return None,
            };
            list.push(SocketAddr::new(ip, u16::from_le_bytes(input.take()?)));
        }
        members.push((node, list));
    }
    input.0.is_empty().then_some(members)
}

/// The six streams of a connection, as they come.
#[derive(Default)]
pub(super) struct Arriving {
    streams: Vec<(Purpose, Opener, Stream)>,
}

impl Arriving {
    /// Adds a stream; all six once they are there.
    pub(super) fn add(&mut self, purpose: Purpose, by: Opener, stream: Stream) -> Option<Box<Streams>> {
        self.streams.push((purpose, by, stream));
        if self.streams.len() < 6 {
            return None;
        }
        let mut take = |purpose, by| {
            let at = self.streams.iter().position(|(p, b, _)| (*p, *b) == (purpose, by))?;
            Some(self.streams.swap_remove(at).2)
        };
        Some(Box::new(Streams {
            status_out: take(Purpose::Status, Opener::Us)?,
            status_in: take(Purpose::Status, Opener::Them)?,
            ledger_out: take(Purpose::Ledger, Opener::Us)?,
            ledger_in: take(Purpose::Ledger, Opener::Them)?,
            blob_out: take(Purpose::Blob, Opener::Us)?,
            blob_in: take(Purpose::Blob, Opener::Them)?,
        }))
    }
}

/// All streams of a connection.
pub(super) struct Streams {
    status_out: Stream,
    status_in: Stream,
    ledger_out: Stream,
    ledger_in: Stream,
    blob_out: Stream,
    blob_in: Stream,
}

/// Why a greeting failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetingError {
    #[error("it speaks wire version {0}, this build speaks {WIRE_VERSION}; update the older of the two")]
    OtherVersion(u16),
    #[error("its first frame was no greeting")]
    NotHello,
    #[error("the greeting broke off: {0}")]
    Io(#[from] io::Error),
}

/// Says and hears Hello.
pub(super) async fn greet(mut streams: Box<Streams>, mine: Hello) -> Result<(Hello, Box<Streams>), GreetingError> {
    let (out, into) = (&mut streams.status_out, &mut streams.status_in);
    let say = async {
        write_frame(out, &mine.encode(), &[]).await?;
        out.flush().await
    };
    let ((), first) = futures::try_join!(say, read_frame(into, STATUS_LIMIT))?;
    let hello = first.as_deref().and_then(Hello::decode).ok_or(GreetingError::NotHello)?;
    if hello.version != WIRE_VERSION {
        return Err(GreetingError::OtherVersion(hello.version));
    }
    Ok((hello, streams))
}

/// A frame under way and its share of the queue.
struct Outgoing {
    kind: Option<u8>,
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

/// The way out for one protocol.
#[derive(Clone)]
struct FrameQueue {
    frames: mpsc::Sender<Outgoing>,
    bytes: Arc<Semaphore>,
}

impl FrameQueue {
    fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (frames, outgoing) = mpsc::channel(MAX_FRAMES);
        (Self { frames, bytes: Arc::new(Semaphore::new(MAX_QUEUED_BYTES)) }, outgoing)
    }

    fn push(&self, kind: Option<u8>, bytes: Vec<u8>) -> Result<(), NotSent> {
        let share = u32::try_from(bytes.len()).map_err(|_| NotSent::TooLong)?;
        let share = self.bytes.clone().try_acquire_many_owned(share).map_err(|_| NotSent::Full)?;
        self.frames.try_send(Outgoing { kind, bytes, _share: share }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotSent::Full,
            mpsc::error::TrySendError::Closed(_) => NotSent::NotConnected,
        })
    }
}

/// All ways out to one node.
#[derive(Clone)]
pub(super) struct Queues {
    status: FrameQueue,
    ledger: FrameQueue,
    blobs: mpsc::Sender<blob::Queued>,
    places: Arc<Semaphore>,
}

impl Queues {
    pub(super) fn frame(&self, protocol: Protocol, frame: Vec<u8>) -> Result<(), NotSent> {
        let (queue, kind, limit) = match protocol {
            Protocol::Status => (&self.status, Some(FRAME), STATUS_MAX_BYTES),
            Protocol::Ledger => (&self.ledger, None, LEDGER_MAX_BYTES),
        };
        if frame.len() > limit { Err(NotSent::TooLong) } else { queue.push(kind, frame) }
    }

    /// Queues a ledger frame without looking at its length, as a broken peer would.
    #[cfg(test)]
    pub(super) fn push_unchecked(&self, frame: Vec<u8>) {
        self.ledger.push(None, frame).expect("room in an empty queue");
    }

    pub(super) fn request(&self, request: BlobRequest) -> Result<(), NotSent> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| NotSent::Full)?;
        self.blobs.try_send((request, place)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotSent::Full,
            mpsc::error::TrySendError::Closed(_) => NotSent::NotConnected,
        })
    }

    /// Tells the node of members; dropped when its queue is full, since connections tell again.
    pub(super) fn tell_of(&self, members: &Members) {
        if !members.is_empty() {
            let _ = self.status.push(Some(MEMBERS), encode_members(members));
        }
    }
}

/// What greetings and links tell the driver.
pub(super) enum FromLink {
    Greeted { connection: ConnectionId, greeting: Result<(Hello, Box<Streams>), GreetingError> },
    Members { from: NodeId, members: Members },
    Ended { connection: ConnectionId, outcome: io::Result<()> },
}

/// What a link needs besides its streams.
pub(super) struct Surroundings {
    pub(super) node: NodeId,
    pub(super) connection: ConnectionId,
    pub(super) source: Arc<dyn ChunkSource>,
    pub(super) sink: Arc<dyn ChunkSink>,
    pub(super) disk: Arc<Semaphore>,
    pub(super) events: mpsc::Sender<NetEvent>,
    pub(super) driver: mpsc::Sender<FromLink>,
    /// Ends the link.
    pub(super) stop: CancellationToken,
    /// Set when the whole network ends and nobody may be listening any more.
    pub(super) closing: CancellationToken,
}

/// The inner ends of [`Queues`].
pub(super) struct Outlets {
    status: mpsc::Receiver<Outgoing>,
    ledger: mpsc::Receiver<Outgoing>,
    blobs: mpsc::Receiver<blob::Queued>,
}

/// Fresh queues for a link.
pub(super) fn queues() -> (Queues, Outlets) {
    let ((status, status_out), (ledger, ledger_out)) = (FrameQueue::new(), FrameQueue::new());
    let (blobs, blobs_out) = mpsc::channel(MAX_REQUESTS);
    let places = Arc::new(Semaphore::new(MAX_REQUESTS));
    (Queues { status, ledger, blobs, places }, Outlets { status: status_out, ledger: ledger_out, blobs: blobs_out })
}

/// Works the streams until one of them ends, then tells the driver why. Every task of the link has ended by then.
pub(super) async fn run(streams: Box<Streams>, outlets: Outlets, around: Surroundings) {
    let Surroundings { node, connection, source, sink, disk, events, driver, stop, closing } = around;
    let mut tasks: JoinSet<io::Result<()>> = JoinSet::new();
    let client = Client { node, sink, disk: disk.clone(), events: events.clone(), stop: stop.clone(), closing };
    tasks.spawn(client.run(streams.blob_out, outlets.blobs));
    let stoppable = |task: futures::future::BoxFuture<'static, io::Result<()>>| {
        let stop = stop.clone();
        async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                ended = task => ended,
            }
        }
    };
    tasks.spawn(stoppable(Box::pin(blob::serve(streams.blob_in, node, source, disk))));
    tasks.spawn(stoppable(Box::pin(send_frames(streams.status_out, outlets.status))));
    tasks.spawn(stoppable(Box::pin(send_frames(streams.ledger_out, outlets.ledger))));
    tasks.spawn(stoppable(Box::pin(receive_status(streams.status_in, node, events.clone(), driver.clone()))));
    tasks.spawn(stoppable(Box::pin(receive_ledger(streams.ledger_in, node, events))));
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        if !stop.is_cancelled() {
            outcome = ended.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            stop.cancel();
        }
    }
    // No driver any more: the whole network is closing.
    let _ = driver.send(FromLink::Ended { connection, outcome }).await;
}

async fn send_frames(mut stream: Stream, mut queue: mpsc::Receiver<Outgoing>) -> io::Result<()> {
    while let Some(Outgoing { kind, bytes, _share }) = queue.recv().await {
        write_frame(&mut stream, kind.as_slice(), &bytes).await?;
        if queue.is_empty() {
            stream.flush().await?;
        }
    }
    stream.flush().await?;
    // Another connection has taken over; this stream stays open until its connection is closed.
    std::future::pending().await
}

async fn receive_status(
    mut stream: Stream,
    node: NodeId,
    events: mpsc::Sender<NetEvent>,
    driver: mpsc::Sender<FromLink>,
) -> io::Result<()> {
    let bad = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    loop {
        let Some(mut bytes) = read_frame(&mut stream, STATUS_LIMIT).await? else { return Ok(()) };
        match bytes.first() {
            Some(&FRAME) => {
                bytes.remove(0);
                if events.send(NetEvent::Frame { node, protocol: Protocol::Status, bytes }).await.is_err() {
                    return Ok(());
                }
            }
            Some(&MEMBERS) => {
                let members = decode_members(&bytes[1..]).ok_or_else(|| bad("a list of members that is none"))?;
                if driver.send(FromLink::Members { from: node, members }).await.is_err() {
                    return Ok(());
                }
            }
            _ => return Err(bad("a status frame of an unknown kind")),
        }
    }
}

async fn receive_ledger(mut stream: Stream, node: NodeId, events: mpsc::Sender<NetEvent>) -> io::Result<()> {
    while let Some(bytes) = read_frame(&mut stream, LEDGER_LIMIT).await? {
        if events.send(NetEvent::Frame { node, protocol: Protocol::Ledger, bytes }).await.is_err() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hello_and_members_survive_and_nothing_torn_is_either() {
        let hello = Hello { version: 1, boot: BootId([3; 8]), port: 7337 };
        let mut bytes = hello.encode();
        for cut in 0..bytes.len() {
            assert_eq!(Hello::decode(&bytes[..cut]), None);
        }
        bytes.push(9);
        assert_eq!(Hello::decode(&bytes), Some(hello), "a later version may say more");
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let members =
            vec![(NodeId([1; 32]), vec![at("10.0.0.1:7337"), at("[fd00::1]:7338")]), (NodeId([2; 32]), Vec::new())];
        let bytes = encode_members(&members);
        assert_eq!(decode_members(&bytes), Some(members));
        for cut in 0..bytes.len() {
            assert_eq!(decode_members(&bytes[..cut]), None);
        }
        assert_eq!(decode_members(&[255, 255]), None);
    }

    #[test]
    fn a_queue_refuses_what_is_too_long_or_too_much_and_says_when_nobody_is_there() {
        let (queues, outlets) = queues();
        assert_eq!(queues.frame(Protocol::Ledger, vec![0; LEDGER_MAX_BYTES + 1]), Err(NotSent::TooLong));
        let mut taken = 0;
        while queues.frame(Protocol::Ledger, vec![0; LEDGER_MAX_BYTES]).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, MAX_QUEUED_BYTES / LEDGER_MAX_BYTES);
        let request = BlobRequest::Have { blob: crate::farm::id::BlobId([0; 32]) };
        for _ in 0..MAX_REQUESTS {
            queues.request(request.clone()).unwrap();
        }
        assert_eq!(queues.request(request), Err(NotSent::Full));
        drop(outlets);
        assert_eq!(queues.frame(Protocol::Status, vec![1]), Err(NotSent::NotConnected));
    }

    #[test]
    fn no_bytes_make_a_decoder_of_hello_or_members_panic() {
        let hello = Hello { version: 1, boot: BootId([3; 8]), port: 7337 };
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let members =
            vec![(NodeId([1; 32]), vec![at("10.0.0.1:7337"), at("[fd00::1]:7338")]), (NodeId([2; 32]), vec![])];
        let seeds = vec![hello.encode(), encode_members(&members)];
        crate::fuzz::fuzz("link", crate::fuzz::ROUNDS, seeds, |bytes| {
            let members = decode_members(bytes);
            assert!(members.as_ref().is_none_or(|members| members.len() <= MAX_TOLD));
            (Hello::decode(bytes).is_some(), members.map(|members| members.len()))
        });
    }
}
