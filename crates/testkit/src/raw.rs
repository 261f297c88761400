//! A worker session by hand, for what a correct worker never does: stale fences, missing heartbeats, messages out of
//! order, a name that belongs to another process.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rota_client::Client;
use rota_proto::v1;
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_proto::worker::v1::{
    Accept, Assign, Cancelled, Hello, Reject, Report, Result as AttemptResult, RunningAttempt,
    SessionRequest, SessionResponse, Welcome, WorkerHeartbeat, result,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::tasks::{NAMESPACE, WAIT_TIMEOUT};

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);

/// Returns the first message of a worker.
pub fn hello(agent: &str, worker: &str, slots: i32) -> Hello {
    Hello {
        protocol_version: 2,
        namespace: NAMESPACE.to_owned(),
        agent: agent.to_owned(),
        worker: worker.to_owned(),
        instance: format!("{worker}-process"),
        slots,
        ..Hello::default()
    }
}

/// A session stream before or without the handshake.
#[derive(Debug)]
pub struct RawSession {
    out: Option<mpsc::UnboundedSender<SessionRequest>>,
    inbound: Streaming<SessionResponse>,
}

impl RawSession {
    /// Opens the stream, with a first message if given.
    pub async fn open(client: &Client, first: Option<Outgoing>) -> Result<Self, Status> {
        let (out, queue) = mpsc::unbounded_channel();
        if let Some(kind) = first {
            let _ = out.send(SessionRequest { kind: Some(kind) });
        }
        let inbound = client.workers().session(UnboundedReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { out: Some(out), inbound })
    }

    /// Sends a message.
    pub fn send(&self, kind: Outgoing) {
        if let Some(out) = &self.out {
            // A stream that has ended is noticed on receiving.
            let _ = out.send(SessionRequest { kind: Some(kind) });
        }
    }

    /// Closes the sending half; responses still arrive.
    pub fn close_send(&mut self) {
        self.out = None;
    }

    /// Receives the next message that is not a heartbeat, or `None` when the server ends the stream without an error.
    pub async fn receive(&mut self) -> Result<Option<Incoming>, Status> {
        let next = async {
            loop {
                match self.inbound.message().await? {
                    None => return Ok(None),
                    Some(SessionResponse { kind: Some(Incoming::Heartbeat(_)) | None }) => {}
                    Some(SessionResponse { kind }) => return Ok(kind),
                }
            }
        };
        let late = |_| Status::deadline_exceeded("no message from the control plane");
        tokio::time::timeout(WAIT_TIMEOUT, next).await.map_err(late)?
    }

    /// Receives until the stream ends, and returns its status.
    pub async fn end_status(&mut self) -> Status {
        loop {
            match self.receive().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::new(Code::Ok, "the stream ended"),
                Err(status) => return status,
            }
        }
    }
}

/// A connected worker. [`RawWorker::join`] sends heartbeats in the background.
#[derive(Debug)]
pub struct RawWorker {
    /// Response to the handshake.
    pub welcome: Welcome,
    pub session: RawSession,
}

impl RawWorker {
    /// Connects, and sends heartbeats from then on.
    pub async fn join(client: &Client, hello: Hello) -> Result<Self> {
        let worker = Self::join_silent(client, hello).await?;
        if let Some(out) = worker.session.out.as_ref().map(mpsc::UnboundedSender::downgrade) {
            rota_telemetry::spawn("raw-heartbeat", rota_telemetry::OnExit::Done, async move {
                while let Some(out) = out.upgrade() {
                    let kind = Some(Outgoing::Heartbeat(WorkerHeartbeat::default()));
                    if out.send(SessionRequest { kind }).is_err() {
                        return;
                    }
                    drop(out);
                    tokio::time::sleep(HEARTBEAT_INTERVAL).await;
                }
            });
        }
        Ok(worker)
    }

    /// Connects without heartbeats.
    pub async fn join_silent(client: &Client, hello: Hello) -> Result<Self> {
        let mut session = RawSession::open(client, Some(Outgoing::Hello(Box::new(hello)))).await?;
        match session.receive().await? {
            Some(Incoming::Welcome(welcome)) => Ok(Self { welcome: *welcome, session }),
            other => bail!("expected a Welcome, received {other:?}"),
        }
    }

    /// Sends a message.
    pub fn send(&self, kind: Outgoing) {
        self.session.send(kind);
    }

    /// Receives the next message that is not a heartbeat.
    pub async fn receive(&mut self) -> Result<Incoming> {
        self.session.receive().await?.context("the session has ended")
    }

    /// Receives the next assignment, skipping other messages.
    pub async fn next_assignment(&mut self) -> Result<Assign> {
        loop {
            if let Incoming::Assign(assign) = self.receive().await? {
                return Ok(*assign);
            }
        }
    }

    /// Receives the next assignment and accepts it.
    pub async fn take(&mut self) -> Result<Assign> {
        let assign = self.next_assignment().await?;
        self.accept(&assign);
        Ok(assign)
    }

    /// Accepts an assignment.
    pub fn accept(&self, assign: &Assign) {
        let (task_id, fence) = (assign.task_id.clone(), assign.fence);
        self.send(Outgoing::Accept(Accept { task_id, fence, ..Accept::default() }));
    }

    /// Reports the credential that the model calls of an attempt use.
    pub fn use_credential(&self, assign: &Assign, credential: &str) {
        let (task_id, fence, credential) = (assign.task_id.clone(), assign.fence, credential.to_owned());
        self.send(Outgoing::Accept(Accept { task_id, fence, credential, ..Accept::default() }));
    }

    /// Names the credential and the back end that an attempt uses.
    pub fn use_backend(&self, assign: &Assign, credential: &str, backend: &str) {
        let (task_id, fence) = (assign.task_id.clone(), assign.fence);
        let (credential, backend) = (credential.to_owned(), backend.to_owned());
        self.send(Outgoing::Accept(Accept { task_id, fence, credential, backend }));
    }

    /// Reports that an attempt failed.
    pub fn fail(&self, assign: &Assign, failure: v1::Failure) {
        self.send(Outgoing::Result(Box::new(AttemptResult {
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            kind: Some(result::Kind::Failed(failure)),
            ..AttemptResult::default()
        })));
    }

    /// Rejects an assignment.
    pub fn reject(&self, assign: &Assign, reason: &str) {
        let (task_id, fence) = (assign.task_id.clone(), assign.fence);
        self.send(Outgoing::Reject(Reject { task_id, fence, reason: reason.to_owned() }));
    }

    /// Reports events with attempt sequence numbers from `first` on.
    pub fn report(&self, assign: &Assign, first: i64, events: Vec<v1::Event>) {
        let (task_id, fence) = (assign.task_id.clone(), assign.fence);
        self.send(Outgoing::Report(Report { task_id, fence, first_attempt_seq: first, events }));
    }

    /// Reports a successful result.
    pub fn succeed(&self, assign: &Assign, last: i64, text: &str) {
        self.send(success(assign, last, text));
    }

    /// Reports that an attempt was cancelled on request.
    pub fn report_cancelled(&self, assign: &Assign) {
        self.send(Outgoing::Result(Box::new(AttemptResult {
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            kind: Some(result::Kind::Cancelled(Cancelled { by: "interrupt".to_owned() })),
            ..AttemptResult::default()
        })));
    }

    /// Receives the acknowledgement of a result, and returns whether the result was accepted.
    pub async fn result_ack(&mut self) -> Result<bool> {
        loop {
            if let Incoming::ResultAck(ack) = self.receive().await? {
                return Ok(ack.accepted);
            }
        }
    }

    /// Closes the session without a goodbye.
    pub async fn close(mut self) {
        self.session.close_send();
    }
}

/// Returns the message for a successful result.
pub fn success(assign: &Assign, last: i64, text: &str) -> Outgoing {
    let task_result = v1::TaskResult { text: text.to_owned(), ..Default::default() };
    Outgoing::Result(Box::new(AttemptResult {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        last_attempt_seq: last,
        kind: Some(result::Kind::Succeeded(task_result)),
        ..AttemptResult::default()
    }))
}

/// Returns the entry for an attempt that a reconnecting worker still runs.
pub fn running(assign: &Assign, last: i64, input: i64) -> RunningAttempt {
    RunningAttempt {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        last_attempt_seq: last,
        last_input_seq: input,
    }
}

/// Returns an output event.
pub fn output(text: &str) -> v1::Event {
    let output = v1::Output {
        stream: v1::OutputStream::Stdout.into(),
        data: text.to_owned().into_bytes().into(),
        dropped_bytes: 0,
    };
    v1::Event { kind: Some(v1::event::Kind::Output(output)), ..Default::default() }
}

/// Returns an event that asks the user a question.
pub fn question(id: &str) -> v1::Event {
    let request = v1::InputRequest {
        request_id: id.to_owned(),
        kind: v1::InputKind::Question.into(),
        prompt: "Which?".to_owned(),
        ..Default::default()
    };
    v1::Event { kind: Some(v1::event::Kind::InputRequest(request)), ..Default::default() }
}
