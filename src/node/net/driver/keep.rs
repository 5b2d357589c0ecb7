//! Greetings, and which link of a node is kept.
//!
//! The loop is told that a node is there when its first connection is greeted, and that it is away when its last one
//! has ended, however many come and go between; only a new boot id makes it go and come at once.

#![allow(clippy::disallowed_methods, reason = "deadlines of an adapter; what the farm decides by is the loop's clock")]

use super::super::address::{canonical, is_private_to_machine};
use super::super::link::{self, FromLink, GreetingError, Hello, Members, Streams, Surroundings};
use super::super::peers::{Contender, Miss, replaces};
use super::super::{NetEvent, lock};
use super::{Connection, Driver, LINGER, Link, Member, Stage, UnderWay};
use crate::farm::id::{BootId, NodeId};
use libp2p::swarm::ConnectionId;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;
use tracing::{debug, info, warn};

impl Driver {
    pub(super) async fn hear(&mut self, from: FromLink) {
        match from {
            FromLink::Greeted { connection, greeting } => match greeting {
                Ok((hello, streams)) => self.greeted(connection, hello, streams).await,
                Err(error) => self.not_greeted(connection, &error),
            },
            FromLink::Members { from, members } => self.told(from, members),
            FromLink::Ended { connection: id, outcome } => {
                let Some(connection) = self.connections.remove(&id) else { return };
                let Connection { node, at, .. } = connection;
                if let Err(error) = outcome {
                    if error.kind() == io::ErrorKind::InvalidData {
                        self.complain(&node.to_string(), || {
                            warn!(peer = %node.short(), address = %at, %error, "a peer broke the protocol; its connection is dropped");
                        });
                    } else {
                        debug!(peer = %node.short(), address = %at, %error, "a link ended");
                    }
                }
                self.swarm.close_connection(id);
                self.settle(node).await;
            }
        }
    }

    fn not_greeted(&mut self, id: ConnectionId, error: &GreetingError) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (node, at, dialled) = (connection.node, connection.at, connection.dialled);
        let miss = match error {
            GreetingError::OtherVersion(_) => {
                self.complain(&node.to_string(), || {
                    warn!(peer = %node.short(), address = %at, reason = %error, "refused");
                });
                Miss::Stranger
            }
            GreetingError::NotHello | GreetingError::Io(_) => {
                debug!(peer = %node.short(), address = %at, %error, "no greeting");
                Miss::BrokeOff
            }
        };
        if dialled {
            self.missed(&UnderWay::Node(node), miss);
        }
        self.swarm.close_connection(id);
    }

    async fn greeted(&mut self, id: ConnectionId, hello: Hello, streams: Box<Streams>) {
        let now = Instant::now();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let node = connection.node;
        let at = if connection.dialled { connection.at } else { with_port(connection.at, hello.port) };
        let (queues, outlets) = link::queues();
        let stop = self.world.stop.child_token();
        let new = Link { boot: hello.boot, queues, stop: stop.clone(), close_at: Some(now + LINGER) };
        connection.stage = Stage::Link(new);
        self.table.connected(node, at);
        self.publish_members();
        let member = self.members.get(&node);
        let known = member.is_some_and(|member| member.boot == hello.boot);
        if !known {
            if member.is_some() {
                self.forget(node, hello.boot).await;
            }
            self.members.insert(node, Member { boot: hello.boot, kept: None });
        }
        if self.should_keep(node, id) {
            self.keep(node, id);
        }
        if !known {
            info!(peer = %node.short(), address = %at, "connected");
            self.emit(NetEvent::Connected { node, boot: hello.boot, address: at.to_string() }).await;
        }
        // Only now, so that no frame is told before its node is.
        self.links.spawn(link::run(
            streams,
            outlets,
            Surroundings {
                node,
                connection: id,
                source: self.world.source.clone(),
                sink: self.world.sink.clone(),
                disk: self.disk.clone(),
                events: self.world.events.clone(),
                driver: self.to_driver.clone(),
                stop,
                closing: self.world.stop.clone(),
            },
        ));
        if !known {
            self.introduce(node);
        }
    }

    fn should_keep(&self, node: NodeId, new: ConnectionId) -> bool {
        let contender = |id| {
            let connection = self.connections.get(&id)?;
            let dialler = if connection.dialled { self.me } else { node };
            Some(Contender { dialler, since: connection.since })
        };
        let kept = self.members.get(&node).and_then(|member| member.kept);
        match (kept.and_then(contender), contender(new)) {
            (Some(kept), Some(new)) => replaces(kept, new),
            (_, new) => new.is_some(),
        }
    }

    /// From now on frames and requests for `node` go out on `id`.
    fn keep(&mut self, node: NodeId, id: ConnectionId) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let before = member.kept.replace(id);
        if let Some(before) = before.filter(|before| *before != id)
            && let Some(Connection { stage: Stage::Link(link), .. }) = self.connections.get_mut(&before)
        {
            link.close_at = Some(Instant::now() + LINGER);
        }
        if let Some(Connection { stage: Stage::Link(link), .. }) = self.connections.get_mut(&id) {
            link.close_at = None;
            lock(&self.world.shared).links.insert(node, link.queues.clone());
        }
    }

    /// After a connection of `node` is gone: goes on with another one, or tells that it is away.
    pub(super) async fn settle(&mut self, node: NodeId) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let boot = member.boot;
        if member.kept.is_some_and(|kept| self.connections.contains_key(&kept)) {
            return;
        }
        member.kept = None;
        lock(&self.world.shared).links.remove(&node);
        let spare = self.connections_of(node).find(|(_, connection)| match &connection.stage {
            Stage::Link(link) => link.boot == boot && !link.stop.is_cancelled(),
            Stage::Opening(_) | Stage::Greeting => false,
        });
        if let Some(spare) = spare.map(|(id, _)| *id) {
            self.keep(node, spare);
            return;
        }
        let coming = self.connections_of(node).any(|(_, other)| !matches!(other.stage, Stage::Link(_)));
        if !coming {
            self.forget(node, boot).await;
            self.table.disconnected(node, Instant::now(), rand::random());
        }
    }

    /// `node`, as it was, is gone: links of other runs than `boot` end and the loop is told.
    async fn forget(&mut self, node: NodeId, boot: BootId) {
        for connection in self.connections.values().filter(|connection| connection.node == node) {
            if let Stage::Link(link) = &connection.stage
                && link.boot != boot
            {
                link.stop.cancel();
            }
        }
        lock(&self.world.shared).links.remove(&node);
        self.members.remove(&node);
        info!(peer = %node.short(), "disconnected");
        self.emit(NetEvent::Disconnected { node }).await;
    }

    /// Tells a new member of the others, and the others of it.
    fn introduce(&self, new: NodeId) {
        let others = || self.members.keys().copied().filter(|node| *node != new);
        let known: Members = others().map(|node| (node, self.worth_telling(node, new))).collect();
        for known in known.chunks(link::MAX_TOLD) {
            self.tell(new, known.to_vec());
        }
        for other in others() {
            self.tell(other, vec![(new, self.worth_telling(new, other))]);
        }
    }

    fn tell(&self, to: NodeId, mut members: Members) {
        members.retain(|(_, addresses)| !addresses.is_empty());
        if let Some(queues) = lock(&self.world.shared).links.get(&to) {
            queues.tell_of(&members);
        }
    }

    /// Addresses of `node` that may mean something to `to`.
    fn worth_telling(&self, node: NodeId, to: NodeId) -> Vec<SocketAddr> {
        let same_machine = self.is_on_this_machine(to);
        let mut addresses = self.table.addresses(node);
        addresses.retain(|at| same_machine || !is_private_to_machine(at.ip()));
        addresses.truncate(link::MAX_TOLD_ADDRESSES);
        addresses
    }

    fn is_on_this_machine(&self, node: NodeId) -> bool {
        self.connections_of(node).any(|(_, connection)| is_private_to_machine(connection.at.ip()))
    }

    fn told(&mut self, from: NodeId, members: Members) {
        let same_machine = self.is_on_this_machine(from);
        for (node, addresses) in members {
            for at in addresses.into_iter().map(canonical).filter(|at| at.port() != 0 && !at.ip().is_multicast()) {
                if same_machine || !is_private_to_machine(at.ip()) {
                    self.table.told(node, at, Instant::now());
                }
            }
        }
        self.members_changed = true;
    }
}

fn with_port(mut at: SocketAddr, port: u16) -> SocketAddr {
    at.set_port(port);
    at
}
