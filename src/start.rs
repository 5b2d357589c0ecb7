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
        Running::start(options)?.run_until(async {
            stop_signal().await;
            tracing::info!("stopping");
        })
    }

    fn start(&self, options: NodeOptions) -> Result<Box<dyn EmbeddedNode>> {
        Ok(Box::new(Running::start(options)?))
    }
}

struct Running {
    runtime: Runtime,
    stop: CancellationToken,
    task: JoinHandle<Result<(), NodeError>>,
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
        let running = Self { runtime, stop, task };
        if running.runtime.block_on(is_ready).is_err() {
            running.run_until(std::future::pending())?;
            anyhow::bail!("the node ended before it was up; see the log above");
        }
        Ok(running)
    }

    /// Runs until the node ends by itself, and stops it at `end`.
    fn run_until(self, end: impl Future<Output = ()>) -> Result<()> {
        let Self { runtime, stop, mut task } = self;
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = &mut task => ended,
                () = end => {
                    stop.cancel();
                    task.await
                }
            }
        });
        runtime.shutdown_timeout(LAST_WAIT);
        let ended = ended.context("the node did not end as it should; see the log above")?;
        ended.map_err(|error| ApiError::from(&error).into())
    }
}

impl EmbeddedNode for Running {
    fn stop(self: Box<Self>) {
        if let Err(error) = self.run_until(async {}) {
            tracing::error!("{error:#}");
        }
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::future::pending;

    fn running(node: impl Future<Output = Result<(), NodeError>> + Send + 'static) -> Running {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let task = runtime.spawn(node);
        Running { runtime, stop: CancellationToken::new(), task }
    }

    #[test]
    fn a_daemon_ends_with_its_node() {
        let failed = || NodeError::DataDir { path: "d".into(), source: std::io::ErrorKind::StorageFull.into() };
        let error = running(async move { Err(failed()) }).run_until(pending()).unwrap_err();
        assert_eq!(error.downcast::<ApiError>().unwrap(), ApiError::from(&failed()));
        let error = running(async { panic!("as a bug would") }).run_until(pending()).unwrap_err();
        assert!(error.to_string().contains("did not end as it should"), "{error}");
        running(async { Ok(()) }).run_until(pending()).unwrap();
    }

    #[test]
    fn a_node_that_is_told_to_stop_ends_well() {
        let stopped = running(pending());
        let told = stopped.stop.clone();
        let node = stopped.runtime.spawn(async move {
            told.cancelled().await;
            Ok(())
        });
        Running { task: node, ..stopped }.run_until(async {}).unwrap();
    }
}
