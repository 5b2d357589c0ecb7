//! Proofs: hash chains over logs, signed heads, and the ids made by hashing.
//!
//! Every hash has its own BLAKE3 derive-key domain, so that none can stand for another. The simulator may seal cheaply:
//! such a seal is checked the same way and proves nothing against a liar.

use crate::farm::id::{ActorId, BootId, JobId, NodeId};
use crate::farm::message::{LogId, SignedHead};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// A hash: of a log so far, or of a swarm's key.
pub type Hash = [u8; 32];

fn derive(domain: &str, parts: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The public name of the swarm with this key: what its signatures are bound to.
pub fn swarm_id(swarm_key: &[u8; 32]) -> Hash {
    derive("swarm id v1", &[swarm_key])
}

/// Where the chain of an actor's log begins.
pub fn genesis(swarm: &Hash, log: LogId, actor: ActorId) -> Hash {
    derive("swarm log genesis v1", &[swarm, &log.0, &actor.node.0, &actor.boot.0])
}

/// The chain after one more op.
pub fn chain(before: &Hash, op: &[u8]) -> Hash {
    derive("swarm log chain v1", &[before, op])
}

/// The id of the job whose framed `Submit` is op number `seq` of `actor`'s log.
pub fn job_id(actor: ActorId, seq: u64, submit: &[u8]) -> JobId {
    let hash = derive("swarm job id v1", &[&actor.node.0, &actor.boot.0, &seq.to_le_bytes(), submit]);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    JobId(id)
}

/// What one (log, actor, length, chain) adds to a digest of the ledger. Digests are exclusive ors of these, so that one
/// change costs one hash.
pub fn digest_item(log: LogId, actor: ActorId, length: u64, chain: &Hash) -> Hash {
    derive("swarm ledger digest v1", &[&log.0, &actor.node.0, &actor.boot.0, &length.to_le_bytes(), chain])
}

/// The same for an actor that signed two histories, which begin with the same `at` ops that lead to `chain`.
pub fn fork_item(log: LogId, actor: ActorId, at: u64, chain: &Hash) -> Hash {
    derive("swarm ledger fork v1", &[&log.0, &actor.node.0, &actor.boot.0, &at.to_le_bytes(), chain])
}

/// Signs heads for one node, and checks those of all.
#[derive(Clone)]
pub enum Sealer {
    /// The real one.
    Ed25519(Box<SigningKey>),
    /// For simulations without liars: anyone can forge it, and it costs one hash.
    Cheap(NodeId),
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({:?})", self.node())
    }
}

impl Sealer {
    /// Signs with the Ed25519 key of this seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::Ed25519(Box::new(SigningKey::from_bytes(seed)))
    }

    /// The node it signs for.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Ed25519(key) => NodeId(key.verifying_key().to_bytes()),
            Self::Cheap(node) => *node,
        }
    }

    /// The head of the log of one start of this node.
    pub fn sign(&self, swarm: &Hash, log: LogId, boot: BootId, length: u64, chain: Hash) -> SignedHead {
        let actor = ActorId { node: self.node(), boot };
        let claim = claim(swarm, log, actor, length, &chain);
        let signature = match self {
            Self::Ed25519(key) => {
                let bytes = key.sign(&claim).to_bytes();
                let (mut r, mut s) = ([0; 32], [0; 32]);
                r.copy_from_slice(&bytes[..32]);
                s.copy_from_slice(&bytes[32..]);
                (r, s)
            }
            Self::Cheap(_) => (claim, [0; 32]),
        };
        SignedHead { length, chain, signature }
    }

    /// Whether `actor` signed `head` for `log` of this swarm.
    pub fn verify(&self, swarm: &Hash, log: LogId, actor: ActorId, head: &SignedHead) -> bool {
        let claim = claim(swarm, log, actor, head.length, &head.chain);
        match self {
            Self::Ed25519(_) => {
                let signature = Signature::from_components(head.signature.0, head.signature.1);
                VerifyingKey::from_bytes(&actor.node.0).is_ok_and(|key| key.verify_strict(&claim, &signature).is_ok())
            }
            Self::Cheap(_) => head.signature == (claim, [0; 32]),
        }
    }
}

/// The bytes a head's signature is over: a hash of all it vouches for, in the domain of heads.
fn claim(swarm: &Hash, log: LogId, actor: ActorId, length: u64, chain: &Hash) -> Hash {
    derive("swarm head v1", &[swarm, &log.0, &actor.node.0, &actor.boot.0, &length.to_le_bytes(), chain])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_holds_for_what_was_signed_and_nothing_else() {
        let sealer = Sealer::from_seed(&[7; 32]);
        let (swarm, log, boot) = (swarm_id(&[1; 32]), JobId([2; 16]), BootId([3; 8]));
        let actor = ActorId { node: sealer.node(), boot };
        let head = sealer.sign(&swarm, log, boot, 4, [5; 32]);
        assert!(sealer.verify(&swarm, log, actor, &head));
        assert!(Sealer::from_seed(&[8; 32]).verify(&swarm, log, actor, &head));
        assert!(!sealer.verify(&swarm_id(&[2; 32]), log, actor, &head));
        assert!(!sealer.verify(&swarm, JobId([3; 16]), actor, &head));
        assert!(!sealer.verify(&swarm, log, ActorId { boot: BootId([4; 8]), ..actor }, &head));
        assert!(!sealer.verify(&swarm, log, ActorId { node: NodeId([9; 32]), ..actor }, &head));
        assert!(!sealer.verify(&swarm, log, actor, &SignedHead { length: 5, ..head }));
        assert!(!sealer.verify(&swarm, log, actor, &SignedHead { chain: [6; 32], ..head }));
        assert!(!sealer.verify(&swarm, log, actor, &SignedHead { signature: ([0; 32], [0; 32]), ..head }));
    }
}
