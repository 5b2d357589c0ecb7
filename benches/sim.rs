//! The simulator on the command line: `scripts/sim --help`.
//!
//! A benchmark of the farm's choices and a search for seeds that break an invariant. Exit code 1 when one does.

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use swarm::farm::planted::{Bug, plant};
use swarm::farm::sim::{Report, Scenario, Summary, run_logged, run_on, scenario, scenarios, shrink, work};

/// Half a thousand farms in one process make and drop small things all the time: `big` takes an eighth less time with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
usage: scripts/sim [--scenario NAME]... [--all] [--seeds N] [--first-seed N] [--nodes N] [--frames N] [--until SECONDS]
                   [--jobs N] [--json] [--trace] [--work] [--planted BUG] [--no-shrink] [--events N] [--gate]
Simulates farms on a virtual clock. Without --scenario: every small one (fewer than 10 machines).
  --all         every scenario but `big`
  --json        one object per scenario, on one line
  --trace       one line per seed, with a hash of all that happened
  --work        one line per seed and nothing simulated: who submits, machines' speeds, seconds of each frame at speed 1
  --planted BUG with a bug switched on: in how many seeds is it found? 1 when in none
  --no-shrink   tell a broken seed as it is
  --events N    beside a broken seed that is not made small, the last N things that happened
  --jobs N      so many threads: seeds at once, and farms of one where nothing goes wrong; all cores unless told
  --gate        100 seeds of every scenario, with at most 12 machines and 3 jobs of 60 frames, and 90 s of faults
Of a broken seed it prints what can be left out and what happened last. Ends with 1 when an invariant broke.
";

/// Most violations told per scenario; the first of them made small.
const MAX_TOLD: usize = 5;
/// What is told of those after the first, characters.
const MORE_CHARS: usize = 300;
/// Of jobs that share a scene some result is taken over in so many seeds, whatever goes wrong.
const REUSED_IN: u64 = 10;
/// Seeds of each scenario in the gate.
const GATE_SEEDS: u64 = 100;
/// No scenario is larger in the gate: machines, jobs, frames of each, and time of faults.
const GATE_NODES: usize = 12;
const GATE_JOBS: usize = 3;
const GATE_FRAMES: usize = 60;
const GATE_UNTIL: Duration = Duration::from_secs(90);

struct Options {
    scenarios: Vec<Scenario>,
    seeds: u64,
    first_seed: u64,
    json: bool,
    trace: bool,
    work: bool,
    shrink: bool,
    events: usize,
    jobs: usize,
    planted: Option<Bug>,
    /// What makes the scenarios other than they are by themselves, as words of the command line.
    same: String,
}

fn help() -> String {
    let about = |s: &Scenario| format!("  {:<11} {:>3} machines: {}\n", s.name, s.nodes, s.about);
    format!("{HELP}Scenarios:\n{}", scenarios().iter().map(about).collect::<String>())
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        scenarios: Vec::new(),
        seeds: 10,
        first_seed: 0,
        json: false,
        trace: false,
        work: false,
        shrink: true,
        events: 0,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        planted: None,
        same: String::new(),
    };
    let (mut seeds, mut nodes, mut frames, mut until, mut gate) = (None, None, None, None, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value\n{HELP}"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("`{text}` is not a number\n{HELP}"));
        match word.as_str() {
            "--scenario" => {
                let name = value()?;
                let known: Vec<&str> = scenarios().iter().map(|scenario| scenario.name).collect();
                options.scenarios.push(scenario(&name).ok_or(format!("no scenario `{name}`; there are {known:?}\n"))?);
            }
            "--all" => options.scenarios.extend(scenarios().into_iter().filter(|scenario| scenario.name != "big")),
            "--seeds" => seeds = Some(number(value()?)?),
            "--first-seed" => options.first_seed = number(value()?)?,
            "--nodes" => nodes = Some(number(value()?)? as usize),
            "--frames" => frames = Some(number(value()?)? as usize),
            "--until" => until = Some(Duration::from_secs(number(value()?)?)),
            "--json" => options.json = true,
            "--trace" => options.trace = true,
            "--work" => options.work = true,
            "--no-shrink" => options.shrink = false,
            "--events" => options.events = number(value()?)? as usize,
            "--jobs" => options.jobs = (number(value()?)? as usize).max(1),
            "--gate" => gate = true,
            "--planted" => {
                let name = value()?;
                let bug = Bug::ALL.into_iter().find(|(of, _)| *of == name);
                options.planted = Some(bug.ok_or(format!("no bug `{name}`; there are {:?}\n", Bug::ALL))?.1);
            }
            "-h" | "--help" => {
                print!("{}", help());
                std::process::exit(0);
            }
            _ => return Err(format!("`{word}` is none of these\n{}", help())),
        }
    }
    options.seeds = seeds.unwrap_or(options.seeds);
    if gate {
        options.seeds = seeds.unwrap_or(GATE_SEEDS);
        if options.scenarios.is_empty() {
            options.scenarios = scenarios();
        }
        options.scenarios.iter_mut().for_each(|scenario| *scenario = gate_form(scenario));
    }
    if options.scenarios.is_empty() {
        options.scenarios = scenarios().into_iter().filter(|scenario| scenario.nodes < 10).collect();
    }
    let word = |name: &str, value: Option<u64>| value.map_or(String::new(), |value| format!("--{name} {value} "));
    options.same = word("nodes", nodes.map(|n| n as u64)) + &word("frames", frames.map(|n| n as u64));
    options.same += &word("until", until.map(|time| time.as_secs()));
    options.same += if gate { "--gate " } else { "" };
    for scenario in &mut options.scenarios {
        scenario.nodes = nodes.unwrap_or(scenario.nodes).max(1 + scenario.liars);
        scenario.frames = frames.unwrap_or(scenario.frames).max(1);
        scenario.faults.until = until.unwrap_or(scenario.faults.until);
    }
    Ok(options)
}

/// A scenario as the gate can afford a hundred seeds of it.
fn gate_form(scenario: &Scenario) -> Scenario {
    let mut small = scenario.clone();
    small.nodes = small.nodes.min(GATE_NODES);
    small.jobs = small.jobs.min(GATE_JOBS);
    small.frames = small.frames.min(GATE_FRAMES);
    // The submitter that is away stays away as long as it does.
    if small.faults.away.is_none() {
        small.faults.until = small.faults.until.min(GATE_UNTIL);
    }
    small
}

fn tell_trace(name: &str, report: &Report) {
    let violation = report.violation.as_ref().map_or("null".into(), |violation| {
        format!("{{\"invariant\":\"{}\",\"at_seconds\":{:.3}}}", violation.invariant, violation.at.as_secs_f64())
    });
    println!(
        "{{\"scenario\":{name:?},\"seed\":{},\"violation\":{violation},\"makespan_seconds\":{:.3},\"bound_seconds\":{:.3},\
         \"delivered_seconds\":{:.3},\"units\":{},\"duplicates\":{},\"messages\":{},\"message_bytes\":{},\"inputs\":{},\
         \"simulated_seconds\":{:.3},\"trace\":\"{:016x}\"}}",
        report.seed,
        report.makespan.as_secs_f64(),
        report.bound.as_secs_f64(),
        report.delivered.as_secs_f64(),
        report.units,
        report.duplicates,
        report.messages,
        report.message_bytes,
        report.inputs,
        report.simulated.as_secs_f64(),
        report.trace,
    );
}

fn tell_work(scenario: &Scenario, seed: u64) {
    let work = work(scenario, seed);
    let speeds: Vec<f64> = work.speeds.iter().map(|speed| f64::from(*speed) / 100.0).collect();
    let frames: Vec<f64> = work.frames.iter().map(Duration::as_secs_f64).collect();
    println!(
        "{{\"scenario\":{:?},\"seed\":{seed},\"owner\":{},\"speeds\":{speeds:?},\"frame_seconds\":{frames:?}}}",
        scenario.name, work.owner,
    );
}

/// Tells what broke, on stderr, so that `--json` stays JSON.
fn tell_broken(scenario: &Scenario, reports: &[Report], options: &Options) {
    let broken = reports.iter().filter_map(|report| Some((report.seed, report.violation.as_ref()?)));
    for (i, (seed, violation)) in broken.take(MAX_TOLD).enumerate() {
        let chars = if i == 0 { usize::MAX } else { MORE_CHARS };
        let detail: String = violation.detail.chars().take(chars).collect();
        eprintln!(
            "{}: seed {seed} at {:?}: {} was broken: {}\n  again: scripts/sim --scenario {} {}--first-seed {seed} --seeds 1",
            scenario.name, violation.at, violation.invariant, detail, scenario.name, options.same,
        );
        if i > 0 || !options.shrink {
            let most = if i == 0 { options.events } else { 0 };
            let events = if most > 0 { run_logged(scenario, seed, most).1 } else { Vec::new() };
            events.iter().for_each(|event| eprintln!("    {event}"));
            continue;
        }
        if let Some(small) = shrink(scenario, seed) {
            let left = &small.scenario;
            eprintln!(
                "  made small in {} runs: seed {}, {} machines, {} jobs of {} frames, {} liars, {:?}",
                small.runs, small.seed, left.nodes, left.jobs, left.frames, left.liars, left.faults
            );
            for event in &small.events {
                eprintln!("    {event}");
            }
            eprintln!("    {:?}: {}", small.violation.at, small.violation.detail);
        }
    }
}

// The one clock here: how long simulations take.
#[allow(clippy::disallowed_methods)]
fn clock() -> Instant {
    Instant::now()
}

/// The next free thread takes the next seed. Threads beyond the seeds help with one.
fn run_all(scenario: &Scenario, seeds: std::ops::Range<u64>, options: &Options) -> Vec<Report> {
    let next = AtomicU64::new(seeds.start);
    let at_once = options.jobs.min((seeds.end - seeds.start).max(1) as usize);
    let each = options.jobs / at_once;
    let work = || {
        plant(options.planted);
        let taken = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds.end);
        std::iter::from_fn(taken).map(|seed| run_on(each, scenario, seed)).collect::<Vec<Report>>()
    };
    let mut reports: Vec<Report> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    reports.sort_by_key(|report| report.seed);
    reports
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprint!("{text}");
            return ExitCode::from(2);
        }
    };
    if options.work {
        for scenario in &options.scenarios {
            (options.first_seed..options.first_seed + options.seeds).for_each(|seed| tell_work(scenario, seed));
        }
        return ExitCode::SUCCESS;
    }
    plant(options.planted);
    if !options.json && !options.trace {
        println!("{}", Summary::header());
    }
    let mut violations = 0;
    for scenario in &options.scenarios {
        let seeds = options.seeds;
        let begun = clock();
        let reports = run_all(scenario, options.first_seed..options.first_seed + seeds, &options);
        if options.trace {
            reports.iter().for_each(|report| tell_trace(scenario.name, report));
        }
        let summary = Summary::new(scenario, &reports, begun.elapsed());
        violations += summary.violations;
        if scenario.shared && summary.reused == 0 && seeds >= REUSED_IN {
            eprintln!("{}: no result was taken over from another job in any of {seeds} seeds", scenario.name);
            violations += 1;
        }
        match (options.json, options.trace) {
            (true, _) => println!("{}", summary.json()),
            (false, true) => {}
            (false, false) => println!("{}", summary.row()),
        }
        if options.planted.is_none() {
            tell_broken(scenario, &reports, &options);
        } else if let Some(report) = reports.iter().find(|report| report.violation.is_some()) {
            let invariant =
                report.violation.as_ref().map(|violation| violation.invariant.to_string()).unwrap_or_default();
            let (found, name) = (summary.violations, scenario.name);
            println!("  {name}: found in {found} of {seeds} seeds, first in {}: {invariant}", report.seed);
        }
    }
    // A planted bug is to be found; nothing else is.
    ExitCode::from(u8::from((violations > 0) != options.planted.is_some()))
}
