//! A span that goes on in this process.

use super::{Finished, Kind, Value};
use crate::clock;
use crate::trace::Context;

/// A span that goes on. Sent when it is dropped, wherever that is: what was broken off is seen, too.
#[derive(Debug)]
pub struct Open {
    /// What will be sent; none if nobody will see it.
    span: Option<Finished>,
    context: Option<Context>,
}

impl Open {
    /// Begins one below `parent`, or with a trace of its own.
    pub fn begin(name: &'static str, kind: Kind, parent: Option<&Context>) -> Self {
        if !super::on() {
            // What it makes is its parent's, who may be seen elsewhere.
            return Self { span: None, context: parent.copied() };
        }
        let trace_id = parent.map_or_else(super::trace_id, |parent| parent.trace_id);
        let sampled = super::sampled(trace_id, parent);
        let context = Context { trace_id, span_id: super::span_id(), sampled };
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

    /// The parent of whatever it causes: itself, or where spans are not sent what was its own parent.
    pub fn context(&self) -> Option<Context> {
        self.context
    }

    /// Whether anybody will see it.
    pub fn is_seen(&self) -> bool {
        self.span.is_some()
    }

    /// Tells more of it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.attributes.push((name, value.into()));
        }
    }

    /// It has failed.
    pub fn fail(&mut self, why: impl Into<String>) {
        if let Some(span) = &mut self.span {
            span.error = Some(why.into());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            span.ended = clock::unix_micros();
            super::emit(span);
        }
    }
}
