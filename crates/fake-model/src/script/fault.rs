//! What can go wrong with an answer, and how often. Must not know how it is put on the wire.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One fault of a step.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Raw")]
pub(crate) struct Fault {
    /// How often it happens before the next fault, or the answer, has its turn.
    pub(crate) times: Times,
    /// What happens.
    pub(crate) kind: FaultKind,
}

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// So many times; 1 is the default.
    Count(u32),
    /// Every time.
    Always,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// An error status instead of an answer.
    Status {
        /// 400 to 599.
        status: u16,
        /// The `retry-after` header, in seconds.
        retry_after: Option<u64>,
        /// The `x-should-retry` header.
        should_retry: Option<bool>,
        /// The error's text.
        message: Option<String>,
    },
    /// The headers and so many events, then the connection is cut.
    DropAfter(usize),
    /// The headers and so many events, then nothing until the server or the client ends it.
    HangAfter(usize),
    /// An answer that breaks the format.
    Malformed(Malformed),
    /// The stream starts, then ends with an `error` event of this type (`overloaded_error`, for example).
    StreamError(String),
}

/// How an answer breaks the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Malformed {
    /// An event whose data is no JSON.
    Json,
    /// Events of a block that never started.
    Order,
    /// It ends in good order, but before its last events.
    Truncated,
    /// It ends in good order before anything came.
    Empty,
    /// An HTML page, as a proxy in between would send.
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
    drop_after: Option<usize>,
    hang_after: Option<usize>,
    malformed: Option<Malformed>,
    stream_error: Option<String>,
}

impl TryFrom<Raw> for Fault {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        let Raw { times, status, retry_after, should_retry, message, .. } = raw;
        if status.is_none() && (retry_after.is_some() || should_retry.is_some() || message.is_some()) {
            return Err("retry_after, should_retry and message go with status");
        }
        let kinds = [
            status.map(|status| FaultKind::Status { status, retry_after, should_retry, message }),
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
            return Err("a fault has only one of status, drop_after, hang_after, malformed, stream_error");
        }
        if matches!(kind, FaultKind::Status { status, .. } if !(400..=599).contains(&status)) {
            return Err("the status of a fault is 400 to 599");
        }
        Ok(Self { times: times.unwrap_or(Times::Count(1)), kind })
    }
}

fn times<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Times>, D::Error> {
    match Value::deserialize(from)? {
        Value::String(word) if word == "always" => Ok(Some(Times::Always)),
        other => u32::deserialize(other)
            .map(|count| Some(Times::Count(count)))
            .map_err(|_| D::Error::custom("times is a number or \"always\"")),
    }
}

/// `"fail": {…}` is short for `"fail": [{…}]`. Read by way of a value, since an untagged enum could not say what is wrong.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Fault>, D::Error> {
    let value = Value::deserialize(from)?;
    if value.is_array() {
        Vec::deserialize(value).map_err(D::Error::custom)
    } else {
        Fault::deserialize(value).map(|fault| vec![fault]).map_err(D::Error::custom)
    }
}
