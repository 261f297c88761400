//! Discovery of the control plane and its token. Sources by precedence: flags, environment, the current context, config file, a
//! `rota dev` running on this machine, the default address.

mod config;
mod contexts;
mod dev;

use std::path::PathBuf;

use rota_telemetry::env;

pub use config::Config;
pub use contexts::{Contexts, Login, Registration, ServerContext};
pub use dev::{DevEndpoint, write_private};

use crate::{Options, Token};

/// Endpoint without any configuration.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7420";

/// Beginning of addresses that the command line resolves by a kubeconfig. They are no URLs that a client calls.
pub const CLUSTER_SCHEME: &str = "kube://";

/// Values of the command line flags.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// URL or address of the control plane.
    pub endpoint: Option<String>,
    /// Name of the context to use instead of the current one.
    pub context: Option<String>,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
    /// PEM file of certificates to trust.
    pub ca: Option<PathBuf>,
    /// Namespace of names without one.
    pub namespace: Option<String>,
    /// Config file to read instead of [`config_file`].
    pub config: Option<PathBuf>,
    /// Whether contexts do not apply: they are those of a person, and of no component that runs by itself.
    pub ignores_contexts: bool,
}

/// Source of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The flag `--endpoint`.
    Flag,
    /// The variable `ROTA_ENDPOINT`.
    Environment,
    /// The context that is in use.
    Context,
    /// The key `endpoint` of the config file.
    Config,
    /// A `rota dev` running on this machine.
    Dev,
    /// [`DEFAULT_ENDPOINT`], as no source names one.
    Default,
}

/// Result of discovery.
#[derive(Debug, Clone)]
pub struct Found {
    /// Options for [`crate::Client::new`].
    pub options: Options,
    /// Namespace of names without one.
    pub namespace: String,
    /// Whether a source names the namespace; otherwise it is the default one.
    pub namespace_given: bool,
    /// Source of the endpoint.
    pub origin: Origin,
    /// Name of the context in use.
    pub context: Option<String>,
    /// Login of the context, if its token is used.
    pub login: Option<Login>,
}

/// A configured file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading a file failed.
    #[error("failed to read {}: {source}", path.display())]
    Read {
        /// File that was to be read.
        path: PathBuf,
        /// Cause of the failure.
        source: std::io::Error,
    },
    /// The config file has a syntax error or an unknown key.
    #[error("invalid config file {}: {message}", path.display())]
    Config {
        /// File that was parsed.
        path: PathBuf,
        /// Location and cause of the error.
        message: String,
    },
    /// Writing the file of contexts failed.
    #[error("failed to write {}: {source}", path.display())]
    Write {
        /// File that was to be written.
        path: PathBuf,
        /// Why it could not be written.
        source: std::io::Error,
    },
    /// There is no such context.
    #[error("no context is named {name:?} in {}; list them with `rota context list`", path.display())]
    NoContext {
        /// Name that the caller has given.
        name: String,
        /// File that has all contexts.
        path: PathBuf,
    },
}

/// Returns the path of the file in which `rota dev` publishes its endpoint.
pub fn dev_file() -> PathBuf {
    env::rota_home().join("dev").join("endpoint.json")
}

/// Returns the path of the config file: `$XDG_CONFIG_HOME/rota/config.toml`, or else `~/.config/rota/config.toml`.
pub fn config_file() -> PathBuf {
    config_folder().join("config.toml")
}

/// Returns the path of the file of contexts, next to [`config_file`].
pub fn contexts_file() -> PathBuf {
    config_folder().join("contexts.toml")
}

/// Returns the name of a context that the environment selects. `ROTA_CONTEXT` is a folder of attempts.
pub fn context_of_environment() -> Option<String> {
    env::var("ROTA_CONTEXT_NAME")
}

fn config_folder() -> PathBuf {
    let base =
        env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).unwrap_or_else(|| env::user_home().join(".config"));
    base.join("rota")
}

/// Values of the environment variables.
#[derive(Debug, Clone, Default)]
struct DiscoveryInputs {
    endpoint: Option<String>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    namespace: Option<String>,
}

/// A context that was selected.
#[derive(Debug, Clone)]
struct Selected {
    name: String,
    context: ServerContext,
    /// Whether a flag has named it.
    by_flag: bool,
}

/// Determines endpoint, token and namespace from all sources. A token from a file is used only for the endpoint that
/// the same file names.
pub fn find(flags: &Flags) -> Result<Found, Error> {
    let environment = DiscoveryInputs {
        endpoint: env::var("ROTA_ENDPOINT"),
        token: env::var("ROTA_TOKEN"),
        token_file: env::var_os("ROTA_TOKEN_FILE").map(PathBuf::from),
        ca: env::var_os("ROTA_CA").map(PathBuf::from),
        namespace: env::var("ROTA_NAMESPACE"),
    };
    let is_named = flags.endpoint.is_some() || environment.endpoint.is_some();
    let selected = match select(flags) {
        // The server is another's, or has no need of the context that cannot be read.
        Err(_) if flags.context.is_none() && is_named => None,
        selected => selected?,
    };
    let named = flags.config.clone().or_else(|| env::var_os("ROTA_CONFIG").map(PathBuf::from));
    let config = match &named {
        Some(path) => Config::read(path, true)?,
        None => Config::read(&config_file(), false)?,
    };
    let dev = DevEndpoint::read(&dev_file()).filter(DevEndpoint::is_alive);
    merge(flags, environment, selected, config, dev)
}

/// Returns the context that a flag or the environment names, or else the current one.
fn select(flags: &Flags) -> Result<Option<Selected>, Error> {
    if flags.ignores_contexts {
        return Ok(None);
    }
    let path = contexts_file();
    let contexts = Contexts::read(&path)?;
    let name = flags.context.clone().or_else(context_of_environment).or_else(|| contexts.current.clone());
    let by_flag = flags.context.is_some();
    let found = |name: String| {
        let context = contexts.get(&name, &path)?.clone();
        Ok(Selected { name, context, by_flag })
    };
    name.map(found).transpose()
}

fn merge(
    flags: &Flags,
    mut environment: DiscoveryInputs,
    selected: Option<Selected>,
    config: Config,
    dev: Option<DevEndpoint>,
) -> Result<Found, Error> {
    let is_cluster = |endpoint: &str| endpoint.starts_with(CLUSTER_SCHEME);
    if let Some(Selected { context, by_flag: true, .. }) = &selected {
        // Its values are those of a flag; a context without a token is not called with one for another server.
        let namespace = environment.namespace.filter(|_| context.namespace.is_none());
        environment = DiscoveryInputs { namespace, ..DiscoveryInputs::default() };
    }
    let (endpoint, origin) = None
        .or_else(|| flags.endpoint.clone().map(|endpoint| (endpoint, Origin::Flag)))
        .or_else(|| environment.endpoint.map(|endpoint| (endpoint, Origin::Environment)))
        .or_else(|| selected.as_ref().map(|one| (one.context.endpoint.clone(), Origin::Context)))
        .or_else(|| config.endpoint.clone().map(|endpoint| (endpoint, Origin::Config)))
        .or_else(|| dev.as_ref().map(|dev| (dev.endpoint.clone(), Origin::Dev)))
        .unwrap_or_else(|| (DEFAULT_ENDPOINT.to_owned(), Origin::Default));
    if is_cluster(&endpoint) && !matches!(origin, Origin::Environment) {
        // The cluster has its token and certificates; those of the environment are for another server.
        (environment.token, environment.token_file, environment.ca) = (None, None, None);
    }
    let mut options = Options::new(endpoint);
    let is = |other: &str| Options::new(other).endpoint == options.endpoint;
    // A context is used for its own server, or not at all.
    let (context, used) = match selected.filter(|one| is(&one.context.endpoint)) {
        Some(Selected { name, context, .. }) => (Some(name), context),
        None => (None, ServerContext::default()),
    };
    // A file's token is sent only to the server that the same file names.
    let in_cluster = is_cluster(&options.endpoint);
    let configured = config.endpoint.as_deref().map_or(!in_cluster, is)
        && !matches!(origin, Origin::Dev | Origin::Context);
    let from_config = configured.then(|| config.token()).flatten();
    let from_dev =
        dev.as_ref().filter(|dev| is(&dev.endpoint)).map(|dev| Token::File(dev.token_file.clone()));
    let ca = None
        .or_else(|| flags.ca.clone())
        .or(environment.ca)
        .or_else(|| used.ca.clone())
        .or_else(|| config.ca.clone().filter(|_| configured));
    let given = None
        .or_else(|| flags.token_file.clone().map(Token::File))
        .or_else(|| environment.token.map(|token| Token::Fixed(token.into())))
        .or_else(|| environment.token_file.map(Token::File));
    let is_of_login = given.is_none() && used.token.is_none() && used.token_file.is_none();
    let login = used.login.clone().filter(|_| is_of_login);
    options.token = given.or_else(|| used.token()).or(from_config).or(from_dev).unwrap_or_default();
    if let Some(path) = &ca {
        // Read again for each connection; a missing file is reported here already.
        std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    }
    options.ca = ca;
    let namespace = flags
        .namespace
        .clone()
        .or(environment.namespace)
        .or(used.namespace)
        .or_else(|| config.namespace.filter(|_| context.is_none() && (configured || !in_cluster)));
    let namespace_given = namespace.is_some();
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    Ok(Found { options, namespace, namespace_given, origin, context, login })
}

#[cfg(test)]
mod tests;
