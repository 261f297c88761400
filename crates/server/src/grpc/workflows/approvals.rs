//! `ListApprovals`: the steps that wait for a person, from the index of them.

use std::time::Duration;

use prost::Message;
use rota_core::WorkflowKey;
use rota_core::workflow::Workflow;
use rota_proto::v1;
use rota_store::{StepKey, WorkflowQuery};
use tonic::Status;

use super::{MAX_PAGE_BYTES, Workflows};
use crate::grpc::answers::page_size;
use crate::wire::names;
use crate::wire::status::invalid;
use crate::wire::workflow as wire;

/// Steps that one call looks at: those of other namespaces are in the same index.
const MAX_LOOKED_AT: usize = 1000;
/// Time to wait for the index after a start.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

impl Workflows {
    pub(super) async fn approvals(
        &self,
        request: &v1::ListApprovalsRequest,
    ) -> Result<v1::ListApprovalsResponse, Status> {
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let limit = page_size(request.page_size, 50)?;
        let mut before = read_token(&request.page_token)?;
        let of = match request.workflow.as_str() {
            "" => None,
            _ if namespace.is_none() => {
                return Err(invalid("workflow", "must be empty for all namespaces: name one as the parent"));
            }
            named => Some(self.find("workflow", &format!("{}/workflows/{named}", request.parent)).await?.key),
        };
        let waiting = self.approvals.list(of, before, MAX_LOOKED_AT);
        let waiting = tokio::time::timeout(READ_TIMEOUT, waiting).await;
        let waiting =
            waiting.map_err(|_| Status::unavailable("the approvals are not read yet; retry the call"))?;
        let mut is_last = waiting.len() < MAX_LOOKED_AT;
        let (mut page, mut size) = (v1::ListApprovalsResponse::default(), 0);
        let mut known: Option<Workflow> = None;
        for key in waiting {
            if page.approvals.len() == limit {
                is_last = false;
                break;
            }
            if known.as_ref().is_none_or(|known| known.key != key.0) {
                known = self.query(WorkflowQuery::Key(key.0)).await?.workflows.pop();
            }
            let is_wanted = |workflow: &&Workflow| {
                !workflow.deleted && namespace.as_ref().is_none_or(|wanted| workflow.namespace == *wanted)
            };
            if let Some(workflow) = known.as_ref().filter(is_wanted)
                && let Some(step) = self.query(WorkflowQuery::StepsAt(key.0, vec![key.1])).await?.steps.pop()
                && step.awaits_decision()
            {
                let approval = v1::PendingApproval {
                    workflow: Some(wire::workflow(workflow, None, None)),
                    step: Some(wire::step(workflow, &step)),
                };
                size += approval.encoded_len();
                if size > MAX_PAGE_BYTES && !page.approvals.is_empty() {
                    is_last = false;
                    break;
                }
                page.approvals.push(approval);
            }
            before = Some(key);
        }
        if let Some((workflow, index)) = before.filter(|_| !is_last) {
            page.next_page_token = format!("{:x}-{index}", workflow.0);
        }
        Ok(page)
    }
}

fn read_token(token: &str) -> Result<Option<StepKey>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let key = token.split_once('-').and_then(|(workflow, index)| {
        Some((WorkflowKey(u64::from_str_radix(workflow, 16).ok()?), index.parse().ok()?))
    });
    key.map(Some).ok_or_else(|| invalid("page_token", "is not a token of an earlier page"))
}
