//! Collects what a `Task` refers to: its record in the control plane.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use rota_client::Code;
use rota_crds::resource::Task;
use rota_proto::v1::TaskState;
use rota_proto::{names, v1};

use super::cache::TaskCache;
use super::status::{Ages, WaitAges};
use crate::context::Context;
use crate::error::ReconcileError;

/// Returns the record of a task, if it has one.
pub(super) async fn record(
    context: &Context,
    cache: &TaskCache,
    task: &Task,
) -> Result<Option<Arc<v1::Task>>, ReconcileError> {
    let uid = task.uid().unwrap_or_default();
    if let Some(record) = cache.get(&uid) {
        return Ok(Some(record));
    }
    // Without a task id in the status it is submitted again, which has no effect if it already was.
    if task.status.as_ref().is_none_or(|status| status.task_id.is_none()) {
        return Ok(None);
    }
    fetch(context, cache, task).await
}

/// Asks the control plane for the record of a task.
pub(super) async fn fetch(
    context: &Context,
    cache: &TaskCache,
    task: &Task,
) -> Result<Option<Arc<v1::Task>>, ReconcileError> {
    let uid = task.uid().unwrap_or_default();
    let name = names::task(&task.namespace().unwrap_or_default(), &uid);
    match context.control.get_task(v1::GetTaskRequest { name }).await {
        Ok(record) => Ok(Some(cache.insert(record))),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the record with its result, which the stream omits.
pub(super) async fn with_result(
    context: &Context,
    record: &Arc<v1::Task>,
) -> Result<Arc<v1::Task>, ReconcileError> {
    let status = record.status.as_ref();
    if status.is_none_or(|status| status.result.is_some() || status.state() != TaskState::Succeeded) {
        return Ok(Arc::clone(record));
    }
    match context.control.get_task(v1::GetTaskRequest { name: record.name.clone() }).await {
        Ok(record) => Ok(Arc::new(record)),
        // Already pruned: the streamed record is all there is.
        Err(error) if error.code == Code::NotFound => Ok(Arc::clone(record)),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether a task is pending or queued.
pub(super) fn is_waiting(record: &v1::Task) -> bool {
    let state = record.status.as_deref().map_or(TaskState::Unspecified, v1::TaskStatus::state);
    matches!(state, TaskState::Unspecified | TaskState::Pending | TaskState::Queued)
}

/// Returns the times since the task was submitted, and since its attempt runs.
pub(super) fn ages(record: &v1::Task, now: Timestamp) -> Ages {
    let since = |time: &pbjson_types::Timestamp| {
        let time = Timestamp::new(time.seconds, time.nanos).ok()?;
        Some(Duration::try_from(now.duration_since(time)).unwrap_or_default())
    };
    let started = record.status.as_ref().and_then(|status| status.start_time.as_ref());
    Ages {
        task: record.create_time.as_ref().and_then(since).unwrap_or_default(),
        running: started.and_then(since),
        wait: WaitAges::default(),
    }
}
