//! What a client needs to be told.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// What a client needs to be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// For example `http://127.0.0.1:7420` or `https://rota.example:443`.
    pub endpoint: String,
    /// What proves who calls.
    pub token: Token,
    /// A file with certificates to trust, in PEM, instead of the system's. Read again for each connection.
    pub ca: Option<PathBuf>,
    /// The name that the server's certificate must have, where it is not the endpoint's.
    pub tls_name: Option<String>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to one call, or for the first answer of a stream.
    pub timeout: Duration,
    /// For how long a call that found no server is tried again.
    pub retry_for: Duration,
    /// What the caller is, for the server's log: for example `rota/0.1.0`.
    pub user_agent: String,
}

/// What proves who calls. Does not print.
#[derive(Debug, Clone, Default)]
pub enum Token {
    /// Nothing.
    #[default]
    None,
    /// This one.
    Fixed(SecretString),
    /// Whatever the file says, read again now and then, since a cluster renews it.
    File(PathBuf),
}

impl Options {
    /// The usual ones, for an endpoint. Without `http://` or `https://` in front, it is http for
    /// this machine and https for others.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: with_scheme(endpoint.into()),
            token: Token::None,
            ca: None,
            tls_name: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            retry_for: Duration::from_secs(2),
            user_agent: concat!("rota/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Whether a token would cross a network in the clear.
    pub fn exposes_token(&self) -> bool {
        !matches!(self.token, Token::None)
            && self.endpoint.strip_prefix("http://").is_some_and(|rest| !is_loopback(rest))
    }
}

fn with_scheme(endpoint: String) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if let Some((scheme, rest)) = endpoint.split_once("://") {
        // As the rest of the program looks for it.
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
    fn schemes() {
        for (given, meant) in [
            ("127.0.0.1:7420", "http://127.0.0.1:7420"),
            ("localhost:1/", "http://localhost:1"),
            ("[::1]:7420", "http://[::1]:7420"),
            ("rota.example:443", "https://rota.example:443"),
            ("http://rota.example", "http://rota.example"),
            ("HTTPS://Rota.example", "https://Rota.example"),
        ] {
            assert_eq!(Options::new(given).endpoint, meant);
        }
    }

    #[test]
    fn a_token_in_the_clear_is_noticed() {
        let with_token = |endpoint| Options { token: Token::Fixed("t".into()), ..Options::new(endpoint) };
        assert!(!with_token("127.0.0.1:1").exposes_token());
        assert!(!with_token("rota.example").exposes_token());
        assert!(with_token("http://rota.example").exposes_token());
        assert!(!Options::new("http://rota.example").exposes_token());
    }
}
