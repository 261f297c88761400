//! Pull requests of GitHub, also of its Enterprise Server.

use std::collections::HashMap;

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dialect::{Dialect, PageSize};
use crate::http::{Entries, Http};
use crate::review::{Check, Combined, Comment, Pages, Review, User, Written, encoded, time};
use crate::{Error, Found, Repository, Wanted};

#[derive(Debug, Deserialize)]
pub(crate) struct Pull {
    number: i64,
    html_url: String,
    base: Side,
    head: Side,
    user: Option<User>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    draft: bool,
}

#[derive(Debug, Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    branch: String,
    repo: Option<Owner>,
    #[serde(default)]
    sha: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Owner {
    full_name: String,
}

#[derive(Debug, Serialize)]
struct Create<'a> {
    title: &'a str,
    head: &'a str,
    base: &'a str,
    body: &'a str,
    draft: bool,
}

impl From<Pull> for Found {
    fn from(pull: Pull) -> Self {
        Self { number: pull.number, url: pull.html_url, base: pull.base.branch, draft: pull.draft }
    }
}

impl Pull {
    /// Whether it is of this branch, and not of the same one of a fork.
    pub(crate) fn is_of(&self, branch: &str) -> bool {
        self.head.branch == branch && self.head.repo.is_some() && self.head.repo == self.base.repo
    }
}

pub(crate) async fn update(
    http: &Http,
    repository: &Repository,
    found: &Found,
    wanted: &Wanted,
) -> Result<Found, Error> {
    let mut body = json!({"body": wanted.body});
    if wanted.retitle {
        body["title"] = wanted.title.clone().into();
    }
    if !wanted.base.is_empty() && wanted.base != found.base {
        body["base"] = wanted.base.clone().into();
    }
    let path = format!("repos/{}/pulls/{}", repository.path, found.number);
    Ok(http.send::<Pull>(Method::PATCH, &path, Some(&body)).await?.into())
}

pub(crate) async fn request_review(
    http: &Http,
    repository: &Repository,
    found: &Found,
    names: &[String],
) -> Result<Vec<String>, Error> {
    let (teams, users): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.contains('/'));
    let teams: Vec<_> = teams.iter().filter_map(|name| Some(name.rsplit_once('/')?.1)).collect();
    let path = format!("repos/{}/pulls/{}/requested_reviewers", repository.path, found.number);
    let body = json!({"reviewers": users, "team_reviewers": teams});
    http.send::<Value>(Method::POST, &path, Some(&body)).await?;
    Ok(Vec::new())
}

impl From<Pull> for Review {
    fn from(pull: Pull) -> Self {
        let own = pull.head.repo.is_some() && pull.head.repo == pull.base.repo;
        let (branch, commit) = (pull.head.branch, pull.head.sha);
        let author = pull.user.map(|user| user.login).unwrap_or_default();
        Self { open: pull.state == "open", own, author, branch, commit, ..Self::default() }
    }
}

/// Returns a request with the states that other programs have set of its commit. Gitea has the same calls.
pub(crate) async fn reviewed(
    http: &Http,
    repository: &Repository,
    number: i64,
    pages: &mut Pages,
) -> Result<Review, Error> {
    let pull: Pull = http.get_known(&format!("repos/{}/pulls/{number}", repository.path), pages).await?;
    let mut review = Review::from(pull);
    if review.open {
        let path = format!("repos/{}/commits/{}/status", repository.path, review.commit);
        let all = http.each_known(&path, pages, |page: Combined| page.add_to(&mut review)).await?;
        review.pending |= !all;
    }
    Ok(review)
}

#[derive(Debug, Deserialize)]
struct Runs {
    check_runs: Vec<Run>,
}

#[derive(Debug, Deserialize)]
struct Run {
    name: String,
    status: String,
    conclusion: Option<String>,
    html_url: Option<String>,
    output: Option<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    title: Option<String>,
    summary: Option<String>,
}

impl Entries for Runs {
    fn count(&self) -> usize {
        self.check_runs.len()
    }
}

impl Run {
    fn add_to(self, review: &mut Review) {
        review.pending |= self.status != "completed";
        if matches!(self.conclusion.as_deref(), Some("failure" | "timed_out" | "startup_failure")) {
            let output = self.output.unwrap_or(Output { title: None, summary: None });
            let texts = [output.title, output.summary].into_iter().flatten().collect::<Vec<_>>();
            review.fail(Check::new(&self.name, Some(&texts.join("\n")), self.html_url.as_deref()));
        }
    }
}

/// Whether the author of a comment may write.
pub(crate) async fn may_write(
    http: &Http,
    repository: &Repository,
    comment: &Comment,
) -> Result<bool, Error> {
    #[derive(Deserialize)]
    struct Held {
        permission: String,
    }
    let user = encoded(&comment.author);
    let held: Held = http.get(&format!("repos/{}/collaborators/{user}/permission", repository.path)).await?;
    Ok(matches!(held.permission.as_str(), "admin" | "owner" | "maintain" | "write"))
}

#[derive(Debug)]
pub(crate) struct GitHub;

#[async_trait]
impl Dialect for GitHub {
    fn page(&self) -> PageSize {
        ("per_page", 100)
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("accept", "application/vnd.github+json"), ("x-github-api-version", "2022-11-28")]
    }

    async fn find(&self, http: &Http, repository: &Repository, branch: &str) -> Result<Option<Found>, Error> {
        let owner = repository.path.split('/').next().unwrap_or_default();
        let head = encoded(branch);
        let path = format!("repos/{}/pulls?state=open&head={owner}:{head}", repository.path);
        let pulls: Vec<Pull> = http.list(&path).await?;
        Ok(pulls.into_iter().find(|pull| pull.is_of(branch)).map(Into::into))
    }

    async fn create(
        &self,
        http: &Http,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Result<Option<Found>, Error> {
        let Wanted { branch, base, title, body, draft, .. } = wanted;
        let body = Create { title, head: branch, base, body, draft: *draft };
        let exists = |status, text: &str| {
            status == StatusCode::UNPROCESSABLE_ENTITY && text.contains("already exists")
        };
        let created = http.create::<Pull>(&format!("repos/{}/pulls", repository.path), &body, exists).await?;
        Ok(created.map(Into::into))
    }

    async fn label(
        &self,
        http: &Http,
        repository: &Repository,
        found: &Found,
        labels: &[String],
    ) -> Result<Vec<String>, Error> {
        let path = format!("repos/{}/issues/{}/labels", repository.path, found.number);
        http.send::<Value>(Method::POST, &path, Some(&json!({"labels": labels}))).await?;
        Ok(Vec::new())
    }

    async fn review(
        &self,
        http: &Http,
        repository: &Repository,
        number: i64,
        since: i64,
        pages: &mut Pages,
    ) -> Result<Review, Error> {
        let mut review = reviewed(http, repository, number, pages).await?;
        if !review.open {
            return Ok(review);
        }
        let root = format!("repos/{}", repository.path);
        let path = format!("{root}/commits/{}/check-runs", review.commit);
        let add = |page: Runs| page.check_runs.into_iter().for_each(|run| run.add_to(&mut review));
        let all = http.each_known(&path, pages, add).await?;
        review.pending |= !all;
        // Comments on lines have the time at which they were drafted, and are seen once their review is submitted.
        let mut submitted = HashMap::new();
        let add = |page: Vec<Written>| {
            submitted.extend(page.iter().filter_map(|one| Some((one.id, one.submitted_at.clone()?))));
            review.comment(page.into_iter().filter_map(Written::comment));
        };
        http.each_known(&format!("{root}/pulls/{number}/reviews"), pages, add).await?;
        for path in [
            format!("{root}/issues/{number}/comments?since={}", time(since)),
            format!("{root}/pulls/{number}/comments"),
        ] {
            let add = |page: Vec<Written>| {
                review.comment(page.into_iter().filter_map(|one| one.of_review(&submitted).comment()));
            };
            http.each_known(&path, pages, add).await?;
        }
        Ok(review)
    }
}
