//! Serves connections with HTTP/1 and HTTP/2 on one port. Requests of HTTP/1 may take their connection over (WebSocket), which the server
//! of `tonic` does not let them. Knows nothing of what is served.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rota_telemetry::{OnExit, spawn};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::ServiceExt;

use crate::options::Limits;
use crate::trust::accept::Connection;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves connections until `stop`, then waits until the calls of those that are open have ended.
pub(super) async fn serve<S>(
    mut incoming: ReceiverStream<Connection>,
    service: S,
    limits: Limits,
    stop: CancellationToken,
) where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut http = auto::Builder::new(TokioExecutor::new());
    // With a timer, headers that do not arrive within 30 s end the connection.
    http.http1().timer(TokioTimer::new());
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let open = TaskTracker::new();
    loop {
        let connection = tokio::select! {
            () = stop.cancelled() => break,
            next = incoming.next() => match next {
                Some(connection) => connection,
                None => break,
            },
        };
        let served = serve_one(&http, connection, service.clone(), limits.connection_age, stop.clone());
        spawn("connection", OnExit::Done, open.track_future(served));
    }
    drop(incoming);
    open.close();
    open.wait().await;
}

/// Serves a connection, which takes no further calls from an age on. Not an async function, whose future would hold the arguments too.
fn serve_one<S>(
    http: &auto::Builder<TokioExecutor>,
    connection: Connection,
    service: S,
    age: Duration,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + use<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let peer = connection.peer();
    // Boxed: the task of a stream keeps the place of this future until the stream ends, long after the answer has begun.
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        Box::pin(service.clone().oneshot(request))
    });
    let served = http.serve_connection_with_upgrades(TokioIo::new(connection), service);
    let mut served = Box::pin(served.into_owned());
    async move {
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = async { tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(age) => {} } } => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection failed");
        }
    }
}
