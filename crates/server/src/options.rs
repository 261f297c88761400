//! What a control plane is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rota_store::Store;
use secrecy::SecretString;

/// How to run a control plane.
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What callers must show; `None` lets everybody in.
    pub token: Option<SecretString>,
    /// Certificate and key; `None` speaks plain text.
    pub tls: Option<Tls>,
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// File with the key that seals secrets; made when it does not exist.
    pub key_file: PathBuf,
    /// Name of this replica.
    pub replica: String,
    /// Whether somebody starts workers for single tasks. Else isolation means nothing: every task is shared.
    pub isolates: bool,
    /// How long things may take.
    pub timing: Timing,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("token", &self.token.is_some())
            .field("tls", &self.tls.is_some())
            .field("key_file", &self.key_file)
            .field("replica", &self.replica)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: SecretString,
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Between heartbeats, both ways.
    pub heartbeat: Duration,
    /// Nothing heard of a worker for this long: its connection is dead.
    pub heartbeat_timeout: Duration,
    /// After this long without a session, a worker's tasks are given to others.
    pub reconnect_grace: Duration,
    /// The same for sessions from before this control plane started.
    pub recovery_grace: Duration,
    /// For streams to end when the server stops.
    pub shutdown_grace: Duration,
    /// Tasks that ended longer ago are removed; `None` keeps them.
    pub retention: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            heartbeat_timeout: Duration::from_secs(12),
            reconnect_grace: Duration::from_secs(10),
            recovery_grace: Duration::from_secs(120),
            shutdown_grace: Duration::from_secs(5),
            retention: Some(Duration::from_secs(30 * 24 * 3600)),
        }
    }
}
