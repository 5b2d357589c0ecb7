//! What a renderer must have for a scene as it was looked at.

use super::Looked;
use crate::farm::ability::{Abilities, Ability};
use crate::farm::job::RenderSettings;
use crate::node::http::{ApiError, ErrorKind};

impl Looked {
    /// Everything that a renderer without would leave out, or die of, with these settings.
    pub fn needs(&self, settings: &RenderSettings) -> Abilities {
        let engine = settings.engine.as_deref().unwrap_or(&self.info.engine);
        let mut needs = self.survey.wants;
        if !self.info.composites {
            needs.remove(Ability::Denoiser);
        }
        if self.info.needs_denoiser(Some(engine)) {
            needs.insert(Ability::Denoiser.into());
        }
        if engine != "CYCLES" || !self.info.osl {
            needs.remove(Ability::Osl);
        }
        // Eevee by all its names, Workbench, and what newer Blenders render with Eevee instead.
        if engine.starts_with("BLENDER_") {
            needs.insert(Ability::OpenGl.into());
        }
        needs
    }

    /// Samples of each pixel, if Cycles renders it.
    pub fn samples(&self, settings: &RenderSettings) -> Option<u32> {
        let is_cycles = settings.engine.as_deref().unwrap_or(&self.info.engine) == "CYCLES";
        settings.samples.or(self.info.samples).filter(|_| is_cycles)
    }

    /// A refusal that names the library for which a Blender is too old, if it is that.
    pub fn of_library(&self, error: ApiError) -> ApiError {
        match (&self.newest_library, error.kind) {
            (Some(library), ErrorKind::NoSeries) => {
                let text = format!("{}; it is the library {} that needs it", error.message, library.display());
                ApiError::new(error.kind, text)
            }
            _ => error,
        }
    }
}
