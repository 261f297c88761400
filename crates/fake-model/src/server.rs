//! The server's life: serve, be asked to stop, stop. Must not know what a request says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::attempts::Attempts;
use crate::routes::{self, App};
use crate::stats::Stats;
use crate::{Counts, Error, Options, RequestRecord};

/// How long open connections may take to end once everything that waits has been told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A bound server that is not running yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    max_body: usize,
    handle: Handle,
    // Tells whoever waits in `shutdown`, also when the server is dropped without having run.
    ended: DropGuard,
}

/// A cheap, shared view of a server: where it is, what it saw, and the switch to stop it.
#[derive(Clone, Debug)]
pub struct Handle {
    addr: SocketAddr,
    stats: Arc<Stats>,
    attempts: Arc<Attempts>,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Server {
    pub(crate) fn new(listener: TcpListener, addr: SocketAddr, options: &Options) -> Self {
        let ended = CancellationToken::new();
        let handle = Handle {
            addr,
            stats: Arc::new(Stats::new(options.max_records, options.max_active)),
            attempts: Arc::new(Attempts::new(options.max_attempts)),
            stop: CancellationToken::new(),
            ended: ended.clone(),
        };
        Self { listener, max_body: options.max_body, handle, ended: ended.drop_guard() }
    }

    /// The handle of this server.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::shutdown`]. Answers that hang or wait are cut then.
    pub async fn run(self) -> Result<(), Error> {
        let Self { listener, max_body, handle, ended } = self;
        let _ended = ended;
        let stop = handle.stop.clone();
        let app = App { stats: handle.stats, attempts: handle.attempts, stop: handle.stop };
        let serving = axum::serve(listener, routes::router(app, max_body))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            served = serving => served.map_err(Error::Serve),
            () = async { stop.cancelled().await; tokio::time::sleep(STOP_WITHIN).await } => Ok(()),
        }
    }
}

impl Handle {
    /// Where the server listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The value for `ANTHROPIC_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The last requests, oldest first. Without prompts, answers or keys.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.stats.requests()
    }

    /// How many requests were seen, by status, and how many answers are under way.
    pub fn counts(&self) -> Counts {
        self.stats.counts()
    }

    /// Waits until the counts are as asked, and returns them. Waits for ever if that never happens: give it a timeout.
    pub async fn until(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        self.stats.until(wanted).await
    }

    /// Stops the server, cuts what is under way, and waits for its end.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}
