//! Overload: which new work is refused while too many tasks wait, or the memory of the process is nearly used up. Work of low priority is
//! refused first, and that of high priority last; accepted work, such as steps of workflows and further attempts, never. The numbers follow the
//! commits: what they cost does not grow with the queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use rota_core::rank::Priority;
use rota_core::task::State as TaskState;
use rota_core::{Namespace, RouteId};
use rota_proto::names;
use rota_store::{Commit, Snapshot};
use rota_telemetry::memory;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::health::{Cause, State};
use crate::metrics::Refusal;
use crate::options::WorkLimits;
use crate::wire::status::hinted;

/// Time between two measurements of the memory.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// What is accepted, by the used part of a limit: from 80 % on nothing of low priority, from 90 % on only what is of high priority, and
/// nothing at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Free,
    NoLow,
    OnlyHigh,
    Full,
}

impl Level {
    /// A limit of 0 is none.
    fn of(used: u64, limit: u64) -> Self {
        match used.saturating_mul(10).checked_div(limit) {
            None | Some(..8) => Self::Free,
            Some(8) => Self::NoLow,
            Some(9) => Self::OnlyHigh,
            Some(_) => Self::Full,
        }
    }

    fn refuses(self, priority: Priority) -> bool {
        match self {
            Self::Free => false,
            Self::NoLow => priority <= Priority::LOW,
            Self::OnlyHigh => priority < Priority::HIGH,
            Self::Full => true,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Free => "tasks are accepted",
            Self::NoLow => "no tasks of low priority (0 to 2) are accepted",
            Self::OnlyHigh => "only tasks of high priority (8 to 10) are accepted",
            Self::Full => "no tasks are accepted",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Tasks,
    TasksOfNamespace,
    Memory,
}

/// How much of a limit is used.
#[derive(Debug, Clone, Copy)]
struct Load {
    resource: Resource,
    used: u64,
    limit: u64,
}

impl Load {
    fn level(self) -> Level {
        Level::of(self.used, self.limit)
    }

    fn reason(self) -> &'static str {
        match self.resource {
            Resource::Tasks | Resource::TasksOfNamespace => "TOO_MANY_TASKS",
            Resource::Memory => "MEMORY_NEARLY_FULL",
        }
    }

    fn code(self) -> &'static str {
        match self.resource {
            Resource::Tasks | Resource::TasksOfNamespace => "too_many_tasks",
            Resource::Memory => "memory",
        }
    }

    fn hint(self) -> &'static str {
        match self.resource {
            Resource::Tasks => {
                "add workers, or cancel tasks that are not needed; the limit is `max_waiting_tasks` of the server"
            }
            Resource::TasksOfNamespace => {
                "add workers, or cancel tasks that are not needed; the limit is `max_waiting_tasks_per_namespace` of the server"
            }
            Resource::Memory => {
                "give the control plane more memory; what it may use is `memory_limit_mib` of the server"
            }
        }
    }

    fn message(self, namespace: &str) -> String {
        let Self { used, limit, .. } = self;
        let why = match self.resource {
            Resource::Tasks => format!("{used} tasks wait, of {limit} that may"),
            Resource::TasksOfNamespace => {
                format!("{used} tasks of namespace {namespace} wait, of {limit} that may")
            }
            Resource::Memory => {
                let mib = |bytes: u64| bytes >> 20;
                format!(
                    "the control plane has {} MiB of memory, of {} MiB that it may have",
                    mib(used),
                    mib(limit)
                )
            }
        };
        format!("{}: {why}", self.level().describe())
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are approximate")]
    fn ratio(self) -> f64 {
        if self.limit == 0 { 0.0 } else { self.used as f64 / self.limit as f64 }
    }
}

/// Tasks that wait: for a worker, or for something else.
#[derive(Debug, Default)]
struct Waiting {
    all: u64,
    by_namespace: HashMap<Namespace, u64>,
}

impl Waiting {
    fn add(&mut self, namespace: &Namespace, count: u64) {
        self.all = self.all.saturating_add(count);
        match self.by_namespace.get_mut(namespace) {
            Some(known) => *known = known.saturating_add(count),
            None => drop(self.by_namespace.insert(namespace.clone(), count)),
        }
    }

    fn remove(&mut self, namespace: &Namespace) {
        self.all = self.all.saturating_sub(1);
        if let Some(known) = self.by_namespace.get_mut(namespace) {
            *known = known.saturating_sub(1);
            if *known == 0 {
                self.by_namespace.remove(namespace);
            }
        }
    }
}

/// Numbers of the work that the control plane has, and their limits.
#[derive(Debug, Default)]
pub(crate) struct Overload {
    tasks: u64,
    tasks_of_namespace: u64,
    /// Bytes of memory that the process may have.
    memory: u64,
    waiting: Mutex<Waiting>,
    /// Bytes of memory that the process had at the last measurement.
    memory_used: AtomicU64,
    refused: Family<Refusal, Counter>,
}

fn waits(state: TaskState) -> bool {
    matches!(state, TaskState::Pending | TaskState::Queued)
}

impl Overload {
    /// Returns one that counts what it refuses.
    pub(crate) fn new(limits: WorkLimits, refused: Family<Refusal, Counter>) -> Self {
        // What is left takes what grows before it is measured again.
        let memory = limits.memory.unwrap_or_else(|| memory::limit().unwrap_or(0) / 10 * 9);
        let WorkLimits { waiting_tasks: tasks, waiting_tasks_of_namespace: tasks_of_namespace, .. } = limits;
        let overload = Self { tasks, tasks_of_namespace, memory, refused, ..Self::default() };
        overload.measure_memory();
        overload
    }

    /// Measures the memory until `stop`.
    pub(crate) async fn keep_measuring(&self, stop: CancellationToken) {
        let mut ticks = interval(MEASURE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.measure_memory();
        }
    }

    /// Measures the memory, if it has a limit.
    fn measure_memory(&self) {
        if self.memory > 0 {
            self.memory_used.store(memory::used().unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Counts the tasks that the store had at the start.
    pub(crate) fn restore(&self, snapshot: &Snapshot) {
        let routes: HashMap<RouteId, _> =
            snapshot.routes.iter().map(|(id, route)| (*id, &route.namespace)).collect();
        let mut waiting = self.waiting.lock();
        for (id, count) in snapshot.queued.iter().chain(&snapshot.pending) {
            if let Some(namespace) = routes.get(id) {
                waiting.add(namespace, *count);
            }
        }
    }

    /// Counts what a commit has changed of the tasks that wait.
    pub(crate) fn observe(&self, commit: &Commit) {
        let changed = |before: Option<TaskState>, after| (before.is_some_and(waits), waits(after));
        let changes = commit.tasks.iter().map(|change| (changed(change.before, change.task.state), change));
        let mut changes = changes.filter(|((before, after), _)| before != after).peekable();
        if changes.peek().is_none() && commit.quarantined.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        for ((_, waits), change) in changes {
            match waits {
                true => waiting.add(&change.task.namespace, 1),
                false => waiting.remove(&change.task.namespace),
            }
        }
        commit.quarantined.iter().for_each(|namespace| waiting.remove(namespace));
    }

    /// Returns the refusal of new work of a namespace, if there is no room for it.
    pub(crate) fn refusal(&self, namespace: &Namespace, priority: Priority) -> Option<Status> {
        let (all, of_namespace) = {
            let waiting = self.waiting.lock();
            (waiting.all, waiting.by_namespace.get(namespace).copied().unwrap_or_default())
        };
        let loads = [self.all_tasks(all), self.tasks_of(of_namespace), self.memory()];
        let refuses = loads.into_iter().filter(|load| load.level().refuses(priority));
        let load = refuses.max_by_key(|load| load.level())?;
        self.refused.get_or_create(&Refusal { reason: load.reason() }).inc();
        Some(hinted(load.reason(), load.message(namespace.as_str()), load.hint()))
    }

    fn all_tasks(&self, used: u64) -> Load {
        Load { resource: Resource::Tasks, used, limit: self.tasks }
    }

    fn tasks_of(&self, used: u64) -> Load {
        Load { resource: Resource::TasksOfNamespace, used, limit: self.tasks_of_namespace }
    }

    fn memory(&self) -> Load {
        let used = self.memory_used.load(Ordering::Relaxed);
        Load { resource: Resource::Memory, used, limit: self.memory }
    }

    /// Returns what is refused now, and why.
    pub(crate) fn causes(&self) -> Vec<Cause> {
        let (all, namespaces): (_, Vec<_>) = {
            let waiting = self.waiting.lock();
            let of = waiting.by_namespace.iter().map(|(name, used)| (name, self.tasks_of(*used)));
            let full = of.filter(|(_, load)| load.level() > Level::Free);
            (waiting.all, full.map(|(name, load)| (name.clone(), load)).collect())
        };
        let of_namespace = namespaces.into_iter().map(|(name, load)| {
            let subject = names::namespace(name.as_str());
            (State::Degraded, subject, load.message(name.as_str()), load)
        });
        let own = [self.all_tasks(all), self.memory()].into_iter().filter(|load| load.level() > Level::Free);
        let own = own.map(|load| {
            let state = if load.level() == Level::Full { State::Error } else { State::Degraded };
            (state, String::new(), load.message(""), load)
        });
        let cause = |(state, subject, message, load): (State, String, String, Load)| Cause {
            state,
            code: load.code(),
            subject,
            message,
            hint: load.hint().to_owned(),
        };
        own.chain(of_namespace).map(cause).collect()
    }

    /// Returns the used part of each limit, by the name of its resource.
    pub(crate) fn ratios(&self) -> [(&'static str, f64); 3] {
        let (all, fullest) = {
            let waiting = self.waiting.lock();
            (waiting.all, waiting.by_namespace.values().copied().max().unwrap_or_default())
        };
        let loads = [self.all_tasks(all), self.tasks_of(fullest), self.memory()];
        let [tasks, namespace, memory] = loads.map(Load::ratio);
        [("tasks", tasks), ("tasks_of_namespace", namespace), ("memory", memory)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(value: i32) -> Priority {
        Priority::new(value).unwrap()
    }

    #[test]
    fn low_priority_is_refused_first_and_high_last() {
        let least = |used: u64, limit: u64| {
            let level = Level::of(used, limit);
            (0..=10).find(|value| !level.refuses(priority(*value)))
        };
        let expected =
            [(0, Some(0)), (79, Some(0)), (80, Some(3)), (89, Some(3)), (90, Some(8)), (99, Some(8))];
        for (used, accepted) in expected.into_iter().chain([(100, None), (u64::MAX, None)]) {
            assert_eq!(least(used, 100), accepted, "{used}");
        }
        assert_eq!((least(u64::MAX, 0), least(1, 1)), (Some(0), None));
    }

    #[test]
    fn namespaces_have_limits_of_their_own() {
        let limits = WorkLimits { waiting_tasks: 20, waiting_tasks_of_namespace: 10, memory: Some(0) };
        let overload = Overload::new(limits, Family::default());
        let (full, other) = (Namespace::new("full").unwrap(), Namespace::new("other").unwrap());
        let accepts = |namespace: &Namespace, value| overload.refusal(namespace, priority(value)).is_none();
        overload.waiting.lock().add(&full, 10);
        assert!(!accepts(&full, 10) && accepts(&other, 0));
        let causes = overload.causes();
        assert_eq!(causes.len(), 1);
        assert_eq!((causes[0].state, causes[0].subject.as_str()), (State::Degraded, "namespaces/full"));
        overload.waiting.lock().add(&other, 6);
        assert!(!accepts(&other, 0) && accepts(&other, 5), "16 of 20 in all");
        // Their records cannot be decoded.
        overload.observe(&Commit { quarantined: vec![full.clone(); 10], ..Commit::default() });
        assert!(accepts(&full, 0) && accepts(&other, 0) && overload.causes().is_empty());
        assert!(!overload.waiting.lock().by_namespace.contains_key(&full), "nothing is kept of an empty one");
    }

    #[tokio::test(start_paused = true)]
    async fn short_memory_refuses_everything() {
        let limits = WorkLimits { waiting_tasks: 0, waiting_tasks_of_namespace: 0, memory: Some(1) };
        let overload = Overload::new(limits, Family::default());
        let namespace = Namespace::new("n").unwrap();
        let refused = overload.refusal(&namespace, Priority::URGENT).unwrap();
        assert!(refused.message().contains("memory"), "{refused}");
        assert_eq!(overload.causes()[0].state, State::Error);
        assert_eq!(overload.refused.get_or_create(&Refusal { reason: "MEMORY_NEARLY_FULL" }).get(), 1);
        // A creation measures nothing by itself.
        overload.memory_used.store(0, Ordering::Relaxed);
        assert!(overload.refusal(&namespace, Priority::LOW).is_none());
        let stop = CancellationToken::new();
        let measured = async {
            while overload.refusal(&namespace, Priority::URGENT).is_none() {
                tokio::task::yield_now().await;
            }
            overload.memory_used.store(0, Ordering::Relaxed);
            // And again.
            while overload.refusal(&namespace, Priority::URGENT).is_none() {
                tokio::time::advance(MEASURE_INTERVAL).await;
            }
            stop.cancel();
        };
        tokio::join!(overload.keep_measuring(stop.clone()), measured);
    }
}
