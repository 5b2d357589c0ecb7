//! Addresses as people and libp2p write them, and which to try first.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Why a text names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the address of a peer; write for example host:7337, 10.0.0.5:7337 or [fd00::5]:7337")]
pub struct BadAddress {
    text: String,
}

/// Where a peer is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    At(SocketAddr),
    /// To be resolved whenever it is dialled.
    Host(String, u16),
}

/// Whether a peer can be dialled at this address.
pub fn check_address(text: &str) -> Result<(), BadAddress> {
    text.parse::<Target>().map(drop)
}

/// Longest address anyone may write, bytes (a host name has at most 253).
const MAX_TEXT_BYTES: usize = 300;

impl std::str::FromStr for Target {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let text = text.trim();
        let bad = || BadAddress { text: text.chars().take(80).collect() };
        if text.len() > MAX_TEXT_BYTES {
            return Err(bad());
        }
        let target = if text.starts_with('/') { parse_multiaddr(text) } else { parse_host_port(text) };
        target
            .filter(|target| match target {
                Self::At(at) => at.port() != 0 && !at.ip().is_unspecified(),
                Self::Host(_, port) => *port != 0,
            })
            .ok_or_else(bad)
    }
}

fn parse_host_port(text: &str) -> Option<Target> {
    if let Ok(at) = text.parse::<SocketAddr>() {
        return Some(Target::At(at));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // A scope by name: std knows only numbers, the kernel's list knows names.
        let (ip, zone) = inside.split_once('%')?;
        let scope = zone.parse().ok().or_else(|| scope_of(zone))?;
        return Some(Target::At(SocketAddrV6::new(ip.parse().ok()?, port, 0, scope).into()));
    }
    let name_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (!host.is_empty() && host.chars().all(name_like)).then(|| Target::Host(host.to_owned(), port))
}

fn parse_multiaddr(text: &str) -> Option<Target> {
    let address: Multiaddr = text.parse().ok()?;
    if let Some(at) = from_multiaddr(&address) {
        return Some(Target::At(at));
    }
    let mut parts = address.iter();
    match (parts.next()?, parts.next()?) {
        (Protocol::Dns(host) | Protocol::Dns4(host) | Protocol::Dns6(host), Protocol::Tcp(port)) => {
            Some(Target::Host(host.into_owned(), port))
        }
        _ => None,
    }
}

/// The interface index the kernel gives a name. Known on Linux.
fn scope_of(name: &str) -> Option<u32> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '@'));
    if !plain || name.contains("..") {
        return None;
    }
    std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()
}

/// The TCP address a multiaddr names, if it does; a `/p2p/…` behind it is ignored.
pub(super) fn from_multiaddr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter().peekable();
    let mut scope = 0;
    if let Some(Protocol::Ip6zone(zone)) = parts.peek() {
        scope = zone.parse().ok().or_else(|| scope_of(zone))?;
        parts.next();
    }
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let Protocol::Tcp(port) = parts.next()? else { return None };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => {}
        _ => return None,
    }
    Some(match ip {
        IpAddr::V4(ip) => SocketAddr::from((ip, port)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
    })
}

/// How late an address is tried: real networks first, then link-local ones, containers and VPNs last.
pub(super) fn rank(ip: IpAddr) -> u8 {
    const fn within4(ip: Ipv4Addr, net: [u8; 4], bits: u32) -> bool {
        ip.to_bits() >> (32 - bits) == Ipv4Addr::new(net[0], net[1], net[2], net[3]).to_bits() >> (32 - bits)
    }
    /// Tailscale's own prefix.
    const TAILSCALE6: [u16; 3] = [0xfd7a, 0x115c, 0xa1e0];
    match ip {
        IpAddr::V4(ip) => {
            let docker = within4(ip, [172, 17, 0, 0], 16);
            let podman = within4(ip, [10, 88, 0, 0], 16);
            let libvirt = within4(ip, [192, 168, 122, 0], 24);
            let carrier_grade = within4(ip, [100, 64, 0, 0], 10);
            if docker || podman || libvirt || carrier_grade { 2 } else { u8::from(ip.is_link_local()) }
        }
        IpAddr::V6(ip) if ip.segments()[..3] == TAILSCALE6 => 2,
        IpAddr::V6(ip) => u8::from(ip.is_unicast_link_local()),
    }
}

/// The address in the form IPv4 has of its own, where a dual-stack socket wrote it as IPv6.
pub(super) fn canonical(at: SocketAddr) -> SocketAddr {
    match at {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => at,
        },
        SocketAddr::V4(_) => at,
    }
}

/// Whether only this machine can reach it.
pub(super) fn is_private_to_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_named_by_host_ip_or_multiaddr_and_nothing_else_is_one() {
        let at = |text: &str| Target::At(text.parse().unwrap());
        for (text, wanted) in [
            ("10.0.0.5:7337", at("10.0.0.5:7337")),
            (" [fd00::5]:7337 ", at("[fd00::5]:7337")),
            ("[fe80::1%3]:7337", at("[fe80::1%3]:7337")),
            ("render-3.local:80", Target::Host("render-3.local".into(), 80)),
            ("/ip4/10.0.0.5/tcp/7337", at("10.0.0.5:7337")),
            ("/ip6zone/3/ip6/fe80::1/tcp/7337", at("[fe80::1%3]:7337")),
            ("/dns/render-3/tcp/80", Target::Host("render-3".into(), 80)),
        ] {
            assert_eq!(text.parse::<Target>(), Ok(wanted), "{text}");
        }
        let long = format!("{}:1", "a".repeat(400));
        let bad = ["", "host", "host:", ":7337", "10.0.0.5", "10.0.0.5:0", "0.0.0.0:1", "[fe80::1%no/such]:1", "a b:1"];
        for bad in bad.into_iter().chain(["/ip4/10.0.0.5", "/ip4/10.0.0.5/udp/1", "fd00::5", long.as_str()]) {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn containers_and_vpns_come_last() {
        let mut ips = ["172.17.0.1", "100.101.102.103", "169.254.3.4", "fe80::1", "fd7a:115c:a1e0::1", "192.168.1.5"]
            .map(|ip| ip.parse::<IpAddr>().unwrap());
        ips.sort_by_key(|ip| rank(*ip));
        assert_eq!(ips[0].to_string(), "192.168.1.5");
        assert_eq!(ips.map(rank), [0, 1, 1, 2, 2, 2]);
    }
}
