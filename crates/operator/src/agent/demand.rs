//! Demand of each agent as last received from the control plane, and the triggers that its changes cause.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use rota_crds::resource::Agent;
use rota_proto::{names, v1};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::context::Context;
use crate::control_store::StoreChange;
use crate::kind::Guarded;

/// Demand by the agent's full name. Empty until the first response.
#[derive(Debug, Default)]
pub(crate) struct DemandCache(Mutex<Option<HashMap<String, DemandSnapshot>>>);

/// Demand of one agent at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DemandSnapshot {
    pub demand: v1::Demand,
    /// Tasks that need, or run on, a worker of their own.
    pub isolated: Vec<v1::IsolatedDemand>,
}

impl DemandCache {
    /// Returns the demand of an agent. `None` means that none was received yet, as opposed to no demand.
    pub(crate) fn get(&self, agent: &str) -> Option<DemandSnapshot> {
        let agents = self.0.lock();
        Some(agents.as_ref()?.get(agent).cloned().unwrap_or_default())
    }

    /// Replaces the content. Returns the agents whose demand changed.
    fn replace(&self, response: v1::WatchDemandResponse) -> Vec<String> {
        let mut new: HashMap<String, DemandSnapshot> = HashMap::new();
        for demand in response.demands {
            new.insert(demand.agent.clone(), DemandSnapshot { demand, isolated: Vec::new() });
        }
        for isolated in response.isolated {
            let Some((namespace, _)) = names::parse(&isolated.task, "tasks") else { continue };
            new.entry(names::agent(namespace, &isolated.agent)).or_default().isolated.push(isolated);
        }
        let mut agents = self.0.lock();
        let old = agents.take().unwrap_or_default();
        let changed = new.iter().filter(|(name, demand)| old.get(*name) != Some(*demand));
        let removed = old.keys().filter(|name| !new.contains_key(*name));
        let changed = changed.map(|(name, _)| name).chain(removed).cloned().collect();
        *agents = Some(new);
        changed
    }
}

/// Watches the demand of all agents until `shutdown`. Triggers all agents when the control plane was started again, or has
/// another store.
pub(crate) async fn watch(
    context: Context,
    cache: Arc<DemandCache>,
    stores: Vec<Store<Guarded<Agent>>>,
    triggers: Vec<mpsc::Sender<ObjectRef<Guarded<Agent>>>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut responses = context.control.watch_demand("namespaces/-");
    loop {
        let response = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            response = responses.next() => response,
        };
        let response = match response {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Error::Ended("demand stream")),
        };
        let store =
            response.store.clone().map_or(StoreChange::None, |version| context.store.observe(version));
        let changed = cache.replace(response);
        if store != StoreChange::None {
            if let StoreChange::Lost(loss) = store {
                tracing::warn!(
                    cause = loss.describe(),
                    "control plane lost records, registering all agents again"
                );
            }
            for (store, trigger) in stores.iter().zip(&triggers) {
                for agent in store.state() {
                    let _ = trigger.send(ObjectRef::from_obj(agent.as_ref())).await;
                }
            }
        }
        for name in changed {
            let Some((namespace, agent)) = names::parse(&name, "agents") else { continue };
            if !context.watches(namespace) {
                continue;
            }
            // An agent created through the API has no resource in any scope; its trigger has no effect.
            for trigger in &triggers {
                let _ = trigger.send(ObjectRef::new(agent).within(namespace)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(queued: i64) -> v1::WatchDemandResponse {
        let demand = v1::Demand { agent: "namespaces/a/agents/x".into(), queued, ..Default::default() };
        v1::WatchDemandResponse { demands: vec![demand], ..Default::default() }
    }

    #[test]
    fn only_changed_agents_are_triggered() {
        let cache = DemandCache::default();
        assert_eq!(cache.get("namespaces/a/agents/x"), None);
        assert_eq!(cache.replace(response(1)), ["namespaces/a/agents/x"]);
        assert_eq!(cache.replace(response(1)), [""; 0]);
        assert_eq!(cache.replace(response(2)).len(), 1);
        assert_eq!(cache.get("namespaces/a/agents/x").unwrap().demand.queued, 2);
        assert_eq!(cache.replace(v1::WatchDemandResponse::default()).len(), 1, "its demand ended");
        assert_eq!(cache.get("namespaces/a/agents/x"), Some(DemandSnapshot::default()));
    }
}
