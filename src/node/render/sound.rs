//! The file of sound that Blender mixes: whether it is what was asked for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes up to the end of the length, in the one block that every FLAC file begins with (RFC 9639, section 8.2).
const HEAD_BYTES: usize = 26;
/// Bits of the number of samples, and those before the rate's end.
const SAMPLES_BITS: u32 = 36;
const RATE_SHIFT: u32 = 44;

/// How long the FLAC file at `path` says it is, seconds. What is in it is decoded where it is used.
pub(super) fn flac_seconds(path: &Path) -> io::Result<f64> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; HEAD_BYTES];
    File::open(path)?.read_exact(&mut head)?;
    let Some(&numbers) = head.last_chunk::<8>().filter(|_| head.starts_with(b"fLaC")) else {
        return Err(bad("it is no FLAC file"));
    };
    let numbers = u64::from_be_bytes(numbers);
    let (rate, samples) = (numbers >> RATE_SHIFT, numbers & ((1 << SAMPLES_BITS) - 1));
    if rate == 0 || samples == 0 {
        return Err(bad("it has no length"));
    }
    Ok(samples as f64 / rate as f64)
}
