//! Validation of workflows that are steps of others.

use rota_core::WorkflowId;
use rota_core::task::Trace;
use rota_core::workflow::MAX_DEPTH;
use rota_expressions::References;
use rota_proto::v1;
use rota_proto::v1::workflow_step::Kind;
use tonic::Status;

use super::MAX_VALUES;
use super::new_step::MAX_TASK;
use crate::wire::status::invalid;
use crate::wire::{check, names, template};

/// Checks the workflow of a step, and returns what the expressions of its inputs use.
pub(super) fn check(field: &str, given: &v1::SubWorkflow) -> Result<References, Status> {
    let at = |name: &str| format!("{field}.{name}");
    match (&given.spec, given.template.as_str()) {
        (None, "") => return Err(invalid(field, "needs a template or a spec")),
        (Some(spec), "") => check_spec(&at("spec"), spec)?,
        (Some(_), _) => return Err(invalid(field, "must not have a template and a spec")),
        (None, named) => drop(template::name(&at("template"), named)?),
    }
    let inputs = serde_json::to_value(given.inputs.clone().unwrap_or_default())
        .map_err(|error| invalid(at("inputs"), error.to_string()))?;
    check::length(&at("inputs"), &inputs.to_string(), MAX_VALUES)?;
    rota_expressions::references(&inputs).map_err(|error| invalid(at("inputs"), error.to_string()))
}

/// Checks what does not depend on the inputs, as that of a new workflow: the rest is checked when the step starts.
pub(super) fn check_spec(field: &str, spec: &v1::WorkflowSpec) -> Result<(), Status> {
    for (name, is_set) in [("inputs", spec.inputs.is_some()), ("input_files", !spec.input_files.is_empty())] {
        if is_set {
            let why = "must not be set: the inputs of the step are those of its workflow";
            return Err(invalid(format!("{field}.{name}"), why));
        }
    }
    if depth(spec) >= MAX_DEPTH {
        let why = format!("has workflows within each other more than {MAX_DEPTH} deep");
        return Err(invalid(field, why));
    }
    let text = serde_json::to_string(spec).map_err(|error| invalid(field, error.to_string()))?;
    check::length(field, &text, MAX_TASK)?;
    let mut spec = v1::WorkflowSpec { inputs_schema: None, concurrency: None, ..spec.clone() };
    for step in spec.steps.iter_mut().chain(&mut spec.finally) {
        step.concurrency = None;
    }
    let workflow = Some(v1::Workflow { spec: Some(spec), ..v1::Workflow::default() });
    let request = v1::CreateWorkflowRequest { workflow, ..v1::CreateWorkflowRequest::default() };
    let namespace = names::namespace(field, "default")?;
    let checked = super::check(namespace, WorkflowId(uuid::Uuid::nil()), Trace::default(), request);
    checked.map(drop).map_err(|status| invalid(field, status.message().to_owned()))
}

/// Whether the workflow of a step has a concurrency group, or a step with one, at any depth. That of a template is not known yet.
pub(super) fn has_groups(step: &v1::WorkflowStep) -> bool {
    let Some(Kind::Workflow(called)) = &step.kind else { return false };
    let Some(spec) = &called.spec else { return false };
    let mut steps = spec.steps.iter().chain(&spec.finally);
    spec.concurrency.is_some() || steps.any(|step| step.concurrency.is_some() || has_groups(step))
}

/// Returns how many workflows are within each other below this one.
fn depth(spec: &v1::WorkflowSpec) -> u32 {
    let inner = spec.steps.iter().chain(&spec.finally).filter_map(|step| match &step.kind {
        Some(Kind::Merge(_)) => Some(1),
        Some(Kind::Workflow(nested)) => Some(1 + nested.spec.as_ref().map_or(0, depth)),
        _ => None,
    });
    inner.max().unwrap_or(0)
}
