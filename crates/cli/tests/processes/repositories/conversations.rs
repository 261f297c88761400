//! Conversations of the real CLI that go on in another task, on another worker.

use anyhow::Result;
use rota_fake_model::Handle as FakeModel;
use rota_proto::v1::{self, TaskState, event};
use rota_testkit::tasks;
use serde_json::{Value, json};

use super::continuing::site_with;
use super::{Site, TOKEN};
use crate::claude;
use crate::responses::Response;

const KEY: &str = "sk-ant-for-tests-of-conversations";

pub(super) fn bash(line: &str) -> Value {
    json!([{"name": "Bash", "input": {"command": line}}])
}

impl Site {
    /// Returns a task of Claude in a clone, which the fake model answers with this script.
    pub(super) async fn talk(&self, model: &FakeModel, alias: &str, script: &Value) -> Result<v1::Task> {
        let program = tokio::task::spawn_blocking(claude::installed).await??;
        let claude =
            v1::ClaudeRuntime { program, allowed_tools: vec!["Bash".to_owned()], ..Default::default() };
        let mut task = self.task(alias, "");
        let spec = task.spec.get_or_insert_default();
        spec.runtime = Some(v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) });
        spec.prompt = format!("Please do: MOCK{script}");
        spec.environment = [("ANTHROPIC_BASE_URL".to_owned(), model.base_url())].into();
        spec.secrets.insert("ANTHROPIC_API_KEY".to_owned(), KEY.to_owned());
        Ok(task)
    }

    /// Runs a command that creates a task like one of [`Site::talk`].
    pub(super) async fn rota_with_secrets(&self, args: &[&str]) -> Response {
        let secrets = ["--secret-env", "ANTHROPIC_API_KEY", "--secret-env", "GIT"];
        let mut command = self.fixture.command(&[args, &secrets[..]].concat());
        command.env("ANTHROPIC_API_KEY", KEY).env("GIT", TOKEN);
        Response::of(command, "").await
    }
}

/// Returns the outputs of the tools that a task has used.
pub(super) fn outputs(log: &[v1::Event]) -> Vec<&str> {
    let mut outputs = Vec::new();
    for event in log {
        if let Some(event::Kind::ToolResult(result)) = &event.kind {
            outputs.push(result.output.trim());
        }
    }
    outputs
}

#[tokio::test]
async fn conversations_continue_in_another_task_on_another_worker() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let mut site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    let script = json!([
        {"text": "I begin.", "tools": bash("echo a > a; git add a; git commit -qm by-the-agent; echo b > b")},
        {"text": "Half of it is done."},
    ]);
    let first = tasks::create(&client, site.talk(&model, "first", &script).await?).await?;
    let ended = tasks::ended(&client, &first.name).await?;
    assert_eq!(ended.status.unwrap().state(), TaskState::Succeeded);
    site.lose_worker().await?;
    let script = json!([
        {"tools": bash("cat a b; git log -1 --format=%s; git status --porcelain; git branch --show-current")},
        {"text": "All of it is done."},
    ]);
    let next = format!("And now: MOCK{script}");
    let args = ["continue", "first", "--name", "second", "--quiet", &next];
    assert_eq!(site.rota_with_secrets(&args).await.success(), "All of it is done.");
    let second = tasks::get(&client, "namespaces/default/tasks/second").await?;
    let log = tasks::log(&client, &second.name).await?;
    let wanted = format!("a\nb\nby-the-agent\n?? b\nrota/{}", second.uid);
    assert_eq!(outputs(&log), [wanted.as_str()]);
    // The model has the earlier answers: two, then those of this task.
    let turns: Vec<_> = model.requests().iter().map(|request| request.turns).collect();
    assert_eq!(turns, [0, 1, 2, 3]);
    assert_eq!(site.paths("second").await?, ["a", "b"]);
    // Nothing of the first task is needed any more, and the second can be continued as well.
    let script = json!([{"text": "A third time."}]);
    let args = ["continue", "second", "--quiet", &format!("MOCK{script}")];
    assert_eq!(site.rota_with_secrets(&args).await.success(), "A third time.");
    assert_eq!(model.requests().last().unwrap().turns, 4);
    Ok(())
}

#[tokio::test]
async fn forks_leave_the_running_task_alone() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let site = site_with("200ms", 2).await?;
    let client = site.fixture.client()?;
    let until = site.fixture.dir().join("go-on");
    let script = json!([
        {"text": "First I write.", "tools": bash("echo half > file.txt")},
        {"tools": bash(&format!("until test -e {}; do sleep 0.1; done", until.display()))},
        {"tools": bash("cat file.txt")},
        {"text": "It is all there."},
    ]);
    let first = tasks::create(&client, site.talk(&model, "first", &script).await?).await?;
    model.until(|counts| counts.messages >= 2).await;
    site.kept(&first.name, |list| {
        list.checkpoint.as_ref().is_some_and(|checkpoint| !checkpoint.conversation.is_empty())
            && list.changes.as_ref().is_some_and(|changes| changes.files == 1)
    })
    .await?;
    site.rota_with_secrets(&["continue", "first", "now?"])
        .await
        .failed(1, &["only an ended task", "rota fork"]);
    let script = json!([{"tools": bash("cat file.txt; echo other > file.txt")}, {"text": "It forks."}]);
    let args = ["fork", "first", "--name", "side", "--quiet", &format!("MOCK{script}")];
    assert_eq!(site.rota_with_secrets(&args).await.success(), "It forks.");
    let side = tasks::log(&client, "namespaces/default/tasks/side").await?;
    assert_eq!(outputs(&side), ["half"]);
    let running = tasks::get(&client, &first.name).await?.status.unwrap();
    assert_eq!((running.state(), running.attempt), (TaskState::Running, 1));
    std::fs::write(&until, "")?;
    let status = tasks::ended(&client, &first.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    let log = tasks::log(&client, &first.name).await?;
    assert_eq!(outputs(&log).last(), Some(&"half"));
    Ok(())
}

#[tokio::test]
async fn threads_continue_on_any_worker() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let mut site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    for (index, line) in ["echo one > file", "echo two >> file", "cat file"].into_iter().enumerate() {
        let script = json!([{"tools": bash(line)}, {"text": "Done."}]);
        let mut task = site.talk(&model, &format!("t{index}"), &script).await?;
        task.spec.get_or_insert_default().thread = "docs".to_owned();
        let task = tasks::create(&client, task).await?;
        let ended = tasks::ended(&client, &task.name).await?.status.unwrap();
        assert_eq!(ended.state(), TaskState::Succeeded, "{:?}", ended.failure);
        if index == 0 {
            site.lose_worker().await?;
        }
    }
    let log = tasks::log(&client, "namespaces/default/tasks/t2").await?;
    assert_eq!(outputs(&log), ["one\ntwo"]);
    let turns: Vec<_> = model.requests().iter().map(|request| request.turns).collect();
    assert_eq!(turns, [0, 1, 2, 3, 4, 5]);
    Ok(())
}
