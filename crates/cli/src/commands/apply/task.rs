//! Applies one `Task`: creates it, or updates the mutable fields of the existing one.

use std::collections::BTreeMap;

use anyhow::Context as _;
use futures::StreamExt;
use pbjson_types::FieldMask;
use rota_crds::Task as Manifest;
use rota_proto::labels::KIND;
use rota_proto::names;
use rota_proto::v1::batch_create_tasks_result::Kind;
use rota_proto::v1::{
    BatchCreateTasksRequest, BatchError, CreateTaskRequest, DesiredState, GetTaskRequest, Isolation, Task,
    UpdateTaskRequest,
};

use super::{Applied, Outcome};
use crate::commands::{found, state_of};
use crate::context::Context;

/// Returns the request that creates the task of a manifest. `secrets` come from the environment of this command.
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

/// Context of every error.
fn error_context(request: &CreateTaskRequest) -> String {
    format!("failed to apply task/{}", alias(request))
}

fn alias(request: &CreateTaskRequest) -> &str {
    request.task.as_ref().map(|task| task.alias.as_str()).unwrap_or_default()
}

pub(super) async fn apply(context: &Context, request: CreateTaskRequest) -> anyhow::Result<Applied> {
    let before = existing(context, &request).await.with_context(|| error_context(&request))?;
    let task = context.client.create_task(request.clone()).await.with_context(|| error_context(&request))?;
    finish(context, &request, before, task, false).await
}

/// Returns what [`apply`] would do with the requests of one namespace once these agents exist. All requests are
/// validated together, since tasks may depend on each other and form cycles.
pub(super) async fn dry_run(
    context: &Context,
    requests: &[CreateTaskRequest],
    agents: &[String],
) -> anyhow::Result<Vec<anyhow::Result<Applied>>> {
    let befores = futures::stream::iter(requests.iter().map(|request| existing(context, request)));
    let befores: Vec<_> = befores.buffered(super::MAX_CONCURRENT_CALLS).collect().await;
    let batch = BatchCreateTasksRequest {
        parent: requests.first().map(|request| request.parent.clone()).unwrap_or_default(),
        requests: requests.to_vec(),
        validate_only: true,
        expected_agents: agents.to_vec(),
    };
    let answer = context.client.batch_create_tasks(batch).await?;
    let mut outcomes = Vec::with_capacity(requests.len());
    for ((request, before), result) in requests.iter().zip(befores).zip(answer.results) {
        let task = match result.kind {
            Some(Kind::Task(task)) => Ok(task),
            Some(Kind::Error(error)) => Err(rota_client::Error::from(error)),
            None => Err(rota_client::Error::from(BatchError::default())),
        };
        outcomes.push(match before.and_then(|before| Ok((before, task?))) {
            Ok((before, task)) => finish(context, request, before, task, true).await,
            Err(error) => Err(anyhow::Error::from(error).context(error_context(request))),
        });
    }
    Ok(outcomes)
}

/// Updates a task that existed before its creation was requested.
async fn finish(
    context: &Context,
    request: &CreateTaskRequest,
    before: Option<String>,
    task: Task,
    dry_run: bool,
) -> anyhow::Result<Applied> {
    let (namespace, name) = (names::last(&request.parent).to_owned(), alias(request).to_owned());
    let applied = |outcome, fields, task| Applied {
        kind: "task",
        namespace,
        name,
        outcome,
        fields,
        task: Some(task),
        workflow: None,
    };
    let isolated = |task: &Task| task.spec.as_ref().is_some_and(|spec| spec.isolation() == Isolation::Pod);
    if request.task.as_ref().is_some_and(isolated) && !isolated(&task) {
        let name = alias(request);
        context.reporter.warn(&format!("task/{name}: isolation Pod has no effect here: nothing starts pods"));
    }
    if before.is_none_or(|uid| uid != task.uid) {
        return Ok(applied(Outcome::Created, Vec::new(), task));
    }
    let (task, paths) = changes(task, request.task.as_ref().unwrap_or(&Task::default()));
    if paths.is_empty() {
        return Ok(applied(Outcome::Unchanged, paths, task));
    }
    let mask = Some(FieldMask { paths: paths.clone() });
    let update = UpdateTaskRequest {
        task: Some(task),
        update_mask: mask,
        validate_only: dry_run,
        ..Default::default()
    };
    let task = context.client.update_task(update).await.with_context(|| error_context(request))?;
    Ok(applied(Outcome::Configured, paths, task))
}

/// Returns the id of the existing task of this name. Must precede the creation, whose response is the same for
/// a new task and an existing one.
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

/// Returns the task with the changes of the manifest, and the changed fields.
fn changes(mut task: Task, wanted: &Task) -> (Task, Vec<String>) {
    let mut paths = Vec::new();
    let finished = state_of(&task).is_final();
    // Fields that a manifest leaves out keep their values.
    if let Some(priority) = wanted.priority
        && !finished
        && task.priority.unwrap_or(5) != priority
    {
        task.priority = Some(priority);
        paths.push("priority".to_owned());
    }
    let mut labels = wanted.labels.clone();
    // The control plane sets the label of the kind.
    labels.extend(task.labels.get(KIND).map(|kind| (KIND.to_owned(), kind.clone())));
    if task.labels != labels {
        task.labels = labels;
        paths.push("labels".to_owned());
    }
    let effective = |task: &Task| match task.desired_state() {
        DesiredState::Unspecified => DesiredState::Run,
        other => other,
    };
    if wanted.desired_state() != DesiredState::Unspecified
        && !finished
        && effective(&task) != effective(wanted)
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
    fn only_mutable_differences_are_changed() {
        let task = |priority, state: DesiredState| Task {
            priority,
            desired_state: state.into(),
            status: Some(Box::new(TaskStatus { state: TaskState::Queued.into(), ..Default::default() })),
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
        let mut labeled = task(None, run);
        labeled.labels.insert("a".into(), "b".into());
        assert_eq!(paths(labeled.clone(), &task(None, run)), ["labels"]);
        let mut ended = task(Some(5), run);
        ended.status = Some(Box::new(TaskStatus { state: TaskState::Failed.into(), ..Default::default() }));
        assert_eq!(paths(ended, &task(Some(8), DesiredState::Cancelled)), [""; 0]);
    }
}
