//! Metrics of the control plane. Counters follow the commits (`commits`); gauges are read when the page is scraped
//! (`scrape`). Decides nothing.

mod commits;
mod labels;
mod load;
mod scrape;
pub(crate) mod standby;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;
use rota_core::task;
use rota_telemetry::BackgroundTasks;
pub use rota_telemetry::metrics::Descriptor;
use rota_telemetry::metrics::Registry;

pub(crate) use self::commits::outcome;
use self::labels::{
    Agent, Backend, Bounds, Budget, Class, InState, Model, Notified, Of, Opened, Outcome, Receiver, Recovery,
    Run, State, Token, Version,
};
pub(crate) use self::labels::{NONE, OTHER, Refusal};
pub(crate) use self::scrape::Scraper;
use crate::lineage::Loss;

type Histograms = Family<Agent, Histogram, fn() -> Histogram>;
type Gauges<L> = Family<L, Gauge>;
type Counters<L> = Family<L, Counter>;

const AGENT: &[&str] = &["namespace", "agent"];
const OUTCOME: &[&str] = &["namespace", "agent", "outcome"];
const IN_STATE: &[&str] = &["namespace", "agent", "state"];

/// Bounds from an assignment within one commit to a queue without workers, in seconds.
pub(crate) const LATENCY_BOUNDS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
/// Bounds from a script to the work of a day, in seconds.
pub(crate) const ATTEMPT_BOUNDS: [f64; 11] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 14400.0];

fn latency() -> Histogram {
    Histogram::new(LATENCY_BOUNDS)
}

fn duration() -> Histogram {
    Histogram::new(ATTEMPT_BOUNDS)
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    bounds: Bounds,
    /// Number of tasks on workers, by state.
    on_workers: Mutex<BTreeMap<task::State, u64>>,

    created: Counters<Agent>,
    ended: Counters<Outcome>,
    attempts_ended: Counters<Outcome>,
    failures: Counters<Class>,
    recoveries: Counters<Recovery>,
    recovered: Counters<Agent>,
    dispatch: Histograms,
    attempt: Histograms,
    tokens: Counters<Token>,
    cost: Family<Model, Counter<f64, AtomicU64>>,
    sessions: Counters<Opened>,
    lost: Counter,
    commit: Histogram,
    batch: Histogram,

    tasks: Gauges<State>,
    queue: Gauges<Agent>,
    oldest: Family<Agent, Gauge<f64, AtomicU64>>,
    workers: Gauges<InState>,
    slots: Gauges<InState>,
    breakers: Gauges<Agent>,
    backends: Gauges<Backend>,
    cool_downs: Gauges<Agent>,
    budgets: Family<Budget, Gauge<f64, AtomicU64>>,
    breakers_opened: Counter,
    slot_mismatches: Counter,
    undecodable: Counter,
    set_aside: Counter,
    write_failures: Counter,
    writes_failing: Gauge,
    last_backup: Gauge,
    history_lost: Gauge,
    space: Space,
    search_lag: Gauge,
    load: load::Load,
    artifact_bytes: Gauges<Of>,
    artifacts_full: Gauges<Of>,
    artifacts_unavailable: Gauge,
    artifacts_lost: Gauges<Of>,
    notified: Counters<Notified>,
    notifications_waiting: Gauges<Receiver>,
    workflows_ended: Counters<Run>,
    approvals_waiting: Gauge,
    schedule_runs: Counters<Run>,
    schedules_failing: Gauges<Of>,
    schedule_lag: Histogram,
}

/// Room of the store, by kind of bytes.
#[derive(Debug, Default)]
struct Space {
    size: Gauge,
    reusable: Gauge,
    free: Gauge,
    volume: Gauge,
}

/// Every metric of the control plane.
pub fn metrics() -> Vec<Descriptor> {
    Metrics::new(&BackgroundTasks::default()).registry.into_inner().descriptors().to_vec()
}

impl Metrics {
    /// Returns all metrics at zero, with those of the background tasks.
    pub(crate) fn new(background_tasks: &BackgroundTasks) -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            bounds: Bounds::default(),
            on_workers: Mutex::default(),
            created: Family::default(),
            ended: Family::default(),
            attempts_ended: Family::default(),
            failures: Family::default(),
            recoveries: Family::default(),
            recovered: Family::default(),
            dispatch: Family::new_with_constructor(latency),
            attempt: Family::new_with_constructor(duration),
            tokens: Family::default(),
            cost: Family::default(),
            sessions: Family::default(),
            lost: Counter::default(),
            commit: Histogram::new(exponential_buckets(0.0001, 2.0, 15)),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            tasks: Family::default(),
            queue: Family::default(),
            oldest: Family::default(),
            workers: Family::default(),
            slots: Family::default(),
            breakers: Family::default(),
            backends: Family::default(),
            cool_downs: Family::default(),
            budgets: Family::default(),
            breakers_opened: Counter::default(),
            slot_mismatches: Counter::default(),
            undecodable: Counter::default(),
            set_aside: Counter::default(),
            write_failures: Counter::default(),
            writes_failing: Gauge::default(),
            last_backup: Gauge::default(),
            history_lost: Gauge::default(),
            space: Space::default(),
            search_lag: Gauge::default(),
            load: load::Load::default(),
            artifact_bytes: Family::default(),
            artifacts_full: Family::default(),
            artifacts_unavailable: Gauge::default(),
            artifacts_lost: Family::default(),
            notified: Family::default(),
            notifications_waiting: Family::default(),
            workflows_ended: Family::default(),
            approvals_waiting: Gauge::default(),
            schedule_runs: Family::default(),
            schedules_failing: Family::default(),
            schedule_lag: latency(),
        };
        for outcome in ["succeeded", "failed", "cancelled", "compensation_failed"] {
            drop(metrics.workflows_ended.get_or_create(&Run { outcome }));
        }
        for outcome in ["started", "skipped", "failed"] {
            drop(metrics.schedule_runs.get_or_create(&Run { outcome }));
        }
        metrics.fill(&mut metrics.registry.lock());
        background_tasks.register_metrics(&mut metrics.registry.lock());
        metrics
    }

    fn fill(&self, registry: &mut Registry) {
        let seconds = || Some(Unit::Seconds);
        registry.register("rota_tasks", None, &["state"], "Tasks that have not ended, by state", &self.tasks);
        registry.register("rota_tasks_created", None, AGENT, "Tasks created", &self.created);
        registry.register(
            "rota_tasks_ended",
            None,
            OUTCOME,
            "Tasks ended, by outcome: succeeded, failed or cancelled",
            &self.ended,
        );
        let help = "Ready tasks that wait for a slot, by the agent that is to execute them";
        registry.register("rota_queue_tasks", None, AGENT, help, &self.queue);
        let help = "Time in seconds since the first task of the queue became ready";
        registry.register("rota_queue_oldest_age", seconds(), AGENT, help, &self.oldest);
        let help = "Time in seconds from ready to assigned";
        registry.register("rota_dispatch_latency", seconds(), AGENT, help, &self.dispatch);
        let help = "Started attempts that ended, by outcome: succeeded, failed, cancelled, lost with the worker, or released until a \
             person answers";
        registry.register("rota_attempts_ended", None, OUTCOME, help, &self.attempts_ended);
        let help = "Time in seconds from the start of an attempt to its end";
        registry.register("rota_attempt_duration", seconds(), AGENT, help, &self.attempt);
        let help = "Failures of attempts and tasks, by class";
        registry.register("rota_failures", None, &["class"], help, &self.failures);
        let help = "Reactions to failures of attempts, by class and action: retry, wait (for credentials, a limit or a host), or stop";
        registry.register("rota_recoveries", None, &["class", "action"], help, &self.recoveries);
        let help = "Tasks that have succeeded after failed or lost attempts";
        registry.register("rota_tasks_recovered", None, AGENT, help, &self.recovered);
        let labels = &["namespace", "agent", "model", "type"];
        let help = "Tokens used by attempts, by type: input, output, cache_read or cache_write";
        registry.register("rota_tokens", None, labels, help, &self.tokens);
        let labels = &["namespace", "agent", "model"];
        let help = "Cost of attempts in US dollars, as far as their runtimes report it";
        registry.register("rota_cost", Some(Unit::Other("usd".to_owned())), labels, help, &self.cost);
        let help = "Workers, by state: idle, busy, draining, not_ready (they report a problem), suspended (by their \
                    circuit breaker), or away while they may reconnect";
        registry.register("rota_workers", None, IN_STATE, help, &self.workers);
        let help = "Slots of connected workers, by state: free or used; a draining worker has no free ones";
        registry.register("rota_worker_slots", None, IN_STATE, help, &self.slots);
        let help = "Sessions opened by workers, by kind: first, reconnect by the same process, or replaced by another";
        registry.register("rota_worker_sessions", None, &["kind"], help, &self.sessions);
        let help = "Worker sessions that ended for good, cleanly or not";
        registry.register("rota_worker_sessions_ended", None, &[], help, &self.lost);
        let help = "Circuit breaker state (0 closed, 1 half-open, 2 open)";
        registry.register("rota_breaker_state", None, AGENT, help, &self.breakers);
        let help = "State of the circuit breaker of a back end of models (0 closed, 1 half-open, 2 open); absent without \
                    failures";
        let labels = &["namespace", "backend"];
        registry.register("rota_backend_breaker_state", None, labels, help, &self.backends);
        let help = "Time in seconds until the model credential of an agent may be used again that has reached a limit, or is \
                    rejected; 0 if there is none";
        registry.register("rota_agent_cool_down", seconds(), AGENT, help, &self.cool_downs);
        let help = "Spent share of the budget of an agent, or of a namespace (no agent), in the current day or month of UTC";
        registry.register(
            "rota_budget_used_ratio",
            None,
            &["namespace", "agent", "period"],
            help,
            &self.budgets,
        );
        let help = "Circuit breaker openings";
        registry.register("rota_breakers_opened", None, &[], help, &self.breakers_opened);
        let help = "Inconsistencies found in the scheduler's slot accounting; always 0 unless there is a bug";
        registry.register("rota_scheduler_slot_mismatch", None, &[], help, &self.slot_mismatches);
        let help = "Time in seconds until a commit was durable";
        registry.register("rota_store_commit_duration", seconds(), &[], help, &self.commit);
        registry.register("rota_store_commit_commands", None, &[], "Commands per commit", &self.batch);
        let help = "Stored records that could not be decoded and are left alone";
        registry.register("rota_store_undecodable_records", None, &[], help, &self.undecodable);
        let help =
            "Consequences of changes that could not be continued: tasks that they concern stay as they are";
        registry.register("rota_store_follow_ups_set_aside", None, &[], help, &self.set_aside);
        let help = "Writes that the store did not take, as with a full disk; their callers received an error";
        registry.register("rota_store_write_failures", None, &[], help, &self.write_failures);
        let help = "Whether the last write failed (0 or 1)";
        registry.register("rota_store_writes_failing", None, &[], help, &self.writes_failing);
        let help = "When the last backup was sent to its end, in Unix time; 0 for none since the start";
        registry.register("rota_last_backup_timestamp", seconds(), &[], help, &self.last_backup);
        let help = "When it was noticed last that the store has lost commits, in Unix time; 0 for never";
        registry.register("rota_history_lost_timestamp", seconds(), &[], help, &self.history_lost);
        let bytes = || Some(Unit::Bytes);
        let Space { size, reusable, free, volume } = &self.space;
        registry.register("rota_store_size", bytes(), &[], "Size of the store's files", size);
        let help = "What is unused within the store's files: room for new records";
        registry.register("rota_store_reusable", bytes(), &[], help, reusable);
        let help = "What is free on the volume of the store; 0 if it has no files";
        registry.register("rota_store_free", bytes(), &[], help, free);
        let help = "Size of the volume of the store; 0 if it has no files";
        registry.register("rota_store_volume", bytes(), &[], help, volume);
        let help = "Revisions of the store that the search index does not have yet";
        registry.register("rota_search_index_lag_revisions", None, &[], help, &self.search_lag);
        self.load.register(registry);
        let help = "Bytes of the artifacts of a namespace, as stored, which its quota limits";
        registry.register("rota_artifacts", bytes(), &["namespace"], help, &self.artifact_bytes);
        let help = "Whether uploads to a namespace are refused, since their bytes do not fit into its quota, or onto the volume of the store (0 or 1)";
        registry.register("rota_artifacts_full", None, &["namespace"], help, &self.artifacts_full);
        let help = "Whether the storage of artifacts takes, or gives, nothing (0 or 1)";
        registry.register("rota_artifacts_unavailable", None, &[], help, &self.artifacts_unavailable);
        let help = "Parts of artifacts that records name and the storage does not have";
        registry.register("rota_artifacts_lost", None, &["namespace"], help, &self.artifacts_lost);
        let help = "Deliveries of notifications, by receiver (web_push: browsers) and outcome: delivered, retried, or dropped after the receiver refused them";
        registry.register("rota_notifications", None, &["receiver", "outcome"], help, &self.notified);
        let help = "Notifications that wait for their delivery, as far as they are in memory";
        let waiting = &self.notifications_waiting;
        registry.register("rota_notifications_waiting", None, &["receiver"], help, waiting);
        let help = "Workflows ended, by outcome: succeeded, failed, cancelled or compensation_failed; one whose failed compensation was resolved ends again";
        registry.register("rota_workflows_ended", None, &["outcome"], help, &self.workflows_ended);
        let help = "Steps of workflows that wait for a person";
        registry.register("rota_workflow_approvals_waiting", None, &[], help, &self.approvals_waiting);
        let help =
            "Times of schedules, by outcome: started, skipped, or failed to create its task or workflow";
        registry.register("rota_schedule_runs", None, &["outcome"], help, &self.schedule_runs);
        let help = "Schedules that start no runs: the last one could not be created";
        registry.register("rota_schedules_failing", None, &["namespace"], help, &self.schedules_failing);
        let help = "Time in seconds from the time of a schedule, without its jitter, to the start of its run";
        registry.register("rota_schedule_lag", seconds(), &[], help, &self.schedule_lag);
        standby::register_owner(registry);
        let build = Gauges::<Version>::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register(
            "rota_build_info",
            None,
            &["version"],
            "Always 1; the label is the version of this program",
            &build,
        );
        registry.register_process_metrics();
    }

    /// Returns the number of tasks on workers, by state.
    pub(crate) fn on_workers(&self) -> BTreeMap<task::State, u64> {
        let mut states = BTreeMap::from(
            [task::State::Assigned, task::State::Running, task::State::InputRequired].map(|state| (state, 0)),
        );
        states.extend(self.on_workers.lock().iter().map(|(state, count)| (*state, *count)));
        states
    }

    /// Counts an opened session; `before` states whether the same process had the previous one, if there was one.
    pub(crate) fn session(&self, before: Option<bool>) {
        let kind = match before {
            None => "first",
            Some(true) => "reconnect",
            Some(false) => "replaced",
        };
        self.sessions.get_or_create(&Opened { kind }).inc();
    }

    /// Returns the counter of failed writes.
    pub(crate) fn write_failures(&self) -> Counter {
        self.write_failures.clone()
    }

    /// Takes in the last loss of commits.
    pub(crate) fn history_lost(&self, loss: Option<Loss>) {
        self.history_lost.set(loss.map_or(0, |loss| loss.noticed.0 / 1_000_000));
    }

    /// Returns the time of the last backup.
    pub(crate) fn last_backup(&self) -> Gauge {
        self.last_backup.clone()
    }

    /// Returns the counter of inconsistencies in the scheduler's slots.
    pub(crate) fn slot_mismatches(&self) -> Counter {
        self.slot_mismatches.clone()
    }

    /// Counts circuit breakers that opened.
    pub(crate) fn breakers_opened(&self, count: u64) {
        self.breakers_opened.inc_by(count);
    }

    /// Counts a delivery of a notification.
    pub(crate) fn notified(&self, receiver: &str, outcome: &'static str) {
        self.notified.get_or_create(&Notified { receiver: receiver.to_owned(), outcome }).inc();
    }

    /// Records how many notifications wait for a receiver.
    pub(crate) fn notifications_waiting(&self, receiver: &str, count: usize) {
        let label = Receiver { receiver: receiver.to_owned() };
        self.notifications_waiting.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a run of a schedule that was started, or failed to.
    pub(crate) fn schedule_run(&self, outcome: &'static str) {
        self.schedule_runs.get_or_create(&Run { outcome }).inc();
    }

    /// Counts times of schedules at which no run was started.
    pub(crate) fn schedule_skipped(&self, count: u64) {
        self.schedule_runs.get_or_create(&Run { outcome: "skipped" }).inc_by(count);
    }

    /// Counts a session that ended for good.
    pub(crate) fn session_ended(&self) {
        self.lost.inc();
    }
}
