//! The decision maker.
pub mod blob;
pub mod id;
pub mod job;
pub mod ledger;
pub mod message;
pub mod op;
