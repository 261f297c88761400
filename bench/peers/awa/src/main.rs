//! awa: one row per task, COPY per batch; clients and workers in one process.
//!
//! Prints the samples that `common/measure.py` reads. Knows no other peer.

use std::env::var;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig, QueueStorage, QueueStorageConfig,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::mpsc;
use tokio::time::sleep;

const QUEUE: &str = "bench";
/// Without a number of shards, concurrent producers wait for each other's row locks; with it, order is per shard.
const ENQUEUE_SHARDS: i16 = 8;
const WORKERS: u32 = 256;

/// Input of the handler. Timed tasks report when their handler begins.
#[derive(Debug, Serialize, Deserialize, JobArgs)]
struct Handle {
    timed: bool,
}

#[derive(Serialize)]
struct Samples {
    idle_ns: Vec<u128>,
    creation_ns: Vec<u128>,
    load: Rate,
    bulk: Rate,
}

#[derive(Serialize)]
struct Rate {
    tasks: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<i64>,
    creating_s: f64,
    settled_s: f64,
}

#[derive(Clone)]
struct Queue {
    pool: PgPool,
    store: Arc<QueueStorage>,
    handled: Arc<AtomicI64>,
}

impl Queue {
    async fn create(&self, timed: bool) -> Result<()> {
        self.store.enqueue_params_batch(&self.pool, &[params(timed)?]).await?;
        Ok(())
    }

    async fn create_many(&self, count: i64) -> Result<()> {
        let jobs = (0..count).map(|_| params(false)).collect::<Result<Vec<_>>>()?;
        self.store.enqueue_params_copy(&self.pool, &jobs).await?;
        Ok(())
    }

    /// Waits until the completion of this many tasks is durable.
    async fn settled(&self, tasks: i64) -> Result<()> {
        while self.handled.load(Ordering::Relaxed) < tasks
            || self.store.queue_counts(&self.pool, QUEUE).await?.terminal < tasks
        {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn params(timed: bool) -> Result<InsertParams> {
    Ok(awa::insert::params_with(
        &Handle { timed },
        InsertOpts { queue: QUEUE.to_owned(), ..Default::default() },
    )?)
}

fn number(name: &str) -> Result<i64> {
    var(name)?.parse().context(name.to_owned())
}

fn seconds(name: &str) -> Result<Duration> {
    Ok(Duration::from_secs(u64::try_from(number(name)?)?))
}

#[tokio::main]
async fn main() -> Result<()> {
    let connections = u32::try_from(number("BENCH_CONNECTIONS")?)?;
    let pool = PgPoolOptions::new().max_connections(connections).connect(&var("DATABASE_URL")?).await?;
    awa::migrations::run(&pool).await?;
    sqlx::query("insert into awa.queue_meta (queue, enqueue_shards) values ($1, $2)")
        .bind(QUEUE)
        .bind(ENQUEUE_SHARDS)
        .execute(&pool)
        .await?;
    let store = Arc::new(QueueStorage::new(QueueStorageConfig::default())?);
    let handled = Arc::new(AtomicI64::new(0));
    let (began, mut begins) = mpsc::unbounded_channel();
    let count = Arc::clone(&handled);
    // Without a deadline per attempt, which is the path that awa documents as its fastest.
    let config =
        QueueConfig { max_workers: WORKERS, deadline_duration: Duration::ZERO, ..Default::default() };
    let client = Client::builder(pool.clone())
        .queue(QUEUE, config)
        .register::<Handle, _, _>(move |task, _context| {
            let at = Instant::now();
            let (began, count) = (began.clone(), Arc::clone(&count));
            async move {
                if task.timed {
                    let _ = began.send(at);
                }
                count.fetch_add(1, Ordering::Relaxed);
                Ok(JobResult::Completed)
            }
        })
        .build()?;
    client.start().await?;
    let queue = Queue { pool, store, handled };

    let mut idle_ns = Vec::new();
    let deadline = Instant::now() + seconds("BENCH_IDLE_SECONDS")?;
    let mut total = 0;
    while total < number("BENCH_IDLE_TASKS")? && Instant::now() < deadline {
        let start = Instant::now();
        queue.create(true).await?;
        let at = begins.recv().await.context("the handlers have ended")?;
        idle_ns.push(at.duration_since(start).as_nanos());
        total += 1;
    }
    queue.settled(total).await?;

    let start = Instant::now();
    let creation_ns = under_load(&queue, start).await?;
    let creating_s = start.elapsed().as_secs_f64();
    let tasks = i64::try_from(creation_ns.len())?;
    total += tasks;
    queue.settled(total).await?;
    let load = Rate { tasks, batch: None, creating_s, settled_s: start.elapsed().as_secs_f64() };

    let (tasks, batch) = (number("BENCH_BULK_TASKS")?, number("BENCH_BULK_SIZE")?);
    let start = Instant::now();
    for _ in 0..tasks / batch {
        queue.create_many(batch).await?;
    }
    let creating_s = start.elapsed().as_secs_f64();
    queue.settled(total + tasks).await?;
    let bulk = Rate { tasks, batch: Some(batch), creating_s, settled_s: start.elapsed().as_secs_f64() };
    println!("{}", serde_json::to_string(&Samples { idle_ns, creation_ns, load, bulk })?);
    client.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Times of concurrent creations in nanoseconds.
async fn under_load(queue: &Queue, start: Instant) -> Result<Vec<u128>> {
    let end = start + seconds("BENCH_SECONDS")?;
    let mut clients = Vec::new();
    for _ in 0..number("BENCH_CLIENTS")? {
        let queue = queue.clone();
        clients.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let at = Instant::now();
                queue.create(false).await?;
                times.push(at.elapsed().as_nanos());
            }
            anyhow::Ok(times)
        }));
    }
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    Ok(times)
}
