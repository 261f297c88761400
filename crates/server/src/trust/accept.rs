//! Accepts connections, and does TLS handshakes. A peer that sends nothing occupies one handshake slot until the timeout and
//! delays no other. Knows nothing of the protocol on top.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rota_telemetry::{OnExit, spawn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent handshakes; further peers wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 1024;
/// Accepted connections that wait for the server.
const MAX_ACCEPTED: usize = 64;
/// Delay after an error that the next call would meet again, such as too many open files.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A byte stream in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, with or without TLS.
pub(crate) type Connection = Box<dyn Duplex>;

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Returns the connections that are accepted until `stop`.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, stream) = mpsc::channel(MAX_ACCEPTED);
    spawn("accept", OnExit::Done, async move {
        let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let accepting = async {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let stream = accept(&listener).await;
                let Some(tls) = tls.clone() else {
                    if ready.send(Ok(Box::new(stream) as Connection)).await.is_err() {
                        return;
                    }
                    continue;
                };
                let (ready, stop) = (ready.clone(), stop.clone());
                spawn("handshake", OnExit::Done, async move {
                    let _place = place;
                    let shaken = tokio::select! {
                        () = stop.cancelled() => return,
                        shaken = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => shaken,
                    };
                    match shaken {
                        Ok(Ok(stream)) => drop(ready.send(Ok(Box::new(stream) as Connection)).await),
                        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                        Err(_) => tracing::debug!("TLS handshake timed out"),
                    }
                });
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = ready.closed() => {}
            () = accepting => {}
        }
    });
    ReceiverStream::new(stream)
}

/// Accepts the next connection, however long that takes.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Fails only for a connection that is closed already, which the first read reports.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "failed to accept connections, retrying");
                sleep(RETRY_DELAY).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
