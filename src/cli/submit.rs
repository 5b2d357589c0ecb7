//! `swarm submit`, `swarm job collect` and `swarm job debug`: what moves scenes and results.

use super::Failure;
use super::grammar::{SubmitArgs, VideoArgs};
use super::usage;
use crate::node::http::{
    ApiError, CollectRequest, DebugRequest, ErrorKind, MapRequest, RulesRequest, SubmitRequest, VideoChoice,
};
use std::path::{Path, PathBuf};

/// The request of a `swarm submit`. Errors when the file is not there, before anything is started for it.
pub(crate) fn request(args: SubmitArgs, cwd: &Path) -> Result<SubmitRequest, Failure> {
    let file = absolute(&args.file, cwd)?;
    let there = file.try_exists().map_err(|error| {
        ApiError::new(ErrorKind::FileUnreadable, format!("cannot look at {}: {error}", file.display()))
    })?;
    if !there {
        let text = format!("there is no file {}; check the path", file.display());
        return Err(ApiError::new(ErrorKind::FileNotFound, text).into());
    }
    Ok(SubmitRequest {
        file,
        user: login_name(),
        name: args.name,
        frames: args.frames.map(|frames| frames.to_string()),
        engine: args.engine,
        samples: args.samples,
        resolution: args.resolution,
        percent: args.percent,
        fps: args.fps,
        device: args.device,
        series: args.series,
        priority: args.priority,
        output: args.output.map(|output| absolute(&output, cwd)).transpose()?,
        video: video(args.video, cwd)?,
        rules: RulesRequest { paused: args.paused.then_some(true), ..args.rules.request() },
        detach: args.detach,
        allow_missing: args.allow_missing,
        include: args.include.iter().map(|path| absolute(path, cwd)).collect::<Result<_, _>>()?,
        map: args.map.into_iter().map(|(from, to)| map(from, &to, cwd)).collect::<Result<_, _>>()?,
        allow_unbaked: args.allow_unbaked,
        no_reuse: args.no_reuse,
        update: args.update,
    })
}

/// A map to a folder that is there: else nothing would be found and every file be called missing.
fn map(from: String, to: &Path, cwd: &Path) -> Result<MapRequest, Failure> {
    let to = absolute(to, cwd)?;
    if !to.is_dir() {
        return Err(usage(&format!("--map {from}={}: there is no such folder here", to.display())).into());
    }
    Ok(MapRequest { from, to })
}

/// The request of a `swarm job collect`.
pub(crate) fn collect(output: Option<PathBuf>, args: VideoArgs, cwd: &Path) -> Result<CollectRequest, Failure> {
    let output = output.map(|output| absolute(&output, cwd)).transpose()?;
    Ok(CollectRequest { cwd: cwd.to_owned(), output, video: video(args, cwd)? })
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
