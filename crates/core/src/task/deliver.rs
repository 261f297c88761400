//! Work that is done and kept, and not delivered: the next attempts only deliver it, at the cost of nothing but time.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::apply::Step;
use super::{State, StateChange, Task};
use crate::Timestamp;
use crate::failure::{Class, Failure};
use crate::quota::CredentialId;
use crate::retry;

/// Time from the first failure of a delivery after which work is delivered no more: hosts are away for a weekend, and nothing
/// should be paid for twice.
const MAX_DELIVERING_TIME: Duration = Duration::from_hours(7 * 24);
/// Shortest first and last waits between two deliveries.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(300);
const HINT: &str = "the changes are kept: see `rota diff TASK`, and `rota apply-diff TASK --branch NAME` to push them yourself; \
                    `rota retry` delivers them again, and `rota retry --from-scratch` does the work again";
/// Hint while the task waits for the next delivery.
const HINT_KEPT: &str = "the changes are kept: see `rota diff TASK`, and `rota apply-diff TASK --branch NAME` to push them yourself";
/// Reason of the step by which a task begins to wait for the next delivery.
const UNDELIVERED: &str = "undelivered";

/// Work of an attempt that later ones deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Number of the attempt that did the work. Its result is stored, and its list of artifacts stays to be found after the last delivery.
    pub attempt: u32,
    /// Number of its deliveries that have failed.
    pub failed: u32,
    /// Time of the first failure; none in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl Undelivered {
    /// Returns when the work is delivered no more.
    pub fn until(&self, now: Timestamp) -> Timestamp {
        self.since.unwrap_or(now) + MAX_DELIVERING_TIME
    }
}

impl Failure {
    /// Returns the failure of a delivery before anything was pushed.
    pub(super) fn of_kept_work(self) -> Self {
        let hint = match self.hint.as_str() {
            "" => HINT_KEPT.to_owned(),
            hint => format!("{hint}; {HINT_KEPT}"),
        };
        Self { hint, ..self }
    }
}

impl Task {
    /// Lets a task that is about to be created deliver the work of another one, which is kept as if its attempt 1 had done it.
    pub fn deliver_for_another(&mut self) {
        self.attempts = 1;
        self.undelivered = Some(Undelivered { attempt: 1, failed: 0, since: None });
    }

    /// Whether the current or next attempt only delivers.
    pub fn delivers(&self) -> bool {
        self.undelivered.is_some()
    }

    /// Returns the model credential that the task brings along, if its next attempt calls a model.
    pub(super) fn credential_in_use(&self) -> Option<CredentialId> {
        self.credential.filter(|_| !self.delivers())
    }
}

impl Step<'_> {
    /// Lets the task wait for another delivery, unless it has tried for too long. The first `result` is that of the attempt that did the work.
    pub(super) fn undelivered(&mut self, failure: Failure, result: Option<Bytes>, jitter: f64) {
        let task = &mut *self.task;
        let before = task.undelivered;
        let mut left =
            before.unwrap_or_else(|| Undelivered { attempt: task.attempt(), failed: 0, since: None });
        left.failed = left.failed.saturating_add(1);
        left.since.get_or_insert(self.now);
        if left.until(self.now) <= self.now {
            task.failures += 1;
            let message = format!(
                "the work of attempt {} could not be delivered for {} days: {}",
                left.attempt,
                MAX_DELIVERING_TIME.as_secs() / (24 * 3600),
                failure.message
            );
            let failure = Failure { hint: HINT.to_owned(), ..Failure::new(Class::Delivery, message.clone()) };
            return self.go(StateChange::new(State::Failed, "failed").message(message).failure(failure));
        }
        let message = failure.message.clone();
        // The policy may be meant for a few attempts: these go on for days.
        let shortest = retry::backoff(MIN_BACKOFF, MAX_BACKOFF, left.failed, jitter);
        let at = self.now + task.retry.wait(&failure, left.failed, jitter).max(shortest);
        task.undelivered = Some(left);
        task.avoid = (task.assignment.as_ref())
            .filter(|_| failure.may_be_of_worker())
            .map(|assignment| assignment.worker.clone());
        task.retry_at = Some(at);
        self.out.result = result.filter(|_| before.is_none());
        let mut change = StateChange::new(State::Pending, UNDELIVERED).message(message).failure(failure);
        change.retry_at = Some(at);
        self.go(change);
        self.settle();
    }
}
