//! Spans of the calls that create tasks and workflows, between the spans of their callers and of the tasks. Does nothing when traces are
//! not exported.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::Either;
use rota_telemetry::trace;
use rota_telemetry::traces::rpc::RpcSpan;
use rota_telemetry::traces::{self, SpanKind};
use tonic::body::Body;

/// Methods that get a span.
const METHODS: [&str; 5] = [
    "rota.v1.TaskService/CreateTask",
    "rota.v1.TaskService/BatchCreateTasks",
    "rota.v1.TaskService/RetryTask",
    "rota.v1.WorkflowService/CreateWorkflow",
    "rota.v1.WorkflowService/RerunWorkflow",
];

/// Returns the trace context in a caller's headers.
pub(super) fn caller(headers: &http::HeaderMap) -> Option<trace::TraceContext> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

/// Adds the trace context of the call's span to the request's extensions.
#[derive(Clone)]
pub(crate) struct Layer;

impl<S> tower::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { inner }
    }
}

#[derive(Clone)]
pub(crate) struct Service<S> {
    inner: S,
}

impl<S, B> tower::Service<http::Request<B>> for Service<S>
where
    S: tower::Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let path = request.uri().path().strip_prefix('/');
        let Some(method) = METHODS.into_iter().find(|method| traces::is_enabled() && Some(*method) == path)
        else {
            return Either::Left(self.inner.call(request));
        };
        // First, so that the span covers the whole call.
        let call = RpcSpan::start(method, SpanKind::Server, caller(request.headers()).as_ref());
        if let Some(context) = call.context() {
            request.extensions_mut().insert(context);
        }
        let answer = self.inner.call(request);
        Either::Right(Box::pin(async move {
            let answer = answer.await;
            // A response without a status in its headers has succeeded: a failed one has no message before its status.
            let code = match &answer {
                Ok(answer) => answer
                    .headers()
                    .get("grpc-status")
                    .map_or(Some(0), |code| code.to_str().ok()?.parse().ok()),
                Err(_) => None,
            };
            call.finish(code.unwrap_or(2));
            answer
        }))
    }
}
