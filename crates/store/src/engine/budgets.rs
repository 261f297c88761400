//! Budgets of agents and namespaces: every cost is booked in the commit that reports it, every assignment reserves what it
//! usually costs, and what finds no room waits. What is reserved is in memory, and follows from the tasks on workers.

use std::sync::Arc;

use rota_core::failure::{Class, Failure};
use rota_core::spending::{Account, Budget, BudgetWait, Scope, WhenExhausted};
use rota_core::task::{AttemptOutcome, Command, EndedAttempt, State, Stopping, Task, Transition};
use rota_core::usage::usd;
use rota_core::{AgentName, Namespace, TaskKey, Timestamp};

use super::{Answer, Engine};
use crate::{
    AccountChange, AccountKey, Backend, Error, FollowUp, Load, Refused, Reply, WaitKey, WaitsKey, WaitsPage,
};

/// Tasks on workers that are stopped when a limit is reached. Further ones are stopped by their own next report.
const MAX_STOPPED: usize = 256;
/// Waiting tasks among which those with the best ranks continue when a budget has room again.
const MAX_CANDIDATES: usize = 64;
/// Largest number of tasks that continue when a budget has room again.
const MAX_LIFTED: usize = 16;

/// What the budgets have for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Funds {
    /// Room for it, of which this is reserved.
    Enough(i64),
    /// Nothing: the task waits from now on.
    Waits,
    /// Nothing of the worker's agent: another one may take the task.
    Elsewhere,
}

/// Returns what the attempt of a task has reserved and not spent, and whose attempt it is.
pub(super) fn reservation(task: &Task) -> Option<(&AgentName, i64)> {
    let assignment = task.assignment.as_ref()?;
    let unspent = Some(assignment.unspent()).filter(|unspent| *unspent > 0)?;
    Some((assignment.agent.as_ref()?, unspent))
}

/// Returns the keys of the accounts of an agent, and of its namespace.
fn keys(namespace: &Namespace, agent: Option<&AgentName>) -> impl Iterator<Item = AccountKey> {
    let agent = agent.cloned().map(|agent| (namespace.clone(), Scope::Agent(agent)));
    agent.into_iter().chain([(namespace.clone(), Scope::Namespace)])
}

impl<B: Backend> Engine<B> {
    /// Returns an account in the current state of the batch.
    fn account(&self, key: &AccountKey) -> Option<&Arc<Account>> {
        self.write_set.accounts.get(key).or_else(|| self.memory.accounts.get(key))
    }

    fn account_mut(&mut self, key: &AccountKey) -> &mut Account {
        let known = self.account(key).cloned();
        let entry = self.write_set.accounts.entry(key.clone());
        Arc::make_mut(
            entry.or_insert_with(|| {
                known.unwrap_or_else(|| Arc::new(Account::new(key.0.clone(), key.1.clone())))
            }),
        )
    }

    fn account_or_new(&self, key: &AccountKey) -> Arc<Account> {
        self.account(key).cloned().unwrap_or_else(|| Arc::new(Account::new(key.0.clone(), key.1.clone())))
    }

    fn budget(&self, key: &AccountKey) -> Budget {
        match &key.1 {
            Scope::Namespace => self.account(key).map(|account| account.budget),
            Scope::Agent(agent) => self.agent(&(key.0.clone(), agent.clone())).map(|agent| agent.budget),
        }
        .unwrap_or_default()
    }

    /// Returns what running attempts may still spend of a budget.
    fn reserved(&self, key: &AccountKey) -> i64 {
        let changed = self.write_set.reserved.get(key).copied().unwrap_or_default();
        self.memory.reserved.get(key).copied().unwrap_or_default().saturating_add(changed)
    }

    /// Returns what a task is expected to cost: as much as usual, or what is left of its own budget if that is less.
    fn expected_cost(&self, task: &Task, agent: Option<&AgentName>) -> i64 {
        let usual = agent.and_then(|agent| {
            let account = self.account(&(task.namespace.clone(), Scope::Agent(agent.clone())))?;
            Some(account.usual).filter(|usual| *usual > 0)
        });
        let left =
            task.budget_micro_usd().map(|budget| budget.saturating_sub(task.usage.cost_micro_usd).max(0));
        usual.into_iter().chain(left).min().unwrap_or_default()
    }

    /// Looks whether the budgets have room for a ready task on a worker of an agent. If not, the task waits, unless
    /// another agent may take it.
    pub(super) fn fund(&mut self, key: TaskKey, agent: &AgentName, now: Timestamp) -> Result<Funds, Error> {
        self.load(key)?;
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else {
            return Ok(Funds::Enough(0));
        };
        let limited: Vec<_> = keys(&task.namespace, Some(agent))
            .map(|key| (self.budget(&key), key))
            .filter(|(budget, _)| !budget.is_empty())
            .collect();
        if limited.is_empty() {
            return Ok(Funds::Enough(0));
        }
        let cost = self.expected_cost(&task, Some(agent));
        let waits = limited.iter().filter_map(|(budget, key)| {
            let account = self.account_or_new(key);
            let period = account.blocked(budget, self.reserved(key), cost, now)?;
            Some(account.wait(period, now))
        });
        // It waits for another agent's budget as little as for its own worker.
        let bound = |wait: &BudgetWait| wait.scope == Scope::Namespace || task.agent() == Some(agent);
        let (bound, other): (Vec<_>, Vec<_>) = waits.partition(bound);
        let Some(wait) = bound.into_iter().max_by_key(|wait| wait.until) else {
            return Ok(if other.is_empty() { Funds::Enough(cost) } else { Funds::Elsewhere });
        };
        let id = (task.namespace.clone(), wait.scope.clone());
        if !self.account_or_new(&id).waiting {
            self.account_mut(&id).waiting = true;
        }
        let _ = self.apply(key, Command::AwaitBudget(wait), now)?;
        Ok(Funds::Waits)
    }

    /// Returns why a new task is refused, if a budget is spent that wants that.
    pub(super) fn refuses(&self, task: &Task, now: Timestamp) -> Option<Refused> {
        keys(&task.namespace, task.agent()).find_map(|key| {
            let budget = self.budget(&key);
            if budget.is_empty() || budget.when_exhausted != WhenExhausted::Refuse {
                return None;
            }
            let account = self.account_or_new(&key);
            // What is only reserved may become free again.
            let period = account.blocked(&budget, 0, self.expected_cost(task, task.agent()), now)?;
            Some(Refused::BudgetSpent(account.wait(period, now)))
        })
    }

    /// Takes in what a command has changed about the reservation of a task.
    pub(super) fn observe_reservation(&mut self, before: Option<(AgentName, i64)>, key: TaskKey) {
        let Some(entry) = self.write_set.get(key) else { return };
        let after = reservation(&entry.task).map(|(agent, micro)| (agent.clone(), micro));
        if before == after {
            return;
        }
        let namespace = entry.task.namespace.clone();
        let before = before.map(|(agent, micro)| (agent, -micro));
        for (agent, micro) in before.into_iter().chain(after) {
            for key in keys(&namespace, Some(&agent)) {
                *self.write_set.reserved.entry(key).or_default() += micro;
            }
        }
    }

    /// Books what a command on a task has reported as used, and lets others continue when an attempt has left some.
    pub(super) fn observe_cost(&mut self, key: TaskKey, out: &Transition, now: Timestamp) {
        let cost = out.used.cost_micro_usd;
        let is_idle = self.memory.accounts.is_empty() && self.write_set.accounts.is_empty();
        if cost == 0 && (out.attempt_ended.is_none() || is_idle) {
            return;
        }
        let Some(entry) = self.write_set.get(key) else { return };
        let (namespace, agent) = (entry.task.namespace.clone(), entry.spender(out));
        for id in keys(&namespace, agent.as_ref()) {
            if cost > 0 {
                self.spend(&id, cost, key, now);
            }
            if let Some(ended) = &out.attempt_ended {
                self.settle_account(&id, ended);
            }
        }
    }

    fn settle_account(&mut self, id: &AccountKey, ended: &EndedAttempt) {
        let cost = ended.assignment.usage.cost_micro_usd;
        let is_whole = matches!(ended.outcome, AttemptOutcome::Succeeded | AttemptOutcome::Failed)
            && ended.failure.as_ref().is_none_or(|failure| failure.class != Class::Budget);
        if id.1 != Scope::Namespace && cost > 0 && is_whole {
            self.account_mut(id).observe_attempt(cost);
        }
        if self.account(id).is_some_and(|account| account.waiting) {
            let funded = FollowUp::Funded { waits: waits(id) };
            if !self.write_set.pending.queue.iter().any(|(_, queued)| *queued == funded) {
                self.write_set.pending.push(funded);
            }
        }
    }

    /// Adds a cost to an account. Once its limit is reached, attempts are stopped: that of the task that reports it, and
    /// at first all others.
    fn spend(&mut self, id: &AccountKey, cost: i64, key: TaskKey, now: Timestamp) {
        let budget = self.budget(id);
        let account = self.account_mut(id);
        let is_first = account.exhausted(&budget, now).is_none();
        account.add(cost, now);
        let warning = account.take_warning(&budget, now);
        let exhausted = account.exhausted(&budget, now);
        // The tasks that are stopped wait for it.
        account.waiting |= exhausted.is_some();
        let stopping = exhausted.map(|period| stopping(account, &budget, account.wait(period, now), now));
        if let Some(message) = warning {
            self.write_set.next.push_back((key, Command::WarnOfBudget { message }));
        }
        let Some(stopping) = stopping else { return };
        let on_workers = self.memory.on_workers().filter(|_| is_first);
        let mut concerned: Vec<_> = on_workers.filter(|key| self.spends(*key, id)).collect();
        concerned.sort_unstable();
        concerned.truncate(MAX_STOPPED);
        concerned.retain(|other| *other != key);
        concerned.push(key);
        for key in concerned {
            let entry = self.write_set.get(key).map(|entry| &entry.task);
            let Some(task) = entry.or_else(|| self.memory.get(key).map(|live| &live.task)) else { continue };
            if task.state.is_on_worker() {
                let stop = Command::Stop { fence: task.fence, stopping: stopping.clone() };
                self.write_set.next.push_back((key, stop));
            }
        }
    }

    /// Whether a task on a worker spends of an account.
    fn spends(&self, key: TaskKey, id: &AccountKey) -> bool {
        self.memory.get(key).is_some_and(|live| {
            let agent = live.task.assignment.as_ref().and_then(|assignment| assignment.agent.as_ref());
            live.task.namespace == id.0 && id.1.agent().is_none_or(|of| agent == Some(of))
        })
    }

    /// Sets the budget of a namespace.
    pub(super) fn put_budget(&mut self, namespace: Namespace, budget: Budget) -> Answer {
        let id = (namespace, Scope::Namespace);
        if self.budget(&id) != budget {
            self.account_mut(&id).budget = budget;
            self.budget_changed(&id);
        }
        Reply::Account(self.account_or_new(&id)).into()
    }

    /// Lets everything continue that waits for a budget, which has changed.
    pub(super) fn budget_changed(&mut self, id: &AccountKey) {
        let Some(account) = self.account(id).cloned() else { return };
        self.account_mut(id).forget_warnings();
        if account.waiting {
            self.write_set.pending.push(FollowUp::Lifted { waits: waits(id) });
        }
    }

    /// Takes in that the last task continues that has waited for a budget.
    pub(super) fn no_more_waits(&mut self, waits: &WaitsKey) {
        let WaitKey::Budget(scope) = &waits.1 else { return };
        let id = (waits.0.clone(), scope.clone());
        if self.account(&id).is_some_and(|account| account.waiting) {
            self.account_mut(&id).waiting = false;
        }
    }

    /// Lets as many of the tasks continue that wait for a budget as it has room for: those with the best ranks among the
    /// oldest.
    pub(super) fn visit_funded(
        &mut self,
        number: Option<u64>,
        waits: WaitsKey,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write_set.pending.finish(number, None);
        let WaitKey::Budget(scope) = &waits.1 else { return Ok(()) };
        let scope = scope.clone();
        let most = self.fundable(&(waits.0.clone(), scope.clone()), now);
        if most == 0 {
            return Ok(());
        }
        if !self.write_set.waits.knows(&waits) {
            let page = WaitsPage { key: waits.clone(), limit: MAX_CANDIDATES };
            self.fetch(&Load { waits: vec![page], ..Load::default() })?;
        }
        let (waiters, more) = self.write_set.waits.present(&waits);
        self.write_set.pending.spend(waiters.len().max(1));
        self.load_all(&waiters)?;
        let mut ranked = Vec::new();
        for key in waiters {
            let waits = |task: &&Task| {
                task.state == State::Pending
                    && task.budget_wait.as_ref().is_some_and(|wait| wait.scope == scope)
            };
            ranked.extend(self.load(key)?.filter(waits).map(|task| (task.rank(), key)));
        }
        if ranked.is_empty() && !more {
            self.no_more_waits(&waits);
        }
        ranked.sort_unstable();
        let lifted = ranked.into_iter().take(most);
        let lift = |(_, key)| (key, Command::BudgetLifted { scope: scope.clone() });
        self.write_set.next.extend(lifted.map(lift));
        Ok(())
    }

    /// Returns how many tasks may continue with the room that a budget has.
    fn fundable(&self, id: &AccountKey, now: Timestamp) -> usize {
        let (account, budget, reserved) = (self.account_or_new(id), self.budget(id), self.reserved(id));
        if account.blocked(&budget, reserved, account.usual, now).is_some() {
            return 0;
        }
        match (account.room(&budget, reserved, now), account.usual) {
            (Some(room), usual @ 1..) => usize::try_from(room / usual).unwrap_or(0).clamp(1, MAX_LIFTED),
            _ => MAX_LIFTED,
        }
    }

    /// Returns the accounts that the batch has changed, with what is reserved.
    pub(super) fn changed_accounts(&self) -> Vec<AccountChange> {
        let reserved = self.write_set.reserved.iter().filter(|(_, micro)| **micro != 0);
        let mut changed: Vec<_> =
            self.write_set.accounts.keys().chain(reserved.map(|(key, _)| key)).collect();
        changed.sort_unstable();
        changed.dedup();
        let change = |key: &AccountKey| AccountChange {
            account: self.account_or_new(key),
            reserved: self.reserved(key),
        };
        changed.into_iter().map(change).collect()
    }
}

fn waits(id: &AccountKey) -> WaitsKey {
    (id.0.clone(), WaitKey::Budget(id.1.clone()))
}

/// Returns why attempts of an account are stopped.
fn stopping(account: &Account, budget: &Budget, wait: BudgetWait, now: Timestamp) -> Stopping {
    let spent = usd(account.spent(wait.period, now));
    let limit = usd(budget.limit(wait.period).unwrap_or_default());
    let message = format!("{} is spent: {spent} of {limit}", wait.describe());
    Stopping { failure: Failure::new(Class::Budget, message), wait: Some(wait) }
}
