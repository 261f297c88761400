//! Starts of runs: stored first, then created as any caller's tasks and workflows are.

use std::sync::Arc;

use rota_core::{TaskId, Timestamp};
use rota_proto::labels::SCHEDULE;
use rota_proto::{names, v1};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use super::driver::Driver;
use super::outcomes::{cancel, is_cancelled};
use super::plan::Slot;
use super::record::{RunOf, StoredRun};
use super::registry::{Entry, Tracked};
use crate::creation::Scope;
use crate::spans::root_trace;
use crate::store_client::no_reply;
use crate::wire::{scheduled_workflow, status, task, time};

/// Runs of one schedule that have not ended.
const MAX_ACTIVE: usize = 100;

/// Returns the label of the tasks and workflows of a schedule.
pub(crate) fn label(name: &str) -> (String, String) {
    (SCHEDULE.to_owned(), name.to_owned())
}

/// Returns why no run may start now.
pub(super) fn refusal(entry: &Entry, tracked: &Tracked) -> Option<String> {
    let active = &tracked.status.active;
    let forbids = entry.spec.concurrency() == v1::ScheduleConcurrency::Forbid;
    match active.first() {
        Some(run) if forbids => Some(format!("the run of {} has not ended", run.subject())),
        _ if active.len() >= MAX_ACTIVE => Some(format!("{MAX_ACTIVE} runs have not ended")),
        _ => None,
    }
}

/// Returns why nothing is to be created any more for a stored run.
fn overtaken(entry: &Entry, run: &StoredRun, now: Timestamp) -> Option<&'static str> {
    if run.run.as_ref().is_some_and(|run| run.requested) {
        return None;
    }
    let anchor = Timestamp(entry.stored.anchor);
    match run.latest_start {
        1.. if now.0 > run.latest_start => Some("its start deadline has passed"),
        _ if entry.is_paused() => Some("the schedule was paused before its start"),
        // The end of a pause, or another expression.
        _ if run.began() < anchor && anchor <= now => Some("the schedule has changed before its start"),
        _ => None,
    }
}

/// Whether a failure may be over soon: the creation is tried again.
fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Internal
            | Code::Unknown
    )
}

/// Whether the task exists, and cannot be returned because the schedule has changed, or it was removed.
fn exists(status: &Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|info| {
        matches!(info.reason.as_str(), "IDEMPOTENCY_KEY_CONFLICT" | "IDEMPOTENCY_KEY_EXPIRED")
    })
}

/// Returns the id of what was created.
fn id_of(created: &v1::RunScheduleResponse) -> &str {
    let workflow = created.workflow.as_ref().map(|workflow| workflow.uid.as_str());
    workflow.or(created.task.as_ref().map(|task| task.uid.as_str())).unwrap_or_default()
}

impl Driver {
    /// Starts the run of a time.
    pub(super) async fn start(
        &self,
        entry: &Arc<Entry>,
        tracked: &mut Tracked,
        slot: Slot,
        latest_start: i64,
        now: Timestamp,
    ) -> Result<(), Status> {
        let key = format!("schedule:{}:{}", entry.document.uid, time::rfc3339(slot.time));
        let run = v1::ScheduleRun { schedule_time: Some(time::timestamp(slot.time)), ..Default::default() };
        let before = std::mem::replace(&mut tracked.status.cursor, slot.time.0);
        let id = match self.intend(entry, tracked, run, key, latest_start, now).await {
            Ok(id) => id,
            Err(status) => {
                tracked.status.cursor = before;
                return Err(status);
            }
        };
        self.metrics.schedule_lag(now.since(slot.time));
        let _ = self.create(entry, tracked, &id, now).await?;
        self.cancel_replaced(entry, tracked).await
    }

    /// Runs a schedule by request. A key that was used before returns its task or workflow.
    pub(crate) async fn run_now(
        &self,
        entry: &Arc<Entry>,
        key: &str,
    ) -> Result<v1::RunScheduleResponse, Status> {
        let shared = self.lock_of(entry).await;
        let mut tracked = shared.lock().await;
        let now = self.registry.clock.now();
        tracked.sync(entry, now);
        let key = format!("schedule:{}:request:{key}", entry.document.uid);
        let known = tracked.status.active.iter().find(|run| run.key == key);
        let known = known.map(|run| run.id().to_owned());
        let id = match known {
            Some(id) => id,
            None => {
                if let Some(reason) = refusal(entry, &tracked) {
                    let hint = "wait for its end, or cancel it";
                    return Err(status::hinted("SCHEDULE_ACTIVE", reason, hint));
                }
                let run = v1::ScheduleRun {
                    schedule_time: Some(time::timestamp(now)),
                    requested: true,
                    ..Default::default()
                };
                self.intend(entry, &mut tracked, run, key, 0, now).await?
            }
        };
        let created = self.create(entry, &mut tracked, &id, now).await;
        if let Err(error) = self.cancel_replaced(entry, &mut tracked).await {
            // Tried again by the driver, which looks at the schedule next.
            tracing::warn!(schedule = entry.name(), %error, "earlier runs were not cancelled, retrying");
        }
        // What is not done or not stored by now is tried again by the driver.
        self.registry.touch(entry.key());
        let created = created?;
        if tracked.dirty {
            self.save(entry, &mut tracked).await?;
        }
        created
    }

    /// Stores a run whose task or workflow is to be created. Returns the id of that.
    async fn intend(
        &self,
        entry: &Arc<Entry>,
        tracked: &mut Tracked,
        run: v1::ScheduleRun,
        key: String,
        latest_start: i64,
        now: Timestamp,
    ) -> Result<String, Status> {
        let id = Uuid::now_v7();
        let text = id.to_string();
        let mut run = v1::ScheduleRun { start_time: Some(time::timestamp(now)), ..run };
        match entry.workflow() {
            Some(_) => run.workflow.clone_from(&text),
            None => run.task.clone_from(&text),
        }
        tracked.status.active.push(StoredRun { run: Some(run), key, created: false, latest_start });
        if let Err(status) = self.save(entry, tracked).await {
            tracked.status.active.pop();
            return Err(status);
        }
        self.registry.follow(entry.namespace(), id, &entry.key());
        Ok(text)
    }

    /// Cancels the runs whose successor exists. A run is not cancelled before that: it may be the last one that could start.
    pub(super) async fn cancel_replaced(&self, entry: &Entry, tracked: &mut Tracked) -> Result<(), Status> {
        let reason = format!("replaced by the next run of schedule {}", entry.name());
        let mut cancels = Vec::new();
        for run in &tracked.replaced {
            if !is_cancelled(&self.store, entry.namespace(), run).await? {
                cancels.extend(cancel(entry.namespace(), run, reason.clone()));
            }
        }
        if !cancels.is_empty() {
            // One that has ended, or was never created, needs none.
            self.store.apply(cancels).await.map_err(status::store)?;
        }
        tracked.replaced.clear();
        Ok(())
    }

    /// Creates the tasks and workflows of runs that a failure or the end of a control plane has left without.
    pub(super) async fn create_missing(
        &self,
        entry: &Arc<Entry>,
        tracked: &mut Tracked,
        now: Timestamp,
    ) -> Result<(), Status> {
        let missing = tracked.status.active.iter().filter(|run| !run.created);
        let missing: Vec<_> = missing.map(|run| run.id().to_owned()).collect();
        for id in missing {
            let _ = self.create(entry, tracked, &id, now).await?;
        }
        // Also those that a control plane has left which ended before.
        self.cancel_replaced(entry, tracked).await
    }

    /// Creates the task or workflow of a stored run. Fails if it is to be tried again; returns the error of one that cannot be created.
    async fn create(
        &self,
        entry: &Arc<Entry>,
        tracked: &mut Tracked,
        id: &str,
        now: Timestamp,
    ) -> Result<Result<v1::RunScheduleResponse, Status>, Status> {
        let Some(at) = tracked.status.active.iter().position(|run| run.id() == id) else {
            return Ok(Err(Status::internal("the run is not stored")));
        };
        let run = tracked.status.active[at].clone();
        // One that exists needs neither its template nor the schedule as it was, and must not be given up.
        let made = match self.existing(entry, &run).await? {
            Some(found) => Ok(found),
            None => match overtaken(entry, &run, now) {
                Some(reason) => return Ok(Err(self.end_overtaken(entry, tracked, at, reason))),
                None => self.create_now(entry, &run).await,
            },
        };
        let error = match made {
            Ok(created) => {
                tracked.status.problem.clear();
                if id_of(&created) != id {
                    // The key was used by an earlier request, whose run has been counted.
                    tracked.status.active.remove(at);
                    tracked.dirty = true;
                } else if tracked.note_created(entry, at) {
                    tracked.status.started += 1;
                    self.metrics.schedule_run("started");
                    // The key of a workflow is forgotten with it: one that is removed soon must not be created again.
                    tracked.dirty |= created.workflow.is_some();
                }
                return Ok(Ok(created));
            }
            Err(status) => status,
        };
        if exists(&error) {
            tracked.note_created(entry, at);
            // Looked up with the ended ones.
            self.registry.note_ended(&entry.key(), id);
            return Ok(Err(error));
        }
        if is_transient(&error) && (run.latest_start == 0 || now.0 <= run.latest_start) {
            return Err(error);
        }
        self.failed(entry, tracked, at, &error);
        Ok(Err(error))
    }

    /// Ends a stored run for which nothing was created in time.
    fn end_overtaken(&self, entry: &Entry, tracked: &mut Tracked, at: usize, reason: &str) -> Status {
        let removed = tracked.status.active.remove(at);
        self.registry.unfollow(entry.namespace(), removed.id());
        self.skipped(entry, tracked, removed.time(), reason.to_owned(), 1);
        Status::failed_precondition(reason)
    }

    fn failed(&self, entry: &Entry, tracked: &mut Tracked, at: usize, error: &Status) {
        let removed = tracked.status.active.remove(at);
        self.registry.unfollow(entry.namespace(), removed.id());
        let message = error.message().to_owned();
        tracing::warn!(schedule = entry.name(), namespace = %entry.namespace(), message, "a run was not started");
        let run = removed.run.unwrap_or_default();
        let end_time = run.start_time;
        let run = v1::ScheduleRun {
            task: String::new(),
            workflow: String::new(),
            message: message.clone(),
            end_time,
            ..run
        };
        tracked.add_ended(entry, run);
        tracked.status.problem = message;
        self.metrics.schedule_run("failed");
    }

    /// Returns the task or workflow of a run, if it exists.
    async fn existing(
        &self,
        entry: &Entry,
        run: &StoredRun,
    ) -> Result<Option<v1::RunScheduleResponse>, Status> {
        let namespace = entry.namespace();
        if let RunOf::Workflow(id) = run.of() {
            let Ok(id) = id.parse() else { return Ok(None) };
            let found = self.workflows.scheduled(namespace, id).await?;
            return Ok(found.map(|workflow| v1::RunScheduleResponse { workflow: Some(workflow), task: None }));
        }
        let Ok(id) = run.id().parse() else { return Ok(None) };
        let Some(found) = self.store.record(namespace, id).await? else { return Ok(None) };
        let (payload, result) = (self.store.payload(&found).await?, self.store.result(&found).await?);
        let task = task::to_wire(&found, payload.as_ref(), result.as_ref());
        Ok(Some(v1::RunScheduleResponse { task: Some(task), workflow: None }))
    }

    async fn create_now(&self, entry: &Entry, run: &StoredRun) -> Result<v1::RunScheduleResponse, Status> {
        let changed = || Status::failed_precondition("the schedule has changed since the run began");
        if let RunOf::Workflow(_) = run.of() {
            let given = entry.workflow().cloned().ok_or_else(changed)?;
            let workflow = self.create_workflow(entry, run, given).await?;
            return Ok(v1::RunScheduleResponse { workflow: Some(workflow), task: None });
        }
        let given = entry.spec.task.clone().ok_or_else(changed)?;
        let task = self.create_task(entry, run, given).await?;
        Ok(v1::RunScheduleResponse { task: Some(task), workflow: None })
    }

    async fn create_workflow(
        &self,
        entry: &Entry,
        run: &StoredRun,
        given: v1::ScheduledWorkflow,
    ) -> Result<v1::Workflow, Status> {
        let request = v1::CreateWorkflowRequest {
            idempotency_key: run.key.clone(),
            workflow_id: run.id().to_owned(),
            ..scheduled_workflow::request(entry.namespace(), entry.name(), given)
        };
        self.workflows.create_scheduled(entry.namespace().clone(), request).await
    }

    async fn create_task(
        &self,
        entry: &Entry,
        run: &StoredRun,
        mut task: v1::Task,
    ) -> Result<v1::Task, Status> {
        let namespace = entry.namespace();
        task.labels.extend([label(entry.name())]);
        if task.alias.is_empty() {
            entry.name().clone_into(&mut task.alias);
        }
        let stored = &entry.stored;
        if !stored.sealed.is_empty() {
            let sealed_for = Uuid::from_slice(&stored.sealed_for).unwrap_or_default();
            let secrets = self.sealer.open_sealed(namespace, TaskId(sealed_for), &stored.sealed);
            let secrets = secrets.map_err(|error| Status::failed_precondition(error.to_string()))?;
            task.spec.get_or_insert_default().secrets = secrets.into_message();
        }
        let request = v1::CreateTaskRequest {
            parent: names::namespace(namespace.as_str()),
            task: Some(task),
            idempotency_key: run.key.clone(),
            task_id: run.id().to_owned(),
            validate_only: false,
        };
        let (namespace, trace) = (namespace.clone(), root_trace());
        let prepared = self.creator.prepare(namespace, trace, request, None, Scope::All).await?;
        let mut answers = self.creator.commit(vec![prepared]).await?;
        answers.pop().unwrap_or_else(|| Err(no_reply()))
    }
}
