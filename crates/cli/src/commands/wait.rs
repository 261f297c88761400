//! `rota wait`: waits until tasks reach a state.

use clap::{Args, ValueEnum};
use futures::StreamExt;
use rota_crds::HumanDuration;
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

/// Wait until tasks have finished, and exit with the code of the worst outcome
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Wait {
    /// Ids or names of the tasks
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// Condition to wait for
    #[arg(long = "for", value_name = "CONDITION", value_enum, default_value_t)]
    pub goal: Goal,
    /// Maximum time to wait, such as 10m [default: unlimited]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub timeout: Option<HumanDuration>,
}

/// Condition to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Goal {
    /// All tasks have finished
    #[default]
    Done,
    /// All tasks have succeeded; stops at the first that did not
    Succeeded,
    /// All tasks have started
    Running,
}

/// Progress of a task toward the goal.
#[derive(Debug, PartialEq, Eq)]
enum GoalState {
    NotYet,
    Reached,
    /// Out of reach.
    Unreachable,
}

impl Goal {
    fn state_for(self, task: &Task) -> GoalState {
        let state = state_of(task);
        match self {
            Self::Done if state.is_final() => GoalState::Reached,
            Self::Succeeded if state == TaskState::Succeeded => GoalState::Reached,
            Self::Succeeded if state.is_final() => GoalState::Unreachable,
            Self::Running if state == TaskState::Succeeded => GoalState::Reached,
            Self::Running if matches!(state, TaskState::Running | TaskState::InputRequired) => {
                GoalState::Reached
            }
            Self::Running if state.is_final() => GoalState::Unreachable,
            _ => GoalState::NotYet,
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
                    tasks.iter().filter(|task| self.goal.state_for(task) == GoalState::NotYet).map(name).collect();
                let after = self.timeout.unwrap_or_default();
                return Err(Failure::new(Exit::Timeout, format!("timed out after {after} waiting for {}", missing.join(", ")))
                    .hint(format!("find the reason with `rota explain {}`", missing.first().unwrap_or(&"")))
                    .into());
            }
            () = interrupt.received() => {
                context.reporter.line(&format!("\nThe tasks continue. Wait again: rota wait {}", self.tasks.join(" ")));
                return Ok(Exit::Interrupted);
            }
        }
        if context.out.is_human() {
            context.out.table(&results(&tasks))?;
            let traces = tasks.iter().filter_map(|task| Some(task.status.as_ref()?.trace_id.as_str()));
            context.reporter.line(&format!("trace {}", traces.collect::<Vec<_>>().join(" ")));
        } else {
            context.out.list("tasks", &tasks)?;
        }
        // With `--for running` the outcome does not matter.
        Ok(worst(tasks.iter().map(|task| match (self.goal, self.goal.state_for(task)) {
            (Goal::Running, GoalState::Reached) => Exit::Ok,
            _ => outcome(task),
        })))
    }
}

async fn until(context: &Context, goal: Goal, tasks: &mut [Task]) -> anyhow::Result<()> {
    let mut updates = track(context, tasks);
    let mut waiting = Waiting::new();
    loop {
        let stands: Vec<_> = tasks.iter().map(|task| goal.state_for(task)).collect();
        let lost = goal == Goal::Succeeded && stands.contains(&GoalState::Unreachable);
        if lost || !stands.contains(&GoalState::NotYet) {
            return Ok(());
        }
        let held = waiting::pending(tasks);
        tokio::select! {
            update = updates.next() => {
                let Some(update) = update else { return Ok(()) };
                let (index, task) = update?;
                tasks[index] = task;
                waiting.task_changed();
            }
            () = waiting.due(), if !held.is_empty() => waiting.report(context, &held).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::TaskStatus;

    use super::*;

    #[test]
    fn goals_are_reached_or_unreachable() {
        let task = |state: TaskState| Task {
            status: Some(Box::new(TaskStatus { state: state.into(), ..Default::default() })),
            ..Default::default()
        };
        use TaskState::{Cancelled, Failed, Queued, Running, Succeeded};
        for (goal, state, stand) in [
            (Goal::Done, Running, GoalState::NotYet),
            (Goal::Done, Failed, GoalState::Reached),
            (Goal::Succeeded, Failed, GoalState::Unreachable),
            (Goal::Succeeded, Succeeded, GoalState::Reached),
            (Goal::Running, Queued, GoalState::NotYet),
            (Goal::Running, Running, GoalState::Reached),
            (Goal::Running, Cancelled, GoalState::Unreachable),
        ] {
            assert_eq!(goal.state_for(&task(state)), stand, "{goal:?} {state:?}");
        }
    }
}
