//! Which server to talk to, and with what token: flags, then the environment, then the config file,
//! then a `rota dev` that runs on this machine, then the usual address.

mod config;
mod dev;

use std::path::PathBuf;

use rota_telemetry::env;

pub use config::Config;
pub use dev::{DevEndpoint, write_private};

use crate::{Options, Token};

/// Where a server is when nobody says anything.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7420";

/// What flags say.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The server.
    pub endpoint: Option<String>,
    /// A file with the token.
    pub token_file: Option<PathBuf>,
    /// A file with certificates to trust.
    pub ca: Option<PathBuf>,
    /// The namespace.
    pub namespace: Option<String>,
    /// The config file, instead of the usual one.
    pub config: Option<PathBuf>,
}

/// Who said where the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// `ROTA_ENDPOINT`.
    Environment,
    /// The config file.
    Config,
    /// A `rota dev` on this machine.
    Dev,
    /// Nobody.
    Default,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// For [`crate::Client::new`].
    pub options: Options,
    /// The namespace to work in.
    pub namespace: String,
    /// Who said where the server is.
    pub origin: Origin,
}

/// A file that was named cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that it must not.
    #[error("the config file {} is wrong: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Rota's own folder: `$ROTA_HOME`, or else `~/.rota`.
pub fn home() -> PathBuf {
    env::var_os("ROTA_HOME").map(PathBuf::from).unwrap_or_else(|| user_home().join(".rota"))
}

fn user_home() -> PathBuf {
    env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// The file in which `rota dev` says where it is.
pub fn dev_file() -> PathBuf {
    home().join("dev").join("endpoint.json")
}

/// The config file: `$XDG_CONFIG_HOME/rota/config.toml`, or else `~/.config/rota/config.toml`.
pub fn config_file() -> PathBuf {
    let base =
        env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).unwrap_or_else(|| user_home().join(".config"));
    base.join("rota").join("config.toml")
}

/// What the environment says.
#[derive(Debug, Clone, Default)]
struct Surroundings {
    endpoint: Option<String>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    namespace: Option<String>,
}

/// Finds out which server to talk to.
pub fn find(flags: &Flags) -> Result<Found, Error> {
    let around = Surroundings {
        endpoint: env::var("ROTA_ENDPOINT"),
        token: env::var("ROTA_TOKEN"),
        token_file: env::var_os("ROTA_TOKEN_FILE").map(PathBuf::from),
        ca: env::var_os("ROTA_CA").map(PathBuf::from),
        namespace: env::var("ROTA_NAMESPACE"),
    };
    let named = flags.config.clone().or_else(|| env::var_os("ROTA_CONFIG").map(PathBuf::from));
    let config = match &named {
        Some(path) => Config::read(path, true)?,
        None => Config::read(&config_file(), false)?,
    };
    merge(flags, around, config, DevEndpoint::read(&dev_file()).filter(DevEndpoint::is_alive))
}

fn merge(
    flags: &Flags,
    around: Surroundings,
    config: Config,
    dev: Option<DevEndpoint>,
) -> Result<Found, Error> {
    let (endpoint, origin) = None
        .or_else(|| flags.endpoint.clone().map(|endpoint| (endpoint, Origin::Flag)))
        .or_else(|| around.endpoint.map(|endpoint| (endpoint, Origin::Environment)))
        .or_else(|| config.endpoint.clone().map(|endpoint| (endpoint, Origin::Config)))
        .or_else(|| dev.as_ref().map(|dev| (dev.endpoint.clone(), Origin::Dev)))
        .unwrap_or_else(|| (DEFAULT_ENDPOINT.to_owned(), Origin::Default));
    let mut options = Options::new(endpoint);
    let is = |other: &str| Options::new(other).endpoint == options.endpoint;
    // A file's token goes only to the server that the same file names.
    let configured = config.endpoint.as_deref().is_none_or(is) && origin != Origin::Dev;
    let from_config = configured.then(|| config.token()).flatten();
    let from_dev =
        dev.as_ref().filter(|dev| is(&dev.endpoint)).map(|dev| Token::File(dev.token_file.clone()));
    let ca = flags.ca.clone().or(around.ca).or_else(|| config.ca.clone().filter(|_| configured));
    options.token = None
        .or_else(|| flags.token_file.clone().map(Token::File))
        .or_else(|| around.token.map(|token| Token::Fixed(token.into())))
        .or_else(|| around.token_file.map(Token::File))
        .or(from_config)
        .or(from_dev)
        .unwrap_or_default();
    if let Some(path) = &ca {
        // It is read for each connection; that there is none is said at once.
        std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    }
    options.ca = ca;
    let namespace = flags
        .namespace
        .clone()
        .or(around.namespace)
        .or(config.namespace)
        .unwrap_or_else(|| "default".to_owned());
    Ok(Found { options, namespace, origin })
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
    fn the_order() {
        let flags = Flags { endpoint: Some("f.example".into()), ..Flags::default() };
        let around = Surroundings {
            endpoint: Some("e.example".into()),
            token: Some("t".into()),
            ..Surroundings::default()
        };
        let none = Flags::default;
        let found = merge(&flags, around.clone(), config(), Some(dev())).unwrap();
        assert_eq!((found.options.endpoint.as_str(), found.origin), ("https://f.example", Origin::Flag));
        let found = merge(&none(), around, config(), Some(dev())).unwrap();
        assert_eq!((token(&found).as_str(), found.origin), ("t", Origin::Environment));
        let found = merge(&none(), Surroundings::default(), config(), Some(dev())).unwrap();
        assert_eq!((token(&found).as_str(), found.origin), ("/config-token", Origin::Config));
        assert_eq!(found.namespace, "team");
        let found = merge(&none(), Surroundings::default(), Config::default(), Some(dev())).unwrap();
        assert_eq!((token(&found).as_str(), found.origin), ("/dev-token", Origin::Dev));
        let found = merge(&none(), Surroundings::default(), Config::default(), None).unwrap();
        assert_eq!((found.options.endpoint.as_str(), found.origin), (DEFAULT_ENDPOINT, Origin::Default));
        assert_eq!((found.namespace.as_str(), token(&found).as_str()), ("default", "none"));
    }

    #[test]
    fn a_token_goes_only_to_its_own_server() {
        let to = |endpoint: &str| Flags { endpoint: Some(endpoint.into()), ..Flags::default() };
        let token =
            |flags: Flags, dev| token(&merge(&flags, Surroundings::default(), config(), dev).unwrap());
        assert_eq!(token(to("https://elsewhere.example"), Some(dev())), "none");
        assert_eq!(token(to("rota.example"), Some(dev())), "/config-token");
        assert_eq!(token(to("127.0.0.1:9"), Some(dev())), "/dev-token");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let flags = Flags { ca: Some("/nowhere/ca.pem".into()), ..Flags::default() };
        assert!(matches!(
            merge(&flags, Surroundings::default(), Config::default(), None),
            Err(Error::Read { .. })
        ));
    }
}
