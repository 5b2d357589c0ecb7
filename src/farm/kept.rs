//! Frames that lay in the output folder before their job: `submit --keep-existing`.
//!
//! The submitter's machine found them whole, has them in its store, and says so with ordinary `Done`s before its `Submit`,
//! in the same log: so everybody who knows of the job knows of them, and everything that holds for results holds for these.
//! Nobody rendered them for the job. So they tell nothing of how fast a machine is, of builds, or of a log; and what they
//! show, only their owner knows, so that they stand for no unit of another job: their build is no renderer's.

use super::id::Unit;
use super::op::{Op, Output};

/// The build of a result that nobody rendered. Those of renderers begin with a version. Of anybody but the submitter, or
/// after the `Submit`, it is a word like any other.
pub const KEPT: &str = "kept";

/// A frame that is there, its files in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFrame {
    /// Which.
    pub unit: Unit,
    /// The image, and the other views where each has a file.
    pub outputs: Vec<Output>,
}

impl KeptFrame {
    /// What the submitter says of it.
    pub(super) fn done(self) -> Op {
        let Self { unit, outputs } = self;
        let (device, build) = (String::new(), KEPT.to_owned());
        Op::Done { epoch: 0, revision: 0, unit, outputs, millis: 0, device, build }
    }
}
