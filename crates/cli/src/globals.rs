//! Options of every command: which server, which namespace, how to print and how to log.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use rota_client::discover::{self, Contexts, Flags};

use crate::cluster::Access;
use crate::exit::{Exit, Failure};
use crate::output::{Color, Format};

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// URL of the server, such as https://rota.example [env: ROTA_ENDPOINT]
    #[arg(long, global = true, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub endpoint: Option<String>,
    /// Context to use instead of the current one, as `rota context list` names it [env: ROTA_CONTEXT_NAME]
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "endpoint", value_parser = NonEmptyStringValueParser::new())]
    pub context: Option<String>,
    /// Find the control plane in the cluster of the kubeconfig, forward a port to it, and use the token of its Secret
    #[arg(long, global = true, conflicts_with_all = ["endpoint", "context"])]
    pub kube: bool,
    /// Context of the kubeconfig, for --kube, which it implies [default: the current one]
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["endpoint", "context"], value_parser = NonEmptyStringValueParser::new())]
    pub kube_context: Option<String>,
    /// Namespace of the control plane's release, for --kube, which it implies [default: any]
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["endpoint", "context"], value_parser = NonEmptyStringValueParser::new())]
    pub kube_namespace: Option<String>,
    /// Release of the control plane, for --kube, which it implies [default: any]
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["endpoint", "context"], value_parser = NonEmptyStringValueParser::new())]
    pub kube_release: Option<String>,
    /// File with the token [env: ROTA_TOKEN_FILE, or ROTA_TOKEN for the token itself]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the CA certificates to trust [env: ROTA_CA] [default: the system's]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Namespace of tasks and agents [env: ROTA_NAMESPACE] [default: default]
    #[arg(long, short, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Format of data on standard output
    #[arg(long, short, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Format,
    /// When to use colors; NO_COLOR is respected
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub color: Color,
    /// Format of logs on standard error
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Log filter, such as info or rota_client=debug [env: ROTA_LOG]
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

impl Globals {
    /// Returns the context that an argument, a flag or the environment names, or else the current one.
    pub fn selected_context(&self, given: Option<String>, contexts: &Contexts) -> Result<String, Failure> {
        let named = given.or_else(|| self.context.clone()).or_else(discover::context_of_environment);
        named.or_else(|| contexts.current.clone()).ok_or_else(|| {
            Failure::new(Exit::NotFound, "no context is current").hint(
                "choose one with `rota context use NAME`, or create one with `rota context set NAME --endpoint URL --use`",
            )
        })
    }

    /// Returns the flags that select the server of a component, which no context does.
    pub fn component_flags(&self) -> Result<Flags, Failure> {
        if self.context.is_some() || self.access().is_some() {
            let message = "--context and --kube cannot be used with a component that runs by itself";
            return Err(Failure::usage(message).hint("set --endpoint and --token-file"));
        }
        Ok(Flags { ignores_contexts: true, ..self.flags() })
    }

    /// Returns the cluster that flags select.
    fn access(&self) -> Option<Access> {
        let access = Access {
            context: self.kube_context.clone(),
            namespace: self.kube_namespace.clone(),
            release: self.kube_release.clone(),
        };
        (self.kube || access != Access::default()).then_some(access)
    }

    /// Returns the address that flags select: that of a server, or of a control plane in a cluster.
    pub fn selected_endpoint(&self) -> Option<String> {
        self.access().map(|access| access.endpoint()).or_else(|| self.endpoint.clone())
    }

    /// Returns the flags that select the server.
    pub fn flags(&self) -> Flags {
        Flags {
            endpoint: self.selected_endpoint(),
            context: self.context.clone(),
            token_file: self.token_file.clone(),
            ca: self.ca.clone(),
            namespace: self.namespace.clone(),
            config: None,
            ignores_contexts: false,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event
    #[default]
    Text,
    /// One JSON object per event
    Json,
}
