//! Tasks among dead letters: found page by page, and replaced by copies.

use std::collections::BTreeMap;

use anyhow::Context as _;
use pbjson_types::FieldMask;
use rota_proto::labels::{CLUSTER, KIND, REPLAY_OF, REPLAYED};
use rota_proto::v1::{
    CreateTaskRequest, FailureClass, GetTaskRequest, ListTasksRequest, RetryTaskRequest, Task, TaskFilter,
    TaskSpec, TaskState, UpdateTaskRequest,
};

use super::{Found, PAGE_SIZE, Take, Which, key};
use crate::commands::{editor, pairs, since, state_of};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Paint, Table, age, first_line, target, word};

fn filter(which: &Which, replayed: bool) -> TaskFilter {
    let mut labels = pairs::map(&which.label);
    if let Some(kind) = &which.kind {
        labels.insert(KIND.to_owned(), kind.clone());
    }
    TaskFilter {
        states: vec![TaskState::Failed.into()],
        dead_letters: !replayed,
        failure_classes: which.class.iter().map(|class| (*class).into()).collect(),
        labels,
        agent: which.agent.clone().unwrap_or_default(),
        owner: which.owner.clone().unwrap_or_default(),
        created_after: which.since.as_ref().map(since),
        ..TaskFilter::default()
    }
}

/// Returns dead letters, at most `limit`.
pub(super) async fn find(
    context: &Context,
    which: &Which,
    parent: String,
    limit: usize,
    take: Take,
) -> anyhow::Result<Found<Task>> {
    if which.template.is_some() {
        return Ok(Found { letters: Vec::new(), more: false, copies: 0 });
    }
    let request = ListTasksRequest {
        parent,
        page_size: PAGE_SIZE,
        filter: Some(filter(which, take.replayed())),
        ..ListTasksRequest::default()
    };
    let fits = |task: &Task| fits(task, &which.class, take);
    let is_copy = |task: &Task| !task.retry_of.is_empty() || task.labels.contains_key(REPLAY_OF);
    super::find(take, limit, fits, is_copy, async |page_token| {
        let page = context.client.list_tasks(ListTasksRequest { page_token, ..request.clone() }).await?;
        Ok((page.tasks, page.next_page_token))
    })
    .await
}

/// Whether a command takes a failed task. An older control plane ignores filters that it does not know, and lists the tasks all the same.
fn fits(task: &Task, classes: &[FailureClass], take: Take) -> bool {
    task.step.is_none()
        && (take.replayed() || !task.labels.contains_key(REPLAYED))
        && (classes.is_empty() || class_of(task).is_some_and(|class| classes.contains(&class)))
}

fn class_of(task: &Task) -> Option<FailureClass> {
    Some(task.status.as_ref()?.failure.as_ref()?.class())
}

/// Fails if a task that was named is no dead letter, which filters leave out.
pub(super) fn check_named(given: &str, task: &Task) -> Result<(), Failure> {
    if state_of(task) != TaskState::Failed {
        let text = format!("task {given} has not failed");
        return Err(Failure::usage(text).hint(format!("see `rota describe {given}`")));
    }
    if let Some(copy) = task.labels.get(REPLAYED) {
        let text = format!("task {given} was already replayed, or taken from the list: {REPLAYED} is {copy}");
        return Err(Failure::usage(text).hint(format!("run it once more with `rota retry {given}`")));
    }
    if task.step.is_some() {
        let text = format!("task {given} is a step of a workflow");
        return Err(
            Failure::usage(text).hint("name its workflow, which runs again from the step that has failed")
        );
    }
    Ok(())
}

/// Creates a copy of a dead letter. Repeating the call returns the same copy.
pub(super) async fn again(
    context: &Context,
    letter: &Task,
    secrets: BTreeMap<String, String>,
) -> anyhow::Result<Task> {
    let request = RetryTaskRequest {
        name: letter.name.clone(),
        idempotency_key: key(&letter.uid),
        secrets,
        ..Default::default()
    };
    let copy = context.client.retry_task(request).await?;
    mark(context, letter, &copy).await?;
    Ok(copy)
}

/// Creates a task in place of a dead letter, with the specification that a person has edited.
pub(super) async fn edited(
    context: &Context,
    letter: &Task,
    secrets: BTreeMap<String, String>,
) -> anyhow::Result<Task> {
    let whole = context.client.get_task(GetTaskRequest { name: letter.name.clone() }).await?;
    let mut spec = whole.spec.unwrap_or_default();
    spec.start_time = None;
    pairs::require(&spec.secret_names, &secrets)?;
    spec.secret_names.clear();
    let text = serde_saphyr::to_string(&serde_json::to_value(&spec)?)?;
    let value: serde_json::Value = serde_saphyr::from_str(&editor::edit(&text).await?)?;
    let spec: TaskSpec =
        serde_json::from_value(value).context("the file is not the specification of a task")?;
    let mut labels = whole.labels;
    // It has no resource: the operator would cancel it.
    labels.remove(CLUSTER);
    labels.remove(REPLAYED);
    labels.insert(REPLAY_OF.to_owned(), letter.uid.clone());
    let task = Task {
        alias: whole.alias,
        spec: Some(Box::new(TaskSpec { secrets, ..spec })),
        priority: whole.priority,
        labels,
        ..Task::default()
    };
    let parent = letter.name.rsplit_once("/tasks/").map_or("", |(parent, _)| parent).to_owned();
    let idempotency_key = key(&letter.uid);
    let request =
        CreateTaskRequest { parent, task: Some(task), idempotency_key, ..CreateTaskRequest::default() };
    let made = Box::pin(context.client.create_task(request)).await?;
    mark(context, letter, &made).await?;
    Ok(made)
}

/// Records which task took the place of a dead letter, which thereby ceases to be one.
async fn mark(context: &Context, letter: &Task, copy: &Task) -> anyhow::Result<()> {
    let mut labels = letter.labels.clone();
    labels.insert(REPLAYED.to_owned(), copy.uid.clone());
    let task = Task { name: letter.name.clone(), labels, ..Task::default() };
    let update_mask = Some(FieldMask { paths: vec!["labels".to_owned()] });
    let request = UpdateTaskRequest { task: Some(task), update_mask, ..UpdateTaskRequest::default() };
    context.client.update_task(request).await.context("failed to mark the task as replayed")?;
    Ok(())
}

/// Returns a table of dead letters.
pub(super) fn table(letters: &[Task]) -> Table {
    let mut table =
        Table::new(&["ID", "NAME", "AGENT", "CLASS", "ATTEMPTS", "FAILED", "REPLAYED BY", "MESSAGE"]);
    for task in letters {
        let status = task.status.clone().unwrap_or_default();
        let failure = status.failure.clone().unwrap_or_default();
        let class = word(failure.class().as_str_name(), "FAILURE_CLASS_");
        let cells = [
            task.uid.clone(),
            task.alias.clone(),
            target(task),
            class,
            status.attempt.to_string(),
            age(status.end_time.as_ref()),
            task.labels.get(REPLAYED).map_or_else(String::new, |uid| first_line(uid, 36)),
            first_line(&failure.message, 80),
        ];
        table.row(cells.map(|cell| (cell, Paint::Plain)));
    }
    table
}

#[cfg(test)]
mod tests {
    use rota_proto::v1;

    use super::*;

    const OLDEST: Take = Take::Oldest { again: false };

    #[test]
    fn replayed_tasks_of_older_servers_are_excluded() {
        let labels = [(REPLAYED.to_owned(), "never".to_owned())].into();
        let dismissed = Task { labels, ..Task::default() };
        assert!(!fits(&dismissed, &[], OLDEST));
        assert!(fits(&dismissed, &[], Take::Newest { replayed: true }));
        assert!(fits(&Task::default(), &[], OLDEST));
    }

    #[test]
    fn other_classes_of_older_servers_are_excluded() {
        let failure = v1::Failure { class: FailureClass::Overload.into(), ..Default::default() };
        let status = v1::TaskStatus { failure: Some(failure), ..Default::default() };
        let task = Task { status: Some(Box::new(status)), ..Task::default() };
        assert!(fits(&task, &[FailureClass::Source, FailureClass::Overload], OLDEST));
        assert!(!fits(&task, &[FailureClass::Source], OLDEST));
        assert!(!fits(&Task::default(), &[FailureClass::Source], OLDEST));
    }
}
