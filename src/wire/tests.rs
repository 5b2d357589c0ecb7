#![allow(clippy::unwrap_used)]
use super::*;
use crate::farm::ability::Ability;
use crate::farm::blob::{BlobMap, BundleFile, ChunkRef};
use crate::farm::frames::{FrameSet, MAX_RANGES};
use crate::farm::id::*;
use crate::farm::job::*;
use crate::farm::message::*;
use crate::farm::op::*;
use crate::farm::overrides::*;
use crate::farm::rules::*;
use crate::farm::scripts::Scripts;
use crate::farm::views::Views;
use crate::fuzz::{ROUNDS, fuzz};

mod formats;
mod golden;

const RETIRE: Op = Op::Retire { why: RetireReason::Over };

pub(crate) fn spec() -> JobSpec {
    let output = OutputSpec {
        directory: "/o".into(),
        prefix: "shot_".into(),
        suffix: String::new(),
        digits: 4,
        video: Some("/o.mp4".into()),
        zip: None,
    };
    JobSpec {
        file: "/home/a/shot.blend".into(),
        user: "a".into(),
        output,
        bundle_bytes: 1 << 33,
        min_version: 30512,
        settings: RenderSettings {
            engine: Some("CYCLES".into()),
            samples: Some(64),
            simulate_from: Some(-3),
            depth: Some(16),
            overrides: Overrides {
                scene: Some("B".into()),
                camera: Some("C".into()),
                view_layers: vec!["V".into()],
                set: vec![Property { path: "scene.x".into(), value: "1".into() }],
            },
            silent: true,
            ..RenderSettings::default()
        },
        needs: Ability::Denoiser.into(),
        created_ms: 1_700_000_000_000,
        ..JobSpec::new(BlobId([3; 32]), "1-10x3,20".parse().unwrap(), Series { major: 4, minor: 5 })
    }
}

/// Each rule that can be set later; pause and priority are among the [`ops`].
pub(crate) fn settings() -> Vec<JobSetting> {
    let hour = std::time::Duration::from_secs(3600);
    vec![
        JobSetting::MaxNodes(Some(3)),
        JobSetting::Tags(["fast".to_string()].into()),
        JobSetting::GpuName(Some("*4090*".parse().unwrap())),
        JobSetting::MinMemory(Some(8_000_000_000)),
        JobSetting::Order(Order::FirstLastMiddle),
        JobSetting::Chunk(Chunk::Units(5)),
        JobSetting::Retries(4),
        JobSetting::TimeLimit(Some(hour)),
        JobSetting::Deadline(None),
        JobSetting::After(Some(JobId([7; 16]))),
    ]
}

pub(crate) fn revision() -> Revision {
    let JobSpec { file, min_version, settings, needs, .. } = spec();
    Revision { file, bundle: BlobId([5; 32]), bundle_bytes: 9, min_version, settings, needs }
}

pub(crate) fn ops() -> Vec<Op> {
    let units = UnitSet::whole(vec![1, 2, 3, 9]).unwrap();
    let unit = Unit { frame: -7, part: Part::Tile { x: 1, y: 0, of: 2 } };
    let blobs = vec![BlobId([4; 32]); 2];
    let text = || "text".to_string();
    let output = Output { path: "a/b_0001.png".into(), blob: blobs[0], bytes: 77, role: OutputRole::Preview };
    vec![
        Op::Submit { min_version: 1, spec: Box::new(spec()) },
        Op::Claim { epoch: 1, units: units.clone(), kind: ClaimKind::Backup, score: 300 },
        Op::Release { units: units.clone() },
        Op::Done {
            epoch: 0,
            revision: 0,
            unit,
            outputs: vec![output],
            millis: 1234,
            device: "CPU".into(),
            build: "4.5.1".into(),
        },
        Op::Failed { epoch: 2, unit, kind: FailureKind::Stalled, message: text(), log: Some(blobs[1]) },
        Op::Holds { blobs: blobs.clone() },
        Op::Drops { blobs: blobs.clone() },
        Op::Lost { blobs },
        Op::Requeue { units: units.clone(), epoch: 3, by: text(), at_ms: 5 },
        Op::Set { lamport: 9, setting: JobSetting::Paused(true), at_ms: 5 },
        Op::Set { lamport: 9, setting: JobSetting::Priority(100), at_ms: 5 },
        Op::Cancel { by: text(), at_ms: 5 },
        Op::Revise { id: 7, revision: Box::new(revision()), units, epoch: 4, by: text(), at_ms: 5 },
        Op::Collected { revision: 0, video: true, at_ms: 5 },
        Op::Retire { why: RetireReason::Abandoned },
        Op::Remark { epoch: 3, unit, blank: Some(Blank::Transparent), warnings: vec![text()] },
        Op::Zip { path: text() },
        Op::Reuse { word: Reuse::Wanted { colours: Colours::Renderer } },
        Op::Reuse { word: Reuse::Wanted { colours: Colours::Job } },
        Op::Reuse { word: Reuse::Taken { epoch: 0, unit, from: JobId([7; 16]) } },
        Op::Views { views: Views::of(&["_L".into(), "_R".into()]).unwrap() },
        Op::Device { device: Device::Oneapi },
        Op::Member { node: NodeId([6; 32]), name: text() },
        Op::Evict { node: NodeId([6; 32]), heads: vec![([1; 8], 5)] },
        Op::Trust { node: NodeId([6; 32]), trusted: true },
        Op::Setting { lamport: 1, key: text(), value: text() },
        Op::Scripts { scripts: Scripts { in_files: true, file: Some("look.py".into()) } },
        Op::Unknown { kind: 999, body: vec![1, 2, 3] },
    ]
    .into_iter()
    .chain(settings().into_iter().map(|setting| Op::Set { lamport: 9, setting, at_ms: 5 }))
    .collect()
}

pub fn capability() -> Capability {
    let renderer = RendererInfo {
        version: (4, 5, 1),
        path: "/b".into(),
        build: "a1b2".into(),
        abilities: Ability::Denoiser.into(),
        devices: vec!["CPU".into()],
    };
    let gpu = GpuInfo {
        name: "g".into(),
        memory_bytes: 1 << 33,
        driver: "550".into(),
        usable: true,
        backend: "OPTIX".into(),
    };
    let problem = Problem { kind: "k".into(), message: "m".into(), fix: "f".into() };
    Capability {
        name: "n".into(),
        os: "linux".into(),
        swarm_version: "0.1.0".into(),
        addresses: vec!["/ip4/10.0.0.1/tcp/1".into()],
        cpu_model: "c".into(),
        cores: 16,
        memory_bytes: 1 << 35,
        gpus: vec![gpu],
        renderers: vec![renderer],
        slots: 1,
        tags: vec!["t".into()],
        problems: vec![problem],
        paused: true,
        sick: false,
        benchmark_millis: 700,
        op_version: 1,
    }
}

pub(crate) fn messages() -> Vec<Message> {
    let actor = ActorId { node: NodeId([1; 32]), boot: BootId([2; 8]) };
    let log = JobId([3; 16]);
    let head = SignedHead { length: 2, chain: [4; 32], signature: ([5; 32], [6; 32]) };
    let in_hand = vec![InHand { job: log, unit: Unit::whole(5), percent: 50 }];
    vec![
        Message::Heartbeat(Heartbeat {
            counter: 7,
            boot: actor.boot,
            load_percent: 10,
            free_memory_bytes: Some(1 << 33),
            at_desk: false,
            in_hand,
            neighbours: vec![actor.node],
        }),
        Message::Capability(Box::new(capability())),
        Message::Push(vec![Suffix { log, actor, from: 1, ops: vec![encode_op(&RETIRE).unwrap().into()], head }]),
        Message::Digest([8; 32]),
        Message::LogDigests(LogDigests { from: SWARM_LOG, until: Some(JobId([4; 16])), digests: vec![(log, [9; 32])] }),
        Message::Versions {
            versions: vec![Versions {
                log,
                digest: [7; 32],
                lengths: vec![(actor, 300)],
                forks: vec![(actor, 2, [6; 32])],
            }],
            answer: true,
        },
        Message::Retired(vec![log]),
        Message::Beats(vec![(BootId([3; 8]), 7), (BootId([4; 8]), 1 << 40)]),
    ]
}

fn manifest() -> Manifest {
    let chunk = |n: u8| ChunkRef { id: ChunkId([n; 32]), bytes: 1000 };
    let file = |path: &str, chunks| BundleFile { path: path.into(), executable: false, map: BlobMap { chunks } };
    Manifest {
        main: "f/1/scene.blend".into(),
        files: vec![file("f/1/scene.blend", vec![chunk(1), chunk(2)]), file("f/2/wood.png", vec![])],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn every_op_message_and_manifest_comes_back_as_it_was() {
    for op in ops() {
        assert_eq!(decode_op(&encode_op(&op).unwrap()).unwrap(), op);
    }
    for message in messages() {
        assert_eq!(decode(&encode(&message).unwrap()).unwrap(), Some(message));
    }
    assert_eq!(decode_manifest(&encode_manifest(&manifest()).unwrap()).unwrap(), manifest());
    let value = vec![("a".to_string(), 1u64)];
    assert_eq!(decode_value::<Vec<(String, u64)>>(&encode_value(&value).unwrap()).unwrap(), value);
}

#[test]
fn a_later_build_is_ignored_message_by_message_and_kept_op_by_op() {
    assert_eq!(decode(&[1, 0, 99, 0, 1, 2]).unwrap(), None);
    assert!(matches!(decode(&[2, 0, 1, 0]), Err(WireError::Version { version: 2, .. })));
    assert_eq!(decode_op(&[99, 0, 1, 0, 0, 0, 5]).unwrap(), Op::Unknown { kind: 99, body: vec![5] });
    assert!(encode_op(&Op::Unknown { kind: 1, body: vec![] }).is_err(), "a known kind in disguise");
}

#[test]
fn what_breaks_a_limit_is_neither_written_nor_read() {
    let bad_spec = |change: fn(&mut JobSpec)| {
        let mut spec = spec();
        change(&mut spec);
        Op::Submit { min_version: 1, spec: Box::new(spec) }
    };
    let long = || "x".repeat(MAX_TEXT_BYTES + 1);
    let unit = Unit::whole(1);
    let done = |path: &str, n| Op::Done {
        epoch: 0,
        revision: 0,
        unit,
        outputs: vec![Output { path: path.into(), blob: BlobId([0; 32]), bytes: 0, role: OutputRole::Image }; n],
        millis: 0,
        device: String::new(),
        build: String::new(),
    };
    let part = |part| Op::Release { units: UnitSet { frames: "1".parse().unwrap(), part } };
    let bad = [
        Op::Holds { blobs: vec![BlobId([0; 32]); MAX_BLOBS_PER_OP + 1] },
        Op::Cancel { by: long(), at_ms: 0 },
        Op::Zip { path: long() },
        Op::Remark { epoch: 0, unit, blank: None, warnings: vec![long()] },
        Op::Remark { epoch: 0, unit, blank: None, warnings: vec![String::new(); MAX_WARNINGS + 1] },
        Op::Set { lamport: 0, setting: JobSetting::Priority(101), at_ms: 0 },
        done("a", 0),
        done("a", MAX_OUTPUTS + 1),
        done("../a", 1),
        done("/a", 1),
        done("C:a", 1),
        done("a\\b", 1),
        done("a//b", 1),
        part(Part::Tile { x: 2, y: 0, of: 2 }),
        part(Part::Tile { x: 0, y: 0, of: 0 }),
        part(Part::Samples { first: u32::MAX, count: 1 }),
        bad_spec(|spec| spec.priority = 101),
        bad_spec(|spec| spec.size = (0, 5)),
        bad_spec(|spec| spec.name = "x".repeat(5000)),
        bad_spec(|spec| spec.output.prefix = "a/../".into()),
        bad_spec(|spec| spec.rate.base_millionths = 0),
        bad_spec(|spec| spec.settings.percent = Some(0)),
        bad_spec(|spec| spec.settings.device = Device::Cuda),
        bad_spec(|spec| spec.settings.overrides.scene = Some(String::new())),
        bad_spec(|spec| spec.settings.overrides.set[0].path = "x".repeat(5000)),
    ];
    let revise = |id, revision: Revision| Op::Revise {
        id,
        revision: Box::new(revision),
        units: UnitSet::whole(vec![1]).unwrap(),
        epoch: 1,
        by: String::new(),
        at_ms: 0,
    };
    let huge = RenderSettings { samples: Some(u32::MAX), ..RenderSettings::default() };
    let bad = bad.into_iter().chain([
        revise(0, revision()),
        revise(1, Revision { settings: huge, ..revision() }),
        revise(1, Revision { file: long(), ..revision() }),
    ]);
    for op in bad {
        assert!(matches!(encode_op(&op), Err(WireError::Unsound { .. })), "{op:?}");
    }
    // Frames that cannot be, from a peer: no ranges at all, and a range of step 0.
    for frames in [vec![], vec![(1i32, 5i32, 0u32)], vec![(5, 1, 1)], vec![(i32::MIN, i32::MAX, 1)]] {
        let mut bytes = vec![3, 0, 0, 0, 0, 0];
        write_body("a test", &mut bytes, &(frames, Part::Whole)).unwrap();
        bytes[2] = (bytes.len() - 6) as u8;
        assert!(matches!(decode_op(&bytes), Err(WireError::Unsound { .. })));
    }
    // Views that cannot be files of one frame.
    for views in [vec![], vec!["_l", "_L"], vec!["/../x"], vec!["1"]] {
        let mut bytes = vec![20, 0, 0, 0, 0, 0];
        write_body("a test", &mut bytes, &views).unwrap();
        bytes[2] = (bytes.len() - 6) as u8;
        assert!(matches!(decode_op(&bytes), Err(WireError::Unsound { .. })), "{views:?}");
    }
    // No backend where one is to be named.
    for device in [0, 1, 2] {
        assert!(matches!(decode_op(&[21, 0, 1, 0, 0, 0, device]), Err(WireError::Unsound { .. })), "{device}");
    }
    let mut bytes = encode_op(&RETIRE).unwrap();
    bytes.push(0);
    assert!(matches!(decode_op(&bytes), Err(WireError::Length { .. })));
    let mut bytes = encode(&messages()[6]).unwrap();
    bytes.push(0);
    assert!(matches!(decode(&bytes), Err(WireError::Length { .. })));
    assert!(matches!(encode(&Message::Retired(vec![SWARM_LOG; 20_000])), Err(WireError::TooLong { .. })));
    let capability = Capability { addresses: vec![long(); 5], ..Capability::default() };
    assert!(matches!(encode(&Message::Capability(Box::new(capability))), Err(WireError::TooLong { .. })));
}

#[test]
fn the_largest_legal_submit_and_the_fullest_lists_fit() {
    let frames =
        (0..MAX_RANGES as i32).flat_map(|i| [i * 200_000 - 1_000_000_000, i * 200_000 - 999_900_001 + i % 2]).collect();
    let mut spec = JobSpec { frames: FrameSet::from_frames(frames).unwrap(), ..spec() };
    spec.name = "x".repeat(MAX_TEXT_BYTES);
    spec.file = spec.name.clone();
    spec.output.directory = spec.name.clone();
    let property = Property { path: "scene.x".into(), value: "1".repeat(MAX_ALL_BYTES / 8 - 8) };
    spec.settings.overrides = Overrides { set: vec![property; 8], ..Overrides::default() };
    assert!(encode_op(&Op::Submit { min_version: 1, spec: Box::new(spec) }).is_ok());
    let actor = ActorId { node: NodeId([255; 32]), boot: BootId([255; 8]) };
    let lengths = vec![(actor, u64::MAX); MAX_ENTRIES_PER_MESSAGE];
    let versions = vec![Versions { log: SWARM_LOG, digest: [255; 32], lengths, forks: Vec::new() }];
    assert!(encode(&Message::Versions { versions, answer: true }).is_ok());
    let digests = vec![(SWARM_LOG, [255; 32]); MAX_ENTRIES_PER_MESSAGE];
    assert!(encode(&Message::LogDigests(LogDigests { from: SWARM_LOG, until: Some(SWARM_LOG), digests })).is_ok());
}

#[test]
fn a_manifest_that_leads_elsewhere_is_refused() {
    let bad = |change: fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        assert!(matches!(encode_manifest(&manifest), Err(WireError::Unsound { .. })));
    };
    bad(|m| m.main = "f/3/none".into());
    bad(|m| m.files.reverse());
    bad(|m| m.files[1].path = "../../etc/passwd".into());
    bad(|m| m.files[1].map.chunks = vec![ChunkRef { id: ChunkId([0; 32]), bytes: 0 }]);
    let mut bytes = encode_manifest(&manifest()).unwrap();
    bytes[0] ^= 1;
    assert!(decode_manifest(&bytes).is_err());
    assert!(decode_manifest(b"").is_err());
}

/// An error's own words, without what they name.
fn word<T>(read: Result<T, WireError>) -> Result<(), String> {
    read.map(drop).map_err(|error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

#[test]
fn no_bytes_make_a_decoder_of_ops_panic_and_what_is_read_may_be_written() {
    let seeds = ops().iter().map(|op| encode_op(op).unwrap()).collect();
    let read = |bytes: &[u8]| {
        let op = decode_op(bytes);
        if let Ok(op) = &op {
            assert_eq!(decode_op(&encode_op(op).unwrap()).unwrap(), *op);
        }
        word(op)
    };
    fuzz("op", ROUNDS, seeds, |bytes| {
        // A wrong length hides all else: as it came, and with it put right.
        let first = read(bytes);
        let mut framed = bytes.to_vec();
        if let Some(length) = bytes.len().checked_sub(6) {
            framed[2..6].copy_from_slice(&(length as u32).to_le_bytes());
        }
        (first, read(&framed))
    });
}

#[test]
fn no_bytes_make_a_decoder_of_messages_panic_and_what_is_read_may_be_written() {
    let seeds = messages().iter().map(|message| encode(message).unwrap()).collect();
    fuzz("message", ROUNDS, seeds, |bytes| {
        let message = decode(bytes);
        if let Ok(Some(message)) = &message {
            assert!(encode(message).is_ok());
        }
        word(message)
    });
}

#[test]
fn no_bytes_make_a_decoder_of_manifests_or_values_panic() {
    let seeds = vec![encode_manifest(&manifest()).unwrap()];
    fuzz("manifest", ROUNDS, seeds, |bytes| word(decode_manifest(bytes)));
    let head = SignedHead { length: 2, chain: [4; 32], signature: ([5; 32], [6; 32]) };
    let seeds = vec![encode_value(&vec![head; 3]).unwrap(), encode_value(&capability()).unwrap()];
    fuzz("value", ROUNDS, seeds, |bytes| {
        (word(decode_value::<Vec<SignedHead>>(bytes)), word(decode_value::<Capability>(bytes)))
    });
}
