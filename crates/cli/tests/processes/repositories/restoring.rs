//! Checkpoints that cannot be restored, for the faults of a machine, of the storage, or of their own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use rota_proto::v1::{self, FailureClass, TaskState, event};
use rota_testkit::git_host::git;
use rota_testkit::tasks;

use super::continuing::codes;
use super::{Site, site_of};
use crate::{Fixture, Graces, workload};

/// Lets workers call git through a script, which begins with these lines.
pub(super) fn call_git_through(fixture: &mut Fixture, lines: impl Fn(&Path) -> String) -> Result<()> {
    let path = rota_telemetry::env::var("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path);
    let real = folders.map(|folder| folder.join("git")).find(|path| path.is_file()).unwrap();
    let folder = fixture.dir().join("bin");
    std::fs::create_dir(&folder)?;
    let text = format!("#!/bin/sh\n{}\nexec {} \"$@\"\n", lines(fixture.dir()), real.display());
    std::fs::write(folder.join("git"), text)?;
    std::fs::set_permissions(folder.join("git"), std::fs::Permissions::from_mode(0o755))?;
    fixture.environment.push(("PATH", format!("{}:{path}", folder.display())));
    Ok(())
}

/// Starts a site whose workers do so.
pub(super) async fn site_with_git(lines: impl Fn(&Path) -> String) -> Result<Site> {
    let mut fixture = Fixture::start(Graces::SHORT).await?;
    fixture.environment = vec![("ROTA_WORKER_CHECKPOINT_INTERVAL", "200ms".to_owned())];
    call_git_through(&mut fixture, lines)?;
    site_of(fixture, 1).await
}

/// A task whose first attempt leaves a checkpoint and never ends.
const LINE: &str = "if test $ROTA_ATTEMPT = 1; then echo a > a; echo 50 > $ROTA_CHECKPOINT/step; sleep 600; fi; \
                    cat $ROTA_CHECKPOINT/step a";

impl Site {
    /// Waits until an attempt of a task has failed with this class.
    async fn failed(&self, task: &str, class: FailureClass) -> Result<()> {
        let client = self.fixture.client()?;
        let is_failure = |event: &v1::Event| match &event.kind {
            Some(event::Kind::State(change)) => {
                change.failure.as_ref().is_some_and(|failure| failure.class() == class)
            }
            _ => false,
        };
        tasks::eventually("a failed attempt", async || {
            Ok(tasks::log(&client, task).await?.iter().any(is_failure))
        })
        .await
    }
}

/// What the machine or the storage of artifacts lacks for a while costs no work.
#[tokio::test]
async fn passing_faults_give_no_checkpoint_up() -> Result<()> {
    let killed = |folder: &Path| {
        format!(
            "case \"$*\" in *fetch*:refs/rota/restored) test -e {} && kill -9 $$;; esac",
            folder.join("killed").display()
        )
    };
    let mut site = site_with_git(killed).await?;
    let client = site.fixture.client()?;
    let (killed, stored) = (site.fixture.dir().join("killed"), site.fixture.data.join("artifacts"));
    let away = site.fixture.dir().join("away");
    for class in [FailureClass::Environment, FailureClass::Source] {
        let mut task = site.task("", LINE);
        task.spec.get_or_insert_default().retry = Some(v1::RetryPolicy {
            max_attempts: 20,
            initial_backoff: Some(tasks::millis(500)),
            ..Default::default()
        });
        let task = tasks::create(&client, task).await?;
        site.kept(&task.name, |list| {
            // Its folder is copied before the files.
            list.artifacts.iter().any(|artifact| artifact.name == "checkpoint/step")
                && list.changes.as_ref().is_some_and(|changes| changes.files == 1)
        })
        .await?;
        let is_of_storage = class == FailureClass::Source;
        site.stop_worker(&format!("lost-{is_of_storage}")).await?;
        match is_of_storage {
            true => {
                std::fs::rename(&stored, &away)?;
                // Without it, the files would be lost.
                std::fs::write(&stored, "")?;
                site.fixture.environment.push(("ROTA_WORKER_STORING_TIMEOUT", "100ms".to_owned()));
            }
            false => std::fs::write(&killed, "")?,
        }
        site.start_worker("other").await?;
        site.failed(&task.name, class).await?;
        match is_of_storage {
            true => {
                std::fs::remove_file(&stored)?;
                std::fs::rename(&away, &stored)?;
            }
            false => std::fs::remove_file(&killed)?,
        }
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        let log = tasks::log(&client, &task.name).await?;
        assert_eq!(status.state(), TaskState::Succeeded, "{:?} {log:?}", status.failure);
        assert_eq!(codes(&log), ["continued"], "{log:?}");
        assert_eq!(workload::printed(&client, &task.name).await?, "50\na\n");
    }
    Ok(())
}

/// An attempt whose checkpoint cannot be used starts over from where its task starts: the work of a dependency, with the files that a
/// checkout names.
#[tokio::test]
async fn attempts_start_over_from_the_work_of_a_dependency() -> Result<()> {
    // The first restore is of the dependency, whose file is there at the second.
    let broken = |_: &Path| {
        "case \"$*\" in *fetch*:refs/rota/restored) if test -e fix.txt; then echo broken >&2; exit 128; fi;; esac"
            .to_owned()
    };
    let mut site = site_with_git(broken).await?;
    let client = site.fixture.client()?;
    let checkout = site.clone("checkout").await?;
    for (name, text) in [(".gitignore", ".env\n"), (".worktreeinclude", ".env\n"), (".env", "KEY=mine\n")] {
        std::fs::write(checkout.join(name), text)?;
    }
    git(&checkout, &["add", "."]).await?;
    git(&checkout, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "include"]).await?;
    let source = v1::GitSource { url: checkout.to_string_lossy().into_owned(), ..Default::default() };
    site.succeed(site.task_with("fix", "echo fixed > fix.txt", source.clone(), |_| ())).await?;
    let line = "if test $ROTA_ATTEMPT = 1; then echo a > a; echo 50 > $ROTA_CHECKPOINT/step; sleep 600; fi; \
                ls $ROTA_CHECKPOINT; cat fix.txt .env; git status --porcelain; echo b > b";
    let source = v1::GitSource { ref_from: "fix".to_owned(), ..source };
    let mut task = site.task_with("review", line, source, |_| ());
    let dependency = v1::Dependency { task: "fix".to_owned(), ..v1::Dependency::default() };
    task.spec.get_or_insert_default().depends_on = vec![dependency];
    let task = tasks::create(&client, task).await?;
    site.kept(&task.name, |list| list.checkpoint.is_some()).await?;
    site.lose_worker().await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    let log = tasks::log(&client, &task.name).await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?} {log:?}", status.failure);
    assert_eq!(codes(&log), ["checkpoint_unusable"]);
    assert_eq!(workload::printed(&client, &task.name).await?, "fixed\nKEY=mine\n");
    assert_eq!(site.paths("review").await?, ["b", "fix.txt"]);
    Ok(())
}

/// What only notices come of fails no attempt.
#[tokio::test]
async fn failed_look_for_missing_parts_is_passed_over() -> Result<()> {
    let broken = |_: &Path| "case \"$*\" in *attr:filter=lfs*) exit 128;; esac".to_owned();
    let site = site_with_git(broken).await?;
    let status = site.run(site.task("looked", "echo done")).await?.0;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    Ok(())
}
