//! `rota operator`: runs the Kubernetes operator.

use clap::Args;
use rota_client::{Token, discover};
use rota_operator::Settings;
use rota_settings::Layers;
use rota_telemetry::env;

use super::signals;
use crate::config;
use crate::exit::{Exit, Failure};
use crate::globals::Globals;

const EXAMPLES: &str = "\
Examples:
  rota operator --endpoint https://rota.rota.svc:7420 --token-file token --worker-image rota:0.1.0
  rota operator --config operator.toml --print-config

The chart charts/rota installs the operator, which connects to the cluster of its pod, or to that of \
KUBECONFIG.

Every setting is a flag, an environment variable and a key of the file: --worker-image, \
ROTA_OPERATOR_WORKER_IMAGE and `worker_image`. Flags override variables, which override the file. In a \
variable, lists are separated by commas.";

/// Run the Kubernetes operator
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Operator {
    #[command(flatten)]
    settings: Layers<Settings>,
}

impl Operator {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        crate::process::protect();
        let Some(settings) = config::load(&self.settings, globals)? else {
            return Ok(Exit::Ok);
        };
        if settings.worker_image().is_none() {
            return Err(Failure::usage("no worker image is set")
                .hint("set --worker-image or ROTA_OPERATOR_WORKER_IMAGE")
                .into());
        }
        let pod_template = settings.worker_pod_template().map_err(|cause| {
            Failure::usage(format!("the template of worker pods is invalid: {cause}"))
                .hint("correct --worker-pod-template; with Helm, the value worker.podTemplate")
        })?;
        let found = discover::find(&globals.component_flags()?)?.options;
        let Token::File(token_file) = found.token else {
            return Err(Failure::usage("the operator requires a token file, that of its service account")
                .hint("set --token-file or ROTA_TOKEN_FILE")
                .into());
        };
        let own = || env::var("POD_NAMESPACE").unwrap_or_else(|| "rota".to_owned());
        let namespace = globals.namespace.clone().unwrap_or_else(own);
        let options = settings.options(found.endpoint, token_file, namespace, pod_template);
        let shutdown = signals::Shutdown::listen()?;
        tokio::select! {
            ended = options.run(shutdown.graceful.clone()) => ended?,
            () = shutdown.forced.cancelled() => return Ok(Exit::Interrupted),
        }
        Ok(Exit::Ok)
    }
}
