//! What Blender has drawn, on its way to its name: looked at, synced, renamed.
//!
//! Blender writes under a name of its own beside the image's, so that the image appears whole or not at all. Where the
//! format holds light and not colours for a screen, it writes a preview too, and a frame has both or has failed. So it is
//! with the files of the compositor's File Output nodes, and with those of the other views where each has one.

use super::error::UnitFailure;
use super::files::{FileOutputs, Folder};
use super::log::Log;
use super::sandbox::Cell;
use super::take::{take_file, take_folder};
use super::views::{Views, look_at_others, view_in};
use super::worker::Rendered;
use super::{FailureKind, check_image};
use crate::farm::job::ImageFormat;
use crate::farm::op::Blank;
use crate::node::leftover::{Leftover, remove, remove_tree};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What Blender has drawn and nobody has looked at yet. Dropped, it goes.
#[derive(Debug)]
pub struct Drawn {
    pub(super) parts: Parts,
    /// What the names of its views end in; none where it is one file.
    pub(super) views: Vec<String>,
    pub(super) out: PathBuf,
    pub(super) format: ImageFormat,
    pub(super) size: (u32, u32),
    pub(super) seconds: f64,
    pub(super) device: String,
    pub(super) log: Log,
    /// What it was drawn in, until it is taken from there.
    pub(super) _cell: Option<Arc<Cell>>,
}

impl Drawn {
    /// Checks the image and puts it in its place.
    pub async fn keep(self) -> Result<Rendered, UnitFailure> {
        let Self { parts, views, out, format, size, seconds, device, log, _cell: cell } = self;
        let to = out.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let kept = keep(parts, views, &to, format, size);
            drop(cell);
            kept
        });
        let kept = kept.await;
        match kept.unwrap_or_else(|error| Err((FailureKind::BadOutput, error.to_string()))) {
            Ok(Kept { bytes, blank, views, preview, files, sound }) => {
                let (log, warnings) = (log.text(), log.warnings);
                Ok(Rendered { path: out, bytes, views, preview, files, sound, seconds, device, warnings, blank, log })
            }
            Err((kind, message)) => Err(UnitFailure { kind, message, log: log.text(), worker_lives: true }),
        }
    }
}

/// The files that Blender is to write for a unit. Dropped, they go.
#[derive(Debug)]
pub(super) struct Parts {
    pub image: Leftover,
    /// For the images instead, where each view has one.
    pub views: Folder,
    pub preview: Option<Leftover>,
    /// For those of File Output nodes.
    pub files: Folder,
    /// Whole, if there is one.
    pub sound: Option<Leftover>,
    /// Where they are looked at, if Blender is not to get at them then.
    pub to: Option<PathBuf>,
}

impl Parts {
    /// Those of the image `out`, in the folder `apart` if Blender may write to no other. What an earlier attempt left under
    /// their names is removed.
    pub fn of(out: &Path, format: ImageFormat, apart: Option<PathBuf>) -> io::Result<Self> {
        let apart = apart.as_deref();
        let preview = format.has_preview().then(|| part_of(&preview_of(out), "jpg", apart)).transpose()?;
        let image = part_of(out, format.extension(), apart)?;
        let folder = |name: &str| {
            let folder = Folder(image.0.with_extension(name));
            remove_tree(&folder.0).map(|()| folder)
        };
        let (views, files) = (folder("views")?, folder("files")?);
        let to = apart.map(|_| std::path::absolute(out)).transpose()?;
        let to = to.and_then(|out| out.parent().map(Path::to_path_buf));
        Ok(Self { image, views, preview, files, sound: None, to })
    }

    /// Where Blender is to write the sound that goes with the image `out`.
    pub fn sound_of(out: &Path, apart: Option<&Path>) -> io::Result<Leftover> {
        part_of(&sound_of(out), "flac", apart)
    }

    /// The same where Blender does not get at them.
    fn taken(self) -> io::Result<Self> {
        let Some(to) = self.to.clone() else { return Ok(self) };
        let image = taken_file(self.image, &to)?;
        let preview = self.preview.map(|preview| taken_file(preview, &to)).transpose()?;
        let (views, files) = (taken_folder(self.views, &to)?, taken_folder(self.files, &to)?);
        Ok(Self { image, views, preview, files, sound: self.sound, to: None })
    }
}

/// A file, if there is one, in the folder `to`, where what an earlier attempt left under its name is removed.
fn taken_file(part: Leftover, to: &Path) -> io::Result<Leftover> {
    let taken = Leftover(to.join(part.0.file_name().unwrap_or_default()));
    remove(&taken.0)?;
    take_file(&part.0, &taken.0)?;
    Ok(taken)
}

fn taken_folder(part: Folder, to: &Path) -> io::Result<Folder> {
    let taken = Folder(to.join(part.0.file_name().unwrap_or_default()));
    remove_tree(&taken.0)?;
    take_folder(&part.0, &taken.0)?;
    Ok(taken)
}

/// The sound of the image `out` beside it, if Blender wrote it elsewhere.
pub(super) fn taken_sound(part: Leftover, out: &Path) -> io::Result<Leftover> {
    match std::path::absolute(out)?.parent() {
        Some(to) if Some(to) != part.0.parent() => taken_file(part, to),
        Some(_) | None => Ok(part),
    }
}

/// Where the preview of an image goes.
fn preview_of(out: &Path) -> PathBuf {
    out.with_extension("preview.jpg")
}

/// Where the sound that an image brings along goes.
fn sound_of(out: &Path) -> PathBuf {
    out.with_extension("sound.flac")
}

/// The name Blender writes under, beside `out` or in the folder `apart`. It has the extension that Blender would give it
/// otherwise.
fn part_of(out: &Path, extension: &str, apart: Option<&Path>) -> io::Result<Leftover> {
    let out = std::path::absolute(out)?;
    let mut name = OsString::from(".");
    name.push(out.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".part.");
    name.push(extension);
    let part = apart.map_or_else(|| out.with_file_name(&name), |apart| apart.join(&name));
    if part.to_str().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "its path is not UTF-8"));
    }
    remove(&part)?;
    Ok(Leftover(part))
}

/// An image in its place.
struct Kept {
    bytes: u64,
    blank: Option<Blank>,
    views: Views,
    /// Where the preview is, and its length.
    preview: Option<(PathBuf, u64)>,
    files: FileOutputs,
    /// The same of the sound.
    sound: Option<(PathBuf, u64)>,
}

pub(super) type Refusal = (FailureKind, String);

/// Checks what Blender left and moves it to its names.
fn keep(parts: Parts, views: Vec<String>, out: &Path, format: ImageFormat, size: (u32, u32)) -> Result<Kept, Refusal> {
    let taken = parts.taken().map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => (FailureKind::BadOutput, format!("of what Blender wrote, {error}")),
        _ => (FailureKind::NoOutput, format!("what Blender wrote cannot be taken: {error}")),
    })?;
    let Parts { image: part, views: folder, preview, files, sound, to: _ } = taken;
    let from = views.first().map(|first| view_in(&folder.0, first, format)).unwrap_or(part.0.clone());
    let (image, shown) = look(&from, "image", format, size)?;
    let (views, others) = look_at_others(folder, views, format, size)?;
    let files = files.look()?;
    let (preview, seen) = match &preview {
        None => (None, None),
        Some(part) => {
            let (file, seen) = look(&part.0, "preview", ImageFormat::Jpeg, size)?;
            let to = preview_of(out);
            let bytes = place(&file, &part.0, &to)?;
            (Some((to, bytes)), seen)
        }
    };
    // A preview is the first view as people see it, and tells of what is not decoded here; it has no alpha.
    let blank = shown.or(others).or(seen);
    // The frame is worth having without.
    let sound = sound.as_ref().and_then(|part| {
        let (file, to) = (File::options().read(true).write(true).open(&part.0).ok()?, sound_of(out));
        place(&file, &part.0, &to).ok().map(|bytes| (to, bytes))
    });
    match place(&image, &from, out) {
        Ok(bytes) => Ok(Kept { bytes, blank, views, preview, files, sound }),
        Err(refusal) => {
            // Without the image they are of no use; if they stay nevertheless, the next start removes them.
            preview.into_iter().chain(sound).for_each(|(path, _)| drop(std::fs::remove_file(path)));
            Err(refusal)
        }
    }
}

/// Checks the file that Blender left at `from`, and whether it shows nothing.
pub(super) fn look(
    from: &Path,
    what: &str,
    format: ImageFormat,
    size: (u32, u32),
) -> Result<(File, Option<Blank>), Refusal> {
    let file = File::options().read(true).write(true).open(from).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => (FailureKind::NoOutput, format!("Blender reported success and wrote no {what}")),
        _ => (FailureKind::NoOutput, format!("Blender's {what} cannot be read: {error}")),
    })?;
    let blank = check_image(from, format, size).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let which = if what == "image" { String::new() } else { format!("its {what} is not as it should be: ") };
        (FailureKind::BadOutput, format!("{which}{error}{cause}"))
    })?;
    Ok((file, blank))
}

/// Gives the checked file at `from` its name; its length. What it holds is on the disk then, which may turn out to be full;
/// its name need not be: the store gives it another and sees to that, and a restart clears the folder.
fn place(file: &File, from: &Path, to: &Path) -> Result<u64, Refusal> {
    let named = || -> io::Result<u64> {
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        std::fs::rename(from, to)?;
        Ok(bytes)
    };
    named().map_err(|error| (FailureKind::NoOutput, format!("the image cannot be put at {}: {error}", to.display())))
}
