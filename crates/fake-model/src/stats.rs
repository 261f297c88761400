//! What tests may look at afterwards: counters and the last requests. Bounded, and never a prompt, an answer or a
//! key: of the headers only a short list of harmless ones is kept.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::http::HeaderMap;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

/// The headers that are remembered.
const KEPT: [&str; 8] = [
    "traceparent",
    "tracestate",
    "user-agent",
    "anthropic-version",
    "anthropic-beta",
    "x-claude-code-session-id",
    "x-stainless-retry-count",
    "x-stainless-timeout",
];
const MAX_VALUE: usize = 512;

/// How many requests there were.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// All requests, except those to `/debug`.
    pub requests: u64,
    /// Those to `/v1/messages`.
    pub messages: u64,
    /// Answers of `/v1/messages` that are under way: not all sent yet.
    pub active: usize,
    /// By status.
    pub by_status: BTreeMap<u16, u64>,
    /// By what became of them.
    pub by_outcome: BTreeMap<Outcome, u64>,
}

/// One request, without anything of its prompt.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestRecord {
    /// Counts from 1.
    pub number: u64,
    /// What was asked for.
    pub route: Route,
    /// The status of the answer.
    pub status: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// How the client proved itself; the proof itself is not kept.
    pub auth: Auth,
    /// `traceparent`, `x-claude-code-session-id`, `user-agent` and the like, as far as they were sent.
    pub headers: BTreeMap<&'static str, String>,
    /// The model that was asked for.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// How many messages the conversation had.
    pub messages: usize,
    /// How many tools were offered.
    pub tools: usize,
    /// The assistant's turns before this one.
    pub turns: usize,
    /// The script's step that was played, from 0.
    pub step: Option<usize>,
    /// How often a step with faults had been asked for before.
    pub attempt: u32,
}

impl RequestRecord {
    /// A header that was remembered.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Route {
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
    /// `/api/hello`
    Hello,
    /// `GET /v1/models`
    Models,
    /// Anything else.
    #[default]
    Other,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It was answered.
    #[default]
    Answered,
    /// It got an error status.
    Error,
    /// Its connection was cut in mid-answer.
    Dropped,
    /// It was left hanging.
    Hung,
    /// It got an answer that breaks the format.
    Malformed,
    /// Its stream ended with an error event.
    StreamError,
}

/// How a client proved itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// By `x-api-key`.
    ApiKey,
    /// By `authorization`.
    Bearer,
    /// By both.
    Both,
}

#[derive(Debug)]
pub(crate) struct Stats {
    max_records: usize,
    max_active: usize,
    counts: watch::Sender<Counts>,
    records: Mutex<VecDeque<RequestRecord>>,
}

/// One answer under way; it ends with its drop.
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

    /// A place among the answers under way, unless there are too many.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Active> {
        let free = |counts: &mut Counts| {
            let free = counts.active < self.max_active;
            counts.active += usize::from(free);
            free
        };
        self.counts.send_if_modified(free).then(|| Active(self.clone()))
    }

    /// Counts and remembers a request, once it is known how it is answered.
    pub(crate) fn record(&self, mut record: RequestRecord) {
        // The lock is held over both, so that numbers and order agree, and a count that is seen has its record.
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

/// The harmless part of the headers.
pub(crate) fn kept_headers(headers: &HeaderMap) -> BTreeMap<&'static str, String> {
    let value = |name| Some(headers.get(name)?.to_str().ok()?.chars().take(MAX_VALUE).collect());
    KEPT.into_iter().filter_map(|name| Some((name, value(name)?))).collect()
}

pub(crate) fn auth(headers: &HeaderMap) -> Auth {
    match (headers.contains_key("x-api-key"), headers.contains_key("authorization")) {
        (true, true) => Auth::Both,
        (true, false) => Auth::ApiKey,
        (false, true) => Auth::Bearer,
        (false, false) => Auth::None,
    }
}
