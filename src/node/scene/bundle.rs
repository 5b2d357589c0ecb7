//! Copying a scene and all it needs into a bundle.
//!
//! Every .blend goes in with its paths rewritten to point into the bundle; path fields are of fixed size and the new
//! paths are short, so they are overwritten in place, in the copy in memory. So do files that name others themselves, as
//! `inner` says. The user's files are only read. What is missing keeps its path and stays missing. A file that changes under
//! our hands is an error that names it, since a bundle half before and half after a save renders something nobody made.

use super::SceneError;
use super::disk::{Disk, Found, absolute};
use super::dna::Blend;
use super::inner;
use super::layout;
use super::names::{Places, Split, blendcache, os_bytes, stem};
use super::ocio::{self, Copied, Ocio};
use super::packed::unpack;
use super::refs::{Budget, Field, Form, references};
use super::splice::{Edit, edited};
use super::trace::{Stamp, Trace};
use crate::farm::blob::{BUNDLE_MAX_FILES, BlobMap, BundleFile, Manifest};
use crate::node::chunk::Chunking;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

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
    /// Its files cannot lie side by side on every system.
    #[error("{0}; rename one of the files")]
    Unfit(String),
    /// More files than a bundle may have.
    #[error("the scene needs more than the {BUNDLE_MAX_FILES} files a bundle may have")]
    TooManyFiles,
}

/// Bundles the .blend at `main` with what `trace` found for it.
///
/// A .blend saved since it was traced is refused, for what it needs may be different now.
pub fn bundle(
    main: &Path,
    trace: &Trace,
    sink: &mut dyn BlobSink,
    progress: &mut dyn FnMut(BundleProgress),
) -> Result<(Manifest, BundleStats), BundleError> {
    let main = absolute(main)?;
    if !trace.blends.contains_key(&main) {
        return Err(BundleError::Changed(main));
    }
    let mut all = BTreeSet::from([&*main]);
    all.extend(trace.files.iter().map(|file| &*file.resolved));
    let bytes_total: u64 = all.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum();
    let (packed, packed_bytes) = trace.packed.size();
    let built_in = u64::from(matches!(trace.ocio, Some(Ocio::BuiltIn(_))));
    let files_total = all.len() as u64 + packed + built_in;
    let start = BundleProgress { files_total, bytes_total: bytes_total + packed_bytes, ..BundleProgress::default() };
    let wanted = trace.files.iter().map(|file| (&*file.from, &*file.resolved)).collect();
    let mut bundler = Bundler { sink, progress, at: start, stats: BundleStats::default(), files: BTreeMap::new() };
    let (places, disk, sources) = (Places::default(), Disk::of(&main, &trace.maps), BTreeMap::new());
    let mut rewriter = Rewriter { wanted, places, disk, budget: Budget::of(&main), sources, main: &main, trace };
    let main_place = rewriter.place_of(&main);
    let on_disk = trace.blends.iter().map(|(path, traced)| (path, Some(traced)));
    for (path, traced) in on_disk.chain(trace.packed.paths().map(|path| (path, None))) {
        let place = rewriter.place_of(path);
        traced.map_or(Ok(()), |traced| unchanged(path, traced))?;
        let blend = trace.open(path)?;
        traced.map_or(Ok(()), |traced| unchanged(path, traced))?;
        let edits = rewriter.edits(&blend, path)?;
        if blend.compressed && edits.is_empty() {
            match trace.packed.bytes(path) {
                None => bundler.put_from_disk(path, place, Chunking::Fixed)?,
                Some(mut bytes) => {
                    bundler.put(path, place, &mut bytes, Chunking::Fixed, false)?;
                }
            }
            continue;
        }
        // Nothing in a .blend counts from its beginning, so what is behind may move.
        let bytes = blend.into_bytes();
        let len = bytes.len();
        let rewritten = edited(io::Cursor::new(bytes), len, edits);
        let mut rewritten = rewritten.ok_or_else(|| BundleError::NoRoom(path.into()))?;
        let executable = traced.is_some_and(|traced| traced.executable);
        bundler.put(path, place, &mut rewritten, Chunking::ContentDefined, executable)?;
    }
    for (path, (kind, traced)) in &trace.inner {
        let place = rewriter.place_of(path);
        unchanged(path, traced)?;
        let Rewriter { places, disk, budget, sources, wanted, .. } = &mut rewriter;
        let edits = inner::edits((path, *kind), &place, (disk, &trace.maps, budget), wanted, places, sources)?;
        // Without edits it goes in as it is, with the others.
        if !edits.is_empty() {
            let file = File::open(path).map_err(|source| BundleError::Unreadable { path: path.into(), source })?;
            let len = usize::try_from(traced.bytes).unwrap_or(usize::MAX);
            let mut copy = edited(file, len, edits).ok_or_else(|| BundleError::Changed(path.into()))?;
            bundler.put(path, place, &mut copy, Chunking::ContentDefined, traced.executable)?;
            unchanged(path, traced)?;
        }
    }
    let home = rewriter.places.directory(main.parent().unwrap_or(Path::new("/")));
    for (place, path) in &trace.included {
        // What the scene itself has there counts.
        rewriter.sources.entry(format!("{home}/{place}")).or_insert_with(|| path.clone());
    }
    if let Some(ocio) = &trace.ocio {
        let Rewriter { places, sources, wanted, .. } = &mut rewriter;
        match ocio::copied(ocio, &trace.maps, wanted, places, sources)? {
            Copied::File(place, path) => bundler.put_from_disk(&path, place.into(), Chunking::Fixed)?,
            Copied::Bytes(place, bytes) => {
                bundler.put(ocio.path(), place.into(), &mut &*bytes, Chunking::ContentDefined, false)?;
            }
        }
    }
    for (place, path) in rewriter.sources {
        if !bundler.files.contains_key(&place) {
            let chunking = Chunking::for_name(&path);
            bundler.put_from_disk(&path, place, chunking)?;
        }
    }
    let files: Vec<BundleFile> = bundler.files.into_values().collect();
    if files.len() > BUNDLE_MAX_FILES {
        return Err(BundleError::TooManyFiles);
    }
    let manifest = Manifest { main: main_place, files };
    layout::check(&manifest).map_err(BundleError::Unfit)?;
    Ok((manifest, bundler.stats))
}

/// `text` with NULs up to `len` bytes.
fn padded(mut text: Vec<u8>, len: usize) -> Vec<u8> {
    text.resize(len, 0);
    text
}

/// Decides what each path becomes.
struct Rewriter<'a> {
    main: &'a Path,
    trace: &'a Trace,
    /// Which .blend needs which file.
    wanted: BTreeSet<(&'a Path, &'a Path)>,
    places: Places,
    disk: Disk,
    budget: Budget,
    /// The files to copy by their place in the bundle.
    sources: BTreeMap<String, PathBuf>,
}

impl Rewriter<'_> {
    fn place_of(&mut self, path: &Path) -> String {
        let (directory, name) = place_of(&mut self.places, path);
        format!("{directory}/{name}")
    }

    /// Where the laid-out copy of the .blend at `path` has its disk caches.
    fn caches_of(&mut self, path: &Path) -> String {
        let place = self.place_of(path);
        let (directory, name) = place.rsplit_once('/').unwrap_or_default();
        format!("{directory}/{}", String::from_utf8_lossy(&blendcache(name.as_bytes())))
    }

    /// The fields of the .blend at `path` to rewrite. Notes the files they refer to.
    fn edits(&mut self, blend: &Blend, path: &Path) -> Result<Vec<Edit>, BundleError> {
        let home = self.places.directory(path.parent().unwrap_or(Path::new("/")));
        let mut edits = Vec::new();
        let fixed = |field: &Range<usize>| Field::Fixed(field.clone());
        let old_text = |field: &Range<usize>| {
            blend.bytes().get(field.clone()).and_then(|old| old.split(|byte| *byte == 0).next()).unwrap_or_default()
        };
        let mut edit = |field: &Field, text: String| {
            let range = match field {
                Field::Fixed(range) | Field::FromMain(range) => range.clone(),
                Field::Block(index) | Field::Counted(index, _) => {
                    blend.blocks().get(*index).map_or(0..0, |block| block.at..block.at + block.len)
                }
                Field::BesideItself | Field::BesideMain => return Ok(()),
            };
            let (room, text) = (range.len(), text.into_bytes());
            if old_text(&range) == text {
                return Ok(());
            }
            if let Field::Counted(_, counts) = field {
                let bytes = blend.int_bytes(text.len() + 1).ok_or_else(|| BundleError::NoRoom(path.into()))?;
                edits.extend(counts.iter().map(|count| Edit { field: count.clone(), bytes: bytes.clone() }));
            }
            match field {
                Field::Block(index) | Field::Counted(index, _) if text.len() >= room => {
                    // With its NUL, to the multiple of four that blocks have.
                    let len = (text.len() + 1).next_multiple_of(4);
                    let (field, bytes) =
                        blend.length_of(*index, len).ok_or_else(|| BundleError::NoRoom(path.into()))?;
                    edits.push(Edit { field, bytes });
                    edits.push(Edit { field: range, bytes: padded(text, len) });
                }
                _ if text.len() >= room => return Err(BundleError::NoRoom(path.into())),
                _ => edits.push(Edit { field: range, bytes: padded(text, room) }),
            }
            Ok(())
        };
        for reference in references(blend, &mut self.budget)? {
            if self.trace.packed.meant(&reference, path, &self.trace.maps).is_some() {
                continue;
            }
            let mut found = self.disk.resolve(blend, path, &reference, &mut self.budget)?;
            found.files.retain(|(_, file)| self.wanted.contains(&(path, file)));
            found.members.retain(|(_, file)| self.wanted.contains(&(path, file)));
            if found.files.is_empty() && found.members.is_empty() {
                continue;
            }
            let Found { directory, files, name, members, .. } = found;
            let place = match reference.field {
                Field::Fixed(_) | Field::FromMain(_) | Field::Block(_) | Field::Counted(..) => {
                    self.places.directory(&directory)
                }
                Field::BesideItself => self.caches_of(path),
                Field::BesideMain => self.caches_of(self.main),
            };
            let is_home = place == home && !matches!(reference.field, Field::FromMain(_));
            let relative = if is_home { "//".into() } else { way_to(&place) };
            for (split, file) in files {
                self.sources.insert(format!("{place}/{}", self.places.name(&directory, &split)), file);
            }
            self.sources.extend(members.into_iter().map(|(below, file)| (format!("{place}/{below}"), file)));
            if self.sources.len() > BUNDLE_MAX_FILES {
                return Err(BundleError::TooManyFiles);
            }
            if let Some(split) = name {
                edit(&reference.field, format!("{relative}{}", self.places.name(&directory, &split)))?;
                continue;
            }
            edit(&reference.field, relative)?;
            match &reference.form {
                Form::Names { names, views } => {
                    for field in names.iter().filter(|field| !old_text(field).is_empty()) {
                        edit(&fixed(field), self.places.name(&directory, &Split::of_view(old_text(field), views)))?;
                    }
                }
                Form::Folder(folder) => {
                    if let Some(field) = &folder.name {
                        edit(&fixed(field), stem(old_text(field)))?;
                    }
                }
                Form::File | Form::Tiles(_) | Form::Sequence => {}
            }
        }
        let Self { places, budget, trace, .. } = self;
        let unpacked = unpack(blend, path, trace, budget, |library| {
            let (directory, name) = place_of(places, library);
            if directory == home { format!("//{name}") } else { format!("{}{name}", way_to(&directory)) }
        });
        edits.extend(unpacked?);
        Ok(edits)
    }
}

/// The place of a file: its folder in the bundle, and its name there.
fn place_of(places: &mut Places, path: &Path) -> (String, String) {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = os_bytes(path.file_name().unwrap_or_default());
    (places.directory(directory), places.name(directory, &Split::of(&name)))
}

/// How the folder `place` of a bundle is called from the folder of every .blend in it.
fn way_to(place: &str) -> String {
    format!("//../{}/", place.trim_start_matches("f/"))
}

fn stamp(path: &Path) -> Result<Stamp, BundleError> {
    Stamp::of(path).map_err(|source| BundleError::Unreadable { path: path.into(), source })
}

pub(super) fn unchanged(path: &Path, before: &Stamp) -> Result<(), BundleError> {
    if *before == stamp(path)? { Ok(()) } else { Err(BundleError::Changed(path.into())) }
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
        let before = stamp(path)?;
        let mut file = File::open(path).map_err(|source| BundleError::Unreadable { path: path.into(), source })?;
        let bytes = self.put(path, place, &mut file, chunking, before.executable)?;
        if bytes != before.bytes {
            return Err(BundleError::Changed(path.into()));
        }
        unchanged(path, &before)
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
