//! A worker inside of the test's process, to be drained, stopped or cut off. Knows no control plane.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_worker::supervise::{SUBCOMMAND, Supervisor};
use tokio_util::sync::CancellationToken;

/// Tests have no hidden subcommands; a small program beside them has.
fn supervised() {
    let Ok(own) = std::env::current_exe() else { return };
    // Test binaries lie in `deps`, programs one above.
    let beside = own.parent().and_then(|deps| deps.parent()).map(|target| target.join("rota-testkit-step"));
    if let Some(program) = beside.filter(|program| program.exists()) {
        Supervisor { program, args: vec![SUBCOMMAND.into()] }.install();
    }
}

/// A worker inside of this process.
#[derive(Debug)]
pub struct WorkerHandle {
    shutdown: CancellationToken,
    stop_now: CancellationToken,
    task: Option<tokio::task::JoinHandle<Result<(), rota_worker::Error>>>,
}

impl WorkerHandle {
    /// Runs a worker.
    pub fn start(options: rota_worker::Options) -> Self {
        supervised();
        let shutdown = CancellationToken::new();
        let stop_now = options.stop_now.clone();
        let task =
            rota_telemetry::spawn("worker", rota_telemetry::OnExit::Done, options.run(shutdown.clone()));
        Self { shutdown, stop_now, task: Some(task) }
    }

    /// Drains it, then waits for its end.
    pub async fn drain(mut self) -> Result<()> {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Ends it at once, with what it runs.
    pub async fn stop(mut self) -> Result<()> {
        self.shutdown.cancel();
        self.stop_now.cancel();
        self.ended().await
    }

    async fn ended(&mut self) -> Result<()> {
        if let Some(task) = self.task.take() {
            tokio::time::timeout(Duration::from_secs(60), task)
                .await
                .context("the worker did not end")???;
        }
        Ok(())
    }

    /// Waits for its end, which somebody else asks for.
    pub async fn end(mut self) -> Result<()> {
        self.ended().await
    }

    /// Ends it as if its thread had been cut off: it says nothing to anybody.
    pub async fn kill(mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
