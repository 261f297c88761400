//! `rota events`: prints the raw log of one task or of a namespace, for programs that process it.

use clap::Args;
use futures::StreamExt;
use rota_proto::v1::GetTaskRequest;

use super::follow::{Destination, View};
use super::signals::Interrupt;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Format, name};

const EXAMPLES: &str = "\
Examples:
  rota events build -o jsonl
  rota events build --since 120 --follow
  rota events -o jsonl                       # of the namespace, from now
  rota events --since \"$token\" -o jsonl      # resumes from a token";

/// Print the raw event log of a task or a namespace
///
/// With a task, prints its entries after a position. Otherwise prints each response of the server, which holds the token
/// to resume from; entries may repeat, and none is skipped unless `resync` is set.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Events {
    /// Id or name of the task [default: all tasks of the namespace]
    pub task: Option<String>,
    /// Position of a task's log after which to start, or token of a namespace's log
    #[arg(long, value_name = "SEQ|TOKEN")]
    pub since: Option<String>,
    /// Follow the log until the task has finished
    #[arg(long, short, requires = "task")]
    pub follow: bool,
    /// Only state changes, questions and their answers
    #[arg(long, conflicts_with = "task")]
    pub states_only: bool,
    /// Include all namespaces
    #[arg(long, short = 'A', conflicts_with = "task")]
    pub all_namespaces: bool,
}

impl Events {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match &self.task {
            Some(given) => self.of_task(context, given).await,
            None => self.of_namespace(context).await,
        }
    }

    async fn of_task(&self, context: &Context, given: &str) -> anyhow::Result<Exit> {
        let since = match &self.since {
            Some(text) => text.parse().map_err(|_| {
                Failure::usage(format!("{text:?} is not a position of a task's log, which is a number"))
            })?,
            None => 0,
        };
        let task = context.client.get_task(GetTaskRequest { name: context.task(given)? }).await?;
        let until = match self.follow {
            true => i64::MAX,
            false => task.status.as_ref().map_or(0, |status| status.log_seq),
        };
        let mut seen: i64 = since;
        let mut view = View::new(context, Destination::Stdout, true);
        let mut interrupt = Interrupt::listen()?;
        let mut watch = context.client.watch_task(task.name.clone(), since);
        while seen < until {
            let answer = tokio::select! {
                answer = watch.next() => answer,
                () = interrupt.received() => {
                    super::print_continues(context, &task.name);
                    return Ok(Exit::Interrupted);
                }
            };
            let Some(answer) = answer else { break };
            let mut events = answer?.events;
            events.retain(|event| event.log_seq <= until);
            seen = events.last().map_or(seen, |event| event.log_seq);
            view.show(context, &events)?;
        }
        view.finish(context)?;
        Ok(Exit::Ok)
    }

    async fn of_namespace(&self, context: &Context) -> anyhow::Result<Exit> {
        let token = self.since.clone().unwrap_or_default();
        let parent = context.parent(self.all_namespaces);
        let mut interrupt = Interrupt::listen()?;
        let mut watch = context.client.watch_tasks(parent, token, self.states_only);
        let mut out = context.out.clone();
        if out.format == Format::Json {
            out.format = Format::Jsonl;
        }
        loop {
            let answer = tokio::select! {
                answer = watch.next() => answer,
                () = interrupt.received() => return Ok(Exit::Interrupted),
            };
            let Some(answer) = answer.transpose()? else { return Ok(Exit::Ok) };
            if !context.out.is_human() {
                out.value(&answer)?;
                continue;
            }
            if answer.resync {
                context.reporter.warn("entries may have been missed; list the tasks again");
            }
            let Some(task) = &answer.task else { continue };
            let mut view = View::new(context, Destination::Stdout, true);
            for event in &answer.events {
                context.out.bytes(format!("{} ", name(task)).as_bytes())?;
                view.show(context, std::slice::from_ref(event))?;
                view.finish(context)?;
            }
        }
    }
}
