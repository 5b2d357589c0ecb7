//! One struct at one place in a .blend, and the values of its fields.
//!
//! A field that the file's DNA does not have, or that lies beyond its block, is `None`: files of fifteen years are read
//! by the same names.

use super::{Blend, Field, MAX_LIST};
use std::collections::HashSet;
use std::ops::Range;

/// One struct at one place.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(super) blend: &'a Blend,
    /// Index of the block it is in.
    pub block: usize,
    pub(super) shape: usize,
    pub(super) at: usize,
}

impl<'a> Record<'a> {
    /// Name of its struct.
    pub fn struct_name(&self) -> &'a str {
        let blend = self.blend;
        blend.structs.get(self.shape).and_then(|shape| blend.types.get(shape.kind)).map_or("", String::as_str)
    }

    /// The field at a dotted path, such as `r.im_format.imtype`, and where it starts in the file.
    pub fn field(&self, path: &str) -> Option<(&'a Field, usize)> {
        let (mut shape, mut at) = (self.shape, self.at);
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            let field = self.blend.structs.get(shape)?.fields.iter().find(|field| field.name == part)?;
            at = at.checked_add(field.offset)?;
            if parts.peek().is_none() {
                return Some((field, at));
            }
            shape = self.blend.shape_of(field)?;
        }
        None
    }

    /// Where in the file the field is: all of it, or nothing if the file does not hold it.
    pub fn span(&self, path: &str) -> Option<Range<usize>> {
        let (field, at) = self.field(path)?;
        let end = at.checked_add(field.element.checked_mul(field.count)?)?;
        let block = self.blend.blocks.get(self.block)?;
        (end <= block.at.checked_add(block.len)?).then_some(at..end)
    }

    fn first_element(&self, path: &str) -> Option<(&'a Field, &'a [u8])> {
        let (field, _) = self.field(path)?;
        let span = self.span(path)?;
        Some((field, self.blend.bytes.get(span.start..span.start.checked_add(field.element)?)?))
    }

    /// A whole number: the first one if the field is an array.
    pub fn int(&self, path: &str) -> Option<i64> {
        let (field, bytes) = self.first_element(path)?;
        if field.pointer || bytes.len() > 8 {
            return None;
        }
        match self.blend.types.get(field.kind)?.as_str() {
            "char" | "uchar" | "ushort" | "uint" | "uint8_t" | "uint16_t" | "uint32_t" | "uint64_t" | "ulong" => {
                i64::try_from(self.blend.machine.uint(bytes)).ok()
            }
            "short" | "int" | "long" | "int8_t" | "int16_t" | "int32_t" | "int64_t" | "bool" => {
                Some(self.blend.machine.int(bytes))
            }
            _ => None,
        }
    }

    /// A finite `float` or `double`.
    pub fn float(&self, path: &str) -> Option<f64> {
        self.floats(path)?.first().copied().filter(|value| value.is_finite())
    }

    /// All of an array of `float` or `double`, or the only one.
    pub fn floats(&self, path: &str) -> Option<Vec<f64>> {
        let (field, _) = self.field(path)?;
        let bytes = self.blend.bytes.get(self.span(path)?)?;
        let machine = self.blend.machine;
        match (field.pointer, self.blend.types.get(field.kind)?.as_str()) {
            (false, "float") => {
                Some(bytes.chunks_exact(4).map(|b| f64::from(f32::from_bits(machine.uint(b) as u32))).collect())
            }
            (false, "double") => Some(bytes.chunks_exact(8).map(|b| f64::from_bits(machine.uint(b))).collect()),
            _ => None,
        }
    }

    /// A text in a fixed-size field, up to its NUL.
    pub fn text(&self, path: &str) -> Option<&'a [u8]> {
        let (field, _) = self.field(path)?;
        if field.pointer || field.element != 1 {
            return None;
        }
        let bytes = self.blend.bytes.get(self.span(path)?)?;
        bytes.split(|byte| *byte == 0).next()
    }

    /// An address; 0 is no address.
    pub fn pointer(&self, path: &str) -> Option<u64> {
        let (field, bytes) = self.first_element(path)?;
        field.pointer.then(|| self.blend.machine.uint(bytes))
    }

    /// Whether the pointer is there and set.
    pub fn points(&self, path: &str) -> bool {
        self.pointer(path).is_some_and(|address| address != 0)
    }

    /// The struct the pointer leads to.
    pub fn follow(&self, path: &str) -> Option<Record<'a>> {
        self.blend.record(self.blend.find(self.block, self.pointer(path)?)?)
    }

    /// The members of a `ListBase`, through their `next`: at most `MAX_LIST`, none twice.
    pub fn list(&self, path: &str) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let mut seen = HashSet::new();
        let first = self.follow(&format!("{path}.first"));
        std::iter::successors(first, |record| record.follow("next"))
            .take_while(move |record| seen.insert(record.block))
            .take(MAX_LIST)
    }

    /// The name of the datablock this is, with its two-letter code, such as `SCScene`.
    pub fn id_name(&self) -> Option<&'a [u8]> {
        self.text("id.name").or_else(|| self.text("name"))
    }
}
