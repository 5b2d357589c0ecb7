//! `swarm`: a render farm for Blender without a server.
#[cfg(feature = "node")]
pub mod cli;
pub mod farm;
#[cfg(feature = "node")]
pub mod node;
pub mod seal;
pub mod wire;
