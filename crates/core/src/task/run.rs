//! A task on a worker: assigned, taken, at work, ended, lost.

use std::time::Duration;

use super::apply::Step;
use super::{
    Assignment, Body, Desired, Ending, Held, Item, Limits, Meaning, Refusal, Rejected, Reply, RuntimeSession,
    State, StateChange, WorkerRef,
};
use crate::Fence;
use crate::failure::{Class, Failure, Severity};
use crate::retry::{self, Decision};
use crate::usage::Usage;

/// First wait after an assignment was not taken a second time in a row; it doubles with each.
const FIRST_REFUSAL_WAIT: Duration = Duration::from_secs(1);
const LONGEST_REFUSAL_WAIT: Duration = Duration::from_secs(30);

/// What a worker's word is worth.
enum Standing {
    /// It is the live assignment.
    Live,
    /// It was, once.
    Stale,
}

impl Step<'_> {
    fn standing(&self, held: &Held) -> Result<Standing, Rejected> {
        if held.fence > self.task.fence || held.fence == Fence(0) {
            return Err(Rejected::UnknownFence(held.fence));
        }
        let live = self.task.assignment.as_ref().is_some_and(|assignment| {
            held.fence == self.task.fence
                && assignment.worker == held.by.worker
                && assignment.epoch == held.by.epoch
        });
        Ok(if live { Standing::Live } else { Standing::Stale })
    }

    pub(super) fn assign(
        &mut self,
        to: WorkerRef,
        span_id: [u8; 8],
        mut defaults: Limits,
    ) -> Result<(), Rejected> {
        let task = &mut *self.task;
        if task.state != State::Queued {
            return Err(Rejected::State(task.state));
        }
        task.fence = Fence(task.fence.0 + 1);
        if task.agent().is_none() {
            // Should it not be taken, it waits again for anybody, not for this agent.
            defaults.queue_timeout = None;
        }
        task.defaults = defaults;
        let change = StateChange::new(State::Assigned, "assigned").worker(&to.worker);
        task.assignment = Some(Assignment {
            worker: to.worker,
            epoch: to.epoch,
            attempt: task.attempts + 1,
            at: self.now,
            span_id,
            attempt_seq: 0,
            usage: Usage::default(),
            open_input: Vec::new(),
        });
        self.go(change);
        Ok(())
    }

    pub(super) fn accept(&mut self, held: &Held) -> Result<(), Rejected> {
        match self.standing(held)? {
            Standing::Stale => self.reply(Reply::Stale),
            Standing::Live => self.taken(),
        }
        Ok(())
    }

    /// The worker has it: whatever it says of the attempt implies that.
    fn taken(&mut self) {
        if self.task.state == State::Assigned {
            let task = &mut *self.task;
            task.attempts += 1;
            task.refusals = 0;
            task.refusal = None;
            task.progress = None;
            task.started_at = Some(task.started_at.unwrap_or(self.now));
            let mut change = StateChange::new(State::Running, "started");
            change.worker = task.assignment.as_ref().map(|a| a.worker.clone());
            self.go(change);
        }
    }

    pub(super) fn reject(&mut self, held: &Held, reason: &str) -> Result<(), Rejected> {
        match self.standing(held)? {
            Standing::Stale => self.reply(Reply::Stale),
            Standing::Live if self.task.state == State::Assigned => self.not_taken("rejected", reason),
            Standing::Live => return Err(Rejected::State(self.task.state)),
        }
        Ok(())
    }

    /// Back to the queue without costing an attempt; from the second time in a row on with a growing wait,
    /// so that a worker that can never take it does not spin.
    fn not_taken(&mut self, reason: &'static str, message: &str) {
        let task = &mut *self.task;
        let Some(Assignment { worker, span_id, .. }) = &task.assignment else { return };
        task.refusals += 1;
        task.refusal = Some(Refusal { worker: worker.clone(), reason: message.to_owned() });
        if task.refusals > 1 {
            let wait = retry::backoff(
                FIRST_REFUSAL_WAIT,
                LONGEST_REFUSAL_WAIT,
                task.refusals - 1,
                // Chance came in with the assignment.
                f64::from(u32::from_le_bytes([span_id[0], span_id[1], span_id[2], span_id[3]]))
                    / f64::from(u32::MAX),
            );
            task.retry_at = Some(self.now + wait);
        }
        let worker = Some(worker.clone());
        let mut change = StateChange::new(State::Pending, reason).message(message);
        change.worker = worker;
        change.retry_at = task.retry_at;
        self.go(change);
        self.settle();
    }

    pub(super) fn report(&mut self, held: &Held, first: u64, items: Vec<Item>) -> Result<(), Rejected> {
        if let Standing::Stale = self.standing(held)? {
            self.reply(Reply::Stale);
            return Ok(());
        }
        let known = self.task.assignment.as_ref().map_or(0, |a| a.attempt_seq);
        if first == 0 || first > known + 1 {
            return Err(Rejected::Gap { expected: known + 1, got: first });
        }
        // What was sent before and already stands in the log is passed over.
        let old = usize::try_from(known + 1 - first).unwrap_or(usize::MAX);
        self.check_questions(items.get(old..).unwrap_or_default())?;
        self.taken();
        for item in items.into_iter().skip(old) {
            self.report_item(item);
        }
        let seq = self.task.assignment.as_ref().map_or(0, |a| a.attempt_seq);
        self.reply(Reply::Reported(seq));
        Ok(())
    }

    fn report_item(&mut self, item: Item) {
        let Some(assignment) = &mut self.task.assignment else { return };
        assignment.attempt_seq += 1;
        match item.meaning {
            Meaning::Plain => {}
            Meaning::Progress(mut progress) => {
                // `max` turns a NaN, which no record could carry, into 0.
                progress.fraction = progress.fraction.clamp(0.0, 1.0).max(0.0);
                self.task.progress = Some(progress);
            }
            Meaning::Usage(usage) => assignment.usage = assignment.usage.at_least(&usage),
            Meaning::Asks { request, payload } => {
                // Asked again under the same name: one answer settles it.
                assignment.open_input.retain(|(id, _)| *id != request);
                assignment.open_input.push((request, payload));
            }
            Meaning::Settles(request) => assignment.open_input.retain(|(id, _)| *id != request),
        }
        self.log(item.at, Body::Report(item.payload));
        self.match_input_state();
    }

    pub(super) fn finish(
        &mut self,
        held: &Held,
        ending: Ending,
        usage: Option<Usage>,
        session: String,
        jitter: f64,
    ) -> Result<(), Rejected> {
        if let Standing::Stale = self.standing(held)? {
            // A repetition of the accepted success, whose answer was lost, is no late result.
            if !(matches!(ending, Ending::Succeeded(_)) && self.has_succeeded_by(held)) {
                self.note_stale(held);
                self.reply(Reply::Stale);
            }
            return Ok(());
        }
        self.taken();
        let task = &mut *self.task;
        task.stale_noted = held.fence;
        if let Some(assignment) = &mut task.assignment {
            if let Some(usage) = usage {
                assignment.usage = assignment.usage.at_least(&usage);
            }
            // An attempt that ended before it had a session leaves an earlier one's to go on from.
            if !session.is_empty() {
                task.session = Some(RuntimeSession { worker: assignment.worker.clone(), session });
            }
        }
        match ending {
            // A cancelled task has no success: whoever asked for its end was told that it would come.
            _ if task.desired == Desired::Cancelled => {
                let by = if let Ending::Stopped { by } = &ending { by.as_str() } else { "its own end" };
                self.go(StateChange::new(State::Cancelled, "cancelled").message(format!("ended by {by}")));
            }
            Ending::Succeeded(result) => {
                task.has_result = result.is_some();
                if let Some(progress) = &mut task.progress {
                    progress.fraction = 1.0;
                }
                self.out.result = result;
                self.go(StateChange::new(State::Succeeded, "succeeded"));
            }
            // A worker that had to end says so in order; the attempt is no more at fault than with one that vanishes.
            Ending::Failed(failure) if failure.class == Class::WorkerLost => {
                self.interrupted(&failure.message)
            }
            Ending::Failed(failure) => self.failed(failure, jitter),
            Ending::Stopped { by } => {
                self.interrupted(&format!("the worker ended the attempt by {by}, unasked"))
            }
        }
        Ok(())
    }

    fn has_succeeded_by(&self, held: &Held) -> bool {
        self.task.state == State::Succeeded
            && held.fence == self.task.fence
            && self.task.last_worker.as_ref() == Some(&held.by.worker)
    }

    fn note_stale(&mut self, held: &Held) {
        // The live fence from a session that is over or from another worker says nothing of the attempt's end.
        let live = self.task.assignment.is_some() && held.fence == self.task.fence;
        if !live && held.fence > self.task.stale_noted {
            self.task.stale_noted = held.fence;
            let message = format!(
                "worker {} sent a result for fence {}, which no longer counts; it was refused",
                held.by.worker, held.fence.0
            );
            self.log(
                self.now,
                Body::Notice { severity: Severity::Low, code: "stale_result".into(), message },
            );
        }
    }

    fn failed(&mut self, failure: Failure, jitter: f64) {
        let task = &mut *self.task;
        let waits = task.waits + 1;
        let failures = task.failures + 1;
        let decision = task.retry.decide(&failure, failures, waits, jitter);
        let wait = match decision {
            Decision::Retry(wait) => {
                task.failures = failures;
                wait
            }
            Decision::Wait(wait) => {
                task.waits = waits;
                wait
            }
            Decision::Stop => {
                task.failures = failures;
                let message = failure.message.clone();
                return self.go(StateChange::new(State::Failed, "failed").message(message).failure(failure));
            }
        };
        let at = self.now + wait;
        if task.deadline().is_some_and(|deadline| deadline <= at) {
            let message = format!("{}; its total time does not allow another attempt", failure.message);
            return self.go(StateChange::new(State::Failed, "timeout").message(message).failure(failure));
        }
        task.retry_at = Some(at);
        task.ready_at = None;
        let mut change =
            StateChange::new(State::Pending, "retry").message(failure.message.clone()).failure(failure);
        change.retry_at = Some(at);
        self.go(change);
        self.settle();
    }

    pub(super) fn resume(&mut self, by: WorkerRef, fence: Fence) -> Result<(), Rejected> {
        let task = &mut *self.task;
        match &mut task.assignment {
            Some(assignment)
                if fence == task.fence && assignment.worker == by.worker && assignment.epoch <= by.epoch =>
            {
                assignment.epoch = by.epoch;
                self.taken();
                let seq = self.task.assignment.as_ref().map_or(0, |a| a.attempt_seq);
                self.reply(Reply::Reported(seq));
            }
            _ => self.reply(Reply::Stale),
        }
        Ok(())
    }

    pub(super) fn lose_worker(&mut self, session: &WorkerRef, message: &str) -> Result<(), Rejected> {
        let task = &*self.task;
        // A session that the worker has since replaced is no reason: its attempts went on in the new one.
        let lost =
            task.assignment.as_ref().is_some_and(|a| a.worker == session.worker && a.epoch <= session.epoch);
        match task.state {
            _ if !lost => self.reply(Reply::Stale),
            State::Assigned if task.desired != Desired::Cancelled => self.not_taken("worker_lost", message),
            _ => self.interrupted(message),
        }
        Ok(())
    }

    /// The attempt ended through no fault of the task's: it goes back with its place in the queue,
    /// unless it has done so too often.
    fn interrupted(&mut self, message: &str) {
        let task = &mut *self.task;
        if task.desired == Desired::Cancelled {
            return self.go(StateChange::new(State::Cancelled, "cancelled").message(message));
        }
        task.worker_losses += 1;
        if task.worker_losses > task.retry.max_worker_losses {
            let text =
                format!("{message}; it has now lost {} workers and is tried no more", task.worker_losses);
            let mut failure = Failure::new(Class::Quarantined, text.clone());
            failure.hint =
                "find out whether the task itself brings its workers down, then `rota retry` it".to_owned();
            return self.go(StateChange::new(State::Failed, "quarantined").message(text).failure(failure));
        }
        let mut change = StateChange::new(State::Pending, "worker_lost").message(message);
        change.failure = Some(Failure::new(Class::WorkerLost, message));
        change.worker = task.assignment.as_ref().map(|a| a.worker.clone());
        self.go(change);
        self.settle();
    }

    /// A task on a worker whose time is over though the worker said nothing.
    pub(super) fn overdue(&mut self) {
        let task = &mut *self.task;
        if task.desired == Desired::Cancelled {
            let message = "its worker did not confirm the end in time";
            self.go(StateChange::new(State::Cancelled, "cancelled").message(message));
        } else if task.state == State::Assigned {
            self.not_taken("not_taken", "the worker did not take it in time");
        } else {
            self.time_out();
        }
    }
}
