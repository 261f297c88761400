//! Demand for workers: which agent's pool each waiting task counts for, and how many workers that asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::AgentName;
use rota_core::breaker::State as Breaker;
use rota_core::target::{Route, Target};

use crate::agents::AgentRegistry;
use crate::breakers::Breakers;
use crate::keys::AgentKey;
use crate::scheduler::{PoolStatus, Scheduler};

/// Joins the queues of the scheduler with the agents that could serve them.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) breakers: Arc<Breakers>,
}

impl Demand {
    /// Returns the agent that a waiting task of a route counts for: the one it names, or the best of those that cover
    /// it. A task that gets a worker of its own counts for no pool.
    pub(crate) fn preferred(&self, route: &Route) -> Option<AgentName> {
        match &route.target {
            Target::Agent(agent) => Some(agent.clone()),
            Target::Task { .. } => None,
            Target::Worker(worker) => self.scheduler.agent_of(&route.namespace, worker),
            Target::Capabilities(words) => {
                let paused = |key: &AgentKey| self.breakers.state(key) != Breaker::Closed;
                self.agents.best_match(route, words, paused)
            }
        }
    }

    /// Returns each agent's pool: its workers, and every waiting task counted for one agent.
    pub(crate) fn pools(&self) -> BTreeMap<AgentKey, PoolStatus> {
        let mut pools = self.scheduler.pools();
        for (_, route, count) in self.scheduler.queues() {
            if let Some(agent) = self.preferred(&route) {
                pools.entry((route.namespace, agent)).or_default().queued += count;
            }
        }
        pools
    }

    /// Returns how many of an agent's waiting tasks ask for workers. Those that its circuit breaker holds back would
    /// only keep more workers waiting.
    pub(crate) fn admitted(&self, agent: &AgentKey, queued: u64) -> u64 {
        match self.breakers.state(agent) {
            Breaker::Closed => queued,
            Breaker::Open { .. } => 0,
            Breaker::HalfOpen { .. } => queued.min(1),
        }
    }
}
