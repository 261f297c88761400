//! Removal of old records, whose age counts by the clock of the store.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_proto::v1;
use rota_testkit::client::Client;
use rota_testkit::{Backend, Cluster, Setup, tasks};

/// By how much the clock of the store is behind that of the machine, in microseconds: more than [`AGE`].
const BEHIND: i64 = 2 * 3600 * 1_000_000;
/// Age at which records are removed.
const AGE: Duration = Duration::from_secs(3600);

/// Returns a control plane whose machine has a clock that is ahead of its store's.
fn setup(backend: Backend) -> Setup {
    Setup { database_skew: -BEHIND, ..Setup::new(backend) }
}

/// Returns the name of a task that has just ended.
async fn ended(client: &Client) -> Result<String> {
    let name = tasks::create(client, tasks::task("echo")).await?.name;
    tasks::cancel(client, &name).await?;
    Ok(name)
}

#[tokio::test]
async fn prune_counts_ages_by_the_stores_clock() -> Result<()> {
    let cluster = Cluster::start_with(setup(Backend::Memory)).await?;
    let client = cluster.client();
    let name = ended(client).await?;
    let prune = |seconds| v1::PruneRequest {
        older_than: Some(pbjson_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    };
    client.prune(prune(i64::try_from(AGE.as_secs())?)).await?;
    tasks::get(client, &name).await?;
    client.prune(prune(0)).await?;
    tasks::get(client, &name).await.unwrap_err();
    Ok(())
}

#[tokio::test]
async fn retention_counts_ages_by_the_stores_clock() -> Result<()> {
    let mut setup = setup(Backend::Sqlite);
    setup.timing.retention = Some(AGE);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    let name = ended(&client).await?;
    // Each start prunes.
    cluster.kill().await;
    cluster.restart().await?;
    tasks::eventually("a prune", async || {
        let request = v1::ListBackgroundTasksRequest::default();
        let found = client.list_background_tasks(request).await?.background_tasks;
        let prune = found.into_iter().find(|task| task.name == "prune").context("no such task")?;
        Ok(prune.succeeded > 0)
    })
    .await?;
    tasks::get(&client, &name).await?;
    Ok(())
}
