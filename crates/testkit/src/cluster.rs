//! A control plane on a runtime of its own, so that it can be killed like a process: none of its tasks runs any
//! further, and no client is notified.

mod disk;
mod files;
mod setup;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use rota_client::{Client, Options as ClientOptions, RenewableChannel};
use rota_core::{AgentName, Namespace, Timestamp, WorkerName};
use rota_server::{Options, PoolKind, Server, ShutdownOutcome, Tls, Token, WorkerGrant, WorkerTokens};
use rota_store::Store;
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::{Clock, SingleWriterStore};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

pub use self::setup::{BLOCK_SKEW, Backend, PANIC_SKEW, Setup};
use crate::WorkerHandle;

/// A control plane with its clients and workers in one process.
#[derive(Debug)]
pub struct Cluster {
    folder: tempfile::TempDir,
    setup: Setup,
    addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    running: Option<Running>,
    client: Client,
}

struct Running {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
    ended: std::sync::mpsc::Receiver<Result<ShutdownOutcome, rota_server::Error>>,
    store: Weak<dyn Store>,
    tokens: WorkerTokens,
}

/// Returns a clock that differs from the machine's by `database_skew` and by a skew that changes.
fn clock(database_skew: i64, skew: Arc<AtomicI64>) -> Clock {
    Arc::new(move || {
        while skew.load(Ordering::Relaxed) == BLOCK_SKEW {
            std::thread::sleep(Duration::from_millis(5));
        }
        let skew = skew.load(Ordering::Relaxed);
        assert_ne!(skew, PANIC_SKEW, "the test makes the writer panic");
        Timestamp(rota_telemetry::clock::unix_micros() + database_skew + skew)
    })
}

fn open(setup: &Setup, folder: &Path) -> Result<Arc<dyn Store>> {
    let seed = u64::from(std::process::id());
    let clock = clock(setup.database_skew, Arc::clone(&setup.skew));
    Ok(match setup.backend {
        Backend::Memory => {
            let memory = InMemoryStore::default();
            let (full, unsynced) = (Arc::clone(&setup.full), Arc::clone(&setup.unsynced));
            let disk = disk::Disk { memory: memory.clone(), full, unsynced };
            Arc::new(SingleWriterStore::start(Engine::new(disk, seed)?, memory, clock)?)
        }
        Backend::Sqlite => {
            let path = folder.join("rota.sqlite");
            Arc::new(rota_store_sqlite::open(rota_store_sqlite::Options { path, clock, seed })?)
        }
    })
}

impl Cluster {
    /// Starts a control plane with the configuration of [`Setup::new`].
    pub async fn start(backend: Backend) -> Result<Self> {
        Self::start_with(Setup::new(backend)).await
    }

    /// Starts a control plane.
    pub async fn start_with(setup: Setup) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        files::write(&setup, folder.path())?;
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (running, addr, http_addr) = run(&setup, folder.path(), any).await?;
        let client = Client::new(client_options(&setup, folder.path(), addr))?;
        Ok(Self { folder, setup, addr, http_addr, running: Some(running), client })
    }

    /// Creates a client with a connection of its own.
    pub fn another_client(&self) -> Result<Client> {
        Ok(Client::new(client_options(&self.setup, self.folder.path(), self.addr))?)
    }

    /// Returns the shared client. It reconnects after restarts.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the store while the control plane runs, to change state behind its back.
    pub fn store(&self) -> Option<Arc<dyn Store>> {
        self.running.as_ref()?.store.upgrade()
    }

    /// Returns the address of the API, which restarts keep.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the address of the HTTP listener, which changes with each restart.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Returns a folder that is removed with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the control plane as SIGKILL would: none of its tasks runs any further.
    pub async fn kill(&mut self) {
        if let Some(mut running) = self.running.take()
            && let Some(runtime) = running.runtime.take()
        {
            let store = running.store.upgrade();
            // Dropping a runtime drops its tasks where they stand. Not allowed on another runtime's thread.
            let _ =
                tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await;
            // The store's writer is a thread: it must not run next to that of the next control plane.
            if let Some(store) = store {
                store.close().await;
            }
        }
    }

    /// Requests a graceful shutdown without waiting for it.
    pub fn begin_stop(&self) {
        if let Some(running) = &self.running {
            running.shutdown.cancel();
        }
    }

    /// Shuts the control plane down gracefully. `None` if it failed or did not exit in time.
    pub async fn stop(&mut self) -> Option<ShutdownOutcome> {
        self.begin_stop();
        self.ended().await?.ok()
    }

    /// Waits for the control plane to exit and returns its result, or `None` if it does not exit in time.
    pub async fn ended(&mut self) -> Option<Result<ShutdownOutcome, rota_server::Error>> {
        let mut running = self.running.take()?;
        let ended = tokio::task::spawn_blocking(move || {
            let ended = running.ended.recv_timeout(Duration::from_secs(60)).ok();
            if let Some(runtime) = running.runtime.take() {
                runtime.shutdown_timeout(Duration::from_secs(5));
            }
            ended
        });
        ended.await.ok().flatten()
    }

    /// Starts the control plane again, at the same address and on its durable state.
    pub async fn restart(&mut self) -> Result<()> {
        anyhow::ensure!(self.running.is_none(), "the control plane is still running");
        let (running, _, http_addr) = run(&self.setup, self.folder.path(), self.addr).await?;
        (self.running, self.http_addr) = (Some(running), http_addr);
        Ok(())
    }

    /// Starts a worker of an agent in this process.
    pub fn worker(&self, agent: &str, name: &str, slots: usize) -> Result<WorkerHandle> {
        self.worker_in(agent, name, slots, self.folder.path().join("workers").join(name))
    }

    /// Starts a worker with a given state folder, which may be that of an earlier worker.
    pub fn worker_in(&self, agent: &str, name: &str, slots: usize, state: PathBuf) -> Result<WorkerHandle> {
        Ok(WorkerHandle::start(self.worker_options(self.addr, agent, name, slots, state)?))
    }

    /// Returns the options of a worker, to be changed before it is started. `at` is the address of the control plane or
    /// of a proxy in front of it.
    pub fn worker_options(
        &self,
        at: SocketAddr,
        agent: &str,
        name: &str,
        slots: usize,
        state: PathBuf,
    ) -> Result<rota_worker::Options> {
        let channel = RenewableChannel::new(client_options(&self.setup, self.folder.path(), at))?;
        let mut options = rota_worker::Options::new(channel, "default", agent, name, state);
        options.slots = slots;
        options.token = self.worker_token(agent, Some(name))?;
        Ok(options)
    }

    /// Returns a client that authenticates as a worker of an agent, if the control plane requires authentication.
    pub fn worker_client(&self, agent: &str) -> Result<Client> {
        let mut options = client_options(&self.setup, self.folder.path(), self.addr);
        if let Some(token) = self.worker_token(agent, None)? {
            options.token = rota_client::Token::Fixed(token);
        }
        Ok(Client::new(options)?)
    }

    fn worker_token(&self, agent: &str, worker: Option<&str>) -> Result<Option<SecretString>> {
        let Some(tokens) = self.running.as_ref().filter(|_| self.setup.token.is_some()) else {
            return Ok(None);
        };
        let grant = WorkerGrant {
            namespace: Namespace::new("default")?,
            agent: AgentName::new(agent)?,
            worker: worker.map(WorkerName::new).transpose()?,
            instance: None,
            slots: None,
            capabilities: Vec::new(),
        };
        Ok(Some(tokens.tokens.issue(grant, Duration::from_secs(3600))?))
    }
}

fn client_options(setup: &Setup, folder: &Path, addr: SocketAddr) -> ClientOptions {
    let scheme = if setup.tls.is_some() { "https" } else { "http" };
    let mut options = ClientOptions::new(format!("{scheme}://{addr}"));
    options.retry_for = Duration::from_secs(20);
    if let Some(token) = &setup.token {
        options.token = rota_client::Token::Fixed(token.clone().into());
    }
    if setup.tls.is_some() {
        options.ca = Some(files::tls(folder).0);
        options.tls_name = Some("localhost".to_owned());
    }
    options
}

type Started = (SocketAddr, Option<SocketAddr>, Weak<dyn Store>, WorkerTokens);
type Ran = (Running, SocketAddr, Option<SocketAddr>);

async fn run(setup: &Setup, folder: &Path, listen: SocketAddr) -> Result<Ran> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let shutdown = CancellationToken::new();
    let (started, start) = tokio::sync::oneshot::channel::<Result<Started>>();
    let (end, ended) = std::sync::mpsc::channel();
    let (stop, folder, setup) = (shutdown.clone(), folder.to_owned(), setup.clone());
    runtime.spawn(async move {
        let bound = async {
            let (own, data) = (setup.clone(), folder.clone());
            let store = tokio::task::spawn_blocking(move || open(&own, &data)).await??;
            let weak = Arc::downgrade(&store);
            let options = Options {
                listen,
                token: setup.token.map(|token| Token::Fixed(token.into())),
                viewer_token: setup.viewer_token.map(|_| files::viewers(&folder)),
                oidc: setup.oidc,
                people: setup.people,
                http_listen: setup.http.then(|| ([127, 0, 0, 1], 0).into()),
                tls: setup.tls.map(|_| {
                    let (certificate, key) = files::tls(&folder);
                    Tls { reload: Duration::from_millis(50), ..Tls::new(certificate, key) }
                }),
                store,
                artifacts: rota_server::Parts::in_folder(&folder.join("artifacts"))?,
                artifacts_quota: setup.artifacts_quota,
                notifications: Vec::new(),
                web_push: Some(setup.web_push),
                follow: None,
                keys: rota_server::KeyFiles::new(folder.join("secrets.key")),
                replica: "test".to_owned(),
                pool_kind: PoolKind::Pods,
                clock: clock(setup.database_skew, Arc::default()),
                overrides: rota_proto::v1::Overrides::Limits,
                timing: setup.timing,
                console: true,
                base_path: setup.base_path,
                limits: setup.limits,
                sessions: setup.sessions,
                cors_origins: setup
                    .cors_origins
                    .iter()
                    .map(|origin| origin.parse())
                    .collect::<Result<_, _>>()?,
                breakers: setup.breakers,
                background_tasks: rota_telemetry::BackgroundTasks::default(),
            };
            anyhow::Ok((Box::pin(Server::bind(options)).await?, weak))
        };
        match bound.await {
            Err(error) => drop(started.send(Err(error))),
            Ok((bound, store)) => {
                let _ = started.send(Ok((bound.addr(), bound.http_addr(), store, bound.worker_tokens())));
                let _ = end.send(bound.run(stop).await);
            }
        }
    });
    let started = match start.await.context("the control plane did not start").flatten() {
        Ok(started) => started,
        Err(error) => {
            // Dropped here, a runtime panics.
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let (addr, http_addr, store, tokens) = started;
    Ok((Running { runtime: Some(runtime), shutdown, ended, store, tokens }, addr, http_addr))
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
