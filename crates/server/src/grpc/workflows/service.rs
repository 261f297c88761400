//! The calls of `WorkflowService`.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use rota_core::WorkflowKey;
use rota_core::workflow::{self, Kind, Rejected, StepCommand};
use rota_proto::v1;
use rota_proto::v1::workflow_service_server::WorkflowService;
use rota_store::{Refused, Reply, WorkflowCommand, WorkflowFilter, WorkflowQuery};
use tonic::{Code, Request, Response, Status};

use super::rerun::Rerun;
use super::watch::OneWorkflow;
use super::{MAX_PAGE_BYTES, MAX_PAYLOAD, MAX_REASON, Workflows};
use crate::creation::Scope;
use crate::grpc::answers::page_size;
use crate::grpc::encoded::{self, Replaced};
use crate::grpc::traced::trace;
use crate::trust::people::PersonCall;
use crate::wire::status::{hinted, invalid};
use crate::wire::workflow::{self as wire, StoredStep, WorkflowName};
use crate::wire::{check, names, status};

fn json(fields: serde_json::Value) -> Bytes {
    fields.to_string().into_bytes().into()
}

#[tonic::async_trait]
impl WorkflowService for Workflows {
    type WatchWorkflowStream = Replaced<v1::WatchWorkflowResponse>;
    type WatchWorkflowsStream = Replaced<v1::WatchWorkflowsResponse>;

    async fn create_workflow(
        &self,
        request: Request<v1::CreateWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let (trace, scope) = (trace(&request), Scope::of(&request));
        let mut request = request.into_inner();
        let namespace = names::parent("parent", &request.parent)?;
        scope.check_new(request.workflow.as_ref().map_or(&BTreeMap::new(), |workflow| &workflow.labels))?;
        self.instantiate(&namespace, &mut request).await?;
        self.create(namespace, trace, request, None).await.map(Response::new)
    }

    async fn get_workflow(
        &self,
        request: Request<v1::GetWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let scope = Scope::of(&request);
        let found = scope.check_workflow(self.find("name", &request.into_inner().name).await?)?;
        self.whole(&found).await.map(Response::new)
    }

    async fn list_workflows(
        &self,
        request: Request<v1::ListWorkflowsRequest>,
    ) -> Result<Response<v1::ListWorkflowsResponse>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let given = request.filter.unwrap_or_default();
        scope.check_new(&given.labels)?;
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
            parent: match given.parent_workflow.as_str() {
                "" => None,
                id => Some(id.parse().map_err(|_| invalid("filter.parent_workflow", "is not a UUID"))?),
            },
            template: Some(given.template).filter(|template| !template.is_empty()),
            dead_letters: given.dead_letters,
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
        self.list(filter).await.map(Response::new)
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

    async fn list_approvals(
        &self,
        request: Request<v1::ListApprovalsRequest>,
    ) -> Result<Response<v1::ListApprovalsResponse>, Status> {
        self.approvals(request.get_ref()).await.map(Response::new)
    }

    async fn watch_workflow(
        &self,
        request: Request<v1::WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let key = scope.check_workflow(self.find("name", &request.name).await?)?.key;
        let source = OneWorkflow {
            store: self.store.clone(),
            // Before the first read, so that nothing between them is missed.
            watch: self.ready_steps.watched.watch(key),
            key,
            without_steps: request.without_steps,
            from: Some(0),
            is_over: false,
        };
        Ok(encoded::response(self.streams.chunks(source)))
    }

    async fn watch_workflows(
        &self,
        request: Request<v1::WatchWorkflowsRequest>,
    ) -> Result<Response<Self::WatchWorkflowsStream>, Status> {
        self.feed(request.into_inner()).map(encoded::response)
    }

    async fn explain_workflow(
        &self,
        request: Request<v1::ExplainWorkflowRequest>,
    ) -> Result<Response<v1::ExplainWorkflowResponse>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let found = scope.check_workflow(self.find("name", &request.name).await?)?;
        self.explain(&found, &request.step).await.map(Response::new)
    }

    async fn cancel_workflow(
        &self,
        request: Request<v1::CancelWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        check::length("reason", &request.reason, MAX_REASON)?;
        let reason = request.reason;
        let command = match request.also_finally {
            true => workflow::Command::CancelFinally { reason },
            false => workflow::Command::Cancel { reason },
        };
        let answer = match self.command(scope, &request.name, command.clone()).await {
            // What it has left ends by that alone. Only its id is known, and not whether a cluster manages it.
            Err(damaged) if damaged.code() == Code::DataLoss && scope == Scope::All => {
                let (namespace, WorkflowName::Id(id)) = wire::name("name", &request.name)? else {
                    return Err(damaged);
                };
                match self.apply(WorkflowCommand::Apply { namespace, id, command }).await? {
                    Reply::Workflow { workflow, .. } => Ok(wire::workflow(&workflow, None, None)),
                    _ => Err(damaged),
                }
            }
            answer => answer,
        };
        answer.map(Response::new)
    }

    async fn pause_workflow(
        &self,
        request: Request<v1::PauseWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let command = workflow::Command::Pause { suspend: request.suspend_tasks };
        self.command(scope, &request.name, command).await.map(Response::new)
    }

    async fn resume_workflow(
        &self,
        request: Request<v1::ResumeWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let scope = Scope::of(&request);
        self.command(scope, &request.into_inner().name, workflow::Command::RESUME).await.map(Response::new)
    }

    async fn decide_step(
        &self,
        request: Request<v1::DecideStepRequest>,
    ) -> Result<Response<v1::DecideStepResponse>, Status> {
        let caller = request.extensions().get::<PersonCall>().cloned();
        let step = Some(self.decide(caller.as_ref(), request.into_inner()).await?);
        Ok(Response::new(v1::DecideStepResponse { step }))
    }

    async fn resolve_compensation(
        &self,
        request: Request<v1::ResolveCompensationRequest>,
    ) -> Result<Response<v1::ResolveCompensationResponse>, Status> {
        let caller = request.extensions().get::<PersonCall>().cloned();
        let step = Some(self.resolve(caller.as_ref(), request.into_inner()).await?);
        Ok(Response::new(v1::ResolveCompensationResponse { step }))
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

    async fn add_workflow_step(
        &self,
        request: Request<v1::AddWorkflowStepRequest>,
    ) -> Result<Response<v1::AddWorkflowStepResponse>, Status> {
        let request = request.into_inner();
        let given = request.step.ok_or_else(|| invalid("step", "is required"))?;
        let step = self.add(&request.name, given).await?;
        Ok(Response::new(v1::AddWorkflowStepResponse { step: Some(step) }))
    }

    async fn rerun_workflow(
        &self,
        request: Request<v1::RerunWorkflowRequest>,
    ) -> Result<Response<v1::Workflow>, Status> {
        let trace = trace(&request);
        let request = request.into_inner();
        let found = self.find("name", &request.name).await?;
        if !found.state.is_final() {
            return Err(status::refused(Refused::Workflow(Rejected::Unended)));
        }
        let rerun = Rerun::new(&found, request.reuse_results, request.steps)?;
        let mut spec = self.whole_spec(&found).await?;
        if let Some(given) = request.inputs {
            spec.input_files.retain(|name, _| !given.fields.contains_key(name));
            spec.inputs.get_or_insert_default().fields.extend(given.fields);
        }
        for (name, file) in request.input_files {
            spec.inputs.get_or_insert_default().fields.remove(&name);
            spec.input_files.insert(name, file);
        }
        if request.budget_micro_usd != 0 {
            spec.budget_micro_usd = request.budget_micro_usd;
        }
        let workflow = v1::Workflow {
            alias: found.alias.clone().unwrap_or_default(),
            spec: Some(spec),
            ttl_after_finished: found.ttl.map(crate::wire::time::duration),
            ..v1::Workflow::default()
        };
        let create = v1::CreateWorkflowRequest {
            workflow: Some(workflow),
            idempotency_key: request.idempotency_key,
            template: found.template.clone(),
            ..v1::CreateWorkflowRequest::default()
        };
        self.create(found.namespace.clone(), trace, create, Some(rerun)).await.map(Response::new)
    }

    async fn delete_workflow(
        &self,
        request: Request<v1::DeleteWorkflowRequest>,
    ) -> Result<Response<pbjson_types::Empty>, Status> {
        let name = request.into_inner().name;
        let command = workflow::Command::Delete;
        // Its results are those of a step.
        if let Ok(found) = self.find("name", &name).await
            && let Some(parent) = &found.parent
            && !self.query(WorkflowQuery::Key(parent.step.workflow)).await?.workflows.is_empty()
        {
            let text = format!("the workflow is step {} of workflow {}", parent.step.name, parent.step.id);
            return Err(hinted(
                "WORKFLOW_IS_STEP",
                text,
                "delete that workflow: this one is removed with it",
            ));
        }
        match self.command(Scope::All, &name, command.clone()).await {
            // Of one that cannot be decoded, only the id is known.
            Err(damaged) if damaged.code() == Code::DataLoss => {
                let (namespace, WorkflowName::Id(id)) = wire::name("name", &name)? else {
                    return Err(damaged);
                };
                self.apply(WorkflowCommand::Apply { namespace, id, command }).await?;
            }
            deleted => drop(deleted?),
        }
        // Its tasks leave the full-text index, too.
        self.store.index().removed();
        Ok(Response::new(pbjson_types::Empty {}))
    }
}
