//! Bytes on the wire and on disk: the only importer of the codec.
//!
//! A message is {version u16, kind u16, body}; the streams write its length before it. An op is {kind u16, length u32,
//! body}. Bodies are bincode 2, little-endian with variable-length integers, read with a limit and without anything left
//! over. Everything that comes out of here keeps the promises of its type: what a peer sent is checked once, here, and
//! trusted behind. Nothing here panics on any bytes. [`formats`] tells all of it, field by field.

#[doc = include_str!("wire/FORMATS.md")]
pub mod formats {}
mod op;

#[cfg(any(test, feature = "sim"))]
pub use op::settles_units;
pub use op::{MAX_OP_BYTES, check_op, decode_op, encode_op};

use crate::farm::blob::{BUNDLE_MAX_FILES, Manifest};
use crate::farm::message::{Heartbeat, Message};
use serde::{Serialize, de::DeserializeOwned};

/// Version of the envelope this build writes and reads.
pub const WIRE_VERSION: u16 = 1;
/// Longest status message, bytes of the whole envelope (DESIGN §5).
pub const STATUS_MAX_BYTES: usize = 16 * 1024;
/// Longest ledger message, bytes of the whole envelope (DESIGN §5).
pub const LEDGER_MAX_BYTES: usize = 256 * 1024;
/// Most ids in a `LogDigests` or `Retired`, and most lengths in a `Versions`, that surely fit one message: 48 bytes an entry.
pub const MAX_ENTRIES_PER_MESSAGE: usize = 4096;
/// Longest manifest of a bundle, bytes: 500,000 files of about 130 bytes (guess).
pub const MANIFEST_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Longest small value: settings, cached probes, heads (guess).
pub const VALUE_MAX_BYTES: usize = 1024 * 1024;
/// Longest path in a bundle or of an output, bytes: what Linux takes for a whole path.
pub const MAX_PATH_BYTES: usize = 4096;
/// The folder in that of a job's frames where the files of the compositor's File Output nodes go.
pub const FILE_OUTPUTS: &str = "file-outputs";
/// Longest path of one of these files with that folder, bytes: Blender has no longer ones.
pub const MAX_FILE_OUTPUT_BYTES: usize = 1024;
/// Longest name of a file or folder among these, bytes: that of common file systems.
pub const MAX_NAME_BYTES: usize = 255;

const MANIFEST_MAGIC: [u8; 8] = *b"swarmbnd";
const MANIFEST_VERSION: u16 = 1;

/// Why bytes were not read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Over a limit.
    #[error("{what} of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Ends before its header or body does, or goes on after it.
    #[error("{what} has {bytes} bytes where its header calls for {wanted}")]
    Length {
        /// What it is.
        what: &'static str,
        /// Bytes there.
        bytes: usize,
        /// Bytes called for.
        wanted: usize,
    },
    /// Of another version.
    #[error("{what} is of version {version}; this build reads version {known}: update the older of the two machines")]
    Version {
        /// What it is.
        what: &'static str,
        /// Its version.
        version: u16,
        /// The version read here.
        known: u16,
    },
    /// Not what it says it is.
    #[error("{what} cannot be decoded")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// What the codec says.
        #[source]
        source: bincode::error::DecodeError,
    },
    /// Could not be written.
    #[error("{what} cannot be encoded")]
    Encode {
        /// What it is.
        what: &'static str,
        /// What the codec says.
        #[source]
        source: bincode::error::EncodeError,
    },
    /// Decodes, and promises something it does not keep.
    #[error("{what} is not acceptable: {why}")]
    Unsound {
        /// What it is.
        what: &'static str,
        /// Which promise.
        why: &'static str,
    },
}

const fn config() -> bincode::config::Configuration {
    bincode::config::standard()
}

pub(crate) fn write_body<T: Serialize>(what: &'static str, into: &mut Vec<u8>, value: &T) -> Result<(), WireError> {
    bincode::serde::encode_into_std_write(value, into, config())
        .map_err(|source| WireError::Encode { what, source })?;
    Ok(())
}

pub(crate) fn read_body<T: DeserializeOwned, const LIMIT: usize>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, WireError> {
    within(what, bytes.len(), LIMIT)?;
    let (value, read) = bincode::serde::decode_from_slice(bytes, config().with_limit::<LIMIT>())
        .map_err(|source| WireError::Malformed { what, source })?;
    if read != bytes.len() {
        return Err(WireError::Length { what, bytes: bytes.len(), wanted: read });
    }
    Ok(value)
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), WireError> {
    if bytes > limit { Err(WireError::TooLong { what, bytes, limit }) } else { Ok(()) }
}

/// Kinds of messages. Numbers are for ever; a status kind is below [`kind::LEDGER`].
mod kind {
    pub const HEARTBEAT: u16 = 1;
    pub const CAPABILITY: u16 = 2;
    pub const BEATS: u16 = 3;
    /// First kind of the ledger stream.
    pub const LEDGER: u16 = 16;
    pub const PUSH: u16 = 16;
    pub const DIGEST: u16 = 17;
    pub const LOG_DIGESTS: u16 = 18;
    pub const VERSIONS: u16 = 19;
    pub const RETIRED: u16 = 20;
}

fn limit_of(kind: u16) -> usize {
    if kind < kind::LEDGER { STATUS_MAX_BYTES } else { LEDGER_MAX_BYTES }
}

/// The envelope of a message. Errors when it is longer than its stream carries.
pub fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
    const WHAT: &str = "a message";
    let kind = match message {
        Message::Heartbeat(_) => kind::HEARTBEAT,
        Message::Capability(_) => kind::CAPABILITY,
        Message::Beats(_) => kind::BEATS,
        Message::Push(_) => kind::PUSH,
        Message::Digest(_) => kind::DIGEST,
        Message::LogDigests(_) => kind::LOG_DIGESTS,
        Message::Versions { .. } => kind::VERSIONS,
        Message::Retired(_) => kind::RETIRED,
    };
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&WIRE_VERSION.to_le_bytes());
    bytes.extend_from_slice(&kind.to_le_bytes());
    match message {
        Message::Heartbeat(body) => write_body(WHAT, &mut bytes, body)?,
        Message::Capability(body) => write_body(WHAT, &mut bytes, body)?,
        Message::Beats(body) => write_body(WHAT, &mut bytes, body)?,
        Message::Push(body) => write_body(WHAT, &mut bytes, body)?,
        Message::Digest(body) => write_body(WHAT, &mut bytes, body)?,
        Message::LogDigests(body) => write_body(WHAT, &mut bytes, body)?,
        Message::Versions { versions, answer } => write_body(WHAT, &mut bytes, &(versions, answer))?,
        Message::Retired(body) => write_body(WHAT, &mut bytes, body)?,
    }
    within(WHAT, bytes.len(), limit_of(kind))?;
    Ok(bytes)
}

/// The message in an envelope; `None` for a kind only a later build knows, which is to be ignored.
pub fn decode(bytes: &[u8]) -> Result<Option<Message>, WireError> {
    const WHAT: &str = "a message";
    let Some((&[v0, v1, k0, k1], body)) = bytes.split_first_chunk::<4>() else {
        return Err(WireError::Length { what: WHAT, bytes: bytes.len(), wanted: 4 });
    };
    let (version, kind) = (u16::from_le_bytes([v0, v1]), u16::from_le_bytes([k0, k1]));
    if version != WIRE_VERSION {
        return Err(WireError::Version { what: WHAT, version, known: WIRE_VERSION });
    }
    within(WHAT, bytes.len(), limit_of(kind))?;
    let message = match kind {
        kind::HEARTBEAT => {
            let heartbeat: Heartbeat = read_body::<_, STATUS_MAX_BYTES>("a heartbeat", body)?;
            if !heartbeat.in_hand.iter().all(|hand| hand.percent <= 100 && op::part_is_sound(hand.unit.part)) {
                return Err(WireError::Unsound { what: "a heartbeat", why: "a unit in hand is impossible" });
            }
            Message::Heartbeat(heartbeat)
        }
        kind::CAPABILITY => Message::Capability(read_body::<_, STATUS_MAX_BYTES>("a capability", body)?),
        kind::BEATS => Message::Beats(read_body::<_, STATUS_MAX_BYTES>("signs of life", body)?),
        kind::PUSH => Message::Push(read_body::<_, LEDGER_MAX_BYTES>("a push", body)?),
        kind::DIGEST => Message::Digest(read_body::<_, LEDGER_MAX_BYTES>("a digest", body)?),
        kind::LOG_DIGESTS => Message::LogDigests(read_body::<_, LEDGER_MAX_BYTES>("digests of logs", body)?),
        kind::VERSIONS => {
            let (versions, answer) = read_body::<_, LEDGER_MAX_BYTES>("versions", body)?;
            Message::Versions { versions, answer }
        }
        kind::RETIRED => Message::Retired(read_body::<_, LEDGER_MAX_BYTES>("retired jobs", body)?),
        _ => return Ok(None),
    };
    Ok(Some(message))
}

/// A small value of this program's own, such as a setting or a cached probe.
pub fn encode_value<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    write_body("a value", &mut bytes, value)?;
    within("a value", bytes.len(), VALUE_MAX_BYTES)?;
    Ok(bytes)
}

/// Reads what [`encode_value`] wrote.
pub fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    read_body::<T, VALUE_MAX_BYTES>("a value", bytes)
}

/// The bytes a bundle's manifest is stored and identified as: magic, version, body. Errors when no one would accept it.
pub fn encode_manifest(manifest: &Manifest) -> Result<Vec<u8>, WireError> {
    check_manifest(manifest)?;
    let mut bytes = MANIFEST_MAGIC.to_vec();
    bytes.extend_from_slice(&MANIFEST_VERSION.to_le_bytes());
    write_body("a bundle's manifest", &mut bytes, manifest)?;
    within("a bundle's manifest", bytes.len(), MANIFEST_MAX_BYTES)?;
    Ok(bytes)
}

/// Reads what [`encode_manifest`] wrote, here or elsewhere.
pub fn decode_manifest(bytes: &[u8]) -> Result<Manifest, WireError> {
    const WHAT: &str = "a bundle's manifest";
    const HEADER: usize = MANIFEST_MAGIC.len() + 2;
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(WireError::Length { what: WHAT, bytes: bytes.len(), wanted: HEADER });
    };
    if header[..8] != MANIFEST_MAGIC {
        return Err(WireError::Unsound { what: WHAT, why: "it does not begin as one" });
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version != MANIFEST_VERSION {
        return Err(WireError::Version { what: WHAT, version, known: MANIFEST_VERSION });
    }
    let manifest = read_body::<Manifest, MANIFEST_MAX_BYTES>(WHAT, body)?;
    check_manifest(&manifest)?;
    Ok(manifest)
}

fn check_manifest(manifest: &Manifest) -> Result<(), WireError> {
    let unsound = |why| Err(WireError::Unsound { what: "a bundle's manifest", why });
    let files = &manifest.files;
    if files.len() > BUNDLE_MAX_FILES {
        return unsound("it has more files than a bundle may have");
    }
    if !files.iter().all(|file| is_safe_path(&file.path)) {
        return unsound("a path in it leads elsewhere or cannot exist everywhere");
    }
    if !files.windows(2).all(|pair| pair[0].path < pair[1].path) {
        return unsound("its paths are not in order, each once");
    }
    if !files.iter().all(|file| file.map.is_sound()) {
        return unsound("a file in it is larger than a blob may be, or in impossible chunks");
    }
    if files.binary_search_by(|file| file.path.as_str().cmp(&manifest.main)).is_err() {
        return unsound("the file to open is not among its files");
    }
    Ok(())
}

/// Whether `path` names a file below wherever it is joined to, on every system: forward slashes, no empty, `.` or `..`
/// component, no drive letters or streams, no control characters.
pub fn is_safe_path(path: &str) -> bool {
    path.len() <= MAX_PATH_BYTES
        && !path.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a result may call a file of a File Output node so: below [`FILE_OUTPUTS`] wherever it is put, and not as files
/// are called on their way to their name.
pub fn is_file_output(path: &str) -> bool {
    path.len() <= MAX_FILE_OUTPUT_BYTES
        && is_safe_path(path)
        && path.split('/').all(|name| name.len() <= MAX_NAME_BYTES)
        && path.strip_prefix(FILE_OUTPUTS).is_some_and(|rest| rest.starts_with('/'))
        && !path.to_ascii_lowercase().ends_with(".part")
}

#[cfg(test)]
pub(crate) mod tests;
