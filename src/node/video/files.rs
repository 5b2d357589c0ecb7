//! What the encoder reads and leaves on disk: the head of an image, segments and their records, names.
//!
//! A segment is `seg-FIRST-END.mp4`; the record beside it is written after it is whole on disk, so a segment without
//! one is what a kill left and is thrown away.

use super::join::{Clip, Timing};
use super::plan::Stamp;
use crate::node::leftover::remove;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Most bytes of an OpenEXR header that are searched for its size: they are some hundred bytes long, with render
/// metadata a few thousand (seen).
const MAX_EXR_HEADER_BYTES: u64 = 64 << 10;
/// Most bytes of a record: 24 stamps in JSON need 1.5 KiB.
const MAX_RECORD_BYTES: u64 = 64 << 10;

/// An image file: its stamp, size in pixels and the extension ffmpeg knows its format by.
pub(super) type Look = (Stamp, (u32, u32), &'static str);

/// What the file at `path` is. `None` when it is no image of a format that is put into videos.
pub(super) fn look(path: &Path) -> io::Result<Option<Look>> {
    let stamp = stamp(path)?;
    let reader = image::ImageReader::open(path)?.with_guessed_format()?;
    let extension = match reader.format() {
        Some(image::ImageFormat::Png) => "png",
        Some(image::ImageFormat::Jpeg) => "jpg",
        Some(image::ImageFormat::Tiff) => "tif",
        Some(image::ImageFormat::WebP) => "webp",
        Some(image::ImageFormat::OpenExr) => return Ok(exr_size(path)?.map(|size| (stamp, size, "exr"))),
        _ => return Ok(None),
    };
    Ok(reader.into_dimensions().ok().map(|size| (stamp, size, extension)))
}

/// What the file is now.
pub(super) fn stamp(path: &Path) -> io::Result<Stamp> {
    let meta = path.metadata()?;
    let since = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Stamp { len: meta.len(), modified_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) })
}

/// Display window of an OpenEXR file, which may hold any layers.
fn exr_size(path: &Path) -> io::Result<Option<(u32, u32)>> {
    const NAME: &[u8] = b"displayWindow\0box2i\0\x10\0\0\0";
    let mut head = Vec::new();
    File::open(path)?.take(MAX_EXR_HEADER_BYTES).read_to_end(&mut head)?;
    let Some(at) = head.windows(NAME.len()).position(|part| part == NAME) else { return Ok(None) };
    let number = |place: usize| {
        let from = at + NAME.len() + 4 * place;
        head.get(from..from + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(|bytes| i64::from(i32::from_le_bytes(bytes)))
    };
    let span = |low, high| u32::try_from(number(high)? - number(low)? + 1).ok();
    Ok(span(0, 2).zip(span(1, 3)))
}

/// The directory of segments.
#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub folder: PathBuf,
    /// Tells segments of this video and this encoder from all others.
    pub key: String,
    pub timing: Timing,
}

#[derive(Serialize, Deserialize)]
struct Record {
    key: String,
    first: usize,
    stamps: Vec<Stamp>,
}

impl Shelf {
    /// The finished segments there, after throwing away all that is none.
    pub fn open(&self) -> io::Result<Vec<(Range<usize>, Vec<Stamp>)>> {
        std::fs::create_dir_all(&self.folder)?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            names.push(entry?.file_name());
        }
        names.sort();
        let (mut kept, mut found) = (std::collections::BTreeSet::new(), Vec::new());
        for name in names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".json")) {
            let Some(record) = self.read(&self.folder.join(name)) else { continue };
            let range = record.first..record.first.saturating_add(record.stamps.len());
            if record.key == self.key && self.clip(&range).is_ok() {
                kept.extend([self.record(&range), self.segment(&range)]);
                found.push((range, record.stamps));
            }
        }
        for name in names.iter().filter(|name| name.as_encoded_bytes().starts_with(b"seg-")) {
            let path = self.folder.join(name);
            if !kept.contains(&path) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(found)
    }

    fn read(&self, path: &Path) -> Option<Record> {
        let mut text = Vec::new();
        File::open(path).ok()?.take(MAX_RECORD_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub fn segment(&self, range: &Range<usize>) -> PathBuf {
        self.folder.join(format!("seg-{:07}-{:07}.mp4", range.start, range.end))
    }

    /// The name of the joined pictures while they wait for their sound. Whatever a kill leaves of them is no segment.
    pub fn pictures(&self) -> PathBuf {
        self.folder.join("seg-pictures.part")
    }

    fn record(&self, range: &Range<usize>) -> PathBuf {
        self.segment(range).with_extension("json")
    }

    /// The name a segment has while it is written.
    pub fn unfinished(range: &Range<usize>) -> String {
        format!("seg-{:07}-{:07}.part", range.start, range.end)
    }

    /// Reads the index of a finished segment.
    pub fn clip(&self, range: &Range<usize>) -> io::Result<Clip> {
        Clip::read(&self.segment(range), range.len(), self.timing)
    }

    /// Takes in what ffmpeg has just written for `range`, if it is whole.
    pub fn keep(&self, range: &Range<usize>, stamps: &[Stamp]) -> io::Result<()> {
        let unfinished = self.folder.join(Self::unfinished(range));
        Clip::read(&unfinished, range.len(), self.timing)?;
        File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, self.segment(range))?;
        let record = Record { key: self.key.clone(), first: range.start, stamps: stamps.to_vec() };
        let record = serde_json::to_vec(&record).map_err(io::Error::other)?;
        let written = unfinished.with_extension("tmp");
        let mut file = File::create(&written)?;
        file.write_all(&record)?;
        file.sync_all()?;
        std::fs::rename(written, self.record(range))
    }

    /// Throws a segment away, if it is there.
    pub fn drop(&self, range: &Range<usize>) -> io::Result<()> {
        remove(&self.record(range))?;
        remove(&self.segment(range))
    }

    /// Leaves nothing.
    pub fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b"seg-") {
                std::fs::remove_file(entry.path())?;
            }
        }
        match std::fs::remove_dir_all(self.folder.join(super::ffmpeg::LINKS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Somebody else's files in it stay, and so it does.
        let _ = std::fs::remove_dir(&self.folder);
        Ok(())
    }
}
