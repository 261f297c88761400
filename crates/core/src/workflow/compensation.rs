//! Compensation of a step that has ended: one task, or one for each element that has succeeded, one after the other. One that has
//! failed waits for a person, who resolves it after the end of the workflow: that continues with what is left.

use serde::{Deserialize, Serialize};

use super::apply::Move;
use super::{Change, Rejected, State, Step, StepState, TaskEnd, Workflow, message};
use crate::Timestamp;

/// Decision of a person about a compensation that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// The compensation runs again, as another task.
    Retry,
    /// The person has reversed the effects.
    Done,
    /// The effects of the step stay.
    Skip,
}

impl Resolution {
    fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Done => "done",
            Self::Skip => "skip",
        }
    }
}

/// Who has resolved the failed compensation of a step, how, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The failure that was resolved, of those of the step, from 1.
    pub failure: u32,
    pub resolution: Resolution,
    pub by: String,
    /// Subject of the person at the issuer; empty for a token. Earlier versions did not record it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by_subject: String,
    pub note: String,
    pub at: Timestamp,
}

impl Resolved {
    fn text(&self) -> String {
        let (what, by) = (self.resolution.name(), &self.by);
        let note = if self.note.is_empty() { String::new() } else { format!(": {}", self.note) };
        format!("was resolved as {what} by {by}{note}")
    }
}

impl Workflow {
    /// Continues an ended workflow with its compensations, once it has its place in its group again.
    fn reopen(&mut self, step: &Step, text: &str, out: &mut Change, now: Timestamp) {
        self.state = State::Compensating;
        self.ended_at = None;
        self.compensation_failed = false;
        self.resolved = self.resolved.saturating_add(1);
        self.message = message(&format!("{text}; {}", self.message));
        let is_open = step.compensation == Some(StepState::Held);
        self.last_completed = if is_open { Some(step.index) } else { step.previous };
        self.join(out);
        if !self.lacks_group() {
            self.compensate_next(out, now);
        }
    }
}

impl Step {
    /// Whether it has effects that its compensation reverses.
    pub fn is_compensable(&self) -> bool {
        match self.compensates_each {
            true => self.compensates && self.state.is_final() && self.succeeded > 0,
            false => self.compensates && self.state == StepState::Succeeded,
        }
    }

    /// Number of times that its compensation has failed. Earlier versions did not count the only one.
    pub fn compensation_failures(&self) -> u32 {
        self.compensation_failures.max(u32::from(self.compensation == Some(StepState::Failed)))
    }

    /// Returns the state in which its compensation ends without a failure.
    fn compensation_end(&self) -> StepState {
        if self.effects_left { StepState::Skipped } else { StepState::Succeeded }
    }

    /// Returns the end of the elements of which the last one that has succeeded is compensated next.
    pub fn compensable_end(&self) -> u32 {
        self.compensated_item.unwrap_or(self.created)
    }
}

impl Move<'_> {
    pub(super) fn compensate(&mut self) {
        let step = &mut *self.step;
        if self.workflow.state != State::Compensating {
            return;
        }
        match step.compensation {
            Some(StepState::Held) => step.compensation = Some(StepState::Ready),
            None if step.is_compensable() => {
                step.compensation = Some(StepState::Ready);
                step.uncompensated = if step.compensates_each { step.succeeded } else { 1 };
            }
            _ => {}
        }
    }

    /// Takes in the decision of a person about a compensation that has failed. A repeated one changes nothing.
    pub(super) fn resolve(&mut self, resolved: Resolved) -> Result<(), Rejected> {
        let step = &mut *self.step;
        let earlier = step.resolved.as_ref();
        let is_known =
            |one: &Resolved| (one.failure, one.resolution) == (resolved.failure, resolved.resolution);
        if earlier.is_some_and(|earlier| is_known(earlier)) {
            return Ok(());
        }
        let failure = step.compensation_failures();
        let is_current = resolved.failure == 0 || resolved.failure == failure;
        if step.compensation != Some(StepState::Failed) || !is_current {
            return Err(Rejected::NoFailedCompensation);
        }
        match self.workflow.state {
            State::CompensationFailed if !self.workflow.deleted => {}
            State::Finalizing => return Err(Rejected::Phase(State::Finalizing)),
            state => return Err(Rejected::Final(state)),
        }
        let had_task = !std::mem::take(&mut step.compensation_refused);
        let is_over = match resolved.resolution {
            Resolution::Retry => {
                // The element of the task is the next one again.
                step.compensated_item = step.compensated_item.map(|item| item + u32::from(had_task));
                false
            }
            Resolution::Done | Resolution::Skip => {
                step.effects_left |= resolved.resolution == Resolution::Skip;
                // Which element has had no task is not known here, and what none can be created for is all of them.
                step.uncompensated = if had_task { step.uncompensated.saturating_sub(1) } else { 0 };
                step.uncompensated == 0
            }
        };
        step.compensation = Some(if is_over { step.compensation_end() } else { StepState::Held });
        step.compensation_failures = failure;
        let text = resolved.text();
        match resolved.resolution {
            Resolution::Retry if step.compensates_each => {}
            // The next failure is the one to show.
            Resolution::Retry => step.message.clear(),
            _ => step.message = message(&format!("its failed compensation {text}")),
        }
        let text = format!("the failed compensation of step {} {text}", step.name);
        step.resolved = Some(Box::new(Resolved { failure, at: self.now, ..resolved }));
        self.workflow.reopen(self.step, &text, &mut self.out, self.now);
        Ok(())
    }

    fn is_ready(&self) -> Result<(), Rejected> {
        let ready = self.step.compensation == Some(StepState::Ready);
        if ready { Ok(()) } else { Err(Rejected::Outdated) }
    }

    pub(super) fn compensation_created(&mut self, item: u32) -> Result<(), Rejected> {
        self.is_ready()?;
        if self.step.compensates_each {
            if item >= self.step.compensable_end() {
                return Err(Rejected::Outdated);
            }
            self.step.compensated_item = Some(item);
        }
        self.step.compensation = Some(StepState::Running);
        Ok(())
    }

    pub(super) fn compensation_failed(&mut self, after: Option<u32>, why: &str) -> Result<(), Rejected> {
        self.is_ready()?;
        if after != self.step.compensated_item {
            return Err(Rejected::Outdated);
        }
        self.step.message = message(why);
        self.step.compensation_refused = true;
        self.compensated(false);
        Ok(())
    }

    pub(super) fn compensation_ended(&mut self, end: TaskEnd) {
        let step = &mut *self.step;
        if step.compensation != Some(StepState::Running) {
            return;
        }
        if end != TaskEnd::Succeeded {
            let why = match step.compensated_item {
                Some(item) => format!("its compensation of element {item} has failed"),
                None => "its compensation has failed".to_owned(),
            };
            match step.message.as_str() {
                "" => step.message = why,
                // Why elements of it have failed.
                earlier if step.compensates_each => step.message = message(&format!("{why}; {earlier}")),
                _ => {}
            }
            return self.compensated(false);
        }
        step.uncompensated = step.uncompensated.saturating_sub(1);
        match step.uncompensated {
            0 => self.compensated(true),
            _ => step.compensation = Some(StepState::Ready),
        }
    }

    fn compensated(&mut self, succeeded: bool) {
        if !succeeded {
            self.step.compensation_failures = self.step.compensation_failures().saturating_add(1);
        }
        self.step.compensation =
            Some(if succeeded { self.step.compensation_end() } else { StepState::Failed });
        self.workflow.compensated(self.step, succeeded, &mut self.out, self.now);
    }
}
