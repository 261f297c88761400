//! Ends the streams of third-party services, such as reflection, when the server stops: they would stay open as long as their callers
//! like. Rota's own streams observe the shutdown token themselves.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body::Frame;
use rota_gateway::Inner;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use crate::wire::status;

/// Ends the streams of a call with `stop`, if the name of its service begins with `grpc.`.
pub(crate) async fn end_streams<S: Inner>(
    stop: CancellationToken,
    request: Request<Body>,
    mut inner: S,
) -> Result<Response<Body>, S::Error> {
    if !request.uri().path().starts_with("/grpc.") {
        return inner.call(request).await;
    }
    // Both directions: a call ends only when its request stream has ended, too.
    let answer = inner.call(request.map(|body| until(&stop, body))).await?;
    Ok(answer.map(|body| until(&stop, body)))
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
