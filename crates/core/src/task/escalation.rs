//! Retries by another agent than that of the attempts which failed by their work.

use super::apply::Step;
use super::{Body, Task};
use crate::AgentName;
use crate::failure::Severity;
use crate::target::Target;

impl Task {
    /// Returns the agent that has its attempts now, if its retry policy has moved it to that one.
    pub fn escalated_to(&self) -> Option<&AgentName> {
        self.retry.agent_after(self.own_failures).filter(|agent| self.agent() == Some(agent))
    }
}

impl Step<'_> {
    /// Leaves the next attempts to the agent that the retry policy names for them. It starts over: what the other agent has left is
    /// not its own, nor what people have allowed that one.
    pub(super) fn escalate(&mut self) {
        let task = &mut *self.task;
        let Some(agent) = task.retry.agent_after(task.own_failures).cloned() else { return };
        if task.agent() == Some(&agent) {
            return;
        }
        let message = format!("the next attempt is left to the agent {agent}");
        task.target = Target::Agent(agent);
        (task.concluded, task.session, task.avoid) = (task.attempt(), None, None);
        task.granted.clear();
        self.out.moved = true;
        self.log(self.now, Body::Notice { severity: Severity::Low, code: "escalated".into(), message });
    }
}
