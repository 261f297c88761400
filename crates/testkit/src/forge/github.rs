//! GitHub: <https://docs.github.com/en/rest/pulls/pulls>.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, Call, Opened, PATH, Site, not_found, parameter, text, texts};

pub(super) fn answer(site: &mut Site, call: &Call<'_>) -> Answer {
    if call.path.starts_with("/app/") {
        let Some(app) = &mut site.app else { return not_found() };
        return match app.token(call.path, call.authorization) {
            Ok(made) => (StatusCode::CREATED, made),
            Err(error) => (StatusCode::UNAUTHORIZED, json!({"message": error.to_string()})),
        };
    }
    let root = format!("/repos/{PATH}");
    let Some(path) = call.path.strip_prefix(&root) else { return not_found() };
    let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
    match (call.method.as_str(), parts.as_slice()) {
        ("GET", [""]) => (StatusCode::OK, json!({"full_name": PATH, "default_branch": "main"})),
        ("GET", ["pulls"]) => {
            let head = parameter(call.query, "head");
            let is_wanted = |opened: &&Opened| {
                let owner = if opened.of_fork { "other" } else { "team" };
                !opened.closed
                    && head.as_ref().is_none_or(|head| *head == format!("{owner}:{}", opened.branch))
            };
            let found = site.requests.iter().filter(is_wanted).map(|opened| pull(site, opened));
            (StatusCode::OK, found.collect())
        }
        ("POST", ["pulls"]) => create(site, call),
        ("PATCH", ["pulls", number]) => {
            let Some(opened) = site.find(number) else { return not_found() };
            change(opened, &call.body);
            let opened = opened.clone();
            (StatusCode::OK, pull(site, &opened))
        }
        ("POST", ["issues", number, "labels"]) => {
            let Some(opened) = site.find(number) else { return not_found() };
            add(&mut opened.labels, texts(&call.body["labels"]));
            (StatusCode::OK, json!([]))
        }
        ("POST", ["pulls", number, "requested_reviewers"]) => {
            let names = texts(&call.body["reviewers"]);
            if names.iter().any(|name| name == "unknown") {
                let text = "Reviews may only be requested from collaborators.";
                return (StatusCode::UNPROCESSABLE_ENTITY, json!({"message": text}));
            }
            let Some(opened) = site.find(number) else { return not_found() };
            add(&mut opened.reviewers, names);
            add(&mut opened.reviewers, texts(&call.body["team_reviewers"]));
            let opened = opened.clone();
            (StatusCode::CREATED, pull(site, &opened))
        }
        _ => not_found(),
    }
}

pub(super) fn add(to: &mut Vec<String>, names: Vec<String>) {
    for name in names {
        if !to.contains(&name) {
            to.push(name);
        }
    }
}

/// Changes what a call names. Drafts stay what they are.
pub(super) fn change(opened: &mut Opened, body: &Value) {
    for (field, place) in
        [("title", &mut opened.title), ("body", &mut opened.body), ("base", &mut opened.base)]
    {
        if let Some(value) = body[field].as_str() {
            value.clone_into(place);
        }
    }
}

fn create(site: &mut Site, call: &Call<'_>) -> Answer {
    let body = &call.body;
    let invalid = |message: String| {
        let errors = json!([{"resource": "PullRequest", "code": "custom", "message": message}]);
        (StatusCode::UNPROCESSABLE_ENTITY, json!({"message": "Validation Failed", "errors": errors}))
    };
    let (branch, base) = (text(body, "head"), text(body, "base"));
    if base.is_empty() || base == "missing" {
        return invalid("base is invalid".to_owned());
    }
    let opened = Opened {
        branch: branch.clone(),
        base,
        title: text(body, "title"),
        body: text(body, "body"),
        draft: body["draft"].as_bool().unwrap_or_default(),
        ..Opened::default()
    };
    match site.create(opened) {
        Some(index) => (StatusCode::CREATED, pull(site, &site.requests[index])),
        None => invalid(format!("A pull request already exists for team:{branch}.")),
    }
}

/// Gitea has the same fields.
pub(super) fn pull(site: &Site, opened: &Opened) -> Value {
    let head = if opened.of_fork { "other/project" } else { PATH };
    let draft = match site.kind.mark() {
        Some(mark) => opened.title.starts_with(mark),
        None => opened.draft,
    };
    json!({
        "number": opened.number,
        "html_url": format!("{}/{PATH}/pull/{}", site.origin(), opened.number),
        "state": if opened.closed { "closed" } else { "open" },
        "title": opened.title,
        "body": opened.body,
        "draft": draft,
        "user": {"login": opened.author},
        "head": {"ref": opened.branch, "repo": {"full_name": head}, "sha": opened.commit},
        "base": {"ref": opened.base, "repo": {"full_name": PATH}},
    })
}
