//! A full queue and one slot: who goes first.

use std::sync::atomic::Ordering;

use anyhow::Result;
use rota_proto::v1::{self, TaskState};
use rota_testkit::{Cluster, Keep, Setup, history, tasks};

use crate::Stage;

/// Microseconds of waiting that make up for one step of priority.
const HEAD_START: i64 = 60_000_000;

fn micros(at: Option<&pbjson_types::Timestamp>) -> i64 {
    at.map_or(0, |at| at.seconds * 1_000_000 + i64::from(at.nanos) / 1000)
}

fn prioritised(priority: i32) -> v1::Task {
    let mut task = tasks::task("echo");
    task.priority = Some(priority);
    task
}

/// The program's clock cannot be set, so the tasks that have waited for minutes were handed in to a control
/// plane of this process, whose clock can. The program goes on with what that one left.
#[tokio::test]
async fn it_is_drained_by_priority_and_age() -> Result<()> {
    let setup = Setup::new(Keep::Sqlite);
    let skew = std::sync::Arc::clone(&setup.skew);
    let mut cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let mut names = Vec::new();
    for minutes in [9_i64, 5, 2] {
        skew.store(-minutes * HEAD_START, Ordering::Relaxed);
        for priority in [5, 0, 10, 2, 8, 5, 3] {
            names.push(tasks::create(cluster.client(), prioritised(priority)).await?.name);
        }
    }
    cluster.stop().await;
    let stage = Stage::start_on(cluster.folder()).await?;
    let client = stage.client()?;
    for priority in [5, 0, 10, 2, 8, 5, 3] {
        names.push(tasks::create(&client, prioritised(priority)).await?.name);
    }

    let mut ranked = Vec::new();
    for name in &names {
        let task = tasks::get(&client, name).await?;
        let status = task.status.unwrap();
        assert_eq!(status.state(), TaskState::Queued);
        let rank = micros(status.ready_time.as_ref()) - i64::from(task.priority.unwrap()) * HEAD_START;
        ranked.push((rank, task.uid, name.clone()));
    }
    ranked.sort();
    let wanted: Vec<_> = ranked.into_iter().map(|(.., name)| name).collect();
    // Neither by priority alone nor by age alone.
    assert_ne!(wanted, names);
    let _worker = stage.worker("echo", "one", 1).await?;
    let mut started = Vec::new();
    for name in &names {
        tasks::until_state(&client, name, TaskState::Succeeded).await?;
        let log = tasks::log(&client, name).await?;
        let start = log.iter().find(|event| {
            matches!(&event.kind, Some(v1::event::Kind::State(change)) if change.to() == TaskState::Running)
        });
        started.push((micros(start.unwrap().time.as_ref()), name.clone()));
    }
    started.sort();
    let order: Vec<_> = started.into_iter().map(|(_, name)| name).collect();
    assert_eq!(order, wanted);
    history::check(&client, true).await?.check()
}
