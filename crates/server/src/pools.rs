//! Reports about agents' pools by the components that start their workers: which workers may join, and what is wrong. In
//! memory only, since each report is repeated on every connection. Knows nothing of pods or processes.

use std::collections::{BTreeMap, HashMap};

use parking_lot::RwLock;
use rota_core::{AgentName, Namespace, TaskId, WorkerName};

use crate::keys::WorkerKey;

type Key = (Namespace, AgentName);

/// What a worker may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Announced {
    /// Its process; empty for any.
    pub(crate) instance: String,
    /// Maximum number of slots, if it is limited.
    pub(crate) slots: Option<i32>,
    /// Task that it is limited to, or empty for none; `None` if any was announced.
    pub(crate) isolated_task: Option<String>,
}

/// Whether a pod may be a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Announced,
    /// No worker of the agent was announced since this process started.
    Unknown,
    /// It is not among the workers that were announced last.
    Revoked,
}

#[derive(Debug, Default)]
struct Pool {
    /// `None` before the first announcement.
    announced: Option<HashMap<WorkerName, Announced>>,
    message: String,
    /// What is wrong with the workers of single tasks.
    isolated: HashMap<TaskId, String>,
}

/// Reports about each agent's pool.
#[derive(Debug, Default)]
pub(crate) struct Pools(RwLock<HashMap<Key, Pool>>);

impl Pools {
    /// Sets which workers may join, instead of those announced before.
    pub(crate) fn announce(&self, agent: Key, workers: HashMap<WorkerName, Announced>) {
        self.0.write().entry(agent).or_default().announced = Some(workers);
    }

    /// Returns whether a process may be a worker.
    pub(crate) fn standing(&self, agent: &Key, worker: &WorkerName, instance: &str) -> Standing {
        let pools = self.0.read();
        let Some(announced) = pools.get(agent).and_then(|pool| pool.announced.as_ref()) else {
            return Standing::Unknown;
        };
        match announced.get(worker) {
            Some(announced) if announced.instance == instance => Standing::Announced,
            // A pod that reuses the name is not the one that was announced.
            _ => Standing::Revoked,
        }
    }

    /// Returns whether a process is announced as a worker, of whichever agent.
    pub(crate) fn is_announced(&self, (namespace, worker): &WorkerKey, instance: &str) -> bool {
        let pools = self.0.read();
        let own = pools.iter().filter(|((of, _), _)| of == namespace);
        let mut found = own.filter_map(|(_, pool)| pool.announced.as_ref()?.get(worker));
        found.any(|announced| announced.instance == instance)
    }

    /// Returns as what a worker was announced.
    pub(crate) fn announced(&self, agent: &Key, worker: &WorkerName) -> Option<Announced> {
        self.0.read().get(agent)?.announced.as_ref()?.get(worker).cloned()
    }

    /// Sets what is wrong with a pool, empty if nothing is, and with the workers of single tasks.
    pub(crate) fn report(&self, agent: Key, message: String, isolated: HashMap<TaskId, String>) {
        let mut pools = self.0.write();
        let pool = pools.entry(agent).or_default();
        (pool.message, pool.isolated) = (message, isolated);
    }

    /// Returns what is wrong with a pool; empty if nothing is.
    pub(crate) fn message(&self, agent: &Key) -> String {
        self.0.read().get(agent).map(|pool| pool.message.clone()).unwrap_or_default()
    }

    /// Returns what is wrong with the worker of a task; empty if nothing is.
    pub(crate) fn isolated_message(&self, agent: &Key, task: TaskId) -> String {
        let pools = self.0.read();
        pools.get(agent).and_then(|pool| pool.isolated.get(&task)).cloned().unwrap_or_default()
    }

    /// Returns what is wrong, by agent.
    pub(crate) fn messages(&self) -> BTreeMap<Key, String> {
        let pools = self.0.read();
        let wrong = pools.iter().filter(|(_, pool)| !pool.message.is_empty());
        wrong.map(|(agent, pool)| (agent.clone(), pool.message.clone())).collect()
    }

    /// Removes the reports about a deleted agent.
    pub(crate) fn remove(&self, agent: &Key) {
        self.0.write().remove(agent);
    }
}
