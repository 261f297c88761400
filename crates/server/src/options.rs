//! What a control plane is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rota_store::Store;
use rota_telemetry::Loops;
use secrecy::SecretString;

/// How to run a control plane.
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What an admin shows. Without it, and without `oidc`, everybody is let in.
    pub token: Option<Token>,
    /// Whose tokens are taken beside the admin's.
    pub oidc: Option<Oidc>,
    /// Where to tell in plain HTTP whether this replica lives and is ready.
    pub http_listen: Option<SocketAddr>,
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
    /// Where what goes on in the background is noted; who runs beside the control plane may share it.
    pub loops: Loops,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("token", &self.token.is_some())
            .field("tls", &self.tls.is_some())
            .field("oidc", &self.oidc)
            .field("http_listen", &self.http_listen)
            .field("key_file", &self.key_file)
            .field("replica", &self.replica)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// Between two looks at files that others replace.
pub(crate) const RELOAD: Duration = Duration::from_secs(10);

/// What an admin shows.
#[derive(Debug, Clone)]
pub enum Token {
    /// This one.
    Fixed(SecretString),
    /// Whatever the file says; it is read again when it changes.
    File(PathBuf),
}

/// A certificate and its key, both files in PEM. They are read again when they change.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Between two looks at the files.
    pub reload: Duration,
}

impl Tls {
    /// Looked at every ten seconds: a cluster that renews a certificate does so days ahead.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, reload: RELOAD }
    }
}

/// An issuer of tokens (OpenID Connect), such as a cluster that gives them to its pods.
#[derive(Debug, Clone)]
pub struct Oidc {
    /// What the tokens say that it is.
    pub issuer: String,
    /// Where its keys are; `None` asks the issuer.
    pub jwks_url: Option<String>,
    /// A file with certificates to trust when asking it, in PEM, instead of the system's.
    pub ca: Option<PathBuf>,
    /// A file with what to show when asking it.
    pub token_file: Option<PathBuf>,
    /// Whom the tokens must be meant for.
    pub audience: String,
    /// The subject that is the operator.
    pub operator: Option<String>,
    /// Between two looks at its keys because a token names one that is not known.
    pub refetch: Duration,
    /// Known keys are looked at again after so long.
    pub refresh: Duration,
}

impl Oidc {
    /// For an audience.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            jwks_url: None,
            ca: None,
            token_file: None,
            audience: audience.into(),
            operator: None,
            refetch: Duration::from_secs(10),
            refresh: Duration::from_secs(5 * 60),
        }
    }

    /// Who gave a token, by what it says itself. For learning from one's own token who the issuer is; it proves nothing.
    pub fn issuer_of(token: &str) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Claims {
            iss: String,
        }
        jsonwebtoken::dangerous::insecure_decode::<Claims>(token.trim()).ok().map(|token| token.claims.iss)
    }

    /// Whether keys may be fetched there: whoever can change them on their way can make tokens.
    pub fn check_url(url: &str) -> Result<(), &'static str> {
        let uri: http::Uri = url.parse().map_err(|_| "is no URL")?;
        let host = uri.host().ok_or("is no URL")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if here => Ok(()),
            _ => Err("must begin with https://"),
        }
    }
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
