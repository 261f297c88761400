//! Layers that are functions, of requests or of requests with the service behind, and one that shares it. Knows nothing of what they do.

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

/// Layer that keeps the service behind it in one place: a layer in front clones a reference of it, and not all that is behind. A call
/// clones it once.
#[derive(Clone, Copy)]
pub(crate) struct Share;

impl<S> tower::Layer<S> for Share {
    type Service = Shared<S>;

    fn layer(&self, inner: S) -> Shared<S> {
        Shared(Arc::new(inner))
    }
}

/// A service that is always ready.
pub(crate) struct Shared<S>(Arc<S>);

/// Without a bound of `S`, which a derived one would have.
impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, R> tower::Service<R> for Shared<S>
where
    S: tower::Service<R> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> S::Future {
        S::clone(&self.0).call(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rota_gateway::Inner;
    use tower::{ServiceBuilder, ServiceExt};

    use super::*;

    struct Counted(Arc<AtomicUsize>);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }

    impl tower::Service<Request<Body>> for Counted {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok(Response::new(Body::empty())))
        }
    }

    async fn pass<S: Inner>(request: Request<Body>, mut inner: S) -> Result<Response<Body>, S::Error> {
        inner.call(request).await
    }

    #[tokio::test]
    async fn call_clones_shared_service_once() {
        let clones = Arc::<AtomicUsize>::default();
        let service = ServiceBuilder::new()
            .layer(around(pass))
            .layer(around(pass))
            .layer(Share)
            .service(Counted(Arc::clone(&clones)));
        for call in 1..=3 {
            service.clone().oneshot(Request::new(Body::empty())).await.unwrap();
            assert_eq!(clones.load(Ordering::Relaxed), call);
        }
    }
}
