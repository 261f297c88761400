//! What forges do differently: one implementation of [`Dialect`] for each. Knows nothing of connections.

use async_trait::async_trait;

use crate::gitea::Gitea;
use crate::github::{self, GitHub};
use crate::gitlab::GitLab;
use crate::http::Http;
use crate::review::{Comment, Pages, Review};
use crate::{Error, Found, Provider, Repository, Wanted};

/// Parameter for the entries of a page, and its highest value.
pub(crate) type PageSize = (&'static str, usize);

/// Calls of a forge for requests, in its own types. Those that are written here are GitHub's, which Gitea has, too.
#[async_trait]
pub(crate) trait Dialect: std::fmt::Debug + Send + Sync {
    /// Returns what is asked for with every list.
    fn page(&self) -> PageSize;

    /// Returns the scheme of the header with the token.
    fn scheme(&self) -> &'static str {
        "Bearer"
    }

    /// Returns headers of every call besides.
    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Returns the path of a repository.
    fn project(&self, repository: &Repository) -> String {
        format!("repos/{}", repository.path)
    }

    /// Returns the open request of a branch.
    async fn find(&self, http: &Http, repository: &Repository, branch: &str) -> Result<Option<Found>, Error>;

    /// Opens a request. Returns none if there is one already.
    async fn create(
        &self,
        http: &Http,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Result<Option<Found>, Error>;

    async fn update(
        &self,
        http: &Http,
        repository: &Repository,
        found: &Found,
        wanted: &Wanted,
    ) -> Result<Found, Error> {
        github::update(http, repository, found, wanted).await
    }

    /// Adds labels. Returns those that the forge does not know.
    async fn label(
        &self,
        http: &Http,
        repository: &Repository,
        found: &Found,
        labels: &[String],
    ) -> Result<Vec<String>, Error>;

    /// Asks users for a review. Returns those that the forge does not know.
    async fn request_review(
        &self,
        http: &Http,
        repository: &Repository,
        found: &Found,
        names: &[String],
    ) -> Result<Vec<String>, Error> {
        github::request_review(http, repository, found, names).await
    }

    /// Returns the state of a request, with what was written since a time, and perhaps before.
    async fn review(
        &self,
        http: &Http,
        repository: &Repository,
        number: i64,
        since: i64,
        pages: &mut Pages,
    ) -> Result<Review, Error>;

    /// Whether the author of a comment may write to the repository. Those who are no collaborators are refused.
    async fn may_write(
        &self,
        http: &Http,
        repository: &Repository,
        comment: &Comment,
    ) -> Result<bool, Error> {
        github::may_write(http, repository, comment).await
    }
}

impl Provider {
    pub(crate) fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::GitHub => &GitHub,
            Self::GitLab => &GitLab,
            Self::Gitea => &Gitea,
        }
    }
}
