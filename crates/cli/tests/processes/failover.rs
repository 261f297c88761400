//! A primary that is lost, and its standby in its place, below two replicas and a worker: with a synchronous standby nothing is lost
//! and nothing runs twice; with an asynchronous one the loss is noticed, named and healed.

use std::cell::Cell;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rota_proto::v1::{CreateTaskRequest, Task, TaskState};
use rota_testkit::postgres::{PostgresServer, Stop};
use rota_testkit::{history, tasks};
use tokio::task::spawn_blocking;

use crate::replicas::Replicas;
use crate::{Graces, workload};

/// Tasks that are created before the primary is lost, more than the worker has slots for.
const QUEUED: usize = 20;

/// A primary with a standby, and the URL of a database that names both.
struct Pair {
    primary: Arc<PostgresServer>,
    standby: Arc<PostgresServer>,
    url: String,
}

impl Pair {
    fn start(standby_of: impl Fn(&PostgresServer) -> Result<PostgresServer>) -> Result<Self> {
        let primary = PostgresServer::start("")?;
        let database = primary.database()?;
        let standby = standby_of(&primary)?;
        let host = |server: &PostgresServer| server.socket().display().to_string().replace('/', "%2F");
        let both = format!("{},{}", host(&primary), host(&standby));
        let url = database.replacen(&host(&primary), &both, 1);
        Ok(Self { primary: Arc::new(primary), standby: Arc::new(standby), url })
    }

    /// Waits until the standby has what is committed now.
    async fn replicated(&self) -> Result<()> {
        let position = self.primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()")?;
        let has = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn");
        tasks::eventually("the commits at the standby", async || {
            Ok(self.standby.sql("postgres", &has)? == "t")
        })
        .await
    }

    /// Waits until the replicas see a standby of this kind.
    async fn described(&self, replicas: &Replicas, kind: &str) -> Result<()> {
        tasks::eventually("the kind of the standby", async || {
            Ok(replicas.fixture.rota(&["doctor", "-o", "json"]).await.out.contains(kind))
        })
        .await
    }
}

async fn create_again(replicas: &Replicas) -> Result<Task> {
    let request = CreateTaskRequest {
        parent: rota_proto::names::namespace(tasks::NAMESPACE),
        task: Some(workload::shell("echo again", &[])),
        idempotency_key: "again".to_owned(),
        ..Default::default()
    };
    let client = replicas.fixture.client()?;
    let task = Box::pin(client.create_task(request)).await?;
    tasks::ended(&client, &task.name).await
}

fn outcome(task: &Task) -> (TaskState, i32) {
    task.status.as_ref().map(|status| (status.state(), status.attempt)).unwrap_or_default()
}

#[tokio::test]
async fn synchronous_failover_loses_and_doubles_nothing() -> Result<()> {
    let pair = Pair::start(PostgresServer::synchronous_standby)?;
    let replicas = Replicas::start(pair.url.clone(), Graces::LONG, 2).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 4).await?;
    pair.described(&replicas, "1 synchronous standby").await?;
    let names = replicas.run_tasks(2).await?;
    let create = async || anyhow::Ok(tasks::create(&client, workload::shell("echo short", &[])).await?.name);
    let mut short = Vec::new();
    for _ in 0..QUEUED {
        short.push(create().await?);
    }
    let (primary, standby) = (Arc::clone(&pair.primary), Arc::clone(&pair.standby));
    let over = Cell::new(false);
    // One after the other until the primary is lost: the last one waits for the next primary.
    let creating = async {
        let mut names = Vec::new();
        while !over.get() {
            names.push(create().await?);
        }
        anyhow::Ok(names)
    };
    let failing_over = async {
        spawn_blocking(move || primary.stop(Stop::Immediate)).await??;
        let promotion = async { anyhow::Ok(spawn_blocking(move || standby.promote()).await??) };
        // Begins while no server takes writes, before the standby is promoted.
        let (created, promoted) = tokio::join!(create(), promotion);
        over.set(true);
        promoted?;
        created
    };
    let (names_before, name_without_primary) = tokio::try_join!(creating, failing_over)?;
    short.extend(names_before);
    short.extend([name_without_primary, create().await?]);
    for name in &short {
        let task = tasks::ended(&client, name).await?;
        assert_eq!(outcome(&task), (TaskState::Succeeded, 1), "{task:?}");
    }
    replicas.end_tasks(&names).await?;
    for index in 0..2 {
        ensure!(replicas.replica(index).count("history_lost") == 0, "replica {index} has noticed a loss");
    }
    Ok(())
}

#[tokio::test]
async fn asynchronous_failover_is_noticed_and_healed() -> Result<()> {
    let pair = Pair::start(PostgresServer::asynchronous_standby)?;
    let mut replicas = Replicas::start(pair.url.clone(), Graces::LONG, 2).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 3).await?;
    // An attempt that is lost is repeated on another worker.
    let _other = replicas.fixture.worker(workload::AGENT, "two", 3).await?;
    pair.described(&replicas, "1 asynchronous standby").await?;
    let running = replicas.run_tasks(1).await?.remove(0);
    let end = replicas.fixture.dir().join("end").display().to_string();
    let waits = workload::shell("echo waits; until [ -e \"$END\" ]; do sleep 0.05; done", &[("END", &end)]);
    let ended = tasks::create(&client, waits).await?.name;
    workload::prints(&client, &ended, "waits").await?;
    let kept = tasks::create(&client, workload::shell("echo kept", &[])).await?.name;
    tasks::ended(&client, &kept).await?;
    pair.replicated().await?;

    // From here on, commits are on the primary alone: events, the end of an attempt, and a whole task.
    pair.standby.stop(Stop::Fast)?;
    let known = workload::printed(&client, &running).await?.lines().count();
    workload::prints(&client, &running, &format!("line {}\n", known + 20)).await?;
    std::fs::write(&end, "")?;
    assert_eq!(outcome(&tasks::ended(&client, &ended).await?), (TaskState::Succeeded, 1));
    let lost = create_again(&replicas).await?.name;
    pair.primary.stop(Stop::Immediate)?;
    pair.standby.resume()?;
    pair.standby.promote()?;

    // Noticed and named.
    replicas.owner_of(&[1]).await?;
    let old = replicas.running[0].take().context("no owner")?.ended().await;
    ensure!(!old.status.success(), "the old owner has ended without an error: {old:?}");
    tasks::eventually("a ready page with the loss", async || {
        let (status, ready) = replicas.page(1, "/readyz").await?;
        Ok(status == 200 && ready.contains("history_lost"))
    })
    .await?;
    let missing = tasks::get(&client, &lost).await.unwrap_err();
    assert_eq!(missing.reason.as_deref(), Some("TASK_NOT_FOUND"));

    // Healed: what is missing is created and run again, and what runs continues.
    let again = create_again(&replicas).await?;
    ensure!(again.name != lost && outcome(&again) == (TaskState::Succeeded, 1), "{again:?}");
    let task = tasks::ended(&client, &ended).await?;
    assert_eq!(outcome(&task), (TaskState::Succeeded, 2), "{task:?}");
    assert_eq!(outcome(&tasks::get(&client, &kept).await?), (TaskState::Succeeded, 1));
    tasks::eventually("a notice in the log", async || {
        let log = tasks::log(&client, &running).await?;
        Ok(tasks::notices(&log).iter().any(|code| code == "history_lost"))
    })
    .await?;
    std::fs::write(replicas.gate(), "")?;
    assert_eq!(outcome(&tasks::ended(&client, &running).await?), (TaskState::Succeeded, 1));
    history::check(&client, true).await?.check()
}

/// Its standby is not promoted yet, and takes no writes.
#[tokio::test]
async fn running_owner_names_what_its_database_lacks() -> Result<()> {
    let pair = Pair::start(PostgresServer::asynchronous_standby)?;
    let replicas = Replicas::start(pair.url.clone(), Graces::LONG, 1).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    pair.replicated().await?;
    pair.primary.stop(Stop::Immediate)?;
    let readiness = async |ready: u16, words: &str| {
        tasks::eventually(words, async || {
            let (status, page) = replicas.page(0, "/readyz").await?;
            Ok(status == ready && page.contains(words))
        })
        .await
    };
    readiness(503, "the database is read-only, such as a standby").await?;
    assert_eq!(replicas.page(0, "/livez").await?.0, 200);
    pair.standby.promote()?;
    readiness(200, "").await?;
    tasks::create(&client, workload::shell("echo late", &[])).await.map(drop)
}
