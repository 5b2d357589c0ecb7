//! Ops as bytes: kinds with numbers that never change, and the limits of `farm/op.rs` on the way in and out.

use super::{WireError, is_safe_path, read_body, within, write_body};
use crate::farm::id::{BlobId, Part};
use crate::farm::job::{JobSpec, RenderSettings};
use crate::farm::op::{JobSetting, MAX_BLOBS_PER_OP, MAX_OUTPUTS, MAX_TEXT_BYTES, MAX_WARNINGS, Op, Reuse, UnitSet};
use crate::farm::rules::Rules;

/// Longest framed op, bytes: the largest frame set and the texts of a `Submit` fit, and a piece of a log that holds one
/// such op fits a ledger message.
pub const MAX_OP_BYTES: usize = 192 * 1024;
/// {kind u16, length u32} before each body.
const HEADER_BYTES: usize = 6;
/// Most pixels of a frame on a side: Blender's own limit.
const MAX_SIDE: u32 = 65_536;
/// Most samples per pixel: Cycles' own limit.
const MAX_SAMPLES: u32 = 1 << 24;
/// Largest percentage of the resolution: Blender's own limit.
const MAX_PERCENT: u32 = 32_767;
/// Bits of a channel that some format has.
const DEPTHS: [u8; 3] = [8, 16, 32];
/// Most digits a frame number is padded to (guess).
const MAX_DIGITS: u8 = 32;
/// Highest priority of a job. DESIGN §3.
const MAX_PRIORITY: u8 = 100;
/// Most tiles per side of a frame (guess).
const MAX_TILES_PER_SIDE: u16 = 1024;
/// Most heads in one eviction (guess: starts of one machine that left a log).
const MAX_EVICTED_HEADS: usize = 4096;

/// Kinds of ops. Numbers are for ever; settings have one each, so that a new one is a new kind.
mod kind {
    pub const SUBMIT: u16 = 1;
    pub const CLAIM: u16 = 2;
    pub const RELEASE: u16 = 3;
    pub const DONE: u16 = 4;
    pub const FAILED: u16 = 5;
    pub const HOLDS: u16 = 6;
    pub const DROPS: u16 = 7;
    pub const LOST: u16 = 8;
    pub const REQUEUE: u16 = 9;
    pub const SET_PAUSED: u16 = 10;
    pub const SET_PRIORITY: u16 = 11;
    pub const CANCEL: u16 = 12;
    pub const REVISE: u16 = 13;
    pub const COLLECTED: u16 = 14;
    pub const RETIRE: u16 = 15;
    pub const REMARK: u16 = 16;
    pub const SCRIPTS: u16 = 17;
    pub const ZIP: u16 = 18;
    pub const REUSE: u16 = 19;
    pub const VIEWS: u16 = 20;
    pub const DEVICE: u16 = 21;
    /// First of the job's rules, which go on to 41.
    pub const SET_MAX_NODES: u16 = 32;
    pub const SET_TAGS: u16 = 33;
    pub const SET_GPU_NAME: u16 = 34;
    pub const SET_MIN_MEMORY: u16 = 35;
    pub const SET_ORDER: u16 = 36;
    pub const SET_CHUNK: u16 = 37;
    pub const SET_RETRIES: u16 = 38;
    pub const SET_TIME_LIMIT: u16 = 39;
    pub const SET_DEADLINE: u16 = 40;
    pub const SET_AFTER: u16 = 41;
    pub const MEMBER: u16 = 64;
    pub const EVICT: u16 = 65;
    pub const TRUST: u16 = 66;
    pub const SETTING: u16 = 67;

    pub const KNOWN: [u16; 35] = [
        SUBMIT,
        CLAIM,
        RELEASE,
        DONE,
        FAILED,
        HOLDS,
        DROPS,
        LOST,
        REQUEUE,
        SET_PAUSED,
        SET_PRIORITY,
        CANCEL,
        REVISE,
        COLLECTED,
        RETIRE,
        REMARK,
        SCRIPTS,
        ZIP,
        REUSE,
        VIEWS,
        DEVICE,
        SET_MAX_NODES,
        SET_TAGS,
        SET_GPU_NAME,
        SET_MIN_MEMORY,
        SET_ORDER,
        SET_CHUNK,
        SET_RETRIES,
        SET_TIME_LIMIT,
        SET_DEADLINE,
        SET_AFTER,
        MEMBER,
        EVICT,
        TRUST,
        SETTING,
    ];
}

const WHAT: &str = "an op";

/// The framed bytes of an op. Errors when it breaks a limit others hold it to.
pub fn encode_op(op: &Op) -> Result<Vec<u8>, WireError> {
    check_op(op)?;
    let mut bytes = vec![0; HEADER_BYTES];
    let kind = write_op(op, &mut bytes)?;
    within(WHAT, bytes.len(), MAX_OP_BYTES)?;
    let length = (bytes.len() - HEADER_BYTES) as u32;
    bytes[..2].copy_from_slice(&kind.to_le_bytes());
    bytes[2..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

fn write_op(op: &Op, into: &mut Vec<u8>) -> Result<u16, WireError> {
    macro_rules! body {
        ($kind:expr, $value:expr) => {{
            write_body(WHAT, into, $value)?;
            $kind
        }};
    }
    Ok(match op {
        Op::Submit { min_version, spec } => body!(kind::SUBMIT, &(min_version, spec)),
        Op::Scripts { scripts } => body!(kind::SCRIPTS, scripts),
        Op::Zip { path } => body!(kind::ZIP, path),
        Op::Reuse { word } => body!(kind::REUSE, word),
        Op::Views { views } => body!(kind::VIEWS, views),
        Op::Device { device } => body!(kind::DEVICE, device),
        Op::Claim { epoch, units, kind, score } => body!(kind::CLAIM, &(epoch, units, kind, score)),
        Op::Release { units } => body!(kind::RELEASE, units),
        Op::Done { epoch, revision, unit, outputs, millis, device, build } => {
            body!(kind::DONE, &(epoch, revision, unit, outputs, millis, device, build))
        }
        Op::Remark { epoch, unit, blank, warnings } => body!(kind::REMARK, &(epoch, unit, blank, warnings)),
        Op::Failed { epoch, unit, kind, message, log } => {
            body!(kind::FAILED, &(epoch, unit, kind, message, log))
        }
        Op::Holds { blobs } => body!(kind::HOLDS, blobs),
        Op::Drops { blobs } => body!(kind::DROPS, blobs),
        Op::Lost { blobs } => body!(kind::LOST, blobs),
        Op::Requeue { units, epoch, by, at_ms } => body!(kind::REQUEUE, &(units, epoch, by, at_ms)),
        Op::Set { lamport, setting, at_ms } => {
            macro_rules! set {
                ($kind:expr, $value:expr) => {
                    body!($kind, &(lamport, $value, at_ms))
                };
            }
            match setting {
                JobSetting::Paused(paused) => set!(kind::SET_PAUSED, paused),
                JobSetting::Priority(priority) => set!(kind::SET_PRIORITY, priority),
                JobSetting::MaxNodes(nodes) => set!(kind::SET_MAX_NODES, nodes),
                JobSetting::Tags(tags) => set!(kind::SET_TAGS, tags),
                JobSetting::GpuName(name) => set!(kind::SET_GPU_NAME, name),
                JobSetting::MinMemory(bytes) => set!(kind::SET_MIN_MEMORY, bytes),
                JobSetting::Order(order) => set!(kind::SET_ORDER, order),
                JobSetting::Chunk(chunk) => set!(kind::SET_CHUNK, chunk),
                JobSetting::Retries(retries) => set!(kind::SET_RETRIES, retries),
                JobSetting::TimeLimit(limit) => set!(kind::SET_TIME_LIMIT, limit),
                JobSetting::Deadline(deadline) => set!(kind::SET_DEADLINE, deadline),
                JobSetting::After(job) => set!(kind::SET_AFTER, job),
            }
        }
        Op::Cancel { by, at_ms } => body!(kind::CANCEL, &(by, at_ms)),
        Op::Revise { id, revision, units, epoch, by, at_ms } => {
            body!(kind::REVISE, &(id, revision, units, epoch, by, at_ms))
        }
        Op::Collected { revision, video, at_ms } => body!(kind::COLLECTED, &(revision, video, at_ms)),
        Op::Retire { why } => body!(kind::RETIRE, why),
        Op::Member { node, name } => body!(kind::MEMBER, &(node, name)),
        Op::Evict { node, heads } => body!(kind::EVICT, &(node, heads)),
        Op::Trust { node, trusted } => body!(kind::TRUST, &(node, trusted)),
        Op::Setting { lamport, key, value } => body!(kind::SETTING, &(lamport, key, value)),
        Op::Unknown { kind, body } => {
            into.extend_from_slice(body);
            *kind
        }
    })
}

/// Whether a framed op is of a kind by which units end or open anew, told without reading the rest of it.
#[cfg(any(test, feature = "sim"))]
pub fn settles_units(bytes: &[u8]) -> bool {
    let kind = bytes.first_chunk().copied().map(u16::from_le_bytes);
    kind.is_some_and(|kind| matches!(kind, kind::DONE | kind::FAILED | kind::REQUEUE | kind::REVISE))
}

/// The op in framed bytes; [`Op::Unknown`] when only a later build knows its kind.
pub fn decode_op(bytes: &[u8]) -> Result<Op, WireError> {
    within(WHAT, bytes.len(), MAX_OP_BYTES)?;
    let Some((&[k0, k1, l0, l1, l2, l3], body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(WireError::Length { what: WHAT, bytes: bytes.len(), wanted: HEADER_BYTES });
    };
    let kind = u16::from_le_bytes([k0, k1]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length != body.len() {
        return Err(WireError::Length { what: WHAT, bytes: body.len(), wanted: length });
    }
    macro_rules! read {
        ($what:literal, $pattern:pat => $op:expr) => {{
            let $pattern = read_body::<_, MAX_OP_BYTES>($what, body)?;
            $op
        }};
    }
    macro_rules! set {
        ($setting:path) => {
            read!("a Set", (lamport, value, at_ms) => Op::Set { lamport, setting: $setting(value), at_ms })
        };
    }
    let op = match kind {
        kind::SUBMIT => read!("a Submit", (min_version, spec) => Op::Submit { min_version, spec }),
        kind::SCRIPTS => read!("a Scripts", scripts => Op::Scripts { scripts }),
        kind::ZIP => read!("a Zip", path => Op::Zip { path }),
        kind::REUSE => read!("a Reuse", word => Op::Reuse { word }),
        kind::VIEWS => read!("a Views", views => Op::Views { views }),
        kind::DEVICE => read!("a Device", device => Op::Device { device }),
        kind::CLAIM => read!("a Claim", (epoch, units, kind, score) => Op::Claim { epoch, units, kind, score }),
        kind::RELEASE => read!("a Release", units => Op::Release { units }),
        kind::DONE => read!("a Done", (epoch, revision, unit, outputs, millis, device, build) => {
            Op::Done { epoch, revision, unit, outputs, millis, device, build }
        }),
        kind::REMARK => read!("a Remark", (epoch, unit, blank, warnings) => {
            Op::Remark { epoch, unit, blank, warnings }
        }),
        kind::FAILED => read!("a Failed", (epoch, unit, kind, message, log) => {
            Op::Failed { epoch, unit, kind, message, log }
        }),
        kind::HOLDS => read!("a Holds", blobs => Op::Holds { blobs }),
        kind::DROPS => read!("a Drops", blobs => Op::Drops { blobs }),
        kind::LOST => read!("a Lost", blobs => Op::Lost { blobs }),
        kind::REQUEUE => read!("a Requeue", (units, epoch, by, at_ms) => Op::Requeue { units, epoch, by, at_ms }),
        kind::SET_PAUSED => set!(JobSetting::Paused),
        kind::SET_PRIORITY => set!(JobSetting::Priority),
        kind::SET_MAX_NODES => set!(JobSetting::MaxNodes),
        kind::SET_TAGS => set!(JobSetting::Tags),
        kind::SET_GPU_NAME => set!(JobSetting::GpuName),
        kind::SET_MIN_MEMORY => set!(JobSetting::MinMemory),
        kind::SET_ORDER => set!(JobSetting::Order),
        kind::SET_CHUNK => set!(JobSetting::Chunk),
        kind::SET_RETRIES => set!(JobSetting::Retries),
        kind::SET_TIME_LIMIT => set!(JobSetting::TimeLimit),
        kind::SET_DEADLINE => set!(JobSetting::Deadline),
        kind::SET_AFTER => set!(JobSetting::After),
        kind::CANCEL => read!("a Cancel", (by, at_ms) => Op::Cancel { by, at_ms }),
        kind::REVISE => read!("a Revise", (id, revision, units, epoch, by, at_ms) => {
            Op::Revise { id, revision, units, epoch, by, at_ms }
        }),
        kind::COLLECTED => read!("a Collected", (revision, video, at_ms) => Op::Collected { revision, video, at_ms }),
        kind::RETIRE => read!("a Retire", why => Op::Retire { why }),
        kind::MEMBER => read!("a Member", (node, name) => Op::Member { node, name }),
        kind::EVICT => read!("an Evict", (node, heads) => Op::Evict { node, heads }),
        kind::TRUST => read!("a Trust", (node, trusted) => Op::Trust { node, trusted }),
        kind::SETTING => read!("a Setting", (lamport, key, value) => Op::Setting { lamport, key, value }),
        kind => Op::Unknown { kind, body: body.to_vec() },
    };
    check_op(&op)?;
    Ok(op)
}

/// Whether an op keeps the limits everyone holds it to; its encoded length is checked by [`encode_op`] alone.
pub fn check_op(op: &Op) -> Result<(), WireError> {
    let sound =
        |holds: bool, why: &'static str| if holds { Ok(()) } else { Err(WireError::Unsound { what: WHAT, why }) };
    let text = |text: &str| sound(text.len() <= MAX_TEXT_BYTES, "a text in it is too long");
    let set = |units: &UnitSet| {
        sound(units.frames.is_sound() && part_is_sound(units.part), "it names frames or parts that cannot be")
    };
    let blobs = |blobs: &[BlobId]| {
        sound((1..=MAX_BLOBS_PER_OP).contains(&blobs.len()), "it names no blobs or too many at once")
    };
    match op {
        Op::Submit { spec, .. } => check_spec(spec),
        Op::Scripts { scripts } => {
            sound(!scripts.is_none(), "it asks for nothing to be run")?;
            sound(scripts.file.as_deref().is_none_or(is_safe_path), "the path of its script leads elsewhere")
        }
        Op::Claim { units, .. } | Op::Release { units } => set(units),
        Op::Revise { id, revision, units, by, .. } => {
            sound(*id != 0, "its id is that of no revision")?;
            set(units)?;
            text(by)?;
            text(&revision.file)?;
            check_settings(&revision.settings)
        }
        Op::Requeue { units, by, .. } => {
            set(units)?;
            text(by)
        }
        Op::Done { unit, outputs, device, build, .. } => {
            sound(part_is_sound(unit.part), "its unit cannot be")?;
            sound((1..=MAX_OUTPUTS).contains(&outputs.len()), "it has no outputs or too many")?;
            sound(outputs.iter().all(|output| is_safe_path(&output.path)), "an output's path leads elsewhere")?;
            text(device)?;
            text(build)
        }
        Op::Remark { unit, warnings, .. } => {
            sound(part_is_sound(unit.part), "its unit cannot be")?;
            sound(warnings.len() <= MAX_WARNINGS, "it has too many warnings")?;
            warnings.iter().try_for_each(|warning| text(warning))
        }
        Op::Failed { unit, message, .. } => {
            sound(part_is_sound(unit.part), "its unit cannot be")?;
            text(message)
        }
        Op::Holds { blobs: held } | Op::Drops { blobs: held } | Op::Lost { blobs: held } => blobs(held),
        Op::Set { setting, .. } => {
            // What it would make of rules that forbid nothing has to be rules.
            let (mut priority, mut rules) = (0, Rules::default());
            setting.apply(&mut priority, &mut rules);
            sound(priority <= MAX_PRIORITY, "its priority is over 100")?;
            rules.check().or_else(|why| sound(false, why))
        }
        Op::Collected { .. } | Op::Retire { .. } | Op::Trust { .. } => Ok(()),
        Op::Cancel { by, .. } => text(by),
        Op::Zip { path } => text(path),
        Op::Views { views } => sound(views.is_sound(), "its views cannot be files of one frame"),
        Op::Device { device } => sound(device.backend().is_some(), "it names no backend"),
        Op::Reuse { word: Reuse::Wanted { .. } } => Ok(()),
        Op::Reuse { word: Reuse::Taken { unit, .. } } => sound(part_is_sound(unit.part), "its unit cannot be"),
        Op::Member { name, .. } => text(name),
        Op::Evict { heads, .. } => sound(heads.len() <= MAX_EVICTED_HEADS, "it names too many heads"),
        Op::Setting { key, value, .. } => {
            text(key)?;
            text(value)
        }
        Op::Unknown { kind, .. } => sound(!kind::KNOWN.contains(kind), "its kind is known and its body is not read"),
    }
}

pub(super) fn part_is_sound(part: Part) -> bool {
    match part {
        Part::Whole => true,
        Part::Tile { x, y, of } => (1..=MAX_TILES_PER_SIDE).contains(&of) && x < of && y < of,
        Part::Samples { first, count } => count >= 1 && first.checked_add(count).is_some_and(|end| end <= MAX_SAMPLES),
    }
}

fn check_settings(settings: &RenderSettings) -> Result<(), WireError> {
    let sound = |holds: bool, why: &'static str| {
        if holds { Ok(()) } else { Err(WireError::Unsound { what: "what a job sets on its scene", why }) }
    };
    let side = |pixels: u32| (1..=MAX_SIDE).contains(&pixels);
    sound(settings.engine.as_ref().is_none_or(|engine| engine.len() <= MAX_TEXT_BYTES), "its engine is too long")?;
    sound(settings.resolution.is_none_or(|(width, height)| side(width) && side(height)), "its resolution cannot be")?;
    sound(settings.percent.is_none_or(|percent| (1..=MAX_PERCENT).contains(&percent)), "its percentage cannot be")?;
    sound(settings.samples.is_none_or(|samples| samples <= MAX_SAMPLES), "it has too many samples")?;
    sound(settings.device.backend().is_none(), "it names a backend, which is said in an op of its own")?;
    sound(settings.depth.is_none_or(|bits| DEPTHS.contains(&bits)), "its images have an impossible depth")?;
    settings.overrides.check().or_else(|why| sound(false, why))
}

fn check_spec(spec: &JobSpec) -> Result<(), WireError> {
    let sound = |holds: bool, why: &'static str| {
        if holds { Ok(()) } else { Err(WireError::Unsound { what: "a job's specification", why }) }
    };
    let JobSpec { settings, output, .. } = spec;
    let side = |pixels: u32| (1..=MAX_SIDE).contains(&pixels);
    let texts = [&spec.name, &spec.file, &spec.user, &output.directory, &output.prefix, &output.suffix];
    sound(texts.into_iter().chain(&output.video).all(|text| text.len() <= MAX_TEXT_BYTES), "a text in it is too long")?;
    sound(spec.frames.is_sound(), "its frames cannot be")?;
    sound(side(spec.size.0) && side(spec.size.1), "its frames have an impossible size")?;
    check_settings(settings)?;
    sound(spec.rate.fps >= 1 && spec.rate.base_millionths >= 1, "its frame rate is zero")?;
    sound(output.digits <= MAX_DIGITS, "its frame numbers are too long")?;
    sound(spec.priority <= MAX_PRIORITY, "its priority is over 100")?;
    spec.rules.check().or_else(|why| sound(false, why))?;
    let name = |text: &str| text.is_empty() || (is_safe_path(text) && !text.contains('/'));
    sound(name(&output.prefix) && name(&output.suffix), "its frames' names cannot be")
}
