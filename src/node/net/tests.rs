//! Two or three real networks on the loopback interface. Nothing sleeps: everything waits for events, with a deadline
//! that only a failure reaches.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::farm::blob::{ChunkRef, chunk_id};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// Chunks in memory: some here, some arrived.
#[derive(Default)]
struct Memory {
    map: BlobMap,
    here: Vec<Vec<u8>>,
    arrived: Mutex<BTreeMap<u32, Vec<u8>>>,
    full: bool,
}

impl Memory {
    /// A blob of `chunks` × `bytes`, no two chunks alike.
    fn blob(chunks: usize, bytes: usize) -> Self {
        let here: Vec<_> = (0..chunks)
            .map(|index| {
                let mut chunk = vec![0; bytes];
                blake3::Hasher::new().update(&index.to_le_bytes()).finalize_xof().fill(&mut chunk);
                chunk
            })
            .collect();
        let chunks = here.iter().map(|bytes| ChunkRef { id: chunk_id(bytes), bytes: bytes.len() as u32 }).collect();
        Self { map: BlobMap { chunks }, here, ..Self::default() }
    }
}

impl ChunkSource for Memory {
    fn map(&self, blob: BlobId) -> Option<BlobMap> {
        (self.map.id() == blob).then(|| self.map.clone())
    }

    fn have(&self, blob: BlobId) -> Option<Vec<u8>> {
        (self.map.id() == blob).then(|| vec![0xff; self.here.len().div_ceil(8)])
    }

    fn read(&self, _: BlobId, index: u32) -> io::Result<Vec<u8>> {
        self.here.get(index as usize).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl ChunkSink for Memory {
    fn write(&self, _: BlobId, index: u32, bytes: &[u8]) -> io::Result<()> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.arrived.lock().unwrap().insert(index, bytes.to_vec());
        Ok(())
    }
}

struct Host {
    net: NetHandle,
    events: mpsc::Receiver<NetEvent>,
}

impl Host {
    async fn next(&mut self) -> NetEvent {
        let event = tokio::time::timeout(DEADLINE, self.events.recv()).await;
        event.expect("an event within the deadline").expect("a running network")
    }

    /// The first event that `wanted` takes; others are passed over.
    async fn until<T>(&mut self, mut wanted: impl FnMut(&NetEvent) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next().await) {
                return found;
            }
        }
    }

    async fn connected(&mut self, to: NodeId) -> BootId {
        self.until(|event| match event {
            NetEvent::Connected { node, boot, .. } if *node == to => Some(*boot),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self, from: NodeId) {
        self.until(|event| (*event == NetEvent::Disconnected { node: from }).then_some(())).await;
    }

    async fn frame(&mut self) -> (NodeId, Protocol, Vec<u8>) {
        self.until(|event| match event {
            NetEvent::Frame { node, protocol, bytes } => Some((*node, *protocol, bytes.clone())),
            _ => None,
        })
        .await
    }

    async fn reply(&mut self) -> BlobReply {
        self.until(|event| match event {
            NetEvent::Blob { reply, .. } => Some(reply.clone()),
            _ => None,
        })
        .await
    }

    fn at(&self) -> String {
        format!("127.0.0.1:{}", self.net.port())
    }
}

fn config(secret: u8, peers: &[String]) -> NetConfig {
    NetConfig {
        secret: [secret; 32],
        swarm_key: [7; 32],
        boot: BootId([secret; 8]),
        port: PortChoice::Given(0),
        listen: vec![Ipv4Addr::LOCALHOST.into()],
        peers: peers.to_vec(),
        mdns: false,
        known: Vec::new(),
    }
}

async fn host_with(config: NetConfig, memory: &Arc<Memory>) -> Host {
    let (net, events) = start(config, memory.clone(), memory.clone()).await.unwrap();
    Host { net, events }
}

async fn host(config: NetConfig) -> Host {
    host_with(config, &Arc::default()).await
}

/// Two connected hosts.
async fn pair(memories: [&Arc<Memory>; 2]) -> (Host, Host) {
    let mut a = host_with(config(1, &[]), memories[0]).await;
    let mut b = host_with(config(2, &[a.at()]), memories[1]).await;
    let (a_is, b_is) = (a.net.me(), b.net.me());
    tokio::join!(a.connected(b_is), b.connected(a_is));
    (a, b)
}

#[tokio::test]
async fn members_meet_exchange_frames_up_to_the_limit_and_part() {
    let (mut a, mut b) = pair([&Arc::default(), &Arc::default()]).await;
    for (protocol, length) in [
        (Protocol::Status, 0),
        (Protocol::Status, STATUS_MAX_BYTES),
        (Protocol::Ledger, 0),
        (Protocol::Ledger, LEDGER_MAX_BYTES),
    ] {
        let frame: Vec<u8> = (0..length).map(|i| i as u8).collect();
        a.net.try_send(b.net.me(), protocol, frame.clone()).unwrap();
        assert_eq!(b.frame().await, (a.net.me(), protocol, frame.clone()));
        b.net.try_send(a.net.me(), protocol, frame.clone()).unwrap();
        assert_eq!(a.frame().await, (b.net.me(), protocol, frame));
    }
    assert_eq!(a.net.try_send(b.net.me(), Protocol::Status, vec![0; STATUS_MAX_BYTES + 1]), Err(NotSent::TooLong));
    assert_eq!(a.net.try_send(NodeId([0; 32]), Protocol::Status, vec![]), Err(NotSent::NotConnected));
    let b_is = b.net.me();
    b.net.close().await;
    a.disconnected(b_is).await;
    assert_eq!(a.net.try_send(b_is, Protocol::Status, vec![]), Err(NotSent::NotConnected));
    a.net.close().await;
}

#[tokio::test]
async fn a_node_with_another_key_is_refused_and_neither_side_lists_the_other() {
    // A key of its own: another test's member, dialing a port that was its friend's a moment ago, is a stranger too.
    let own = |seed, peers: &[String]| NetConfig { swarm_key: [9; 32], ..config(seed, peers) };
    let mut a = host(own(1, &[])).await;
    let mut stranger = host(NetConfig { swarm_key: [8; 32], ..config(2, &[a.at()]) }).await;
    // A member that comes later is what both wait for: by then the stranger has long been turned away.
    let mut b = host(own(3, &[a.at(), stranger.at()])).await;
    b.connected(a.net.me()).await;
    let met = a
        .until(|event| match event {
            NetEvent::Connected { node, .. } => Some(*node),
            _ => None,
        })
        .await;
    assert_eq!(met, b.net.me());
    while let Ok(event) = stranger.events.try_recv() {
        assert!(matches!(event, NetEvent::Listening { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_plain_libp2p_node_sees_no_protocol_of_ours() {
    use super::streams::{self, HandlerEvent};
    use futures::StreamExt;
    use libp2p::swarm::SwarmEvent;
    let mut a = host(config(1, &[])).await;
    // It asks for all our protocols, but knows nothing of a gate.
    let mut plain = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(libp2p::tcp::Config::default(), libp2p::noise::Config::new, libp2p::yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| streams::Behaviour::default())
        .unwrap()
        .build();
    let address: libp2p::Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", a.net.port()).parse().unwrap();
    plain.dial(address).unwrap();
    let refused = async {
        loop {
            match plain.select_next_some().await {
                SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. } => break,
                SwarmEvent::Behaviour(event) => {
                    assert!(matches!(event.event, HandlerEvent::Failed { .. }), "it got a stream: {event:?}");
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
    while let Ok(event) = a.events.try_recv() {
        assert!(matches!(event, NetEvent::Listening { .. }), "{event:?}");
    }
    a.net.close().await;
}

#[tokio::test]
async fn three_nodes_that_know_one_of_them_all_meet() {
    let mut a = host(config(1, &[])).await;
    let mut b = host(config(2, &[a.at()])).await;
    let mut c = host(config(3, &[a.at()])).await;
    for host in [&mut a, &mut b, &mut c] {
        let mut met = BTreeSet::new();
        while met.len() < 2 {
            match host.next().await {
                NetEvent::Connected { node, .. } => assert!(met.insert(node), "told twice"),
                NetEvent::Listening { .. } => {}
                event => panic!("{event:?}"),
            }
        }
    }
    let members = a.net.members();
    assert!(members.iter().any(|(node, at)| *node == b.net.me() && at.contains(&b.at())), "{members:?}");
}

#[tokio::test]
async fn crossed_dials_leave_one_connection_and_lose_no_node() {
    let mut a = host(config(1, &[])).await;
    let mut b = host(config(2, &[])).await;
    a.net.dial(&b.at()).unwrap();
    b.net.dial(&a.at()).unwrap();
    let (a_is, b_is) = (a.net.me(), b.net.me());
    tokio::join!(a.connected(b_is), b.connected(a_is));
    // Frames pass both ways for longer than a connection that is not kept lingers.
    let end = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < end {
        a.net.try_send(b.net.me(), Protocol::Ledger, vec![1]).unwrap();
        b.net.try_send(a.net.me(), Protocol::Ledger, vec![2]).unwrap();
        for host in [&mut a, &mut b] {
            loop {
                match host.next().await {
                    NetEvent::Frame { .. } => break,
                    event => assert!(matches!(event, NetEvent::Listening { .. }), "{event:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_frame_over_the_limit_costs_the_peer_its_connection() {
    let (mut a, b) = pair([&Arc::default(), &Arc::default()]).await;
    lock(&b.net.shared).links[&a.net.me()].push_unchecked(vec![0; LEDGER_MAX_BYTES + 1]);
    a.disconnected(b.net.me()).await;
    // And it may come back.
    a.connected(b.net.me()).await;
}

#[tokio::test]
async fn a_restarted_peer_is_seen_to_go_and_come_with_its_new_boot() {
    let (mut a, b) = pair([&Arc::default(), &Arc::default()]).await;
    let (b_is, port) = (b.net.me(), b.net.port());
    b.net.close().await;
    let again = NetConfig { boot: BootId([9; 8]), port: PortChoice::Given(port), ..config(2, &[]) };
    let mut b = host(again).await;
    a.disconnected(b_is).await;
    assert_eq!(a.connected(b_is).await, BootId([9; 8]), "found again by its old address");
    b.connected(a.net.me()).await;
    // A silent peer can be dropped, and is dialled again.
    a.net.disconnect(b_is);
    a.disconnected(b_is).await;
    a.connected(b_is).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_when_given_and_passed_over_otherwise() {
    let memory: Arc<Memory> = Arc::default();
    let a = host(config(1, &[])).await;
    let taken = NetConfig { port: PortChoice::Given(a.net.port()), ..config(2, &[]) };
    let refused = start(taken.clone(), memory.clone(), memory.clone()).await;
    assert!(matches!(refused, Err(NetError::PortTaken(port)) if port == a.net.port()));
    let everywhere = NetConfig { listen: Vec::new(), ..taken.clone() };
    assert!(matches!(start(everywhere, memory.clone(), memory.clone()).await, Err(NetError::PortTaken(_))));
    a.net.close().await;
    start(taken, memory.clone(), memory.clone()).await.unwrap().0.close().await;
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = NetConfig { port: PortChoice::Given(other.local_addr().unwrap().port()), ..config(2, &[]) };
    assert!(matches!(start(taken, memory.clone(), memory.clone()).await, Err(NetError::PortTaken(_))));
    let default = NetConfig { port: PortChoice::Default, ..config(3, &[]) };
    let (one, _one) = start(default.clone(), memory.clone(), memory.clone()).await.unwrap();
    let (two, _two) = start(NetConfig { secret: [4; 32], ..default }, memory.clone(), memory).await.unwrap();
    assert!(one.port() >= DEFAULT_PORT && two.port() > one.port());
}

#[tokio::test]
async fn a_blob_travels_chunk_by_chunk_and_arrives_whole() {
    let (full, empty) = (Arc::new(Memory::blob(64, 1 << 20)), Arc::<Memory>::default());
    let (a, mut b) = pair([&full, &empty]).await;
    let (blob, peer) = (full.map.id(), a.net.me());
    b.net.request(peer, BlobRequest::Map { blob }).unwrap();
    assert_eq!(b.reply().await, BlobReply::Map { blob, map: Some(full.map.clone()) });
    b.net.request(peer, BlobRequest::Have { blob }).unwrap();
    assert_eq!(b.reply().await, BlobReply::Have { blob, bitmap: vec![0xff; 8] });
    for (index, chunk) in (0..).zip(&full.map.chunks) {
        b.net.request(peer, BlobRequest::Chunk { blob, index, id: chunk.id, bytes: chunk.bytes }).unwrap();
    }
    assert_eq!(b.net.request(peer, BlobRequest::Have { blob }), Err(NotSent::Full), "64 at a time");
    let mut left: BTreeSet<u32> = (0..64).collect();
    while !left.is_empty() {
        match b.reply().await {
            BlobReply::Chunk { index, bytes, .. } => assert!(left.remove(&index) && bytes == 1 << 20),
            reply => panic!("{reply:?}"),
        }
    }
    assert!(empty.arrived.lock().unwrap().values().eq(&full.here));
    // Nothing known, nothing there.
    let nothing = BlobId([9; 32]);
    b.net.request(peer, BlobRequest::Map { blob: nothing }).unwrap();
    assert_eq!(b.reply().await, BlobReply::Map { blob: nothing, map: None });
    let beyond = BlobRequest::Chunk { blob, index: 64, id: ChunkId([0; 32]), bytes: 1 };
    b.net.request(peer, beyond.clone()).unwrap();
    assert_eq!(b.reply().await, BlobReply::Failed { request: beyond, why: BlobFailure::Missing });
}

#[tokio::test]
async fn a_corrupt_chunk_reaches_no_disk_and_a_full_disk_is_told() {
    let mut rotten = Memory::blob(2, 1000);
    rotten.here[0][500] ^= 1;
    let (rotten, full) = (Arc::new(rotten), Arc::new(Memory { full: true, ..Memory::default() }));
    let (a, mut b) = pair([&rotten, &full]).await;
    let blob = rotten.map.id();
    for (index, chunk) in (0..).zip(&rotten.map.chunks) {
        let request = BlobRequest::Chunk { blob, index, id: chunk.id, bytes: chunk.bytes };
        b.net.request(a.net.me(), request.clone()).unwrap();
        let BlobReply::Failed { request: failed, why } = b.reply().await else { panic!("it was kept") };
        assert_eq!(failed, request);
        assert!(if index == 0 { why == BlobFailure::Corrupt } else { matches!(why, BlobFailure::Disk(_)) }, "{why:?}");
    }
}

/// A source that never answers before it is told to.
struct Stuck(Mutex<std::sync::mpsc::Receiver<()>>);

impl ChunkSource for Stuck {
    fn map(&self, _: BlobId) -> Option<BlobMap> {
        let _ = self.0.lock().unwrap().recv();
        None
    }
    fn have(&self, _: BlobId) -> Option<Vec<u8>> {
        None
    }
    fn read(&self, _: BlobId, _: u32) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[tokio::test]
async fn every_request_has_one_reply_even_when_the_peer_goes() {
    let (release, stuck) = std::sync::mpsc::sync_channel(1);
    let (net, events) =
        start(config(1, &[]), Arc::new(Stuck(Mutex::new(stuck))), Arc::<Memory>::default()).await.unwrap();
    let mut a = Host { net, events };
    let mut b = host(config(2, &[a.at()])).await;
    let (a_is, b_is) = (a.net.me(), b.net.me());
    tokio::join!(a.connected(b_is), b.connected(a_is));
    let peer = a.net.me();
    for i in 0..10 {
        b.net.request(peer, BlobRequest::Map { blob: BlobId([i; 32]) }).unwrap();
    }
    b.net.disconnect(peer);
    let mut lost = BTreeSet::new();
    loop {
        match b.next().await {
            NetEvent::Blob { reply: BlobReply::Failed { request: BlobRequest::Map { blob }, why }, .. } => {
                assert!(why == BlobFailure::Lost && lost.insert(blob));
            }
            NetEvent::Disconnected { .. } => break,
            event => assert!(matches!(event, NetEvent::Listening { .. }), "{event:?}"),
        }
    }
    assert_eq!(lost.len(), 10);
    drop(release);
}
