//! The OpenColorIO configuration that an artist works with, where `OCIO` names one: it travels with the scene.
//!
//! Blender takes its colours from `OCIO` if that is set (measured with 3.4, 4.5 and 5.0), and with another configuration
//! come other pixels. So it is part of the bundle: a file with its lookup tables, in a copy that finds them there; an
//! archive (`.ocioz`) as it is, which therefore may have no variables in it; or the name of one that is built into
//! OpenColorIO (`ocio://…`). It has a fixed place, `f/ocio/`, which no folder of a scene has: those are called by a hash. A
//! bundle without it is rendered with Blender's own colours.

mod config;
mod variables;

use super::SceneError;
use super::bundle::{BundleError, unchanged};
use super::disk::settled;
use super::maps::PathMap;
use super::names::{Places, Split, os_bytes};
use super::refs::Budget;
use super::trace::{Dependency, Missing, RefKind, Stamp, Trace};
use crate::farm::blob::{BUNDLE_MAX_FILES, Manifest};
use crate::farm::id::BlobId;
use config::{CONFIG_MAX_BYTES, Config, ConfigError};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use zip::ZipArchive;
use zip::result::ZipError;

/// Where the configuration is in a bundle.
const CONFIG: &str = "f/ocio/config.ocio";
/// Where it is if it is an archive.
const ARCHIVE: &str = "f/ocio/config.ocioz";
/// What an archive has its configuration as.
const ARCHIVED: &str = "config.ocio";
/// Where the name of one is that is built into OpenColorIO.
const BUILT_IN: &str = "f/ocio/builtin";
/// What such a name begins with.
const SCHEME: &str = "ocio://";
/// Longest such name, bytes (guess; the longest of OpenColorIO 2.4 has 72).
const BUILT_IN_MAX_BYTES: usize = 256;

/// Longest copy of a configuration that is read again, bytes: its names may have become longer.
const COPY_MAX_BYTES: u64 = 8 * CONFIG_MAX_BYTES;

/// What `OCIO` is where the artist works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OcioChoice {
    /// An absolute path, or `ocio://` and a name.
    pub config: String,
    /// Environment variables that occur in the configuration.
    pub variables: BTreeMap<String, String>,
}

/// The configuration of a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ocio {
    /// Built into OpenColorIO.
    BuiltIn(String),
    /// A file that has all in it.
    Archive {
        /// Where it is.
        path: PathBuf,
        /// As it was when it was read.
        stamp: Stamp,
    },
    /// A file that names others.
    File {
        /// Where it is.
        path: PathBuf,
        /// As it was when it was read.
        stamp: Stamp,
        /// What its variables stand for.
        variables: BTreeMap<String, String>,
    },
}

impl Ocio {
    /// Its file; the name of one that has none.
    pub fn path(&self) -> &Path {
        match self {
            Self::BuiltIn(name) => Path::new(name),
            Self::Archive { path, .. } | Self::File { path, .. } => path,
        }
    }

    /// Names of the artist's variables whose values the copy may have in it.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let variables = match self {
            Self::File { variables, .. } => Some(variables),
            Self::BuiltIn(_) | Self::Archive { .. } => None,
        };
        variables.into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }
}

/// Adds the configuration of `choice` and the files it names to `trace`.
///
/// Errors when it cannot be used at all: OpenColorIO would not have it either, and Blender would crash (3.4) or go on with
/// its own colours (4.5, 5.0). A lookup table that is not there is one more missing file.
pub fn trace_ocio(trace: &mut Trace, main: &Path, choice: OcioChoice) -> Result<(), SceneError> {
    let path = PathBuf::from(&choice.config);
    if choice.config.starts_with(SCHEME) {
        let what = "it is no name of a configuration that is built into OpenColorIO; correct OCIO, or unset it";
        let name = built_in(&choice.config).ok_or_else(|| refused(&path, what))?;
        trace.ocio = Some(Ocio::BuiltIn(name));
        return Ok(());
    }
    let (opened, stamp) = open(&path)?;
    let (from, stored) = (main.to_path_buf(), choice.config);
    let kind = RefKind::Ocio;
    trace.files.push(Dependency { from, kind, datablock: String::new(), stored, resolved: path.clone() });
    let config = match opened {
        Opened::File(config) => config,
        Opened::Archive(config) => {
            if let Some(name) = first_variable(&config).map_err(|error| wrong(&path, error))? {
                let what = format!(
                    "it is an archive and the configuration in it has the variable {name}, which would be another on each \
                     machine; unpack it and have OCIO name the config.ocio in it"
                );
                return Err(refused(&path, what));
            }
            trace.ocio = Some(Ocio::Archive { path, stamp });
            return Ok(());
        }
    };
    let mut listed = BTreeSet::new();
    let mut found = resolve(&config, &path, &choice.variables, &trace.maps)?;
    for named in &config.files {
        let Some(found) = found.remove(&*named.src.text).filter(|found| listed.insert(found.clone())) else { continue };
        let (from, kind, datablock, stored) = (path.clone(), RefKind::Lut, named.of.clone(), named.src.text.clone());
        match found {
            Ok(resolved) => trace.files.push(Dependency { from, kind, datablock, stored, resolved }),
            Err(resolved) => trace.missing.push(Missing { from, kind, datablock, stored, resolved }),
        }
        if trace.files.len() > BUNDLE_MAX_FILES {
            return Err(refused(&path, format!("with it the scene needs more than {BUNDLE_MAX_FILES} files")));
        }
    }
    trace.ocio = Some(Ocio::File { path, stamp, variables: choice.variables });
    Ok(())
}

/// What of a configuration goes into a bundle beside the files it names.
pub(super) enum Copied {
    /// These bytes, here.
    Bytes(&'static str, Vec<u8>),
    /// The file as it is, here.
    File(&'static str, PathBuf),
}

/// The copy of a configuration whose files have `places` in the bundle. Those that `wanted` knows are noted in `sources` by
/// their places.
///
/// Errors when it, or what it finds, changed since it was traced.
pub(super) fn copied(
    ocio: &Ocio,
    maps: &[PathMap],
    wanted: &BTreeSet<(&Path, &Path)>,
    places: &mut Places,
    sources: &mut BTreeMap<String, PathBuf>,
) -> Result<Copied, BundleError> {
    let (path, stamp, variables) = match ocio {
        Ocio::BuiltIn(name) => return Ok(Copied::Bytes(BUILT_IN, name.clone().into_bytes())),
        Ocio::Archive { path, stamp } => {
            unchanged(path, stamp)?;
            return Ok(Copied::File(ARCHIVE, path.clone()));
        }
        Ocio::File { path, stamp, variables } => (path, stamp, variables),
    };
    unchanged(path, stamp)?;
    let (Opened::File(config) | Opened::Archive(config), now) = open(path)?;
    if now != *stamp {
        return Err(BundleError::Changed(path.clone()));
    }
    let found = resolve(&config, path, variables, maps)?;
    let there: BTreeSet<&Path> = found.values().flatten().map(PathBuf::as_path).collect();
    let mut traced = wanted.range((&**path, Path::new(""))..).take_while(|(from, _)| from == path);
    if let Some((_, file)) = traced.find(|(_, file)| !there.contains(file)) {
        return Err(BundleError::Changed(file.into()));
    }
    let is_wanted = |file: &&PathBuf| wanted.contains(&(&**path, &***file));
    let mut place_of = |file: &PathBuf| {
        let directory = file.parent().unwrap_or(Path::new("/"));
        let name = places.name(directory, &Split::of(&os_bytes(file.file_name().unwrap_or_default())));
        let directory = places.directory(directory);
        let new = format!("../{}/{name}", directory.trim_start_matches("f/"));
        sources.insert(format!("{directory}/{name}"), file.clone());
        new
    };
    let of = |named: &config::Named| found.get(&*named.src.text)?.as_ref().ok().filter(is_wanted);
    let files: Vec<Option<String>> = config.files.iter().map(|named| of(named).map(&mut place_of)).collect();
    let mut shell = |name: &str| variables.get(name).map(Cow::from);
    let mut filler = config.filler(&mut shell);
    let uses: Result<Vec<String>, ConfigError> = config.uses.iter().map(|value| filler.fill(value)).collect();
    let text = uses.and_then(|uses| config.rewritten(&files, &uses)).map_err(|error| wrong(path, error))?;
    Ok(Copied::Bytes(CONFIG, text.into_bytes()))
}

/// What `OCIO` has to be for a bundle that is laid out in `root`; `None`: it has to be unset.
///
/// Errors when what the bundle has there is none of ours: it may come from another machine.
pub fn ocio_of(manifest: &Manifest, root: &Path) -> io::Result<Option<OsString>> {
    let has = |place: &&str| manifest.files.iter().any(|file| file.path == **place);
    let Some(place) = [CONFIG, ARCHIVE, BUILT_IN].into_iter().find(has) else { return Ok(None) };
    let path = std::path::absolute(root.join(place))?;
    if place != BUILT_IN {
        return Ok(Some(path.into()));
    }
    let mut name = String::new();
    File::open(path)?.take(BUILT_IN_MAX_BYTES as u64 + 1).read_to_string(&mut name)?;
    let odd =
        || io::Error::new(io::ErrorKind::InvalidData, "the bundle names an OCIO configuration that cannot be one");
    built_in(&name).map(|name| Some(name.into())).ok_or_else(odd)
}

/// The configuration that a bundle brings and the files it names, by their places; none, if it brings none. `blob` reads one
/// of at most so many bytes.
pub fn ocio_files(
    manifest: &Manifest,
    blob: impl Fn(BlobId, u64) -> io::Result<Vec<u8>>,
) -> io::Result<BTreeMap<String, BlobId>> {
    let places: BTreeMap<&str, BlobId> = manifest.files.iter().map(|file| (&*file.path, file.map.id())).collect();
    let there = |place: String| places.get(&*place).map(|id| (place.clone(), *id));
    let mut all: BTreeMap<String, BlobId> =
        [CONFIG, ARCHIVE, BUILT_IN].into_iter().filter_map(|place| there(place.to_owned())).collect();
    let Some(config) = all.get(CONFIG) else { return Ok(all) };
    let invalid = |error: ConfigError| io::Error::new(io::ErrorKind::InvalidData, error);
    let text = String::from_utf8_lossy(&blob(*config, COPY_MAX_BYTES)?).into_owned();
    let config = Config::parse(&text).map_err(invalid)?;
    let names: BTreeSet<&str> = config.files.iter().filter_map(|file| file.src.text.strip_prefix("../")).collect();
    all.extend(names.into_iter().filter_map(|name| there(format!("f/{name}"))));
    Ok(all)
}

/// `name`, if it can be that of a configuration that is built into OpenColorIO.
fn built_in(name: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let rest = name.strip_prefix(SCHEME)?;
    (!rest.is_empty() && name.len() <= BUILT_IN_MAX_BYTES && rest.bytes().all(plain)).then(|| name.to_owned())
}

/// A configuration that was read.
enum Opened {
    File(Config),
    /// The one in an archive.
    Archive(Config),
}

/// The configuration at `path`; and the file as it was before it was read.
fn open(path: &Path) -> Result<(Opened, Stamp), SceneError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            refused(path, "there is no such file; correct OCIO, or unset it to render with Blender's own colours")
        }
        _ => SceneError::Unreadable { path: path.into(), source: error },
    };
    let meta = path.metadata().map_err(unreadable)?;
    if !meta.is_file() {
        return Err(refused(path, "it is not a file; OCIO names the file `config.ocio` itself"));
    }
    let stamp = Stamp::of(path).map_err(unreadable)?;
    let mut file = File::open(path).map_err(unreadable)?;
    let mut head = [0; 2];
    // As OpenColorIO tells them apart.
    let is_archive = file.read_exact(&mut head).is_ok() && head == *b"PK";
    file.rewind().map_err(unreadable)?;
    if is_archive {
        let odd =
            |error: ZipError| refused(path, format!("it is an archive that cannot be read ({error}); correct OCIO"));
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(odd)?;
        // Whatever the case (measured with OpenColorIO 2.6).
        let name = archive.file_names().find(|name| name.eq_ignore_ascii_case(ARCHIVED)).map(str::to_owned);
        let name = name.ok_or_else(|| refused(path, format!("it is an archive without a {ARCHIVED}; correct OCIO")))?;
        let config = read(path, &mut archive.by_name(&name).map_err(odd)?)?;
        return Ok((Opened::Archive(config), stamp));
    }
    Ok((Opened::File(read(path, &mut file)?), stamp))
}

/// The configuration that `text` is, from the file at `path`.
fn read(path: &Path, text: &mut dyn Read) -> Result<Config, SceneError> {
    let mut bytes = Vec::new();
    let read = text.take(CONFIG_MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| SceneError::Unreadable { path: path.into(), source })?;
    if bytes.len() as u64 > CONFIG_MAX_BYTES {
        return Err(refused(path, format!("it is longer than {CONFIG_MAX_BYTES} bytes; correct OCIO")));
    }
    let text = String::from_utf8(bytes).map_err(|_| refused(path, "it is not text in UTF-8; correct OCIO"))?;
    Config::parse(&text).map_err(|error| wrong(path, error))
}

/// The first variable in the values of a configuration, set or not.
fn first_variable(config: &Config) -> Result<Option<String>, ConfigError> {
    let mut first = None;
    let mut shell = |name: &str| {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        first = first.take().or(is_name.then(|| name.to_owned()));
        None
    };
    let mut filler = config.filler(&mut shell);
    config.values().try_for_each(|value| filler.fill(value).map(drop))?;
    Ok(first)
}

/// The variables of a shell that the values of the configuration at `path` have in them. None of one that cannot be read:
/// whoever needs all of it tells so.
pub fn ocio_variables(path: &Path, shell: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Ok((Opened::File(config), _)) = open(path) else { return found };
    let mut known = |name: &str| {
        let value = shell(name)?;
        found.insert(name.to_owned(), value.clone());
        Some(Cow::from(value))
    };
    let mut filler = config.filler(&mut known);
    // One that is too long is told by whoever makes a copy.
    config.values().for_each(|value| drop(filler.fill(value)));
    found
}

/// Where the files that `config` at `path` names are, or where they were looked for first, by how it names them.
fn resolve<'a>(
    config: &'a Config,
    path: &Path,
    variables: &BTreeMap<String, String>,
    maps: &[PathMap],
) -> Result<BTreeMap<&'a str, Result<PathBuf, PathBuf>>, SceneError> {
    let home = path.parent().unwrap_or(Path::new("/"));
    let mapped = |home: &Path, text: &str| match maps.iter().find_map(|map| map.apply(text.as_bytes())) {
        Some(path) => path,
        None => home.join(text),
    };
    let odd = |error| wrong(path, error);
    let mut shell = |name: &str| variables.get(name).map(Cow::from);
    let mut filler = config.filler(&mut shell);
    let folders = config.folders(&mut filler).map_err(odd)?;
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| mapped(home, folder)).collect();
    if folders.is_empty() {
        folders.push(home.into());
    }
    let mut budget = Budget::of(path);
    let mut all = BTreeMap::new();
    for named in &config.files {
        // Thousands of colour spaces may share a table.
        if all.contains_key(&*named.src.text) {
            continue;
        }
        let src = filler.fill(&named.src).map_err(odd)?;
        let mut first = None;
        let mut found = None;
        for folder in &folders {
            budget.take(1, folder.as_os_str().len() + src.len())?;
            // `..` and symbolic links lead where they lead on this machine.
            let file = settled(&mapped(folder, &src));
            if file.is_file() {
                found = Some(file);
                break;
            }
            first.get_or_insert(file);
        }
        all.insert(&*named.src.text, found.ok_or_else(|| first.unwrap_or_else(|| home.join(&src))));
    }
    Ok(all)
}

fn refused(path: &Path, what: impl Into<String>) -> SceneError {
    SceneError::Ocio { path: path.into(), what: what.into() }
}

fn wrong(path: &Path, error: ConfigError) -> SceneError {
    refused(path, format!("{error}; correct it, or have OCIO name another"))
}
