//! `rota continue` and `rota fork`: tasks that continue the conversation of another one, set up as that one was.

use clap::Args;
use rota_crds::{HumanDuration, Usd};
use rota_proto::v1::{CreateTaskRequest, GetAgentRequest, GetTaskRequest, Task, WorkspaceMode};
use rota_proto::{Continuation, continuation};

use super::created::create_and_follow;
use super::pairs;
use super::run::prompt;
use crate::context::Context;
use crate::exit::{Exit, Failure};

const CONTINUE_EXAMPLES: &str = "\
Examples:
  rota continue fix-parser \"And now add a test\"
  rota continue 0198b6a2-6c1e-7f5e-9d3a-5f2d8c1b7e40 --detach \"Rebase it on main\"";

const FORK_EXAMPLES: &str = "\
Examples:
  rota fork fix-parser \"Try it without a parser generator\"
  rota fork fix-parser --name second-try";

/// Prompt of a fork that is given none.
const GO_ON: &str = "Continue.";

/// Continue the conversation of a finished task, with its files, in a new task
///
/// The new task has the agent, the workspace, the limits and the environment of the old one, unless a flag sets another.
#[derive(Debug, Args)]
#[command(after_long_help = CONTINUE_EXAMPLES)]
pub struct Continue {
    /// Id or name of the task
    pub task: String,
    /// Next message of the conversation; `-` reads it from standard input
    pub prompt: String,
    #[command(flatten)]
    pub new: New,
}

/// Continue from the newest checkpoint of a task that may still run, in a new task
///
/// The old task is not disturbed. The new one has its agent, workspace, limits and environment, unless a flag sets another.
#[derive(Debug, Args)]
#[command(after_long_help = FORK_EXAMPLES)]
pub struct Fork {
    /// Id or name of the task
    pub task: String,
    /// Next message of the conversation; `-` reads it from standard input [default: Continue.]
    pub prompt: Option<String>,
    /// Fork although both tasks would work in the same directory at the same time
    #[arg(long)]
    pub in_place: bool,
    #[command(flatten)]
    pub new: New,
}

/// What differs from the old task.
#[derive(Debug, Args)]
pub struct New {
    /// Name of the new task
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Agent that runs the new task, with the same kind of runtime
    #[arg(long, short, value_name = "NAME")]
    pub agent: Option<String>,
    /// Timeout of the new task, such as 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub timeout: Option<HumanDuration>,
    /// Maximum cost of the new task in US dollars, such as 0.50
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true)]
    pub budget_usd: Option<Usd>,
    /// Secret environment variable, taken from the environment of this command, since those of the old task are not copied; may be repeated
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// Idempotency key: repeating the command with it returns the same task
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Print the new task's id and exit without waiting
    #[arg(long, short)]
    pub detach: bool,
    /// Print only the result, not the progress
    #[arg(long, short)]
    pub quiet: bool,
}

impl Continue {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let before = self.new.before(context, &self.task).await?;
        self.new.run(context, before, &self.prompt, false).await
    }
}

impl Fork {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let prompt = self.prompt.as_deref().unwrap_or(GO_ON);
        let before = self.new.before(context, &self.task).await?;
        if !self.in_place && shares_directory(context, &before).await? {
            let text = format!(
                "task {} works in an existing directory, in which its fork would work too",
                self.task
            );
            let hint = "wait for its end, or fork it nevertheless with --in-place";
            return Err(Failure::usage(text).hint(hint.to_owned()).into());
        }
        self.new.run(context, before, prompt, true).await
    }
}

/// Whether another task with the same set-up works in the directory of this one, which may still run.
async fn shares_directory(context: &Context, task: &Task) -> anyhow::Result<bool> {
    if task.status.as_ref().is_some_and(|status| status.state().is_final()) {
        return Ok(false);
    }
    let spec = task.spec.as_ref();
    let mode = match spec.and_then(|spec| spec.workspace.as_ref()) {
        Some(own) => own.mode(),
        None => match spec.and_then(|spec| spec.target.as_ref()?.kind.as_ref()) {
            Some(rota_proto::v1::target::Kind::Agent(agent)) => {
                let agent = context.client.get_agent(GetAgentRequest { name: context.agent(agent)? }).await?;
                let workspace = agent.spec.and_then(|spec| spec.workspace).unwrap_or_default();
                workspace.mode()
            }
            _ => WorkspaceMode::Unspecified,
        },
    };
    Ok(mode == WorkspaceMode::InPlace)
}

impl New {
    async fn before(&self, context: &Context, task: &str) -> anyhow::Result<Task> {
        Ok(context.client.get_task(GetTaskRequest { name: context.task(task)? }).await?)
    }

    async fn run(&self, context: &Context, before: Task, given: &str, fork: bool) -> anyhow::Result<Exit> {
        let prompt = prompt(Some(given))?.unwrap_or_default();
        if prompt.trim().is_empty() {
            return Err(Failure::usage("the message is empty").into());
        }
        let request = self.request(&context.namespace, before, prompt, fork)?;
        Box::pin(create_and_follow(context, request, self.detach, self.quiet)).await.map(|(_, exit)| exit)
    }

    fn request(
        &self,
        namespace: &str,
        before: Task,
        prompt: String,
        fork: bool,
    ) -> anyhow::Result<CreateTaskRequest> {
        let secrets = pairs::from_environment(&self.secret_env)?;
        pairs::require(before.spec.as_ref().map_or(&[][..], |spec| &spec.secret_names), &secrets)?;
        let how = if fork { Continuation::Fork } else { Continuation::Apart };
        let mut task = continuation(before, prompt, how);
        let spec = task.spec.get_or_insert_default();
        spec.secrets = secrets;
        if let Some(agent) = &self.agent {
            let kind = rota_proto::v1::target::Kind::Agent(agent.clone());
            spec.target = Some(rota_proto::v1::Target { kind: Some(kind) });
        }
        let limits = spec.limits.get_or_insert_default();
        if let Some(timeout) = self.timeout {
            limits.timeout = Some(pbjson_types::Duration::from(timeout.0));
        }
        if let Some(budget) = self.budget_usd {
            limits.budget_micro_usd = budget.micro;
        }
        task.alias = self.name.clone().unwrap_or_default();
        Ok(CreateTaskRequest {
            parent: rota_proto::names::namespace(namespace),
            task: Some(task),
            idempotency_key: self.idempotency_key.clone().unwrap_or_default(),
            ..CreateTaskRequest::default()
        })
    }
}
