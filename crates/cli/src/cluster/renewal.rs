//! Certificates and token of a control plane in a cluster, which are read again while a command runs: an operator may replace them.

use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::watch;

use super::control_plane::Credentials;
use crate::exit::Failure;

/// Time after which they are read again, as files of tokens are.
pub(super) const INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct Renewal {
    credentials: Credentials,
    /// Certificates to trust, unless the caller has named a file.
    authority: Option<watch::Sender<String>>,
    /// Token, unless the caller has given one.
    token: Option<watch::Sender<SecretString>>,
}

impl Renewal {
    /// Reads what the caller has not given.
    pub(super) async fn start(
        credentials: Credentials,
        needs_authority: bool,
        needs_token: bool,
    ) -> Result<Self, Failure> {
        let authority = match needs_authority {
            true => Some(watch::Sender::new(credentials.authority().await?)),
            false => None,
        };
        let token = match needs_token {
            true => Some(watch::Sender::new(credentials.token().await?)),
            false => None,
        };
        Ok(Self { credentials, authority, token })
    }

    pub(super) fn authority(&self) -> Option<watch::Receiver<String>> {
        self.authority.as_ref().map(watch::Sender::subscribe)
    }

    pub(super) fn token(&self) -> Option<watch::Receiver<SecretString>> {
        self.token.as_ref().map(watch::Sender::subscribe)
    }

    /// Reads them again. What cannot be read stays as it was.
    pub(super) async fn renew(&self) {
        if let Some(authority) = &self.authority {
            match self.credentials.authority().await {
                Ok(read) => drop(authority.send_replace(read)),
                Err(error) => tracing::debug!(error = error.message, "certificates are not read again"),
            }
        }
        if let Some(token) = &self.token {
            match self.credentials.token().await {
                Ok(read) => drop(token.send_replace(read)),
                Err(error) => tracing::debug!(error = error.message, "the token is not read again"),
            }
        }
    }
}
