//! Graphics cards that are there and that no Blender can use.
//!
//! Only what is certain is told: an integrated GPU that nobody means to render on is no fault of a machine. So Intel's cards
//! are not looked for, whose drivers do not tell which of them are cards, and AMD's count where they have memory of their own.

use super::Problem;
use std::path::Path;

/// What the problem is called that a machine has whose card no Blender can use.
pub const GPU_UNUSABLE: &str = "gpu-unusable";
/// Least memory of an AMD card that is looked for, bytes: a processor's own graphics usually have less of the main memory set
/// aside, and no smaller card renders (guess).
const CARD_MIN_BYTES: u64 = 3 << 30;
/// Most entries of the folder of graphics cards looked at (guess).
const ENTRIES_MAX: usize = 256;
/// AMD, as PCI knows it.
const AMD: &str = "0x1002";

/// What the system tells of cards, without Blender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cards {
    /// NVIDIA's driver runs.
    pub nvidia: bool,
    /// The driver by which AMD's cards compute runs.
    pub kfd: bool,
    /// Memory of each AMD card, bytes.
    pub amd: Vec<u64>,
}

impl Cards {
    /// Those of this machine, on Linux.
    pub fn look() -> Self {
        let is_there = |path: &str| Path::new(path).exists();
        let amd = amd_in(Path::new("/sys/class/drm"));
        Self { nvidia: is_there("/dev/nvidiactl"), kfd: is_there("/dev/kfd"), amd }
    }
}

/// Memory of each AMD card in a folder of graphics cards, as Linux has it.
fn amd_in(folder: &Path) -> Vec<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(ENTRIES_MAX);
    let cards = entries.filter(|entry| {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("card"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    });
    let devices = cards.map(|card| card.path().join("device"));
    let amd = devices.filter(|device| read(&device.join("vendor")) == AMD);
    amd.filter_map(|device| read(&device.join("mem_info_vram_total")).parse().ok()).collect()
}

/// What is wrong with the cards of a machine whose Blenders can compute on these backends.
pub(super) fn unusable(cards: &Cards, backends: &[&str]) -> Option<Problem> {
    let has = |names: &[&str]| backends.iter().any(|backend| names.contains(backend));
    let has_none = backends.iter().all(|backend| *backend == "CPU");
    let (maker, fix) = if cards.nvidia && !has(&["CUDA", "OPTIX"]) {
        ("NVIDIA", "run `nvidia-smi`; if it fails, install the driver again; else use a Blender from blender.org")
    } else if cards.kfd && has_none && cards.amd.iter().any(|bytes| *bytes >= CARD_MIN_BYTES) {
        (
            "AMD",
            "install AMD's HIP (ROCm), and let this user into the groups render and video; else use a Blender from \
             blender.org",
        )
    } else {
        return None;
    };
    let so = if has_none { ", so this machine renders on its CPU" } else { "" };
    let message = format!("there is an {maker} GPU here and no Blender found can use it{so}");
    Some(Problem { kind: GPU_UNUSABLE.into(), message, fix: fix.into() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const W7900: u64 = 48 << 30;

    fn told(cards: &Cards, backends: &[&str]) -> Option<String> {
        unusable(cards, backends).map(|problem| problem.message)
    }

    #[test]
    fn an_nvidia_card_that_no_blender_can_use_is_a_problem() {
        let cards = Cards { nvidia: true, ..Cards::default() };
        assert!(told(&cards, &["CPU"]).is_some_and(|text| text.contains("NVIDIA")));
        assert_eq!((told(&cards, &["CUDA", "CPU"]), told(&cards, &["OPTIX", "CPU"])), (None, None));
        assert!(told(&cards, &["HIP", "CPU"]).is_some_and(|text| text.ends_with("no Blender found can use it")));
        assert_eq!(told(&Cards::default(), &["CPU"]), None);
    }

    #[test]
    fn an_amd_card_that_no_blender_can_use_is_a_problem() {
        let cards = Cards { kfd: true, amd: vec![512 << 20, W7900], ..Cards::default() };
        assert!(told(&cards, &["CPU"]).is_some_and(|text| text.contains("AMD")));
        assert_eq!(told(&cards, &["HIP", "CPU"]), None);
    }

    #[test]
    fn what_may_be_a_processors_own_graphics_is_no_problem() {
        let amd = |kfd, amd: &[u64]| Cards { kfd, amd: amd.to_vec(), ..Cards::default() };
        assert_eq!(told(&amd(true, &[512 << 20]), &["CPU"]), None, "a laptop");
        assert_eq!(told(&amd(true, &[]), &["CPU"]), None, "an older kernel");
        assert_eq!(told(&amd(false, &[W7900]), &["CPU"]), None, "no driver that computes");
        let beside = Cards { nvidia: true, ..amd(true, &[4 << 30]) };
        assert_eq!(told(&beside, &["OPTIX", "CUDA", "CPU"]), None, "another card renders");
    }

    #[test]
    fn amd_cards_are_read_as_linux_has_them_and_no_outputs_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let entry = |name: &str, vendor: &str, memory: Option<u64>| {
            let device = dir.path().join(name).join("device");
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
            if let Some(bytes) = memory {
                std::fs::write(device.join("mem_info_vram_total"), format!("{bytes}\n")).unwrap();
            }
        };
        entry("card0", "0x8086", None);
        entry("card1", AMD, Some(W7900));
        entry("card1-DP-1", AMD, Some(W7900));
        entry("card2", AMD, None);
        entry("renderD128", AMD, Some(W7900));
        assert_eq!(amd_in(dir.path()), [W7900]);
        assert_eq!(amd_in(&dir.path().join("none")), [0; 0]);
    }
}
