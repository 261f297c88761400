//! TCP proxy on loopback that can freeze, so that connections stay open and nothing passes, as when a cable is pulled,
//! or cut all connections.

use std::net::SocketAddr;

use anyhow::Result;
use rota_telemetry::{OnExit, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Frozen,
    Cut,
}

/// Proxy between a worker and its control plane. Dropping it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    mode: watch::Sender<Mode>,
    _over: tokio_util::sync::DropGuard,
}

impl Proxy {
    /// Starts a proxy that forwards to `to`.
    pub async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Open);
        let over = CancellationToken::new();
        let stop = over.clone();
        spawn("proxy", OnExit::Done, async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((near, _)) = accepted else { continue };
                let (modes, stop) = (modes.clone(), stop.clone());
                spawn("proxied", OnExit::Done, async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = carry(near, to, modes) => {}
                    }
                });
            }
        });
        Ok(Self { addr, mode, _over: over.drop_guard() })
    }

    /// Returns the address that the proxy listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops forwarding without closing anything: neither side notices.
    pub fn freeze(&self) {
        self.mode.send_replace(Mode::Frozen);
    }

    /// Closes all connections, and new ones as they arrive.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Forwards again, including what was received while frozen.
    pub fn open(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

async fn carry(near: TcpStream, to: SocketAddr, mut modes: watch::Receiver<Mode>) {
    if modes.wait_for(|mode| *mode != Mode::Frozen).await.is_err() || *modes.borrow() == Mode::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let mut cut = modes.clone();
    tokio::select! {
        () = pass(near_in, far_out, modes.clone()) => {}
        () = pass(far_in, near_out, modes) => {}
        _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        if modes.wait_for(|mode| *mode != Mode::Frozen).await.is_err() {
            return;
        }
        let Some(part) = bytes.get(..count) else { return };
        if to.write_all(part).await.is_err() {
            return;
        }
    }
}
