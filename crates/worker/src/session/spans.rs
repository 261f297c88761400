//! Telemetry of attempts: the span whose fields are on every log line, and spans for tool calls of runtimes
//! that send none themselves.

use std::collections::HashMap;

use rota_proto::v1::{event, runtime};
use rota_proto::worker::v1::Assign;
use rota_telemetry::trace::{TraceContext, hex};
use rota_telemetry::traces::{self, ActiveSpan, SpanKind};

/// Maximum number of concurrent tool calls with a span.
const MAX_OPEN_SPANS: usize = 256;

/// Creates the span for an attempt's log lines. At error level, so that no filter removes its fields.
pub(super) fn attempt_span(assign: &Assign, worker: &str) -> tracing::Span {
    let context = assign.traceparent.parse::<TraceContext>().ok();
    tracing::error_span!(
        "attempt",
        task = assign.task_id,
        attempt = assign.attempt,
        worker,
        fence = assign.fence,
        trace_id = context.map(|context| hex(&context.trace_id)),
        span_id = context.map(|context| hex(&context.span_id)),
    )
}

/// Spans of an attempt's tool calls, derived from its events.
#[derive(Debug)]
pub(super) struct ToolSpans {
    attempt: TraceContext,
    task: String,
    open: HashMap<String, ActiveSpan>,
}

impl ToolSpans {
    /// Returns `None` if tracing is off, or the runtime sends its own spans, as the Claude Code CLI does.
    pub(super) fn of(assign: &Assign) -> Option<Self> {
        let kind = assign.spec.as_ref().and_then(|spec| spec.runtime.as_ref()?.kind.as_ref());
        if !traces::is_enabled() || matches!(kind, Some(runtime::Kind::Claude(_))) {
            return None;
        }
        let attempt = assign.traceparent.parse().ok().filter(|context: &TraceContext| context.sampled)?;
        Some(Self { attempt, task: assign.task_id.clone(), open: HashMap::new() })
    }

    /// Opens or closes a span for a tool event.
    pub(super) fn observe(&mut self, kind: &event::Kind) {
        match kind {
            event::Kind::ToolCall(call) if self.open.len() < MAX_OPEN_SPANS => {
                let mut span = ActiveSpan::start("tool", SpanKind::Internal, Some(&self.attempt));
                span.set_attribute("rota.task.id", self.task.as_str());
                span.set_attribute("gen_ai.tool.name", call.tool.as_str());
                span.set_attribute("gen_ai.tool.call.id", call.call_id.as_str());
                self.open.insert(call.call_id.clone(), span);
            }
            event::Kind::ToolResult(result) => {
                if let Some(mut span) = self.open.remove(&result.call_id)
                    && result.is_error
                {
                    span.set_error("tool call failed");
                }
            }
            _ => {}
        }
    }
}

impl Drop for ToolSpans {
    fn drop(&mut self) {
        self.open.values_mut().for_each(|span| span.set_error("attempt ended before the tool call"));
    }
}
