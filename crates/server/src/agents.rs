//! Registry of the agents: their specs, decoded once, and what is known of their pools. Changed only by commits. Knows
//! nothing of workers and slots.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rota_core::agent::Agent;
use rota_core::target::Route;
use rota_core::{AgentName, Namespace, Timestamp};
use rota_proto::v1;
use rota_store::AgentChange;
use tokio::sync::{Mutex, MutexGuard};

use crate::keys::AgentKey;
use crate::pools::Pools;
use crate::wire::agent;

/// Generation and creation time: they also differ when an agent was deleted and created again.
pub(crate) type AgentVersion = (u64, Timestamp);

/// An agent with its decoded spec.
#[derive(Debug, Clone)]
pub(crate) struct KnownAgent {
    pub(crate) agent: Arc<Agent>,
    pub(crate) spec: Arc<v1::AgentSpec>,
}

/// Effect of a change on an agent's circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AgentEffect {
    Created,
    SpecChanged,
    Unchanged,
    Deleted,
}

/// All agents, with their specs and pools.
#[derive(Debug, Default)]
pub(crate) struct AgentRegistry {
    agents: RwLock<BTreeMap<AgentKey, KnownAgent>>,
    pools: Pools,
    changes: Mutex<()>,
}

impl AgentRegistry {
    /// Restores the agents from what the store knows at the start.
    pub(crate) fn restore(&self, agents: Vec<Agent>) {
        let mut known = self.agents.write();
        for agent in agents {
            known.insert(key(&agent), KnownAgent::new(Arc::new(agent)));
        }
    }

    /// Takes in a committed change.
    pub(crate) fn apply(&self, change: &AgentChange) -> AgentEffect {
        let key = key(&change.agent);
        if change.deleted {
            self.agents.write().remove(&key);
            self.pools.remove(&key);
            return AgentEffect::Deleted;
        }
        let known = KnownAgent::new(Arc::clone(&change.agent));
        let spec = Arc::clone(&known.spec);
        match self.agents.write().insert(key, known) {
            None => AgentEffect::Created,
            Some(before) if before.spec != spec => AgentEffect::SpecChanged,
            Some(_) => AgentEffect::Unchanged,
        }
    }

    /// Waits for its turn to change an agent: an update reads before it writes.
    pub(crate) async fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().await
    }

    pub(crate) fn get(&self, key: &AgentKey) -> Option<KnownAgent> {
        self.agents.read().get(key).cloned()
    }

    pub(crate) fn contains(&self, key: &AgentKey) -> bool {
        self.agents.read().contains_key(key)
    }

    pub(crate) fn keys(&self) -> Vec<AgentKey> {
        self.agents.read().keys().cloned().collect()
    }

    /// Returns the agents of a namespace, or all.
    pub(crate) fn list(&self, namespace: Option<&Namespace>) -> Vec<(AgentKey, KnownAgent)> {
        let agents = self.agents.read();
        let listed = agents.iter().filter(|((at, _), _)| namespace.is_none_or(|namespace| at == namespace));
        listed.map(|(key, known)| (key.clone(), known.clone())).collect()
    }

    /// Returns which version each agent of a namespace has, or each of all.
    pub(crate) fn versions(&self, namespace: Option<&Namespace>) -> BTreeMap<AgentKey, AgentVersion> {
        let agents = self.agents.read();
        let listed = agents.iter().filter(|((at, _), _)| namespace.is_none_or(|namespace| at == namespace));
        listed.map(|(key, known)| (key.clone(), (known.agent.generation, known.agent.created_at))).collect()
    }

    /// Returns the agent best suited to tasks that name only capabilities: of those that have all of them one that is
    /// not `paused`, and of these the one with the fewest other capabilities.
    pub(crate) fn best_match(
        &self,
        route: &Route,
        capabilities: &std::collections::BTreeSet<String>,
        paused: impl Fn(&AgentKey) -> bool,
    ) -> Option<AgentName> {
        let agents = self.agents.read();
        let fitting = agents.iter().filter(|((namespace, _), known)| {
            *namespace == route.namespace && capabilities.is_subset(&known.agent.capabilities)
        });
        let best =
            fitting.min_by_key(|(key, known)| (paused(key), known.agent.capabilities.len(), key.1.clone()));
        best.map(|((_, name), _)| name.clone())
    }

    /// Returns what is known of the agents' pools.
    pub(crate) fn pools(&self) -> &Pools {
        &self.pools
    }
}

impl KnownAgent {
    fn new(agent: Arc<Agent>) -> Self {
        let spec = Arc::new(agent::stored(&agent).spec.unwrap_or_default());
        Self { agent, spec }
    }
}

fn key(agent: &Agent) -> AgentKey {
    (agent.namespace.clone(), agent.name.clone())
}
