//! Why a step has not started: the steps that it needs, or what has skipped it.

use prost::Message;
use rota_core::workflow::{Step, StepState, Workflow};
use rota_proto::v1::{self, OnStepFailure};
use rota_store::WorkflowQuery;
use tonic::Status;

use super::{MAX_CAUSES, Workflows, explain};
use crate::wire::check;
use crate::wire::workflow::StoredStep;

/// Steps that one sentence names.
const MAX_NAMED: usize = 10;

impl Workflows {
    /// Returns why a step waits or was skipped, and why the steps do not end for which it waits. Nothing for a step in another state.
    pub(super) async fn explain_needs(
        &self,
        workflow: &Workflow,
        step: &Step,
    ) -> Result<Vec<v1::Cause>, Status> {
        let state = workflow.state_of(step);
        if !matches!(state, StepState::Waiting | StepState::Skipped) {
            return Ok(Vec::new());
        }
        let name = &step.name;
        if state == StepState::Skipped && step.state != state {
            let why = format!("step {name} was skipped: the workflow stopped before it");
            let why = if workflow.message.is_empty() { why } else { format!("{why}: {}", workflow.message) };
            return Ok(vec![cause("step_skipped", why)]);
        }
        let rows = self.query(WorkflowQuery::Work(workflow.key, vec![step.index])).await?;
        let body = rows.bodies.into_iter().next().map(|(_, body)| body).unwrap_or_default();
        let stored = StoredStep::decode(body).unwrap_or_default();
        let spec = stored.step.unwrap_or_default();
        let needed = self.query(WorkflowQuery::StepsAt(workflow.key, stored.needs.clone())).await?.steps;
        if state == StepState::Waiting {
            let open: Vec<_> = needed.iter().filter(|one| !one.state.is_final()).collect();
            let why = format!(
                "step {name} waits for {} of {} steps that it needs: {}",
                open.len(),
                needed.len(),
                named(workflow, &open)
            );
            let of_needs = open.iter().filter_map(|one| explain::cause(workflow, one));
            return Ok(std::iter::once(cause("step_needs", why)).chain(of_needs).take(MAX_CAUSES).collect());
        }
        let mut why = format!("step {name} was skipped: {}", step.message);
        if step.by_condition {
            why = format!("{why}: {}", check::shorten(&spec.condition));
        } else if step.doomed {
            let policy = self.stored_spec(workflow.key).await?.on_failure();
            let continues = |one: &Step| {
                let at = stored.needs.iter().position(|index| *index == one.index);
                let own = at.and_then(|at| spec.needs.get(at)).map_or(policy, v1::StepNeed::on_failure);
                let own = if own == OnStepFailure::Unspecified { policy } else { own };
                own == OnStepFailure::Continue
            };
            let bad: Vec<_> = needed.iter().filter(|one| !one.satisfies(continues(one))).collect();
            why = format!("{why}: {}", named(workflow, &bad));
        }
        Ok(vec![cause("step_skipped", why)])
    }
}

fn cause(code: &str, message: String) -> v1::Cause {
    v1::Cause { code: code.to_owned(), message, hint: String::new() }
}

/// Returns the names of steps with their states.
fn named(workflow: &Workflow, steps: &[&Step]) -> String {
    let one = |step: &&Step| format!("{} ({})", step.name, workflow.state_of(step).name());
    let names: Vec<_> = steps.iter().take(MAX_NAMED).map(one).collect();
    match steps.len().saturating_sub(MAX_NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
