//! Authentication: callers present the admin's token, compared in constant time, or a token of the OIDC issuer. Checks
//! the role that a call requires; the name of a worker is checked when its session opens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use parking_lot::RwLock;
use rota_telemetry::BackgroundTasks;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use super::accept::Peer;
use super::files;
use super::identity::Identity;
use super::oidc::{Caller, Verifier};
use super::page;
use super::roles::{OperatorCall, Role, allowed_roles};
use super::token_registry;
use super::worker_token::{Invalid, WorkerTokens};
use crate::options::{Oidc, RELOAD_INTERVAL, Token};
use crate::wire::status;

/// Authenticates callers by their bearer tokens.
#[derive(Debug)]
pub(crate) struct Authenticator {
    /// Digest of the admin token: comparing digests takes the same time wherever two tokens differ.
    admin: Arc<RwLock<Option<[u8; 32]>>>,
    verifier: Option<Verifier>,
    worker_tokens: WorkerTokens,
    /// Whether only programs on this machine reach the control plane.
    on_loopback: bool,
}

impl Authenticator {
    pub(crate) async fn new(
        token: Option<Token>,
        oidc: Option<Oidc>,
        worker_tokens: WorkerTokens,
        on_loopback: bool,
        background_tasks: &BackgroundTasks,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let admin = Arc::new(RwLock::new(None));
        match token {
            None => {}
            Some(Token::Fixed(token)) => {
                *admin.write() = Some(digest(token.expose_secret().as_bytes()));
            }
            Some(Token::File(path)) => {
                let name = path.display().to_string();
                let admin = Arc::clone(&admin);
                let load = move |files: &[Vec<u8>]| {
                    let token = files.first().map(|file| file.trim_ascii()).unwrap_or_default();
                    if token.is_empty() {
                        return Err(format!("{name} is empty"));
                    }
                    *admin.write() = Some(digest(token));
                    Ok(())
                };
                let monitor =
                    background_tasks.register("token-file", "Reloads the token file when it changes");
                files::follow(vec![path], RELOAD_INTERVAL, monitor, stop, load).await?;
            }
        }
        Ok(Self { admin, verifier: oidc.map(Verifier::new), worker_tokens, on_loopback })
    }

    /// Decides without the issuer, if possible. `None` means that the token must be verified with the issuer's keys.
    fn check_locally<B>(
        &self,
        allowed: &[Role],
        request: &http::Request<B>,
    ) -> Option<Result<Option<Identity>, Status>> {
        let admin = *self.admin.read();
        if admin.is_none() && self.verifier.is_none() {
            return Some(page::check(request, self.on_loopback).map(|()| None));
        }
        if allowed.contains(&Role::Anonymous) {
            return Some(Ok(None));
        }
        let Some(token) = bearer_token(request.headers()) else {
            return Some(Err(status::error("TOKEN_REQUIRED", "a token is required")));
        };
        if let Some(verified) = self.worker_tokens.verify(token) {
            return Some(match verified {
                Ok(identity) if allowed.contains(&Role::Worker) => Ok(Some(identity)),
                Ok(identity) => {
                    let text = format!("{} may not make this call", identity.holder);
                    Err(status::error("ROLE_FORBIDDEN", text))
                }
                Err(Invalid::Revoked) => Err(token_registry::revoked()),
                Err(why) => Err(status::error("TOKEN_INVALID", format!("token rejected: {why}"))),
            });
        }
        match &self.verifier {
            _ if admin == Some(digest(token)) => Some(match allowed.contains(&Role::Admin) {
                true => Ok(None),
                false => Err(status::hinted(
                    "ROLE_FORBIDDEN",
                    "the admin may not make this call",
                    "create a token for the worker with `rota admin create-worker-token`",
                )),
            }),
            None => Some(Err(status::error("TOKEN_INVALID", "wrong token"))),
            Some(_) => None,
        }
    }

    /// Verifies a token of the issuer, and the role of its subject.
    async fn verify(&self, allowed: &[Role], token: &[u8]) -> Result<Caller, Status> {
        let verifier = self.verifier.as_ref().ok_or_else(|| Status::internal("no issuer is configured"))?;
        let caller = verifier.caller(token).await?;
        if allowed.contains(&caller.role()) {
            return Ok(caller);
        }
        let subject = match &caller {
            Caller::Operator => "the operator".to_owned(),
            Caller::Worker(identity) => identity.holder.to_string(),
            Caller::Unknown(subject) => format!("{subject:?}, which has no role,"),
        };
        Err(status::error("ROLE_FORBIDDEN", format!("{subject} may not make this call")))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn bearer_token(headers: &http::HeaderMap) -> Option<&[u8]> {
    let value = headers.get(http::header::AUTHORIZATION)?.as_bytes();
    value.strip_prefix(b"Bearer ").or_else(|| value.strip_prefix(b"bearer "))
}

/// Rejects calls whose caller lacks the required role.
#[derive(Clone)]
pub(crate) struct Layer(pub(crate) Arc<Authenticator>);

impl<S> tower::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { authenticator: Arc::clone(&self.0), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Service<S> {
    authenticator: Arc<Authenticator>,
    inner: S,
}

impl<S, B> tower::Service<http::Request<B>> for Service<S>
where
    S: tower::Service<http::Request<B>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let allowed = allowed_roles(request.uri().path());
        let peer = request.extensions().get::<Arc<Peer>>().cloned();
        match self.authenticator.check_locally(allowed, &request) {
            Some(Ok(identity)) => {
                if let Some(identity) = identity {
                    request.extensions_mut().insert(identity);
                }
                match &peer {
                    None => {}
                    Some(peer) if allowed.contains(&Role::Anonymous) => peer.called(),
                    Some(peer) => peer.authenticated(),
                }
                Either::Left(self.inner.call(request))
            }
            Some(Err(refused)) => Either::Right(Box::pin(std::future::ready(Ok(refused.into_http())))),
            None => {
                let authenticator = Arc::clone(&self.authenticator);
                // The service that was polled ready is the one to call; its clone takes its place.
                let other = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, other);
                let token = bearer_token(request.headers()).unwrap_or_default().to_vec();
                Either::Right(Box::pin(async move {
                    match authenticator.verify(allowed, &token).await {
                        Ok(Caller::Worker(identity)) => drop(request.extensions_mut().insert(identity)),
                        Ok(Caller::Operator) => drop(request.extensions_mut().insert(OperatorCall)),
                        Ok(Caller::Unknown(_)) => {}
                        Err(refused) => return Ok(refused.into_http()),
                    }
                    if let Some(peer) = peer {
                        peer.authenticated();
                    }
                    inner.call(request).await
                }))
            }
        }
    }
}
