//! The order in which queued tasks are assigned.

use std::sync::atomic::Ordering;

use anyhow::Result;
use rota_proto::v1::{self, TaskState};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};

/// Waiting time in microseconds that equals one step of priority.
const HEAD_START: i64 = 60_000_000;

fn micros(at: Option<&pbjson_types::Timestamp>) -> i64 {
    at.map_or(0, |at| at.seconds * 1_000_000 + i64::from(at.nanos) / 1000)
}

async fn assert_drains_in_order(backend: Backend, suspended: bool) -> Result<()> {
    let setup = Setup::new(backend);
    let skew = std::sync::Arc::clone(&setup.skew);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut names = Vec::new();
    // Some were created long ago: they have aged past more urgent ones.
    for minutes in [9_i64, 5, 2, 0] {
        skew.store(-minutes * HEAD_START, Ordering::Relaxed);
        for priority in [5, 0, 10, 2, 8, 5, 3] {
            let mut task = tasks::task("echo");
            task.priority = Some(priority);
            if suspended {
                task.set_desired_state(v1::DesiredState::Suspended);
            }
            let mut task = tasks::create(client, task).await?;
            if suspended {
                task.set_desired_state(v1::DesiredState::Run);
                tasks::update(client, task.clone(), &["desired_state"]).await?;
            }
            names.push(task.name);
        }
    }
    let mut ranked = Vec::new();
    for name in &names {
        let task = tasks::get(client, name).await?;
        let ready = micros(task.status.unwrap().ready_time.as_ref());
        ranked.push((ready - i64::from(task.priority.unwrap()) * HEAD_START, task.uid, name.clone()));
    }
    ranked.sort();
    let _worker = cluster.worker("echo", "one", 1)?;
    let mut started = Vec::new();
    for name in &names {
        tasks::until_state(client, name, TaskState::Succeeded).await?;
        let log = tasks::log(client, name).await?;
        let start = log.iter().find(|event| {
            matches!(&event.kind, Some(v1::event::Kind::State(change)) if change.to() == TaskState::Running)
        });
        started.push((micros(start.unwrap().time.as_ref()), name.clone()));
    }
    started.sort();
    let order: Vec<_> = started.into_iter().map(|(_, name)| name).collect();
    let wanted: Vec<_> = ranked.into_iter().map(|(.., name)| name).collect();
    assert_eq!(order, wanted);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn full_queue_drains_by_rank() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        Box::pin(assert_drains_in_order(backend, false)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn resumed_task_ranks_from_its_release() -> Result<()> {
    Box::pin(assert_drains_in_order(Backend::Memory, true)).await
}

#[tokio::test]
async fn priority_update_changes_rank() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let first = tasks::create(client, tasks::task("echo")).await?;
    let mut second = tasks::create(client, tasks::task("echo")).await?;
    second.priority = Some(9);
    tasks::update(client, second.clone(), &["priority"]).await?;
    let mut worker =
        rota_testkit::RawWorker::join(client, rota_testkit::raw::hello("echo", "hand", 1)).await?;
    for wanted in [&second, &first] {
        let assign = worker.take().await?;
        assert_eq!(assign.task_id, wanted.uid);
        worker.succeed(&assign, 0, "done");
    }
    tasks::until_state(client, &first.name, TaskState::Succeeded).await?;
    history::check(client, true).await?.check()
}
