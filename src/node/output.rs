//! Where the results of a job go and what they are called, DESIGN §7; whether they can be written there.

use super::cause::{is_full, plain_cause};
use super::http::{ApiError, ErrorKind, VideoChoice};
use crate::farm::frames::FrameSet;
use crate::farm::job::{ImageFormat, OutputSpec};
use crate::wire::FILE_OUTPUTS;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Digits of a frame number unless a pattern says otherwise, as Blender has it.
const DIGITS: u8 = 4;

/// A name that is a file name everywhere.
pub fn file_safe(name: &str) -> String {
    let safe: String =
        name.chars().map(|c| if c.is_control() || r#"/\:*?"<>|"#.contains(c) { '_' } else { c }).collect();
    match safe.trim().trim_matches('.') {
        "" => "render".into(),
        safe => safe.chars().take(100).collect(),
    }
}

/// The output of `--output` and `--video`, or the defaults. `span` goes before the extension of a default video.
pub fn resolve(
    output: Option<&Path>,
    video: &VideoChoice,
    default: &Path,
    name: &str,
    span: &str,
) -> Result<OutputSpec, ApiError> {
    let (mut directory, mut prefix, mut suffix, mut digits) =
        (default.to_path_buf(), format!("{name}_"), String::new(), DIGITS);
    if let Some(output) = output {
        let last = output.file_name().map(|last| last.to_string_lossy().into_owned()).unwrap_or_default();
        match (last.find('#'), last.rfind('#')) {
            (Some(from), Some(to)) if last[from..=to].chars().all(|c| c == '#') => {
                directory = output.parent().unwrap_or(Path::new("/")).to_path_buf();
                prefix = last[..from].to_owned();
                suffix = strip_image_extension(&last[to + 1..]).to_owned();
                digits = u8::try_from(to + 1 - from).unwrap_or(u8::MAX).min(20);
            }
            (Some(_), _) => {
                let text = format!("`{last}` has its # in two places; write them once, as in shot_####");
                return Err(ApiError::new(ErrorKind::BadRequest, text));
            }
            (None, _) => directory = output.to_path_buf(),
        }
    }
    let video = match video {
        VideoChoice::None => None,
        VideoChoice::File(path) => Some(path.clone()),
        VideoChoice::Default => Some(directory.parent().unwrap_or(&directory).join(format!("{name}{span}.mp4"))),
    };
    let text = |path: &Path| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => {
            let text = format!("{} is not valid Unicode; choose another with --output and --video", path.display());
            Err(ApiError::new(ErrorKind::OutputUnwritable, text))
        }
    };
    Ok(OutputSpec {
        directory: text(&directory)?,
        prefix,
        suffix,
        digits,
        video: video.as_deref().map(text).transpose()?,
        zip: None,
    })
}

/// The ZIP file of results: beside the video, or without one beside the folder of the frames.
pub fn zip_of(output: &OutputSpec, name: &str, span: &str) -> String {
    let beside = Path::new(output.video.as_deref().unwrap_or(&output.directory));
    let folder = beside.parent().unwrap_or(beside);
    folder.join(format!("{name}{span}.zip")).to_string_lossy().into_owned()
}

/// A pattern may end in an extension; the format decides that.
fn strip_image_extension(suffix: &str) -> &str {
    let known = [".png", ".jpg", ".jpeg", ".exr", ".tif", ".tiff", ".webp"];
    known.iter().find_map(|extension| suffix.strip_suffix(extension)).unwrap_or(suffix)
}

/// Proves that the results can be written, and leaves nothing behind: delivery makes the folders that are missing.
pub fn check(output: &OutputSpec) -> Result<(), ApiError> {
    let refuse = |text| Err(ApiError::new(ErrorKind::OutputUnwritable, text));
    let directory = PathBuf::from(&output.directory);
    probe(&directory, "--output")?;
    if let Some(video) = &output.video {
        let video = Path::new(video);
        if video.is_dir() {
            return refuse(format!("{} is a folder; name the file of the video with --video FILE", video.display()));
        }
        probe(video.parent().unwrap_or(Path::new("/")), "--video")?;
    }
    if let Some(zip) = &output.zip {
        if output.video.as_ref() == Some(zip) {
            return refuse(format!("{zip} would be the video and the ZIP file; choose another with --video"));
        }
        let (zip, flag) = (Path::new(zip), place_of_zip(output));
        if zip.is_dir() {
            let text = format!("{} is a folder, and the ZIP file would replace it; choose another with", zip.display());
            return refuse(format!("{text} {flag}"));
        }
        probe(zip.parent().unwrap_or(Path::new("/")), flag)?;
    }
    Ok(())
}

/// What says where the ZIP file is.
fn place_of_zip(output: &OutputSpec) -> &'static str {
    if output.video.is_some() { "--video" } else { "--output" }
}

/// Refuses to put results in the place of a file that the scene itself needs. The names of a frame's files end in `views`.
pub fn spare(
    output: &OutputSpec,
    frames: &FrameSet,
    (format, views): (ImageFormat, &[String]),
    needed: &[PathBuf],
) -> Result<(), ApiError> {
    let real = |path: &Path| path.canonicalize().ok();
    let refuse = |path: &Path, what: &str, flag: &str| {
        let text =
            format!("{} belongs to the scene, and {what} would replace it; choose another with {flag}", path.display());
        Err(ApiError::new(ErrorKind::OutputUnwritable, text))
    };
    let needed: BTreeSet<PathBuf> = needed.iter().filter_map(|path| real(path)).collect();
    if let Some(video) = output.video.as_deref().map(Path::new)
        && real(video).is_some_and(|video| needed.contains(&video))
    {
        return refuse(video, "the video", "--video");
    }
    if let Some(zip) = output.zip.as_deref().map(Path::new)
        && real(zip).is_some_and(|zip| needed.contains(&zip))
    {
        return refuse(zip, "the ZIP file", place_of_zip(output));
    }
    let Some(directory) = real(Path::new(&output.directory)) else { return Ok(()) };
    // What File Output nodes call their files is not known before they write them.
    if let Some(path) = needed.iter().find(|path| path.starts_with(directory.join(FILE_OUTPUTS))) {
        return refuse(path, "a file of a File Output node", "--output");
    }
    // Of a frame that is a link the link is replaced, not what it leads to.
    let names: BTreeSet<&OsStr> =
        needed.iter().filter(|path| path.parent() == Some(&directory)).filter_map(|path| path.file_name()).collect();
    let mut files = frames.iter().flat_map(|frame| views.iter().map(move |view| output.view_name(frame, format, view)));
    match files.find(|name| !names.is_empty() && names.contains(OsStr::new(name))) {
        Some(name) => refuse(&directory.join(name), "a frame", "--output"),
        None => Ok(()),
    }
}

/// Writes and removes a small file. Folders made for it are removed again.
fn probe(directory: &Path, flag: &str) -> Result<(), ApiError> {
    let first_new = directory.ancestors().take_while(|folder| !folder.exists()).last().map(Path::to_path_buf);
    let attempt = || -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let file = directory.join(format!(".swarm-{:016x}", rand::random::<u64>()));
        let written = std::fs::write(&file, [0; 4096]);
        let removed = std::fs::remove_file(&file);
        written.and(removed)
    };
    let outcome = attempt();
    if let Some(new) = first_new {
        // Only folders that were made a moment ago, and only if nothing is in them.
        let mut folder = directory;
        while folder.starts_with(&new) && std::fs::remove_dir(folder).is_ok() {
            let Some(parent) = folder.parent() else { break };
            folder = parent;
        }
    }
    outcome.map_err(|error| {
        let full = is_full(&error);
        let what = if full { "make room" } else { "check that it is a folder you may write to" };
        let kind = if full { ErrorKind::NoSpace } else { ErrorKind::OutputUnwritable };
        let error = plain_cause(&error);
        let text =
            format!("{} cannot be written: {error}; {what}, or choose another place with {flag}", directory.display());
        ApiError::new(kind, text)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn output_patterns_say_folder_name_and_digits() {
        let made = |output: Option<&str>| {
            resolve(output.map(Path::new), &VideoChoice::Default, Path::new("/s/shot-frames"), "shot", "-3-9").unwrap()
        };
        let default = made(None);
        assert_eq!(
            (default.directory.as_str(), default.prefix.as_str(), default.digits),
            ("/s/shot-frames", "shot_", 4)
        );
        assert_eq!(default.video.as_deref(), Some("/s/shot-3-9.mp4"));
        let folder = made(Some("/o/day 1/"));
        assert_eq!((folder.directory.as_str(), folder.video.as_deref()), ("/o/day 1/", Some("/o/shot-3-9.mp4")));
        let pattern = made(Some("/o/f_###b.png"));
        assert_eq!(pattern.file_name(7, ImageFormat::Png), "f_007b.png");
        assert_eq!(pattern.directory, "/o");
        assert!(resolve(Some(Path::new("/o/a#b#")), &VideoChoice::None, Path::new("/"), "x", "").is_err());
    }

    #[test]
    fn a_check_of_the_output_leaves_no_folder_behind() {
        let dir = tempfile::tempdir().unwrap();
        let made = |directory: &Path| {
            resolve(Some(directory), &VideoChoice::File(dir.path().join("v/x.mp4")), Path::new("/"), "x", "").unwrap()
        };
        check(&made(&dir.path().join("a/b"))).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::fs::write(dir.path().join("file"), "in the way").unwrap();
        let error = check(&made(&dir.path().join("file/b"))).unwrap_err();
        assert_eq!(error.kind, ErrorKind::OutputUnwritable);
        assert!(!error.message.contains("os error"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_result_takes_the_place_of_a_file_of_the_scene() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["shot.blend", "shot.mp4", "plate_0002.png", "else.png"] {
            std::fs::write(at(name), "the user's").unwrap();
        }
        let needed = ["shot.blend", "shot.mp4", "plate_0002.png"].map(at);
        let frames = FrameSet::range(1, 3, 1).unwrap();
        let told = |output: &str, video: &str| {
            let video = VideoChoice::File(at(video));
            let output = resolve(Some(&at(output)), &video, Path::new("/"), "x", "").unwrap();
            spare(&output, &frames, (ImageFormat::Png, &[String::new()]), &needed).map_err(|error| error.message)
        };
        for (output, video, named) in
            [("new", "shot.mp4", "--video"), ("new", "shot.blend", "--video"), ("plate_####", "v.mp4", "--output")]
        {
            let message = told(output, video).unwrap_err();
            assert!(message.contains("belongs to the scene") && message.ends_with(named), "{message}");
        }
        told("else_####", "v.mp4").unwrap();
        std::fs::create_dir_all(at("new/file-outputs")).unwrap();
        std::fs::write(at("new/file-outputs/depth.exr"), "of an earlier job").unwrap();
        let needed = [at("new/file-outputs/depth.exr")];
        let again = resolve(Some(&at("new")), &VideoChoice::None, Path::new("/"), "x", "").unwrap();
        let message = spare(&again, &frames, (ImageFormat::Png, &[String::new()]), &needed).unwrap_err().message;
        assert!(message.contains("a file of a File Output node would replace it"), "{message}");
        told("new", "new.mp4").unwrap();
    }

    #[test]
    fn a_zip_file_lies_beside_the_video_or_the_folder_and_replaces_nothing_that_is_not_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let made = |video: &VideoChoice| {
            let output = resolve(Some(&at("out/")), video, Path::new("/"), "x", "-3-9").unwrap();
            let zip = Some(zip_of(&output, "x", "-3-9"));
            OutputSpec { zip, ..output }
        };
        let place = |output: &OutputSpec| PathBuf::from(output.zip.clone().unwrap());
        let (bare, cut) = (made(&VideoChoice::None), made(&VideoChoice::File(at("cuts/a.mp4"))));
        assert_eq!(place(&bare), at("x-3-9.zip"));
        assert_eq!(place(&cut), at("cuts/x-3-9.zip"));
        check(&bare).unwrap();
        check(&cut).unwrap();
        let refused = |output: &OutputSpec| check(output).unwrap_err().message;
        let same = refused(&made(&VideoChoice::File(at("x-3-9.zip"))));
        assert!(same.contains("would be the video and the ZIP file"), "{same}");
        let frames = FrameSet::range(1, 3, 1).unwrap();
        std::fs::write(at("x-3-9.zip"), "what an add-on needs").unwrap();
        let of_scene =
            spare(&bare, &frames, (ImageFormat::Png, &[String::new()]), &[at("x-3-9.zip")]).unwrap_err().message;
        assert!(of_scene.contains("the ZIP file would replace it") && of_scene.ends_with("--output"), "{of_scene}");
        std::fs::remove_file(at("x-3-9.zip")).unwrap();
        std::fs::create_dir_all(at("x-3-9.zip")).unwrap();
        let folder = refused(&bare);
        assert!(folder.contains("is a folder") && folder.ends_with("--output"), "{folder}");
    }

    #[test]
    fn names_are_file_names_everywhere() {
        assert_eq!(file_safe("a/b:c"), "a_b_c");
        assert_eq!(file_safe(" .. "), "render");
        assert_eq!(file_safe("Szene Ä 1"), "Szene Ä 1");
    }
}
