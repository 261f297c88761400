//! Order of a full queue with one slot.

use std::sync::atomic::Ordering;

use anyhow::Result;
use rota_proto::v1::{self, TaskState};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};

use crate::Fixture;

/// Microseconds of waiting that are worth one step of priority.
const HEAD_START: i64 = 60_000_000;

fn micros(at: Option<&pbjson_types::Timestamp>) -> i64 {
    at.map_or(0, |at| at.seconds * 1_000_000 + i64::from(at.nanos) / 1000)
}

fn prioritized(priority: i32) -> v1::Task {
    let mut task = tasks::task("echo");
    task.priority = Some(priority);
    task
}

/// Tasks that have waited for minutes are created by a control plane in this process, whose clock can be set. The
/// program continues with its data.
#[tokio::test]
async fn queue_is_ordered_by_priority_and_age() -> Result<()> {
    let setup = Setup::new(Backend::Sqlite);
    let skew = std::sync::Arc::clone(&setup.skew);
    let mut cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let mut names = Vec::new();
    for minutes in [9_i64, 5, 2] {
        skew.store(-minutes * HEAD_START, Ordering::Relaxed);
        for priority in [5, 0, 10, 2, 8, 5, 3] {
            names.push(tasks::create(cluster.client(), prioritized(priority)).await?.name);
        }
    }
    cluster.stop().await;
    let fixture = Fixture::start_on(cluster.folder()).await?;
    let client = fixture.client()?;
    for priority in [5, 0, 10, 2, 8, 5, 3] {
        names.push(tasks::create(&client, prioritized(priority)).await?.name);
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
    let _worker = fixture.worker("echo", "one", 1).await?;
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
