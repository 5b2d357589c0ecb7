//! The simulator on the command line: `scripts/sim --help`.
//!
//! A benchmark of the farm's choices and a search for seeds that break an invariant. Exit code 1 when one does.

use std::process::ExitCode;
use swarm::farm::sim::{Report, Scenario, run, scenario, scenarios};

const HELP: &str =
    "usage: scripts/sim [--scenario NAME]... [--seeds N] [--first-seed N] [--nodes N] [--frames N] [--json]
Simulates farms on a virtual clock. Without --scenario: every small one.
";

/// Most violations told per scenario.
const MAX_TOLD: usize = 5;

struct Options {
    scenarios: Vec<Scenario>,
    seeds: u64,
    first_seed: u64,
    nodes: Option<usize>,
    frames: Option<usize>,
    json: bool,
}

fn options() -> Result<Options, String> {
    let mut options =
        Options { scenarios: Vec::new(), seeds: 10, first_seed: 0, nodes: None, frames: None, json: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value\n{HELP}"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("`{text}` is not a number\n{HELP}"));
        match word.as_str() {
            "--scenario" => {
                let name = value()?;
                let known: Vec<&str> = scenarios().iter().map(|scenario| scenario.name).collect();
                options.scenarios.push(scenario(&name).ok_or(format!("no scenario `{name}`; there are {known:?}"))?);
            }
            "--seeds" => options.seeds = number(value()?)?,
            "--first-seed" => options.first_seed = number(value()?)?,
            "--nodes" => options.nodes = Some(number(value()?)? as usize),
            "--frames" => options.frames = Some(number(value()?)? as usize),
            "--json" => options.json = true,
            // What cargo adds.
            "--bench" => {}
            _ => {
                let about: String = scenarios()
                    .iter()
                    .map(|s| format!("  {:<10} {:>3} machines: {}\n", s.name, s.nodes, s.about))
                    .collect();
                return Err(format!("{HELP}Scenarios:\n{about}"));
            }
        }
    }
    if options.scenarios.is_empty() {
        options.scenarios = scenarios().into_iter().filter(|scenario| scenario.nodes < 10).collect();
    }
    for scenario in &mut options.scenarios {
        scenario.nodes = options.nodes.unwrap_or(scenario.nodes).max(1);
        scenario.frames = options.frames.unwrap_or(scenario.frames).max(1);
    }
    Ok(options)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn ratio(report: &Report) -> f64 {
    report.makespan.as_secs_f64() / report.bound.as_secs_f64().max(1e-9)
}

fn tell_json(name: &str, report: &Report) {
    let violation = report.violation.as_ref().map_or("null".into(), |violation| {
        format!("{{\"invariant\":{:?},\"at_seconds\":{:.3}}}", violation.invariant, violation.at.as_secs_f64())
    });
    println!(
        "{{\"scenario\":{name:?},\"seed\":{},\"violation\":{violation},\"makespan_seconds\":{:.3},\"bound_seconds\":{:.3},\
         \"ratio\":{:.4},\"delivered_seconds\":{:.3},\"units\":{},\"duplicates\":{},\"stopped\":{},\"idle\":{:.4},\
         \"messages\":{},\"message_bytes\":{},\"simulated_seconds\":{:.3},\"trace\":\"{:016x}\"}}",
        report.seed,
        report.makespan.as_secs_f64(),
        report.bound.as_secs_f64(),
        ratio(report),
        report.delivered.as_secs_f64(),
        report.units,
        report.duplicates,
        report.stopped,
        report.idle,
        report.messages,
        report.message_bytes,
        report.simulated.as_secs_f64(),
        report.trace,
    );
}

fn tell(scenario: &Scenario, reports: &[Report]) {
    let of = |value: fn(&Report) -> f64| median(reports.iter().map(value).collect());
    let broken = reports.iter().filter(|report| report.violation.is_some()).count();
    let units: usize = reports.iter().map(|report| report.units).sum();
    let duplicates: usize = reports.iter().map(|report| report.duplicates).sum();
    let stopped: usize = reports.iter().map(|report| report.stopped).sum();
    println!(
        "{:<10} {:>4} machines {:>5} seeds {broken:>3} broken | makespan/bound {:.3} | makespan {:.1} s, delivered {:.1} s | \
         duplicates {:.2}%, stopped {:.2}% | idle {:.1}% | {:.0} messages, {:.1} MB",
        scenario.name,
        scenario.nodes,
        reports.len(),
        of(ratio),
        of(|report| report.makespan.as_secs_f64()),
        of(|report| report.delivered.as_secs_f64()),
        percent(duplicates, units),
        percent(stopped, units),
        100.0 * of(|report| report.idle),
        of(|report| report.messages as f64),
        of(|report| report.message_bytes as f64 / 1e6),
    );
    let times = |name: &str, of: fn(&Report) -> &[std::time::Duration]| {
        let mut all: Vec<f64> = reports.iter().flat_map(of).map(|time| 1000.0 * time.as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len().saturating_sub(1)));
        if let (Some(p50), Some(p99), Some(most)) = (at(50), at(99), all.last()) {
            println!("  {name}: {} times, p50 {p50:.0} ms, p99 {p99:.0} ms, most {most:.0} ms", all.len());
        }
    };
    times("units taken over", |report| &report.takeovers);
    times("op everywhere", |report| &report.spread);
    for report in reports.iter().filter(|report| report.violation.is_some()).take(MAX_TOLD) {
        if let Some(violation) = &report.violation {
            println!(
                "  seed {} at {:?}: {} was broken: {}",
                report.seed, violation.at, violation.invariant, violation.detail
            );
        }
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprint!("{text}");
            return ExitCode::from(2);
        }
    };
    let mut broken = false;
    for scenario in &options.scenarios {
        let seeds = options.first_seed..options.first_seed + options.seeds;
        let mut reports = Vec::new();
        for seed in seeds {
            let report = run(scenario, seed);
            broken |= report.violation.is_some();
            if options.json {
                tell_json(scenario.name, &report);
            }
            reports.push(report);
        }
        if !options.json {
            tell(scenario, &reports);
        }
    }
    ExitCode::from(u8::from(broken))
}
