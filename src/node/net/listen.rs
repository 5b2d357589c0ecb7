//! Taking a port, for good.
//!
//! libp2p listens with `SO_REUSEPORT`, under which a second daemon of the same user would share the port unseen and
//! take half the connections. So the UDP port of the same number is held as a lock, without any reuse: the system gives
//! it to one process at a time and takes it back from a dead one. Programs of other kinds are found by trying the TCP
//! port itself once.

use super::transport::to_multiaddr;
use super::{DEFAULT_PORT, NetError, PortChoice};
use libp2p::core::transport::TransportError;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use tracing::{info, warn};

/// Ports tried from [`DEFAULT_PORT`] on (guess: more daemons than anybody runs on one machine).
const PORTS_TRIED: u16 = 64;

/// Free ports tried where any will do (guess: one is hit by somebody else's connection now and then).
const FREE_TRIED: usize = 16;

/// Holds a port number.
pub(super) struct Guard {
    port: u16,
    _locks: Vec<UdpSocket>,
}

impl Guard {
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

enum Miss {
    Taken,
    Failed(NetError),
}

/// Listens on `ips` (empty: on all) at the port chosen.
pub(super) fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    port: PortChoice,
    ips: &[IpAddr],
) -> Result<Guard, NetError> {
    let taken_is = |miss, error| match miss {
        Miss::Taken => error,
        Miss::Failed(error) => error,
    };
    match port {
        PortChoice::Given(0) => {
            let mut port = any_free(ips)?;
            for _ in 1..FREE_TRIED {
                match listen_at(swarm, port, ips) {
                    // Somebody was faster, or has a connection from there.
                    Err(Miss::Taken) => port = any_free(ips)?,
                    other => return other.map_err(|miss| taken_is(miss, NetError::PortTaken(port))),
                }
            }
            listen_at(swarm, port, ips).map_err(|miss| taken_is(miss, NetError::PortTaken(port)))
        }
        PortChoice::Given(port) => {
            listen_at(swarm, port, ips).map_err(|miss| taken_is(miss, NetError::PortTaken(port)))
        }
        PortChoice::Default => {
            let last = DEFAULT_PORT + PORTS_TRIED - 1;
            for port in DEFAULT_PORT..=last {
                match listen_at(swarm, port, ips) {
                    Ok(guard) => {
                        if port != DEFAULT_PORT {
                            info!("port {DEFAULT_PORT} is in use; listening on {port} instead");
                        }
                        return Ok(guard);
                    }
                    Err(Miss::Taken) => {}
                    Err(Miss::Failed(error)) => return Err(error),
                }
            }
            Err(NetError::NoPort { first: DEFAULT_PORT, last })
        }
    }
}

/// A port nobody has as a lock. It may be taken a moment later, or by a connection.
fn any_free(ips: &[IpAddr]) -> Result<u16, NetError> {
    let at = SocketAddr::new(ips.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into()), 0);
    let free = UdpSocket::bind(at).and_then(|socket| socket.local_addr());
    free.map(|at| at.port()).map_err(|source| NetError::Listen { address: at.to_string(), source })
}

fn listen_at<B: NetworkBehaviour>(swarm: &mut Swarm<B>, port: u16, ips: &[IpAddr]) -> Result<Guard, Miss> {
    let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    let ips = if ips.is_empty() { &everywhere } else { ips };
    let guard = Guard { port, _locks: lock(port, ips)? };
    // All at once is tried before any is taken.
    for ip in ips {
        if let Err(error) = TcpListener::bind((*ip, port)) {
            taken(&error)?;
        }
    }
    let mut last = None;
    let mut listening = 0;
    for ip in ips {
        let at = SocketAddr::new(*ip, port);
        match swarm.listen_on(to_multiaddr(at)) {
            Ok(_) => listening += 1,
            Err(error) => {
                let source = match error {
                    TransportError::Other(error) => error,
                    TransportError::MultiaddrNotSupported(address) => io::Error::other(address.to_string()),
                };
                last = Some(NetError::Listen { address: at.to_string(), source });
            }
        }
    }
    match last {
        // A machine without IPv6 is no error; an address that was asked for is.
        Some(error) if listening == 0 || ips != everywhere => Err(Miss::Failed(error)),
        Some(error) => {
            warn!(%error, "listening without it");
            Ok(guard)
        }
        None => Ok(guard),
    }
}

/// Holds the UDP ports. Where UDP cannot be had at all there is no lock, and the TCP port alone decides.
fn lock(port: u16, ips: &[IpAddr]) -> Result<Vec<UdpSocket>, Miss> {
    let mut locks = Vec::new();
    // An IPv6 socket for all addresses covers IPv4 too, so it comes first and the other then finds its port taken.
    let all: Vec<_> = ips.iter().filter(|ip| ip.is_unspecified()).collect();
    for ip in all.iter().rev().copied().chain(ips.iter().filter(|ip| !ip.is_unspecified())) {
        match UdpSocket::bind((*ip, port)) {
            Ok(socket) => {
                let covers_all = ip.is_unspecified() && ip.is_ipv6();
                locks.push(socket);
                if covers_all {
                    break;
                }
            }
            Err(error) => taken(&error)?,
        }
    }
    Ok(locks)
}

fn taken(error: &io::Error) -> Result<(), Miss> {
    if error.kind() == io::ErrorKind::AddrInUse { Err(Miss::Taken) } else { Ok(()) }
}
