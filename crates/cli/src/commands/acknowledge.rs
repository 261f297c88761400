//! `rota acknowledge`: settles that tasks which keep failing need attention.

use clap::Args;
use rota_proto::v1::AcknowledgeTaskRequest;

use super::worst;
use crate::context::Context;
use crate::exit::{self, Exit};
use crate::output::name;

const EXAMPLES: &str = "\
Examples:
  rota acknowledge build --reason \"the host is down until noon\"

`rota get tasks --attention` lists them, and `rota describe` shows why. The task continues as before, and is not listed again. It is also settled by `rota update --suspend` and `rota cancel`.";

/// Acknowledge that tasks which continue keep failing
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Acknowledge {
    /// Ids or names of the tasks
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// Reason recorded in the tasks' logs
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

impl Acknowledge {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut exits = Vec::new();
        for given in &self.tasks {
            let request = AcknowledgeTaskRequest {
                name: context.task(given)?,
                reason: self.reason.clone().unwrap_or_default(),
            };
            match context.client.acknowledge_task(request).await {
                Ok(task) if !context.out.is_human() => context.out.value(&task)?,
                Ok(task) => context.out.line(&format!("task/{} acknowledged", name(&task)))?,
                Err(error) if self.tasks.len() == 1 => return Err(error.into()),
                Err(error) => {
                    // The others are acknowledged all the same.
                    context.reporter.error(&format!("{given}: {error}"));
                    exits.push(exit::of(&error));
                }
            }
        }
        Ok(worst(exits))
    }
}
