//! A span that starts and ends in this process.

use super::{Finished, SpanKind, Value};
use crate::clock;
use crate::trace::TraceContext;

/// A span in progress. Dropping it emits it, so work that was cut short is visible, too.
#[derive(Debug)]
pub struct ActiveSpan {
    /// `None` if the span is not recorded.
    span: Option<Finished>,
    context: Option<TraceContext>,
}

impl ActiveSpan {
    /// Starts a span below `parent`, or the root span of a new trace.
    pub fn start(name: &'static str, kind: SpanKind, parent: Option<&TraceContext>) -> Self {
        if !super::is_enabled() {
            // Children become children of the parent, which another process may record.
            return Self { span: None, context: parent.copied() };
        }
        let trace_id = parent.map_or_else(super::trace_id, |parent| parent.trace_id);
        let sampled = super::is_sampled(trace_id, parent);
        let context = TraceContext { trace_id, span_id: super::span_id(), sampled };
        let span = sampled.then(|| Finished {
            name: name.into(),
            kind,
            trace_id,
            span_id: context.span_id,
            parent_id: parent.map(|parent| parent.span_id).unwrap_or_default(),
            began: clock::unix_micros(),
            ..Finished::default()
        });
        Self { span, context: Some(context) }
    }

    /// Returns the parent for spans that this one causes: the span itself, or its own parent when spans are not
    /// exported.
    pub fn context(&self) -> Option<TraceContext> {
        self.context
    }

    /// Returns whether the span will be exported, so that costly attributes are worth computing.
    pub fn is_recording(&self) -> bool {
        self.span.is_some()
    }

    /// Adds an attribute.
    pub fn set_attribute(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.attributes.push((name, value.into()));
        }
    }

    /// Marks the span as failed.
    pub fn set_error(&mut self, description: impl Into<String>) {
        if let Some(span) = &mut self.span {
            span.error = Some(description.into());
        }
    }
}

impl Drop for ActiveSpan {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.ended = clock::unix_micros();
            super::emit(span);
        }
    }
}
