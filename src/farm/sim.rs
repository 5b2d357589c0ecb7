//! The simulator: many farms in one process, on a virtual clock, over links, disks and renders that fail.
//!
//! One seed decides everything that happens, so a seed is a bug report. Messages pass through `wire` as they would
//! between machines; rows survive a crash only once their write ended; renders take times drawn per frame. What must
//! always hold ([`Invariant`]) is checked while it runs, then faults stop and everything must come to its end. The same
//! runs are the benchmark of the choices in `schedule`: makespan against its lower bound and against others' policies
//! (`peers`), duplicates, lost claims, idle time, convergence.
//!
//! Reading order: `scenario` (what is simulated), `event` (what happens), this file (the clock), `world` (what effects
//! do), `faults`, `loss` and `liar` (what goes wrong), `invariant`, `check` and `reuse` (what must hold), `report`, `shrink`.
//! Nothing here decides anything for a farm: it only plays the world of `farm/event.rs`.

mod check;
mod event;
mod faults;
mod fold;
mod invariant;
mod jobs;
mod left;
mod liar;
mod loss;
mod machine;
mod net;
mod peers;
mod report;
mod reuse;
mod scenario;
mod shrink;
mod spread;
mod window;
mod world;

pub use check::Violation;
pub use invariant::Invariant;
pub use jobs::{Work, work};
pub use peers::Peers;
pub use report::{Report, Summary};
pub use scenario::{Faults, Scenario, Speeds, scenario, scenarios};
pub use shrink::{Shrunk, shrink};

use super::blob::BlobMap;
use super::event::Input;
use super::id::{ActorId, BlobId, JobId, NodeId, Unit};
use super::message::LogId;
use super::op::{ClaimKind, FailureKind};
use super::planted::{plant, planted};
use crate::seal::Sealer;
use check::Checks;
use event::{Event, Queue};
use jobs::Submission;
use liar::Liar;
use machine::{Machine, capability};
use net::Network;
use peers::Outage;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use spread::Spread;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Where nothing goes wrong, nothing that one machine does reaches another sooner.
const LOOKAHEAD: Duration = Duration::from_millis(1);
/// Between looks at whether everything is done.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// The simulated swarm.
const SWARM: [u8; 32] = [7; 32];
/// Wall clock at the beginning, milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;

/// Runs `scenario` with `seed`.
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    World::new(scenario.clone(), seed).run().0
}

/// The same, and the same history, on up to so many threads where nothing goes wrong.
pub fn run_on(threads: usize, scenario: &Scenario, seed: u64) -> Report {
    if threads < 2 || !scenario.is_calm() {
        return run(scenario, seed);
    }
    let bug = planted();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(move |_| plant(bug)).build();
    let Ok(pool) = pool else { return run(scenario, seed) };
    let mut world = World::new(scenario.clone(), seed);
    world.is_shared = true;
    pool.install(|| window::awake(|| world.run().0))
}

/// Runs `scenario` with `seed`; beside the report, the last `events` things that happened.
pub fn run_logged(scenario: &Scenario, seed: u64, events: usize) -> (Report, Vec<String>) {
    let mut world = World::new(scenario.clone(), seed);
    world.log = Some((events, VecDeque::new()));
    world.run()
}

/// Everything there is.
struct World {
    scenario: Scenario,
    now: Duration,
    queue: Queue,
    rng: StdRng,
    machines: Vec<Machine>,
    by_node: BTreeMap<NodeId, usize>,
    net: Network,
    /// Pairs that keep a connection.
    pairs: BTreeSet<(usize, usize)>,
    submissions: Vec<Submission>,
    /// All jobs any machine announced.
    submitted: BTreeSet<JobId>,
    /// What each result was rendered from.
    drawn_from: BTreeMap<BlobId, BlobId>,
    /// For which unit of which job, and in which epochs, each result was rendered.
    drawn_for: BTreeMap<BlobId, BTreeSet<(JobId, Unit, u32)>>,
    /// What each machine said last of a result that it takes over, until it says which.
    taking: BTreeMap<usize, (JobId, Unit, JobId)>,
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
    /// What each machine claimed and has neither rendered nor given up.
    claims: BTreeMap<(usize, JobId, Unit), ClaimKind>,
    /// How many honest machines render each unit that any does.
    copies: BTreeMap<(JobId, Unit), usize>,
    /// Own ops that became durable and are not everywhere yet.
    spreading: BTreeMap<(LogId, ActorId, u64), Spread>,
    outages: Vec<Outage>,
    liars: BTreeMap<usize, Liar>,
    /// Whether several threads call farms.
    is_shared: bool,
    log: Option<(usize, VecDeque<String>)>,
}

impl World {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = scenario.nodes;
        let has_keys = scenario.liars > 0 || scenario.real_seal;
        let machines: Vec<Machine> = (0..nodes)
            .map(|i| {
                let secret: [u8; 32] = rng.random();
                let key = has_keys.then_some(secret);
                let is_fit = i >= scenario.misfits;
                let mut capability = capability(format!("m{i}"), scenario.slots, is_fit);
                if scenario.rules {
                    capability.tags.extend((i % 2 == 0).then(|| jobs::TAG.to_owned()));
                    capability.memory_bytes = if i % 3 == 0 { jobs::MEMORY.0 } else { jobs::MEMORY.1 };
                }
                Machine {
                    node: key.map_or(NodeId(secret), |key| Sealer::from_seed(&key).node()),
                    key,
                    speed: scenario.speed(i, rng.random()),
                    is_fit,
                    capability,
                    farm: None,
                    life: 0,
                    rng: StdRng::seed_from_u64(rng.random()),
                    disk: machine::Disk::default(),
                    blobs: machine::Blobs::default(),
                    folder: BTreeMap::new(),
                    renders: BTreeMap::new(),
                    offset: Duration::from_millis(rng.random_range(0..100_000)),
                    asleep_until: Duration::ZERO,
                    woke: None,
                    wake_at: None,
                    uplink: Duration::ZERO,
                    downlink: Duration::ZERO,
                    is_at_desk: false,
                    is_leaving: false,
                    away: Some((peers::Away::Gone, Duration::ZERO)),
                }
            })
            .collect();
        let by_node = machines.iter().enumerate().map(|(i, machine)| (machine.node, i)).collect();
        let pairs = net::topology(nodes).collect();
        let mut world = Self {
            now: Duration::ZERO,
            queue: Queue::default(),
            machines,
            by_node,
            net: Network::new(nodes),
            pairs,
            submissions: Vec::new(),
            submitted: BTreeSet::new(),
            drawn_from: BTreeMap::new(),
            drawn_for: BTreeMap::new(),
            taking: BTreeMap::new(),
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
            claims: BTreeMap::new(),
            copies: BTreeMap::new(),
            spreading: BTreeMap::new(),
            outages: Vec::new(),
            liars: BTreeMap::new(),
            is_shared: false,
            log: None,
            rng,
            scenario,
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        self.prepare_jobs();
        let owners: BTreeSet<usize> = self.submissions.iter().map(|submission| submission.owner).collect();
        for machine in 0..self.machines.len() {
            // Whoever submits is there from the beginning.
            let late = self.scenario.faults.late.filter(|_| machine % 2 == 1 && !owners.contains(&machine));
            let most = late.map_or(1000, |late| late.as_millis() as u64);
            let after = self.millis(0, most.max(1));
            self.plan(after, Event::Start { machine });
        }
        for (a, b) in self.pairs.clone() {
            let after = self.millis(1000, 2500);
            self.plan(after, Event::Dial { a, b });
        }
        self.prepare_faults();
        self.plan(CHECK_EVERY, Event::Check);
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.plan_at(self.now + after, event);
    }

    fn plan_at(&mut self, at: Duration, event: Event) {
        self.queue.push(at.max(self.now), event);
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

    fn run(mut self) -> (Report, Vec<String>) {
        let deadline = self.scenario.faults.until + self.scenario.patience;
        let is_calm = self.scenario.is_calm();
        while let Some((at, event)) = self.queue.pop() {
            // What waited for a window to end was planned for earlier.
            self.now = self.now.max(at);
            if self.now > deadline {
                let detail = self.what_is_left();
                self.fail(Invariant::EverythingEnds, detail);
            }
            if self.report.violation.is_some() {
                break;
            }
            if matches!(event, Event::Check) && self.is_finished() {
                self.check_end();
                break;
            }
            match is_calm {
                true => self.happen_at_once(at, event),
                false => self.happen(event),
            }
            self.check_now_and_then();
        }
        let log = self.log.take().unwrap_or_default().1.into();
        (self.finish(), log)
    }

    /// Notes what happens, if anybody wants to know.
    fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some((most, log)) = &mut self.log {
            if log.len() >= *most {
                log.pop_front();
            }
            log.push_back(format!("{:>9.3} s {}", now.as_secs_f64(), what()));
        }
    }

    fn happen(&mut self, event: Event) {
        let asleep = event.concerns().map(|machine| self.machines[machine].asleep_until);
        if let Some(until) = asleep.filter(|until| *until > self.now) {
            self.plan_at(until, event);
            return;
        }
        // What messages and ticks do shows in the effects.
        if !matches!(event, Event::Wake { .. } | Event::Arrive { .. } | Event::Input { .. } | Event::Check) {
            self.note(|| event::short(&event));
        }
        match event {
            Event::Wake { to, life, at } => {
                if self.wakes(to, life, at) {
                    self.feed(to, Input::Tick);
                }
            }
            Event::Input { to, life, input } => {
                if self.machines[to].life == life {
                    let input = self.as_it_is_now(to, *input);
                    self.feed(to, input);
                }
            }
            Event::Arrive { to, from, link, packet } => {
                if self.arrives(to, from, link) {
                    self.arrive(to, from, packet);
                }
            }
            Event::Answer { to, life, of, link, request } => self.answer(to, life, of, link, request),
            Event::Committed { to, life } => self.committed(to, life),
            Event::RenderEnd { to, life, job, unit, serial } => self.render_ends(to, life, job, unit, serial),
            Event::RenderProgress { to, life, job, unit, serial } => self.render_goes_on(to, life, job, unit, serial),
            Event::Deliver { to, life, job, unit, epoch, blobs } => self.deliver(to, life, job, unit, epoch, blobs),
            Event::Close { at, other, link } => self.close(at, other, link),
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
            Event::Heal => self.heal(),
            Event::Split { until } => self.split(until),
            Event::OneWay => self.one_way(),
            Event::BothWays { from, to } => {
                self.net.deafen(from, to, false);
                self.spread_anew();
            }
            Event::Suspend => self.suspend(),
            Event::Awake { machine } => self.awake(machine),
            Event::Pause { machine } => self.pause(machine),
            Event::Owner => self.owner(),
            Event::Drain => self.drain(),
            Event::Drained { machine, life } => self.drained(machine, life),
            Event::BadDisk { full } => self.bad_disk(full),
            Event::Gone => self.some_result_goes(),
            Event::Look { machine, life } => self.look(machine, life),
            Event::Command => self.command(),
            Event::Chat => self.chat(),
            Event::Lie { machine } => self.lie(machine),
            Event::Peace => self.make_peace(),
            Event::Check => self.plan(CHECK_EVERY, Event::Check),
        }
    }

    /// Whether a farm is to be called at the time it asked for. Only once.
    fn wakes(&mut self, to: usize, life: u32, at: Duration) -> bool {
        let machine = &mut self.machines[to];
        machine.life == life && machine.wake_at.take_if(|asked| *asked == at).is_some()
    }

    /// A new connection, also in the place of one that only one end still takes for open: as with real ones, that end goes
    /// on with the new one and says nothing, unless it leads to another start.
    fn dial(&mut self, a: usize, b: usize) {
        let was_open = [(a, b), (b, a)].map(|(me, other)| self.net.open_at(me, other).is_some());
        if was_open == [true; 2] {
            return;
        }
        let awake = |machine: &Machine| machine.is_up() && machine.asleep_until <= self.now;
        if !awake(&self.machines[a]) || !awake(&self.machines[b]) || !self.net.reaches(a, b) {
            let after = self.millis(300, 2000);
            self.plan(after, Event::Dial { a, b });
            return;
        }
        self.net.connect(a, b);
        self.report.links = self.report.links.max(self.net.count());
        for ((me, other), was_open) in [(a, b), (b, a)].into_iter().zip(was_open) {
            let Some(boot) = self.machines[other].farm.as_ref().map(|farm| farm.me().boot) else { continue };
            let node = self.machines[other].node;
            if was_open {
                let knows =
                    |farm: &super::Farm| farm.roster().member(node).is_some_and(|member| member.boot == Some(boot));
                if self.machines[me].farm.as_ref().is_some_and(knows) {
                    continue;
                }
                self.feed(me, Input::Disconnected { node });
            }
            self.feed(me, Input::Connected { node, boot });
        }
    }

    fn close(&mut self, at: usize, other: usize, link: u64) {
        if self.net.close_at(at, other, link) {
            self.feed(at, Input::Disconnected { node: self.machines[other].node });
        }
        let stands = self.net.open_at(at, other).is_some() && self.net.open_at(other, at).is_some();
        if !stands && self.pairs.contains(&(at.min(other), at.max(other))) {
            let after = self.millis(300, 2000);
            self.plan(after, Event::Dial { a: at, b: other });
        }
    }

    fn trace(&mut self, value: u64) {
        self.report.trace = (self.report.trace ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
    }

    fn finish(mut self) -> Report {
        let started = self.started.unwrap_or_default();
        let last = self.first_results.values().max().copied().unwrap_or(started);
        let workload = self.workload();
        let slots: u32 = workload.machines.iter().map(|(_, slots)| slots).sum();
        self.report.simulated = self.now;
        self.report.makespan = last.saturating_sub(started);
        self.report.bound = workload.bound();
        self.report.peers = workload.peers();
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

#[cfg(test)]
mod tests;
