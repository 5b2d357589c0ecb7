//! Whether the store has what this machine said to have.
//!
//! Who reads a file finds that it is gone or damaged. A result that is needed much later is read by nobody until then, so
//! that all of them are looked for after each start and now and then, by their names and lengths. What is missing the
//! farm is told, whoever found it, and what is here too: a start knows of the files of earlier ones by such a look alone. So
//! a look that fails, in part even, is made again soon: until then frames of those files are rendered anew.

use super::Node;
use super::event::Event;
use super::store::Holdings;
use crate::farm::event::Input;
use crate::farm::id::BlobId;
use std::io;
use std::time::Duration;

/// Between looks (guess: a few thousand names an hour cost nothing).
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// A look that failed is made again after this (guess: a disk that comes back, a database that has room again).
const LOOK_AGAIN: Duration = Duration::from_secs(60);

impl Node {
    /// Tells the farm what is gone, and begins a look when one is due.
    pub(super) fn look_after_holdings(&mut self) {
        let blobs = self.store.take_gone();
        if !blobs.is_empty() {
            self.turn(Input::BlobsGone { blobs });
        }
        let now = self.clock.now();
        if self.hold_at.is_some_and(|at| now < at) {
            return;
        }
        self.hold_at = Some(now + LOOK_EVERY);
        let (store, promised, tell) = (self.store.clone(), self.farm.promised(), self.tell.clone());
        tokio::spawn(async move {
            if let Ok(found) = tokio::task::spawn_blocking(move || store.look_for(&promised)).await {
                let _ = tell.send(Event::LookedFor(found)).await;
            }
        });
    }

    /// Tells the farm what is here, and looks again soon if that could not be seen of all.
    pub(super) fn looked_for(&mut self, found: io::Result<Holdings>) {
        let (blobs, next) = judge(found);
        self.hold_at = Some(self.clock.now() + next);
        self.turn(Input::BlobsHere { blobs });
    }
}

/// What a look found, and how long it takes until the next.
fn judge(found: io::Result<Holdings>) -> (Vec<BlobId>, Duration) {
    let (here, unseen) = match found {
        Ok(Holdings { here, why: None, .. }) => return (here, LOOK_EVERY),
        Ok(Holdings { here, unseen, why: Some(error) }) => (here, (Some(unseen), error)),
        Err(error) => (Vec::new(), (None, error)),
    };
    let (files, error) = unseen;
    tracing::warn!(
        files, %error, seconds = LOOK_AGAIN.as_secs(),
        "it cannot be seen whether all results are in the store; their frames are not reused until it can, and it is tried again"
    );
    (here, LOOK_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_failed_in_part_or_whole_is_made_again_soon() {
        let here = || vec![BlobId([1; 32])];
        let torn = || io::Error::other("torn");
        let whole = Holdings { here: here(), ..Holdings::default() };
        assert_eq!(judge(Ok(whole)), (here(), LOOK_EVERY));
        assert_eq!(judge(Ok(Holdings { here: here(), unseen: 1, why: Some(torn()) })), (here(), LOOK_AGAIN));
        assert_eq!(judge(Err(torn())), (Vec::new(), LOOK_AGAIN));
        assert!(LOOK_AGAIN * 10 < LOOK_EVERY);
    }
}
