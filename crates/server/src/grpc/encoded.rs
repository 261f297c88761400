//! Responses that consist of messages encoded before: one encoding serves all watchers of the same thing. The generated
//! services can only return messages, so a method returns an empty stream and, as an extension, the chunks that [`replace`]
//! puts in its place.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Empty};
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
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

/// Replaces the body of such a response.
pub(crate) fn replace(mut response: http::Response<Body>) -> http::Response<Body> {
    let encoded = response.extensions_mut().remove::<Encoded>();
    let gzip = encoded.as_ref().is_some_and(|encoded| encoded.gzip);
    if gzip {
        response.headers_mut().insert("grpc-encoding", HeaderValue::from_static("gzip"));
    }
    match encoded.and_then(|encoded| encoded.chunks.lock().take()) {
        Some(chunks) => response.map(|_| Body::new(StreamBody::new(frames(chunks)))),
        None => response,
    }
}

/// Returns the frames of a body: encoded messages, and a status at their end.
fn frames(chunks: Chunks) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send {
    let frames = stream::unfold(Some(chunks), async |chunks| {
        let mut chunks = chunks?;
        match chunks.next().await {
            Some(Ok(chunk)) => Some((Ok(Frame::data(chunk)), Some(chunks))),
            Some(Err(status)) => Some((end(&status), None)),
            None => Some((end(&Status::ok("")), None)),
        }
    });
    frames.fuse()
}

fn end(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(Frame::trailers(trailers))
}
