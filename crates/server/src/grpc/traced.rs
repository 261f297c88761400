//! Spans of the calls that make tasks, between their caller's and the tasks' own. Where nothing is sent this is not there.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::Either;
use rota_telemetry::trace;
use rota_telemetry::traces::rpc::Call;
use rota_telemetry::traces::{self, Kind};
use tonic::body::Body;

/// Calls that make tasks.
const CALLS: [&str; 3] = [
    "rota.v1.TaskService/CreateTask",
    "rota.v1.TaskService/BatchCreateTasks",
    "rota.v1.TaskService/RetryTask",
];

/// The caller's place in a trace, as its headers have it.
pub(super) fn caller(headers: &http::HeaderMap) -> Option<trace::Context> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

/// Leaves the call's span with the request, for what it makes.
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
        let Some(method) = CALLS.into_iter().find(|call| traces::on() && Some(*call) == path) else {
            return Either::Left(self.inner.call(request));
        };
        // Before anything is done for the call, so that all of it is in the span.
        let call = Call::begin(method, Kind::Server, caller(request.headers()).as_ref());
        if let Some(context) = call.context() {
            request.extensions_mut().insert(context);
        }
        let answer = self.inner.call(request);
        Either::Right(Box::pin(async move {
            let answer = answer.await;
            // One that says nothing in its headers has gone well: what fails has no message before its status.
            let code = match &answer {
                Ok(answer) => answer
                    .headers()
                    .get("grpc-status")
                    .map_or(Some(0), |code| code.to_str().ok()?.parse().ok()),
                Err(_) => None,
            };
            call.answered(code.unwrap_or(2));
            answer
        }))
    }
}
