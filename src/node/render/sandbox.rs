//! The sandbox of a Blender that opens a job's file: bubblewrap (`bwrap`), on Linux.
//!
//! A .blend is a program of sorts, and Blender's readers of a hundred formats were not made for hostile ones. In here it
//! has no network and no other process, and of the disk it sees the system's programs and libraries, itself, and the
//! scene. Everything else is not there: homes, `/run` with its sockets, `/var`, other disks, the data directory with its
//! key. It may write to the folder that its results are taken from, to a `/tmp` and a home that go with it, beside the
//! .blend (nobody else sees that), and to a cache of shaders and kernels that all Blenders of this node share.
//!
//! What is bound is a list of what may be seen, so that what nobody thought of is hidden. Homes keep their path: a
//! Blender in one, and the colours of a user's own, are bound back where they are, read-only.
//!
//! No `--new-session`: the process leads a session without a terminal already ([`crate::node::polite`]), and a further
//! one would have an ordinary weight of its own, and a process group that nobody counts and kills.
//!
//! It costs 10 ms for each start of a worker: `sh -c :` takes 11.9 ms with a worker's arguments, as `ps -C bwrap -o args`
//! shows them, and 2.1 ms without (medians of 10 on two busy cores, Debian 12, bubblewrap 0.8); Blender takes some 600.

use super::files::Folder;
use super::log::SANDBOX;
use super::{Problem, Renderer, RendererKind};
use crate::node::polite;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use tokio::process::Command;

/// What of the system is seen: programs, libraries, their settings, and what Mesa asks about cards; the last four of
/// NixOS, where the others are nearly empty.
const SYSTEM: [&str; 14] = [
    "/bin",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/sbin",
    "/sys",
    "/usr",
    "/nix/store",
    "/run/current-system",
    "/run/opengl-driver",
    "/run/opengl-driver-32",
];
/// What root alone may read of that, and a daemon of root's would show.
const SECRETS: [&str; 9] = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/krb5.keytab",
    "/etc/NetworkManager/system-connections",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/wireguard",
];
/// How the names in `/dev` of what renders begin: of DRM, AMD, NVIDIA and of Windows below WSL.
const DEVICES: [&str; 4] = ["dri", "kfd", "nvidia", "dxg"];
/// Variables that go along. Others may hold keys of the user's, or name sockets.
const VARIABLES: [&str; 12] = [
    "HOME",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "PATH",
    // By it a person, or a test, tells whose a process is.
    "SWARM_DATA_DIR",
    "TZ",
    "USER",
    "XDG_CONFIG_HOME",
    "XDG_DATA_DIRS",
    "XDG_DATA_HOME",
];
/// How the names of others begin that change how something is rendered.
const PREFIXES: [&str; 28] = [
    "AMD_", "BLENDER_", "CUDA_", "CYCLES_", "DRI_", "EGL_", "EMBREE_", "GALLIUM_", "GPU_", "HIP_", "HSA_", "KMP_",
    "LC_", "LIBGL_", "LP_", "MESA_", "NEO_", "NVIDIA_", "OIDN_", "OMP_", "ONEAPI_", "OPTIX_", "ROCR_", "SYCL_", "TBB_",
    "VK_", "ZE_", "__",
];
/// Where a Blender is told that it has files of its own (`find.rs` asks again when one of them changes).
const OWN_FILES: [&str; 5] = [
    "BLENDER_SYSTEM_DATAFILES",
    "BLENDER_SYSTEM_RESOURCES",
    "BLENDER_SYSTEM_SCRIPTS",
    "BLENDER_USER_DATAFILES",
    "BLENDER_USER_RESOURCES",
];
/// Home of a user that has none that could be made.
const NO_HOME: &str = "/home/swarm";
/// Longest time of the trial, which takes some milliseconds (guess: a machine that swaps).
const TRIAL: Duration = Duration::from_secs(20);
/// Most things beside a .blend for which Blender may write there: each costs a mount (guess).
const BESIDE_MAX: usize = 200;
/// Most .blend files beside which it may be written (guess).
const BLENDS_MAX: usize = 50;
/// How the names of folders begin in which Blender keeps simulations, baked or not.
const CACHES: &str = "blendcache_";
/// Where those that came with a scene are seen.
const SHOWN: &str = "/caches";
/// The folder of the data directory with what Blenders keep of shaders and kernels.
const SHADERS: &str = "shader-cache";

/// Whether the Blenders of a node run in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Confinement {
    /// Not known yet.
    #[default]
    Untried,
    /// There is one; each [`Renderer`] says whether it runs in it.
    On(Arc<Sandbox>),
    /// Its owner does not want any.
    Off,
    /// This system has none.
    Unavailable,
    /// There could be one, and why there is none.
    Broken(Problem),
}

/// A sandbox that works on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    bwrap: PathBuf,
    data_dir: PathBuf,
    home: PathBuf,
}

/// What a path inside is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mount {
    /// What is at the path outside, if there is anything; to be read.
    Read(PathBuf),
    /// The same, to be written too.
    Write(PathBuf),
    /// The same, of a device.
    Device(PathBuf),
    /// An empty folder, gone with the sandbox.
    Fresh,
    /// An empty folder that nothing is written to.
    Closed,
    /// A file that cannot be read.
    Blank,
}

/// The disk as a sandboxed process sees it. In the order of its paths what is deeper is mounted later, and so seen.
type Mounts = BTreeMap<PathBuf, Mount>;

/// What of the disk a process has beside what all have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Files and folders that it reads.
    pub reads: Vec<PathBuf>,
    /// Those that it writes too.
    pub writes: Vec<PathBuf>,
    /// Libraries beside which it may write as beside the .blend itself.
    pub blends: Vec<PathBuf>,
}

/// One sandbox for one process, with a folder for what it writes. Dropped, that goes.
#[derive(Debug)]
pub(super) struct Cell {
    sandbox: Arc<Sandbox>,
    program: PathBuf,
    mounts: Mounts,
    folder: Folder,
}

impl Sandbox {
    /// Looks for the program and tries it, with all that a worker will ask of it.
    pub async fn find(data_dir: &Path) -> Confinement {
        if !cfg!(target_os = "linux") {
            return Confinement::Unavailable;
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join("bwrap")).find(|file| file.is_file());
        match found {
            Some(bwrap) => Self::tried(bwrap, data_dir).await,
            None => broken("bubblewrap is not installed", "install it: apt-get install bubblewrap, or your system's"),
        }
    }

    /// That of the program `bwrap`, if it works.
    pub(super) async fn tried(bwrap: PathBuf, data_dir: &Path) -> Confinement {
        let variable = |name: &str| std::env::var_os(name);
        let home = std::env::home_dir().filter(|home| may_be_home(home)).unwrap_or(NO_HOME.into());
        let tried = async {
            let sandbox = Self { bwrap, data_dir: data_dir.canonicalize()?, home };
            let sandbox = Arc::new(sandbox);
            let work_dir = sandbox.data_dir.join("scratch");
            let mounts = sandbox.mounts(&devices(), variable);
            let cell = Cell::with(sandbox.clone(), "/bin/sh".into(), mounts, &work_dir)?;
            let mut command = cell.command(None);
            command.args(["-c", ":"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command.kill_on_drop(true);
            let output = polite::spawn(command)?.wait_with_output();
            let output = tokio::time::timeout(TRIAL, output).await??;
            io::Result::Ok((sandbox, output))
        };
        match tried.await {
            Ok((sandbox, output)) if output.status.success() => Confinement::On(sandbox),
            Ok((_, output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let line = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it says nothing");
                let line = super::log::cut(line.strip_prefix(SANDBOX).unwrap_or(line), 300).trim_end_matches('.');
                broken(
                    &format!("bubblewrap does not work here: {line}"),
                    mend(|file| std::fs::read_to_string(file).ok()),
                )
            }
            Err(error) => broken(&format!("bubblewrap cannot be tried: {error}"), "mend that, and start swarm again"),
        }
    }

    /// What is to be read for these files to be: their folders, as they may be many, but for those with more in them than a
    /// person means to show.
    pub(super) fn shown_for(&self, files: &[String]) -> Vec<PathBuf> {
        let shown = |file: &String| {
            let folder = Path::new(file).parent().unwrap_or(Path::new("/"));
            let is_more =
                self.home.starts_with(folder) || self.data_dir.starts_with(folder) || folder == Path::new("/tmp");
            if is_more { file.into() } else { folder.to_path_buf() }
        };
        files.iter().map(shown).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What changes with the program and with what is asked of it.
    pub(super) fn stamp(&self) -> Option<String> {
        let meta = self.bwrap.metadata().ok()?;
        let time = meta.modified().ok()?.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let own = blake3::hash(include_bytes!("sandbox.rs")).to_hex();
        Some(format!("{} {} {time} {} {}", self.bwrap.display(), meta.len(), self.home.display(), &own[..16]))
    }

    /// Where shaders and kernels are kept.
    fn shaders(&self) -> PathBuf {
        self.data_dir.join(SHADERS)
    }

    /// What every process in it has.
    fn mounts(&self, devices: &[PathBuf], variable: impl Fn(&str) -> Option<OsString>) -> Mounts {
        let mut mounts: Mounts = SYSTEM.iter().map(|path| (path.into(), Mount::Read(path.into()))).collect();
        for path in SECRETS.map(PathBuf::from) {
            match path.metadata() {
                Ok(meta) if meta.is_dir() => mounts.insert(path, Mount::Closed),
                Ok(_) => mounts.insert(path, Mount::Blank),
                Err(_) => None,
            };
        }
        mounts.extend(devices.iter().map(|device| (device.clone(), Mount::Device(device.clone()))));
        mounts.insert(self.data_dir.clone(), Mount::Closed);
        mounts.insert(self.home.clone(), Mount::Fresh);
        mounts.insert(self.home.join(".cache"), Mount::Write(self.shaders()));
        mounts.insert(self.home.join(".nv"), Mount::Write(self.shaders().join("nv")));
        for path in OWN_FILES.iter().filter_map(|name| variable(name).map(PathBuf::from)) {
            self.show(&mut mounts, &path);
        }
        mounts
    }

    /// Has `path` read, unless it is seen already, or more would be seen than is meant.
    fn show(&self, mounts: &mut Mounts, path: &Path) {
        let is_seen = SYSTEM.iter().any(|system| path.starts_with(system));
        if path.is_absolute() && !is_seen && !self.home.starts_with(path) && !self.data_dir.starts_with(path) {
            mounts.insert(path.to_path_buf(), Mount::Read(path.to_path_buf()));
        }
    }

    /// What a renderer needs of its own: where it is installed, for a Python its environment and what that was made
    /// from, and the colours in use. Gives what to start.
    fn show_renderer(&self, mounts: &mut Mounts, renderer: &Renderer) -> PathBuf {
        let real = renderer.path.canonicalize().unwrap_or_else(|_| renderer.path.clone());
        let program = match renderer.kind {
            // The place of an environment's own link tells it its packages.
            RendererKind::Python => {
                for python in [&renderer.path, &real] {
                    python.ancestors().nth(2).into_iter().for_each(|root| self.show(mounts, root));
                }
                renderer.path.clone()
            }
            RendererKind::Executable => {
                real.parent().into_iter().for_each(|folder| self.show(mounts, folder));
                if SYSTEM.iter().any(|system| renderer.path.starts_with(system)) { renderer.path.clone() } else { real }
            }
        };
        if let Some(colours) = renderer.colour_folders.iter().find(|folder| folder.is_dir()) {
            self.show(mounts, colours);
        }
        program
    }
}

impl Cell {
    /// That of `renderer`, which has `disk`, and may write beside the file `blend`. Its folder is made below `work_dir`.
    pub fn new(
        sandbox: &Arc<Sandbox>,
        renderer: &Renderer,
        disk: &Disk,
        blend: Option<&Path>,
        work_dir: &Path,
    ) -> io::Result<Self> {
        let mut mounts = sandbox.mounts(&devices(), |name| std::env::var_os(name));
        let program = sandbox.show_renderer(&mut mounts, renderer);
        mounts.extend(disk.reads.iter().map(|path| (path.clone(), Mount::Read(path.clone()))));
        mounts.extend(disk.writes.iter().map(|path| (path.clone(), Mount::Write(path.clone()))));
        let mut cell = Self::with(sandbox.clone(), program, mounts, work_dir)?;
        let folders: BTreeSet<&Path> =
            blend.iter().copied().chain(disk.blends.iter().map(PathBuf::as_path)).filter_map(Path::parent).collect();
        for (number, folder) in folders.into_iter().take(BLENDS_MAX).enumerate() {
            cell.write_beside(folder, number)?;
        }
        Ok(cell)
    }

    fn with(sandbox: Arc<Sandbox>, program: PathBuf, mut mounts: Mounts, work_dir: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder(work_dir.join("cells").join(name));
        // Of a process that had this one's number.
        let _ = crate::node::leftover::remove_tree(&folder.0);
        for made in [folder.0.join("out"), folder.0.join("tmp"), sandbox.shaders().join("nv")] {
            std::fs::create_dir_all(made)?;
        }
        // On the disk, as it is outside: Cycles keeps the tiles of large images there.
        mounts.insert("/tmp".into(), Mount::Write(folder.0.join("tmp")));
        mounts.insert(folder.0.join("out"), Mount::Write(folder.0.join("out")));
        Ok(Self { sandbox, program, mounts, folder })
    }

    /// Lets the process write to the folder of a .blend, as it may without a sandbox: the caches of simulations that are
    /// not baked go there. What is there already it reads, and what it writes goes with the sandbox.
    fn write_beside(&mut self, folder: &Path, number: usize) -> io::Result<()> {
        let entries: Vec<_> = std::fs::read_dir(folder)?.take(BESIDE_MAX + 1).collect::<Result<_, _>>()?;
        if entries.len() > BESIDE_MAX {
            self.mounts.insert(folder.to_path_buf(), Mount::Read(folder.to_path_buf()));
            return Ok(());
        }
        let beside = self.folder.0.join(format!("beside-{number}"));
        std::fs::create_dir_all(&beside)?;
        self.mounts.insert(folder.to_path_buf(), Mount::Write(beside.clone()));
        for path in entries.into_iter().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name.to_string_lossy().starts_with(CACHES) {
                let shown = Path::new(SHOWN).join(number.to_string()).join(name);
                link_all(&path, &shown, &beside.join(name))?;
                self.mounts.insert(shown, Mount::Read(path));
            } else {
                self.mounts.entry(path.clone()).or_insert(Mount::Read(path));
            }
        }
        Ok(())
    }

    /// Where it may write what is wanted of it.
    pub fn out(&self) -> PathBuf {
        self.folder.0.join("out")
    }

    /// What starts the program, which reads the file `script` too; its own arguments follow.
    pub fn command(&self, script: Option<&Path>) -> Command {
        let mut mounts = self.mounts.clone();
        mounts.extend(script.map(|script| (script.to_path_buf(), Mount::Read(script.to_path_buf()))));
        let mut command = Command::new(&self.sandbox.bwrap);
        command.args(arguments(&mounts)).arg("--").arg(&self.program);
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| goes_along(name)));
        let home = &self.sandbox.home;
        command.env("HOME", home).env("TMPDIR", "/tmp").env("XDG_CACHE_HOME", home.join(".cache"));
        command.env("OPTIX_CACHE_PATH", home.join(".cache/optix"));
        command
    }
}

/// Makes the folder `to` with links to all that is in `folder`, which is seen at `shown`: further files have room there.
fn link_all(folder: &Path, shown: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        #[cfg(unix)]
        std::os::unix::fs::symlink(shown.join(&name), to.join(&name))?;
        #[cfg(not(unix))]
        let _ = (shown, name);
    }
    Ok(())
}

/// The arguments of bubblewrap.
fn arguments(mounts: &Mounts) -> Vec<OsString> {
    let mut all: Vec<OsString> =
        ["--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"]
            .map(OsString::from)
            .to_vec();
    for (path, mount) in mounts {
        let (how, from) = match mount {
            Mount::Read(from) => ("--ro-bind-try", Some(from.as_path())),
            Mount::Write(from) => ("--bind", Some(from.as_path())),
            Mount::Device(from) => ("--dev-bind-try", Some(from.as_path())),
            Mount::Fresh | Mount::Closed => ("--tmpfs", None),
            Mount::Blank => ("--ro-bind", Some(Path::new("/dev/null"))),
        };
        all.push(how.into());
        all.extend(from.map(OsString::from));
        all.push(path.into());
    }
    // Last, since folders to mount on are made in them.
    let closed = mounts.iter().filter(|(_, mount)| **mount == Mount::Closed).map(|(path, _)| path.as_path());
    for path in closed.chain([Path::new("/")]) {
        all.extend(["--remount-ro".into(), path.into()]);
    }
    all.extend(["--chdir", "/tmp"].map(OsString::from));
    all
}

/// Whether a variable of the daemon's is one of Blender's too.
fn goes_along(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    VARIABLES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// What renders, in `/dev`: looked up each time, since drivers make some of it when they are first used.
fn devices() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let renders = |name: &OsStr| DEVICES.iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
    entries.filter(|entry| renders(&entry.file_name())).map(|entry| entry.path()).collect()
}

/// Whether an empty folder can be put there without hiding the system.
fn may_be_home(home: &Path) -> bool {
    let is_below = SYSTEM.iter().any(|system| home.starts_with(system));
    let hides = SYSTEM.iter().any(|system| Path::new(system).starts_with(home));
    home.is_absolute() && !hides && (!is_below || home.is_dir())
}

fn broken(why: &str, fix: &str) -> Confinement {
    Confinement::Broken(outside(format!("Blender is not sandboxed here: {why}"), fix))
}

/// That something runs outside.
pub(super) fn outside(message: String, fix: &str) -> Problem {
    Problem { kind: "sandbox".into(), message, fix: fix.into() }
}

/// What lets an ordinary user make the namespaces that a sandbox is made of; `read` reads a file of the kernel's.
fn mend(read: impl Fn(&str) -> Option<String>) -> &'static str {
    let is = |file: &str, value: &str| read(file).is_some_and(|text| text.trim() == value);
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor forbids it; as root, write `abi <abi/4.0>, include <tunables/global> profile bwrap /usr/bin/bwrap \
         flags=(unconfined) { userns, }` to /etc/apparmor.d/bwrap, run `apparmor_parser -r /etc/apparmor.d/bwrap`, and \
         start swarm again"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "as root, `sysctl -w kernel.unprivileged_userns_clone=1`, and the same line in /etc/sysctl.d; then start swarm again"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "as root, `sysctl -w user.max_user_namespaces=15000`, and the same line in /etc/sysctl.d; then start swarm again"
    } else {
        "start swarm where user namespaces are allowed (a container usually forbids them), or with --no-sandbox to \
         leave it so"
    }
}

#[cfg(all(test, target_os = "linux"))]
#[path = "sandbox_tests.rs"]
pub(in crate::node) mod tests;
