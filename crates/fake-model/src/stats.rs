//! Counters and the last requests, for tests to inspect. Bounded, and without prompts, answers and keys: only an
//! allowlist of headers is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use axum::http::HeaderMap;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

/// Headers that are kept in records.
const RECORDED_HEADERS: [&str; 8] = [
    "traceparent",
    "tracestate",
    "user-agent",
    "anthropic-version",
    "anthropic-beta",
    "x-claude-code-session-id",
    "x-stainless-retry-count",
    "x-stainless-timeout",
];
const MAX_HEADER_CHARS: usize = 512;
const MARK: &str = "MARK-";
const MAX_MARKS: usize = 64;
const MAX_MARK_CHARS: usize = 64;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// Requests on all paths except `/debug`.
    pub requests: u64,
    pub messages: u64,
    /// Answers of `/v1/messages` that are not completely sent.
    pub active: usize,
    pub by_status: BTreeMap<u16, u64>,
    pub by_outcome: BTreeMap<Outcome, u64>,
}

/// Record of a request, without its prompt.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestRecord {
    pub number: u64,
    pub route: Route,
    pub status: u16,
    pub outcome: Outcome,
    /// Kind of credentials; the credentials themselves are not kept.
    pub auth: Auth,
    /// Headers of the request that are on the allowlist.
    pub headers: BTreeMap<&'static str, String>,
    pub model: String,
    pub stream: bool,
    /// Number of messages in the conversation.
    pub messages: usize,
    pub tools: usize,
    /// Effort that the request asks for; empty if it names none.
    pub effort: String,
    /// Words of the request that begin with `MARK-`: tests put them where the model should read them, or should not.
    pub marks: BTreeSet<String>,
    /// Number of assistant turns before this request.
    pub turns: usize,
    /// Index of the script's step, if one was played.
    pub step: Option<usize>,
    /// Number of earlier requests for the same step, if it has faults.
    pub attempt: u32,
}

impl RequestRecord {
    /// Returns a header that is on the allowlist.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Route {
    Messages,
    CountTokens,
    Hello,
    Models,
    #[default]
    Other,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    #[default]
    Answered,
    Error,
    /// The connection was cut during the answer.
    Dropped,
    Hung,
    /// The answer violated the format.
    Malformed,
    /// The stream ended with an error event.
    StreamError,
}

/// Kind of credentials of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    #[default]
    None,
    ApiKey,
    Bearer,
    Both,
}

#[derive(Debug)]
pub(crate) struct Stats {
    max_records: usize,
    max_active: usize,
    counts: watch::Sender<Counts>,
    records: Mutex<VecDeque<RequestRecord>>,
}

/// Guard that counts an active answer until it is dropped.
#[derive(Debug)]
pub(crate) struct Active(Arc<Stats>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.active = counts.active.saturating_sub(1));
    }
}

impl Stats {
    pub(crate) fn new(max_records: usize, max_active: usize) -> Self {
        Self { max_records, max_active, counts: watch::Sender::default(), records: Mutex::default() }
    }

    /// Counts an active answer, unless there are too many.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Active> {
        let free = |counts: &mut Counts| {
            let free = counts.active < self.max_active;
            counts.active += usize::from(free);
            free
        };
        self.counts.send_if_modified(free).then(|| Active(self.clone()))
    }

    /// Counts and records a request, once the response is known.
    pub(crate) fn record(&self, mut record: RequestRecord) {
        // One lock for both: numbers match the order, and a count that is visible has its record.
        let mut records = self.records.lock();
        record.number = self.counts.borrow().requests + 1;
        let (route, status, outcome) = (record.route, record.status, record.outcome);
        if records.len() >= self.max_records {
            records.pop_front();
        }
        if self.max_records > 0 {
            records.push_back(record);
        }
        self.counts.send_modify(|counts| {
            counts.requests += 1;
            counts.messages += u64::from(route == Route::Messages);
            *counts.by_status.entry(status).or_default() += 1;
            *counts.by_outcome.entry(outcome).or_default() += 1;
        });
    }

    pub(crate) fn requests(&self) -> Vec<RequestRecord> {
        self.records.lock().iter().cloned().collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    pub(crate) async fn until(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        // The sender lives as long as `self`, so this cannot fail.
        self.counts.subscribe().wait_for(wanted).await.map(|counts| counts.clone()).unwrap_or_default()
    }
}

/// Selects the words of a body that begin with `MARK-`.
pub(crate) fn marks(body: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(body);
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '-';
    let words = text.match_indices(MARK).map(|(at, _)| text[at..].split(|char| !is_part(char)).next());
    words.flatten().take(MAX_MARKS).map(|word| word.chars().take(MAX_MARK_CHARS).collect()).collect()
}

/// Selects the headers to be recorded.
pub(crate) fn kept_headers(headers: &HeaderMap) -> BTreeMap<&'static str, String> {
    let value = |name| Some(headers.get(name)?.to_str().ok()?.chars().take(MAX_HEADER_CHARS).collect());
    RECORDED_HEADERS.into_iter().filter_map(|name| Some((name, value(name)?))).collect()
}

pub(crate) fn auth(headers: &HeaderMap) -> Auth {
    match (headers.contains_key("x-api-key"), headers.contains_key("authorization")) {
        (true, true) => Auth::Both,
        (true, false) => Auth::ApiKey,
        (false, true) => Auth::Bearer,
        (false, false) => Auth::None,
    }
}
