//! Why the tasks of each route wait, as watchers of the demand receive it.

use anyhow::{Context, Result};
use futures::StreamExt;
use rota_proto::v1;
use rota_testkit::client::watch::Watch;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};

const PARENT: &str = "namespaces/default";

async fn next_waits(watch: &mut Watch<v1::WatchDemandResponse>) -> Result<Vec<v1::RouteWait>> {
    loop {
        let next = tokio::time::timeout(tasks::WAIT_TIMEOUT, watch.next()).await?;
        let response = next.context("it ended")??;
        if !response.waits.is_empty() {
            return Ok(response.waits);
        }
    }
}

#[tokio::test]
async fn causes_are_streamed_per_route() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    for _ in 0..3 {
        tasks::create(client, tasks::task("echo")).await?;
    }
    let mut watch = client.watch_demand_differences(PARENT);
    let waits = next_waits(&mut watch).await?;
    let [wait] = &waits[..] else { anyhow::bail!("tasks of one route: {waits:?}") };
    assert_eq!((wait.parent.as_str(), wait.causes[0].code.as_str()), (PARENT, "no_worker"));
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    worker.take().await?;
    // The slot may have been seen before it was taken.
    while next_waits(&mut watch).await?[0].causes[0].code != "no_free_slot" {}
    Ok(())
}
