//! Responses that consist of messages encoded before: one encoding serves all watchers of the same thing. The generated
//! services can only return messages, so a method returns an empty stream and, as an extension, the chunks that the layer
//! puts in its place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::MapOk;
use futures::stream::{self, BoxStream, Empty};
use futures::{Stream, StreamExt, TryFutureExt};
use http::HeaderValue;
use http_body::Frame;
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

/// Chunks of encoded messages, with their prefixes.
type Chunks = BoxStream<'static, Result<Bytes, Status>>;

/// Type of the stream that is replaced.
pub(super) type Replaced<T> = Empty<Result<T, Status>>;

#[derive(Clone)]
struct Encoded {
    chunks: Arc<Mutex<Option<Chunks>>>,
    /// Whether messages may be compressed.
    gzip: bool,
}

/// Returns a response of chunks of encoded messages of type `T`.
pub(super) fn response<T>(
    chunks: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> Response<Replaced<T>> {
    of(chunks, false)
}

/// Like [`response`], of messages that may be compressed with gzip.
pub(super) fn of<T>(
    chunks: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
    gzip: bool,
) -> Response<Replaced<T>> {
    let mut response = Response::new(stream::empty());
    let chunks = Arc::new(Mutex::new(Some(chunks.boxed())));
    response.extensions_mut().insert(Encoded { chunks, gzip });
    response
}

/// Whether a caller accepts messages that are compressed with gzip.
pub(super) fn accepts_gzip(metadata: &MetadataMap) -> bool {
    let accepted = metadata.get("grpc-accept-encoding").and_then(|accepted| accepted.to_str().ok());
    accepted.is_some_and(|accepted| accepted.split(',').any(|one| one.trim() == "gzip"))
}

/// Replaces the bodies of such responses.
#[derive(Clone)]
pub(crate) struct Layer;

impl<S> tower::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { inner }
    }
}

#[derive(Clone)]
pub(crate) struct Service<S> {
    inner: S,
}

impl<S, B> tower::Service<http::Request<B>> for Service<S>
where
    S: tower::Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(S::Response) -> S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.inner.call(request).map_ok(replace)
    }
}

fn replace(mut response: http::Response<Body>) -> http::Response<Body> {
    let encoded = response.extensions_mut().remove::<Encoded>();
    let gzip = encoded.as_ref().is_some_and(|encoded| encoded.gzip);
    if gzip {
        response.headers_mut().insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
    match encoded.and_then(|encoded| encoded.chunks.lock().take()) {
        Some(chunks) => response.map(|_| Body::new(EncodedBody { chunks: Some(chunks) })),
        None => response,
    }
}

/// A body of encoded messages that ends with a status.
struct EncodedBody {
    chunks: Option<Chunks>,
}

impl http_body::Body for EncodedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(chunks) = &mut self.chunks else { return Poll::Ready(None) };
        let end = match std::task::ready!(chunks.poll_next_unpin(context)) {
            Some(Ok(chunk)) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.chunks = None;
        let mut trailers = http::HeaderMap::new();
        Poll::Ready(Some(end.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}
