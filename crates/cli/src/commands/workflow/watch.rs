//! `rota workflow watch`: changes of steps until the end.

use std::collections::HashMap;

use rota_client::Code;
use rota_proto::v1;

use super::show;
use crate::context::Context;
use crate::exit::Exit;

/// Prints the steps of a workflow as they change. The exit code depends on whether it succeeded.
pub(in crate::commands) async fn follow(context: &Context, name: &str) -> anyhow::Result<Exit> {
    let mut seen: HashMap<i32, (i32, i32, i32)> = HashMap::new();
    loop {
        let request = v1::WatchWorkflowRequest { name: name.to_owned(), ..Default::default() };
        let mut stream = Box::pin(context.client.watch_workflow(request)).await?;
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if let Some(exit) = print(context, &message, &mut seen)? {
                        return Ok(exit);
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

fn print(
    context: &Context,
    message: &v1::WatchWorkflowResponse,
    seen: &mut HashMap<i32, (i32, i32, i32)>,
) -> anyhow::Result<Option<Exit>> {
    let workflow = message.workflow.clone().unwrap_or_default();
    let status = workflow.status.unwrap_or_default();
    if !context.out.is_human() {
        context.out.value(message)?;
    } else {
        for step in &message.steps {
            let now = (step.state, step.round, step.tasks_succeeded + step.tasks_failed);
            let is_new = seen.insert(step.index, now) != Some(now);
            if is_new && step.state() != v1::StepState::Waiting {
                context.out.line(&show::step_line(step, context.out.colored()))?;
            }
        }
    }
    let exit = match status.state() {
        v1::WorkflowState::Succeeded => Exit::Ok,
        v1::WorkflowState::Failed | v1::WorkflowState::Cancelled | v1::WorkflowState::CompensationFailed => {
            Exit::Failed
        }
        _ => return Ok(None),
    };
    // The last message has no steps.
    if !message.steps.is_empty() {
        return Ok(None);
    }
    if context.out.is_human() {
        let (state, paint) = show::state(&status);
        let state = paint.around(&state, context.out.colored());
        context.out.line(&format!("workflow {state}{}", reason(&status)))?;
    }
    Ok(Some(exit))
}

fn reason(status: &v1::WorkflowStatus) -> String {
    if status.message.is_empty() {
        String::new()
    } else {
        format!(": {}", crate::output::clean(&status.message))
    }
}
