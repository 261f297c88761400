//! Life cycle of the server: run, shut down. Must not know what a request contains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::app::App;
use crate::attempts::Attempts;
use crate::refusal::{Refusal, Refusals};
use crate::routes;
use crate::stats::Stats;
use crate::{Counts, Error, Options, RequestRecord};

/// Time for open connections to end after all waits were cancelled.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A bound server that does not run yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    max_body: usize,
    handle: Handle,
    // Wakes `Handle::shutdown`, even if the server is dropped without having run.
    ended: DropGuard,
}

/// Cheap, shared handle to a server: its address, its statistics, and its shutdown.
#[derive(Clone, Debug)]
pub struct Handle {
    addr: SocketAddr,
    stats: Arc<Stats>,
    attempts: Arc<Attempts>,
    refusals: Arc<Refusals>,
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
            refusals: Arc::default(),
            stop: CancellationToken::new(),
            ended: ended.clone(),
        };
        Self { listener, max_body: options.max_body, handle, ended: ended.drop_guard() }
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until [`Handle::shutdown`], which cuts answers that hang or wait.
    pub async fn run(self) -> Result<(), Error> {
        let Self { listener, max_body, handle, ended } = self;
        let _ended = ended;
        let stop = handle.stop.clone();
        let Handle { stats, attempts, refusals, .. } = handle;
        let app = App { stats, attempts, refusals, stop: handle.stop };
        let serving = axum::serve(listener, routes::router(app, max_body))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::select! {
            served = serving => served.map_err(Error::Serve),
            () = async { stop.cancelled().await; tokio::time::sleep(SHUTDOWN_TIMEOUT).await } => Ok(()),
        }
    }
}

impl Handle {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the value for `ANTHROPIC_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the last requests, oldest first, without prompts, answers and keys.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.stats.requests()
    }

    /// Returns the number of requests, by status and outcome, and of active answers.
    pub fn counts(&self) -> Counts {
        self.stats.counts()
    }

    /// Refuses requests for messages from now on, or no longer.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.refusals.set(refusal);
    }

    /// Waits until the counts satisfy a condition, and returns them. Has no timeout.
    pub async fn until(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        self.stats.until(wanted).await
    }

    /// Stops the server, cuts active answers, and waits for its end.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}
