//! Puts a control plane together, runs it, and ends it in order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rota_core::target::Profile;
use rota_core::task::WorkerRef;
use rota_core::{Fence, TaskId};
use rota_proto::v1::admin_service_server::AdminServiceServer;
use rota_proto::v1::agent_service_server::AgentServiceServer;
use rota_proto::v1::task_service_server::TaskServiceServer;
use rota_proto::worker::v1::worker_service_server::WorkerServiceServer;
use rota_store::{Session, Snapshot};
use rota_telemetry::{OnExit, spawn};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::breakers::Breakers;
use crate::dispatch::{Fleet, Phase, Seat};
use crate::grpc::{self, ending};
use crate::health::Health;
use crate::metrics::{self, Metrics};
use crate::options::Options;
use crate::pools::Pools;
use crate::seal::{self, Sealer};
use crate::shared::{KnownAgent, Shared};
use crate::trust::auth::Door;
use crate::trust::{accept, auth, tls};
use crate::watchers::Watchers;
use crate::wire::agent;
use crate::{background, http, sessions};

/// Claims that may wait to be settled; more than there are workers in most fleets.
const CLAIMS: usize = 4096;
/// Largest message that is taken: a prompt of 1 MiB with room to spare.
const MAX_MESSAGE: usize = 8 << 20;

/// Why a control plane cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, or not ours.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] rota_store::Error),
    /// Another control plane reads this store's commits.
    #[error("the store is already in use by another control plane in this process")]
    InUse,
    /// The key file.
    #[error(transparent)]
    Seal(#[from] seal::Error),
    /// The certificate.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The token's file.
    #[error("the token file cannot be used: {0}")]
    Token(String),
    /// Transport.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// A part without which nothing goes on.
    #[error("the {0} ended, which should run as long as the control plane; the log says why; start it again")]
    Ended(&'static str),
    /// The API's own description.
    #[error("reflection cannot be set up: {0}")]
    Reflection(String),
}

/// How a control plane that was told to stop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All that was under way ended by itself.
    InOrder,
    /// Something had not ended when the grace was over.
    Cut,
}

/// A control plane.
#[derive(Debug)]
pub struct Server;

/// A control plane that listens.
pub struct Bound {
    addr: SocketAddr,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    http: Option<TcpListener>,
    door: Door,
    options: Options,
    shared: Arc<Shared>,
    loops: background::Loops,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Server {
    /// Loads what the store knows, and listens.
    pub async fn bind(options: Options) -> Result<Bound, Error> {
        let commits = options.store.commits().ok_or(Error::InUse)?;
        let snapshot = options.store.snapshot().await?;
        let sealer = Sealer::open(&options.key_file)?;
        let (listener, addr) = listen(options.listen).await?;
        let http = match options.http_listen {
            Some(addr) => Some(listen(addr).await?.0),
            None => None,
        };
        let stop = CancellationToken::new();
        let tls = match &options.tls {
            Some(files) => {
                Some(tls::acceptor(files, &options.loops, stop.clone()).await.map_err(Error::Tls)?)
            }
            None => None,
        };
        let door = Door::new(options.token.clone(), options.oidc.clone(), &options.loops, stop.clone());
        let door = door.await.map_err(Error::Token)?;

        let (claims, settled) = mpsc::channel(CLAIMS);
        let shared = Arc::new(Shared {
            store: Arc::clone(&options.store),
            fleet: Fleet::default(),
            metrics: Metrics::new(&options.loops),
            health: Health::default(),
            loops: options.loops.clone(),
            watchers: Watchers::new(),
            claims,
            agents: RwLock::default(),
            agent_changes: tokio::sync::Mutex::default(),
            pools: Pools::default(),
            breakers: Breakers::new(options.breakers),
            sealer,
            replica: options.replica.clone(),
            isolates: options.isolates,
            timing: options.timing.clone(),
            stop,
        });
        let next_due = snapshot.next_due;
        load(&shared, snapshot);
        let loops = background::start(&shared, commits, settled, next_due);
        Ok(Bound { addr, listener, tls, http, door, options, shared, loops })
    }
}

async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// Takes over what was there before this control plane started. Workers have the recovery grace to come back.
fn load(shared: &Arc<Shared>, snapshot: Snapshot) {
    for known in snapshot.agents {
        let key = (known.namespace.clone(), known.name.clone());
        let spec = Arc::new(agent::kept(&known).spec.unwrap_or_default());
        shared.agents.write().insert(key, KnownAgent { agent: Arc::new(known), spec });
    }
    shared.fleet.load(snapshot.routes, snapshot.queued);
    for (_, task) in &snapshot.on_workers {
        let on = |session: &&Session| {
            let worker = task.assignment.as_ref().map(|assignment| &assignment.worker);
            session.namespace == task.namespace && worker == Some(&session.worker)
        };
        let agent = snapshot.sessions.iter().find(on).map(|session| &session.agent);
        shared.metrics.load(task, agent);
        if let Some(agent) = agent {
            shared.breakers.load(task, agent);
        }
    }
    for session in snapshot.sessions {
        let worker = WorkerRef { worker: session.worker.clone(), epoch: session.epoch };
        let tasks = || {
            (snapshot.on_workers.iter()).map(|(_, task)| task).filter(|task| {
                task.namespace == session.namespace
                    && task.assignment.as_ref().is_some_and(|a| a.worker == session.worker)
            })
        };
        let held = tasks().map(|task| ((task.id, task.fence), Phase::Held)).collect();
        let own = tasks().find(|task| task.target.is_own()).map(|task| task.id);
        let mut seat = absent(shared, session.clone(), held);
        seat.profile.task = own;
        let key = seat.key();
        // The first of its name: nothing can be newer.
        let _ = shared.fleet.seat(seat);
        let message = "its worker did not come back after the control plane started";
        sessions::lose_after(shared, &key, worker, shared.timing.recovery_grace, message);
    }
}

/// A worker that has a session row but, for now, no stream.
fn absent(shared: &Shared, session: Session, attempts: BTreeMap<(TaskId, Fence), Phase>) -> Seat {
    let known = shared.agent(&session.namespace, &session.agent);
    let profile = Profile {
        namespace: session.namespace,
        worker: session.worker,
        agent: session.agent,
        capabilities: known.map(|known| known.agent.capabilities.clone()).unwrap_or_default(),
        task: None,
    };
    let mut seat = Seat::new(profile, session.epoch, session.instance, session.since);
    (seat.slots, seat.attempts) = (attempts.len(), attempts);
    seat
}

impl Bound {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it tells in plain HTTP how it is.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|http| http.local_addr().ok())
    }

    /// Serves until `shutdown`; then ends every stream, waits for a grace, and closes the store.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Ended, Error> {
        let Self { listener, tls, http, door, options, shared, mut loops, .. } = self;
        let health = grpc::health(&shared);
        let reflection = grpc::reflection().map_err(Error::Reflection)?;
        let layer = auth::Layer(Arc::new(door));
        let tasks = TaskServiceServer::new(grpc::Tasks { shared: Arc::clone(&shared) })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(2 * MAX_MESSAGE);
        let agents = AgentServiceServer::new(grpc::Agents { shared: Arc::clone(&shared) });
        let admin = AdminServiceServer::new(grpc::Admin { shared: Arc::clone(&shared) });
        let workers = WorkerServiceServer::new(sessions::Service { shared: Arc::clone(&shared) })
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(2 * MAX_MESSAGE);

        let router = tonic::transport::Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .max_concurrent_streams(10_000)
            .layer(layer)
            .layer(ending::Layer(shared.stop.clone()))
            .layer(tonic_web::GrpcWebLayer::new())
            .layer(grpc::traced::Layer)
            .add_service(tasks)
            .add_service(agents)
            .add_service(admin)
            .add_service(workers)
            .add_service(health)
            .add_service(reflection);

        let http_stop = CancellationToken::new();
        if let Some(listener) = http {
            let http = http::serve(listener, Arc::clone(&shared), http_stop.clone());
            spawn("http-listener", OnExit::Done, http);
        }
        spawn("figures", OnExit::Done, metrics::send(Arc::clone(&shared)));
        // A replica that ends, however it does, does not answer any more.
        let _http_stop = http_stop.drop_guard();
        let incoming = accept::incoming(listener, tls, shutdown.clone());
        let stop = shared.stop.clone();
        let serve = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        let mut serve = std::pin::pin!(serve);
        let grace = options.timing.shutdown_grace;
        let (served, early_end) = tokio::select! {
            served = &mut serve => (Some(served), None),
            () = shutdown.cancelled() => (None, None),
            // Whoever watches the process can start it anew; a server that only refuses would do so for ever.
            part = loops.first_end() => (None, Some(part)),
        };
        // Streams must end by themselves, or the server would wait for them for ever.
        stop.cancel();
        let mut ended = Ended::InOrder;
        let served = match served {
            Some(served) => served,
            // A connection on which nothing ever comes must not hold up the end either.
            None => tokio::time::timeout(grace, serve).await.unwrap_or_else(|_| {
                tracing::warn!("calls that had not ended within {grace:?} were cut off");
                ended = Ended::Cut;
                Ok(())
            }),
        };
        shared.store.close().await;
        if !loops.join(grace).await {
            tracing::warn!("a loop that had not ended within {grace:?} was left behind");
            ended = Ended::Cut;
        }
        metrics::send_last(&shared);
        served?;
        match early_end {
            Some(part) => Err(Error::Ended(part)),
            None => Ok(ended),
        }
    }
}
