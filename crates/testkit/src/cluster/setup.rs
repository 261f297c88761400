//! What a control plane of tests is started with. Knows no control plane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::Duration;

use rota_core::breaker::Policy;
use rota_server::{BasePath, Limits, Oidc, People, SessionLimits, Timing, WebPushOptions};

/// Store of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The in-memory reference implementation, empty after a kill.
    Memory,
    /// SQLite with full durability.
    Sqlite,
}

/// Skew at which the store's clock panics, and with it the writer.
pub const PANIC_SKEW: i64 = i64::MIN;
/// Skew at which the store's clock blocks, and with it the writer, until the skew changes.
pub const BLOCK_SKEW: i64 = i64::MIN + 1;

/// Configuration of a [`Cluster`](super::Cluster).
#[derive(Debug, Clone)]
pub struct Setup {
    pub backend: Backend,
    pub timing: Timing,
    /// Policy of the circuit breakers.
    pub breakers: Policy,
    /// Limits of the connections of the gRPC listener.
    pub limits: Limits,
    /// Path below which a proxy serves the control centre and the HTTP API.
    pub base_path: BasePath,
    /// Origins whose pages may call with a token.
    pub cors_origins: Vec<String>,
    /// How long browsers stay signed in.
    pub sessions: SessionLimits,
    /// Push services through which browsers are notified.
    pub web_push: WebPushOptions,
    /// Bearer token that callers must present.
    pub token: Option<String>,
    /// Token of viewers, stored as `viewers` in the cluster's folder.
    pub viewer_token: Option<String>,
    /// Certificate and key as PEM, stored as `tls.crt` and `tls.key` in the cluster's folder. Clients trust them.
    pub tls: Option<(String, String)>,
    /// OIDC issuer whose tokens are accepted besides `token`.
    pub oidc: Option<Oidc>,
    /// Issuer of people, and what each of them may do.
    pub people: Option<People>,
    /// Bytes of artifacts that a namespace may have; 0 for no limit.
    pub artifacts_quota: u64,
    /// Whether to serve probes and metrics over HTTP.
    pub http: bool,
    /// Offset of the clock that the control plane shares with its store, as with that of a database, in microseconds.
    pub database_skew: i64,
    /// Offset of the store's clock in microseconds, [`PANIC_SKEW`] or [`BLOCK_SKEW`]. May change at any time.
    pub skew: Arc<AtomicI64>,
    /// Whether the store takes no writes, as with a full disk. Only with [`Backend::Memory`]; may change at any time.
    pub full: Arc<AtomicBool>,
    /// Whether the disk fails to sync: what it has written since its last sync may be lost. Only with [`Backend::Memory`].
    pub unsynced: Arc<AtomicBool>,
}

impl Setup {
    /// Returns a configuration with short timeouts and without authentication.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            timing: timing(),
            breakers: Policy::default(),
            limits: Limits::default(),
            base_path: BasePath::default(),
            cors_origins: Vec::new(),
            sessions: SessionLimits::default(),
            web_push: WebPushOptions::default(),
            token: None,
            viewer_token: None,
            tls: None,
            oidc: None,
            people: None,
            artifacts_quota: 0,
            http: false,
            database_skew: 0,
            skew: Arc::default(),
            full: Arc::default(),
            unsynced: Arc::default(),
        }
    }
}

/// Returns timeouts that are short enough for tests and long enough for a busy machine.
fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(500),
        heartbeat_timeout: Duration::from_secs(20),
        reconnect_grace: Duration::from_secs(5),
        recovery_grace: Duration::from_secs(30),
        shutdown_grace: Duration::from_secs(15),
        retention: None,
        ..Timing::default()
    }
}
