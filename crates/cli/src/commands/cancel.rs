//! `rota cancel`: cancels tasks.

use clap::Args;
use rota_proto::v1::CancelTaskRequest;

use super::{state_of, worst};
use crate::context::Context;
use crate::exit::{self, Exit};
use crate::output::{name, state};

const EXAMPLES: &str = "\
Examples:
  rota cancel build
  rota cancel build test --reason \"wrong branch\" && rota wait build test";

/// Cancel tasks: pending ones immediately, running ones within their grace period
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Cancel {
    /// Ids or names of the tasks
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// Reason recorded in the tasks' logs
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

impl Cancel {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let mut exits = Vec::new();
        for given in &self.tasks {
            let request = CancelTaskRequest {
                name: context.task(given)?,
                reason: self.reason.clone().unwrap_or_default(),
            };
            match context.client.cancel_task(request).await {
                Ok(task) if !context.out.is_human() => context.out.value(&task)?,
                Ok(task) => {
                    let now = state_of(&task);
                    let word = match now.is_final() {
                        true => state(now).to_lowercase(),
                        false => "is being cancelled".to_owned(),
                    };
                    context.out.line(&format!("task/{} {word}", name(&task)))?;
                }
                Err(error) if self.tasks.len() == 1 => return Err(error.into()),
                Err(error) => {
                    // The other tasks are cancelled all the same.
                    context.reporter.error(&format!("{given}: {error}"));
                    exits.push(exit::of(&error));
                }
            }
        }
        Ok(worst(exits))
    }
}
