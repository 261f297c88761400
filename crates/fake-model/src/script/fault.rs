//! Faults of an answer, and how often they happen. Must not know how they are encoded.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Raw")]
pub(crate) struct Fault {
    /// Number of requests that it affects before the next fault or the answer follows.
    pub(crate) times: Times,
    pub(crate) kind: FaultKind,
}

/// Number of requests that a fault affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// This many; 1 by default.
    Count(u32),
    Always,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// An error status instead of an answer.
    Status {
        status: u16,
        retry_after: Option<u64>,
        should_retry: Option<bool>,
        message: Option<String>,
        /// Limit of a subscription that was reached.
        limit: Option<Limit>,
    },
    /// The connection is cut after the headers and this many events.
    DropAfter(usize),
    /// Nothing more is sent after the headers and this many events, until either side closes the connection.
    HangAfter(usize),
    /// The answer violates the format.
    Malformed(Malformed),
    /// The stream starts, then ends with an `error` event of this type, such as `overloaded_error`.
    StreamError(String),
}

/// Limit of a subscription, as the `anthropic-ratelimit-unified-*` headers report it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// Name of the limit, such as `five_hour`.
    pub(crate) name: String,
    pub(crate) resets_in: u64,
}

/// Violation of the answer's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Malformed {
    /// An event with invalid JSON.
    Json,
    /// Events of a block that was not started.
    Order,
    /// A proper end without the last events.
    Truncated,
    /// A proper end without any event.
    Empty,
    /// An HTML page, as from a proxy.
    Html,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default, deserialize_with = "times")]
    times: Option<Times>,
    status: Option<u16>,
    retry_after: Option<u64>,
    should_retry: Option<bool>,
    message: Option<String>,
    limit: Option<Limit>,
    drop_after: Option<usize>,
    hang_after: Option<usize>,
    malformed: Option<Malformed>,
    stream_error: Option<String>,
}

impl TryFrom<Raw> for Fault {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        let Raw { times, status, retry_after, should_retry, message, limit, .. } = raw;
        let details = [retry_after.is_some(), should_retry.is_some(), message.is_some(), limit.is_some()];
        if status.is_none() && details.contains(&true) {
            return Err("retry_after, should_retry, message and limit require status");
        }
        let kinds = [
            status.map(|status| FaultKind::Status { status, retry_after, should_retry, message, limit }),
            raw.drop_after.map(FaultKind::DropAfter),
            raw.hang_after.map(FaultKind::HangAfter),
            raw.malformed.map(FaultKind::Malformed),
            raw.stream_error.map(FaultKind::StreamError),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let kind = kinds
            .next()
            .ok_or("a fault needs one of status, drop_after, hang_after, malformed, stream_error")?;
        if kinds.next().is_some() {
            return Err(
                "a fault must have only one of status, drop_after, hang_after, malformed, stream_error",
            );
        }
        if matches!(kind, FaultKind::Status { status, .. } if !(400..=599).contains(&status)) {
            return Err("the status of a fault must be 400 to 599");
        }
        Ok(Self { times: times.unwrap_or(Times::Count(1)), kind })
    }
}

fn times<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Times>, D::Error> {
    match Value::deserialize(from)? {
        Value::String(word) if word == "always" => Ok(Some(Times::Always)),
        other => u32::deserialize(other)
            .map(|count| Some(Times::Count(count)))
            .map_err(|_| D::Error::custom("times must be a number or \"always\"")),
    }
}

/// Accepts `"fail": {…}` as short for `"fail": [{…}]`. By way of a value: the errors of an untagged enum have no detail.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Fault>, D::Error> {
    let value = Value::deserialize(from)?;
    if value.is_array() {
        Vec::deserialize(value).map_err(D::Error::custom)
    } else {
        Fault::deserialize(value).map(|fault| vec![fault]).map_err(D::Error::custom)
    }
}
