//! Steps that wait for a person, from the index of them: `ListApprovals`, and those that an explanation begins with.

use std::time::Duration;

use prost::Message;
use rota_core::WorkflowKey;
use rota_core::workflow::{Step, Workflow};
use rota_proto::v1;
use rota_store::{Error, StepKey, WorkflowQuery, WorkflowRows};
use tonic::Status;

use super::{MAX_PAGE_BYTES, Workflows};
use crate::approvals::{Of, UNDECODABLE};
use crate::grpc::answers::page_size;
use crate::wire::names;
use crate::wire::status::{self, invalid};
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
            "" => Of::All,
            _ if namespace.is_none() => {
                return Err(invalid("workflow", "must be empty for all namespaces: name one as the parent"));
            }
            named => {
                let found = self.find("workflow", &format!("{}/workflows/{named}", request.parent)).await?;
                match request.include_nested {
                    true => Of::Below { workflow: found.key, root: found.root() },
                    false => Of::Workflow(found.key),
                }
            }
        };
        let waiting = self.approvals.list(of, before, MAX_LOOKED_AT);
        let waiting = tokio::time::timeout(READ_TIMEOUT, waiting).await;
        let waiting =
            waiting.map_err(|_| Status::unavailable("the approvals are not read yet; retry the call"))?;
        let mut is_last = waiting.len() < MAX_LOOKED_AT;
        let (mut page, mut size) = (v1::ListApprovalsResponse::default(), 0);
        let mut known = (WorkflowKey::default(), Vec::new());
        for key in waiting {
            if page.approvals.len() == limit {
                is_last = false;
                break;
            }
            if known.0 != key.0 {
                known = (key.0, self.listed(key.0, of).await?);
            }
            let is_wanted = |workflow: &&Workflow| {
                !workflow.deleted && namespace.as_ref().is_none_or(|wanted| workflow.namespace == *wanted)
            };
            if let Some(workflow) = known.1.first().filter(is_wanted)
                && let Some(step) = self.asking_step(key).await?
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

    /// Returns the first steps of a workflow and of those below it that wait for a person, each with its workflow and those around that. None
    /// while the index is not read.
    pub(super) async fn asking(
        &self,
        workflow: &Workflow,
        limit: usize,
    ) -> Result<Vec<(Vec<Workflow>, Step)>, Status> {
        let of = Of::Below { workflow: workflow.key, root: workflow.root() };
        let waiting = self.approvals.oldest(workflow.key, workflow.root(), MAX_LOOKED_AT);
        let (mut asking, mut known) = (Vec::new(), (WorkflowKey::default(), Vec::new()));
        for key in waiting {
            if asking.len() == limit {
                break;
            }
            if known.0 != key.0 {
                known = (key.0, self.listed(key.0, of).await?);
            }
            if !known.1.is_empty()
                && let Some(step) = self.asking_step(key).await?
            {
                asking.push((known.1.clone(), step));
            }
        }
        Ok(asking)
    }

    /// Returns a workflow with those around it up to the one whose steps are listed, from the innermost on. None if it is not listed,
    /// such as one whose record cannot be decoded: one damaged workflow keeps no other from being listed.
    async fn listed(&self, key: WorkflowKey, of: Of) -> Result<Vec<Workflow>, Status> {
        let (mut found, mut next) = (Vec::new(), key);
        loop {
            let Some(rows) = self.undamaged(WorkflowQuery::Key(next)).await? else {
                if next == key {
                    self.approvals.note_root(key, UNDECODABLE);
                }
                return Ok(Vec::new());
            };
            let Some(one) = rows.workflows.into_iter().next() else { return Ok(Vec::new()) };
            let (around, of_root) = (one.parent.as_ref().map(|parent| parent.step.workflow), one.root());
            found.push(one);
            let Of::Below { workflow, root } = of else { return Ok(found) };
            self.approvals.note_root(key, of_root);
            match around {
                _ if next == workflow => return Ok(found),
                Some(around) if of_root == root => next = around,
                _ => return Ok(Vec::new()),
            }
        }
    }

    /// Returns a step that waits for a person, as it is stored.
    async fn asking_step(&self, key: StepKey) -> Result<Option<Step>, Status> {
        let rows = self.undamaged(WorkflowQuery::StepsAt(key.0, vec![key.1])).await?.unwrap_or_default();
        Ok(rows.steps.into_iter().next().filter(Step::awaits_decision))
    }

    /// Returns records; none if they cannot be decoded.
    pub(super) async fn undamaged(&self, query: WorkflowQuery) -> Result<Option<WorkflowRows>, Status> {
        match self.store.reads().workflows(query).await {
            Err(Error::Corrupt(_)) => Ok(None),
            rows => rows.map(Some).map_err(status::store),
        }
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
