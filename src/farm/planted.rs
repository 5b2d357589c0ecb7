//! Bugs planted on purpose, to see that the simulator finds them.
//!
//! Nothing of this is in a release: without the feature `sim` (or a test) no bug can be switched on, and every question
//! for one is the constant `false`.

/// A bug that the simulator must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A machine tells of its ops before its disk has them.
    SendBeforePersist,
    /// Of two settings of the same counter each machine keeps the one it heard last.
    WrongTieBreak,
    /// A result of any epoch is a result.
    EpochIgnored,
    /// What a machine says to have lost counts as held by it.
    LossIgnored,
    /// What was wanted anew is taken over by other jobs, and results of it.
    RequeuedReused,
}

impl Bug {
    /// All of them, and what they are called.
    pub const ALL: [(&'static str, Self); 5] = [
        ("send-before-persist", Self::SendBeforePersist),
        ("wrong-tie-break", Self::WrongTieBreak),
        ("epoch-ignored", Self::EpochIgnored),
        ("loss-ignored", Self::LossIgnored),
        ("requeued-reused", Self::RequeuedReused),
    ];
}

#[cfg(any(test, feature = "sim"))]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    // Per thread: a test that plants one leaves the others alone.
    std::thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in everything this thread simulates, or takes it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// The bug in what this thread simulates.
    pub(crate) fn planted() -> Option<Bug> {
        PLANTED.get()
    }

    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(any(test, feature = "sim"))]
pub use switch::plant;
#[cfg(any(test, feature = "sim"))]
pub(crate) use switch::{is_planted, planted};

/// Whether it is to go wrong here: never.
#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}
