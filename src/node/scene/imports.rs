//! Files that nodes of geometry import: `Import STL` and its kin, from Blender 4.5 on.
//!
//! The path is a text that comes into the node: its own, that of a `String` node linked to it, or what is put into its
//! group from outside, by a modifier or by the node that stands for the group. One that other nodes put together is known
//! only when these run; neither is one that another .blend puts into the group.

use super::SceneError;
use super::dna::{Blend, Record};
use super::refs::{Budget, Form, Found};
use super::trace::RefKind;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// What the names of these kinds of node begin with.
const IMPORT: &[u8] = b"GeometryNodeImport";
const TEXT: &[u8] = b"FunctionNodeInputString";
const REROUTE: &[u8] = b"NodeReroute";
const GROUP_INPUT: &[u8] = b"NodeGroupInput";
/// `bNodeLink.flag`: it carries nothing.
const MUTED: i64 = 1 << 4;
/// `IDProperty.type`.
const PROPERTY_TEXT: i64 = 0;

/// Where the path of a node is stored.
enum Stored<'a> {
    /// In the field `value` of this socket's own value.
    Socket(Record<'a>),
    /// It is all of this block.
    Block(usize),
    /// It is the text of this property of a modifier.
    Property(Record<'a>),
}

/// What feeds a group.
enum User<'a> {
    Modifier(Record<'a>),
    /// A node, and the block of the tree that it is in.
    Node(usize, Record<'a>),
}

/// The trees of a .blend with what feeds each, looked for when the first is asked for.
#[derive(Default)]
pub(super) struct Users<'a>(Option<BTreeMap<usize, Vec<User<'a>>>>);

impl<'a> Users<'a> {
    fn of(&mut self, blend: &'a Blend, tree: usize, budget: &mut Budget) -> Result<&[User<'a>], SceneError> {
        let users = match self.0.take() {
            Some(users) => users,
            None => all_users(blend, budget)?,
        };
        Ok(self.0.insert(users).get(&tree).map_or(&[], Vec::as_slice))
    }
}

fn all_users<'a>(blend: &'a Blend, budget: &mut Budget) -> Result<BTreeMap<usize, Vec<User<'a>>>, SceneError> {
    let mut users: BTreeMap<usize, Vec<User<'a>>> = BTreeMap::new();
    for index in 0..blend.blocks().len() {
        let Some(record) = blend.record(index) else { continue };
        if record.struct_name() == "NodesModifierData" {
            let tree = record.pointer("node_group").and_then(|address| blend.find_id(address));
            users.entry(tree.unwrap_or(index)).or_default().push(User::Modifier(record));
        } else if record.struct_name() == "bNodeTree" {
            for node in record.list("nodes") {
                budget.take(1, 0)?;
                if let Some(tree) = node.pointer("id").and_then(|address| blend.find_id(address)) {
                    users.entry(tree).or_default().push(User::Node(index, node));
                }
            }
        }
    }
    Ok(users)
}

/// Where the nodes of a tree have their paths from.
#[derive(Default)]
struct Paths<'a> {
    stored: Vec<Stored<'a>>,
    /// Names of those whose path is known only when nodes run.
    computed: Vec<String>,
    /// Names of those whose path comes into the tree, and nothing in this .blend says which.
    unfed: Vec<String>,
}

/// Notes the files that the nodes of `tree` import.
pub(super) fn imports<'a>(
    found: &mut Found<'_>,
    users: &mut Users<'a>,
    blend: &'a Blend,
    tree: usize,
) -> Result<(), SceneError> {
    for stored in paths(blend, tree, users, found.budget)?.stored {
        match stored {
            Stored::Socket(own) => found.push(RefKind::Import, &own, &["value"], Form::File)?,
            Stored::Block(block) => found.push_block(RefKind::Import, blend, block, Form::File)?,
            Stored::Property(property) => found.push_property(RefKind::Import, blend, &property, Form::File)?,
        }
    }
    Ok(())
}

/// The nodes whose files are not looked for: each by its name and with the block of its tree. Of what a library leaves to
/// those who use it nothing is known there.
pub(super) fn computed(
    blend: &Blend,
    is_library: bool,
    budget: &mut Budget,
) -> Result<Vec<(usize, String)>, SceneError> {
    let (mut found, mut users) = (Vec::new(), Users::default());
    for (index, _) in blend.coded(*b"NT\0\0") {
        let paths = paths(blend, index, &mut users, budget)?;
        let unfed = paths.unfed.into_iter().filter(|_| is_library);
        found.extend(paths.computed.into_iter().chain(unfed).map(|node| (index, node)));
    }
    Ok(found)
}

fn is(node: &Record<'_>, kind: &[u8]) -> bool {
    node.text("idname").is_some_and(|name| name.starts_with(kind))
}

fn paths<'a>(
    blend: &'a Blend,
    tree: usize,
    users: &mut Users<'a>,
    budget: &mut Budget,
) -> Result<Paths<'a>, SceneError> {
    let mut paths = Paths::default();
    let Some(record) = blend.record(tree) else { return Ok(paths) };
    let mut importers = Vec::new();
    for node in record.list("nodes") {
        budget.take(1, 0)?;
        if is(&node, IMPORT) {
            importers.push(node);
        }
    }
    let mut links = BTreeMap::new();
    for node in importers {
        let Some(path) = input(&node, b"Path", budget)? else { continue };
        let (mut open, mut seen, mut is_computed, mut is_unfed) = (vec![(tree, path)], BTreeSet::new(), false, false);
        while let Some((tree, socket)) = open.pop() {
            if !seen.insert(socket.block) {
                continue;
            }
            let Some(link) = link_to(blend, (tree, &socket), &mut links, budget)? else {
                paths.stored.extend(socket.follow("default_value").map(Stored::Socket));
                continue;
            };
            let Some(from) = link.follow("fromnode") else { continue };
            if is(&from, TEXT) {
                let text = from.follow("storage").and_then(|text| blend.find(text.block, text.pointer("string")?));
                paths.stored.extend(text.map(Stored::Block));
            } else if is(&from, REROUTE) {
                open.extend(from.follow("inputs.first").map(|socket| (tree, socket)));
            } else if is(&from, GROUP_INPUT) {
                let identifier = link.follow("fromsock").and_then(|socket| socket.text("identifier"));
                let identifier = identifier.unwrap_or_default();
                let users = users.of(blend, tree, budget)?;
                budget.take(users.len(), 0)?;
                is_unfed |= users.is_empty();
                for user in users {
                    match user {
                        User::Modifier(modifier) => match property(modifier, identifier, budget)? {
                            Some(property) => paths.stored.push(Stored::Property(property)),
                            None => is_computed = true,
                        },
                        User::Node(tree, node) => {
                            open.extend(input(node, identifier, budget)?.map(|socket| (*tree, socket)));
                        }
                    }
                }
            } else {
                is_computed = true;
            }
        }
        let name = node.text("name").unwrap_or_default();
        budget.take(0, name.len())?;
        let name = || String::from_utf8_lossy(name).into_owned();
        paths.computed.extend(is_computed.then(name));
        paths.unfed.extend((is_unfed && !is_computed).then(name));
    }
    Ok(paths)
}

/// The socket of a node by which this comes in.
fn input<'a>(node: &Record<'a>, identifier: &[u8], budget: &mut Budget) -> Result<Option<Record<'a>>, SceneError> {
    for socket in node.list("inputs") {
        budget.take(1, 0)?;
        if socket.text("identifier") == Some(identifier) {
            return Ok(Some(socket));
        }
    }
    Ok(None)
}

/// The text that a modifier puts into its tree.
fn property<'a>(
    modifier: &Record<'a>,
    identifier: &[u8],
    budget: &mut Budget,
) -> Result<Option<Record<'a>>, SceneError> {
    let Some(properties) = modifier.follow("settings.properties") else { return Ok(None) };
    for property in properties.list("data.group") {
        budget.take(1, 0)?;
        if property.text("name") == Some(identifier) && property.int("type") == Some(PROPERTY_TEXT) {
            return Ok(Some(property));
        }
    }
    Ok(None)
}

/// The link that leads to a socket, by the tree that both are in.
fn link_to<'a>(
    blend: &'a Blend,
    (tree, socket): (usize, &Record<'a>),
    links: &mut BTreeMap<usize, BTreeMap<u64, Record<'a>>>,
    budget: &mut Budget,
) -> Result<Option<Record<'a>>, SceneError> {
    budget.take(1, 0)?;
    if let Entry::Vacant(place) = links.entry(tree) {
        let mut of_tree = BTreeMap::new();
        for link in blend.record(tree).into_iter().flat_map(|tree| tree.list("links")) {
            budget.take(1, 0)?;
            if link.int("flag").unwrap_or(0) & MUTED == 0 {
                of_tree.extend(link.pointer("tosock").map(|address| (address, link)));
            }
        }
        place.insert(of_tree);
    }
    let address = blend.blocks().get(socket.block).map_or(0, |block| block.address);
    Ok(links.get(&tree).and_then(|links| links.get(&address)).copied())
}
