//! Why a workflow does not continue.

use rota_core::workflow::{Kind, Step, StepState, Workflow};
use rota_proto::causes::STEP_APPROVAL;
use rota_proto::v1;
use tonic::Status;

use super::{MAX_CAUSES, Workflows};
use crate::wire::check;
use crate::wire::workflow as wire;

impl Workflows {
    pub(super) async fn explain(
        &self,
        workflow: &Workflow,
        step: &str,
    ) -> Result<v1::ExplainWorkflowResponse, Status> {
        let mut causes = Vec::new();
        self.each_step(workflow.key, |record| {
            if step.is_empty() || record.name == step {
                causes.extend(cause(workflow, &record));
            }
            causes.len() < MAX_CAUSES
        })
        .await?;
        let state = wire::workflow(workflow, None, None).status.unwrap_or_default().state();
        let name = state.as_str_name().trim_start_matches("WORKFLOW_STATE_");
        let summary = match workflow.message.as_str() {
            "" => format!("The workflow is {name}."),
            why => format!("The workflow is {name}: {why}."),
        };
        Ok(v1::ExplainWorkflowResponse { summary, causes })
    }
}

/// Returns why a step has not ended, or ended without success.
fn cause(workflow: &Workflow, step: &Step) -> Option<v1::Cause> {
    let name = &step.name;
    let (code, message, hint) = match workflow.state_of(step) {
        StepState::Succeeded | StepState::Waiting | StepState::Skipped => return None,
        StepState::Held | StepState::Ready if workflow.is_paused() => (
            "step_held",
            format!("step {name} waits: the workflow is paused"),
            "resume it: rota workflow resume",
        ),
        StepState::Held => ("step_held", format!("step {name} waits for a place or for its phase"), ""),
        StepState::Ready | StepState::Ending => {
            ("step_evaluated", format!("the expressions of step {name} are evaluated"), "")
        }
        StepState::Running => match step.kind {
            Kind::Task => {
                let (open, total) = (step.open(), step.total);
                let text = format!("step {name} runs: {open} of {total} tasks are open");
                ("step_running", text, "rota explain TASK names the reasons of a task")
            }
            Kind::Approval { .. } => {
                let text = format!("step {name} waits for a decision: {}", check::shorten(&step.prompt));
                (STEP_APPROVAL, text, "decide: rota workflow approve")
            }
            Kind::Sleep { .. } => ("step_waiting", format!("step {name} waits for its time"), ""),
            Kind::Signal { .. } => {
                ("step_signal", format!("step {name} waits for its signal"), "send it: rota workflow signal")
            }
        },
        StepState::Failed | StepState::Cancelled => {
            ("step_failed", format!("step {name}: {}", step.message), "")
        }
    };
    Some(v1::Cause { code: code.to_owned(), message, hint: hint.to_owned() })
}
