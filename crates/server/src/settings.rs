//! Settings of `rota server`: keys, flags, environment variables and defaults. Knows nothing of how a file or
//! a command line is read, and does not open the store.

mod artifacts;
mod error;
mod oidc;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::HeaderValue;
use rota_core::breaker::Policy;
use rota_proto::v1::Overrides;
use rota_settings::HumanDuration;
use rota_store::Store;
use rota_store::single_writer::Clock;
use rota_telemetry::{BackgroundTasks, env};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::error::SettingsError;
use crate::base_path::BasePath;
use crate::follow::Follow;
use crate::notify::{Receiver, WebPushOptions};
use crate::options::{
    DEFAULT_LISTEN, Limits, Options, PoolKind, SessionLimits, Timing, Tls, Token, WorkLimits,
};
use crate::seal::KeyFiles;

/// MiB of artifacts of a namespace, unless `artifacts_quota_mib` is set.
const DEFAULT_QUOTA_MIB: u64 = 10 * 1024;
/// Heading of the flags about OpenID Connect in `--help`.
const OIDC: &str = "OpenID Connect";

/// Settings of `rota server`.
#[derive(Debug, Clone, Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address of the gRPC listener; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Directory of the database and of the key that encrypts secrets in it
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// PostgreSQL database of all records instead of a file in --data-dir: `postgres://USER@HOST:PORT/DATABASE`, or a file that
    /// contains such a URL; several replicas may share it
    #[arg(long, value_name = "URL|FILE")]
    pub store: Option<String>,
    /// File with the password of --store
    #[arg(long, value_name = "FILE", requires = "store")]
    pub store_password_file: Option<PathBuf>,
    /// Time for which a database that cannot be reached at the start is waited for
    #[arg(long, value_name = "TIME", requires = "store")]
    pub store_connect_timeout: HumanDuration,
    /// File with the key of 32 bytes that encrypts secrets; with --store required, and the same for all replicas [default:
    /// secrets.key in --data-dir, made if it is missing]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// File with the key that `rota admin rotate-key` seals all secrets under; all replicas need both keys until it has ended
    #[arg(long, value_name = "FILE")]
    pub next_key_file: Option<PathBuf>,
    /// Use the key of --key-file although the store names another one, which is lost: what is sealed under that cannot be read any
    /// more
    #[arg(long)]
    pub replace_lost_key: bool,
    /// `HOST:PORT` at which the other replicas reach this one, with --store [default: --listen]
    #[arg(long, value_name = "ADDRESS", requires = "store")]
    pub advertise: Option<String>,
    /// Folder or object store of artifacts: `file:///DIR`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or
    /// `az://CONTAINER/PREFIX`, with credentials from the variables of the cloud's own tools [default: the folder artifacts of --data-dir]
    #[arg(long, value_name = "URL")]
    pub artifacts: Option<String>,
    /// MiB that the artifacts of a namespace may take, compressed; 0 for no limit
    #[arg(long, value_name = "COUNT")]
    pub artifacts_quota_mib: u64,
    /// Tasks that may wait, of all namespaces together; 0 for no limit. From 80 % on new tasks of low priority are refused, from 90 % on all but those
    /// of high priority
    #[arg(long, value_name = "COUNT")]
    pub max_waiting_tasks: u64,
    /// Tasks of one namespace that may wait; 0 for no limit
    #[arg(long, value_name = "COUNT")]
    pub max_waiting_tasks_per_namespace: u64,
    /// MiB of memory that the control plane may have, near which new tasks are refused as near --max-waiting-tasks; 0 for no limit [default: nine
    /// tenths of what its control group, or the machine, has]
    #[arg(long, value_name = "COUNT")]
    pub memory_limit_mib: Option<u64>,
    /// TOML file with the receivers of notifications (webhooks, Slack) about tasks that wait for a person, have failed or have
    /// nearly spent their budget; read at the start
    #[arg(long, value_name = "FILE")]
    pub notifications: Option<PathBuf>,
    /// Comma-separated push services, as `HOST`, `*.DOMAIN` or an `https://` origin, through which browsers may be notified while no page is open;
    /// may be repeated [default: those of Chrome, Edge, Firefox and Safari]
    #[arg(long, value_name = "SERVICES", value_delimiter = ',')]
    pub web_push_service: Vec<String>,
    /// `mailto:` or `https://` URL at which operators of push services reach those of this control plane; Safari wants one [default: none]
    #[arg(long, value_name = "URL")]
    pub web_push_contact: Option<String>,
    /// Notify browsers only while a page is open
    #[arg(long)]
    pub no_web_push: bool,
    /// TOML file with repositories whose pull requests are followed: checks that fail, and comments, continue their tasks; read at the start
    #[arg(long, value_name = "FILE")]
    pub follow_pull_requests: Option<PathBuf>,
    /// File with the admin token that clients must present
    #[arg(skip)]
    #[schemars(extend("x-flag" = "--token-file"))]
    pub token_file: Option<PathBuf>,
    /// File with the token of viewers, who read everything and change nothing
    #[arg(long, value_name = "FILE")]
    pub viewer_token_file: Option<PathBuf>,
    /// PEM file with the server's certificate chain
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the server's private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Name of this replica, as shown to workers and in `rota admin status`
    #[arg(long, value_name = "NAME")]
    pub replica: String,
    /// Address of the plain HTTP listener for /livez, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,
    /// OIDC issuer whose tokens are accepted [default: the issuer of --oidc-token-file]
    #[arg(long, value_name = "URL", help_heading = OIDC)]
    pub oidc_issuer: Option<String>,
    /// URL of the issuer's signing keys (JWKS) [default: from the issuer's discovery document]
    #[arg(long, value_name = "URL", help_heading = OIDC)]
    pub oidc_jwks_url: Option<String>,
    /// PEM file with the CA certificates trusted for the issuer [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = OIDC)]
    pub oidc_ca: Option<PathBuf>,
    /// File with the token presented to the issuer; read again for each request
    #[arg(long, value_name = "FILE", help_heading = OIDC)]
    pub oidc_token_file: Option<PathBuf>,
    /// Required `aud` claim of tokens [default: rota]
    #[arg(long, value_name = "NAME", help_heading = OIDC)]
    pub oidc_audience: Option<String>,
    /// `sub` claim of the operator, such as system:serviceaccount:rota:rota-operator
    #[arg(long, value_name = "SUBJECT", help_heading = OIDC)]
    pub oidc_operator: Option<String>,
    /// TOML file with the OpenID Connect issuer that people sign in with, and who of them may do what; read at the start
    #[arg(long, value_name = "FILE", help_heading = OIDC)]
    pub sign_in: Option<PathBuf>,
    /// Comma-separated origins whose pages may call the APIs with a token, such as `https://app.example`; may be repeated [default:
    /// none but the control plane's own pages]
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    pub cors_origin: Vec<String>,
    /// Time without a call after which a browser that has signed in is asked to sign in again
    #[arg(long, value_name = "TIME")]
    pub session_idle: HumanDuration,
    /// Time after which a browser that has signed in is asked to sign in again, whatever use it makes
    #[arg(long, value_name = "TIME")]
    pub session_lifetime: HumanDuration,
    /// Serve no control centre: only the APIs
    #[arg(long)]
    pub no_console: bool,
    /// Path below which a proxy serves the control centre and the HTTP API, such as `/rota` [default: none]
    #[arg(long, value_name = "PATH")]
    pub base_path: Option<String>,
    /// Require no token: every program that reaches the address may do everything
    #[arg(long)]
    pub insecure: bool,
    /// Interval between heartbeats of a worker session, in both directions
    #[arg(long, value_name = "TIME")]
    pub heartbeat: HumanDuration,
    /// Silence after which the connection of a worker is considered dead
    #[arg(long, value_name = "TIME")]
    pub heartbeat_timeout: HumanDuration,
    /// Time without a session after which the tasks of a worker are requeued [default: 10s, or 20s with --store]
    #[arg(long, value_name = "TIME")]
    pub reconnect_grace: Option<HumanDuration>,
    /// Reconnect grace after a start, for workers connected before it
    #[arg(long, value_name = "TIME")]
    pub recovery_grace: HumanDuration,
    /// Grace period for open streams on shutdown
    #[arg(long, value_name = "TIME")]
    pub shutdown_grace: HumanDuration,
    /// Age at which finished tasks are deleted; 0s keeps them
    #[arg(long, value_name = "TIME")]
    pub retention: HumanDuration,
    /// Consecutive infrastructure failures that open an agent's circuit breaker; 0 disables
    #[arg(long, value_name = "COUNT")]
    pub breaker_failures: u32,
    /// Initial cooldown of an open circuit breaker before it admits a probe task; doubles each time it reopens
    #[arg(long, value_name = "TIME")]
    pub breaker_cooldown: HumanDuration,
}

impl Default for Settings {
    fn default() -> Self {
        let (timing, breakers, sessions) = (Timing::default(), Policy::default(), SessionLimits::default());
        let work = WorkLimits::default();
        Self {
            listen: DEFAULT_LISTEN,
            data_dir: env::rota_home().join("server"),
            store: None,
            store_password_file: None,
            store_connect_timeout: HumanDuration(Duration::from_secs(60)),
            key_file: None,
            next_key_file: None,
            replace_lost_key: false,
            advertise: None,
            artifacts: None,
            artifacts_quota_mib: DEFAULT_QUOTA_MIB,
            max_waiting_tasks: work.waiting_tasks,
            max_waiting_tasks_per_namespace: work.waiting_tasks_of_namespace,
            memory_limit_mib: None,
            notifications: None,
            web_push_service: Vec::new(),
            web_push_contact: None,
            no_web_push: false,
            follow_pull_requests: None,
            token_file: None,
            viewer_token_file: None,
            tls_certificate: None,
            tls_key: None,
            replica: "server".to_owned(),
            http_listen: None,
            oidc_issuer: None,
            oidc_jwks_url: None,
            oidc_ca: None,
            oidc_token_file: None,
            oidc_audience: None,
            oidc_operator: None,
            sign_in: None,
            cors_origin: Vec::new(),
            session_idle: HumanDuration(sessions.idle),
            session_lifetime: HumanDuration(sessions.lifetime),
            no_console: false,
            base_path: None,
            insecure: false,
            heartbeat: HumanDuration(timing.heartbeat),
            heartbeat_timeout: HumanDuration(timing.heartbeat_timeout),
            reconnect_grace: None,
            recovery_grace: HumanDuration(timing.recovery_grace),
            shutdown_grace: HumanDuration(timing.shutdown_grace),
            retention: HumanDuration(timing.retention.unwrap_or_default()),
            breaker_failures: breakers.failures,
            breaker_cooldown: HumanDuration(breakers.cooldown),
        }
    }
}

impl rota_settings::Settings for Settings {
    const ENV_PREFIX: &'static str = "ROTA_SERVER_";
}

impl Settings {
    /// Fails if settings contradict each other. Reads the OIDC token file where it names the issuer.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let authenticated = self.has_issuer()? || self.token_file.is_some();
        if !authenticated && !self.insecure {
            return Err(SettingsError::Unauthenticated(self.listen));
        }
        if !authenticated && self.viewer_token_file.is_some() {
            return Err(SettingsError::ViewersAlone);
        }
        if !authenticated && !self.cors_origin.is_empty() {
            return Err(SettingsError::OriginsAlone);
        }
        self.cors_origins()?;
        self.web_push()?;
        self.check_store()?;
        self.tls().map(|_| ())
    }

    /// Returns the options of a server on a store that the caller opened in `data_dir`, with the clock by which that sets deadlines.
    /// `owner` is an id of what the store lies on, which a restored copy of it elsewhere does not have; that of `data_dir` by default.
    pub fn options(
        &self,
        store: Arc<dyn Store>,
        clock: Clock,
        owner: Option<String>,
    ) -> Result<Options, SettingsError> {
        Ok(Options {
            listen: self.listen,
            token: self.token_file.clone().map(Token::File),
            viewer_token: self.viewer_token_file.clone(),
            oidc: self.oidc()?,
            people: self.people()?,
            http_listen: self.http_listen,
            tls: self.tls()?,
            store,
            clock,
            artifacts: self.artifacts(owner)?,
            artifacts_quota: self.artifacts_quota_mib << 20,
            keys: self.keys(),
            replica: self.replica.clone(),
            pool_kind: PoolKind::Pods,
            overrides: Overrides::Limits,
            timing: Timing {
                heartbeat: self.heartbeat.0,
                heartbeat_timeout: self.heartbeat_timeout.0,
                reconnect_grace: self.reconnect_grace(),
                recovery_grace: self.recovery_grace.0,
                shutdown_grace: self.shutdown_grace.0,
                retention: Some(self.retention.0).filter(|time| *time > Duration::ZERO),
                wall_clock: Default::default(),
            },
            limits: Limits { work: self.work_limits(), ..Limits::default() },
            cors_origins: self.cors_origins()?,
            sessions: SessionLimits { idle: self.session_idle.0, lifetime: self.session_lifetime.0 },
            console: !self.no_console,
            base_path: self.base_path()?,
            notifications: self.notifications.as_deref().map(Receiver::load).transpose()?.unwrap_or_default(),
            web_push: self.web_push()?,
            follow: self.follow_pull_requests.as_deref().map(Follow::load).transpose()?,
            breakers: Policy { failures: self.breaker_failures, cooldown: self.breaker_cooldown.0 },
            background_tasks: BackgroundTasks::default(),
        })
    }

    /// Returns the files of the keys that encrypt secrets.
    pub fn keys(&self) -> KeyFiles {
        KeyFiles {
            file: self.key_file.clone().unwrap_or_else(|| self.data_dir.join("secrets.key")),
            next: self.next_key_file.clone(),
            replace_lost: self.replace_lost_key,
        }
    }

    fn work_limits(&self) -> WorkLimits {
        WorkLimits {
            waiting_tasks: self.max_waiting_tasks,
            waiting_tasks_of_namespace: self.max_waiting_tasks_per_namespace,
            memory: self.memory_limit_mib.map(|mib| mib.saturating_mul(1 << 20)),
        }
    }

    fn web_push(&self) -> Result<Option<WebPushOptions>, SettingsError> {
        let options = WebPushOptions::new(&self.web_push_service, self.web_push_contact.clone());
        options.map(|options| Some(options).filter(|_| !self.no_web_push)).map_err(SettingsError::WebPush)
    }

    fn base_path(&self) -> Result<BasePath, SettingsError> {
        let path = self.base_path.as_deref().map(str::parse).transpose();
        Ok(path.map_err(SettingsError::BasePath)?.unwrap_or_default())
    }

    fn cors_origins(&self) -> Result<Vec<HeaderValue>, SettingsError> {
        let checked = |origin: &String| {
            // As browsers send it: without a path, and without the default port.
            let is_origin = |url: &url::Url| {
                matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == *origin
            };
            let url = url::Url::parse(origin).ok().filter(is_origin);
            let value = url.and_then(|_| HeaderValue::from_str(origin).ok());
            value.ok_or_else(|| SettingsError::Origin(origin.clone()))
        };
        self.cors_origin.iter().map(checked).collect()
    }

    fn tls(&self) -> Result<Option<Tls>, SettingsError> {
        match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Ok(Some(Tls::new(certificate.clone(), key.clone()))),
            (None, None) => Ok(None),
            _ => Err(SettingsError::IncompleteTls),
        }
    }
}

#[cfg(test)]
mod tests;
