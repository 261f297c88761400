//! Settings of a client.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::watch;

/// Time for which calls to a control plane on this machine are retried, such as while it is restarted.
const LOCAL_RETRY: Duration = Duration::from_secs(2);
/// Time for which calls to another machine are retried: more than a takeover by another replica takes.
const REMOTE_RETRY: Duration = Duration::from_secs(30);

/// Settings of a [`crate::Client`].
#[derive(Debug, Clone)]
pub struct Options {
    /// URL such as `http://127.0.0.1:7420` or `https://rota.example:443`.
    pub endpoint: String,
    /// Credential sent with each call.
    pub token: Token,
    /// PEM file of certificates to trust instead of the system's. Read again for each connection.
    pub ca: Option<PathBuf>,
    /// The certificates themselves, in PEM, where no file has them, as their owner replaces them. Take precedence over `ca`.
    pub ca_pem: Option<watch::Receiver<String>>,
    /// Name that the server's certificate must have, if it is not the endpoint's host.
    pub tls_name: Option<String>,
    /// Timeout of connecting.
    pub connect_timeout: Duration,
    /// Timeout of a unary call, and of the first response of a stream.
    pub timeout: Duration,
    /// How long a call is retried while no server answers: by default 30 s, for which replicas may need to take over, or 2 s at a
    /// loopback address, where nothing takes over.
    pub retry_for: Duration,
    /// `user-agent` header, for the server's log: for example `rota/0.1.0`.
    pub user_agent: String,
}

/// Source of the bearer token. `Debug` does not print it.
#[derive(Debug, Clone, Default)]
pub enum Token {
    /// Calls are anonymous.
    #[default]
    None,
    /// The token itself.
    Fixed(SecretString),
    /// A file with the token, read again every 30 seconds: a cluster renews it.
    File(PathBuf),
    /// A token that its owner replaces before it expires.
    Renewed(watch::Receiver<SecretString>),
}

impl Options {
    /// Returns the defaults for an endpoint. One without a scheme gets `http` for a loopback address and `https`
    /// otherwise.
    pub fn new(endpoint: impl Into<String>) -> Self {
        let endpoint = with_scheme(endpoint.into());
        let is_local = endpoint.split_once("://").is_some_and(|(_, authority)| is_loopback(authority));
        Self {
            endpoint,
            token: Token::None,
            ca: None,
            ca_pem: None,
            tls_name: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            retry_for: if is_local { LOCAL_RETRY } else { REMOTE_RETRY },
            user_agent: concat!("rota/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Returns whether the token would be sent unencrypted over a network.
    pub fn exposes_token(&self) -> bool {
        !matches!(self.token, Token::None)
            && self.endpoint.strip_prefix("http://").is_some_and(|rest| !is_loopback(rest))
    }
}

fn with_scheme(endpoint: String) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if let Some((scheme, rest)) = endpoint.split_once("://") {
        // Other code compares schemes in lower case.
        format!("{}://{rest}", scheme.to_ascii_lowercase())
    } else if is_loopback(endpoint) {
        format!("http://{endpoint}")
    } else {
        format!("https://{endpoint}")
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(['/', ':']).next(),
    };
    let host = host.unwrap_or_default();
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_gets_default_scheme() {
        for (given, expected) in [
            ("127.0.0.1:7420", "http://127.0.0.1:7420"),
            ("localhost:1/", "http://localhost:1"),
            ("[::1]:7420", "http://[::1]:7420"),
            ("rota.example:443", "https://rota.example:443"),
            ("http://rota.example", "http://rota.example"),
            ("HTTPS://Rota.example", "https://Rota.example"),
        ] {
            assert_eq!(Options::new(given).endpoint, expected);
        }
    }

    #[test]
    fn takeover_is_waited_for_at_other_machines() {
        for (endpoint, seconds) in [
            ("127.0.0.1:7420", 2),
            ("http://localhost:7420", 2),
            ("https://[::1]:7420", 2),
            ("rota.example:443", 30),
            ("http://10.0.0.5:7420", 30),
        ] {
            assert_eq!(Options::new(endpoint).retry_for, Duration::from_secs(seconds), "{endpoint}");
        }
    }

    #[test]
    fn unencrypted_token_is_detected() {
        let with_token = |endpoint| Options { token: Token::Fixed("t".into()), ..Options::new(endpoint) };
        assert!(!with_token("127.0.0.1:1").exposes_token());
        assert!(!with_token("rota.example").exposes_token());
        assert!(with_token("http://rota.example").exposes_token());
        assert!(!Options::new("http://rota.example").exposes_token());
    }
}
