//! Which image files a frame of a job is: one, or one for each view of its scene.
//!
//! The machine that submits reads that in the scene and declares it with the job, before anything is rendered. What other
//! machines send is held against it: an image of any other view would be put beside the frames under a name that the
//! sender chose, and a file of the user's own may have that name.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Longest suffix of a view, bytes: Blender's own limit.
const MAX_VIEW_SUFFIX_BYTES: usize = 63;

/// Most views of a frame that have a file each (guess: stereo has two, a rig of cameras for a light field some dozens).
pub const MAX_VIEWS: usize = 64;

/// Whether a view may have this suffix in file names, on every system, behind the number of a frame: with a digit first, it
/// could be called as another frame is. None at all is one too.
pub fn is_view_suffix(suffix: &str) -> bool {
    let is_odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    suffix.len() <= MAX_VIEW_SUFFIX_BYTES
        && !suffix.contains(is_odd)
        && !suffix.starts_with(|c: char| c.is_ascii_digit())
}

/// What the names of a frame's image files may end in before the extension, the first view's first. An empty text stands for
/// the frame's own name, which is all there is of a scene without views.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Views(Vec<String>);

impl Default for Views {
    fn default() -> Self {
        Self(vec![String::new()])
    }
}

impl Views {
    /// Those of a scene; `None` where they cannot be files of one frame.
    pub fn of(suffixes: &[String]) -> Option<Self> {
        let mut views = Self(Vec::new());
        for suffix in suffixes {
            if !views.has(suffix) {
                views.0.push(suffix.clone());
            }
        }
        views.is_sound().then_some(views)
    }

    /// Whether they can be files of one frame, also where names have no case.
    pub fn is_sound(&self) -> bool {
        let mut seen = BTreeSet::new();
        (1..=MAX_VIEWS).contains(&self.0.len())
            && self.0.iter().all(|suffix| is_view_suffix(suffix) && seen.insert(suffix.to_lowercase()))
    }

    /// Whether a frame is one file, called by its number alone.
    pub fn is_one_file(&self) -> bool {
        self.0 == [""]
    }

    /// The suffix of the first view.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// All suffixes.
    pub fn suffixes(&self) -> &[String] {
        &self.0
    }

    /// Whether a frame whose files end in these has exactly what was declared. A view alone is declared with its suffix and
    /// without, and is one file.
    pub fn are(&self, written: &[String]) -> bool {
        let is_alone = matches!(&self.0[..], [_, last] if last.is_empty()) && written.len() == 1;
        let written: BTreeSet<&String> = written.iter().collect();
        written.iter().all(|suffix| self.has(suffix)) && (is_alone || written.len() == self.0.len())
    }

    /// Whether one of them has this suffix.
    pub fn has(&self, suffix: &str) -> bool {
        self.0.iter().any(|one| one == suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_would_be_one_file_or_lead_elsewhere_are_not_declared() {
        let of = |suffixes: &[&str]| Views::of(&suffixes.iter().map(|suffix| (*suffix).to_owned()).collect::<Vec<_>>());
        let stereo = of(&["_L", "_R"]).expect("two views");
        assert!(stereo.first() == "_L" && stereo.has("_R") && !stereo.has("") && !stereo.is_one_file());
        assert!(Views::default().is_one_file() && Views::default().has(""));
        assert_eq!(of(&["", ""]), Some(Views::default()), "a view alone without a suffix");
        assert!(of(&["_L", ""]).is_some(), "a view alone has its suffix or none, as the series has it");
        for wrong in [&[][..], &["_l", "_L"], &["../x"], &["7"], &["_\n"]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
        let are = |declared: &[&str], written: &[&str]| {
            of(declared).unwrap_or_default().are(&written.iter().map(|suffix| (*suffix).to_owned()).collect::<Vec<_>>())
        };
        assert!(are(&["_L", "_R"], &["_L", "_R"]) && are(&[""], &[""]) && are(&["_L", ""], &["_L"]));
        assert!(are(&["_L", ""], &[""]) && are(&["_L", ""], &["_L", ""]));
        for (declared, written) in [
            (&[""][..], &["_L", "_R"][..]),
            (&[""], &["_L"]),
            (&["_L", "_R"], &[""]),
            (&["_L", "_R"], &["_L"]),
            (&["_L", "_R"], &["_L", "_L"]),
            (&["_L", "_R"], &["_L", "_R", "_C"]),
            (&["_L", ""], &["_R"]),
            (&["_L", ""], &[]),
        ] {
            assert!(!are(declared, written), "{declared:?} {written:?}");
        }
        let many = |count| (0..count).map(|at| format!("_v{at}")).collect::<Vec<_>>();
        assert!(Views::of(&many(MAX_VIEWS)).is_some() && Views::of(&many(MAX_VIEWS + 1)).is_none());
    }
}
