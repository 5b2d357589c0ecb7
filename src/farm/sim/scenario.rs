//! What is simulated: how many machines, what they render, and what goes wrong.

use std::time::Duration;

/// What goes wrong, until when. A rate of `None` means never.
#[derive(Clone, Debug, Default)]
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
    /// Mean time between crashes, somewhere.
    pub crash: Option<Duration>,
    /// Mean time between cuts of the network.
    pub partition: Option<Duration>,
    /// Mean time between suspends, somewhere.
    pub suspend: Option<Duration>,
    /// Mean time between an owner pausing a machine, somewhere.
    pub pause: Option<Duration>,
    /// Mean time between commands to jobs.
    pub command: Option<Duration>,
    /// The first job's owner dies at the one time and comes back at the other.
    pub away: Option<(Duration, Duration)>,
}

/// A kind of simulation; a seed makes it one.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Machines.
    pub nodes: usize,
    /// Jobs, each from some machine, submitted over the first seconds.
    pub jobs: usize,
    /// Frames per job.
    pub frames: usize,
    /// Median time of a frame on a machine of speed 1.
    pub render: Duration,
    /// Standard deviation of the logarithm of frame times.
    pub sigma: f64,
    /// Slowest and fastest machine, hundredths of speed 1.
    pub speeds: (u32, u32),
    /// Units a machine renders at once.
    pub slots: u32,
    /// Files in a bundle.
    pub files: usize,
    /// Bytes of each.
    pub file_bytes: u64,
    /// Mean time between ops that are followed through the swarm.
    pub chat: Option<Duration>,
    /// What goes wrong.
    pub faults: Faults,
    /// Simulated time after the faults in which everything must be finished.
    pub patience: Duration,
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
        speeds: (60, 150),
        slots: 1,
        files: 3,
        file_bytes: 3 << 20,
        chat: None,
        faults,
        patience: secs(300),
    }
}

/// All of them, by name.
pub fn scenarios() -> Vec<Scenario> {
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
    let farm = |name, about, frames| Scenario {
        nodes: 16,
        jobs: 1,
        frames,
        render: secs(20),
        sigma: 0.3,
        speeds: (50, 200),
        patience: secs(36_000),
        ..small(name, about, calm.clone())
    };
    vec![
        farm("farm", "16 machines, 60 frames each, nothing goes wrong", 960),
        farm("short-job", "16 machines, 15 frames each, nothing goes wrong", 240),
        Scenario {
            render: Duration::from_millis(300),
            ..farm("light", "16 machines, frames of a third of a second", 960)
        },
        Scenario { speeds: (100, 100), sigma: 0.0, ..farm("even", "16 equal machines, 15 equal frames each", 240) },
        Scenario { nodes: 100, frames: 1500, ..farm("hundred", "100 machines, 15 frames each", 1500) },
        Scenario {
            nodes: 16,
            jobs: 1,
            frames: 1,
            chat: Some(Duration::from_millis(200)),
            ..small("spread", "how long an op takes to reach everyone", Faults { until: secs(30), ..calm.clone() })
        },
        small("calm", "4 machines, two jobs, nothing goes wrong", calm.clone()),
        small("lossy", "messages lost, doubled and overtaken; renders and deliveries that fail", lossy.clone()),
        small("crash", "machines die and come back", Faults { until: secs(40), crash: Some(secs(6)), ..calm.clone() }),
        small(
            "partition",
            "the network is cut and heals",
            Faults { until: secs(60), partition: Some(secs(15)), ..calm.clone() },
        ),
        small("suspend", "machines sleep and wake", Faults { until: secs(50), suspend: Some(secs(8)), ..calm.clone() }),
        small(
            "commands",
            "owners pause machines; jobs are paused, reordered, requeued and cancelled",
            Faults { until: secs(40), pause: Some(secs(6)), command: Some(secs(4)), ..calm.clone() },
        ),
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
            nodes: 16,
            jobs: 6,
            frames: 40,
            render: secs(5),
            slots: 2,
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
                    ..lossy.clone()
                },
            )
        },
        Scenario {
            nodes: 6,
            jobs: 3,
            ..small(
                "chaos",
                "everything at once",
                Faults {
                    until: secs(60),
                    crash: Some(secs(10)),
                    partition: Some(secs(20)),
                    suspend: Some(secs(15)),
                    pause: Some(secs(12)),
                    command: Some(secs(8)),
                    ..lossy
                },
            )
        },
    ]
}

/// The scenario of this name.
pub fn scenario(name: &str) -> Option<Scenario> {
    scenarios().into_iter().find(|scenario| scenario.name == name)
}
