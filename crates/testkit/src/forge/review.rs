//! Checks of requests, and what people write about them, as each forge reports both.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Call, Kind, Opened, PATH, Site, github, gitlab, not_found};

/// Check of the commit of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    /// `success`, `failure` or `pending`, as Gitea calls them.
    pub state: String,
    pub text: String,
}

/// User whose rights only some accounts may read.
pub const HIDDEN: &str = "hidden";
/// Number of that user, at GitLab.
const HIDDEN_ID: usize = 98;

/// Comment of a user. Ada and Grace may write to the repository, others only read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comment {
    pub author: String,
    pub text: String,
    /// Time in seconds since 1970.
    pub at: i64,
    /// File that it is about; empty for none.
    pub path: String,
}

pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Answers calls about checks and comments; none for others.
pub(super) fn answer(site: &Site, call: &Call<'_>) -> Option<Answer> {
    if call.method != "GET" {
        return None;
    }
    let root = if site.kind == Kind::GitLab { "projects" } else { "repos" };
    let path = call.path.strip_prefix(&format!("/{root}/{PATH}/"))?;
    let parts: Vec<_> = path.split('/').collect();
    let of_commit = |commit: &str| site.requests.iter().find(|opened| opened.commit == commit);
    let found = match (site.kind, parts.as_slice()) {
        (Kind::GitLab, ["merge_requests", number]) => gitlab::merge(site, site.numbered(number)?),
        (Kind::GitLab, ["merge_requests", number, "notes"]) => notes(site.numbered(number)?),
        (Kind::GitLab, ["repository", "commits", commit, "statuses"]) => statuses(of_commit(commit)?),
        (Kind::GitLab, ["members", "all", id]) => match id.parse::<usize>() {
            Ok(HIDDEN_ID) => return Some(forbidden()),
            Ok(id) if id < gitlab::USERS.len() => json!({"access_level": 30}),
            _ => return Some(not_found()),
        },
        (Kind::GitLab, _) => return None,
        (_, ["pulls", number]) => github::pull(site, site.numbered(number)?),
        (_, ["commits", commit, "check-runs"]) => runs(of_commit(commit)?),
        // Checks are runs at GitHub, and states that programs set at Gitea.
        (Kind::GitHub, ["commits", ..]) => json!({"state": "pending", "statuses": []}),
        (_, ["commits", commit, "status"]) => combined(of_commit(commit)?),
        (_, ["issues", number, "comments"]) => {
            comments(site.numbered(number)?, |comment| comment.path.is_empty())
        }
        (Kind::GitHub, ["pulls", number, "comments"]) => {
            drafted(comments(site.numbered(number)?, |comment| !comment.path.is_empty()))
        }
        (_, ["pulls", number, "reviews"]) => {
            let placed = site.numbered(number)?.comments.iter().filter(|comment| !comment.path.is_empty());
            let newest = placed.map(|comment| comment.at).max();
            let review =
                |at| json!({"id": 1, "user": {"login": "ada"}, "body": "", "submitted_at": time(at)});
            newest.into_iter().map(review).collect()
        }
        (_, ["pulls", number, "reviews", _, "comments"]) => {
            positioned(comments(site.numbered(number)?, |comment| !comment.path.is_empty()))
        }
        (_, ["collaborators", HIDDEN, "permission"]) => return Some(forbidden()),
        (_, ["collaborators", user, "permission"]) => {
            let permission = if gitlab::USERS.contains(user) { "write" } else { "read" };
            json!({"permission": permission})
        }
        _ => return None,
    };
    Some((StatusCode::OK, found))
}

fn forbidden() -> Answer {
    (StatusCode::FORBIDDEN, json!({"message": "Must have push access to view collaborator permission."}))
}

impl Site {
    fn numbered(&self, number: &str) -> Option<&Opened> {
        let number: usize = number.parse().ok()?;
        self.requests.get(number.checked_sub(1)?)
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

fn comments(opened: &Opened, wanted: impl Fn(&Comment) -> bool) -> Value {
    let found = opened.comments.iter().filter(|comment| wanted(comment)).map(|comment| {
        let mut one =
            json!({"user": {"login": comment.author}, "body": comment.text, "created_at": time(comment.at)});
        if !comment.path.is_empty() {
            (one["path"], one["line"]) = (json!(comment.path), json!(3));
        }
        one
    });
    found.collect()
}

/// Comments on lines as GitHub returns them: with the time at which they were drafted, long before their review was submitted.
fn drafted(mut comments: Value) -> Value {
    for comment in comments.as_array_mut().into_iter().flatten() {
        (comment["created_at"], comment["pull_request_review_id"]) = (json!(time(0)), json!(1));
    }
    comments
}

/// Comments on lines as Gitea returns them.
fn positioned(mut comments: Value) -> Value {
    for comment in comments.as_array_mut().into_iter().flatten() {
        let line = comment.as_object_mut().and_then(|comment| comment.remove("line"));
        comment["position"] = line.unwrap_or_default();
    }
    comments
}

fn notes(opened: &Opened) -> Value {
    let found = opened.comments.iter().map(|comment| {
        let others = if comment.author == HIDDEN { HIDDEN_ID } else { 99 };
        let id = gitlab::USERS.iter().position(|name| *name == comment.author).unwrap_or(others);
        let author = json!({"id": id, "username": comment.author});
        let mut note =
            json!({"author": author, "body": comment.text, "created_at": time(comment.at), "system": false});
        if !comment.path.is_empty() {
            note["position"] = json!({"new_path": comment.path, "new_line": 3});
        }
        note
    });
    found.collect()
}

fn runs(opened: &Opened) -> Value {
    let runs = opened.checks.iter().map(|check| {
        let done = check.state != "pending";
        json!({
            "name": check.name,
            "status": if done { "completed" } else { "in_progress" },
            "conclusion": done.then_some(&check.state),
            "output": {"title": null, "summary": check.text},
        })
    });
    json!({"check_runs": runs.collect::<Vec<_>>()})
}

fn combined(opened: &Opened) -> Value {
    let statuses = opened.checks.iter().map(|check| {
        json!({"status": check.state, "context": check.name, "description": check.text, "target_url": ""})
    });
    json!({"state": "pending", "statuses": statuses.collect::<Vec<_>>()})
}

fn statuses(opened: &Opened) -> Value {
    let statuses = opened.checks.iter().map(|check| {
        let status = if check.state == "failure" { "failed" } else { &check.state };
        json!({"status": status, "name": check.name, "description": check.text, "target_url": null})
    });
    statuses.collect()
}
