//! Who holds what, whatever order it is said in.

use super::*;
use crate::farm::id::BootId;
use crate::farm::op::{Output, OutputRole};

#[test]
fn what_a_start_of_a_node_lost_it_holds_no_more_until_it_says_so_again() {
    let (node, other) = (NodeId([1; 32]), NodeId([2; 32]));
    let actor = |node, boot: u8| ActorId { node, boot: BootId([boot; 8]) };
    let blob = BlobId([5; 32]);
    let output = Output { path: "1.png".into(), blob, bytes: 1, role: OutputRole::Image };
    let done = Op::Done {
        epoch: 0,
        revision: 0,
        unit: Unit::whole(1),
        outputs: vec![output],
        millis: 1,
        device: String::new(),
        build: String::new(),
    };
    let (holds, lost) = (Op::Holds { blobs: vec![blob] }, Op::Lost { blobs: vec![blob] });
    let said = [(actor(node, 1), done), (actor(other, 1), holds.clone()), (actor(node, 2), lost)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut job = JobState::new(JobId([0; 16]));
        order.iter().for_each(|at| job.apply(said[*at].0, 0, said[*at].1.clone()));
        assert_eq!(job.holders(blob), BTreeSet::from([other]), "{order:?}");
        assert!(job.unit(Unit::whole(1)).has_result() && job.keepers().is_none());
        job.apply(actor(node, 2), 1, holds.clone());
        assert_eq!(job.holders(blob), BTreeSet::from([node, other]), "{order:?}");
    }
}

#[test]
fn the_last_word_on_a_blob_is_that_of_the_latest_start_whatever_came_first() {
    let actor = |boot: u8| ActorId { node: NodeId([1; 32]), boot: BootId([boot; 8]) };
    let blob = BlobId([5; 32]);
    let (holds, drops) = (Op::Holds { blobs: vec![blob] }, Op::Drops { blobs: vec![blob] });
    let said = [(actor(1), holds.clone()), (actor(2), drops.clone()), (actor(3), holds)];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut job = JobState::new(JobId([0; 16]));
        order.iter().for_each(|at| job.apply(said[*at].0, 0, said[*at].1.clone()));
        assert_eq!(job.holders(blob), BTreeSet::from([NodeId([1; 32])]), "{order:?}");
        job.apply(actor(3), 1, drops.clone());
        assert_eq!(job.holders(blob), BTreeSet::new(), "{order:?}");
    }
}
