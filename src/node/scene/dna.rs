//! A .blend file as blocks and fields, each with its place in the file.
//!
//! A .blend is a header, then blocks (code, length, the memory address it was saved from, struct number, count, data),
//! then `DNA1`, which names every struct and field, then `ENDB`. This reader is our own because the crate `blend` gives
//! no file offsets, which rewriting paths in place needs, and panics on bad data, which ours meets. Old 12-byte headers
//! (32- and 64-bit pointers, both byte orders), 17-byte headers of Blender 5, and whole files in gzip or zstd are read.
//! The layout was learnt by reading real files.
//!
//! It must never index unchecked or allocate by a length the file claims: `get` and `push` only.

mod record;

pub use record::Record;

use super::SceneError;
use crate::node::machine::Load;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;

/// Most bytes of one .blend in memory, decompressed (guess: the largest production files are a few GiB).
pub const BLEND_MAX_BYTES: u64 = 16 << 30;
/// Part of the free memory that one .blend may unpack to, as a fraction (guess: the blocks and what is found need some).
const UNPACKED_PART: (u64, u64) = (3, 4);
/// What is unpacked at a time, bytes (guess).
const UNPACK_STEP_BYTES: u64 = 4 << 20;
/// Most blocks of one file (guess: 20 million is some 100 times a heavy scene, and 1 GiB here).
const MAX_BLOCKS: usize = 20_000_000;
/// Most fields over all structs (measured: Blender 5 has some 9,000).
const MAX_FIELDS: usize = 1_000_000;
/// Most types, and most names of fields (measured: Blender 5 has some 1,500 and 6,000).
const MAX_TEXTS: u64 = 1_000_000;
/// Longest name of a type or field, bytes (measured: less than 100).
const TEXT_MAX_BYTES: usize = 256;
/// Most links followed in one list (guess).
const MAX_LIST: usize = 1_000_000;
/// Largest array a field declares (guess; the largest known is 4,096 or so).
const MAX_ARRAY: usize = 1 << 24;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// One block.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// `SC\0\0`, `DATA`, …
    pub code: [u8; 4],
    /// Where its data starts in the decompressed file.
    pub at: usize,
    /// Length of its data in bytes.
    pub len: usize,
    /// The address it was saved from: what pointers to it hold.
    pub address: u64,
    /// Number of its struct.
    pub sdna: usize,
    /// How many structs it holds.
    pub count: usize,
    /// Index of the block that owns it: itself unless it is `DATA`.
    pub owner: usize,
}

/// One field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name without stars and brackets.
    pub name: String,
    /// Name of its type.
    kind: usize,
    /// Whether it holds an address.
    pub pointer: bool,
    /// Offset in the struct, bytes.
    pub offset: usize,
    /// Length of one element, bytes.
    pub element: usize,
    /// Elements of the array, 1 if it is none.
    pub count: usize,
}

/// One struct.
#[derive(Clone, Debug)]
pub struct Struct {
    kind: usize,
    /// Its length in bytes.
    pub size: usize,
    /// Its fields in order.
    pub fields: Vec<Field>,
}

/// Byte order and pointer width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    pointer_bytes: usize,
    big_endian: bool,
}

impl Machine {
    fn uint(self, bytes: &[u8]) -> u64 {
        let push = |acc: u64, byte: &u8| (acc << 8) | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, push) } else { bytes.iter().rev().fold(0, push) }
    }

    fn int(self, bytes: &[u8]) -> i64 {
        let unused = 64 - 8 * bytes.len().min(8) as u32;
        if unused == 64 { 0 } else { ((self.uint(bytes) << unused) as i64) >> unused }
    }
}

/// A whole .blend in memory.
#[derive(Debug)]
pub struct Blend {
    bytes: Vec<u8>,
    machine: Machine,
    /// `305` is Blender 3.5.
    pub version: u32,
    /// Whether the file on disk was gzip or zstd.
    pub compressed: bool,
    /// Whether block heads are those of Blender 5.
    long_blocks: bool,
    blocks: Vec<Block>,
    types: Vec<String>,
    structs: Vec<Struct>,
    struct_by_name: HashMap<String, usize>,
    struct_by_type: HashMap<usize, usize>,
    id_by_address: HashMap<u64, usize>,
    data_by_address: HashMap<(usize, u64), usize>,
}

/// What is wrong inside a file whose path is not known here.
enum Fault {
    NotABlend,
    Damaged(&'static str),
    Unsupported(String),
}

impl Blend {
    /// Reads and decompresses the file at `path`, which must be a regular file of at most [`BLEND_MAX_BYTES`].
    pub fn open(path: &Path) -> Result<Self, SceneError> {
        Self::parsed(path, read_decompressed(path, unpacked_max_bytes)?)
    }

    /// The same of the bytes of a file; `path` is where it would lie. Decompressed it has at most `max_bytes`.
    pub fn of_bytes(path: &Path, bytes: &[u8], max_bytes: u64) -> Result<Self, SceneError> {
        Self::parsed(path, decompressed(path, bytes, bytes.len() as u64, || unpacked_max_bytes().min(max_bytes))?)
    }

    fn parsed(path: &Path, (bytes, compressed): (Vec<u8>, bool)) -> Result<Self, SceneError> {
        Self::parse(bytes, compressed).map_err(|fault| match fault {
            Fault::NotABlend => SceneError::NotABlend(path.into()),
            Fault::Damaged(what) => SceneError::Truncated { path: path.into(), what },
            Fault::Unsupported(what) => SceneError::Unsupported { path: path.into(), what },
        })
    }

    fn parse(bytes: Vec<u8>, compressed: bool) -> Result<Self, Fault> {
        let header = Header::parse(&bytes)?;
        let mut blend = Self {
            bytes,
            machine: header.machine,
            version: header.version,
            compressed,
            long_blocks: header.long_blocks,
            blocks: Vec::new(),
            types: Vec::new(),
            structs: Vec::new(),
            struct_by_name: HashMap::new(),
            struct_by_type: HashMap::new(),
            id_by_address: HashMap::new(),
            data_by_address: HashMap::new(),
        };
        blend.read_blocks(&header)?;
        blend.read_dna()?;
        Ok(blend)
    }

    fn read_blocks(&mut self, header: &Header) -> Result<(), Fault> {
        let machine = self.machine;
        let head_bytes = self.head_bytes();
        let mut at = header.len;
        let mut owner = 0;
        loop {
            let code = self.bytes.get(at..at + 4).ok_or(Fault::Damaged("it has no end marker"))?;
            let code: [u8; 4] = code.try_into().map_err(|_| Fault::Damaged("a block's code"))?;
            let head = self.bytes.get(at..at + head_bytes).ok_or(Fault::Damaged("a block's head is cut off"))?;
            if &code == b"ENDB" {
                return Ok(());
            }
            let pointer = machine.pointer_bytes;
            let (len, address, sdna, count) = if header.long_blocks {
                (
                    machine.int(&head[16..24]),
                    machine.uint(&head[8..16]),
                    machine.int(&head[4..8]),
                    machine.int(&head[24..32]),
                )
            } else {
                (
                    machine.int(&head[4..8]),
                    machine.uint(&head[8..8 + pointer]),
                    machine.int(&head[8 + pointer..12 + pointer]),
                    machine.int(&head[12 + pointer..16 + pointer]),
                )
            };
            let start = at + head_bytes;
            let len = usize::try_from(len).map_err(|_| Fault::Damaged("a block of negative length"))?;
            let end = start.checked_add(len).filter(|end| *end <= self.bytes.len());
            let end = end.ok_or(Fault::Damaged("a block reaches beyond the end of the file"))?;
            let index = self.blocks.len();
            if index >= MAX_BLOCKS {
                return Err(Fault::Unsupported(format!("it has more than {MAX_BLOCKS} blocks")));
            }
            let sdna = usize::try_from(sdna).unwrap_or(0);
            let count = usize::try_from(count).unwrap_or(0);
            if &code == b"DATA" {
                self.data_by_address.entry((owner, address)).or_insert(index);
            } else {
                owner = index;
                self.id_by_address.entry(address).or_insert(index);
            }
            self.blocks.push(Block { code, at: start, len, address, sdna, count, owner });
            at = end;
        }
    }

    fn read_dna(&mut self) -> Result<(), Fault> {
        let block = self.blocks.iter().rfind(|block| &block.code == b"DNA1");
        let block = *block.ok_or(Fault::Damaged("it has no DNA"))?;
        let dna = self.bytes.get(block.at..block.at + block.len).unwrap_or_default();
        let mut cursor = Cursor { bytes: dna, at: 0, machine: self.machine };
        cursor.tag(b"SDNA")?;
        let names = cursor.texts(b"NAME")?;
        self.types = cursor.texts(b"TYPE")?;
        cursor.tag(b"TLEN")?;
        let mut lengths = Vec::new();
        for _ in 0..self.types.len() {
            lengths.push(cursor.uint(2)? as usize);
        }
        cursor.tag(b"STRC")?;
        let names: Vec<Declared> = names.iter().map(|name| Declared::parse(name)).collect();
        let mut fields_seen = 0;
        for _ in 0..cursor.uint(4)? {
            let kind = cursor.uint(2)? as usize;
            let field_count = cursor.uint(2)? as usize;
            let name = self.types.get(kind).ok_or(Fault::Damaged("the DNA names a type it does not have"))?;
            fields_seen += field_count;
            if fields_seen > MAX_FIELDS {
                return Err(Fault::Unsupported(format!("its DNA has more than {MAX_FIELDS} fields")));
            }
            let (mut fields, mut offset) = (Vec::new(), 0usize);
            for _ in 0..field_count {
                let (kind, name) = (cursor.uint(2)? as usize, cursor.uint(2)? as usize);
                let length = lengths.get(kind).ok_or(Fault::Damaged("the DNA names a type it does not have"))?;
                let declared = names.get(name).ok_or(Fault::Damaged("the DNA names a field it does not have"))?;
                let element = if declared.pointer { self.machine.pointer_bytes } else { *length };
                fields.push(Field {
                    name: declared.name.clone(),
                    kind,
                    pointer: declared.pointer,
                    offset,
                    element,
                    count: declared.count,
                });
                offset = offset.saturating_add(element.saturating_mul(declared.count));
            }
            let size = lengths.get(kind).copied().unwrap_or(0);
            self.struct_by_name.entry(name.clone()).or_insert(self.structs.len());
            self.struct_by_type.entry(kind).or_insert(self.structs.len());
            self.structs.push(Struct { kind, size, fields });
        }
        Ok(())
    }

    fn head_bytes(&self) -> usize {
        if self.long_blocks { 32 } else { 16 + self.machine.pointer_bytes }
    }

    /// All of block `index`, with its head.
    pub fn whole(&self, index: usize) -> Option<Range<usize>> {
        let block = self.blocks.get(index)?;
        Some(block.at.checked_sub(self.head_bytes())?..block.at.checked_add(block.len)?)
    }

    /// `number` as the file has an `int`; `None` if it has no room for it.
    pub fn int_bytes(&self, number: usize) -> Option<Vec<u8>> {
        let mut bytes = i32::try_from(number).ok()?.to_le_bytes().to_vec();
        if self.machine.big_endian {
            bytes.reverse();
        }
        Some(bytes)
    }

    /// The bytes in the head of block `index` that tell its length, and what they are for `len` bytes. `None` if there is no
    /// such block or it cannot be that long.
    pub fn length_of(&self, index: usize, len: usize) -> Option<(Range<usize>, Vec<u8>)> {
        let head = self.blocks.get(index)?.at.checked_sub(self.head_bytes())?;
        let field = if self.long_blocks { head + 16..head + 24 } else { head + 4..head + 8 };
        if field.len() == 4 {
            return Some((field, self.int_bytes(len)?));
        }
        let mut bytes = i64::try_from(len).ok()?.to_le_bytes().to_vec();
        if self.machine.big_endian {
            bytes.reverse();
        }
        Some((field, bytes))
    }

    /// The decompressed file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The decompressed file, to be changed and written elsewhere.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// All blocks, in file order, without `ENDB`.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The blocks with this code, such as `b"SC\0\0"`, each with its index.
    pub fn coded(&self, code: [u8; 4]) -> impl Iterator<Item = (usize, &Block)> {
        self.blocks.iter().enumerate().filter(move |(_, block)| block.code == code)
    }

    /// The first struct in block `index`. `None` when the block is raw data.
    pub fn record(&self, index: usize) -> Option<Record<'_>> {
        self.element(index, 0)
    }

    /// The text that is all of a block, up to its NUL; empty where there is no such block.
    pub fn block_text(&self, index: usize) -> &[u8] {
        let bytes = self.blocks.get(index).and_then(|block| self.bytes.get(block.at..block.at.checked_add(block.len)?));
        bytes.and_then(|bytes| bytes.split(|byte| *byte == 0).next()).unwrap_or_default()
    }

    /// The struct with number `nth` in block `index`.
    pub fn element(&self, index: usize, nth: usize) -> Option<Record<'_>> {
        let block = self.blocks.get(index)?;
        let shape = self.structs.get(block.sdna)?;
        let at = nth.checked_mul(shape.size)?;
        let end = at.checked_add(shape.size)?;
        (end <= block.len && shape.size > 0).then_some(Record {
            blend: self,
            block: index,
            shape: block.sdna,
            at: block.at + at,
        })
    }

    /// The index of the block that was saved from `address`, seen from the data of block `from`: addresses of `DATA`
    /// are unique within one owner alone.
    pub fn find(&self, from: usize, address: u64) -> Option<usize> {
        if address == 0 {
            return None;
        }
        let owner = self.blocks.get(from)?.owner;
        self.data_by_address.get(&(owner, address)).or_else(|| self.id_by_address.get(&address)).copied()
    }

    /// The index of the datablock (not `DATA`) that was saved from `address`.
    pub fn find_id(&self, address: u64) -> Option<usize> {
        if address == 0 { None } else { self.id_by_address.get(&address).copied() }
    }

    /// The struct with number `sdna`.
    pub fn shape(&self, sdna: usize) -> Option<&Struct> {
        self.structs.get(sdna)
    }

    /// The number of the struct called `name`.
    pub fn shape_named(&self, name: &str) -> Option<usize> {
        self.struct_by_name.get(name).copied()
    }

    /// The number of the struct that `field` embeds; `None` for numbers, texts and pointers.
    pub fn shape_of(&self, field: &Field) -> Option<usize> {
        if field.pointer { None } else { self.struct_by_type.get(&field.kind).copied() }
    }

    /// The address at `at`.
    pub fn address_at(&self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(self.machine.pointer_bytes)?)?;
        Some(self.machine.uint(bytes))
    }

    /// Width of an address in bytes.
    pub fn pointer_bytes(&self) -> usize {
        self.machine.pointer_bytes
    }
}

/// A field's declared name, taken apart.
struct Declared {
    name: String,
    pointer: bool,
    count: usize,
}

impl Declared {
    fn parse(declared: &str) -> Self {
        let pointer = declared.starts_with('*') || declared.starts_with('(');
        let bare = declared.trim_start_matches(['*', '(']);
        let name = bare.split(['[', ')']).next().unwrap_or_default().to_owned();
        let sizes = bare.split('[').skip(1).map(|part| part.trim_end_matches(']').parse::<usize>().unwrap_or(1));
        let count = sizes.fold(1usize, usize::saturating_mul).min(MAX_ARRAY);
        Self { name, pointer, count }
    }
}

/// Reads the DNA block front to back.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    machine: Machine,
}

impl Cursor<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], Fault> {
        let end = self.at.checked_add(len).ok_or(Fault::Damaged("the DNA"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Fault::Damaged("the DNA is cut off"))?;
        self.at = end;
        Ok(taken)
    }

    fn uint(&mut self, len: usize) -> Result<u64, Fault> {
        let machine = self.machine;
        self.take(len).map(|bytes| machine.uint(bytes))
    }

    /// Tags start at multiples of four.
    fn tag(&mut self, tag: &[u8; 4]) -> Result<(), Fault> {
        self.at = self.at.next_multiple_of(4);
        if self.take(4)? == tag { Ok(()) } else { Err(Fault::Damaged("the DNA makes no sense")) }
    }

    /// A tag, a count and that many NUL-terminated texts.
    fn texts(&mut self, tag: &[u8; 4]) -> Result<Vec<String>, Fault> {
        self.tag(tag)?;
        let count = self.uint(4)?;
        if count > MAX_TEXTS {
            return Err(Fault::Damaged("the DNA makes no sense"));
        }
        let mut texts = Vec::new();
        for _ in 0..count {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let len = rest.iter().take(TEXT_MAX_BYTES + 1).position(|byte| *byte == 0);
            let len = len.ok_or(Fault::Damaged("the DNA is cut off"))?;
            texts.push(String::from_utf8_lossy(&rest[..len]).into_owned());
            self.at += len + 1;
        }
        Ok(texts)
    }
}

/// What the first bytes say.
struct Header {
    machine: Machine,
    version: u32,
    len: usize,
    long_blocks: bool,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let rest = bytes.strip_prefix(b"BLENDER").ok_or(Fault::NotABlend)?;
        let cut = Fault::Damaged("its header is cut off");
        let Some(mark) = rest.first() else { return Err(cut) };
        let (wide, order, version, len, long_blocks) = match mark {
            b'-' | b'_' => {
                let Some(tail) = rest.get(1..5) else { return Err(cut) };
                (*mark == b'-', tail[0], number(&tail[1..]), 12, false)
            }
            b'0'..=b'9' => {
                let Some(tail) = rest.get(..10) else { return Err(cut) };
                if &tail[..5] != b"17-01" {
                    return Err(Fault::Unsupported("its header is of a newer format; update this program".into()));
                }
                (true, tail[5], number(&tail[6..]), 17, true)
            }
            _ => return Err(Fault::NotABlend),
        };
        let big_endian = match order {
            b'v' => false,
            b'V' => true,
            _ => return Err(Fault::NotABlend),
        };
        let version = version.ok_or(Fault::NotABlend)?;
        Ok(Self { machine: Machine { pointer_bytes: if wide { 8 } else { 4 }, big_endian }, version, len, long_blocks })
    }
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What a compressed .blend may come to here: a small one can stand for any length.
pub(super) fn unpacked_max_bytes() -> u64 {
    let (part, of) = UNPACKED_PART;
    let free = Load::new().free_memory_bytes().map_or(u64::MAX, |free| free / of * part);
    free.min(BLEND_MAX_BYTES)
}

fn read_decompressed(path: &Path, unpacked_max: impl Fn() -> u64) -> Result<(Vec<u8>, bool), SceneError> {
    let unreadable = |source: std::io::Error| SceneError::unreadable(path, source);
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(SceneError::NotAFile(path.into()));
    }
    let file = File::open(path).map_err(unreadable)?;
    decompressed(path, BufReader::with_capacity(1 << 20, file), meta.len(), unpacked_max)
}

/// What `reader` has, which is of `len` bytes, and whether it was compressed.
fn decompressed(
    path: &Path,
    mut reader: impl BufRead,
    len: u64,
    unpacked_max: impl Fn() -> u64,
) -> Result<(Vec<u8>, bool), SceneError> {
    let unreadable = |source: std::io::Error| SceneError::unreadable(path, source);
    let mut magic = Vec::new();
    reader.by_ref().take(7).read_to_end(&mut magic).map_err(unreadable)?;
    let start = magic.clone();
    let whole = std::io::Cursor::new(magic).chain(reader);
    let too_large = |limit_bytes| SceneError::TooLarge { path: path.into(), limit_bytes };
    let no_memory = |_| unreadable(std::io::ErrorKind::OutOfMemory.into());
    let mut bytes = Vec::new();
    if start.starts_with(&ZSTD) || start.starts_with(&GZIP) {
        let damaged = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::PermissionDenied
            | std::io::ErrorKind::Interrupted
            | std::io::ErrorKind::OutOfMemory => unreadable(source),
            _ => SceneError::Truncated { path: path.into(), what: "its compression is broken" },
        };
        let inner: Box<dyn Read + '_> = if start.starts_with(&ZSTD) {
            Box::new(zstd::stream::read::Decoder::with_buffer(whole).map_err(damaged)?)
        } else {
            Box::new(flate2::read::MultiGzDecoder::new(whole))
        };
        let limit_bytes = unpacked_max();
        let mut inner = inner.take(limit_bytes.saturating_add(1));
        // A small part first: what is compressed but no .blend is not unpacked any further.
        inner.by_ref().take(7).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes != b"BLENDER" {
            return Err(SceneError::NotABlend(path.into()));
        }
        loop {
            bytes.try_reserve(UNPACK_STEP_BYTES as usize).map_err(no_memory)?;
            if inner.by_ref().take(UNPACK_STEP_BYTES).read_to_end(&mut bytes).map_err(damaged)? == 0 {
                break;
            }
        }
        return if bytes.len() as u64 > limit_bytes { Err(too_large(limit_bytes)) } else { Ok((bytes, true)) };
    }
    if start.is_empty() || !b"BLENDER".starts_with(&start) {
        return Err(SceneError::NotABlend(path.into()));
    }
    if len > BLEND_MAX_BYTES {
        return Err(too_large(BLEND_MAX_BYTES));
    }
    // Room for all of it at once, as far as there is memory.
    bytes.try_reserve_exact(len as usize + 1).map_err(no_memory)?;
    whole.take(BLEND_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > BLEND_MAX_BYTES { Err(too_large(BLEND_MAX_BYTES)) } else { Ok((bytes, false)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_small_file_that_unpacks_to_more_than_there_is_room_for_is_given_up_at_the_bound() {
        const LIMIT: u64 = 8 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bomb.blend");
        let mut plain = b"BLENDER-v305".to_vec();
        let mut unpacked = |bytes: u64| {
            plain.resize(bytes as usize, 0);
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&plain).unwrap();
            [gzip.finish().unwrap(), zstd::encode_all(&*plain, 1).unwrap()].map(|packed| {
                std::fs::write(&path, packed).unwrap();
                read_decompressed(&path, || LIMIT)
            })
        };
        for result in unpacked(LIMIT) {
            assert_eq!(result.unwrap().0.len() as u64, LIMIT);
        }
        for result in unpacked(LIMIT + 1) {
            assert!(matches!(result, Err(SceneError::TooLarge { limit_bytes: LIMIT, .. })), "{:?}", result.err());
        }
        assert!((1..=BLEND_MAX_BYTES).contains(&unpacked_max_bytes()));
    }
}
