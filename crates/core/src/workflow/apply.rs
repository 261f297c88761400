//! Commands on steps.

use std::time::Duration;

use super::{
    COMPENSATION, Change, Follow, Kind, NestedCommand, Place, Rejected, Start, Step, StepCommand, StepState,
    TaskEnd, Workflow, message,
};
use crate::Timestamp;

const STOPPED: &str = "the workflow has stopped";
const REPLACED: &str = "a new member of its concurrency group has taken its place";
const REUSED: &str = "its results are those of the earlier run";

/// One command on a step.
pub(super) struct Move<'a> {
    pub(super) workflow: &'a mut Workflow,
    pub(super) step: &'a mut Step,
    pub(super) now: Timestamp,
    pub(super) out: Change,
}

impl Workflow {
    /// Executes a command on a step of this workflow. A rejected command changes nothing.
    pub fn apply_to(
        &mut self,
        step: &mut Step,
        command: StepCommand,
        now: Timestamp,
    ) -> Result<Change, Rejected> {
        let mut step_move = Move { workflow: self, step, now, out: Change::default() };
        step_move.apply(command)?;
        Ok(step_move.out)
    }
}

impl Move<'_> {
    fn apply(&mut self, command: StepCommand) -> Result<(), Rejected> {
        let state = self.step.state;
        match command {
            StepCommand::NeedEnded { satisfied, reused } => self.need_ended(satisfied, reused),
            StepCommand::Release => {
                if state == StepState::Held {
                    self.workflow.start_or_hold(self.step, &mut self.out, self.now);
                }
            }
            StepCommand::Admit if !self.step.waits_for_group() => return Err(Rejected::Outdated),
            StepCommand::Admit if !self.workflow.is_phase_of(self.step) => self.halt(),
            StepCommand::Admit if self.workflow.is_paused() => {
                self.workflow.hold_back(self.step, &mut self.out);
            }
            StepCommand::Admit => {
                self.step.group.iter_mut().for_each(|group| group.place = Place::Holding);
                self.step.ready_at = Some(self.now);
            }
            StepCommand::Replace => self.replace()?,
            StepCommand::Skip => {
                self.is_current(StepState::Ready, 1)?;
                self.step.by_condition = true;
                self.end(StepState::Skipped, "its condition does not hold");
            }
            StepCommand::Start(start) => {
                self.is_current(StepState::Ready, start.round)?;
                if !self.workflow.is_phase_of(self.step) {
                    self.halt();
                } else {
                    self.is_not_paused()?;
                    self.start(start);
                }
            }
            StepCommand::Reuse { round, total, inputs, lists } => {
                self.is_current(StepState::Ready, 1)?;
                if self.workflow.is_phase_of(self.step) {
                    self.workflow.reused_lists = self.workflow.reused_lists.saturating_add(lists);
                    self.reuse(round, total, inputs);
                } else {
                    self.halt();
                }
            }
            StepCommand::Created { count } => {
                if !self.workflow.is_phase_of(self.step) {
                    return Err(Rejected::Outdated);
                }
                self.is_not_paused()?;
                self.step.created = self.step.created.saturating_add(count).min(self.step.total);
            }
            StepCommand::Fail { round, state: judged, created, message } => {
                let now = (state, self.step.round, self.step.created);
                if !state.is_active() || now != (judged, round, created) {
                    return Err(Rejected::Outdated);
                }
                self.fail(&message);
            }
            StepCommand::TaskEnded { round: COMPENSATION, end } => self.compensation_ended(end),
            StepCommand::TaskEnded { round, end } => {
                if state == StepState::Running && round == self.step.round {
                    self.task_ended(end);
                }
            }
            StepCommand::Finish { round, again } => {
                self.is_current(StepState::Ending, round)?;
                let why = if self.step.reused { REUSED } else { "" };
                if again {
                    self.is_not_paused()?;
                    self.repeat();
                } else {
                    self.end(StepState::Succeeded, why);
                }
            }
            StepCommand::Decide { approves, message } => {
                if !self.step.is_approval() {
                    return Err(Rejected::NoApproval);
                }
                if !self.step.awaits_decision() {
                    return Err(Rejected::State(state));
                }
                if approves {
                    self.close(&message);
                } else {
                    self.end(StepState::Failed, &message);
                }
            }
            StepCommand::Signal => {
                if !matches!(self.step.kind, Kind::Signal { .. }) {
                    return Err(Rejected::NoSignal);
                }
                if state.is_final() || self.step.signalled {
                    return Err(Rejected::State(state));
                }
                self.step.signalled = true;
                if state == StepState::Running {
                    self.close("");
                }
            }
            StepCommand::Tick { by, away } => self.tick(by, away),
            StepCommand::Resume => self.move_deadline(Duration::ZERO),
            StepCommand::Halt => self.halt(),
            StepCommand::Compensate => self.compensate(),
            StepCommand::CompensationCreated { item } => self.compensation_created(item)?,
            StepCommand::CompensationFailed { after, message } => {
                self.compensation_failed(after, &message)?;
            }
            StepCommand::Resolve(resolved) => self.resolve(resolved)?,
        }
        Ok(())
    }

    fn is_current(&self, state: StepState, round: u32) -> Result<(), Rejected> {
        let is_current = self.step.state == state && self.step.round == round;
        if is_current && !self.step.waits_for_group() { Ok(()) } else { Err(Rejected::Outdated) }
    }

    fn is_not_paused(&self) -> Result<(), Rejected> {
        if self.workflow.is_paused() { Err(Rejected::Paused) } else { Ok(()) }
    }

    fn need_ended(&mut self, satisfied: bool, reused: bool) {
        if self.step.state != StepState::Waiting {
            return;
        }
        self.step.needs = self.step.needs.saturating_sub(1);
        self.step.doomed |= !satisfied;
        // A person has approved what other steps did.
        self.step.may_reuse &= reused || self.step.kind.is_created();
        // After the phase it never starts.
        if self.step.needs > 0 || !self.workflow.is_phase_of(self.step) {
            return;
        }
        if self.step.doomed {
            self.end(StepState::Skipped, "a step that it needs has not succeeded");
        } else {
            self.workflow.start_or_hold(self.step, &mut self.out, self.now);
        }
    }

    fn start(&mut self, start: Start) {
        let Start { round, total, parallel, max_rounds, kind, question, template, inputs } = start;
        if round == 1 {
            self.step.inputs = inputs;
            self.step.max_rounds = max_rounds.unwrap_or(self.step.max_rounds);
            self.step.kind = kind.unwrap_or(self.step.kind);
        }
        self.step.state = StepState::Running;
        let due = match self.step.kind {
            Kind::Task | Kind::Workflow => {
                (self.step.total, self.step.parallel) = (total, parallel);
                self.step.template = template;
                if total == 0 {
                    self.close("");
                }
                return;
            }
            Kind::Approval { deadline, .. } => {
                self.step.question = question;
                deadline
            }
            Kind::Sleep { duration } => Some(duration),
            Kind::Signal { .. } if self.step.signalled => return self.close(""),
            Kind::Signal { timeout } => timeout,
        };
        self.wait(due);
    }

    /// Ends its round as that of an earlier workflow, whose results are the step's.
    fn reuse(&mut self, round: u32, total: u32, inputs: String) {
        let step = &mut *self.step;
        step.reused = true;
        step.inputs = inputs;
        step.round = round.max(1);
        (step.total, step.created, step.succeeded) = (total, total, total);
        self.close(REUSED);
    }

    fn task_ended(&mut self, end: TaskEnd) {
        match end {
            TaskEnd::Succeeded => self.step.succeeded += 1,
            TaskEnd::Failed => self.step.failed += 1,
            TaskEnd::Cancelled => {
                self.step.failed += 1;
                self.step.cancelled += 1;
            }
        }
        if self.step.open() == 0 && (self.step.created == self.step.total || self.step.halted) {
            self.all_ended();
        }
    }

    /// Continues after the last task of a round.
    fn all_ended(&mut self) {
        let Step { failed, cancelled, total, created, kind, .. } = *self.step;
        let what = if kind == Kind::Workflow { "workflow" } else { "task" };
        if self.step.doomed {
            let why = self.step.message.clone();
            self.end(StepState::Failed, &why);
        } else if self.step.replaced && (failed > 0 || created < total) {
            self.end(StepState::Cancelled, REPLACED);
        } else if failed > cancelled && self.may_retry() {
            let (round, most) = (self.step.round, self.step.max_attempts);
            self.step.message = format!("attempt {round} of {most} has failed");
            self.next_round();
        } else if failed > cancelled {
            let why = if self.step.max_attempts > 1 {
                format!("its {what} has failed in attempt {} of {}", self.step.round, self.step.max_attempts)
            } else if total == 1 {
                format!("its {what} has failed")
            } else {
                format!("{failed} of {total} {what}s have not succeeded")
            };
            self.end(StepState::Failed, &why);
        } else if failed > 0 {
            self.end(StepState::Cancelled, &format!("a {what} of it was cancelled"));
        } else if created < total {
            self.end(StepState::Cancelled, STOPPED);
        } else {
            self.close("");
        }
    }

    /// Ends a round that has succeeded.
    pub(super) fn close(&mut self, why: &str) {
        (self.step.due, self.step.due_after_pause) = (None, None);
        if self.step.evaluates_end {
            self.step.state = StepState::Ending;
        } else {
            self.end(StepState::Succeeded, why);
        }
    }

    fn repeat(&mut self) {
        let step = &mut *self.step;
        if step.round >= step.max_rounds {
            let why = format!("its condition does not hold after {} rounds", step.round);
            return self.end(StepState::Failed, &why);
        }
        if step.halted || !self.workflow.is_phase_of(step) {
            let why = if step.replaced { REPLACED } else { STOPPED };
            return self.end(StepState::Cancelled, why);
        }
        self.next_round();
    }

    /// Whether another attempt follows one that has failed.
    fn may_retry(&self) -> bool {
        let step = &*self.step;
        step.round < step.max_attempts && !step.halted && self.workflow.is_phase_of(step)
    }

    fn next_round(&mut self) {
        let step = &mut *self.step;
        step.state = StepState::Ready;
        step.round += 1;
        step.reused = false;
        (step.total, step.created, step.succeeded, step.failed, step.cancelled) = (0, 0, 0, 0, 0);
        step.signalled = false;
    }

    /// Fails the step, once its tasks have ended.
    fn fail(&mut self, why: &str) {
        if self.step.open() == 0 {
            return self.end(StepState::Failed, why);
        }
        self.step.halted = true;
        self.step.doomed = true;
        self.step.message = message(why);
    }

    fn halt(&mut self) {
        match self.step.state {
            StepState::Ready if self.step.round == 1 => self.end(StepState::Skipped, STOPPED),
            StepState::Ready => self.end(StepState::Cancelled, STOPPED),
            StepState::Running if self.step.kind.is_created() => {
                self.step.halted = true;
                if self.step.open() == 0 {
                    self.all_ended();
                }
            }
            StepState::Running => self.end(StepState::Cancelled, STOPPED),
            _ => {}
        }
    }

    /// Ends the step, and its tasks, in favor of a new member of its group.
    fn replace(&mut self) -> Result<(), Rejected> {
        let is_member = self.step.group.as_ref().is_some_and(|group| group.place != Place::Outside);
        if !is_member || self.step.replaced {
            return Err(Rejected::Outdated);
        }
        self.step.replaced = true;
        match self.step.state {
            StepState::Running if self.step.kind.is_created() => {
                self.step.halted = true;
                match self.step.open() {
                    0 => self.all_ended(),
                    _ if self.step.kind == Kind::Workflow => {
                        self.workflow.pass_on(NestedCommand::Cancel, Some(self.step.index), &mut self.out);
                    }
                    _ => self.out.follow.push(Follow::CancelStep { step: self.step.index }),
                }
            }
            // It ends by itself.
            StepState::Ending => self.step.halted = true,
            _ => self.end(StepState::Cancelled, REPLACED),
        }
        Ok(())
    }

    pub(super) fn end(&mut self, state: StepState, why: &str) {
        let (workflow, step) = (&mut *self.workflow, &mut *self.step);
        if step.state.is_active() {
            workflow.active = workflow.active.saturating_sub(1);
        }
        step.state = state;
        step.message = message(why);
        (step.due, step.due_after_pause) = (None, None);
        step.ended_at = Some(self.now);
        step.leave(&mut self.out);
        let open = if step.finally { &mut workflow.finals_open } else { &mut workflow.main_open };
        *open = open.saturating_sub(1);
        match state {
            StepState::Succeeded => workflow.succeeded += 1,
            StepState::Failed => workflow.failed += 1,
            _ => workflow.skipped += 1,
        }
        if step.is_compensable() && !step.finally {
            step.previous = workflow.last_completed.replace(step.index);
        }
        if matches!(state, StepState::Failed | StepState::Cancelled) {
            workflow.blame(&step.name, &format!("step {}: {}", step.name, step.message));
            if step.stops {
                workflow.stop(false, &mut self.out, self.now);
            }
        }
        if step.has_dependents && workflow.is_phase_of(step) {
            self.out.follow.push(Follow::Ended { step: step.index });
        }
        workflow.advance(&mut self.out, self.now);
    }
}
