//! The driver: one task that turns the libp2p swarm, dials whom the table says, and keeps one link per node.
//!
//! A connection goes through three stages: its six streams open, both sides greet, then it is a link. Greeted
//! connections are all served, but one per node is *kept*: frames and requests go out on it alone. One that is not, or
//! no longer, kept lingers for a moment, so that what is under way on it arrives, and is then closed.

#![allow(clippy::disallowed_methods, reason = "deadlines of an adapter; what the farm decides by is the loop's clock")]

mod keep;

use super::address::{Target, canonical, from_multiaddr, rank};
use super::blob::DISK_AT_ONCE;
use super::gate::{GateError, GateKey, node_of, peer_of};
use super::link::{self, Arriving, FromLink, GreetingError, Hello, Queues};
use super::peers::{Dial, Miss, Table};
use super::streams::{self, HandlerEvent, StreamEvent};
use super::transport::{stack, to_multiaddr};
use super::{ChunkSink, ChunkSource, NetConfig, NetError, NetEvent, Order, Shared, WIRE_VERSION, listen, lock};
use crate::farm::id::{BootId, NodeId};
use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{PeerId, Swarm, connection_limits, identity, mdns};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often due dials and deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Longest from an open gate to Hello (guess: several round trips on a busy machine).
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection that is not kept stays open (guess: several round trips and a chunk).
const LINGER: Duration = Duration::from_secs(2);
/// How long closing waits for links, whose disk writes cannot be interrupted (guess).
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// Most dials under way.
const MAX_DIALS: usize = 64;
/// Most connections that have not passed the gate yet.
const MAX_PENDING: u32 = 128;
/// Most connections of one node: two crossed, and two of its next start.
const MAX_PER_NODE: u32 = 4;
/// Messages from links waiting for the driver.
const MAX_FROM_LINKS: usize = 256;
/// How often one stranger is named in the log (DESIGN §5).
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Most strangers told apart in the log.
const MAX_COMPLAINTS: usize = 512;
/// How often mDNS asks again, and for how long an answer holds. It asks less where others ask (guess: a lost packet
/// then costs two seconds). An answer holds for a few questions only, so that one after a cut counts as a new one.
const MDNS_EVERY: Duration = Duration::from_secs(2);
const MDNS_HOLDS: Duration = Duration::from_secs(10);

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    streams: streams::Behaviour,
    mdns4: Toggle<mdns::tokio::Behaviour>,
    mdns6: Toggle<mdns::tokio::Behaviour>,
}

/// What the driver is given of the world outside.
pub(super) struct World {
    pub(super) source: Arc<dyn ChunkSource>,
    pub(super) sink: Arc<dyn ChunkSink>,
    pub(super) shared: Arc<Mutex<Shared>>,
    pub(super) events: mpsc::Sender<NetEvent>,
    pub(super) stop: CancellationToken,
}

/// The key pair of a seed and the node it is.
pub(super) fn keypair(secret: [u8; 32]) -> Result<(identity::Keypair, NodeId), NetError> {
    let keypair = identity::Keypair::ed25519_from_bytes(secret).map_err(|e| NetError::Encryption(e.to_string()))?;
    let node = node_of(&keypair.public().to_peer_id());
    let node = node.ok_or_else(|| NetError::Encryption("the key is not an Ed25519 key".into()))?;
    Ok((keypair, node))
}

/// One connection past the gate.
struct Connection {
    node: NodeId,
    dialled: bool,
    /// The other end; for an accepted connection not where the node listens.
    at: SocketAddr,
    since: Instant,
    stage: Stage,
}

enum Stage {
    Opening(Arriving),
    Greeting,
    Link(Link),
}

struct Link {
    boot: BootId,
    queues: Queues,
    stop: CancellationToken,
    /// Set while it is not kept.
    close_at: Option<Instant>,
}

/// A node that is there.
struct Member {
    boot: BootId,
    /// None for the moment in which one link has ended and another is being greeted.
    kept: Option<ConnectionId>,
}

enum UnderWay {
    Node(NodeId),
    Bare(Target),
}

/// See the head of this file.
pub(super) struct Driver {
    me: NodeId,
    hello: Hello,
    swarm: Swarm<Behaviour>,
    /// Holds the port against other nodes on this machine.
    _guard: listen::Guard,
    world: World,
    table: Table,
    connections: BTreeMap<ConnectionId, Connection>,
    members: BTreeMap<NodeId, Member>,
    dials: BTreeMap<ConnectionId, UnderWay>,
    resolving: JoinSet<(Target, io::Result<Vec<SocketAddr>>)>,
    links: JoinSet<()>,
    to_driver: mpsc::Sender<FromLink>,
    from_links: mpsc::Receiver<FromLink>,
    disk: Arc<Semaphore>,
    listening: BTreeSet<SocketAddr>,
    listening_changed: bool,
    members_changed: bool,
    complaints: BTreeMap<String, Instant>,
}

impl Driver {
    /// Binds and prepares; nothing happens before [`Self::run`].
    pub(super) fn start(config: NetConfig, world: World) -> Result<Self, NetError> {
        let now = Instant::now();
        let (keypair, me) = keypair(config.secret)?;
        let mut table = Table::new(me);
        for peer in &config.peers {
            table.add_bare(peer.parse()?, now);
        }
        for (node, addresses) in &config.known {
            let addresses = addresses.iter().filter_map(|address| match address.parse() {
                Ok(Target::At(at)) => Some(at),
                Ok(Target::Host(..)) | Err(_) => None,
            });
            addresses.for_each(|at| table.told(*node, at, now));
        }
        let peer = keypair.public().to_peer_id();
        let transport = stack(&keypair, GateKey::new(&config.swarm_key), me)
            .map_err(|error| NetError::Encryption(error.to_string()))?;
        let behaviour = behaviour(peer, config.mdns);
        let settings = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::MAX);
        let mut swarm = Swarm::new(transport, behaviour, peer, settings);
        let guard = listen::listen(&mut swarm, config.port, &config.listen)?;
        let (to_driver, from_links) = mpsc::channel(MAX_FROM_LINKS);
        Ok(Self {
            me,
            hello: Hello { version: WIRE_VERSION, boot: config.boot, port: guard.port() },
            swarm,
            _guard: guard,
            world,
            table,
            connections: BTreeMap::new(),
            members: BTreeMap::new(),
            dials: BTreeMap::new(),
            resolving: JoinSet::new(),
            links: JoinSet::new(),
            to_driver,
            from_links,
            disk: Arc::new(Semaphore::new(DISK_AT_ONCE)),
            listening: BTreeSet::new(),
            listening_changed: false,
            members_changed: true,
            complaints: BTreeMap::new(),
        })
    }

    pub(super) fn me(&self) -> NodeId {
        self.me
    }

    pub(super) fn port(&self) -> u16 {
        self.hello.port
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stop = self.world.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                order = inbox.recv() => match order {
                    Some(order) => self.obey(order),
                    None => break,
                },
                Some(from) = self.from_links.recv() => self.hear(from).await,
                Some(resolved) = self.resolving.join_next() => self.resolved(resolved),
                Some(_) = self.links.join_next() => {}
                event = self.swarm.select_next_some() => self.happened(event).await,
                _ = tick.tick() => self.tick().await,
            }
            self.dial_due();
        }
        self.close().await;
    }

    async fn close(mut self) {
        self.world.stop.cancel();
        lock(&self.world.shared).links.clear();
        drop(self.swarm);
        drop(self.from_links);
        let ended = async { while self.links.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_LIMIT, ended).await.is_err() {
            warn!("a disk write is taking long; the network closes without waiting for it");
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Dial(target) => {
                if !self.table.add_bare(target.clone(), Instant::now()) {
                    warn!(?target, "too many peer addresses; this one is ignored");
                }
            }
            Order::Disconnect(node) => {
                let theirs: Vec<_> = self.connections_of(node).map(|(id, _)| *id).collect();
                theirs.into_iter().for_each(|connection| self.drop_connection(connection));
            }
        }
    }

    fn connections_of(&self, node: NodeId) -> impl Iterator<Item = (&ConnectionId, &Connection)> {
        self.connections.iter().filter(move |(_, connection)| connection.node == node)
    }

    fn drop_connection(&mut self, id: ConnectionId) {
        if let Some(Connection { stage: Stage::Link(link), .. }) = self.connections.get(&id) {
            link.stop.cancel();
        }
        self.swarm.close_connection(id);
    }

    async fn emit(&mut self, event: NetEvent) {
        tokio::select! {
            biased;
            // An error means that nobody listens any more; the handle stops us then.
            _ = self.world.events.send(event) => {}
            () = self.world.stop.cancelled() => {}
        }
    }

    // -- dialling ---------------------------------------------------------------------------------------------------

    fn dial_due(&mut self) {
        let room = MAX_DIALS.saturating_sub(self.dials.len() + self.resolving.len());
        if room == 0 {
            return;
        }
        for dial in self.table.take_due(Instant::now(), room) {
            match dial {
                Dial::Node { node, addresses } => {
                    let Some(peer) = peer_of(node) else { continue };
                    let options = DialOpts::peer_id(peer)
                        .condition(PeerCondition::Always)
                        .addresses(addresses.into_iter().map(to_multiaddr).collect())
                        .allocate_new_port()
                        .build();
                    self.dial(options, UnderWay::Node(node));
                }
                Dial::Bare { target: Target::At(at) } => self.dial_bare(Target::At(at), at),
                Dial::Bare { target: Target::Host(host, port) } => {
                    self.resolving.spawn(async move {
                        let found = tokio::net::lookup_host((host.as_str(), port)).await.map(Iterator::collect);
                        (Target::Host(host, port), found)
                    });
                }
            }
        }
    }

    fn dial_bare(&mut self, target: Target, at: SocketAddr) {
        let options = DialOpts::unknown_peer_id().address(to_multiaddr(at)).allocate_new_port().build();
        self.dial(options, UnderWay::Bare(target));
    }

    fn dial(&mut self, options: DialOpts, under_way: UnderWay) {
        let id = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(id, under_way);
            }
            Err(error) => {
                debug!(%error, "a dial did not start");
                self.missed(&under_way, Miss::Unreachable);
            }
        }
    }

    fn resolved(&mut self, resolved: Result<(Target, io::Result<Vec<SocketAddr>>), tokio::task::JoinError>) {
        /// Addresses of one host name that are tried.
        const MAX_RESOLVED: usize = 8;
        let Ok((target, found)) = resolved else { return };
        let found = found.unwrap_or_else(|error| {
            self.complain(&format!("{target:?}"), || warn!(?target, %error, "the name of a peer cannot be resolved"));
            Vec::new()
        });
        if found.is_empty() {
            self.missed(&UnderWay::Bare(target), Miss::Unreachable);
            return;
        }
        for at in found.into_iter().take(MAX_RESOLVED) {
            self.dial_bare(target.clone(), at);
        }
    }

    fn missed(&mut self, under_way: &UnderWay, miss: Miss) {
        let (now, jitter) = (Instant::now(), rand::random());
        match under_way {
            UnderWay::Node(node) => self.table.missed(*node, miss, now, jitter),
            UnderWay::Bare(target) => self.table.missed_bare(target, now, jitter),
        }
    }

    /// Runs `say` at most once a minute for one `key`.
    fn complain(&mut self, key: &str, say: impl FnOnce()) {
        let now = Instant::now();
        self.complaints.retain(|_, said| now.duration_since(*said) < COMPLAIN_EVERY);
        if self.complaints.len() < MAX_COMPLAINTS && !self.complaints.contains_key(key) {
            self.complaints.insert(key.to_owned(), now);
            say();
        }
    }

    fn refused(&mut self, address: &libp2p::Multiaddr, error: &GateError) {
        let address = from_multiaddr(address).map_or_else(|| address.to_string(), |at| canonical(at).to_string());
        let node = error.node();
        let key = node.map_or_else(|| address.clone(), |node| node.to_string());
        let node = node.map_or_else(|| "unknown".to_owned(), |node| node.short());
        self.complain(&key, || warn!(address, node, reason = %error, "refused"));
    }

    // -- what libp2p says -------------------------------------------------------------------------------------------

    async fn happened(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => self.stream(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mdns4(event) | BehaviourEvent::Mdns6(event)) => self.mdns(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                if let Some(cause) = cause {
                    debug!(%cause, "a connection ended");
                }
                self.closed(connection_id).await;
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(under_way) = self.dials.remove(&connection_id) {
                    self.dial_failed(&under_way, &error);
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => match GateError::find(&error) {
                Some(refusal @ GateError::Noise(_)) => debug!(address = %send_back_addr, %refusal, "not let in"),
                Some(refusal) => self.refused(&send_back_addr, refusal),
                None => debug!(address = %send_back_addr, %error, "an incoming connection failed"),
            },
            SwarmEvent::NewListenAddr { address, .. } => {
                let news = from_multiaddr(&address).is_some_and(|at| self.listening.insert(at));
                self.listening_changed |= news;
                self.publish_addresses();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                let news = from_multiaddr(&address).is_some_and(|at| self.listening.remove(&at));
                self.listening_changed |= news;
                self.publish_addresses();
            }
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "a listener has trouble; it goes on"),
            SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                warn!(%error, "a listener ended; peers can no longer reach this node there");
            }
            // Steps on the way to what is handled above; the enum is libp2p's and open.
            _ => {}
        }
    }

    fn mdns(&mut self, event: mdns::Event) {
        let now = Instant::now();
        let nodes = |list: Vec<(PeerId, libp2p::Multiaddr)>| {
            list.into_iter().filter_map(|(peer, at)| Some((node_of(&peer)?, from_multiaddr(&at)?)))
        };
        match event {
            mdns::Event::Discovered(list) => nodes(list).for_each(|(node, at)| self.table.discovered(node, at, now)),
            mdns::Event::Expired(list) => nodes(list).for_each(|(node, at)| self.table.expired(node, at, now)),
        }
    }

    fn dial_failed(&mut self, under_way: &UnderWay, error: &DialError) {
        let mut miss = Miss::Unreachable;
        match error {
            DialError::LocalPeerId { .. } => {
                if let UnderWay::Bare(target) = under_way {
                    info!(?target, "a peer address is this node's own; it is left out");
                    self.table.is_me(target);
                }
            }
            DialError::WrongPeerId { obtained, address } => {
                if let (Some(at), Some(other)) = (from_multiaddr(address), node_of(obtained)) {
                    if let UnderWay::Node(node) = under_way {
                        self.table.not_there(*node, at);
                    }
                    self.table.told(other, at, Instant::now());
                }
            }
            DialError::Transport(attempts) => {
                for (address, error) in attempts {
                    let Some(refusal) = GateError::find(error) else {
                        debug!(%address, ?error, "nobody was reached");
                        continue;
                    };
                    if refusal.is_verdict() {
                        miss = Miss::Stranger;
                    } else if refusal.node().is_some() && miss == Miss::Unreachable {
                        miss = Miss::BrokeOff;
                    }
                    let member = matches!(under_way, UnderWay::Node(node) if self.table.is_member(*node));
                    if refusal.is_verdict() || (refusal.node().is_some() && !member) {
                        self.refused(address, refusal);
                    }
                }
            }
            DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_)
            | DialError::Aborted
            | DialError::Denied { .. } => debug!(%error, "a dial was not made"),
        }
        self.missed(under_way, miss);
    }

    fn established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let at = from_multiaddr(endpoint.get_remote_address()).map(canonical);
        let (Some(node), Some(at)) = (node_of(&peer), at) else {
            self.swarm.close_connection(id);
            return;
        };
        let dialled = endpoint.is_dialer();
        if let Some(UnderWay::Bare(target)) = self.dials.remove(&id) {
            self.table.is_node(&target, node, now);
        }
        // The dialler drops what it does not need before it says Hello, so the other side never counts on it.
        let needless = self.members.get(&node).is_some_and(|member| member.kept.is_some())
            || self.connections_of(node).any(|(_, other)| other.dialled);
        if dialled && needless {
            if self.members.contains_key(&node) {
                self.table.connected(node, at);
            }
            self.swarm.close_connection(id);
            return;
        }
        let stage = Stage::Opening(Arriving::default());
        self.connections.insert(id, Connection { node, dialled, at, since: now, stage });
    }

    fn stream(&mut self, StreamEvent { connection: id, event }: StreamEvent) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match event {
            HandlerEvent::Opened { purpose, by, stream } => {
                let Stage::Opening(arriving) = &mut connection.stage else { return };
                if let Some(streams) = arriving.add(purpose, by, stream) {
                    connection.stage = Stage::Greeting;
                    let (hello, driver, stop) = (self.hello, self.to_driver.clone(), self.world.stop.clone());
                    self.links.spawn(async move {
                        let greeting = tokio::select! {
                            () = stop.cancelled() => return,
                            greeting = tokio::time::timeout(GREETING_LIMIT, link::greet(streams, hello)) => greeting,
                        };
                        let greeting =
                            greeting.unwrap_or_else(|_| Err(GreetingError::Io(io::ErrorKind::TimedOut.into())));
                        let _ = driver.send(FromLink::Greeted { connection: id, greeting }).await;
                    });
                }
            }
            HandlerEvent::Failed { purpose, why } => {
                let (node, at) = (connection.node, connection.at);
                debug!(peer = %node.short(), address = %at, ?purpose, why, "a stream did not open; the connection is dropped");
                self.drop_connection(id);
            }
        }
    }

    async fn closed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        match &connection.stage {
            // Its tasks end now, and then say so.
            Stage::Link(link) => link.stop.cancel(),
            Stage::Opening(_) | Stage::Greeting => {
                let (node, dialled) = (connection.node, connection.dialled);
                self.connections.remove(&id);
                if dialled {
                    self.missed(&UnderWay::Node(node), Miss::Unreachable);
                }
                self.settle(node).await;
            }
        }
    }

    // -- time passes ------------------------------------------------------------------------------------------------

    async fn tick(&mut self) {
        let now = Instant::now();
        let late = self.connections.iter().filter(|(_, connection)| match &connection.stage {
            Stage::Opening(_) | Stage::Greeting => now.duration_since(connection.since) > GREETING_LIMIT,
            Stage::Link(link) => link.close_at.is_some_and(|at| at <= now) && !link.stop.is_cancelled(),
        });
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.drop_connection(id));
        if std::mem::take(&mut self.members_changed) {
            self.publish_members();
        }
        if std::mem::take(&mut self.listening_changed) {
            let addresses = lock(&self.world.shared).addresses.clone();
            self.emit(NetEvent::Listening { addresses }).await;
        }
    }

    fn publish_members(&self) {
        let text = |list: Vec<SocketAddr>| list.iter().map(SocketAddr::to_string).collect();
        let members = self.table.members().map(|(node, list)| (node, text(list))).collect();
        lock(&self.world.shared).members = members;
    }

    /// Real networks first; this machine's own only where there is nothing else.
    fn publish_addresses(&self) {
        let mut addresses: Vec<_> = self.listening.iter().collect();
        addresses.sort_by_key(|at| (at.ip().is_loopback(), rank(at.ip())));
        if addresses.iter().any(|at| !at.ip().is_loopback()) {
            addresses.retain(|at| !at.ip().is_loopback());
        }
        lock(&self.world.shared).addresses = addresses.into_iter().map(SocketAddr::to_string).collect();
    }
}

fn behaviour(me: PeerId, look: bool) -> Behaviour {
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_established_per_peer(Some(MAX_PER_NODE));
    let mdns = |enable_ipv6| {
        let config = mdns::Config { ttl: MDNS_HOLDS, query_interval: MDNS_EVERY, enable_ipv6 };
        let behaviour = look.then(|| mdns::tokio::Behaviour::new(config, me));
        let behaviour = behaviour.transpose().unwrap_or_else(|error| {
            warn!(%error, ipv6 = enable_ipv6, "peers cannot be looked for by multicast; name one with --peer");
            None
        });
        Toggle::from(behaviour)
    };
    Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        streams: streams::Behaviour::default(),
        mdns4: mdns(false),
        mdns6: mdns(true),
    }
}
