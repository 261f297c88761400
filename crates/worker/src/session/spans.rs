//! Whose an attempt is, for logs and for a collector: the fields of its log lines, and spans of its tools, where its
//! runtime sends none of its own.

use std::collections::HashMap;

use rota_proto::v1::{event, runtime};
use rota_proto::worker::v1::Assign;
use rota_telemetry::trace::{Context, hex};
use rota_telemetry::traces::{self, Kind, Open};

/// Calls of tools at a time; what is beyond has no span.
const MOST: usize = 256;

/// What each log line about an attempt says, at any level.
pub(super) fn logged(assign: &Assign, worker: &str) -> tracing::Span {
    let context = assign.traceparent.parse::<Context>().ok();
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

/// Spans of an attempt's tools, from what it tells.
#[derive(Debug)]
pub(super) struct Tools {
    attempt: Context,
    task: String,
    open: HashMap<String, Open>,
}

impl Tools {
    /// None where nobody would see them. The Claude Code CLI sends its own.
    pub(super) fn of(assign: &Assign) -> Option<Self> {
        let kind = assign.spec.as_ref().and_then(|spec| spec.runtime.as_ref()?.kind.as_ref());
        if !traces::on() || matches!(kind, Some(runtime::Kind::Claude(_))) {
            return None;
        }
        let attempt = assign.traceparent.parse().ok().filter(|context: &Context| context.sampled)?;
        Some(Self { attempt, task: assign.task_id.clone(), open: HashMap::new() })
    }

    /// Hears what the attempt tells.
    pub(super) fn hear(&mut self, kind: &event::Kind) {
        match kind {
            event::Kind::ToolCall(call) if self.open.len() < MOST => {
                let mut span = Open::begin("tool", Kind::Internal, Some(&self.attempt));
                span.set("rota.task.id", self.task.as_str());
                span.set("gen_ai.tool.name", call.tool.as_str());
                span.set("gen_ai.tool.call.id", call.call_id.as_str());
                self.open.insert(call.call_id.clone(), span);
            }
            event::Kind::ToolResult(result) => {
                if let Some(mut span) = self.open.remove(&result.call_id)
                    && result.is_error
                {
                    span.fail("the tool failed");
                }
            }
            _ => {}
        }
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.open.values_mut().for_each(|span| span.fail("the attempt ended without the tool's answer"));
    }
}
