//! Messages in parts: to those who follow, from those that are followed, and stored nowhere.

use anyhow::{Context, Result};
use futures::StreamExt;
use rota_proto::v1::{self, MessageDelta, MessageRole, TaskState, event};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_proto::worker::v1::{Assign, Follow, RunningAttempt, StreamedMessage};
use rota_testkit::client::watch::Watch;
use rota_testkit::raw::{RawWorker, hello, output};
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::json;

use crate::claude::{claude_task, start_cluster};

type Updates = Watch<v1::WatchTaskResponse>;

fn part(assign: &Assign, fence: i64, offset: i64, text: &str) -> Outgoing {
    let role = MessageRole::Assistant.into();
    let delta = MessageDelta { role, attempt: assign.attempt, number: 1, offset, text: text.to_owned() };
    Outgoing::Streamed(StreamedMessage { task_id: assign.task_id.clone(), fence, delta: Some(delta) })
}

async fn followed(worker: &mut RawWorker, assign: &Assign) -> Result<bool> {
    loop {
        if let Incoming::Follow(Follow { task_id, fence, followed }) = worker.receive().await? {
            assert_eq!((task_id, fence), (assign.task_id.clone(), assign.fence));
            return Ok(followed);
        }
    }
}

/// Waits for the next part.
async fn next(watch: &mut Updates) -> Result<String> {
    loop {
        let update = tokio::time::timeout(tasks::WAIT_TIMEOUT, watch.next()).await?.context("it ended")??;
        if let Some(delta) = update.deltas.first() {
            assert!(update.task.is_none() && update.events.is_empty(), "{update:?}");
            return Ok(delta.text.clone());
        }
    }
}

#[tokio::test]
async fn parts_reach_followers_only_while_they_follow() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "raw", tasks::script([]), &[]).await?;
    let task = tasks::create(client, tasks::task("raw")).await?;
    // Before a worker has it.
    let mut early = client.watch_task_streamed(&task.name, 0);
    early.next().await.context("no first message")??;
    let mut worker = RawWorker::join(client, hello("raw", "one", 1)).await?;
    let assign = worker.take().await?;
    assert!(followed(&mut worker, &assign).await?);
    let mut late = client.watch_task_streamed(&task.name, 0);
    late.next().await.context("no first message")??;
    let mut plain = client.watch_task(&task.name, 0);
    // Of an attempt that the worker does not run.
    worker.send(part(&assign, assign.fence + 1, 0, "stale"));
    worker.send(part(&assign, assign.fence, 0, &"x".repeat(17 << 10)));
    worker.send(part(&assign, assign.fence, 0, "one "));
    worker.send(part(&assign, assign.fence, 4, "two"));
    for watch in [&mut early, &mut late] {
        assert_eq!((next(watch).await?, next(watch).await?), ("one ".to_owned(), "two".to_owned()));
    }
    drop(late);
    drop(early);
    while followed(&mut worker, &assign).await? {}
    worker.send(part(&assign, assign.fence, 7, "unheard"));
    // Answered once the part before it was taken.
    worker.report(&Assign { fence: assign.fence - 1, ..assign.clone() }, 1, vec![output("outdated")]);
    while !matches!(worker.receive().await?, Incoming::ReportAck(_)) {}

    // Again, and over a lost connection of the worker.
    let mut again = client.watch_task_streamed(&task.name, 0);
    again.next().await.context("no first message")??;
    assert!(followed(&mut worker, &assign).await?);
    drop(worker);
    let running =
        RunningAttempt { task_id: assign.task_id.clone(), fence: assign.fence, ..Default::default() };
    let back = rota_proto::worker::v1::Hello { running: vec![running], ..hello("raw", "one", 1) };
    let mut worker = RawWorker::join(client, back).await?;
    assert!(followed(&mut worker, &assign).await?);
    worker.send(part(&assign, assign.fence, 0, "back"));
    assert_eq!(next(&mut again).await?, "back");
    worker.succeed(&assign, 0, "done");
    tasks::ended(client, &task.name).await?;
    while let Some(update) = plain.next().await {
        assert!(update?.deltas.is_empty());
    }
    let log = tasks::log(client, &task.name).await?;
    assert!(!log.iter().any(|event| matches!(event.kind, Some(event::Kind::Message(_)))), "{log:?}");
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn messages_of_the_real_cli_arrive_in_parts() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let (cluster, _worker) = start_cluster(Backend::Sqlite).await?;
    let client = cluster.client();
    let slow = json!({"every_ms": 30, "chars": 10});
    let text = "a word and another \u{e4} ".repeat(40);
    let tool = json!({"name": "Bash", "input": {"command": "echo tool", "description": "Print"}});
    let script = json!([
        {"thinking": "hm, ".repeat(50), "text": "First.", "tools": [tool], "slow": slow},
        {"text": text, "slow": slow},
    ]);
    let task = tasks::create(client, claude_task(&model, &script)).await?;
    let mut watch = client.watch_task_streamed(&task.name, 0);
    let (mut parts, mut messages, mut last) = (Vec::<MessageDelta>::new(), Vec::new(), None);
    while let Some(update) = watch.next().await {
        let update = update?;
        parts.extend(update.deltas);
        for event in update.events {
            if let Some(event::Kind::Message(message)) = event.kind {
                // Its parts come before it.
                let own = parts.iter().filter(|part| part.number == message.number);
                let streamed = own.clone().map(|part| part.text.as_str()).collect::<String>();
                assert!(own.clone().all(|part| part.role == message.role && part.attempt == 1));
                assert!(message.text.starts_with(&streamed), "{streamed:?} of {message:?}");
                let (count, length) = (own.count(), streamed.len());
                messages.push((message, count, length));
            }
        }
        last = update.task.or(last);
    }
    let status = last.context("no task")?.status.unwrap_or_default();
    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    let roles: Vec<_> = messages.iter().map(|(message, ..)| message.role()).collect();
    assert_eq!(roles, [MessageRole::Thinking, MessageRole::Assistant, MessageRole::Assistant]);
    let (answer, count, streamed) = &messages[2];
    assert_eq!(answer.text.trim(), text.trim());
    assert!(*count >= 3 && *streamed > answer.text.len() / 4, "{count} parts with {streamed} bytes");
    assert_eq!(parts.iter().map(|part| part.number).max(), Some(3));
    // The log has them once, as a whole.
    let log = tasks::log(client, &task.name).await?;
    let stored = log.iter().filter(|event| matches!(event.kind, Some(event::Kind::Message(_)))).count();
    assert_eq!(stored, 3);
    history::check(client, true).await?.check()
}
