//! `rota explain`: explains why a task is not running.

use clap::Args;
use rota_proto::v1::{ExplainTaskRequest, TaskState};

use super::state_of;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{plain_lines, time};

/// Explain why a task is not running, and how to resolve it
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  rota explain build\n  rota explain build -o json")]
pub struct Explain {
    /// Id or name of the task
    pub task: String,
}

impl Explain {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let answer =
            context.client.explain_task(ExplainTaskRequest { name: context.task(&self.task)? }).await?;
        if !context.out.is_human() {
            context.out.value(&answer)?;
            return Ok(Exit::Ok);
        }
        context.out.line(&plain_lines(&answer.summary))?;
        for cause in &answer.causes {
            // The summary usually contains the first cause.
            if !answer.summary.contains(&cause.message) {
                context.out.line(&format!("- {}", plain_lines(&cause.message)))?;
            }
            if !cause.hint.is_empty() {
                context.out.line(&format!("  {}", plain_lines(&cause.hint)))?;
            }
        }
        let queued = answer.task.as_ref().is_some_and(|task| state_of(task) == TaskState::Queued);
        if queued && answer.ahead == 0 {
            context.out.line("- next in the queue")?;
        }
        let waits =
            answer.task.iter().filter_map(|task| task.status.as_ref()).flat_map(|status| &status.waiting);
        for until in waits.filter_map(|wait| wait.until.as_ref()) {
            context.out.line(&format!("- not before {}", time(Some(until))))?;
        }
        Ok(Exit::Ok)
    }
}
