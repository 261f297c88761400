//! Watches of one task and of many: no entry is skipped.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use futures::StreamExt;
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_testkit::client::Client;
use rota_testkit::{Backend, Cluster, history, tasks};

const PARENT: &str = "namespaces/default";

fn task_with_output(outputs: usize) -> v1::Task {
    let steps = (0..outputs).map(|index| Step::Output(index.to_string()));
    tasks::scripted("echo", steps.chain([Step::Succeed("done".into())]))
}

#[tokio::test]
async fn task_watch_starts_at_any_position() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let task = tasks::create(client, task_with_output(20)).await?;
    let last = tasks::ended(client, &task.name).await?.status.unwrap().log_seq;
    assert_eq!(last, 20 + 5);
    for after in 0..=last {
        let mut seen = Vec::new();
        let mut watch = client.watch_task(&task.name, after);
        while let Some(update) = watch.next().await {
            let update = update?;
            seen.extend(update.events.iter().map(|event| event.log_seq));
            let status = update.task.context("no task")?.status.unwrap();
            // The message with the end has the result.
            assert_eq!(status.state() == TaskState::Succeeded, status.result.is_some());
        }
        assert_eq!(seen, (after + 1..=last).collect::<Vec<_>>());
    }
    let refused = client
        .tasks()
        .watch_task(v1::WatchTaskRequest { name: task.name.clone(), after_log_seq: -1, ..Default::default() })
        .await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn record_is_never_older_than_entries() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 8)?;
    let watched = (0..200).map(async |_| {
        let steps = [Step::Output("a".into()), Step::Output("b".into()), Step::Ask("go?".into())];
        let task = tasks::create(client, tasks::scripted("echo", steps)).await?;
        let mut watch = client.watch_task(&task.name, 0);
        loop {
            let update = watch.next().await.context("it ended")??;
            let status = update.task.context("no task")?.status.unwrap();
            let last = update.events.last().map_or(0, |event| event.log_seq);
            assert!(status.log_seq >= last, "{status:?}");
            if status.state() == TaskState::InputRequired {
                break;
            }
        }
        tasks::cancel(client, &task.name).await?;
        tasks::until_state(client, &task.name, TaskState::Cancelled).await?;
        anyhow::Ok(())
    });
    let all = async { futures::future::try_join_all(watched).await };
    tokio::time::timeout(tasks::WAIT_TIMEOUT, all).await.context("a record did not come")??;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn slow_watcher_misses_and_delays_nothing() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let steps = [Step::Ask("go?".into())].into_iter();
    let steps = steps.chain((0..3000).map(|index| Step::Output(format!("{index} {}", "x".repeat(300)))));
    let task = tasks::create(client, tasks::scripted("echo", steps)).await?;
    // It opens the stream, and reads only after the end.
    let slow = cluster.another_client()?;
    let request = v1::WatchTaskRequest { name: task.name.clone(), after_log_seq: 0, ..Default::default() };
    let mut stream = slow.tasks().watch_task(request).await?.into_inner();
    let first = stream.message().await?.context("nothing came")?;
    let mut many = slow
        .tasks()
        .watch_tasks(v1::WatchTasksRequest { parent: PARENT.into(), ..Default::default() })
        .await?
        .into_inner();
    many.message().await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    tasks::answer(client, &task.name, "yes").await?;
    let last = tasks::ended(client, &task.name).await?.status.unwrap().log_seq;
    let mut seen: Vec<_> = first.events.iter().map(|event| event.log_seq).collect();
    while let Some(update) = stream.message().await? {
        seen.extend(update.events.iter().map(|event| event.log_seq));
    }
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    let mut all = BTreeSet::new();
    while !all.contains(&last) {
        let answer = many.message().await?.context("the feed ended")?;
        all.extend(answer.events.iter().map(|event| event.log_seq));
    }
    // From the token on: the events after the creation.
    let from = *all.first().context("nothing came")?;
    assert_eq!(all, (from..=last).collect());
    assert!(from <= 3, "{from}");
    history::check(client, true).await?.check()
}

/// Log sequence numbers that a watch delivered, by task.
#[derive(Default)]
struct Seen(BTreeMap<String, BTreeSet<i64>>);

impl Seen {
    fn take(&mut self, answer: &v1::WatchTasksResponse) {
        if let Some(task) = &answer.task {
            self.0
                .entry(task.name.clone())
                .or_default()
                .extend(answer.events.iter().map(|event| event.log_seq));
        }
    }

    async fn contains_logs_of(&self, client: &Client, names: &[String]) -> Result<bool> {
        for name in names {
            let last = tasks::get(client, name).await?.status.unwrap().log_seq;
            let empty = BTreeSet::new();
            if *self.0.get(name).unwrap_or(&empty) != (1..=last).collect() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[tokio::test]
async fn task_list_watch_survives_restart() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let mut watch = client.watch_tasks(PARENT, "", false);
    let first = watch.next().await.context("nothing came")??;
    assert!(!first.token.is_empty() && !first.resync && first.task.is_none());
    let mut names = Vec::new();
    for _ in 0..10 {
        names.push(tasks::create(&client, task_with_output(30)).await?.name);
    }
    tasks::until_state(&client, &names[0], TaskState::Succeeded).await?;
    cluster.kill().await;
    cluster.restart().await?;
    for _ in 0..10 {
        names.push(tasks::create(&client, task_with_output(30)).await?.name);
    }
    for name in &names {
        tasks::until_state(&client, name, TaskState::Succeeded).await?;
    }
    let mut seen = Seen::default();
    let mut tokens = vec![first.token];
    let read = async {
        while !seen.contains_logs_of(&client, &names).await? {
            let answer = watch.next().await.context("it ended")??;
            assert!(!answer.resync);
            seen.take(&answer);
            tokens.push(answer.token);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(tasks::WAIT_TIMEOUT, read).await.context("something was skipped")??;
    // Every token resumes with everything after it.
    for token in tokens.iter().step_by(37) {
        let mut rest = Seen::default();
        let mut watch = client.watch_tasks(PARENT, token, false);
        let last = tokens.last().context("no token")?;
        loop {
            let answer = watch.next().await.context("it ended")??;
            assert!(!answer.resync);
            rest.take(&answer);
            if answer.token.split('.').next() == last.split('.').next() {
                break;
            }
        }
        for (name, delivered) in &rest.0 {
            let all = seen.0[name].clone();
            let first = *delivered.first().context("an answer without entries")?;
            assert_eq!(*delivered, all.range(first..).copied().collect::<BTreeSet<_>>());
        }
    }
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn unknown_token_causes_resync() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::create(client, tasks::task("echo")).await?;
    for token in ["x", "0", "zz.zz", "ffffffffffffffff.65f00000", "1.", ".1", "1.2.3", "-1.5", "99999.0"] {
        let mut watch = client.watch_tasks(PARENT, token, false);
        let first = watch.next().await.context("nothing came")??;
        assert!(first.resync && !first.token.is_empty(), "{token}: {first:?}");
        // The new token resumes.
        let made = tasks::create(client, tasks::task("echo")).await?;
        let next = watch.next().await.context("nothing came")??;
        assert_eq!(next.task.context("no task")?.name, made.name);
    }
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn watch_filters_states_and_namespace() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let mut here = client.watch_tasks(PARENT, "", true);
    let mut everywhere = client.watch_tasks("namespaces/-", "", true);
    here.next().await.context("nothing came")??;
    everywhere.next().await.context("nothing came")??;
    let other = v1::CreateTaskRequest {
        parent: "namespaces/other".into(),
        task: Some(tasks::task("echo")),
        ..Default::default()
    };
    let other = client.create_task(other).await?;
    let task = tasks::create(client, task_with_output(10)).await?;
    let mut names = BTreeSet::new();
    loop {
        let answer = everywhere.next().await.context("it ended")??;
        let task = answer.task.context("no task")?;
        names.insert(task.name);
        if task.status.unwrap().state() == TaskState::Succeeded {
            break;
        }
    }
    assert_eq!(names, [other.name, task.name.clone()].into());
    let mut events = Vec::new();
    while tasks::steps(&events).last().is_none_or(|step| step != "RUNNING>SUCCEEDED:succeeded") {
        let answer = here.next().await.context("it ended")??;
        assert_eq!(answer.task.context("no task")?.name, task.name);
        events.extend(answer.events);
    }
    assert_eq!(tasks::steps(&events).len(), events.len());
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn stalled_streams_receive_everything_once() -> Result<()> {
    const STREAMS: usize = 120;
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let slow = cluster.another_client()?;
    let request = |parent: &str| v1::WatchTasksRequest { parent: parent.into(), ..Default::default() };
    let mut streams = Vec::new();
    for parent in ["namespaces/-", PARENT].repeat(STREAMS / 2) {
        streams.push(slow.tasks().watch_tasks(request(parent)).await?.into_inner());
    }
    let mut logs = BTreeMap::new();
    for _ in 0..10 {
        let task = tasks::create(client, task_with_output(100)).await?;
        let last = tasks::ended(client, &task.name).await?.status.unwrap().log_seq;
        logs.insert(task.name, (1..=last).collect::<Vec<_>>());
    }
    // Concurrently, since all of them share the window of one connection.
    let reads = streams.into_iter().map(async |mut stream| {
        let mut seen = BTreeMap::<_, Vec<_>>::new();
        while seen != logs {
            let answer = stream.message().await?.context("it ended")?;
            let Some(task) = answer.task else { continue };
            let log = seen.entry(task.name).or_default();
            log.extend(answer.events.iter().map(|event| event.log_seq));
            assert!(log.windows(2).all(|two| two[1] == two[0] + 1), "{log:?}");
        }
        anyhow::Ok(())
    });
    let all = async { futures::future::try_join_all(reads).await };
    tokio::time::timeout(tasks::WAIT_TIMEOUT, all).await.context("a stream is incomplete")??;
    history::check(client, true).await?.check()
}
