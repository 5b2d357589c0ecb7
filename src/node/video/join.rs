//! Joins encoded segments into one MP4 without touching a picture.
//!
//! Every segment is an MP4 with one H.264 track that starts with a key frame and was encoded with the same settings.
//! Its samples are copied as they are, and one index is written before them, so that playback can start before the
//! file is all there. ffmpeg's `concat` does the same from a list, but opens and probes each part (45 ms a part,
//! measured) and shifts times by the parts' rounded durations; here the times of all frames come out exact, and a
//! thousand parts cost what their bytes cost. Boxes as in ISO/IEC 14496-12, names as there.
//!
//! It must never trust a segment: what is not laid out as expected is an error.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Most bytes of a segment's index: 24 frames need some 1.5 KiB (guess).
const MAX_INDEX_BYTES: u64 = 1 << 20;
/// Most bytes of a whole video's index: a million frames and their sound need some 40 MB (reasoned).
const MAX_WHOLE_INDEX_BYTES: u64 = 128 << 20;
/// What a track can be of.
pub(super) const PICTURES: [u8; 4] = *b"vide";
pub(super) const SOUND: [u8; 4] = *b"soun";
/// Bytes of a VisualSampleEntry before its own boxes, header included.
const SAMPLE_ENTRY_BYTES: usize = 86;

/// Time of a frame: `delta` ticks of which `timescale` make a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timing {
    pub timescale: u32,
    pub delta: u32,
}

/// One segment's index.
#[derive(Debug)]
pub(super) struct Clip {
    path: PathBuf,
    /// The sample entry, without the bit rate, which is only true of the segment.
    entry: Vec<u8>,
    /// Bytes of each sample.
    sizes: Vec<u32>,
    /// From decode to display time in ticks, such that the first frame shows at 0.
    offsets: Vec<i32>,
    /// Which samples are key frames, from 0.
    sync: Vec<u32>,
    /// Where the samples begin in the file.
    data_start: u64,
    data_bytes: u64,
}

impl Clip {
    /// Reads the index of the segment at `path`, which must have `frames` frames at `timing`.
    pub fn read(path: &Path, frames: usize, timing: Timing) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        let (mut index, mut data) = (None, None);
        let mut at = 0;
        while at < end {
            file.seek(SeekFrom::Start(at))?;
            let mut head = [0; 8];
            file.read_exact(&mut head)?;
            let (mut size, mut head_bytes) = (u64::from(be32(&head, 0)?), 8);
            if size == 1 {
                let mut large = [0; 8];
                file.read_exact(&mut large)?;
                (size, head_bytes) = (u64::from_be_bytes(large), 16);
            }
            if size < head_bytes || size > end - at {
                return Err(bad("a box is longer than the file"));
            }
            match &head[4..] {
                b"moov" if size <= MAX_INDEX_BYTES && index.is_none() => {
                    let mut bytes = vec![0; (size - head_bytes) as usize];
                    file.read_exact(&mut bytes)?;
                    index = Some(bytes);
                }
                b"moov" => return Err(bad("its index is too long")),
                b"mdat" if data.is_none() => data = Some((at + head_bytes, size - head_bytes)),
                b"mdat" => return Err(bad("it has two bodies")),
                _ => {}
            }
            at += size;
        }
        let index = index.ok_or_else(|| bad("it has no index"))?;
        let (data_start, data_bytes) = data.ok_or_else(|| bad("it has no body"))?;
        let clip = Self::parse(path, &index, data_start, data_bytes, timing)?;
        if clip.sizes.len() != frames {
            return Err(bad(&format!("it has {} frames instead of {frames}", clip.sizes.len())));
        }
        Ok(clip)
    }

    fn parse(path: &Path, index: &[u8], data_start: u64, data_bytes: u64, timing: Timing) -> io::Result<Self> {
        if boxes(index)?.iter().filter(|(name, _)| name == b"trak").count() != 1 {
            return Err(bad("it has more than one track"));
        }
        let track = need(index, b"trak")?;
        let media = need(track, b"mdia")?;
        let header = need(media, b"mdhd")?;
        let timescale = be32(header, if header.first() == Some(&1) { 20 } else { 12 })?;
        if timescale != timing.timescale {
            return Err(bad(&format!("it counts {timescale} ticks a second instead of {}", timing.timescale)));
        }
        let table = need(need(media, b"minf")?, b"stbl")?;

        let stsz = need(table, b"stsz")?;
        let (equal, count) = (be32(stsz, 4)?, be32(stsz, 8)? as usize);
        let sizes = if equal > 0 {
            vec![equal; count.min(stsz.len() + 1)]
        } else {
            (0..count).map(|i| be32(stsz, 12 + 4 * i)).collect::<io::Result<Vec<_>>>()?
        };
        if sizes.iter().map(|&size| u64::from(size)).sum::<u64>() != data_bytes {
            return Err(bad("its body is not as long as its frames"));
        }
        let first = find(table, b"stco")?.map(|stco| be32(stco, 8).map(u64::from));
        if first.transpose()? != Some(data_start) {
            return Err(bad("its first frame is not where its body begins"));
        }

        let durations = runs(need(table, b"stts")?, count)?;
        if durations.len() != count || durations.iter().any(|&delta| delta != timing.delta) {
            return Err(bad("its frames do not follow each other evenly"));
        }
        let shift = match find(track, b"edts")? {
            Some(edits) => edit_start(need(edits, b"elst")?)?,
            None => 0,
        };
        let offsets = match find(table, b"ctts")? {
            Some(ctts) => runs(ctts, count)?,
            None => vec![0; count],
        };
        let offsets: Vec<i32> = offsets.into_iter().map(|offset| (offset as i32).wrapping_sub(shift)).collect();
        let sync = match find(table, b"stss")? {
            Some(stss) => {
                let keys = (be32(stss, 4)? as usize).min(count);
                (0..keys).map(|i| Ok(be32(stss, 8 + 4 * i)?.wrapping_sub(1))).collect::<io::Result<Vec<_>>>()?
            }
            None => (0..count as u32).collect(),
        };
        if offsets.len() != count || sync.first() != Some(&0) {
            return Err(bad("its first frame is no key frame"));
        }
        let entry = entry_without_rate(need(table, b"stsd")?)?;
        Ok(Self { path: path.into(), entry, sizes, offsets, sync, data_start, data_bytes })
    }

    /// Whether a decoder set up for `self` can play `other` too.
    pub fn joins(&self, other: &Self) -> bool {
        self.entry == other.entry
    }
}

/// Writes all clips as one video of `size` pixels to `out`, index first.
pub(super) fn write(clips: &[Clip], timing: Timing, size: (u32, u32), out: File) -> io::Result<File> {
    let entry = &clips.first().ok_or_else(|| bad("there is nothing to join"))?.entry;
    let body: u64 = clips.iter().map(|clip| clip.data_bytes).sum();
    let file_type = boxed(b"ftyp", &[b"isom\0\0\x02\0isomiso2avc1mp41"]);
    let mut body_head = Vec::new();
    match u32::try_from(body + 8) {
        Ok(small) => body_head.extend_from_slice(&small.to_be_bytes()),
        Err(_) => body_head.extend_from_slice(&1u32.to_be_bytes()),
    }
    body_head.extend_from_slice(b"mdat");
    if body_head[..4] == 1u32.to_be_bytes() {
        body_head.extend_from_slice(&(body + 16).to_be_bytes());
    }
    // The index tells where frames lie, and they lie behind it: its length does not depend on those numbers.
    let length = index(clips, timing, size, entry, 0).len();
    let start = (file_type.len() + length + body_head.len()) as u64;
    let mut out = BufWriter::new(out);
    for part in [&file_type, &index(clips, timing, size, entry, start), &body_head] {
        out.write_all(part)?;
    }
    let mut out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    for clip in clips {
        let mut from = File::open(&clip.path)?;
        from.seek(SeekFrom::Start(clip.data_start))?;
        // Copied by the kernel where it can.
        if io::copy(&mut from.take(clip.data_bytes), &mut out)? != clip.data_bytes {
            return Err(bad(&format!("{} became shorter while it was read", clip.path.display())));
        }
    }
    Ok(out)
}

/// What each track of the MP4 at `path` is of, and how many samples it has.
pub(super) fn tracks(path: &Path) -> io::Result<Vec<([u8; 4], usize)>> {
    let mut file = File::open(path)?;
    loop {
        let mut head = [0; 8];
        file.read_exact(&mut head)?;
        let (size, name) = (u64::from(be32(&head, 0)?), &head[4..]);
        let content = size.checked_sub(8).ok_or_else(|| bad("its index is not at its beginning"))?;
        if name != b"moov" {
            file.seek_relative(content as i64)?;
            continue;
        }
        let mut index = Vec::new();
        file.take(content.min(MAX_WHOLE_INDEX_BYTES)).read_to_end(&mut index)?;
        let all = boxes(&index)?.into_iter().filter(|(name, _)| name == b"trak");
        return all
            .map(|(_, track)| {
                let media = need(track, b"mdia")?;
                let kind = be32(need(media, b"hdlr")?, 8)?.to_be_bytes();
                let sizes = need(need(need(media, b"minf")?, b"stbl")?, b"stsz")?;
                Ok((kind, be32(sizes, 8)? as usize))
            })
            .collect();
    }
}

fn index(clips: &[Clip], timing: Timing, (width, height): (u32, u32), entry: &[u8], data_start: u64) -> Vec<u8> {
    let frames: u64 = clips.iter().map(|clip| clip.sizes.len() as u64).sum();
    let duration = frames * u64::from(timing.delta);
    let wide = u32::try_from(duration).is_err();
    let version: &[u8] = if wide { &[1, 0, 0, 0] } else { &[0, 0, 0, 0] };
    let time = |value: u64| if wide { value.to_be_bytes().to_vec() } else { (value as u32).to_be_bytes().to_vec() };
    let (never, scale) = (time(0), timing.timescale.to_be_bytes());
    let one = 0x1_0000u32.to_be_bytes();
    let mut matrix = Vec::new();
    for value in [0x1_0000u32, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000] {
        matrix.extend_from_slice(&value.to_be_bytes());
    }

    // Display must never come before decoding: all clips are shifted by what the one that reorders most needs.
    let lead = clips.iter().flat_map(|clip| &clip.offsets).map(|&offset| -i64::from(offset)).max().unwrap_or(0).max(0);
    let mut chunks = Vec::new();
    let (mut to_chunks, mut sizes, mut sync) = (Vec::new(), Vec::new(), Vec::new());
    let mut leads: Vec<(u32, u32)> = Vec::new();
    let (mut sample, mut place, mut last_count) = (0u32, data_start, 0);
    for (number, clip) in clips.iter().enumerate() {
        let count = clip.sizes.len() as u32;
        if count != last_count {
            to_chunks.push([number as u32 + 1, count, 1]);
            last_count = count;
        }
        chunks.push(place);
        place += clip.data_bytes;
        sizes.extend_from_slice(&clip.sizes);
        sync.extend(clip.sync.iter().map(|key| key + sample + 1));
        for &offset in &clip.offsets {
            let value = (i64::from(offset) + lead) as u32;
            match leads.last_mut() {
                Some((run, last)) if *last == value => *run += 1,
                _ => leads.push((1, value)),
            }
        }
        sample += count;
    }

    let none = [0u8; 4];
    let table = boxed(
        b"stbl",
        &[
            &boxed(b"stsd", &[&none, &1u32.to_be_bytes(), entry]),
            &boxed(b"stts", &[&none, &list([&[sample, timing.delta]])]),
            &boxed(b"ctts", &[&none, &list(leads.iter().map(|&(run, value)| [run, value]))]),
            &boxed(b"stss", &[&none, &list(sync.iter().map(|&key| [key]))]),
            &boxed(b"stsc", &[&none, &list(to_chunks)]),
            &boxed(b"stsz", &[&none, &none, &list(sizes.iter().map(|&size| [size]))]),
            &boxed(b"co64", &[&none, &list(chunks.iter().map(|&at| [(at >> 32) as u32, at as u32]))]),
        ],
    );
    let url = boxed(b"url ", &[&[0, 0, 0, 1]]);
    let data = boxed(b"dinf", &[&boxed(b"dref", &[&none, &1u32.to_be_bytes(), &url])]);
    let media = boxed(
        b"mdia",
        &[
            &boxed(b"mdhd", &[version, &never, &never, &scale, &time(duration), &[0x55, 0xc4, 0, 0]]),
            &boxed(b"hdlr", &[&[0; 8], b"vide", &[0; 12], b"VideoHandler\0"]),
            &boxed(b"minf", &[&boxed(b"vmhd", &[&[0, 0, 0, 1], &[0; 8]]), &data, &table]),
        ],
    );
    let edit = [version, &1u32.to_be_bytes(), &time(duration), &time(lead as u64), &one];
    let track = boxed(
        b"trak",
        &[
            &boxed(
                b"tkhd",
                &[
                    &[version[0], 0, 0, 3],
                    &never,
                    &never,
                    &1u32.to_be_bytes(),
                    &none,
                    &time(duration),
                    &[0; 16],
                    &matrix,
                    &(width << 16).to_be_bytes(),
                    &(height << 16).to_be_bytes(),
                ],
            ),
            &boxed(b"edts", &[&boxed(b"elst", &edit)]),
            &media,
        ],
    );
    let movie = [version, &never, &never, &scale, &time(duration), &one, &[1, 0], &[0; 10], &matrix, &[0; 24]];
    let next_track = 2u32.to_be_bytes();
    boxed(b"moov", &[&boxed(b"mvhd", &[&movie.concat(), &next_track]), &track])
}

/// A count, then rows of numbers.
fn list<R: AsRef<[u32]>>(rows: impl IntoIterator<Item = R>) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    let mut count = 0u32;
    for row in rows {
        count += 1;
        for number in row.as_ref() {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
    }
    bytes[..4].copy_from_slice(&count.to_be_bytes());
    bytes
}

fn boxed(name: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let length = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    bytes.extend_from_slice(name);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn be32(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..at + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
    word.map(u32::from_be_bytes).ok_or_else(|| bad("its index ends early"))
}

/// The boxes in `bytes`: name and content.
fn boxes(mut bytes: &[u8]) -> io::Result<Vec<([u8; 4], &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (size, name) = (be32(bytes, 0)? as usize, be32(bytes, 4)?.to_be_bytes());
        found.push((name, bytes.get(8..size).ok_or_else(|| bad("its index ends early"))?));
        bytes = &bytes[size..];
    }
    Ok(found)
}

fn find<'a>(bytes: &'a [u8], name: &[u8; 4]) -> io::Result<Option<&'a [u8]>> {
    Ok(boxes(bytes)?.into_iter().find(|(found, _)| found == name).map(|(_, content)| content))
}

fn need<'a>(bytes: &'a [u8], name: &[u8; 4]) -> io::Result<&'a [u8]> {
    find(bytes, name)?.ok_or_else(|| bad(&format!("its index has no {}", String::from_utf8_lossy(name))))
}

/// Expands (run, value) pairs, to `most` values.
fn runs(table: &[u8], most: usize) -> io::Result<Vec<u32>> {
    let mut values = Vec::new();
    for i in 0..be32(table, 4)? as usize {
        let (run, value) = (be32(table, 8 + 8 * i)? as usize, be32(table, 12 + 8 * i)?);
        if run > most - values.len() {
            return Err(bad("its index counts too many frames"));
        }
        values.extend(std::iter::repeat_n(value, run));
    }
    Ok(values)
}

/// The media time at which the one edit of a track begins.
fn edit_start(elst: &[u8]) -> io::Result<i32> {
    let start = match (elst.first(), be32(elst, 4)?) {
        (Some(0), 1) => be32(elst, 12)?,
        (Some(1), 1) => be32(elst, 20)?,
        _ => return Err(bad("it is edited more than once")),
    };
    i32::try_from(start).map_err(|_| bad("it begins before its first frame"))
}

/// The one H.264 sample entry, without its `btrt`.
fn entry_without_rate(stsd: &[u8]) -> io::Result<Vec<u8>> {
    let entry = stsd.get(8..).unwrap_or_default();
    let only = be32(stsd, 4)? == 1 && be32(entry, 0)? as usize == entry.len() && entry.get(4..8) == Some(b"avc1");
    if !only || entry.len() < SAMPLE_ENTRY_BYTES {
        return Err(bad("it is not plain H.264"));
    }
    let mut kept = entry[..SAMPLE_ENTRY_BYTES].to_vec();
    for (name, content) in boxes(&entry[SAMPLE_ENTRY_BYTES..])? {
        if &name != b"btrt" {
            kept.extend(boxed(&name, &[content]));
        }
    }
    let length = kept.len() as u32;
    kept[..4].copy_from_slice(&length.to_be_bytes());
    Ok(kept)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_damage_to_a_segment_makes_its_reader_panic() {
        let dir = tempfile::tempdir().unwrap();
        let (path, timing) = (dir.path().join("segment"), Timing { timescale: 24_000, delta: 1000 });
        // As ffmpeg writes one: where its frames begin stands in 32 bits, not in 64.
        let none = [0; 4];
        let mut entry = [&[0; 4], b"avc1".as_slice(), &[0; SAMPLE_ENTRY_BYTES]].concat();
        entry.truncate(SAMPLE_ENTRY_BYTES);
        entry.extend(boxed(b"avcC", &[&[1; 8]]));
        let length = entry.len() as u32;
        entry[..4].copy_from_slice(&length.to_be_bytes());
        let index = |start: u32| {
            let table = boxed(
                b"stbl",
                &[
                    &boxed(b"stsd", &[&none, &1u32.to_be_bytes(), &entry]),
                    &boxed(b"stts", &[&none, &list([[3, timing.delta]])]),
                    &boxed(b"ctts", &[&none, &list([[1, 2000], [2, 1000]])]),
                    &boxed(b"stss", &[&none, &list([[1]])]),
                    &boxed(b"stsz", &[&none, &none, &list([[5], [4], [3]])]),
                    &boxed(b"stco", &[&none, &list([[start]])]),
                ],
            );
            let header = boxed(b"mdhd", &[&[0; 12], &timing.timescale.to_be_bytes(), &[0; 8]]);
            let media = boxed(b"mdia", &[&header, &boxed(b"minf", &[&table])]);
            let edits = boxed(b"elst", &[&none, &1u32.to_be_bytes(), &none, &1000u32.to_be_bytes(), &none]);
            boxed(b"moov", &[&boxed(b"trak", &[&boxed(b"edts", &[&edits]), &media])])
        };
        let start = index(0).len() as u32 + 8;
        let whole = [index(start), boxed(b"mdat", &[&[7; 12]])].concat();
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Clip::read(&path, 3, timing).unwrap().sizes, [5, 4, 3]);
        crate::fuzz::fuzz("segment", crate::fuzz::ROUNDS, vec![whole], |bytes| {
            std::fs::write(&path, bytes).unwrap();
            Clip::read(&path, 3, timing).map(drop).map_err(|error| error.to_string())
        });
    }
}
