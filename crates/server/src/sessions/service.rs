//! The gRPC side of a session: waits for Hello, then receives the worker's messages while the server's are sent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use rota_proto::worker::v1::worker_service_server::WorkerService;
use rota_proto::worker::v1::{
    FetchCheckpointRequest, FetchCheckpointResponse, FetchPreviousResultRequest, FetchPreviousResultResponse,
    FetchStepResultsRequest, FetchStepResultsResponse, KeepArtifactsRequest, KeepArtifactsResponse,
    SessionRequest, SessionResponse, session_request,
};
use rota_telemetry::{OnExit, finish, spawn};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::deps::{Opened, SessionDeps};
use super::{checkpoint, hello, inbound, keep_artifacts, previous_result, step_results, worker_loss};
use crate::clock::now;
use crate::message_limits::Sizes;
use crate::scheduler::SessionHandle;
use crate::trust::identity::Identity;
use crate::trust::token_registry::{self, TokenSession};
use crate::wire::status;

/// Messages that may wait for a worker. Backpressure: a worker that does not keep up is disconnected.
const OUTBOX_SIZE: usize = 4096;
/// Time for a new call to send Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a session that has ended waits for the record of its token's use.
const USE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for which a session outlives the token that it was opened with: clusters replace tokens well before they expire.
const EXPIRED_TOKEN_GRACE: Duration = Duration::from_secs(30);

pub(crate) struct Service {
    pub(crate) deps: Arc<SessionDeps>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = Responses;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let deps = Arc::clone(&self.deps);
        // The response headers must not wait for Hello: a client's call returns only when they arrive.
        let (error, outcome) = oneshot::channel::<Status>();
        let (messages, outbox) = mpsc::channel(OUTBOX_SIZE);
        let session = SessionHandle { messages, closed: deps.stop.child_token() };
        // Boxed, as the stream: each would be in the session's task several times, once for each future that it passes.
        let identity = request.extensions().get::<Identity>().cloned().map(Box::new);
        let sizes = request.extensions().get::<Sizes>().cloned().unwrap_or_default();
        let inbound = Box::new(request.into_inner());
        spawn("session", OnExit::Done, async move {
            if let Err(status) = run(deps, identity, inbound, sizes, session).await {
                let _ = error.send(status);
            }
        });
        // The status that ended the session comes after every message sent before.
        let ended = stream::once(outcome).filter_map(|outcome| outcome.ok().map(Err));
        let stream =
            ReceiverStream::new(outbox).map(|message: Box<SessionResponse>| Ok(*message)).chain(ended);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn fetch_previous_result(
        &self,
        request: Request<FetchPreviousResultRequest>,
    ) -> Result<Response<FetchPreviousResultResponse>, Status> {
        let identity = request.extensions().get::<Identity>();
        previous_result::get(&self.deps, identity, request.get_ref()).await.map(Response::new)
    }

    async fn fetch_step_results(
        &self,
        request: Request<FetchStepResultsRequest>,
    ) -> Result<Response<FetchStepResultsResponse>, Status> {
        let identity = request.extensions().get::<Identity>();
        step_results::get(&self.deps, identity, request.get_ref()).await.map(Response::new)
    }

    async fn fetch_checkpoint(
        &self,
        request: Request<FetchCheckpointRequest>,
    ) -> Result<Response<FetchCheckpointResponse>, Status> {
        let identity = request.extensions().get::<Identity>();
        checkpoint::get(&self.deps, identity, request.get_ref()).await.map(Response::new)
    }

    async fn keep_artifacts(
        &self,
        request: Request<KeepArtifactsRequest>,
    ) -> Result<Response<KeepArtifactsResponse>, Status> {
        let identity = request.extensions().get::<Identity>().cloned();
        let deps = Arc::clone(&self.deps);
        // A caller that hangs up must not drop the pin before the commit.
        let kept = finish("keep-artifacts", async move {
            keep_artifacts::keep(&deps, identity.as_ref(), request.into_inner()).await
        });
        kept.await.map(Response::new)
    }
}

async fn run(
    deps: Arc<SessionDeps>,
    identity: Option<Box<Identity>>,
    mut inbound: Box<Streaming<SessionRequest>>,
    sizes: Sizes,
    session: SessionHandle,
) -> Result<(), Status> {
    let first = tokio::select! {
        () = deps.stop.cancelled() => return Err(stopping()),
        first = tokio::time::timeout(HELLO_TIMEOUT, inbound.message()) => first,
    };
    sizes.take();
    let hello = match first {
        Err(_) => return Err(status::error("PROTOCOL_VIOLATION", "no Hello within 10 s")),
        Ok(message) => match message?.and_then(|message| message.kind) {
            Some(session_request::Kind::Hello(hello)) => hello,
            None => return Ok(()),
            Some(_) => return Err(status::error("PROTOCOL_VIOLATION", "the first message must be Hello")),
        },
    };
    let id = identity.as_ref().and_then(|identity| identity.token);
    let token = id.map(|id| deps.worker_tokens.registry().open_session(id)).transpose()?;
    // Boxed, as what is rare later: the task of an idle session is as large as the largest of its futures.
    let opened = Box::pin(hello::open(&deps, identity.as_deref(), *hello, &session)).await?;
    let closed = session.closed.clone();
    drop(session);
    let recording = token.as_ref().and_then(TokenSession::record_use).map(|command| {
        let store = deps.store.clone();
        spawn("worker-token-use", OnExit::Done, async move {
            if !matches!(store.apply(vec![command]).await.as_deref(), Ok([Ok(_)])) {
                tracing::debug!("the last use of a worker token was not stored");
            }
        })
    });
    let ended = tokio::select! {
        () = closed.cancelled() => Err(reason_of_end(&deps, &opened)),
        () = expired(identity.as_deref()) => {
            Err(Status::unavailable("the worker's token has expired; connect again with a current one"))
        }
        () = revoked(token.as_ref()) => Err(token_registry::revoked()),
        ended = inbound::run(&deps, &opened, inbound, &sizes) => ended,
    };
    // Whatever error that caused: a superseded worker must get that reason.
    let newer = deps.scheduler.inspect(&opened.key, |entry| entry.epoch != opened.worker.epoch) == Some(true);
    let ended = if newer { Err(reason_of_end(&deps, &opened)) } else { ended };
    closed.cancel();
    worker_loss::close(&deps, &opened);
    // A short session counts as open until its use is stored.
    if let Some(recording) = recording {
        let _ = tokio::time::timeout(USE_TIMEOUT, recording).await;
    }
    ended
}

/// Waits until a worker's token has expired, and for the tolerance after.
async fn expired(identity: Option<&Identity>) {
    match identity {
        Some(identity) => {
            let end = identity.expires + EXPIRED_TOKEN_GRACE;
            let left = u64::try_from(end.0.saturating_sub(now().0)).unwrap_or(0);
            tokio::time::sleep(Duration::from_micros(left)).await;
        }
        None => std::future::pending().await,
    }
}

/// Waits until a worker's token is revoked.
async fn revoked(token: Option<&TokenSession>) {
    match token {
        Some(token) => token.revoked().await,
        None => std::future::pending().await,
    }
}

fn stopping() -> Status {
    status::error("STOPPING", "the control plane is stopping; connect again")
}

fn reason_of_end(deps: &SessionDeps, opened: &Opened) -> Status {
    if deps.stop.is_cancelled() {
        return stopping();
    }
    match deps.scheduler.inspect(&opened.key, |entry| (entry.epoch, entry.instance.clone())) {
        Some((epoch, instance)) if epoch != opened.worker.epoch && instance != opened.instance => {
            status::refused(rota_store::Refused::Replaced)
        }
        Some((epoch, _)) if epoch != opened.worker.epoch => {
            status::error("WORKER_SUPERSEDED", "a newer session of this worker is open")
        }
        _ => Status::unavailable("the session was closed; connect again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, E, F: Future>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn task_of_a_session_is_small() {
        let size = size(run);
        assert!(size <= 2560, "each idle session holds {size} bytes");
    }
}
