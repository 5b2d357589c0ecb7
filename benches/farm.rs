//! What the farm does most: framing ops, merging logs, folding them, choosing a unit; with `node` also cutting chunks.
//!
//! `cargo bench --bench farm [--no-default-features]`

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use divan::{Bencher, counter::BytesCount, counter::ItemsCount};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use swarm::farm::blame::Blame;
use swarm::farm::id::{ActorId, BlobId, BootId, JobId, NodeId, Unit};
use swarm::farm::job::{Device, FrameRate, FrameSet, ImageFormat, JobSpec, Needs, OutputSpec, RenderSettings, Series};
use swarm::farm::ledger::Ledger;
use swarm::farm::message::{Capability, RendererInfo, SWARM_LOG, Suffix};
use swarm::farm::op::{ClaimKind, Op, Output, OutputRole, UnitSet};
use swarm::farm::roster::Roster;
use swarm::farm::rules::Rules;
use swarm::farm::schedule::View;
use swarm::farm::state::JobState;
use swarm::seal::{Sealer, swarm_id};
use swarm::wire;

fn main() {
    divan::main();
}

const JOB: JobId = JobId([5; 16]);
const BUNDLE: BlobId = BlobId([6; 32]);

fn actor(i: u32) -> ActorId {
    let mut node = [0; 32];
    node[..4].copy_from_slice(&i.to_be_bytes());
    ActorId { node: NodeId(*blake3::hash(&node).as_bytes()), boot: BootId([1; 8]) }
}

fn done(frame: i32) -> Op {
    let blob = BlobId(*blake3::hash(&frame.to_le_bytes()).as_bytes());
    let output = Output { path: format!("shot_{frame:04}.png"), blob, bytes: 2_000_000, role: OutputRole::Image };
    let (device, build) = ("OPTIX".into(), "4.5.1 a1b2c3d4".into());
    Op::Done { epoch: 0, unit: Unit::whole(frame), outputs: vec![output], millis: 20_000, device, build, revision: 0 }
}

fn spec(frames: usize) -> JobSpec {
    JobSpec {
        name: "shot".into(),
        file: "/shot.blend".into(),
        user: "user".into(),
        bundle: BUNDLE,
        bundle_bytes: 1,
        frames: FrameSet::from_frames((1..=frames as i32).collect()).unwrap(),
        series: Series { major: 4, minor: 5 },
        min_version: 40500,
        settings: RenderSettings { device: Device::Auto, ..RenderSettings::default() },
        needs: Needs::default(),
        format: ImageFormat::Png,
        size: (1920, 1080),
        rate: FrameRate { fps: 24, base_millionths: 1_000_000 },
        output: OutputSpec {
            directory: "/out".into(),
            prefix: "shot_".into(),
            suffix: String::new(),
            digits: 4,
            video: None,
        },
        priority: 50,
        rules: Rules::default(),
        nonce: 1,
        created_ms: 0,
    }
}

fn capability() -> Capability {
    let renderer = RendererInfo {
        version: (4, 5, 1),
        path: "/opt/blender".into(),
        build: "b".into(),
        denoiser: true,
        devices: vec!["CPU".into()],
    };
    Capability { slots: 1, renderers: vec![renderer], ..Capability::default() }
}

/// A thousand results of one node, as another receives them.
fn suffixes() -> Vec<Suffix> {
    let mut ledger = Ledger::new(Sealer::from_seed(&[1; 32]), BootId([1; 8]), swarm_id(&[2; 32]));
    for frame in 0..1000 {
        ledger.append(SWARM_LOG, &done(frame)).unwrap();
        let batch = ledger.take_rows().unwrap();
        ledger.durable(batch.mark);
    }
    // One op at a time: as they are pushed.
    let me = ledger.me();
    let all: Vec<Suffix> = ledger.suffix(SWARM_LOG, me, 0).unwrap();
    assert_eq!(all.iter().map(|suffix| suffix.ops.len()).sum::<usize>(), 1000);
    all
}

#[divan::bench]
fn merge_1000_results(bencher: Bencher) {
    let suffixes = suffixes();
    let fresh = || Ledger::new(Sealer::from_seed(&[3; 32]), BootId([3; 8]), swarm_id(&[2; 32]));
    bencher.counter(ItemsCount::new(1000usize)).with_inputs(fresh).bench_values(|mut ledger| {
        for suffix in &suffixes {
            ledger.merge(suffix).unwrap();
        }
        ledger
    });
}

#[divan::bench]
fn append_sign_and_reveal_a_result(bencher: Bencher) {
    let mut ledger = Ledger::new(Sealer::from_seed(&[1; 32]), BootId([1; 8]), swarm_id(&[2; 32]));
    let op = done(1);
    bencher.bench_local(|| {
        ledger.append(SWARM_LOG, &op).unwrap();
        let batch = ledger.take_rows().unwrap();
        ledger.durable(batch.mark)
    });
}

#[divan::bench]
fn frame_and_read_a_result(bencher: Bencher) {
    let op = done(1);
    bencher.bench(|| wire::decode_op(&wire::encode_op(divan::black_box(&op)).unwrap()).unwrap());
}

#[divan::bench(args = [1_000, 10_000])]
fn fold_a_finished_job(bencher: Bencher, frames: usize) {
    let fold = || finished(frames, frames);
    bencher.counter(ItemsCount::new(frames)).bench(fold);
}

/// A job of which the first `done` frames are rendered by 64 nodes.
fn finished(frames: usize, rendered: usize) -> JobState {
    let mut job = JobState::new(JOB);
    job.apply(actor(0), 0, Op::Submit { min_version: 1, spec: Box::new(spec(frames)) });
    for frame in 1..=rendered as i32 {
        job.apply(actor(frame as u32 % 64), 2 + frame as u64, done(frame));
    }
    job
}

/// A choice in a swarm whose nodes each have one frame in hand, in the middle of a job.
#[divan::bench(args = [(1_000, 64), (20_000, 500), (100_000, 64)])]
fn choose_a_unit(bencher: Bencher, (frames, nodes): (usize, u32)) {
    let now = Duration::from_secs(100);
    let me = actor(0);
    let mut roster = Roster::new(me);
    roster.set_own(capability());
    let mut job = finished(frames, frames / 2);
    for i in 1..nodes {
        roster.connected(actor(i).node, actor(i).boot, now);
        roster.capability(actor(i).node, capability());
        let units = UnitSet::whole(vec![frames as i32 / 2 + i as i32]).unwrap();
        job.apply(actor(i), 1_000_000, Op::Claim { epoch: 0, units, kind: ClaimKind::Primary, score: i });
    }
    let jobs = BTreeMap::from([(JOB, job)]);
    let (hands, ready) = (BTreeMap::new(), BTreeSet::from([BUNDLE]));
    let blame = Blame::default();
    let view =
        View { me, now, roster: &roster, jobs: &jobs, hands: &hands, ready: &ready, blame: &blame, is_patient: true };
    assert!(view.choose().is_some());
    bencher.bench(|| view.choose());
}

/// Bytes that no cutter finds regular.
#[cfg(feature = "node")]
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
    noise
}

#[cfg(feature = "node")]
#[divan::bench(sample_count = 10)]
fn cut_and_hash_64_mib(bencher: Bencher) {
    use swarm::node::chunk::{Chunking, chunk};
    let noise = noise(64 << 20);
    bencher
        .counter(BytesCount::of_slice(&noise))
        .bench(|| chunk(&mut noise.as_slice(), Chunking::ContentDefined, &mut |_, _| Ok(())).unwrap());
}

/// Without `node` there is nothing to cut; the hash alone is the bound.
#[cfg(not(feature = "node"))]
#[divan::bench(sample_count = 10)]
fn hash_64_mib(bencher: Bencher) {
    let zeros = vec![0; 64 << 20];
    bencher.counter(BytesCount::of_slice(&zeros)).bench(|| blake3::hash(&zeros));
}
