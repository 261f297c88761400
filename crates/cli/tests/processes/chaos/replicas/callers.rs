//! Callers during a whole run: a watcher of all tasks, which misses and repeats no entry, and a client that creates tasks, none of
//! whose calls fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, StreamExt};
use rota_client::Client;
use rota_proto::v1;
use rota_telemetry::{OnExit, spawn};
use rota_testkit::tasks;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::chaos::load::SCRIPTED;

/// Pause between two creations: every fault meets some.
const PAUSE: Duration = Duration::from_secs(1);

/// Position of the last entry of each task that the watcher has received.
type Positions = HashMap<String, i64>;

pub(super) struct Callers {
    seen: Arc<Mutex<Positions>>,
    watching: JoinHandle<Result<()>>,
    creating: JoinHandle<Result<Vec<String>>>,
    stop: CancellationToken,
}

impl Callers {
    /// Starts them, before the first task is created.
    pub(super) async fn start(client: &Client) -> Result<Self> {
        let (seen, stop) = (Arc::new(Mutex::new(Positions::new())), CancellationToken::new());
        let mut watch = client.watch_tasks(rota_proto::names::namespace(tasks::NAMESPACE), "", false);
        watch.next().await.context("nothing came")??;
        let watching = spawn("watcher", OnExit::Done, follow(watch, Arc::clone(&seen)));
        let creating = spawn("creations", OnExit::Done, create(client.clone(), stop.clone()));
        Ok(Self { seen, watching, creating, stop })
    }

    /// Ends them, once the tasks have ended and the watcher has received their last entries.
    pub(super) async fn end(self, client: &Client) -> Result<()> {
        let Self { seen, mut watching, creating, stop } = self;
        stop.cancel();
        let created = creating.await??;
        for name in &created {
            tasks::ended(client, name).await?;
        }
        let parent = rota_proto::names::namespace(tasks::NAMESPACE);
        let all = client.all_tasks(v1::ListTasksRequest { parent, ..Default::default() }, None).await?;
        let last = |task: v1::Task| (task.name, task.status.unwrap_or_default().log_seq);
        let last: Vec<_> = all.into_iter().map(last).collect();
        let complete = tasks::eventually("the last entries", async || {
            let seen = seen.lock().unwrap();
            Ok(last.iter().all(|(name, log_seq)| seen.get(name).is_some_and(|position| position >= log_seq)))
        });
        tokio::select! {
            watched = &mut watching => watched??,
            complete = complete => complete?,
        }
        watching.abort();
        eprintln!("{} calls made, {} tasks watched", created.len(), last.len());
        Ok(())
    }
}

/// Takes in responses until the watch fails.
async fn follow(
    mut watch: impl Stream<Item = Result<v1::WatchTasksResponse, rota_client::Error>> + Unpin,
    seen: Arc<Mutex<Positions>>,
) -> Result<()> {
    while let Some(response) = watch.next().await {
        take(&mut seen.lock().unwrap(), response.context("the watch failed")?)?;
    }
    bail!("the watch ended")
}

/// Takes in a response. Each task is watched from its creation on.
fn take(seen: &mut Positions, response: v1::WatchTasksResponse) -> Result<()> {
    ensure!(!response.resync, "the watcher has lost its position");
    let Some(task) = response.task else { return Ok(()) };
    let position = seen.entry(task.name).or_default();
    for event in response.events {
        ensure!(event.log_seq == *position + 1, "{}: {} follows {position}", task.uid, event.log_seq);
        *position = event.log_seq;
    }
    Ok(())
}

/// Creates tasks until it is stopped, with calls that the client repeats.
async fn create(client: Client, stop: CancellationToken) -> Result<Vec<String>> {
    let mut names = Vec::new();
    while !stop.is_cancelled() {
        let task = tasks::create(&client, tasks::scripted(SCRIPTED, [])).await;
        names.push(task.context("a creation failed")?.name);
        stop.run_until_cancelled(sleep(PAUSE)).await;
    }
    Ok(names)
}
