//! Resuming, against a server that closes every stream after a few messages.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use rota_proto::v1::task_service_server::{TaskService, TaskServiceServer};
use rota_proto::v1::{self, Event, TaskState};
use rota_telemetry::OnExit;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Watch;
use crate::{Client, Options, Token};

/// Scripted response to one call of WatchTask.
enum Play {
    /// Sends the messages, then ends the stream.
    End(Vec<v1::WatchTaskResponse>),
    /// Sends the messages, then fails.
    Fail(Vec<v1::WatchTaskResponse>, Status),
    /// Fails without a stream.
    Reject(Status),
}

#[derive(Default)]
struct Script {
    plays: VecDeque<Play>,
    many: VecDeque<Vec<v1::WatchTasksResponse>>,
    /// Name or token, and position, of each call.
    requests: Vec<(String, i64)>,
    /// How many calls of CreateTask still to reject.
    rejected_creates: u32,
    /// Inputs that were received; the first one is rejected.
    inputs: Vec<Option<v1::TaskInput>>,
    task_ids: Vec<String>,
    tokens: Vec<String>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Script>>);

type Out<T> = futures::stream::BoxStream<'static, Result<T, Status>>;

/// Written out, since `async_trait` does not expand macros.
macro_rules! unused {
    ($($name:ident($request:ty) -> $answer:ty;)+) => {$(
        fn $name<'a, 'b>(
            &'a self,
            _: Request<$request>,
        ) -> futures::future::BoxFuture<'b, Result<Response<$answer>, Status>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        }
    )+};
}

mod workflows;

#[tonic::async_trait]
impl TaskService for Fake {
    type WatchTaskStream = Out<v1::WatchTaskResponse>;
    type WatchTasksStream = Out<v1::WatchTasksResponse>;
    type AttachTaskStream = Out<v1::AttachTaskResponse>;
    type DownloadTaskLogStream = Out<rota_proto::HttpBody>;
    type ExportTasksStream = Out<rota_proto::HttpBody>;

    async fn export_tasks(
        &self,
        _: Request<v1::ExportTasksRequest>,
    ) -> Result<Response<Self::ExportTasksStream>, Status> {
        Err(Status::unimplemented("export_tasks"))
    }

    async fn watch_task(
        &self,
        request: Request<v1::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let mut script = self.0.lock().unwrap();
        let request = request.into_inner();
        script.requests.push((request.name, request.after_log_seq));
        let (messages, end) = match script.plays.pop_front().expect("no more calls") {
            Play::End(messages) => (messages, None),
            Play::Fail(messages, status) => (messages, Some(status)),
            Play::Reject(status) => return Err(status),
        };
        let items = messages.into_iter().map(Ok).chain(end.map(Err)).collect::<Vec<_>>();
        Ok(Response::new(futures::stream::iter(items).boxed()))
    }

    async fn watch_tasks(
        &self,
        request: Request<v1::WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        let mut script = self.0.lock().unwrap();
        script.requests.push((request.into_inner().token, 0));
        let messages = script.many.pop_front().ok_or_else(|| Status::not_found("no more"))?;
        Ok(Response::new(futures::stream::iter(messages.into_iter().map(Ok)).boxed()))
    }

    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::Task>, Status> {
        let mut script = self.0.lock().unwrap();
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        script.tokens.extend(token);
        script.task_ids.push(request.into_inner().task_id);
        if script.rejected_creates > 0 {
            script.rejected_creates -= 1;
            return Err(Status::unavailable("shutting down"));
        }
        Ok(Response::new(v1::Task::default()))
    }

    async fn send_task_input(
        &self,
        request: Request<v1::SendTaskInputRequest>,
    ) -> Result<Response<v1::SendTaskInputResponse>, Status> {
        let mut script = self.0.lock().unwrap();
        script.inputs.push(request.into_inner().input);
        match script.inputs.len() {
            1 => Err(Status::unavailable("shutting down")),
            _ => Ok(Response::new(v1::SendTaskInputResponse::default())),
        }
    }

    async fn download_task_log(
        &self,
        _: Request<v1::DownloadTaskLogRequest>,
    ) -> Result<Response<Self::DownloadTaskLogStream>, Status> {
        Err(Status::unimplemented("download_task_log"))
    }

    async fn attach_task(
        &self,
        _: Request<Streaming<v1::AttachTaskRequest>>,
    ) -> Result<Response<Self::AttachTaskStream>, Status> {
        Err(Status::unimplemented("attach_task"))
    }

    unused! {
        batch_create_tasks(v1::BatchCreateTasksRequest) -> v1::BatchCreateTasksResponse;
        get_task(v1::GetTaskRequest) -> v1::Task;
        list_tasks(v1::ListTasksRequest) -> v1::ListTasksResponse;
        list_threads(v1::ListThreadsRequest) -> v1::ListThreadsResponse;
        update_task(v1::UpdateTaskRequest) -> v1::Task;
        cancel_task(v1::CancelTaskRequest) -> v1::Task;
        acknowledge_task(v1::AcknowledgeTaskRequest) -> v1::Task;
        retry_task(v1::RetryTaskRequest) -> v1::Task;
        explain_task(v1::ExplainTaskRequest) -> v1::ExplainTaskResponse;
        change_tasks(v1::ChangeTasksRequest) -> v1::ChangeTasksResponse;
        search_tasks(v1::SearchTasksRequest) -> v1::SearchTasksResponse;
        search_task_log(v1::SearchTaskLogRequest) -> v1::SearchTaskLogResponse;
    }
}

async fn serve(routes: Routes) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    rota_telemetry::spawn("test server", OnExit::Done, async move {
        tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await
    });
    address
}

async fn client(fake: &Fake) -> Client {
    client_of(Routes::new(TaskServiceServer::new(fake.clone()))).await
}

async fn client_of(routes: Routes) -> Client {
    let address = serve(routes).await;
    Client::new(Options { token: Token::Fixed("t0".into()), ..Options::new(address.to_string()) }).unwrap()
}

fn update(seqs: &[i64], state: TaskState, last: i64) -> v1::WatchTaskResponse {
    v1::WatchTaskResponse {
        deltas: vec![],
        events: seqs.iter().map(|seq| Event { log_seq: *seq, ..Default::default() }).collect(),
        task: Some(v1::Task {
            name: "namespaces/default/tasks/id-1".into(),
            status: Some(Box::new(v1::TaskStatus {
                state: state.into(),
                log_seq: last,
                ..Default::default()
            })),
            ..Default::default()
        }),
    }
}

async fn sequence_numbers(watch: Watch<v1::WatchTaskResponse>) -> Vec<Result<i64, Code>> {
    let items: Vec<_> = watch.collect().await;
    items
        .into_iter()
        .flat_map(|item| match item {
            Ok(answer) => answer.events.iter().map(|event| Ok(event.log_seq)).collect(),
            Err(error) => vec![Err(error.code)],
        })
        .collect()
}

#[tokio::test]
async fn events_arrive_once_across_reconnects() {
    use TaskState::{Running, Succeeded};
    let fake = Fake::default();
    fake.0.lock().unwrap().plays = VecDeque::from([
        Play::Fail(vec![update(&[1, 2], Running, 2)], Status::unavailable("shutting down")),
        Play::End(vec![]),
        Play::Reject(Status::unavailable("not yet")),
        // Repeats an event, which a server must not do and the client tolerates.
        Play::End(vec![update(&[2, 3], Running, 3), update(&[4], Running, 4)]),
        Play::End(vec![update(&[5], Succeeded, 6), update(&[6], Succeeded, 6)]),
    ]);
    let watch = client(&fake).await.watch_task("namespaces/default/tasks/alias", 0);
    assert_eq!(sequence_numbers(watch).await, [1, 2, 3, 4, 5, 6].map(Ok));
    let requests = fake.0.lock().unwrap().requests.clone();
    // The alias is resolved once: later it could refer to another task.
    let id = "namespaces/default/tasks/id-1".to_owned();
    let expected = [
        ("namespaces/default/tasks/alias".to_owned(), 0),
        (id.clone(), 2),
        (id.clone(), 2),
        (id.clone(), 2),
        (id, 4),
    ];
    assert_eq!(requests, expected);
}

#[tokio::test]
async fn permanent_error_ends_watch() {
    let fake = Fake::default();
    fake.0.lock().unwrap().plays = VecDeque::from([Play::Fail(
        vec![update(&[1], TaskState::Running, 1)],
        Status::permission_denied("no more"),
    )]);
    let watch = client(&fake).await.watch_task("t", 0);
    assert_eq!(sequence_numbers(watch).await, [Ok(1), Err(Code::PermissionDenied)]);
}

#[tokio::test]
async fn unreachable_server_fails_before_first_response() {
    let mut options = Options::new("127.0.0.1:1");
    options.retry_for = std::time::Duration::from_millis(100);
    let watch = Client::new(options).unwrap().watch_task("t", 0);
    let items: Vec<_> = watch.collect().await;
    let error = items.into_iter().next().unwrap().unwrap_err();
    assert!(error.lost, "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(error.hint.unwrap().contains("rota dev"));
}

#[tokio::test]
async fn task_list_resumes_from_token() {
    let fake = Fake::default();
    let at = |token: &str| v1::WatchTasksResponse { token: token.into(), ..Default::default() };
    fake.0.lock().unwrap().many = VecDeque::from([vec![at(""), at("a"), at("b")], vec![at("c")]]);
    let watch = client(&fake).await.watch_tasks("namespaces/-", "", false);
    let items: Vec<_> =
        watch.map(|item| item.map(|answer| answer.token).map_err(|error| error.code)).collect().await;
    let text = |text: &str| Ok(text.to_owned());
    assert_eq!(items, [text(""), text("a"), text("b"), text("c"), Err(Code::NotFound)]);
    let requests: Vec<_> = fake.0.lock().unwrap().requests.iter().map(|(token, _)| token.clone()).collect();
    assert_eq!(requests, ["", "b", "c"]);
}

#[tokio::test]
async fn batch_is_passed_on_in_single_changes() {
    let fake = Fake::default();
    let change = |name: &str| v1::TaskChange {
        task: Some(v1::Task { name: name.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let first = v1::WatchTasksResponse { token: "a".into(), ..Default::default() };
    let changes = vec![change("one"), change("two")];
    let batch = v1::WatchTasksResponse { token: "b".into(), changes, ..Default::default() };
    fake.0.lock().unwrap().many = VecDeque::from([vec![first, batch]]);
    let watch = client(&fake).await.watch_tasks("namespaces/-", "", false);
    let items: Vec<_> = watch.filter_map(async |item| item.ok()).collect().await;
    let items: Vec<_> = items
        .iter()
        .map(|item| (item.task.as_ref().map(|task| task.name.as_str()), item.token.as_str()))
        .collect();
    // A caller that stops in between resumes from before the batch.
    assert_eq!(items, [(None, "a"), (Some("one"), "a"), (Some("two"), "b")]);
}

#[tokio::test]
async fn reconnect_without_token_requires_resync() {
    let fake = Fake::default();
    fake.0.lock().unwrap().many = VecDeque::from([vec![v1::WatchTasksResponse::default()], vec![]]);
    let watch = client(&fake).await.watch_tasks("namespaces/-", "", false);
    let resyncs: Vec<_> = watch.map(|item| item.map(|answer| answer.resync).ok()).collect().await;
    assert_eq!(resyncs[..2], [Some(false), Some(true)]);
}

#[tokio::test]
async fn create_retries_keep_task_id_and_token() {
    let fake = Fake::default();
    fake.0.lock().unwrap().rejected_creates = 2;
    client(&fake).await.create_task(v1::CreateTaskRequest::default()).await.unwrap();
    let script = fake.0.lock().unwrap();
    assert_eq!(script.task_ids.len(), 3);
    assert!(!script.task_ids[0].is_empty());
    assert!(script.task_ids.iter().all(|id| *id == script.task_ids[0]), "{:?}", script.task_ids);
    assert_eq!(script.tokens, ["Bearer t0"; 3]);
}

#[tokio::test]
async fn input_is_sent_once() {
    let input = |request_id: &str| v1::TaskInput { request_id: request_id.into(), ..Default::default() };
    for request_id in ["q1", ""] {
        let fake = Fake::default();
        let request = v1::SendTaskInputRequest { input: Some(input(request_id)), ..Default::default() };
        let sent = client(&fake).await.send_task_input(request).await;
        assert_eq!(sent.unwrap_err().code, Code::Unavailable);
        assert_eq!(fake.0.lock().unwrap().inputs, [Some(input(request_id))]);
    }
}
