//! Calls by pages of other origins (CORS): those of a list may call with a token, and never with a cookie.

use std::time::Duration;

use http::Method;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use tower::layer::util::Identity;
use tower::util::{Either, option_layer};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::roles::ROLE_HEADER;

/// Time for which browsers keep the answer to whether a page may call.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3600);
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// Headers of requests besides those that every page may send: of HTTP with JSON, of gRPC-Web, of traces.
const REQUEST: [&str; 11] = [
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "x-grpc-web",
    "x-user-agent",
    "grpc-timeout",
    "grpc-accept-encoding",
    "traceparent",
    "tracestate",
    "baggage",
];
/// Headers of responses that pages may read: how a call of gRPC-Web has ended, and the caller's role.
const RESPONSE: [&str; 5] = ["etag", "grpc-status", "grpc-message", "grpc-status-details-bin", ROLE_HEADER];

/// Returns the layer that lets pages of these origins call; without any, it does nothing.
pub(crate) fn layer(origins: Vec<HeaderValue>) -> Either<CorsLayer, Identity> {
    let request = REQUEST.map(HeaderName::from_static).into_iter();
    let response = RESPONSE.map(HeaderName::from_static).into_iter();
    option_layer((!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods(METHODS)
            .allow_headers(request.chain([ACCEPT, AUTHORIZATION, CONTENT_TYPE]).collect::<Vec<_>>())
            .expose_headers(response.chain([RETRY_AFTER, WWW_AUTHENTICATE]).collect::<Vec<_>>())
            .max_age(PREFLIGHT_AGE)
    }))
}
