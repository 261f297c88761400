//! Traces of the calls that create tasks and workflows: their spans, between those of their callers and of the tasks, as far as traces are
//! exported, and the contexts of what they create.

use http::Response;
use rota_core::task::Trace;
use rota_gateway::Inner;
use rota_telemetry::trace::TraceContext;
use rota_telemetry::traces::rpc::RpcSpan;
use rota_telemetry::traces::{self, SpanKind};
use tonic::Request;
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use crate::spans::root_trace;

/// Methods that get a span.
const METHODS: [&str; 5] = [
    "rota.v1.TaskService/CreateTask",
    "rota.v1.TaskService/BatchCreateTasks",
    "rota.v1.TaskService/RetryTask",
    "rota.v1.WorkflowService/CreateWorkflow",
    "rota.v1.WorkflowService/RerunWorkflow",
];

/// Returns the trace context in a caller's headers.
pub(super) fn caller(headers: &http::HeaderMap) -> Option<TraceContext> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

/// Returns the trace context of the call, or the caller's, or a new one.
pub(super) fn trace<T>(request: &Request<T>) -> Trace {
    let metadata = request.metadata();
    // The span of the call, if there is one, has decided whether the trace is sampled.
    let call = request.extensions().get::<TraceContext>().copied();
    match call.or_else(|| caller(metadata.as_ref())) {
        Some(parent) => Trace {
            trace_id: parent.trace_id,
            span_id: traces::span_id(),
            parent_id: parent.span_id,
            sampled: parent.sampled,
            state: state(metadata),
        },
        None => root_trace(),
    }
}

fn state(metadata: &MetadataMap) -> String {
    let state = metadata.get("tracestate").and_then(|value| value.to_str().ok());
    state.unwrap_or_default().chars().take(512).collect()
}

/// Makes a span of a call, and adds its context to the request's extensions.
pub(crate) async fn record<S: Inner>(
    mut request: http::Request<Body>,
    mut inner: S,
) -> Result<Response<Body>, S::Error> {
    let path = request.uri().path().strip_prefix('/');
    let method = METHODS.into_iter().find(|method| traces::is_enabled() && Some(*method) == path);
    let Some(method) = method else { return inner.call(request).await };
    // First, so that the span covers the whole call.
    let call = RpcSpan::start(method, SpanKind::Server, caller(request.headers()).as_ref());
    if let Some(context) = call.context() {
        request.extensions_mut().insert(context);
    }
    let answer = inner.call(request).await;
    // A response without a status in its headers has succeeded: a failed one has no message before its status.
    let code = match &answer {
        Ok(answer) => {
            answer.headers().get("grpc-status").map_or(Some(0), |code| code.to_str().ok()?.parse().ok())
        }
        Err(_) => None,
    };
    call.finish(code.unwrap_or(2));
    answer
}
