//! Errors of starting and running the server. Errors on the wire are in `api_error`.

use std::net::SocketAddr;

/// Reason why the server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not loopback and `allow_remote` is not set.
    #[error("{0} is not a loopback address, and remote clients are not allowed")]
    NotLoopback(SocketAddr),
    #[error("failed to listen on {addr}")]
    Bind {
        addr: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("server failed")]
    Serve(#[source] std::io::Error),
}
