//! Deadlines of approvals and signals, and the ends of waits. What passes while a decision is impossible, since Rota is away or
//! the workflow is paused, does not count for the first two. The time of a workflow is in `phases`.

use std::time::Duration;

use super::apply::Move;
use super::{Follow, Kind, StepState};
use crate::Timestamp;

impl Move<'_> {
    /// Begins to wait, for at most so long.
    pub(super) fn wait(&mut self, most: Option<Duration>) {
        self.step.due = most.map(|most| self.now + most);
        self.step.waits_since = Some(self.now);
        (self.step.paused_for, self.step.away) = (self.workflow.paused_for, Duration::ZERO);
    }

    /// Moves a deadline by the time in which no decision and no signal could arrive.
    pub(super) fn move_deadline(&mut self, away: Duration) {
        let (step, paused_for) = (&mut *self.step, self.workflow.paused_for);
        let paused = paused_for.saturating_sub(step.paused_for);
        let moved = paused.saturating_add(away.saturating_sub(step.away));
        (step.paused_for, step.away) = (paused_for, step.away.max(away));
        step.due = step.due_after_pause.take().or(step.due);
        if !matches!(step.kind, Kind::Sleep { .. }) {
            step.due = step.due.map(|due| due + moved);
        }
    }

    pub(super) fn tick(&mut self, by: Timestamp, away: Duration) {
        if self.step.state != StepState::Running {
            return;
        }
        self.move_deadline(away);
        if self.step.due.is_none_or(|due| due > by.min(self.now)) {
            return;
        }
        if self.workflow.is_paused() && !matches!(self.step.kind, Kind::Sleep { .. }) {
            self.step.due_after_pause = self.step.due.take();
            return;
        }
        match self.step.kind {
            Kind::Sleep { .. } => self.close(""),
            Kind::Approval { approves, .. } => {
                self.out.follow.push(Follow::DecidedByDefault { step: self.step.index, approves });
                match approves {
                    true => self.close("approved, since there was no decision in time"),
                    false => self.end(StepState::Failed, "rejected, since there was no decision in time"),
                }
            }
            Kind::Signal { .. } => self.end(StepState::Failed, "the signal has not arrived in time"),
            Kind::Task | Kind::Workflow => {}
        }
    }
}
