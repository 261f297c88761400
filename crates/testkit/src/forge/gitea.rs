//! Gitea: <https://docs.gitea.com/api>, the calls of pull requests.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::github::{add, change, pull};
use super::{Answer, Call, Opened, PATH, Site, not_found, text, texts};

/// Labels of the repository; their numbers are their places.
const LABELS: [&str; 3] = ["bug", "agents", "later"];

pub(super) fn answer(site: &mut Site, call: &Call<'_>) -> Answer {
    let root = format!("/repos/{PATH}");
    let Some(path) = call.path.strip_prefix(&root) else { return not_found() };
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    match (call.method.as_str(), parts.as_slice()) {
        ("GET", [""]) => (StatusCode::OK, json!({"full_name": PATH, "default_branch": "main"})),
        ("GET", ["labels"]) => {
            let labels = LABELS.iter().enumerate();
            (StatusCode::OK, labels.map(|(id, name)| json!({"id": id, "name": name})).collect())
        }
        ("GET", ["pulls"]) => {
            let found = site.requests.iter().filter(|opened| !opened.closed).map(|opened| pull(site, opened));
            (StatusCode::OK, found.collect())
        }
        ("POST", ["pulls"]) => {
            let body = &call.body;
            let (branch, base) = (text(body, "head"), text(body, "base"));
            if base == "missing" {
                return not_found();
            }
            let opened = Opened {
                branch: branch.clone(),
                base,
                title: text(body, "title"),
                body: text(body, "body"),
                ..Opened::default()
            };
            match site.create(opened) {
                Some(index) => (StatusCode::CREATED, pull(site, &site.requests[index])),
                None => {
                    let text =
                        format!("pull request already exists for these targets [head_branch: {branch}]");
                    (StatusCode::CONFLICT, json!({"message": text}))
                }
            }
        }
        ("PATCH", ["pulls", number]) => {
            let Some(opened) = site.find(number) else { return not_found() };
            change(opened, &call.body);
            let opened = opened.clone();
            (StatusCode::CREATED, pull(site, &opened))
        }
        ("POST", ["issues", number, "labels"]) => {
            let ids = call.body["labels"].as_array().into_iter().flatten().filter_map(Value::as_u64);
            let names = ids.filter_map(|id| Some((*LABELS.get(usize::try_from(id).ok()?)?).to_owned()));
            let names = names.collect();
            let Some(opened) = site.find(number) else { return not_found() };
            add(&mut opened.labels, names);
            (StatusCode::OK, json!([]))
        }
        ("POST", ["pulls", number, "requested_reviewers"]) => {
            let names = texts(&call.body["reviewers"]);
            if names.iter().any(|name| name == "unknown") {
                return (StatusCode::NOT_FOUND, json!({"message": "user 'unknown' does not exist"}));
            }
            let Some(opened) = site.find(number) else { return not_found() };
            add(&mut opened.reviewers, names);
            (StatusCode::CREATED, json!([]))
        }
        _ => not_found(),
    }
}
