//! Feed of many tasks from a token on, at least once: entries may repeat, and none is skipped. Sends RESYNC when the token
//! is too old to resume from.

use std::sync::Arc;
use std::time::Duration;

use rota_core::Namespace;
use rota_core::task::{Body, Event, Task};
use rota_proto::v1;
use tokio::sync::broadcast;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::streams::{Outbox, Streams, page, send};
use crate::clock::now;
use crate::store_client::{LOG_PAGE, StoreClient};
use crate::wire::{names, status, task as wire};

const STREAM_BUFFER: usize = 64;

/// Returns a token: the last revision seen, and the time. Opaque to callers.
fn token(revision: u64) -> String {
    format!("{revision:x}.{:x}", now().0 / 1_000_000)
}

/// Returns the revision of a token, if the feed can resume from it.
fn read_token(retention: Option<Duration>, text: &str, last: u64) -> Option<u64> {
    let (revision, seconds) = text.split_once('.')?;
    let revision = u64::from_str_radix(revision, 16).ok()?;
    let at = i64::from_str_radix(seconds, 16).ok()?.checked_mul(1_000_000)?;
    // Entries older than the retention may have been removed, and an unknown revision is from another store.
    let fresh = retention.is_none_or(|retention| rota_core::Timestamp(at) > now() - retention);
    (fresh && revision <= last).then_some(revision)
}

struct Feed {
    store: StoreClient,
    namespace: Option<Namespace>,
    states_only: bool,
    seen: u64,
    outbox: Outbox<v1::WatchTasksResponse>,
}

pub(super) async fn many(
    store: &StoreClient,
    streams: &Streams,
    retention: Option<Duration>,
    request: v1::WatchTasksRequest,
) -> Result<ReceiverStream<Result<v1::WatchTasksResponse, Status>>, Status> {
    let namespace = names::parent_or_all("parent", &request.parent)?;
    let commits = streams.watchers.commits();
    let last = store.reads().revision().await.map_err(status::store)?;
    let from =
        if request.token.is_empty() { Some(last) } else { read_token(retention, &request.token, last) };
    let (store, seen) = (store.clone(), from.unwrap_or(last));
    Ok(streams.serve("watch-tasks", STREAM_BUFFER, move |outbox| async move {
        // The first answer gives a token, so that a caller can resume from here even if nothing happens.
        let first =
            v1::WatchTasksResponse { token: token(seen), resync: from.is_none(), ..Default::default() };
        send(&outbox, first).await?;
        Feed { store, namespace, states_only: request.states_only, seen, outbox }.run(commits).await
    }))
}

impl Feed {
    async fn run(mut self, mut commits: broadcast::Receiver<Arc<rota_store::Commit>>) -> Result<(), Status> {
        self.catch_up().await?;
        loop {
            let commit = match commits.recv().await {
                Ok(commit) => commit,
                // Too slow: the missed commits are read from the store.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.catch_up().await?;
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            };
            // Revisions ascend within a commit; a change without entries has none.
            for change in &commit.tasks {
                if change.revision > self.seen {
                    self.send(&change.task, &change.events, change.revision).await?;
                    self.seen = change.revision;
                }
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), Status> {
        loop {
            let page = self.store.reads().feed(self.seen, LOG_PAGE).await.map_err(status::store)?;
            for entry in page.entries {
                // One that cannot be decoded has no record: the changes of others follow.
                if let Some(task) = &entry.task {
                    self.send(task, &entry.events, entry.revision).await?;
                }
                self.seen = entry.revision;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Sends the entries of one change, in as many messages as they need. Only the last one has the change's token, so
    /// that a caller who is disconnected between them receives all of them again.
    async fn send(&self, task: &Task, events: &[Event], revision: u64) -> Result<(), Status> {
        if self.namespace.as_ref().is_some_and(|namespace| task.namespace != *namespace) {
            return Ok(());
        }
        let wanted =
            |entry: &&Event| !self.states_only || matches!(entry.body, Body::State(_) | Body::Change { .. });
        let mut events = events.iter().filter(wanted).peekable();
        while events.peek().is_some() {
            let events_of_message = page(&mut events);
            let seen = if events.peek().is_none() { revision } else { self.seen };
            let answer = v1::WatchTasksResponse {
                task: Some(wire::to_wire(task, None, None)),
                events: events_of_message,
                token: token(seen),
                resync: false,
            };
            send(&self.outbox, answer).await?;
        }
        Ok(())
    }
}
