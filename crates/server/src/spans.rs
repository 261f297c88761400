//! What tells of a task outside of it: the fields of its log lines, and the spans of its life: the task itself, each
//! wait in the queue, each attempt. These outlive workers and control planes, so that they are sent when they have
//! ended, with the ids that the record holds.

use std::sync::Arc;

use rota_core::Timestamp;
use rota_core::task::{Dependency, StateChange, Task};
use rota_telemetry::traces::{self, Finished, Value};
use rota_telemetry::{OnExit, spawn, trace};

use crate::shared::Shared;

/// What each log line about a task says, at any level.
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

/// Whether anybody will see spans of this task.
pub(crate) fn wanted(task: &Task) -> bool {
    task.trace.sampled && traces::on()
}

/// What every span of a task has.
fn of(task: &Task, name: &'static str, began: Timestamp, ended: Timestamp) -> Finished {
    let mut attributes: Vec<(&'static str, Value)> = vec![
        ("rota.task.id", task.id.to_string().into()),
        ("rota.namespace", task.namespace.to_string().into()),
    ];
    if let Some(agent) = task.agent() {
        attributes.push(("rota.agent", agent.to_string().into()));
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

/// It was ready, and had no slot.
pub(crate) fn queue(task: &Task, since: Timestamp, until: Timestamp) {
    let mut span = of(task, "queue", since, until);
    (span.span_id, span.parent_id) = (traces::span_id(), task.trace.span_id);
    traces::emit(span);
}

/// What is known of an attempt that ended.
pub(crate) struct Attempt<'a> {
    pub(crate) span_id: [u8; 8],
    pub(crate) number: u32,
    pub(crate) worker: String,
    pub(crate) outcome: &'static str,
    /// Tokens in and out that it used itself.
    pub(crate) tokens: (i64, i64),
    pub(crate) model: &'a str,
}

/// A worker had it.
pub(crate) fn attempt(
    task: &Task,
    attempt: Attempt<'_>,
    step: &StateChange,
    began: Timestamp,
    ended: Timestamp,
) {
    let mut span = of(task, "attempt", began, ended);
    (span.span_id, span.parent_id) = (attempt.span_id, task.trace.span_id);
    span.attributes.extend([
        ("rota.attempt", i64::from(attempt.number).into()),
        ("rota.worker", attempt.worker.into()),
        ("rota.outcome", attempt.outcome.to_owned().into()),
    ]);
    let (input, output) = attempt.tokens;
    if input > 0 || output > 0 {
        span.attributes.push(("gen_ai.usage.input_tokens", input.into()));
        span.attributes.push(("gen_ai.usage.output_tokens", output.into()));
    }
    if !attempt.model.is_empty() {
        span.attributes.push(("gen_ai.request.model", attempt.model.to_owned().into()));
    }
    span.error = step.failure.as_ref().map(|failure| class(failure.class));
    traces::emit(span);
}

/// It has ended. Tasks that it waited for are linked.
pub(crate) fn task(shared: &Arc<Shared>, task: &Arc<Task>) {
    let ended = task.ended_at.unwrap_or(task.created_at);
    let mut span = of(task, "task", task.created_at, ended);
    (span.span_id, span.parent_id) = (task.trace.span_id, task.trace.parent_id);
    span.attributes.extend([
        ("rota.task.state", task.state.name().to_ascii_lowercase().into()),
        ("rota.task.attempts", i64::from(task.attempts).into()),
    ]);
    span.error = task.failure.as_ref().map(|failure| class(failure.class));
    let ids: Vec<_> = task.dependencies.iter().filter_map(Dependency::id).collect();
    if ids.is_empty() {
        return traces::emit(span);
    }
    let shared = Arc::clone(shared);
    spawn("span-links", OnExit::Done, async move {
        for id in ids {
            // One that is gone, or a store that is closing, costs its link and no more.
            if let Ok(Some(other)) = shared.store.task(id).await {
                let (trace_id, span_id) = (other.trace.trace_id, other.trace.span_id);
                span.links.push(trace::Context { trace_id, span_id, sampled: other.trace.sampled });
            }
        }
        traces::emit(span);
    });
}

/// Only the class: a failure's sentence may quote what a task said.
fn class(class: rota_core::failure::Class) -> String {
    crate::wire::failure::class_name(class)
}
