//! What a job is to be computed on, and which backend of a machine that comes to.

use super::op::Op;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The ops a machine must understand to know backends by name: [`super::op::OP_VERSION`] as it was then.
const BACKENDS_SINCE: u16 = 4;
/// What Blender calls the CPU among its backends.
const CPU: &str = "CPU";

/// Which compute device a job wants. In a `Submit` or `Revise` only the first three are written: the others are `Op::Device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The best GPU backend, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// Any GPU backend, never the CPU.
    Gpu,
    /// NVIDIA's, by CUDA.
    Cuda,
    /// NVIDIA's, by OptiX.
    Optix,
    /// AMD's, by HIP.
    Hip,
    /// Intel's, by oneAPI.
    Oneapi,
    /// Apple's, by Metal.
    Metal,
}

impl Device {
    /// All.
    pub const ALL: [Self; 8] =
        [Self::Auto, Self::Cpu, Self::Gpu, Self::Cuda, Self::Optix, Self::Hip, Self::Oneapi, Self::Metal];

    /// As `--device` takes it, and the driver.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Cuda => "cuda",
            Self::Optix => "optix",
            Self::Hip => "hip",
            Self::Oneapi => "oneapi",
            Self::Metal => "metal",
        }
    }

    /// The one backend that will do, as Blender calls it, where one is named.
    pub fn backend(self) -> Option<&'static str> {
        match self {
            Self::Auto | Self::Cpu | Self::Gpu => None,
            Self::Cuda => Some("CUDA"),
            Self::Optix => Some("OPTIX"),
            Self::Hip => Some("HIP"),
            Self::Oneapi => Some("ONEAPI"),
            Self::Metal => Some("METAL"),
        }
    }

    /// The backend that a renderer computes on which has these, best first; `None` where none of them will do.
    pub fn of<'a>(self, backends: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let mut gpus = backends.into_iter().filter(|backend| *backend != CPU);
        match self {
            Self::Auto => Some(gpus.next().unwrap_or(CPU)),
            Self::Cpu => Some(CPU),
            Self::Gpu => gpus.next(),
            Self::Cuda | Self::Optix | Self::Hip | Self::Oneapi | Self::Metal => {
                gpus.find(|backend| Some(*backend) == self.backend())
            }
        }
    }

    /// Whether a renderer that has these would compute on a GPU.
    pub fn takes_gpu<'a>(self, backends: impl IntoIterator<Item = &'a str>) -> bool {
        self.of(backends).is_some_and(|backend| backend != CPU)
    }

    /// Why nobody can render on it where all machines together have these, in people's words.
    pub fn missing_from<'a>(self, backends: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let there: BTreeSet<&str> = backends.into_iter().filter(|backend| *backend != CPU).collect();
        if self.of(there.iter().copied()).is_some() {
            return None;
        }
        let names = there.iter().map(|backend| backend.to_lowercase()).collect::<Vec<_>>().join(", ");
        let (what, others) = match self.backend() {
            Some(_) => {
                (format!(" with --device {self}"), if there.is_empty() { String::new() } else { ", gpu".into() })
            }
            None => (String::new(), String::new()),
        };
        let only = if there.is_empty() { String::new() } else { format!(", only with {names}") };
        Some(format!(
            "no machine here has a GPU that Blender can use{what}{only}; use --device auto{others} or cpu, or see `swarm doctor`"
        ))
    }

    /// What is said before a `Submit` or `Revise` whose own device is then [`Device::Gpu`]: builds that know of no backends
    /// by name can read that, and claim nothing of it.
    pub(super) fn word(self) -> Option<Op> {
        self.backend().map(|_| Op::Device { device: self })
    }

    /// The least op version a machine must understand to render on it.
    pub fn op_version(self) -> u16 {
        if self.backend().is_some() { BACKENDS_SINCE } else { 1 }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|device| device.name() == text);
        found.ok_or_else(|| "it is auto, cpu, gpu, cuda, optix, hip, oneapi or metal".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NVIDIA: [&str; 3] = ["OPTIX", "CUDA", CPU];

    #[test]
    fn a_device_comes_to_the_best_backend_that_will_do_and_a_named_one_to_no_other() {
        let of = |device: Device| device.of(NVIDIA);
        assert_eq!((of(Device::Auto), of(Device::Gpu), of(Device::Cpu)), (Some("OPTIX"), Some("OPTIX"), Some(CPU)));
        assert_eq!((of(Device::Optix), of(Device::Cuda), of(Device::Hip)), (Some("OPTIX"), Some("CUDA"), None));
        for device in Device::ALL {
            let is_for_all = matches!(device, Device::Auto | Device::Cpu);
            assert_eq!(device.of([CPU]), is_for_all.then_some(CPU), "{device}");
            assert_eq!(device.name().parse(), Ok(device));
            assert!(device.backend().is_none_or(|backend| device.of([backend]) == Some(backend)), "{device}");
            assert!(device.takes_gpu(NVIDIA) || !matches!(device, Device::Auto | Device::Gpu));
        }
        assert!(!Device::Cpu.takes_gpu(NVIDIA) && !Device::Auto.takes_gpu([CPU]));
    }

    #[test]
    fn a_device_that_nobody_has_is_refused_with_those_that_are_there() {
        let told = |device: Device, there: &[&'static str]| device.missing_from(there.iter().copied());
        assert_eq!(
            (told(Device::Gpu, &NVIDIA), told(Device::Cuda, &NVIDIA), told(Device::Auto, &[])),
            (None, None, None)
        );
        let gpu = told(Device::Gpu, &[CPU]).unwrap_or_default();
        let says = "no machine here has a GPU that Blender can use; use --device auto or cpu, or see `swarm doctor`";
        assert_eq!(gpu, says);
        let hip = told(Device::Hip, &NVIDIA).unwrap_or_default();
        assert!(
            hip.contains("can use with --device hip, only with cuda, optix; use --device auto, gpu or cpu"),
            "{hip}"
        );
        let none = told(Device::Hip, &[CPU]).unwrap_or_default();
        assert!(none.contains("can use with --device hip; use --device auto or cpu"), "{none}");
    }
}
