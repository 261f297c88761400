//! `rota workflow watch`: changes of steps until the end.

use std::collections::HashMap;

use rota_client::Code;
use rota_proto::{names, v1};

use super::show;
use crate::commands::signals::Interrupt;
use crate::context::Context;
use crate::exit::Exit;

/// Follows a workflow until its end, and returns it as it ended. `None` means that Ctrl-C came first, which has been reported.
pub(super) async fn to_end_or_interrupt(
    context: &Context,
    name: &str,
    show: impl FnMut(&v1::WatchWorkflowResponse) -> anyhow::Result<()>,
) -> anyhow::Result<Option<v1::Workflow>> {
    let mut interrupt = Interrupt::listen()?;
    tokio::select! {
        ended = to_end(context, name, show) => ended.map(Some),
        () = interrupt.received() => Ok(continues(context, name)),
    }
}

/// Follows a workflow until its end, and returns it as it ended.
pub(in crate::commands) async fn to_end(
    context: &Context,
    name: &str,
    mut show: impl FnMut(&v1::WatchWorkflowResponse) -> anyhow::Result<()>,
) -> anyhow::Result<v1::Workflow> {
    loop {
        let request = v1::WatchWorkflowRequest { name: name.to_owned(), ..Default::default() };
        let mut stream = Box::pin(context.client.watch_workflow(request)).await?;
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    show(&message)?;
                    // The last message has no steps.
                    if message.steps.is_empty()
                        && let Some(workflow) = message.workflow.filter(|workflow| exit(workflow).is_some())
                    {
                        return Ok(workflow);
                    }
                }
                // A control plane that restarts begins with all steps, of which only changes are printed.
                Ok(None) => break,
                Err(status) if status.code() == Code::Unavailable => break,
                Err(status) => return Err(context.client.error(status).into()),
            }
        }
    }
}

fn continues(context: &Context, name: &str) -> Option<v1::Workflow> {
    let workflow = names::last(name);
    context
        .reporter
        .line(&format!("\nThe workflow continues. Follow it again: rota workflow watch {workflow}"));
    context
        .reporter
        .line(&format!("Cancel it:                               rota workflow cancel {workflow}"));
    None
}

/// Returns the exit code for a workflow that has ended.
pub(in crate::commands) fn exit(workflow: &v1::Workflow) -> Option<Exit> {
    match workflow.status.as_ref().map_or(v1::WorkflowState::Unspecified, v1::WorkflowStatus::state) {
        v1::WorkflowState::Succeeded => Some(Exit::Ok),
        v1::WorkflowState::Failed | v1::WorkflowState::CompensationFailed => Some(Exit::Failed),
        v1::WorkflowState::Cancelled => Some(Exit::Cancelled),
        _ => None,
    }
}

/// Steps as they were last shown.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<i32, [i32; 4]>);

impl Seen {
    /// Returns the lines of the steps of a workflow that have changed.
    pub(super) fn lines(
        &mut self,
        name: &str,
        message: &v1::WatchWorkflowResponse,
        colored: bool,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for step in &message.steps {
            let ended = step.tasks_succeeded + step.tasks_failed;
            let now = [step.state, step.round, ended, step.compensation];
            if self.0.insert(step.index, now) != Some(now) && step.state() != v1::StepState::Waiting {
                lines.push(show::step_line(step, colored));
                if step.kind() == v1::StepKind::Approval && step.state() == v1::StepState::Running {
                    let (workflow, step) = (names::last(name), &step.name);
                    lines.push(format!(
                        "{:24} decide: rota workflow approve {workflow} --step {step}, or reject",
                        ""
                    ));
                }
            }
        }
        lines
    }
}

/// Prints the steps of a workflow as they change. The exit code depends on its outcome.
pub(in crate::commands) async fn follow(context: &Context, name: &str) -> anyhow::Result<Exit> {
    let (out, mut seen) = (&context.out, Seen::default());
    let print = |message: &v1::WatchWorkflowResponse| {
        if !out.is_human() {
            return out.value(message);
        }
        seen.lines(name, message, out.colored()).iter().try_for_each(|line| out.line(line))?;
        Ok(())
    };
    let Some(ended) = to_end_or_interrupt(context, name, print).await? else { return Ok(Exit::Interrupted) };
    if out.is_human() {
        let status = ended.status.clone().unwrap_or_default();
        let (state, paint) = show::state(&status);
        let state = paint.around(&state, out.colored());
        out.line(&format!("workflow {state}{}", reason(&status)))?;
        let workflow = names::last(name);
        match status.state() {
            v1::WorkflowState::Failed => context.reporter.hint(&format!(
                "see `rota workflow explain {workflow}`; `rota workflow rerun {workflow} --failed` keeps what has succeeded"
            )),
            v1::WorkflowState::CompensationFailed => {
                context.reporter.hint(&format!("see `rota workflow explain {workflow}` and `rota workflow resolve`"));
            }
            _ => {}
        }
    }
    Ok(exit(&ended).unwrap_or(Exit::Failed))
}

pub(super) fn reason(status: &v1::WorkflowStatus) -> String {
    if status.message.is_empty() {
        String::new()
    } else {
        format!(": {}", crate::output::clean(&status.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_comes_once_with_its_answer() {
        let step = v1::StepStatus {
            name: "ask".to_owned(),
            state: v1::StepState::Running.into(),
            kind: v1::StepKind::Approval.into(),
            prompt: "Go?".to_owned(),
            ..Default::default()
        };
        let message = v1::WatchWorkflowResponse { workflow: None, steps: vec![step] };
        let mut seen = Seen::default();
        let lines = seen.lines("namespaces/default/workflows/deploy", &message, false);
        assert!(lines[0].contains("RUNNING") && lines[0].ends_with("Go?"), "{lines:?}");
        assert!(
            lines[1].ends_with("decide: rota workflow approve deploy --step ask, or reject"),
            "{lines:?}"
        );
        assert!(seen.lines("namespaces/default/workflows/deploy", &message, false).is_empty());
    }
}
