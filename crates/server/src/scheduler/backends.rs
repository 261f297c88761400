//! Back ends of models, and what may be given to the agents that use one while its circuit breaker is not closed: one probe
//! for all of them. Which back end an agent uses is what its last attempt named.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rota_core::WorkerName;

use super::Scheduler;
use super::admission::Admission;
use super::state::State;
use crate::keys::{AgentKey, BackendKey, WorkerKey};

#[derive(Debug, Default)]
struct BackendEntry {
    admission: Admission,
    agents: BTreeSet<AgentKey>,
}

/// Agents by the back end that they use.
#[derive(Debug, Default)]
pub(super) struct Backends {
    entries: HashMap<BackendKey, BackendEntry>,
    of: HashMap<AgentKey, Arc<str>>,
}

impl Backends {
    fn key(&self, agent: &AgentKey) -> Option<BackendKey> {
        Some((agent.0.clone(), Arc::clone(self.of.get(agent)?)))
    }

    /// Returns what the back end of an agent admits.
    pub(super) fn admission(&self, agent: &AgentKey) -> Admission {
        let known = self.key(agent).and_then(|key| self.entries.get(&key));
        known.map(|known| known.admission).unwrap_or_default()
    }

    /// Takes an agent away from its back end. Returns that if no other agent uses it.
    fn leave(&mut self, agent: &AgentKey) -> Option<BackendKey> {
        let key = self.key(agent)?;
        self.of.remove(agent);
        let known = self.entries.get_mut(&key)?;
        known.agents.remove(agent);
        known.agents.is_empty().then(|| self.entries.remove(&key)).map(|_| key)
    }

    fn join(&mut self, agent: &AgentKey, backend: &str) {
        let name: Arc<str> = backend.into();
        let known = self.entries.entry((agent.0.clone(), Arc::clone(&name))).or_default();
        known.agents.insert(agent.clone());
        self.of.insert(agent.clone(), name);
    }
}

impl State {
    fn set_backend(&mut self, agent: &AgentKey, backend: Option<&str>) -> Option<BackendKey> {
        let backends = &mut self.matching.backends;
        if backends.of.get(agent).map(|known| &**known) == backend {
            return None;
        }
        let left = backends.leave(agent);
        if let Some(backend) = backend {
            backends.join(agent, backend);
        }
        self.matching.refresh_agent(agent);
        self.mark_changed();
        left
    }

    fn set_backend_admission(&mut self, key: &BackendKey, admission: Admission) {
        let Some(known) = self.matching.backends.entries.get_mut(key) else { return };
        known.admission = admission;
        for agent in known.agents.clone() {
            self.matching.refresh_agent(&agent);
        }
        self.mark_changed();
    }

    /// Takes the probe of the back end that a worker's agent uses, if it is due. Returns what the probe is of.
    pub(super) fn take_backend_probe(&mut self, worker: &WorkerKey) -> Option<BackendKey> {
        let agent = self.workers.get(worker)?.agent();
        if self.matching.backends.admission(&agent) != Admission::Probe {
            return None;
        }
        let key = self.matching.backends.key(&agent)?;
        self.set_backend_admission(&key, Admission::ProbeInFlight);
        Some(key)
    }

    /// Gives back a probe that no task came of, so that the next task may be it.
    pub(super) fn return_backend_probe(&mut self, key: &BackendKey) {
        let taken = self.matching.backends.entries.get(key).map(|known| known.admission);
        if taken == Some(Admission::ProbeInFlight) {
            self.set_backend_admission(key, Admission::Probe);
        }
    }
}

impl Scheduler {
    /// Sets the back end that an agent uses. Returns the one before if no other agent uses it.
    pub(crate) fn set_backend(&self, agent: &AgentKey, backend: Option<&str>) -> Option<BackendKey> {
        self.state().set_backend(agent, backend)
    }

    /// Returns the back end that an agent uses, as far as it is known.
    pub(crate) fn backend(&self, agent: &AgentKey) -> Option<BackendKey> {
        self.state().matching.backends.key(agent)
    }

    /// Whether tasks that use a back end run on other workers than this one, too.
    pub(crate) fn serves_elsewhere(&self, key: &BackendKey, worker: &WorkerName) -> bool {
        let state = self.state();
        let serves = |name: &WorkerName| {
            let entry = state.workers.get(&(key.0.clone(), name.clone()));
            name != worker && entry.is_some_and(|entry| entry.is_able())
        };
        let known = state.matching.backends.entries.get(key);
        let mut agents = known.into_iter().flat_map(|known| &known.agents);
        agents.any(|agent| state.credentials.workers_of(agent).any(serves))
    }

    /// Sets what the agents that use a back end may be given from now on: all of them together.
    pub(crate) fn set_backend_admission(&self, key: &BackendKey, admission: Admission) {
        self.state().set_backend_admission(key, admission);
    }
}
