//! Forges: pull requests of GitHub and Gitea, merge requests of GitLab. Knows their APIs, and neither tasks nor git.
//!
//! A [`Repository`] is found by its URL, and a [`Forge`] makes calls for it with a token that a [`TokenSource`] returns, which is asked
//! again when a token is refused. [`Forge::deliver`] opens the request of a branch, or updates the one that is open.
//!
//! - `http`: one call, with everything that can go wrong: a refused token, rate limits with their waits, servers that fail, pages. A token
//!   is never sent to another host than the API's.
//! - `app`: tokens of a GitHub App, made from its private key.
//! - `review`: what has become of a request, for those who follow it.
//! - [`template`]: texts of requests, with [`neutral`] values: what an agent writes notifies and closes nothing.
//! - `dialect`: what forges do differently, a trait. `github`, `gitlab`, `gitea` implement it, each in its own types. To add a forge, write
//!   another of these and a [`Provider`].
//!
//! The crates that exist for these APIs bring HTTP clients of their own; see `docs/dev/decisions/0018-forges.md`.

mod app;
mod dialect;
mod gitea;
mod github;
mod gitlab;
mod http;
pub mod neutral;
mod repository;
mod review;
pub mod template;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

pub use app::{AppKey, AppTokens};
use dialect::Dialect;
use http::Http;
pub use http::Settings;
pub use repository::{Provider, Repository, local_path};
pub use review::{Check, Comment, Pages, Review};

/// Bytes of the address of a page.
const MAX_PAGE_URL: usize = 2048;
/// Bytes of the name of a branch.
const MAX_BRANCH: usize = 256;

/// Why a call to a forge did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The forge does not respond, fails, or asks to wait longer than a caller does: for this time, if it names one.
    #[error("{0}")]
    Away(String, Option<Duration>),
    /// The forge refuses the token.
    #[error("{0}")]
    Credentials(String),
    /// The forge refuses what it is asked for.
    #[error("{0}")]
    Refused(String),
    /// The token cannot be read or made.
    #[error("failed to read the token: {0}")]
    Token(String),
}

/// Source of the tokens of a forge.
#[async_trait]
pub trait TokenSource: std::fmt::Debug + Send + Sync {
    /// Returns a token. After one was `refused` it is read or made again.
    async fn token(&self, refused: bool) -> Result<SecretString, Error>;
}

/// A token that does not change.
#[async_trait]
impl TokenSource for SecretString {
    async fn token(&self, _refused: bool) -> Result<SecretString, Error> {
        Ok(self.clone())
    }
}

/// Pull or merge request to open.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub branch: String,
    /// Branch to merge into; empty for the default branch.
    pub base: String,
    pub title: String,
    /// Whether one that is open gets this title as well.
    pub retitle: bool,
    pub body: String,
    /// Whether it is opened as a draft. One that is open stays what it is.
    pub draft: bool,
    pub labels: Vec<String>,
    /// Names of users; of teams with a slash.
    pub reviewers: Vec<String>,
}

impl Wanted {
    /// Returns the title, with the mark that makes a request a draft where the forge has no field for it.
    fn marked(&self, mark: &str, draft: bool) -> String {
        format!("{}{}", if draft { mark } else { "" }, self.title)
    }
}

/// Pull or merge request that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub number: i64,
    /// Address of the page that users open.
    pub url: String,
    /// Branch that it is to be merged into.
    pub base: String,
    /// Whether it was opened now.
    pub created: bool,
    /// What the forge did not accept, such as unknown reviewers.
    pub missing: Vec<String>,
}

/// A request as each forge lists it.
#[derive(Debug, Clone)]
struct Found {
    number: i64,
    url: String,
    base: String,
    draft: bool,
}

#[derive(Debug)]
pub struct Forge {
    http: Http,
    dialect: &'static dyn Dialect,
    repository: Repository,
}

impl Forge {
    /// `patience` is the time for which a forge that does not respond is asked again, in all.
    pub fn new(
        repository: Repository,
        tokens: Arc<dyn TokenSource>,
        settings: &Settings,
        patience: Duration,
    ) -> Result<Self, Error> {
        let dialect = repository.provider.dialect();
        let http = Http::new(dialect, repository.api.clone(), tokens, settings, patience)?;
        Ok(Self { http, dialect, repository })
    }

    /// Opens a request for a branch, or updates the one that is open.
    pub async fn deliver(&self, wanted: &Wanted) -> Result<Opened, Error> {
        let (http, repository, mut wanted) = (&self.http, &self.repository, wanted.clone());
        let found = self.dialect.find(http, repository, &wanted.branch).await?;
        if wanted.base.is_empty() && found.is_none() {
            wanted.base = self.default_branch().await?;
        }
        let (found, created) = match found {
            Some(found) => (self.dialect.update(http, repository, &found, &wanted).await?, false),
            None => match self.dialect.create(http, repository, &wanted).await? {
                Some(created) => (created, true),
                // Opened meanwhile, or by a call whose answer was lost.
                None => {
                    let exists = || {
                        let branch = &wanted.branch;
                        Error::Refused(format!("the forge reports a request of {branch}, and lists none"))
                    };
                    let found =
                        self.dialect.find(http, repository, &wanted.branch).await?.ok_or_else(exists)?;
                    (self.dialect.update(http, repository, &found, &wanted).await?, false)
                }
            },
        };
        let missing = self.decorate(&found, &wanted).await?;
        let Found { number, url, base, .. } = found;
        let (url, base) = (page(&url)?, branch(base)?);
        Ok(Opened { number, url, base, created, missing })
    }

    async fn default_branch(&self) -> Result<String, Error> {
        #[derive(serde::Deserialize)]
        struct Project {
            default_branch: String,
        }
        let path = self.dialect.project(&self.repository);
        branch(self.http.get::<Project>(&path).await?.default_branch)
    }

    /// Sets labels and reviewers. Returns what the forge did not accept, without which the request is open all the same.
    async fn decorate(&self, found: &Found, wanted: &Wanted) -> Result<Vec<String>, Error> {
        let (http, repository, mut missing) = (&self.http, &self.repository, Vec::new());
        if !wanted.labels.is_empty() {
            let set = self.dialect.label(http, repository, found, &wanted.labels).await;
            note("labels", set, &mut missing)?;
        }
        if !wanted.reviewers.is_empty() {
            let set = self.dialect.request_review(http, repository, found, &wanted.reviewers).await;
            note("reviewers", set, &mut missing)?;
        }
        Ok(missing)
    }
}

/// Returns the address of a page that a forge names, if it can be shown to users: encoded, and without a user name, which could
/// pass for the host.
fn page(given: &str) -> Result<String, Error> {
    let is_page = |url: &url::Url| {
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
    };
    let parsed = url::Url::parse(given).ok().filter(is_page).map(String::from);
    let short = parsed.filter(|url| url.len() <= MAX_PAGE_URL);
    short.ok_or_else(|| Error::Refused("the forge names no address of the request's page".to_owned()))
}

/// Returns the name of a branch that a forge gives, if it can be one.
fn branch(given: String) -> Result<String, Error> {
    if given.len() > MAX_BRANCH || given.chars().any(|char| char.is_control() || char.is_whitespace()) {
        return Err(Error::Refused("the forge names a branch that cannot be one".to_owned()));
    }
    Ok(given)
}

fn note(what: &str, set: Result<Vec<String>, Error>, missing: &mut Vec<String>) -> Result<(), Error> {
    match set {
        Ok(unknown) => missing.extend(unknown.iter().map(|name| format!("{what}: {name} is unknown"))),
        Err(Error::Refused(text) | Error::Credentials(text)) => missing.push(format!("{what}: {text}")),
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_forges_can_be_shown() {
        assert_eq!(page("https://forge/o/r/pull/1").unwrap(), "https://forge/o/r/pull/1");
        assert!(!page("https://forge/\u{1b}[2J").unwrap().contains('\u{1b}'));
        for bad in
            ["https://github.com@evil/1", "javascript:alert(1)", &format!("https://x/{}", "a".repeat(3000))]
        {
            assert!(page(bad).is_err(), "{bad}");
        }
        assert_eq!(branch("release/1.2".to_owned()).unwrap(), "release/1.2");
        for bad in ["a".repeat(3 << 20), "a\u{1b}b".to_owned(), "a b".to_owned()] {
            assert!(branch(bad).is_err());
        }
    }
}
