//! The user's config file. Unknown keys are errors.

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Format, Toml};
use secrecy::SecretString;
use serde::Deserialize;

use super::Error;
use crate::Token;

/// Contents of the config file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URL or address of the control plane.
    pub endpoint: Option<String>,
    /// Bearer token. Takes precedence over `token_file`.
    pub token: Option<SecretString>,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
    /// PEM file of certificates to trust.
    pub ca: Option<PathBuf>,
    /// Namespace of names without one.
    pub namespace: Option<String>,
}

impl Config {
    /// Reads a config file. A missing one is an error only if it is `required`, as when a flag names it.
    pub fn read(path: &Path, required: bool) -> Result<Self, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(source) if required || source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Read { path: path.to_owned(), source });
            }
            Err(_) => return Ok(Self::default()),
        };
        Figment::from(Toml::string(&text))
            .extract()
            .map_err(|error| Error::Config { path: path.to_owned(), message: error.to_string() })
    }

    pub(super) fn token(&self) -> Option<Token> {
        let fixed = self.token.clone().map(Token::Fixed);
        fixed.or_else(|| self.token_file.clone().map(Token::File))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_file_fails_only_if_required() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert!(Config::read(&path, true).is_err());
        assert!(Config::read(&path, false).unwrap().endpoint.is_none());
    }

    #[test]
    fn unknown_keys_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "endpoint = \"x\"\n").unwrap();
        assert_eq!(Config::read(&path, true).unwrap().endpoint.as_deref(), Some("x"));
        std::fs::write(&path, "endpont = \"x\"\n").unwrap();
        assert!(Config::read(&path, true).unwrap_err().to_string().contains("endpont"));
    }
}
