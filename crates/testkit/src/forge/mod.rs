//! The APIs of forges for one repository, over HTTP, as their public documents describe them: what opens, finds and changes pull and
//! merge requests. They can refuse a token, limit calls, fail, lose an answer, list late, and refer to another host.

mod app;
mod gateway;
mod gitea;
mod github;
mod gitlab;
mod lists;
mod review;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

pub use app::App;
pub use axum::http::Method;
pub use gateway::Gateway;
pub use review::{Check, Comment, HIDDEN};

/// Owner and name of the repository.
pub const PATH: &str = "team/project";
/// Token of the forge in a test cluster.
pub const SITE_TOKEN: &str = "tok-for-the-forge-of-a-cluster";

/// The API that a forge has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    GitHub,
    GitLab,
    Gitea,
}

/// What happens to the next call of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The forge refuses its token.
    Unauthorized,
    /// No more calls for these seconds, with the usual header of the forge.
    Limited(u64),
    /// The same by the time at which calls are possible again, which is now.
    LimitedUntilNow,
    /// The forge fails with an internal error.
    Fails,
    /// The forge does what it is asked for, and its answer is lost.
    Lost,
    /// Open requests are not listed yet.
    ListsNone,
    /// It refers to another address.
    MovedTo(String),
    /// It answers with this many bytes.
    Large(usize),
    /// It forbids the call, with this text.
    Forbids(String),
}

/// A pull or merge request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    pub number: usize,
    pub branch: String,
    pub base: String,
    pub title: String,
    pub body: String,
    pub draft: bool,
    pub labels: Vec<String>,
    pub reviewers: Vec<String>,
    pub closed: bool,
    /// Whether its branch is that of a fork.
    pub of_fork: bool,
    pub author: String,
    /// Last commit of its branch.
    pub commit: String,
    pub checks: Vec<Check>,
    pub comments: Vec<Comment>,
}

/// A running forge. It ends with its process.
#[derive(Debug, Clone)]
pub struct Forge {
    kind: Kind,
    address: SocketAddr,
    site: Arc<Mutex<Site>>,
}

#[derive(Debug)]
struct Site {
    kind: Kind,
    address: SocketAddr,
    token: String,
    app: Option<App>,
    requests: Vec<Opened>,
    faults: Vec<(Method, Fault)>,
    away: bool,
    /// Entries on one page at most, whatever a call asks for.
    page: usize,
    calls: Vec<String>,
    /// Values of the Authorization header.
    authorizations: Vec<String>,
}

/// A call that is allowed.
struct Call<'a> {
    method: &'a Method,
    /// Decoded, without that of the API.
    path: &'a str,
    query: &'a str,
    body: Value,
    authorization: &'a str,
}

type Answer = (StatusCode, Value);

impl Forge {
    /// Starts a forge that accepts this token, at an address of loopback.
    pub async fn start(kind: Kind, token: &str) -> Result<Self> {
        Self::start_at(kind, token, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_at(kind: Kind, token: &str, address: SocketAddr) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let site = Site {
            kind,
            address,
            token: token.to_owned(),
            app: None,
            requests: Vec::new(),
            faults: Vec::new(),
            away: false,
            page: 100,
            calls: Vec::new(),
            authorizations: Vec::new(),
        };
        let site = Arc::new(Mutex::new(site));
        let router = Router::new().fallback(serve).with_state(Arc::clone(&site));
        rota_telemetry::spawn("forge", rota_telemetry::OnExit::Done, async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { kind, address, site })
    }

    /// Returns the address of the API.
    pub fn api(&self) -> String {
        format!("http://{}{}", self.address, self.kind.root())
    }

    /// Has it make tokens for an app.
    pub fn install(&self, app: App) {
        self.site.lock().app = Some(app);
    }

    /// Has the next call of a method meet a fault; several in order.
    pub fn fault(&self, method: Method, fault: Fault) {
        self.site.lock().faults.push((method, fault));
    }

    /// Answers every call as a forge that is being updated, or no longer.
    pub fn set_away(&self, away: bool) {
        self.site.lock().away = away;
    }

    /// Accepts another token from now on, and no longer the one before.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.site.lock().token);
    }

    /// Lists so many entries on one page.
    pub fn set_page(&self, page: usize) {
        self.site.lock().page = page;
    }

    /// Opens a request as a person does.
    pub fn open(&self, opened: Opened) {
        let mut site = self.site.lock();
        let number = site.requests.len() + 1;
        site.requests.push(Opened { number, ..opened });
    }

    /// Changes a request, as people and programs do.
    pub fn change(&self, number: usize, change: impl FnOnce(&mut Opened)) {
        let mut site = self.site.lock();
        if let Some(opened) = site.find(&number.to_string()) {
            change(opened);
        }
    }

    pub fn requests(&self) -> Vec<Opened> {
        self.site.lock().requests.clone()
    }

    /// Returns the calls so far, as `METHOD PATH STATUS`.
    pub fn calls(&self) -> Vec<String> {
        self.site.lock().calls.clone()
    }

    /// Returns the Authorization headers of all calls.
    pub fn authorizations(&self) -> Vec<String> {
        self.site.lock().authorizations.clone()
    }
}

impl Kind {
    fn root(self) -> &'static str {
        match self {
            Self::GitHub => "",
            Self::GitLab => "/api/v4",
            Self::Gitea => "/api/v1",
        }
    }

    /// Returns what a title begins with that is of a draft.
    fn mark(self) -> Option<&'static str> {
        match self {
            Self::GitHub => None,
            Self::GitLab => Some("Draft: "),
            Self::Gitea => Some("WIP: "),
        }
    }
}

impl Site {
    fn accepts(&self, authorization: &str) -> bool {
        let scheme = if self.kind == Kind::Gitea { "token" } else { "Bearer" };
        let given = authorization.strip_prefix(scheme).map(str::trim);
        let made = self.app.as_ref().and_then(App::current);
        given.is_some_and(|given| given == self.token || Some(given) == made.as_deref())
    }

    fn next_fault(&mut self, method: &Method) -> Option<Fault> {
        let at = self.faults.iter().position(|(of, _)| of == method)?;
        Some(self.faults.remove(at).1)
    }

    fn answer(&mut self, call: &Call<'_>) -> Answer {
        if let Some(answer) = review::answer(self, call) {
            return answer;
        }
        match self.kind {
            Kind::GitHub => github::answer(self, call),
            Kind::GitLab => gitlab::answer(self, call),
            Kind::Gitea => gitea::answer(self, call),
        }
    }

    /// Opens a request, unless the branch has one or there is no such base.
    fn create(&mut self, opened: Opened) -> Option<usize> {
        let same = |other: &Opened| !other.closed && !other.of_fork && other.branch == opened.branch;
        if self.requests.iter().any(same) {
            return None;
        }
        self.requests.push(Opened { number: self.requests.len() + 1, ..opened });
        Some(self.requests.len() - 1)
    }

    fn find(&mut self, number: &str) -> Option<&mut Opened> {
        let number: usize = number.parse().ok()?;
        self.requests.get_mut(number.checked_sub(1)?)
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn text(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap_or_default().to_owned()
}

fn texts(body: &Value) -> Vec<String> {
    body.as_array().into_iter().flatten().filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn not_found() -> Answer {
    (StatusCode::NOT_FOUND, json!({"message": "Not Found"}))
}

async fn serve(
    State(site): State<Arc<Mutex<Site>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut site = site.lock();
    let answer = respond(&mut site, &method, &uri, &headers, &body);
    site.calls.push(format!("{method} {} {}", uri.path(), answer.status().as_u16()));
    answer
}

fn respond(site: &mut Site, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let authorization = authorization.unwrap_or_default();
    site.authorizations.push(authorization.to_owned());
    if site.away {
        return plain(StatusCode::BAD_GATEWAY, "being updated");
    }
    if !headers.contains_key(header::USER_AGENT) {
        return plain(StatusCode::FORBIDDEN, "Request forbidden by administrative rules");
    }
    let Some(path) = uri.path().strip_prefix(site.kind.root()) else {
        return plain(StatusCode::NOT_FOUND, "no API");
    };
    let path = percent_decode_str(path).decode_utf8_lossy();
    let makes_token = path.starts_with("/app/");
    let fault = site.next_fault(method);
    match &fault {
        Some(Fault::Unauthorized) => return refused(),
        Some(Fault::Limited(seconds)) => return limited(site.kind, Some(*seconds)),
        Some(Fault::LimitedUntilNow) => return limited(site.kind, None),
        Some(Fault::Fails) => return plain(StatusCode::INTERNAL_SERVER_ERROR, "<html>sorry</html>"),
        Some(Fault::MovedTo(url)) => {
            let answer =
                Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header(header::LOCATION, url);
            return answer.body(Body::empty()).unwrap_or_default();
        }
        Some(Fault::Large(bytes)) => return plain(StatusCode::OK, &"[".repeat(*bytes)),
        Some(Fault::Forbids(text)) => return plain(StatusCode::FORBIDDEN, text),
        Some(Fault::Lost | Fault::ListsNone) | None => {}
    }
    if !makes_token && !site.accepts(authorization) {
        return refused();
    }
    let query = uri.query().unwrap_or_default();
    let body = serde_json::from_slice(body).unwrap_or_default();
    let call = Call { method, path: &path, query, body, authorization };
    let (status, mut answer) = site.answer(&call);
    match fault {
        Some(Fault::Lost) => return plain(StatusCode::BAD_GATEWAY, "lost"),
        Some(Fault::ListsNone) if answer.is_array() => answer = json!([]),
        _ => {}
    }
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    if method == Method::GET {
        match lists::cut(site, &uri.path()[site.kind.root().len()..], query, &mut answer) {
            Ok(links) => {
                response = links.into_iter().fold(response, |made, links| made.header(header::LINK, links))
            }
            Err(reason) => return plain(StatusCode::BAD_REQUEST, &reason),
        }
    }
    let text = answer.to_string();
    let tag = format!("\"{:016x}\"", review::hash(&text));
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return plain(StatusCode::NOT_MODIFIED, "");
    }
    response.header(header::ETAG, tag).body(Body::from(text)).unwrap_or_default()
}

fn plain(status: StatusCode, text: &str) -> Response {
    Response::builder().status(status).body(Body::from(text.to_owned())).unwrap_or_default()
}

fn refused() -> Response {
    plain(StatusCode::UNAUTHORIZED, r#"{"message":"Bad credentials"}"#)
}

/// Answers as GitHub does, with 403, or as the others do, with 429: with the time to wait, or that of the next call.
fn limited(kind: Kind, seconds: Option<u64>) -> Response {
    let status = if kind == Kind::GitHub { StatusCode::FORBIDDEN } else { StatusCode::TOO_MANY_REQUESTS };
    let now = rota_telemetry::clock::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut answer = Response::builder().status(status);
    answer = match seconds {
        Some(seconds) => answer.header(header::RETRY_AFTER, seconds),
        None => answer.header("x-ratelimit-remaining", 0).header("x-ratelimit-reset", now.as_secs()),
    };
    answer.body(Body::from(r#"{"message":"API rate limit exceeded"}"#)).unwrap_or_default()
}
