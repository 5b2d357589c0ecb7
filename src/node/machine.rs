//! This machine: what it is, how busy it is, what graphics cards it has.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
use tokio::sync::mpsc;

/// Between looks at the load.
const LOAD_EVERY: Duration = Duration::from_secs(2);
/// Most graphics cards listed.
const GPUS_MAX: usize = 64;

/// What does not change while the daemon runs.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Host name.
    pub name: String,
    /// Operating system and version.
    pub os: String,
    /// CPU model.
    pub cpu_model: String,
    /// Logical cores this process may use.
    pub cores: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// Asks the system.
pub fn read() -> Machine {
    let what =
        RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()).with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(what).ok();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Machine {
        name: System::host_name().unwrap_or_else(|_| "unnamed".into()),
        os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.into()),
        cpu_model: system
            .as_ref()
            .and_then(|system| Some(system.cpus().first()?.brand().trim().to_owned()))
            .unwrap_or_default(),
        cores: cores.try_into().unwrap_or(u32::MAX),
        memory_bytes: system.as_ref().map_or(0, System::total_memory),
    }
}

/// What tells this machine from a copy of its disk, where the system has such a thing.
pub fn machine_id() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    Some(id.trim().chars().take(64).collect::<String>()).filter(|id| !id.is_empty())
}

/// Free bytes for this user on the disk of `path`.
///
/// # Errors
/// What the system says of the path.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Reports the CPU load in hundredths for as long as somebody listens.
pub fn watch<T: Send + 'static>(tell: mpsc::Sender<T>, event: impl Fn(u8) -> T + Send + 'static) {
    tokio::spawn(async move {
        let Ok(mut system) = System::new() else { return };
        system.refresh_cpu_usage();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOAD_EVERY) => {}
                () = tell.closed() => return,
            }
            system.refresh_cpu_usage();
            // News that can be missed: a full queue means that the machine is busy indeed.
            let _ = tell.try_send(event(system.global_cpu_usage().clamp(0.0, 100.0) as u8));
        }
    });
}

/// A graphics card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Model.
    pub name: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Driver version.
    pub driver: String,
}

/// NVIDIA's cards, as its own tool lists them; none where there is no such tool.
pub async fn gpus() -> Vec<Gpu> {
    let query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"];
    let listing = tokio::process::Command::new("nvidia-smi")
        .args(query)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let listed = tokio::time::timeout(Duration::from_secs(5), listing).await;
    let Ok(Ok(output)) = listed else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().take(GPUS_MAX).filter_map(gpu).collect()
}

fn gpu(line: &str) -> Option<Gpu> {
    let mut fields = line.split(',').map(str::trim);
    let (name, mebibytes, driver) = (fields.next()?, fields.next()?, fields.next()?);
    let memory_bytes = mebibytes.parse::<u64>().ok()?.saturating_mul(1024 * 1024);
    Some(Gpu { name: name.chars().take(100).collect(), memory_bytes, driver: driver.chars().take(40).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_card_listing_is_a_card_and_nonsense_is_none() {
        let card = gpu("NVIDIA H200, 143771, 570.86.15");
        assert_eq!(card.map(|card| (card.name, card.memory_bytes >> 30)), Some(("NVIDIA H200".into(), 140)));
        assert_eq!(gpu("No devices were found"), None);
        assert_eq!(gpu("a, b, c"), None);
    }
}
