//! `rota cancel`: ends tasks.

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

/// End tasks: a waiting one at once, a running one within its grace
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Cancel {
    /// Ids or names
    #[arg(required = true)]
    pub tasks: Vec<String>,
    /// Why, for the log
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
                Ok(task) if !context.out.for_eyes() => context.out.value(&task)?,
                Ok(task) => {
                    let now = state_of(&task);
                    let word = match rota_client::watch::is_final(now) {
                        true => state(now).to_lowercase(),
                        false => "is ending".to_owned(),
                    };
                    context.out.line(&format!("task/{} {word}", name(&task)))?;
                }
                Err(error) if self.tasks.len() == 1 => return Err(error.into()),
                Err(error) => {
                    // The others' ends are asked for all the same.
                    context.talk.error(&format!("{given}: {error}"));
                    exits.push(exit::of(&error));
                }
            }
        }
        Ok(worst(exits))
    }
}
