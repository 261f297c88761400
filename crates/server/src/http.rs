//! The plain HTTP listener for those who cannot speak TLS with us: a kubelet's probes (alive, ready and why not), and
//! whoever gathers metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rota_telemetry::{OnExit, spawn};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::health::{self, Cause};
use crate::metrics;
use crate::shared::Shared;
use crate::trust::accept;

/// Connections at a time.
const CONNECTIONS: usize = 128;
/// For a request to come, also the next one on a connection.
const REQUEST: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// How the whole system fares, in a word: a replica that is ready may still be degraded.
    system: &'static str,
    causes: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Told {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

/// Answers until `stop`.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(async || Json(serde_json::json!({ "alive": true }))))
        .route("/readyz", get(ready))
        .route("/metrics", get(figures))
        .with_state(shared);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let accepting = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = TokioIo::new(accept::accept(&listener).await);
            let (service, stop) = (TowerToHyperService::new(router.clone()), stop.clone());
            spawn("http", OnExit::Done, async move {
                let _place = place;
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(REQUEST);
                tokio::select! {
                    () = stop.cancelled() => {}
                    served = http.serve_connection(stream, service) => if let Err(error) = served {
                        tracing::debug!(%error, "an HTTP connection failed");
                    }
                }
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
    }
}

async fn figures(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    match metrics::page(&shared, accept).await {
        Ok((kind, page)) => ([(header::CONTENT_TYPE, kind)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Ready>) {
    let causes = shared.not_ready().await;
    let system = health::worst(&shared.diagnose().await.1).word();
    let status = if causes.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let told = causes.into_iter().map(|Cause { code, message, hint, .. }| Told { code, message, hint });
    (status, Json(Ready { ready: status == StatusCode::OK, system, causes: told.collect() }))
}
