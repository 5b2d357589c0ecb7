//! What the images of frames are called: one for each frame, or one for each of its views.
//!
//! A result says by its paths which views it has, and only those that the job declared are taken: whatever else a machine
//! sends would get a name that it chose, and be put in the place of a file of the user's own.

use super::super::store::Store;
use super::put::PutFile;
use crate::farm::job::{ImageFormat, JobSpec, OutputSpec};
use crate::farm::op::{Output, OutputRole};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The image files of one frame.
pub(super) struct Frame {
    /// The name of the first view, or of the one image there is.
    pub first: String,
    /// Names of the other views, and what they are.
    pub others: Vec<(String, Output)>,
}

impl Frame {
    /// What a result of `frame` has, by the names it gets in `to`.
    pub fn of(spec: &JobSpec, to: &OutputSpec, frame: i32, outputs: &[Output]) -> Self {
        let name = |view: &str| to.view_name(frame, spec.format, view);
        let first = name(spec.shown(frame, outputs));
        let others = outputs.iter().filter(|output| output.role == OutputRole::Aux);
        // A result may name a file twice, or two that are one where names have no case: the first counts.
        let mut seen = BTreeSet::from([first.to_lowercase()]);
        let others = others.filter_map(|output| Some((name(spec.view_of(frame, &output.path)?), output.clone())));
        let others = others.filter(|(name, _)| seen.insert(name.to_lowercase())).collect();
        Self { first, others }
    }

    /// What of a result is no view of it.
    pub fn not_among<'a>(&self, outputs: &'a [Output]) -> impl Iterator<Item = &'a Output> {
        outputs.iter().filter(|output| !self.others.iter().any(|(_, other)| other == *output))
    }

    /// Puts the other views under their names in `directory`, as `put_image` does. Errors name it.
    pub fn put_others(&self, store: &Store, directory: &Path, put_image: PutFile) -> Result<(), (PathBuf, io::Error)> {
        self.others.iter().try_for_each(|(name, output)| {
            put_image(store, output, &directory.join(name), directory).map_err(|error| (directory.to_path_buf(), error))
        })
    }
}

/// The names of a job's images, of which those are kept that a frame does not have by its number alone. Shared by all who
/// read the frames.
#[derive(Clone, Default)]
pub(super) struct Images(Arc<Mutex<BTreeMap<i32, Vec<String>>>>);

impl Images {
    /// A frame is put, perhaps anew.
    pub fn set(&self, to: &OutputSpec, number: i32, format: ImageFormat, frame: &Frame) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if frame.others.is_empty() && frame.first == to.file_name(number, format) {
            kept.remove(&number);
            return;
        }
        let names = [&frame.first].into_iter().chain(frame.others.iter().map(|(name, _)| name));
        kept.insert(number, names.cloned().collect());
    }

    /// The names of a frame's images, the first view's first.
    pub fn names(&self, to: &OutputSpec, number: i32, format: ImageFormat) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&number).cloned().unwrap_or_else(|| vec![to.file_name(number, format)])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::frames::FrameSet;
    use crate::farm::id::BlobId;
    use crate::farm::job::Series;
    use crate::farm::views::Views;

    /// A result of frame 1 with files of these names, the first of which is the image, of a job with these views.
    fn frame(to: &OutputSpec, views: &[&str], paths: &[&str]) -> (JobSpec, Frame, Vec<Output>) {
        let spec = JobSpec::new(BlobId([7; 32]), FrameSet::range(1, 5, 1).unwrap(), Series { major: 4, minor: 5 });
        let views: Vec<String> = views.iter().map(|view| (*view).to_owned()).collect();
        let spec = JobSpec { views: Views::of(&views).unwrap(), ..spec };
        let output = |(at, path): (usize, &&str)| {
            let role = if at == 0 { OutputRole::Image } else { OutputRole::Aux };
            Output { path: (*path).to_owned(), blob: BlobId([at as u8; 32]), bytes: 1, role }
        };
        let outputs: Vec<Output> = paths.iter().enumerate().map(output).collect();
        let frame = Frame::of(&spec, to, 1, &outputs);
        (spec, frame, outputs)
    }

    #[test]
    fn views_keep_their_suffixes_wherever_a_job_is_collected() {
        let paths = ["shot_0001_L.png", "shot_0001_R.png", "file-outputs/z0001.exr", "shot_0001.png"];
        let to = OutputSpec { prefix: "other-".into(), suffix: "b".into(), ..here() };
        let (spec, found, outputs) = frame(&to, &["_L", "_R", ""], &paths);
        assert_eq!(found.first, "other-0001b_L.png");
        let others: Vec<&str> = found.others.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(others, ["other-0001b_R.png", "other-0001b.png"]);
        let rest: Vec<&str> = found.not_among(&outputs).map(|output| output.path.as_str()).collect();
        assert_eq!(rest, ["shot_0001_L.png", "file-outputs/z0001.exr"]);
        let images = Images::default();
        images.set(&to, 1, spec.format, &found);
        assert_eq!(images.names(&to, 1, spec.format), ["other-0001b_L.png", "other-0001b_R.png", "other-0001b.png"]);
        assert_eq!(images.names(&to, 2, spec.format), ["other-0002b.png"]);
        // Rendered anew from a scene that has one view.
        images.set(&to, 1, spec.format, &frame(&to, &[""], &["shot_0001.png"]).1);
        assert_eq!(images.names(&to, 1, spec.format), ["other-0001b.png"]);
    }

    #[test]
    fn no_view_that_a_peer_tells_leads_out_of_the_folder_or_to_another_frame() {
        let hostile = [
            "x.png",
            "shot_0001/../../x.png",
            "shot_0001\\x.png",
            "shot_0002_R.png",
            "../shot_0001_R.png",
            "/shot_0001.png",
        ];
        for path in hostile {
            let (_, found, _) = frame(&here(), &[""], &[path, path]);
            assert_eq!((found.first.as_str(), found.others.len()), ("shot_0001.png", 0), "{path:?}");
        }
        let twice = ["shot_0001_L.png", "shot_0001_R.png", "shot_0001_r.png", "shot_0001_L.png", "shot_00011.png"];
        let (_, found, _) = frame(&here(), &["_L", "_R"], &twice);
        assert_eq!((found.first.as_str(), found.others.len()), ("shot_0001_L.png", 1), "{:?}", found.others);
    }

    #[test]
    fn a_view_that_the_job_did_not_declare_is_taken_from_nobody() {
        let at = |views: &[&str], paths: &[&str]| {
            let (_, found, _) = frame(&here(), views, paths);
            let others = found.others.iter().map(|(name, _)| name.clone());
            [found.first.clone()].into_iter().chain(others).collect::<Vec<_>>()
        };
        let plate = ["shot_0001.png", "shot_0001-plate.png"];
        assert_eq!(at(&[""], &plate), ["shot_0001.png"]);
        assert_eq!(at(&[""], &plate[1..]), ["shot_0001.png"], "as its image");
        assert_eq!(
            at(&["_L", "_R"], &["shot_0001_L.png", "shot_0001-plate.png", "shot_0001.png"]),
            ["shot_0001_L.png"]
        );
        assert_eq!(at(&["_L", "_R"], &plate), ["shot_0001_L.png"], "the first view, where people look for it");
    }

    fn here() -> OutputSpec {
        JobSpec::new(BlobId([7; 32]), FrameSet::range(1, 5, 1).unwrap(), Series { major: 4, minor: 5 }).output
    }
}
