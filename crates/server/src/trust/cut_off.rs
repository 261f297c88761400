//! Ends responses: a stream does not outlive the session that has opened it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, MaybeDone, maybe_done};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

/// Returns a body that fails with the status of `end` once there is one, instead of a further message. The only message of a
/// response is sent: it answers the call that ends its own session, too.
pub(super) fn when(end: impl Future<Output = Status> + Send + 'static, inner: Body) -> Body {
    Body::new(CutOff { inner, end: Some(maybe_done(end.boxed())), has_message: false })
}

struct CutOff {
    inner: Body,
    /// `None` once it has failed.
    end: Option<MaybeDone<BoxFuture<'static, Status>>>,
    has_message: bool,
}

impl http_body::Body for CutOff {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        // Also while there are frames: a stream whose reader is slower than its source always has some.
        let is_over = end.poll_unpin(context).is_ready();
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                let is_first = !std::mem::replace(&mut self.has_message, true);
                if is_first || !is_over {
                    return Poll::Ready(Some(Ok(frame)));
                }
            }
            Poll::Ready(last) => return Poll::Ready(last),
            Poll::Pending if !is_over => return Poll::Pending,
            Poll::Pending => {}
        }
        let status = self.end.take().and_then(|mut end| Pin::new(&mut end).take_output());
        Poll::Ready(status.map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::{pending, ready};

    use super::*;

    /// Frames that are all there.
    struct Ready(VecDeque<Frame<Bytes>>);

    impl http_body::Body for Ready {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    /// Returns what a response of so many messages becomes.
    fn read(messages: usize, end: impl Future<Output = Status> + Send + 'static) -> Vec<String> {
        let data = std::iter::repeat_with(|| Frame::data(Bytes::from("message"))).take(messages);
        let frames = data.chain([Frame::trailers(http::HeaderMap::new())]).collect();
        let mut body = when(end, Body::new(Ready(frames)));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut read = Vec::new();
        while let Poll::Ready(Some(frame)) = http_body::Body::poll_frame(Pin::new(&mut body), &mut context) {
            read.push(match frame {
                Ok(frame) if frame.is_data() => "data".to_owned(),
                Ok(_) => "trailers".to_owned(),
                Err(status) => status.message().to_owned(),
            });
        }
        read
    }

    #[test]
    fn streams_end_while_frames_are_ready() {
        let ended = || ready(Status::unauthenticated("ended"));
        assert_eq!(read(3, ended()), ["data", "ended"]);
        assert_eq!(read(1, ended()), ["data", "trailers"]);
        assert_eq!(read(0, ended()), ["trailers"]);
        assert_eq!(read(2, pending()), ["data", "data", "trailers"]);
    }
}
