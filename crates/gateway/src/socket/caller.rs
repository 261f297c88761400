//! Calls of a WebSocket: requests over HTTP as any other, in the same process.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::Full;
use serde_json::Value;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::call::{Call, Inner};
use crate::stream::Messages;
use crate::{Gateway, response, status};

/// Call that everyone may make who has a role: it shows whether the credentials are valid.
const CHECK: &str = "/api/v1/browserSessions/current";

/// A call, in its form over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) method: Method,
    /// Path with its query, encoded.
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) idempotency_key: Option<String>,
}

impl Command {
    pub(super) fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: None, idempotency_key: None }
    }
}

/// Makes calls with the credentials of a handshake.
#[derive(Clone)]
pub(super) struct Caller<S> {
    pub(super) gateway: Arc<Gateway>,
    pub(super) inner: S,
    pub(super) headers: HeaderMap,
    pub(super) extensions: Extensions,
}

impl<S: Inner> Caller<S> {
    /// Refuses callers without valid credentials.
    pub(super) fn check(&self) -> impl Future<Output = Result<(), Box<Status>>> + Send + use<S> {
        let called = self.one(Command::get(CHECK.to_owned()));
        async move {
            match called.await {
                // A token is no session.
                Err(status) if status.code() != Code::NotFound => Err(status),
                _ => Ok(()),
            }
        }
    }

    /// Makes a call with one answer.
    pub(super) fn one(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<Value, Box<Status>>> + Send + use<S> {
        let sent = self.send(command);
        async move {
            let (call, body) = sent.await?;
            let one = response::one(body, &call.output).await?;
            serde_json::from_slice(&one.json).map_err(|error| Box::new(Status::internal(error.to_string())))
        }
    }

    /// Opens a feed of messages of the services.
    pub(super) fn feed(
        &self,
        path: String,
    ) -> impl Future<Output = Result<Messages, Box<Status>>> + Send + use<S> {
        let sent = self.send(Command::get(path));
        async move { sent.await.map(|(call, body)| Messages::new(body, call.output)) }
    }

    fn send(
        &self,
        command: Command,
    ) -> impl Future<Output = Result<(Call, Body), Box<Status>>> + Send + use<S> {
        let refused = |response: Box<http::Response<Body>>| {
            let status = response.extensions().get::<Status>().cloned();
            Box::new(status.unwrap_or_else(|| Status::internal("the call was refused without a status")))
        };
        let request = self.request(command);
        let converted = request.and_then(|request| self.gateway.convert(request).map_err(refused));
        let inner = self.inner.clone();
        async move {
            let (request, call) = converted?;
            let answered = inner.oneshot(request).await;
            let response =
                answered.map_err(|_| Box::new(Status::unavailable("the call was not answered")))?;
            let (parts, body) = response.into_parts();
            match Status::from_header_map(&parts.headers) {
                Some(status) if status.code() != Code::Ok => Err(Box::new(status)),
                _ => Ok((call, body)),
            }
        }
    }

    fn request(&self, command: Command) -> Result<Request<Body>, Box<Status>> {
        let invalid = |error: http::Error| status::invalid(&format!("the command is invalid: {error}"), "");
        let body = command.body.as_ref().map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder().method(command.method).uri(command.path);
        let mut request = request.body(Body::new(Full::new(body))).map_err(invalid)?;
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = command.idempotency_key {
            let key = HeaderValue::from_str(&key).map_err(|error| invalid(error.into()))?;
            headers.insert("idempotency-key", key);
        }
        Ok(request)
    }
}
