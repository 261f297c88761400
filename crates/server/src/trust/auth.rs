//! Who may call: the admin's token, compared in constant time, or one of the issuer's. What is checked is at the
//! door; a worker's name is checked where it says its name.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use parking_lot::RwLock;
use rota_telemetry::Loops;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use super::files;
use super::oidc::{Caller, Verifier};
use super::roles::{Role, least};
use crate::options::{Oidc, RELOAD, Token};
use crate::wire::status;

/// What is known of who may call.
#[derive(Debug)]
pub(crate) struct Door {
    /// A digest: comparing digests takes the same time wherever two tokens differ.
    admin: Arc<RwLock<Option<[u8; 32]>>>,
    verifier: Option<Verifier>,
}

impl Door {
    pub(crate) async fn new(
        token: Option<Token>,
        oidc: Option<Oidc>,
        loops: &Loops,
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
                let take = move |files: &[Vec<u8>]| {
                    let token = files.first().map(|file| file.trim_ascii()).unwrap_or_default();
                    if token.is_empty() {
                        return Err(format!("{name} is empty"));
                    }
                    *admin.write() = Some(digest(token));
                    Ok(())
                };
                let beat = loops.enter("token-file", "Looks whether the file with the token has changed");
                files::follow(vec![path], RELOAD, beat, stop, take).await?;
            }
        }
        Ok(Self { admin, verifier: oidc.map(Verifier::new) })
    }

    /// Whether all is said already: let in, or turned away. `None` means that the issuer's word is needed.
    fn at_once(&self, least: Role, shown: Option<&[u8]>) -> Option<Result<(), Status>> {
        let admin = *self.admin.read();
        if least == Role::Anybody || (admin.is_none() && self.verifier.is_none()) {
            return Some(Ok(()));
        }
        let Some(shown) = shown else {
            return Some(Err(status::error("TOKEN_REQUIRED", "a token is required")));
        };
        match &self.verifier {
            _ if admin == Some(digest(shown)) => Some(Ok(())),
            None => Some(Err(status::error("TOKEN_INVALID", "the token is wrong"))),
            Some(_) => None,
        }
    }

    /// What the issuer's token makes of its bearer.
    async fn asked(&self, least: Role, shown: &[u8]) -> Result<Caller, Status> {
        let verifier = self.verifier.as_ref().ok_or_else(|| Status::internal("no issuer is known"))?;
        let caller = verifier.caller(shown).await?;
        if caller.role() >= least {
            return Ok(caller);
        }
        let who = match &caller {
            Caller::Operator => "the operator".to_owned(),
            Caller::Worker(pod) => format!("the worker {}/{}", pod.namespace, pod.name),
            Caller::Stranger(subject) => format!("{subject:?}, which has no role here,"),
        };
        Err(status::error("ROLE_FORBIDDEN", format!("{who} may not make this call")))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn shown(headers: &http::HeaderMap) -> Option<&[u8]> {
    let value = headers.get(http::header::AUTHORIZATION)?.as_bytes();
    value.strip_prefix(b"Bearer ").or_else(|| value.strip_prefix(b"bearer "))
}

/// Lets through whoever may make a call.
#[derive(Clone)]
pub(crate) struct Layer(pub(crate) Arc<Door>);

impl<S> tower::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { door: Arc::clone(&self.0), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Service<S> {
    door: Arc<Door>,
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
        let least = least(request.uri().path());
        match self.door.at_once(least, shown(request.headers())) {
            Some(Ok(())) => Either::Left(self.inner.call(request)),
            Some(Err(refused)) => Either::Right(Box::pin(std::future::ready(Ok(refused.into_http())))),
            None => {
                let door = Arc::clone(&self.door);
                // The one that is ready is used; what stays here will be asked again.
                let other = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, other);
                let token = shown(request.headers()).unwrap_or_default().to_vec();
                Either::Right(Box::pin(async move {
                    match door.asked(least, &token).await {
                        Ok(Caller::Worker(pod)) => drop(request.extensions_mut().insert(pod)),
                        Ok(_) => {}
                        Err(refused) => return Ok(refused.into_http()),
                    }
                    inner.call(request).await
                }))
            }
        }
    }
}
