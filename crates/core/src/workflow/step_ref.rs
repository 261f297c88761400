//! Place of a task, or of a workflow that is a step, in a workflow, with what it has of that.

use serde::{Deserialize, Serialize};

use super::{COMPENSATION, Step, Workflow, no, zero};
use crate::{WorkflowId, WorkflowKey};

/// Place of a task in a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRef {
    pub workflow: WorkflowKey,
    pub id: WorkflowId,
    pub step: u32,
    pub name: String,
    /// From 1; [`COMPENSATION`] if it compensates the step.
    pub round: u32,
    pub item: u32,
    /// Whether its attempts are given results of other steps.
    #[serde(default, skip_serializing_if = "no")]
    pub follows: bool,
    /// Whether its cost counts for the budget of the workflow, or of one around that.
    #[serde(default, skip_serializing_if = "no")]
    pub counts_cost: bool,
    /// Failures of the compensation of its step before this one.
    #[serde(default, skip_serializing_if = "zero")]
    pub after_failures: u32,
    /// Workflows whose budgets its attempts reserve of: its own and those around it, as far as they have one that limits it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paid_by: Vec<WorkflowKey>,
}

impl StepRef {
    /// Returns the place of an item of a round of a step, or of its compensation.
    pub fn of(workflow: &Workflow, step: &Step, round: u32, item: u32) -> Self {
        let compensates = round == COMPENSATION;
        // Compensations and finally-steps run although the budget is spent.
        let is_limited = !compensates && !step.finally;
        Self {
            workflow: workflow.key,
            id: workflow.id,
            step: step.index,
            name: step.name.clone(),
            round,
            item,
            // A compensation is given what its step has done.
            follows: step.follows || compensates,
            counts_cost: workflow.counts_cost,
            after_failures: if compensates { step.compensation_failures() } else { 0 },
            paid_by: if is_limited { workflow.limited_by() } else { Vec::new() },
        }
    }
}

impl Workflow {
    /// Returns the workflows whose budgets limit its steps.
    fn limited_by(&self) -> Vec<WorkflowKey> {
        let around = self.parent.iter().flat_map(|parent| parent.step.paid_by.iter().copied());
        around.chain(self.budget_micro_usd.map(|_| self.key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::{Kind, Parent};
    use super::*;
    use crate::Namespace;

    #[test]
    fn budgets_limit_steps_but_no_ends() {
        let id = WorkflowId(Uuid::from_u128(1));
        let workflow = |key| Workflow { key, ..Workflow::new(id, Namespace::new("n").unwrap()) };
        let mut outer = workflow(WorkflowKey(1));
        outer.budget_micro_usd = Some(9);
        let step = Step::new("a".to_owned(), Kind::Workflow);
        let place = StepRef::of(&outer, &step, 1, 0);
        assert_eq!((&place.paid_by[..], place.follows), (&[WorkflowKey(1)][..], false));
        let mut inner = workflow(WorkflowKey(2));
        inner.parent = Some(Box::new(Parent { step: place, depth: 1, root: WorkflowKey(1) }));
        let paid_by = |inner: &Workflow, step: &Step, round| StepRef::of(inner, step, round, 0).paid_by;
        assert_eq!(paid_by(&inner, &step, 1), [WorkflowKey(1)]);
        inner.budget_micro_usd = Some(5);
        assert_eq!(paid_by(&inner, &step, 1), [WorkflowKey(1), WorkflowKey(2)]);
        assert_eq!(paid_by(&inner, &step, COMPENSATION), []);
        assert!(StepRef::of(&inner, &step, COMPENSATION, 0).follows, "what its step has done");
        assert_eq!(paid_by(&inner, &Step { finally: true, ..step }, 1), []);
    }
}
