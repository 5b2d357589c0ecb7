//! What is simulated: how many machines, what they render, and what goes wrong.
//!
//! Scenarios that measure (`modal-gpu`, `modal-cpu`, `argo`, `office`, `big`, `farm` …) have one job and little bad luck;
//! those that search (`churn`, `split-brain`, `suspend`, `liars`, `chaos` …) are small, so that a gate can afford hundreds.

use std::time::Duration;

/// What goes wrong, until when. A rate of `None` or 0 means never.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// From then on nothing new goes wrong, everyone is up, connected and willing.
    pub until: Duration,
    /// Messages dropped, per million: full queues.
    pub loss_ppm: u32,
    /// Messages that arrive twice, per million.
    pub duplicate_ppm: u32,
    /// Messages that overtake others, per million.
    pub overtake_ppm: u32,
    /// Renders that fail, per million.
    pub failure_ppm: u32,
    /// Deliveries that fail, per million.
    pub delivery_ppm: u32,
    /// Inputs after which a machine dies having performed only some of the effects, per million.
    pub torn_ppm: u32,
    /// Whether what was written without a sync can be gone after a crash.
    pub unsynced: bool,
    /// Mean time between crashes, somewhere.
    pub crash: Option<Duration>,
    /// Mean time between cuts of the network.
    pub partition: Option<Duration>,
    /// The network is in two halves from the one time to the other.
    pub split: Option<(Duration, Duration)>,
    /// Mean time between links that work one way only, somewhere.
    pub one_way: Option<Duration>,
    /// Mean time between suspends, somewhere.
    pub suspend: Option<Duration>,
    /// Mean time between an owner pausing a machine, somewhere.
    pub pause: Option<Duration>,
    /// Mean time between an owner coming back and wanting all of the machine at once, somewhere.
    pub owner: Option<Duration>,
    /// Mean time between a machine leaving politely, somewhere.
    pub drain: Option<Duration>,
    /// Every other machine first starts at some time up to this.
    pub late: Option<Duration>,
    /// Mean time between a disk becoming slow for a while, somewhere.
    pub slow_disk: Option<Duration>,
    /// Mean time between a disk being full for a while, somewhere.
    pub full_disk: Option<Duration>,
    /// Mean time between stored results being gone, somewhere: all of one result, or one of its copies.
    pub gone: Option<Duration>,
    /// Mean time between commands to jobs.
    pub command: Option<Duration>,
    /// Mean time between lies, of each liar.
    pub lie: Option<Duration>,
    /// The first job's owner dies at the one time and comes back at the other.
    pub away: Option<(Duration, Duration)>,
}

/// How fast machines are, hundredths of speed 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speeds {
    /// Each somewhere between the two.
    Between(u32, u32),
    /// In this order, again and again.
    Each(&'static [u32]),
}

/// A kind of simulation; a seed makes it one.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Machines.
    pub nodes: usize,
    /// Jobs, each from some machine, submitted over the time of faults.
    pub jobs: usize,
    /// Frames per job.
    pub frames: usize,
    /// Median time of a frame on a machine of speed 1.
    pub render: Duration,
    /// Standard deviation of the logarithm of frame times.
    pub sigma: f64,
    /// How fast machines are.
    pub speeds: Speeds,
    /// Units a machine renders at once.
    pub slots: u32,
    /// Files in a bundle.
    pub files: usize,
    /// Bytes of each.
    pub file_bytes: u64,
    /// Mean time between ops of no other use than being followed through the swarm.
    pub chat: Option<Duration>,
    /// The last so many machines lie. Then seals are real.
    pub liars: usize,
    /// The first so many machines have a Blender of another series, and must render nothing.
    pub misfits: usize,
    /// Whether each job has a rule of its own, and machines differ in tags and memory.
    pub rules: bool,
    /// Whether all jobs are of one scene, and take over what the others have of it; every third has settings of its own.
    pub shared: bool,
    /// Whether seals are real although nobody lies.
    pub real_seal: bool,
    /// With more neighbours than the one a machine tells only a few, of which it draws the other; else as large swarms do.
    pub few: Option<(usize, usize)>,
    /// What goes wrong.
    pub faults: Faults,
    /// Simulated time after the faults in which everything must be finished.
    pub patience: Duration,
}

impl Scenario {
    /// Whether nothing at all goes wrong, no machine sleeps or dies: figures are those of the choices alone, and farms are
    /// called in windows.
    pub fn is_calm(&self) -> bool {
        self.liars == 0 && Faults { until: Duration::ZERO, ..self.faults.clone() } == Faults::default()
    }

    /// Speed of machine `i`, hundredths; `drawn` is a number below 2^32 drawn for it.
    pub(super) fn speed(&self, i: usize, drawn: u32) -> u32 {
        match self.speeds {
            Speeds::Between(slow, fast) => slow + drawn % (fast - slow + 1),
            Speeds::Each(speeds) => speeds.get(i % speeds.len().max(1)).copied().unwrap_or(100),
        }
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Small enough for hundreds of seeds in a test run.
fn small(name: &'static str, about: &'static str, faults: Faults) -> Scenario {
    Scenario {
        name,
        about,
        nodes: 4,
        jobs: 2,
        frames: 20,
        render: secs(2),
        sigma: 0.5,
        speeds: Speeds::Between(60, 150),
        slots: 1,
        files: 3,
        file_bytes: 3 << 20,
        chat: None,
        liars: 0,
        misfits: 0,
        rules: false,
        shared: false,
        real_seal: false,
        few: None,
        faults,
        patience: secs(300),
    }
}

/// One job of equal frames on machines of speed 1.
fn even(name: &'static str, about: &'static str, nodes: usize, frames: usize, render: Duration) -> Scenario {
    Scenario {
        nodes,
        jobs: 1,
        frames,
        render,
        sigma: 0.0,
        speeds: Speeds::Each(&[100]),
        patience: secs(36_000),
        ..small(name, about, Faults::default())
    }
}

/// A studio's machines with a job of frames that differ.
fn farm(name: &'static str, about: &'static str, frames: usize) -> Scenario {
    Scenario { sigma: 0.3, speeds: Speeds::Between(50, 200), ..even(name, about, 16, frames, secs(20)) }
}

/// Those that show how good the choices are.
fn measuring() -> Vec<Scenario> {
    vec![
        even("modal-gpu", "10 equal machines, 250 frames of 10 s", 10, 250, secs(10)),
        even("modal-cpu", "100 equal machines, 250 frames of 60 s", 100, 250, secs(60)),
        Scenario {
            speeds: Speeds::Each(&[100, 100, 100, 100, 50, 100, 100, 100, 100, 100]),
            ..even("argo", "10 machines, one half as fast, one frame of 30 s for each", 10, 10, secs(30))
        },
        Scenario {
            speeds: Speeds::Each(&[100, 200, 300, 400, 500, 600, 700, 800]),
            sigma: 0.6,
            faults: Faults { until: secs(1200), owner: Some(secs(45)), ..Faults::default() },
            ..even("office", "16 machines of speed 1 to 8, uneven frames, artists who come back", 16, 960, secs(60))
        },
        Scenario {
            speeds: Speeds::Between(50, 200),
            sigma: 0.3,
            ..even("big", "500 machines, 20,000 frames", 500, 20_000, secs(60))
        },
        farm("farm", "16 machines, 60 frames each, nothing goes wrong", 960),
        farm("short-job", "16 machines, 15 frames each, nothing goes wrong", 240),
        Scenario {
            render: Duration::from_millis(300),
            ..farm("light", "16 machines, frames of a third of a second", 960)
        },
        Scenario {
            speeds: Speeds::Each(&[100, 100, 200, 200, 400, 400]),
            sigma: 0.3,
            files: 1,
            file_bytes: 1 << 20,
            ..even("six", "6 machines of speed 1, 2 and 4; scripts/lan-model has daemons do the same", 6, 200, secs(5))
        },
        even("even", "16 equal machines, 15 equal frames each", 16, 240, secs(20)),
        Scenario { nodes: 100, ..farm("hundred", "100 machines, 15 frames each", 1500) },
        Scenario {
            chat: Some(Duration::from_millis(200)),
            frames: 1,
            faults: Faults { until: secs(30), ..Faults::default() },
            ..farm("spread", "how long an op takes to reach everyone", 1)
        },
    ]
}

/// Those that look for what breaks.
fn searching() -> Vec<Scenario> {
    let calm = Faults::default();
    let lossy = Faults {
        until: secs(30),
        loss_ppm: 100_000,
        duplicate_ppm: 50_000,
        overtake_ppm: 100_000,
        failure_ppm: 30_000,
        delivery_ppm: 50_000,
        ..calm.clone()
    };
    let everything = Faults {
        until: secs(60),
        torn_ppm: 300,
        unsynced: true,
        crash: Some(secs(12)),
        partition: Some(secs(20)),
        one_way: Some(secs(20)),
        suspend: Some(secs(15)),
        pause: Some(secs(15)),
        owner: Some(secs(25)),
        drain: Some(secs(30)),
        late: Some(secs(20)),
        slow_disk: Some(secs(20)),
        full_disk: Some(secs(25)),
        gone: Some(secs(5)),
        command: Some(secs(8)),
        ..lossy.clone()
    };
    vec![
        small("calm", "4 machines, two jobs, nothing goes wrong", calm.clone()),
        small("lossy", "messages lost, doubled and overtaken; renders and deliveries that fail", lossy.clone()),
        small(
            "crash",
            "machines die between any two effects, unsynced writes with them, and come back",
            Faults { until: secs(40), torn_ppm: 1000, unsynced: true, crash: Some(secs(8)), ..calm.clone() },
        ),
        small(
            "partition",
            "the network is cut and heals; links that work one way",
            Faults { until: secs(60), partition: Some(secs(15)), one_way: Some(secs(12)), ..calm.clone() },
        ),
        small(
            "disks",
            "disks that are slow, or full for a while, or lose results",
            Faults {
                until: secs(40),
                unsynced: true,
                crash: Some(secs(20)),
                slow_disk: Some(secs(8)),
                full_disk: Some(secs(8)),
                gone: Some(secs(2)),
                ..calm.clone()
            },
        ),
        small("suspend", "machines sleep and wake", Faults { until: secs(50), suspend: Some(secs(8)), ..calm.clone() }),
        Scenario {
            misfits: 1,
            nodes: 5,
            ..small(
                "commands",
                "owners pause machines; jobs are paused, reordered, requeued and cancelled; one machine fits none",
                Faults { until: secs(40), pause: Some(secs(6)), command: Some(secs(4)), ..calm.clone() },
            )
        },
        Scenario {
            jobs: 1,
            frames: 40,
            ..small(
                "away",
                "the submitter dies once the others have its scene, and comes back much later",
                Faults { until: secs(120), away: Some((secs(12), secs(115))), ..calm.clone() },
            )
        },
        Scenario {
            nodes: 8,
            jobs: 1,
            frames: 120,
            render: secs(4),
            ..small(
                "churn",
                "machines join late, leave politely, die, and come back",
                Faults {
                    until: secs(60),
                    torn_ppm: 200,
                    unsynced: true,
                    crash: Some(secs(15)),
                    drain: Some(secs(12)),
                    late: Some(secs(30)),
                    owner: Some(secs(20)),
                    ..calm.clone()
                },
            )
        },
        Scenario {
            nodes: 16,
            jobs: 1,
            frames: 160,
            render: secs(5),
            sigma: 0.3,
            ..small(
                "split-brain",
                "two halves render on by themselves for half a minute, then meet",
                Faults { until: secs(46), split: Some((secs(15), secs(45))), ..calm.clone() },
            )
        },
        Scenario {
            nodes: 7,
            liars: 2,
            ..small(
                "liars",
                "two of seven send garbage, others' logs altered, and two histories of their own",
                Faults { until: secs(40), lie: Some(Duration::from_millis(700)), ..calm.clone() },
            )
        },
        Scenario {
            nodes: 7,
            jobs: 6,
            rules: true,
            patience: secs(1200),
            ..small(
                "rules",
                "a job of each kind of rule: tags, memory, how many machines, in which order",
                calm.clone(),
            )
        },
        Scenario {
            nodes: 7,
            jobs: 6,
            rules: true,
            patience: secs(1200),
            ..small("ruled-chaos", "the same with everything that goes wrong but commands", {
                Faults { command: None, ..everything.clone() }
            })
        },
        Scenario {
            nodes: 16,
            jobs: 6,
            frames: 40,
            render: secs(5),
            slots: 2,
            misfits: 1,
            patience: secs(1200),
            ..small(
                "studio",
                "a working day in five minutes: 16 machines, six jobs, everything that goes wrong",
                Faults {
                    until: secs(300),
                    crash: Some(secs(20)),
                    partition: Some(secs(60)),
                    suspend: Some(secs(25)),
                    pause: Some(secs(15)),
                    command: Some(secs(10)),
                    ..everything.clone()
                },
            )
        },
        Scenario {
            nodes: 12,
            frames: 60,
            few: Some((3, 2)),
            ..small(
                "sparse",
                "everything at once, and machines that tell only a few, as in a large swarm",
                everything.clone(),
            )
        },
        Scenario {
            nodes: 5,
            jobs: 4,
            shared: true,
            ..small(
                "resubmit",
                "the same scene again and again: its frames are taken over, and everything at once",
                everything.clone(),
            )
        },
        Scenario { nodes: 6, jobs: 3, ..small("chaos", "everything at once", everything) },
    ]
}

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    measuring().into_iter().chain(searching()).collect()
}

/// The scenario of this name.
pub fn scenario(name: &str) -> Option<Scenario> {
    scenarios().into_iter().find(|scenario| scenario.name == name)
}
