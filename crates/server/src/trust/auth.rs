//! Authentication: callers present the token of the admin or of viewers, compared in constant time, or one of the OIDC
//! issuer. Checks the role that a call requires; the name of a worker is checked when its session opens.

use std::future::Future;
use std::path::PathBuf;
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
use super::roles::{OperatorCall, ROLE_HEADER, Role, allowed_roles};
use super::token_registry;
use super::worker_token::{Invalid, WorkerTokens};
use crate::options::{Oidc, RELOAD_INTERVAL, Token};
use crate::wire::status;

/// Authenticates callers by their bearer tokens.
#[derive(Debug)]
pub(crate) struct Authenticator {
    tokens: Arc<RwLock<Digests>>,
    verifier: Option<Verifier>,
    worker_tokens: WorkerTokens,
    /// Whether only programs on this machine reach the control plane.
    on_loopback: bool,
}

/// Digests of the tokens in files: comparing digests takes the same time wherever two tokens differ.
#[derive(Debug, Default, Clone, Copy)]
struct Digests {
    admin: Option<[u8; 32]>,
    viewer: Option<[u8; 32]>,
}

impl Authenticator {
    pub(crate) async fn new(
        token: Option<Token>,
        viewer_token: Option<PathBuf>,
        oidc: Option<Oidc>,
        worker_tokens: WorkerTokens,
        on_loopback: bool,
        background_tasks: &BackgroundTasks,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let tokens = Arc::new(RwLock::new(Digests::default()));
        let admin_file = match token {
            Some(Token::File(path)) => Some(path),
            Some(Token::Fixed(token)) => {
                tokens.write().admin = Some(digest(token.expose_secret().as_bytes()));
                None
            }
            None => None,
        };
        let has_admin_file = admin_file.is_some();
        let paths: Vec<_> = admin_file.into_iter().chain(viewer_token).collect();
        if !paths.is_empty() {
            let (names, tokens) = (paths.clone(), Arc::clone(&tokens));
            let load = move |files: &[Vec<u8>]| {
                let mut read = names.iter().zip(files).map(|(path, file)| match file.trim_ascii() {
                    [] => Err(format!("{} is empty", path.display())),
                    token => Ok(digest(token)),
                });
                let mut next = *tokens.read();
                if has_admin_file {
                    next.admin = read.next().transpose()?;
                }
                next.viewer = read.next().transpose()?;
                if next.viewer.is_some() && next.viewer == next.admin {
                    return Err("the token of viewers is that of the admin".to_owned());
                }
                *tokens.write() = next;
                Ok(())
            };
            let monitor = background_tasks.register("token-file", "Reloads token files when they change");
            files::follow(paths, RELOAD_INTERVAL, monitor, stop, load).await?;
        }
        Ok(Self { tokens, verifier: oidc.map(Verifier::new), worker_tokens, on_loopback })
    }

    /// Decides without the issuer, if possible. `None` means that the token must be verified with the issuer's keys.
    fn check_locally<B>(
        &self,
        allowed: &[Role],
        request: &http::Request<B>,
    ) -> Option<Result<Local, Status>> {
        let tokens = *self.tokens.read();
        if tokens.admin.is_none() && self.verifier.is_none() {
            return Some(page::check(request, self.on_loopback).map(|()| Local::Other));
        }
        if allowed.contains(&Role::Anonymous) {
            return Some(Ok(Local::Other));
        }
        let Some(token) = bearer_token(request.headers()) else {
            return Some(Err(status::error("TOKEN_REQUIRED", "a token is required")));
        };
        if let Some(verified) = self.worker_tokens.verify(token) {
            return Some(match verified {
                Ok(identity) if allowed.contains(&Role::Worker) => Ok(Local::Worker(identity)),
                Ok(identity) => {
                    let text = format!("{} may not make this call", identity.holder);
                    Err(status::error("ROLE_FORBIDDEN", text))
                }
                Err(Invalid::Revoked) => Err(token_registry::revoked()),
                Err(why @ Invalid::Unrecorded) => Err(status::hinted(
                    "TOKEN_INVALID",
                    format!("token rejected: {why}"),
                    "create another with `rota admin create-worker-token`",
                )),
                Err(why) => Err(status::error("TOKEN_INVALID", format!("token rejected: {why}"))),
            });
        }
        let digest = Some(digest(token));
        match &self.verifier {
            _ if tokens.admin == digest => Some(match allowed.contains(&Role::Admin) {
                true => Ok(Local::Other),
                false => Err(status::hinted(
                    "ROLE_FORBIDDEN",
                    "the admin may not make this call",
                    "create a token for the worker with `rota admin create-worker-token`",
                )),
            }),
            _ if tokens.viewer == digest => Some(match allowed.contains(&Role::Viewer) {
                true => Ok(Local::Viewer),
                false => Err(status::hinted(
                    "ROLE_FORBIDDEN",
                    "a viewer may not make this call",
                    "viewers only read: use the admin token to change something",
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

/// A caller that was let in without the issuer.
enum Local {
    Worker(Identity),
    Viewer,
    /// The admin, or a caller that needs no token.
    Other,
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
            Some(Ok(caller)) => {
                match &peer {
                    None => {}
                    Some(peer) if allowed.contains(&Role::Anonymous) => peer.called(),
                    Some(peer) => peer.authenticated(),
                }
                match caller {
                    Local::Worker(identity) => drop(request.extensions_mut().insert(identity)),
                    Local::Viewer => {
                        let answered = self.inner.call(request);
                        return Either::Right(Box::pin(async move {
                            let mut response = answered.await?;
                            let viewer = http::HeaderValue::from_static("viewer");
                            response.headers_mut().insert(ROLE_HEADER, viewer);
                            Ok(response)
                        }));
                    }
                    Local::Other => {}
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
