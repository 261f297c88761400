//! Books of agents and namespaces: every cost is booked in the commit that reports it, and stops attempts once a limit is
//! reached. What running attempts may spend is in memory, and follows from the tasks on workers. `funding` has what waits.

use std::sync::Arc;

use rota_core::failure::{Class, Failure};
use rota_core::spending::{Account, Budget, BudgetWait, Period, Scope};
use rota_core::target::Target;
use rota_core::task::{AttemptOutcome, Command, EndedAttempt, State, Stopping, Task, Transition};
use rota_core::usage::usd;
use rota_core::workflow;
use rota_core::{AgentName, Namespace, TaskKey, Timestamp};

use super::{Answer, Engine};
use crate::{AccountChange, AccountKey, Backend, Error, Load, Refused, Reply, WaitKey, WaitsKey};

/// Tasks on workers that are stopped when a limit is reached. Further ones are stopped by their own next report.
const MAX_STOPPED: usize = 256;

/// Attempts that spend of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spenders {
    /// Number of those that may begin another turn.
    attempts: i64,
    /// What their next turns may cost, each as much as one of its agent, in millionths of a US dollar: nothing while the agent has
    /// never reported a cost.
    turns: i64,
    /// What they have reserved and not spent, in millionths of a US dollar.
    reserved: i64,
}

impl Spenders {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds others, or takes them back.
    pub(super) fn add(&mut self, others: Self, sign: i64) {
        self.attempts = self.attempts.saturating_add(sign * others.attempts);
        self.turns = self.turns.saturating_add(sign * others.turns);
        self.reserved = self.reserved.saturating_add(sign * others.reserved);
    }

    /// Charges each attempt a turn of its agent.
    pub(super) fn with_turns(self, turn: i64) -> Self {
        Self { turns: self.attempts.saturating_mul(turn), ..self }
    }

    /// Returns what counts for a budget. That of a workflow is only reserved of.
    pub(super) fn of(self, scope: &Scope) -> Self {
        match scope {
            Scope::Workflow(_) => Self { reserved: self.reserved, ..Self::default() },
            Scope::Namespace | Scope::Agent(_) => self,
        }
    }

    /// Returns what changes when a turn of the agent of these attempts costs so much more.
    pub(super) fn repriced(self, by: i64) -> Self {
        Self { turns: self.attempts.saturating_mul(by), ..Self::default() }
    }
}

/// Returns what the attempt of a task may spend, without its next turn, and whose attempt it is. One that waits for input begins no turn.
pub(super) fn spender(task: &Task) -> Option<(&AgentName, Spenders)> {
    let assignment = task.assignment.as_ref()?;
    let is_idle = assignment.work_ended
        || assignment.stopping.is_some()
        || task.delivers()
        || task.state == State::InputRequired;
    let spends = Spenders { attempts: i64::from(!is_idle), turns: 0, reserved: assignment.unspent() };
    Some((assignment.agent.as_ref()?, spends)).filter(|_| !spends.is_empty())
}

/// Returns the keys of the accounts of an agent, and of its namespace.
pub(super) fn keys(namespace: &Namespace, agent: Option<&AgentName>) -> impl Iterator<Item = AccountKey> {
    let agent = agent.cloned().map(|agent| (namespace.clone(), Scope::Agent(agent)));
    agent.into_iter().chain([(namespace.clone(), Scope::Namespace)])
}

/// Returns what an attempt of a task reserves of: the budgets of its agent, of its namespace, and of its workflow and those around it.
pub(super) fn funders(task: &Task, agent: Option<&AgentName>) -> impl Iterator<Item = AccountKey> {
    let namespace = task.namespace.clone();
    let paid_by = task.step.as_ref().map(|place| place.paid_by.clone()).unwrap_or_default();
    let workflows = paid_by.into_iter().map(move |key| (namespace.clone(), Scope::Workflow(key)));
    keys(&task.namespace, agent).chain(workflows)
}

impl<B: Backend> Engine<B> {
    /// Returns an account in the current state of the batch.
    pub(super) fn account(&self, key: &AccountKey) -> Option<&Arc<Account>> {
        self.write_set.accounts.get(key).or_else(|| self.memory.accounts.get(key))
    }

    pub(super) fn account_mut(&mut self, key: &AccountKey) -> &mut Account {
        let known = self.account(key).cloned();
        let entry = self.write_set.accounts.entry(key.clone());
        Arc::make_mut(
            entry.or_insert_with(|| {
                known.unwrap_or_else(|| Arc::new(Account::new(key.0.clone(), key.1.clone())))
            }),
        )
    }

    pub(super) fn account_or_new(&self, key: &AccountKey) -> Arc<Account> {
        self.account(key).cloned().unwrap_or_else(|| Arc::new(Account::new(key.0.clone(), key.1.clone())))
    }

    pub(super) fn budget(&self, key: &AccountKey) -> Budget {
        match &key.1 {
            Scope::Namespace => self.account(key).map(|account| account.budget),
            Scope::Agent(agent) => self.agent(&(key.0.clone(), agent.clone())).map(|agent| agent.budget),
            Scope::Workflow(_) => None,
        }
        .unwrap_or_default()
    }

    /// Whether something was ever spent, or a namespace limited.
    pub(super) fn has_accounts(&self) -> bool {
        !self.memory.accounts.is_empty() || !self.write_set.accounts.is_empty()
    }

    /// Returns the attempts that spend of an account.
    fn spenders(&self, key: &AccountKey) -> Spenders {
        let mut spenders = self.memory.spenders.get(key).copied().unwrap_or_default();
        spenders.add(self.write_set.spenders.get(key).copied().unwrap_or_default(), 1);
        spenders
    }

    /// Returns what running attempts have reserved of a budget and not spent.
    pub(super) fn reserved(&self, key: &AccountKey) -> i64 {
        self.spenders(key).reserved
    }

    /// Returns what running attempts may still spend of a budget: what they have reserved, and not less than a turn of each whose agent
    /// has reported costs.
    pub(super) fn committed(&self, key: &AccountKey) -> i64 {
        let Spenders { turns, reserved, .. } = self.spenders(key);
        reserved.max(turns)
    }

    /// Returns what a turn of an agent costs; zero if unknown.
    fn turn(&self, namespace: &Namespace, agent: &AgentName) -> i64 {
        if !self.has_accounts() {
            return 0;
        }
        let account = self.account(&(namespace.clone(), Scope::Agent(agent.clone())));
        account.map_or(0, |account| account.turn)
    }

    /// Charges the attempts of an agent what a turn costs now. The namespace has the sum of its agents.
    fn reprice(&mut self, id: &AccountKey, turn_before: i64) {
        let Scope::Agent(agent) = &id.1 else { return };
        let by = self.turn(&id.0, agent).saturating_sub(turn_before);
        let change = self.spenders(id).repriced(by);
        if !change.is_empty() {
            for key in keys(&id.0, Some(agent)) {
                self.write_set.spenders.entry(key).or_default().add(change, 1);
            }
        }
    }

    /// Takes in what a command has changed about what the attempt of a task may spend. Others may use what is not reserved any more.
    pub(super) fn observe_spender(&mut self, before: Option<(AgentName, Spenders)>, key: TaskKey) {
        let Some(entry) = self.write_set.get(key) else { return };
        let after = spender(&entry.task).map(|(agent, spends)| (agent.clone(), spends));
        if before == after {
            return;
        }
        let task = Arc::clone(&entry.task);
        let is_freed = before.as_ref().is_some_and(|(_, before)| {
            (after.as_ref()).is_none_or(|(_, after)| after.reserved == 0 || after.attempts < before.attempts)
        });
        let before = before.map(|(agent, spends)| (agent, spends, -1));
        for (agent, spends, sign) in before.into_iter().chain(after.map(|(agent, spends)| (agent, spends, 1)))
        {
            let spends = spends.with_turns(self.turn(&task.namespace, &agent));
            for key in funders(&task, Some(&agent)) {
                self.write_set.spenders.entry(key.clone()).or_default().add(spends.of(&key.1), sign);
                if is_freed {
                    self.offer_room(&key);
                }
            }
        }
    }

    /// Books what a command on a task has reported as used, and lets others continue when an attempt has left some.
    pub(super) fn observe_cost(&mut self, key: TaskKey, out: &Transition, now: Timestamp) {
        let cost = out.used.cost_micro_usd;
        if cost == 0 && (out.attempt_ended.is_none() || !self.has_accounts()) {
            return;
        }
        let Some(entry) = self.write_set.get(key) else { return };
        let (namespace, agent) = (entry.task.namespace.clone(), entry.spender(out));
        let workflow = entry.task.step.as_ref().filter(|place| place.counts_cost && cost > 0);
        let spent = workflow.map(|place| (place.workflow, cost));
        self.write_set.workflows.spent.extend(spent);
        for id in keys(&namespace, agent.as_ref()) {
            if cost > 0 {
                self.spend(&id, cost, out.turn, key, now);
            }
            if let Some(ended) = &out.attempt_ended {
                self.settle_account(&id, ended);
            }
        }
    }

    /// Adds what a report of a task needs whose cost counts for a workflow.
    pub(super) fn collect_cost(&self, key: TaskKey, load: &mut Load) {
        let place = self.memory.get(key).and_then(|live| live.task.step.as_ref());
        load.workflows.keys.extend(place.filter(|place| place.counts_cost).map(|place| place.workflow));
    }

    /// Counts the costs of the last command for the budgets of workflows, from the innermost one outwards.
    pub(super) fn spend_of_workflows(&mut self, now: Timestamp) -> Result<(), Error> {
        for (workflow, micro_usd) in std::mem::take(&mut self.write_set.workflows.spent) {
            let mut next = Some(workflow);
            while let Some(key) = next {
                self.load_workflow(key)?;
                let _ = self.apply_workflow(key, workflow::Command::Spend { micro_usd }, now);
                next = self.write_set.workflows.counting_around(key);
            }
        }
        Ok(())
    }

    fn settle_account(&mut self, id: &AccountKey, ended: &EndedAttempt) {
        let cost = ended.assignment.usage.cost_micro_usd;
        let is_whole = matches!(ended.outcome, AttemptOutcome::Succeeded | AttemptOutcome::Failed)
            && ended.failure.as_ref().is_none_or(|failure| failure.class != Class::Budget);
        if id.1 != Scope::Namespace && cost > 0 && is_whole {
            self.account_mut(id).observe_attempt(cost);
        }
        self.offer_room(id);
    }

    /// Adds a cost to an account. Once its limit is reached, attempts are stopped: that of the task that reports it, and
    /// at first all others. An attempt that reports a cost is stopped before if what is left is not enough for a turn of each of the
    /// others that may cost something: so all of them together exceed the limit by a turn at most.
    fn spend(&mut self, id: &AccountKey, cost: i64, turn: i64, key: TaskKey, now: Timestamp) {
        let budget = self.budget(id);
        let account = self.account_mut(id);
        let is_first = account.exhausted(&budget, now).is_none();
        let turn_before = account.turn;
        account.add(cost, turn, now);
        let warning = account.take_warning(&budget, now);
        let is_exhausted = account.exhausted(&budget, now).is_some();
        self.reprice(id, turn_before);
        if let Some(message) = warning {
            self.write_set.next.push_back((key, Command::WarnOfBudget { message }));
        }
        let own = self.write_set.get(key).and_then(|entry| {
            let (agent, own) = spender(&entry.task)?;
            let spends_of_it = own.attempts > 0 && id.1.agent().is_none_or(|of| of == agent);
            spends_of_it.then(|| own.with_turns(self.turn(&id.0, agent)).turns)
        });
        if own.is_none() && !is_exhausted {
            return;
        }
        let others = self.spenders(id).turns.saturating_sub(own.unwrap_or_default());
        let account = self.account_or_new(id);
        let Some(period) = account.blocked(&budget, others, 0, now) else { return };
        let stopping = stopping(&account, &budget, account.wait(period, now), now);
        let on_workers = self.memory.on_workers().filter(|_| is_first && is_exhausted);
        let mut concerned: Vec<_> = on_workers.filter(|key| self.spends(*key, id)).collect();
        concerned.sort_unstable();
        concerned.truncate(MAX_STOPPED);
        concerned.retain(|other| *other != key);
        concerned.push(key);
        for key in concerned {
            let entry = self.write_set.get(key).map(|entry| &entry.task);
            let Some(task) = entry.or_else(|| self.memory.get(key).map(|live| &live.task)) else { continue };
            if task.state.is_on_worker() {
                let stop = stop(task, &stopping, now);
                self.write_set.next.push_back((key, stop));
            }
        }
    }

    /// Stops an attempt that its worker continues, if a budget is still spent.
    pub(super) fn stop_continued(&mut self, key: TaskKey, now: Timestamp) {
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { return };
        let agent = task.assignment.as_ref().and_then(|assignment| assignment.agent.as_ref());
        for id in keys(&task.namespace, agent) {
            let (budget, account) = (self.budget(&id), self.account_or_new(&id));
            if let Some(period) = account.exhausted(&budget, now) {
                let stopping = stopping(&account, &budget, account.wait(period, now), now);
                self.write_set.next.push_back((key, stop(&task, &stopping, now)));
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
    pub(super) fn put_budget(
        &mut self,
        namespace: Namespace,
        budget: Budget,
        expected: Option<Budget>,
        now: Timestamp,
    ) -> Result<Answer, Refused> {
        let id = (namespace, Scope::Namespace);
        let current = self.budget(&id);
        if expected.is_some_and(|expected| expected != current) {
            return Err(Refused::BudgetChanged);
        }
        if current != budget {
            self.account_mut(&id).budget = budget;
            self.budget_changed(&id, now);
        }
        Ok(Reply::Account(self.account_or_new(&id)).into())
    }

    /// Replaces what an account has spent today and this month, and lets continue what waits for its budget.
    pub(super) fn correct_account(
        &mut self,
        id: AccountKey,
        spent: [Option<i64>; 2],
        now: Timestamp,
    ) -> Answer {
        let turn_before = self.account(&id).map_or(0, |account| account.turn);
        for (period, spent) in Period::ALL.into_iter().zip(spent) {
            if let Some(spent) = spent {
                self.account_mut(&id).correct(period, spent, now);
            }
        }
        self.reprice(&id, turn_before);
        self.budget_changed(&id, now);
        Reply::Account(self.account_or_new(&id)).into()
    }

    /// Returns the accounts that the batch has changed, with what is reserved.
    pub(super) fn changed_accounts(&self) -> Vec<AccountChange> {
        let has_account = |key: &AccountKey| !matches!(key.1, Scope::Workflow(_));
        let reserved = self.write_set.spenders.iter();
        let reserved = reserved.filter(|(key, change)| change.reserved != 0 && has_account(key));
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

pub(super) fn waits(id: &AccountKey) -> WaitsKey {
    (id.0.clone(), WaitKey::Budget(id.1.clone()))
}

/// Returns why attempts of an account are stopped.
fn stopping(account: &Account, budget: &Budget, wait: BudgetWait, now: Timestamp) -> Stopping {
    let spent = usd(account.spent(wait.period, now));
    let limit = usd(budget.limit(wait.period).unwrap_or_default());
    let message = match account.exhausted(budget, now) {
        Some(_) => format!("{} is spent: {spent} of {limit}", wait.describe()),
        None => format!(
            "{} is nearly spent: {spent} of {limit}, and other attempts need the rest",
            wait.describe()
        ),
    };
    Stopping { failure: Failure::new(Class::Budget, message), wait: Some(wait) }
}

/// Returns the command that stops the attempt of a task. Its wait ends immediately if another agent may take the task.
fn stop(task: &Task, stopping: &Stopping, now: Timestamp) -> Command {
    let mut stopping = stopping.clone();
    if let Some(wait) = stopping.wait.as_mut().filter(|wait| !is_bound(task, &wait.scope)) {
        wait.until = now;
    }
    Command::Stop { fence: task.fence, stopping }
}

/// Whether only the agent of a budget may take a task, as far as the task names it or its worker.
pub(super) fn is_bound(task: &Task, scope: &Scope) -> bool {
    matches!(scope, Scope::Namespace | Scope::Workflow(_))
        || task.agent().is_some()
        || matches!(task.target, Target::Worker(_))
}
