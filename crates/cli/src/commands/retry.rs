//! `rota retry`: a new task like one that has ended.

use clap::Args;
use rota_proto::v1::RetryTaskRequest;

use super::follow::{To, View, to_end};
use super::run::show_end;
use super::{outcome, pairs};
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota retry build
  rota retry build --wait
  rota retry deploy --secret-env DEPLOY_TOKEN";

/// Run a task that has ended once more: as a new task, linked to the old one
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Retry {
    /// The task's id or name
    pub task: String,
    /// Secret environment, taken from this command's own; the old task's is gone
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// The same key again gives the same new task
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Wait, and print the result
    #[arg(long, short)]
    pub wait: bool,
}

impl Retry {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let request = RetryTaskRequest {
            name: context.task(&self.task)?,
            idempotency_key: self.idempotency_key.clone().unwrap_or_default(),
            secrets: pairs::from_environment(&self.secret_env)?,
        };
        let task = context.client.retry_task(request).await?;
        if !self.wait {
            match context.out.for_eyes() {
                true => context.out.line(&task.uid)?,
                false => context.out.value(&task)?,
            }
            return Ok(Exit::Ok);
        }
        context.talk.say(&format!("task {}", task.uid));
        let mut view = View::new(context, To::Stderr, false);
        let Some(task) = to_end(context, &task.name, 0, &mut view).await? else {
            return Ok(Exit::Interrupted);
        };
        show_end(context, &task, &view)?;
        Ok(outcome(&task))
    }
}
