//! How a control plane fails to start or stops running.

use std::net::SocketAddr;

use crate::notify::NotificationsError;
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
    #[error("failed to set up notifications: {0}")]
    Notifications(#[from] NotificationsError),
    #[error("failed to set up TLS: {0}")]
    Tls(String),
    #[error("failed to load the token file: {0}")]
    Token(String),
    /// A background task without which the control plane cannot work.
    #[error("background task `{0}` exited unexpectedly{reason}", reason = exit_reason(.0))]
    BackgroundTaskExited(&'static str),
    #[error("failed to set up reflection: {0}")]
    Reflection(String),
    #[error("failed to build the HTTP paths of the API: {0}")]
    Gateway(#[source] rota_gateway::Error),
}

impl Error {
    /// How to resolve the failure, where that is not obvious.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BackgroundTaskExited(_) => Some(
                "the cause is in the log above, usually a failure of the disk or a panic; resolve the cause and restart the \
                 control plane",
            ),
            Self::Seal(error) => Some(error.hint()),
            _ => None,
        }
    }
}

/// Returns what the exit of a background task means, where that is not obvious from its name.
fn exit_reason(name: &str) -> &'static str {
    match name {
        "commits" => ": the store's writer or its reader of commits ended",
        _ => "",
    }
}

/// Outcome of a requested shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownOutcome {
    /// Every call and background task ended by itself.
    Graceful,
    /// Something was still running after the grace period.
    Forced,
}
