//! Watch of agents: all of them, then each change of an agent itself. Their workers and queues come with demand.

use rota_core::Namespace;
use rota_proto::v1::watch_agents_response::Kind;
use rota_proto::{names, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Agents;
use super::streams::send;
use crate::agents::KnownAgent;
use crate::demand::Snapshot;
use crate::keys::AgentKey;

/// Messages that may wait for the caller.
const STREAM_BUFFER: usize = 4;
/// Changes that are read at a time.
const PAGE: usize = 256;

/// Sends the agents now, then what has changed, at most ten times a second. Costs work for each change, not for each agent.
pub(super) fn watch(
    agents: Agents,
    namespace: Option<Namespace>,
) -> ReceiverStream<Result<v1::WatchAgentsResponse, Status>> {
    let (streams, mut changed) = (agents.streams.clone(), agents.agents.changed().subscribe());
    streams.serve("watch-agents", STREAM_BUFFER, move |outbox| async move {
        let response = |kind| v1::WatchAgentsResponse { kind: Some(kind) };
        let (all, mut seen) = agents.agents.list(namespace.as_ref());
        let snapshot = agents.demand.snapshot().await;
        for (key, known) in all {
            send(&outbox, response(agents.change(&key, Some(known), &snapshot))).await?;
        }
        drop(snapshot);
        send(&outbox, response(Kind::Synced(true))).await?;
        loop {
            changed.borrow_and_update();
            while let Some((page, last)) = Some(agents.agents.changes_after(seen, PAGE).ok_or_else(lagged)?)
                .filter(|(page, _)| !page.is_empty())
            {
                seen = last;
                let ours = |key: &AgentKey| namespace.as_ref().is_none_or(|namespace| key.0 == *namespace);
                let page: Vec<_> = page.into_iter().filter(|(key, _)| ours(key)).collect();
                if page.is_empty() {
                    continue;
                }
                let snapshot = agents.demand.snapshot().await;
                for (key, known) in page {
                    send(&outbox, response(agents.change(&key, known, &snapshot))).await?;
                }
            }
            let _ = changed.changed().await;
        }
    })
}

impl Agents {
    fn change(&self, key: &AgentKey, known: Option<KnownAgent>, snapshot: &Snapshot) -> Kind {
        match known {
            Some(known) => Kind::Agent(self.to_wire(key, &known.agent, snapshot.pools.get(key))),
            None => Kind::Deleted(names::agent(key.0.as_str(), &key.1)),
        }
    }
}

fn lagged() -> Status {
    Status::unavailable("too many agents were deleted since the last message; connect again")
}
