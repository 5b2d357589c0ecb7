//! What a renderer may lack and a scene may need.
//!
//! A Blender that was built without a library opens such a scene all the same and renders it without what the library does,
//! silently. So a scene says what it needs, a renderer what it has, and a job goes to none that lacks something.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Something that not every renderer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// OpenImageDenoise.
    Denoiser,
    /// OpenGL to draw with, which Eevee and Workbench do.
    OpenGl,
    /// Alembic caches.
    Alembic,
    /// USD caches.
    Usd,
    /// Shaders in the Open Shading Language.
    Osl,
    /// OpenVDB volumes.
    OpenVdb,
    /// Rigid bodies, baked ones too.
    Bullet,
    /// Fluids, baked ones too.
    Fluid,
    /// Subdivision surfaces.
    OpenSubdiv,
    /// The ocean modifier.
    Ocean,
    /// Mixing sounds; whoever lacks it says so with the frame that has the sound.
    Audaspace,
}

impl Ability {
    /// All of them, each at the place of its bit.
    pub const ALL: [Self; 11] = [
        Self::Denoiser,
        Self::OpenGl,
        Self::Alembic,
        Self::Usd,
        Self::Osl,
        Self::OpenVdb,
        Self::Bullet,
        Self::Fluid,
        Self::OpenSubdiv,
        Self::Ocean,
        Self::Audaspace,
    ];

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// What a renderer without it is said to be.
    pub fn lacking(self) -> &'static str {
        match self {
            Self::Denoiser => "was built without the denoiser",
            Self::OpenGl => "finds no EGL to draw with, as Eevee and Workbench do",
            Self::Alembic => "was built without Alembic",
            Self::Usd => "was built without USD",
            Self::Osl => "was built without the Open Shading Language",
            Self::OpenVdb => "was built without OpenVDB",
            Self::Bullet => "was built without rigid bodies (Bullet)",
            Self::Fluid => "was built without fluids (Mantaflow)",
            Self::OpenSubdiv => "was built without subdivision surfaces (OpenSubdiv)",
            Self::Ocean => "was built without the ocean modifier",
            Self::Audaspace => "was built without sound (Audaspace)",
        }
    }

    /// What a scene that needs it is said to be like.
    pub fn needing(self) -> &'static str {
        match self {
            Self::Denoiser => "is denoised with OpenImageDenoise",
            Self::OpenGl => "is rendered with Eevee or Workbench",
            Self::Alembic => "has Alembic caches",
            Self::Usd => "has USD caches",
            Self::Osl => "has shaders in the Open Shading Language",
            Self::OpenVdb => "has OpenVDB volumes",
            Self::Bullet => "has rigid bodies",
            Self::Fluid => "has fluids",
            Self::OpenSubdiv => "has subdivision surfaces",
            Self::Ocean => "has an ocean",
            Self::Audaspace => "has sounds",
        }
    }
}

/// A set of abilities, a bit each; those that only a later build knows stay in it, and no renderer of this one has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Abilities(u32);

/// What is needed and not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// This.
    Of(Ability),
    /// Something that this build knows nothing of.
    Unknown,
}

impl Abilities {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Every one that this build knows.
    pub fn all() -> Self {
        Ability::ALL.into_iter().collect()
    }

    /// Whether one is among them.
    pub fn has(self, ability: Ability) -> bool {
        self.0 & ability.bit() != 0
    }

    /// Whether all of the others are among them.
    pub fn cover(self, needs: Self) -> bool {
        needs.0 & !self.0 == 0
    }

    /// Adds those of another set.
    pub fn insert(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Takes one out.
    pub fn remove(&mut self, ability: Ability) {
        self.0 &= !ability.bit();
    }

    /// The first of `needs` that is not among them.
    pub fn lack(self, needs: Self) -> Option<Lack> {
        let lacking = Self(needs.0 & !self.0);
        let known = || lacking.iter().next().map_or(Lack::Unknown, Lack::Of);
        (lacking.0 != 0).then(known)
    }

    /// Those that this build knows.
    pub fn iter(self) -> impl Iterator<Item = Ability> {
        Ability::ALL.into_iter().filter(move |ability| self.has(*ability))
    }
}

impl From<Ability> for Abilities {
    fn from(ability: Ability) -> Self {
        Self(ability.bit())
    }
}

impl FromIterator<Ability> for Abilities {
    fn from_iter<T: IntoIterator<Item = Ability>>(abilities: T) -> Self {
        Self(abilities.into_iter().fold(0, |bits, ability| bits | ability.bit()))
    }
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Denoiser => "denoiser",
            Self::OpenGl => "opengl",
            Self::Alembic => "alembic",
            Self::Usd => "usd",
            Self::Osl => "osl",
            Self::OpenVdb => "openvdb",
            Self::Bullet => "bullet",
            Self::Fluid => "fluid",
            Self::OpenSubdiv => "opensubdiv",
            Self::Ocean => "ocean",
            Self::Audaspace => "audaspace",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ability_has_a_bit_of_its_own_at_its_place() {
        for (place, ability) in Ability::ALL.into_iter().enumerate() {
            assert_eq!(Abilities::from(ability), Abilities(1 << place));
        }
        assert_eq!(Abilities::all().iter().collect::<Vec<_>>(), Ability::ALL);
    }

    #[test]
    fn what_a_later_build_needs_is_lacked_by_everyone_and_has_no_name() {
        let later = Abilities(1 << 31);
        assert!(!Abilities::all().cover(later));
        assert_eq!(Abilities::all().lack(later), Some(Lack::Unknown));
        let mut both = later;
        both.insert(Ability::Usd.into());
        assert_eq!(Abilities::NONE.lack(both), Some(Lack::Of(Ability::Usd)));
        assert_eq!(Abilities::all().lack(Ability::Usd.into()), None);
        assert_eq!(both.iter().collect::<Vec<_>>(), [Ability::Usd]);
    }
}
