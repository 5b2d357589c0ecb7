//! Which files a .blend needs, and which of them are not there.
//!
//! Follows libraries into libraries, each with paths relative to itself as Blender has them. Only looks: it opens no
//! file but the .blends, and what it lists it has seen to exist.

use super::SceneError;
use super::dna::Blend;
use super::names::{Split, os_bytes, os_path};
use super::reach::{Graph, used};
use super::refs::{Budget, Form, Reference, references};
use crate::farm::blob::BUNDLE_MAX_FILES;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
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
    /// An Alembic, USD or mesh cache.
    Cache,
    /// Images or a movie in the sequencer.
    Strip,
    /// An IES light profile.
    Light,
    /// An OSL shader.
    Script,
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
            Self::Strip => "sequencer strip",
            Self::Light => "light profile",
            Self::Script => "shader script",
        })
    }
}

/// A file that is needed and there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The .blend that refers to it.
    pub from: PathBuf,
    /// What it is.
    pub kind: RefKind,
    /// Name of a datablock that refers to it; there may be more.
    pub datablock: String,
    /// The path as stored, for people.
    pub stored: String,
    /// Where it is.
    pub resolved: PathBuf,
}

/// A file that is needed and not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The .blend that refers to it.
    pub from: PathBuf,
    /// What it is.
    pub kind: RefKind,
    /// Name of a datablock that refers to it; there may be more.
    pub datablock: String,
    /// The path as stored, for people.
    pub stored: String,
    /// Where it was looked for.
    pub resolved: PathBuf,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: {} is not there", self.kind, self.datablock, self.resolved.display())
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

/// Traces the .blend at `path` and every library behind it. Of libraries, only what the scene uses counts.
///
/// Errors when it, or a library that is there, cannot be read as a .blend; the error names which.
pub fn trace(path: &Path) -> Result<Trace, SceneError> {
    let main = absolute(path)?;
    let mut disk = Disk::default();
    let mut budget = Budget::of(&main);
    let mut trace = Trace::default();
    let mut graphs: BTreeMap<PathBuf, Graph> = BTreeMap::new();
    let mut resolved: Vec<(PathBuf, Reference, Found)> = Vec::new();
    let mut queue = VecDeque::from([main.clone()]);
    while let Some(blend_path) = queue.pop_front() {
        if graphs.contains_key(&blend_path) {
            continue;
        }
        if graphs.len() >= MAX_BLENDS {
            return Err(too_many(main));
        }
        let unreadable = |source| SceneError::unreadable(&blend_path, source);
        let stamp = Stamp::of(&blend_path).map_err(unreadable)?;
        let blend = Blend::open(&blend_path)?;
        let mut graph = if blend_path == main { Graph::of_main(&blend) } else { Graph::of_library(&blend) };
        for reference in references(&blend, &mut budget)? {
            let found = disk.resolve(&blend, &blend_path, &reference, &mut budget)?;
            if let (RefKind::Library, Some((_, library))) = (reference.kind, found.files.first()) {
                graph.libraries.insert(reference.owner, library.clone());
                queue.push_back(library.clone());
            }
            resolved.push((blend_path.clone(), reference, found));
        }
        trace.blends.insert(blend_path.clone(), stamp);
        graphs.insert(blend_path, graph);
    }
    let used = used(&main, &graphs);
    let mut listed = BTreeSet::new();
    for (from, reference, found) in resolved {
        if !used.get(&from).is_some_and(|used| used.contains(&reference.owner)) {
            continue;
        }
        let (kind, datablock) = (reference.kind, reference.datablock);
        let stored = String::from_utf8_lossy(&reference.stored).into_owned();
        let said = |resolved| (from.clone(), kind, datablock.clone(), stored.clone(), resolved);
        for (_, path) in found.files {
            // Two datablocks may want the same file; a long sequence would be listed over and over.
            if !listed.insert((from.clone(), kind, path.clone())) {
                continue;
            }
            let (from, kind, datablock, stored, resolved) = said(path);
            trace.files.push(Dependency { from, kind, datablock, stored, resolved });
        }
        for path in found.missing {
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
    trace.blends.retain(|path, _| used.contains_key(path));
    Ok(trace)
}

fn too_many(path: PathBuf) -> SceneError {
    let what = format!("it needs more than {BUNDLE_MAX_FILES} files or {MAX_BLENDS} libraries");
    SceneError::Unsupported { path, what }
}

/// `path` made absolute and tidy, as the base that `//` stands for.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, SceneError> {
    let absolute = std::path::absolute(path).map_err(|source| SceneError::unreadable(path, source))?;
    Ok(tidy(&absolute))
}

/// What one reference comes to on this disk.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Directory of the files, tidy.
    pub directory: PathBuf,
    /// Each file with its name cut around its number, in order of names.
    pub files: Vec<(Split, PathBuf)>,
    /// What should be there too.
    pub missing: Vec<PathBuf>,
    /// The name that is stored, cut around its number or token; empty for [`Form::Names`].
    pub name: Option<Split>,
}

/// Looks at directories, each once.
#[derive(Debug, Default)]
pub(super) struct Disk {
    listings: BTreeMap<PathBuf, Vec<OsString>>,
}

impl Disk {
    /// Resolves `reference` of the .blend at `blend_path`.
    pub fn resolve(
        &mut self,
        blend: &Blend,
        blend_path: &Path,
        reference: &Reference,
        budget: &mut Budget,
    ) -> Result<Found, SceneError> {
        let base = blend_path.parent().unwrap_or(Path::new("/"));
        let path = resolve(base, &reference.stored);
        budget.take(0, path.as_os_str().len())?;
        if let Form::Names(names) = &reference.form {
            let mut found = Found { directory: path.clone(), ..Found::default() };
            for name in names {
                let name = blend.bytes().get(name.clone()).and_then(|field| field.split(|byte| *byte == 0).next());
                let Some(name) = name.filter(|name| is_file_name(name)) else { continue };
                found.look_at(&path, Split::of(name), name, budget)?;
            }
            return Ok(found);
        }
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(Found { missing: vec![path], ..Found::default() });
        };
        let name = os_bytes(name);
        let mut split = Split::of(&name);
        let mut found = Found { directory: directory.into(), ..Found::default() };
        match &reference.form {
            Form::Tiles(tiles) => {
                // Files of Blender 2.8 and 2.9 store the name of the first tile instead of a token.
                if split.number.first().is_some_and(u8::is_ascii_digit) && split.number != b"1001" {
                    split = Split { head: name.clone(), number: Vec::new(), tail: Vec::new() };
                }
                for tile in tiles {
                    let number = match split.number.as_slice() {
                        b"<UVTILE>" => {
                            let tile = tile.saturating_sub(1001);
                            format!("u{}_v{}", tile % 10 + 1, tile / 10 + 1)
                        }
                        b"" => String::new(),
                        _ => tile.to_string(),
                    };
                    found.look_at(directory, split.with(number.into_bytes()), &[], budget)?;
                }
                if tiles.is_empty() {
                    self.members(&mut found, directory, &split, budget)?;
                }
            }
            Form::Sequence if !split.number.is_empty() => self.members(&mut found, directory, &split, budget)?,
            Form::File | Form::Sequence | Form::Names(_) => found.look_at(directory, split.clone(), &name, budget)?,
        }
        if found.files.is_empty() && found.missing.is_empty() {
            found.missing.push(path);
        }
        found.name = Some(split);
        Ok(found)
    }

    /// All files of `directory` that are called like `split` with some number.
    fn members(
        &mut self,
        found: &mut Found,
        directory: &Path,
        split: &Split,
        budget: &mut Budget,
    ) -> Result<(), SceneError> {
        let listing = match self.listings.entry(directory.into()) {
            Entry::Occupied(listed) => listed.into_mut(),
            Entry::Vacant(place) => {
                let listing = list(directory);
                budget.take(listing.len(), 0)?;
                place.insert(listing)
            }
        };
        for name in listing {
            let name = os_bytes(name);
            let middle = name.strip_prefix(&*split.head).and_then(|rest| rest.strip_suffix(&*split.tail));
            let Some(middle) = middle.filter(|middle| is_number(middle, split.number == b"<UVTILE>")) else { continue };
            found.look_at(directory, split.with(middle.to_vec()), &[], budget)?;
        }
        Ok(())
    }
}

impl Found {
    /// Counts one file as there or missing. `name` is empty when `split` is all of it.
    fn look_at(&mut self, directory: &Path, split: Split, name: &[u8], budget: &mut Budget) -> Result<(), SceneError> {
        let name = if name.is_empty() { split.joined() } else { name.to_vec() };
        let path = directory.join(os_path(&name));
        budget.take(1, path.as_os_str().len())?;
        if path.is_file() {
            self.files.push((split, path))
        } else {
            self.missing.push(path)
        }
        Ok(())
    }
}

fn is_number(text: &[u8], tile: bool) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if !tile {
        return digits(text) && text.len() <= 20;
    }
    let cut = text.windows(2).position(|pair| pair == b"_v");
    cut.is_some_and(|at| text.first() == Some(&b'u') && digits(&text[1.min(at)..at]) && digits(&text[at + 2..]))
}

fn is_file_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/')
}

fn list(directory: &Path) -> Vec<OsString> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).take(BUNDLE_MAX_FILES).collect();
    names.sort();
    names
}

/// Where a stored path leads: `//` is `base`, backslashes count as slashes, and a drive letter means nothing where there
/// are none, as Blender has it. Anything else relative is taken from `base` too.
pub(super) fn resolve(base: &Path, stored: &[u8]) -> PathBuf {
    let mut path: Vec<u8> = stored.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect();
    let relative = path.starts_with(b"//");
    if relative {
        path.drain(..2);
    }
    if cfg!(not(windows)) && !relative && path.get(1) == Some(&b':') && path.get(2) == Some(&b'/') {
        path.drain(..2);
    }
    if relative {
        let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
        path.drain(..start);
    }
    let joined = base.join(os_path(&path));
    let tidied = tidy(&joined);
    // `..` behind a symbolic link means what the system says it means.
    if !tidied.exists() && joined.exists() { joined } else { tidied }
}

/// Without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidied = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                tidied.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => tidied.push(component),
        }
    }
    tidied
}
