//! `rota describe`: everything about one thing, for eyes; or the life of a task, step by step.

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

/// Tasks of a worker that are looked up.
const MOST: usize = 32;

/// Tell everything about one task, agent or worker
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Describe {
    /// What: task, agent or worker; or else a task's id or name alone
    #[arg(value_name = "KIND|TASK")]
    pub what: String,
    /// Which one
    pub name: Option<String>,
    /// The life of a task as a timeline: waits, queue, attempts, tool calls, retries, questions, end
    #[arg(long)]
    pub flow: bool,
}

impl Describe {
    /// What is meant. A name alone is a task's, unless its front says something else, as in `agent/coder`.
    fn meant(&self) -> Result<(Kind, &str), Failure> {
        let kind = |word: &str| Kind::from_str(word, true).ok();
        let what = self.what.as_str();
        match &self.name {
            Some(name) => match kind(what) {
                Some(kind) => Ok((kind, name)),
                None => Err(Failure::usage(format!("{what:?} is none of task, agent, worker"))),
            },
            None if kind(what).is_some() => Err(Failure::usage(format!("which {what}?"))
                .hint(format!("name it: rota describe {what} NAME; a task of that name is task/{what}"))),
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
        let (kind, name) = self.meant()?;
        if self.flow && kind != Kind::Tasks {
            return Err(
                Failure::usage("--flow tells the life of a task; agents and workers have none").into()
            );
        }
        let page = match kind {
            Kind::Tasks => {
                let task = context.client.get_task(GetTaskRequest { name: context.task(name)? }).await?;
                if self.flow {
                    return flow(context, &task).await;
                }
                if !context.out.for_eyes() {
                    return context.out.value(&task).map(|()| Exit::Ok);
                }
                page::of_task(&task)
            }
            Kind::Agents => {
                let agent = context.client.get_agent(GetAgentRequest { name: context.agent(name)? }).await?;
                if !context.out.for_eyes() {
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

/// The life of a task, from its log as it stands.
async fn flow(context: &Context, task: &rota_proto::v1::Task) -> anyhow::Result<Exit> {
    let mut events = Vec::new();
    log(context, task, |event| {
        if Flow::tells(&event) {
            events.push(event);
        }
    })
    .await?;
    let flow = Flow::of(task, &events, rota_telemetry::clock::now());
    match context.out.for_eyes() {
        true => context.out.line(&flow.text(context.out.colored()))?,
        false => context.out.value(&flow)?,
    }
    Ok(Exit::Ok)
}

/// One worker: what it is, what it does, and what it did last.
pub async fn worker(context: &Context, name: &str) -> anyhow::Result<Exit> {
    let worker = find_worker(context.client.all_workers(&context.parent(false), "").await?, name)?;
    if !context.out.for_eyes() {
        return context.out.value(&worker).map(|()| Exit::Ok);
    }
    let namespace = worker.name.split('/').nth(1).unwrap_or_default();
    let concerned = worker.tasks.iter().take(MOST).chain(worker.recent.iter().map(|deed| &deed.task));
    let ids: BTreeSet<_> = concerned.filter(|id| !id.is_empty()).collect();
    let mut tasks = Vec::new();
    for id in ids {
        let request = GetTaskRequest { name: names::task(namespace, id) };
        tasks.extend(found(context.client.get_task(request).await)?);
    }
    let page = page::of_worker(&worker, &tasks, context.out.colored());
    context.out.bytes(page.0.as_bytes())?;
    Ok(Exit::Ok)
}
