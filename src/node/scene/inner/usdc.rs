//! Layers that a USD crate (a USD file in binary) names.
//!
//! Of the file only its tables of tokens, strings and fields are read, and the values of four fields; shapes are skipped.
//! Every text in a crate is a token. So a copy that names other layers is the same file with another table of tokens behind
//! it: values refer to tokens by number, and the file says at its beginning where its tables are. The format as OpenUSD's
//! `pxr/usd/usd/crateFile.cpp` has it, from 0.4 (2016) on. Lengths are believed only as far as the file is long.

use super::super::splice::Edit;
use super::{At, Named, name, read_at};
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

/// What a crate begins with.
pub(super) const MAGIC: &[u8] = b"PXR-USDC";
/// Where the place of the table of contents stands.
const CONTENTS_AT: usize = 16;
const OLDEST: [u8; 3] = [0, 4, 0];
/// Most sections (guess; there are six).
const SECTIONS_MAX: u64 = 64;
/// Bytes of a section's entry: name, start, length.
const SECTION_BYTES: usize = 32;
/// Longest table once decompressed, bytes (guess: some ten million tokens or fields).
const TABLE_MAX_BYTES: u64 = 1 << 28;
/// Most LZ4 can make of a byte.
const LZ4_MAX_RATIO: u64 = 255;
/// Longest block that OpenUSD compresses at once, bytes.
const LZ4_BLOCK_BYTES: usize = 0x7E00_0000;
/// Most entries of one list, or of one dictionary (guess).
const LIST_MAX: u64 = 1 << 20;
/// Deepest dictionaries followed: value clips are dictionaries by name.
const DEPTH_MAX: usize = 2;

/// Types of values.
const TYPE_STRING: u8 = 10;
const TYPE_ASSET: u8 = 12;
const TYPE_DICTIONARY: u8 = 31;
const TYPE_REFERENCES: u8 = 35;
const TYPE_PAYLOAD: u8 = 47;
const TYPE_STRINGS: u8 = 50;
const TYPE_PAYLOADS: u8 = 55;
const IS_ARRAY: u64 = 1 << 63;
const IS_INLINED: u64 = 1 << 62;
/// Which lists a list of edits has; they follow in this order. What is deleted or ordered is of no interest.
const LISTS: [u8; 4] = [1 << 1, 1 << 2, 1 << 5, 1 << 6];

/// Why a crate cannot be read.
pub(super) enum CrateError {
    Io(io::Error),
    Odd(&'static str),
}

impl From<io::Error> for CrateError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => DAMAGED,
            _ => Self::Io(error),
        }
    }
}

const DAMAGED: CrateError = CrateError::Odd("it is truncated or damaged");

struct Section {
    name: [u8; 16],
    start: u64,
    bytes: u64,
}

/// A crate's layers, and what a copy of it needs.
pub(super) struct Crate {
    pub named: Vec<Named>,
    len: usize,
    tokens: Vec<Vec<u8>>,
    sections: Vec<Section>,
}

impl Crate {
    pub fn open(file: &mut (impl Read + Seek)) -> Result<Self, CrateError> {
        let len = file.seek(SeekFrom::End(0))?;
        let head = read_at(file, 0, CONTENTS_AT + 8)?;
        let version: [u8; 3] = [head[8], head[9], head[10]];
        if version < OLDEST {
            return Err(CrateError::Odd("it is of a form from before 2016"));
        }
        let mut reader = Reader { file, len, version };
        let sections = reader.sections(u64_of(&head[CONTENTS_AT..]))?;
        let tokens = reader.tokens(&sections)?;
        let strings = reader.strings(&sections)?;
        let mut found = Found { reader, tokens: &tokens, strings: &strings, named: BTreeMap::new() };
        for (token, value) in found.reader.fields(&sections)? {
            found.field(token, value)?;
        }
        let named = found.named.into_values().collect();
        let len = usize::try_from(len).map_err(|_| DAMAGED)?;
        Ok(Self { named, len, tokens, sections })
    }

    /// The edits that give some tokens another text.
    pub fn with_tokens(&self, new: BTreeMap<usize, String>) -> Vec<Edit> {
        if new.is_empty() {
            return Vec::new();
        }
        let mut table = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            table.extend_from_slice(new.get(&index).map_or(token, |text| text.as_bytes()));
            table.push(0);
        }
        let mut tail = Vec::new();
        let put = |tail: &mut Vec<u8>, number: usize| tail.extend_from_slice(&(number as u64).to_le_bytes());
        put(&mut tail, self.tokens.len());
        put(&mut tail, table.len());
        // One block, which is told by a zero: no table is as long as a block may be.
        let compressed = [vec![0], lz4_flex::block::compress(&table)].concat();
        put(&mut tail, compressed.len());
        tail.extend(compressed);
        let (tokens_len, contents_at) = (tail.len(), self.len + tail.len());
        put(&mut tail, self.sections.len());
        for section in &self.sections {
            let is_tokens = section.is(b"TOKENS");
            let (start, bytes) =
                if is_tokens { (self.len as u64, tokens_len as u64) } else { (section.start, section.bytes) };
            tail.extend_from_slice(&section.name);
            tail.extend_from_slice(&start.to_le_bytes());
            tail.extend_from_slice(&bytes.to_le_bytes());
        }
        let contents = (contents_at as u64).to_le_bytes().to_vec();
        vec![
            Edit { field: CONTENTS_AT..CONTENTS_AT + 8, bytes: contents },
            Edit { field: self.len..self.len, bytes: tail },
        ]
    }
}

impl Section {
    fn is(&self, name: &[u8]) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
    }
}

/// Eight bytes as a number; there are as many.
fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

struct Reader<'a, R> {
    file: &'a mut R,
    len: u64,
    version: [u8; 3],
}

impl<R: Read + Seek> Reader<'_, R> {
    fn bytes(&mut self, at: &mut u64, len: u64) -> Result<Vec<u8>, CrateError> {
        let end = at.checked_add(len).filter(|end| *end <= self.len).ok_or(DAMAGED)?;
        let bytes = read_at(self.file, *at, usize::try_from(len).map_err(|_| DAMAGED)?)?;
        *at = end;
        Ok(bytes)
    }

    fn u64(&mut self, at: &mut u64) -> Result<u64, CrateError> {
        Ok(u64_of(&self.bytes(at, 8)?))
    }

    fn u32(&mut self, at: &mut u64) -> Result<usize, CrateError> {
        Ok(self.u32s(at, 1)?.first().copied().unwrap_or(0))
    }

    fn u32s(&mut self, at: &mut u64, count: u64) -> Result<Vec<usize>, CrateError> {
        let bytes = self.bytes(at, count.checked_mul(4).ok_or(DAMAGED)?)?;
        Ok(bytes.chunks_exact(4).map(|four| u64_of(four) as usize).collect())
    }

    fn sections(&mut self, mut at: u64) -> Result<Vec<Section>, CrateError> {
        let count = self.u64(&mut at)?;
        if count > SECTIONS_MAX {
            return Err(DAMAGED);
        }
        let entries = self.bytes(&mut at, count * SECTION_BYTES as u64)?;
        let section = |entry: &[u8]| {
            let name = entry.first_chunk().copied().unwrap_or_default();
            Section { name, start: u64_of(&entry[16..]), bytes: u64_of(&entry[24..]) }
        };
        Ok(entries.chunks_exact(SECTION_BYTES).map(section).collect())
    }

    fn start_of(&self, sections: &[Section], name: &[u8]) -> Result<u64, CrateError> {
        let section = sections.iter().find(|section| section.is(name));
        section.map(|section| section.start).ok_or(CrateError::Odd("it lacks one of its tables"))
    }

    /// What is compressed at `at` into so many bytes or fewer.
    fn decompressed(&mut self, at: &mut u64, len: u64) -> Result<Vec<u8>, CrateError> {
        let packed_len = self.u64(at)?;
        let most = len.min(packed_len.saturating_mul(LZ4_MAX_RATIO));
        if most > TABLE_MAX_BYTES {
            return Err(CrateError::Odd("its tables are larger than this program reads"));
        }
        let packed = self.bytes(at, packed_len)?;
        let (blocks, mut packed) = packed.split_first().ok_or(DAMAGED)?;
        let unpacked = |packed: &[u8], room: usize| lz4_flex::block::decompress(packed, room).map_err(|_| DAMAGED);
        let most = usize::try_from(most).map_err(|_| DAMAGED)?;
        if *blocks == 0 {
            return unpacked(packed, most);
        }
        let mut all = Vec::new();
        for _ in 0..*blocks {
            let (len, rest) = packed.split_at_checked(4).ok_or(DAMAGED)?;
            let (block, rest) = rest.split_at_checked(u64_of(len) as usize).ok_or(DAMAGED)?;
            all.extend(unpacked(block, (most - all.len()).min(LZ4_BLOCK_BYTES))?);
            packed = rest;
        }
        Ok(all)
    }

    fn tokens(&mut self, sections: &[Section]) -> Result<Vec<Vec<u8>>, CrateError> {
        let mut at = self.start_of(sections, b"TOKENS")?;
        let (count, len) = (self.u64(&mut at)?, self.u64(&mut at)?);
        let table = self.decompressed(&mut at, len)?;
        let tokens: Vec<Vec<u8>> = table.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        let count = usize::try_from(count).ok().filter(|count| *count <= tokens.len()).ok_or(DAMAGED)?;
        Ok(tokens.into_iter().take(count).collect())
    }

    /// The token of each string.
    fn strings(&mut self, sections: &[Section]) -> Result<Vec<usize>, CrateError> {
        let mut at = self.start_of(sections, b"STRINGS")?;
        let count = self.u64(&mut at)?;
        self.u32s(&mut at, count)
    }

    /// The token and the value of each field.
    fn fields(&mut self, sections: &[Section]) -> Result<Vec<(usize, u64)>, CrateError> {
        let mut at = self.start_of(sections, b"FIELDS")?;
        let count = self.u64(&mut at)?;
        let room = count.checked_mul(8).filter(|room| *room <= TABLE_MAX_BYTES).ok_or(DAMAGED)?;
        let numbers = self.decompressed(&mut at, room)?;
        let values = self.decompressed(&mut at, room)?;
        let count = usize::try_from(count).map_err(|_| DAMAGED)?;
        let tokens = numbers_of(&numbers, count).ok_or(DAMAGED)?;
        Ok(tokens.into_iter().zip(values.chunks_exact(8).map(u64_of)).collect())
    }
}

/// Numbers as a crate packs them: the difference that is most frequent, two bits for each number that say how long its
/// difference to the one before is, and the differences.
fn numbers_of(packed: &[u8], count: usize) -> Option<Vec<usize>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let signed = |bytes: &[u8]| match *bytes {
        [a] => i32::from(i8::from_le_bytes([a])),
        [a, b] => i32::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    let (common, rest) = packed.split_at_checked(4)?;
    let (codes, mut rest) = rest.split_at_checked(count.div_ceil(4))?;
    let (mut number, mut numbers) = (0_i32, Vec::new());
    for nth in 0..count {
        let len = match codes.get(nth / 4)? >> (2 * (nth % 4)) & 3 {
            0 => 0,
            1 => 1,
            2 => 2,
            _ => 4,
        };
        let (difference, after) = rest.split_at_checked(len)?;
        rest = after;
        number = number.wrapping_add(if len == 0 { signed(common) } else { signed(difference) });
        numbers.push(number as u32 as usize);
    }
    Some(numbers)
}

/// What was found so far.
struct Found<'a, R> {
    reader: Reader<'a, R>,
    tokens: &'a [Vec<u8>],
    strings: &'a [usize],
    /// By their tokens.
    named: BTreeMap<usize, Named>,
}

impl<R: Read + Seek> Found<'_, R> {
    fn token(&self, token: usize) -> &[u8] {
        self.tokens.get(token).map_or(&[], Vec::as_slice)
    }

    fn push(&mut self, token: usize, template: bool) {
        if let Some(text) = name(self.token(token)) {
            self.named.insert(token, Named { text, at: At::Token(token), template });
        }
    }

    fn push_string(&mut self, string: usize, template: bool) {
        if let Some(token) = self.strings.get(string) {
            self.push(*token, template);
        }
    }

    fn field(&mut self, token: usize, value: u64) -> Result<(), CrateError> {
        let (kind, payload) = ((value >> 48) as u8, value & 0xFFFF_FFFF_FFFF);
        let is_inlined = value & IS_INLINED != 0;
        let mut at = payload;
        match (self.token(token), kind) {
            (b"subLayers", TYPE_STRINGS) if !is_inlined => {
                let count = self.count(&mut at)?;
                for string in self.reader.u32s(&mut at, count)? {
                    self.push_string(string, false);
                }
            }
            (b"references", TYPE_REFERENCES) if !is_inlined => self.lists(at, true)?,
            (b"payload", TYPE_PAYLOADS) if !is_inlined => self.lists(at, false)?,
            (b"payload", TYPE_PAYLOAD) if !is_inlined => self.arc(&mut at, false)?,
            (b"clips", TYPE_DICTIONARY) if !is_inlined => {
                self.dictionary(&mut at, Some(DEPTH_MAX))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, at: &mut u64) -> Result<u64, CrateError> {
        let count = self.reader.u64(at)?;
        if count <= LIST_MAX { Ok(count) } else { Err(DAMAGED) }
    }

    fn lists(&mut self, mut at: u64, references: bool) -> Result<(), CrateError> {
        let which = self.reader.bytes(&mut at, 1)?.first().copied().unwrap_or(0);
        for _ in LISTS.into_iter().filter(|list| which & list != 0) {
            for _ in 0..self.count(&mut at)? {
                self.arc(&mut at, references)?;
            }
        }
        Ok(())
    }

    /// A reference or a payload: its layer, a prim, a shift in time; references have a dictionary too.
    fn arc(&mut self, at: &mut u64, reference: bool) -> Result<(), CrateError> {
        let layer = self.reader.u32(at)?;
        self.push_string(layer, false);
        let shifted = reference || self.reader.version >= [0, 8, 0];
        *at += if shifted { 4 + 16 } else { 4 };
        if reference { self.dictionary(at, None) } else { Ok(()) }
    }

    /// Goes behind a dictionary; with a depth it is one of value clips, or of those by name.
    fn dictionary(&mut self, at: &mut u64, depth: Option<usize>) -> Result<(), CrateError> {
        for _ in 0..self.count(at)? {
            let key = self.reader.u32(at)?;
            let start = *at;
            let forward = i64::from_le_bytes(self.reader.u64(at)?.to_le_bytes());
            // What the value consists of lies between.
            let forward = u64::try_from(forward).ok().filter(|forward| *forward >= 8).ok_or(DAMAGED)?;
            *at = start.checked_add(forward).ok_or(DAMAGED)?;
            let value = self.reader.u64(at)?;
            if let Some(depth) = depth {
                let key = self.strings.get(key).copied().unwrap_or(usize::MAX);
                self.of_clips(key, value, depth)?;
            }
        }
        Ok(())
    }

    fn of_clips(&mut self, key: usize, value: u64, depth: usize) -> Result<(), CrateError> {
        let (kind, mut at) = ((value >> 48) as u8, value & 0xFFFF_FFFF_FFFF);
        let (is_array, is_inlined) = (value & IS_ARRAY != 0, value & IS_INLINED != 0);
        match (self.token(key), kind) {
            (_, TYPE_DICTIONARY) if depth > 1 && !is_inlined => self.dictionary(&mut at, Some(depth - 1))?,
            (b"assetPaths", TYPE_ASSET) if is_array && at != 0 => {
                let version = self.reader.version;
                at += if version < [0, 5, 0] { 4 } else { 0 };
                let count = if version < [0, 7, 0] { self.reader.u32(&mut at)? as u64 } else { self.count(&mut at)? };
                for string in self.reader.u32s(&mut at, count)? {
                    self.push_string(string, false);
                }
            }
            (b"manifestAssetPath", TYPE_ASSET) if is_inlined => self.push(at as u32 as usize, false),
            (b"templateAssetPath", TYPE_STRING) if is_inlined => self.push_string(at as u32 as usize, true),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
