//! A worker in the test's process, to be drained, stopped or killed. Must not know the control plane.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rota_worker::supervise::{SUBCOMMAND, Supervisor};
use tokio_util::sync::CancellationToken;

/// Installs `rota-testkit-step` as the supervisor program: test binaries have no hidden subcommands.
fn install_supervisor() {
    let Ok(own) = std::env::current_exe() else { return };
    // Test binaries are in `deps`, examples in `examples` next to it.
    let target = own.parent().and_then(Path::parent);
    let Some(program) = target.map(|target| target.join("examples/rota-testkit-step")) else { return };
    if !program.exists() {
        eprintln!(
            "{} is missing: run the tests with `make test`, or build the example rota-testkit-step of rota-server",
            program.display()
        );
    }
    Supervisor { program, args: vec![SUBCOMMAND.into()] }.install();
}

/// A running worker. Dropping it kills it.
#[derive(Debug)]
pub struct WorkerHandle {
    shutdown: CancellationToken,
    stop_now: CancellationToken,
    task: Option<tokio::task::JoinHandle<Result<(), rota_worker::Error>>>,
}

impl WorkerHandle {
    /// Starts a worker.
    pub fn start(options: rota_worker::Options) -> Self {
        install_supervisor();
        let shutdown = CancellationToken::new();
        let stop_now = options.stop_now.clone();
        let task =
            rota_telemetry::spawn("worker", rota_telemetry::OnExit::Done, options.run(shutdown.clone()));
        Self { shutdown, stop_now, task: Some(task) }
    }

    /// Drains the worker and waits for its exit.
    pub async fn drain(mut self) -> Result<()> {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Stops the worker and its attempts immediately, and waits for its exit.
    pub async fn stop(mut self) -> Result<()> {
        self.shutdown.cancel();
        self.stop_now.cancel();
        self.ended().await
    }

    async fn ended(&mut self) -> Result<()> {
        if let Some(task) = self.task.take() {
            tokio::time::timeout(Duration::from_secs(60), task)
                .await
                .context("the worker did not exit")???;
        }
        Ok(())
    }

    /// Waits for the worker to exit by itself, as after a drain by the control plane.
    pub async fn end(mut self) -> Result<()> {
        self.ended().await
    }

    /// Aborts the worker without a goodbye to the control plane.
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
