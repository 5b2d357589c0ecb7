//! One blob from store to store over loopback, against one plain libp2p stream that reads a file, hashes what arrives,
//! writes it and syncs once. Prints medians and their ratio; exits with 1 below the bar.
//!
//! `cargo bench --bench transfer -- [MiB] [rounds]`

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#![allow(clippy::unwrap_used)]

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use swarm::farm::blob::{BlobMap, CHUNK_AVERAGE_BYTES, ChunkRef};
use swarm::farm::id::{BootId, NodeId};
use swarm::node::Chunks;
use swarm::node::chunk::Chunking;
use swarm::node::net::{BlobReply, BlobRequest, NetConfig, NetEvent, NetHandle, PortChoice, start};
use swarm::node::store::Store;
use tokio::sync::mpsc;

/// Of the plain stream's rate. DESIGN §9.
const LEAST_OF_PLAIN: f64 = 0.92;
const CHUNK: usize = CHUNK_AVERAGE_BYTES as usize;
/// In flight, as the farm would (DESIGN §4).
const IN_FLIGHT: usize = 8;

async fn node(secret: u8, peers: Vec<String>, store: Arc<Store>) -> (NetHandle, mpsc::Receiver<NetEvent>) {
    let config = NetConfig {
        secret: [secret; 32],
        swarm_key: [7; 32],
        boot: BootId([secret; 8]),
        port: PortChoice::Given(0),
        listen: vec![Ipv4Addr::LOCALHOST.into()],
        peers,
        mdns: false,
        known: Vec::new(),
    };
    let chunks = Arc::new(Chunks(store));
    start(config, chunks.clone(), chunks).await.unwrap()
}

/// Seconds for the whole blob, until it is durable under its name.
async fn blobs(from: &Arc<Store>, to: &Arc<Store>, map: &BlobMap) -> f64 {
    let (a, mut a_events) = node(1, Vec::new(), from.clone()).await;
    let (b, mut events) = node(2, vec![format!("127.0.0.1:{}", a.port())], to.clone()).await;
    let peer: NodeId = loop {
        if let Some(NetEvent::Connected { node, .. }) = events.recv().await {
            break node;
        }
    };
    while !matches!(a_events.recv().await, Some(NetEvent::Connected { .. })) {}
    let begin = Instant::now();
    let blob = map.id();
    assert!(!to.begin(map).unwrap().complete());
    let mut next = (0u32..).zip(&map.chunks);
    let ask = |(index, chunk): (u32, &ChunkRef)| {
        b.request(peer, BlobRequest::Chunk { blob, index, id: chunk.id, bytes: chunk.bytes }).unwrap();
    };
    next.by_ref().take(IN_FLIGHT).for_each(ask);
    let mut left = map.chunks.len();
    while left > 0 {
        match events.recv().await {
            Some(NetEvent::Blob { reply: BlobReply::Chunk { .. }, .. }) => {
                left -= 1;
                next.by_ref().take(1).for_each(ask);
            }
            Some(NetEvent::Listening { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(to.has(blob));
    let seconds = begin.elapsed().as_secs_f64();
    a.close().await;
    b.close().await;
    seconds
}

fn plain_node() -> Swarm<libp2p_stream::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::MAX))
        .build()
}

/// Seconds for the same over one plain stream.
async fn plain(from: &Path, to: &Path) -> f64 {
    const PROTOCOL: StreamProtocol = StreamProtocol::new("/plain/1");
    let (mut a, mut b) = (plain_node(), plain_node());
    a.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address: Multiaddr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = a.select_next_some().await {
            break address;
        }
    };
    b.dial(address).unwrap();
    let mut incoming = a.behaviour().new_control().accept(PROTOCOL).unwrap();
    let mut control = b.behaviour().new_control();
    let a_is = *a.local_peer_id();
    let turn_a = tokio::spawn(async move {
        loop {
            a.select_next_some().await;
        }
    });
    while !b.is_connected(&a_is) {
        b.select_next_some().await;
    }
    let turn_b = tokio::spawn(async move {
        loop {
            b.select_next_some().await;
        }
    });
    let mut sent = control.open_stream(a_is, PROTOCOL).await.unwrap();
    let begin = Instant::now();
    let (mut from, mut to) = (File::open(from).unwrap(), File::create(to).unwrap());
    let send = tokio::spawn(async move {
        let mut bytes = vec![0; CHUNK];
        loop {
            let n = from.read(&mut bytes).unwrap();
            if n == 0 {
                break;
            }
            sent.write_all(&bytes[..n]).await.unwrap();
        }
        sent.close().await.unwrap();
    });
    let receive = tokio::spawn(async move {
        let (_, mut stream) = incoming.next().await.unwrap();
        let (mut bytes, mut hasher) = (vec![0; CHUNK], blake3::Hasher::new());
        loop {
            let n = stream.read(&mut bytes).await.unwrap();
            if n == 0 {
                break;
            }
            hasher.update(&bytes[..n]);
            to.write_all(&bytes[..n]).unwrap();
        }
        to.sync_all().unwrap();
        hasher.finalize()
    });
    receive.await.unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    send.await.unwrap();
    turn_a.abort();
    turn_b.abort();
    seconds
}

/// Processor time of this process so far, from the kernel's count of ticks of 10 ms; 0 where there is none.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    after_name.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let (mib, rounds) = (numbers.next().unwrap_or(1024), numbers.next().unwrap_or(5));
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let mut file = File::create(path("from")).unwrap();
    let mut random = blake3::Hasher::new().finalize_xof();
    for _ in 0..mib {
        let mut bytes = vec![0; CHUNK];
        random.fill(&mut bytes);
        file.write_all(&bytes).unwrap();
    }
    file.sync_all().unwrap();
    let (from, to) = (Store::open(&path("a")).unwrap(), Store::open(&path("b")).unwrap());
    let (map, _) = from.put_file(&path("from"), Chunking::Fixed).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // Each twice, and the second counts: it writes into memory that a file of its own kind gave back. Memory that nobody
        // touched yet is slower to write to, and whose writes come in other sizes gives back other pieces.
        let [mut plain_took, mut blobs_took] = [(0.0, 0.0); 2];
        for _ in 0..2 {
            let start = cpu_seconds();
            plain_took = (plain(&path("from"), &path("to")).await, cpu_seconds() - start);
            std::fs::remove_file(path("to")).unwrap();
        }
        for _ in 0..2 {
            let start = cpu_seconds();
            blobs_took = (blobs(&from, &to, &map).await, cpu_seconds() - start);
            to.drop_blob(map.id()).unwrap();
        }
        let told = |(seconds, busy)| format!("{:4.0} MiB/s, {busy:.1} s of processor", mib as f64 / seconds);
        println!("plain {}   blob protocol {}", told(plain_took), told(blobs_took));
        theirs.push(plain_took.0);
        ours.push(blobs_took.0);
    }
    let ratio = median(theirs) / median(ours);
    println!("ratio of medians: {ratio:.2} (bar {LEAST_OF_PLAIN} at least)");
    if ratio >= LEAST_OF_PLAIN { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
