//! What of a scene takes part in rendering it, and what about that a person should know before it is rendered.
//!
//! Tracing counts all of the scene's own file, since sending too much does no harm. Here a false alarm does: so it begins
//! at the scene that is rendered and the camera a job chooses, and what is hidden from rendering counts only where
//! something else than a list of objects needs it.

use super::SceneError;
use super::bakes::{Bake, Folders};
use super::disk::absolute;
use super::dna::{Blend, Record};
use super::imports;
use super::packed;
use super::reach::{Graph, used_from};
use super::read::{chosen_scene, least_version};
use super::refs::{Budget, name_of};
use super::simulations::{Simulation, simulated};
use super::trace::{RefKind, Trace};
use super::unrun::{Unrun, unrun};
use super::wants::wanted;
use crate::farm::ability::{Abilities, Ability};
use crate::farm::overrides::Overrides;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// `Object.restrictflag`, later `visibility_flag`: hidden from rendering.
const HIDE_RENDER: i64 = 1 << 2;
/// `Base.flag`: neither it nor its collection is hidden from rendering.
const BASE_RENDERS: i64 = 1 << 7;
/// `Scene.flag`.
const CUSTOM_SIMULATION_RANGE: i64 = 1 << 6;
/// `Object.type`.
const CAMERA: i64 = 11;
/// `bNode.flag`: it does nothing.
const NODE_MUTED: i64 = 1 << 9;
/// `bNode.idname`.
const FILE_OUTPUT: &[u8] = b"CompositorNodeOutputFile";
/// The first version with collections, and objects in scenes by way of view layers.
const WITH_COLLECTIONS: u32 = 280;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Simulations that are not baked, by name.
    pub simulations: Vec<Simulation>,
    /// What is baked of them, by name.
    pub bakes: Vec<Bake>,
    /// Python that is not run, in order.
    pub unrun: Vec<Unrun>,
    /// Names of the cameras there are, those of the libraries last.
    pub cameras: Vec<String>,
    /// Whether the compositor writes files of its own.
    pub file_outputs: bool,
    /// What is lost on a Blender that was built without.
    pub wants: Abilities,
    /// The library that only the newest Blenders may open, and the least `version * 100 + subversion` that may.
    pub newest_library: Option<(u32, PathBuf)>,
    /// Nodes that import a file of which the name is known only when they run, in order.
    pub computed: Vec<Computed>,
}

/// A node that imports a file nobody knows beforehand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Computed {
    /// Name of the node group.
    pub datablock: String,
    /// Name of the node.
    pub node: String,
}

/// Looks through the .blend at `main` and its libraries, as `trace` found them, for what `overrides` choose to render.
///
/// Errors when one of them cannot be read any more.
pub fn survey(main: &Path, trace: &Trace, overrides: &Overrides) -> Result<Survey, SceneError> {
    let main = absolute(main)?;
    let mut budget = Budget::of(&main);
    let mut graphs = BTreeMap::new();
    let mut simulations: Vec<(PathBuf, usize, Simulation)> = Vec::new();
    let mut bakes: Vec<(PathBuf, usize, Bake)> = Vec::new();
    let mut unruns: Vec<(PathBuf, usize, Unrun)> = Vec::new();
    let mut file_outputs: Vec<(PathBuf, usize)> = Vec::new();
    let mut wants: BTreeSet<(PathBuf, usize, Ability)> = BTreeSet::new();
    let mut newest_library: Option<(u32, PathBuf)> = None;
    let mut computed: Vec<(PathBuf, usize, Computed)> = Vec::new();
    let (mut scene, mut scene_start) = (Vec::new(), 1);
    let mut cameras = Vec::new();
    // The scene that is rendered comes first: it says where simulations of the others begin.
    let libraries_of = trace.blends.keys().filter(|path| **path != main).chain(trace.packed.paths());
    for path in std::iter::once(&main).chain(libraries_of) {
        let blend = trace.open(path)?;
        let mut rendered = None;
        if *path == main {
            rendered = chosen_scene(&blend, overrides.scene.as_deref());
            let record = rendered.and_then(|scene| blend.record(scene));
            scene_start = record.and_then(|scene| simulation_start(&scene)).unwrap_or(scene_start);
            scene.extend(rendered);
            // It need not be in the scene.
            scene.extend(overrides.camera.iter().flat_map(|camera| objects(&blend, camera)));
        }
        if *path != main {
            newest_library = newest_library.max(Some((least_version(&blend), path.clone())));
        }
        let is_camera = |index: &usize| blend.record(*index).is_some_and(|object| object.int("type") == Some(CAMERA));
        let of_this = blend.coded(*b"OB\0\0").map(|(index, _)| index).filter(is_camera);
        cameras.extend(of_this.map(|index| name_of(&blend, index)));
        let mut graph = Graph::of_library(&blend);
        graph.libraries = libraries(&blend, path, trace, &mut budget)?;
        leave_out_hidden(&blend, &mut graph, (rendered, overrides.view_layers.as_slice()));
        let found = simulated(&blend, Folders::of(path, &main, &trace.maps), scene_start, &mut budget)?;
        simulations.extend(found.unbaked.into_iter().map(|(owner, simulation)| (path.clone(), owner, simulation)));
        bakes.extend(found.baked.into_iter().map(|(owner, bake)| (path.clone(), owner, bake)));
        let found = unrun(&blend, &mut budget)?;
        unruns.extend(found.into_iter().map(|(owner, unrun)| (path.clone(), owner, unrun)));
        wants.extend(wanted(&blend).map(|(owner, ability)| (path.clone(), owner, ability)));
        file_outputs.extend(file_output_owners(&blend).map(|owner| (path.clone(), owner)));
        let found = imports::computed(&blend, *path != main, &mut budget)?;
        computed.extend(found.into_iter().map(|(owner, node)| {
            let datablock = name_of(&blend, owner);
            (path.clone(), owner, Computed { datablock, node })
        }));
        graphs.insert(path.clone(), graph);
    }
    let mut seen = BTreeSet::new();
    cameras.retain(|camera: &String| seen.insert(camera.clone()));
    let used = used_from(&main, scene, &graphs);
    let takes_part = |path: &PathBuf, owner: &usize| used.get(path).is_some_and(|used| used.contains(owner));
    simulations.retain(|(path, owner, _)| takes_part(path, owner));
    let simulations: BTreeSet<Simulation> = simulations.into_iter().map(|(_, _, simulation)| simulation).collect();
    bakes.retain(|(path, owner, _)| takes_part(path, owner));
    let bakes: BTreeSet<Bake> = bakes.into_iter().map(|(_, _, bake)| bake).collect();
    // A script starts with its file, whoever uses it; those of libraries do not.
    unruns.retain(|(path, owner, unrun)| match unrun {
        Unrun::Script { .. } => *path == main,
        Unrun::Driver { .. } | Unrun::Node { .. } => takes_part(path, owner),
    });
    let unrun: BTreeSet<Unrun> = unruns.into_iter().map(|(_, _, unrun)| unrun).collect();
    let file_outputs = file_outputs.iter().any(|(path, owner)| takes_part(path, owner));
    let wants =
        wants.iter().filter(|(path, owner, _)| takes_part(path, owner)).map(|(_, _, ability)| *ability).collect();
    computed.retain(|(path, owner, _)| takes_part(path, owner));
    let computed: BTreeSet<Computed> = computed.into_iter().map(|(_, _, computed)| computed).collect();
    let (simulations, bakes) = (simulations.into_iter().collect(), bakes.into_iter().collect());
    let (unrun, computed) = (unrun.into_iter().collect(), computed.into_iter().collect());
    Ok(Survey { simulations, bakes, unrun, cameras, file_outputs, wants, newest_library, computed })
}

/// The datablocks with File Output nodes, which write wherever they are.
fn file_output_owners(blend: &Blend) -> impl Iterator<Item = usize> + '_ {
    let is_one = move |index: usize| {
        let node = blend.record(index).filter(|record| record.struct_name() == "bNode");
        node.is_some_and(|node| {
            node.text("idname") == Some(FILE_OUTPUT) && node.int("flag").unwrap_or(0) & NODE_MUTED == 0
        })
    };
    blend.blocks().iter().enumerate().filter(move |(index, _)| is_one(*index)).map(|(_, block)| block.owner)
}

/// The blocks of the objects of this name: the file's own, and what stands for a linked one.
fn objects(blend: &Blend, name: &str) -> Vec<usize> {
    let is_it = |index: usize| {
        let id = blend.record(index).and_then(|record| record.id_name());
        id.is_some_and(|id| id.strip_prefix(b"OB") == Some(name.as_bytes()))
    };
    let blocks = blend.coded(*b"OB\0\0").chain(blend.coded(*b"ID\0\0"));
    blocks.map(|(index, _)| index).filter(|index| is_it(*index)).collect()
}

/// Where the simulation zones of a scene begin.
fn simulation_start(scene: &Record<'_>) -> Option<i32> {
    let is_own = scene.int("flag").unwrap_or(0) & CUSTOM_SIMULATION_RANGE != 0;
    let own = scene.int("simulation_frame_start").filter(|_| is_own);
    own.or_else(|| scene.int("r.sfra")).and_then(|frame| i32::try_from(frame).ok())
}

/// Where the library blocks of a .blend lead, as it was traced.
fn libraries(
    blend: &Blend,
    path: &Path,
    trace: &Trace,
    budget: &mut Budget,
) -> Result<BTreeMap<usize, PathBuf>, SceneError> {
    let links = trace.files.iter().filter(|file| file.kind == RefKind::Library && file.from == path);
    let links: BTreeMap<&str, &PathBuf> = links.map(|file| (&*file.stored, &file.resolved)).collect();
    let blocks = blend.coded(*b"LI\0\0").filter_map(|(index, _)| {
        let library = blend.record(index)?;
        let stored = library.text("name").or_else(|| library.text("filepath"))?;
        Some((index, (*links.get(&*String::from_utf8_lossy(stored))?).clone()))
    });
    let mut blocks: BTreeMap<usize, PathBuf> = blocks.collect();
    for library in packed::libraries(blend, path, &trace.maps, budget)? {
        if trace.packed.has(&library.path) || trace.blends.contains_key(&library.path) {
            blocks.entry(library.index).or_insert(library.path);
        }
    }
    Ok(blocks)
}

/// Scenes and collections do not lead to what is hidden from rendering. Nor do scenes lead to collections: those of
/// their objects that no view layer leaves out are listed in the view layers. Of the scene that is rendered only these
/// layers count, if any are named.
fn leave_out_hidden(blend: &Blend, graph: &mut Graph, (rendered, layers): (Option<usize>, &[String])) {
    let code = |index: usize| blend.blocks().get(index).map(|block| block.code);
    let object = |index: usize| blend.record(index).filter(|_| code(index) == Some(*b"OB\0\0"));
    let is_hidden = |index: usize| object(index).is_some_and(|object| is_hidden(&object));
    let is_still = |index: usize| object(index).is_none_or(|object| !object.points("adt"));
    let mut seen = BTreeSet::new();
    for (index, block) in blend.blocks().iter().enumerate() {
        match &block.code {
            b"SC\0\0" if blend.version >= WITH_COLLECTIONS => {
                let layers = if rendered == Some(index) { layers } else { &[] };
                let off = blend.record(index).map(|scene| not_rendered(blend, &scene, layers, &mut seen));
                let off = off.unwrap_or_default();
                graph.keep_edges(index, |to| {
                    code(*to) != Some(*b"GR\0\0") && !is_hidden(*to) && !(off.contains(to) && is_still(*to))
                });
            }
            b"SC\0\0" | b"GR\0\0" => graph.keep_edges(index, |to| !is_hidden(*to)),
            _ => {}
        }
    }
}

/// Objects that every view layer of a scene, or every one of those named, has, if at all, in a collection that is hidden
/// from rendering. Lists in a damaged file may be shared by any number of layers and scenes: what was `seen` in one is in no
/// other.
fn not_rendered(blend: &Blend, scene: &Record<'_>, layers: &[String], seen: &mut BTreeSet<usize>) -> BTreeSet<usize> {
    let (mut on, mut off) = (BTreeSet::new(), BTreeSet::new());
    for layer in scene.list("view_layers") {
        if !seen.insert(layer.block) {
            break;
        }
        let name = String::from_utf8_lossy(layer.text("name").unwrap_or_default());
        let counts = layers.is_empty() || layers.iter().any(|layer| *layer == name);
        for base in layer.list("object_bases") {
            if !seen.insert(base.block) {
                break;
            }
            let renders = counts && base.int("flag").is_none_or(|flag| flag & BASE_RENDERS != 0);
            let object = base.pointer("object").and_then(|address| blend.find_id(address));
            if renders { &mut on } else { &mut off }.extend(object);
        }
    }
    off.retain(|object| !on.contains(object));
    off
}

/// Whether an object is hidden from rendering, and nothing animates that.
fn is_hidden(object: &Record<'_>) -> bool {
    let flags = object.int("visibility_flag").or_else(|| object.int("restrictflag")).unwrap_or(0);
    flags & HIDE_RENDER != 0 && !object.points("adt")
}
