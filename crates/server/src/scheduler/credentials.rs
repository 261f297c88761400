//! Model credentials of workers, and what may be given to the workers that use one while it cools down. A change of it costs
//! work for each of these workers; nothing else does. What is admitted follows from the cool-down that the store keeps, which
//! also decides which task is its probe: here is only whether a claim is on its way to be that.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rota_core::quota::CredentialId;
use rota_core::{AgentName, WorkerName};
use rota_store::CredentialKey;

use super::admission::Admission;
use super::state::State;
use super::{Scheduler, WorkerEntry};
use crate::keys::{AgentKey, WorkerKey};

#[derive(Debug, Default)]
struct CredentialEntry {
    admission: Admission,
    /// Whether a claim has taken the probe, and the store has not decided on it.
    taken: bool,
    /// Agents whose tasks have met the cool-down.
    agents: BTreeSet<AgentName>,
    workers: BTreeSet<WorkerName>,
}

impl CredentialEntry {
    fn admission(&self) -> Admission {
        match self.admission {
            Admission::Probe if self.taken => Admission::ProbeInFlight,
            admission => admission,
        }
    }
}

/// The workers of an agent, by the credential that they have named, and its credentials that cool down.
#[derive(Debug, Default)]
struct OfAgent {
    workers: BTreeMap<Option<CredentialId>, BTreeSet<WorkerName>>,
    limited: BTreeSet<CredentialId>,
}

/// Workers by the credential of their agent that they use.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    entries: HashMap<CredentialKey, CredentialEntry>,
    agents: HashMap<AgentKey, OfAgent>,
}

fn key(entry: &WorkerEntry) -> Option<CredentialKey> {
    Some((entry.profile.namespace.clone(), entry.credential?))
}

impl Credentials {
    /// Adds a worker, and sets what it may be given.
    pub(super) fn join(&mut self, worker: &mut WorkerEntry) {
        let name = worker.profile.worker.clone();
        worker.quota = match key(worker) {
            Some(key) => {
                let known = self.entries.entry(key).or_default();
                known.workers.insert(name.clone());
                known.admission()
            }
            None => Admission::Open,
        };
        let of_agent = self.agents.entry(worker.agent()).or_default();
        of_agent.workers.entry(worker.credential).or_default().insert(name);
        worker.unproven = worker.credential.is_none() && !of_agent.limited.is_empty();
    }

    pub(super) fn leave(&mut self, worker: &WorkerEntry) {
        let (name, agent) = (&worker.profile.worker, worker.agent());
        if let Some(of_agent) = self.agents.get_mut(&agent)
            && let Some(same) = of_agent.workers.get_mut(&worker.credential)
        {
            same.remove(name);
            if same.is_empty() {
                of_agent.workers.remove(&worker.credential);
            }
        }
        self.forget_agent(&agent);
        let Some(key) = key(worker) else { return };
        if let Some(known) = self.entries.get_mut(&key) {
            known.workers.remove(name);
        }
        self.forget(&key);
    }

    /// Returns the workers of an agent.
    pub(super) fn workers_of(&self, agent: &AgentKey) -> impl Iterator<Item = &WorkerName> {
        self.agents.get(agent).into_iter().flat_map(|known| known.workers.values().flatten())
    }

    fn forget(&mut self, key: &CredentialKey) {
        let idle = |known: &CredentialEntry| known.workers.is_empty() && known.admission == Admission::Open;
        if self.entries.get(key).is_some_and(idle) {
            self.entries.remove(key);
        }
    }

    fn forget_agent(&mut self, agent: &AgentKey) {
        if self.agents.get(agent).is_some_and(|known| known.workers.is_empty() && known.limited.is_empty()) {
            self.agents.remove(agent);
        }
    }

    fn admission(&self, key: &CredentialKey) -> Admission {
        self.entries.get(key).map(CredentialEntry::admission).unwrap_or_default()
    }

    /// Returns what the credentials of an agent's workers admit: of those that they have named, or while none has named
    /// one, of all that cool down.
    fn of_agent(&self, agent: &AgentKey) -> Admission {
        let Some(known) = self.agents.get(agent).filter(|known| !known.limited.is_empty()) else {
            return Admission::Open;
        };
        let admission = |id: &CredentialId| self.admission(&(agent.0.clone(), *id));
        let named: Vec<_> = known.workers.keys().filter_map(|id| id.as_ref().map(admission)).collect();
        let all = || known.limited.iter().map(admission).collect();
        let admissions = if named.is_empty() { all() } else { named };
        [Admission::Open, Admission::Probe, Admission::ProbeInFlight]
            .into_iter()
            .find(|one| admissions.contains(one))
            .unwrap_or(Admission::Closed)
    }
}

impl State {
    /// Sets what a cool-down admits, and for which agents it counts.
    fn set_cool_down(&mut self, key: &CredentialKey, admission: Admission, agents: &BTreeSet<AgentName>) {
        let known = self.credentials.entries.entry(key.clone()).or_default();
        let (before, agents_before) = (known.admission(), known.agents.clone());
        (known.admission, known.taken) = (admission, false);
        known.agents.clone_from(agents);
        if before == admission && agents_before == *agents {
            return self.credentials.forget(key);
        }
        if before != admission {
            self.refresh_credential(key);
        }
        for agent in agents_before.symmetric_difference(agents) {
            let limited = agents.contains(agent);
            self.set_limited(&(key.0.clone(), agent.clone()), key.1, limited);
        }
        self.credentials.forget(key);
        self.mark_changed();
    }

    /// Sets what the workers that use a credential may be given.
    fn refresh_credential(&mut self, key: &CredentialKey) {
        let Some(known) = self.credentials.entries.get(key) else { return };
        let (admission, workers) = (known.admission(), known.workers.clone());
        for worker in workers {
            self.with_entry(&(key.0.clone(), worker), |entry| entry.quota = admission);
        }
        // Waiting tasks may count for another pool.
        self.mark_changed();
    }

    fn set_limited(&mut self, agent: &AgentKey, credential: CredentialId, limited: bool) {
        let known = self.credentials.agents.entry(agent.clone()).or_default();
        let before = !known.limited.is_empty();
        if limited {
            known.limited.insert(credential);
        } else {
            known.limited.remove(&credential);
        }
        let after = !known.limited.is_empty();
        let unnamed = known.workers.get(&None).filter(|_| before != after).cloned();
        for worker in unnamed.into_iter().flatten() {
            self.with_entry(&(agent.0.clone(), worker), |entry| entry.unproven = after);
        }
        self.credentials.forget_agent(agent);
    }

    /// Takes the probe of a worker's credential, if it is due. Returns the credential that the probe is for.
    pub(super) fn take_quota_probe(&mut self, worker: &WorkerKey) -> Option<CredentialKey> {
        let key = key(self.workers.get(worker)?)?;
        let known = self.credentials.entries.get_mut(&key)?;
        if known.admission() != Admission::Probe {
            return None;
        }
        known.taken = true;
        self.refresh_credential(&key);
        Some(key)
    }

    /// Returns a probe after the commit of a claim that has assigned a task, which may be another one than the probe: the
    /// cool-down in the store decides. Where none was assigned, the next tick returns it.
    pub(super) fn return_quota_probe(&mut self, key: &CredentialKey) {
        if let Some(known) = self.credentials.entries.get_mut(key) {
            known.taken = false;
            self.refresh_credential(key);
        }
    }

    fn rename_credential(&mut self, key: &WorkerKey, credential: Option<CredentialId>) {
        let Some(entry) = self.workers.get_mut(key).filter(|entry| entry.credential != credential) else {
            return;
        };
        self.credentials.leave(entry);
        let before = (entry.quota, entry.unproven);
        entry.credential = credential;
        self.credentials.join(entry);
        let after = (entry.quota, entry.unproven);
        // Set once more, so that the lists of free workers change with the entry.
        (entry.quota, entry.unproven) = before;
        self.with_entry(key, |entry| (entry.quota, entry.unproven) = after);
        self.mark_changed();
    }
}

impl Scheduler {
    /// Sets what the workers that use a credential may be given from now on, and the agents that its cool-down is of.
    pub(crate) fn set_cool_down(
        &self,
        key: &CredentialKey,
        admission: Admission,
        agents: &BTreeSet<AgentName>,
    ) {
        self.state().set_cool_down(key, admission, agents);
    }

    /// Sets the credential of its agent that a worker uses.
    pub(crate) fn set_credential(&self, key: &WorkerKey, credential: CredentialId) {
        self.state().rename_credential(key, Some(credential));
    }

    /// Forgets which credentials an agent's workers use: another one may take its place.
    pub(crate) fn forget_credentials(&self, agent: &AgentKey) {
        let mut state = self.state();
        let known = state.credentials.agents.get(agent);
        let workers: Vec<_> =
            known.into_iter().flat_map(|known| known.workers.values().flatten().cloned()).collect();
        for worker in workers {
            state.rename_credential(&(agent.0.clone(), worker), None);
        }
    }

    /// Returns the credentials of an agent that cool down.
    pub(crate) fn limited(&self, agent: &AgentKey) -> Vec<CredentialId> {
        let state = self.state();
        let known = state.credentials.agents.get(agent);
        known.into_iter().flat_map(|known| known.limited.iter().copied()).collect()
    }

    /// Returns the credentials of an agent that cool down, and that none of its workers uses.
    pub(crate) fn unused_credentials(&self, agent: &AgentKey) -> Vec<CredentialId> {
        let state = self.state();
        let Some(known) = state.credentials.agents.get(agent) else { return Vec::new() };
        known.limited.iter().copied().filter(|id| !known.workers.contains_key(&Some(*id))).collect()
    }

    /// Returns what the credentials of an agent's workers admit.
    pub(crate) fn quota(&self, agent: &AgentKey) -> Admission {
        self.state().credentials.of_agent(agent)
    }

    /// Returns the agents all of whose workers wait for their credentials.
    pub(crate) fn held_agents(&self) -> Vec<AgentKey> {
        let state = self.state();
        let limited = state.credentials.agents.iter().filter(|(_, known)| !known.limited.is_empty());
        let held = limited.filter(|(agent, _)| state.credentials.of_agent(agent) != Admission::Open);
        held.map(|(agent, _)| agent.clone()).collect()
    }
}
