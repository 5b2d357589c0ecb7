//! What `main` hands to the command line: how a node is started, in this process or for good.

use anyhow::{Context, Result};
use std::time::Duration;
use swarm::cli::{EmbeddedNode, NodeOptions, NodeStarter};
use swarm::node::http::ApiError;
use swarm::node::{self, NodeError};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for blocking work when a process ends; what it writes is whole or not there.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Starts real nodes.
pub struct Starter;

impl NodeStarter for Starter {
    fn run_daemon(&self, options: NodeOptions) -> Result<()> {
        let running = Running::start(options)?;
        running.runtime.block_on(async {
            stop_signal().await;
            tracing::info!("stopping");
        });
        Box::new(running).stop();
        Ok(())
    }

    fn start(&self, options: NodeOptions) -> Result<Box<dyn EmbeddedNode>> {
        Ok(Box::new(Running::start(options)?))
    }
}

struct Running {
    runtime: Runtime,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(options: NodeOptions) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the threads of the node could not be started")?;
        let stop = CancellationToken::new();
        let (ready, is_ready) = oneshot::channel();
        let task = runtime.spawn(node::run(options, ready, stop.clone()));
        match runtime.block_on(is_ready) {
            Ok(Ok(())) => Ok(Self { runtime, stop, task }),
            Ok(Err(error)) => Err(api_error(&error).into()),
            Err(_) => anyhow::bail!("the node ended before it was up; see the log above"),
        }
    }
}

impl EmbeddedNode for Running {
    fn stop(self: Box<Self>) {
        self.stop.cancel();
        if let Err(error) = self.runtime.block_on(self.task) {
            tracing::error!(%error, "the node did not end as it should");
        }
        self.runtime.shutdown_timeout(LAST_WAIT);
    }
}

fn api_error(error: &NodeError) -> ApiError {
    error.into()
}

/// Waits until somebody wants the daemon to end.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
