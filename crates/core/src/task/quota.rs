//! Waits for a model credential that cools down: without a slot, an attempt or a clock, and with the rank kept.

use super::apply::Step;
use super::command::AttemptRef;
use super::run::FenceCheck;
use super::{Assignment, Own, Rejected, Reply, State, StateChange, Task};
use crate::Timestamp;
use crate::quota::{CredentialId, ModelAccess, QuotaWait, UsedCredential};

/// Reason of the step by which a ready task begins to wait.
const COOLING_DOWN: &str = "cooling_down";

impl Own {
    /// Whether the task decides what its model calls reach: they show nothing of its agent's credential.
    pub fn leaves_agents_api(&self) -> bool {
        self.program || self.endpoint
    }
}

impl Task {
    /// Returns the credential that an attempt of the task uses, as far as its limits concern others.
    pub fn credential_of(&self, assignment: &Assignment) -> Option<UsedCredential> {
        let named = assignment.model.credential?;
        // Variables of the agent may take precedence over those of the task.
        if self.credential == Some(named) {
            return Some(UsedCredential { id: named, own: true });
        }
        let id = assignment.model.at_backend.unwrap_or(named);
        (!assignment.own.leaves_agents_api()).then_some(UsedCredential { id, own: false })
    }

    /// Returns the back end of its agent that an attempt of the task uses; `None` if it is not known, or the task's own.
    pub fn backend_of<'a>(&self, assignment: &'a Assignment) -> Option<&'a str> {
        let named = Some(&*assignment.model.backend).filter(|name| !name.is_empty());
        named.filter(|_| !assignment.own.leaves_agents_api())
    }

    /// Whether the task would use the credential of its agent, as far as it is known before it starts.
    pub fn uses_agents_credential(&self) -> bool {
        self.credential.is_none() && !self.own.leaves_agents_api()
    }

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
                if let Some(assignment) = &mut self.task.assignment {
                    assignment.model = access;
                }
                self.out.identified = true;
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
        retry_at: Timestamp,
    ) {
        let task = &mut *self.task;
        let ready = task.state == State::Queued;
        let waits = task.state == State::Pending && task.retry_at.is_some();
        if retry_at <= self.now || !(ready || waits) {
            return;
        }
        // In the queue it has waited for the credential too.
        let since =
            task.queued_at.filter(|_| ready).map_or(self.now, |queued| queued.max(since).min(self.now));
        let message = format!("its credential {credential} has reached the limit {limit}");
        // A failed attempt waits until the end by itself.
        let retry_at = if until > retry_at { Some(retry_at) } else { task.retry_at.max(Some(retry_at)) };
        task.retry_at = retry_at;
        task.quota = Some(Box::new(QuotaWait { credential, limit, since, until }));
        if ready {
            let mut change = StateChange::new(State::Pending, COOLING_DOWN).message(message);
            change.retry_at = retry_at;
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
