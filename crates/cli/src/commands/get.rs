//! `rota get`: lists resources, or shows single ones as the API returns them.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, ValueEnum};
use rota_proto::names;
use rota_proto::v1::{GetAgentRequest, GetTaskRequest, ListTasksRequest, TaskState, Worker};

use super::pairs;
use super::task_filter::TaskFilterArgs;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{self, plain};

const EXAMPLES: &str = "\
Examples:
  rota get tasks --state running,queued
  rota get tasks --label team=web --limit 10 -o json
  rota get task build -o yaml
  rota get tasks --thread docs
  rota get tasks --kind review --owner alice
  rota get tasks --parent release
  rota get tasks --workflow deploy --state failed
  rota get tasks --attention
  rota get tasks --failure overload,rate_limit --since 7d --min-attempts 3
  rota get tasks --ended-since 2026-01-01 --min-cost-usd 5
  rota get agents --label team=web
  rota get workers --agent coder";

/// List tasks, agents or workers, or show one
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Get {
    /// Kind of resource
    #[arg(value_parser = KindParser)]
    pub kind: Kind,
    /// Id or name of one resource [default: all]
    pub name: Option<String>,
    #[command(flatten)]
    pub filter: TaskFilterArgs,
    /// Maximum number of tasks
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub limit: usize,
    /// Include all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
}

/// Kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    #[value(alias = "task")]
    Tasks,
    #[value(alias = "agent")]
    Agents,
    #[value(alias = "worker")]
    Workers,
    #[value(alias = "capability")]
    Capabilities,
}

/// Parses a kind. Its error is for those who give the name of a resource only.
#[derive(Debug, Clone)]
struct KindParser;

impl TypedValueParser for KindParser {
    type Value = Kind;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<Kind, clap::Error> {
        let text = value.to_string_lossy();
        Kind::from_str(&text, false).map_err(|_| {
            let text = plain(&text);
            let kinds = "tasks, agents, workers, capabilities";
            let message = format!(
                "'{text}' is none of the kinds {kinds}\n\n  tip: show a task with `rota get task {text}`, an agent with `rota get agent {text}`\n"
            );
            command.clone().error(ErrorKind::InvalidValue, message)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Kind::value_variants().iter().filter_map(ValueEnum::to_possible_value)))
    }
}

/// State of a task, as a flag's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    Pending,
    Queued,
    Assigned,
    Running,
    #[value(alias = "inputrequired", alias = "input_required")]
    InputRequired,
    Succeeded,
    Failed,
    Cancelled,
}

impl State {
    pub fn to_api(self) -> TaskState {
        match self {
            Self::Pending => TaskState::Pending,
            Self::Queued => TaskState::Queued,
            Self::Assigned => TaskState::Assigned,
            Self::Running => TaskState::Running,
            Self::InputRequired => TaskState::InputRequired,
            Self::Succeeded => TaskState::Succeeded,
            Self::Failed => TaskState::Failed,
            Self::Cancelled => TaskState::Cancelled,
        }
    }
}

impl Get {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match (self.kind, &self.name) {
            (Kind::Tasks, None) => self.tasks(context).await,
            (Kind::Tasks, Some(given)) => {
                let task = context.client.get_task(GetTaskRequest { name: context.task(given)? }).await?;
                if !context.out.is_human() {
                    context.out.value(&task)?;
                    return Ok(Exit::Ok);
                }
                let request = output::pull_request(&task);
                context.out.table(&output::tasks(&[task], false))?;
                if let Some(url) = request {
                    context.reporter.line(&format!("pull request: {url}"));
                }
                Ok(Exit::Ok)
            }
            (Kind::Agents, None) => {
                agents(context, self.all_namespaces, pairs::map(&self.filter.label)).await
            }
            (Kind::Agents, Some(given)) => {
                let agent = context.client.get_agent(GetAgentRequest { name: context.agent(given)? }).await?;
                match context.out.is_human() {
                    true => context.out.table(&output::agents(&[agent], false))?,
                    false => context.out.value(&agent)?,
                }
                Ok(Exit::Ok)
            }
            (Kind::Workers, given) => {
                let agent = self.filter.agent.as_deref().unwrap_or_default();
                workers(context, agent, given.as_deref(), self.all_namespaces).await
            }
            (Kind::Capabilities, None) => capabilities(context).await,
            (Kind::Capabilities, Some(_)) => Err(Failure::usage("capabilities can only be listed").into()),
        }
    }

    async fn tasks(&self, context: &Context) -> anyhow::Result<Exit> {
        let request = ListTasksRequest {
            parent: context.parent(self.all_namespaces),
            filter: Some(Box::pin(self.filter.to_api(context)).await?),
            ..ListTasksRequest::default()
        };
        // One more than the limit shows whether there are more.
        let mut tasks = context.client.all_tasks(request, Some(self.limit.saturating_add(1))).await?;
        let more = tasks.len() > self.limit;
        tasks.truncate(self.limit);
        if !context.out.is_human() {
            context.out.list("tasks", &tasks)?;
        } else if tasks.is_empty() {
            context.reporter.line("no tasks");
        } else {
            context.out.table(&output::tasks(&tasks, self.all_namespaces))?;
        }
        if more {
            context.reporter.line(&format!("more than {} tasks; raise --limit to list them", self.limit));
        }
        Ok(Exit::Ok)
    }
}

/// Prints the agents that have all of these labels.
pub async fn agents(context: &Context, all: bool, labels: BTreeMap<String, String>) -> anyhow::Result<Exit> {
    let filtered = !labels.is_empty();
    let agents = context.client.labelled_agents(&context.parent(all), labels).await?;
    if !context.out.is_human() {
        context.out.list("agents", &agents)?;
    } else if agents.is_empty() {
        context.reporter.line("no agents");
        if !filtered {
            context.reporter.hint("create one with `rota apply -f agent.yaml`");
        }
    } else {
        context.out.table(&output::agents(&agents, all))?;
    }
    Ok(Exit::Ok)
}

/// Prints the workers, or one.
pub async fn workers(context: &Context, agent: &str, one: Option<&str>, all: bool) -> anyhow::Result<Exit> {
    let mut workers = context.client.all_workers(&context.parent(all), agent).await?;
    if let Some(one) = one {
        let worker = find_worker(workers, one)?;
        if !context.out.is_human() {
            context.out.value(&worker)?;
            return Ok(Exit::Ok);
        }
        workers = vec![worker];
    }
    if !context.out.is_human() {
        context.out.list("workers", &workers)?;
    } else if workers.is_empty() {
        context.reporter.line("no workers");
    } else {
        context.out.table(&output::workers(&workers, all))?;
    }
    Ok(Exit::Ok)
}

/// Finds a worker by name; the API has no call for a single one.
pub fn find_worker(workers: Vec<Worker>, given: &str) -> anyhow::Result<Worker> {
    let id = given.strip_prefix("worker/").unwrap_or(given);
    let found = workers.into_iter().find(|worker| worker.name == id || names::last(&worker.name) == id);
    Ok(found.ok_or_else(|| Failure::new(Exit::NotFound, format!("worker {id} not found")))?)
}

pub async fn capabilities(context: &Context) -> anyhow::Result<Exit> {
    let request = rota_proto::v1::ListCapabilitiesRequest { parent: context.parent(false) };
    let all = context.client.list_capabilities(request).await?.capabilities;
    if !context.out.is_human() {
        context.out.list("capabilities", &all)?;
    } else if all.is_empty() {
        context.reporter.line("no agent declares capabilities");
    } else {
        context.out.table(&output::capabilities(&all))?;
    }
    Ok(Exit::Ok)
}
