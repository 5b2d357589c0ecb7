//! Whether the Blenders of this machine run in a sandbox: looked for with them, and told to whoever asks.
//!
//! That one is missing is a problem of this machine that all are told of, as of any other; that its owner wants none is
//! told here alone.

use super::event::Event;
use super::render::{self, Confinement, Sandbox};
use super::{Node, Options, machine};
use crate::farm::message::Problem;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// What problems of the sandbox are called.
pub(super) const KIND: &str = "sandbox";

/// Looks for Blenders, and for what they can run in; [`Event::Discovered`] follows.
pub(super) fn look_for_blenders(options: &Options, tell: mpsc::Sender<Event>) {
    let options = options.clone();
    tokio::spawn(async move {
        let file = |name: &str| options.data_dir.join(name);
        let confinement =
            async { if options.sandbox { Sandbox::find(&options.data_dir).await } else { Confinement::Off } };
        let cache = file("renderers.json");
        let (found, confinement) = tokio::join!(render::discover(&options.blender, &cache), confinement);
        let found = render::confine(found, confinement, &file("sandboxed.json")).await;
        let _ = tell.send(Event::Discovered(Box::new(found), machine::gpus().await)).await;
    });
}

/// A folder by the path that no link is part of: by it a sandboxed Blender is shown what is in it.
pub(super) fn real(dir: &Path) -> PathBuf {
    // Elsewhere nothing is sandboxed, and Windows has another kind of path for this, which Blender does not take.
    let real = if cfg!(target_os = "linux") { dir.canonicalize().ok() } else { None };
    real.unwrap_or_else(|| dir.to_path_buf())
}

/// How it is.
struct Told {
    /// For programs.
    state: &'static str,
    /// For people.
    message: String,
    /// What to do about it.
    fix: String,
}

/// How it is on a machine that renders, with some Blender in the sandbox or none, and these problems.
fn told(confinement: &Confinement, has_some: bool, problems: &[Problem]) -> Told {
    let as_this_user = "Blender runs as this user, not in a sandbox";
    let plain = |state, message: String| Told { state, message, fix: String::new() };
    let outside: Vec<&Problem> = problems.iter().filter(|problem| problem.kind == KIND).collect();
    if let Some(first) = outside.first() {
        let all: Vec<&str> = outside.iter().map(|problem| problem.message.as_str()).collect();
        let message = format!("{}; join only machines you trust", all.join("; "));
        return Told { state: if has_some { "some" } else { "broken" }, message, fix: first.fix.clone() };
    }
    match confinement {
        Confinement::Off => plain("off", format!("{as_this_user}, as --no-sandbox asks: join only machines you trust")),
        Confinement::On(_) if has_some => {
            plain("on", "Blender runs in a sandbox, without a network and with none of this user's files".into())
        }
        Confinement::On(_) => plain("on", "there is a sandbox for Blender".into()),
        Confinement::Untried => plain("none", "it is not known yet whether there is a sandbox for Blender".into()),
        Confinement::Unavailable | Confinement::Broken(_) => {
            plain("none", format!("{as_this_user}, which swarm has on Linux alone: join only machines you trust"))
        }
    }
}

impl Node {
    /// Says once in the log how it is.
    pub(super) fn log_confinement(&self) {
        let Told { state, message, fix } = self.confinement_told();
        // Inside a command a person waits for a job, and is not to be told of the machine each time.
        match state {
            _ if self.options.embedded => tracing::debug!("{message}"),
            "on" => tracing::info!("{message}"),
            _ if fix.is_empty() => tracing::warn!("{message}"),
            _ => tracing::warn!("{message}; {fix}"),
        }
    }

    fn confinement_told(&self) -> Told {
        if !self.options.render {
            return Told { state: "none", message: "this node does not render".into(), fix: String::new() };
        }
        let has_some = self.slots.renderers.iter().any(|renderer| renderer.sandbox.is_some());
        told(&self.confinement, has_some, &self.capability.problems)
    }

    /// The check of `swarm doctor`. Where there could be a sandbox and is none, all is well but for that: it has a mend.
    pub(super) fn confinement_check(&self) -> Value {
        let Told { message, fix, .. } = self.confinement_told();
        json!({"name": KIND, "ok": true, "message": message, "fix": fix})
    }

    /// What this machine tells of itself and no other machine of it.
    pub(super) fn with_confinement(&self, mut nodes: Value) -> Value {
        let Told { state, message, .. } = self.confinement_told();
        let all = nodes.as_array_mut().into_iter().flatten();
        for own in all.filter(|node| node["self"] == true) {
            own["sandbox"] = json!({"state": state, "message": message});
            for blender in own["blenders"].as_array_mut().into_iter().flatten() {
                let sandboxed = self.slots.renderers.iter().find(|renderer| blender["path"] == renderer.info().path);
                blender["sandboxed"] = sandboxed.is_some_and(|renderer| renderer.sandbox.is_some()).into();
            }
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sandbox_is_a_warning_with_a_mend_unless_its_owner_wants_none_or_the_system_has_none() {
        let problem = |kind: &str| Problem {
            kind: kind.into(),
            message: "Blender is not sandboxed here: bubblewrap is not installed".into(),
            fix: "install it".into(),
        };
        let broken = [problem("gpu-gone"), problem(KIND)];
        let of = |confinement: &Confinement, has_some, problems: &[Problem]| {
            let Told { state, message, fix } = told(confinement, has_some, problems);
            assert_eq!(message.contains("join only machines you trust"), state != "on", "{message}");
            (state, message, fix)
        };
        let (state, message, fix) = of(&Confinement::Untried, false, &broken);
        assert!(message.contains("bubblewrap is not installed"), "{message}");
        assert_eq!((state, fix.as_str()), ("broken", "install it"));
        assert_eq!(of(&Confinement::Untried, true, &broken).0, "some");
        let (state, message, fix) = of(&Confinement::Off, false, &broken[..1]);
        assert!(message.contains("--no-sandbox"), "{message}");
        assert_eq!((state, fix.as_str()), ("off", ""));
        assert_eq!(of(&Confinement::Unavailable, false, &[]).0, "none");
    }
}
