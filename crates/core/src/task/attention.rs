//! Tasks that continue and keep failing: a person is asked to look at them, before their attempts are spent.

use super::apply::Step;
use super::{Body, Desired, Task};
use crate::failure::Severity;

/// Failed attempts after which a person is asked to look: of those that count against the retry policy.
const ATTENTION_AFTER: u32 = 3;
/// Code of the notice about it.
pub const ATTENTION: &str = "attention";

impl Task {
    /// Whether a person is asked to look at it: it has failed several times and continues, which was not acknowledged.
    pub fn needs_attention(&self) -> bool {
        self.failures >= ATTENTION_AFTER
            && !self.acknowledged
            && self.desired == Desired::Run
            && !self.state.is_final()
    }

    /// Returns the number of failed attempts, also of those that count against no policy.
    pub fn failed_attempts(&self) -> u32 {
        self.failures.saturating_add(self.waits)
    }
}

impl Step<'_> {
    /// Notes that a person knows of the failures. Has no effect before a person is asked, nor a second time.
    pub(super) fn acknowledge(&mut self, reason: String) {
        if self.task.failures < ATTENTION_AFTER || std::mem::replace(&mut self.task.acknowledged, true) {
            return;
        }
        self.log(self.now, Body::Change { fields: vec!["attention".into()], message: reason });
    }

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
