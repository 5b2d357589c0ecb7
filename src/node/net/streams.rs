//! The streams of a connection: for each protocol one we open and one the peer opens, all opened at once and kept.
//!
//! This is a small behaviour of our own instead of the crate `libp2p-stream`, because that one neither says which
//! connection a stream came on (and there may be two while crossed dials are sorted out) nor keeps inbound streams
//! that arrive in bursts. Frames on streams are a little-endian u32 length, checked against the protocol's limit
//! before anything is allocated, then the bytes.

use futures::future::{Ready, ready};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade};
use libp2p::core::{Endpoint, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Status,
    Ledger,
    Blob,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Status, Self::Ledger, Self::Blob];

    const fn protocol(self) -> StreamProtocol {
        StreamProtocol::new(match self {
            Self::Status => "/swarm/status/1",
            Self::Ledger => "/swarm/ledger/1",
            Self::Blob => "/swarm/blob/1",
        })
    }
}

/// Who opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Opener {
    Us,
    Them,
}

/// What a connection's handler has to tell.
#[derive(Debug)]
pub(super) enum HandlerEvent {
    Opened { purpose: Purpose, by: Opener, stream: Stream },
    Failed { purpose: Purpose, why: String },
}

/// A [`HandlerEvent`] and where it happened.
#[derive(Debug)]
pub(super) struct StreamEvent {
    pub(super) connection: ConnectionId,
    pub(super) event: HandlerEvent,
}

/// Opens and accepts the streams of every connection.
#[derive(Default)]
pub(super) struct Behaviour {
    events: VecDeque<StreamEvent>,
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = StreamEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new())
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.events.push_back(StreamEvent { connection, event });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            None => Poll::Pending,
        }
    }
}

/// The streams of one connection.
pub(super) struct Handler {
    to_open: Vec<Purpose>,
    accepted: Vec<Purpose>,
    /// At most six events and as many failures as there are streams: bounded by what is opened.
    events: VecDeque<HandlerEvent>,
}

impl Handler {
    fn new() -> Self {
        Self { to_open: Purpose::ALL.to_vec(), accepted: Vec::new(), events: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = HandlerEvent;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Purpose;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(Purpose::ALL.to_vec()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Offer, Purpose, HandlerEvent>> {
        if let Some(purpose) = self.to_open.pop() {
            let protocol = SubstreamProtocol::new(Offer(vec![purpose]), purpose);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event)),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Offer, Offer, (), Purpose>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (purpose, stream), .. })
                if !self.accepted.contains(&purpose) =>
            {
                self.accepted.push(purpose);
                self.events.push_back(HandlerEvent::Opened { purpose, by: Opener::Them, stream });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (purpose, stream), ..
            }) => {
                self.events.push_back(HandlerEvent::Opened { purpose, by: Opener::Us, stream });
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: purpose }) => {
                let why = match error {
                    StreamUpgradeError::Timeout => "it did not answer in time".to_owned(),
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::NegotiationFailed => "it does not know that protocol".to_owned(),
                    StreamUpgradeError::Io(error) => error.to_string(),
                };
                self.events.push_back(HandlerEvent::Failed { purpose, why });
            }
            // A second stream for one purpose is nothing a swarm node opens: dropped unread. Failed inbound upgrades are
            // the peer's to notice. The enum is libp2p's and open.
            _ => {}
        }
    }
}

/// The protocols of these purposes; whichever is agreed on tells what the stream is for.
pub(super) struct Offer(Vec<Purpose>);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = Vec<StreamProtocol>;

    fn protocol_info(&self) -> Vec<StreamProtocol> {
        self.0.iter().map(|purpose| purpose.protocol()).collect()
    }
}

impl Offer {
    fn agreed(&self, protocol: &StreamProtocol, stream: Stream) -> (Purpose, Stream) {
        let purpose = self.0.iter().copied().find(|purpose| purpose.protocol() == *protocol);
        // Only what was offered can be agreed on.
        (purpose.unwrap_or(Purpose::Status), stream)
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Purpose, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok(self.agreed(&protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Purpose, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok(self.agreed(&protocol, stream)))
    }
}

/// Reads one frame; none at a clean end between frames.
///
/// # Errors
/// `InvalidData` for a frame over `limit_bytes`, `UnexpectedEof` for a torn one, else what the stream says.
pub(super) async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S, limit_bytes: u32) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let first = stream.read(&mut length).await?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[first..]).await?;
    let length = u32::from_le_bytes(length);
    if length > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes where at most {limit_bytes} are allowed"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

/// Writes one frame, `head` and `body` together, without flushing. The caller keeps to the limit.
pub(super) async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, head: &[u8], body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(head.len() + body.len()).map_err(io::Error::other)?;
    let mut start = Vec::with_capacity(4 + head.len());
    start.extend_from_slice(&length.to_le_bytes());
    start.extend_from_slice(head);
    stream.write_all(&start).await?;
    stream.write_all(body).await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    #[tokio::test]
    async fn a_frame_survives_and_one_over_the_limit_or_torn_is_an_error() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, b"he", b"llo").await.unwrap();
        assert_eq!(bytes, b"\x05\0\0\0hello");
        let mut stream = Cursor::new(bytes.clone());
        assert_eq!(read_frame(&mut stream, 5).await.unwrap().unwrap(), b"hello");
        assert!(read_frame(&mut stream, 5).await.unwrap().is_none());
        let refused = read_frame(&mut Cursor::new(bytes.clone()), 4).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        for cut in 1..bytes.len() {
            let torn = read_frame(&mut Cursor::new(bytes[..cut].to_vec()), 5).await.unwrap_err();
            assert_eq!(torn.kind(), io::ErrorKind::UnexpectedEof, "{cut}");
        }
        // A length nobody has the memory for is refused by its number alone.
        assert!(read_frame(&mut Cursor::new(vec![255; 4]), 5).await.is_err());
    }

    #[test]
    fn no_bytes_make_a_reader_of_frames_panic_or_take_more_than_its_limit() {
        let seeds = vec![b"\x05\0\0\0hello\x02\0\0\0yo".to_vec(), vec![0; 8]];
        crate::fuzz::fuzz("frame", crate::fuzz::ROUNDS, seeds, |bytes| {
            let mut stream = Cursor::new(bytes);
            loop {
                match futures::executor::block_on(read_frame(&mut stream, 16)) {
                    Ok(Some(frame)) => assert!(frame.len() <= 16),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.kind()),
                }
            }
        });
    }
}
