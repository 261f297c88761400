//! `rota plan`: an agent proposes subtasks for a sentence; checked, shown, and run as a workflow once a person approves. The control plane
//! knows no plans: planning is a task, and what comes of it a workflow.

mod manager;
mod manifest;
mod proposal;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use rota_crds::{HumanDuration, Usd};
use rota_proto::{names, v1};
use tokio::io::{AsyncBufReadExt, BufReader};

use self::manager::{Answer, Manager};
use self::manifest::Common;
use self::proposal::Bounds;
use super::editor;
use super::run::prompt;
use super::signals::Interrupt;
use super::workflow::{changed, draw, follow};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::money;

const EXAMPLES: &str = "\
Examples:
  rota plan \"Add an export to CSV, with tests and documentation\"
  rota plan --agent architect --workspace . \"Split the parser into modules\"
  rota plan --budget-usd 5 --yes --watch \"Compare three queue libraries\"
  rota plan -o yaml \"Translate the handbook\" > plan.yaml && rota apply -f plan.yaml

The agent plans and does not work. What it proposes is checked, drawn, and shown as a table; `e` opens it in $VISUAL or $EDITOR. An invalid \
plan is sent back once; if the next one is invalid, too, the work becomes one task.";

/// Plan work as subtasks of several agents, and run the plan as a workflow
///
/// Prints the plan to standard output and the progress to standard error. In a terminal it asks whether to run the plan; elsewhere it
/// runs it with --yes only. With -o yaml or -o json, it prints the plan as the manifest of a workflow.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Plan {
    /// Work to plan; `-` reads it from standard input
    pub work: String,
    /// Agent that plans, and that does the subtasks which need no capabilities
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    pub agent: String,
    /// Alias of the workflow, by which commands find it
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Maximum number of subtasks, up to 100
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub max_subtasks: u8,
    /// Maximum cost of planning and all subtasks together in US dollars, such as 5.00
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true)]
    pub budget_usd: Option<Usd>,
    /// Timeout of planning, such as 10m
    #[arg(long, value_name = "TIME", default_value = "15m", allow_hyphen_values = true)]
    pub timeout: HumanDuration,
    /// Working directory of planning and of all subtasks on the worker's machine, one at a time [default: a new directory each]
    #[arg(long, short, value_name = "DIR")]
    pub workspace: Option<PathBuf>,
    /// Run the plan without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Follow the workflow until its end
    #[arg(long)]
    pub watch: bool,
    /// Print only the plan, not the progress of planning
    #[arg(long, short)]
    pub quiet: bool,
}

impl Plan {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let work = prompt(Some(&self.work))?.unwrap_or_default();
        if work.trim().is_empty() {
            return Err(Failure::usage("there is no work to plan").into());
        }
        let workspace = self.workspace()?;
        let mut manager = Manager::new(context, &self, &work, workspace.clone()).await?;
        // What does not depend on the plan, such as the alias, is refused before an agent works on it.
        let any = Common { work: "plan", agent: &self.agent, workspace: None, budget: None };
        self.create(context, self.name.as_deref(), &any.single(), true).await?;
        let mut common = Common { work: &work, agent: &self.agent, workspace, budget: None };
        let mut problems = Vec::new();
        let mut spec = None;
        for _ in 0..2 {
            let Some(answer) = manager.ask(&problems).await? else { return Ok(Exit::Interrupted) };
            common.budget = manager.left()?;
            match self.check(context, &manager, &common, answer).await? {
                Ok(made) => {
                    spec = Some(made);
                    break;
                }
                Err(found) => problems = found,
            }
            for problem in &problems {
                context.reporter.note("plan", problem);
            }
        }
        let spec = spec.unwrap_or_else(|| {
            context.reporter.warn("no valid plan was proposed: the work becomes one task");
            common.single()
        });
        self.decide(context, spec).await
    }

    fn workspace(&self) -> anyhow::Result<Option<v1::Workspace>> {
        let Some(given) = &self.workspace else { return Ok(None) };
        let full = given
            .canonicalize()
            .with_context(|| format!("failed to resolve the workspace {}", given.display()))?;
        let path = full.to_str().ok_or_else(|| Failure::usage(format!("{} is not UTF-8", full.display())))?;
        let mode = v1::WorkspaceMode::InPlace.into();
        Ok(Some(v1::Workspace { mode, path: path.to_owned(), ..Default::default() }))
    }

    /// Returns the workflow of an answer, or what is wrong with it.
    async fn check(
        &self,
        context: &Context,
        manager: &Manager<'_>,
        common: &Common<'_>,
        answer: Answer,
    ) -> anyhow::Result<Result<v1::WorkflowSpec, Vec<String>>> {
        let data = match answer {
            Answer::Data(data) => data,
            Answer::Failed(why) => return Ok(Err(vec![why])),
        };
        let max_subtasks = usize::from(self.max_subtasks);
        let bounds = Bounds { team: manager.team(), max_subtasks, budget: common.budget };
        let spec = match proposal::read(&data, &bounds) {
            Ok(proposal) => common.workflow(&proposal),
            Err(problems) => return Ok(Err(problems)),
        };
        match self.create(context, self.name.as_deref(), &spec, true).await {
            Ok(_) => Ok(Ok(spec)),
            Err(error) if error.code == rota_client::Code::InvalidArgument => {
                Ok(Err(vec![error.to_string()]))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn create(
        &self,
        context: &Context,
        name: Option<&str>,
        spec: &v1::WorkflowSpec,
        validate_only: bool,
    ) -> Result<v1::Workflow, rota_client::Error> {
        let alias = name.unwrap_or_default().to_owned();
        let request = v1::CreateWorkflowRequest {
            parent: names::namespace(&context.namespace),
            workflow: Some(v1::Workflow { alias, spec: Some(spec.clone()), ..Default::default() }),
            validate_only,
            ..Default::default()
        };
        Box::pin(context.client.create_workflow(request)).await
    }

    /// Shows a plan, and runs it if that is wanted.
    async fn decide(&self, context: &Context, mut spec: v1::WorkflowSpec) -> anyhow::Result<Exit> {
        let mut name = self.name.clone();
        if self.yes {
            if context.out.is_human() {
                show(context, &spec)?;
            }
            return self.start(context, name.as_deref(), &spec).await;
        }
        if !context.out.is_human() {
            context.out.value(&manifest::manifest(name.as_deref(), &spec)?)?;
            return Ok(Exit::Ok);
        }
        show(context, &spec)?;
        if !(context.reporter.is_terminal() && std::io::IsTerminal::is_terminal(&std::io::stdin())) {
            context.reporter.hint("run it with --yes, or print it with `-o yaml`");
            return Ok(Exit::Ok);
        }
        let mut interrupt = Interrupt::listen()?;
        loop {
            context.reporter.line("run this plan? [y/n, e: edit]");
            // A reader for each line: while the editor runs, nothing else may read from the terminal.
            let mut line = String::new();
            let mut input = BufReader::with_capacity(1, tokio::io::stdin());
            let read = tokio::select! {
                read = input.read_line(&mut line) => read?,
                () = interrupt.received() => return Ok(Exit::Interrupted),
            };
            match line.trim() {
                "y" | "yes" => return self.start(context, name.as_deref(), &spec).await,
                "e" | "edit" => match self.edit(context, name.as_deref(), &spec).await {
                    Ok(edited) => {
                        (name, spec) = edited;
                        show(context, &spec)?;
                    }
                    // The plan is as it was before.
                    Err(error) => context.reporter.error(&format!("{error:#}")),
                },
                "n" | "no" => return Ok(Exit::Ok),
                _ if read == 0 => return Ok(Exit::Ok),
                _ => context.reporter.line("answer y, n or e"),
            }
        }
    }

    /// Returns the plan as a person has edited it, with its name.
    async fn edit(
        &self,
        context: &Context,
        name: Option<&str>,
        spec: &v1::WorkflowSpec,
    ) -> anyhow::Result<(Option<String>, v1::WorkflowSpec)> {
        let manifest = manifest::manifest(name, spec)?;
        let (name, spec) = manifest::parse(&editor::edit(&serde_saphyr::to_string(&manifest)?).await?)?;
        self.create(context, name.as_deref(), &spec, true).await?;
        Ok((name, spec))
    }

    async fn start(
        &self,
        context: &Context,
        name: Option<&str>,
        spec: &v1::WorkflowSpec,
    ) -> anyhow::Result<Exit> {
        let made = self.create(context, name, spec, false).await?;
        let created = changed(context, &made, "created")?;
        match self.watch {
            true => Box::pin(follow(context, &made.name)).await,
            false => Ok(created),
        }
    }
}

/// Prints a plan as a picture and a table.
fn show(context: &Context, spec: &v1::WorkflowSpec) -> anyhow::Result<()> {
    context.out.text(&draw(spec)?)?;
    context.out.table(&manifest::table(spec))?;
    let tasks = spec.steps.iter().filter_map(|step| match &step.kind {
        Some(v1::workflow_step::Kind::Task(task)) => task.limits.as_ref(),
        _ => None,
    });
    let budget: i64 = tasks.map(|limits| limits.budget_micro_usd).sum();
    if budget > 0 {
        context.reporter.line(&format!("at most {} for all subtasks", money(budget)));
    }
    Ok(())
}
