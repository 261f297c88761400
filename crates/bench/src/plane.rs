//! Control plane with workers in this process.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rota_client::{Client, Options as ClientOptions, lazy_channel};
use rota_core::Timestamp;
use rota_core::breaker::Policy;
use rota_proto::{names, v1};
use rota_server::{Options, Server, Timing};
use rota_store::Store;
use rota_telemetry::{BackgroundTasks, OnExit, spawn};
use tokio_util::sync::CancellationToken;

use crate::runtime::{AttemptLog, Immediate};

pub(crate) const NAMESPACE: &str = "default";
pub(crate) const AGENT: &str = "bench";

pub(crate) struct Plane {
    pub(crate) client: Client,
    pub(crate) attempts: Arc<AttemptLog>,
    shutdown: CancellationToken,
    ended: Vec<tokio::task::JoinHandle<()>>,
}

/// Opens a SQLite store in a directory.
pub(crate) fn open(folder: &Path) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(rota_store_sqlite::open(rota_store_sqlite::Options {
        path: folder.join("rota.sqlite"),
        clock: Arc::new(|| Timestamp(rota_telemetry::clock::unix_micros())),
        seed: 7,
    })?))
}

impl Plane {
    /// Starts a control plane and workers, and waits until all are connected.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        folder: &Path,
        workers: usize,
        slots: usize,
    ) -> Result<Self> {
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            token: None,
            oidc: None,
            http_listen: None,
            tls: None,
            store,
            key_file: folder.join("key"),
            replica: "bench".to_owned(),
            isolates: true,
            timing: Timing { retention: None, ..Timing::default() },
            breakers: Policy::default(),
            background_tasks: BackgroundTasks::default(),
        };
        let bound = Server::bind(options).await?;
        let endpoint = format!("http://{}", bound.addr());
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let mut ended = vec![spawn("bench-server", OnExit::Done, async move {
            // The measurement is complete, so a failed shutdown is ignored.
            let _ = bound.run(token).await;
        })];
        let client = Client::new(ClientOptions::new(endpoint.clone()))?;
        let spec = v1::AgentSpec {
            runtime: Some(v1::Runtime {
                kind: Some(v1::runtime::Kind::Scripted(v1::ScriptedRuntime::default())),
            }),
            management: v1::Management::External.into(),
            ..Default::default()
        };
        let agent =
            v1::Agent { name: names::agent(NAMESPACE, AGENT), spec: Some(spec), ..Default::default() };
        let request =
            v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
        client.update_agent(request).await?;

        let attempts = Arc::new(AttemptLog::default());
        for index in 0..workers {
            let channel = lazy_channel(&ClientOptions::new(endpoint.clone()))?;
            let state = folder.join(format!("worker-{index}"));
            let mut options =
                rota_worker::Options::new(channel, NAMESPACE, AGENT, &format!("bench-{index}"), state);
            options.slots = slots;
            options.runtimes.scripted = Some(Arc::new(Immediate(Arc::clone(&attempts))));
            options.stop_now = shutdown.clone();
            let token = shutdown.clone();
            ended.push(spawn("bench-worker", OnExit::Done, async move {
                let _ = options.run(token).await;
            }));
        }
        let plane = Self { client, attempts, shutdown, ended };
        plane.wait_for(workers).await?;
        Ok(plane)
    }

    async fn wait_for(&self, workers: usize) -> Result<()> {
        use futures::StreamExt;
        let mut demand = self.client.watch_demand(names::namespace(NAMESPACE));
        while let Some(update) = demand.next().await {
            let connected =
                update?.demands.iter().flat_map(|demand| &demand.workers).filter(|w| w.connected).count();
            if connected >= workers {
                return Ok(());
            }
        }
        anyhow::bail!("the workers did not connect")
    }

    /// Stops workers and control plane.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        for task in self.ended {
            let _ = task.await;
        }
    }
}

/// Returns a task of the bench agent.
pub(crate) fn task() -> v1::CreateTaskRequest {
    let target = v1::Target { kind: Some(v1::target::Kind::Agent(AGENT.to_owned())) };
    let spec = v1::TaskSpec { target: Some(target), prompt: "nothing".to_owned(), ..Default::default() };
    v1::CreateTaskRequest {
        parent: names::namespace(NAMESPACE),
        task: Some(v1::Task { spec: Some(spec), ..Default::default() }),
        ..Default::default()
    }
}
