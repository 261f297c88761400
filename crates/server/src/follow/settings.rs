//! Repositories whose pull requests are followed, as a file describes them. Tokens are in files of their own, which are read for each
//! call, so that they can be replaced at any time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rota_core::Namespace;
use rota_forge::{Error, Forge, Provider, Repository, Settings, TokenSource};
use secrecy::SecretString;
use serde::Deserialize;

const MAX_REPOSITORIES: usize = 256;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(300);
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_QUIET: Duration = Duration::from_secs(60);
/// Continuations of one request, unless the file sets another number.
const DEFAULT_CONTINUATIONS: u32 = 3;
const MAX_CONTINUATIONS: u32 = 20;

/// Reason why requests cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("failed to read {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}", path = .path.display())]
    Parse { path: PathBuf, message: String },
    #[error("repository {url:?} {problem}")]
    Repository { url: String, problem: String },
}

/// Whose comments continue a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Authors {
    /// Those who may write to the repository.
    #[default]
    Writers,
    All,
    None,
}

/// What is followed, and how often it is looked at.
#[derive(Debug, Clone)]
pub struct Follow {
    pub(super) interval: Duration,
    /// Age of the newest comment before a task is continued: people write several.
    pub(super) quiet: Duration,
    pub(super) repositories: Vec<Followed>,
}

/// A repository, for the tasks of one namespace.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub(super) namespace: Namespace,
    /// Address of the repository, as tasks name it.
    pub(super) url: String,
    pub(super) repository: Repository,
    pub(super) token: TokenFile,
    pub(super) ca: Option<PathBuf>,
    /// Labels of the tasks that are followed; those of all tasks if there are none.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) checks: bool,
    pub(super) comments: Authors,
    pub(super) max_continuations: u32,
}

impl Followed {
    /// Returns a client of the forge, which waits for no answer that is late: another look follows anyway.
    pub(super) async fn forge(&self) -> Result<Forge, Error> {
        let ca = match &self.ca {
            Some(file) => {
                Some(tokio::fs::read(file).await.map_err(|error| Error::Refused(error.to_string()))?)
            }
            None => None,
        };
        let token = Arc::new(self.token.clone());
        Forge::new(self.repository.clone(), token, &Settings { ca }, Duration::ZERO)
    }
}

/// File with a token, which is read for each call.
#[derive(Debug, Clone)]
pub(super) struct TokenFile(PathBuf);

#[async_trait]
impl TokenSource for TokenFile {
    async fn token(&self, _refused: bool) -> Result<SecretString, Error> {
        let read = tokio::fs::read_to_string(&self.0).await;
        read.map(SecretString::from).map_err(|error| Error::Token(error.to_string()))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    interval_seconds: Option<u64>,
    quiet_seconds: Option<u64>,
    #[serde(default)]
    repository: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    namespace: String,
    url: String,
    provider: Option<Provider>,
    api_url: Option<String>,
    token_file: PathBuf,
    ca: Option<PathBuf>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default = "yes")]
    checks: bool,
    #[serde(default)]
    comments: Authors,
    max_continuations: Option<u32>,
}

fn yes() -> bool {
    true
}

impl Follow {
    /// Reads a TOML file. Paths in it are relative to its directory.
    pub fn load(path: &Path) -> Result<Self, FollowError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| FollowError::Read { path: path.to_owned(), source })?;
        let wrong = |message: String| FollowError::Parse { path: path.to_owned(), message };
        let document: Document = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let interval =
            document.interval_seconds.map_or(DEFAULT_INTERVAL, Duration::from_secs).max(MIN_INTERVAL);
        let quiet = document.quiet_seconds.map_or(DEFAULT_QUIET, Duration::from_secs);
        if document.repository.len() > MAX_REPOSITORIES {
            return Err(wrong(format!("there may be {MAX_REPOSITORIES} repositories")));
        }
        let dir = path.parent().unwrap_or(Path::new(""));
        let repositories = document.repository.into_iter().map(|entry| entry.check(dir));
        Ok(Self { interval, quiet, repositories: repositories.collect::<Result<_, _>>()? })
    }
}

impl Entry {
    fn check(self, dir: &Path) -> Result<Followed, FollowError> {
        let wrong = |problem: String| FollowError::Repository { url: self.url.clone(), problem };
        let namespace = self
            .namespace
            .parse()
            .map_err(|_| wrong(format!("has an invalid namespace {:?}", self.namespace)))?;
        let repository = Repository::of(&self.url, self.provider, self.api_url.as_deref())
            .map_err(|problem| wrong(format!("has a problem: {problem}")))?;
        let token = dir.join(&self.token_file);
        if let Err(error) = std::fs::metadata(&token) {
            return Err(wrong(format!("needs its token_file {}: {error}", token.display())));
        }
        let max_continuations = self.max_continuations.unwrap_or(DEFAULT_CONTINUATIONS);
        if !(1..=MAX_CONTINUATIONS).contains(&max_continuations) {
            return Err(wrong(format!("needs max_continuations from 1 to {MAX_CONTINUATIONS}")));
        }
        Ok(Followed {
            namespace,
            url: self.url,
            repository,
            token: TokenFile(token),
            ca: self.ca.map(|file| dir.join(file)),
            labels: self.labels,
            checks: self.checks,
            comments: self.comments,
            max_continuations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Follow, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "tok").unwrap();
        let path = dir.path().join("follow.toml");
        std::fs::write(&path, text).unwrap();
        Follow::load(&path).map_err(|error| error.to_string())
    }

    fn entry(more: &str) -> String {
        format!("[[repository]]\nnamespace = \"prod\"\ntoken_file = \"token\"\n{more}")
    }

    #[test]
    fn repositories_have_bounds_and_defaults() {
        let text = entry("url = \"https://github.com/team/project.git\"\n");
        let follow = load(&text).unwrap();
        let one = &follow.repositories[0];
        assert_eq!((follow.interval, follow.quiet), (Duration::from_secs(300), Duration::from_secs(60)));
        assert!(one.checks && one.comments == Authors::Writers && one.max_continuations == 3);
        assert_eq!(load(&format!("interval_seconds = 0\n{text}")).unwrap().interval, MIN_INTERVAL);
        for (more, expected) in [
            ("url = \"https://git.example/a/b\"", "name its provider"),
            ("url = \"https://github.com/a/b\"\nmax_continuations = 99", "from 1 to 20"),
            ("url = \"https://github.com/a/b\"\nother = 1", "unknown field"),
        ] {
            let failed = load(&entry(more)).unwrap_err();
            assert!(failed.contains(expected), "{failed}");
        }
        let missing = entry("url = \"https://github.com/a/b\"").replace("\"token\"", "\"none\"");
        assert!(load(&missing).unwrap_err().contains("token_file"));
    }
}
