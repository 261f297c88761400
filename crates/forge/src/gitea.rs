//! Pull requests of Gitea and Forgejo, whose API has much of GitHub's.

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::dialect::{Dialect, PageSize};
use crate::github::{self, Pull};
use crate::http::Http;
use crate::review::{Pages, Review, Written, time};
use crate::{Error, Found, Repository, Wanted};

/// Prefix of titles of drafts.
const DRAFT: &str = "WIP: ";

#[derive(Debug, Deserialize)]
struct Label {
    id: i64,
    name: String,
}

/// Reviews whose comments are read, with a call each: the newest ones.
const MAX_REVIEWS: usize = 100;

#[derive(Debug)]
pub(crate) struct Gitea;

#[async_trait]
impl Dialect for Gitea {
    fn page(&self) -> PageSize {
        ("limit", 50)
    }

    fn scheme(&self) -> &'static str {
        "token"
    }

    async fn find(&self, http: &Http, repository: &Repository, branch: &str) -> Result<Option<Found>, Error> {
        let pulls: Vec<Pull> = http.list(&format!("repos/{}/pulls?state=open", repository.path)).await?;
        Ok(pulls.into_iter().find(|pull| pull.is_of(branch)).map(Into::into))
    }

    async fn create(
        &self,
        http: &Http,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Result<Option<Found>, Error> {
        let body = json!({"title": wanted.marked(DRAFT, wanted.draft), "head": wanted.branch, "base": wanted.base, "body": wanted.body});
        let path = format!("repos/{}/pulls", repository.path);
        let created = http.create::<Pull>(&path, &body, |status, _| status == StatusCode::CONFLICT).await?;
        Ok(created.map(Into::into))
    }

    async fn update(
        &self,
        http: &Http,
        repository: &Repository,
        found: &Found,
        wanted: &Wanted,
    ) -> Result<Found, Error> {
        let title = wanted.marked(DRAFT, found.draft);
        github::update(http, repository, found, &Wanted { title, ..wanted.clone() }).await
    }

    /// Labels have numbers, which are those of the repository.
    async fn label(
        &self,
        http: &Http,
        repository: &Repository,
        found: &Found,
        labels: &[String],
    ) -> Result<Vec<String>, Error> {
        let known: Vec<Label> = http.list(&format!("repos/{}/labels", repository.path)).await?;
        let ids: Vec<_> =
            known.iter().filter(|label| labels.contains(&label.name)).map(|label| label.id).collect();
        if !ids.is_empty() {
            let path = format!("repos/{}/issues/{}/labels", repository.path, found.number);
            http.send::<Value>(Method::POST, &path, Some(&json!({"labels": ids}))).await?;
        }
        let is_unknown = |name: &&String| !known.iter().any(|label| label.name == **name);
        Ok(labels.iter().filter(is_unknown).cloned().collect())
    }

    async fn review(
        &self,
        http: &Http,
        repository: &Repository,
        number: i64,
        since: i64,
        pages: &mut Pages,
    ) -> Result<Review, Error> {
        let mut review = github::reviewed(http, repository, number, pages).await?;
        if !review.open {
            return Ok(review);
        }
        let root = format!("repos/{}", repository.path);
        let path = format!("{root}/issues/{number}/comments?since={}", time(since));
        // These lists have no pages.
        let written: Vec<Written> = http.get_known(&path, pages).await?;
        review.comment(written.into_iter().filter_map(Written::comment));
        let path = format!("{root}/pulls/{number}/reviews");
        let mut reviews = Vec::new();
        let add = |page: Vec<Written>| reviews.extend(page.into_iter().filter(|one| one.is_since(since)));
        http.each_known(&path, pages, add).await?;
        reviews.sort_by_key(|one| std::cmp::Reverse(one.id));
        for one in reviews.into_iter().take(MAX_REVIEWS) {
            let path = format!("{root}/pulls/{number}/reviews/{}/comments", one.id);
            let written: Vec<Written> = http.get_known(&path, pages).await?;
            review.comment(
                written.into_iter().map(Written::of_gitea).chain([one]).filter_map(Written::comment),
            );
        }
        Ok(review)
    }
}
