//! Settings of `rota operator`: keys, flags, environment variables and defaults. Knows nothing of how a file
//! or a command line is read.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use rota_crds::{Egress, Json, pod_template};
use rota_telemetry::{env, export};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, Options, WorkerOptions};

/// Settings of `rota operator`.
#[derive(Debug, Clone, Args, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Identity of this process in the leader election lease; $POD_NAME in a pod
    #[arg(long, value_name = "NAME")]
    pub identity: String,
    /// Lease that elects the leader among several operators
    #[arg(long, value_name = "NAME")]
    pub lease: String,
    /// Comma-separated namespaces whose Agents and Tasks are reconciled; may be repeated [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Class of the Agents and Tasks to reconcile: those with this value of the label rota.dev/class [default: those without
    /// the label]
    #[arg(long, value_name = "NAME")]
    pub class: String,
    /// Service of the control plane; its certificate is issued for this name
    #[arg(long, value_name = "NAME")]
    pub service: String,
    /// Secret with the control plane's certificate, which the operator issues and renews
    #[arg(long, value_name = "NAME")]
    pub tls_secret: String,
    /// Use the certificate in that Secret (tls.crt, tls.key, ca.crt) as it is: create and renew none
    #[arg(long)]
    pub tls_existing: bool,
    /// Comma-separated further DNS names and IP addresses that the certificate covers; may be repeated
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub extra_names: Vec<String>,
    /// Secret with the certificate authority of that certificate
    #[arg(long, value_name = "NAME")]
    pub ca_secret: String,
    /// Secret with the admin token
    #[arg(long, value_name = "NAME")]
    pub admin_token_secret: String,
    /// Image of workers whose Agent names none (required)
    #[arg(long, value_name = "IMAGE")]
    pub worker_image: Option<String>,
    /// Image of Rota whose program is copied into workers whose Agent names an image [default: --worker-image]
    #[arg(long, value_name = "IMAGE")]
    pub worker_program_image: Option<String>,
    /// Pull policy of these images: Always, IfNotPresent or Never [default: the cluster's]
    #[arg(long, value_name = "POLICY")]
    pub worker_image_pull_policy: Option<String>,
    /// User and group id of workers; 0 leaves them to the cluster, which must assign one
    #[arg(long, value_name = "ID")]
    pub worker_user_id: i64,
    /// Template that is merged into all worker pods: a JSON object with `metadata` and `spec`; Agents take precedence
    #[arg(long, value_name = "JSON")]
    pub worker_pod_template: Option<String>,
    /// Destinations that worker pods may reach whose Agent leaves it open, by a NetworkPolicy per Agent: Any, NoMetadata,
    /// Internet or Listed
    #[arg(long, value_name = "POLICY")]
    pub worker_egress: Egress,
    /// Let Agents only narrow the destinations of their worker pods
    #[arg(long)]
    pub worker_egress_limit: bool,
    /// URL at which workers reach the control plane [default: --endpoint]
    #[arg(long, value_name = "URL")]
    pub worker_endpoint: Option<String>,
    /// Address of the plain HTTP listener for /livez, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            identity: env::var("POD_NAME").unwrap_or_else(|| "rota-operator".to_owned()),
            lease: "rota-operator".to_owned(),
            watch_namespaces: Vec::new(),
            class: String::new(),
            service: "rota".to_owned(),
            tls_secret: "rota-tls".to_owned(),
            tls_existing: false,
            extra_names: Vec::new(),
            ca_secret: "rota-ca".to_owned(),
            admin_token_secret: "rota-admin-token".to_owned(),
            worker_image: None,
            worker_program_image: None,
            worker_image_pull_policy: None,
            // Images rarely use it, so that their files are not writable.
            worker_user_id: 65532,
            worker_pod_template: None,
            worker_egress: Egress::default(),
            worker_egress_limit: false,
            worker_endpoint: None,
            http_listen: None,
        }
    }
}

impl rota_settings::Settings for Settings {
    const ENV_PREFIX: &'static str = "ROTA_OPERATOR_";
}

impl Settings {
    /// Image of workers whose Agent names none.
    pub fn worker_image(&self) -> Option<&str> {
        self.worker_image.as_deref().filter(|image| !image.is_empty())
    }

    /// Returns the template of worker pods, or why it is invalid.
    pub fn worker_pod_template(&self) -> Result<PodTemplateSpec, String> {
        let text = self.worker_pod_template.as_deref().filter(|text| !text.is_empty()).unwrap_or("{}");
        let template: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let violations: Vec<_> = pod_template(&template).iter().map(ToString::to_string).collect();
        if !violations.is_empty() {
            return Err(violations.join("; "));
        }
        serde_json::from_value(serde_json::Value::Object(template.0)).map_err(|error| error.to_string())
    }

    /// Returns the options of an operator that reaches the control plane at `endpoint` with the token of a
    /// file, and keeps its own objects in `namespace`.
    pub fn options(
        self,
        endpoint: String,
        token_file: PathBuf,
        namespace: String,
        pod_template: PodTemplateSpec,
    ) -> Options {
        Options {
            workers: WorkerOptions {
                program_image: self
                    .worker_program_image
                    .or_else(|| self.worker_image.clone())
                    .unwrap_or_default(),
                image: self.worker_image.unwrap_or_default(),
                image_pull_policy: self.worker_image_pull_policy,
                class: Class::new(&self.class),
                user_id: Some(self.worker_user_id).filter(|id| *id != 0),
                pod_template,
                egress: self.worker_egress,
                egress_is_limit: self.worker_egress_limit,
                control_namespace: namespace.clone(),
                endpoint: self.worker_endpoint.unwrap_or_else(|| endpoint.clone()),
                // Files of this pod do not exist in theirs.
                collector: export::child_environment()
                    .into_iter()
                    .filter(|(name, _)| !name.ends_with("CERTIFICATE"))
                    .collect(),
            },
            endpoint,
            token_file,
            namespace,
            identity: self.identity,
            watch_namespaces: self.watch_namespaces,
            class: Class::new(&self.class),
            service: self.service,
            tls_secret: self.tls_secret,
            tls_existing: self.tls_existing,
            extra_names: self.extra_names,
            ca_secret: self.ca_secret,
            admin_token_secret: self.admin_token_secret,
            lease: self.lease,
            http_listen: self.http_listen,
        }
    }
}
