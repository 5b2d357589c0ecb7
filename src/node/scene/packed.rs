//! Libraries that are packed into a .blend.
//!
//! Blender reads such a library from the bytes in the file, whatever is or is not in its place; but what it names itself is
//! opened from where it would lie, and so it is with libraries of libraries (measured with 3.4 and 4.5). So its bytes are
//! traced as a .blend there. A bundle has it as a file of its own, with its paths rewritten like those of any other, and it
//! is packed no more: the copy of the .blend that had it says where it is and nothing else.

use super::SceneError;
use super::bundle::BundleError;
use super::disk::located;
use super::dna::{BLEND_MAX_BYTES, Blend, unpacked_max_bytes};
use super::maps::PathMap;
use super::refs::{Budget, Reference};
use super::splice::Edit;
use super::trace::{RefKind, Trace};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A library as a .blend has it.
pub(super) struct Library {
    /// Its block.
    pub index: usize,
    /// Where it is, or would be.
    pub path: PathBuf,
    /// Where that is stored.
    field: Range<usize>,
    /// Where its bytes are, if it is packed.
    packed: Option<InFile>,
}

/// Where in a .blend a packed file is.
struct InFile {
    /// The pointer to it.
    pointer: Range<usize>,
    /// The bytes.
    data: Range<usize>,
    /// The block that they are, with its head.
    block: Range<usize>,
}

/// The libraries of the .blend at `from`. Bytes that several of them share are those of the first alone.
pub(super) fn libraries(
    blend: &Blend,
    from: &Path,
    maps: &[PathMap],
    budget: &mut Budget,
) -> Result<Vec<Library>, SceneError> {
    let (mut found, mut taken) = (Vec::new(), BTreeSet::new());
    for (index, _) in blend.coded(*b"LI\0\0") {
        let Some(library) = blend.record(index) else { continue };
        let stored = ["name", "filepath"].into_iter().find_map(|name| Some((library.text(name)?, library.span(name)?)));
        let Some((stored, field)) = stored.filter(|(stored, _)| !stored.is_empty()) else { continue };
        budget.take(1, stored.len())?;
        let packed = (|| {
            let file = library.follow("packedfile")?;
            let at = blend.find(file.block, file.pointer("data")?).filter(|at| taken.insert(*at))?;
            let block = blend.blocks().get(at)?;
            let len = block.len.min(usize::try_from(file.int("size")?).ok()?);
            let data = block.at..block.at.checked_add(len)?;
            Some(InFile { pointer: library.span("packedfile")?, data, block: blend.whole(at)? })
        })();
        found.push(Library { index, path: of(from, stored, maps), field, packed });
    }
    Ok(found)
}

/// Where the library that the .blend at `from` calls so is, or would be.
fn of(from: &Path, stored: &[u8], maps: &[PathMap]) -> PathBuf {
    located(from.parent().unwrap_or(Path::new("/")), stored, maps)
}

/// The bytes of packed libraries by the path that each would have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    libraries: BTreeMap<PathBuf, Arc<Vec<u8>>>,
    /// What they came to so far when they were unpacked.
    unpacked_bytes: u64,
}

impl Packed {
    /// Takes the bytes of a library out of `blend`, if they are there. All that are taken are held until they are bundled.
    pub(super) fn take(&mut self, blend: &Blend, library: &Library) -> Result<bool, SceneError> {
        let data = library.packed.as_ref().and_then(|packed| blend.bytes().get(packed.data.clone()));
        let Some(data) = data else { return Ok(false) };
        let limit_bytes = unpacked_max_bytes();
        let mut bytes = Vec::new();
        if data.len() as u64 > limit_bytes || bytes.try_reserve_exact(data.len()).is_err() {
            return Err(SceneError::TooLarge { path: library.path.clone(), limit_bytes });
        }
        bytes.extend_from_slice(data);
        self.libraries.insert(library.path.clone(), Arc::new(bytes));
        Ok(true)
    }

    /// Reads one for the first time. A small file can stand for any number of large ones: together they are no more than one
    /// may be.
    pub(super) fn open_new(&mut self, path: &Path) -> Option<Result<Blend, SceneError>> {
        let bytes = self.libraries.get(path)?;
        let blend = Blend::of_bytes(path, bytes, BLEND_MAX_BYTES.saturating_sub(self.unpacked_bytes));
        if let Ok(blend) = &blend {
            self.unpacked_bytes = self.unpacked_bytes.saturating_add(blend.bytes().len() as u64);
        }
        Some(blend)
    }

    /// Keeps those of which this is true.
    pub(super) fn retain(&mut self, keep: impl Fn(&PathBuf) -> bool) {
        self.libraries.retain(|path, _| keep(path));
    }

    /// Whether the library that would be at `path` is one of them.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.libraries.contains_key(path)
    }

    /// The library that `reference` of the .blend at `from` means, if it is one of them.
    pub(super) fn meant(&self, reference: &Reference, from: &Path, maps: &[PathMap]) -> Option<PathBuf> {
        let path = (reference.kind == RefKind::Library).then(|| of(from, &reference.stored, maps))?;
        self.has(&path).then_some(path)
    }

    /// Where they would be.
    pub(super) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.libraries.keys()
    }

    /// The bytes of one.
    pub(super) fn bytes(&self, path: &Path) -> Option<&[u8]> {
        self.libraries.get(path).map(|bytes| bytes.as_slice())
    }

    /// How many they are, and of how many bytes.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.libraries.len() as u64, self.libraries.values().map(|bytes| bytes.len() as u64).sum())
    }
}

/// Makes the copy of the .blend at `from` find what was packed, in it or in others, where `place` puts it in the bundle.
pub(super) fn unpack(
    blend: &Blend,
    from: &Path,
    trace: &Trace,
    budget: &mut Budget,
    mut place: impl FnMut(&Path) -> String,
) -> Result<Vec<Edit>, BundleError> {
    let mut edits = Vec::new();
    for library in libraries(blend, from, &trace.maps, budget)? {
        let is_packed = library.packed.is_some() && trace.blends.contains_key(&library.path);
        if !is_packed && !trace.packed.has(&library.path) {
            continue;
        }
        let (mut text, room) = (place(&library.path).into_bytes(), library.field.len());
        if text.len() >= room {
            return Err(BundleError::NoRoom(from.into()));
        }
        text.resize(room, 0);
        edits.push(Edit { field: library.field, bytes: text });
        if let Some(InFile { pointer, block, .. }) = library.packed {
            edits.push(Edit { bytes: vec![0; pointer.len()], field: pointer });
            edits.push(Edit { field: block, bytes: Vec::new() });
        }
    }
    Ok(edits)
}
