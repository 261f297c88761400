//! Ends responses: a stream does not outlive the session that has opened it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

/// Returns a body that fails with the status of `end` once there is one, and the body has to be waited for.
pub(super) fn when(end: impl Future<Output = Status> + Send + 'static, inner: Body) -> Body {
    Body::new(CutOff { inner, end: Some(end.boxed()) })
}

struct CutOff {
    inner: Body,
    /// `None` once it has failed.
    end: Option<BoxFuture<'static, Status>>,
}

impl http_body::Body for CutOff {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.end.is_none() {
            return Poll::Ready(None);
        }
        // What is there already is sent: the answer to the call that ends its own session, too.
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        match self.end.as_mut().map(|end| end.poll_unpin(context)) {
            Some(Poll::Ready(status)) => {
                self.end = None;
                Poll::Ready(Some(Err(status)))
            }
            _ => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.inner.is_end_stream()
    }
}
