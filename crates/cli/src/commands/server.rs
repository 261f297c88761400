//! `rota server`: a control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rota_client::discover;
use rota_crds::Span;
use rota_server::{Options, Timing, Tls};
use secrecy::SecretString;
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
        if config.token_file.is_none() && !config.listen.ip().is_loopback() && !config.insecure {
            let message =
                format!("{} can be reached from other machines, and there is no token", config.listen);
            return Err(Failure::new(Exit::Usage, message)
                .hint("give --token-file, or --insecure where something else decides who gets in")
                .into());
        }
        serve::private_dir(&config.data_dir)?;
        let store = serve::open(&config.data_dir).await?;
        let bound = serve::bind(config.options(store)?).await?;
        let scheme = if config.tls_certificate.is_some() { "https" } else { "http" };
        Talk::new(globals.color).say(&format!("listening on {scheme}://{}", bound.addr()));
        let told = signals::Told::listen()?;
        tokio::select! {
            served = bound.run(told.to_end.clone()) => { served?; }
            () = told.at_once.cancelled() => return Ok(Exit::Interrupted),
        }
        Ok(Exit::Ok)
    }
}

impl Config {
    fn options(&self, store: std::sync::Arc<dyn rota_store::Store>) -> anyhow::Result<Options> {
        let tls = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls {
                certificate: read(certificate)?,
                key: SecretString::from(String::from_utf8(read(key)?).context("the key is not PEM")?),
            }),
            (None, None) => None,
            _ => return Err(Failure::usage("tls_certificate and tls_key belong together").into()),
        };
        Ok(Options {
            listen: self.listen,
            token: self.token_file.as_deref().map(serve::token).transpose()?,
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
        })
    }
}

fn read(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
