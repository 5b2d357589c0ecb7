//! Simulations that are not baked: each of their frames follows from the one before.
//!
//! Rendered in any order, by any machine, such frames come out wrong without a word from Blender. What is looked at is
//! what Blender keeps of a simulation in the file: its point cache, the settings of a fluid's domain, the bakes of a
//! nodes modifier (`zones`). Which fields say "baked" was measured with Blender 3.4 and 4.5.

use super::SceneError;
use super::caches::{BAKED, EXTERNAL};
use super::dna::{Blend, Record};
use super::maps::PathMap;
use super::refs::{Budget, name_of};
use super::zones::unbaked_zones;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

/// `ModifierData.mode`: on for rendering.
const MODE_RENDER: i64 = 1 << 1;
/// `ParticleSettings.type` and `phystype`.
const PARTICLES_EMITTER: i64 = 0;
const PARTICLES_HAIR: i64 = 2;
const PHYSICS_NONE: i64 = 0;
const PHYSICS_KEYED: i64 = 2;
/// `ParticleSystem.flag`.
const HAIR_DYNAMICS: i64 = 1 << 2;
/// `FluidDomainSettings.cache_type`: made as it is played.
const FLUID_REPLAY: i64 = 0;
/// `DynamicPaintSurface.flags` and `format`.
const SURFACE_ACTIVE: i64 = 1 << 0;
const SURFACE_VERTEX: i64 = 1;
/// `RigidBodyOb.type`.
const BODY_ACTIVE: i64 = 0;
/// `RigidBodyWorld.flag`.
const WORLD_MUTED: i64 = 1 << 0;

/// A simulation of which frames depend on the frames before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Simulation {
    /// Name of the object, or of the scene whose rigid bodies they are.
    pub object: String,
    /// What is not baked, for people.
    pub cache: String,
    /// Where it begins: that frame and those before it come out right in any order.
    pub start: i32,
    /// Whether it comes out right when it is played forward. Of fluids what is rendered between changes what follows.
    pub plays: bool,
}

impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.object, self.cache)
    }
}

/// All of a .blend that would be simulated while it is rendered, each with the block of the datablock it belongs to. `at` is
/// its path and where those it stores are here; `scene_start` where simulation zones begin that have no range of their own.
pub(super) fn unbaked(
    blend: &Blend,
    at: (&Path, &[PathMap]),
    scene_start: i32,
    budget: &mut Budget,
) -> Result<Vec<(usize, Simulation)>, SceneError> {
    let mut found = Found { blend, at, scene_start, budget, simulations: Vec::new() };
    for (index, block) in blend.blocks().iter().enumerate() {
        let Some(record) = blend.record(index) else { continue };
        match &block.code {
            b"OB\0\0" => found.object(index, &record)?,
            b"SC\0\0" => found.rigid_bodies(index, &record)?,
            _ => {}
        }
    }
    Ok(found.simulations)
}

/// What was found so far.
struct Found<'a> {
    blend: &'a Blend,
    /// Its path, and where those it stores are here.
    at: (&'a Path, &'a [PathMap]),
    scene_start: i32,
    budget: &'a mut Budget,
    simulations: Vec<(usize, Simulation)>,
}

impl Found<'_> {
    fn push(&mut self, owner: usize, cache: String, start: i32, plays: bool) {
        let object = name_of(self.blend, owner);
        self.simulations.push((owner, Simulation { object, cache, start, plays }));
    }

    /// A point cache, unless it is baked or lacking.
    fn cache(&mut self, owner: usize, what: String, cache: Option<Record<'_>>) {
        let Some(cache) = cache else { return };
        if cache.int("flag").unwrap_or(0) & (BAKED | EXTERNAL) == 0 {
            let start = cache.int("startframe").and_then(|start| i32::try_from(start).ok()).unwrap_or(1);
            self.push(owner, what, start, true);
        }
    }

    fn object(&mut self, owner: usize, object: &Record<'_>) -> Result<(), SceneError> {
        let mut seen = HashSet::new();
        let mut next = object.follow("modifiers.first");
        while let Some(modifier) = next.filter(|modifier| seen.insert(modifier.block)) {
            self.budget.take(1, 0)?;
            if modifier.int("modifier.mode").unwrap_or(0) & MODE_RENDER != 0 {
                self.modifier(owner, object, &modifier)?;
            }
            next = modifier.follow("modifier.next");
        }
        Ok(())
    }

    fn modifier(&mut self, owner: usize, object: &Record<'_>, modifier: &Record<'_>) -> Result<(), SceneError> {
        let name = text(modifier.text("modifier.name"));
        match modifier.struct_name() {
            "ClothModifierData" => self.cache(owner, format!("cloth `{name}`"), modifier.follow("point_cache")),
            "SoftbodyModifierData" => {
                let soft = object.follow("soft");
                let cache = soft.and_then(|soft| {
                    soft.follow("shared").and_then(|shared| shared.follow("pointcache")).or(soft.follow("pointcache"))
                });
                self.cache(owner, format!("soft body `{name}`"), cache);
            }
            "ParticleSystemModifierData" => {
                if let Some(system) = modifier.follow("psys") {
                    self.particles(owner, &system);
                }
            }
            "FluidModifierData" => {
                if let Some(domain) = modifier.follow("domain").filter(|d| d.int("cache_type") == Some(FLUID_REPLAY)) {
                    let start = domain.int("cache_frame_start").and_then(|start| i32::try_from(start).ok());
                    self.push(owner, format!("fluid `{name}`, of cache type Replay"), start.unwrap_or(1), false);
                }
            }
            "DynamicPaintModifierData" => {
                let surfaces = modifier.follow("canvas").map(|canvas| canvas.list("surfaces"));
                for surface in surfaces.into_iter().flatten() {
                    self.budget.take(1, 0)?;
                    let is_active = surface.int("flags").unwrap_or(0) & SURFACE_ACTIVE != 0;
                    if is_active && surface.int("format") == Some(SURFACE_VERTEX) {
                        let what = format!("dynamic paint `{}`", text(surface.text("name")));
                        self.cache(owner, what, surface.follow("pointcache"));
                    }
                }
            }
            "NodesModifierData" => {
                if let Some(start) = unbaked_zones(self.blend, self.at, modifier, self.scene_start, self.budget)? {
                    self.push(owner, format!("simulation zone of `{name}`"), start, true);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn particles(&mut self, owner: usize, system: &Record<'_>) {
        let settings = system.follow("part");
        let kind = |field: &str| settings.and_then(|settings| settings.int(field));
        let what = match kind("type") {
            Some(PARTICLES_HAIR) if system.int("flag").unwrap_or(0) & HAIR_DYNAMICS == 0 => return,
            Some(PARTICLES_HAIR) => "hair dynamics",
            // These follow from the frame alone, and Blender cannot bake them.
            Some(PARTICLES_EMITTER) if matches!(kind("phystype"), Some(PHYSICS_NONE | PHYSICS_KEYED)) => return,
            Some(PARTICLES_EMITTER) => "particles",
            // Of a fluid's own particles the fluid says whether they are baked.
            _ => return,
        };
        let what = format!("{what} `{}`", text(system.text("name")));
        self.cache(owner, what, system.follow("pointcache"));
    }

    fn rigid_bodies(&mut self, owner: usize, scene: &Record<'_>) -> Result<(), SceneError> {
        let Some(world) = scene.follow("rigidbody_world") else { return Ok(()) };
        if world.int("flag").unwrap_or(0) & WORLD_MUTED != 0 {
            return Ok(());
        }
        // What is linked may move.
        let moves = |object: Record<'_>| {
            let body = object.follow("rigidbody_object");
            object.struct_name() != "Object" || body.is_some_and(|body| body.int("type") == Some(BODY_ACTIVE))
        };
        for entry in world.follow("group").into_iter().flat_map(|group| group.list("gobject")) {
            self.budget.take(1, 0)?;
            if !entry.follow("ob").is_some_and(moves) {
                continue;
            }
            let shared = world.follow("shared").and_then(|shared| shared.follow("pointcache"));
            self.cache(owner, "rigid bodies".into(), shared.or_else(|| world.follow("pointcache")));
            break;
        }
        Ok(())
    }
}

/// A name, for people.
fn text(name: Option<&[u8]>) -> String {
    String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
}
