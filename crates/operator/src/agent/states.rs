//! The agents of which a state is kept. Keyed by UID: an agent that is created again has none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;
use rota_crds::resource::Agent;

use super::state::AgentState;
use crate::kind::Guarded;

#[derive(Default)]
pub(super) struct States(Mutex<HashMap<String, Known>>);

pub(super) struct Known {
    pub namespace: String,
    pub name: String,
    state: Arc<tokio::sync::Mutex<AgentState>>,
}

impl States {
    /// Returns the state of an agent, an empty one at first.
    pub(super) fn of(&self, agent: &Agent) -> Arc<tokio::sync::Mutex<AgentState>> {
        let mut states = self.0.lock();
        let known = states.entry(agent.uid().unwrap_or_default()).or_insert_with(|| Known {
            namespace: agent.namespace().unwrap_or_default(),
            name: agent.name_any(),
            state: Arc::default(),
        });
        Arc::clone(&known.state)
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn remove(&self, agent: &Agent) {
        self.0.lock().remove(&agent.uid().unwrap_or_default());
    }

    /// Removes and returns the agents that the stores lack, but for those that have a successor already.
    pub(super) fn remove_missing(&self, stores: &[Store<Guarded<Agent>>]) -> Vec<Known> {
        let mut states = self.0.lock();
        let agents = stores.iter().flat_map(Store::state);
        let uids: HashSet<_> = agents.filter_map(|agent| agent.uid()).collect();
        let mut removed: Vec<_> =
            states.extract_if(|uid, _| !uids.contains(uid)).map(|(_, known)| known).collect();
        let names: HashSet<_> = states.values().map(|known| (&known.namespace, &known.name)).collect();
        removed.retain(|known| !names.contains(&(&known.namespace, &known.name)));
        removed
    }
}
