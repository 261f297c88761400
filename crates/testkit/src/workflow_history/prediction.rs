//! States in which the steps must have ended, by the state machine and the ends of what they have created.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rota_core::workflow::{
    Change, Follow, Kind, MAX_ROUNDS, Start, State, Step, StepCommand, StepState, TaskEnd, Workflow,
};
use rota_core::{Namespace, Timestamp, WorkflowId};
use rota_proto::v1::{self, OnStepFailure, step_wait, workflow_step};

use super::{Ended, Parts, time};
use crate::tasks::NAMESPACE;

const NOW: Timestamp = Timestamp(1);
/// Timeout of every wait in the prediction: longer than any that a step may have.
const LONG: Duration = Duration::from_secs(30 * 24 * 3600);

impl Ended {
    /// W4: after a failure that stops the workflow no step starts. Without such a policy the end does not depend on the order
    /// of events: it is the one that the state machine has.
    pub(super) fn check_policies(&self, violated: &mut impl FnMut(&str, String)) -> Result<()> {
        if self.stops() {
            let own = self.spec.steps.iter().flat_map(|step| &step.needs);
            ensure!(
                own.into_iter().all(|need| need.on_failure() == OnStepFailure::Unspecified),
                "needs with a policy of their own are not checked"
            );
            let failed =
                self.steps.iter().filter(|step| !step.finally && step.state() == v1::StepState::Failed);
            let Some(first) = failed.filter_map(|step| time(step.end_time.as_ref())).min() else {
                return Ok(());
            };
            for step in self.steps.iter().filter(|step| !step.finally) {
                if time(step.start_time.as_ref()).is_some_and(|start| start > first) {
                    violated(&step.name, "W4: started after a failure that stops the workflow".to_owned());
                }
            }
            return Ok(());
        }
        let predicted = self.predict()?;
        for (step, predicted) in self.steps.iter().zip(predicted) {
            let found = step.state().as_str_name().trim_start_matches("STEP_STATE_");
            if found != predicted.name() {
                violated(&step.name, format!("W4: is {found}, and should be {}", predicted.name()));
            }
        }
        Ok(())
    }

    /// Returns the states that the steps have after the same ends of their tasks. One whose tasks are missing stays READY.
    fn predict(&self) -> Result<Vec<StepState>> {
        let mut workflow = Workflow::new(WorkflowId(uuid::Uuid::nil()), Namespace::new(NAMESPACE)?);
        let mut dependents: Vec<Vec<(usize, bool)>> = vec![Vec::new(); self.steps.len()];
        let mut steps = Vec::new();
        for (index, needs) in self.needs.iter().enumerate() {
            let mut step = Step::new(self.steps[index].name.clone(), kind(&self.specs[index])?);
            step.needs = u32::try_from(needs.len())?;
            step.finally = index >= self.spec.steps.len();
            let (spec, repeat) = (&self.specs[index], self.specs[index].repeat.as_ref());
            step.evaluates_end = repeat.is_some() || !spec.outputs.is_empty();
            step.max_rounds = match repeat {
                Some(repeat) if repeat.max_expression.is_empty() => u32::try_from(repeat.max)?,
                Some(_) => MAX_ROUNDS,
                None => 1,
            };
            needs.iter().for_each(|(need, continues)| dependents[*need].push((index, *continues)));
            steps.push(step);
        }
        for (step, dependents) in steps.iter_mut().zip(&dependents) {
            step.has_dependents = !dependents.is_empty();
        }
        workflow.begin(&mut steps, NOW);
        let is_ready = |step: &Step| step.state == StepState::Ready;
        let mut ready: VecDeque<_> = (0..steps.len()).filter(|index| is_ready(&steps[*index])).collect();
        loop {
            let Some(index) = ready.pop_front() else {
                // All others have ended: those of `finally` that wait for nothing start.
                let held = |step: &Step| step.finally && step.state == StepState::Held;
                let held: Vec<_> = (0..steps.len()).filter(|index| held(&steps[*index])).collect();
                if workflow.state != State::Finalizing || held.is_empty() {
                    break;
                }
                for index in held {
                    workflow.apply_to(&mut steps[index], StepCommand::Release, NOW)?;
                    ready.push_back(index);
                }
                continue;
            };
            let mut ended = VecDeque::new();
            for command in self.commands(index)? {
                let is_tick = matches!(command, StepCommand::Tick { .. });
                let now = if is_tick { NOW + LONG } else { NOW };
                let change = workflow.apply_to(&mut steps[index], command, now)?;
                ended.extend(ended_steps(&change));
            }
            while let Some(index) = ended.pop_front() {
                for (dependent, continues) in &dependents[index] {
                    let satisfied = steps[index].satisfies(*continues);
                    let command = StepCommand::NeedEnded { satisfied, reused: false };
                    let change = workflow.apply_to(&mut steps[*dependent], command, NOW)?;
                    ended.extend(ended_steps(&change));
                    if steps[*dependent].state == StepState::Ready {
                        ready.push_back(*dependent);
                    }
                }
            }
        }
        Ok(steps.iter().map(|step| workflow.state_of(step)).collect())
    }

    /// Returns the commands for a step that is ready, up to its end.
    fn commands(&self, index: usize) -> Result<Vec<StepCommand>> {
        let (status, parts) = (&self.steps[index], &self.parts[index]);
        if self.is_skipped_by_condition(status) && !self.stops() {
            return Ok(vec![StepCommand::Skip]);
        }
        let (spec, mut commands) = (&self.specs[index], Vec::new());
        let evaluates_end = spec.repeat.is_some() || !spec.outputs.is_empty();
        for given in 1..=status.round {
            let (round, of_round) = (u32::try_from(given)?, parts.range((given, 0)..=(given, i32::MAX)));
            let count = u32::try_from(of_round.clone().count())?;
            let is_last = given == status.round;
            let total = if is_last { u32::try_from(status.tasks_total)? } else { count };
            commands.push(StepCommand::Start(Start { round, total, ..Start::default() }));
            let has_succeeded = match waited(spec, status) {
                Some(command) => {
                    commands.push(command);
                    status.state() == v1::StepState::Succeeded
                }
                None => {
                    commands.push(StepCommand::Created { count });
                    for (_, part) in of_round {
                        let Some(end) = part.end else { bail!("{} has not ended", part.name) };
                        commands.push(StepCommand::TaskEnded { round, end });
                    }
                    succeeded(parts, given)
                }
            };
            // After the last round of all that there may be, the condition may not hold.
            let again = !is_last || status.state() == v1::StepState::Failed;
            commands.extend((evaluates_end && has_succeeded).then_some(StepCommand::Finish { round, again }));
        }
        Ok(commands)
    }
}

fn kind(spec: &v1::WorkflowStep) -> Result<Kind> {
    use workflow_step::Kind::{Approval, Merge, Task, Wait};
    Ok(match &spec.kind {
        Some(Task(_)) => Kind::Task,
        Some(workflow_step::Kind::Workflow(_) | Merge(_)) => Kind::Workflow,
        Some(Approval(_)) => Kind::Approval { deadline: None, approves: false },
        Some(Wait(wait)) => match wait.kind {
            Some(step_wait::Kind::Signal(_)) => Kind::Signal { timeout: Some(LONG) },
            _ => Kind::Sleep { duration: LONG },
        },
        None => bail!("step {} has no kind", spec.name),
    })
}

/// Returns what ended a decision or a wait, of which the end itself is taken as it is.
fn waited(spec: &v1::WorkflowStep, status: &v1::StepStatus) -> Option<StepCommand> {
    let holds = status.state() == v1::StepState::Succeeded;
    let tick = StepCommand::TICK;
    match &spec.kind {
        Some(workflow_step::Kind::Approval(_)) => {
            Some(StepCommand::Decide { approves: holds, message: String::new() })
        }
        Some(workflow_step::Kind::Wait(wait)) => match wait.kind {
            Some(step_wait::Kind::Signal(_)) if holds => Some(StepCommand::Signal),
            _ => Some(tick),
        },
        _ => None,
    }
}

/// Whether all tasks or workflows of a round have succeeded.
fn succeeded(parts: &Parts, round: i32) -> bool {
    parts.range((round, 0)..=(round, i32::MAX)).all(|(_, part)| part.end == Some(TaskEnd::Succeeded))
}

fn ended_steps(change: &Change) -> impl Iterator<Item = usize> {
    change.follow.iter().filter_map(|follow| match follow {
        Follow::Ended { step } => usize::try_from(*step).ok(),
        _ => None,
    })
}
