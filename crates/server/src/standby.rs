//! A replica that does not own the database: it passes the connections that it accepts on to the owner, so that any replica
//! takes any call and any worker. Bytes are passed as they are: TLS ends at the owner, which also checks the caller. Knows
//! nothing of the store.

mod passing;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use rota_telemetry::{OnExit, spawn};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::passing::{MAX_PER_ADDRESS, Passing};
use crate::error::Error;
use crate::http;
use crate::metrics::standby;

/// The replica that owns the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub name: String,
    /// `HOST:PORT`; empty if it is not reached.
    pub address: String,
}

/// The last known owner; `None` while none was seen.
pub(crate) type Owners = watch::Sender<Option<Owner>>;

/// Why the database is not reached.
#[derive(Debug, Clone)]
pub struct Problem {
    pub message: String,
    pub hint: &'static str,
}

/// The last problem with the database before it was reached; `None` if there was none.
pub(crate) type Problems = watch::Sender<Option<Problem>>;

/// When the owner was last looked up in the database.
pub(crate) type Looks = watch::Sender<Instant>;

/// Age of the last look, the time of a lease, from which on this replica could not take over.
const MAX_LOOK_AGE: Duration = Duration::from_secs(10);

/// What a replica has found in the database, as its owner writes it.
#[derive(Debug, Clone)]
pub struct Findings {
    pub owners: Owners,
    pub problems: Problems,
    pub looks: Looks,
}

impl Default for Findings {
    fn default() -> Self {
        Self { owners: Owners::new(None), problems: Problems::new(None), looks: Looks::new(Instant::now()) }
    }
}

impl Findings {
    /// Publishes the owner that was found by a look right now, to which connections are passed on.
    pub fn found(&self, owner: Owner) {
        self.looks.send_replace(Instant::now());
        self.owners.send_if_modified(|known| {
            let is_new = known.as_ref() != Some(&owner);
            *known = Some(owner);
            is_new
        });
    }
}

/// What the probes are answered from.
#[derive(Clone)]
struct Probed {
    passing: Passing,
    closing: CancellationToken,
    problems: watch::Receiver<Option<Problem>>,
    looks: watch::Receiver<Instant>,
}

/// A replica that passes connections on, until it is stopped.
pub struct Standby {
    passing: Passing,
    /// Set once no further connections are taken.
    closing: CancellationToken,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Standby {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standby").finish_non_exhaustive()
    }
}

impl Standby {
    /// Listens. `advertised` is the replica's own address, to which it passes nothing.
    pub async fn start(
        listen: SocketAddr,
        http_listen: Option<SocketAddr>,
        advertised: &str,
        findings: &Findings,
    ) -> Result<Self, Error> {
        let (listener, _) = http::listen(listen).await?;
        let http = match http_listen {
            Some(addr) => Some(http::listen(addr).await?.0),
            None => None,
        };
        Ok(Self::serve(listener, http, advertised, findings, MAX_PER_ADDRESS))
    }

    fn serve(
        listener: TcpListener,
        http: Option<TcpListener>,
        advertised: &str,
        findings: &Findings,
        per_address: usize,
    ) -> Self {
        let (closing, stop) = (CancellationToken::new(), CancellationToken::new());
        let passing = Passing::new(advertised, findings.owners.subscribe(), per_address);
        let accepting = passing.clone().run(listener, closing.clone(), stop.clone());
        let mut tasks = vec![spawn("standby", OnExit::Done, accepting)];
        if let Some(listener) = http {
            let router = Router::new()
                .route("/livez", get(async || Json(json!({ "alive": true }))))
                .route("/readyz", get(ready))
                .route("/metrics", get(metrics_page))
                .with_state(Probed {
                    passing: passing.clone(),
                    closing: closing.clone(),
                    problems: findings.problems.subscribe(),
                    looks: findings.looks.subscribe(),
                });
            tasks.push(spawn(
                "standby-http",
                OnExit::Done,
                http::serve_router(listener, router, stop.clone()),
            ));
        }
        Self { passing, closing, stop, tasks }
    }

    /// Takes no further connections, and closes those that are left after a time. The replica is not ready meanwhile.
    pub async fn drain(self, grace: Duration) {
        self.closing.cancel();
        if timeout(grace, self.passing.all_closed()).await.is_err() {
            tracing::info!(?grace, "connections still open after the shutdown grace period were cut off");
        }
        self.stop().await;
    }

    /// Closes the listeners and every connection: the addresses are free afterwards.
    pub async fn stop(self) {
        self.closing.cancel();
        self.stop.cancel();
        for task in self.tasks {
            // One that has panicked has closed its listener, too.
            let _ = task.await;
        }
    }
}

async fn metrics_page(State(probed): State<Probed>, headers: HeaderMap) -> Response {
    http::metrics_page(standby::page(probed.passing.open(), http::accepted(&headers)))
}

/// Answers whether connections would reach the owner, which only an attempt shows.
async fn ready(State(probed): State<Probed>) -> (StatusCode, Json<Value>) {
    let Probed { passing, closing, problems, looks } = probed;
    if closing.is_cancelled() {
        return not_ready("stopping", "this replica is stopping", "");
    }
    let owner = passing.owner();
    if (owner.is_none() || looks.borrow().elapsed() > MAX_LOOK_AGE)
        && let Some(problem) = problems.borrow().as_ref()
    {
        return not_ready("store", &problem.message, problem.hint);
    }
    let Some(owner) = owner else {
        return not_ready(
            "no_owner",
            "no other replica owns the database",
            "wait for a takeover; if that lasts, check that the database can be reached and the log of the replicas",
        );
    };
    if let Err(error) = passing::connect(&owner.address).await {
        return not_ready(
            "owner_unreachable",
            &format!("the owner {} is not reached at {}: {error}", owner.name, owner.address),
            "check --advertise of the owner, and the network between the replicas",
        );
    }
    let body = json!({ "ready": true, "system": "standby", "owner": owner.name, "causes": [] });
    (StatusCode::OK, Json(body))
}

fn not_ready(code: &str, message: &str, hint: &str) -> (StatusCode, Json<Value>) {
    let cause = json!({ "code": code, "message": message, "hint": hint });
    let body = json!({ "ready": false, "system": "standby", "causes": [cause] });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body))
}
