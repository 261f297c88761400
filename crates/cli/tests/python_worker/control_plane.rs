//! A control plane by hand: sends what a real one sends only after lost messages or in a race.

use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use futures::stream::BoxStream;
use rota_proto::v1::TaskSpec;
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use rota_proto::worker::v1::{
    Assign, FetchCheckpointRequest, FetchCheckpointResponse, FetchPreviousResultRequest,
    FetchPreviousResultResponse, FetchStepResultsRequest, FetchStepResultsResponse, KeepArtifactsRequest,
    KeepArtifactsResponse, SessionRequest, SessionResponse, Welcome,
};
use rota_telemetry::{OnExit, spawn};
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::TIMEOUT;

type Out = mpsc::UnboundedSender<Result<SessionResponse, Status>>;

pub(crate) struct ControlPlane {
    pub(crate) endpoint: String,
    sessions: mpsc::UnboundedReceiver<Session>,
}

/// Session of a worker. Its stream ends when this is dropped.
pub(crate) struct Session {
    inbound: Streaming<SessionRequest>,
    out: Out,
}

struct Service(mpsc::UnboundedSender<Session>);

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = BoxStream<'static, Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, responses) = mpsc::unbounded();
        // Without a receiver the test has failed already.
        let _ = self.0.unbounded_send(Session { inbound: request.into_inner(), out });
        Ok(Response::new(responses.boxed()))
    }

    async fn fetch_previous_result(
        &self,
        _: Request<FetchPreviousResultRequest>,
    ) -> Result<Response<FetchPreviousResultResponse>, Status> {
        Err(Status::unimplemented("not of this test"))
    }

    async fn fetch_step_results(
        &self,
        _: Request<FetchStepResultsRequest>,
    ) -> Result<Response<FetchStepResultsResponse>, Status> {
        Err(Status::unimplemented("not of this test"))
    }

    async fn keep_artifacts(
        &self,
        _: Request<KeepArtifactsRequest>,
    ) -> Result<Response<KeepArtifactsResponse>, Status> {
        Err(Status::unimplemented("not of this test"))
    }

    async fn fetch_checkpoint(
        &self,
        _: Request<FetchCheckpointRequest>,
    ) -> Result<Response<FetchCheckpointResponse>, Status> {
        Err(Status::unimplemented("not of this test"))
    }
}

impl ControlPlane {
    pub(crate) fn start() -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", incoming.local_addr().unwrap());
        let (sender, sessions) = mpsc::unbounded();
        let server = tonic::transport::Server::builder()
            .add_service(WorkerServiceServer::new(Service(sender)))
            .serve_with_incoming(incoming);
        spawn("control plane by hand", OnExit::Done, server);
        Self { endpoint, sessions }
    }

    /// Accepts the next session, and answers its Hello.
    pub(crate) async fn session(&mut self) -> Session {
        let mut session = timeout(TIMEOUT, self.sessions.next()).await.unwrap().unwrap();
        let hello = session.receive().await;
        assert!(matches!(hello, Some(FromWorker::Hello(_))), "{hello:?}");
        let interval = Some(Duration::from_millis(200).into());
        let welcome = Welcome { heartbeat_interval: interval, ..Welcome::default() };
        session.send(ToWorker::Welcome(Box::new(welcome)));
        session
    }
}

impl Session {
    pub(crate) fn send(&self, kind: ToWorker) {
        self.out.unbounded_send(Ok(SessionResponse { kind: Some(kind) })).unwrap();
    }

    /// Assigns a task whose id is its prompt's first word.
    pub(crate) fn assign(&self, prompt: &str) {
        let task_id = prompt.split(' ').next().unwrap_or_default().to_owned();
        let spec = Some(TaskSpec { prompt: prompt.to_owned(), ..TaskSpec::default() });
        self.send(ToWorker::Assign(Box::new(Assign {
            task_id,
            attempt: 1,
            fence: 1,
            spec,
            ..Assign::default()
        })));
    }

    /// Receives the next message that is no heartbeat; `None` once the worker has closed its side.
    pub(crate) async fn receive(&mut self) -> Option<FromWorker> {
        loop {
            let message = timeout(TIMEOUT, self.inbound.message()).await.unwrap().unwrap()?;
            match message.kind {
                Some(FromWorker::Heartbeat(_)) => {}
                kind => return kind,
            }
        }
    }
}
