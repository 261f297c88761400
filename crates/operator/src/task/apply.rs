//! The calls that a `Task` leads to, each safe to repeat.

use std::sync::Arc;

use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use rota_client::Code;
use rota_crds::resource::{Task, TaskStatus};
use rota_proto::v1;

use super::mirror::Mirror;
use super::{build, status};
use crate::cluster;
use crate::context::Context;
use crate::controller::{Failure, sentence};

/// What became of handing a task in.
pub(super) enum Handed {
    /// It is there.
    In(Box<v1::Task>),
    /// It never will be.
    Refused { reason: String, message: String },
}

/// Hands a task in, as a part of the trace that its annotation names. A second time gives the record that there is.
pub(super) async fn hand_in(context: &Context, task: &Task) -> Result<Handed, Failure> {
    let request = build::creation(task, &context.cluster);
    match context.control.in_trace(task.traceparent(), None).create_task(request).await {
        Ok(record) => Ok(Handed::In(Box::new(record))),
        Err(error)
            if matches!(
                error.code,
                Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists | Code::OutOfRange
            ) =>
        {
            let message = sentence(&error);
            let reason = error.reason.unwrap_or_else(|| "Refused".to_owned());
            Ok(Handed::Refused { reason: status::camel(&reason), message })
        }
        Err(error) => Err(error.into()),
    }
}

/// Changes what may change.
pub(super) async fn change(
    context: &Context,
    mirror: &Mirror,
    request: v1::UpdateTaskRequest,
) -> Result<Arc<v1::Task>, Failure> {
    Ok(mirror.put(context.control.update_task(request).await?))
}

/// Writes a status, if it says something new.
pub(super) async fn status(context: &Context, task: &Task, status: TaskStatus) -> Result<(), Failure> {
    if task.status.as_ref() == Some(&status) {
        return Ok(());
    }
    context.write_status("task", task, &status).await
}

/// Removes the resource. The record stays in the control plane.
pub(super) async fn delete(context: &Context, task: &Task) -> Result<(), Failure> {
    let tasks: Api<Task> = Api::namespaced(context.kube.clone(), &task.namespace().unwrap_or_default());
    let uid = task.uid().unwrap_or_default();
    Ok(cluster::remove(&tasks, &task.name_any(), &uid, DeleteParams::default()).await?)
}
