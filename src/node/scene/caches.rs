//! Caches on disk of physics and geometry nodes: directories of files whose names Blender makes up itself.
//!
//! | of | directory | files |
//! |---|---|---|
//! | particles, cloth, soft and rigid bodies, dynamic paint, with "disk cache" | `blendcache_NAME` beside NAME.blend; of linked ones beside their library, unless "library path" is off | `HEX_FRAME_INDEX.bphys`, HEX being the owner's name in hexadecimal, or the cache's own name as it is |
//! | the same, "external" | the one stored; of linked ones as seen from the library, unless "library path" is off | the cache's own name, `_FRAME.bphys` or `_FRAME_INDEX.bphys` |
//! | fluids | the one stored | all of `config data guiding mesh noise particles` |
//! | ocean modifier | the one stored | `disp_FRAME.exr`, `foam_`, `normal_`, `spray_`, `spray_inverse_` |
//! | geometry nodes: bakes and simulation zones | a bake's own if it has one, else in the modifier's a folder called as the number of the bake (up to 3.6 none) | all of `meta` and `blobs` (up to 4.0 `bdata`) |
//!
//! A cache is demanded only where the .blend says that it was baked there, or that it comes from elsewhere; else it
//! travels if it is there.

use super::SceneError;
use super::dna::{Blend, Record};
use super::refs::{Field, Folder, Form, Found, Members};
use super::trace::RefKind;

/// `PointCache.flag`.
pub(super) const BAKED: i64 = 1 << 0;
pub(super) const ON_DISK: i64 = 1 << 6;
/// Read from files that were baked elsewhere.
pub(super) const EXTERNAL: i64 = 1 << 9;
pub(super) const NOT_BESIDE_LIBRARY: i64 = 1 << 11;
/// `FluidDomainSettings.cache_flag`: data, noise, mesh, particles or guides are baked.
pub(super) const FLUID_BAKED: i64 = 1 << 1 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 9;
/// `NodesModifierBake.flag`: it has a directory of its own.
pub(super) const OWN_DIRECTORY: i64 = 1 << 1;
/// Where a nodes modifier, and a bake with a directory of its own, store it.
pub(super) const COMMON_DIRECTORY: &[&str] = &["bake_directory", "simulation_bake_directory"];
pub(super) const DIRECTORY: &[&str] = &["directory"];

/// Folders of a fluid's cache. (`script` holds none of what is rendered.)
const FLUID_FOLDERS: [&str; 6] = ["config", "data", "guiding", "mesh", "noise", "particles"];
const FLUID_TAILS: &[&str] = &[".vdb", ".uni", ".raw", ".obj", ".bobj.gz"];
const OCEAN_HEADS: [&str; 5] = ["disp_", "foam_", "normal_", "spray_", "spray_inverse_"];
/// Folders of a bake. `#` stands for any number.
const BAKE_FOLDERS: [&str; 3] = ["meta", "blobs", "bdata"];
const NUMBERED_BAKE_FOLDERS: [&str; 3] = ["#/meta", "#/blobs", "#/bdata"];

/// Notes the caches that the struct `record` holds, if any.
pub(super) fn caches(found: &mut Found<'_>, blend: &Blend, record: &Record<'_>) -> Result<(), SceneError> {
    match record.struct_name() {
        // Up to 2.79 without the part that copies share.
        "SoftBody" | "RigidBodyWorld" if record.points("shared") => Ok(()),
        "SoftBody"
        | "RigidBodyWorld"
        | "ParticleSystem"
        | "RigidBodyWorld_Shared"
        | "DynamicPaintSurface"
        | "SoftBody_Shared" => point_cache(found, blend, record, "pointcache"),
        "ClothModifierData" => point_cache(found, blend, record, "point_cache"),
        "FluidDomainSettings" => {
            let members = FLUID_FOLDERS.map(|folder| Members::any(folder, FLUID_TAILS));
            let needed = record.int("cache_flag").unwrap_or(0) & FLUID_BAKED != 0;
            let folder = Folder { members: members.into(), name: None, needed };
            found.push(RefKind::Bake, record, &["cache_directory"], Form::Folder(folder))
        }
        "OceanModifierData" if record.int("cached").unwrap_or(0) != 0 => {
            let members = OCEAN_HEADS.map(|head| Members::called(head.into(), &[".exr"]));
            let folder = Folder { members: members.into(), name: None, needed: true };
            found.push(RefKind::Bake, record, &["cachepath"], Form::Folder(folder))
        }
        "NodesModifierData" => {
            let folders = BAKE_FOLDERS.into_iter().chain(NUMBERED_BAKE_FOLDERS);
            bake(found, blend, record, COMMON_DIRECTORY, folders)
        }
        "NodesModifierBake" => {
            for bake_of_one in (0..).map_while(|nth| blend.element(record.block, nth)) {
                found.budget.take(1, 0)?;
                let own = bake_of_one.int("flag").unwrap_or(0) & OWN_DIRECTORY != 0;
                if own && !bake_of_one.points("packed") {
                    bake(found, blend, &bake_of_one, DIRECTORY, BAKE_FOLDERS.into_iter())?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn bake(
    found: &mut Found<'_>,
    blend: &Blend,
    record: &Record<'_>,
    directory: &[&str],
    folders: impl Iterator<Item = &'static str>,
) -> Result<(), SceneError> {
    let Some(block) = text_block(blend, record, directory) else { return Ok(()) };
    let members = folders.map(|folder| Members::any(folder, &[])).collect();
    let form = Form::Folder(Folder { members, name: None, needed: false });
    found.push_block(RefKind::Bake, blend, block, form)
}

/// The block of the text that the first of these fields points to: it is a block of its own.
pub(super) fn text_block(blend: &Blend, record: &Record<'_>, fields: &[&str]) -> Option<usize> {
    fields.iter().find_map(|name| blend.find(record.block, record.pointer(name)?))
}

fn point_cache(found: &mut Found<'_>, blend: &Blend, holder: &Record<'_>, pointer: &str) -> Result<(), SceneError> {
    let Some(cache) = holder.follow(pointer) else { return Ok(()) };
    let flag = cache.int("flag").unwrap_or(0);
    let name = cache.text("name").unwrap_or_default();
    let external = flag & EXTERNAL != 0;
    if !external && flag & ON_DISK == 0 {
        return Ok(());
    }
    let mut head = file_head(blend, &cache);
    head.push(b'_');
    let members = vec![Members::called(head, &[".bphys"])];
    let name = cache.span("name").filter(|_| !name.is_empty());
    let form = Form::Folder(Folder { members, name, needed: external || flag & BAKED != 0 });
    let is_of_library = flag & NOT_BESIDE_LIBRARY == 0;
    if external {
        let field = if is_of_library { Field::Fixed } else { Field::FromMain };
        return found.push_as(RefKind::Bake, &cache, &["path"], field, form);
    }
    let field = if is_of_library { Field::BesideItself } else { Field::BesideMain };
    found.add(RefKind::Bake, cache.block, &[], field, form)
}

/// How the names of a point cache's files begin, before the `_`.
pub(super) fn file_head(blend: &Blend, cache: &Record<'_>) -> Vec<u8> {
    let name = cache.text("name").unwrap_or_default();
    if !name.is_empty() || cache.int("flag").unwrap_or(0) & EXTERNAL != 0 {
        return name.to_vec();
    }
    let owner = blend.blocks().get(cache.block).map_or(0, |block| block.owner);
    let owner = blend.record(owner).and_then(|record| record.id_name()).and_then(|name| name.get(2..));
    owner.unwrap_or_default().iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect()
}
