//! Why ops are not written down, not taken in, or left behind.

use super::MAX_LOGS;
use crate::farm::id::ActorId;
use crate::farm::message::LogId;
use crate::wire::WireError;

/// Rows of the store that prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{ops} stored ops of {actor:?} in the log of job {log} are not vouched for by a signed head; they were left out and will be fetched again"
)]
pub struct Dropped {
    /// Of which log.
    pub log: LogId,
    /// Whose.
    pub actor: ActorId,
    /// How many ops.
    pub ops: u64,
}

/// Why an own op was not written down.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Others would refuse it.
    #[error("an op for job {log} would be refused by every other node")]
    Op {
        /// For which log.
        log: LogId,
        /// Why.
        #[source]
        source: WireError,
    },
    /// The job is over for good.
    #[error("job {log} is retired and takes no more ops")]
    Retired {
        /// Which.
        log: LogId,
    },
    /// Somebody else signs in the name of this very start.
    #[error(
        "another machine writes to job {log} in the name of this daemon: its data directory was copied while it ran; \
         restart this daemon"
    )]
    Forked {
        /// Which.
        log: LogId,
    },
    /// A `Submit` must begin the log made for it.
    #[error("a Submit cannot be written to log {log}, which is not its own")]
    NotItsLog {
        /// Which.
        log: LogId,
    },
    /// Too many jobs.
    #[error("this swarm already has {MAX_LOGS} jobs that are not retired; retire some before adding more")]
    TooManyLogs,
}

/// Why a suffix was not taken in. Nothing of it was, and nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There are ops before it that are not here yet; repair will fetch them.
    #[error("ops {have}..{from} of {actor:?} in job {log} are missing here")]
    Gap {
        /// Which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
        /// Length here.
        have: u64,
        /// First op offered.
        from: u64,
    },
    /// The head is not the actor's.
    #[error("the head of {actor:?} in job {log} does not carry its signature")]
    BadSignature {
        /// Which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
    },
    /// The ops do not lead to the head.
    #[error("the ops of {actor:?} in job {log} do not lead to the head that came with them")]
    BadChain {
        /// Which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
    },
    /// The head is the actor's, and what comes before these ops is not what is here: another history of it, or ops that
    /// were tampered with. The whole log tells which.
    #[error("ops of {actor:?} in job {log} do not follow on those known here, though it signed their head")]
    Apart {
        /// Which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
    },
    /// More of this very start's log than it wrote.
    #[error(
        "a peer has ops in job {log} in the name of this daemon ({actor:?}) that it did not write; is its key used elsewhere?"
    )]
    Mine {
        /// Which log.
        log: LogId,
        /// This one.
        actor: ActorId,
    },
    /// An op others must refuse.
    #[error("op {seq} of {actor:?} in job {log} is not acceptable")]
    BadOp {
        /// Which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
        /// Which op.
        seq: u64,
        /// Why.
        #[source]
        source: WireError,
    },
    /// A `Submit` in a log that is not made from it.
    #[error("op {seq} of {actor:?} submits a job that is not {log}")]
    NotItsJob {
        /// Which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
        /// Which op.
        seq: u64,
    },
    /// The job is over for good; the sender is to be told so.
    #[error("job {log} is retired")]
    Retired {
        /// Which.
        log: LogId,
    },
    /// A bound of the ledger.
    #[error("the ledger has no room for {actor:?} in job {log}: retire finished jobs")]
    Full {
        /// Which log.
        log: LogId,
        /// Whose.
        actor: ActorId,
    },
}
