//! Files that nodes of geometry import: `Import STL` and its kin, from Blender 4.5 on.
//!
//! The path is a text that comes into the node: its own, or that of a `String` node linked to it. One that comes from
//! farther (through the group's inputs, put together by other nodes) is known only when the nodes run.

use super::SceneError;
use super::dna::{Blend, Record};
use super::refs::{Form, Found};
use super::trace::RefKind;
use std::collections::BTreeMap;

/// What the names of these kinds of node begin with.
const IMPORT: &[u8] = b"GeometryNodeImport";
const TEXT: &[u8] = b"FunctionNodeInputString";
/// `bNodeLink.flag`: it carries nothing.
const MUTED: i64 = 1 << 4;

/// Notes the files that the nodes of `tree` import.
pub(super) fn imports(found: &mut Found<'_>, blend: &Blend, tree: &Record<'_>) -> Result<(), SceneError> {
    let kind = |node: &Record<'_>, wanted: &[u8]| node.text("idname").is_some_and(|name| name.starts_with(wanted));
    let mut importers = Vec::new();
    for node in tree.list("nodes") {
        found.budget.take(1, 0)?;
        if kind(&node, IMPORT) {
            importers.push(node);
        }
    }
    if importers.is_empty() {
        return Ok(());
    }
    let mut links = BTreeMap::new();
    for link in tree.list("links") {
        found.budget.take(1, 0)?;
        if link.int("flag").unwrap_or(0) & MUTED == 0 {
            links.insert(link.pointer("tosock"), link);
        }
    }
    for node in importers {
        let mut path = None;
        for socket in node.list("inputs") {
            found.budget.take(1, 0)?;
            if socket.text("identifier") == Some(b"Path") {
                path = Some(socket);
                break;
            }
        }
        let Some(path) = path else { continue };
        let address = blend.blocks().get(path.block).map(|block| block.address);
        let Some(link) = links.get(&address) else {
            if let Some(own) = path.follow("default_value") {
                found.push(RefKind::Import, &own, &["value"], Form::File)?;
            }
            continue;
        };
        let text = link.follow("fromnode").filter(|node| kind(node, TEXT)).and_then(|node| node.follow("storage"));
        if let Some(block) = text.and_then(|text| blend.find(text.block, text.pointer("string")?)) {
            found.push_block(RefKind::Import, blend, block, Form::File)?;
        }
    }
    Ok(())
}
