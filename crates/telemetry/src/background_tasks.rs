//! Registry of background tasks: purpose, last success, and health derived from each activation. Must not know what
//! any of them does.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use crate::clock::unix_micros;
use crate::metrics::Registry;

/// Duration of one activation after which its task counts as stuck.
const STUCK_THRESHOLD: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    background_task: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    background_task: &'static str,
    outcome: &'static str,
}

/// Health of a background task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundTaskState {
    /// Waits for the next activation.
    Idle,
    /// An activation is in progress.
    Running,
    /// The last activation failed, and the task will be activated again.
    Failing,
    /// The current activation has been running for more than a minute.
    Stuck,
    /// The task has exited.
    Stopped,
}

/// Snapshot of a background task. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone)]
pub struct BackgroundTaskStatus {
    /// Unique within its [`BackgroundTasks`]; also the value of the metric label.
    pub name: &'static str,
    /// One sentence for operators: what the task is for.
    pub description: &'static str,
    pub state: BackgroundTaskState,
    /// When an activation last succeeded.
    pub last_success: Option<i64>,
    /// Number of successful activations.
    pub succeeded: u64,
    /// Number of failed activations.
    pub failed: u64,
    /// Error of the last activation; empty if it succeeded.
    pub error: String,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    description: &'static str,
    /// 0 before the first success.
    last_success: AtomicI64,
    /// 0 while idle.
    active_since: AtomicI64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    error: Mutex<String>,
    stopped: AtomicBool,
}

/// The background tasks of a process, or of one component of it. Clones share their entries.
#[derive(Debug, Clone, Default)]
pub struct BackgroundTasks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    entries: Mutex<Vec<Arc<Entry>>>,
    last_success: Family<TaskLabels, Gauge<f64, AtomicU64>>,
    activations: Family<OutcomeLabels, Counter>,
}

/// Handle with which a background task reports its activations. Dropping it marks the task as stopped.
#[derive(Debug)]
pub struct TaskMonitor {
    entry: Arc<Entry>,
    tasks: BackgroundTasks,
}

/// An activation in progress. One that is dropped without an outcome is not counted.
#[derive(Debug)]
#[must_use = "an activation must be reported as succeeded or failed"]
pub struct Activation<'a>(&'a TaskMonitor);

impl BackgroundTasks {
    /// Registers a background task, replacing an earlier one of the same name.
    pub fn register(&self, name: &'static str, description: &'static str) -> TaskMonitor {
        let entry = Arc::new(Entry {
            name,
            description,
            last_success: AtomicI64::new(0),
            active_since: AtomicI64::new(0),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            error: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let mut entries = self.0.entries.lock();
        entries.retain(|known| known.name != name);
        entries.push(Arc::clone(&entry));
        TaskMonitor { entry, tasks: self.clone() }
    }

    /// Returns the status of every task, sorted by name.
    pub fn statuses(&self) -> Vec<BackgroundTaskStatus> {
        let now = unix_micros();
        let mut statuses: Vec<_> = self.0.entries.lock().iter().map(|entry| entry.status(now)).collect();
        statuses.sort_unstable_by_key(|status| status.name);
        statuses
    }

    /// Registers the metrics of all tasks, also of those that are registered later.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let help = "Time of the last successful activation of a background task, since the Unix epoch";
        let (name, unit) = ("rota_background_task_last_success_timestamp", Some(Unit::Seconds));
        registry.register(name, unit, &["background_task"], help, &self.0.last_success);
        let help = "Activations of background tasks by outcome (succeeded, failed)";
        registry.register(
            "rota_background_task_activations",
            None,
            &["background_task", "outcome"],
            help,
            &self.0.activations,
        );
    }
}

impl Entry {
    fn status(&self, now: i64) -> BackgroundTaskStatus {
        let error = self.error.lock().clone();
        let active_since = Some(self.active_since.load(Ordering::Relaxed)).filter(|at| *at != 0);
        let is_stuck = |since: i64| {
            u128::try_from(now - since).is_ok_and(|elapsed| elapsed > STUCK_THRESHOLD.as_micros())
        };
        let state = match active_since {
            _ if self.stopped.load(Ordering::Relaxed) => BackgroundTaskState::Stopped,
            Some(since) if is_stuck(since) => BackgroundTaskState::Stuck,
            _ if !error.is_empty() => BackgroundTaskState::Failing,
            Some(_) => BackgroundTaskState::Running,
            None => BackgroundTaskState::Idle,
        };
        BackgroundTaskStatus {
            name: self.name,
            description: self.description,
            state,
            last_success: Some(self.last_success.load(Ordering::Relaxed)).filter(|at| *at != 0),
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            error,
        }
    }
}

impl TaskMonitor {
    /// Starts an activation.
    pub fn activate(&self) -> Activation<'_> {
        self.entry.active_since.store(unix_micros(), Ordering::Relaxed);
        Activation(self)
    }

    fn count(&self, outcome: &'static str) {
        let labels = OutcomeLabels { background_task: self.entry.name, outcome };
        self.tasks.0.activations.get_or_create(&labels).inc();
    }
}

impl Activation<'_> {
    /// Records a success and clears the last error.
    pub fn succeeded(self) {
        let (now, entry) = (unix_micros(), &self.0.entry);
        entry.last_success.store(now, Ordering::Relaxed);
        entry.succeeded.fetch_add(1, Ordering::Relaxed);
        entry.error.lock().clear();
        #[expect(clippy::cast_precision_loss, reason = "exact to the microsecond for centuries")]
        let seconds = now as f64 / 1e6;
        self.0.tasks.0.last_success.get_or_create(&TaskLabels { background_task: entry.name }).set(seconds);
        self.0.count("succeeded");
    }

    /// Records a failure with its error.
    pub fn failed(self, error: impl Display) {
        let entry = &self.0.entry;
        entry.failed.fetch_add(1, Ordering::Relaxed);
        let message = error.to_string();
        *entry.error.lock() = if message.is_empty() { "unknown error".to_owned() } else { message };
        self.0.count("failed");
    }
}

impl Drop for Activation<'_> {
    fn drop(&mut self) {
        self.0.entry.active_since.store(0, Ordering::Relaxed);
    }
}

impl Drop for TaskMonitor {
    fn drop(&mut self) {
        self.entry.stopped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(tasks: &BackgroundTasks) -> BackgroundTaskStatus {
        tasks.statuses().remove(0)
    }

    #[test]
    fn state_follows_activations() {
        let tasks = BackgroundTasks::default();
        let monitor = tasks.register("sweep", "Sweeps");
        assert_eq!(status(&tasks).state, BackgroundTaskState::Idle);
        assert_eq!(status(&tasks).last_success, None);

        let activation = monitor.activate();
        assert_eq!(status(&tasks).state, BackgroundTaskState::Running);
        activation.failed("no broom");
        assert_eq!(status(&tasks).state, BackgroundTaskState::Failing);
        assert_eq!(status(&tasks).error, "no broom");

        // Dropped without an outcome: the last one stays.
        drop(monitor.activate());
        assert_eq!(status(&tasks).state, BackgroundTaskState::Failing);

        monitor.activate().succeeded();
        let after_success = status(&tasks);
        assert_eq!(after_success.state, BackgroundTaskState::Idle);
        assert_eq!(after_success.succeeded, 1);
        assert_eq!(after_success.failed, 1);
        assert!(after_success.last_success.is_some());
        assert_eq!(after_success.error, "");

        drop(monitor);
        assert_eq!(status(&tasks).state, BackgroundTaskState::Stopped);
    }

    #[test]
    fn registering_a_known_name_replaces_it() {
        let tasks = BackgroundTasks::default();
        drop(tasks.register("sweep", "Sweeps"));
        let _monitor = tasks.register("sweep", "Sweeps");
        assert_eq!(tasks.statuses().len(), 1);
        assert_eq!(status(&tasks).state, BackgroundTaskState::Idle);
    }

    #[test]
    fn activations_are_counted_by_outcome() {
        let tasks = BackgroundTasks::default();
        let monitor = tasks.register("sweep", "Sweeps");
        monitor.activate().failed("no broom");
        monitor.activate().succeeded();
        let mut registry = Registry::new();
        tasks.register_metrics(&mut registry);
        let (_, text) = registry.encode(None).unwrap();
        assert!(
            text.contains("rota_background_task_last_success_timestamp_seconds{background_task=\"sweep\"} "),
            "{text}"
        );
        assert!(
            text.contains(
                "rota_background_task_activations_total{background_task=\"sweep\",outcome=\"failed\"} 1"
            ),
            "{text}"
        );
    }

    #[test]
    fn long_activation_is_stuck() {
        let tasks = BackgroundTasks::default();
        let monitor = tasks.register("sweep", "Sweeps");
        let _activation = monitor.activate();
        let after = |elapsed: Duration| unix_micros() + i64::try_from(elapsed.as_micros()).unwrap();
        assert_eq!(monitor.entry.status(after(STUCK_THRESHOLD / 2)).state, BackgroundTaskState::Running);
        assert_eq!(monitor.entry.status(after(STUCK_THRESHOLD * 2)).state, BackgroundTaskState::Stuck);
    }
}
