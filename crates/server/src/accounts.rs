//! Books of agents and namespaces, as commits publish them: what they have spent, and what running attempts have reserved.
//! The rules are `rota_core::spending`'s, and the store's engine applies them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rota_core::spending::{Account, Budget, Period, Scope};
use rota_core::{Namespace, Timestamp};
use rota_store::{AccountChange, AccountKey, Snapshot};

use crate::keys::AgentKey;

/// An account, and what is reserved of its budget.
pub(crate) type Known = (Arc<Account>, i64);

/// The books of all agents and namespaces.
#[derive(Debug, Default)]
pub(crate) struct Accounts(RwLock<BTreeMap<AccountKey, Known>>);

impl Accounts {
    /// Restores what the store knows at the start.
    pub(crate) fn restore(&self, snapshot: &mut Snapshot) {
        let mut known = self.0.write();
        for account in std::mem::take(&mut snapshot.accounts) {
            known.insert(key(&account), (Arc::new(account), 0));
        }
        for task in snapshot.on_workers.iter().map(|on| &on.task) {
            let Some(assignment) = &task.assignment else { continue };
            let agent = assignment.agent.clone().map(Scope::Agent);
            for scope in agent.into_iter().chain([Scope::Namespace]) {
                if let Some((_, reserved)) = known.get_mut(&(task.namespace.clone(), scope)) {
                    *reserved = reserved.saturating_add(assignment.unspent());
                }
            }
        }
    }

    /// Takes in a committed change. Returns the account as it was before.
    pub(crate) fn apply(&self, change: &AccountChange) -> Option<Known> {
        self.0.write().insert(key(&change.account), (Arc::clone(&change.account), change.reserved))
    }

    pub(crate) fn get(&self, key: &AccountKey) -> Option<Known> {
        self.0.read().get(key).cloned()
    }

    /// Whether an agent's budget has no room for another of its attempts.
    pub(crate) fn is_poor(&self, agent: &AgentKey, budget: &Budget, now: Timestamp) -> bool {
        let key = (agent.0.clone(), Scope::Agent(agent.1.clone()));
        !budget.is_empty() && self.get(&key).is_some_and(|known| is_poor(&known, budget, now))
    }

    /// Returns the account, or an empty one.
    pub(crate) fn get_or_new(&self, key: &AccountKey) -> Known {
        self.get(key).unwrap_or_else(|| (Arc::new(Account::new(key.0.clone(), key.1.clone())), 0))
    }

    /// Returns the keys of the accounts of a namespace, or of all.
    pub(crate) fn keys(&self, namespace: Option<&Namespace>) -> Vec<AccountKey> {
        let known = self.0.read();
        let fits = |key: &&AccountKey| namespace.is_none_or(|namespace| key.0 == *namespace);
        known.keys().filter(fits).cloned().collect()
    }
}

fn key(account: &Account) -> AccountKey {
    (account.namespace.clone(), account.scope.clone())
}

/// Whether a budget has no room for another attempt of its account.
pub(crate) fn is_poor((account, reserved): &Known, budget: &Budget, now: Timestamp) -> bool {
    account.blocked(budget, *reserved, account.usual, now).is_some()
}

/// Returns the spent share of the limits of a budget, by period.
pub(crate) fn used(account: &Account, budget: &Budget, now: Timestamp) -> Vec<(Period, f64)> {
    let share = |period: Period| {
        let limit = budget.limit(period)?;
        Some((period, account.spent(period, now) as f64 / limit.max(1) as f64))
    };
    Period::ALL.into_iter().filter_map(share).collect()
}
