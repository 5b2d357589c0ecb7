//! How the command line starts a node without knowing what one is.

use anyhow::Result;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// What a node is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// Absolute; made if it is not there.
    pub data_dir: PathBuf,
    /// Name in the swarm; `None`: the host's.
    pub name: Option<String>,
    /// TCP port for other machines: given and taken is an error; `None`: the default one or the next free.
    pub port: Option<u16>,
    /// Addresses to listen on; none: all.
    pub listen: Vec<IpAddr>,
    /// Loopback address of the API; `None`: 127.0.0.1 and a port the system picks.
    pub api: Option<SocketAddr>,
    /// Addresses of other machines, as typed.
    pub peers: Vec<String>,
    /// Frames rendered at the same time, at least 1.
    pub slots: Option<u32>,
    /// Blenders to use, absolute.
    pub blender: Vec<PathBuf>,
    /// CPU threads of each Blender, at least 1.
    pub threads: Option<u32>,
    /// Look for other machines by multicast.
    pub mdns: bool,
    /// Render here.
    pub render: bool,
    /// Inside another command: no daemon is meant to stay.
    pub embedded: bool,
}

impl NodeOptions {
    /// What a node inside another command is started with.
    pub fn embedded(data_dir: PathBuf, render: bool) -> Self {
        Self {
            data_dir,
            name: None,
            port: None,
            listen: Vec::new(),
            api: None,
            peers: Vec::new(),
            slots: None,
            blender: Vec::new(),
            threads: None,
            mdns: true,
            render,
            embedded: true,
        }
    }
}

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
