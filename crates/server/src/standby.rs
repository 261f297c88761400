//! A replica that does not own the database: it passes the connections that it accepts on to the owner, so that any replica
//! takes any call and any worker. Bytes are passed as they are: TLS ends at the owner, which also checks the caller. Knows
//! nothing of the store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::{Json, Router};
use rota_telemetry::{OnExit, spawn};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::http;
use crate::trust::accept;

/// Connections that are passed on at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for which a new connection waits for an owner, such as during a takeover.
const OWNER_TIMEOUT: Duration = Duration::from_secs(5);
/// Format of an empty page of metrics.
const METRICS: &str = "text/plain; version=0.0.4";

/// The replica that owns the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub name: String,
    /// `HOST:PORT`; empty if it is not reached.
    pub address: String,
}

/// What is known of the owner; `None` while there is none.
pub type Owners = watch::Sender<Option<Owner>>;

/// A replica that passes connections on, until it is stopped.
pub struct Standby {
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
        owners: &Owners,
    ) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let (listener, _) = http::listen(listen).await?;
        let passing = pass_on(listener, advertised.to_owned(), owners.subscribe(), stop.clone());
        let mut tasks = vec![spawn("standby", OnExit::Done, passing)];
        if let Some(addr) = http_listen {
            let (listener, _) = http::listen(addr).await?;
            let router = Router::new()
                .route("/livez", get(async || Json(json!({ "alive": true }))))
                .route("/readyz", get(ready))
                // Scraped like an owner, it has no series: an empty page is a successful scrape.
                .route("/metrics", get(async || ([(CONTENT_TYPE, METRICS)], "")))
                .with_state(owners.subscribe());
            tasks.push(spawn(
                "standby-http",
                OnExit::Done,
                http::serve_router(listener, router, stop.clone()),
            ));
        }
        Ok(Self { stop, tasks })
    }

    /// Closes the listeners and every connection: the addresses are free afterwards.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // One that has panicked has closed its listener, too.
            let _ = task.await;
        }
    }
}

async fn ready(State(owners): State<watch::Receiver<Option<Owner>>>) -> (StatusCode, Json<Value>) {
    let owner = owners.borrow().clone();
    match owner {
        Some(owner) => (
            StatusCode::OK,
            Json(json!({ "ready": true, "system": "standby", "owner": owner.name, "causes": [] })),
        ),
        None => {
            let cause = json!({
                "code": "no_owner",
                "message": "no replica owns the database",
                "hint": "wait for a takeover; if that lasts, check that the database can be reached and the log of the replicas",
            });
            let body = json!({ "ready": false, "system": "standby", "causes": [cause] });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body))
        }
    }
}

async fn pass_on(
    listener: TcpListener,
    own: String,
    owners: watch::Receiver<Option<Owner>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = accept::accept(&listener).await;
            let (own, owners, stop) = (own.clone(), owners.clone(), stop.clone());
            spawn("passed-connection", OnExit::Done, async move {
                let _place = place;
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = pass(stream, &own, owners) => {}
                }
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
    }
}

/// Passes one connection on, until either side closes it or the owner changes.
async fn pass(mut stream: TcpStream, own: &str, mut owners: watch::Receiver<Option<Owner>>) {
    let known = timeout(OWNER_TIMEOUT, owners.wait_for(Option::is_some)).await;
    let Ok(Ok(Some(owner))) = known.map(|known| known.map(|owner| owner.clone())) else { return };
    // An owner that was restarted is a standby at the same address, which would pass the connection to itself.
    if owner.address.is_empty() || owner.address == own {
        return;
    }
    let mut onward = match timeout(CONNECT_TIMEOUT, TcpStream::connect(&owner.address)).await {
        Ok(Ok(onward)) => onward,
        Ok(Err(error)) => return tracing::debug!(%error, address = owner.address, "the owner is not reached"),
        Err(_) => return tracing::debug!(address = owner.address, "the owner is not reached in time"),
    };
    // Fails only for a connection that is closed already.
    let _ = onward.set_nodelay(true);
    tokio::select! {
        _ = copy_bidirectional(&mut stream, &mut onward) => {}
        _ = owners.wait_for(|now| now.as_ref() != Some(&owner)) => {}
    }
}
