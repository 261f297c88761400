//! Control plane in this process, and workers of any control plane.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use rota_client::{Client, Options as ClientOptions, RenewableChannel};
use rota_core::Timestamp;
use rota_core::breaker::Policy;
use rota_proto::{names, v1};
use rota_server::{Options, PoolKind, Server, Timing};
use rota_store::Store;
use rota_telemetry::{BackgroundTasks, OnExit, spawn};
use rota_worker::runtimes::Runtime;
use tokio_util::sync::CancellationToken;

use crate::runtime::{AttemptLog, Immediate};

pub(crate) const NAMESPACE: &str = "default";
pub(crate) const AGENT: &str = "bench";
/// Limit of the time until all workers are connected.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(180);

/// Longest wait for another control plane on the database.
const DATABASE_PATIENCE: Duration = Duration::from_secs(15);

/// Opens a SQLite store in a directory.
pub(crate) fn open(folder: &Path) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(rota_store_sqlite::open(rota_store_sqlite::Options {
        path: folder.join("rota.sqlite"),
        clock: Arc::new(|| Timestamp(rota_telemetry::clock::unix_micros())),
        seed: 7,
    })?))
}

/// Opens a store in a PostgreSQL database, or in a directory.
pub(crate) async fn open_at(database: Option<&str>, folder: &Path) -> Result<Arc<dyn Store>> {
    let Some(url) = database else { return open(folder) };
    let target = rota_store_postgres::Target::parse(url, None)?;
    let options = rota_store_postgres::Options {
        patience: Some(DATABASE_PATIENCE),
        readers: 8,
        seed: 7,
        ..rota_store_postgres::Options::new(target, "bench")
    };
    let opened = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None));
    Ok(Arc::new(opened.await??.store))
}

/// Returns the options of a control plane without authentication, on a free port of this machine.
pub(crate) fn server_options(store: Arc<dyn Store>, folder: &Path) -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        token: None,
        oidc: None,
        people: None,
        http_listen: None,
        tls: None,
        store,
        clock: Arc::new(|| Timestamp(rota_telemetry::clock::unix_micros())),
        artifacts: rota_server::Parts::in_folder(&folder.join("artifacts"))
            .expect("a folder of this process"),
        viewer_token: None,
        artifacts_quota: 0,
        notifications: Vec::new(),
        web_push: None,
        follow: None,
        // A database outlives the folder of a round, and has no secrets.
        keys: rota_server::KeyFiles { replace_lost: true, ..rota_server::KeyFiles::new(folder.join("key")) },
        replica: "bench".to_owned(),
        pool_kind: PoolKind::Pods,
        overrides: v1::Overrides::All,
        timing: Timing::default(),
        console: false,
        base_path: Default::default(),
        limits: rota_server::Limits::default(),
        cors_origins: Vec::new(),
        sessions: rota_server::SessionLimits::default(),
        breakers: Policy::default(),
        background_tasks: BackgroundTasks::default(),
    }
}

/// Control plane in this process, with workers.
pub(crate) struct Plane {
    pub(crate) workers: Workers,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Plane {
    /// Starts a control plane and workers, and waits until all are connected.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        folder: &Path,
        workers: usize,
        slots: usize,
    ) -> Result<Self> {
        Self::with_timing(store, folder, workers, slots, Timing::default()).await
    }

    pub(crate) async fn with_timing(
        store: Arc<dyn Store>,
        folder: &Path,
        workers: usize,
        slots: usize,
        timing: Timing,
    ) -> Result<Self> {
        let timing = Timing { retention: None, ..timing };
        let bound = Box::pin(Server::bind(Options { timing, ..server_options(store, folder) })).await?;
        let client_options = ClientOptions::new(format!("http://{}", bound.addr()));
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let server = spawn("bench-server", OnExit::Done, async move {
            // The measurement is complete, so a failed shutdown is ignored.
            let _ = bound.run(token).await;
        });
        let workers = Workers::start(&client_options, folder, workers, slots).await?;
        Ok(Self { workers, shutdown, server })
    }

    /// Stops workers and control plane.
    pub(crate) async fn stop(self) {
        self.workers.stop().await;
        self.shutdown.cancel();
        let _ = self.server.await;
    }
}

/// Workers in this process, and a client of their control plane.
pub(crate) struct Workers {
    pub(crate) client: Client,
    pub(crate) attempts: Arc<AttemptLog>,
    shutdown: CancellationToken,
    ended: Vec<tokio::task::JoinHandle<()>>,
}

impl Workers {
    /// Starts workers whose attempts succeed immediately, each with a connection of its own, and waits until all are
    /// connected.
    pub(crate) async fn start(
        options: &ClientOptions,
        folder: &Path,
        workers: usize,
        slots: usize,
    ) -> Result<Self> {
        let attempts = Arc::new(AttemptLog::default());
        let runtime = Arc::new(Immediate(Arc::clone(&attempts)));
        Self::with_runtime(options, folder, AGENT, (workers, slots), attempts, runtime).await
    }

    /// Starts workers of an agent with any runtime.
    pub(crate) async fn with_runtime(
        options: &ClientOptions,
        folder: &Path,
        agent: &str,
        (workers, slots): (usize, usize),
        attempts: Arc<AttemptLog>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self> {
        let client = Client::new(options.clone())?;
        put_agent(&client, agent).await?;
        let shutdown = CancellationToken::new();
        let mut ended = Vec::new();
        for index in 0..workers {
            let name = format!("{agent}-{index}");
            let channel = RenewableChannel::new(options.clone())?;
            let mut worker = rota_worker::Options::new(
                channel,
                NAMESPACE,
                agent,
                &name,
                folder.join(format!("worker-{name}")),
            );
            worker.slots = slots;
            worker.runtimes.scripted = Some(Arc::clone(&runtime));
            worker.stop_now = shutdown.clone();
            let token = shutdown.clone();
            ended.push(spawn("bench-worker", OnExit::Done, async move {
                let _ = worker.run(token).await;
            }));
        }
        let started = Self { client, attempts, shutdown, ended };
        tokio::time::timeout(CONNECT_TIMEOUT, started.wait_for(agent, workers))
            .await
            .context("the workers did not connect in time")??;
        Ok(started)
    }

    async fn wait_for(&self, agent: &str, workers: usize) -> Result<()> {
        let mut demand = self.client.watch_demand(names::namespace(NAMESPACE));
        let agent = names::agent(NAMESPACE, agent);
        while let Some(update) = demand.next().await {
            let update = update?;
            let own = update.demands.iter().filter(|demand| demand.agent == agent);
            let connected = own.flat_map(|demand| &demand.workers).filter(|worker| worker.connected).count();
            if connected >= workers {
                return Ok(());
            }
        }
        anyhow::bail!("the workers did not connect")
    }

    /// Stops the workers; their attempts are ended.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        for task in self.ended {
            let _ = task.await;
        }
    }
}

/// Creates an agent with the scripted runtime, if it does not exist.
pub(crate) async fn put_agent(client: &Client, name: &str) -> Result<()> {
    let kind = v1::runtime::Kind::Scripted(v1::ScriptedRuntime::default());
    let spec = v1::AgentSpec {
        runtime: Some(v1::Runtime { kind: Some(kind) }),
        management: v1::Management::External.into(),
        ..Default::default()
    };
    let agent = v1::Agent { name: names::agent(NAMESPACE, name), spec: Some(spec), ..Default::default() };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    client.update_agent(request).await?;
    Ok(())
}

/// Returns a task of the bench agent.
pub(crate) fn task() -> v1::CreateTaskRequest {
    task_of(AGENT)
}

pub(crate) fn task_of(agent: &str) -> v1::CreateTaskRequest {
    let target = v1::Target { kind: Some(v1::target::Kind::Agent(agent.to_owned())) };
    let spec = v1::TaskSpec { target: Some(target), prompt: "nothing".to_owned(), ..Default::default() };
    v1::CreateTaskRequest {
        parent: names::namespace(NAMESPACE),
        task: Some(v1::Task { spec: Some(Box::new(spec)), ..Default::default() }),
        ..Default::default()
    }
}
