//! A control plane that the test plays: it takes sessions and shows every message.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rota_proto::v1::{
    Event, Limits, OnDisconnect, Runtime, ScriptStep, ScriptedRuntime, TaskSpec, runtime, script_step,
};
use rota_proto::worker::v1::session_request::Kind as Said;
use rota_proto::worker::v1::session_response::Kind as Told;
use rota_proto::worker::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use rota_proto::worker::v1::{
    Assign, Hello, Report, Result as AttemptResult, ResumeAttempt, SessionRequest, SessionResponse, Welcome,
    resume_attempt,
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

use crate::support::PATIENCE;

type Out = mpsc::Sender<Result<SessionResponse, Status>>;

/// A call before its Hello was read.
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
}

/// The control plane.
pub(crate) struct Plane {
    pub(crate) endpoint: String,
    calls: mpsc::UnboundedReceiver<Call>,
    service: Service,
}

impl Plane {
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

    /// From now on every session is refused so; `None` takes them again.
    pub(crate) fn refuse(&self, status: Option<Status>) {
        *self.service.refusal.lock().unwrap() = status;
    }

    /// Waits until a worker has been refused so often.
    pub(crate) async fn refused(&self, times: usize) {
        let refused = || (self.service.refused.load(Ordering::Relaxed) >= times).then_some(());
        crate::support::until("a refusal", refused).await;
    }

    /// The next session that a worker opens.
    pub(crate) async fn session(&mut self) -> Session {
        let call = timeout(PATIENCE, self.calls.recv()).await.expect("a session").unwrap();
        let Call { mut inbound, out, authorization } = call;
        let hello = match timeout(PATIENCE, inbound.next()).await.expect("a Hello").unwrap().unwrap().kind {
            Some(Said::Hello(hello)) => hello,
            other => panic!("not a Hello: {other:?}"),
        };
        Session { hello, authorization, inbound, out }
    }

    /// The next session, already welcomed.
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
    /// Welcomes the worker; all it has goes on from where it is, unless `change` says otherwise.
    pub(crate) async fn welcome(&self, change: impl FnOnce(&mut Welcome)) {
        let resume = self.hello.running.iter().map(|running| ResumeAttempt {
            task_id: running.task_id.clone(),
            fence: running.fence,
            kind: Some(resume_attempt::Kind::ContinueAfter(0)),
        });
        let mut welcome = Welcome {
            session: "s".to_owned(),
            epoch: 1,
            heartbeat_interval: Some(Duration::from_millis(200).into()),
            heartbeat_timeout: Some(PATIENCE.into()),
            reconnect_grace: Some(PATIENCE.into()),
            resume: resume.collect(),
            on_disconnect: OnDisconnect::Continue.into(),
        };
        change(&mut welcome);
        self.send(Told::Welcome(welcome)).await;
    }

    pub(crate) async fn send(&self, kind: Told) {
        self.out.send(Ok(SessionResponse { kind: Some(kind) })).await.unwrap();
    }

    pub(crate) async fn fail(&self, status: Status) {
        self.out.send(Err(status)).await.unwrap();
    }

    /// What the worker says next, besides heartbeats; none when it has ended the call.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        loop {
            match timeout(PATIENCE, self.inbound.next()).await.expect("a message") {
                Some(Ok(SessionRequest { kind: Some(Said::Heartbeat(_)) })) => {}
                Some(Ok(message)) => return message.kind,
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn heartbeat(&mut self) {
        while let Some(Ok(message)) = timeout(PATIENCE, self.inbound.next()).await.expect("a message") {
            if matches!(message.kind, Some(Said::Heartbeat(_))) {
                return;
            }
        }
        panic!("no heartbeat");
    }

    pub(crate) async fn accepted(&mut self, fence: i64) {
        match self.next().await {
            Some(Said::Accept(accept)) => assert_eq!(accept.fence, fence),
            other => panic!("not an Accept: {other:?}"),
        }
    }

    pub(crate) async fn rejected(&mut self) -> String {
        match self.next().await {
            Some(Said::Reject(reject)) => reject.reason,
            other => panic!("not a Reject: {other:?}"),
        }
    }

    pub(crate) async fn report(&mut self) -> Report {
        match self.next().await {
            Some(Said::Report(report)) => report,
            other => panic!("not a Report: {other:?}"),
        }
    }

    /// Everything up to the result: the events, and the result.
    pub(crate) async fn result(&mut self) -> (Vec<Event>, AttemptResult) {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Some(Said::Report(report)) => {
                    assert!(!report.events.is_empty());
                    events.extend(report.events);
                }
                Some(Said::Result(result)) => return (events, result),
                other => panic!("neither Report nor Result: {other:?}"),
            }
        }
    }
}

/// An assignment of the task `t{fence}`.
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

/// A step that takes longer than any test.
pub(crate) fn forever() -> script_step::Kind {
    script_step::Kind::Delay(Duration::from_secs(1 << 20).into())
}

pub(crate) fn say(text: &str) -> script_step::Kind {
    script_step::Kind::Say(text.to_owned())
}

/// A worker in this process.
pub(crate) struct Worker {
    pub(crate) state: TempDir,
    pub(crate) shutdown: CancellationToken,
    pub(crate) stop_now: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
}

impl Worker {
    pub(crate) fn start(plane: &Plane) -> Self {
        Self::start_with(plane, |_| {})
    }

    pub(crate) fn start_with(plane: &Plane, change: impl FnOnce(&mut Options)) -> Self {
        crate::support::supervised();
        let state = tempfile::tempdir().unwrap();
        let channel = tonic::transport::Endpoint::from_shared(plane.endpoint.clone()).unwrap().connect_lazy();
        let mut options = Options::new(channel, "default", "default", "w", state.path().to_owned());
        options.slots = 16;
        change(&mut options);
        let (shutdown, stop_now) = (CancellationToken::new(), options.stop_now.clone());
        let run = spawn("worker", OnExit::Done, options.run(shutdown.clone()));
        Self { state, shutdown, stop_now, run }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) -> Result<(), Error> {
        timeout(PATIENCE, self.run).await.expect("the worker's end").unwrap()
    }
}
