//! `WorkflowService`.

mod add;
mod approvals;
mod decide;
mod explain;
mod feed;
mod files;
mod needs;
mod rerun;
mod resolve;
mod service;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rota_core::rank::Priority;
use rota_core::workflow::{self, Rejected, Step, StepCommand, Workflow};
use rota_core::{Namespace, WorkflowId, WorkflowKey};
use rota_proto::v1;
use rota_store::{Command, Refused, Reply, WorkflowCommand, WorkflowFilter, WorkflowQuery};
use rota_telemetry::finish;
use tonic::Status;
use uuid::Uuid;

use self::rerun::Rerun;
use super::streams::Streams;
use super::templates::template_at;
use crate::approvals::Approvals;
use crate::artifacts::Artifacts;
use crate::creation::Scope;
use crate::spans::root_trace;
use crate::store_client::{StoreClient, no_reply, unexpected_reply};
use crate::wire::status::{error, invalid};
use crate::wire::workflow::{self as wire, StoredSpec, StoredStep, WorkflowName};
use crate::wire::{check, status};
use crate::workflows::ReadySteps;

/// Bytes of a page; a page has at least one entry.
const MAX_PAGE_BYTES: usize = 1 << 20;
const PAGE: usize = 500;
/// Workflows that one read of a list returns: each has up to 32 KiB of labels.
const LIST_CHUNK: usize = 32;
const MAX_REASON: usize = 1 << 10;
const MAX_COMMENT: usize = 4 << 10;
const MAX_PAYLOAD: usize = 16 << 10;
/// Steps that an explanation names.
const MAX_CAUSES: usize = 50;

#[derive(Clone)]
pub(crate) struct Workflows {
    pub(crate) store: StoreClient,
    pub(crate) artifacts: Artifacts,
    pub(crate) ready_steps: Arc<ReadySteps>,
    pub(crate) streams: Streams,
    pub(crate) approvals: Arc<Approvals>,
}

fn not_found(name: &str) -> Status {
    let (namespace, what) = rota_proto::names::parse(name, "workflows").unwrap_or_default();
    error("WORKFLOW_NOT_FOUND", format!("workflow {what} does not exist in namespace {namespace}"))
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

    /// Returns the specs of all steps, in the order of their indexes.
    async fn step_specs(&self, workflow: &Workflow) -> Result<Vec<v1::WorkflowStep>, Status> {
        let (mut specs, mut from) = (Vec::new(), 0);
        loop {
            let query = WorkflowQuery::StepSpecs { workflow: workflow.key, from, limit: PAGE };
            let bodies = self.query(query).await?.bodies;
            let Some((last, _)) = bodies.last() else { break };
            from = last + 1;
            let spec = |body| StoredStep::decode(body).ok().and_then(|stored: StoredStep| stored.step);
            specs.extend(bodies.into_iter().map(|(_, body)| spec(body).unwrap_or_default()));
        }
        Ok(specs)
    }

    /// Returns the whole spec, with all steps: those that were added behind the others.
    async fn whole_spec(&self, workflow: &Workflow) -> Result<v1::WorkflowSpec, Status> {
        let mut spec = self.stored_spec(workflow.key).await?;
        for (index, step) in (0..).zip(self.step_specs(workflow).await?) {
            if workflow.is_finally(index) { spec.finally.push(step) } else { spec.steps.push(step) }
        }
        Ok(spec)
    }

    async fn whole(&self, workflow: &Workflow) -> Result<v1::Workflow, Status> {
        let spec = self.whole_spec(workflow).await?;
        let outputs = crate::workflows::outputs(&self.store, workflow.key).await?;
        Ok(wire::workflow(workflow, Some(spec), outputs))
    }

    /// Returns a page of workflows: as many as fit into a response.
    async fn list(&self, mut filter: WorkflowFilter) -> Result<v1::ListWorkflowsResponse, Status> {
        let (mut page, mut size, most) = (v1::ListWorkflowsResponse::default(), 0, filter.limit);
        let next = 'pages: loop {
            filter.limit = LIST_CHUNK.min(most - page.workflows.len());
            let rows = self.query(WorkflowQuery::List(filter.clone())).await?;
            for record in &rows.workflows {
                let workflow = wire::workflow(record, None, None);
                size += workflow.encoded_len();
                if size > MAX_PAGE_BYTES && !page.workflows.is_empty() {
                    break 'pages filter.before;
                }
                page.workflows.push(workflow);
                filter.before = Some(record.key);
            }
            if rows.next.is_none() || rows.workflows.len() < filter.limit || page.workflows.len() == most {
                break rows.next;
            }
        };
        page.next_page_token = next.map(|key| format!("{:x}", key.0)).unwrap_or_default();
        Ok(page)
    }

    async fn apply(&self, command: WorkflowCommand) -> Result<Reply, Status> {
        let replies = self.store.apply(vec![Command::from(command)]).await.map_err(status::store)?;
        replies.into_iter().next().ok_or_else(no_reply)?.map_err(status::refused)
    }

    async fn command(
        &self,
        scope: Scope,
        name: &str,
        command: workflow::Command,
    ) -> Result<v1::Workflow, Status> {
        let found = scope.check_workflow(self.find("name", name).await?)?;
        let command = WorkflowCommand::Apply { namespace: found.namespace, id: found.id, command };
        match self.apply(command).await? {
            Reply::Workflow { workflow, .. } => Ok(wire::workflow(&workflow, None, None)),
            _ => Err(unexpected_reply()),
        }
    }

    /// Adds the specification to a request that the template makes of the parameters, and names the template with its version.
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
        let mut given = workflow.spec.take().unwrap_or_default();
        let (title, owner) = (std::mem::take(&mut given.title), std::mem::take(&mut given.owner));
        let input_files = std::mem::take(&mut given.input_files);
        if given != v1::WorkflowSpec::default() {
            return Err(invalid(
                "workflow.spec",
                "must have nothing but a title, an owner and files with a template",
            ));
        }
        let prefix = format!("namespaces/{namespace}/templates/");
        let named = request.template.strip_prefix(&prefix).unwrap_or(&request.template);
        let (name, version) = crate::wire::template::name("template", named)?;
        let found = template_at(&self.store, namespace.clone(), name.clone(), version).await?;
        request.template = format!("{name}@{}", found.version);
        let mut parameters = parameters.unwrap_or_default();
        wire::add_values("parameters", &input_files, &mut parameters)?;
        let template = found.spec.unwrap_or_default();
        let mut spec = crate::wire::template::instantiate(&template, parameters)?;
        for (field, given) in [(&mut spec.title, title), (&mut spec.owner, owner)] {
            if !given.is_empty() {
                *field = given;
            }
        }
        workflow.spec = Some(v1::WorkflowSpec { input_files, ..spec });
        Ok(())
    }

    async fn create(
        &self,
        namespace: Namespace,
        trace: rota_core::task::Trace,
        request: v1::CreateWorkflowRequest,
        rerun: Option<Rerun>,
    ) -> Result<v1::Workflow, Status> {
        let only_check = request.validate_only;
        let id = match request.workflow_id.as_str() {
            "" => WorkflowId(Uuid::now_v7()),
            text => text.parse().map_err(|_| invalid("workflow_id", "is not a UUID"))?,
        };
        let (files, pin) = self.files(&namespace, &request).await?.unzip();
        let within = namespace.clone();
        // Schemas and large graphs take a while. All expressions share a stack.
        let validate = move || rota_expressions::on_stack(|| wire::check(namespace, id, trace, request));
        let checked = tokio::task::spawn_blocking(validate).await;
        let mut create = checked.map_err(|error| Status::internal(error.to_string()))??;
        create.files = files;
        if let Some(rerun) = rerun {
            rerun.mark(&mut create)?;
        }
        let command = Command::from(WorkflowCommand::Create(Box::new(create)));
        // Its steps of low priority wait by themselves while room is scarce.
        let full = if only_check { None } else { self.store.refusal(&within, Priority::NORMAL) };
        if let Some(full) = full
            && !self.exists(&command).await?
        {
            return Err(full);
        }
        let store = self.store.clone();
        // A caller that hangs up must not release the files before the commit that refers to them.
        let replies = finish("create-workflow", async move {
            let _pin = pin;
            match only_check {
                true => store.dry_run(vec![command]).await,
                false => store.apply(vec![command]).await,
            }
        })
        .await;
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

    /// Whether the creation is the repetition of one that succeeded.
    async fn exists(&self, creation: &Command) -> Result<bool, Status> {
        let replies = self.store.dry_run(vec![creation.clone()]).await.map_err(status::store)?;
        Ok(matches!(replies.last(), Some(Ok(Reply::Workflow { created: false, .. }))))
    }

    /// Creates the workflow of a schedule's run, or only checks it.
    pub(crate) async fn create_scheduled(
        &self,
        namespace: Namespace,
        mut request: v1::CreateWorkflowRequest,
    ) -> Result<v1::Workflow, Status> {
        self.instantiate(&namespace, &mut request).await?;
        self.create(namespace, root_trace(), request, None).await
    }

    /// Returns the workflow of a schedule's run, if it exists.
    pub(crate) async fn scheduled(
        &self,
        namespace: &Namespace,
        id: WorkflowId,
    ) -> Result<Option<v1::Workflow>, Status> {
        let rows = self.query(WorkflowQuery::Id((namespace.clone(), id))).await?;
        match rows.workflows.into_iter().find(|found| !found.deleted) {
            Some(found) => self.whole(&found).await.map(Some),
            None => Ok(None),
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
        let damaged = || rota_store::Error::Corrupt(format!("the record of step {name} cannot be decoded"));
        self.undamaged_step(workflow, name).await?.ok_or_else(|| status::store(damaged()))
    }

    /// Returns a step by its name; none if its record cannot be decoded.
    async fn undamaged_step(&self, workflow: &Workflow, name: &str) -> Result<Option<Step>, Status> {
        let mut found = None;
        self.each_step(workflow.key, |step| {
            if step.name == name {
                found = Some(step);
            }
            found.is_none()
        })
        .await?;
        if found.is_none() && self.step_specs(workflow).await?.iter().all(|spec| spec.name != name) {
            return Err(invalid("step", format!("step {:?} does not exist", check::shorten(name))));
        }
        Ok(found)
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
}
