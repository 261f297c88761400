//! Spans for an OpenTelemetry collector; without one, no span is created. Long-lived spans, whose ids are kept in a
//! record, are emitted as [`Finished`] on completion; spans within one process use [`ActiveSpan`]. Must not know what
//! a span is about.

mod active_span;
mod export;
pub mod rpc;

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry_sdk::Resource;
use tokio::runtime::Handle;

pub use self::active_span::ActiveSpan;
use self::export::Exporter;
use crate::otlp::{Error, Target};
use crate::redact;
use crate::trace::TraceContext;

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Side of a call that a span describes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SpanKind {
    #[default]
    Internal,
    Client,
    Server,
}

/// A completed span. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// One of few distinct names: collectors aggregate by it.
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Zero for a root span.
    pub parent_id: [u8; 8],
    pub began: i64,
    pub ended: i64,
    pub attributes: Vec<(&'static str, Value)>,
    /// Spans that this one follows without being their child.
    pub links: Vec<TraceContext>,
    /// Description of the failure; sets the span's status.
    pub error: Option<String>,
}

/// Value of a span attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
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
    let _ = EXPORTER.set(Exporter::start(target, resource, runtime)?);
    Ok(())
}

/// Returns whether spans are exported at all.
pub fn is_enabled() -> bool {
    EXPORTER.get().is_some()
}

/// Returns whether a trace is recorded: a new one by the configured sampler, a caller's as the sampler makes of the
/// caller's flag. Without a collector, that flag is passed on.
pub fn is_sampled(trace_id: [u8; 16], caller: Option<&TraceContext>) -> bool {
    match EXPORTER.get() {
        Some(exporter) => exporter.is_sampled(trace_id, caller),
        None => caller.is_some_and(|caller| caller.sampled),
    }
}

/// Queues a span of a sampled trace for export, with secrets redacted. Never waits: spans that a slow collector does
/// not accept in time are dropped.
pub fn emit(mut span: Finished) {
    if let Some(exporter) = EXPORTER.get() {
        for (_, value) in &mut span.attributes {
            if let Value::Text(text) = value {
                redact::text(text);
            }
        }
        span.error.iter_mut().for_each(redact::text);
        exporter.export(span);
    }
}

/// Generates a span id.
pub fn span_id() -> [u8; 8] {
    export::span_id()
}

/// Generates a trace id.
pub fn trace_id() -> [u8; 16] {
    export::trace_id()
}

/// Exports the queued spans, for at most `timeout`. Blocks.
pub(crate) fn flush(timeout: Duration) {
    if let Some(exporter) = EXPORTER.get() {
        exporter.flush(timeout);
    }
}
