//! Spans of calls, as OpenTelemetry's conventions for RPC and gRPC have them.

use super::{Kind, Open};
use crate::trace::Context;

/// Names of the codes, by number.
const CODES: [&str; 17] = [
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

/// What whoever answers is to blame for.
const OURS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// A call that goes on. One that is dropped without an answer was cancelled.
#[derive(Debug)]
pub struct Call {
    span: Open,
    kind: Kind,
    answered: bool,
}

impl Call {
    /// Begins one of `package.Service/Method`.
    pub fn begin(method: &'static str, kind: Kind, parent: Option<&Context>) -> Self {
        let mut span = Open::begin(method, kind, parent);
        span.set("rpc.system.name", "grpc");
        span.set("rpc.method", method);
        Self { span, kind, answered: false }
    }

    /// The span, to tell more of it.
    pub fn span(&mut self) -> &mut Open {
        &mut self.span
    }

    /// See [`Open::context`].
    pub fn context(&self) -> Option<Context> {
        self.span.context()
    }

    /// It was answered, with a gRPC code.
    pub fn answered(mut self, code: i32) {
        self.told(code);
    }

    fn told(&mut self, code: i32) {
        self.answered = true;
        let name = usize::try_from(code).ok().and_then(|code| CODES.get(code)).copied().unwrap_or("UNKNOWN");
        self.span.set("rpc.response.status_code", name);
        if code != 0 && (self.kind == Kind::Client || OURS.contains(&name)) {
            self.span.set("error.type", name);
            self.span.fail("");
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.answered {
            self.told(1);
        }
    }
}
