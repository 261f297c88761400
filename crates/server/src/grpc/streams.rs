//! Long-lived response streams: each is fed by a task of its own until that ends, the caller hangs up, or the server
//! stops.

use std::future::Future;
use std::pin::Pin;
use std::slice::from_ref;
use std::sync::Arc;

use futures::Stream;
use rota_core::task::Event;
use rota_proto::v1;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::store_client::LOG_PAGE;
use crate::watchers::Watchers;
use crate::wire::event;
use crate::wire::status::error;

/// Messages of a stream on their way to the caller.
pub(super) type Outbox<T> = mpsc::Sender<Result<T, Status>>;

pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a stream needs: notice of changes, and of the server's end.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) stop: CancellationToken,
}

impl Streams {
    /// Serves a stream that ends with STOPPING when the server stops.
    pub(super) fn serve<T, F>(
        &self,
        name: &'static str,
        capacity: usize,
        produce: impl FnOnce(Outbox<T>) -> F,
    ) -> ReceiverStream<Result<T, Status>>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let stop = self.stop.clone();
        stream(name, capacity, |outbox| {
            let produced = produce(outbox);
            async move {
                tokio::select! {
                    () = stop.cancelled() => Err(stopping()),
                    ended = produced => ended,
                }
            }
        })
    }
}

/// Serves a stream that ends by itself, with an error if there is one.
pub(super) fn stream<T, F>(
    name: &'static str,
    capacity: usize,
    produce: impl FnOnce(Outbox<T>) -> F,
) -> ReceiverStream<Result<T, Status>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (outbox, stream) = mpsc::channel(capacity);
    let produced = produce(outbox.clone());
    spawn(name, OnExit::Done, async move {
        let ended = tokio::select! {
            () = outbox.closed() => return,
            ended = produced => ended,
        };
        if let Err(status) = ended {
            let _ = outbox.send(Err(status)).await;
        }
    });
    ReceiverStream::new(stream)
}

/// Sends a message. Fails when the caller has hung up, which ends the stream.
pub(super) async fn send<T>(outbox: &Outbox<T>, message: T) -> Result<(), Status> {
    outbox.send(Ok(message)).await.map_err(|_| Status::cancelled("the caller has hung up"))
}

/// Takes the log entries of one message.
pub(super) fn page<'a>(events: &mut impl Iterator<Item = &'a Event>) -> Vec<v1::Event> {
    let mut budget = LOG_PAGE;
    let mut page = Vec::new();
    for event in events {
        page.push(event::to_wire(event));
        if budget.spend(from_ref(event)) {
            break;
        }
    }
    page
}

pub(super) fn stopping() -> Status {
    error("STOPPING", "the control plane is stopping; connect again")
}
