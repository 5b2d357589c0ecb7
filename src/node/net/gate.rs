//! The gate: proof of membership before a multiplexer exists.
//!
//! Noise has just proven who the other side is; the gate makes it prove that it knows the swarm key. A stranger who
//! fails sees nothing behind it, not even which protocols there are. The proof covers both proven identities, a fresh
//! nonce of each side and the prover's role, so it can be neither relayed (the identities differ) nor reflected (the
//! role differs) nor replayed (the nonces differ). The key itself never travels.
//!
//! ```text
//! dialer                                  listener
//!   nonce (32)            ──►  ◄──          nonce (32)
//!   proof as dialer (32)  ──►               checks it
//!                              ◄──          verdict (1), and if accepted: proof as listener (32)
//!   ack (1)               ──►               open
//! ```

use crate::farm::id::NodeId;
use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use std::error::Error;
use std::io;
use std::time::Duration;

/// Longest the exchange may take (DESIGN §5).
pub(super) const GATE_LIMIT: Duration = Duration::from_secs(5);
/// Most bytes either side reads before the gate is open (DESIGN §5).
pub(super) const GATE_MAX_BYTES: usize = 256;
const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;
const ACCEPTED: u8 = 1;
const REFUSED: u8 = 0;
const _: () = assert!(NONCE_BYTES + PROOF_BYTES + 2 <= GATE_MAX_BYTES);

/// What separates the gate's use of the swarm key from every other use of it.
const DOMAIN: &str = "swarm gate v1";

/// Which end of the connection proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Dialer,
    Listener,
}

/// Both identities and both nonces of one connection.
#[derive(Clone, Copy)]
struct Exchange {
    dialer: NodeId,
    listener: NodeId,
    dialer_nonce: [u8; NONCE_BYTES],
    listener_nonce: [u8; NONCE_BYTES],
}

/// The swarm key, derived for this use alone.
#[derive(Clone)]
pub(super) struct GateKey([u8; 32]);

impl GateKey {
    pub(super) fn new(swarm_key: &[u8; 32]) -> Self {
        Self(blake3::derive_key(DOMAIN, swarm_key))
    }

    /// The proof that `role` knows the key in this exchange.
    fn proof(&self, exchange: &Exchange, role: Role) -> blake3::Hash {
        let (prover, verifier, role) = match role {
            Role::Dialer => (exchange.dialer, exchange.listener, 0),
            Role::Listener => (exchange.listener, exchange.dialer, 1),
        };
        let mut input = [0; 32 + 32 + 2 * NONCE_BYTES + 1];
        input[..32].copy_from_slice(&prover.0);
        input[32..64].copy_from_slice(&verifier.0);
        input[64..96].copy_from_slice(&exchange.dialer_nonce);
        input[96..128].copy_from_slice(&exchange.listener_nonce);
        input[128] = role;
        blake3::keyed_hash(&self.0, &input)
    }

    /// Whether `proof` is the one `role` would give; takes as long for a near miss as for any other.
    fn accepts(&self, exchange: &Exchange, role: Role, proof: [u8; PROOF_BYTES]) -> bool {
        self.proof(exchange, role) == blake3::Hash::from_bytes(proof)
    }
}

/// Why a connection did not get through.
#[derive(Debug, thiserror::Error)]
pub(super) enum GateError {
    /// Not even encrypted.
    #[error("no encrypted connection came about")]
    Noise(#[source] Box<dyn Error + Send + Sync>),
    /// An identity that is not an Ed25519 key.
    #[error("its identity {0} is not an Ed25519 key, so it is no swarm node")]
    ForeignKey(PeerId),
    /// It could not prove the key.
    #[error("it belongs to another swarm: it did not prove our swarm key")]
    NotAMember(NodeId),
    /// It would not have us.
    #[error("it belongs to another swarm: it did not accept our swarm key")]
    RefusedUs(NodeId),
    /// The exchange broke off.
    #[error("it broke off before proving our swarm key; it may be another program")]
    BrokeOff {
        node: NodeId,
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("it did not prove our swarm key within {limit} s; it may be another program", limit = GATE_LIMIT.as_secs())]
    TooSlow(NodeId),
}

impl GateError {
    /// Who it was, if that was proven; the bytes of a foreign key are shown in the text.
    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Self::Noise(_) | Self::ForeignKey(_) => None,
            Self::NotAMember(node) | Self::RefusedUs(node) | Self::TooSlow(node) => Some(*node),
            Self::BrokeOff { node, .. } => Some(*node),
        }
    }

    /// Whether a swarm key was shown to be wrong, rather than the exchange being disturbed.
    pub(super) fn is_verdict(&self) -> bool {
        match self {
            Self::ForeignKey(_) | Self::NotAMember(_) | Self::RefusedUs(_) => true,
            Self::Noise(_) | Self::BrokeOff { .. } | Self::TooSlow(_) => false,
        }
    }

    /// The gate's own error inside whatever the transport wrapped around it.
    pub(super) fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // An io::Error hides what it carries from `source`.
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

/// The node a peer id stands for: a peer id of an Ed25519 key holds the key itself.
pub(super) fn node_of(peer: &PeerId) -> Option<NodeId> {
    /// Identity multihash of a protobuf: key type 1 (Ed25519), 32 bytes.
    const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    let bytes = peer.to_bytes();
    bytes.strip_prefix(&PREFIX).and_then(|key| key.try_into().ok()).map(NodeId)
}

/// The peer id of a node; none if its bytes are no curve point, so nobody can be it.
pub(super) fn peer_of(node: NodeId) -> Option<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

/// A security upgrade with the gate behind it.
#[derive(Clone)]
pub(super) struct Gated<U> {
    inner: U,
    key: GateKey,
    me: NodeId,
}

impl<U> Gated<U> {
    pub(super) fn new(inner: U, key: GateKey, me: NodeId) -> Self {
        Self { inner, key, me }
    }
}

impl<U: UpgradeInfo> UpgradeInfo for Gated<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.inner.protocol_info()
    }
}

impl<T, U, S> InboundConnectionUpgrade<T> for Gated<U>
where
    U: InboundConnectionUpgrade<T, Output = (PeerId, S)>,
    U::Future: Send + 'static,
    U::Error: Error + Send + Sync + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, S);
    type Error = GateError;
    type Future = BoxFuture<'static, Result<Self::Output, GateError>>;

    fn upgrade_inbound(self, socket: T, info: Self::Info) -> Self::Future {
        Box::pin(pass(self.inner.upgrade_inbound(socket, info), self.key, self.me, Role::Listener))
    }
}

impl<T, U, S> OutboundConnectionUpgrade<T> for Gated<U>
where
    U: OutboundConnectionUpgrade<T, Output = (PeerId, S)>,
    U::Future: Send + 'static,
    U::Error: Error + Send + Sync + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, S);
    type Error = GateError;
    type Future = BoxFuture<'static, Result<Self::Output, GateError>>;

    fn upgrade_outbound(self, socket: T, info: Self::Info) -> Self::Future {
        Box::pin(pass(self.inner.upgrade_outbound(socket, info), self.key, self.me, Role::Dialer))
    }
}

/// Waits for the inner upgrade, then holds the exchange as `role`.
async fn pass<S, E>(
    inner: impl Future<Output = Result<(PeerId, S), E>>,
    key: GateKey,
    me: NodeId,
    role: Role,
) -> Result<(PeerId, S), GateError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Error + Send + Sync + 'static,
{
    let (peer, mut stream) = inner.await.map_err(|error| GateError::Noise(Box::new(error)))?;
    let them = node_of(&peer).ok_or(GateError::ForeignKey(peer))?;
    let nonce = rand::random();
    let outcome = match role {
        Role::Dialer => tokio::time::timeout(GATE_LIMIT, as_dialer(&mut stream, &key, me, them, nonce)).await,
        Role::Listener => tokio::time::timeout(GATE_LIMIT, as_listener(&mut stream, &key, me, them, nonce)).await,
    };
    match outcome {
        Err(_) => Err(GateError::TooSlow(them)),
        Ok(Err(source)) => Err(GateError::BrokeOff { node: them, source }),
        Ok(Ok(Verdict::Open)) => Ok((peer, stream)),
        Ok(Ok(Verdict::NotAMember)) => Err(GateError::NotAMember(them)),
        Ok(Ok(Verdict::RefusedUs)) => Err(GateError::RefusedUs(them)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    NotAMember,
    RefusedUs,
}

async fn as_dialer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &GateKey,
    me: NodeId,
    them: NodeId,
    dialer_nonce: [u8; NONCE_BYTES],
) -> io::Result<Verdict> {
    stream.write_all(&dialer_nonce).await?;
    stream.flush().await?;
    let listener_nonce = read(stream).await?;
    let exchange = Exchange { dialer: me, listener: them, dialer_nonce, listener_nonce };
    stream.write_all(key.proof(&exchange, Role::Dialer).as_bytes()).await?;
    stream.flush().await?;
    if read::<1, _>(stream).await? != [ACCEPTED] {
        return Ok(Verdict::RefusedUs);
    }
    if !key.accepts(&exchange, Role::Listener, read(stream).await?) {
        return Ok(Verdict::NotAMember);
    }
    stream.write_all(&[ACCEPTED]).await?;
    stream.flush().await?;
    Ok(Verdict::Open)
}

async fn as_listener<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &GateKey,
    me: NodeId,
    them: NodeId,
    listener_nonce: [u8; NONCE_BYTES],
) -> io::Result<Verdict> {
    stream.write_all(&listener_nonce).await?;
    stream.flush().await?;
    let dialer_nonce = read(stream).await?;
    let exchange = Exchange { dialer: them, listener: me, dialer_nonce, listener_nonce };
    if !key.accepts(&exchange, Role::Dialer, read(stream).await?) {
        // Told so that an honest dialer can tell a wrong key from a broken wire; it learns nothing else.
        stream.write_all(&[REFUSED]).await?;
        stream.close().await?;
        return Ok(Verdict::NotAMember);
    }
    stream.write_all(&[ACCEPTED]).await?;
    stream.write_all(key.proof(&exchange, Role::Listener).as_bytes()).await?;
    stream.flush().await?;
    match read(stream).await? {
        [ACCEPTED] => Ok(Verdict::Open),
        _ => Ok(Verdict::RefusedUs),
    }
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    fn exchange() -> Exchange {
        Exchange { dialer: NodeId([1; 32]), listener: NodeId([2; 32]), dialer_nonce: [3; 32], listener_nonce: [4; 32] }
    }

    #[test]
    fn a_proof_holds_for_one_key_one_exchange_and_one_role_alone() {
        let (key, exchange) = (GateKey::new(&[7; 32]), exchange());
        let proof = *key.proof(&exchange, Role::Dialer).as_bytes();
        assert!(key.accepts(&exchange, Role::Dialer, proof));
        assert!(!GateKey::new(&[8; 32]).accepts(&exchange, Role::Dialer, proof), "another swarm's key");
        assert!(!key.accepts(&exchange, Role::Listener, proof), "reflected");
        for relayed in [
            Exchange { dialer: NodeId([9; 32]), ..exchange },
            Exchange { listener: NodeId([9; 32]), ..exchange },
            Exchange { dialer_nonce: [9; 32], ..exchange },
            Exchange { listener_nonce: [9; 32], ..exchange },
        ] {
            assert!(!key.accepts(&relayed, Role::Dialer, proof), "relayed or replayed");
        }
    }

    /// Both ends over a pipe, each believing the other to be who it is told.
    async fn meet(keys: [u8; 2], believed: [NodeId; 4]) -> (io::Result<Verdict>, io::Result<Verdict>) {
        let (a, b) = tokio::io::duplex(GATE_MAX_BYTES);
        let [dialer_is, dialer_sees, listener_is, listener_sees] = believed;
        tokio::join!(
            async {
                let key = GateKey::new(&[keys[0]; 32]);
                as_dialer(&mut a.compat(), &key, dialer_is, dialer_sees, [3; 32]).await
            },
            async {
                let key = GateKey::new(&[keys[1]; 32]);
                as_listener(&mut b.compat(), &key, listener_is, listener_sees, [4; 32]).await
            }
        )
    }

    #[tokio::test]
    async fn members_meet_strangers_are_told_apart_and_a_relayed_exchange_fails() {
        let (a, b, middle) = (NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32]));
        let (dialer, listener) = meet([7, 7], [a, b, b, a]).await;
        assert_eq!((dialer.unwrap(), listener.unwrap()), (Verdict::Open, Verdict::Open));
        let (dialer, listener) = meet([7, 8], [a, b, b, a]).await;
        assert_eq!((dialer.unwrap(), listener.unwrap()), (Verdict::RefusedUs, Verdict::NotAMember));
        // Somebody between two members passes their bytes on: Noise shows each of them the middle.
        let (dialer, listener) = meet([7, 7], [a, middle, b, middle]).await;
        assert_eq!((dialer.unwrap(), listener.unwrap()), (Verdict::RefusedUs, Verdict::NotAMember));
    }

    #[test]
    fn a_peer_id_and_a_node_are_two_forms_of_one_key() {
        let keypair = libp2p::identity::Keypair::ed25519_from_bytes([5; 32]).unwrap();
        let peer = keypair.public().to_peer_id();
        let node = node_of(&peer).unwrap();
        assert_eq!(peer_of(node), Some(peer));
        assert_eq!(keypair.public().try_into_ed25519().unwrap().to_bytes(), node.0);
    }

    #[test]
    fn nothing_but_the_right_proof_opens_the_gate_and_nothing_breaks_it() {
        let key = GateKey::new(&[7; 32]);
        let Exchange { dialer, listener, dialer_nonce, listener_nonce } = exchange();
        let proof = |role| *key.proof(&exchange(), role).as_bytes();
        let dials = [&dialer_nonce, &proof(Role::Dialer), &[ACCEPTED][..]].concat();
        let listens = [&listener_nonce, &[ACCEPTED][..], &proof(Role::Listener)].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        crate::fuzz::fuzz("gate", crate::fuzz::ROUNDS, vec![dials.clone(), listens.clone()], |bytes| {
            let stream = || tokio::io::join(bytes, tokio::io::sink()).compat();
            let heard = runtime.block_on(as_listener(&mut stream(), &key, listener, dialer, listener_nonce));
            let told = runtime.block_on(as_dialer(&mut stream(), &key, dialer, listener, dialer_nonce));
            assert!(!matches!(heard, Ok(Verdict::Open)) || bytes.starts_with(&dials));
            assert!(!matches!(told, Ok(Verdict::Open)) || bytes.starts_with(&listens));
            (heard.map_err(|error| error.kind()), told.map_err(|error| error.kind()))
        });
    }
}
