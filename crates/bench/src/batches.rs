//! Tasks that are created in batches: one call creates many.

use anyhow::{Result, bail};
use rota_client::Client;
use rota_proto::v1::{BatchCreateTasksRequest, BatchCreateTasksResult, batch_create_tasks_result};
use serde::Serialize;
use tokio::time::Instant;

use crate::dispatch::settled;
use crate::plane::{NAMESPACE, Workers, task};

/// Tasks per round, as for the peers (`bench/peers/run`).
const TASKS: u64 = 10_000;
/// Tasks per call, as for the peers.
const BATCH: u64 = 500;

/// Values of one client that creates one batch after the other.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Batches {
    tasks: u64,
    batch: u64,
    /// Tasks completed per second, until the last one.
    completed_per_second: f64,
    /// Tasks created durably per second, until the last creation.
    created_per_second: f64,
}

impl Batches {
    pub(crate) async fn measure(workers: &Workers) -> Result<Self> {
        let before = workers.attempts.done();
        let start = Instant::now();
        for _ in 0..TASKS / BATCH {
            create(&workers.client, BATCH).await?;
        }
        let creating = start.elapsed().as_secs_f64();
        settled(&workers.client, &workers.attempts, before + TASKS).await?;
        let until_done = start.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let count = TASKS as f64;
        let (completed_per_second, created_per_second) = (count / until_done, count / creating);
        Ok(Self { tasks: TASKS, batch: BATCH, completed_per_second, created_per_second })
    }
}

/// Creates tasks of the bench agent in one call.
pub(crate) async fn create(client: &Client, count: u64) -> Result<()> {
    let request = BatchCreateTasksRequest {
        parent: rota_proto::names::namespace(NAMESPACE),
        requests: (0..count).map(|_| task()).collect(),
        ..Default::default()
    };
    let response = client.tasks().batch_create_tasks(request).await?.into_inner();
    let is_task = |result: &BatchCreateTasksResult| {
        matches!(result.kind, Some(batch_create_tasks_result::Kind::Task(_)))
    };
    if !response.results.iter().all(is_task) {
        bail!("a task was not created");
    }
    Ok(())
}
