//! Plain HTTP listener for clients without TLS and tokens: liveness and readiness probes of a kubelet, and metrics scrapers.

use std::net::SocketAddr;
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
use rota_proto::causes;
use rota_telemetry::{OnExit, spawn};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::health::{self, Cause, Health};
use crate::metrics::Scraper;
use crate::trust::accept;

/// Concurrent connections; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 128;
/// Time to receive the headers of a request, also of the next one on a connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// State of the whole system: a ready replica may still be degraded.
    system: &'static str,
    /// Why it is not ready, or what is wrong with the control plane itself while it is.
    causes: Vec<CauseBody>,
}

#[derive(Debug, Serialize)]
struct CauseBody {
    code: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
}

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) health: Arc<Health>,
    pub(crate) scraper: Scraper,
}

/// Listens at an address, and returns the one that the system has chosen.
pub(crate) async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { addr, source };
    let listener = rota_telemetry::listen(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// Serves until `stop` is cancelled, and then closes open connections.
pub(crate) async fn serve(listener: TcpListener, pages: Pages, stop: CancellationToken) {
    let router = Router::new()
        .route("/livez", get(async || Json(serde_json::json!({ "alive": true }))))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    serve_router(listener, router, stop).await;
}

/// Serves pages until `stop` is cancelled, and then closes open connections.
pub(crate) async fn serve_router(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = TokioIo::new(accept::accept(&listener).await);
            let (service, stop) = (TowerToHyperService::new(router.clone()), stop.clone());
            spawn("http", OnExit::Done, async move {
                let _place = place;
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
                tokio::select! {
                    () = stop.cancelled() => {}
                    served = http.serve_connection(stream, service) => if let Err(error) = served {
                        tracing::debug!(%error, "HTTP connection failed");
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

async fn metrics(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    metrics_page(pages.scraper.page(accepted(&headers)).await)
}

/// Returns the formats that a scraper accepts.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok())
}

/// Returns the response with a page of metrics and its content type.
pub(crate) fn metrics_page(encoded: Result<(&'static str, String), std::fmt::Error>) -> Response {
    match encoded {
        Ok((kind, page)) => ([(header::CONTENT_TYPE, kind)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, Json<Ready>) {
    let not_ready = pages.health.not_ready().await;
    let diagnosed = pages.health.diagnose().await.1;
    let system = health::worst(&diagnosed).name();
    if not_ready.is_empty() {
        let causes = diagnosed.into_iter().filter_map(public).collect();
        return (StatusCode::OK, Json(Ready { ready: true, system, causes }));
    }
    let body = |Cause { code, message, hint, .. }: Cause| CauseBody { code, message, hint };
    let causes = not_ready.into_iter().map(body).collect();
    (StatusCode::SERVICE_UNAVAILABLE, Json(Ready { ready: false, system, causes }))
}

/// Returns what callers without a token see of a cause while the replica is ready: nothing of namespaces, agents and receivers, and no
/// text of users, tasks or errors.
fn public(cause: Cause) -> Option<CauseBody> {
    let Cause { code, subject, message, hint, .. } = cause;
    let message = match (code, &*subject) {
        ("store_space" | "too_many_tasks" | "memory", "")
        | ("background_task_stopped" | "background_task_stuck", _) => message,
        ("store_writes" | "history_lost" | causes::ARTIFACTS_LOST | causes::ARTIFACTS_UNAVAILABLE, "")
        | ("background_task_failing", _) => String::new(),
        _ => return None,
    };
    Some(CauseBody { code, message, hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::State;

    fn page(code: &'static str, subject: &str, message: &str) -> String {
        let (subject, message, hint) = (subject.to_owned(), message.to_owned(), "repair it".to_owned());
        let body = public(Cause { state: State::Error, code, subject, message, hint });
        serde_json::to_string(&body).unwrap()
    }

    #[test]
    fn public_causes_have_no_texts_of_others() {
        for code in [causes::ARTIFACTS_LOST, causes::ARTIFACTS_UNAVAILABLE, "store_writes", "history_lost"] {
            let shown = page(code, "", "merger.pdf of namespaces/default/tasks/one: 403 <secret>");
            assert_eq!(shown, format!(r#"{{"code":"{code}","hint":"repair it"}}"#));
        }
        let failing = page("background_task_failing", "backgroundTasks/sweep", "403 <secret>");
        assert_eq!(failing, r#"{"code":"background_task_failing","hint":"repair it"}"#);
        let stuck = page("background_task_stuck", "backgroundTasks/sweep", "it is busy");
        assert_eq!(stuck, r#"{"code":"background_task_stuck","message":"it is busy","hint":"repair it"}"#);
        assert!(page("memory", "", "99 of 100 MiB").contains("99 of 100 MiB"));
    }

    #[test]
    fn causes_of_others_are_not_public() {
        assert_eq!(page(causes::ARTIFACTS_LOST, "namespaces/default", "merger.pdf"), "null");
        assert_eq!(page("too_many_tasks", "namespaces/default", "9 tasks wait"), "null");
        assert_eq!(page(causes::BREAKER_OPEN, "namespaces/default/agents/coder", "open"), "null");
        assert_eq!(page("of_a_later_version", "", "anything"), "null");
    }
}
