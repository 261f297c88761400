//! GitLab: <https://docs.gitlab.com/api/merge_requests/>.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::github::add;
use super::{Answer, Call, Kind, Opened, PATH, Site, not_found, parameter, text};

/// Users of the forge; their numbers are their places.
pub(super) const USERS: [&str; 2] = ["ada", "grace"];

pub(super) fn answer(site: &mut Site, call: &Call<'_>) -> Answer {
    if call.path == "/users" {
        let wanted = parameter(call.query, "username").unwrap_or_default();
        let users = USERS.iter().enumerate().filter(|(_, name)| **name == wanted);
        return (StatusCode::OK, users.map(|(id, name)| json!({"id": id, "username": name})).collect());
    }
    let root = format!("/projects/{PATH}");
    let Some(path) = call.path.strip_prefix(&root) else { return not_found() };
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    match (call.method.as_str(), parts.as_slice()) {
        ("GET", [""]) => (StatusCode::OK, json!({"path_with_namespace": PATH, "default_branch": "main"})),
        ("GET", ["merge_requests"]) => {
            let branch = parameter(call.query, "source_branch");
            let is_wanted = |opened: &&Opened| {
                !opened.closed && branch.as_ref().is_none_or(|branch| *branch == opened.branch)
            };
            let found = site.requests.iter().filter(is_wanted).map(|opened| merge(site, opened));
            (StatusCode::OK, found.collect())
        }
        ("POST", ["merge_requests"]) => {
            let body = &call.body;
            let opened = Opened {
                branch: text(body, "source_branch"),
                base: text(body, "target_branch"),
                title: text(body, "title"),
                body: text(body, "description"),
                ..Opened::default()
            };
            if opened.base == "missing" {
                let text = json!({"message": {"target_branch": ["does not exist"]}});
                return (StatusCode::BAD_REQUEST, text);
            }
            match site.create(opened) {
                Some(index) => (StatusCode::CREATED, merge(site, &site.requests[index])),
                None => {
                    let text = "Another open merge request already exists for this source branch: !1";
                    (StatusCode::CONFLICT, json!({"message": [text]}))
                }
            }
        }
        ("PUT", ["merge_requests", number]) => {
            let Some(opened) = site.find(number) else { return not_found() };
            change(opened, &call.body);
            let opened = opened.clone();
            (StatusCode::OK, merge(site, &opened))
        }
        _ => not_found(),
    }
}

fn change(opened: &mut Opened, body: &Value) {
    for (field, place) in
        [("title", &mut opened.title), ("description", &mut opened.body), ("target_branch", &mut opened.base)]
    {
        if let Some(value) = body[field].as_str() {
            value.clone_into(place);
        }
    }
    add(
        &mut opened.labels,
        text(body, "add_labels").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
    );
    if let Some(ids) = body["reviewer_ids"].as_array() {
        let ids = ids.iter().filter_map(|id| usize::try_from(id.as_u64()?).ok());
        opened.reviewers = ids.filter_map(|id| Some((*USERS.get(id)?).to_owned())).collect();
    }
}

pub(super) fn merge(site: &Site, opened: &Opened) -> Value {
    let draft = Kind::GitLab.mark().is_some_and(|mark| opened.title.starts_with(mark));
    json!({
        "iid": opened.number,
        "web_url": format!("{}/{PATH}/-/merge_requests/{}", site.origin(), opened.number),
        "state": if opened.closed { "closed" } else { "opened" },
        "title": opened.title,
        "description": opened.body,
        "draft": draft,
        "author": {"id": 7, "username": opened.author},
        "source_branch": opened.branch,
        "target_branch": opened.base,
        "source_project_id": if opened.of_fork { 8 } else { 7 },
        "target_project_id": 7,
        "sha": opened.commit,
    })
}
