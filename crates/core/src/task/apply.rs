//! Execution of one command on one task: the table of states × commands, and the steps that all commands share.

use std::time::Duration;

use bytes::Bytes;

use super::command::AttemptRef;
use super::run::FenceCheck;
use super::{
    Body, Command, Desired, EndedAttempt, Event, QueueWait, Rejected, Reply, State, StateChange, Superseded,
    Task, Transition,
};
use crate::{
    Timestamp,
    failure::{Class, Failure},
};

pub(super) struct Step<'a> {
    pub(super) task: &'a mut Task,
    pub(super) now: Timestamp,
    pub(super) out: Transition,
}

impl Task {
    /// Returns the latest time in the record.
    fn last_known_time(&self) -> Timestamp {
        let assigned = self.assignment.as_ref().map(|assignment| assignment.at);
        [self.ready_at, self.started_at, self.ended_at, assigned]
            .into_iter()
            .flatten()
            .fold(self.created_at, Ord::max)
    }

    /// Executes one command. On an error the record is unchanged.
    pub fn apply(&mut self, command: Command, now: Timestamp) -> Result<Transition, Rejected> {
        // A task's time never runs backwards, whatever the clock does.
        let now = now.max(self.last_known_time());
        let mut step = Step { task: self, now, out: Transition::default() };
        let state = step.task.state;
        match command {
            // Reports of workers are checked by fence first, in every state.
            Command::Accept(attempt) => step.accept(&attempt)?,
            Command::UseModel { attempt, access } => step.use_model(&attempt, access)?,
            Command::Reject { attempt, reason } => step.reject(&attempt, &reason)?,
            Command::Report { attempt, first, items } => step.report(&attempt, first, items)?,
            Command::KeepArtifacts { attempt, list, checkpoint, unusable } => {
                step.keep_artifacts(&attempt, list, checkpoint, unusable)?;
            }
            Command::Release { attempt, requests } => step.release(&attempt, &requests)?,
            Command::Finish { attempt, last, completion, usage, session, jitter } => {
                step.finish(&attempt, last, completion, usage, session, jitter)?;
            }
            Command::Resume { by, fence } => step.resume(by, fence)?,
            Command::LoseWorker { session, loss, seen, message } => {
                step.lose_worker(&session, loss, seen, &message)?;
            }
            Command::Update { priority, labels, desired, reason } => {
                step.update(priority, labels, desired, reason)?;
            }
            Command::UpdateAsRead { read, .. } if step.task.settings() != read => {
                return Err(Rejected::Changed);
            }
            Command::UpdateAsRead { priority, labels, desired, reason, .. } => {
                step.update(priority, labels, desired, reason)?;
            }
            // An accepted answer may be repeated even after the task has ended.
            Command::GiveInput { request, payload, grant } => step.give_input(&request, payload, grant)?,
            // What has brought the budget there may have been the end of the task.
            Command::WarnOfBudget { message } => step.warn_of_budget(message),
            // A task that continues it gets the results of its children.
            Command::AddChild { id } => step.add_child(id),
            // Every other command on an ended task is rejected.
            _ if state.is_final() => return Err(Rejected::Final(state)),
            Command::Assign { to, agent, span_id, defaults, reserved } => {
                step.assign(to, agent, span_id, defaults)?;
                step.reserve(reserved);
            }
            Command::Stop { fence, stopping } => step.stop(fence, stopping)?,
            Command::Acknowledge { reason } => step.acknowledge(reason),
            Command::AwaitQuota { credential, limit, since, until, retry_at } => {
                step.await_quota(credential, limit, since, until, retry_at);
            }
            Command::QuotaLifted { credential } => step.quota_lifted(credential),
            Command::AwaitBudget(wait) => step.await_budget(wait),
            Command::BudgetLifted { scope } => step.budget_lifted(&scope),
            Command::Tick { by, away } => step.tick(by, away),
            Command::ClockJumped { by, at } => step.clock_jumped(by, at),
            Command::DependencyFound { key, id } => step.dependency_found(&key, id)?,
            Command::DependencyEnded { id, state } => step.dependency_ended(id, state)?,
            Command::ThreadPassedOn { id, next } => step.thread_passed_on(id, next),
            Command::Cycle { path, omitted } => step.cycle(&path, omitted)?,
            Command::AgentAppeared { defaults } => {
                step.task.agent_known = true;
                // An attempt keeps the limits it was assigned with, and a task that names no agent has no agent
                // limits.
                if !state.is_on_worker() && step.task.agent().is_some() {
                    step.task.defaults = defaults;
                }
                step.settle();
            }
            Command::AgentDeleted => {
                // A task that names no agent misses none.
                step.task.agent_known = step.task.agent().is_none();
                step.settle();
            }
        }
        Ok(step.out)
    }
}

impl Step<'_> {
    pub(super) fn keep_artifacts(
        &mut self,
        attempt: &AttemptRef,
        list: Bytes,
        checkpoint: bool,
        unusable: bool,
    ) -> Result<(), Rejected> {
        if let FenceCheck::Stale = self.check_fence(attempt)? {
            self.reply(Reply::Stale);
            return Ok(());
        }
        self.start();
        self.task.has_artifacts = true;
        let attempt = self.task.attempt();
        let (last, before) = (self.task.checkpointed, self.task.checkpointed_before);
        match (checkpoint, last == attempt) {
            (true, false) => (self.task.checkpointed, self.task.checkpointed_before) = (attempt, last),
            // The list that had it is replaced.
            (false, true) => self.task.checkpointed = before,
            _ => {}
        }
        if unusable {
            self.task.concluded = attempt;
        }
        if checkpoint {
            // What is stored may include what the answers have led to: none of them counts twice.
            self.task.questions.clear();
        }
        self.out.artifacts = Some(list);
        Ok(())
    }

    pub(super) fn log(&mut self, at: Timestamp, body: Body) {
        self.task.log_seq += 1;
        self.out.events.push(Event { log_seq: self.task.log_seq, at, attempt: self.task.attempt(), body });
    }

    /// Changes the state, with an entry in the log.
    pub(super) fn go(&mut self, mut change: StateChange) {
        let task = &mut *self.task;
        change.from = Some(task.state);
        let attempt = task.attempt();
        let from = std::mem::replace(&mut task.state, change.to);
        if task.state != State::Pending {
            task.leave_waits(self.now);
        }
        if from == State::Queued
            // In records of earlier versions, the time at which the task became ready is that of its first stay.
            && let Some(since) = task.queued_at.or(task.ready_at.filter(|_| task.refusals == 0 && task.worker_losses == 0))
        {
            self.out.queue_wait = Some(QueueWait { since, until: self.now });
        }
        if task.state == State::Queued {
            task.queued_at = Some(self.now);
        }
        if !task.state.is_on_worker()
            && let Some(assignment) = task.assignment.take()
        {
            task.usage = task.usage.plus(&assignment.usage);
            task.confirm_by = None;
            if task.state != State::Succeeded {
                task.supersede(Superseded {
                    fence: task.fence,
                    worker: assignment.worker.clone(),
                    agent: assignment.agent.clone(),
                    usage: assignment.usage.clone(),
                    unaccepted: assignment.started_at.is_none(),
                });
            }
            task.logged_bytes = task.logged_bytes.saturating_add(assignment.logged_bytes);
            task.worked = task.worked.saturating_add(assignment.worked(self.now));
            task.last_worker = Some(assignment.worker.clone());
            // One that no worker has started leaves the reason of the one before.
            if assignment.started_at.is_some() || change.failure.is_some() {
                task.last_failure = change.failure.clone().map(Box::new);
            }
            // A budget of the agent or the namespace has only cut it off.
            let is_own = |failure: &Failure| {
                failure.class.is_own_end() && (failure.class != Class::Budget || task.state.is_final())
            };
            if change.failure.as_ref().is_some_and(is_own) {
                task.concluded = assignment.attempt;
            }
            let ended = EndedAttempt::new(from, &change, assignment, task.fence, self.now);
            self.out.attempt_ended = Some(ended);
        }
        if task.state.is_final() {
            task.ended_at = Some(self.now);
            task.retry_at = None;
            task.confirm_by = None;
            task.lost = None;
            task.last_failure = None;
            task.undelivered = task.undelivered.filter(|_| task.state == State::Failed);
            task.messages.clear();
            task.questions.clear();
            task.failure = change.failure.clone();
            self.out.ended = true;
        }
        self.task.log_seq += 1;
        let event = Event { log_seq: self.task.log_seq, at: self.now, attempt, body: Body::State(change) };
        self.out.events.push(event);
    }

    /// Moves a task that is not on a worker to the state that its conditions require: PENDING, QUEUED, or its end.
    pub(super) fn settle(&mut self) {
        let task = &mut *self.task;
        if !matches!(task.state, State::Pending | State::Queued) {
            return;
        }
        if task.desired == Desired::Cancelled {
            return self.go(StateChange::new(State::Cancelled, "cancelled"));
        }
        if let Some(change) = task.broken_dependency() {
            return self.go(change);
        }
        // A delivery takes neither.
        let works_again = task.started_at.is_some() && task.undelivered.is_none();
        if works_again && task.worked >= task.timeout() {
            return self.time_out();
        }
        if let Some(failure) = task.over_budget().filter(|_| works_again) {
            let message = failure.message.clone();
            return self.go(StateChange::new(State::Failed, "budget").message(message).failure(failure));
        }
        // A time that has passed is cleared; otherwise `due` would return it again and again.
        for time in [&mut task.retry_at, &mut task.not_before] {
            *time = time.filter(|at| *at > self.now);
        }
        let blocked = !task.dependencies_over() || !task.agent_known || task.desired != Desired::Run;
        if blocked {
            // The rank is lost; otherwise the task could return with its queue timeout already exceeded.
            (task.ready_at, task.away, task.cooled) = (None, Duration::ZERO, Duration::ZERO);
        }
        let waits = task.not_before.is_some() || task.retry_at.is_some() || task.waits_for_answer();
        let ready = !blocked && !waits;
        match (task.state, ready) {
            (State::Pending, true) => {
                task.ready_at = Some(task.ready_at.unwrap_or(self.now));
                self.go(StateChange::new(State::Queued, "ready"));
            }
            (State::Queued, false) => {
                let reason = if task.desired == Desired::Suspended { "suspended" } else { "agent_missing" };
                self.go(StateChange::new(State::Pending, reason));
            }
            _ => {}
        }
    }

    /// Applies every deadline that has passed.
    fn tick(&mut self, by: Timestamp, away: Duration) {
        let (task, by) = (&mut *self.task, by.min(self.now));
        if matches!(task.state, State::Pending | State::Queued) && task.queue_deadline().is_some() {
            task.away = away;
        }
        let over = |at: Option<Timestamp>| at.is_some_and(|at| at <= by);
        match task.state {
            // A rejected task that waits for its next assignment still counts as queued for its caller.
            State::Pending | State::Queued if over(task.queue_deadline()) => {
                let message = "the queue timeout was exceeded before a worker took the task";
                let failure = Failure::new(Class::QueueTimeout, message);
                self.go(StateChange::new(State::Failed, "queue_timeout").message(message).failure(failure));
            }
            State::Pending | State::Queued => self.settle(),
            State::Assigned | State::Running | State::InputRequired if over(task.due()) => self.overdue(by),
            _ => {}
        }
    }

    fn clock_jumped(&mut self, by: Duration, at: Timestamp) {
        let task = &mut *self.task;
        let Some(assignment) = &mut task.assignment else { return };
        let is_later = assignment.at > at || assignment.resumed_at.is_some_and(|resumed| resumed > at);
        if is_later || assignment.jumped_at.is_some_and(|jumped| jumped >= at) {
            return self.reply(Reply::Stale);
        }
        assignment.jumped_at = Some(at);
        assignment.at = (assignment.at + by).min(at);
        if assignment.started_at.is_some() && assignment.paused_at.is_none() {
            assignment.paused = assignment.paused.saturating_add(by);
        }
        for time in [&mut assignment.resumed_at, &mut assignment.reported_at, &mut task.confirm_by] {
            *time = time.map(|at| at + by);
        }
    }

    pub(super) fn time_out(&mut self) {
        let message = match self.task.held_up_since() {
            Some(_) => "the workspace did not become free in time",
            None => "the total timeout was exceeded",
        };
        let failure = Failure::new(Class::Timeout, message);
        self.go(StateChange::new(State::Failed, "timeout").message(message).failure(failure));
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        self.out.reply = reply;
    }
}
