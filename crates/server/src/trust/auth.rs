//! Authentication: callers present the token of the admin or of viewers, compared in constant time, one of an OIDC issuer, or
//! the cookie of a browser's session. Checks the role that a call requires; the name of a worker is checked when its session opens.

use std::path::PathBuf;
use std::sync::Arc;

use rota_core::Timestamp;
use rota_gateway::{HttpMethod, Inner};
use rota_telemetry::{BackgroundTasks, OnExit, spawn};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use super::accept::Peer;
use super::browser_sessions::{BrowserSession, BrowserSessions};
use super::cookies::Cookies;
use super::cut_off;
use super::files;
use super::identity::Identity;
use super::oidc::{Caller, Verifier};
use super::page;
use super::people::{PeopleVerifier, PersonCall};
use super::roles::{LimitedCall, OperatorCall, ROLE_HEADER, Role, allowed_roles};
use super::shared_tokens::{Digests, SharedTokens, digest};
use super::token_registry;
use super::worker_token::{Invalid, WorkerTokens};
use crate::base_path::BasePath;
use crate::clock::now;
use crate::options::{Oidc, RELOAD_INTERVAL, Token};
use crate::store_client::StoreClient;
use crate::wire::status;

/// Authenticates callers by their bearer tokens or sessions.
pub(crate) struct Authenticator {
    tokens: SharedTokens,
    sessions: Sessions,
    verifier: Option<Verifier>,
    people: Option<Arc<PeopleVerifier>>,
    worker_tokens: WorkerTokens,
    /// Whether only programs on this machine reach the control plane.
    on_loopback: bool,
}

/// Tokens that are accepted, and their issuer.
pub(crate) struct Accepted {
    pub(crate) token: Option<Token>,
    pub(crate) viewer_token: Option<PathBuf>,
    pub(crate) oidc: Option<Oidc>,
    pub(crate) people: Option<Arc<PeopleVerifier>>,
}

/// Sessions of browsers, and where their use is stored.
pub(crate) struct Sessions {
    pub(crate) known: Arc<BrowserSessions>,
    pub(crate) store: StoreClient,
    pub(crate) cookies: Cookies,
}

impl Authenticator {
    pub(crate) async fn new(
        accepted: Accepted,
        sessions: Sessions,
        worker_tokens: WorkerTokens,
        on_loopback: bool,
        background_tasks: &BackgroundTasks,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        let Accepted { token, viewer_token, oidc, people } = accepted;
        let tokens = sessions.known.tokens().clone();
        let admin_file = match token {
            Some(Token::File(path)) => Some(path),
            Some(Token::Fixed(token)) => {
                let admin = Some(digest(token.expose_secret().as_bytes()));
                tokens.set(Digests { admin, ..tokens.get() });
                None
            }
            None => None,
        };
        let has_admin_file = admin_file.is_some();
        let paths: Vec<_> = admin_file.into_iter().chain(viewer_token).collect();
        if !paths.is_empty() {
            let (names, tokens) = (paths.clone(), tokens.clone());
            let load = move |files: &[Vec<u8>]| {
                let mut read = names.iter().zip(files).map(|(path, file)| match file.trim_ascii() {
                    [] => Err(format!("{} is empty", path.display())),
                    token => Ok(digest(token)),
                });
                let mut next = tokens.get();
                if has_admin_file {
                    next.admin = read.next().transpose()?;
                }
                next.viewer = read.next().transpose()?;
                if next.viewer.is_some() && next.viewer == next.admin {
                    return Err("the token of viewers is that of the admin".to_owned());
                }
                tokens.set(next);
                Ok(())
            };
            let monitor = background_tasks.register("token-file", "Reloads token files when they change");
            files::follow(paths, RELOAD_INTERVAL, monitor, stop, load).await?;
        }
        let verifier = oidc.map(Verifier::new);
        Ok(Self { tokens, sessions, verifier, people, worker_tokens, on_loopback })
    }

    /// Returns the path below which the control plane is reached.
    pub(crate) fn base_path(&self) -> &BasePath {
        &self.sessions.cookies.base
    }

    /// Decides without the issuer, if possible. `None` means that the token must be verified with the issuer's keys.
    fn check_locally<B>(
        &self,
        allowed: &[Role],
        request: &http::Request<B>,
    ) -> Option<Result<Admitted, Status>> {
        let tokens = self.tokens.get();
        let has_issuer = self.verifier.is_some() || self.people.is_some();
        if tokens.admin.is_none() && !has_issuer {
            return Some(page::check(request, self.on_loopback).map(|()| Admitted::Other));
        }
        if allowed.contains(&Role::Anonymous) {
            return Some(Ok(Admitted::Other));
        }
        let Some(token) = bearer_token(request.headers()) else {
            return Some(self.check_session(allowed, request, now()));
        };
        if let Some(verified) = self.worker_tokens.verify(token) {
            return Some(match verified {
                Ok(identity) if allowed.contains(&Role::Worker) => Ok(Admitted::Worker(identity)),
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
        match has_issuer {
            _ if tokens.admin == digest => Some(match allowed.contains(&Role::Admin) {
                true => Ok(Admitted::Other),
                false => Err(status::hinted(
                    "ROLE_FORBIDDEN",
                    "the admin may not make this call",
                    "create a token for the worker with `rota admin create-worker-token`",
                )),
            }),
            _ if tokens.viewer == digest => Some(match allowed.contains(&Role::Viewer) {
                true => Ok(Admitted::Viewer),
                false => Err(viewers_only_read()),
            }),
            false => Some(Err(status::error("TOKEN_INVALID", "wrong token"))),
            true => None,
        }
    }

    /// Decides by the cookie of a browser's session.
    fn check_session<B>(
        &self,
        allowed: &[Role],
        request: &http::Request<B>,
        now: Timestamp,
    ) -> Result<Admitted, Status> {
        let mut refused = None;
        let mut values = self.sessions.cookies.values(request.headers());
        let found = values.find_map(|value| match self.sessions.known.find(&value, now) {
            Ok(session) => Some(session),
            Err(ended) => {
                refused.get_or_insert(ended);
                None
            }
        });
        let required = || status::error("TOKEN_REQUIRED", "a token is required");
        let session = found.ok_or_else(|| refused.unwrap_or_else(required))?;
        let reads = request.extensions().get::<HttpMethod>().is_some_and(|method| method.0.is_safe());
        page::check_cookie(request, reads)?;
        let person = match (session.person(), &self.people) {
            (Some(person), Some(people)) => Some(people.permit(Arc::clone(person), allowed)?),
            _ if allowed.contains(&session.role()) => None,
            _ if session.role() == Role::Viewer => return Err(viewers_only_read()),
            _ => return Err(status::error("ROLE_FORBIDDEN", "a browser may not make this call")),
        };
        if let Some(used) = session.record_use(now) {
            let store = self.sessions.store.clone();
            // A use that is not stored counts until a restart.
            spawn("session-use", OnExit::Done, async move { drop(store.apply(vec![used]).await) });
        }
        Ok(Admitted::Session(session, person))
    }

    /// Verifies a token of an issuer, and the role of its subject.
    async fn verify(&self, allowed: &[Role], token: &[u8]) -> Result<Admitted, Status> {
        let is_of = |people: &&Arc<PeopleVerifier>| {
            let issuer = std::str::from_utf8(token).ok().and_then(Oidc::issuer_of);
            self.verifier.is_none() || issuer.as_deref() == Some(people.issuer())
        };
        if let Some(people) = self.people.as_ref().filter(is_of) {
            let (person, expires) = people.person(token).await?;
            let call = people.permit(Arc::new(person), allowed)?;
            return Ok(Admitted::Person(PersonCall { token_expires: Some(expires), ..call }));
        }
        let verifier = self.verifier.as_ref().ok_or_else(|| Status::internal("no issuer is configured"))?;
        let caller = verifier.caller(token).await?;
        if allowed.contains(&caller.role()) {
            return Ok(match caller {
                Caller::Worker(identity) => Admitted::Worker(identity),
                Caller::Operator => Admitted::Operator,
                Caller::Unknown(_) => Admitted::Other,
            });
        }
        let subject = match &caller {
            Caller::Operator => "the operator".to_owned(),
            Caller::Worker(identity) => identity.holder.to_string(),
            Caller::Unknown(subject) => format!("{subject:?}, which has no role,"),
        };
        Err(status::error("ROLE_FORBIDDEN", format!("{subject} may not make this call")))
    }
}

/// A caller that has the required role.
enum Admitted {
    Worker(Identity),
    Operator,
    Viewer,
    /// A person with a token of their issuer.
    Person(PersonCall),
    Session(Arc<BrowserSession>, Option<PersonCall>),
    /// The admin, or a caller that needs no token.
    Other,
}

fn viewers_only_read() -> Status {
    status::hinted(
        "ROLE_FORBIDDEN",
        "a viewer may not make this call",
        "viewers only read: use the admin token to change something",
    )
}

/// Waits until a session ends, and returns the error of its streams.
async fn ended(known: Arc<BrowserSessions>, session: Arc<BrowserSession>) -> Status {
    let why = tokio::select! {
        () = session.ended() => "the session was ended",
        () = known.token_replaced(&session) => "the token of the session was replaced",
        () = tokio::time::sleep(session.ends().since(now())) => "the session has expired",
    };
    status::error("SESSION_ENDED", why)
}

fn set_viewer(headers: &mut http::HeaderMap) {
    headers.insert(ROLE_HEADER, http::HeaderValue::from_static("viewer"));
}

pub(crate) fn bearer_token(headers: &http::HeaderMap) -> Option<&[u8]> {
    let value = headers.get(http::header::AUTHORIZATION)?.as_bytes();
    value.strip_prefix(b"Bearer ").or_else(|| value.strip_prefix(b"bearer "))
}

/// Rejects a call whose caller lacks the required role.
pub(crate) async fn authorize<S: Inner>(
    authenticator: Arc<Authenticator>,
    mut request: http::Request<Body>,
    mut inner: S,
) -> Result<http::Response<Body>, S::Error> {
    let allowed = allowed_roles(request.uri().path());
    let checked = authenticator.check_locally(allowed, &request);
    let checked = match checked {
        Some(checked) => checked,
        None => {
            let token = bearer_token(request.headers()).unwrap_or_default().to_vec();
            // Boxed: the future of each call would be as large, which asks an issuer.
            Box::pin(authenticator.verify(allowed, &token)).await
        }
    };
    let admitted = match checked {
        Ok(admitted) => admitted,
        Err(refused) => return Ok(refused.into_http()),
    };
    match request.extensions().get::<Arc<Peer>>() {
        None => {}
        Some(peer) if allowed.contains(&Role::Anonymous) => peer.called(),
        Some(peer) => peer.authenticated(),
    }
    let (mut is_viewer, mut is_limited, mut session) = (false, false, None);
    let extensions = request.extensions_mut();
    match admitted {
        Admitted::Worker(identity) => drop(extensions.insert(identity)),
        Admitted::Operator => drop(extensions.insert(OperatorCall)),
        Admitted::Viewer => is_viewer = true,
        Admitted::Person(person) => {
            (is_viewer, is_limited) = (person.is_viewer, !person.is_admin);
            extensions.insert(person);
        }
        Admitted::Session(found, person) => {
            is_viewer = found.role() == Role::Viewer;
            extensions.insert(Arc::clone(&found));
            if let Some(person) = person {
                is_limited = !person.is_admin;
                extensions.insert(person);
            }
            session = Some(found);
        }
        Admitted::Other => {}
    }
    if is_viewer || is_limited {
        request.extensions_mut().insert(LimitedCall);
    }
    let mut response = inner.call(request).await?;
    if is_viewer {
        set_viewer(response.headers_mut());
    }
    Ok(match session {
        Some(session) => {
            let known = Arc::clone(&authenticator.sessions.known);
            response.map(|body| cut_off::when(ended(known, session), body))
        }
        None => response,
    })
}
