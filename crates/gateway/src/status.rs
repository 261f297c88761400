//! Errors in JSON: `google.rpc.Status` in its canonical form, with the HTTP status that `google.rpc.Code` names.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use prost_reflect::{DescriptorPool, DynamicMessage};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::response;

const DOMAIN: &str = "rota.dev";

/// Reasons of the errors of this layer alone, with their codes and meanings.
pub const REASONS: &[(&str, Code, &str)] = &[
    ("PATH_UNKNOWN", Code::NotFound, "No call has the path of the HTTP request."),
    (
        "METHOD_UNSUPPORTED",
        Code::Unimplemented,
        "The call at the path of the HTTP request has another method.",
    ),
    (
        "MEDIA_TYPE_UNSUPPORTED",
        Code::InvalidArgument,
        "The body of the HTTP request is not declared as `application/json`.",
    ),
    (
        "REQUEST_INVALID",
        Code::InvalidArgument,
        "The HTTP request cannot be converted to the call's request; the message names the place.",
    ),
    ("BODY_TOO_LARGE", Code::ResourceExhausted, "The body of the HTTP request is too large."),
    ("BODY_TOO_SLOW", Code::DeadlineExceeded, "The body of the HTTP request did not arrive in time."),
    (
        "WEBSOCKET_EXPECTED",
        Code::FailedPrecondition,
        "The path is that of a WebSocket, and the request opens none.",
    ),
    ("ORIGIN_REFUSED", Code::PermissionDenied, "Pages of this origin may not open a WebSocket."),
    (
        "MESSAGE_INVALID",
        Code::InvalidArgument,
        "A message of a WebSocket is invalid; the error names the place.",
    ),
    (
        "SUBSCRIPTIONS_EXHAUSTED",
        Code::ResourceExhausted,
        "The WebSocket has as many subscriptions as it may have.",
    ),
    (
        "COMMANDS_EXHAUSTED",
        Code::ResourceExhausted,
        "As many commands of the WebSocket are not answered yet as there may be.",
    ),
];

pub(crate) fn error(reason: &str, message: &str, hint: &str) -> Box<Status> {
    let code = REASONS.iter().find(|(name, ..)| *name == reason).map_or(Code::Unknown, |(_, code, _)| *code);
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, std::collections::HashMap::new());
    if !hint.is_empty() {
        details.add_help_link(hint, "");
    }
    Box::new(Status::with_error_details(code, message, details))
}

pub(crate) fn invalid(message: &str, hint: &str) -> Box<Status> {
    error("REQUEST_INVALID", message, hint)
}

/// Returns the HTTP status of a code, as `google/rpc/code.proto` maps them.
pub(crate) fn http_status(status: &Status) -> StatusCode {
    match status.code() {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns the HTTP status of an error where HTTP has a better one than that of its code.
fn own_status(reason: &str) -> Option<StatusCode> {
    match reason {
        "METHOD_UNSUPPORTED" => Some(StatusCode::METHOD_NOT_ALLOWED),
        "MEDIA_TYPE_UNSUPPORTED" => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        "BODY_TOO_LARGE" => Some(StatusCode::PAYLOAD_TOO_LARGE),
        "BODY_TOO_SLOW" => Some(StatusCode::REQUEST_TIMEOUT),
        "WEBSOCKET_EXPECTED" => Some(StatusCode::UPGRADE_REQUIRED),
        // Of the services, which know no headers.
        "MESSAGE_TOO_LARGE" => Some(StatusCode::PAYLOAD_TOO_LARGE),
        "ETAG_MISMATCH" => Some(StatusCode::PRECONDITION_FAILED),
        _ => None,
    }
}

/// Returns an error as JSON.
pub(crate) fn json(pool: &DescriptorPool, status: &Status) -> Vec<u8> {
    let details = pool
        .get_message_by_name("google.rpc.Status")
        .filter(|_| !status.details().is_empty())
        .and_then(|descriptor| DynamicMessage::decode(descriptor, status.details()).ok())
        .and_then(|message| serde_json::to_vec(&message).ok());
    // A detail of an unknown type has no JSON form.
    details.unwrap_or_else(|| {
        let plain = serde_json::json!({ "code": status.code() as i32, "message": status.message() });
        plain.to_string().into_bytes()
    })
}

/// Returns a response with an error.
pub(crate) fn response(pool: &DescriptorPool, status: &Status) -> Response<Body> {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let body = Bytes::from(json(pool, status));
    let mut response = response::json(body);
    response.extensions_mut().insert(status.clone());
    *response.status_mut() = own_status(&reason).unwrap_or_else(|| http_status(status));
    if status.code() == Code::Unauthenticated {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_messages_of_services_are_large_bodies() {
        let mut details = ErrorDetails::new();
        details.set_error_info("MESSAGE_TOO_LARGE", DOMAIN, std::collections::HashMap::new());
        let refused = Status::with_error_details(Code::ResourceExhausted, "", details);
        let pool = crate::pool().unwrap();
        assert_eq!(response(&pool, &refused).status(), StatusCode::PAYLOAD_TOO_LARGE);
        let exhausted = Status::resource_exhausted("");
        assert_eq!(response(&pool, &exhausted).status(), StatusCode::TOO_MANY_REQUESTS);
    }
}
