//! Responses of the services as JSON.

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Full};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use rota_proto::framing;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::call::{Call, Form, LARGE};
use crate::stream::{self, Messages};
use crate::{Gateway, content, etag, status};

/// Headers of the services that responses over HTTP have too.
const PASSED: [&str; 2] = ["rota-role", "set-cookie"];

/// Converts the response of a call.
pub(crate) async fn convert(gateway: &Gateway, call: Call, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let passed: Vec<_> =
        PASSED.iter().filter_map(|name| Some((*name, parts.headers.get(*name)?.clone()))).collect();
    let mut converted = convert_parts(gateway, call, parts, body).await;
    for (name, value) in passed {
        converted.headers_mut().insert(name, value);
    }
    converted
}

async fn convert_parts(gateway: &Gateway, call: Call, parts: Parts, body: Body) -> Response<Body> {
    // A call that fails before its first message has its status here.
    if let Some(status) = Status::from_header_map(&parts.headers)
        && status.code() != Code::Ok
    {
        return status::response(&gateway.pool, &status);
    }
    let answered = match call.form {
        Form::Many(format) => {
            return stream::response(gateway.pool.clone(), Messages::new(body, call.output), format);
        }
        Form::Content => content::response(Messages::new(body, call.output)).await,
        Form::One => one(body, &call.output).await.map(|one| one.response(call.known_etag.as_ref())),
    };
    answered.unwrap_or_else(|status| status::response(&gateway.pool, &status))
}

/// The only message of a response.
pub(crate) struct One {
    pub(crate) json: Bytes,
    etag: Option<HeaderValue>,
}

impl One {
    /// Returns the response for a caller who may have the record already.
    fn response(self, known: Option<&HeaderValue>) -> Response<Body> {
        let not_modified = etag::not_modified(known, self.etag.as_ref());
        let mut response = not_modified.unwrap_or_else(|| json(self.json));
        response.headers_mut().extend(self.etag.map(|etag| (header::ETAG, etag)));
        response
    }
}

/// Returns the only message of a body, as JSON.
pub(crate) async fn one(body: Body, output: &MessageDescriptor) -> Result<One, Box<Status>> {
    let broken = |why: &str| Box::new(Status::internal(format!("the response of the call {why}")));
    let collected = body.collect().await.map_err(Box::new)?;
    let status = collected.trailers().and_then(Status::from_header_map);
    match status {
        Some(status) if status.code() == Code::Ok => {}
        Some(status) => return Err(Box::new(status)),
        None => return Err(broken("has no status")),
    }
    let mut body = collected.to_bytes();
    let message = framing::split(&mut body).ok_or_else(|| broken("has no message"))?;
    let mut text = Vec::new();
    decode(output, message, move |message| {
        append_json(&mut text, message)?;
        Ok(One { json: text.into(), etag: etag::of(message) })
    })
    .await
}

/// Decodes a message once and converts it: on a thread for blocking work, if it is large.
pub(crate) async fn decode<T: Send + 'static>(
    output: &MessageDescriptor,
    message: Bytes,
    convert: impl FnOnce(&DynamicMessage) -> Result<T, Box<Status>> + Send + 'static,
) -> Result<T, Box<Status>> {
    let (output, is_large) = (output.clone(), message.len() >= LARGE);
    let convert = move || convert(&DynamicMessage::decode(output, message).map_err(failed)?);
    if !is_large {
        return convert();
    }
    tokio::task::spawn_blocking(convert).await.unwrap_or_else(|error| Err(failed(error)))
}

/// Appends a message as JSON, which has no line breaks of its own.
pub(crate) fn append_json(text: &mut Vec<u8>, message: &DynamicMessage) -> Result<(), Box<Status>> {
    serde_json::to_writer(text, message).map_err(failed)
}

fn failed(why: impl std::fmt::Display) -> Box<Status> {
    Box::new(Status::internal(format!("failed to convert a message: {why}")))
}

/// Returns a response with a JSON text.
pub(crate) fn json(text: Bytes) -> Response<Body> {
    with_type(Body::new(Full::new(text)), "application/json")
}

pub(crate) fn with_type(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::poll;
    use prost::Message;

    use super::*;

    /// The only thread for blocking work is occupied: what needs it cannot end.
    #[test]
    fn large_messages_leave_the_threads_of_calls() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let output = crate::pool().unwrap().get_message_by_name("rota.v1.Task").unwrap();
        let task = |bytes| rota_proto::v1::Task { alias: "x".repeat(bytes), ..Default::default() };
        let json = |bytes| {
            let message = Bytes::from(task(bytes).encode_to_vec());
            let output = output.clone();
            async move {
                let mut text = Vec::new();
                decode(&output, message, move |message| append_json(&mut text, message).map(|()| text)).await
            }
        };
        runtime.block_on(async {
            let (release, released) = mpsc::channel::<()>();
            let occupied = tokio::task::spawn_blocking(move || released.recv());
            let mut small = std::pin::pin!(json(1000));
            assert!(poll!(&mut small).is_ready());
            let mut large = std::pin::pin!(json(LARGE));
            assert!(poll!(&mut large).is_pending());
            drop(release);
            assert_eq!(large.await.unwrap(), format!("{{\"alias\":\"{}\"}}", "x".repeat(LARGE)).into_bytes());
            assert!(occupied.await.unwrap().is_err());
        });
    }
}
