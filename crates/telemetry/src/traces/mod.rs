//! Spans, sent to an OpenTelemetry collector. Off unless somebody names one, and free when off. Spans are handed over
//! finished: what outlives a process keeps its ids elsewhere and tells of itself at its end. Everything of
//! OpenTelemetry is below here; nothing below here knows what a span is about.

mod export;

use std::sync::OnceLock;
use std::time::Duration;

pub use export::{Error, Settings};

use self::export::Export;
use crate::trace::Context;

static EXPORT: OnceLock<Export> = OnceLock::new();

/// Longest wait for what is still to be sent when a process ends.
pub const FLUSH: Duration = Duration::from_secs(5);

/// A span that has ended.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// Its name: few different ones, for they are counted by it.
    pub name: &'static str,
    /// Its trace.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub span_id: [u8; 8],
    /// Its parent's; zero for none.
    pub parent_id: [u8; 8],
    /// When it began, in microseconds since the Unix epoch.
    pub began: i64,
    /// When it ended.
    pub ended: i64,
    /// What else is known.
    pub attributes: Vec<(&'static str, Value)>,
    /// Spans that it follows without being part of them.
    pub links: Vec<Context>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Begins to send spans. A second call changes nothing.
pub fn init(settings: &Settings) -> Result<(), Error> {
    if EXPORT.get().is_none() {
        let export = Export::start(settings)?;
        let _ = EXPORT.set(export);
    }
    Ok(())
}

/// Whether spans are sent at all.
pub fn on() -> bool {
    EXPORT.get().is_some()
}

/// Whether a new trace, or a caller's, is recorded. Without a collector the caller's word is handed on.
pub fn sampled(trace_id: [u8; 16], caller: Option<&Context>) -> bool {
    match EXPORT.get() {
        Some(export) => export.samples(trace_id, caller),
        None => caller.is_some_and(|caller| caller.sampled),
    }
}

/// Sends a span of a sampled trace, some time. Never waits; what a collector cannot take in time is dropped.
pub fn emit(span: Finished) {
    if let Some(export) = EXPORT.get() {
        export.send(span);
    }
}

/// A new span's id.
pub fn span_id() -> [u8; 8] {
    export::span_id()
}

/// A new trace's id.
pub fn trace_id() -> [u8; 16] {
    export::trace_id()
}

/// Variables by which programs that speak OpenTelemetry send their spans to the same collector. What is secret, such as
/// headers, is not among them: whoever runs a program names that for it.
pub fn for_programs() -> Vec<(&'static str, String)> {
    EXPORT.get().map(Export::for_programs).unwrap_or_default()
}

/// Sends what is left, for at most so long. Blocks.
pub fn flush(limit: Duration) {
    if let Some(export) = EXPORT.get() {
        export.flush(limit);
    }
}
