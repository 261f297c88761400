//! People: the issuer that they sign in with, and the list of who may do what. Without an entry of the list, a valid token of the
//! issuer permits nothing. Knows neither calls nor sessions.

mod verifier;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rota_core::text::prefix;
use rota_core::{Namespace, Timestamp};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value};
use tonic::Status;
use url::Url;

pub(crate) use self::verifier::{NotSignedIn, PeopleVerifier};
use super::roles::{Role, allowed_roles};
use crate::options::Oidc;
use crate::wire::status;

/// Entries that a list may have.
const MAX_ENTRIES: usize = 4096;
/// Bytes of a subject; issuers have at most 255.
const MAX_SUBJECT: usize = 255;
/// Bytes of the name that is shown for a person.
const MAX_NAME: usize = 128;
/// Claims that name a person to others, the best one first.
const NAMES: &[&str] = &["preferred_username", "email", "name", "sub"];
/// Scopes that are asked for, unless the file has others.
const SCOPES: [&str; 3] = ["openid", "profile", "email"];
const UPDATE_AGENT: &str = "/rota.v1.AgentService/UpdateAgent";

/// Why people cannot sign in.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("failed to read {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}", path = .path.display())]
    Parse { path: PathBuf, message: String },
}

/// Contents of the file of `--sign-in`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    issuer: String,
    client_id: String,
    #[serde(default)]
    audiences: Vec<String>,
    ca: Option<PathBuf>,
    groups_claim: Option<String>,
    /// Name of the issuer for people.
    name: Option<String>,
    client_secret_file: Option<PathBuf>,
    cli_client_id: Option<String>,
    scopes: Option<Vec<String>>,
    url: Option<Url>,
    #[serde(default)]
    allow: Vec<Allow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    subject: Option<String>,
    group: Option<String>,
    role: PersonRole,
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PersonRole {
    Admin,
    Developer,
    Viewer,
}

impl From<PersonRole> for Role {
    fn from(role: PersonRole) -> Self {
        match role {
            PersonRole::Admin => Self::Admin,
            PersonRole::Developer => Self::Developer,
            PersonRole::Viewer => Self::Viewer,
        }
    }
}

/// Issuer that people sign in with, and what each of them may do.
#[derive(Debug, Clone)]
pub struct People {
    pub(super) oidc: Oidc,
    pub(crate) sign_in: SignIn,
    groups_claim: String,
    allow: Vec<Entry>,
}

/// How people get their tokens.
#[derive(Debug, Clone)]
pub(crate) struct SignIn {
    /// Name of the issuer for people.
    pub(crate) name: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<SecretString>,
    /// Client of the command line, which can keep no secret.
    pub(crate) cli_client_id: String,
    pub(crate) scopes: Vec<String>,
    /// Address at which browsers reach the control plane; `None` if they cannot sign in.
    pub(crate) page: Option<Url>,
}

/// What one person, or each member of a group, may do.
#[derive(Debug, Clone)]
struct Entry {
    who: Who,
    role: Role,
    namespaces: Namespaces,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Subject(String),
    Group(String),
}

/// Namespaces that something is permitted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Namespaces {
    All,
    Of(BTreeSet<Namespace>),
}

impl Namespaces {
    pub(crate) fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Of(some) => some.iter().any(|one| one.as_str() == namespace),
        }
    }
}

/// A person, as the issuer knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// Name by which others know the person.
    pub(crate) name: String,
    /// Groups that the list has.
    pub(crate) groups: Vec<String>,
}

/// Claims of a token: those with a meaning here depend on the issuer.
pub(super) type Claims = Map<String, Value>;

/// Mark of a call that a person makes, with what the list permits.
#[derive(Debug, Clone)]
pub(crate) struct PersonCall {
    pub(crate) person: Arc<Person>,
    /// Where the call is permitted.
    pub(crate) namespaces: Namespaces,
    /// Where the person may also change agents.
    pub(crate) agents: Namespaces,
    /// Whether the person may change nothing anywhere.
    pub(crate) is_viewer: bool,
    /// Whether the person is an admin anywhere.
    pub(crate) is_admin: bool,
    /// When the token of the call expires; `None` for a browser's session.
    pub(crate) token_expires: Option<Timestamp>,
}

impl People {
    /// Reads a TOML file. Paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Self, PeopleError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| PeopleError::Read { path: path.to_owned(), source })?;
        let wrong = |message: String| PeopleError::Parse { path: path.to_owned(), message };
        let document: Document = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        Oidc::check_url(&document.issuer)
            .map_err(|problem| wrong(format!("issuer {:?} {problem}", document.issuer)))?;
        if document.client_id.is_empty() {
            return Err(wrong("client_id is empty".to_owned()));
        }
        if document.allow.is_empty() {
            return Err(wrong("allow has no entry: name who may do what, by subject or group".to_owned()));
        }
        if document.allow.len() > MAX_ENTRIES {
            return Err(wrong(format!("allow has more than {MAX_ENTRIES} entries")));
        }
        let allow = document.allow.into_iter().enumerate();
        let allow = allow.map(|(at, entry)| {
            entry.check().map_err(|problem| wrong(format!("entry {} of allow {problem}", at + 1)))
        });
        let dir = path.parent().unwrap_or(Path::new(""));
        let secret = document.client_secret_file.map(|file| {
            let path = dir.join(file);
            let read = std::fs::read_to_string(&path);
            let text = read.map_err(|source| PeopleError::Read { path: path.clone(), source })?;
            match text.trim() {
                "" => Err(wrong(format!("client_secret_file {} is empty", path.display()))),
                secret => Ok(SecretString::from(secret)),
            }
        });
        if let Some(url) = &document.url {
            check_page(url).map_err(|problem| wrong(format!("url {:?} {problem}", url.as_str())))?;
        }
        let host = Url::parse(&document.issuer).ok().and_then(|url| url.host_str().map(str::to_owned));
        let sign_in = SignIn {
            name: document.name.or(host).unwrap_or_default(),
            client_id: document.client_id.clone(),
            client_secret: secret.transpose()?,
            cli_client_id: document.cli_client_id.clone().unwrap_or_else(|| document.client_id.clone()),
            scopes: document.scopes.unwrap_or_else(|| SCOPES.map(str::to_owned).to_vec()),
            page: document.url,
        };
        let mut oidc = Oidc::new(document.issuer, document.client_id);
        oidc.audiences.extend(document.cli_client_id);
        oidc.audiences.extend(document.audiences);
        oidc.ca = document.ca.map(|ca| dir.join(ca));
        Ok(Self {
            oidc,
            sign_in,
            groups_claim: document.groups_claim.unwrap_or_else(|| "groups".to_owned()),
            allow: allow.collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.oidc.issuer
    }

    /// Returns the person whom the claims of a verified token are about.
    pub(super) fn person(&self, claims: &Claims) -> Result<Person, Status> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let subject = text("sub").filter(|subject| subject.len() <= MAX_SUBJECT);
        let subject =
            subject.ok_or_else(|| status::error("TOKEN_INVALID", "token rejected: it has no subject"))?;
        let named: Vec<_> = match claims.get(&self.groups_claim) {
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(group)) => vec![group],
            _ => Vec::new(),
        };
        // A person may have thousands; the others mean nothing here.
        let listed = self.allow.iter().filter_map(|entry| match &entry.who {
            Who::Group(group) if named.contains(&group.as_str()) => Some(group.clone()),
            _ => None,
        });
        Ok(Person {
            issuer: self.oidc.issuer.clone(),
            subject: subject.to_owned(),
            name: prefix(NAMES.iter().find_map(|name| text(name)).unwrap_or(subject), MAX_NAME).to_owned(),
            groups: listed.collect::<BTreeSet<_>>().into_iter().collect(),
        })
    }

    /// Returns the entries of the list that a person fits.
    fn entries<'a>(&'a self, person: &'a Person) -> impl Iterator<Item = &'a Entry> {
        let is_ours = person.issuer == self.oidc.issuer;
        self.allow.iter().filter(move |entry| {
            is_ours
                && match &entry.who {
                    Who::Subject(subject) => *subject == person.subject,
                    Who::Group(group) => person.groups.contains(group),
                }
        })
    }

    /// Returns the highest role that a person has anywhere; `None` if they are not on the list.
    pub(crate) fn role(&self, person: &Person) -> Option<Role> {
        let roles: Vec<_> = self.entries(person).map(|entry| entry.role).collect();
        [Role::Admin, Role::Developer, Role::Viewer].into_iter().find(|role| roles.contains(role))
    }

    /// Returns where a person has one of these roles; `None` for nowhere.
    pub(super) fn namespaces(&self, person: &Person, allowed: &[Role]) -> Option<Namespaces> {
        let entries = self.entries(person).filter(|entry| allowed.contains(&entry.role));
        entries.map(|entry| entry.namespaces.clone()).reduce(|one, other| match (one, other) {
            (Namespaces::Of(one), Namespaces::Of(other)) => {
                Namespaces::Of(one.into_iter().chain(other).collect())
            }
            _ => Namespaces::All,
        })
    }

    /// Decides on a call for these roles.
    pub(crate) fn permit(&self, person: Arc<Person>, allowed: &[Role]) -> Result<PersonCall, Status> {
        let name = &person.name;
        let role = self.role(&person).ok_or_else(|| not_listed(name))?;
        let Some(namespaces) = self.namespaces(&person, allowed) else {
            let role = format!("{role:?}").to_lowercase();
            return Err(status::hinted(
                "ROLE_FORBIDDEN",
                format!("{name} is a {role} and may not make this call"),
                "the list of --sign-in gives people their roles",
            ));
        };
        let agents = self.namespaces(&person, allowed_roles(UPDATE_AGENT));
        let agents = agents.unwrap_or_else(|| Namespaces::Of(BTreeSet::new()));
        let (is_viewer, is_admin) = (role == Role::Viewer, role == Role::Admin);
        Ok(PersonCall { namespaces, agents, is_viewer, is_admin, token_expires: None, person })
    }
}

/// Checks the address of a control plane.
fn check_page(url: &Url) -> Result<(), &'static str> {
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must be the address of a page");
    }
    Oidc::check_url(url.as_str())
}

/// The issuer knows a person whom the list does not.
pub(crate) fn not_listed(name: &str) -> Status {
    status::hinted(
        "PERSON_NOT_ALLOWED",
        format!("{name} is not on the list of people who may sign in"),
        "ask an admin of the control plane for an entry in the file of --sign-in",
    )
}

impl Allow {
    fn check(self) -> Result<Entry, String> {
        let who = match (self.subject, self.group) {
            (Some(subject), None) => Who::Subject(subject),
            (None, Some(group)) => Who::Group(group),
            _ => return Err("must have a subject or a group".to_owned()),
        };
        let (Who::Subject(text) | Who::Group(text)) = &who;
        if text.is_empty() {
            return Err("has an empty subject or group".to_owned());
        }
        let namespaces = match self.namespaces {
            None => Namespaces::All,
            Some(some) if some.is_empty() => {
                return Err("has no namespaces: leave them out for all".to_owned());
            }
            Some(some) => {
                if let Some(wrong) = some.iter().find(|one| Namespace::new(one.as_str()).is_err()) {
                    return Err(format!("has an invalid namespace {:?}", wrong.as_str()));
                }
                Namespaces::Of(some.into_iter().collect())
            }
        };
        Ok(Entry { who, role: self.role.into(), namespaces })
    }
}

#[cfg(test)]
mod tests;
