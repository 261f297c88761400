//! Attempts that were cut off, and continue on another worker.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{self, ArtifactList, TaskState, event};
use rota_testkit::git_host::git;
use rota_testkit::tasks;
use serde_json::json;

use super::{Site, site_of};
use crate::storing::stop_now;
use crate::{Fixture, Graces, claude, workload};

/// Starts a site whose worker keeps checkpoints at this interval.
pub(super) async fn site_with(interval: &str, slots: usize) -> Result<Site> {
    let mut fixture = Fixture::start(Graces::SHORT).await?;
    fixture.environment = vec![("ROTA_WORKER_CHECKPOINT_INTERVAL", interval.to_owned())];
    site_of(fixture, slots).await
}

impl Site {
    /// Waits for a list of artifacts of the first attempt.
    pub(super) async fn kept(&self, task: &str, wanted: impl Fn(&ArtifactList) -> bool) -> Result<()> {
        let client = self.fixture.client()?;
        tasks::eventually("a checkpoint", async || {
            let kept = client.fetch_artifacts(task).await?.attempts;
            Ok(kept.into_iter().filter_map(|attempt| attempt.list).any(|list| wanted(&list)))
        })
        .await
    }

    /// Kills the worker, with all that it has on its disk, and starts another one.
    pub(super) async fn lose_worker(&mut self) -> Result<()> {
        self.replace_worker("lost", "other", None).await
    }

    /// Kills the worker, keeps its disk as `to`, and starts another one, with the disk of an earlier one if there is one.
    async fn replace_worker(&mut self, to: &str, name: &str, from: Option<&str>) -> Result<()> {
        self.stop_worker(to).await?;
        if let Some(from) = from {
            std::fs::rename(self.fixture.dir().join(from), self.fixture.state_dir())?;
        }
        self.start_worker(name).await
    }

    /// Kills the worker, and keeps its disk as `to`.
    pub(super) async fn stop_worker(&mut self, to: &str) -> Result<()> {
        self._worker.signal(Signal::SIGKILL);
        self._worker.wait().await;
        Ok(std::fs::rename(self.fixture.state_dir(), self.fixture.dir().join(to))?)
    }

    pub(super) async fn start_worker(&mut self, name: &str) -> Result<()> {
        self._worker = self.fixture.worker(workload::AGENT, name, 1).await?;
        Ok(())
    }
}

pub(super) fn codes(log: &[v1::Event]) -> Vec<&str> {
    let code = |event: &'_ v1::Event| match &event.kind {
        Some(event::Kind::Notice(notice)) => Some(notice.code.clone()),
        _ => None,
    };
    let wanted = ["continued", "checkpoint_unusable", "session_lost"];
    let found: Vec<_> = log.iter().filter_map(code).collect();
    wanted.into_iter().filter(|wanted| found.iter().any(|code| code == wanted)).collect()
}

/// A program that keeps notes for its next attempt.
#[tokio::test]
async fn work_survives_the_loss_of_the_workers_disk() -> Result<()> {
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    let line = "if test $ROTA_ATTEMPT = 1; then echo a > a; git add a; git commit -qm by-the-agent; echo b > b; echo more >> README.md; \
                mkdir -p $ROTA_CHECKPOINT/deep; echo 50 > $ROTA_CHECKPOINT/deep/step; sleep 600; fi; \
                cat $ROTA_CHECKPOINT/deep/step a b; git log -1 --format=%s; git status --porcelain; echo c > c";
    let task = tasks::create(&client, site.task("cut", line)).await?;
    site.kept(&task.name, |list| {
        list.checkpoint.is_some() && list.changes.as_ref().is_some_and(|changes| changes.files == 3)
    })
    .await?;
    site.lose_worker().await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?}", status.failure);
    // What was committed is, and what was not is not.
    let printed = workload::printed(&client, &task.name).await?;
    assert_eq!(printed, "50\na\nb\nby-the-agent\n M README.md\n?? b\n");
    assert_eq!(codes(&tasks::log(&client, &task.name).await?), ["continued"]);
    assert_eq!(site.paths("cut").await?, ["README.md", "a", "b", "c"]);
    Ok(())
}

/// A worker that is lost while a person thinks loses nothing of what led to the question.
#[tokio::test]
async fn waits_for_people_begin_with_a_checkpoint() -> Result<()> {
    let site = site_with("1h", 1).await?;
    let client = site.fixture.client()?;
    let steps = [Step::Remember("half".to_owned()), Step::Ask("Which one?".to_owned())];
    let task = tasks::create(&client, tasks::scripted(workload::AGENT, steps)).await?;
    tasks::until_state(&client, &task.name, TaskState::InputRequired).await?;
    site.kept(&task.name, |list| list.checkpoint.is_some()).await?;
    tasks::cancel(&client, &task.name).await?;
    Ok(())
}

/// Without a checkpoint in between, a worker that stops leaves one.
#[tokio::test]
async fn planned_stops_lose_nothing() -> Result<()> {
    let line = "if test -e $ROTA_CHECKPOINT/step; then cat b; exit; fi; test $ROTA_ATTEMPT = 1 || exit 7; \
                echo b > b; echo 1 > $ROTA_CHECKPOINT/step; echo working; sleep 600";
    for _ in 0..4 {
        let mut site = site_with("0s", 1).await?;
        let client = site.fixture.client()?;
        let task = tasks::create(&client, site.task("drained", line)).await?;
        workload::prints(&client, &task.name, "working").await?;
        let in_time = stop_now(&mut site._worker).await?;
        std::fs::rename(site.fixture.state_dir(), site.fixture.dir().join("lost"))?;
        site.start_worker("other").await?;
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        if !in_time && status.state() == TaskState::Failed {
            continue;
        }
        assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
        assert!(workload::printed(&client, &task.name).await?.ends_with("b\n"));
        return Ok(());
    }
    panic!("no worker had the time to store what its attempt has left");
}

#[tokio::test]
async fn attempts_that_fail_by_themselves_start_over() -> Result<()> {
    let site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    let line = "ls $ROTA_CHECKPOINT; git status --porcelain; echo b > b; echo 1 > $ROTA_CHECKPOINT/step; test $ROTA_ATTEMPT = 2";
    let mut task = site.task("fails", line);
    let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(10)), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    let task = tasks::create(&client, task).await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "");
    Ok(())
}

/// The real CLI continues the same conversation, in the middle of which its worker was lost with its disk.
#[tokio::test]
async fn conversations_continue_on_another_worker() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(claude::installed).await??;
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    let until = site.fixture.dir().join("go-on");
    let claude = v1::ClaudeRuntime { program, allowed_tools: vec!["Bash".to_owned()], ..Default::default() };
    let bash = |line: &str| json!([{"name": "Bash", "input": {"command": line}}]);
    let script = json!([
        {"text": "First I write.", "tools": bash("echo half > file.txt")},
        {"tools": bash(&format!("until test -e {}; do sleep 0.1; done", until.display()))},
        {"tools": bash("cat file.txt")},
        {"text": "It is all there."},
    ]);
    let mut task = site.task("talk", "");
    let spec = task.spec.get_or_insert_default();
    spec.runtime = Some(v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) });
    spec.prompt = format!("Please do: MOCK{script}");
    spec.environment = [("ANTHROPIC_BASE_URL".to_owned(), model.base_url())].into();
    spec.secrets.insert("ANTHROPIC_API_KEY".to_owned(), format!("sk-ant-{}", uuid::Uuid::new_v4()));
    let task = tasks::create(&client, task).await?;
    model.until(|counts| counts.messages >= 2).await;
    site.kept(&task.name, |list| {
        list.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.conversation.is_empty())
            && list.changes.as_ref().is_some_and(|changes| changes.files == 1)
    })
    .await?;
    site.lose_worker().await?;
    std::fs::write(&until, "")?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    let log = tasks::log(&client, &task.name).await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?} {log:?}", status.failure);
    assert_eq!(status.result.unwrap().text, "It is all there.");
    assert_eq!(codes(&log), ["continued"]);
    // The first step was never asked for again.
    let first = model.requests().iter().filter(|request| request.step == Some(0)).count();
    assert_eq!(first, 1, "{:?}", model.requests());
    let outputs = log.iter().filter_map(|event| match &event.kind {
        Some(event::Kind::ToolResult(result)) => Some(result.output.trim()),
        _ => None,
    });
    assert_eq!(outputs.last(), Some("half"));
    assert_eq!(site.paths("talk").await?, ["file.txt"]);
    Ok(())
}

/// A checkpoint that fails to be made leaves the one before.
#[tokio::test]
async fn failed_checkpoints_leave_the_last_one() -> Result<()> {
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    let go_on = site.fixture.dir().join("go-on");
    let line = format!(
        "if test $ROTA_ATTEMPT = 1; then echo 50 > $ROTA_CHECKPOINT/step; until test -e {}; do sleep 0.1; done; \
         truncate -s 300M $ROTA_CHECKPOINT/large; sleep 600; fi; ls $ROTA_CHECKPOINT",
        go_on.display()
    );
    let task = tasks::create(&client, site.task("cut", &line)).await?;
    site.kept(&task.name, |list| list.checkpoint.is_some()).await?;
    std::fs::write(&go_on, "")?;
    tasks::eventually("a failed checkpoint", async || {
        let log = tasks::log(&client, &task.name).await?;
        Ok(tasks::notices(&log).iter().any(|code| code == "checkpoint_failed"))
    })
    .await?;
    site.lose_worker().await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "step\n");
    Ok(())
}

/// The reference of a task does not exist any more at its host, or is another commit, when its worker is lost with its disk.
#[tokio::test]
async fn work_survives_the_loss_of_its_reference() -> Result<()> {
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    let user = site.clone("user").await?;
    git(&user, &["checkout", "--quiet", "-b", "topic"]).await?;
    std::fs::write(user.join("topic"), "topic\n")?;
    git(&user, &["add", "."]).await?;
    git(&user, &["commit", "--quiet", "-m", "topic"]).await?;
    let line = "if test $ROTA_ATTEMPT = 1; then echo a > a; echo 1 > $ROTA_CHECKPOINT/step; sleep 600; fi; \
                cat a topic; git log -1 --format=%s; echo c > c";
    let amended = ["commit", "--quiet", "--amend", "--message", "amended"];
    let (replaced, deleted) =
        (["push", "--quiet", "--force", "origin", "topic"], ["push", "--quiet", "origin", ":topic"]);
    for (name, change, depth) in
        [("replaced", &replaced[..], 0), ("deleted", &deleted[..], 0), ("shallow", &deleted[..], 1)]
    {
        git(&user, &["push", "--quiet", "--force", "origin", "topic"]).await?;
        let subject = git(&user, &["log", "-1", "--format=%s"]).await?;
        let source = v1::GitSource { r#ref: "topic".to_owned(), depth, ..site.source() };
        let task = tasks::create(&client, site.task_with(name, line, source, |_| ())).await?;
        site.kept(&task.name, |list| {
            list.checkpoint.is_some() && list.changes.as_ref().is_some_and(|changes| changes.files == 1)
        })
        .await?;
        site.stop_worker(&format!("disk-of-{name}")).await?;
        if name == "replaced" {
            git(&user, &amended).await?;
        }
        git(&user, change).await?;
        site.start_worker(&format!("after-{name}")).await?;
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        let log = tasks::log(&client, &task.name).await?;
        assert_eq!(
            (status.state(), status.attempt),
            (TaskState::Succeeded, 2),
            "{name}: {:?} {log:?}",
            status.failure
        );
        assert_eq!(codes(&log), ["continued"], "{name}");
        assert_eq!(workload::printed(&client, &task.name).await?, format!("a\ntopic\n{subject}\n"), "{name}");
        assert_eq!(site.paths(name).await?, ["a", "c"], "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn shallow_clones_continue() -> Result<()> {
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    // A commit whose parent is not cloned.
    let clone = site.clone("user").await?;
    std::fs::write(clone.join("second"), "second")?;
    git(&clone, &["add", "."]).await?;
    git(&clone, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "second"]).await?;
    git(&clone, &["push", "--quiet", "origin", "HEAD"]).await?;
    let line = "if test $ROTA_ATTEMPT = 1; then echo a > a; echo 1 > $ROTA_CHECKPOINT/step; sleep 600; fi; cat a second; git rev-list --count HEAD";
    let source = v1::GitSource { depth: 1, ..site.source() };
    let task = tasks::create(&client, site.task_with("cut", line, source, |_| ())).await?;
    site.kept(&task.name, |list| {
        list.checkpoint.is_some() && list.changes.as_ref().is_some_and(|changes| changes.files == 1)
    })
    .await?;
    site.lose_worker().await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(codes(&tasks::log(&client, &task.name).await?), ["continued"]);
    assert_eq!(workload::printed(&client, &task.name).await?, "a\nsecond1\n");
    Ok(())
}

/// What other branches have, and what was stashed, is there again.
#[tokio::test]
async fn branches_and_stashes_come_back() -> Result<()> {
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    // Lists of references are longer than what is read of an answer.
    let user = site.clone("user").await?;
    for number in 0..60 {
        git(&user, &["branch", &format!("feature-with-a-long-name-{number}")]).await?;
    }
    git(&user, &["push", "--quiet", "--all", "origin"]).await?;
    let line = "if test $ROTA_ATTEMPT = 1; then echo stashed >> README.md; git stash -q; \
                git checkout -qb side; echo s > s; git add s; git commit -qm on-the-side; git checkout -q -; \
                for number in $(seq 60); do git branch side-with-a-long-name-$number side; done; \
                echo a > a; echo 1 > $ROTA_CHECKPOINT/step; sleep 600; fi; \
                git log -1 --format=%s side; git stash pop -q; tail -1 README.md; cat a; git branch --list | wc -l";
    let task = tasks::create(&client, site.task("cut", line)).await?;
    site.kept(&task.name, |list| {
        list.checkpoint.is_some() && list.changes.as_ref().is_some_and(|changes| changes.files == 1)
    })
    .await?;
    site.lose_worker().await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "on-the-side\nstashed\na\n62\n");
    Ok(())
}

/// A kept workspace that has missed an attempt does not pass for the newest work.
#[tokio::test]
async fn kept_workspaces_that_are_behind_are_set_aside() -> Result<()> {
    let mut site = site_with("200ms", 1).await?;
    let client = site.fixture.client()?;
    let line = "echo $ROTA_ATTEMPT > file$ROTA_ATTEMPT; echo $ROTA_ATTEMPT > $ROTA_CHECKPOINT/step; \
                if test $ROTA_ATTEMPT != 3; then sleep 600; fi; cat file*";
    let task = site.task_with("kept", line, site.source(), |workspace| {
        workspace.set_mode(v1::WorkspaceMode::Keep);
    });
    let task = tasks::create(&client, task).await?;
    let files = |wanted| {
        move |list: &ArtifactList| {
            list.checkpoint.is_some() && list.changes.as_ref().is_some_and(|changes| changes.files == wanted)
        }
    };
    site.kept(&task.name, files(1)).await?;
    site.replace_worker("first-disk", "other", None).await?;
    site.kept(&task.name, files(2)).await?;
    site.replace_worker("second-disk", "third", Some("first-disk")).await?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    let log = tasks::log(&client, &task.name).await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 3), "{:?} {log:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "1\n2\n3\n");
    assert!(tasks::notices(&log).iter().any(|code| code == "workspace_set_aside"), "{log:?}");
    Ok(())
}

#[tokio::test]
async fn conversations_of_successes_can_be_discarded() -> Result<()> {
    let mut fixture = Fixture::start(Graces::SHORT).await?;
    fixture.environment = vec![
        ("ROTA_WORKER_CHECKPOINT_INTERVAL", "200ms".to_owned()),
        ("ROTA_WORKER_DISCARD_CONVERSATIONS", "true".to_owned()),
    ];
    let site = site_of(fixture, 1).await?;
    let client = site.fixture.client()?;
    let go_on = site.fixture.dir().join("go-on");
    let line = format!(
        "echo 1 > $ROTA_CHECKPOINT/step; until test -e {}; do sleep 0.1; done; echo done > done",
        go_on.display()
    );
    let task = tasks::create(&client, site.task("short", &line)).await?;
    site.kept(&task.name, |list| list.checkpoint.is_some()).await?;
    std::fs::write(&go_on, "")?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    site.kept(&task.name, |list| list.checkpoint.is_none() && list.changes.is_some()).await?;
    assert_eq!(site.paths("short").await?, ["done"]);
    // Also if nothing else is left.
    std::fs::remove_file(&go_on)?;
    let line =
        format!("echo 1 > $ROTA_CHECKPOINT/step; until test -e {}; do sleep 0.1; done", go_on.display());
    let task = tasks::create(&client, workload::shell(&line, &[])).await?;
    site.kept(&task.name, |list| list.checkpoint.is_some()).await?;
    std::fs::write(&go_on, "")?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    let kept = client.fetch_artifacts(&task.name).await?.attempts;
    let left: Vec<_> = kept.into_iter().filter_map(|attempt| attempt.list).collect();
    let is_empty = |list: &ArtifactList| list.checkpoint.is_none() && list.artifacts.is_empty();
    assert!(left.iter().all(is_empty), "{left:?}");
    Ok(())
}
