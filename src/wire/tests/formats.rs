//! The document of the formats says what the code does: kinds, domains and limits.

use super::{messages, ops};
use crate::farm::blob::{BLOB_MAX_CHUNKS, BUNDLE_MAX_FILES, CHUNK_MAX_BYTES};
use crate::farm::frames::{MAX_RANGES, MAX_UNITS};
use crate::farm::ledger::{CHECKPOINT_BYTES, PIECE_BYTES};
use crate::farm::op::{MAX_BLOBS_PER_OP, MAX_OUTPUTS, MAX_TEXT_BYTES, MAX_WARNINGS, Op};
use crate::wire::{
    self, MANIFEST_MAX_BYTES, MAX_FILE_OUTPUT_BYTES, MAX_NAME_BYTES, MAX_OP_BYTES, MAX_PATH_BYTES, VALUE_MAX_BYTES,
};
use crate::wire::{LEDGER_MAX_BYTES, STATUS_MAX_BYTES};
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../FORMATS.md");

/// The first two columns of the table whose head begins like this, without marks.
fn table(head: &str) -> BTreeSet<(String, String)> {
    let (_, rest) = DOCUMENT.split_once(&format!("\n{head} ")).unwrap();
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let clean = |cell: &str| cell.trim().replace(['`', ','], "");
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(clean);
        (cells.next().unwrap(), cells.next().unwrap())
    })
    .collect()
}

/// Which variant it is.
fn name(of: &impl std::fmt::Debug) -> String {
    format!("{of:?}").split([' ', '(', '{']).next().unwrap().to_string()
}

#[test]
fn the_document_names_every_kind_of_op_and_message_by_its_number() {
    let of_op = |op: &Op| {
        let bytes = wire::encode_op(op).unwrap();
        let name = match op {
            Op::Set { setting, .. } => format!("Set {}", name(setting)),
            other => name(other),
        };
        (u16::from_le_bytes([bytes[0], bytes[1]]).to_string(), name)
    };
    let known = ops().into_iter().filter(|op| !matches!(op, Op::Unknown { .. }));
    assert_eq!(known.map(|op| of_op(&op)).collect::<BTreeSet<_>>(), table("| kind | op"));
    let of_message = |message| {
        let bytes = wire::encode(message).unwrap();
        (u16::from_le_bytes([bytes[2], bytes[3]]).to_string(), name(message))
    };
    assert_eq!(messages().iter().map(of_message).collect::<BTreeSet<_>>(), table("| kind | message"));
}

#[test]
fn the_document_names_every_domain_of_a_hash() {
    // The gate is not part of every build; its source is.
    let sources =
        [include_str!("../../seal.rs"), include_str!("../../farm/blob.rs"), include_str!("../../node/net/gate.rs")];
    let texts = sources.iter().flat_map(|source| source.split('"'));
    let domains: BTreeSet<&str> = texts.filter(|text| text.starts_with("swarm ") && text.ends_with(" v1")).collect();
    let told = table("| domain | over");
    assert_eq!(domains, told.iter().map(|(domain, _)| domain.as_str()).collect());
}

#[test]
fn the_document_states_the_limits() {
    let limits = [
        ("MAX_OP_BYTES", MAX_OP_BYTES as u64),
        ("STATUS_MAX_BYTES", STATUS_MAX_BYTES as u64),
        ("LEDGER_MAX_BYTES", LEDGER_MAX_BYTES as u64),
        ("MANIFEST_MAX_BYTES", MANIFEST_MAX_BYTES as u64),
        ("VALUE_MAX_BYTES", VALUE_MAX_BYTES as u64),
        ("MAX_PATH_BYTES", MAX_PATH_BYTES as u64),
        ("MAX_FILE_OUTPUT_BYTES", MAX_FILE_OUTPUT_BYTES as u64),
        ("MAX_NAME_BYTES", MAX_NAME_BYTES as u64),
        ("MAX_TEXT_BYTES", MAX_TEXT_BYTES as u64),
        ("MAX_BLOBS_PER_OP", MAX_BLOBS_PER_OP as u64),
        ("MAX_OUTPUTS", MAX_OUTPUTS as u64),
        ("MAX_WARNINGS", MAX_WARNINGS as u64),
        ("MAX_UNITS", MAX_UNITS as u64),
        ("MAX_RANGES", MAX_RANGES as u64),
        ("PIECE_BYTES", PIECE_BYTES),
        ("CHECKPOINT_BYTES", CHECKPOINT_BYTES),
        ("CHUNK_MAX_BYTES", u64::from(CHUNK_MAX_BYTES)),
        ("BLOB_MAX_CHUNKS", BLOB_MAX_CHUNKS as u64),
        ("BUNDLE_MAX_FILES", BUNDLE_MAX_FILES as u64),
    ];
    let limits: BTreeSet<_> = limits.map(|(name, figure)| (name.to_string(), figure.to_string())).into();
    assert_eq!(limits, table("| limit"));
}
