//! Whether an image shows nothing.
//!
//! An OpenEXR of several passes, layers or views has its pictures under names: `ViewLayer.Combined.R`, with a view
//! `ViewLayer.Combined.left.R`. What is not understood is never called blank.

use crate::farm::op::Blank;
use exr::block::UncompressedBlock;
use exr::block::reader::ChunksReader;
use exr::meta::header::Header;
use exr::prelude::{Compression, SampleType, Vec2, f16};
use image::ColorType;
use std::collections::BTreeMap;
use std::io::{Read, Seek};

/// Brightest value that still passes for black, in 255ths (guess: Blender's dithering moves a black pixel by one).
const BLACK_MAX: u8 = 2;
/// Largest block of an OpenEXR that is unpacked, bytes (guess: 32 lines of 8192 pixels with 128 channels have 134 MB).
const BLOCK_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Most that is unpacked of one OpenEXR, bytes (guess: half a minute; what shows something is told from its first blocks).
const UNPACKED_MAX_BYTES: usize = 4 * 1024 * 1024 * 1024;
/// What a stranger's file is unpacked of: the decoder of DWA makes room for whatever a block claims to hold, and that of B44
/// trips over damage (both exr 1.74.2). Previews tell of those.
const PACKED: [Compression; 6] = [
    Compression::Uncompressed,
    Compression::RLE,
    Compression::ZIP1,
    Compression::ZIP16,
    Compression::PIZ,
    Compression::PXR24,
];
/// The layer that has what the compositor made of all others.
const COMPOSITE: &str = "Composite";

/// Whether the pixels of an image show nothing. Looks no further than its first pixel that does.
pub(super) fn of_pixels(pixels: &[u8], color: ColorType) -> Option<Blank> {
    let channels = usize::from(color.channel_count());
    let sample_bytes = usize::from(color.bytes_per_pixel()) / channels;
    let value = |sample: &[u8]| match *sample {
        [byte] => f32::from(byte) / 255.0,
        [a, b] => f32::from(u16::from_ne_bytes([a, b])) / 65535.0,
        [a, b, c, d] => f32::from_ne_bytes([a, b, c, d]),
        _ => 1.0,
    };
    let mut pixels = pixels.chunks_exact(channels * sample_bytes).map(|pixel| pixel.chunks_exact(sample_bytes));
    if color.has_alpha()
        && pixels.clone().all(|mut samples| samples.next_back().is_some_and(|alpha| value(alpha) <= 0.0))
    {
        return Some(Blank::Transparent);
    }
    let colors = channels - usize::from(color.has_alpha());
    pixels.all(|samples| samples.take(colors).all(|sample| is_dark(value(sample)))).then_some(Blank::Black)
}

/// What is not a number is not black.
fn is_dark(value: f32) -> bool {
    value <= f32::from(BLACK_MAX) / 255.0
}

/// Whether a view in an OpenEXR shows nothing, as far as that can be told: `file` is one whose skeleton is sound. Looks no
/// further than needed.
pub(super) fn of_exr(file: impl Read + Seek) -> Option<Blank> {
    let file = exr::block::read(file, false).ok()?;
    let mut pictures = pictures(file.headers())?;
    let mut blocks = file.all_chunks(false).ok()?.sequential_decompressor(false);
    while pictures.values().any(|view| view.iter().all(Picture::is_blank)) {
        let Some(block) = blocks.next() else { break };
        let block = block.ok()?;
        let header = blocks.meta_data().headers.get(block.index.layer)?;
        pictures.values_mut().flatten().for_each(|picture| picture.see(&block, header));
    }
    let blank = |view: &Vec<Picture>| {
        let what = if view.iter().all(|picture| picture.is_clear) { Blank::Transparent } else { Blank::Black };
        view.iter().all(Picture::is_blank).then_some(what)
    };
    pictures.values().find_map(blank)
}

/// What makes a picture among the channels of a part of an OpenEXR, and what was seen of it.
#[derive(Debug)]
struct Picture {
    part: usize,
    layer: String,
    /// Places of its channels, those of red, green and blue first.
    colors: Vec<usize>,
    alpha: Option<usize>,
    /// Whether nothing of it was opaque, and nothing bright.
    is_clear: bool,
    is_black: bool,
}

impl Picture {
    fn is_blank(&self) -> bool {
        self.is_clear || self.is_black
    }

    /// Looks at a block.
    fn see(&mut self, block: &UncompressedBlock, header: &Header) {
        if block.index.layer != self.part || !self.is_blank() {
            return;
        }
        for line in block.lines(&header.channels) {
            let place = line.location.channel;
            let kind = header.channels.list.get(place).map(|channel| channel.sample_type);
            if self.alpha == Some(place) {
                self.is_clear = self.is_clear && all(line.value, kind, |alpha| alpha <= 0.0);
            } else if self.colors.contains(&place) {
                self.is_black = self.is_black && all(line.value, kind, is_dark);
            }
        }
    }
}

/// Whether something holds of all samples of a line.
fn all(line: &[u8], kind: Option<SampleType>, holds: impl Fn(f32) -> bool) -> bool {
    match kind {
        Some(SampleType::F16) => line.as_chunks::<2>().0.iter().all(|bytes| holds(f16::from_ne_bytes(*bytes).to_f32())),
        Some(SampleType::F32) => line.as_chunks::<4>().0.iter().all(|bytes| holds(f32::from_ne_bytes(*bytes))),
        // No picture is of whole numbers.
        Some(SampleType::U32) | None => false,
    }
}

/// The pictures of each view. `None` where not all can be looked at.
fn pictures(headers: &[Header]) -> Option<BTreeMap<String, Vec<Picture>>> {
    let mut unpacked = 0usize;
    let mut found: BTreeMap<(String, usize, String), Picture> = BTreeMap::new();
    for (part, header) in headers.iter().enumerate() {
        unpacked = unpacked.checked_add(header.layer_size.area().checked_mul(header.channels.bytes_per_pixel)?)?;
        let block = header.max_block_pixel_size().area().checked_mul(header.channels.bytes_per_pixel)?;
        let is_sparse = header.channels.list.iter().any(|channel| channel.sampling != Vec2(1, 1));
        let is_read = PACKED.contains(&header.compression) && !header.deep && !is_sparse;
        if !is_read || block > BLOCK_MAX_BYTES || unpacked > UNPACKED_MAX_BYTES {
            return None;
        }
        let of_part = header.own_attributes.view_name.as_ref().map(ToString::to_string).unwrap_or_default();
        for (place, channel) in header.channels.list.iter().enumerate() {
            let name = channel.name.to_string();
            let Some((layer, view, letter)) = named(&name) else { continue };
            let view = if view.is_empty() { of_part.clone() } else { view.to_owned() };
            let fresh = || Picture {
                part,
                layer: layer.to_owned(),
                colors: Vec::new(),
                alpha: None,
                is_clear: false,
                is_black: true,
            };
            let picture = found.entry((view, part, layer.to_owned())).or_insert_with(fresh);
            match letter {
                "A" => (picture.alpha, picture.is_clear) = (Some(place), true),
                _ => picture.colors.push(place),
            }
        }
    }
    let mut views: BTreeMap<String, Vec<Picture>> = BTreeMap::new();
    for ((view, ..), picture) in found.into_iter().filter(|(_, picture)| picture.colors.len() == 3) {
        views.entry(view).or_default().push(picture);
    }
    // What people see is made of the others.
    for view in views.values_mut().filter(|view| view.iter().any(|picture| picture.layer == COMPOSITE)) {
        view.retain(|picture| picture.layer == COMPOSITE);
    }
    Some(views)
}

/// The layer, the view and the letter of a channel that is of a picture; none of another pass.
fn named(channel: &str) -> Option<(&str, &str, &str)> {
    let (before, letter) = channel.rsplit_once('.').unwrap_or(("", channel));
    if !matches!(letter, "R" | "G" | "B" | "A") {
        return None;
    }
    if let Some(layer) = before.strip_suffix("Combined").filter(|layer| layer.is_empty() || layer.ends_with('.')) {
        return Some((layer.trim_end_matches('.'), "", letter));
    }
    match before.rsplit_once(".Combined.") {
        Some((layer, view)) => Some((layer, view, letter)),
        None if before.contains('.') => None,
        // Not of layers: what is before the letter is a view, if anything.
        None => Some(("", before, letter)),
    }
}
