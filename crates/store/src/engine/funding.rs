//! Room in budgets: an assignment reserves what its attempt usually costs, what finds no room waits, and continues once there is
//! some. `budgets` keeps the books.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rota_core::spending::{Budget, BudgetWait, Period, Scope, WhenExhausted};
use rota_core::target::Target;
use rota_core::task::{Command, Desired, State, Task};
use rota_core::workflow::Workflow;
use rota_core::{AgentName, Namespace, TaskKey, Timestamp, WorkflowKey};

use super::budgets::{is_bound, keys, waits};
use super::{AgentKey, Engine};
use crate::{
    AccountKey, Backend, Error, FollowUp, Load, Refused, WORKFLOW_MEMBER, WaitKey, WaitsKey, WaitsPage,
};

/// Waiting tasks among which those with the best ranks continue when a budget has room again.
pub(super) const MAX_CANDIDATES: usize = 64;
/// Largest number of tasks that continue when a budget has room again.
const MAX_LIFTED: usize = 16;
/// Time after which the room of a budget is offered again that no attempt has reserved: the tasks that continued last may not
/// have found a worker.
pub(super) const OFFER_INTERVAL: Duration = Duration::from_secs(60);

/// What the budgets have for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Funds {
    /// Room for it, of which this is reserved.
    Enough(i64),
    /// Nothing: the task waits from now on.
    Waits,
    /// Nothing of the worker's agent: another one may take the task, or the same one later, where the end of the wait precedes the
    /// task, since the clock was set back.
    Elsewhere,
}

/// What an attempt is expected to cost, in millionths of a US dollar.
#[derive(Debug, Clone, Copy)]
struct Cost {
    micro_usd: i64,
    /// Whether it is more than the limit that the task has set itself.
    is_known: bool,
}

impl<B: Backend> Engine<B> {
    /// Returns what a task is expected to cost: as much as usual, or what is left of its own budget if that is less.
    fn expected_cost(&self, task: &Task, agent: Option<&AgentName>) -> Cost {
        let usual = agent.and_then(|agent| {
            let account = self.account(&(task.namespace.clone(), Scope::Agent(agent.clone())))?;
            Some(account.usual).filter(|usual| *usual > 0)
        });
        let left =
            task.budget_micro_usd().map(|budget| budget.saturating_sub(task.usage.cost_micro_usd).max(0));
        let micro_usd = usual.into_iter().chain(left).min().unwrap_or_default();
        Cost { micro_usd, is_known: usual.is_some() }
    }

    /// Returns the limited budgets of an agent and its namespace.
    fn limited(&self, namespace: &Namespace, agent: &AgentName) -> Vec<(Budget, AccountKey)> {
        let budgets = keys(namespace, Some(agent)).map(|key| (self.budget(&key), key));
        budgets.filter(|(budget, _)| !budget.is_empty()).collect()
    }

    /// Looks whether the budgets have room for a ready task on a worker of an agent. If not, the task waits, unless
    /// another agent may take it.
    pub(super) fn fund(
        &mut self,
        key: TaskKey,
        agent: &AgentName,
        not_isolating: &BTreeSet<AgentName>,
        now: Timestamp,
    ) -> Result<Funds, Error> {
        self.load(key)?;
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else {
            return Ok(Funds::Enough(0));
        };
        if task.delivers() {
            return Ok(Funds::Enough(0));
        }
        let limited = self.limited(&task.namespace, agent);
        let of_workflows = self.room_of_workflows(&task)?;
        if limited.is_empty() && of_workflows.is_empty() {
            return Ok(Funds::Enough(0));
        }
        let Cost { micro_usd: cost, is_known } = self.expected_cost(&task, Some(agent));
        // One that runs alone may use what is left.
        let is_full = |(id, room): &&(AccountKey, i64)| self.reserved(id) > 0 && *room < cost.max(1);
        if let Some((id, _)) = of_workflows.iter().find(is_full) {
            let (scope, until) = (id.1.clone(), now + OFFER_INTERVAL);
            let wait = BudgetWait { scope, period: Period::Day, since: now, until };
            return self.await_budget(key, wait, now);
        }
        // One attempt that may use what is left shows what those of the agent cost.
        let is_first =
            !is_known && self.reserved(&(task.namespace.clone(), Scope::Agent(agent.clone()))) == 0;
        let least = if is_first { cost.min(1) } else { cost };
        let blocked = limited.iter().filter_map(|(budget, key)| {
            let account = self.account_or_new(key);
            let period = account.blocked(budget, self.committed(key), least, now)?;
            Some(account.wait(period, now))
        });
        let (bound, mut other): (Vec<_>, Vec<_>) = blocked.partition(|wait| is_bound(&task, &wait.scope));
        let wait = match (bound.into_iter().max_by_key(|wait| wait.until), other.pop()) {
            (None, None) => {
                let room = limited.iter().filter_map(|(budget, key)| {
                    self.account_or_new(key).room(budget, self.committed(key), now)
                });
                let of_workflows = of_workflows.iter().map(|(_, room)| (*room).max(0));
                let least = room.chain(of_workflows).chain([cost]).min();
                return Ok(Funds::Enough(least.unwrap_or_default()));
            }
            (Some(wait), _) => wait,
            (None, Some(wait)) => match self.without_others(&task, agent, not_isolating, wait, now) {
                Some(wait) => wait,
                None => return Ok(Funds::Elsewhere),
            },
        };
        self.write_set.full.insert((task.namespace.clone(), wait.scope.clone()));
        self.await_budget(key, wait, now)
    }

    fn await_budget(&mut self, key: TaskKey, wait: BudgetWait, now: Timestamp) -> Result<Funds, Error> {
        let _ = self.apply(key, Command::AwaitBudget(wait), now)?;
        let waits = self.load(key)?.is_some_and(|task| task.state == State::Pending);
        Ok(if waits { Funds::Waits } else { Funds::Elsewhere })
    }

    /// Returns the workflows whose budgets pay for tasks, as far as they are not known.
    pub(super) fn payers(&self, tasks: impl Iterator<Item = TaskKey>) -> impl Iterator<Item = WorkflowKey> {
        let places = tasks.filter_map(|key| self.write_set.get(key)?.task.step.as_ref());
        let payers = places.flat_map(|place| place.paid_by.iter().copied());
        payers.filter(|key| !self.write_set.workflows.records.contains_key(key))
    }

    /// Loads the workflows whose budgets pay for tasks, in one call.
    pub(super) fn load_payers(&mut self, tasks: &[TaskKey]) -> Result<(), Error> {
        let payers = self.payers(tasks.iter().copied());
        let payers: Vec<_> = payers.map(|key| (key, WORKFLOW_MEMBER)).collect();
        self.load_steps(payers)
    }

    /// Returns what the budgets of the workflows of a task leave, besides what its other tasks have reserved.
    fn room_of_workflows(&mut self, task: &Task) -> Result<Vec<(AccountKey, i64)>, Error> {
        let mut room = Vec::new();
        for workflow in task.step.iter().flat_map(|place| &place.paid_by) {
            self.load_workflow(*workflow)?;
            let Some(record) = self.write_set.workflows.workflow(*workflow) else { continue };
            let Some(budget) = record.budget_micro_usd else { continue };
            let left = budget.saturating_sub(record.cost_micro_usd);
            let id = (task.namespace.clone(), Scope::Workflow(*workflow));
            let reserved = self.reserved(&id);
            room.push((id, left.saturating_sub(reserved)));
        }
        Ok(room)
    }

    /// Returns the wait of a task that finds no room in the budget of an agent and names capabilities, or several agents; `None` while
    /// another agent of them has money. If none has any, the task waits for the one that has some first.
    fn without_others(
        &self,
        task: &Task,
        agent: &AgentName,
        not_isolating: &BTreeSet<AgentName>,
        own: BudgetWait,
        now: Timestamp,
    ) -> Option<BudgetWait> {
        let (left_out, others): (Vec<_>, Vec<_>) = match &task.target {
            Target::Capabilities(words) => {
                let others = self.agents_with(&(task.namespace.clone(), agent.clone()), words);
                let lacks =
                    |other: &AgentName| task.target.demands_isolation() && not_isolating.contains(other);
                others.into_iter().partition(lacks)
            }
            Target::Agents(agents) => {
                let exists = |other: &&AgentName| {
                    *other != agent && self.agent(&(task.namespace.clone(), (*other).clone())).is_some()
                };
                (Vec::new(), agents.iter().filter(exists).cloned().collect())
            }
            _ => return Some(own),
        };
        let spent = |name: AgentName| {
            let key = (task.namespace.clone(), Scope::Agent(name));
            let account = self.account_or_new(&key);
            account.exhausted(&self.budget(&key), now).map(|exhausted| account.wait(exhausted, now))
        };
        let mut first = own;
        // What running attempts have reserved may become free any time.
        let is_spent = spent(agent.clone()).is_some();
        for name in others {
            let wait = spent(name)?;
            if is_spent && wait.until < first.until {
                first = wait;
            }
        }
        // One that has money, and isolates nothing now, may have a worker that does at any time.
        if left_out.into_iter().any(|name| spent(name).is_none()) {
            first.until = first.until.min(now + OFFER_INTERVAL);
        }
        Some(first)
    }

    /// Returns the other agents of a namespace that have all of some capabilities.
    fn agents_with(&self, but: &AgentKey, words: &BTreeSet<String>) -> Vec<AgentName> {
        let is_near = |key: &&AgentKey| key.0 == but.0;
        let before = self.memory.agents.range(..but.clone()).rev().map(|(key, _)| key);
        let behind = self.memory.agents.range(but.clone()..).map(|(key, _)| key);
        let new = self.write_set.agents.keys().filter(is_near);
        let known = before.take_while(is_near).chain(behind.take_while(is_near)).chain(new);
        let fits =
            |key: &&AgentKey| *key != but && self.agent(key).is_some_and(|agent| agent.may_have(words));
        known.filter(fits).map(|key| key.1.clone()).collect()
    }

    /// Returns why a new task is refused, if a budget is spent that wants that. One of a step was accepted with its workflow: it
    /// waits.
    pub(super) fn refuses(&self, task: &Task, now: Timestamp) -> Option<Refused> {
        if task.step.is_some() {
            return None;
        }
        let cost = self.expected_cost(task, task.agent());
        let cost = if cost.is_known { cost.micro_usd } else { 0 };
        self.spent(keys(&task.namespace, task.agent()), cost, now)
    }

    /// Returns why a new workflow is refused. The budget of its namespace decides: which agents its steps need is known later.
    pub(super) fn refuses_workflow(&self, workflow: &Workflow, now: Timestamp) -> Option<Refused> {
        let is_outermost = workflow.parent.is_none();
        is_outermost.then(|| self.spent(keys(&workflow.namespace, None), 0, now)).flatten()
    }

    /// Returns the first of these budgets that refuses what is new and has no room for this cost.
    fn spent(
        &self,
        mut keys: impl Iterator<Item = AccountKey>,
        cost: i64,
        now: Timestamp,
    ) -> Option<Refused> {
        keys.find_map(|key| {
            let budget = self.budget(&key);
            if budget.is_empty() || budget.when_exhausted != WhenExhausted::Refuse {
                return None;
            }
            let account = self.account_or_new(&key);
            // What is only reserved may become free again.
            let period = account.blocked(&budget, 0, cost, now)?;
            Some(Refused::BudgetSpent(account.wait(period, now)))
        })
    }

    /// Takes in that a task waits for a budget.
    pub(super) fn begin_wait(&mut self, id: &AccountKey) {
        let has_account = !matches!(id.1, Scope::Workflow(_));
        if has_account && !self.account_or_new(id).waiting {
            self.account_mut(id).waiting = true;
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

    /// Lets tasks continue that wait for a budget, which has changed: all of them, or as many as there is room for.
    pub(super) fn budget_changed(&mut self, id: &AccountKey, now: Timestamp) {
        if self.account(id).is_none() {
            return;
        }
        self.account_mut(id).forget_warnings();
        let waits = waits(id);
        match self.fundable(id, now) {
            0 => {}
            MAX_LIFTED.. => self.write_set.pending.push(FollowUp::Lifted { waits }),
            _ => self.write_set.pending.push(FollowUp::Funded { waits }),
        }
    }

    /// Lets tasks continue that wait for a budget, which may have room.
    pub(super) fn offer_room(&mut self, id: &AccountKey) {
        let may_wait = match id.1 {
            Scope::Workflow(_) => true,
            _ => self.account(id).is_some_and(|account| account.waiting),
        };
        if !may_wait {
            return;
        }
        let funded = FollowUp::Funded { waits: waits(id) };
        if !self.write_set.pending.queue.iter().any(|(_, queued)| *queued == funded) {
            self.write_set.pending.push(funded);
        }
    }

    /// Takes in that a ready task has left the queue without an attempt: others may use the room that it was given.
    pub(super) fn left_queue(&mut self, key: TaskKey) {
        let Some(task) = self.write_set.get(key).map(|entry| Arc::clone(&entry.task)) else { return };
        // One that waits for a budget has found no room.
        if task.budget_wait.is_none() && self.has_accounts() {
            for id in keys(&task.namespace, task.agent()) {
                self.offer_room(&id);
            }
        }
    }

    /// Offers the room of budgets again of which no attempt has reserved anything.
    pub(super) fn offer_unused_room(&mut self, now: Timestamp) {
        if self.memory.next_offer().is_none_or(|at| at > now) {
            return;
        }
        self.write_set.offered_at = Some(now);
        let unused = self.memory.waiting.iter().filter(|id| self.reserved(id) == 0);
        let unused: Vec<_> = unused.filter(|id| self.fundable(id, now) > 0).cloned().collect();
        for id in unused {
            self.offer_room(&id);
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
        let (mut ranked, mut suspended) = (Vec::new(), Vec::new());
        for key in waiters {
            let waits = |task: &&Task| {
                task.state == State::Pending
                    && task.budget_wait.as_ref().is_some_and(|wait| wait.scope == scope)
            };
            let Some(task) = self.load(key)?.filter(waits) else { continue };
            // One that is suspended takes no room, and looks for some when it may run.
            match task.desired {
                Desired::Run => ranked.push((task.rank(), key)),
                _ => suspended.push(key),
            }
        }
        if ranked.is_empty() && !more {
            self.no_more_waits(&waits);
        }
        ranked.sort_unstable();
        let lifted = ranked.into_iter().take(most).map(|(_, key)| key).chain(suspended);
        let lift = |key| (key, Command::BudgetLifted { scope: scope.clone() });
        self.write_set.next.extend(lifted.map(lift));
        Ok(())
    }

    /// Returns how many tasks may continue with the room that a budget has, up to [`MAX_LIFTED`].
    pub(super) fn fundable(&self, id: &AccountKey, now: Timestamp) -> usize {
        if matches!(id.1, Scope::Workflow(_)) {
            return MAX_LIFTED;
        }
        let (account, budget, committed) = (self.account_or_new(id), self.budget(id), self.committed(id));
        if account.blocked(&budget, committed, account.usual, now).is_some() {
            return 0;
        }
        match (account.room(&budget, committed, now), account.usual) {
            (Some(room), usual @ 1..) => usize::try_from(room / usual).unwrap_or(0).clamp(1, MAX_LIFTED),
            _ => MAX_LIFTED,
        }
    }
}
