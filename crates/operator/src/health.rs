//! Health of the operator: metrics, liveness and readiness over plain HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use parking_lot::{Mutex, MutexGuard};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;
use rota_crds::resource::{Agent, condition};
use rota_telemetry::BackgroundTasks;
use rota_telemetry::metrics::{Registry, export_interval};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::kind::Guarded;

/// Leadership, metrics and background tasks of the operator.
#[derive(Debug)]
pub(crate) struct Health {
    leads: AtomicBool,
    registry: Registry,
    leading: Gauge,
    durations: Family<Controller, Histogram>,
    failures: Family<Failed, Counter>,
    writes: Family<Controller, Counter>,
    /// Agents whose condition `Ready` is exposed. None before this operator is the leader.
    agents: OnceLock<Vec<Store<Guarded<Agent>>>>,
    not_ready: Family<NotReady, Gauge>,
    /// Held while the gauges are brought up to date and read.
    current: Mutex<()>,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotReady {
    namespace: String,
    agent: String,
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
        let not_ready = Family::default();
        let help = "Agents whose condition Ready is not true (always 1; no series for those that are ready)";
        registry.register("rota_operator_agent_not_ready", None, &["namespace", "agent"], help, &not_ready);
        let background_tasks = BackgroundTasks::default();
        background_tasks.register_metrics(&mut registry);
        registry.register_process_metrics();
        let leads = AtomicBool::new(false);
        let (agents, current) = (OnceLock::new(), Mutex::default());
        Self {
            leads,
            registry,
            leading,
            durations,
            failures,
            writes,
            agents,
            not_ready,
            current,
            background_tasks,
        }
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

    /// Exposes which agents of these stores are not ready.
    pub(crate) fn watch_agents(&self, stores: Vec<Store<Guarded<Agent>>>) {
        // Once per process: an operator that is no longer the leader exits.
        let _ = self.agents.set(stores);
    }

    /// Brings the gauges of agents up to date, which stay so until the guard is dropped. From the objects themselves: a watch that was
    /// interrupted reports no deletions.
    fn refresh(&self) -> MutexGuard<'_, ()> {
        let current = self.current.lock();
        self.not_ready.clear();
        let agents = self.agents.get().into_iter().flatten().flat_map(Store::state);
        for object in agents.filter(|object| !is_ready(object)) {
            let (namespace, agent) = (object.namespace().unwrap_or_default(), object.name_any());
            self.not_ready.get_or_create(&NotReady { namespace, agent }).set(1);
        }
        current
    }

    fn metrics(&self, headers: &HeaderMap) -> Response {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let _current = self.refresh();
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
            self.export_last();
        }
    }

    /// Exports the metrics now; also a last time before exit.
    pub(crate) fn export_last(&self) {
        let _current = self.refresh();
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

/// Whether an agent is ready by its status. One that cannot be read is not.
fn is_ready(agent: &Guarded<Agent>) -> bool {
    let status = agent.0.as_ref().ok().and_then(|agent| agent.status.as_ref());
    let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == condition::READY && condition.status == "True")
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use rota_crds::resource::{AgentStatus, Condition};

    use super::*;

    #[test]
    fn agents_that_are_not_ready_are_exposed() {
        let (health, series) = (Health::default(), "rota_operator_agent_not_ready{");
        let (store, mut writer) = reflector::store::<Guarded<Agent>>();
        let exposed = || {
            let _current = health.refresh();
            health.registry.encode(None).unwrap().1
        };
        assert!(!exposed().contains(series), "another operator is the leader");
        health.watch_agents(vec![store]);

        let mut agent = Agent::default();
        agent.metadata.name = Some("coder".to_owned());
        agent.metadata.namespace = Some("team".to_owned());
        for (ready, wanted) in [(None, 1), (Some("False"), 1), (Some("Unknown"), 1), (Some("True"), 0)] {
            agent.status = ready.map(|ready| AgentStatus {
                conditions: vec![Condition {
                    type_: "Ready".to_owned(),
                    status: ready.to_owned(),
                    reason: "Reason".to_owned(),
                    message: String::new(),
                    observed_generation: None,
                    last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
                }],
                ..AgentStatus::default()
            });
            writer.apply_watcher_event(&Event::Apply(Guarded(Ok(agent.clone()))));
            let text = exposed();
            assert_eq!(text.matches(series).count(), wanted, "{ready:?}: {text}");
            let line = "rota_operator_agent_not_ready{namespace=\"team\",agent=\"coder\"} 1";
            assert_eq!(text.matches(line).count(), wanted, "{ready:?}: {text}");
        }

        agent.status = None;
        writer.apply_watcher_event(&Event::Apply(Guarded(Ok(agent))));
        assert!(exposed().contains(series));
        // What a new list does not have was deleted.
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        assert!(!exposed().contains(series));
    }

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
