//! The agents of which a state is kept. Keyed by UID: an agent that is created again has none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use rota_crds::resource::Agent;

use super::state::AgentState;
use crate::kind::Guarded;

#[derive(Default)]
pub(super) struct States(Mutex<HashMap<String, AgentEntry>>);

pub(super) struct AgentEntry {
    pub namespace: String,
    pub name: String,
    state: Arc<tokio::sync::Mutex<AgentState>>,
}

impl States {
    /// Returns the state of an agent, an empty one at first. `None` if the stores lack the agent: its deletion was delivered after it was
    /// read, and nothing would remove its state.
    pub(super) fn of(
        &self,
        agent: &Agent,
        stores: &[Store<Guarded<Agent>>],
    ) -> Option<Arc<tokio::sync::Mutex<AgentState>>> {
        let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
        let reference = ObjectRef::<Guarded<Agent>>::new(&name).within(&namespace);
        // Locked first: a deletion that the stores show after this removes the state.
        let mut states = self.0.lock();
        let mut found = stores.iter().filter_map(|store| store.get(&reference));
        if !found.any(|found| found.uid() == agent.uid()) {
            return None;
        }
        let new = || AgentEntry { namespace, name, state: Arc::default() };
        let entry = states.entry(agent.uid().unwrap_or_default()).or_insert_with(new);
        Some(Arc::clone(&entry.state))
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn remove(&self, agent: &Agent) {
        self.0.lock().remove(&agent.uid().unwrap_or_default());
    }

    /// Removes the agents that the stores lack. Returns them, but for those whose successor has a state already: agents that could not be
    /// deserialized when they were deleted are only removed here.
    pub(super) fn remove_missing(&self, stores: &[Store<Guarded<Agent>>]) -> Vec<AgentEntry> {
        let mut states = self.0.lock();
        let agents = stores.iter().flat_map(Store::state);
        let uids: HashSet<_> = agents.filter_map(|agent| agent.uid()).collect();
        let mut removed: Vec<_> =
            states.extract_if(|uid, _| !uids.contains(uid)).map(|(_, entry)| entry).collect();
        let names: HashSet<_> = states.values().map(|entry| (&entry.namespace, &entry.name)).collect();
        removed.retain(|entry| !names.contains(&(&entry.namespace, &entry.name)));
        removed
    }
}
