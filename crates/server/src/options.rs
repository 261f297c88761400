//! Options of a control plane, as its caller puts them together. Knows nothing of files and flags; see
//! `settings`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rota_artifacts::Parts;
use rota_core::breaker::Policy;
use rota_proto::v1::Overrides;
use rota_store::Store;
use rota_store::single_writer::Clock;
use rota_telemetry::BackgroundTasks;
use secrecy::SecretString;

use crate::base_path::BasePath;
use crate::follow::Follow;
use crate::notify::{Receiver, WebPushOptions};
use crate::schedules::WallClock;
use crate::seal::KeyFiles;
use crate::trust::people::People;

/// Default address of the gRPC listener: reachable only from this machine.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);

/// What the workers of pools are, which decides what isolation can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolKind {
    /// Processes on this machine. None is started for a single task: `isolation` is ignored, and every task is shared. None is started
    /// because others do not isolate their attempts: it would not either.
    Processes,
    /// Pods, or workers on several machines. Single tasks may have their own, and new ones may isolate attempts where others do not.
    Pods,
}

/// Options of a control plane.
pub struct Options {
    /// Address of the gRPC listener.
    pub listen: SocketAddr,
    /// Admin token. Without it, `oidc` and `people`, unauthenticated callers are accepted.
    pub token: Option<Token>,
    /// File with the token of viewers, who only read; read again when it changes.
    pub viewer_token: Option<PathBuf>,
    /// Issuer whose tokens are accepted in addition to the admin token.
    pub oidc: Option<Oidc>,
    /// Issuer with which people sign in, and what each of them may do.
    pub people: Option<People>,
    /// Address of the HTTP probe and metrics listener.
    pub http_listen: Option<SocketAddr>,
    /// Certificate and key; `None` serves plain text.
    pub tls: Option<Tls>,
    /// Store of all records.
    pub store: Arc<dyn Store>,
    /// Clock of the store, by which it sets deadlines: that of a shared database may differ from this machine's.
    pub clock: Clock,
    /// Storage of the contents of artifacts.
    pub artifacts: Parts,
    /// Bytes that the artifacts of a namespace may take; 0 for no limit.
    pub artifacts_quota: u64,
    /// Files of the keys that encrypt secrets.
    pub keys: KeyFiles,
    /// Name of this replica.
    pub replica: String,
    /// What the workers of pools are.
    pub pool_kind: PoolKind,
    /// What tasks may set besides their work if their agent has no `overrides`: everything where one person owns agents and
    /// tasks.
    pub overrides: Overrides,
    /// Intervals and timeouts.
    pub timing: Timing,
    /// Whether the control centre is served, on the address of the API.
    pub console: bool,
    /// Path below which a proxy serves the control centre and the HTTP API.
    pub base_path: BasePath,
    /// Limits of the connections of the gRPC listener, and of work.
    pub limits: Limits,
    /// Origins whose pages may call with a token, besides the control plane's own.
    pub cors_origins: Vec<HeaderValue>,
    /// How long browsers stay signed in.
    pub sessions: SessionLimits,
    /// Policy of the agents' circuit breakers.
    pub breakers: Policy,
    /// Receivers of notifications outside of Rota.
    pub notifications: Vec<Receiver>,
    /// Push services of browsers that are notified while no page is open; `None` notifies none.
    pub web_push: Option<WebPushOptions>,
    /// Repositories whose pull requests continue tasks.
    pub follow: Option<Follow>,
    /// Registry of background tasks; may be shared with other components of the process.
    pub background_tasks: BackgroundTasks,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("token", &self.token.is_some())
            .field("tls", &self.tls.is_some())
            .field("oidc", &self.oidc)
            .field("people", &self.people)
            .field("http_listen", &self.http_listen)
            .field("artifacts", &self.artifacts)
            .field("keys", &self.keys)
            .field("replica", &self.replica)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// Interval at which files that others replace are read again.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Admin token.
#[derive(Debug, Clone)]
pub enum Token {
    /// Fixed value.
    Fixed(SecretString),
    /// Content of a file, which is read again when it changes.
    File(PathBuf),
}

/// PEM files of a certificate and its key, which are read again when they change.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Interval at which the files are checked for changes.
    pub reload: Duration,
}

impl Tls {
    /// Returns TLS options that check the files every ten seconds: clusters renew certificates days ahead.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, reload: RELOAD_INTERVAL }
    }
}

/// OpenID Connect issuer, such as a cluster that issues tokens to its pods.
#[derive(Debug, Clone)]
pub struct Oidc {
    /// Required `iss` claim.
    pub issuer: String,
    /// URL of the signing keys; `None` uses the issuer's discovery document.
    pub jwks_url: Option<String>,
    /// PEM file with the CA certificates trusted for the issuer, instead of the system's.
    pub ca: Option<PathBuf>,
    /// File with the token presented to the issuer.
    pub token_file: Option<PathBuf>,
    /// `aud` claims, one of which is required.
    pub audiences: Vec<String>,
    /// `sub` claim of the operator.
    pub operator: Option<String>,
    /// Minimum interval between fetches caused by tokens with an unknown key.
    pub refetch: Duration,
    /// Age at which known keys are fetched again.
    pub refresh: Duration,
}

impl Oidc {
    /// Returns an issuer with the default intervals and everything else unset.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            jwks_url: None,
            ca: None,
            token_file: None,
            audiences: vec![audience.into()],
            operator: None,
            refetch: Duration::from_secs(10),
            refresh: Duration::from_secs(5 * 60),
        }
    }

    /// Returns the `iss` claim of a token without verifying it. Only for a token of our own.
    pub fn issuer_of(token: &str) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Claims {
            iss: String,
        }
        jsonwebtoken::dangerous::insecure_decode::<Claims>(token.trim()).ok().map(|token| token.claims.iss)
    }

    /// Rejects URLs from which keys must not be fetched: on a plain connection an attacker could replace
    /// the keys and sign tokens.
    pub fn check_url(url: &str) -> Result<(), &'static str> {
        rota_oidc::check_url(url)
    }
}

/// Intervals and timeouts of a control plane.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Interval between heartbeats of a session, in both directions.
    pub heartbeat: Duration,
    /// Silence after which the connection of a worker is considered dead.
    pub heartbeat_timeout: Duration,
    /// Time without a session after which the tasks of a worker are requeued.
    pub reconnect_grace: Duration,
    /// Reconnect grace for sessions from before this control plane started.
    pub recovery_grace: Duration,
    /// Grace period for open streams on shutdown.
    pub shutdown_grace: Duration,
    /// Age at which finished tasks are deleted; `None` keeps them.
    pub retention: Option<Duration>,
    /// Source of the time of schedules.
    pub wall_clock: WallClock,
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
            wall_clock: WallClock::default(),
        }
    }
}

/// How long browsers stay signed in.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Time without a call after which a session ends.
    pub idle: Duration,
    /// Time after which a session ends, whatever use is made of it.
    pub lifetime: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(24 * 3600), lifetime: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Limits of the work that is accepted; 0 means no limit.
#[derive(Debug, Clone, Copy)]
pub struct WorkLimits {
    /// Tasks that wait, of all namespaces together.
    pub waiting_tasks: u64,
    /// Tasks that wait, of one namespace.
    pub waiting_tasks_of_namespace: u64,
    /// Memory of the process in bytes; `None` for nine tenths of what its control group or the machine has.
    pub memory: Option<u64>,
}

impl Default for WorkLimits {
    fn default() -> Self {
        Self { waiting_tasks: 2_000_000, waiting_tasks_of_namespace: 1_500_000, memory: None }
    }
}

/// Limits of connections, and of work. Those of messages are constants; `docs/limits.md` lists all.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Concurrent connections; further peers wait until one ends.
    pub connections: usize,
    /// Concurrent connections of one peer address without an authenticated call, handshakes among them; the oldest makes room for
    /// further ones.
    pub unauthenticated_per_address: usize,
    /// Concurrent calls of a connection; further calls wait in the client.
    pub streams: u32,
    /// Time from the start of a connection to its first call.
    pub first_call: Duration,
    /// Time from a call without authentication to the next call.
    pub anonymous_idle: Duration,
    /// Age at which a connection takes no further calls, so that clients connect again. Running calls go on.
    pub connection_age: Duration,
    /// Limits of the work that is accepted, by tasks and by memory.
    pub work: WorkLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            unauthenticated_per_address: 256,
            streams: 1024,
            first_call: Duration::from_secs(10),
            anonymous_idle: Duration::from_secs(60),
            connection_age: Duration::from_secs(3600),
            work: WorkLimits::default(),
        }
    }
}
