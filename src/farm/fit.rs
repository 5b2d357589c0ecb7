//! Whether a machine may render a job, and if not why, in people's words.
//!
//! Two questions: [`suits`] asks what a machine is (its Blenders, cards, tags, memory, whose scripts it runs) and decides
//! which scenes it fetches; [`fits`] asks as well how it is at the moment (paused, sick, somebody at the desk, memory taken
//! by others) and decides what it begins. Units of a revised job come from different scenes, which need different things: a
//! machine is asked about the job if it serves any of them, and about a unit by what that one comes from.

use super::ability::{Ability, Lack};
use super::id::{NodeId, Unit};
use super::job::{Device, JobSpec, Series};
use super::message::{Capability, RendererInfo};
use super::roster::{Member, Roster};
use super::rules::{Glob, Rules, gigabytes};
use super::state::JobState;
use std::fmt;

/// Why a machine cannot render a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It has not told what it can do.
    Unknown,
    /// Its owner paused it.
    Paused,
    /// It only submits.
    NoSlots,
    /// Others rendered what failed here, and no test frame has rendered since.
    Sick,
    /// Somebody works at it, and the job is another's.
    AtDesk,
    /// It runs an older version of this program than the job needs.
    OldVersion,
    /// It has no Blender of the job's series.
    NoSeries(Series),
    /// Its Blender of the series is older than the file allows.
    TooOld,
    /// Its Blender lacks what the scene needs.
    Lacks(Ability),
    /// A GPU is asked for and it has none that a Blender can use.
    NoGpu,
    /// The same of one backend.
    NoBackend(Device),
    /// No usable card of it has a name of the pattern.
    NoGpuNamed(Glob),
    /// It lacks a tag.
    LacksTag(String),
    /// It has less memory than the job needs.
    SmallMemory {
        /// Bytes it has.
        has: u64,
        /// Bytes needed.
        needs: u64,
    },
    /// The job has scripts of a machine that it does not trust.
    RunsNoScripts {
        /// What that is called.
        of: String,
        /// As `swarm trust` takes it, one word to a shell.
        whom: String,
    },
    /// So much of its memory is taken that the job does not find enough.
    LowMemory {
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needs: u64,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("has not told yet what it can do"),
            Self::Paused => f.write_str("paused by its owner"),
            Self::NoSlots => f.write_str("does not render"),
            Self::Sick => f.write_str("sick: frames failed here that others rendered; waiting for its test frame"),
            Self::AtDesk => f.write_str("someone at the desk"),
            Self::OldVersion => f.write_str("runs an older swarm than the job needs"),
            Self::NoSeries(series) => write!(f, "no Blender {series}"),
            Self::TooOld => f.write_str("its Blender is older than the file allows"),
            Self::Lacks(ability) => write!(f, "its Blender {}", ability.lacking()),
            Self::NoGpu => f.write_str("no GPU that Blender can use"),
            Self::NoBackend(device) => write!(f, "no GPU that Blender can use with --device {device}"),
            Self::NoGpuNamed(glob) => write!(f, "no GPU named {glob} that Blender can use"),
            Self::LacksTag(tag) => write!(f, "lacks tag {tag}"),
            Self::SmallMemory { has, needs } => write!(f, "{} of memory, needs {}", gigabytes(*has), gigabytes(*needs)),
            Self::RunsNoScripts { of, whom } => {
                write!(f, "does not run scripts of {of}'s jobs; on it, `swarm trust {whom}`")
            }
            Self::LowMemory { free, needs } => write!(f, "{} free, needs {}", gigabytes(*free), gigabytes(*needs)),
        }
    }
}

/// A machine as one word of a command: by its name, unless that would be taken for an option. Its bearer chose it.
fn word_for(name: &str, node: NodeId) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name.chars().all(is_plain) {
        _ if name.starts_with('-') => node.short(),
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}

/// Whether a renderer serves a job.
pub fn serves(renderer: &RendererInfo, spec: &JobSpec) -> Result<(), Unfit> {
    let (major, minor, patch) = renderer.version;
    if renderer.series() != spec.series {
        return Err(Unfit::NoSeries(spec.series));
    }
    // A patch release counts as subversion: the file's minimum is at least as coarse.
    let number = (u32::from(major) * 100 + u32::from(minor)) * 100 + u32::from(patch).min(99);
    if number / 100 < spec.min_version / 100 {
        return Err(Unfit::TooOld);
    }
    match renderer.abilities.lack(spec.needs) {
        None => {}
        Some(Lack::Of(ability)) => return Err(Unfit::Lacks(ability)),
        Some(Lack::Unknown) => return Err(Unfit::OldVersion),
    }
    let device = spec.settings.device;
    if device.of(renderer.backends()).is_none() {
        return Err(if device.backend().is_some() { Unfit::NoBackend(device) } else { Unfit::NoGpu });
    }
    Ok(())
}

/// The renderer that a machine takes for a job: of those that serve it the newest release, one with a GPU first where that
/// would be used; of equals the first. `choose_renderer` of the node is the same choice.
pub fn renderer<'a>(capability: &'a Capability, spec: &JobSpec) -> Option<&'a RendererInfo> {
    let rank = |renderer: &&RendererInfo| (spec.settings.device.takes_gpu(renderer.backends()), renderer.version);
    capability.renderers.iter().rev().filter(|renderer| serves(renderer, spec).is_ok()).max_by_key(rank)
}

/// Whether a machine is of the kind a job needs.
pub fn suits(roster: &Roster, node: NodeId, spec: &JobSpec, rules: &Rules, min_version: u16) -> Result<(), Unfit> {
    let member = roster.member(node).ok_or(Unfit::Unknown)?;
    member_suits(roster, (node, member), spec, rules, min_version)
}

/// The same of a member that was looked up.
fn member_suits(
    roster: &Roster,
    (node, member): (NodeId, &Member),
    spec: &JobSpec,
    rules: &Rules,
    min_version: u16,
) -> Result<(), Unfit> {
    let capability = member.capability.as_ref().ok_or(Unfit::Unknown)?;
    if capability.slots == 0 {
        return Err(Unfit::NoSlots);
    }
    if min_version > capability.op_version {
        return Err(Unfit::OldVersion);
    }
    let mut reason = Unfit::NoSeries(spec.series);
    let serving = capability.renderers.iter().any(|renderer| match serves(renderer, spec) {
        Ok(()) => true,
        Err(Unfit::NoSeries(_)) => false,
        Err(other) => {
            reason = other;
            false
        }
    });
    if !serving {
        return Err(reason);
    }
    if let Some(glob) = &rules.gpu_name
        && !capability.gpus.iter().any(|gpu| gpu.usable && glob.matches(&gpu.name))
    {
        return Err(Unfit::NoGpuNamed(glob.clone()));
    }
    if let Some(tag) = rules.tags.iter().find(|tag| !capability.tags.contains(tag)) {
        return Err(Unfit::LacksTag(tag.clone()));
    }
    match rules.min_memory_bytes {
        Some(needs) if capability.memory_bytes < needs => {
            return Err(Unfit::SmallMemory { has: capability.memory_bytes, needs });
        }
        _ => {}
    }
    // Last, since it alone is mended by a word.
    if !roster.trusts().runs(node, spec) {
        let nobody = || ("nobody".to_owned(), "nobody".to_owned());
        let named = |author| {
            let name = roster.name(author);
            let whom = word_for(&name, author);
            (name, whom)
        };
        let (of, whom) = spec.author.map_or_else(nobody, named);
        return Err(Unfit::RunsNoScripts { of, whom });
    }
    Ok(())
}

/// Whether a machine is of the kind that some units of a job need, each as the revision has it that it comes from.
///
/// # Errors
/// Why not: as the latest of the revisions has it that were looked at.
pub fn suits_some(roster: &Roster, node: NodeId, job: &JobState) -> Result<(), Unfit> {
    let member = roster.member(node).ok_or(Unfit::Unknown)?;
    member_suits_some(roster, (node, member), job)
}

fn member_suits_some(roster: &Roster, member: (NodeId, &Member), job: &JobState) -> Result<(), Unfit> {
    let mut reason = Unfit::Unknown;
    for spec in job.current_specs() {
        match member_suits(roster, member, spec, job.rules(), job.min_version) {
            Ok(()) => return Ok(()),
            Err(other) => reason = other,
        }
    }
    Err(reason)
}

/// Whether a machine is of the kind that one unit of a job needs.
pub fn suits_unit(roster: &Roster, node: NodeId, job: &JobState, unit: Unit) -> bool {
    let spec = job.spec_of(job.unit(unit).revision());
    spec.is_some_and(|spec| suits(roster, node, spec, job.rules(), job.min_version).is_ok())
}

/// Whether a machine can render anything of a job as things are, the job's own state and failures aside.
pub fn fits(roster: &Roster, node: NodeId, job: &JobState) -> Result<(), Unfit> {
    roster.member(node).map_or(Err(Unfit::Unknown), |member| member_fits(roster, node, member, job))
}

/// The same of a member that was looked up.
pub fn member_fits(roster: &Roster, node: NodeId, member: &Member, job: &JobState) -> Result<(), Unfit> {
    member_suits_some(roster, (node, member), job)?;
    // A machine that renders the job already has its memory.
    let renders = || member.in_hand.iter().any(|hand| hand.job == job.id);
    is_free(member, job.owner() == Some(node), job.rules().min_memory_bytes.filter(|_| !renders()))
}

/// Whether a machine is of the kind that a job needs which `owner` is about to submit.
pub fn would_suit(roster: &Roster, node: NodeId, owner: NodeId, spec: &JobSpec) -> Result<(), Unfit> {
    let spec = JobSpec { author: Some(owner), ..spec.clone() };
    suits(roster, node, &spec, &spec.rules, spec.settings.op_version())
}

/// Whether it could begin it as things are.
pub fn would_fit(roster: &Roster, node: NodeId, owner: NodeId, spec: &JobSpec) -> Result<(), Unfit> {
    let member = roster.member(node).ok_or(Unfit::Unknown)?;
    would_suit(roster, node, owner, spec)?;
    is_free(member, owner == node, spec.rules.min_memory_bytes)
}

/// Whether nothing keeps a machine from beginning something new at the moment.
fn is_free(member: &Member, is_own: bool, memory_bytes: Option<u64>) -> Result<(), Unfit> {
    let capability = member.capability.as_ref();
    if capability.is_some_and(|capability| capability.paused) {
        return Err(Unfit::Paused);
    }
    if capability.is_some_and(|capability| capability.sick) {
        return Err(Unfit::Sick);
    }
    if member.at_desk && !is_own {
        return Err(Unfit::AtDesk);
    }
    match (memory_bytes, member.free_memory_bytes) {
        (Some(needs), Some(free)) if free < needs => Err(Unfit::LowMemory { free, needs }),
        _ => Ok(()),
    }
}

/// Whether a machine counts among those that could still render what failed elsewhere: what keeps it off now passes
/// without anybody's doing.
pub fn could(roster: &Roster, node: NodeId, job: &JobState) -> bool {
    match fits(roster, node, job) {
        Ok(()) | Err(Unfit::AtDesk | Unfit::LowMemory { .. }) => true,
        Err(
            Unfit::Unknown
            | Unfit::Paused
            | Unfit::NoSlots
            | Unfit::Sick
            | Unfit::OldVersion
            | Unfit::NoSeries(_)
            | Unfit::TooOld
            | Unfit::Lacks(_)
            | Unfit::NoGpu
            | Unfit::NoBackend(_)
            | Unfit::NoGpuNamed(_)
            | Unfit::LacksTag(_)
            | Unfit::RunsNoScripts { .. }
            | Unfit::SmallMemory { .. },
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_an_option_or_more_than_a_word_is_none_in_a_command() {
        let node = NodeId([0xab; 32]);
        for (name, word) in [
            ("ws1.studio", "ws1.studio"),
            ("a'b; c", r"'a'\''b; c'"),
            ("--members", &node.short()),
            ("- x", &node.short()),
        ] {
            assert_eq!(word_for(name, node), word);
        }
    }
}
