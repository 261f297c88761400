//! What can go wrong when the server starts or stops. Owns no wire errors: those are in `api_error`.

use std::net::SocketAddr;

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is reachable from other machines, and that was not asked for.
    #[error(
        "{0} is not a loopback address: a fake model is only served to others when `allow_remote` is set"
    )]
    NotLoopback(SocketAddr),
    /// The address could not be bound.
    #[error("cannot listen on {addr}")]
    Bind {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The listener failed while serving.
    #[error("the server stopped")]
    Serve(#[source] std::io::Error),
}
