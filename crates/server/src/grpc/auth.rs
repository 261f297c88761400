//! Who may call: a bearer token, compared in constant time. Health is open, since probes have no token.

use std::task::{Context, Poll};

use futures::future::Either;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tonic::body::Body;

use crate::wire::status;

/// Lets through what shows the token.
#[derive(Clone)]
pub(crate) struct Layer {
    /// A digest: comparing digests takes the same time wherever two tokens differ.
    expected: Option<[u8; 32]>,
}

impl Layer {
    pub(crate) fn new(token: Option<SecretString>) -> Self {
        Self { expected: token.map(|token| digest(token.expose_secret().as_bytes())) }
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

impl<S> tower::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { expected: self.expected, inner }
    }
}

#[derive(Clone)]
pub(crate) struct Service<S> {
    expected: Option<[u8; 32]>,
    inner: S,
}

impl<S, B> tower::Service<http::Request<B>> for Service<S>
where
    S: tower::Service<http::Request<B>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, std::future::Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let open = request.uri().path().starts_with("/grpc.health.v1.Health/");
        let shown = request.headers().get(http::header::AUTHORIZATION).and_then(|value| {
            let value = value.as_bytes();
            value.strip_prefix(b"Bearer ").or_else(|| value.strip_prefix(b"bearer "))
        });
        let may = open || self.expected.is_none_or(|expected| shown.map(digest) == Some(expected));
        if may {
            return Either::Left(self.inner.call(request));
        }
        let message = if shown.is_some() { "the token is wrong" } else { "a token is required" };
        Either::Right(std::future::ready(Ok(status::error("UNAUTHENTICATED", message).into_http())))
    }
}
