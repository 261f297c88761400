//! `rota run`: creates one task from the command line and follows it to its result.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rota_crds::{
    API_VERSION, ClaudeRuntime, CommandRuntime, Dependency, DoneWhen, GitSource, HumanDuration, Limits,
    ObjectMeta, Priority, RetryPolicy, Runtime, Task as Manifest, TaskSpec, Usd, Workspace, WorkspaceCommand,
    WorkspaceMode,
};
use rota_proto::v1::{CreateTaskRequest, Task};

use super::pairs::{self, Pair};
use super::{artifacts, changes, created, id_of, workflow};
use crate::context::Context;
use crate::exit::{self, Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota run \"Write a haiku about queues\"
  rota run --agent coder --workspace . \"Fix the failing test\"
  rota run --agent coder --workspace . --apply \"Fix the failing test\"
  rota run --agent coder --workspace . --apply --done-when \"make test\" \"Fix the failing test\"
  rota run --agent coder --thread docs \"Then describe it in the docs\"
  rota run --needs code,test --priority high --budget-usd 0.50 \"Add tests for the parser\"
  rota run --kind review --workspace . \"The changes of the last commit\"
  rota run --agent shell --command -- make check
  rota run --agent analyst --input sales.csv \"Summarize the sales\"
  git diff | rota run --agent reviewer -
  rota run --template deploy-app -p image=registry.example/app:1
  rota run --template summarize --input data=sales.csv
  id=$(rota run --detach \"Summarize the log\") && rota wait \"$id\" && rota result \"$id\"";

/// What a path has as it is in a URL.
const PATH: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Run one task, or a workflow of a template, and print its result
///
/// Prints the result, or the outputs of the workflow, to standard output and the progress to standard error. Ctrl-C leaves the task or workflow running.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Run {
    /// Prompt of the task; `-` reads it from standard input
    pub prompt: Option<String>,
    /// Template of a workflow that runs instead of a task (`rota template list`)
    #[arg(long, value_name = "NAME[@VERSION]", conflicts_with_all = workflow::OF_TASKS)]
    pub template: Option<String>,
    /// Parameter of the template, as JSON or as text; may be repeated
    #[arg(long = "parameter", short, value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Kind of the task, whose agent, prompt, limits and result schema it gets: auto, code, review … (`rota kind list`)
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Agent that runs the task; of several, separated by commas, the first that is free
    #[arg(long, short, value_name = "NAMES", value_delimiter = ',', conflicts_with_all = ["worker", "needs"])]
    pub agent: Vec<String>,
    /// Run the task on each of the agents, and print the results in their order
    #[arg(long, requires = "agent", conflicts_with = "apply")]
    pub all: bool,
    /// Comma-separated capabilities that the worker must have; may be repeated
    #[arg(long, value_name = "WORDS", value_delimiter = ',', conflicts_with = "worker")]
    pub needs: Vec<String>,
    /// Worker that runs the task
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// Name of the task or workflow
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Title of the task, one line
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Owner of the task or workflow, for people and filters
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// Parent of the task: id or name
    #[arg(long, value_name = "TASK")]
    pub parent: Option<String>,
    /// Priority: 0 to 10, or low, normal, high, urgent [default: normal]
    #[arg(long, value_name = "PRIORITY")]
    pub priority: Option<Priority>,
    /// Label of the task or workflow; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    pub label: Vec<Pair>,
    /// Timeout of the task, such as 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub timeout: Option<HumanDuration>,
    /// Time after its end at which the task or workflow is removed, such as 1h [default: the retention of the control plane]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub ttl: Option<HumanDuration>,
    /// Maximum cost of all attempts in US dollars, such as 0.50
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true)]
    pub budget_usd: Option<Usd>,
    /// Maximum number of turns between the model and its tools
    #[arg(long, value_name = "COUNT")]
    pub max_turns: Option<i32>,
    /// Maximum number of attempts, the first included
    #[arg(long, value_name = "COUNT")]
    pub max_attempts: Option<i32>,
    /// Model, or agent/NAME, of the attempts after one that failed by its work; may be repeated, for those after two, three and so on
    #[arg(long, value_name = "NAME")]
    pub escalate: Vec<String>,
    /// Model, for agents of the claude runtime
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Idempotency key: repeating the command with it returns the same task or workflow
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Comma-separated tasks that must succeed first; may be repeated
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    pub depends_on: Vec<String>,
    /// Thread of the task, whose tasks run one after the other and continue one conversation
    #[arg(long, value_name = "NAME")]
    pub thread: Option<String>,
    /// Environment variable of the task; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    pub env: Vec<Pair>,
    /// Secret environment variable, taken from the environment of this command; may be repeated
    #[arg(long, value_name = "NAME")]
    pub secret_env: Vec<String>,
    /// Working directory on the worker's machine [default: a new directory]
    #[arg(long, short, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Work in --workspace at the same time as other tasks with this flag [default: one task at a time]
    #[arg(long, requires = "workspace", conflicts_with = "apply")]
    pub shared: bool,
    /// Work on a copy of the git repository around --workspace, files as they are now, and change them when the task succeeds
    #[arg(long, requires = "workspace", conflicts_with = "detach")]
    pub apply: bool,
    /// File that the task is given, in `input/` of $ROTA_CONTEXT; with --template, NAME=FILE for a parameter NAME; may be repeated
    #[arg(long, value_name = "FILE")]
    pub input: Vec<PathBuf>,
    /// Shell command that prepares the workspace before the agent starts; may be repeated
    #[arg(long, value_name = "COMMAND")]
    pub setup: Vec<String>,
    /// Shell command that must succeed before the task does: its output is sent back to the agent; may be repeated
    #[arg(long, value_name = "COMMAND")]
    pub done_when: Vec<String>,
    /// Print the id and exit without waiting
    #[arg(long, short)]
    pub detach: bool,
    /// Print only the result, not the progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Run the program after `--` instead of the agent's, for agents of the command runtime
    #[arg(long, requires = "argv", conflicts_with = "model")]
    pub command: bool,
    /// Program and its arguments
    #[arg(last = true, requires = "command", value_name = "ARGV")]
    pub argv: Vec<String>,
}

impl Run {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        // Clap requires no flag that conflicts with one that is given.
        if self.template.is_none() && !self.parameters.is_empty() {
            return Err(Failure::usage("--parameter is for a workflow: name its --template").into());
        }
        if let Some(template) = self.template {
            let run = workflow::FromTemplate {
                template,
                parameters: self.parameters,
                inputs: self.input.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
                name: self.name.unwrap_or_default(),
                owner: self.owner,
                labels: pairs::map(&self.label),
                idempotency_key: self.idempotency_key.unwrap_or_default(),
                ttl: self.ttl,
                detach: self.detach,
                quiet: self.quiet,
            };
            return Box::pin(run.run(context)).await;
        }
        let start = match &self.workspace {
            Some(workspace) if self.apply => Some(changes::Start::commit(workspace).await?),
            _ => None,
        };
        let ran = self.create_and_follow(context, start.as_ref()).await;
        let Some(start) = start else { return Ok(ran?.1) };
        match ran {
            Ok((Some(task), Exit::Interrupted)) => {
                // The task may not have begun to copy.
                let reference = &start.reference;
                let hint = format!(
                    "apply the changes later with `rota apply-diff {}`; the files it starts from stay as {reference}",
                    task.uid
                );
                context.reporter.hint(&hint);
                Ok(Exit::Interrupted)
            }
            Ok((Some(task), Exit::Ok)) => {
                let applied = changes::apply(context, &task.name, start.root()).await;
                match &applied {
                    Err(error) if exit::classify(error) == Exit::Unreachable => context.reporter.hint(&format!(
                        "apply the changes later with `rota apply-diff {}`; the files they start from stay as {}",
                        task.uid, start.reference
                    )),
                    _ => start.remove().await?,
                }
                applied
            }
            // The task may exist, and may not have begun to copy.
            Err(error) if exit::classify(&error) == Exit::Unreachable => {
                let reference = &start.reference;
                let hint = format!(
                    "the files that the task starts from stay as {reference}; if it was not created: git update-ref -d {reference}"
                );
                context.reporter.hint(&hint);
                Err(error)
            }
            other => {
                start.remove().await?;
                other.map(|(_, exit)| exit)
            }
        }
    }

    /// Returns the task, unless it was only created, and how the command ends.
    async fn create_and_follow(
        &self,
        context: &Context,
        start: Option<&changes::Start>,
    ) -> anyhow::Result<(Option<Task>, Exit)> {
        let mut request = self.request(context, start)?;
        if !self.input.is_empty() {
            let inputs = artifacts::upload(context, &self.input).await?;
            if let Some(spec) = request.task.as_mut().and_then(|task| task.spec.as_mut()) {
                spec.inputs = inputs;
            }
        }
        if let Some(parent) = &self.parent
            && let Some(spec) = request.task.as_mut().and_then(|task| task.spec.as_mut())
        {
            spec.parent_task = id_of(context, parent).await?;
        }
        if self.all {
            let each = created::on_each(context, &request, &self.agent, self.detach, self.quiet);
            return Ok((None, Box::pin(each).await?));
        }
        Box::pin(created::create_and_follow(context, request, self.detach, self.quiet)).await
    }

    fn request(
        &self,
        context: &Context,
        start: Option<&changes::Start>,
    ) -> anyhow::Result<CreateTaskRequest> {
        let manifest = self.manifest(start)?;
        // The same validation as for manifests.
        let wrong: Vec<_> = manifest.validate().iter().map(ToString::to_string).collect();
        if !wrong.is_empty() {
            return Err(Failure::usage(wrong.join("; ")).into());
        }
        let mut request = manifest.to_request(&context.namespace, "");
        // Unlike in a manifest, the name does not identify the task: the same name creates a new task.
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

    fn manifest(&self, start: Option<&changes::Start>) -> anyhow::Result<Manifest> {
        let prompt = prompt(self.prompt.as_deref())?;
        if prompt.as_deref().is_none_or(|text| text.trim().is_empty()) && self.argv.is_empty() {
            return Err(Failure::usage("no prompt and no program")
                .hint("for example: rota run \"Write a haiku\", or rota run --command -- make")
                .into());
        }
        let limits = Limits {
            timeout: self.timeout,
            max_turns: self.max_turns,
            budget_usd: self.budget_usd,
            ..Limits::default()
        };
        let retry = RetryPolicy {
            max_attempts: self.max_attempts,
            escalate: self.escalate.clone(),
            ..RetryPolicy::default()
        };
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
                kind: self.kind.clone(),
                owner: self.owner.clone(),
                agent: self.agent.first().filter(|_| self.agent.len() == 1).cloned(),
                agents: if self.agent.len() > 1 { self.agent.clone() } else { Vec::new() },
                worker: self.worker.clone(),
                capabilities: self.needs.clone(),
                depends_on: self
                    .depends_on
                    .iter()
                    .map(|task| Dependency { task: task.clone(), on_failure: None })
                    .collect(),
                thread: self.thread.clone(),
                ttl_after_finished: self.ttl,
                priority: self.priority,
                limits: (limits != Limits::default()).then_some(limits),
                retry: (retry != RetryPolicy::default()).then_some(retry),
                environment: pairs::map(&self.env),
                workspace: match start {
                    Some(start) => Some(copy_of(start)?),
                    None => self.workspace()?,
                },
                runtime: (runtime != Runtime::default()).then_some(runtime),
                setup: shell(&self.setup),
                done_when: (!self.done_when.is_empty())
                    .then(|| DoneWhen { commands: shell(&self.done_when), ..DoneWhen::default() }),
                ..TaskSpec::default()
            },
            status: Default::default(),
        })
    }

    fn workspace(&self) -> anyhow::Result<Option<Workspace>> {
        let Some(given) = &self.workspace else { return Ok(None) };
        let full = given
            .canonicalize()
            .with_context(|| format!("failed to resolve the workspace {}", given.display()))?;
        let path = full.to_str().map(str::to_owned);
        let path = path.ok_or_else(|| Failure::usage(format!("{} is not UTF-8", full.display())))?;
        Ok(Some(Workspace {
            mode: Some(WorkspaceMode::InPlace),
            path: Some(path),
            shared: self.shared.then_some(true),
            ..Workspace::default()
        }))
    }
}

/// Returns a prompt as it is given; `-` reads it from standard input.
pub fn prompt(given: Option<&str>) -> anyhow::Result<Option<String>> {
    let Some("-") = given else { return Ok(given.map(str::to_owned)) };
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("failed to read standard input")?;
    Ok(Some(text))
}

fn shell(lines: &[String]) -> Vec<WorkspaceCommand> {
    let argv = |line: &String| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()];
    lines.iter().map(|line| WorkspaceCommand { argv: argv(line), ..WorkspaceCommand::default() }).collect()
}

/// Returns a workspace with a copy of the caller's files.
fn copy_of(start: &changes::Start) -> anyhow::Result<Workspace> {
    let root = start.root();
    let path = root.to_str().ok_or_else(|| Failure::usage(format!("{} is not UTF-8", root.display())))?;
    let git = GitSource {
        url: format!("file://{}", percent_encoding::utf8_percent_encode(path, PATH)),
        reference: Some(start.reference.clone()),
        ..GitSource::default()
    };
    Ok(Workspace { git: Some(git), ..Workspace::default() })
}
