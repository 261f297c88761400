//! Lists that are read to their end, page by page.

use std::collections::BTreeMap;

use rota_proto::v1;

use crate::{Client, Error};

/// Entries of a page that are asked for. The server makes pages smaller where it must.
const PAGE_SIZE: i32 = 1000;

/// Reads the pages of a call from the first one on, and returns the entries of a field of all responses, or so many at most.
macro_rules! all_pages {
    ($client:ident.$call:ident, $entries:ident, $request:expr) => {
        all_pages!($client.$call, $entries, $request, None)
    };
    ($client:ident.$call:ident, $entries:ident, $request:expr, $limit:expr) => {{
        let (mut all, mut request, limit): (Vec<_>, _, Option<usize>) = (Vec::new(), $request, $limit);
        loop {
            let left = limit.map_or(usize::MAX, |limit| limit - all.len());
            if left == 0 {
                break Ok::<_, Error>(all);
            }
            request.page_size = i32::try_from(left).unwrap_or(i32::MAX).min(PAGE_SIZE);
            let page = $client.$call(request.clone()).await?;
            all.extend(page.$entries);
            all.truncate(limit.unwrap_or(usize::MAX));
            if page.next_page_token.is_empty() {
                break Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }};
}

impl Client {
    /// Reads all pages of [`Client::list_tasks`]: the matching tasks, newest first, at most `limit`.
    pub async fn all_tasks(
        &self,
        request: v1::ListTasksRequest,
        limit: Option<usize>,
    ) -> Result<Vec<v1::Task>, Error> {
        all_pages!(self.list_tasks, tasks, request, limit)
    }

    /// Reads all pages of [`Client::list_workflows`]. `namespaces/-` means all namespaces.
    pub async fn all_workflows(
        &self,
        parent: &str,
        filter: v1::WorkflowFilter,
    ) -> Result<Vec<v1::Workflow>, Error> {
        let filter = Some(filter);
        let request = v1::ListWorkflowsRequest { parent: parent.into(), filter, ..Default::default() };
        all_pages!(self.list_workflows, workflows, request)
    }

    /// Reads pages of [`Client::list_workflows`]: the newest workflows, at most `limit`.
    pub async fn newest_workflows(
        &self,
        request: v1::ListWorkflowsRequest,
        limit: usize,
    ) -> Result<Vec<v1::Workflow>, Error> {
        all_pages!(self.list_workflows, workflows, request, Some(limit))
    }

    /// Reads all pages of [`Client::list_workflow_steps`].
    pub async fn all_workflow_steps(&self, workflow: &str) -> Result<Vec<v1::StepStatus>, Error> {
        let request = v1::ListWorkflowStepsRequest { parent: workflow.into(), ..Default::default() };
        let mut steps = all_pages!(self.list_workflow_steps, steps, request)?;
        steps.sort_by_key(|step| (step.finally, step.index));
        Ok(steps)
    }

    /// Reads all pages of [`Client::list_schedules`]. `namespaces/-` means all namespaces.
    pub async fn all_schedules(&self, parent: &str) -> Result<Vec<v1::Schedule>, Error> {
        let request = v1::ListSchedulesRequest { parent: parent.into(), ..Default::default() };
        all_pages!(self.list_schedules, schedules, request)
    }

    /// Reads all pages of [`Client::list_task_kinds`]. `namespaces/-` means the own kinds of all namespaces.
    pub async fn all_task_kinds(&self, parent: &str) -> Result<Vec<v1::TaskKind>, Error> {
        let request = v1::ListTaskKindsRequest { parent: parent.into(), ..Default::default() };
        all_pages!(self.list_task_kinds, task_kinds, request)
    }

    /// Reads all kinds of a namespace, and the names of those whose records cannot be decoded. `namespaces/-` means the own kinds of all
    /// namespaces.
    pub async fn all_kinds(&self, parent: &str) -> Result<(Vec<v1::TaskKind>, Vec<String>), Error> {
        let (mut kinds, mut damaged) = (Vec::new(), Vec::new());
        let parent = parent.into();
        let mut request = v1::ListTaskKindsRequest { parent, page_size: PAGE_SIZE, ..Default::default() };
        loop {
            let page = self.list_task_kinds(request.clone()).await?;
            kinds.extend(page.task_kinds);
            damaged.extend(page.damaged);
            if page.next_page_token.is_empty() {
                return Ok((kinds, damaged));
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Reads all pages of [`Client::list_workflow_templates`]. `namespaces/-` means all namespaces.
    pub async fn all_workflow_templates(&self, parent: &str) -> Result<Vec<v1::WorkflowTemplate>, Error> {
        let request = v1::ListWorkflowTemplatesRequest { parent: parent.into(), ..Default::default() };
        all_pages!(self.list_workflow_templates, workflow_templates, request)
    }

    /// Reads all pages of [`Client::list_agents`]. `namespaces/-` means all namespaces.
    pub async fn all_agents(&self, parent: &str) -> Result<Vec<v1::Agent>, Error> {
        self.labelled_agents(parent, BTreeMap::new()).await
    }

    /// Reads all pages of [`Client::list_agents`]: the agents that have all of these labels.
    pub async fn labelled_agents(
        &self,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<Vec<v1::Agent>, Error> {
        let request = v1::ListAgentsRequest { parent: parent.into(), labels, ..Default::default() };
        all_pages!(self.list_agents, agents, request)
    }

    /// Reads all pages of [`Client::list_workers`]: the workers of a namespace, or of one of its agents if `agent` is not
    /// empty.
    pub async fn all_workers(&self, parent: &str, agent: &str) -> Result<Vec<v1::Worker>, Error> {
        let (parent, agent) = (parent.into(), agent.into());
        let request = v1::ListWorkersRequest { parent, agent, ..Default::default() };
        all_pages!(self.list_workers, workers, request)
    }

    /// Reads all pages of [`Client::list_budgets`]. `namespaces/-` means all namespaces.
    pub async fn all_budgets(&self, parent: &str) -> Result<Vec<v1::BudgetStatus>, Error> {
        let request = v1::ListBudgetsRequest { parent: parent.into(), ..Default::default() };
        all_pages!(self.list_budgets, budgets, request)
    }

    /// Reads all pages of [`Client::list_worker_tokens`]. `namespaces/-` means all namespaces.
    pub async fn all_worker_tokens(&self, parent: &str) -> Result<Vec<v1::WorkerToken>, Error> {
        let request = v1::ListWorkerTokensRequest { parent: parent.into(), ..Default::default() };
        all_pages!(self.list_worker_tokens, worker_tokens, request)
    }

    /// Reads all pages of [`Client::list_browser_sessions`].
    pub async fn all_browser_sessions(&self) -> Result<Vec<v1::BrowserSession>, Error> {
        let request = v1::ListBrowserSessionsRequest::default();
        all_pages!(self.list_browser_sessions, browser_sessions, request)
    }
}
