//! Which datablocks of a library are really used.
//!
//! A library holds far more than one scene links from it, and its other textures may be long gone; refusing a scene for
//! those, or sending them, would be wrong. So every pointer from datablock to datablock is an edge, found by the DNA
//! alone without knowing what it means: rather too many edges than one too few.

use super::dna::Blend;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

/// Deepest embedding of structs in structs followed (measured: Blender has less than 10).
const EMBED_MAX_DEPTH: usize = 32;
/// Most pointers in one struct, embedded ones included (guess; ends DNA made to explode).
const STRUCT_MAX_POINTERS: usize = 4096;
/// Most fields looked at in one struct, embedded ones included (guess; ends DNA made to explode).
const STRUCT_MAX_FIELDS: usize = 1 << 16;
/// Longest block without a struct that is searched for pointers, bytes (guess: 131,072 material slots).
const RAW_MAX_BYTES: usize = 1 << 20;

/// `Object.type`.
const OBJECT_CAMERA: i64 = 11;

/// One datablock.
#[derive(Debug, Default)]
struct Node {
    /// Its name with its code, such as `MAMetal`.
    name: Vec<u8>,
    /// Blocks of the datablocks it points to.
    edges: BTreeSet<usize>,
    /// Whether it is a camera.
    camera: bool,
    /// The block of the library it comes from, if it is linked.
    library: Option<usize>,
}

impl Node {
    /// Whether it is a scene or a collection: what these point to is in the scene. What an object instances is not.
    fn holds_objects(&self) -> bool {
        self.name.starts_with(b"SC") || self.name.starts_with(b"GR")
    }
}

/// The datablocks of one .blend by the index of their block.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: BTreeMap<usize, Node>,
    /// Where each library block leads on this disk.
    pub libraries: BTreeMap<usize, PathBuf>,
}

impl Graph {
    /// Of a library.
    pub fn of_library(blend: &Blend) -> Self {
        Self::new(blend, |_| true)
    }

    /// Of the scene itself: all of it counts, so only the edges that say what is in a scene are looked for.
    pub fn of_main(blend: &Blend) -> Self {
        Self::new(blend, Node::holds_objects)
    }

    fn new(blend: &Blend, with_edges: fn(&Node) -> bool) -> Self {
        let mut graph = Self::default();
        let mut library = None;
        for (index, block) in blend.blocks().iter().enumerate().filter(|(_, block)| &block.code != b"DATA") {
            if &block.code == b"LI\0\0" {
                library = Some(index);
            }
            let name = blend.record(index).and_then(|record| record.id_name()).unwrap_or_default().to_vec();
            let library = if &block.code == b"ID\0\0" { library } else { None };
            let camera = is_camera(blend, index);
            graph.nodes.insert(index, Node { name, edges: BTreeSet::new(), camera, library });
        }
        let mut pointers = Pointers { blend, by_shape: BTreeMap::new() };
        for (index, block) in blend.blocks().iter().enumerate() {
            if let Some(node) = graph.nodes.get_mut(&block.owner).filter(|node| with_edges(node)) {
                let mut targets = pointers.targets(index);
                targets.remove(&block.owner);
                node.edges.append(&mut targets);
            }
        }
        graph
    }

    /// The blocks used when a scene links `names`.
    fn named<'a>(&'a self, names: &'a BTreeSet<Vec<u8>>) -> impl Iterator<Item = usize> + 'a {
        self.nodes
            .iter()
            .filter(|(_, node)| node.library.is_none() && names.contains(&node.name))
            .map(|(index, _)| *index)
    }
}

/// Whether block `index` is an object of type camera.
pub(super) fn is_camera(blend: &Blend, index: usize) -> bool {
    let object = blend.blocks().get(index).is_some_and(|block| &block.code == b"OB\0\0");
    object && blend.record(index).and_then(|record| record.int("type")) == Some(OBJECT_CAMERA)
}

/// The blocks used of each .blend, when all of `main` is. A library's own block counts as used when something linked
/// from it is.
pub(super) fn used(main: &PathBuf, graphs: &BTreeMap<PathBuf, Graph>) -> BTreeMap<PathBuf, BTreeSet<usize>> {
    let mut used: BTreeMap<PathBuf, BTreeSet<usize>> = BTreeMap::new();
    let Some(graph) = graphs.get(main) else { return used };
    let mut queue = VecDeque::from([(main, graph, graph.nodes.keys().copied().collect::<Vec<_>>())]);
    while let Some((path, graph, mut open)) = queue.pop_front() {
        let seen = used.entry(path.clone()).or_default();
        let mut links: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
        while let Some(index) = open.pop() {
            if !seen.insert(index) {
                continue;
            }
            let Some(node) = graph.nodes.get(&index) else { continue };
            open.extend(&node.edges);
            if let Some(library) = node.library {
                seen.insert(library);
                links.entry(library).or_default().insert(node.name.clone());
            }
        }
        for (library, names) in links {
            let target = graph.libraries.get(&library).and_then(|path| graphs.get_key_value(path));
            if let Some((path, graph)) = target {
                queue.push_back((path, graph, graph.named(&names).collect()));
            }
        }
    }
    used
}

/// Whether a camera is among the objects of the scene in block `scene` of `main`, linked ones and those of linked
/// collections included. One in a collection that an object instances is none: Blender does not look there.
pub(super) fn sees(main: &PathBuf, scene: usize, graphs: &BTreeMap<PathBuf, Graph>) -> bool {
    let mut seen = BTreeSet::new();
    let mut open: Vec<_> = graphs.get_key_value(main).into_iter().map(|(path, graph)| (path, graph, scene)).collect();
    while let Some((path, graph, index)) = open.pop() {
        let Some(node) = graph.nodes.get(&index).filter(|_| seen.insert((path, index))) else { continue };
        if node.camera {
            return true;
        }
        if let Some(library) = node.library {
            let target = graph.libraries.get(&library).and_then(|path| graphs.get_key_value(path));
            let names = BTreeSet::from([node.name.clone()]);
            open.extend(
                target.iter().flat_map(|(path, graph)| graph.named(&names).map(|index| (*path, *graph, index))),
            );
        } else if node.holds_objects() {
            open.extend(node.edges.iter().map(|index| (path, graph, *index)));
        }
    }
    false
}

/// Finds the pointers in blocks, each struct's layout once.
struct Pointers<'a> {
    blend: &'a Blend,
    by_shape: BTreeMap<usize, Vec<usize>>,
}

impl Pointers<'_> {
    /// The datablocks that the data of block `index` points to.
    fn targets(&mut self, index: usize) -> BTreeSet<usize> {
        let mut targets = BTreeSet::new();
        let Some(block) = self.blend.blocks().get(index).copied() else { return targets };
        let mut look = |blend: &Blend, at: usize| {
            targets.extend(blend.address_at(at).and_then(|address| blend.find_id(address)));
        };
        // Struct 0 stands for data without one: arrays of pointers among it.
        if block.sdna == 0 {
            if block.len <= RAW_MAX_BYTES {
                let end = block.at + block.len - block.len % self.blend.pointer_bytes();
                (block.at..end).step_by(self.blend.pointer_bytes()).for_each(|at| look(self.blend, at));
            }
            return targets;
        }
        let Some(size) = self.blend.shape(block.sdna).map(|shape| shape.size).filter(|size| *size > 0) else {
            return targets;
        };
        if !self.by_shape.contains_key(&block.sdna) {
            let mut offsets = Vec::new();
            self.collect(block.sdna, 0, 0, &mut offsets, &mut 0);
            self.by_shape.insert(block.sdna, offsets);
        }
        let offsets = self.by_shape.get(&block.sdna).map_or(&[][..], Vec::as_slice);
        if !offsets.is_empty() {
            for start in (block.at..block.at + block.len).step_by(size).take(block.count) {
                offsets.iter().for_each(|offset| look(self.blend, start.saturating_add(*offset)));
            }
        }
        targets
    }

    /// Offsets of the pointers in a struct. What every datablock has (`ID`) is left out: neighbours in lists, copies.
    fn collect(&self, shape: usize, base: usize, depth: usize, offsets: &mut Vec<usize>, looked: &mut usize) {
        let id = self.blend.shape_named("ID");
        let Some(found) = self.blend.shape(shape).filter(|_| depth < EMBED_MAX_DEPTH && Some(shape) != id) else {
            return;
        };
        for field in &found.fields {
            let inner = self.blend.shape_of(field);
            if !field.pointer && inner.is_none() {
                continue;
            }
            for nth in 0..field.count {
                *looked += 1;
                if offsets.len() >= STRUCT_MAX_POINTERS || *looked >= STRUCT_MAX_FIELDS {
                    return;
                }
                let at = base.saturating_add(field.offset).saturating_add(field.element.saturating_mul(nth));
                match inner {
                    None => offsets.push(at),
                    Some(inner) => self.collect(inner, at, depth + 1, offsets, looked),
                }
            }
        }
    }
}
