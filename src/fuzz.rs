//! Fuzzing on stable, in process: bytes are changed at random and thrown at a decoder, which may refuse them and must do
//! nothing worse.
//!
//! What guides it is the outcome: a decoder under test says in a word what came of the bytes (an error's text, a kind),
//! and bytes with a new outcome are changed further. So are the files of `tests/corpus-fuzz/NAME`, which every run replays
//! first. `SWARM_FUZZ_ROUNDS=1000000` makes a run longer, `SWARM_FUZZ_SEED=7` another, and `SWARM_FUZZ_SAVE=1` writes what
//! was new into the corpus. When a decoder panics, the bytes are printed; they belong into the corpus with the mend.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

/// Rounds of a cheap decoder in the gate (guess: a fraction of a second of an unoptimised build).
pub const ROUNDS: usize = 3000;
/// Most bytes of what is changed further: a corpus is small files.
const BYTES_MAX: usize = 4 * 1024;
/// Most inputs that are changed further, beside those given.
const POOL_MAX: usize = 256;
/// Most inputs that one run adds to a corpus.
const KEPT_MAX: usize = 12;
/// Bytes that lengths, counts and tags like to be.
const EDGES: [u8; 12] = [0, 1, 2, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, b'/'];

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus-fuzz").join(name)
}

/// The files of a corpus, by name.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(corpus(name)).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

/// Throws `seeds`, the corpus called `name` and changes of both at `decode`, `rounds` times unless the environment says
/// otherwise. `decode` answers with what came of the bytes: alike for alike, so without what differs in every case.
pub fn fuzz<O: Debug>(name: &str, rounds: usize, seeds: Vec<Vec<u8>>, mut decode: impl FnMut(&[u8]) -> O) {
    let mut rng = StdRng::seed_from_u64(number("SWARM_FUZZ_SEED").unwrap_or(7) as u64);
    let rounds = number("SWARM_FUZZ_ROUNDS").unwrap_or(rounds);
    let mut outcomes = BTreeSet::new();
    let mut pool = seeds;
    pool.extend(kept(name));
    assert!(!pool.is_empty(), "no seeds for {name}");
    let given = pool.len();
    let mut attempt = |bytes: &[u8]| {
        let outcome = catch_unwind(AssertUnwindSafe(|| decode(bytes))).unwrap_or_else(|panic| {
            eprintln!("{name}: these {} bytes panic: {}", bytes.len(), hex(bytes));
            resume_unwind(panic)
        });
        let mut outcome = format!("{outcome:?}");
        // What a message names is not what it says.
        outcome.retain(|letter| !letter.is_ascii_digit());
        outcome
    };
    for bytes in &pool {
        outcomes.insert(attempt(bytes));
    }
    for _ in 0..rounds {
        let mut bytes = pool[rng.random_range(0..pool.len())].clone();
        for _ in 0..rng.random_range(1..5) {
            change(&mut bytes, &pool, &mut rng);
        }
        let is_new = outcomes.insert(attempt(&bytes));
        if is_new && bytes.len() <= BYTES_MAX && pool.len() < given + POOL_MAX {
            pool.push(bytes);
        }
    }
    println!("{name}: {given} given, {rounds} rounds, {} outcomes", outcomes.len());
    if std::env::var_os("SWARM_FUZZ_SAVE").is_some() {
        save(name, &pool[given..]);
    }
}

fn save(name: &str, new: &[Vec<u8>]) {
    std::fs::create_dir_all(corpus(name)).unwrap();
    for bytes in new.iter().take(KEPT_MAX) {
        let file = &hex(blake3::hash(bytes).as_bytes())[..16];
        std::fs::write(corpus(name).join(file), bytes).unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One change somewhere.
fn change(bytes: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut StdRng) {
    if bytes.is_empty() {
        bytes.push(rng.random());
        return;
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..9) {
        0 => bytes[at] = rng.random(),
        1 => bytes[at] = EDGES[rng.random_range(0..EDGES.len())],
        2 => bytes[at] ^= 1 << rng.random_range(0..8),
        3 => bytes[at] = bytes[at].wrapping_add(if rng.random() { 1 } else { 255 }),
        4 => bytes.truncate(at),
        5 => bytes.insert(at, EDGES[rng.random_range(0..EDGES.len())]),
        6 => {
            let end = bytes.len().min(at + rng.random_range(1..9));
            bytes.drain(at..end);
        }
        7 => {
            // A number of four bytes, at an edge.
            let value: u32 = [0, 1, u32::MAX, i32::MAX as u32, 1 << 31, bytes.len() as u32][rng.random_range(0..6)];
            let value = if rng.random() { value.to_le_bytes() } else { value.to_be_bytes() };
            bytes.iter_mut().skip(at).zip(value).for_each(|(byte, new)| *byte = new);
        }
        _ => {
            // The rest of another.
            let other = &pool[rng.random_range(0..pool.len())];
            let from = rng.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}
