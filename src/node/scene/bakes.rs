//! Which frames a bake has: one that was broken off, or of which files got lost, looks baked to whoever asks Blender.
//!
//! Beyond its bake most of what is simulated stays as it is, and so comes out the same in any order; rigid bodies and
//! particles are simulated on from wherever Blender came from (measured with 3.4 and 4.5).

use super::SceneError;
use super::caches::{EXTERNAL, NOT_BESIDE_LIBRARY, ON_DISK, file_head};
use super::disk::{caches_of, located};
use super::dna::{Blend, Record};
use super::maps::PathMap;
use super::names::os_bytes;
use super::refs::Budget;
use crate::farm::frames::FrameSet;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Names in a folder that count as one more step of following a scene.
const NAMES_A_STEP: usize = 64;
/// Folders of a fluid's cache that have a file for each frame.
const FLUID_FOLDERS: [&str; 2] = ["config", "data"];

/// Something baked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bake {
    /// Name of the object, or of the scene whose rigid bodies they are.
    pub object: String,
    /// What is baked, for people.
    pub cache: String,
    /// Where the simulation begins.
    pub start: i32,
    /// The frames it has, ascending; first and last of each run, between which Blender fills in what is left out.
    pub runs: Vec<(i32, i32)>,
}

impl Bake {
    /// Which of the frames asked for are to be simulated and are not in it.
    pub fn lacks(&self, frames: &FrameSet) -> Option<FrameSet> {
        let has = |frame: i32| {
            let after = self.runs.partition_point(|(first, _)| *first <= frame);
            after.checked_sub(1).and_then(|at| self.runs.get(at)).is_some_and(|(_, last)| *last >= frame)
        };
        FrameSet::from_frames(frames.iter().filter(|frame| *frame > self.start && !has(*frame)).collect())
    }
}

/// What is on disk beside a .blend, each folder listed once.
pub(super) struct Folders<'a> {
    /// The .blend, and the one that is rendered.
    pub path: &'a Path,
    pub main: &'a Path,
    /// Where stored paths are here.
    pub maps: &'a [PathMap],
    /// The frames of each cache in a folder by what else is in the names of its files.
    listed: BTreeMap<PathBuf, BTreeMap<Vec<u8>, Vec<i32>>>,
}

impl<'a> Folders<'a> {
    pub fn of(path: &'a Path, main: &'a Path, maps: &'a [PathMap]) -> Self {
        Self { path, main, maps, listed: BTreeMap::new() }
    }

    /// Where a path stored in the .blend leads.
    pub fn located(&self, stored: &[u8]) -> PathBuf {
        located(self.path.parent().unwrap_or(Path::new("/")), stored, self.maps)
    }

    /// Frames of a point cache that is baked or external; `None` where its folder has none, which is told as missing.
    pub fn point_cache(
        &mut self,
        blend: &Blend,
        cache: &Record<'_>,
        budget: &mut Budget,
    ) -> Result<Option<Vec<i32>>, SceneError> {
        let flag = cache.int("flag").unwrap_or(0);
        if flag & (EXTERNAL | ON_DISK) == 0 {
            let mut frames = Vec::new();
            for one in cache.list("mem_cache") {
                budget.take(1, 0)?;
                frames.extend(one.int("frame").and_then(|frame| i32::try_from(frame).ok()));
            }
            return Ok(Some(frames));
        }
        let folder = match (flag & EXTERNAL != 0, flag & NOT_BESIDE_LIBRARY != 0) {
            (true, _) => self.located(cache.text("path").unwrap_or_default()),
            (false, false) => caches_of(self.path),
            (false, true) => caches_of(self.main),
        };
        let mut name = file_head(blend, cache);
        if let Some(index) = cache.int("index").filter(|index| *index >= 0) {
            name.extend(format!("_{index:02}").into_bytes());
        }
        if !self.listed.contains_key(&folder) {
            let mut frames: BTreeMap<Vec<u8>, Vec<i32>> = BTreeMap::new();
            for file in names_in(&folder, budget)? {
                let Some(stem) = file.strip_suffix(b".bphys") else { continue };
                for (name, frame) in readings(stem) {
                    frames.entry(name).or_default().push(frame);
                }
            }
            self.listed.insert(folder.clone(), frames);
        }
        Ok(self.listed.get(&folder).and_then(|frames| frames.get(&name)).cloned())
    }

    /// Frames of a fluid's cache.
    pub fn fluid(&self, domain: &Record<'_>, budget: &mut Budget) -> Result<Vec<i32>, SceneError> {
        let stored = domain.text("cache_directory").unwrap_or_default();
        budget.take(0, stored.len())?;
        let directory = self.located(stored);
        let mut frames = Vec::new();
        for folder in FLUID_FOLDERS {
            let names = names_in(&directory.join(folder), budget)?;
            // `fluid_data_0001.vdb`
            let frame = |name: &Vec<u8>| {
                let stem = name.split(|byte| *byte == b'.').next()?;
                number(stem.rsplit(|byte| *byte == b'_').next()?)
            };
            frames.extend(names.iter().filter_map(frame));
        }
        Ok(frames)
    }
}

/// Frames of a bake of geometry nodes in a folder.
pub(super) fn nodes_in(folder: &Path, budget: &mut Budget) -> Result<Vec<i32>, SceneError> {
    let names = names_in(&folder.join("meta"), budget)?;
    Ok(names.iter().filter_map(|name| frame_of_node(name)).collect())
}

/// Of the name of a file with what is baked for a frame: `00001_00000.json`.
pub(super) fn frame_of_node(name: &[u8]) -> Option<i32> {
    number(name.split(|byte| matches!(byte, b'_' | b'.')).next()?)
}

/// The frames in runs, over gaps of less than `step`, as far as they are within the simulation.
pub(super) fn runs(mut frames: Vec<i32>, (start, end): (i32, i32), step: i32) -> Vec<(i32, i32)> {
    frames.retain(|frame| (start..=end).contains(frame));
    frames.sort_unstable();
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for frame in frames {
        match runs.last_mut() {
            Some((_, last)) if frame.saturating_sub(*last) <= step.max(1) => *last = frame,
            _ => runs.push((frame, frame)),
        }
    }
    runs
}

/// What a name may mean: `NAME_FRAME_INDEX`, or `NAME_FRAME`. What is not the frame tells caches apart.
fn readings(stem: &[u8]) -> impl Iterator<Item = (Vec<u8>, i32)> {
    let cut = |name: &[u8]| {
        let at = name.iter().rposition(|byte| *byte == b'_')?;
        Some((name[..at].to_vec(), name[at + 1..].to_vec()))
    };
    let plain = cut(stem).and_then(|(name, frame)| Some((name, number(&frame)?)));
    let indexed = cut(stem).and_then(|(rest, index)| {
        number(&index)?;
        let (name, frame) = cut(&rest)?;
        Some(([name, b"_".to_vec(), index].concat(), number(&frame)?))
    });
    plain.into_iter().chain(indexed)
}

fn number(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn names_in(folder: &Path, budget: &mut Budget) -> Result<Vec<Vec<u8>>, SceneError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        names.push(os_bytes(&entry.file_name()));
        if names.len() % NAMES_A_STEP == 0 {
            budget.take(1, 0)?;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bake_lacks_what_is_behind_it_and_what_is_left_out_by_more_than_its_step() {
        let lacks = |frames: &[i32], step: i32, asked: &str| {
            let bake = Bake {
                object: "Cube".into(),
                cache: "cloth".into(),
                start: 1,
                runs: runs(frames.to_vec(), (1, 20), step),
            };
            let asked = asked.parse::<FrameSet>().unwrap_or_else(|error| panic!("{asked}: {error}"));
            bake.lacks(&asked).map(|lacked| lacked.to_string())
        };
        // 0 is the file that says how long each particle lives.
        assert_eq!(lacks(&[0, 3, 2, 1, 4], 1, "-3-4"), None);
        assert_eq!(lacks(&[1, 2, 3, 4], 1, "1-9").as_deref(), Some("5-9"));
        assert_eq!(lacks(&[1, 2, 5, 6], 1, "1-6").as_deref(), Some("3-4"));
        assert_eq!(lacks(&[1, 2, 5, 6], 3, "1-6"), None);
        assert_eq!(lacks(&[1, 2, 3, 30], 1, "2-3"), None);
        assert_eq!(lacks(&[], 1, "1"), None);
        assert_eq!(lacks(&[], 1, "1-2").as_deref(), Some("2"));
    }

    #[test]
    fn the_frame_in_a_name_stands_before_the_index_or_last() {
        let read = |stem: &str| -> Vec<(String, i32)> {
            let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
            readings(stem.as_bytes()).map(|(name, frame)| (text(name), frame)).collect()
        };
        assert_eq!(read("4375_000012_00"), [("4375_000012".into(), 0), ("4375_00".into(), 12)]);
        assert_eq!(read("my smoke_-00003"), [("my smoke".into(), -3)]);
        assert_eq!(read("x"), []);
        assert_eq!(frame_of_node(b"00012_50000.json"), Some(12));
    }
}
