//! Accepts connections, does TLS handshakes, and closes connections without calls. A peer that sends nothing occupies one
//! slot until the timeout and delays no other. Knows nothing of the protocol on top.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use rota_telemetry::{OnExit, spawn};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::addresses::{Addresses, Place, WhenFull};
use crate::options::Limits;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent handshakes; further peers wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 1024;
/// Accepted connections that wait for the server.
const MAX_ACCEPTED: usize = 64;
/// Time for which a peer may take no bytes, or acknowledge none.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Delay after an error that the next call would meet again, such as too many open files.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// A byte stream in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What is known of the peer of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    authenticated: AtomicBool,
    /// End of the connection, unless the peer makes a call before.
    expires: Mutex<Instant>,
    anonymous_idle: Duration,
    /// Held until the first authenticated call.
    place: Mutex<Option<Place>>,
}

impl Peer {
    /// Notes a call that requires no authentication.
    pub(crate) fn called(&self) {
        *self.expires.lock() = Instant::now() + self.anonymous_idle;
    }

    /// Notes an authenticated call: the connection stays open.
    pub(crate) fn authenticated(&self) {
        if !self.authenticated.swap(true, Ordering::Relaxed) {
            drop(self.place.lock().take());
        }
    }
}

/// A connection, with or without TLS. Fails when its peer makes no call in time, or has to make room for others before it has
/// authenticated: in writing as in reading, since a server that waits for a peer to take answers reads no more of its calls.
pub(crate) struct Connection {
    stream: Box<dyn Duplex>,
    peer: Arc<Peer>,
    /// `None` once the peer has authenticated.
    ends: Option<Ends>,
    _permit: OwnedSemaphorePermit,
}

/// What ends a connection without an authenticated call.
struct Ends {
    deadline: Pin<Box<Sleep>>,
    makes_room: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn new(
        stream: impl Duplex + 'static,
        limits: Limits,
        permit: OwnedSemaphorePermit,
        place: Place,
    ) -> Self {
        let expires = Instant::now() + limits.first_call;
        let makes_room = Box::pin(place.closed().clone().cancelled_owned());
        let peer = Peer {
            authenticated: AtomicBool::new(false),
            expires: Mutex::new(expires),
            anonymous_idle: limits.anonymous_idle,
            place: Mutex::new(Some(place)),
        };
        let deadline = Box::pin(tokio::time::sleep_until(expires));
        let ends = Some(Ends { deadline, makes_room });
        Self { stream: Box::new(stream), peer: Arc::new(peer), ends, _permit: permit }
    }

    /// Returns what is known of the peer, and learned from its calls.
    pub(crate) fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }

    /// Fails if the connection is to be closed, since its peer has not authenticated. Otherwise the task is woken when it is.
    fn check_open(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.peer.authenticated.load(Ordering::Relaxed) {
            self.ends = None;
        }
        let Some(ends) = &mut self.ends else { return Ok(()) };
        let timed_out = |reason| Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        if ends.makes_room.as_mut().poll(context).is_ready() {
            return timed_out("its address has too many connections without a token");
        }
        while ends.deadline.as_mut().poll(context).is_ready() {
            let expires = *self.peer.expires.lock();
            if expires <= Instant::now() {
                return timed_out("no call in time");
            }
            ends.deadline.as_mut().reset(expires);
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Returns the connections that are accepted until `stop`.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    stop: CancellationToken,
) -> ReceiverStream<Connection> {
    let (ready, stream) = mpsc::channel(MAX_ACCEPTED);
    spawn("accept", OnExit::Done, async move {
        let connections = Arc::new(Semaphore::new(limits.connections));
        let addresses = Addresses::new(limits.unauthenticated_per_address, WhenFull::CloseOldest);
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let accepting = async {
            loop {
                if connections.available_permits() == 0 {
                    tracing::warn!(
                        limit = limits.connections,
                        "connection limit reached, further peers wait"
                    );
                }
                let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
                let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else { return };
                let stream = accept(&listener).await;
                // A connection without a peer is closed already.
                let Ok(peer) = stream.peer_addr() else { continue };
                let Some(place) = addresses.admit(peer.ip()) else { continue };
                let Some(tls) = tls.clone() else {
                    if ready.send(Connection::new(stream, limits, permit, place)).await.is_err() {
                        return;
                    }
                    continue;
                };
                let (ready, stop) = (ready.clone(), stop.clone());
                spawn("handshake", OnExit::Done, async move {
                    let _handshake = handshake;
                    let shaken = tokio::select! {
                        () = stop.cancelled() => return,
                        () = place.closed().cancelled() => return,
                        shaken = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => shaken,
                    };
                    match shaken {
                        Ok(Ok(stream)) => {
                            drop(ready.send(Connection::new(stream, limits, permit, place)).await);
                        }
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
                configure(&stream);
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

/// Sets the options of a connection. They fail only for one that is closed already, which the first read reports.
pub(crate) fn configure(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(SEND_TIMEOUT));
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Opens a connection whose peer takes nothing, and waits until a write of it fails.
    async fn write_error(limits: Limits, addresses: &Arc<Addresses>, more: bool) -> String {
        let address = [127, 0, 0, 1].into();
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let (stream, _peer) = tokio::io::duplex(1);
        let mut connection = Connection::new(stream, limits, permit, addresses.admit(address).unwrap());
        let write = timeout(Duration::from_secs(60), connection.write_all(&[0; 64]));
        let after = async { more.then(|| addresses.admit(address).unwrap()) };
        let (written, _other) = tokio::join!(write, after);
        written.expect("the connection stays open").unwrap_err().to_string()
    }

    #[tokio::test]
    async fn kernel_closes_connections_whose_peer_takes_nothing() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (_peer, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let stream = accepted.unwrap().0;
        configure(&stream);
        assert_eq!(SockRef::from(&stream).tcp_user_timeout().unwrap(), Some(SEND_TIMEOUT));
    }

    #[tokio::test]
    async fn peers_that_take_no_answers_are_closed() {
        let addresses = Addresses::new(1, WhenFull::CloseOldest);
        let soon = Limits { first_call: Duration::from_millis(50), ..Limits::default() };
        assert_eq!(write_error(soon, &addresses, false).await, "no call in time");
        let late = Limits { first_call: Duration::from_secs(600), ..Limits::default() };
        let full = "its address has too many connections without a token";
        assert_eq!(write_error(late, &addresses, true).await, full);
    }
}
