//! What the `OTEL_` variables say of where to send, as the specification of the exporter has them. Sends nothing.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
pub use opentelemetry_otlp::Protocol;

use crate::env;

/// For a collector to answer, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Something cannot be sent as somebody wants it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variables.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL is {0:?}; it can be grpc, http/protobuf or http/json")]
    Protocol(String),
    /// A file.
    #[error("the file {path:?} of OTEL_EXPORTER_OTLP_CERTIFICATE cannot be used: {why}")]
    Certificate {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// The address.
    #[error("the collector's address {endpoint:?} cannot be used: {why}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The exporter.
    #[error("spans cannot be sent: {0}")]
    Exporter(String),
    /// HTTP.
    #[error("the HTTP client for the collector cannot be made: {0}")]
    Http(#[from] reqwest::Error),
    /// The thread.
    #[error("the thread that sends to the collector cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// What to send where, and whose it is.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) service: &'static str,
    pub(crate) traces: Option<Target>,
    pub(crate) metrics: Option<Target>,
}

/// Where one kind of thing is sent, and how.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Whole, with its path where the protocol has one.
    pub(crate) endpoint: String,
    pub(crate) protocol: Protocol,
    /// PEM.
    pub(crate) authority: Option<Vec<u8>>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) timeout: Duration,
    programs: Vec<(String, String)>,
}

impl Settings {
    /// What the environment asks for: nothing, unless it names a collector. `service` is its name, unless
    /// `OTEL_SERVICE_NAME` says another.
    pub fn from_env(service: &'static str) -> Result<Self, Error> {
        let of = |kind| if wanted(kind) { Target::from_env(kind).map(Some) } else { Ok(None) };
        Ok(Self { service, traces: of("TRACES")?, metrics: of("METRICS")? })
    }

    /// Spans and figures to a collector at `http://host:port`, whatever the variables say.
    pub fn to(service: &'static str, endpoint: &str, protocol: Protocol) -> Self {
        let of = |kind: &str| {
            let programs = vec![
                ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint.to_owned()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), name(protocol).to_owned()),
            ];
            let endpoint = at(endpoint, kind, protocol);
            let (headers, timeout) = (Vec::new(), TIMEOUT);
            Some(Target { endpoint, protocol, authority: None, headers, timeout, programs })
        };
        Self { service, traces: of("TRACES"), metrics: of("METRICS") }
    }

    /// Without figures: a command is over before anybody would look at them.
    #[must_use]
    pub fn only_traces(self) -> Self {
        Self { metrics: None, ..self }
    }
}

/// A variable for one kind of thing, or else for everything.
fn of(kind: &str, name: &str) -> Option<String> {
    let own = env::var(&format!("OTEL_EXPORTER_OTLP_{kind}_{name}"));
    own.or_else(|| env::var(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

fn wanted(kind: &str) -> bool {
    if env::var("OTEL_SDK_DISABLED").is_some_and(|set| set.eq_ignore_ascii_case("true")) {
        return false;
    }
    match env::var(&format!("OTEL_{kind}_EXPORTER")) {
        None => of(kind, "ENDPOINT").is_some(),
        Some(set) => {
            let known = set.split(',').any(|one| one.trim().eq_ignore_ascii_case("otlp"));
            if !known && !set.trim().eq_ignore_ascii_case("none") {
                tracing::warn!(
                    "OTEL_{kind}_EXPORTER is {set:?}; otlp and none are known, and nothing is sent"
                );
            }
            known
        }
    }
}

impl Target {
    fn from_env(kind: &str) -> Result<Self, Error> {
        let protocol = match of(kind, "PROTOCOL").as_deref().map(str::trim) {
            None | Some("http/protobuf") => Protocol::HttpBinary,
            Some("grpc") => Protocol::Grpc,
            Some("http/json") => Protocol::HttpJson,
            Some(other) => return Err(Error::Protocol(other.to_owned())),
        };
        // Only what is named for everything gets a path appended.
        let endpoint = match env::var(&format!("OTEL_EXPORTER_OTLP_{kind}_ENDPOINT")) {
            Some(own) => own,
            None => {
                let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
                let all = env::var("OTEL_EXPORTER_OTLP_ENDPOINT");
                at(&all.unwrap_or_else(|| format!("http://localhost:{port}")), kind, protocol)
            }
        };
        let insecure = of(kind, "INSECURE").is_some_and(|set| set.eq_ignore_ascii_case("true"));
        let scheme = if insecure { "http" } else { "https" };
        let endpoint = if endpoint.contains("://") { endpoint } else { format!("{scheme}://{endpoint}") };
        let authority = match of(kind, "CERTIFICATE") {
            None => None,
            Some(path) => Some(std::fs::read(&path).map_err(|error| {
                let why = error.to_string();
                Error::Certificate { path, why }
            })?),
        };
        let timeout = of(kind, "TIMEOUT").and_then(|text| text.trim().parse().ok());
        Ok(Self {
            endpoint,
            protocol,
            authority,
            headers: of(kind, "HEADERS").map(|text| headers(&text)).unwrap_or_default(),
            timeout: timeout.map_or(TIMEOUT, Duration::from_millis),
            programs: programs(protocol),
        })
    }

    /// What somebody says of the address, without the password that the address may hold.
    pub(crate) fn shown(&self, text: &str) -> String {
        text.replace(&self.endpoint, &without_user(&self.endpoint))
    }

    pub(crate) fn for_programs(&self) -> Vec<(String, String)> {
        self.programs.clone()
    }
}

/// The variables that are not secret, as they were given. What is usual here need not be elsewhere.
fn programs(protocol: Protocol) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for kind in ["", "TRACES_", "METRICS_", "LOGS_"] {
        for name in ["ENDPOINT", "PROTOCOL", "CERTIFICATE", "INSECURE", "TIMEOUT", "COMPRESSION"] {
            let name = format!("OTEL_EXPORTER_OTLP_{kind}{name}");
            // A password in an address is a secret, too.
            let value = env::var(&name).filter(|value| !value.contains('@'));
            all.extend(value.map(|value| (name, value)));
        }
    }
    let usual = "OTEL_EXPORTER_OTLP_PROTOCOL";
    if !all.iter().any(|(known, _)| known == usual) {
        all.push((usual.to_owned(), name(protocol).to_owned()));
    }
    all
}

/// An address without what stands before its last `@`: it need not be one that can be read, and passwords have slashes.
fn without_user(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    match rest.rsplit_once('@') {
        Some((_, host)) if scheme.is_empty() => host.to_owned(),
        Some((_, host)) => format!("{scheme}://{host}"),
        None => endpoint.to_owned(),
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "grpc",
        Protocol::HttpJson => "http/json",
        _ => "http/protobuf",
    }
}

fn at(endpoint: &str, kind: &str, protocol: Protocol) -> String {
    match protocol {
        Protocol::Grpc => endpoint.to_owned(),
        _ => format!("{}/v1/{}", endpoint.trim_end_matches('/'), kind.to_ascii_lowercase()),
    }
}

/// `name=value,name=value`, with values as in a URL. What is no header is left out.
fn headers(text: &str) -> Vec<(HeaderName, HeaderValue)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let mut value = HeaderValue::from_bytes(&decoded(value.trim())).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    };
    text.split(',').filter_map(pair).collect()
}

fn decoded(text: &str) -> Vec<u8> {
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
    fn headers_are_read_as_the_specification_has_them() {
        let read: Vec<_> = headers("api-key=a%20b, x = 1%,nonsense,a b=c,y=")
            .into_iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        assert_eq!(read, ["api-key=a b", "x=1%", "y="]);
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (given, shown) in [
            ("https://me:se/c@ret@c:4317/x", "https://c:4317/x"),
            ("me:secret@c", "c"),
            ("http://c:4318", "http://c:4318"),
        ] {
            assert_eq!(without_user(given), shown);
        }
    }

    #[test]
    fn a_path_is_appended_only_to_what_is_for_everything() {
        assert_eq!(at("http://c:4317", "TRACES", Protocol::Grpc), "http://c:4317");
        assert_eq!(at("http://c:4318/", "TRACES", Protocol::HttpBinary), "http://c:4318/v1/traces");
        assert_eq!(at("http://c/otlp", "METRICS", Protocol::HttpJson), "http://c/otlp/v1/metrics");
    }
}
