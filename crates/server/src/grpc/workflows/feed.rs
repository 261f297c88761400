//! Feed of workflows from a token on, at least once: entries may repeat, and none is skipped. Sends RESYNC when the log of
//! changes does not reach back to the token.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::Stream;
use rota_core::{Namespace, Timestamp};
use rota_proto::{framing, v1};
use tonic::Status;

use super::Workflows;
use crate::grpc::feed::read_token;
use crate::grpc::streams::{Chunks, Streams};
use crate::store_client::StoreClient;
use crate::watchers::messages::token;
use crate::watchers::{Gap, MAX_CHUNK_BYTES, Next, Subscription, Topic, WorkflowChange};
use crate::wire::names;
use crate::workflows::feed;

/// State of a watcher of workflows.
struct Feed {
    store: StoreClient,
    streams: Streams,
    subscription: Subscription,
    namespace: Option<Namespace>,
    /// Message to send before all others.
    first: Option<Bytes>,
    /// Revision up to which everything was sent.
    seen: u64,
    /// Whether the log is read before anything is taken from the buffer.
    behind: bool,
    /// Changes that were found in the log, and the revision up to which these are all.
    found: Option<(VecDeque<WorkflowChange>, u64)>,
}

impl Workflows {
    pub(super) fn feed(
        &self,
        request: v1::WatchWorkflowsRequest,
    ) -> Result<impl Stream<Item = Result<Bytes, Status>> + Send + 'static, Status> {
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let watchers = &self.streams.watchers;
        // Before the position is read: what is committed after that arrives.
        let subscription = watchers.subscribe(Topic::Workflows(namespace.clone()));
        let (lineage, log) = (watchers.lineage(), watchers.workflows());
        let end = log.end();
        let from = match request.token.as_str() {
            "" => Some(end),
            text => read_token(lineage, None, text, end).filter(|from| log.after(*from).is_ok()),
        };
        let seen = from.unwrap_or(end);
        let feed = Feed {
            store: self.store.clone(),
            streams: self.streams.clone(),
            subscription,
            namespace,
            first: Some(marker(&self.streams, seen, self.store.now(), from.is_none())),
            seen,
            behind: seen < end,
            found: None,
        };
        Ok(self.streams.chunks(feed))
    }
}

/// Returns a message that only has a token.
fn marker(streams: &Streams, seen: u64, now: Timestamp, resync: bool) -> Bytes {
    let token = token(streams.watchers.lineage(), seen, now);
    let mut chunk = Vec::new();
    let message = v1::WatchWorkflowsResponse { token, resync, ..v1::WatchWorkflowsResponse::default() };
    framing::append(&mut chunk, &message);
    chunk.into()
}

impl Feed {
    /// Returns the next changes of the log. May return nothing although more follows.
    async fn read(&mut self) -> Result<Bytes, Status> {
        self.subscription.count_read();
        let (changes, end) = match &mut self.found {
            Some(found) => found,
            None => match self.streams.watchers.workflows().after(self.seen) {
                Ok((changes, end)) => self.found.insert((changes.into(), end)),
                Err(Gap(end)) => {
                    (self.seen, self.behind) = (end, false);
                    return Ok(marker(&self.streams, end, self.store.now(), true));
                }
            },
        };
        let mut chunk = Vec::new();
        while chunk.len() < MAX_CHUNK_BYTES {
            let Some(change) = changes.pop_front() else {
                (self.seen, self.behind, self.found) = (self.seen.max(*end), false, None);
                break;
            };
            let is_other = |own: &Namespace| self.namespace.as_ref().is_some_and(|wanted| wanted != own);
            if change.name.as_ref().is_some_and(|(namespace, _)| is_other(namespace)) {
                continue;
            }
            let encoded = feed::encode(&self.store, &self.streams.watchers, change).await?;
            if !encoded.namespace.as_ref().is_some_and(is_other) {
                chunk.extend(encoded.message);
            }
        }
        Ok(chunk.into())
    }
}

impl Chunks for Feed {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            while self.behind {
                let chunk = self.read().await?;
                if !chunk.is_empty() {
                    return Ok(Some(chunk));
                }
            }
            match self.subscription.next(self.seen).await {
                Next::Chunk(chunk, end) => {
                    self.seen = end;
                    return Ok(Some(chunk));
                }
                Next::Missing(_) => self.behind = true,
            }
        }
    }
}
