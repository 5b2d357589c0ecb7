//! Sets of frames: as people write them, and as a job has them.
//!
//! Text is parsed here once, into a set that cannot be wrong; everything behind trusts it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Most units in a job (DESIGN §2).
pub const MAX_UNITS: usize = 1_000_000;
/// Most ranges in one set of frames: bounds what a peer can make us hold (guess).
pub const MAX_RANGES: usize = 10_000;

/// `first`, `first + step`, … up to and including `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrameRange {
    /// First frame.
    pub first: i32,
    /// Last frame, ≥ `first`; reached exactly.
    pub last: i32,
    /// Distance between frames, ≥ 1.
    pub step: u32,
}

impl FrameRange {
    /// How many frames.
    pub fn len(&self) -> u64 {
        ((i64::from(self.last) - i64::from(self.first)).max(0) as u64) / u64::from(self.step.max(1)) + 1
    }

    /// A range is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Its frames, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i32> + use<> {
        (i64::from(self.first)..=i64::from(self.last)).step_by(self.step.max(1) as usize).map(|frame| frame as i32)
    }
}

/// A non-empty set of frames, in ascending ranges that do not share a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameSet(Vec<FrameRange>);

/// Why a text names no frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing there.
    #[error("no frames are named; write for example 1-250, 1,5,9 or 1-100x2")]
    Empty,
    /// Not a number, or one out of range.
    #[error(
        "`{0}` in the frames is not a number between -2147483648 and 2147483647; write for example 1-250, 1,5,9 or 1-100x2"
    )]
    NotANumber(String),
    /// First after last.
    #[error("the frames {first}-{last} run backwards; write {last}-{first}")]
    Reversed {
        /// As written.
        first: i32,
        /// As written.
        last: i32,
    },
    /// A step of zero.
    #[error("the step of `{0}` is 0; it must be 1 or more")]
    ZeroStep(String),
    /// Too many.
    #[error("{0} frames are more than the {MAX_UNITS} a job may have; submit it in parts")]
    TooMany(u64),
    /// Too many separate ranges.
    #[error("{0} separate ranges of frames are more than the {MAX_RANGES} a job may have; submit it in parts")]
    TooScattered(usize),
}

impl FrameSet {
    /// One range. Errors when it is reversed or too long.
    pub fn range(first: i32, last: i32, step: u32) -> Result<Self, FrameError> {
        if last < first {
            return Err(FrameError::Reversed { first, last });
        }
        if step == 0 {
            return Err(FrameError::ZeroStep(format!("{first}-{last}x0")));
        }
        Self::from_ranges(vec![FrameRange { first, last, step }])
    }

    fn from_ranges(ranges: Vec<FrameRange>) -> Result<Self, FrameError> {
        let total: u64 = ranges.iter().map(FrameRange::len).sum();
        if total > MAX_UNITS as u64 {
            return Err(FrameError::TooMany(total));
        }
        let frames = ranges.iter().flat_map(FrameRange::iter).collect();
        let set = Self::from_frames(frames).ok_or(FrameError::Empty)?;
        if set.0.len() > MAX_RANGES { Err(FrameError::TooScattered(set.0.len())) } else { Ok(set) }
    }

    /// The set of these frames; `None` when there are none.
    pub fn from_frames(mut frames: Vec<i32>) -> Option<Self> {
        frames.sort_unstable();
        frames.dedup();
        let mut ranges: Vec<FrameRange> = Vec::new();
        for frame in frames {
            match ranges.last_mut() {
                Some(range) if range.first == range.last => {
                    // A range of one takes any step to its second frame, unless that would swallow the start of a run
                    // of another step; two adjacent ones keep it simple and exact.
                    let step = frame.abs_diff(range.first);
                    *range = FrameRange { first: range.first, last: frame, step };
                }
                Some(range) if i64::from(range.last) + i64::from(range.step) == i64::from(frame) => range.last = frame,
                _ => ranges.push(FrameRange { first: frame, last: frame, step: 1 }),
            }
        }
        (!ranges.is_empty()).then_some(Self(ranges))
    }

    /// Its frames, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i32> + '_ {
        self.0.iter().flat_map(FrameRange::iter)
    }

    /// How many frames.
    pub fn len(&self) -> usize {
        self.0.iter().map(|range| range.len() as usize).sum()
    }

    /// A set of frames is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether a frame is in it.
    pub fn contains(&self, frame: i32) -> bool {
        let at = self.0.partition_point(|range| range.last < frame);
        self.0.get(at).is_some_and(|r| r.first <= frame && frame.abs_diff(r.first) % r.step.max(1) == 0)
    }

    /// Which frame in ascending order it is, from 0 on; `None` for one that is not in the set.
    pub fn position(&self, frame: i32) -> Option<usize> {
        let at = self.0.partition_point(|range| range.last < frame);
        let range = self.0.get(at).filter(|_| self.contains(frame))?;
        let before: u64 = self.0[..at].iter().map(FrameRange::len).sum();
        Some(before as usize + (frame.abs_diff(range.first) / range.step.max(1)) as usize)
    }

    /// The frame at a place in ascending order, from 0 on.
    pub fn nth(&self, mut place: usize) -> Option<i32> {
        for range in &self.0 {
            let len = range.len() as usize;
            if place < len {
                let frame = i64::from(range.first) + place as i64 * i64::from(range.step);
                return i32::try_from(frame).ok();
            }
            place -= len;
        }
        None
    }

    /// Whether no frame is left out between the first and the last.
    pub fn is_contiguous(&self) -> bool {
        self.len() as i64 == i64::from(self.last()) - i64::from(self.first()) + 1
    }

    /// First frame.
    pub fn first(&self) -> i32 {
        self.0.first().map_or(0, |range| range.first)
    }

    /// Last frame.
    pub fn last(&self) -> i32 {
        self.0.last().map_or(0, |range| range.last)
    }

    /// Whether a set from a peer keeps the promises of this type.
    pub fn is_sound(&self) -> bool {
        let ranges_hold = self.0.iter().all(|r| {
            r.step >= 1 && r.first <= r.last && (i64::from(r.last) - i64::from(r.first)) % i64::from(r.step) == 0
        });
        let ascending = self.0.windows(2).all(|pair| pair[0].last < pair[1].first);
        let count: u64 = if ranges_hold { self.0.iter().map(FrameRange::len).sum() } else { u64::MAX };
        !self.0.is_empty() && self.0.len() <= MAX_RANGES && ascending && count <= MAX_UNITS as u64
    }
}

impl std::str::FromStr for FrameSet {
    type Err = FrameError;

    /// `1-10x3`, `1..10`, `-10--5`, lists with commas; duplicates count once.
    fn from_str(text: &str) -> Result<Self, FrameError> {
        let number = |word: &str| word.trim().parse::<i32>().map_err(|_| FrameError::NotANumber(word.trim().into()));
        let mut ranges = Vec::new();
        for item in text.split(',') {
            let item = item.trim();
            if item.is_empty() {
                return Err(FrameError::Empty);
            }
            let (span, step) = match item.split_once(['x', 'X', ':']) {
                Some((span, step)) => {
                    (span.trim(), step.trim().parse::<u32>().map_err(|_| FrameError::NotANumber(step.trim().into()))?)
                }
                None => (item, 1),
            };
            if step == 0 {
                return Err(FrameError::ZeroStep(item.into()));
            }
            // The first character may be the sign of the first number.
            let cut = span
                .find("..")
                .map(|at| (at, 2))
                .or_else(|| span.char_indices().skip(1).find(|(_, c)| *c == '-').map(|(at, _)| (at, 1)));
            let (first, last) = match cut {
                Some((at, width)) => (number(&span[..at])?, number(&span[at + width..])?),
                None => (number(span)?, number(span)?),
            };
            if last < first {
                return Err(FrameError::Reversed { first, last });
            }
            let last = first.saturating_add_unsigned(last.abs_diff(first) / step * step);
            ranges.push(FrameRange { first, last, step });
        }
        Self::from_ranges(ranges)
    }
}

impl fmt::Display for FrameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match range {
                FrameRange { first, last, .. } if first == last => write!(f, "{comma}{first}")?,
                FrameRange { first, last, step: 1 } => write!(f, "{comma}{first}-{last}")?,
                FrameRange { first, last, step } => write!(f, "{comma}{first}-{last}x{step}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::farm::job::Series;

    #[track_caller]
    fn check(text: &str, expected: &[i32]) {
        let set: FrameSet = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(set.iter().collect::<Vec<_>>(), expected, "{text}");
        assert_eq!(set.len(), expected.len());
        assert!(set.is_sound());
        for (place, frame) in expected.iter().enumerate() {
            assert_eq!((set.position(*frame), set.nth(place)), (Some(place), Some(*frame)));
        }
        assert_eq!(set.nth(expected.len()), None);
        assert_eq!(
            set.to_string().parse::<FrameSet>().as_ref().map(|s| s.iter().collect::<Vec<_>>()),
            Ok(expected.to_vec())
        );
    }

    #[test]
    fn frames_are_written_as_lists_ranges_steps_and_negatives() {
        check("7", &[7]);
        check("1-4", &[1, 2, 3, 4]);
        check("1..4", &[1, 2, 3, 4]);
        check("1-10x3", &[1, 4, 7, 10]);
        check("1-9x3", &[1, 4, 7]);
        check("-10--8", &[-10, -9, -8]);
        check("-2..1", &[-2, -1, 0, 1]);
        check("5,1-3,2", &[1, 2, 3, 5]);
        check(" 1 - 2 , 4 ", &[1, 2, 4]);
        check("1,3,4,5,9", &[1, 3, 4, 5, 9]);
        check("2147483647", &[i32::MAX]);
    }

    #[test]
    fn what_names_no_frames_is_an_error_that_says_what_to_write() {
        let error = |text: &str| text.parse::<FrameSet>().unwrap_err();
        assert_eq!(error("10-1"), FrameError::Reversed { first: 10, last: 1 });
        assert_eq!(error(""), FrameError::Empty);
        assert_eq!(error("1,,2"), FrameError::Empty);
        assert_eq!(error("abc"), FrameError::NotANumber("abc".into()));
        assert_eq!(error("1-"), FrameError::NotANumber(String::new()));
        assert_eq!(error("1-5x0"), FrameError::ZeroStep("1-5x0".into()));
        assert_eq!(error("99999999999"), FrameError::NotANumber("99999999999".into()));
        assert!(matches!(error("-2147483648-2147483647"), FrameError::TooMany(_)));
        // Written one by one, a range is still one; squares have no common step.
        let listed = |frames: Vec<i32>| frames.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(listed((1..40_000).step_by(2).collect()).parse::<FrameSet>().unwrap().to_string(), "1-39999x2");
        let squares = listed((0..30_000).map(|n| n * n).collect());
        assert!(matches!(error(&squares), FrameError::TooScattered(15_000)));
    }

    #[test]
    fn no_text_makes_a_parser_of_frames_panic() {
        let seeds = ["1-10x3,20", "-10--5", "1..4", "2147483647", "1-1000000"].map(|text| text.as_bytes().to_vec());
        crate::fuzz::fuzz("frames", crate::fuzz::ROUNDS, seeds.into(), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let set = text.parse::<FrameSet>();
            assert!(set.as_ref().is_ok_and(FrameSet::is_sound) || set.is_err());
            (set.map(drop).map_err(|error| std::mem::discriminant(&error)), text.parse::<Series>().is_ok())
        });
    }
}
