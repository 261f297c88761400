//! Limits of the messages of all calls: of bytes, of elements, of the memory of what is decoded, and of the time until the only message
//! of a call has arrived. They are applied to encoded messages before anything of them is decoded. Knows nothing of identities.

mod elements;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use parking_lot::Mutex;
use rota_gateway::HttpMethod;
use rota_proto::framing::{self, Header, PREFIX};
use rota_proto::limits::MESSAGE_ELEMENTS;
use rota_proto::v1::{admin_service_server, agent_service_server};
use rota_proto::worker::v1::worker_service_server;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use self::elements::{Bounds, Excess, Input};
use crate::trust::roles;
use crate::trust::scope::MESSAGE_TIMEOUT;
use crate::wire::status::error;

const SESSION: &str = "/rota.worker.v1.WorkerService/Session";
/// Hello of a worker with 1,024 slots, all of them occupied and abandoned, has 124 KiB.
const MAX_FIRST_MESSAGE: usize = 128 << 10;
/// A result of 1 MiB, before redaction, with room to spare.
pub(crate) const MAX_MESSAGE: usize = 2 << 20;
const MAX_FIRST_ELEMENTS: usize = 8 << 10;
/// Body of a call that requires no token, of gRPC and of HTTP.
pub(crate) const MAX_ANONYMOUS: usize = 4 << 10;
/// Message of a call of `AgentService` or `AdminService`.
pub(crate) const MAX_ADMIN_REQUEST: usize = 4 << 20;
/// Message of any other call: a prompt of 1 MiB with room to spare.
pub(crate) const MAX_REQUEST: usize = 8 << 20;
/// Memory of a decoded message besides its texts and bytes, by estimate: eight times the largest one. A workflow of 10,000 steps has less.
const MAX_DECODED: usize = 8 * MAX_REQUEST;
/// Messages with fewer bytes are decoded as they are: 2,048 of the largest elements are less than [`MAX_DECODED`].
const UNCHECKED: usize = 4 << 10;
/// Time to receive the next part of the only message of a call; without a token, all of it.
const PART_TIMEOUT: Duration = Duration::from_secs(60);
/// Memory of an element besides its content: the largest one is an event.
const ELEMENT_BYTES: usize = 256;

/// Memory of the decoded messages of a session, by estimate, from their arrival until they are taken, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sizes(Arc<Mutex<VecDeque<usize>>>);

impl Sizes {
    /// Returns the size of the next message.
    pub(crate) fn take(&self) -> usize {
        self.0.lock().pop_front().unwrap_or(MAX_MESSAGE)
    }
}

/// Limits the body of a request.
pub(crate) fn limit(mut request: http::Request<Body>) -> http::Request<Body> {
    let path = request.uri().path();
    let input = elements::input(path);
    let is_anonymous = roles::is_anonymous(path);
    let limits = match input {
        _ if is_anonymous => Limits::ANONYMOUS,
        Some(input) if path == SESSION => Limits::session(input),
        // A stream of parts of contents, which are limited by their bytes alone.
        Some(input) if input.is_stream && input.is_flat() => return request,
        Some(input) => Limits::call(input, max_request(path)),
        None => return request,
    };
    // A body over HTTP has its time from the gateway, which converts it then.
    let is_timed =
        !input.is_some_and(|input| input.is_stream) && request.extensions().get::<HttpMethod>().is_none();
    let time = is_timed.then_some(if is_anonymous { PART_TIMEOUT } else { MESSAGE_TIMEOUT });
    let sizes = Sizes::default();
    if matches!(limits.first.check, Check::Elements(..)) {
        request.extensions_mut().insert(sizes.clone());
    }
    request.map(|body| Body::new(LimitedBody { sizes, time, ..LimitedBody::new(body, limits) }))
}

/// Returns the bytes that the service of a call decodes at most.
fn max_request(path: &str) -> usize {
    match path.split('/').nth(1).unwrap_or_default() {
        worker_service_server::SERVICE_NAME => MAX_MESSAGE,
        agent_service_server::SERVICE_NAME | admin_service_server::SERVICE_NAME => MAX_ADMIN_REQUEST,
        _ => MAX_REQUEST,
    }
}

/// What of a message is limited besides its bytes.
#[derive(Clone, Copy)]
enum Check {
    Nothing,
    /// Elements of a message of a session, which takes its sizes.
    Elements(Input, usize),
    Memory(Input),
}

/// Limits of one message of a body.
#[derive(Clone, Copy)]
struct Limit {
    bytes: usize,
    check: Check,
}

#[derive(Clone, Copy)]
struct Limits {
    first: Limit,
    later: Limit,
}

impl Limits {
    const ANONYMOUS: Self = Self {
        first: Limit { bytes: MAX_ANONYMOUS, check: Check::Nothing },
        later: Limit { bytes: 0, check: Check::Nothing },
    };

    fn session(input: Input) -> Self {
        Self {
            first: Limit { bytes: MAX_FIRST_MESSAGE, check: Check::Elements(input, MAX_FIRST_ELEMENTS) },
            later: Limit { bytes: MAX_MESSAGE, check: Check::Elements(input, MESSAGE_ELEMENTS) },
        }
    }

    fn call(input: Input, bytes: usize) -> Self {
        let each = Limit { bytes, check: Check::Memory(input) };
        Self { first: each, later: each }
    }
}

impl Limit {
    fn check_bytes(&self, length: usize) -> Result<(), Status> {
        if length <= self.bytes {
            return Ok(());
        }
        let text = format!("a message has {length} bytes; at most {} are accepted", self.bytes);
        Err(match self.check {
            // As the decoder does.
            Check::Memory(_) => Status::out_of_range(text),
            Check::Nothing | Check::Elements(..) => error("MESSAGE_TOO_LARGE", text),
        })
    }

    /// Checks a complete message. Returns the memory of one of a session, by estimate.
    fn check_message(&self, message: &[u8]) -> Result<Option<usize>, Status> {
        match self.check {
            Check::Elements(input, most) => {
                let found = elements::check(message, input, Bounds::elements(most));
                let found = found.map_err(|excess| match excess {
                    Excess::TooMany => {
                        error("MESSAGE_TOO_LARGE", format!("a message has more than {most} elements"))
                    }
                    Excess::Malformed => error("PROTOCOL_VIOLATION", "a message is malformed"),
                })?;
                Ok(Some(message.len() + found * ELEMENT_BYTES))
            }
            Check::Memory(input) if message.len() >= UNCHECKED => {
                match elements::check(message, input, Bounds::memory(MAX_DECODED)) {
                    Ok(_) => Ok(None),
                    Err(Excess::TooMany) => {
                        let most = MAX_DECODED >> 20;
                        let text =
                            format!("the elements of a message would take more than {most} MiB of memory");
                        Err(error("MESSAGE_TOO_LARGE", text))
                    }
                    Err(Excess::Malformed) => Err(Status::invalid_argument("a message is malformed")),
                }
            }
            Check::Nothing | Check::Memory(_) => Ok(None),
        }
    }
}

/// A body that passes on complete messages within the limits, and fails with a status at the first one beyond them.
struct LimitedBody {
    inner: Body,
    /// Beginning of a message whose end has not arrived.
    partial: BytesMut,
    limits: Limits,
    /// Shared with the session that takes the messages.
    sizes: Sizes,
    /// Time until all of it must have arrived. It begins when something is awaited.
    time: Option<Duration>,
    deadline: Option<Instant>,
    /// Ends the wait for the next part of it.
    timer: Option<Pin<Box<Sleep>>>,
    first: bool,
    ended: bool,
}

impl LimitedBody {
    fn new(inner: Body, limits: Limits) -> Self {
        let (partial, sizes) = (BytesMut::new(), Sizes::default());
        Self {
            inner,
            partial,
            limits,
            sizes,
            time: None,
            deadline: None,
            timer: None,
            first: true,
            ended: false,
        }
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let Some(time) = self.time else { return false };
        let now = Instant::now();
        let until = (*self.deadline.get_or_insert(now + time)).min(now + PART_TIMEOUT);
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(context).is_ready()
    }

    /// Returns the length of the complete messages at the beginning of `bytes`.
    fn check(&mut self, bytes: &[u8]) -> Result<usize, Status> {
        let mut checked = 0;
        loop {
            let rest = bytes.get(checked..).unwrap_or_default();
            let Some(Header { compressed, length }) = framing::header(rest) else { return Ok(checked) };
            if compressed {
                return Err(Status::unimplemented("compressed messages are not supported"));
            }
            let limit = if self.first { self.limits.first } else { self.limits.later };
            limit.check_bytes(length)?;
            let Some(message) = rest.get(PREFIX..PREFIX + length) else { return Ok(checked) };
            if let Some(size) = limit.check_message(message)? {
                self.sizes.0.lock().push_back(size);
            }
            self.first = false;
            checked += PREFIX + length;
        }
    }

    /// Keeps what arrived, with room for the rest of its message, whose length has been checked.
    fn keep(&mut self, data: &[u8]) {
        let whole = framing::header(&self.partial).map_or(0, |header| PREFIX + header.length);
        self.partial.reserve(whole.saturating_sub(self.partial.len()).max(data.len()));
        self.partial.extend_from_slice(data);
    }

    /// Takes what arrived. Returns the messages that it completes.
    fn accept(&mut self, mut data: Bytes) -> Result<Bytes, Status> {
        if self.partial.is_empty() {
            let complete = self.check(&data)?;
            let messages = data.split_to(complete);
            self.keep(&data);
            return Ok(messages);
        }
        self.keep(&data);
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
            let polled = match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(polled) => polled,
                Poll::Pending if self.is_late(context) => {
                    Some(Err(Status::deadline_exceeded("the message of the call did not arrive")))
                }
                Poll::Pending => return Poll::Pending,
            };
            let data = match polled {
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
            if !data.is_empty() {
                self.timer = None;
            }
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
mod tests;
