//! `rota schedule create`.

use clap::{Args, ValueEnum};
use rota_crds::{
    API_VERSION, ClaudeRuntime, CommandRuntime, HumanDuration, Limits, ObjectMeta, Priority, Runtime,
    Schedule, ScheduleCatchUp, ScheduleConcurrency, ScheduleHistory, ScheduleSpec, TaskSpec, Usd,
    WorkflowSpec,
};
use rota_proto::names;
use rota_proto::v1::CreateScheduleRequest;

use super::show;
use crate::commands::pairs::{self, Pair};
use crate::commands::run::prompt;
use crate::commands::workflow;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Arguments that a schedule of workflows has none of.
const OF_TASKS: [&str; 13] = [
    "prompt",
    "agent",
    "needs",
    "title",
    "priority",
    "timeout",
    "budget_usd",
    "model",
    "thread",
    "env",
    "secret_env",
    "command",
    "argv",
];

#[derive(Debug, Args)]
pub struct Create {
    /// Name of the schedule, unique in its namespace
    #[arg(value_name = "NAME")]
    name: String,
    /// Prompt of each task; `-` reads it from standard input
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
    /// Template of a workflow that each run creates instead of a task [default version: the newest at each run]
    #[arg(long, value_name = "NAME[@VERSION]", conflicts_with_all = OF_TASKS)]
    template: Option<String>,
    /// Parameter of the template, as JSON or as text; may be repeated
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// Cron expression: minute, hour, day, month, weekday; with six fields, seconds first
    #[arg(long, value_name = "EXPRESSION")]
    cron: String,
    /// Time zone of the expression, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Longest delay that is added to each time, such as 5m [default: none]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    jitter: Option<HumanDuration>,
    /// Longest delay after a time by which its run starts; later the time is skipped [default: no bound]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    start_deadline: Option<HumanDuration>,
    /// Action at a time at which earlier runs have not ended [default: allow]
    #[arg(long, value_name = "POLICY")]
    concurrency: Option<Concurrency>,
    /// Action after times that have passed while nothing could run [default: latest]
    #[arg(long, value_name = "RULE")]
    catch_up: Option<CatchUp>,
    /// Create the schedule paused, so that it runs by request only
    #[arg(long)]
    paused: bool,
    /// Successful runs whose tasks and workflows are kept, from 0 to 100 [default: all, as others are]
    #[arg(long, value_name = "COUNT", requires = "keep_failed")]
    keep_succeeded: Option<i32>,
    /// Other runs whose tasks and workflows are kept, from 0 to 100 [default: all, as others are]
    #[arg(long, value_name = "COUNT", requires = "keep_succeeded")]
    keep_failed: Option<i32>,
    /// Label of the schedule, its tasks and its workflows; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    label: Vec<Pair>,
    /// Agent that runs the tasks
    #[arg(long, short, value_name = "NAME", conflicts_with = "needs")]
    agent: Option<String>,
    /// Comma-separated capabilities that the worker must have; may be repeated
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    needs: Vec<String>,
    /// Title of each task, one line
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Priority: 0 to 10, or low, normal, high, urgent [default: normal]
    #[arg(long, short, value_name = "PRIORITY", value_parser = priority)]
    priority: Option<Priority>,
    /// Timeout of each task, such as 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    timeout: Option<HumanDuration>,
    /// Maximum cost of all attempts of each task in US dollars, such as 0.50
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true)]
    budget_usd: Option<Usd>,
    /// Model, for agents of the claude runtime
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Thread of the tasks, which then continue one conversation
    #[arg(long, value_name = "NAME")]
    thread: Option<String>,
    /// Environment variable of each task; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    env: Vec<Pair>,
    /// Secret environment variable, taken from the environment of this command now; may be repeated
    #[arg(long, value_name = "NAME")]
    secret_env: Vec<String>,
    /// Run the program after `--` instead of the agent's, for agents of the command runtime
    #[arg(long, requires = "argv", conflicts_with = "model")]
    command: bool,
    /// Program that each task runs, with its arguments
    #[arg(last = true, requires = "command", value_name = "ARGV")]
    argv: Vec<String>,
}

/// Reads a priority. One with `=` was meant as a parameter, which is `-p` where `rota run` creates a workflow.
fn priority(text: &str) -> Result<Priority, String> {
    let hint = if text.contains('=') { "; a parameter of a template is given with --parameter" } else { "" };
    text.parse().map_err(|error: String| format!("{error}{hint}"))
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Concurrency {
    /// The run starts besides them
    Allow,
    /// No run starts at this time
    Forbid,
    /// The run starts, and the earlier runs are cancelled once it exists
    Replace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CatchUp {
    /// One run for the last of them
    Latest,
    /// No run, unless its start deadline has not passed
    Skip,
    /// A run for each, at most for the last 100 of them
    All,
}

impl Create {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let manifest = self.manifest()?;
        // The same validation as for manifests.
        let wrong: Vec<_> = manifest.validate().iter().map(ToString::to_string).collect();
        if !wrong.is_empty() {
            return Err(Failure::usage(wrong.join("; ")).into());
        }
        let mut schedule = manifest.to_api(&context.namespace).map_err(Failure::usage)?;
        let spec = schedule.spec.get_or_insert_default();
        if let Some(task) = spec.task.as_mut().and_then(|task| task.spec.as_mut()) {
            task.secrets = pairs::from_environment(&self.secret_env)?;
        }
        if let Some(workflow) = &mut spec.workflow {
            // A manifest names no version.
            workflow.template = self.template.clone().unwrap_or_default();
            workflow.parameters = Some(workflow::parameters(&self.parameters)?);
        }
        let request = CreateScheduleRequest {
            parent: names::namespace(&context.namespace),
            schedule_id: self.name.clone(),
            schedule: Some(schedule),
            validate_only: false,
        };
        let schedule = Box::pin(context.client.create_schedule(request)).await?;
        if !context.out.is_human() {
            context.out.value(&schedule)?;
            return Ok(Exit::Ok);
        }
        let next =
            if self.paused { "paused".to_owned() } else { format!("next time: {}", show::next(&schedule)) };
        context.reporter.line(&format!("schedule {} created; {next}", self.name));
        Ok(Exit::Ok)
    }

    fn manifest(&self) -> anyhow::Result<Schedule> {
        let (task, workflow) = match &self.template {
            Some(template) => {
                let name = template.split('@').next().map(str::to_owned);
                (None, Some(WorkflowSpec { template: name, ..WorkflowSpec::default() }))
            }
            None => (Some(self.task()?), None),
        };
        let history = self.keep_succeeded.zip(self.keep_failed);
        Ok(Schedule {
            api_version: API_VERSION.to_owned(),
            kind: "Schedule".to_owned(),
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: pairs::map(&self.label),
                ..ObjectMeta::default()
            },
            spec: ScheduleSpec {
                cron: self.cron.clone(),
                time_zone: self.time_zone.clone(),
                jitter: self.jitter,
                start_deadline: self.start_deadline,
                concurrency: self.concurrency.map(|policy| match policy {
                    Concurrency::Allow => ScheduleConcurrency::Allow,
                    Concurrency::Forbid => ScheduleConcurrency::Forbid,
                    Concurrency::Replace => ScheduleConcurrency::Replace,
                }),
                catch_up: self.catch_up.map(|rule| match rule {
                    CatchUp::Latest => ScheduleCatchUp::Latest,
                    CatchUp::Skip => ScheduleCatchUp::Skip,
                    CatchUp::All => ScheduleCatchUp::All,
                }),
                paused: self.paused.then_some(true),
                history: history.map(|(succeeded, failed)| ScheduleHistory { succeeded, failed }),
                task,
                workflow,
            },
            status: Default::default(),
        })
    }

    fn task(&self) -> anyhow::Result<TaskSpec> {
        // Clap requires no flag that conflicts with one that is given.
        if !self.parameters.is_empty() {
            return Err(Failure::usage("--parameter is for a workflow: name its --template").into());
        }
        let prompt = prompt(self.prompt.as_deref())?;
        if prompt.as_deref().is_none_or(|text| text.trim().is_empty()) && self.argv.is_empty() {
            return Err(Failure::usage("no prompt and no program")
                .hint("for example: rota schedule create nightly --cron \"0 3 * * *\" \"Update the dependencies\"")
                .into());
        }
        let limits = Limits { timeout: self.timeout, budget_usd: self.budget_usd, ..Limits::default() };
        let claude =
            self.model.clone().map(|model| ClaudeRuntime { model: Some(model), ..Default::default() });
        let command = self.command.then(|| CommandRuntime { argv: self.argv.clone(), ..Default::default() });
        let runtime = Runtime { claude, command, ..Runtime::default() };
        Ok(TaskSpec {
            title: self.title.clone(),
            prompt,
            agent: self.agent.clone(),
            capabilities: self.needs.clone(),
            priority: self.priority,
            limits: (limits != Limits::default()).then_some(limits),
            thread: self.thread.clone(),
            environment: pairs::map(&self.env),
            runtime: (runtime != Runtime::default()).then_some(runtime),
            ..TaskSpec::default()
        })
    }
}
