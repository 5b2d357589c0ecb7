//! Which of the renderers found run in the sandbox: those that say the same of themselves in it as outside.
//!
//! A script that starts a Blender elsewhere, a snap, a GPU whose driver wants what is not there: what does not work in the
//! sandbox would fail every frame. It renders outside, and that is told. What was found to work is kept in a file, as what
//! renderers answer is; what did not is tried again at each start.

use super::find::{probe, stamp, with_colours};
use super::sandbox::{Cell, Disk, Sandbox, outside};
use super::{Confinement, Discovery, Renderer, RendererKind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file read, bytes (guess).
const KEPT_MAX_BYTES: u64 = 256 * 1024;

/// Has those of `found` run in the sandbox that can; the others become problems. `file` keeps which can.
pub async fn confine(mut found: Discovery, confinement: Confinement, file: &Path) -> Discovery {
    if let Confinement::On(sandbox) = &confinement {
        let old = kept(file);
        let mut new = BTreeMap::new();
        for renderer in &mut found.renderers {
            let stamp = stamp(&renderer.path, renderer.kind, |name| std::env::var_os(name));
            let stamp = stamp.zip(sandbox.stamp()).map(|(own, sandbox)| format!("{own} {sandbox}"));
            let is_known = stamp.is_some() && old.get(&renderer.path) == stamp.as_ref();
            let tried = if is_known { Ok(()) } else { fits(renderer, sandbox, file).await };
            match tried {
                Ok(()) => {
                    renderer.sandbox = Some(sandbox.clone());
                    new.extend(stamp.map(|stamp| (renderer.path.clone(), stamp)));
                }
                Err(why) => {
                    let (version, path) = (renderer.version_text(), renderer.path.display());
                    let message = format!("Blender {version} at {path} is not sandboxed: {why}");
                    found.problems.push(outside(
                        message,
                        "name with --blender the Blender itself if this only starts it, or install one from blender.org",
                    ));
                }
            }
        }
        if new != old
            && let Err(error) = keep(&new, file)
        {
            tracing::warn!(file = %file.display(), %error, "cannot keep which Blenders run in the sandbox; they are tried again next time");
        }
    }
    found.problems.extend(match &confinement {
        Confinement::Broken(problem) => Some(problem.clone()),
        Confinement::Untried | Confinement::On(_) | Confinement::Off | Confinement::Unavailable => None,
    });
    found.confinement = confinement;
    found
}

/// Why a renderer is to render outside.
async fn fits(renderer: &Renderer, sandbox: &Arc<Sandbox>, file: &Path) -> Result<(), String> {
    let work_dir = file.parent().unwrap_or(Path::new("."));
    let cell = Cell::new(sandbox, renderer, &Disk::default(), None, work_dir).map_err(|error| error.to_string())?;
    let inside =
        probe(&renderer.path, renderer.kind, work_dir, Some(&cell)).await.map_err(|problem| problem.message)?;
    let inside = with_colours(inside).await;
    let devices = |renderer: &Renderer| {
        let mut ids: Vec<_> = renderer.devices.iter().map(|one| format!("{} {}", one.backend, one.name)).collect();
        ids.sort();
        ids.join(", ")
    };
    let (there, here) = (devices(&inside), devices(renderer));
    if there != here {
        return Err(format!("in the sandbox it finds {there}, outside {here}"));
    }
    let kind = match renderer.kind {
        RendererKind::Executable => "Blender",
        RendererKind::Python => "bpy",
    };
    let of =
        |renderer: &Renderer| (renderer.version, renderer.build_text(), renderer.denoiser, renderer.options.clone());
    if of(&inside) != of(renderer) {
        return Err(format!("in the sandbox another {kind} is started, {}", inside.version_text()));
    }
    Ok(())
}

fn kept(file: &Path) -> BTreeMap<PathBuf, String> {
    let is_small = file.metadata().is_ok_and(|meta| meta.len() <= KEPT_MAX_BYTES);
    let bytes = if is_small { std::fs::read(file).unwrap_or_default() } else { Vec::new() };
    // One that is torn or of another version is an empty one.
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn keep(what: &BTreeMap<PathBuf, String>, file: &Path) -> std::io::Result<()> {
    let part = file.with_extension(format!("part-{}", std::process::id()));
    std::fs::write(&part, serde_json::to_vec_pretty(what)?)?;
    std::fs::rename(&part, file)
}
