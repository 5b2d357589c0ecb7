//! What the swarm can tell about a job before it is submitted: who could render it, and how long that would take.

use super::benchmark::WORK;
use super::http::ApiError;
use super::{Node, view};
use crate::farm::fit::{Unfit, would_fit};
use crate::farm::id::NodeId;
use crate::farm::job::JobSpec;
use crate::farm::rules::{Chunk, Rules};
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
    /// Samples of each of its pixels, if Cycles renders it.
    pub samples: Option<u32>,
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
    /// `measured` on the same scene, a `guess` from other jobs, or by the `benchmark` of the machines.
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
        let (mut nodes, mut small, mut slots, mut benchmarks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
                benchmarks.extend(Some(capability.benchmark_millis).filter(|millis| *millis > 0));
                if is_small(capability.memory_bytes, scene_bytes) {
                    small.push(name.clone());
                }
            }
            nodes.push(json!({"id": node.to_string(), "name": name, "can": can, "reason": reason}));
        }
        let jobs = self.farm.jobs().values();
        let known = jobs.filter_map(|job: &JobState| Some((&**job.spec.as_ref()?, job.mean_millis(None)?)));
        let (millis, basis) = match millis_of_frame(&known.collect::<Vec<_>>(), spec) {
            (None, none) => by_benchmark(&benchmarks, spec, asked.samples)
                .map_or((None, none), |millis| (Some(millis), "benchmark")),
            known => known,
        };
        let frames = spec.frames.len().saturating_sub(kept) as u64;
        let seconds = match (frames, millis, at_once(slots, &spec.rules)) {
            (0, ..) => Some(0.0),
            (_, None, _) | (_, _, 0) => None,
            (_, Some(millis), at_once) => Some(millis * frames.div_ceil(at_once) as f64 / 1000.0),
        };
        // Nobody is wanted where nothing is to be rendered.
        let nobody = if frames == 0 { None } else { self.nobody_suits(spec) };
        let in_the_way = self.in_the_way(spec);
        Outlook { nodes: Value::Array(nodes), nobody, in_the_way, small, seconds, basis }
    }
}

/// Whether the files of a scene, which is all that is known of its needs, are more than a machine has of memory, as far as
/// it tells.
fn is_small(memory_bytes: u64, scene_bytes: u64) -> bool {
    memory_bytes > 0 && memory_bytes < scene_bytes
}

/// How many frames are rendered at once by machines of so many slots: by the largest that the job may have.
fn at_once(mut slots: Vec<u64>, rules: &Rules) -> u64 {
    if rules.chunk == Chunk::All {
        return u64::from(!slots.is_empty());
    }
    slots.sort_unstable_by(|a, b| b.cmp(a));
    let most = rules.max_nodes.map_or(usize::MAX, |nodes| nodes as usize);
    slots.into_iter().take(most).sum()
}

/// How long a frame would take, in milliseconds, if each sample of a pixel took as long as of the benchmark's frame: to the
/// order of magnitude. `benchmarks` are the times of that of the machines that were measured.
fn by_benchmark(benchmarks: &[u32], spec: &JobSpec, samples: Option<u32>) -> Option<f64> {
    let mean = benchmarks.iter().map(|millis| f64::from(*millis)).sum::<f64>() / benchmarks.len() as f64;
    let work = f64::from(spec.size.0) * f64::from(spec.size.1) * f64::from(samples?);
    (!benchmarks.is_empty()).then_some(mean * work / WORK as f64)
}

/// How long a frame would take, in milliseconds: as in the latest job of the same file with the same settings and size,
/// else as long for each pixel as in all jobs known. `known` are their mean times.
///
/// A frame of a simulation that is not baked takes as long as all that are stepped through for it, so that those of another
/// choice of frames are no measure; nothing tells the time of a step from that of a picture.
fn millis_of_frame(known: &[(&JobSpec, u64)], spec: &JobSpec) -> (Option<f64>, &'static str) {
    let pixels = |spec: &JobSpec| f64::from(spec.size.0) * f64::from(spec.size.1);
    let is_same = |other: &JobSpec| {
        (&other.file, &other.settings, other.size, other.series) == (&spec.file, &spec.settings, spec.size, spec.series)
    };
    let is_measure = |other: &JobSpec| spec.settings.simulate_from.is_none() || other.frames == spec.frames;
    let same = known.iter().filter(|(other, _)| is_same(other));
    if let Some((other, millis)) = same.max_by_key(|(other, _)| (is_measure(other), other.created_ms)) {
        return (Some(*millis as f64), if is_measure(other) { "measured" } else { "guess" });
    }
    let sized = known.iter().filter(|(other, _)| pixels(other) > 0.0);
    let rates: Vec<f64> = sized.map(|(other, millis)| *millis as f64 / pixels(other)).collect();
    let mean = (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64);
    (mean.map(|rate| rate * pixels(spec)), "guess")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::job::RenderSettings;

    #[test]
    fn a_frame_takes_as_long_as_in_the_latest_job_alike_and_else_as_long_for_each_pixel_as_in_all() {
        let settings = RenderSettings::default();
        let spec = JobSpec { size: (200, 100), created_ms: 9, settings, ..crate::wire::tests::spec() };
        let guess = |known: &[(&JobSpec, u64)]| millis_of_frame(known, &spec);
        assert_eq!(guess(&[]), (None, "guess"));
        let (old, new) = (JobSpec { created_ms: 1, ..spec.clone() }, JobSpec { created_ms: 2, ..spec.clone() });
        let small = JobSpec { size: (100, 100), ..spec.clone() };
        assert_eq!(guess(&[(&old, 700), (&new, 300), (&small, 9000)]), (Some(300.0), "measured"));
        assert_eq!(guess(&[(&new, 300), (&old, 700)]), (Some(300.0), "measured"), "in whatever order they are known");
        let far = JobSpec { frames: "900-903".parse().unwrap(), ..spec.clone() };
        assert_eq!(guess(&[(&far, 500)]), (Some(500.0), "measured"), "whichever of its frames");
        // 10 and 20 ms for a thousand pixels.
        let other = JobSpec { file: "other.blend".into(), size: (50, 100), ..spec.clone() };
        assert_eq!(guess(&[(&small, 100), (&other, 100)]), (Some(300.0), "guess"));
        let none = JobSpec { size: (0, 100), ..small.clone() };
        assert_eq!(guess(&[(&small, 100), (&none, 100)]), (Some(200.0), "guess"), "what has no pixels tells nothing");
        let finer = RenderSettings { samples: Some(7), ..RenderSettings::default() };
        let finer = JobSpec { settings: finer, ..spec.clone() };
        assert_eq!(guess(&[(&finer, 100)]), (Some(100.0), "guess"), "with other settings it is another scene");
    }

    #[test]
    fn without_any_job_a_frame_takes_as_long_as_its_samples_would_in_the_benchmark() {
        let spec = JobSpec { size: (512, 256), ..crate::wire::tests::spec() };
        assert_eq!(by_benchmark(&[300, 500], &spec, Some(64)), Some(800.0));
        assert_eq!(by_benchmark(&[300, 500], &spec, Some(6400)), Some(80_000.0));
        assert_eq!((by_benchmark(&[], &spec, Some(64)), by_benchmark(&[300], &spec, None)), (None, None));
    }

    #[test]
    fn frames_of_a_simulation_are_measured_where_as_many_are_stepped_through_for_them() {
        let settings = RenderSettings { simulate_from: Some(1), ..RenderSettings::default() };
        let of = |frames: &str, created_ms| JobSpec {
            frames: frames.parse().unwrap(),
            settings: settings.clone(),
            created_ms,
            ..crate::wire::tests::spec()
        };
        let (all, few, later) = (of("1-100", 1), of("100", 2), of("1-100", 3));
        assert_eq!(millis_of_frame(&[(&all, 40), (&few, 4000)], &later), (Some(40.0), "measured"));
        assert_eq!(millis_of_frame(&[(&few, 4000)], &later), (Some(4000.0), "guess"));
    }

    #[test]
    fn frames_are_rendered_by_as_many_slots_as_the_job_may_have() {
        let rules = |chunk, max_nodes| Rules { chunk, max_nodes, ..Rules::default() };
        assert_eq!(at_once(vec![1, 4, 2], &rules(Chunk::Auto, None)), 7);
        assert_eq!(at_once(vec![1, 4, 2], &rules(Chunk::Auto, Some(2))), 6, "the largest");
        assert_eq!(at_once(vec![1, 4, 2], &rules(Chunk::All, None)), 1, "one after another, on one machine");
        assert_eq!((at_once(vec![], &rules(Chunk::All, None)), at_once(vec![], &rules(Chunk::Auto, None))), (0, 0));
    }

    #[test]
    fn a_machine_is_small_that_has_less_memory_than_the_files_of_a_scene_have_bytes() {
        assert!(is_small(8 << 30, (8 << 30) + 1));
        assert!(!is_small(8 << 30, 8 << 30));
        assert!(!is_small(0, 8 << 30), "it does not tell how much it has");
    }

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
