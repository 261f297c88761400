//! A control plane on a runtime of its own, so that it can be killed like a process: no task of it
//! runs any further, and nothing is told to anybody.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use rota_client::{Client, Options as ClientOptions};
use rota_core::Timestamp;
use rota_server::{Ended, Oidc, Options, Server, Timing, Tls, Token};
use rota_store::Store;
use rota_store::embedded::{Clock, Embedded};
use rota_store::engine::Engine;
use rota_store::memory::Memory;
use rota_worker::supervise::{SUBCOMMAND, Supervisor};
use tokio_util::sync::CancellationToken;

/// Where a control plane keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// In the twin: gone when it is killed.
    Memory,
    /// In SQLite, with full durability.
    Sqlite,
}

/// The skew of a clock that cannot be read.
pub const BROKEN: i64 = i64::MIN;

/// The skew of a clock at which the store's writer waits until it is another.
pub const STUCK: i64 = i64::MIN + 1;

/// How a control plane is set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where it keeps its state.
    pub keep: Keep,
    /// How long things may take.
    pub timing: Timing,
    /// What callers must show.
    pub token: Option<String>,
    /// Certificate and key, as PEM; they lie as `tls.crt` and `tls.key` in the cluster's folder. Clients trust them.
    pub tls: Option<(String, String)>,
    /// Whose tokens are taken beside `token`.
    pub oidc: Option<Oidc>,
    /// Whether it listens for probes, too.
    pub http: bool,
    /// Microseconds by which the store's clock is off, to be changed at any time. [`BROKEN`] makes the store's writer
    /// panic, and [`STUCK`] makes it wait.
    pub skew: Arc<AtomicI64>,
}

impl Setup {
    /// With [`timing`], open to everybody.
    pub fn new(keep: Keep) -> Self {
        Self { keep, timing: timing(), token: None, tls: None, oidc: None, http: false, skew: Arc::default() }
    }
}

/// A Rota in one process.
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
    ended: std::sync::mpsc::Receiver<Result<Ended, rota_server::Error>>,
    store: Weak<dyn Store>,
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

fn clock(skew: Arc<AtomicI64>) -> Clock {
    Arc::new(move || {
        while skew.load(Ordering::Relaxed) == STUCK {
            std::thread::sleep(Duration::from_millis(5));
        }
        let skew = skew.load(Ordering::Relaxed);
        assert_ne!(skew, BROKEN, "the test wants the writer to panic");
        Timestamp(rota_telemetry::clock::unix_micros() + skew)
    })
}

fn open(setup: &Setup, folder: &Path) -> Result<Arc<dyn Store>> {
    let seed = u64::from(std::process::id());
    let clock = clock(Arc::clone(&setup.skew));
    Ok(match setup.keep {
        Keep::Memory => {
            let twin = Memory::default();
            Arc::new(Embedded::start(Engine::new(twin.clone(), seed)?, twin, clock)?)
        }
        Keep::Sqlite => {
            let path = folder.join("rota.sqlite");
            Arc::new(rota_store_sqlite::open(rota_store_sqlite::Options { path, clock, seed })?)
        }
    })
}

impl Cluster {
    /// Starts a control plane with [`timing`].
    pub async fn start(keep: Keep) -> Result<Self> {
        Self::start_with(Setup::new(keep)).await
    }

    /// Starts a control plane.
    pub async fn start_with(setup: Setup) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        if let Some((certificate, key)) = &setup.tls {
            let files = tls_files(folder.path());
            std::fs::write(files.0, certificate)?;
            std::fs::write(files.1, key)?;
        }
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let (running, addr, http_addr) = run(&setup, folder.path(), any).await?;
        let client = Client::new(client_options(&setup, folder.path(), addr))?;
        Ok(Self { folder, setup, addr, http_addr, running: Some(running), client })
    }

    /// Another client, with a connection of its own.
    pub fn another_client(&self) -> Result<Client> {
        Ok(Client::new(client_options(&self.setup, self.folder.path(), self.addr))?)
    }

    /// A client of it. It goes on over restarts.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its store, to change what it does not expect.
    pub fn store(&self) -> Option<Arc<dyn Store>> {
        self.running.as_ref()?.store.upgrade()
    }

    /// Where it listens, also after a restart.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it answers probes, if it does; another place after a restart.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
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
            let store = running.store.upgrade();
            // Dropping a runtime drops its tasks where they stand. It may not be done on another runtime's thread.
            let _ =
                tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await;
            // The store's writer is a thread: it must not go on beside the next control plane's.
            if let Some(store) = store {
                store.close().await;
            }
        }
    }

    /// Tells the control plane to end, and does not wait for it.
    pub fn begin_stop(&self) {
        if let Some(running) = &self.running {
            running.shutdown.cancel();
        }
    }

    /// Ends the control plane in order. How it did so, if it did.
    pub async fn stop(&mut self) -> Option<Ended> {
        self.begin_stop();
        self.ended().await?.ok()
    }

    /// Waits for the control plane to end, and gives what came of it; `None` if it does not.
    pub async fn ended(&mut self) -> Option<Result<Ended, rota_server::Error>> {
        let mut running = self.running.take()?;
        let ended = tokio::task::spawn_blocking(move || {
            let ended = running.ended.recv_timeout(Duration::from_secs(20)).ok();
            if let Some(runtime) = running.runtime.take() {
                runtime.shutdown_timeout(Duration::from_secs(5));
            }
            ended
        });
        ended.await.ok().flatten()
    }

    /// Starts it again at the same address, on what it kept.
    pub async fn restart(&mut self) -> Result<()> {
        anyhow::ensure!(self.running.is_none(), "it is still running");
        let (running, _, http_addr) = run(&self.setup, self.folder.path(), self.addr).await?;
        (self.running, self.http_addr) = (Some(running), http_addr);
        Ok(())
    }

    /// Starts a worker of an agent inside of this process.
    pub fn worker(&self, agent: &str, name: &str, slots: usize) -> Result<WorkerHandle> {
        self.worker_in(agent, name, slots, self.folder.path().join("workers").join(name))
    }

    /// The same with a state folder of the caller's.
    pub fn worker_in(&self, agent: &str, name: &str, slots: usize, state: PathBuf) -> Result<WorkerHandle> {
        Ok(WorkerHandle::start(self.worker_options(self.addr, agent, name, slots, state)?))
    }

    /// What a worker is told, to be changed and then started. `at` is the control plane, or a proxy before it.
    pub fn worker_options(
        &self,
        at: SocketAddr,
        agent: &str,
        name: &str,
        slots: usize,
        state: PathBuf,
    ) -> Result<rota_worker::Options> {
        let channel = rota_client::lazy_channel(&client_options(&self.setup, self.folder.path(), at))?;
        let mut options = rota_worker::Options::new(channel, "default", agent, name, state);
        options.slots = slots;
        options.token = self.setup.token.clone().map(Into::into);
        Ok(options)
    }
}

/// Where a cluster keeps certificate and key.
fn tls_files(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("tls.crt"), folder.join("tls.key"))
}

fn client_options(setup: &Setup, folder: &Path, addr: SocketAddr) -> ClientOptions {
    let scheme = if setup.tls.is_some() { "https" } else { "http" };
    let mut options = ClientOptions::new(format!("{scheme}://{addr}"));
    options.retry_for = Duration::from_secs(20);
    if let Some(token) = &setup.token {
        options.token = rota_client::Token::Fixed(token.clone().into());
    }
    if setup.tls.is_some() {
        options.ca = Some(tls_files(folder).0);
        options.tls_name = Some("localhost".to_owned());
    }
    options
}

async fn run(
    setup: &Setup,
    folder: &Path,
    listen: SocketAddr,
) -> Result<(Running, SocketAddr, Option<SocketAddr>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let shutdown = CancellationToken::new();
    let (started, start) =
        tokio::sync::oneshot::channel::<Result<(SocketAddr, Option<SocketAddr>, Weak<dyn Store>)>>();
    let (end, ended) = std::sync::mpsc::channel();
    let (stop, folder, setup) = (shutdown.clone(), folder.to_owned(), setup.clone());
    runtime.spawn(async move {
        let bound = async {
            let store = tokio::task::spawn_blocking({
                let (setup, folder) = (setup.clone(), folder.clone());
                move || open(&setup, &folder)
            })
            .await??;
            let weak = Arc::downgrade(&store);
            let options = Options {
                listen,
                token: setup.token.map(|token| Token::Fixed(token.into())),
                oidc: setup.oidc,
                http_listen: setup.http.then(|| ([127, 0, 0, 1], 0).into()),
                tls: setup.tls.map(|_| {
                    let (certificate, key) = tls_files(&folder);
                    Tls { reload: Duration::from_millis(50), ..Tls::new(certificate, key) }
                }),
                store,
                key_file: folder.join("key"),
                replica: "test".to_owned(),
                isolates: true,
                timing: setup.timing,
                loops: rota_telemetry::Loops::default(),
            };
            anyhow::Ok((Server::bind(options).await?, weak))
        };
        match bound.await {
            Err(error) => drop(started.send(Err(error))),
            Ok((bound, store)) => {
                let _ = started.send(Ok((bound.addr(), bound.http_addr(), store)));
                let _ = end.send(bound.run(stop).await);
            }
        }
    });
    let (addr, http_addr, store) = start.await.context("the control plane did not start")??;
    Ok((Running { runtime: Some(runtime), shutdown, ended, store }, addr, http_addr))
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
