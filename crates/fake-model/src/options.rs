//! Options of the server and their defaults.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::{Error, Handle, Server};

/// Options of the server. By default it listens on a free loopback port.
#[derive(Clone, Debug)]
pub struct Options {
    /// Listen address; port 0 selects a free port.
    pub addr: SocketAddr,
    /// Whether to allow an address that is reachable from other machines, as for a demo in a cluster.
    pub allow_remote: bool,
    /// Maximum size of a request body in bytes; a larger one gets 413.
    pub max_body: usize,
    /// Maximum number of concurrent answers; a further one gets 529.
    pub max_active: usize,
    /// Number of requests kept for [`Handle::requests`].
    pub max_records: usize,
    /// Number of failing steps whose attempts are counted; the oldest is evicted.
    pub max_attempts: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_remote: false,
            max_body: 32 * 1024 * 1024,
            max_active: 4096,
            max_records: 1024,
            max_attempts: 4096,
        }
    }
}

impl Options {
    /// Binds the listener; the caller runs the returned server.
    pub async fn bind(self) -> Result<Server, Error> {
        if !self.allow_remote && !self.addr.ip().is_loopback() {
            return Err(Error::NotLoopback(self.addr));
        }
        let bind = |source| Error::Bind { addr: self.addr, source };
        let listener = TcpListener::bind(self.addr).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        Ok(Server::new(listener, addr, &self))
    }

    /// Runs the server in the foreground until it is shut down.
    pub async fn run(self) -> Result<(), Error> {
        self.bind().await?.run().await
    }

    /// Runs the server in the background until [`Handle::shutdown`] or the end of the runtime. Dropping all handles
    /// does not stop it.
    pub async fn start(self) -> Result<Handle, Error> {
        let server = self.bind().await?;
        let handle = server.handle();
        // The only task of this crate, which does not depend on the project's telemetry; `shutdown` awaits its end.
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(server.run());
        Ok(handle)
    }
}
