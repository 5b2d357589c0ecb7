//! The command `swarm`.
fn main() {}
