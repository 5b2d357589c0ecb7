//! The rules of a job as they are typed, at submission and later.

use crate::farm::rules::{
    Chunk, Glob, MAX_DEADLINE, MAX_NODES, MAX_RETRIES, MAX_TAG_BYTES, MAX_TIME_LIMIT, Order, is_tag, span,
};
use crate::node::http::RulesRequest;
use clap::Args;
use std::time::Duration;

/// A value, or `none` to lift the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(Option<T>);

/// Flags of `submit` and `job set` alike.
#[derive(Debug, Default, Args)]
pub(crate) struct RuleArgs {
    /// Only on machines with a usable GPU of such a name, such as *4090*; none lifts it
    #[arg(long, value_name = "GLOB", value_parser = or_none::<Glob>, help_heading = "Rules")]
    gpu_name: Option<OrNone<Glob>>,
    /// Only on machines with this much memory free, such as 8G; none lifts it
    #[arg(long, value_name = "SIZE", value_parser = min_memory, help_heading = "Rules")]
    min_memory: Option<OrNone<u64>>,
    /// Only on machines with this tag (`swarm daemon --tag`); may be repeated; none lifts them
    #[arg(long, value_name = "TAG", value_parser = tag, help_heading = "Rules")]
    tag: Vec<String>,
    /// Which frames come first [default: spread]
    #[arg(long, value_name = "spread|forward|first-last-middle", value_parser = str::parse::<Order>, help_heading = "Rules")]
    order: Option<Order>,
    /// Frames a machine claims at once, or all: one machine renders everything, in order [default: auto]
    #[arg(long, value_name = "N|auto|all", value_parser = str::parse::<Chunk>, help_heading = "Rules")]
    chunk: Option<Chunk>,
    /// Most machines that work on it at once; none lifts it
    #[arg(long, value_name = "N", value_parser = max_nodes, help_heading = "Rules")]
    max_nodes: Option<OrNone<u32>>,
    /// Attempts of a frame on other machines after one that failed [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_RETRIES)), help_heading = "Rules")]
    retries: Option<u8>,
    /// A frame that takes longer has failed, such as 15m; none lifts it
    #[arg(long, value_name = "TIME", value_parser = time_limit, help_heading = "Rules")]
    time_limit: Option<OrNone<Duration>>,
    /// Cancel the job this long after its submission, such as 24h; none lifts it
    #[arg(long, value_name = "TIME", value_parser = deadline, help_heading = "Rules")]
    deadline: Option<OrNone<Duration>>,
    /// Start nothing before this job is completed; none lifts it
    #[arg(long, value_name = "JOB", value_parser = or_none::<JobName>, help_heading = "Rules")]
    after: Option<OrNone<JobName>>,
}

impl RuleArgs {
    /// As the API takes them.
    pub(crate) fn request(self) -> RulesRequest {
        fn inner<T, U>(given: Option<OrNone<T>>, of: impl FnOnce(T) -> U) -> Option<Option<U>> {
            given.map(|OrNone(value)| value.map(of))
        }
        let seconds = |time: Duration| time.as_secs();
        RulesRequest {
            max_nodes: inner(self.max_nodes, |nodes| nodes),
            tags: (!self.tag.is_empty()).then(|| self.tag.into_iter().filter(|tag| tag != NONE).collect()),
            gpu_name: inner(self.gpu_name, |glob| glob),
            min_memory_bytes: inner(self.min_memory, |bytes| bytes),
            order: self.order,
            chunk: self.chunk,
            retries: self.retries,
            time_limit_seconds: inner(self.time_limit, seconds),
            deadline_seconds: inner(self.deadline, seconds),
            after: inner(self.after, |name| name.0),
            paused: None,
        }
    }
}

const NONE: &str = "none";

/// A job as people name one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobName(String);

impl std::str::FromStr for JobName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("name a job, or write none".into()) } else { Ok(Self(text.into())) }
    }
}

fn or_none<T: std::str::FromStr<Err = String>>(text: &str) -> Result<OrNone<T>, String> {
    if text == NONE { Ok(OrNone(None)) } else { text.parse().map(Some).map(OrNone) }
}

fn max_nodes(text: &str) -> Result<OrNone<u32>, String> {
    if text == NONE {
        return Ok(OrNone(None));
    }
    let nodes = text.parse().ok().filter(|nodes| (1..=MAX_NODES).contains(nodes));
    nodes.map(Some).map(OrNone).ok_or_else(|| format!("write a number of machines from 1 to {MAX_NODES}, or none"))
}

/// One label of a machine or a job.
pub(crate) fn tag(text: &str) -> Result<String, String> {
    let wanted = || format!("a tag is one word of at most {MAX_TAG_BYTES} bytes, without commas");
    if is_tag(text) { Ok(text.into()) } else { Err(wanted()) }
}

fn min_memory(text: &str) -> Result<OrNone<u64>, String> {
    if text == NONE {
        return Ok(OrNone(None));
    }
    bytes(text).map(Some).map(OrNone).ok_or_else(|| "write an amount of memory, such as 8G or 512M, or none".into())
}

/// `8G`, `1.5G`, `512MB` in powers of ten, `8GiB` in powers of two; none of them zero.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix("ib") {
        Some(prefix) => (prefix, 1024f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000f64),
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == prefix).filter(|power| *power > 0)?;
    let bytes = number.parse::<f64>().ok()? * base.powi(i32::try_from(power).ok()?);
    (bytes >= 1.0 && bytes < 2f64.powi(60)).then_some(bytes as u64)
}

fn time_limit(text: &str) -> Result<OrNone<Duration>, String> {
    limited(text, MAX_TIME_LIMIT)
}

fn deadline(text: &str) -> Result<OrNone<Duration>, String> {
    limited(text, MAX_DEADLINE)
}

fn limited(text: &str, limit: Duration) -> Result<OrNone<Duration>, String> {
    if text == NONE {
        return Ok(OrNone(None));
    }
    let time = time(text).filter(|time| !time.is_zero() && *time <= limit);
    let wanted = || format!("write a time such as 90s, 15m, 24h or 1h30m, at most {}, or none", span(limit));
    time.map(Some).map(OrNone).ok_or_else(wanted)
}

/// `90s`, `15m`, `24h`, `3d`, `1h30m`.
fn time(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 24 * 3600,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_people_write_them() {
        let seconds = |text: &str| time(text).map(|time| time.as_secs());
        assert_eq!(
            [seconds("90s"), seconds("15m"), seconds("1h30m"), seconds("3d")].map(Option::unwrap),
            [90, 900, 5400, 259_200]
        );
        for bad in ["", "15", "m", "1x", "1h30", "-1s", "1.5h", "99999999999999999999s", "9999999999999999d"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(
            [bytes("8G"), bytes("1.5g"), bytes("512MB"), bytes("1GiB")].map(Option::unwrap),
            [8_000_000_000, 1_500_000_000, 512_000_000, 1 << 30]
        );
        for bad in ["", "8", "G", "-1G", "8X", "0G", "1.2.3G", "nanG", "99999999999T"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
