//! What of a scene a Blender renders only if it was built with a certain library, and otherwise leaves out in silence.

use super::dna::{Blend, Record};
use crate::farm::ability::Ability;

/// `RigidBodyOb.type`.
const BODY_ACTIVE: i64 = 0;
/// `bNode.flag`: it does nothing.
const NODE_MUTED: i64 = 1 << 9;

/// The blocks of datablocks that want something, and what. OpenImageDenoise is what nodes of the compositor want; whether
/// Cycles does is a setting of the scene.
pub(super) fn wanted(blend: &Blend) -> impl Iterator<Item = (usize, Ability)> + '_ {
    blend.blocks().iter().enumerate().filter_map(|(index, block)| Some((block.owner, of(&blend.record(index)?)?)))
}

fn of(record: &Record<'_>) -> Option<Ability> {
    match record.struct_name() {
        "CacheFile" => of_cache(record.text("filepath").or_else(|| record.text("name"))?),
        "FluidDomainSettings" => Some(Ability::Fluid),
        "MultiresModifierData" | "SubsurfModifierData" => Some(Ability::OpenSubdiv),
        "NodeShaderScript" => Some(Ability::Osl),
        "OceanModifierData" => Some(Ability::Ocean),
        "RigidBodyOb" => (record.int("type") == Some(BODY_ACTIVE)).then_some(Ability::Bullet),
        "Volume" => Some(Ability::OpenVdb),
        "bNode" => {
            let is_on = record.int("flag").unwrap_or(0) & NODE_MUTED == 0;
            (is_on && record.text("idname") == Some(b"CompositorNodeDenoise")).then_some(Ability::Denoiser)
        }
        _ => None,
    }
}

/// Blender tells caches apart by how their names end.
fn of_cache(path: &[u8]) -> Option<Ability> {
    let dot = path.iter().rposition(|byte| *byte == b'.')?;
    match path[dot + 1..].to_ascii_lowercase().as_slice() {
        b"abc" => Some(Ability::Alembic),
        b"usd" | b"usda" | b"usdc" | b"usdz" => Some(Ability::Usd),
        _ => None,
    }
}
