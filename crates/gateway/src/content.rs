//! Contents of any type over HTTP: the parts of a stream of `google.api.HttpBody`, one after the other. Whatever they claim to be, a
//! browser saves them and runs nothing of them.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use prost_reflect::MessageDescriptor;
use rota_proto::HttpBody;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::stream::Messages;

const NAME: &str = "google.api.HttpBody";
/// What a browser does with a content: it saves it, and would run nothing of it in a window or a frame.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_DISPOSITION, "attachment"),
    (header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Whether messages of this type are parts of a content.
pub(crate) fn is(message: &MessageDescriptor) -> bool {
    message.full_name() == NAME
}

/// Returns a response with a content. An error after its first part cuts it off, which clients notice.
pub(crate) async fn response(mut messages: Messages) -> Result<Response<Body>, Box<Status>> {
    let first = next(&mut messages).await?;
    let kind = first.as_ref().map(|first| first.content_type.as_str()).unwrap_or_default();
    let kind = HeaderValue::from_str(kind).ok().filter(|kind| !kind.is_empty());
    let mut response = Response::new(Body::new(StreamBody::new(parts(first, messages))));
    let headers = response.headers_mut();
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    let unknown = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind.unwrap_or(unknown));
    Ok(response)
}

/// Returns the parts from the first on; there are none without one.
fn parts(first: Option<HttpBody>, messages: Messages) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
    let rest = first.is_some().then_some(messages);
    let first = stream::iter(first.map(|part| Ok(Frame::data(part.data))));
    let rest = stream::try_unfold(rest, async |messages| {
        let Some(mut messages) = messages else { return Ok(None) };
        let part = next(&mut messages).await.map_err(|status| *status)?;
        Ok(part.map(|part| (Frame::data(part.data), Some(messages))))
    });
    first.chain(rest)
}

/// Returns the next part; none at the end.
async fn next(messages: &mut Messages) -> Result<Option<HttpBody>, Box<Status>> {
    let broken = |error| Box::new(Status::internal(format!("failed to decode a part of a content: {error}")));
    match messages.next().await {
        Ok(message) => HttpBody::decode(message).map(Some).map_err(broken),
        Err(status) if status.code() == Code::Ok => Ok(None),
        Err(status) => Err(status),
    }
}
