//! Attempts that end with their workers: unannounced deaths, which count against the task, and planned stops, which do not.

use super::apply::Step;
use super::attempt::{HANDED_BACK, QUARANTINED, WORKER_LOST};
use super::run::{INITIAL_REJECTION_BACKOFF, MAX_REJECTION_BACKOFF};
use super::{
    Assignment, AttemptRef, Body, CONFIRM_SLACK, Completion, Desired, Loss, LostAttempt, Rejected, Reply,
    State, StateChange, Task, WorkerRef,
};
use crate::failure::{Class, Failure, Severity};
use crate::{Fence, Timestamp, retry};
use std::time::Duration;

/// Consecutive workers that may die with an assignment that they have not accepted, before it counts against the task.
const UNACCEPTED_LOSSES: u32 = 2;
/// Unclear losses that weigh as much as a clear one. A task that ends each worker is found out with any neighbors; one that
/// has such a neighbor now and then is not.
const UNCLEAR_PER_LOSS: usize = 4;
/// Unclear losses that are remembered; further ones weigh as clear ones.
const MAX_UNCLEAR: usize = 256;
/// Waits from the second unclear loss on. They bring the suspects of one death apart: where all of them ran again
/// together, the one that ends workers would never be seen alone, and its neighbors would be quarantined with it.
const INITIAL_SUSPECT_BACKOFF: Duration = Duration::from_secs(10);
const MAX_SUSPECT_BACKOFF: Duration = Duration::from_secs(300);
/// Planned stops of a task's workers after which further ones weigh as unclear losses: the task may be what stops them.
const MAX_HAND_BACKS: u32 = 100;
/// Losses that are remembered, so that they are taken back if their worker is there again.
const MAX_LOSSES: usize = 8;

/// Returns what a worker that comes back continues; none if it never started.
fn lost(assignment: &Assignment, seen: Option<Timestamp>, planned: bool) -> Option<Box<LostAttempt>> {
    assignment.started_at?;
    let mut stopped = assignment.clone();
    stopped.stop_when_last_known(seen);
    let worked = stopped.worked(stopped.at);
    Some(Box::new(LostAttempt { assignment: assignment.clone(), worked, planned }))
}

impl Task {
    /// Returns for how many lost workers the task is to blame.
    pub fn blamed_losses(&self) -> u32 {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let clear = self.worker_losses.saturating_sub(small(self.unclear_losses.len()));
        clear.saturating_add(small(self.unclear_losses.len() / UNCLEAR_PER_LOSS))
    }
}

impl Step<'_> {
    pub(super) fn note_stale(&mut self, attempt: &AttemptRef) {
        // The live fence from an ended session or another worker is no evidence that the attempt ended.
        let live = self.task.assignment.is_some() && attempt.fence == self.task.fence;
        if !live && attempt.fence > self.task.stale_noted {
            self.task.stale_noted = attempt.fence;
            let message = format!(
                "rejected a late result from worker {}: fence {} is stale",
                attempt.by.worker, attempt.fence.0
            );
            let notice = Body::Notice { severity: Severity::Low, code: "stale_result".into(), message };
            self.log(self.now, notice);
        }
    }

    /// Ends the attempt of an overdue task whose worker has not reported in time.
    pub(super) fn overdue(&mut self, by: Timestamp) {
        let task = &mut *self.task;
        if task.desired == Desired::Cancelled {
            let message = "the worker did not confirm the cancellation in time";
            self.go(StateChange::new(State::Cancelled, "cancelled").message(message));
        } else if let Some(stopping) = task.overdue_stop(by) {
            let by = "the control plane".to_owned();
            self.end_stopped(*stopping, Completion::Stopped { by });
        } else if task.assignment.as_ref().is_some_and(|assignment| assignment.work_ended) {
            // The timeout is for work.
            let message = "the worker that has what the attempt left has not stored it in time";
            self.hand_back(None, message, 0.0);
        } else if task.state == State::Assigned {
            self.requeue("not_taken", "the worker did not accept the assignment in time");
        } else {
            self.time_out();
        }
    }

    pub(super) fn lose_worker(
        &mut self,
        session: &WorkerRef,
        loss: Loss,
        seen: Option<Timestamp>,
        message: &str,
    ) -> Result<(), Rejected> {
        let seen = seen.map(|seen| seen.min(self.now));
        let task = &mut *self.task;
        // The attempts of a replaced session continue in the new one.
        let has_it =
            task.assignment.as_ref().is_some_and(|a| a.worker == session.worker && a.epoch <= session.epoch);
        match task.state {
            _ if !has_it => self.reply(Reply::Stale),
            State::Assigned if task.desired != Desired::Cancelled => {
                task.unaccepted_losses += u32::from(loss == Loss::Died);
                if loss == Loss::Died && task.unaccepted_losses > UNACCEPTED_LOSSES {
                    self.lose_attempt(loss, seen, message);
                } else {
                    self.requeue(WORKER_LOST, message);
                }
            }
            // No program of an attempt runs that has only files to store.
            _ if loss == Loss::Planned || task.storing().is_some() => {
                // The worker may only have been cut off.
                let lost = task.assignment.as_ref().and_then(|assignment| lost(assignment, seen, true));
                self.hand_back(seen, message, 0.0);
                if matches!(self.task.state, State::Pending | State::Queued) {
                    self.task.lost = lost;
                }
            }
            _ => self.lose_attempt(loss, seen, message),
        }
        Ok(())
    }

    /// Returns the task to the queue with its rank after a planned stop of its worker. Neither the task nor the worker is to
    /// blame, hence nothing is counted against them; from the second time on there is a growing wait, so that a worker
    /// that hands everything back does not spin.
    pub(super) fn hand_back(&mut self, seen: Option<Timestamp>, message: &str, jitter: f64) {
        let task = &mut *self.task;
        if task.desired == Desired::Cancelled {
            return self.go(StateChange::new(State::Cancelled, "cancelled").message(message));
        }
        if task.hand_backs >= MAX_HAND_BACKS {
            return self.lose_attempt(Loss::Unclear, seen, message);
        }
        task.hand_backs += 1;
        if task.hand_backs > 1 {
            let wait =
                retry::backoff(INITIAL_REJECTION_BACKOFF, MAX_REJECTION_BACKOFF, task.hand_backs - 1, jitter);
            task.retry_at = Some(self.now + wait);
        }
        if let Some(assignment) = &mut task.assignment {
            assignment.stop_when_last_known(seen);
        }
        let mut change = StateChange::new(State::Pending, HANDED_BACK).message(message);
        change.failure = Some(Failure::new(Class::WorkerLost, message));
        change.worker = task.assignment.as_ref().map(|a| a.worker.clone());
        change.retry_at = task.retry_at;
        self.go(change);
        self.settle();
    }

    /// Returns the task to the queue with its rank after the loss of its worker, or quarantines it after too many
    /// losses.
    fn lose_attempt(&mut self, loss: Loss, seen: Option<Timestamp>, message: &str) {
        let task = &mut *self.task;
        if task.desired == Desired::Cancelled {
            return self.go(StateChange::new(State::Cancelled, "cancelled").message(message));
        }
        task.worker_losses += 1;
        if let Some(assignment) = &task.assignment {
            task.losses.push((task.fence, assignment.worker.clone()));
            let forgotten = task.losses.len().saturating_sub(MAX_LOSSES);
            task.losses.drain(..forgotten);
        }
        if loss == Loss::Unclear && task.unclear_losses.len() < MAX_UNCLEAR {
            task.unclear_losses.push(task.fence);
        }
        if task.blamed_losses() > task.retry.max_worker_losses {
            let text =
                format!("{message}; the task is quarantined after losing {} workers", task.worker_losses);
            let mut failure = Failure::new(Class::Quarantined, text.clone());
            failure.hint =
                "check whether the task itself crashes its workers, then retry it with `rota retry`"
                    .to_owned();
            return self.go(StateChange::new(State::Failed, QUARANTINED).message(text).failure(failure));
        }
        task.lost = task.assignment.as_ref().and_then(|assignment| lost(assignment, seen, false));
        if let Some(assignment) = &mut task.assignment {
            assignment.stop_when_last_known(seen);
        }
        if loss == Loss::Unclear && task.unclear_losses.len() > 1 {
            let count = u32::try_from(task.unclear_losses.len() - 1).unwrap_or(u32::MAX);
            let jitter = task.assignment.as_ref().map_or(0.0, Assignment::jitter);
            let wait = retry::backoff(INITIAL_SUSPECT_BACKOFF, MAX_SUSPECT_BACKOFF, count, jitter);
            task.retry_at = Some(self.now + wait);
        }
        let mut change = StateChange::new(State::Pending, WORKER_LOST).message(message);
        change.failure = Some(Failure::new(Class::WorkerLost, message));
        change.worker = task.assignment.as_ref().map(|a| a.worker.clone());
        change.retry_at = task.retry_at;
        self.go(change);
        self.settle();
    }

    /// Gives a lost attempt back to its worker, which is there again with what the attempt has done meanwhile, unless
    /// another worker was assigned the task since.
    pub(super) fn return_attempt(&mut self, by: WorkerRef, fence: Fence) {
        let task = &mut *self.task;
        let waits = matches!(task.state, State::Pending | State::Queued) && fence == task.fence;
        let is_its = |lost: &&mut Box<LostAttempt>| {
            lost.assignment.worker == by.worker && lost.assignment.epoch <= by.epoch
        };
        let returns = waits && task.lost.as_mut().filter(is_its).is_some();
        // A worker that still has the attempt was cut off and did not die of it.
        if !task.state.is_final()
            && let Some(at) =
                task.losses.iter().position(|(lost, worker)| *lost == fence && *worker == by.worker)
        {
            task.losses.remove(at);
            task.unclear_losses.retain(|lost| *lost != fence);
            task.worker_losses = task.worker_losses.saturating_sub(1);
        }
        if !returns {
            return self.reply(Reply::Stale);
        }
        let Some(lost) = task.lost.take() else { return };
        let LostAttempt { mut assignment, worked, planned } = *lost;
        // It may have reported usage since.
        if let Some(at) = task.superseded.iter().position(|one| one.fence == fence) {
            assignment.usage = task.superseded.remove(at).usage;
        }
        task.usage = task.usage.minus(&assignment.usage);
        task.logged_bytes = task.logged_bytes.saturating_sub(assignment.logged_bytes);
        task.worked = task.worked.saturating_sub(worked);
        task.hand_backs = task.hand_backs.saturating_sub(u32::from(planned));
        task.retry_at = None;
        assignment.epoch = by.epoch;
        assignment.resumed_at = Some(self.now);
        // The worker knows how long it has worked meanwhile; it may have been frozen.
        if let Some(started) = assignment.started_at.filter(|_| assignment.paused_at.is_none()) {
            assignment.paused = self.now.since(started).saturating_sub(worked);
        }
        // The span of the first part has ended and been exported.
        for (byte, other) in assignment.span_id.iter_mut().zip(by.epoch.0.to_be_bytes()) {
            *byte ^= other;
        }
        // The budget that has stopped it may have been raised since: the caller knows, and stops it again otherwise.
        assignment.stopping.take_if(|stopping| stopping.wait.is_some());
        if assignment.stopping.is_some() && !assignment.work_ended {
            task.confirm_by = Some(self.now + task.cancel_grace() + CONFIRM_SLACK);
        }
        let (seq, held_up) = (assignment.attempt_seq, assignment.paused_at.is_some());
        task.assignment = Some(assignment);
        self.go(StateChange::new(State::Running, "worker_returned").worker(&by.worker));
        self.match_input_state(self.now, held_up);
        self.reply(Reply::Reported(seq));
    }
}
