//! Receivers of notifications, as a file describes them. Secrets are in files of their own, which are read for each delivery,
//! so that they can be replaced at any time.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rota_core::Namespace;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::{Host, Url};

use super::address::is_refused;
use super::message::{Notification, Occasion};
use super::sign::Keys;

pub(super) const MAX_RECEIVERS: usize = 16;
const MAX_NAME: usize = 63;

/// Reason why notifications cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NotificationsError {
    #[error("failed to read {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}", path = .path.display())]
    Parse { path: PathBuf, message: String },
    #[error("receiver {name:?} {problem}")]
    Receiver { name: String, problem: String },
}

/// Format of the messages of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// JSON with a signature over id, time and body.
    Webhook,
    /// Text for an incoming webhook of Slack, or of a program that takes the same.
    Slack,
}

/// One receiver, with the notifications that it wants.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub(super) name: String,
    pub(super) format: Format,
    url: Secret,
    secret: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    namespaces: BTreeSet<Namespace>,
    occasions: BTreeSet<Occasion>,
    link: Option<String>,
    workflow_link: Option<String>,
    allow_http: bool,
    pub(super) allow_link_local: bool,
}

/// Text that may be a secret.
#[derive(Debug, Clone)]
enum Secret {
    Given(SecretString),
    File(PathBuf),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    receiver: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    format: Format,
    url: Option<SecretString>,
    url_file: Option<PathBuf>,
    secret_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    occasions: Vec<Occasion>,
    link: Option<String>,
    workflow_link: Option<String>,
    #[serde(default)]
    allow_http: bool,
    #[serde(default)]
    allow_link_local: bool,
}

impl Receiver {
    /// Reads the receivers of a TOML file. Paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Vec<Self>, NotificationsError> {
        let text = read(path)?;
        let parsed: Result<Document, _> = toml::from_str(text.expose_secret());
        let document = parsed.map_err(|error| {
            // The message of the parser quotes a line, which may have a secret in it.
            NotificationsError::Parse { path: path.to_owned(), message: error.message().to_owned() }
        })?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let receivers: Vec<_> =
            document.receiver.into_iter().map(|entry| entry.check(dir)).collect::<Result<_, _>>()?;
        let refused = |name: &str, problem: &str| NotificationsError::Receiver {
            name: name.to_owned(),
            problem: problem.to_owned(),
        };
        let mut names = BTreeSet::new();
        for receiver in &receivers {
            if !names.insert(&receiver.name) {
                return Err(refused(&receiver.name, "is there twice"));
            }
            receiver
                .url()
                .and_then(|_| receiver.keys())
                .map_err(|problem| refused(&receiver.name, &problem))?;
        }
        if let Some(beyond) = receivers.get(MAX_RECEIVERS) {
            return Err(refused(&beyond.name, &format!("is one too many: there may be {MAX_RECEIVERS}")));
        }
        Ok(receivers)
    }

    /// Whether the receiver wants notifications of this kind.
    pub(super) fn wants(&self, namespace: &Namespace, occasion: Occasion) -> bool {
        (self.namespaces.is_empty() || self.namespaces.contains(namespace))
            && match self.occasions.is_empty() {
                true => occasion.is_usual(),
                false => self.occasions.contains(&occasion),
            }
    }

    /// Returns the address, as it is now.
    pub(super) fn url(&self) -> Result<Url, String> {
        let text = match &self.url {
            Secret::Given(text) => text.clone(),
            Secret::File(path) => read(path).map_err(|error| error.to_string())?,
        };
        let url =
            Url::parse(text.expose_secret().trim()).map_err(|error| format!("has no valid URL: {error}"))?;
        let host = url.host().ok_or("has a URL without a host")?;
        let address = match &host {
            Host::Ipv4(address) => Some(IpAddr::V4(*address)),
            Host::Ipv6(address) => Some(IpAddr::V6(*address)),
            Host::Domain(_) => None,
        };
        if !self.allow_link_local && address.is_some_and(is_refused) {
            return Err(
                "has the URL of a link-local address or a metadata service; allow_link_local allows it"
                    .to_owned(),
            );
        }
        let loopback =
            matches!(host, Host::Domain("localhost")) || address.is_some_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => Ok(url),
            "http" if loopback || self.allow_http => Ok(url),
            _ => Err("has a URL that does not begin with https://; allow_http allows http://".to_owned()),
        }
    }

    /// Returns the keys of its signatures, as they are now; `None` if its messages have none.
    pub(super) fn keys(&self) -> Result<Option<Keys>, String> {
        let Some(path) = &self.secret else { return Ok(None) };
        let text = read(path).map_err(|error| error.to_string())?;
        Keys::parse(text.expose_secret()).map(Some).map_err(|problem| format!("{} {problem}", path.display()))
    }

    /// Returns the page about the task or workflow of a notification, if there is one.
    pub(super) fn link(&self, one: &Notification) -> Option<String> {
        let (link, subject) = match one.is_of_workflow() {
            true => (self.workflow_link.as_ref()?, "{workflow}"),
            false => (self.link.as_ref()?, "{task}"),
        };
        Some(link.replace("{namespace}", one.namespace.as_str()).replace(subject, &one.subject_id))
    }
}

impl Entry {
    fn check(self, dir: &Path) -> Result<Receiver, NotificationsError> {
        let name = self.name.clone();
        let refused =
            |problem: &str| NotificationsError::Receiver { name: name.clone(), problem: problem.to_owned() };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.bytes().all(plain) {
            return Err(refused("needs a name of at most 63 lower-case letters, digits and dashes"));
        }
        let url = match (self.url, self.url_file) {
            (Some(url), None) => Secret::Given(url),
            (None, Some(file)) => Secret::File(dir.join(file)),
            _ => return Err(refused("needs either url or url_file")),
        };
        match (self.format, &self.secret_file) {
            (Format::Webhook, None) => return Err(refused("needs a secret_file: webhooks are signed")),
            (Format::Slack, Some(_)) => {
                return Err(refused("has a secret_file, and Slack checks no signatures"));
            }
            _ => {}
        }
        let namespaces = self.namespaces.iter().map(|name| name.parse().map_err(|_| name));
        let namespaces = namespaces
            .collect::<Result<_, _>>()
            .map_err(|name| refused(&format!("has an invalid namespace {name:?}")))?;
        let is_no_url = |link: &String| !link.starts_with("https://") && !link.starts_with("http://");
        if self.link.iter().chain(&self.workflow_link).any(is_no_url) {
            return Err(refused("has a link that is no URL"));
        }
        Ok(Receiver {
            format: self.format,
            url,
            secret: self.secret_file.map(|file| dir.join(file)),
            ca: self.ca.map(|file| dir.join(file)),
            namespaces,
            occasions: self.occasions.into_iter().collect(),
            link: self.link,
            workflow_link: self.workflow_link,
            allow_http: self.allow_http,
            allow_link_local: self.allow_link_local,
            name: self.name,
        })
    }
}

fn read(path: &Path) -> Result<SecretString, NotificationsError> {
    let failed = |source| NotificationsError::Read { path: path.to_owned(), source };
    std::fs::read_to_string(path).map(SecretString::from).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Vec<Receiver>, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let path = dir.path().join("notifications.toml");
        std::fs::write(&path, text).unwrap();
        Receiver::load(&path).map_err(|error| error.to_string())
    }

    fn webhook(url: &str, more: &str) -> String {
        format!(
            "[[receiver]]\nname = \"a\"\nformat = \"webhook\"\nsecret_file = \"key\"\nurl = \"{url}\"\n{more}"
        )
    }

    #[test]
    fn receivers_take_what_they_ask_for() {
        let text = webhook("https://a.example/x", "namespaces = [\"prod\"]\noccasions = [\"failed\"]\n");
        let receiver = load(&text).unwrap().remove(0);
        let (prod, test) = ("prod".parse().unwrap(), "test".parse().unwrap());
        assert!(receiver.wants(&prod, Occasion::Failed));
        assert!(!receiver.wants(&prod, Occasion::Question) && !receiver.wants(&test, Occasion::Failed));
        assert!(!format!("{receiver:?}").contains("a.example"), "the URL may be a secret");
    }

    #[test]
    fn dangerous_receivers_are_refused() {
        for (url, expected) in [
            ("http://a.example/", "https://"),
            ("http://169.254.169.254/latest", "link-local"),
            ("https://[::ffff:169.254.169.254]/", "link-local"),
            ("https://0xA9FEA9FE/", "link-local"),
            ("file:///etc/passwd", "host"),
            ("nonsense", "URL"),
        ] {
            let error = load(&webhook(url, "")).unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
        }
        assert!(load(&webhook("http://10.1.2.3/", "allow_http = true")).is_ok());
        assert!(load(&webhook("http://127.0.0.1:9/", "")).is_ok());
        let twice = webhook("https://a.example/", "") + &webhook("https://b.example/", "");
        assert!(load(&twice).unwrap_err().contains("twice"));
        let unknown = load(&webhook("https://a.example/", "secret = \"hunter2\"")).unwrap_err();
        assert!(unknown.contains("unknown field") && !unknown.contains("hunter2"), "{unknown}");
    }
}
