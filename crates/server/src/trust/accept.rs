//! Accepts connections, and shakes hands where TLS is spoken. A peer that says nothing holds a place for ten seconds
//! and keeps nobody else waiting. Knows nothing of what is said afterwards.

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

/// For a peer to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// That many may do so at a time; more wait in the kernel's queue.
const HANDSHAKES: usize = 1024;
/// Accepted connections that nobody has taken up yet.
const READY: usize = 64;
/// After an error that the next call would meet again, such as too many open files.
const AGAIN: Duration = Duration::from_millis(100);

/// What bytes come in and go out by.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, in TLS or not.
pub(crate) type Connection = Box<dyn Duplex>;

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// The connections that come in until `stop`.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, stream) = mpsc::channel(READY);
    spawn("accept", OnExit::Done, async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
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
                        shaken = timeout(HANDSHAKE, tls.accept(stream)) => shaken,
                    };
                    match shaken {
                        Ok(Ok(stream)) => drop(ready.send(Ok(Box::new(stream) as Connection)).await),
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
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

/// The next connection, however long it takes.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Only a connection that is already gone refuses this, and it is noticed on the first read.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted now");
                sleep(AGAIN).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
