//! The simulator: many farms in one thread, on a virtual clock, over links, disks and renders that fail.
//!
//! One seed decides everything that happens, so a seed is a bug report. Messages pass through `wire` as they would
//! between machines; rows survive a crash only once their write ended; renders take times drawn per frame. What must
//! always hold is checked while it runs (`check`), then faults stop and everything must come to its end. The same runs
//! are the benchmark of the choices in `schedule`: makespan against its lower bound, duplicates, idle time.
//!
//! Nothing here decides anything for a farm: it only plays the world of `farm/event.rs`.

mod check;
mod faults;
mod machine;
mod net;
mod scenario;
mod world;

pub use check::Violation;
pub use scenario::{Faults, Scenario, scenario, scenarios};

use super::Farm;
use super::blob::{BlobMap, BundleFile, CHUNK_AVERAGE_BYTES, ChunkRef, Manifest, chunk_id};
use super::event::Input;
use super::id::{ActorId, BlobId, JobId, NodeId, Unit};
use super::job::{Device, FrameRate, FrameSet, ImageFormat, JobSpec, Needs, OutputSpec, RenderSettings, Series};
use super::message::{LogId, Message};
use super::op::FailureKind;
use super::rules::Rules;
use crate::wire;
use check::Checks;
use machine::{Machine, capability};
use net::Network;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

/// Between checks of what must hold everywhere.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The simulated swarm.
const SWARM: [u8; 32] = [7; 32];
/// Wall clock at the beginning, milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;

/// How one simulation went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Why it was stopped, if it was.
    pub violation: Option<Violation>,
    /// Simulated time it took in all.
    pub simulated: Duration,
    /// From the first submission to the last first result.
    pub makespan: Duration,
    /// From the first submission until every owner had everything.
    pub delivered: Duration,
    /// No schedule could be shorter: all work at all speeds.
    pub bound: Duration,
    /// Units that got a result.
    pub units: usize,
    /// Results beyond the first of a unit and epoch.
    pub duplicates: usize,
    /// Renders stopped before their end.
    pub stopped: usize,
    /// Share of the slots' time until the makespan in which nothing that became a first result was rendered.
    pub idle: f64,
    /// From a machine's death until another began what it rendered.
    pub takeovers: Vec<Duration>,
    /// From an op's being durable until every machine had it; only where nothing goes wrong.
    pub spread: Vec<Duration>,
    /// Messages sent.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Inputs handled.
    pub inputs: u64,
    /// A hash of everything that happened: equal for equal seeds.
    pub trace: u64,
}

/// Runs `scenario` with `seed`.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    World::new(scenario.clone(), seed).run()
}

/// What is to happen to whom.
#[derive(Debug)]
enum Event {
    /// A farm asked to be called.
    Wake { to: usize, life: u32, at: Duration },
    /// Something completes on a machine.
    Input { to: usize, life: u32, input: Box<Input> },
    /// A message arrives.
    Arrive { to: usize, from: usize, link: u64, bytes: Vec<u8> },
    /// A request over the network is answered, or its connection is gone.
    Answer { to: usize, life: u32, of: usize, link: u64, request: Request },
    /// The disk ended a write.
    Committed { to: usize, life: u32 },
    /// A render ends.
    RenderEnd { to: usize, life: u32, job: JobId, unit: Unit, serial: u64 },
    /// A render tells its progress.
    RenderProgress { to: usize, life: u32, job: JobId, unit: Unit, serial: u64 },
    /// Files come to lie under their final names.
    Deliver { to: usize, life: u32, job: JobId, unit: Unit, epoch: u32, blobs: Vec<BlobId> },
    /// One end notices that its connection is gone.
    Close { at: usize, other: usize, link: u64 },
    /// A connection is tried.
    Dial { a: usize, b: usize },
    /// Somebody submits a job.
    Submit { job: usize },
    /// A machine dies.
    Crash,
    /// It comes back.
    Start { machine: usize },
    /// A machine dies and stays away.
    Leave { machine: usize },
    /// It comes back.
    Return { machine: usize },
    /// The network is cut.
    Cut,
    /// It heals.
    Heal,
    /// A machine is suspended.
    Suspend,
    /// An owner pauses a machine, or lifts it.
    Pause { machine: Option<usize> },
    /// Somebody commands a job.
    Command,
    /// Somebody sets a job's priority: an op to follow through the swarm.
    Chat,
    /// Faults are over.
    Peace,
    /// Look at everything.
    Check,
}

/// What one machine asks of another's store.
#[derive(Clone, Copy, Debug)]
enum Request {
    Map(BlobId),
    Have(BlobId),
    Chunk(BlobId, u32),
}

/// An event in its place: earlier first, then as they were made.
#[derive(Debug)]
struct Scheduled {
    at: Duration,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A job the simulation submitted.
struct Submission {
    owner: usize,
    spec: JobSpec,
    /// Which start of the owner was asked and has not answered.
    asked: Option<u32>,
}

/// Everything there is.
struct World {
    scenario: Scenario,
    now: Duration,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    rng: StdRng,
    machines: Vec<Machine>,
    by_node: BTreeMap<NodeId, usize>,
    net: Network,
    submissions: Vec<Submission>,
    /// All jobs any machine announced.
    submitted: BTreeSet<JobId>,
    /// Jobs that any machine forgot for good.
    retired: BTreeSet<JobId>,
    maps: BTreeMap<BlobId, BlobMap>,
    manifests: BTreeMap<BlobId, Vec<BlobMap>>,
    checks: Checks,
    report: Report,
    started: Option<Duration>,
    first_results: BTreeMap<(JobId, Unit, u32), Duration>,
    useful: Duration,
    serial: u64,
    peace: bool,
    /// Units whose machine died: which, when.
    orphans: BTreeMap<(JobId, Unit), (usize, Duration)>,
    /// Own ops that became durable and are not everywhere yet: when, and how many machines lack them.
    spreading: BTreeMap<(LogId, ActorId, u64), (Duration, usize)>,
}

impl World {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = scenario.nodes;
        let (slow, fast) = scenario.speeds;
        let machines: Vec<Machine> = (0..nodes)
            .map(|i| Machine {
                node: NodeId(rng.random()),
                speed: rng.random_range(slow..=fast),
                capability: capability(format!("m{i}"), scenario.slots),
                farm: None,
                life: 0,
                rng: StdRng::seed_from_u64(rng.random()),
                disk: machine::Disk::default(),
                blobs: machine::Blobs::default(),
                folder: BTreeMap::new(),
                renders: BTreeMap::new(),
                offset: Duration::from_millis(rng.random_range(0..100_000)),
                asleep_until: Duration::ZERO,
                wake_at: None,
                uplink: Duration::ZERO,
                downlink: Duration::ZERO,
            })
            .collect();
        let by_node = machines.iter().enumerate().map(|(i, machine)| (machine.node, i)).collect();
        let mut world = Self {
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            order: 0,
            machines,
            by_node,
            net: Network::new(nodes),
            submissions: Vec::new(),
            submitted: BTreeSet::new(),
            retired: BTreeSet::new(),
            maps: BTreeMap::new(),
            manifests: BTreeMap::new(),
            checks: Checks::default(),
            report: Report { seed, ..Report::default() },
            started: None,
            first_results: BTreeMap::new(),
            useful: Duration::ZERO,
            serial: 0,
            peace: false,
            orphans: BTreeMap::new(),
            spreading: BTreeMap::new(),
            rng,
            scenario,
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        for machine in 0..self.machines.len() {
            let after = Duration::from_millis(self.rng.random_range(0..1000));
            self.plan(after, Event::Start { machine });
        }
        for (a, b) in Network::pairs(self.machines.len()) {
            let after = self.millis(1000, 2500);
            self.plan(after, Event::Dial { a, b });
        }
        for job in 0..self.scenario.jobs {
            let owner = self.rng.random_range(0..self.machines.len());
            let spec = self.make_job(job, owner);
            self.submissions.push(Submission { owner, spec, asked: None });
            // Spread over the time of faults, so that there is work throughout.
            let share = self.scenario.faults.until / self.scenario.jobs.max(1) as u32;
            let after = Duration::from_secs(3) + (share * job as u32).max(Duration::from_secs(2 * job as u64));
            self.plan(after, Event::Submit { job });
        }
        let faults = self.scenario.faults.clone();
        let kinds = [
            (faults.crash, Event::Crash),
            (faults.partition, Event::Cut),
            (faults.suspend, Event::Suspend),
            (faults.pause, Event::Pause { machine: None }),
            (faults.command, Event::Command),
            (self.scenario.chat, Event::Chat),
        ];
        for (mean, event) in kinds {
            if let Some(mean) = mean {
                let after = Duration::from_secs(3) + self.around(mean);
                self.plan(after, event);
            }
        }
        if let Some((leaves, returns)) = faults.away {
            let owner = self.submissions[0].owner;
            self.plan(leaves, Event::Leave { machine: owner });
            self.plan(returns, Event::Return { machine: owner });
        }
        self.plan(faults.until, Event::Peace);
        self.plan(CHECK_EVERY, Event::Check);
    }

    /// A job of the scenario, its bundle in the owner's store.
    fn make_job(&mut self, job: usize, owner: usize) -> JobSpec {
        let seed: u64 = self.rng.random();
        let mut files: Vec<BundleFile> = (0..self.scenario.files)
            .map(|i| {
                let chunks = self.scenario.file_bytes.div_ceil(u64::from(CHUNK_AVERAGE_BYTES));
                let id = |chunk: u64| {
                    chunk_id(&[seed.to_le_bytes(), (i as u64).to_le_bytes(), chunk.to_le_bytes()].concat())
                };
                let chunks = (0..chunks).map(|chunk| ChunkRef { id: id(chunk), bytes: CHUNK_AVERAGE_BYTES }).collect();
                BundleFile { path: format!("f/{i:04}/file"), executable: false, map: BlobMap { chunks } }
            })
            .collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest { main: "f/0000/file".into(), files };
        let bytes = wire::encode_manifest(&manifest).unwrap_or_default();
        let map = BlobMap { chunks: vec![ChunkRef { id: chunk_id(&bytes), bytes: bytes.len() as u32 }] };
        let bundle = map.id();
        let files = Farm::manifest_files(&bytes).unwrap_or_default();
        for map in files.iter().chain([&map]) {
            self.maps.insert(map.id(), map.clone());
            self.machines[owner].blobs.whole.insert(map.id());
        }
        self.manifests.insert(bundle, files);
        let frames = FrameSet::from_frames((1..=self.scenario.frames as i32).collect());
        let (major, minor, _) = machine::VERSION;
        JobSpec {
            name: format!("job{job}"),
            file: "/scene.blend".into(),
            user: "user".into(),
            bundle,
            bundle_bytes: self.scenario.file_bytes * self.scenario.files as u64,
            frames: frames.unwrap_or_else(|| unreachable!("a scenario has frames")),
            series: Series { major, minor },
            min_version: 40500,
            settings: RenderSettings { device: Device::Auto, ..RenderSettings::default() },
            needs: Needs::default(),
            format: ImageFormat::Png,
            size: (1920, 1080),
            rate: FrameRate { fps: 24, base_millionths: 1_000_000 },
            output: OutputSpec {
                directory: "/out".into(),
                prefix: "f_".into(),
                suffix: String::new(),
                digits: 4,
                video: Some("/out.mp4".into()),
            },
            priority: 50,
            rules: Rules::default(),
            nonce: seed,
            created_ms: WALL_MS,
        }
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.plan_at(self.now + after, event);
    }

    fn plan_at(&mut self, at: Duration, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), order: self.order, event }));
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..to))
    }

    /// Half to one and a half of `mean`.
    fn around(&mut self, mean: Duration) -> Duration {
        mean / 2 + mean.mul_f64(self.rng.random())
    }

    fn chance(&mut self, ppm: u32) -> bool {
        !self.peace && ppm > 0 && self.rng.random_range(0..1_000_000) < ppm
    }

    fn run(mut self) -> Report {
        let deadline = self.scenario.faults.until + self.scenario.patience;
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now = next.at;
            if self.now > deadline {
                let detail = self.what_is_left();
                self.fail("everything comes to its end once faults stop", detail);
            }
            if self.report.violation.is_some() {
                break;
            }
            if matches!(next.event, Event::Check) && self.is_finished() {
                self.check_end();
                break;
            }
            self.happen(next.event);
        }
        self.finish()
    }

    fn happen(&mut self, event: Event) {
        // A sleeping machine takes everything when it wakes, in order.
        let asleep = match &event {
            Event::Wake { to, .. }
            | Event::Input { to, .. }
            | Event::Arrive { to, .. }
            | Event::Answer { to, .. }
            | Event::Committed { to, .. }
            | Event::RenderEnd { to, .. }
            | Event::RenderProgress { to, .. }
            | Event::Deliver { to, .. } => Some(*to),
            Event::Close { at, .. } => Some(*at),
            _ => None,
        };
        if let Some(until) = asleep.map(|machine| self.machines[machine].asleep_until).filter(|until| *until > self.now)
        {
            self.plan_at(until, event);
            return;
        }
        match event {
            Event::Wake { to, life, at } => {
                if self.machines[to].life == life && self.machines[to].wake_at == Some(at) {
                    self.machines[to].wake_at = None;
                    self.feed(to, Input::Tick);
                }
            }
            Event::Input { to, life, input } => {
                if self.machines[to].life == life {
                    self.feed(to, *input);
                }
            }
            Event::Arrive { to, from, link, bytes } => self.arrive(to, from, link, &bytes),
            Event::Answer { to, life, of, link, request } => self.answer(to, life, of, link, request),
            Event::Committed { to, life } => self.committed(to, life),
            Event::RenderEnd { to, life, job, unit, serial } => self.render_ends(to, life, job, unit, serial),
            Event::RenderProgress { to, life, job, unit, serial } => self.render_goes_on(to, life, job, unit, serial),
            Event::Deliver { to, life, job, unit, epoch, blobs } => self.deliver(to, life, job, unit, epoch, blobs),
            Event::Close { at, other, link } => {
                if self.net.close_at(at, other, link) {
                    self.feed(at, Input::Disconnected { node: self.machines[other].node });
                }
                if !self.net.exists(at, other) {
                    let after = self.millis(300, 2000);
                    self.plan(after, Event::Dial { a: at, b: other });
                }
            }
            Event::Dial { a, b } => self.dial(a, b),
            Event::Submit { job } => self.submit(job),
            Event::Crash => self.crash(),
            Event::Start { machine } => self.start(machine),
            Event::Leave { machine } => self.die(machine),
            Event::Return { machine } => {
                self.check_away(machine);
                self.start(machine);
            }
            Event::Cut => self.cut(),
            Event::Heal => self.net.heal(),
            Event::Suspend => self.suspend(),
            Event::Pause { machine } => self.pause(machine),
            Event::Command => self.command(),
            Event::Chat => self.chat(),
            Event::Peace => self.make_peace(),
            Event::Check => {
                self.check();
                self.plan(CHECK_EVERY, Event::Check);
            }
        }
    }

    fn dial(&mut self, a: usize, b: usize) {
        if self.net.exists(a, b) {
            return;
        }
        let awake = |machine: &Machine| machine.is_up() && machine.asleep_until <= self.now;
        if !awake(&self.machines[a]) || !awake(&self.machines[b]) || !self.net.reaches(a, b) {
            let after = self.millis(300, 2000);
            self.plan(after, Event::Dial { a, b });
            return;
        }
        self.net.connect(a, b);
        for (me, other) in [(a, b), (b, a)] {
            let Some(boot) = self.machines[other].farm.as_ref().map(|farm| farm.me().boot) else { continue };
            let node = self.machines[other].node;
            self.feed(me, Input::Connected { node, boot });
        }
    }

    fn submit(&mut self, job: usize) {
        let (owner, spec) = (self.submissions[job].owner, self.submissions[job].spec.clone());
        let machine = &self.machines[owner];
        if !machine.is_up() || machine.asleep_until > self.now {
            self.plan(Duration::from_secs(1), Event::Submit { job });
            return;
        }
        self.submissions[job].asked = Some(machine.life);
        self.started.get_or_insert(self.now);
        self.feed(owner, Input::Submit { call: job as u64, spec: Box::new(spec) });
    }

    fn trace(&mut self, value: u64) {
        self.report.trace = (self.report.trace ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
    }

    fn finish(mut self) -> Report {
        let started = self.started.unwrap_or_default();
        let last = self.first_results.values().max().copied().unwrap_or(started);
        let speed: u64 = self.machines.iter().map(|m| u64::from(m.speed * m.capability.slots)).sum();
        let work: Duration = (0..self.submissions.len())
            .flat_map(|job| (1..=self.scenario.frames as i32).map(move |frame| (job, frame)))
            .map(|(job, frame)| self.frame_time(self.submissions[job].spec.nonce, frame))
            .sum();
        let slots: u32 = self.machines.iter().map(|m| m.capability.slots).sum();
        self.report.simulated = self.now;
        self.report.makespan = last.saturating_sub(started);
        self.report.bound = work.mul_f64(100.0 / speed as f64);
        self.report.units = self.first_results.len();
        let offered = self.report.makespan.as_secs_f64() * f64::from(slots);
        self.report.idle = if offered > 0.0 { 1.0 - self.useful.as_secs_f64() / offered } else { 0.0 };
        self.report
    }
}

/// The inputs of a failed render.
fn failure(rng: &mut StdRng) -> (FailureKind, String) {
    let kinds = [FailureKind::Crash, FailureKind::Error, FailureKind::NoOutput, FailureKind::Stalled];
    (kinds[rng.random_range(0..kinds.len())], "simulated".into())
}

/// A message as the other side reads it.
fn read(bytes: &[u8]) -> Option<Message> {
    wire::decode(bytes).ok().flatten()
}

#[cfg(test)]
mod tests;
