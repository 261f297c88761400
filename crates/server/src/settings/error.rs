//! Contradictions between settings, with what resolves them.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base_path::BasePathError;
use crate::follow::FollowError;
use crate::notify::NotificationsError;
use crate::trust::people::PeopleError;

/// Contradiction between settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The server would be open to all that reach its address.
    #[error(
        "no token would be required on {0}: every program that reaches it could run commands on the workers"
    )]
    Unauthenticated(SocketAddr),
    /// Callers without a token could do more than viewers.
    #[error(
        "viewer_token_file requires token_file, oidc_issuer or sign_in: without a token, callers may do everything"
    )]
    ViewersAlone,
    /// Pages of other origins have a token, or no access.
    #[error(
        "cors_origin requires token_file, oidc_issuer or sign_in: pages from elsewhere call with a token only"
    )]
    OriginsAlone,
    /// Browsers would not send it like that.
    #[error("cors_origin {0:?} is no origin")]
    Origin(String),
    #[error("base_path {0}")]
    BasePath(BasePathError),
    /// Browsers would come back from the issuer to an address without pages.
    #[error(
        "url {url:?} of sign_in must have base_path {base:?} as its path: it is the address of the control centre"
    )]
    OtherPage {
        /// Address of the control centre in the file of `--sign-in`.
        url: String,
        /// Path that it must have.
        base: String,
    },
    /// A key has no effect without the issuer.
    #[error("{0} requires oidc_issuer or oidc_token_file")]
    NoIssuer(&'static str),
    /// A URL is unusable.
    #[error("{key} {url:?} {problem}")]
    Url {
        /// Key of the setting.
        key: &'static str,
        /// Its value.
        url: String,
        /// Predicate, such as `must begin with https://`.
        problem: &'static str,
    },
    /// A key is set to an empty string.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// One of two keys is missing.
    #[error("tls_certificate and tls_key must be set together")]
    IncompleteTls,
    /// Other replicas could not open the secrets that this one seals.
    #[error("store requires key_file: all replicas need the same key")]
    NoKeyFile,
    #[error("the key_file {path} is missing", path = .0.display())]
    MissingKeyFile(PathBuf),
    #[error("store requires artifacts: all replicas need the same storage of artifacts")]
    NoArtifacts,
    #[error(
        "store requires advertise, as HOST:PORT: other replicas do not reach this one at its listen address"
    )]
    NoAdvertise,
    #[error("other replicas do not reach this one at {0}")]
    UnreachableAdvertise(String),
    #[error("failed to write {path}: {source}", path = .path.display())]
    Owner { path: PathBuf, source: std::io::Error },
    #[error("notifications: {0}")]
    Notifications(#[from] NotificationsError),
    #[error("{0}")]
    WebPush(String),
    #[error("follow_pull_requests: {0}")]
    Follow(#[from] FollowError),
    #[error("sign_in: {0}")]
    SignIn(#[from] PeopleError),
    /// A token would belong to a person and to a pod.
    #[error("sign_in and oidc_issuer name the same issuer {0}: people and workers need one each")]
    SharedIssuer(String),
    #[error("artifacts: {0}")]
    Artifacts(#[from] rota_artifacts::Error),
    /// Something that serving needs is unusable.
    #[error(transparent)]
    Unusable(#[from] crate::error::Error),
    /// The token that names the issuer is unreadable.
    #[error("failed to read oidc_token_file {path}: {source}", path = path.display())]
    TokenFile { path: PathBuf, source: std::io::Error },
    /// The token names no issuer.
    #[error("the token in oidc_token_file {path} names no issuer", path = .0.display())]
    NoIssuerInToken(PathBuf),
}

impl SettingsError {
    /// How to resolve it, where that is not obvious.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unauthenticated(_) => Some(
                "set --token-file, or --insecure if that is what you want; `rota dev` makes a token by itself",
            ),
            Self::Origin(_) => Some("use SCHEME://HOST or SCHEME://HOST:PORT, such as https://app.example"),
            Self::NoIssuerInToken(_) => Some("set --oidc-issuer"),
            Self::NoKeyFile => {
                Some("set --key-file to a file that all replicas have, such as a mounted Secret")
            }
            Self::MissingKeyFile(_) => Some(
                "make one with `head -c 32 /dev/urandom`, readable by its user alone, and give all replicas the same",
            ),
            Self::NoArtifacts => Some(
                "set --artifacts to an object store, or to file:///DIR with a directory that all replicas share",
            ),
            Self::Unusable(error) => error.hint(),
            Self::UnreachableAdvertise(_) => Some(
                "set --advertise to an address of this machine or pod that the others reach; one of this machine alone is accepted \
                 if the database is on this machine as well",
            ),
            Self::NoAdvertise => Some("set --advertise to the address of this machine or pod"),
            _ => None,
        }
    }
}
