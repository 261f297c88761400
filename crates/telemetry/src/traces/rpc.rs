//! Spans of gRPC calls by OpenTelemetry's semantic conventions for RPC. Not a tower layer: only calls that create tasks
//! have a span, one client span covers all retries of a call, and its context becomes the parent of the task's span,
//! which `tracing`-based layers cannot pass on.

use super::{ActiveSpan, SpanKind};
use crate::trace::TraceContext;

/// Status code names by number.
const STATUS_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Codes that are errors of a server span; the others are the caller's.
const SERVER_ERRORS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

const CANCELLED: i32 = 1;

/// Span of a call in progress. Dropping it without a status code records a cancelled call.
#[derive(Debug)]
pub struct RpcSpan {
    span: ActiveSpan,
    kind: SpanKind,
    finished: bool,
}

impl RpcSpan {
    /// Starts the span of a call of `package.Service/Method`.
    pub fn start(method: &'static str, kind: SpanKind, parent: Option<&TraceContext>) -> Self {
        let mut span = ActiveSpan::start(method, kind, parent);
        span.set_attribute("rpc.system.name", "grpc");
        span.set_attribute("rpc.method", method);
        Self { span, kind, finished: false }
    }

    /// Returns the span, to add attributes.
    pub fn span(&mut self) -> &mut ActiveSpan {
        &mut self.span
    }

    /// See [`ActiveSpan::context`].
    pub fn context(&self) -> Option<TraceContext> {
        self.span.context()
    }

    /// Ends the span with the gRPC status code of the response.
    pub fn finish(mut self, code: i32) {
        self.set_status(code);
    }

    fn set_status(&mut self, code: i32) {
        self.finished = true;
        let name = usize::try_from(code).ok().and_then(|code| STATUS_CODES.get(code)).copied();
        let name = name.unwrap_or("UNKNOWN");
        self.span.set_attribute("rpc.response.status_code", name);
        if code != 0 && (self.kind == SpanKind::Client || SERVER_ERRORS.contains(&name)) {
            self.span.set_attribute("error.type", name);
            self.span.set_error("");
        }
    }
}

impl Drop for RpcSpan {
    fn drop(&mut self) {
        if !self.finished {
            self.set_status(CANCELLED);
        }
    }
}
