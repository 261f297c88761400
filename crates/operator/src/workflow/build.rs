//! Builds the requests that a `Workflow` leads to. Pure.

use rota_crds::DesiredState;
use rota_crds::resource::Workflow;
use rota_proto::v1;

use crate::cluster::CLUSTER;

/// Builds the request that creates the record. Its id is the UID of the resource, so that repeating it has no effect.
pub(super) fn creation(workflow: &Workflow, cluster: &str) -> Result<v1::CreateWorkflowRequest, String> {
    let mut request = workflow.to_request()?;
    if let Some(record) = &mut request.workflow {
        record.labels.insert(CLUSTER.to_owned(), cluster.to_owned());
    }
    Ok(request)
}

/// Request that brings a record to the state that its resource asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Pause(v1::PauseWorkflowRequest),
    Resume(v1::ResumeWorkflowRequest),
    Cancel(v1::CancelWorkflowRequest),
}

/// Returns what the record needs; `None` if it is as the resource asks, has ended, or was cancelled, which cannot be undone.
pub(super) fn change(workflow: &Workflow, record: &v1::Workflow) -> Option<Change> {
    let status = record.status.as_ref()?;
    if status.end_time.is_some() || status.cancelled {
        return None;
    }
    let name = record.name.clone();
    match workflow.spec.desired_state? {
        // In later phases nothing can be held.
        DesiredState::Suspended if status.state() == v1::WorkflowState::Running => {
            Some(Change::Pause(v1::PauseWorkflowRequest { name, suspend_tasks: false }))
        }
        DesiredState::Run if status.paused => Some(Change::Resume(v1::ResumeWorkflowRequest { name })),
        DesiredState::Cancelled => {
            let reason = "the desired state of the Workflow resource".to_owned();
            Some(Change::Cancel(v1::CancelWorkflowRequest { name, reason, also_finally: false }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(spec: &str) -> Workflow {
        let text = format!(
            "apiVersion: rota.dev/v1alpha1
kind: Workflow
metadata: {{name: release, namespace: team, uid: 0198c0de-0000-7000-8000-000000000001, labels: {{a: b}}}}
spec: {{template: deploy{spec}}}
status: {{phase: Succeeded, completionTime: '2030-01-01T00:00:00Z'}}
"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    fn record(paused: bool, cancelled: bool) -> v1::Workflow {
        let mut status = v1::WorkflowStatus { paused, cancelled, ..Default::default() };
        status.set_state(if paused { v1::WorkflowState::Paused } else { v1::WorkflowState::Running });
        v1::Workflow { name: "n".into(), status: Some(status), ..Default::default() }
    }

    #[test]
    fn record_id_is_the_uid() {
        let request = creation(&workflow(""), "c1").unwrap();
        assert_eq!(request.workflow_id, "0198c0de-0000-7000-8000-000000000001");
        assert_eq!(request.template, "deploy");
        let record = request.workflow.unwrap();
        assert_eq!((record.alias.as_str(), record.labels[CLUSTER].as_str()), ("release", "c1"));
    }

    #[test]
    fn desired_state_is_followed_once() {
        let change = |state: &str, paused| change(&workflow(state), &record(paused, false));
        assert_eq!(change("", true), None, "it was paused over the API");
        assert!(matches!(change(", desiredState: Suspended", false), Some(Change::Pause(_))));
        assert_eq!(change(", desiredState: Suspended", true), None);
        assert!(matches!(change(", desiredState: Run", true), Some(Change::Resume(_))));
        let cancels = change(", desiredState: Cancelled", true);
        assert!(
            matches!(cancels, Some(Change::Cancel(request)) if !request.also_finally),
            "only people do that"
        );
        let mut stopping = record(false, false);
        stopping.status.as_mut().unwrap().set_state(v1::WorkflowState::Stopping);
        assert_eq!(super::change(&workflow(", desiredState: Suspended"), &stopping), None);
        let cancelled = record(false, true);
        assert_eq!(super::change(&workflow(", desiredState: Cancelled"), &cancelled), None);
    }
}
