//! Cutting a stream into chunks.
//!
//! Uncompressed data is cut where its content says (FastCDC, Xia et al. 2016/2020), so that an edit in the middle moves
//! only the chunks it touches. Compressed data changes everywhere at once and is cut at fixed lengths, which is faster.

use crate::farm::blob::{
    BLOB_MAX_CHUNKS, BlobMap, CHUNK_AVERAGE_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, ChunkRef, chunk_id,
};
use crate::farm::id::ChunkId;
use fastcdc::v2020::FastCDC;
use std::io::{self, Read};
use std::path::Path;

/// Where to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// Where the content says: for data that is not compressed.
    ContentDefined,
    /// Every [`CHUNK_AVERAGE_BYTES`].
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

/// Reads `reader` to its end, calls `each` with every chunk in order, and returns the map of the blob.
///
/// Errors of the reader and of `each` end it and are passed on; a stream of more than [`BLOB_MAX_CHUNKS`] chunks is one.
pub fn chunk(
    reader: &mut dyn Read,
    chunking: Chunking,
    each: &mut dyn FnMut(&[u8], ChunkId) -> io::Result<()>,
) -> io::Result<BlobMap> {
    let max = CHUNK_MAX_BYTES as usize;
    let mut map = BlobMap::default();
    let mut buffer: Vec<u8> = Vec::new();
    let mut ended = false;
    loop {
        if !ended {
            let wanted = 2 * max - buffer.len();
            ended = reader.take(wanted as u64).read_to_end(&mut buffer)? < wanted;
        }
        let cutter = FastCDC::new(&buffer, CHUNK_MIN_BYTES as usize, CHUNK_AVERAGE_BYTES as usize, max);
        let mut start = 0;
        // A cut may only be trusted with a whole largest chunk in sight, or the end.
        while start < buffer.len() && (ended || buffer.len() - start >= max) {
            let end = match chunking {
                Chunking::ContentDefined => cutter.cut(start, buffer.len() - start).1,
                Chunking::Fixed => buffer.len().min(start + CHUNK_AVERAGE_BYTES as usize),
            };
            let bytes = &buffer[start..end];
            if map.chunks.len() >= BLOB_MAX_CHUNKS {
                return Err(io::Error::other(format!("the file has more than {BLOB_MAX_CHUNKS} chunks")));
            }
            let id = chunk_id(bytes);
            each(bytes, id)?;
            map.chunks.push(ChunkRef { id, bytes: bytes.len() as u32 });
            start = end;
        }
        buffer.drain(..start);
        if ended {
            return Ok(map);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cut(bytes: &[u8], chunking: Chunking) -> BlobMap {
        let mut joined = Vec::new();
        let map = chunk(&mut &bytes[..], chunking, &mut |part, id| {
            assert_eq!(chunk_id(part), id);
            joined.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        assert!(joined == bytes);
        assert!(map.is_sound());
        map
    }

    #[test]
    fn the_chunks_of_a_stream_are_the_stream() {
        let bytes = noise(20 << 20);
        for len in [0, 1, 255 << 10, 1 << 20, (4 << 20) + 1, 8 << 20, (8 << 20) + 7, 20 << 20] {
            for chunking in [Chunking::ContentDefined, Chunking::Fixed] {
                assert_eq!(cut(&bytes[..len], chunking).bytes(), len as u64);
            }
        }
        assert!(cut(&[], Chunking::Fixed).chunks.is_empty());
        cut(&vec![0; 9 << 20], Chunking::ContentDefined);
    }

    #[test]
    fn an_inserted_byte_changes_few_chunks_when_the_content_decides() {
        let before = noise(24 << 20);
        let mut after = before.clone();
        after.insert(5 << 20, 7);
        let (old, new) = (cut(&before, Chunking::ContentDefined), cut(&after, Chunking::ContentDefined));
        let fresh = new.chunks.iter().filter(|chunk| !old.chunks.contains(chunk)).count();
        assert!(fresh <= 2, "{fresh} of {} chunks changed", new.chunks.len());
    }

    #[test]
    fn the_cuts_do_not_depend_on_how_the_stream_is_read() {
        struct Drip<'a>(&'a [u8]);
        impl Read for Drip<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                let len = buf.len().min(4093);
                self.0.read(&mut buf[..len])
            }
        }
        let bytes = noise(13 << 20);
        let dripped = chunk(&mut Drip(&bytes), Chunking::ContentDefined, &mut |_, _| Ok(())).unwrap();
        assert_eq!(dripped, cut(&bytes, Chunking::ContentDefined));
    }

    #[test]
    fn compressed_formats_are_cut_at_fixed_lengths() {
        assert_eq!(Chunking::for_name(Path::new("a/b.PNG")), Chunking::Fixed);
        assert_eq!(Chunking::for_name(Path::new("a/b.blend")), Chunking::ContentDefined);
        assert_eq!(Chunking::for_name(Path::new("a/b")), Chunking::ContentDefined);
    }
}
