//! `rota run`: one task from the command line, followed to its result.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rota_crds::{
    API_VERSION, ClaudeRuntime, CommandRuntime, Dependency, Limits, ObjectMeta, Priority, RetryPolicy,
    Runtime, Span, Task as Manifest, TaskSpec, Usd, Workspace, WorkspaceMode,
};
use rota_proto::v1::{CreateTaskRequest, Task, TaskState};

use super::follow::{To, View, to_end};
use super::pairs::{self, Pair};
use super::{outcome, state_of};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{money, name};

const EXAMPLES: &str = "\
Examples:
  rota run \"Write a haiku about queues\"
  rota run --agent coder --workspace . \"Fix the failing test\"
  rota run --needs code,test --priority high --budget-usd 0.50 \"Add tests for the parser\"
  rota run --agent shell --command -- make check
  git diff | rota run --agent reviewer -
  id=$(rota run --detach \"Summarise the log\") && rota wait \"$id\" && rota result \"$id\"";

/// Run one task and print its result
///
/// The result goes to standard output, the way there to standard error. Ctrl-C leaves the task running.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Run {
    /// What to do; `-` reads it from standard input
    pub prompt: Option<String>,
    /// Only workers of this agent may do it
    #[arg(long, short, value_name = "NAME", conflicts_with_all = ["worker", "needs"])]
    pub agent: Option<String>,
    /// Any worker that can do all of this may do it
    #[arg(long, value_name = "WORDS", value_delimiter = ',', conflicts_with = "worker")]
    pub needs: Vec<String>,
    /// Only this worker may do it
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// A short name to find it by
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A line for people
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// 0 to 10, or low, normal, high, urgent
    #[arg(long, short, value_name = "PRIORITY")]
    pub priority: Option<Priority>,
    /// A label to find it by
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    pub label: Vec<Pair>,
    /// Ends it after this long, for example 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub timeout: Option<Span>,
    /// Most dollars it may cost, for example 0.50
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true)]
    pub budget_usd: Option<Usd>,
    /// Most turns between the model and its tools
    #[arg(long, value_name = "N")]
    pub max_turns: Option<i32>,
    /// Most attempts, the first included
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<i32>,
    /// The model, for agents of the claude runtime
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// The same key again gives the same task, not a second one
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Tasks that must succeed first
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    pub depends_on: Vec<String>,
    /// Environment of the task
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    pub env: Vec<Pair>,
    /// Secret environment of the task, taken from this command's own
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// Work in this directory of the worker's machine
    #[arg(long, short, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Do not wait: print the task's id
    #[arg(long, short)]
    pub detach: bool,
    /// Do not show the way there, only the result
    #[arg(long, short)]
    pub quiet: bool,
    /// Run the program after `--` instead of the agent's own, for agents of the command runtime
    #[arg(long, requires = "argv", conflicts_with = "model")]
    pub command: bool,
    /// Program and arguments
    #[arg(last = true, requires = "command", value_name = "ARGV")]
    pub argv: Vec<String>,
}

impl Run {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let request = self.request(context)?;
        let task = context.client.create_task(request).await.context("the task could not be made")?;
        if self.detach {
            if context.out.for_eyes() {
                context.out.line(&task.uid)?;
            } else {
                context.out.value(&task)?;
            }
            return Ok(Exit::Ok);
        }
        context.talk.say(&format!("task {}", task.uid));
        let to = if self.quiet { To::Nowhere } else { To::Stderr };
        let mut view = View::new(context, to, false);
        let Some(task) = to_end(context, &task.name, 0, &mut view).await? else {
            return Ok(Exit::Interrupted);
        };
        show_end(context, &task, &view)?;
        Ok(outcome(&task))
    }

    fn request(&self, context: &Context) -> anyhow::Result<CreateTaskRequest> {
        let manifest = self.manifest()?;
        // One validation for whatever way a task comes in.
        let wrong: Vec<_> = manifest.validate().iter().map(ToString::to_string).collect();
        if !wrong.is_empty() {
            return Err(Failure::usage(wrong.join("; ")).into());
        }
        let mut request = manifest.to_request(&context.namespace, "");
        // A name given here is for finding the task, and says nothing about it being the same one.
        request.idempotency_key = self.idempotency_key.clone().unwrap_or_default();
        if let Some(task) = &mut request.task {
            if self.name.is_none() {
                task.alias.clear();
            }
            if let Some(spec) = &mut task.spec {
                spec.secrets = pairs::from_environment(&self.secret_env)?;
            }
        }
        Ok(request)
    }

    fn manifest(&self) -> anyhow::Result<Manifest> {
        let prompt = match self.prompt.as_deref() {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("standard input could not be read")?;
                Some(text)
            }
            given => given.map(str::to_owned),
        };
        if prompt.as_deref().is_none_or(|text| text.trim().is_empty()) && self.argv.is_empty() {
            return Err(Failure::usage("there is nothing to do")
                .hint("say what: rota run \"Write a haiku\", or give a program: rota run --command -- make")
                .into());
        }
        let limits = Limits {
            timeout: self.timeout,
            max_turns: self.max_turns,
            budget_usd: self.budget_usd,
            ..Limits::default()
        };
        let retry = RetryPolicy { max_attempts: self.max_attempts, ..RetryPolicy::default() };
        let claude =
            self.model.clone().map(|model| ClaudeRuntime { model: Some(model), ..Default::default() });
        let command = self.command.then(|| CommandRuntime { argv: self.argv.clone(), ..Default::default() });
        let runtime = Runtime { claude, command, ..Runtime::default() };
        Ok(Manifest {
            api_version: API_VERSION.to_owned(),
            kind: "Task".to_owned(),
            metadata: ObjectMeta {
                name: Some(self.name.clone().unwrap_or_else(|| "task".to_owned())),
                labels: pairs::map(&self.label),
                ..ObjectMeta::default()
            },
            spec: TaskSpec {
                title: self.title.clone(),
                prompt,
                agent: self.agent.clone(),
                worker: self.worker.clone(),
                capabilities: self.needs.clone(),
                depends_on: self
                    .depends_on
                    .iter()
                    .map(|task| Dependency { task: task.clone(), on_failure: None })
                    .collect(),
                priority: self.priority,
                limits: (limits != Limits::default()).then_some(limits),
                retry: (retry != RetryPolicy::default()).then_some(retry),
                environment: pairs::map(&self.env),
                workspace: self.workspace()?,
                runtime: (runtime != Runtime::default()).then_some(runtime),
                ..TaskSpec::default()
            },
            status: Default::default(),
        })
    }

    fn workspace(&self) -> anyhow::Result<Option<Workspace>> {
        let Some(given) = &self.workspace else { return Ok(None) };
        let full = given
            .canonicalize()
            .with_context(|| format!("the workspace {} cannot be used", given.display()))?;
        let path = full.to_str().map(str::to_owned);
        let path = path.ok_or_else(|| Failure::usage(format!("{} is not UTF-8", full.display())))?;
        Ok(Some(Workspace { mode: Some(WorkspaceMode::InPlace), path: Some(path), ..Workspace::default() }))
    }
}

/// Prints what a task brought, and says how it ended.
pub fn show_end(context: &Context, task: &Task, view: &View) -> anyhow::Result<()> {
    if !context.out.for_eyes() {
        return context.out.value(task);
    }
    let status = task.status.clone().unwrap_or_default();
    let text = status.result.as_ref().map(|result| result.text.as_str()).unwrap_or_default();
    // On one terminal the result has just gone by as the agent's last word.
    let seen = std::io::stdout().is_terminal() && context.talk.is_terminal() && view.printer.has_shown(text);
    if !text.is_empty() && !seen {
        context.out.bytes(text.as_bytes())?;
        if !text.ends_with('\n') {
            context.out.bytes(b"\n")?;
        }
    }
    say_end(context, task);
    let cost = status.usage.map_or(0, |usage| usage.cost_micro_usd);
    let cost = if cost > 0 { format!("cost {}, ", money(cost)) } else { String::new() };
    context.talk.say(&format!("{cost}trace {}", status.trace_id));
    Ok(())
}

/// Says how a task ended that did not succeed.
pub fn say_end(context: &Context, task: &Task) {
    match state_of(task) {
        TaskState::Failed => {
            let failure = task.status.as_ref().and_then(|status| status.failure.clone()).unwrap_or_default();
            context.talk.error(&format!("task {} failed: {}", name(task), failure.message));
            if !failure.hint.is_empty() {
                context.talk.hint(&failure.hint);
            }
        }
        TaskState::Cancelled => context.talk.error(&format!("task {} was cancelled", name(task))),
        _ => {}
    }
}
