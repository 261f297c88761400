//! Applies one `Task`: makes it, or changes what may be changed of the one that exists.

use anyhow::Context as _;
use pbjson_types::FieldMask;
use rota_client::watch::is_final;
use rota_crds::Task as Manifest;
use rota_proto::v1::{CreateTaskRequest, DesiredState, GetTaskRequest, Task, UpdateTaskRequest};

use super::{Applied, Outcome};
use crate::commands::{found, state_of};
use crate::context::Context;

pub(super) async fn apply(context: &Context, manifest: &Manifest, dry_run: bool) -> anyhow::Result<Applied> {
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    let mut request = manifest.to_request(&context.namespace, &suffix[..6]);
    request.validate_only = dry_run;
    let wanted = request.task.clone().unwrap_or_default();
    let doing = || format!("task/{} could not be applied", wanted.alias);
    let before = existing(context, &request).await.with_context(doing)?;
    let namespace = rota_proto::names::last(&request.parent).to_owned();
    let task = context.client.create_task(request).await.with_context(doing)?;
    let name = wanted.alias.clone();
    let applied = |outcome, task| Applied { kind: "task", namespace, name, outcome, task };
    if dry_run {
        return Ok(applied(Outcome::Valid, None));
    }
    if before.is_none_or(|uid| uid != task.uid) {
        return Ok(applied(Outcome::Created, Some(task)));
    }
    let (task, paths) = changes(task, &wanted);
    if paths.is_empty() {
        return Ok(applied(Outcome::Unchanged, Some(task)));
    }
    let update = UpdateTaskRequest { task: Some(task), update_mask: Some(FieldMask { paths }) };
    let task = context.client.update_task(update).await.with_context(doing)?;
    Ok(applied(Outcome::Configured, Some(task)))
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
    let alias = request.task.as_ref().map(|task| task.alias.as_str()).unwrap_or_default();
    let name = format!("{}/tasks/{alias}", request.parent);
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
