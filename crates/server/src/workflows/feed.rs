//! Messages of the feed of workflows: the newest record of each workflow that has changed, read and encoded once for all
//! watchers. Knows no streams.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rota_core::Namespace;
use rota_core::workflow::Workflow;
use rota_proto::{framing, names, v1};
use rota_store::WorkflowQuery;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::ready::RETRY_DELAY;
use crate::store_client::StoreClient;
use crate::watchers::messages::token;
use crate::watchers::{Gap, Watchers, WorkflowChange};
use crate::wire::{status, workflow as wire};

/// Least time between two readings for all watchers. Changes of one workflow within it become one message.
const INTERVAL: Duration = Duration::from_millis(20);
/// Bytes of a message at most: with more, watchers read everything again.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// A message with its prefix, and the namespace of its workflow.
pub(crate) struct Encoded {
    pub(crate) namespace: Option<Namespace>,
    pub(crate) message: Vec<u8>,
}

/// Relays changes of workflows to their watchers, until `stop` is cancelled.
pub(crate) async fn relay(store: StoreClient, watchers: Arc<Watchers>, stop: CancellationToken) {
    let log = watchers.workflows();
    let relay = async {
        let mut relayed = log.end();
        loop {
            log.changed().await;
            match relay_after(&store, &watchers, relayed).await {
                Ok(end) => relayed = end,
                // What was not relayed is read with the next change.
                Err(error) => {
                    tracing::warn!(%error, "failed to read changed workflows, retrying");
                    tokio::time::sleep(RETRY_DELAY).await;
                    log.wake();
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    stop.run_until_cancelled(relay).await;
}

/// Relays the changes after a revision. Returns the revision of the last one.
async fn relay_after(store: &StoreClient, watchers: &Watchers, after: u64) -> Result<u64, Status> {
    let (changes, end) = match watchers.workflows().after(after) {
        Ok(found) => found,
        Err(Gap(end)) => {
            watchers.relay_workflows(after, vec![(None, end, None)], store.now());
            return Ok(end);
        }
    };
    let mut messages = Vec::new();
    for change in changes {
        let namespace = change.name.as_ref().map(|(namespace, _)| namespace);
        if !watchers.watches_workflows(namespace) {
            continue;
        }
        let revision = change.revision;
        let encoded = encode(store, watchers, change).await?;
        messages.push((encoded.namespace, revision, Some(encoded.message)));
    }
    watchers.relay_workflows(after, messages, store.now());
    Ok(end)
}

/// Returns the message of a change.
pub(crate) async fn encode(
    store: &StoreClient,
    watchers: &Watchers,
    change: WorkflowChange,
) -> Result<Encoded, Status> {
    let key = change.workflow;
    let query = async |query| store.reads().workflows(query).await.map_err(status::store);
    let found = query(WorkflowQuery::Key(key)).await?.workflows.into_iter().next();
    let token = token(watchers.lineage(), change.revision, store.now());
    let (namespace, mut message) = match found {
        Some(workflow) if !workflow.deleted => {
            let mut steps = Vec::new();
            if !change.approvals.is_empty() {
                steps = query(WorkflowQuery::StepsAt(key, change.approvals)).await?.steps;
            }
            let message = v1::WatchWorkflowsResponse {
                approvals: steps.iter().map(|step| wire::step(&workflow, step)).collect(),
                workflow: Some(wire::workflow(&workflow, None, None)),
                token: token.clone(),
                ..v1::WatchWorkflowsResponse::default()
            };
            (Some(workflow.namespace), message)
        }
        deleted => {
            let of_record = |workflow: Workflow| (workflow.namespace, workflow.id);
            let name = change.name.or_else(|| deleted.map(of_record));
            let Some((namespace, id)) = name else {
                // Its rows were removed, and the change has no name to report.
                return Ok(Encoded { namespace: None, message: Vec::new() });
            };
            let name = names::workflow(namespace.as_str(), id);
            let message = v1::WatchWorkflowsResponse {
                workflow: Some(v1::Workflow { name, uid: id.to_string(), ..v1::Workflow::default() }),
                deleted: true,
                token: token.clone(),
                ..v1::WatchWorkflowsResponse::default()
            };
            (Some(namespace), message)
        }
    };
    if change.resync || message.encoded_len() > MAX_MESSAGE_BYTES {
        message = v1::WatchWorkflowsResponse { token, resync: true, ..v1::WatchWorkflowsResponse::default() };
    }
    let mut encoded = Vec::new();
    framing::append(&mut encoded, &message);
    Ok(Encoded { namespace, message: encoded })
}
