//! Workflows among dead letters: they are run again from the steps that have failed, with other inputs if they are given.

use std::collections::BTreeMap;

use anyhow::Context as _;
use pbjson_types::Struct;
use rota_proto::v1::{
    Artifact, GetWorkflowRequest, ListWorkflowsRequest, RerunWorkflowRequest, Workflow, WorkflowFilter,
    WorkflowState, WorkflowStatus,
};
use serde_json::Value;

use super::{Found, PAGE_SIZE, Take, Which, key};
use crate::commands::{editor, pairs, since};
use crate::context::Context;
use crate::exit::Failure;
use crate::output::{Paint, Table, age, first_line, word};

/// States of those that ask for a person.
const STATES: [WorkflowState; 2] = [WorkflowState::Failed, WorkflowState::CompensationFailed];

/// Inputs that take the place of those of the letter.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs {
    pub(super) values: Option<Struct>,
    pub(super) files: BTreeMap<String, Artifact>,
}

fn time(time: &pbjson_types::Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

fn created(workflow: &Workflow) -> (i64, i32) {
    workflow.create_time.as_ref().map(time).unwrap_or_default()
}

/// Returns dead letters, at most `limit`.
pub(super) async fn find(
    context: &Context,
    which: &Which,
    parent: String,
    limit: usize,
    take: Take,
) -> anyhow::Result<Found<Workflow>> {
    if !which.class.is_empty() || which.agent.is_some() || which.kind.is_some() {
        return Ok(Found { letters: Vec::new(), more: false, copies: 0 });
    }
    let replayed = take.replayed();
    let filter = WorkflowFilter {
        states: if replayed { STATES.map(Into::into).to_vec() } else { Vec::new() },
        dead_letters: !replayed,
        labels: pairs::map(&which.label),
        owner: which.owner.clone().unwrap_or_default(),
        template: which.template.clone().unwrap_or_default(),
        ..WorkflowFilter::default()
    };
    let after = which.since.as_ref().map(since);
    let after = after.as_ref().map(time);
    let is_old = |workflow: &Workflow| after.is_some_and(|after| created(workflow) <= after);
    let request = ListWorkflowsRequest {
        parent,
        page_size: PAGE_SIZE,
        filter: Some(filter),
        ..ListWorkflowsRequest::default()
    };
    let fits = |workflow: &Workflow| fits(workflow, take) && !is_old(workflow);
    let is_copy = |workflow: &Workflow| !workflow.rerun_of.is_empty();
    super::find(take, limit, fits, is_copy, async |page_token| {
        let page =
            context.client.list_workflows(ListWorkflowsRequest { page_token, ..request.clone() }).await?;
        let is_last = page.workflows.last().is_some_and(is_old);
        Ok((page.workflows, if is_last { String::new() } else { page.next_page_token }))
    })
    .await
}

/// Whether a command takes a workflow. An older control plane ignores filters that it does not know, and lists the workflows all the same.
fn fits(workflow: &Workflow, take: Take) -> bool {
    let is_letter = |status: &WorkflowStatus| STATES.contains(&status.state()) && status.rerun.is_empty();
    workflow.parent_workflow.is_empty()
        && (take.replayed() || workflow.status.as_ref().is_some_and(is_letter))
}

/// Fails if a workflow that was named is no dead letter, which filters leave out.
pub(super) fn check_named(given: &str, workflow: &Workflow) -> Result<(), Failure> {
    let status = workflow.status.clone().unwrap_or_default();
    if !STATES.contains(&status.state()) {
        let text = format!("workflow {given} has not failed");
        return Err(Failure::usage(text).hint(format!("see `rota workflow get {given}`")));
    }
    if !status.rerun.is_empty() {
        let text = format!("workflow {given} was already run again: {}", status.rerun);
        let hint = format!("run it once more with `rota workflow rerun {given} --failed`");
        return Err(Failure::usage(text).hint(hint));
    }
    if !workflow.parent_workflow.is_empty() {
        let text = format!("workflow {given} is step {} of another one", workflow.parent_step);
        return Err(Failure::usage(text).hint(format!("name that: {}", workflow.parent_workflow)));
    }
    Ok(())
}

/// Runs a dead letter again from the steps that have failed. Repeating the call returns the same workflow.
pub(super) async fn again(context: &Context, letter: &Workflow, inputs: Inputs) -> anyhow::Result<Workflow> {
    let request = RerunWorkflowRequest {
        name: letter.name.clone(),
        idempotency_key: key(&letter.uid),
        inputs: inputs.values,
        input_files: inputs.files,
        reuse_results: true,
        ..RerunWorkflowRequest::default()
    };
    Ok(context.client.rerun_workflow(request).await?)
}

/// Returns the inputs of a dead letter as a person has edited them, besides those that are files.
pub(super) async fn edited(context: &Context, letter: &Workflow, inputs: Inputs) -> anyhow::Result<Inputs> {
    let request = GetWorkflowRequest { name: letter.name.clone() };
    let spec = Box::pin(context.client.get_workflow(request)).await?.spec.unwrap_or_default();
    let mut values = spec.inputs.unwrap_or_default();
    values.fields.retain(|name, _| !spec.input_files.contains_key(name));
    values.fields.extend(inputs.values.unwrap_or_default().fields);
    let text = serde_saphyr::to_string(&serde_json::to_value(&values)?)?;
    let value: Value = serde_saphyr::from_str(&editor::edit(&text).await?)?;
    let values = serde_json::from_value(value).context("the file has no inputs of a workflow")?;
    Ok(Inputs { values: Some(values), ..inputs })
}

/// Returns a table of dead letters.
pub(super) fn table(letters: &[Workflow]) -> Table {
    let mut table = Table::new(&["ID", "NAME", "STATE", "STEP", "FAILED", "REPLAYED BY", "MESSAGE"]);
    for workflow in letters {
        let status = workflow.status.clone().unwrap_or_default();
        let cells = [
            workflow.uid.clone(),
            workflow.alias.clone(),
            word(status.state().as_str_name(), "WORKFLOW_STATE_"),
            first_line(&status.failed_step, 40),
            age(status.end_time.as_ref()),
            status.rerun.clone(),
            first_line(&status.message, 80),
        ];
        table.row(cells.map(|cell| (cell, Paint::Plain)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDEST: Take = Take::Oldest { again: false };

    fn workflow(state: WorkflowState, rerun: &str) -> Workflow {
        let status = WorkflowStatus { state: state.into(), rerun: rerun.to_owned(), ..Default::default() };
        Workflow { status: Some(status), ..Workflow::default() }
    }

    #[test]
    fn other_workflows_of_older_servers_are_excluded() {
        for state in [WorkflowState::Running, WorkflowState::Succeeded, WorkflowState::Cancelled] {
            assert!(!fits(&workflow(state, ""), OLDEST), "{state:?}");
        }
        for state in STATES {
            assert!(fits(&workflow(state, ""), OLDEST), "{state:?}");
            assert!(!fits(&workflow(state, "rerun"), OLDEST), "{state:?}");
            assert!(fits(&workflow(state, "rerun"), Take::Newest { replayed: true }), "{state:?}");
        }
    }
}
