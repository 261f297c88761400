//! Log fields and OpenTelemetry spans for tasks: the task itself, each wait in the queue, each attempt; and for workflows, of whose span
//! those of their tasks are children, as are the waits for people, times and signals. Spans outlive processes, so they are emitted on completion, with ids from the task record.

use prost::Message;
use rota_core::failure::Class;
use rota_core::task::{Dependency, Task, Trace};
use rota_core::workflow::{COMPENSATION, Kind, Step, StepRef, Workflow};
use rota_core::{TaskId, Timestamp};
use rota_store::{AttemptEnded, Commit, QueueLeft, WorkflowQuery};
use rota_telemetry::traces::{self, Finished, Value};
use rota_telemetry::{OnExit, spawn, trace};

use crate::metrics;
use crate::store_client::StoreClient;
use crate::wire::workflow::StoredStep;

/// Steps that a task is linked with.
const MAX_LINKS: usize = 32;

/// Returns the span whose fields each log line about a task carries, at any level.
pub(crate) fn logged(task: &Task) -> tracing::Span {
    let on = task.assignment.as_ref();
    tracing::error_span!(
        "task",
        task = %task.id,
        attempt = task.attempt(),
        worker = on.map(|on| tracing::field::display(&on.worker)),
        trace_id = trace::hex(&task.trace.trace_id),
        span_id = trace::hex(on.map_or(&task.trace.span_id, |on| &on.span_id)),
    )
}

/// Returns the context of a new trace.
pub(crate) fn root_trace() -> Trace {
    // Random throughout: samplers use its last bytes, of which a UUID fixes some.
    let trace_id = traces::trace_id();
    let (span_id, sampled) = (traces::span_id(), traces::is_sampled(trace_id, None));
    Trace { trace_id, span_id, sampled, ..Trace::default() }
}

fn is_sampled(task: &Task) -> bool {
    task.trace.sampled && traces::is_enabled()
}

/// Emits the spans that end with a commit.
pub(crate) fn emit(commit: &Commit, store: &StoreClient) {
    for left in commit.queue_left.iter().filter(|left| is_sampled(&left.task)) {
        emit_queue(left);
    }
    for ended in commit.attempts_ended.iter().filter(|ended| is_sampled(&ended.task)) {
        emit_attempt(ended);
    }
    for change in &commit.tasks {
        let task = &change.task;
        if task.state.is_final() && change.before != Some(task.state) && is_sampled(task) {
            emit_task(store, task);
        }
    }
    if traces::is_enabled() {
        commit.steps.iter().for_each(|step| emit_wait(commit, step));
        let ended = commit.workflows.iter().filter(|one| commit.workflows_ended.contains(&one.key));
        ended.filter(|one| one.trace.sampled).for_each(|one| emit_workflow(store, one));
    }
}

/// Returns a span with the attributes that all spans of a workflow share.
fn of_workflow(workflow: &Workflow, name: &'static str, began: Timestamp, ended: Timestamp) -> Finished {
    let attributes = vec![
        ("rota.workflow.id", workflow.id.to_string().into()),
        ("rota.namespace", workflow.namespace.to_string().into()),
    ];
    Finished {
        name: name.into(),
        trace_id: workflow.trace.trace_id,
        began: began.0,
        ended: ended.0,
        attributes,
        ..Finished::default()
    }
}

/// Emits the span of a workflow that has ended, with a link to that of which it is a rerun.
fn emit_workflow(store: &StoreClient, workflow: &Workflow) {
    let ended = workflow.ended_at.unwrap_or(workflow.created_at);
    let mut span = of_workflow(workflow, "workflow", workflow.created_at, ended);
    (span.span_id, span.parent_id) = (workflow.trace.span_id, workflow.trace.parent_id);
    span.attributes.push(("rota.workflow.state", workflow.state.name().to_ascii_lowercase().into()));
    span.error = workflow.outcome.map(|_| workflow.state.name().to_ascii_lowercase());
    let Some(earlier) = workflow.rerun_of else { return traces::emit(span) };
    let (store, id) = (store.clone(), (workflow.namespace.clone(), earlier));
    spawn("span-links", OnExit::Done, async move {
        // One that was removed costs its link and no more.
        let rows = store.reads().workflows(WorkflowQuery::Id(id)).await.unwrap_or_default();
        span.links.extend(rows.workflows.iter().map(|earlier| context(&earlier.trace)));
        traces::emit(span);
    });
}

fn context(trace: &Trace) -> trace::TraceContext {
    trace::TraceContext { trace_id: trace.trace_id, span_id: trace.span_id, sampled: trace.sampled }
}

/// Returns the newest tasks of the steps that the step of a task needs.
async fn needed_by(store: &StoreClient, place: &StepRef) -> Vec<TaskId> {
    let (workflow, from) = (place.workflow, place.step);
    let query = WorkflowQuery::StepSpecs { workflow, from, limit: 1 };
    let specs = store.reads().workflows(query).await.unwrap_or_default().bodies;
    let stored = specs.into_iter().next().and_then(|(_, body)| StoredStep::decode(body).ok());
    let mut needs = stored.unwrap_or_default().needs;
    needs.truncate(MAX_LINKS);
    let steps =
        store.reads().workflows(WorkflowQuery::StepsAt(workflow, needs)).await.unwrap_or_default().steps;
    steps.into_iter().filter_map(|step| step.last_task).collect()
}

/// Emits the span of a step without tasks that has ended. The workflow changes with it.
fn emit_wait(commit: &Commit, step: &Step) {
    let name = match step.kind {
        Kind::Approval { .. } => "approval",
        Kind::Sleep { .. } | Kind::Signal { .. } => "wait",
        _ => return,
    };
    let workflow = commit.workflows.iter().find(|one| one.key == step.workflow && one.trace.sampled);
    let (Some(workflow), Some(began), Some(ended)) = (workflow, step.ready_at, step.ended_at) else { return };
    let mut span = of_workflow(workflow, name, began, ended);
    (span.span_id, span.parent_id) = (traces::span_id(), workflow.trace.span_id);
    span.attributes.extend([
        ("rota.step", step.name.clone().into()),
        ("rota.step.state", step.state.name().to_ascii_lowercase().into()),
    ]);
    traces::emit(span);
}

/// Returns a span with the attributes that all spans of a task share.
fn of(task: &Task, name: &'static str, began: Timestamp, ended: Timestamp) -> Finished {
    let mut attributes: Vec<(&'static str, Value)> = vec![
        ("rota.task.id", task.id.to_string().into()),
        ("rota.namespace", task.namespace.to_string().into()),
    ];
    if let Some(agent) = task.agent() {
        attributes.push(("rota.agent", agent.to_string().into()));
    }
    if let Some(place) = &task.step {
        attributes.push(("rota.workflow.id", place.id.to_string().into()));
        attributes.push(("rota.step", place.name.clone().into()));
    }
    Finished {
        name: name.into(),
        trace_id: task.trace.trace_id,
        began: began.0,
        ended: ended.0,
        attributes,
        ..Finished::default()
    }
}

fn emit_queue(left: &QueueLeft) {
    let task = &left.task;
    let mut span = of(task, "queue", left.wait.since, left.wait.until);
    (span.span_id, span.parent_id) = (traces::span_id(), task.trace.span_id);
    traces::emit(span);
}

fn emit_attempt(ended: &AttemptEnded) {
    let (task, attempt) = (&ended.task, &ended.attempt);
    // One that no worker started was no attempt.
    let Some(started) = attempt.started_at else { return };
    let assignment = &attempt.assignment;
    let mut span = of(task, "attempt", started, attempt.at);
    (span.span_id, span.parent_id) = (assignment.span_id, task.trace.span_id);
    span.attributes.extend([
        ("rota.attempt", i64::from(assignment.attempt).into()),
        ("rota.worker", assignment.worker.to_string().into()),
        ("rota.outcome", metrics::outcome(attempt.outcome).to_owned().into()),
    ]);
    let usage = &assignment.usage;
    if usage.input_tokens > 0 || usage.output_tokens > 0 {
        span.attributes.push(("gen_ai.usage.input_tokens", usage.input_tokens.into()));
        span.attributes.push(("gen_ai.usage.output_tokens", usage.output_tokens.into()));
    }
    if !usage.model.is_empty() {
        span.attributes.push(("gen_ai.request.model", usage.model.clone().into()));
    }
    span.error = attempt.failure.as_ref().map(|failure| class(failure.class));
    traces::emit(span);
}

/// Emits the span of a task that has ended, with links to the tasks that it waited for, or that the steps have run which its step needs.
fn emit_task(store: &StoreClient, task: &Task) {
    let ended = task.ended_at.unwrap_or(task.created_at);
    let mut span = of(task, "task", task.created_at, ended);
    (span.span_id, span.parent_id) = (task.trace.span_id, task.trace.parent_id);
    span.attributes.extend([
        ("rota.task.state", task.state.name().to_ascii_lowercase().into()),
        ("rota.task.attempts", i64::from(task.attempts).into()),
    ]);
    span.error = task.failure.as_ref().map(|failure| class(failure.class));
    let mut ids: Vec<_> = task.dependencies.iter().filter_map(Dependency::id).collect();
    let place = task.step.clone().filter(|place| place.follows && place.round != COMPENSATION);
    if ids.is_empty() && place.is_none() {
        return traces::emit(span);
    }
    let (store, namespace) = (store.clone(), task.namespace.clone());
    spawn("span-links", OnExit::Done, async move {
        if let Some(place) = place {
            ids = needed_by(&store, &place).await;
        }
        for id in ids {
            // A pruned task, or a store that is closing, costs its link and no more.
            if let Ok(Some(other)) = store.record(&namespace, id).await {
                span.links.push(context(&other.trace));
            }
        }
        traces::emit(span);
    });
}

/// Returns only the class: a failure's message may quote the task's output.
fn class(class: Class) -> String {
    crate::wire::failure::class_name(class)
}
