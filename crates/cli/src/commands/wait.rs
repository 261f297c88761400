//! `rota wait`: until tasks are as one wants them.

use clap::{Args, ValueEnum};
use futures::StreamExt;
use rota_client::watch::is_final;
use rota_crds::Span;
use rota_proto::v1::{GetTaskRequest, Task, TaskState};

use super::signals::Interrupt;
use super::track::track;
use super::waiting::{self, Waiting};
use super::{outcome, state_of, worst};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{name, results};

const EXAMPLES: &str = "\
Examples:
  rota wait build
  rota wait build test --timeout 30m
  rota wait build --for running";

/// Wait until tasks have ended, and exit by how they did
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Wait {
    /// Ids or names
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// For what
    #[arg(long = "for", value_name = "WHAT", value_enum, default_value_t)]
    pub goal: Goal,
    /// Longest wait, for example 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub timeout: Option<Span>,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// Each has ended
    #[default]
    Done,
    /// Each has succeeded; stops at the first that did not
    Succeeded,
    /// Each has begun
    Running,
}

/// How a task stands to the goal.
#[derive(Debug, PartialEq, Eq)]
enum Stand {
    NotYet,
    Reached,
    /// It never will.
    Lost,
}

impl Goal {
    fn stand(self, task: &Task) -> Stand {
        let state = state_of(task);
        match self {
            Self::Done if is_final(state) => Stand::Reached,
            Self::Succeeded if state == TaskState::Succeeded => Stand::Reached,
            Self::Succeeded if is_final(state) => Stand::Lost,
            Self::Running if state == TaskState::Succeeded => Stand::Reached,
            Self::Running if matches!(state, TaskState::Running | TaskState::InputRequired) => Stand::Reached,
            Self::Running if is_final(state) => Stand::Lost,
            _ => Stand::NotYet,
        }
    }
}

impl Wait {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut tasks = Vec::with_capacity(self.tasks.len());
        for given in &self.tasks {
            tasks.push(context.client.get_task(GetTaskRequest { name: context.task(given)? }).await?);
        }
        let limit = async {
            match self.timeout {
                Some(span) => tokio::time::sleep(span.0).await,
                None => std::future::pending().await,
            }
        };
        let mut interrupt = Interrupt::listen()?;
        tokio::select! {
            reached = until(context, self.goal, &mut tasks) => reached?,
            () = limit => {
                let missing: Vec<_> =
                    tasks.iter().filter(|task| self.goal.stand(task) == Stand::NotYet).map(name).collect();
                let after = self.timeout.unwrap_or_default();
                return Err(Failure::new(Exit::Timeout, format!("after {after} still waiting for {}", missing.join(", ")))
                    .hint(format!("see why with `rota explain {}`", missing.first().unwrap_or(&"")))
                    .into());
            }
            () = interrupt.heard() => {
                context.talk.say(&format!("\nThe tasks go on. Wait again: rota wait {}", self.tasks.join(" ")));
                return Ok(Exit::Interrupted);
            }
        }
        if context.out.for_eyes() {
            context.out.table(&results(&tasks))?;
            let traces = tasks.iter().filter_map(|task| Some(task.status.as_ref()?.trace_id.as_str()));
            context.talk.say(&format!("trace {}", traces.collect::<Vec<_>>().join(" ")));
        } else {
            context.out.list("tasks", &tasks)?;
        }
        // Whoever waits for the beginning does not care about the end.
        Ok(worst(tasks.iter().map(|task| match (self.goal, self.goal.stand(task)) {
            (Goal::Running, Stand::Reached) => Exit::Ok,
            _ => outcome(task),
        })))
    }
}

async fn until(context: &Context, goal: Goal, tasks: &mut [Task]) -> anyhow::Result<()> {
    let mut updates = track(context, tasks);
    let mut waiting = Waiting::new();
    loop {
        let stands: Vec<_> = tasks.iter().map(|task| goal.stand(task)).collect();
        let lost = goal == Goal::Succeeded && stands.contains(&Stand::Lost);
        if lost || !stands.contains(&Stand::NotYet) {
            return Ok(());
        }
        let held = waiting::waiting(tasks);
        tokio::select! {
            update = updates.next() => {
                let Some(update) = update else { return Ok(()) };
                let (index, task) = update?;
                tasks[index] = task;
                waiting.moved();
            }
            () = waiting.due(), if !held.is_empty() => waiting.look(context, &held).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::TaskStatus;

    use super::*;

    #[test]
    fn goals() {
        let task = |state: TaskState| Task {
            status: Some(TaskStatus { state: state.into(), ..Default::default() }),
            ..Default::default()
        };
        use TaskState::{Cancelled, Failed, Queued, Running, Succeeded};
        for (goal, state, stand) in [
            (Goal::Done, Running, Stand::NotYet),
            (Goal::Done, Failed, Stand::Reached),
            (Goal::Succeeded, Failed, Stand::Lost),
            (Goal::Succeeded, Succeeded, Stand::Reached),
            (Goal::Running, Queued, Stand::NotYet),
            (Goal::Running, Running, Stand::Reached),
            (Goal::Running, Cancelled, Stand::Lost),
        ] {
            assert_eq!(goal.stand(&task(state)), stand, "{goal:?} {state:?}");
        }
    }
}
