//! Health of this replica: whether it can do its work, and why not. Checked on request only; concurrent requests share
//! one check. Knows nothing of how the answer is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rota_core::Timestamp;
use rota_core::breaker::State as Breaker;
use rota_proto::{causes, names, v1};
use rota_store::StoreSpace;
use rota_telemetry::BackgroundTasks;
use rota_telemetry::background_tasks::{BackgroundTaskState, BackgroundTaskStatus};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::breakers;
use crate::clock::now;
use crate::demand::Demand;
use crate::lineage::Loss;
use crate::lost_history::LostHistory;
use crate::notify::Notifier;
use crate::schedules;
use crate::store_client::StoreClient;
use crate::wire;
use crate::write_health::{self, StoreProblem};

/// What to do about a store that is nearly full.
pub(crate) const SPACE_HINT: &str = "enlarge its volume, or remove old records with `rota admin prune`";
/// Time for the store to answer; probes wait about as long.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a check of the store is reused, so that probes cannot keep the store busy.
const STORE_CHECK_TTL: Duration = Duration::from_millis(250);
/// Causes with one code that are listed.
const MAX_CAUSES: usize = 20;

/// Severity of a cause, and of the whole replica by its worst cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Healthy,
    Degraded,
    Error,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Error => "error",
        }
    }

    pub(crate) fn to_wire(self) -> v1::SystemState {
        match self {
            Self::Healthy => v1::SystemState::Healthy,
            Self::Degraded => v1::SystemState::Degraded,
            Self::Error => v1::SystemState::Error,
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) state: State,
    pub(crate) code: &'static str,
    /// Name of what it is about; empty for the control plane.
    pub(crate) subject: String,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Cause {
    /// Returns a cause that degrades the control plane, and is about nothing else.
    fn new(code: &'static str, message: String, hint: &str) -> Self {
        Self { state: State::Degraded, code, subject: String::new(), message, hint: hint.to_owned() }
    }
}

/// Outcome of a check of the store.
#[derive(Debug, Clone)]
pub(crate) struct StoreCheck {
    pub(crate) problem: Option<StoreProblem>,
    pub(crate) latency: Duration,
}

/// Health checks of this replica, and what they observe along the way.
pub(crate) struct Health {
    pub(crate) started: Timestamp,
    store: StoreClient,
    background_tasks: BackgroundTasks,
    demand: Demand,
    notifier: Arc<Notifier>,
    artifacts: Artifacts,
    schedules: Arc<schedules::Registry>,
    lost_history: Arc<LostHistory>,
    stop: CancellationToken,
    /// 0 before the first commit.
    last_commit: AtomicI64,
    last_check: Mutex<Option<(Instant, StoreCheck)>>,
}

/// Describes a store that is nearly full.
pub(crate) fn describe_space(space: &StoreSpace) -> String {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    format!(
        "the store has room for {} MiB, and keeps {} MiB for the tasks that it has",
        mib(space.available()),
        mib(space.needed())
    )
}

impl Health {
    #[expect(clippy::too_many_arguments, reason = "the parts that it looks at, put together once")]
    pub(crate) fn new(
        store: StoreClient,
        background_tasks: BackgroundTasks,
        demand: Demand,
        notifier: Arc<Notifier>,
        artifacts: Artifacts,
        schedules: Arc<schedules::Registry>,
        loss: Option<Loss>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            started: now(),
            store,
            background_tasks,
            demand,
            notifier,
            artifacts,
            schedules,
            lost_history: Arc::new(LostHistory::new(loss)),
            stop,
            last_commit: AtomicI64::new(0),
            last_check: Mutex::default(),
        }
    }

    /// Returns the last loss of commits, to which tasks are added that are found to have lost events.
    pub(crate) fn lost_history(&self) -> Arc<LostHistory> {
        Arc::clone(&self.lost_history)
    }

    /// Records that a change was committed.
    pub(crate) fn committed(&self) {
        self.last_commit.store(now().0, Ordering::Relaxed);
    }

    pub(crate) fn last_commit(&self) -> Option<Timestamp> {
        Some(self.last_commit.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Timestamp)
    }

    pub(crate) fn write_error(&self) -> Option<StoreProblem> {
        self.store.write_health().error()
    }

    pub(crate) fn background_tasks(&self) -> Vec<BackgroundTaskStatus> {
        self.background_tasks.statuses()
    }

    /// Checks the store, or returns the outcome of a check a moment ago.
    async fn check_store(&self) -> StoreCheck {
        // Held during the check: concurrent callers wait for its outcome instead of checking again.
        let mut last = self.last_check.lock().await;
        if let Some((_, check)) = last.as_ref().filter(|(at, _)| at.elapsed() < STORE_CHECK_TTL) {
            return check.clone();
        }
        let began = Instant::now();
        let store = self.store.reads();
        // An empty batch writes nothing, but waits for the writer; reads take another way.
        let probe = async { tokio::try_join!(store.revision(), store.apply(Vec::new())) };
        let problem = match timeout(STORE_TIMEOUT, probe).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(write_health::problem(&error)),
            Err(_) => Some((
                format!("the store did not answer within {} s", STORE_TIMEOUT.as_secs()),
                "check the disk or the database that holds the store, and the log",
            )),
        };
        let check = StoreCheck { problem, latency: began.elapsed() };
        *last = Some((Instant::now(), check.clone()));
        check
    }

    /// Returns why this replica should get no calls; nothing when it is ready.
    pub(crate) async fn not_ready(&self) -> Vec<Cause> {
        self.readiness().await.1
    }

    async fn readiness(&self) -> (StoreCheck, Vec<Cause>) {
        let store = self.check_store().await;
        let failed =
            |code, message, hint: &str| Cause { state: State::Error, ..Cause::new(code, message, hint) };
        let mut causes = Vec::new();
        if self.stop.is_cancelled() {
            causes.push(failed("stopping", "this replica is stopping".to_owned(), ""));
        }
        if let Some((message, hint)) = &store.problem {
            causes.push(failed("store", message.clone(), hint));
        }
        (store, causes)
    }

    /// Returns what is wrong, worst first, and the outcome of the store's check.
    pub(crate) async fn diagnose(&self) -> (StoreCheck, Vec<Cause>) {
        let (store, mut causes) = self.diagnose_all().await;
        limit(&mut causes, |cause| cause.code);
        (store, causes)
    }

    /// As [`diagnose`](Self::diagnose), but returns all agents of which something is wrong.
    pub(crate) async fn diagnose_all(&self) -> (StoreCheck, Vec<Cause>) {
        let (store, mut causes) = self.readiness().await;
        if let Some((message, hint)) = self.write_error() {
            let message = format!("last write failed: {message}");
            causes.push(Cause { state: State::Error, ..Cause::new("store_writes", message, hint) });
        }
        if let Some(space) = self.store.space().filter(StoreSpace::is_scarce) {
            let (state, what) = match space.is_nearly_full() {
                true => (State::Error, "no tasks"),
                false => (State::Degraded, "no tasks of low priority (0 to 2)"),
            };
            causes.push(Cause {
                state,
                code: "store_space",
                subject: String::new(),
                message: format!("{what} are accepted: {}", describe_space(&space)),
                hint: SPACE_HINT.to_owned(),
            });
        }
        causes.extend(self.store.overload().causes());
        causes.extend(self.lost_history.cause(self.store.now()));
        causes.extend(self.artifacts.causes(now()));
        causes.extend(self.background_tasks().into_iter().filter_map(|task| self.background_task(task)));
        // A half-open breaker is not listed: it may wait for a probe task for as long as there is none.
        let (breakers, now) = (self.demand.breakers.all().into_iter(), self.store.now());
        let open = breakers.filter(|(_, breaker)| matches!(breaker.state(), Breaker::Open { .. }));
        causes.extend(open.map(|((namespace, agent), breaker)| Cause {
            state: State::Degraded,
            code: causes::BREAKER_OPEN,
            subject: names::agent(namespace.as_str(), &agent),
            message: format!("in {namespace}, {}", breakers::describe(&agent, &breaker, now)),
            hint: format!("see `rota admin breakers`, and the failures of tasks of {agent}"),
        }));
        let backends = self.demand.breakers.backends().into_iter();
        let open = backends.filter(|(_, breaker)| matches!(breaker.state(), Breaker::Open { .. }));
        causes.extend(
            open.map(|(key, breaker)| Cause {
                state: State::Degraded,
                code: causes::BREAKER_OPEN,
                subject: format!("{}/backends/{}", names::namespace(key.0.as_str()), key.1),
                message: format!("in {}, {}", key.0, breakers::backends::describe(&key, &breaker, now)),
                hint: "tasks of all agents that use it wait until it responds; see `rota admin breakers`"
                    .to_owned(),
            }),
        );
        let messages = self.demand.agents.pools().messages().into_iter();
        causes.extend(messages.map(|((namespace, agent), message)| Cause {
            state: State::Degraded,
            code: causes::WORKERS_CANNOT_START,
            subject: names::agent(namespace.as_str(), &agent),
            message: format!("workers of the agent {namespace}/{agent} cannot start: {message}"),
            hint: format!("see `rota describe agent {agent} -n {namespace}`"),
        }));
        let snapshot = self.demand.conditions().await;
        causes.extend(snapshot.unavailable_pools().map(|((namespace, agent), worker)| Cause {
            state: State::Degraded,
            code: causes::WORKERS_NOT_READY,
            subject: names::agent(namespace.as_str(), agent),
            message: format!(
                "tasks of the agent {namespace}/{agent} wait, and its workers take none; worker {}: {}",
                worker.profile.worker,
                worker.unavailable_reason()
            ),
            hint: format!("see `rota workers -n {namespace}`, and repair or restart these workers"),
        }));
        causes.extend(self.notifier.problems().map(|(receiver, since, error)| {
            Cause {
                state: State::Degraded,
                code: "notifications_failing",
                subject: format!("notifications/{receiver}"),
                message: format!(
                    "notifications do not reach the receiver {receiver}, since {}: {error}",
                    wire::time::rfc3339(since)
                ),
                hint: "check its URL and its secret in the file of --notifications; what the receiver does not refuse is retried for 24 h"
                    .to_owned(),
            }
        }));
        causes.extend(self.schedules.problems().into_iter().map(|((namespace, name), problem)| Cause {
            state: State::Degraded,
            code: "schedule_failing",
            subject: names::schedule(namespace.as_str(), &name),
            message: format!("the schedule {namespace}/{name} starts no runs: {problem}"),
            hint: format!(
                "see `rota schedule get {name} -n {namespace}`; once repaired, start a run with `rota schedule run {name} -n {namespace}`"
            ),
        }));
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.state));
        (store, causes)
    }

    fn background_task(&self, task: BackgroundTaskStatus) -> Option<Cause> {
        let name = task.name;
        let (state, code, message) = match task.state {
            BackgroundTaskState::Idle | BackgroundTaskState::Running => return None,
            BackgroundTaskState::Stopped if self.stop.is_cancelled() => return None,
            BackgroundTaskState::Stopped => {
                (State::Error, "background_task_stopped", format!("background task {name} has exited"))
            }
            BackgroundTaskState::Stuck => (
                State::Error,
                "background_task_stuck",
                format!("background task {name} has been busy with one activation for over a minute"),
            ),
            BackgroundTaskState::Failing => (
                State::Degraded,
                "background_task_failing",
                format!("background task {name} fails: {}", task.error),
            ),
        };
        Some(Cause {
            state,
            code,
            subject: format!("backgroundTasks/{name}"),
            message,
            hint: "see `rota admin background-tasks`, and the log".to_owned(),
        })
    }
}

/// Keeps the first causes with each code.
pub(crate) fn limit<T>(causes: &mut Vec<T>, code: impl Fn(&T) -> &'static str) {
    let mut counts = BTreeMap::<_, usize>::new();
    causes.retain(|cause| {
        let count = counts.entry(code(cause)).or_default();
        *count += 1;
        *count <= MAX_CAUSES
    });
}

/// Returns the worst state of any cause.
pub(crate) fn worst(causes: &[Cause]) -> State {
    causes.iter().map(|cause| cause.state).max().unwrap_or(State::Healthy)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::{Clock, SingleWriterStore};

    use super::*;
    use crate::demand::tests::demand;

    #[tokio::test]
    async fn lost_history_ages_by_the_clock_of_the_store() {
        // Decades behind the machine's.
        let noticed = Timestamp(1_000_000);
        let clock: Clock = Arc::new(move || noticed);
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::clone(&clock)).unwrap();
        let store = StoreClient::new(Arc::new(store), clock, Counter::default());
        let folder = tempfile::tempdir().unwrap();
        let parts = rota_artifacts::Parts::in_folder(folder.path()).unwrap();
        let artifacts = Artifacts::new(parts, store.clone(), 0);
        let health = Health::new(
            store,
            BackgroundTasks::default(),
            demand(),
            Arc::default(),
            artifacts,
            Arc::default(),
            Some(Loss { kept: 4, lost: 9, noticed }),
            CancellationToken::new(),
        );
        let (_, causes) = health.diagnose().await;
        assert!(causes.iter().any(|cause| cause.code == "history_lost"), "{causes:?}");
    }
}
