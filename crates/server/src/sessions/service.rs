//! The gRPC end of a session: waits for Hello, then runs the session beside the answer's stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use rota_proto::worker::v1::worker_service_server::WorkerService;
use rota_proto::worker::v1::{SessionRequest, SessionResponse, session_request, session_response};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::hello::{self, Opened};
use super::inbound;
use crate::dispatch::Outgoing;
use crate::shared::Shared;
use crate::trust::oidc::Pod;
use crate::wire::status;

/// Messages that may wait for a worker before it counts as not keeping up.
const OUTBOX: usize = 4096;
/// For a new call to say Hello.
const HELLO: Duration = Duration::from_secs(10);

pub(crate) struct Service {
    pub(crate) shared: Arc<Shared>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = Responses;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let shared = Arc::clone(&self.shared);
        // The answer's headers must not wait for Hello: a client's call returns only when they arrive.
        let (errors, outcome) = mpsc::channel::<Status>(1);
        let (messages, outbox) = mpsc::channel(OUTBOX);
        let hang_up = shared.stop.child_token();
        let outgoing = Outgoing { messages, hang_up };
        let pod = request.extensions().get::<Pod>().cloned();
        let inbound = request.into_inner();
        spawn("session", OnExit::Done, async move {
            if let Err(status) = run(shared, pod, inbound, outgoing).await {
                let _ = errors.send(status).await;
            }
        });
        // What ended the session comes after all that was sent before.
        let stream = ReceiverStream::new(outbox).map(Ok).chain(ReceiverStream::new(outcome).map(Err));
        Ok(Response::new(Box::pin(stream)))
    }
}

async fn run(
    shared: Arc<Shared>,
    pod: Option<Pod>,
    mut inbound: Streaming<SessionRequest>,
    outgoing: Outgoing,
) -> Result<(), Status> {
    let first = tokio::select! {
        () = shared.stop.cancelled() => return Err(stopping()),
        first = tokio::time::timeout(HELLO, inbound.message()) => first,
    };
    let hello = match first {
        Err(_) => return Err(status::error("PROTOCOL", "no Hello came within 10 s")),
        Ok(message) => match message?.and_then(|message| message.kind) {
            Some(session_request::Kind::Hello(hello)) => hello,
            None => return Ok(()),
            Some(_) => return Err(status::error("PROTOCOL", "the first message must be Hello")),
        },
    };
    let opened = hello::open(&shared, pod.as_ref(), hello, &outgoing).await?;
    let hang_up = outgoing.hang_up.clone();
    heartbeats(&shared, &outgoing);
    drop(outgoing);
    let ended = tokio::select! {
        () = hang_up.cancelled() => Err(reason_of_end(&shared, &opened)),
        ended = inbound::run(&shared, &opened, inbound) => ended,
    };
    // Whatever it stumbled over then: a newer session is the reason that its worker must hear.
    let newer = shared.fleet.look(&opened.key).is_some_and(|seat| seat.epoch != opened.worker.epoch);
    let ended = if newer { Err(reason_of_end(&shared, &opened)) } else { ended };
    hang_up.cancel();
    hello::close(&shared, &opened);
    ended
}

fn stopping() -> Status {
    status::error("STOPPING", "the control plane is stopping; connect again")
}

fn reason_of_end(shared: &Shared, opened: &Opened) -> Status {
    if shared.stop.is_cancelled() {
        return stopping();
    }
    match shared.fleet.look(&opened.key).map(|seat| (seat.epoch, seat.instance.clone())) {
        Some((epoch, instance)) if epoch != opened.worker.epoch && instance != opened.instance => {
            status::refused(rota_store::Refused::Replaced)
        }
        Some((epoch, _)) if epoch != opened.worker.epoch => {
            status::error("WORKER_SUPERSEDED", "a newer session is up")
        }
        _ => Status::unavailable("the session was ended; connect again"),
    }
}

/// Sends heartbeats on a task of their own, never behind an agent's work.
fn heartbeats(shared: &Arc<Shared>, outgoing: &Outgoing) {
    let (messages, token): (_, CancellationToken) = (outgoing.messages.downgrade(), outgoing.hang_up.clone());
    let every = shared.timing.heartbeat;
    spawn("session-heartbeat", OnExit::Done, async move {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let Some(messages) = messages.upgrade() else { return };
            let time = Some(crate::wire::time::timestamp(crate::shared::now()));
            let beat = session_response::Kind::Heartbeat(rota_proto::worker::v1::ServerHeartbeat { time });
            // A full outbox is news enough for the worker.
            let _ = messages.try_send(SessionResponse { kind: Some(beat) });
        }
    });
}
