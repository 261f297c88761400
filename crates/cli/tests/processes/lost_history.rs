//! A database that continues without its last commits, as after a failover to an asynchronous standby: what runs continues.

use anyhow::{Context, Result, ensure};
use rota_proto::v1::TaskState;
use rota_testkit::postgres::PostgresServer;
use rota_testkit::tasks;

use crate::replicas::Replicas;
use crate::{Graces, workload};

/// Keeps what a later moment is put back to. Meanwhile, only reports of running attempts are committed.
const KEEP: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ;
    CREATE TABLE public.kept_tasks AS SELECT key, record FROM rota.tasks;
    CREATE TABLE public.kept AS SELECT max(revision) AS revision FROM rota.commits;
    COMMIT";
const LOSE: &str = "BEGIN;
    DELETE FROM rota.commits WHERE revision > (SELECT revision FROM public.kept);
    DELETE FROM rota.events WHERE revision > (SELECT revision FROM public.kept);
    UPDATE rota.tasks SET record = kept.record FROM public.kept_tasks AS kept WHERE kept.key = tasks.key;
    COMMIT";

#[tokio::test]
async fn attempt_continues_without_its_lost_events() -> Result<()> {
    let server = PostgresServer::shared();
    let mut replicas = Replicas::start(server.database()?, Graces::LONG, 2).await?;
    let client = replicas.fixture.client()?;
    workload::agent(&client).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 1).await?;
    let name = replicas.run_tasks(1).await?.remove(0);
    server.sql(&replicas.url, KEEP)?;
    let known = workload::printed(&client, &name).await?.lines().count();
    workload::prints(&client, &name, &format!("line {}\n", known + 20)).await?;
    // The one that stands by has seen the last commits.
    replicas.running[0].take().context("no owner")?.kill().await;
    server.sql(&replicas.url, LOSE)?;
    replicas.owner_of(&[1]).await?;
    ensure!(replicas.replica(1).count("history_lost") > 0, "the loss was not noticed");
    tasks::eventually("a notice in the log", async || {
        let log = tasks::log(&client, &name).await?;
        Ok(tasks::notices(&log).iter().any(|code| code == "history_lost"))
    })
    .await?;
    // Everything has the cause, with the task for those who have a token.
    tasks::eventually("the cause with the task", async || {
        Ok(replicas.fixture.rota(&["admin", "status", "-o", "json"]).await.out.contains(&name))
    })
    .await?;
    tasks::eventually("a ready page with the cause", async || {
        let (status, ready) = replicas.page(1, "/readyz").await?;
        ensure!(!ready.contains(&name), "without a token: {ready}");
        Ok(status == 200 && ready.contains("history_lost"))
    })
    .await?;
    for command in [&["admin", "status"][..], &["admin", "alerts"], &["doctor"]] {
        let shown = replicas.fixture.rota(&[command, &["-o", "json"]].concat()).await;
        ensure!(shown.out.contains("has lost the commits") && shown.out.contains(&name), "{shown:?}");
    }
    std::fs::write(replicas.gate(), "")?;
    let status = tasks::ended(&client, &name).await?.status.context("no status")?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{status:?}");
    let log = tasks::log(&client, &name).await?;
    assert_eq!(tasks::notices(&log).iter().filter(|code| *code == "history_lost").count(), 1);
    let printed = workload::printed(&client, &name).await?;
    let last = printed.lines().last().context("nothing was printed")?;
    ensure!(last.starts_with("last "), "{printed}");
    Ok(())
}
