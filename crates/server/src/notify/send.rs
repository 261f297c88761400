//! One delivery over HTTP, and what the answer of a receiver means. Knows no queue.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};
use rota_core::text::prefix;

use super::address::Guarded;
use super::message::Notification;
use super::receivers::{Format, Receiver};
use crate::clock::now;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a receiver to answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait that a receiver is granted.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(300);
/// Bytes of an answer that are read.
const MAX_ANSWER: usize = 512;
/// Bytes of a part of a URL that is left out of answers; shorter ones occur by chance.
const MIN_SECRET: usize = 6;
/// Answers about the message. Others are about the receiver, its URL or its keys, which may be replaced.
const REFUSALS: [StatusCode; 4] = [
    StatusCode::BAD_REQUEST,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::UNPROCESSABLE_ENTITY,
];

/// What the failure of a delivery is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The receiver refuses this notification.
    Message,
    /// The receiver failed while it handled this notification.
    Either,
    /// The receiver, its URL or its keys: others fail as well.
    Receiver,
}

/// Why a notification was not accepted.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) message: String,
    pub(super) about: About,
    /// How long the receiver wants to be left alone.
    pub(super) after: Option<Duration>,
}

impl Unsent {
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self { message: message.into(), about: About::Receiver, after: None }
    }
}

fn about(status: StatusCode) -> About {
    if REFUSALS.contains(&status) {
        About::Message
    } else if status == StatusCode::INTERNAL_SERVER_ERROR {
        About::Either
    } else {
        About::Receiver
    }
}

/// Sends a notification to its receiver once, without retries.
pub(super) async fn send(client: &Client, receiver: &Receiver, one: &Notification) -> Result<(), Unsent> {
    // Small files, read again so that they can be replaced.
    let files = receiver.clone();
    let read = tokio::task::spawn_blocking(move || (files.url(), files.keys())).await;
    let (url, keys) = read.map_err(|error| Unsent::unavailable(error.to_string()))?;
    let (url, keys) = (url.map_err(Unsent::unavailable)?, keys.map_err(Unsent::unavailable)?);
    let link = receiver.link(one);
    let body = match receiver.format {
        Format::Webhook => one.webhook(link.as_deref()),
        Format::Slack => one.slack(link.as_deref()),
    };
    let body = body.to_string();
    let mut request = client.post(url.clone()).header(CONTENT_TYPE, "application/json");
    if let Some(keys) = keys {
        let (id, timestamp) = (one.id(), now().0.div_euclid(1_000_000));
        request = request
            .header("webhook-signature", keys.sign(id, timestamp, body.as_bytes()))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp);
    }
    let response = request.body(body).send().await.map_err(|error| Unsent::unavailable(cause(&error)))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let after = wait_of(&response);
    let text = tokio::time::timeout(CONNECT_TIMEOUT, beginning(response)).await.unwrap_or_default();
    let text = without_url(text, &url);
    let message = if text.is_empty() {
        format!("it answered {status}")
    } else {
        format!("it answered {status}: {text}")
    };
    Err(Unsent { message, about: about(status), after })
}

/// Returns how long the receiver wants to be left alone.
fn wait_of(response: &Response) -> Option<Duration> {
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    after.map(Duration::from_secs).map(|after| after.min(MAX_WAIT))
}

/// Returns the beginning of an answer, in one line.
async fn beginning(mut response: Response) -> String {
    let mut read = Vec::new();
    while read.len() < MAX_ANSWER
        && let Ok(Some(chunk)) = response.chunk().await
    {
        let room = MAX_ANSWER - read.len();
        read.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
    }
    let text = String::from_utf8_lossy(&read);
    let visible = |char: char| if char.is_control() { ' ' } else { char };
    prefix(text.trim(), MAX_ANSWER).chars().map(visible).collect()
}

/// Removes the path and the query of a URL from an answer, which may be a secret: many receivers name what they do not know.
fn without_url(text: String, url: &Url) -> String {
    let segments = url.path_segments().into_iter().flatten();
    let values: Vec<_> = url.query_pairs().map(|(_, value)| value.into_owned()).collect();
    let mut secrets: Vec<_> = [url.path(), url.query().unwrap_or_default()]
        .into_iter()
        .chain(segments)
        .chain(values.iter().map(String::as_str))
        .filter(|part| part.len() >= MIN_SECRET)
        .collect();
    secrets.sort_by_key(|part| std::cmp::Reverse(part.len()));
    // The end of the answer may be the beginning of a secret.
    let begun = secrets
        .iter()
        .flat_map(|secret| (MIN_SECRET..secret.len()).filter_map(|at| secret.get(..at)))
        .filter(|part| text.ends_with(part))
        .max_by_key(|part| part.len());
    let whole = match begun.and_then(|part| text.strip_suffix(part)) {
        Some(kept) => format!("{kept}[URL]"),
        None => text,
    };
    secrets.iter().fold(whole, |text, secret| text.replace(secret, "[URL]"))
}

/// Returns the last cause of a failed request. Neither it nor the first ones name the URL, which may be a secret.
pub(super) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut cause = error.source();
    while let Some(next) = cause.and_then(|error| error.source()) {
        cause = Some(next);
    }
    cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}

pub(super) fn client(receiver: &Receiver) -> Result<Client, String> {
    match receiver.allow_link_local {
        true => build(builder(), receiver.ca.as_deref()),
        false => guarded_client(receiver.ca.as_deref()),
    }
}

/// Returns a client that calls no address that is refused.
pub(super) fn guarded_client(ca: Option<&Path>) -> Result<Client, String> {
    // A proxy of the environment would resolve the names of receivers, and reach what is refused.
    build(builder().dns_resolver(Arc::new(Guarded)).no_proxy(), ca)
}

fn builder() -> ClientBuilder {
    Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("rota/", env!("CARGO_PKG_VERSION")))
}

fn build(mut builder: ClientBuilder, ca: Option<&Path>) -> Result<Client, String> {
    if let Some(path) = ca {
        let pem = std::fs::read(path).map_err(|error| format!("has an unreadable ca: {error}"))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| format!("has an invalid ca: {error}"))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| format!("cannot be called: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_about_the_message_refuse_it() {
        for status in [400, 413, 415, 422] {
            assert_eq!(about(StatusCode::from_u16(status).unwrap()), About::Message, "{status}");
        }
        for status in [301, 307, 401, 403, 404, 408, 410, 425, 429, 502, 503] {
            assert_eq!(about(StatusCode::from_u16(status).unwrap()), About::Receiver, "{status}");
        }
    }

    #[test]
    fn answers_name_no_part_of_the_url() {
        let url = Url::parse("https://hooks.example/services/T0/B0SECRET/x?token=hunter22").unwrap();
        for (answer, shown) in [
            ("Cannot POST /services/T0/B0SECRET/x?token=hunter22", "Cannot POST [URL]?[URL]"),
            ("no hook B0SECRET", "no hook [URL]"),
            ("invalid token hunter22!", "invalid token [URL]!"),
            ("The requested URL /services/T0/B0SEC", "The requested URL [URL]"),
            ("invalid_payload", "invalid_payload"),
        ] {
            assert_eq!(without_url(answer.to_owned(), &url), shown);
        }
    }
}
