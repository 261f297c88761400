//! Spans, sent to an OpenTelemetry collector. Off unless somebody names one, and free when off. What outlives a process
//! keeps its ids elsewhere and tells of itself when it has ended; what does not is [`Open`] until then. Nothing below
//! here knows what a span is about.

mod export;
mod open;
pub mod rpc;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry_sdk::Resource;
use tokio::runtime::Handle;

use self::export::Export;
pub use self::open::Open;
use crate::otlp::{Error, Target};
use crate::trace::Context;

static EXPORT: OnceLock<Export> = OnceLock::new();

/// On which side of a call a span is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// On none.
    #[default]
    Internal,
    /// Where it is made.
    Client,
    /// Where it is answered.
    Server,
}

/// A span that has ended.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// Its name: few different ones, for they are counted by it.
    pub name: Cow<'static, str>,
    /// On which side of a call it is.
    pub kind: Kind,
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

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

pub(crate) fn start(target: &Target, resource: &Resource, runtime: &Handle) -> Result<(), Error> {
    let export = Export::start(target, resource, runtime)?;
    let _ = EXPORT.set(export);
    Ok(())
}

/// Whether spans are sent at all.
pub fn on() -> bool {
    EXPORT.get().is_some()
}

pub(crate) fn target() -> Option<&'static Target> {
    EXPORT.get().map(Export::target)
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

/// Sends what is left, for at most so long. Blocks.
pub(crate) fn flush(limit: Duration) {
    if let Some(export) = EXPORT.get() {
        export.flush(limit);
    }
}
