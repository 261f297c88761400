//! One command on one task: the table of states × commands, and what every step shares.

use super::{Body, Command, Desired, Event, Rejected, Reply, State, StateChange, Task, Transition};
use crate::{
    Timestamp,
    failure::{Class, Failure},
};

/// A command at work on a task.
pub(super) struct Step<'a> {
    pub(super) task: &'a mut Task,
    pub(super) now: Timestamp,
    pub(super) out: Transition,
}

impl Task {
    /// Carries out one command. On an error the record is as it was.
    pub fn apply(&mut self, command: Command, now: Timestamp) -> Result<Transition, Rejected> {
        // Time never runs backwards for a task, whatever the clock does.
        let now = now.max(self.last_known_time());
        let mut step = Step { task: self, now, out: Transition::default() };
        let state = step.task.state;
        match command {
            // A worker's word is judged by its fence first, in every state.
            Command::Accept(held) => step.accept(&held)?,
            Command::Reject { held, reason } => step.reject(&held, &reason)?,
            Command::Report { held, first, items } => step.report(&held, first, items)?,
            Command::Finish { held, ending, usage, session, jitter } => {
                step.finish(&held, ending, usage, session, jitter)?;
            }
            Command::Resume { by, fence } => step.resume(by, fence)?,
            Command::LoseWorker { session, message } => step.lose_worker(&session, &message)?,
            Command::Update { priority, labels, desired, reason } => {
                step.update(priority, labels, desired, reason)?;
            }
            // An answer that was taken may be repeated also when the task has ended.
            Command::GiveInput { request, payload } => step.give_input(&request, payload)?,
            // Nothing else touches a task that has ended.
            _ if state.is_final() => return Err(Rejected::Final(state)),
            Command::Assign { to, span_id, defaults } => step.assign(to, span_id, defaults)?,
            Command::Tick => step.tick(),
            Command::DependencyFound { key, id } => step.dependency_found(&key, id)?,
            Command::DependencyEnded { id, state } => step.dependency_ended(id, state)?,
            Command::Cycle { path } => step.cycle(&path)?,
            Command::AgentAppeared { defaults } => {
                step.task.agent_known = true;
                // An attempt keeps the bounds with which it was sent; who names no agent has none to hear of.
                if !state.is_on_worker() && step.task.agent().is_some() {
                    step.task.defaults = defaults;
                }
                step.settle();
            }
            Command::AgentGone => {
                // Who names no agent misses none.
                step.task.agent_known = step.task.agent().is_none();
                step.settle();
            }
        }
        Ok(step.out)
    }
}

impl Step<'_> {
    /// Adds an entry to the log.
    pub(super) fn log(&mut self, at: Timestamp, body: Body) {
        self.task.log_seq += 1;
        self.out.events.push(Event { log_seq: self.task.log_seq, at, attempt: self.task.attempt(), body });
    }

    /// Goes to another state and says so in the log.
    pub(super) fn go(&mut self, mut change: StateChange) {
        let task = &mut *self.task;
        change.from = Some(task.state);
        let attempt = task.attempt();
        task.state = change.to;
        if !task.state.is_on_worker()
            && let Some(assignment) = task.assignment.take()
        {
            task.usage = task.usage.plus(&assignment.usage);
            task.last_worker = Some(assignment.worker);
        }
        if task.state.is_final() {
            task.ended_at = Some(self.now);
            task.retry_at = None;
            task.confirm_by = None;
            task.failure = change.failure.clone();
            self.out.ended = true;
        }
        self.task.log_seq += 1;
        let event = Event { log_seq: self.task.log_seq, at: self.now, attempt, body: Body::State(change) };
        self.out.events.push(event);
    }

    /// Brings a task that is not on a worker to where its conditions say: PENDING, QUEUED, or its end.
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
        // A time that has come is forgotten, or `due` would name it for ever.
        for time in [&mut task.retry_at, &mut task.not_before] {
            *time = time.filter(|at| *at > self.now);
        }
        let held = !task.dependencies_over() || !task.agent_known || task.desired != Desired::Run;
        if held {
            // Its place is lost: else it would come back with its queue timeout long over.
            task.ready_at = None;
        }
        let ready = !held && task.not_before.is_none() && task.retry_at.is_none();
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

    /// Acts on whatever time is over.
    fn tick(&mut self) {
        let (task, now) = (&*self.task, self.now);
        let over = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        match task.state {
            State::Pending if task.retry_at.is_some() && over(task.deadline()) => self.time_out(),
            State::Queued if over(task.deadline()) => self.time_out(),
            // A refused task that waits for its next assignment is still in the queue for whoever waits for it.
            State::Pending | State::Queued if over(task.queue_deadline()) => {
                let message = "it waited longer than its queue timeout for a worker";
                let failure = Failure::new(Class::QueueTimeout, message);
                self.go(StateChange::new(State::Failed, "queue_timeout").message(message).failure(failure));
            }
            State::Pending | State::Queued => self.settle(),
            State::Assigned | State::Running | State::InputRequired if over(task.due()) => self.overdue(),
            _ => {}
        }
    }

    pub(super) fn time_out(&mut self) {
        let message = "its total time is over";
        let failure = Failure::new(Class::Timeout, message);
        self.go(StateChange::new(State::Failed, "timeout").message(message).failure(failure));
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        self.out.reply = reply;
    }
}
