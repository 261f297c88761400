//! Work that is pushed to its repository.

use std::path::Path;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rota_proto::v1::{self, TaskState};
use rota_testkit::git_host::git;
use rota_testkit::tasks;

use super::restoring::site_with_git;
use super::{Site, site, site_of};
use crate::{Fixture, Graces, workload};

impl Site {
    /// Returns a task whose changes are pushed.
    pub(super) fn pushing(&self, alias: &str, line: &str) -> v1::Task {
        let source = v1::GitSource { push: Some(v1::Push::default()), ..self.source() };
        self.task_with(alias, line, source, |_| ())
    }

    /// Returns the files of a branch at the host; none without such a branch.
    pub(super) async fn at_host(&self, branch: &str) -> Option<String> {
        git(&self.host.path("project"), &["ls-tree", "-r", "--name-only", branch]).await.ok()
    }

    async fn branches(&self) -> Result<usize> {
        let branches = git(&self.host.path("project"), &["for-each-ref", "refs/heads"]).await?;
        Ok(branches.lines().count())
    }
}

#[tokio::test]
async fn successful_work_is_pushed_to_a_branch_of_the_task() -> Result<()> {
    let site = site(1).await?;
    let client = site.fixture.client()?;
    // Settings and hooks of the agent mean nothing to what pushes.
    let line = "echo a > a; git add a; git commit -qm a; echo b > b; git remote set-url origin /nowhere; \
                git push -q 2>/dev/null && echo pushed; mkdir -p .git/hooks; \
                printf '#!/bin/sh\\nexit 1\\n' > .git/hooks/pre-push; chmod +x .git/hooks/pre-push";
    let task = tasks::create(&client, site.pushing("fix", line)).await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "");
    let branch = format!("rota/{}", task.uid);
    assert_eq!(site.at_host(&branch).await.unwrap(), ".gitignore\nREADME.md\na\nb\nsrc/main.rs");
    let changes = site.changes("fix").await?;
    assert!(changes.pushed);
    assert_eq!(git(&site.host.path("project"), &["rev-parse", &branch]).await?, changes.commit);

    // Another task starts from there.
    let source = v1::GitSource { r#ref: branch, ..site.source() };
    assert_eq!(site.succeed(site.task_with("next", "cat a b", source, |_| ())).await?, "a\nb\n");

    // No change and no success push nothing.
    let branches = site.branches().await?;
    site.succeed(site.pushing("nothing", "true")).await?;
    let failed = site.run(site.pushing("failed", "echo a > a; exit 1")).await?.0;
    assert_eq!(failed.state(), TaskState::Failed);
    assert_eq!(site.branches().await?, branches);
    assert!(!site.changes("nothing").await?.pushed);
    Ok(())
}

#[tokio::test]
async fn work_that_cannot_be_pushed_has_not_succeeded() -> Result<()> {
    let site = site(1).await?;
    let client = site.fixture.client()?;
    let refused = async |alias: &str, task: v1::Task, wanted: &str| -> Result<()> {
        let (status, _) = site.run(task).await?;
        let failure = status.failure.unwrap();
        assert_eq!((status.attempt, failure.class()), (1, v1::FailureClass::Delivery), "{alias} {failure:?}");
        assert!(failure.message.contains(wanted), "{alias} {failure:?}");
        assert!(failure.hint.contains("rota apply-diff"), "{alias}");
        assert!(!site.changes(alias).await?.bundle.is_empty());
        let log = tasks::log(&client, &format!("namespaces/default/tasks/{alias}")).await?;
        let notices = tasks::notices(&log);
        assert!(
            ["changes", "artifacts_stored"].iter().all(|code| notices.contains(&(*code).to_owned())),
            "{notices:?}"
        );
        Ok(())
    };
    let workflow = "mkdir -p .github/workflows; echo on: push > .github/workflows/ci.yml";
    refused("ci", site.pushing("ci", workflow), ".github/workflows/ci.yml").await?;
    let source = v1::GitSource {
        push: Some(v1::Push { workflow_files: v1::WorkflowFiles::Allow.into(), ..v1::Push::default() }),
        ..site.source()
    };
    site.succeed(site.task_with("allowed", workflow, source, |_| ())).await?;

    // The host would reject it in the same way again.
    let project = site.host.path("project");
    git(&project, &["config", "receive.maxInputSize", "20000"]).await?;
    let large = site.pushing("large", "head -c 100000 /dev/urandom > noise");
    refused("large", large, "exceeds maximum").await?;
    git(&project, &["config", "--unset", "receive.maxInputSize"]).await?;

    // Someone else has pushed to the branch meanwhile.
    let user = site.clone("user").await?;
    let until = site.fixture.dir().join("go-on");
    let line = format!("echo a > a; echo waiting; until test -e {}; do sleep 0.05; done", until.display());
    let task = tasks::create(&client, site.pushing("overtaken", &line)).await?;
    workload::prints(&client, &task.name, "waiting").await?;
    git(&user, &["commit", "-q", "--allow-empty", "-m", "by a person"]).await?;
    git(&user, &["push", "-q", "origin", &format!("HEAD:refs/heads/rota/{}", task.uid)]).await?;
    std::fs::write(&until, "")?;
    let failure = tasks::ended(&client, &task.name).await?.status.unwrap().failure.unwrap();
    assert!(
        failure.class() == v1::FailureClass::Delivery && failure.message.contains("stale"),
        "{failure:?}"
    );
    let subject =
        git(&site.host.path("project"), &["log", "-1", "--format=%s", &format!("rota/{}", task.uid)]).await?;
    assert_eq!(subject, "by a person");

    // The credentials are replaced while the agent works, of which only the host knows.
    std::fs::remove_file(&until)?;
    let task = tasks::create(&client, site.pushing("expired", &line)).await?;
    workload::prints(&client, &task.name, "waiting").await?;
    site.host.require(Some("Basic other"));
    std::fs::write(&until, "")?;
    let failure = tasks::ended(&client, &task.name).await?.status.unwrap().failure.unwrap();
    assert!(failure.class() == v1::FailureClass::Delivery, "{failure:?}");
    Ok(())
}

/// The work waits for the agent's credentials to be replaced, and is not done again.
#[tokio::test]
async fn work_is_pushed_once_credentials_are_replaced() -> Result<()> {
    let mut fixture = Fixture::bare();
    fixture.graces = Graces::SHORT;
    let secrets = fixture.dir().join("secrets");
    std::fs::create_dir(&secrets)?;
    std::fs::write(secrets.join("GIT"), "me:old")?;
    fixture.environment = vec![("ROTA_WORKER_SECRETS_DIR", secrets.display().to_string())];
    fixture.start_server().await?;
    let site = site_of(fixture, 1).await?;
    let client = site.fixture.client()?;
    let header = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    site.host.require(Some(&header("me:old")));
    let until = site.fixture.dir().join("go-on");
    let line = format!("echo a > a; echo once; until test -e {}; do sleep 0.05; done", until.display());
    let mut task = site.pushing("expired", &line);
    task.spec.get_or_insert_default().secrets.clear();
    let task = tasks::create(&client, task).await?;
    workload::prints(&client, &task.name, "once").await?;
    site.host.require(Some(&header("me:new")));
    std::fs::write(&until, "")?;
    // Nor do later attempts get at the repository.
    tasks::until(&client, &task.name, |status| {
        status.delivering && status.state() == TaskState::Pending && status.attempt > 1
    })
    .await?;
    let explained = site.fixture.rota(&["explain", "expired"]).await.success();
    assert!(explained.contains("replace the"), "{explained}");
    std::fs::write(secrets.join("GIT"), "me:new")?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "once\n");
    assert!(site.changes("expired").await?.pushed);
    Ok(())
}

/// What an agent does to its repository neither passes for delivered nor reaches the host unchecked.
#[tokio::test]
async fn strange_repositories_are_not_taken_for_work() -> Result<()> {
    let site = site(1).await?;
    let client = site.fixture.client()?;
    let user = site.clone("user").await?;
    std::fs::write(user.join("second"), "")?;
    for line in [&["add", "."][..], &["commit", "-qm", "second"], &["push", "-q", "origin", "HEAD:main"]] {
        git(&user, line).await?;
    }
    // At an earlier commit, what came later is removed.
    let task = tasks::create(&client, site.pushing("back", "git reset -q --hard HEAD~1")).await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    let files = site.at_host(&format!("rota/{}", task.uid)).await.unwrap();
    assert_eq!(files, ".gitignore\nREADME.md\nsrc/main.rs");

    let hand_made = "blob=$(echo x | git hash-object -w --stdin); tree=$(printf '100644 blob %s\t.git\n' $blob | git mktree);                      git reset -q --soft $(git commit-tree -p HEAD -m x $tree)";
    for (alias, line, wanted) in
        [("destroyed", "rm -rf .git", "not delivered"), ("made", hand_made, "hasDotgit")]
    {
        let failure = site.run(site.pushing(alias, line)).await?.0.failure.unwrap();
        assert_eq!(failure.class(), v1::FailureClass::Delivery, "{alias} {failure:?}");
        assert!(failure.message.contains(wanted), "{alias} {failure:?}");
    }

    // A stranger proposes what the forge would run.
    std::fs::create_dir_all(user.join(".github/workflows"))?;
    std::fs::write(user.join(".github/workflows/ci.yml"), "on: push")?;
    for line in
        [&["add", "."][..], &["commit", "-qm", "ci"], &["push", "-q", "origin", "HEAD:refs/pull/7/head"]]
    {
        git(&user, line).await?;
    }
    let mut task = site.pushing("stranger", "echo a > a");
    let workspace = task.spec.as_mut().and_then(|spec| spec.workspace.as_mut());
    workspace.and_then(|workspace| workspace.git.as_mut()).unwrap().r#ref = "refs/pull/7/head".to_owned();
    let failure = site.run(task).await?.0.failure.unwrap();
    assert!(failure.message.contains(".github/workflows/ci.yml"), "{failure:?}");

    // Someone has pushed to the branch before the attempt begins.
    let until = site.fixture.dir().join("go-on");
    let line = format!("echo waiting; until test -e {}; do sleep 0.05; done", until.display());
    let first = tasks::create(&client, site.task("first", &line)).await?;
    workload::prints(&client, &first.name, "waiting").await?;
    let task = tasks::create(&client, site.pushing("taken", "echo a > a")).await?;
    let branch = format!("rota/{}", task.uid);
    git(&user, &["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")]).await?;
    std::fs::write(&until, "")?;
    let failure = tasks::ended(&client, &task.name).await?.status.unwrap().failure.unwrap();
    assert_eq!(failure.class(), v1::FailureClass::Delivery, "{failure:?}");
    assert!(failure.message.contains("no earlier attempt"), "{failure:?}");
    Ok(())
}

/// A host that is away for a moment costs neither the work nor another attempt.
#[tokio::test]
async fn pushes_wait_for_their_host() -> Result<()> {
    let site = site(1).await?;
    let client = site.fixture.client()?;
    let until = site.fixture.dir().join("go-on");
    let line = format!("echo a > a; echo waiting; until test -e {}; do sleep 0.05; done", until.display());
    let task = tasks::create(&client, site.pushing("patient", &line)).await?;
    workload::prints(&client, &task.name, "waiting").await?;
    site.host.set_away(true);
    std::fs::write(&until, "")?;
    tasks::eventually("the first try", async || Ok(site.host.refused() > 0)).await?;
    site.host.set_away(false);
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    assert!(site.changes("patient").await?.pushed);
    Ok(())
}

/// Neither a fault of the host while it takes a push over nor credentials that it does not know yet are final.
#[tokio::test]
async fn passing_refusals_of_pushes_are_tried_again() -> Result<()> {
    // As GitHub answers now and then. Besides a home of each call, git may write shared memory alone.
    let shared = tempfile::tempdir_in("/dev/shm")?;
    let marker = shared.path().join("rejects");
    let rejects = |_: &Path| {
        format!(
            "case \"$*\" in push*) if rm {} 2>/dev/null; then \
             echo ' ! [remote rejected] x -> x (Internal Server Error)' >&2; exit 1; fi;; esac",
            marker.display()
        )
    };
    let site = site_with_git(rejects).await?;
    let client = site.fixture.client()?;
    let until = site.fixture.dir().join("go-on");
    let line = format!("echo a > a; echo waiting; until test -e {}; do sleep 0.05; done", until.display());
    for alias in ["rejected", "unknown"] {
        let task = tasks::create(&client, site.pushing(alias, &line)).await?;
        workload::prints(&client, &task.name, "waiting").await?;
        match alias {
            "rejected" => std::fs::write(&marker, "")?,
            _ => site.host.refuse_once(),
        }
        std::fs::write(&until, "")?;
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        let ended = (status.state(), status.attempt);
        assert_eq!(ended, (TaskState::Succeeded, 1), "{alias} {:?}", status.failure);
        assert!(site.changes(alias).await?.pushed, "{alias}");
        std::fs::remove_file(&until)?;
    }
    assert!(!marker.exists(), "git has rejected");
    Ok(())
}
