//! Python that a submission brings: what of it would not run, and that nobody here would run it.

use super::{MOST_NAMED, Problem};
use crate::node::http::{ApiError, ErrorKind};
use crate::node::prospect::Nobody;
use crate::node::scene::{self, Unrun};
use crate::node::submit::scene_error;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind as IoKind, Read};
use std::path::Path;

/// Longest script, bytes (guess: a hundred times the longest that people write).
const SCRIPT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What would need Python, by datablock. Where scripts of files are run only what add-ons define is left.
pub(super) fn not_run(unrun: &[Unrun], scripts: bool, subject: &str) -> Vec<Problem> {
    let mut by_datablock: BTreeMap<(&'static str, &str), Vec<&str>> = BTreeMap::new();
    for one in unrun.iter().filter(|one| !scripts || matches!(one, Unrun::Node { .. })) {
        let (kind, datablock, what) = match one {
            Unrun::Script { text } => ("script", text, text),
            Unrun::Driver { datablock, expression } => ("driver", datablock, expression),
            Unrun::Node { datablock, kind } => ("addon", datablock, kind),
        };
        by_datablock.entry((kind, datablock)).or_default().push(what);
    }
    let count = by_datablock.len();
    let problem = |((kind, datablock), those): ((&'static str, &str), Vec<&str>)| {
        let more = if those.len() > 1 { format!(" and {} more", those.len() - 1) } else { String::new() };
        let (text, fix) = match kind {
            "script" => (
                format!(
                    "the script `{datablock}` is set to run when the file is opened, and scripts in files are not run"
                ),
                "submit with --scripts, or save the scene as the script leaves it",
            ),
            "driver" => (
                format!("a driver of `{datablock}` needs Python, which is not run in files: `{}`{more}", those[0]),
                "submit with --scripts, write it without Python, or bake it to keyframes",
            ),
            _ => (
                format!(
                    "`{datablock}` has nodes of an add-on, which a Blender without it leaves out: `{}`{more}",
                    those[0]
                ),
                "replace them, or see that every machine has the add-on",
            ),
        };
        Problem::warning(kind, subject, text, fix).of(datablock)
    };
    let mut problems: Vec<Problem> = by_datablock.into_iter().take(MOST_NAMED).map(problem).collect();
    if count > MOST_NAMED {
        let text = format!("{} more datablocks need Python that is not run", count - MOST_NAMED);
        problems.push(Problem::warning("driver", subject, text, ""));
    }
    problems
}

/// The place beside the scene of a script that is to be run in it.
///
/// # Errors
/// It cannot be read, or is no text that Python takes.
pub(super) fn script(path: &Path, scene: &Path) -> Result<String, ApiError> {
    let shown = path.display();
    let wrong = |kind, what: String| Err(ApiError::new(kind, what));
    let mut text = String::new();
    let read = File::open(path).and_then(|file| match file.metadata()?.is_file() {
        true => file.take(SCRIPT_MAX_BYTES + 1).read_to_string(&mut text),
        false => Err(IoKind::IsADirectory.into()),
    });
    match read.map_err(|error| (error.kind(), error)) {
        Ok(_) if text.len() as u64 > SCRIPT_MAX_BYTES => {
            let what =
                format!("the script {shown} has more than {SCRIPT_MAX_BYTES} bytes; have it read its data from a file");
            wrong(ErrorKind::Unsupported, what)
        }
        Ok(_) => scene::place_beside(scene, path).map_err(scene_error),
        Err((IoKind::NotFound, _)) => {
            wrong(ErrorKind::FileNotFound, format!("there is no script {shown}; check the path"))
        }
        Err((IoKind::IsADirectory, _)) => {
            wrong(ErrorKind::BadRequest, format!("the script {shown} is not a file; name a file with Python in it"))
        }
        Err((IoKind::InvalidData, _)) => {
            wrong(ErrorKind::Unsupported, format!("the script {shown} is not text in UTF-8; save it as that"))
        }
        Err((_, error)) => wrong(ErrorKind::FileUnreadable, format!("the script {shown} cannot be read: {error}")),
    }
}

/// That no machine here can render the job. One that lacks nothing but trust is the owner's to change, and the job is refused
/// until then; else a machine may yet come.
pub(super) fn nobody(nobody: &Nobody, job: &str) -> Problem {
    let reasons = &nobody.reasons;
    if nobody.for_trust {
        let message = format!("no machine that is here runs the scripts of this job: {reasons}");
        return Problem::error(ErrorKind::Untrusted, job, message, "");
    }
    let message = format!("no machine that is here can render this job, so it waits for one: {reasons}");
    Problem::warning("rules", job, message, "")
}
