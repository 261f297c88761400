//! `TaskService`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rota_core::task::{self, Desired};
use rota_proto::v1::task_service_server::TaskService;
use rota_proto::v1::{self, AttachTaskRequest, AttachTaskResponse, WatchTaskResponse, WatchTasksResponse};
use rota_proto::{HttpBody, num};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::encoded::{self, Replaced};
use super::explain::Explainer;
use super::input::Inputs;
use super::retry::Copies;
use super::streams::{Boxed, Streams};
use super::traced::trace;
use super::update_task::{as_read, cancels_only, changes};
use super::{change, export_tasks, feed, follow, list_tasks, log_text, search_log, search_tasks, threads};
use crate::attention::Attention;
use crate::creation::{Creator, Scope, managed};
use crate::kinds;
use crate::store_client::{StoreClient, no_reply};
use crate::trust::people::PersonCall;
use crate::wire::status::{error, invalid};
use crate::wire::{agent, check, etag, names, task as wire};

const MAX_BATCH: usize = 1000;

#[derive(Clone)]
pub(crate) struct Tasks {
    pub(crate) store: StoreClient,
    pub(crate) creator: Creator,
    pub(crate) inputs: Inputs,
    pub(crate) explainer: Explainer,
    pub(crate) attention: Arc<Attention>,
    pub(crate) streams: Streams,
    /// How long ended tasks are kept.
    pub(crate) retention: Option<Duration>,
}

impl Tasks {
    /// Returns a task with its spec and result.
    pub(super) async fn whole(&self, record: &task::Task) -> Result<v1::Task, Status> {
        let payload = self.store.payload(record).await?;
        let result = self.store.result(record).await?;
        Ok(wire::to_wire(record, payload.as_ref(), result.as_ref()))
    }

    async fn cancel(&self, scope: Scope, name: &str, reason: String) -> Result<v1::Task, Status> {
        let (namespace, named) = names::task("name", name)?;
        let record = scope.check(self.store.task(&namespace, named).await?)?;
        // Safe to repeat: what has been cancelled stays so.
        if record.state == task::State::Cancelled {
            return self.whole(&record).await;
        }
        let desired = Some(Desired::Cancelled);
        let command = task::Command::Update { priority: None, labels: None, desired, reason };
        let (record, _) = self.store.command(namespace, record.id, command, false).await?;
        self.whole(&record).await
    }
}

#[tonic::async_trait]
impl TaskService for Tasks {
    type WatchTaskStream = Replaced<WatchTaskResponse>;
    type WatchTasksStream = Replaced<WatchTasksResponse>;
    type ExportTasksStream = ReceiverStream<Result<HttpBody, Status>>;
    type AttachTaskStream = Boxed<AttachTaskResponse>;
    type DownloadTaskLogStream = ReceiverStream<Result<HttpBody, Status>>;

    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        let (trace, scope) = (trace(&request), Scope::of(&request));
        let request = request.into_inner();
        scope.check_new(request.task.as_ref().map_or(&BTreeMap::new(), |task| &task.labels))?;
        let namespace = names::parent("parent", &request.parent)?;
        let only_check = request.validate_only;
        let prepared = vec![self.creator.prepare(namespace, trace, request, None, scope).await?];
        let mut answers = match only_check {
            true => Box::pin(self.creator.dry_run(prepared, Vec::new())).await?,
            false => self.creator.commit(prepared).await?,
        };
        let answer = answers.pop().unwrap_or_else(|| Err(no_reply()))?;
        // One that exists already may be anybody's.
        scope.check_new(&answer.labels)?;
        Ok(Response::new(answer))
    }

    async fn batch_create_tasks(
        &self,
        request: Request<v1::BatchCreateTasksRequest>,
    ) -> Result<Response<v1::BatchCreateTasksResponse>, Status> {
        let (trace, scope) = (trace(&request), Scope::of(&request));
        let request = request.into_inner();
        let parent = names::parent("parent", &request.parent)?;
        check::count("requests", request.requests.len(), MAX_BATCH)?;
        check::count("expected_agents", request.expected_agents.len(), MAX_BATCH)?;
        if !request.validate_only && !request.expected_agents.is_empty() {
            return Err(invalid("expected_agents", "is only for validate_only"));
        }
        let expected = request.expected_agents.iter().enumerate().map(|(index, name)| {
            let name = names::agent_id(&format!("expected_agents[{index}]"), name)?;
            Ok(agent::named(parent.clone(), name))
        });
        let expected = expected.collect::<Result<Vec<_>, Status>>()?;
        let mut results: Vec<Option<Result<v1::Task, Status>>> = Vec::with_capacity(request.requests.len());
        let (creator, mut prepared, mut places) = (self.creator.of_batch(), Vec::new(), Vec::new());
        for (index, mut one) in request.requests.into_iter().enumerate() {
            if !one.parent.is_empty() && one.parent != request.parent {
                let field = format!("requests[{index}].parent");
                results.push(Some(Err(invalid(field, "must be empty or the batch's own"))));
                continue;
            }
            if std::mem::replace(&mut one.validate_only, request.validate_only) {
                let field = format!("requests[{index}].validate_only");
                results.push(Some(Err(invalid(field, "must be set for the whole batch"))));
                continue;
            }
            let trace = task::Trace { span_id: rand::random(), ..trace.clone() };
            match creator.prepare(parent.clone(), trace, one, None, scope).await {
                Ok(ready) => {
                    places.push(index);
                    prepared.push(ready);
                    results.push(None);
                }
                Err(status) => results.push(Some(Err(status))),
            }
        }
        let answers = match request.validate_only {
            true => self.creator.dry_run(prepared, expected).await?,
            false => self.creator.commit(prepared).await?,
        };
        for (place, answer) in places.into_iter().zip(answers) {
            results[place] = Some(answer);
        }
        let results = results.into_iter().map(|result| v1::BatchCreateTasksResult {
            kind: Some(match result.unwrap_or_else(|| Err(no_reply())) {
                Ok(task) => v1::batch_create_tasks_result::Kind::Task(task),
                Err(status) => v1::batch_create_tasks_result::Kind::Error(follow::batch_error(&status)),
            }),
        });
        Ok(Response::new(v1::BatchCreateTasksResponse { results: results.collect() }))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let scope = Scope::of(&request);
        let (namespace, named) = names::task("name", &request.into_inner().name)?;
        let record = scope.check(self.store.task(&namespace, named).await?)?;
        self.whole(&record).await.map(Response::new)
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        list_tasks::list(self, request).await.map(Response::new)
    }

    async fn export_tasks(
        &self,
        request: Request<v1::ExportTasksRequest>,
    ) -> Result<Response<Self::ExportTasksStream>, Status> {
        export_tasks::export(self, request).await.map(Response::new)
    }

    async fn search_tasks(
        &self,
        request: Request<v1::SearchTasksRequest>,
    ) -> Result<Response<v1::SearchTasksResponse>, Status> {
        Box::pin(search_tasks::search(self, request)).await.map(Response::new)
    }

    async fn list_threads(
        &self,
        request: Request<v1::ListThreadsRequest>,
    ) -> Result<Response<v1::ListThreadsResponse>, Status> {
        threads::list(&self.store, request.get_ref()).await.map(Response::new)
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let given = request.task.as_ref().ok_or_else(|| invalid("task", "is required"))?;
        let mut command = changes(&request, given)?;
        let (namespace, named) = names::task("task.name", &given.name)?;
        let old = scope.check(self.store.task(&namespace, named).await?)?;
        if !cancels_only(&command) {
            managed::check(&old.labels, &given.labels, &format!("task {}", old.id), || {
                let name = old.alias.as_deref().unwrap_or("NAME");
                let patch = r#"{"spec": {"desiredState": "Suspended"}}"#;
                format!(
                    "change the resource: kubectl -n {namespace} patch task {name} --type merge -p '{patch}'"
                )
            })?;
        }
        if let task::Command::Update { labels: Some(labels), .. } = &mut command {
            kinds::keep_label(labels, &old.labels);
        }
        etag::check(&request.etag, Some(&etag::of_task(&old)))?;
        let command = as_read(&request.etag, &old, command);
        let (record, _) = self.store.command(namespace, old.id, command, request.validate_only).await?;
        self.whole(&record).await.map(Response::new)
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        check::length("reason", &request.reason, check::MAX_TITLE)?;
        self.cancel(scope, &request.name, request.reason).await.map(Response::new)
    }

    async fn acknowledge_task(
        &self,
        request: Request<v1::AcknowledgeTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        check::length("reason", &request.reason, check::MAX_TITLE)?;
        let (namespace, named) = names::task("name", &request.name)?;
        let id = scope.check(self.store.task(&namespace, named).await?)?.id;
        let command = task::Command::Acknowledge { reason: request.reason };
        let (record, _) = self.store.command(namespace, id, command, false).await?;
        self.whole(&record).await.map(Response::new)
    }

    async fn retry_task(&self, request: Request<v1::RetryTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let (trace, scope) = (trace(&request), Scope::of(&request));
        let request = request.into_inner();
        let (namespace, named) = names::task("name", &request.name)?;
        let old = self.store.task(&namespace, named).await?;
        if !old.state.is_final() {
            let text = format!("the task is {}; only an ended task can be retried", old.state.name());
            return Err(error("TASK_NOT_ENDED", text));
        }
        let prepared = self.prepare_copy(&self.creator, &old, request, trace, scope, &Copies::new()).await?;
        let mut answers = self.creator.commit(vec![prepared]).await?;
        let answer = answers.pop().unwrap_or_else(|| Err(no_reply()));
        answer.map(Response::new)
    }

    async fn change_tasks(
        &self,
        request: Request<v1::ChangeTasksRequest>,
    ) -> Result<Response<v1::ChangeTasksResponse>, Status> {
        let (trace, scope) = (trace(&request), Scope::of(&request));
        let change = change::Change::new(self, request.into_inner(), trace, scope)?;
        Box::pin(change.run()).await.map(Response::new)
    }

    async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        follow::one(&self.store, &self.streams, request.into_inner()).await.map(encoded::response)
    }

    async fn search_task_log(
        &self,
        request: Request<v1::SearchTaskLogRequest>,
    ) -> Result<Response<v1::SearchTaskLogResponse>, Status> {
        search_log::search(&self.store, request.get_ref()).await.map(Response::new)
    }

    async fn download_task_log(
        &self,
        request: Request<v1::DownloadTaskLogRequest>,
    ) -> Result<Response<Self::DownloadTaskLogStream>, Status> {
        log_text::download(&self.store, &self.streams, &request.get_ref().name).await.map(Response::new)
    }

    async fn watch_tasks(
        &self,
        request: Request<v1::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        feed::watch(&self.store, &self.streams, self.retention, request).await
    }

    async fn explain_task(
        &self,
        request: Request<v1::ExplainTaskRequest>,
    ) -> Result<Response<v1::ExplainTaskResponse>, Status> {
        let scope = Scope::of(&request);
        let (namespace, named) = names::task("name", &request.into_inner().name)?;
        let record = scope.check(self.store.task(&namespace, named).await?)?;
        self.explainer.explain(&record).await.map(Response::new)
    }

    async fn send_task_input(
        &self,
        request: Request<v1::SendTaskInputRequest>,
    ) -> Result<Response<v1::SendTaskInputResponse>, Status> {
        let caller = request.extensions().get::<PersonCall>().cloned();
        let request = request.into_inner();
        let input = request.input.ok_or_else(|| invalid("input", "is required"))?;
        let seq = self.inputs.give(caller.as_ref(), &request.name, &input).await?;
        Ok(Response::new(v1::SendTaskInputResponse { input_seq: num::to_i64(seq) }))
    }

    async fn attach_task(
        &self,
        request: Request<Streaming<AttachTaskRequest>>,
    ) -> Result<Response<Self::AttachTaskStream>, Status> {
        let caller = request.extensions().get::<PersonCall>().cloned();
        let (inputs, streams) = (self.inputs.clone(), self.streams.clone());
        Ok(Response::new(Box::pin(follow::attach(inputs, caller, streams, request.into_inner()))))
    }
}
