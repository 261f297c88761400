//! `rota describe`: shows one resource in detail, or the timeline of a task.

pub mod flow;
mod page;

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use rota_proto::names;
use rota_proto::v1::{GetAgentRequest, GetTaskRequest};

use self::flow::Flow;
use super::follow::log;
use super::found;
use super::get::{Kind, find_worker};
use crate::context::Context;
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota describe build
  rota describe build --flow
  rota describe agent coder
  rota describe worker coder-1";

/// Maximum number of a worker's tasks that are fetched.
const MAX_TASKS: usize = 32;

/// Show one task, agent or worker in detail
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Describe {
    /// Kind (task, agent or worker), or the id or name of a task
    #[arg(value_name = "KIND|TASK")]
    pub what: String,
    /// Name of the resource, if a kind is given
    pub name: Option<String>,
    /// Show a task as a timeline: waits, queue, attempts, tool calls, retries, questions, end
    #[arg(long)]
    pub flow: bool,
}

impl Describe {
    /// Parses the arguments. A name alone is a task's, unless it has a prefix as in `agent/coder`.
    fn resource(&self) -> Result<(Kind, &str), Failure> {
        let kind = |word: &str| Kind::from_str(word, true).ok();
        let what = self.what.as_str();
        match &self.name {
            Some(name) => match kind(what) {
                Some(kind) => Ok((kind, name)),
                None => Err(Failure::usage(format!("{what:?} is not task, agent or worker"))),
            },
            None if kind(what).is_some() => Err(Failure::usage(format!("the name of the {what} is missing"))
                .hint(format!(
                    "use `rota describe {what} NAME`, or `rota describe task/{what}` for a task of that name"
                ))),
            None => match what.split_once('/') {
                Some((front, name)) if !name.contains('/') => match kind(front) {
                    Some(kind) => Ok((kind, name)),
                    None => Ok((Kind::Tasks, what)),
                },
                _ => Ok((Kind::Tasks, what)),
            },
        }
    }

    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let (kind, name) = self.resource()?;
        if self.flow && kind != Kind::Tasks {
            return Err(Failure::usage("--flow applies only to tasks").into());
        }
        let page = match kind {
            Kind::Tasks => {
                let task = context.client.get_task(GetTaskRequest { name: context.task(name)? }).await?;
                if self.flow {
                    return flow(context, &task).await;
                }
                if !context.out.is_human() {
                    return context.out.value(&task).map(|()| Exit::Ok);
                }
                page::of_task(&task)
            }
            Kind::Agents => {
                let agent = context.client.get_agent(GetAgentRequest { name: context.agent(name)? }).await?;
                if !context.out.is_human() {
                    return context.out.value(&agent).map(|()| Exit::Ok);
                }
                page::of_agent(&agent)?
            }
            Kind::Workers => return worker(context, name).await,
            Kind::Capabilities => return Err(Failure::usage("capabilities cannot be described").into()),
        };
        context.out.bytes(page.0.as_bytes())?;
        Ok(Exit::Ok)
    }
}

/// Prints the timeline of a task, from its current log.
async fn flow(context: &Context, task: &rota_proto::v1::Task) -> anyhow::Result<Exit> {
    let mut events = Vec::new();
    log(context, task, |event| {
        if Flow::includes(&event) {
            events.push(event);
        }
    })
    .await?;
    let flow = Flow::of(task, &events, rota_telemetry::clock::now());
    match context.out.is_human() {
        true => context.out.line(&flow.text(context.out.colored()))?,
        false => context.out.value(&flow)?,
    }
    Ok(Exit::Ok)
}

/// Prints one worker with its current and recent activity.
pub async fn worker(context: &Context, name: &str) -> anyhow::Result<Exit> {
    let worker = find_worker(context.client.all_workers(&context.parent(false), "").await?, name)?;
    if !context.out.is_human() {
        return context.out.value(&worker).map(|()| Exit::Ok);
    }
    let namespace = worker.name.split('/').nth(1).unwrap_or_default();
    let involved =
        worker.tasks.iter().take(MAX_TASKS).chain(worker.recent_activity.iter().map(|entry| &entry.task));
    let ids: BTreeSet<_> = involved.filter(|id| !id.is_empty()).collect();
    let mut tasks = Vec::new();
    for id in ids {
        let request = GetTaskRequest { name: names::task(namespace, id) };
        tasks.extend(found(context.client.get_task(request).await)?);
    }
    let page = page::of_worker(&worker, &tasks, context.out.colored());
    context.out.bytes(page.0.as_bytes())?;
    Ok(Exit::Ok)
}
