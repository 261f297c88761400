//! `rota server`: runs a control plane, on a file or as one of several replicas on PostgreSQL.

use clap::Args;
use rota_server::{Settings, SettingsError};
use rota_settings::Layers;

use super::{replica, serve, signals};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::output::Reporter;
use crate::private;

const EXAMPLES: &str = "\
Examples:
  rota server --listen 127.0.0.1:7420 --token-file token
  rota server --config server.toml --print-config
  ROTA_SERVER_LISTEN=0.0.0.0:7420 rota server --token-file token

Every setting is a flag, an environment variable and a key of the file: --reconnect-grace, \
ROTA_SERVER_RECONNECT_GRACE and `reconnect_grace`. Flags override variables, which override the file. \
The global --token-file names the admin token that clients must present.";

/// Run a control plane
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Server {
    #[command(flatten)]
    settings: Layers<Settings>,
}

impl Server {
    pub async fn run(mut self, globals: &Globals) -> anyhow::Result<Exit> {
        crate::process::protect();
        crate::process::raise_file_limit();
        if let Some(file) = &globals.token_file {
            self.settings.set("token_file", file.to_string_lossy());
        }
        let Some(settings) = config::load(&self.settings, globals)? else {
            return Ok(Exit::Ok);
        };
        settings.validate().map_err(contradiction)?;
        for file in settings.token_file.iter().chain(&settings.viewer_token_file) {
            serve::token(file)?;
        }
        // Who can change it can make themselves an admin.
        settings.sign_in.as_deref().map(private::check_file).transpose()?;
        private::directory(&settings.data_dir)?;
        let keys = settings.keys();
        for path in std::iter::once(&keys.file).chain(&keys.next) {
            match path.starts_with(&settings.data_dir) {
                true => private::restrict_file(path)?,
                false => private::check_file(path)?,
            }
        }
        let shutdown = signals::Shutdown::listen()?;
        let (store, clock, owner) = match &settings.store {
            None => {
                let (store, clock) = serve::open(&settings.data_dir).await?;
                (store, clock, None)
            }
            Some(place) => {
                settings.check_usable().await.map_err(contradiction)?;
                match replica::open(place, &settings, globals, &shutdown).await? {
                    Some(opened) => (opened.store, opened.clock, Some(opened.database)),
                    None => return Ok(Exit::Ok),
                }
            }
        };
        let bound = serve::bind(settings.options(store, clock, owner).map_err(contradiction)?).await?;
        if settings.insecure {
            tracing::warn!("--insecure: every program that reaches this address may do everything");
        }
        let scheme = if settings.tls_certificate.is_some() { "https" } else { "http" };
        Reporter::new(globals.color).line(&format!("listening on {scheme}://{}", bound.addr()));
        if let Some(addr) = bound.http_addr() {
            Reporter::new(globals.color).line(&format!("serving probes and metrics on http://{addr}"));
        }
        tokio::select! {
            served = bound.run(shutdown.graceful.clone()) => { served?; }
            () = shutdown.forced.cancelled() => return Ok(Exit::Interrupted),
        }
        Ok(Exit::Ok)
    }
}

pub(super) fn contradiction(error: SettingsError) -> Failure {
    let failure = Failure::usage(error.to_string());
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
