//! The control plane is killed and restarted: attempts continue. A store that was restored from a backup is
//! recognized.

use std::path::Path;

use anyhow::{Context, Result};
use futures::StreamExt;
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, history, output, tasks};

#[tokio::test]
async fn attempts_survive_a_crash() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 6)?;
    let mut names = Vec::new();
    for _ in 0..4 {
        let steps = [
            Step::Output("a".into()),
            Step::Ask("go?".into()),
            Step::Output("b".into()),
            Step::Succeed("c".into()),
        ];
        names.push(tasks::create(&client, tasks::scripted("echo", steps)).await?.name);
    }
    // Both keep producing events while the control plane is down.
    let mut busy = Vec::new();
    for _ in 0..2 {
        let steps = (1..=400).flat_map(|number| [output::line(number, 400), Step::Delay(tasks::millis(10))]);
        busy.push(tasks::create(&client, tasks::scripted("echo", steps)).await?.name);
    }
    for name in &busy {
        tasks::until_state(&client, name, TaskState::Running).await?;
    }
    for name in &names {
        tasks::until_state(&client, name, TaskState::InputRequired).await?;
    }
    cluster.kill().await;
    cluster.restart().await?;
    for name in &names {
        tasks::answer(&client, name, "yes").await?;
    }
    for name in names.iter().chain(&busy) {
        let status = tasks::ended(&client, name).await?.status.unwrap();
        assert_eq!(
            (status.state(), status.attempt, status.worker_losses),
            (TaskState::Succeeded, 1, 0),
            "{status:?}"
        );
    }
    for name in &names {
        assert_eq!(tasks::outputs(&tasks::log(&client, name).await?), ["a\n", "b\n"]);
    }
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn fence_is_kept_and_duplicates_are_dropped() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(&client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(&client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.report(&assign, 1, vec![raw::output("1"), raw::output("2")]);
    tasks::until(&client, &task.name, |status| status.log_seq >= 6).await?;
    let epoch = worker.welcome.epoch;
    cluster.kill().await;
    cluster.restart().await?;
    // It has more events than were acknowledged, and repeats some of them.
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&assign, 4, 0));
    let mut worker = RawWorker::join(&client, hello).await?;
    assert!(worker.welcome.epoch > epoch);
    let resume = &worker.welcome.resume[0];
    assert_eq!(resume.fence, assign.fence);
    assert_eq!(resume.kind, Some(rota_proto::worker::v1::resume_attempt::Kind::ContinueAfter(2)));
    worker.report(&assign, 2, vec![raw::output("2"), raw::output("3"), raw::output("4")]);
    worker.succeed(&assign, 4, "done");
    assert!(worker.result_ack().await?);
    // The acknowledgment was lost, too: the repeated result is not a second one.
    worker.succeed(&assign, 4, "done");
    assert!(worker.result_ack().await?);
    let log = tasks::log(&client, &task.name).await?;
    assert_eq!(tasks::outputs(&log), ["1", "2", "3", "4"]);
    assert!(tasks::notices(&log).is_empty());
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn buffered_events_arrive_in_one_report() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    // The limit of one report after a disconnect: a quarter of a megabyte of the smallest events.
    let count: usize = 12_000;
    worker.report(&assign, 1, (0..count).map(|index| raw::output(&index.to_string())).collect());
    worker.succeed(&assign, i64::try_from(count)?, "done");
    assert!(worker.result_ack().await?);
    assert_eq!(tasks::outputs(&tasks::log(client, &task.name).await?).len(), count);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn absent_worker_loses_task_after_recovery_grace() -> Result<()> {
    let mut setup = rota_testkit::Setup::new(Backend::Sqlite);
    setup.timing.recovery_grace = std::time::Duration::from_millis(300);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(&client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(&client, tasks::task("echo")).await?;
    worker.take().await?;
    tasks::until_state(&client, &task.name, TaskState::Running).await?;
    worker.close().await;
    cluster.kill().await;
    cluster.restart().await?;
    tasks::until_state(&client, &task.name, TaskState::Queued).await?;
    let _other = cluster.worker("echo", "other", 1)?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    assert_eq!(status.attempt, 2);
    assert_eq!(status.worker_losses, 1);
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn reported_death_frees_task_in_a_crash_loop() -> Result<()> {
    // Longer than the test.
    let mut setup = rota_testkit::Setup::new(Backend::Sqlite);
    setup.timing.recovery_grace = std::time::Duration::from_secs(3600);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(&client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(&client, tasks::task("echo")).await?;
    worker.take().await?;
    tasks::until_state(&client, &task.name, TaskState::Running).await?;
    for _ in 0..2 {
        cluster.kill().await;
        cluster.restart().await?;
    }
    drop(worker);
    let death = v1::ReportWorkerDeathRequest {
        name: "namespaces/default/workers/hand".to_owned(),
        ..Default::default()
    };
    assert_eq!(client.report_worker_death(death).await?.freed_tasks, 1);
    let _other = cluster.worker("echo", "other", 1)?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2));
    history::check(&client, true).await?.check()
}

/// Copies the database, which no control plane has open, in place of another one.
fn copy_store(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for name in ["rota.sqlite", "rota.sqlite-wal", "rota.sqlite-shm"] {
        let (from, to) = (from.join(name), to.join(name));
        if from.exists() {
            std::fs::copy(from, to)?;
        } else if to.exists() {
            std::fs::remove_file(to)?;
        }
    }
    Ok(())
}

/// Returns the store's version, as a new stream of demand has it.
async fn store_version(client: &Client) -> Result<v1::StoreVersion> {
    let mut demand = client.watch_demand("namespaces/-");
    demand.next().await.context("nothing came")??.store.context("there is no version")
}

async fn create_many(client: &Client, count: usize) -> Result<()> {
    for _ in 0..count {
        tasks::create(client, tasks::task("echo")).await?;
    }
    Ok(())
}

/// Returns whether a feed that resumes from a token reports that changes were lost.
async fn resyncs(client: &Client, token: &str) -> Result<bool> {
    let mut feed = client.watch_tasks("namespaces/-", token, true);
    Ok(feed.next().await.context("nothing came")??.resync)
}

#[tokio::test]
async fn restored_store_is_recognized() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    let (folder, backup) = (cluster.folder().to_owned(), cluster.folder().join("backup"));
    create_many(&client, 5).await?;
    let first = store_version(&client).await?;
    cluster.kill().await;
    copy_store(&folder, &backup)?;
    cluster.restart().await?;
    create_many(&client, 5).await?;
    let later = store_version(&client).await?;
    assert_eq!(later.id, first.id, "a restart keeps the store");
    assert!(later.run != first.run && later.revision > first.revision, "{first:?}, then {later:?}");
    let mut feed = client.watch_tasks("namespaces/-", "", true);
    let token = feed.next().await.context("nothing came")??.token;
    drop(feed);
    assert!(!resyncs(&client, &token).await?);
    cluster.kill().await;
    cluster.restart().await?;
    assert!(!resyncs(&client, &token).await?, "nothing was lost by a restart");

    cluster.kill().await;
    copy_store(&backup, &folder)?;
    cluster.restart().await?;
    let restored = store_version(&client).await?;
    assert_eq!(restored.id, first.id);
    assert!(restored.revision < later.revision, "{restored:?}");
    // It has more commits than before the backup was restored, and not the same.
    create_many(&client, 10).await?;
    assert!(store_version(&client).await?.revision > later.revision);
    assert!(resyncs(&client, &token).await?);
    // Nor does a further run, which begins after the position, contain it.
    cluster.kill().await;
    cluster.restart().await?;
    assert!(resyncs(&client, &token).await?);
    let runs = store_version(&client).await?.runs;
    let position = |run: &str| runs.iter().position(|one| one.run == run);
    assert!(position(&first.run) < position(&restored.run), "{runs:?}");
    assert_eq!(position(&later.run), None, "its beginning was lost");
    Ok(())
}
