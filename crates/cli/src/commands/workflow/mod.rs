//! `rota workflow`: workflows and their steps.

mod create;
mod from_template;
mod graph;
mod report;
mod resolve;
mod show;
mod watch;

pub(super) use create::{parameters, read};
pub(super) use from_template::{FromTemplate, OF_TASKS};
pub(super) use graph::draw;
pub(super) use show::{changed, state};
pub(super) use watch::{exit, follow, to_end};

use clap::{Args, Subcommand};
use rota_proto::names;
use rota_proto::v1;

use super::artifacts;
use crate::context::Context;
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota workflow run -f deploy.yaml --watch
  rota workflow run --template deploy-app -p image=registry.example/app:1 -p replicas=2
  rota workflow list
  rota workflow get deploy
  rota workflow watch deploy
  rota workflow graph deploy
  rota workflow graph -f deploy.yaml --format svg > deploy.svg
  rota workflow report deploy
  rota workflow explain deploy
  rota workflow approve deploy --step release --comment \"looks good\"
  rota workflow resolve deploy --step migrate --done --note \"dropped the table\"
  rota workflow signal deploy go -p by=me
  rota workflow add-step deploy -f announce.yaml
  rota workflow cancel deploy --reason \"wrong branch\"
  rota workflow rerun deploy --failed

The file has the specification as YAML or JSON: inputs, steps, finally, outputs, as the API names them.";

/// Run workflows: graphs of tasks, approvals and waits
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Workflow {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Create a workflow, which runs immediately
    Run(create::Run),
    /// List workflows with their states and progress, newest first
    List(show::List),
    /// Show a workflow with its steps
    Get(Named),
    /// Follow a workflow until its end
    Watch(Named),
    /// Draw the steps of a workflow, or of a file, in text, Mermaid, DOT or SVG
    Graph(graph::Draw),
    /// Report the time, tasks and cost of each step, and which steps made the workflow as long as it is
    Report(Named),
    /// Explain why a workflow or a step does not continue
    Explain(Explain),
    /// Approve a step that waits for a person
    Approve(Decide),
    /// Reject a step that waits for a person
    Reject(Decide),
    /// Decide about a compensation that has failed: the others continue
    Resolve(resolve::Resolve),
    /// Send a signal to the steps that wait for it
    Signal(Signal),
    /// Add a step to a running workflow
    AddStep(AddStep),
    /// Start no further steps; tasks that exist continue
    Pause(Pause),
    /// Continue a paused workflow, with its suspended tasks
    Resume(Named),
    /// Cancel a workflow with its tasks; its steps of `finally` run nevertheless
    Cancel(Cancel),
    /// Run an ended workflow again, with all of its steps or those that have not succeeded
    Rerun(Rerun),
    /// Delete an ended workflow with its tasks
    Delete(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// Id or alias of a workflow
    #[arg(value_name = "WORKFLOW")]
    workflow: String,
}

#[derive(Debug, Args)]
struct Explain {
    #[command(flatten)]
    named: Named,
    /// Step to explain [default: all]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    step: String,
}

#[derive(Debug, Args)]
struct Decide {
    #[command(flatten)]
    named: Named,
    /// Name of the step that waits for the decision
    #[arg(long, value_name = "NAME")]
    step: String,
    /// Reason, which later steps can read
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
}

#[derive(Debug, Args)]
struct Signal {
    #[command(flatten)]
    named: Named,
    /// Name of the signal, as the steps have it
    #[arg(value_name = "SIGNAL")]
    signal: String,
    /// Value of its payload, as JSON or as text; may be repeated
    #[arg(long = "parameter", short, value_name = "NAME=VALUE")]
    parameters: Vec<String>,
}

#[derive(Debug, Args)]
struct AddStep {
    #[command(flatten)]
    named: Named,
    /// Step as YAML or JSON, as a workflow has it; `-` reads it from standard input
    #[arg(long = "filename", short, value_name = "FILE|-")]
    file: std::path::PathBuf,
}

#[derive(Debug, Args)]
struct Pause {
    #[command(flatten)]
    named: Named,
    /// Suspend also the tasks that no worker has started
    #[arg(long)]
    suspend_tasks: bool,
}

#[derive(Debug, Args)]
struct Cancel {
    #[command(flatten)]
    named: Named,
    /// Reason, which `rota workflow get` shows to people
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// End also the steps of `finally` that run, and start no further one: what they would clean up stays as it is
    #[arg(long)]
    also_finally: bool,
}

#[derive(Debug, Args)]
struct Rerun {
    #[command(flatten)]
    named: Named,
    /// Input in place of the one with the same name, as JSON or as text; may be repeated, the others stay
    #[arg(long = "parameter", short, value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// File in place of the input with this name, or with that of the file; may be repeated, the others stay
    #[arg(long = "input", value_name = "[NAME=]FILE")]
    inputs: Vec<String>,
    /// Cost of all of its tasks at which the new workflow fails, in US dollars, such as 5.00 [default: that of the earlier one]
    #[arg(long, value_name = "DOLLARS", allow_hyphen_values = true)]
    budget_usd: Option<rota_crds::Usd>,
    /// Run no step again that has succeeded and would run the same: its results are copied
    #[arg(long)]
    failed: bool,
    /// As `--failed`, but run this step again, and those that need it; may be repeated
    #[arg(long, value_name = "STEP")]
    from: Vec<String>,
}

impl Workflow {
    pub async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let client = &context.client;
        let name = |named: &Named| names::workflow(&context.namespace, &named.workflow);
        let changed = |workflow: v1::Workflow, what: &str| show::changed(context, &workflow, what);
        match self.what {
            What::Run(run) => Box::pin(run.run(context)).await,
            What::List(list) => list.run(context).await,
            What::Get(named) => show::get(context, &name(&named)).await,
            What::Watch(named) => Box::pin(watch::follow(context, &name(&named))).await,
            What::Graph(draw) => draw.run(context).await,
            What::Report(named) => report::report(context, &name(&named)).await,
            What::Explain(explain) => {
                let request =
                    v1::ExplainWorkflowRequest { name: name(&explain.named), step: explain.step.clone() };
                show::explained(context, &client.explain_workflow(request).await?)
            }
            What::Approve(decide) => decide.run(context, v1::StepDecision::Approve).await,
            What::Reject(decide) => decide.run(context, v1::StepDecision::Reject).await,
            What::Resolve(resolve) => Box::pin(resolve.run(context)).await,
            What::Signal(signal) => {
                let payload = create::parameters(&signal.parameters)?;
                let request = v1::SignalWorkflowRequest {
                    name: name(&signal.named),
                    signal: signal.signal.clone(),
                    payload: Some(payload),
                };
                let received = client.signal_workflow(request).await?;
                let (workflow, name) = (&signal.named.workflow, &signal.signal);
                if received.steps == 0 {
                    let text = format!("no step of {workflow} waits for signal {name}");
                    let hint = format!("see what its steps wait for: rota workflow explain {workflow}");
                    return Err(Failure::new(Exit::Failed, text).hint(hint).into());
                }
                if !context.out.is_human() {
                    context.out.value(&received)?;
                    return Ok(Exit::Ok);
                }
                let steps = if received.steps == 1 { "step" } else { "steps" };
                context.reporter.line(&format!("signal {name} received by {} {steps}", received.steps));
                Ok(Exit::Ok)
            }
            What::AddStep(add) => {
                let step = create::read_step(&add.file)?;
                let request = v1::AddWorkflowStepRequest { name: name(&add.named), step: Some(step) };
                let step = client.add_workflow_step(request).await?.step.unwrap_or_default();
                if context.out.is_human() {
                    context.reporter.line(&format!("step {} added", step.name));
                } else {
                    context.out.value(&step)?;
                }
                Ok(Exit::Ok)
            }
            What::Pause(pause) => {
                let request =
                    v1::PauseWorkflowRequest { name: name(&pause.named), suspend_tasks: pause.suspend_tasks };
                changed(client.pause_workflow(request).await?, "paused")
            }
            What::Resume(named) => changed(
                client.resume_workflow(v1::ResumeWorkflowRequest { name: name(&named) }).await?,
                "resumed",
            ),
            What::Cancel(cancel) => {
                let request = v1::CancelWorkflowRequest {
                    name: name(&cancel.named),
                    reason: cancel.reason.clone(),
                    also_finally: cancel.also_finally,
                };
                changed(client.cancel_workflow(request).await?, "cancelled")
            }
            What::Rerun(rerun) => {
                let inputs = (!rerun.parameters.is_empty())
                    .then(|| create::parameters(&rerun.parameters))
                    .transpose()?;
                let request = v1::RerunWorkflowRequest {
                    name: name(&rerun.named),
                    inputs,
                    budget_micro_usd: rerun.budget_usd.map_or(0, |budget| budget.micro),
                    input_files: artifacts::upload_named(context, &rerun.inputs).await?,
                    reuse_results: rerun.failed || !rerun.from.is_empty(),
                    steps: rerun.from.clone(),
                    ..v1::RerunWorkflowRequest::default()
                };
                changed(client.rerun_workflow(request).await?, "created")
            }
            What::Delete(named) => {
                client.delete_workflow(v1::DeleteWorkflowRequest { name: name(&named) }).await?;
                context.reporter.line(&format!("workflow {} deleted", named.workflow));
                Ok(Exit::Ok)
            }
        }
    }
}

impl Decide {
    async fn run(self, context: &Context, decision: v1::StepDecision) -> anyhow::Result<Exit> {
        let request = v1::DecideStepRequest {
            name: names::workflow(&context.namespace, &self.named.workflow),
            step: self.step.clone(),
            decision: decision.into(),
            comment: self.comment,
        };
        let decided = context.client.decide_step(request).await?;
        if !context.out.is_human() {
            context.out.value(&decided)?;
            return Ok(Exit::Ok);
        }
        let what = if decision == v1::StepDecision::Approve { "approved" } else { "rejected" };
        context.reporter.line(&format!("step {} {what}", self.step));
        Ok(Exit::Ok)
    }
}
