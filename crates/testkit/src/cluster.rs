//! A control plane on a runtime of its own, so that it can be killed like a process: no task of it
//! runs any further, and nothing is told to anybody.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rota_client::{Client, Options as ClientOptions};
use rota_core::Timestamp;
use rota_server::{Options, Server, Timing};
use rota_store::embedded::{Clock, Embedded};
use rota_store::engine::Engine;
use rota_store::memory::Memory;
use rota_store::Store;
use tokio_util::sync::CancellationToken;

/// Where a control plane keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// In the twin: gone when it is killed.
    Memory,
    /// In SQLite, with full durability.
    Sqlite,
}

/// A Rota in one process.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    keep: Keep,
    timing: Timing,
    addr: SocketAddr,
    running: Option<Running>,
    client: Client,
}

#[derive(Debug)]
struct Running {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
    ended: std::sync::mpsc::Receiver<()>,
}

/// Waits that are short enough for tests, and long enough for a busy machine.
pub fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(500),
        heartbeat_timeout: Duration::from_secs(5),
        reconnect_grace: Duration::from_secs(2),
        recovery_grace: Duration::from_secs(30),
        shutdown_grace: Duration::from_secs(2),
        retention: None,
    }
}

fn clock() -> Clock {
    Arc::new(|| Timestamp(rota_telemetry::clock::unix_micros()))
}

fn open(keep: Keep, folder: &Path) -> Result<Arc<dyn Store>> {
    let seed = u64::from(std::process::id());
    Ok(match keep {
        Keep::Memory => {
            let twin = Memory::default();
            Arc::new(Embedded::start(Engine::new(twin.clone(), seed)?, twin, clock())?)
        }
        Keep::Sqlite => {
            let path = folder.join("rota.sqlite");
            Arc::new(rota_store_sqlite::open(rota_store_sqlite::Options { path, clock: clock(), seed })?)
        }
    })
}

impl Cluster {
    /// Starts a control plane with [`timing`].
    pub async fn start(keep: Keep) -> Result<Self> {
        Self::start_with(keep, timing()).await
    }

    /// Starts a control plane.
    pub async fn start_with(keep: Keep, timing: Timing) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (running, addr) = run(keep, folder.path(), any, timing.clone()).await?;
        let mut options = ClientOptions::new(format!("http://{addr}"));
        options.retry_for = Duration::from_secs(20);
        let client = Client::new(options)?;
        Ok(Self { folder, keep, timing, addr, running: Some(running), client })
    }

    /// A client of it. It goes on over restarts.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where it listens, also after a restart.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A folder that lives as long as the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the control plane as SIGKILL would: nothing of it runs any further.
    pub async fn kill(&mut self) {
        if let Some(mut running) = self.running.take()
            && let Some(runtime) = running.runtime.take()
        {
            // Dropping a runtime drops its tasks where they stand. It may not be done on another runtime's thread.
            let _ = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await;
        }
    }

    /// Ends the control plane in order.
    pub async fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.shutdown.cancel();
            let _ = tokio::task::spawn_blocking(move || {
                let _ = running.ended.recv_timeout(Duration::from_secs(20));
                if let Some(runtime) = running.runtime.take() {
                    runtime.shutdown_timeout(Duration::from_secs(5));
                }
            })
            .await;
        }
    }

    /// Starts it again at the same address, on what it kept.
    pub async fn restart(&mut self) -> Result<()> {
        anyhow::ensure!(self.running.is_none(), "it is still running");
        let (running, _) = run(self.keep, self.folder.path(), self.addr, self.timing.clone()).await?;
        self.running = Some(running);
        Ok(())
    }

    /// Starts a worker of an agent inside of this process.
    pub fn worker(&self, agent: &str, name: &str, slots: usize) -> Result<WorkerHandle> {
        self.worker_in(agent, name, slots, self.folder.path().join("workers").join(name))
    }

    /// The same with a state folder of the caller's.
    pub fn worker_in(&self, agent: &str, name: &str, slots: usize, state: PathBuf) -> Result<WorkerHandle> {
        let channel = rota_client::lazy_channel(&ClientOptions::new(format!("http://{}", self.addr)))?;
        let mut options = rota_worker::Options::new(channel, "default", agent, name, state);
        options.slots = slots;
        Ok(WorkerHandle::start(options))
    }
}

async fn run(keep: Keep, folder: &Path, listen: SocketAddr, timing: Timing) -> Result<(Running, SocketAddr)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let shutdown = CancellationToken::new();
    let (started, start) = tokio::sync::oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel();
    let (token, folder) = (shutdown.clone(), folder.to_owned());
    #[expect(clippy::disallowed_methods, reason = "a runtime of its own has no span to inherit")]
    runtime.spawn(async move {
        let bound = async {
            let store = tokio::task::spawn_blocking({
                let folder = folder.clone();
                move || open(keep, &folder)
            })
            .await??;
            let options = Options {
                listen,
                token: None,
                tls: None,
                store,
                key_file: folder.join("key"),
                replica: "test".to_owned(),
                timing,
            };
            anyhow::Ok(Server::bind(options).await?)
        };
        match bound.await {
            Err(error) => drop(started.send(Err(error))),
            Ok(bound) => {
                let _ = started.send(Ok(bound.addr()));
                let _ = bound.run(token).await;
                let _ = end.send(());
            }
        }
    });
    let addr = start.await.context("the control plane did not start")??;
    Ok((Running { runtime: Some(runtime), shutdown, ended }, addr))
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
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
            tokio::time::timeout(Duration::from_secs(60), task).await.context("the worker did not end")???;
        }
        Ok(())
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
