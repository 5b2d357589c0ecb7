//! Finding renderers and asking each what it can do.
//!
//! Places are looked at in a fixed order: those a person named, those of `SWARM_BLENDER`, `PATH`, the usual places of
//! the system, the folder scripts/setup fills. Each candidate is started once and asked; what it said is kept in a file
//! under the candidate's path, size and time, those of EGL, the driver's text, the GPU driver's version and where the
//! environment says that Blender's files are, and asked again when one of them changes. What only starts another program,
//! a script or a snap's link, says nothing of that program's changes and is asked each time. A failure is never kept: what
//! a person mends is seen at the next look.

use super::child::{Child, DRIVER, Event, Mode};
use super::colours::colours_of;
use super::error::{INSTALL_EGL, without_opengl};
use super::log::Log;
use super::sandbox::{Cell, Confinement};
use super::unusable::{Cards, unusable};
use super::{DeviceInfo, Problem, Renderer, RendererKind};
use crate::farm::ability::{Abilities, Ability};
use crate::farm::job::Series;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// What the problem is called that a machine which finds none has.
pub const NO_BLENDER: &str = "no-blender";
/// What the problem is called that a Blender has which can draw with Cycles alone.
pub const NO_OPENGL: &str = "no-opengl";
/// How long a Blender may take to answer; about 1 s is usual, a cold disk or a GPU driver takes longer (guess).
const PROBE: Duration = Duration::from_secs(60);
/// Probes at once (guess): each starts a Blender.
pub(super) const PROBES_AT_ONCE: usize = 2;
/// Most candidates looked at (guess).
const CANDIDATES_MAX: usize = 64;
/// Largest cache file read, bytes (guess).
const CACHE_MAX_BYTES: u64 = 1024 * 1024;

/// What says where a Blender has its own files, of all users and of this one.
const PLACES: [&str; 8] = [
    "BLENDER_SYSTEM_DATAFILES",
    "BLENDER_SYSTEM_RESOURCES",
    "BLENDER_USER_DATAFILES",
    "BLENDER_USER_RESOURCES",
    "APPDATA",
    "HOME",
    "XDG_CONFIG_HOME",
    "USERPROFILE",
];

/// Where Linux has EGL, which a Blender is asked for.
const EGL: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/libEGL.so.1",
    "/usr/lib/aarch64-linux-gnu/libEGL.so.1",
    "/usr/lib64/libEGL.so.1",
    "/usr/lib/libEGL.so.1",
];

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Renderers that answered: named ones first, then in the order of the places looked at.
    pub renderers: Vec<Renderer>,
    /// What a person should mend.
    pub problems: Vec<Problem>,
    /// Whether there is a sandbox for them.
    pub confinement: Confinement,
}

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Named by a person: an executable, or a folder with one. One that does not work is a problem.
    pub named: Vec<PathBuf>,
    /// Executables that are used if they are there.
    pub usual: Vec<PathBuf>,
}

impl Search {
    /// The places of this machine: `given`, `SWARM_BLENDER` (a path list), and unless `SWARM_NO_BLENDER` is `1`, `PATH`,
    /// the usual places of the system and the bpy environment of scripts/setup (`SWARM_BPY_DIR`, else
    /// `~/.local/share/swarm/bpy`).
    pub fn from_env(given: &[PathBuf]) -> Self {
        let list = |name: &str| -> Vec<PathBuf> {
            let value = std::env::var_os(name).unwrap_or_default();
            std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect()
        };
        let mut named = given.to_vec();
        named.extend(list("SWARM_BLENDER"));
        if std::env::var_os("SWARM_NO_BLENDER").is_some_and(|value| value == "1") {
            return Self { named, usual: Vec::new() };
        }
        let home = std::env::home_dir();
        let exe = if cfg!(windows) { "blender.exe" } else { "blender" };
        let mut usual: Vec<PathBuf> = list("PATH").iter().map(|dir| dir.join(exe)).collect();
        if cfg!(target_os = "macos") {
            for root in [Some(PathBuf::from("/Applications")), home.as_ref().map(|h| h.join("Applications"))] {
                let apps = root.iter().flat_map(|root| starting_with(root, "Blender"));
                usual.extend(apps.map(|app| app.join("Contents/MacOS/Blender")));
            }
        } else if cfg!(windows) {
            let roots = ["ProgramFiles", "ProgramW6432"].iter().filter_map(std::env::var_os);
            for root in roots.map(PathBuf::from) {
                let apps = starting_with(&root.join("Blender Foundation"), "Blender");
                usual.extend(apps.into_iter().map(|app| app.join(exe)));
            }
        } else {
            usual.extend([PathBuf::from("/usr/bin/blender"), "/usr/local/bin/blender".into()]);
            let roots = [Some(PathBuf::from("/opt")), Some("/usr/local".into()), home.clone()];
            let apps = roots.iter().flatten().flat_map(|root| starting_with(root, "blender"));
            usual.extend(apps.map(|app| app.join(exe)));
            usual.push("/snap/bin/blender".into());
        }
        let environment = std::env::var_os("SWARM_BPY_DIR")
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
            .or_else(|| home.map(|home| home.join(".local/share/swarm/bpy")));
        usual.extend(environment.and_then(|dir| inside(&dir)));
        Self { named, usual }
    }
}

/// Folders in `root` whose names start with `prefix`, newest version last by name, so sorted backwards.
fn starting_with(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .take(CANDIDATES_MAX)
        .collect();
    found.sort();
    found.reverse();
    found
}

/// The executable in a folder that a person may name, or that scripts/setup fills.
fn inside(dir: &Path) -> Option<PathBuf> {
    let names = ["blender", "blender.exe", "Contents/MacOS/Blender", "bin/python", "Scripts/python.exe"];
    names.iter().map(|name| dir.join(name)).find(|path| path.is_file())
}

fn kind_of(path: &Path) -> RendererKind {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if name.starts_with("python") { RendererKind::Python } else { RendererKind::Executable }
}

/// What makes two paths the same renderer. The Python of an environment is usually a link to the system's, and only its
/// own place says which packages it has: there the folder counts.
fn identity(path: &Path, kind: RendererKind) -> Option<PathBuf> {
    match kind {
        RendererKind::Executable => path.canonicalize().ok(),
        RendererKind::Python => Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)),
    }
}

/// What must not have changed for a kept answer to hold: the executable, for Python its `bpy`, EGL, our driver, the GPU's.
/// Where the environment says that its files are counts too. `None`: no answer is kept.
pub(super) fn stamp(path: &Path, kind: RendererKind, variable: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let mut files = vec![path.to_path_buf()];
    if kind == RendererKind::Python {
        let lib = path.parent()?.parent()?.join("lib");
        let pythons = starting_with(&lib, "python");
        files.extend(pythons.iter().map(|python| python.join("site-packages/bpy/__init__.so")));
    }
    if kind == RendererKind::Executable && starts_another(path) {
        return None;
    }
    // CUDA makes it by a program of root's, which does nothing in a sandbox: so it is asked outside, once after each boot.
    if Path::new("/dev/nvidiactl").exists() && !Path::new("/dev/nvidia-uvm").exists() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for file in files.into_iter().chain(EGL.map(PathBuf::from)) {
        let Ok(meta) = file.metadata() else { continue };
        let time = meta.modified().ok()?.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        hasher.update(format!("{} {time} ", meta.len()).as_bytes());
    }
    hasher.update(DRIVER.as_bytes());
    for name in PLACES {
        let place = variable(name).unwrap_or_default();
        hasher.update(blake3::hash(place.as_encoded_bytes()).as_bytes());
    }
    for place in ["/proc/driver/nvidia/version", "/sys/module/amdgpu/version", "/sys/module/i915/srcversion"] {
        hasher.update(&std::fs::read(place).unwrap_or_default());
    }
    Some(hasher.finalize().to_hex().to_string())
}

/// Whether an executable is a script, or a link to a program of quite another name, as snap's are.
fn starts_another(path: &Path) -> bool {
    let mut start = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    let target = path.canonicalize().unwrap_or_default();
    let name = target.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    read.is_err() || &start == b"#!" || !name.contains("blender")
}

#[derive(Default, Serialize, Deserialize)]
struct Cache {
    /// Path of a renderer, its stamp, what it said.
    answers: BTreeMap<PathBuf, (String, Renderer)>,
}

impl Cache {
    fn read(file: &Path) -> Self {
        // A cache that is missing, torn or of another version is an empty one.
        let small = file.metadata().is_ok_and(|meta| meta.len() <= CACHE_MAX_BYTES);
        let bytes = if small { std::fs::read(file).unwrap_or_default() } else { Vec::new() };
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let part = file.with_extension(format!("part-{}", std::process::id()));
        std::fs::write(&part, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(&part, file)
    }
}

/// Looks for renderers in the places of this machine; see [`Search::from_env`]. What they answer is kept in `cache_file`,
/// whose folder also holds the script they are asked with. Takes a second for each that is new.
pub async fn discover(given: &[PathBuf], cache_file: &Path) -> Discovery {
    discover_in(Search::from_env(given), cache_file).await
}

/// As [`discover`], in these places alone.
pub async fn discover_in(search: Search, cache_file: &Path) -> Discovery {
    let mut found = Discovery::default();
    let mut candidates: Vec<(PathBuf, RendererKind)> = Vec::new();
    let mut seen = BTreeSet::new();
    let named = search.named.iter().map(|path| (path, true));
    for (path, by_name) in named.chain(search.usual.iter().map(|path| (path, false))) {
        let path = if path.is_dir() { inside(path) } else { Some(path.clone()).filter(|p| p.is_file()) }
            .ok_or(path)
            .and_then(|file| std::path::absolute(file).map_err(|_| path));
        match path {
            Ok(path) => {
                let kind = kind_of(&path);
                if identity(&path, kind).is_some_and(|identity| seen.insert(identity)) {
                    candidates.push((path, kind));
                }
            }
            Err(path) if by_name => {
                let message = format!("there is no Blender at {}", path.display());
                found.problems.push(problem("no-such-blender", message, "name the file `blender` itself"));
            }
            Err(_) => {}
        }
    }
    candidates.truncate(CANDIDATES_MAX);
    let work_dir = cache_file.parent().unwrap_or(Path::new(".")).to_path_buf();
    let old = Cache::read(cache_file);
    let answers: Vec<_> = futures::stream::iter(candidates)
        .map(|(path, kind)| {
            let stamp = stamp(&path, kind, |name| std::env::var_os(name));
            let kept = old
                .answers
                .get(&path)
                .filter(|(then, _)| Some(then) == stamp.as_ref())
                .map(|(_, renderer)| renderer.clone());
            let work_dir = &work_dir;
            async move {
                let answer = match kept {
                    Some(renderer) => Ok(Answered { renderer, missing_opengl: None }),
                    None => probe(&path, kind, work_dir, None).await,
                };
                // Not kept: nothing of the executable changes with them.
                let answer = match answer {
                    Ok(told) => Ok(Answered { renderer: with_colours(told.renderer).await, ..told }),
                    problem => problem,
                };
                (path, stamp, answer)
            }
        })
        .buffered(PROBES_AT_ONCE)
        .collect()
        .await;
    let mut new = Cache::default();
    for (path, stamp, answer) in answers {
        match answer {
            Ok(Answered { renderer, missing_opengl }) => {
                found.renderers.push(renderer.clone());
                // What a person mends is seen at the next look.
                let stamp = stamp.filter(|_| missing_opengl.is_none());
                if let Some(why) = missing_opengl {
                    let message =
                        format!("Blender {} at {} {}", renderer.version_text(), path.display(), without_opengl(&why));
                    found.problems.push(problem(NO_OPENGL, message, INSTALL_EGL));
                }
                new.answers.extend(stamp.map(|stamp| (path, (stamp, renderer))));
            }
            Err(problem) => found.problems.push(problem),
        }
    }
    if new.answers != old.answers
        && let Err(error) = new.write(cache_file)
    {
        tracing::warn!(file = %cache_file.display(), %error, "cannot keep what the Blenders here can do; they are asked again next time");
    }
    if found.renderers.is_empty() {
        found.problems.push(problem(
            NO_BLENDER,
            "no Blender was found on this machine, so it renders nothing".into(),
            "install Blender, or run scripts/setup, or name one with --blender PATH",
        ));
    } else {
        let backends: Vec<&str> = found.renderers.iter().flat_map(Renderer::backends).collect();
        found.problems.extend(unusable(&Cards::look(), &backends));
    }
    found
}

fn problem(kind: &str, message: String, fix: &str) -> Problem {
    Problem { kind: kind.into(), message, fix: fix.into() }
}

#[derive(Deserialize)]
struct Answer {
    version: (u16, u16, u16),
    file_version: u32,
    build_hash: String,
    colour_folders: Vec<PathBuf>,
    denoiser: bool,
    missing_opengl: Option<String>,
    /// Build options that are off.
    off: Vec<String>,
    devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    backend: String,
    name: String,
    id: String,
}

/// What a Blender of this answer has. What its version has no build option for is in every build of it.
fn abilities(answer: &Answer) -> Abilities {
    let has = |ability: &Ability| match ability {
        Ability::Denoiser => answer.denoiser,
        Ability::OpenGl => answer.missing_opengl.is_none(),
        ability => !answer.off.iter().any(|option| option == option_of(*ability)),
    };
    Ability::ALL.into_iter().filter(has).collect()
}

/// The build option of Blender that an ability comes with; empty for what is none.
fn option_of(ability: Ability) -> &'static str {
    match ability {
        Ability::Denoiser | Ability::OpenGl => "",
        Ability::Alembic => "alembic",
        Ability::Usd => "usd",
        Ability::Osl => "cycles_osl",
        Ability::OpenVdb => "openvdb",
        Ability::Bullet => "bullet",
        Ability::Fluid => "fluid",
        Ability::OpenSubdiv => "opensubdiv",
        Ability::Ocean => "mod_oceansim",
        Ability::Audaspace => "audaspace",
    }
}

/// What a renderer said of itself.
pub(super) struct Answered {
    pub renderer: Renderer,
    /// Why it cannot draw with Eevee and Workbench, if so.
    pub missing_opengl: Option<String>,
}

/// With the hash of its colours as they are now: a person may have put some in a folder that was not there.
pub(super) async fn with_colours(renderer: Renderer) -> Renderer {
    let folders = renderer.colour_folders.clone();
    let colours = tokio::task::spawn_blocking(move || colours_of(&folders)).await.unwrap_or_default();
    Renderer { colours, ..renderer }
}

/// Asks one renderer what it can do, in a sandbox if there is one. Whatever it does, it is gone afterwards.
pub(super) async fn probe(
    path: &Path,
    kind: RendererKind,
    work_dir: &Path,
    cell: Option<&Cell>,
) -> Result<Answered, Problem> {
    let cannot = |why: String| {
        let what = match kind {
            RendererKind::Executable => "the Blender",
            RendererKind::Python => "the bpy of the Python",
        };
        let fix = if why.contains("cannot open shared object") || why.contains("error while loading shared libraries") {
            "install the library it names; on Debian and Ubuntu: apt-get install libx11-6 libxrender1 libxfixes3 libxi6 \
             libxkbcommon0 libsm6 libgl1 libegl1"
        } else {
            "start it by hand to see why, install it again, or leave it out"
        };
        problem("blender-cannot-start", format!("{what} at {} cannot be used: {why}", path.display()), fix)
    };
    let child = Child::start(path, kind, Mode::Probe, None, None, work_dir, cell).await;
    let mut child = child.map_err(|error| cannot(error.to_string()))?;
    let mut log = Log::default();
    let answer = tokio::time::timeout(PROBE, async {
        loop {
            match child.next().await {
                Event::Answer(answer) if answer["event"] == "probe" => return Ok(answer),
                Event::Answer(answer) => return Err(answer["message"].as_str().unwrap_or("it refused").to_string()),
                Event::Line(line) => drop(log.push(line)),
                Event::Gone(gone) => {
                    let last = log.last().map(|line| format!(", after saying: {line}")).unwrap_or_default();
                    return Err(format!("it {gone}{last}"));
                }
            }
        }
    })
    .await
    .unwrap_or_else(|_| Err(format!("it did not answer within {} seconds", PROBE.as_secs())));
    child.kill().await;
    let answer = answer.map_err(cannot)?;
    let answer: Answer =
        serde_json::from_value(answer).map_err(|error| cannot(format!("its answer is not understood ({error})")))?;
    let (major, minor, _) = answer.version;
    let abilities = abilities(&answer);
    let devices = answer.devices.into_iter();
    let renderer = Renderer {
        kind,
        path: path.to_path_buf(),
        version: answer.version,
        series: Series { major, minor },
        file_version: answer.file_version,
        build_hash: answer.build_hash,
        colour_folders: answer.colour_folders,
        colours: String::new(),
        abilities,
        devices: devices.map(|d| DeviceInfo { backend: d.backend, name: d.name, id: d.id, memory: None }).collect(),
        sandbox: None,
    };
    Ok(Answered { renderer, missing_opengl: answer.missing_opengl })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_person_named_and_cannot_be_used_is_told_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("blender");
        std::fs::write(&file, "not a program").unwrap();
        let named = vec![file.clone(), dir.path().join("nowhere")];
        let found = discover_in(Search { named, usual: vec![] }, &dir.path().join("cache.json")).await;
        let kinds: Vec<&str> = found.problems.iter().map(|p| p.kind.as_str()).collect();
        assert_eq!(kinds, ["no-such-blender", "blender-cannot-start", "no-blender"]);
        assert!(found.problems[1].message.contains(&file.display().to_string()), "{:?}", found.problems);
    }

    #[cfg(unix)]
    #[test]
    fn the_answer_of_what_only_starts_another_program_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        std::fs::write(place("blender-4.5"), b"\x7fELF").unwrap();
        std::fs::write(place("snap"), b"\x7fELF").unwrap();
        std::fs::create_dir(place("bin")).unwrap();
        let kept = |path: &Path| stamp(path, RendererKind::Executable, |_| None).is_some();
        assert!(kept(&place("blender-4.5")));
        for (target, is_kept) in [("blender-4.5", true), ("snap", false)] {
            let link = place("bin/blender");
            std::os::unix::fs::symlink(place(target), &link).unwrap();
            assert_eq!(kept(&link), is_kept, "a link to {target}");
            std::fs::remove_file(link).unwrap();
        }
        std::fs::write(place("bin/blender"), "#!/bin/sh\nexec /opt/blender/blender \"$@\"\n").unwrap();
        assert!(!kept(&place("bin/blender")));
    }

    #[test]
    fn an_answer_is_not_kept_where_the_environment_has_its_files_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("blender");
        std::fs::write(&file, b"\x7fELF").unwrap();
        let with = |set: &str| {
            let variable = |name: &str| (name == set).then(|| "/elsewhere".into());
            stamp(&file, RendererKind::Executable, variable).unwrap()
        };
        let all: BTreeSet<String> = ["NONE"].into_iter().chain(PLACES).map(with).collect();
        assert_eq!(all.len(), PLACES.len() + 1);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_program_that_is_no_blender_is_told_with_what_it_said() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("blender");
        std::fs::write(&file, "#!/bin/sh\necho error while loading shared libraries: libX.so; exit 127\n").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        let found =
            discover_in(Search { named: vec![dir.path().into()], usual: vec![] }, &dir.path().join("cache")).await;
        let problem = &found.problems[0];
        assert!(problem.message.contains("exit code 127") && problem.message.contains("libX.so"), "{problem:?}");
        assert!(problem.fix.contains("apt-get"), "{problem:?}");
    }
}
