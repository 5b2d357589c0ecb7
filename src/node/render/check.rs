//! Whether a file is the image that was asked for.
//!
//! On a full disk Blender says `Saved:` over a JPEG or EXR that is cut short, and leaves a partial PNG under its final
//! name. So each result is decoded before it counts, and its structure is checked where a decoder forgives: a PNG or
//! JPEG without its end, an EXR whose compression only Blender reads. Uses memory for one frame.

use super::blank;
use crate::farm::job::ImageFormat;
use crate::farm::op::Blank;
use image::{ImageDecoder, ImageReader};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Most pixels of an image that is decoded: 16384 × 8192, 2 GiB as 32-bit float RGBA (guess).
pub const PIXELS_MAX: u64 = 1 << 27;
/// Longest header of an EXR, bytes (guess: one with 300 passes has some 20 KiB).
const EXR_HEADER_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Most bytes a decoder may take for a pixel: twice one of 32-bit float RGBA.
const PIXEL_MAX_BYTES: u64 = 32;
/// Most it may take besides (guess: tables, a strip or a tile in hand, metadata).
const SPARE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why a file is not the image asked for.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It cannot be read.
    #[error("the image cannot be read")]
    Io(#[from] io::Error),
    /// Nothing in it.
    #[error("the image is empty; is the disk full?")]
    Empty,
    /// Cut short.
    #[error("the image is cut short ({0}); is the disk full?")]
    Truncated(&'static str),
    /// Not decodable.
    #[error("the image cannot be decoded")]
    Decode(#[from] image::ImageError),
    /// Structure is wrong.
    #[error("the image is not sound: {0}")]
    Unsound(&'static str),
    /// Another size.
    #[error("the image has {}×{} pixels and {}×{} were to be rendered", is.0, is.1, wanted.0, wanted.1)]
    Size {
        /// Width and height it has.
        is: (u32, u32),
        /// Width and height asked for.
        wanted: (u32, u32),
    },
    /// Too large to check.
    #[error("an image of {0}×{1} pixels is larger than the {PIXELS_MAX} pixels that are checked")]
    TooLarge(u32, u32),
}

/// Checks that the file at `path` is a whole image of `format` with `size` (width, height in pixels), and says whether it
/// shows nothing, or one of its views, as far as it can be told: what only Blender reads is never called blank. Decodes it:
/// call it where blocking is allowed.
pub fn check_image(path: &Path, format: ImageFormat, size: (u32, u32)) -> Result<Option<Blank>, CheckError> {
    check(path, format, Some(size))
}

/// Checks that the file at `path` is a whole image of some size, if its extension is that of a format which can be checked
/// here; of another, that there is something in it. Decodes it: call it where blocking is allowed.
pub fn check_file(path: &Path) -> Result<(), CheckError> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let format = match extension.as_deref() {
        Some("png") => ImageFormat::Png,
        Some("jpg" | "jpeg") => ImageFormat::Jpeg,
        Some("tif" | "tiff") => ImageFormat::Tiff,
        Some("webp") => ImageFormat::Webp,
        Some("exr") => ImageFormat::Exr,
        _ => return if path.metadata()?.len() > 0 { Ok(()) } else { Err(CheckError::Empty) },
    };
    check(path, format, None).map(drop)
}

fn check(path: &Path, format: ImageFormat, size: Option<(u32, u32)>) -> Result<Option<Blank>, CheckError> {
    let mut file = BufReader::new(File::open(path)?);
    if file.get_ref().metadata()?.len() == 0 {
        return Err(CheckError::Empty);
    }
    match format {
        ImageFormat::Png => {
            ends_with(&mut file, b"\0\0\0\0IEND\xae\x42\x60\x82", "its end is missing")?;
            decode(file, image::ImageFormat::Png, size)
        }
        ImageFormat::Jpeg => {
            ends_with(&mut file, b"\xff\xd9", "its end is missing")?;
            decode(file, image::ImageFormat::Jpeg, size)
        }
        ImageFormat::Tiff => decode(file, image::ImageFormat::Tiff, size),
        ImageFormat::Webp => {
            let mut head = [0; 8];
            file.read_exact(&mut head)?;
            let [.., a, b, c, d] = head;
            let length = file.get_ref().metadata()?.len();
            if u64::from(u32::from_le_bytes([a, b, c, d])) + 8 > length {
                return Err(CheckError::Truncated("it is shorter than it says"));
            }
            file.rewind()?;
            decode(file, image::ImageFormat::WebP, size)
        }
        ImageFormat::Exr | ImageFormat::ExrMultilayer => {
            let colour = exr(&mut file, size)?;
            file.rewind()?;
            let shown = match colour {
                Colour::Plain | Colour::Beside if format == ImageFormat::Exr => {
                    decode(file, image::ImageFormat::OpenExr, size)?
                }
                Colour::Plain | Colour::Beside | Colour::Named => None,
            };
            // What is decoded so is one view; and what a frame shows is not asked of a file that goes with it.
            if shown.is_some() || size.is_none() || (colour == Colour::Plain && format == ImageFormat::Exr) {
                return Ok(shown);
            }
            Ok(blank::of_exr(BufReader::new(File::open(path)?)))
        }
    }
}

fn ends_with(file: &mut BufReader<File>, end: &[u8], what: &'static str) -> Result<(), CheckError> {
    let length = file.get_ref().metadata()?.len();
    let at = length.checked_sub(end.len() as u64).ok_or(CheckError::Truncated(what))?;
    file.seek(SeekFrom::Start(at))?;
    let mut is = vec![0; end.len()];
    file.read_exact(&mut is)?;
    file.rewind()?;
    if is == end { Ok(()) } else { Err(CheckError::Truncated(what)) }
}

fn right_size(is: (u32, u32), wanted: Option<(u32, u32)>) -> Result<(), CheckError> {
    if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
        return Err(CheckError::Size { is, wanted });
    }
    if u64::from(is.0) * u64::from(is.1) > PIXELS_MAX {
        return Err(CheckError::TooLarge(is.0, is.1));
    }
    Ok(())
}

fn decode(
    file: BufReader<File>,
    format: image::ImageFormat,
    size: Option<(u32, u32)>,
) -> Result<Option<Blank>, CheckError> {
    let mut reader = ImageReader::with_format(file, format);
    // Of the size that it is to have, if that is known: another is refused below, before anything of it is allocated.
    let mut limits = image::Limits::no_limits();
    let pixels_max = size.map_or(PIXELS_MAX, |(width, height)| u64::from(width) * u64::from(height));
    limits.max_alloc = Some(pixels_max * PIXEL_MAX_BYTES + SPARE_MAX_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let is = decoder.dimensions();
    right_size(is, size)?;
    let bytes = usize::try_from(decoder.total_bytes()).map_err(|_| CheckError::TooLarge(is.0, is.1))?;
    let (color, mut pixels) = (decoder.color_type(), vec![0; bytes]);
    decoder.read_image(&mut pixels)?;
    Ok(blank::of_pixels(&pixels, color))
}

/// What the header of one part of an OpenEXR file says.
struct Header {
    /// First line of the pixels that are stored, and their width and height.
    data: (i32, (u32, u32)),
    /// Width and height of the picture.
    display: (u32, u32),
    /// Lines in a block.
    lines: u32,
    colour: Colour,
}

/// Where an OpenEXR, or a part of one, has the colours of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    /// In channels that a decoder for pictures looks for.
    Plain,
    /// In such, and beside them are channels with longer names, as of another view.
    Beside,
    /// Elsewhere.
    Named,
}

impl Header {
    /// `None`: the end of the headers of a file of several parts.
    fn read(header: &mut impl BufRead) -> Result<Option<Self>, CheckError> {
        let (mut data, mut display, mut compression, mut colour, mut is_empty) =
            (None, None, None, Colour::Named, true);
        loop {
            let name = name(header)?;
            if name.is_empty() {
                break;
            }
            is_empty = false;
            let kind = self::name(header)?;
            let mut bytes = [0; 4];
            header.read_exact(&mut bytes).map_err(|_| CheckError::Truncated("within its header"))?;
            let wanted = u64::from(u32::from_le_bytes(bytes));
            let mut value = Vec::new();
            header.by_ref().take(wanted).read_to_end(&mut value)?;
            if value.len() as u64 != wanted {
                return Err(CheckError::Truncated("within its header"));
            }
            match (name.as_slice(), kind.as_slice()) {
                (b"dataWindow", b"box2i") => data = window(&value),
                (b"displayWindow", b"box2i") => display = window(&value),
                (b"compression", b"compression") => compression = value.first().copied(),
                (b"channels", b"chlist") => colour = colour_of(&value),
                _ => {}
            }
        }
        if is_empty {
            return Ok(None);
        }
        let (Some(data), Some((_, display)), Some(compression)) = (data, display, compression) else {
            return Err(CheckError::Unsound("its header is not complete"));
        };
        // Lines per block: none, RLE, ZIPS; ZIP; PIZ; PXR24; B44, B44A; DWAA; DWAB.
        let lines = match compression {
            0..=2 => 1,
            3 | 5 => 16,
            4 | 6 | 7 | 8 => 32,
            9 => 256,
            _ => return Err(CheckError::Unsound("its compression is unknown")),
        };
        // DWA is not decoded.
        let colour = if compression < 8 { colour } else { Colour::Named };
        Ok(Some(Self { data, display, lines, colour }))
    }

    fn blocks(&self) -> u32 {
        self.data.1.1.div_ceil(self.lines)
    }
}

/// Checks the skeleton of an OpenEXR file as Blender writes them: the header of each part, tables of where each block of
/// lines starts, and all the blocks (openexr.com, "OpenEXR File Layout"). Says where its colours are.
fn exr(file: &mut BufReader<File>, size: Option<(u32, u32)>) -> Result<Colour, CheckError> {
    let length = file.get_ref().metadata()?.len();
    let mut head = [0; 8];
    file.read_exact(&mut head).map_err(|_| CheckError::Truncated("within its header"))?;
    let [a, b, c, d, _, flags, ..] = head;
    if [a, b, c, d] != [0x76, 0x2f, 0x31, 0x01] {
        return Err(CheckError::Unsound("it is not OpenEXR"));
    }
    // Bits 9 and 11, then bit 12.
    if flags & 0b1010 != 0 {
        return Err(CheckError::Unsound("it has tiles or deep data, which Blender does not write"));
    }
    let has_parts = flags & 0b1_0000 != 0;
    let mut headers = file.by_ref().take(EXR_HEADER_MAX_BYTES);
    let mut parts = Vec::new();
    while let Some(header) = Header::read(&mut headers)? {
        right_size(header.display, size)?;
        right_size(header.data.1, None)?;
        parts.push(header);
        if !has_parts {
            break;
        }
    }
    let [first, ..] = parts.as_slice() else { return Err(CheckError::Unsound("its header is not complete")) };
    let colour = if parts.len() == 1 { first.colour } else { Colour::Named };
    // A table that cannot be in the file is not made room for.
    let entries = parts.iter().map(|part| u64::from(part.blocks())).sum::<u64>();
    let table_bytes = entries.checked_mul(8).filter(|bytes| *bytes <= length);
    let table_bytes = table_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let mut table = vec![0; table_bytes.ok_or(CheckError::Truncated("within its table of lines"))?];
    file.read_exact(&mut table).map_err(|_| CheckError::Truncated("within its table of lines"))?;
    let (starts, _) = table.as_chunks::<8>();
    let of_part = parts.iter().enumerate().flat_map(|(part, header)| (0..header.blocks()).map(move |_| (part, header)));
    for (start, (part, header)) in starts.iter().map(|bytes| u64::from_le_bytes(*bytes)).zip(of_part) {
        block(file, (start, length), has_parts.then_some(part), header)?;
    }
    Ok(colour)
}

/// Checks that a block of lines is where the table says, of the part it says, and whole.
fn block(
    file: &mut BufReader<File>,
    (start, length): (u64, u64),
    part: Option<usize>,
    header: &Header,
) -> Result<(), CheckError> {
    let head_bytes = if part.is_some() { 12 } else { 8 };
    // A writer that dies leaves zeros in the table.
    let Some(body) = start.checked_add(head_bytes).filter(|body| start != 0 && *body <= length) else {
        return Err(CheckError::Truncated("blocks of lines are missing"));
    };
    file.seek(SeekFrom::Start(start))?;
    let mut word = || -> io::Result<[u8; 4]> {
        let mut word = [0; 4];
        file.read_exact(&mut word)?;
        Ok(word)
    };
    let is_of_part = match part {
        Some(part) => u32::from_le_bytes(word()?) as usize == part,
        None => true,
    };
    let (first, (_, height)) = header.data;
    let y = i64::from(i32::from_le_bytes(word()?)) - i64::from(first);
    if !is_of_part || !(0..i64::from(height)).contains(&y) {
        return Err(CheckError::Unsound("a block of lines is not of this image"));
    }
    if body + u64::from(u32::from_le_bytes(word()?)) > length {
        return Err(CheckError::Truncated("the last lines are missing"));
    }
    Ok(())
}

fn name(header: &mut impl BufRead) -> Result<Vec<u8>, CheckError> {
    let mut name = Vec::new();
    header.take(256).read_until(0, &mut name)?;
    if name.pop() == Some(0) { Ok(name) } else { Err(CheckError::Truncated("within its header")) }
}

/// First line, and width and height, of a window.
fn window(value: &[u8]) -> Option<(i32, (u32, u32))> {
    let (words, []) = value.as_chunks::<4>() else { return None };
    let [x0, y0, x1, y1] = <[[u8; 4]; 4]>::try_from(words).ok()?.map(i32::from_le_bytes);
    let side = |from: i32, to: i32| u32::try_from(i64::from(to) - i64::from(from) + 1).ok().filter(|n| *n > 0);
    Some((y0, (side(x0, x1)?, side(y0, y1)?)))
}

/// Whether the channels are named `R`, `G` and `B`, which is what a decoder for pictures looks for.
fn colour_of(list: &[u8]) -> Colour {
    let mut rest = list;
    let (mut found, mut has_longer) = (0, false);
    while let Some(end) = rest.iter().position(|b| *b == 0).filter(|end| *end > 0) {
        found += usize::from(matches!(&rest[..end], b"R" | b"G" | b"B"));
        has_longer |= rest[..end].contains(&b'.');
        // Pixel type, linearity and padding, sampling in x and y.
        rest = rest.get(end + 17..).unwrap_or_default();
    }
    match (found, has_longer) {
        (3, false) => Colour::Plain,
        (3, true) => Colour::Beside,
        _ => Colour::Named,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use image::ColorType;

    const SIZE: (u32, u32) = (64, 36);

    /// An uncompressed EXR of one 16-bit channel of this name, as openexr.com lays it out.
    fn exr_of(channel: &[u8]) -> Vec<u8> {
        let mut file = vec![0x76, 0x2f, 0x31, 0x01, 2, 0, 0, 0];
        let mut attribute = |name: &str, kind: &str, value: &[u8]| {
            file.extend([name.as_bytes(), b"\0", kind.as_bytes(), b"\0", &(value.len() as u32).to_le_bytes()].concat());
            file.extend(value);
        };
        attribute("channels", "chlist", &[channel, b"\0\x01\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\0"].concat());
        attribute("compression", "compression", &[0]);
        let window: Vec<u8> = [0, 0, 63, 35].into_iter().flat_map(i32::to_le_bytes).collect();
        attribute("dataWindow", "box2i", &window);
        attribute("displayWindow", "box2i", &window);
        file.push(0);
        let first = file.len() as u64 + 36 * 8;
        file.extend((0..36).flat_map(|line| (first + line * (8 + 128)).to_le_bytes()));
        for line in 0..36i32 {
            file.extend([line.to_le_bytes(), 128i32.to_le_bytes()].concat());
            file.extend([0; 128]);
        }
        file
    }

    /// The same channel in each of two parts, as for the views of a stereo scene.
    fn exr_of_two_parts() -> Vec<u8> {
        let single = exr_of(b"Y");
        let blocks = single.len() - 36 * (8 + 128);
        let header = &single[8..blocks - 36 * 8];
        let mut file = vec![0x76, 0x2f, 0x31, 0x01, 2, 0b1_0000, 0, 0];
        file.extend([header, header, &[0]].concat());
        let first = file.len() as u64 + 2 * 36 * 8;
        file.extend((0..2 * 36).flat_map(|block| (first + block * (12 + 128)).to_le_bytes()));
        for block in 0..2 * 36i32 {
            file.extend([(block / 36).to_le_bytes(), (block % 36).to_le_bytes(), 128i32.to_le_bytes()].concat());
            file.extend([0; 128]);
        }
        file
    }

    #[test]
    fn every_part_of_an_exr_has_to_be_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (path, whole) = (dir.path().join("parts.exr"), exr_of_two_parts());
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            check_image(&path, ImageFormat::ExrMultilayer, SIZE)
        };
        assert_eq!(check(&whole).unwrap(), None);
        for keep in [whole.len() - 1, whole.len() - 36 * 70, 400, 100] {
            assert!(matches!(check(&whole[..keep]), Err(CheckError::Truncated(_))), "{keep} of {}", whole.len());
        }
        let mut other = whole;
        let last = other.len() - (12 + 128);
        other[last] = 0;
        assert!(matches!(check(&other), Err(CheckError::Unsound(_))));
    }

    #[test]
    fn a_table_that_cannot_be_in_the_file_is_not_made_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tall.exr");
        let mut file = exr_of(b"Y");
        let at = file.windows(10).position(|bytes| bytes == b"dataWindow").unwrap() + b"dataWindow\0box2i\0".len() + 4;
        let tall = [0, 0, 0, (PIXELS_MAX - 1) as i32].map(i32::to_le_bytes).concat();
        file[at..at + 16].copy_from_slice(&tall);
        std::fs::write(&path, file).unwrap();
        assert!(matches!(check_image(&path, ImageFormat::ExrMultilayer, SIZE), Err(CheckError::Truncated(_))));
    }

    fn written(dir: &Path, format: ImageFormat) -> std::path::PathBuf {
        let path = dir.join(format!("image.{}", format.extension()));
        let picture = image::RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Rgb([x as u8 * 3, y as u8 * 5, 9]));
        match format {
            ImageFormat::ExrMultilayer => std::fs::write(&path, exr_of(b"ViewLayer.Depth.Z")).unwrap(),
            _ => picture.save(&path).unwrap(),
        }
        path
    }

    #[test]
    fn a_whole_image_of_each_format_passes_and_one_cut_anywhere_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (png, jpeg, exr) = (ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::ExrMultilayer);
        for format in [png, jpeg, exr, ImageFormat::Tiff, ImageFormat::Webp] {
            let path = written(dir.path(), format);
            assert_eq!(check_image(&path, format, SIZE).unwrap_or_else(|e| panic!("{format:?}: {e}")), None);
            assert!(matches!(check_image(&path, format, (64, 37)), Err(CheckError::Size { .. })), "{format:?}");
            let whole = std::fs::read(&path).unwrap();
            for keep in [0, 4, 20, whole.len() / 2, whole.len() * 9 / 10, whole.len() - 40, whole.len() - 1] {
                std::fs::write(&path, &whole[..keep]).unwrap();
                assert!(check_image(&path, format, SIZE).is_err(), "{format:?} with {keep} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn an_image_that_shows_nothing_is_told_from_one_with_a_single_pixel() {
        let dir = tempfile::tempdir().unwrap();
        for extension in ["png", "jpg", "tiff", "webp"] {
            let path = dir.path().join(format!("blank.{extension}"));
            let format = match extension {
                "png" => ImageFormat::Png,
                "jpg" => ImageFormat::Jpeg,
                "tiff" => ImageFormat::Tiff,
                _ => ImageFormat::Webp,
            };
            // As dithering leaves it.
            let mut picture = image::RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Rgb([((x + y) % 2) as u8; 3]));
            picture.save(&path).unwrap();
            assert_eq!(check_image(&path, format, SIZE).unwrap(), Some(Blank::Black), "{extension}");
            picture.put_pixel(SIZE.0 - 1, SIZE.1 - 1, image::Rgb([0, 0, 90]));
            picture.save(&path).unwrap();
            assert_eq!(check_image(&path, format, SIZE).unwrap(), None, "{extension}");
        }
        let path = dir.path().join("clear.png");
        let mut picture = image::RgbaImage::from_pixel(SIZE.0, SIZE.1, image::Rgba([200, 9, 9, 0]));
        picture.save(&path).unwrap();
        assert_eq!(check_image(&path, ImageFormat::Png, SIZE).unwrap(), Some(Blank::Transparent));
        picture.put_pixel(3, 3, image::Rgba([200, 9, 9, 1]));
        picture.save(&path).unwrap();
        assert_eq!(check_image(&path, ImageFormat::Png, SIZE).unwrap(), None);
        let (dark, not_a_number) = ([0.001f32, 0.0, 0.0], [0.0, f32::NAN, 0.0]);
        let bytes = |color: [f32; 3]| color.map(f32::to_ne_bytes).concat();
        assert_eq!(blank::of_pixels(&bytes(dark), ColorType::Rgb32F), Some(Blank::Black));
        assert_eq!(blank::of_pixels(&bytes(not_a_number), ColorType::Rgb32F), None);
        let grey = [300u16, u16::MAX].map(u16::to_ne_bytes).concat();
        assert_eq!(blank::of_pixels(&grey, ColorType::La16), Some(Blank::Black));
    }

    #[test]
    fn an_exr_whose_writer_died_has_zeros_in_its_table_and_does_not_pass() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), ImageFormat::ExrMultilayer);
        let mut file = std::fs::read(&path).unwrap();
        let table = file.len() - 36 * (8 + 128 + 8);
        file[table + 35 * 8..table + 36 * 8].fill(0);
        std::fs::write(&path, file).unwrap();
        assert!(matches!(check_image(&path, ImageFormat::ExrMultilayer, SIZE), Err(CheckError::Truncated(_))));
    }

    #[test]
    fn no_damage_to_an_image_makes_its_check_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        use ImageFormat::{ExrMultilayer, Jpeg, Png, Tiff, Webp};
        // A picture decodes slowly in an unoptimised build. (What writes plain OpenEXR here does not write it as Blender.)
        for format in [Png, Jpeg, ExrMultilayer, Tiff, Webp] {
            let whole = written(dir.path(), format);
            check_image(&whole, format, SIZE).unwrap_or_else(|e| panic!("{format:?}: {e}"));
            let whole = std::fs::read(whole).unwrap();
            crate::fuzz::fuzz(&format!("image-{}", format.extension()), 150, vec![whole], |bytes| {
                std::fs::write(&path, bytes).unwrap();
                check_image(&path, format, SIZE).map_err(|error| error.to_string())
            });
        }
    }
}
