//! Fake control plane: each test accepts sessions and exchanges messages by hand.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rota_proto::v1::{
    Event, Limits, OnDisconnect, Runtime, ScriptStep, ScriptedRuntime, StepState, TaskResult, TaskSpec,
    runtime, script_step,
};
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use rota_proto::worker::v1::{
    Assign, FetchCheckpointRequest, FetchCheckpointResponse, FetchPreviousResultRequest,
    FetchPreviousResultResponse, FetchStepResultsRequest, FetchStepResultsResponse, Hello,
    KeepArtifactsRequest, KeepArtifactsResponse, Report, Result as AttemptResult, ResumeAttempt,
    SessionRequest, SessionResponse, StepResult, UndeliveredWork, Welcome, resume_attempt,
};
use rota_telemetry::{OnExit, spawn};
use rota_worker::{Error, Options};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::support::TEST_TIMEOUT;

type Out = mpsc::Sender<Result<SessionResponse, Status>>;

/// A session call whose Hello was not read yet.
struct Call {
    inbound: Streaming<SessionRequest>,
    out: Out,
    authorization: Option<String>,
}

#[derive(Clone, Default)]
struct Service {
    calls: Arc<Mutex<Option<mpsc::UnboundedSender<Call>>>>,
    refusal: Arc<Mutex<Option<Status>>>,
    refused: Arc<AtomicUsize>,
    result_errors: Arc<Mutex<ResultErrors>>,
    keep_refusal: Arc<Mutex<Option<Status>>>,
    undelivered: Arc<Mutex<Option<UndeliveredWork>>>,
    checkpoint_refusal: Arc<Mutex<Option<Status>>>,
    checkpoint_requests: Arc<AtomicUsize>,
}

/// Errors that requests for results receive, and whether the last one stays.
#[derive(Default)]
struct ResultErrors {
    queue: VecDeque<Status>,
    lasting: Option<Status>,
    requests: usize,
}

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        if let Some(refusal) = self.refusal.lock().unwrap().clone() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(refusal);
        }
        let authorization = request.metadata().get("authorization").map(|v| v.to_str().unwrap().to_owned());
        let (out, receiver) = mpsc::channel(1024);
        let call = Call { inbound: request.into_inner(), out, authorization };
        let calls = self.calls.lock().unwrap().clone().unwrap();
        let _ = calls.send(call);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    /// Fails as the test asks; then the result repeats the request.
    async fn fetch_previous_result(
        &self,
        request: Request<FetchPreviousResultRequest>,
    ) -> Result<Response<FetchPreviousResultResponse>, Status> {
        {
            let mut errors = self.result_errors.lock().unwrap();
            errors.requests += 1;
            if let Some(error) = errors.queue.pop_front().or_else(|| errors.lasting.clone()) {
                return Err(error);
            }
        }
        let FetchPreviousResultRequest { task_id, fence, previous_task_id, .. } = request.into_inner();
        let text = format!("{previous_task_id} for {task_id}, fence {fence}");
        let result = Some(TaskResult { text, ..TaskResult::default() });
        Ok(Response::new(FetchPreviousResultResponse { result, artifacts: None }))
    }

    /// Returns two pages: a step that was skipped, then one with a task.
    async fn fetch_step_results(
        &self,
        request: Request<FetchStepResultsRequest>,
    ) -> Result<Response<FetchStepResultsResponse>, Status> {
        let FetchStepResultsRequest { page_token, task_id, .. } = request.into_inner();
        let (step, state, result, next_page_token) = match page_token.as_str() {
            "" => ("skipped", StepState::Skipped, None, "1.0".to_owned()),
            page => {
                let text = format!("page {page} for {task_id}");
                (
                    "done",
                    StepState::Succeeded,
                    Some(TaskResult { text, ..TaskResult::default() }),
                    String::new(),
                )
            }
        };
        let result =
            StepResult { step: step.to_owned(), state: state.into(), result, ..StepResult::default() };
        Ok(Response::new(FetchStepResultsResponse { results: vec![result], next_page_token }))
    }

    /// Keeps everything, unless the test refuses.
    async fn keep_artifacts(
        &self,
        _: Request<KeepArtifactsRequest>,
    ) -> Result<Response<KeepArtifactsResponse>, Status> {
        self.keep_refusal.lock().unwrap().clone().map_or(Ok(()), Err)?;
        Ok(Response::new(KeepArtifactsResponse::default()))
    }

    async fn fetch_checkpoint(
        &self,
        _: Request<FetchCheckpointRequest>,
    ) -> Result<Response<FetchCheckpointResponse>, Status> {
        self.checkpoint_requests.fetch_add(1, Ordering::Relaxed);
        self.checkpoint_refusal.lock().unwrap().clone().map_or(Ok(()), Err)?;
        let undelivered = self.undelivered.lock().unwrap().clone();
        Ok(Response::new(FetchCheckpointResponse { undelivered, ..FetchCheckpointResponse::default() }))
    }
}

/// A control plane scripted by a test.
pub(crate) struct FakeControlPlane {
    pub(crate) endpoint: String,
    calls: mpsc::UnboundedReceiver<Call>,
    service: Service,
}

impl FakeControlPlane {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = Service::default();
        let (sender, calls) = mpsc::unbounded_channel();
        *service.calls.lock().unwrap() = Some(sender);
        let server = tonic::transport::Server::builder()
            .add_service(WorkerServiceServer::new(service.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        spawn("fake control plane", OnExit::Done, server);
        Self { endpoint, calls, service }
    }

    /// Refuses all sessions from now on; `None` accepts them again.
    pub(crate) fn refuse(&self, status: Option<Status>) {
        *self.service.refusal.lock().unwrap() = status;
    }

    /// Fails the next requests for results, one per status.
    pub(crate) fn fail_results(&self, errors: impl IntoIterator<Item = Status>) {
        self.service.result_errors.lock().unwrap().queue.extend(errors);
    }

    /// Fails all requests for results, after those of [`Self::fail_results`].
    pub(crate) fn refuse_results(&self, error: Status) {
        self.service.result_errors.lock().unwrap().lasting = Some(error);
    }

    /// Keeps no lists of artifacts from now on.
    pub(crate) fn refuse_lists(&self, error: Status) {
        *self.service.keep_refusal.lock().unwrap() = Some(error);
    }

    /// Keeps lists of artifacts again.
    pub(crate) fn keep_lists(&self) {
        *self.service.keep_refusal.lock().unwrap() = None;
    }

    /// Has this work of an earlier attempt to deliver.
    pub(crate) fn left(&self, work: UndeliveredWork) {
        *self.service.undelivered.lock().unwrap() = Some(work);
    }

    /// Refuses all requests for checkpoints from now on.
    pub(crate) fn refuse_checkpoints(&self, error: Status) {
        *self.service.checkpoint_refusal.lock().unwrap() = Some(error);
    }

    pub(crate) fn checkpoint_requests(&self) -> usize {
        self.service.checkpoint_requests.load(Ordering::Relaxed)
    }

    pub(crate) fn result_requests(&self) -> usize {
        self.service.result_errors.lock().unwrap().requests
    }

    /// Waits until at least `times` sessions were refused.
    pub(crate) async fn refused(&self, times: usize) {
        let refused = || (self.service.refused.load(Ordering::Relaxed) >= times).then_some(());
        crate::support::until("a refusal", refused).await;
    }

    /// Waits for the next session.
    pub(crate) async fn session(&mut self) -> Session {
        let call = timeout(TEST_TIMEOUT, self.calls.recv()).await.expect("a session").unwrap();
        let Call { mut inbound, out, authorization } = call;
        let hello = match timeout(TEST_TIMEOUT, inbound.next()).await.expect("a Hello").unwrap().unwrap().kind
        {
            Some(FromWorker::Hello(hello)) => hello,
            other => panic!("not a Hello: {other:?}"),
        };
        Session { hello: *hello, authorization, inbound, out }
    }

    /// Waits for the next session and welcomes it.
    pub(crate) async fn welcomed(&mut self) -> Session {
        let session = self.session().await;
        session.welcome(|_| {}).await;
        session
    }
}

pub(crate) struct Session {
    pub(crate) hello: Hello,
    pub(crate) authorization: Option<String>,
    inbound: Streaming<SessionRequest>,
    out: Out,
}

impl Session {
    /// Sends a Welcome that continues all attempts, with `change` applied.
    pub(crate) async fn welcome(&self, change: impl FnOnce(&mut Welcome)) {
        let resume = self.hello.running.iter().map(|running| ResumeAttempt {
            task_id: running.task_id.clone(),
            fence: running.fence,
            kind: Some(resume_attempt::Kind::ContinueAfter(0)),
        });
        let mut welcome = Welcome {
            epoch: 1,
            heartbeat_interval: Some(Duration::from_millis(200).into()),
            heartbeat_timeout: Some(TEST_TIMEOUT.into()),
            reconnect_grace: Some(TEST_TIMEOUT.into()),
            resume: resume.collect(),
            on_disconnect: OnDisconnect::Continue.into(),
        };
        change(&mut welcome);
        self.send(ToWorker::Welcome(welcome.into())).await;
    }

    pub(crate) async fn send(&self, kind: ToWorker) {
        self.out.send(Ok(SessionResponse { kind: Some(kind) })).await.unwrap();
    }

    pub(crate) async fn fail(&self, status: Status) {
        self.out.send(Err(status)).await.unwrap();
    }

    /// Returns the next message except heartbeats; `None` at the end of the call.
    pub(crate) async fn next(&mut self) -> Option<FromWorker> {
        loop {
            match timeout(TEST_TIMEOUT, self.inbound.next()).await.expect("a message") {
                Some(Ok(SessionRequest { kind: Some(FromWorker::Heartbeat(_)) })) => {}
                Some(Ok(message)) => return message.kind,
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn heartbeat(&mut self) {
        while let Some(Ok(message)) = timeout(TEST_TIMEOUT, self.inbound.next()).await.expect("a message") {
            if matches!(message.kind, Some(FromWorker::Heartbeat(_))) {
                return;
            }
        }
        panic!("no heartbeat");
    }

    pub(crate) async fn accepted(&mut self, fence: i64) {
        match self.next().await {
            Some(FromWorker::Accept(accept)) => assert_eq!(accept.fence, fence),
            other => panic!("not an Accept: {other:?}"),
        }
    }

    pub(crate) async fn rejected(&mut self) -> String {
        match self.next().await {
            Some(FromWorker::Reject(reject)) => reject.reason,
            other => panic!("not a Reject: {other:?}"),
        }
    }

    pub(crate) async fn report(&mut self) -> Report {
        match self.next().await {
            Some(FromWorker::Report(report)) => report,
            other => panic!("not a Report: {other:?}"),
        }
    }

    /// Collects all events up to the result.
    pub(crate) async fn result(&mut self) -> (Vec<Event>, AttemptResult) {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Some(FromWorker::Report(report)) => {
                    assert!(!report.events.is_empty());
                    events.extend(report.events);
                }
                Some(FromWorker::Result(result)) => return (events, *result),
                other => panic!("neither Report nor Result: {other:?}"),
            }
        }
    }
}

/// Assignment of the task `t{fence}`.
pub(crate) fn assign(fence: i64, kind: runtime::Kind) -> Assign {
    Assign {
        task_id: format!("t{fence}"),
        attempt: 1,
        fence,
        namespace: "default".to_owned(),
        agent: "default".to_owned(),
        spec: Some(TaskSpec { runtime: Some(Runtime { kind: Some(kind) }), ..TaskSpec::default() }),
        ..Assign::default()
    }
}

pub(crate) fn limits(assign: &mut Assign) -> &mut Limits {
    assign.spec.as_mut().unwrap().limits.get_or_insert_default()
}

pub(crate) fn script(steps: impl IntoIterator<Item = script_step::Kind>) -> runtime::Kind {
    let steps = steps.into_iter().map(|kind| ScriptStep { kind: Some(kind) }).collect();
    runtime::Kind::Scripted(ScriptedRuntime { steps, seed: 0 })
}

/// A delay longer than any test.
pub(crate) fn endless() -> script_step::Kind {
    script_step::Kind::Delay(Duration::from_secs(1 << 20).into())
}

pub(crate) fn message(text: &str) -> script_step::Kind {
    script_step::Kind::Message(text.to_owned())
}

/// A worker within the test's process.
pub(crate) struct Worker {
    pub(crate) state: TempDir,
    pub(crate) shutdown: CancellationToken,
    pub(crate) stop_now: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
}

impl Worker {
    pub(crate) fn start(plane: &FakeControlPlane) -> Self {
        Self::start_with(plane, |_| {})
    }

    pub(crate) fn start_with(plane: &FakeControlPlane, change: impl FnOnce(&mut Options)) -> Self {
        Self::start_at(&plane.endpoint, change)
    }

    /// Starts a worker of any control plane.
    pub(crate) fn start_at(endpoint: &str, change: impl FnOnce(&mut Options)) -> Self {
        crate::support::supervised();
        let state = tempfile::tempdir().unwrap();
        let channel = rota_client::RenewableChannel::new(rota_client::Options::new(endpoint)).unwrap();
        let mut options = Options::new(channel, "default", "default", "w", state.path().to_owned());
        options.slots = 16;
        change(&mut options);
        let (shutdown, stop_now) = (CancellationToken::new(), options.stop_now.clone());
        let run = spawn("worker", OnExit::Done, options.run(shutdown.clone()));
        Self { state, shutdown, stop_now, run }
    }

    /// Waits for the worker to end.
    pub(crate) async fn ended(self) -> Result<(), Error> {
        timeout(TEST_TIMEOUT, self.run).await.expect("the worker's end").unwrap()
    }
}
