//! Workflows of schedules: the request that creates the one of a run, and errors about it.

use rota_core::Namespace;
use rota_proto::{names, v1};
use tonic::Status;
use tonic_types::StatusExt;

use super::status::invalid;
use crate::schedules::label;

const FIELD: &str = "schedule.spec.workflow";

/// Returns the request that creates the workflow of a run.
pub(crate) fn request(
    namespace: &Namespace,
    schedule: &str,
    given: v1::ScheduledWorkflow,
) -> v1::CreateWorkflowRequest {
    let v1::ScheduledWorkflow { template, parameters, spec, alias, mut labels, ttl_after_finished } = given;
    labels.extend([label(schedule)]);
    let workflow = v1::Workflow {
        alias: if alias.is_empty() { schedule.to_owned() } else { alias },
        spec: spec.map(|spec| *spec),
        labels,
        ttl_after_finished,
        ..v1::Workflow::default()
    };
    v1::CreateWorkflowRequest {
        parent: names::namespace(namespace.as_str()),
        workflow: Some(workflow),
        template,
        parameters,
        ..v1::CreateWorkflowRequest::default()
    }
}

/// Returns an error about such a request as one about the schedule.
pub(crate) fn located(status: Status) -> Status {
    let violation =
        status.get_details_bad_request().and_then(|found| found.field_violations.into_iter().next());
    match violation {
        Some(violation) => {
            let field = violation.field.strip_prefix("workflow.").unwrap_or(&violation.field);
            invalid(format!("{FIELD}.{field}"), violation.description)
        }
        None => status,
    }
}

/// Returns what a list shows of a workflow.
pub(crate) fn brief(whole: &v1::ScheduledWorkflow) -> v1::ScheduledWorkflow {
    let spec = whole.spec.as_ref().map(|spec| v1::WorkflowSpec {
        title: spec.title.clone(),
        owner: spec.owner.clone(),
        ..v1::WorkflowSpec::default()
    });
    v1::ScheduledWorkflow {
        template: whole.template.clone(),
        spec: spec.map(Box::new),
        ..v1::ScheduledWorkflow::default()
    }
}
