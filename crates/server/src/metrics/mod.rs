//! What the control plane counts, and the page that tells it. Counters follow the commits (`follow`), and whatever
//! is so at a moment is looked up when somebody asks (`scrape`). Decides nothing.

mod follow;
mod labels;
mod scrape;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;
use rota_core::{TaskId, Timestamp, task};
use rota_telemetry::Loops;
pub use rota_telemetry::metrics::Described;
use rota_telemetry::metrics::Page;

use self::follow::Attempt;
use self::labels::{Agent, Bounds, Class, InState, Model, Opened, Outcome, State, Token, Version};
pub(crate) use self::scrape::{page, send, send_last};

type Histograms = Family<Agent, Histogram, fn() -> Histogram>;
type Gauges<L> = Family<L, Gauge>;
type Counters<L> = Family<L, Counter>;

const AGENT: &[&str] = &["namespace", "agent"];
const OUTCOME: &[&str] = &["namespace", "agent", "outcome"];
const IN_STATE: &[&str] = &["namespace", "agent", "state"];

/// From a push within one commit to a queue that nobody serves.
fn latency() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0])
}

/// From a script to a day's work.
fn duration() -> Histogram {
    Histogram::new([0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 14400.0])
}

/// All figures.
#[derive(Debug)]
pub(crate) struct Metrics {
    page: Mutex<Page>,
    bounds: Bounds,
    /// Attempts on workers, for what only two commits together tell.
    attempts: Mutex<HashMap<TaskId, Attempt>>,
    /// Since when tasks are ready, where that was seen.
    queued: Mutex<HashMap<TaskId, Timestamp>>,

    created: Counters<Agent>,
    ended: Counters<Outcome>,
    attempts_ended: Counters<Outcome>,
    failures: Counters<Class>,
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
}

/// Every metric of the control plane.
pub fn metrics() -> Vec<Described> {
    Metrics::new(&Loops::default()).page.into_inner().described().to_vec()
}

impl Metrics {
    /// All at zero, and those of the loops.
    pub(crate) fn new(loops: &Loops) -> Self {
        let metrics = Self {
            page: Mutex::default(),
            bounds: Bounds::default(),
            attempts: Mutex::default(),
            queued: Mutex::default(),
            created: Family::default(),
            ended: Family::default(),
            attempts_ended: Family::default(),
            failures: Family::default(),
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
        };
        metrics.fill(&mut metrics.page.lock());
        loops.add_to(&mut metrics.page.lock());
        metrics
    }

    fn fill(&self, page: &mut Page) {
        let seconds = || Some(Unit::Seconds);
        page.add("rota_tasks", None, &["state"], "Tasks that have not ended", &self.tasks);
        page.add("rota_tasks_created", None, AGENT, "Tasks that were handed in", &self.created);
        page.add(
            "rota_tasks_ended",
            None,
            OUTCOME,
            "Tasks that ended: succeeded, failed or cancelled",
            &self.ended,
        );
        let help = "Ready tasks that wait for a slot, each counted for the agent that is to do it";
        page.add("rota_queue_tasks", None, AGENT, help, &self.queue);
        let help = "How long ago the task that is next in line became ready";
        page.add("rota_queue_oldest_age", seconds(), AGENT, help, &self.oldest);
        let help = "From ready to assigned";
        page.add("rota_dispatch_latency", seconds(), AGENT, help, &self.dispatch);
        let help = "Attempts that a worker took and that ended: succeeded, failed, cancelled, or lost with the worker";
        page.add("rota_attempts_ended", None, OUTCOME, help, &self.attempts_ended);
        let help = "From an attempt's start to its end";
        page.add("rota_attempt_duration", seconds(), AGENT, help, &self.attempt);
        let help = "Failures of attempts and tasks, by class";
        page.add("rota_failures", None, &["class"], help, &self.failures);
        let labels = &["namespace", "agent", "model", "type"];
        let help = "Tokens that attempts used: input, output, cache_read or cache_write";
        page.add("rota_tokens", None, labels, help, &self.tokens);
        let labels = &["namespace", "agent", "model"];
        let help = "What attempts cost, as far as their runtimes tell, in US dollars";
        page.add("rota_cost", Some(Unit::Other("usd".to_owned())), labels, help, &self.cost);
        let help = "Workers of pools: idle, busy, draining, or away while they may still come back";
        page.add("rota_workers", None, IN_STATE, help, &self.workers);
        let help = "Slots of connected workers: free or used; a draining worker has no free ones";
        page.add("rota_worker_slots", None, IN_STATE, help, &self.slots);
        let help = "Sessions that workers opened: first, or again by the same process (reconnect) or another (replaced)";
        page.add("rota_worker_sessions", None, &["kind"], help, &self.sessions);
        let help = "Sessions that ended for good, in order or not";
        page.add("rota_worker_sessions_ended", None, &[], help, &self.lost);
        let help = "Time until a commit was durable";
        page.add("rota_store_commit_duration", seconds(), &[], help, &self.commit);
        page.add(
            "rota_store_commit_commands",
            None,
            &[],
            "Commands that one commit carried out",
            &self.batch,
        );
        let build = Gauges::<Version>::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        page.add("rota_build_info", None, &["version"], "Always 1, with the version of this program", &build);
        page.add_process();
    }

    /// How many tasks are on workers, by state.
    pub(crate) fn on_workers(&self) -> BTreeMap<task::State, u64> {
        let mut states = BTreeMap::from(
            [task::State::Assigned, task::State::Running, task::State::InputRequired].map(|state| (state, 0)),
        );
        for attempt in self.attempts.lock().values() {
            *states.entry(attempt.state).or_default() += 1;
        }
        states
    }

    /// A worker's session is up; `before` tells whether the same process had the one before, if there was one.
    pub(crate) fn session(&self, before: Option<bool>) {
        let kind = match before {
            None => "first",
            Some(true) => "reconnect",
            Some(false) => "replaced",
        };
        self.sessions.get_or_create(&Opened { kind }).inc();
    }

    /// A worker's session is over for good.
    pub(crate) fn session_ended(&self) {
        self.lost.inc();
    }
}
