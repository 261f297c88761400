//! Applies one `Task`: makes it, or changes what may be changed of the one that exists.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::StreamExt;
use pbjson_types::FieldMask;
use rota_client::watch::is_final;
use rota_crds::Task as Manifest;
use rota_proto::names;
use rota_proto::v1::batch_create_tasks_result::Kind;
use rota_proto::v1::{
    BatchCreateTasksRequest, BatchError, CreateTaskRequest, DesiredState, GetTaskRequest, Task,
    UpdateTaskRequest,
};

use super::{Applied, Outcome};
use crate::commands::{found, state_of};
use crate::context::Context;

/// A manifest's creation. `secrets` come from the caller's environment.
pub(super) fn request(
    context: &Context,
    manifest: &Manifest,
    secrets: &BTreeMap<String, String>,
) -> CreateTaskRequest {
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    let mut request = manifest.to_request(&context.namespace, &suffix[..6]);
    if let Some(spec) = request.task.as_mut().and_then(|task| task.spec.as_mut()) {
        spec.secrets.extend(secrets.clone());
    }
    request
}

/// What stands on every error.
fn doing(request: &CreateTaskRequest) -> String {
    format!("task/{} could not be applied", alias(request))
}

fn alias(request: &CreateTaskRequest) -> &str {
    request.task.as_ref().map(|task| task.alias.as_str()).unwrap_or_default()
}

pub(super) async fn apply(context: &Context, request: CreateTaskRequest) -> anyhow::Result<Applied> {
    let before = existing(context, &request).await.with_context(|| doing(&request))?;
    let task = context.client.create_task(request.clone()).await.with_context(|| doing(&request))?;
    settle(context, &request, before, task, false).await
}

/// What [`apply`] would do with requests of one namespace, once these agents exist. They are seen together: what
/// one needs, another may bring, and a cycle shows only when all its tasks are there.
pub(super) async fn rehearse(
    context: &Context,
    requests: &[CreateTaskRequest],
    agents: &[String],
) -> anyhow::Result<Vec<anyhow::Result<Applied>>> {
    let befores = futures::stream::iter(requests.iter().map(|request| existing(context, request)));
    let befores: Vec<_> = befores.buffered(super::AT_ONCE).collect().await;
    let batch = BatchCreateTasksRequest {
        parent: requests.first().map(|request| request.parent.clone()).unwrap_or_default(),
        requests: requests.to_vec(),
        validate_only: true,
        expected_agents: agents.to_vec(),
    };
    let answer = context.client.batch_create_tasks(batch).await?;
    let mut told = Vec::with_capacity(requests.len());
    for ((request, before), result) in requests.iter().zip(befores).zip(answer.results) {
        let task = match result.kind {
            Some(Kind::Task(task)) => Ok(task),
            Some(Kind::Error(error)) => Err(rota_client::Error::from(error)),
            None => Err(rota_client::Error::from(BatchError::default())),
        };
        told.push(match before.and_then(|before| Ok((before, task?))) {
            Ok((before, task)) => settle(context, request, before, task, true).await,
            Err(error) => Err(anyhow::Error::from(error).context(doing(request))),
        });
    }
    Ok(told)
}

/// A task has been answered: what is still to be changed of one that was there before.
async fn settle(
    context: &Context,
    request: &CreateTaskRequest,
    before: Option<String>,
    task: Task,
    dry_run: bool,
) -> anyhow::Result<Applied> {
    let (namespace, name) = (names::last(&request.parent).to_owned(), alias(request).to_owned());
    let applied =
        |outcome, fields, task| Applied { kind: "task", namespace, name, outcome, fields, task: Some(task) };
    if before.is_none_or(|uid| uid != task.uid) {
        return Ok(applied(Outcome::Created, Vec::new(), task));
    }
    let (task, paths) = changes(task, request.task.as_ref().unwrap_or(&Task::default()));
    if paths.is_empty() {
        return Ok(applied(Outcome::Unchanged, paths, task));
    }
    let mask = Some(FieldMask { paths: paths.clone() });
    let update = UpdateTaskRequest { task: Some(task), update_mask: mask, validate_only: dry_run };
    let task = context.client.update_task(update).await.with_context(|| doing(request))?;
    Ok(applied(Outcome::Configured, paths, task))
}

/// The id of the task that has this name now. Asked before the creation, which answers the same
/// way for a new task and for the one that exists.
async fn existing(
    context: &Context,
    request: &CreateTaskRequest,
) -> Result<Option<String>, rota_client::Error> {
    if request.idempotency_key.is_empty() {
        return Ok(None);
    }
    let name = format!("{}/tasks/{}", request.parent, alias(request));
    Ok(found(context.client.get_task(GetTaskRequest { name }).await)?.map(|task| task.uid))
}

/// The task with what the manifest changes, and the fields that it does.
fn changes(mut task: Task, wanted: &Task) -> (Task, Vec<String>) {
    let mut paths = Vec::new();
    let ended = is_final(state_of(&task));
    // What is left out of a manifest is not asked for, hence not changed back.
    if let Some(priority) = wanted.priority
        && !ended
        && task.priority.unwrap_or(5) != priority
    {
        task.priority = Some(priority);
        paths.push("priority".to_owned());
    }
    if task.labels != wanted.labels {
        task.labels.clone_from(&wanted.labels);
        paths.push("labels".to_owned());
    }
    let effective = |task: &Task| match task.desired_state() {
        DesiredState::Unspecified => DesiredState::Run,
        other => other,
    };
    if wanted.desired_state() != DesiredState::Unspecified && !ended && effective(&task) != effective(wanted)
    {
        task.set_desired_state(wanted.desired_state());
        paths.push("desired_state".to_owned());
    }
    (task, paths)
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{TaskState, TaskStatus};

    use super::*;

    #[test]
    fn only_what_differs_and_may_be_changed() {
        let task = |priority, state: DesiredState| Task {
            priority,
            desired_state: state.into(),
            status: Some(TaskStatus { state: TaskState::Queued.into(), ..Default::default() }),
            ..Default::default()
        };
        let paths = |task: Task, wanted: &Task| changes(task, wanted).1;
        let (run, unset) = (DesiredState::Run, DesiredState::Unspecified);
        assert_eq!(paths(task(Some(8), run), &task(None, unset)), [""; 0]);
        assert_eq!(paths(task(Some(5), run), &task(Some(5), run)), [""; 0]);
        assert_eq!(paths(task(None, unset), &task(Some(5), run)), [""; 0]);
        assert_eq!(
            paths(task(None, run), &task(Some(8), DesiredState::Suspended)),
            ["priority", "desired_state"]
        );
        let mut labelled = task(None, run);
        labelled.labels.insert("a".into(), "b".into());
        assert_eq!(paths(labelled.clone(), &task(None, run)), ["labels"]);
        let mut ended = task(Some(5), run);
        ended.status = Some(TaskStatus { state: TaskState::Failed.into(), ..Default::default() });
        assert_eq!(paths(ended, &task(Some(8), DesiredState::Cancelled)), [""; 0]);
    }
}
