//! Updates of a task's mutable fields.

use std::collections::BTreeMap;

use super::apply::Step;
use super::{Body, CONFIRM_SLACK, Desired, Rejected, State, Task};
use crate::rank::Priority;

/// What callers change of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub priority: Priority,
    pub labels: BTreeMap<String, String>,
    pub desired: Desired,
}

impl Task {
    /// Returns what callers may change.
    pub fn settings(&self) -> Settings {
        Settings { priority: self.priority, labels: self.labels.clone(), desired: self.desired }
    }
}

impl Step<'_> {
    pub(super) fn update(
        &mut self,
        priority: Option<Priority>,
        labels: Option<BTreeMap<String, String>>,
        desired: Option<Desired>,
        reason: String,
    ) -> Result<(), Rejected> {
        let task = &mut *self.task;
        let priority = priority.filter(|new| *new != task.priority);
        let labels = labels.filter(|new| *new != task.labels);
        let desired = desired.filter(|new| *new != task.desired);
        if desired.is_some() && task.desired == Desired::Cancelled {
            return Err(Rejected::Cancelling);
        }
        // Labels of an ended task may change, its priority and desired state may not.
        if task.state.is_final() && (priority.is_some() || desired.is_some()) {
            return Err(Rejected::Final(task.state));
        }
        let mut fields = Vec::new();
        if let Some(priority) = priority {
            task.priority = priority;
            fields.push("priority".into());
        }
        if let Some(labels) = labels {
            task.labels = labels;
            fields.push("labels".into());
        }
        if let Some(desired) = desired {
            task.desired = desired;
            fields.push("desired_state".into());
        }
        if fields.is_empty() {
            return Ok(());
        }
        self.log(self.now, Body::Change { fields, message: reason });
        if self.task.state.is_on_worker() {
            if self.task.desired == Desired::Cancelled && self.task.confirm_by.is_none() {
                self.task.confirm_by = Some(self.now + self.task.cancel_grace() + CONFIRM_SLACK);
            }
        } else if self.task.state != State::Succeeded {
            self.settle();
        }
        Ok(())
    }
}
