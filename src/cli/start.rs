//! How the command line starts a node without knowing what one is.

pub use crate::node::Options as NodeOptions;
use anyhow::Result;

/// Starts nodes. An error that is (or wraps) an [`ApiError`](crate::node::http::ApiError) keeps its kind in `--json`.
pub trait NodeStarter {
    /// Runs a daemon until it is told to stop by a signal.
    fn run_daemon(&self, options: NodeOptions) -> Result<()>;

    /// Starts a node in threads of this process. Returns when its `api.json` is written and its API answers.
    fn start(&self, options: NodeOptions) -> Result<Box<dyn EmbeddedNode>>;
}

/// A node inside this process.
pub trait EmbeddedNode {
    /// Stops it: what it rendered is kept, every Blender it started is gone when this returns, and so is `api.json`.
    fn stop(self: Box<Self>);
}
