//! `WorkflowService`.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rota_core::workflow::{self, Kind, Rejected, Step, StepCommand, StepState, Workflow};
use rota_core::{Namespace, WorkflowId, WorkflowKey};
use rota_proto::v1;
use rota_proto::v1::workflow_service_server::WorkflowService;
use rota_store::{Command, Refused, Reply, WorkflowCommand, WorkflowFilter, WorkflowQuery};
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::create;
use super::streams::{Boxed, Streams, send};
use super::templates::Templates;
use crate::store_client::{StoreClient, no_reply, unexpected_reply};
use crate::wire::status::{error, invalid};
use crate::wire::workflow::{self as wire, StoredSpec, StoredStep, WorkflowName};
use crate::wire::{check, names, status};
use crate::workflows::ReadySteps;

/// Bytes of a page; a page has at least one entry.
const MAX_PAGE_BYTES: usize = 1 << 20;
const PAGE: usize = 500;
const MAX_REASON: usize = 1 << 10;
const MAX_COMMENT: usize = 4 << 10;
const MAX_PAYLOAD: usize = 16 << 10;
/// Steps that an explanation names.
const MAX_CAUSES: usize = 50;

#[derive(Clone)]
pub(crate) struct Workflows {
    pub(crate) store: StoreClient,
    pub(crate) ready_steps: Arc<ReadySteps>,
    pub(crate) streams: Streams,
    pub(crate) templates: Templates,
}

fn not_found(what: &str) -> Status {
    error("WORKFLOW_NOT_FOUND", format!("workflow {what} does not exist"))
}

fn page_size(given: i32, default: usize) -> Result<usize, Status> {
    match usize::try_from(given) {
        Err(_) => Err(invalid("page_size", "must not be negative")),
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(1000)),
    }
}

impl Workflows {
    async fn query(&self, query: WorkflowQuery) -> Result<rota_store::WorkflowRows, Status> {
        self.store.reads().workflows(query).await.map_err(status::store)
    }

    async fn find(&self, field: &str, name: &str) -> Result<Workflow, Status> {
        let (namespace, named) = wire::name(field, name)?;
        let query = match named {
            WorkflowName::Id(id) => WorkflowQuery::Id((namespace, id)),
            WorkflowName::Alias(alias) => WorkflowQuery::Alias((namespace, alias)),
        };
        let found = self.query(query).await?.workflows.into_iter().find(|workflow| !workflow.deleted);
        found.ok_or_else(|| not_found(name))
    }

    async fn stored_spec(&self, key: WorkflowKey) -> Result<v1::WorkflowSpec, Status> {
        let rows = self.query(WorkflowQuery::Spec(key)).await?;
        let body = rows.bodies.into_iter().next().map(|(_, body)| body).unwrap_or_default();
        Ok(StoredSpec::decode(body).ok().and_then(|stored| stored.spec).unwrap_or_default())
    }

    /// Returns the whole spec, with all steps.
    async fn whole_spec(&self, workflow: &Workflow) -> Result<v1::WorkflowSpec, Status> {
        let mut spec = self.stored_spec(workflow.key).await?;
        let mut from = 0;
        loop {
            let query = WorkflowQuery::StepSpecs { workflow: workflow.key, from, limit: PAGE };
            let bodies = self.query(query).await?.bodies;
            let Some((last, _)) = bodies.last() else { break };
            from = last + 1;
            for (index, body) in bodies {
                let step = StoredStep::decode(body).ok().and_then(|stored| stored.step).unwrap_or_default();
                if index < workflow.main { spec.steps.push(step) } else { spec.finally.push(step) }
            }
        }
        Ok(spec)
    }

    async fn whole(&self, workflow: &Workflow) -> Result<v1::Workflow, Status> {
        let spec = self.whole_spec(workflow).await?;
        let outputs = crate::workflows::outputs(&self.store, workflow.key).await?;
        Ok(wire::workflow(workflow, Some(spec), outputs))
    }

    async fn apply(&self, command: WorkflowCommand) -> Result<Reply, Status> {
        let replies = self.store.apply(vec![Command::from(command)]).await.map_err(status::store)?;
        replies.into_iter().next().ok_or_else(no_reply)?.map_err(status::refused)
    }

    async fn command(&self, name: &str, command: workflow::Command) -> Result<v1::Workflow, Status> {
        let found = self.find("name", name).await?;
        let command = WorkflowCommand::Apply { namespace: found.namespace, id: found.id, command };
        match self.apply(command).await? {
            Reply::Workflow { workflow, .. } => Ok(wire::workflow(&workflow, None, None)),
            _ => Err(unexpected_reply()),
        }
    }

    /// Replaces the template of a request by the specification that it makes of the parameters.
    async fn instantiate(
        &self,
        namespace: &Namespace,
        request: &mut v1::CreateWorkflowRequest,
    ) -> Result<(), Status> {
        let parameters = request.parameters.take();
        if request.template.is_empty() {
            return match parameters {
                Some(_) => Err(invalid("parameters", "are those of a template; a specification has inputs")),
                None => Ok(()),
            };
        }
        let workflow = request.workflow.get_or_insert_default();
        if workflow.spec.is_some() {
            return Err(invalid("workflow.spec", "must not be set with a template"));
        }
        let given = std::mem::take(&mut request.template);
        let prefix = format!("namespaces/{namespace}/templates/");
        let name = names::alias("template", given.strip_prefix(&prefix).unwrap_or(&given))?;
        let template = self.templates.newest(namespace.clone(), name).await?;
        workflow.spec = Some(crate::wire::template::instantiate(&template, parameters.unwrap_or_default())?);
        Ok(())
    }

    async fn create(
        &self,
        namespace: Namespace,
        trace: rota_core::task::Trace,
        request: v1::CreateWorkflowRequest,
        rerun_of: Option<WorkflowId>,
    ) -> Result<v1::Workflow, Status> {
        let only_check = request.validate_only;
        let id = match request.workflow_id.as_str() {
            "" => WorkflowId(Uuid::now_v7()),
            text => text.parse().map_err(|_| invalid("workflow_id", "is not a UUID"))?,
        };
        // Schemas and large graphs take a while.
        let checked = tokio::task::spawn_blocking(move || wire::check(namespace, id, trace, request)).await;
        let mut create = checked.map_err(|error| Status::internal(error.to_string()))??;
        create.workflow.rerun_of = rerun_of;
        let command = Command::from(WorkflowCommand::Create(Box::new(create)));
        let replies = match only_check {
            true => self.store.dry_run(vec![command]).await,
            false => self.store.apply(vec![command]).await,
        };
        let reply = replies.map_err(status::store)?.into_iter().next().ok_or_else(no_reply)?;
        match reply.map_err(status::refused)? {
            Reply::Workflow { workflow, created } => {
                if only_check || created {
                    return Ok(wire::workflow(&workflow, None, None));
                }
                self.whole(&workflow).await
            }
            _ => Err(unexpected_reply()),
        }
    }

    /// Returns all steps, in pieces, to a function.
    async fn each_step(&self, key: WorkflowKey, mut visit: impl FnMut(Step) -> bool) -> Result<(), Status> {
        let mut from = 0;
        loop {
            let query = WorkflowQuery::Steps { workflow: key, from, limit: PAGE };
            let steps = self.query(query).await?.steps;
            let Some(last) = steps.last() else { return Ok(()) };
            from = last.index + 1;
            for step in steps {
                if !visit(step) {
                    return Ok(());
                }
            }
        }
    }

    async fn step_named(&self, workflow: &Workflow, name: &str) -> Result<Step, Status> {
        let mut found = None;
        self.each_step(workflow.key, |step| {
            if step.name == name {
                found = Some(step);
            }
            found.is_none()
        })
        .await?;
        let missing = || invalid("step", format!("step {:?} does not exist", check::shorten(name)));
        found.ok_or_else(missing)
    }

    async fn step_command(
        &self,
        workflow: &Workflow,
        step: u32,
        command: StepCommand,
        output: Option<Bytes>,
    ) -> Result<Result<Arc<Step>, Rejected>, Status> {
        let (namespace, id) = (workflow.namespace.clone(), workflow.id);
        let command = WorkflowCommand::Step { namespace, id, step, command, output };
        let replies = self.store.apply(vec![Command::from(command)]).await.map_err(status::store)?;
        match replies.into_iter().next().ok_or_else(no_reply)? {
            Ok(Reply::Step(step)) => Ok(Ok(step)),
            Ok(_) => Err(unexpected_reply()),
            Err(Refused::Workflow(rejected)) => Ok(Err(rejected)),
            Err(refused) => Err(status::refused(refused)),
        }
    }

    async fn explain(&self, workflow: &Workflow, step: &str) -> Result<v1::ExplainWorkflowResponse, Status> {
        let mut causes = Vec::new();
        self.each_step(workflow.key, |record| {
            if step.is_empty() || record.name == step {
                causes.extend(cause(workflow, &record));
            }
            causes.len() < MAX_CAUSES
        })
        .await?;
        let state = wire::workflow(workflow, None, None).status.unwrap_or_default().state();
        let name = state.as_str_name().trim_start_matches("WORKFLOW_STATE_");
        let summary = match workflow.message.as_str() {
            "" => format!("The workflow is {name}."),
            why => format!("The workflow is {name}: {why}."),
        };
        Ok(v1::ExplainWorkflowResponse { summary, causes })
    }
}

/// Returns why a step has not ended, or ended without success.
fn cause(workflow: &Workflow, step: &Step) -> Option<v1::Cause> {
    let name = &step.name;
    let (code, message, hint) = match workflow.state_of(step) {
        StepState::Succeeded | StepState::Waiting | StepState::Skipped => return None,
        StepState::Held if workflow.paused => (
            "step_held",
            format!("step {name} waits: the workflow is paused"),
            "resume it: rota workflow resume",
        ),
        StepState::Held => ("step_held", format!("step {name} waits for a place or for its phase"), ""),
        StepState::Ready | StepState::Ending => {
            ("step_evaluated", format!("the expressions of step {name} are evaluated"), "")
        }
        StepState::Running => match step.kind {
            Kind::Task => {
                let (open, total) = (step.open(), step.total);
                let text = format!("step {name} runs: {open} of {total} tasks are open");
                ("step_running", text, "rota explain TASK names the reasons of a task")
            }
            Kind::Approval { .. } => {
                let text = format!("step {name} waits for a decision: {}", check::shorten(&step.prompt));
                ("step_approval", text, "decide: rota workflow approve")
            }
            Kind::Sleep { .. } => ("step_waiting", format!("step {name} waits for its time"), ""),
            Kind::Signal { .. } => {
                ("step_signal", format!("step {name} waits for its signal"), "send it: rota workflow signal")
            }
        },
        StepState::Failed | StepState::Cancelled => {
            ("step_failed", format!("step {name}: {}", step.message), "")
        }
    };
    Some(v1::Cause { code: code.to_owned(), message, hint: hint.to_owned() })
}

fn json(fields: serde_json::Value) -> Bytes {
    fields.to_string().into_bytes().into()
}

#[tonic::async_trait]
impl WorkflowService for Workflows {
    type WatchWorkflowStream = Boxed<v1::WatchWorkflowResponse>;

    async fn create_workflow(
        &self,
        request: Request<v1::CreateWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let trace = create::trace(&request);
        let mut request = request.into_inner();
        let namespace = names::parent("parent", &request.parent)?;
        self.instantiate(&namespace, &mut request).await?;
        self.create(namespace, trace, request, None).await.map(Response::new)
    }

    async fn get_workflow(
        &self,
        request: Request<v1::GetWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let found = self.find("name", &request.into_inner().name).await?;
        self.whole(&found).await.map(Response::new)
    }

    async fn list_workflows(
        &self,
        request: Request<v1::ListWorkflowsRequest>,
    ) -> Result<Response<v1::ListWorkflowsResponse>, Status> {
        let request = request.into_inner();
        let given = request.filter.unwrap_or_default();
        let bad_token = || invalid("page_token", "is not a token of an earlier page");
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(WorkflowKey(u64::from_str_radix(token, 16).map_err(|_| bad_token())?)),
        };
        let mut filter = WorkflowFilter {
            namespace: names::parent_or_all("parent", &request.parent)?,
            labels: given.labels,
            owner: Some(given.owner).filter(|owner| !owner.is_empty()),
            alias: Some(given.alias).filter(|alias| !alias.is_empty()),
            before,
            limit: page_size(request.page_size, 50)?,
            ..WorkflowFilter::default()
        };
        for state in given.states {
            let state = v1::WorkflowState::try_from(state)
                .map_err(|_| invalid("filter.states", "has an unknown state"))?;
            filter.paused |= state == v1::WorkflowState::Paused;
            filter.states.extend(wire::from_state(state));
        }
        let rows = self.query(WorkflowQuery::List(filter)).await?;
        let workflows = rows.workflows.iter().map(|record| wire::workflow(record, None, None)).collect();
        let next_page_token = rows.next.map(|key| format!("{:x}", key.0)).unwrap_or_default();
        Ok(Response::new(v1::ListWorkflowsResponse { workflows, next_page_token }))
    }

    async fn list_workflow_steps(
        &self,
        request: Request<v1::ListWorkflowStepsRequest>,
    ) -> Result<Response<v1::ListWorkflowStepsResponse>, Status> {
        let request = request.into_inner();
        let found = self.find("parent", &request.parent).await?;
        let bad_token = || invalid("page_token", "is not a token of an earlier page");
        let from = match request.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| bad_token())?,
        };
        let limit = page_size(request.page_size, 250)?;
        let rows = self.query(WorkflowQuery::Steps { workflow: found.key, from, limit }).await?;
        let (mut steps, mut size, mut next) = (Vec::new(), 0, None);
        for record in &rows.steps {
            let step = wire::step(&found, record);
            size += step.encoded_len();
            if size > MAX_PAGE_BYTES && !steps.is_empty() {
                next = Some(record.index);
                break;
            }
            steps.push(step);
        }
        if next.is_none() && rows.steps.len() == limit {
            next = rows.steps.last().map(|last| last.index + 1);
        }
        let next_page_token = next.map(|index| index.to_string()).unwrap_or_default();
        Ok(Response::new(v1::ListWorkflowStepsResponse { steps, next_page_token }))
    }

    async fn watch_workflow(
        &self,
        request: Request<v1::WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        // Before the first read, so that nothing between them is missed.
        let mut changes = self.ready_steps.changes();
        let key = self.find("name", &request.into_inner().name).await?.key;
        let this = self.clone();
        let stream = self.streams.serve("watch-workflow", 4, move |outbox| async move {
            let mut changed: Option<Vec<u32>> = None;
            loop {
                let rows = this.query(WorkflowQuery::Key(key)).await?;
                let Some(workflow) = rows.workflows.into_iter().next() else { return Ok(()) };
                let mut steps: Vec<v1::StepStatus> = Vec::new();
                let mut from = 0;
                loop {
                    let query = match &changed {
                        None => WorkflowQuery::Steps { workflow: key, from, limit: PAGE },
                        Some(indexes) => {
                            let page: Vec<_> =
                                indexes.iter().skip(from as usize).take(PAGE).copied().collect();
                            WorkflowQuery::StepsAt(key, page)
                        }
                    };
                    let rows = this.query(query).await?.steps;
                    let Some(last) = rows.last() else { break };
                    from = if changed.is_none() { last.index + 1 } else { from + PAGE as u32 };
                    steps.extend(rows.iter().map(|record| wire::step(&workflow, record)));
                    let message = v1::WatchWorkflowResponse {
                        workflow: Some(wire::workflow(&workflow, None, None)),
                        steps: std::mem::take(&mut steps),
                    };
                    send(&outbox, message).await?;
                }
                if workflow.state.is_final() {
                    let outputs = crate::workflows::outputs(&this.store, key).await?;
                    let workflow = Some(wire::workflow(&workflow, None, outputs));
                    send(&outbox, v1::WatchWorkflowResponse { workflow, steps: Vec::new() }).await?;
                    return Ok(());
                }
                changed = loop {
                    match changes.recv().await {
                        Ok(list) => {
                            let ours = list.iter().find(|change| change.workflow == key);
                            if let Some(change) = ours {
                                break Some(change.steps.clone());
                            }
                        }
                        Err(RecvError::Lagged(_)) => break None,
                        Err(RecvError::Closed) => return Ok(()),
                    }
                };
                if changed.as_ref().is_some_and(Vec::is_empty) {
                    let rows = this.query(WorkflowQuery::Key(key)).await?;
                    if let Some(workflow) = rows.workflows.first() {
                        let workflow = Some(wire::workflow(workflow, None, None));
                        send(&outbox, v1::WatchWorkflowResponse { workflow, steps: Vec::new() }).await?;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn explain_workflow(
        &self,
        request: Request<v1::ExplainWorkflowRequest>,
    ) -> Result<Response<v1::ExplainWorkflowResponse>, Status> {
        let request = request.into_inner();
        let found = self.find("name", &request.name).await?;
        self.explain(&found, &request.step).await.map(Response::new)
    }

    async fn cancel_workflow(
        &self,
        request: Request<v1::CancelWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let request = request.into_inner();
        check::length("reason", &request.reason, MAX_REASON)?;
        self.command(&request.name, workflow::Command::Cancel { reason: request.reason })
            .await
            .map(Response::new)
    }

    async fn pause_workflow(
        &self,
        request: Request<v1::PauseWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let request = request.into_inner();
        let command = workflow::Command::Pause { suspend: request.suspend_tasks };
        self.command(&request.name, command).await.map(Response::new)
    }

    async fn resume_workflow(
        &self,
        request: Request<v1::ResumeWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        self.command(&request.into_inner().name, workflow::Command::Resume).await.map(Response::new)
    }

    async fn decide_step(
        &self,
        request: Request<v1::DecideStepRequest>,
    ) -> Result<Response<v1::DecideStepResponse>, Status> {
        let request = request.into_inner();
        check::length("comment", &request.comment, MAX_COMMENT)?;
        let approves = match request.decision() {
            v1::StepDecision::Approve => true,
            v1::StepDecision::Reject => false,
            v1::StepDecision::Unspecified => return Err(invalid("decision", "is required")),
        };
        let found = self.find("name", &request.name).await?;
        let step = self.step_named(&found, &request.step).await?;
        let output = json(serde_json::json!({ "approved": approves, "comment": request.comment }));
        let message = match (approves, request.comment.as_str()) {
            (true, "") => "approved".to_owned(),
            (false, "") => "rejected".to_owned(),
            (true, comment) => format!("approved: {comment}"),
            (false, comment) => format!("rejected: {comment}"),
        };
        let command = StepCommand::Decide { approves, message };
        let step = self.step_command(&found, step.index, command, Some(output)).await?;
        let step = step.map_err(|rejected| status::refused(Refused::Workflow(rejected)))?;
        Ok(Response::new(v1::DecideStepResponse { step: Some(wire::step(&found, &step)) }))
    }

    async fn signal_workflow(
        &self,
        request: Request<v1::SignalWorkflowRequest>,
    ) -> Result<Response<v1::SignalWorkflowResponse>, Status> {
        let request = request.into_inner();
        let payload = serde_json::to_value(request.payload.unwrap_or_default())
            .map_err(|error| invalid("payload", error.to_string()))?;
        check::length("payload", &payload.to_string(), MAX_PAYLOAD)?;
        let found = self.find("name", &request.name).await?;
        let mut waiting = Vec::new();
        self.each_step(found.key, |step| {
            if matches!(step.kind, Kind::Signal { .. }) {
                waiting.push(step.index);
            }
            true
        })
        .await?;
        let mut steps = 0;
        for index in waiting {
            let query = WorkflowQuery::StepSpecs { workflow: found.key, from: index, limit: 1 };
            let body = self.query(query).await?.bodies.into_iter().next().map(|(_, body)| body);
            let spec = body.and_then(|body| StoredStep::decode(body).ok()?.step).unwrap_or_default();
            let is_named = matches!(
                &spec.kind,
                Some(v1::workflow_step::Kind::Wait(v1::StepWait {
                    kind: Some(v1::step_wait::Kind::Signal(name)), ..
                })) if *name == request.signal
            );
            if !is_named {
                continue;
            }
            let output = Some(json(payload.clone()));
            if self.step_command(&found, index, StepCommand::Signal, output).await?.is_ok() {
                steps += 1;
            }
        }
        Ok(Response::new(v1::SignalWorkflowResponse { steps }))
    }

    async fn rerun_workflow(
        &self,
        request: Request<v1::RerunWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let trace = create::trace(&request);
        let request = request.into_inner();
        let found = self.find("name", &request.name).await?;
        if !found.state.is_final() {
            return Err(status::refused(Refused::Workflow(Rejected::Unended)));
        }
        let mut spec = self.whole_spec(&found).await?;
        if request.inputs.is_some() {
            spec.inputs = request.inputs;
        }
        let workflow = v1::Workflow {
            alias: found.alias.clone().unwrap_or_default(),
            labels: found.labels.clone(),
            spec: Some(spec),
            ..v1::Workflow::default()
        };
        let create = v1::CreateWorkflowRequest {
            workflow: Some(workflow),
            idempotency_key: request.idempotency_key,
            ..v1::CreateWorkflowRequest::default()
        };
        self.create(found.namespace.clone(), trace, create, Some(found.id)).await.map(Response::new)
    }

    async fn delete_workflow(
        &self,
        request: Request<v1::DeleteWorkflowRequest>,
    ) -> Result<Response<pbjson_types::Empty>, Status> {
        self.command(&request.into_inner().name, workflow::Command::Delete).await?;
        Ok(Response::new(pbjson_types::Empty {}))
    }
}
