//! Sign-in of browsers at the issuer of people: the code flow of OpenID Connect with PKCE. What belongs to a sign-in that has begun is
//! in a sealed cookie of the browser, so that nothing is kept for those who do not come back. What anonymous callers cause at the issuer
//! and in the log is bounded. Knows no page but its own two addresses.

mod fetched;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, HOST, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use rota_core::Timestamp;
use rota_oidc::{Client, Error, Http, Provider};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tonic::body::Body;
use url::Url;
use url::form_urlencoded::parse;

use self::fetched::Fetched;
use crate::base_path::BasePath;
use crate::clock::now;
use crate::grpc::BrowserSessionAdmin;
use crate::seal::Sealer;
use crate::trust::accept::Peer;
use crate::trust::cookies::SessionCookie;
use crate::trust::people::{NotSignedIn, PeopleVerifier};

/// Path at which a sign-in begins.
const START: &str = "/sign-in";
const CALLBACK: &str = "/sign-in/callback";
/// Parameter of an address that a browser was sent to because it had begun at another one.
const RESTARTED: &str = "again";
/// Time for which a person may be at the issuer.
const LIFETIME: Duration = Duration::from_secs(600);
/// Sign-ins whose code is redeemed at the same time.
const MAX_REDEEMING: usize = 8;
/// Sign-ins that are known to have come back, beyond which the oldest is forgotten.
const MAX_USED: usize = 4096;
/// Time between warnings of sign-ins that the issuer refuses.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of the address that a person comes back to.
const MAX_TARGET: usize = 1024;

/// Signs browsers in at the issuer of people.
pub(crate) struct CodeFlow {
    people: Arc<PeopleVerifier>,
    /// Address at which browsers reach the control plane.
    page: Url,
    sessions: Arc<BrowserSessionAdmin>,
    sealer: Arc<Sealer>,
    /// The issuer's endpoints. Held while they are fetched.
    client: Mutex<Fetched<Client>>,
    used: Used,
    redeeming: Semaphore,
    warned: parking_lot::Mutex<Option<Instant>>,
}

/// Sign-ins that have come back, by expiry and state: each does once, since another visit would be another request to the issuer.
#[derive(Default)]
struct Used(parking_lot::Mutex<BTreeSet<(Timestamp, String)>>);

impl Used {
    /// Notes a sign-in. Returns whether it comes back for the first time.
    fn insert(&self, expires: Timestamp, state: &str, now: Timestamp) -> bool {
        let mut used = self.0.lock();
        while used.first().is_some_and(|(expires, _)| *expires <= now) {
            used.pop_first();
        }
        let is_new = used.insert((expires, state.to_owned()));
        if used.len() > MAX_USED {
            used.pop_first();
        }
        is_new
    }
}

/// A sign-in that has begun.
#[derive(Serialize, Deserialize)]
struct Begun {
    state: String,
    nonce: String,
    verifier: String,
    target: String,
    expires: i64,
}

/// Why a browser is not signed in, as a word for the page: it shows no text of an address.
type Refusal = &'static str;

impl CodeFlow {
    /// Returns the flow, if browsers can use it.
    pub(crate) fn new(
        people: Option<&Arc<PeopleVerifier>>,
        sessions: &Arc<BrowserSessionAdmin>,
        sealer: &Arc<Sealer>,
    ) -> Option<Arc<Self>> {
        let people = people?;
        let page = people.sign_in().page.clone()?;
        Some(Arc::new(Self {
            people: Arc::clone(people),
            page,
            sessions: Arc::clone(sessions),
            sealer: Arc::clone(sealer),
            client: Mutex::default(),
            used: Used::default(),
            redeeming: Semaphore::new(MAX_REDEEMING),
            warned: parking_lot::Mutex::default(),
        }))
    }

    async fn client(&self) -> Result<Client, Refusal> {
        let discover = async {
            self.discover().await.inspect_err(|error| {
                tracing::warn!(%error, "the endpoints of the issuer of people could not be fetched");
            })
        };
        self.client.lock().await.get(discover).await.ok_or("issuer")
    }

    /// Whether a warning that anonymous callers can cause is due.
    fn may_warn(&self) -> bool {
        let mut last = self.warned.lock();
        let is_due = last.is_none_or(|at| at.elapsed() >= WARN_INTERVAL);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }

    async fn discover(&self) -> Result<Client, Error> {
        let sign_in = self.people.sign_in();
        let ca = match self.people.ca() {
            Some(path) => Some(tokio::fs::read(path).await.map_err(|error| {
                Error::Unavailable(format!("failed to read {}: {error}", path.display()))
            })?),
            None => None,
        };
        let http = Http::new(ca.as_deref())?;
        let provider = Provider::discover(&http, self.people.issuer(), None).await?;
        Client::new(http, &provider, &sign_in.client_id, sign_in.client_secret.as_ref(), &sign_in.scopes)
    }

    fn base(&self) -> &BasePath {
        &self.sessions.cookies.base
    }

    /// Returns the path at which a browser begins.
    pub(crate) fn path(&self) -> String {
        format!("{}{START}", self.base().as_str())
    }

    fn callback(&self) -> String {
        format!("{}{CALLBACK}", self.page.as_str().trim_end_matches('/'))
    }

    fn cookie(&self) -> SessionCookie {
        self.sessions.cookies.of_page(&self.page)
    }

    /// Sends a browser to the issuer.
    async fn start(&self, request: &Request<()>) -> Response<Body> {
        let target = of_query(request, "to").filter(|target| is_own_path(target, self.base()));
        let target = target.unwrap_or_else(|| format!("{}/", self.base().as_str()));
        if !self.is_at_page(request) && of_query(request, RESTARTED).is_none() {
            // The cookie would be one of another host. Only once: a proxy may pass any host on.
            let mut page = self.page.clone();
            page.set_path(&self.path());
            page.query_pairs_mut().append_pair("to", &target).append_pair(RESTARTED, "1");
            return redirect(page.as_str(), &[]);
        }
        match self.begin(target).await {
            Ok((url, cookie)) => redirect(url.as_str(), &[cookie]),
            Err(refusal) => self.refuse(refusal, &[]),
        }
    }

    async fn begin(&self, target: String) -> Result<(Url, String), Refusal> {
        let to = self.client().await?.authorize(&self.callback()).map_err(|error| {
            tracing::warn!(%error, "people cannot sign in");
            "issuer"
        })?;
        let begun = Begun {
            state: to.state,
            nonce: to.nonce,
            verifier: to.verifier.expose_secret().to_owned(),
            target,
            expires: (now() + LIFETIME).0,
        };
        let plain = serde_json::to_vec(&begun).map_err(|_| "issuer")?;
        let sealed = self.sealer.seal_sign_in(&plain).map_err(|_| "issuer")?;
        Ok((to.url, self.cookie().set_flow(&BASE64_URL_SAFE_NO_PAD.encode(sealed), LIFETIME)))
    }

    /// Signs a browser in that comes back from the issuer.
    async fn finish(&self, request: &Request<()>) -> Response<Body> {
        let removed = self.cookie().set_flow("", Duration::ZERO);
        match self.sign_in(request).await {
            Ok((target, cookie)) => redirect(&target, &[removed, cookie]),
            Err(refusal) => self.refuse(refusal, &[removed]),
        }
    }

    fn refuse(&self, refusal: Refusal, cookies: &[String]) -> Response<Body> {
        redirect(&format!("{}/#refused={refusal}", self.base().as_str()), cookies)
    }

    async fn sign_in(&self, request: &Request<()>) -> Result<(String, String), Refusal> {
        let value = self.cookie().flow(request.headers()).ok_or("expired")?;
        let plain =
            BASE64_URL_SAFE_NO_PAD.decode(value).ok().and_then(|sealed| self.sealer.open_sign_in(&sealed));
        let begun: Begun = plain.and_then(|plain| serde_json::from_slice(&plain).ok()).ok_or("expired")?;
        if Timestamp(begun.expires) <= now() {
            return Err("expired");
        }
        if of_query(request, "state").as_ref() != Some(&begun.state) {
            return Err("state");
        }
        if let Some(error) = of_query(request, "error") {
            if self.may_warn() {
                tracing::info!(error, "the issuer has refused a sign-in");
            }
            return Err("denied");
        }
        let code = of_query(request, "code").ok_or("state")?;
        let client = self.client().await?;
        let redeeming = self.redeeming.try_acquire().map_err(|_| "later")?;
        if !self.used.insert(Timestamp(begun.expires), &begun.state, now()) {
            return Err("expired");
        }
        let verifier = SecretString::from(begun.verifier);
        let tokens = client.redeem(&self.callback(), &code, &verifier).await;
        drop(redeeming);
        let tokens = tokens.map_err(|error| {
            if self.may_warn() {
                tracing::warn!(%error, "the issuer gives no token for a sign-in");
            }
            "issuer"
        })?;
        let person = self.people.sign_in_with(tokens.id_token.expose_secret().as_bytes(), &begun.nonce).await;
        let person = person.map_err(|error| match error {
            NotSignedIn::Nonce => "nonce",
            NotSignedIn::Token(status) => {
                tracing::warn!(error = status.message(), "the issuer's token is refused");
                "issuer"
            }
            NotSignedIn::Unlisted(person) => {
                tracing::warn!(subject = person.subject, "a person who is not on the list has signed in");
                "unlisted"
            }
        })?;
        let cookie = self.sessions.sign_in(&person, request.headers(), &self.cookie()).await;
        let cookie = cookie.map_err(|error| {
            tracing::warn!(error = error.message(), "a browser session cannot be created");
            "session"
        })?;
        Ok((begun.target, cookie))
    }

    /// Whether a call is for the address that the issuer sends browsers back to.
    fn is_at_page(&self, request: &Request<()>) -> bool {
        let header = || request.headers().get(HOST)?.to_str().ok();
        let host = request.uri().authority().map(|authority| authority.as_str()).or_else(header);
        host.is_some_and(|host| host.eq_ignore_ascii_case(self.page.authority()))
    }
}

/// Returns the last value of a parameter.
fn of_query(request: &Request<()>, name: &str) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    parse(query.as_bytes()).filter(|(key, _)| key == name).last().map(|(_, value)| value.into_owned())
}

/// Whether an address is one of this server's own pages.
fn is_own_path(target: &str, base: &BasePath) -> bool {
    let is_path = target.starts_with('/') && !target[1..].starts_with(['/', '\\']);
    // As browsers resolve it: `/rota/../` leads out of `/rota`.
    let resolved = || Url::parse("http://localhost")?.join(target);
    is_path
        && resolved().is_ok_and(|url| base.contains(url.path()))
        && target.len() <= MAX_TARGET
        && target.bytes().all(|byte| byte.is_ascii_graphic())
}

fn redirect(to: &str, cookies: &[String]) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(to) = HeaderValue::from_str(to) {
        headers.insert(LOCATION, to);
    }
    for cookie in cookies.iter().filter_map(|cookie| HeaderValue::from_str(cookie).ok()) {
        headers.append(SET_COOKIE, cookie);
    }
    response
}

/// Answers `GET` of the two addresses, and passes everything else on.
pub(crate) async fn answer(
    flow: Option<Arc<CodeFlow>>,
    request: Request<Body>,
) -> Result<Request<Body>, Response<Body>> {
    let path = request.uri().path();
    let (is_start, is_end) = (path == START, path == CALLBACK);
    let is_own = request.method() == Method::GET && (is_start || is_end);
    let Some(flow) = flow.filter(|_| is_own) else { return Ok(request) };
    let (parts, _) = request.into_parts();
    if let Some(peer) = parts.extensions.get::<Arc<Peer>>() {
        peer.called();
    }
    let request = Request::from_parts(parts, ());
    // Boxed: the future of each call would be as large as these.
    Err(if is_start { Box::pin(flow.start(&request)).await } else { Box::pin(flow.finish(&request)).await })
}

#[cfg(test)]
mod tests;
