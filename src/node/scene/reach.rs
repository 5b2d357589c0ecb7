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

/// Codes of datablocks that rendering never looks at: brushes, palettes, paint curves, windows, screens, workspaces.
pub(super) const EDITED_ONLY: [&[u8]; 7] = [b"BR", b"PL", b"PC", b"WM", b"SR", b"SN", b"WS"];

/// One datablock.
#[derive(Debug, Default)]
struct Node {
    /// Its name with its code, such as `MAMetal`.
    name: Vec<u8>,
    /// Blocks of the datablocks it points to.
    edges: BTreeSet<usize>,
    /// The block of the library it comes from, if it is linked.
    library: Option<usize>,
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
        let mut graph = Self::of_main(blend);
        let mut pointers = Pointers { blend, by_shape: BTreeMap::new() };
        for (index, block) in blend.blocks().iter().enumerate() {
            let mut targets = pointers.targets(index);
            targets.remove(&block.owner);
            if let Some(node) = graph.nodes.get_mut(&block.owner) {
                node.edges.append(&mut targets);
            }
        }
        graph
    }

    /// Of the scene itself: all of it counts, so nobody asks for its edges.
    pub fn of_main(blend: &Blend) -> Self {
        let mut graph = Self::default();
        let mut library = None;
        for (index, block) in blend.blocks().iter().enumerate().filter(|(_, block)| &block.code != b"DATA") {
            if &block.code == b"LI\0\0" {
                library = Some(index);
            }
            let name = blend.record(index).and_then(|record| record.id_name()).unwrap_or_default().to_vec();
            let library = if &block.code == b"ID\0\0" { library } else { None };
            graph.nodes.insert(index, Node { name, edges: BTreeSet::new(), library });
        }
        graph
    }

    /// Takes out what a block points to, as far as `counts` says so.
    pub fn keep_edges(&mut self, from: usize, counts: impl FnMut(&usize) -> bool) {
        if let Some(node) = self.nodes.get_mut(&from) {
            node.edges.retain(counts);
        }
    }

    /// The blocks used when a scene links `names`.
    fn named<'a>(&'a self, names: &'a BTreeSet<Vec<u8>>) -> impl Iterator<Item = usize> + 'a {
        self.nodes
            .iter()
            .filter(|(_, node)| node.library.is_none() && names.contains(&node.name))
            .map(|(index, _)| *index)
    }
}

/// The datablocks of a scene that only its interface and its brushes use: rendering never opens their files. What nothing
/// points to is not among them.
pub(super) fn never_rendered(blend: &Blend) -> BTreeSet<usize> {
    let graph = Graph::of_library(blend);
    let code = |index: &usize| graph.nodes.get(index).and_then(|node| node.name.get(..2)).unwrap_or_default();
    let mut used_by: BTreeMap<usize, usize> = BTreeMap::new();
    for target in graph.nodes.values().flat_map(|node| &node.edges) {
        *used_by.entry(*target).or_default() += 1;
    }
    let mut never: BTreeSet<usize> =
        graph.nodes.keys().copied().filter(|index| EDITED_ONLY.contains(&code(index))).collect();
    let mut open: Vec<usize> = never.iter().copied().collect();
    while let Some(index) = open.pop() {
        for target in graph.nodes.get(&index).iter().flat_map(|node| &node.edges) {
            let Some(users) = used_by.get_mut(target) else { continue };
            *users -= 1;
            // A window shows a scene, and it is rendered; an outliner lists a library, which is used by being linked from.
            if *users == 0 && !matches!(code(target), b"SC" | b"LI") && never.insert(*target) {
                open.push(*target);
            }
        }
    }
    never
}

/// The blocks used of each .blend, when all of `main` is. A library's own block counts as used when something linked
/// from it is.
pub(super) fn used(main: &PathBuf, graphs: &BTreeMap<PathBuf, Graph>) -> BTreeMap<PathBuf, BTreeSet<usize>> {
    let all = graphs.get(main).map(|graph| graph.nodes.keys().copied().collect());
    used_from(main, all.unwrap_or_default(), graphs)
}

/// The same when only these blocks of `main` are, and what they lead to.
pub(super) fn used_from(
    main: &PathBuf,
    blocks: Vec<usize>,
    graphs: &BTreeMap<PathBuf, Graph>,
) -> BTreeMap<PathBuf, BTreeSet<usize>> {
    let mut used: BTreeMap<PathBuf, BTreeSet<usize>> = BTreeMap::new();
    let Some(graph) = graphs.get(main) else { return used };
    let mut queue = VecDeque::from([(main, graph, blocks)]);
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
