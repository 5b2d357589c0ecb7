//! Every path a .blend stores that rendering may open, with where in the file it is stored.
//!
//! One list, used twice: tracing resolves it, bundling rewrites it, so that both always mean the same. It knows the
//! structs of Blender 2.6 to 5; a field that a version does not have is simply not there. Packed, generated and
//! built-in data needs no file and is not listed. Measured by watching 3.4, 4.5 and 5.0 render:
//!
//! | what | which files Blender opens | where they are stored |
//! |---|---|---|
//! | library | the .blend, if a datablock is linked from it (one that is packed: see `packed`); Blender's own assets up to 4.5 are libraries like others, later ones are packed | `Library` |
//! | image | the file; a sequence's members by their number, as the scene plays; the tiles; with views the file of each | `Image`, for views `ImageView` alone |
//! | font, sound, movie clip, volume | the file, or numbered ones | `VFont`, `bSound`, `MovieClip`, `Volume` |
//! | Alembic, USD | the file and its layers, or numbered ones | `CacheFile`, `CacheFileLayer` |
//! | strips of the sequencer | images one by one, movies; with views those that end on the others' `_L`, `_R` too | `Strip` has the folder, `StripElem` the names |
//! | mesh cache, external multires | the file | `MeshCacheModifierData`, `CustomDataExternal` |
//! | physics, fluids, oceans, bakes | see `caches` | |
//! | imported by geometry nodes | see `imports` | |
//! | what USD files and OSL shaders name | see `inner` | in those files |
//! | IES lights, OSL shaders, OSL cameras | the file, if it is not a text in the .blend | `NodeShaderTexIES`, `NodeShaderScript`, `Camera` |
//!
//! Never opened by rendering, and so not listed: files of text datablocks (Freestyle's too; their lines are in the .blend),
//! icons of brushes, images that dynamic paint writes, folders of the interface. Proxies of clips and strips, which are for
//! editing, are not followed.

use super::SceneError;
use super::caches::caches;
use super::dna::{Blend, Record};
use super::imports::{Users, imports};
use super::reach::EDITED_ONLY;
use super::trace::RefKind;
use crate::farm::blob::BUNDLE_MAX_FILES;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Most meta strips followed, which is also how deep they may nest (guess).
const MAX_NESTED: usize = 256;
/// Most steps of following one scene, its libraries included: a file takes two or three (guess; some 1 GB at worst).
const STEPS_MAX: usize = 4 * BUNDLE_MAX_FILES;
/// Most views of a scene looked at (guess; stereo has two).
const VIEWS_MAX: usize = 16;
/// Bytes of a path that count as one more step.
const STEP_BYTES: usize = 256;
/// Longest name of a datablock that is told, bytes (Blender 5 has 256).
const NAME_MAX_BYTES: usize = 256;

/// How much of a scene may still be followed. Lists and paths in a .blend may be shared by any number of datablocks, so a
/// small file can stand for any number of names.
#[derive(Debug)]
pub(super) struct Budget {
    main: PathBuf,
    steps: usize,
}

impl Budget {
    /// For the scene at `main` and all its libraries.
    pub fn of(main: &Path) -> Self {
        Self { main: main.into(), steps: STEPS_MAX }
    }

    /// Takes `steps`, and more for a long path.
    pub fn take(&mut self, steps: usize, path_bytes: usize) -> Result<(), SceneError> {
        let steps = self.steps.checked_sub(steps.saturating_add(path_bytes / STEP_BYTES));
        self.steps = steps.ok_or_else(|| {
            let what = format!("with its libraries it names far more than {BUNDLE_MAX_FILES} files");
            SceneError::Unsupported { path: self.main.clone(), what }
        })?;
        Ok(())
    }

    #[cfg(test)]
    pub fn with_steps(main: &Path, steps: usize) -> Self {
        Self { main: main.into(), steps }
    }
}

/// What else than the one file named is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing.
    File,
    /// These UDIM tiles; all there are if none is listed.
    Tiles(Vec<u32>),
    /// All files with the same name but for the number.
    Sequence,
    /// The field is a directory; the files are named in these fields. Where a name ends on one of `views`, such as `_L`, the
    /// same with the others is meant too.
    Names { names: Vec<Range<usize>>, views: Vec<Vec<u8>> },
    /// The field is a directory of files that Blender names by a rule.
    Folder(Folder),
}

/// Which files of a directory are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    pub members: Vec<Members>,
    /// The field that says how their names begin, up to the `_`.
    pub name: Option<Range<usize>>,
    /// Whether having none is an error.
    pub needed: bool,
}

/// Files of one folder below a directory, all of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// The folder, such as `data` or `meta`; empty for the directory itself. `#` stands for any number.
    pub folder: &'static str,
    /// How their names begin. If it says anything, only frame and index come behind it: digits, `_` and `-`.
    pub head: Vec<u8>,
    /// How they end; any way if there is none.
    pub tails: &'static [&'static str],
}

impl Members {
    /// In the directory itself.
    pub fn called(head: Vec<u8>, tails: &'static [&'static str]) -> Self {
        Self { folder: "", head, tails }
    }

    /// All of `folder`.
    pub fn any(folder: &'static str, tails: &'static [&'static str]) -> Self {
        Self { folder, head: Vec::new(), tails }
    }

    /// What is behind the head in the name of a file, if it is one of these.
    pub fn rest<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        let rest = name.strip_prefix(&*self.head)?;
        let counts = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        let tail = self.tails.iter().find_map(|tail| rest.strip_suffix(tail.as_bytes()));
        let meant = match tail {
            Some(middle) => self.head.is_empty() || middle.iter().all(counts),
            None => self.tails.is_empty(),
        };
        meant.then_some(rest)
    }
}

/// Where in a .blend a path is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// In a field of fixed size: these bytes of the decompressed file.
    Fixed(Range<usize>),
    /// The same, as seen from the .blend that is rendered, not from the one that stores it.
    FromMain(Range<usize>),
    /// In the block with this index, which may be made longer.
    Block(usize),
    /// The same, and these numbers say how long the text is, with its NUL.
    Counted(usize, [Range<usize>; 2]),
    /// Nowhere: the directory is `blendcache_NAME` beside NAME.blend, which is this .blend.
    BesideItself,
    /// The same, beside the .blend that is rendered.
    BesideMain,
}

/// One stored path.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub kind: RefKind,
    /// Name of the datablock that holds it, without its two-letter code.
    pub datablock: String,
    /// Index of the block of that datablock.
    pub owner: usize,
    /// The path up to its NUL; empty where none is stored.
    pub stored: Vec<u8>,
    pub field: Field,
    pub form: Form,
}

/// `Image.source`.
const SOURCE_SEQUENCE: i64 = 2;
const SOURCE_GENERATED: i64 = 4;
const SOURCE_VIEWER: i64 = 5;
const SOURCE_TILED: i64 = 6;
/// `MovieClip.source`.
const CLIP_SEQUENCE: i64 = 1;
/// `Sequence.type`.
const STRIP_IMAGE: i64 = 0;
const STRIP_META: i64 = 1;
const STRIP_MOVIE: i64 = 3;
/// `Sequence.flag`: a file for each view.
const STRIP_VIEWS: i64 = 1 << 29;

/// All of them, in file order.
pub(super) fn references(blend: &Blend, budget: &mut Budget) -> Result<Vec<Reference>, SceneError> {
    let mut found = Found { references: Vec::new(), budget };
    let mut users = Users::default();
    for (index, block) in blend.blocks().iter().enumerate() {
        let Some(record) = blend.record(index) else { continue };
        let packed = || record.points("packedfile");
        match &block.code {
            b"LI\0\0" if !packed() && links_something(blend, index) => {
                found.push(RefKind::Library, &record, &["name", "filepath"], Form::File)?;
            }
            b"IM\0\0" if !packed() && !record.points("packedfiles.first") => {
                let form = match record.int("source") {
                    Some(SOURCE_GENERATED | SOURCE_VIEWER) => continue,
                    Some(SOURCE_SEQUENCE) => Form::Sequence,
                    Some(SOURCE_TILED) => Form::Tiles(found.tiles(&record)?),
                    _ => Form::File,
                };
                found.image(&record, form)?;
            }
            b"VF\0\0" if !packed() && record.text("name") != Some(b"<builtin>") => {
                found.push(RefKind::Font, &record, &["name", "filepath"], Form::File)?;
            }
            b"SO\0\0" if !packed() => found.push(RefKind::Sound, &record, &["name", "filepath"], Form::File)?,
            b"MC\0\0" => {
                let form = if record.int("source") == Some(CLIP_SEQUENCE) { Form::Sequence } else { Form::File };
                found.push(RefKind::MovieClip, &record, &["name", "filepath"], form)?;
            }
            b"VO\0\0" if !packed() => found.push(RefKind::Volume, &record, &["filepath"], numbered(&record))?,
            b"CF\0\0" => {
                found.push(RefKind::Cache, &record, &["filepath"], numbered(&record))?;
                for layer in record.list("layers") {
                    found.budget.take(1, 0)?;
                    found.push(RefKind::Cache, &layer, &["filepath"], numbered(&record))?;
                }
            }
            b"SC\0\0" => {
                if let Some(editing) = record.follow("ed") {
                    let views = found.view_endings(&record)?;
                    found.strips(blend, &editing, &views, &mut BTreeSet::new())?;
                }
            }
            b"NT\0\0" => imports(&mut found, &mut users, blend, index)?,
            // A camera whose lens is a shader. 3 is that kind, and then 1 "external".
            b"CA\0\0" if record.int("type") == Some(3) && record.int("custom_mode") == Some(1) => {
                found.push(RefKind::Script, &record, &["custom_filepath"], Form::File)?;
            }
            b"DATA" => match record.struct_name() {
                "MeshCacheModifierData" => found.push(RefKind::Cache, &record, &["filepath"], Form::File)?,
                // Both have a mode; 1 is "external", else the text is inside the file.
                "NodeShaderTexIES" if record.int("mode") == Some(1) => {
                    found.push(RefKind::Light, &record, &["filepath"], Form::File)?;
                }
                "NodeShaderScript" if record.int("mode") == Some(1) => {
                    found.push(RefKind::Script, &record, &["filepath"], Form::File)?;
                }
                "CustomDataExternal" => found.push(RefKind::Cache, &record, &["filename"], Form::File)?,
                _ => caches(&mut found, blend, &record)?,
            },
            _ => {}
        }
        let owner = block.owner;
        // What was found through other records belongs to the datablock in hand.
        for reference in found.references.iter_mut().rev().take_while(|reference| reference.datablock.is_empty()) {
            reference.owner = owner;
            reference.datablock = name_of(blend, owner);
        }
    }
    Ok(found.references)
}

/// The name of a datablock for people, without its code.
pub(super) fn name_of(blend: &Blend, index: usize) -> String {
    let name = blend.record(index).and_then(|record| record.id_name()).unwrap_or_default();
    let name = name.get(2..).unwrap_or_default();
    let name = String::from_utf8_lossy(name.get(..NAME_MAX_BYTES).unwrap_or(name)).into_owned();
    if name.is_empty() { "?".into() } else { name }
}

/// Blender opens a library only for the linked datablocks that follow it in the file, and those of a brush are not missed.
fn links_something(blend: &Blend, library: usize) -> bool {
    let after = blend.blocks().iter().enumerate().skip(library + 1).filter(|(_, block)| &block.code != b"DATA");
    let linked = after.take_while(|(_, block)| &block.code != b"LI\0\0").filter(|(_, block)| &block.code == b"ID\0\0");
    let mut names = linked.filter_map(|(index, _)| blend.record(index)?.id_name());
    names.any(|name| !name.get(..2).is_some_and(|code| EDITED_ONLY.contains(&code)))
}

/// Whether names with it are safe on every system if they are without.
fn is_ending(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

fn numbered(record: &Record<'_>) -> Form {
    if record.int("is_sequence").unwrap_or(0) != 0 { Form::Sequence } else { Form::File }
}

/// What was found so far.
pub(super) struct Found<'a> {
    references: Vec<Reference>,
    pub budget: &'a mut Budget,
}

impl Found<'_> {
    pub fn push(&mut self, kind: RefKind, record: &Record<'_>, fields: &[&str], form: Form) -> Result<(), SceneError> {
        self.push_as(kind, record, fields, Field::Fixed, form)
    }

    /// The same, with what kind of field it is.
    pub fn push_as(
        &mut self,
        kind: RefKind,
        record: &Record<'_>,
        fields: &[&str],
        field: impl Fn(Range<usize>) -> Field,
        form: Form,
    ) -> Result<(), SceneError> {
        let stored = fields.iter().find_map(|name| Some((record.text(name)?, record.span(name)?)));
        let Some((stored, span)) = stored.filter(|(stored, _)| !stored.is_empty()) else { return Ok(()) };
        self.add(kind, record.block, stored, field(span), form)
    }

    /// A path that is all of a block.
    pub fn push_block(&mut self, kind: RefKind, blend: &Blend, block: usize, form: Form) -> Result<(), SceneError> {
        let stored = blend.block_text(block);
        if stored.is_empty() { Ok(()) } else { self.add(kind, block, stored, Field::Block(block), form) }
    }

    /// A path that is the text of a custom property.
    pub fn push_property(
        &mut self,
        kind: RefKind,
        blend: &Blend,
        property: &Record<'_>,
        form: Form,
    ) -> Result<(), SceneError> {
        let text = property.pointer("data.pointer").and_then(|address| blend.find(property.block, address));
        let (Some(text), Some(len), Some(room)) = (text, property.span("len"), property.span("totallen")) else {
            return Ok(());
        };
        let stored = blend.block_text(text);
        if stored.is_empty() { Ok(()) } else { self.add(kind, text, stored, Field::Counted(text, [len, room]), form) }
    }

    /// A path found in the block with index `owner`.
    pub fn add(
        &mut self,
        kind: RefKind,
        owner: usize,
        stored: &[u8],
        field: Field,
        form: Form,
    ) -> Result<(), SceneError> {
        self.budget.take(1, stored.len())?;
        let (datablock, stored) = (String::new(), stored.to_vec());
        self.references.push(Reference { kind, datablock, owner, stored, field, form });
        Ok(())
    }

    /// An image with views, as for stereo, stores a path for each; Blender then opens these alone (measured with 3.4).
    fn image(&mut self, image: &Record<'_>, form: Form) -> Result<(), SceneError> {
        let before = self.references.len();
        for view in image.list("views") {
            self.budget.take(1, 0)?;
            if view.text("name").is_some_and(|name| !name.is_empty()) {
                self.push(RefKind::Image, &view, &["filepath"], form.clone())?;
            }
        }
        if self.references.len() > before {
            return Ok(());
        }
        self.push(RefKind::Image, image, &["name", "filepath"], form)
    }

    /// What the names of files end on for each view of the scene, such as `_L` and `_R`.
    fn view_endings(&mut self, scene: &Record<'_>) -> Result<Vec<Vec<u8>>, SceneError> {
        let mut views = Vec::new();
        for view in scene.list("r.views").take(VIEWS_MAX) {
            self.budget.take(1, 0)?;
            views.extend(view.text("suffix").filter(|ending| is_ending(ending)).map(<[u8]>::to_vec));
        }
        Ok(views)
    }

    fn tiles(&mut self, image: &Record<'_>) -> Result<Vec<u32>, SceneError> {
        let mut numbers = Vec::new();
        for tile in image.list("tiles") {
            self.budget.take(1, 0)?;
            numbers.extend(tile.int("tile_number").and_then(|number| u32::try_from(number).ok()));
        }
        Ok(numbers)
    }

    fn strips(
        &mut self,
        blend: &Blend,
        holder: &Record<'_>,
        views: &[Vec<u8>],
        seen: &mut BTreeSet<usize>,
    ) -> Result<(), SceneError> {
        if seen.len() >= MAX_NESTED || !seen.insert(holder.block) {
            return Ok(());
        }
        for strip in holder.list("seqbase") {
            self.budget.take(1, 0)?;
            match strip.int("type") {
                Some(STRIP_META) => self.strips(blend, &strip, views, seen)?,
                Some(STRIP_IMAGE | STRIP_MOVIE) => {
                    let Some(data) = strip.follow("strip").or_else(|| strip.follow("data")) else { continue };
                    let Some(first) = data.follow("stripdata") else { continue };
                    let mut names = Vec::new();
                    for element in (0..).map_while(|nth| blend.element(first.block, nth)) {
                        self.budget.take(1, 0)?;
                        names.extend(element.span("name").or_else(|| element.span("filename")));
                    }
                    let has_views = strip.int("flag").unwrap_or(0) & STRIP_VIEWS != 0;
                    let views = if has_views { views.to_vec() } else { Vec::new() };
                    self.push(RefKind::Strip, &data, &["dir", "dirpath"], Form::Names { names, views })?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
