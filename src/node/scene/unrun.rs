//! Python in a .blend that is not run here: scripts that start with the file, drivers, and nodes of add-ons.

use super::SceneError;
use super::dna::{Blend, Record};
use super::expression::is_simple;
use super::refs::{Budget, name_of};

/// `Text.flags`: run when the file is opened.
const TEXT_STARTS: i64 = 1 << 4;
/// `FCurve.flag`.
const CURVE_MUTED: i64 = 1 << 4;
/// `ChannelDriver.type`.
const DRIVER_SCRIPTED: i64 = 1;
/// `bNode.type` of the kinds that add-ons define, with or without nodes inside (measured with 3.4 to 5.0, where none of
/// Blender's own has these; an add-on may call its kinds as it likes).
const NODE_CUSTOM: i64 = -1;
const NODE_CUSTOM_GROUP: i64 = 9;
/// What the names of Blender's own kinds of nodes begin with.
const OWN_NODES: [&[u8]; 6] =
    [b"Node", b"ShaderNode", b"CompositorNode", b"TextureNode", b"GeometryNode", b"FunctionNode"];

/// Something that would need Python.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unrun {
    /// A text that is set to run when the file is opened.
    Script {
        /// Name of the text.
        text: String,
    },
    /// A driver whose expression Blender does not evaluate by itself.
    Driver {
        /// Name of the datablock it drives.
        datablock: String,
        /// As written.
        expression: String,
    },
    /// A node that an add-on defines.
    Node {
        /// Name of the datablock whose nodes it is among.
        datablock: String,
        /// Its kind, as the add-on calls it.
        kind: String,
    },
}

/// All of them, each with the block of the datablock it belongs to.
pub(super) fn unrun(blend: &Blend, budget: &mut Budget) -> Result<Vec<(usize, Unrun)>, SceneError> {
    let mut found = Vec::new();
    for (index, block) in blend.blocks().iter().enumerate() {
        let Some(record) = blend.record(index) else { continue };
        let datablock = || name_of(blend, block.owner);
        let one = match (&block.code, record.struct_name()) {
            (b"TX\0\0", _) if record.int("flags").unwrap_or(0) & TEXT_STARTS != 0 => {
                Some(Unrun::Script { text: datablock() })
            }
            (b"DATA", "FCurve") => {
                let expression = python_of(&record, budget)?;
                expression.map(|expression| Unrun::Driver { datablock: datablock(), expression })
            }
            (b"DATA", "bNode") => record
                .text("idname")
                .filter(|kind| !is_own(kind, record.int("type")))
                .map(|kind| Unrun::Node { datablock: datablock(), kind: String::from_utf8_lossy(kind).into_owned() }),
            _ => None,
        };
        if let Some(one) = one {
            budget.take(1, 0)?;
            found.push((block.owner, one));
        }
    }
    Ok(found)
}

/// The expression of a curve's driver, if it is one for Python.
fn python_of(curve: &Record<'_>, budget: &mut Budget) -> Result<Option<String>, SceneError> {
    let is_muted = curve.int("flag").unwrap_or(0) & CURVE_MUTED != 0;
    let driver = curve.follow("driver").filter(|driver| !is_muted && driver.int("type") == Some(DRIVER_SCRIPTED));
    let Some(driver) = driver else { return Ok(None) };
    let expression = String::from_utf8_lossy(driver.text("expression").unwrap_or_default()).into_owned();
    let mut names = Vec::new();
    for variable in driver.list("variables") {
        budget.take(1, 0)?;
        names.push(String::from_utf8_lossy(variable.text("name").unwrap_or_default()));
    }
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    Ok((!is_simple(&expression, &names)).then_some(expression))
}

/// Files from before 2.66 name no kinds.
fn is_own(kind: &[u8], number: Option<i64>) -> bool {
    let is_custom = matches!(number, Some(NODE_CUSTOM | NODE_CUSTOM_GROUP));
    kind.is_empty() || !is_custom && OWN_NODES.iter().any(|own| kind.starts_with(own))
}
