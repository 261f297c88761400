//! `rota logs`: what a task's agent said and did.

use clap::Args;
use futures::StreamExt;
use rota_proto::v1::GetTaskRequest;

use super::follow::{To, View, to_end};
use super::outcome;
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota logs build
  rota logs -f build
  rota logs build --since 120 -o jsonl";

/// Print what a task's agent said and did
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Logs {
    /// The task's id or name
    pub task: String,
    /// Go on until the task has ended
    #[arg(long, short)]
    pub follow: bool,
    /// Only what came after this position of the log
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub since: i64,
    /// Put the time in front of each line
    #[arg(long, short)]
    pub timestamps: bool,
}

impl Logs {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let task = context.client.get_task(GetTaskRequest { name: context.task(&self.task)? }).await?;
        let mut view = View::new(context, To::Stdout, self.timestamps);
        if self.follow {
            let ended = to_end(context, &task.name, self.since, &mut view).await?;
            return Ok(ended.map_or(Exit::Interrupted, |task| outcome(&task)));
        }
        // What is there now, and no more.
        let until = task.status.as_ref().map_or(0, |status| status.log_seq);
        let mut seen = self.since;
        let mut watch = context.client.watch_task(task.name, self.since);
        while seen < until {
            let Some(answer) = watch.next().await else { break };
            let mut events = answer?.events;
            events.retain(|event| event.log_seq <= until);
            seen = events.last().map_or(seen, |event| event.log_seq);
            view.show(context, &events)?;
        }
        view.finish(context)?;
        Ok(Exit::Ok)
    }
}
