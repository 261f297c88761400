//! Pull requests of Gitea and Forgejo, whose API has much of GitHub's.

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::github::{self, Pull};
use crate::http::{GITEA_PAGE, Http};
use crate::review::{Pages, Review, Written, time};
use crate::{Error, Found, Repository, Wanted};

/// Prefix of titles of drafts.
const DRAFT: &str = "WIP: ";

pub(crate) async fn find(http: &Http, repository: &Repository, branch: &str) -> Result<Option<Found>, Error> {
    let pulls: Vec<Pull> = http.list(&format!("repos/{}/pulls?state=open&limit=50", repository.path)).await?;
    Ok(pulls.into_iter().find(|pull| pull.is_of(branch)).map(Into::into))
}

pub(crate) async fn create(
    http: &Http,
    repository: &Repository,
    wanted: &Wanted,
) -> Result<Option<Found>, Error> {
    let body = json!({"title": wanted.marked(DRAFT, wanted.draft), "head": wanted.branch, "base": wanted.base, "body": wanted.body});
    let path = format!("repos/{}/pulls", repository.path);
    let created = http.create::<Pull>(&path, &body, |status, _| status == StatusCode::CONFLICT).await?;
    Ok(created.map(Into::into))
}

pub(crate) async fn update(
    http: &Http,
    repository: &Repository,
    found: &Found,
    wanted: &Wanted,
) -> Result<Found, Error> {
    let title = wanted.marked(DRAFT, found.draft);
    github::update(http, repository, found, &Wanted { title, ..wanted.clone() }).await
}

#[derive(Debug, Deserialize)]
struct Label {
    id: i64,
    name: String,
}

/// Labels have numbers. Returns the names that the repository has not.
pub(crate) async fn label(
    http: &Http,
    repository: &Repository,
    found: &Found,
    labels: &[String],
) -> Result<Vec<String>, Error> {
    let known: Vec<Label> = http.list(&format!("repos/{}/labels?limit=50", repository.path)).await?;
    let ids: Vec<_> =
        known.iter().filter(|label| labels.contains(&label.name)).map(|label| label.id).collect();
    if !ids.is_empty() {
        let path = format!("repos/{}/issues/{}/labels", repository.path, found.number);
        http.send::<Value>(Method::POST, &path, Some(&json!({"labels": ids}))).await?;
    }
    let is_unknown = |name: &&String| !known.iter().any(|label| label.name == **name);
    Ok(labels.iter().filter(is_unknown).cloned().collect())
}

/// Reviews whose comments are read, with a call each: the newest ones.
const MAX_REVIEWS: usize = 100;

pub(crate) async fn review(
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
    let path = format!("{root}/pulls/{number}/reviews?limit={GITEA_PAGE}");
    let mut reviews = Vec::new();
    let add = |page: Vec<Written>| reviews.extend(page.into_iter().filter(|one| one.is_since(since)));
    http.each_known(&path, pages, add).await?;
    reviews.sort_by_key(|one| std::cmp::Reverse(one.id));
    for one in reviews.into_iter().take(MAX_REVIEWS) {
        let path = format!("{root}/pulls/{number}/reviews/{}/comments", one.id);
        let written: Vec<Written> = http.get_known(&path, pages).await?;
        review.comment(written.into_iter().map(Written::of_gitea).chain([one]).filter_map(Written::comment));
    }
    Ok(review)
}
