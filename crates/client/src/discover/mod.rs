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
    let mut options = Options::new(endpoint);
    let is = |other: &str| Options::new(other).endpoint == options.endpoint;
    // A context is used for its own server, or not at all.
    let (context, used) = match selected.filter(|one| is(&one.context.endpoint)) {
        Some(Selected { name, context, .. }) => (Some(name), context),
        None => (None, ServerContext::default()),
    };
    // A file's token is sent only to the server that the same file names.
    let configured =
        config.endpoint.as_deref().is_none_or(is) && !matches!(origin, Origin::Dev | Origin::Context);
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
        .or_else(|| config.namespace.filter(|_| context.is_none()))
        .unwrap_or_else(|| "default".to_owned());
    Ok(Found { options, namespace, origin, context, login })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn token(found: &Found) -> String {
        match &found.options.token {
            Token::None => "none".into(),
            Token::Fixed(token) => token.expose_secret().to_owned(),
            Token::File(path) => path.display().to_string(),
            Token::Renewed(token) => token.borrow().expose_secret().to_owned(),
        }
    }

    fn dev() -> DevEndpoint {
        DevEndpoint { endpoint: "http://127.0.0.1:9".into(), token_file: "/dev-token".into(), pid: 1 }
    }

    fn config() -> Config {
        Config {
            endpoint: Some("https://rota.example".into()),
            token_file: Some("/config-token".into()),
            namespace: Some("team".into()),
            ..Config::default()
        }
    }

    #[test]
    fn sources_apply_by_precedence() {
        let flags = Flags { endpoint: Some("f.example".into()), ..Flags::default() };
        let environment = DiscoveryInputs {
            endpoint: Some("e.example".into()),
            token: Some("t".into()),
            ..DiscoveryInputs::default()
        };
        let none = Flags::default;
        let found = merge(&flags, environment.clone(), None, config(), Some(dev())).unwrap();
        assert_eq!((found.options.endpoint.as_str(), found.origin), ("https://f.example", Origin::Flag));
        let found = merge(&none(), environment, None, config(), Some(dev())).unwrap();
        assert_eq!((token(&found).as_str(), found.origin), ("t", Origin::Environment));
        let found = merge(&none(), DiscoveryInputs::default(), None, config(), Some(dev())).unwrap();
        assert_eq!((token(&found).as_str(), found.origin), ("/config-token", Origin::Config));
        assert_eq!(found.namespace, "team");
        let found = merge(&none(), DiscoveryInputs::default(), None, Config::default(), Some(dev())).unwrap();
        assert_eq!((token(&found).as_str(), found.origin), ("/dev-token", Origin::Dev));
        let found = merge(&none(), DiscoveryInputs::default(), None, Config::default(), None).unwrap();
        assert_eq!((found.options.endpoint.as_str(), found.origin), (DEFAULT_ENDPOINT, Origin::Default));
        assert_eq!((found.namespace.as_str(), token(&found).as_str()), ("default", "none"));
    }

    #[test]
    fn token_is_sent_only_to_its_server() {
        let to = |endpoint: &str| Flags { endpoint: Some(endpoint.into()), ..Flags::default() };
        let token = |flags: Flags, dev| {
            token(&merge(&flags, DiscoveryInputs::default(), None, config(), dev).unwrap())
        };
        assert_eq!(token(to("https://elsewhere.example"), Some(dev())), "none");
        assert_eq!(token(to("rota.example"), Some(dev())), "/config-token");
        assert_eq!(token(to("127.0.0.1:9"), Some(dev())), "/dev-token");
    }

    fn selected(by_flag: bool) -> Option<Selected> {
        let context = ServerContext {
            endpoint: "https://team.example".into(),
            token: Some("context-token".into()),
            namespace: Some("squad".into()),
            ..ServerContext::default()
        };
        Some(Selected { name: "team".into(), context, by_flag })
    }

    #[test]
    fn context_comes_between_environment_and_config() {
        let find = |flags: Flags, environment: DiscoveryInputs, by_flag| {
            let found = merge(&flags, environment, selected(by_flag), config(), Some(dev())).unwrap();
            let used = found.context.as_deref().unwrap_or("no context");
            [found.options.endpoint.as_str(), &token(&found), &found.namespace, used].map(str::to_owned)
        };
        let context = ["https://team.example", "context-token", "squad", "team"];
        let (flags, environment) = (Flags::default, DiscoveryInputs::default);
        assert_eq!(find(flags(), environment(), false), context);
        let variables = || DiscoveryInputs {
            endpoint: Some("e.example".into()),
            token: Some("t".into()),
            namespace: Some("own".into()),
            ..DiscoveryInputs::default()
        };
        assert_eq!(find(flags(), variables(), false), ["https://e.example", "t", "own", "no context"]);
        assert_eq!(find(flags(), variables(), true), context);
        let single = DiscoveryInputs { endpoint: None, ..variables() };
        assert_eq!(find(flags(), single, false), ["https://team.example", "t", "own", "team"]);
        let elsewhere = Flags { endpoint: Some("other.example".into()), ..flags() };
        assert_eq!(
            find(elsewhere, environment(), false),
            ["https://other.example", "none", "team", "no context"]
        );
        let namespace = Flags { namespace: Some("flag".into()), token_file: Some("/flag".into()), ..flags() };
        assert_eq!(find(namespace, environment(), true), ["https://team.example", "/flag", "flag", "team"]);
    }

    #[test]
    fn context_without_a_token_is_called_without_one() {
        let mut bare = selected(true);
        let context = &mut bare.as_mut().unwrap().context;
        (context.token, context.namespace) = (None, None);
        let environment = DiscoveryInputs {
            token: Some("of another".into()),
            ca: Some("/nowhere".into()),
            namespace: Some("own".into()),
            ..DiscoveryInputs::default()
        };
        let config = Config { endpoint: None, ..config() };
        let found = merge(&Flags::default(), environment, bare, config, None).unwrap();
        assert_eq!((token(&found).as_str(), found.namespace.as_str()), ("none", "own"));
    }

    #[test]
    fn missing_ca_file_is_an_error() {
        let flags = Flags { ca: Some("/nowhere/ca.pem".into()), ..Flags::default() };
        assert!(matches!(
            merge(&flags, DiscoveryInputs::default(), None, Config::default(), None),
            Err(Error::Read { .. })
        ));
    }
}
