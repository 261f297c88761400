//! Tables and texts about workflows.

use clap::Args;
use rota_proto::num::whole;
use rota_proto::{names, v1};

use crate::commands::pairs::{self, Pair};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Paint, Table, age, clean, elapsed, first_line, word};

#[derive(Debug, Args)]
pub(super) struct List {
    /// Include the workflows of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Only those of an owner
    #[arg(long, value_name = "OWNER", default_value = "", hide_default_value = true)]
    owner: String,
    /// Only those in these comma-separated states, such as running or compensation_failed; may be repeated
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = named_state)]
    state: Vec<v1::WorkflowState>,
    /// Only those with this label; may be repeated
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = pairs::pair)]
    label: Vec<Pair>,
    /// Only those of a template, or of one version of it
    #[arg(long, value_name = "NAME[@VERSION]", default_value = "", hide_default_value = true)]
    template: String,
    /// Only those that are steps of this workflow
    #[arg(long, value_name = "WORKFLOW", default_value = "", hide_default_value = true)]
    parent: String,
    /// Largest number of workflows that are listed
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

const STATE: &str = "WORKFLOW_STATE_";

/// Returns a state by the name that the API has for it, in any case.
fn named_state(text: &str) -> Result<v1::WorkflowState, String> {
    let full = format!("{STATE}{}", text.replace(['-', ' '], "_").to_uppercase());
    let known = v1::WorkflowState::from_str_name(&full);
    known.filter(|state| *state != v1::WorkflowState::Unspecified).ok_or_else(|| {
        let all = (1..).map_while(|number| v1::WorkflowState::try_from(number).ok());
        let names: Vec<_> = all.map(|state| word(state.as_str_name(), STATE)).collect();
        format!("{text:?} is not a state of workflows: {}", names.join(", "))
    })
}

impl List {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let parent_workflow = match self.parent.as_str() {
            "" => String::new(),
            parent => {
                let name = names::workflow(&context.namespace, parent);
                Box::pin(context.client.get_workflow(v1::GetWorkflowRequest { name })).await?.uid
            }
        };
        let request = v1::ListWorkflowsRequest {
            parent: context.parent(self.all_namespaces),
            filter: Some(v1::WorkflowFilter {
                states: self.state.iter().map(|state| (*state).into()).collect(),
                labels: pairs::map(&self.label),
                owner: self.owner,
                template: self.template,
                parent_workflow,
                ..v1::WorkflowFilter::default()
            }),
            ..v1::ListWorkflowsRequest::default()
        };
        // One more than the limit shows whether there are more.
        let limit = self.limit as usize;
        let mut workflows = context.client.newest_workflows(request, limit.saturating_add(1)).await?;
        let has_more = workflows.len() > limit;
        workflows.truncate(limit);
        if has_more {
            let text = format!("only the newest {limit} workflows are listed; raise --limit for more");
            context.reporter.note("note", &text);
        }
        if !context.out.is_human() {
            context.out.list("workflows", &workflows)?;
            return Ok(Exit::Ok);
        }
        let mut table = Table::new(&["NAMESPACE", "NAME", "STATE", "STEPS", "AGE", "TITLE", "REASON"]);
        for workflow in &workflows {
            let status = workflow.status.clone().unwrap_or_default();
            let (namespace, id) = names::parse(&workflow.name, "workflows").unwrap_or_default();
            let name = if workflow.alias.is_empty() { id } else { &workflow.alias };
            let title = workflow.spec.as_ref().map(|spec| first_line(&spec.title, 40)).unwrap_or_default();
            table.row([
                (namespace.to_owned(), Paint::Plain),
                (name.to_owned(), Paint::Plain),
                state(&status),
                (progress(&status), Paint::Plain),
                (age(workflow.create_time.as_ref()), Paint::Plain),
                (title, Paint::Plain),
                match status.waits_for_group {
                    true => (first_line(&group(&status.concurrency_group), 60), Paint::Waiting),
                    false => (first_line(&status.message, 60), Paint::Bad),
                },
            ]);
        }
        if table.is_empty() {
            context.reporter.line("no workflows");
        }
        context.out.table(&table)?;
        Ok(Exit::Ok)
    }
}

/// Returns the state of a workflow without its prefix.
pub(in crate::commands) fn state(status: &v1::WorkflowStatus) -> (String, Paint) {
    let state = status.state();
    let paint = match state {
        v1::WorkflowState::Succeeded => Paint::Good,
        v1::WorkflowState::Failed | v1::WorkflowState::CompensationFailed => Paint::Bad,
        v1::WorkflowState::Paused => Paint::Waiting,
        v1::WorkflowState::Cancelled | v1::WorkflowState::Unspecified => Paint::Faint,
        _ => Paint::Busy,
    };
    (state.as_str_name().trim_start_matches(STATE).to_owned(), paint)
}

/// Returns the state of a step without its prefix.
pub(super) fn step_state(state: v1::StepState) -> (String, Paint) {
    let paint = match state {
        v1::StepState::Succeeded => Paint::Good,
        v1::StepState::Failed => Paint::Bad,
        v1::StepState::Ready | v1::StepState::Running | v1::StepState::Ending => Paint::Busy,
        v1::StepState::Held | v1::StepState::Waiting => Paint::Waiting,
        _ => Paint::Faint,
    };
    (state.as_str_name().trim_start_matches("STEP_STATE_").to_owned(), paint)
}

fn progress(status: &v1::WorkflowStatus) -> String {
    let counts = status.counts.unwrap_or_default();
    format!("{}/{}", counts.succeeded + counts.failed + counts.skipped, counts.total)
}

/// Reports a change of a workflow.
pub(in crate::commands) fn changed(
    context: &Context,
    workflow: &v1::Workflow,
    what: &str,
) -> anyhow::Result<Exit> {
    if context.out.is_human() {
        let name = if workflow.alias.is_empty() { names::last(&workflow.name) } else { &workflow.alias };
        context.out.line(&format!("workflow/{name} {what}"))?;
    } else {
        context.out.value(workflow)?;
    }
    Ok(Exit::Ok)
}

pub(super) async fn get(context: &Context, name: &str) -> anyhow::Result<Exit> {
    let request = v1::GetWorkflowRequest { name: name.to_owned() };
    let workflow = Box::pin(context.client.get_workflow(request)).await?;
    if !context.out.is_human() {
        context.out.value(&workflow)?;
        return Ok(Exit::Ok);
    }
    let status = workflow.status.clone().unwrap_or_default();
    let line = |name: &str, value: &str| context.out.line(&format!("{name:<10}{value}"));
    line("Name", if workflow.alias.is_empty() { names::last(&workflow.name) } else { &workflow.alias })?;
    line("Id", &workflow.uid)?;
    if !workflow.parent_workflow.is_empty() {
        line("Step of", &format!("{} {}", workflow.parent_workflow, workflow.parent_step))?;
    }
    if !status.template.is_empty() {
        line("Template", &clean(&status.template))?;
    }
    let (state, paint) = state(&status);
    line("State", &paint.around(&state, context.out.colored()))?;
    line("Steps", &progress(&status))?;
    line("Trace", &status.trace_id)?;
    line("Time", &elapsed(workflow.create_time.as_ref(), status.end_time.as_ref()))?;
    if !status.message.is_empty() {
        line("Reason", &clean(&status.message))?;
    }
    if status.waits_for_group {
        line("Waits", &clean(&group(&status.concurrency_group)))?;
    }
    for (name, value) in status.outputs.iter().flat_map(|outputs| &outputs.fields) {
        let value = whole(serde_json::to_value(value)?);
        line("Output", &format!("{name}={}", clean(&value.to_string())))?;
    }
    let mut table = Table::new(&["STEP", "STATE", "TASKS", "ROUND", "TIME", "REASON"]);
    let steps = context.client.all_workflow_steps(name).await?;
    for step in &steps {
        let tasks = match step.tasks_total {
            0 => String::new(),
            total => format!("{}/{total}", step.tasks_succeeded + step.tasks_failed),
        };
        let time = step.start_time.as_ref().map(|start| elapsed(Some(start), step.end_time.as_ref()));
        table.row([
            (step.name.clone(), Paint::Plain),
            step_state(step.state()),
            (tasks, Paint::Plain),
            (if step.round > 1 { step.round.to_string() } else { String::new() }, Paint::Plain),
            (time.unwrap_or_default(), Paint::Plain),
            (first_line(&reason(step), 80), Paint::Plain),
        ]);
    }
    context.out.line("")?;
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

pub(super) fn explained(context: &Context, explained: &v1::ExplainWorkflowResponse) -> anyhow::Result<Exit> {
    if !context.out.is_human() {
        context.out.value(explained)?;
        return Ok(Exit::Ok);
    }
    context.out.line(&clean(&explained.summary))?;
    for cause in &explained.causes {
        context.out.line(&format!("- {}", clean(&cause.message)))?;
        if !cause.hint.is_empty() {
            context.out.line(&format!("  {}", clean(&cause.hint)))?;
        }
    }
    Ok(Exit::Ok)
}

fn group(name: &str) -> String {
    format!("waits for concurrency group {name}")
}

/// Returns what a step asks or waits for, how it ended, and what has become of its compensation.
fn reason(step: &v1::StepStatus) -> String {
    let compensation = match step.compensation() {
        v1::StepState::Unspecified => String::new(),
        state => format!("compensation {}", step_state(state).0),
    };
    let reason = match step.prompt.as_str() {
        _ if step.waits_for_group => group(&step.concurrency_group),
        "" if step.message.is_empty() && !step.last_workflow.is_empty() => {
            format!("workflow {} {}", step.last_workflow, step.template).trim_end().to_owned()
        }
        "" => step.message.clone(),
        prompt => prompt.to_owned(),
    };
    [compensation, reason].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Returns the line of a step that has changed.
pub(super) fn step_line(step: &v1::StepStatus, colored: bool) -> String {
    let (state, paint) = step_state(step.state());
    let reason = reason(step);
    let tasks = match step.tasks_total {
        0 | 1 => String::new(),
        total => format!(" {}/{total}", step.tasks_succeeded + step.tasks_failed),
    };
    let line = format!("{:<24} {}{tasks}", step.name, paint.around(&state, colored));
    if reason.is_empty() { line } else { format!("{line}  {}", first_line(&reason, 80)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_of_the_api() {
        for text in ["compensation_failed", "compensation-failed", "COMPENSATION_FAILED"] {
            assert_eq!(named_state(text), Ok(v1::WorkflowState::CompensationFailed), "{text}");
        }
        let unknown = named_state("done").unwrap_err();
        assert!(unknown.contains("running, paused") && unknown.contains("succeeded"), "{unknown}");
        assert!(named_state("unspecified").is_err());
    }
}
