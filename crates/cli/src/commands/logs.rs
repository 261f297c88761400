//! `rota logs`: prints the output of a task.

use clap::Args;
use futures::StreamExt;
use rota_proto::v1::GetTaskRequest;

use super::follow::{Destination, View, to_end};
use super::outcome;
use crate::context::Context;
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  rota logs build
  rota logs -f build
  rota logs build --since 120 -o jsonl";

/// Print the output of a task's agent: messages, tool calls, program output, state changes
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Logs {
    /// Id or name of the task
    pub task: String,
    /// Follow the log until the task has finished
    #[arg(long, short)]
    pub follow: bool,
    /// Position of the log after which to start
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub since: i64,
    /// Prefix each line with its time
    #[arg(long, short)]
    pub timestamps: bool,
}

impl Logs {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let task = context.client.get_task(GetTaskRequest { name: context.task(&self.task)? }).await?;
        let mut view = View::new(context, Destination::Stdout, self.timestamps);
        if self.follow {
            let ended = to_end(context, &task.name, self.since, &mut view).await?;
            return Ok(ended.map_or(Exit::Interrupted, |task| outcome(&task)));
        }
        // Stops at the current end of the log.
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
