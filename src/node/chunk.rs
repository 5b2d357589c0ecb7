//! Cutting a stream of bytes into chunks.
//!
//! Uncompressed data is cut where its content says so (FastCDC, Xia et al., USENIX ATC 2016, in its 2020 form), so that
//! an insertion moves two cuts and not all that follow. Compressed data changes from the first edited byte on: it is
//! cut every [`CHUNK_AVERAGE_BYTES`]. The cuts decide what a blob is called, so they must be the same on every machine
//! and in every version: sizes and level are fixed here and nowhere else, and a test pins a cut.

use crate::farm::blob::{
    BLOB_MAX_CHUNKS, BlobMap, CHUNK_AVERAGE_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, ChunkRef, chunk_id,
};
use crate::farm::id::ChunkId;
use fastcdc::v2020::{cut, select_masks};
use std::io::{self, Read};
use std::path::Path;

/// Bytes read ahead, two of the largest chunk: at most half of it is moved when it is refilled.
const BUFFER_BYTES: usize = 2 * CHUNK_MAX_BYTES as usize;

/// Where cuts fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// Where the content says so: for uncompressed data.
    ContentDefined,
    /// Every [`CHUNK_AVERAGE_BYTES`]: for compressed data.
    Fixed,
}

impl Chunking {
    /// How files called so are cut: extensions of compressed formats at fixed lengths, all others by content.
    pub fn for_name(path: &Path) -> Self {
        const COMPRESSED: [&str; 27] = [
            "jpg", "jpeg", "png", "exr", "webp", "jp2", "j2k", "gif", "heic", "avif", "mp4", "mov", "mkv", "webm",
            "avi", "m4v", "mpg", "mpeg", "mp3", "ogg", "m4a", "flac", "aac", "vdb", "gz", "zst", "zip",
        ];
        let extension = path.extension().map(|ext| ext.to_string_lossy().to_ascii_lowercase());
        match extension {
            Some(ext) if COMPRESSED.contains(&&*ext) => Self::Fixed,
            _ => Self::ContentDefined,
        }
    }
}

/// Reads `reader` to its end, hands each chunk to `each` in order and returns the map of the whole.
///
/// # Errors
/// What `reader` or `each` says; `InvalidInput` when there are more than [`BLOB_MAX_CHUNKS`].
pub fn chunk(
    reader: &mut dyn Read,
    chunking: Chunking,
    each: &mut dyn FnMut(&[u8], ChunkId) -> io::Result<()>,
) -> io::Result<BlobMap> {
    let mut cutter = Cutter::new(chunking);
    let mut map = BlobMap::default();
    let mut buffer = Vec::new();
    let (mut start, mut ended) = (0, false);
    loop {
        if !ended && buffer.len() - start < CHUNK_MAX_BYTES as usize {
            buffer.drain(..start);
            start = 0;
            let wanted = BUFFER_BYTES - buffer.len();
            ended = (&mut *reader).take(wanted as u64).read_to_end(&mut buffer)? < wanted;
        }
        let rest = &buffer[start..];
        if rest.is_empty() {
            return Ok(map);
        }
        let bytes = &rest[..cutter.next(rest)];
        let id = chunk_id(bytes);
        if map.chunks.len() == BLOB_MAX_CHUNKS {
            let why = format!("more than {BLOB_MAX_CHUNKS} chunks of about {CHUNK_AVERAGE_BYTES} bytes in one file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        each(bytes, id)?;
        map.chunks.push(ChunkRef { id, bytes: bytes.len() as u32 });
        start += bytes.len();
    }
}

/// Finds the next cut.
struct Cutter {
    chunking: Chunking,
    /// FastCDC's masks before and after the aimed-at size.
    masks: (u64, u64),
}

impl Cutter {
    fn new(chunking: Chunking) -> Self {
        let level = fastcdc::v2020::Normalization::Level1;
        Self { chunking, masks: select_masks(CHUNK_AVERAGE_BYTES as usize, level) }
    }

    /// Length of the chunk at the front of `bytes`, which are all that is left or at least a largest chunk.
    fn next(&mut self, bytes: &[u8]) -> usize {
        let (small, large) = self.masks;
        match self.chunking {
            Chunking::Fixed => bytes.len().min(CHUNK_AVERAGE_BYTES as usize),
            Chunking::ContentDefined => {
                cut(
                    bytes,
                    CHUNK_MIN_BYTES as usize,
                    CHUNK_AVERAGE_BYTES as usize,
                    CHUNK_MAX_BYTES as usize,
                    small,
                    large,
                    small << 1,
                    large << 1,
                )
                .1
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn map_of(bytes: &[u8], chunking: Chunking) -> BlobMap {
        let mut joined = Vec::new();
        let map = chunk(&mut &bytes[..], chunking, &mut |part, id| {
            assert_eq!(chunk_id(part), id);
            joined.extend_from_slice(part);
            Ok(())
        });
        assert!(joined == bytes, "chunks joined are the input");
        map.unwrap()
    }

    /// Hands out a few bytes at a time.
    struct Dribble<'a>(&'a [u8]);

    impl Read for Dribble<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let some = into.len().min(70_001).min(self.0.len());
            let (now, later) = self.0.split_at(some);
            into[..some].copy_from_slice(now);
            self.0 = later;
            Ok(some)
        }
    }

    /// Bytes that look random and are the same on every run.
    pub(in crate::node) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
        noise
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_input_arrives() {
        let bytes = noise(1, 13_000_001);
        for chunking in [Chunking::ContentDefined, Chunking::Fixed] {
            let whole = map_of(&bytes, chunking);
            let dribbled = chunk(&mut Dribble(&bytes), chunking, &mut |_, _| Ok(())).unwrap();
            assert_eq!(whole, dribbled);
            assert!(whole.is_sound());
            assert_eq!(whole.bytes(), bytes.len() as u64);
        }
        assert_eq!(map_of(&[], Chunking::ContentDefined), BlobMap::default());
    }

    #[test]
    fn an_insertion_changes_few_content_defined_chunks() {
        let before = noise(2, 12_000_000);
        let mut after = before.clone();
        after.splice(5_000_000..5_000_000, *b"a few new bytes");
        let ids = |bytes: &[u8]| -> BTreeSet<ChunkId> {
            map_of(bytes, Chunking::ContentDefined).chunks.iter().map(|chunk| chunk.id).collect()
        };
        let (before, after) = (ids(&before), ids(&after));
        assert!(before.len() >= 6, "{} chunks", before.len());
        assert!(after.difference(&before).count() <= 2);
    }

    #[test]
    fn the_cuts_are_those_of_the_first_version() {
        let lengths: Vec<u32> =
            map_of(&noise(3, 6_000_000), Chunking::ContentDefined).chunks.iter().map(|chunk| chunk.bytes).collect();
        assert_eq!(lengths, FIRST_VERSION, "blobs would get other names: old and new members would not share chunks");
    }

    const FIRST_VERSION: [u32; 5] = [1_057_869, 2_078_042, 1_388_065, 1_224_371, 251_653];
}
