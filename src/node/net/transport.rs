//! TCP, Noise behind the gate, and Yamux with a window of our own choosing.
//!
//! Two things libp2p's own parts do not do are done here. Its Yamux wrapper offers no way to bound the receive window
//! of a connection (1 GiB by default), nor to give up on closing a connection whose peer is gone; so the multiplexer
//! is wrapped here, in the same way. And its TCP transport cannot dial IPv6 link-local addresses, because a multiaddr
//! from mDNS names no interface; so those are dialled on every interface at once, and the first answer wins.

use super::gate::{GateKey, Gated};
use crate::farm::id::NodeId;
use futures::future::{BoxFuture, FutureExt, select_ok};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent};
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, Version};
use libp2p::core::{Transport, UpgradeInfo};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, identity, noise, tcp};
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Longest from the first packet to an open gate; the gate itself has five seconds of it (guess: a busy machine).
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest until TCP is connected: a second try of the system's is under way by then (guess: farms are on LANs or VPNs).
const REACH_LIMIT: Duration = Duration::from_secs(3);
/// Longest a connection may take to say goodbye before it is dropped (guess).
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Most bytes a peer may have under way to us on one connection (DESIGN §5).
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Most streams on a connection. Six are used; Yamux wants 256 KiB of the window for each that may be.
const MAX_STREAMS: usize = 32;
const _: () = assert!(MAX_STREAMS * yamux::DEFAULT_CREDIT as usize <= WINDOW_BYTES);

/// The whole stack.
pub(super) fn stack(
    keypair: &identity::Keypair,
    key: GateKey,
    me: NodeId,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let secure = Gated::new(noise::Config::new(keypair)?, key, me);
    Ok(LinkLocal(tcp::tokio::Transport::new(tcp::Config::new().nodelay(true)))
        .upgrade(Version::V1Lazy)
        .authenticate(secure)
        .multiplex(Yamux)
        .timeout(CONNECT_LIMIT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed())
}

/// The upgrade to [`Muxer`].
#[derive(Clone, Copy)]
struct Yamux;

impl Yamux {
    fn over<C: AsyncRead + AsyncWrite + Unpin>(socket: C, mode: yamux::Mode) -> Muxer<C> {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        config.set_max_connection_receive_window(Some(WINDOW_BYTES));
        Muxer {
            connection: yamux::Connection::new(socket, config, mode),
            inbound: VecDeque::new(),
            waiting: None,
            patience: None,
        }
    }
}

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        std::future::ready(Ok(Self::over(socket, yamux::Mode::Server)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        std::future::ready(Ok(Self::over(socket, yamux::Mode::Client)))
    }
}

/// A Yamux connection as libp2p wants it.
struct Muxer<C> {
    connection: yamux::Connection<C>,
    inbound: VecDeque<yamux::Stream>,
    waiting: Option<Waker>,
    /// Runs out when closing has taken [`CLOSE_LIMIT`].
    patience: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        self.connection
            .poll_next_inbound(cx)
            .map(|next| next.unwrap_or(Err(yamux::ConnectionError::Closed)).map_err(into_io))
    }
}

fn into_io(error: yamux::ConnectionError) -> io::Error {
    match error {
        yamux::ConnectionError::Io(error) => error,
        other => io::Error::other(other),
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = yamux::Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        if let Poll::Ready(next) = self.poll_next(cx) {
            return Poll::Ready(next);
        }
        self.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        self.connection.poll_new_outbound(cx).map_err(into_io)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(closed) = self.connection.poll_close(cx) {
            return Poll::Ready(closed.map_err(into_io));
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_LIMIT)));
        patience.poll_unpin(cx).map(Ok)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        let Poll::Ready(next) = self.poll_next(cx) else { return Poll::Pending };
        let stream = next?;
        if self.inbound.len() < MAX_STREAMS {
            self.inbound.push_back(stream);
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
        }
        // There may be more; others get a turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The TCP transport, able to dial link-local addresses.
struct LinkLocal(tcp::tokio::Transport);

impl Transport for LinkLocal {
    type Output = <tcp::tokio::Transport as Transport>::Output;
    type Error = io::Error;
    type ListenerUpgrade = <tcp::tokio::Transport as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Self::Output>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.0.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.0.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let dial = match link_local(&address) {
            Some(target) => dial_link_local(target).boxed(),
            None => self.0.dial(address, options)?,
        };
        Ok(async move {
            tokio::time::timeout(REACH_LIMIT, dial).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// The target of a link-local address; its scope is 0 where none is named.
fn link_local(address: &Multiaddr) -> Option<SocketAddrV6> {
    match super::address::from_multiaddr(address)? {
        SocketAddr::V6(target) if target.ip().is_unicast_link_local() => Some(target),
        SocketAddr::V6(_) | SocketAddr::V4(_) => None,
    }
}

async fn dial_link_local(target: SocketAddrV6) -> io::Result<tcp::tokio::TcpStream> {
    let scopes = if target.scope_id() == 0 { link_local_scopes() } else { vec![target.scope_id()] };
    let dials = scopes.into_iter().map(|scope| {
        async move {
            let target = SocketAddrV6::new(*target.ip(), target.port(), 0, scope);
            let stream = tokio::net::TcpSocket::new_v6()?.connect(SocketAddr::V6(target)).await?;
            stream.set_nodelay(true)?;
            Ok(tcp::tokio::TcpStream(stream))
        }
        .boxed()
    });
    let dials: Vec<_> = dials.collect();
    if dials.is_empty() {
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no interface here has a link-local address"));
    }
    select_ok(dials).await.map(|(stream, _)| stream)
}

/// The interfaces that have a link-local address, by index. Known on Linux; elsewhere none.
fn link_local_scopes() -> Vec<u32> {
    parse_if_inet6(&std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default())
}

/// Lines are: address, interface index, prefix length, scope, flags (all in hexadecimal), name.
fn parse_if_inet6(text: &str) -> Vec<u32> {
    let mut scopes: Vec<u32> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let address = Ipv6Addr::from(u128::from_str_radix(fields.next()?, 16).ok()?);
            let index = u32::from_str_radix(fields.next()?, 16).ok()?;
            address.is_unicast_link_local().then_some(index)
        })
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// A socket address as libp2p writes it; a scope goes before it as `/ip6zone/<index>`.
pub(super) fn to_multiaddr(address: SocketAddr) -> Multiaddr {
    let mut multiaddr = Multiaddr::empty();
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        multiaddr.push(Protocol::Ip6zone(v6.scope_id().to_string().into()));
    }
    multiaddr.with(address.ip().into()).with(Protocol::Tcp(address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_with_a_link_local_address_are_read_from_the_kernels_table() {
        let table = "\
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 02 40 00 80     eth0
fe8000000000000008112fffe5a1b2c3 02 40 20 80     eth0
fe80000000000000000000000000000a 0b 40 20 80   wlan0
not a line
";
        assert_eq!(parse_if_inet6(table), vec![2, 11]);
    }
}
