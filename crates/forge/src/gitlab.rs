//! Merge requests of GitLab.

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::dialect::{Dialect, PageSize};
use crate::http::Http;
use crate::review::{Check, Comment, Pages, Review, encoded, place};
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
    #[serde(default)]
    state: String,
    author: Option<User>,
    #[serde(default)]
    source_branch: String,
    #[serde(default)]
    sha: String,
}

impl From<Merge> for Found {
    fn from(merge: Merge) -> Self {
        Self { number: merge.iid, url: merge.web_url, base: merge.target_branch, draft: merge.draft }
    }
}

fn project(repository: &Repository) -> String {
    format!("projects/{}", encoded(&repository.path))
}

fn requests(repository: &Repository) -> String {
    format!("{}/merge_requests", project(repository))
}

async fn put(http: &Http, repository: &Repository, found: &Found, body: &Value) -> Result<Found, Error> {
    let path = format!("{}/{}", requests(repository), found.number);
    Ok(http.send::<Merge>(Method::PUT, &path, Some(body)).await?.into())
}

#[derive(Debug, Deserialize)]
struct User {
    #[serde(default)]
    id: i64,
    username: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    name: String,
    status: String,
    description: Option<String>,
    target_url: Option<String>,
    #[serde(default)]
    allow_failure: bool,
}

#[derive(Debug, Deserialize)]
struct Note {
    body: String,
    author: User,
    created_at: String,
    #[serde(default)]
    system: bool,
    position: Option<Position>,
}

#[derive(Debug, Deserialize)]
struct Position {
    new_path: Option<String>,
    new_line: Option<i64>,
}

impl Status {
    fn add_to(&self, review: &mut Review) {
        match self.status.as_str() {
            "failed" if !self.allow_failure => {
                let (text, url) = (self.description.as_deref(), self.target_url.as_deref());
                review.fail(Check::new(&self.name, text, url));
            }
            "success" | "failed" | "canceled" | "skipped" | "manual" => {}
            _ => review.pending = true,
        }
    }
}

impl Note {
    fn comment(self) -> Option<Comment> {
        if self.system {
            return None;
        }
        let (author, position) = (self.author, self.position);
        let place = position.and_then(|at| place(at.new_path, at.new_line));
        Comment::new(&author.username, author.id, &self.created_at, place, Some(&self.body))
    }
}

#[derive(Debug)]
pub(crate) struct GitLab;

#[async_trait]
impl Dialect for GitLab {
    fn page(&self) -> PageSize {
        ("per_page", 100)
    }

    fn project(&self, repository: &Repository) -> String {
        project(repository)
    }

    async fn find(&self, http: &Http, repository: &Repository, branch: &str) -> Result<Option<Found>, Error> {
        let query = format!("state=opened&source_branch={}", encoded(branch));
        let merges: Vec<Merge> = http.list(&format!("{}?{query}", requests(repository))).await?;
        let own = |merge: &Merge| merge.source_project_id == merge.target_project_id;
        Ok(merges.into_iter().find(own).map(Into::into))
    }

    async fn create(
        &self,
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

    async fn update(
        &self,
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

    async fn label(
        &self,
        http: &Http,
        repository: &Repository,
        found: &Found,
        labels: &[String],
    ) -> Result<Vec<String>, Error> {
        put(http, repository, found, &json!({"add_labels": labels.join(",")})).await?;
        Ok(Vec::new())
    }

    /// Users have numbers, which are looked up by their names.
    async fn request_review(
        &self,
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

    async fn review(
        &self,
        http: &Http,
        repository: &Repository,
        number: i64,
        _since: i64,
        pages: &mut Pages,
    ) -> Result<Review, Error> {
        let path = format!("{}/{number}", requests(repository));
        let merge: Merge = http.get_known(&path, pages).await?;
        let mut review = Review {
            open: merge.state == "opened",
            own: merge.source_project_id == merge.target_project_id,
            author: merge.author.map(|author| author.username).unwrap_or_default(),
            branch: merge.source_branch,
            commit: merge.sha,
            ..Review::default()
        };
        if !review.open {
            return Ok(review);
        }
        let commit = format!("{}/repository/commits/{}", project(repository), review.commit);
        let add = |page: Vec<Status>| page.iter().for_each(|status| status.add_to(&mut review));
        let all = http.each_known(&format!("{commit}/statuses"), pages, add).await?;
        review.pending |= !all;
        let path = format!("{path}/notes?sort=asc&order_by=created_at");
        let add = |page: Vec<Note>| review.comment(page.into_iter().filter_map(Note::comment));
        http.each_known(&path, pages, add).await?;
        Ok(review)
    }

    /// Developers may, and maintainers and owners.
    async fn may_write(
        &self,
        http: &Http,
        repository: &Repository,
        comment: &Comment,
    ) -> Result<bool, Error> {
        const DEVELOPER: i64 = 30;
        #[derive(Deserialize)]
        struct Member {
            access_level: i64,
        }
        let path = format!("{}/members/all/{}", project(repository), comment.author_id);
        Ok(http.get::<Member>(&path).await?.access_level >= DEVELOPER)
    }
}
