//! Whether the store has what this machine said to have.
//!
//! Who reads a file finds that it is gone or damaged. A result that is needed much later is read by nobody until then, so
//! that all of them are looked for after each start and now and then, by their names and lengths. What is missing the
//! farm is told, whoever found it, and what is here too: a start knows of the files of earlier ones by such a look alone.

use super::Node;
use crate::farm::event::Input;
use std::time::Duration;

/// Between looks (guess: a few thousand names an hour cost nothing).
const LOOK_EVERY: Duration = Duration::from_secs(3600);

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
        let (store, promised) = (self.store.clone(), self.farm.promised());
        self.answer_later(move || match store.look_for(&promised) {
            Ok(blobs) => vec![Input::BlobsHere { blobs }],
            Err(error) => {
                tracing::warn!(%error, "it cannot be seen whether all results are here");
                Vec::new()
            }
        });
    }
}
