//! Facts about crates, on one made here; real ones are in the tests of bundles.

use super::super::super::splice::edited;
use super::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::io::Cursor;

/// Each string is the token of the same number.
const TOKENS: [&str; 14] = [
    "subLayers",
    "references",
    "payload",
    "clips",
    "default",
    "assetPaths",
    "manifestAssetPath",
    "templateAssetPath",
    "a.usda",
    "b/c.usdc",
    "d.usda",
    "e.usda",
    "f.usda",
    "g.##.usda",
];

fn value(kind: u8, flags: u64, payload: usize) -> u64 {
    u64::from(kind) << 48 | flags | payload as u64
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let packed = [vec![0], lz4_flex::block::compress(bytes)].concat();
    [(packed.len() as u64).to_le_bytes().to_vec(), packed].concat()
}

/// A crate of this version with all that names layers.
fn sample(version: [u8; 3]) -> Vec<u8> {
    let u64s = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let u32s = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let mut file = [MAGIC, &version, &[0; 5], &[0; 72]].concat();
    let sublayers = file.len();
    file.extend([u64s(&[2]), u32s(&[8, 9])].concat());
    let references = file.len();
    // Explicit, and one that is prepended: string, prim, shift, no dictionary.
    file.extend([vec![1 | 1 << 5], u64s(&[1]), u32s(&[10, 0]), u64s(&[0, 0]), u64s(&[0])].concat());
    let payload = file.len();
    file.extend(u32s(&[11, 0]));
    file.extend(u64s(&[0, 0]));
    let paths = file.len();
    file.extend([u64s(&[1]), u32s(&[12])].concat());
    let inner = file.len();
    file.extend(u64s(&[3]));
    for (key, of) in [
        (5, value(TYPE_ASSET, IS_ARRAY, paths)),
        (6, value(TYPE_ASSET, IS_INLINED, 8)),
        (7, value(TYPE_STRING, IS_INLINED, 13)),
    ] {
        file.extend([u32s(&[key]), u64s(&[8, of])].concat());
    }
    let clips = file.len();
    file.extend([u64s(&[1]), u32s(&[4]), u64s(&[8, value(TYPE_DICTIONARY, 0, inner)])].concat());
    let mut sections = Vec::new();
    let mut section = |file: &mut Vec<u8>, name: &[u8], bytes: Vec<u8>| {
        sections.extend([name, &vec![0; 16 - name.len()], &u64s(&[file.len() as u64, bytes.len() as u64])].concat());
        file.extend(bytes);
    };
    let table: Vec<u8> = TOKENS.iter().flat_map(|token| [token.as_bytes(), b"\0"].concat()).collect();
    section(&mut file, b"TOKENS", [u64s(&[TOKENS.len() as u64, table.len() as u64]), packed(&table)].concat());
    let all: Vec<u32> = (0..TOKENS.len() as u32).collect();
    section(&mut file, b"STRINGS", [u64s(&[all.len() as u64]), u32s(&all)].concat());
    // The numbers 0, 1, 2, 3: the difference 1 three times, and 0 in a byte at the start.
    let numbers = [u32s(&[1]), vec![0b01], vec![0]].concat();
    let values = u64s(&[
        value(TYPE_STRINGS, 0, sublayers),
        value(TYPE_REFERENCES, 0, references),
        value(TYPE_PAYLOAD, 0, payload),
        value(TYPE_DICTIONARY, 0, clips),
    ]);
    section(&mut file, b"FIELDS", [u64s(&[4]), packed(&numbers), packed(&values)].concat());
    let contents = (file.len() as u64).to_le_bytes();
    file[CONTENTS_AT..CONTENTS_AT + 8].copy_from_slice(&contents);
    file.extend([u64s(&[3]), sections].concat());
    file
}

fn names(bytes: &[u8]) -> Option<Vec<String>> {
    let found = Crate::open(&mut Cursor::new(bytes)).ok()?;
    Some(found.named.into_iter().map(|named| named.text).collect())
}

#[test]
fn the_layers_of_all_four_fields_are_found() {
    for version in [[0, 8, 0], [0, 7, 0]] {
        let found = names(&sample(version)).unwrap();
        assert_eq!(found, ["a.usda", "b/c.usdc", "d.usda", "e.usda", "f.usda", "g.##.usda"], "{version:?}");
    }
    let old = Crate::open(&mut Cursor::new(sample([0, 3, 9])));
    assert!(matches!(old, Err(CrateError::Odd(what)) if what.contains("2016")));
}

#[test]
fn a_copy_names_others_and_is_otherwise_the_same() {
    let bytes = sample([0, 8, 0]);
    let found = Crate::open(&mut Cursor::new(&bytes)).ok().unwrap();
    assert_eq!(found.with_tokens(BTreeMap::new()), []);
    let edits = found.with_tokens(BTreeMap::from([(8, "../elsewhere/much longer.usda".into()), (12, "x".into())]));
    let mut copy = Vec::new();
    edited(Cursor::new(&bytes), bytes.len(), edits).unwrap().read_to_end(&mut copy).unwrap();
    let now = ["../elsewhere/much longer.usda", "b/c.usdc", "d.usda", "e.usda", "x", "g.##.usda"];
    assert_eq!(names(&copy).unwrap(), now);
    assert_eq!(copy[24..bytes.len()], bytes[24..]);
}

#[test]
fn damage_never_panics_and_never_takes_much_memory() {
    let seed = 20_261_127;
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let whole = sample([0, 8, 0]);
    for end in 0..whole.len() {
        names(&whole[..end]);
    }
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = *[0, 1, 0x7f, 0x80, 0xff, rng.random()].get(rng.random_range(0..6)).unwrap();
        }
        names(&bytes);
    }
}
