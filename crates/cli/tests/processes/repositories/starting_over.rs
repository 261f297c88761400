//! Attempts after one that was cut off which cannot continue its conversation, and what people have sent to it.

use std::time::Duration;

use anyhow::Result;
use rota_proto::v1::{self, TaskState, event};
use rota_testkit::tasks;
use serde_json::json;

use super::Site;
use super::continuing::{codes, site_with};
use super::conversations::bash;
use crate::claude;

impl Site {
    /// Loses the worker of a task of Claude with this silence timeout, whose CLI then does this where it is to continue the
    /// conversation. Returns what becomes of the task.
    async fn refuse(
        &mut self,
        model: &rota_fake_model::Handle,
        silence: Option<Duration>,
        refusal: &str,
    ) -> Result<(v1::TaskStatus, Vec<v1::Event>)> {
        let program = tokio::task::spawn_blocking(claude::installed).await??;
        let client = self.fixture.client()?;
        let (until, wrapper) = (self.fixture.dir().join("go-on"), self.fixture.dir().join("claude"));
        let text =
            format!("#!/bin/sh\ncase \"$*\" in *--fork-session*) {refusal};; esac\nexec {program} \"$@\"\n");
        std::fs::write(&wrapper, text)?;
        std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let script = json!([
            {"tools": bash("echo half > file.txt")},
            {"tools": bash(&format!("until test -e {}; do sleep 0.1; done", until.display()))},
            {"text": "It is all there."},
        ]);
        let mut task = self.talk(model, "refused", &script).await?;
        let spec = task.spec.get_or_insert_default();
        spec.limits.get_or_insert_default().silence_timeout = silence.map(Into::into);
        spec.retry = Some(v1::RetryPolicy { initial_backoff: Some(tasks::millis(10)), ..Default::default() });
        let kind = spec.runtime.as_mut().and_then(|runtime| runtime.kind.as_mut());
        if let Some(v1::runtime::Kind::Claude(claude)) = kind {
            claude.program = wrapper.to_string_lossy().into_owned();
        }
        let task = tasks::create(&client, task).await?;
        self.kept(&task.name, |list| {
            list.checkpoint.is_some() && list.changes.as_ref().is_some_and(|changes| changes.files == 1)
        })
        .await?;
        self.lose_worker().await?;
        std::fs::write(&until, "")?;
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        Ok((*status, tasks::log(&client, &task.name).await?))
    }
}

/// The CLI, or the model, does not take the conversation of an earlier attempt.
#[tokio::test]
async fn refused_conversations_start_over() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    // Too long for it.
    let refusing = rota_fake_model::Options { max_body: 1, ..Default::default() }.start().await?;
    for refusal in
        ["echo broken >&2; exit 7".to_owned(), format!("export ANTHROPIC_BASE_URL={}", refusing.base_url())]
    {
        let (status, log) = site_with("200ms", 1).await?.refuse(&model, None, &refusal).await?;
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{refusal} {log:?}");
        assert_eq!(codes(&log), ["continued", "checkpoint_unusable"], "{refusal}");
    }
    Ok(())
}

/// The attempt after one that was silent from the start does not continue again.
#[tokio::test]
async fn silent_conversations_are_continued_once() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    // Its clock starts before the CLI, whose start may take a slow machine long.
    let silence = Some(Duration::from_secs(30));
    let (status, log) = site_with("200ms", 1).await?.refuse(&model, silence, "exec sleep 600").await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 3), "{log:?}");
    let continued = tasks::notices(&log).iter().filter(|code| *code == "continued").count();
    assert_eq!(continued, 1, "{log:?}");
    Ok(())
}

/// The same where the next attempt resumes its own session, in a kept workspace: the program was killed before it took the message.
#[tokio::test]
async fn messages_reach_a_kept_workspace() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let site = site_with("0s", 1).await?;
    let client = site.fixture.client()?;
    let go_on = site.fixture.dir().join("go-on");
    let wait = format!("until test -e {}; do sleep 0.1; done", go_on.display());
    let tools = bash(&format!("{wait}; test $ROTA_ATTEMPT = 2 || kill -9 $PPID"));
    let script = json!([{"tools": tools}, {"text": "Done."}]);
    let mut task = site.talk(&model, "talk", &script).await?;
    let spec = task.spec.get_or_insert_default();
    spec.retry = Some(v1::RetryPolicy { initial_backoff: Some(tasks::millis(10)), ..Default::default() });
    spec.workspace.get_or_insert_default().set_mode(v1::WorkspaceMode::Keep);
    let task = tasks::create(&client, task).await?;
    model.until(|counts| counts.messages >= 1).await;
    let text = "Please note MARK-first in all that you do.".to_owned();
    let input = v1::TaskInput { text, ..Default::default() };
    client.send_task_input(v1::SendTaskInputRequest { name: task.name.clone(), input: Some(input) }).await?;
    tasks::eventually("the message", async || {
        let log = tasks::log(&client, &task.name).await?;
        Ok(log.iter().any(|event| matches!(event.kind, Some(event::Kind::InputReceived(_)))))
    })
    .await?;
    let before = model.requests().len();
    std::fs::write(&go_on, "")?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    let log = tasks::log(&client, &task.name).await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{:?} {log:?}", status.failure);
    let requests = model.requests();
    let later = &requests[before..];
    assert!(
        !later.is_empty() && later.iter().all(|request| request.marks.contains("MARK-first")),
        "{later:?}"
    );
    Ok(())
}

/// What people have sent to an attempt reaches the next one, once.
#[tokio::test]
async fn messages_reach_the_next_attempt() -> Result<()> {
    // Without and with the conversation in which the first message is.
    for (interval, codes_of_next) in [("0s", &[][..]), ("200ms", &["continued"][..])] {
        let model = rota_fake_model::Options::default().start().await?;
        let mut site = site_with(interval, 1).await?;
        let client = site.fixture.client()?;
        let [first, second] = ["one", "two"].map(|name| site.fixture.dir().join(name));
        let wait =
            |path: &std::path::Path| bash(&format!("until test -e {}; do sleep 0.1; done", path.display()));
        let script = json!([{"tools": wait(&first)}, {"tools": wait(&second)}, {"text": "Done."}]);
        let task = tasks::create(&client, site.talk(&model, "talk", &script).await?).await?;
        model.until(|counts| counts.messages >= 1).await;
        let steer = async |text: &str| {
            let input = v1::TaskInput { text: text.to_owned(), ..Default::default() };
            client
                .send_task_input(v1::SendTaskInputRequest { name: task.name.clone(), input: Some(input) })
                .await
        };
        steer("Please note MARK-first in all that you do.").await?;
        std::fs::write(&first, "")?;
        model.until(|counts| counts.messages >= 2).await;
        if interval != "0s" {
            site.kept(&task.name, |list| list.checkpoint.is_some()).await?;
        }
        site.lose_worker().await?;
        std::fs::write(&second, "")?;
        let before = model.requests().len();
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        let log = tasks::log(&client, &task.name).await?;
        assert_eq!(
            (status.state(), status.attempt),
            (TaskState::Succeeded, 2),
            "{:?} {log:?}",
            status.failure
        );
        assert_eq!(codes(&log), codes_of_next);
        let requests = model.requests();
        assert!(
            requests[before..].iter().all(|request| request.marks.contains("MARK-first")),
            "{requests:?}"
        );
    }
    Ok(())
}
