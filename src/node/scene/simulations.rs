//! Simulations that are not baked: each of their frames follows from the one before.
//!
//! Rendered in any order, by any machine, such frames come out wrong without a word from Blender. What is looked at is
//! what Blender keeps of a simulation in the file: its point cache, the settings of a fluid's domain, the bakes of a
//! nodes modifier (`zones`). Which fields say "baked" was measured with Blender 3.4 and 4.5. What is baked is told with the
//! frames it has (`bakes`).

use super::SceneError;
use super::bakes::{Bake, Folders, runs};
use super::caches::{BAKED, EXTERNAL, FLUID_BAKED};
use super::dna::{Blend, Record};
use super::refs::{Budget, name_of};
use super::zones::zones;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// `ModifierData.mode`: on for rendering.
const MODE_RENDER: i64 = 1 << 1;
/// What the path of a curve that animates that ends in.
const SWITCH: &[u8] = b".show_render";
/// `FCurve.flag`.
const CURVE_MUTED: i64 = 1 << 4;
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
    /// The last frame of a bake that ends before the simulation does, and is simulated on.
    pub baked_to: Option<i32>,
    /// Whether it comes out right when it is played forward. Of fluids, and of particles behind their bake, what is rendered
    /// between changes what follows.
    pub plays: bool,
}

impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.object, self.cache)
    }
}

impl Simulation {
    /// The last frame that comes out right in any order.
    pub fn safe_to(&self) -> i32 {
        self.baked_to.map_or(self.start, |frame| frame.max(self.start))
    }
}

/// What becomes of a simulation behind the last frame of its bake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// It stays as it is, in any order.
    Stays,
    /// It is simulated on, from frame to frame.
    GoesOn,
    /// It is simulated on, from whatever was rendered before.
    Drifts,
}

/// What was found in a .blend, each with the block of the datablock it belongs to.
#[derive(Debug, Default)]
pub(super) struct Simulated {
    /// What would be simulated while it is rendered.
    pub unbaked: Vec<(usize, Simulation)>,
    /// What is baked.
    pub baked: Vec<(usize, Bake)>,
}

/// All simulations of a .blend. `folders` are those beside it; `scene_start` is where simulation zones begin that have no
/// range of their own.
pub(super) fn simulated(
    blend: &Blend,
    folders: Folders<'_>,
    scene_start: i32,
    budget: &mut Budget,
) -> Result<Simulated, SceneError> {
    let switched = switched(blend, budget)?;
    let mut found = Found { blend, folders, scene_start, budget, switched, simulated: Simulated::default() };
    for (index, block) in blend.blocks().iter().enumerate() {
        let Some(record) = blend.record(index) else { continue };
        match &block.code {
            b"OB\0\0" => found.object(index, &record)?,
            b"SC\0\0" => found.rigid_bodies(index, &record)?,
            _ => {}
        }
    }
    Ok(found.simulated)
}

/// What was found so far.
struct Found<'a> {
    blend: &'a Blend,
    folders: Folders<'a>,
    scene_start: i32,
    budget: &'a mut Budget,
    switched: Switched,
    simulated: Simulated,
}

impl Found<'_> {
    fn push(&mut self, owner: usize, cache: String, start: i32, plays: bool) {
        let object = name_of(self.blend, owner);
        let simulation = Simulation { object, cache, start, baked_to: None, plays };
        self.simulated.unbaked.push((owner, simulation));
    }

    fn push_baked(&mut self, owner: usize, cache: String, start: i32, runs: Vec<(i32, i32)>) {
        let object = name_of(self.blend, owner);
        self.simulated.baked.push((owner, Bake { object, cache, start, runs }));
    }

    /// A point cache, unless it is lacking.
    fn cache(
        &mut self,
        owner: usize,
        what: String,
        cache: Option<Record<'_>>,
        beyond: Beyond,
    ) -> Result<(), SceneError> {
        let Some(cache) = cache else { return Ok(()) };
        let number = |field: &str| cache.int(field).and_then(|number| i32::try_from(number).ok());
        let start = number("startframe").unwrap_or(1);
        if cache.int("flag").unwrap_or(0) & (BAKED | EXTERNAL) == 0 {
            self.push(owner, what, start, true);
            return Ok(());
        }
        let Some(frames) = self.folders.point_cache(self.blend, &cache, self.budget)? else { return Ok(()) };
        let end = number("endframe").unwrap_or(i32::MAX);
        let runs = runs(frames, (start, end), number("step").unwrap_or(1));
        let unbroken = runs.first().map(|(_, last)| *last);
        if beyond == Beyond::Stays || unbroken.is_some_and(|last| last >= end) {
            self.push_baked(owner, what, start, runs);
        } else {
            let (object, baked_to) = (name_of(self.blend, owner), Some(unbroken.unwrap_or(start)));
            let plays = beyond == Beyond::GoesOn;
            self.simulated.unbaked.push((owner, Simulation { object, cache: what, start, baked_to, plays }));
        }
        Ok(())
    }

    fn fluid(&mut self, owner: usize, name: &str, domain: &Record<'_>) -> Result<(), SceneError> {
        let frame = |field: &str| domain.int(field).and_then(|frame| i32::try_from(frame).ok());
        let start = frame("cache_frame_start").unwrap_or(1);
        if domain.int("cache_type") == Some(FLUID_REPLAY) {
            self.push(owner, format!("fluid `{name}`, of cache type Replay"), start, false);
            return Ok(());
        }
        let is_baked = domain.int("cache_flag").unwrap_or(0) & FLUID_BAKED != 0;
        let frames = if is_baked { self.folders.fluid(domain, self.budget)? } else { Vec::new() };
        let end = frame("cache_frame_end").unwrap_or(i32::MAX);
        let runs = runs(frames, (start, end), 1);
        // None of what was baked is there: that is told as missing.
        if !is_baked || !runs.is_empty() {
            self.push_baked(owner, format!("fluid `{name}`"), start.saturating_sub(1), runs);
        }
        Ok(())
    }

    fn object(&mut self, owner: usize, object: &Record<'_>) -> Result<(), SceneError> {
        let mut seen = HashSet::new();
        let mut next = object.follow("modifiers.first");
        while let Some(modifier) = next.filter(|modifier| seen.insert(modifier.block)) {
            self.budget.take(1, 0)?;
            let is_on = modifier.int("modifier.mode").unwrap_or(0) & MODE_RENDER != 0;
            if is_on || self.is_switched(owner, object, &modifier)? {
                self.modifier(owner, object, &modifier)?;
            }
            next = modifier.follow("modifier.next");
        }
        Ok(())
    }

    /// Whether something animates that a modifier is on for rendering.
    fn is_switched(&mut self, owner: usize, object: &Record<'_>, modifier: &Record<'_>) -> Result<bool, SceneError> {
        if self.switched.is_empty() {
            return Ok(false);
        }
        let name = modifier.text("modifier.name").unwrap_or_default();
        self.budget.take(0, name.len())?;
        let path = switch_of(name);
        let is_it = |block: &usize| self.switched.get(block).is_some_and(|paths| paths.contains(&path));
        let Some(animation) = object.follow("adt") else { return Ok(false) };
        let action = |record: &Record<'_>, field: &str| record.pointer(field).and_then(|at| self.blend.find_id(at));
        if is_it(&owner) || action(&animation, "action").as_ref().is_some_and(is_it) {
            return Ok(true);
        }
        for track in animation.list("nla_tracks") {
            self.budget.take(1, 0)?;
            for strip in track.list("strips") {
                self.budget.take(1, 0)?;
                if action(&strip, "act").as_ref().is_some_and(is_it) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn modifier(&mut self, owner: usize, object: &Record<'_>, modifier: &Record<'_>) -> Result<(), SceneError> {
        let name = text(modifier.text("modifier.name"));
        match modifier.struct_name() {
            "ClothModifierData" => {
                self.cache(owner, format!("cloth `{name}`"), modifier.follow("point_cache"), Beyond::Stays)?;
            }
            "SoftbodyModifierData" => {
                let soft = object.follow("soft");
                let cache = soft.and_then(|soft| {
                    soft.follow("shared").and_then(|shared| shared.follow("pointcache")).or(soft.follow("pointcache"))
                });
                self.cache(owner, format!("soft body `{name}`"), cache, Beyond::Stays)?;
            }
            "ParticleSystemModifierData" => {
                if let Some(system) = modifier.follow("psys") {
                    self.particles(owner, &system)?;
                }
            }
            "FluidModifierData" => {
                if let Some(domain) = modifier.follow("domain") {
                    self.fluid(owner, &name, &domain)?;
                }
            }
            "DynamicPaintModifierData" => {
                let surfaces = modifier.follow("canvas").map(|canvas| canvas.list("surfaces"));
                for surface in surfaces.into_iter().flatten() {
                    self.budget.take(1, 0)?;
                    let is_active = surface.int("flags").unwrap_or(0) & SURFACE_ACTIVE != 0;
                    if is_active && surface.int("format") == Some(SURFACE_VERTEX) {
                        let what = format!("dynamic paint `{}`", text(surface.text("name")));
                        self.cache(owner, what, surface.follow("pointcache"), Beyond::Stays)?;
                    }
                }
            }
            "NodesModifierData" => {
                let zones = zones(self.blend, &self.folders, modifier, self.scene_start, self.budget)?;
                let what = format!("simulation zone of `{name}`");
                for (start, frames) in zones.baked {
                    self.push_baked(owner, what.clone(), start, runs(frames, (i32::MIN, i32::MAX), 1));
                }
                if let Some(start) = zones.unbaked {
                    self.push(owner, what, start, true);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn particles(&mut self, owner: usize, system: &Record<'_>) -> Result<(), SceneError> {
        let settings = system.follow("part");
        let kind = |field: &str| settings.and_then(|settings| settings.int(field));
        let (what, beyond) = match kind("type") {
            Some(PARTICLES_HAIR) if system.int("flag").unwrap_or(0) & HAIR_DYNAMICS == 0 => return Ok(()),
            Some(PARTICLES_HAIR) => ("hair dynamics", Beyond::Stays),
            // These follow from the frame alone, and Blender cannot bake them.
            Some(PARTICLES_EMITTER) if matches!(kind("phystype"), Some(PHYSICS_NONE | PHYSICS_KEYED)) => return Ok(()),
            Some(PARTICLES_EMITTER) => ("particles", Beyond::Drifts),
            // Of a fluid's own particles the fluid says whether they are baked.
            _ => return Ok(()),
        };
        let what = format!("{what} `{}`", text(system.text("name")));
        self.cache(owner, what, system.follow("pointcache"), beyond)
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
            let cache = shared.or_else(|| world.follow("pointcache"));
            self.cache(owner, "rigid bodies".into(), cache, Beyond::GoesOn)?;
            break;
        }
        Ok(())
    }
}

/// What animates that a modifier is on for rendering: the curves' paths by the datablock that has them, an action or, for
/// drivers, an object.
type Switched = BTreeMap<usize, BTreeSet<Vec<u8>>>;

fn switched(blend: &Blend, budget: &mut Budget) -> Result<Switched, SceneError> {
    let mut switched = Switched::new();
    for (index, block) in blend.blocks().iter().enumerate() {
        let Some(curve) = blend.record(index).filter(|record| record.struct_name() == "FCurve") else { continue };
        if curve.int("flag").unwrap_or(0) & CURVE_MUTED != 0 {
            continue;
        }
        let path = curve.pointer("rna_path").and_then(|address| blend.find(index, address));
        let path = path.map(|path| blend.block_text(path)).unwrap_or_default();
        budget.take(0, path.len())?;
        if path.starts_with(b"modifiers[") && path.ends_with(SWITCH) {
            budget.take(1, 0)?;
            switched.entry(block.owner).or_default().insert(without_escapes(path));
        }
    }
    Ok(switched)
}

/// The path of what a modifier of this name is on for rendering by, as it is in [`Switched`].
fn switch_of(modifier: &[u8]) -> Vec<u8> {
    without_escapes(&[b"modifiers[\"", modifier, b"\"]", SWITCH].concat())
}

fn without_escapes(path: &[u8]) -> Vec<u8> {
    path.iter().copied().filter(|byte| *byte != b'\\').collect()
}

/// A name, for people.
fn text(name: Option<&[u8]>) -> String {
    String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
}
