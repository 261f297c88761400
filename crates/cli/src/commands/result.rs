//! `rota result`: prints the result of a task, and nothing else.

use clap::Args;
use rota_proto::v1::{GetTaskRequest, ListTasksRequest, TaskFilter};

use super::outcome::print_failure;
use super::{id_of, outcome, state_of, worst};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{name, state};

const EXAMPLES: &str = "\
Examples:
  rota result build
  rota wait build && rota result build -o json
  rota result release --children";

/// Children whose results are gathered.
const MAX_CHILDREN: usize = 1000;

/// Print the result of a finished task, and exit with the code of its outcome
///
/// Prints the text, or the data of a result without text; with `-o json` the whole result.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Result {
    /// Id or name of the task
    pub task: String,
    /// Print the results of the tasks that name it as their parent, the oldest first, at most 1000
    #[arg(long)]
    pub children: bool,
}

impl Result {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        if self.children {
            return self.children(context).await;
        }
        let task = context.client.get_task(GetTaskRequest { name: context.task(&self.task)? }).await?;
        let now = state_of(&task);
        if !now.is_final() {
            let message = format!("the task {} is {} and has no result yet", name(&task), state(now));
            let hint = format!("wait for the task with `rota wait {}`", name(&task));
            return Err(Failure::new(Exit::Failed, message).hint(hint).into());
        }
        let result = task.status.as_ref().and_then(|status| status.result.clone()).unwrap_or_default();
        if !context.out.is_human() {
            context.out.value(&result)?;
        } else if !result.text.is_empty() {
            context.out.text(&result.text)?;
        } else if let Some(data) = &result.data {
            context.out.value(data)?;
        }
        print_failure(context, &task);
        Ok(outcome(&task))
    }

    /// Prints the results of its children, and exits with the code of the worst outcome.
    async fn children(self, context: &Context) -> anyhow::Result<Exit> {
        let filter = TaskFilter { parent_task: id_of(context, &self.task).await?, ..TaskFilter::default() };
        let request = ListTasksRequest {
            parent: context.parent(false),
            filter: Some(filter),
            ..ListTasksRequest::default()
        };
        let mut children = context.client.all_tasks(request, Some(MAX_CHILDREN + 1)).await?;
        if children.len() > MAX_CHILDREN {
            return Err(Failure::new(
                Exit::Failed,
                format!("{} has more than {MAX_CHILDREN} children", self.task),
            )
            .into());
        }
        children.reverse();
        let (mut exits, mut gathered) = (Vec::new(), Vec::new());
        for child in children {
            // Lists have no results.
            let child = context.client.get_task(GetTaskRequest { name: child.name }).await?;
            let now = state_of(&child);
            exits.push(if now.is_final() { outcome(&child) } else { Exit::Failed });
            if !context.out.is_human() {
                gathered.push(child);
                continue;
            }
            context.out.line(&format!("== {} {}", name(&child), state(now)))?;
            let result = child.status.as_ref().and_then(|status| status.result.clone()).unwrap_or_default();
            match &result.data {
                _ if !result.text.is_empty() => context.out.text(&result.text)?,
                Some(data) => context.out.value(data)?,
                None => {}
            }
            print_failure(context, &child);
        }
        if !context.out.is_human() {
            context.out.list("tasks", &gathered)?;
        } else if exits.is_empty() {
            context.reporter.line("no children");
        }
        Ok(worst(exits))
    }
}
