//! What Blender has drawn, on its way to its name: looked at, synced, renamed.
//!
//! Blender writes under a name of its own beside the image's, so that the image appears whole or not at all. Where the
//! format holds light and not colours for a screen, it writes a preview too, and a frame has both or has failed. So it is
//! with the files of the compositor's File Output nodes, and with those of the other views where each has one.

use super::error::UnitFailure;
use super::files::{FileOutputs, Folder};
use super::log::Log;
use super::views::{Views, look_at_others, view_in};
use super::worker::Rendered;
use super::{FailureKind, check_image};
use crate::farm::job::ImageFormat;
use crate::farm::op::Blank;
use crate::node::leftover::{Leftover, remove};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

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
}

impl Drawn {
    /// Checks the image and puts it in its place.
    pub async fn keep(self) -> Result<Rendered, UnitFailure> {
        let Self { parts, views, out, format, size, seconds, device, log } = self;
        let to = out.clone();
        let kept = tokio::task::spawn_blocking(move || keep(parts, views, &to, format, size)).await;
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
}

impl Parts {
    /// Those of the image `out`. What an earlier attempt left under their names is removed.
    pub fn of(out: &Path, format: ImageFormat) -> io::Result<Self> {
        let preview = format.has_preview().then(|| part_of(&preview_of(out), "jpg")).transpose()?;
        let image = part_of(out, format.extension())?;
        let folder = |name: &str| {
            let folder = Folder(image.0.with_extension(name));
            match std::fs::remove_dir_all(&folder.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(folder),
            }
        };
        let (views, files) = (folder("views")?, folder("files")?);
        Ok(Self { image, views, preview, files, sound: None })
    }

    /// Where Blender is to write the sound that goes with the image `out`.
    pub fn sound_of(out: &Path) -> io::Result<Leftover> {
        part_of(&sound_of(out), "flac")
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

/// The name Blender writes under, beside `out`. It has the extension that Blender would give it otherwise.
fn part_of(out: &Path, extension: &str) -> io::Result<Leftover> {
    let out = std::path::absolute(out)?;
    let mut name = OsString::from(".");
    name.push(out.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(".part.");
    name.push(extension);
    let part = out.with_file_name(name);
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
    let Parts { image: part, views: folder, preview, files, sound } = parts;
    let from = views.first().map(|first| view_in(&folder.0, first, format)).unwrap_or(part.0.clone());
    let (image, blank) = look(&from, "image", format, size)?;
    let views = look_at_others(folder, views, format, size)?;
    let files = files.look()?;
    let preview = match &preview {
        None => None,
        Some(part) => {
            let (file, _) = look(&part.0, "preview", ImageFormat::Jpeg, size)?;
            let to = preview_of(out);
            let bytes = place(&file, &part.0, &to)?;
            Some((to, bytes))
        }
    };
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

/// Gives the checked file at `from` its name; its length.
fn place(file: &File, from: &Path, to: &Path) -> Result<u64, Refusal> {
    let named = || -> io::Result<u64> {
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        std::fs::rename(from, to)?;
        #[cfg(unix)]
        if let Some(dir) = to.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(bytes)
    };
    named().map_err(|error| (FailureKind::NoOutput, format!("the image cannot be put at {}: {error}", to.display())))
}
