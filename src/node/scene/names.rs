//! The place of a file in a bundle: `f/<short hash>/<safe name>`, or in folders below that where Blender looks there.
//!
//! The hash is of the directory the file came from, so that what lies together stays together and numbered sequences
//! and UDIM tiles keep working. The name is kept when it is plain ASCII that every system accepts; else it is cleaned
//! and carries a hash of what was cleaned away. Only the part before the number and the part behind it change, never
//! the number, and two names that differ in case alone stay apart on disks that ignore case.

use super::layout::is_safe_name;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Longest kept part before the number, bytes (guess: with hash, number and suffix well within any system's limit).
const HEAD_MAX_BYTES: usize = 64;
/// Longest kept part behind the number, bytes (guess).
const TAIL_MAX_BYTES: usize = 24;
/// Longest number kept as such, bytes; `<UVTILE>` and frame numbers are shorter.
const NUMBER_MAX_BYTES: usize = 20;

/// The bytes of a path as the system holds them.
pub(super) fn os_bytes(text: &OsStr) -> Vec<u8> {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStrExt::as_bytes(text).to_vec();
    #[cfg(not(unix))]
    return text.to_string_lossy().replace('\\', "/").into_bytes();
}

/// A path from bytes stored in a .blend; on systems whose paths are not bytes, what is not UTF-8 is replaced.
pub(super) fn os_path(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    return PathBuf::from(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes));
    #[cfg(not(unix))]
    return PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
}

/// A file name cut around its number: what is before it, the number (or tile token), what is behind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Split {
    pub head: Vec<u8>,
    pub number: Vec<u8>,
    pub tail: Vec<u8>,
}

impl Split {
    /// Around a tile token, or the last run of digits before the extension.
    pub fn of(name: &[u8]) -> Self {
        for token in [b"<UDIM>".as_slice(), b"<UVTILE>"] {
            if let Some(at) = name.windows(token.len()).position(|window| window == token) {
                return Self::at(name, at, at + token.len());
            }
        }
        let stem = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0).unwrap_or(name.len());
        let end = name[..stem].iter().rposition(u8::is_ascii_digit).map_or(stem, |last| last + 1);
        let start = name[..end].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
        if end - start > NUMBER_MAX_BYTES { Self::at(name, stem, stem) } else { Self::at(name, start.min(end), end) }
    }

    /// Around the ending of one of `views`, such as `_L` before the extension; without one as [`Split::of`] cuts.
    pub fn of_view(name: &[u8], views: &[Vec<u8>]) -> Self {
        let stem = name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len());
        let view = views.iter().find(|view| name.get(..stem).is_some_and(|stem| stem.ends_with(view)));
        view.map_or_else(|| Self::of(name), |view| Self::at(name, stem - view.len(), stem))
    }

    /// The same name with another number.
    pub fn with(&self, number: Vec<u8>) -> Self {
        Self { head: self.head.clone(), number, tail: self.tail.clone() }
    }

    /// `name` cut in the same places, if it is this one with some number and maybe in another case.
    pub fn member(&self, name: &[u8]) -> Option<Self> {
        let end = name.len().checked_sub(self.tail.len())?;
        let number = name.get(self.head.len()..end)?;
        let member = Self::at(name, self.head.len(), end);
        let same = member.head.eq_ignore_ascii_case(&self.head) && member.tail.eq_ignore_ascii_case(&self.tail);
        (same && is_number(number, self.number == b"<UVTILE>")).then_some(member)
    }

    /// The whole name.
    pub fn joined(&self) -> Vec<u8> {
        [&*self.head, &*self.number, &*self.tail].concat()
    }

    fn at(name: &[u8], start: usize, end: usize) -> Self {
        Self { head: name[..start].to_vec(), number: name[start..end].to_vec(), tail: name[end..].to_vec() }
    }
}

/// Whether `text` is a frame's number, or a tile as `<UVTILE>` stands for.
pub(super) fn is_number(text: &[u8], tile: bool) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if !tile {
        return digits(text) && text.len() <= 20;
    }
    let cut = text.windows(2).position(|pair| pair == b"_v");
    cut.is_some_and(|at| text.first() == Some(&b'u') && digits(&text[1.min(at)..at]) && digits(&text[at + 2..]))
}

/// Gives out places; remembers them so that no two files share one.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// What has taken (directory, lowercase head and tail): the exact head and tail.
    taken: BTreeMap<(String, String), (Vec<u8>, Vec<u8>)>,
}

impl Places {
    /// The directory part, `f/<short hash>`, for files from `directory`.
    pub fn directory(&self, directory: &Path) -> String {
        format!("f/{}", short_hash(&[&os_bytes(directory.as_os_str())]))
    }

    /// The name a file from `directory` gets. Files of one sequence get one head and tail.
    pub fn name(&mut self, directory: &Path, split: &Split) -> String {
        let directory = self.directory(directory);
        // The end of a tail is its extension, which must stay.
        let kept_tail = &split.tail[split.tail.len().saturating_sub(TAIL_MAX_BYTES)..];
        let kept_head = &split.head[..split.head.len().min(HEAD_MAX_BYTES)];
        let (mut head, mut tail) = (clean(kept_head), clean(kept_tail));
        let plain = head.as_bytes() == split.head && tail.as_bytes() == split.tail && {
            // Any number may follow in a sequence, so the name must be safe with every one of them.
            is_safe_name(&format!("{head}{tail}")) && is_safe_name(&format!("{head}1{tail}"))
        };
        let key = (directory, format!("{head}\0{tail}").to_lowercase());
        let exact = (split.head.clone(), split.tail.clone());
        if !plain || *self.taken.entry(key).or_insert_with(|| exact.clone()) != exact {
            let hash = short_hash(&[&split.head, b"\0", &split.tail]);
            // A letter at the end keeps the hash out of the number; Windows drops a dot at the end of a name.
            head = format!("_{head}-{hash}h");
            tail = format!(
                "{}{}",
                if tail.starts_with(|c: char| c.is_ascii_digit()) { "-" } else { "" },
                tail.trim_end_matches('.')
            );
        }
        let number: String = split.number.iter().map(|byte| char::from(*byte)).collect();
        let name = format!("{head}{number}{tail}");
        if name.is_empty() { "_".into() } else { name }
    }
}

/// How the files of a cache called `name` begin in a bundle: the name itself, or a hash where some system refuses it.
pub(super) fn stem(name: &[u8]) -> String {
    let plain = std::str::from_utf8(name).ok().filter(|name| is_safe_name(name));
    plain.map_or_else(|| short_hash(&[name]), str::to_owned)
}

/// The folder of the disk caches of the .blend called `name`. Blender drops its last six bytes, whatever they are.
pub(super) fn blendcache(name: &[u8]) -> Vec<u8> {
    let kept = if name.len() > b".blend".len() { name.len() - b".blend".len() } else { name.len() };
    [b"blendcache_", &name[..kept]].concat()
}

fn clean(bytes: &[u8]) -> String {
    let fine = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    bytes.iter().map(|byte| if fine(byte) { char::from(*byte) } else { '_' }).collect()
}

/// The first 16 hexadecimal digits of a BLAKE3 hash.
fn short_hash(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("swarm bundle place v1");
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    hasher.finalize().to_hex().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn placed(places: &mut Places, name: &str) -> String {
        places.name(Path::new("/d"), &Split::of(name.as_bytes()))
    }

    #[test]
    fn a_plain_name_is_kept() {
        let mut places = Places::default();
        for name in ["wood.png", "shot_0001.exr", "tex.1001.png", "a.b.c-2_x.blend", "noextension", "7.png"] {
            assert_eq!(placed(&mut places, name), name);
        }
    }

    #[test]
    fn names_some_system_refuses_are_cleaned_and_stay_apart() {
        let mut places = Places::default();
        let names = [
            "wörld.png",
            "wärld.png",
            "a b.png",
            "con.png",
            "com1.png",
            "x.",
            "A.png",
            "a.png",
            "~#.jpg",
            "_.png",
            "..",
        ];
        let mut seen: Vec<String> = names.iter().map(|name| placed(&mut places, name).to_lowercase()).collect();
        for name in &seen {
            assert!(is_safe_name(name), "{name}");
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), names.len());
    }

    #[test]
    fn a_sequence_keeps_its_numbers_under_one_head() {
        let mut places = Places::default();
        let (one, two) = (placed(&mut places, "größe_0001.png"), placed(&mut places, "größe_0002.png"));
        assert_eq!(one.replace("0001", "0002"), two);
        assert!(one.ends_with("h0001.png"), "{one}");
        let token = placed(&mut places, "größe_<UDIM>.png");
        assert_eq!(token.replace("<UDIM>", "0001"), one);
    }
}
