//! Streams of messages over HTTP: lines of JSON, or server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use http::{HeaderMap, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};
use rota_proto::framing;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::{response, status};

/// Interval of comments on a silent stream of events, which keep proxies from ending it.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One message a line; an error is a last line `{"error": …}`.
    Lines,
    /// One event a message, with the position as its id; then `end` or `error`.
    Events,
}

impl Format {
    /// Returns the form that a request accepts.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if accept.contains("text/event-stream") { Self::Events } else { Self::Lines }
    }
}

/// Messages of a gRPC body.
pub(crate) struct Messages {
    body: Body,
    received: BytesMut,
    pub(crate) output: MessageDescriptor,
    over: bool,
}

impl Messages {
    pub(crate) fn new(body: Body, output: MessageDescriptor) -> Self {
        Self { body, received: BytesMut::new(), output, over: false }
    }

    /// Returns the next message, or the status at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Bytes, Box<Status>> {
        loop {
            if let Some(message) = framing::split(&mut self.received) {
                return Ok(message);
            }
            let frame = match self.body.frame().await {
                Some(frame) => frame.map_err(Box::new)?,
                None => return Err(Box::new(Status::unavailable("the stream was cut off"))),
            };
            match frame.into_data() {
                Ok(data) => self.received.extend_from_slice(&data),
                Err(frame) => {
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    return Err(Box::new(status.unwrap_or_else(|| Status::unavailable("no status"))));
                }
            }
        }
    }
}

/// Returns a response with all messages of a stream.
pub(crate) fn response(pool: DescriptorPool, messages: Messages, format: Format) -> Response<Body> {
    let body = Body::new(StreamBody::new(parts(pool, messages, format)));
    response::with_type(
        body,
        match format {
            Format::Lines => "application/x-ndjson",
            Format::Events => "text/event-stream",
        },
    )
}

fn parts(
    pool: DescriptorPool,
    messages: Messages,
    format: Format,
) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
    stream::unfold((pool, messages), move |(pool, mut messages)| async move {
        if messages.over {
            return None;
        }
        let next = match format {
            Format::Lines => messages.next().await,
            Format::Events => match tokio::time::timeout(KEEPALIVE_INTERVAL, messages.next()).await {
                Ok(next) => next,
                Err(_) => return Some((Ok(Frame::data(Bytes::from_static(b":\n\n"))), (pool, messages))),
            },
        };
        let converted = match next {
            Ok(message) => {
                response::decode(&messages.output, message, move |message| part(message, format)).await
            }
            Err(status) => Err(status),
        };
        let text = converted.unwrap_or_else(|status| {
            messages.over = true;
            last(&pool, &status, format)
        });
        Some((Ok(Frame::data(text.into())), (pool, messages)))
    })
}

fn part(message: &DynamicMessage, format: Format) -> Result<Vec<u8>, Box<Status>> {
    let mut text = Vec::new();
    if format == Format::Events {
        if let Some(position) = position(message) {
            text.extend(format!("id: {position}\n").bytes());
        }
        text.extend(b"data: ");
    }
    response::append_json(&mut text, message)?;
    text.extend(if format == Format::Events { "\n\n" } else { "\n" }.bytes());
    Ok(text)
}

fn last(pool: &DescriptorPool, status: &Status, format: Format) -> Vec<u8> {
    let error = || String::from_utf8_lossy(&status::json(pool, status)).into_owned();
    let text = match format {
        Format::Lines if status.code() == Code::Ok => String::new(),
        Format::Lines => format!("{{\"error\":{}}}\n", error()),
        // A client that does not close would connect again.
        Format::Events if status.code() == Code::Ok => "event: end\ndata: {}\n\n".to_owned(),
        Format::Events => format!("event: error\ndata: {}\n\n", error()),
    };
    text.into_bytes()
}

/// Returns the position from which a later request continues, which has it in the header `Last-Event-ID`: the token of a
/// message, or the place of its last entry in the log.
fn position(message: &DynamicMessage) -> Option<String> {
    if let Some(token) = message.get_field_by_name("token") {
        return token.as_str().filter(|token| !token.is_empty()).map(str::to_owned);
    }
    let events = message.get_field_by_name("events")?;
    let last = events.as_list()?.last()?.as_message()?.get_field_by_name("log_seq")?;
    match *last {
        Value::I64(position) => Some(position.to_string()),
        _ => None,
    }
}
