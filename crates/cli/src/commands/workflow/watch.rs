//! `rota workflow watch`: changes of steps until the end.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt;
use rota_proto::{names, v1};

use super::show;
use crate::commands::signals::Interrupt;
use crate::context::Context;
use crate::exit::Exit;

/// Follows a workflow until its end, and returns it as it ended. `None` means that Ctrl-C came first, which has been reported.
pub(super) async fn to_end_or_interrupt(
    context: &Context,
    name: &str,
    show: impl AsyncFnMut(&v1::WatchWorkflowResponse) -> anyhow::Result<()>,
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
    mut show: impl AsyncFnMut(&v1::WatchWorkflowResponse) -> anyhow::Result<()>,
) -> anyhow::Result<v1::Workflow> {
    let mut messages = context.client.follow_workflow(name);
    let mut workflow = v1::Workflow::default();
    while let Some(message) = messages.try_next().await? {
        show(&message).await?;
        workflow = message.workflow.unwrap_or(workflow);
    }
    Ok(workflow)
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

/// Returns the steps below a workflow that wait for a person, the newest first, if steps of a message may have some. None without an answer.
async fn nested_approvals(
    context: &Context,
    name: &str,
    message: &v1::WatchWorkflowResponse,
) -> Vec<v1::PendingApproval> {
    let nests = |step: &v1::StepStatus| {
        step.kind() == v1::StepKind::Workflow && step.state() == v1::StepState::Running
    };
    let Some((parent, workflow)) =
        name.rsplit_once("/workflows/").filter(|_| message.steps.iter().any(nests))
    else {
        return Vec::new();
    };
    let request = v1::ListApprovalsRequest {
        parent: parent.to_owned(),
        workflow: workflow.to_owned(),
        include_nested: true,
        ..v1::ListApprovalsRequest::default()
    };
    let listed = Box::pin(context.client.list_approvals(request)).await;
    let is_nested = |asks: &v1::PendingApproval| {
        asks.workflow.as_ref().map(|of| &of.uid) != message.workflow.as_ref().map(|of| &of.uid)
    };
    listed.unwrap_or_default().approvals.into_iter().filter(is_nested).collect()
}

fn decide(workflow: &str, step: &str) -> String {
    format!("{:24} decide: rota workflow approve {workflow} --step {step}, or reject", "")
}

/// Steps as they were last shown.
#[derive(Debug, Default)]
pub(super) struct Seen {
    steps: HashMap<i32, [i32; 4]>,
    /// Questions of workflows that are steps: workflow, index and round.
    asked: HashSet<(String, i32, i32)>,
}

impl Seen {
    /// Returns the lines of what a message shows to have changed, with the questions of workflows that are steps.
    pub(super) async fn changes(
        &mut self,
        context: &Context,
        name: &str,
        message: &v1::WatchWorkflowResponse,
        colored: bool,
    ) -> Vec<String> {
        let mut lines = self.lines(name, message, colored);
        lines.extend(self.questions(nested_approvals(context, name, message).await, colored));
        lines
    }

    /// Returns the lines of those steps of other workflows that were not shown yet, of which the newest is given first.
    fn questions(&mut self, approvals: Vec<v1::PendingApproval>, colored: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for v1::PendingApproval { workflow, step } in approvals.into_iter().rev() {
            let (Some(workflow), Some(step)) = (workflow, step) else { continue };
            if self.asked.insert((workflow.uid.clone(), step.index, step.round)) {
                let answer = decide(&workflow.uid, &step.name);
                let name = format!("{}/{}", workflow.parent_step, step.name);
                lines.extend([show::step_line(&v1::StepStatus { name, ..step }, colored), answer]);
            }
        }
        lines
    }

    /// Returns the lines of the steps of a workflow that have changed.
    fn lines(&mut self, name: &str, message: &v1::WatchWorkflowResponse, colored: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for step in &message.steps {
            let ended = step.tasks_succeeded + step.tasks_failed;
            let now = [step.state, step.round, ended, step.compensation];
            if self.steps.insert(step.index, now) != Some(now) && step.state() != v1::StepState::Waiting {
                lines.push(show::step_line(step, colored));
                if step.kind() == v1::StepKind::Approval && step.state() == v1::StepState::Running {
                    lines.push(decide(names::last(name), &step.name));
                }
            }
        }
        lines
    }
}

/// Prints the steps of a workflow as they change. The exit code depends on its outcome.
pub(in crate::commands) async fn follow(context: &Context, name: &str) -> anyhow::Result<Exit> {
    let (out, mut seen) = (&context.out, Seen::default());
    let print = async |message: &v1::WatchWorkflowResponse| {
        if !out.is_human() {
            return out.value(message);
        }
        let lines = seen.changes(context, name, message, out.colored()).await;
        lines.iter().try_for_each(|line| out.line(line))?;
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

    #[test]
    fn questions_of_nested_workflows_come_once() {
        let asks = |step: &str, index| {
            let workflow = v1::Workflow {
                uid: "inner".to_owned(),
                parent_step: "call".to_owned(),
                ..Default::default()
            };
            let step = v1::StepStatus {
                name: step.to_owned(),
                index,
                state: v1::StepState::Running.into(),
                prompt: "Go?".to_owned(),
                ..Default::default()
            };
            v1::PendingApproval { workflow: Some(workflow), step: Some(step) }
        };
        let mut seen = Seen::default();
        let lines = seen.questions(vec![asks("second", 1), asks("first", 0)], false);
        assert!(lines[0].starts_with("call/first ") && lines[0].ends_with("Go?"), "{lines:?}");
        assert!(
            lines[1].ends_with("decide: rota workflow approve inner --step first, or reject"),
            "{lines:?}"
        );
        assert!(lines[2].starts_with("call/second "), "{lines:?}");
        assert!(seen.questions(vec![asks("second", 1)], false).is_empty());
    }
}
