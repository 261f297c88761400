//! The server's options and their defaults. Must not know how a request is answered.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::{Error, Handle, Server};

/// How the fake model is served. The default is a free port on loopback.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub addr: SocketAddr,
    /// Allows an address that other machines can reach, as in a demo inside a cluster.
    pub allow_remote: bool,
    /// The largest request body in bytes; more is answered with 413.
    pub max_body: usize,
    /// How many answers may be under way at once; more is answered with 529.
    pub max_active: usize,
    /// How many requests [`Handle::requests`] remembers.
    pub max_records: usize,
    /// How many failing steps the fault counter remembers; the oldest goes first.
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
    /// Listens, and gives back the server for the caller to run.
    pub async fn bind(self) -> Result<Server, Error> {
        if !self.allow_remote && !self.addr.ip().is_loopback() {
            return Err(Error::NotLoopback(self.addr));
        }
        let bind = |source| Error::Bind { addr: self.addr, source };
        let listener = TcpListener::bind(self.addr).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        Ok(Server::new(listener, addr, &self))
    }

    /// Listens and serves until shut down: [`Server::run`] in the foreground.
    pub async fn run(self) -> Result<(), Error> {
        self.bind().await?.run().await
    }

    /// Listens and serves in the background. Dropping every handle does not stop it: [`Handle::shutdown`] does, and
    /// so does the end of the runtime.
    pub async fn start(self) -> Result<Handle, Error> {
        let server = self.bind().await?;
        let handle = server.handle();
        // The one task of this crate; it has no telemetry of ours to be spawned by, and `shutdown` waits for its end.
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(server.run());
        Ok(handle)
    }
}
