//! Layers that are functions, of requests or of requests with the service behind. Knows nothing of what they do.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tower_http::auth::AsyncRequireAuthorizationLayer;

/// Returns the layer of a function that returns the response to a request, with the service behind it at hand. Its future is not boxed.
pub(crate) fn around<S, F, Answer>(call: F) -> Layer<F>
where
    F: Fn(Request<Body>, S) -> Answer,
{
    Layer(Arc::new(call))
}

/// Returns the layer of a function that returns the request to pass on, or the response.
pub(crate) fn unless_answered<F, Answer>(answer: F) -> AsyncRequireAuthorizationLayer<F>
where
    F: FnMut(Request<Body>) -> Answer,
    Answer: Future<Output = Result<Request<Body>, Response<Body>>>,
{
    AsyncRequireAuthorizationLayer::new(answer)
}

pub(crate) struct Layer<F>(Arc<F>);

impl<S, F> tower::Layer<S> for Layer<F> {
    type Service = Service<S, F>;

    fn layer(&self, inner: S) -> Service<S, F> {
        Service { inner, around: Arc::clone(&self.0) }
    }
}

pub(crate) struct Service<S, F> {
    inner: S,
    around: Arc<F>,
}

/// Without a bound of `F`, which a derived one would have.
impl<S: Clone, F> Clone for Service<S, F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), around: Arc::clone(&self.around) }
    }
}

impl<S, F, Answer> tower::Service<Request<Body>> for Service<S, F>
where
    S: tower::Service<Request<Body>> + Clone,
    F: Fn(Request<Body>, S) -> Answer,
    Answer: Future<Output = Result<Response<Body>, S::Error>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        // The service that was polled ready is the one to call; its clone takes its place.
        let other = self.inner.clone();
        (self.around)(request, std::mem::replace(&mut self.inner, other))
    }
}
