//! What about a scene keeps it from being rendered, or would surprise who sees the frames: one list of problems.
//!
//! All of them are looked for before anything is refused, so that a person mends everything at once.

use super::answer::Stream;
use super::http::{ApiError, ErrorKind, SubmitRequest};
use super::scene::{self, Missing, PathMap, SceneError, SceneInfo, Survey, Trace, TraceOptions};
use super::submit::{blocking, scene_error};
use crate::farm::job::FrameSet;
use crate::farm::rules::Chunk;
use std::collections::BTreeSet;

/// Missing files, simulations and the like named in one error; the rest are counted.
const MOST_NAMED: usize = 20;

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The submission is refused for it.
    Error(ErrorKind),
    /// It is told.
    Warning(&'static str),
}

/// What a person must mend, or should know, before a scene is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters, and what kind of thing it is.
    pub severity: Severity,
    /// The file or the setting it is about.
    pub subject: String,
    /// What is the matter.
    pub message: String,
    /// What to do about it; may be empty.
    pub fix: String,
    /// The `--map` that would mend it, if it is a path of another machine.
    map: Option<String>,
}

impl Problem {
    pub(super) fn error(kind: ErrorKind, subject: impl Into<String>, message: impl Into<String>, fix: &str) -> Self {
        let (subject, message, fix) = (subject.into(), message.into(), fix.to_owned());
        Self { severity: Severity::Error(kind), subject, message, fix, map: None }
    }

    pub(super) fn warning(
        kind: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: &str,
    ) -> Self {
        let (subject, message, fix) = (subject.into(), message.into(), fix.to_owned());
        Self { severity: Severity::Warning(kind), subject, message, fix, map: None }
    }

    /// In one sentence.
    pub fn sentence(&self) -> String {
        if self.fix.is_empty() { self.message.clone() } else { format!("{}; {}", self.message, self.fix) }
    }
}

/// The refusal of a submission with these problems, if one of them is an error.
pub(super) fn refusal(problems: &[Problem]) -> Option<ApiError> {
    let errors = || {
        problems.iter().filter_map(|problem| match problem.severity {
            Severity::Error(kind) => Some((kind, problem)),
            Severity::Warning(_) => None,
        })
    };
    let first = errors().next()?.0;
    let mut kinds: Vec<ErrorKind> = Vec::new();
    errors().for_each(|(kind, _)| {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    });
    let texts = kinds.into_iter().map(|kind| {
        let those: Vec<&Problem> = errors().filter(|(of, _)| *of == kind).map(|(_, problem)| problem).collect();
        let count = those.len();
        let (plural, is, it) = if count == 1 { ("", "is", "it") } else { ("s", "are", "them") };
        let head = match kind {
            ErrorKind::MissingFiles => format!(
                "{count} file{plural} the scene needs {is} missing; put {it} there, or submit with --allow-missing:"
            ),
            ErrorKind::NotBaked => format!(
                "{count} simulation{plural} {is} not baked, and frames rendered in any order would come out wrong; bake \
                 {it} in Blender and save, have one machine render all in order with --chunk all, or submit with \
                 --allow-unbaked:"
            ),
            _ => return those.iter().map(|problem| problem.sentence()).collect::<Vec<_>>().join("\n"),
        };
        let mut lines = vec![head];
        lines.extend(those.iter().take(MOST_NAMED).map(|problem| format!("  {}", problem.message)));
        lines.extend((count > MOST_NAMED).then(|| format!("  and {} more", count - MOST_NAMED)));
        let maps: BTreeSet<&str> = those.iter().filter_map(|problem| problem.map.as_deref()).collect();
        if !maps.is_empty() {
            let maps: Vec<String> = maps.iter().map(|map| format!("--map '{map}'")).collect();
            lines.push(format!("paths of another machine; say where they are on this one: {}", maps.join(" ")));
        }
        lines.join("\n")
    });
    Some(ApiError::new(first, texts.collect::<Vec<_>>().join("\n")))
}

/// Tells the warnings; the refusal if there is an error.
pub(super) async fn settle(problems: &[Problem], stream: &Stream) -> Result<(), ApiError> {
    if let Some(error) = refusal(problems) {
        return Err(error);
    }
    for problem in problems {
        if let Severity::Warning(kind) = problem.severity {
            stream.warning(kind, &problem.subject, &problem.sentence()).await;
        }
    }
    Ok(())
}

/// A scene that was looked through.
pub(super) struct Looked {
    pub info: SceneInfo,
    pub trace: Trace,
    survey: Survey,
    /// What was found so far.
    pub problems: Vec<Problem>,
}

/// Reads a scene, what it needs, and what in it would not come out as its maker saw it.
///
/// # Errors
/// It cannot be read at all.
pub(super) async fn look(request: &SubmitRequest, stream: &Stream) -> Result<Looked, ApiError> {
    stream.progress("trace", 0, 1, "files").await;
    let file = request.file.clone();
    let maps = request.map.iter().map(|map| PathMap { from: map.from.clone(), to: map.to.clone() }).collect();
    let options = TraceOptions { maps, include: request.include.clone() };
    let (info, trace, survey, maps) = blocking(move || {
        let info = scene::read(&file)?;
        let trace = scene::trace(&file, options)?;
        let survey = scene::survey(&file, &trace)?;
        let maps: Vec<Option<String>> = trace.missing.iter().take(MOST_NAMED).map(Missing::map).collect();
        Ok::<_, SceneError>((info, trace, survey, maps))
    })
    .await?
    .map_err(scene_error)?;
    let found = (trace.files.len() + 1) as u64;
    stream.progress("trace", found, found, "files").await;
    let subject = request.file.to_string_lossy().into_owned();
    let mut problems = Vec::new();
    if !info.has_view() {
        let message = format!("the scene `{}` in {subject} has no active camera", info.scene);
        let fix = "choose or add one in Blender and save the file";
        problems.push(Problem::error(ErrorKind::NoCamera, &subject, message, fix));
    }
    let maps = maps.into_iter().chain(std::iter::repeat(None));
    for (missing, map) in trace.missing.iter().zip(maps) {
        let message = missing.to_string();
        let problem = match request.allow_missing {
            true => Problem::warning("missing", &missing.stored, message, ""),
            false => {
                let fix = match &map {
                    None => "put it there, or submit with --allow-missing".to_owned(),
                    Some(map) => {
                        format!("say where it is on this machine with --map '{map}', or submit with --allow-missing")
                    }
                };
                Problem { map, ..Problem::error(ErrorKind::MissingFiles, &missing.stored, message, &fix) }
            }
        };
        problems.push(problem);
    }
    for file in trace.other_case.iter().take(MOST_NAMED) {
        let place = file.resolved.display();
        let text =
            format!("{} `{}`: {} is {place} on this disk; the case differs", file.kind, file.datablock, file.stored);
        problems.push(Problem::warning("case", &file.stored, text, ""));
    }
    if let Some(more @ 1..) = trace.other_case.len().checked_sub(MOST_NAMED) {
        problems.push(Problem::warning("case", "", format!("{more} more files differ in case"), ""));
    }
    Ok(Looked { info, trace, survey, problems })
}

impl Looked {
    /// From which frame on every one is to be evaluated, for simulations that are not baked; those that are not are a problem.
    pub fn simulate_from(&mut self, request: &SubmitRequest, frames: &FrameSet, chunk: Chunk) -> Option<i32> {
        // Up to its start a simulation is the same in any order.
        let unbaked = self.survey.simulations.iter().filter(|simulation| simulation.start < frames.last());
        let (played, refused): (Vec<_>, Vec<_>) =
            unbaked.partition(|simulation| chunk == Chunk::All && simulation.plays);
        for simulation in refused {
            let subject = request.file.to_string_lossy();
            let problem = match request.allow_unbaked {
                true => {
                    let text =
                        format!("{simulation} is not baked, so its frames depend on what is rendered before them");
                    Problem::warning("not_baked", subject, text, "")
                }
                false => {
                    let (text, fix) = match simulation.plays {
                        true => {
                            (simulation.to_string(), "bake it and save, or submit with --chunk all or --allow-unbaked")
                        }
                        false => (
                            format!("{simulation} (--chunk all does not help it)"),
                            "choose another cache type, bake it and save, or submit with --allow-unbaked",
                        ),
                    };
                    Problem::error(ErrorKind::NotBaked, subject, text, fix)
                }
            };
            self.problems.push(problem);
        }
        played.iter().map(|simulation| simulation.start).min()
    }
}

#[cfg(test)]
mod tests;
