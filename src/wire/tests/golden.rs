//! Every byte that is stored or sent, one sample of each kind, as it was and must stay.
//!
//! The table is `golden.tsv`: what, which, bytes in hexadecimal. A variant without a line fails here; one without a name
//! does not compile. When a format changes before a release the failure prints the new table.

use super::{manifest, messages, ops};
use crate::farm::blob::{BlobMap, ChunkRef};
use crate::farm::id::{ActorId, BlobId, BootId, ChunkId, JobId, NodeId, Part};
use crate::farm::job::{Device, ImageFormat};
use crate::farm::message::{Message, SignedHead};
use crate::farm::op::{Blank, ClaimKind, FailureKind, JobSetting, Op, OutputRole, RetireReason};
use crate::farm::rules::{Chunk, Order};
use crate::seal::{self, Sealer};
use crate::wire::{self, encode_value};
use std::collections::BTreeSet;

const GOLDEN: &str = include_str!("golden.tsv");

/// A name for every variant, and all of those names.
macro_rules! names {
    ($type:ident, $all:ident, $name:ident: $($variant:ident)*) => {
        const $all: &[&str] = &[$(stringify!($variant)),*];
        fn $name(of: &$type) -> &'static str {
            match of { $($type::$variant { .. } => stringify!($variant)),* }
        }
    };
}

names!(Op, OPS, op: Submit Claim Release Done Failed Holds Drops Lost Requeue Set Cancel Revise Collected Retire Remark Scripts Zip Reuse Views Device Member
    Evict Trust Setting Unknown);
names!(JobSetting, SETTINGS, setting: Paused Priority MaxNodes Tags GpuName MinMemory Order Chunk Retries TimeLimit
    Deadline After);
names!(Message, MESSAGES, message: Heartbeat Capability Push Digest LogDigests Versions Retired Beats);
names!(Part, PARTS, part: Whole Tile Samples);
names!(ClaimKind, CLAIMS, claim: Primary Backup);
names!(OutputRole, ROLES, role: Image Aux Preview Sound);
names!(Blank, BLANKS, blank: Black Transparent);
names!(FailureKind, FAILURES, failure: Crash Error NoOutput BadOutput WrongDevice Stalled TimeLimit CannotStart);
names!(Device, DEVICES, device: Auto Cpu Gpu Cuda Optix Hip Oneapi Metal);
names!(RetireReason, REASONS, reason: Over Abandoned);
names!(Order, ORDERS, order: Spread Forward FirstLastMiddle);
names!(Chunk, CHUNKS, chunk: Auto Units All);
names!(ImageFormat, FORMATS, format: Png Jpeg Exr ExrMultilayer Tiff Webp);

/// The lines of the table, and which variants have one.
#[derive(Default)]
struct Table {
    lines: String,
    told: BTreeSet<(&'static str, &'static str)>,
}

impl Table {
    fn add(&mut self, what: &'static str, which: &str, bytes: &[u8]) {
        self.lines += &format!("{what}\t{which}\t{}\n", super::hex(bytes));
    }

    fn value<T: serde::Serialize>(&mut self, what: &'static str, which: &'static str, value: &T) {
        self.told.insert((what, which));
        self.add(what, which, &encode_value(value).unwrap());
    }

    #[track_caller]
    fn is_whole(&self, what: &'static str, all: &[&'static str]) {
        let lacking: Vec<_> = all.iter().filter(|which| !self.told.contains(&(what, **which))).collect();
        assert!(lacking.is_empty(), "no golden bytes for {what} {lacking:?}: add a sample");
    }
}

fn table() -> Table {
    let mut table = Table::default();
    for sample in ops() {
        let name = op(&sample);
        table.told.insert(("op", name));
        let which = match &sample {
            Op::Set { setting: of, .. } => {
                table.told.insert(("setting", setting(of)));
                format!("{name} {}", setting(of))
            }
            _ => name.to_string(),
        };
        table.add("op", &which, &wire::encode_op(&sample).unwrap());
    }
    for sample in messages() {
        table.told.insert(("message", message(&sample)));
        table.add("message", message(&sample), &wire::encode(&sample).unwrap());
    }
    table.add("manifest", "2 files", &wire::encode_manifest(&manifest()).unwrap());
    for of in [Part::Whole, Part::Tile { x: 1, y: 2, of: 300 }, Part::Samples { first: 5, count: 70_000 }] {
        table.value("part", part(&of), &of);
    }
    for of in [ClaimKind::Primary, ClaimKind::Backup] {
        table.value("claim", claim(&of), &of);
    }
    for of in [OutputRole::Image, OutputRole::Aux, OutputRole::Preview, OutputRole::Sound] {
        table.value("role", role(&of), &of);
    }
    for of in [Blank::Black, Blank::Transparent] {
        table.value("blank", blank(&of), &of);
    }
    use FailureKind::*;
    for of in [Crash, Error, NoOutput, BadOutput, WrongDevice, Stalled, TimeLimit, CannotStart] {
        table.value("failure", failure(&of), &of);
    }
    for of in Device::ALL {
        table.value("device", device(&of), &of);
    }
    for of in [RetireReason::Over, RetireReason::Abandoned] {
        table.value("reason", reason(&of), &of);
    }
    for of in [Order::Spread, Order::Forward, Order::FirstLastMiddle] {
        table.value("order", order(&of), &of);
    }
    for of in [Chunk::Auto, Chunk::Units(300), Chunk::All] {
        table.value("chunk", chunk(&of), &of);
    }
    use ImageFormat::*;
    for of in [Png, Jpeg, Exr, ExrMultilayer, Tiff, Webp] {
        table.value("format", format(&of), &of);
    }
    proofs(&mut table);
    table
}

/// What is hashed and signed: bytes nobody sends whole, and everybody must agree on.
fn proofs(table: &mut Table) {
    let sealer = Sealer::from_seed(&[7; 32]);
    let swarm = seal::swarm_id(&[1; 32]);
    let (log, boot) = (JobId([2; 16]), BootId([3; 8]));
    let actor = ActorId { node: sealer.node(), boot };
    let genesis = seal::genesis(&swarm, log, actor);
    let chain = seal::chain(&genesis, &wire::encode_op(&Op::Retire { why: RetireReason::Over }).unwrap());
    let head: SignedHead = sealer.sign(&swarm, log, boot, 1, chain);
    let chunks = vec![ChunkRef { id: ChunkId([4; 32]), bytes: 1000 }, ChunkRef { id: ChunkId([5; 32]), bytes: 1 }];
    let map = BlobMap { chunks };
    let BlobId(blob) = map.id();
    let NodeId(node) = sealer.node();
    let JobId(job) = seal::job_id(actor, 300, b"submit");
    for (which, bytes) in [
        ("node id", node.as_slice()),
        ("swarm id", &swarm),
        ("genesis", &genesis),
        ("chain", &chain),
        ("job id", &job),
        ("digest item", &seal::digest_item(log, actor, 1, &chain)),
        ("fork item", &seal::fork_item(log, actor, 1, &chain)),
        ("blob id", &blob),
        ("chunk id", &crate::farm::blob::chunk_id(b"chunk").0),
    ] {
        table.add("proof", which, bytes);
    }
    table.add("proof", "stored heads", &encode_value(&vec![head]).unwrap());
    table.add("proof", "blob map", &encode_value(&map).unwrap());
}

#[test]
fn bytes_keep_their_meaning() {
    let table = table();
    table.is_whole("op", OPS);
    table.is_whole("setting", SETTINGS);
    table.is_whole("message", MESSAGES);
    table.is_whole("part", PARTS);
    table.is_whole("claim", CLAIMS);
    table.is_whole("role", ROLES);
    table.is_whole("blank", BLANKS);
    table.is_whole("failure", FAILURES);
    table.is_whole("device", DEVICES);
    table.is_whole("reason", REASONS);
    table.is_whole("order", ORDERS);
    table.is_whole("chunk", CHUNKS);
    table.is_whole("format", FORMATS);
    let now: BTreeSet<&str> = table.lines.lines().collect();
    let changed: Vec<&str> = GOLDEN.lines().filter(|line| !now.contains(line)).collect();
    assert!(
        table.lines == GOLDEN,
        "these bytes mean something else now, or are lacking: {changed:#?}\nsrc/wire/tests/golden.tsv would be:\n{}",
        table.lines
    );
}

#[test]
fn golden_bytes_are_read_as_what_they_were() {
    let bytes = |what: &str| {
        let lines = GOLDEN.lines().filter_map(move |line| line.strip_prefix(what)?.strip_prefix('\t'));
        let hexes = lines.map(|line| line.split_once('\t').unwrap().1);
        hexes.map(super::unhex).collect::<Vec<Vec<u8>>>()
    };
    assert_eq!(bytes("op").iter().map(|bytes| wire::decode_op(bytes).unwrap()).collect::<Vec<_>>(), ops());
    let read: Vec<_> = bytes("message").iter().filter_map(|bytes| wire::decode(bytes).unwrap()).collect();
    assert_eq!(read, messages());
    assert_eq!(wire::decode_value::<ImageFormat>(&[5]).unwrap(), ImageFormat::Webp);
    assert!(wire::decode_value::<ImageFormat>(&[6]).is_err(), "no image goes unchecked");
    assert_eq!(wire::decode_manifest(&bytes("manifest")[0]).unwrap(), manifest());
}
