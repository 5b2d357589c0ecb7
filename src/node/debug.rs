//! `swarm job debug`: a frame's scene as the farm renders it, in a folder, and the command that renders it by hand.
//!
//! Nothing of the farm's is handed out itself: the files are copies, so that whoever looks for what is wrong may change them.

use super::calls::has_frame;
use super::http::{ApiError, ErrorKind, Reply};
use super::render::{DeviceInfo, Disk, Renderer, WorkerScene, by_hand, choose_renderer};
use super::slots::read_blob;
use super::store::Store;
use super::{Node, cause, gpus, output, scene, submit, view};
use crate::farm::id::Unit;
use crate::farm::job::JobSpec;
use crate::wire;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Node {
    /// Lays a frame's scene out in `output`, or in a folder below `cwd`, and answers with the command.
    pub(super) fn debug(&self, job: &str, frame: i32, cwd: &Path, output: Option<PathBuf>, reply: Reply) {
        let Reply::Once(reply) = reply else { return };
        let frame = match self.debugged(job, frame) {
            Ok(frame) => frame,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let dir = output.unwrap_or_else(|| {
            cwd.join(format!("{}-frame-{}-debug", output::file_safe(&frame.spec.name), frame.number))
        });
        let store = self.store.clone();
        tokio::spawn(async move {
            let answer = submit::blocking(move || frame.lay_out(&store, &dir)).await.and_then(|answer| answer);
            let _ = reply.send(answer);
        });
    }

    fn debugged(&self, job: &str, frame: i32) -> Result<Frame, ApiError> {
        let id = view::find(&self.farm, job)?;
        let gone = || ApiError::new(ErrorKind::JobNotFound, format!("job {} is not known here yet", id.short()));
        let state = self.farm.jobs().get(&id).ok_or_else(gone)?;
        has_frame(state, frame)?;
        let unit = state.unit(Unit::whole(frame));
        let spec = state.spec_of(unit.revision()).ok_or_else(gone)?.clone();
        let named = |nodes: Vec<String>| match nodes.as_slice() {
            [] => "no machine that is here has it".to_owned(),
            nodes => format!("run this on {}", nodes.join(" or ")),
        };
        let now = self.clock.now();
        if !self.store.has(spec.bundle) {
            let holders = state.holders(spec.bundle).into_iter().filter(|node| self.farm.roster().is_alive(*node, now));
            let there = named(holders.map(|node| view::node_name(&self.farm, node)).collect());
            let text = format!("the scene of job {} is not on this machine; {there}", id.short());
            return Err(ApiError::new(ErrorKind::JobState, text));
        }
        let renderers = &self.slots.renderers;
        let renderer =
            choose_renderer(renderers, spec.series, spec.min_version, spec.needs, spec.settings.device).cloned();
        let Some(renderer) = renderer else {
            let by =
                unit.current_results().map(|(actor, _)| actor.node).chain(unit.current_failures().map(|(by, _)| by));
            let there = named(by.take(1).map(|node| view::node_name(&self.farm, node)).collect());
            let text = format!("this machine has no Blender {} that could render it; {there}", spec.series);
            return Err(ApiError::new(ErrorKind::NoSeries, text));
        };
        let farms = unit.current_results().next().map(|(by, outcome)| {
            if outcome.is_kept {
                return "it was kept as it lay in the output folder".to_owned();
            }
            format!(
                "{} rendered it with Blender {} on {}",
                view::node_name(&self.farm, by.node),
                outcome.build,
                outcome.device
            )
        });
        let gpus = gpus::of_renderer(&renderer, self.slots.gpus.first(), spec.settings.device);
        Ok(Frame { number: frame, spec, renderer, threads: self.options.threads, gpus, farms })
    }
}

/// A frame to be laid out, and what renders it here.
struct Frame {
    number: i32,
    spec: Arc<JobSpec>,
    renderer: Renderer,
    /// As a slot has them.
    gpus: Option<Vec<DeviceInfo>>,
    threads: Option<u32>,
    /// How the farm did it, if it did.
    farms: Option<String>,
}

impl Frame {
    fn lay_out(&self, store: &Store, dir: &Path) -> Result<Value, ApiError> {
        let cannot = |error: io::Error| {
            let kind = if cause::is_full(&error) { ErrorKind::NoSpace } else { ErrorKind::OutputUnwritable };
            let why = cause::plain_cause(&error);
            ApiError::new(kind, format!("the scene cannot be laid out in {}: {why}; see --output", dir.display()))
        };
        let is_taken = dir.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if is_taken {
            let text = format!("{} is there and not empty; choose another with --output", dir.display());
            return Err(ApiError::new(ErrorKind::OutputUnwritable, text));
        }
        let (command, blend, image) = self.write(store, dir).map_err(cannot)?;
        let command: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let line = command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        Ok(json!({
            "directory": dir,
            "blend": blend,
            "image": image,
            "command": command,
            "command_line": line,
            "blender": self.renderer.version_text(),
            "farm": self.farms,
            "scripts": !self.spec.settings.scripts.is_none(),
            "sandboxed": self.renderer.sandbox.is_some(),
        }))
    }

    fn write(&self, store: &Store, dir: &Path) -> io::Result<(Vec<std::ffi::OsString>, PathBuf, PathBuf)> {
        let spec = &self.spec;
        let bytes = read_blob(store, spec.bundle, wire::MANIFEST_MAX_BYTES as u64)?;
        let manifest =
            wire::decode_manifest(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let blend = scene::lay_out(&manifest, dir, &mut |file, path| store.deliver(file.map.id(), path))?;
        let image = dir.join(spec.output.file_name(self.number, spec.format));
        let scene = WorkerScene {
            blend: Some(blend.clone()),
            settings: spec.settings.clone(),
            format: spec.format,
            size: spec.size,
            views: spec.views.clone(),
            threads: self.threads,
            ocio: scene::ocio_of(&manifest, dir)?,
            gpus: self.gpus.clone(),
            disk: Disk::default(),
        };
        let command = by_hand(&self.renderer, &scene, self.number, &image, dir)?;
        Ok((command, blend, image))
    }
}

/// A word as the system's usual shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:\\=+,@%".contains(c);
    match () {
        () if !word.is_empty() && word.chars().all(|c| is_plain(c) && (cfg!(windows) || c != '\\')) => word.to_owned(),
        () if cfg!(windows) => format!("\"{word}\""),
        () => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_word_with_anything_odd_in_it_is_one_word_to_the_shell() {
        for word in ["/usr/bin/blender", "--threads", "/a b/it's $HOME.blend", "", "a\\b", "{7}*?"] {
            let said = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word))).output();
            assert_eq!(said.map(|said| said.stdout).unwrap_or_default(), word.as_bytes());
        }
        assert_eq!(quoted("/usr/bin/blender"), "/usr/bin/blender");
    }
}
