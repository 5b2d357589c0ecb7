//! How simulations went: one, and all seeds of a scenario together.

use super::check::Violation;
use super::peers::Peers;
use super::scenario::Scenario;
use std::time::Duration;

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
    /// No schedule could be shorter ([`super::peers::lower_bound`]).
    pub bound: Duration,
    /// The same work under others' policies.
    pub peers: Peers,
    /// Units that got a result.
    pub units: usize,
    /// Results beyond the first of a unit and epoch.
    pub duplicates: usize,
    /// Blobs that machines said to have lost.
    pub lost: usize,
    /// Units opened anew because of that.
    pub reopened: usize,
    /// Results taken over from another job.
    pub reused: usize,
    /// Renders stopped before their end.
    pub stopped: usize,
    /// Units claimed, backups aside.
    pub claims: usize,
    /// Those of them given up because another machine claimed the same.
    pub lost_claims: usize,
    /// Share of the slots' time until the makespan in which nothing that became a first result was rendered.
    pub idle: f64,
    /// From a machine's death until another began what it rendered.
    pub takeovers: Vec<Duration>,
    /// From an op's being durable until every machine that could know of it did.
    pub spread: Vec<Duration>,
    /// Messages sent.
    pub messages: u64,
    /// Their bytes.
    pub message_bytes: u64,
    /// Those of them about the ledger.
    pub ledger_bytes: u64,
    /// Links there were at once, most.
    pub links: usize,
    /// Inputs handled.
    pub inputs: u64,
    /// A hash of everything that happened: equal for equal seeds.
    pub trace: u64,
}

impl Report {
    /// Makespan over its lower bound.
    pub fn ratio(&self) -> f64 {
        over(self.makespan, self.bound)
    }

    /// Ledger bytes per frame rendered and link.
    fn bytes_per_frame_link(&self) -> f64 {
        self.ledger_bytes as f64 / (self.units.max(1) * self.links.max(1)) as f64
    }
}

fn over(time: Duration, bound: Duration) -> f64 {
    time.as_secs_f64() / bound.as_secs_f64().max(1e-9)
}

/// All seeds of a scenario together. Ratios and times of one seed are summed up by their median, shares by the whole.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Which.
    pub scenario: &'static str,
    /// Machines.
    pub nodes: usize,
    /// How many.
    pub seeds: usize,
    /// How many broke an invariant.
    pub violations: usize,
    /// Makespan over lower bound.
    pub makespan_ratio: f64,
    /// Share of slot time in which nothing useful was rendered, hundredths.
    pub idle_percent: f64,
    /// Results beyond the first, of all units, hundredths.
    pub duplicates_percent: f64,
    /// Most of them in one seed.
    pub most_duplicates: usize,
    /// Claims given up to another's, of all, hundredths.
    pub lost_claims_percent: f64,
    /// Blobs lost, and units opened anew because of that.
    pub losses: (usize, usize),
    /// Results taken over from another job.
    pub reused: usize,
    /// Until an op was everywhere, milliseconds.
    pub convergence_p50_ms: f64,
    /// The same, of the slowest hundredth.
    pub convergence_p99_ms: f64,
    /// From a machine's death until its unit was taken over, the longest, seconds.
    pub takeover_most_s: f64,
    /// Bytes about the ledger per frame rendered and link.
    pub ledger_bytes_per_frame_link: f64,
    /// Simulated time over the time it took.
    pub speedup_over_real_time: f64,
    /// Makespan over lower bound of a central first-in-first-out queue, fixed chunks of ten, and a static equal split.
    pub peers: (f64, f64, f64),
}

impl Summary {
    /// What `reports`, which took `wall` in all, say of `scenario`.
    pub fn new(scenario: &Scenario, reports: &[Report], wall: Duration) -> Self {
        let of = |value: fn(&Report) -> f64| median(reports.iter().map(value).collect());
        let sum = |value: fn(&Report) -> usize| reports.iter().map(value).sum::<usize>();
        let mut spread: Vec<Duration> = reports.iter().flat_map(|report| report.spread.iter().copied()).collect();
        spread.sort_unstable();
        let at = |percent: usize| {
            let place = (spread.len() * percent / 100).min(spread.len().saturating_sub(1));
            spread.get(place).map_or(0.0, |time| 1000.0 * time.as_secs_f64())
        };
        let simulated: Duration = reports.iter().map(|report| report.simulated).sum();
        let takeover = reports.iter().flat_map(|report| &report.takeovers).max();
        Self {
            scenario: scenario.name,
            nodes: scenario.nodes,
            seeds: reports.len(),
            violations: sum(|report| usize::from(report.violation.is_some())),
            makespan_ratio: of(Report::ratio),
            idle_percent: 100.0 * of(|report| report.idle),
            duplicates_percent: percent(sum(|report| report.duplicates), sum(|report| report.units)),
            most_duplicates: reports.iter().map(|report| report.duplicates).max().unwrap_or(0),
            lost_claims_percent: percent(sum(|report| report.lost_claims), sum(|report| report.claims)),
            losses: (sum(|report| report.lost), sum(|report| report.reopened)),
            reused: sum(|report| report.reused),
            convergence_p50_ms: at(50),
            convergence_p99_ms: at(99),
            takeover_most_s: takeover.map_or(0.0, Duration::as_secs_f64),
            ledger_bytes_per_frame_link: of(Report::bytes_per_frame_link),
            speedup_over_real_time: over(simulated, wall),
            peers: (
                of(|report| over(report.peers.fifo, report.bound)),
                of(|report| over(report.peers.chunks, report.bound)),
                of(|report| over(report.peers.fixed, report.bound)),
            ),
        }
    }

    /// One JSON object on one line.
    pub fn json(&self) -> String {
        let ((fifo, chunks, fixed), (lost, reopened)) = (self.peers, self.losses);
        format!(
            "{{\"scenario\":{:?},\"seeds\":{},\"violations\":{},\"makespan_ratio\":{:.4},\"idle_percent\":{:.3},\
             \"duplicates_percent\":{:.3},\"lost_claims_percent\":{:.3},\"lost\":{lost},\"reopened\":{reopened},\"reused\":{},\"convergence_p50_ms\":{:.1},\
             \"convergence_p99_ms\":{:.1},\"ledger_bytes_per_frame_link\":{:.1},\"speedup_over_real_time\":{:.1},\
             \"peers\":{{\"fifo\":{fifo:.4},\"chunks\":{chunks:.4},\"static\":{fixed:.4}}}}}",
            self.scenario,
            self.seeds,
            self.violations,
            self.makespan_ratio,
            self.idle_percent,
            self.duplicates_percent,
            self.lost_claims_percent,
            self.reused,
            self.convergence_p50_ms,
            self.convergence_p99_ms,
            self.ledger_bytes_per_frame_link,
            self.speedup_over_real_time,
        )
    }

    /// What the columns of [`Summary::row`] are.
    pub fn header() -> String {
        format!(
            "{:<11} {:>5} {:>6} {:>6} | {:>8} {:>6} {:>7} {:>6} | {:>6} {:>5} {:>5} {:>6} | {:>7} {:>7} | {:>8} | {:>8} {:>9}",
            "scenario",
            "nodes",
            "seeds",
            "broken",
            "makespan",
            "fifo",
            "chunks",
            "static",
            "idle",
            "dup",
            "most",
            "lost",
            "p50",
            "p99",
            "takeover",
            "B/fr/ln",
            "x real",
        )
    }

    /// One line for people.
    pub fn row(&self) -> String {
        let (fifo, chunks, fixed) = self.peers;
        format!(
            "{:<11} {:>5} {:>6} {:>6} | {:>8.3} {fifo:>6.3} {chunks:>7.3} {fixed:>6.3} | {:>5.1}% {:>4.1}% {:>5} {:>5.2}% | {:>4.0} ms {:>4.0} ms | {:>6.1} s | {:>8.1} {:>8.0}x",
            self.scenario,
            self.nodes,
            self.seeds,
            self.violations,
            self.makespan_ratio,
            self.idle_percent,
            self.duplicates_percent,
            self.most_duplicates,
            self.lost_claims_percent,
            self.convergence_p50_ms,
            self.convergence_p99_ms,
            self.takeover_most_s,
            self.ledger_bytes_per_frame_link,
            self.speedup_over_real_time,
        )
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}
