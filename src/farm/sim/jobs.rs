//! What is submitted, and what its frames cost.

use super::event::Event;
use super::machine::{CURRENT, Machine};
use super::peers::Workload;
use super::scenario::Scenario;
use super::{WALL_MS, World};
use crate::farm::Farm;
use crate::farm::ability::Abilities;
use crate::farm::blob::{BlobMap, BundleFile, CHUNK_AVERAGE_BYTES, ChunkRef, Manifest, chunk_id};
use crate::farm::event::Input;
use crate::farm::frames::FrameSet;
use crate::farm::id::{BlobId, JobId};
use crate::farm::job::{Colours, JobSpec, OutputSpec, RenderSettings, Revision, Series};
use crate::farm::rules::{Chunk, MAX_RETRIES, Order, Rules};
use crate::wire;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// Memory of a small machine, and of a large one, bytes.
pub(super) const MEMORY: (u64, u64) = (4 << 30, 16 << 30);
/// The tag that some machines have.
pub(super) const TAG: &str = "even";
/// Kinds of [`rules`]; the last waits for another job.
const KINDS: usize = 6;

/// What a job demands where jobs demand something.
fn rules(job: usize) -> Rules {
    let mut rules = Rules::default();
    match job % KINDS {
        0 => (rules.tags, rules.retries) = ([TAG.to_owned()].into(), MAX_RETRIES),
        1 => rules.max_nodes = Some(2),
        2 => (rules.min_memory_bytes, rules.retries) = (Some(MEMORY.1), 0),
        3 => rules.chunk = Chunk::All,
        4 => (rules.order, rules.chunk) = (Order::FirstLastMiddle, Chunk::Units(4)),
        _ => rules.order = Order::Forward,
    }
    rules
}

/// A job the simulation submitted.
pub(super) struct Submission {
    pub owner: usize,
    pub spec: JobSpec,
    /// What it is called, once it is.
    pub id: Option<JobId>,
    /// When it was first submitted.
    pub at: Option<Duration>,
    /// Which start of the owner was asked and has not answered.
    pub asked: Option<u32>,
}

/// What a seed gives a swarm to do, for having real machines do the same.
#[derive(Clone, Debug)]
pub struct Work {
    /// The machine that submits the first job.
    pub owner: usize,
    /// Of each machine, hundredths of speed 1.
    pub speeds: Vec<u32>,
    /// Time of each frame of that job at speed 1.
    pub frames: Vec<Duration>,
}

/// What [`super::run`] would simulate.
pub fn work(scenario: &Scenario, seed: u64) -> Work {
    let world = World::new(scenario.clone(), seed);
    let first = world.submissions.first();
    Work {
        owner: first.map_or(0, |job| job.owner),
        speeds: world.machines.iter().map(|machine| machine.speed).collect(),
        frames: first.map(|job| world.frame_times(job.spec.nonce)).unwrap_or_default(),
    }
}

impl World {
    /// All jobs, and when each is to be submitted.
    pub(super) fn prepare_jobs(&mut self) {
        let honest = self.scenario.nodes - self.scenario.liars;
        for job in 0..self.scenario.jobs {
            let owner = self.rng.random_range(0..honest);
            let spec = self.make_job(job, owner);
            self.submissions.push(Submission { owner, spec, id: None, at: None, asked: None });
            // Spread over the time of faults, so that there is work throughout.
            let share = self.scenario.faults.until / self.scenario.jobs.max(1) as u32;
            let after = Duration::from_secs(3) + (share * job as u32).max(Duration::from_secs(2 * job as u64));
            self.plan(after, Event::Submit { job });
        }
    }

    /// A job of the scenario, its bundle in the owner's store.
    fn make_job(&mut self, job: usize, owner: usize) -> JobSpec {
        let mut seed: u64 = self.rng.random();
        if let Some(first) = self.submissions.first().filter(|_| self.scenario.shared) {
            seed = first.spec.nonce;
        }
        let bundle = self.make_bundle(seed, owner);
        let frames = FrameSet::from_frames((1..=self.scenario.frames as i32).collect());
        let (major, minor, _) = CURRENT;
        let frames = frames.unwrap_or_else(|| unreachable!("a scenario has frames"));
        let usual = JobSpec::new(bundle, frames, Series { major, minor });
        let zip = (job % 2 == 1).then(|| format!("/job{job}.zip"));
        JobSpec {
            name: format!("job{job}"),
            bundle_bytes: self.scenario.file_bytes * self.scenario.files as u64,
            min_version: 40500,
            nonce: seed,
            created_ms: WALL_MS,
            // Those that few machines may render come first, so that all would.
            priority: if matches!(job % KINDS, 1 | 3) && self.scenario.rules { 90 } else { 50 },
            rules: if self.scenario.rules { rules(job) } else { Rules::default() },
            output: OutputSpec { zip, ..usual.output.clone() },
            settings: RenderSettings {
                samples: (self.scenario.shared && job % 3 == 2).then_some(64),
                ..RenderSettings::default()
            },
            reuse: self.scenario.shared.then_some(Colours::Renderer),
            ..usual
        }
    }

    /// What a person changed of a job's scene, its bundle in the store of the machine they changed it on.
    pub(super) fn make_revision(&mut self, machine: usize) -> Revision {
        let seed: u64 = self.rng.random();
        Revision {
            file: "/changed.blend".into(),
            bundle: self.make_bundle(seed, machine),
            bundle_bytes: self.scenario.file_bytes * self.scenario.files as u64,
            min_version: 40500,
            settings: RenderSettings::default(),
            needs: Abilities::NONE,
        }
    }

    /// A bundle in a machine's store.
    fn make_bundle(&mut self, seed: u64, owner: usize) -> BlobId {
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
        bundle
    }

    pub(super) fn submit(&mut self, job: usize) {
        let (owner, mut spec) = (self.submissions[job].owner, self.submissions[job].spec.clone());
        // Its frames hardly ever fail for good: nothing would ever begin after it.
        spec.rules.after = self.submissions[0].id.filter(|_| self.scenario.rules && job % KINDS == KINDS - 1);
        let machine = &self.machines[owner];
        if !machine.is_up() || machine.asleep_until > self.now {
            self.plan(Duration::from_secs(1), Event::Submit { job });
            return;
        }
        self.submissions[job].asked = Some(machine.life);
        self.submissions[job].at.get_or_insert(self.now);
        self.started.get_or_insert(self.now);
        self.feed(owner, Input::Submit { call: job as u64, spec: Box::new(spec), kept: Vec::new() });
    }

    /// Time of a frame at speed 1: log-normal, the same wherever it is rendered.
    pub(super) fn frame_time(&self, nonce: u64, frame: i32) -> Duration {
        let mut rng = StdRng::seed_from_u64(nonce ^ (frame as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        // Box and Muller.
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        self.scenario.render.mul_f64((self.scenario.sigma * normal).exp())
    }

    fn frame_times(&self, nonce: u64) -> Vec<Duration> {
        (1..=self.scenario.frames as i32).map(|frame| self.frame_time(nonce, frame)).collect()
    }

    /// The farm draws its own nonce for a job; frame times go by the one the simulation drew.
    pub(super) fn nonce_of(&self, bundle: BlobId) -> Option<u64> {
        self.submissions.iter().map(|submission| &submission.spec).find(|spec| spec.bundle == bundle).map(|s| s.nonce)
    }

    /// All there was to do, for comparing with others' policies.
    pub(super) fn workload(&self) -> Workload {
        let jobs =
            self.submissions.iter().filter_map(|job| Some((job.at?, self.frame_times(job.spec.nonce)))).collect();
        let slots = |machine: &Machine| if machine.is_fit { machine.capability.slots } else { 0 };
        let machines = self.machines.iter().map(|machine| (machine.speed, slots(machine))).collect();
        let mut outages = self.outages.clone();
        outages.extend(self.machines.iter().enumerate().filter_map(|(i, machine)| machine.outage(i, self.now)));
        Workload { jobs, machines, outages }
    }
}
