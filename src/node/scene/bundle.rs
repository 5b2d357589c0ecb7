//! Copying a scene and all it needs into a bundle.
//!
//! Every .blend goes in with its paths rewritten to point into the bundle; path fields are of fixed size and the new
//! paths are short, so they are overwritten in place, in the copy in memory. The user's files are only read. What is
//! missing keeps its path and stays missing. A file that changes under our hands is an error that names it, since a
//! bundle half before and half after a save renders something nobody made.

use super::SceneError;
use super::chunker::Chunking;
use super::dna::Blend;
use super::names::{Places, Split, os_bytes};
use super::refs::{Form, references};
use super::trace::{Disk, Found, RefKind, Trace, absolute};
use crate::farm::blob::{BUNDLE_MAX_FILES, BlobMap, BundleFile, Manifest};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where chunks go: the store.
pub trait BlobSink {
    /// Stores the stream, cut as `chunking` says. Returns its map and how many of its bytes were new to the store.
    fn put_file(&mut self, reader: &mut dyn Read, chunking: Chunking) -> io::Result<(BlobMap, u64)>;
}

/// How far bundling is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BundleProgress {
    /// Files finished.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes read.
    pub bytes_done: u64,
    /// Bytes in all, as the files were when bundling began.
    pub bytes_total: u64,
}

/// What a bundle came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BundleStats {
    /// Files in it.
    pub files: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes of these the store did not have yet.
    pub new_bytes: u64,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A .blend cannot be read.
    #[error(transparent)]
    Scene(#[from] SceneError),
    /// Somebody saves while we read.
    #[error("{} changed while it was being read; submit again when it is no longer being saved", .0.display())]
    Changed(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store cannot take it.
    #[error("{} cannot be stored", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The new path is longer than the field in the .blend.
    #[error("a path stored in {} has no room for its place in the bundle; save the file again from a newer Blender", .0.display())]
    NoRoom(PathBuf),
    /// More files than a bundle may have.
    #[error("the scene needs more than the {BUNDLE_MAX_FILES} files a bundle may have")]
    TooManyFiles,
}

/// Bundles the .blend at `main` with what `trace` found for it.
///
/// The files are read again, so a scene saved since it was traced is either bundled as it is now or refused.
pub fn bundle(
    main: &Path,
    trace: &Trace,
    sink: &mut dyn BlobSink,
    progress: &mut dyn FnMut(BundleProgress),
) -> Result<(Manifest, BundleStats), BundleError> {
    let main = absolute(main)?;
    let mut blends = vec![&*main];
    let mut known = BTreeSet::from([&*main]);
    let mut all = BTreeSet::from([&*main]);
    for file in &trace.files {
        all.insert(&*file.resolved);
        if file.kind == RefKind::Library && known.insert(&*file.resolved) {
            blends.push(&file.resolved);
        }
    }
    let bytes_total = all.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum();
    let start = BundleProgress { files_total: all.len() as u64, bytes_total, ..BundleProgress::default() };
    let mut bundler = Bundler { sink, progress, at: start, stats: BundleStats::default(), files: BTreeMap::new() };
    let (mut places, mut disk, mut sources) = (Places::default(), Disk::default(), BTreeMap::new());
    let main_place = place_of(&mut places, &main);
    for path in blends {
        let place = place_of(&mut places, path);
        let before = Stamp::of(path)?;
        let blend = Blend::open(path)?;
        before.check(path)?;
        let edits = edits(&blend, path, &known, &mut places, &mut disk, &mut sources)?;
        if blend.compressed && edits.is_empty() {
            bundler.put_from_disk(path, place, Chunking::Fixed)?;
            continue;
        }
        let mut bytes = blend.into_bytes();
        for Edit { field, text } in edits {
            let field = bytes.get_mut(field).ok_or_else(|| BundleError::NoRoom(path.into()))?;
            field.fill(0);
            field.iter_mut().zip(text).for_each(|(old, new)| *old = new);
        }
        bundler.put(path, place, &mut &bytes[..], Chunking::ContentDefined, before.executable)?;
    }
    for (place, path) in sources {
        if !bundler.files.contains_key(&place) {
            let chunking = Chunking::for_name(&path);
            bundler.put_from_disk(&path, place, chunking)?;
        }
    }
    let files: Vec<BundleFile> = bundler.files.into_values().collect();
    if files.len() > BUNDLE_MAX_FILES {
        return Err(BundleError::TooManyFiles);
    }
    Ok((Manifest { main: main_place, files }, bundler.stats))
}

/// One field of a .blend and what it shall hold instead.
struct Edit {
    field: Range<usize>,
    text: Vec<u8>,
}

/// The fields of `blend` to rewrite. Adds what they refer to, by place in the bundle, to `sources`.
fn edits(
    blend: &Blend,
    path: &Path,
    known: &BTreeSet<&Path>,
    places: &mut Places,
    disk: &mut Disk,
    sources: &mut BTreeMap<String, PathBuf>,
) -> Result<Vec<Edit>, BundleError> {
    let home = places.directory(path.parent().unwrap_or(Path::new("/")));
    let mut edits = Vec::new();
    let mut edit = |field: &Range<usize>, text: Vec<u8>| {
        let old = blend.bytes().get(field.clone()).unwrap_or_default();
        if text.len() >= old.len() {
            return Err(BundleError::NoRoom(path.into()));
        }
        if old.split(|byte| *byte == 0).next() != Some(&*text) {
            edits.push(Edit { field: field.clone(), text });
        }
        Ok(())
    };
    for reference in references(blend) {
        let Found { directory, files, name, .. } = disk.resolve(blend, path, &reference);
        if files.is_empty() {
            continue;
        }
        let place = places.directory(&directory);
        let relative = if place == home { "//".into() } else { format!("//../{}/", place.trim_start_matches("f/")) };
        for (split, file) in files {
            if reference.kind == RefKind::Library && !known.contains(&*file) {
                // It was not there, or not referred to, when the scene was traced.
                return Err(BundleError::Changed(path.into()));
            }
            sources.insert(format!("{place}/{}", places.name(&directory, &split)), file);
            if sources.len() > BUNDLE_MAX_FILES {
                return Err(BundleError::TooManyFiles);
            }
        }
        match (&reference.form, name) {
            (Form::Names(names), _) => {
                edit(&reference.field, relative.into_bytes())?;
                for field in names {
                    let old = blend.bytes().get(field.clone()).unwrap_or_default();
                    let old = old.split(|byte| *byte == 0).next().unwrap_or_default();
                    if !old.is_empty() {
                        edit(field, places.name(&directory, &Split::of(old)).into_bytes())?;
                    }
                }
            }
            (_, Some(split)) => {
                let name = places.name(&directory, &split);
                edit(&reference.field, format!("{relative}{name}").into_bytes())?;
            }
            (_, None) => {}
        }
    }
    Ok(edits)
}

fn place_of(places: &mut Places, path: &Path) -> String {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = os_bytes(path.file_name().unwrap_or_default());
    format!("{}/{}", places.directory(directory), places.name(directory, &Split::of(&name)))
}

/// What shows that a file is still the same.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    executable: bool,
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, BundleError> {
        let meta = std::fs::metadata(path).map_err(|source| BundleError::Unreadable { path: path.into(), source })?;
        Ok(Self { bytes: meta.len(), modified: meta.modified().ok(), executable: is_executable(&meta) })
    }

    fn check(&self, path: &Path) -> Result<(), BundleError> {
        if *self == Self::of(path)? { Ok(()) } else { Err(BundleError::Changed(path.into())) }
    }
}

fn is_executable(meta: &Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o111 != 0;
    #[cfg(not(unix))]
    return meta.is_dir();
}

struct Bundler<'a> {
    sink: &'a mut dyn BlobSink,
    progress: &'a mut dyn FnMut(BundleProgress),
    at: BundleProgress,
    stats: BundleStats,
    files: BTreeMap<String, BundleFile>,
}

impl Bundler<'_> {
    fn put_from_disk(&mut self, path: &Path, place: String, chunking: Chunking) -> Result<(), BundleError> {
        let before = Stamp::of(path)?;
        let mut file = File::open(path).map_err(|source| BundleError::Unreadable { path: path.into(), source })?;
        let bytes = self.put(path, place, &mut file, chunking, before.executable)?;
        if bytes != before.bytes {
            return Err(BundleError::Changed(path.into()));
        }
        before.check(path)
    }

    fn put(
        &mut self,
        path: &Path,
        place: String,
        reader: &mut dyn Read,
        chunking: Chunking,
        executable: bool,
    ) -> Result<u64, BundleError> {
        let mut watched = Watched { reader, progress: self.progress, at: &mut self.at, failed: false };
        let stored = self.sink.put_file(&mut watched, chunking);
        let reading = watched.failed;
        let (map, new_bytes) = stored.map_err(|source| match reading {
            true => BundleError::Unreadable { path: path.into(), source },
            false => BundleError::Store { path: path.into(), source },
        })?;
        let bytes = map.bytes();
        self.stats.files += 1;
        self.stats.bytes += bytes;
        self.stats.new_bytes += new_bytes;
        self.at.files_done += 1;
        (self.progress)(self.at);
        self.files.insert(place.clone(), BundleFile { path: place, executable, map });
        Ok(bytes)
    }
}

/// Reports what is read, and remembers whether it was reading that failed.
struct Watched<'a> {
    reader: &'a mut dyn Read,
    progress: &'a mut dyn FnMut(BundleProgress),
    at: &'a mut BundleProgress,
    failed: bool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buf);
        match &read {
            Ok(bytes) => {
                self.at.bytes_done += *bytes as u64;
                (self.progress)(*self.at);
            }
            Err(error) => self.failed = error.kind() != io::ErrorKind::Interrupted,
        }
        read
    }
}
