//! Health of the operator: metrics, liveness and readiness over plain HTTP.

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
use rota_telemetry::BackgroundTasks;
use rota_telemetry::metrics::{Registry, export_interval};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Leadership, metrics and background tasks of the operator.
#[derive(Debug)]
pub(crate) struct Health {
    leads: AtomicBool,
    registry: Registry,
    leading: Gauge,
    durations: Family<Controller, Histogram>,
    failures: Family<Failed, Counter>,
    writes: Family<Controller, Counter>,
    /// Background tasks besides the controllers.
    pub(crate) background_tasks: BackgroundTasks,
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

/// Records the duration of a reconciliation when dropped.
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
        let mut registry = Registry::new();
        let leading = Gauge::default();
        registry.register(
            "rota_operator_leading",
            None,
            &[],
            "Whether this operator is the leader (0 or 1)",
            &leading,
        );
        let durations = Family::<Controller, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 4.0, 8))
        });
        let (name, help) = ("rota_operator_reconcile_duration", "Duration of one reconciliation");
        registry.register(name, Some(Unit::Seconds), &["controller"], help, &durations);
        let failures = Family::default();
        let help = "Failed steps that are retried";
        registry.register("rota_operator_failures", None, &["controller", "step"], help, &failures);
        let writes = Family::default();
        let help = "Status writes to the Kubernetes API";
        registry.register("rota_operator_status_writes", None, &["controller"], help, &writes);
        let background_tasks = BackgroundTasks::default();
        background_tasks.register_metrics(&mut registry);
        registry.register_process_metrics();
        let leads = AtomicBool::new(false);
        Self { leads, registry, leading, durations, failures, writes, background_tasks }
    }
}

impl Health {
    /// Marks this operator as the leader.
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

    pub(crate) fn status_written(&self, controller: &'static str) {
        self.writes.get_or_create(&Controller { controller }).inc();
    }

    fn metrics(&self, headers: &HeaderMap) -> Response {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        match self.registry.encode(accept) {
            Ok((kind, page)) => ([(header::CONTENT_TYPE, kind)], page).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }

    /// Exports the metrics to a collector, at the interval set by the OpenTelemetry variables.
    pub(crate) async fn export(&self) -> Infallible {
        let Some(interval) = export_interval() else { return std::future::pending().await };
        loop {
            sleep(interval).await;
            self.registry.export();
        }
    }

    /// Exports the metrics a last time before exit.
    pub(crate) fn export_last(&self) {
        self.registry.export();
    }

    /// Returns the readiness. A standby is ready: another operator is the leader.
    fn ready(&self, stopping: bool) -> (StatusCode, &'static str) {
        match (stopping, self.leads.load(Ordering::Relaxed)) {
            (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            (false, true) => (StatusCode::OK, "leader\n"),
            (false, false) => (StatusCode::OK, "standby\n"),
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
    let listener = rota_telemetry::listen(addr).await.map_err(listen)?;
    let (metrics, stopping) = (Arc::clone(&health), shutdown.clone());
    let app = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(health.ready(stopping.is_cancelled()))))
        .route("/metrics", get(move |headers: HeaderMap| std::future::ready(metrics.metrics(&headers))));
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await.map_err(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_exported() {
        let health = Health::default();
        health.failed("task", "watch");
        health.status_written("task");
        drop(health.reconciling("agent"));
        let (_, text) = health.registry.encode(None).unwrap();
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
    fn standby_is_ready_until_shutdown() {
        let health = Health::default();
        assert_eq!(health.ready(false).0, StatusCode::OK);
        health.leads();
        assert_eq!(health.ready(false), (StatusCode::OK, "leader\n"));
        assert_eq!(health.ready(true).0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
