//! Where the database is, and how it is reached: the URL of the store, and TLS.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rota_store::Error;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::errors::unavailable;
use crate::timeline::NewestTimeline;

const URL_HINT: &str = "the form is postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE";
/// Time for a connection to one host, in which a lost packet is sent again once: several that are away delay those behind them.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time after which unacknowledged data ends a connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the password, which may be changed while the process runs; `None` if there is none.
pub type PasswordSource = Arc<dyn Fn() -> Result<Option<SecretString>, Error> + Send + Sync>;

/// A database, with everything that a connection needs.
#[derive(Clone)]
pub struct Target {
    config: Config,
    tls: MakeRustlsConnect,
    /// File with the certificates of authorities, which is read for each connection: they are replaced while the process runs.
    roots: Option<PathBuf>,
    /// Source of the password, which is read for each connection.
    password: Option<PasswordSource>,
    /// What its connections have seen: copies share it.
    timeline: NewestTimeline,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("database", &self.describe()).finish_non_exhaustive()
    }
}

/// Whether a text is the URL of a PostgreSQL database, and not the name of a file.
pub fn is_url(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

impl Target {
    /// Parses a URL. A password that is given takes the place of that in the URL.
    pub fn parse(url: &str, password: Option<&SecretString>) -> Result<Self, Error> {
        let bad = |message: String| unavailable(message, URL_HINT);
        if !is_url(url) {
            return Err(bad("the URL of the store does not begin with postgres://".to_owned()));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut roots, mut rest) = (None, None, Vec::new());
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value_text = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match key {
                "sslmode" => mode = Some(value_text),
                "sslrootcert" => roots = Some(value_text),
                _ => rest.push(part),
            }
        }
        let plain = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        // Its own message may repeat a part of the URL, such as the password.
        let mut config =
            Config::from_str(&plain).map_err(|_| bad("the URL of the store is not valid".to_owned()))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(bad("the URL of the store names no host".to_owned()));
        }
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        let encrypts = match mode.as_deref() {
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") => true,
            None => !is_local(&config),
            Some(other) => {
                return Err(bad(format!(
                    "sslmode={other} is not supported: use verify-full, or disable for a network that is trusted"
                )));
            }
        };
        if encrypts && config.get_hosts().is_empty() {
            return Err(bad("hostaddr needs a host: the name in the certificate of the database".to_owned()));
        }
        config
            .ssl_mode(if encrypts { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_TIMEOUT)
            .keepalives_idle(TCP_TIMEOUT);
        let roots = roots.map(PathBuf::from);
        let tls = MakeRustlsConnect::new(tls(roots.as_deref())?);
        Ok(Self { config, tls, roots, password: None, timeline: NewestTimeline::default() })
    }

    /// Reads the password from this source for each connection.
    pub fn with_password_source(self, source: PasswordSource) -> Self {
        Self { password: Some(source), ..self }
    }

    /// Returns the password that a URL contains.
    pub fn password_of(url: &str) -> Result<Option<SecretString>, Error> {
        let target = Self::parse(url, None)?;
        let password = target.config.get_password().map(String::from_utf8_lossy);
        Ok(password.map(|password| SecretString::from(password.into_owned())))
    }

    /// Whether all hosts are on this machine.
    pub fn is_local(&self) -> bool {
        is_local(&self.config)
    }

    /// Returns a name for messages, without secrets.
    pub fn describe(&self) -> String {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<_> = self.config.get_hosts().iter().map(host).collect();
        format!("database {} at {}", self.config.get_dbname().unwrap_or("of the user"), hosts.join(","))
    }

    pub(crate) fn config(&self, application: &str) -> Config {
        let mut config = self.config.clone();
        config.application_name(application);
        match self.password.as_ref().map(|read| read()) {
            Some(Ok(Some(password))) => {
                config.password(password.expose_secret());
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "failed to read the password of the database again, trying the last one");
            }
            Some(Ok(None)) | None => {}
        }
        config
    }

    pub(crate) fn timeline(&self) -> &NewestTimeline {
        &self.timeline
    }

    pub(crate) fn tls(&self) -> MakeRustlsConnect {
        match self.roots.as_deref().map(|roots| tls(Some(roots))) {
            Some(Ok(config)) => MakeRustlsConnect::new(config),
            Some(Err(error)) => {
                tracing::warn!(%error, "failed to read the certificates again, trying those of the start");
                self.tls.clone()
            }
            None => self.tls.clone(),
        }
    }
}

/// Whether all hosts are on this machine, and the addresses that are connected to in their place.
fn is_local(config: &Config) -> bool {
    let is_local_host = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    config.get_hosts().iter().all(is_local_host) && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// Certificates are always verified: encryption without that would only look safe.
fn tls(roots: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let failed = |error: &dyn std::fmt::Display| {
                unavailable(
                    format!("failed to read the certificates of sslrootcert {}: {error}", path.display()),
                    "name a PEM file with the certificate of the authority that signed the database's",
                )
            };
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(&error))?;
                store.add(certificate).map_err(|error| failed(&error))?;
            }
            if store.is_empty() {
                return Err(failed(&"there are none"));
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unavailable(format!("TLS cannot be used: {error}"), "see the log"))?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> SslMode {
        Target::parse(url, None).unwrap().config.get_ssl_mode()
    }

    #[test]
    fn remote_hosts_are_verified_unless_disabled() {
        assert_eq!(mode("postgres://rota@db.example/rota"), SslMode::Require);
        assert_eq!(mode("postgres://rota@a.example,b.example:5433/rota"), SslMode::Require);
        assert_eq!(mode("postgres://rota@db.example/rota?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://rota@127.0.0.1/rota"), SslMode::Disable);
        assert_eq!(mode("postgres://rota@127.0.0.1/rota?sslmode=require"), SslMode::Require);
        assert_eq!(mode("postgresql://rota@%2Ftmp%2Fsocket/rota"), SslMode::Disable);
    }

    /// A `hostaddr` is connected to in place of the host.
    #[test]
    fn remote_addresses_of_local_hosts_are_verified() {
        let remote = "hostaddr=203.0.113.5";
        assert_eq!(mode(&format!("postgres://rota@localhost/rota?{remote}")), SslMode::Require);
        assert_eq!(mode(&format!("postgres://rota@%2Ftmp%2Fsocket/rota?{remote}")), SslMode::Require);
        assert_eq!(mode("postgres://rota@a.example/rota?hostaddr=127.0.0.1"), SslMode::Require);
        assert_eq!(mode(&format!("postgres://rota@/rota?sslmode=disable&{remote}")), SslMode::Disable);
        assert_eq!(mode("postgres://rota@localhost/rota?hostaddr=127.0.0.1"), SslMode::Disable);
        assert_eq!(mode("postgres://rota@/rota?hostaddr=::1"), SslMode::Disable);
        let error = Target::parse(&format!("postgres://rota@/rota?{remote}"), None).unwrap_err();
        assert!(error.to_string().contains("hostaddr needs a host"), "{error}");
    }

    #[test]
    fn invalid_urls_name_no_password() {
        for url in [
            "postgres://rota:hunter2@db.example/rota?sslmode=prefer",
            "postgres://rota:hunter2@db.example:x/rota",
            "postgres://rota:hunter2@/rota",
            "http://rota:hunter2@db.example",
            "postgres://rota:hunter2@db.example/rota?sslrootcert=/nowhere",
        ] {
            let error = Target::parse(url, None).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn password_is_not_printed() {
        let password = SecretString::from("hunter2");
        let target = Target::parse("postgres://rota@db.example/rota", Some(&password)).unwrap();
        assert_eq!(target.config.get_password(), Some("hunter2".as_bytes()));
        assert!(!format!("{target:?}").contains("hunter2"));
        assert_eq!(target.describe(), "database rota at db.example");
    }
}
