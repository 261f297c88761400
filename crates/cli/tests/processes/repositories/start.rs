//! Tasks that start from the work of a dependency: from what it has pushed, or from what it has left.

use anyhow::Result;
use rota_proto::v1::{self, FailureClass, TaskState};
use rota_testkit::git_host::git;
use rota_testkit::tasks;
use serde_json::json;

use super::continuing::site_with;
use super::conversations::{bash, outputs};
use super::{Site, site};
use crate::workload;

/// Has a task start from the work of another one, which it waits for.
pub(super) fn follow(mut task: v1::Task, first: &str, push: bool) -> v1::Task {
    let spec = task.spec.get_or_insert_default();
    spec.depends_on = vec![v1::Dependency { task: first.to_owned(), ..v1::Dependency::default() }];
    let source = spec.workspace.as_mut().and_then(|workspace| workspace.git.as_mut()).unwrap();
    first.clone_into(&mut source.ref_from);
    source.push = push.then(v1::Push::default);
    task
}

impl Site {
    async fn commit(&self, branch: &str) -> Result<String> {
        git(&self.host.path("project"), &["rev-parse", branch]).await
    }
}

/// The real CLI, twice: the second agent finds what the first has pushed.
#[tokio::test]
async fn dependents_start_from_pushed_work() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    let script = json!([{"tools": bash("echo one > a; git add a; git commit -qm a; echo two > b")}, {"text": "Done."}]);
    let mut first = site.talk(&model, "first", &script).await?;
    let workspace = first.spec.as_mut().and_then(|spec| spec.workspace.as_mut()).unwrap();
    workspace.git.as_mut().unwrap().push = Some(v1::Push::default());
    let line = "cat a b; git rev-parse HEAD; git status --porcelain; echo three > c";
    let script = json!([{"tools": bash(line)}, {"text": "Done as well."}]);
    let second = follow(site.talk(&model, "second", &script).await?, "first", true);
    let first = tasks::create(&client, first).await?;
    let second = tasks::create(&client, second).await?;
    let status = tasks::ended(&client, &second.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    let pushed = site.commit(&format!("rota/{}", first.uid)).await?;
    let log = tasks::log(&client, &second.name).await?;
    assert_eq!(outputs(&log), [format!("one\ntwo\n{pushed}")]);
    // What the first has done is no part of the changes of the second, whose branch has both.
    assert_eq!(site.paths("second").await?, ["c"]);
    let files = site.at_host(&format!("rota/{}", second.uid)).await.unwrap();
    assert_eq!(files, ".gitignore\nREADME.md\na\nb\nc\nsrc/main.rs");
    let parent = site.commit(&format!("rota/{}^", second.uid)).await?;
    assert_eq!(parent, pushed);
    Ok(())
}

#[tokio::test]
async fn dependents_start_from_work_that_is_not_pushed() -> Result<()> {
    let site = site(1).await?;
    let client = site.fixture.client()?;
    let line = "echo one > a; git add a; git commit -qm by-the-first; echo two > b";
    tasks::create(&client, site.task("first", line)).await?;
    let line = "cat a b; git status --porcelain; git log --format=%s | grep by-the-first; echo three > c";
    let second = tasks::create(&client, follow(site.task("second", line), "first", true)).await?;
    let status = tasks::ended(&client, &second.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &second.name).await?, "one\ntwo\nby-the-first\n");
    let files = site.at_host(&format!("rota/{}", second.uid)).await.unwrap();
    assert_eq!(files, ".gitignore\nREADME.md\na\nb\nc\nsrc/main.rs");

    // A new kept workspace begins with it as well; one that exists stays as it is.
    let keep = |alias: &str, line: &str| {
        let mut task = follow(site.task(alias, line), "first", false);
        let workspace = task.spec.as_mut().and_then(|spec| spec.workspace.as_mut()).unwrap();
        workspace.set_mode(v1::WorkspaceMode::Keep);
        workspace.path = "thread".to_owned();
        task
    };
    let line = "cat a b; git status --porcelain; git log --format=%s | grep by-the-first; echo mine > a";
    assert_eq!(site.succeed(keep("kept", line)).await?, "one\ntwo\nby-the-first\n");
    assert_eq!(site.paths("kept").await?, ["a", "b"]);
    assert_eq!(site.succeed(keep("kept-again", "cat a b")).await?, "mine\ntwo\n");

    // The second has pushed: its successor has all of it. One that has changed nothing is as good.
    let third = follow(site.task("third", "cat a c"), "second", true);
    assert_eq!(site.succeed(third).await?, "one\nthree\n");
    let fourth = follow(site.task("fourth", "cat a b c"), "third", false);
    assert_eq!(site.succeed(fourth).await?, "one\ntwo\nthree\n");

    // The branch is deleted, as after a merge by other commits, and no cache has it: what is kept takes its place.
    let host = site.host.path("project");
    git(&host, &["update-ref", "-d", &format!("refs/heads/rota/{}", second.uid)]).await?;
    git(&host, &["gc", "--quiet", "--prune=now"]).await?;
    std::fs::remove_dir_all(site.fixture.state_dir().join("repositories/default"))?;
    let fifth = follow(site.task("fifth", "cat a b c"), "second", false);
    assert_eq!(site.succeed(fifth).await?, "one\ntwo\nthree\n");
    // So it is in a new kept workspace, also of one that was removed without the settings next to it.
    let mut sixth = follow(site.task("sixth", "cat a b c; git status --porcelain"), "second", false);
    let workspace = sixth.spec.as_mut().and_then(|spec| spec.workspace.as_mut()).unwrap();
    workspace.set_mode(v1::WorkspaceMode::Keep);
    workspace.path = "later".to_owned();
    std::fs::create_dir_all(site.fixture.state_dir().join("kept/default/.later.claude"))?;
    assert_eq!(site.succeed(sixth).await?, "one\ntwo\nthree\n");

    // Without a repository there is nothing to start from, and a task names its dependencies only.
    let plain = v1::Task { alias: "plain".to_owned(), ..workload::shell("true", &[]) };
    site.succeed(plain).await?;
    let failure = site.run(follow(site.task("none", "true"), "plain", false)).await?.0.failure.unwrap();
    assert_eq!(failure.class(), FailureClass::Invalid, "{failure:?}");
    assert!(failure.message.contains("no changes"), "{failure:?}");
    let mut stranger = follow(site.task("stranger", "true"), "first", false);
    stranger.spec.get_or_insert_default().depends_on.clear();
    let refused = tasks::create(&client, stranger).await.unwrap_err();
    assert!(format!("{refused:?}").contains("depends_on"), "{refused:?}");
    Ok(())
}
