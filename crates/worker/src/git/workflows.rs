//! Files that decide what a forge runs, with its secrets: who pushes them runs them.

use rota_proto::v1::{Push, WorkflowFiles};
use tokio::sync::watch;

use super::failure::Cause;
use super::run::{Git, GitError};
use crate::supervise::Stop;

/// Files and folders in the root of a repository that a forge, or a service that builds for one, runs without a setting that names
/// them. `docs/repositories.md` has the same ones.
const WORKFLOWS: &str = "\
    .appveyor.yml .azure-pipelines .azure-pipelines.yml .build.yml .buildkite .buildkite.yml .builds .circleci \
    .cirrus.star .cirrus.yml .codefresh .drone.jsonnet .drone.star .drone.yaml .drone.yml .evergreen.yml .forgejo/actions \
    .forgejo/workflows .gitea/actions .gitea/workflows .github/actions .github/workflows .gitlab-ci .gitlab-ci.yml \
    .gitlab/ci .harness .lighthouse .onedev-buildspec.yml .prow .prow.yaml .rultor.yml .screwdriver.yaml .semaphore \
    .space.kts .taskcluster.yml .teamcity .tekton .travis.yml .vela .vela.yaml .vela.yml .woodpecker .woodpecker.yaml \
    .woodpecker.yml .zuul.d .zuul.yaml Jenkinsfile appveyor.yml azure-pipelines \
    azure-pipelines.yaml azure-pipelines.yml bamboo-specs bitbucket-pipelines.yml bitrise.yml buildkite.json \
    buildkite.yaml buildkite.yml buildspec.yaml buildspec.yml cloudbuild.json cloudbuild.yaml cloudbuild.yml codefresh.yml \
    codemagic.yaml codeship-services.yml codeship-steps.yml evergreen.yml jenkins-x.yml screwdriver.yaml wercker.yml \
    zuul.d zuul.yaml";

/// Fails if a commit that no branch of the host has changes such a file, unless `push` permits it. `git` runs in a repository with
/// the host's branches, which no agent has written: what a task started from may be a stranger's.
pub(super) async fn check(
    git: &Git,
    push: &Push,
    commit: &str,
    stop: &mut watch::Receiver<Option<Stop>>,
) -> Result<(), GitError> {
    if push.workflow_files() == WorkflowFiles::Allow {
        return Ok(());
    }
    let arguments = arguments(push, commit);
    let changed = git.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), stop).await?;
    if changed.is_empty() {
        return Ok(());
    }
    let mut files: Vec<_> = changed.lines().filter(|line| !line.is_empty()).collect();
    files.sort_unstable();
    files.dedup();
    let text = format!(
        "it changes what the forge runs, which `push.workflowFiles: Allow` would permit: {}",
        files.join(", ")
    );
    Err(git.failed(Cause::Task, text))
}

/// Returns the arguments of git for the names of such files that commits change.
fn arguments(push: &Push, commit: &str) -> Vec<String> {
    let args =
        ["log", "--format=", "--name-only", "--no-renames", "--full-history", "--diff-merges=combined"];
    let range = [commit, "--not", "--remotes=origin", "--"];
    let args = args.into_iter().chain(range).chain(WORKFLOWS.split_whitespace()).map(str::to_owned);
    // None of them is an instruction for git.
    args.chain(push.workflow_paths.iter().map(|path| format!(":(glob){path}"))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn git(folder: &Path, args: &[&str]) -> String {
        let user = ["-c", "user.name=n", "-c", "user.email=e@example.org"];
        let output =
            std::process::Command::new("git").current_dir(folder).args(user).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn files_that_a_forge_runs_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let run = |args: &[&str]| git(folder.path(), args);
        run(&["init", "--quiet"]);
        run(&["commit", "--quiet", "--allow-empty", "-m", "first"]);
        run(&["update-ref", "refs/remotes/origin/main", "HEAD"]);
        let text =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/repositories.md"))
                .unwrap();
        let (mut expected, mut left_out) = (Vec::new(), Vec::new());
        let write = |name: String| {
            let path = folder.path().join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "run").unwrap();
            name
        };
        for name in WORKFLOWS.split_whitespace() {
            if !text.contains(&format!("`{name}`")) {
                left_out.push(name);
            }
            let is_file = name.ends_with("file") || Path::new(name).extension().is_some();
            let is_folder = !is_file || name.ends_with(".d");
            expected.push(write(if is_folder { format!("{name}/deep/run.yml") } else { name.to_owned() }));
        }
        assert!(left_out.is_empty(), "docs/repositories.md lacks {left_out:?}");
        let workflow_paths = ["ci", "deploy/**/*.yml", ":!Jenkinsfile"].map(str::to_owned).into();
        let push = Push { workflow_paths, ..Push::default() };
        for name in ["ci/run.sh", "deploy/run.yml", "deploy/deep/run.yml"] {
            expected.push(write(name.to_owned()));
        }
        for other in [
            "src/main.rs",
            "deploy/run.sh",
            "deep/ci/run.sh",
            "docs/.gitlab-ci.yml",
            "ci.yml",
            ".github/CODEOWNERS",
        ] {
            write(other.to_owned());
        }
        run(&["add", "--force", "."]);
        run(&["commit", "--quiet", "-m", "second"]);
        let commit = run(&["rev-parse", "HEAD"]);
        let arguments = arguments(&push, commit.trim());
        let found = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let mut found: Vec<_> = found.lines().filter(|line| !line.is_empty()).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
