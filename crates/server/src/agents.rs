//! Registry of the agents: their specs, decoded once, and what is known of their pools. Changed only by commits. Knows
//! nothing of workers and slots.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rota_core::agent::Agent;
use rota_core::spending::{Budget, Scope, WARNING_PERCENT};
use rota_core::target::Route;
use rota_core::{AgentName, Namespace, Timestamp};
use rota_proto::v1;
use rota_store::{AccountChange, AccountKey, AgentChange};
use tokio::sync::{Mutex, MutexGuard};

use crate::accounts::{self, Accounts, Known};
use crate::clock::now;
use crate::keys::AgentKey;
use crate::pools::Pools;
use crate::pulse::Pulse;
use crate::wire::agent;

/// Deleted agents of which is known when they were deleted.
const MAX_DELETED: usize = 1024;

/// Number of a change of any agent. Grows by 1.
pub(crate) type ChangeNumber = u64;

/// An agent with its decoded spec.
#[derive(Debug, Clone)]
pub(crate) struct KnownAgent {
    pub(crate) agent: Arc<Agent>,
    /// As stored, with the policy that applies.
    pub(crate) spec: Arc<v1::AgentSpec>,
}

/// An agent that has changed; without a record if it was deleted.
pub(crate) type Changed = (AgentKey, Option<KnownAgent>);

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
    agents: RwLock<Agents>,
    pools: Pools,
    accounts: Accounts,
    changes: Mutex<()>,
    changed: Pulse,
    /// Policy of agents without one.
    overrides: v1::Overrides,
}

#[derive(Debug, Default)]
struct Agents {
    known: BTreeMap<AgentKey, KnownAgent>,
    /// The last change of each agent, also of those deleted lately.
    changes: BTreeMap<ChangeNumber, AgentKey>,
    numbers: BTreeMap<AgentKey, ChangeNumber>,
    /// Changes that were deletions, oldest first.
    deleted: BTreeSet<ChangeNumber>,
    last: ChangeNumber,
    /// The last deletion that has been forgotten.
    forgotten: ChangeNumber,
}

impl Agents {
    /// Numbers a change, in place of the agent's last one.
    fn number(&mut self, key: &AgentKey, deleted: bool) {
        self.last += 1;
        if let Some(before) = self.numbers.insert(key.clone(), self.last) {
            self.changes.remove(&before);
            self.deleted.remove(&before);
        }
        self.changes.insert(self.last, key.clone());
        if deleted {
            self.deleted.insert(self.last);
        }
        if self.deleted.len() > MAX_DELETED
            && let Some(number) = self.deleted.pop_first()
            && let Some(key) = self.changes.remove(&number)
        {
            self.numbers.remove(&key);
            self.forgotten = number;
        }
    }
}

impl AgentRegistry {
    /// Returns an empty registry, with the policy of agents that have none.
    pub(crate) fn new(overrides: v1::Overrides) -> Self {
        Self { overrides, ..Self::default() }
    }

    /// Restores the agents from what the store knows at the start.
    pub(crate) fn restore(&self, agents: Vec<Agent>) {
        let mut known = self.agents.write();
        for agent in agents {
            known.number(&key(&agent), false);
            known.known.insert(key(&agent), self.known(Arc::new(agent)));
        }
    }

    /// Takes in a committed change.
    pub(crate) fn apply(&self, change: &AgentChange) -> AgentEffect {
        let key = key(&change.agent);
        let mut agents = self.agents.write();
        agents.number(&key, change.deleted);
        let effect = if change.deleted {
            agents.known.remove(&key);
            self.pools.remove(&key);
            AgentEffect::Deleted
        } else {
            let known = self.known(Arc::clone(&change.agent));
            let spec = Arc::clone(&known.spec);
            match agents.known.insert(key, known) {
                None => AgentEffect::Created,
                Some(before) if before.spec != spec => AgentEffect::SpecChanged,
                Some(_) => AgentEffect::Unchanged,
            }
        };
        self.changed.mark();
        effect
    }

    /// Reports that agents have changed.
    pub(crate) fn changed(&self) -> &Pulse {
        &self.changed
    }

    /// Returns the agents that have changed after a change, in its order, with the number of the last one. Returns `None` if deletions since then have been forgotten.
    pub(crate) fn changes_after(
        &self,
        after: ChangeNumber,
        limit: usize,
    ) -> Option<(Vec<Changed>, ChangeNumber)> {
        let agents = self.agents.read();
        if after < agents.forgotten {
            return None;
        }
        let changes = agents.changes.range((Bound::Excluded(after), Bound::Unbounded)).take(limit);
        let (mut last, mut changed) = (after, Vec::new());
        for (number, key) in changes {
            last = *number;
            changed.push((key.clone(), agents.known.get(key).cloned()));
        }
        Some((changed, last))
    }

    /// Waits for its turn to change an agent: an update reads before it writes.
    pub(crate) async fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().await
    }

    fn known(&self, agent: Arc<Agent>) -> KnownAgent {
        let mut spec = agent::stored(&agent).spec.unwrap_or_default();
        if spec.overrides() == v1::Overrides::Unspecified {
            spec.overrides = self.overrides.into();
        }
        KnownAgent { agent, spec: Arc::new(spec) }
    }

    pub(crate) fn get(&self, key: &AgentKey) -> Option<KnownAgent> {
        self.agents.read().known.get(key).cloned()
    }

    /// Returns the time that an agent's workers have to come back, if it sets one.
    pub(crate) fn reconnect_grace(&self, key: &AgentKey) -> Option<Duration> {
        let grace = self.agents.read().known.get(key)?.spec.reconnect_grace?;
        Duration::try_from(grace).ok()
    }

    pub(crate) fn contains(&self, key: &AgentKey) -> bool {
        self.agents.read().known.contains_key(key)
    }

    pub(crate) fn keys(&self) -> Vec<AgentKey> {
        self.agents.read().known.keys().cloned().collect()
    }

    /// Returns the agents of a namespace, or all, with the number of the last change that they contain.
    pub(crate) fn list(&self, namespace: Option<&Namespace>) -> (Vec<(AgentKey, KnownAgent)>, ChangeNumber) {
        let agents = self.agents.read();
        let is_in = |at: &Namespace| namespace.is_none_or(|namespace| at == namespace);
        let listed = agents.known.iter().filter(|((at, _), _)| is_in(at));
        (listed.map(|(key, known)| (key.clone(), known.clone())).collect(), agents.last)
    }

    /// Returns an agent of a namespace that fits, the first one by name.
    pub(crate) fn find(
        &self,
        namespace: &Namespace,
        fits: impl Fn(&AgentName, &KnownAgent) -> bool,
    ) -> Option<AgentName> {
        let agents = self.agents.read();
        let mut of_namespace = agents.known.iter().filter(|((at, _), _)| at == namespace);
        of_namespace.find(|((_, name), known)| fits(name, known)).map(|((_, name), _)| name.clone())
    }

    /// Returns the agent best suited to tasks that name only capabilities: of those that have all of them one that is
    /// not `unsuited`, if possible also not `paused` and with money, and of these the one with the fewest other capabilities.
    pub(crate) fn best_match(
        &self,
        route: &Route,
        fits: impl Fn(&AgentName, &KnownAgent) -> bool,
        unsuited: impl Fn(&AgentKey) -> bool,
        paused: impl Fn(&AgentKey) -> bool,
        now: Timestamp,
    ) -> Option<AgentName> {
        let agents = self.agents.read();
        let fitting = agents
            .known
            .iter()
            .filter(|((namespace, name), known)| *namespace == route.namespace && fits(name, known));
        let poor = |key: &AgentKey, known: &KnownAgent| self.accounts.is_poor(key, &known.agent.budget, now);
        let best = fitting.min_by_key(|(key, known)| {
            (unsuited(key), paused(key) || poor(key, known), known.agent.capabilities.len(), key.1.clone())
        });
        best.map(|((_, name), _)| name.clone())
    }

    /// Returns the books of agents and namespaces.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Returns the account of an agent or a namespace, with its budget.
    pub(crate) fn account(&self, key: &AccountKey) -> (Known, Budget) {
        let known = self.accounts.get_or_new(key);
        let budget = match &key.1 {
            Scope::Namespace | Scope::Workflow(_) => known.0.budget,
            Scope::Agent(agent) => {
                self.get(&(key.0.clone(), agent.clone())).map(|known| known.agent.budget).unwrap_or_default()
            }
        };
        (known, budget)
    }

    /// Returns the accounts of a namespace, or all, that have spent something or have a budget, with their budgets.
    pub(crate) fn accounts_of(&self, namespace: Option<&Namespace>) -> Vec<(Known, Budget)> {
        let limited = self.list(namespace).0.into_iter().filter(|(_, known)| !known.agent.budget.is_empty());
        let limited = limited.map(|((namespace, agent), _)| (namespace, Scope::Agent(agent)));
        let mut keys = self.accounts.keys(namespace);
        keys.extend(limited);
        keys.sort_unstable();
        keys.dedup();
        keys.iter().map(|key| self.account(key)).collect()
    }

    /// Takes in committed changes of books. Returns whether an agent has no room for another attempt any more, or has some
    /// again.
    pub(crate) fn apply_account(&self, change: &AccountChange) -> bool {
        let before = self.accounts.apply(change);
        let account = &change.account;
        let key = (account.namespace.clone(), account.scope.clone());
        let (_, budget) = self.account(&key);
        if budget.is_empty() {
            return false;
        }
        let (now, nearly) = (now(), f64::from(WARNING_PERCENT) / 100.0);
        let was_poor = before.as_ref().is_some_and(|known| accounts::is_poor(known, &budget, now));
        let is_poor = accounts::is_poor(&(Arc::clone(account), change.reserved), &budget, now);
        let before = before.map_or_else(Vec::new, |(before, _)| accounts::used(&before, &budget, now));
        for (period, used) in accounts::used(account, &budget, now) {
            let before = before.iter().find(|(of, _)| *of == period).map_or(0.0, |(_, used)| *used);
            let (namespace, period) = (&account.namespace, period.name());
            if before < 1.0 && used >= 1.0 {
                tracing::warn!(%namespace, scope = %account.scope, period, "a budget is spent");
            } else if before < nearly && used >= nearly {
                tracing::warn!(%namespace, scope = %account.scope, period, "most of a budget is spent");
            }
        }
        was_poor != is_poor
    }

    /// Returns what is known of the agents' pools.
    pub(crate) fn pools(&self) -> &Pools {
        &self.pools
    }
}

fn key(agent: &Agent) -> AgentKey {
    (agent.namespace.clone(), agent.name.clone())
}

#[cfg(test)]
mod tests {
    use rota_core::task::Limits;

    use super::*;

    fn change(number: usize, deleted: bool) -> AgentChange {
        let agent = Agent {
            namespace: Namespace::new("n").unwrap(),
            name: AgentName::new(&format!("agent-{number}")).unwrap(),
            generation: 1,
            capabilities: BTreeSet::new(),
            defaults: Limits::default(),
            budget: Default::default(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            payload: bytes::Bytes::new(),
        };
        AgentChange { agent: Arc::new(agent), deleted }
    }

    #[test]
    fn changes_are_read_without_other_agents() {
        let registry = AgentRegistry::default();
        for number in 0..10_000 {
            registry.apply(&change(number, false));
        }
        let (all, last) = registry.list(None);
        assert_eq!(all.len(), 10_000);
        registry.apply(&change(7, false));
        registry.apply(&change(8, true));
        registry.apply(&change(7, false));
        let (changes, last) = registry.changes_after(last, 256).unwrap();
        let changes: Vec<_> =
            changes.iter().map(|((_, name), known)| (name.as_str(), known.is_some())).collect();
        assert_eq!(changes, [("agent-8", false), ("agent-7", true)]);
        assert!(registry.changes_after(last, 256).unwrap().0.is_empty());
    }

    #[test]
    fn forgotten_deletions_are_reported() {
        let registry = AgentRegistry::default();
        registry.apply(&change(0, false));
        let last = registry.list(None).1;
        for number in 0..=MAX_DELETED {
            registry.apply(&change(number, true));
        }
        assert!(registry.changes_after(last, 256).is_none());
        let (all, last) = registry.list(None);
        assert!(all.is_empty() && registry.changes_after(last, 256).is_some());
        assert_eq!(registry.agents.read().numbers.len(), MAX_DELETED, "deleted agents pile up");
    }
}
