//! Which bundles are fetched, and how long.

use super::*;
use crate::farm::blob::{BlobMap, ChunkRef};
use crate::farm::id::ChunkId;
use crate::farm::transfer::Urgency;

/// A bundle that the second machine never gets.
const FAR: BlobId = BlobId([8; 32]);
const SECOND: Duration = Duration::from_secs(1);

fn file(byte: u8) -> BlobMap {
    BlobMap { chunks: vec![ChunkRef { id: ChunkId([byte; 32]), bytes: 1 }] }
}

fn far(frames: i32) -> JobSpec {
    JobSpec { bundle: FAR, ..spec(frames) }
}

impl Trio {
    /// Two machines, the second of which can fetch neither [`FAR`] nor these files.
    fn with_far(files: &[BlobMap]) -> Self {
        let mut trio = Self::new(2);
        trio.at(1).unheard = files.iter().map(BlobMap::id).chain([FAR]).collect();
        trio
    }

    fn command(&mut self, at: usize, job: JobId, command: JobCommand) {
        let node = self.names[at];
        self.give(node, Input::Command { job, command });
        self.wait(SECOND);
    }

    fn read_manifest(&mut self, at: usize, files: &[BlobMap]) {
        let node = self.names[at];
        self.give(node, Input::Manifest { bundle: FAR, files: Some(files.to_vec()) });
    }

    fn fetches(&mut self, at: usize, blob: BlobId) -> bool {
        self.at(at).farm.transfer.wants(blob)
    }
}

#[test]
fn the_bundle_of_a_cancelled_job_is_fetched_no_more_but_what_others_want_of_it_is() {
    let (own, shared) = (file(1), file(2));
    let files = [own.clone(), shared.clone()];
    let mut trio = Trio::with_far(&files);
    let (first, second) = (trio.submit_spec(0, far(3)), trio.submit_spec(0, far(4)));
    trio.wait(SECOND);
    assert!(trio.fetches(1, FAR));
    trio.read_manifest(1, &files);
    assert!(trio.fetches(1, own.id()) && trio.fetches(1, shared.id()));
    trio.at(1).farm.transfer.want(shared.id(), Urgency::Result, None, BTreeSet::new());
    trio.command(0, first, JobCommand::Cancel("user".into()));
    assert!(trio.fetches(1, own.id()), "for the other job");
    trio.command(0, second, JobCommand::Cancel("user".into()));
    assert!(!trio.fetches(1, FAR) && !trio.fetches(1, own.id()));
    assert!(trio.fetches(1, shared.id()), "it is a result as well");
}

#[test]
fn a_job_that_lives_again_has_its_bundle_fetched_again() {
    let mut trio = Trio::with_far(&[]);
    let job = trio.submit_spec(0, far(2));
    trio.wait(SECOND);
    assert!(trio.fetches(1, FAR));
    trio.finish();
    assert!(trio.at(1).farm.jobs()[&job].is_over());
    assert!(!trio.fetches(1, FAR));
    let units = UnitSet::whole(vec![1]).expect("a unit");
    trio.command(0, job, JobCommand::Requeue { units, by: "user".into() });
    assert!(trio.fetches(1, FAR));
}

#[test]
fn a_manifest_read_after_its_job_was_cancelled_makes_no_bundle_of_it() {
    let mut trio = Trio::with_far(&[]);
    let job = trio.submit_spec(0, far(2));
    trio.wait(SECOND);
    trio.command(0, job, JobCommand::Cancel("user".into()));
    trio.read_manifest(1, &[]);
    assert!(!trio.at(1).farm.has_bundle(FAR));
}
