//! HTTP requests as calls of the gRPC services behind this layer.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, ready};
use futures::{FutureExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, LengthLimitError, Limited, StreamBody};
use rota_proto::framing;
use tonic::Status;
use tonic::body::Body;

use crate::request::{self, FIELDS_OF_HEADERS, HeaderField, Parameters};
use crate::routes::{self, Found, Route};
use crate::stream::Format;
use crate::{Gateway, OPENAPI, PREFIX, SOCKET, Sockets, content, etag, large, response, socket, status};

/// Time to receive the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How many times its limit is received of the rest of a body that is too large, and dropped, and for how long: many clients read no
/// answer as long as they send, and fail with the end of their connection.
const DISCARDED: usize = 7;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Size from which a body is converted on a thread of its own.
pub(crate) const LARGE: usize = 64 << 10;
/// Headers that the services know: who calls, from where, in which trace, and for how long.
const PASSED: &[&str] = &[
    "authorization",
    "cookie",
    "host",
    "origin",
    "sec-fetch-site",
    "user-agent",
    "traceparent",
    "tracestate",
    "baggage",
    "grpc-timeout",
];

/// Method of the HTTP request that a call was made of, as an extension: all calls of gRPC are `POST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpMethod(pub Method);

/// The services behind this layer.
pub trait Inner:
    tower::Service<Request<Body>, Response = Response<Body>, Future: Send + 'static, Error: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S> Inner for S where
    S: tower::Service<
            Request<Body>,
            Response = Response<Body>,
            Future: Send + 'static,
            Error: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// Answers requests below [`PREFIX`] and passes all others on.
#[derive(Debug, Clone)]
pub struct Layer {
    pub gateway: Arc<Gateway>,
    pub sockets: Sockets,
}

impl<S> tower::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Service<S> {
        Service { layer: self.clone(), inner }
    }
}

#[derive(Debug, Clone)]
pub struct Service<S> {
    layer: Layer,
    inner: S,
}

impl<S: Inner> tower::Service<Request<Body>> for Service<S> {
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !request.uri().path().starts_with(PREFIX) {
            return Either::Left(self.inner.call(request));
        }
        let gateway = Arc::clone(&self.layer.gateway);
        if request.uri().path() == SOCKET {
            let accepted = socket::accept(gateway, self.inner.clone(), self.layer.sockets.clone(), request);
            return Either::Right(accepted.map(Ok).boxed());
        }
        match gateway.convert(request) {
            Err(answer) => Either::Right(ready(Ok(*answer)).boxed()),
            Ok((request, call)) => {
                let answered = self.inner.call(request);
                Either::Right(
                    async move { Ok(response::convert(&gateway, call, answered.await?).await) }.boxed(),
                )
            }
        }
    }
}

/// What is needed to convert the response of a call.
pub(crate) struct Call {
    pub(crate) output: prost_reflect::MessageDescriptor,
    pub(crate) form: Form,
    /// Etags of the record that a reader has already.
    pub(crate) known_etag: Option<HeaderValue>,
}

/// Form in which a call answers over HTTP.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    One,
    Many(Format),
    /// A content that is no JSON, in parts.
    Content,
}

impl Gateway {
    /// Returns the gRPC request of an HTTP request, or the response if it calls nothing.
    pub(crate) fn convert(
        &self,
        request: Request<Body>,
    ) -> Result<(Request<Body>, Call), Box<Response<Body>>> {
        let refuse = |status: Box<Status>| Box::new(status::response(&self.pool, &status));
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path();
        if path == OPENAPI && parts.method == Method::GET {
            return Err(Box::new(response::json(self.openapi.clone())));
        }
        let (route, values) = match self.routes.find(&parts.method, path) {
            Found::Route(route, values) => (route, values),
            Found::Methods(methods) => return Err(Box::new(self.wrong_method(&parts.method, &methods))),
            Found::Nothing => {
                let hint = format!("GET {OPENAPI} describes all calls");
                return Err(refuse(status::error(
                    "PATH_UNKNOWN",
                    &format!("no call has the path {path}"),
                    &hint,
                )));
            }
        };
        let named = |&(name, field, replaces): &(&str, &'static str, bool)| {
            let value = parts.headers.get(name)?.to_str().ok()?.to_owned();
            Some(HeaderField { field, value, replaces })
        };
        let mut fields: Vec<_> = FIELDS_OF_HEADERS.iter().filter_map(named).collect();
        let etag = etag::wanted(&parts.headers, &parts.method, &route.call.input()).map_err(refuse)?;
        fields.extend(etag.map(|value| HeaderField { field: "etag", value, replaces: true }));
        let parameters = Parameters {
            path: values.into_iter().map(|(field, value)| (field.to_owned(), value)).collect(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: fields,
        };
        if route.body != routes::Body::None && !body.is_end_stream() && !is_json(&parts.headers) {
            let hint = "set the header `Content-Type: application/json`";
            return Err(refuse(status::error(
                "MEDIA_TYPE_UNSUPPORTED",
                "the body is not declared as JSON",
                hint,
            )));
        }
        let form = match route.call.is_server_streaming() {
            false => Form::One,
            true if content::is(&route.call.output()) => Form::Content,
            true => Form::Many(Format::of(&parts.headers)),
        };
        let is_read = parts.method.is_safe() && etag::is_of_all(&route.call.output());
        let known_etag = parts.headers.get(header::IF_NONE_MATCH).filter(|_| is_read).cloned();
        let call = Call { output: route.call.output(), form, known_etag };

        let mut headers = HeaderMap::new();
        for name in PASSED {
            for value in parts.headers.get_all(*name) {
                headers.append(*name, value.clone());
            }
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.path_and_query = Some(route.path.clone());
        parts.uri = http::Uri::from_parts(uri).unwrap_or_default();
        parts.headers = headers;
        parts.extensions.insert(HttpMethod(std::mem::replace(&mut parts.method, Method::POST)));
        // The services speak gRPC, which has no other version.
        parts.version = Version::HTTP_2;
        Ok((Request::from_parts(parts, message(route.clone(), parameters, body)), call))
    }

    fn wrong_method(&self, given: &Method, methods: &[&Method]) -> Response<Body> {
        let allowed = methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(", ");
        let text = format!("the path has no method {given}");
        let status = status::error("METHOD_UNSUPPORTED", &text, &format!("use {allowed}"));
        let mut response = status::response(&self.pool, &status);
        if let Ok(allowed) = HeaderValue::from_str(&allowed) {
            response.headers_mut().insert(header::ALLOW, allowed);
        }
        response
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// Returns a body that has the request's message. It is read and converted when it is polled.
fn message(route: Route, parameters: Parameters, body: Body) -> Body {
    let framed = async move {
        let body =
            if route.body == routes::Body::None { Bytes::new() } else { read(body, route.max_body).await? };
        let is_large = body.len() >= LARGE;
        let convert = move || {
            let message = request::message(&route, &parameters, &body);
            message.map(|message| Bytes::from(framing::encode(&message)))
        };
        let framed = match is_large {
            true => large::in_turn(convert)
                .await
                .unwrap_or_else(|| Err(Box::new(Status::internal("the conversion of the body failed")))),
            false => convert(),
        };
        framed.map(Frame::data)
    };
    let framed = framed.map(|framed: Result<_, Box<Status>>| framed.map_err(|status| *status));
    Body::new(StreamBody::new(stream::once(framed.boxed())))
}

async fn read(mut body: Body, limit: usize) -> Result<Bytes, Box<Status>> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(&mut body, limit).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(body, limit.saturating_mul(DISCARDED)).await;
            let text = format!("the body has more than {limit} bytes");
            Err(status::error("BODY_TOO_LARGE", &text, ""))
        }
        Ok(Err(error)) => Err(Box::new(Status::cancelled(format!("the body was cut off: {error}")))),
        Err(_) => {
            let text = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(status::error("BODY_TOO_SLOW", &text, ""))
        }
    }
}

/// Receives the rest of a body, unless it is known to have more bytes than that.
async fn discard(body: Body, most: usize) {
    if body.size_hint().lower() > most as u64 {
        return;
    }
    let mut rest = Limited::new(body, most);
    let _ =
        tokio::time::timeout(DISCARD_TIMEOUT, async { while let Some(Ok(_)) = rest.frame().await {} }).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::StreamExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bodies_that_do_not_arrive_are_refused() {
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Status>>());
        let refused = read(Body::new(never), 10).await.unwrap_err();
        assert!(refused.message().contains("did not arrive within 60 s"), "{refused}");
        let large = Body::new(http_body_util::Full::new(Bytes::from_static(b"eleven byte")));
        let refused = read(large, 10).await.unwrap_err();
        assert!(refused.message().contains("more than 10 bytes"), "{refused}");
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_that_do_not_end_are_refused() {
        let large = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"eleven byte")))]);
        let began = tokio::time::Instant::now();
        let refused = read(Body::new(StreamBody::new(large.chain(stream::pending()))), 10).await.unwrap_err();
        assert!(refused.message().contains("more than 10 bytes"), "{refused}");
        assert!((DISCARD_TIMEOUT..BODY_TIMEOUT).contains(&began.elapsed()), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn rest_of_large_bodies_is_received() {
        for (sent, most) in [(5, 5), (1000, 10)] {
            let received = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&received);
            let parts = (0..sent).map(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Status>(Frame::data(Bytes::from_static(b"ten bytes.")))
            });
            let parts = StreamBody::new(stream::iter(parts));
            let refused = read(Body::new(parts), 10).await.unwrap_err();
            assert!(refused.message().contains("more than 10 bytes"), "{refused}");
            assert_eq!(received.load(Ordering::Relaxed), most);
        }
    }
}
