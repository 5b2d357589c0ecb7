//! Which GPU each slot renders on, where each has one of its own (`--gpu-mode each`).
//!
//! A slot has a card. What a Blender calls that card is looked up for each Blender: not all know it by the same backend.

use super::Node;
use super::render::{DeviceInfo, Renderer};
use super::slots::Finished;
use crate::farm::job::Device;
use crate::farm::message::Problem;
use serde_json::{Value, json};
use std::fmt;

/// How the slots of a machine share its GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuMode {
    /// Each frame is rendered on all of the best backend.
    #[default]
    All,
    /// Each slot has one of its own.
    Each,
}

impl fmt::Display for GpuMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Each => "each",
        })
    }
}

fn gpus(renderer: &Renderer) -> impl Iterator<Item = &DeviceInfo> {
    renderer.devices.iter().filter(|device| device.backend != "CPU")
}

/// The GPU of each slot, at most so many: those of the backend that is best for the newest Blender with any, whichever
/// Blender reports them. They are in the order of their ids, since Blender lists them in any.
pub fn of_slots(renderers: &[Renderer], most: Option<u32>) -> Vec<DeviceInfo> {
    let best = renderers.iter().filter_map(|renderer| Some((renderer.version, &gpus(renderer).next()?.backend))).max();
    let Some((_, backend)) = best else { return Vec::new() };
    let mut found: Vec<DeviceInfo> =
        renderers.iter().flat_map(gpus).filter(|gpu| gpu.backend == *backend).cloned().collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found.dedup_by(|a, b| a.id == b.id);
    found.truncate(most.map_or(usize::MAX, |most| most as usize));
    found
}

/// The GPUs that a Blender may use in the slot that has `gpu`, for a job that wants `device`: this card by the best backend
/// it knows it by, or by the one that is named, or none. All, which is `None`, where slots have no GPU of their own.
pub fn of_renderer(renderer: &Renderer, gpu: Option<&DeviceInfo>, device: Device) -> Option<Vec<DeviceInfo>> {
    let gpu = gpu?;
    let is_wanted = |own: &&DeviceInfo| device.backend().is_none_or(|backend| own.backend == backend);
    Some(gpus(renderer).filter(is_wanted).find(|own| card(own) == card(gpu)).cloned().into_iter().collect())
}

/// Has Blenders know of no other GPUs than those of slots, where slots have some: a job is not to be taken for a card that no
/// slot renders on.
pub fn keep_those_of_slots(renderers: &mut [Renderer], slots: &[DeviceInfo]) {
    let is_of_slot = |device: &DeviceInfo| device.backend == "CPU" || slots.iter().any(|gpu| card(gpu) == card(device));
    if !slots.is_empty() {
        renderers.iter_mut().for_each(|renderer| renderer.devices.retain(is_of_slot));
    }
}

/// What is the same of a card by whichever backend. The ids of Cycles begin with the kind of driver and end with the place in
/// the machine, which OptiX has from CUDA and adds its own name to.
pub(super) fn card(gpu: &DeviceInfo) -> &str {
    gpu.id.strip_suffix("_OptiX").unwrap_or(&gpu.id)
}

/// A GPU as people can tell it from an equal one.
fn name(gpu: &DeviceInfo) -> String {
    format!("{} {} ({})", gpu.backend, gpu.name, gpu.id)
}

impl Node {
    /// A unit ended. A slot whose GPU was lost over it takes no more: the others of this machine, and other machines, render
    /// what is left.
    pub(super) fn look_at_gpu(&mut self, finished: &Finished) {
        let lost = finished.gpu.as_ref().filter(|gpu| finished.has_lost_gpu && self.slots.gpus.contains(gpu));
        let Some(gpu) = lost else { return };
        self.slots.gpus.retain(|other| other != gpu);
        self.capability.slots = self.slots.gpus.len() as u32;
        self.capability.problems.push(gone(gpu));
        self.tell_capability();
    }
}

/// What slots render on, in words; `gpus` are of `slots` slots, or none.
pub fn in_words(mode: GpuMode, slots: u32, gpus: &[DeviceInfo]) -> String {
    let own: Vec<String> =
        gpus.iter().enumerate().map(|(at, gpu)| format!("slot {} on {}", at + 1, name(gpu))).collect();
    let frames = if slots == 1 { "1 frame".to_owned() } else { format!("{slots} frames") };
    match own.is_empty() {
        true => format!("{frames} at the same time (--gpu-mode {mode})"),
        false => format!("{frames} at the same time (--gpu-mode {mode}): {}", own.join(", ")),
    }
}

/// The same for programs.
pub fn to_json(gpus: &[DeviceInfo]) -> Value {
    gpus.iter().map(|gpu| json!({"backend": gpu.backend, "name": gpu.name, "id": gpu.id})).collect()
}

/// That there is no GPU for any slot.
pub fn none(slots: u32) -> Problem {
    Problem {
        kind: "gpu-mode".into(),
        message: format!(
            "each slot is to have a GPU and no Blender here can use any; frames are rendered on the CPU, {slots} at the same time"
        ),
        fix:
            "see that Blender itself can use the GPUs, then start the daemon again; or start it without --gpu-mode each"
                .into(),
    }
}

/// That a slot has no GPU any more.
fn gone(gpu: &DeviceInfo) -> Problem {
    Problem {
        kind: "gpu-gone".into(),
        message: format!("Blender cannot use {} any more; its slot renders nothing", name(gpu)),
        fix: "if its driver was changed, restart the machine or install the driver again; then start the daemon again"
            .into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::farm::ability::Abilities;
    use crate::node::render::RendererKind;

    fn device(backend: &str, id: &str) -> DeviceInfo {
        DeviceInfo { backend: backend.into(), name: "A4000".into(), id: id.into(), memory: None }
    }

    /// A Blender of this minor version that reports these backends and ids, and the CPU.
    pub fn renderer(minor: u16, devices: &[(&str, &str)]) -> Renderer {
        let mut devices: Vec<_> = devices.iter().map(|(backend, id)| device(backend, id)).collect();
        devices.push(device("CPU", "CPU"));
        Renderer {
            kind: RendererKind::Executable,
            path: "/b".into(),
            version: (4, minor, 0),
            series: format!("4.{minor}").parse().unwrap(),
            file_version: 0,
            build_hash: String::new(),
            colour_folders: Vec::new(),
            colours: String::new(),
            abilities: Abilities::all(),
            devices,
            sandbox: None,
        }
    }

    fn ids(gpus: &[DeviceInfo]) -> Vec<&str> {
        gpus.iter().map(|gpu| gpu.id.as_str()).collect()
    }

    pub const TWO: [(&str, &str); 5] = [
        ("OPTIX", "CUDA_A4000_0000:65:00_OptiX"),
        ("OPTIX", "CUDA_A4000_0000:17:00_OptiX"),
        ("CUDA", "CUDA_A4000_0000:65:00"),
        ("CUDA", "CUDA_A4000_0000:17:00"),
        ("ONEAPI", "ONEAPI_Arc_0000:03:00"),
    ];

    #[test]
    fn equal_cards_have_a_slot_each_in_whatever_order_blender_lists_them() {
        let slots = ["CUDA_A4000_0000:17:00_OptiX", "CUDA_A4000_0000:65:00_OptiX"];
        assert_eq!(ids(&of_slots(&[renderer(5, &TWO)], None)), slots);
        let swapped = [TWO[1], TWO[0]];
        assert_eq!(ids(&of_slots(&[renderer(5, &swapped)], None)), slots);
        assert_eq!(ids(&of_slots(&[renderer(5, &TWO), renderer(4, &swapped)], None)), slots, "two Blenders, once each");
    }

    #[test]
    fn slots_are_at_most_as_many_as_asked_for_and_as_there_are_gpus() {
        let blender = [renderer(5, &TWO)];
        assert_eq!(ids(&of_slots(&blender, Some(1))), ["CUDA_A4000_0000:17:00_OptiX"]);
        assert_eq!(of_slots(&blender, Some(8)).len(), 2);
        assert_eq!(of_slots(&[renderer(5, &[])], Some(8)), []);
        assert_eq!(of_slots(&[], None), []);
    }

    #[test]
    fn the_newest_blender_with_a_gpu_says_which_backend_is_best() {
        let (old, new, none) = (renderer(1, &TWO[2..4]), renderer(5, &TWO), renderer(6, &[]));
        assert_eq!(of_slots(&[old, none, new], None)[0].backend, "OPTIX");
    }

    #[test]
    fn a_blender_is_given_the_card_of_its_slot_and_no_other() {
        let by = |renderer: &Renderer, gpu, device| of_renderer(renderer, gpu, device).map(|gpus| ids(&gpus).join(" "));
        let given = |renderer: &Renderer, gpu| by(renderer, gpu, Device::Auto);
        let new = renderer(5, &TWO);
        let slots = of_slots(std::slice::from_ref(&new), None);
        assert_eq!(given(&new, slots.first()).as_deref(), Some("CUDA_A4000_0000:17:00_OptiX"));
        assert_eq!(given(&new, slots.last()).as_deref(), Some("CUDA_A4000_0000:65:00_OptiX"));
        let old = renderer(1, &TWO[2..4]);
        assert_eq!(given(&old, slots.first()).as_deref(), Some("CUDA_A4000_0000:17:00"), "without OptiX");
        assert_eq!(given(&renderer(0, &[]), slots.first()).as_deref(), Some(""), "without any: never another");
        assert_eq!(given(&new, None), None, "all");
        let cuda = by(&new, slots.first(), Device::Cuda);
        assert_eq!(cuda.as_deref(), Some("CUDA_A4000_0000:17:00"), "the same card by the backend that is named");
        assert_eq!(by(&old, slots.first(), Device::Optix).as_deref(), Some(""), "and by no other");
        assert_eq!(by(&new, slots.first(), Device::Oneapi).as_deref(), Some(""), "nor any other card");
    }

    #[test]
    fn a_machine_whose_slots_have_a_gpu_each_tells_of_no_other() {
        let told = |slots: &[DeviceInfo]| {
            let mut renderers = [renderer(5, &TWO)];
            keep_those_of_slots(&mut renderers, slots);
            let [renderer] = &renderers;
            renderer.backends().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&of_slots(&[renderer(5, &TWO)], None)), "OPTIX OPTIX CUDA CUDA CPU");
        assert_eq!(told(&of_slots(&[renderer(5, &TWO)], Some(1))), "OPTIX CUDA CPU");
        assert_eq!(told(&[]), "OPTIX OPTIX CUDA CUDA ONEAPI CPU");
    }
}
