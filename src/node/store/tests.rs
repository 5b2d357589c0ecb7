#![allow(clippy::unwrap_used)]
pub(super) fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut out = vec![0; n];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}
