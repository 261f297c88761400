//! Pull requests of GitHub, also of its Enterprise Server.

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::http::Http;
use crate::{Error, Found, Repository, Wanted};

#[derive(Debug, Deserialize)]
pub(crate) struct Pull {
    number: i64,
    html_url: String,
    base: Side,
    head: Side,
    #[serde(default)]
    draft: bool,
}

#[derive(Debug, Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    branch: String,
    repo: Option<Owner>,
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

pub(crate) async fn find(http: &Http, repository: &Repository, branch: &str) -> Result<Option<Found>, Error> {
    let owner = repository.path.split('/').next().unwrap_or_default();
    let head = percent_encoding::utf8_percent_encode(branch, percent_encoding::NON_ALPHANUMERIC);
    let path = format!("repos/{}/pulls?state=open&per_page=100&head={owner}:{head}", repository.path);
    let pulls: Vec<Pull> = http.list(&path).await?;
    Ok(pulls.into_iter().find(|pull| pull.is_of(branch)).map(Into::into))
}

pub(crate) async fn create(
    http: &Http,
    repository: &Repository,
    wanted: &Wanted,
) -> Result<Option<Found>, Error> {
    let Wanted { branch, base, title, body, draft, .. } = wanted;
    let body = Create { title, head: branch, base, body, draft: *draft };
    let exists =
        |status, text: &str| status == StatusCode::UNPROCESSABLE_ENTITY && text.contains("already exists");
    let created = http.create::<Pull>(&format!("repos/{}/pulls", repository.path), &body, exists).await?;
    Ok(created.map(Into::into))
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

pub(crate) async fn label(
    http: &Http,
    repository: &Repository,
    found: &Found,
    labels: &[String],
) -> Result<Vec<String>, Error> {
    let path = format!("repos/{}/issues/{}/labels", repository.path, found.number);
    http.send::<Value>(Method::POST, &path, Some(&json!({"labels": labels}))).await?;
    Ok(Vec::new())
}

/// Gitea has the same call.
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
