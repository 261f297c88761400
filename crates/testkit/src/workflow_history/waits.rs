//! Decisions and waits: none ends before its time without an answer, and one without an answer ends by its default.

use rota_proto::v1::{self, StepDecision, StepState, step_wait, workflow_step};

use super::{Ended, time};

/// What the message of a decision by default ends with.
const BY_DEFAULT: &str = "since there was no decision in time";

impl Ended {
    /// W8: a decision after its deadline is the default one, and it and the end of a wait come when they are due.
    pub(super) fn check_waits(&self, violated: &mut impl FnMut(&str, String)) {
        for (spec, step) in self.specs.iter().zip(&self.steps) {
            let mut violated = |rule: &str| violated(&step.name, format!("W8: {rule}"));
            match &spec.kind {
                Some(workflow_step::Kind::Approval(approval)) if step.message.ends_with(BY_DEFAULT) => {
                    let approves = approval.default_decision() == StepDecision::Approve;
                    if (step.state() == StepState::Succeeded) != approves {
                        violated("ended by default in the state of the other decision");
                    }
                    if is_early(step, approval.deadline.as_ref()) {
                        violated("ended by default before its deadline");
                    }
                }
                Some(workflow_step::Kind::Wait(wait)) => {
                    let early = match (&wait.kind, step.state()) {
                        (Some(step_wait::Kind::Duration(duration)), StepState::Succeeded) => {
                            is_early(step, Some(duration))
                        }
                        (Some(step_wait::Kind::Signal(_)), StepState::Failed) => {
                            is_early(step, wait.timeout.as_ref())
                        }
                        _ => false,
                    };
                    if early {
                        violated("ended before its time");
                    }
                }
                _ => {}
            }
        }
    }
}

/// Whether a step ended before this time since its start, or without one.
fn is_early(step: &v1::StepStatus, after: Option<&pbjson_types::Duration>) -> bool {
    let (Some(after), Some(start)) = (after, time(step.start_time.as_ref())) else { return true };
    let due = start + after.seconds * 1_000_000 + i64::from(after.nanos) / 1000;
    time(step.end_time.as_ref()).is_none_or(|end| end < due)
}
