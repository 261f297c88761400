//! `rota server`: a control plane.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rota_client::discover;
use rota_crds::Span;
use rota_server::{Oidc, Options, Timing, Tls, Token};
use rota_telemetry::Loops;
use serde::{Deserialize, Serialize};

use super::{serve, signals};
use crate::args::Globals;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::Talk;

const EXAMPLES: &str = "\
Examples:
  rota server --listen 127.0.0.1:7420 --token-file token
  rota server --config server.toml --print-config
  ROTA_SERVER_LISTEN=0.0.0.0:7420 rota server --token-file token

Each key of the file has a flag, and a variable of the environment: `reconnect_grace` is
--reconnect-grace and ROTA_SERVER_RECONNECT_GRACE.";

/// Run a control plane
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Server {
    #[command(flatten)]
    pub source: config::Source,
    #[command(flatten)]
    pub flags: Flags,
}

/// What flags say.
#[derive(Debug, Default, Args, Serialize)]
pub struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    place: config::Place,
    /// The server's certificate chain, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Name of this replica
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// Between heartbeats of a session, both ways
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,
    /// Nothing heard of a worker for this long: its connection is dead
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout: Option<Span>,
    /// After this long without a session, a worker's tasks are given to others
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect_grace: Option<Span>,
    /// The same for workers from before this control plane started
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_grace: Option<Span>,
    /// For streams to end when it is told to
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_grace: Option<Span>,
    /// Tasks that ended longer ago are removed; 0s keeps them
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// Where to answer probes, and give figures, in plain HTTP: /livez, /readyz, /metrics
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<SocketAddr>,
    /// An OpenID Connect issuer whose tokens are taken, such as a cluster's; else whoever gave --oidc-token-file
    #[arg(long, value_name = "URL", help_heading = "Tokens of an issuer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc_issuer: Option<String>,
    /// Where its keys are; else the issuer is asked
    #[arg(long, value_name = "URL", help_heading = "Tokens of an issuer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc_jwks_url: Option<String>,
    /// Certificates to trust when asking it, in PEM, instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "Tokens of an issuer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc_ca: Option<PathBuf>,
    /// The token to show when asking it; read again each time
    #[arg(long, value_name = "FILE", help_heading = "Tokens of an issuer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc_token_file: Option<PathBuf>,
    /// Whom its tokens must be meant for; `rota` unless said otherwise
    #[arg(long, value_name = "NAME", help_heading = "Tokens of an issuer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc_audience: Option<String>,
    /// The subject that is the operator, such as system:serviceaccount:rota:rota-operator
    #[arg(long, value_name = "SUBJECT", help_heading = "Tokens of an issuer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc_operator: Option<String>,
    /// Let everybody in, also from other machines
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The global --token-file; here it is what callers must show.
    #[arg(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// The configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    listen: SocketAddr,
    data_dir: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_certificate: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_key: Option<PathBuf>,
    replica: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_listen: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc_issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc_jwks_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc_ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc_token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc_audience: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oidc_operator: Option<String>,
    insecure: bool,
    heartbeat: Span,
    heartbeat_timeout: Span,
    reconnect_grace: Span,
    recovery_grace: Span,
    shutdown_grace: Span,
    retention: Span,
}

impl Default for Config {
    fn default() -> Self {
        let timing = Timing::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            data_dir: discover::home().join("server"),
            token_file: None,
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
            insecure: false,
            heartbeat: Span(timing.heartbeat),
            heartbeat_timeout: Span(timing.heartbeat_timeout),
            reconnect_grace: Span(timing.reconnect_grace),
            recovery_grace: Span(timing.recovery_grace),
            shutdown_grace: Span(timing.shutdown_grace),
            retention: Span(timing.retention.unwrap_or_default()),
        }
    }
}

impl Server {
    pub async fn run(mut self, globals: &Globals) -> anyhow::Result<Exit> {
        self.flags.token_file.clone_from(&globals.token_file);
        let Some(config) = self.source.load::<Config>("ROTA_SERVER_", &self.flags, globals)? else {
            return Ok(Exit::Ok);
        };
        let oidc = config.oidc()?;
        let guarded = config.token_file.is_some() || oidc.is_some();
        if !guarded && !config.listen.ip().is_loopback() && !config.insecure {
            let message =
                format!("{} can be reached from other machines, and there is no token", config.listen);
            return Err(Failure::new(Exit::Usage, message)
                .hint("give --token-file, or --insecure where something else decides who gets in")
                .into());
        }
        serve::private_dir(&config.data_dir)?;
        let store = serve::open(&config.data_dir).await?;
        let bound = serve::bind(config.options(store, oidc)?).await?;
        let scheme = if config.tls_certificate.is_some() { "https" } else { "http" };
        Talk::new(globals.color).say(&format!("listening on {scheme}://{}", bound.addr()));
        if let Some(addr) = bound.http_addr() {
            Talk::new(globals.color).say(&format!("answering probes at http://{addr}"));
        }
        let told = signals::Told::listen()?;
        tokio::select! {
            served = bound.run(told.to_end.clone()) => { served?; }
            () = told.at_once.cancelled() => return Ok(Exit::Interrupted),
        }
        Ok(Exit::Ok)
    }
}

impl Config {
    /// The issuer, if there is one.
    fn oidc(&self) -> anyhow::Result<Option<Oidc>> {
        let own = match (&self.oidc_issuer, &self.oidc_token_file) {
            (None, Some(file)) => Some(issuer_of(file)?),
            _ => None,
        };
        let Some(issuer) = self.oidc_issuer.as_ref().or(own.as_ref()) else {
            let alone = [
                ("oidc_jwks_url", self.oidc_jwks_url.is_some()),
                ("oidc_ca", self.oidc_ca.is_some()),
                ("oidc_audience", self.oidc_audience.is_some()),
                ("oidc_operator", self.oidc_operator.is_some()),
            ];
            return match alone.into_iter().find(|(_, given)| *given) {
                Some((key, _)) => {
                    Err(Failure::usage(format!("{key} means nothing without oidc_issuer or oidc_token_file"))
                        .into())
                }
                None => Ok(None),
            };
        };
        for (key, url) in [("oidc_issuer", Some(issuer)), ("oidc_jwks_url", self.oidc_jwks_url.as_ref())] {
            if let Some(url) = url {
                Oidc::check_url(url)
                    .map_err(|why| Failure::usage(format!("{key} is {url:?}, which {why}")))?;
            }
        }
        let audience = self.oidc_audience.as_deref().unwrap_or("rota");
        for (key, word) in
            [("oidc_audience", Some(audience)), ("oidc_operator", self.oidc_operator.as_deref())]
        {
            if word.is_some_and(str::is_empty) {
                return Err(Failure::usage(format!("{key} is empty")).into());
            }
        }
        Ok(Some(Oidc {
            jwks_url: self.oidc_jwks_url.clone(),
            ca: self.oidc_ca.clone(),
            token_file: self.oidc_token_file.clone(),
            operator: self.oidc_operator.clone(),
            ..Oidc::new(issuer, audience)
        }))
    }

    fn options(
        &self,
        store: std::sync::Arc<dyn rota_store::Store>,
        oidc: Option<Oidc>,
    ) -> anyhow::Result<Options> {
        let tls = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls::new(certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(Failure::usage("tls_certificate and tls_key belong together").into()),
        };
        Ok(Options {
            listen: self.listen,
            token: self.token_file.clone().map(Token::File),
            oidc,
            http_listen: self.http_listen,
            tls,
            store,
            key_file: self.data_dir.join("secrets.key"),
            replica: self.replica.clone(),
            isolates: true,
            timing: Timing {
                heartbeat: self.heartbeat.0,
                heartbeat_timeout: self.heartbeat_timeout.0,
                reconnect_grace: self.reconnect_grace.0,
                recovery_grace: self.recovery_grace.0,
                shutdown_grace: self.shutdown_grace.0,
                retention: Some(self.retention.0).filter(|time| *time > Duration::ZERO),
            },
            loops: Loops::default(),
        })
    }
}

/// Whoever gave us a token of our own gave them to the others too.
fn issuer_of(file: &Path) -> anyhow::Result<String> {
    let token = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("oidc_token_file {} cannot be read: {error}", file.display()))
    })?;
    Oidc::issuer_of(&token).ok_or_else(|| {
        let message = format!("oidc_token_file {} does not say who the issuer is", file.display());
        Failure::usage(message).hint("give --oidc-issuer").into()
    })
}
