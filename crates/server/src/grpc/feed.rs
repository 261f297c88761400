//! Feed of many tasks from a token on, at least once: entries may repeat, and none is skipped. Sends RESYNC when the token
//! is too old to resume from.

use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use rota_core::task::{Event, Task};
use rota_core::{Namespace, Timestamp};
use rota_proto::{framing, v1};
use rota_store::Budget;
use tonic::{Request, Response, Status};

use super::encoded::{self, Replaced};
use super::streams::{Chunks, Streams};
use crate::creation::Scope;
use crate::lineage::{Lineage, Origin};
use crate::store_client::{LOG_PAGE, StoreClient};
use crate::watchers::messages::{self, token};
use crate::watchers::{Form, MAX_CHUNK_BYTES, Next, Subscription, Topic, is_managed, is_oversized};
use crate::wire::{names, status};

/// Page of the feed: few entries, since each comes with a record.
const FEED_PAGE: Budget = Budget { entries: 128, bytes: LOG_PAGE.bytes };

/// Returns the revision of a token, if the feed can resume from it. One from `expired` or before is too old.
pub(super) fn read_token(
    lineage: &Lineage,
    expired: Option<Timestamp>,
    text: &str,
    last: u64,
) -> Option<u64> {
    let (revision, rest) = text.split_once('.')?;
    let (seconds, origin) = rest.split_once('.')?;
    let revision = u64::from_str_radix(revision, 16).ok()?;
    let at = i64::from_str_radix(seconds, 16).ok()?.checked_mul(1_000_000)?;
    // Entries older than the retention may have been removed, and an unknown revision is from another store.
    let fresh = expired.is_none_or(|expired| Timestamp(at) > expired);
    let ours = lineage.contains(Origin::parse(origin)?, revision);
    (fresh && ours && revision <= last).then_some(revision)
}

/// State of a watcher of many tasks.
struct Feed {
    store: StoreClient,
    lineage: Lineage,
    subscription: Subscription,
    namespace: Option<Namespace>,
    states_only: bool,
    /// Only tasks that a cluster manages.
    managed_only: bool,
    /// Message to send before all others.
    first: Option<Bytes>,
    /// Revision up to which everything was sent.
    seen: u64,
    /// Revision up to which the store is read, before anything is taken from the buffer.
    behind: Option<u64>,
    /// Change after `seen` that is being sent in several messages.
    rest: Option<Rest>,
}

/// What is left of a change.
struct Rest {
    task: Task,
    revision: u64,
    /// Log position up to which it was sent.
    after: u64,
    last: u64,
}

/// Serves a feed to a caller, compressed if that is accepted.
pub(super) async fn watch(
    store: &StoreClient,
    streams: &Streams,
    retention: Option<Duration>,
    request: Request<v1::WatchTasksRequest>,
) -> Result<Response<Replaced<v1::WatchTasksResponse>>, Status> {
    let managed_only = Scope::of(&request) == Scope::Managed;
    let gzip = request.get_ref().batched && encoded::accepts_gzip(request.metadata());
    let chunks = many(store, streams, retention, request.into_inner(), managed_only, gzip).await?;
    Ok(encoded::of(chunks, gzip))
}

async fn many(
    store: &StoreClient,
    streams: &Streams,
    retention: Option<Duration>,
    request: v1::WatchTasksRequest,
    managed_only: bool,
    gzip: bool,
) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + 'static, Status> {
    let form = match (request.batched, gzip) {
        (false, _) => Form::Single,
        (true, false) => Form::Batched,
        (true, true) => Form::Compressed,
    };
    Ok(streams.chunks(Feed::open(store, streams, retention, request, managed_only, form).await?))
}

impl Feed {
    async fn open(
        store: &StoreClient,
        streams: &Streams,
        retention: Option<Duration>,
        request: v1::WatchTasksRequest,
        managed_only: bool,
        form: Form,
    ) -> Result<Self, Status> {
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let states_only = request.states_only;
        let topic = Topic::Feed { namespace: namespace.clone(), states_only, managed_only, form };
        // Before reading: what is committed after that arrives, and what was committed before is read.
        let subscription = streams.watchers.subscribe(topic);
        let last = store.reads().revision().await.map_err(status::store)?;
        let lineage = streams.watchers.lineage();
        let from = if request.token.is_empty() {
            Some(last)
        } else {
            let expired = retention.map(|retention| store.now() - retention);
            read_token(lineage, expired, &request.token, last)
        };
        let seen = from.unwrap_or(last);
        // The first answer gives a token, so that a caller can resume from here even if nothing happens.
        let first = v1::WatchTasksResponse {
            token: token(lineage, seen, store.now()),
            resync: from.is_none(),
            ..Default::default()
        };
        let mut chunk = Vec::new();
        framing::append(&mut chunk, &first);
        Ok(Self {
            store: store.clone(),
            lineage: lineage.clone(),
            subscription,
            namespace,
            states_only,
            managed_only,
            first: Some(chunk.into()),
            seen,
            behind: (seen < last).then_some(last),
            rest: None,
        })
    }

    /// Reads a page of the store after the last position, up to `end`. May return nothing although more follows.
    async fn read(&mut self, end: u64) -> Result<Bytes, Status> {
        if let Some(rest) = self.rest.take() {
            return self.read_rest(rest).await;
        }
        self.subscription.count_read();
        let page = self.store.reads().feed(self.seen, FEED_PAGE).await.map_err(status::store)?;
        let mut chunk = Vec::new();
        let mut whole = !page.more;
        for entry in page.entries {
            if entry.revision > end {
                whole = true;
                break;
            }
            // The others are read again, instead of waiting in memory for the caller.
            if chunk.len() >= MAX_CHUNK_BYTES {
                return Ok(chunk.into());
            }
            // One that cannot be decoded has no record: the changes of others follow.
            let ours = |task: &Task| {
                let in_scope = !self.managed_only || is_managed(task);
                in_scope && self.namespace.as_ref().is_none_or(|ours| task.namespace == *ours)
            };
            if let Some(task) = entry.task.filter(ours) {
                if let ([first, .., last], true) = (&entry.events[..], is_oversized(&entry.events)) {
                    let (after, last) = (first.log_seq - 1, last.log_seq);
                    self.rest = Some(Rest { task, revision: entry.revision, after, last });
                    return Ok(chunk.into());
                }
                self.append(&mut chunk, &task, &entry.events, entry.revision);
            }
            self.seen = entry.revision;
        }
        if whole {
            self.seen = self.seen.max(end);
            self.behind = None;
        }
        Ok(chunk.into())
    }

    /// Reads a page of a large change. Only its last message has its token, so that a caller who is disconnected before
    /// receives all of them again.
    async fn read_rest(&mut self, mut rest: Rest) -> Result<Bytes, Status> {
        self.subscription.count_read();
        let mut events = self.store.events(&rest.task, rest.after, LOG_PAGE).await?;
        events.retain(|event| event.log_seq <= rest.last);
        // Nothing is left of a log that was removed in the meantime.
        rest.after = events.last().map_or(rest.last, |event| event.log_seq);
        let whole = rest.after == rest.last;
        let mut chunk = Vec::new();
        self.append(&mut chunk, &rest.task, &events, if whole { rest.revision } else { self.seen });
        if whole {
            self.seen = rest.revision;
        } else {
            self.rest = Some(rest);
        }
        Ok(chunk.into())
    }

    fn append(&self, chunk: &mut Vec<u8>, task: &Task, events: &[Event], seen: u64) {
        let wanted = events.iter().filter(|event| !self.states_only || messages::is_state(event));
        let mut change = Vec::new();
        messages::change(&mut change, task, wanted);
        chunk.extend(messages::single(&change, || token(&self.lineage, seen, self.store.now())));
    }
}

impl Chunks for Feed {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            while let Some(end) = self.behind {
                let chunk = self.read(end).await?;
                if !chunk.is_empty() {
                    return Ok(Some(chunk));
                }
            }
            match self.subscription.next(self.seen).await {
                Next::Chunk(chunk, end) => {
                    self.seen = end;
                    return Ok(Some(chunk));
                }
                Next::Missing(end) => self.behind = Some(end),
            }
        }
    }
}

#[cfg(test)]
mod tests;
