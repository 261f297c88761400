//! The unary calls of the API, each with its retry behavior. Also the place where creations get an idempotency key and
//! the caller's trace context, and where paged lists are read to their end.

use rota_proto::v1;

use crate::{Client, Error};

/// Generates one method per call: `repeat` retries it, `once` does not, `keyed` adds an idempotency key and retries.
macro_rules! calls {
    ($($(#[$doc:meta])* $how:ident $service:ident.$name:ident($request:ident) -> $answer:ty;)+) => {
        impl Client {
            $($(#[$doc])*
            pub async fn $name(&self, request: v1::$request) -> Result<$answer, Error> {
                calls!(@$how self, $service, $name, request: $request)
            })+
        }
    };
    (@repeat $client:ident, $service:ident, $name:ident, $request:ident: $ty:ident) => {
        $client.repeat(|| {
            let (mut service, request) = ($client.$service(), $request.clone());
            async move { service.$name(request).await }
        }).await
    };
    (@once $client:ident, $service:ident, $name:ident, $request:ident: $ty:ident) => {
        $client.once($client.$service().$name($request)).await
    };
    (@keyed $client:ident, $service:ident, $name:ident, $request:ident: $ty:ident) => {{
        let mut keyed = $request;
        Keyed::add_key(&mut keyed);
        let creation = $client.start_creation(<v1::$ty as Keyed>::METHOD);
        let result = $client.repeat(|| {
            let (mut service, request) = ($client.$service(), creation.request(keyed.clone()));
            async move { service.$name(request).await }
        }).await;
        creation.finish(&result);
        result
    }};
}

calls! {
    /// Creates a task. When it returns, the task is durable.
    keyed tasks.create_task(CreateTaskRequest) -> v1::Task;
    /// Creates several tasks. Each has a result of its own: some may be rejected.
    keyed tasks.batch_create_tasks(BatchCreateTasksRequest) -> v1::BatchCreateTasksResponse;
    /// Creates a new task from the specification of one that has ended.
    keyed tasks.retry_task(RetryTaskRequest) -> v1::Task;
    /// Returns a task with its specification and status.
    repeat tasks.get_task(GetTaskRequest) -> v1::Task;
    /// Returns one page of tasks, newest first. [`Client::all_tasks`] reads all pages.
    repeat tasks.list_tasks(ListTasksRequest) -> v1::ListTasksResponse;
    /// Returns one page of threads, by namespace and name.
    repeat tasks.list_threads(ListThreadsRequest) -> v1::ListThreadsResponse;
    /// Updates the mutable fields of a task: priority, labels, desired state.
    repeat tasks.update_task(UpdateTaskRequest) -> v1::Task;
    /// Requests cancellation of a task. A running attempt ends later.
    repeat tasks.cancel_task(CancelTaskRequest) -> v1::Task;
    /// Settles that a task which keeps failing needs attention.
    repeat tasks.acknowledge_task(AcknowledgeTaskRequest) -> v1::Task;
    /// Counts or changes some of the tasks that match a filter. Call it again while there are more.
    repeat tasks.change_tasks(ChangeTasksRequest) -> v1::ChangeTasksResponse;
    /// Returns one page of the tasks that have the words of a text, newest first.
    repeat tasks.search_tasks(SearchTasksRequest) -> v1::SearchTasksResponse;
    /// Streams all tasks that match a filter, as CSV or as JSON lines. Not retried: what was received is written already.
    once tasks.export_tasks(ExportTasksRequest) -> tonic::Streaming<rota_proto::HttpBody>;
    /// Searches a part of a task's log. Call it again while there is more.
    repeat tasks.search_task_log(SearchTaskLogRequest) -> v1::SearchTaskLogResponse;
    /// Explains why a task is not running.
    repeat tasks.explain_task(ExplainTaskRequest) -> v1::ExplainTaskResponse;
    /// Sends input to a running task. Not retried: the agent could read a message twice, and an answer could be taken for that of
    /// another question, which the agent has asked under the same id in between.
    once tasks.send_task_input(SendTaskInputRequest) -> v1::SendTaskInputResponse;
    /// Creates an agent. Not retried: a second try would find it in existence. `update_agent` with `allow_missing`
    /// creates it, too.
    once agents.create_agent(CreateAgentRequest) -> v1::Agent;
    /// Returns an agent with its specification and status.
    repeat agents.get_agent(GetAgentRequest) -> v1::Agent;
    /// Returns one page of a namespace's agents, by name. [`Client::all_agents`] reads all pages.
    repeat agents.list_agents(ListAgentsRequest) -> v1::ListAgentsResponse;
    /// Updates an agent, or creates it with `allow_missing`.
    repeat agents.update_agent(UpdateAgentRequest) -> v1::Agent;
    /// Deletes an agent. Not retried: a second try would not find it.
    once agents.delete_agent(DeleteAgentRequest) -> pbjson_types::Empty;
    /// Drains an agent's workers: they finish what they run and receive no new tasks.
    repeat agents.drain_agent(DrainAgentRequest) -> v1::DrainAgentResponse;
    /// Returns one page of workers that are connected, or that still hold tasks. [`Client::all_workers`] reads all pages.
    repeat agents.list_workers(ListWorkersRequest) -> v1::ListWorkersResponse;
    /// Reports that a worker's process has certainly exited, so that its tasks need not wait for it to reconnect.
    repeat agents.report_worker_death(ReportWorkerDeathRequest) -> v1::ReportWorkerDeathResponse;
    /// Announces which workers may join for an agent.
    repeat agents.announce_workers(AnnounceWorkersRequest) -> v1::AnnounceWorkersResponse;
    /// Reports the status of an agent's worker pool.
    repeat agents.report_agent(ReportAgentRequest) -> v1::ReportAgentResponse;
    /// Returns the capabilities that the agents of a namespace have.
    repeat agents.list_capabilities(ListCapabilitiesRequest) -> v1::ListCapabilitiesResponse;
    /// Creates a schedule. Not retried: a second try would find it in existence. `update_schedule` with `allow_missing`
    /// creates it, too.
    once schedules.create_schedule(CreateScheduleRequest) -> v1::Schedule;
    /// Returns a schedule with its runs and its next times.
    repeat schedules.get_schedule(GetScheduleRequest) -> v1::Schedule;
    /// Returns one page of schedules, by name. [`Client::all_schedules`] reads all pages.
    repeat schedules.list_schedules(ListSchedulesRequest) -> v1::ListSchedulesResponse;
    /// Updates a schedule, or creates it with `allow_missing`.
    repeat schedules.update_schedule(UpdateScheduleRequest) -> v1::Schedule;
    /// Deletes a schedule. Not retried: a second try would not find it.
    once schedules.delete_schedule(DeleteScheduleRequest) -> pbjson_types::Empty;
    /// Runs a schedule now. When it returns, the task is durable.
    keyed schedules.run_schedule(RunScheduleRequest) -> v1::RunScheduleResponse;
    /// Returns the next times of a schedule or of an expression.
    repeat schedules.preview_schedule(PreviewScheduleRequest) -> v1::PreviewScheduleResponse;
    /// Creates a workflow. When it returns, the workflow is durable.
    keyed workflows.create_workflow(CreateWorkflowRequest) -> v1::Workflow;
    /// Creates a workflow with the specification of an ended one.
    keyed workflows.rerun_workflow(RerunWorkflowRequest) -> v1::Workflow;
    /// Returns a workflow with its specification and outputs.
    repeat workflows.get_workflow(GetWorkflowRequest) -> v1::Workflow;
    /// Returns one page of workflows, newest first.
    repeat workflows.list_workflows(ListWorkflowsRequest) -> v1::ListWorkflowsResponse;
    /// Returns one page of the steps of a workflow. [`Client::all_workflow_steps`] reads all pages.
    repeat workflows.list_workflow_steps(ListWorkflowStepsRequest) -> v1::ListWorkflowStepsResponse;
    /// Returns one page of the steps that wait for a person.
    repeat workflows.list_approvals(ListApprovalsRequest) -> v1::ListApprovalsResponse;
    /// Streams all steps of a workflow, then their changes, until its end. Ends with the connection.
    repeat workflows.watch_workflow(WatchWorkflowRequest) -> tonic::Streaming<v1::WatchWorkflowResponse>;
    /// Streams changes of workflows from a token on. Ends with the connection.
    repeat workflows.watch_workflows(WatchWorkflowsRequest) -> tonic::Streaming<v1::WatchWorkflowsResponse>;
    /// Explains why a workflow or a step does not continue.
    repeat workflows.explain_workflow(ExplainWorkflowRequest) -> v1::ExplainWorkflowResponse;
    /// Cancels a workflow with its tasks. Its finally-steps run, unless the request cancels them, too.
    repeat workflows.cancel_workflow(CancelWorkflowRequest) -> v1::Workflow;
    /// Starts no further steps of a workflow.
    repeat workflows.pause_workflow(PauseWorkflowRequest) -> v1::Workflow;
    /// Continues a paused workflow, with its suspended tasks.
    repeat workflows.resume_workflow(ResumeWorkflowRequest) -> v1::Workflow;
    /// Approves or rejects a step. Not retried: a second try would find it decided.
    once workflows.decide_step(DecideStepRequest) -> v1::DecideStepResponse;
    /// Resolves the failed compensation of a step. Name the failure: a second try changes nothing then.
    repeat workflows.resolve_compensation(ResolveCompensationRequest) -> v1::ResolveCompensationResponse;
    /// Sends a signal. Not retried: a second try would find no step that waits.
    once workflows.signal_workflow(SignalWorkflowRequest) -> v1::SignalWorkflowResponse;
    /// Adds a step to a running workflow.
    repeat workflows.add_workflow_step(AddWorkflowStepRequest) -> v1::AddWorkflowStepResponse;
    /// Deletes an ended workflow. Not retried: a second try would not find it.
    once workflows.delete_workflow(DeleteWorkflowRequest) -> pbjson_types::Empty;
    /// Returns the newest version of a template, or a given one.
    repeat templates.get_workflow_template(GetWorkflowTemplateRequest) -> v1::WorkflowTemplate;
    /// Returns one page of templates, by name. [`Client::all_workflow_templates`] reads all pages.
    repeat templates.list_workflow_templates(ListWorkflowTemplatesRequest) -> v1::ListWorkflowTemplatesResponse;
    /// Creates a template. Not retried: a second try would find it in existence. `update_workflow_template` with
    /// `allow_missing` creates it, too.
    once templates.create_workflow_template(CreateWorkflowTemplateRequest) -> v1::WorkflowTemplate;
    /// Adds a version to a template, or creates the template with `allow_missing`.
    repeat templates.update_workflow_template(UpdateWorkflowTemplateRequest) -> v1::WorkflowTemplate;
    /// Deletes a template with its versions. Not retried: a second try would not find it.
    once templates.delete_workflow_template(DeleteWorkflowTemplateRequest) -> pbjson_types::Empty;
    /// Returns a kind of tasks.
    repeat kinds.get_task_kind(GetTaskKindRequest) -> v1::TaskKind;
    /// Returns one page of kinds of tasks, by name. [`Client::all_task_kinds`] reads all pages.
    repeat kinds.list_task_kinds(ListTaskKindsRequest) -> v1::ListTaskKindsResponse;
    /// Creates or replaces a kind of tasks.
    repeat kinds.put_task_kind(PutTaskKindRequest) -> v1::TaskKind;
    /// Deletes a kind of tasks. Not retried: a second try would not find it.
    once kinds.delete_task_kind(DeleteTaskKindRequest) -> pbjson_types::Empty;
    /// Returns the status of the control plane. Not retried: the caller wants the status now, or the error.
    once admin.get_system_status(GetSystemStatusRequest) -> v1::SystemStatus;
    /// Returns the state of the database of the control plane, if it has one. Not retried, as the status.
    once admin.get_database_status(GetDatabaseStatusRequest) -> v1::DatabaseStatus;
    /// Returns the background tasks of the control plane with their health.
    once admin.list_background_tasks(ListBackgroundTasksRequest) -> v1::ListBackgroundTasksResponse;
    /// Returns the active log filter of the control plane.
    once admin.get_log_filter(GetLogFilterRequest) -> v1::LogFilter;
    /// Replaces the log filter of the control plane.
    repeat admin.set_log_filter(SetLogFilterRequest) -> v1::LogFilter;
    /// Closes an agent's circuit breaker immediately.
    repeat admin.reset_breaker(ResetBreakerRequest) -> v1::ResetBreakerResponse;
    /// Sets or removes the budget of a namespace.
    repeat admin.set_namespace_budget(SetNamespaceBudgetRequest) -> v1::SetNamespaceBudgetResponse;
    /// Replaces what an agent or a namespace has spent.
    repeat admin.correct_spending(CorrectSpendingRequest) -> v1::CorrectSpendingResponse;
    /// Returns what agents and namespaces have spent, with their budgets.
    repeat admin.list_budgets(ListBudgetsRequest) -> v1::ListBudgetsResponse;
    /// Returns everything that is known to be wrong now. Not retried: the caller wants it now, or the error.
    once admin.list_alerts(ListAlertsRequest) -> v1::ListAlertsResponse;
    /// Returns metrics of the past 30 days.
    repeat admin.get_metrics_history(GetMetricsHistoryRequest) -> v1::MetricsHistory;
    /// Returns what was spent in the past 30 days, by day, agent and model.
    repeat admin.get_spending(GetSpendingRequest) -> v1::Spending;
    /// Issues a token for workers outside of a cluster. Not retried: a second try would issue another one, and the first would stay.
    once admin.issue_worker_token(IssueWorkerTokenRequest) -> v1::IssueWorkerTokenResponse;
    /// Returns one page of the records of worker tokens. [`Client::all_worker_tokens`] reads all pages.
    repeat admin.list_worker_tokens(ListWorkerTokensRequest) -> v1::ListWorkerTokensResponse;
    /// Revokes a worker token. Not retried: a second try would not find it.
    once admin.revoke_worker_token(RevokeWorkerTokenRequest) -> v1::WorkerToken;
    /// Returns how people sign in.
    repeat admin.get_sign_in_options(GetSignInOptionsRequest) -> v1::SignInOptions;
    /// Returns a code that signs a browser in with the token of this client, once.
    repeat admin.issue_sign_in_code(IssueSignInCodeRequest) -> v1::IssueSignInCodeResponse;
    /// Returns one page of the sessions of browsers. [`Client::all_browser_sessions`] reads all pages.
    repeat admin.list_browser_sessions(ListBrowserSessionsRequest) -> v1::ListBrowserSessionsResponse;
    /// Ends a session of a browser. Not retried: a second try would not find it.
    once admin.revoke_browser_session(RevokeBrowserSessionRequest) -> v1::BrowserSession;
    /// Removes some records of tasks that ended long ago. Call it again while there are more.
    repeat admin.prune(PruneRequest) -> v1::PruneResponse;
    /// Seals some secrets under the next key. Call it again while there are more.
    repeat admin.rotate_key(RotateKeyRequest) -> v1::RotateKeyResponse;
    /// Has the full-text index built again. Not retried: a second try would begin again.
    once admin.rebuild_search_index(RebuildSearchIndexRequest) -> v1::RebuildSearchIndexResponse;
    /// Returns a consistent copy of the store, part by part.
    once admin.backup(BackupRequest) -> tonic::Streaming<v1::BackupResponse>;
}

/// A creation, which is safe to repeat once it has a key.
trait Keyed {
    /// Full name of the call, for its span.
    const METHOD: &'static str;

    /// Adds a generated key unless the caller provided one.
    fn add_key(&mut self);
}

impl Keyed for v1::CreateTaskRequest {
    const METHOD: &'static str = "rota.v1.TaskService/CreateTask";

    // A task id deduplicates like a key, and leaves no record that outlives the task.
    fn add_key(&mut self) {
        if self.idempotency_key.is_empty() && self.task_id.is_empty() {
            self.task_id = uuid::Uuid::now_v7().to_string();
        }
    }
}

impl Keyed for v1::CreateWorkflowRequest {
    const METHOD: &'static str = "rota.v1.WorkflowService/CreateWorkflow";

    fn add_key(&mut self) {
        if self.idempotency_key.is_empty() && self.workflow_id.is_empty() {
            self.workflow_id = uuid::Uuid::now_v7().to_string();
        }
    }
}

impl Keyed for v1::RerunWorkflowRequest {
    const METHOD: &'static str = "rota.v1.WorkflowService/RerunWorkflow";

    fn add_key(&mut self) {
        if self.idempotency_key.is_empty() {
            self.idempotency_key = format!("client:{}", uuid::Uuid::new_v4());
        }
    }
}

impl Keyed for v1::RetryTaskRequest {
    const METHOD: &'static str = "rota.v1.TaskService/RetryTask";

    fn add_key(&mut self) {
        if self.idempotency_key.is_empty() {
            self.idempotency_key = format!("client:{}", uuid::Uuid::new_v4());
        }
    }
}

impl Keyed for v1::RunScheduleRequest {
    const METHOD: &'static str = "rota.v1.ScheduleService/RunSchedule";

    fn add_key(&mut self) {
        if self.idempotency_key.is_empty() {
            self.idempotency_key = format!("client:{}", uuid::Uuid::new_v4());
        }
    }
}

impl Keyed for v1::BatchCreateTasksRequest {
    const METHOD: &'static str = "rota.v1.TaskService/BatchCreateTasks";

    fn add_key(&mut self) {
        self.requests.iter_mut().for_each(Keyed::add_key);
    }
}
