//! Work that is done and kept, and not delivered: the next attempts only deliver it, at the cost of nothing but time.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::apply::Step;
use super::{State, StateChange, Task};
use crate::failure::Failure;
use crate::quota::CredentialId;

/// Deliveries of the same work that may fail.
pub const MAX_DELIVERIES: u32 = 10;
/// Reason of the step by which a task begins to wait for the next delivery.
const UNDELIVERED: &str = "undelivered";

/// Work of an attempt that later ones deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undelivered {
    /// Number of the attempt that did the work. Its result is stored.
    pub attempt: u32,
    /// Number of its deliveries that have failed.
    pub failed: u32,
}

impl Task {
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
    /// Lets the task wait for another delivery, if it has one left. The first `result` is that of the attempt that did the work.
    pub(super) fn undelivered(&mut self, failure: Failure, result: Option<Bytes>, jitter: f64) {
        let task = &mut *self.task;
        let before = task.undelivered;
        let (attempt, failed) = before.map_or((task.attempt(), 0), |left| (left.attempt, left.failed));
        let left = Undelivered { attempt, failed: failed + 1 };
        let message = failure.message.clone();
        if left.failed >= MAX_DELIVERIES {
            task.failures += 1;
            return self.go(StateChange::new(State::Failed, "failed").message(message).failure(failure));
        }
        let at = self.now + task.retry.wait(&failure, left.failed, jitter);
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
