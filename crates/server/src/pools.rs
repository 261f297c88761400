//! Reports about agents' pools by the components that start their workers: which workers may join, and what is wrong. In
//! memory only, since each report is repeated on every connection. Knows nothing of pods or processes.

use std::collections::{BTreeMap, HashMap};

use parking_lot::RwLock;
use rota_core::{AgentName, Namespace, TaskId, WorkerName};

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

#[derive(Debug)]
struct Revoked {
    instance: String,
    /// Whether its session has ended.
    ended: bool,
}

#[derive(Debug, Default)]
struct Pool {
    announced: HashMap<WorkerName, Announced>,
    /// Processes that were announced before and are not any more, until the announcement after the one that has ended their sessions.
    revoked: HashMap<WorkerName, Revoked>,
    message: String,
    /// What is wrong with the workers of single tasks.
    isolated: HashMap<TaskId, String>,
}

/// Reports about each agent's pool.
#[derive(Debug, Default)]
pub(crate) struct Pools(RwLock<HashMap<Key, Pool>>);

impl Pools {
    /// Sets which workers may join, instead of those announced before. Returns those whose sessions are to end.
    pub(crate) fn announce(&self, agent: Key, workers: HashMap<WorkerName, Announced>) -> Vec<WorkerName> {
        let mut pools = self.0.write();
        let Pool { announced, revoked, .. } = pools.entry(agent).or_default();
        let before = std::mem::replace(announced, workers);
        // Once more: another session may have opened while the last one ended.
        let (mut ended, mut left): (HashMap<_, _>, HashMap<_, _>) =
            std::mem::take(revoked).into_iter().partition(|(_, revoked)| revoked.ended);
        left.extend(
            before
                .into_iter()
                .map(|(worker, before)| (worker, Revoked { instance: before.instance, ended: false })),
        );
        let is_revoked_now = |worker: &WorkerName, revoked: &mut Revoked| {
            announced.get(worker).is_none_or(|announced| announced.instance != revoked.instance)
        };
        ended.retain(is_revoked_now);
        left.retain(is_revoked_now);
        *revoked = left;
        revoked.keys().chain(ended.keys()).cloned().collect()
    }

    /// Returns whether a process may not join any more, although its session may not have ended yet.
    pub(crate) fn is_revoked(&self, agent: &Key, worker: &WorkerName, instance: &str) -> bool {
        let pools = self.0.read();
        let revoked = pools.get(agent).and_then(|pool| pool.revoked.get(worker));
        revoked.is_some_and(|revoked| revoked.instance == instance)
    }

    /// Notes that the session of a revoked worker has ended, or that it finishes its tasks first and may reconnect.
    pub(crate) fn revoked_ended(&self, agent: &Key, worker: &WorkerName, drains: bool) {
        let mut pools = self.0.write();
        let Some(pool) = pools.get_mut(agent) else { return };
        if drains {
            pool.revoked.remove(worker);
        } else if let Some(revoked) = pool.revoked.get_mut(worker) {
            revoked.ended = true;
        }
    }

    /// Returns as what a worker was announced.
    pub(crate) fn announced(&self, agent: &Key, worker: &WorkerName) -> Option<Announced> {
        self.0.read().get(agent)?.announced.get(worker).cloned()
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
