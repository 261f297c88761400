//! Tasks that continue and keep failing: a person is asked to look at them, before their attempts are spent.

use super::apply::Step;
use super::{Body, Task};
use crate::failure::Severity;

/// Failed attempts after which a person is asked to look: of those that count against the retry policy.
const ATTENTION_AFTER: u32 = 3;
/// Code of the notice about it.
pub const ATTENTION: &str = "attention";

impl Task {
    /// Returns the number of failed attempts, also of those that count against no policy.
    pub fn failed_attempts(&self) -> u32 {
        self.failures.saturating_add(self.waits)
    }
}

impl Step<'_> {
    /// Notes in the log that a task which continues has failed several times. `number` is that of the last failure, if it counts.
    pub(super) fn ask_for_attention(&mut self, number: u32) {
        let task = &*self.task;
        let is_it = number == ATTENTION_AFTER && task.failures == number;
        let Some(last) = task.last_failure.as_ref().filter(|_| is_it) else { return };
        let message = format!(
            "{ATTENTION_AFTER} attempts have failed, and the task continues; the last: {}",
            last.message
        );
        self.log(self.now, Body::Notice { severity: Severity::High, code: ATTENTION.into(), message });
    }
}
