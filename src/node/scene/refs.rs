//! Every path a .blend stores that rendering may open, with where in the file it is stored.
//!
//! One list, used twice: tracing resolves it, bundling rewrites it, so that both always mean the same. It knows the
//! structs of Blender 2.6 to 5; a field that a version does not have is simply not there. Packed, generated and
//! built-in data needs no file and is not listed.

use super::dna::{Blend, MAX_LIST, Record};
use super::trace::RefKind;
use std::collections::BTreeSet;
use std::ops::Range;

/// Most meta strips followed, which is also how deep they may nest (guess).
const MAX_NESTED: usize = 256;
/// Most names in one image strip followed (guess: one a frame).
const STRIP_MAX_NAMES: usize = 1_000_000;

/// What else than the one file named is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing.
    File,
    /// These UDIM tiles; all there are if none is listed.
    Tiles(Vec<u32>),
    /// All files with the same name but for the number.
    Sequence,
    /// The field is a directory; the files are named in these fields.
    Names(Vec<Range<usize>>),
}

/// One stored path.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub kind: RefKind,
    /// Name of the datablock that holds it, without its two-letter code.
    pub datablock: String,
    /// Index of the block of that datablock.
    pub owner: usize,
    /// The path up to its NUL.
    pub stored: Vec<u8>,
    /// The whole fixed-size field in the decompressed file.
    pub field: Range<usize>,
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

/// All of them, in file order.
pub(super) fn references(blend: &Blend) -> Vec<Reference> {
    let mut found = Vec::new();
    for (index, block) in blend.blocks().iter().enumerate() {
        let Some(record) = blend.record(index) else { continue };
        let packed = || record.points("packedfile");
        match &block.code {
            b"LI\0\0" if !packed() && links_something(blend, index) => {
                push(&mut found, RefKind::Library, &record, &["name", "filepath"], Form::File);
            }
            b"IM\0\0" if !packed() && !record.points("packedfiles.first") => {
                let form = match record.int("source") {
                    Some(SOURCE_GENERATED | SOURCE_VIEWER) => continue,
                    Some(SOURCE_SEQUENCE) => Form::Sequence,
                    Some(SOURCE_TILED) => Form::Tiles(tiles(&record)),
                    _ => Form::File,
                };
                push(&mut found, RefKind::Image, &record, &["name", "filepath"], form);
            }
            b"VF\0\0" if !packed() && record.text("name") != Some(b"<builtin>") => {
                push(&mut found, RefKind::Font, &record, &["name", "filepath"], Form::File);
            }
            b"SO\0\0" if !packed() => push(&mut found, RefKind::Sound, &record, &["name", "filepath"], Form::File),
            b"MC\0\0" => {
                let form = if record.int("source") == Some(CLIP_SEQUENCE) { Form::Sequence } else { Form::File };
                push(&mut found, RefKind::MovieClip, &record, &["name", "filepath"], form);
            }
            b"VO\0\0" if !packed() => push(&mut found, RefKind::Volume, &record, &["filepath"], numbered(&record)),
            b"CF\0\0" => {
                push(&mut found, RefKind::Cache, &record, &["filepath"], numbered(&record));
                for layer in record.list("layers") {
                    push(&mut found, RefKind::Cache, &layer, &["filepath"], numbered(&record));
                }
            }
            b"SC\0\0" => {
                if let Some(editing) = record.follow("ed") {
                    strips(blend, &mut found, &editing, &mut BTreeSet::new());
                }
            }
            b"DATA" => match record.struct_name() {
                "MeshCacheModifierData" => push(&mut found, RefKind::Cache, &record, &["filepath"], Form::File),
                // Both have a mode; 1 is "external", else the text is inside the file.
                "NodeShaderTexIES" if record.int("mode") == Some(1) => {
                    push(&mut found, RefKind::Light, &record, &["filepath"], Form::File);
                }
                "NodeShaderScript" if record.int("mode") == Some(1) => {
                    push(&mut found, RefKind::Script, &record, &["filepath"], Form::File);
                }
                _ => {}
            },
            _ => {}
        }
        let owner = block.owner;
        // What was found through other records belongs to the datablock in hand.
        for reference in found.iter_mut().rev().take_while(|reference| reference.datablock.is_empty()) {
            reference.owner = owner;
            reference.datablock = name_of(blend, owner);
        }
    }
    found
}

/// The name of a datablock for people, without its code.
pub(super) fn name_of(blend: &Blend, index: usize) -> String {
    let name = blend.record(index).and_then(|record| record.id_name()).unwrap_or_default();
    let name = String::from_utf8_lossy(name.get(2..).unwrap_or_default()).into_owned();
    if name.is_empty() { "?".into() } else { name }
}

fn push(found: &mut Vec<Reference>, kind: RefKind, record: &Record<'_>, fields: &[&str], form: Form) {
    let Some((stored, field)) = fields.iter().find_map(|name| Some((record.text(name)?, record.span(name)?))) else {
        return;
    };
    if !stored.is_empty() {
        let (datablock, stored) = (String::new(), stored.to_vec());
        found.push(Reference { kind, datablock, owner: record.block, stored, field, form });
    }
}

/// Blender opens a library only for the linked datablocks that follow it in the file.
fn links_something(blend: &Blend, library: usize) -> bool {
    let after = blend.blocks().iter().skip(library + 1).filter(|block| &block.code != b"DATA");
    after.take_while(|block| &block.code != b"LI\0\0").any(|block| &block.code == b"ID\0\0")
}

fn tiles(image: &Record<'_>) -> Vec<u32> {
    image.list("tiles").filter_map(|tile| u32::try_from(tile.int("tile_number")?).ok()).take(MAX_LIST).collect()
}

fn numbered(record: &Record<'_>) -> Form {
    if record.int("is_sequence").unwrap_or(0) != 0 { Form::Sequence } else { Form::File }
}

fn strips(blend: &Blend, found: &mut Vec<Reference>, holder: &Record<'_>, seen: &mut BTreeSet<usize>) {
    if seen.len() >= MAX_NESTED || !seen.insert(holder.block) {
        return;
    }
    for strip in holder.list("seqbase") {
        match strip.int("type") {
            Some(STRIP_META) => strips(blend, found, &strip, seen),
            Some(STRIP_IMAGE | STRIP_MOVIE) => {
                let Some(data) = strip.follow("strip").or_else(|| strip.follow("data")) else { continue };
                let Some(first) = data.follow("stripdata") else { continue };
                let names = (0..STRIP_MAX_NAMES)
                    .map_while(|nth| blend.element(first.block, nth))
                    .filter_map(|element| element.span("name").or_else(|| element.span("filename")))
                    .collect();
                push(found, RefKind::Strip, &data, &["dir", "dirpath"], Form::Names(names));
            }
            _ => {}
        }
    }
}
