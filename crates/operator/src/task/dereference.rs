//! Finds what a `Task` is about: its record in the control plane, and why that waits.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use rota_client::Code;
use rota_crds::resource::Task;
use rota_proto::v1::TaskState;
use rota_proto::{names, v1};

use super::mirror::Mirror;
use super::status::{self, Waiting};
use crate::context::Context;
use crate::controller::Failure;

/// The record, if there is one.
pub(super) async fn record(
    context: &Context,
    mirror: &Mirror,
    task: &Task,
) -> Result<Option<Arc<v1::Task>>, Failure> {
    let uid = task.uid().unwrap_or_default();
    if let Some(record) = mirror.get(&uid) {
        return Ok(Some(record));
    }
    // One that was never written down as handed in is handed in again, which changes nothing if it was.
    if task.status.as_ref().is_none_or(|status| status.task_id.is_none()) {
        return Ok(None);
    }
    let name = names::task(&task.namespace().unwrap_or_default(), &uid);
    match context.control.get_task(v1::GetTaskRequest { name }).await {
        Ok(record) => Ok(Some(mirror.put(record))),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The record with its result.
pub(super) async fn with_result(context: &Context, record: &Arc<v1::Task>) -> Result<Arc<v1::Task>, Failure> {
    let status = record.status.as_ref();
    if status.is_none_or(|status| status.result.is_some() || status.state() != TaskState::Succeeded) {
        return Ok(Arc::clone(record));
    }
    match context.control.get_task(v1::GetTaskRequest { name: record.name.clone() }).await {
        Ok(record) => Ok(Arc::new(record)),
        // Ended and already removed: what was heard of it is what there is.
        Err(error) if error.code == Code::NotFound => Ok(Arc::clone(record)),
        Err(error) => Err(error.into()),
    }
}

/// Whether it waits for something.
pub(super) fn waits(record: &v1::Task) -> bool {
    let state = record.status.as_ref().map_or(TaskState::Unspecified, v1::TaskStatus::state);
    matches!(state, TaskState::Unspecified | TaskState::Pending | TaskState::Queued)
}

/// Since it was handed in.
pub(super) fn waited(record: &v1::Task, now: Timestamp) -> Duration {
    let made = record.create_time.as_ref().and_then(|made| Timestamp::new(made.seconds, made.nanos).ok());
    made.and_then(|made| Duration::try_from(now.duration_since(made)).ok()).unwrap_or_default()
}

/// Why it waits.
pub(super) async fn waiting(context: &Context, task: &Task, record: &v1::Task) -> Result<Waiting, Failure> {
    let request = v1::ExplainTaskRequest { name: record.name.clone() };
    match context.control.explain_task(request).await {
        Ok(explained) => Ok(status::waiting(task, record, explained.causes)),
        Err(error) if error.code == Code::NotFound => Ok(Waiting::default()),
        Err(error) => Err(error.into()),
    }
}
