//! Which files a .blend needs, and which of them are not there.
//!
//! Follows libraries into libraries, each with paths relative to itself as Blender has them. Only looks: it opens no
//! file but the .blends, and what it lists it has seen to exist.

use super::SceneError;
use super::disk::{Disk, Found, absolute};
use super::dna::{BLEND_MAX_BYTES, Blend};
use super::include::included;
use super::inner::trace_inner;
use super::maps::{PathMap, is_foreign, suggested};
use super::ocio::Ocio;
use super::packed::{Packed, libraries};
use super::reach::{Graph, never_rendered, used};
use super::refs::{Budget, Reference, references};
use crate::farm::blob::BUNDLE_MAX_FILES;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fmt, io};

/// Most .blend files one scene may link, itself included (guess).
const MAX_BLENDS: usize = 10_000;

/// What kind of file is referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefKind {
    /// Another .blend that datablocks are linked from.
    Library,
    /// A texture: image, movie, sequence, tiles.
    Image,
    /// A font.
    Font,
    /// A sound.
    Sound,
    /// Footage.
    MovieClip,
    /// An OpenVDB volume.
    Volume,
    /// An Alembic, USD, mesh or multires cache.
    Cache,
    /// Baked physics, fluids, oceans or geometry nodes.
    Bake,
    /// A file that geometry nodes import.
    Import,
    /// Images or a movie in the sequencer.
    Strip,
    /// An IES light profile.
    Light,
    /// An OSL shader.
    Script,
    /// A USD file that another one names.
    Layer,
    /// A file that an OSL shader includes.
    Header,
    /// The configuration of OpenColorIO.
    Ocio,
    /// A lookup table that it names.
    Lut,
    /// Named by the submitter alone.
    Included,
}

impl fmt::Display for RefKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Library => "library",
            Self::Image => "image",
            Self::Font => "font",
            Self::Sound => "sound",
            Self::MovieClip => "movie clip",
            Self::Volume => "volume",
            Self::Cache => "cache",
            Self::Bake => "baked cache",
            Self::Import => "imported file",
            Self::Strip => "sequencer strip",
            Self::Light => "light profile",
            Self::Script => "shader script",
            Self::Layer => "USD layer",
            Self::Header => "header of a shader script",
            Self::Ocio => "OCIO configuration",
            Self::Lut => "OCIO lookup table",
            Self::Included => "included file",
        })
    }
}

/// A file that is needed and there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The file that refers to it: a .blend, unless its kind says otherwise.
    pub from: PathBuf,
    /// What it is.
    pub kind: RefKind,
    /// Name of a datablock that refers to it; there may be more.
    pub datablock: String,
    /// The path as stored, for people; the folder where Blender makes that up from the name of the .blend.
    pub stored: String,
    /// Where it is.
    pub resolved: PathBuf,
}

/// A file that is needed and not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The file that refers to it: a .blend, unless its kind says otherwise.
    pub from: PathBuf,
    /// What it is.
    pub kind: RefKind,
    /// Name of a datablock that refers to it; there may be more.
    pub datablock: String,
    /// The path as stored, for people; the folder where Blender makes that up from the name of the .blend.
    pub stored: String,
    /// Where it was looked for.
    pub resolved: PathBuf,
}

impl Missing {
    /// The `FROM=TO` that would find it, if it is a path of another machine: `P:\=/mnt/p`. Where nothing was found, TO is
    /// `FOLDER`. Looks at the disk.
    pub fn map(&self) -> Option<String> {
        let (mut disk, mut budget) = (Disk::default(), Budget::of(&self.from));
        let mut exists = |path: &Path| disk.called(path, &mut budget).is_ok_and(|called| called.is_some());
        suggested(self.stored.as_bytes(), &self.from, &mut exists)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: ", self.kind, self.datablock)?;
        // What became of a path of another machine says less than the path.
        match is_foreign(self.stored.as_bytes()) {
            true => write!(f, "{} is not there", self.stored)?,
            false => write!(f, "{} is not there", self.resolved.display())?,
        }
        // Blender finds its own assets by their path like any other library (measured with 4.5).
        if self.kind == RefKind::Library && self.stored.replace('\\', "/").contains("/datafiles/assets/") {
            f.write_str(" (an asset of Blender's own; append it instead of linking, or --map its folder to that of a Blender here)")?;
        }
        Ok(())
    }
}

/// Everything a scene refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// What is there, libraries among it, in the order found.
    pub files: Vec<Dependency>,
    /// What is not.
    pub missing: Vec<Missing>,
    /// Every .blend that was read, as it was then: the scene and its libraries.
    pub blends: BTreeMap<PathBuf, Stamp>,
    /// The libraries that are packed into one of these or into each other, and so are on no disk.
    pub packed: Packed,
    /// The first file of each reference whose stored path differs from the disk's in case.
    pub other_case: Vec<Dependency>,
    /// Every file that names others itself, as it was when it was read; its kind.
    pub inner: BTreeMap<PathBuf, (RefKind, Stamp)>,
    /// What the submitter names, by its place relative to the scene; also among `files`.
    pub included: BTreeMap<String, PathBuf>,
    /// Where paths of other machines were looked for.
    pub maps: Vec<PathMap>,
    /// The configuration of OpenColorIO, if it is not Blender's own; its files are among `files` and `missing`.
    pub ocio: Option<Ocio>,
}

impl Trace {
    /// All the scene needs that is there.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.blends.keys().chain(self.files.iter().map(|file| &file.resolved)).cloned().collect()
    }

    /// Reads one of the .blends again, packed or not.
    pub(super) fn open(&self, path: &Path) -> Result<Blend, SceneError> {
        match self.packed.bytes(path) {
            Some(bytes) => Blend::of_bytes(path, bytes, BLEND_MAX_BYTES),
            None => Blend::open(path),
        }
    }
}

/// What shows that a file is still the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its length.
    pub bytes: u64,
    /// When it was last written, as the file system tells it.
    pub modified: Option<SystemTime>,
    /// Whether it is executable.
    pub executable: bool,
}

impl Stamp {
    /// Of the file at `path` now.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        #[cfg(unix)]
        let executable = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0;
        #[cfg(not(unix))]
        let executable = false;
        Ok(Self { bytes: meta.len(), modified: meta.modified().ok(), executable })
    }
}

/// What the submitter says about a scene's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// Where paths of other machines are here; the first that fits counts.
    pub maps: Vec<PathMap>,
    /// Files and folders that travel too, absolute: below the folder of the .blend they keep their place relative to it,
    /// others lie beside it.
    pub include: Vec<PathBuf>,
}

/// Traces the .blend at `path` and every library behind it. Of libraries, only what the scene uses counts.
///
/// Errors when it, or a library that is there, cannot be read as a .blend, or what shall be included cannot; the error names
/// which.
pub fn trace(path: &Path, options: TraceOptions) -> Result<Trace, SceneError> {
    let main = absolute(path)?;
    let TraceOptions { maps, include } = options;
    let mut disk = Disk::of(&main, &maps);
    let mut budget = Budget::of(&main);
    let mut trace = Trace { maps, included: included(&main, &include)?, ..Trace::default() };
    let mut graphs: BTreeMap<PathBuf, Graph> = BTreeMap::new();
    let mut resolved: Vec<(PathBuf, Reference, Found)> = Vec::new();
    let mut queue = VecDeque::from([main.clone()]);
    let mut queued = BTreeSet::from([main.clone()]);
    while let Some(blend_path) = queue.pop_front() {
        if graphs.contains_key(&blend_path) {
            continue;
        }
        if graphs.len() >= MAX_BLENDS {
            return Err(too_many(main));
        }
        let blend = match trace.packed.open_new(&blend_path) {
            Some(packed) => packed?,
            None => {
                let unreadable = |source| SceneError::unreadable(&blend_path, source);
                let stamp = Stamp::of(&blend_path).map_err(unreadable)?;
                let blend = Blend::open(&blend_path)?;
                trace.blends.insert(blend_path.clone(), stamp);
                blend
            }
        };
        let mut graph = if blend_path == main { Graph::of_main(&blend) } else { Graph::of_library(&blend) };
        for library in libraries(&blend, &blend_path, &trace.maps, &mut budget)? {
            // Blender knows a library by its path: whoever names it first says whether it is packed.
            if !queued.contains(&library.path) && trace.packed.take(&blend, &library)? {
                queued.insert(library.path.clone());
                queue.push_back(library.path.clone());
            }
            if queued.contains(&library.path) {
                graph.libraries.insert(library.index, library.path);
            }
        }
        for reference in references(&blend, &mut budget)? {
            if trace.packed.meant(&reference, &blend_path, &trace.maps).is_some() {
                continue;
            }
            let found = disk.resolve(&blend, &blend_path, &reference, &mut budget)?;
            if let (RefKind::Library, Some((_, library))) = (reference.kind, found.files.first()) {
                graph.libraries.insert(reference.owner, library.clone());
                queued.insert(library.clone());
                queue.push_back(library.clone());
            }
            resolved.push((blend_path.clone(), reference, found));
        }
        graphs.insert(blend_path, graph);
    }
    let used = used(&main, &graphs);
    // Looked at only now: most scenes miss nothing.
    let misses = resolved.iter().any(|(from, _, found)| *from == main && !found.missing.is_empty());
    let never = if misses { never_rendered(&Blend::open(&main)?) } else { BTreeSet::new() };
    let mut listed = BTreeSet::new();
    for (from, reference, found) in resolved {
        if !used.get(&from).is_some_and(|used| used.contains(&reference.owner)) {
            continue;
        }
        let (kind, datablock) = (reference.kind, reference.datablock);
        let stored = match &*reference.stored {
            [] => found.directory.to_string_lossy().into_owned(),
            stored => String::from_utf8_lossy(stored).into_owned(),
        };
        let said = |resolved| (from.clone(), kind, datablock.clone(), stored.clone(), resolved);
        let mut other_case = found.other_case;
        let members = found.members.into_iter().map(|(_, path)| path);
        for path in found.files.into_iter().map(|(_, path)| path).chain(members) {
            // Two datablocks may want the same file; a long sequence would be listed over and over.
            if !listed.insert((from.clone(), kind, path.clone())) {
                continue;
            }
            let (from, kind, datablock, stored, resolved) = said(path);
            let dependency = Dependency { from, kind, datablock, stored, resolved };
            if std::mem::take(&mut other_case) {
                trace.other_case.push(dependency.clone());
            }
            trace.files.push(dependency);
        }
        let missed = from != main || !never.contains(&reference.owner);
        for path in found.missing.into_iter().filter(|_| missed) {
            if !listed.insert((from.clone(), kind, path.clone())) {
                continue;
            }
            let (from, kind, datablock, stored, resolved) = said(path);
            trace.missing.push(Missing { from, kind, datablock, stored, resolved });
        }
        if trace.files.len() > BUNDLE_MAX_FILES {
            return Err(too_many(main));
        }
    }
    trace_inner(&mut trace, &mut disk, &mut budget)?;
    for (place, path) in &trace.included {
        let (kind, datablock) = (RefKind::Included, String::new());
        let (from, stored, resolved) = (main.clone(), format!("//{place}"), path.clone());
        trace.files.push(Dependency { from, kind, datablock, stored, resolved });
    }
    if trace.files.len() > BUNDLE_MAX_FILES {
        return Err(too_many(main));
    }
    trace.blends.retain(|path, _| used.contains_key(path));
    trace.packed.retain(|path| used.contains_key(path));
    Ok(trace)
}

fn too_many(path: PathBuf) -> SceneError {
    let what = format!("it needs more than {BUNDLE_MAX_FILES} files or {MAX_BLENDS} libraries");
    SceneError::Unsupported { path, what }
}
