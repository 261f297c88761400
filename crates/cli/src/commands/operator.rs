//! `rota operator`: Rota's part in a Kubernetes cluster.

use std::net::SocketAddr;

use clap::Args;
use rota_client::{Token, discover};
use rota_operator::{Options, WorkerOptions};
use rota_telemetry::{env, otlp};
use serde::{Deserialize, Serialize};

use super::signals;
use crate::args::Globals;
use crate::config;
use crate::exit::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  rota operator --endpoint https://rota.rota.svc:7420 --token-file token --worker-image rota:0.1.0
  rota operator --config operator.toml --print-config

The chart in charts/rota runs it. Which cluster it is for comes from its pod, or from KUBECONFIG.
Each key of the file has a flag, and a variable of the environment: `worker_image` is
--worker-image and ROTA_OPERATOR_WORKER_IMAGE.";

/// Run the operator of a Kubernetes cluster
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Operator {
    #[command(flatten)]
    pub source: config::Source,
    #[command(flatten)]
    pub flags: Flags,
}

/// What flags say.
#[derive(Debug, Default, Args, Serialize)]
pub struct Flags {
    /// Its own name, for the lease: the pod's [env: POD_NAME]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The lease by which one of several operators leads
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Namespaces whose Agents and Tasks are looked after; none means all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watch_namespaces: Vec<String>,
    /// The Service that leads to the control plane
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The Secret with the control plane's certificate, which the operator makes and renews
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<String>,
    /// The Secret with its certificate authority
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<String>,
    /// The Secret with the token for people
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token_secret: Option<String>,
    /// The Deployment that owns these Secrets [env: DEPLOYMENT_NAME]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The image of workers whose Agent names none
    #[arg(long, value_name = "IMAGE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_image: Option<String>,
    /// When it is fetched: Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_image_pull_policy: Option<String>,
    /// Where workers find the control plane; unset means where the operator does
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_endpoint: Option<String>,
    /// Where to answer probes, and give figures, in plain HTTP: /livez, /readyz, /metrics
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<SocketAddr>,
}

/// The configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    identity: String,
    lease: String,
    watch_namespaces: Vec<String>,
    service: String,
    tls_secret: String,
    ca_secret: String,
    admin_token_secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deployment: Option<String>,
    worker_image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker_image_pull_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker_endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_listen: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identity: env::var("POD_NAME").unwrap_or_else(|| "rota-operator".to_owned()),
            lease: "rota-operator".to_owned(),
            watch_namespaces: Vec::new(),
            service: "rota".to_owned(),
            tls_secret: "rota-tls".to_owned(),
            ca_secret: "rota-ca".to_owned(),
            admin_token_secret: "rota-admin-token".to_owned(),
            deployment: env::var("DEPLOYMENT_NAME"),
            worker_image: String::new(),
            worker_image_pull_policy: None,
            worker_endpoint: None,
            http_listen: None,
        }
    }
}

impl Operator {
    pub async fn run(self, globals: &Globals) -> anyhow::Result<Exit> {
        let Some(config) = self.source.load::<Config>("ROTA_OPERATOR_", &self.flags, globals)? else {
            return Ok(Exit::Ok);
        };
        if config.worker_image.is_empty() {
            return Err(Failure::usage("workers need an image, and none is named")
                .hint("name one with --worker-image or ROTA_OPERATOR_WORKER_IMAGE")
                .into());
        }
        let options = config.options(globals)?;
        let told = signals::Told::listen()?;
        tokio::select! {
            ended = options.run(told.to_end.clone()) => ended?,
            () = told.at_once.cancelled() => return Ok(Exit::Interrupted),
        }
        Ok(Exit::Ok)
    }
}

impl Config {
    fn options(self, globals: &Globals) -> anyhow::Result<Options> {
        let found = discover::find(&globals.flags())?.options;
        let Token::File(token_file) = found.token else {
            return Err(Failure::usage("the operator needs the token of its service account, from a file")
                .hint("give --token-file or ROTA_TOKEN_FILE")
                .into());
        };
        let own = || env::var("POD_NAMESPACE").unwrap_or_else(|| "rota".to_owned());
        Ok(Options {
            endpoint: found.endpoint.clone(),
            token_file,
            namespace: globals.namespace.clone().unwrap_or_else(own),
            identity: self.identity,
            deployment: self.deployment,
            watch_namespaces: self.watch_namespaces,
            service: self.service,
            tls_secret: self.tls_secret,
            ca_secret: self.ca_secret,
            admin_token_secret: self.admin_token_secret,
            lease: self.lease,
            workers: WorkerOptions {
                image: self.worker_image,
                image_pull_policy: self.worker_image_pull_policy,
                endpoint: self.worker_endpoint.unwrap_or(found.endpoint),
                // A file of ours is none of theirs.
                collector: otlp::for_programs()
                    .into_iter()
                    .filter(|(name, _)| !name.ends_with("CERTIFICATE"))
                    .collect(),
            },
            http_listen: self.http_listen,
        })
    }
}
