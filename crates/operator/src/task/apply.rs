//! Effects of reconciling a `Task`: API calls and status writes. Every call may be repeated.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use rota_crds::resource::{Task, TaskStatus};
use rota_proto::v1;

use super::build;
use super::cache::TaskCache;
use crate::cluster;
use crate::context::Context;
use crate::error::{ReconcileError, camel_case, is_permanent, rejection_message};

/// Outcome of submitting a task.
pub(super) enum Submission {
    Accepted(Box<v1::Task>),
    /// Rejected permanently; a retry would be rejected too.
    Rejected {
        reason: String,
        message: String,
    },
}

/// Submits a task, within the trace that its annotation names. Submitting it again returns the existing record.
pub(super) async fn submit(context: &Context, task: &Task) -> Result<Submission, ReconcileError> {
    let request = build::creation(task, &context.cluster);
    match context.control.in_trace(task.traceparent(), None).create_task(request).await {
        Ok(record) => Ok(Submission::Accepted(Box::new(record))),
        Err(error) if is_permanent(&error) => {
            let message = rejection_message(&error);
            let reason = error.reason.unwrap_or_else(|| "Rejected".to_owned());
            Ok(Submission::Rejected { reason: camel_case(&reason), message })
        }
        Err(error) => Err(error.into()),
    }
}

/// Updates the mutable fields of the record.
pub(super) async fn update(
    context: &Context,
    cache: &TaskCache,
    request: v1::UpdateTaskRequest,
) -> Result<Arc<v1::Task>, ReconcileError> {
    Ok(cache.insert(context.control.update_task(request).await?))
}

/// Writes a status, unless it is unchanged.
pub(super) async fn write_status(
    context: &Context,
    task: &Task,
    status: TaskStatus,
) -> Result<(), ReconcileError> {
    if task.status.as_ref() == Some(&status) {
        return Ok(());
    }
    context.write_status::<Task>("task", &task.metadata, &status).await.map(drop)
}

/// Deletes the resource. The record stays in the control plane.
pub(super) async fn delete(context: &Context, task: &Task) -> Result<(), ReconcileError> {
    let tasks: Api<Task> = Api::namespaced(context.kube.clone(), &task.namespace().unwrap_or_default());
    let uid = task.uid().unwrap_or_default();
    cluster::delete(&tasks, &task.name_any(), &uid, DeleteParams::default()).await?;
    Ok(())
}
