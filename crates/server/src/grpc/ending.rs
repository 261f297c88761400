//! What a server that stops waits for: counts the calls that are not answered yet, and ends the streams of third-party services,
//! such as reflection, which would stay open as long as their callers like. Rota's own streams observe the shutdown token themselves.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{BoxFuture, Either};
use futures::{FutureExt, TryFutureExt};
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;
use tonic::Status;
use tonic::body::Body;

use crate::wire::status;

/// Counts the calls that are not answered yet, and ends the streams of the services whose names begin with `grpc.`.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) stop: CancellationToken,
    /// Calls until their answer begins: one whose answer is a single message has nothing left to do then.
    pub(crate) calls: TaskTracker,
}

impl<S> tower::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { layer: self.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Service<S> {
    layer: Layer,
    inner: S,
}

impl<S> tower::Service<http::Request<Body>> for Service<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TrackedFuture<Either<S::Future, BoxFuture<'static, Result<S::Response, S::Error>>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if !request.uri().path().starts_with("/grpc.") {
            return self.layer.calls.track_future(Either::Left(self.inner.call(request)));
        }
        let stop = self.layer.stop.clone();
        // Both directions: a call ends only when its request stream has ended, too.
        let answer = self.inner.call(request.map(|body| until(&stop, body)));
        let answer = answer.map_ok(move |answer| answer.map(|body| until(&stop, body))).boxed();
        self.layer.calls.track_future(Either::Right(answer))
    }
}

fn until(stop: &CancellationToken, inner: Body) -> Body {
    let stopped = Box::pin(stop.clone().cancelled_owned());
    Body::new(Until { inner, stop: stop.clone(), stopped, over: false })
}

/// A body that ends when the server stops.
struct Until {
    inner: Body,
    stop: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // Pending data is sent first. The service's own end counts only while the server runs: after that, it is caused by
        // the end of the request stream.
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
            Poll::Ready(end) if !self.stop.is_cancelled() => return Poll::Ready(end),
            _ => {}
        }
        if self.stopped.poll_unpin(context).is_pending() {
            return Poll::Pending;
        }
        self.over = true;
        let mut trailers = http::HeaderMap::new();
        let stopping = status::error("STOPPING", "the control plane is stopping; retry the call");
        Poll::Ready(Some(stopping.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}
