//! Phases of a workflow: its steps run, what runs ends, completed steps are compensated, finally-steps run, the end.

use std::time::Duration;

use super::{
    Change, Command, Follow, Kind, NestedCommand, Outcome, Place, Rejected, State, Step, StepState, Workflow,
    message,
};
use crate::Timestamp;
use crate::usage::usd;

impl Workflow {
    /// Begins a new workflow with these steps, whose needs are counted. Those without needs start, or are held.
    pub fn begin(&mut self, steps: &mut [Step], now: Timestamp) -> Change {
        self.created_at = now;
        self.paused_at = self.paused.then_some(now);
        for (index, step) in (0..).zip(&mut *steps) {
            step.index = index;
            self.nests.extend((step.kind == Kind::Workflow).then_some(index));
            let counts = if step.finally {
                (&mut self.finals, &mut self.finals_open)
            } else {
                (&mut self.main, &mut self.main_open)
            };
            *counts.0 += 1;
            *counts.1 += 1;
        }
        let mut out = Change::default();
        self.join(&mut out);
        for step in steps.iter_mut().filter(|step| step.needs == 0) {
            self.start_or_hold(step, &mut out, now);
        }
        self.advance(&mut out, now);
        out
    }

    /// Executes a command on the workflow.
    pub fn apply(&mut self, command: Command, now: Timestamp) -> Result<Change, Rejected> {
        let mut out = Change::default();
        let ended = self.state.is_final();
        match command {
            // Also after its end: workers report late what they have used.
            Command::Spend { micro_usd } => self.spend(micro_usd, &mut out, now),
            Command::Delete if !ended => return Err(Rejected::Unended),
            Command::Delete => self.remove(&mut out),
            Command::Tick { by, .. } if ended => {
                if self.due().is_some_and(|due| due <= by.min(now)) {
                    self.remove(&mut out);
                }
            }
            Command::Conclude(_) if self.state != State::Ending => return Err(Rejected::Outdated),
            _ if ended => return Err(Rejected::Final(self.state)),
            Command::Pause { .. } if self.state != State::Running => return Err(Rejected::Phase(self.state)),
            Command::Pause { suspend } => {
                self.paused = true;
                self.never_suspended &= !suspend;
                self.paused_at = self.paused_at.or(Some(now));
                out.follow.extend(suspend.then_some(Follow::SuspendTasks));
                self.pass_on(NestedCommand::Pause { suspend }, None, &mut out);
            }
            Command::Resume { away } => {
                if std::mem::take(&mut self.paused) {
                    self.count_pause(away, now);
                    self.resume_tasks(&mut out);
                    out.follow.push(Follow::ResumeSteps);
                    self.pass_on(NestedCommand::Resume, None, &mut out);
                    self.join(&mut out);
                    self.release(&mut out);
                }
            }
            Command::Admit if !self.waits_for_group() => return Err(Rejected::Outdated),
            Command::Admit if self.is_paused() => self.leave(&mut out),
            Command::Admit => {
                self.group.iter_mut().for_each(|group| group.place = Place::Holding);
                match self.state {
                    State::Compensating => self.compensate_next(&mut out, now),
                    _ => {
                        self.admitted_at = Some(now);
                        self.release(&mut out);
                    }
                }
            }
            Command::Cancel { reason } => self.cancel(&reason, false, &mut out, now),
            Command::CancelFinally { reason } => self.cancel(&reason, true, &mut out, now),
            Command::Tick { by, away } => {
                if self.due().is_some() {
                    self.away = self.away.max(away);
                }
                if self.due().is_some_and(|due| due <= by.min(now)) {
                    self.blame("", "the time of the workflow has run out");
                    self.stop(true, &mut out, now);
                    self.advance(&mut out, now);
                }
            }
            Command::Conclude(outputs) => {
                if let Err(error) = outputs {
                    self.blame("", &error);
                }
                self.has_outputs &= self.outcome.is_none();
                self.end(&mut out, now);
            }
        }
        Ok(out)
    }

    /// Cancels the workflow, or its finally-steps as well. Either may be repeated, since an answer may be lost: what was cancelled
    /// already stays as it is.
    fn cancel(&mut self, reason: &str, also_finally: bool, out: &mut Change, now: Timestamp) {
        let is_first = !std::mem::replace(&mut self.cancelled, true);
        let is_open = matches!(self.state, State::Running | State::Stopping);
        let cancels = is_first && is_open;
        let halts = also_finally && !self.finals_halted && self.state == State::Finalizing;
        self.finals_halted |= also_finally;
        if cancels || (halts && self.outcome.is_none()) {
            if self.outcome.is_none() {
                self.message = message(reason);
            }
            self.outcome = Some(Outcome::Cancelled);
        }
        if cancels || halts {
            self.stop(true, out, now);
            self.advance(out, now);
        }
        if also_finally && !self.state.is_final() {
            // What it waits for may be a workflow whose finally-steps do not end by themselves.
            self.pass_on(NestedCommand::CancelFinally, None, out);
        }
    }

    /// Counts a cost. The one that reaches the budget ends its steps, but neither compensations nor finally-steps.
    fn spend(&mut self, micro_usd: i64, out: &mut Change, now: Timestamp) {
        let was_over = self.is_over_budget();
        self.cost_micro_usd = self.cost_micro_usd.saturating_add(micro_usd);
        let Some(budget) = self.budget_micro_usd.filter(|_| !was_over && self.is_over_budget()) else {
            return;
        };
        if matches!(self.state, State::Running | State::Stopping) {
            let (spent, budget) = (usd(self.cost_micro_usd), usd(budget));
            self.blame("", &format!("the workflow has spent its budget: {spent} of {budget}"));
            self.stop(true, out, now);
            self.advance(out, now);
        }
    }

    /// Begins its removal, and that of the workflows that are its steps, whatever its state.
    pub fn remove(&mut self, out: &mut Change) {
        if std::mem::replace(&mut self.deleted, true) {
            return;
        }
        match self.nests.is_empty() {
            true => out.follow.push(Follow::Remove),
            false => self.pass_on(NestedCommand::Remove, None, out),
        }
    }

    pub(super) fn blame(&mut self, step: &str, why: &str) {
        if self.outcome.is_none() {
            self.outcome = Some(Outcome::Failed);
            self.message = message(why);
            step.clone_into(&mut self.failed_step);
        }
    }

    /// Resumes what its pauses have suspended: also an earlier one, whose end may not have come to all tasks yet. Tasks that a person has
    /// suspended stay so where none has.
    fn resume_tasks(&self, out: &mut Change) {
        out.follow.extend((!self.never_suspended).then_some(Follow::ResumeTasks));
    }

    /// Ends the time of a pause, which no deadline counts, without the part of it in which Rota was away.
    fn count_pause(&mut self, away: Duration, now: Timestamp) {
        // Without its place in its group, its time has not begun.
        if let Some(since) = self.paused_at.take().filter(|_| !self.lacks_group()) {
            let pause = now.since(since).saturating_sub(away);
            self.paused_for = self.paused_for.saturating_add(pause);
        }
    }

    /// Starts no further step of the phase. With `cancels`, running tasks are cancelled.
    pub(super) fn stop(&mut self, cancels: bool, out: &mut Change, now: Timestamp) {
        let stops = self.state == State::Running;
        if stops {
            self.state = State::Stopping;
            // Without its place it has begun nothing that finally-steps could end.
            self.finals_halted |= self.lacks_group();
            // How long Rota was away in a pause that ends by itself is not known here: what runs may have that time, too.
            self.count_pause(Duration::ZERO, now);
            // What runs ends, which suspended tasks would not.
            if std::mem::take(&mut self.paused) && !cancels {
                self.resume_tasks(out);
                self.pass_on(NestedCommand::Resume, None, out);
            }
        }
        let halts = stops || (cancels && self.state == State::Finalizing);
        out.follow.extend(halts.then_some(Follow::Halt));
        if cancels && matches!(self.state, State::Stopping | State::Finalizing) {
            self.cut_off |= self.state == State::Stopping;
            out.follow.push(Follow::CancelTasks);
            self.pass_on(NestedCommand::Cancel, None, out);
        }
    }

    /// Asks for held steps, if some may start.
    pub(super) fn release(&self, out: &mut Change) {
        if self.releasable() > 0 && !out.follow.contains(&Follow::Release) {
            out.follow.push(Follow::Release);
        }
    }

    /// Continues with the next phase, if this one is over.
    pub(super) fn advance(&mut self, out: &mut Change, now: Timestamp) {
        match self.state {
            State::Running if self.main_open == 0 => self.after_main(out, now),
            State::Running => self.release(out),
            State::Stopping if self.active == 0 => self.after_main(out, now),
            State::Finalizing if self.finals_open == 0 => self.conclude(out, now),
            // Finally-steps that have not started do not, after a cancellation in this phase.
            State::Finalizing if self.finals_halted && self.active == 0 => self.conclude(out, now),
            State::Finalizing => self.release(out),
            _ => {}
        }
    }

    fn after_main(&mut self, out: &mut Change, now: Timestamp) {
        (self.paused, self.paused_at) = (false, None);
        match self.last_completed.filter(|_| self.compensates && self.outcome.is_some()) {
            Some(step) => {
                self.state = State::Compensating;
                out.follow.push(Follow::Compensate { step });
            }
            None => self.finalize(out, now),
        }
    }

    /// Continues after a step was compensated, or could not be.
    pub(super) fn compensated(&mut self, step: &Step, succeeded: bool, out: &mut Change, now: Timestamp) {
        self.last_completed = step.previous;
        if succeeded {
            return self.compensate_next(out, now);
        }
        self.compensation_failed = true;
        let why = format!("the compensation of step {} has failed: {}", step.name, step.message);
        self.message = message(&why);
        self.finalize(out, now);
    }

    /// Continues with the step that has ended last of those that are not compensated.
    pub(super) fn compensate_next(&mut self, out: &mut Change, now: Timestamp) {
        match self.last_completed {
            Some(step) => out.follow.push(Follow::Compensate { step }),
            None => self.finalize(out, now),
        }
    }

    fn finalize(&mut self, out: &mut Change, now: Timestamp) {
        self.state = State::Finalizing;
        self.active = 0;
        self.advance(out, now);
    }

    fn conclude(&mut self, out: &mut Change, now: Timestamp) {
        if self.outcome.is_none() && self.has_outputs {
            self.state = State::Ending;
        } else {
            self.end(out, now);
        }
    }

    fn end(&mut self, out: &mut Change, now: Timestamp) {
        self.state = self.final_state();
        self.ended_at = Some(now);
        self.leave(out);
        // The workflow around it has taken notice of its first end.
        let parent = self.parent.as_ref().filter(|_| self.resolved == 0);
        out.follow.extend(parent.map(|_| Follow::EndedAsStep));
    }

    /// Returns the state in which it ends, as far as that is known before its finally-steps.
    pub fn final_state(&self) -> State {
        match self.outcome {
            _ if self.compensation_failed => State::CompensationFailed,
            None => State::Succeeded,
            Some(Outcome::Failed) => State::Failed,
            Some(Outcome::Cancelled) => State::Cancelled,
        }
    }

    /// Whether steps of this kind may start, as far as the phase is concerned.
    pub(super) fn is_phase_of(&self, step: &Step) -> bool {
        match self.state {
            State::Running => !step.finally,
            State::Finalizing => step.finally && !self.finals_halted,
            _ => false,
        }
    }

    pub(super) fn held(&mut self, step: &Step) -> &mut u32 {
        if step.finally { &mut self.finals_held } else { &mut self.main_held }
    }

    /// Starts a step whose needs have ended, once it has a place in its group; or holds it until the workflow has room.
    pub(super) fn start_or_hold(&mut self, step: &mut Step, out: &mut Change, now: Timestamp) {
        let was_held = step.state == StepState::Held;
        let starts = self.is_phase_of(step) && self.has_room();
        if starts {
            step.state = StepState::Ready;
            if !step.join(out) {
                step.ready_at = Some(now);
            }
            step.round = 1;
            self.active += 1;
        } else {
            step.state = StepState::Held;
        }
        match (was_held, starts) {
            (true, true) => *self.held(step) -= 1,
            (false, false) => *self.held(step) += 1,
            _ => {}
        }
    }
}
