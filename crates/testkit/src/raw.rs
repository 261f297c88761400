//! A worker that speaks the session by hand: it can lie about fences, keep silent, say things out of
//! turn, and come back as somebody else.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rota_client::Client;
use rota_proto::v1;
use rota_proto::worker::v1::session_request::Kind as Say;
use rota_proto::worker::v1::session_response::Kind as Hear;
use rota_proto::worker::v1::{
    Accept, Assign, Cancelled, Hello, Reject, Report, Result as Told, RunningAttempt, SessionRequest,
    SessionResponse, Welcome, WorkerHeartbeat, result,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::tasks::{NAMESPACE, PATIENCE};

/// Between two heartbeats.
const BEAT: Duration = Duration::from_millis(200);

/// What a worker of this name says first.
pub fn hello(agent: &str, worker: &str, slots: i32) -> Hello {
    Hello {
        protocol_version: 1,
        namespace: NAMESPACE.to_owned(),
        agent: agent.to_owned(),
        worker: worker.to_owned(),
        instance: format!("{worker}-process"),
        slots,
        ..Hello::default()
    }
}

/// A session that is not a worker's yet.
#[derive(Debug)]
pub struct Line {
    out: Option<mpsc::UnboundedSender<SessionRequest>>,
    inbound: Streaming<SessionResponse>,
}

impl Line {
    /// Opens the call and says this, if anything.
    pub async fn open(client: &Client, first: Option<Say>) -> Result<Self, Status> {
        let (out, queue) = mpsc::unbounded_channel();
        if let Some(kind) = first {
            let _ = out.send(SessionRequest { kind: Some(kind) });
        }
        let inbound = client.workers().session(UnboundedReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { out: Some(out), inbound })
    }

    /// Says something.
    pub fn say(&self, kind: Say) {
        if let Some(out) = &self.out {
            // A call that has ended shows when something is heard.
            let _ = out.send(SessionRequest { kind: Some(kind) });
        }
    }

    /// Ends what it says, but listens on.
    pub fn fall_silent(&mut self) {
        self.out = None;
    }

    /// The next thing that is no heartbeat; `None` when the call ends in order.
    pub async fn hear(&mut self) -> Result<Option<Hear>, Status> {
        let listen = async {
            loop {
                match self.inbound.message().await? {
                    None => return Ok(None),
                    Some(SessionResponse { kind: Some(Hear::Heartbeat(_)) | None }) => {}
                    Some(SessionResponse { kind }) => return Ok(kind),
                }
            }
        };
        let late = |_| Status::deadline_exceeded("nothing was heard");
        tokio::time::timeout(PATIENCE, listen).await.map_err(late)?
    }

    /// Listens until the call ends, and tells how.
    pub async fn ended(&mut self) -> Status {
        loop {
            match self.hear().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::new(Code::Ok, "in order"),
                Err(status) => return status,
            }
        }
    }
}

/// A worker by hand. It sends heartbeats unless told not to.
#[derive(Debug)]
pub struct RawWorker {
    /// What it was welcomed with.
    pub welcome: Welcome,
    /// The call.
    pub line: Line,
}

impl RawWorker {
    /// Joins.
    pub async fn join(client: &Client, hello: Hello) -> Result<Self> {
        let worker = Self::join_silent(client, hello).await?;
        if let Some(out) = worker.line.out.as_ref().map(mpsc::UnboundedSender::downgrade) {
            rota_telemetry::spawn("raw-heartbeat", rota_telemetry::OnExit::Done, async move {
                while let Some(out) = out.upgrade() {
                    let kind = Some(Say::Heartbeat(WorkerHeartbeat::default()));
                    if out.send(SessionRequest { kind }).is_err() {
                        return;
                    }
                    drop(out);
                    tokio::time::sleep(BEAT).await;
                }
            });
        }
        Ok(worker)
    }

    /// Joins, and says nothing by itself.
    pub async fn join_silent(client: &Client, hello: Hello) -> Result<Self> {
        let mut line = Line::open(client, Some(Say::Hello(hello))).await?;
        match line.hear().await? {
            Some(Hear::Welcome(welcome)) => Ok(Self { welcome, line }),
            other => bail!("no Welcome: {other:?}"),
        }
    }

    /// Says something.
    pub fn say(&self, kind: Say) {
        self.line.say(kind);
    }

    /// The next thing that is no heartbeat.
    pub async fn hear(&mut self) -> Result<Hear> {
        self.line.hear().await?.context("the session has ended")
    }

    /// The next assignment; whatever comes before it is passed over.
    pub async fn assigned(&mut self) -> Result<Assign> {
        loop {
            if let Hear::Assign(assign) = self.hear().await? {
                return Ok(assign);
            }
        }
    }

    /// Waits for the next assignment and takes it.
    pub async fn take(&mut self) -> Result<Assign> {
        let assign = self.assigned().await?;
        self.accept(&assign);
        Ok(assign)
    }

    /// Takes an assignment.
    pub fn accept(&self, assign: &Assign) {
        self.say(Say::Accept(Accept { task_id: assign.task_id.clone(), fence: assign.fence }));
    }

    /// Does not take it.
    pub fn reject(&self, assign: &Assign, reason: &str) {
        let (task_id, fence) = (assign.task_id.clone(), assign.fence);
        self.say(Say::Reject(Reject { task_id, fence, reason: reason.to_owned() }));
    }

    /// Reports events, numbered from `first`.
    pub fn report(&self, assign: &Assign, first: i64, events: Vec<v1::Event>) {
        let (task_id, fence) = (assign.task_id.clone(), assign.fence);
        self.say(Say::Report(Report { task_id, fence, first_attempt_seq: first, events }));
    }

    /// Reports a success.
    pub fn succeed(&self, assign: &Assign, last: i64, text: &str) {
        self.say(success(assign, last, text));
    }

    /// Says that an attempt has ended because it was told to.
    pub fn ended(&self, assign: &Assign) {
        self.say(Say::Result(Told {
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            kind: Some(result::Kind::Cancelled(Cancelled { by: "interrupt".to_owned() })),
            ..Told::default()
        }));
    }

    /// Waits for the word on a result: whether it is the accepted one.
    pub async fn result_ack(&mut self) -> Result<bool> {
        loop {
            if let Hear::ResultAck(ack) = self.hear().await? {
                return Ok(ack.accepted);
            }
        }
    }

    /// Ends the session without a word.
    pub async fn hang_up(mut self) {
        self.line.fall_silent();
    }
}

/// A successful result.
pub fn success(assign: &Assign, last: i64, text: &str) -> Say {
    let told = v1::TaskResult { text: text.to_owned(), ..Default::default() };
    Say::Result(Told {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        last_attempt_seq: last,
        kind: Some(result::Kind::Succeeded(told)),
        ..Told::default()
    })
}

/// What a worker still has, for its next Hello.
pub fn running(assign: &Assign, last: i64, input: i64) -> RunningAttempt {
    RunningAttempt {
        task_id: assign.task_id.clone(),
        fence: assign.fence,
        last_attempt_seq: last,
        last_input_seq: input,
    }
}

/// A line of output.
pub fn output(text: &str) -> v1::Event {
    let output = v1::Output {
        stream: v1::OutputStream::Stdout.into(),
        data: text.to_owned().into_bytes().into(),
        dropped_bytes: 0,
    };
    v1::Event { kind: Some(v1::event::Kind::Output(output)), ..Default::default() }
}

/// A question to a person.
pub fn question(id: &str) -> v1::Event {
    let request = v1::InputRequest {
        request_id: id.to_owned(),
        kind: v1::InputKind::Question.into(),
        prompt: "Which?".to_owned(),
        ..Default::default()
    };
    v1::Event { kind: Some(v1::event::Kind::InputRequest(request)), ..Default::default() }
}
