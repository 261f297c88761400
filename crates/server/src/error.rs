//! How a control plane fails to start or stops running.

use std::net::SocketAddr;

use crate::seal;

/// Failure of a control plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] rota_store::Error),
    #[error("the store is already in use by another control plane in this process")]
    InUse,
    #[error(transparent)]
    Seal(#[from] seal::Error),
    #[error("failed to set up TLS: {0}")]
    Tls(String),
    #[error("failed to load the token file: {0}")]
    Token(String),
    #[error("failed to serve: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// A background task without which the control plane cannot work.
    #[error("background task `{0}` exited unexpectedly")]
    BackgroundTaskExited(&'static str),
    #[error("failed to set up reflection: {0}")]
    Reflection(String),
}

/// Outcome of a requested shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every call and background task ended by itself.
    InOrder,
    /// Something was still running after the grace period.
    Cut,
}
