//! `rota retry`: creates a copy of a finished task.

use clap::Args;
use rota_proto::v1::RetryTaskRequest;

use super::follow::{Destination, View, to_end};
use super::outcome::print_outcome;
use super::{outcome, pairs};
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota retry build
  rota retry build --wait
  rota retry build --from-scratch
  rota retry deploy --secret-env DEPLOY_TOKEN";

/// Run a finished task again, as a new task linked to the old one
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Retry {
    /// Id or name of the task
    pub task: String,
    /// Secret environment variable, taken from the environment of this command, since secrets of finished tasks are deleted; may be repeated
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// Idempotency key: repeating the command with it returns the same task
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Do work again that is done and kept, and whose delivery failed; otherwise only that is repeated
    #[arg(long)]
    pub from_scratch: bool,
    /// Wait for the task and print its result
    #[arg(long, short)]
    pub wait: bool,
}

impl Retry {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let request = RetryTaskRequest {
            name: context.task(&self.task)?,
            idempotency_key: self.idempotency_key.clone().unwrap_or_default(),
            secrets: pairs::from_environment(&self.secret_env)?,
            from_scratch: self.from_scratch,
        };
        let task = context.client.retry_task(request).await?;
        if !self.wait {
            match context.out.is_human() {
                true => context.out.line(&task.uid)?,
                false => context.out.value(&task)?,
            }
            return Ok(Exit::Ok);
        }
        context.reporter.line(&format!("task {}", task.uid));
        let mut view = View::new(context, Destination::Stderr, false);
        let Some(task) = to_end(context, &task.name, 0, &mut view).await? else {
            return Ok(Exit::Interrupted);
        };
        Box::pin(print_outcome(context, &task, &view)).await?;
        Ok(outcome(&task))
    }
}
