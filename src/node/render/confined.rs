//! Which of the renderers found run in the sandbox: those that say the same of themselves in it as outside.
//!
//! A script that starts a Blender elsewhere, a snap, a GPU whose driver wants what is not there: what does not work in the
//! sandbox would fail every frame. It renders outside, and that is told. What was found to work is kept in a file, as what
//! renderers answer is; what did not is tried again at each start.

use super::find::{PROBES_AT_ONCE, probe, stamp, with_colours};
use super::sandbox::{Cell, Disk, Sandbox, outside};
use super::{Confinement, Discovery, Renderer, RendererKind};
use futures::StreamExt;
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
        let stamped = found.renderers.into_iter().map(|renderer| {
            let stamp = stamp(&renderer.path, renderer.kind, |name| std::env::var_os(name));
            let stamp = stamp.zip(sandbox.stamp()).map(|(own, sandbox)| format!("{own} {sandbox}"));
            let is_known = stamp.is_some() && old.get(&renderer.path) == stamp.as_ref();
            (renderer, stamp, is_known)
        });
        let tried = several_at_once(stamped.collect(), |(renderer, stamp, is_known)| {
            // Its own: what is borrowed here may not be sent to another thread.
            let (sandbox, file) = (sandbox.clone(), file.to_path_buf());
            async move {
                let tried = if is_known { Ok(()) } else { fits(&renderer, &sandbox, &file).await };
                (renderer, stamp, tried)
            }
        });
        found.renderers = Vec::new();
        for (mut renderer, stamp, tried) in tried.await {
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
            found.renderers.push(renderer);
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

/// What comes of each, in their order: a few are asked at once, as many as are looked for at once.
async fn several_at_once<T, F: Future>(all: Vec<T>, ask: impl FnMut(T) -> F) -> Vec<F::Output> {
    futures::stream::iter(all).map(ask).buffered(PROBES_AT_ONCE).collect().await
}

/// Why a renderer is to render outside.
async fn fits(renderer: &Renderer, sandbox: &Arc<Sandbox>, file: &Path) -> Result<(), String> {
    let work_dir = file.parent().unwrap_or(Path::new("."));
    let cell = Cell::new(sandbox, renderer, &Disk::default(), None, work_dir).map_err(|error| error.to_string())?;
    let inside =
        probe(&renderer.path, renderer.kind, work_dir, Some(&cell)).await.map_err(|problem| problem.message)?;
    let inside = with_colours(inside.renderer).await;
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
    let of = |renderer: &Renderer| (renderer.version, renderer.build_text(), renderer.abilities);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::sync::Barrier;

    #[tokio::test]
    async fn a_few_are_asked_at_once_and_no_more_and_what_comes_of_them_keeps_its_order() {
        let (meet, now, most) =
            (Arc::new(Barrier::new(PROBES_AT_ONCE)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all: Vec<usize> = (0..2 * PROBES_AT_ONCE).collect();
        let asked = several_at_once(all.clone(), |nth| {
            let (meet, now, most) = (meet.clone(), now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Asked in turn, the first waits for ever.
                meet.wait().await;
                now.fetch_sub(1, Ordering::SeqCst);
                nth
            }
        });
        let asked = tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
        assert_eq!((asked, most.load(Ordering::SeqCst)), (all, PROBES_AT_ONCE));
    }
}
