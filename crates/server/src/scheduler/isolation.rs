//! Which agents have workers that take tasks while none of them isolates its attempts. Kept up to date where workers change, so that
//! claims neither look for these agents nor copy their names.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rota_core::target::ISOLATED;
use rota_core::{AgentName, Namespace};

use super::group::GroupKey;
use crate::keys::AgentKey;

/// Numbers of an agent's workers, without those that were started for one task.
#[derive(Debug, Default)]
struct Workers {
    all: usize,
    isolating: usize,
    able: usize,
}

impl Workers {
    fn lack_isolation(&self) -> bool {
        self.isolating == 0 && self.able > 0
    }
}

/// Numbers of workers by agent. Each [`Group`](super::group::Group) has its own, and to add those of an agent up would cost work for each
/// of its isolated tasks, which are groups of their own.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    agents: HashMap<AgentKey, Workers>,
    /// Agents without isolation. A list is copied only if it changes while a claim that has it is pending.
    lacking: HashMap<Namespace, Arc<BTreeSet<AgentName>>>,
}

impl Isolation {
    /// Whether workers of an agent take tasks, and none of its workers isolates its attempts.
    pub(super) fn is_lacking(&self, agent: &AgentKey) -> bool {
        self.agents.get(agent).is_some_and(Workers::lack_isolation)
    }

    /// Returns the agents of a namespace whose workers take tasks and isolate nothing.
    pub(super) fn lacking(&self, namespace: &Namespace) -> Arc<BTreeSet<AgentName>> {
        self.lacking.get(namespace).cloned().unwrap_or_default()
    }

    /// Counts a worker that joins a group.
    pub(super) fn join(&mut self, group: &GroupKey) {
        self.change(group, |workers, isolating| {
            workers.all += 1;
            workers.isolating += isolating;
        });
    }

    /// Counts a worker that leaves a group.
    pub(super) fn leave(&mut self, group: &GroupKey) {
        self.change(group, |workers, isolating| {
            workers.all = workers.all.saturating_sub(1);
            workers.isolating = workers.isolating.saturating_sub(isolating);
        });
    }

    /// Counts a worker of a group that may be given tasks from now on, or no longer.
    pub(super) fn set_able(&mut self, group: &GroupKey, able: bool) {
        self.change(group, |workers, _| {
            workers.able = if able { workers.able + 1 } else { workers.able.saturating_sub(1) };
        });
    }

    /// Changes the numbers of a group's agent, given how many isolate of one worker of the group. Each worker that is shared is in one group
    /// by capabilities.
    fn change(&mut self, group: &GroupKey, change: impl FnOnce(&mut Workers, usize)) {
        let GroupKey::Capabilities(agent, own) = group else { return };
        let workers = self.agents.entry(agent.clone()).or_default();
        let before = workers.lack_isolation();
        change(workers, usize::from(own.contains(ISOLATED)));
        let after = workers.lack_isolation();
        if workers.all == 0 {
            self.agents.remove(agent);
        }
        if before == after {
            return;
        }
        let (namespace, name) = agent;
        let lacking = Arc::make_mut(self.lacking.entry(namespace.clone()).or_default());
        if after {
            lacking.insert(name.clone());
        } else {
            lacking.remove(name);
        }
        if lacking.is_empty() {
            self.lacking.remove(namespace);
        }
    }
}
