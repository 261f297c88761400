//! Compensation of a step that has ended: one task, or one for each element that has succeeded, one after the other.

use super::apply::Move;
use super::{Rejected, State, Step, StepState, TaskEnd, message};

impl Step {
    /// Whether it has effects that its compensation reverses.
    pub fn is_compensable(&self) -> bool {
        match self.compensates_each {
            true => self.compensates && self.state.is_final() && self.succeeded > 0,
            false => self.compensates && self.state == StepState::Succeeded,
        }
    }

    /// Returns the end of the elements of which the last one that has succeeded is compensated next.
    pub fn compensable_end(&self) -> u32 {
        self.compensated_item.unwrap_or(self.created)
    }
}

impl Move<'_> {
    pub(super) fn compensate(&mut self) {
        let step = &mut *self.step;
        let begins = self.workflow.state == State::Compensating && step.compensation.is_none();
        if begins && step.is_compensable() {
            step.compensation = Some(StepState::Ready);
            step.uncompensated = if step.compensates_each { step.succeeded } else { 1 };
        }
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
        let state = if succeeded { StepState::Succeeded } else { StepState::Failed };
        self.step.compensation = Some(state);
        self.workflow.compensated(self.step, succeeded, &mut self.out, self.now);
    }
}
