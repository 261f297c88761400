//! Money: usage of live and of superseded attempts, each counted once, and the end of a task whose budget is spent. Knows no
//! prices.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::apply::Step;
use super::{
    AttemptRef, Body, CONFIRM_SLACK, Completion, Desired, EventEffect, Item, Rejected, Reply, State,
    StateChange, Task,
};
use crate::failure::{Class, Failure, Severity};
use crate::spending::{BudgetWait, Scope, WARNING_PERCENT};
use crate::usage::{Usage, usd};
use crate::{AgentName, Fence, Timestamp, WorkerName};

/// Attempts whose late usage is still counted, the last of each task.
const MAX_SUPERSEDED: usize = 8;

/// Cost of an attempt beyond which a report is taken as wrong, unless the task may spend more: ten thousand US dollars.
const MAX_COST: i64 = 10_000_000_000;
/// Times the budget of a task that its attempts may report before the rest is taken as wrong, and the least such bound: a
/// hundred US dollars. A message of a model that was in progress may cost more than a small budget.
const MAX_EXCESS: i64 = 10;
const MIN_COST_BOUND: i64 = 100_000_000;

/// Why the control plane stops an attempt before its own end. A success that is reported nevertheless stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    pub failure: Failure,
    /// The budget of its agent or namespace for which the task waits then, instead of failing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<BudgetWait>,
}

/// An attempt that left its worker without a success. Its worker may still report what it has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    pub fence: Fence,
    pub worker: WorkerName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Its usage, as far as the task counts it.
    #[serde(default, skip_serializing_if = "Usage::is_zero")]
    pub usage: Usage,
    /// Whether its worker had not accepted it: it has hardly spent anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unaccepted: bool,
}

impl Task {
    /// Returns the usage of all attempts, including the running one.
    pub fn total_usage(&self) -> Usage {
        self.assignment.as_ref().map_or_else(|| self.usage.clone(), |a| self.usage.plus(&a.usage))
    }

    /// Returns the limit of the cost of all attempts, in millionths of a US dollar; `None` for no limit.
    pub fn budget_micro_usd(&self) -> Option<i64> {
        self.limits.budget_micro_usd.or(self.defaults.budget_micro_usd)
    }

    /// Returns how much of the cost of an attempt is counted, of which `counted` is already.
    fn max_cost(&self, counted: i64) -> i64 {
        let of_task = self.budget_micro_usd().map_or(i64::MAX, |budget| {
            let others = self.total_usage().cost_micro_usd.saturating_sub(counted);
            budget.saturating_mul(MAX_EXCESS).max(MIN_COST_BOUND).saturating_sub(others)
        });
        of_task.min(MAX_COST.max(self.budget_micro_usd().unwrap_or_default())).max(counted)
    }

    /// Returns the failure of a task that has spent its budget.
    pub(super) fn over_budget(&self) -> Option<Failure> {
        let budget = self.budget_micro_usd()?;
        let used = self.total_usage().cost_micro_usd;
        if used < budget {
            return None;
        }
        let message = format!("the task has spent its budget: {} of {}", usd(used), usd(budget));
        let mut failure = Failure::new(Class::Budget, message);
        failure.hint = "create a task with a larger `limits.budgetUsd`".to_owned();
        Some(failure)
    }

    /// Takes why the attempt was stopped, if its worker has not confirmed the end in time: it has worked until then.
    pub(super) fn overdue_stop(&mut self, by: Timestamp) -> Option<Box<Stopping>> {
        let overdue = self.confirm_by.is_some_and(|at| at <= by);
        let assignment = self.assignment.as_mut().filter(|_| overdue)?;
        let stopping = assignment.stopping.take()?;
        assignment.pause(true, by);
        Some(stopping)
    }

    /// Remembers an attempt that leaves its worker without a success.
    pub(super) fn supersede(&mut self, one: Superseded) {
        self.superseded.push(one);
        if self.superseded.len() > MAX_SUPERSEDED {
            let least = self.superseded.iter().position(|one| one.unaccepted);
            self.superseded.remove(least.unwrap_or_default());
        }
    }
}

impl Step<'_> {
    /// Counts the usage that the attempt reports after a step of its work, of which several may come at the same time.
    pub(super) fn record_turn(&mut self, reported: &Usage) {
        let cost = self.record_usage(reported);
        self.out.turn = self.out.turn.max(cost);
    }

    /// Counts the totals at the end of the attempt. They are no turn, unless the attempt has reported nothing before.
    pub(super) fn record_final_usage(&mut self, reported: &Usage) {
        let is_first = self.task.assignment.as_ref().is_some_and(|one| one.usage.cost_micro_usd == 0);
        let cost = self.record_usage(reported);
        if is_first {
            self.out.turn = self.out.turn.max(cost);
        }
    }

    /// Raises the attempt's usage to the reported totals, and records the difference for the commit. Returns its cost.
    fn record_usage(&mut self, reported: &Usage) -> i64 {
        let Some(counted) = self.task.assignment.as_ref().map(|assignment| assignment.usage.cost_micro_usd)
        else {
            return 0;
        };
        let reported = self.plausible(reported, counted);
        let Some(assignment) = &mut self.task.assignment else { return 0 };
        let total = assignment.usage.at_least(&reported);
        let added = total.minus(&assignment.usage);
        self.out.used = self.out.used.plus(&added);
        assignment.usage = total;
        self.note_spending();
        added.cost_micro_usd
    }

    /// Returns reported totals of an attempt of which `counted` is known, without a cost that it can hardly have: one report
    /// of a program is not to spend the money of all others.
    fn plausible<'a>(&mut self, reported: &'a Usage, counted: i64) -> Cow<'a, Usage> {
        let most = self.task.max_cost(counted);
        let cost = reported.cost_micro_usd;
        if cost <= most {
            return Cow::Borrowed(reported);
        }
        if counted < most {
            let message =
                format!("the worker reports a cost of {}, of which {} are counted", usd(cost), usd(most));
            self.log(self.now, Body::Notice { severity: Severity::High, code: IMPLAUSIBLE.into(), message });
        }
        Cow::Owned(Usage { cost_micro_usd: most, ..reported.clone() })
    }

    /// Notes in the log, once, that most of the task's budget is spent.
    fn note_spending(&mut self) {
        let task = &mut *self.task;
        let Some(budget) = task.budget_micro_usd().filter(|_| !task.nearly_spent) else { return };
        let used = task.total_usage().cost_micro_usd;
        if used >= budget || i128::from(used) * 100 < i128::from(budget) * i128::from(WARNING_PERCENT) {
            return;
        }
        task.nearly_spent = true;
        let message = format!("the task has spent {} of its budget of {}", usd(used), usd(budget));
        let code = NEARLY_SPENT_BY_TASK.into();
        self.log(self.now, Body::Notice { severity: Severity::Medium, code, message });
    }

    /// Counts what a superseded attempt has used beyond what is counted. Totals of an attempt only grow, so that repeated and
    /// reordered reports count once.
    pub(super) fn record_late_usage(&mut self, attempt: &AttemptRef, reported: &Usage) {
        let task = &*self.task;
        let is_it = |one: &Superseded| one.fence == attempt.fence && one.worker == attempt.by.worker;
        let Some(at) = task.superseded.iter().position(is_it) else { return };
        let Some(counted) = task.superseded.get(at).map(|late| late.usage.cost_micro_usd) else { return };
        let reported = self.plausible(reported, counted);
        let task = &mut *self.task;
        let Some(late) = task.superseded.get_mut(at) else { return };
        let total = late.usage.at_least(&reported);
        let added = total.minus(&late.usage);
        if added.adds_nothing() {
            return;
        }
        late.usage = total;
        task.usage = task.usage.plus(&added);
        self.out.used = self.out.used.plus(&added);
        self.out.used_by.clone_from(&late.agent);
        self.note_spending();
        self.check_budget();
    }

    /// Counts the usage in a report of a superseded attempt, and nothing else of it.
    pub(super) fn late_report(&mut self, attempt: &AttemptRef, items: &[Item]) {
        for item in items {
            if let EventEffect::Usage(usage) = &item.effect {
                self.record_late_usage(attempt, usage);
            }
        }
        self.reply(Reply::Stale);
    }

    /// Stops the running attempt if the task has spent its budget.
    pub(super) fn check_budget(&mut self) {
        if self.task.state.is_on_worker()
            && let Some(failure) = self.task.over_budget()
        {
            self.stop_attempt(Stopping { failure, wait: None });
        }
    }

    pub(super) fn stop(&mut self, fence: Fence, stopping: Stopping) -> Result<(), Rejected> {
        if !self.task.state.is_on_worker() {
            return Err(Rejected::State(self.task.state));
        }
        if fence == self.task.fence {
            self.stop_attempt(stopping);
        } else {
            self.reply(Reply::Stale);
        }
        Ok(())
    }

    /// Requests the end of the attempt, once. One whose work has ended only stores what it left.
    fn stop_attempt(&mut self, stopping: Stopping) {
        let task = &mut *self.task;
        let Some(assignment) = &mut task.assignment else { return };
        if assignment.work_ended || assignment.stopping.is_some() || task.desired == Desired::Cancelled {
            return;
        }
        let message = stopping.failure.message.clone();
        assignment.stopping = Some(Box::new(stopping));
        task.confirm_by = Some(self.now + task.cancel_grace() + CONFIRM_SLACK);
        let code = STOPPING.into();
        self.log(self.now, Body::Notice { severity: Severity::Medium, code, message });
    }

    /// Ends a stopped attempt, with what its worker reports as its failure, if it does.
    pub(super) fn end_stopped(&mut self, stopping: Stopping, completion: Completion) {
        let Stopping { mut failure, wait } = stopping;
        if let Completion::Failed(reported) = completion
            && reported.class == Class::Budget
        {
            failure.message = reported.message;
        }
        let message = failure.message.clone();
        let task = &mut *self.task;
        let Some(wait) = wait else {
            task.failures += 1;
            return self.go(StateChange::new(State::Failed, "budget").message(message).failure(failure));
        };
        // Not the task is to blame, and each repetition has cost money: nothing is counted.
        task.retry_at = Some(wait.until);
        let mut change = StateChange::new(State::Pending, "budget").message(message).failure(failure);
        change.retry_at = task.retry_at;
        self.go(change);
        if wait.until > self.now {
            self.task.budget_wait = Some(Box::new(BudgetWait { since: self.now, ..wait }));
        }
        self.settle();
    }

    /// Reserves a part of the budgets of its agent and its namespace for the attempt that begins.
    pub(super) fn reserve(&mut self, micro_usd: i64) {
        if let Some(assignment) = &mut self.task.assignment {
            assignment.reserved = micro_usd;
        }
    }

    /// Lets a ready task wait for a budget.
    pub(super) fn await_budget(&mut self, wait: BudgetWait) {
        let task = &mut *self.task;
        if task.state != State::Queued || wait.until <= self.now {
            return;
        }
        let message = format!("{} has no room for the task", wait.describe());
        let mut change = StateChange::new(State::Pending, BUDGET_SPENT).message(message);
        change.retry_at = Some(wait.until);
        task.retry_at = Some(wait.until);
        task.budget_wait = Some(Box::new(wait));
        self.go(change);
    }

    pub(super) fn budget_lifted(&mut self, scope: &Scope) {
        let task = &mut *self.task;
        if task.state == State::Pending && task.budget_wait.as_ref().is_some_and(|wait| wait.scope == *scope)
        {
            task.leave_waits(self.now);
            task.retry_at = None;
            self.settle();
        }
    }

    pub(super) fn warn_of_budget(&mut self, message: String) {
        let code = NEARLY_SPENT.into();
        self.log(self.now, Body::Notice { severity: Severity::High, code, message });
    }
}

/// Code of the notice with which a running attempt is stopped.
pub const STOPPING: &str = "budget_reached";
/// Code of the notice that a worker has reported a cost that no attempt has.
const IMPLAUSIBLE: &str = "implausible_cost";
/// Code of the notice that most of the budget of a task is spent.
pub const NEARLY_SPENT_BY_TASK: &str = "task_budget_nearly_spent";
/// Code of the notice that most of the budget of an agent or a namespace is spent.
pub const NEARLY_SPENT: &str = "budget_nearly_spent";
/// Reason of the step by which a ready task begins to wait for a budget.
const BUDGET_SPENT: &str = "budget_spent";
