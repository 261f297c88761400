//! The end of a task, as commands that wait for it print it: result, failure, and what it took.

use std::io::IsTerminal;

use rota_proto::v1::{Task, TaskState};

use super::follow::View;
use super::state_of;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{money, name, ran};

/// Returns the exit code for a finished task.
pub fn outcome(task: &Task) -> Exit {
    match state_of(task) {
        TaskState::Failed => Exit::Failed,
        TaskState::Cancelled => Exit::Cancelled,
        _ => Exit::Ok,
    }
}

/// Prints the result of a finished task, its failure, and its cost, time and agents.
pub async fn print_outcome(context: &Context, task: &Task, view: &View) -> anyhow::Result<()> {
    if !context.out.is_human() {
        return context.out.value(task);
    }
    let status = task.status.clone().unwrap_or_default();
    let result = status.result.clone().unwrap_or_default();
    // If both streams are the same terminal, the agent's last message has just shown the result.
    let seen = std::io::stdout().is_terminal()
        && context.reporter.is_terminal()
        && view.printer.has_shown(&result.text);
    if !result.text.is_empty() && !seen {
        context.out.text(&result.text)?;
    } else if result.text.is_empty()
        && let Some(data) = &result.data
    {
        context.out.value(data)?;
    }
    print_failure(context, task);
    let mut parts = Vec::new();
    let cost = status.usage.as_ref().map_or(0, |usage| usage.cost_micro_usd);
    if cost > 0 {
        parts.push(format!("cost {}", money(cost)));
    }
    if status.start_time.is_some() {
        parts.push(format!("time {}", ran(&status)));
    }
    let agents = context.client.agents_used(task, &view.workers).await;
    if !agents.is_empty() {
        let noun = if agents.len() == 1 { "agent" } else { "agents" };
        parts.push(format!("{noun} {}", agents.into_iter().collect::<Vec<_>>().join(" and ")));
    }
    parts.push(format!("trace {}", status.trace_id));
    context.reporter.line(&parts.join(", "));
    Ok(())
}

/// Reports the failure or cancellation of a task.
pub fn print_failure(context: &Context, task: &Task) {
    match state_of(task) {
        TaskState::Failed => {
            let failure = task.status.as_ref().and_then(|status| status.failure.clone()).unwrap_or_default();
            context.reporter.error(&format!("task {} failed: {}", name(task), failure.message));
            if !failure.hint.is_empty() {
                context.reporter.hint(&failure.hint);
            }
        }
        TaskState::Cancelled => context.reporter.error(&format!("task {} was cancelled", name(task))),
        _ => {}
    }
}
