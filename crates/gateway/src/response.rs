//! Responses of the services as JSON.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Full};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::call::{Call, Form};
use crate::stream::{self, Messages};
use crate::{Gateway, content, status};

/// Converts the response of a call.
pub(crate) async fn convert(gateway: &Gateway, call: Call, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
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
        Form::One => one(body, &call.output).await.map(json),
    };
    answered.unwrap_or_else(|status| status::response(&gateway.pool, &status))
}

/// Returns the only message of a body, as JSON.
async fn one(body: Body, output: &MessageDescriptor) -> Result<Bytes, Box<Status>> {
    let broken = |why: &str| Box::new(Status::internal(format!("the response of the call {why}")));
    let collected = body.collect().await.map_err(Box::new)?;
    let status = collected.trailers().and_then(Status::from_header_map);
    match status {
        Some(status) if status.code() == Code::Ok => {}
        Some(status) => return Err(Box::new(status)),
        None => return Err(broken("has no status")),
    }
    let mut body = collected.to_bytes();
    let message = stream::split(&mut body).ok_or_else(|| broken("has no message"))?;
    to_json(output, message).map(Bytes::from)
}

/// Returns an encoded message as JSON.
pub(crate) fn to_json(output: &MessageDescriptor, message: Bytes) -> Result<Vec<u8>, Box<Status>> {
    let failed = |why: String| Box::new(Status::internal(format!("failed to convert a message: {why}")));
    let message =
        DynamicMessage::decode(output.clone(), message).map_err(|error| failed(error.to_string()))?;
    serde_json::to_vec(&message).map_err(|error| failed(error.to_string()))
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
