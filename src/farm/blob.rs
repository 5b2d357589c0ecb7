//! What a blob is: a sequence of chunks, and bundles as manifests of blobs.
//!
//! A blob travels and is verified chunk by chunk. Its identity is the hash of its map, so the map is proven first and
//! every chunk on arrival; nothing unproven is ever written under a blob's name.

use super::id::{BlobId, ChunkId};
use serde::{Deserialize, Serialize};

/// Smallest chunk content-defined chunking makes, bytes (the last one of a blob may be shorter).
pub const CHUNK_MIN_BYTES: u32 = 256 * 1024;
/// Aimed-at chunk, bytes: DESIGN §4. Also the size of fixed chunks of compressed data.
pub const CHUNK_AVERAGE_BYTES: u32 = 1024 * 1024;
/// Largest chunk anyone accepts, bytes: the limit of the blob protocol (DESIGN §5).
pub const CHUNK_MAX_BYTES: u32 = 4 * 1024 * 1024;
/// Most chunks in one blob: a blob of 256 GiB at the average size; the map is then about 9 MiB.
pub const BLOB_MAX_CHUNKS: usize = 256 * 1024;
/// Length of one chunk's entry in a map's bytes: its id, its length.
pub const MAP_ENTRY_BYTES: usize = 32 + 4;
/// Most files in one bundle (guess: the largest production scenes have some 100,000 files).
pub const BUNDLE_MAX_FILES: usize = 500_000;

/// One chunk of a blob, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// Hash of its bytes.
    pub id: ChunkId,
    /// Length in bytes, 1 to [`CHUNK_MAX_BYTES`].
    pub bytes: u32,
}

/// A blob, chunk by chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobMap {
    /// Its chunks in order. An empty blob has none.
    pub chunks: Vec<ChunkRef>,
}

impl BlobMap {
    /// The identity of the blob with this map: BLAKE3 of its bytes in a domain of its own.
    pub fn id(&self) -> BlobId {
        BlobId(blake3::derive_key("swarm blob map v1", &self.to_bytes()))
    }

    /// As it travels and is stored: (id, little-endian length) of each chunk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.chunks.len() * MAP_ENTRY_BYTES);
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.id.0);
            bytes.extend_from_slice(&chunk.bytes.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`BlobMap::to_bytes`] wrote; nothing that is not sound, nor anything left over.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<MAP_ENTRY_BYTES>();
        let chunk = |entry: &[u8; MAP_ENTRY_BYTES]| ChunkRef {
            id: ChunkId(std::array::from_fn(|i| entry[i])),
            bytes: u32::from_le_bytes([entry[32], entry[33], entry[34], entry[35]]),
        };
        Some(Self { chunks: entries.iter().map(chunk).collect() }).filter(|map| rest.is_empty() && map.is_sound())
    }

    /// Length of the whole blob in bytes.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
    }

    /// Whether the limits above hold; a map from a peer is dropped when they do not.
    pub fn is_sound(&self) -> bool {
        self.chunks.len() <= BLOB_MAX_CHUNKS
            && self.chunks.iter().all(|chunk| (1..=CHUNK_MAX_BYTES).contains(&chunk.bytes))
    }
}

/// The identity of a chunk with these bytes.
pub fn chunk_id(bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::hash(bytes).as_bytes())
}

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleFile {
    /// Path inside the bundle: `f/<short hash>/<safe name>`, or `f/<short hash>/<folders>/<safe name>` where Blender looks in
    /// folders. Forward slashes, never absolute, never `..`.
    pub path: String,
    /// Whether it is executable.
    pub executable: bool,
    /// Its content.
    pub map: BlobMap,
}

/// A job's input: everything a renderer needs, and which file to open. Stored as a blob itself (through `wire`), whose
/// id is the identity of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Path of the .blend to open, one of `files`.
    pub main: String,
    /// All files, sorted by path.
    pub files: Vec<BundleFile>,
}
