//! Which frames are encoded together, and when: a pure account of what has arrived and what is encoded.
//!
//! A video is cut into segments of [`SEGMENT`] frames at fixed places. A segment is encoded when its frames are all
//! there, whatever the order they came in. Near the end that would leave a whole segment to encode after the last
//! frame, so from [`TAIL`] absent frames on shorter and shorter runs are taken, down to single frames: every piece
//! starts with a key frame, which costs bytes, and only the tail pays. It must never look at a file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

/// Frames of a segment: a key frame a second at 24 fps, so that scrubbing is quick, at about a tenth more bytes than
/// one every ten seconds (guess). A longer one makes memory and the work lost at a kill larger.
pub(super) const SEGMENT: usize = 24;
/// With so many frames absent or fewer the tail begins. Encoding twice as fast as frames arrive, the encoder then has
/// time for 64 frames, more than two segments with holes (reasoned, not measured).
pub(super) const TAIL: usize = 32;
/// In the tail a run is taken when it has at least one frame for every four that are absent (guess): pieces shrink
/// as the end comes near, and at four absent frames nothing waits any more.
const ABSENT_PER_FRAME: usize = 4;

/// What a file was when it was added: a file with another stamp is another image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Stamp {
    /// Bytes.
    pub len: u64,
    /// Time of the last change, nanoseconds since 1970.
    pub modified_ns: u64,
}

/// The image of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub path: PathBuf,
    pub stamp: Stamp,
}

/// An encoded run of frames. It counts once every frame of it has come in as it was when it was encoded.
#[derive(Debug)]
struct Piece {
    stamps: Vec<Stamp>,
    matched: usize,
}

/// What has arrived, what is encoded, what is next. Frames are named by their place in the video, from 0.
#[derive(Debug)]
pub(super) struct Plan {
    sources: Vec<Option<Source>>,
    pieces: BTreeMap<usize, Piece>,
    absent: usize,
    /// Segments with a frame that has come and is in no piece.
    touched: BTreeSet<usize>,
}

impl Plan {
    pub fn new(frames: usize) -> Self {
        Self { sources: vec![None; frames], pieces: BTreeMap::new(), absent: frames, touched: BTreeSet::new() }
    }

    /// Takes a piece encoded before a restart. False when it does not fit, and is of no use.
    pub fn remember(&mut self, range: Range<usize>, stamps: Vec<Stamp>) -> bool {
        let fits = range.start < range.end
            && range.end <= self.sources.len()
            && range.len() == stamps.len()
            && range.start / SEGMENT == (range.end - 1) / SEGMENT
            && range.clone().all(|index| self.piece_at(index).is_none());
        if fits {
            self.pieces.insert(range.start, Piece { stamps, matched: 0 });
        }
        fits
    }

    /// A frame has come. Returns the piece that it makes worthless, if any.
    pub fn put(&mut self, index: usize, source: Source) -> Option<Range<usize>> {
        let slot = self.sources.get_mut(index)?;
        let before = slot.as_ref().map(|old| old.stamp);
        let stamp = source.stamp;
        *slot = Some(source);
        match before {
            None => self.absent -= 1,
            // The same image again, perhaps at another place.
            Some(old) if old == stamp => return None,
            Some(_) => {}
        }
        let Some(range) = self.piece_at(index) else {
            self.touched.insert(index / SEGMENT);
            return None;
        };
        let piece = self.pieces.get_mut(&range.start)?;
        if before.is_none() && piece.stamps.get(index - range.start) == Some(&stamp) {
            piece.matched += 1;
            return None;
        }
        self.pieces.remove(&range.start);
        self.touched.insert(index / SEGMENT);
        Some(range)
    }

    /// The source of a frame that has come.
    pub fn source(&self, index: usize) -> Option<&Source> {
        self.sources.get(index)?.as_ref()
    }

    /// Fills every absent frame with the one before it, or with the first there is. Returns the places filled and the
    /// pieces that became worthless; `None` when no frame has come at all.
    pub fn hold_absent(&mut self) -> Option<(Vec<usize>, Vec<Range<usize>>)> {
        let mut last = self.sources.iter().flatten().next()?.clone();
        let (mut held, mut dropped) = (Vec::new(), Vec::new());
        for index in 0..self.sources.len() {
            match self.source(index) {
                Some(source) => last = source.clone(),
                None => {
                    held.push(index);
                    dropped.extend(self.put(index, last.clone()));
                }
            }
        }
        Some((held, dropped))
    }

    /// The run to encode next: what is left of a segment when all of it is there, or in the tail the longest run that
    /// is long enough.
    pub fn next(&mut self) -> Option<Range<usize>> {
        let mut best: Option<Range<usize>> = None;
        let mut settled = Vec::new();
        for &segment in &self.touched {
            let mut open = false;
            for gap in self.gaps(segment) {
                open = true;
                for run in self.runs(gap.clone()) {
                    if run == gap {
                        return Some(run);
                    }
                    if best.as_ref().is_none_or(|best| run.len() > best.len()) {
                        best = Some(run);
                    }
                }
            }
            if !open {
                settled.push(segment);
            }
        }
        for segment in settled {
            self.touched.remove(&segment);
        }
        let least = self.absent.div_ceil(ABSENT_PER_FRAME).max(1);
        best.filter(|run| self.absent <= TAIL && run.len() >= least)
    }

    /// A run has been encoded from images with these stamps. False when one of them has changed since.
    pub fn encoded(&mut self, range: Range<usize>, stamps: Vec<Stamp>) -> bool {
        let current = range.clone().zip(&stamps).all(|(i, stamp)| self.source(i).is_some_and(|s| s.stamp == *stamp));
        if current {
            self.pieces.insert(range.start, Piece { matched: stamps.len(), stamps });
        }
        current
    }

    /// All pieces in order, when they are the whole video.
    pub fn whole(&self) -> Option<Vec<Range<usize>>> {
        let mut next = 0;
        let mut ranges = Vec::with_capacity(self.pieces.len());
        for (&start, piece) in &self.pieces {
            if start != next || piece.matched < piece.stamps.len() {
                return None;
            }
            next = start + piece.stamps.len();
            ranges.push(start..next);
        }
        (next == self.sources.len()).then_some(ranges)
    }

    fn piece_at(&self, index: usize) -> Option<Range<usize>> {
        let (&start, piece) = self.pieces.range(..=index).next_back()?;
        let range = start..start + piece.stamps.len();
        range.contains(&index).then_some(range)
    }

    /// The parts of a segment that no piece covers.
    fn gaps(&self, segment: usize) -> Vec<Range<usize>> {
        let end = ((segment + 1) * SEGMENT).min(self.sources.len());
        runs_of(segment * SEGMENT..end, |index| self.piece_at(index).is_none())
    }

    /// The parts of a gap that have come.
    fn runs(&self, gap: Range<usize>) -> Vec<Range<usize>> {
        runs_of(gap, |index| self.source(index).is_some())
    }
}

fn runs_of(range: Range<usize>, is_in: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for index in range.filter(|&index| is_in(index)) {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn source(index: usize, version: u64) -> Source {
        Source { path: format!("/frames/{index}").into(), stamp: Stamp { len: index as u64, modified_ns: version } }
    }

    fn stamps(range: Range<usize>) -> Vec<Stamp> {
        range.map(|index| source(index, 1).stamp).collect()
    }

    fn encode_all(plan: &mut Plan) -> Vec<Range<usize>> {
        let mut done = Vec::new();
        while let Some(run) = plan.next() {
            assert!(plan.encoded(run.clone(), stamps(run.clone())));
            done.push(run);
        }
        done
    }

    #[test]
    fn a_segment_is_taken_when_its_last_frame_comes_whatever_the_order() {
        let mut plan = Plan::new(10 * SEGMENT);
        for index in (1..SEGMENT).rev() {
            plan.put(index, source(index, 1));
            assert_eq!(plan.next(), None);
        }
        plan.put(0, source(0, 1));
        assert_eq!(plan.next(), Some(0..SEGMENT));
    }

    #[test]
    fn near_the_end_no_more_than_a_frame_waits_for_the_last_one() {
        let mut plan = Plan::new(100);
        // Each tenth frame comes late.
        for index in (0..100).filter(|index| index % 10 != 5).chain((0..10).map(|ten| ten * 10 + 5)) {
            plan.put(index, source(index, 1));
            let last = index == 95;
            let done = encode_all(&mut plan);
            assert!(!last || done.iter().map(Range::len).sum::<usize>() == 1, "{done:?}");
        }
        assert_eq!(plan.whole().unwrap().iter().map(Range::len).sum::<usize>(), 100);
    }

    #[test]
    fn a_remembered_piece_counts_once_its_frames_are_there_and_unchanged() {
        let mut plan = Plan::new(SEGMENT * 2);
        assert!(plan.remember(0..SEGMENT, stamps(0..SEGMENT)));
        assert!(!plan.remember(4..8, stamps(4..8)), "overlap");
        assert!(!plan.remember(SEGMENT..SEGMENT * 3, stamps(SEGMENT..SEGMENT * 3)), "too long");
        assert!(plan.remember(SEGMENT..SEGMENT * 2, stamps(SEGMENT..SEGMENT * 2)));
        for index in 0..SEGMENT * 2 {
            let version = if index == SEGMENT + 3 { 2 } else { 1 };
            let dropped = plan.put(index, source(index, version));
            assert_eq!(dropped.is_some(), version == 2);
        }
        assert_eq!(plan.next(), Some(SEGMENT..SEGMENT * 2));
    }

    #[test]
    fn an_image_that_changed_while_it_was_encoded_is_encoded_again() {
        let mut plan = Plan::new(4);
        for index in 0..4 {
            plan.put(index, source(index, 1));
        }
        assert_eq!(plan.next(), Some(0..4));
        plan.put(2, source(2, 9));
        assert!(!plan.encoded(0..4, stamps(0..4)));
        assert_eq!(plan.next(), Some(0..4));
    }

    #[test]
    fn absent_frames_hold_the_one_before_or_the_first_there_is() {
        let mut plan = Plan::new(6);
        plan.put(2, source(2, 1));
        plan.put(4, source(4, 1));
        let (held, _) = plan.hold_absent().unwrap();
        assert_eq!(held, [0, 1, 3, 5]);
        let paths: Vec<_> = (0..6).map(|i| plan.source(i).unwrap().stamp.len).collect();
        assert_eq!(paths, [2, 2, 2, 2, 4, 4]);
        assert!(Plan::new(3).hold_absent().is_none());
    }
}
