//! Files that name others themselves: USD layers and OSL sources.
//!
//! A .blend names a USD file, and that its sublayers, references, payloads and value clips; an OSL source includes others.
//! Blender opens these too (measured with 4.5), each from where the file that names it lies. In a bundle each lies in the
//! folder it came from, so what names it goes in as a copy with these names rewritten, as a .blend does: then absolute
//! paths and names that some system refuses do no harm. Textures of a USD file are not among them: Blender reads a cache
//! for shapes alone, and opens none.

mod osl;
mod usda;
mod usdc;

use super::SceneError;
use super::disk::{Disk, located};
use super::maps::PathMap;
use super::names::{Places, Split, os_bytes};
use super::refs::Budget;
use super::splice::Edit;
use super::trace::{Dependency, Missing, RefKind, Stamp, Trace};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Longest text that is read for the names in it, bytes (guess: larger scenes are not kept as text).
const TEXT_MAX_BYTES: u64 = 1 << 30;
/// Longest name of a file in one, bytes (guess: as long as any system's paths).
const NAME_MAX_BYTES: usize = 4096;

/// Where in a file a name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    /// These bytes.
    Bytes(Range<usize>),
    /// This token of a crate.
    Token(usize),
}

/// A file that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    /// As it is written.
    text: String,
    at: At,
    /// A row of `#` in it stands for any number.
    template: bool,
}

impl Named {
    /// The path alone: a layer may have arguments behind it, or say which layer of a package.
    fn path(&self) -> &str {
        let plain = self.text.split(":SDF_FORMAT_ARGS:").next().unwrap_or_default();
        if plain.ends_with(']') { plain.split('[').next().unwrap_or_default() } else { plain }
    }

    /// The same with another path.
    fn with_path(&self, path: &str) -> String {
        format!("{path}{}", &self.text[self.path().len()..])
    }
}

/// What kind of file it is that names others.
enum Inner {
    Text(Vec<Named>),
    Crate(usdc::Crate),
    Source(Vec<Named>),
}

impl Inner {
    /// `None`: a file that names no others, such as a package or an Alembic archive.
    fn open(path: &Path, kind: RefKind) -> Result<Option<Self>, SceneError> {
        let unreadable = |source| SceneError::unreadable(path, source);
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_lowercase();
        let is_layer = matches!(kind, RefKind::Cache | RefKind::Layer) && extension.starts_with("usd");
        let is_source = kind == RefKind::Header || kind == RefKind::Script && extension == "osl";
        if !is_layer && !is_source {
            return Ok(None);
        }
        let mut file = File::open(path).map_err(unreadable)?;
        if is_source {
            return Ok(Some(Self::Source(osl::named(&text(path, file)?))));
        }
        let mut magic = Vec::new();
        file.by_ref().take(8).read_to_end(&mut magic).map_err(unreadable)?;
        if magic == usdc::MAGIC {
            let found = usdc::Crate::open(&mut file);
            return found.map(|found| Some(Self::Crate(found))).map_err(|error| match error {
                usdc::CrateError::Io(source) => unreadable(source),
                usdc::CrateError::Odd(what) => SceneError::Layer { path: path.into(), what },
            });
        }
        if !magic.starts_with(b"#usda") && !magic.starts_with(b"#sdf") {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        Ok(Some(Self::Text(usda::named(&text(path, file)?))))
    }

    fn named(&self) -> &[Named] {
        match self {
            Self::Text(named) | Self::Source(named) => named,
            Self::Crate(found) => &found.named,
        }
    }

    /// Edits that put these texts in the place of names.
    fn edits(&self, texts: Vec<(&Named, String)>) -> Vec<Edit> {
        let in_bytes = texts.iter().filter_map(|(named, text)| match &named.at {
            At::Bytes(field) => Some(Edit { field: field.clone(), bytes: text.clone().into_bytes() }),
            At::Token(_) => None,
        });
        let mut edits: Vec<Edit> = in_bytes.collect();
        if let Self::Crate(found) = self {
            let tokens = texts.into_iter().filter_map(|(named, text)| match named.at {
                At::Token(token) => Some((token, text)),
                At::Bytes(_) => None,
            });
            edits.extend(found.with_tokens(tokens.collect()));
        }
        edits
    }
}

fn text(path: &Path, file: File) -> Result<Vec<u8>, SceneError> {
    let mut bytes = Vec::new();
    let read = file.take(TEXT_MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| SceneError::unreadable(path, source))?;
    if bytes.len() as u64 > TEXT_MAX_BYTES {
        return Err(SceneError::TooLarge { path: path.into(), limit_bytes: TEXT_MAX_BYTES });
    }
    Ok(bytes)
}

/// Follows what the files of `trace` name themselves.
pub(super) fn trace_inner(trace: &mut Trace, disk: &mut Disk, budget: &mut Budget) -> Result<(), SceneError> {
    let all = trace.files.iter().map(|file| (file.resolved.clone(), file.kind, file.datablock.clone()));
    let mut queue: VecDeque<(PathBuf, RefKind, String)> = all.collect();
    let mut seen = BTreeSet::new();
    while let Some((path, kind, datablock)) = queue.pop_front() {
        if !matches!(kind, RefKind::Cache | RefKind::Layer | RefKind::Script | RefKind::Header)
            || !seen.insert(path.clone())
        {
            continue;
        }
        budget.take(1, path.as_os_str().len())?;
        let stamp = Stamp::of(&path).map_err(|source| SceneError::unreadable(&path, source))?;
        let Some(inner) = Inner::open(&path, kind)? else { continue };
        let kind = if matches!(inner, Inner::Source(_)) { RefKind::Header } else { RefKind::Layer };
        let compiled = osl::compiled(&path).filter(|_| matches!(inner, Inner::Source(_)));
        let mut listed = BTreeSet::new();
        if let Some(compiled) = &compiled {
            let (from, stored) = (path.clone(), compiled.to_string_lossy().into_owned());
            let (datablock, resolved) = (datablock.clone(), compiled.clone());
            trace.files.push(Dependency { from, kind: RefKind::Script, datablock, stored, resolved });
        }
        for named in inner.named() {
            budget.take(1, named.text.len())?;
            for (split, found) in resolve(named, &path, disk, &trace.maps, budget)? {
                if !listed.insert(found.clone()) {
                    continue;
                }
                let (from, datablock, stored) = (path.clone(), datablock.clone(), named.text.clone());
                if split.is_some() {
                    queue.push_back((found.clone(), kind, datablock.clone()));
                    trace.files.push(Dependency { from, kind, datablock, stored, resolved: found });
                } else if kind != RefKind::Header || compiled.is_none() && !osl::is_of_cycles(named.path()) {
                    trace.missing.push(Missing { from, kind, datablock, stored, resolved: found });
                }
            }
        }
        trace.inner.insert(path, (kind, stamp));
    }
    Ok(())
}

/// The files that a name means, each with its own name cut around its number; without that it is not there.
fn resolve(
    named: &Named,
    from: &Path,
    disk: &mut Disk,
    maps: &[PathMap],
    budget: &mut Budget,
) -> Result<Vec<(Option<Split>, PathBuf)>, SceneError> {
    let base = from.parent().unwrap_or(Path::new("/"));
    let path = located(base, named.path().as_bytes(), maps);
    if !named.template {
        let found = disk.called(&path, budget)?.filter(|path| path.is_file());
        let split = |path: &Path| Split::of(&os_bytes(path.file_name().unwrap_or_default()));
        return Ok(vec![found.map_or((None, path), |path| (Some(split(&path)), path))]);
    }
    let members = disk.numbered(&path, budget)?;
    let members: Vec<_> = members.into_iter().map(|(split, path)| (Some(split), path)).collect();
    Ok(if members.is_empty() { vec![(None, path)] } else { members })
}

/// What of a file changes for its copy in a bundle, where the files that `wanted` knows have `places`; these are noted in
/// `sources` by their places. `path` itself has the place `own`.
pub(super) fn edits(
    (path, kind): (&Path, RefKind),
    own: &str,
    (disk, maps, budget): (&mut Disk, &[PathMap], &mut Budget),
    wanted: &BTreeSet<(&Path, &Path)>,
    places: &mut Places,
    sources: &mut BTreeMap<String, PathBuf>,
) -> Result<Vec<Edit>, SceneError> {
    let Some(inner) = Inner::open(path, kind)? else { return Ok(Vec::new()) };
    let home = own.rsplit_once('/').unwrap_or_default().0;
    if let Some(compiled) = osl::compiled(path).filter(|compiled| wanted.contains(&(path, &**compiled))) {
        sources.insert(osl::place_of_compiled(own), compiled);
    }
    let mut texts = Vec::new();
    for named in inner.named() {
        let found = resolve(named, path, disk, maps, budget)?;
        let found = found.into_iter().filter(|(_, file)| wanted.contains(&(path, &**file)));
        let mut new = None;
        for (split, file) in found {
            let Some(split) = split else { continue };
            let directory = file.parent().unwrap_or(Path::new("/"));
            let (place, name) = (places.directory(directory), places.name(directory, &split));
            // The number, or as many `#` as the template has.
            let called =
                if named.template { places.name(directory, &template(named.path(), &split)) } else { name.clone() };
            new = Some(match place == home {
                true => format!("./{called}"),
                false => format!("../{}/{called}", place.trim_start_matches("f/")),
            });
            sources.insert(format!("{place}/{name}"), file);
        }
        let same = |new: &str| new.trim_start_matches("./") == named.path().trim_start_matches("./");
        if let Some(new) = new.filter(|new| !same(new)) {
            texts.push((named, named.with_path(&new)));
        }
    }
    Ok(inner.edits(texts))
}

/// A file's name with the `#` of the template `path` in place of its number.
fn template(path: &str, split: &Split) -> Split {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let row = name.find('#').zip(name.rfind('#')).and_then(|(first, last)| name.get(first..=last));
    split.with(row.unwrap_or_default().as_bytes().to_vec())
}

/// A name as text, if it can be one of a file.
fn name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && text.len() <= NAME_MAX_BYTES && !text.contains('\0')).then(|| text.to_owned())
}

/// Reads exactly so many bytes at a place of a file.
fn read_at(file: &mut (impl Read + Seek), at: u64, len: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() == len { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
