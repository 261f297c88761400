//! Waits for a model credential that cools down: without a slot, an attempt or a clock, and with the rank kept.

use super::apply::Step;
use super::command::AttemptRef;
use super::run::FenceCheck;
use super::{Rejected, Reply, State, StateChange, Task};
use crate::Timestamp;
use crate::quota::{CredentialId, ModelAccess, QuotaWait};

/// Reason of the step by which a ready task begins to wait.
const COOLING_DOWN: &str = "cooling_down";

impl Task {
    /// Returns the end of its queue time. A task that has started once has none: it keeps its rank when its worker is
    /// lost, and the time that it ran must not count.
    pub(super) fn queue_deadline(&self) -> Option<Timestamp> {
        if self.started_at.is_some() || self.quota.is_some() || self.budget_wait.is_some() {
            return None;
        }
        Some(self.ready_at? + self.queue_timeout()? + self.away + self.cooled)
    }

    /// Ends the wait for a credential or a budget.
    pub(super) fn leave_waits(&mut self, now: Timestamp) {
        let (quota, budget) = (self.quota.take(), self.budget_wait.take());
        for since in quota.map(|wait| wait.since).into_iter().chain(budget.map(|wait| wait.since)) {
            self.cooled = self.cooled.saturating_add(now.since(since));
        }
    }
}

impl Step<'_> {
    pub(super) fn use_model(&mut self, attempt: &AttemptRef, access: ModelAccess) -> Result<(), Rejected> {
        match self.check_fence(attempt)? {
            FenceCheck::Stale => self.reply(Reply::Stale),
            FenceCheck::Live => {
                self.start();
                let task = &mut *self.task;
                // Variables of the agent may take precedence over those of the task.
                if task.credential.is_some() {
                    task.credential = access.credential.or(task.credential);
                }
                if let Some(assignment) = &mut task.assignment {
                    assignment.model = access;
                }
            }
        }
        Ok(())
    }

    /// Lets a ready task, or one that waits for its next attempt, wait for a credential.
    pub(super) fn await_quota(
        &mut self,
        credential: CredentialId,
        limit: String,
        since: Timestamp,
        until: Timestamp,
    ) {
        let task = &mut *self.task;
        let ready = task.state == State::Queued;
        let waits = task.state == State::Pending && task.retry_at.is_some();
        if until <= self.now || !(ready || waits) {
            return;
        }
        // In the queue it has waited for the credential too.
        let since =
            task.queued_at.filter(|_| ready).map_or(self.now, |queued| queued.max(since).min(self.now));
        let message = format!("its credential {credential} has reached the limit {limit}");
        task.retry_at = task.retry_at.max(Some(until));
        task.quota = Some(Box::new(QuotaWait { credential, limit, since }));
        if ready {
            let mut change = StateChange::new(State::Pending, COOLING_DOWN).message(message);
            change.retry_at = Some(until);
            self.go(change);
        }
    }

    pub(super) fn quota_lifted(&mut self, credential: CredentialId) {
        let task = &mut *self.task;
        if task.state == State::Pending
            && task.quota.as_ref().is_some_and(|wait| wait.credential == credential)
        {
            task.leave_waits(self.now);
            task.retry_at = None;
            self.settle();
        }
    }
}
