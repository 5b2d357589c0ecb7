//! `swarm submit`, `swarm job collect` and `swarm job debug`: what moves scenes and results.

use super::grammar::{OverrideArgs, SubmitArgs, VideoArgs};
use super::print::{Console, Table, bytes, clock_seconds, count, items, number, plain, plain_lines, text};
use super::{Exit, Failure};
use super::{ocio, usage};
use crate::farm::overrides::Overrides;
use crate::node::http::{
    ApiError, CollectRequest, DebugRequest, ErrorKind, MapRequest, RulesRequest, SubmitRequest, VideoChoice,
};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// The request of a `swarm submit`. Errors when the file is not there, before anything is started for it.
pub(crate) fn request(args: SubmitArgs, cwd: &Path) -> Result<SubmitRequest, Failure> {
    Ok(SubmitRequest {
        file: there(&args.file, cwd)?,
        user: login_name(),
        name: args.name,
        frames: args.frames.map(|frames| frames.to_string()),
        engine: args.engine,
        samples: args.samples,
        resolution: args.resolution,
        percent: args.percent,
        fps: args.fps,
        format: args.format,
        device: args.device,
        series: args.series,
        priority: args.priority,
        output: args.output.map(|output| absolute(&output, cwd)).transpose()?,
        video: video(args.video, cwd)?,
        no_audio: args.no_audio,
        zip: args.zip.zip,
        rules: RulesRequest { paused: args.paused.then_some(true), ..args.rules.request() },
        detach: args.detach,
        check: args.check,
        allow_missing: args.allow_missing,
        include: args.include.iter().map(|path| absolute(path, cwd)).collect::<Result<_, _>>()?,
        ocio: ocio::request(std::env::var_os("OCIO"), cwd)?,
        map: args.map.into_iter().map(|(from, to)| map(from, &to, cwd)).collect::<Result<_, _>>()?,
        allow_unbaked: args.allow_unbaked,
        no_reuse: args.no_reuse,
        keep_existing: args.keep_existing,
        update: args.update,
        scripts: args.overrides.scripts,
        script: args.overrides.script.as_deref().map(|script| there(script, cwd)).transpose()?,
        overrides: overrides(args.overrides)?,
    })
}

/// The absolute path of a file that is there.
fn there(path: &Path, cwd: &Path) -> Result<PathBuf, Failure> {
    let file = absolute(path, cwd)?;
    let there = file.try_exists().map_err(|error| {
        ApiError::new(ErrorKind::FileUnreadable, format!("cannot look at {}: {error}", file.display()))
    })?;
    if !there {
        let text = format!("there is no file {}; check the path", file.display());
        return Err(ApiError::new(ErrorKind::FileNotFound, text).into());
    }
    Ok(file)
}

fn overrides(args: OverrideArgs) -> Result<Overrides, Failure> {
    let OverrideArgs { scene, camera, view_layer, set, .. } = args;
    let overrides = Overrides { scene, camera, view_layers: view_layer, set };
    overrides.check().map_err(|why| usage(&format!("no job can have this: {why}")))?;
    Ok(overrides)
}

/// A map to a folder that is there: else nothing would be found and every file be called missing.
fn map(from: String, to: &Path, cwd: &Path) -> Result<MapRequest, Failure> {
    let to = absolute(to, cwd)?;
    if !to.is_dir() {
        return Err(usage(&format!("--map {from}={}: there is no such folder here", to.display())).into());
    }
    Ok(MapRequest { from, to })
}

/// Shows what a check of a submission found.
pub(crate) fn checked(found: &Value, console: &mut Console<'_>) -> io::Result<Exit> {
    let is_ok = found["ok"] == true;
    let exit = if is_ok { Exit::Done } else { Exit::Bad };
    if console.json {
        let mut found = found.clone();
        if let Some(found) = found.as_object_mut() {
            found.remove("event");
        }
        console.value(&found)?;
        return Ok(exit);
    }
    let problems = items(found, "problems");
    for problem in problems {
        let (message, fix) = (text(problem, "message"), text(problem, "fix"));
        let fix = if fix.is_empty() { String::new() } else { format!("; {fix}") };
        console.line(plain_lines(&format!("{}: {message}{fix}", text(problem, "severity"))))?;
    }
    let machines = items(found, "nodes");
    if !machines.is_empty() {
        let mut table = Table::new(&["MACHINE", "CAN", "WHY"]);
        for machine in machines {
            let can = if machine["can"] == true { "yes" } else { "no" };
            table.sentence([text(machine, "name").into(), can.into()], text(machine, "reason"));
        }
        for line in table.lines() {
            console.line(line)?;
        }
    }
    if let Some(files) = found["files"].as_u64() {
        let (all, new) = (bytes(number(found, "bytes")), bytes(number(found, "new_bytes")));
        console.line(format!("{}, {all} ({new} new)", count(files, "file")))?;
    }
    if let Some(series) = found["series"].as_str() {
        let estimate = &found["estimate"];
        let time = clock_seconds(estimate["seconds"].as_f64());
        let time = match (time.as_str(), text(estimate, "basis")) {
            ("", _) => "nothing was rendered yet that would tell how long it takes".into(),
            (time, "measured") => format!("about {time}, as measured on this scene"),
            (time, _) => format!("about {time}, guessed from other jobs"),
        };
        let whose = if text(found, "series_from") == "setting" { " (the swarm's setting)" } else { "" };
        console.line(plain(&format!("Blender {series}{whose}; {time}")))?;
    }
    let errors = problems.iter().filter(|problem| text(problem, "severity") == "error").count();
    match is_ok {
        true => console.line("it can be submitted")?,
        false => console.line(format!("it cannot be submitted: {}", count(errors as u64, "error")))?,
    }
    Ok(exit)
}

/// The request of a `swarm job collect`.
pub(crate) fn collect(
    output: Option<PathBuf>,
    args: VideoArgs,
    zip: bool,
    cwd: &Path,
) -> Result<CollectRequest, Failure> {
    let output = output.map(|output| absolute(&output, cwd)).transpose()?;
    Ok(CollectRequest { cwd: cwd.to_owned(), output, video: video(args, cwd)?, zip })
}

/// The request of a `swarm job debug`.
pub(crate) fn debug(output: Option<PathBuf>, cwd: &Path) -> Result<DebugRequest, Failure> {
    let output = output.map(|output| absolute(&output, cwd)).transpose()?;
    Ok(DebugRequest { cwd: cwd.to_owned(), output })
}

fn video(args: VideoArgs, cwd: &Path) -> Result<VideoChoice, Failure> {
    Ok(match args {
        VideoArgs { no_video: true, .. } => VideoChoice::None,
        VideoArgs { video: Some(file), .. } => VideoChoice::File(absolute(&file, cwd)?),
        VideoArgs { video: None, .. } => VideoChoice::Default,
    })
}

/// As the user wrote it, made absolute: a trailing slash and a `#` stay. Requests are JSON, so it has to be text.
fn absolute(path: &Path, cwd: &Path) -> Result<PathBuf, Failure> {
    if path.as_os_str().is_empty() {
        return Err(usage("a path is empty").into());
    }
    if path.to_str().is_none() || cwd.to_str().is_none() {
        let text = format!("the path {} is not valid Unicode; rename it", cwd.join(path).display());
        return Err(ApiError::new(ErrorKind::Unsupported, text).into());
    }
    std::path::absolute(cwd.join(path)).map_err(|error| usage(&format!("{}: {error}", path.display())).into())
}

fn login_name() -> String {
    let name = ["USER", "LOGNAME", "USERNAME"].iter().filter_map(|key| std::env::var(key).ok()).find(|n| !n.is_empty());
    name.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn an_output_is_made_absolute_and_otherwise_left_as_written() {
        let absolute = |path: &str| absolute(Path::new(path), Path::new("/cwd")).unwrap();
        assert_eq!(absolute("out/").as_os_str(), "/cwd/out/");
        assert_eq!(absolute("./out/f_####").as_os_str(), "/cwd/out/f_####");
        assert_eq!(absolute("../a").as_os_str(), "/cwd/../a");
        assert_eq!(absolute("/x").as_os_str(), "/x");
    }
}
