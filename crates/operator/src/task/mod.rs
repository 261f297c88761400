//! Reconciler of `Task` resources: each is submitted to the control plane once; its record is followed and written to the
//! status.

mod apply;
mod build;
mod cache;
mod dereference;
mod expire;
mod status;
mod sweep;
mod validate;
mod wait_writes;
mod waits;
mod watch;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use rota_crds::resource::{Task, TaskPhase};
use rota_proto::v1;
use rota_telemetry::clock;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::apply::Submission;
use self::cache::TaskCache;
use self::status::Ages;
use self::sweep::DeletedTask;
use self::wait_writes::WaitWrites;
use crate::context::Context;
use crate::controller::{Reconciler, Synced};
use crate::error::ReconcileError;
use crate::kind::Guarded;
use crate::lifetime;

pub(crate) use self::status::is_final as is_final_phase;
pub(crate) use self::waits::RouteWaits;
pub(crate) use self::watch::Stores;

/// Pending cancellations of tasks whose resource was deleted. The sweep finds those that do not fit.
const DELETION_QUEUE_SIZE: usize = 4096;
/// Age of a waiting task whose wait is published as an Event.
const LONG_WAIT: Duration = Duration::from_secs(30);
/// Interval at which tasks are reconciled without a trigger, in case one was lost.
const RESYNC_INTERVAL: Duration = Duration::from_secs(600);

/// Reconciler of `Task` resources. Caches the records of unfinished ones.
pub(crate) struct Tasks {
    context: Context,
    stores: Stores,
    cache: Arc<TaskCache>,
    deleted: mpsc::Sender<DeletedTask>,
    /// UIDs of tasks whose long wait was published as an Event.
    wait_published: Mutex<HashSet<String>>,
    /// Start of this process: waits that were long before have been published by an earlier one.
    started: Instant,
    /// Number of status writes under way, which delays those that another may replace.
    writes: AtomicUsize,
    waits: WaitWrites,
}

/// Reconciler of `Task` resources, with the background tasks that it needs.
pub(crate) struct Parts {
    pub tasks: Arc<Tasks>,
    cache: Arc<TaskCache>,
    deleted: mpsc::Receiver<DeletedTask>,
}

impl Parts {
    pub(crate) fn new(context: Context, stores: Stores) -> Self {
        let cache = Arc::new(TaskCache::default());
        let (sender, deleted) = mpsc::channel(DELETION_QUEUE_SIZE);
        let started = Instant::now();
        let tasks = Tasks {
            context,
            stores,
            cache: Arc::clone(&cache),
            deleted: sender,
            wait_published: Mutex::default(),
            started,
            writes: AtomicUsize::new(0),
            waits: WaitWrites::new(started),
        };
        Self { tasks: Arc::new(tasks), cache, deleted }
    }

    /// Watches tasks in the control plane and cancels those whose resource was deleted, until `shutdown`.
    pub(crate) async fn run(
        self,
        context: Context,
        stores: Stores,
        synced: Synced,
        shutdown: tokio_util::sync::CancellationToken,
    ) -> Result<(), crate::Error> {
        let (request_sweep, requests) = mpsc::channel(1);
        let sweep = sweep::run(
            context.clone(),
            Arc::clone(&stores),
            synced,
            self.deleted,
            requests,
            shutdown.clone(),
        );
        let watch = watch::run(context, stores, self.cache, request_sweep, shutdown);
        tokio::select! {
            ended = watch => ended,
            () = sweep => Ok(()),
        }
    }
}

impl Reconciler<Task> for Tasks {
    async fn reconcile(&self, task: &Task) -> Result<Action, ReconcileError> {
        let reconciled = self.reconcile_task(task).await;
        if let Err(error) = &reconciled {
            self.report_failing(task, error).await;
        }
        reconciled
    }

    fn deleted(&self, task: &Task) {
        self.forget(task);
        // If the queue is full, the sweep finds it.
        let _ = self.deleted.try_send(DeletedTask::of(task));
    }

    fn listed(&self) {
        let tasks = self.stores.iter().flat_map(|(store, _)| store.state());
        let uids: HashSet<_> = tasks.filter_map(|task| task.uid()).collect();
        self.cache.retain(&uids);
        self.wait_published.lock().retain(|uid| uids.contains(uid));
        self.waits.retain(&uids);
    }
}

impl Tasks {
    async fn reconcile_task(&self, task: &Task) -> Result<Action, ReconcileError> {
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        if task.metadata.deletion_timestamp.is_some() {
            sweep::cancel(&self.context, DeletedTask::of(task)).await?;
            return Ok(Action::await_change());
        }
        if task.status.as_ref().is_some_and(|status| status::is_final(status.phase)) {
            self.forget(task);
            return self.expire(task, now).await;
        }
        let known = dereference::record(&self.context, &self.cache, task).await?;
        let record = match known.map_or_else(|| step(task), Step::Follow) {
            Step::Follow(record) => record,
            Step::Lost => {
                let message = status::record_missing(self.context.store.generation().loss());
                let ended = status::ended(task, TaskPhase::OutcomeUnknown, "RecordNotFound", &message, now);
                apply::write_status(&self.context, task, ended).await?;
                return Ok(Action::await_change());
            }
            // An earlier operator may have submitted it, when it was valid, and not written that.
            Step::Refuse(message) => match dereference::fetch(&self.context, &self.cache, task).await? {
                Some(record) => record,
                None => {
                    let ended = status::ended(task, TaskPhase::Failed, "InvalidSpec", &message, now);
                    apply::write_status(&self.context, task, ended).await?;
                    return Ok(Action::await_change());
                }
            },
            Step::Submit => match apply::submit(&self.context, task).await? {
                Submission::Accepted(record) => {
                    // Deleted during the submission: the deletion found no record to cancel.
                    if !self.exists(task) {
                        sweep::cancel(&self.context, DeletedTask::of(task)).await?;
                        return Ok(Action::await_change());
                    }
                    self.cache.insert(*record)
                }
                Submission::Rejected { reason, message } => {
                    let ended = status::ended(task, TaskPhase::Failed, &reason, &message, now);
                    apply::write_status(&self.context, task, ended).await?;
                    return Ok(Action::await_change());
                }
            },
        };
        let record = match build::change(task, &record, &self.context.cluster) {
            Some(request) if !is_final(&record) => apply::update(&self.context, &self.cache, request).await?,
            _ => record,
        };
        self.write_record(task, &record, now).await
    }

    /// Writes why a task has not been submitted for a while.
    async fn report_failing(&self, task: &Task, error: &ReconcileError) {
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let has_record = self.cache.get(&task.uid().unwrap_or_default()).is_some();
        if has_record || status::is_submitted(task) || !lifetime::is_overdue(&task.metadata, now) {
            return;
        }
        let (reason, message) = error.condition();
        let built = status::unsubmitted(task, reason, &message);
        if let Err(error) = apply::write_status(&self.context, task, built).await {
            tracing::warn!(%error, task = task.name_any(), "failed to write the status of a failing task");
        }
    }

    /// Writes the status of a record, if it is due.
    async fn write_record(
        &self,
        task: &Task,
        record: &Arc<v1::Task>,
        now: Timestamp,
    ) -> Result<Action, ReconcileError> {
        let namespace = task.namespace().unwrap_or_default();
        let ages = Ages { wait: self.waits.ages(&namespace, &record.uid), ..dereference::ages(record, now) };
        let age = ages.task;
        let is_waiting = dereference::is_waiting(record);
        let record = if is_final(record) {
            // The stream omits results.
            &dereference::with_result(&self.context, record).await?
        } else {
            record
        };
        let waiting = match is_waiting && age >= status::WAIT_STATUS_DELAY {
            true => match waits::causes(record, &self.context.waits) {
                Some(causes) => Some(status::explain_wait(task, record, causes)),
                // They trigger the task.
                None if age < waits::ROUTE_DELAY => return Ok(Action::requeue(waits::ROUTE_DELAY - age)),
                None => Some(status::explain_wait(task, record, Vec::new())),
            },
            false => None,
        };
        let built = status::build(task, record, waiting, now);
        let due = status::write_due(task, &built, ages, self.writes.load(Ordering::Relaxed));
        let is_written = due == status::WriteDue::Now;
        let noted = if is_waiting { &due } else { &status::WriteDue::Never };
        self.waits.decided(&namespace, &record.uid, !status::is_submitted(task), noted);
        if let status::WriteDue::In(delay) = due {
            return Ok(Action::requeue(delay));
        }
        self.publish_events(task, &built, is_waiting && becomes_long(age, self.started.elapsed())).await;
        let over = status::is_final(built.phase);
        if is_written {
            self.writes.fetch_add(1, Ordering::Relaxed);
            let written = apply::write_status(&self.context, task, built).await;
            self.writes.fetch_sub(1, Ordering::Relaxed);
            written?;
            if is_waiting {
                self.waits.written(&record.uid);
            }
        }
        if over {
            self.forget(task);
        }
        let next = next_check(is_waiting, age);
        Ok(Action::requeue(match due {
            status::WriteDue::Refresh(delay) => next.min(delay),
            _ => next,
        }))
    }

    /// Publishes Events of a retry, a failure or a long wait.
    async fn publish_events(&self, task: &Task, built: &rota_crds::resource::TaskStatus, waits_long: bool) {
        use kube::runtime::events::EventType::{Normal, Warning};
        let message = built.message.clone().unwrap_or_default();
        let before = task.status.as_ref().and_then(|status| status.attempt).unwrap_or(1);
        if let Some(attempt) = built.attempt.filter(|attempt| *attempt > before) {
            let note = format!("attempt {attempt} on {}", built.worker.as_deref().unwrap_or("a worker"));
            // Equal actions are counted together, with the note of the first.
            self.context.event(task, Normal, "Retried", &format!("RunAttempt{attempt}"), &note).await;
        }
        if matches!(built.phase, TaskPhase::Failed | TaskPhase::OutcomeUnknown) {
            let reason = built.reason.as_deref().unwrap_or("Failed");
            self.context.event(task, Warning, "Failed", "Run", &format!("{reason}: {message}")).await;
        }
        if waits_long && self.wait_published.lock().insert(task.uid().unwrap_or_default()) {
            self.context.event(task, Normal, "Waiting", "Schedule", &message).await;
        }
    }

    fn exists(&self, task: &Task) -> bool {
        let reference =
            ObjectRef::<Guarded<Task>>::new(&task.name_any()).within(&task.namespace().unwrap_or_default());
        let same = |known: Arc<Guarded<Task>>| known.uid() == task.uid();
        self.stores.iter().any(|(store, _)| store.get(&reference).is_some_and(same))
    }

    fn forget(&self, task: &Task) {
        let uid = task.uid().unwrap_or_default();
        self.cache.remove(&uid);
        self.wait_published.lock().remove(&uid);
        self.waits.forget(&task.namespace().unwrap_or_default(), &uid);
    }
}

/// What happens next to a task.
#[derive(Debug)]
enum Step {
    /// It has a record, whose state counts.
    Follow(Arc<v1::Task>),
    Submit,
    /// It has not been submitted, as far as its status shows, and is invalid, for this reason.
    Refuse(String),
    /// It was submitted, and has no record any more.
    Lost,
}

/// Decides what happens to a task without a record. What runs is not judged by rules that may be newer than it.
fn step(task: &Task) -> Step {
    match validate::check(task) {
        _ if status::is_submitted(task) => Step::Lost,
        Ok(()) => Step::Submit,
        Err(message) => Step::Refuse(message),
    }
}

/// Returns when a task of this age is reconciled without a trigger: a wait is published when it has become long.
fn next_check(is_waiting: bool, age: Duration) -> Duration {
    let until_long = LONG_WAIT.checked_sub(age).filter(|left| is_waiting && !left.is_zero());
    until_long.unwrap_or(RESYNC_INTERVAL)
}

/// Returns whether a wait has become long in the lifetime of this process.
fn becomes_long(age: Duration, lifetime: Duration) -> bool {
    age >= LONG_WAIT && age.saturating_sub(lifetime) < LONG_WAIT
}

fn is_final(record: &v1::Task) -> bool {
    let state = record.status.as_deref().map_or(v1::TaskState::Unspecified, v1::TaskStatus::state);
    state.is_final()
}

#[cfg(test)]
mod tests;
