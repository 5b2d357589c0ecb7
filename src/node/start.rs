//! Starting a node: to come. The command line is complete without it.

use crate::cli::{EmbeddedNode, NodeOptions, NodeStarter};
use anyhow::{Result, bail};

/// What `main` hands to the command line.
pub struct Starter;

impl NodeStarter for Starter {
    fn run_daemon(&self, _options: NodeOptions) -> Result<()> {
        bail!("this build has no node yet")
    }

    fn start(&self, _options: NodeOptions) -> Result<Box<dyn EmbeddedNode>> {
        bail!("this build has no node yet")
    }
}
