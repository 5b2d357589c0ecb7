//! Simulation zones of geometry nodes, and whether their bakes are there.
//!
//! A tree may hold zones in groups in groups. From Blender 4.1 on it lists what can be baked in it, wherever that is,
//! each with a number and the way there; a modifier lists the bakes of its tree by the same numbers, each packed into the
//! file or in a folder. Earlier files have one folder for each modifier.

use super::SceneError;
use super::bakes::{Folders, frame_of_node, nodes_in};
use super::caches::{COMMON_DIRECTORY, DIRECTORY, OWN_DIRECTORY, text_block};
use super::dna::{Blend, Record};
use super::refs::Budget;
use std::collections::BTreeSet;

/// `bNode.idname`.
const ZONE: &[u8] = b"GeometryNodeSimulationOutput";
/// `NodesModifierBake.flag`.
const CUSTOM_RANGE: i64 = 1 << 0;
/// Deepest nesting of groups followed (guess: people nest less than ten).
const MAX_DEPTH: usize = 64;

/// The simulation zones of a modifier.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// Where the first begins that is not baked.
    pub unbaked: Option<i32>,
    /// Where each that is baked begins, and the frames it has.
    pub baked: Vec<(i32, Vec<i32>)>,
}

impl Zones {
    fn add(&mut self, start: i32, frames: Vec<i32>) {
        match frames.is_empty() {
            true => self.unbaked = Some(self.unbaked.map_or(start, |first| first.min(start))),
            false => self.baked.push((start, frames)),
        }
    }
}

/// The zones of a modifier. `scene_start` is where those begin that have no range of their own.
pub(super) fn zones(
    blend: &Blend,
    folders: &Folders<'_>,
    modifier: &Record<'_>,
    scene_start: i32,
    budget: &mut Budget,
) -> Result<Zones, SceneError> {
    let mut zones = Zones::default();
    let Some(tree) = modifier.pointer("node_group").and_then(|address| blend.find_id(address)) else {
        return Ok(zones);
    };
    let folder = |record: &Record<'_>, fields: &[&str], budget: &mut Budget| {
        let stored = text_block(blend, record, fields).map(|block| blend.block_text(block)).unwrap_or_default();
        budget.take(0, stored.len())?;
        Ok::<_, SceneError>((!stored.is_empty()).then(|| folders.located(stored)))
    };
    let common = folder(modifier, COMMON_DIRECTORY, budget)?;
    let Some(bakes) = modifier.follow("bakes") else {
        if has_zone(blend, tree, budget)? {
            let frames = common.map(|folder| nodes_in(&folder, budget)).transpose()?;
            zones.add(scene_start, frames.unwrap_or_default());
        }
        return Ok(zones);
    };
    for bake in (0..).map_while(|nth| blend.element(bakes.block, nth)) {
        budget.take(1, 0)?;
        let number = bake.int("id").unwrap_or(0);
        if !is_zone(blend, tree, number, budget)? {
            continue;
        }
        let flags = bake.int("flag").unwrap_or(0);
        let own = bake.int("frame_start").filter(|_| flags & CUSTOM_RANGE != 0);
        let start = own.and_then(|frame| i32::try_from(frame).ok()).unwrap_or(scene_start);
        if let Some(packed) = bake.follow("packed") {
            zones.baked.push((start, packed_frames(blend, &packed, budget)?));
            continue;
        }
        let own = folder(&bake, DIRECTORY, budget)?.filter(|_| flags & OWN_DIRECTORY != 0);
        let place = own.or_else(|| Some(common.as_ref()?.join(number.to_string())));
        let frames = place.map(|place| nodes_in(&place, budget)).transpose()?;
        zones.add(start, frames.unwrap_or_default());
    }
    Ok(zones)
}

/// Frames of a bake that is in the .blend.
fn packed_frames(blend: &Blend, packed: &Record<'_>, budget: &mut Budget) -> Result<Vec<i32>, SceneError> {
    let mut frames = Vec::new();
    let Some(files) = packed.follow("meta_files") else { return Ok(frames) };
    for file in (0..).map_while(|nth| blend.element(files.block, nth)) {
        budget.take(1, 0)?;
        let name = text_block(blend, &file, &["name"]).map(|block| blend.block_text(block));
        frames.extend(name.and_then(frame_of_node));
    }
    Ok(frames)
}

/// Whether what a tree knows by `number` is a simulation zone. What is in a linked group may be one.
fn is_zone(blend: &Blend, mut tree: usize, mut number: i64, budget: &mut Budget) -> Result<bool, SceneError> {
    for _ in 0..MAX_DEPTH {
        if is_linked(blend, tree) {
            return Ok(true);
        }
        let Some(record) = blend.record(tree) else { return Ok(false) };
        let Some(list) = record.follow("nested_node_refs") else { return Ok(false) };
        let mut listed = None;
        for entry in (0..).map_while(|nth| blend.element(list.block, nth)) {
            budget.take(1, 0)?;
            if entry.int("id") == Some(number) {
                listed = Some(entry);
                break;
            }
        }
        let Some(entry) = listed else { return Ok(false) };
        let mut found = None;
        for node in record.list("nodes") {
            budget.take(1, 0)?;
            if node.int("identifier") == entry.int("path.node_id") {
                found = Some(node);
                break;
            }
        }
        let Some(node) = found else { return Ok(false) };
        if node.text("idname") == Some(ZONE) {
            return Ok(true);
        }
        let group = node.pointer("id").and_then(|address| blend.find_id(address));
        let (Some(group), Some(inner)) = (group, entry.int("path.id_in_node")) else { return Ok(false) };
        (tree, number) = (group, inner);
    }
    Ok(false)
}

/// Whether a tree, or a group in it, has a zone, as far as this file tells.
fn has_zone(blend: &Blend, tree: usize, budget: &mut Budget) -> Result<bool, SceneError> {
    let (mut open, mut seen) = (vec![tree], BTreeSet::new());
    while let Some(tree) = open.pop() {
        let Some(record) = blend.record(tree).filter(|_| seen.insert(tree)) else { continue };
        for node in record.list("nodes") {
            budget.take(1, 0)?;
            if node.text("idname") == Some(ZONE) {
                return Ok(true);
            }
            let group = node.pointer("id").and_then(|address| blend.find_id(address));
            open.extend(group.filter(|group| blend.blocks().get(*group).is_some_and(|b| &b.code == b"NT\0\0")));
        }
    }
    Ok(false)
}

fn is_linked(blend: &Blend, index: usize) -> bool {
    blend.blocks().get(index).is_some_and(|block| &block.code == b"ID\0\0")
}
