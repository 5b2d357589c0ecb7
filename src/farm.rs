//! The decision maker.
pub mod blob;
pub mod id;
pub mod job;
