//! What a task asks of the push to its branch, and of the pull or merge request, or an agent for its tasks.

use std::path::{Component, Path};

use rota_proto::v1;
use tonic::Status;

use super::check;
use super::status::invalid;

/// Bytes of a title, of the name of a branch, and of the name of a secret.
const MAX_TEXT: usize = 256;
const MAX_URL: usize = 2048;
const MAX_BODY: usize = 16 << 10;
/// Paths of files that the forge runs.
const MAX_PATHS: usize = 64;
/// Labels of a request, and its reviewers.
const MAX_NAMES: usize = 32;
const MAX_NAME: usize = 128;

/// Checks the push to a repository, and its request, if it has them. `spec` is the field that has the workspace.
pub(super) fn check(spec: &str, git: &v1::GitSource) -> Result<(), Status> {
    let Some(push) = &git.push else { return Ok(()) };
    paths(&format!("{spec}.workspace.git.push.workflow_paths"), &push.workflow_paths)?;
    let Some(asked) = &push.pull_request else { return Ok(()) };
    let at = |field: &str| format!("{spec}.workspace.git.push.pull_request.{field}");
    let provider = match asked.provider() {
        v1::ForgeProvider::Github => Some(rota_forge::Provider::GitHub),
        v1::ForgeProvider::Gitlab => Some(rota_forge::Provider::GitLab),
        v1::ForgeProvider::Gitea => Some(rota_forge::Provider::Gitea),
        v1::ForgeProvider::Unspecified => None,
    };
    let api = (!asked.api_url.is_empty()).then_some(asked.api_url.as_str());
    rota_forge::Repository::of(&git.url, provider, api).map_err(|reason| invalid(at("provider"), reason))?;
    if asked.token_from.is_empty() && git.credentials_from.is_empty() {
        return Err(invalid(at("token_from"), "must be set, or credentials_from of the repository"));
    }
    let is_http = git.url.starts_with("https://") || git.url.starts_with("http://");
    if asked.token_from.is_empty() && !is_http {
        return Err(invalid(
            at("token_from"),
            "must be set for a repository over SSH, whose key opens no API",
        ));
    }
    check::length(&at("api_url"), &asked.api_url, MAX_URL)?;
    check::length(&at("token_from"), &asked.token_from, MAX_TEXT)?;
    check::length(&at("base"), &asked.base, MAX_TEXT)?;
    check::length(&at("title"), &asked.title, MAX_TEXT)?;
    check::length(&at("body"), &asked.body, MAX_BODY)?;
    for (field, text) in [("title", &asked.title), ("body", &asked.body)] {
        if let Some(name) = rota_forge::template::unknown_name(text) {
            let known = rota_forge::template::NAMES.join(", ");
            return Err(invalid(
                at(field),
                format!("has ${{{name}}}, which means nothing; known are {known}"),
            ));
        }
    }
    names(&at("labels"), &asked.labels)?;
    names(&at("reviewers"), &asked.reviewers)
}

/// Checks paths and globs, which git takes from the root of the repository.
fn paths(field: &str, paths: &[String]) -> Result<(), Status> {
    check::count(field, paths.len(), MAX_PATHS)?;
    for (index, path) in paths.iter().enumerate() {
        let at = format!("{field}[{index}]");
        check::length(&at, path, MAX_TEXT)?;
        let is_within = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || path.chars().any(char::is_control) || !is_within {
            return Err(invalid(at, "must be a path within the repository, or a glob such as ci/**"));
        }
    }
    Ok(())
}

/// Checks names that the forge has.
fn names(field: &str, names: &[String]) -> Result<(), Status> {
    check::count(field, names.len(), MAX_NAMES)?;
    for (index, name) in names.iter().enumerate() {
        let fine =
            !name.trim().is_empty() && name.len() <= MAX_NAME && !name.contains([',', '\n', '\r', '\0']);
        if !fine {
            let reason = format!("must have 1 to {MAX_NAME} bytes, in one line without commas");
            return Err(invalid(format!("{field}[{index}]"), reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(url: &str, change: impl FnOnce(&mut v1::GitSource, &mut v1::PullRequest)) -> String {
        let mut git = v1::GitSource {
            url: url.to_owned(),
            credentials_from: "GIT".to_owned(),
            ..v1::GitSource::default()
        };
        let mut asked = v1::PullRequest::default();
        change(&mut git, &mut asked);
        git.push = Some(v1::Push { pull_request: Some(asked), ..v1::Push::default() });
        check("task.spec", &git).map_or_else(|status| status.message().to_owned(), |()| "fine".to_owned())
    }

    #[test]
    fn paths_of_workflows_stay_within_the_repository() {
        let checked = |paths: &[&str]| {
            let workflow_paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let push = v1::Push { workflow_paths, ..v1::Push::default() };
            check("agent.spec", &v1::GitSource { push: Some(push), ..v1::GitSource::default() })
        };
        checked(&["ci", "deploy/**/*.yml", "b*"]).unwrap();
        for path in ["", "/ci", "../ci", "ci/../..", "ci\nx"] {
            let status = checked(&["ci", path]).unwrap_err();
            assert!(status.message().starts_with("agent.spec.workspace.git.push.workflow_paths[1]: must be"));
        }
        checked(&["ci"; MAX_PATHS + 1]).unwrap_err();
    }

    #[test]
    fn pull_requests_need_a_forge_and_a_token() {
        let github = "https://github.com/team/project.git";
        assert_eq!(checked(github, |_, _| ()), "fine");
        assert!(checked("https://git.example/team/project", |_, _| ()).contains("name its provider"));
        assert!(checked(github, |git, _| git.credentials_from.clear()).contains("token_from"));
        assert!(checked("git@github.com:team/project.git", |_, _| ()).contains("opens no API"));
        let own = |_: &mut v1::GitSource, asked: &mut v1::PullRequest| asked.token_from = "FORGE".to_owned();
        assert_eq!(checked("git@github.com:team/project.git", own), "fine");
    }

    #[test]
    fn pull_requests_have_known_names_and_bounds() {
        let github = "https://github.com/team/project.git";
        let title = |title: &'static str| {
            move |_: &mut v1::GitSource, asked: &mut v1::PullRequest| asked.title = title.to_owned()
        };
        assert_eq!(checked(github, title("Fix: ${title} (${cost})")), "fine");
        assert!(checked(github, title("${other}")).contains("means nothing"));
        let labels = |labels: Vec<String>| {
            move |_: &mut v1::GitSource, asked: &mut v1::PullRequest| asked.labels = labels
        };
        assert_eq!(checked(github, labels(vec!["good first issue".to_owned()])), "fine");
        assert!(checked(github, labels(vec!["a,b".to_owned()])).contains("without commas"));
        assert!(checked(github, labels(vec!["a".to_owned(); 33])).contains("32"));
    }
}
