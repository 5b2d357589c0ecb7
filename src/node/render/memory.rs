//! Whether a Blender that lives on has come to hold more memory than its scene needs.
//!
//! What the first units left in use is what the scene needs: Blender keeps it between units on purpose. A frame may well
//! need more than the first ones did, so half as much again is allowed, and never less than [`SPARE_BYTES`]. Beyond that it
//! is taken for a leak, and the next unit gets a new Blender; where the scene really grew, that costs one start.

use std::time::Duration;
use tokio::time::Instant;

/// Units after which a scene has in memory what it needs (guess: the first loads it, the next fill caches).
const SETTLED_UNITS: u32 = 3;
/// Growth that is never held against a Blender, bytes (guess: textures of a few frames).
pub(super) const SPARE_BYTES: u64 = 512 * 1024 * 1024;
/// Between two looks once it has settled: a look takes some milliseconds, and frames may be as short.
const LOOK: Duration = Duration::from_secs(10);

/// What is known of a Blender's memory.
#[derive(Debug)]
pub(super) struct Memory {
    units: u32,
    needed_bytes: u64,
    spare_bytes: u64,
    looked_at: Option<Instant>,
}

impl Memory {
    /// Of a Blender that has rendered nothing yet.
    pub fn new(spare_bytes: u64) -> Self {
        Self { units: 0, needed_bytes: 0, spare_bytes, looked_at: None }
    }

    /// The next unit is looked at, however soon.
    #[cfg(test)]
    pub fn look_again(&mut self) {
        self.looked_at = None;
    }

    /// Another unit is rendered. Why the Blender should render no more, if so; `bytes` tells what it has in use.
    pub fn rendered(&mut self, bytes: impl FnOnce() -> Option<u64>, now: Instant) -> Option<String> {
        self.units = self.units.saturating_add(1);
        let settled = self.units > SETTLED_UNITS;
        if settled && self.looked_at.is_some_and(|at| now.saturating_duration_since(at) < LOOK) {
            return None;
        }
        self.looked_at = Some(now);
        let bytes = bytes()?;
        if !settled {
            self.needed_bytes = self.needed_bytes.max(bytes);
            return None;
        }
        let most = self.needed_bytes + (self.needed_bytes / 2).max(self.spare_bytes);
        let mebibytes = |bytes: u64| bytes / (1024 * 1024);
        (bytes > most).then(|| {
            format!(
                "this Blender has grown to {} MiB over {} frames, and had {} MiB after its first; the next frame gets a new one",
                mebibytes(bytes),
                self.units,
                mebibytes(self.needed_bytes),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Whether a Blender with so many MiB in use after each unit is to go, unit after unit, a minute apart.
    fn goes(mebibytes: &[u64]) -> Vec<bool> {
        let (mut memory, start) = (Memory::new(SPARE_BYTES), Instant::now());
        let units = mebibytes.iter().zip(1..);
        units
            .map(|(mib, n)| memory.rendered(|| Some(mib * MIB), start + n * Duration::from_secs(60)).is_some())
            .collect()
    }

    #[test]
    fn what_the_first_frames_needed_and_half_as_much_again_is_no_leak() {
        assert_eq!(goes(&[200, 300, 250, 812, 813]), [false, false, false, false, true], "a small scene: 512 MiB more");
        assert_eq!(goes(&[2000, 4000, 100, 6000, 6001]), [false, false, false, false, true], "a large one: half more");
    }

    #[test]
    fn short_frames_are_not_slowed_down_by_looking_and_where_nothing_is_told_nothing_grows() {
        let (mut memory, start, mut looks) = (Memory::new(SPARE_BYTES), Instant::now(), 0);
        for unit in 0..100u32 {
            let bytes = || {
                looks += 1;
                Some(MIB)
            };
            assert_eq!(memory.rendered(bytes, start + unit * Duration::from_millis(100)), None);
        }
        assert_eq!(looks, 3);
        let mut memory = Memory::new(0);
        assert!((0..9).all(|unit| memory.rendered(|| None, start + unit * LOOK).is_none()));
    }
}
