//! Following many tasks from a token on: may repeat entries, never skips; says RESYNC when it cannot go on.

use std::sync::Arc;

use rota_core::Namespace;
use rota_core::task::{Body, Event, Task};
use rota_proto::v1;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::shared::{Shared, now};
use crate::wire::status::error;
use crate::wire::{event, names, status, task as wire};

const PAGE: usize = 500;
const OUTBOX: usize = 64;

type Outbox = mpsc::Sender<Result<v1::WatchTasksResponse, Status>>;

/// A token: the last revision seen, and when. Opaque to callers.
fn token(revision: u64) -> String {
    format!("{revision:x}.{:x}", now().0 / 1_000_000)
}

/// The revision of a token that can still be gone on from.
fn read_token(shared: &Shared, text: &str, last: u64) -> Option<u64> {
    let (revision, seconds) = text.split_once('.')?;
    let revision = u64::from_str_radix(revision, 16).ok()?;
    let at = i64::from_str_radix(seconds, 16).ok()?.checked_mul(1_000_000)?;
    // Entries older than the retention may be gone, and a revision that was never given is from another store.
    let fresh = shared.timing.retention.is_none_or(|retention| rota_core::Timestamp(at) > now() - retention);
    (fresh && revision <= last).then_some(revision)
}

struct Feed {
    shared: Arc<Shared>,
    namespace: Option<Namespace>,
    states_only: bool,
    seen: u64,
    outbox: Outbox,
}

pub(super) async fn many(
    shared: &Arc<Shared>,
    request: v1::WatchTasksRequest,
) -> Result<ReceiverStream<Result<v1::WatchTasksResponse, Status>>, Status> {
    let namespace = names::parent_or_all("parent", &request.parent)?;
    let commits = shared.watchers.commits();
    let last = shared.store.revision().await.map_err(status::store)?;
    let from = if request.token.is_empty() { Some(last) } else { read_token(shared, &request.token, last) };
    let (outbox, stream) = mpsc::channel(OUTBOX);
    let feed = Feed {
        shared: Arc::clone(shared),
        namespace,
        states_only: request.states_only,
        seen: from.unwrap_or(last),
        outbox,
    };
    // The first answer gives a token, so that a caller can go on from here even if nothing happens.
    let first =
        v1::WatchTasksResponse { token: token(feed.seen), resync: from.is_none(), ..Default::default() };
    let _ = feed.outbox.send(Ok(first)).await;
    spawn("watch-tasks", OnExit::Done, async move {
        let (stop, outbox) = (feed.shared.stop.clone(), feed.outbox.clone());
        let ended = tokio::select! {
            () = stop.cancelled() => Err(error("STOPPING", "the control plane is stopping; watch again")),
            () = outbox.closed() => Ok(()),
            ended = feed.run(commits) => ended,
        };
        if let Err(status) = ended {
            let _ = outbox.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

impl Feed {
    async fn run(mut self, mut commits: broadcast::Receiver<Arc<rota_store::Commit>>) -> Result<(), Status> {
        self.catch_up().await?;
        loop {
            let commit = match commits.recv().await {
                Ok(commit) => commit,
                // Too slow: the store still has it all.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.catch_up().await?;
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            };
            for change in commit.tasks.iter().filter(|change| change.revision > self.seen) {
                self.send(&change.task, &change.events, change.revision).await?;
            }
            let last = commit.tasks.iter().map(|change| change.revision).max().unwrap_or(0);
            self.seen = self.seen.max(last);
        }
    }

    async fn catch_up(&mut self) -> Result<(), Status> {
        loop {
            let entries = self.shared.store.feed(self.seen, PAGE).await.map_err(status::store)?;
            let full = entries.len() >= PAGE;
            for entry in entries {
                if let Some(task) = self.shared.store.task(entry.id).await.map_err(status::store)? {
                    self.send(&task, &entry.events, entry.revision).await?;
                }
                self.seen = entry.revision;
            }
            if !full {
                return Ok(());
            }
        }
    }

    async fn send(&self, task: &Task, events: &[Event], revision: u64) -> Result<(), Status> {
        if self.namespace.as_ref().is_some_and(|namespace| task.namespace != *namespace) {
            return Ok(());
        }
        let wanted =
            |entry: &&Event| !self.states_only || matches!(entry.body, Body::State(_) | Body::Change { .. });
        let events: Vec<_> = events.iter().filter(wanted).map(event::to_wire).collect();
        if events.is_empty() {
            return Ok(());
        }
        let answer = v1::WatchTasksResponse {
            task: Some(wire::to_wire(task, None, None)),
            events,
            token: token(revision),
            resync: false,
        };
        self.outbox.send(Ok(answer)).await.map_err(|_| Status::cancelled("the caller has gone"))
    }
}
