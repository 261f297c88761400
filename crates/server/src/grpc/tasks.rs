//! `TaskService`.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::Message;
use rota_core::rank::Priority;
use rota_core::task::{self, Desired};
use rota_core::{Namespace, TaskId};
use rota_proto::v1::task_service_server::TaskService;
use rota_proto::v1::{self, AttachTaskRequest, AttachTaskResponse, WatchTaskResponse, WatchTasksResponse};
use rota_store::{Command, Filter, Reply};
use tonic::{Request, Response, Status, Streaming};

use super::{create, explain, feed, follow};
use crate::shared::Shared;
use crate::wire::status::{error, invalid};
use crate::wire::{agent, check, event, names, status, task as wire, time};

const MAX_BATCH: usize = 1000;

pub(crate) struct Tasks {
    pub(crate) shared: Arc<Shared>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Tasks {
    /// A task with all that is known of it.
    async fn whole(&self, record: &task::Task) -> Result<v1::Task, Status> {
        let payload = self.shared.store.payload(record.id).await.map_err(status::store)?;
        let result = match record.has_result {
            true => self.shared.store.result(record.id).await.map_err(status::store)?,
            false => None,
        };
        Ok(wire::to_wire(record, payload.as_ref(), result.as_ref()))
    }

    async fn command(
        &self,
        namespace: Namespace,
        id: TaskId,
        command: task::Command,
    ) -> Result<Reply, Status> {
        self.shared.apply(Command::Task { namespace, id, command }).await
    }

    async fn updated(&self, reply: Reply) -> Result<v1::Task, Status> {
        match reply {
            Reply::Task(record, _) => self.whole(&record).await,
            _ => Err(Status::internal("the store gave another answer than was asked for")),
        }
    }

    async fn cancel(&self, name: &str, reason: String) -> Result<v1::Task, Status> {
        let (namespace, named) = names::task("name", name)?;
        let record = self.shared.task(&namespace, named).await?;
        // Safe to repeat: what has been cancelled stays so.
        if record.state == task::State::Cancelled {
            return self.whole(&record).await;
        }
        let desired = Some(Desired::Cancelled);
        let command = task::Command::Update { priority: None, labels: None, desired, reason };
        let reply = self.command(namespace, record.id, command).await?;
        self.updated(reply).await
    }

    pub(super) async fn give_input(&self, name: &str, input: &v1::TaskInput) -> Result<u64, Status> {
        check::length("input.text", &input.text, check::MAX_TEXT)?;
        check::length("input.request_id", &input.request_id, 256)?;
        if input.request_id.is_empty() && input.text.is_empty() {
            return Err(invalid("input", "needs a request_id to answer, or a text to say"));
        }
        let (namespace, named) = names::task("name", name)?;
        let id = self.shared.resolve(&namespace, named).await?;
        let payload = input.encode_to_vec().into();
        let command = task::Command::GiveInput { request: input.request_id.clone(), payload };
        match self.command(namespace, id, command).await? {
            Reply::Task(_, task::Reply::InputSeq(seq)) => Ok(seq),
            _ => Err(Status::internal("the store gave another answer than was asked for")),
        }
    }
}

/// Which fields an update is about.
fn changes(request: &v1::UpdateTaskRequest, given: &v1::Task) -> Result<task::Command, Status> {
    let paths = request.update_mask.as_ref().map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        return Err(invalid("update_mask", "must name at least one of priority, labels, desired_state"));
    }
    let (mut priority, mut labels, mut desired) = (None, None, None);
    for path in paths {
        match path.as_str() {
            "priority" => {
                let value = given.priority.map_or(Some(Priority::NORMAL), Priority::new);
                priority = Some(value.ok_or_else(|| invalid("task.priority", "must be from 0 to 10"))?);
            }
            "labels" => {
                check::labels("task.labels", &given.labels)?;
                labels = Some(given.labels.clone());
            }
            "desired_state" | "desiredState" => {
                let wanted = v1::DesiredState::try_from(given.desired_state)
                    .map_err(|_| invalid("task.desired_state", "is not a known state"))?;
                desired = Some(wire::from_desired(wanted));
            }
            other => {
                let why = format!(
                    "{:?} cannot be changed; priority, labels and desired_state can",
                    check::shorten(other)
                );
                return Err(invalid("update_mask", why));
            }
        }
    }
    Ok(task::Command::Update { priority, labels, desired, reason: String::new() })
}

#[tonic::async_trait]
impl TaskService for Tasks {
    type WatchTaskStream = Boxed<WatchTaskResponse>;
    type WatchTasksStream = Boxed<WatchTasksResponse>;
    type AttachTaskStream = Boxed<AttachTaskResponse>;

    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        let trace = create::trace(&request);
        let request = request.into_inner();
        let namespace = names::parent("parent", &request.parent)?;
        let only_check = request.validate_only;
        let prepared = vec![create::prepare(&self.shared, namespace, trace, request, None)?];
        let mut answers = match only_check {
            true => create::rehearse(&self.shared, prepared, Vec::new()).await?,
            false => create::commit(&self.shared, prepared).await?,
        };
        let answer = answers.pop().unwrap_or_else(|| Err(Status::internal("the store gave no answer")));
        answer.map(Response::new)
    }

    async fn batch_create_tasks(
        &self,
        request: Request<v1::BatchCreateTasksRequest>,
    ) -> Result<Response<v1::BatchCreateTasksResponse>, Status> {
        let trace = create::trace(&request);
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
        let (mut prepared, mut places) = (Vec::new(), Vec::new());
        for (index, mut one) in request.requests.into_iter().enumerate() {
            if !one.parent.is_empty() && one.parent != request.parent {
                let field = format!("requests[{index}].parent");
                results.push(Some(Err(invalid(field, "must be empty or the batch's own"))));
                continue;
            }
            if std::mem::replace(&mut one.validate_only, request.validate_only) {
                let field = format!("requests[{index}].validate_only");
                results.push(Some(Err(invalid(field, "must be said of the whole batch"))));
                continue;
            }
            let trace = task::Trace { span_id: rand::random(), ..trace.clone() };
            match create::prepare(&self.shared, parent.clone(), trace, one, None) {
                Ok(ready) => {
                    places.push(index);
                    prepared.push(ready);
                    results.push(None);
                }
                Err(status) => results.push(Some(Err(status))),
            }
        }
        let answers = match request.validate_only {
            true => create::rehearse(&self.shared, prepared, expected).await?,
            false => create::commit(&self.shared, prepared).await?,
        };
        for (place, answer) in places.into_iter().zip(answers) {
            results[place] = Some(answer);
        }
        let results = results.into_iter().map(|result| v1::BatchCreateTasksResult {
            kind: Some(match result.unwrap_or_else(|| Err(Status::internal("the store gave no answer"))) {
                Ok(task) => v1::batch_create_tasks_result::Kind::Task(task),
                Err(status) => v1::batch_create_tasks_result::Kind::Error(follow::batch_error(&status)),
            }),
        });
        Ok(Response::new(v1::BatchCreateTasksResponse { results: results.collect() }))
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let (namespace, named) = names::task("name", &request.into_inner().name)?;
        let record = self.shared.task(&namespace, named).await?;
        self.whole(&record).await.map(Response::new)
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(&request)?;
        let page = self.shared.store.list(filter).await.map_err(status::store)?;
        Ok(Response::new(v1::ListTasksResponse {
            tasks: page.tasks.iter().map(|record| wire::to_wire(record, None, None)).collect(),
            next_page_token: page.next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn update_task(
        &self,
        request: Request<v1::UpdateTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        let request = request.into_inner();
        let given = request.task.as_ref().ok_or_else(|| invalid("task", "is required"))?;
        let command = changes(&request, given)?;
        let (namespace, named) = names::task("task.name", &given.name)?;
        let id = self.shared.resolve(&namespace, named).await?;
        let command = Command::Task { namespace, id, command };
        let reply = match request.validate_only {
            true => self.shared.rehearse(command).await?,
            false => self.shared.apply(command).await?,
        };
        self.updated(reply).await.map(Response::new)
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        let request = request.into_inner();
        check::length("reason", &request.reason, check::MAX_TITLE)?;
        self.cancel(&request.name, request.reason).await.map(Response::new)
    }

    async fn retry_task(&self, request: Request<v1::RetryTaskRequest>) -> Result<Response<v1::Task>, Status> {
        let trace = create::trace(&request);
        let request = request.into_inner();
        let (namespace, named) = names::task("name", &request.name)?;
        let old = self.shared.task(&namespace, named).await?;
        if !old.state.is_final() {
            let text =
                format!("the task is {}; only one that has ended can be tried again", old.state.name());
            return Err(error("TASK_NOT_ENDED", text));
        }
        let mut again = self.whole(&old).await?;
        again.desired_state = v1::DesiredState::Run.into();
        if let Some(spec) = &mut again.spec {
            // The start time has come once already.
            spec.start_time = None;
            let missing = spec.secret_names.iter().find(|name| !request.secrets.contains_key(*name));
            if let Some(name) = missing {
                return Err(invalid(
                    "secrets",
                    format!("{name} is needed again: the old task's secrets are gone"),
                ));
            }
            spec.secrets = request.secrets;
        }
        let create = v1::CreateTaskRequest {
            parent: String::new(),
            task: Some(again),
            idempotency_key: request.idempotency_key,
            task_id: String::new(),
            validate_only: false,
        };
        let prepared = create::prepare(&self.shared, namespace, trace, create, Some(old.id))?;
        let mut answers = create::commit(&self.shared, vec![prepared]).await?;
        let answer = answers.pop().unwrap_or_else(|| Err(Status::internal("the store gave no answer")));
        answer.map(Response::new)
    }

    async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let stream = follow::one(&self.shared, request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn watch_tasks(
        &self,
        request: Request<v1::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        let stream = feed::many(&self.shared, request.into_inner()).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn explain_task(
        &self,
        request: Request<v1::ExplainTaskRequest>,
    ) -> Result<Response<v1::ExplainTaskResponse>, Status> {
        let (namespace, named) = names::task("name", &request.into_inner().name)?;
        let record = self.shared.task(&namespace, named).await?;
        explain::explain(&self.shared, &record).await.map(Response::new)
    }

    async fn send_task_input(
        &self,
        request: Request<v1::SendTaskInputRequest>,
    ) -> Result<Response<v1::SendTaskInputResponse>, Status> {
        let request = request.into_inner();
        let input = request.input.ok_or_else(|| invalid("input", "is required"))?;
        let seq = self.give_input(&request.name, &input).await?;
        let input_seq = i64::try_from(seq).unwrap_or(i64::MAX);
        Ok(Response::new(v1::SendTaskInputResponse { input_seq }))
    }

    async fn attach_task(
        &self,
        request: Request<Streaming<AttachTaskRequest>>,
    ) -> Result<Response<Self::AttachTaskStream>, Status> {
        let tasks = Self { shared: Arc::clone(&self.shared) };
        Ok(Response::new(Box::pin(follow::attach(tasks, request.into_inner()))))
    }
}

fn filter(request: &v1::ListTasksRequest) -> Result<Filter, Status> {
    let namespace = names::parent_or_all("parent", &request.parent)?;
    if request.page_size < 0 {
        return Err(invalid("page_size", "must not be negative"));
    }
    let limit = match usize::try_from(request.page_size).unwrap_or(0) {
        0 => 50,
        size => size.min(1000),
    };
    let before_id = match request.page_token.as_str() {
        "" => None,
        token => Some(token.parse().map_err(|_| invalid("page_token", "is not one that was given"))?),
    };
    let given = request.filter.clone().unwrap_or_default();
    let state = |(index, state): (usize, &i32)| {
        let known = v1::TaskState::try_from(*state).ok().and_then(event::from_state);
        known.ok_or_else(|| invalid(format!("filter.states[{index}]"), "is not a known state"))
    };
    let states = given.states.iter().enumerate().map(state).collect::<Result<_, _>>()?;
    let text = |value: String| Some(value).filter(|value| !value.is_empty());
    Ok(Filter {
        namespace,
        states,
        agent: text(given.agent).map(|agent| names::agent_id("filter.agent", &agent)).transpose()?,
        labels: given.labels,
        owner: text(given.owner),
        alias: text(given.alias),
        parent: text(given.parent_task)
            .map(|id| id.parse().map_err(|_| invalid("filter.parent_task", "is not a task's id")))
            .transpose()?,
        created_after: given.created_after.as_ref().map(time::from_timestamp),
        created_before: given.created_before.as_ref().map(time::from_timestamp),
        before_id,
        limit,
    })
}
