//! Calls of a forge's API over HTTP: retries, limits, pages and redirects. Knows no forge: what they do differently is the dialect's.

mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Method, Response, StatusCode, redirect};
use rota_telemetry::redact::Redactor;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

pub(crate) use pages::Entries;

use crate::dialect::Dialect;
use crate::{Error, TokenSource};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_RESPONSE: usize = 8 << 20;
const MAX_PAGES: usize = 20;
const MAX_REDIRECTS: usize = 5;
/// Bytes of a message of a forge.
const MAX_MESSAGE: usize = 1 << 10;
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Longest wait that a forge can ask for. Callers have given up by then.
const MAX_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How hosts are reached. Proxies are those of the environment.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Certificates that are trusted instead of the machine's, in PEM.
    pub ca: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    dialect: &'static dyn Dialect,
    api: Url,
    tokens: Arc<dyn TokenSource>,
    /// When calls are no longer repeated.
    until: Instant,
}

/// What an answer means that is no success.
enum Answer {
    /// The forge refuses the token.
    Unauthorized(String),
    /// To be tried again, after this time if the forge names one.
    Later(Option<Duration>, String),
    Final(StatusCode, String),
}

impl Http {
    pub(crate) fn new(
        dialect: &'static dyn Dialect,
        api: Url,
        tokens: Arc<dyn TokenSource>,
        settings: &Settings,
        patience: Duration,
    ) -> Result<Self, Error> {
        let client = client(settings)?;
        Ok(Self { client, dialect, api, tokens, until: Instant::now() + patience })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.send(Method::GET, path, None::<&()>).await
    }

    /// Returns all entries of a list, whose pages stay at the host.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Error> {
        let (mut all, mut next) = (Vec::new(), Some(self.url(&self.sized(path))?));
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(all) };
            let response = self.call(Method::GET, url, None::<&()>, None).await?.map_err(refused)?;
            next = linked(response.headers(), "next").filter(|url| url.origin() == self.api.origin());
            all.append(&mut json(response).await?);
        }
        Err(Error::Refused(format!("the forge lists more than {MAX_PAGES} pages")))
    }

    /// Calls with a body, and returns the answer.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Error> {
        json(self.call(method, self.url(path)?, body, None).await?.map_err(refused)?).await
    }

    /// Creates something. Returns none if the answer is that it exists.
    pub(crate) async fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        exists: impl Fn(StatusCode, &str) -> bool,
    ) -> Result<Option<T>, Error> {
        match self.call(Method::POST, self.url(path)?, Some(body), None).await? {
            Ok(response) => Ok(Some(json(response).await?)),
            Err((status, text)) if exists(status, &text) => Ok(None),
            Err(failed) => Err(refused(failed)),
        }
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        self.api.join(path).map_err(|error| Error::Refused(format!("{path} is no path: {error}")))
    }

    /// Calls until there is an answer that another call would not change. With a `tag`, it may be that the page still has that one.
    async fn call(
        &self,
        method: Method,
        url: Url,
        body: Option<&(impl Serialize + Sync)>,
        tag: Option<&HeaderValue>,
    ) -> Result<Result<Response, (StatusCode, String)>, Error> {
        let reread = AtomicBool::new(false);
        let backoff = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(MIN_BACKOFF)
            .with_max_delay(MAX_BACKOFF)
            .without_max_times();
        let attempt = || self.attempt(&method, &url, body, tag, &reread);
        let answer = attempt
            .retry(backoff)
            .sleep(tokio::time::sleep)
            .when(|error| matches!(error, Error::Away(..)))
            .adjust(|error, wait| {
                let wait = match error {
                    // Every caller is asked to wait for the same moment: each comes a different while after it.
                    Error::Away(_, Some(asked)) => asked.saturating_add(wait?),
                    _ => wait?,
                };
                (Instant::now() + wait <= self.until).then_some(wait)
            })
            .notify(|error, wait| tracing::debug!(reason = %error, ?wait, "calling the forge again"));
        answer.await.map_err(|error| match error {
            Error::Away(text, Some(asked)) => {
                Error::Away(format!("{text}; the next call would be in {} s", asked.as_secs()), Some(asked))
            }
            error => error,
        })
    }

    /// Calls once, and again if the forge has refused a token that was not `reread`.
    async fn attempt(
        &self,
        method: &Method,
        url: &Url,
        body: Option<&(impl Serialize + Sync)>,
        tag: Option<&HeaderValue>,
        reread: &AtomicBool,
    ) -> Result<Result<Response, (StatusCode, String)>, Error> {
        loop {
            let is_new = reread.load(Ordering::Relaxed);
            let token = self.tokens.token(is_new).await?;
            match self.once(method.clone(), url.clone(), body, tag, &token).await {
                Ok(response) => return Ok(Ok(response)),
                Err(Answer::Unauthorized(_)) if !is_new => reread.store(true, Ordering::Relaxed),
                Err(Answer::Unauthorized(text)) => return Err(Error::Credentials(text)),
                Err(Answer::Final(status, text)) => return Ok(Err((status, text))),
                Err(Answer::Later(wait, text)) => return Err(Error::Away(text, wait)),
            }
        }
    }

    async fn once(
        &self,
        method: Method,
        mut url: Url,
        body: Option<&(impl Serialize + Sync)>,
        tag: Option<&HeaderValue>,
        token: &SecretString,
    ) -> Result<Response, Answer> {
        for _ in 0..MAX_REDIRECTS {
            let mut request = self
                .client
                .request(method.clone(), url.clone())
                .header(header::AUTHORIZATION, self.authorization(token)?);
            for (name, value) in self.dialect.headers() {
                request = request.header(*name, *value);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            if let Some(tag) = tag {
                request = request.header(header::IF_NONE_MATCH, tag);
            }
            let response = request.send().await.map_err(|error| Answer::Later(None, cause(&error)))?;
            let Some(next) = location(&response) else { return self.classify(response, token).await };
            if next.origin() != self.api.origin() {
                let host = next.host_str().unwrap_or_default();
                let text =
                    format!("{} refers to another host, {host}, which does not get the token", self.host());
                return Err(Answer::Final(response.status(), text));
            }
            url = next;
        }
        Err(Answer::Final(StatusCode::LOOP_DETECTED, format!("{} redirects in a circle", self.host())))
    }

    fn authorization(&self, token: &SecretString) -> Result<HeaderValue, Answer> {
        let text = bare(token);
        let scheme = self.dialect.scheme();
        let invalid =
            |_| Answer::Final(StatusCode::UNAUTHORIZED, "the token has characters that none has".to_owned());
        let mut value = HeaderValue::try_from(format!("{scheme} {text}")).map_err(invalid)?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn host(&self) -> &str {
        self.api.host_str().unwrap_or_default()
    }

    /// Returns what an answer means.
    async fn classify(&self, response: Response, token: &SecretString) -> Result<Response, Answer> {
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let wait = asked_wait(response.headers());
        let text = format!("{} answers {}: {}", self.host(), status.as_u16(), message(response, token).await);
        Err(match status {
            StatusCode::UNAUTHORIZED => Answer::Unauthorized(text),
            StatusCode::TOO_MANY_REQUESTS => Answer::Later(wait, text),
            StatusCode::FORBIDDEN if wait.is_some() || text.contains("rate limit") => {
                Answer::Later(wait, text)
            }
            StatusCode::REQUEST_TIMEOUT => Answer::Later(None, text),
            _ if status.is_server_error() => Answer::Later(wait, text),
            _ => Answer::Final(status, text),
        })
    }
}

/// Returns a client that follows no redirect: none takes a token to another host.
pub(crate) fn client(settings: &Settings) -> Result<Client, Error> {
    let failed = |error: reqwest::Error| Error::Refused(format!("the client of the forge: {error}"));
    let mut builder = Client::builder()
        .timeout(REQUEST_TIMEOUT)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("rota/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = &settings.ca {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(failed)?);
    }
    builder.build().map_err(failed)
}

fn refused((status, text): (StatusCode, String)) -> Error {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Credentials(text),
        _ => Error::Refused(text),
    }
}

/// Returns how long a forge asks to wait: by `Retry-After`, or until the limit is new if nothing of it remains.
pub(crate) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    if let Some(seconds) = number("retry-after") {
        return Some(Duration::from_secs(seconds).min(MAX_WAIT));
    }
    let remaining = number("x-ratelimit-remaining").or_else(|| number("ratelimit-remaining"))?;
    let reset = number("x-ratelimit-reset").or_else(|| number("ratelimit-reset"))?;
    let now = rota_telemetry::clock::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    // A second more, since both clocks are cut.
    (remaining == 0).then(|| Duration::from_secs(reset.saturating_add(1)).saturating_sub(now).min(MAX_WAIT))
}

/// Returns where a redirect leads.
fn location(response: &Response) -> Option<Url> {
    if !response.status().is_redirection() {
        return None;
    }
    response.url().join(response.headers().get(header::LOCATION)?.to_str().ok()?).ok()
}

/// Returns the next or the last page of a list, as the header `Link` has it.
fn linked(headers: &HeaderMap, rel: &str) -> Option<Url> {
    let links = headers.get(header::LINK)?.to_str().ok()?;
    let rel = format!("rel=\"{rel}\"");
    let link = links.split(',').find(|link| link.contains(&rel))?;
    Url::parse(link.split_once('<')?.1.split_once('>')?.0).ok()
}

async fn body(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| Error::Away(cause(&error), None))? {
        all.extend_from_slice(&piece);
        if all.len() > MAX_RESPONSE {
            return Err(Error::Refused(format!("the forge answers with more than {MAX_RESPONSE} bytes")));
        }
    }
    Ok(all)
}

pub(crate) async fn json<T: DeserializeOwned>(response: Response) -> Result<T, Error> {
    parse(&body(response).await?)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body)
        .map_err(|error| Error::Refused(format!("the forge answers what its API does not: {error}")))
}

/// Returns the message of an error, in one of the forms of the three forges. Some, and proxies before them, repeat the call, with
/// its token.
async fn message(response: Response, token: &SecretString) -> String {
    let body = body(response).await.unwrap_or_default();
    let mut text = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(serde_json::Value::Object(fields)) => {
            let parts = ["message", "error", "error_description", "errors"]
                .iter()
                .filter_map(|name| fields.get(*name));
            let texts = parts.map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned));
            texts.collect::<Vec<_>>().join(": ")
        }
        _ => String::from_utf8_lossy(&body).into_owned(),
    };
    // Before the cut, which could leave a part of it.
    Redactor::new([token.expose_secret(), bare(token)]).text(&mut text);
    cut(text.trim(), MAX_MESSAGE).to_owned()
}

/// Returns the token of a secret that may have a user before it, as git takes it.
fn bare(token: &SecretString) -> &str {
    let text = token.expose_secret().trim();
    text.split_once(':').map_or(text, |(_, token)| token)
}

/// Returns the beginning of a text.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let host = error.url().and_then(Url::host_str).unwrap_or("the forge");
    format!("{host} does not respond: {innermost}")
}
