//! How the operator is: figures for `/metrics`, and whether it lives and is ready.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;
use rota_telemetry::Loops;
use rota_telemetry::metrics::{Page, interval};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// How the operator is.
#[derive(Debug)]
pub(crate) struct Health {
    leads: AtomicBool,
    page: Page,
    leading: Gauge,
    durations: Family<Controller, Histogram>,
    failures: Family<Failed, Counter>,
    writes: Family<Controller, Counter>,
    /// What goes on in the background beside the controllers.
    pub(crate) loops: Loops,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    controller: &'static str,
    step: &'static str,
}

/// Notes how long something took, when it is dropped.
pub(crate) struct Timer<'a> {
    health: &'a Health,
    controller: &'static str,
    began: Instant,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let controller = Controller { controller: self.controller };
        self.health.durations.get_or_create(&controller).observe(self.began.elapsed().as_secs_f64());
    }
}

impl Default for Health {
    fn default() -> Self {
        let mut page = Page::new();
        let leading = Gauge::default();
        page.add("rota_operator_leading", None, &[], "Whether this operator leads", &leading);
        let durations = Family::<Controller, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 4.0, 8))
        });
        let (name, help) = ("rota_operator_reconcile_duration", "Time that reconciling one object took");
        page.add(name, Some(Unit::Seconds), &["controller"], help, &durations);
        let failures = Family::default();
        let help = "What failed and is tried again";
        page.add("rota_operator_failures", None, &["controller", "step"], help, &failures);
        let writes = Family::default();
        let help = "Status writes to the cluster";
        page.add("rota_operator_status_writes", None, &["controller"], help, &writes);
        let loops = Loops::default();
        loops.add_to(&mut page);
        page.add_process();
        Self { leads: AtomicBool::new(false), page, leading, durations, failures, writes, loops }
    }
}

impl Health {
    /// This operator leads now.
    pub(crate) fn leads(&self) {
        self.leads.store(true, Ordering::Relaxed);
        self.leading.set(1);
    }

    pub(crate) fn reconciling(&self, controller: &'static str) -> Timer<'_> {
        Timer { health: self, controller, began: Instant::now() }
    }

    pub(crate) fn failed(&self, controller: &'static str, step: &'static str) {
        self.failures.get_or_create(&Failed { controller, step }).inc();
    }

    /// A status was written.
    pub(crate) fn wrote(&self, controller: &'static str) {
        self.writes.get_or_create(&Controller { controller }).inc();
    }

    fn metrics(&self, headers: &HeaderMap) -> Response {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        match self.page.write(accept) {
            Ok((kind, page)) => ([(header::CONTENT_TYPE, kind)], page).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }

    /// Sends the figures to a collector as often as the variables say.
    pub(crate) async fn send(&self) -> Infallible {
        let Some(interval) = interval() else { return std::future::pending().await };
        loop {
            sleep(interval).await;
            self.page.send();
        }
    }

    /// Sends them once more.
    pub(crate) fn send_last(&self) {
        self.page.send();
    }

    /// Waiting to lead is being ready: another one does the work.
    fn ready(&self, stopping: bool) -> (StatusCode, &'static str) {
        match (stopping, self.leads.load(Ordering::Relaxed)) {
            (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            (false, true) => (StatusCode::OK, "leads\n"),
            (false, false) => (StatusCode::OK, "waits to lead\n"),
        }
    }
}

/// Serves `/livez`, `/readyz` and `/metrics` until `shutdown`.
pub(crate) async fn serve(
    addr: SocketAddr,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let listen = |source| Error::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    let (figures, stopping) = (Arc::clone(&health), shutdown.clone());
    let app = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(health.ready(stopping.is_cancelled()))))
        .route("/metrics", get(move |headers: HeaderMap| std::future::ready(figures.metrics(&headers))));
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await.map_err(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told() {
        let health = Health::default();
        health.failed("task", "watch");
        health.wrote("task");
        drop(health.reconciling("agent"));
        let (_, text) = health.page.write(None).unwrap();
        for line in [
            "rota_operator_leading 0",
            "rota_operator_failures_total{controller=\"task\",step=\"watch\"} 1",
            "rota_operator_status_writes_total{controller=\"task\"} 1",
            "rota_operator_reconcile_duration_seconds_count{controller=\"agent\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn it_is_ready_while_it_waits_and_not_while_it_stops() {
        let health = Health::default();
        assert_eq!(health.ready(false).0, StatusCode::OK);
        health.leads();
        assert_eq!(health.ready(false), (StatusCode::OK, "leads\n"));
        assert_eq!(health.ready(true).0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
