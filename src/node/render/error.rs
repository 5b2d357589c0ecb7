//! Why a unit was not rendered, and Blender's words for a person.

use super::FailureKind;
use super::log::{Log, SANDBOX, cut};
use std::io;
use std::path::PathBuf;

/// A unit that was not rendered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct UnitFailure {
    /// In what way.
    pub kind: FailureKind,
    /// What happened, for a person.
    pub message: String,
    /// What Blender printed, the last 64 KiB.
    pub log: String,
    /// Whether this worker can render other units.
    pub worker_lives: bool,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The process could not be started.
    #[error("Blender at {} cannot be started; see `swarm doctor`", path.display())]
    Spawn {
        /// The executable.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Blender, or the driver in it, refused the scene.
    #[error("Blender {version} cannot render this scene: {message}")]
    Scene {
        /// Its version.
        version: String,
        /// Why, for a person.
        message: String,
        /// What it printed.
        log: String,
    },
    /// It is another version than the one that was found there.
    #[error("the Blender at {} is now {now} and was {was}; restart the daemon, which then offers it as what it is", path.display())]
    Replaced {
        /// The executable.
        path: PathBuf,
        /// Its version.
        now: String,
        /// The version that was found.
        was: String,
        /// What it printed.
        log: String,
    },
    /// A GPU was asked for.
    #[error("{}", with_way_out(message))]
    Device {
        /// What is missing.
        message: String,
        /// What it printed.
        log: String,
    },
    /// The GPU that it was to render on is not there any more.
    #[error("{message}; see `swarm doctor` on that machine")]
    GpuGone {
        /// Which.
        message: String,
        /// What it printed.
        log: String,
    },
    /// It died.
    #[error("Blender {version} {how} while opening the scene")]
    Died {
        /// Its version.
        version: String,
        /// How it ended.
        how: String,
        /// What it printed.
        log: String,
    },
    /// It hung.
    #[error("Blender {version} hung while opening the scene and was stopped")]
    Stalled {
        /// Its version.
        version: String,
        /// What it printed.
        log: String,
    },
}

impl From<RenderError> for UnitFailure {
    fn from(error: RenderError) -> Self {
        let mut message = error.to_string();
        let (kind, log) = match error {
            RenderError::Spawn { source, .. } => {
                message = format!("{message}: {source}");
                (FailureKind::CannotStart, String::new())
            }
            RenderError::Scene { log, .. } | RenderError::Replaced { log, .. } => (FailureKind::CannotStart, log),
            RenderError::Device { log, .. } | RenderError::GpuGone { log, .. } => (FailureKind::WrongDevice, log),
            RenderError::Died { log, .. } => (FailureKind::Crash, log),
            RenderError::Stalled { log, .. } => (FailureKind::Stalled, log),
        };
        Self { kind, message, log, worker_lives: false }
    }
}

/// Blender's words for a person: what it calls an error, without its prefix, and plainly where it is known to be obscure.
/// `brings_colours`: the OCIO configuration is the job's, not the renderer's own.
pub(super) fn explain(error: &str, brings_colours: bool) -> String {
    if error.contains("Build without OpenImageDenoise") {
        return "the scene is denoised with OpenImageDenoise and this Blender was built without it; use a Blender from \
                blender.org or the bpy package, or switch denoising off in the scene"
            .into();
    }
    if let Some(what) = error.strip_prefix(SANDBOX) {
        return format!(
            "its sandbox cannot be made: {}; start swarm again, and see `swarm doctor`",
            cut(what.trim(), 500)
        );
    }
    if error.contains("Cannot render, no camera") {
        return "no camera: the scene has no active camera; choose one in the scene's properties and save the file"
            .into();
    }
    if let Some((_, what)) = error.split_once("OpenColorIO Error: ") {
        let what = cut(what.trim(), 500).trim_end_matches('.');
        return match brings_colours {
            true => format!("the job's OCIO configuration does not work ({what}); mend it where the job was submitted"),
            false => format!(
                "its own OCIO configuration does not work ({what}); mend or remove what replaced its \
                 datafiles/colormanagement on this machine, or install Blender again"
            ),
        };
    }
    let words = error.split_once("color_management | WARNING ").map(|(_, what)| what);
    if let Some(what) = error.trim().strip_prefix("Color management: ").or(words) {
        let what = cut(what.trim_end_matches('.'), 500);
        return format!(
            "its colour management lacks what the scene uses ({what}); use a Blender from blender.org or the bpy package, or submit \
             with OCIO set to the configuration that the scene was made with"
        );
    }
    let lines: Vec<&str> = error.lines().map(|line| line.trim().trim_start_matches("Error: ")).collect();
    cut(lines.join("; ").trim(), 2000).to_string()
}

/// That a GPU is asked for and lacking, and what can be done.
pub(super) fn with_way_out(message: &str) -> String {
    format!("{message}; use --device auto or cpu, or see `swarm doctor`")
}

/// What a machine needs to draw without a display.
pub const INSTALL_EGL: &str = "install libEGL; on Debian and Ubuntu: apt-get install libegl1";

/// What a Blender cannot do where EGL cannot be opened.
pub(super) fn without_opengl(why: &str) -> String {
    format!("cannot render with Eevee or Workbench: EGL, by which it draws without a display, cannot be opened ({why})")
}

/// Why a Blender with these last words cannot draw, if it is that: libepoxy has them and ends the process.
pub(super) fn missing_opengl(last_words: &str) -> Option<&str> {
    last_words.trim().strip_prefix("Couldn't open ").filter(|why| why.starts_with("libEGL"))
}

/// Blender replaces an engine it does not have by its first one, with no more than a line about it.
pub(super) fn missing_engine(log: &Log, scene: &str) -> Option<String> {
    let place = format!("not available for scene '{scene}'");
    let text = log.text();
    let line = text.lines().find(|line| line.contains("Engine '") && line.contains(&place))?;
    let engine = line.split('\'').nth(1)?;
    // Eevee has two names, and the driver gives it the one this Blender knows.
    (!engine.starts_with("BLENDER_EEVEE")).then(|| {
        format!("it has no render engine `{engine}`; install the add-on on every machine, or choose one with --engine")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blender_that_died_for_want_of_egl_is_told_from_others() {
        let words = "Couldn't open libEGL.so.1: libEGL.so.1: cannot open shared object file: No such file or directory";
        assert!(without_opengl(missing_opengl(words).expect("it is that")).contains("cannot open shared object file"));
        assert_eq!(missing_opengl("Couldn't open libGL.so.1"), None);
        assert_eq!(missing_opengl("Fra:1 Couldn't open libEGL.so.1"), None);
    }

    #[test]
    fn a_configuration_that_does_not_work_is_mended_where_it_is_from() {
        let error = "OpenColorIO Error: Error could not read '/c/a.spi1d'.";
        let told = explain(error, true);
        assert!(
            told.contains("could not read '/c/a.spi1d')") && told.contains("where the job was submitted"),
            "{told}"
        );
        let told = explain(error, false);
        assert!(told.contains("could not read '/c/a.spi1d')") && told.contains("on this machine"), "{told}");
    }
}
