//! Limits of messages in bytes and elements: of workers' sessions, and of calls that require no token. They are applied to
//! encoded messages before anything of them is decoded. Knows nothing of identities.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use parking_lot::Mutex;
use rota_proto::framing::{self, Header, PREFIX};
use rota_proto::limits::MESSAGE_ELEMENTS;
use tonic::Status;
use tonic::body::Body;

use super::elements::{self, Excess};
use crate::trust::roles;
use crate::wire::status::error;

const SESSION: &str = "/rota.worker.v1.WorkerService/Session";
/// Hello of a worker with 1,024 slots, all of them occupied and abandoned, has 124 KiB.
const MAX_FIRST_MESSAGE: usize = 128 << 10;
/// A result of 1 MiB, before redaction, with room to spare.
pub(crate) const MAX_MESSAGE: usize = 2 << 20;
const MAX_FIRST_ELEMENTS: usize = 8 << 10;
/// Body of a call that requires no token, of gRPC and of HTTP.
pub(crate) const MAX_ANONYMOUS: usize = 4 << 10;
/// Memory of an element besides its content: the largest one is an event.
const ELEMENT_BYTES: usize = 256;

/// Memory of the decoded messages of a session, by estimate, from their arrival until they are taken, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes(Arc<Mutex<VecDeque<usize>>>);

impl Sizes {
    /// Returns the size of the next message.
    pub(super) fn take(&self) -> usize {
        self.0.lock().pop_front().unwrap_or(MAX_MESSAGE)
    }
}

/// Limits the body of a request: of a session, or of a call that requires no token.
pub(crate) fn limit(mut request: http::Request<Body>) -> http::Request<Body> {
    let sizes = Sizes::default();
    let limits = match request.uri().path() {
        SESSION => {
            request.extensions_mut().insert(sizes.clone());
            Limits::SESSION
        }
        path if roles::is_anonymous(path) => Limits::ANONYMOUS,
        _ => return request,
    };
    request.map(|body| Body::new(LimitedBody { sizes, ..LimitedBody::new(body, limits) }))
}

/// Limits of one message of a body.
#[derive(Clone, Copy)]
struct Limit {
    bytes: usize,
    /// `None` for messages other than those of a session, whose schema is not known here.
    elements: Option<usize>,
}

#[derive(Clone, Copy)]
struct Limits {
    first: Limit,
    later: Limit,
}

impl Limits {
    const SESSION: Self = Self {
        first: Limit { bytes: MAX_FIRST_MESSAGE, elements: Some(MAX_FIRST_ELEMENTS) },
        later: Limit { bytes: MAX_MESSAGE, elements: Some(MESSAGE_ELEMENTS) },
    };
    const ANONYMOUS: Self = Self {
        first: Limit { bytes: MAX_ANONYMOUS, elements: None },
        later: Limit { bytes: 0, elements: None },
    };
}

/// A body that passes on complete messages within the limits, and fails with a status at the first one beyond them.
struct LimitedBody {
    inner: Body,
    /// Beginning of a message whose end has not arrived.
    partial: BytesMut,
    limits: Limits,
    /// Shared with the session that takes the messages.
    sizes: Sizes,
    first: bool,
    ended: bool,
}

impl LimitedBody {
    fn new(inner: Body, limits: Limits) -> Self {
        Self { inner, partial: BytesMut::new(), limits, sizes: Sizes::default(), first: true, ended: false }
    }

    /// Returns the length of the complete messages at the beginning of `bytes`.
    fn check(&mut self, bytes: &[u8]) -> Result<usize, Status> {
        let mut checked = 0;
        loop {
            let rest = bytes.get(checked..).unwrap_or_default();
            let Some(Header { length, .. }) = framing::header(rest) else { return Ok(checked) };
            let limit = if self.first { self.limits.first } else { self.limits.later };
            if length > limit.bytes {
                let text = format!("a message has {length} bytes; at most {} are accepted", limit.bytes);
                return Err(error("MESSAGE_TOO_LARGE", text));
            }
            let Some(message) = rest.get(PREFIX..PREFIX + length) else { return Ok(checked) };
            if let Some(elements) = limit.elements {
                let found = elements::check(message, elements).map_err(|excess| match excess {
                    Excess::TooMany => {
                        error("MESSAGE_TOO_LARGE", format!("a message has more than {elements} elements"))
                    }
                    Excess::Malformed => error("PROTOCOL_VIOLATION", "a message is malformed"),
                })?;
                self.sizes.0.lock().push_back(length + found * ELEMENT_BYTES);
            }
            self.first = false;
            checked += PREFIX + length;
        }
    }

    /// Takes what arrived. Returns the messages that it completes.
    fn accept(&mut self, mut data: Bytes) -> Result<Bytes, Status> {
        if self.partial.is_empty() {
            let complete = self.check(&data)?;
            let messages = data.split_to(complete);
            self.partial.extend_from_slice(&data);
            return Ok(messages);
        }
        self.partial.extend_from_slice(&data);
        let mut partial = std::mem::take(&mut self.partial);
        let complete = self.check(&partial)?;
        let messages = partial.split_to(complete).freeze();
        self.partial = partial;
        Ok(messages)
    }
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        while !self.ended {
            let data = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(status)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    self.ended = true;
                    // The decoder reports a message that is cut off.
                    let rest = std::mem::take(&mut self.partial).freeze();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            };
            match self.accept(data) {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => return Poll::Ready(Some(Ok(Frame::data(messages)))),
                Err(status) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::worker::v1::session_request::Kind;
    use rota_proto::worker::v1::{Hello, Reject, Release, SessionRequest, WorkerHeartbeat, WorkerStatus};

    use super::*;

    fn framed(kind: Kind) -> Vec<u8> {
        framing::encode(&SessionRequest { kind: Some(kind) })
    }

    fn prefix(length: u32) -> Bytes {
        [&[0][..], &length.to_be_bytes()].concat().into()
    }

    #[test]
    fn messages_in_any_pieces_are_passed_on() {
        let hello = Kind::Hello(Hello { agent: "coder".to_owned(), ..Hello::default() });
        let beat = Kind::Heartbeat(WorkerHeartbeat { cpu: 0.5, ..WorkerHeartbeat::default() });
        let stream = [framed(hello), framed(beat.clone()), framed(beat)].concat();
        for size in 1..=stream.len() {
            let mut body = LimitedBody::new(Body::empty(), Limits::SESSION);
            let passed: Vec<u8> = stream
                .chunks(size)
                .flat_map(|chunk| body.accept(Bytes::copy_from_slice(chunk)).unwrap().to_vec())
                .collect();
            assert!(passed == stream && body.partial.is_empty(), "{size}");
        }
    }

    #[test]
    fn large_message_is_rejected_at_its_prefix() {
        let mut body = LimitedBody::new(Body::empty(), Limits::SESSION);
        let refused = body.accept(prefix((MAX_FIRST_MESSAGE + 1) as u32)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");

        let mut body = LimitedBody::new(Body::empty(), Limits::SESSION);
        body.accept(framed(Kind::Hello(Hello::default())).into()).unwrap();
        assert!(body.accept(prefix(MAX_MESSAGE as u32)).unwrap().is_empty());
        let mut body = LimitedBody::new(Body::empty(), Limits::SESSION);
        body.accept(framed(Kind::Hello(Hello::default())).into()).unwrap();
        let refused = body.accept(prefix((MAX_MESSAGE + 1) as u32)).unwrap_err();
        assert!(refused.message().contains("2097153 bytes"), "{refused}");
    }

    #[test]
    fn messages_have_sizes_in_their_order() {
        let text = || "x".repeat(1 << 20);
        let kinds = [
            Kind::Reject(Reject { reason: text(), ..Reject::default() }),
            Kind::Release(Release { request_ids: vec![text()], ..Release::default() }),
            Kind::Status(WorkerStatus { not_ready_reason: text(), ..WorkerStatus::default() }),
        ];
        let request_ids = vec![String::new(); 1000];
        let release = Kind::Release(Release { request_ids, ..Release::default() });
        let beat = Kind::Heartbeat(WorkerHeartbeat::default());
        let mut body = LimitedBody::new(Body::empty(), Limits::SESSION);
        let hello = framed(Kind::Hello(Hello::default()));
        let all = [hello].into_iter().chain(kinds.into_iter().chain([beat, release]).map(framed));
        body.accept(all.collect::<Vec<_>>().concat().into()).unwrap();
        let sizes: Vec<_> = (0..6).map(|_| body.sizes.take()).collect();
        assert!(sizes[0] < 1024 && sizes[4] < 1024, "{sizes:?}");
        assert!(sizes[1..4].iter().all(|size| *size >= 1 << 20), "{sizes:?}");
        assert!(sizes[5] >= 1000 * size_of::<String>(), "an empty id takes memory: {sizes:?}");
        assert!(body.sizes.0.lock().is_empty());
    }
}
