//! Tasks that a command creates: one, or one on each of several agents. Prints their progress and results.

use anyhow::Context as _;
use rota_proto::v1::target::Kind;
use rota_proto::v1::{CreateTaskRequest, Target, Task};

use super::follow::{Destination, View, to_end};
use super::outcome::{outcome, print_outcome};
use crate::context::Context;
use crate::exit::Exit;

/// Creates a task, and prints its progress and its result unless `detach`. Returns the task, unless it was only created, and how
/// the command ends.
pub async fn create_and_follow(
    context: &Context,
    request: CreateTaskRequest,
    detach: bool,
    quiet: bool,
) -> anyhow::Result<(Option<Task>, Exit)> {
    let task = context.client.create_task(request).await.context("failed to create the task")?;
    if detach {
        if context.out.is_human() {
            context.out.line(&task.uid)?;
        } else {
            context.out.value(&task)?;
        }
        return Ok((None, Exit::Ok));
    }
    follow(context, task, quiet).await
}

/// Prints the progress of a task, and its result. Returns the task, and how the command ends.
async fn follow(context: &Context, task: Task, quiet: bool) -> anyhow::Result<(Option<Task>, Exit)> {
    context.reporter.line(&format!("task {}", task.uid));
    let to = if quiet { Destination::None } else { Destination::Stderr };
    let mut view = View::new(context, to, false);
    let Some(ended) = to_end(context, &task.name, 0, &mut view).await? else {
        return Ok((Some(task), Exit::Interrupted));
    };
    Box::pin(print_outcome(context, &ended, &view)).await?;
    let exit = outcome(&ended);
    Ok((Some(ended), exit))
}

/// Creates a task on each agent, and prints progress and results in the order of the agents unless `detach`. The first task that does not
/// succeed decides how the command ends.
pub(super) async fn on_each(
    context: &Context,
    request: &CreateTaskRequest,
    agents: &[String],
    detach: bool,
    quiet: bool,
) -> anyhow::Result<Exit> {
    let mut tasks = Vec::new();
    for agent in agents {
        let mut request = request.clone();
        if !request.idempotency_key.is_empty() {
            request.idempotency_key = format!("{}/{agent}", request.idempotency_key);
        }
        if let Some(spec) = request.task.as_mut().and_then(|task| task.spec.as_mut()) {
            spec.target = Some(Target { kind: Some(Kind::Agent(agent.clone())) });
        }
        let created = Box::pin(context.client.create_task(request)).await;
        tasks.push(created.with_context(|| format!("failed to create the task of agent {agent}"))?);
    }
    if detach {
        for task in &tasks {
            if context.out.is_human() {
                context.out.line(&task.uid)?;
            } else {
                context.out.value(task)?;
            }
        }
        return Ok(Exit::Ok);
    }
    let mut exit = Exit::Ok;
    for (task, agent) in tasks.into_iter().zip(agents) {
        context.reporter.line(&format!("agent {agent}"));
        let (_, ended) = Box::pin(follow(context, task, quiet)).await?;
        if ended == Exit::Interrupted {
            return Ok(ended);
        }
        if exit == Exit::Ok {
            exit = ended;
        }
    }
    Ok(exit)
}
