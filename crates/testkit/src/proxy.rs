//! TCP proxy on loopback that can freeze, so that connections stay open and nothing passes, as when a cable is pulled, pass one
//! direction alone, cut all connections, or answer every call with status 403, as an ingress with a rule too many does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use rota_telemetry::{OnExit, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Frozen,
    /// Requests pass, and answers do not.
    Mute,
    Cut,
    /// Connections end here, where calls are counted and refused.
    Refusing,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Number of times that connections were stranded. Those that are older pass nothing any more.
    strandings: usize,
}

/// Proxy between a worker and its control plane. Dropping it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    state: watch::Sender<State>,
    refused: Arc<AtomicUsize>,
    _over: tokio_util::sync::DropGuard,
}

impl Proxy {
    /// Starts a proxy that forwards to `to`.
    pub async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let (state, states) = watch::channel(State { mode: Mode::Open, strandings: 0 });
        let over = CancellationToken::new();
        let stop = over.clone();
        let refused = Arc::<AtomicUsize>::default();
        let refusing = refuse(Arc::clone(&refused), stop.clone()).await?;
        spawn("proxy", OnExit::Done, async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((near, _)) = accepted else { continue };
                let (states, stop) = (states.clone(), stop.clone());
                spawn("proxied", OnExit::Done, async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = carry(near, Targets { to, refusing }, states) => {}
                    }
                });
            }
        });
        Ok(Self { addr, state, refused, _over: over.drop_guard() })
    }

    /// Returns the address that the proxy listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops forwarding without closing anything: neither side notices.
    pub fn freeze(&self) {
        self.set(Mode::Frozen);
    }

    /// Freezes the connections that there are for good. New ones are forwarded, as by a load balancer after one of its targets has
    /// vanished.
    pub fn strand(&self) {
        self.state.send_modify(|state| state.strandings += 1);
    }

    /// Forwards what callers send, on new connections as well, and holds all answers back.
    pub fn mute(&self) {
        self.set(Mode::Mute);
    }

    fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Closes all connections, and new ones as they arrive.
    pub fn cut(&self) {
        self.set(Mode::Cut);
    }

    /// Answers every call with status 403 and closes all other connections.
    pub fn refuse(&self) {
        self.set(Mode::Refusing);
    }

    /// Returns the number of calls that were answered with status 403.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Forwards again, including what was received while frozen or mute.
    pub fn open(&self) {
        self.set(Mode::Open);
    }
}

/// Addresses to which connections are forwarded, by mode.
#[derive(Debug, Clone, Copy)]
struct Targets {
    to: SocketAddr,
    refusing: SocketAddr,
}

impl Targets {
    /// Returns the target in a mode, which a frozen proxy keeps.
    fn of(self, mode: Mode) -> Option<SocketAddr> {
        match mode {
            Mode::Open | Mode::Frozen | Mode::Mute => Some(self.to),
            Mode::Refusing => Some(self.refusing),
            Mode::Cut => None,
        }
    }
}

/// Starts a server that refuses every call. Returns its address.
async fn refuse(refused: Arc<AtomicUsize>, stop: CancellationToken) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    let router = axum::Router::new().fallback(move || {
        refused.fetch_add(1, Ordering::Relaxed);
        std::future::ready(axum::http::StatusCode::FORBIDDEN)
    });
    let server = tonic::transport::Server::builder().add_routes(router.into());
    spawn("refuse", OnExit::Done, async move {
        let served = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled());
        drop(served.await);
    });
    Ok(addr)
}

async fn carry(near: TcpStream, targets: Targets, mut states: watch::Receiver<State>) {
    let Ok(State { mode, strandings }) =
        states.wait_for(|state| state.mode != Mode::Frozen).await.map(|state| *state)
    else {
        return;
    };
    let Some(target) = targets.of(mode) else { return };
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let mut cut = states.clone();
    tokio::select! {
        () = pass(near_in, far_out, states.clone(), strandings, &[Mode::Frozen]) => {}
        () = pass(far_in, near_out, states, strandings, &[Mode::Frozen, Mode::Mute]) => {}
        _ = cut.wait_for(|state| targets.of(state.mode) != Some(target)) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut states: watch::Receiver<State>,
    strandings: usize,
    held: &[Mode],
) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        let flows = |state: &State| !held.contains(&state.mode) && state.strandings == strandings;
        if states.wait_for(flows).await.is_err() {
            return;
        }
        let Some(part) = bytes.get(..count) else { return };
        if to.write_all(part).await.is_err() {
            return;
        }
    }
}
