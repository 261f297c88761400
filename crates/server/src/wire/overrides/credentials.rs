//! Which secrets a task may have the worker send to a repository's host, or to the API of its forge.

use rota_proto::v1::{self, runtime::Kind};

use super::{Forbidden, forbid_unless_all};

/// Checks the secrets that the workspace of a task names. Its author chooses the host that receives them, so those of the agent are
/// not among them, unless the agent's own workspace names both.
pub(super) fn check(agent: &v1::AgentSpec, task: &v1::TaskSpec) -> Result<(), Forbidden> {
    let base = agent.runtime.as_ref().and_then(|runtime| runtime.kind.as_ref());
    if task.workspace == agent.workspace || reads_secrets(base) {
        return Ok(());
    }
    let git = task.workspace.as_ref().and_then(|workspace| workspace.git.as_ref());
    let Some(git) = git else { return Ok(()) };
    let is_own = |name: &String| task.secrets.contains_key(name) || task.secret_names.contains(name);
    let takes = |name: &String| !name.is_empty() && !is_own(name);
    forbid_unless_all("workspace.git.credentials_from", takes(&git.credentials_from))?;
    let request = git.push.as_ref().and_then(|push| push.pull_request.as_ref());
    let takes = request.is_some_and(|request| takes(&request.token_from));
    forbid_unless_all("workspace.git.push.pull_request.token_from", takes)
}

/// Whether tasks bring a program that gets the agent's secrets as variables: naming one gives its author no more.
fn reads_secrets(agent: Option<&Kind>) -> bool {
    matches!(agent, Some(Kind::Command(command)) if command.argv.is_empty() && command.shell.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    /// Returns a workspace whose repository and forge get secrets with these names.
    fn workspace(repository: &str, forge: &str) -> Option<v1::Workspace> {
        let request = v1::PullRequest {
            api_url: "https://evil.example/api".to_owned(),
            token_from: forge.to_owned(),
            ..Default::default()
        };
        let push = v1::Push { pull_request: Some(request), ..Default::default() };
        let git = v1::GitSource {
            url: "https://evil.example/x.git".to_owned(),
            credentials_from: repository.to_owned(),
            push: Some(push),
            ..Default::default()
        };
        Some(v1::Workspace { git: Some(git), ..Default::default() })
    }

    fn task(repository: &str, forge: &str) -> v1::TaskSpec {
        v1::TaskSpec { workspace: workspace(repository, forge), ..Default::default() }
    }

    fn agent(kind: Kind, overrides: v1::Overrides) -> v1::AgentSpec {
        let runtime = Some(v1::Runtime { kind: Some(kind) });
        v1::AgentSpec { runtime, overrides: overrides.into(), ..Default::default() }
    }

    #[test]
    fn agents_secrets_go_to_its_own_hosts() {
        let claude = || Kind::Claude(v1::ClaudeRuntime::default());
        let field =
            |agent: &v1::AgentSpec, task: &v1::TaskSpec| check(agent, task).err().map(|bad| bad.field);
        let mut shared = agent(claude(), v1::Overrides::Unspecified);
        assert_eq!(field(&shared, &task("", "")), None);
        let (git, forge) = ("workspace.git.credentials_from", "workspace.git.push.pull_request.token_from");
        assert_eq!(field(&shared, &task("ANTHROPIC_API_KEY", "")), Some(git));
        assert_eq!(field(&shared, &task("", "ANTHROPIC_API_KEY")), Some(forge));
        assert_eq!(field(&agent(claude(), v1::Overrides::All), &task("GIT", "GIT")), None);
        // What the agent's workspace names, at its host.
        shared.workspace = workspace("GIT", "FORGE");
        assert_eq!(field(&shared, &task("GIT", "FORGE")), None);
        assert_eq!(field(&shared, &v1::TaskSpec::default()), None);
        assert_eq!(field(&shared, &task("GIT", "ANTHROPIC_API_KEY")), Some("workspace"));
        // The program of the task has them as variables.
        let bare = agent(Kind::Command(v1::CommandRuntime::default()), v1::Overrides::Limits);
        assert_eq!(field(&bare, &task("GIT", "FORGE")), None);
    }

    #[test]
    fn tasks_bring_credentials_of_their_own() {
        let external = agent(Kind::External(v1::ExternalRuntime::default()), v1::Overrides::Limits);
        let mut own = task("MINE", "MINE");
        assert!(check(&external, &own).is_err());
        own.secret_names.push("MINE".to_owned());
        assert_eq!(check(&external, &own), Ok(()));
    }
}
