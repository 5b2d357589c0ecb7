//! What this machine is and how busy it is.
//!
//! Asked from the operating system, and from `nvidia-smi` for graphics cards where it is there; what cannot be learnt
//! is left out and never guessed. Whether a card can render is for Blender to say.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tokio::io::AsyncReadExt;

/// Most time for `nvidia-smi`: it hangs when a driver is broken (guess).
const GPU_DEADLINE: Duration = Duration::from_secs(2);
/// Most bytes taken from `nvidia-smi`: a line a card, some 60 bytes each (seen).
const MAX_GPU_BYTES: u64 = 16 << 10;
/// Most graphics cards told of (guess).
pub(super) const MAX_GPUS: usize = 64;
/// Most characters of a name from outside that are passed on (guess).
const MAX_NAME_CHARS: usize = 128;
/// How deep children of children are looked for: a sandbox of two processes, a wrapper script, Blender, its helpers (guess).
const MAX_CHILD_DEPTH: u32 = 6;
/// Where Linux keeps the identity of an installation.
const MACHINE_ID_FILE: &str = "/etc/machine-id";
/// A machine id is 32 hexadecimal digits (machine-id(5)).
const MACHINE_ID_DIGITS: usize = 32;

/// This machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Host name.
    pub name: String,
    /// Operating system and version, as people say it.
    pub os: String,
    /// Model of the processor; empty when unknown.
    pub cpu_model: String,
    /// Logical cores this process may use.
    pub cores: u32,
    /// Main memory, bytes.
    pub memory_bytes: u64,
    /// Identity of this installation, to notice a copied disk; `None` where there is none.
    pub id: Option<String>,
}

/// One graphics card, as its driver tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Model.
    pub name: String,
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// Version of the driver.
    pub driver: String,
}

/// Reads what the machine is: some milliseconds, blocking.
pub fn read() -> Machine {
    let what =
        RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()).with_memory(MemoryRefreshKind::nothing().with_ram());
    // A system that does not answer is a machine of which little is known.
    let system = System::new_with_specifics(what).ok();
    let cpus = system.as_ref().map_or(&[][..], System::cpus);
    let cores = std::thread::available_parallelism().map_or(cpus.len(), usize::from);
    Machine {
        name: clean(&System::host_name().unwrap_or_default(), "unnamed"),
        os: clean(&System::long_os_version().unwrap_or_default(), std::env::consts::OS),
        cpu_model: clean(cpus.first().map_or("", |cpu| cpu.brand()), ""),
        cores: u32::try_from(cores.max(1)).unwrap_or(u32::MAX),
        memory_bytes: system.as_ref().map_or(0, memory_bytes),
        id: std::fs::read_to_string(MACHINE_ID_FILE).ok().and_then(|text| machine_id(&text)),
    }
}

/// What this process may have: a container's limit where it is less than the machine's memory.
fn memory_bytes(system: &System) -> u64 {
    let all = system.total_memory();
    system
        .cgroup_limits()
        .map_or(all, |limits| if limits.total_memory > 0 { limits.total_memory.min(all) } else { all })
}

fn machine_id(text: &str) -> Option<String> {
    let id = text.trim();
    (id.len() == MACHINE_ID_DIGITS && id.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| id.to_ascii_lowercase())
}

/// One line of printable text of bounded length.
pub(super) fn clean(text: &str, otherwise: &str) -> String {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect();
    if text.is_empty() { otherwise.to_owned() } else { text }
}

/// Samples how busy the processor is.
#[derive(Debug)]
pub struct Load {
    system: Option<System>,
}

impl Load {
    /// Begins to watch.
    pub fn new() -> Self {
        let mut system = System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_cpu_usage();
        }
        Self { system }
    }

    /// Share of all cores in use since the last call, 0 to 1; 0 where it cannot be told. Calls less than 200 ms apart tell little.
    pub fn cpu(&mut self) -> f32 {
        let Some(system) = &mut self.system else { return 0.0 };
        system.refresh_cpu_usage();
        let usage = system.global_cpu_usage() / 100.0;
        if usage.is_finite() { usage.clamp(0.0, 1.0) } else { 0.0 }
    }
}

impl Load {
    /// Memory that renders could have, bytes: what is available, and what the programs have that this one started.
    /// `None` where it cannot be told.
    pub fn free_memory_bytes(&mut self) -> Option<u64> {
        let system = self.system.as_mut()?;
        system.refresh_memory();
        let available = system.available_memory();
        let free = system.cgroup_limits().map_or(available, |limits| match limits.total_memory {
            0 => available,
            _ => available.min(limits.free_memory),
        });
        (free > 0).then(|| free.saturating_add(children_memory_bytes(std::process::id(), MAX_CHILD_DEPTH)))
    }
}

/// Main memory of the processes that a process has started, and theirs, as far as the system tells.
#[cfg(target_os = "linux")]
fn children_memory_bytes(process: u32, depth: u32) -> u64 {
    let Some(deeper) = depth.checked_sub(1) else { return 0 };
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return 0 };
    let listed = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> = listed
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .collect();
    let resident = |id: &u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let kibibytes =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let own = kibibytes.unwrap_or(0u64).saturating_mul(1024);
        own.saturating_add(children_memory_bytes(*id, deeper))
    };
    children.iter().map(resident).fold(0, u64::saturating_add)
}

#[cfg(not(target_os = "linux"))]
fn children_memory_bytes(_process: u32, _depth: u32) -> u64 {
    0
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

/// The NVIDIA cards, in the driver's order; none when there is no working `nvidia-smi`.
pub async fn gpus() -> Vec<Gpu> {
    gpus_told_by("nvidia-smi", GPU_DEADLINE).await
}

async fn gpus_told_by(program: &str, deadline: Duration) -> Vec<Gpu> {
    let mut command = tokio::process::Command::new(program);
    command.args(["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let Ok(mut child) = command.spawn() else { return Vec::new() };
    let Some(out) = child.stdout.take() else { return Vec::new() };
    let answer = async {
        let mut bytes = Vec::new();
        out.take(MAX_GPU_BYTES).read_to_end(&mut bytes).await.ok()?;
        child.wait().await.ok()?.success().then(|| String::from_utf8_lossy(&bytes).into_owned())
    };
    match tokio::time::timeout(deadline, answer).await {
        Ok(Some(text)) => text.lines().filter_map(gpu).take(MAX_GPUS).collect(),
        _ => Vec::new(),
    }
}

/// `NVIDIA RTX A4000, 16376 MiB, 535.183.01`. The name may hold commas; a card whose memory is not told has 0.
fn gpu(line: &str) -> Option<Gpu> {
    let mut fields = line.rsplitn(3, ',');
    let (driver, memory, name) = (fields.next()?, fields.next()?, fields.next()?);
    let mebibytes = memory.trim().trim_end_matches("MiB").trim_end().parse::<u64>().unwrap_or(0);
    let name = clean(name, "");
    (!name.is_empty()).then(|| Gpu { name, memory_bytes: mebibytes.saturating_mul(1 << 20), driver: clean(driver, "") })
}

/// Bytes that may still be written to the file system of `path`, which must exist.
///
/// # Errors
/// The path cannot be looked at, or this system cannot tell.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    #[cfg(unix)]
    {
        let file_system = rustix::fs::statvfs(path)?;
        Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
    }
    #[cfg(not(unix))]
    {
        path.metadata()?;
        Err(io::Error::new(io::ErrorKind::Unsupported, "free space cannot be told on this system"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_cores_and_memory() {
        let machine = read();
        assert!(!machine.name.is_empty() && !machine.os.is_empty());
        assert!(machine.cores >= 1 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!((0.0..=1.0).contains(&Load::new().cpu()));
        assert!(Load::new().free_memory_bytes().is_none_or(|free| free > 1 << 20));
    }

    #[test]
    fn cards_are_read_from_lines_that_may_be_odd() {
        let card = gpu("NVIDIA RTX A4000, 16376 MiB, 535.183.01").unwrap();
        assert_eq!(
            card,
            Gpu { name: "NVIDIA RTX A4000".into(), memory_bytes: 16_376 << 20, driver: "535.183.01".into() }
        );
        assert_eq!(gpu("A, B, 1 MiB, 2").unwrap().name, "A, B");
        assert_eq!(gpu("NVIDIA GB10, [N/A], 580.1").unwrap().memory_bytes, 0);
        assert_eq!(gpu("No devices were found"), None);
        assert_eq!(gpu(", 1 MiB, 2"), None);
        assert_eq!(gpu(""), None);
    }

    #[tokio::test]
    async fn no_answer_about_cards_is_no_cards() {
        assert_eq!(gpus_told_by("/nowhere/nvidia-smi", GPU_DEADLINE).await, vec![]);
        assert_eq!(gpus_told_by("false", GPU_DEADLINE).await, vec![]);
    }

    #[test]
    fn only_a_machine_id_is_one() {
        assert_eq!(machine_id("0123456789ABCDEF0123456789abcdef\n").unwrap(), "0123456789abcdef0123456789abcdef");
        assert_eq!(machine_id("uninitialized\n"), None);
        assert_eq!(machine_id(""), None);
    }

    #[test]
    fn free_space_is_told_of_what_exists() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        assert!(free_bytes(&folder.path().join("none")).is_err());
    }
}
