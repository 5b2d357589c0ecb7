//! The files of a frame whose scene writes one per view, as for stereo.
//!
//! The driver has Blender write them into a folder of the frame's own and says afterwards which suffixes they have. The
//! first stands for the frame wherever one image does: in the video, its preview, its name among results.

use super::FailureKind;
use super::drawn::{Refusal, look};
use super::files::Folder;
use crate::farm::job::ImageFormat;
use crate::farm::op::Blank;
use crate::farm::views::{self, MAX_VIEWS, is_view_suffix};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};

/// One view of a frame that has a file for each, checked.
#[derive(Debug)]
pub struct View {
    /// What its name has before the extension.
    pub suffix: String,
    /// Where it is.
    pub from: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// The views of one frame. Dropped, their files go where they have not been taken away.
#[derive(Debug)]
pub struct Views {
    /// The suffix of the first, which is the image; empty where a frame is one file.
    pub first: String,
    /// The others.
    pub others: Vec<View>,
    pub(super) _folder: Folder,
}

/// The suffixes of what the driver says that Blender wrote; none where a frame is one file. They are those that the job
/// declared: what runs in a scene may have changed them before the driver saw it.
pub(super) fn suffixes(answer: &Value, declared: &views::Views) -> Result<Vec<String>, Refusal> {
    let told = answer["views"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = |why: String| Err((FailureKind::BadOutput, why));
    if told.len() > MAX_VIEWS {
        return refused(format!("the scene writes {} views, which is more than {MAX_VIEWS}", told.len()));
    }
    let texts: Vec<String> = told.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match texts.iter().find(|suffix| !is_view_suffix(suffix)) {
        Some(odd) => {
            refused(format!("the suffix `{odd}` of a view cannot stand behind a frame's number in a file name"))
        }
        None => {
            let one_file = [String::new()];
            let written = if texts.is_empty() { &one_file[..] } else { &texts };
            if declared.are(written) {
                return Ok(texts);
            }
            refused(format!(
                "Blender wrote {} for a frame, and the job was submitted with {}: a script or driver in the scene changes \
                 its views, or an older swarm submitted it; save the scene with the views that it is to render, and \
                 submit it again",
                listed(written),
                listed(declared.suffixes()),
            ))
        }
    }
}

/// What a frame's files are, for people.
fn listed(suffixes: &[String]) -> String {
    match suffixes {
        [one] if one.is_empty() => "one image".into(),
        several => {
            let named = several.iter().map(|suffix| match suffix.as_str() {
                "" => "one without a suffix".to_owned(),
                suffix => format!("`{suffix}`"),
            });
            format!("the views {}", named.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Where the driver has Blender write a view.
pub(super) fn view_in(folder: &Path, suffix: &str, format: ImageFormat) -> PathBuf {
    folder.join(format!("image{suffix}.{}", format.extension()))
}

/// Checks the other views, which are to be as the first is, and says whether one of them shows nothing.
pub(super) fn look_at_others(
    folder: Folder,
    suffixes: Vec<String>,
    format: ImageFormat,
    size: (u32, u32),
) -> Result<(Views, Option<Blank>), Refusal> {
    let mut suffixes = suffixes.into_iter();
    let first = suffixes.next().unwrap_or_default();
    let (mut others, mut blank) = (Vec::new(), None);
    for suffix in suffixes {
        let from = view_in(&folder.0, &suffix, format);
        let (file, shown) = look(&from, &format!("view `{suffix}`"), format, size)?;
        let synced = |file: &File| file.sync_all().and_then(|()| file.metadata());
        let bytes = synced(&file).map_err(|error| {
            (FailureKind::NoOutput, format!("the view `{suffix}` cannot be written to disk: {error}"))
        })?;
        blank = blank.or(shown);
        others.push(View { suffix, from, bytes: bytes.len() });
    }
    Ok((Views { first, others, _folder: folder }, blank))
}
