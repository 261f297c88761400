//! What those who start workers say about their pools: who may join, and what is wrong. In memory only: they say it
//! again when they connect. Knows nothing of what they start.

use std::collections::{BTreeMap, HashMap};

use parking_lot::RwLock;
use rota_core::{AgentName, Namespace, WorkerName};

type Key = (Namespace, AgentName);

#[derive(Debug, Default)]
struct Pool {
    /// Each worker with its process; empty stands for any.
    announced: HashMap<WorkerName, String>,
    message: String,
}

/// What is said about each agent's pool.
#[derive(Debug, Default)]
pub(crate) struct Pools(RwLock<HashMap<Key, Pool>>);

impl Pools {
    /// These workers may join, and those said before may not any more.
    pub(crate) fn announce(&self, agent: Key, workers: HashMap<WorkerName, String>) {
        self.0.write().entry(agent).or_default().announced = workers;
    }

    /// The process for which a worker was announced.
    pub(crate) fn announced(&self, agent: &Key, worker: &WorkerName) -> Option<String> {
        self.0.read().get(agent)?.announced.get(worker).cloned()
    }

    /// What is wrong; empty if nothing is. Tells whether that is news.
    pub(crate) fn report(&self, agent: Key, message: String) -> bool {
        let mut pools = self.0.write();
        let pool = pools.entry(agent).or_default();
        let news = pool.message != message;
        pool.message = message;
        news
    }

    /// What is wrong, or nothing.
    pub(crate) fn message(&self, agent: &Key) -> String {
        self.0.read().get(agent).map(|pool| pool.message.clone()).unwrap_or_default()
    }

    /// All that is wrong, by agent.
    pub(crate) fn messages(&self) -> BTreeMap<Key, String> {
        let pools = self.0.read();
        let wrong = pools.iter().filter(|(_, pool)| !pool.message.is_empty());
        wrong.map(|(agent, pool)| (agent.clone(), pool.message.clone())).collect()
    }

    /// An agent is gone.
    pub(crate) fn forget(&self, agent: &Key) {
        self.0.write().remove(agent);
    }
}
