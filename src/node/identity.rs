//! Who this machine is and which swarm it belongs to: keys, invite codes, and what is remembered of other members.
//!
//! An invite code carries the swarm key itself, so whoever reads one can join; it says so when it is printed. The node
//! key stays in the store. If the store turns up on another machine (a cloned disk, a restored backup), the node makes
//! itself a new key, so that no two machines ever write as one.

use super::net::{BadAddress, check_address};
use super::store::{Store, StoreError};
use crate::farm::id::NodeId;
use crate::farm::message::Capability;
use crate::seal::Sealer;
use crate::wire;
use data_encoding::BASE32_NOPAD;
use std::collections::BTreeMap;

/// What every code begins with: its format, too.
const CODE_PREFIX: &str = "swarm1-";
/// Bytes of the checksum in a code: one mistyped letter in four thousand million goes unnoticed.
const CHECKSUM_BYTES: usize = 4;
/// Most addresses in a code: it has to be typed now and then.
const CODE_ADDRESSES: usize = 3;
/// Longest code that is read, letters.
const CODE_MAX_CHARS: usize = 1024;
/// Most members remembered from run to run.
const MEMBERS_MAX: usize = 1024;

/// Settings' keys in the store.
mod key {
    pub const NODE: &str = "node/seed";
    pub const MACHINE: &str = "node/machine";
    pub const SWARM: &str = "swarm/key";
    pub const PEERS: &str = "swarm/peers";
    pub const INVITERS: &str = "swarm/inviters";
    pub const MEMBERS: &str = "swarm/members";
    pub const PAUSED: &str = "node/paused";
}

/// Keys of this machine.
#[derive(Clone)]
pub struct Identity {
    /// Seed of the Ed25519 key that is this node.
    pub seed: [u8; 32],
    /// What members of the swarm know.
    pub swarm_key: [u8; 32],
    /// The node.
    pub node: NodeId,
}

/// Why a text is not an invite code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCode {
    /// It does not begin like one.
    #[error("that is not an invite code: one begins with {CODE_PREFIX} and is printed by `swarm invite`")]
    NotACode,
    /// It does, and something is wrong with it.
    #[error("the invite code is mistyped or cut short; copy the whole line that `swarm invite` printed")]
    Mistyped,
    /// It names a member's address that nobody can dial.
    #[error("the invite code cannot be used: {0}; ask for a new one")]
    Address(#[source] BadAddress),
}

/// What an invite code says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The swarm's key.
    pub swarm_key: [u8; 32],
    /// Where a member answers, `ip:port`; each is one that can be dialled.
    pub addresses: Vec<String>,
}

impl Invite {
    /// The code, in letters and digits that survive being read aloud.
    pub fn code(&self) -> String {
        let addresses = self.addresses.iter().take(CODE_ADDRESSES).cloned().collect::<Vec<_>>().join(",");
        let mut bytes = self.swarm_key.to_vec();
        bytes.extend(addresses.as_bytes());
        bytes.extend(&blake3::hash(&bytes).as_bytes()[..CHECKSUM_BYTES]);
        format!("{CODE_PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_lowercase())
    }

    /// Reads a code; spaces and line breaks do not matter.
    pub fn parse(text: &str) -> Result<Self, BadCode> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).take(CODE_MAX_CHARS).collect();
        let text = text.to_ascii_lowercase();
        let rest = text.strip_prefix(CODE_PREFIX).ok_or(BadCode::NotACode)?;
        let bytes = BASE32_NOPAD.decode(rest.to_ascii_uppercase().as_bytes()).map_err(|_| BadCode::Mistyped)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(BadCode::Mistyped)?;
        if blake3::hash(body).as_bytes()[..CHECKSUM_BYTES] != checksum[..] {
            return Err(BadCode::Mistyped);
        }
        let (swarm_key, addresses) = body.split_first_chunk::<32>().ok_or(BadCode::Mistyped)?;
        let addresses = std::str::from_utf8(addresses).map_err(|_| BadCode::Mistyped)?;
        let addresses = addresses.split(',').filter(|address| !address.is_empty());
        let checked = addresses.map(|address| check_address(address).map(|()| address.to_owned()));
        let addresses = checked.collect::<Result<_, _>>().map_err(BadCode::Address)?;
        Ok(Self { swarm_key: *swarm_key, addresses })
    }
}

/// The identity in the store; made at the first start, and anew when the machine is another one.
pub fn load(store: &Store, machine_id: Option<&str>) -> Result<Identity, StoreError> {
    let known = store.setting(key::MACHINE)?;
    let moved = match (&known, machine_id) {
        (Some(known), Some(now)) => known != now.as_bytes(),
        _ => false,
    };
    if moved {
        tracing::warn!("this data directory comes from another machine; the node gets a new key");
    }
    let seed = match secret(store, key::NODE)? {
        Some(seed) if !moved => seed,
        _ => {
            let seed: [u8; 32] = rand::random();
            store.set_setting(key::NODE, &seed)?;
            seed
        }
    };
    if let Some(machine) = machine_id
        && (known.is_none() || moved)
    {
        store.set_setting(key::MACHINE, machine.as_bytes())?;
    }
    let swarm_key = match secret(store, key::SWARM)? {
        Some(swarm_key) => swarm_key,
        None => {
            let swarm_key: [u8; 32] = rand::random();
            store.set_setting(key::SWARM, &swarm_key)?;
            swarm_key
        }
    };
    Ok(Identity { seed, swarm_key, node: Sealer::from_seed(&seed).node() })
}

fn secret(store: &Store, key: &str) -> Result<Option<[u8; 32]>, StoreError> {
    Ok(store.setting(key)?.and_then(|bytes| bytes.try_into().ok()))
}

/// Makes this machine a member of another swarm from the next start of the network on. The logs of the swarm left
/// behind prove nothing in the new one and go; all of it or nothing is written.
pub fn join(store: &Store, invite: &Invite) -> Result<(), StoreError> {
    let settings = [
        (key::INVITERS, value(&invite.addresses)),
        (key::PEERS, value(&Vec::<(NodeId, Vec<String>)>::new())),
        (key::MEMBERS, value(&BTreeMap::<NodeId, Capability>::new())),
        (key::SWARM, invite.swarm_key.to_vec()),
    ];
    store.begin_anew(settings.map(|(key, value)| (key.to_owned(), value)).into())
}

/// Addresses of whoever invited this machine: dialled at every start. One that cannot be read is left out: what was
/// remembered must not keep a node from starting.
pub fn inviters(store: &Store) -> Result<Vec<String>, StoreError> {
    let mut inviters: Vec<String> = read(store, key::INVITERS)?;
    inviters.retain(|address| {
        let read = check_address(address);
        read.inspect_err(|error| tracing::warn!("an address of whoever invited this machine is left out: {error}"))
            .is_ok()
    });
    Ok(inviters)
}

/// Members met in earlier runs and where they answered.
pub fn peers(store: &Store) -> Result<Vec<(NodeId, Vec<String>)>, StoreError> {
    read(store, key::PEERS)
}

/// Remembers where members answer.
pub fn remember_peers(store: &Store, peers: &[(NodeId, Vec<String>)]) -> Result<(), StoreError> {
    store.set_setting(key::PEERS, &value(&peers.iter().take(MEMBERS_MAX).collect::<Vec<_>>()))
}

/// What members could do when last heard: their Blenders count when a series is chosen.
pub fn members(store: &Store) -> Result<BTreeMap<NodeId, Capability>, StoreError> {
    read(store, key::MEMBERS)
}

/// Remembers what members can do.
pub fn remember_members(store: &Store, members: &BTreeMap<NodeId, Capability>) -> Result<(), StoreError> {
    store.set_setting(key::MEMBERS, &value(&members.iter().take(MEMBERS_MAX).collect::<BTreeMap<_, _>>()))
}

/// Whether the owner paused this machine.
pub fn is_paused(store: &Store) -> Result<bool, StoreError> {
    Ok(store.setting(key::PAUSED)?.is_some_and(|value| value == [1]))
}

/// Remembers whether the owner paused this machine.
pub fn set_paused(store: &Store, paused: bool) -> Result<(), StoreError> {
    store.set_setting(key::PAUSED, &[u8::from(paused)])
}

fn value<T: serde::Serialize>(value: &T) -> Vec<u8> {
    wire::encode_value(value).unwrap_or_default()
}

/// A remembered value; one that an older or newer build wrote differently is forgotten, not an error.
fn read<T: Default + serde::de::DeserializeOwned>(store: &Store, key: &str) -> Result<T, StoreError> {
    Ok(store.setting(key)?.and_then(|bytes| wire::decode_value(&bytes).ok()).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_code_survives_being_copied_and_no_letter_may_change() {
        let invite = Invite { swarm_key: [7; 32], addresses: vec!["10.0.0.1:7337".into(), "[fd00::1]:7337".into()] };
        let code = invite.code();
        assert_eq!(Invite::parse(&code), Ok(invite.clone()));
        assert_eq!(Invite::parse(&format!(" {}\n", code.to_uppercase())), Ok(invite));
        let mistyped = |at: usize| {
            let mut letters: Vec<char> = code.chars().collect();
            letters[at] = if letters[at] == 'a' { 'b' } else { 'a' };
            letters.into_iter().collect::<String>()
        };
        for at in CODE_PREFIX.len()..code.len() {
            assert_eq!(Invite::parse(&mistyped(at)), Err(BadCode::Mistyped), "letter {at}");
        }
        for bad in ["", "hello", "swarm1", "swarm2-abc"] {
            assert_eq!(Invite::parse(bad), Err(BadCode::NotACode), "{bad}");
        }
        for bad in ["swarm1-", "swarm1-a", "swarm1-é", &code[..code.len() - 3]] {
            assert_eq!(Invite::parse(bad), Err(BadCode::Mistyped), "{bad}");
        }
    }

    #[test]
    fn an_address_nobody_can_dial_is_refused_in_a_code_and_left_out_when_remembered() {
        let addresses = |addresses: &[&str]| addresses.iter().map(|address| (*address).to_owned()).collect();
        let bad = Invite { swarm_key: [7; 32], addresses: addresses(&["10.0.0.1:7337", "render.local"]) };
        let refused = Invite::parse(&bad.code()).unwrap_err();
        assert!(refused.to_string().contains("`render.local` is not the address of a peer"), "{refused}");
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        join(&store, &bad).unwrap();
        assert_eq!(inviters(&store).unwrap(), ["10.0.0.1:7337"]);
    }

    #[test]
    fn keys_stay_until_the_machine_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = load(&store, Some("a")).unwrap();
        let again = load(&store, Some("a")).unwrap();
        assert_eq!((first.seed, first.swarm_key), (again.seed, again.swarm_key));
        let moved = load(&store, Some("b")).unwrap();
        assert_ne!(moved.seed, first.seed);
        assert_eq!(moved.swarm_key, first.swarm_key);
        assert_eq!(load(&store, Some("b")).unwrap().seed, moved.seed);
    }

    #[test]
    fn no_text_makes_a_reader_of_invite_codes_panic() {
        let code = Invite { swarm_key: [7; 32], addresses: vec!["10.0.0.1:7337".into()] }.code();
        let seeds = vec![code.into_bytes(), b"swarm1-".to_vec(), "swarm1-\u{e9}".into()];
        crate::fuzz::fuzz("invite", crate::fuzz::ROUNDS, seeds, |bytes| {
            let invite = Invite::parse(&String::from_utf8_lossy(bytes));
            // The checksum stops nearly all: so also what would be behind it.
            let mut sealed = bytes.to_vec();
            sealed.extend(&blake3::hash(bytes).as_bytes()[..CHECKSUM_BYTES]);
            let sealed = format!("{CODE_PREFIX}{}", BASE32_NOPAD.encode(&sealed));
            (invite.map(drop), Invite::parse(&sealed).map(|invite| invite.addresses.len()))
        });
    }
}
