//! Effects of reconciling a `Workflow`: API calls and status writes. Every call may be repeated.

use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use rota_client::Code;
use rota_core::text::prefix;
use rota_crds::resource::{Workflow, WorkflowStatus};
use rota_proto::causes::{GROUP_FULL, STEP_APPROVAL};
use rota_proto::v1;

use super::build::{self, Change};
use super::status::{MAX_MESSAGE_BYTES, WAITS_FOR_APPROVAL, WAITS_FOR_GROUP, Wait};
use crate::cluster;
use crate::context::Context;
use crate::error::{ReconcileError, camel_case, is_permanent, rejection_message};

/// Steps that wait for a person, of which the first is named: no more than one page of them.
const APPROVALS: i32 = 20;
/// Pages that are read until one has an entry.
const MAX_PAGES: usize = 10;
/// Steps of a workflow up to which an explanation, which visits all of them, is read for its status.
const MAX_EXPLAINED_STEPS: i32 = 1000;

/// Outcome of submitting a workflow.
pub(super) enum Submission {
    Accepted(Box<v1::Workflow>),
    /// Rejected permanently; a retry would be rejected too.
    Rejected {
        reason: String,
        message: String,
    },
    /// Waits for its template, which may be applied after it.
    NoTemplate {
        message: String,
    },
}

/// Submits a workflow, within the trace that its annotation names. Submitting it again returns the existing record.
pub(super) async fn submit(context: &Context, workflow: &Workflow) -> Result<Submission, ReconcileError> {
    let request = match build::creation(workflow, &context.cluster) {
        Ok(request) => request,
        Err(message) => return Ok(Submission::Rejected { reason: "InvalidSpec".to_owned(), message }),
    };
    let control = context.control.in_trace(workflow.traceparent(), None);
    match Box::pin(control.create_workflow(request)).await {
        Ok(record) => Ok(Submission::Accepted(Box::new(record))),
        Err(error) if error.code == Code::NotFound || is_permanent(&error) => {
            // An earlier submission may have been accepted, when its template was another one.
            if let Some(record) = read(context, super::record_name(workflow)).await? {
                return Ok(Submission::Accepted(Box::new(record)));
            }
            let message = rejection_message(&error);
            if error.code == Code::NotFound {
                return Ok(Submission::NoTemplate { message });
            }
            let reason = error.reason.unwrap_or_else(|| "Rejected".to_owned());
            Ok(Submission::Rejected { reason: camel_case(&reason), message })
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the record without its specification, if there is one.
pub(super) async fn read(context: &Context, name: String) -> Result<Option<v1::Workflow>, ReconcileError> {
    match Box::pin(context.control.get_workflow(v1::GetWorkflowRequest { name })).await {
        Ok(record) => Ok(Some(v1::Workflow { spec: None, ..record })),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Brings the record to the state that the resource asks for. Returns `None` if its state has changed meanwhile.
pub(super) async fn change(
    context: &Context,
    change: Change,
) -> Result<Option<v1::Workflow>, ReconcileError> {
    let control = &context.control;
    let changed = match change {
        Change::Pause(request) => control.pause_workflow(request).await,
        Change::Resume(request) => control.resume_workflow(request).await,
        Change::Cancel(request) => control.cancel_workflow(request).await,
    };
    match changed {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.code == Code::FailedPrecondition => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns the question of a step that waits for a person, of the workflow or of one that is a step of it; or else what the workflow waits
/// for in its concurrency group, or a step of it, unless they are many. Without an answer the status has neither.
pub(super) async fn waits_for(context: &Context, record: &v1::Workflow) -> Option<Wait> {
    let status = record.status.as_ref()?;
    if status.counts.is_some_and(|counts| counts.total > MAX_EXPLAINED_STEPS) {
        let group = || {
            let message =
                format!("the workflow waits for a place in concurrency group {}", status.concurrency_group);
            status.waits_for_group.then_some(Wait { reason: WAITS_FOR_GROUP, message })
        };
        return asked(&record.name, &approvals(context, record).await).or_else(group);
    }
    let request = v1::ExplainWorkflowRequest { name: record.name.clone(), step: String::new() };
    match context.control.explain_workflow(request).await {
        // It names a step that has begun and does not ask yet as well: its question changes nothing of the record.
        Ok(explained) => [(STEP_APPROVAL, WAITS_FOR_APPROVAL), (GROUP_FULL, WAITS_FOR_GROUP)]
            .into_iter()
            .find_map(|(code, reason)| {
                let cause = explained.causes.iter().find(|cause| cause.code == code)?;
                Some(Wait { reason, message: prefix(&cause.message, MAX_MESSAGE_BYTES).to_owned() })
            }),
        Err(error) => {
            tracing::debug!(%error, workflow = record.name, "failed to explain a workflow");
            None
        }
    }
}

/// Returns a page of the steps of a workflow and of those below it that wait for a person. Pages may be empty although more follow.
async fn approvals(context: &Context, record: &v1::Workflow) -> Vec<v1::PendingApproval> {
    let Some((parent, workflow)) = record.name.rsplit_once("/workflows/") else { return Vec::new() };
    let mut request = v1::ListApprovalsRequest {
        parent: parent.to_owned(),
        workflow: workflow.to_owned(),
        page_size: APPROVALS,
        page_token: String::new(),
        include_nested: true,
    };
    for _ in 0..MAX_PAGES {
        match context.control.list_approvals(request.clone()).await {
            Ok(page) if page.approvals.is_empty() && !page.next_page_token.is_empty() => {
                request.page_token = page.next_page_token;
            }
            Ok(page) => return page.approvals,
            Err(error) => {
                tracing::debug!(%error, workflow = record.name, "failed to list the approvals of a workflow");
                break;
            }
        }
    }
    Vec::new()
}

/// Returns the question of the first of these steps, with its workflow if that is another one. The last is listed first.
fn asked(record: &str, approvals: &[v1::PendingApproval]) -> Option<Wait> {
    // A control plane of an earlier version lists the steps of all workflows of the namespace.
    let is_meant = |approval: &&v1::PendingApproval| {
        let workflow = approval.workflow.as_ref();
        workflow.is_none_or(|workflow| workflow.name == record || !workflow.parent_step.is_empty())
    };
    let v1::PendingApproval { workflow, step } = approvals.iter().rfind(is_meant)?;
    let step = step.as_ref()?;
    let mut message = format!("step {} waits for a decision: {}", step.name, step.prompt);
    if let Some(other) = workflow.as_ref().filter(|workflow| workflow.name != record) {
        message = format!("in workflow {} of step {}: {message}", other.uid, other.parent_step);
    }
    Some(Wait { reason: WAITS_FOR_APPROVAL, message: prefix(&message, MAX_MESSAGE_BYTES).to_owned() })
}

/// Writes a status, unless it is unchanged.
pub(super) async fn write_status(
    context: &Context,
    workflow: &Workflow,
    status: WorkflowStatus,
) -> Result<(), ReconcileError> {
    if workflow.status.as_ref() == Some(&status) {
        return Ok(());
    }
    context.write_status::<Workflow>("workflow", &workflow.metadata, &status).await.map(drop)
}

/// Deletes the resource. The record stays in the control plane.
pub(super) async fn delete(context: &Context, workflow: &Workflow) -> Result<(), ReconcileError> {
    let namespace = workflow.namespace().unwrap_or_default();
    let workflows: Api<Workflow> = Api::namespaced(context.kube.clone(), &namespace);
    let uid = workflow.uid().unwrap_or_default();
    cluster::delete(&workflows, &workflow.name_any(), &uid, DeleteParams::default()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_step_that_asks_is_named() {
        let approval = |name: &str, prompt: &str| {
            let step =
                v1::StepStatus { name: name.to_owned(), prompt: prompt.to_owned(), ..Default::default() };
            let workflow = v1::Workflow { name: "own".to_owned(), ..Default::default() };
            v1::PendingApproval { workflow: Some(workflow), step: Some(step) }
        };
        let asked = |approvals: &[v1::PendingApproval]| super::asked("own", approvals);
        assert!(asked(&[]).is_none());
        let wait = asked(&[approval("last", "No?"), approval("first", "Go?")]).unwrap();
        assert_eq!(wait.reason, WAITS_FOR_APPROVAL);
        assert_eq!(wait.message, "step first waits for a decision: Go?");
        let long = asked(&[approval("first", &"x".repeat(4096))]).unwrap();
        assert_eq!(long.message.len(), MAX_MESSAGE_BYTES);
        let mut nested = approval("ask", "Go?");
        let (uid, parent_step) = ("inner".to_owned(), "call".to_owned());
        nested.workflow =
            Some(v1::Workflow { name: "other".to_owned(), uid, parent_step, ..Default::default() });
        let mut foreign = nested.clone();
        foreign.workflow.get_or_insert_default().parent_step.clear();
        assert!(asked(std::slice::from_ref(&foreign)).is_none(), "of another workflow");
        let wait = asked(&[nested, foreign]).unwrap();
        assert_eq!(wait.message, "in workflow inner of step call: step ask waits for a decision: Go?");
    }
}
