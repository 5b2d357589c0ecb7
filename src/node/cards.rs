//! The graphics cards that others are told of.
//!
//! NVIDIA's driver tells of its own, with their memory. Of all others, and of those where that driver's tool is not there,
//! only Blender tells.

use super::gpus::card;
use super::machine::{self, MAX_GPUS};
use super::render::{DeviceInfo, Renderer};
use crate::farm::message::GpuInfo;

/// Backends by which Blender tells of the same cards, best first; the first are those of which NVIDIA's driver tells.
const MAKERS: [&[&str]; 4] = [&["OPTIX", "CUDA"], &["HIP"], &["ONEAPI"], &["METAL"]];

/// All cards, each once: those that NVIDIA's driver `told` of, then those that only Blender knows.
pub fn all(told: Vec<machine::Gpu>, renderers: &[Renderer]) -> Vec<GpuInfo> {
    let devices = || renderers.iter().flat_map(|renderer| &renderer.devices);
    let nvidia = devices().find(|device| MAKERS[0].contains(&device.backend.as_str()));
    let makers = &MAKERS[usize::from(!told.is_empty())..];
    let told = told.into_iter().map(|gpu| GpuInfo {
        usable: nvidia.is_some(),
        backend: nvidia.map_or(String::new(), |device| device.backend.clone()),
        name: gpu.name,
        memory_bytes: gpu.memory_bytes,
        driver: gpu.driver,
    });
    let known = makers.iter().flat_map(|backends| {
        known_by(backends, renderers).into_iter().map(move |device| {
            let has = |backend: &&&str| devices().any(|own| own.backend == **backend && card(own) == card(device));
            GpuInfo {
                name: machine::clean(&device.name, "unnamed"),
                memory_bytes: device.memory.unwrap_or(0),
                driver: String::new(),
                usable: true,
                backend: backends.iter().find(has).map_or(String::new(), |backend| (*backend).to_owned()),
            }
        })
    });
    told.chain(known).take(MAX_GPUS).collect()
}

/// The cards that Blender knows by one of these backends. Versions of Blender may call one card differently, so that they are
/// taken from one Blender: that which knows most, of equals the first.
fn known_by<'a>(backends: &[&str], renderers: &'a [Renderer]) -> Vec<&'a DeviceInfo> {
    let lists = renderers.iter().flat_map(|renderer| backends.iter().map(move |backend| (renderer, *backend)));
    let lists = lists.map(|(renderer, backend)| {
        renderer.devices.iter().filter(|device| device.backend == backend).collect::<Vec<_>>()
    });
    // Of equals `max_by_key` keeps the last.
    lists.collect::<Vec<_>>().into_iter().rev().max_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::gpus::tests::{TWO, renderer};
    use super::*;

    const HIP: (&str, &str) = ("HIP", "HIP_W7900_0000:03:00");

    /// What is told of each card: backend, whether its memory is known.
    fn told(nvidia: usize, renderers: &[Renderer]) -> Vec<String> {
        let gpu = machine::Gpu { name: "NVIDIA A4000".into(), memory_bytes: 16 << 30, driver: "550".into() };
        let cards = all(vec![gpu; nvidia], renderers);
        let told = cards.into_iter().map(|card| {
            let (usable, memory) = (if card.usable { "" } else { " unusable" }, card.memory_bytes >> 30);
            format!("{} {} {memory}{usable}", card.name, card.backend)
        });
        told.collect()
    }

    #[test]
    fn a_card_that_only_blender_knows_is_told_of_and_none_is_told_of_twice() {
        let both = renderer(5, &[TWO[0], TWO[2], TWO[1], TWO[3], HIP]);
        let nvidia = ["NVIDIA A4000 OPTIX 16", "NVIDIA A4000 OPTIX 16"];
        assert_eq!(told(2, std::slice::from_ref(&both)), [nvidia[0], nvidia[1], "A4000 HIP 0"]);
        assert_eq!(told(0, std::slice::from_ref(&both)), ["A4000 OPTIX 0", "A4000 OPTIX 0", "A4000 HIP 0"]);
        // Two Blenders, of which the older calls the card otherwise and knows no OptiX.
        let old = renderer(1, &[TWO[2], TWO[3], ("HIP", "HIP_W7900")]);
        assert_eq!(told(0, &[old, both]), ["A4000 OPTIX 0", "A4000 OPTIX 0", "A4000 HIP 0"]);
        let equal = [("HIP", "HIP_W7900_0000:03:00"), ("HIP", "HIP_W7900_0000:43:00")];
        assert_eq!(told(0, &[renderer(5, &equal), renderer(4, &equal)]), ["A4000 HIP 0", "A4000 HIP 0"]);
        assert_eq!(
            told(0, &[renderer(5, &[("METAL", "METAL_M4"), ("ONEAPI", "Arc")])]),
            ["A4000 ONEAPI 0", "A4000 METAL 0"]
        );
    }

    #[test]
    fn a_card_of_which_the_driver_tells_and_that_no_blender_can_use_is_told_of_as_such() {
        assert_eq!(told(1, &[renderer(5, &[])]), ["NVIDIA A4000  16 unusable"]);
        assert_eq!(told(1, &[renderer(5, &[HIP])]), ["NVIDIA A4000  16 unusable", "A4000 HIP 0"]);
        assert_eq!(told(1, &[]), ["NVIDIA A4000  16 unusable"]);
        assert_eq!(told(0, &[renderer(5, &[])]), [""; 0]);
    }

    #[test]
    fn a_card_that_is_capable_of_cuda_alone_has_that_as_its_backend() {
        let mixed = renderer(5, &[TWO[0], TWO[2], TWO[3]]);
        assert_eq!(told(0, &[mixed]), ["A4000 OPTIX 0", "A4000 CUDA 0"]);
    }
}
