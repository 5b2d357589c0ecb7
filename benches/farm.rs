//! What the farm does most: framing ops, merging logs, folding them, comparing them, choosing a unit; with `node` also
//! cutting chunks.
//!
//! `cargo bench --bench farm [--no-default-features]`; with `-- --growth` (`scripts/bench growth`) only how the time of a
//! merge, a fold, a comparison and a choice grows from 200 units on 5 nodes to 100 times that, and whether more than
//! n log n. Exit 1 when it does, when a choice among 20,000 units and 500 nodes takes more than a millisecond, or when one
//! of the looks of a turn at the largest job there may be takes more than 50 ms.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use divan::{Bencher, counter::BytesCount, counter::ItemsCount};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use swarm::farm::ability::Abilities;
use swarm::farm::blame::Blame;
use swarm::farm::collect::to_replicate;
use swarm::farm::frames::{FrameSet, MAX_UNITS};
use swarm::farm::id::{ActorId, BlobId, BootId, JobId, NodeId, Unit};
use swarm::farm::job::{JobSpec, Series};
use swarm::farm::ledger::Ledger;
use swarm::farm::message::{Capability, Heartbeat, InHand, RendererInfo, SWARM_LOG, Suffix};
use swarm::farm::op::{ClaimKind, JobSetting, OP_VERSION, Op, Output, OutputRole, UnitSet};
use swarm::farm::reuse::Promises;
use swarm::farm::roster::Roster;
use swarm::farm::rules::{Chunk, MAX_CHUNK, Order};
use swarm::farm::schedule::{Choice, Hand, View};
use swarm::farm::state::JobState;
use swarm::seal::{Sealer, swarm_id};
use swarm::wire;

fn main() -> std::process::ExitCode {
    if std::env::args().any(|word| word == "--growth") {
        return growth();
    }
    divan::main();
    std::process::ExitCode::SUCCESS
}

/// How large a job and its swarm are: 1, 10 and 100 times a small one.
#[derive(Clone, Copy, Debug)]
struct Scale(usize);

impl Scale {
    const ALL: [Self; 3] = [Self(1), Self(10), Self(100)];

    fn units(self) -> usize {
        200 * self.0
    }

    fn nodes(self) -> u32 {
        5 * self.0 as u32
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} units, {} nodes", self.units(), self.nodes())
    }
}

const JOB: JobId = JobId([5; 16]);
const BUNDLE: BlobId = BlobId([6; 32]);

fn actor(i: u32) -> ActorId {
    let mut node = [0; 32];
    node[..4].copy_from_slice(&i.to_be_bytes());
    ActorId { node: NodeId(*blake3::hash(&node).as_bytes()), boot: BootId(u64::from(i).to_be_bytes()) }
}

fn blob_of(frame: i32) -> BlobId {
    BlobId(*blake3::hash(&frame.to_le_bytes()).as_bytes())
}

fn done(frame: i32) -> Op {
    let blob = blob_of(frame);
    let output = Output { path: format!("shot_{frame:04}.png"), blob, bytes: 2_000_000, role: OutputRole::Image };
    let (device, build) = ("OPTIX".into(), "4.5.1 a1b2c3d4".into());
    Op::Done { epoch: 0, unit: Unit::whole(frame), outputs: vec![output], millis: 20_000, device, build, revision: 0 }
}

fn spec(frames: usize) -> JobSpec {
    let frames = FrameSet::from_frames((1..=frames as i32).collect()).unwrap();
    JobSpec::new(BUNDLE, frames, Series { major: 4, minor: 5 })
}

fn capability() -> Capability {
    let renderer = RendererInfo {
        version: (4, 5, 1),
        path: "/opt/blender".into(),
        build: "b".into(),
        abilities: Abilities::all(),
        devices: vec!["CPU".into()],
    };
    Capability { slots: 1, cores: 16, renderers: vec![renderer], op_version: OP_VERSION, ..Capability::default() }
}

fn claim(frame: i32, score: u32) -> Op {
    let units = UnitSet::whole(vec![frame]).unwrap();
    Op::Claim { epoch: 0, units, kind: ClaimKind::Primary, score }
}

fn beat(boot: BootId, in_hand: Vec<InHand>) -> Heartbeat {
    Heartbeat {
        counter: 1,
        boot,
        load_percent: 0,
        free_memory_bytes: None,
        at_desk: false,
        in_hand,
        neighbours: Vec::new(),
    }
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

/// Every node's results, an op a piece, as they come: those of all nodes by turns.
fn told(scale: Scale) -> Vec<Suffix> {
    let nodes = scale.nodes() as usize;
    let mut writers: Vec<Ledger> = (0..scale.nodes()).map(|i| quick_ledger(actor(i))).collect();
    let mut told = Vec::with_capacity(scale.units());
    for frame in 0..scale.units() {
        let writer = &mut writers[frame % nodes];
        let seq = writer.append(SWARM_LOG, &done(frame as i32)).unwrap();
        let batch = writer.take_rows().unwrap();
        writer.durable(batch.mark);
        told.extend(writer.suffix(SWARM_LOG, writer.me(), seq).unwrap());
    }
    assert_eq!(told.len(), scale.units());
    told
}

/// One whose signatures cost a hash: what is left is the ledger's own work.
fn quick_ledger(of: ActorId) -> Ledger {
    Ledger::new(Sealer::Cheap(of.node), of.boot, swarm_id(&[2; 32]))
}

fn merged(told: &[Suffix]) -> Ledger {
    let mut ledger = quick_ledger(actor(u32::MAX));
    for suffix in told {
        ledger.merge(suffix).unwrap();
    }
    ledger
}

#[divan::bench(args = Scale::ALL)]
fn merge(bencher: Bencher, scale: Scale) {
    let told = told(scale);
    bencher.counter(ItemsCount::new(scale.units())).bench(|| merged(&told));
}

#[divan::bench(args = Scale::ALL)]
fn digest(bencher: Bencher, scale: Scale) {
    let ledger = merged(&told(scale));
    bencher.bench(|| compare(&ledger));
}

/// What a round of repair looks at.
fn compare(ledger: &Ledger) -> impl Sized + use<> {
    (ledger.digest(), ledger.log_digests(), ledger.versions(SWARM_LOG))
}

#[divan::bench(args = Scale::ALL)]
fn fold(bencher: Bencher, scale: Scale) {
    bencher.counter(ItemsCount::new(scale.units())).bench(|| finished(scale.units(), scale.units()));
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

/// A swarm whose nodes each have one frame in hand, in the middle of a job.
struct Studio {
    roster: Roster,
    jobs: BTreeMap<JobId, JobState>,
    hands: BTreeMap<(JobId, Unit), Hand>,
    ready: BTreeSet<BlobId>,
    promises: Promises,
    blame: Blame,
}

impl Studio {
    fn new(frames: usize, nodes: u32) -> Self {
        let now = Duration::from_secs(100);
        let mut roster = Roster::new(actor(0));
        roster.set_own(capability());
        let mut job = finished(frames, frames / 2);
        for i in 1..nodes {
            roster.connected(actor(i).node, actor(i).boot, now);
            roster.capability(actor(i).node, capability());
            job.apply(actor(i), 1_000_000, claim(frames as i32 / 2 + i as i32, i));
        }
        let jobs = BTreeMap::from([(JOB, job)]);
        let studio = Self {
            roster,
            jobs,
            hands: BTreeMap::new(),
            ready: BTreeSet::from([BUNDLE]),
            promises: Promises::default(),
            blame: Blame::default(),
        };
        assert!(studio.choose().is_some());
        studio
    }

    /// The same when two units a node are left, of which each has one in hand: everyone has the scene, half of them have
    /// rendered something of the job, and whether the others end it without this machine is asked.
    fn late(frames: usize, nodes: u32) -> Self {
        let now = Duration::from_secs(100);
        let mut studio = Self::new(frames, nodes);
        let job = studio.jobs.get_mut(&JOB).unwrap();
        for frame in frames as i32 / 2 + 1..=frames as i32 - 2 * nodes as i32 {
            job.apply(actor(frame as u32 % (nodes / 2)), 2_000_000 + frame as u64, done(frame));
        }
        for i in 1..nodes {
            let frame = frames as i32 - i as i32;
            job.apply(actor(i), 3_000_000, Op::Holds { blobs: vec![BUNDLE] });
            job.apply(actor(i), 3_000_001, claim(frame, i));
            let in_hand = vec![InHand { job: JOB, unit: Unit::whole(frame), percent: 1 }];
            studio.roster.heartbeat(actor(i).node, &beat(actor(i).boot, in_hand), now);
        }
        studio
    }

    fn view(&self) -> View<'_> {
        let Self { roster, jobs, hands, ready, promises, blame } = self;
        View {
            me: actor(0),
            now: Duration::from_secs(100),
            roster,
            jobs,
            hands,
            ready,
            promises,
            blame,
            is_patient: true,
        }
    }

    fn choose(&self) -> Option<Choice> {
        self.view().choose()
    }
}

#[divan::bench(args = [(200, 5), (2_000, 50), (20_000, 500), (100_000, 64)])]
fn choose_a_unit(bencher: Bencher, (frames, nodes): (usize, u32)) {
    let studio = Studio::new(frames, nodes);
    bencher.bench(|| studio.choose());
}

/// Longest look of a turn at a job of [`MAX_UNITS`]: a fifth of a tick.
const LOOK_AT_MOST: Duration = Duration::from_millis(50);
/// Longest choice among 20,000 units and 500 nodes. DESIGN §3, the bar of the farm.
const CHOICE_AT_MOST: Duration = Duration::from_millis(1);
/// Steeper than n log n by so much is too steep: caches and the allocator have their say (guess).
const SLACK: f64 = 0.15;
/// Each is timed so often, and the fastest counts.
const ROUNDS: usize = 7;
/// A round goes on at least so long.
const ROUND: Duration = Duration::from_millis(20);

/// The fastest of a few rounds of doing something, per time it is done.
#[allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn time<T>(mut work: impl FnMut() -> T) -> Duration {
    let round = |work: &mut dyn FnMut() -> T| {
        let (began, mut times) = (std::time::Instant::now(), 0);
        while times == 0 || began.elapsed() < ROUND {
            divan::black_box(work());
            times += 1;
        }
        began.elapsed() / times
    };
    (0..ROUNDS).map(|_| round(&mut work)).min().unwrap_or_default()
}

/// Prints times at each scale and what power of the size they grow with.
fn growth() -> std::process::ExitCode {
    let of = |what: fn(Scale) -> Duration| Scale::ALL.map(what);
    let rows = [
        (
            "merge all",
            of(|scale| {
                let told = told(scale);
                time(|| merged(&told))
            }),
        ),
        ("fold all", of(|scale| time(|| finished(scale.units(), scale.units())))),
        (
            "digest",
            of(|scale| {
                let ledger = merged(&told(scale));
                time(|| compare(&ledger))
            }),
        ),
        (
            "choice",
            of(|scale| {
                let studio = Studio::new(scale.units(), scale.nodes());
                time(|| studio.choose())
            }),
        ),
    ];
    let (small, large) = (Scale(1).units() as f64, Scale(100).units() as f64);
    let power = |ratio: f64| ratio.log10() / (large / small).log10();
    let allowed = power(large * large.ln() / (small * small.ln())) + SLACK;
    println!("{:<10} {:>14} {:>14} {:>14}  grows with", "", Scale(1), Scale(10), Scale(100));
    let mut good = true;
    for (name, times) in rows {
        let power = power(times[2].as_secs_f64() / times[0].as_secs_f64().max(1e-9));
        let verdict = if power <= allowed { "ok" } else { "TOO STEEP" };
        good &= power <= allowed;
        let [a, b, c] = times.map(|time| format!("{:.1} us", 1e6 * time.as_secs_f64()));
        println!("{name:<10} {a:>18} {b:>20} {c:>22}  n^{power:.2} {verdict} (n log n with slack: n^{allowed:.2})");
        if name == "choice" && times[2] > CHOICE_AT_MOST {
            println!("a choice takes {:?}, more than {CHOICE_AT_MOST:?}", times[2]);
            good = false;
        }
    }
    let late = Studio::late(20_000, 500);
    let late = ("a choice near the end of 20,000 units, 500 nodes", time(|| late.choose()), CHOICE_AT_MOST);
    let looks = looks_at_a_million().into_iter().map(|(name, time)| (name, time, LOOK_AT_MOST));
    for (name, time, at_most) in looks.chain([late]) {
        let is_good = time <= at_most;
        println!("{name:<60} {:>10.1} us {}", 1e6 * time.as_secs_f64(), if is_good { "ok" } else { "TOO LONG" });
        good &= is_good;
    }
    std::process::ExitCode::from(u8::from(!good))
}

/// What a machine does every turn about the largest job there may be, half of it rendered, and how long it takes.
fn looks_at_a_million() -> Vec<(&'static str, Duration)> {
    let mut studio = Studio::new(MAX_UNITS, 64);
    let half = MAX_UNITS as i32 / 2;
    let mut looks = vec![("a choice", time(|| studio.choose()))];
    let lamport = std::cell::Cell::new(0);
    let set = |studio: &mut Studio, setting: JobSetting| {
        lamport.set(lamport.get() + 1);
        let set = Op::Set { lamport: lamport.get(), setting, at_ms: 0 };
        studio.jobs.get_mut(&JOB).unwrap().apply(actor(0), 2_000_000 + lamport.get(), set);
    };
    set(&mut studio, JobSetting::MaxNodes(Some(100)));
    looks.push(("a choice, machines limited", time(|| studio.choose())));
    set(&mut studio, JobSetting::MaxNodes(None));
    set(&mut studio, JobSetting::Order(Order::FirstLastMiddle));
    looks.push(("a choice, first-last-middle", time(|| studio.choose())));
    set(&mut studio, JobSetting::Order(Order::Spread));
    // All that one claim may hold, by the one machine that renders the job.
    set(&mut studio, JobSetting::Chunk(Chunk::All));
    let frames: Vec<i32> = (half + 100..).take(MAX_CHUNK as usize).collect();
    let hand = Hand { epoch: 0, kind: ClaimKind::Primary, score: 1, started: None, percent: 0, revision: 0 };
    studio.hands = frames.iter().map(|frame| ((JOB, Unit::whole(*frame)), hand)).collect();
    let claim = Op::Claim { epoch: 0, units: UnitSet::whole(frames).unwrap(), kind: ClaimKind::Primary, score: 1 };
    studio.jobs.get_mut(&JOB).unwrap().apply(actor(0), 3_000_000, claim);
    looks.push(("what to give up, all of it in one chunk", time(|| studio.view().give_up())));
    looks.extend(looks_at_a_million_done());
    looks
}

/// The same when all of it is rendered, of 64 machines one is gone for good, and what that had another holds.
fn looks_at_a_million_done() -> [(&'static str, Duration); 2] {
    let mut studio = Studio::new(MAX_UNITS, 63);
    let (gone, heir) = (actor(63), actor(1));
    let mut job = finished(MAX_UNITS, MAX_UNITS);
    for frame in (63..=MAX_UNITS as i32).step_by(64) {
        job.apply(heir, 2_000_000 + frame as u64, Op::Holds { blobs: vec![blob_of(frame)] });
    }
    studio.jobs.insert(JOB, job);
    studio.roster.connected(gone.node, gone.boot, Duration::ZERO);
    assert_eq!(studio.choose(), None);
    let job = &studio.jobs[&JOB];
    let alive: BTreeSet<NodeId> = (1..63).map(|i| actor(i).node).collect();
    [
        ("a choice, everything rendered, a machine gone", time(|| studio.choose())),
        ("second copies for an absent submitter", time(|| to_replicate(job, heir.node, &alive, 7))),
    ]
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
