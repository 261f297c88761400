//! Merge requests of GitLab.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::Http;
use crate::{Error, Found, Repository, Wanted};

/// Prefix of titles of drafts.
const DRAFT: &str = "Draft: ";

#[derive(Debug, Deserialize)]
struct Merge {
    iid: i64,
    web_url: String,
    target_branch: String,
    #[serde(default)]
    source_project_id: i64,
    #[serde(default)]
    target_project_id: i64,
    #[serde(default)]
    draft: bool,
}

impl From<Merge> for Found {
    fn from(merge: Merge) -> Self {
        Self { number: merge.iid, url: merge.web_url, base: merge.target_branch, draft: merge.draft }
    }
}

fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

pub(crate) fn project(repository: &Repository) -> String {
    format!("projects/{}", encoded(&repository.path))
}

fn requests(repository: &Repository) -> String {
    format!("{}/merge_requests", project(repository))
}

pub(crate) async fn find(http: &Http, repository: &Repository, branch: &str) -> Result<Option<Found>, Error> {
    let query = format!("state=opened&per_page=100&source_branch={}", encoded(branch));
    let merges: Vec<Merge> = http.list(&format!("{}?{query}", requests(repository))).await?;
    let own = |merge: &Merge| merge.source_project_id == merge.target_project_id;
    Ok(merges.into_iter().find(own).map(Into::into))
}

pub(crate) async fn create(
    http: &Http,
    repository: &Repository,
    wanted: &Wanted,
) -> Result<Option<Found>, Error> {
    let body = json!({
        "source_branch": wanted.branch,
        "target_branch": wanted.base,
        "title": wanted.marked(DRAFT, wanted.draft),
        "description": wanted.body,
    });
    let exists = |status, _: &str| status == StatusCode::CONFLICT;
    Ok(http.create::<Merge>(&requests(repository), &body, exists).await?.map(Into::into))
}

pub(crate) async fn update(
    http: &Http,
    repository: &Repository,
    found: &Found,
    wanted: &Wanted,
) -> Result<Found, Error> {
    let mut body = json!({"description": wanted.body});
    if wanted.retitle {
        body["title"] = wanted.marked(DRAFT, found.draft).into();
    }
    if !wanted.base.is_empty() && wanted.base != found.base {
        body["target_branch"] = wanted.base.clone().into();
    }
    put(http, repository, found, &body).await
}

async fn put(http: &Http, repository: &Repository, found: &Found, body: &Value) -> Result<Found, Error> {
    let path = format!("{}/{}", requests(repository), found.number);
    Ok(http.send::<Merge>(Method::PUT, &path, Some(body)).await?.into())
}

pub(crate) async fn label(
    http: &Http,
    repository: &Repository,
    found: &Found,
    labels: &[String],
) -> Result<Vec<String>, Error> {
    put(http, repository, found, &json!({"add_labels": labels.join(",")})).await?;
    Ok(Vec::new())
}

#[derive(Debug, Deserialize)]
struct User {
    #[serde(default)]
    id: i64,
    username: String,
}

/// Users have numbers. Returns the names that the forge does not know.
pub(crate) async fn request_review(
    http: &Http,
    repository: &Repository,
    found: &Found,
    names: &[String],
) -> Result<Vec<String>, Error> {
    let (mut ids, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        let users: Vec<User> = http.get(&format!("users?username={}", encoded(name))).await?;
        match users.iter().find(|user| user.username.eq_ignore_ascii_case(name)) {
            Some(user) => ids.push(user.id),
            None => unknown.push(name.clone()),
        }
    }
    if !ids.is_empty() {
        put(http, repository, found, &json!({"reviewer_ids": ids})).await?;
    }
    Ok(unknown)
}
