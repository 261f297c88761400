//! Long-lived response streams. One of messages is fed by a task of its own until that ends, the caller hangs up, or the
//! server stops. One of encoded chunks is fed by its connection, so that one whose caller does not read holds nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use rota_telemetry::{OnExit, spawn};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::watchers::{Deltas, Watchers};
use crate::wire::status::error;

/// Time after which a caller that reads nothing of a download or an export loses it.
const STALLED: Duration = Duration::from_secs(60);

/// Messages of a stream on their way to the caller.
pub(super) type Outbox<T> = mpsc::Sender<Result<T, Status>>;

pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Source of a stream of encoded messages.
pub(super) trait Chunks: Send + 'static {
    /// Waits for the next chunk; none at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Status>> + Send;
}

/// What a stream needs: notice of changes, and of the server's end.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) deltas: Arc<Deltas>,
    pub(crate) stop: CancellationToken,
}

impl Streams {
    /// Serves chunks from a source. The stream ends with STOPPING when the server stops.
    pub(super) fn chunks(
        &self,
        source: impl Chunks,
    ) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
        stream::try_unfold((source, self.stop.clone()), async |(mut source, stop)| {
            let next = tokio::select! {
                () = stop.cancelled() => Err(stopping()),
                next = source.next() => next,
            };
            Ok(next?.map(|chunk| (chunk, (source, stop))))
        })
    }

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

/// Like [`send`], to a caller that must read on: it holds what others wait for.
pub(super) async fn send_in_time<T>(outbox: &Outbox<T>, message: T) -> Result<(), Status> {
    let stalled =
        |_| error("CALLER_STALLED", format!("the caller has read nothing for {} s", STALLED.as_secs()));
    timeout(STALLED, send(outbox, message)).await.map_err(stalled)?
}

pub(super) fn stopping() -> Status {
    error("STOPPING", "the control plane is stopping; connect again")
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn caller_that_reads_nothing_loses_its_stream() {
        let (ended, end) = tokio::sync::oneshot::channel();
        let read = stream("test", 1, |outbox| async move {
            let sent = async {
                loop {
                    send_in_time(&outbox, ()).await?;
                }
            };
            let sent: Result<(), Status> = sent.await;
            let _ = ended.send(());
            sent
        });
        end.await.unwrap();
        let read: Vec<_> = read.map(|message| message.map_err(|status| status.code())).collect().await;
        assert_eq!(read, [Ok(()), Err(tonic::Code::DeadlineExceeded)]);
    }
}
