//! Connections of a standby: each is passed on to the owner, as bytes, and gives its place back once either side is done with
//! it. Knows nothing of protocols, and trusts neither side to close.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use rota_telemetry::{OnExit, spawn};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Owner;
use crate::trust::accept;
use crate::trust::addresses::{Addresses, WhenFull};

/// Connections that are passed on at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: u32 = 4096;
/// Those of one address; further ones are closed. Connections with and without a token look alike here.
pub(super) const MAX_PER_ADDRESS: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for which a new connection waits for an owner, such as during a takeover.
const OWNER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one side to end after the other one has. An owner closes a connection for good, also of a client that never does.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Least time between warnings about one cause.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Connections to pass on, and where to.
#[derive(Debug, Clone)]
pub(super) struct Passing {
    /// The replica's own address. An owner that was restarted is a standby at the same address, which would pass connections
    /// to itself.
    own: String,
    owners: watch::Receiver<Option<Owner>>,
    places: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    /// Connections that are being passed on.
    open: Gauge,
    warned: Arc<Warned>,
}

/// When warnings were last given.
#[derive(Debug, Default)]
struct Warned {
    full: Mutex<Option<Instant>>,
    unreachable: Mutex<Option<Instant>>,
}

fn is_due(last: &Mutex<Option<Instant>>) -> bool {
    let mut last = last.lock();
    let due = last.is_none_or(|at| at.elapsed() >= WARN_INTERVAL);
    if due {
        *last = Some(Instant::now());
    }
    due
}

impl Passing {
    pub(super) fn new(own: &str, owners: watch::Receiver<Option<Owner>>, per_address: usize) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        let addresses = Addresses::new(per_address, WhenFull::Refuse);
        Self {
            own: own.to_owned(),
            owners,
            places,
            addresses,
            open: Gauge::default(),
            warned: Arc::default(),
        }
    }

    /// Accepts connections until `closing`, and passes them on until `stop`.
    pub(super) async fn run(
        self,
        listener: TcpListener,
        closing: CancellationToken,
        stop: CancellationToken,
    ) {
        let accepting = async {
            loop {
                if self.places.available_permits() == 0 && is_due(&self.warned.full) {
                    tracing::warn!(limit = MAX_CONNECTIONS, "connection limit reached, further peers wait");
                }
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
                let stream = accept::accept(&listener).await;
                // A connection without a peer is closed already.
                let Ok(peer) = stream.peer_addr() else { continue };
                let Some(of_address) = self.addresses.admit(peer.ip()) else { continue };
                let (passing, stop) = (self.clone(), stop.clone());
                spawn("passed-connection", OnExit::Done, async move {
                    let _places = (place, of_address);
                    passing.open.inc();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = passing.pass(stream) => {}
                    }
                    passing.open.dec();
                });
            }
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = accepting => {}
        }
    }

    /// Waits until no connection is left, once none is accepted any more.
    pub(super) async fn all_closed(&self) {
        // Fails only for a semaphore that was closed, which this one never is.
        let _ = self.places.acquire_many(MAX_CONNECTIONS).await;
    }

    /// Returns the number of connections that are being passed on.
    pub(super) fn open(&self) -> i64 {
        self.open.get()
    }

    /// Returns the owner, if it is another replica that can be reached.
    pub(super) fn owner(&self) -> Option<Owner> {
        let owner = self.owners.borrow().clone();
        owner.filter(|owner| self.is_another(owner))
    }

    fn is_another(&self, owner: &Owner) -> bool {
        !owner.address.is_empty() && owner.address != self.own
    }

    /// Passes one connection on, until it is closed or another replica owns the database.
    async fn pass(&self, mut client: TcpStream) {
        let mut owners = self.owners.clone();
        let known = timeout(OWNER_TIMEOUT, owners.wait_for(Option::is_some)).await;
        let Ok(Ok(Some(owner))) = known.map(|known| known.map(|owner| owner.clone())) else { return };
        if !self.is_another(&owner) {
            return;
        }
        let mut onward = match connect(&owner.address).await {
            Ok(onward) => onward,
            Err(error) => {
                if is_due(&self.warned.unreachable) {
                    let Owner { name, address } = owner;
                    tracing::warn!(%error, owner = name, address, "the owner is not reached, closing connections to it");
                }
                return;
            }
        };
        accept::configure(&onward);
        tokio::select! {
            () = relay(&mut client, &mut onward) => {}
            _ = owners.wait_for(|now| now.as_ref() != Some(&owner)) => {}
        }
    }
}

/// Connects to an owner, with a limit.
pub(super) async fn connect(address: &str) -> io::Result<TcpStream> {
    timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await?
}

/// Copies in both directions until both have ended. After the owner's has, the client has little time to close; a client that only
/// ends its own side waits for answers as long as the owner lets it.
async fn relay(client: &mut TcpStream, owner: &mut TcpStream) {
    let (from_client, to_client) = client.split();
    let (from_owner, to_owner) = owner.split();
    let mut calls = pin!(copy_to_end(from_client, to_owner));
    let mut answers = pin!(copy_to_end(from_owner, to_client));
    tokio::select! {
        // Whatever is left after it is dropped.
        _ = &mut answers => drop(timeout(CLOSE_TIMEOUT, calls).await),
        called = &mut calls => if called.is_ok() {
            drop(answers.await);
        }
    }
}

async fn copy_to_end(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}
