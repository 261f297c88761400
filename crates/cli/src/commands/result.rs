//! `rota result`: prints the result of a task, and nothing else.

use clap::Args;
use rota_proto::v1::GetTaskRequest;

use super::run::print_failure;
use super::{outcome, state_of};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{name, state};

const EXAMPLES: &str = "\
Examples:
  rota result build
  rota wait build && rota result build -o json";

/// Print the result of a finished task, and exit with the code of its outcome
///
/// Prints the text, or the data of a result without text; with `-o json` the whole result.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Result {
    /// Id or name of the task
    pub task: String,
}

impl Result {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
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
}
