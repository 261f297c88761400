//! Why a step has not started: the steps that it needs, or what has skipped it.

use prost::Message;
use rota_core::WorkflowKey;
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
        let (needed, lost) = self.needed(workflow.key, &stored.needs, &spec.needs).await?;
        let damaged =
            lost.iter().map(|name| explain::damaged(workflow.id, &format!("the record of step {name}")));
        if state == StepState::Waiting {
            let open: Vec<_> = needed.iter().filter(|one| !one.state.is_final()).collect();
            let why = format!(
                "step {name} waits for {} of {} steps that it needs: {}",
                open.len() + lost.len(),
                needed.len() + lost.len(),
                named(workflow, &open, &lost)
            );
            let of_needs = open.iter().filter_map(|one| explain::cause(workflow, one));
            let causes = std::iter::once(cause("step_needs", why)).chain(damaged).chain(of_needs);
            return Ok(causes.take(MAX_CAUSES).collect());
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
            why = format!("{why}: {}", named(workflow, &bad, &lost));
        }
        Ok(std::iter::once(cause("step_skipped", why)).chain(damaged).take(MAX_CAUSES).collect())
    }

    /// Returns the steps that a step needs, and the names of those whose records cannot be decoded.
    async fn needed(
        &self,
        workflow: WorkflowKey,
        indexes: &[u32],
        needs: &[v1::StepNeed],
    ) -> Result<(Vec<Step>, Vec<String>), Status> {
        if let Some(rows) = self.undamaged(WorkflowQuery::StepsAt(workflow, indexes.to_vec())).await? {
            return Ok((rows.steps, Vec::new()));
        }
        let (mut found, mut lost) = (Vec::new(), Vec::new());
        for (index, need) in indexes.iter().zip(needs) {
            match self.undamaged(WorkflowQuery::StepsAt(workflow, vec![*index])).await? {
                Some(rows) => found.extend(rows.steps),
                None => lost.push(need.step.clone()),
            }
        }
        Ok((found, lost))
    }
}

fn cause(code: &str, message: String) -> v1::Cause {
    v1::Cause { code: code.to_owned(), message, hint: String::new() }
}

/// Returns the names of steps with their states, and of those whose records cannot be decoded.
fn named(workflow: &Workflow, steps: &[&Step], lost: &[String]) -> String {
    let one = |step: &&Step| format!("{} ({})", step.name, workflow.state_of(step).name());
    let names = lost.iter().map(|name| format!("{name} (damaged)")).chain(steps.iter().map(one));
    let names: Vec<_> = names.take(MAX_NAMED).collect();
    match (steps.len() + lost.len()).saturating_sub(MAX_NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
