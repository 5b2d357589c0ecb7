//! Whom a command talks to: the daemon of the data directory, or a node of its own for as long as the command runs.

use super::client::{self, Client};
use super::start::{EmbeddedNode, NodeOptions, NodeStarter};
use super::{Failure, failure};
use crate::node::http::{ApiError, ErrorKind};
use std::path::Path;

/// What a command does where no daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It says so and exits with 4.
    Fail,
    /// It starts a node that renders.
    Render,
    /// It starts a node that looks for Blender and renders nothing.
    Look,
    /// It starts a node that does not render.
    Talk,
}

/// A daemon to talk to.
pub(crate) struct Session {
    /// How.
    pub(crate) client: Client,
    node: Option<Box<dyn EmbeddedNode>>,
}

impl Session {
    /// Finds the daemon, or does what `absent` says.
    pub(crate) fn open(data_dir: &Path, starter: &dyn NodeStarter, absent: Absent) -> Result<Self, Failure> {
        if let Some(client) = client::find(data_dir)? {
            return Ok(Self { client, node: None });
        }
        let (render, slots) = match absent {
            Absent::Fail => return Err(no_daemon(data_dir).into()),
            Absent::Render => (true, None),
            Absent::Look => (true, Some(0)),
            Absent::Talk => (false, Some(0)),
        };
        let options = NodeOptions { render, slots, ..NodeOptions::embedded(data_dir.to_owned()) };
        let node = starter.start(options).map_err(failure)?;
        match client::find(data_dir) {
            Ok(Some(client)) => Ok(Self { client, node: Some(node) }),
            other => {
                node.stop();
                Err(other.err().unwrap_or_else(|| no_daemon(data_dir)).into())
            }
        }
    }

    /// Refuses to begin something long with another command's node, which ends when that command does.
    pub(crate) fn must_last(&self) -> Result<(), Failure> {
        match self.client.inside.filter(|_| self.node.is_none()) {
            Some(process) => {
                let text = format!(
                    "another swarm command (process {process}) has a node inside that ends with it; wait for its end, or \
                     end it and start `swarm daemon`, which serves all"
                );
                Err(ApiError::new(ErrorKind::DataDirInUse, text).into())
            }
            None => Ok(()),
        }
    }

    /// Whether the node is this process's own.
    pub(crate) fn is_embedded(&self) -> bool {
        self.node.is_some()
    }
}

impl Drop for Session {
    /// However a command ends, its own node ends with it.
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop();
        }
    }
}

fn no_daemon(data_dir: &Path) -> ApiError {
    let text = format!("no daemon runs on this machine for {}; start one with `swarm daemon`", data_dir.display());
    ApiError::new(ErrorKind::NoDaemon, text)
}
