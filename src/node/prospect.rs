//! What the swarm can tell about a job before it is submitted: who could render it, and how long that would take.

use super::http::ApiError;
use super::{Node, view};
use crate::farm::fit::{Unfit, would_fit};
use crate::farm::id::NodeId;
use crate::farm::job::JobSpec;
use crate::farm::rules::Chunk;
use crate::farm::state::JobState;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Machines named in a warning that none can render a job (guess: a few lines of a terminal).
const REASONS_NAMED: usize = 5;

/// Asks about a job that is about to be submitted.
pub struct Prospect {
    /// As it would be, its bundle not made yet.
    pub spec: Box<JobSpec>,
    /// How many of its frames are there already.
    pub kept: usize,
    /// Bytes of the files of its scene.
    pub scene_bytes: u64,
    /// What there is to tell.
    pub reply: oneshot::Sender<Outlook>,
}

/// What there is to tell about a job before it is submitted.
pub struct Outlook {
    /// Array of `{id, name, can, reason}`, this machine first.
    pub nodes: Value,
    /// Why no machine that is here is of the kind it asks for, if that is so.
    pub nobody: Option<Nobody>,
    /// The refusal of a job whose results would take the place of another's.
    pub in_the_way: Option<ApiError>,
    /// Names of machines that could render it, with less memory than the files of its scene are long.
    pub small: Vec<String>,
    /// Seconds it would take; `None` where nothing was rendered yet that it could be likened to.
    pub seconds: Option<f64>,
    /// `measured` on the same scene, or a `guess` from other jobs.
    pub basis: &'static str,
}

/// That no machine that is here is of the kind a job asks for.
pub struct Nobody {
    /// Of each machine why not, in one line.
    pub reasons: String,
    /// Whether one of them lacks nothing but trust, and none is to be waited for.
    pub for_trust: bool,
}

impl Nobody {
    /// Of machines by name, each of which has a reason.
    pub fn of(unfit: &[(String, Unfit)]) -> Self {
        let has = |is: fn(&Unfit) -> bool| unfit.iter().any(|(_, unfit)| is(unfit));
        let waits = has(|unfit| matches!(unfit, Unfit::Paused));
        let for_trust = has(|unfit| matches!(unfit, Unfit::RunsNoScripts { .. })) && !waits;
        let named: Vec<String> =
            unfit.iter().take(REASONS_NAMED).map(|(name, unfit)| format!("{name}: {unfit}")).collect();
        let more = match unfit.len() - named.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Self { reasons: format!("{}{more}", named.join("; ")), for_trust }
    }
}

impl Node {
    pub(super) fn outlook(&self, asked: &Prospect) -> Outlook {
        let Prospect { kept, scene_bytes, .. } = *asked;
        let spec = &*asked.spec;
        let (now, me, roster) = (self.clock.now(), self.identity.node, self.farm.roster());
        let mut rows: Vec<(bool, String, NodeId)> =
            roster.members().keys().map(|node| (*node != me, view::node_name(&self.farm, *node), *node)).collect();
        rows.sort();
        let (mut nodes, mut small, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        for (_, name, node) in rows {
            let fits = would_fit(roster, node, me, spec);
            let reason = match &fits {
                _ if !roster.is_alive(node, now) => "away".to_owned(),
                Ok(()) => "ready".to_owned(),
                Err(unfit) => unfit.to_string(),
            };
            let can = roster.is_alive(node, now) && fits.is_ok();
            let capability = roster.member(node).and_then(|member| member.capability.as_ref());
            if let Some(capability) = capability.filter(|_| can) {
                slots.push(u64::from(capability.slots));
                if capability.memory_bytes > 0 && capability.memory_bytes < scene_bytes {
                    small.push(name.clone());
                }
            }
            nodes.push(json!({"id": node.to_string(), "name": name, "can": can, "reason": reason}));
        }
        let is_in_order = spec.rules.chunk == Chunk::All;
        slots.sort_unstable_by(|a, b| b.cmp(a));
        let most = if is_in_order { Some(1) } else { spec.rules.max_nodes.map(|nodes| nodes as usize) };
        slots.truncate(most.unwrap_or(usize::MAX));
        let at_once: u64 = if is_in_order { 1 } else { slots.iter().sum() };
        let (millis, basis) = self.millis_of_frame(spec);
        let frames = spec.frames.len().saturating_sub(kept) as u64;
        let seconds = match frames {
            0 => Some(0.0),
            _ => millis.filter(|_| !slots.is_empty() && at_once > 0).map(|millis| {
                let rounds = frames.div_ceil(at_once);
                millis * rounds as f64 / 1000.0
            }),
        };
        // Nobody is wanted where nothing is to be rendered.
        let nobody = if frames == 0 { None } else { self.nobody_suits(spec) };
        let in_the_way = self.in_the_way(spec);
        Outlook { nodes: Value::Array(nodes), nobody, in_the_way, small, seconds, basis }
    }

    /// How long a frame would take, in milliseconds: as in the latest job of the same file with the same settings and size,
    /// else as long for each pixel as in all jobs known.
    fn millis_of_frame(&self, spec: &JobSpec) -> (Option<f64>, &'static str) {
        let pixels = |spec: &JobSpec| f64::from(spec.size.0) * f64::from(spec.size.1);
        let known = self.farm.jobs().values();
        let known = known.filter_map(|job: &JobState| Some((job.spec.as_ref()?, job.mean_millis(None)? as f64)));
        let known: Vec<_> = known.collect();
        let is_same = |other: &JobSpec| {
            (&other.file, &other.settings, other.size, other.series)
                == (&spec.file, &spec.settings, spec.size, spec.series)
        };
        let same = known.iter().filter(|(other, _)| is_same(other)).max_by_key(|(other, _)| other.created_ms);
        if let Some((_, millis)) = same {
            return (Some(*millis), "measured");
        }
        let rates: Vec<f64> = known
            .iter()
            .filter(|(other, _)| pixels(other) > 0.0)
            .map(|(other, millis)| millis / pixels(other))
            .collect();
        let mean = (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64);
        (mean.map(|rate| rate * pixels(spec)), "guess")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_waits_for_a_machine_that_only_has_to_be_resumed_whoever_else_does_not_trust() {
        let unfit = |unfit: Unfit| ("ws".to_owned(), unfit);
        let untrusting = || unfit(Unfit::RunsNoScripts { of: "anna".into(), whom: "anna".into() });
        assert!(Nobody::of(&[unfit(Unfit::NoSlots), untrusting()]).for_trust);
        assert!(!Nobody::of(&[untrusting(), unfit(Unfit::Paused)]).for_trust);
        assert!(!Nobody::of(&[unfit(Unfit::NoSlots)]).for_trust);
        let many: Vec<_> = (0..7).map(|_| unfit(Unfit::NoGpu)).collect();
        assert!(Nobody::of(&many).reasons.ends_with("ws: no GPU that Blender can use; and 2 more"));
    }
}
