//! Export settings from the `OTEL_*` variables of the OpenTelemetry specification. Sends nothing.
//!
//! `opentelemetry-otlp` reads most of these variables itself, but only for its own exporters. They are read here since
//! metrics are pushed without it (see `metrics`), and since it has no `OTEL_EXPORTER_OTLP_CERTIFICATE`, ignores an
//! unsupported protocol with a warning where an error is wanted, and repeats passwords in its own errors.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
pub use opentelemetry_otlp::Protocol;

use crate::env;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Invalid or unusable export settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("unsupported OTEL_EXPORTER_OTLP_PROTOCOL {0:?}: expected grpc, http/protobuf or http/json")]
    Protocol(String),
    #[error("failed to read OTEL_EXPORTER_OTLP_CERTIFICATE {path:?}: {source}")]
    Certificate { path: String, source: std::io::Error },
    /// Neither field has the password that the endpoint may contain.
    #[error("invalid collector endpoint {endpoint:?}: {reason}")]
    Endpoint { endpoint: String, reason: String },
    #[error("failed to create the span exporter: {0}")]
    Exporter(String),
    #[error("failed to create the HTTP client of the OTLP exporter: {0}")]
    Http(#[from] reqwest::Error),
    #[error("failed to start the OTLP exporter thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Export targets of one process, one for each enabled signal.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) service: &'static str,
    pub(crate) traces: Option<Target>,
    pub(crate) metrics: Option<Target>,
}

/// Collector endpoint of one signal.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Complete URL, with the signal's path for the HTTP protocols.
    pub(crate) endpoint: String,
    pub(crate) protocol: Protocol,
    /// PEM bundle of the certificate authorities to trust instead of the system's.
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) timeout: Duration,
    /// Variables by which a child process exports to the same collector, without secrets.
    pub(crate) child_environment: Vec<(String, String)>,
}

impl Settings {
    /// Reads the environment. Nothing is exported unless it names a collector. `service` is the service name unless
    /// `OTEL_SERVICE_NAME` is set.
    pub fn from_env(service: &'static str) -> Result<Self, Error> {
        let target = |signal| if is_enabled(signal) { Target::from_env(signal).map(Some) } else { Ok(None) };
        Ok(Self { service, traces: target("TRACES")?, metrics: target("METRICS")? })
    }

    /// Exports spans and metrics to the collector at `http://host:port`, regardless of the environment.
    pub fn for_endpoint(service: &'static str, endpoint: &str, protocol: Protocol) -> Self {
        let target = |signal: &str| {
            let child_environment = vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint.to_owned()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), protocol_name(protocol).to_owned()),
            ];
            Some(Target {
                endpoint: signal_endpoint(endpoint, signal, protocol),
                protocol,
                ca: None,
                headers: Vec::new(),
                timeout: DEFAULT_TIMEOUT,
                child_environment,
            })
        };
        Self { service, traces: target("TRACES"), metrics: target("METRICS") }
    }

    /// Disables metrics, as for a command that exits before they would be of use.
    #[must_use]
    pub fn traces_only(self) -> Self {
        Self { metrics: None, ..self }
    }
}

/// Reads a variable of one signal, or else of all signals.
fn signal_var(signal: &str, name: &str) -> Option<String> {
    let own = env::var(&format!("OTEL_EXPORTER_OTLP_{signal}_{name}"));
    own.or_else(|| env::var(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

fn is_enabled(signal: &str) -> bool {
    if env::var("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return false;
    }
    match env::var(&format!("OTEL_{signal}_EXPORTER")) {
        None => signal_var(signal, "ENDPOINT").is_some(),
        Some(exporters) => {
            let has_otlp = exporters.split(',').any(|name| name.trim().eq_ignore_ascii_case("otlp"));
            if !has_otlp && !exporters.trim().eq_ignore_ascii_case("none") {
                tracing::warn!(
                    exporters,
                    "unsupported OTEL_{signal}_EXPORTER, nothing is exported: expected otlp or none"
                );
            }
            has_otlp
        }
    }
}

impl Target {
    fn from_env(signal: &str) -> Result<Self, Error> {
        let protocol = match signal_var(signal, "PROTOCOL").as_deref().map(str::trim) {
            None | Some("http/protobuf") => Protocol::HttpBinary,
            Some("grpc") => Protocol::Grpc,
            Some("http/json") => Protocol::HttpJson,
            Some(other) => return Err(Error::Protocol(other.to_owned())),
        };
        // Only the endpoint of all signals gets a path appended.
        let endpoint = match env::var(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")) {
            Some(own) => own,
            None => {
                let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
                let base = env::var("OTEL_EXPORTER_OTLP_ENDPOINT");
                let base = base.unwrap_or_else(|| format!("http://localhost:{port}"));
                signal_endpoint(&base, signal, protocol)
            }
        };
        let insecure = signal_var(signal, "INSECURE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let scheme = if insecure { "http" } else { "https" };
        let endpoint = if endpoint.contains("://") { endpoint } else { format!("{scheme}://{endpoint}") };
        let ca = match signal_var(signal, "CERTIFICATE") {
            None => None,
            Some(path) => Some(std::fs::read(&path).map_err(|source| Error::Certificate { path, source })?),
        };
        let timeout = signal_var(signal, "TIMEOUT").and_then(|text| text.trim().parse().ok());
        Ok(Self {
            endpoint,
            protocol,
            ca,
            headers: signal_var(signal, "HEADERS").map(|text| parse_headers(&text)).unwrap_or_default(),
            timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis),
            child_environment: child_environment(protocol),
        })
    }

    /// Removes the password of the endpoint from a message that may repeat the endpoint.
    pub(crate) fn without_password(&self, message: &str) -> String {
        message.replace(&self.endpoint, &strip_user_info(&self.endpoint))
    }
}

/// Collects the variables that are not secret, as they were set. The protocol is always among them, because other
/// programs may have another default.
fn child_environment(protocol: Protocol) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for signal in ["", "TRACES_", "METRICS_", "LOGS_"] {
        for name in ["ENDPOINT", "PROTOCOL", "CERTIFICATE", "INSECURE", "TIMEOUT", "COMPRESSION"] {
            let name = format!("OTEL_EXPORTER_OTLP_{signal}{name}");
            // An endpoint with a password is a secret, too.
            let value = env::var(&name).filter(|value| !value.contains('@'));
            variables.extend(value.map(|value| (name, value)));
        }
    }
    let default = "OTEL_EXPORTER_OTLP_PROTOCOL";
    if !variables.iter().any(|(name, _)| name == default) {
        variables.push((default.to_owned(), protocol_name(protocol).to_owned()));
    }
    variables
}

/// Removes everything up to the last `@` of the authority. Not a URL parser: the endpoint may be invalid, and
/// passwords may contain slashes.
fn strip_user_info(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    match rest.rsplit_once('@') {
        Some((_, host)) if scheme.is_empty() => host.to_owned(),
        Some((_, host)) => format!("{scheme}://{host}"),
        None => endpoint.to_owned(),
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "grpc",
        Protocol::HttpJson => "http/json",
        _ => "http/protobuf",
    }
}

fn signal_endpoint(base: &str, signal: &str, protocol: Protocol) -> String {
    match protocol {
        Protocol::Grpc => base.to_owned(),
        _ => format!("{}/v1/{}", base.trim_end_matches('/'), signal.to_ascii_lowercase()),
    }
}

/// Parses `name=value,name=value` with percent-encoded values. Invalid headers are skipped, as the specification
/// asks.
fn parse_headers(text: &str) -> Vec<(HeaderName, HeaderValue)> {
    let parse = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let mut value = HeaderValue::from_bytes(&percent_decode(value.trim())).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    };
    text.split(',').filter_map(parse).collect()
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_decoded_and_invalid_ones_skipped() {
        let headers: Vec<_> = parse_headers("api-key=a%20b, x = 1%,nonsense,a b=c,y=")
            .into_iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        assert_eq!(headers, ["api-key=a b", "x=1%", "y="]);
    }

    #[test]
    fn user_info_is_stripped_from_endpoints() {
        for (endpoint, stripped) in [
            ("https://me:se/c@ret@c:4317/x", "https://c:4317/x"),
            ("me:secret@c", "c"),
            ("http://c:4318", "http://c:4318"),
        ] {
            assert_eq!(strip_user_info(endpoint), stripped);
        }
    }

    #[test]
    fn http_endpoints_get_the_signal_path() {
        for (base, signal, protocol, expected) in [
            ("http://c:4317", "TRACES", Protocol::Grpc, "http://c:4317"),
            ("http://c:4318/", "TRACES", Protocol::HttpBinary, "http://c:4318/v1/traces"),
            ("http://c/otlp", "METRICS", Protocol::HttpJson, "http://c/otlp/v1/metrics"),
        ] {
            assert_eq!(signal_endpoint(base, signal, protocol), expected);
        }
    }
}
