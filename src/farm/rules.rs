//! The rules of a job: which machines may render it, how many at once, in which order, how often a frame is tried, and
//! when it begins and ends.
//!
//! A job is submitted with its rules, and each can be changed later on its own ([`JobSetting`](super::op::JobSetting)).
//! They are obeyed by whoever claims: `roster` reads what a machine must be, `schedule` the rest. The default of every
//! rule is that it forbids nothing.

use super::id::JobId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Most tags of a job or a machine (guess).
pub const MAX_TAGS: usize = 16;
/// Longest tag, bytes (guess).
pub const MAX_TAG_BYTES: usize = 64;
/// Longest pattern of a GPU's name, bytes (guess: names are some 40).
pub const MAX_GLOB_BYTES: usize = 128;
/// Most units in one claim that a person may ask for (guess: more is a static split, which waits for its slowest machine).
pub const MAX_CHUNK: u32 = 10_000;
/// Most machines a job can be limited to (guess).
pub const MAX_NODES: u32 = 100_000;
/// Most attempts after the first (guess).
pub const MAX_RETRIES: u8 = 100;
/// Attempts after the first, unless told. DESIGN §3: a unit fails after three attempts.
pub const RETRIES: u8 = 2;
/// Longest limit on the time of a frame: a month (guess).
pub const MAX_TIME_LIMIT: Duration = Duration::from_secs(31 * 24 * 3600);
/// Longest time a job may be given: a year (guess).
pub const MAX_DEADLINE: Duration = Duration::from_secs(366 * 24 * 3600);

/// In which order a job's frames are begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Early frames first, spread over the machines so that they rarely want the same one.
    #[default]
    Spread,
    /// Strictly early frames first.
    Forward,
    /// The first, the last, the one in the middle, then the middles between: a look at the whole shot early.
    FirstLastMiddle,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spread => "spread",
            Self::Forward => "forward",
            Self::FirstLastMiddle => "first-last-middle",
        })
    }
}

impl std::str::FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "spread" => Ok(Self::Spread),
            "forward" => Ok(Self::Forward),
            "first-last-middle" => Ok(Self::FirstLastMiddle),
            _ => Err("it is spread, forward or first-last-middle".into()),
        }
    }
}

/// How many units a machine claims at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chunk {
    /// As many as fill a few seconds.
    #[default]
    Auto,
    /// This many, 1 to [`MAX_CHUNK`].
    Units(u32),
    /// Everything: one machine renders the whole job, in order, one unit after another.
    All,
}

impl Chunk {
    /// Whether it is a number that may be asked for.
    pub fn is_sound(self) -> bool {
        match self {
            Self::Auto | Self::All => true,
            Self::Units(count) => (1..=MAX_CHUNK).contains(&count),
        }
    }
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Units(count) => write!(f, "{count}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl std::str::FromStr for Chunk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let chunk = match text {
            "auto" => Some(Self::Auto),
            "all" => Some(Self::All),
            number => number.parse().ok().map(Self::Units).filter(|chunk| chunk.is_sound()),
        };
        chunk.ok_or_else(|| format!("it is auto, all, or a number of frames from 1 to {MAX_CHUNK}"))
    }
}

/// A pattern of names: `*` stands for any text, `?` for any one character; capitals do not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// Whether a name is of this pattern, as a whole.
    pub fn matches(&self, name: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().flat_map(char::to_lowercase).collect();
        let name: Vec<char> = name.chars().flat_map(char::to_lowercase).collect();
        // Where to go on when a `*` is to swallow one character more: (after it in the pattern, in the name).
        let mut retry: Option<(usize, usize)> = None;
        let (mut at, mut in_name) = (0, 0);
        while in_name < name.len() {
            match pattern.get(at) {
                Some('*') => {
                    at += 1;
                    retry = Some((at, in_name));
                }
                Some(c) if *c == '?' || *c == name[in_name] => {
                    at += 1;
                    in_name += 1;
                }
                _ => {
                    let Some((after, from)) = retry else { return false };
                    (at, in_name) = (after, from + 1);
                    retry = Some((after, from + 1));
                }
            }
        }
        pattern[at..].iter().all(|c| *c == '*')
    }

    /// Whether a pattern from a peer keeps the promises of this type.
    pub fn is_sound(&self) -> bool {
        is_label(&self.0, MAX_GLOB_BYTES)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let glob = Self(text.trim().to_owned());
        let wanted =
            || format!("write a pattern of at most {MAX_GLOB_BYTES} characters, such as *4090* or \"NVIDIA RTX*\"");
        if glob.is_sound() { Ok(glob) } else { Err(wanted()) }
    }
}

/// Whether a text is a label a job may ask for and a machine may have: one word.
pub fn is_tag(text: &str) -> bool {
    is_label(text, MAX_TAG_BYTES) && !text.contains(|c: char| c.is_whitespace() || c == ',')
}

fn is_label(text: &str, limit_bytes: usize) -> bool {
    !text.is_empty() && text.len() <= limit_bytes && !text.contains(char::is_control)
}

/// The rules of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Most machines that render it at once, at least 1; `None`: any number.
    pub max_nodes: Option<u32>,
    /// A machine needs every one of these.
    pub tags: BTreeSet<String>,
    /// A machine needs a usable graphics card of such a name.
    pub gpu_name: Option<Glob>,
    /// A machine needs this much memory free, bytes.
    pub min_memory_bytes: Option<u64>,
    /// In which order frames are begun.
    pub order: Order,
    /// How many a machine claims at once.
    pub chunk: Chunk,
    /// Attempts on other machines after a failed one.
    pub retries: u8,
    /// A frame that takes longer has failed an attempt.
    pub time_limit: Option<Duration>,
    /// The job is canceled this long after its submission, as far as any machine has been up to see it pass.
    pub deadline: Option<Duration>,
    /// Nothing of it starts before that job is completed.
    pub after: Option<JobId>,
    /// Nothing of it starts until it is resumed.
    pub paused: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_nodes: None,
            tags: BTreeSet::new(),
            gpu_name: None,
            min_memory_bytes: None,
            order: Order::default(),
            chunk: Chunk::default(),
            retries: RETRIES,
            time_limit: None,
            deadline: None,
            after: None,
            paused: false,
        }
    }
}

impl Rules {
    /// Attempts on different machines after which a unit has failed.
    pub fn attempts(&self) -> usize {
        usize::from(self.retries) + 1
    }

    /// The first promise that rules from a peer break.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), &'static str> {
        let promises = [
            (self.max_nodes.is_none_or(|nodes| (1..=MAX_NODES).contains(&nodes)), "its limit of machines cannot be"),
            (tags_are_sound(&self.tags), "it asks for too many tags, or for ones that cannot be"),
            (self.gpu_name.as_ref().is_none_or(Glob::is_sound), "its pattern of a GPU's name cannot be"),
            (self.chunk.is_sound(), "its chunk cannot be"),
            (self.retries <= MAX_RETRIES, "it has too many retries"),
            (is_within(self.time_limit, MAX_TIME_LIMIT), "its time limit cannot be"),
            (is_within(self.deadline, MAX_DEADLINE), "its deadline cannot be"),
        ];
        promises.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
    }
}

fn tags_are_sound(tags: &BTreeSet<String>) -> bool {
    tags.len() <= MAX_TAGS && tags.iter().all(|tag| is_tag(tag))
}

fn is_within(time: Option<Duration>, limit: Duration) -> bool {
    time.is_none_or(|time| !time.is_zero() && time <= limit)
}

/// Bytes as people say them.
pub fn gigabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000_000) / 100_000_000;
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} GB"),
        (whole, tenth) => format!("{whole}.{tenth} GB"),
    }
}

/// A time as people say it: `90s`, `15m`, `24h`, `3d`, in the largest unit that is exact.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => "0s".into(),
        _ if seconds.is_multiple_of(24 * 3600) && seconds > 24 * 3600 => format!("{}d", seconds / (24 * 3600)),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names_whatever_their_capitals() {
        let matches = |pattern: &str, name: &str| pattern.parse::<Glob>().unwrap().matches(name);
        assert!(matches("*4090*", "NVIDIA GeForce RTX 4090"));
        assert!(matches("nvidia*rtx*", "NVIDIA GeForce RTX 4090"));
        assert!(matches("*", "x") && matches("a?c", "ABC") && matches("**b", "aab"));
        assert!(matches("*ab*abc", "abababc"));
        assert!(!matches("4090", "NVIDIA GeForce RTX 4090") && !matches("a?c", "ac") && !matches("*b", "ba"));
        assert!("".parse::<Glob>().is_err() && "x".repeat(200).parse::<Glob>().is_err());
    }

    #[test]
    fn the_defaults_forbid_nothing_and_what_cannot_be_is_named() {
        assert_eq!(Rules::default().check(), Ok(()));
        assert_eq!(Rules::default().attempts(), 3);
        let broken = |change: fn(&mut Rules)| {
            let mut rules = Rules::default();
            change(&mut rules);
            rules.check().is_err()
        };
        assert!(broken(|rules| rules.max_nodes = Some(0)));
        assert!(broken(|rules| rules.tags = ["two words".to_owned()].into()));
        assert!(broken(|rules| rules.tags = (0..=MAX_TAGS).map(|n| n.to_string()).collect()));
        assert!(broken(|rules| rules.chunk = Chunk::Units(0)));
        assert!(broken(|rules| rules.time_limit = Some(Duration::ZERO)));
        assert!(broken(|rules| rules.deadline = Some(Duration::MAX)));
    }

    #[test]
    fn chunks_and_orders_are_read_as_they_are_written() {
        for chunk in [Chunk::Auto, Chunk::Units(7), Chunk::All] {
            assert_eq!(chunk.to_string().parse(), Ok(chunk));
        }
        assert!("0".parse::<Chunk>().is_err() && "10001".parse::<Chunk>().is_err());
        for order in [Order::Spread, Order::Forward, Order::FirstLastMiddle] {
            assert_eq!(order.to_string().parse(), Ok(order));
        }
    }
}
