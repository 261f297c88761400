//! Attempts that end with their workers: unannounced deaths, which count against the task, and planned stops, which do not.

use super::apply::Step;
use super::run::{INITIAL_REJECTION_BACKOFF, MAX_REJECTION_BACKOFF};
use super::{Desired, Loss, LostAttempt, Rejected, Reply, State, StateChange, WorkerRef};
use crate::failure::{Class, Failure};
use crate::{Fence, retry};

/// Consecutive workers that may die with an assignment that they have not accepted, before it counts against the task.
const UNACCEPTED_LOSSES: u32 = 2;

impl Step<'_> {
    pub(super) fn lose_worker(
        &mut self,
        session: &WorkerRef,
        loss: Loss,
        message: &str,
    ) -> Result<(), Rejected> {
        let task = &mut *self.task;
        // The attempts of a replaced session continue in the new one.
        let lost =
            task.assignment.as_ref().is_some_and(|a| a.worker == session.worker && a.epoch <= session.epoch);
        match task.state {
            _ if !lost => self.reply(Reply::Stale),
            State::Assigned if task.desired != Desired::Cancelled => {
                task.unaccepted_losses += u32::from(loss == Loss::Died);
                if loss == Loss::Died && task.unaccepted_losses > UNACCEPTED_LOSSES {
                    self.lose_attempt(message);
                } else {
                    self.requeue("worker_lost", message);
                }
            }
            _ if loss == Loss::Planned => self.hand_back(message, 0.0),
            _ => self.lose_attempt(message),
        }
        Ok(())
    }

    /// Returns the task to the queue with its rank after a planned stop of its worker. Neither the task nor the worker is to
    /// blame, hence nothing is counted against them; from the second time on there is a growing wait, so that a worker
    /// that hands everything back does not spin.
    pub(super) fn hand_back(&mut self, message: &str, jitter: f64) {
        let task = &mut *self.task;
        if task.desired == Desired::Cancelled {
            return self.go(StateChange::new(State::Cancelled, "cancelled").message(message));
        }
        task.hand_backs += 1;
        if task.hand_backs > 1 {
            let wait =
                retry::backoff(INITIAL_REJECTION_BACKOFF, MAX_REJECTION_BACKOFF, task.hand_backs - 1, jitter);
            task.retry_at = Some(self.now + wait);
        }
        let mut change = StateChange::new(State::Pending, "handed_back").message(message);
        change.failure = Some(Failure::new(Class::WorkerLost, message));
        change.worker = task.assignment.as_ref().map(|a| a.worker.clone());
        change.retry_at = task.retry_at;
        self.go(change);
        self.settle();
    }

    /// Returns the task to the queue with its rank after the loss of its worker, or quarantines it after too many
    /// losses.
    fn lose_attempt(&mut self, message: &str) {
        let task = &mut *self.task;
        if task.desired == Desired::Cancelled {
            return self.go(StateChange::new(State::Cancelled, "cancelled").message(message));
        }
        task.worker_losses += 1;
        if task.worker_losses > task.retry.max_worker_losses {
            let text =
                format!("{message}; the task is quarantined after losing {} workers", task.worker_losses);
            let mut failure = Failure::new(Class::Quarantined, text.clone());
            failure.hint =
                "check whether the task itself crashes its workers, then retry it with `rota retry`"
                    .to_owned();
            return self.go(StateChange::new(State::Failed, "quarantined").message(text).failure(failure));
        }
        let started = task.assignment.as_ref().filter(|assignment| assignment.started_at.is_some());
        task.lost = started.map(|assignment| {
            Box::new(LostAttempt { assignment: assignment.clone(), worked: assignment.worked(self.now) })
        });
        let mut change = StateChange::new(State::Pending, "worker_lost").message(message);
        change.failure = Some(Failure::new(Class::WorkerLost, message));
        change.worker = task.assignment.as_ref().map(|a| a.worker.clone());
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
        if !waits || task.lost.as_mut().filter(is_its).is_none() {
            return self.reply(Reply::Stale);
        }
        let Some(lost) = task.lost.take() else { return };
        let LostAttempt { mut assignment, worked } = *lost;
        task.usage = task.usage.minus(&assignment.usage);
        task.worked = task.worked.saturating_sub(worked);
        task.worker_losses = task.worker_losses.saturating_sub(1);
        task.retry_at = None;
        assignment.epoch = by.epoch;
        assignment.resumed_at = Some(self.now);
        // The span of the first part has ended and been exported.
        for (byte, other) in assignment.span_id.iter_mut().zip(by.epoch.0.to_be_bytes()) {
            *byte ^= other;
        }
        let seq = assignment.attempt_seq;
        task.assignment = Some(assignment);
        self.go(StateChange::new(State::Running, "worker_returned").worker(&by.worker));
        self.match_input_state();
        self.reply(Reply::Reported(seq));
    }
}
