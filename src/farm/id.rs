//! Names of things: nodes, actors, jobs, units, blobs and chunks.
//!
//! Each is a newtype, so that a job can never be passed where a blob is meant. All order and print the same everywhere,
//! which is what ties between machines are broken with.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: {bytes} bytes in hexadecimal are wanted")]
pub struct BadId {
    text: String,
    bytes: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        // As the bytes order; the first eight nearly always decide, and comparing those as one number calls nothing.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                let first = |id: &Self| id.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
                first(self).cmp(&first(other)).then_with(|| self.0[8..].cmp(&other.0[8..]))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl $name {
            /// The first eight hexadecimal digits: enough for people.
            pub fn short(&self) -> String {
                self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { text: text.chars().take(80).collect(), bytes: $len };
                if text.len() != 2 * $len || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(bad());
                }
                let mut bytes = [0; $len];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

byte_id!(
    /// A machine: the Ed25519 public key its daemon proves on every connection.
    NodeId, 32
);
byte_id!(
    /// One start of a daemon: how many starts of its node are known to have come before, three bytes, then five drawn at
    /// random. Later starts of a node order after earlier ones, without any clock; see [`BootId::next`].
    BootId, 8
);
byte_id!(
    /// A job: a keyed hash of the actor, sequence number and spec of its `Submit`.
    JobId, 16
);
byte_id!(
    /// A blob: the hash of its [`BlobMap`](super::blob::BlobMap), so that a map can be checked the moment it arrives.
    BlobId, 32
);
byte_id!(
    /// A chunk: the BLAKE3 hash of its bytes.
    ChunkId, 32
);

impl BootId {
    /// The id of a start of a node whose earlier starts left `earlier` in its ledger. All that one of them said of a job
    /// is there, since own ops are durable before they are told; so whatever they said, this start comes later. Only a
    /// ledger put back from a backup has forgotten starts: then the random part keeps the ids apart, as it does on a
    /// cloned disk, and who of the two has the last word is arbitrary.
    pub fn next(earlier: impl Iterator<Item = Self>, random: [u8; 8]) -> Self {
        let count = |boot: Self| u32::from_be_bytes([0, boot.0[0], boot.0[1], boot.0[2]]);
        let [_, high, mid, low] = earlier.map(count).max().unwrap_or(0).saturating_add(1).min(0xff_ffff).to_be_bytes();
        let mut id = random;
        id[..3].copy_from_slice(&[high, mid, low]);
        Self(id)
    }
}

/// One run of one node: the only writer of its logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorId {
    /// The machine.
    pub node: NodeId,
    /// Which start of it.
    pub boot: BootId,
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node.short(), self.boot.short())
    }
}

/// What of a frame a unit renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// The whole frame.
    Whole,
    /// A tile: column and row in a grid of `of` × `of`.
    Tile {
        /// Column, from the left.
        x: u16,
        /// Row, from the bottom.
        y: u16,
        /// Tiles per side.
        of: u16,
    },
    /// Samples `first .. first + count`.
    Samples {
        /// First sample.
        first: u32,
        /// How many.
        count: u32,
    },
}

/// The smallest thing a node renders: a frame, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unit {
    /// Frame number in the scene.
    pub frame: i32,
    /// Which part of it.
    pub part: Part,
}

impl Unit {
    /// The unit that is the whole of `frame`.
    pub fn whole(frame: i32) -> Self {
        Self { frame, part: Part::Whole }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Whole => write!(f, "{}", self.frame),
            Part::Tile { x, y, of } => write!(f, "{} tile {x},{y} of {of}x{of}", self.frame),
            Part::Samples { first, count } => write!(f, "{} samples {first}+{count}", self.frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_order_as_their_bytes_do() {
        let mut bytes: [[u8; 32]; 64] = std::array::from_fn(|i| [i as u8 / 16; 32]);
        for (i, id) in bytes.iter_mut().enumerate() {
            // They part early, in the last of the first eight bytes, right after those, or at the end.
            id[[0, 7, 8, 31][i % 4]] = (i / 4 * 77) as u8;
        }
        for (a, b) in bytes.iter().flat_map(|a| bytes.iter().map(move |b| (a, b))) {
            assert_eq!(NodeId(*a).cmp(&NodeId(*b)), a.cmp(b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_later_start_orders_after_every_earlier_one_whatever_is_drawn() {
        let first = BootId::next([].into_iter(), [0xff; 8]);
        let second = BootId::next([first].into_iter(), [0; 8]);
        let many = BootId([0, 1, 0xff, 9, 9, 9, 9, 9]);
        let third = BootId::next([many, first, second].into_iter(), [0; 8]);
        assert!(first < second && second < third && many < third);
        assert_eq!(third.0[..3], [0, 2, 0]);
        assert_ne!(BootId::next([first].into_iter(), [7; 8]), second, "a copy of the disk draws another");
    }

    #[test]
    fn an_id_survives_its_text_form_and_nothing_else_is_an_id() {
        let id = JobId(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        for bad in ["", "00", "zz", "é", &"g0".repeat(16), &"00".repeat(17), &"é".repeat(16)] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}
