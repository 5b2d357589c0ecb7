//! A file with some of its bytes replaced by more or fewer, read as a stream.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

/// Some bytes of a file and what shall stand there instead, which may be longer or shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub field: Range<usize>,
    pub bytes: Vec<u8>,
}

/// A file of `len` bytes with the edits made. `None` if they do not fit into it or overlap.
pub(super) fn edited<R: Read + Seek>(source: R, len: usize, mut edits: Vec<Edit>) -> Option<Pieces<R>> {
    edits.sort_by(|a, b| (a.field.start, &a.bytes).cmp(&(b.field.start, &b.bytes)));
    // Two datablocks may share one text.
    edits.dedup();
    let apart = edits.windows(2).all(|pair| pair[0].field.end <= pair[1].field.start);
    let fit = edits.iter().all(|edit| edit.field.start <= edit.field.end && edit.field.end <= len);
    (apart && fit).then(|| Pieces { source, len, edits: edits.into(), at: 0 })
}

/// Reads a file with its edits in place.
pub(super) struct Pieces<R> {
    /// Stands at `at`.
    source: R,
    len: usize,
    edits: VecDeque<Edit>,
    at: usize,
}

impl<R: Read + Seek> Read for Pieces<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(edit) = self.edits.front_mut().filter(|edit| edit.field.start == self.at) {
            if edit.bytes.is_empty() {
                self.at = edit.field.end;
                self.source.seek(SeekFrom::Start(self.at as u64))?;
                self.edits.pop_front();
                continue;
            }
            let read = (&*edit.bytes).read(buf)?;
            edit.bytes.drain(..read);
            return Ok(read);
        }
        let end = self.edits.front().map_or(self.len, |edit| edit.field.start);
        let most = buf.len().min(end.saturating_sub(self.at));
        let read = self.source.read(&mut buf[..most])?;
        self.at += read;
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn spliced(edits: &[(Range<usize>, &str)]) -> Option<String> {
        let edits = edits.iter().map(|(field, text)| Edit { field: field.clone(), bytes: text.as_bytes().to_vec() });
        let mut text = String::new();
        edited(Cursor::new("0123456789"), 10, edits.collect())?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn edits_may_be_longer_shorter_empty_and_at_both_ends() {
        assert_eq!(spliced(&[]).unwrap(), "0123456789");
        assert_eq!(spliced(&[(8..10, "xyz"), (0..1, ""), (4..4, "-")]).unwrap(), "123-4567xyz");
        assert_eq!(spliced(&[(10..10, "end"), (0..0, "start")]).unwrap(), "start0123456789end");
    }

    #[test]
    fn edits_that_overlap_or_lie_outside_are_refused() {
        assert_eq!((spliced(&[(0..3, "a"), (2..4, "b")]), spliced(&[(9..11, "")])), (None, None));
    }
}
