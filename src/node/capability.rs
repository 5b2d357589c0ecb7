//! What this machine tells the others that it can do, and how busy it is.

use super::event::Event;
use super::http::{ApiError, ErrorKind};
use super::render::{Discovery, GPU_UNUSABLE, NO_BLENDER, NO_OPENGL, Renderer};
use super::{GpuMode, HOUSEKEEPING, Node, cards, confinement, gpus, machine, scene, view};
use crate::farm::event::{Input, Load};
use crate::farm::message::{Capability, Problem};
use serde_json::Value;
use tokio::sync::mpsc;

/// Whether a machine that renders has not said yet which Blenders it has: they are asked anew after a start. One that finds
/// none says that.
pub(super) fn is_looking(told: &Capability) -> bool {
    told.slots > 0 && told.renderers.is_empty() && !told.problems.iter().any(|problem| problem.kind == NO_BLENDER)
}

/// Whether a refusal tells of the Blenders that machines have, so that another may come of those still looked for.
fn is_of_renderers(kind: ErrorKind) -> bool {
    use ErrorKind::{BlenderBroken, NoBlender, NoDenoiser, NoGpu, NoSeries};
    matches!(kind, NoBlender | NoSeries | BlenderBroken | NoDenoiser | NoGpu)
}

/// Where the search for Blenders stands, here and on the other machines.
pub(super) struct Search {
    /// Whether this machine knows its own.
    pub own_is_over: bool,
    /// Whether this machine is so new here that others may not have been heard yet.
    pub arrives: bool,
    /// The names of other machines that have not said yet which they have.
    pub looking: Vec<String>,
}

impl Search {
    /// What is said to somebody who asks which Blender there is for a scene; `None`: nothing yet, as it may change. Who can
    /// wait no longer is told what is so now, and who might change it.
    pub fn answer<T>(&self, found: Result<T, ApiError>, waits: bool) -> Option<Result<T, ApiError>> {
        let may_change = |error: &ApiError| self.arrives || (!self.looking.is_empty() && is_of_renderers(error.kind));
        match found {
            found if self.own_is_over && !found.as_ref().is_err_and(may_change) => Some(found),
            _ if waits => None,
            _ if !self.own_is_over => {
                let text = "the Blenders of this machine did not answer in time; see `swarm doctor`";
                Some(Err(ApiError::new(ErrorKind::BlenderBroken, text)))
            }
            Err(error) if is_of_renderers(error.kind) && !self.looking.is_empty() => {
                let (who, verb) = (self.looking.join(", "), if self.looking.len() == 1 { "has" } else { "have" });
                let text =
                    format!("{}; {who} {verb} not said yet which Blenders are there, see `swarm nodes`", error.message);
                Some(Err(ApiError::new(error.kind, text)))
            }
            found => Some(found),
        }
    }
}

impl Node {
    pub(super) fn discovered(&mut self, mut found: Discovery, cards: Vec<machine::Gpu>) {
        self.discovered = true;
        self.capability.gpus = cards::all(cards, &found.renderers);
        if self.options.gpu_mode == GpuMode::Each {
            self.slots.gpus = gpus::of_slots(&found.renderers, self.options.slots);
            gpus::keep_those_of_slots(&mut found.renderers, &self.slots.gpus);
        }
        self.capability.renderers = found.renderers.iter().map(Renderer::info).collect();
        self.render_problems = found
            .problems
            .into_iter()
            .map(|problem| Problem { kind: problem.kind, message: problem.message, fix: problem.fix })
            .collect();
        self.capability.problems = self.render_problems.clone();
        // Whatever one runs outside of or cannot draw with, it is there.
        let is_of_blender = |kind: &str| kind != confinement::KIND && kind != NO_OPENGL;
        self.render_problems.retain(|problem| is_of_blender(&problem.kind));
        self.confinement = found.confinement;
        // Told of once: with a card's name only where nothing else tells of it.
        if !self.capability.problems.iter().any(|problem| problem.kind == GPU_UNUSABLE)
            && let Some(gpu) = self.capability.gpus.iter().find(|gpu| !gpu.usable)
        {
            self.capability.problems.push(Problem {
                kind: GPU_UNUSABLE.into(),
                message: format!("{} is there and no Blender here can use it", gpu.name),
                fix: "install a Blender from blender.org or the bpy package, and the maker's driver".into(),
            });
        }
        if self.options.gpu_mode == GpuMode::Each {
            match self.slots.gpus.len() {
                0 if found.renderers.is_empty() => {}
                0 => self.capability.problems.push(gpus::none(self.capability.slots)),
                slots => self.capability.slots = slots as u32,
            }
        }
        self.delivery.set_encoder(found.renderers.first().cloned());
        self.slots.renderers = found.renderers;
        self.recall_benchmark();
        self.log_confinement();
        self.tell_capability();
        self.answer_questions(self.clock.now());
        self.answer_doctors();
    }

    /// The machines that have Blenders, by name, for people.
    pub(super) fn machines_with_blenders(&self) -> String {
        let has = |told: &Capability| told.slots > 0 && !told.renderers.is_empty();
        let members = self.farm.roster().members().iter();
        let members = members.filter(|(_, member)| member.capability.as_ref().is_some_and(has));
        let mut names: Vec<String> = members.map(|(node, _)| view::node_name(&self.farm, *node)).collect();
        names.sort();
        scene::listed(&names)
    }

    /// What slots there are, where each has a GPU of its own; other machines are not told.
    pub(super) fn with_slot_gpus(&self, mut nodes: Value) -> Value {
        let all = nodes.as_array_mut().into_iter().flatten();
        for own in all.filter(|node| node["self"] == true) {
            own["gpu_mode"] = self.options.gpu_mode.to_string().into();
            own["slot_gpus"] = gpus::to_json(&self.slots.gpus);
        }
        nodes
    }

    pub(super) fn tell_capability(&mut self) {
        self.turn(Input::Capability(Box::new(self.capability.clone())));
    }
}

/// Reports the machine's load for as long as somebody listens.
pub(super) fn watch_load(tell: mpsc::Sender<Event>) {
    tokio::spawn(async move {
        let mut load = machine::Load::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(HOUSEKEEPING) => {}
                () = tell.closed() => return,
            }
            let percent = (load.cpu().clamp(0.0, 1.0) * 100.0) as u8;
            // Nobody is known to be at the desk: no system tells that reliably enough to keep a machine idle for it.
            let now = Load { percent, free_memory_bytes: load.free_memory_bytes(), at_desk: false };
            // News that can be missed: a full queue means that the machine is busy indeed.
            let _ = tell.try_send(Event::Load(now));
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::tests::capability;

    #[test]
    fn a_machine_looks_for_its_blenders_until_it_tells_of_one_or_that_it_has_none() {
        let fresh = Capability { renderers: Vec::new(), problems: Vec::new(), ..capability() };
        let problem = |kind: &str| Problem { kind: kind.into(), message: String::new(), fix: String::new() };
        let with = |problems| Capability { problems, ..fresh.clone() };
        assert!(is_looking(&fresh) && is_looking(&with(vec![problem("disk")])));
        assert!(!is_looking(&with(vec![problem("blender-cannot-start"), problem(NO_BLENDER)])));
        assert!(!is_looking(&capability()), "it has one");
        assert!(!is_looking(&Capability { slots: 0, ..fresh }), "it does not render");
    }

    #[test]
    fn a_refusal_waits_for_machines_that_look_for_blenders_and_is_told_with_their_names_when_the_wait_is_over() {
        let search = |own_is_over, looking: &[&str]| {
            let looking = looking.iter().map(|name| (*name).to_owned()).collect();
            Search { own_is_over, arrives: false, looking }
        };
        let refused = |kind| Err::<(), _>(ApiError::new(kind, "no 4.5 here"));
        let text = |answer: Option<Result<(), ApiError>>| answer.unwrap().unwrap_err().message;
        let one = search(true, &["ws7"]);
        assert_eq!(one.answer(refused(ErrorKind::NoSeries), true), None);
        let told = one.answer(refused(ErrorKind::NoSeries), false).unwrap().unwrap_err();
        assert_eq!(told.kind, ErrorKind::NoSeries);
        assert_eq!(told.message, "no 4.5 here; ws7 has not said yet which Blenders are there, see `swarm nodes`");
        let told = text(search(true, &["a", "b"]).answer(refused(ErrorKind::NoGpu), false));
        assert!(told.starts_with("no 4.5 here; a, b have not said yet"), "{told}");
        // What no Blender changes, and what is found, is told at once.
        assert_eq!(text(one.answer(refused(ErrorKind::JobState), true)), "no 4.5 here");
        assert_eq!(one.answer(Ok::<_, ApiError>(()), true), Some(Ok(())));
        assert_eq!(text(search(true, &[]).answer(refused(ErrorKind::NoSeries), true)), "no 4.5 here");
        assert_eq!(search(false, &[]).answer(Ok::<_, ApiError>(()), true), None);
        let told = text(search(false, &["ws7"]).answer(refused(ErrorKind::NoSeries), false));
        assert!(told.contains("of this machine did not answer in time"), "{told}");
    }
}
